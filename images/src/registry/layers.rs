//! The layers of an image, up to four at a time: each is downloaded here, and stored and unpacked by threads of its
//! own.

use super::{
    Progress, Reason,
    manifests::Fetched,
    session::{Request, Session, TRIES, causes},
};
use crate::{
    Budget, Store,
    unpack::{
        ingest::{self, Expected, IngestError, Staged},
        plan::Layer,
    },
};
use futures_util::{StreamExt, TryStreamExt, stream};
use reqwest::{Method, Response, StatusCode};
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
pub(super) fn fetch(
    runtime: &Runtime,
    store: &Store,
    session: &Session<'_>,
    fetched: &Fetched,
    progress: &dyn Progress,
) -> Result<Vec<Staged>, Reason> {
    let mut missing = Vec::new();
    for layer in &fetched.layers {
        let (blob, unpacked) = present(store, layer);
        progress.layer(&short(layer), layer.descriptor.size(), blob && unpacked);
        if !(blob && unpacked) {
            missing.push((layer, blob));
        }
    }
    let budget = Budget::default();
    thread::scope(|scope| {
        let each = |(layer, here)| fetch_one(scope, store, session, layer, here, progress, &budget);
        runtime.block_on(stream::iter(missing.into_iter().map(each)).buffer_unordered(PARALLEL).try_collect())
    })
}

/// Whether a layer's blob is here, and whether it is unpacked or need not be.
fn present(store: &Store, layer: &Layer) -> (bool, bool) {
    let blob = store.blob_size(layer.descriptor.digest()) == Some(layer.descriptor.size());
    let unpacked = layer.diff_id.as_ref().is_none_or(|diff_id| store.has_layer(&layer.descriptor, diff_id));
    (blob, unpacked)
}

/// The first twelve digits of a layer's digest.
fn short(layer: &Layer) -> String {
    layer.descriptor.digest().digest().chars().take(12).collect()
}

async fn fetch_one<'scope, 'env>(
    scope: &'scope Scope<'scope, 'env>,
    store: &'env Store,
    session: &Session<'_>,
    layer: &'env Layer,
    here: bool,
    progress: &dyn Progress,
    budget: &'env Budget,
) -> Result<Staged, Reason> {
    let digest = layer.descriptor.digest();
    let expected =
        Expected { digest: Some(digest.clone()), size: Some(layer.descriptor.size()), diff_id: layer.diff_id.clone() };
    let (report, reported) = oneshot::channel();
    let downloaded = if here {
        let mut blob = store.blob(digest)?;
        scope.spawn(move || drop(report.send(ingest::stage(store, &mut blob, &expected, budget))));
        progress.advance(&short(layer), layer.descriptor.size());
        Ok(())
    } else {
        let (sender, receiver) = channel(WAITING);
        scope.spawn(move || {
            let mut pieces = Pieces { receiver, piece: Vec::new(), at: 0 };
            drop(report.send(ingest::stage(store, &mut pieces, &expected, budget)));
        });
        download(session, layer, sender, progress).await
    };
    let staged =
        reported.await.unwrap_or_else(|_| Err(IngestError::Read(io::Error::other("the layer's thread panicked"))));
    downloaded?;
    let staged = staged.map_err(|source| Reason::Layer { digest: digest.clone(), source: Box::new(source) })?;
    progress.done(&short(layer));
    Ok(staged)
}

/// Sends a blob's bytes to whoever stores them. A broken connection is taken up again where it broke.
///
/// Ends without an error when nobody receives any more: the receiver knows why.
async fn download(
    session: &Session<'_>,
    layer: &Layer,
    sender: Sender<Vec<u8>>,
    progress: &dyn Progress,
) -> Result<(), Reason> {
    let digest = layer.descriptor.digest();
    let (path, what) = (format!("blobs/{digest}"), format!("layer {digest}"));
    let mut received = 0;
    let mut tries = 0;
    loop {
        tries += 1;
        let request = Request { method: Method::GET, path: &path, accept: "*/*", offset: received, what: &what };
        let response = session.get(&request).await?;
        let mut tap = Tap { id: short(layer), sender: &sender, received: &mut received, progress };
        let cause = match tap.run(response).await {
            Ok(()) if received >= layer.descriptor.size() || sender.is_closed() => return Ok(()),
            Ok(()) => "it ended early".to_owned(),
            Err(error) if error.is_timeout() => return Err(Reason::TooSlow { what, after: session.idle_timeout() }),
            Err(error) => causes(&error),
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
    sender: &'a Sender<Vec<u8>>,
    /// Bytes of the blob sent on so far, over all responses.
    received: &'a mut u64,
    progress: &'a dyn Progress,
}

impl Tap<'_> {
    async fn run(&mut self, mut response: Response) -> reqwest::Result<()> {
        // A registry that knows no ranges begins again.
        let mut skip = if response.status() == StatusCode::PARTIAL_CONTENT { 0 } else { *self.received };
        while let Some(chunk) = response.chunk().await? {
            let seen = skip.min(chunk.len() as u64);
            skip -= seen;
            let mut piece = Vec::from(chunk);
            piece.drain(..usize::try_from(seen).unwrap_or(piece.len()));
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
    receiver: Receiver<Vec<u8>>,
    piece: Vec<u8>,
    at: usize,
}

impl Read for Pieces {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        if self.at == self.piece.len() {
            match self.receiver.blocking_recv() {
                Some(piece) => (self.piece, self.at) = (piece, 0),
                None => return Ok(0),
            }
        }
        let count = (&self.piece[self.at..]).read(out)?;
        self.at += count;
        Ok(count)
    }
}
