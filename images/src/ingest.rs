//! One pass over a layer: its bytes are stored and hashed as they came, and at the same time inflated, hashed and
//! unpacked.
//!
//! ```text
//! source ─ Tee ─▶ blob writer (sha256: the digest)
//!           └───▶ decompress ── pieces ──▶ unpack (sha256: the diff id) ─▶ stage
//!          this thread                     a second thread
//! ```
//!
//! Nothing is visible until [`Staged::commit`], so that a caller with several layers makes all of them visible, or
//! none.

use crate::{
    Budget, Digest, Store,
    store::{BlobWriter, LayerStage, StoreError, WholeBlob},
    unpack::{UnpackError, decompress, diff_id, hex, unpack},
};
use oci_spec::image::DigestAlgorithm;
use sha2::{Digest as _, Sha256, Sha512};
use std::{
    io::{self, Read, Write},
    path::PathBuf,
    sync::mpsc::{Receiver, SyncSender, sync_channel},
    thread,
};

/// Bytes in one piece on its way to the second thread, and how many pieces may wait.
const PIECE_BYTES: usize = 256 << 10;
const PIECES: usize = 8;

/// What is known about a layer before its bytes come.
#[derive(Debug, Clone)]
pub(crate) struct Expected {
    /// The digest of its blob; `None` where that is to be found out.
    pub(crate) digest: Option<Digest>,
    /// The blob's size.
    pub(crate) size: Option<u64>,
    /// The diff id of a layer to be unpacked; `None` for what is only stored.
    pub(crate) diff_id: Option<Digest>,
}

/// Why a layer was not taken.
#[derive(Debug, thiserror::Error)]
pub enum IngestError {
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The blob could not be written.
    #[error("storing the layer: {0}")]
    Write(#[source] io::Error),
    /// The bytes stopped coming.
    #[error("reading the layer: {0}")]
    Read(#[source] io::Error),
    /// The layer's content.
    #[error(transparent)]
    Unpack(#[from] UnpackError),
    /// Not the bytes that were promised.
    #[error("digest {expected} was expected, its {size} bytes have {found}; nothing of it was kept")]
    Digest {
        /// What the manifest says.
        expected: Digest,
        /// What came.
        found: String,
        /// How much came, bytes.
        size: u64,
    },
    /// Not as many bytes as were promised.
    #[error("{expected} bytes were expected, {found} came; nothing of it was kept")]
    Size {
        /// What the manifest says.
        expected: u64,
        /// What came.
        found: u64,
    },
    /// Not the content that was promised.
    #[error("its content has diff id {found}, the image's config says {expected}; nothing of it was kept")]
    DiffId {
        /// What the config says.
        expected: Digest,
        /// What came.
        found: Digest,
    },
    /// A digest of an algorithm that cannot be checked.
    #[error("its digest {0} is neither sha256 nor sha512, the two that can be checked")]
    Algorithm(Digest),
}

/// A layer that is whole and right, and not visible yet.
#[derive(Debug)]
pub(crate) struct Staged {
    blob: Option<WholeBlob>,
    /// By its own bytes, unless another algorithm's was expected.
    pub(crate) digest: Digest,
    pub(crate) size: u64,
    layer: Option<LayerStage>,
    /// The blob's diff id, if its content was looked at.
    diff_id: Option<Digest>,
    store: Store,
}

impl Staged {
    /// Makes the unpacked layer visible, then the blob.
    pub(crate) fn commit(self) -> Result<(), StoreError> {
        if let Some(layer) = self.layer {
            layer.commit()?;
        }
        if let Some(blob) = self.blob {
            blob.commit()?;
        }
        match self.diff_id {
            Some(diff_id) => self.store.record_verified(&self.digest, &diff_id),
            None => self.store.record_hashed(&self.digest),
        }
    }
}

/// Reads a layer to its end. What the store has already, blob or unpacked layer, is checked against the bytes but not
/// written again.
pub(crate) fn stage(
    store: &Store,
    source: &mut (dyn Read + Send),
    expected: &Expected,
    budget: &Budget,
) -> Result<Staged, IngestError> {
    let present = match (&expected.digest, expected.size) {
        (Some(digest), Some(size)) => store.has_whole_blob(digest, size)?,
        _ => false,
    };
    let blob = if present { None } else { Some(store.blob_writer()?) };
    let mut tee = Tee::new(source, blob, expected);
    let layer = match &expected.diff_id {
        None => drain(&mut tee).map(|()| None),
        Some(diff_id) => stage_tar(store, &mut tee, diff_id, budget),
    };
    let layer = match layer {
        Err(error) => return Err(tee.explain(error, expected)),
        Ok(layer) => layer,
    };
    drain(&mut tee)?;
    let (digest, size) = tee.check(expected)?;
    // Checked above: `stage_tar` takes no other content.
    let diff_id = expected.diff_id.clone();
    let blob = tee.blob.map(|blob| blob.finish(Some(&digest))).transpose()?;
    Ok(Staged { blob, digest, size, layer, diff_id, store: store.clone() })
}

/// Unpacks, or, where that was done before, only checks.
fn stage_tar(
    store: &Store,
    tee: &mut Tee<'_>,
    diff_id: &Digest,
    budget: &Budget,
) -> Result<Option<LayerStage>, IngestError> {
    let layer = if store.layer_dir(diff_id).exists() { None } else { Some(store.stage_layer(diff_id)?) };
    let found = unpack_beside(tee, layer.as_ref().map(|layer| layer.path.clone()), budget)?;
    if found != *diff_id {
        return Err(IngestError::DiffId { expected: diff_id.clone(), found });
    }
    Ok(layer)
}

/// Inflates in this thread and unpacks in another: neither waits for the other's half of the work.
fn unpack_beside(tee: &mut Tee<'_>, target: Option<PathBuf>, budget: &Budget) -> Result<Digest, IngestError> {
    thread::scope(|scope| {
        let (sender, receiver) = sync_channel(PIECES);
        let unpacking = scope.spawn(move || {
            let mut pieces = Pieces { receiver, piece: Vec::new(), at: 0 };
            match target {
                Some(target) => unpack(&mut pieces, &target, budget),
                None => diff_id(&mut pieces, budget),
            }
        });
        inflate(tee, &sender, budget);
        drop(sender);
        let unpacked =
            unpacking.join().map_err(|_| IngestError::Read(io::Error::other("the unpacking thread panicked")))?;
        Ok(unpacked?)
    })
}

/// Sends the inflated stream in pieces; its error, if it has one, comes last. Ends early when nobody receives any more.
fn inflate(tee: &mut Tee<'_>, sender: &SyncSender<io::Result<Vec<u8>>>, budget: &Budget) {
    let mut stream = match decompress(Box::new(tee), budget) {
        Ok(stream) => stream,
        Err(error) => return drop(sender.send(Err(error))),
    };
    loop {
        let mut piece = Vec::with_capacity(PIECE_BYTES);
        let read = stream.by_ref().take(PIECE_BYTES as u64).read_to_end(&mut piece);
        let last = read.as_ref().map_or(true, |&count| count == 0);
        let sent = (piece.is_empty() || sender.send(Ok(piece)).is_ok())
            && read.map_err(|error| sender.send(Err(error))).is_ok();
        if last || !sent {
            return;
        }
    }
}

/// The receiving end, as a stream.
struct Pieces {
    receiver: Receiver<io::Result<Vec<u8>>>,
    piece: Vec<u8>,
    at: usize,
}

impl Read for Pieces {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        if self.at == self.piece.len() {
            match self.receiver.recv() {
                Ok(piece) => (self.piece, self.at) = (piece?, 0),
                Err(_) => return Ok(0),
            }
        }
        let count = (&self.piece[self.at..]).read(out)?;
        self.at += count;
        Ok(count)
    }
}

/// Hands bytes on, and writes and hashes them on the way.
struct Tee<'a> {
    source: &'a mut (dyn Read + Send),
    blob: Option<BlobWriter>,
    /// None: the blob's own will do.
    hash: Option<Hash>,
    size: u64,
    limit: u64,
    /// Why the blob could not be written: the reader downstream knows only that reading failed.
    write_error: Option<io::Error>,
}

impl<'a> Tee<'a> {
    fn new(source: &'a mut (dyn Read + Send), blob: Option<BlobWriter>, expected: &Expected) -> Self {
        let hash = Some(Hash::new(expected.digest.as_ref()));
        let hash = hash.filter(|hash| blob.is_none() || matches!(hash, Hash::Sha512(_)));
        Self { source, blob, hash, size: 0, limit: expected.size.unwrap_or(u64::MAX), write_error: None }
    }

    fn check(&mut self, expected: &Expected) -> Result<(Digest, u64), IngestError> {
        if let Some(size) = expected.size.filter(|&size| size != self.size) {
            return Err(IngestError::Size { expected: size, found: self.size });
        }
        let found = match (&mut self.hash, &self.blob) {
            (Some(hash), _) => hash.finish(),
            (None, blob) => blob.as_ref().map_or_else(String::new, |blob| blob.own_digest().to_string()),
        };
        match &expected.digest {
            Some(digest) if !Hash::knows(digest) => Err(IngestError::Algorithm(digest.clone())),
            Some(digest) if digest.to_string() != found => {
                Err(IngestError::Digest { expected: digest.clone(), found, size: self.size })
            }
            _ => Ok((parse_digest(&found)?, self.size)),
        }
    }

    /// What is behind a failure: a full disk, or bytes that are not the promised ones, say more than "damaged".
    fn explain(mut self, error: IngestError, expected: &Expected) -> IngestError {
        if let Some(error) = self.write_error.take() {
            return IngestError::Write(error);
        }
        let damaged = matches!(
            error,
            IngestError::Unpack(
                UnpackError::Read { .. } | UnpackError::Truncated { .. } | UnpackError::Malformed { .. }
            )
        );
        if damaged && let (Ok(()), Some(_)) = (drain(&mut self), &expected.digest) {
            return self.check(expected).err().unwrap_or(error);
        }
        error
    }
}

impl Read for Tee<'_> {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        let count = self.source.read(out)?;
        self.size += count as u64;
        if self.size > self.limit {
            let text = format!("more bytes came than the {} that its manifest promises", self.limit);
            return Err(io::Error::new(io::ErrorKind::FileTooLarge, text));
        }
        if let Some(hash) = &mut self.hash {
            hash.update(&out[..count]);
        }
        if let Some(error) = self.blob.as_mut().and_then(|blob| blob.write_all(&out[..count]).err()) {
            let kind = error.kind();
            self.write_error = Some(error);
            return Err(kind.into());
        }
        Ok(count)
    }
}

fn drain(tee: &mut Tee<'_>) -> Result<(), IngestError> {
    let mut buffer = vec![0; PIECE_BYTES];
    loop {
        match tee.read(&mut buffer) {
            Ok(0) => return Ok(()),
            Err(error) if error.kind() != io::ErrorKind::Interrupted => {
                return Err(tee.write_error.take().map_or(IngestError::Read(error), IngestError::Write));
            }
            _ => {}
        }
    }
}

/// The two algorithms that the OCI image-spec registers.
enum Hash {
    Sha256(Sha256),
    Sha512(Sha512),
}

impl Hash {
    fn new(digest: Option<&Digest>) -> Self {
        match digest.map(Digest::algorithm) {
            Some(DigestAlgorithm::Sha512) => Self::Sha512(Sha512::new()),
            _ => Self::Sha256(Sha256::new()),
        }
    }

    fn knows(digest: &Digest) -> bool {
        matches!(digest.algorithm(), DigestAlgorithm::Sha256 | DigestAlgorithm::Sha512)
    }

    fn update(&mut self, bytes: &[u8]) {
        match self {
            Self::Sha256(hash) => hash.update(bytes),
            Self::Sha512(hash) => hash.update(bytes),
        }
    }

    fn finish(&mut self) -> String {
        match self {
            Self::Sha256(hash) => format!("sha256:{}", hex(&hash.finalize_reset())),
            Self::Sha512(hash) => format!("sha512:{}", hex(&hash.finalize_reset())),
        }
    }
}

fn parse_digest(text: &str) -> Result<Digest, IngestError> {
    text.parse().map_err(|error| IngestError::Read(io::Error::other(format!("digest `{text}`: {error}"))))
}

/// Checks bytes in memory against a digest: manifests and configs.
pub(crate) fn check_bytes(bytes: &[u8], expected: &Digest) -> Result<(), IngestError> {
    let mut source = bytes;
    let wanted = Expected { digest: Some(expected.clone()), size: None, diff_id: None };
    let mut tee = Tee::new(&mut source, None, &wanted);
    drain(&mut tee)?;
    tee.check(&wanted).map(|_| ())
}

/// The sha256 digest of bytes in memory.
pub(crate) fn digest_of(bytes: &[u8]) -> Result<Digest, IngestError> {
    parse_digest(&format!("sha256:{}", hex(&Sha256::digest(bytes))))
}
