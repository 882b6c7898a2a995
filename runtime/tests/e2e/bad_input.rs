//! Mistakes get a clear error and the right code, and nothing is lost or left behind.

use std::fs;

use crate::sandbox::{Sandbox, fixture};

#[test]
fn mistakes_on_the_command_line_end_with_dockers_codes() {
    let Some((sandbox, [busybox, wasm])) = Sandbox::with(["busybox:latest", "hello:wasm"]) else { return };
    let cases: [(&[&str], &str); 20] = [
        (&["run", "--no-such-flag", &busybox], "--no-such-flag"),
        (&["run", "-p", "80:x", &busybox], "`x` is no port"),
        (&["build", "."], "not supported yet"),
        (&["no-such-command"], "no-such-command"),
        (&["run", "UPPER/Case"], "UPPER/Case"),
        (&["pull", "a//b"], "a//b"),
        (&["pull", "x@sha256:123"], "x@sha256:123"),
        (&["run", "--platform", "nonsense", &busybox], "nonsense"),
        (&["run", "-v", "/no/such/folder:/x", &busybox, "true"], "/no/such/folder"),
        (&["run", "-v", "/no/such/folder:/x", &wasm], "/no/such/folder"),
        (&["run", "-v", "relative/target:x", &busybox], "x"),
        (&["run", "--mount", "type=nonsense,target=/x", &busybox], "nonsense"),
        (&["run", "--env-file", "missing.env", &busybox], "missing.env"),
        (&["run", "-e", "=x", &busybox], "no name"),
        (&["run", "--cap-add", "FLYING", &busybox, "true"], "FLYING"),
        (&["run", "--security-opt", "label=x", &busybox], "label=x"),
        (&["run", "--stop-signal", "NOPE", &busybox], "NOPE"),
        (&["run", "--ulimit", "colour=1", &busybox], "colour=1"),
        (&["logs", "nobody"], "no such container: nobody"),
        (&["start", "nobody"], "no such container: nobody"),
    ];
    for (words, part) in cases {
        let message = sandbox.refuses(words.iter());
        assert!(message.contains(part), "{words:?}: {message}");
        assert!(!message.contains("panicked"), "{words:?}: {message}");
    }
    assert!(sandbox.fails(1, ["run"]).contains("IMAGE"));
    assert!(sandbox.fails(125, ["ps", "--no-such-flag"]).contains("--no-such-flag"));
    for id in sandbox.ok(["ps", "-aq"]).lines() {
        // As with Docker, a container that cannot be started is kept to be looked at.
        assert_eq!(sandbox.inspect(id, ".State.Running"), "false");
        assert_eq!(sandbox.inspect(id, ".State.ExitCode"), "125");
    }
    sandbox.ok(["system", "prune", "-f"]);
    sandbox.check_clean();
}

#[test]
fn a_program_that_is_not_there_is_127_and_one_that_is_none_126() {
    let Some((sandbox, [busybox])) = Sandbox::with(["busybox:latest"]) else { return };
    for (program, code) in [
        ("no-such-program", 127),
        ("/no/such/program", 127),
        ("/etc/passwd", 126),
        ("/etc", 126),
        ("./bin/nothing", 127),
    ] {
        for mode in [&["run", "--rm"][..], &["run"], &["run", "-d"]] {
            let words = mode.iter().copied().chain([busybox.as_str(), program]);
            let message = sandbox.fails(code, words);
            assert!(message.contains(program), "{mode:?} {program}: {message}");
        }
    }
    let script = sandbox.file("script", "no interpreter line\n");
    fs::set_permissions(&script, std::os::unix::fs::PermissionsExt::from_mode(0o755)).expect("its mode");
    let ended = sandbox.run(["run", "--rm", "-v", "./script:/script", &busybox, "/script"]);
    assert_eq!(ended.code, Some(126), "{ended}");
    sandbox.check_clean();
}

#[test]
fn broken_wasm_images_are_refused_before_they_start() {
    let Some(sandbox) = Sandbox::new() else { return };
    for (name, part) in [
        ("broken:missing-import", "no_such_host"),
        ("broken:library", "`_start`"),
        ("broken:cut-short", "unexpected end-of-file"),
    ] {
        let image = sandbox.image(name);
        let pulled = sandbox.run(["pull", "-q", &image]);
        let message = if pulled.code == Some(0) {
            let ended = sandbox.run(["run", "--rm", &image]);
            assert!(matches!(ended.code, Some(125 | 126)), "{name}: {ended}");
            ended.stderr
        } else {
            pulled.stderr
        };
        assert!(message.contains(part), "{name}: {message}");
        assert!(!message.contains("panicked"), "{name}: {message}");
    }
    sandbox.run(["system", "prune", "-f"]);
    sandbox.check_clean();
}

#[test]
fn files_that_are_not_what_they_should_be_are_refused_by_import_and_load() {
    let Some(sandbox) = Sandbox::new() else { return };
    let Some(programs) = fixture("programs") else { return };
    let whole = fs::read(programs.join("wasm/hello.wasm")).expect("a program");
    let cut = sandbox.file("cut.wasm", &whole[..whole.len() / 2]);
    let garbage = sandbox.file("garbage", [0x17; 5000]);
    let bad_text = sandbox.file("bad.wat", "(module (func (export \"_start\") i32.const))");
    let elf = programs.join("linux/hello").display().to_string();
    let empty = sandbox.file("empty.tar", "");
    for (words, part) in [
        (["import", &cut, "x"], "cut short"),
        (["import", &garbage, "x"], "garbage"),
        (["import", &bad_text, "x"], "bad.wat"),
        (["import", &elf, "x"], "ELF"),
        (["import", "missing.tar", "x"], "missing.tar"),
        (["import", &elf, "Bad//Name"], "Bad//Name"),
        (["load", "-i", &garbage], "garbage"),
        (["load", "-i", &empty], "empty.tar"),
        (["load", "-i", "missing.tar"], "missing.tar"),
        (["load", "-i", &cut], "cut.wasm"),
    ] {
        let message = sandbox.refuses(words);
        assert!(message.contains(part), "{words:?}: {message}");
        assert!(!message.contains("panicked"), "{words:?}: {message}");
    }
    assert_eq!(sandbox.ok(["images", "-q"]), "");
    sandbox.check_clean();
}

#[test]
fn an_archive_that_is_cut_short_loads_nothing() {
    let Some(sandbox) = Sandbox::new() else { return };
    let Some(archives) = fixture("archives") else { return };
    for name in ["busybox.docker.tar", "busybox.oci.tar"] {
        let whole = fs::read(archives.join(name)).expect("an archive");
        for part in [2, 3, 10] {
            let cut = sandbox.file(name, &whole[..whole.len() / part]);
            let ended = sandbox.run(["load", "-i", &cut]);
            assert_eq!(ended.code, Some(1), "{name}, 1/{part}: {ended}");
            assert!(ended.stderr.contains(name) && !ended.stderr.contains("panicked"), "{name}, 1/{part}: {ended}");
        }
    }
    assert_eq!(sandbox.ok(["images", "-q"]), "");
    sandbox.ok(["system", "prune", "-f"]);
    sandbox.check_clean();
}

#[test]
fn a_full_disk_is_said_and_costs_nothing_that_was_there() {
    let Some((sandbox, [hello])) = Sandbox::with(["hello:linux"]) else { return };
    // A limit of the size of each file stands for a disk with no more room.
    let script = "ulimit -f 200; trap '' XFSZ; exec \"$0\" \"$@\"";
    let mut command = std::process::Command::new("sh");
    command.args(["-c", script]).arg(crate::sandbox::binary()).arg("--root").arg(sandbox.root());
    command.arg("--runroot").arg(sandbox.runroot()).args(["pull", "-q", &sandbox.image("busybox:latest")]);
    let ended = crate::session::Session::start(command).wait();
    assert_eq!(ended.code, Some(1), "{ended}");
    assert!(!ended.stderr.contains("panicked"), "{ended}");
    assert_eq!(sandbox.ok(["run", "--rm", &hello]), "hello from linux\n");
    sandbox.ok(["system", "prune", "-f"]);
    sandbox.check_clean();
    assert_eq!(sandbox.ok(["run", "--rm", &sandbox.image("busybox:latest"), "echo", "there"]), "there\n");
}

#[test]
fn a_store_that_cannot_be_written_is_named() {
    let Some(sandbox) = Sandbox::new() else { return };
    let file = sandbox.file("a-file", "");
    let mut command = std::process::Command::new(crate::sandbox::binary());
    command.args(["--root", &format!("{file}/root"), "images"]);
    let ended = crate::session::Session::start(command).wait();
    assert_eq!(ended.code, Some(1), "{ended}");
    assert!(ended.stderr.contains(&file), "{ended}");
}

#[test]
fn damaged_records_are_named_and_do_not_hide_the_other_containers() {
    let Some((sandbox, [hello])) = Sandbox::with(["hello:linux"]) else { return };
    sandbox.ok(["run", "--name", "well", &hello]);
    sandbox.ok(["run", "--name", "damaged", &hello]);
    let id = sandbox.inspect("damaged", ".Id");
    let record = sandbox.root().join("containers").join(&id).join("spec.json");
    fs::write(&record, "{").expect("the record");
    let ended = sandbox.run(["inspect", "damaged"]);
    assert_ne!(ended.code, Some(0), "{ended}");
    assert!(ended.stderr.contains("damaged"), "{ended}");
    assert_eq!(sandbox.ok(["start", "-a", "well"]), "hello from linux\n");
    let listed = sandbox.run(["ps", "-a", "--format", "{{.Names}}"]);
    assert!(listed.stdout.contains("well"), "{listed}");
    let check = sandbox.run(["system", "check"]);
    assert_eq!(check.code, Some(1), "{check}");
    assert!(check.stdout.contains(&id), "{check}");
    // What cannot be read is not removed, nor any image that it may need: it may be of another version.
    let pruned = sandbox.run(["system", "prune", "-a", "-f"]);
    assert_eq!(pruned.code, Some(1), "{pruned}");
    assert!(record.exists() && pruned.stderr.contains("cannot tell what is still used"), "{pruned}");
    assert_eq!(sandbox.ok(["images", "-q"]).lines().count(), 1);
    sandbox.ok(["rm", "-f", &id]);
    sandbox.ok(["system", "prune", "-f"]);
    sandbox.check_clean();
}
