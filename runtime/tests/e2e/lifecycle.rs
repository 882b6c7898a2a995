//! A container from its creation to its removal, the same for both kinds.

use std::{
    fs::{self, Permissions},
    os::unix::fs::PermissionsExt,
    process::Command,
};

use nix::sys::signal::Signal;

use crate::{
    sandbox::{KINDS, Sandbox, kind_of},
    session::{Session, is_alive, until},
};

#[test]
fn a_container_in_the_background_is_listed_stopped_and_removed() {
    let Some(sandbox) = Sandbox::new() else { return };
    for tag in KINDS {
        let image = sandbox.pull(&format!("sleep:{tag}"));
        let id = sandbox.ok(["run", "-d", "--name", "web", "--label", "tier=front", &image, "1000"]);
        let id = id.trim_end();
        assert_eq!(id.len(), 64, "{tag}: {id}");
        let row = sandbox.ok(["ps", "--format", "{{.ID}} {{.Names}} {{.Kind}} {{.State}} {{.Image}}"]);
        assert_eq!(row, format!("{} web {} running {image}\n", &id[..12], kind_of(tag)));
        assert_eq!(sandbox.ok(["ps", "-q"]).trim_end(), &id[..12], "{tag}");
        until("the first line in the log", || sandbox.ok(["logs", "web"]).contains("sleeping").then_some(()));

        let pid: i32 = sandbox.inspect("web", ".State.Pid").parse().expect("a pid");
        assert!(is_alive(pid), "{tag}");
        // The program has no handler: to wait for it until then would be for nothing.
        assert_eq!(sandbox.ok(["stop", "-t", "1000", "web"]), "web\n");
        assert!(!is_alive(pid), "{tag}");
        assert_eq!(sandbox.ok(["ps", "-q"]), "", "{tag}");
        let state = sandbox.inspect("web", ".State.Status");
        let code = sandbox.inspect("web", ".State.ExitCode");
        // The first process of a pid namespace does not see SIGTERM without a handler; our own engine has one.
        let expected = if tag == "linux" { "137" } else { "143" };
        assert_eq!((state.as_str(), code.as_str()), ("exited", expected), "{tag}");
        let status = sandbox.ok(["ps", "-a", "--format", "{{.Status}}"]);
        assert!(status.starts_with(&format!("Exited ({expected}) ")), "{tag}: {status}");

        assert_eq!(sandbox.ok(["rm", "web"]), "web\n");
        assert_eq!(sandbox.ok(["ps", "-a", "-q"]), "", "{tag}");
        sandbox.check_clean();
    }
}

#[test]
fn ps_filters_and_shows_the_newest() {
    let Some((sandbox, [linux, wasm])) = Sandbox::with(["hello:linux", "hello:wasm"]) else { return };
    sandbox.ok(["run", "--name", "one", "--label", "tier=front", &linux]);
    sandbox.ok(["create", "--name", "two", "--label", "tier=back", &wasm]);
    let names = |filters: &[&str]| {
        let flags = filters.iter().flat_map(|filter| ["--filter", filter]);
        let words = ["ps", "-a", "--format", "{{.Names}}"].into_iter().chain(flags);
        sandbox.ok(words).lines().collect::<Vec<_>>().join(" ")
    };
    assert_eq!(names(&[]), "two one");
    assert_eq!(names(&["kind=wasm"]), "two");
    assert_eq!(names(&["status=exited"]), "one");
    assert_eq!(names(&["status=created", "status=exited"]), "two one");
    assert_eq!(names(&["label=tier"]), "two one");
    assert_eq!(names(&["label=tier=front"]), "one");
    assert_eq!(names(&["name=tw", "kind=linux"]), "");
    assert_eq!(sandbox.ok(["ps", "-l", "--format", "{{.Names}}"]), "two\n");
    let table = sandbox.ok(["ps", "-a"]);
    assert!(table.starts_with("CONTAINER ID   IMAGE"), "{table}");
    let rows = sandbox.ok(["ps", "-a", "--format", "json"]);
    let row: serde_json::Value = serde_json::from_str(rows.lines().next().expect("a row")).expect("JSON");
    assert_eq!((&row["Names"], &row["Kind"], &row["State"]), (&"two".into(), &"wasm".into(), &"created".into()));
    let message = sandbox.fails(1, ["ps", "--filter", "colour=red"]);
    assert!(message.contains("colour=red"), "{message}");
}

#[test]
fn created_started_and_started_again() {
    let Some(sandbox) = Sandbox::new() else { return };
    for tag in KINDS {
        let image = sandbox.pull(&format!("exit:{tag}"));
        let id = sandbox.ok(["create", "--name", "later", &image, "1"]);
        assert_eq!(sandbox.inspect("later", ".State.Status"), "created", "{tag}");
        assert_eq!(sandbox.run(["start", "-a", "later"]).code, Some(1), "{tag}");
        assert_eq!(sandbox.inspect("later", ".State.ExitCode"), "1", "{tag}");
        assert_eq!(sandbox.ok(["start", id.trim_end()]), id, "{tag}");
        assert_eq!(sandbox.ok(["wait", "later"]), "1\n", "{tag}");
        sandbox.ok(["rm", &id[..12]]);
        sandbox.check_clean();
    }
}

#[test]
fn a_container_that_is_started_again_keeps_its_files() {
    let Some((sandbox, [busybox])) = Sandbox::with(["busybox:latest"]) else { return };
    let script = "echo x >> /root/count; wc -l < /root/count";
    assert_eq!(sandbox.ok(["run", "--name", "counter", &busybox, "sh", "-c", script]).trim(), "1");
    assert_eq!(sandbox.ok(["start", "-a", "counter"]).trim(), "2");
    sandbox.ok(["start", "counter"]);
    sandbox.ok(["wait", "counter"]);
    let counts: Vec<String> = sandbox.ok(["logs", "counter"]).lines().map(|line| line.trim().to_owned()).collect();
    assert_eq!(counts, ["1", "2", "3"]);
}

#[test]
fn logs_follow_cut_and_stamp() {
    let Some((sandbox, [busybox])) = Sandbox::with(["busybox:latest"]) else { return };
    let script = "echo one; echo two >&2; echo three; printf four";
    sandbox.ok(["run", "-d", "--name", "talk", &busybox, "sh", "-c", script]);
    sandbox.ok(["wait", "talk"]);
    let ended = sandbox.run(["logs", "talk"]);
    assert_eq!((ended.stdout.as_str(), ended.stderr.as_str()), ("one\nthree\nfour", "two\n"));
    assert_eq!(sandbox.ok(["logs", "--tail", "0", "talk"]), "");
    assert_eq!(sandbox.ok(["logs", "--since", "1h", "talk"]), "one\nthree\nfour");
    assert_eq!(sandbox.ok(["logs", "--until", "1h", "talk"]), "");

    sandbox.ok(["run", "--name", "count", &busybox, "seq", "5"]);
    assert_eq!(sandbox.ok(["logs", "--tail", "2", "count"]), "4\n5\n");
    let stamped = sandbox.ok(["logs", "-t", "--tail", "1", "count"]);
    let (time, text) = stamped.split_once(' ').expect("a time and the text");
    assert!(time.starts_with("20") && time.ends_with('Z') && text == "5\n", "{stamped}");
}

#[test]
fn a_followed_log_ends_with_its_container() {
    let Some((sandbox, [busybox])) = Sandbox::with(["busybox:latest"]) else { return };
    let script = "echo begun; while [ ! -e /go/on ]; do sleep 0.1; done; echo done";
    sandbox.ok(["run", "-d", "--name", "talk", "-v", ".:/go", &busybox, "sh", "-c", script]);
    let follower = sandbox.start(["logs", "-f", "talk"]);
    follower.until_printed("begun\n");
    sandbox.file("on", "");
    let ended = follower.wait();
    assert_eq!((ended.code, ended.stdout.as_str()), (Some(0), "begun\ndone\n"));
}

#[test]
fn exec_runs_in_the_container_and_is_refused_for_wasm() {
    let Some((sandbox, [busybox, sleep])) = Sandbox::with(["busybox:latest", "sleep:wasm"]) else { return };
    sandbox.ok(["run", "-d", "--name", "box", "-e", "A=1", "--hostname", "vessel", &busybox, "sleep", "1000"]);
    assert_eq!(sandbox.ok(["exec", "box", "sh", "-c", "hostname; echo $A"]), "vessel\n1\n");
    assert_eq!(sandbox.ok(["exec", "-e", "A=2", "-w", "/tmp", "box", "sh", "-c", "echo $A; pwd"]), "2\n/tmp\n");
    assert_eq!(sandbox.run(["exec", "box", "sh", "-c", "exit 9"]).code, Some(9));
    assert_eq!(sandbox.ok(["exec", "box", "cat", "/proc/1/comm"]), "sleep\n");
    let status = sandbox.ok(["exec", "box", "cat", "/proc/self/status"]);
    for line in ["Seccomp:\t2", "NoNewPrivs:\t1", "CapEff:\t00000000a80425fb"] {
        assert!(status.contains(line), "{line} is not in {status}");
    }
    assert_eq!(sandbox.run(["exec", "box", "no-such-program"]).code, Some(127));
    assert_eq!(sandbox.run(["exec", "box", "/etc/passwd"]).code, Some(126));
    sandbox.ok(["exec", "-d", "box", "touch", "/tmp/done"]);
    until("the program in the background", || {
        (sandbox.run(["exec", "box", "ls", "/tmp/done"]).code == Some(0)).then_some(())
    });

    sandbox.ok(["run", "-d", "--name", "wasm", &sleep, "1000"]);
    let message = sandbox.fails(1, ["exec", "wasm", "sh"]);
    assert!(message.contains("Wasm program"), "{message}");
    sandbox.ok(["stop", "box"]);
    let message = sandbox.fails(1, ["exec", "box", "true"]);
    assert!(message.contains("not running"), "{message}");
}

#[test]
fn stop_gives_a_program_with_a_handler_its_time() {
    let Some((sandbox, [busybox])) = Sandbox::with(["busybox:latest"]) else { return };
    let script = "trap 'echo bye; exit 3' TERM; echo ready; while :; do sleep 0.1; done";
    sandbox.ok(["run", "-d", "--name", "polite", &busybox, "sh", "-c", script]);
    until("the handler", || sandbox.ok(["logs", "polite"]).contains("ready").then_some(()));
    sandbox.ok(["stop", "-t", "100", "polite"]);
    assert_eq!(sandbox.inspect("polite", ".State.ExitCode"), "3");
    assert_eq!(sandbox.ok(["logs", "polite"]), "ready\nbye\n");

    let script = "trap '' TERM; echo ready; while :; do sleep 0.1; done";
    sandbox.ok(["run", "-d", "--name", "deaf", "--stop-timeout", "1", &busybox, "sh", "-c", script]);
    until("the handler", || sandbox.ok(["logs", "deaf"]).contains("ready").then_some(()));
    sandbox.ok(["stop", "deaf"]);
    assert_eq!(sandbox.inspect("deaf", ".State.ExitCode"), "137");
}

#[test]
fn the_stop_signal_can_be_chosen() {
    let Some((sandbox, [busybox])) = Sandbox::with(["busybox:latest"]) else { return };
    let script = "trap 'exit 5' USR1; echo ready; while :; do sleep 0.1; done";
    sandbox.ok(["run", "-d", "--name", "own", "--stop-signal", "USR1", &busybox, "sh", "-c", script]);
    until("the handler", || sandbox.ok(["logs", "own"]).contains("ready").then_some(()));
    sandbox.ok(["stop", "-t", "100", "own"]);
    assert_eq!(sandbox.inspect("own", ".State.ExitCode"), "5");
}

#[test]
fn kill_sends_any_signal_to_both_kinds() {
    let Some(sandbox) = Sandbox::new() else { return };
    for tag in KINDS {
        let image = sandbox.pull(&format!("sleep:{tag}"));
        sandbox.ok(["run", "-d", "--name", "victim", &image, "1000"]);
        assert_eq!(sandbox.ok(["kill", "victim"]), "victim\n", "{tag}");
        assert_eq!(sandbox.ok(["wait", "victim"]), "137\n", "{tag}");
        let message = sandbox.fails(1, ["kill", "victim"]);
        assert!(message.contains("not running"), "{tag}: {message}");
        sandbox.ok(["rm", "victim"]);
    }
    let busybox = sandbox.pull("busybox:latest");
    let script = "trap 'exit 6' HUP; echo ready; while :; do sleep 0.1; done";
    sandbox.ok(["run", "-d", "--name", "hup", &busybox, "sh", "-c", script]);
    until("the handler", || sandbox.ok(["logs", "hup"]).contains("ready").then_some(()));
    sandbox.ok(["kill", "-s", "HUP", "hup"]);
    assert_eq!(sandbox.ok(["wait", "hup"]), "6\n");
    let message = sandbox.fails(1, ["kill", "-s", "NOPE", "hup"]);
    assert!(message.contains("NOPE"), "{message}");
}

#[test]
fn wait_returns_when_the_container_ends() {
    let Some((sandbox, [busybox])) = Sandbox::with(["busybox:latest"]) else { return };
    let script = "while [ ! -e /go/on ]; do sleep 0.1; done; exit 12";
    sandbox.ok(["run", "-d", "--name", "job", "-v", ".:/go", &busybox, "sh", "-c", script]);
    let waiter = sandbox.start(["wait", "job"]);
    sandbox.file("on", "");
    assert_eq!(waiter.wait().stdout, "12\n");
}

#[test]
fn a_running_container_is_removed_only_by_force() {
    let Some(sandbox) = Sandbox::new() else { return };
    for tag in KINDS {
        let image = sandbox.pull(&format!("sleep:{tag}"));
        sandbox.ok(["run", "-d", "--name", "busy", &image, "1000"]);
        let message = sandbox.fails(1, ["rm", "busy"]);
        assert!(message.contains("running") && message.contains("rm -f"), "{tag}: {message}");
        let pid: i32 = sandbox.inspect("busy", ".State.Pid").parse().expect("a pid");
        assert_eq!(sandbox.ok(["start", "busy"]), "busy\n", "{tag}");
        assert_eq!(sandbox.inspect("busy", ".State.Pid"), pid.to_string(), "{tag}");
        sandbox.ok(["rm", "-f", "busy"]);
        assert!(!is_alive(pid), "{tag}");
        assert_eq!(sandbox.ok(["ps", "-aq"]), "", "{tag}");
        sandbox.check_clean();
    }
    assert_eq!(sandbox.run(["rm", "-f", "never-was"]).code, Some(0));
    assert_ne!(sandbox.run(["rm", "never-was"]).code, Some(0));
}

#[test]
fn a_name_belongs_to_one_container() {
    let Some((sandbox, [hello])) = Sandbox::with(["hello:linux"]) else { return };
    sandbox.ok(["run", "--name", "taken", &hello]);
    let message = sandbox.fails(125, ["run", "--name", "taken", &hello]);
    assert!(message.contains("\"taken\"") && message.contains("rm taken"), "{message}");
    sandbox.ok(["rm", "taken"]);
    sandbox.ok(["run", "--rm", "--name", "taken", &hello]);
    sandbox.ok(["create", "--rm", "--name", "taken", &hello]);
    let message = sandbox.fails(1, ["create", "--name", "taken", &hello]);
    assert!(message.contains("\"taken\"") && message.contains("rm taken"), "{message}");
    sandbox.ok(["rm", "taken"]);
    sandbox.ok(["create", "--name", "taken", &hello]);
    let message = sandbox.fails(125, ["run", "--rm", "--name", "taken", &hello]);
    assert!(message.contains("\"taken\"") && message.contains("rm taken"), "{message}");
    sandbox.ok(["rm", "taken"]);
    sandbox.ok(["run", "--name", "taken", &hello]);
    let message = sandbox.fails(125, ["run", "--name", "not a name", &hello]);
    assert!(message.contains("not a name"), "{message}");
}

#[test]
fn a_container_with_rm_is_gone_when_it_has_ended() {
    let Some(sandbox) = Sandbox::new() else { return };
    for tag in KINDS {
        let image = sandbox.pull(&format!("exit:{tag}"));
        assert_eq!(sandbox.run(["run", "--rm", &image, "1"]).code, Some(1), "{tag}");
        assert_eq!(sandbox.ok(["ps", "-aq"]), "", "{tag}");
        let id = sandbox.ok(["run", "-d", "--rm", &image, "1"]);
        until("the removal", || sandbox.ok(["ps", "-aq"]).is_empty().then_some(()));
        assert_ne!(sandbox.run(["inspect", id.trim_end()]).code, Some(0), "{tag}");
        sandbox.check_clean();
    }
}

#[test]
fn inspect_shows_what_was_asked_for() {
    let Some(sandbox) = Sandbox::new() else { return };
    for tag in KINDS {
        let image = sandbox.pull(&format!("args:{tag}"));
        let flags = ["create", "--name", "all", "-e", "A=b", "-v", "data:/data:ro", "--timeout", "90s", "-w", "/data"];
        sandbox.ok(flags.iter().copied().chain([image.as_str(), "x"]));
        let all = sandbox.details("all");
        assert_eq!(all["Name"], "/all", "{tag}");
        assert_eq!(all["Kind"], kind_of(tag));
        assert_eq!(all["Args"], serde_json::json!(["x"]));
        assert_eq!(all["Config"]["Image"], image);
        assert_eq!(all["Config"]["WorkingDir"], "/data");
        assert_eq!(all["HostConfig"]["TimeoutMs"], 90_000);
        assert_eq!(all["Mounts"][0]["Destination"], "/data");
        assert_eq!(all["Mounts"][0]["RW"], false);
        assert!(all["Config"]["Env"].as_array().expect("a list").contains(&"A=b".into()), "{all}");
        let of_image = sandbox.ok(["inspect", "--type", "image", "--format", "{{.Id}} {{.Kind}}", &image]);
        assert_eq!(of_image, format!("{} {}\n", all["Image"].as_str().expect("a digest"), kind_of(tag)));
        sandbox.ok(["rm", "all"]);
    }
    let ended = sandbox.run(["inspect", "no-such-thing"]);
    assert_eq!((ended.code, ended.stdout.as_str()), (Some(1), "[]\n"), "{ended}");
    assert!(ended.stderr.contains("no-such-thing"), "{ended}");
}

#[test]
fn several_containers_are_stopped_though_one_is_unknown() {
    let Some((sandbox, [sleep])) = Sandbox::with(["sleep:linux"]) else { return };
    for name in ["one", "two"] {
        sandbox.ok(["run", "-d", "--name", name, &sleep, "1000"]);
    }
    let ended = sandbox.run(["stop", "one", "nobody", "two"]);
    assert_ne!(ended.code, Some(0));
    assert_eq!(ended.stdout, "one\ntwo\n", "{ended}");
    assert!(ended.stderr.contains("nobody"), "{ended}");
    assert_eq!(sandbox.ok(["ps", "-q"]), "");
}

#[test]
fn a_restart_stops_and_starts_again() {
    let Some((sandbox, [sleep])) = Sandbox::with(["sleep:linux"]) else { return };
    sandbox.ok(["run", "-d", "--name", "again", &sleep, "1000"]);
    let first = sandbox.inspect("again", ".State.Pid");
    assert_eq!(sandbox.ok(["restart", "-t", "0", "again"]), "again\n");
    let second = sandbox.inspect("again", ".State.Pid");
    assert_ne!(first, second);
    assert_eq!(sandbox.inspect("again", ".State.Running"), "true");
    sandbox.ok(["stop", "-t", "0", "again"]);
    // One that does not run is started; of several, those that there are.
    let ended = sandbox.run(["restart", "-t", "0", "missing", "again"]);
    assert!(ended.code == Some(1) && ended.stderr.contains("no such container: missing"), "{ended}");
    assert_eq!(sandbox.inspect("again", ".State.Running"), "true");
    sandbox.ok(["rm", "-f", "again"]);
    sandbox.ok(["run", "-d", "--rm", "--name", "once", &sleep, "1000"]);
    assert!(sandbox.fails(1, ["restart", "once"]).contains("--rm"));
    assert_eq!(sandbox.inspect("once", ".State.Running"), "true");
    sandbox.ok(["rm", "-f", "once"]);
    sandbox.check_clean();
}

#[test]
fn the_longer_names_and_the_switches_of_docker_are_understood() {
    let Some((sandbox, [hello])) = Sandbox::with(["hello:wasm"]) else { return };
    assert_eq!(sandbox.ok(["container", "run", "--rm=true", "-t=false", &hello]), "hello from wasm\n");
    assert_eq!(sandbox.ok(["run", "--rm=false", "--name", "kept", &hello]), "hello from wasm\n");
    assert_eq!(sandbox.ok(["container", "ls", "-a", "--format", "{{.Names}}"]), "kept\n");
    assert!(sandbox.ok(["container", "inspect", "kept"]).contains("\"Kind\": \"wasm\""));
    assert_eq!(sandbox.run(["container", "inspect", &hello]).code, Some(1), "an image is no container");
    sandbox.ok(["container", "rm", "kept"]);
    assert_eq!(sandbox.ok(["images", "-a", "-q"]).lines().count(), 1);
}

#[test]
fn an_init_passes_signals_and_the_exit_code_on_and_reaps() {
    let Some((sandbox, [busybox, sleep])) = Sandbox::with(["busybox:latest", "sleep:wasm"]) else { return };
    let processes = sandbox.ok(["run", "--rm", "--init", &busybox, "ps", "-o", "pid,args"]);
    assert!(processes.contains("1 amphora-init") && processes.contains("2 ps -o"), "{processes}");
    let ends = |script: &str| sandbox.run(["run", "--rm", "--init", &busybox, "sh", "-c", script]).code;
    assert_eq!(ends("exit 5"), Some(5));
    assert_eq!(ends("kill -TERM $$"), Some(143));
    let orphans = "(sleep 0.1 &); sleep 0.3; ps -o stat | grep -c Z";
    assert_eq!(ends(orphans), Some(1), "grep finds no zombie");
    // What leads to the init from inside cannot be opened.
    assert_eq!(ends("! (exec 3</proc/1/exe) 2>/dev/null && ! (: >/proc/1/exe) 2>/dev/null"), Some(0));
    let missing = sandbox.run(["run", "--rm", "--init", &busybox, "nosuch"]);
    assert_eq!(missing.code, Some(127), "{missing}");

    sandbox.ok(["run", "-d", "--name", "asked", "--init", &busybox, "sleep", "1000"]);
    sandbox.ok(["stop", "-t", "1000", "asked"]);
    assert_eq!(sandbox.inspect("asked", ".State.ExitCode"), "143", "sleep has no handler, and is not process 1");
    sandbox.ok(["run", "-d", "--name", "wasm", "--init", &sleep, "1000"]);
    sandbox.ok(["rm", "-f", "asked", "wasm"]);
    sandbox.check_clean();
}

/// Holds a lease on a file, so that whoever opens it waits, and says when somebody does.
const LEASE: &str = r#"
    $SIG{IO} = sub { syswrite STDOUT, "asked\n" };
    open my $file, "<", $ARGV[0] or die;
    fcntl $file, 1024, 1 or die "no lease: $!"; # F_SETLEASE, F_WRLCK
    syswrite STDOUT, "held\n";
    sleep 1000 for 1 .. 1000;
"#;

/// Another one that shares a volume could keep a start from ending at Ctrl-C.
#[test]
fn a_start_that_somebody_holds_up_ends_at_a_signal() {
    let Some((sandbox, [busybox])) = Sandbox::with(["busybox:latest"]) else { return };
    let program = sandbox.file("busybox", fs::read("/bin/busybox").expect("busybox"));
    fs::set_permissions(&program, Permissions::from_mode(0o755)).expect("a mode");
    let volume = format!("{program}:/held/busybox");
    sandbox.ok(["run", "-d", "--name", "other", "-v", &volume, &busybox, "sleep", "1000"]);
    for (signal, code) in [(Signal::SIGTERM, 143), (Signal::SIGINT, 130)] {
        for words in [
            &["run", "--rm", "-v", &volume, &busybox, "/held/busybox", "true"][..],
            &["exec", "other", "/held/busybox", "true"],
        ] {
            let mut lease = Command::new("perl");
            lease.args(["-e", LEASE, &program]);
            let lease = Session::start(lease);
            lease.until_printed("held");
            let start = sandbox.start(words);
            lease.until_printed("asked");
            start.signal(Signal::SIGUSR1);
            start.signal(signal);
            let ended = start.wait();
            assert!(
                ended.code == Some(code) && ended.stderr.contains("a signal came before it began"),
                "{words:?}: {ended}"
            );
            lease.signal(Signal::SIGKILL);
            lease.wait();
        }
    }
    sandbox.ok(["rm", "-f", "other"]);
    sandbox.check_clean();
}
