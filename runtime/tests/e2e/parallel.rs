//! Several commands at once on one store.

use crate::{
    sandbox::{Sandbox, fixture},
    session::{Ended, Session},
};

fn all_end(sessions: Vec<Session>) -> Vec<Ended> {
    sessions.into_iter().map(Session::wait).collect()
}

#[test]
fn two_pulls_of_one_image_at_once_both_succeed() {
    let Some(sandbox) = Sandbox::new() else { return };
    for name in ["busybox:latest", "hello:latest", "sleep:wasm"] {
        let image = sandbox.image(name);
        for ended in all_end((0..4).map(|_| sandbox.start(["pull", "-q", &image])).collect()) {
            assert_eq!(ended.code, Some(0), "{name}: {ended}");
        }
        assert_eq!(sandbox.ok(["images", "-q", &image]).lines().count(), 1, "{name}");
        sandbox.check_clean();
    }
    assert_eq!(sandbox.ok(["run", "--rm", &sandbox.image("busybox:latest"), "echo", "whole"]), "whole\n");
}

#[test]
fn two_pulls_that_share_a_layer_keep_it_once() {
    let Some(sandbox) = Sandbox::new() else { return };
    if fixture("debian.tar").is_none() {
        return;
    }
    let images = ["debian:bookworm", "debian:docker"].map(|name| sandbox.image(name));
    for ended in all_end(images.iter().map(|image| sandbox.start(["pull", "-q", image])).collect()) {
        assert_eq!(ended.code, Some(0), "{ended}");
    }
    assert_eq!(sandbox.stored("layers").len(), 1);
    for image in &images {
        assert_eq!(sandbox.ok(["run", "--rm", image, "cat", "/etc/debian_version"]).get(..3), Some("12."), "{image}");
    }
}

#[test]
fn of_several_runs_with_one_name_one_wins() {
    let Some((sandbox, [sleep])) = Sandbox::with(["sleep:linux"]) else { return };
    for _ in 0..5 {
        let sessions = (0..4).map(|_| sandbox.start(["run", "-d", "--name", "one", &sleep, "1000"])).collect();
        let ended = all_end(sessions);
        let (winners, losers): (Vec<_>, Vec<_>) = ended.iter().partition(|ended| ended.code == Some(0));
        assert_eq!(winners.len(), 1, "{ended:?}");
        assert!(losers.iter().all(|ended| ended.code == Some(125) && ended.stderr.contains("\"one\"")), "{losers:?}");
        assert_eq!(sandbox.ok(["ps", "-aq"]).lines().count(), 1);
        sandbox.ok(["rm", "-f", "one"]);
    }
    sandbox.check_clean();
}

#[test]
fn twenty_runs_of_both_kinds_at_once_all_succeed_and_leave_nothing() {
    let Some((sandbox, [linux, wasm])) = Sandbox::with(["hello:linux", "hello:wasm"]) else { return };
    let runs = (0..20).map(|number| if number % 2 == 0 { &linux } else { &wasm });
    let ended = all_end(runs.map(|image| sandbox.start(["run", "--rm", image])).collect());
    for (number, ended) in ended.iter().enumerate() {
        let output = if number % 2 == 0 { "hello from linux\n" } else { "hello from wasm\n" };
        assert_eq!((ended.code, ended.stdout.as_str()), (Some(0), output), "{number}: {ended}");
    }
    assert_eq!(sandbox.ok(["ps", "-aq"]), "");
    for folder in ["containers", "names", "writable", "running"] {
        assert_eq!(sandbox.stored(folder), [""; 0], "{folder}");
    }
    sandbox.check_clean();
}

#[test]
fn one_container_is_started_once_and_removed_once() {
    let Some((sandbox, [sleep])) = Sandbox::with(["sleep:linux"]) else { return };
    sandbox.ok(["create", "--name", "one", &sleep, "1000"]);
    let started = all_end((0..4).map(|_| sandbox.start(["start", "one"])).collect());
    // As with Docker, for the others it runs already.
    assert!(started.iter().all(|ended| ended.code == Some(0) && ended.stdout == "one\n"), "{started:?}");
    assert_eq!(sandbox.inspect("one", ".State.Running"), "true");
    assert_eq!(sandbox.stored("running").len(), 1);
    let removed = all_end((0..4).map(|_| sandbox.start(["rm", "-f", "one"])).collect());
    assert!(removed.iter().any(|ended| ended.code == Some(0)), "{removed:?}");
    assert!(removed.iter().all(|ended| !ended.stderr.contains("panicked")), "{removed:?}");
    assert_eq!(sandbox.ok(["ps", "-aq"]), "");
    sandbox.check_clean();
}

#[test]
fn prune_and_runs_at_once_do_not_hurt_each_other() {
    let Some((sandbox, [linux, wasm])) = Sandbox::with(["hello:linux", "hello:wasm"]) else { return };
    for _ in 0..5 {
        let mut sessions: Vec<Session> =
            [&linux, &wasm, &linux, &wasm].map(|image| sandbox.start(["run", "--rm", image])).into();
        sessions.push(sandbox.start(["system", "prune", "-f"]));
        let mut ended = all_end(sessions);
        // Done, or not all to be told beside what is being made.
        let pruned = ended.pop().expect("the prune");
        assert!(matches!(pruned.code, Some(0 | 2)), "{pruned}");
        for ended in ended {
            assert_eq!(ended.code, Some(0), "{ended}");
        }
    }
    sandbox.check_clean();
}

#[test]
fn prune_and_check_disturb_nothing_that_is_being_made() {
    let Some(sandbox) = Sandbox::new() else { return };
    let Some(program) = fixture("programs/wasm/hello.wasm") else { return };
    let Some(layout) = fixture("layouts/hello-linux") else { return };
    let [program, layout] = [program, layout].map(|path| path.to_str().expect("a path in UTF-8").to_owned());
    let [busybox, component] = ["busybox:latest", "hello:component"].map(|name| sandbox.image(name));
    for round in 0..6 {
        let made = [
            sandbox.start(["pull", "-q", &busybox]),
            sandbox.start(["pull", "-q", &component]),
            sandbox.start(["load", "-i", &layout]),
            sandbox.start(["import", &program, "made:1"]),
            sandbox.start(["run", "--rm", &busybox, "echo", "well"]),
            sandbox.start(["run", "-d", "--name", &format!("runs{round}"), &busybox, "sleep", "1000"]),
        ];
        let looks = (0..6).flat_map(|_| [sandbox.start(["system", "check"]), sandbox.start(["system", "prune", "-f"])]);
        for ended in all_end(looks.collect()) {
            // Clean, or not to be told; what is on its way is never a leftover.
            assert!(matches!(ended.code, Some(0 | 2)) && !ended.stdout.contains("Deleted "), "{round}: {ended}");
        }
        for ended in all_end(made.into()) {
            assert_eq!(ended.code, Some(0), "{round}: {ended}");
        }
        for image in [&busybox, &component, "made:1"] {
            assert_eq!(sandbox.run(["run", "--rm", "--pull=never", image]).code, Some(0), "{round}: {image}");
        }
        sandbox.ok(["rm", "-f", &format!("runs{round}")]);
        let names = sandbox.ok(["images", "--format", "{{.Repository}}:{{.Tag}}"]);
        sandbox.ok(["rmi"].into_iter().chain(names.lines()));
        sandbox.ok(["system", "prune", "-f"]);
        sandbox.check_clean();
    }
}
