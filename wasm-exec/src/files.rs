//! Where a component's calls change directories, for the causes of errors.

use crate::{
    cause::{self, Cause, Said},
    state::State,
};
use std::{fs::File, path::Path, sync::Arc};
use wasmtime::component::Resource;
use wasmtime_wasi::{WasiView, filesystem::Descriptor};

/// A directory, and a path in it.
pub(crate) struct Place(Resource<Descriptor>, String);

impl Place {
    /// One that outlives the call, to which the descriptor is lent.
    pub(crate) fn new(descriptor: &Resource<Descriptor>, path: &str) -> Self {
        Self(Resource::new_borrow(descriptor.rep()), path.to_owned())
    }
}

/// What is known of one place, or of two.
pub(crate) fn cause(state: &mut State, said: Said, places: &[Place]) -> Option<Cause> {
    let view = state.ctx();
    let directory = |place: &Place| match view.table.get(&place.0) {
        Ok(Descriptor::Dir(directory)) => Some(Arc::clone(&directory.dir)),
        _ => None,
    };
    let directories: Vec<Arc<File>> = places.iter().map(directory).collect::<Option<_>>()?;
    let parents = places.iter().map(|place| Path::new(&place.1).parent().unwrap_or(Path::new("")));
    let changed: Vec<_> = directories.iter().map(|directory| &**directory).zip(parents).collect();
    cause::of_opening().or_else(|| cause::of_change(said, &changed))
}

/// The functions that change directories, the same in both versions: each by its name in WIT and in Rust, with its parameters, the places
/// among them, and its result.
macro_rules! changing {
    ($functions:ident) => {
        $functions! {
            "[method]descriptor.create-directory-at" create_directory_at(fd: Resource<Descriptor>, path: String) [fd path] ();
            "[method]descriptor.link-at" link_at(
                fd: Resource<Descriptor>, flags: PathFlags, path: String, to: Resource<Descriptor>, new: String
            ) [fd path, to new] ();
            "[method]descriptor.open-at" open_at(
                fd: Resource<Descriptor>, look: PathFlags, path: String, open: OpenFlags, flags: DescriptorFlags
            ) [fd path] Resource<Descriptor>;
            "[method]descriptor.remove-directory-at" remove_directory_at(fd: Resource<Descriptor>, path: String) [fd path] ();
            "[method]descriptor.rename-at" rename_at(
                fd: Resource<Descriptor>, path: String, to: Resource<Descriptor>, new: String
            ) [fd path, to new] ();
            "[method]descriptor.symlink-at" symlink_at(fd: Resource<Descriptor>, old: String, path: String) [fd path] ();
            "[method]descriptor.unlink-file-at" unlink_file_at(fd: Resource<Descriptor>, path: String) [fd path] ();
        }
    };
}

pub(crate) use changing;
