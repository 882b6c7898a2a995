//! Which files are this store's own: each ends with a digest over all of it and its name that only who has the key can make.
//!
//! ```text
//! wasmtime's ELF image   n bytes
//! "AMPHORA3"             8
//! kind                   8, little-endian: 0 module, 1 component, 2 concurrent component
//! n                      8, little-endian
//! HMAC-SHA256            32, over the length of the file's name (8, little-endian), the name, and all of the above
//! ```
//!
//! The name has the program's digest, the engine and what the code can do: code of another program or engine is not right
//! under this one. The key comes from the system's random numbers, and lies beside the directory.

use super::{
    draft::Draft,
    error::{CacheError, io_error},
    kind::Kind,
};
use ring::{
    hmac,
    rand::{SecureRandom, SystemRandom},
};
use rustix::{
    fs::{FileType, Mode, OFlags, fstat},
    io::Errno,
    process::geteuid,
};
use std::{
    fs::File,
    io::{self, Read, Write},
    os::unix::fs::FileExt,
    path::Path,
};

const KEY_BYTES: usize = 32;
const MAGIC: [u8; 8] = *b"AMPHORA3";
const HEADER_BYTES: usize = 24;
const DIGEST_BYTES: usize = 32;
const TRAILER_BYTES: usize = HEADER_BYTES + DIGEST_BYTES;
/// The longest image that is looked at: many times what the largest program comes to. A sparse file can claim any size.
const MOST_IMAGE_BYTES: u64 = 8 << 30;
/// What is read at once to be checked.
const CHUNK_BYTES: usize = 128 << 10;

/// What only the directory's owner knows.
pub(super) struct Key(hmac::Key);

impl Key {
    /// None if there is none that nobody else could have read or written.
    pub(super) fn read(path: &Path) -> Result<Option<Self>, CacheError> {
        let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NOFOLLOW | OFlags::NONBLOCK;
        let file = match rustix::fs::open(path, flags, Mode::empty()) {
            Ok(file) => File::from(file),
            Err(Errno::NOENT | Errno::LOOP) => return Ok(None),
            Err(errno) => return Err(io_error("open", path)(errno)),
        };
        let stat = fstat(&file).map_err(io_error("stat", path))?;
        let is_private = FileType::from_raw_mode(stat.st_mode) == FileType::RegularFile
            && stat.st_uid == geteuid().as_raw()
            && stat.st_mode & 0o077 == 0;
        if !is_private {
            return Ok(None);
        }
        let mut bytes = Vec::new();
        file.take(KEY_BYTES as u64 + 1).read_to_end(&mut bytes).map_err(io_error("read", path))?;
        Ok((bytes.len() == KEY_BYTES).then(|| Self::of(&bytes)))
    }

    /// The key in this file; makes it if there is none. What was sealed with another is then not right any more.
    pub(super) fn read_or_make(path: &Path) -> Result<Self, CacheError> {
        if let Some(key) = Self::read(path)? {
            return Ok(key);
        }
        let draft = Draft::begin(path)?;
        if let Some(key) = Self::read(path)? {
            return Ok(key);
        }
        let mut bytes = [0; KEY_BYTES];
        SystemRandom::new().fill(&mut bytes).map_err(|ring::error::Unspecified| CacheError::Random)?;
        (&draft.file).write_all(&bytes).map_err(io_error("write", path))?;
        draft.publish(path)?;
        Ok(Self::of(&bytes))
    }

    fn of(bytes: &[u8]) -> Self {
        Self(hmac::Key::new(hmac::HMAC_SHA256, bytes))
    }

    fn begin(&self, name: &str) -> hmac::Context {
        let mut digest = hmac::Context::with_key(&self.0);
        digest.update(&(name.len() as u64).to_le_bytes());
        digest.update(name.as_bytes());
        digest
    }

    /// Writes an image and what seals it as that of a file of this name.
    pub(super) fn write(&self, mut file: &File, name: &str, kind: Kind, image: &[u8]) -> io::Result<()> {
        let header = header(kind, image.len() as u64);
        let mut digest = self.begin(name);
        digest.update(image);
        digest.update(&header);
        file.write_all(image)?;
        file.write_all(&header)?;
        file.write_all(digest.sign().as_ref())
    }

    /// The kind that a file of this name is of; none if it was not written so with this key. `bytes`: its length.
    pub(super) fn check(&self, file: &File, name: &str, bytes: u64) -> io::Result<Option<Kind>> {
        let image_bytes = bytes.checked_sub(TRAILER_BYTES as u64).filter(|bytes| *bytes <= MOST_IMAGE_BYTES);
        let Some(image_bytes) = image_bytes else { return Ok(None) };
        let mut trailer = [0; TRAILER_BYTES];
        file.read_exact_at(&mut trailer, image_bytes)?;
        let (found, sealed) = trailer.split_at(HEADER_BYTES);
        let Some(kind) = kind_in(found, image_bytes) else { return Ok(None) };
        let mut digest = self.begin(name);
        let (mut chunk, mut at) = (vec![0; CHUNK_BYTES], 0);
        while at < image_bytes {
            let part = usize::try_from(image_bytes - at).unwrap_or(CHUNK_BYTES).min(CHUNK_BYTES);
            file.read_exact_at(&mut chunk[..part], at)?;
            digest.update(&chunk[..part]);
            at += part as u64;
        }
        digest.update(found);
        let differs = digest.sign().as_ref().iter().zip(sealed).fold(0, |differs, (a, b)| differs | (a ^ b));
        Ok((differs == 0).then_some(kind))
    }
}

fn header(kind: Kind, image_bytes: u64) -> [u8; HEADER_BYTES] {
    let mut header = [0; HEADER_BYTES];
    header[..8].copy_from_slice(&MAGIC);
    header[8..16].copy_from_slice(&(kind as u64).to_le_bytes());
    header[16..].copy_from_slice(&image_bytes.to_le_bytes());
    header
}

/// The kind that a header names, if the rest of it is that of an image of this length.
fn kind_in(found: &[u8], image_bytes: u64) -> Option<Kind> {
    let number = u64::from_le_bytes(found.get(8..16)?.try_into().ok()?);
    Kind::numbered(number).filter(|kind| header(*kind, image_bytes) == *found)
}
