//! A container's files as archives, and as images.

use std::{
    fs,
    process::{Command, Stdio},
};

use nix::sys::signal::Signal;

use crate::{
    sandbox::Sandbox,
    session::{Session, until},
};

/// A command of amphora's that is fed a file and writes another one.
fn piped(sandbox: &Sandbox, words: &[&str], from: Option<&str>, to: &str) {
    let mut command = sandbox.command(words);
    let open = |path: &str| fs::File::open(sandbox.work().join(path)).expect("a file of the test");
    command.stdin(from.map_or_else(Stdio::null, |path| open(path).into()));
    command.stdout(fs::File::create(sandbox.work().join(to)).expect("a file of the test"));
    let status = command.status().expect("amphora");
    assert!(status.success(), "{words:?}: {status}");
}

fn tar(sandbox: &Sandbox, words: &[&str]) -> String {
    let mut command = Command::new("tar");
    command.args(words).current_dir(sandbox.work());
    let ended = Session::start(command).wait();
    assert!(ended.code == Some(0), "tar {words:?}: {ended}");
    ended.stdout
}

#[test]
fn a_container_is_exported_running_or_not() {
    let Some((sandbox, [busybox])) = Sandbox::with(["busybox:latest"]) else { return };
    let script = "mkdir /data; echo text > /data/file; ln /data/file /data/twin; mkfifo /data/fifo; rm /etc/passwd; \
                  truncate -s 1099511627776 /data/huge; touch /vol/outside; echo ready; sleep 1000";
    sandbox.ok(["run", "-d", "--name", "web", "-v", "vol:/vol", &busybox, "sh", "-c", script]);
    until("its files", || sandbox.ok(["logs", "web"]).contains("ready").then_some(()));
    for running in [true, false] {
        if !running {
            sandbox.ok(["stop", "-t", "0", "web"]);
        }
        sandbox.ok(["export", "-o", "web.tar", "web"]);
        piped(&sandbox, &["export", "web"], None, "piped.tar");
        for name in ["web.tar", "piped.tar"] {
            let listed = tar(&sandbox, &["-tvf", name]);
            for expected in [" data/file", " bin/busybox", " link to data/file", "prw", " vol/", "1099511627776"] {
                assert!(listed.contains(expected), "{expected}: {listed}");
            }
            for absent in ["etc/passwd", "vol/outside", "proc/1", " ./"] {
                assert!(!listed.contains(absent), "{absent}: {listed}");
            }
            assert!(fs::metadata(sandbox.work().join(name)).expect("the archive").len() < 100 << 20);
        }
    }
    // It is a whole image again.
    sandbox.ok(["import", "web.tar", "again:1"]);
    assert_eq!(sandbox.ok(["run", "--rm", "again:1", "cat", "/data/twin"]), "text\n");
    // One that has never run.
    sandbox.ok(["create", "--name", "new", &busybox]);
    sandbox.ok(["export", "-o", "new.tar", "new"]);
    assert!(tar(&sandbox, &["-tf", "new.tar"]).contains("etc/passwd"));
    assert!(sandbox.fails(1, ["export", "-o", "/nowhere/x.tar", "new"]).contains("/nowhere"));
    for image in ["again:1", &busybox] {
        sandbox.ok(["rm", "-f", "web", "new"]);
        sandbox.ok(["rmi", image]);
    }
    sandbox.ok(["volume", "rm", "vol"]);
    sandbox.check_clean();
}

#[test]
fn archives_are_copied_both_ways() {
    let Some((sandbox, [busybox])) = Sandbox::with(["busybox:latest"]) else { return };
    sandbox.ok(["run", "-d", "--name", "web", &busybox, "sh", "-c", "mkdir /in; ln -s /etc /in/etc; sleep 1000"]);
    until("its folder", || (sandbox.run(["exec", "web", "test", "-L", "/in/etc"]).code == Some(0)).then_some(()));
    fs::create_dir_all(sandbox.work().join("deep/er")).expect("a folder");
    sandbox.file("deep/er/file", "text");
    sandbox.file("deep/.wh.name", "plain");
    tar(&sandbox, &["--owner=7", "--group=8", "-czf", "in.tar.gz", "deep"]);
    for running in [true, false] {
        if !running {
            sandbox.ok(["stop", "-t", "0", "web"]);
        }
        piped(&sandbox, &["cp", "-", "web:/in"], Some("in.tar.gz"), "nothing");
        piped(&sandbox, &["cp", "web:/in", "-"], None, "out.tar");
        let listed = tar(&sandbox, &["--numeric-owner", "-tvf", "out.tar"]);
        let file = listed.lines().find(|line| line.ends_with("in/deep/er/file")).expect("the file");
        assert!(file.contains(" 7/8 "), "{listed}");
        assert!(listed.contains("in/deep/.wh.name") && listed.contains("in/etc -> /etc"), "{listed}");
        piped(&sandbox, &["cp", "-L", "web:/in/deep/er/file", "-"], None, "one.tar");
        assert_eq!(tar(&sandbox, &["-tf", "one.tar"]), "file\n");
        piped(&sandbox, &["cp", "web:/in/deep/.", "-"], None, "dot.tar");
        assert!(tar(&sandbox, &["-tf", "dot.tar"]).starts_with("./\n"));
        assert!(sandbox.fails(1, ["cp", "web:/missing", "-"]).contains("/missing"));
        assert!(sandbox.fails(1, ["cp", "-", "web:/missing"]).contains("/missing"));
        assert!(sandbox.fails(1, ["cp", "-", "web:/in/deep/er/file"]).contains("not a directory"));
    }
    // Nothing of what is not whole, and nothing through a link of the container's.
    sandbox.file("cut.tar", &tar_with_escape()[..513]);
    let mut command = sandbox.command(["cp", "-", "web:/in"]);
    command.stdin(fs::File::open(sandbox.work().join("cut.tar")).expect("a file"));
    let ended = Session::start(command).wait();
    assert!(ended.code == Some(1) && ended.stderr.contains("cut short"), "{ended}");
    let mut command = sandbox.command(["cp", "-", "web:/in"]);
    sandbox.file("escape.tar", tar_with_escape());
    command.stdin(fs::File::open(sandbox.work().join("escape.tar")).expect("a file"));
    assert_eq!(Session::start(command).wait().code, Some(1));
    sandbox.ok(["start", "web"]);
    assert_eq!(sandbox.run(["exec", "web", "test", "-e", "/etc/put"]).code, Some(1));
    sandbox.ok(["rm", "-f", "web"]);
    sandbox.check_clean();
}

/// `etc/put`, where the container has a link of that name.
fn tar_with_escape() -> Vec<u8> {
    let mut header = [0_u8; 512];
    header[..7].copy_from_slice(b"etc/put");
    header[100..108].copy_from_slice(b"0000644\0");
    header[108..116].copy_from_slice(b"0000000\0");
    header[116..124].copy_from_slice(b"0000000\0");
    header[124..136].copy_from_slice(b"00000000003\0");
    header[136..148].copy_from_slice(b"00000000000\0");
    header[148..156].copy_from_slice(b"        ");
    header[156] = b'0';
    let sum: u32 = header.iter().map(|&byte| u32::from(byte)).sum();
    header[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    let mut archive = header.to_vec();
    archive.extend_from_slice(b"put");
    archive.resize(512 * 4, 0);
    archive
}

#[test]
fn what_a_container_changed_becomes_an_image() {
    let Some((sandbox, [busybox])) = Sandbox::with(["busybox:latest"]) else { return };
    let script = "rm /etc/group; rm -r /tmp; mkdir /tmp; echo new > /tmp/new; mkdir -p /data/sub; echo 1 > /data/sub/f; \
                  chmod 4755 /data/sub/f; ln -s /nowhere /data/link; touch '/data/.wh.victim' /data/victim; mkfifo /data/fifo; \
                  truncate -s 1099511627776 /data/huge; touch \"$(printf '/data/odd\\377')\"; echo ready; sleep 1000";
    sandbox.ok(["run", "-d", "--name", "web", "-e", "A=b", "-w", "/data", &busybox, "sh", "-c", script]);
    until("its files", || sandbox.ok(["logs", "web"]).contains("ready").then_some(()));
    let change =
        ["commit", "-m", "said", "-a", "Ann", "-c", "CMD [\"cat\", \"/tmp/new\"]", "-c", "ENV C=d", "-c", "LABEL l=m"];
    let ended = sandbox.run(change.iter().chain(&["web", "mine:1"]));
    assert_eq!(ended.code, Some(0), "{ended}");
    assert!(ended.stderr.contains(".wh.victim") && ended.stdout.starts_with("sha256:"), "{ended}");
    assert_eq!(sandbox.inspect("web", ".State.Status"), "running");
    assert_eq!(sandbox.ok(["run", "--rm", "mine:1"]), "new\n");
    let look = "echo $A$C; pwd; test ! -e /etc/group; echo $?; ls /tmp; stat -c '%a %s' sub/f huge; test -e victim; echo $?; \
                test -p fifo; echo $?; ls | grep -c odd; readlink link";
    let shown = sandbox.ok(["run", "--rm", "mine:1", "sh", "-c", look]);
    assert_eq!(shown, "bd\n/data\n0\nnew\n4755 2\n644 1099511627776\n0\n0\n1\n/nowhere\n");
    let said = sandbox.ok(["inspect", "-f", "{{.Comment}} {{.Author}} {{.Config.Labels.l}}", "mine:1"]);
    assert_eq!(said, "said Ann m\n");
    // Once more on top, without a name; then of nothing.
    let id = sandbox.ok(["commit", "--pause=false", "web"]);
    assert_eq!(sandbox.ok(["run", "--rm", id.trim(), "cat", "/tmp/new"]), "new\n");
    sandbox.ok(["create", "--name", "still", "mine:1"]);
    let same = sandbox.ok(["commit", "-c", "CMD [\"echo\", \"other\"]", "still", "other:1"]);
    assert!(same.starts_with("sha256:"));
    assert_eq!(sandbox.ok(["run", "--rm", "other:1"]), "other\n");
    let layers = |image: &str| sandbox.inspect(image, "len .RootFS.Layers");
    assert_eq!(layers("mine:1"), layers("other:1"));
    // It is saved and loaded as any other.
    sandbox.ok(["save", "-o", "mine.tar", "mine:1"]);
    sandbox.ok(["rm", "-f", "web", "still"]);
    sandbox.ok(["rmi", "mine:1", "other:1", id.trim()]);
    sandbox.ok(["load", "-i", "mine.tar"]);
    assert_eq!(sandbox.ok(["run", "--rm", "mine:1"]), "new\n");
    sandbox.ok(["rmi", "mine:1", &busybox]);
    sandbox.check_clean();
}

/// Of the other kind there is something to commit only where a program lies in a root file system.
#[test]
fn a_wasm_program_is_committed_where_it_has_files() {
    let Some(sandbox) = Sandbox::new() else { return };
    let artifact = sandbox.pull("hello:wasm");
    sandbox.ok(["create", "--name", "bare", &artifact]);
    for words in [&["commit", "bare", "x:1"][..], &["export", "-o", "x.tar", "bare"]] {
        assert!(sandbox.fails(1, words).contains("no root file system"), "{words:?}");
    }
    assert!(!sandbox.work().join("x.tar").exists());
}

/// Whoever is killed while he makes an image leaves none, and a container that can go on.
#[test]
fn a_killed_commit_leaves_nothing_but_a_paused_container() {
    let Some((sandbox, [busybox])) = Sandbox::with(["busybox:latest"]) else { return };
    let script = "dd if=/dev/urandom of=/data bs=1M count=24 2>/dev/null; echo ready; sleep 1000";
    sandbox.ok(["run", "-d", "--name", "web", &busybox, "sh", "-c", script]);
    until("its files", || sandbox.ok(["logs", "web"]).contains("ready").then_some(()));
    for delay in [0, 10, 40, 120, 250, 400] {
        let commit = sandbox.start(["commit", "web", "mine:1"]);
        std::thread::sleep(std::time::Duration::from_millis(delay));
        commit.signal(nix::sys::signal::Signal::SIGKILL);
        let killed = commit.wait().code.is_none();
        if sandbox.inspect("web", ".State.Paused") == "true" {
            assert!(killed, "{delay}");
            sandbox.ok(["unpause", "web"]);
        }
        assert_eq!(sandbox.ok(["exec", "web", "echo", "on"]), "on\n");
        // Killed at its very end it has made it.
        let made = sandbox.run(["inspect", "mine:1"]).code == Some(0);
        assert!(killed || made, "{delay}");
        if made {
            sandbox.ok(["run", "--rm", "mine:1", "test", "-s", "/data"]);
        }
        sandbox.ok(["system", "prune", "-f"]);
        sandbox.check_clean();
        sandbox.run(["rmi", "mine:1"]);
    }
    sandbox.ok(["rm", "-f", "web"]);
}

/// The container stayed paused for good.
#[test]
fn a_commit_that_is_interrupted_leaves_nothing_paused() {
    let Some((sandbox, [busybox])) = Sandbox::with(["busybox:latest"]) else { return };
    let script = "dd if=/dev/urandom of=/large bs=1M count=150; echo ready; sleep 1000";
    sandbox.ok(["run", "-d", "--name", "web", &busybox, "sh", "-c", script]);
    until("its file", || sandbox.ok(["logs", "web"]).contains("ready").then_some(()));
    if sandbox.run(["pause", "web"]).code != Some(0) {
        return println!("skipped: this user cannot pause containers here");
    }
    sandbox.ok(["unpause", "web"]);
    let commit = Session::start(sandbox.command(["commit", "web", "half"]));
    until("it to be paused", || (sandbox.inspect("web", ".State.Paused") == "true").then_some(()));
    commit.signal(Signal::SIGTERM);
    let ended = commit.wait();
    assert_eq!(ended.code, None, "{ended}");
    assert_eq!(sandbox.inspect("web", ".State.Status"), "running");
    assert_eq!(sandbox.ok(["images", "-q", "half"]), "");
    sandbox.ok(["rm", "-f", "web"]);
    sandbox.check_clean();
}

/// xz and bzip2, for which layers have no media type, are stored without.
#[test]
fn archives_are_read_however_they_are_compressed() {
    let Some((sandbox, [busybox])) = Sandbox::with(["busybox:latest"]) else { return };
    sandbox.ok(["save", "-o", "saved.tar", &busybox]);
    sandbox.ok(["create", "--name", "web", &busybox]);
    sandbox.ok(["export", "-o", "root.tar", "web"]);
    sandbox.file("said", "hello\n");
    tar(&sandbox, &["-cf", "said.tar", "said"]);
    for (program, ending) in [("gzip", "gz"), ("bzip2", "bz2"), ("xz", "xz"), ("zstd", "zst")] {
        for name in ["saved.tar", "root.tar", "said.tar"] {
            let mut command = Command::new(program);
            command.args(["-k", "-q", name]).current_dir(sandbox.work());
            assert!(command.status().is_ok_and(|status| status.success()), "{program} {name}");
        }
        let image = format!("packed:{ending}");
        sandbox.ok(["import", &format!("root.tar.{ending}"), &image]);
        assert_eq!(sandbox.ok(["run", "--rm", &image, "busybox", "echo", "ran"]), "ran\n");
        // Whoever else reads the store finds what the manifest says.
        sandbox.ok(["save", "-o", "again.tar", &image]);
        sandbox.ok(["rmi", &image]);
        sandbox.ok(["load", "-i", "again.tar"]);
        sandbox.ok(["load", "-i", &format!("saved.tar.{ending}")]);
        piped(&sandbox, &["cp", "-", "web:/"], Some(&format!("said.tar.{ending}")), "nothing");
        piped(&sandbox, &["cp", "web:/said", "-"], None, "out.tar");
        assert_eq!(tar(&sandbox, &["-xOf", "out.tar", "said"]), "hello\n");
        let blobs = sandbox.root().join("image-layout/blobs/sha256");
        for blob in fs::read_dir(blobs).expect("the blobs") {
            let blob = fs::read(blob.expect("an entry").path()).expect("a blob");
            assert!(!blob.starts_with(b"BZh") && !blob.starts_with(b"\xfd7zXZ"), "{program}");
        }
    }
    sandbox.check_clean();
}
