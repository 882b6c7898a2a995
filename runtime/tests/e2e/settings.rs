//! Settings that few containers have, and what was found wrong with those that most have.

use std::{fs, os::unix::fs::symlink};

use crate::{sandbox::Sandbox, session::until};

#[test]
fn a_container_is_well_or_not() {
    let Some((sandbox, [busybox, wasm])) = Sandbox::with(["busybox:latest", "sleep:wasm"]) else { return };
    let health = ["--health-interval", "20ms", "--health-retries", "2", "--health-timeout", "60s"];
    let run = |name: &str, check: &str| {
        let words = ["run", "-d", "--name", name, "--health-cmd", check].into_iter().chain(health);
        sandbox.ok(words.chain([busybox.as_str(), "sleep", "1000"]));
    };
    run("web", "test ! -e /bad || { echo it is bad; exit 3; }");
    let becomes = |name: &str, wanted: &str| {
        until(wanted, || (sandbox.inspect(name, ".State.Health.Status") == wanted).then_some(()));
    };
    becomes("web", "healthy");
    assert!(sandbox.ok(["ps", "--format", "{{.Status}}"]).ends_with("(healthy)\n"));
    sandbox.ok(["exec", "web", "touch", "/bad"]);
    becomes("web", "unhealthy");
    let health = &sandbox.details("web")["State"]["Health"];
    let last = health["Log"].as_array().and_then(|log| log.last()).expect("a check").clone();
    assert_eq!((&last["ExitCode"], &last["Output"]), (&3.into(), &"it is bad\n".into()));
    sandbox.ok(["exec", "web", "rm", "/bad"]);
    becomes("web", "healthy");
    // One that prints without end, and one that never ends by itself: neither holds up anybody.
    run("loud", "yes & yes; wait");
    sandbox.ok(["stop", "-t", "0", "loud"]);
    sandbox.ok(["rm", "-f", "web", "loud"]);
    sandbox.check_clean();
    let refused = sandbox.fails(125, ["run", "--health-cmd", "true", &wasm]);
    assert!(refused.contains("--health-cmd"), "{refused}");
}

#[test]
fn a_health_check_that_takes_too_long_has_failed() {
    let Some((sandbox, [busybox])) = Sandbox::with(["busybox:latest"]) else { return };
    let flags = ["--health-cmd", "echo x; sleep 1000", "--health-timeout", "50ms", "--health-interval", "10ms"];
    let words = ["run", "-d", "--name", "web", "--health-retries", "1"].into_iter().chain(flags);
    sandbox.ok(words.chain([busybox.as_str(), "sleep", "1000"]));
    until("unhealthy", || (sandbox.inspect("web", ".State.Health.Status") == "unhealthy").then_some(()));
    let health = sandbox.details("web")["State"]["Health"].clone();
    assert_eq!(health["Log"][0]["ExitCode"], -1, "{health}");
    sandbox.ok(["rm", "-f", "web"]);
    sandbox.check_clean();
}

#[test]
fn a_log_is_as_long_as_it_may_be() {
    let Some((sandbox, [busybox])) = Sandbox::with(["busybox:latest"]) else { return };
    let write = "i=0; while [ $i -lt 6000 ]; do echo $i of many lines that fill the log; i=$((i + 1)); done";
    let flags = ["--log-opt", "max-size=64k", "--log-opt", "max-file=3"];
    let words = ["run", "--name", "web"].into_iter().chain(flags).chain([busybox.as_str(), "sh", "-c", write]);
    sandbox.ok(words);
    let path = sandbox.inspect("web", ".LogPath");
    let folder = std::path::Path::new(&path).parent().expect("a folder");
    let logs = fs::read_dir(folder).expect("listed").filter_map(|entry| {
        let entry = entry.expect("an entry");
        entry.file_name().to_str()?.starts_with("log").then(|| entry.metadata().expect("a file").len())
    });
    let sizes: Vec<u64> = logs.collect();
    assert_eq!(sizes.len(), 3, "{sizes:?}");
    assert!(sizes.iter().all(|size| *size <= 64 << 10), "{sizes:?}");
    assert!(sandbox.ok(["logs", "web"]).ends_with("5999 of many lines that fill the log\n"));
    assert_eq!(sandbox.ok(["logs", "--tail", "1", "web"]), "5999 of many lines that fill the log\n");
    sandbox.ok(["run", "--name", "none", "--log-driver", "none", &busybox, "echo", "x"]);
    assert!(sandbox.fails(1, ["logs", "none"]).contains("does not support reading"));
    assert!(sandbox.fails(125, ["run", "--log-driver", "syslog", &busybox, "true"]).contains("syslog"));
}

/// Times stood in the middle of lines that came in parts, and `--tail` counted the parts.
#[test]
fn a_line_that_comes_in_parts_has_one_time() {
    let Some((sandbox, [busybox])) = Sandbox::with(["busybox:latest"]) else { return };
    let script = "echo first; for part in one two three; do printf $part; sleep 0.2; done; echo";
    sandbox.ok(["run", "--name", "web", &busybox, "sh", "-c", script]);
    let stamped = sandbox.ok(["logs", "-t", "web"]);
    let lines: Vec<&str> = stamped.lines().map(|line| line.split_once(' ').expect("a time").1).collect();
    assert_eq!(lines, ["first", "onetwothree"]);
    assert_eq!(sandbox.ok(["logs", "--tail", "1", "web"]), "onetwothree\n");
    assert_eq!(sandbox.ok(["logs", "--details", "--tail", "1", "web"]), " onetwothree\n");
}

#[test]
fn settings_of_namespaces_reach_the_program() {
    let Some((sandbox, [busybox, wasm])) = Sandbox::with(["busybox:latest", "hello:wasm"]) else { return };
    let shell = |flags: &[&str], script: &str| {
        let words = ["run", "--rm"].iter().chain(flags).copied();
        sandbox.ok(words.chain([busybox.as_str(), "sh", "-c", script]))
    };
    assert_eq!(shell(&["--shm-size", "1m"], "df -k /dev/shm | tail -n 1 | awk '{print $2}'"), "1024\n");
    assert_eq!(shell(&["--sysctl", "kernel.msgmax=4096"], "cat /proc/sys/kernel/msgmax"), "4096\n");
    assert_eq!(shell(&["--oom-score-adj", "500"], "cat /proc/self/oom_score_adj"), "500\n");
    assert_eq!(shell(&["--domainname", "example"], "cat /proc/sys/kernel/domainname"), "example\n");
    let host = |name: &str| fs::read_link(format!("/proc/self/ns/{name}")).expect("a namespace");
    for (flag, name) in [("--ipc", "ipc"), ("--uts", "uts")] {
        let inside = shell(&[flag, "host"], &format!("readlink /proc/self/ns/{name}"));
        assert_eq!(inside.trim_end(), host(name).to_str().expect("text"), "{flag}");
    }
    for flags in [["--ipc", "container:x"], ["--sysctl", "x"], ["--oom-score-adj", "2000"], ["--shm-size", "x"]] {
        let words = ["run", "--rm"].into_iter().chain(flags).chain([busybox.as_str(), "true"]);
        assert!(sandbox.fails(125, words).contains(flags[0]), "{flags:?}");
    }
    assert!(sandbox.fails(125, ["run", "--shm-size", "1m", &wasm]).contains("--shm-size"));
}

#[test]
fn root_has_the_groups_and_the_home_that_the_image_says() {
    let Some((sandbox, [busybox])) = Sandbox::with(["busybox:latest"]) else { return };
    fs::create_dir(sandbox.work().join("etc")).expect("a folder");
    sandbox.file("etc/passwd", "root:x:0:0::/home/of/root:/bin/sh\n");
    sandbox.file("etc/group", "root:x:0:\nwheel:x:10:root\nextra:x:77:\n");
    for (flags, groups) in [(&[][..], "0(root),10(wheel)"), (&["--group-add", "extra"], "0(root),10(wheel),77(extra)")]
    {
        let words = ["create", "--name", "web"].iter().chain(flags).copied();
        sandbox.ok(words.chain([busybox.as_str(), "sh", "-c", "id; echo $HOME"]));
        sandbox.ok(["cp", "etc", "web:/"]);
        let shown = sandbox.ok(["start", "-a", "web"]);
        assert!(shown.ends_with(&format!("groups={groups}\n/home/of/root\n")), "{shown}");
        sandbox.ok(["rm", "web"]);
    }
}

#[test]
fn what_does_not_matter_keeps_nobody_from_running() {
    let Some((sandbox, [busybox])) = Sandbox::with(["busybox:latest"]) else { return };
    let gone = sandbox.work().join("gone");
    fs::create_dir(&gone).expect("a folder");
    let words = format!("cd {0} && rmdir {0} && exec \"$@\"", gone.display());
    let mut command = std::process::Command::new("sh");
    let amphora = sandbox.command(["run", "--rm", "--network", "none", busybox.as_str(), "echo", "ran"]);
    command.args(["-c", &words, "sh"]).arg(amphora.get_program()).args(amphora.get_args());
    let ended = crate::session::Session::start(command).wait();
    assert_eq!((ended.code, ended.stdout.as_str()), (Some(0), "ran\n"), "{ended}");
    // systemd's images say this.
    sandbox.ok(["run", "-d", "--name", "web", "--stop-signal", "SIGRTMAX-3", &busybox, "sleep", "1000"]);
    sandbox.ok(["kill", "-s", "RTMAX-2", "web"]);
    sandbox.ok(["rm", "-f", "web"]);
}

/// A link to nothing at a mount point ended the start.
#[test]
fn a_mount_point_behind_a_link_to_nothing_is_made() {
    let Some((sandbox, [busybox])) = Sandbox::with(["busybox:latest"]) else { return };
    let file = sandbox.file("file", "text");
    for (link, target, place, found) in [
        ("/made/folder", "/link", "/link/x", Some("/made/folder/x")),
        ("../other/file", "/link", "/link", Some("/other/file")),
        ("two", "/link", "/link/x", Some("/two/x")),
        ("link", "/link", "/link", None),
        ("/proc/self/fd/0/x", "/link", "/link", None),
    ] {
        symlink(link, sandbox.work().join("link")).expect("a link");
        let volume = format!("{file}:{place}");
        sandbox.ok(["create", "--name", "web", "-v", &volume, &busybox, "cat", found.unwrap_or("/link")]);
        sandbox.ok(["cp", "link", &format!("web:{target}")]);
        let ended = sandbox.run(["start", "-a", "web"]);
        match found {
            Some(_) => assert_eq!((ended.code, ended.stdout.as_str()), (Some(0), "text"), "{link}: {ended}"),
            None => assert_eq!(ended.code, Some(125), "{link}: {ended}"),
        }
        sandbox.ok(["rm", "web"]);
        fs::remove_file(sandbox.work().join("link")).expect("removed");
    }
}

/// Of an image that says how, a container is looked after unless its user says otherwise.
#[test]
fn an_image_says_how_its_containers_are_well() {
    let Some((sandbox, [busybox])) = Sandbox::with(["busybox:latest"]) else { return };
    let becomes = |name: &str, wanted: &str| {
        until(wanted, || (sandbox.inspect(name, ".State.Health.Status") == wanted).then_some(()));
    };
    let flags = ["--health-cmd", "test -e /well", "--health-interval", "20ms", "--health-retries", "1"];
    let words = ["run", "-d", "--name", "first"].into_iter().chain(flags);
    sandbox.ok(words.chain([busybox.as_str(), "sleep", "1000"]));
    sandbox.ok(["commit", "first", "checked:1"]);
    let test = sandbox.ok(["inspect", "-f", "{{json .Config.Healthcheck.Test}}", "checked:1"]);
    assert_eq!(test, "[\"CMD-SHELL\",\"test -e /well\"]\n");
    sandbox.ok(["run", "-d", "--name", "second", "checked:1"]);
    becomes("second", "unhealthy");
    sandbox.ok(["exec", "second", "touch", "/well"]);
    assert_eq!(sandbox.ok(["wait", "--condition", "healthy", "second"]), "-1\n");
    sandbox.ok(["run", "-d", "--name", "none", "--no-healthcheck", "checked:1"]);
    assert_eq!(sandbox.details("none")["State"]["Health"], serde_json::Value::Null);
    sandbox.ok(["run", "-d", "--name", "other", "--health-cmd", "true", "checked:1"]);
    becomes("other", "healthy");
    sandbox.ok(["rm", "-f", "first", "second", "none", "other"]);
    sandbox.ok(["rmi", "checked:1"]);
    sandbox.check_clean();
}

#[test]
fn a_device_of_the_host_is_used_and_not_changed() {
    let Some((sandbox, [busybox, wasm])) = Sandbox::with(["busybox:latest", "hello:wasm"]) else { return };
    let devices = ["--device", "/dev/zero:/dev/bus/mine", "--device", "/dev/full"];
    let script = "head -c 3 /dev/bus/mine | od -An -tx1; stat -c %F /dev/bus/mine; echo x > /dev/full; chmod 600 /dev/bus/mine; \
                  touch /dev/bus/mine; mknod /node c 1 5 && head -c 1 /node";
    let words = ["run", "--name", "web"].into_iter().chain(devices).chain([busybox.as_str(), "sh", "-c", script]);
    let ended = sandbox.run(words);
    assert_eq!(ended.stdout, " 00 00 00\ncharacter special file\n", "{ended}");
    for refused in ["No space left", "chmod: /dev/bus/mine: Read-only", "touch: /dev/bus/mine: Read-only"] {
        assert!(ended.stderr.contains(refused), "{refused}: {ended}");
    }
    let shown = sandbox.ok(["inspect", "-f", "{{range .HostConfig.Devices}}{{.PathInContainer}} {{end}}", "web"]);
    assert_eq!(shown, "/dev/bus/mine /dev/full \n");
    for (device, said) in [
        ("/etc/passwd", "no device"),
        ("/nowhere", "/nowhere"),
        ("/dev/null:/dev/x:rx", "rwm"),
        ("v.com/x=y", "v.com/x=y"),
    ] {
        let message = sandbox.refuses(["run", "--rm", "--device", device, &busybox, "true"]);
        assert!(message.contains(said), "{device}: {message}");
    }
    assert!(sandbox.refuses(["run", "--rm", "--device", "/dev/null", &wasm]).contains("--device"));
    sandbox.ok(["rm", "web"]);
    sandbox.check_clean();
}

/// From outside, of both kinds: a program needs no shell for that.
#[test]
fn a_port_tells_whether_a_container_is_well() {
    let Some((sandbox, [busybox])) = Sandbox::with(["busybox:latest"]) else { return };
    let health = ["--health-interval", "20ms", "--health-retries", "2", "--health-timeout", "60s"];
    let becomes = |name: &str, wanted: &str| {
        until(wanted, || (sandbox.inspect(name, ".State.Health.Status") == wanted).then_some(()));
    };
    let serve = "mkdir /www; echo well >/www/well; httpd -p 127.0.0.1:8080 -h /www; sleep 1000";
    for (name, flags) in [("web", ["--health-http", "8080/well"]), ("tcp", ["--health-tcp", "8080"])] {
        let words = ["run", "-d", "--name", name].into_iter().chain(health).chain(flags);
        sandbox.ok(words.chain([busybox.as_str(), "sh", "-c", serve]));
        becomes(name, "healthy");
    }
    sandbox.ok(["exec", "web", "rm", "/www/well"]);
    becomes("web", "unhealthy");
    let log = sandbox.details("web")["State"]["Health"]["Log"].clone();
    let check = log.as_array().and_then(|checks| checks.last()).expect("a check");
    assert!(check["Output"].as_str().is_some_and(|said| said.contains("404")), "{check}");
    assert_eq!(sandbox.ok(["ps", "--filter", "health=healthy", "--format", "{{.Names}}"]), "tcp\n");
    sandbox.ok(["exec", "tcp", "killall", "httpd"]);
    becomes("tcp", "unhealthy");
    sandbox.ok(["rm", "-f", "web", "tcp"]);
    let function = sandbox.pull("function:latest");
    for (path, status) in [("80/", "healthy"), ("80/trap", "unhealthy")] {
        let words =
            ["run", "-d", "--name", "web", "-p", "127.0.0.1::80", "--health-http", path].into_iter().chain(health);
        sandbox.ok(words.chain([function.as_str()]));
        becomes("web", status);
        sandbox.ok(["rm", "-f", "web"]);
    }
    let refused = sandbox.fails(125, ["run", "--health-tcp", "80", "--health-cmd", "true", &busybox]);
    assert!(refused.contains("one of them"), "{refused}");
    sandbox.check_clean();
}
