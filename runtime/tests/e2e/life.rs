//! What happens to a container between its start and its end: paused, renamed, changed, looked into, started again.

use std::{fs, thread, time::Duration};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::{
    sandbox::{KINDS, Sandbox, is_second_kernel, kind_of},
    session::{is_alive, until},
};

/// Both kinds, in the background, under the name `web`.
fn for_each_kind(test: impl Fn(&Sandbox, &str)) {
    let Some(sandbox) = Sandbox::new() else { return };
    for tag in KINDS {
        let image = sandbox.pull(&format!("sleep:{tag}"));
        sandbox.ok(["run", "-d", "--name", "web", &image, "1000"]);
        test(&sandbox, tag);
        sandbox.ok(["rm", "-f", "web"]);
        sandbox.check_clean();
    }
}

#[test]
fn a_paused_container_stands_still_and_goes_on() {
    for_each_kind(|sandbox, tag| {
        let paused = sandbox.run(["pause", "web"]);
        if paused.code != Some(0) {
            assert!(!sandbox.is_root(), "{tag}: {paused}");
            return println!("skipped: no cgroup to freeze here: {}", paused.stderr);
        }
        assert_eq!(paused.stdout, "web\n");
        assert_eq!(sandbox.inspect("web", ".State.Status"), "paused", "{tag}");
        assert_eq!(sandbox.inspect("web", ".State.Paused"), "true", "{tag}");
        let status = sandbox.ok(["ps", "--format", "{{.Status}}"]);
        assert!(status.ends_with("(Paused)\n"), "{tag}: {status}");
        assert!(sandbox.fails(1, ["pause", "web"]).contains("paused already"), "{tag}");
        assert_eq!(sandbox.ok(["unpause", "web"]), "web\n");
        assert_eq!(sandbox.inspect("web", ".State.Status"), "running", "{tag}");
        assert!(sandbox.fails(1, ["unpause", "web"]).contains("is not paused"), "{tag}");
        // Whoever stops or removes it need not let it go on before.
        sandbox.ok(["pause", "web"]);
        sandbox.ok(["stop", "-t", "1", "web"]);
        assert_eq!(sandbox.inspect("web", ".State.Status"), "exited", "{tag}");
        assert!(sandbox.fails(1, ["pause", "web"]).contains("is not running"), "{tag}");
        sandbox.ok(["start", "web"]);
        sandbox.ok(["pause", "web"]);
    });
}

#[test]
fn a_renamed_container_is_found_by_its_new_name_only() {
    for_each_kind(|sandbox, tag| {
        assert_eq!(sandbox.ok(["rename", "web", "site"]), "");
        assert_eq!(sandbox.inspect("site", ".State.Status"), "running", "{tag}");
        assert!(sandbox.fails(1, ["inspect", "web"]).contains("web"), "{tag}");
        let image = sandbox.image(&format!("sleep:{tag}"));
        sandbox.ok(["create", "--name", "web", &image]);
        assert!(sandbox.fails(1, ["rename", "site", "web"]).contains("is taken by"), "{tag}");
        assert!(sandbox.fails(1, ["rename", "site", "site"]).contains("already"), "{tag}");
        sandbox.ok(["rm", "web"]);
        // It is still known to run: its record was replaced, and the lock of its run was not.
        let pid = sandbox.inspect("site", ".State.Pid");
        assert_eq!(sandbox.ok(["start", "site"]), "site\n", "{tag}");
        assert_eq!(sandbox.inspect("site", ".State.Pid"), pid, "{tag}");
        assert!(sandbox.fails(1, ["rm", "site"]).contains("is running"), "{tag}");
        sandbox.ok(["stop", "-t", "0", "site"]);
        sandbox.ok(["rename", "site", "web"]);
        sandbox.ok(["start", "web"]);
    });
}

#[test]
fn limits_of_a_running_container_are_changed() {
    for_each_kind(|sandbox, tag| {
        if !sandbox.can_limit(&["--pids-limit", "50", "--cpu-shares", "100"]) {
            return;
        }
        assert_eq!(sandbox.ok(["update", "--pids-limit", "40", "--cpu-shares", "200", "web"]), "web\n");
        assert_eq!(sandbox.inspect("web", ".HostConfig.PidsLimit"), "40", "{tag}");
        assert_eq!(sandbox.inspect("web", ".HostConfig.CpuShares"), "200", "{tag}");
        let pid = sandbox.inspect("web", ".State.Pid");
        let groups = fs::read_to_string(format!("/proc/{pid}/cgroup")).expect("its cgroups");
        let id = sandbox.inspect("web", ".Id");
        let of_pids = groups.lines().find(|line| line.contains(":pids:")).or_else(|| groups.lines().last());
        assert!(of_pids.is_some_and(|line| line.contains(&id)), "{tag}: {groups}");
        assert!(sandbox.fails(1, ["update", "--pids-limit", "x", "web"]).contains("--pids-limit"), "{tag}");
        if kind_of(tag) == "wasm" {
            assert!(sandbox.fails(1, ["update", "-m", "64m", "web"]).contains("Wasm"), "{tag}");
        }
    });
}

#[test]
fn a_limit_of_processes_holds_from_the_moment_it_is_changed() {
    let Some((sandbox, [busybox])) = Sandbox::with(["busybox:latest"]) else { return };
    if !sandbox.can_limit(&["--pids-limit", "50"]) {
        return;
    }
    sandbox.ok(["run", "-d", "--name", "web", &busybox, "sleep", "1000"]);
    assert_eq!(sandbox.run(["exec", "web", "sh", "-c", "true & wait"]).code, Some(0));
    sandbox.ok(["update", "--pids-limit", "2", "web"]);
    let ended = sandbox.run(["exec", "web", "sh", "-c", "sleep 0 & wait"]);
    assert_ne!(ended.code, Some(0), "{ended}");
    sandbox.ok(["update", "--pids-limit", "-1", "web"]);
    assert_eq!(sandbox.run(["exec", "web", "sh", "-c", "true & wait"]).code, Some(0));
    sandbox.ok(["rm", "-f", "web"]);
    sandbox.check_clean();
}

#[test]
fn the_processes_of_a_container_are_shown() {
    let Some((sandbox, [busybox])) = Sandbox::with(["busybox:latest"]) else { return };
    sandbox.ok(["run", "-d", "--name", "web", &busybox, "sh", "-c", "sleep 1001 & sleep 1002"]);
    let shown = until("both processes", || {
        let shown = sandbox.ok(["top", "web"]);
        // The shell's own line has all of these words.
        let is_there = |command: [&str; 2]| {
            shown.lines().any(|line| line.split_ascii_whitespace().skip(7).collect::<Vec<_>>() == command)
        };
        (is_there(["sleep", "1001"]) && is_there(["sleep", "1002"])).then_some(shown)
    });
    let header: Vec<&str> = shown.lines().next().expect("a header").split_ascii_whitespace().collect();
    assert_eq!(header, ["UID", "PID", "PPID", "C", "STIME", "TTY", "TIME", "CMD"]);
    assert!(shown.lines().count() >= 3, "{shown}");
    sandbox.ok(["stop", "-t", "0", "web"]);
    assert!(sandbox.fails(1, ["top", "web"]).contains("is not running"));
}

#[test]
fn what_containers_use_is_shown() {
    for_each_kind(|sandbox, tag| {
        let table = sandbox.ok(["stats", "--no-stream"]);
        assert!(table.starts_with("CONTAINER ID   NAME"), "{tag}: {table}");
        let line = sandbox.ok(["stats", "--no-stream", "--format", "{{.Name}} {{.PIDs}} {{.MemUsage}}", "web"]);
        let words: Vec<&str> = line.split_ascii_whitespace().collect();
        assert_eq!(words[0], "web", "{tag}: {line}");
        assert!(words[1].parse::<u32>().expect("a number") >= 1, "{tag}: {line}");
        assert!(words[2].ends_with("iB") && words[4].ends_with("iB"), "{tag}: {line}");
        sandbox.ok(["stop", "-t", "0", "web"]);
        assert_eq!(sandbox.ok(["stats", "--no-stream", "-a", "--format", "{{.Name}} {{.PIDs}}"]), "web --\n", "{tag}");
        sandbox.ok(["start", "web"]);
    });
}

#[test]
fn a_container_that_fails_is_started_again_so_often() {
    let Some(sandbox) = Sandbox::new() else { return };
    for tag in KINDS {
        let image = sandbox.pull(&format!("exit:{tag}"));
        sandbox.ok(["run", "-d", "--name", "web", "--restart", "on-failure:2", &image, "1"]);
        assert_eq!(sandbox.ok(["wait", "web"]), "1\n", "{tag}");
        assert_eq!(sandbox.inspect("web", ".RestartCount"), "2", "{tag}");
        assert_eq!(sandbox.inspect("web", ".HostConfig.RestartPolicy.Name"), "on-failure", "{tag}");
        assert_eq!(sandbox.inspect("web", ".State.Status"), "exited", "{tag}");
        sandbox.ok(["rm", "web"]);
        // Who succeeded is left alone.
        sandbox.ok(["run", "-d", "--name", "web", "--restart", "on-failure:2", &image, "0"]);
        assert_eq!(sandbox.ok(["wait", "web"]), "0\n", "{tag}");
        assert_eq!(sandbox.inspect("web", ".RestartCount"), "0", "{tag}");
        sandbox.ok(["rm", "web"]);
        sandbox.check_clean();
    }
    let image = sandbox.image("exit:linux");
    assert!(sandbox.fails(125, ["run", "--rm", "--restart", "always", &image]).contains("--restart"));
    assert!(sandbox.fails(125, ["run", "--restart", "sometimes", &image]).contains("sometimes"));
}

#[test]
fn a_restart_loop_is_stopped_and_removed_at_once() {
    let Some(sandbox) = Sandbox::new() else { return };
    for tag in KINDS {
        let image = sandbox.pull(&format!("exit:{tag}"));
        sandbox.ok(["run", "-d", "--name", "web", "--restart", "always", &image, "1"]);
        // By then the pause is so long that only a signal ends it soon.
        until("three restarts", || (sandbox.inspect("web", ".RestartCount").parse::<u32>().ok()? >= 3).then_some(()));
        sandbox.ok(["stop", "web"]);
        assert_eq!(sandbox.inspect("web", ".State.Status"), "exited", "{tag}");
        let count = sandbox.inspect("web", ".RestartCount");
        thread::sleep(Duration::from_millis(100));
        assert_eq!(sandbox.inspect("web", ".RestartCount"), count, "{tag}");
        sandbox.ok(["start", "web"]);
        until("it restarts", || (sandbox.inspect("web", ".State.Status") == "restarting").then_some(()));
        let shown = sandbox.ok(["ps", "--format", "{{.State}} {{.Status}}"]);
        if shown.starts_with("restarting") {
            assert!(shown.contains("Restarting (1)"), "{tag}: {shown}");
        }
        sandbox.ok(["rm", "-f", "web"]);
        sandbox.check_clean();
    }
}

#[test]
fn a_killed_supervisor_leaves_a_container_that_is_restored() {
    let Some((sandbox, [image])) = Sandbox::with(["sleep:linux"]) else { return };
    for (name, policy) in
        [("a1", "always"), ("a2", "always"), ("u1", "unless-stopped"), ("u2", "unless-stopped"), ("n1", "no")]
    {
        sandbox.ok(["run", "-d", "--name", name, "--restart", policy, &image, "1000"]);
    }
    sandbox.ok(["stop", "-t", "0", "a2", "u2"]);
    for name in ["a1", "u1", "n1"] {
        let record = sandbox.runroot().join("running").join(format!("{}.json", sandbox.inspect(name, ".Id")));
        let record: serde_json::Value =
            serde_json::from_slice(&fs::read(record).expect("its record")).expect("a record in JSON");
        let supervisor = i32::try_from(record["supervisor_pid"].as_i64().expect("a pid")).expect("a pid");
        kill(Pid::from_raw(supervisor), Signal::SIGKILL).expect("a supervisor to kill");
        let pid: i32 = record["pid"].as_i64().and_then(|pid| pid.try_into().ok()).expect("a pid");
        until("its end", || (!is_alive(pid) && sandbox.inspect(name, ".State.Status") == "exited").then_some(()));
    }
    sandbox.ok(["create", "--name", "c1", "--restart", "always", &image]);
    let restored = sandbox.ok(["system", "restore"]);
    let mut names: Vec<&str> = restored.lines().collect();
    names.sort_unstable();
    assert_eq!(names, ["a1", "a2", "u1"]);
    assert_eq!(sandbox.ok(["system", "restore"]), "");
    sandbox.ok(["rm", "-f", "a1", "a2", "u1", "u2", "n1", "c1"]);
    sandbox.check_clean();
}

/// Two commands at the same moment on one container, all pairs of them: it is whole afterwards, and nothing is left of it.
#[test]
fn pairs_of_commands_at_the_same_moment_leave_a_whole_container() {
    let Some((sandbox, [image])) = Sandbox::with(["sleep:linux"]) else { return };
    let commands: [&[&str]; 7] = [
        &["start", "web"],
        &["stop", "-t", "0", "web"],
        &["rm", "-f", "web"],
        &["rename", "web", "site"],
        &["update", "--restart", "always", "web"],
        &["restart", "-t", "0", "web"],
        &["kill", "web"],
    ];
    for one in commands {
        for other in commands {
            sandbox.ok(["run", "-d", "--name", "web", "--restart", "on-failure:1", &image, "1000"]);
            let both = [sandbox.start(one), sandbox.start(other)];
            for ended in both.map(crate::session::Session::wait) {
                let fine = matches!(ended.code, Some(0 | 1 | 125));
                assert!(fine && !ended.stderr.contains("panicked"), "{one:?} {other:?}: {ended}");
            }
            for name in ["web", "site"] {
                let found = sandbox.run(["inspect", "--format", "{{.State.Status}} {{.Name}}", name]);
                assert!(matches!(found.code, Some(0 | 1)), "{one:?} {other:?}: {found}");
            }
            sandbox.ok(["rm", "-f", "web", "site"]);
            assert_eq!(sandbox.ok(["ps", "-a", "-q"]), "", "{one:?} {other:?}");
        }
    }
    sandbox.check_clean();
}

/// Between its end and what its supervisor decides it seemed to have ended for good, and whoever followed its log stopped.
#[test]
fn a_container_that_is_started_again_never_seems_to_have_ended() {
    let Some((sandbox, [busybox])) = Sandbox::with(["busybox:latest"]) else { return };
    if is_second_kernel() {
        return println!(
            "skipped: in a kernel that is a process of another one, six runs were not seen within two minutes"
        );
    }
    sandbox.ok(["run", "-d", "--name", "loop", "--restart", "always", &busybox, "sh", "-c", "echo ran; exit 1"]);
    let follower = sandbox.start(["logs", "-f", "loop"]);
    let runs = |text: &str| text.matches("ran\n").count();
    until("some runs", || {
        let status = sandbox.inspect("loop", ".State.Status");
        assert!(["running", "restarting"].contains(&status.as_str()), "{status}");
        (runs(&follower.stdout()) >= 6).then_some(())
    });
    sandbox.ok(["stop", "-t", "0", "loop"]);
    assert!(runs(&follower.wait().stdout) >= 6);
    assert_eq!(sandbox.inspect("loop", ".State.Status"), "exited");
    sandbox.ok(["rm", "loop"]);
    sandbox.check_clean();
}
