//! Starts busybox in real containers and looks at them from inside.
//!
//! Without the usual harness: `Entry::Call` and `exec::join` want a caller with one thread, and the cases count
//! descriptors and mounts of this process. `container NAME…` runs the cases whose names contain one of those.
#![allow(clippy::unwrap_used, reason = "a case that panics has failed")]

mod cases;
mod choices;
mod covers;
mod engine;
mod hierarchies;
mod hostile;
mod leftovers;
mod parts;
mod rootless;
mod sandbox;

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    process::ExitCode,
};

/// A name and what must not panic.
type Case = (&'static str, fn());

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).filter(|argument| !argument.starts_with('-')).collect();
    if arguments.first().is_some_and(|argument| argument == rootless::ARGUMENT) {
        return run(rootless::CASES, &[]);
    }
    if let Some((name, rest)) = arguments.split_first()
        && let Some((_, part)) = parts::PARTS.iter().find(|part| part.0 == name)
    {
        part(rest);
        return ExitCode::SUCCESS;
    }
    if !nix::unistd::geteuid().is_root() {
        println!("skipped: needs root; the rootless cases are `container {}`", rootless::ARGUMENT);
        return ExitCode::SUCCESS;
    }
    if !std::path::Path::new(sandbox::BUSYBOX).exists() {
        println!("skipped: needs {} (package busybox-static)", sandbox::BUSYBOX);
        return ExitCode::SUCCESS;
    }
    run(&[cases::CASES, choices::CASES].concat(), &arguments)
}

fn run(cases: &[Case], wanted: &[String]) -> ExitCode {
    let mut failed = 0;
    for (name, case) in cases {
        if !wanted.is_empty() && !wanted.iter().any(|part| name.contains(part.as_str())) {
            continue;
        }
        let passed = catch_unwind(AssertUnwindSafe(case)).is_ok();
        println!("{name} ... {}", if passed { "ok" } else { "FAILED" });
        failed += u32::from(!passed);
    }
    if failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
