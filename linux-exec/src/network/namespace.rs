//! Network namespaces that are made before the container is: so its devices are ready before its program is.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

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
    let made = || -> Result<_, E> {
        let namespace = current()?;
        actions::loopback_up().map_err(|errno| Error::new("switch loopback on in a network namespace", errno))?;
        Ok((namespace, inside()?))
    };
    let made = made();
    enter(before.as_fd())?;
    made
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

fn current() -> Result<OwnedFd, Error> {
    open("/proc/thread-self/ns/net")
}

fn open(path: &str) -> Result<OwnedFd, Error> {
    openat(CWD, path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())
        .map_err(|errno| Error::new(format!("open the network namespace {path}"), errno))
}

fn enter(namespace: BorrowedFd<'_>) -> Result<(), Error> {
    rustix::thread::move_into_link_name_space(namespace, Some(LinkNameSpaceType::Network))
        .map_err(|errno| Error::new("enter a network namespace", errno))
}
