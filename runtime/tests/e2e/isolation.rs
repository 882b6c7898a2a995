//! What a program must not see or reach.

use std::{
    fs,
    io::{Read, Write},
    os::unix::fs::MetadataExt,
    path::Path,
    process::Command,
};

use crate::{
    sandbox::{KINDS, Sandbox, binary},
    session::until,
};

/// A script in the busybox image: what it prints.
fn shell(sandbox: &Sandbox, busybox: &str, flags: &[&str], script: &str) -> String {
    let words = ["run", "--rm"].iter().chain(flags).copied();
    sandbox.ok(words.chain([busybox, "sh", "-c", script]))
}

#[test]
fn capabilities_seccomp_and_privileges_are_dockers() {
    let Some((sandbox, [busybox])) = Sandbox::with(["busybox:latest"]) else { return };
    let status = |flags: &[&str]| shell(&sandbox, &busybox, flags, "cat /proc/self/status");
    let usual = status(&[]);
    for line in ["CapEff:\t00000000a80425fb", "CapBnd:\t00000000a80425fb", "Seccomp:\t2", "NoNewPrivs:\t1"] {
        assert!(usual.contains(line), "{line} is not in {usual}");
    }
    assert!(usual.contains("CapAmb:\t0000000000000000"), "{usual}");
    assert!(status(&["--cap-drop", "ALL"]).contains("CapEff:\t0000000000000000"));
    assert!(status(&["--cap-drop", "ALL", "--cap-add", "CHOWN"]).contains("CapEff:\t0000000000000001"));
    let unconfined = status(&["--security-opt", "seccomp=unconfined", "--security-opt", "no-new-privileges=false"]);
    assert!(unconfined.contains("Seccomp:\t0") && unconfined.contains("NoNewPrivs:\t0"), "{unconfined}");
}

#[test]
fn dangerous_calls_are_refused() {
    let Some((sandbox, [busybox])) = Sandbox::with(["busybox:latest"]) else { return };
    for script in
        ["mount -t tmpfs none /tmp", "umount /proc/sys", "unshare -m true", "hostname other", "date -s 2000-01-01"]
    {
        let ended = sandbox.run(["run", "--rm", &busybox, "sh", "-c", script]);
        assert!(ended.stderr.contains("not permitted") || ended.stderr.contains("denied"), "{script}: {ended}");
    }
}

#[test]
fn only_its_own_processes_and_its_own_host_name_are_seen() {
    let Some((sandbox, [busybox])) = Sandbox::with(["busybox:latest"]) else { return };
    assert_eq!(shell(&sandbox, &busybox, &[], "echo /proc/[0-9]*"), "/proc/1\n");
    let host = fs::read_to_string("/proc/sys/kernel/hostname").expect("the host's name");
    assert_ne!(shell(&sandbox, &busybox, &[], "hostname"), host);
}

#[test]
fn the_kernels_settings_are_masked_or_read_only() {
    let Some((sandbox, [busybox])) = Sandbox::with(["busybox:latest"]) else { return };
    let masked =
        "cat /proc/kcore /proc/keys /proc/timer_list /proc/interrupts 2>/dev/null | wc -c; ls /sys/firmware | wc -l";
    assert_eq!(shell(&sandbox, &busybox, &[], masked).split_whitespace().collect::<Vec<_>>(), ["0", "0"]);
    let write = "for file in /proc/sys/kernel/domainname /proc/irq/default_smp_affinity /sys/kernel/mm/ksm/run; do \
        (echo 1 > $file) 2>/dev/null && echo wrote $file; done; mkdir /sys/fs/cgroup/x 2>/dev/null && echo made; echo end";
    assert_eq!(shell(&sandbox, &busybox, &[], write), "end\n");
    let mounts = shell(&sandbox, &busybox, &[], "cat /proc/self/mountinfo");
    let is_read_only = |target: &str| {
        let line = mounts.lines().find(|line| line.split(' ').nth(4) == Some(target));
        line.is_some_and(|line| line.split(' ').nth(5).is_some_and(|options| options.starts_with("ro")))
    };
    for target in ["/proc/sys", "/proc/sysrq-trigger", "/sys"].iter().filter(|path| Path::new(path).exists()) {
        assert!(is_read_only(target), "{target} in {mounts}");
    }
}

#[test]
fn the_hosts_folders_are_nowhere_in_the_mounts() {
    let Some((sandbox, [busybox])) = Sandbox::with(["busybox:latest"]) else { return };
    let mounts = shell(&sandbox, &busybox, &[], "cat /proc/self/mounts");
    let targets: Vec<&str> = mounts.lines().filter_map(|line| line.split(' ').nth(1)).collect();
    assert_eq!(targets.iter().filter(|target| **target == "/").count(), 1, "{mounts}");
    for target in targets {
        let known = ["/", "/proc", "/sys", "/dev", "/etc/hosts", "/etc/hostname", "/etc/resolv.conf"].contains(&target);
        let below = ["/proc/", "/sys/", "/dev/"].iter().any(|folder| target.starts_with(folder));
        assert!(known || below, "{target} in {mounts}");
    }
    let outside = shell(&sandbox, &busybox, &[], "ls /proc/1/root/../../..");
    assert_eq!(outside, shell(&sandbox, &busybox, &[], "ls /"));
}

#[test]
fn devices_are_the_harmless_ones() {
    let Some((sandbox, [busybox])) = Sandbox::with(["busybox:latest"]) else { return };
    let listed = shell(&sandbox, &busybox, &[], "ls /dev");
    let expected = [
        "fd", "full", "mqueue", "null", "ptmx", "pts", "random", "shm", "stderr", "stdin", "stdout", "tty", "urandom",
        "zero",
    ];
    for name in
        ["full", "null", "ptmx", "pts", "random", "shm", "tty", "urandom", "zero", "fd", "stdin", "stdout", "stderr"]
    {
        assert!(listed.lines().any(|line| line == name), "no /dev/{name}: {listed}");
    }
    for name in listed.lines() {
        assert!(expected.contains(&name) || matches!(name, "console" | "core"), "/dev/{name}");
    }
    let use_them = "echo x > /dev/null; head -c 3 /dev/zero | wc -c; head -c 5 /dev/urandom | wc -c; echo x > /dev/shm/x && cat /dev/shm/x";
    assert_eq!(shell(&sandbox, &busybox, &[], use_them).split_whitespace().collect::<Vec<_>>(), ["3", "5", "x"]);
}

#[test]
fn a_device_node_that_the_program_makes_opens_nothing() {
    let Some((sandbox, [busybox])) = Sandbox::with(["busybox:latest"]) else { return };
    // A disk of the machine where it has one, and /dev/fuse, which anybody may open where the node is there.
    let partitions = fs::read_to_string("/proc/partitions").unwrap_or_default();
    let disk = partitions.lines().skip(2).find_map(|line| {
        let mut fields = line.split_whitespace();
        Some(format!("b {} {}", fields.next()?, fields.next()?))
    });
    for node in disk.into_iter().chain(["c 10 229".to_owned()]) {
        for folder in ["/", "/dev/", "/dev/shm/", "/tmp/"] {
            let script = format!(
                "mknod {folder}node {node} 2>/dev/null; (: < {folder}node) 2>/dev/null && echo opened; echo end"
            );
            assert_eq!(shell(&sandbox, &busybox, &[], &script), "end\n", "{node} in {folder}");
        }
    }
}

#[test]
fn no_descriptor_leaks_into_a_linux_program() {
    let Some((sandbox, [busybox])) = Sandbox::with(["busybox:latest"]) else { return };
    // The fourth is the folder that `ls` itself reads.
    for flags in [&["--rm"][..], &[], &["--rm", "-i"], &["--rm", "-t"]] {
        let words = ["run"].iter().chain(flags).copied();
        let listed = sandbox.ok(words.chain([busybox.as_str(), "ls", "-1", "/proc/self/fd"]));
        assert_eq!(listed.split_whitespace().collect::<Vec<_>>(), ["0", "1", "2", "3"], "{flags:?}");
    }
}

/// A program opened the other end of the caller's pipe, and read what was written to it when it was long gone.
#[test]
fn a_program_hears_nothing_of_what_others_say_in_the_callers_pipe() {
    let Some((sandbox, [busybox])) = Sandbox::with(["busybox:latest"]) else { return };
    sandbox.ok(["run", "-d", "--name", "spy", &busybox, "sleep", "1000"]);
    let (mut reader, mut writer) = std::io::pipe().expect("a pipe");
    let script = "cat </proc/self/fd/1 >/heard & sleep 0.3";
    let mut command = sandbox.command(["exec", "spy", "sh", "-c", script]);
    assert!(command.stdout(writer.try_clone().expect("a descriptor")).status().expect("amphora").success());
    // It holds a copy of the writing end.
    drop(command);
    writer.write_all(b"secret\n").expect("a pipe");
    drop(writer);
    let mut text = String::new();
    reader.read_to_string(&mut text).expect("a pipe");
    assert_eq!(text, "secret\n");
    assert!(!sandbox.ok(["exec", "spy", "cat", "/heard"]).contains("secret"));
}

/// Every descriptor was used up on the way down, and what such a container had written could not be removed by anybody.
#[test]
fn what_lies_deeper_than_descriptors_reach_is_removed() {
    let Some((sandbox, [busybox])) = Sandbox::with(["busybox:latest"]) else { return };
    let script = "for folder in /volume /; do mkdir -p $folder/$(yes d | head -1000 | tr '\\n' /); done";
    sandbox.ok(["run", "--name", "deep", "-v", "deep:/volume", &busybox, "sh", "-c", script]);
    let few = |words: &str| {
        let amphora = sandbox.command(words.split(' '));
        let mut limited = Command::new("sh");
        limited.args(["-c", "ulimit -n 128; exec \"$0\" \"$@\""]).arg(amphora.get_program()).args(amphora.get_args());
        for (name, value) in amphora.get_envs() {
            limited.env(name, value.expect("set"));
        }
        let ended = limited.output().expect("a shell");
        assert!(ended.status.success(), "{words}: {}", String::from_utf8_lossy(&ended.stderr));
    };
    few("rm deep");
    few("volume rm deep");
    sandbox.check_clean();
}

#[test]
fn both_kinds_are_behind_the_same_walls() {
    let Some(sandbox) = Sandbox::new() else { return };
    for tag in KINDS {
        let sleep = sandbox.pull(&format!("sleep:{tag}"));
        sandbox.ok(["run", "-d", "--name", "walled", &sleep, "1000"]);
        until("its first line", || sandbox.ok(["logs", "walled"]).contains("sleeping").then_some(()));
        let pid = sandbox.inspect("walled", ".State.Pid");
        let status = fs::read_to_string(format!("/proc/{pid}/status")).expect("the process");
        for line in ["CapEff:\t00000000a80425fb", "Seccomp:\t2", "NoNewPrivs:\t1"] {
            assert!(status.contains(line), "{tag}: {line} is not in {status}");
        }
        for namespace in ["mnt", "pid", "net", "uts", "ipc", "cgroup"] {
            match fs::metadata(format!("/proc/{pid}/ns/{namespace}")) {
                Err(error) => println!("skipped: {namespace} of {tag} cannot be looked at: {error}"),
                Ok(theirs) => {
                    let ours = fs::metadata(format!("/proc/self/ns/{namespace}")).expect("our own").ino();
                    // What a Wasm program's filter keeps it from needs no namespace.
                    let shared = tag != "linux" && ["net", "ipc", "cgroup"].contains(&namespace);
                    assert_eq!(theirs.ino() == ours, shared, "{tag}: {namespace}");
                }
            }
        }
        no_folder_of_the_host_is_open(&sandbox, tag, &pid);
        sandbox.ok(["rm", "-f", "walled"]);
    }
}

#[test]
fn a_wasm_program_without_the_filter_gets_the_namespaces_that_it_stands_for() {
    let Some((sandbox, [sleep])) = Sandbox::with(["sleep:wasm"]) else { return };
    let flags = ["run", "-d", "--name", "open", "--security-opt", "seccomp=unconfined"];
    sandbox.ok(flags.into_iter().chain([sleep.as_str(), "1000"]));
    let pid = sandbox.inspect("open", ".State.Pid");
    let status = fs::read_to_string(format!("/proc/{pid}/status")).expect("the process");
    assert!(status.contains("Seccomp:\t0") && status.contains("NoNewPrivs:\t1"), "{status}");
    for namespace in ["net", "ipc", "cgroup"] {
        match fs::metadata(format!("/proc/{pid}/ns/{namespace}")) {
            Err(error) => println!("skipped: {namespace} cannot be looked at: {error}"),
            Ok(theirs) => {
                let ours = fs::metadata(format!("/proc/self/ns/{namespace}")).expect("our own").ino();
                assert_ne!(theirs.ino(), ours, "{namespace}");
            }
        }
    }
    sandbox.ok(["rm", "-f", "open"]);
}

fn no_folder_of_the_host_is_open(sandbox: &Sandbox, tag: &str, pid: &str) {
    let Ok(entries) = fs::read_dir(format!("/proc/{pid}/fd")) else {
        println!("skipped: descriptors of {tag} cannot be looked at");
        return;
    };
    for entry in entries.filter_map(Result::ok) {
        let target = fs::read_link(entry.path()).unwrap_or_default();
        let number = entry.file_name().to_string_lossy().into_owned();
        // A Wasm program's own code is mapped from a file that cannot be written.
        let own_code = target.starts_with(sandbox.root().join("compiled"));
        assert!(own_code || !target.starts_with(sandbox.root()), "{tag}: {number} is {}", target.display());
        let is_folder = fs::metadata(entry.path()).is_ok_and(|metadata| metadata.is_dir());
        assert!(!is_folder, "{tag}: {number} is the folder {}", target.display());
    }
}

#[test]
fn an_entrypoint_that_is_amphora_itself_does_not_run_it() {
    let Some((sandbox, [busybox])) = Sandbox::with(["busybox:latest"]) else { return };
    let before = fs::read(binary()).expect("the program");
    for entrypoint in ["/proc/self/exe", "/proc/1/exe", "/proc/thread-self/exe"] {
        let ended = sandbox.run(["run", "--rm", "--entrypoint", entrypoint, &busybox, "version"]);
        assert!(!ended.stdout.contains("Version"), "{entrypoint}: {ended}");
        assert!(matches!(ended.code, Some(126 | 127)), "{entrypoint}: {ended}");
    }
    let overwrite = "for p in /proc/[0-9]*/exe; do (echo x >> $p) 2>/dev/null; done; echo end";
    assert_eq!(shell(&sandbox, &busybox, &[], overwrite), "end\n");
    assert!(fs::read(binary()).expect("the program") == before, "the program was changed");
}

#[test]
fn privileges_reach_no_further_than_the_callers() {
    let Some((sandbox, [busybox])) = Sandbox::with(["busybox:latest"]) else { return };
    let status = shell(&sandbox, &busybox, &["--privileged"], "cat /proc/self/status");
    assert!(status.contains("Seccomp:\t0"), "{status}");
    assert!(status.contains("NoNewPrivs:\t0"), "{status}");
    assert!(!status.contains("CapEff:\t00000000a80425fb"), "{status}");
    if !sandbox.is_root() {
        // What root of a user namespace makes belongs to the user.
        shell(&sandbox, &busybox, &["--privileged", "-v", ".:/data"], "touch /data/mine");
        let owner = fs::metadata(sandbox.work().join("mine")).expect("the file").uid();
        assert_eq!(owner, nix::unistd::getuid().as_raw());
    }
}

/// By its descriptors a program told a false end in the init's place.
#[test]
fn what_an_init_holds_is_out_of_its_programs_reach() {
    let Some((sandbox, [busybox])) = Sandbox::with(["busybox:latest"]) else { return };
    let script = "readlink /proc/1/fd/0 2>/dev/null || echo out of reach; ls /proc/self/fd >/dev/null && echo its own";
    assert_eq!(shell(&sandbox, &busybox, &["--init"], script), "out of reach\nits own\n");
    assert_eq!(shell(&sandbox, &busybox, &["--init", "-u", "1000"], script), "out of reach\nits own\n");
}

/// In Docker's form, from a file and inline; `start` and `exec` have it too.
#[test]
fn a_seccomp_profile_of_the_users_own_is_enforced() {
    let Some((sandbox, [busybox])) = Sandbox::with(["busybox:latest"]) else { return };
    let profile = r#"{"defaultAction":"SCMP_ACT_ALLOW","archMap":[{"architecture":"SCMP_ARCH_X86_64","subArchitectures":null}],
        "syscalls":[{"names":["mkdir","mkdirat","no_such_call"],"action":"SCMP_ACT_ERRNO","errnoRet":17},
        {"names":["sethostname"],"action":"SCMP_ACT_KILL_PROCESS","excludes":{"caps":["CAP_SYS_ADMIN"]}},
        {"names":["kill"],"action":"SCMP_ACT_ERRNO","args":[{"index":1,"value":12,"op":"SCMP_CMP_EQ"}]}]}"#;
    let file = format!("seccomp={}", sandbox.file("profile.json", profile));
    let script = "mkdir /a 2>&1; kill -12 $$ 2>&1; kill -0 $$ && echo 0; hostname x; echo $?; \
        grep -c '^Seccomp:.2$' /proc/self/status";
    let said = "mkdir: can't create directory '/a': File exists\nsh: can't kill pid 1: Operation not permitted\n0\n";
    let inline = format!("seccomp={profile}");
    for option in [file.as_str(), &inline] {
        let ended = sandbox.run(["run", "--rm", "--security-opt", option, &busybox, "sh", "-c", script]);
        assert!(ended.stdout.starts_with(said) && ended.stdout.ends_with("159\n1\n"), "{ended}");
    }
    sandbox.ok(["create", "--name", "own", "--security-opt", &file, &busybox, "sleep", "1000"]);
    std::fs::remove_file(sandbox.work().join("profile.json")).expect("the profile");
    sandbox.ok(["start", "own"]);
    for options in [&["exec"][..], &["exec", "--privileged"]] {
        let ended = sandbox.run(options.iter().copied().chain(["own", "mkdir", "/a"]));
        assert!(ended.code == Some(1) && ended.stderr.contains("File exists"), "{ended}");
    }
    sandbox.ok(["rm", "-f", "own"]);
    for (option, words) in [
        ("seccomp=/no/such/profile", "seccomp=/no/such/profile: expected unconfined, builtin or a profile's file"),
        (r#"seccomp={"defaultAction":"X"}"#, "the profile cannot be used: action X: expected SCMP_ACT_"),
        ("seccomp={", "it is no seccomp profile"),
        (r#"seccomp={"defaultAction":"SCMP_ACT_KILL_PROCESS"}"#, "refused: execve, execveat, exit_group, fcntl"),
        (
            r#"seccomp={"defaultAction":"SCMP_ACT_ALLOW","syscalls":[{"names":["fcntl"],"action":"SCMP_ACT_TRAP"}]}"#,
            "no program could begin, as these calls are refused: fcntl",
        ),
    ] {
        let error = sandbox.fails(125, ["create", "--security-opt", option, &busybox]);
        assert!(error.contains(words), "{option}: {error}");
    }
    sandbox.check_clean();
}
