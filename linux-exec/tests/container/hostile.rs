//! Containers whose processes attack whoever joins them. The parts end by an alarm should they wait for ever.
use crate::{
    cases::{as_arguments, end},
    parts::{join_plan, target},
    sandbox::{Sandbox, call, confine, part, piped, plan},
};
use linux_exec::{
    exec::join,
    spawn::{Child, Exit, reap, spawn},
};
use nix::{errno::Errno, sys::ptrace, unistd::Pid};
use std::io::Read;

/// A container whose first process runs a function, which has said `up`.
fn with_first(sandbox: &Sandbox, first: Box<dyn FnOnce() -> u8>) -> Child {
    let (mut reader, files) = piped();
    let mut plan = plan(sandbox.root(), call(first, Vec::new()));
    plan.stdio = files;
    let container = spawn(plan).unwrap();
    reader.read_exact(&mut [0; 3]).unwrap();
    container
}

/// The tracer never waits, so the kernel never tells the parent of the end: `exec` could only be killed.
pub(crate) fn a_tracer_that_keeps_the_end_of_a_program_holds_up_nobody() {
    let sandbox = Sandbox::new();
    let container = with_first(&sandbox, Box::new(trace_all));
    part("@join_traced", &as_arguments(container.process));
    end(&container);
}

/// Traces one process after the other as soon as it is there.
fn trace_all() -> u8 {
    println!("up");
    let mut last = 1;
    loop {
        // Some are gone before they are caught.
        for pid in last + 1..last + 8 {
            if !matches!(ptrace::seize(Pid::from_raw(pid), ptrace::Options::empty()), Err(Errno::ESRCH)) {
                last = pid;
            }
        }
    }
}

pub(crate) fn join_traced(arguments: &[String]) {
    nix::unistd::alarm::set(60);
    let withheld = (0..10).any(|_| {
        let child = join(join_plan(target(arguments), &["sh", "-c", "exit 3"], piped().1)).unwrap();
        let reaped = reap(&child).unwrap();
        assert_eq!(reaped.exit, if reaped.withheld { Exit::Signal(9) } else { Exit::Code(3) });
        reaped.withheld
    });
    assert!(withheld, "nothing was traced");
    let error = join(join_plan(target(arguments), &["/nothing"], piped().1)).unwrap_err();
    assert_eq!(error.exit_code(), 127, "{error}");
}

/// With the filter gone, the keys of whoever had started it could be read.
pub(crate) fn the_callers_keys_stay_with_the_caller() {
    if !std::path::Path::new("/proc/keys").exists() {
        println!("skipped: this kernel has no keys");
        return;
    }
    let (exit, keys) = Sandbox::new().sh("cat /proc/keys", |plan| {
        confine(plan, |_, privileges| privileges.seccomp = None);
        plan.masked_paths.clear();
    });
    assert_eq!(exit, Exit::Code(0));
    assert!(keys.lines().any(|key| key.contains("keyring") && key.contains("_ses: empty")), "{keys}");
}
