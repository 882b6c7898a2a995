//! Namespaces, cgroups and devices that a container shares with the host or with another one.

use std::{fs, os::unix::fs::MetadataExt, path::Path};

use nix::{
    sys::signal::{self, Signal},
    unistd::Pid,
};

use crate::{
    crash::supervisor_of,
    sandbox::{Sandbox, is_second_kernel},
    session::{is_alive, until},
};

/// Whether its processes can be found without a pid namespace of its own.
fn has_cgroup(sandbox: &Sandbox, image: &str) -> bool {
    let ended = sandbox.run(["run", "--rm", "--pid", "host", image, "true"]);
    match ended.code {
        Some(0) => true,
        _ => {
            assert!(ended.stderr.contains("--pid host") && ended.stderr.contains("cgroup"), "{ended}");
            println!("skipped: {}", ended.stderr.trim_end());
            false
        }
    }
}

/// No namespace ends with such a container, so what it leaves behind is ended by its supervisor.
#[test]
fn the_hosts_processes_are_seen_and_none_stays_behind() {
    let Some((sandbox, [busybox, wasm])) = Sandbox::with(["busybox:latest", "hello:wasm"]) else { return };
    if !has_cgroup(&sandbox, &busybox) {
        return;
    }
    let host = fs::read_link("/proc/self/ns/pid").expect("a namespace");
    let script = "readlink /proc/self/ns/pid; sh -c 'sleep 1001 & echo $! >/left; sleep 1002'";
    let shown = sandbox.start([
        "run",
        "--name",
        "web",
        "--pid",
        "host",
        "--cap-add",
        "SYS_PTRACE",
        &busybox,
        "sh",
        "-c",
        script,
    ]);
    shown.until_printed("pid:[");
    assert_eq!(shown.stdout().trim_end(), host.to_str().expect("text"));
    let left: i32 = until("its child", || sandbox.run(["exec", "web", "cat", "/left"]).stdout.trim().parse().ok());
    // By the number that it has on the host.
    assert!(is_alive(left));
    let processes = sandbox.ok(["top", "web", "-o", "pid,args"]);
    assert!(processes.contains("sleep 1002") && !processes.contains("amphora"), "{processes}");
    let other = sandbox.start(["exec", "web", "sh", "-c", "echo joined; sleep 1006"]);
    other.until_printed("joined");
    sandbox.ok(["stop", "-t", "5", "web"]);
    until("the end of what was left", || (!is_alive(left)).then_some(()));
    assert_ne!(other.wait().code, Some(0));
    shown.wait();
    assert_eq!(sandbox.inspect("web", ".HostConfig.PidMode"), "host");
    assert!(["143", "137"].contains(&sandbox.inspect("web", ".State.ExitCode").as_str()));
    sandbox.ok(["rm", "web"]);
    let refused = sandbox.fails(125, ["run", "--init", "--pid", "host", &busybox, "true"]);
    assert!(refused.contains("--init"), "{refused}");
    assert!(sandbox.fails(125, ["run", "--pid", "host", &wasm]).contains("--pid"));
    sandbox.check_clean();
}

/// As its supervisor has no time to do so when it is killed, the next start does.
#[test]
fn what_a_killed_supervisor_left_among_the_hosts_processes_ends() {
    let Some((sandbox, [busybox])) = Sandbox::with(["busybox:latest"]) else { return };
    if !has_cgroup(&sandbox, &busybox) {
        return;
    }
    let script = "setsid sleep 1003 & echo $! >/left; wait";
    sandbox.ok(["run", "-d", "--name", "web", "--pid", "host", &busybox, "sh", "-c", script]);
    let left: i32 = until("its child", || sandbox.run(["exec", "web", "cat", "/left"]).stdout.trim().parse().ok());
    signal::kill(Pid::from_raw(supervisor_of(&sandbox, "web")), Signal::SIGKILL).expect("a supervisor");
    until("its end", || (sandbox.inspect("web", ".State.Running") == "false").then_some(()));
    sandbox.ok(["start", "web"]);
    until("the end of what was left", || (!is_alive(left)).then_some(()));
    sandbox.ok(["rm", "-f", "web"]);
    sandbox.check_clean();
}

#[test]
fn a_container_sees_the_processes_of_another() {
    let Some((sandbox, [busybox])) = Sandbox::with(["busybox:latest"]) else { return };
    let missing = sandbox.fails(125, ["run", "--pid", "container:web", &busybox, "true"]);
    assert!(missing.contains("--pid container:web"), "{missing}");
    sandbox.ok(["create", "--name", "web", &busybox, "sleep", "1004"]);
    let idle = sandbox.fails(125, ["run", "--rm", "--pid", "container:web", &busybox, "true"]);
    assert!(idle.contains("not running"), "{idle}");
    if !sandbox.is_root() || !has_cgroup(&sandbox, &busybox) {
        println!("skipped: without root each container has a user namespace of its own");
        return;
    }
    sandbox.ok(["start", "web"]);
    let shown = sandbox.run([
        "run",
        "--rm",
        "--pid",
        "container:web",
        &busybox,
        "sh",
        "-c",
        "ps -o args; kill -0 1 && echo seen",
    ]);
    if shown.stderr.contains("proc") && shown.code != Some(0) {
        println!("skipped: /proc of a pid namespace that is joined needs Linux 6.17: {}", shown.stderr);
    } else {
        assert!(shown.stdout.contains("sleep 1004") && shown.stdout.ends_with("seen\n"), "{shown}");
        // It goes with the namespace that it is in.
        let guest = sandbox.start([
            "run",
            "--rm",
            "--name",
            "guest",
            "--pid",
            "container:web",
            &busybox,
            "sh",
            "-c",
            "echo in; sleep 1005",
        ]);
        guest.until_printed("in");
        assert!(!sandbox.ok(["top", "web", "-o", "pid,args"]).contains("1005"));
        let mode = format!("container:{}", sandbox.inspect("web", ".Id"));
        assert_eq!(sandbox.inspect("guest", ".HostConfig.PidMode"), mode);
        sandbox.ok(["stop", "-t", "0", "web"]);
        assert_eq!(guest.wait().code, Some(137));
    }
    sandbox.ok(["rm", "-f", "web"]);
    sandbox.check_clean();
}

#[test]
fn memory_is_shared_with_who_may_have_it() {
    let Some((sandbox, [busybox])) = Sandbox::with(["busybox:latest"]) else { return };
    let said = |flags: &[&str], script: &str| {
        let words = ["run", "--rm"].iter().chain(flags).copied();
        sandbox.ok(words.chain([busybox.as_str(), "sh", "-c", script]))
    };
    assert_eq!(said(&["--ipc", "none"], "mount | grep -c /dev/shm; true"), "0\n");
    sandbox.ok(["run", "-d", "--name", "alone", &busybox, "sleep", "1000"]);
    let refused = sandbox.fails(125, ["run", "--rm", "--ipc", "container:alone", &busybox, "true"]);
    assert!(refused.contains("not shareable"), "{refused}");
    assert_eq!(sandbox.inspect("alone", ".HostConfig.IpcMode"), "private");
    if sandbox.is_root() {
        sandbox.ok([
            "run",
            "-d",
            "--name",
            "donor",
            "--ipc",
            "shareable",
            &busybox,
            "sh",
            "-c",
            "echo here >/dev/shm/x; sleep 1000",
        ]);
        until("its file", || (sandbox.run(["exec", "donor", "cat", "/dev/shm/x"]).code == Some(0)).then_some(()));
        let flags = ["--ipc", "container:donor"];
        let inside = said(
            &flags,
            "cat /dev/shm/x; readlink /proc/self/ns/ipc; echo back >/dev/shm/y; mount | grep shm | tail -n 1 | grep -c noexec",
        );
        let donor = sandbox.ok(["exec", "donor", "readlink", "/proc/self/ns/ipc"]);
        assert_eq!(inside, format!("here\n{donor}1\n"));
        assert_eq!(sandbox.ok(["exec", "donor", "cat", "/dev/shm/y"]), "back\n");
        // What it has put in the place of its memory is no memory.
        sandbox.ok(["exec", "--privileged", "donor", "umount", "/dev/shm"]);
        sandbox.ok(["exec", "donor", "sh", "-c", "rmdir /dev/shm 2>/dev/null; ln -s /proc /dev/shm || true"]);
        let words = ["run", "--rm"].into_iter().chain(flags).chain([busybox.as_str(), "ls", "/dev/shm"]);
        assert!(sandbox.fails(125, words).contains("/dev/shm"));
    }
    if Path::new("/dev/shm").is_dir() {
        let name = format!("/dev/shm/amphora-test-{}", std::process::id());
        fs::write(&name, "host").expect("written");
        let read = said(&["--ipc", "host"], &format!("cat {name}"));
        fs::remove_file(&name).expect("removed");
        assert_eq!(read, "host");
    }
    sandbox.ok(["rm", "-f", "alone"]);
    sandbox.run(["rm", "-f", "donor"]);
    sandbox.check_clean();
}

#[test]
fn flags_that_have_one_meaning_here_take_it_and_no_other() {
    let Some((sandbox, [busybox])) = Sandbox::with(["busybox:latest"]) else { return };
    let flags = ["--userns", "host", "--isolation", "default", "--volume-driver", "local", "--uts", "private"];
    let words = ["run", "--rm"].into_iter().chain(flags).chain([busybox.as_str(), "echo", "ran"]);
    assert_eq!(sandbox.ok(words), "ran\n");
    for (flag, value) in [
        ("--userns", "keep-id"),
        ("--isolation", "hyperv"),
        ("--volume-driver", "nfs"),
        ("--uts", "container:web"),
        ("--pid", "none"),
        ("--memory-swappiness", "101"),
        ("--device-cgroup-rule", "c 1:3"),
        ("--expose", "8080:80"),
        ("--cgroup-parent", "../../x"),
    ] {
        let refused = sandbox.fails(125, ["run", "--rm", flag, value, &busybox, "true"]);
        assert!(refused.contains(flag) && refused.contains(value), "{refused}");
    }
    for flag in ["--storage-opt", "--runtime", "--use-api-socket", "--kernel-memory", "--link"] {
        let refused = sandbox.fails(125, ["run", "--rm", flag, "x", &busybox, "true"]);
        assert!(refused.contains(&format!("not supported yet: the flag `{flag}`")), "{refused}");
    }
}

#[test]
fn a_cgroup_lies_where_it_was_wanted() {
    let Some((sandbox, [busybox])) = Sandbox::with(["busybox:latest"]) else { return };
    let parent = format!("/amphora-test-{}", std::process::id());
    let flags = ["--cgroup-parent", &parent, "-m", "32m"];
    if !sandbox.can_limit(&flags) {
        return println!("skipped: no cgroup can be made there");
    }
    let words = ["run", "-d", "--name", "web"].into_iter().chain(flags);
    sandbox.ok(words.chain([busybox.as_str(), "sleep", "1000"]));
    let (id, pid) = (sandbox.inspect("web", ".Id"), sandbox.inspect("web", ".State.Pid"));
    let place = format!("{parent}/{id}");
    let groups = fs::read_to_string(format!("/proc/{pid}/cgroup")).expect("its groups");
    assert!(groups.lines().any(|line| line.ends_with(&place)), "{groups}");
    // Everybody finds it there.
    sandbox.ok(["exec", "web", "true"]);
    sandbox.ok(["update", "-m", "48m", "web"]);
    assert!(sandbox.ok(["stats", "--no-stream", "--format", "{{.MemUsage}}", "web"]).contains("48MiB"));
    sandbox.ok(["pause", "web"]);
    sandbox.ok(["unpause", "web"]);
    sandbox.ok(["rm", "-f", "web"]);
    sandbox.check_clean();
    remove_groups(&parent);
}

/// The groups above stay, as others may lie in them.
fn remove_groups(parent: &str) {
    let tops = fs::read_dir("/sys/fs/cgroup").into_iter().flatten().flatten().map(|entry| entry.path());
    for top in tops.chain(["/sys/fs/cgroup".into()]) {
        let group = top.join(parent.trim_start_matches('/'));
        if group.is_dir() {
            fs::remove_dir(&group).expect("an empty group");
        }
    }
}

#[test]
fn devices_are_opened_as_was_said() {
    let Some((sandbox, [busybox])) = Sandbox::with(["busybox:latest"]) else { return };
    let flags = ["--device", "/dev/zero:/dev/zeros:r"];
    if !sandbox.can_limit(&flags) {
        let words = ["run", "--rm"].into_iter().chain(flags).chain([busybox.as_str(), "true"]);
        let refused = sandbox.fails(125, words);
        assert!(refused.contains("list of devices"), "{refused}");
        return println!("skipped: {}", refused.trim_end());
    }
    let said = |flags: &[&str], script: &str| {
        let words = ["run", "--rm"].iter().chain(flags).copied();
        sandbox.ok(words.chain([busybox.as_str(), "sh", "-c", script]))
    };
    // Of the host's own, which no container has; opening it changes nothing.
    let nodes = ["/dev/fuse", "/dev/net/tun", "/dev/loop-control"];
    if let Some((node, number)) = nodes.iter().find_map(|node| Some((node, fs::metadata(node).ok()?.rdev()))) {
        let tried = "(: </dev/it) 2>/dev/null && echo read; (: >/dev/it) 2>/dev/null && echo written; true";
        let given = |uses: &str| format!("{node}:/dev/it{uses}");
        assert_eq!(said(&["--device", &given(":r")], tried), "read\n");
        assert_eq!(said(&["--device", &given(":w")], tried), "written\n");
        assert_eq!(said(&["--device", &given("")], tried), "read\nwritten\n");
        // With what lets it mount it may open no more.
        assert_eq!(said(&["--cap-add", "SYS_ADMIN", "--device", &given(":r")], tried), "read\n");
        let (major, minor) = (nix::sys::stat::major(number), nix::sys::stat::minor(number));
        let make = format!("mknod /dev/it c {major} {minor} && {{ {tried}; }}");
        let rule = |minor: u64| format!("c {major}:{minor} rwm");
        let with = |rule: &str| {
            sandbox.run(["run", "--rm", "--tmpfs", "/tmp", "--device-cgroup-rule", rule, &busybox, "sh", "-c", &make])
        };
        assert_eq!(with(&rule(minor)).stdout, "read\nwritten\n");
        let other = with(&rule(minor + 1));
        assert!(other.stdout.is_empty(), "{other}");
        // Without a rule a node is nothing, as ever.
        let words = ["run", "--rm", "--tmpfs", "/tmp", &busybox, "sh", "-c", &make];
        assert_eq!(sandbox.run(words).stdout, "");
    }
    assert_eq!(said(&flags, "head -c 3 /dev/zeros | wc -c; head -c 3 /dev/zero | wc -c"), "3\n3\n");
    sandbox.check_clean();
}

#[test]
fn details_of_a_log_are_told() {
    let Some((sandbox, [busybox])) = Sandbox::with(["busybox:latest"]) else { return };
    let flags = ["-l", "tier=front end", "-e", "A=1", "--log-opt", "labels=tier", "--log-opt", "env=A,B"];
    let words = ["run", "--name", "web"].into_iter().chain(flags);
    sandbox.ok(words.chain([busybox.as_str(), "echo", "x"]));
    assert_eq!(sandbox.ok(["logs", "--details", "web"]), "A=1,tier=front+end x\n");
    assert_eq!(sandbox.ok(["logs", "web"]), "x\n");
    if !Path::new("/run/systemd/journal/socket").exists() {
        let refused = sandbox.fails(125, ["run", "--log-driver", "journald", &busybox, "true"]);
        assert!(refused.contains("journald does not listen"), "{refused}");
    }
}

#[test]
fn a_stop_takes_the_signal_that_is_given() {
    let Some((sandbox, [busybox])) = Sandbox::with(["busybox:latest"]) else { return };
    let script = "trap 'echo usr1; exit 7' USR1; trap 'exit 8' TERM; echo ready; while :; do sleep 0.05; done";
    sandbox.ok(["run", "-d", "--name", "web", &busybox, "sh", "-c", script]);
    let is_ready = || sandbox.ok(["logs", "web"]).ends_with("ready\n").then_some(());
    until("its traps", is_ready);
    sandbox.ok(["restart", "-s", "USR1", "web"]);
    until("its traps", is_ready);
    sandbox.ok(["stop", "--signal", "SIGUSR1", "web"]);
    assert_eq!(sandbox.inspect("web", ".State.ExitCode"), "7");
    assert!(sandbox.fails(1, ["stop", "-s", "NONSENSE", "web"]).contains("NONSENSE"));
    sandbox.ok(["rm", "web"]);
}

#[test]
fn exposed_ports_are_shown_and_published_with_all() {
    let Some((sandbox, [busybox])) = Sandbox::with(["busybox:latest"]) else { return };
    sandbox.ok(["create", "--name", "web", "--expose", "80", "--expose", "53-54/udp", &busybox, "true"]);
    let exposed = sandbox.details("web")["Config"]["ExposedPorts"].clone();
    assert_eq!(exposed, serde_json::json!({ "80/tcp": {}, "53/udp": {}, "54/udp": {} }));
    // It takes a network.
    if sandbox.is_root() && !is_second_kernel() {
        sandbox.ok(["run", "-d", "--name", "all", "-P", "--expose", "80", &busybox, "sleep", "1000"]);
        assert!(sandbox.ok(["port", "all"]).starts_with("80/tcp -> "));
        sandbox.ok(["rm", "-f", "all"]);
    }
}
