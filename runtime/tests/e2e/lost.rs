//! Nothing that was asked for, and nothing that is known, is lost: ends, records, output, ids.

use std::{
    fs,
    io::{Read, Write},
    os::unix::fs::PermissionsExt,
    process::{Command, Stdio},
};

use serde_json::{Value, json};

use crate::{
    sandbox::{KINDS, Sandbox, binary},
    session::{Session, until},
};

/// A field that a newer version might add, in a container's spec.
fn written_by_a_newer_version(sandbox: &Sandbox, name: &str, change: impl FnOnce(&mut Value)) -> String {
    let id = sandbox.inspect(name, ".Id");
    let path = sandbox.root().join("containers").join(&id).join("spec.json");
    let mut spec: Value = serde_json::from_slice(&fs::read(&path).expect("a spec")).expect("JSON");
    change(&mut spec);
    // In place, as its supervisor holds it locked.
    fs::write(&path, spec.to_string()).expect("a spec");
    id
}

/// The command with its standard output on a pipe whose reader has gone, or on a full disk.
fn unheard(sandbox: &Sandbox, arguments: &[&str], full: bool) -> (Option<i32>, String) {
    let (reader, writer) = std::io::pipe().expect("a pipe");
    drop(reader);
    let mut command = sandbox.command(arguments);
    match full {
        true => command.stdout(fs::OpenOptions::new().write(true).open("/dev/full").expect("/dev/full")),
        false => command.stdout(writer),
    };
    let output = command.stderr(Stdio::piped()).spawn().expect("amphora").wait_with_output().expect("its end");
    (output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned())
}

/// Its output was lost on a full disk, and `run` told of success.
#[test]
fn output_that_cannot_be_passed_on_is_no_success() {
    let Some((sandbox, [busybox])) = Sandbox::with(["busybox:latest"]) else { return };
    sandbox.ok(["run", "-d", "--name", "speaker", &busybox, "sleep", "1000"]);
    for words in [&["run", "--rm", &busybox][..], &["run", "--name", "kept", &busybox], &["exec", "speaker"]] {
        let shell = |script: &str| unheard(&sandbox, &[words, &["sh", "-c", script]].concat(), true);
        let (code, said) = shell("echo lost");
        assert!(code == Some(125) && said.contains("No space left"), "{words:?}: {code:?} {said}");
        if words.contains(&"kept") {
            assert_eq!(sandbox.inspect("kept", ".State.ExitCode"), "0", "the program's own is kept");
            continue;
        }
        assert_eq!(shell("echo lost; exit 3").0, Some(3), "{words:?}: its own failure");
        assert_eq!(shell("echo heard >&2").0, Some(0), "{words:?}");
    }
}

#[test]
fn a_running_container_of_a_newer_version_is_listed_and_spared_by_prune() {
    let Some((sandbox, [sleep])) = Sandbox::with(["sleep:linux"]) else { return };
    sandbox.ok(["volume", "create", "kept"]);
    sandbox.ok(["run", "-d", "--name", "newer", "-v", "kept:/kept", &sleep, "1000"]);
    written_by_a_newer_version(&sandbox, "newer", |spec| {
        spec["format"] = json!(99);
        spec["of_a_newer_version"] = json!({"x": 1});
    });
    assert_eq!(sandbox.ok(["ps", "--format", "{{.Names}} {{.State}}"]), "newer running\n");
    let inspected = sandbox.run(["inspect", "newer"]);
    assert!(inspected.code == Some(0) && inspected.stderr.contains("newer version"), "{inspected}");
    let id = written_by_a_newer_version(&sandbox, "newer", |spec| spec["limits"] = json!("another form"));
    let listed = sandbox.run(["ps", "--format", "{{.ID}} {{.Names}} {{.State}}"]);
    assert_eq!(listed.stdout, format!("{} newer running\n", &id[..12]));
    assert!(listed.stderr.contains("a newer version of amphora wrote it"), "{listed}");
    for prune in [&["system", "prune", "-f"][..], &["system", "prune", "-a", "-f"], &["volume", "prune", "-a", "-f"]] {
        let pruned = sandbox.run(prune);
        assert_eq!(pruned.code, Some(0), "{pruned}");
    }
    assert!(sandbox.root().join("containers").join(&id).join("spec.json").exists());
    assert_eq!(sandbox.ok(["volume", "ls", "-q"]), "kept\n");
    assert_eq!(sandbox.ok(["images", "-q"]).lines().count(), 1);
    sandbox.ok(["rm", "-f", "newer"]);
    assert_eq!(sandbox.ok(["ps", "-a", "-q"]), "");
    sandbox.check_clean();
}

#[test]
fn what_runs_is_not_pruned_though_its_other_records_are_elsewhere() {
    let Some((sandbox, [sleep])) = Sandbox::with(["sleep:linux"]) else { return };
    sandbox.ok(["run", "-d", "--name", "runs", &sleep, "1000"]);
    let other = sandbox.work().join("other");
    let elsewhere = |arguments: &[&str]| {
        let mut command = Command::new(binary());
        command.arg("--root").arg(sandbox.root()).arg("--runroot").arg(&other).args(arguments);
        Session::start(command).wait()
    };
    assert_eq!(elsewhere(&["system", "prune", "-f"]).code, Some(0));
    let removed = elsewhere(&["rm", "runs"]);
    assert!(removed.code == Some(1) && removed.stderr.contains("--runroot"), "{removed}");
    assert_eq!(sandbox.inspect("runs", ".State.Running"), "true");
    sandbox.ok(["rm", "-f", "runs"]);
}

/// It was created, `stop` had stopped it, and it ran on.
#[test]
fn what_runs_without_its_record_is_said_to_run_and_not_to_be_within_reach() {
    let Some((sandbox, [sleep])) = Sandbox::with(["sleep:linux"]) else { return };
    sandbox.ok(["run", "-d", "--name", "runs", &sleep, "1000"]);
    let (running, aside) = (sandbox.runroot().join("running"), sandbox.runroot().join("aside"));
    fs::rename(&running, &aside).expect("the records of runs");
    assert_eq!(sandbox.ok(["ps", "--format", "{{.Names}} {{.Status}}"]), "runs Up (out of reach)\n");
    for words in [
        &["stop", "runs"][..],
        &["kill", "runs"],
        &["wait", "runs"],
        &["start", "runs"],
        &["rm", "runs"],
        &["rm", "-f", "runs"],
    ] {
        let refused = sandbox.run(words);
        assert!(refused.code != Some(0) && refused.stderr.contains("--runroot"), "{words:?}: {refused}");
    }
    // A supervisor that is told to end ends its container.
    let told = sandbox.run(["stop", "runs"]).stderr;
    let pid = told.rsplit_once("(kill ").and_then(|(_, rest)| rest.split(')').next()?.parse().ok()).expect("a pid");
    fs::create_dir_all(&running).expect("the folder");
    fs::rename(&aside, &running).expect("the records of runs");
    nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), nix::sys::signal::Signal::SIGTERM).expect("a supervisor");
    assert_eq!(sandbox.ok(["wait", "runs"]), "143\n");
    sandbox.ok(["rm", "runs"]);
    sandbox.check_clean();
}

/// The reader of its output decided when it had ended.
#[test]
fn an_end_is_known_though_nobody_reads_what_was_written() {
    let Some((sandbox, [busybox])) = Sandbox::with(["busybox:latest"]) else { return };
    for flags in [&["--name", "unread"][..], &["--rm", "--name", "unread", "--user", "1"]] {
        if flags.contains(&"--user") && !sandbox.is_root() {
            continue;
        }
        let (mut reader, writer) = std::io::pipe().expect("a pipe");
        let words: Vec<&str> =
            [&["run"], flags, &["--timeout", "200ms", &busybox, "yes", "0123456789012345678901234567890"]].concat();
        let mut command = sandbox.command(&words);
        let mut run = command.stdout(writer).stderr(Stdio::null()).spawn().expect("amphora");
        drop(command);
        until("its beginning", || (!sandbox.ok(["ps", "-q"]).is_empty()).then_some(()));
        until("its end", || sandbox.ok(["ps", "-q"]).is_empty().then_some(()));
        until("a container", || (sandbox.ok(["ps", "-aq"]).is_empty() == flags.contains(&"--rm")).then_some(()));
        if !flags.contains(&"--rm") {
            assert_eq!(sandbox.ok(["wait", "unread"]), "124\n");
            sandbox.ok(["stop", "unread"]);
            assert!(sandbox.fails(1, ["start", "unread"]).contains("reader"));
            sandbox.ok(["rm", "unread"]);
        }
        let mut read = Vec::new();
        reader.read_to_end(&mut read).expect("all that was written");
        assert!(read.len() > 64 << 10, "{}", read.len());
        assert_eq!(run.wait().expect("its end").code(), Some(124));
    }
    sandbox.check_clean();
}

/// While it was being started, a container was listed with the end that is written beforehand.
#[test]
fn what_is_being_started_has_not_ended() {
    let Some((sandbox, [busybox])) = Sandbox::with(["busybox:latest"]) else { return };
    sandbox.ok(["create", "--name", "starting", &busybox, "true"]);
    let folder = sandbox.root().join("containers").join(sandbox.inspect("starting", ".Id"));
    fs::write(folder.join("ended.json"), r#"{"presumed":true,"exit_code":255}"#).expect("an end");
    let status = || sandbox.ok(["ps", "-a", "--format", "{{.State}}"]);
    let lock = fs::File::open(&folder).expect("its folder");
    rustix::fs::flock(&lock, rustix::fs::FlockOperation::LockExclusive).expect("its lock");
    assert_eq!(status(), "created\n");
    drop(lock);
    assert_eq!(status(), "exited\n");
    assert_eq!(sandbox.ok(["wait", "starting"]), "255\n");
}

/// What it had started in the container was reaped by nobody.
#[test]
fn a_stopped_exec_holds_up_no_end() {
    let Some((sandbox, [busybox])) = Sandbox::with(["busybox:latest"]) else { return };
    for end in [&["stop", "-t", "0", "held"][..], &["rm", "-f", "held"], &["wait", "held"]] {
        let mut words = vec!["run", "-d", "--name", "held"];
        if end[0] == "wait" {
            words.extend(["--timeout", "3s"]);
        }
        sandbox.ok(words.into_iter().chain([busybox.as_str(), "sh", "-c", "sleep 1000"]));
        let exec = sandbox.start(["exec", "held", "sh", "-c", "echo begun; exec sleep 1000"]);
        exec.until_printed("begun\n");
        exec.signal(nix::sys::signal::Signal::SIGSTOP);
        sandbox.ok(end);
        assert_eq!(exec.wait().code, Some(137), "{end:?}");
        sandbox.ok(["rm", "-f", "held"]);
    }
    sandbox.check_clean();
}

#[test]
fn wait_gives_the_code_of_a_container_that_is_removed_when_it_ends() {
    let Some((sandbox, [busybox])) = Sandbox::with(["busybox:latest"]) else { return };
    sandbox.ok(["run", "-d", "--rm", "--name", "brief", "-i", &busybox, "sh", "-c", "sleep 0.5; exit 3"]);
    assert_eq!(sandbox.ok(["wait", "brief"]), "3\n");
}

#[test]
fn an_end_that_cannot_be_written_down_is_known_all_the_same() {
    let Some((sandbox, [busybox])) = Sandbox::with(["busybox:latest"]) else { return };
    sandbox.ok(["run", "-d", "--name", "brief", &busybox, "sh", "-c", "until [ -e /go ]; do sleep 0.05; done; exit 3"]);
    let id = sandbox.inspect("brief", ".Id");
    // A record cannot replace a folder: the writing fails, as on a full disk.
    let ended = sandbox.root().join("containers").join(&id).join("ended.json");
    fs::remove_file(&ended).expect("what is presumed as long as it runs");
    fs::create_dir(&ended).expect("a folder in the way");
    let waiting = sandbox.start(["wait", "brief"]);
    sandbox.ok(["exec", "brief", "touch", "/go"]);
    let waited = waiting.wait();
    assert_eq!(waited.stdout, "3\n", "{waited}");
    assert_eq!(sandbox.inspect("brief", ".State.ExitCode"), "3");
    assert_eq!(sandbox.inspect("brief", ".State.Error"), "");
    fs::remove_dir(&ended).expect("the folder");
    sandbox.ok(["rm", "brief"]);
}

#[test]
fn every_name_is_done_though_nobody_reads_and_a_full_disk_is_an_error() {
    let Some((sandbox, [hello])) = Sandbox::with(["hello:linux"]) else { return };
    for (full, code) in [(false, Some(0)), (true, Some(1))] {
        for name in ["one", "two", "three"] {
            sandbox.ok(["create", "--name", name, &hello]);
        }
        for words in [
            &["ps", "-a"][..],
            &["images"],
            &["inspect", "one"],
            &["info"],
            &["version"],
            &["volume", "ls"],
            &["start", "one"],
            &["wait", "one"],
            &["image", "explain", &hello],
            &["--help"],
            &["rm", "one", "two", "three"],
        ] {
            let (ended, said) = unheard(&sandbox, words, full);
            assert_eq!(ended, code, "{words:?}: {said}");
            assert!(!full || said.contains("No space left"), "{words:?}: {said}");
        }
        assert_eq!(sandbox.ok(["ps", "-a", "-q"]), "");
    }
}

#[test]
fn an_id_that_cannot_be_printed_is_told() {
    let Some((sandbox, [sleep])) = Sandbox::with(["sleep:linux"]) else { return };
    for (full, code) in [(false, Some(0)), (true, Some(125))] {
        let (ended, said) = unheard(&sandbox, &["run", "-d", "--name", "web", &sleep, "1000"], full);
        assert_eq!(ended, code, "{said}");
        let id = sandbox.inspect("web", ".Id");
        assert!(said.contains(&id) && said.contains("runs"), "{said}");
        sandbox.ok(["rm", "-f", "web"]);
    }
}

#[test]
fn the_hosts_files_are_out_of_a_programs_reach_though_they_are_its_streams() {
    let Some((sandbox, [busybox])) = Sandbox::with(["busybox:latest"]) else { return };
    sandbox.ok(["run", "-d", "--name", "web", &busybox, "sleep", "1000"]);
    let secret = sandbox.file("secret", "the input\n");
    let log = sandbox.work().join("log");
    let attack = "cat; \
        chmod 6755 /proc/self/fd/1 2>/dev/null; chown 7 /proc/self/fd/1 2>/dev/null; \
        truncate -s 0 /proc/self/fd/1 2>/dev/null; \
        ls /proc/self/fd/0/.. >&2; echo done";
    for words in [
        &["run", "--rm", "-i", &busybox, "sh", "-c", attack][..],
        &["run", "--rm", "-i", "--read-only", "--cap-drop", "ALL", &busybox, "sh", "-c", attack],
        &["run", "-i", &busybox, "sh", "-c", attack],
        &["exec", "-i", "web", "sh", "-c", attack],
    ] {
        fs::write(&log, "before\n").expect("a log");
        let mode = fs::metadata(&log).expect("a log").permissions().mode();
        let append = fs::OpenOptions::new().append(true).open(&log).expect("a log");
        let input = fs::OpenOptions::new().read(true).write(true).open(&secret).expect("a file");
        let mut command = sandbox.command(words);
        command.stdin(input).stdout(append).stderr(Stdio::piped());
        let mut amphora = command.spawn().expect("amphora");
        let mut said = String::new();
        amphora.stderr.take().expect("piped").read_to_string(&mut said).expect("text");
        assert_eq!(amphora.wait().expect("its end").code(), Some(0), "{words:?}: {said}");
        assert_eq!(fs::read_to_string(&secret).expect("the input"), "the input\n", "{words:?}");
        assert_eq!(fs::read_to_string(&log).expect("the log"), "before\nthe input\ndone\n", "{words:?}: {said}");
        assert_eq!(fs::metadata(&log).expect("a log").permissions().mode(), mode, "{words:?}");
        assert!(!said.contains("before"), "{words:?}: {said}");
    }
    // A folder as the input leads nowhere.
    let folder = fs::File::open("/").expect("a folder");
    let mut command = sandbox.command(["run", "--rm", "-i", &busybox, "ls", "/proc/self/fd/0/.."]);
    let output = command.stdin(folder).output().expect("amphora");
    assert_ne!(output.status.code(), Some(0), "{output:?}");
    assert!(output.stdout.is_empty(), "{output:?}");
    sandbox.ok(["rm", "-f", "web"]);
}

#[test]
fn the_hosts_null_device_is_out_of_a_programs_reach_though_it_is_its_stream() {
    let Some((sandbox, [busybox])) = Sandbox::with(["busybox:latest"]) else { return };
    sandbox.ok(["run", "-d", "--name", "web", &busybox, "sleep", "1000"]);
    let changed = || fs::metadata("/dev/null").expect("a null device").modified().expect("a time");
    let before = changed();
    let touch = "for fd in 0 1 2; do touch -d 2001-01-01 /proc/self/fd/$fd; done; echo x >&1";
    for words in [
        &["run", "--rm", "-i", &busybox, "sh", "-c", touch][..],
        &["run", "-d", &busybox, "sh", "-c", touch],
        &["exec", "web", "sh", "-c", touch],
        &["exec", "-d", "web", "sh", "-c", touch],
    ] {
        let mut command = sandbox.command(words);
        let status = command.stdout(Stdio::null()).stderr(Stdio::null()).status().expect("amphora");
        assert_eq!(status.code(), Some(0), "{words:?}");
        assert_eq!(changed(), before, "{words:?}");
    }
    sandbox.ok(["rm", "-f", "web"]);
}

#[test]
fn another_user_than_root_can_open_his_streams_by_their_names() {
    let Some((sandbox, [busybox])) = Sandbox::with(["busybox:latest"]) else { return };
    sandbox.ok(["run", "-d", "--name", "web", &busybox, "sleep", "1000"]);
    // Where only one id is mapped there is no other user.
    let id = sandbox.run(["run", "--rm", "-u", "33", &busybox, "id", "-u"]);
    if id.code == Some(0) {
        let write = "echo out > /dev/stdout; echo err > /dev/stderr";
        for words in [
            &["run", "--rm", "-u", "33", &busybox, "sh", "-c", write][..],
            &["run", "-u", "33", &busybox, "sh", "-c", write],
            &["exec", "-u", "33", "web", "sh", "-c", write],
        ] {
            let ended = sandbox.run(words);
            assert_eq!((ended.stdout.as_str(), ended.stderr.as_str()), ("out\n", "err\n"), "{words:?}: {ended}");
        }
    }
    sandbox.ok(["rm", "-f", "web"]);
}

#[test]
fn an_endless_writer_ends_when_its_reader_goes_in_every_mode() {
    let Some((sandbox, [busybox])) = Sandbox::with(["busybox:latest"]) else { return };
    sandbox.ok(["run", "-d", "--name", "web", &busybox, "sleep", "1000"]);
    for words in [
        &["run", &busybox, "yes"][..],
        &["run", "--rm", &busybox, "yes"],
        &["run", "-t", &busybox, "yes"],
        &["run", "--rm", "-t", &busybox, "yes"],
        &["exec", "web", "yes"],
        &["exec", "-t", "web", "yes"],
    ] {
        let mut amphora = sandbox.command(words).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().expect("amphora");
        let mut stdout = amphora.stdout.take().expect("piped");
        let mut line = [0; 2];
        stdout.read_exact(&mut line).expect("output");
        drop(stdout);
        until(&format!("the end of {words:?}"), || amphora.try_wait().expect("its state"));
    }
    sandbox.ok(["rm", "-f", "web"]);
}

#[test]
fn input_that_is_no_terminal_is_refused_for_one_as_docker_does() {
    let Some((sandbox, [busybox])) = Sandbox::with(["busybox:latest"]) else { return };
    sandbox.ok(["run", "-d", "--name", "web", &busybox, "sleep", "1000"]);
    for words in [
        &["run", "--rm", "-it", &busybox, "cat"][..],
        &["run", "-it", "--name", "refused", &busybox, "cat"],
        &["exec", "-it", "web", "cat"],
    ] {
        let mut command = sandbox.command(words);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut amphora = command.spawn().expect("amphora");
        // It may have ended before anybody reads.
        let _ = amphora.stdin.take().expect("piped").write_all(b"asdf");
        let output = amphora.wait_with_output().expect("its end");
        assert_eq!(output.status.code(), Some(1), "{words:?}: {output:?}");
        assert!(String::from_utf8_lossy(&output.stderr).contains("the input device is not a TTY"), "{output:?}");
    }
    sandbox.ok(["rm", "-f", "web", "refused"]);
}

#[test]
fn exec_in_the_background_passes_on_the_programs_own_flags_and_tells_of_failure() {
    let Some((sandbox, [busybox])) = Sandbox::with(["busybox:latest"]) else { return };
    sandbox.ok(["run", "-d", "--name", "web", &busybox, "sleep", "1000"]);
    sandbox.ok(["exec", "-di", "web", "touch", "-d", "2020-01-01 00:00", "/dated"]);
    let dated =
        || (sandbox.run(["exec", "web", "stat", "-c", "%y", "/dated"]).stdout).starts_with("2020-01-01").then_some(());
    until("the file", dated);
    assert!(sandbox.fails(127, ["exec", "-d", "web", "no-such-program"]).contains("no-such-program"));
    sandbox.fails(126, ["exec", "-d", "web", "/etc"]);
    for flags in [&["-dt"][..], &["-dit"], &["--detach=true", "-t"]] {
        let words: Vec<&str> =
            [&["exec"], flags, &["web", "sh", "-c", "rm -f /tty; tty > /new; mv /new /tty"]].concat();
        sandbox.ok(&words);
        until("a terminal", || {
            sandbox.run(["exec", "web", "cat", "/tty"]).stdout.starts_with("/dev/pts/").then_some(())
        });
        sandbox.ok(["exec", "web", "rm", "/tty"]);
    }
    sandbox.ok(["rm", "-f", "web"]);
}

#[test]
fn a_program_that_exec_leaves_in_the_background_holds_nobody_up() {
    let Some((sandbox, [busybox])) = Sandbox::with(["busybox:latest"]) else { return };
    sandbox.ok(["run", "-d", "--name", "web", &busybox, "sleep", "1000"]);
    let out = fs::File::create(sandbox.work().join("out")).expect("a file");
    let mut command = sandbox.command(["exec", "web", "sh", "-c", "sleep 1000 & echo well"]);
    let mut amphora = command.stdout(out).spawn().expect("amphora");
    until("the end of exec", || amphora.try_wait().expect("its state"));
    assert_eq!(fs::read_to_string(sandbox.work().join("out")).expect("its output"), "well\n");
    sandbox.ok(["rm", "-f", "web"]);
}

#[test]
fn an_ambiguous_prefix_is_an_error_for_rm_and_inspect() {
    let Some((sandbox, [hello])) = Sandbox::with(["hello:linux"]) else { return };
    let mut ids: Vec<String> = Vec::new();
    // With so many ids two begin alike.
    let prefix = loop {
        let id = sandbox.ok(["create", &hello]).trim_end().to_owned();
        match ids.iter().find(|other| other[..1] == id[..1]) {
            Some(_) => break id[..1].to_owned(),
            None => ids.push(id),
        }
    };
    let before = sandbox.ok(["ps", "-aq"]);
    assert!(sandbox.fails(1, ["rm", "-f", &prefix]).contains("more than one"));
    assert!(sandbox.fails(1, ["inspect", &prefix]).contains("more than one"));
    assert_eq!(sandbox.ok(["ps", "-aq"]), before);
}

#[test]
fn the_programs_code_is_kept_and_nothing_is_left_however_few_descriptors_there_are() {
    let Some((sandbox, [busybox])) = Sandbox::with(["busybox:latest"]) else { return };
    let mut codes = Vec::new();
    for limit in (3..60).step_by(2) {
        let mut command = Command::new("sh");
        command.arg("-c").arg(format!("ulimit -n {limit} && exec \"$@\"")).arg("sh").arg(binary());
        command.arg("--root").arg(sandbox.root()).arg("--runroot").arg(sandbox.runroot());
        command.args(["run", "--rm", "--network", "none", &busybox, "sh", "-c", "exit 3"]).stdin(Stdio::null());
        let ended = Session::start(command).wait();
        assert!(matches!(ended.code, Some(3 | 125 | 126 | 127)), "{limit}: {ended}");
        codes.push(ended.code);
        assert_eq!(sandbox.ok(["ps", "-aq"]), "", "{limit}: {ended}");
        let check = sandbox.run(["system", "check"]);
        assert!(check.code == Some(0), "{limit}: {ended}\n{check}");
    }
    assert_eq!(codes.last(), Some(&Some(3)));
}

#[test]
fn labels_forge_no_rows_and_errors_command_no_terminal() {
    let Some((sandbox, [busybox])) = Sandbox::with(["busybox:latest"]) else { return };
    let hostile = "a=\x1b]0;x\x07\nforged row\u{9b}2J";
    sandbox.ok(["create", "--name", "hostile", "--label", hostile, &busybox]);
    for format in ["{{.Labels}}", "table {{.Labels}}", "json"] {
        let rows = sandbox.ok(["ps", "-a", "--format", format]);
        assert!(rows.chars().all(|c| c == '\n' || !c.is_control()), "{format}: {rows:?}");
        assert!(!rows.contains("\nforged"), "{format}: {rows:?}");
    }
    let shown = sandbox.ok(["inspect", "hostile"]);
    assert!(shown.chars().all(|c| c == '\n' || !c.is_control()), "{shown:?}");
    assert_eq!(sandbox.details("hostile")["Config"]["Labels"]["a"], hostile[2..]);
    let error = sandbox.fails(127, ["run", "--rm", &busybox, "\x1b[2Jno\u{9b}such"]);
    assert!(error.chars().all(|c| c == '\n' || !c.is_control()), "{error:?}");
}

#[test]
fn processor_time_that_the_compiler_used_is_not_the_programs() {
    let Some(sandbox) = Sandbox::new() else { return };
    for tag in KINDS {
        let image = sandbox.pull(&format!("hello:{tag}"));
        sandbox.ok(["run", "--name", "brief", "--ulimit", "cpu=1:2", &image]);
        assert_eq!(sandbox.inspect("brief", ".State.LimitHit"), "", "{tag}");
        sandbox.ok(["rm", "brief"]);
    }
}

#[test]
fn what_import_is_asked_to_set_is_set_or_refused() {
    let Some(sandbox) = Sandbox::new() else { return };
    let archive = sandbox.work().join("root.tar");
    fs::create_dir(sandbox.work().join("root")).expect("a folder");
    let packed = Command::new("tar").arg("-cf").arg(&archive).arg("-C").arg(sandbox.work()).arg("root").status();
    assert!(packed.expect("tar").success());
    sandbox.ok(["import", "-m", "why it is here", "root.tar", "made:1"]);
    assert_eq!(sandbox.ok(["image", "inspect", "--format", "{{.Comment}}", "made:1"]), "why it is here\n");
    sandbox.file("a.wat", "(module (memory (export \"memory\") 1) (func (export \"_start\")))");
    for flags in [&["-m", "why"][..], &["-c", "ENV A=b"]] {
        let words: Vec<&str> = ["import"].iter().chain(flags).chain(&["a.wat", "made:2"]).copied().collect();
        assert!(sandbox.fails(1, &words).contains("no place"), "{flags:?}");
    }
}

#[test]
fn a_thread_that_a_limit_withholds_from_the_engine_is_a_sentence_and_no_panic() {
    let Some(sandbox) = Sandbox::new() else { return };
    if !sandbox.can_limit(&["--pids-limit", "7"]) {
        return;
    }
    for tag in ["wasm", "component"] {
        let cat = sandbox.pull(&format!("cat:{tag}"));
        // Compiled with as many threads as it takes.
        sandbox.ok(["run", "--rm", &cat]);
        let mut command = sandbox.command(["run", "--name", "brief", "-i", "--pids-limit", "1", &cat]);
        command.stdin(Stdio::piped());
        let mut session = Session::start(command);
        session.feed(b"x");
        let ended = session.wait();
        assert!(ended.stderr.starts_with("amphora: ") && ended.stderr.contains("thread"), "{tag}: {ended}");
        assert!(!ended.stderr.contains("panicked"), "{tag}: {ended}");
        assert_eq!((ended.code, ended.stderr.lines().count()), (Some(125), 1), "{tag}: {ended}");
        assert_eq!(sandbox.inspect("brief", ".State.LimitHit"), "pids", "{tag}");
        sandbox.ok(["rm", "brief"]);
    }
}
