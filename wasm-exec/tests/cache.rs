//! The cache of compiled code, its atomicity and whom it trusts.

#![allow(clippy::unwrap_used, reason = "a test stops where it cannot go on")]

mod program;

use program::{DIGEST, command_of, counting, outcome, plain};
use std::{
    fs::{self, File, Permissions},
    io,
    os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt, chown, symlink},
    path::{Path, PathBuf},
    process::Command as Process,
    thread,
};
use tempfile::TempDir;
use wasm_exec::{CacheError, CodeCache, Outcome};

const PROGRAM: &[u8] =
    b"\0asm\x01\0\0\0\x01\x04\x01\x60\0\0\x03\x02\x01\0\x07\x0a\x01\x06_start\0\0\x0a\x04\x01\x02\0\x0b";

fn empty() -> (TempDir, CodeCache) {
    let dir = tempfile::tempdir().unwrap();
    let cache = CodeCache::new(dir.path().join("some/compiled"));
    (dir, cache)
}

fn filled() -> (TempDir, CodeCache, PathBuf) {
    let (dir, cache) = empty();
    cache.compile(DIGEST, PROGRAM, plain()).unwrap();
    let [file] = files(&cache).try_into().unwrap();
    (dir, cache, file)
}

fn files(cache: &CodeCache) -> Vec<PathBuf> {
    let mut files: Vec<_> = fs::read_dir(&cache.dir).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    files
}

fn untrusted(cache: &CodeCache) -> String {
    let error = cache.lookup(DIGEST, plain()).unwrap_err();
    assert!(matches!(error, CacheError::Untrusted { .. }), "{error}");
    assert!(cache.compile(DIGEST, PROGRAM, plain()).is_err(), "compiled over it");
    error.to_string()
}

fn is_root() -> bool {
    let root = fs::metadata("/proc/self").unwrap().uid() == 0;
    if !root {
        println!("skipped: only root can change a file's owner or its own root directory");
    }
    root
}

#[test]
fn what_was_compiled_is_found_and_runs() {
    let (_dir, cache) = empty();
    assert!(cache.lookup(DIGEST, plain()).unwrap().is_none());
    cache.compile(DIGEST, PROGRAM, plain()).unwrap();
    let code = cache.lookup(DIGEST, plain()).unwrap().unwrap();
    assert!(!code.component && code.profile == plain());
    assert_eq!(outcome(command_of(code)), Outcome::Exited(0));
}

#[test]
fn code_that_counts_is_another_file() {
    let (_dir, cache, file) = filled();
    assert!(cache.lookup(DIGEST, counting()).unwrap().is_none());
    assert!(cache.compile(DIGEST, PROGRAM, counting()).unwrap().profile.fuel);
    let names: Vec<_> = files(&cache).iter().map(|path| path.file_name().unwrap().to_owned()).collect();
    assert_eq!(names.len(), 2);
    assert!(names.contains(&file.file_name().unwrap().to_owned()));
    assert!(names.iter().any(|name| name.to_str().unwrap().ends_with("-fuel.cwasm")), "{names:?}");
}

#[test]
fn files_are_private_and_nothing_else_is_left() {
    let (_dir, cache, file) = filled();
    assert_eq!(file.metadata().unwrap().permissions().mode() & 0o777, 0o600);
    assert_eq!(cache.dir.metadata().unwrap().permissions().mode() & 0o777, 0o700);
}

#[test]
fn a_component_is_known_as_one() {
    let (_dir, cache) = empty();
    let wasm = wat::parse_str(program::component("i32.const 0")).unwrap();
    assert!(cache.compile(DIGEST, &wasm, plain()).unwrap().component);
    assert_eq!(outcome(command_of(cache.lookup(DIGEST, plain()).unwrap().unwrap())), Outcome::Exited(0));
}

#[test]
fn a_component_runs_without_proc_and_never_loads_what_an_image_has_in_its_place() {
    if !is_root() {
        return;
    }
    let root = tempfile::tempdir().unwrap();
    let cache = CodeCache::new(root.path().join("compiled"));
    let wasm = wat::parse_str(program::component("i32.const 0")).unwrap();
    cache.compile(DIGEST, &wasm, plain()).unwrap();
    fs::copy(std::env::current_exe().unwrap(), root.path().join("test")).unwrap();
    let child = || {
        let mut chroot = Process::new("chroot");
        chroot.arg(root.path()).args(["/test", "--exact", "child_that_runs", "--ignored"]);
        chroot.env("CACHE_DIR", "/compiled").status().unwrap().success()
    };
    assert!(child());

    let descriptors = root.path().join("proc/self/fd");
    fs::create_dir_all(&descriptors).unwrap();
    for descriptor in 0..32 {
        fs::write(descriptors.join(descriptor.to_string()), "native code of the image").unwrap();
    }
    assert!(child());
}

/// What the kernel would not map as code is copied.
#[test]
fn code_is_run_from_a_file_system_that_executes_nothing() {
    if !is_root() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let test = std::env::current_exe().unwrap();
    let script =
        r#"mount -t tmpfs -o noexec none "$CACHE_DIR" && exec "$0" --exact child_that_compiles_and_runs --ignored"#;
    let mut unshare = Process::new("unshare");
    unshare.args(["--mount", "sh", "-c", script]).arg(test).env("CACHE_DIR", dir.path());
    assert!(unshare.status().unwrap().success());
}

#[test]
#[ignore = "a process of the test above"]
fn child_that_compiles_and_runs() {
    let cache = CodeCache::new(std::env::var_os("CACHE_DIR").unwrap().into());
    assert_eq!(outcome(command_of(cache.compile(DIGEST, PROGRAM, plain()).unwrap())), Outcome::Exited(0));
    let component = wat::parse_str(program::component("i32.const 0")).unwrap();
    let digest = DIGEST.replace('0', "1");
    assert_eq!(outcome(command_of(cache.compile(&digest, &component, plain()).unwrap())), Outcome::Exited(0));
}

#[test]
#[ignore = "a process of the test above"]
fn child_that_runs() {
    let cache = CodeCache::new(std::env::var_os("CACHE_DIR").unwrap().into());
    assert_eq!(outcome(command_of(cache.lookup(DIGEST, plain()).unwrap().unwrap())), Outcome::Exited(0));
}

#[test]
fn a_second_compile_takes_what_is_there() {
    let (_dir, cache, file) = filled();
    let before = file.metadata().unwrap().ino();
    cache.compile(DIGEST, PROGRAM, plain()).unwrap();
    assert_eq!(file.metadata().unwrap().ino(), before);
}

#[test]
fn a_file_cut_short_anywhere_is_compiled_again() {
    let (_dir, cache, file) = filled();
    let whole = file.metadata().unwrap().len();
    for bytes in [0, 1, 87, 88, whole / 2, whole - 4096, whole - 88, whole - 64, whole - 1] {
        File::options().write(true).open(&file).unwrap().set_len(bytes).unwrap();
        assert!(cache.lookup(DIGEST, plain()).unwrap().is_none(), "{bytes} of {whole}");
        assert_eq!(cache.stale(&|_| true).unwrap(), std::slice::from_ref(&file));
        assert_eq!(outcome(command_of(cache.compile(DIGEST, PROGRAM, plain()).unwrap())), Outcome::Exited(0));
        assert_eq!(file.metadata().unwrap().len(), whole);
    }
    // Longer, as if two writers had shared it.
    File::options().write(true).open(&file).unwrap().set_len(whole + 4096).unwrap();
    assert!(cache.lookup(DIGEST, plain()).unwrap().is_none());
}

#[test]
fn code_of_another_program_is_not_run_in_its_place() {
    let (_dir, cache, file) = filled();
    let other = DIGEST.replace("00", "11");
    cache.compile(&other, PROGRAM, plain()).unwrap();
    let mut both = files(&cache);
    let aside = cache.dir.join("aside");
    fs::rename(&both[0], &aside).unwrap();
    fs::rename(&both[1], &both[0]).unwrap();
    fs::rename(&aside, &both[1]).unwrap();
    assert!(cache.lookup(DIGEST, plain()).unwrap().is_none() && cache.lookup(&other, plain()).unwrap().is_none());
    let mut stale = cache.stale(&|_| true).unwrap();
    stale.sort();
    both.sort();
    assert_eq!(stale, both);
    assert_eq!(outcome(command_of(cache.compile(DIGEST, PROGRAM, plain()).unwrap())), Outcome::Exited(0));
    assert_eq!(cache.stale(&|_| true).unwrap(), both.into_iter().filter(|path| *path != file).collect::<Vec<_>>());
}

#[test]
fn code_of_another_engine_is_not_loaded() {
    // As if the configuration had changed without the key: fuel is part of both.
    let (_dir, cache, file) = filled();
    let counting_file = file.with_file_name(format!("{}-fuel.cwasm", file.file_stem().unwrap().to_str().unwrap()));
    cache.compile(DIGEST, PROGRAM, counting()).unwrap();
    let [other] = files(&cache).into_iter().filter(|path| *path != file).collect::<Vec<_>>().try_into().unwrap();
    assert_ne!(other, counting_file, "the keys of the two engines are the same");
    fs::rename(&other, &file).unwrap();
    let error = program::refusal(command_of(cache.lookup(DIGEST, plain()).unwrap().unwrap())).to_string();
    assert!(error.contains("fuel"), "{error}");
}

#[test]
fn a_file_that_others_can_write_is_refused() {
    let (_dir, cache, file) = filled();
    for mode in [0o602, 0o620, 0o666] {
        fs::set_permissions(&file, Permissions::from_mode(mode)).unwrap();
        let error = untrusted(&cache);
        assert!(error.contains(file.to_str().unwrap()) && error.contains(&format!("{mode:04o}")), "{error}");
    }
    fs::set_permissions(&file, Permissions::from_mode(0o644)).unwrap();
    assert!(cache.lookup(DIGEST, plain()).unwrap().is_some());
}

#[test]
fn a_file_of_another_user_is_refused() {
    if !is_root() {
        return;
    }
    let (_dir, cache, file) = filled();
    chown(&file, Some(12345), None).unwrap();
    let error = untrusted(&cache);
    assert!(error.contains("12345") && error.contains("remove it"), "{error}");
}

#[test]
fn what_is_not_a_regular_file_is_refused() {
    let (_dir, cache, file) = filled();
    let elsewhere = file.with_extension("elsewhere");
    fs::rename(&file, &elsewhere).unwrap();
    symlink(&elsewhere, &file).unwrap();
    assert!(untrusted(&cache).contains("symbolic link"));

    fs::remove_file(&file).unwrap();
    fs::create_dir(&file).unwrap();
    assert!(untrusted(&cache).contains("not a regular file"));

    // One that would be waited for, if it were opened like a file.
    fs::remove_dir(&file).unwrap();
    assert!(Process::new("mkfifo").arg(&file).status().unwrap().success());
    assert!(file.metadata().unwrap().file_type().is_fifo());
    assert!(untrusted(&cache).contains("not a regular file"));
    assert_eq!(cache.stale(&|_| true).unwrap(), [""; 0].map(PathBuf::from), "it is not waited for either");
}

#[test]
fn what_is_not_a_digest_is_not_a_path() {
    let (_dir, cache) = empty();
    for text in ["", "../../etc/passwd", &DIGEST[1..], &DIGEST.to_uppercase(), &format!("{DIGEST}0")] {
        assert!(matches!(cache.lookup(text, plain()), Err(CacheError::Digest(_))), "{text}");
        assert!(matches!(cache.compile(text, PROGRAM, plain()), Err(CacheError::Digest(_))), "{text}");
        assert!(matches!(cache.remove(text), Err(CacheError::Digest(_))), "{text}");
    }
}

#[test]
fn what_does_not_compile_says_where_and_leaves_nothing() {
    let (_dir, cache) = empty();
    let mut invalid = PROGRAM.to_vec();
    let last = invalid.len() - 1;
    invalid[last] = 0x1a; // drop instead of end
    for (bytes, expected) in [
        (&invalid[..], "offset "),
        (&PROGRAM[..PROGRAM.len() - 3], "offset "),
        (&b"\0asm\x07\0\0\0"[..], "unknown version"),
        (b"\x7fELF\x02\x01\x01\0", "does not begin with"),
        (b"", "does not begin with"),
    ] {
        let error = cache.compile(DIGEST, bytes, plain()).unwrap_err();
        assert!(matches!(error, CacheError::Program { .. }), "{error}");
        assert!(error.to_string().contains(expected), "{error}");
    }
    assert!(!cache.dir.exists());
}

#[test]
fn many_can_compile_one_program_at_once() {
    let (_dir, cache) = empty();
    thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| {
                let code = cache.compile(DIGEST, PROGRAM, plain()).unwrap();
                assert_eq!(outcome(command_of(code)), Outcome::Exited(0));
            });
        }
    });
    assert_eq!(files(&cache).len(), 1);
}

#[test]
fn processes_can_compile_one_program_at_once() {
    let (_dir, cache) = empty();
    let child = || {
        let mut process = Process::new(std::env::current_exe().unwrap());
        process.args(["--exact", "child_that_compiles", "--ignored"]).env("CACHE_DIR", &cache.dir);
        process.spawn().unwrap()
    };
    for mut child in [child(), child(), child()] {
        assert!(child.wait().unwrap().success());
    }
    assert_eq!(files(&cache).len(), 1);
    assert!(cache.lookup(DIGEST, plain()).unwrap().is_some());
}

#[test]
#[ignore = "a process of the test above"]
fn child_that_compiles() {
    let cache = CodeCache::new(std::env::var_os("CACHE_DIR").unwrap().into());
    for _ in 0..20 {
        let code = cache.compile(DIGEST, PROGRAM, plain()).unwrap();
        assert_eq!(outcome(command_of(code)), Outcome::Exited(0));
        cache.remove(DIGEST).unwrap();
    }
    cache.compile(DIGEST, PROGRAM, plain()).unwrap();
}

#[test]
fn a_full_disk_is_an_error_and_leaves_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let mounted = Process::new("mount").args(["-t", "tmpfs", "-o", "size=8k", "none"]).arg(dir.path()).status();
    if !mounted.is_ok_and(|status| status.success()) {
        println!("skipped: a small file system cannot be mounted here (needs root)");
        return;
    }
    let cache = CodeCache::new(dir.path().into());
    let error = cache.compile(DIGEST, PROGRAM, plain());
    let left = files(&cache);
    assert!(Process::new("umount").arg(dir.path()).status().unwrap().success());
    let Err(CacheError::Io { source, path, .. }) = error else { panic!("{error:?}") };
    assert_eq!(source.kind(), io::ErrorKind::StorageFull);
    assert!(path.starts_with(dir.path()));
    assert!(left.is_empty(), "{left:?}");
}

#[test]
fn removing_a_program_removes_all_its_code_and_no_other() {
    let (_dir, cache, file) = filled();
    cache.compile(DIGEST, PROGRAM, counting()).unwrap();
    let other = DIGEST.replace("00", "11");
    cache.compile(&other, PROGRAM, plain()).unwrap();
    let name = file.file_name().unwrap().to_str().unwrap();
    fs::write(cache.dir.join(name.replace(&name[65..81], "0123456789abcdef")), "of an older engine").unwrap();
    assert_eq!(files(&cache).len(), 4);

    cache.remove(DIGEST).unwrap();
    assert_eq!(files(&cache).len(), 1);
    assert!(cache.lookup(&other, plain()).unwrap().is_some());
    cache.remove(DIGEST).unwrap();
}

#[test]
fn leftovers_are_listed_and_nothing_else() {
    let (_dir, cache, file) = filled();
    assert!(cache.stale(&|_| true).unwrap().is_empty());
    assert_eq!(cache.stale(&|_| false).unwrap(), std::slice::from_ref(&file));

    let name = file.file_name().unwrap().to_str().unwrap();
    let leftovers =
        [format!("{name}.1-0.tmp"), format!("{name}.77-7.0.tmp"), name.replace(&name[65..81], "0123456789abcdef")]
            .map(|name| cache.dir.join(name));
    let others = [format!("{name}.1-1.tmp"), "README".into(), "other.1-0.tmp".into()];
    for path in leftovers.iter().cloned().chain(others.iter().map(|name| cache.dir.join(name))) {
        fs::copy(&file, path).unwrap();
    }
    // Whatever its name says, and wherever he is: somebody writes it.
    let writer = fs::File::open(cache.dir.join(&others[0])).unwrap();
    writer.lock().unwrap();
    let mut stale = cache.stale(&|digest| digest == DIGEST).unwrap();
    stale.sort();
    let mut expected = leftovers.to_vec();
    expected.sort();
    assert_eq!(stale, expected);
}

#[test]
fn a_cache_that_is_not_there_is_empty() {
    let cache = CodeCache::new(Path::new("/nonexistent/compiled").into());
    assert!(cache.lookup(DIGEST, plain()).unwrap().is_none());
    assert!(cache.stale(&|_| false).unwrap().is_empty());
    cache.remove(DIGEST).unwrap();
}
