//! The cache of compiled code, its atomicity and whom it trusts.

#![allow(clippy::unwrap_used, reason = "a test stops where it cannot go on")]

mod program;

use program::{DIGEST, cache_in, command_of, compile, counting, outcome, plain};
use std::{
    fs::{self, File, Permissions},
    io,
    os::unix::fs::{FileExt, FileTypeExt, MetadataExt, PermissionsExt, chown, symlink},
    path::{Path, PathBuf},
    process::Command as Process,
    sync::atomic::{AtomicUsize, Ordering},
    thread,
};
use tempfile::TempDir;
use wasm_exec::{CacheError, CodeCache, Found, Outcome};

const PROGRAM: &[u8] =
    b"\0asm\x01\0\0\0\x01\x04\x01\x60\0\0\x03\x02\x01\0\x07\x0a\x01\x06_start\0\0\x0a\x04\x01\x02\0\x0b";

fn empty() -> (TempDir, CodeCache) {
    let dir = tempfile::tempdir().unwrap();
    let cache = cache_in(dir.path());
    (dir, cache)
}

fn filled() -> (TempDir, CodeCache, PathBuf) {
    let (dir, cache) = empty();
    compile(&cache, DIGEST, PROGRAM, plain()).unwrap();
    let [file] = files(&cache).try_into().unwrap();
    (dir, cache, file)
}

fn files(cache: &CodeCache) -> Vec<PathBuf> {
    let mut files: Vec<_> = fs::read_dir(&cache.dir).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    files
}

/// Why what is there is not run. It is replaced, and what replaces it runs.
fn refused(cache: &CodeCache) -> String {
    let Found::Refused(why) = cache.lookup(DIGEST, plain()).unwrap() else { panic!("it is not refused") };
    let code = compile(cache, DIGEST, PROGRAM, plain()).unwrap();
    assert_eq!(outcome(command_of(code)), Outcome::Exited(0));
    assert!(cache.lookup(DIGEST, plain()).unwrap().code().is_some());
    why
}

/// Changes a file in its place, as somebody does of whom the cache knows nothing.
fn change(file: &Path, change: impl Fn(&File)) {
    let changed = |file: &Path| file.metadata().map(|found| (found.ctime(), found.ctime_nsec())).unwrap();
    let before = changed(file);
    // Older kernels give all changes within a few milliseconds one time.
    while changed(file) == before {
        change(&File::options().write(true).open(file).unwrap());
    }
}

fn is_root() -> bool {
    let root = fs::metadata("/proc/self").unwrap().uid() == 0;
    if !root {
        println!("skipped: only root can change a file's owner or its own root directory");
    }
    root
}

/// In a process of a test's.
fn cache_of_environment() -> CodeCache {
    let dir = PathBuf::from(std::env::var_os("CACHE_DIR").unwrap());
    CodeCache::new(dir.clone(), dir.with_file_name("checked"))
}

#[test]
fn what_was_compiled_is_found_and_runs() {
    let (_dir, cache) = empty();
    assert!(cache.lookup(DIGEST, plain()).unwrap().code().is_none());
    compile(&cache, DIGEST, PROGRAM, plain()).unwrap();
    let code = cache.lookup(DIGEST, plain()).unwrap().code().unwrap();
    assert!(!code.component && code.profile == plain());
    assert_eq!(outcome(command_of(code)), Outcome::Exited(0));
}

#[test]
fn code_that_counts_is_another_file() {
    let (_dir, cache, file) = filled();
    assert_eq!(cache.bytes(DIGEST, plain()).unwrap(), Some(file.metadata().unwrap().len()));
    assert_eq!(cache.bytes(DIGEST, counting()).unwrap(), None);
    assert!(cache.lookup(DIGEST, counting()).unwrap().code().is_none());
    assert!(compile(&cache, DIGEST, PROGRAM, counting()).unwrap().profile.fuel);
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
    assert!(compile(&cache, DIGEST, &wasm, plain()).unwrap().component);
    assert_eq!(outcome(command_of(cache.lookup(DIGEST, plain()).unwrap().code().unwrap())), Outcome::Exited(0));
}

#[test]
fn a_component_runs_without_proc_and_never_loads_what_an_image_has_in_its_place() {
    if !is_root() {
        return;
    }
    let root = tempfile::tempdir().unwrap();
    let cache = CodeCache::new(root.path().join("compiled"), root.path().join("checked"));
    let wasm = wat::parse_str(program::component("i32.const 0")).unwrap();
    compile(&cache, DIGEST, &wasm, plain()).unwrap();
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
    let mounted = dir.path().join("compiled");
    fs::create_dir(&mounted).unwrap();
    unshare.args(["--mount", "sh", "-c", script]).arg(test).env("CACHE_DIR", mounted);
    assert!(unshare.status().unwrap().success());
}

#[test]
#[ignore = "a process of the test above"]
fn child_that_compiles_and_runs() {
    let cache = cache_of_environment();
    assert_eq!(outcome(command_of(compile(&cache, DIGEST, PROGRAM, plain()).unwrap())), Outcome::Exited(0));
    let component = wat::parse_str(program::component("i32.const 0")).unwrap();
    let digest = DIGEST.replace('0', "1");
    assert_eq!(outcome(command_of(compile(&cache, &digest, &component, plain()).unwrap())), Outcome::Exited(0));
}

#[test]
#[ignore = "a process of the test above"]
fn child_that_runs() {
    let cache = cache_of_environment();
    assert_eq!(outcome(command_of(cache.lookup(DIGEST, plain()).unwrap().code().unwrap())), Outcome::Exited(0));
}

#[test]
fn a_second_compile_takes_what_is_there() {
    let (_dir, cache, file) = filled();
    let before = file.metadata().unwrap().ino();
    compile(&cache, DIGEST, PROGRAM, plain()).unwrap();
    assert_eq!(file.metadata().unwrap().ino(), before);
}

#[test]
fn a_file_cut_short_anywhere_is_compiled_again() {
    let (_dir, cache, file) = filled();
    let whole = file.metadata().unwrap().len();
    for bytes in [0, 1, 55, 56, whole / 2, whole - 4096, whole - 56, whole - 32, whole - 1] {
        change(&file, |file| file.set_len(bytes).unwrap());
        assert_eq!(cache.stale(&|_| true).unwrap(), std::slice::from_ref(&file), "{bytes} of {whole}");
        refused(&cache);
        assert_eq!(file.metadata().unwrap().len(), whole);
    }
    // Longer, as if two writers had shared it.
    change(&file, |file| file.set_len(whole + 4096).unwrap());
    refused(&cache);
}

#[test]
fn a_bit_that_changed_anywhere_is_noticed() {
    let (_dir, cache, file) = filled();
    let whole = file.metadata().unwrap().len();
    for at in [0, 63, whole / 3, whole / 2, whole - 57, whole - 56, whole - 48, whole - 40, whole - 32, whole - 1] {
        let mut byte = [0];
        File::open(&file).unwrap().read_exact_at(&mut byte, at).unwrap();
        change(&file, |file| file.write_all_at(&[byte[0] ^ 4], at).unwrap());
        assert!(refused(&cache).contains("has not written it so"), "{at} of {whole}");
    }
}

/// Machine code that was put into the file, with a length and a checksum that anybody could make, would be run.
#[test]
fn code_that_somebody_else_made_is_not_run() {
    let (_dir, cache, file) = filled();
    let (_other_dir, _other_cache, others) = filled();
    // That of another store, as a backup of another machine has it.
    fs::copy(&others, &file).unwrap();
    assert!(refused(&cache).contains("has not written it so"));
    // The same file, with the same size, under this name: it is another inode.
    let copy = file.with_extension("copy");
    fs::copy(&others, &copy).unwrap();
    fs::rename(&copy, &file).unwrap();
    refused(&cache);
    // Without the key nothing of it is this store's.
    fs::remove_file(cache.dir.with_extension("key")).unwrap();
    fs::remove_dir_all(&cache.checked).unwrap();
    assert!(refused(&cache).contains("no key"));
}

#[test]
fn the_key_is_the_owners_alone_or_made_anew() {
    let (_dir, cache, file) = filled();
    let key = cache.dir.with_extension("key");
    let first = fs::read(&key).unwrap();
    assert_eq!((first.len(), key.metadata().unwrap().mode() & 0o777), (32, 0o600));
    let spoils: [&dyn Fn(&Path); 4] = [
        &|key| fs::set_permissions(key, Permissions::from_mode(0o640)).unwrap(),
        &|key| fs::write(key, [1; 31]).unwrap(),
        &|key| fs::write(key, []).unwrap(),
        &|key| {
            fs::rename(key, key.with_extension("elsewhere")).unwrap();
            symlink(key.with_extension("elsewhere"), key).unwrap();
        },
    ];
    for spoil in spoils {
        let before = fs::read(&key).unwrap();
        spoil(&key);
        fs::remove_dir_all(&cache.checked).unwrap();
        refused(&cache);
        let found = fs::symlink_metadata(&key).unwrap();
        assert!(found.is_file() && found.mode() & 0o777 == 0o600);
        assert_ne!(fs::read(&key).unwrap(), before);
    }
    assert!(file.exists());
}

#[test]
fn a_file_is_read_once_in_the_life_of_a_machine() {
    let (_dir, cache, file) = filled();
    // As after a start of the machine: nothing is noted.
    fs::remove_dir_all(&cache.checked).unwrap();
    let noted = cache.checked.join(file.file_name().unwrap());
    assert!(cache.lookup(DIGEST, plain()).unwrap().code().is_some());
    let text = fs::read_link(&noted).unwrap();
    assert_eq!(cache.checked.metadata().unwrap().mode() & 0o777, 0o700);
    // From now on nobody asks for the key.
    fs::rename(cache.dir.with_extension("key"), cache.dir.with_extension("elsewhere")).unwrap();
    assert!(cache.lookup(DIGEST, plain()).unwrap().code().is_some());
    // What was noted before the last start of the machine counts for nothing.
    let text = text.to_str().unwrap().to_owned();
    let (started, rest) = text.split_once(' ').unwrap();
    let earlier = started.parse::<u64>().unwrap() - 2;
    for forged in [format!("{earlier} {rest}"), format!("{started} {rest}9"), rest.to_owned(), "x".to_owned()] {
        fs::remove_file(&noted).unwrap();
        symlink(forged, &noted).unwrap();
        assert!(cache.lookup(DIGEST, plain()).unwrap().code().is_none());
    }
    fs::rename(cache.dir.with_extension("elsewhere"), cache.dir.with_extension("key")).unwrap();
    assert!(cache.lookup(DIGEST, plain()).unwrap().code().is_some());
    assert_eq!(fs::read_link(&noted).unwrap().to_str().unwrap(), text);
}

/// It costs a start the check, and no more.
#[test]
fn what_cannot_be_noted_is_checked_again() {
    let (_dir, mut cache, _file) = filled();
    cache.checked = "/proc/nothing/can/be/made/here".into();
    for _ in 0..2 {
        assert!(cache.lookup(DIGEST, plain()).unwrap().code().is_some());
    }
}

#[test]
fn code_of_another_program_is_not_run_in_its_place() {
    let (_dir, cache, file) = filled();
    let other = DIGEST.replace("00", "11");
    compile(&cache, &other, PROGRAM, plain()).unwrap();
    let mut both = files(&cache);
    let aside = cache.dir.join("aside");
    fs::rename(&both[0], &aside).unwrap();
    fs::rename(&both[1], &both[0]).unwrap();
    fs::rename(&aside, &both[1]).unwrap();
    assert!(
        cache.lookup(DIGEST, plain()).unwrap().code().is_none()
            && cache.lookup(&other, plain()).unwrap().code().is_none()
    );
    let mut stale = cache.stale(&|_| true).unwrap();
    stale.sort();
    both.sort();
    assert_eq!(stale, both);
    assert_eq!(outcome(command_of(compile(&cache, DIGEST, PROGRAM, plain()).unwrap())), Outcome::Exited(0));
    assert_eq!(cache.stale(&|_| true).unwrap(), both.into_iter().filter(|path| *path != file).collect::<Vec<_>>());
}

#[test]
fn code_of_another_engine_is_not_loaded() {
    let (_dir, cache, file) = filled();
    compile(&cache, DIGEST, PROGRAM, counting()).unwrap();
    let [other] = files(&cache).into_iter().filter(|path| *path != file).collect::<Vec<_>>().try_into().unwrap();
    fs::rename(&other, &file).unwrap();
    refused(&cache);
    // What was noted of the one that is not there any more says nothing.
    assert!(cache.stale(&|_| true).unwrap().is_empty() && cache.checked.join(other.file_name().unwrap()).is_symlink());
    cache.forget_gone().unwrap();
    assert_eq!(fs::read_dir(&cache.checked).unwrap().count(), 1);
}

#[test]
fn a_file_that_others_can_write_is_replaced() {
    let (_dir, cache, file) = filled();
    for mode in [0o602, 0o620, 0o666] {
        fs::set_permissions(&file, Permissions::from_mode(mode)).unwrap();
        let before = file.metadata().unwrap().ino();
        let why = refused(&cache);
        assert!(why.contains(&format!("{mode:04o}")), "{why}");
        let after = file.metadata().unwrap();
        assert!(after.ino() != before && after.mode() & 0o777 == 0o600);
    }
    fs::set_permissions(&file, Permissions::from_mode(0o644)).unwrap();
    assert!(cache.lookup(DIGEST, plain()).unwrap().code().is_some());
}

#[test]
fn a_file_of_another_user_is_replaced() {
    if !is_root() {
        return;
    }
    let (_dir, cache, file) = filled();
    chown(&file, Some(12345), None).unwrap();
    assert!(refused(&cache).contains("12345"));
}

#[test]
fn what_is_not_a_regular_file_is_replaced_or_named() {
    let (_dir, cache, file) = filled();
    let elsewhere = file.with_extension("elsewhere");
    fs::rename(&file, &elsewhere).unwrap();
    symlink(&elsewhere, &file).unwrap();
    assert!(refused(&cache).contains("symbolic link"));
    assert!(elsewhere.exists());

    // One that would be waited for, if it were opened like a file.
    fs::remove_file(&file).unwrap();
    assert!(Process::new("mkfifo").arg(&file).status().unwrap().success());
    assert!(file.metadata().unwrap().file_type().is_fifo());
    assert_eq!(cache.stale(&|_| true).unwrap(), [""; 0].map(PathBuf::from), "it is not waited for either");
    assert!(refused(&cache).contains("not a regular file"));

    fs::remove_file(&file).unwrap();
    fs::create_dir(&file).unwrap();
    let error = compile(&cache, DIGEST, PROGRAM, plain()).unwrap_err().to_string();
    assert!(error.contains(file.to_str().unwrap()), "{error}");
}

#[test]
fn what_is_not_a_digest_is_not_a_path() {
    let (_dir, cache) = empty();
    for text in ["", "../../etc/passwd", &DIGEST[1..], &DIGEST.to_uppercase(), &format!("{DIGEST}0")] {
        assert!(matches!(cache.lookup(text, plain()), Err(CacheError::Digest(_))), "{text}");
        assert!(matches!(compile(&cache, text, PROGRAM, plain()), Err(CacheError::Digest(_))), "{text}");
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
        let error = compile(&cache, DIGEST, bytes, plain()).unwrap_err();
        assert!(matches!(error, CacheError::Program { .. }), "{error}");
        assert!(error.to_string().contains(expected), "{error}");
    }
    assert!(files(&cache).is_empty());
}

#[test]
fn of_many_who_want_one_program_one_compiles_it() {
    let (_dir, cache) = empty();
    let compiled = AtomicUsize::new(0);
    let wasm = || {
        compiled.fetch_add(1, Ordering::Relaxed);
        Ok::<_, CacheError>(PROGRAM.to_vec())
    };
    thread::scope(|scope| {
        for _ in 0..50 {
            scope.spawn(|| {
                let code = cache.compile(DIGEST, plain(), wasm).unwrap();
                assert_eq!(outcome(command_of(code)), Outcome::Exited(0));
            });
        }
    });
    assert_eq!((compiled.into_inner(), files(&cache).len()), (1, 1));
}

/// What was killed has written part of it, or nothing.
#[test]
fn a_writer_that_was_killed_holds_up_nobody() {
    let (_dir, cache, file) = filled();
    let mut draft = file.clone().into_os_string();
    draft.push(".tmp");
    for left in [&b""[..], b"half of it"] {
        fs::remove_file(&file).unwrap();
        fs::write(&draft, left).unwrap();
        compile(&cache, DIGEST, PROGRAM, plain()).unwrap();
        assert_eq!(files(&cache), std::slice::from_ref(&file));
    }
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
    assert!(cache.lookup(DIGEST, plain()).unwrap().code().is_some());
}

#[test]
#[ignore = "a process of the test above"]
fn child_that_compiles() {
    let cache = cache_of_environment();
    for _ in 0..20 {
        let code = compile(&cache, DIGEST, PROGRAM, plain()).unwrap();
        assert_eq!(outcome(command_of(code)), Outcome::Exited(0));
        cache.remove(DIGEST).unwrap();
    }
    compile(&cache, DIGEST, PROGRAM, plain()).unwrap();
}

#[test]
fn a_full_disk_is_an_error_and_leaves_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let mounted = Process::new("mount").args(["-t", "tmpfs", "-o", "size=8k", "none"]).arg(dir.path()).status();
    if !mounted.is_ok_and(|status| status.success()) {
        println!("skipped: a small file system cannot be mounted here (needs root)");
        return;
    }
    let cache = CodeCache::new(dir.path().join("compiled"), dir.path().join("checked"));
    let error = compile(&cache, DIGEST, PROGRAM, plain());
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
    compile(&cache, DIGEST, PROGRAM, counting()).unwrap();
    let other = DIGEST.replace("00", "11");
    compile(&cache, &other, PROGRAM, plain()).unwrap();
    let name = file.file_name().unwrap().to_str().unwrap();
    fs::write(cache.dir.join(name.replace(&name[65..81], "0123456789abcdef")), "of an older engine").unwrap();
    assert_eq!(files(&cache).len(), 4);

    cache.remove(DIGEST).unwrap();
    assert_eq!(files(&cache).len(), 1);
    assert_eq!(fs::read_dir(&cache.checked).unwrap().count(), 1);
    assert!(cache.lookup(&other, plain()).unwrap().code().is_some());
    cache.remove(DIGEST).unwrap();
}

#[test]
fn leftovers_are_listed_and_nothing_else() {
    let (_dir, cache, file) = filled();
    assert!(cache.stale(&|_| true).unwrap().is_empty());
    assert_eq!(cache.stale(&|_| false).unwrap(), std::slice::from_ref(&file));

    let name = file.file_name().unwrap().to_str().unwrap();
    let counting = compile(&cache, DIGEST, PROGRAM, counting()).map(|_| files(&cache)).unwrap();
    let [counting] = counting.into_iter().filter(|path| *path != file).collect::<Vec<_>>().try_into().unwrap();
    cache.discard(&counting).unwrap();
    let counting = counting.file_name().unwrap().to_str().unwrap();
    let leftovers = [format!("{counting}.tmp"), name.replace(&name[65..81], "0123456789abcdef")];
    let leftovers = leftovers.map(|name| cache.dir.join(name));
    let others = [format!("{name}.tmp"), "README".into(), "other.tmp".into()];
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
    let cache = CodeCache::new("/nonexistent/compiled".into(), "/nonexistent/checked".into());
    assert!(cache.lookup(DIGEST, plain()).unwrap().code().is_none());
    assert!(cache.stale(&|_| false).unwrap().is_empty());
    cache.remove(DIGEST).unwrap();
}

fn baseline() -> wasm_exec::Profile {
    wasm_exec::Profile { baseline: true, ..plain() }
}

#[test]
fn baseline_code_runs_and_goes_when_there_is_better() {
    let (_dir, cache) = empty();
    let code = compile(&cache, DIGEST, PROGRAM, baseline()).unwrap();
    assert!(code.profile.baseline);
    assert_eq!(outcome(command_of(code)), Outcome::Exited(0));
    assert!(cache.lookup(DIGEST, plain()).unwrap().code().is_none());
    let hasty = files(&cache);
    let name = hasty[0].file_name().unwrap().to_str().unwrap();
    assert!(name.ends_with("-baseline.cwasm"), "{name}");
    let code = cache.lookup(DIGEST, baseline()).unwrap().code().unwrap();

    let made = cache.compile_on_the_side(DIGEST, plain(), || Ok::<_, CacheError>(PROGRAM.to_vec())).unwrap().unwrap();
    assert!(cache.is_being_compiled(DIGEST, plain()).unwrap());
    assert!(cache.lookup(DIGEST, plain()).unwrap().code().is_none());
    made.publish().unwrap();
    assert!(!cache.is_being_compiled(DIGEST, plain()).unwrap());
    assert!(!cache.lookup(DIGEST, plain()).unwrap().code().unwrap().profile.baseline);
    assert_eq!(files(&cache).len(), 1);
    // Who has found the other one still runs it.
    assert_eq!(outcome(command_of(code)), Outcome::Exited(0));
    // It is not made any more, and where it is all the same it is a leftover.
    compile(&cache, DIGEST, PROGRAM, baseline()).unwrap();
    assert_eq!(files(&cache).len(), 1);
    fs::copy(&files(&cache)[0], &hasty[0]).unwrap();
    assert_eq!(cache.stale(&|_| true).unwrap(), hasty);
}

#[test]
fn what_is_made_on_the_side_waits_for_nobody_and_may_be_dropped() {
    let (_dir, cache) = empty();
    fs::create_dir_all(&cache.dir).unwrap();
    let wasm = || Ok::<_, CacheError>(PROGRAM.to_vec());
    let made = cache.compile_on_the_side(DIGEST, plain(), wasm).unwrap().unwrap();
    assert!(
        cache
            .compile_on_the_side(DIGEST, plain(), || unreachable!("somebody is at it"))
            .unwrap_or_else(|error: CacheError| panic!("{error}"))
            .is_none()
    );
    assert!(cache.stale(&|_| true).unwrap().is_empty(), "it is being written");
    drop(made);
    assert!(files(&cache).is_empty());
    compile(&cache, DIGEST, PROGRAM, plain()).unwrap();
    assert!(cache.compile_on_the_side(DIGEST, plain(), wasm).unwrap().is_none(), "it is there");
}
