//! SIGKILL at any moment: the next command works, and what was left behind is found and removed.

use std::{fs, thread, time::Duration};

use nix::{
    sys::signal::{self, Signal},
    unistd::Pid,
};
use serde_json::Value;

use crate::{
    sandbox::{KINDS, Sandbox, fixture},
    session::{is_alive, until},
};

/// After a kill: everything works, and `prune` is enough, once those that die with the killed process are dead: what a
/// compiler or a container on its way out still holds is not yet left behind.
fn recovers(sandbox: &Sandbox) {
    assert_eq!(sandbox.run(["ps", "-a"]).code, Some(0));
    assert_eq!(sandbox.run(["images"]).code, Some(0));
    let check = sandbox.run(["system", "check"]);
    assert!(matches!(check.code, Some(0 | 1)), "{check}");
    assert_eq!(check.code == Some(0), check.stdout == "nothing was left behind\n", "{check}");
    until("a store that prune has made clean", || {
        sandbox.ok(["system", "prune", "-f"]);
        let check = sandbox.run(["system", "check"]);
        assert!(matches!(check.code, Some(0 | 1)), "{check}");
        (check.code == Some(0)).then_some(())
    });
}

/// The process that waits for a container.
pub(crate) fn supervisor_of(sandbox: &Sandbox, name: &str) -> i32 {
    let record = sandbox.runroot().join("running").join(format!("{}.json", sandbox.inspect(name, ".Id")));
    let record: Value = serde_json::from_slice(&fs::read(record).expect("the record")).expect("JSON");
    record["supervisor_pid"].as_i64().and_then(|pid| i32::try_from(pid).ok()).expect("a pid")
}

#[test]
fn a_pull_that_is_killed_leaves_nothing_in_the_way() {
    let Some(sandbox) = Sandbox::new() else { return };
    let large = fixture("debian.tar").is_some();
    let image = sandbox.image(if large { "debian:bookworm" } else { "busybox:latest" });
    for delay in [0, 3, 10, 30, 60, 100, 200, 300, 500, 800, 1200] {
        let pull = sandbox.start(["pull", "-q", &image]);
        thread::sleep(Duration::from_millis(delay));
        pull.signal(Signal::SIGKILL);
        pull.wait();
        recovers(&sandbox);
    }
    assert_eq!(sandbox.ok(["run", "--rm", &image, "echo", "whole"]), "whole\n");
    assert_eq!(sandbox.stored("temporary"), [""; 0]);
}

#[test]
fn a_compilation_that_is_killed_leaves_nothing_in_the_way() {
    let Some(sandbox) = Sandbox::new() else { return };
    let image = sandbox.image("hello:wasm");
    for delay in [0, 5, 10, 15, 20, 25, 30, 40, 60] {
        let run = sandbox.start(["run", "--rm", &image]);
        thread::sleep(Duration::from_millis(delay));
        run.signal(Signal::SIGKILL);
        // A compiler whose parent is gone may still hold the outputs for a moment, but not for ever.
        run.wait();
        recovers(&sandbox);
    }
    assert_eq!(sandbox.ok(["run", "--rm", &image]), "hello from wasm\n");
}

#[test]
fn a_start_that_is_killed_leaves_nothing_in_the_way() {
    let Some((sandbox, [busybox, hello])) = Sandbox::with(["busybox:latest", "hello:wasm"]) else { return };
    for (words, flags) in [
        (&[busybox.as_str(), "true"][..], &["--rm"][..]),
        (&[&busybox, "true"], &[]),
        (&[&hello], &["--rm"]),
        (&[&hello], &["-d"]),
    ] {
        for delay in (0..12).map(|step| step * step / 2) {
            let run = sandbox.start(["run"].iter().chain(flags).chain(words));
            thread::sleep(Duration::from_millis(delay));
            run.signal(Signal::SIGKILL);
            run.wait();
            assert_eq!(sandbox.run(["ps", "-a"]).code, Some(0), "{flags:?} {words:?} {delay}");
        }
        // A supervisor in the background ends by itself; then one `prune` is enough.
        until("the end of all containers", || sandbox.ok(["ps", "-q"]).is_empty().then_some(()));
        sandbox.ok(["system", "prune", "-f"]);
        until("a clean check", || (sandbox.run(["system", "check"]).code == Some(0)).then_some(()));
        assert_eq!(sandbox.ok(["run", "--rm", &busybox, "echo", "well"]), "well\n");
    }
}

#[test]
fn a_container_dies_with_the_run_that_waits_for_it() {
    let Some(sandbox) = Sandbox::new() else { return };
    for tag in KINDS {
        let sleep = sandbox.pull(&format!("sleep:{tag}"));
        for flags in [&["--name", "orphan"][..], &["--rm", "--name", "orphan"]] {
            let run = sandbox.start(["run"].iter().chain(flags).copied().chain([sleep.as_str(), "1000"]));
            run.until_printed("sleeping\n");
            let pid: i32 = sandbox.inspect("orphan", ".State.Pid").parse().expect("a pid");
            run.signal(Signal::SIGKILL);
            run.wait();
            until("the end of the container", || (!is_alive(pid)).then_some(()));
            let check = sandbox.run(["system", "check"]);
            assert_eq!(check.code, Some(1), "{tag}: {check}");
            if flags[0] != "--rm" {
                assert_eq!(sandbox.inspect("orphan", ".State.Status"), "exited", "{tag}");
                assert_eq!(sandbox.inspect("orphan", ".State.ExitCode"), "137", "{tag}");
                // It can be started again.
                sandbox.ok(["start", "orphan"]);
                sandbox.ok(["stop", "orphan"]);
            }
            recovers(&sandbox);
            assert_eq!(sandbox.ok(["ps", "-aq"]), "", "{tag}");
        }
    }
}

#[test]
fn a_container_dies_with_its_supervisor() {
    let Some(sandbox) = Sandbox::new() else { return };
    for tag in KINDS {
        let sleep = sandbox.pull(&format!("sleep:{tag}"));
        sandbox.ok(["run", "-d", "--name", "orphan", &sleep, "1000"]);
        let pid: i32 = sandbox.inspect("orphan", ".State.Pid").parse().expect("a pid");
        signal::kill(Pid::from_raw(supervisor_of(&sandbox, "orphan")), Signal::SIGKILL).expect("a supervisor");
        until("the end of the container", || (!is_alive(pid)).then_some(()));
        assert_eq!(sandbox.ok(["wait", "orphan"]), "137\n", "{tag}");
        let error = sandbox.inspect("orphan", ".State.Error");
        assert!(error.contains("supervisor"), "{tag}: {error}");
        assert_eq!(sandbox.run(["system", "check"]).code, Some(1), "{tag}");
        sandbox.ok(["rm", "-f", "orphan"]);
        recovers(&sandbox);
    }
}

/// After a reboot it had ended as the run before it had.
#[test]
fn an_end_that_nobody_saw_is_not_the_end_of_an_older_run() {
    let Some((sandbox, [busybox])) = Sandbox::with(["busybox:latest"]) else { return };
    sandbox.ok(["run", "--name", "twice", &busybox, "sh", "-c", "[ ! -e /ran ] || exec sleep 1000; touch /ran"]);
    assert_eq!(sandbox.inspect("twice", ".State.ExitCode"), "0");
    sandbox.ok(["start", "twice"]);
    let pids = [supervisor_of(&sandbox, "twice"), sandbox.inspect("twice", ".State.Pid").parse().expect("a pid")];
    for pid in pids {
        // The first one takes the second one with it.
        let _ = signal::kill(Pid::from_raw(pid), Signal::SIGKILL);
        until("it is gone", || (!is_alive(pid)).then_some(()));
    }
    fs::remove_dir_all(sandbox.runroot()).expect("what a reboot removes");
    assert_eq!(sandbox.ok(["wait", "twice"]), "255\n");
    assert!(sandbox.inspect("twice", ".State.Error").contains("restarted"));
    sandbox.ok(["start", "twice"]);
    sandbox.ok(["kill", "twice"]);
    assert_eq!(sandbox.ok(["wait", "twice"]), "137\n");
    sandbox.ok(["rm", "twice"]);
    recovers(&sandbox);
}

/// It said "use rm -f" though that was used, or told of another --runroot.
#[test]
fn rm_by_force_beside_a_start_whose_command_is_killed_removes_the_container() {
    let Some((sandbox, [sleep])) = Sandbox::with(["sleep:linux"]) else { return };
    for round in 0..60_u64 {
        let run = sandbox.start(["run", "-d", "--name", "raced", &sleep, "1000"]);
        thread::sleep(Duration::from_micros(round * 1_700 % 23_000));
        run.signal(Signal::SIGKILL);
        sandbox.ok(["rm", "-f", "raced"]);
        run.wait();
        sandbox.ok(["rm", "-f", "raced"]);
        assert_eq!(sandbox.ok(["ps", "-aq"]), "", "{round}");
    }
    recovers(&sandbox);
}

#[test]
fn a_container_whose_process_is_killed_from_outside_has_ended_with_137() {
    let Some(sandbox) = Sandbox::new() else { return };
    for tag in KINDS {
        let sleep = sandbox.pull(&format!("sleep:{tag}"));
        let run = sandbox.start(["run", "--name", "victim", &sleep, "1000"]);
        run.until_printed("sleeping\n");
        let pid: i32 = sandbox.inspect("victim", ".State.Pid").parse().expect("a pid");
        signal::kill(Pid::from_raw(pid), Signal::SIGKILL).expect("the container's process");
        assert_eq!(run.wait().code, Some(137), "{tag}");
        assert_eq!(sandbox.inspect("victim", ".State.OOMKilled"), "false", "{tag}");
        sandbox.ok(["rm", "victim"]);
        sandbox.check_clean();
    }
}

#[test]
fn check_and_prune_leave_the_containers_of_another_root_alone() {
    let Some((first, [sleep])) = Sandbox::with(["sleep:linux"]) else { return };
    let second = Sandbox::new().expect("a registry");
    first.ok(["run", "-d", "--name", "mine", &sleep, "1000"]);
    second.check_clean();
    second.ok(["system", "prune", "-f"]);
    assert_eq!(first.inspect("mine", ".State.Running"), "true");
    first.ok(["stop", "mine"]);
}

#[test]
fn prune_spares_what_runs_and_what_is_used() {
    let Some((sandbox, [sleep, hello])) = Sandbox::with(["sleep:wasm", "hello:linux"]) else { return };
    sandbox.ok(["run", "-d", "--name", "runs", &sleep, "1000"]);
    sandbox.ok(["run", "--name", "ended", &hello]);
    let message = sandbox.fails(1, ["system", "prune"]);
    assert!(message.contains("-f"), "{message}");
    sandbox.ok(["system", "prune", "-a", "-f"]);
    assert_eq!(sandbox.ok(["ps", "-a", "--format", "{{.Names}} {{.State}}"]), "runs running\n");
    assert_eq!(sandbox.ok(["images", "--format", "{{.Kind}}"]), "wasm\n");
    sandbox.ok(["stop", "runs"]);
    sandbox.ok(["start", "runs"]);
    assert_eq!(sandbox.inspect("runs", ".State.Running"), "true");
}

#[test]
fn a_reboot_forgets_containers_that_are_removed_when_they_end_and_keeps_the_others() {
    let Some((sandbox, [hello])) = Sandbox::with(["hello:linux"]) else { return };
    sandbox.ok(["run", "-d", "--rm", "--name", "passing", &sandbox.pull("sleep:linux"), "1000"]);
    assert_eq!(sandbox.stored("writable").len(), 1);
    let passing = Pid::from_raw(sandbox.inspect("passing", ".State.Pid").parse().expect("a pid"));
    let supervisor = Pid::from_raw(supervisor_of(&sandbox, "passing"));
    for pid in [supervisor, passing] {
        // The first one takes the second one with it.
        let _ = signal::kill(pid, Signal::SIGKILL);
        until("it is gone", || (!is_alive(pid.as_raw())).then_some(()));
    }
    // A reboot removes the cgroup too, which here only prune can, and that would take the writable layer along.
    let (writable, aside) = (sandbox.root().join("writable"), sandbox.root().join("aside"));
    fs::rename(&writable, &aside).expect("the writable layers");
    sandbox.ok(["system", "prune", "-f"]);
    sandbox.ok(["create", "--name", "kept", &hello]);
    fs::rename(&aside, &writable).expect("the writable layers");
    fs::remove_dir_all(sandbox.runroot()).expect("what a reboot removes");
    assert_eq!(sandbox.ok(["ps", "-a", "--format", "{{.Names}}"]), "kept\n");
    let found = sandbox.run(["system", "check"]);
    assert!(found.code == Some(1) && found.stdout.contains("writable layer without a container"), "{found}");
    sandbox.ok(["run", "--rm", "--name", "passing", &hello]);
    assert_eq!(sandbox.ok(["start", "-a", "kept"]), "hello from linux\n");
    recovers(&sandbox);
    assert_eq!(sandbox.stored("writable"), [""; 0]);
}
