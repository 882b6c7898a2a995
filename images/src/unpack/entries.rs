//! Tar entries, one at a time, with their extensions already applied: GNU long names, PAX, sparse files.
//!
//! The `tar` crate gives the header's fields; its own iterator holds extension headers of any size in memory and does
//! not know PAX's sparse files, so the iteration is here, with bounds.

use super::{
    UnpackError,
    input::{BUFFER_BYTES, Input, Source},
    names::printable,
    pax::{self, Pax},
};
use crate::Digest;
use std::{io, str::FromStr};
use tar::{EntryType, GnuExtSparseHeader, GnuSparseHeader, Header};

const BLOCK: usize = 512;
/// What one extension header (a long name, a PAX header, a sparse map) may take.
const EXTENSION_BYTES: u64 = 1 << 20;

/// What an entry makes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    File,
    Directory,
    Symlink,
    HardLink,
    Fifo,
    CharDevice,
    BlockDevice,
}

/// One entry. Its stored data are read from [`Entries`] before the next one.
#[derive(Debug)]
pub(crate) struct Entry {
    pub(crate) path: Vec<u8>,
    pub(crate) link: Vec<u8>,
    pub(crate) kind: Kind,
    /// Permissions, set-id and sticky bits.
    pub(crate) mode: u32,
    pub(crate) uid: u32,
    pub(crate) gid: u32,
    /// Seconds and nanoseconds.
    pub(crate) mtime: (i64, u32),
    /// Major, minor.
    pub(crate) device: (u32, u32),
    /// Bytes stored in the archive.
    pub(crate) size: u64,
    pub(crate) sparse: Option<Sparse>,
    pub(crate) xattrs: Vec<(Vec<u8>, Vec<u8>)>,
}

/// A file with holes.
#[derive(Debug)]
pub(crate) struct Sparse {
    /// The file's size with its holes.
    pub(crate) real_size: u64,
    /// Offset and length of each piece, ascending. The archive stores them one after the other.
    pub(crate) pieces: Vec<(u64, u64)>,
}

/// The entries of an archive.
pub(crate) struct Entries<S> {
    source: S,
    /// Data of the current entry not read yet.
    left: u64,
    /// What pads it to whole blocks.
    padding: usize,
    /// Set by the end-of-archive block.
    ended: bool,
    /// Bytes of extension headers since the last entry: they are held until the next one.
    extensions: u64,
    /// For messages.
    current: Vec<u8>,
}

/// What precedes an entry's own header.
#[derive(Default)]
struct Extensions {
    path: Option<Vec<u8>>,
    link: Option<Vec<u8>>,
    pax: Pax,
}

impl<S: Source> Entries<S> {
    pub(crate) fn new(source: S) -> Self {
        Self { source, left: 0, padding: 0, ended: false, extensions: 0, current: Vec::new() }
    }

    /// The source, for its position.
    pub(crate) fn source(&self) -> &S {
        &self.source
    }

    /// The next entry, or `None` at the end of the archive. Data of the entry before that were not read are skipped.
    pub(crate) fn next(&mut self) -> Result<Option<Entry>, UnpackError> {
        let mut extensions = Extensions::default();
        self.extensions = 0;
        while let Some(header) = self.header()? {
            match header.entry_type() {
                EntryType::GNULongName => extensions.path = Some(until_nul(self.extension(&header)?)),
                EntryType::GNULongLink => extensions.link = Some(until_nul(self.extension(&header)?)),
                EntryType::XHeader => {
                    let records = self.extension(&header)?;
                    extensions.pax.parse(&records).map_err(|reason| self.malformed(reason))?;
                }
                EntryType::XGlobalHeader => self.start_data(self.number(&header.as_old().size)?)?,
                _ => return self.entry(&header, extensions).map(Some),
            }
        }
        Ok(None)
    }

    /// A piece of the current entry's data, at most one buffer full. Empty at its end.
    pub(crate) fn data(&mut self) -> Result<&[u8], UnpackError> {
        let wanted = usize::try_from(self.left).map_or(BUFFER_BYTES, |left| left.min(BUFFER_BYTES));
        match self.source.peek(wanted) {
            Ok(bytes) if bytes.is_empty() && wanted > 0 => Err(truncated(&self.current)),
            Ok(bytes) => Ok(bytes),
            Err(source) => Err(read_error(&self.current, source)),
        }
    }

    /// Marks that much of what [`Self::data`] gave as used.
    pub(crate) fn consume(&mut self, length: usize) {
        self.source.consume(length);
        self.left -= length as u64;
    }

    /// Skips what is left of the current entry, then reads the next header.
    fn header(&mut self) -> Result<Option<Header>, UnpackError> {
        if self.ended {
            return Ok(None);
        }
        let (data, padding) = (std::mem::take(&mut self.left), std::mem::take(&mut self.padding));
        if !self.source.skip(data).map_err(|source| read_error(&self.current, source))? {
            return Err(truncated(&self.current));
        }
        if !self.skip_padding(padding)? {
            self.ended = true;
            return Ok(None);
        }
        let Some(block) = self.block()? else {
            self.ended = true;
            return Ok(None);
        };
        if block.iter().all(|&byte| byte == 0) {
            self.ended = true;
            return Ok(None);
        }
        let header = Header::from_byte_slice(&block).clone();
        self.check_sum(&header)?;
        Ok(Some(header))
    }

    /// False at the end of the stream: the last entry's padding may be missing, as may the final blocks of zeros.
    fn skip_padding(&mut self, padding: usize) -> Result<bool, UnpackError> {
        let found = self.source.peek(padding).map_err(|source| read_error(&self.current, source))?.len();
        if 0 < found && found < padding {
            return Err(truncated(&self.current));
        }
        self.source.consume(found);
        Ok(found == padding)
    }

    fn block(&mut self) -> Result<Option<[u8; BLOCK]>, UnpackError> {
        let bytes = self.source.peek(BLOCK).map_err(|source| read_error(&self.current, source))?;
        if bytes.is_empty() {
            return Ok(None);
        }
        let block = bytes.try_into().map_err(|_| truncated(&self.current))?;
        self.source.consume(BLOCK);
        Ok(Some(block))
    }

    fn check_sum(&self, header: &Header) -> Result<(), UnpackError> {
        let bytes = header.as_bytes();
        let field = 148..156;
        let sum: u64 =
            bytes.iter().enumerate().map(|(at, &b)| if field.contains(&at) { 32 } else { u64::from(b) }).sum();
        let stored = parse_number(&bytes[field]);
        if stored == Some(i128::from(sum)) {
            return Ok(());
        }
        Err(self.malformed(format!("the header after it has a wrong checksum: {sum} computed, {stored:?} stored")))
    }

    /// The whole content of an extension header.
    fn extension(&mut self, header: &Header) -> Result<Vec<u8>, UnpackError> {
        let size = self.number(&header.as_old().size)?;
        self.extensions = self.extensions.saturating_add(size);
        if self.extensions > EXTENSION_BYTES {
            let found = self.extensions;
            let reason =
                format!("extension headers of {found} bytes follow it; at most {EXTENSION_BYTES} are possible");
            return Err(self.malformed(reason));
        }
        self.start_data(size)?;
        let mut content = Vec::new();
        while self.left > 0 {
            let bytes = self.data()?;
            content.extend_from_slice(bytes);
            let count = bytes.len();
            self.consume(count);
        }
        Ok(content)
    }

    fn start_data(&mut self, size: u64) -> Result<(), UnpackError> {
        self.left = size;
        self.padding = padding(size);
        if size > i64::MAX as u64 {
            return Err(self.malformed(format!("it claims {size} bytes")));
        }
        Ok(())
    }

    fn entry(&mut self, header: &Header, extensions: Extensions) -> Result<Entry, UnpackError> {
        let Extensions { path, link, mut pax } = extensions;
        let own_path = || path.unwrap_or_else(|| header.path_bytes().into_owned());
        let sparse_name = pax.sparse.name.take();
        let path = sparse_name.or(pax.path.take()).unwrap_or_else(own_path);
        self.current.clone_from(&path);
        let kind = self.kind(header.entry_type(), &path)?;
        let own_link = || link.unwrap_or_else(|| header.link_name_bytes().unwrap_or_default().into_owned());
        let link = pax.link.take().unwrap_or_else(own_link);
        let stored =
            if kind == Kind::File { pax.size.map_or_else(|| self.number(&header.as_old().size), Ok)? } else { 0 };
        self.start_data(stored)?;
        let old = header.as_old();
        let sparse = self.sparse(header, &pax)?;
        Ok(Entry {
            path,
            link,
            kind,
            mode: u32::try_from(self.number(&old.mode)? & 0o7777).unwrap_or_default(),
            uid: self.owner(pax.uid, &old.uid)?,
            gid: self.owner(pax.gid, &old.gid)?,
            mtime: pax.mtime.map_or_else(|| self.mtime(&old.mtime), Ok)?,
            device: self.device(header)?,
            size: self.left,
            sparse,
            xattrs: pax.xattrs,
        })
    }

    fn kind(&self, entry_type: EntryType, path: &[u8]) -> Result<Kind, UnpackError> {
        Ok(match entry_type {
            // Archives from before 1988 mark a directory by its name.
            EntryType::Regular if path.ends_with(b"/") => Kind::Directory,
            EntryType::Regular | EntryType::Continuous | EntryType::GNUSparse => Kind::File,
            EntryType::Directory => Kind::Directory,
            EntryType::Symlink => Kind::Symlink,
            EntryType::Link => Kind::HardLink,
            EntryType::Fifo => Kind::Fifo,
            EntryType::Char => Kind::CharDevice,
            EntryType::Block => Kind::BlockDevice,
            other => {
                let letter = other.as_byte().escape_ascii();
                return Err(self.malformed(format!("its type is `{letter}`, which no layer has")));
            }
        })
    }

    fn sparse(&mut self, header: &Header, pax: &Pax) -> Result<Option<Sparse>, UnpackError> {
        let (real_size, numbers) = if header.entry_type() == EntryType::GNUSparse {
            self.gnu_sparse(header)?
        } else if let Some(real_size) = pax.sparse.real_size {
            let map = if pax.sparse.major == Some(1) { self.map_in_data()? } else { pax.sparse.numbers.clone() };
            (real_size, map)
        } else {
            return Ok(None);
        };
        let pieces = pieces(&numbers, real_size, self.left).map_err(|reason| self.malformed(reason))?;
        Ok(Some(Sparse { real_size, pieces }))
    }

    /// The old GNU format: four pieces in the header, 21 in each extension block.
    fn gnu_sparse(&mut self, header: &Header) -> Result<(u64, Vec<u64>), UnpackError> {
        let gnu = header.as_gnu().ok_or_else(|| self.malformed("it is sparse, but not in GNU's format".into()))?;
        let mut numbers = Vec::new();
        self.sparse_numbers(&gnu.sparse, &mut numbers)?;
        let mut more = gnu.is_extended();
        while more {
            let block = self.block()?.ok_or_else(|| truncated(&self.current))?;
            let mut extension = GnuExtSparseHeader::new();
            extension.as_mut_bytes().copy_from_slice(&block);
            self.sparse_numbers(extension.sparse(), &mut numbers)?;
            self.check_map_size(numbers.len())?;
            more = extension.is_extended();
        }
        Ok((self.number(&gnu.realsize)?, numbers))
    }

    fn sparse_numbers(&self, fields: &[GnuSparseHeader], numbers: &mut Vec<u64>) -> Result<(), UnpackError> {
        for field in fields.iter().take_while(|field| !field.is_empty()) {
            numbers.extend([self.number(&field.offset)?, self.number(&field.numbytes)?]);
        }
        Ok(())
    }

    fn check_map_size(&self, numbers: usize) -> Result<(), UnpackError> {
        if numbers as u64 > EXTENSION_BYTES / 8 {
            return Err(self.malformed("its map of holes has more than 65536 pieces".into()));
        }
        Ok(())
    }

    /// PAX 1.0: the map precedes the data, as decimal lines: count, offset, length, offset, length, …, padded to whole
    /// blocks.
    fn map_in_data(&mut self) -> Result<Vec<u64>, UnpackError> {
        let before = self.left;
        let count = self.map_line()?;
        self.check_map_size(usize::try_from(count).unwrap_or(usize::MAX).saturating_mul(2))?;
        let numbers = (0..count * 2).map(|_| self.map_line()).collect::<Result<Vec<_>, _>>()?;
        for _ in 0..padding(before - self.left) {
            self.map_byte()?;
        }
        Ok(numbers)
    }

    fn map_line(&mut self) -> Result<u64, UnpackError> {
        let mut digits = Vec::with_capacity(20);
        loop {
            match self.map_byte()? {
                b'\n' => break,
                digit if digits.len() < 20 => digits.push(digit),
                _ => return Err(self.malformed("its map of holes has a number of more than 20 digits".into())),
            }
        }
        pax::decimal(&digits).ok_or_else(|| self.malformed("its map of holes has a line that is no number".into()))
    }

    fn map_byte(&mut self) -> Result<u8, UnpackError> {
        match self.data()?.first().copied() {
            Some(byte) => {
                self.consume(1);
                Ok(byte)
            }
            None => Err(truncated(&self.current)),
        }
    }

    fn number(&self, field: &[u8]) -> Result<u64, UnpackError> {
        parse_number(field).and_then(|value| value.try_into().ok()).ok_or_else(|| {
            self.malformed(format!("a field of its header has `{}`; a number is expected", field.escape_ascii()))
        })
    }

    fn mtime(&self, field: &[u8]) -> Result<(i64, u32), UnpackError> {
        let seconds = parse_number(field).and_then(|value| value.try_into().ok());
        seconds.map(|seconds| (seconds, 0)).ok_or_else(|| self.malformed("its time is not a number".into()))
    }

    fn owner(&self, pax: Option<u64>, field: &[u8]) -> Result<u32, UnpackError> {
        let id = pax.map_or_else(|| self.number(field), Ok)?;
        let id = u32::try_from(id).ok().filter(|&id| id != u32::MAX);
        id.ok_or_else(|| self.malformed("its owner's id is larger than Linux has (4294967294)".into()))
    }

    fn device(&self, header: &Header) -> Result<(u32, u32), UnpackError> {
        let ustar = match (header.as_ustar(), header.as_gnu()) {
            (Some(ustar), _) => (&ustar.dev_major, &ustar.dev_minor),
            (_, Some(gnu)) => (&gnu.dev_major, &gnu.dev_minor),
            _ => return Ok((0, 0)),
        };
        let half = |field| self.number(field).map(|id| u32::try_from(id).unwrap_or(u32::MAX));
        Ok((half(ustar.0)?, half(ustar.1)?))
    }

    fn malformed(&self, reason: String) -> UnpackError {
        UnpackError::Malformed { entry: printable(&self.current), reason }
    }
}

impl Entries<Input<'_>> {
    /// Reads the stream to its end; its diff id.
    pub(crate) fn finish(self) -> Result<Digest, UnpackError> {
        let digest = self.source.finish().map_err(|source| read_error(&self.current, source))?;
        Digest::from_str(&format!("sha256:{digest}"))
            .map_err(|error| UnpackError::Read { after: printable(&self.current), source: io::Error::other(error) })
    }
}

/// What fills so many bytes up to whole blocks.
fn padding(size: u64) -> usize {
    usize::try_from(size.wrapping_neg() % BLOCK as u64).unwrap_or_default()
}

fn truncated(entry: &[u8]) -> UnpackError {
    UnpackError::Truncated { entry: printable(entry) }
}

fn read_error(entry: &[u8], source: io::Error) -> UnpackError {
    UnpackError::Read { after: printable(entry), source }
}

fn until_nul(mut text: Vec<u8>) -> Vec<u8> {
    text.truncate(text.iter().position(|&byte| byte == 0).unwrap_or(text.len()));
    text
}

/// A numeric header field: octal digits between blanks, or base 256 (GNU) where the first bit is set. An empty field is
/// 0.
fn parse_number(field: &[u8]) -> Option<i128> {
    match field.first()? {
        first @ 0x80.. => {
            // The second bit is the sign; the rest is big-endian in two's complement.
            let start = if first & 0x40 == 0 { i128::from(first & 0x3f) } else { i128::from(first & 0x3f) - 0x40 };
            field[1..].iter().try_fold(start, |value, &byte| Some(value.checked_mul(256)? + i128::from(byte)))
        }
        _ => {
            let text = std::str::from_utf8(field).ok()?.trim_matches(|c| c == ' ' || c == '\0');
            if text.is_empty() { Some(0) } else { i128::from_str_radix(text, 8).ok().filter(|&value| value >= 0) }
        }
    }
}

/// The pieces of a sparse file, checked: ascending, within the file, and as long together as what is stored.
fn pieces(numbers: &[u64], real_size: u64, stored: u64) -> Result<Vec<(u64, u64)>, String> {
    let pieces: Vec<_> = numbers.chunks_exact(2).map(|pair| (pair[0], pair[1])).collect();
    let mut end = 0;
    let mut total = 0_u64;
    for &(offset, length) in &pieces {
        let after = offset.checked_add(length).filter(|&after| offset >= end && after <= real_size);
        end = after.ok_or_else(|| format!("its map of holes is wrong at offset {offset}, length {length}"))?;
        total += length;
    }
    if !numbers.len().is_multiple_of(2) || total != stored {
        return Err(format!("its map of holes describes {total} bytes; {stored} are stored"));
    }
    Ok(pieces)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_octal_or_base_256() {
        for (field, expected) in [
            (&b"0000644\0"[..], Some(0o644)),
            (b" 755 \0\0\0", Some(0o755)),
            (b"\0\0\0\0", Some(0)),
            (b"9\0", None),
            (b"-1\0", None),
            (&[0x80, 0, 0, 0, 1, 0, 0, 0], Some(1 << 24)),
            (&[0xff, 0xff, 0xff, 0xfe], Some(-2)),
            (&[0xff; 12], Some(-1)),
        ] {
            assert_eq!(parse_number(field), expected, "{}", field.escape_ascii());
        }
    }

    #[test]
    fn sparse_pieces_must_fit() {
        assert_eq!(pieces(&[0, 3, 10, 2], 20, 5).unwrap(), [(0, 3), (10, 2)]);
        for (numbers, real_size, stored) in
            [(&[0, 3, 2, 2][..], 20, 5), (&[0, 3], 2, 3), (&[0, 3], 20, 4), (&[0], 20, 0), (&[u64::MAX, 2], 20, 2)]
        {
            assert!(pieces(numbers, real_size, stored).is_err(), "{numbers:?}");
        }
    }
}
