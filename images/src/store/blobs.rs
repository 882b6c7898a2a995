//! Blobs: written streamed and hashed, found by digest.

use super::{
    Store, StoreError, entries,
    plain::{self, Found},
    temporary::Temporary,
};
use oci_spec::image::{Digest, DigestAlgorithm};
use sha2::{Digest as _, Sha256, Sha512};
use std::{
    fs::{self, File},
    io::{self, Read, Seek, Write},
    path::{Path, PathBuf},
};

impl Store {
    /// A blob, opened. What its bytes are is not looked at.
    pub fn blob(&self, digest: &Digest) -> Result<File, StoreError> {
        self.find_blob(digest)?
            .ok_or_else(|| StoreError::MissingBlob { digest: digest.clone(), path: self.blob_path(digest) })
    }

    /// The same; None if it is not here.
    pub(super) fn find_blob(&self, digest: &Digest) -> Result<Option<File>, StoreError> {
        let path = self.blob_path(digest);
        match plain::open(&path).map_err(|source| StoreError::io("opening", &path, source))? {
            Found::Plain(file) => Ok(Some(file)),
            Found::Nothing => Ok(None),
            Found::Other(what) => Err(StoreError::Altered { path, found: format!("it is {what}") }),
        }
    }

    /// The whole of a blob, its bytes being those that the digest promises.
    ///
    /// # Errors
    /// Also for one of more than `most_bytes`.
    pub fn blob_bytes(&self, digest: &Digest, most_bytes: u64) -> Result<Vec<u8>, StoreError> {
        let file = self.blob(digest)?;
        self.read_blob(digest, file, most_bytes)
    }

    /// One that is too large is damaged, or what it is called and no document.
    pub(super) fn read_blob(&self, digest: &Digest, file: File, most_bytes: u64) -> Result<Vec<u8>, StoreError> {
        let path = self.blob_path(digest);
        let failed = |source| StoreError::io("reading", &path, source);
        let size = file.metadata().map_err(failed)?.len();
        if size > most_bytes {
            if !self.has_whole_blob(digest, size)? {
                let found = format!("it has {size} bytes, which are not those of its digest");
                return Err(StoreError::Altered { path, found });
            }
            let reason = format!("it has {size} bytes, at most {most_bytes} are read");
            return Err(StoreError::Malformed { document: "blob", path, reason });
        }
        let mut bytes = Vec::with_capacity(usize::try_from(size).unwrap_or_default());
        file.take(most_bytes).read_to_end(&mut bytes).map_err(failed)?;
        let found = hash_as(digest, &bytes)?;
        if found == *digest {
            Ok(bytes)
        } else {
            Err(StoreError::Altered { path, found: format!("its bytes have digest {found}") })
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

    /// What lies where blobs do, under names that are digests. Other things are passed over.
    pub(super) fn blob_files(&self) -> Result<Vec<Digest>, StoreError> {
        let mut digests = Vec::new();
        for folder in self.blob_folders()? {
            let algorithm = folder.file_name().and_then(|name| name.to_str()).unwrap_or_default();
            let paths = entries(&folder)?;
            let names = paths.iter().filter_map(|path| path.file_name()?.to_str());
            digests.extend(names.filter_map(|hex| format!("{algorithm}:{hex}").parse::<Digest>().ok()));
        }
        Ok(digests)
    }

    /// `blobs/sha256` and the like.
    pub(super) fn blob_folders(&self) -> Result<Vec<PathBuf>, StoreError> {
        let folders = entries(&self.layout().join("blobs"))?;
        let is_folder = |path: &PathBuf| fs::symlink_metadata(path).is_ok_and(|found| found.is_dir());
        Ok(folders.into_iter().filter(is_folder).collect())
    }

    /// Whether a blob is here.
    pub fn has_blob(&self, digest: &Digest) -> bool {
        self.blob_path(digest).exists()
    }

    /// How many bytes a blob has that is here and a plain file.
    pub fn blob_size(&self, digest: &Digest) -> Option<u64> {
        let found = fs::symlink_metadata(self.blob_path(digest)).ok().filter(fs::Metadata::is_file);
        found.map(|found| found.len())
    }

    /// Whether a file's bytes are those that a digest promises.
    pub(super) fn is_blob(&self, digest: &Digest, mut file: File) -> Result<bool, StoreError> {
        let found = match digest.algorithm() {
            DigestAlgorithm::Sha256 => hash_file::<Sha256>(&mut file).map(|hash| sha256_digest(&hash)),
            DigestAlgorithm::Sha512 => hash_file::<Sha512>(&mut file).map(|hash| self::digest("sha512", &hash)),
            // Nothing that is called so can be checked.
            _ => return Ok(false),
        };
        let found = found.map_err(|source| StoreError::io("reading", &self.blob_path(digest), source))?;
        Ok(found == *digest)
    }

    /// A new blob, streamed: hashed as it is written; visible only after `commit`.
    ///
    /// Hold [`Store::writing`] from before `commit` until something names the blob, else others may remove it.
    ///
    /// A full disk shows as an error of [`Write::write`] of kind [`io::ErrorKind::StorageFull`] that names the store.
    pub fn blob_writer(&self) -> Result<BlobWriter, StoreError> {
        let (temporary, file) = Temporary::file(self, None)?;
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

/// The digest that bytes have, of the algorithm that another one is of.
fn hash_as(like: &Digest, bytes: &[u8]) -> Result<Digest, StoreError> {
    match like.algorithm() {
        DigestAlgorithm::Sha256 => Ok(sha256_digest(&Sha256::digest(bytes))),
        DigestAlgorithm::Sha512 => Ok(digest("sha512", &Sha512::digest(bytes))),
        _ => Err(StoreError::UnsupportedDigest { digest: like.clone() }),
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
    /// bytes, which mends it in case it was damaged.
    pub fn commit(self, expected: Option<&Digest>) -> Result<Digest, StoreError> {
        self.finish(expected)?.commit()
    }

    /// Checks the digest (if one is expected), brings the bytes to the disk and closes the file: what waits to be made
    /// visible holds no descriptor. A rename may reach the disk before the bytes do, and a power cut would leave others.
    pub(crate) fn finish(mut self, expected: Option<&Digest>) -> Result<WholeBlob, StoreError> {
        let digest = match expected {
            None => self.own_digest(),
            Some(expected) => self.verified(expected)?,
        };
        self.file.sync_data().map_err(|source| StoreError::io("writing", &self.temporary.path, source))?;
        Ok(WholeBlob { target: self.store.blob_path(&digest), digest, temporary: self.temporary })
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
        let read = hash_file::<Sha512>(&mut self.file).map(|hash| digest("sha512", &hash));
        read.map_err(|source| StoreError::io("reading", &self.temporary.path, source))
    }

    /// An I/O error that says which file it was: callers of [`Write`] know only the error.
    fn place(&self, source: &io::Error) -> io::Error {
        let file = self.temporary.path.display();
        io::Error::new(source.kind(), format!("writing {file}, which is removed again: {source}"))
    }
}

/// A blob that is whole, and not visible yet. Dropped without `commit`, it leaves nothing behind.
#[derive(Debug)]
pub(crate) struct WholeBlob {
    digest: Digest,
    target: PathBuf,
    temporary: Temporary,
}

impl WholeBlob {
    /// Makes it visible by rename.
    pub(crate) fn commit(self) -> Result<Digest, StoreError> {
        if *self.digest.algorithm() != DigestAlgorithm::Sha256 {
            let folder = self.target.parent().unwrap_or(Path::new("/"));
            fs::create_dir_all(folder).map_err(|source| StoreError::io("making the folder", folder, source))?;
        }
        self.temporary.rename(&self.target)?;
        Ok(self.digest)
    }
}

fn hash_file<H: sha2::Digest>(file: &mut File) -> io::Result<Vec<u8>> {
    file.rewind()?;
    let (mut hash, mut buffer) = (H::new(), vec![0; 1 << 18]);
    loop {
        match file.read(&mut buffer)? {
            0 => return Ok(hash.finalize().to_vec()),
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
