//! The store's own files, damaged or exchanged: what is told, what still runs, and the way back.

use std::{
    fs,
    io::Write,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    thread,
    time::Duration,
};

use nix::sys::{signal::Signal, stat::Mode};
use serde_json::{Value, json};

use crate::{
    sandbox::{Sandbox, binary},
    session::Session,
};

fn index(sandbox: &Sandbox) -> PathBuf {
    sandbox.root().join("image-layout/index.json")
}

fn names(sandbox: &Sandbox) -> String {
    sandbox.ok(["images", "--no-trunc", "--format", "{{.Repository}}:{{.Tag}} {{.ID}}"])
}

#[test]
fn a_damaged_list_of_images_is_repaired_under_a_running_container() {
    let Some((sandbox, [busybox, hello])) = Sandbox::with(["busybox:latest", "hello:wasm"]) else { return };
    sandbox.ok(["run", "-d", "--name", "runs", &busybox, "sh", "-c", "while true; do sleep 0.1; done"]);
    let before = names(&sandbox);
    let whole = fs::read(index(&sandbox)).expect("the list");
    assert_eq!(sandbox.ok(["system", "repair"]), "the list of images is whole; nothing was changed\n");
    for damage in [Some(&whole[..whole.len() / 2]), Some(b"".as_slice()), Some(&[0xfe; 999]), None] {
        match damage {
            Some(bytes) => fs::write(index(&sandbox), bytes).expect("the list"),
            None => fs::remove_file(index(&sandbox)).expect("the list"),
        }
        for command in
            [&["images"][..], &["run", "--rm", &busybox, "true"], &["rmi", "-f", &hello], &["system", "check"]]
        {
            let message = sandbox.refuses(command);
            assert!(message.contains("index.json") && message.contains("amphora system repair"), "{message}");
        }
        // What is there is not taken for leftovers meanwhile.
        assert_ne!(sandbox.run(["system", "prune", "-f"]).code, Some(0));
        let said = sandbox.ok(["system", "repair"]);
        assert!(said.contains("The list of images was damaged: "), "{said}");
        assert_eq!(said.contains("index.damaged-"), damage.is_some(), "{said}");
        assert_eq!(names(&sandbox), before, "{said}");
    }
    // Without its copy names are lost, but no image.
    fs::remove_file(sandbox.root().join("index.copy")).expect("the copy");
    fs::write(index(&sandbox), "").expect("the list");
    let ended = sandbox.run(["system", "repair"]);
    assert!(ended.code == Some(1) && ended.stdout.contains("Lost: "), "{ended}");
    assert_eq!(ended.stdout.matches("Found: ").count(), 2, "{ended}");
    sandbox.ok(["system", "prune", "-f"]);
    let left: Vec<String> = names(&sandbox).lines().map(str::to_owned).collect();
    assert!(left.len() == 1 && before.contains(left[0].split_once(' ').expect("an id").1), "the used one: {left:?}");
    assert_eq!(sandbox.ok(["exec", "runs", "echo", "alive"]), "alive\n");
    sandbox.ok(["rm", "-f", "runs"]);
    sandbox.check_clean();
}

#[test]
fn what_a_repair_cannot_keep_is_said_with_a_code() {
    let Some((sandbox, [busybox, hello])) = Sandbox::with(["busybox:latest", "hello:wasm"]) else { return };
    let id = sandbox.ok(["images", "-q", "--no-trunc", &hello]).trim().to_owned();
    let blob = sandbox.root().join("image-layout/blobs").join(id.replace(':', "/"));
    fs::write(blob, "{}").expect("a blob");
    fs::write(index(&sandbox), "{").expect("the list");
    let ended = sandbox.run(["system", "repair"]);
    assert!(ended.code == Some(1) && ended.stdout.contains("Lost: ") && ended.stdout.contains(&id), "{ended}");
    assert_eq!(sandbox.ok(["run", "--rm", &busybox, "echo", "well"]), "well\n");
    assert_eq!(sandbox.ok(["system", "repair"]), "the list of images is whole; nothing was changed\n");
    sandbox.ok(["system", "prune", "-f"]);
}

#[test]
fn a_repair_that_is_killed_is_done_by_the_next() {
    let Some((sandbox, [busybox])) = Sandbox::with(["busybox:latest"]) else { return };
    let before = names(&sandbox);
    for micros in (0..20).map(|step| step * 400) {
        fs::write(index(&sandbox), "{").expect("the list");
        let repair = sandbox.start(["system", "repair"]);
        thread::sleep(Duration::from_micros(micros));
        repair.signal(Signal::SIGKILL);
        repair.wait();
        sandbox.ok(["system", "repair"]);
        assert_eq!(names(&sandbox), before, "{micros}");
        sandbox.ok(["system", "prune", "-f"]);
        sandbox.check_clean();
    }
    assert_eq!(sandbox.ok(["run", "--rm", &busybox, "echo", "well"]), "well\n");
}

/// As a power cut leaves it: a pull failed for ever, and `load` said that all was well.
#[test]
fn a_layer_that_is_cut_is_told_and_mended() {
    let Some((sandbox, [busybox])) = Sandbox::with(["busybox:latest"]) else { return };
    let manifest = sandbox.ok(["images", "-q", "--no-trunc", &busybox]);
    let blobs = sandbox.root().join("image-layout/blobs");
    let manifest = fs::read(blobs.join(manifest.trim().replace(':', "/"))).expect("the manifest");
    let manifest: Value = serde_json::from_slice(&manifest).expect("JSON");
    let layer = blobs.join(manifest["layers"][0]["digest"].as_str().expect("a digest").replace(':', "/"));
    let whole = fs::read(&layer).expect("the layer");
    for unpacked in [true, false] {
        fs::write(&layer, &whole[..1000]).expect("the layer");
        if !unpacked {
            fs::remove_dir_all(sandbox.root().join("layers").join(&sandbox.stored("layers")[0])).expect("a folder");
        }
        let check = sandbox.run(["system", "check"]);
        assert!(check.code == Some(1) && check.stdout.contains("has 1000 bytes, expected"), "{check}");
        sandbox.ok(["pull", &busybox]);
        assert!(fs::read(&layer).expect("the layer") == whole, "unpacked: {unpacked}");
        assert_eq!(sandbox.ok(["run", "--rm", &busybox, "echo", "well"]), "well\n");
        sandbox.check_clean();
    }
}

/// A stalled one held what keeps others from removing things.
#[test]
fn a_load_that_waits_for_its_archive_hinders_nobody() {
    let Some((sandbox, [busybox])) = Sandbox::with(["busybox:latest"]) else { return };
    let pipe = sandbox.work().join("pipe");
    nix::unistd::mkfifo(&pipe, Mode::S_IRWXU).expect("a FIFO");
    let load = sandbox.start(["load", "-i", pipe.to_str().expect("UTF-8")]);
    let mut archive = fs::OpenOptions::new().write(true).open(&pipe).expect("the FIFO");
    archive.write_all(&[0; 512]).expect("a piece");
    let id = sandbox.ok(["images", "-q", "--no-trunc", &busybox]);
    sandbox.ok(["rmi", id.trim()]);
    sandbox.ok(["system", "prune", "-a", "-f"]);
    sandbox.check_clean();
    drop(archive);
    let ended = load.wait();
    assert!(ended.code == Some(1) && ended.stderr.contains("no archive of images"), "{ended}");
}

#[test]
fn files_of_the_store_that_became_pipes_hold_nobody_up() {
    let Some((sandbox, [busybox, hello])) = Sandbox::with(["busybox:latest", "hello:wasm"]) else { return };
    let id = sandbox.ok(["images", "-q", "--no-trunc", &hello]).trim().to_owned();
    let manifest = sandbox.root().join("image-layout/blobs").join(id.replace(':', "/"));
    // Code is made anew in the place of what is none.
    let code = sandbox.root().join("compiled").join(&sandbox.stored("compiled")[0]);
    fs::remove_file(&code).expect("the code");
    nix::unistd::mkfifo(&code, Mode::S_IRWXU).expect("a FIFO");
    for command in [&["system", "check"][..], &["system", "prune", "-f"]] {
        sandbox.run(command);
    }
    let ended = sandbox.run(["run", "--rm", &hello]);
    assert!(ended.code == Some(0) && ended.stderr.contains("it is not a regular file"), "{ended}");
    for path in [index(&sandbox), manifest.clone()] {
        let aside = sandbox.work().join("aside");
        fs::rename(&path, &aside).expect("a file of the store");
        nix::unistd::mkfifo(&path, Mode::S_IRWXU).expect("a FIFO");
        let message = sandbox.fails(125, ["run", "--rm", &hello]);
        assert!(message.contains(path.to_str().expect("UTF-8")), "{message}");
        // To their end, whatever it is.
        for command in [&["images"][..], &["system", "check"], &["rmi", "nothing"], &["system", "prune", "-f"]] {
            sandbox.run(command);
        }
        if path == manifest {
            let filtered = sandbox.run(["images", "--filter", "kind=linux", "--format", "{{.Repository}}:{{.Tag}}"]);
            assert_eq!(filtered.stdout, format!("{busybox}\n"), "{filtered}");
            assert!(filtered.stderr.contains("not looked at: ") && filtered.stderr.contains(&hello), "{filtered}");
        }
        let _ = fs::remove_file(&path);
        fs::rename(&aside, &path).expect("a file of the store");
    }
    assert_eq!(sandbox.ok(["run", "--rm", &hello]), "hello from wasm\n");
    assert_eq!(sandbox.ok(["run", "--rm", &busybox, "echo", "well"]), "well\n");
}

#[test]
fn exchanged_code_and_layers_run_in_nobodys_place() {
    let Some((sandbox, [first, second])) = Sandbox::with(["hello:wasm", "hello:component"]) else { return };
    let exchange = |folder: &str, names: &[String]| {
        let [one, other, aside] =
            [names[0].as_str(), &names[1], "aside"].map(|name| sandbox.root().join(folder).join(name));
        fs::rename(&one, &aside)
            .and_then(|()| fs::rename(&other, &one))
            .and_then(|()| fs::rename(&aside, &other))
            .expect("files");
    };
    exchange("compiled", &sandbox.stored("compiled"));
    let check = sandbox.run(["system", "check"]);
    assert!(check.code == Some(1) && check.stdout.contains("compiled code"), "{check}");
    assert_eq!(sandbox.ok(["run", "--rm", &first]), "hello from wasm\n");
    assert_eq!(sandbox.ok(["run", "--rm", &second]), "hello from wasm\n");
    sandbox.check_clean();
    let linux = [sandbox.pull("hello:linux"), sandbox.pull("busybox:latest")];
    let layer = sandbox.root().join("layers").join(&sandbox.stored("layers")[0]);
    if rustix::fs::lgetxattr(&layer, "user.amphora.diff-id", &mut [0_u8; 256]).is_err() {
        println!("skipped: exchanged layers: this file system keeps no attributes of users");
        return;
    }
    exchange("layers", &sandbox.stored("layers"));
    for image in &linux {
        let message = sandbox.fails(125, ["run", "--rm", image, "true"]);
        assert!(message.contains("has the content of diff id"), "{message}");
    }
    exchange("layers", &sandbox.stored("layers"));
}

/// The digests of files, in their order.
fn sha256(folder: &Path, names: &[String]) -> Vec<String> {
    let output = Command::new("sha256sum").args(names).current_dir(folder).output().expect("sha256sum");
    let text = String::from_utf8(output.stdout).expect("digests");
    text.lines().map(|line| format!("sha256:{}", &line[..64])).collect()
}

#[test]
fn an_image_with_as_many_layers_as_there_can_be_needs_few_descriptors() {
    const LAYERS: usize = 500;
    let Some((sandbox, [busybox])) = Sandbox::with(["busybox:latest"]) else { return };
    let work = sandbox.work();
    let layer = sandbox.root().join("layers").join(&sandbox.stored("layers")[0]);
    let tar = |archive: &str, folder: &Path, member: &str| {
        let made = Command::new("tar").arg("-cf").arg(work.join(archive)).arg("-C").arg(folder).arg(member).status();
        assert!(made.expect("tar").success());
    };
    tar("layer0", &layer, ".");
    for number in 1..LAYERS {
        fs::write(work.join(format!("file{number}")), number.to_string()).expect("a file");
        tar(&format!("layer{number}"), &work, &format!("file{number}"));
    }
    let layers: Vec<String> = (0..LAYERS).map(|number| format!("layer{number}")).collect();
    let architecture = sandbox.ok(["image", "inspect", "--format", "{{.Architecture}}", &busybox]);
    let config = json!({ "os": "linux", "architecture": architecture.trim(), "config": {},
        "rootfs": { "type": "layers", "diff_ids": sha256(&work, &layers) } });
    fs::write(work.join("config"), config.to_string()).expect("the config");
    let saved: Value = json!([{ "Config": "config", "RepoTags": ["deep:1"], "Layers": layers }]);
    fs::write(work.join("manifest.json"), saved.to_string()).expect("the list");
    let members = fs::read_dir(&work).expect("the members").map(|entry| entry.expect("a member").file_name());
    let made = Command::new("tar").arg("-cf").arg("deep.tar").args(members).current_dir(&work).status();
    assert!(made.expect("tar").success());

    let limited = |arguments: &[&str]| {
        let mut command = Command::new("sh");
        command.arg("-c").arg("ulimit -n 256 && exec \"$@\"").arg("sh").arg(binary());
        command.arg("--root").arg(sandbox.root()).arg("--runroot").arg(sandbox.runroot());
        Session::start({
            command.args(arguments).current_dir(&work).stdin(Stdio::null());
            command
        })
        .wait()
    };
    let ended = limited(&["load", "-i", "deep.tar"]);
    assert_eq!(ended.code, Some(0), "{ended}");
    let ended = limited(&["run", "--rm", "--network", "none", "deep:1", "cat", "/file1", "/file250", "/file499"]);
    if ended.stderr.contains("this kernel (before 6.8)") {
        return println!("skipped: mounting that many layers: {}", ended.stderr.trim());
    }
    assert_eq!(ended.stdout, "1250499", "{ended}");
}

#[test]
fn endless_and_odd_files_are_no_archives() {
    let Some(sandbox) = Sandbox::new() else { return };
    for arguments in [&["load", "-i", "/dev/zero"][..], &["import", "/dev/zero", "x"]] {
        let message = sandbox.refuses(arguments);
        assert!(message.contains("/dev/zero: it is a device"), "{message}");
    }
    let mut yes = Command::new("yes").stdout(Stdio::piped()).spawn().expect("yes");
    let mut command = sandbox.command(["load"]);
    command.stdin(yes.stdout.take().expect("its output"));
    let ended = Session::start(command).wait();
    yes.wait().expect("the end of yes");
    assert!(ended.code == Some(1) && ended.stderr.contains("no archive of images"), "{ended}");
}
