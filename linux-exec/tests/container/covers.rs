//! Attacks on what covers and what is covered: masks, devices, the console, and mounts that land where they must not.
use crate::sandbox::{Sandbox, read_terminal, run, unfiltered};
use linux_exec::{
    capabilities::CapabilitySet,
    plan::{Mount, MountSource, Plan, Stdio},
    spawn::{Exit, reap, spawn},
};
use std::{
    fs,
    os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt, symlink},
    path::Path,
    sync::atomic::{AtomicBool, Ordering},
};

pub(crate) fn all() {
    masks_are_not_the_volumes_choice();
    a_volume_lands_on_nothing_that_the_container_is_kept_in_by();
    a_volume_that_changes_meanwhile_lands_on_nothing_either();
    the_hosts_devices_keep_their_modes();
    a_terminal_is_not_the_volumes_choice();
    a_privileged_container_has_a_dev_of_its_own();
}

fn bind(source: &Path, target: &str) -> Mount {
    let source = MountSource::Bind { source: source.into(), recursive: true };
    Mount::new(target, source, false)
}

const MASKS: &str = "for f in /proc/keys /proc/timer_list /dev/null; do stat -c '%F %t:%T' $f; done";
const MASKS_HOLD: &str = "character special file 1:3\ncharacter special file 1:3\ncharacter special file 1:3\n";

/// CVE-2025-31133: a volume that lands on /dev brings its own `null`, which every mask then was.
fn masks_are_not_the_volumes_choice() {
    let sandbox = Sandbox::new();
    symlink("/proc/sys/kernel/core_pattern", sandbox.path("host/null")).unwrap();
    symlink("/dev", sandbox.path("lower/data")).unwrap();
    let mut plan = sandbox.plan(&["/bin/sh", "-c", MASKS]);
    plan.mounts.push(bind(&sandbox.path("host"), "/data"));
    let error = spawn(plan).unwrap_err().to_string();
    assert!(error.contains("/data") && error.contains("symbolic link in /dev"), "{error}");
    // A file of the image's choice instead of the device, as a runtime's own /etc/hosts had it.
    let sandbox = Sandbox::new();
    fs::write(sandbox.path("host/hosts"), "127.0.0.1 me\n").unwrap();
    symlink("/dev/null", sandbox.path("lower/etc/hosts")).unwrap();
    let mut plan = sandbox.plan(&["/bin/sh", "-c", MASKS]);
    plan.mounts.push(bind(&sandbox.path("host/hosts"), "/etc/hosts"));
    assert!(spawn(plan).unwrap_err().to_string().contains("/etc/hosts"));
    // Named plainly it is what was asked for, and masks are still masks.
    let sandbox = Sandbox::new();
    fs::write(sandbox.path("host/own"), "own\n").unwrap();
    let (exit, output) = sandbox.sh(&format!("cat /dev/null; {MASKS}"), |plan| {
        plan.mounts.push(bind(&sandbox.path("host/own"), "/dev/null"));
    });
    assert_eq!(exit, Exit::Code(0), "{output}");
    assert_eq!(
        output,
        format!("own\n{}", MASKS_HOLD.replacen("character special file 1:3\n", "", 1) + "regular file 0:0\n")
    );
}

fn a_volume_lands_on_nothing_that_the_container_is_kept_in_by() {
    for place in [
        "/proc",
        "/proc/sys",
        "/proc/keys",
        "/sys",
        "/sys/kernel",
        "/sys/fs/cgroup",
        "/dev",
        "/dev/pts",
        "/dev/full",
        "/",
    ] {
        let sandbox = Sandbox::new();
        symlink(place, sandbox.path("lower/data")).unwrap();
        fs::write(sandbox.path("host/file"), "").unwrap();
        let is_file = matches!(place, "/proc/keys" | "/dev/full");
        let source = sandbox.path(if is_file { "host/file" } else { "host" });
        let tmpfs = MountSource::Tmpfs { size_bytes: None, mode: 0o755, exec: false };
        let tmpfs = (!is_file).then(|| Mount::new("/data", tmpfs, false));
        for mount in [Some(bind(&source, "/data")), tmpfs].into_iter().flatten() {
            let mut plan = sandbox.plan(&["/bin/true"]);
            plan.mounts.push(mount);
            let error = spawn(plan).unwrap_err().to_string();
            assert!(error.contains("would land on"), "{place}: {error}");
        }
        if !place.starts_with("/dev/") {
            let mut plan = sandbox.plan(&["/bin/true"]);
            plan.mounts.push(bind(&source, place));
            let error = spawn(plan).unwrap_err().to_string();
            assert!(error.contains("would land on"), "{place} itself: {error}");
        }
    }
    let sandbox = Sandbox::new();
    let (exit, output) = sandbox.sh("echo x > /dev/own/y && echo z > /dev/shm/z", |plan| {
        plan.mounts.push(bind(&sandbox.path("host"), "/dev/own"));
        plan.mounts.push(bind(&sandbox.path("host"), "/dev/shm"));
    });
    assert_eq!(exit, Exit::Code(0), "{output}");
    assert!(sandbox.path("host/y").exists() && sandbox.path("host/z").exists());
    assert!(!Path::new("/dev/own").exists());
}

/// Another container on the same volume moves the mount point away and puts a link in its place.
fn a_volume_that_changes_meanwhile_lands_on_nothing_either() {
    let sandbox = Sandbox::new();
    let volume = sandbox.path("host");
    fs::create_dir(volume.join("a")).unwrap();
    symlink("/proc", volume.join("b")).unwrap();
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let path = |name: &str| std::ffi::CString::new(volume.join(name).to_str().unwrap()).unwrap();
            while !done.load(Ordering::Relaxed) {
                rustix_exchange(&path("a"), &path("b"));
            }
        });
        let mut landed = [0, 0];
        for _ in 0..400 {
            let mut plan = sandbox.plan(&["/bin/sh", "-c", "cat /proc/self/mounts"]);
            plan.mounts.push(bind(&volume, "/data"));
            plan.mounts.push(bind(&sandbox.path("lower"), "/data/a"));
            match run(plan) {
                Ok((exit, output)) => {
                    assert_eq!(exit, Exit::Code(0), "{output}");
                    assert_eq!(output.lines().filter(|line| line.contains(" /proc ")).count(), 1, "{output}");
                    landed[0] += 1;
                }
                Err(_) => landed[1] += 1,
            }
        }
        done.store(true, Ordering::Relaxed);
        assert!(landed[0] > 0 && landed[1] > 0, "the race was not run: {landed:?}");
    });
}

fn rustix_exchange(a: &std::ffi::CStr, b: &std::ffi::CStr) {
    use nix::fcntl::{AT_FDCWD, RenameFlags, renameat2};
    renameat2(AT_FDCWD, a, AT_FDCWD, b, RenameFlags::RENAME_EXCHANGE).unwrap();
}

const DEVICES: [&str; 6] = ["null", "zero", "full", "random", "urandom", "tty"];

fn metadata_of_devices() -> Vec<(u32, u32, u32, i64)> {
    let of = |name: &&str| fs::metadata(format!("/dev/{name}")).unwrap();
    DEVICES.iter().map(of).map(|found| (found.mode(), found.uid(), found.gid(), found.ctime_nsec())).collect()
}

fn the_hosts_devices_keep_their_modes() {
    let before = metadata_of_devices();
    let script = "for d in null zero full random urandom tty; do busybox chown 7:7 /dev/$d; chmod 000 /dev/$d; touch /dev/$d; done
        for f in /proc/keys /proc/timer_list; do chmod 777 $f; done; stat -c %a:%u /dev/full";
    let all: fn(&mut Plan<'static>) = |plan| {
        unfiltered(plan, CapabilitySet::all());
    };
    let none: fn(&mut Plan<'static>) = |plan| plan.root_readonly = true;
    for change in [all, none] {
        let (_, output) = Sandbox::new().sh(script.replace("chmod", "busybox chmod").as_str(), change);
        assert!(output.ends_with("0:7\n"), "{output}");
        let remount =
            "for d in null zero full; do busybox mount -o remount,bind,rw,dev /dev/$d; busybox chmod 0 /dev/$d; done";
        Sandbox::new().sh(remount, change);
    }
    assert_eq!(metadata_of_devices(), before);
    // A node that the program makes opens nothing.
    let (_, output) =
        Sandbox::new().sh("busybox mknod /dev/x c 1 3 && busybox mknod /x c 1 3; cat /dev/x /x; exit 0", |_| ());
    assert_eq!(output.matches("Permission denied").count(), 2, "{output}");
}

/// CVE-2025-52565: the console was found by the path /dev/pts/0.
fn a_terminal_is_not_the_volumes_choice() {
    let sandbox = Sandbox::new();
    symlink("/dev", sandbox.path("lower/data")).unwrap();
    symlink("/proc/sys/kernel/core_pattern", sandbox.path("host/console")).unwrap();
    fs::create_dir(sandbox.path("host/pts")).unwrap();
    symlink("/proc/sys/kernel/core_pattern", sandbox.path("host/pts/0")).unwrap();
    let mut plan = sandbox.plan(&["/bin/true"]);
    plan.stdio = Stdio::Terminal { size: None };
    plan.mounts.push(bind(&sandbox.path("host"), "/data"));
    assert!(spawn(plan).is_err());
    // On /dev/pts by name it hides the program's own terminal from it, and is not taken for one.
    let mut plan = sandbox.plan(&["/bin/sh", "-c", "stat -c '%F' /dev/console; echo x > /dev/console; echo end"]);
    plan.stdio = Stdio::Terminal { size: None };
    plan.mounts.push(bind(&sandbox.path("host/pts"), "/dev/pts"));
    let child = spawn(plan).unwrap();
    let output = read_terminal(&child, "end");
    assert!(output.starts_with("character special file\nx\n"), "{output}");
    reap(&child).unwrap();
}

/// What it makes or removes in /dev stays its own, mount points that are made for it too.
fn a_privileged_container_has_a_dev_of_its_own() {
    let sandbox = Sandbox::new();
    let host: Vec<_> = fs::read_dir("/dev")
        .unwrap()
        .flatten()
        .filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_char_device() || kind.is_block_device()))
        .map(|entry| entry.file_name().into_string().unwrap())
        .filter(|name| name != "console" && name != "ptmx")
        .collect();
    let script = "touch /dev/made && busybox rm /dev/zero && ls -d /dev/own && busybox chmod 0 /dev/full && ls /dev";
    let (exit, output) = sandbox.sh(script, |plan| {
        for mount in &mut plan.mounts {
            if let MountSource::Dev { host_devices, .. } = &mut mount.source {
                *host_devices = true;
            }
        }
        plan.mounts.push(bind(&sandbox.path("host"), "/dev/own"));
        unfiltered(plan, CapabilitySet::all());
        plan.masked_paths.clear();
    });
    assert_eq!(exit, Exit::Code(0), "{output}");
    for name in host.iter().filter(|name| *name != "zero") {
        assert!(output.lines().any(|line| line == name), "{name} is missing: {output}");
    }
    assert!(!Path::new("/dev/made").exists() && !Path::new("/dev/own").exists());
    assert!(fs::metadata("/dev/zero").unwrap().file_type().is_char_device());
    assert_ne!(fs::metadata("/dev/full").unwrap().permissions().mode() & 0o777, 0);
}
