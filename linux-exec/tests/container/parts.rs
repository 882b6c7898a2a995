//! What is run in a process of its own: joining changes the caller's pid namespace for its children, and needs a caller
//! with one thread; a supervisor that ends must be another process.
use crate::sandbox::{Sandbox, added, finish, piped, privileges, read_terminal, root_user, sleeping};
use crate::{choices, hostile};
use linux_exec::{
    capabilities::CapabilitySets,
    cgroup::Cgroups,
    exec::{Join, join},
    plan::{Lifetime, Patience, Stdio},
    process::Process,
    spawn::{Exit, reap, spawn},
    userns::become_root,
};
use std::io::Read;

/// Takes its arguments.
type Part = fn(&[String]);

/// By name; the arguments are those after it.
pub(crate) const PARTS: &[(&str, Part)] = &[
    ("@join", join_some),
    ("@join_cgroup", join_cgroup),
    ("@join_links", join_links),
    ("@join_often", join_often),
    ("@sleep", sleep),
    ("@join_terminal", join_terminal),
    ("@join_traced", hostile::join_traced),
    ("@supervise", supervise),
    ("@leave", choices::leave_one_behind),
];

pub(crate) fn join_plan<'a>(target: Process, argv: &[&str], stdio: Stdio) -> Join<'a> {
    Join {
        target,
        argv: argv.iter().map(|argument| argument.as_bytes().to_vec()).collect(),
        env: vec![b"PATH=/nowhere:/bin".to_vec()],
        cwd: "/".into(),
        user: root_user(),
        privileges: privileges(),
        umask: 0o022,
        rlimits: vec![],
        cgroup: None,
        stdio,
        patience: Patience::default(),
        lifetime: Lifetime::OfStarter,
    }
}

pub(crate) fn target(arguments: &[String]) -> Process {
    Process { pid: arguments[0].parse().unwrap(), start_ticks: arguments[1].parse().unwrap() }
}

fn join_some(arguments: &[String]) {
    let target = target(arguments);
    let run = |argv: &[&str]| {
        let (mut reader, files) = piped();
        let child = join(join_plan(target, argv, files)).unwrap();
        let (exit, output) = finish(&child, &mut reader);
        assert_eq!(exit, Exit::Code(0), "{output}");
        output
    };
    print!("{}", run(&["sh", "-c", "hostname; echo $PPID; exec cat /proc/self/status /proc/1/cmdline"]));
    assert_eq!(run(&["ls", "/proc/self/fd"]), "0\n1\n2\n3\n");
    for (name, code) in [("nothing", 127), ("/bin", 126), ("", 127)] {
        let error = join(join_plan(target, &[name], piped().1)).unwrap_err();
        assert_eq!(error.exit_code(), code, "{error}");
    }
}

/// With the container's cgroup.
fn join_cgroup(arguments: &[String]) {
    let cgroup = Cgroups::detect().unwrap().open(&arguments[2]).unwrap().unwrap();
    let (mut reader, files) = piped();
    let mut plan = join_plan(target(arguments), &["cat", "/proc/self/cgroup"], files);
    plan.cgroup = Some(&cgroup);
    let child = join(plan).unwrap();
    print!("{}", finish(&child, &mut reader).1);
}

/// The file of the process that is looked at is never one of the host's: the launcher answers to its own links.
fn join_links(arguments: &[String]) {
    for (program, code) in [("/proc/self/exe", 126), ("/proc/thread-self/exe", 126), ("/bin/link", 126)] {
        let (mut reader, files) = piped();
        let child = join(join_plan(target(arguments), &[program, "sh"], files)).unwrap();
        let (exit, output) = finish(&child, &mut reader);
        assert_eq!(exit, Exit::Code(code), "{program}: {output}");
        assert!(output.contains("no program here"), "{program}: {output}");
    }
}

/// Whatever comes of it.
fn join_often(arguments: &[String]) {
    for _ in 0..500 {
        let mut plan = join_plan(target(arguments), &[&arguments[2], "x"], piped().1);
        plan.privileges.capabilities = CapabilitySets::of_user(added("SYS_PTRACE"), 0);
        if let Ok(child) = join(plan) {
            reap(&child).unwrap();
        }
    }
}

fn join_terminal(arguments: &[String]) {
    let stdio = Stdio::Terminal { size: None };
    let child = join(join_plan(target(arguments), &["sh", "-c", "tty; echo x >/dev/tty"], stdio)).unwrap();
    print!("{}", read_terminal(&child, "\0"));
    assert_eq!(reap(&child).unwrap().exit, Exit::Code(0));
}

/// Starts a container and ends.
fn supervise(_arguments: &[String]) {
    let sandbox = Sandbox::new();
    let child = spawn(sandbox.plan(&["/bin/sleep", "1000"])).unwrap();
    println!("{} {}", child.process.pid, child.process.start_ticks);
}

/// A container without root that sleeps until our standard input ends.
fn sleep(_arguments: &[String]) {
    become_root().unwrap();
    let sandbox = Sandbox::new();
    let container = sleeping(&sandbox);
    println!("{} {}", container.process.pid, container.process.start_ticks);
    std::io::stdin().read_to_end(&mut Vec::new()).unwrap();
}
