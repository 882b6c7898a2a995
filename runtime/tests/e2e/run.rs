//! What a program is given: arguments, environment, streams, user, place.

use std::process::Stdio;

use crate::{
    sandbox::{KINDS, Sandbox},
    session::Session,
};

#[test]
fn arguments_reach_the_program_and_argv0_names_it() {
    let Some(sandbox) = Sandbox::new() else { return };
    for (tag, argv0) in [("linux", "/args"), ("wasm", "args"), ("component", "args")] {
        let image = sandbox.pull(&format!("args:{tag}"));
        let said = sandbox.ok(["run", "--rm", &image, "a", "b c", "", "é", "--rm"]);
        let given: Vec<&str> = said.lines().filter(|line| line.starts_with("argv[")).collect();
        let expected = ["a", "b c", "", "é", "--rm"];
        let expected = expected.iter().enumerate().map(|(index, word)| format!("argv[{}]={word}", index + 1));
        let expected: Vec<String> = [format!("argv[0]={argv0}")].into_iter().chain(expected).collect();
        assert_eq!(given, expected, "{tag}");
    }
}

#[test]
fn words_after_a_linux_image_replace_its_command_and_entrypoint_replaces_both() {
    let Some((sandbox, [busybox])) = Sandbox::with(["busybox:latest"]) else { return };
    assert_eq!(sandbox.ok(["run", "--rm", &busybox, "echo", "a", "b"]), "a b\n");
    assert_eq!(sandbox.ok(["run", "--rm", "--entrypoint", "/bin/echo", &busybox]), "\n");
    assert_eq!(sandbox.ok(["run", "--rm", "--entrypoint", "echo", &busybox, "x", "y"]), "x y\n");
}

#[test]
fn variables_come_from_flags_and_files_and_never_from_the_caller() {
    let Some(sandbox) = Sandbox::new() else { return };
    let file = sandbox.file("variables", "# comment\nFROM_FILE=1\nBOTH=file\nPASSED_ON\n");
    for tag in KINDS {
        let image = sandbox.pull(&format!("args:{tag}"));
        let mut command = sandbox.command(["run", "--rm", "--env-file", &file, "-e", "BOTH=flag", "-e", "A=b=c d"]);
        command.args([&image]).env("PASSED_ON", "yes").env("NOT_PASSED_ON", "no");
        let said = Session::start(command).wait().stdout;
        for line in ["env FROM_FILE=1", "env BOTH=flag", "env PASSED_ON=yes", "env A=b=c d"] {
            assert!(said.lines().any(|said| said == line), "{tag}: {line} is not in {said}");
        }
        assert!(!said.contains("NOT_PASSED_ON"), "{tag}: {said}");
        assert!(!said.contains("AMPHORA_"), "{tag}: {said}");
        let has_path = said.lines().any(|line| line.starts_with("env PATH="));
        assert_eq!(has_path, tag == "linux", "{tag}: {said}");
    }
}

#[test]
fn the_working_directory_is_where_w_says() {
    let Some(sandbox) = Sandbox::new() else { return };
    for tag in KINDS {
        let image = sandbox.pull(&format!("args:{tag}"));
        let said = sandbox.ok(["run", "--rm", &image]);
        assert!(said.ends_with("cwd=/\n"), "{tag}: {said}");
        let fill = sandbox.pull(&format!("fill:{tag}"));
        let flags = ["run", "--rm", "-v", ".:/some/where", "-w", "/some/where", "--ulimit", "fsize=4096", &fill];
        sandbox.run(flags.iter().copied().chain([format!("by-{tag}").as_str()]));
        assert!(sandbox.work().join(format!("by-{tag}")).is_file(), "{tag}");
    }
    let args = sandbox.image("args:linux");
    let said = sandbox.ok(["run", "--rm", "-w", "/some/where", &args]);
    assert!(said.ends_with("cwd=/some/where\n"), "{said}");
}

#[test]
fn a_missing_working_directory_is_made_for_linux_as_docker_does() {
    let Some((sandbox, [busybox])) = Sandbox::with(["busybox:latest"]) else { return };
    assert_eq!(sandbox.ok(["run", "--rm", "-w", "/not/there/yet", &busybox, "pwd"]), "/not/there/yet\n");
    let message = sandbox.fails(125, ["run", "--rm", "-w", "relative", &busybox, "pwd"]);
    assert!(message.contains("relative") && message.contains("absolute"), "{message}");
}

#[test]
fn exit_codes_are_the_programs_own() {
    let Some(sandbox) = Sandbox::new() else { return };
    for tag in KINDS {
        let image = sandbox.pull(&format!("exit:{tag}"));
        let codes: &[&str] = if tag == "component" { &["0", "1"] } else { &["0", "1", "42", "255"] };
        for code in codes {
            let ended = sandbox.run(["run", "--rm", &image, code]);
            assert_eq!(ended.code.map(|code| code.to_string()).as_deref(), Some(*code), "{tag}: {ended}");
        }
    }
}

#[test]
fn standard_input_reaches_the_program_only_with_i() {
    let Some(sandbox) = Sandbox::new() else { return };
    let text = "line\n".repeat(20_000);
    for tag in KINDS {
        let image = sandbox.pull(&format!("cat:{tag}"));
        for (keep, flags) in [(false, &["--rm", "-i"][..]), (true, &["-i"])] {
            let mut command = sandbox.command(["run"].iter().chain(flags).chain([&image.as_str()]));
            command.stdin(Stdio::piped());
            let mut session = Session::start(command);
            session.feed(text.as_bytes());
            let ended = session.wait();
            assert_eq!(ended.code, Some(0), "{tag}, kept: {keep}: {ended}");
            assert!(ended.stdout == text, "{tag}, kept: {keep}: {} bytes came back", ended.stdout.len());
        }
        let mut command = sandbox.command(["run", "--rm", &image]);
        // Never closed, never written to: a program that had it would wait for ever.
        command.stdin(Stdio::piped());
        let ended = Session::start(command).wait();
        assert_eq!((ended.code, ended.stdout.as_str()), (Some(0), ""), "{tag}");
    }
}

#[test]
fn output_goes_where_the_program_wrote_it() {
    let Some((sandbox, [busybox])) = Sandbox::with(["busybox:latest"]) else { return };
    for flags in [&["--rm"][..], &[]] {
        let words = ["run"].iter().chain(flags).copied();
        let ended = sandbox.run(words.chain([busybox.as_str(), "sh", "-c", "echo out; echo err >&2"]));
        assert_eq!((ended.stdout.as_str(), ended.stderr.as_str()), ("out\n", "err\n"), "{flags:?}");
    }
}

#[test]
fn a_reader_who_goes_away_ends_an_endless_writer() {
    let Some(sandbox) = Sandbox::new() else { return };
    for tag in KINDS {
        let image = sandbox.pull(&format!("spew:{tag}"));
        let mut command = sandbox.command(["run", "--rm", "--timeout", "100s", &image]);
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().expect("amphora");
        drop(child.stdout.take());
        let code = child.wait().expect("its end").code();
        // By SIGPIPE, or with the program's own code for an error of writing.
        assert!(matches!(code, Some(1 | 134 | 141)), "{tag}: {code:?}");
    }
}

#[test]
fn the_user_is_found_in_the_images_own_files() {
    let Some((sandbox, [busybox])) = Sandbox::with(["busybox:latest"]) else { return };
    let id = |user: &str| sandbox.ok(["run", "--rm", "-u", user, &busybox, "sh", "-c", "id -u; id -g; echo $HOME"]);
    assert_eq!(id("0"), "0\n0\n/root\n");
    if sandbox.info("Ids").ends_with("one id") {
        println!("skipped: other users need subordinate ids (newuidmap), which this user has not");
        return;
    }
    assert_eq!(id("user"), "1000\n1000\n/home\n");
    assert_eq!(id("1000"), "1000\n1000\n/home\n");
    assert_eq!(id("1234:5678"), "1234\n5678\n/\n");
    assert_eq!(id("user:root"), "1000\n0\n/home\n");
    let message = sandbox.fails(125, ["run", "--rm", "-u", "nobody-here", &busybox, "id"]);
    assert!(message.contains("nobody-here"), "{message}");
}

#[test]
fn the_host_name_is_the_id_or_what_was_asked_for() {
    let Some((sandbox, [busybox])) = Sandbox::with(["busybox:latest"]) else { return };
    assert_eq!(sandbox.ok(["run", "--rm", "--hostname", "vessel", &busybox, "hostname"]), "vessel\n");
    assert_eq!(sandbox.ok(["run", "--rm", "-h", "v2", &busybox, "sh", "-c", "echo $HOSTNAME"]), "v2\n");
    let said = sandbox.ok(["run", "--name", "own", &busybox, "hostname"]);
    assert_eq!(said.trim_end(), &sandbox.inspect("own", ".Id")[..12]);
}

#[test]
fn a_read_only_root_refuses_writing_but_not_in_mounts() {
    let Some((sandbox, [busybox])) = Sandbox::with(["busybox:latest"]) else { return };
    let flags = ["run", "--rm", "--read-only", "--tmpfs", "/scratch"];
    let script = "echo x > /file && echo root; echo y > /scratch/file && cat /scratch/file";
    let ended = sandbox.run(flags.iter().copied().chain([busybox.as_str(), "sh", "-c", script]));
    assert_eq!(ended.stdout, "y\n", "{ended}");
    assert!(ended.stderr.contains("Read-only file system"), "{ended}");
}

#[test]
fn two_runs_of_an_image_do_not_see_each_others_files() {
    let Some((sandbox, [busybox])) = Sandbox::with(["busybox:latest"]) else { return };
    sandbox.ok(["run", "--name", "first", &busybox, "sh", "-c", "echo x > /etc/mark; rm /etc/group"]);
    let said = sandbox.ok(["run", "--rm", &busybox, "sh", "-c", "ls /etc/mark; ls /etc/group; exit 0"]);
    assert_eq!(said, "/etc/group\n");
}

#[test]
fn the_network_is_none_or_the_hosts() {
    let Some((sandbox, [busybox])) = Sandbox::with(["busybox:latest"]) else { return };
    let interfaces = |flags: &[&str]| -> Vec<String> {
        let words = ["run", "--rm"].iter().chain(flags).copied();
        let text = sandbox.ok(words.chain([busybox.as_str(), "cat", "/proc/net/dev"]));
        text.lines().skip(2).filter_map(|line| Some(line.split_once(':')?.0.trim().to_owned())).collect()
    };
    assert_eq!(interfaces(&[]), ["lo"]);
    assert_eq!(interfaces(&["--network", "none"]), ["lo"]);
    let of_host = std::fs::read_to_string("/proc/net/dev").expect("the host's network");
    assert_eq!(interfaces(&["--network=host"]).len(), of_host.lines().skip(2).count());
}

#[test]
fn a_cidfile_and_labels_are_kept() {
    let Some((sandbox, [hello])) = Sandbox::with(["hello:linux"]) else { return };
    let path = sandbox.work().join("id").display().to_string();
    sandbox.ok(["run", "--name", "labelled", "--cidfile", &path, "--label", "a=b", "--label", "c", &hello]);
    let id = std::fs::read_to_string(&path).expect("the id");
    assert_eq!(id, sandbox.inspect("labelled", ".Id"));
    assert_eq!(sandbox.inspect("labelled", "json .Config.Labels"), r#"{"a":"b","c":""}"#);
    let message = sandbox.fails(125, ["run", "--cidfile", &path, &hello]);
    assert!(message.contains("exists already"), "{message}");
}

#[test]
fn version_info_and_completions_answer() {
    let Some(sandbox) = Sandbox::new() else { return };
    assert_eq!(sandbox.ok(["version", "--format", "{{.Version}}"]).trim(), env!("CARGO_PKG_VERSION"));
    let root: serde_json::Value = serde_json::from_str(&sandbox.ok(["info", "--format", "json"])).expect("JSON");
    assert_eq!(root["Root"], sandbox.root().display().to_string());
    assert!(sandbox.ok(["completions", "bash"]).contains("amphora"));
    assert!(sandbox.ok(["--help"]).contains("Usage"));
}
