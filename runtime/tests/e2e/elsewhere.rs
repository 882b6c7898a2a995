//! What runs is spared by who looks from elsewhere: with another RUNROOT, from another namespace, without /proc.

use std::process::Command;

use crate::{
    sandbox::{KINDS, Sandbox, binary},
    session::{Ended, Session},
};

/// A command of a session that has another RUNROOT, as cron or su has where XDG_RUNTIME_DIR is not set.
fn from_another_runroot(sandbox: &Sandbox, arguments: &[&str]) -> Ended {
    let mut command = Command::new(binary());
    let other = sandbox.work().join("other");
    command.arg("--root").arg(sandbox.root()).arg("--runroot").arg(other).args(arguments);
    Session::start(command).wait()
}

/// Its upper layer and its image's layers were deleted beneath it.
#[test]
fn what_runs_with_rm_is_spared_by_who_has_another_runroot() {
    let Some(sandbox) = Sandbox::new() else { return };
    let elsewhere = |arguments: &[&str]| from_another_runroot(&sandbox, arguments);
    for kind in KINDS {
        let sleep = sandbox.pull(&format!("sleep:{kind}"));
        sandbox.ok(["run", "-d", "--rm", "--name", "web", "-v", "data:/data", &sleep, "1000"]);
        let layers = sandbox.stored("layers");
        let checked = elsewhere(&["system", "check"]);
        assert!(checked.code == Some(2) && checked.stdout.contains("runs with another --runroot"), "{kind}: {checked}");
        for words in [&["system", "prune", "-a", "-f"][..], &["rmi", "-f", &sleep], &["image", "prune", "-a", "-f"]] {
            let ended = elsewhere(words);
            assert!(ended.code == Some(0) && !ended.stdout.contains("Deleted: "), "{kind}: {words:?}: {ended}");
        }
        assert_eq!(sandbox.stored("layers"), layers, "{kind}");
        elsewhere(&["volume", "prune", "-a", "-f"]);
        let refused = elsewhere(&["volume", "rm", "data"]);
        assert!(refused.code != Some(0) && refused.stderr.contains("another --runroot"), "{kind}: {refused}");
        assert!(sandbox.root().join("volumes/data").exists(), "{kind}");
        sandbox.pull(&format!("sleep:{kind}"));
        let refused = elsewhere(&["create", "--name", "web", &sleep]);
        assert!(refused.code == Some(1) && refused.stderr.contains("another --runroot"), "{kind}: {refused}");
        assert_eq!(sandbox.inspect("web", ".State.Running"), "true", "{kind}");
        sandbox.ok(["rm", "-f", "web"]);
        sandbox.ok(["rmi", &sleep]);
        sandbox.ok(["volume", "rm", "data"]);
        let checked = elsewhere(&["system", "check"]);
        assert_eq!(checked.code, Some(0), "{kind}: nobody holds anything any more: {checked}");
    }
}

#[test]
fn the_writable_layer_of_what_runs_with_another_runroot_keeps_what_was_written() {
    let Some((sandbox, [busybox])) = Sandbox::with(["busybox:latest"]) else { return };
    sandbox.ok(["run", "-d", "--rm", "--name", "web", &busybox, "sleep", "1000"]);
    sandbox.ok(["exec", "web", "sh", "-c", "echo precious > /data"]);
    for words in [&["system", "prune", "-f"][..], &["system", "prune", "-a", "-f"]] {
        let ended = from_another_runroot(&sandbox, words);
        assert_eq!(ended.code, Some(0), "{ended}");
    }
    assert_eq!(sandbox.ok(["exec", "web", "sh", "-c", "echo new > /more; cat /data /more"]), "precious\nnew\n");
    sandbox.ok(["rm", "-f", "web"]);
    sandbox.check_clean();
}

/// It had "Exited (137)", and `system prune` deleted the record of its run.
#[test]
fn what_runs_is_seen_from_other_namespaces_and_without_proc() {
    let Some((sandbox, [sleep])) = Sandbox::with(["sleep:linux"]) else { return };
    if !sandbox.is_root() {
        return println!("skipped: only root makes such namespaces");
    }
    let without_proc = r#"umount -l /proc && exec "$0" "$@""#;
    let places: [&[&str]; 3] = [
        &["--pid", "--fork", "--mount-proc"],
        &["--time", "--boottime", "100000", "--fork"],
        &["--mount", "sh", "-c", without_proc],
    ];
    for place in places {
        let inside = |arguments: &[&str]| {
            let mut command = Command::new("unshare");
            command.args(place).arg(binary());
            command.arg("--root").arg(sandbox.root()).arg("--runroot").arg(sandbox.runroot()).args(arguments);
            Session::start(command).wait()
        };
        if inside(&["version"]).code != Some(0) {
            println!("skipped: no unshare {}", place.join(" "));
            continue;
        }
        for flags in [&["--name", "web"][..], &["--rm", "--name", "web"]] {
            let run = ["run", "-d"].iter().chain(flags).copied().chain([sleep.as_str(), "1000"]);
            sandbox.ok(run);
            let seen = inside(&["ps", "-a", "--format", "{{.Names}} {{.State}}"]);
            assert_eq!(seen.stdout, "web running\n", "{place:?} {flags:?}: {seen}");
            for words in
                [&["system", "prune", "-a", "-f"][..], &["system", "prune", "-f"], &["container", "prune", "-f"]]
            {
                let pruned = inside(words);
                assert!(!pruned.stdout.contains("Deleted"), "{place:?} {flags:?} {words:?}: {pruned}");
            }
            let refused = inside(&["rm", "-f", "web"]);
            let reason = refused.stderr.contains("not seen from here") || refused.stderr.contains("/proc");
            assert!(refused.code != Some(0) && reason, "{place:?} {flags:?}: {refused}");
            assert_eq!(sandbox.inspect("web", ".State.Running"), "true", "{place:?} {flags:?}");
            assert_eq!(sandbox.stored("running").len(), 1, "{place:?} {flags:?}");
            sandbox.ok(["rm", "-f", "web"]);
            sandbox.check_clean();
        }
    }
}
