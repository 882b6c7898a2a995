//! A tiny root file system from busybox, and a plan as an ordinary `run` would make it.
use linux_exec::{
    capabilities::{CapabilitySet, CapabilitySets},
    confinement::{Confinement, Namespaces, Privileges},
    plan::{Call, Entry, Mount, MountSource, Plan, Stdio, Stream},
    rootfs::Rootfs,
    seccomp::{
        Filter,
        profile::{self, Action, Flags, Profile, Rule},
    },
    spawn::{Child, Exit, reap, spawn},
    users::User,
};
use std::{
    fs,
    io::Read,
    os::{fd::OwnedFd, unix::fs::PermissionsExt},
    path::{Path, PathBuf},
};

pub(crate) const BUSYBOX: &str = "/bin/busybox";
const PATH: &str = "PATH=/bin";

/// What Docker masks and makes read-only.
pub(crate) const MASKED: [&str; 6] =
    ["/proc/acpi", "/proc/keys", "/proc/timer_list", "/proc/sched_debug", "/proc/scsi", "/sys/firmware"];
pub(crate) const READ_ONLY: [&str; 5] = ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"];

/// Directories of one container; gone when dropped.
pub(crate) struct Sandbox {
    directory: tempfile::TempDir,
}

impl Sandbox {
    /// A layer with busybox, and an upper directory on a tmpfs where there is one.
    pub(crate) fn new() -> Self {
        let place = if Path::new("/dev/shm").is_dir() { "/dev/shm" } else { "/tmp" };
        let directory =
            tempfile::Builder::new().permissions(fs::Permissions::from_mode(0o755)).tempdir_in(place).unwrap();
        let sandbox = Self { directory };
        for name in ["lower/bin", "lower/etc", "upper", "work", "host"] {
            fs::create_dir_all(sandbox.path(name)).unwrap();
        }
        fs::copy(BUSYBOX, sandbox.path("lower/bin/busybox")).unwrap();
        for applet in
            ["sh", "true", "cat", "ls", "sleep", "tty", "id", "kill", "stat", "touch", "echo", "pwd", "hostname"]
        {
            std::os::unix::fs::symlink("busybox", sandbox.path("lower/bin").join(applet)).unwrap();
        }
        sandbox
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    pub(crate) fn root(&self) -> Rootfs {
        let fresh = self.path("work/0");
        let _ = fs::remove_dir_all(&fresh);
        fs::create_dir(&fresh).unwrap();
        Rootfs::overlay(&[self.path("lower")], &self.path("upper"), &fresh, true).unwrap()
    }

    /// A plan that runs `argv` (argv[0] is a path).
    pub(crate) fn plan<'a>(&self, argv: &[&str]) -> Plan<'a> {
        let entry = Entry::Exec {
            program: argv[0].into(),
            argv: argv.iter().map(|argument| argument.as_bytes().to_vec()).collect(),
            env: vec![PATH.into()],
            init: None,
        };
        plan(self.root(), entry)
    }

    /// Runs a shell script and gives its exit and what it wrote.
    pub(crate) fn sh(&self, script: &str, change: impl FnOnce(&mut Plan<'static>)) -> (Exit, String) {
        let mut plan = self.plan(&["/bin/sh", "-c", script]);
        change(&mut plan);
        run(plan).unwrap_or_else(|error| panic!("{script}: {error}"))
    }
}

/// A function that is called as the last thing, with these descriptors open.
pub(crate) fn call(function: Box<dyn FnOnce() -> u8>, keep: Vec<i32>) -> Entry {
    Entry::Call { prepare: Box::new(|| Call { function, keep }) }
}

pub(crate) fn plan<'a>(root: Rootfs, entry: Entry) -> Plan<'a> {
    let mount = |target: &str, source, readonly| Mount::new(target, source, readonly);
    let confinement = Confinement::new(Namespaces::NEW, privileges()).unwrap();
    Plan {
        mounts: vec![
            mount("/proc", MountSource::Proc, false),
            mount("/dev", MountSource::Dev { shm_bytes: Some(64 << 20), host_devices: false }, false),
            mount("/sys", MountSource::Sysfs, true),
            mount("/sys/fs/cgroup", MountSource::Cgroup, true),
        ],
        masked_paths: MASKED.iter().map(PathBuf::from).collect(),
        readonly_paths: READ_ONLY.iter().map(PathBuf::from).collect(),
        hostname: Some("vessel".into()),
        ..Plan::new(root, confinement, entry)
    }
}

/// Those that Docker gives root.
pub(crate) const CAPABILITIES: CapabilitySet = CapabilitySet::of(&[
    "CHOWN",
    "DAC_OVERRIDE",
    "FSETID",
    "FOWNER",
    "MKNOD",
    "NET_RAW",
    "SETGID",
    "SETUID",
    "SETFCAP",
    "SETPCAP",
    "NET_BIND_SERVICE",
    "SYS_CHROOT",
    "KILL",
    "AUDIT_WRITE",
]);

/// As Docker's root has them, with a filter that refuses little.
pub(crate) fn privileges() -> Privileges {
    Privileges {
        capabilities: CapabilitySets::of_user(CAPABILITIES, 0),
        no_new_privileges: true,
        seccomp: Some(without(&["add_key", "keyctl", "mount", "request_key", "setns", "unshare"])),
    }
}

/// A filter that refuses these system calls.
pub(crate) fn without(names: &[&str]) -> Filter {
    let calls = names.iter().map(|name| profile::Call::Name((*name).to_owned())).collect();
    let profile = Profile {
        default: Action::Allow,
        architectures: Vec::new(),
        rules: vec![Rule { calls, action: Action::Errno(1), conditions: Vec::new() }],
        newer_are_unknown: false,
        flags: Flags::default(),
    };
    profile.compile().unwrap()
}

/// The usual set with another one.
pub(crate) fn added(name: &str) -> CapabilitySet {
    CAPABILITIES.adjusted(&[name.to_owned()], &[]).unwrap()
}

/// Changes what a plan keeps its program from.
pub(crate) fn confine<'a>(plan: &mut Plan<'a>, change: impl FnOnce(&mut Namespaces<'a>, &mut Privileges)) {
    let (mut namespaces, mut privileges) = plan.confinement.clone().into_parts();
    change(&mut namespaces, &mut privileges);
    plan.confinement = Confinement::new(namespaces, privileges).unwrap();
}

/// Gives root these, and no filter.
pub(crate) fn unfiltered(plan: &mut Plan<'_>, capabilities: CapabilitySet) {
    confine(plan, |_, privileges| {
        privileges.capabilities = CapabilitySets::of_user(capabilities, 0);
        privileges.seccomp = None;
    });
}

pub(crate) fn root_user() -> User {
    User { uid: 0, gid: 0, groups: vec![], home: "/root".into() }
}

/// Runs a plan with its output in a pipe, to the end.
pub(crate) fn run(mut plan: Plan<'_>) -> Result<(Exit, String), linux_exec::Error> {
    let (mut reader, files) = piped();
    plan.stdio = files;
    let child = spawn(plan)?;
    Ok(finish(&child, &mut reader))
}

/// Input from /dev/null, output and error into a pipe.
pub(crate) fn piped() -> (std::io::PipeReader, Stdio) {
    let (reader, writer) = std::io::pipe().unwrap();
    let error = OwnedFd::from(writer.try_clone().unwrap());
    (reader, Stdio::Streams([Stream::Null, Stream::File(writer.into()), Stream::File(error)]))
}

pub(crate) fn finish(child: &Child, reader: &mut impl Read) -> (Exit, String) {
    let mut output = String::new();
    reader.read_to_string(&mut output).unwrap();
    (reap(child).unwrap().exit, output)
}

/// Runs a part of [`crate::parts`] in a process of its own, with one thread, and gives its output.
pub(crate) fn part(name: &str, arguments: &[String]) -> String {
    let output = own_command().arg(name).args(arguments).stderr(std::process::Stdio::inherit()).output().unwrap();
    assert!(output.status.success(), "{name}: {}", output.status);
    String::from_utf8(output.stdout).unwrap()
}

/// This program again.
pub(crate) fn own_command() -> std::process::Command {
    std::process::Command::new(std::env::current_exe().unwrap())
}

/// Reads until `end` was read, or end-of-file, which a pty's master reports as EIO; without carriage returns.
pub(crate) fn read_terminal(child: &Child, end: &str) -> String {
    let mut master = fs::File::from(child.terminal.as_ref().unwrap().try_clone().unwrap());
    let mut output = String::new();
    let mut buffer = [0; 4096];
    while !output.contains(end) {
        match master.read(&mut buffer) {
            Ok(length @ 1..) => output += &String::from_utf8_lossy(&buffer[..length]).replace('\r', ""),
            _ => break,
        }
    }
    output
}

/// A container that sleeps.
pub(crate) fn sleeping(sandbox: &Sandbox) -> Child {
    let (mut reader, files) = piped();
    let mut plan = sandbox.plan(&["/bin/sh", "-c", "echo up; exec sleep 1000"]);
    plan.stdio = files;
    let child = spawn(plan).unwrap();
    reader.read_exact(&mut [0; 3]).unwrap();
    child
}
