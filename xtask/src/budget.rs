//! What a start may cost: page faults and system calls, which are counts and depend on no other load of the machine.
//!
//! Both are counted over all processes of a start, the program's own included. Addresses are random, so that a page more
//! or less is touched: of several starts the cheapest counts.

use crate::{command::run, fixtures::Fixtures, paths, starts::Store, trace};
use anyhow::{Result, bail};
use nix::sys::resource::{UsageWho, getrusage};
use std::process::{Command, Stdio};

/// The most that something may cost.
struct Budget {
    words: &'static [&'static str],
    minor_faults: i64,
    system_calls: u64,
}

/// What was measured on Linux 6.18 with cgroup v1 beside v2, and at most a twentieth more, as kernels and the copies of the
/// program in the page cache differ; for `exec` besides what it takes to look into a v1 hierarchy that is mounted nowhere, as a
/// killed podman leaves one. Raise one only with the reason in the commit.
const BUDGETS: [Budget; 3] = [
    Budget { words: &["run", "--rm", "--network", "none", "busybox", "true"], minor_faults: 147, system_calls: 700 },
    Budget { words: &["run", "--rm", "hello:wasm"], minor_faults: 206, system_calls: 415 },
    Budget { words: &["exec", RUNNING, "true"], minor_faults: 136, system_calls: 455 },
];

/// The container in which `exec` is measured.
const RUNNING: &str = "budget";
/// Now and then the kernel maps fewer pages at once for some tenths of a second: they are spread over a longer time.
const ROUNDS: usize = 60;

/// Why nothing can be said of the budgets here.
pub(crate) fn reason_to_skip(fixtures: &Fixtures) -> Option<&'static str> {
    if !crate::command::is_root() {
        Some("they are those of root")
    } else if !cfg!(target_arch = "x86_64") {
        Some("they are those of x86-64, where the linker is told the order of functions")
    } else if fixtures.existing("layouts/busybox-latest").is_none() {
        Some("busybox-static is not installed")
    } else {
        None
    }
}

/// Counts, prints, and compares all.
pub(crate) fn check(fixtures: &Fixtures) -> Result<()> {
    let store = Store::make(fixtures, &paths::target().join("budget"))?;
    store.load(fixtures, "busybox-latest")?;
    run(store
        .command(&["run", "-d", "--network", "none", "--name", RUNNING, "busybox", "sleep", "1000"])
        .stdin(Stdio::null()))?;
    let verdict = compare_all(&store);
    run(&mut store.command(&["rm", "-f", RUNNING]))?;
    verdict
}

fn compare_all(store: &Store) -> Result<()> {
    let mut cheapest = BUDGETS.map(|_| (i64::MAX, u64::MAX));
    for round in 0..ROUNDS {
        for (budget, (faults, calls)) in BUDGETS.iter().zip(&mut cheapest) {
            *faults = minor_faults(&mut store.command(budget.words))?.min(*faults);
            if round % 4 == 0 {
                *calls = trace::system_calls(&store.program, &store.words(budget.words))?.min(*calls);
            }
        }
    }
    let mut exceeded = Vec::new();
    for (budget, (faults, calls)) in BUDGETS.iter().zip(cheapest) {
        let name = budget.words.join(" ");
        println!(
            "{name}: {faults} minor faults of {}, {calls} system calls of {}",
            budget.minor_faults, budget.system_calls
        );
        if faults > budget.minor_faults || calls > budget.system_calls {
            exceeded.push(name);
        }
    }
    if !exceeded.is_empty() {
        bail!(
            "more than their budget (BUDGETS in xtask/src/budget.rs): {}; what costs it, if nothing should have changed, \
             `perf trace -s` and `perf record -e minor-faults` tell",
            exceeded.join(", ")
        );
    }
    Ok(())
}

/// Those of a command and of all that it waited for. No wrapper: its faults would count too.
fn minor_faults(command: &mut Command) -> Result<i64> {
    let so_far = || getrusage(UsageWho::RUSAGE_CHILDREN).map(|usage| usage.minor_page_faults());
    let before = so_far()?;
    run(command.stdin(Stdio::null()))?;
    Ok(so_far()? - before)
}
