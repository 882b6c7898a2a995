//! As an ordinary user, in a user namespace.
use crate::{
    Case, hierarchies,
    sandbox::{Sandbox, confine, own_command, read_terminal, run},
};
use linux_exec::{
    confinement::Namespace,
    plan::{self, Mount, MountSource},
    spawn::{Exit, reap, spawn},
    userns::{IdMap, become_root},
};
use std::{
    fs,
    io::{BufRead, BufReader},
    os::unix::{fs::PermissionsExt, process::CommandExt},
    process::{Command, Stdio},
};

/// Says that the cases below are wanted.
pub(crate) const ARGUMENT: &str = "@rootless";
/// `nobody`, who has no subordinate ids.
const UID: u32 = 65534;

pub(crate) const CASES: &[Case] = &[
    ("rootless: becomes_root", becomes_root),
    ("rootless: container", container),
    ("rootless: host_network_binds_the_hosts_sysfs", host_network_binds_the_hosts_sysfs),
    ("rootless: unmapped_user_is_named", unmapped_user_is_named),
    ("rootless: terminal", terminal),
    (
        "rootless: a_user_namespace_changes_no_group_of_the_hosts",
        hierarchies::a_user_namespace_changes_no_group_of_the_hosts,
    ),
];

/// Runs the cases as that user, from a copy of this program that it may execute.
pub(crate) fn as_ordinary_user() {
    let directory =
        tempfile::Builder::new().permissions(fs::Permissions::from_mode(0o755)).tempdir_in("/dev/shm").unwrap();
    let program = directory.path().join("container");
    fs::copy(own_command().get_program(), &program).unwrap();
    let command = |argument: &str| {
        let mut command = Command::new(&program);
        command.arg(argument).uid(UID).gid(UID).current_dir("/");
        command
    };
    assert!(command(ARGUMENT).status().unwrap().success());
    join_from_outside(&command);
}

/// The joining process is that of the same user, but in the initial user namespace.
fn join_from_outside(command: &dyn Fn(&str) -> Command) {
    let mut sleeper = command("@sleep").stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    let mut line = String::new();
    BufReader::new(sleeper.stdout.take().unwrap()).read_line(&mut line).unwrap();
    let output = command("@join").args(line.split_whitespace()).stderr(Stdio::inherit()).output().unwrap();
    drop(sleeper.stdin.take());
    sleeper.wait().unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success() && text.starts_with("vessel\n0\n"), "{text}");
}

fn becomes_root() {
    assert_eq!(nix::unistd::geteuid().as_raw(), UID);
    assert_eq!(become_root().unwrap(), IdMap::Single);
    assert_eq!(nix::unistd::geteuid().as_raw(), 0);
}

fn container() {
    let sandbox = Sandbox::new();
    let host = sandbox.path("host");
    fs::write(host.join("file"), "from the host").unwrap();
    let script = "id -u; hostname; cat /proc/self/uid_map /data/file; echo x >/dev/null && echo y >/dev/shm/y && touch /made
        stat -c %t:%T /dev/null; ls /dev/mqueue; busybox rm -r /etc; ls /; cat /proc/keys; touch /data/x; busybox ip -o addr";
    let (exit, output) = sandbox.sh(script, |plan| {
        let source = MountSource::Bind { source: host, recursive: true };
        plan.mounts.push(Mount::new("/data", source, true));
    });
    assert_eq!(exit, Exit::Code(0), "{output}");
    assert!(output.starts_with("0\nvessel\n") && output.contains(&format!("{UID}          1\n")), "{output}");
    assert!(output.contains("from the host1:3\n") && output.contains("/data/x: Read-only"), "{output}");
    assert!(output.contains("made\n") && !output.contains("etc\n") && output.contains("127.0.0.1/8"), "{output}");
    assert!(sandbox.path("upper/made").exists());
}

fn host_network_binds_the_hosts_sysfs() {
    let (exit, output) = Sandbox::new().sh("ls /sys/kernel; touch /sys/x; ls -A /sys/firmware", |plan| {
        confine(plan, |namespaces, _| namespaces.network = Namespace::Host);
    });
    assert_eq!(exit, Exit::Code(0), "{output}");
    assert!(output.contains("mm\n") && output.contains("Read-only"), "{output}");
}

fn unmapped_user_is_named() {
    let sandbox = Sandbox::new();
    let mut plan = sandbox.plan(&["/bin/true"]);
    plan.user.uid = 1000;
    let error = run(plan).unwrap_err().to_string();
    assert!(error.contains("user 1000") && error.contains("/etc/subuid"), "{error}");
}

fn terminal() {
    let sandbox = Sandbox::new();
    let mut plan = sandbox.plan(&["/bin/sh", "-c", "tty; echo x >/dev/console"]);
    plan.stdio = plan::Stdio::Terminal { size: None };
    let child = spawn(plan).unwrap();
    assert_eq!(read_terminal(&child, "\0"), "/dev/pts/0\nx\n");
    assert_eq!(reap(&child).unwrap().exit, Exit::Code(0));
}
