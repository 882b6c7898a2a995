//! Published attacks on other runtimes that no other test makes; docs/security.md names for each what shows that it fails here.

use std::{
    ffi::OsString,
    fs,
    io::Read,
    os::unix::fs::{MetadataExt, symlink},
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use serde_json::{Value, json};

use crate::{
    files::reader,
    sandbox::{Sandbox, fixture, is_second_kernel},
    session::{Ended, Session},
};

fn parse(path: &Path) -> Value {
    serde_json::from_slice(&fs::read(path).expect("a document")).expect("JSON")
}

/// Runs a tool of the machine.
fn tool(name: &str, arguments: &[&str]) -> String {
    let output = Command::new(name).args(arguments).output().unwrap_or_else(|error| panic!("{name}: {error}"));
    assert!(output.status.success(), "{name} {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).expect("text")
}

fn text(path: &Path) -> &str {
    path.to_str().expect("UTF-8")
}

/// The digest of a file.
fn digest(path: &Path) -> String {
    format!("sha256:{}", tool("sha256sum", &[text(path)]).split(' ').next().expect("a sum"))
}

/// Loads busybox with another configuration, and one more layer if there is a folder for one.
fn altered(sandbox: &Sandbox, name: &str, layer: Option<&Path>, change: impl FnOnce(&mut Value)) -> Option<Ended> {
    let folder = sandbox.work().join(format!("image-{name}"));
    fs::create_dir(&folder).expect("a folder");
    tool("tar", &["-xf", text(&fixture("archives/busybox.docker.tar")?), "-C", text(&folder)]);
    let mut manifest = parse(&folder.join("manifest.json"));
    let mut config = parse(&folder.join(manifest[0]["Config"].as_str().expect("a name")));
    if let Some(layer) = layer {
        let file = folder.join("extra.tar");
        tool("tar", &["-cf", text(&file), "-C", text(layer), "."]);
        manifest[0]["Layers"].as_array_mut().expect("layers").push(json!("extra.tar"));
        config["rootfs"]["diff_ids"].as_array_mut().expect("ids").push(json!(digest(&file)));
    }
    change(&mut config);
    manifest[0]["Config"] = json!("altered.json");
    manifest[0]["RepoTags"] = json!([format!("local/{name}:v1")]);
    fs::write(folder.join("altered.json"), config.to_string()).expect("a config");
    // It may not be written to.
    fs::remove_file(folder.join("manifest.json")).expect("the old manifest");
    fs::write(folder.join("manifest.json"), manifest.to_string()).expect("a manifest");
    let archive = sandbox.work().join(format!("{name}.tar"));
    let entries = fs::read_dir(&folder).expect("a folder").flatten();
    let names: Vec<OsString> = entries.map(|entry| entry.file_name()).collect();
    let packed = Command::new("tar").arg("-cf").arg(&archive).arg("-C").arg(&folder).args(names).status();
    assert!(packed.expect("tar").success());
    Some(sandbox.run(["load", "-i", text(&archive)]))
}

/// CVE-2026-55686: the working directory of the image, or of the user, leads out by a link of the image or of a volume.
#[test]
fn cve_2026_55686_a_working_directory_is_made_nowhere_but_inside() {
    let Some((sandbox, [busybox])) = Sandbox::with(["busybox:latest"]) else { return };
    let (outside, layer) = (sandbox.work().join("outside"), sandbox.work().join("layer"));
    fs::create_dir(&outside).expect("a folder");
    fs::create_dir(&layer).expect("a folder");
    let up = format!("../../../../../../../..{}", outside.display());
    symlink(&outside, layer.join("abs")).expect("a link");
    symlink(&up, layer.join("up")).expect("a link");
    let before = fs::metadata(&outside).expect("a folder");
    let unchanged = |what: &str| {
        let now = fs::metadata(&outside).expect("a folder");
        assert_eq!(fs::read_dir(&outside).expect("a folder").count(), 0, "{what}");
        let figures = |of: &fs::Metadata| (of.mode(), of.uid(), of.gid(), of.mtime_nsec(), of.ctime_nsec());
        assert_eq!(figures(&now), figures(&before), "{what}");
    };
    for (index, directory) in ["/abs", "/abs/made", "/up/made", "/abs/../up/made", "/../abs/made"].iter().enumerate() {
        let name = format!("wd{index}");
        let Some(loaded) =
            altered(&sandbox, &name, Some(&layer), |config| config["config"]["WorkingDir"] = json!(directory))
        else {
            return;
        };
        assert_eq!(loaded.code, Some(0), "{loaded}");
        sandbox.run(["run", "--rm", &format!("local/{name}:v1"), "/bin/pwd"]);
        unchanged(directory);
    }
    let script = format!("ln -s {} /v/abs; ln -s {up} /v/up; exec sleep 1000", outside.display());
    sandbox.ok(["run", "-d", "--name", "links", "-v", "vol:/v", &busybox, "sh", "-c", &script]);
    crate::session::until("the links", || sandbox.ok(["exec", "links", "ls", "/v"]).contains("up").then_some(()));
    for directory in ["/v/abs/made", "/v/up/made", "/v/abs/../up/made"] {
        sandbox.run(["run", "--rm", "-v", "vol:/v", "-w", directory, &busybox, "pwd"]);
        sandbox.run(["exec", "-w", directory, "links", "pwd"]);
        unchanged(directory);
    }
}

/// CVE-2026-57231: an entry of the image's environment without a value took it from the caller's.
#[test]
fn cve_2026_57231_an_image_takes_nothing_from_the_callers_environment() {
    let Some(sandbox) = Sandbox::new() else { return };
    let entries = json!(["PATH=/bin", "SECRET_OF_THE_CALLER", "SECRET_*", "*", "=", "", "=SECRET_OF_THE_CALLER"]);
    let Some(loaded) = altered(&sandbox, "env", None, |config| config["config"]["Env"] = entries) else { return };
    if loaded.code != Some(0) {
        return assert_eq!(loaded.code, Some(1), "{loaded}");
    }
    for arguments in [
        &["run", "--rm", "local/env:v1", "env"][..],
        &["run", "-d", "--name", "env", "local/env:v1", "sleep", "1000"],
        &["exec", "env", "env"],
    ] {
        let mut command = sandbox.command(arguments);
        command.env("SECRET_OF_THE_CALLER", "leaked").env("SECRET_OTHER", "leaked");
        let ended = Session::start(command).wait();
        assert!(!ended.stdout.contains("leaked") && !ended.stderr.contains("leaked"), "{ended}");
    }
}

/// CVE-2026-30892: a user that is one digit was root.
#[test]
fn cve_2026_30892_a_user_that_is_a_number_is_that_number() {
    let Some((sandbox, [busybox])) = Sandbox::with(["busybox:latest"]) else { return };
    sandbox.ok(["run", "-d", "--name", "users", &busybox, "sleep", "1000"]);
    let script = "id -u; id -g";
    for (user, ids) in
        [("1", "1\n"), ("01", "1\n"), ("1:1", "1\n1\n"), ("1:", "1\n"), ("2:0", "2\n0\n"), (":1", "0\n1\n")]
    {
        for before in [&["exec", "-u", user, "users"][..], &["run", "--rm", "-u", user, &busybox]] {
            let ended = sandbox.run(before.iter().chain(&["sh", "-c", script]).copied());
            // An ordinary user without a range of ids can be nobody else.
            let refused = ended.code == Some(125) && ended.stdout.is_empty();
            assert!(refused || ended.stdout.starts_with(ids), "{before:?}: {ended}");
            assert!(
                !refused || user.ends_with(':') || user.starts_with(':') || !sandbox.is_root(),
                "{before:?}: {ended}"
            );
        }
    }
    for user in
        ["4294967295", "4294967296", "-1", "0x1", "1e0", "1 ", "+1", "99999999999999999999", "1:-1", "1:4294967296"]
    {
        for before in [&["exec", "-u", user, "users"][..], &["run", "--rm", "-u", user, &busybox]] {
            let ended = sandbox.run(before.iter().chain(&["id", "-u"]).copied());
            assert!(ended.code != Some(0) && ended.stdout.is_empty(), "{before:?}: {ended}");
        }
    }
}

/// CVE-2023-25809: without root, or in the host's network namespace, the host's cgroups could be written to.
#[test]
fn cve_2023_25809_nothing_below_the_cgroups_can_be_written() {
    let Some((sandbox, [busybox])) = Sandbox::with(["busybox:latest"]) else { return };
    let script = "find /sys/fs/cgroup -type f | head -n 3000 | while read f; do (: >> $f) 2>/dev/null && echo $f; done
        find /sys/fs/cgroup -type d | head -n 300 | while read d; do mkdir $d/made 2>/dev/null && echo $d && rmdir $d/made; done
        echo tried";
    for flags in [&[][..], &["--network", "host"], &["--read-only", "--network", "host"]] {
        let run = ["run", "--rm"].iter().chain(flags).copied();
        assert_eq!(sandbox.ok(run.chain([busybox.as_str(), "sh", "-c", script])), "tried\n", "{flags:?}");
    }
}

/// CVE-2018-20699: a list of CPUs was unfolded before it was looked at.
#[test]
fn cve_2018_20699_a_huge_list_of_cpus_takes_no_memory() {
    let Some((sandbox, [busybox])) = Sandbox::with(["busybox:latest"]) else { return };
    let many = "0-1,".repeat(20_000) + "70000";
    for list in
        ["1-4294967295", "0-2147483647", "0-18446744073709551615", "0-99999999999999999999999", "4294967296", &many]
    {
        let ended = bounded(&sandbox, "ulimit -v 1000000", &["run", "--rm", "--cpuset-cpus", list, &busybox, "true"]);
        assert_eq!(ended.code, Some(125), "{list:.30}: {}", ended.stderr.len());
        assert!(ended.stderr.contains("CPU") || ended.stderr.contains("cpuset"), "{list:.30}: {:.300}", ended.stderr);
    }
}

/// Runs amphora from a shell that sets a limit first.
fn bounded(sandbox: &Sandbox, limit: &str, arguments: &[&str]) -> Ended {
    let amphora = sandbox.command(arguments);
    let mut command = Command::new("sh");
    command.args(["-c", &format!("{limit}; exec \"$@\""), "sh"]).arg(amphora.get_program()).args(amphora.get_args());
    command.current_dir(sandbox.work()).stdin(Stdio::null());
    Session::start(command).wait()
}

/// CVE-2022-31030: what a program prints was kept in memory.
#[test]
fn cve_2022_31030_endless_output_takes_no_memory() {
    const READ: u64 = 64 << 20;
    let Some((sandbox, [busybox])) = Sandbox::with(["busybox:latest"]) else { return };
    sandbox.ok(["run", "-d", "--name", "prints", &busybox, "sleep", "1000"]);
    let line = "exec cat /dev/zero";
    for arguments in [
        &["run", "--name", "logged", &busybox, "sh", "-c", line][..],
        &["run", "--rm", "-t", &busybox, "sh", "-c", line],
        &["exec", "-t", "prints", "sh", "-c", line],
        &["exec", "prints", "sh", "-c", line],
    ] {
        let mut command = sandbox.command(arguments);
        command.stdout(Stdio::piped()).stderr(Stdio::null());
        let mut child = command.spawn().expect("amphora");
        let mut output = child.stdout.take().expect("a pipe");
        let read = std::io::copy(&mut output.by_ref().take(READ), &mut std::io::sink()).expect("output");
        let status = fs::read_to_string(format!("/proc/{}/status", child.id())).expect("its state");
        drop(output);
        child.wait().expect("its end");
        assert_eq!(read, READ, "{arguments:?}");
        let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).expect("its peak");
        let kilobytes: u64 = peak.trim().trim_end_matches(" kB").parse().expect("a number");
        assert!(kilobytes < 48 << 10, "{arguments:?}: {kilobytes} kB");
    }
}

/// CVE-2022-23471: an `exec` with a terminal whose program is not there left something behind every time.
#[test]
fn cve_2022_23471_a_terminal_for_no_program_leaves_nothing() {
    let Some((sandbox, [busybox])) = Sandbox::with(["busybox:latest"]) else { return };
    sandbox.ok(["run", "-d", "--name", "terminals", &busybox, "sleep", "1000"]);
    let count =
        || sandbox.ok(["exec", "terminals", "sh", "-c", "set -- /dev/pts/*; echo $#; set -- /proc/[0-9]*; echo $#"]);
    let before = count();
    for _ in 0..30 {
        sandbox.fails(127, ["exec", "-t", "terminals", "/missing"]);
    }
    assert_eq!(count(), before);
}

/// A copy of busybox as a layout, and its index, manifest and config.
struct Layout {
    folder: PathBuf,
    index: Value,
    manifest: Value,
    config: Value,
}

impl Layout {
    /// None where it is not there, or slow for nothing: the store does not depend on the kernel.
    fn new(sandbox: &Sandbox) -> Option<Self> {
        if is_second_kernel() {
            println!("skipped: the store is the same on another kernel");
            return None;
        }
        let source = fixture("layouts/busybox-latest")?;
        let folder = sandbox.work().join("layout");
        tool("cp", &["-r", text(&source), text(&folder)]);
        let blob =
            |of: &Value| parse(&folder.join("blobs").join(of["digest"].as_str().expect("a digest").replace(':', "/")));
        let index = parse(&folder.join("index.json"));
        let manifest = blob(&index["manifests"][0]);
        let config = blob(&manifest["config"]);
        Some(Self { folder, index, manifest, config })
    }

    /// Writes a document as a blob, and gives what is to be said of it.
    fn add(&self, document: &Value, media_type: &str) -> Value {
        self.add_bytes(document.to_string().as_bytes(), media_type)
    }

    fn add_bytes(&self, bytes: &[u8], media_type: &str) -> Value {
        let file = self.folder.join("new");
        fs::write(&file, bytes).expect("a blob");
        let (digest, size) = (digest(&file), bytes.len());
        fs::rename(&file, self.folder.join("blobs").join(digest.replace(':', "/"))).expect("a blob");
        json!({"mediaType": media_type, "digest": digest, "size": size})
    }

    /// Loads an image whose only layer has these bytes, and this digest when it is decompressed.
    fn load_layer(&self, sandbox: &Sandbox, bytes: &[u8], media_type: &str, diff_id: &str) -> Ended {
        let (mut manifest, mut config) = (self.manifest.clone(), self.config.clone());
        config["rootfs"]["diff_ids"] = json!([diff_id]);
        config["history"] = json!([]);
        manifest["config"] = self.add(&config, CONFIG);
        manifest["layers"] = json!([self.add_bytes(bytes, media_type)]);
        self.load(sandbox, &json!({"schemaVersion": 2, "manifests": [self.add(&manifest, MANIFEST)]}))
    }

    fn load(&self, sandbox: &Sandbox, index: &Value) -> Ended {
        fs::write(self.folder.join("index.json"), index.to_string()).expect("an index");
        bounded(sandbox, "ulimit -t 100", &["load", "-i", text(&self.folder)])
    }
}

const INDEX: &str = "application/vnd.oci.image.index.v1+json";
const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
const CONFIG: &str = "application/vnd.oci.image.config.v1+json";

/// CVE-2024-3727, CVE-2026-95839, CVE-2021-21285: a digest that is none becomes a path, or ends the program.
#[test]
fn cve_2024_3727_a_digest_that_is_none_is_an_error_wherever_it_stands() {
    let Some(sandbox) = Sandbox::new() else { return };
    let Some(layout) = Layout::new(&sandbox) else { return };
    let upper = format!("sha256:{}", "A".repeat(64));
    let zeros = "0".repeat(64);
    let bad = [
        json!("sha256:../../../../secret"),
        json!("../../../../secret"),
        json!("sha256:"),
        json!(":"),
        json!(""),
        json!("sha256:abc"),
        json!(upper),
        json!(zeros),
        json!(format!("md5:{zeros}")),
        json!(format!("sha256/{zeros}")),
        json!(format!("sha256:{zeros}é")),
        json!(7),
        json!(null),
        json!([]),
    ];
    fs::write(sandbox.work().join("secret"), "{}").expect("a file");
    for wrong in &bad {
        for place in ["index", "config", "layer", "subject", "annotation", "diff id"] {
            let (mut index, mut manifest, mut config) =
                (layout.index.clone(), layout.manifest.clone(), layout.config.clone());
            match place {
                "config" => manifest["config"]["digest"] = wrong.clone(),
                "layer" => manifest["layers"][0]["digest"] = wrong.clone(),
                "subject" => manifest["subject"] = json!({"mediaType": MANIFEST, "digest": wrong, "size": 2}),
                "annotation" => manifest["annotations"] = json!({"org.opencontainers.image.base.digest": wrong}),
                "diff id" => config["rootfs"]["diff_ids"][0] = wrong.clone(),
                _ => {}
            }
            if place == "diff id" {
                manifest["config"] = layout.add(&config, CONFIG);
            }
            index["manifests"] = json!([layout.add(&manifest, MANIFEST)]);
            if place == "index" {
                index["manifests"][0]["digest"] = wrong.clone();
            }
            let ended = layout.load(&sandbox, &index);
            let harmless = matches!(place, "subject" | "annotation") && ended.code == Some(0);
            assert!(harmless || ended.code == Some(1), "{place} {wrong}: {ended}");
            assert!(!ended.stderr.contains("panicked"), "{place} {wrong}: {ended}");
            sandbox.ok(["images"]);
        }
    }
    sandbox.check_clean();
}

/// CVE-2021-20291: a damaged stream was waited for without end.
#[test]
fn cve_2021_20291_a_damaged_stream_is_an_error_wherever_it_is_damaged() {
    let Some(sandbox) = Sandbox::new() else { return };
    let Some(layout) = Layout::new(&sandbox) else { return };
    let plain = sandbox.work().join("layer.tar");
    tool("tar", &["-cf", text(&plain), "-C", text(&sandbox.work()), "layout"]);
    let diff_id = digest(&plain);
    for (name, media_type) in [("gzip", "gzip"), ("zstd", "zstd"), ("xz", "gzip"), ("bzip2", "gzip")] {
        let Ok(packed) = Command::new(name).arg("-c").arg(&plain).output() else {
            println!("skipped in part: {name} is not installed");
            continue;
        };
        let whole = packed.stdout;
        let media_type = format!("application/vnd.oci.image.layer.v1.tar+{media_type}");
        let loads = |bytes: &[u8]| layout.load_layer(&sandbox, bytes, &media_type, &diff_id);
        let ended = loads(&whole);
        assert_eq!(ended.code, Some(0), "{name}: {ended}");
        for part in 0..10 {
            let at = whole.len() * part / 10;
            let mut damaged = whole.clone();
            damaged[at] ^= 0x55;
            // What no checksum covers (a time in a header) may be anything.
            assert!(matches!(loads(&damaged).code, Some(0 | 1)), "{name}, byte {at}");
            assert_eq!(loads(&whole[..at]).code, Some(1), "{name}, cut at {at}");
        }
    }
    sandbox.check_clean();
}

/// CVE-2026-95838: a whiteout of everything, fifty thousand times in a folder of five thousand files.
#[test]
fn cve_2026_95838_whiteouts_without_end_are_not_looked_at_all_over_again() {
    let Some(sandbox) = Sandbox::new() else { return };
    let Some(layout) = Layout::new(&sandbox) else { return };
    let folder = sandbox.work().join("d");
    fs::create_dir(&folder).expect("a folder");
    fs::write(folder.join(".wh..wh..opq"), "").expect("a file");
    let archive = sandbox.work().join("one.tar");
    tool("tar", &["-cf", text(&archive), "-C", text(&sandbox.work()), "d/.wh..wh..opq"]);
    let opaque = fs::read(&archive).expect("an archive")[..512].to_vec();
    for number in 0..5_000 {
        fs::write(folder.join(number.to_string()), "").expect("a file");
    }
    tool("tar", &["-cf", text(&archive), "--exclude=.wh*", "-C", text(&sandbox.work()), "d"]);
    let mut layer = fs::read(&archive).expect("an archive");
    // Without the blocks of zeros at its end.
    let end = layer.chunks(512).rposition(|block| block.iter().any(|&byte| byte != 0)).expect("a header");
    layer.truncate((end + 1) * 512);
    layer.extend(opaque.repeat(50_000));
    layer.extend([0; 1024]);
    fs::write(&archive, &layer).expect("an archive");
    let ended = layout.load_layer(&sandbox, &layer, "application/vnd.oci.image.layer.v1.tar", &digest(&archive));
    // Within the seconds of `load`, whether it is taken or is too much.
    assert!(matches!(ended.code, Some(0 | 1)), "{ended}");
}

/// CVE-2026-53493: six indexes, each of which lists the next a thousand times.
#[test]
fn cve_2026_53493_indexes_that_list_each_other_many_times_come_to_an_end() {
    let Some(sandbox) = Sandbox::new() else { return };
    let Some(layout) = Layout::new(&sandbox) else { return };
    let mut entry = layout.index["manifests"][0].clone();
    for _ in 0..6 {
        entry = layout.add(&json!({"schemaVersion": 2, "mediaType": INDEX, "manifests": vec![entry; 1000]}), INDEX);
    }
    entry["annotations"] = json!({"org.opencontainers.image.ref.name": "local/many:v1"});
    let ended = layout.load(&sandbox, &json!({"schemaVersion": 2, "manifests": [entry]}));
    assert!(ended.code.is_some(), "{ended}");
    for arguments in
        [&["images"][..], &["image", "explain", "local/many:v1"], &["run", "--rm", "local/many:v1", "true"]]
    {
        let ended = bounded(&sandbox, "ulimit -t 100", arguments);
        assert!(ended.code.is_some(), "{arguments:?}: {ended}");
    }
}

/// CVE-2023-25153: documents of a gigabyte, which take no room on the disk.
#[test]
fn cve_2023_25153_documents_of_a_gigabyte_are_not_read() {
    let Some(sandbox) = Sandbox::new() else { return };
    let Some(layout) = Layout::new(&sandbox) else { return };
    let index = layout.folder.join("index.json");
    let manifest = layout.index["manifests"][0]["digest"].as_str().expect("a digest").replace(':', "/");
    let config = layout.manifest["config"]["digest"].as_str().expect("a digest").replace(':', "/");
    let blobs = layout.folder.join("blobs");
    for path in [blobs.join(config), blobs.join(manifest), index] {
        let whole = fs::read(&path).expect("a document");
        fs::OpenOptions::new().write(true).open(&path).expect("a file").set_len(1 << 30).expect("a size");
        let ended = bounded(&sandbox, "ulimit -v 700000", &["load", "-i", text(&layout.folder)]);
        assert_eq!(ended.code, Some(1), "{}: {ended}", path.display());
        assert!(!ended.stderr.contains("memory"), "{}: {ended}", path.display());
        fs::write(&path, whole).expect("a document");
    }
    assert_eq!(sandbox.run(["load", "-i", text(&layout.folder)]).code, Some(0));
}

/// GHSA-vqjp-4c8c-hfgg: a slash at the end of a path, or of a link, led out of the folder that was granted.
#[test]
fn ghsa_vqjp_4c8c_hfgg_slashes_at_the_end_lead_a_wasm_program_nowhere() {
    let Some(sandbox) = Sandbox::new() else { return };
    sandbox.file("secret", "not for the program\n");
    let inside = sandbox.work().join("inside");
    fs::create_dir(&inside).expect("a folder");
    for (name, target) in
        [("file", "../secret"), ("slash", "../secret/"), ("up", ".."), ("up-slash", "../"), ("root", "/")]
    {
        symlink(target, inside.join(name)).expect("a link");
    }
    for path in [
        "file/",
        "file//",
        "slash",
        "slash/",
        "up/secret",
        "up//secret",
        "up-slash/secret",
        "up/secret/",
        "root//etc/passwd",
        "..//secret",
    ] {
        let file = sandbox.file("reader.wat", reader(path));
        sandbox.ok(["import", &file, "local/reader:latest"]);
        let ended = sandbox.run(["run", "--rm", "-v", "./inside:/data", "local/reader:latest"]);
        assert!(ended.code.is_some_and(|code| (1..=76).contains(&code)), "{path}: {ended}");
        assert_eq!(ended.stdout, "", "{path}");
    }
}

/// One call on the folder that a program was given, by descriptor 3 and the names `file` and `made`; it ends with the errno.
fn one_call(function: &str, parameters: &str, arguments: &str) -> String {
    format!(
        r#"(module
  (import "wasi_snapshot_preview1" "{function}" (func $call (param {parameters}) (result i32)))
  (import "wasi_snapshot_preview1" "proc_exit" (func $exit (param i32)))
  (memory (export "memory") 1)
  (data (i32.const 1024) "file")
  (data (i32.const 1032) "made")
  (func (export "_start") (call $exit (call $call {arguments}))))
"#
    )
}

/// GHSA-2r75-cxrj-cmph, GHSA-4ch3-9j33-3pmj: a file of a folder that was granted read-only could be cut short or written.
#[test]
fn ghsa_2r75_cxrj_cmph_a_read_only_folder_is_not_changed_by_a_wasm_program() {
    let Some(sandbox) = Sandbox::new() else { return };
    let folder = sandbox.work().join("granted");
    fs::create_dir(&folder).expect("a folder");
    fs::write(folder.join("file"), "whole\n").expect("a file");
    let state = || {
        let of = |path: &Path| {
            fs::metadata(path).map(|of| (of.mode(), of.mtime(), of.mtime_nsec(), of.nlink())).expect("it")
        };
        (of(&folder), of(&folder.join("file")), fs::read(folder.join("file")).expect("its content"))
    };
    let before = state();
    const OPEN: &str = "i32 i32 i32 i32 i32 i64 i64 i32 i32";
    // Flags: 1 makes, 4 must not be there, 8 cuts; rights: 2 reads, 64 writes, 0x400000 sets the size, -1 all.
    let open = |name: u32, flags: u32, rights: &str, status: u32| {
        format!(
            "(i32.const 3) (i32.const 1) (i32.const {name}) (i32.const 4) (i32.const {flags}) (i64.const {rights}) \
             (i64.const {rights}) (i32.const {status}) (i32.const 0)"
        )
    };
    let calls = [
        ("path_open", OPEN, open(1024, 8, "2", 0)),
        ("path_open", OPEN, open(1024, 8, "66", 0)),
        ("path_open", OPEN, open(1024, 8, "0x1fffffff", 0)),
        ("path_open", OPEN, open(1024, 0, "64", 0)),
        ("path_open", OPEN, open(1024, 0, "64", 1)),
        ("path_open", OPEN, open(1032, 1, "2", 0)),
        ("path_open", OPEN, open(1032, 5, "64", 0)),
        ("path_unlink_file", "i32 i32 i32", "(i32.const 3) (i32.const 1024) (i32.const 4)".to_owned()),
        ("path_create_directory", "i32 i32 i32", "(i32.const 3) (i32.const 1032) (i32.const 4)".to_owned()),
        (
            "path_rename",
            "i32 i32 i32 i32 i32 i32",
            "(i32.const 3) (i32.const 1024) (i32.const 4) (i32.const 3) (i32.const 1032) (i32.const 4)".to_owned(),
        ),
        (
            "path_link",
            "i32 i32 i32 i32 i32 i32 i32",
            "(i32.const 3) (i32.const 0) (i32.const 1024) (i32.const 4) (i32.const 3) (i32.const 1032) (i32.const 4)"
                .to_owned(),
        ),
        (
            "path_symlink",
            "i32 i32 i32 i32 i32",
            "(i32.const 1024) (i32.const 4) (i32.const 3) (i32.const 1032) (i32.const 4)".to_owned(),
        ),
        (
            "path_filestat_set_times",
            "i32 i32 i32 i32 i64 i64 i32",
            "(i32.const 3) (i32.const 0) (i32.const 1024) (i32.const 4) (i64.const 1) (i64.const 1) (i32.const 5)"
                .to_owned(),
        ),
    ];
    for (function, parameters, arguments) in calls {
        let file = sandbox.file("call.wat", one_call(function, parameters, &arguments));
        sandbox.ok(["import", &file, "local/call:latest"]);
        let ended = sandbox.run(["run", "--rm", "-v", "./granted:/data:ro", "local/call:latest"]);
        assert!(ended.code.is_some_and(|code| code != 0 && code < 100), "{function} {arguments}: {ended}");
        assert_eq!(state(), before, "{function} {arguments}");
    }
}

/// CVE-2026-27204: a call with a list as long as the memory made the engine allocate many times that.
#[test]
fn cve_2026_27204_a_wasm_program_makes_the_engine_allocate_little() {
    let Some(sandbox) = Sandbox::new() else { return };
    for (function, parameters, arguments) in [
        ("fd_write", "i32 i32 i32 i32", "(i32.const 1) (i32.const 0) (i32.const 60000000) (i32.const 0)"),
        ("fd_read", "i32 i32 i32 i32", "(i32.const 0) (i32.const 0) (i32.const 60000000) (i32.const 0)"),
        ("random_get", "i32 i32", "(i32.const 0) (i32.const 500000000)"),
        ("poll_oneoff", "i32 i32 i32 i32", "(i32.const 0) (i32.const 0) (i32.const 10000000) (i32.const 8)"),
        (
            "fd_readdir",
            "i32 i32 i32 i64 i32",
            "(i32.const 3) (i32.const 0) (i32.const 500000000) (i64.const 0) (i32.const 0)",
        ),
    ] {
        let module =
            one_call(function, parameters, arguments).replace("(export \"memory\") 1)", "(export \"memory\") 8000)");
        let file = sandbox.file("call.wat", module);
        sandbox.ok(["import", &file, "local/call:latest"]);
        let mut command = sandbox.command(["run", "--name", "allocates", "-v", "./:/data:ro", "local/call:latest"]);
        command.stdout(Stdio::null());
        let ended = Session::start(command).wait();
        assert!(ended.code.is_some(), "{function}: {ended}");
        assert!(!ended.stderr.contains("panicked"), "{function}: {ended}");
        let peak: u64 = sandbox.inspect("allocates", ".State.PeakMemoryBytes").parse().unwrap_or(0);
        // What the program itself may touch, by `random_get`, and as much for the engine.
        assert!(peak < 1100 << 20, "{function}: {peak}");
        sandbox.ok(["rm", "allocates"]);
    }
}
