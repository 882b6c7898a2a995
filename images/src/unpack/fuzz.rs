//! Properties of what reads layers; see [`crate::fuzz`].

#![expect(clippy::unwrap_used, reason = "a panic is how a property fails")]

use super::{Compression, decompress, input::hex, pax::Pax, unpack};
use crate::{Budget, budget::Limits, fuzz::refused, remove_tree};
use sha2::{Digest as _, Sha256};
use std::{fs, io::Read};

const LIMITS: Limits = Limits {
    held_bytes: 1 << 20,
    window_bytes: 8 << 20,
    documents: 10,
    entries: 2000,
    unpacked_bytes: 8 << 20,
    steps: 1 << 12,
    time: std::time::Duration::from_secs(60),
};

pub(crate) fn pax(bytes: &[u8]) -> bool {
    let mut pax = Pax::default();
    if let Err(reason) = pax.parse(bytes) {
        return refused(&reason);
    }
    let xattrs = pax.xattrs.iter().flat_map(|(name, value)| [name, value]);
    let texts: Vec<&Vec<u8>> = [&pax.path, &pax.link, &pax.sparse.name].into_iter().flatten().chain(xattrs).collect();
    let kept = texts.iter().map(|text| text.len()).sum::<usize>() + pax.sparse.numbers.len();
    assert!(kept <= bytes.len(), "{kept} bytes are kept of {}", bytes.len());
    assert!(texts.iter().all(|text| text.is_empty() || bytes.windows(text.len()).any(|part| part == **text)));
    assert!(pax.mtime.is_none_or(|(_, nanoseconds)| nanoseconds < 1_000_000_000), "{:?}", pax.mtime);
    true
}

/// Unpacks it as it is, and with all its headers' sums made right.
pub(crate) fn layer(bytes: &[u8]) -> bool {
    let summed = summed(bytes);
    unpacked(bytes) | (summed != bytes && unpacked(&summed))
}

fn unpacked(bytes: &[u8]) -> bool {
    let place = tempfile::tempdir().unwrap();
    let (target, beside) = (place.path().join("layer"), place.path().join("beside"));
    fs::create_dir(&target).unwrap();
    fs::write(&beside, "beside").unwrap();
    let taken = match unpack(&mut &bytes[..], &target, &Budget::new(LIMITS)) {
        Ok(found) => {
            assert_eq!(found.digest(), hex(&Sha256::digest(bytes)));
            true
        }
        Err(error) => refused(&error),
    };
    let mut names: Vec<_> = fs::read_dir(place.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    names.sort();
    assert_eq!(names, ["beside", "layer"]);
    assert_eq!(fs::read(&beside).unwrap(), b"beside");
    remove_tree(&target).unwrap();
    taken
}

/// The same archive with the sum that each block should have where it looks like a header.
pub(crate) fn summed(bytes: &[u8]) -> Vec<u8> {
    let mut summed = bytes.to_vec();
    for block in summed.chunks_exact_mut(512).filter(|block| &block[257..262] == b"ustar") {
        block[148..156].fill(b' ');
        let sum: u32 = block.iter().map(|&byte| u32::from(byte)).sum();
        block[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    }
    summed
}

pub(crate) fn compression(bytes: &[u8]) -> bool {
    let mut stream = match decompress(Box::new(bytes), &Budget::new(LIMITS)) {
        Err(error) => return refused(&error),
        Ok(stream) => stream,
    };
    let mut plain = Vec::new();
    match stream.by_ref().take(LIMITS.unpacked_bytes).read_to_end(&mut plain) {
        Err(error) => refused(&error),
        Ok(_) if Compression::of(bytes) == Compression::None => {
            assert_eq!(plain, bytes);
            true
        }
        Ok(_) => true,
    }
}
