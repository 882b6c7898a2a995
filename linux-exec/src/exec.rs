//! One more program in a container that runs.
use crate::{
    actions::Membership,
    cgroup::Cgroup,
    child::{Child, Last, Launch, stdio_steps},
    confinement::Privileges,
    credentials::Credentials,
    devices::open_null,
    error::Error,
    launcher::{Becomes, Launcher, c_strings, exec_strings},
    magic,
    plan::{Lifetime, Patience, Stdio, Stream},
    process::{Process, pid_namespace},
    program::candidates,
    resolve,
    rootfs::open_regular,
    steps::Step,
    sys::Birth,
    target::c_path,
    terminal::Terminal,
    users::User,
};
use rustix::{
    fd::{AsFd, OwnedFd},
    fs::{CWD, Mode, OFlags, ResolveFlags, fstatfs, openat, stat},
    io::Errno,
    process::{DumpableBehavior, set_dumpable_behavior},
    thread::ThreadNameSpaceType as Kind,
};
use std::{
    io::{self, Read},
    path::{Path, PathBuf},
};

/// What to run where. The program is looked up inside the container, after its mount namespace was joined.
pub struct Join<'a> {
    /// The container's first process.
    pub target: Process,
    /// argv[0] is the command: a path, or a name to be found in `env`'s PATH.
    pub argv: Vec<Vec<u8>>,
    /// `NAME=value`.
    pub env: Vec<Vec<u8>>,
    /// Working directory; must exist.
    pub cwd: PathBuf,
    /// Ids.
    pub user: User,
    /// What it may do.
    pub privileges: Privileges,
    /// umask(2).
    pub umask: u32,
    /// As in `Plan`.
    pub rlimits: Vec<(u32, u64, u64)>,
    /// The container's.
    pub cgroup: Option<&'a Cgroup>,
    /// As in `Plan` (the pty comes from the container's own /dev/pts).
    pub stdio: Stdio,
    /// As in `Plan`; ten seconds at the most once the container's processes can see the program.
    pub patience: Patience,
    /// As in `Plan`.
    pub lifetime: Lifetime,
}

/// Where a command without PATH in its environment is looked for, as in Docker.
const DEFAULT_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
/// The most that [`read_file`] reads.
const MAX_FILE_BYTES: u64 = 16 * 1024 * 1024;

/// The kinds of namespace that are joined, with their names in /proc/PID/ns; the pid namespace is for children only.
const JOINED: [(&str, Kind); 7] = [
    ("user", Kind::USER),
    ("pid", Kind::PROCESS_ID),
    ("mnt", Kind::MOUNT),
    ("net", Kind::NETWORK),
    ("uts", Kind::HOST_NAME_AND_NIS_DOMAIN_NAME),
    ("ipc", Kind::INTER_PROCESS_COMMUNICATION),
    ("cgroup", Kind::CONTROL_GROUP),
];

/// Starts it, as a child of the calling process.
///
/// The caller must be of the user that started the container (not inside a user namespace of its own). A child of it takes
/// all steps outside of the container's pid namespace, where no process of the container can see it: it enters the other
/// namespaces and the cgroup, gives up its rights, and executes the launcher. Only what that starts, confined already, is
/// inside (CVE-2016-9962).
pub fn join(join: Join<'_>) -> Result<Child, Error> {
    let target = join.target;
    let pidfd = target.pidfd().map_err(|error| Error::new("find the container's process", error))?;
    let kinds = differing_namespaces(target)?;
    let joined = pid_namespace(&target.pid.to_string());
    let joined = Some(joined.map_err(|errno| Error::new("look at the container's pid namespace", errno))?);
    set_dumpable_behavior(DumpableBehavior::NotDumpable)
        .map_err(|errno| Error::new("make this process not dumpable", errno))?;
    let terminal = open_terminal(&join)?;
    let (master, slave) = terminal.map(|terminal| (terminal.master, terminal.slave)).unzip();
    let becomes = Becomes::Join { terminal: slave.is_some(), lifetime: join.lifetime };

    let programs = programs(&join)?;
    let credentials = Credentials {
        user: &join.user,
        privileges: join.privileges,
        rlimits: &join.rlimits,
        cwd: &join.cwd,
        umask: join.umask,
        lifetime: join.lifetime,
        joined: Some(target),
    }
    .steps()?;

    let mut steps = vec![Step::NewSession, Step::DefaultSignals];
    if let Some(cgroup) = join.cgroup {
        steps.extend(cgroup.join_files(false).into_iter().map(Step::JoinCgroup));
        steps.push(in_groups_of(target, cgroup.id())?);
    }
    steps.push(Step::EnterNamespaces { target: pidfd, kinds });
    steps.extend(stdio_steps(opened(join.stdio)?, slave, &join.user, false)?);
    steps.extend(credentials);
    let last = Last::Program(Launcher::new(becomes, None, programs, c_strings(join.argv)?, exec_strings(join.env)?)?);
    let birth = Birth::default();
    Launch { birth, between: 0, steps, last, terminal: master, joined, patience: join.patience }.start()
}

/// With null devices opened here, as who joins has no mount namespace of its own to do it in.
fn opened(stdio: Stdio) -> Result<Stdio, Error> {
    let Stdio::Streams(streams) = stdio else { return Ok(stdio) };
    let mut null = None;
    let mut open = |stream| -> io::Result<Stream> {
        let Stream::Null = stream else { return Ok(stream) };
        let device = null.take().map_or_else(open_null, Ok)?;
        let copy = device.try_clone()?;
        null = Some(device);
        Ok(Stream::File(copy))
    };
    let [input, output, error] = streams;
    let opened = open(input).and_then(|input| Ok([input, open(output)?, open(error)?]));
    opened.map(Stdio::Streams).map_err(|error| Error::new("open /dev/null", error))
}

/// Reads a regular file inside a running container (e.g. /etc/passwd) as its processes would find it; Ok(None) if
/// missing, an error if it is larger than 16 MiB.
pub fn read_file(target: Process, path: &Path) -> io::Result<Option<Vec<u8>>> {
    let root = open_root(target)?;
    let Some(file) = open_regular(root.as_fd(), path)? else { return Ok(None) };
    if file.metadata()?.len() > MAX_FILE_BYTES {
        return Err(io::Error::new(io::ErrorKind::FileTooLarge, format!("{} is larger than 16 MiB", path.display())));
    }
    let mut text = Vec::new();
    file.take(MAX_FILE_BYTES).read_to_end(&mut text)?;
    Ok(Some(text))
}

/// The container's root directory; the process is looked at again afterwards, as its pid may have been taken by
/// another.
fn open_root(target: Process) -> io::Result<OwnedFd> {
    let path = format!("/proc/{}/root", target.pid);
    let root = openat(CWD, path, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?;
    if target.is_alive() { Ok(root) } else { Err(Errno::SRCH.into()) }
}

/// Whoever joins is in all groups of the container's that its first process is in.
fn in_groups_of<'a>(target: Process, id: &str) -> Result<Step<'a>, Error> {
    let text = std::fs::read(format!("/proc/{}/cgroup", target.pid))
        .map_err(|error| Error::new("look at the container's cgroups", error))?;
    let id = id.as_bytes().to_vec();
    let entered = Membership::all(&text).filter(|line| line.is_in(&id));
    let hierarchies = Some(entered.map(|line| line.hierarchy).collect());
    Ok(Step::InOwnCgroups { id, hierarchies })
}

/// Whether this process and the target have different namespaces of a kind.
fn differs(target: Process, name: &str) -> Result<bool, Error> {
    let inode = |process: &str| {
        stat(format!("/proc/{process}/ns/{name}")).map(|stat| stat.st_ino).map_err(|errno| {
            Error::new(format!("look at the container's {name} namespace"), errno).hint(match errno {
                Errno::NOENT => {
                    "the main thread of its first process has ended (others may go on), and there is nothing left to join by: \
                     stop the container and start it again"
                }
                _ => "",
            })
        })
    };
    Ok(inode("self")? != inode(&target.pid.to_string())?)
}

/// Joining a namespace that one is in already can need rights that one has not.
fn differing_namespaces(target: Process) -> Result<Kind, Error> {
    let mut kinds = Kind::empty();
    for (name, kind) in JOINED {
        if differs(target, name)? {
            kinds |= kind;
        }
    }
    Ok(kinds)
}

/// A terminal of the container's own devpts, reached from outside.
fn open_terminal(join: &Join<'_>) -> Result<Option<Terminal>, Error> {
    let Stdio::Terminal { size } = join.stdio else { return Ok(None) };
    let error = |errno| Error::new("open a terminal in the container's /dev/pts", errno);
    let root = open_root(join.target).map_err(|error| Error::new("open the container's root", error))?;
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let devpts = resolve::open(root, c"dev/pts", flags, ResolveFlags::IN_ROOT).map_err(error)?;
    if fstatfs(&devpts).map_err(error)?.f_type != magic::DEVPTS {
        return Err(error(Errno::NOTTY).hint("it is not a devpts"));
    }
    Terminal::open(devpts.as_fd(), size, join.user.uid).map(Some).map_err(error)
}

/// The paths to try for argv[0].
fn programs(join: &Join<'_>) -> Result<Vec<std::ffi::CString>, Error> {
    let name = join.argv.first().map(|name| String::from_utf8_lossy(name)).unwrap_or_default();
    let path = join.env.iter().find_map(|entry| entry.strip_prefix(b"PATH="));
    let path = path.map_or(DEFAULT_PATH.into(), String::from_utf8_lossy);
    let programs = candidates(&name, &path, &join.cwd);
    if programs.is_empty() {
        return Err(Error::new("execute a command without a name", Errno::NOENT).exit_code_of_exec(Errno::NOENT));
    }
    programs.iter().map(|program| c_path(program)).collect()
}
