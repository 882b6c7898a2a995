//! Attacks from inside a container, and on what its user trusts: each was a way to the host once.

use std::{fs, os::unix::fs::PermissionsExt, process::Command};

use crate::sandbox::Sandbox;

/// A planted record made `rm -f` and `stop` kill any process of the host.
#[test]
fn a_record_that_names_a_stranger_kills_nobody() {
    let Some((sandbox, [sleep])) = Sandbox::with(["sleep:linux"]) else { return };
    sandbox.ok(["create", "--name", "victim", &sleep, "1000"]);
    let id = sandbox.inspect("victim", ".Id");
    let mut stranger = Command::new("sleep").arg("1000").spawn().expect("a process");
    let ticks = |pid: u32| {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).expect("its state");
        stat.rsplit_once(')').expect("a name").1.split_whitespace().nth(19).expect("a time").to_owned()
    };
    let own = std::process::id();
    let record = format!(
        r#"{{"format":1,"pid":{0},"start_ticks":{1},"supervisor_pid":{own},"supervisor_start_ticks":{2},"started_unix_nanos":1}}"#,
        stranger.id(),
        ticks(stranger.id()),
        ticks(own)
    );
    fs::create_dir_all(sandbox.runroot().join("running")).expect("a folder");
    let planted = sandbox.runroot().join("running").join(format!("{id}.json"));
    fs::write(&planted, record).expect("a record");
    for command in [
        &["stop", "-t", "0", "victim"][..],
        &["kill", "victim"],
        &["exec", "victim", "/bin/true"],
        &["rm", "-f", "victim"],
    ] {
        // In a user namespace an ordinary user's other processes cannot be told apart.
        if command[0] == "rm" && !sandbox.is_root() {
            continue;
        }
        sandbox.run(command);
        assert!(stranger.try_wait().expect("its state").is_none(), "{command:?} ended a stranger");
    }
    stranger.kill().expect("its end");
    stranger.wait().expect("its end");
    // Already gone where `rm -f` has removed the container with its records.
    let _ = fs::remove_file(planted);
}

#[test]
fn places_that_others_can_write_to_are_not_used() {
    let Some((sandbox, [sleep])) = Sandbox::with(["sleep:linux"]) else { return };
    for place in [sandbox.root(), sandbox.runroot()] {
        fs::create_dir_all(&place).expect("a folder");
        let before = fs::metadata(&place).expect("a folder").permissions();
        fs::set_permissions(&place, fs::Permissions::from_mode(0o777)).expect("a mode");
        let error = sandbox.fails(125, ["run", "--rm", &sleep, "0"]);
        assert!(error.contains("can be written to by others") && error.contains("chmod go-w"), "{error}");
        fs::set_permissions(&place, before).expect("a mode");
    }
    sandbox.ok(["run", "--rm", &sleep, "0"]);
}

/// CVE-2021-41091: a setuid file that a container leaves in a volume is out of the reach of the host's users.
#[test]
fn nobody_else_reaches_what_lies_in_a_volume() {
    let Some((sandbox, [busybox])) = Sandbox::with(["busybox:latest"]) else { return };
    let volumes = sandbox.root().join("volumes");
    fs::create_dir_all(volumes.join("vol")).expect("a folder");
    for folder in [sandbox.root(), volumes.clone(), volumes.join("vol")] {
        fs::set_permissions(&folder, fs::Permissions::from_mode(0o755)).expect("a mode");
    }
    sandbox.ok(["run", "--rm", "-v", "vol:/v", &busybox, "sh", "-c", "cp /bin/busybox /v/sh && chmod 4755 /v/sh"]);
    for folder in [volumes.clone(), volumes.join("vol")] {
        let mode = fs::metadata(&folder).expect("a folder").permissions().mode() & 0o777;
        assert_eq!(mode, 0o700, "{}", folder.display());
    }
    // Inside, every user does.
    assert_eq!(sandbox.ok(["run", "--rm", "-u", "1", "-v", "vol:/v", &busybox, "ls", "/v"]), "sh\n");
}

/// A FIFO in the place of /etc/passwd locked every `exec` out.
#[test]
fn a_container_locks_no_exec_out() {
    let Some((sandbox, [busybox])) = Sandbox::with(["busybox:latest"]) else { return };
    let script = "mkdir -p /etc; rm -f /etc/passwd /etc/group; mkfifo /etc/passwd /etc/group; echo up; exec sleep 1000";
    sandbox.ok(["run", "-d", "--name", "fifo", &busybox, "sh", "-c", script]);
    crate::session::until("the FIFO", || sandbox.ok(["logs", "fifo"]).contains("up").then_some(()));
    assert_eq!(sandbox.ok(["exec", "fifo", "echo", "in"]), "in\n");
    assert_eq!(sandbox.ok(["exec", "-u", "0:0", "fifo", "echo", "in"]), "in\n");
    let error = sandbox.fails(1, ["exec", "-u", "web", "fifo", "echo", "in"]);
    assert!(error.contains("/etc/passwd"), "{error}");
    sandbox.ok(["rm", "-f", "fifo"]);
    sandbox.check_clean();
}

/// With CAP_SYS_ADMIN a fresh tmpfs is without `nodev`; Docker refuses the devices all the same.
#[test]
fn a_container_that_mounts_opens_no_device_of_its_own_making() {
    let Some((sandbox, [busybox])) = Sandbox::with(["busybox:latest"]) else { return };
    let script = "mkdir -p /t && mount -t tmpfs none /t || exit 9
        mknod /t/null c 1 3 && echo x > /t/null || exit 8
        for d in 'c 1 1' 'c 5 3' 'c 10 200' 'c 10 229' 'c 10 232' 'c 10 237' 'c 4 64' 'b 7 0' 'b 254 0'; do
            mknod /t/d $d || exit 7; (head -c 1 /t/d || echo x > /t/d) 2>&1; rm /t/d; done";
    let ended = sandbox.run(["run", "--rm", "--cap-add", "SYS_ADMIN", &busybox, "sh", "-c", script]);
    if ended.stderr.contains("no cgroup controller for devices") {
        return println!("skipped: the machine has none, and amphora warns of it");
    }
    if !sandbox.is_root() {
        // In a user namespace no node works, and the kernel lets none be made.
        return assert!(matches!(ended.code, Some(7..=9)), "{ended}");
    }
    assert_eq!(ended.stdout.matches("Operation not permitted").count(), 18, "{ended}");
    sandbox.check_clean();
}

/// It mounts the hierarchy, in which its own group is the root that it sees, and gives itself all devices.
#[test]
fn a_container_that_mounts_its_device_cgroup_allows_itself_nothing() {
    let Some((sandbox, [busybox])) = Sandbox::with(["busybox:latest"]) else { return };
    let script = "mkdir -p /d /t && mount -t tmpfs none /t && mount -t cgroup -o devices d /d || exit 9
        echo a > /d/devices.allow; echo 'c 10:* rwm' > /d/devices.allow
        for d in 'c 10 200' 'c 10 229' 'c 10 237' 'b 7 0'; do mknod /t/d $d; (: < /t/d) && echo opened $d; rm /t/d; done; exit 3";
    let ended = sandbox.run(["run", "--rm", "--cap-add", "SYS_ADMIN", &busybox, "sh", "-c", script]);
    // There is none to mount on v2, and none may be in a user namespace.
    assert!(matches!(ended.code, Some(3 | 9)), "{ended}");
    assert!(!ended.stdout.contains("opened"), "{ended}");
}

/// The root of a cgroup v1 hierarchy has a `release_agent`, which the kernel runs as root of the host; a container that mounts must
/// find a group of its own there, by whatever way it comes to be able to, after a restart and in `exec` too.
#[test]
fn a_container_that_can_mount_shares_no_cgroup_with_the_host() {
    let Some((sandbox, [busybox])) = Sandbox::with(["busybox:latest"]) else { return };
    if !sandbox.is_root() {
        return println!("skipped: in a user namespace nothing in the hierarchies belongs to anybody inside");
    }
    let look = "mkdir -p /h; cut -d: -f2 /proc/self/cgroup | while read h; do
        t=cgroup; [ -n \"$h\" ] || t=cgroup2
        mount -t $t -o ${h:-rw} none /h || continue; [ ! -e /h/release_agent ] || echo $h: root
        grep -qx 0 /h/cgroup.procs && echo $h: others; umount /h; done; grep -v ':/$' /proc/self/cgroup; echo looked";
    let script = format!("{look}; sleep 1000");
    for options in [&["--cap-add", "SYS_ADMIN"][..], &["--security-opt", "seccomp=unconfined"]] {
        let run = ["run", "-d", "--name", "mounts"].iter().chain(options).copied();
        sandbox.ok(run.chain([busybox.as_str(), "sh", "-c", &script]));
        for round in 1..=2 {
            let looked = || (sandbox.ok(["logs", "mounts"]).matches("looked").count() == round).then_some(());
            crate::session::until("a look at the hierarchies", looked);
            assert_eq!(sandbox.ok(["logs", "mounts"]), "looked\n".repeat(round), "{options:?}");
            assert_eq!(sandbox.ok(["exec", "mounts", "sh", "-c", look]), "looked\n", "{options:?}");
            let (id, pid) = (sandbox.inspect("mounts", ".Id"), sandbox.inspect("mounts", ".State.Pid"));
            let groups = fs::read_to_string(format!("/proc/{pid}/cgroup")).expect("its groups");
            assert!(groups.lines().all(|line| line.contains(&format!("/amphora/{id}"))), "{options:?}: {groups}");
            sandbox.ok(["stop", "-t", "0", "mounts"]);
            sandbox.check_clean();
            sandbox.ok(["start", "mounts"]);
        }
        sandbox.ok(["rm", "-f", "mounts"]);
        sandbox.check_clean();
    }
}

/// Accepted and ignored, once.
#[test]
fn a_wasm_program_in_a_root_file_system_refuses_what_does_not_apply() {
    let Some((sandbox, [image])) = Sandbox::with(["hello:docker-wasm"]) else { return };
    for (flag, value) in [("--entrypoint", "/other"), ("-w", "/tmp")] {
        let error = sandbox.fails(125, ["run", "--rm", flag, value, &image]);
        assert!(error.contains("Wasm program in a root file system"), "{flag}: {error}");
    }
    sandbox.ok(["run", "--rm", &image]);
}

/// A frozen group of cgroup v1 keeps what is in it from dying by SIGKILL, and so the first process from being gone.
#[test]
fn a_container_that_froze_its_own_processes_is_stopped() {
    let Some((sandbox, [busybox])) = Sandbox::with(["busybox:latest"]) else { return };
    let freezer = std::path::Path::new("/sys/fs/cgroup/freezer");
    if !sandbox.is_root() || !freezer.join("cgroup.procs").exists() {
        return println!("skipped: needs root and the freezer hierarchy of cgroup v1");
    }
    let script = "mkdir /f && mount -t cgroup -o freezer none /f && mkdir -p /f/a/b || exit 9; sleep 1000 &
        echo $! >/f/a/b/cgroup.procs; echo FROZEN >/f/a/b/freezer.state; echo FROZEN >/f/a/freezer.state; echo frozen; wait";
    for command in [&["stop", "-t", "0"][..], &["kill"], &["rm", "-f"]] {
        let run = ["run", "-d", "--name", "frozen", "--cap-add", "SYS_ADMIN", &busybox, "sh", "-c", script];
        let id = sandbox.ok(run);
        crate::session::until("the frozen process", || sandbox.ok(["logs", "frozen"]).contains("frozen").then_some(()));
        sandbox.ok(command.iter().copied().chain(["frozen"]));
        assert!(!freezer.join("amphora").join(id.trim()).exists(), "{command:?}");
        sandbox.run(["rm", "-f", "frozen"]);
        sandbox.check_clean();
    }
    // By a signal to the supervisor, and at the time limit.
    for (options, code) in [(&["--timeout", "2s", "--stop-timeout", "0"][..], 124), (&[], 143)] {
        let run = ["run", "--rm", "--cap-add", "SYS_ADMIN"].iter().chain(options).copied();
        let session = sandbox.start(run.chain([busybox.as_str(), "sh", "-c", script]));
        session.until_printed("frozen");
        if code == 143 {
            session.signal(nix::sys::signal::Signal::SIGTERM);
        }
        let ended = session.wait();
        assert_eq!(ended.code, Some(code), "{ended}");
        sandbox.check_clean();
    }
}
