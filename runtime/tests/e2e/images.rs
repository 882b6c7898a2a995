//! Images: what they are, where they come from, what they are called.

use std::{fs, path::Path, process::Stdio};

use serde_json::Value;

use crate::{
    files,
    sandbox::{Sandbox, fixture, is_second_kernel},
    session::Session,
};

/// Image, kind, rule, form, and what it prints when it runs.
const CLASSES: [(&str, &str, u64, &str, &str); 13] = [
    ("hello:linux", "linux", 10, "", "hello from linux\n"),
    ("hello:wasm", "wasm", 1, "module", "hello from wasm\n"),
    ("hello:component", "wasm", 1, "component", "hello from wasm\n"),
    ("hello:oci-empty", "wasm", 2, "module", "hello from wasm\n"),
    ("hello:bytecodealliance", "wasm", 3, "component", "hello from wasm\n"),
    ("hello:wasm-to-oci", "wasm", 4, "module", "hello from wasm\n"),
    ("hello:docker-wasm", "wasm", 7, "module", "hello from wasm\n"),
    ("hello:compat", "wasm", 8, "module", "hello from wasm\n"),
    ("hello:compat-linux", "linux", 8, "", "hello from linux\n"),
    ("proxy-wasm:latest", "proxy-wasm", 5, "", ""),
    ("spin-app:latest", "spin", 6, "", ""),
    ("windows:latest", "windows", 9, "", ""),
    ("chart:latest", "other", 11, "", ""),
];

#[test]
fn every_kind_of_image_is_stored_explained_and_run_or_refused_by_name() {
    let Some(sandbox) = Sandbox::new() else { return };
    for (name, kind, rule, form, output) in CLASSES {
        let image = sandbox.pull(name);
        let explained: Value =
            serde_json::from_str(&sandbox.ok(["image", "explain", "--format", "json", &image])).expect("JSON");
        assert_eq!(explained["kind"], kind, "{name}");
        assert_eq!(explained["rule"], rule, "{name}: {explained}");
        assert_eq!(explained["form"].as_str().unwrap_or_default(), form, "{name}");
        assert_eq!(explained["runs_here"], !output.is_empty(), "{name}");
        assert!(explained["reason"].as_str().is_some_and(|reason| !reason.is_empty()), "{name}");
        let text = sandbox.ok(["image", "explain", &image]);
        assert!(text.lines().any(|line| line == format!("kind: {kind}")), "{name}: {text}");
        assert!(text.lines().any(|line| line == format!("rule: {rule}")), "{name}: {text}");
        assert!(form.is_empty() || text.contains(&format!("\nform: {form}\n")), "{name}: {text}");
        let listed = sandbox.ok(["images", "--format", "{{.Kind}}", &image]);
        assert_eq!(listed, format!("{kind}\n"), "{name}");
        let ended = sandbox.run(["run", "--rm", &image]);
        assert_eq!(ended.stdout, output, "{name}: {ended}");
        assert_eq!(ended.code, Some(if output.is_empty() { 126 } else { 0 }), "{name}: {ended}");
    }
    for (name, part) in [
        ("windows:latest", "Windows"),
        ("proxy-wasm:latest", "proxy-wasm plugin"),
        ("spin-app:latest", "Spin application"),
        ("chart:latest", "application/vnd.cncf.helm.config.v1+json"),
    ] {
        let message = sandbox.fails(126, ["run", "--rm", &sandbox.image(name)]);
        assert!(message.contains(part), "{name}: {message}");
    }
    assert_eq!(sandbox.ok(["images", "-q"]).lines().count(), CLASSES.len());
    sandbox.check_clean();
}

#[test]
fn images_are_one_list() {
    let Some((sandbox, [_linux, _wasm])) = Sandbox::with(["hello:linux", "hello:wasm"]) else { return };
    let table = sandbox.ok(["images"]);
    let mut lines = table.lines();
    let header: Vec<&str> = lines.next().expect("a header").split("  ").filter(|word| !word.is_empty()).collect();
    let header: Vec<&str> = header.iter().map(|word| word.trim()).collect();
    assert_eq!(header, ["REPOSITORY", "TAG", "KIND", "IMAGE ID", "CREATED", "SIZE"]);
    let kinds: Vec<&str> = lines.filter_map(|line| line.split_whitespace().nth(2)).collect();
    assert_eq!(kinds.len(), 2, "{table}");
    assert!(kinds.contains(&"linux") && kinds.contains(&"wasm"), "{table}");
    let only = |filter: &str| sandbox.ok(["images", "--filter", filter, "--format", "{{.Tag}}"]);
    assert_eq!(only("kind=wasm"), "wasm\n");
    assert_eq!(only(&format!("reference={}", sandbox.image("hello:linux"))), "linux\n");
    let digests = sandbox.ok(["images", "--no-trunc", "--format", "{{.ID}} {{.Digest}}"]);
    assert!(digests.lines().all(|line| line.matches("sha256:").count() == 2), "{digests}");
}

#[test]
fn explain_names_imports_and_what_is_missing() {
    let Some((sandbox, [hello, broken])) = Sandbox::with(["hello:wasm", "broken:missing-import"]) else { return };
    let text = sandbox.ok(["image", "explain", &hello]);
    assert!(text.contains("\nimports: wasi_snapshot_preview1::fd_write\n"), "{text}");
    assert!(text.contains("\nexports: _start\n"), "{text}");
    let json: Value = serde_json::from_str(&sandbox.ok(["image", "explain", "--format=json", &broken])).expect("JSON");
    assert_eq!(json["missing"], serde_json::json!(["no_such_host::no_such_function"]), "{json}");
    assert_eq!(json["runs_here"], false);
    let message = sandbox.fails(1, ["image", "explain", "never/pulled"]);
    assert!(message.contains("amphora pull never/pulled"), "{message}");
}

#[test]
fn an_index_with_both_kinds_gives_linux_unless_asked_otherwise() {
    let Some(sandbox) = Sandbox::new() else { return };
    let image = sandbox.image("hello:latest");
    for (flags, output) in [
        (&[][..], "hello from linux\n"),
        (&["--prefer", "wasm"], "hello from wasm\n"),
        (&["--platform", "wasi/wasm"], "hello from wasm\n"),
        (&["--prefer", "linux"], "hello from linux\n"),
    ] {
        let words = ["run", "--rm"].iter().chain(flags).copied();
        assert_eq!(sandbox.ok(words.chain([image.as_str()])), output, "{flags:?}");
    }
    let message = sandbox.fails(125, ["run", "--rm", "--platform", "plan9/mips", &image]);
    assert!(message.contains("plan9/mips"), "{message}");
    let other = Sandbox::new().expect("a registry");
    other.ok(["pull", "-q", "--prefer", "wasm", &image]);
    assert_eq!(other.ok(["run", "--rm", "--prefer", "wasm", &image]), "hello from wasm\n");
}

#[test]
fn a_pull_tells_what_it_did() {
    let Some(sandbox) = Sandbox::new() else { return };
    let busybox = sandbox.image("busybox:latest");
    let ended = sandbox.run(["pull", &busybox]);
    assert_eq!(ended.code, Some(0), "{ended}");
    assert!(ended.stdout.starts_with("Digest: sha256:"), "{ended}");
    assert!(ended.stdout.contains("\nKind: linux\n") && ended.stdout.ends_with(&format!("{busybox}\n")), "{ended}");
    assert!(ended.stderr.contains("Pull complete"), "{ended}");
    assert_eq!(sandbox.run(["pull", "-q", &busybox]).stderr, "");
}

#[test]
fn names_are_given_and_taken_away() {
    let Some((sandbox, [hello])) = Sandbox::with(["hello:linux"]) else { return };
    let id = sandbox.ok(["images", "-q"]).trim_end().to_owned();
    sandbox.ok(["tag", &hello, "mine:v1"]);
    sandbox.ok(["tag", "mine:v1", "mine"]);
    assert_eq!(sandbox.ok(["images", "mine", "--format", "{{.Tag}}"]).lines().count(), 2);
    assert_eq!(sandbox.ok(["run", "--rm", "mine"]), "hello from linux\n");
    let message = sandbox.fails(1, ["rmi", &id]);
    assert!(message.contains("mine:v1") && message.contains("--force"), "{message}");
    let said = sandbox.ok(["rmi", &hello]);
    assert!(said.contains("Untagged") && !said.contains("Deleted"), "{said}");
    assert_eq!(sandbox.ok(["run", "--rm", "mine:v1"]), "hello from linux\n");

    sandbox.ok(["create", "--name", "user", "mine"]);
    let ended = sandbox.run(["rmi", "mine", "mine:v1"]);
    assert_ne!(ended.code, Some(0), "{ended}");
    assert!(ended.stderr.contains("used by a container"), "{ended}");
    assert_eq!(sandbox.ok(["start", "-a", "user"]), "hello from linux\n");
    sandbox.ok(["rm", "user"]);
    sandbox.ok(["rmi", "-f", &id]);
    assert_eq!(sandbox.ok(["images", "-q"]), "");
    for folder in ["layers", "image-layout/blobs/sha256"] {
        assert_eq!(sandbox.stored(folder), [""; 0], "{folder}");
    }
    let message = sandbox.fails(1, ["rmi", "mine"]);
    assert!(message.contains("mine"), "{message}");
    sandbox.check_clean();
}

#[test]
fn removing_a_wasm_image_removes_its_compiled_code() {
    let Some((sandbox, [hello])) = Sandbox::with(["hello:wasm"]) else { return };
    assert_ne!(sandbox.stored("compiled"), [""; 0]);
    sandbox.ok(["rmi", &hello]);
    assert_eq!(sandbox.stored("compiled"), [""; 0]);
}

#[test]
fn archives_and_folders_of_images_are_loaded() {
    let Some(sandbox) = Sandbox::new() else { return };
    let Some(archives) = fixture("archives") else { return };
    let Some(layouts) = fixture("layouts") else { return };
    let echo = ["echo", "loaded"];
    for (file, name, words, output) in [
        (archives.join("busybox.docker.tar"), "busybox:latest", &echo[..], "loaded\n"),
        (archives.join("busybox.oci.tar"), "busybox:latest", &echo, "loaded\n"),
        (archives.join("busybox-zstd"), "busybox:zstd", &echo, "loaded\n"),
        // Entries begin with `./`.
        (archives.join("hello-wasm.oci.tar"), "hello:wasm", &[], "hello from wasm\n"),
        (archives.join("hello-both.oci.tar"), "hello:latest", &[], "hello from linux\n"),
        (layouts.join("hello-component"), "hello:component", &[], "hello from wasm\n"),
    ] {
        let path = file.to_str().expect("UTF-8");
        assert_eq!(sandbox.ok(["load", "-i", path]), format!("Loaded image: {name}\n"), "{path}");
        let words = [&["run", "--rm", "--pull", "never", name], words].concat();
        assert_eq!(sandbox.ok(words), output, "{path}");
        if file.is_file() {
            let mut command = sandbox.command(["load", "-q"]);
            command.stdin(Stdio::from(fs::File::open(&file).expect("the archive")));
            let ended = Session::start(command).wait();
            let said = format!("Loaded image: {name}\n");
            assert_eq!((ended.code, ended.stdout.as_str()), (Some(0), said.as_str()), "{path}: {ended}");
        }
        sandbox.ok(["rmi", name]);
    }
    sandbox.check_clean();
}

#[test]
fn a_debian_root_file_system_is_pulled_imported_and_run() {
    let Some(sandbox) = Sandbox::new() else { return };
    let Some(tar) = fixture("debian.tar") else { return };
    let tar = tar.to_str().expect("UTF-8");
    let images = ["debian:bookworm", "debian:docker"].map(|name| sandbox.pull(name));
    sandbox.ok(["import", "--change", r#"CMD ["dpkg", "--version"]"#, "--change", "ENV A=b", tar, "imported:v1"]);
    for image in &images {
        let said = sandbox.ok(["run", "--rm", image, "dpkg", "--version"]);
        assert!(said.starts_with("Debian 'dpkg'"), "{image}: {said}");
    }
    assert!(sandbox.ok(["run", "--rm", "imported:v1"]).starts_with("Debian 'dpkg'"));
    let script = "echo $A; stat -c %U:%G:%a /etc/shadow /usr/bin/passwd; dpkg --audit; echo ok";
    let said = sandbox.ok(["run", "--rm", "imported:v1", "bash", "-c", script]);
    assert_eq!(said, "b\nroot:shadow:640\nroot:root:4755\nok\n");
    // One set of files for the three images: the layers have the same content.
    assert_eq!(sandbox.stored("layers").len(), 1);
}

#[test]
fn wasm_files_and_text_are_imported() {
    let Some(sandbox) = Sandbox::new() else { return };
    let Some(programs) = fixture("programs") else { return };
    for folder in ["wasm", "component"] {
        let file = programs.join(folder).join("hello.wasm");
        sandbox.ok(["import", file.to_str().expect("UTF-8"), "local/hello"]);
        assert_eq!(sandbox.ok(["run", "--rm", "local/hello"]), "hello from wasm\n", "{folder}");
        let mut command = sandbox.command(["import", "-", "local/piped"]);
        command.stdin(Stdio::from(fs::File::open(&file).expect("the program")));
        let ended = Session::start(command).wait();
        assert_eq!(ended.code, Some(0), "{folder}: {ended}");
        assert_eq!(sandbox.ok(["run", "--rm", "local/piped"]), "hello from wasm\n", "{folder}");
    }
    let text = sandbox.file("reader.wat", files::reader("note"));
    let digest = sandbox.ok(["import", &text, "local/reader"]);
    assert!(digest.starts_with("sha256:"), "{digest}");
    sandbox.file("note", "read\n");
    assert_eq!(sandbox.ok(["run", "--rm", "-v", ".:/data", "local/reader"]), "read\n");
    let shown = sandbox.ok(["image", "explain", "local/reader"]);
    assert!(shown.contains("kind: wasm") && shown.contains("form: module"), "{shown}");
}

#[test]
fn a_real_wasm_application_runs_on_the_users_files() {
    if is_second_kernel() {
        println!("skipped: 66 MB of Wasm take too long to compile on an emulated machine");
        return;
    }
    let Some(sandbox) = Sandbox::new() else { return };
    if fixture("yosys").is_none() {
        return;
    }
    // Compiling is the longest that any command takes.
    let image = sandbox.image("yosys:latest");
    let status = sandbox.command(["pull", "-q", &image]).status().expect("amphora");
    assert!(status.success());
    let said = sandbox.ok(["run", "--rm", "-m", "1g", "--timeout", "100s", &image, "-V"]);
    assert!(said.starts_with("Yosys "), "{said}");
    sandbox.file("and.v", "module top(input a, b, output c); assign c = a & b; endmodule\n");
    let flags = ["run", "--rm", "-m", "1g", "-v", ".:/src", "-w", "/src", &image];
    let script = "read_verilog and.v; proc; write_json and.json";
    let ended = sandbox.run(flags.iter().copied().chain(["-q", "-p", script]));
    assert_eq!(ended.code, Some(0), "{ended}");
    let json = fs::read(sandbox.work().join("and.json")).expect("what yosys wrote");
    let design: Value = serde_json::from_slice(&json).expect("JSON");
    assert!(design["modules"]["top"]["ports"]["c"].is_object(), "{design}");
}

#[test]
fn the_store_is_a_layout_that_other_tools_read() {
    let Some((sandbox, [_hello])) = Sandbox::with(["hello:linux"]) else { return };
    let layout = sandbox.root().join("image-layout");
    let read = |path: &Path| -> Value {
        let bytes = fs::read(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        serde_json::from_slice(&bytes).expect("JSON")
    };
    assert_eq!(read(&layout.join("oci-layout"))["imageLayoutVersion"], "1.0.0");
    let index = read(&layout.join("index.json"));
    let entry = &index["manifests"][0];
    let digest = entry["digest"].as_str().and_then(|digest| digest.strip_prefix("sha256:")).expect("a digest");
    let manifest = read(&layout.join("blobs/sha256").join(digest));
    assert_eq!(manifest["schemaVersion"], 2);
    for part in [&manifest["config"], &manifest["layers"][0]] {
        let digest = part["digest"].as_str().expect("a digest").replace(':', "/");
        let blob = fs::metadata(layout.join("blobs").join(digest)).expect("the blob");
        assert_eq!(part["size"], blob.len());
    }
}
