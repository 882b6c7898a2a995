//! Compression, by the bytes and never by the media type: gzip, zstd, xz, bzip2, or none.

use crate::{Budget, budget::Hold};
use bzip2::bufread::MultiBzDecoder;
use flate2::bufread::GzDecoder;
use lzma_rust2::XzReader;
use std::io::{self, BufRead, BufReader, Cursor, Read};

/// How many bytes it takes to tell a compression: those of a tar archive's first header, which may begin like anything.
pub(crate) const HEAD_LENGTH: usize = 512;
/// The window of a zstd frame that every decoder must be able to keep (RFC 8878, 3.1.1.1.2), as a power of two.
const LEAST_WINDOW_LOG: u32 = 23;

/// What `xz -9` needs of a decoder: 64 MiB, and what goes with them.
const XZ_BYTES: u64 = 66 << 20;

/// How a stream is compressed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Compression {
    None,
    Gzip,
    Zstd,
    Xz,
    Bzip2,
}

impl Compression {
    /// By a stream's first [`HEAD_LENGTH`] bytes. A tar header with the right checksum is one, whatever its entry is
    /// called: a name may begin like a compressed file.
    pub(crate) fn of(first: &[u8]) -> Self {
        match first {
            _ if is_tar(first) => Self::None,
            [0x1f, 0x8b, ..] => Self::Gzip,
            [0x28, 0xb5, 0x2f, 0xfd, ..] | [0x50..=0x5f, 0x2a, 0x4d, 0x18, ..] => Self::Zstd,
            [0xfd, b'7', b'z', b'X', b'Z', 0, ..] => Self::Xz,
            [b'B', b'Z', b'h', b'1'..=b'9', 0x31, 0x41, ..] => Self::Bzip2,
            _ => Self::None,
        }
    }

    /// What a layer's blob is stored with: what has no media type of its own is stored as it is without.
    pub(crate) fn stored(self) -> Self {
        match self {
            Self::None | Self::Xz | Self::Bzip2 => Self::None,
            Self::Gzip | Self::Zstd => self,
        }
    }

    /// The media type of a root file system layer that is stored so (OCI image-spec, media-types.md).
    pub(crate) fn layer_media_type(self) -> &'static str {
        match self {
            Self::None | Self::Xz | Self::Bzip2 => "application/vnd.oci.image.layer.v1.tar",
            Self::Gzip => "application/vnd.oci.image.layer.v1.tar+gzip",
            Self::Zstd => "application/vnd.oci.image.layer.v1.tar+zstd",
        }
    }
}

/// Whether a tar archive begins so: a header with the right checksum, or nothing but zeros (an archive without entries).
pub(crate) fn is_tar(head: &[u8]) -> bool {
    let Some(block) = head.get(..512) else { return false };
    let sum: u32 =
        block.iter().enumerate().map(|(at, &byte)| if (148..156).contains(&at) { 32 } else { u32::from(byte) }).sum();
    let stored = tar::Header::from_byte_slice(block).cksum().unwrap_or_default();
    sum == stored || block.iter().all(|&byte| byte == 0)
}

/// Decompresses a stream, told by its first bytes: gzip, zstd, xz and bzip2 (of several parts too), or none.
///
/// # Errors
/// Reading the first bytes fails, or they ask for more memory than the budget has. An xz block may need 66 MiB.
pub fn decompress<'a>(mut stream: Box<dyn Read + Send + 'a>, budget: &Budget) -> io::Result<Box<dyn Read + Send + 'a>> {
    let mut first = Vec::with_capacity(HEAD_LENGTH);
    stream.by_ref().take(HEAD_LENGTH as u64).read_to_end(&mut first)?;
    let compression = Compression::of(&first);
    let window_log = window_log(&first);
    let whole = Cursor::new(first).chain(stream);
    Ok(match compression {
        Compression::None => Box::new(whole),
        Compression::Gzip => Box::new(Members::new(BufReader::with_capacity(64 << 10, whole))),
        Compression::Zstd => Box::new(zstd_decoder(whole, window_log, budget)?),
        Compression::Xz => Box::new(xz_decoder(whole, budget)?),
        Compression::Bzip2 => Box::new(MultiBzDecoder::new(BufReader::with_capacity(64 << 10, whole))),
    })
}

/// What a layer is stored as: see [`Compression::stored`].
///
/// # Errors
/// As [`decompress`].
pub(crate) fn storable<'a>(
    stream: Box<dyn Read + Send + 'a>,
    compression: Compression,
    budget: &Budget,
) -> io::Result<Box<dyn Read + Send + 'a>> {
    if compression.stored() == compression { Ok(stream) } else { decompress(stream, budget) }
}

/// The members of a gzip file, one after another (RFC 1952, 2.2). What follows them and is none of them is told as that.
struct Members<R: BufRead> {
    /// Only between two calls.
    member: Option<GzDecoder<R>>,
}

impl<R: BufRead> Members<R> {
    fn new(stream: R) -> Self {
        Self { member: Some(GzDecoder::new(stream)) }
    }
}

impl<R: BufRead> Read for Members<R> {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        while let Some(member) = &mut self.member {
            let count = member.read(out)?;
            if count > 0 || out.is_empty() {
                return Ok(count);
            }
            let Some(mut rest) = self.member.take().map(GzDecoder::into_inner) else { break };
            match rest.fill_buf()?.first() {
                None => break,
                Some(0x1f) => self.member = Some(GzDecoder::new(rest)),
                Some(_) => {
                    return Err(io::Error::new(
                        io::ErrorKind::InvalidData,
                        "after its end as gzip there is something else",
                    ));
                }
            }
        }
        Ok(0)
    }
}

/// A decoder and the memory that it may take.
struct Windowed<R> {
    decoder: R,
    _window: Hold,
}

impl<R: Read> Read for Windowed<R> {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        self.decoder.read(out)
    }
}

fn zstd_decoder<'a>(
    stream: impl Read + Send + 'a,
    window_log: Option<u32>,
    budget: &Budget,
) -> io::Result<Windowed<impl Read + Send + 'a>> {
    // Unknown: as much as there is.
    let log = window_log.unwrap_or_else(|| budget.limits().window_bytes.ilog2()).max(LEAST_WINDOW_LOG);
    let bytes = 1_u64.checked_shl(log).unwrap_or(u64::MAX);
    let window = budget.window(bytes).map_err(|bound| io::Error::new(io::ErrorKind::FileTooLarge, bound))?;
    let mut decoder = zstd::stream::read::Decoder::new(stream)?;
    decoder.window_log_max(log)?;
    Ok(Windowed { decoder, _window: window })
}

fn xz_decoder<'a>(stream: impl Read + Send + 'a, budget: &Budget) -> io::Result<Windowed<impl Read + Send + 'a>> {
    let window = budget.window(XZ_BYTES).map_err(|bound| io::Error::new(io::ErrorKind::FileTooLarge, bound))?;
    let kibibytes = u32::try_from(XZ_BYTES >> 10).unwrap_or(u32::MAX);
    let decoder = XzReader::new_mem_limit(BufReader::with_capacity(64 << 10, stream), true, kibibytes);
    Ok(Windowed { decoder, _window: window })
}

/// The power of two that the window of a stream's first zstd frame fits into (RFC 8878, 3.1.1.1). None: it begins with
/// something else. Later frames may have no larger one.
fn window_log(first: &[u8]) -> Option<u32> {
    let header = first.strip_prefix(&[0x28, 0xb5, 0x2f, 0xfd])?;
    let (&descriptor, fields) = header.split_first()?;
    let window = if descriptor & 0x20 == 0 {
        let field = *fields.first()?;
        let base = 1_u64.checked_shl(10 + u32::from(field >> 3))?;
        base + base / 8 * u64::from(field & 7)
    } else {
        content_size(descriptor, fields)?
    };
    Some(window.max(1).checked_next_power_of_two()?.ilog2())
}

/// A frame in a single segment is its own window.
fn content_size(descriptor: u8, fields: &[u8]) -> Option<u64> {
    let dictionary_bytes = [0, 1, 2, 4][usize::from(descriptor & 3)];
    let size_bytes = [1, 2, 4, 8][usize::from(descriptor >> 6)];
    let field = fields.get(dictionary_bytes..dictionary_bytes + size_bytes)?;
    let size = field.iter().rev().fold(0, |sum, &byte| sum << 8 | u64::from(byte));
    Some(if size_bytes == 2 { size + 256 } else { size })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    #[test]
    fn a_tar_whose_first_name_begins_like_a_compressed_file_is_a_tar() {
        for name in [&b"\x1f\x8b\x08"[..], b"\x28\xb5\x2f\xfd", b"\x50\x2a\x4d\x18", b"BZh91AY", b"\xfd7zXZ"] {
            let mut header = tar::Header::new_gnu();
            header.as_old_mut().name[..name.len()].copy_from_slice(name);
            header.set_size(0);
            header.set_cksum();
            assert_eq!(Compression::of(header.as_bytes()), Compression::None, "{name:?}");
            header.as_old_mut().name[90] ^= 1;
            assert_ne!(Compression::of(header.as_bytes()), Compression::None, "{name:?}");
        }
        assert_eq!(Compression::of(b"\x1f\x8b"), Compression::Gzip);
    }

    /// It was "unexpected end of file".
    #[test]
    fn what_follows_a_gzip_file_is_told_as_that() {
        let member = |content: &[u8]| {
            let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
            encoder.write_all(content).unwrap();
            encoder.finish().unwrap()
        };
        let read = |bytes: &[u8]| {
            let mut text = String::new();
            let mut decoder = decompress(Box::new(bytes), &Budget::default())?;
            decoder.read_to_string(&mut text).map(|_| text)
        };
        assert_eq!(read(&[member(b"a"), member(b""), member(b"b")].concat()).unwrap(), "ab");
        let garbage = read(&[member(b"a"), b"garbage".to_vec()].concat()).unwrap_err().to_string();
        assert_eq!(garbage, "after its end as gzip there is something else");
        let cut = member(b"a");
        assert_eq!(read(&cut[..cut.len() - 1]).unwrap_err().kind(), io::ErrorKind::UnexpectedEof);
    }

    /// Made by Python's `lzma` and `bz2`: "hello " and "world", one after the other.
    const XZ: &[u8] = b"\xfd7zXZ\x00\x00\x04\xe6\xd6\xb4F\x02\x00!\x01\x16\x00\x00\x00t/\xe5\xa3\x01\x00\x05hello \x00\x00\x00\x0a\xb0\xaf\x04\xba\x05\xef\x18\x00\x01\x1e\x06\xc1/\xa4\x1d\x1f\xb6\xf3}\x01\x00\x00\x00\x00\x04YZ\xfd7zXZ\x00\x00\x04\xe6\xd6\xb4F\x02\x00!\x01\x16\x00\x00\x00t/\xe5\xa3\x01\x00\x04world\x00\x00\x00\x00\xf8X\xe1T\xfa\xfc\x10>\x00\x01\x1d\x05\xb8-\x80\xaf\x1f\xb6\xf3}\x01\x00\x00\x00\x00\x04YZ";
    const BZIP2: &[u8] = b"BZh91AY&SYvi\xe0\xd4\x00\x00\x01\x11\x00@\x00\x02D\xa0\x000\xcd\x00\xc3F)\x97\x17rE8P\x90vi\xe0\xd4BZh91AY&SYY\xce{\xcb\x00\x00\x02\x01\x80\x04\x04\x90\x80 \x000\xcd\x00\xc1\xa4\xc0qw$S\x85\x09\x05\x9c\xe7\xbc\xb0";
    /// "x" with a dictionary of 64 MiB, and of 1 GiB.
    const LARGE_XZ: &[u8] = b"\xfd7zXZ\x00\x00\x04\xe6\xd6\xb4F\x02\x00!\x01\x1c\x00\x00\x00\x10\xcfX\xcc\x01\x00\x00x\x00\x00\x00\x00E\xae\xef\x83\xf8\xee\x16\x0a\x00\x01\x19\x01\xa5,\x81\xcc\x1f\xb6\xf3}\x01\x00\x00\x00\x00\x04YZ";
    const HUGE_XZ: &[u8] = b"\xfd7zXZ\x00\x00\x04\xe6\xd6\xb4F\x02\x00!\x01$\x00\x00\x00^\x1f\xc7\xf9\x01\x00\x00x\x00\x00\x00\x00E\xae\xef\x83\xf8\xee\x16\x0a\x00\x01\x19\x01\xa5,\x81\xcc\x1f\xb6\xf3}\x01\x00\x00\x00\x00\x04YZ";

    #[test]
    fn xz_and_bzip2_are_read_within_the_budget() {
        let read = |bytes: &[u8]| {
            let mut text = String::new();
            let mut decoder = decompress(Box::new(Cursor::new(bytes.to_vec())), &Budget::default())?;
            decoder.read_to_string(&mut text).map(|_| text)
        };
        for whole in [XZ, BZIP2] {
            assert_eq!(read(whole).unwrap(), "hello world");
            for length in [7, 20, whole.len() / 2 - 3, whole.len() - 1] {
                assert!(read(&whole[..length]).is_err(), "{length}");
            }
            let mut damaged = whole.to_vec();
            damaged[whole.len() / 4] ^= 1;
            assert!(read(&damaged).is_err());
        }
        assert_eq!(read(LARGE_XZ).unwrap(), "x");
        assert!(read(HUGE_XZ).is_err());
    }

    fn frame(log: u32, content: &[u8]) -> Vec<u8> {
        let mut encoder = zstd::stream::Encoder::new(Vec::new(), 1).unwrap();
        encoder.window_log(log).unwrap();
        encoder.long_distance_matching(true).unwrap();
        encoder.write_all(content).unwrap();
        encoder.finish().unwrap()
    }

    #[test]
    fn the_window_of_the_first_frame_is_read() {
        for log in [10, 17, 23, 27] {
            assert_eq!(window_log(&frame(log, b"x")), Some(log));
        }
        // In a single segment: the content is the window.
        assert_eq!(window_log(&zstd::bulk::compress(&[7; 5000], 1).unwrap()), Some(13));
        assert_eq!(window_log(&zstd::bulk::compress(&[7; 300], 1).unwrap()), Some(9));
        assert_eq!(window_log(b"\x50\x2a\x4d\x18\0\0\0\0"), None);
        assert_eq!(window_log(b"\x28\xb5\x2f\xfd\x20"), None);
    }

    #[test]
    fn a_window_larger_than_the_budget_is_refused() {
        let huge = frame(30, b"x");
        let error = decompress(Box::new(Cursor::new(huge)), &Budget::default()).err().unwrap().to_string();
        assert!(error.contains("needs 1073741824 bytes of memory, at most 134217728"), "{error}");
        let second = [frame(10, b"x"), frame(27, b"y")].concat();
        let mut read = decompress(Box::new(Cursor::new(second)), &Budget::default()).unwrap();
        assert!(io::copy(&mut read, &mut io::sink()).is_err());
        let (largest, mut found) = ([frame(27, b"x"), frame(25, b"y")].concat(), String::new());
        decompress(Box::new(Cursor::new(largest)), &Budget::default()).unwrap().read_to_string(&mut found).unwrap();
        assert_eq!(found, "xy");
    }
}
