//! Paths that lead out of the working directory, and stay in what was granted around it.
//!
//! WASI p1 has no working directory: it is a grant of its own, out of which no path leads. A path with `..` in it is therefore
//! looked up from the grant around it, by a longer path. The function reads that from the program's memory, where it stands in
//! the place of other bytes as long as the call takes; those are put back before the program goes on.

use super::places::memory;
use crate::state::State;
use std::ops::Range;
use wasmtime::{Caller, Extern};

/// A working directory within a grant.
pub(crate) struct Outward {
    /// The descriptor that relative paths begin at.
    pub(crate) from: i64,
    /// That of the grant around it.
    pub(crate) around: i64,
    /// The way from there.
    pub(crate) way: String,
}

/// No result of a function is longer, but that of `path_readlink`, and no path that the system takes.
const REACH: i64 = 4096;

/// Bytes of the program's memory that belong there.
pub(super) struct Displaced {
    at: i64,
    bytes: Vec<u8>,
}

/// Where among a function's arguments paths are: descriptor, address, length.
fn places_of(function: &str) -> &'static [[usize; 3]] {
    match function {
        "path_create_directory" | "path_readlink" | "path_remove_directory" | "path_unlink_file" => &[[0, 1, 2]],
        "path_filestat_get" | "path_filestat_set_times" | "path_open" => &[[0, 2, 3]],
        "path_link" => &[[0, 2, 3], [4, 5, 6]],
        "path_rename" => &[[0, 1, 2], [3, 4, 5]],
        "path_symlink" => &[[2, 3, 4]],
        _ => &[],
    }
}

/// Lets the arguments lead from the grant around the working directory, where they lead out of that.
pub(super) fn lead(caller: &mut Caller<'_, State>, function: &str, args: &mut [i64]) -> Vec<Displaced> {
    let Some(outward) = &caller.data().outward else { return Vec::new() };
    let (from, around, way) = (outward.from, outward.around, outward.way.clone());
    let mut displaced = Vec::new();
    for &[descriptor, address, length] in places_of(function) {
        if args[descriptor] != from {
            continue;
        }
        let Some(path) = memory(caller, args[address], args[length]).map(|bytes| bytes.to_vec()) else { continue };
        if !path.split(|byte| *byte == b'/').any(|part| part == b"..") || path.starts_with(b"/") {
            continue;
        }
        let longer = [way.as_bytes(), b"/", &path].concat();
        let taken: Vec<_> = displaced.iter().map(|there: &Displaced| there.at).collect();
        let Some(there) = put(caller, &longer, args, &taken) else { continue };
        args[descriptor] = around;
        args[address] = there.at;
        args[length] = i64::try_from(longer.len()).unwrap_or(i64::MAX);
        displaced.push(there);
    }
    displaced
}

/// Puts the bytes back, the last ones first.
pub(super) fn restore(caller: &mut Caller<'_, State>, displaced: Vec<Displaced>) {
    for Displaced { at, bytes } in displaced.into_iter().rev() {
        if let Some(place) = memory(caller, at, i64::try_from(bytes.len()).unwrap_or(0)) {
            place.copy_from_slice(&bytes);
        }
    }
}

/// Writes bytes where no argument points to.
fn put(caller: &mut Caller<'_, State>, bytes: &[u8], args: &[i64], taken: &[i64]) -> Option<Displaced> {
    let Some(Extern::Memory(all)) = caller.get_export("memory") else { return None };
    let size = i64::try_from(all.data_size(&*caller)).ok()?;
    let length = i64::try_from(bytes.len()).ok()?;
    let buffer_bytes = args.iter().copied().filter(|number| *number < size).max().unwrap_or(0);
    let is_free = |place: &Range<i64>| {
        let meets = |begin: i64, reach: i64| begin < place.end && place.start < begin.saturating_add(reach);
        let argument = |number: &i64| meets(number & i64::from(u32::MAX), REACH);
        // One of them may be the length of a buffer at another.
        let long = |number: &i64| buffer_bytes > REACH && meets(number & i64::from(u32::MAX), buffer_bytes);
        place.start >= 0
            && place.end <= size
            && !args.iter().chain(taken).any(|number| argument(number) || long(number))
    };
    let candidates = [size - length, 0, size / 2, size / 4];
    let place = candidates.into_iter().map(|at| at..at + length).find(is_free)?;
    let there = memory(caller, place.start, length)?;
    let displaced = Displaced { at: place.start, bytes: there.to_vec() };
    there.copy_from_slice(bytes);
    Some(displaced)
}
