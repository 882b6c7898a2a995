//! Rootless: becomes root in a user namespace of its own before anything else happens.
//!
//! Which ids there are in it is up to the machine: `newuidmap` and `newgidmap` (Debian: `uidmap`) map the ranges that
//! /etc/subuid and /etc/subgid give to the user; without them the kernel lets a user map only itself.
//!
//! Source: user_namespaces(7), newuidmap(1), subuid(5).

use crate::{
    error::Error,
    reap,
    sys::{self, Birth, Memory, NewNamespaces},
    users,
};
use nix::{
    errno::Errno,
    sched::{CloneFlags, unshare},
    unistd::{getegid, geteuid},
};
use rustix::{
    fd::{AsFd, OwnedFd},
    mount::{MountPropagationFlags, mount_change},
};
use std::{
    env, fs,
    io::{self, Write},
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
};

/// How ids are mapped.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum IdMap {
    /// Really root, or root of a user namespace that somebody else made: no user namespace of ours.
    Host,
    /// Only this user, as root (no newuidmap, or no /etc/subuid entry). setgroups(2) is denied in it.
    Single,
    /// Root and `count` subordinate ids.
    Range {
        /// How many.
        count: u32,
    },
}

/// Why no user namespace could be had, and the sysctl or package that helps.
#[derive(Debug, thiserror::Error)]
pub enum UserNamespaceError {
    /// The kernel refused; the reason is ours, from what its settings say.
    #[error("cannot make a user namespace ({errno}): {reason}; or run as root")]
    Refused {
        /// What the kernel said.
        errno: Errno,
        /// What is likely behind it, and what to do.
        reason: String,
    },
    /// newuidmap or newgidmap did not map the ids.
    #[error(
        "{program} failed: {said}; check that it is setuid root (reinstall the package `uidmap`) and that {file} lists the \
         user's range as `USER:START:COUNT`"
    )]
    Helper {
        /// Which one.
        program: String,
        /// Its message, or how it ended.
        said: String,
        /// Where the range comes from.
        file: &'static str,
    },
    /// Reading, writing or starting something failed.
    #[error("cannot {action} {}: {source}", path.display())]
    File {
        /// Such as `write`.
        action: &'static str,
        /// The object.
        path: PathBuf,
        /// What the kernel said.
        source: io::Error,
    },
}

impl UserNamespaceError {
    fn file(action: &'static str, path: impl Into<PathBuf>) -> impl FnOnce(io::Error) -> Self {
        let path = path.into();
        move |source| Self::File { action, path, source }
    }
}

/// Whether this process is in a user namespace that is not the machine's own.
#[must_use]
pub fn is_inside() -> bool {
    sys::in_user_namespace()
}

/// Unshares a user and a mount namespace and maps ids if the effective user is not root, so that all that follows is the
/// same as for root.
///
/// Root, also of a user namespace made by somebody else, stays what it is. Mounts made afterwards are seen by nobody else;
/// what the host mounts and unmounts still arrives. The process must be single-threaded, or the kernel refuses with EINVAL.
pub fn become_root() -> Result<IdMap, UserNamespaceError> {
    if geteuid().is_root() {
        return Ok(IdMap::Host);
    }
    let helpers = Helpers::start()?;
    let (uid, gid) = (geteuid().as_raw(), getegid().as_raw());
    unshare(CloneFlags::CLONE_NEWUSER | CloneFlags::CLONE_NEWNS).map_err(refused)?;
    let map = match helpers {
        Some(helpers) => helpers.map()?,
        None => map_single(uid, gid)?,
    };
    let flags = MountPropagationFlags::DOWNSTREAM | MountPropagationFlags::REC;
    mount_change("/", flags).map_err(|errno| refused(Errno::from_raw(errno.raw_os_error())))?;
    Ok(map)
}

/// Ids of a user namespace and what they are outside of it (user_namespaces(7), "User and group ID mappings").
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct IdRange {
    /// The first one inside.
    pub inside: u32,
    /// What that is in the caller's user namespace.
    pub outside: u32,
    /// How many.
    pub count: u32,
}

/// A new user namespace with these ids, for [`crate::confinement::Namespaces::user`] and for mounts that map ids. It lives as long as the
/// descriptor, or as something is in it. Needs CAP_SETUID and CAP_SETGID.
pub fn make(uids: &[IdRange], gids: &[IdRange]) -> Result<OwnedFd, Error> {
    let error = |action: &'static str| move |error: io::Error| Error::new(action, error);
    let birth = Birth { namespaces: NewNamespaces::USER, ..Birth::default() };
    // Only there to be the first in it, until it is killed or this process has gone.
    let mut wait = || {
        let _ = rustix::process::set_parent_process_death_signal(Some(rustix::process::Signal::KILL));
        let _ = sys::unblock_all_signals();
        loop {
            let _ = rustix::thread::nanosleep(&rustix::thread::Timespec { tv_sec: 3600, tv_nsec: 0 });
        }
    };
    let first = sys::clone(birth, Memory::Copied, &mut wait).map_err(|errno| {
        Error::new("create a user namespace", errno).hint(match errno {
            rustix::io::Errno::NOSPC | rustix::io::Errno::USERS => {
                "there are as many as user.max_user_namespaces allows"
            }
            _ => "",
        })
    })?;
    let file = |name: &str| format!("/proc/{}/{name}", first.pid);
    let lines = |ranges: &[IdRange]| {
        let line = |range: &IdRange| format!("{} {} {}\n", range.inside, range.outside, range.count);
        ranges.iter().map(line).collect::<String>()
    };
    let made = fs::write(file("uid_map"), lines(uids))
        .and_then(|()| fs::write(file("gid_map"), lines(gids)))
        .map_err(|error| {
            Error::new("map the ids of a user namespace", error)
                .hint("each range must lie in what this process's own user namespace has, and none may overlap another")
        })
        .and_then(|()| fs::File::open(file("ns/user")).map_err(error("open a user namespace")));
    reap::put_down(first.pid, first.pidfd.as_fd());
    made.map(OwnedFd::from)
}

/// Maps this user alone. The kernel asks for setgroups(2) to be given up, as it could drop a group that denies access.
fn map_single(uid: u32, gid: u32) -> Result<IdMap, UserNamespaceError> {
    for (path, text) in [
        ("/proc/self/setgroups", "deny".to_owned()),
        ("/proc/self/uid_map", format!("0 {uid} 1")),
        ("/proc/self/gid_map", format!("0 {gid} 1")),
    ] {
        let written =
            fs::OpenOptions::new().write(true).open(path).and_then(|mut file| file.write_all(text.as_bytes()));
        written.map_err(|error| match error.kind() {
            io::ErrorKind::PermissionDenied => refused(Errno::from_raw(error.raw_os_error().unwrap_or_default())),
            _ => UserNamespaceError::file("write", path)(error),
        })?;
    }
    Ok(IdMap::Single)
}

/// newuidmap and newgidmap for this process, each in a shell that waits for the word. They have to be started before the
/// user namespace is made, as their privilege ends at its border, and to run after it.
struct Helpers {
    uid: Child,
    gid: Child,
    count: u32,
}

impl Helpers {
    /// `Ok(None)` where ids cannot be mapped that way.
    fn start() -> Result<Option<Self>, UserNamespaceError> {
        let (Some(newuidmap), Some(newgidmap)) = (privileged("newuidmap"), privileged("newgidmap")) else {
            return Ok(None);
        };
        let user = UserNames::own();
        let (Some(uids), Some(gids)) = (user.range(SUBUID), user.range(SUBGID)) else { return Ok(None) };
        Ok(Some(Self {
            uid: start_waiting(&newuidmap, geteuid().as_raw(), uids)?,
            gid: start_waiting(&newgidmap, getegid().as_raw(), gids)?,
            count: uids.count.min(gids.count),
        }))
    }

    /// Lets both go on at once.
    fn map(self) -> Result<IdMap, UserNamespaceError> {
        let (mut uid, mut gid) = (self.uid, self.gid);
        give_word(&mut uid)?;
        give_word(&mut gid)?;
        finish(uid, "newuidmap", SUBUID)?;
        finish(gid, "newgidmap", SUBGID)?;
        Ok(IdMap::Range { count: self.count })
    }
}

/// Waits for a line and becomes the program that its arguments name; ends at the end of input, when this process has.
const WAIT: &str = r#"read -r _ && exec "$@""#;

/// `program PID 0 OWN 1 1 START COUNT`: this user becomes root, its subordinate range what comes after.
fn start_waiting(program: &Path, own: u32, range: SubordinateRange) -> Result<Child, UserNamespaceError> {
    let numbers = [std::process::id(), 0, own, 1, 1, range.start, range.count];
    let mut command = Command::new("/bin/sh");
    command.args(["-c", WAIT, "sh"]).arg(program).args(numbers.map(|number| number.to_string()));
    command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::piped());
    command.spawn().map_err(UserNamespaceError::file("start", "/bin/sh"))
}

fn give_word(child: &mut Child) -> Result<(), UserNamespaceError> {
    let written = child.stdin.take().map_or(Ok(()), |mut input| input.write_all(b"\n"));
    written.map_err(UserNamespaceError::file("write to", "/bin/sh"))
}

fn finish(child: Child, program: &str, file: &'static str) -> Result<(), UserNamespaceError> {
    let output = child.wait_with_output().map_err(UserNamespaceError::file("wait for", program))?;
    if output.status.success() {
        return Ok(());
    }
    let message = String::from_utf8_lossy(&output.stderr).trim().to_owned();
    let said = if message.is_empty() { output.status.to_string() } else { message };
    Err(UserNamespaceError::Helper { program: program.to_owned(), said, file })
}

/// The program on PATH, if it has the privilege it needs (the setuid bit or file capabilities) and may use it.
fn privileged(program: &str) -> Option<PathBuf> {
    if rustix::thread::no_new_privs().unwrap_or(false) {
        return None;
    }
    let path = env::var_os("PATH")?;
    let found = env::split_paths(&path).map(|directory| directory.join(program)).find(|path| path.is_file())?;
    let setuid = fs::metadata(&found).ok()?.permissions().mode() & 0o4000 != 0;
    (setuid || rustix::fs::getxattr(&found, "security.capability", &mut [0_u8; 64][..]).is_ok()).then_some(found)
}

const SUBUID: &str = "/etc/subuid";
const SUBGID: &str = "/etc/subgid";

/// What /etc/subuid may call this user.
struct UserNames {
    name: Option<String>,
    uid: u32,
}

/// A line of subuid(5).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct SubordinateRange {
    start: u32,
    count: u32,
}

impl UserNames {
    /// The environment stands in for users that /etc/passwd does not list; newuidmap checks the claim.
    fn own() -> Self {
        let uid = geteuid().as_raw();
        let listed = users::name_of(uid, &fs::read_to_string("/etc/passwd").unwrap_or_default());
        Self { name: listed.or_else(|| env::var("USER").ok()), uid }
    }

    fn range(&self, file: &str) -> Option<SubordinateRange> {
        self.largest_range(&fs::read_to_string(file).ok()?)
    }

    /// `USER|UID:START:COUNT`; the largest one where there are several.
    fn largest_range(&self, text: &str) -> Option<SubordinateRange> {
        let uid = self.uid.to_string();
        let range = |line: &str| {
            let mut fields = line.trim().split(':');
            let owner = fields.next()?;
            let (start, count) = (fields.next()?.parse().ok()?, fields.next()?.parse().ok()?);
            let ours = owner == uid || Some(owner) == self.name.as_deref();
            (ours && count > 0).then_some(SubordinateRange { start, count })
        };
        text.lines().filter_map(range).max_by_key(|range| range.count)
    }
}

/// Names the setting that keeps ordinary users from having user namespaces.
fn refused(errno: Errno) -> UserNamespaceError {
    let setting =
        |name: &str| fs::read_to_string(Path::new("/proc/sys").join(name)).unwrap_or_default().trim().to_owned();
    let reason = if errno == Errno::EINVAL {
        "this process has more than one thread"
    } else if setting("kernel/unprivileged_userns_clone") == "0" {
        "kernel.unprivileged_userns_clone is 0; `sudo sysctl -w kernel.unprivileged_userns_clone=1` allows it"
    } else if setting("user/max_user_namespaces") == "0" {
        "user.max_user_namespaces is 0; `sudo sysctl -w user.max_user_namespaces=15000` allows it"
    } else if setting("kernel/apparmor_restrict_unprivileged_userns") == "1" {
        "kernel.apparmor_restrict_unprivileged_userns is 1; `sudo sysctl -w kernel.apparmor_restrict_unprivileged_userns=0` \
         allows it"
    } else if errno == Errno::ENOSPC || errno == Errno::EUSERS {
        "there are as many as user.max_user_namespaces allows, or they are nested too deep"
    } else {
        "the kernel has none, or this process is in a chroot or in a container whose seccomp profile forbids it"
    };
    UserNamespaceError::Refused { errno, reason: reason.to_owned() }
}

/// What needs a process with one thread is tested in `tests/userns.rs`.
#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn subordinate_ranges() {
        let text = "other:1:2\nme:100000:65536\n1000:200000:70000\nme:bad:1\nme:5\n\nme:300000:0\n";
        let range = |start, count| Some(SubordinateRange { start, count });
        for (name, uid, expected) in [
            (Some("me"), 1, range(100_000, 65536)),
            (Some("me"), 1000, range(200_000, 70000)),
            (None, 1000, range(200_000, 70000)),
            (Some("nobody"), 2, None),
            (Some("other"), 2, range(1, 2)),
        ] {
            let user = UserNames { name: name.map(str::to_owned), uid };
            assert_eq!(user.largest_range(text), expected, "{name:?} {uid}");
        }
    }
}
