//! WASI p1 for a linker, as much of it as a module asks for.
//!
//! wasmtime-wasi's own `add_to_linker_async` makes the host's side of all 46 functions, each with its type registered; for a
//! program that imports three of them that was half of all instructions of a start. This does the same for the functions
//! that are imported, by the same generated code: only the list of names and parameters is written down here, and a test
//! compares it with wasmtime-wasi's.

mod errno;
mod listings;
mod outward;
mod places;
mod polling;
mod sockets;

pub(crate) use listings::Listings;
pub(crate) use outward::Outward;
pub(crate) use places::Places;
pub(crate) use sockets::Sockets;

use crate::{exit, state::State};
use wasmtime::{AsContextMut, Caller, Engine, Extern, Linker};
use wasmtime_wasi::p1::{
    WasiP1Ctx,
    wasi_snapshot_preview1::{self as host, WasiSnapshotPreview1},
};
use wiggle::GuestMemory;

/// The name of the module that all of it is imported from.
pub(crate) const MODULE: &str = "wasi_snapshot_preview1";

/// All that a module can import.
pub(crate) fn linker(engine: &Engine) -> wasmtime::Result<Linker<State>> {
    let mut linker = Linker::new(engine);
    add_all(&mut linker)?;
    Ok(linker)
}

/// Adds the function of this name, if there is one and it is not there yet.
pub(crate) fn add(linker: &mut Linker<State>, name: &str) -> wasmtime::Result<()> {
    // A module may import a function twice.
    linker.allow_shadowing(true);
    match name {
        // wasmtime-wasi's own takes a status over 125 for an error; a process may end with any.
        "proc_exit" => linker
            .func_wrap(MODULE, "proc_exit", |mut caller: Caller<'_, State>, status: i32| -> wasmtime::Result<()> {
                Err(exit::error(caller.data_mut(), status))
            })
            .map(drop),
        "fd_readdir" => linker
            .func_wrap_async(MODULE, "fd_readdir", |mut caller: Caller<'_, State>, args: (i32, i32, i32, i64, i32)| {
                Box::new(async move {
                    caller.data().memory.goes_on();
                    match sockets::answer(&mut caller, "fd_readdir", &[args.0.into()]) {
                        Some(errno) => Ok(errno),
                        None => listings::read(&mut caller, args).await,
                    }
                })
            })
            .map(drop),
        // wasmtime-wasi's own says that nothing is a socket.
        "sock_accept" => linker
            .func_wrap_async(
                MODULE,
                "sock_accept",
                |mut caller: Caller<'_, State>, (fd, flags, accepted): (i32, i32, i32)| {
                    Box::new(async move {
                        caller.data().memory.goes_on();
                        if let Some(errno) =
                            sockets::accept(&mut caller, &[fd.into(), flags.into(), accepted.into()]).await?
                        {
                            return Ok(errno);
                        }
                        let (mut memory, wasi) = sides(&mut caller, "sock_accept")?;
                        host::sock_accept(wasi, &mut memory, fd, flags, accepted)
                    })
                },
            )
            .map(drop),
        _ => add_generated(linker, name),
    }
}

fn add_all(linker: &mut Linker<State>) -> wasmtime::Result<()> {
    NAMES.iter().copied().chain(["proc_exit", "fd_readdir", "sock_accept"]).try_for_each(|name| add(linker, name))
}

/// The functions by how the host's side is called, with their parameters; each returns an errno.
macro_rules! functions {
    ($($how:ident $name:ident($($arg:ident: $ty:ty),*);)*) => {
        const NAMES: &[&str] = &[$(stringify!($name)),*];

        fn add_generated(linker: &mut Linker<State>, name: &str) -> wasmtime::Result<()> {
            match name {
                $(stringify!($name) => functions!(@$how linker $name($($arg: $ty),*)),)*
                _ => Ok(()),
            }
        }
    };
    (@direct $linker:ident $name:ident($($arg:ident: $ty:ty),*)) => {
        $linker
            .func_wrap(MODULE, stringify!($name), |mut caller: Caller<'_, State>, $($arg: $ty),*| {
                let words: &[i64] = &[$(i64::from($arg)),*];
                if let Some(errno) = sockets::answer(&mut caller, stringify!($name), words) {
                    return Ok(errno);
                }
                let (mut memory, wasi) = sides(&mut caller, stringify!($name))?;
                host::$name(wasi, &mut memory, $($arg),*)
            })
            .map(drop)
    };
    (@waiting $linker:ident $name:ident($($arg:ident: $ty:ty),*)) => {
        $linker
            .func_wrap_async(MODULE, stringify!($name), |mut caller: Caller<'_, State>, ($($arg,)*): ($($ty,)*)| {
                Box::new(async move {
                    if !is_for_complaining(stringify!($name)) {
                        caller.data().memory.goes_on();
                    }
                    let mut words = [$(i64::from($arg)),*];
                    if let Some(errno) = sockets::answer(&mut caller, stringify!($name), &words) {
                        return Ok(errno);
                    }
                    let displaced = outward::lead(&mut caller, stringify!($name), &mut words);
                    let [$($arg),*] = words;
                    let (mut memory, wasi) = sides(&mut caller, stringify!($name))?;
                    let result = host::$name(wasi, &mut memory, $(<$ty as Word>::of($arg)),*).await;
                    let result = places::after(&mut caller, stringify!($name), result?, &words);
                    sockets::after(&mut caller, stringify!($name), result, &words);
                    outward::restore(&mut caller, displaced);
                    Ok::<i32, wasmtime::Error>(result)
                })
            })
            .map(drop)
    };
}

functions! {
    direct args_get(argv: i32, argv_buf: i32);
    direct args_sizes_get(count: i32, size: i32);
    direct clock_res_get(clock: i32, resolution: i32);
    direct clock_time_get(clock: i32, precision: i64, time: i32);
    direct environ_get(environ: i32, environ_buf: i32);
    direct environ_sizes_get(count: i32, size: i32);
    waiting fd_advise(fd: i32, offset: i64, len: i64, advice: i32);
    direct fd_allocate(fd: i32, offset: i64, len: i64);
    waiting fd_close(fd: i32);
    waiting fd_datasync(fd: i32);
    waiting fd_fdstat_get(fd: i32, stat: i32);
    direct fd_fdstat_set_flags(fd: i32, flags: i32);
    direct fd_fdstat_set_rights(fd: i32, base: i64, inheriting: i64);
    waiting fd_filestat_get(fd: i32, stat: i32);
    waiting fd_filestat_set_size(fd: i32, size: i64);
    waiting fd_filestat_set_times(fd: i32, accessed: i64, modified: i64, flags: i32);
    waiting fd_pread(fd: i32, iovs: i32, count: i32, offset: i64, read: i32);
    direct fd_prestat_dir_name(fd: i32, path: i32, len: i32);
    direct fd_prestat_get(fd: i32, prestat: i32);
    waiting fd_pwrite(fd: i32, iovs: i32, count: i32, offset: i64, written: i32);
    waiting fd_read(fd: i32, iovs: i32, count: i32, read: i32);
    waiting fd_renumber(from: i32, to: i32);
    waiting fd_seek(fd: i32, offset: i64, whence: i32, position: i32);
    waiting fd_sync(fd: i32);
    direct fd_tell(fd: i32, position: i32);
    waiting fd_write(fd: i32, iovs: i32, count: i32, written: i32);
    waiting path_create_directory(fd: i32, path: i32, len: i32);
    waiting path_filestat_get(fd: i32, flags: i32, path: i32, len: i32, stat: i32);
    waiting path_filestat_set_times(
        fd: i32, lookup: i32, path: i32, len: i32, accessed: i64, modified: i64, flags: i32
    );
    waiting path_link(fd: i32, flags: i32, path: i32, len: i32, new_fd: i32, new_path: i32, new_len: i32);
    waiting path_open(
        fd: i32, lookup: i32, path: i32, len: i32, flags: i32, base: i64, inheriting: i64, fd_flags: i32, opened: i32
    );
    waiting path_readlink(fd: i32, path: i32, len: i32, buf: i32, buf_len: i32, used: i32);
    waiting path_remove_directory(fd: i32, path: i32, len: i32);
    waiting path_rename(fd: i32, path: i32, len: i32, new_fd: i32, new_path: i32, new_len: i32);
    waiting path_symlink(to: i32, to_len: i32, fd: i32, path: i32, len: i32);
    waiting path_unlink_file(fd: i32, path: i32, len: i32);
    waiting poll_oneoff(subscriptions: i32, events: i32, count: i32, happened: i32);
    direct proc_raise(signal: i32);
    direct random_get(buf: i32, len: i32);
    direct sched_yield();
    direct sock_recv(fd: i32, iovs: i32, count: i32, flags: i32, received: i32, out_flags: i32);
    direct sock_send(fd: i32, iovs: i32, count: i32, flags: i32, sent: i32);
    direct sock_shutdown(fd: i32, how: i32);
}

/// A number that a function takes; both kinds pass as the longer one.
trait Word {
    fn of(word: i64) -> Self;
}

impl Word for i64 {
    fn of(word: i64) -> Self {
        word
    }
}

impl Word for i32 {
    fn of(word: i64) -> Self {
        let [a, b, c, d, ..] = word.to_le_bytes();
        Self::from_le_bytes([a, b, c, d])
    }
}

/// Whether a program that has no memory left may call this to say so. What it says to its standard output instead counts
/// as work, which is told where that is written.
fn is_for_complaining(name: &str) -> bool {
    matches!(name, "fd_write" | "fd_fdstat_get" | "fd_filestat_get")
}

/// Whether a function reads or writes the program's memory where it is: what it is given bounds no memory of this process.
fn copies_nothing(name: &str) -> bool {
    matches!(name, "fd_write" | "fd_pwrite" | "fd_pread" | "fd_readdir")
}

/// What a function works on: the program's memory and its WASI context.
fn sides<'a>(caller: &'a mut Caller<'_, State>, name: &str) -> wasmtime::Result<(GuestMemory<'a>, &'a mut WasiP1Ctx)> {
    let fuel = if copies_nothing(name) { usize::MAX } else { caller.as_context_mut().hostcall_fuel() };
    let Some(Extern::Memory(memory)) = caller.get_export("memory") else {
        wasmtime::bail!("missing required memory export");
    };
    let (bytes, state) = memory.data_and_store_mut(caller);
    state.wasi.set_hostcall_fuel(fuel);
    Ok((GuestMemory::Unshared(bytes), &mut state.wasi))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Profile, engine};
    use std::collections::BTreeMap;
    use wasmtime::{FuncType, Store};
    use wasmtime_wasi::p1;

    fn types(linker: &Linker<State>, store: &mut Store<State>) -> BTreeMap<String, FuncType> {
        let items: Vec<_> = linker.iter(&mut *store).map(|(_, name, item)| (name.to_owned(), item)).collect();
        items.into_iter().map(|(name, item)| (name, item.into_func().unwrap().ty(&mut *store))).collect()
    }

    #[test]
    fn the_functions_are_those_of_wasmtime_wasi() {
        let engine = engine::runner(Profile::default()).unwrap();
        let mut store = Store::new(&engine, State::empty());
        let (ours, mut theirs) = (linker(&engine).unwrap(), Linker::new(&engine));
        p1::add_to_linker_async(&mut theirs, |state: &mut State| &mut state.wasi).unwrap();
        let (ours, theirs) = (types(&ours, &mut store), types(&theirs, &mut store));
        assert!(theirs.len() > 40);
        assert_eq!(ours.keys().collect::<Vec<_>>(), theirs.keys().collect::<Vec<_>>());
        for (name, ty) in &theirs {
            assert!(FuncType::eq(ty, &ours[name]), "{name} is {}, here {}", ty, ours[name]);
        }
    }
}
