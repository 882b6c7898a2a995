//! One more program in a container that runs.
use crate::{
    capabilities::CapabilitySet,
    cgroup::Cgroup,
    child::{Last, Launch, stdio_steps},
    credentials::Credentials,
    guard::Check,
    mounts::c_path,
    plan::Stdio,
    process::Process,
    program::candidates,
    rootfs::open_regular,
    seccomp::Filter,
    spawn::{Child, SpawnError, exec_strings},
    steps::Step,
    sys::{self, Memory},
    terminal::Terminal,
    users::User,
};
use nix::libc::CLONE_PARENT;
use rustix::{
    fd::{AsFd, OwnedFd},
    fs::{CWD, Mode, OFlags, ResolveFlags, fstatfs, openat, openat2, stat},
    io::Errno,
    pipe::{PipeFlags, pipe_with},
    process::{DumpableBehavior, set_dumpable_behavior},
    thread::{ThreadNameSpaceType as Kind, move_into_thread_name_spaces},
};
use std::{
    fs::File,
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
    /// As in `Plan`.
    pub capabilities: CapabilitySet,
    /// As in `Plan`.
    pub no_new_privileges: bool,
    /// As in `Plan`.
    pub seccomp: Option<Filter>,
    /// As in `Plan`.
    pub rlimits: Vec<(u32, u64, u64)>,
    /// The container's.
    pub cgroup: Option<&'a Cgroup>,
    /// As in `Plan` (the pty comes from the container's own /dev/pts).
    pub stdio: Stdio,
}

/// Where a command without PATH in its environment is looked for, as in Docker.
const DEFAULT_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
/// statfs(2) f_type of devpts (linux/magic.h).
const DEVPTS_MAGIC: i64 = 0x1cd1;
/// The most that [`read_file`] reads.
const MAX_FILE_BYTES: u64 = 16 * 1024 * 1024;

/// The kinds of namespace that the child joins, with their names in /proc/PID/ns. The user namespace comes before, and
/// the pid namespace is for children only.
const JOINED: [(&str, Kind); 5] = [
    ("mnt", Kind::MOUNT),
    ("net", Kind::NETWORK),
    ("uts", Kind::HOST_NAME_AND_NIS_DOMAIN_NAME),
    ("ipc", Kind::INTER_PROCESS_COMMUNICATION),
    ("cgroup", Kind::CONTROL_GROUP),
];

/// Starts it.
///
/// The caller must be single-threaded and of the user that started the container (not inside a user namespace of its
/// own). It stays in its own namespaces: a copy of it enters the container's and starts the child there, as the caller's
/// (CLONE_PARENT), since a process that has a pid namespace for its children can start no thread any more. The child
/// never shares its memory and is not dumpable: processes of the container see it before its exec. It gets SIGKILL when
/// the calling thread ends, like a container's first process.
pub fn join(join: Join<'_>) -> Result<Child, SpawnError> {
    let target = join.target;
    let pidfd = target.pidfd().map_err(|error| SpawnError::from_io("find the container's process", &error))?;
    let kinds = differing_namespaces(target)?;
    set_dumpable_behavior(DumpableBehavior::NotDumpable)
        .map_err(|errno| SpawnError::new("make this process not dumpable", errno))?;
    let outer = OuterNamespaces::of(target)?;
    let terminal = open_terminal(&join)?;
    let (master, slave) = terminal.map(|terminal| (terminal.master, terminal.slave)).unzip();

    let (programs, directory) = (programs(&join)?, c_path(&join.cwd)?);
    let credentials = Credentials {
        user: &join.user,
        capabilities: join.capabilities,
        no_new_privileges: join.no_new_privileges,
        seccomp: join.seccomp,
        rlimits: &join.rlimits,
        cwd: &join.cwd,
        check: Some(Check { programs: programs.clone(), directory }),
        joined: Some(target),
    }
    .steps()?;

    let mut steps = vec![Step::NewSession];
    if let Some(cgroup) = join.cgroup {
        steps.extend(cgroup.join_files().into_iter().map(Step::JoinCgroup));
    }
    let entered = pidfd.try_clone().map_err(|error| SpawnError::from_io("duplicate a descriptor", &error))?;
    steps.push(Step::EnterNamespaces { target: entered, kinds });
    steps.extend(stdio_steps(join.stdio, slave)?);
    steps.extend(credentials);
    let last = Last::Exec { programs, argv: exec_strings(join.argv)?, env: exec_strings(join.env)? };
    let launch = Launch { namespaces: CLONE_PARENT, cgroup: None, share_memory: false, steps, last, terminal: None };
    start_from_inside(launch, &outer, &pidfd, master)
}

/// Which of the namespaces that a process takes its children into differ from the container's.
struct OuterNamespaces {
    user: bool,
    pid: bool,
}

impl OuterNamespaces {
    fn of(target: Process) -> Result<Self, SpawnError> {
        Ok(Self { user: differs(target, "user")?, pid: differs(target, "pid")? })
    }

    fn enter(&self, pidfd: &OwnedFd) -> Result<(), SpawnError> {
        let enter = |wanted: bool, name: &str, kind| match wanted {
            true => move_into_thread_name_spaces(pidfd.as_fd(), kind)
                .map_err(|errno| SpawnError::new(format!("enter the container's {name} namespace"), errno)),
            false => Ok(()),
        };
        enter(self.user, "user", Kind::USER)?;
        enter(self.pid, "pid", Kind::PROCESS_ID)
    }
}

/// Launches from a copy of this process, which tells what came of it and ends.
fn start_from_inside(
    launch: Launch<'_>,
    outer: &OuterNamespaces,
    pidfd: &OwnedFd,
    terminal: Option<OwnedFd>,
) -> Result<Child, SpawnError> {
    let (reader, writer) = pipe_with(PipeFlags::CLOEXEC).map_err(|errno| SpawnError::new("create a pipe", errno))?;
    let mut launch = Some(launch);
    let mut copy = || {
        let started = outer.enter(pidfd).and_then(|()| match launch.take() {
            Some(launch) => launch.start().map(|child| child.process.pid),
            None => Err(SpawnError::new("start twice", Errno::INVAL)),
        });
        // Nobody reads it if the caller is gone; the child is then killed with it.
        let _ = rustix::io::write(
            &writer,
            &started.map_or_else(|error| error.to_bytes(), |pid| pid.to_ne_bytes().to_vec()),
        );
        0
    };
    let inside =
        sys::clone(0, Memory::Copied, None, &mut copy).map_err(|errno| SpawnError::new("copy this process", errno))?;
    drop(writer);
    let mut told = Vec::new();
    let read = File::from(reader).read_to_end(&mut told);
    let _ = sys::wait_with_usage(inside.pid);
    read.map_err(|error| SpawnError::from_io("hear from the copy of this process", &error))?;
    let Ok(pid) = <[u8; 4]>::try_from(told.as_slice()) else { return Err(SpawnError::from_bytes(&told)) };
    let identify = |error: io::Error| SpawnError::from_io("identify the program's process", &error);
    let process = Process::of(i32::from_ne_bytes(pid)).map_err(identify)?;
    let pidfd = process.pidfd().map_err(identify)?;
    Ok(Child { process, pidfd, terminal })
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

/// Whether this process and the target have different namespaces of a kind.
fn differs(target: Process, name: &str) -> Result<bool, SpawnError> {
    let inode = |process: &str| {
        stat(format!("/proc/{process}/ns/{name}"))
            .map(|stat| stat.st_ino)
            .map_err(|errno| SpawnError::new(format!("look at the container's {name} namespace"), errno))
    };
    Ok(inode("self")? != inode(&target.pid.to_string())?)
}

/// Joining a namespace that one is in already can need rights that one has not.
fn differing_namespaces(target: Process) -> Result<Kind, SpawnError> {
    let mut kinds = Kind::empty();
    for (name, kind) in JOINED {
        if differs(target, name)? {
            kinds |= kind;
        }
    }
    Ok(kinds)
}

/// A terminal of the container's own devpts, reached from outside.
fn open_terminal(join: &Join<'_>) -> Result<Option<Terminal>, SpawnError> {
    let Stdio::Terminal { size } = join.stdio else { return Ok(None) };
    let error = |errno| SpawnError::new("open a terminal in the container's /dev/pts", errno);
    let root = open_root(join.target).map_err(|error| SpawnError::from_io("open the container's root", &error))?;
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let devpts = openat2(root, c"dev/pts", flags, Mode::empty(), ResolveFlags::IN_ROOT).map_err(error)?;
    if fstatfs(&devpts).map_err(error)?.f_type != DEVPTS_MAGIC {
        return Err(error(Errno::NOTTY).hint("it is not a devpts"));
    }
    Terminal::open(devpts.as_fd(), size, join.user.uid).map(Some).map_err(error)
}

/// The paths to try for argv[0].
fn programs(join: &Join<'_>) -> Result<Vec<std::ffi::CString>, SpawnError> {
    let name = join.argv.first().map(|name| String::from_utf8_lossy(name)).unwrap_or_default();
    let path = join.env.iter().find_map(|entry| entry.strip_prefix(b"PATH="));
    let path = path.map_or(DEFAULT_PATH.into(), String::from_utf8_lossy);
    let programs = candidates(&name, &path, &join.cwd);
    if programs.is_empty() {
        return Err(SpawnError::new("execute a command without a name", Errno::NOENT).exit_code_of_exec(Errno::NOENT));
    }
    programs.iter().map(|program| c_path(program)).collect()
}
