//! What a program sees of files: volumes, folders of the host, memory.

use std::fs;

use crate::sandbox::Sandbox;

/// A program that prints the file `path`, seen from the first folder that it was given, and ends with the errno of WASI if
/// it cannot.
pub(crate) fn reader(path: &str) -> String {
    let length = path.len();
    format!(
        r#"(module
  (import "wasi_snapshot_preview1" "path_open"
    (func $open (param i32 i32 i32 i32 i32 i64 i64 i32 i32) (result i32)))
  (import "wasi_snapshot_preview1" "fd_read" (func $read (param i32 i32 i32 i32) (result i32)))
  (import "wasi_snapshot_preview1" "fd_write" (func $write (param i32 i32 i32 i32) (result i32)))
  (import "wasi_snapshot_preview1" "proc_exit" (func $exit (param i32)))
  (memory (export "memory") 1)
  (data (i32.const 1024) "{path}")
  (func $must (param $errno i32) (if (local.get $errno) (then (call $exit (local.get $errno)))))
  (func (export "_start")
    (call $must (call $open (i32.const 3) (i32.const 1) (i32.const 1024) (i32.const {length})
      (i32.const 0) (i64.const 2) (i64.const 0) (i32.const 0) (i32.const 0)))
    (i32.store (i32.const 8) (i32.const 2048))
    (i32.store (i32.const 12) (i32.const 4096))
    (call $must (call $read (i32.load (i32.const 0)) (i32.const 8) (i32.const 1) (i32.const 16)))
    (i32.store (i32.const 12) (i32.load (i32.const 16)))
    (call $must (call $write (i32.const 1) (i32.const 8) (i32.const 1) (i32.const 16)))))
"#
    )
}

/// Imports a [`reader`] of a path as `local/reader`.
fn import_reader(sandbox: &Sandbox, path: &str) -> &'static str {
    let file = sandbox.file("reader.wat", reader(path));
    sandbox.ok(["import", &file, "local/reader:latest"]);
    "local/reader:latest"
}

#[test]
fn a_folder_of_the_host_is_shared_with_both_kinds() {
    let Some((sandbox, [busybox])) = Sandbox::with(["busybox:latest"]) else { return };
    let reader = import_reader(&sandbox, "note");
    fs::create_dir(sandbox.work().join("shared")).expect("a folder");
    fs::write(sandbox.work().join("shared/note"), "from the host\n").expect("a file");
    let whole = sandbox.work().join("shared").display().to_string();
    let mount = format!("type=bind,source={whole},target=/data");
    for source in [&["-v", &format!("{whole}:/data")][..], &["-v", "./shared:/data"], &["--mount", &mount]] {
        let run = |rest: &[&str]| sandbox.ok(["run", "--rm"].iter().chain(source).chain(rest).copied());
        assert_eq!(run(&[&busybox, "cat", "/data/note"]), "from the host\n", "{source:?}");
        assert_eq!(run(&[reader]), "from the host\n", "{source:?}");
        run(&[&busybox, "sh", "-c", "echo x >> /data/from-container"]);
    }
    let written = fs::read_to_string(sandbox.work().join("shared/from-container")).expect("what was written");
    assert_eq!(written, "x\n".repeat(3));
}

#[test]
fn a_folder_given_read_only_cannot_be_written_by_either_kind() {
    let Some(sandbox) = Sandbox::new() else { return };
    let (busybox, reader) = (sandbox.pull("busybox:latest"), import_reader(&sandbox, "note"));
    fs::write(sandbox.work().join("note"), "read me\n").expect("a file");
    let ended = sandbox.run(["run", "--rm", "-v", ".:/data:ro", &busybox, "sh", "-c", "cat /data/note; > /data/x"]);
    assert_eq!(ended.stdout, "read me\n", "{ended}");
    assert!(ended.stderr.contains("Read-only file system"), "{ended}");
    assert_eq!(sandbox.ok(["run", "--rm", "-v", ".:/data:ro", reader]), "read me\n");
    for tag in ["linux", "wasm", "component"] {
        let fill = sandbox.pull(&format!("fill:{tag}"));
        let limit = ["--ulimit", "fsize=65536", "--timeout", "60s"];
        let words = ["run", "--rm", "-v", ".:/data:ro"].iter().chain(&limit).copied();
        let ended = sandbox.run(words.chain([fill.as_str(), "/data/y"]));
        assert_eq!(ended.code, Some(1), "{tag}: {ended}");
    }
    assert!(!sandbox.work().join("x").exists() && !sandbox.work().join("y").exists());
}

#[test]
fn one_file_can_be_mounted_for_linux() {
    let Some((sandbox, [busybox])) = Sandbox::with(["busybox:latest"]) else { return };
    sandbox.file("hosts", "1.2.3.4 vessel\n");
    let said = sandbox.ok(["run", "--rm", "-v", "./hosts:/etc/hosts:ro", &busybox, "cat", "/etc/hosts"]);
    assert_eq!(said, "1.2.3.4 vessel\n");
}

#[test]
fn a_named_volume_passes_files_from_one_kind_to_the_other() {
    let Some((sandbox, [busybox])) = Sandbox::with(["busybox:latest"]) else { return };
    let reader = import_reader(&sandbox, "dir/note");
    sandbox.ok(["run", "--rm", "-v", "both:/a", &busybox, "sh", "-c", "mkdir /a/dir; echo handed over > /a/dir/note"]);
    assert_eq!(sandbox.ok(["run", "--rm", "-v", "both:/elsewhere", reader]), "handed over\n");
    for tag in ["wasm", "component"] {
        let fill = sandbox.pull(&format!("fill:{tag}"));
        let words = ["run", "--rm", "-v", "both:/b", "--ulimit", "fsize=131072"];
        sandbox.run(words.iter().copied().chain([fill.as_str(), "/b/filled"]));
        let size =
            sandbox.ok(["run", "--rm", "-v", "both:/c", &busybox, "sh", "-c", "wc -c < /c/filled; rm /c/filled"]);
        assert_eq!(size.trim(), "131072", "{tag}");
    }
}

#[test]
fn memory_is_mounted_with_its_size() {
    let Some((sandbox, [busybox])) = Sandbox::with(["busybox:latest"]) else { return };
    let show = "grep ' /scratch ' /proc/mounts; echo x > /scratch/x && cat /scratch/x";
    let mount = "type=tmpfs,destination=/scratch,tmpfs-size=1m";
    for flags in [["--tmpfs", "/scratch:size=1m"], ["--mount", mount]] {
        let words = ["run", "--rm"].iter().chain(&flags).copied();
        let said = sandbox.ok(words.chain([busybox.as_str(), "sh", "-c", show]));
        assert!(said.contains(" /scratch tmpfs ") && said.contains("size=1024k"), "{said}");
        assert!(said.ends_with("x\n"), "{said}");
    }
    for tag in ["linux", "wasm", "component"] {
        let fill = sandbox.pull(&format!("fill:{tag}"));
        let ended = sandbox.run(["run", "--rm", "--tmpfs", "/scratch:size=1m", &fill, "/scratch/x"]);
        assert_eq!(ended.code, Some(1), "{tag}: {ended}");
        assert!(ended.stderr.contains("No space left on device"), "{tag}: {ended}");
    }
}

#[test]
fn a_volume_without_a_name_goes_with_its_rm_container() {
    let Some((sandbox, [busybox])) = Sandbox::with(["busybox:latest"]) else { return };
    sandbox.ok(["run", "--rm", "-v", "/data", &busybox, "sh", "-c", "echo x > /data/x"]);
    assert_eq!(sandbox.stored("volumes"), [""; 0]);
    sandbox.ok(["run", "--name", "kept", "-v", "/data", &busybox, "sh", "-c", "echo x >> /data/x; cat /data/x"]);
    assert_eq!(sandbox.ok(["start", "-a", "kept"]), "x\nx\n", "the volume stays with its container");
    sandbox.ok(["rm", "-v", "kept"]);
    assert_eq!(sandbox.stored("volumes"), [""; 0]);
}

#[test]
fn a_wasm_program_leaves_its_folders_by_no_path() {
    let Some(sandbox) = Sandbox::new() else { return };
    let secret = sandbox.file("secret", "not for the program\n");
    let inside = sandbox.work().join("inside");
    fs::create_dir(&inside).expect("a folder");
    std::os::unix::fs::symlink(&secret, inside.join("absolute")).expect("a link");
    std::os::unix::fs::symlink("../secret", inside.join("relative")).expect("a link");
    for path in ["../secret", "absolute", "relative", "./../inside/../../work/secret", "/etc/passwd", &secret] {
        let reader = import_reader(&sandbox, path);
        for flags in [&["-v", "./inside:/data"][..], &[]] {
            let words = ["run", "--rm"].iter().chain(flags).copied();
            let ended = sandbox.run(words.chain([reader]));
            assert!(ended.code.is_some_and(|code| (1..=76).contains(&code)), "{path} {flags:?}: {ended}");
            assert_eq!(ended.stdout, "", "{path} {flags:?}");
        }
    }
}

#[test]
fn the_root_directory_has_the_mode_that_the_image_gives_it() {
    let Some((sandbox, [busybox])) = Sandbox::with(["busybox:latest"]) else { return };
    let work = sandbox.work().display().to_string();
    let make = "mkdir -p /out/root/bin && cp /bin/busybox /out/root/bin/ && chmod 711 /out/root && \
        tar -C /out/root -cf /out/root.tar .";
    sandbox.ok(["run", "--rm", "-v", &format!("{work}:/out"), &busybox, "sh", "-c", make]);
    sandbox.ok(["import", &format!("{work}/root.tar"), "local/root:latest"]);
    let mode = ["/bin/busybox", "stat", "-c", "%a", "/"];
    let of = |image: &str| sandbox.ok(["run", "--rm", image].into_iter().chain(mode));
    assert_eq!((of("local/root:latest").as_str(), of(&busybox).as_str()), ("711\n", "755\n"));
}
