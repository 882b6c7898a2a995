//! What happened, as `events` tells it, and what waits for it.

use serde_json::Value;

use crate::sandbox::{KINDS, Sandbox};

/// All events so far, as type and action, oldest first.
fn past(sandbox: &Sandbox, more: &[&str]) -> Vec<String> {
    let arguments = ["events", "--since", "1h", "--until", "0s", "--format", "{{.Type}} {{.Action}}"];
    let shown = sandbox.ok(arguments.iter().chain(more));
    shown.lines().map(str::to_owned).collect()
}

#[test]
fn a_life_is_told_event_by_event_of_both_kinds() {
    let Some(sandbox) = Sandbox::new() else { return };
    for kind in KINDS {
        let image = sandbox.pull(&format!("hello:{kind}"));
        let of = |action: &str| format!("container {action}");
        sandbox.ok(["run", "--rm", "--name", "brief", &image]);
        assert_eq!(past(&sandbox, &["-f", "container=brief"]), ["create", "start", "die", "destroy"].map(of), "{kind}");
        sandbox.ok(["create", "--name", "long", "-l", "tier=front", &image]);
        sandbox.ok(["start", "-a", "long"]);
        sandbox.ok(["rename", "long", "longer"]);
        sandbox.ok(["rm", "longer"]);
        let told = ["create", "start", "die", "rename", "destroy"].map(of);
        assert_eq!(past(&sandbox, &["-f", "label=tier=front"]), told, "{kind}");
        sandbox.ok(["rmi", &image]);
        assert_eq!(past(&sandbox, &["-f", "type=image", "-f", "event=pull"]), ["image pull"]);
        assert_eq!(past(&sandbox, &["-f", "type=image", "-f", "event=delete"]), ["image delete"], "{kind}");
        std::fs::remove_file(sandbox.runroot().join("events")).expect("the log of events");
    }
    let message = sandbox.fails(1, ["events", "-f", "colour=red"]);
    assert!(message.contains("colour=red"), "{message}");
    assert!(sandbox.fails(1, ["events", "--since", "soon"]).contains("soon"));
}

#[test]
fn events_are_followed_as_they_come() {
    let Some((sandbox, [busybox])) = Sandbox::with(["busybox:latest"]) else { return };
    let follower = sandbox.start(["events", "--format", "json", "-f", "type=container"]);
    // It has begun when it sees something.
    crate::session::until("the follower", || {
        sandbox.ok(["create", "--name", "first", &busybox]);
        sandbox.ok(["rm", "first"]);
        follower.stdout().contains("first").then_some(())
    });
    sandbox.ok(["run", "-d", "--name", "web", "--stop-timeout", "0", &busybox, "sleep", "1000"]);
    sandbox.ok(["stop", "-t", "0", "web"]);
    sandbox.ok(["start", "web"]);
    sandbox.ok(["rm", "-f", "web"]);
    let is_gone = |line: &str| line.contains("\"destroy\"") && line.contains("\"web\"");
    crate::session::until("its end", || follower.stdout().lines().any(is_gone).then_some(()));
    let events: Vec<Value> = follower.stdout().lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
    let of_web: Vec<&Value> = events.iter().filter(|event| event["Actor"]["Attributes"]["name"] == "web").collect();
    let actions: Vec<&str> = of_web.iter().filter_map(|event| event["Action"].as_str()).collect();
    assert_eq!(actions[..4], ["create", "start", "kill", "kill"], "{actions:?}");
    assert_eq!(actions.iter().filter(|action| **action == "die").count(), 2, "{actions:?}");
    assert_eq!(actions.last(), Some(&"destroy"), "{actions:?}");
    let died = of_web.iter().find(|event| event["Action"] == "die").expect("an end");
    assert_eq!((&died["Actor"]["Attributes"]["exitCode"], &died["status"]), (&"137".into(), &"die".into()));
    assert_eq!(died["from"], busybox);
    assert_eq!(died["time"].as_i64().map(|time| time * 1_000_000_000 / 1_000_000_000_000_000_000), Some(1), "{died}");
}

#[test]
fn volumes_and_names_have_events_too() {
    let Some((sandbox, [busybox])) = Sandbox::with(["busybox:latest"]) else { return };
    sandbox.ok(["volume", "create", "vol"]);
    sandbox.ok(["run", "--rm", "-v", "vol:/v", &busybox, "true"]);
    sandbox.ok(["volume", "rm", "vol"]);
    assert_eq!(
        past(&sandbox, &["-f", "volume=vol"]),
        ["create", "mount", "unmount", "destroy"].map(|a| format!("volume {a}"))
    );
    sandbox.ok(["tag", &busybox, "other:1"]);
    sandbox.ok(["rmi", "other:1"]);
    assert_eq!(past(&sandbox, &["-f", "image=other:1"]), ["image tag", "image untag"]);
    sandbox.ok(["rmi", &busybox]);
}

#[test]
fn what_a_container_waits_for_is_said() {
    let Some((sandbox, [busybox])) = Sandbox::with(["busybox:latest"]) else { return };
    sandbox.ok(["create", "--name", "web", &busybox, "sh", "-c", "exit 7"]);
    let [next, removed] = ["next-exit", "removed"].map(|what| sandbox.start(["wait", "--condition", what, "web"]));
    assert_eq!(sandbox.ok(["wait", "--condition", "created", "web"]), "-1\n");
    // Whether it waits already is not seen from outside: it is started until it has seen an end.
    crate::session::until("an end that is seen", || {
        sandbox.ok(["start", "web"]);
        sandbox.ok(["wait", "web"]);
        next.stdout().contains('7').then_some(())
    });
    assert_eq!(next.wait().stdout, "7\n");
    assert_eq!(sandbox.ok(["wait", "--condition", "exited", "web"]), "7\n");
    // Which it can never be.
    let refused = sandbox.run(["wait", "--condition", "healthy", "web"]);
    assert!(refused.code == Some(1) && refused.stderr.contains("--health-cmd"), "{refused}");
    let never = sandbox.start(["wait", "--condition", "paused", "web"]);
    sandbox.ok(["rm", "web"]);
    assert_eq!(removed.wait().stdout, "7\n");
    let ended = never.wait();
    assert!(ended.code == Some(1) && ended.stderr.contains("web"), "{ended}");
}

#[test]
fn other_programs_in_a_container_are_told() {
    let Some((sandbox, [busybox])) = Sandbox::with(["busybox:latest"]) else { return };
    sandbox.ok(["run", "-d", "--name", "web", &busybox, "sleep", "1000"]);
    sandbox.fails(3, ["exec", "web", "sh", "-c", "exit 3"]);
    sandbox.ok(["exec", "-d", "web", "true"]);
    let died = |count: usize| {
        let told = past(&sandbox, &["-f", "event=exec_die"]);
        (told.len() == count).then_some(())
    };
    crate::session::until("both ends", || died(2));
    let arguments = ["events", "--since", "1h", "--until", "0s", "-f", "container=web", "--format", "json"];
    let events: Vec<Value> =
        sandbox.ok(arguments).lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
    let of = |action: &str| events.iter().find(|event| event["Action"] == action).expect(action);
    let (created, started) = (of("exec_create: sh -c exit 3"), of("exec_start: sh -c exit 3"));
    let id = &created["Actor"]["Attributes"]["execID"];
    assert_eq!((id, id.as_str().map(str::len)), (&started["Actor"]["Attributes"]["execID"], Some(64)));
    let ended =
        events.iter().find(|event| event["Action"] == "exec_die" && event["Actor"]["Attributes"]["execID"] == *id);
    assert_eq!(ended.expect("its end")["Actor"]["Attributes"]["exitCode"], "3");
    assert_eq!(past(&sandbox, &["-f", "event=exec_start"]).len(), 2);
    sandbox.ok(["rm", "-f", "web"]);
}
