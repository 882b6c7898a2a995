//! Where a module's descriptors lie in the file system, for the causes of errors.

use super::errno;
use crate::{
    cause::{self, Cause, Said},
    state::State,
};
use std::{
    collections::HashMap,
    ffi::OsStr,
    fs::File,
    io,
    os::unix::ffi::OsStrExt,
    path::{Path, PathBuf},
};
use wasmtime::{Caller, Extern};

/// The first descriptor that is not one of the three streams.
const FIRST: usize = 3;

/// Paths by descriptor, as this process sees them.
#[derive(Default)]
pub(crate) struct Places(HashMap<u64, PathBuf>);

impl Places {
    /// Of a program that has just been given these directories.
    pub(crate) fn new(granted: Vec<PathBuf>) -> Self {
        Self(granted.into_iter().enumerate().map(|(number, path)| ((FIRST + number) as u64, path)).collect())
    }

    fn of(&self, descriptor: i64) -> Option<&Path> {
        self.0.get(&descriptor_number(descriptor)).map(PathBuf::as_path)
    }
}

/// Takes note of what a function has done, and tells a better error, where there is one.
pub(super) fn after(caller: &mut Caller<'_, State>, function: &str, result: i32, args: &[i64]) -> i32 {
    match (function, result) {
        ("path_open", errno::SUCCESS) => opened(caller, args),
        ("fd_close", errno::SUCCESS) => {
            let descriptor = descriptor_number(args[0]);
            let state = caller.data_mut();
            state.places.0.remove(&descriptor);
            state.listings.forget(args[0]);
        }
        ("fd_renumber", errno::SUCCESS) => {
            let state = caller.data_mut();
            let moved = state.places.0.remove(&descriptor_number(args[0]));
            state.places.0.remove(&descriptor_number(args[1]));
            state.places.0.extend(moved.map(|path| (descriptor_number(args[1]), path)));
            args[..2].iter().for_each(|descriptor| state.listings.forget(*descriptor));
        }
        (_, errno::IO) => return cause_of(caller, Said::Io, function, args).map_or(result, errno_of),
        (_, errno::PERM) => return cause_of(caller, Said::NotPermitted, function, args).map_or(result, errno_of),
        _ => {}
    }
    result
}

fn opened(caller: &mut Caller<'_, State>, args: &[i64]) {
    let [directory, _, path, length, .., opened] = args else { return };
    let Some(memory) = memory(caller, *opened, 4) else { return };
    let descriptor = u64::from(u32::from_le_bytes([memory[0], memory[1], memory[2], memory[3]]));
    if let Some((directory, path)) = place(caller, *directory, *path, *length) {
        caller.data_mut().places.0.insert(descriptor, directory.join(path));
    }
}

/// What is known of the places that a function was to change: each is a granted or opened directory, and a path from there.
fn cause_of(caller: &mut Caller<'_, State>, said: Said, function: &str, args: &[i64]) -> Option<Cause> {
    let places: &[[usize; 3]] = match function {
        "path_rename" => &[[0, 1, 2], [3, 4, 5]],
        "path_link" => &[[0, 2, 3], [4, 5, 6]],
        "path_open" | "path_filestat_set_times" => &[[0, 2, 3]],
        "path_create_directory" | "path_unlink_file" | "path_remove_directory" => &[[0, 1, 2]],
        "path_symlink" => &[[2, 3, 4]],
        "fd_write" | "fd_pwrite" | "fd_allocate" | "fd_filestat_set_size" | "fd_sync" | "fd_datasync" => {
            return cause::of_opening().or_else(|| cause_of_file(caller, said, args[0]));
        }
        _ => return cause::of_opening(),
    };
    let found =
        places.iter().map(|&[directory, path, length]| place(caller, args[directory], args[path], args[length]));
    let found: Vec<(PathBuf, PathBuf)> = found.collect::<Option<_>>()?;
    let opened = found.iter().map(|(directory, _)| File::open(directory)).collect::<io::Result<Vec<_>>>();
    let parents = found.iter().map(|(_, path)| path.parent().unwrap_or(Path::new("")));
    cause::of_opening().or_else(|| cause::of_change(said, &opened.ok()?.into_iter().zip(parents).collect::<Vec<_>>()))
}

/// Of a file that was opened it is that of its directory.
fn cause_of_file(caller: &mut Caller<'_, State>, said: Said, descriptor: i64) -> Option<Cause> {
    let directory = caller.data().places.of(descriptor)?.parent()?;
    cause::of_change(said, &[(File::open(directory).ok()?, Path::new(""))])
}

fn errno_of(cause: Cause) -> i32 {
    match cause {
        Cause::CrossDevice => errno::XDEV,
        Cause::ReadOnly => errno::ROFS,
        Cause::TooManyFiles => errno::MFILE,
        Cause::TooManyFilesOfAll => errno::NFILE,
        Cause::Quota => errno::DQUOT,
    }
}

/// A directory, and a path as the program gave it.
fn place(caller: &mut Caller<'_, State>, directory: i64, path: i64, length: i64) -> Option<(PathBuf, PathBuf)> {
    let path = PathBuf::from(OsStr::from_bytes(memory(caller, path, length)?));
    Some((caller.data().places.of(directory)?.to_owned(), path))
}

/// Bytes of the program's memory, if they are there. Its addresses and lengths are 32 bits without a sign.
pub(super) fn memory<'a>(caller: &'a mut Caller<'_, State>, at: i64, length: i64) -> Option<&'a mut [u8]> {
    let Some(Extern::Memory(memory)) = caller.get_export("memory") else { return None };
    let [at, length] = [at, length].map(|number| usize::try_from(number & i64::from(u32::MAX)));
    let (at, length) = (at.ok()?, length.ok()?);
    memory.data_mut(caller).get_mut(at..at.checked_add(length)?)
}

fn descriptor_number(argument: i64) -> u64 {
    u64::from(argument.to_le_bytes()[0..4].try_into().map_or(u32::MAX, u32::from_le_bytes))
}
