//! Compression, by the bytes and never by the media type: gzip, zstd, or none.

use std::io::{self, BufReader, Cursor, Read};

/// How many bytes it takes to tell a compression.
pub(crate) const MAGIC_LENGTH: usize = 6;

/// How a stream is compressed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Compression {
    None,
    Gzip,
    Zstd,
}

impl Compression {
    /// By a stream's first bytes.
    ///
    /// # Errors
    /// A compression that layers may not have, by name.
    pub(crate) fn of(first: &[u8]) -> io::Result<Self> {
        match first {
            [0x1f, 0x8b, ..] => Ok(Self::Gzip),
            [0x28, 0xb5, 0x2f, 0xfd, ..] | [0x50..=0x5f, 0x2a, 0x4d, 0x18, ..] => Ok(Self::Zstd),
            [0xfd, b'7', b'z', b'X', b'Z', 0] => Err(unsupported("xz")),
            [b'B', b'Z', b'h', b'1'..=b'9', 0x31, 0x41, ..] => Err(unsupported("bzip2")),
            _ => Ok(Self::None),
        }
    }

    /// The media type of a root file system layer with this compression (OCI image-spec, media-types.md).
    pub(crate) fn layer_media_type(self) -> &'static str {
        match self {
            Self::None => "application/vnd.oci.image.layer.v1.tar",
            Self::Gzip => "application/vnd.oci.image.layer.v1.tar+gzip",
            Self::Zstd => "application/vnd.oci.image.layer.v1.tar+zstd",
        }
    }
}

fn unsupported(name: &str) -> io::Error {
    let text = format!("it is compressed with {name}; gzip, zstd or none is possible: compress it again");
    io::Error::new(io::ErrorKind::Unsupported, text)
}

/// Decompresses a stream, told by its first bytes: gzip (of several members too), zstd (several frames), or none.
///
/// # Errors
/// Reading the first bytes fails, or they are those of xz or bzip2.
pub fn decompress<'a>(mut stream: Box<dyn Read + Send + 'a>) -> io::Result<Box<dyn Read + Send + 'a>> {
    let mut first = Vec::with_capacity(MAGIC_LENGTH);
    stream.by_ref().take(MAGIC_LENGTH as u64).read_to_end(&mut first)?;
    let compression = Compression::of(&first)?;
    let whole = Cursor::new(first).chain(stream);
    Ok(match compression {
        Compression::None => Box::new(whole),
        Compression::Gzip => Box::new(flate2::bufread::MultiGzDecoder::new(BufReader::with_capacity(64 << 10, whole))),
        Compression::Zstd => Box::new(zstd::stream::read::Decoder::new(whole)?),
    })
}
