//! Network namespaces that are made before the container is: so its devices are ready before its program is.

use std::{
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    panic, thread,
};

use rustix::{
    fs::{CWD, Mode, OFlags, openat},
    thread::LinkNameSpaceType,
};

use crate::{
    Error, actions,
    sys::{self, NewNamespaces},
};

/// Makes a network namespace, with loopback up, and calls `inside` in it, on this thread. It lasts as long as the descriptor, or a
/// process in it.
pub fn make<T, E: From<Error>>(inside: impl FnOnce() -> Result<T, E>) -> Result<(OwnedFd, T), E> {
    let before = current()?;
    sys::unshare(NewNamespaces::NETWORK).map_err(|errno| Error::new("make a network namespace", errno))?;
    let made = settled(inside);
    enter(before.as_fd())?;
    made
}

/// The one that this thread has just made.
fn settled<T, E: From<Error>>(inside: impl FnOnce() -> Result<T, E>) -> Result<(OwnedFd, T), E> {
    let namespace = current()?;
    actions::loopback_up().map_err(|errno| Error::new("switch loopback on in a network namespace", errno))?;
    Ok((namespace, inside()?))
}

/// As [`make`], on a thread of its own, which ends there: for who may make a namespace and has no right to come back from it.
pub fn make_elsewhere<T: Send, E: From<Error> + Send>(
    inside: impl FnOnce() -> Result<T, E> + Send,
) -> Result<(OwnedFd, T), E> {
    elsewhere(|| {
        sys::unshare(NewNamespaces::NETWORK).map_err(|errno| Error::new("make a network namespace", errno))?;
        settled(inside)
    })
}

/// As [`inside`], on a thread of its own in the same way.
pub fn inside_elsewhere<T: Send, E: From<Error> + Send>(
    namespace: BorrowedFd<'_>,
    inside: impl FnOnce() -> Result<T, E> + Send,
) -> Result<T, E> {
    elsewhere(|| {
        enter(namespace)?;
        inside()
    })
}

fn elsewhere<T: Send, E: From<Error> + Send>(work: impl FnOnce() -> Result<T, E> + Send) -> Result<T, E> {
    let named = || (rustix::thread::gettid(), work());
    let done = thread::scope(|scope| {
        let started = thread::Builder::new().name("inside".to_owned()).spawn_scoped(scope, named);
        started.map(thread::ScopedJoinHandle::join)
    });
    match done {
        Ok(Ok((thread, done))) => {
            wait_for_end(thread);
            done
        }
        Ok(Err(panic)) => panic::resume_unwind(panic),
        Err(error) => Err(Error::new("start a thread for a network namespace", error).into()),
    }
}

/// A thread that can be joined is still counted for a moment, and who has two is not copied.
fn wait_for_end(thread: rustix::thread::Pid) {
    const TRIES: u32 = 10_000;
    let path = format!("/proc/self/task/{}", thread.as_raw_nonzero());
    for _ in 0..TRIES {
        if rustix::fs::stat(&path).is_err() {
            return;
        }
        rustix::thread::sched_yield();
    }
}

/// Calls `inside` in a network namespace, on this thread.
pub fn inside<T, E: From<Error>>(namespace: BorrowedFd<'_>, inside: impl FnOnce() -> Result<T, E>) -> Result<T, E> {
    let before = current()?;
    enter(namespace)?;
    let done = inside();
    enter(before.as_fd())?;
    done
}

/// That of a process.
pub fn of_process(pid: i32) -> Result<OwnedFd, Error> {
    open(&format!("/proc/{pid}/ns/net"))
}

/// Whether the caller is in it.
pub fn is_callers(namespace: BorrowedFd<'_>) -> Result<bool, Error> {
    let number = |of: BorrowedFd<'_>| {
        rustix::fs::fstat(of)
            .map(|found| (found.st_dev, found.st_ino))
            .map_err(|errno| Error::new("look at a network namespace", errno))
    };
    Ok(number(namespace)? == number(current()?.as_fd())?)
}

fn current() -> Result<OwnedFd, Error> {
    open("/proc/thread-self/ns/net")
}

fn open(path: &str) -> Result<OwnedFd, Error> {
    openat(CWD, path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())
        .map_err(|errno| Error::new(format!("open the network namespace {path}"), errno))
}

/// This thread is in it from now on.
pub fn enter(namespace: BorrowedFd<'_>) -> Result<(), Error> {
    rustix::thread::move_into_link_name_space(namespace, Some(LinkNameSpaceType::Network))
        .map_err(|errno| Error::new("enter a network namespace", errno))
}
