//! A name is given only to an image that is ready to run.

use crate::{
    Digest, Image, Selection, Store,
    store::{StoreError, Writing},
};

/// Makes an image ready to run (or finds that it is none to be run); an error is a sentence.
///
/// Called by pull, load and import when all of an image is in the store and before it has a name, so that a name never
/// moves from an image that runs to one that does not.
pub type Ready<'a> = &'a dyn Fn(&Image) -> Result<(), String>;

/// Why an image was not named.
#[derive(Debug, thiserror::Error)]
pub enum NotReady {
    /// It cannot be made ready.
    #[error("{reason}; no name was given to it")]
    Unfit {
        /// Why.
        reason: String,
    },
    /// It cannot be read.
    #[error("{0}")]
    Store(#[from] StoreError),
}

/// What is in the store of an image that has no name yet.
pub(crate) struct Stored<'a> {
    pub(crate) media_type: &'a str,
    pub(crate) digest: &'a Digest,
    /// Of the manifest or index, bytes.
    pub(crate) size: u64,
}

impl Stored<'_> {
    /// Makes it ready, as far as the selection chooses something of it that is here.
    pub(crate) fn make_ready(&self, store: &Store, selection: &Selection, ready: Ready) -> Result<(), NotReady> {
        match store.unnamed_image(self.media_type, self.digest, selection) {
            Ok(Some(image)) => ready(&image).map_err(|reason| NotReady::Unfit { reason }),
            // Of another platform: it is stored, and refused when it is to run.
            Ok(None) | Err(StoreError::Platform { .. }) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }
}

/// Lets go of the store and removes what an image left there that was not named. Nobody else's: see [`Store::check`].
pub(crate) fn clean_up(store: &Store, writing: Writing) {
    drop(writing);
    // What cannot be removed now is found by the next `check`; the error that led here is the one to be told.
    let _ = store.check(true);
}
