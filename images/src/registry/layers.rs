//! The layers of an image, up to four at a time: each is downloaded here, and stored and unpacked by threads of its
//! own.

use super::{
    Progress, Reason,
    client::{Answer, Failure},
    manifests::Fetched,
    session::{Request, Session, TRIES, within},
};
use crate::{
    Budget, Store,
    ingest::{self, Expected, IngestError, Staged},
    unpack::plan::Layer,
};
use bytes::{Buf, Bytes};
use futures_util::{StreamExt, TryStreamExt, stream};
use reqwest::{Method, StatusCode};
use std::{
    io::{self, Read},
    thread::{self, Scope},
};
use tokio::{
    runtime::Runtime,
    sync::{
        mpsc::{Receiver, Sender, channel},
        oneshot,
    },
};

/// Layers at a time.
const PARALLEL: usize = 4;
/// Pieces of a layer (some 16 to 400 KiB each) that may wait between the network and the disk.
const WAITING: usize = 32;

/// Fetches what the store does not have, whole and checked, but not yet visible.
pub(super) fn fetch<'a>(
    runtime: &Runtime,
    store: &'a Store,
    session: &Session<'a>,
    fetched: &'a Fetched,
    progress: &dyn Progress,
) -> Result<Vec<Staged>, Reason> {
    let mut missing = Vec::new();
    for layer in &fetched.layers {
        let (blob, unpacked) = present(store, layer)?;
        progress.layer(&short(layer), layer.descriptor.size(), blob && unpacked);
        if !(blob && unpacked) {
            missing.push((layer, blob));
        }
    }
    thread::scope(|scope| {
        let each = |(layer, here)| fetch_one(scope, store, session, layer, here, progress);
        let all = stream::iter(missing.into_iter().map(each)).buffer_unordered(PARALLEL).try_collect();
        runtime.block_on(within(session.budget, all))
    })
}

/// Whether all layers are here, and unpacked where they are to be.
pub(super) fn all_present(store: &Store, fetched: &Fetched) -> Result<bool, Reason> {
    for layer in &fetched.layers {
        if present(store, layer)? != (true, true) {
            return Ok(false);
        }
    }
    Ok(true)
}

/// Whether a layer's blob is here, whole, and whether it is unpacked or need not be.
fn present(store: &Store, layer: &Layer) -> Result<(bool, bool), Reason> {
    let blob = store.has_whole_blob(layer.descriptor.digest(), layer.descriptor.size())?;
    let unpacked = layer.diff_id.as_ref().is_none_or(|diff_id| store.has_layer(&layer.descriptor, diff_id));
    Ok((blob, unpacked))
}

/// The first twelve digits of a layer's digest.
fn short(layer: &Layer) -> String {
    layer.descriptor.digest().digest().chars().take(12).collect()
}

async fn fetch_one<'scope, 'env>(
    scope: &'scope Scope<'scope, 'env>,
    store: &'env Store,
    session: &Session<'env>,
    layer: &'env Layer,
    here: bool,
    progress: &dyn Progress,
) -> Result<Staged, Reason> {
    let digest = layer.descriptor.digest();
    let staging = Staging { store, layer, budget: session.budget };
    if here && let Ok(mut blob) = store.blob(digest) {
        if let Ok(staged) = staging.spawn(scope, move |stage| stage(&mut blob)).await {
            progress.advance(&short(layer), layer.descriptor.size());
            progress.done(&short(layer));
            return Ok(staged);
        }
        // Damaged since it was hashed, or not what its config says, which the registry's bytes will tell.
        store.forget_verified(digest)?;
    }
    let (sender, receiver) = channel(WAITING);
    let staged = staging.spawn(scope, move |stage| stage(&mut Pieces { receiver, piece: Bytes::new() }));
    download(session, layer, sender, progress).await?;
    let staged = staged.await.map_err(|source| Reason::Layer { digest: digest.clone(), source: Box::new(source) })?;
    progress.done(&short(layer));
    Ok(staged)
}

/// What storing and unpacking a layer needs besides its bytes.
#[derive(Clone, Copy)]
struct Staging<'env> {
    store: &'env Store,
    layer: &'env Layer,
    budget: &'env Budget,
}

/// Takes a layer's bytes.
type Stage<'a> = &'a dyn Fn(&mut (dyn Read + Send)) -> Result<Staged, IngestError>;

impl<'env> Staging<'env> {
    /// Begins in a thread of its own, and waits for it when it is polled.
    fn spawn<'scope>(
        self,
        scope: &'scope Scope<'scope, 'env>,
        source: impl FnOnce(Stage) -> Result<Staged, IngestError> + Send + 'scope,
    ) -> impl Future<Output = Result<Staged, IngestError>> {
        let (report, reported) = oneshot::channel();
        scope.spawn(move || {
            let descriptor = &self.layer.descriptor;
            let (digest, diff_id) = (Some(descriptor.digest().clone()), self.layer.diff_id.clone());
            let expected = Expected { digest, size: Some(descriptor.size()), diff_id };
            drop(report.send(source(&|bytes| ingest::stage(self.store, bytes, &expected, self.budget))));
        });
        async {
            let panicked = |_| Err(IngestError::Read(io::Error::other("the layer's thread panicked")));
            reported.await.unwrap_or_else(panicked)
        }
    }
}

/// Sends a blob's bytes to whoever stores them. A broken connection is taken up again where it broke.
///
/// Ends without an error when nobody receives any more: the receiver knows why.
async fn download(
    session: &Session<'_>,
    layer: &Layer,
    sender: Sender<Bytes>,
    progress: &dyn Progress,
) -> Result<(), Reason> {
    let digest = layer.descriptor.digest();
    let (path, what) = (format!("blobs/{digest}"), format!("layer {digest}"));
    let mut received = 0;
    let mut tries = 0;
    loop {
        tries += 1;
        let (method, offset) = (Method::GET, received);
        let request = Request { method, path: &path, accept: "*/*", offset, what: &what, time: None };
        let answer = session.get(&request).await?;
        let mut tap = Tap { id: short(layer), sender: &sender, received: &mut received, progress };
        let end = tap.run(answer).await;
        let cause = match end {
            Err(Failure::Final(reason)) => return Err(reason),
            // The digest says whether it is all of it.
            _ if received >= layer.descriptor.size() || sender.is_closed() => return Ok(()),
            Ok(()) => "it ended early".to_owned(),
            Err(Failure::Broken { cause }) => cause,
        };
        if tries >= TRIES {
            return Err(Reason::CutOff { what, received, tries, cause });
        }
        session.wait(tries, None).await;
    }
}

/// What takes a response's bytes.
struct Tap<'a> {
    id: String,
    sender: &'a Sender<Bytes>,
    /// Bytes of the blob sent on so far, over all responses.
    received: &'a mut u64,
    progress: &'a dyn Progress,
}

impl Tap<'_> {
    async fn run(&mut self, mut answer: Answer<'_>) -> Result<(), Failure> {
        // A registry that knows no ranges begins again.
        let mut skip = if answer.status() == StatusCode::PARTIAL_CONTENT { 0 } else { *self.received };
        while let Some(mut piece) = answer.chunk().await? {
            let seen = usize::try_from(skip).unwrap_or(usize::MAX).min(piece.len());
            skip -= seen as u64;
            piece.advance(seen);
            let length = piece.len() as u64;
            if length > 0 && self.sender.send(piece).await.is_err() {
                return Ok(());
            }
            *self.received += length;
            self.progress.advance(&self.id, length);
        }
        Ok(())
    }
}

/// The thread's end of the channel, as a stream.
struct Pieces {
    receiver: Receiver<Bytes>,
    piece: Bytes,
}

impl Read for Pieces {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        if self.piece.is_empty() {
            match self.receiver.blocking_recv() {
                Some(piece) => self.piece = piece,
                None => return Ok(0),
            }
        }
        let count = self.piece.len().min(out.len());
        self.piece.copy_to_slice(&mut out[..count]);
        Ok(count)
    }
}
