//! As root.
use crate::{
    Case, covers, engine, hierarchies, hostile, leftovers, rootless,
    sandbox::{
        CAPABILITIES, MASKED, READ_ONLY, Sandbox, added, call, confine, finish, part, piped, plan, read_terminal,
        root_user, run, sleeping, unfiltered,
    },
};
use linux_exec::{
    capabilities::CapabilitySets,
    cgroup::{Cgroups, Resources},
    confinement::Namespace,
    exec::read_file,
    plan::{Call, Entry, Mount, MountSource, Plan, Stdio},
    process::Process,
    program::ProgramError,
    rootfs::Rootfs,
    spawn::{Child, Exit, reap, spawn},
    users::User,
};
use std::{
    fs,
    io::{Read, Write},
    os::{
        fd::AsRawFd,
        unix::fs::{PermissionsExt, symlink},
    },
    path::Path,
    time::{Duration, Instant},
};

pub(crate) const CASES: &[Case] = &[
    ("first_process_sees_its_own_namespaces", first_process_sees_its_own_namespaces),
    ("network_of_its_own_has_loopback_only", network_of_its_own_has_loopback_only),
    ("mounts_are_those_of_the_plan", mounts_are_those_of_the_plan),
    ("devices_work", devices_work),
    ("masked_and_read_only_paths", masked_and_read_only_paths),
    ("capabilities_and_seccomp", capabilities_and_seccomp),
    ("ordinary_user_has_no_capabilities", ordinary_user_has_no_capabilities),
    ("no_descriptor_leaks_into_the_container", no_descriptor_leaks_into_the_container),
    ("root_read_only_and_tmpfs", root_read_only_and_tmpfs),
    ("binds", binds),
    ("bind_source_missing_is_named", bind_source_missing_is_named),
    ("later_mounts_land_in_earlier_ones", later_mounts_land_in_earlier_ones),
    ("symbolic_links_of_the_image_stay_inside", symbolic_links_of_the_image_stay_inside),
    ("magic_links_do_not_lead_out", magic_links_do_not_lead_out),
    ("cve_2019_5736_own_executable_is_out_of_reach", cve_2019_5736_own_executable_is_out_of_reach),
    (
        "programs_behind_descriptors_of_the_runtime_are_out_of_reach",
        programs_behind_descriptors_of_the_runtime_are_out_of_reach,
    ),
    ("working_directory_is_made_and_entered", working_directory_is_made_and_entered),
    ("exit_codes", exit_codes),
    ("signals_reach_the_first_process", signals_reach_the_first_process),
    ("signal_actions_are_reset", signal_actions_are_reset),
    ("resource_limits", resource_limits),
    ("cgroup_joined_is_the_root_seen", cgroup_joined_is_the_root_seen),
    ("terminal", terminal),
    ("terminals_of_a_container_have_a_bound", terminals_of_a_container_have_a_bound),
    ("function_as_first_process", function_as_first_process),
    ("function_is_prepared_on_the_host", function_is_prepared_on_the_host),
    (
        "an_engine_executes_nothing_and_has_sockets_only_if_granted",
        engine::an_engine_executes_nothing_and_has_sockets_only_if_granted,
    ),
    (
        "an_engine_that_serves_makes_no_connection_of_its_sockets",
        engine::an_engine_that_serves_makes_no_connection_of_its_sockets,
    ),
    (
        "an_engine_that_connects_has_the_internet_and_nothing_else_of_a_network",
        engine::an_engine_that_connects_has_the_internet_and_nothing_else_of_a_network,
    ),
    ("join_a_running_container", join_a_running_container),
    ("join_with_a_terminal", join_with_a_terminal),
    (
        "a_tracer_that_keeps_the_end_of_a_program_holds_up_nobody",
        hostile::a_tracer_that_keeps_the_end_of_a_program_holds_up_nobody,
    ),
    ("the_callers_keys_stay_with_the_caller", hostile::the_callers_keys_stay_with_the_caller),
    ("join_leads_to_no_file_of_the_host", join_leads_to_no_file_of_the_host),
    ("cve_2016_9962_who_joins_is_confined_before_it_is_seen", cve_2016_9962_who_joins_is_confined_before_it_is_seen),
    ("programs_are_found_beneath_the_root", programs_are_found_beneath_the_root),
    ("container_dies_with_its_supervisor", container_dies_with_its_supervisor),
    ("many_starts_leave_nothing", many_starts_leave_nothing),
    (
        "cve_2019_5736_a_program_that_changes_meanwhile_leads_to_no_file_of_the_host",
        cve_2019_5736_a_program_that_changes_meanwhile_leads_to_no_file_of_the_host,
    ),
    ("a_forged_report_names_no_stranger", a_forged_report_names_no_stranger),
    (
        "a_container_that_mounts_sees_no_group_of_the_hosts",
        hierarchies::a_container_that_mounts_sees_no_group_of_the_hosts,
    ),
    ("who_joins_is_in_every_hierarchy", hierarchies::who_joins_is_in_every_hierarchy),
    (
        "a_hierarchy_that_is_mounted_nowhere_is_not_shared_either",
        hierarchies::a_hierarchy_that_is_mounted_nowhere_is_not_shared_either,
    ),
    (
        "a_container_that_mounts_lifts_no_rule_for_devices",
        hierarchies::a_container_that_mounts_lifts_no_rule_for_devices,
    ),
    ("groups_deeper_than_a_path_reaches_are_removed", leftovers::groups_deeper_than_a_path_reaches_are_removed),
    ("a_process_deeper_than_a_path_reaches_is_killed", leftovers::a_process_deeper_than_a_path_reaches_is_killed),
    ("a_hundred_thousand_groups_are_removed", leftovers::a_hundred_thousand_groups_are_removed),
    ("who_makes_groups_as_fast_as_it_can_is_killed", leftovers::who_makes_groups_as_fast_as_it_can_is_killed),
    ("what_froze_its_own_groups_is_killed", leftovers::what_froze_its_own_groups_is_killed),
    ("what_moved_single_threads_is_killed", leftovers::what_moved_single_threads_is_killed),
    (
        "what_a_container_writes_in_its_groups_keeps_none_of_them",
        leftovers::what_a_container_writes_in_its_groups_keeps_none_of_them,
    ),
    ("covers", covers::all),
    ("rootless", rootless::as_ordinary_user),
];

fn first_process_sees_its_own_namespaces() {
    let (exit, output) = Sandbox::new().sh("echo $$; hostname; id -u; ls /proc | grep -c '^[0-9]'", |_| ());
    assert_eq!(exit, Exit::Code(0), "{output}");
    let lines: Vec<_> = output.lines().collect();
    assert_eq!(lines[..3], ["1", "vessel", "0"], "{output}");
    let links =
        Sandbox::new().sh("for n in mnt pid uts ipc net cgroup; do stat -c %N /proc/self/ns/$n; done", |_| ()).1;
    for name in ["mnt", "pid", "uts", "ipc", "net", "cgroup"] {
        let own = fs::read_link(format!("/proc/self/ns/{name}")).unwrap();
        assert!(links.contains(name) && !links.contains(own.to_str().unwrap()), "{name}: {links}");
    }
}

fn network_of_its_own_has_loopback_only() {
    let sandbox = Sandbox::new();
    let (_, output) = sandbox.sh("busybox ip -o addr", |_| ());
    assert!(output.contains("127.0.0.1/8") && output.lines().all(|line| line.contains(" lo ")), "{output}");
    let (_, shared) = sandbox.sh("grep -c mqueue /proc/mounts", |plan| {
        confine(plan, |namespaces, _| namespaces.ipc = Namespace::Host);
    });
    assert_eq!(shared, "0\n", "the host's queues are not shown");
    let (_, own) = sandbox.sh("stat -Lc %i /proc/self/ns/net", |plan| {
        confine(plan, |namespaces, _| namespaces.network = Namespace::Host);
    });
    let host = std::os::unix::fs::MetadataExt::ino(&fs::metadata("/proc/self/ns/net").unwrap());
    assert_eq!(own.trim(), host.to_string());
}

/// Mount point and options, in order, of a /proc/PID/mountinfo.
fn mountinfo(text: &str) -> Vec<(String, String)> {
    let parse = |line: &str| {
        let fields: Vec<_> = line.split(' ').collect();
        (fields[4].to_owned(), fields[5].to_owned())
    };
    text.lines().map(parse).collect()
}

fn mounts_are_those_of_the_plan() {
    let (_, output) = Sandbox::new().sh("cat /proc/self/mountinfo", |_| ());
    let mounts = mountinfo(&output);
    let options = |point: &str| &mounts.iter().find(|mount| mount.0 == point).unwrap_or_else(|| panic!("{output}")).1;
    assert!(options("/").starts_with("rw") && options("/").contains("nodev"));
    for (point, wanted) in [
        ("/proc", &["rw", "nosuid", "nodev", "noexec"][..]),
        ("/dev", &["rw", "nosuid", "nodev"]),
        ("/dev/pts", &["rw", "nosuid", "noexec"]),
        ("/dev/shm", &["rw", "nosuid", "nodev", "noexec"]),
        ("/dev/mqueue", &["rw", "nosuid", "nodev", "noexec"]),
        ("/sys", &["ro", "nosuid", "nodev", "noexec"]),
        ("/proc/sys", &["ro", "nosuid", "nodev", "noexec"]),
    ] {
        let options: Vec<_> = options(point).split(',').collect();
        assert!(wanted.iter().all(|option| options.contains(option)), "{point}: {options:?}");
    }
    let masks: Vec<_> = MASKED.iter().chain(&READ_ONLY).collect();
    let known = ["/", "/proc", "/dev", "/dev/pts", "/dev/shm", "/dev/mqueue", "/sys", "/sys/fs/cgroup"];
    for (point, _) in &mounts {
        let device = DEVICES.contains(&point.as_str());
        assert!(device || known.contains(&point.as_str()) || masks.iter().any(|mask| **mask == point), "{point}");
    }
}

/// Each on a mount of its own.
const DEVICES: [&str; 6] = ["/dev/null", "/dev/zero", "/dev/full", "/dev/random", "/dev/urandom", "/dev/tty"];

fn devices_work() {
    let script = "set -e; echo x >/dev/null; busybox head -c 4 /dev/zero | busybox wc -c; echo x >/dev/full && exit 9
        busybox head -c 4 /dev/urandom | busybox wc -c; stat -c '%a %t %T' /dev/null; ls -l /dev | busybox tr -s ' '
        echo in >/dev/stdout; touch /dev/shm/x; stat -c %a /dev/shm";
    let (exit, output) = Sandbox::new().sh(script, |_| ());
    assert_eq!(exit, Exit::Code(0), "{output}");
    assert!(output.contains("666 1 3"), "{output}");
    assert!(output.contains("ptmx -> pts/ptmx") && output.contains("fd -> /proc/self/fd"), "{output}");
    assert!(output.ends_with("in\n1777\n"), "{output}");
}

fn masked_and_read_only_paths() {
    let script = "cat /proc/keys /proc/timer_list; ls -A /sys/firmware; echo end
        echo 1 >/proc/sys/kernel/domainname; touch /sys/firmware/x; exit 0";
    let (_, output) = Sandbox::new().sh(script, |_| ());
    let (masked, read_only) = output.split_once("end\n").unwrap();
    assert_eq!(masked, "", "{output}");
    assert_eq!(read_only.matches("Read-only file system").count(), 2, "{output}");
}

/// The hexadecimal fields of /proc/self/status by name.
fn status(text: &str, name: &str) -> u64 {
    let line =
        text.lines().find_map(|line| line.strip_prefix(&format!("{name}:\t"))).unwrap_or_else(|| panic!("{text}"));
    u64::from_str_radix(line.trim(), 16).unwrap()
}

fn capabilities_and_seccomp() {
    let sandbox = Sandbox::new();
    let (_, output) = run(sandbox.plan(&["/bin/cat", "/proc/self/status"])).unwrap();
    let expected = CAPABILITIES.0;
    for (name, value) in
        [("CapEff", expected), ("CapPrm", expected), ("CapBnd", expected), ("CapInh", 0), ("CapAmb", 0)]
    {
        assert_eq!(status(&output, name), value, "{name}");
    }
    assert_eq!((status(&output, "NoNewPrivs"), status(&output, "Seccomp")), (1, 2));
    assert_eq!((status(&output, "SigIgn"), status(&output, "SigBlk")), (0, 0));
    // Without no_new_privs the filter goes in before the capabilities are dropped.
    let (_, output) = Sandbox::new().sh("cat /proc/self/status; busybox unshare -m true", |plan| {
        confine(plan, |_, privileges| privileges.no_new_privileges = false);
    });
    assert_eq!((status(&output, "NoNewPrivs"), status(&output, "Seccomp")), (0, 2));
    assert!(output.contains("not permitted"), "{output}");
}

fn ordinary_user_has_no_capabilities() {
    let user = User { uid: 1000, gid: 1001, groups: vec![7, 8], home: "/".into() };
    let (_, output) = Sandbox::new().sh("id; cat /proc/self/status", |plan| plan.user = user);
    assert!(output.starts_with("uid=1000 gid=1001 groups=7,8,1001\n"), "{output}");
    for (name, value) in [("CapEff", 0), ("CapPrm", 0), ("CapInh", 0), ("CapBnd", CAPABILITIES.0)] {
        assert_eq!(status(&output, name), value, "{name}");
    }
}

fn no_descriptor_leaks_into_the_container() {
    let leaked = fs::File::open("/etc/passwd").unwrap();
    nix::fcntl::fcntl(&leaked, nix::fcntl::FcntlArg::F_SETFD(nix::fcntl::FdFlag::empty())).unwrap();
    let (_, output) = Sandbox::new().sh("exec ls /proc/self/fd", |_| ());
    // The last one is the directory itself.
    assert_eq!(output, "0\n1\n2\n3\n");
}

fn tmpfs(target: &str, exec: bool) -> Mount {
    let source = MountSource::Tmpfs { size_bytes: Some(1 << 20), mode: 0o1777, exec };
    Mount::new(target, source, false)
}

fn root_read_only_and_tmpfs() {
    let script = "touch /x; touch /tmp/x && echo written; busybox df -k /tmp | busybox tail -1; stat -c %a /tmp
        echo 'echo ran' >/tmp/s; busybox chmod 755 /tmp/s; /tmp/s";
    let change = |exec| {
        move |plan: &mut Plan<'static>| {
            plan.root_readonly = true;
            plan.mounts.push(tmpfs("/tmp", exec));
        }
    };
    let (_, output) = Sandbox::new().sh(script, change(false));
    assert!(output.contains("/x: Read-only file system") && output.contains("written"), "{output}");
    assert!(
        output.contains(" 1024 ") && output.contains("1777") && output.contains("/tmp/s: Permission denied"),
        "{output}"
    );
    let (_, output) = Sandbox::new().sh(script, change(true));
    assert!(output.ends_with("ran\n"), "{output}");
}

fn bind(source: &Path, target: &str, readonly: bool) -> Mount {
    let source = MountSource::Bind { source: source.into(), recursive: true };
    Mount::new(target, source, readonly)
}

fn binds() {
    let sandbox = Sandbox::new();
    fs::write(sandbox.path("host/file"), "from the host").unwrap();
    let host = sandbox.path("host");
    let script = "cat /data/file /etc/motd /ro/file; echo; touch /ro/x; echo more >/data/made; touch /etc/motd2; echo >>/etc/motd";
    let (_, output) = sandbox.sh(script, |plan| {
        plan.mounts.push(bind(&host, "/data", false));
        plan.mounts.push(bind(&host, "/deep/er/ro/../../../ro", true));
        plan.mounts.push(bind(&host.join("file"), "/etc/motd", true));
    });
    assert!(output.starts_with(&"from the host".repeat(3)), "{output}");
    assert!(output.contains("/ro/x: Read-only file system") && output.contains("/etc/motd: Read-only"), "{output}");
    assert_eq!(fs::read_to_string(host.join("made")).unwrap(), "more\n");
    assert!(sandbox.path("upper/etc/motd").metadata().unwrap().is_file());
}

fn bind_source_missing_is_named() {
    let sandbox = Sandbox::new();
    let mut plan = sandbox.plan(&["/bin/true"]);
    plan.mounts.push(bind(&sandbox.path("nowhere"), "/data", false));
    let error = spawn(plan).unwrap_err();
    assert_eq!(error.exit_code(), 125);
    assert!(error.to_string().contains("nowhere on /data") && error.to_string().contains("does not exist"), "{error}");
    // A file on a directory.
    let mut plan = sandbox.plan(&["/bin/true"]);
    plan.mounts.push(bind(&sandbox.path("lower/bin/busybox"), "/etc", false));
    let error = spawn(plan).unwrap_err();
    assert!(error.to_string().contains("/etc") && error.to_string().contains("both"), "{error}");
}

fn later_mounts_land_in_earlier_ones() {
    let sandbox = Sandbox::new();
    fs::write(sandbox.path("host/file"), "inner").unwrap();
    let (_, output) = sandbox.sh("cat /mnt/a/b/file; busybox cut -d' ' -f2 /proc/mounts", |plan| {
        plan.mounts.push(tmpfs("/mnt", false));
        plan.mounts.push(bind(&sandbox.path("host"), "/mnt/a/b", false));
    });
    assert!(output.starts_with("inner") && output.contains("\n/mnt\n/mnt/a/b\n"), "{output}");
    assert!(!sandbox.path("upper/mnt/a").exists());
    // Nor does it appear on the host, or in the source of another bind.
    let (_, output) = sandbox.sh("cat /outer/sub/file", |plan| {
        plan.mounts.push(bind(&sandbox.path("host"), "/outer", false));
        plan.mounts.push(bind(&sandbox.path("host"), "/outer/sub", false));
    });
    assert_eq!(output, "inner");
    assert!(!sandbox.path("host/sub/file").exists());
}

fn symbolic_links_of_the_image_stay_inside() {
    let sandbox = Sandbox::new();
    let outside = sandbox.path("host");
    symlink(&outside, sandbox.path("lower/abs")).unwrap();
    symlink("../../../../../../../..", sandbox.path("lower/up")).unwrap();
    let host = sandbox.path("lower/etc");
    let (_, output) = sandbox.sh("ls /up/inner /up; pwd", |plan| {
        plan.mounts.push(bind(&host, "/up/inner", false));
        plan.cwd = "/up/made".into();
        plan.mounts.push(tmpfs("/up/t/u", false));
    });
    assert!(output.contains("inner") && output.contains("bin"), "{output}");
    assert!(sandbox.path("upper/inner").is_dir() && sandbox.path("upper/made").is_dir());
    assert!(!Path::new("/inner").exists() && !Path::new("/made").exists());
    // The link's target is made inside, where it did not exist, and not outside.
    let (_, output) = sandbox.sh("test -d /abs/new && echo made", |plan| plan.mounts.push(tmpfs("/abs/new", false)));
    assert_eq!(output, "made\n");
    assert!(!outside.join("new").exists());
    // /proc is the kernel's, not the image's choice.
    let sandbox = Sandbox::new();
    symlink("/etc", sandbox.path("lower/proc")).unwrap();
    let error = spawn(sandbox.plan(&["/bin/true"])).unwrap_err().to_string();
    assert!(error.contains("/proc") && error.contains("symbolic link"), "{error}");
}

fn magic_links_do_not_lead_out() {
    for number in 0..20 {
        let sandbox = Sandbox::new();
        let link = format!("/proc/self/fd/{number}");
        let mut plan = sandbox.plan(&["/bin/true"]);
        plan.cwd = link.clone().into();
        let error = spawn(plan).unwrap_err();
        assert!(error.to_string().contains("working directory"), "{error}");
        symlink(&link, sandbox.path("lower/leak")).unwrap();
        let mut plan = sandbox.plan(&["/bin/true"]);
        plan.mounts.push(tmpfs("/leak/x", false));
        assert!(spawn(plan).unwrap_err().to_string().contains("/leak/x"));
    }
}

/// Whatever way leads to the file of the process that starts the program, what is there is the launcher in memory.
fn cve_2019_5736_own_executable_is_out_of_reach() {
    let sandbox = Sandbox::new();
    let bin = sandbox.path("lower/bin");
    symlink("/proc/self/exe", bin.join("link")).unwrap();
    symlink("/proc/1/exe", bin.join("link1")).unwrap();
    symlink("link", bin.join("link2")).unwrap();
    let scripts = [
        ("script", "#!/proc/self/exe\n"),
        ("script2", "#! /bin/link -x\n"),
        ("script3", "#!/bin/script\n"),
        ("script4", "#!proc/self/exe\n"),
        ("script5", "#!bin/link\n"),
    ];
    for (name, text) in scripts {
        fs::write(bin.join(name), text).unwrap();
        // Executable, not readable.
        fs::set_permissions(bin.join(name), fs::Permissions::from_mode(0o111)).unwrap();
    }
    let user = User { uid: 1000, ..root_user() };
    let links = ["/bin/link", "/bin/link1", "/bin/link2", "/proc/self/exe", "/proc/thread-self/exe"];
    for program in links.into_iter().map(str::to_owned).chain(scripts.map(|script| format!("/bin/{}", script.0))) {
        for user in [root_user(), user.clone()] {
            let mut plan = sandbox.plan(&[&program, "demo"]);
            plan.user = user;
            let (exit, output) = run(plan).unwrap();
            assert_eq!(exit, Exit::Code(126), "{program}: {output}");
            assert!(output.contains("no program here"), "{program}: {output}");
        }
    }
    // Ordinary scripts, and a chain of them, still run.
    fs::write(bin.join("good"), "#!/bin/sh\necho $0").unwrap();
    fs::set_permissions(bin.join("good"), fs::Permissions::from_mode(0o755)).unwrap();
    assert_eq!(run(sandbox.plan(&["/bin/good"])).unwrap(), (Exit::Code(0), "/bin/good\n".into()));
}

/// Nothing that the runtime has open can be executed, or a way to it, as none of it is open any more.
fn programs_behind_descriptors_of_the_runtime_are_out_of_reach() {
    let host = fs::File::open("/bin").unwrap();
    nix::fcntl::fcntl(&host, nix::fcntl::FcntlArg::F_DUPFD(40)).unwrap();
    for number in 3..64 {
        for program in [format!("/proc/self/fd/{number}"), format!("/proc/self/fd/{number}/busybox")] {
            let error = run(Sandbox::new().plan(&[&program, "true"])).unwrap_err();
            assert!(matches!(error.exit_code(), 126 | 127), "{program}: {error}");
        }
    }
}

fn working_directory_is_made_and_entered() {
    let sandbox = Sandbox::new();
    let (_, output) = sandbox.sh("pwd; stat -c '%a %u' .", |plan| plan.cwd = "/srv/app/./data".into());
    assert_eq!(output, "/srv/app/data\n755 0\n");
    fs::create_dir(sandbox.path("lower/private")).unwrap();
    fs::set_permissions(sandbox.path("lower/private"), fs::Permissions::from_mode(0o700)).unwrap();
    let mut plan = sandbox.plan(&["/bin/true"]);
    plan.user.uid = 1000;
    confine(&mut plan, |_, privileges| privileges.capabilities = CapabilitySets::default());
    plan.cwd = "/private".into();
    let error = spawn(plan).unwrap_err().to_string();
    assert!(error.contains("/private") && error.contains("no right"), "{error}");
}

fn exit_codes() {
    let sandbox = Sandbox::new();
    let bin = sandbox.path("lower/bin");
    for (name, text, mode) in [("plain", "text", 0o644), ("garbage", "\0\0\0\0", 0o755), ("lost", "#!/no/sh\n", 0o755)]
    {
        fs::write(bin.join(name), text).unwrap();
        fs::set_permissions(bin.join(name), fs::Permissions::from_mode(mode)).unwrap();
    }
    for (program, code) in [
        ("/bin/nothing", 127),
        ("/bin/true/x", 126),
        ("/bin/plain", 126),
        ("/bin/garbage", 126),
        ("/bin", 126),
        ("/bin/lost", 127),
    ] {
        let error = spawn(sandbox.plan(&[program])).unwrap_err();
        assert_eq!(error.exit_code(), code, "{error}");
        assert!(error.to_string().starts_with(&format!("cannot execute {program}")), "{error}");
    }
    assert_eq!(sandbox.sh("exit 7", |_| ()).0, Exit::Code(7));
    assert_eq!(sandbox.sh("exec true", |_| ()).0, Exit::Code(0));
}

fn signals_reach_the_first_process() {
    let sandbox = Sandbox::new();
    let (mut reader, files) = piped();
    let mut plan =
        sandbox.plan(&["/bin/sh", "-c", "trap 'echo got; exit 3' TERM; echo ready; while :; do sleep 0.01; done"]);
    plan.stdio = files;
    let child = spawn(plan).unwrap();
    let mut ready = [0; 6];
    reader.read_exact(&mut ready).unwrap();
    assert!(child.process.is_alive());
    child.process.signal(nix::libc::SIGTERM).unwrap();
    assert_eq!(finish(&child, &mut reader), (Exit::Code(3), "got\n".into()));
    assert!(!child.process.is_alive());

    let child = spawn(sandbox.plan(&["/bin/sleep", "100"])).unwrap();
    child.process.signal(nix::libc::SIGKILL).unwrap();
    let reaped = reap(&child).unwrap();
    assert_eq!(reaped.exit, Exit::Signal(9));
    assert!(reaped.peak_rss_bytes > 100 * 1024, "{reaped:?}");
}

fn signal_actions_are_reset() {
    // The test process ignores SIGPIPE, as every Rust program does.
    let own = fs::read_to_string("/proc/self/status").unwrap();
    assert_ne!(status(&own, "SigIgn"), 0);
    let sandbox = Sandbox::new();
    let (_, output) = run(sandbox.plan(&["/bin/cat", "/proc/self/status"])).unwrap();
    for name in ["SigIgn", "SigBlk", "SigCgt"] {
        assert_eq!(status(&output, name), 0, "{name}");
    }
}

fn resource_limits() {
    let limits = vec![(nix::libc::RLIMIT_NOFILE, 77, 99), (nix::libc::RLIMIT_CORE, 0, 0)];
    let (_, output) = Sandbox::new().sh("ulimit -Sn; ulimit -Hn; ulimit -c", |plan| plan.rlimits = limits);
    assert_eq!(output, "77\n99\n0\n");
    let sandbox = Sandbox::new();
    let mut plan = sandbox.plan(&["/bin/true"]);
    plan.rlimits = vec![(nix::libc::RLIMIT_NOFILE, u64::MAX, u64::MAX)];
    let error = spawn(plan).unwrap_err().to_string();
    assert!(error.contains("unlimited") && error.contains("CAP_SYS_RESOURCE"), "{error}");
}

fn cgroup_joined_is_the_root_seen() {
    let cgroups = Cgroups::detect().unwrap();
    let wanted = Resources { pids: Some(16), ..Resources::default() };
    if let [reason, ..] = &cgroups.unenforceable(&wanted)[..] {
        return println!("skipped: {reason}");
    }
    let cgroup = cgroups.create(&format!("test-{}", std::process::id()), &wanted).unwrap();
    let sandbox = Sandbox::new();
    let script =
        "cat /proc/self/cgroup; for i in 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20; do sleep 1 & done";
    let mut plan = sandbox.plan(&["/bin/sh", "-c", script]);
    plan.cgroup = Some(&cgroup);
    let (_, output) = run(plan).unwrap();
    cgroup.kill().unwrap();
    let usage = cgroup.usage();
    cgroup.remove().unwrap();
    let own = if cgroups.mode() == "v2" { "0::/\n" } else { ":pids:/\n" };
    assert!(output.contains(own), "{output}");
    assert!(output.contains("can't fork") && usage.pids_refused > 0, "{output} {usage:?}");
}

fn terminal() {
    let sandbox = Sandbox::new();
    let script = "tty; busybox stty size; stat -c '%a %U' /dev/console /dev/pts/0 | busybox head -1
        echo hello >/dev/tty; echo console >/dev/console; read line; echo \"<$line>\"; sleep 100 & wait $!";
    for uid in [0, 1000] {
        let mut plan = sandbox.plan(&["/bin/sh", "-c", script]);
        plan.user.uid = uid;
        plan.stdio = Stdio::Terminal { size: Some((123, 45)) };
        let child = spawn(plan).unwrap();
        let mut master = fs::File::from(child.terminal.as_ref().unwrap().try_clone().unwrap());
        master.write_all(b"typed\n").unwrap();
        let mut output = read_terminal(&child, "<typed>");
        // ^C: the shell's children are in the terminal's foreground group.
        master.write_all(&[3]).unwrap();
        output += &read_terminal(&child, "\0");
        let exit = reap(&child).unwrap().exit;
        assert!(
            output.contains("/dev/pts/0\n") && output.contains("45 123\n") && output.contains("hello\nconsole\n"),
            "{output}"
        );
        assert_eq!(exit, Exit::Code(130), "{output}");
    }
}

/// One made in the host's mount namespace may use up those terminals that the kernel keeps for the host.
fn terminals_of_a_container_have_a_bound() {
    let (_, output) = Sandbox::new().sh("cat /proc/mounts", |_| ());
    let devpts = output.lines().find(|line| line.contains(" /dev/pts ")).unwrap_or_default();
    assert!(devpts.contains("max=1024"), "{output}");
}

fn function_as_first_process() {
    let plan = |entry| {
        let mut plan = plan(Rootfs::empty().unwrap(), entry);
        plan.root_readonly = true;
        plan
    };
    let function = || {
        println!("pid {} in {}", std::process::id(), fs::read_to_string("/proc/sys/kernel/hostname").unwrap().trim());
        println!("root: {}", fs::read_dir("/").unwrap().count());
        println!("write: {}", fs::write("/x", "").is_err());
        let mut fds: Vec<_> = fs::read_dir("/proc/self/fd").unwrap().map(|entry| entry.unwrap().file_name()).collect();
        fds.sort();
        println!("{fds:?}");
        let thread = std::thread::spawn(|| 40);
        2 + thread.join().unwrap()
    };
    let kept = fs::File::open("/dev/null").unwrap();
    let number = kept.as_raw_fd();
    let (exit, output) = run(plan(call(Box::new(function), vec![number]))).unwrap();
    assert_eq!(exit, Exit::Code(42), "{output}");
    assert!(output.starts_with("pid 1 in vessel\nroot: 3\nwrite: true\n"), "{output}");
    assert_eq!(output.matches('"').count(), 2 * 5, "0, 1, 2, the kept one, the directory: {output}");

    let child = spawn(plan(call(
        Box::new(|| {
            loop {
                std::thread::sleep(Duration::from_secs(1));
            }
        }),
        vec![],
    )))
    .unwrap();
    std::thread::sleep(Duration::from_millis(50));
    child.process.signal(nix::libc::SIGTERM).unwrap();
    assert_eq!(reap(&child).unwrap().exit, Exit::Code(128 + 15));
    assert_eq!(run(plan(call(Box::new(|| panic!("on purpose")), vec![]))).unwrap().0, Exit::Code(125));
}

/// It has the host's files before it, the container's after, and the descriptors that it opened itself.
fn function_is_prepared_on_the_host() {
    let sandbox = Sandbox::new();
    fs::write(sandbox.path("host/text"), "of the host").unwrap();
    let path = sandbox.path("host/text");
    let prepare = move || {
        let mut opened = fs::File::open(&path).unwrap();
        let keep = vec![opened.as_raw_fd()];
        let function = Box::new(move || {
            let mut text = String::new();
            opened.read_to_string(&mut text).unwrap();
            println!("{text}, {}", path.exists());
            0
        });
        Call { function, keep }
    };
    let plan = |prepare| plan(Rootfs::empty().unwrap(), Entry::Call { prepare });
    let (exit, output) = run(plan(Box::new(prepare))).unwrap();
    assert_eq!((exit, output.as_str()), (Exit::Code(0), "of the host, false\n"));
    let error = run(plan(Box::new(|| panic!("on purpose")))).unwrap_err();
    assert!(error.to_string().starts_with("cannot prepare the program's call: "), "{error}");
}

pub(crate) fn as_arguments(process: Process) -> [String; 2] {
    [process.pid.to_string(), process.start_ticks.to_string()]
}

pub(crate) fn end(container: &Child) {
    container.process.signal(nix::libc::SIGKILL).unwrap();
    assert_eq!(reap(container).unwrap().exit, Exit::Signal(9));
}

fn join_a_running_container() {
    let sandbox = Sandbox::new();
    let container = sleeping(&sandbox);
    let target = container.process;
    fs::write(sandbox.path("lower/etc/made"), "x").unwrap();
    assert_eq!(read_file(target, Path::new("/etc/made")).unwrap().as_deref(), Some(&b"x"[..]));
    assert_eq!(read_file(target, Path::new("/etc/none")).unwrap(), None);
    // A link to the kernel's log took lines out of that of the host.
    symlink("/proc/version", sandbox.path("lower/etc/of-the-kernel")).unwrap();
    for path in ["/proc/kmsg", "/etc/of-the-kernel"] {
        let refused = read_file(target, Path::new(path)).unwrap_err();
        assert_eq!(refused.kind(), std::io::ErrorKind::InvalidInput, "{path}: {refused}");
    }
    let output = part("@join", &as_arguments(target));
    assert!(output.starts_with("vessel\n0\n") && output.contains("sleep\x001000"), "{output}");
    assert_eq!(status(&output, "CapEff"), CAPABILITIES.0);
    assert_eq!((status(&output, "Seccomp"), status(&output, "NoNewPrivs")), (2, 1));
    end(&container);
    assert!(read_file(target, Path::new("/etc/made")).is_err());
    assert!(target.pidfd().is_err());
}

fn join_with_a_terminal() {
    let sandbox = Sandbox::new();
    let container = sleeping(&sandbox);
    assert_eq!(part("@join_terminal", &as_arguments(container.process)), "/dev/pts/0\nx\n");
    end(&container);
}

fn join_leads_to_no_file_of_the_host() {
    let sandbox = Sandbox::new();
    symlink("/proc/self/exe", sandbox.path("lower/bin/link")).unwrap();
    let container = sleeping(&sandbox);
    part("@join_links", &as_arguments(container.process));
    end(&container);
}

/// A container whose only occupation is to look at everybody that comes, with the right to do more.
fn cve_2016_9962_who_joins_is_confined_before_it_is_seen() {
    let seen = seen_while_joined(Box::new(|| watch(|| ())), "/bin/true");
    assert!(seen.contains("same /bin/busybox"), "nobody was seen: {seen:?}");
}

/// The program and a link to /proc/self/exe change places all the time: between a check and the exec as well.
fn cve_2019_5736_a_program_that_changes_meanwhile_leads_to_no_file_of_the_host() {
    let swap = || {
        use nix::fcntl::{AT_FDCWD, RenameFlags, renameat2};
        renameat2(AT_FDCWD, "/bin/program", AT_FDCWD, "/bin/link", RenameFlags::RENAME_EXCHANGE).unwrap();
    };
    let seen = seen_while_joined(Box::new(move || watch(swap)), "/bin/program");
    assert!(seen.iter().any(|line| line.contains("memfd")), "the race was not run: {seen:?}");
}

/// Whoever joins holds a pipe to amphora, which the container's processes can open: what they write there is not believed. It made
/// amphora supervise, and kill, a process of the host.
fn a_forged_report_names_no_stranger() {
    let victim = std::process::id().cast_signed();
    let seen = seen_while_joined(Box::new(move || watch(|| forge(victim))), "/bin/true");
    assert!(seen.iter().any(|line| line.contains("memfd")), "nobody was seen: {seen:?}");
}

fn forge(victim: i32) {
    for entry in fs::read_dir("/proc").unwrap().flatten() {
        let starts = fs::read_link(entry.path().join("exe")).is_ok_and(|exe| exe.to_string_lossy().contains("memfd"));
        for file in fs::read_dir(entry.path().join("fd")).into_iter().flatten().flatten().filter(|_| starts) {
            if file.file_name().len() > 1 || file.file_name().to_string_lossy().as_ref() > "2" {
                let message = [(-1_i32).to_ne_bytes(), victim.to_ne_bytes()].concat();
                let _ = fs::OpenOptions::new().write(true).open(file.path()).and_then(|mut pipe| pipe.write(&message));
            }
        }
    }
}

/// What the first process of a container saw of the others while a program joined it 500 times: never one with other rights or
/// another root than its own, never one that runs a file of the host.
fn seen_while_joined(first: Box<dyn FnOnce() -> u8>, program: &str) -> std::collections::BTreeSet<String> {
    let sandbox = Sandbox::new();
    symlink("/proc/self/exe", sandbox.path("lower/bin/link")).unwrap();
    fs::write(sandbox.path("lower/bin/program"), "#!/bin/true\n").unwrap();
    fs::set_permissions(sandbox.path("lower/bin/program"), fs::Permissions::from_mode(0o755)).unwrap();
    let (mut reader, files) = piped();
    let mut plan = plan(sandbox.root(), call(first, Vec::new()));
    plan.stdio = files;
    unfiltered(&mut plan, added("SYS_PTRACE"));
    let container = spawn(plan).unwrap();
    reader.read_exact(&mut [0; 3]).unwrap();
    part("@join_often", &[as_arguments(container.process).as_slice(), &[program.to_owned()]].concat());
    container.process.signal(nix::libc::SIGTERM).unwrap();
    let (_, output) = finish(&container, &mut reader);
    let seen: std::collections::BTreeSet<String> = output.lines().map(str::to_owned).collect();
    assert!(seen.iter().all(|line| line.starts_with("same ")), "{seen:?}");
    let host = std::env::current_exe().unwrap();
    assert!(!output.contains(host.to_str().unwrap()), "{seen:?}");
    seen
}

/// Tells, of each process but itself, whether it is in the same mount namespace with the same rights, and its executable.
fn watch(between: impl Fn()) -> u8 {
    let own = (fs::read_link("/proc/self/ns/mnt").unwrap(), bounding_set("self"));
    println!("up");
    let mut last = String::new();
    loop {
        between();
        for pid in fs::read_dir("/proc").unwrap().flatten().filter_map(|entry| entry.file_name().into_string().ok()) {
            if pid == "1" || !pid.bytes().all(|byte| byte.is_ascii_digit()) {
                continue;
            }
            let Ok(namespace) = fs::read_link(format!("/proc/{pid}/ns/mnt")) else { continue };
            let rights = bounding_set(&pid);
            let Ok(executable) = fs::read_link(format!("/proc/{pid}/exe")) else { continue };
            let same = namespace == own.0 && (rights.is_none() || rights == own.1);
            let line = format!("{} {}", if same { "same" } else { "different" }, executable.display());
            if line != last {
                println!("{line}");
                last = line;
            }
        }
    }
}

fn bounding_set(pid: &str) -> Option<u64> {
    let text = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix("CapBnd:"))?;
    u64::from_str_radix(line.trim(), 16).ok()
}

fn programs_are_found_beneath_the_root() {
    let sandbox = Sandbox::new();
    fs::write(sandbox.path("host/tool"), "#!/bin/sh\n").unwrap();
    fs::write(sandbox.path("lower/etc/text"), "x").unwrap();
    let root = sandbox.root();
    let find = |name: &str, cwd: &str| root.find_program(&[], name, "/nowhere:/bin", Path::new(cwd));
    for (name, cwd) in [("sh", "/"), ("./sh", "/bin"), ("bin/sh", "/")] {
        assert_eq!(find(name, cwd).unwrap(), Path::new("/bin/sh"), "{name} in {cwd}");
    }
    for name in ["nothing", "", "/no/such", "/bin/sh/x"] {
        assert!(matches!(find(name, "/"), Err(ProgramError::NotFound(_))), "{name}");
    }
    for name in ["/etc/text", "/etc", "../etc"] {
        assert!(matches!(find(name, "/"), Err(ProgramError::NotExecutable(_))), "{name}");
    }
    fs::set_permissions(sandbox.path("host/tool"), fs::Permissions::from_mode(0o755)).unwrap();
    let mounts = [bind(&sandbox.path("host"), "/src", false), bind(&sandbox.path("host/tool"), "/bin/tool", false)];
    let find = |name: &str| root.find_program(&mounts, name, "/bin", Path::new("/src"));
    assert_eq!(find("./tool").unwrap(), Path::new("/src/tool"));
    assert_eq!(find("tool").unwrap(), Path::new("/bin/tool"));
    assert!(find("./missing").is_err());
}

fn container_dies_with_its_supervisor() {
    let text = part("@supervise", &[]);
    let mut numbers = text.split_whitespace().map(|number| number.parse::<u64>().unwrap());
    let (pid, start_ticks) = (numbers.next().unwrap(), numbers.next().unwrap());
    let process = Process { pid: i32::try_from(pid).unwrap(), start_ticks };
    let begin = Instant::now();
    while process.is_alive() {
        assert!(begin.elapsed() < Duration::from_secs(10), "it still runs");
        std::thread::sleep(Duration::from_millis(5));
    }
}

fn many_starts_leave_nothing() {
    let sandbox = Sandbox::new();
    let count = |path: &str| fs::read_dir(path).unwrap().count();
    let mounts = || fs::read_to_string("/proc/self/mountinfo").unwrap();
    let failing = |sandbox: &Sandbox| assert!(spawn(sandbox.plan(&["/bin/nothing"])).is_err());
    failing(&sandbox);
    let before = (count("/proc/self/fd"), mounts());
    for number in 0..1000 {
        if number % 10 == 0 {
            failing(&sandbox);
        }
        let child = spawn(sandbox.plan(&["/bin/true"])).unwrap();
        assert_eq!(reap(&child).unwrap().exit, Exit::Code(0));
    }
    assert_eq!((count("/proc/self/fd"), mounts()), before);
    assert!(nix::sys::wait::waitpid(None, Some(nix::sys::wait::WaitPidFlag::WNOHANG)).is_err(), "a child is left");
}
