//! Blobs: written streamed and hashed, found by digest.

use super::{Store, StoreError, temporary::Temporary};
use oci_spec::image::{Digest, DigestAlgorithm};
use sha2::{Digest as _, Sha256, Sha512};
use std::{
    fs::{self, File},
    io::{self, ErrorKind, Read, Seek, Write},
    path::{Path, PathBuf},
};

impl Store {
    /// The program of a WasmArtifact, opened.
    pub fn blob(&self, digest: &Digest) -> Result<File, StoreError> {
        let path = self.blob_path(digest);
        match File::open(&path) {
            Ok(file) => Ok(file),
            Err(gone) if gone.kind() == ErrorKind::NotFound => {
                Err(StoreError::MissingBlob { digest: digest.clone(), path })
            }
            Err(source) => Err(StoreError::io("opening", &path, source)),
        }
    }

    /// Where a blob lies, or would lie.
    pub fn blob_path(&self, digest: &Digest) -> PathBuf {
        self.blob_path_of(digest.as_ref())
    }

    /// The same for a digest that is still text; its form was checked when it was written, or by whoever parsed it.
    pub(super) fn blob_path_of(&self, digest: &str) -> PathBuf {
        let (algorithm, hex) = digest.split_once(':').unwrap_or(("", digest));
        let mut path = self.root.join("image-layout/blobs");
        path.push(algorithm);
        path.push(hex);
        path
    }

    /// Whether a blob is here.
    pub fn has_blob(&self, digest: &Digest) -> bool {
        self.blob_path(digest).exists()
    }

    /// How many bytes a blob has that is here.
    ///
    /// Compare with the descriptor before relying on a blob that nothing names yet: a power cut can leave one short.
    pub fn blob_size(&self, digest: &Digest) -> Option<u64> {
        fs::metadata(self.blob_path(digest)).ok().map(|found| found.len())
    }

    /// A new blob, streamed: hashed as it is written; visible only after `commit`.
    ///
    /// A full disk shows as an error of [`Write::write`] of kind [`ErrorKind::StorageFull`] that names the store.
    pub fn blob_writer(&self) -> Result<BlobWriter, StoreError> {
        let (temporary, file) = Temporary::file(self, Some(self.writing()?))?;
        Ok(BlobWriter { store: self.clone(), file, temporary, hash: Sha256::new(), written: 0 })
    }

    /// Adds a small blob that is in memory: a manifest, a config.
    pub fn put_blob(&self, bytes: &[u8], expected: Option<&Digest>) -> Result<Digest, StoreError> {
        let mut writer = self.blob_writer()?;
        writer.file.write_all(bytes).map_err(|source| StoreError::io("writing", &writer.temporary.path, source))?;
        writer.count(bytes);
        writer.commit(expected)
    }
}

/// A blob being written. Dropped without `commit`, it leaves nothing behind.
#[derive(Debug)]
pub struct BlobWriter {
    store: Store,
    file: File,
    temporary: Temporary,
    hash: Sha256,
    written: u64,
}

impl Write for BlobWriter {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        let count = self.file.write(buf).map_err(|source| self.place(&source))?;
        self.count(&buf[..count]);
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl BlobWriter {
    /// Bytes so far.
    pub fn written(&self) -> u64 {
        self.written
    }

    /// Checks the digest (if one is expected) and makes the blob visible by rename.
    ///
    /// Without an expected digest the blob goes under its sha256. One that is here already is replaced by the same
    /// bytes, which mends it in case a power cut left it damaged.
    pub fn commit(mut self, expected: Option<&Digest>) -> Result<Digest, StoreError> {
        let digest = match expected {
            None => self.own_digest(),
            Some(expected) => self.verified(expected)?,
        };
        let target = self.store.blob_path(&digest);
        if *digest.algorithm() != DigestAlgorithm::Sha256 {
            let folder = target.parent().unwrap_or(Path::new("/"));
            fs::create_dir_all(folder).map_err(|source| StoreError::io("making the folder", folder, source))?;
        }
        self.temporary.rename(&target)?;
        Ok(digest)
    }

    /// As [`BlobWriter::commit`], for a blob whose descriptor also says its size.
    pub fn commit_sized(self, expected: &Digest, size: u64) -> Result<Digest, StoreError> {
        if self.written != size {
            let digest = expected.clone();
            return Err(StoreError::SizeMismatch { digest, expected: size, found: self.written });
        }
        self.commit(Some(expected))
    }

    fn count(&mut self, written: &[u8]) {
        self.hash.update(written);
        self.written += written.len() as u64;
    }

    /// The sha256 of what was written so far.
    pub(crate) fn own_digest(&self) -> Digest {
        sha256_digest(&self.hash.clone().finalize())
    }

    fn verified(&mut self, expected: &Digest) -> Result<Digest, StoreError> {
        let found = match expected.algorithm() {
            DigestAlgorithm::Sha256 => self.own_digest(),
            DigestAlgorithm::Sha512 => self.sha512()?,
            _ => return Err(StoreError::UnsupportedDigest { digest: expected.clone() }),
        };
        if found == *expected {
            Ok(found)
        } else {
            Err(StoreError::DigestMismatch { expected: expected.to_string(), found: found.to_string() })
        }
    }

    /// Hashed by reading the file again: such blobs are rare, and every other one would pay for a second hash.
    fn sha512(&mut self) -> Result<Digest, StoreError> {
        let read = hash_sha512(&mut self.file);
        read.map_err(|source| StoreError::io("reading", &self.temporary.path, source))
    }

    /// An I/O error that says which file it was: callers of [`Write`] know only the error.
    fn place(&self, source: &io::Error) -> io::Error {
        let file = self.temporary.path.display();
        io::Error::new(source.kind(), format!("writing {file}, which is removed again: {source}"))
    }
}

fn hash_sha512(file: &mut File) -> io::Result<Digest> {
    file.rewind()?;
    let (mut hash, mut buffer) = (Sha512::new(), vec![0; 1 << 16]);
    loop {
        match file.read(&mut buffer)? {
            0 => return Ok(digest("sha512", &hash.finalize())),
            count => hash.update(&buffer[..count]),
        }
    }
}

/// The digest `sha256:…` of a finished hash.
pub(crate) fn sha256_digest(hash: &[u8]) -> Digest {
    digest("sha256", hash)
}

fn digest(algorithm: &str, hash: &[u8]) -> Digest {
    use std::fmt::Write as _;
    let mut text = String::with_capacity(algorithm.len() + 1 + 2 * hash.len());
    text.push_str(algorithm);
    text.push(':');
    for byte in hash {
        write!(text, "{byte:02x}").expect("a String takes all that is written to it");
    }
    Digest::try_from(text).expect("a hash function's output in hexadecimal is a digest")
}
