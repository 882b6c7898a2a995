//! What another front end than `run` may ask for: namespaces that are there already, mounts of any kind, a start in two steps.
use crate::{
    Case,
    sandbox::{Sandbox, call, confine, finish, part, piped, run, sleeping},
};
use linux_exec::{
    capabilities::{CapabilitySet, CapabilitySets},
    confinement::{Clocks, Namespace},
    plan::{Attributes, Begin, Entry, Init, Lifetime, Mount, MountAttrFlags, MountSource, Patience, Plan, Propagation},
    process::Process,
    spawn::{Child, Exit, reap, spawn},
    userns::{self, IdRange},
    users::User,
};
use nix::{
    mount::{MntFlags, MsFlags, mount, umount2},
    sys::signal::Signal,
};
use std::{
    fs::{self, File},
    io::{Read, Write},
    os::{fd::AsFd, unix::fs::MetadataExt},
    sync::Arc,
};

pub(crate) const CASES: &[Case] = &[
    ("namespaces_of_another_container_are_joined", namespaces_of_another_container_are_joined),
    ("a_namespace_of_another_kind_is_refused", a_namespace_of_another_kind_is_refused),
    ("a_pid_namespace_is_joined_by_who_is_confined", a_pid_namespace_is_joined_by_who_is_confined),
    ("a_user_namespace_owns_the_others", a_user_namespace_owns_the_others),
    ("clocks_are_ahead_in_a_time_namespace", clocks_are_ahead_in_a_time_namespace),
    ("a_program_waits_until_it_is_told", a_program_waits_until_it_is_told),
    ("a_program_that_cannot_begin_says_so_when_told", a_program_that_cannot_begin_says_so_when_told),
    ("a_container_outlives_its_starter_if_it_may", a_container_outlives_its_starter_if_it_may),
    ("another_user_keeps_ambient_capabilities", another_user_keeps_ambient_capabilities),
    ("settings_of_its_own_namespaces_and_names", settings_of_its_own_namespaces_and_names),
    ("file_systems_with_options_and_attributes", file_systems_with_options_and_attributes),
    ("a_bind_follows_the_hosts_mounts_if_it_may", a_bind_follows_the_hosts_mounts_if_it_may),
    ("a_bind_shows_mapped_ids", a_bind_shows_mapped_ids),
    ("only_the_top_of_a_bind_is_read_only", only_the_top_of_a_bind_is_read_only),
    ("a_function_is_called_only_with_one_thread", a_function_is_called_only_with_one_thread),
    ("programs_start_from_several_threads", programs_start_from_several_threads),
];

const LINKS: &str = "for n in pid net ipc uts cgroup; do stat -Lc %i /proc/self/ns/$n; done";

fn namespace(process: Process, name: &str) -> File {
    File::open(format!("/proc/{}/ns/{name}", process.pid)).unwrap()
}

fn inodes(text: &str) -> Vec<u64> {
    text.lines().map(|line| line.parse().unwrap()).collect()
}

fn end(child: &Child) {
    let _ = child.process.signal(Signal::SIGKILL as i32);
    reap(child).unwrap();
}

fn namespaces_of_another_container_are_joined() {
    let sandbox = Sandbox::new();
    let other = sleeping(&sandbox);
    let files = ["net", "ipc", "uts", "cgroup"].map(|name| namespace(other.process, name));
    let own = Sandbox::new();
    let mut plan = own.plan(&["/bin/sh", "-c", LINKS]);
    plan.hostname = None;
    confine(&mut plan, |namespaces, _| {
        namespaces.network = Namespace::Join(files[0].as_fd());
        namespaces.ipc = Namespace::Join(files[1].as_fd());
        namespaces.uts = Namespace::Join(files[2].as_fd());
        namespaces.cgroup = Namespace::Join(files[3].as_fd());
    });
    let (exit, output) = run(plan).unwrap();
    let found = inodes(&output);
    assert_eq!(exit, Exit::Code(0));
    let wanted: Vec<u64> = files.iter().map(|file| file.metadata().unwrap().ino()).collect();
    assert_eq!(found[1..5], wanted);
    assert_ne!(found[0], namespace(other.process, "pid").metadata().unwrap().ino());
    end(&other);
}

fn a_namespace_of_another_kind_is_refused() {
    let sandbox = Sandbox::new();
    let file = File::open("/proc/self/ns/uts").unwrap();
    let mut plan = sandbox.plan(&["/bin/true"]);
    confine(&mut plan, |namespaces, _| namespaces.network = Namespace::Join(file.as_fd()));
    let error = spawn(plan).unwrap_err().to_string();
    assert!(error.contains("join the network namespace") && error.contains("another kind"), "{error}");
    let mut plan = sandbox.plan(&["/bin/true"]);
    confine(&mut plan, |namespaces, _| namespaces.uts = Namespace::Host);
    let error = spawn(plan).unwrap_err().to_string();
    assert!(error.contains("host or domain name"), "{error}");
}

/// Nothing of the way there can be seen from inside: what is seen has the container's root and no right to leave it.
fn a_pid_namespace_is_joined_by_who_is_confined() {
    let sandbox = Sandbox::new();
    let other = sleeping(&sandbox);
    let pids = namespace(other.process, "pid");
    let own = Sandbox::new();
    let join = |argv: &[&str], change: &dyn Fn(&mut Plan<'_>)| {
        let mut plan = own.plan(argv);
        confine(&mut plan, |namespaces, _| namespaces.pid = Namespace::Join(pids.as_fd()));
        change(&mut plan);
        run(plan)
    };
    let joined =
        join(&["/bin/sh", "-c", "cat /proc/1/cmdline; echo; stat -Lc %i /proc/self/ns/pid; kill -0 1"], &|_| ());
    let (exit, output) = match joined {
        Err(error) if error.to_string().contains("needs Linux 6.17") => {
            println!("skipped: {error}");
            return end(&other);
        }
        joined => joined.unwrap(),
    };
    assert_eq!(exit, Exit::Code(0), "{output}");
    let expected = format!("sleep\01000\0\n{}\n", pids.metadata().unwrap().ino());
    assert_eq!(output, expected);
    let missing = join(&["/bin/missing"], &|_| ()).unwrap_err();
    assert_eq!(missing.exit_code(), 127, "{missing}");
    let init = join(&["/bin/true"], &|plan| {
        let (_, report) = std::io::pipe().unwrap();
        if let Entry::Exec { init, .. } = &mut plan.entry {
            *init = Some(Init { report: report.into() });
        }
    });
    assert!(init.unwrap_err().to_string().contains("first process"));
    end(&other);
}

/// A program that is root only inside, on a root that root of the host made.
fn a_user_namespace_owns_the_others() {
    let ids = [IdRange { inside: 0, outside: 100_000, count: 65_536 }];
    let owner = userns::make(&ids, &ids).unwrap();
    let sandbox = Sandbox::new();
    for name in ["dev", "proc", "sys", "tmp"] {
        fs::create_dir_all(sandbox.path("lower").join(name)).unwrap();
    }
    let script = "cat /proc/self/uid_map; hostname; hostname changed && hostname; echo x >/tmp/file && stat -c %u:%a /tmp/file
        cat /dev/null && echo y >/dev/null && ls /dev/pts; busybox chmod 600 /dev/null; busybox mknod /tmp/n c 1 3; busybox ip -o link | busybox wc -l";
    let mut plan = sandbox.plan(&["/bin/sh", "-c", script]);
    let source = MountSource::Tmpfs { size_bytes: None, mode: 0o1777, exec: false };
    plan.mounts.push(Mount::new("/tmp", source, false));
    confine(&mut plan, |namespaces, privileges| {
        namespaces.user = Some(owner.as_fd());
        privileges.capabilities = CapabilitySets::of_user(CapabilitySet::all(), 0);
        privileges.seccomp = None;
    });
    let (exit, output) = run(plan).unwrap();
    assert_eq!(exit, Exit::Code(0), "{output}");
    let lines: Vec<&str> = output.lines().collect();
    let map: Vec<&str> = lines[0].split_whitespace().collect();
    assert_eq!(map, ["0", "100000", "65536"]);
    assert_eq!(lines[1..4], ["vessel", "changed", "0:644"], "{output}");
    assert!(output.contains("/dev/null: ") && output.contains("/tmp/n: Operation not permitted"), "{output}");
    assert_eq!(lines.last(), Some(&"1"), "{output}");
    let overlapping = [ids[0], IdRange { inside: 1, outside: 7, count: 1 }];
    assert!(userns::make(&overlapping, &ids).unwrap_err().to_string().contains("overlap"));
}

fn clocks_are_ahead_in_a_time_namespace() {
    if !std::path::Path::new("/proc/self/ns/time").exists() {
        return println!("skipped: this kernel has no time namespaces");
    }
    let sandbox = Sandbox::new();
    let mut plan = sandbox.plan(&["/bin/cat", "/proc/uptime"]);
    confine(&mut plan, |namespaces, _| {
        namespaces.time = Clocks::New { monotonic: (0, 0), boottime: (1_000_000_000, 0) };
    });
    let (exit, output) = run(plan).unwrap();
    let uptime: f64 = output.split(' ').next().unwrap().parse().unwrap();
    assert_eq!(exit, Exit::Code(0));
    assert!(uptime > 1e9, "{output}");
}

fn held(plan: &mut Plan<'_>) -> std::io::PipeWriter {
    let (reader, writer) = std::io::pipe().unwrap();
    plan.begin = Begin::WhenTold(reader.into());
    writer
}

fn a_program_waits_until_it_is_told() {
    let sandbox = Sandbox::new();
    for with_init in [false, true] {
        let (mut reader, files) = piped();
        let mut plan = sandbox.plan(&["/bin/sh", "-c", "echo begun"]);
        plan.stdio = files;
        let (_tells, report) = std::io::pipe().unwrap();
        if let (Entry::Exec { init, .. }, true) = (&mut plan.entry, with_init) {
            *init = Some(Init { report: report.into() });
        }
        let mut word = held(&mut plan);
        let mut child = spawn(plan).unwrap();
        let held = child.held.take().unwrap();
        assert!(child.process.is_alive());
        let root = fs::read_link(format!("/proc/{}/exe", child.process.pid)).unwrap();
        assert!(root.to_string_lossy().contains("memfd"), "{}", root.display());
        let status = fs::read_to_string(format!("/proc/{}/status", child.process.pid)).unwrap();
        assert!(status.contains("Seccomp:\t2"), "it is confined already: {status}");
        word.write_all(b"x").unwrap();
        held.wait(child.pidfd.as_fd(), Patience::default()).unwrap();
        assert_eq!(finish(&child, &mut reader), (Exit::Code(0), "begun\n".to_owned()));
    }
    let mut plan = sandbox.plan(&["/bin/true"]);
    let word = held(&mut plan);
    let child = spawn(plan).unwrap();
    drop(word);
    assert_eq!(reap(&child).unwrap().exit, Exit::Code(125), "nobody is left who could tell it");
}

fn a_program_that_cannot_begin_says_so_when_told() {
    let sandbox = Sandbox::new();
    for listens in [true, false] {
        let mut plan = sandbox.plan(&["/bin/missing"]);
        let mut word = held(&mut plan);
        let mut child = spawn(plan).unwrap();
        let held = child.held.take().unwrap();
        if listens {
            word.write_all(b"x").unwrap();
            let error = held.wait(child.pidfd.as_fd(), Patience::default()).unwrap_err();
            assert!(error.exit_code() == 127 && error.to_string().contains("/bin/missing"), "{error}");
        } else {
            drop(held);
            word.write_all(b"x").unwrap();
        }
        assert_eq!(reap(&child).unwrap().exit, Exit::Code(126), "heard: {listens}");
    }
}

/// In a process of its own: starts a container, says which, and ends.
pub(crate) fn leave_one_behind(_: &[String]) {
    let sandbox = Sandbox::new();
    let mut plan = sandbox.plan(&["/bin/sleep", "1000"]);
    plan.lifetime = Lifetime::Own;
    plan.stdio = piped().1;
    let child = spawn(plan).unwrap();
    println!("{} {}", child.process.pid, child.process.start_ticks);
}

fn a_container_outlives_its_starter_if_it_may() {
    let text = part("@leave", &[]);
    let numbers: Vec<u64> = text.split_whitespace().map(|number| number.parse().unwrap()).collect();
    let process = Process { pid: i32::try_from(numbers[0]).unwrap(), start_ticks: numbers[1] };
    assert!(process.is_alive());
    process.signal(Signal::SIGKILL as i32).unwrap();
}

fn another_user_keeps_ambient_capabilities() {
    let sandbox = Sandbox::new();
    let set = |names: &[&str]| {
        let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        CapabilitySet::default().adjusted(&names, &[]).unwrap()
    };
    let status = |ambient: CapabilitySet, inheritable: CapabilitySet| {
        let (mut reader, files) = piped();
        let mut plan = sandbox.plan(&["/bin/cat", "/proc/self/status"]);
        plan.stdio = files;
        plan.user = User { uid: 1000, gid: 1000, groups: vec![], home: "/".into() };
        confine(&mut plan, |_, privileges| {
            privileges.capabilities = CapabilitySets {
                bounding: set(&["CHOWN", "NET_BIND_SERVICE", "KILL"]),
                permitted: set(&["NET_BIND_SERVICE", "KILL"]),
                effective: set(&["NET_BIND_SERVICE"]),
                inheritable,
                ambient,
            };
        });
        spawn(plan).map(|child| finish(&child, &mut reader).1)
    };
    let bind = set(&["NET_BIND_SERVICE"]);
    let text = status(bind, bind).unwrap();
    for (name, value) in [("CapInh", 0x400), ("CapPrm", 0x400), ("CapEff", 0x400), ("CapBnd", 0x421), ("CapAmb", 0x400)]
    {
        assert!(text.contains(&format!("{name}:\t{value:016x}")), "{name} {value:x}: {text}");
    }
    let error = status(bind, CapabilitySet::default()).unwrap_err().to_string();
    assert!(error.contains("capabilities"), "{error}");
}

fn settings_of_its_own_namespaces_and_names() {
    let sandbox = Sandbox::new();
    let script = "cat /proc/sys/net/ipv4/ip_default_ttl /proc/sys/kernel/shmmax /proc/sys/kernel/domainname /proc/self/oom_score_adj
        umask; busybox ls -ld /srv";
    let (exit, output) = sandbox.sh(script, |plan| {
        plan.sysctls = vec![("net.ipv4.ip_default_ttl".into(), "42".into()), ("kernel.shmmax".into(), "4242".into())];
        plan.domain_name = Some("harbour".into());
        plan.oom_score_adj = Some(500);
        plan.umask = 0o077;
        plan.cwd = "/srv".into();
    });
    assert_eq!(exit, Exit::Code(0), "{output}");
    assert!(output.starts_with("42\n4242\nharbour\n500\n0077\ndrwxr-xr-x"), "{output}");
    let mut plan = sandbox.plan(&["/bin/true"]);
    plan.sysctls = vec![("kernel.core_pattern".into(), "|/x".into())];
    let error = spawn(plan).unwrap_err().to_string();
    assert!(error.contains("kernel.core_pattern") && error.contains("no namespace"), "{error}");
}

fn file_systems_with_options_and_attributes() {
    let sandbox = Sandbox::new();
    let file_system = |kind: &str, options: &[&str]| MountSource::FileSystem {
        kind: kind.into(),
        source: Some("vessel".into()),
        options: options.iter().map(|option| (*option).to_owned()).collect(),
    };
    let attributes = Attributes {
        set: MountAttrFlags::MOUNT_ATTR_NOATIME | MountAttrFlags::MOUNT_ATTR_NOSUID,
        clear: MountAttrFlags::MOUNT_ATTR__ATIME,
        ..Attributes::default()
    };
    let (exit, output) = sandbox.sh("cat /proc/mounts; ls -ld /data", |plan| {
        let data = file_system("tmpfs", &["size=1m", "mode=700", "uid=7"]);
        plan.mounts.push(Mount { attributes: attributes.clone(), ..Mount::new("/data", data, false) });
        plan.mounts.push(Mount::new("/queues", file_system("mqueue", &[]), true));
        let exec = Attributes { clear: MountAttrFlags::MOUNT_ATTR_NOEXEC, ..Attributes::default() };
        let source = MountSource::Tmpfs { size_bytes: None, mode: 0o755, exec: false };
        plan.mounts.push(Mount { attributes: exec, ..Mount::new("/programs", source, false) });
    });
    assert_eq!(exit, Exit::Code(0), "{output}");
    let line = |target: &str| output.lines().find(|line| line.contains(target)).unwrap_or_default();
    let data = line(" /data ");
    assert!(data.starts_with("vessel ") && data.contains("nosuid") && data.contains("noatime"), "{data}");
    assert!(data.contains("size=1024k") && data.contains("mode=700") && data.contains("nodev"), "{data}");
    assert!(line(" /queues mqueue ").contains("ro,"), "{output}");
    assert!(!line(" /programs ").contains("noexec") && line(" /programs ").contains("nosuid"), "{output}");
    for (kind, options, reason) in [("nosuchfs", &[][..], "does not have"), ("tmpfs", &["size=x"], "an option")] {
        let mut plan = sandbox.plan(&["/bin/true"]);
        plan.mounts.push(Mount::new("/data", file_system(kind, options), false));
        let error = spawn(plan).unwrap_err().to_string();
        assert!(error.contains(kind) && error.contains(reason), "{error}");
    }
}

fn a_bind_follows_the_hosts_mounts_if_it_may() {
    let sandbox = Sandbox::new();
    let source = sandbox.path("host");
    let none = None::<&str>;
    mount(Some(&source), &source, none, MsFlags::MS_BIND, none).unwrap();
    mount(none, &source, none, MsFlags::MS_SHARED, none).unwrap();
    fs::create_dir(source.join("late")).unwrap();
    for (propagation, seen) in
        [(Propagation::Private, ""), (Propagation::Slave, "file\n"), (Propagation::Shared, "file\n")]
    {
        let (mut reader, files) = piped();
        let mut plan = sandbox.plan(&["/bin/sh", "-c", "echo up; read word; ls /data/late"]);
        let (input, mut word) = std::io::pipe().unwrap();
        plan.stdio = files;
        if let linux_exec::plan::Stdio::Streams([stdin, ..]) = &mut plan.stdio {
            *stdin = linux_exec::plan::Stream::File(input.into());
        }
        let bind = MountSource::Bind { source: source.clone(), recursive: true };
        let attributes = Attributes { propagation, ..Attributes::default() };
        plan.mounts.push(Mount { attributes, ..Mount::new("/data", bind, false) });
        let child = spawn(plan).unwrap();
        reader.read_exact(&mut [0; 3]).unwrap();
        mount(Some("late"), &source.join("late"), Some("tmpfs"), MsFlags::empty(), none).unwrap();
        fs::write(source.join("late/file"), "").unwrap();
        word.write_all(b"on\n").unwrap();
        assert_eq!(finish(&child, &mut reader).1, seen, "{propagation:?}");
        umount2(&source.join("late"), MntFlags::MNT_DETACH).unwrap();
    }
    umount2(&source, MntFlags::MNT_DETACH).unwrap();
}

fn a_bind_shows_mapped_ids() {
    let sandbox = Sandbox::new();
    fs::write(sandbox.path("host/file"), "").unwrap();
    let ids = [IdRange { inside: 0, outside: 1000, count: 10 }];
    let owner = Arc::new(userns::make(&ids, &ids).unwrap());
    let bind = MountSource::Bind { source: sandbox.path("host"), recursive: true };
    let attributes = Attributes { ids_of: Some(owner), ..Attributes::default() };
    let mut plan = sandbox.plan(&["/bin/stat", "-c", "%u:%g", "/data/file"]);
    plan.mounts.push(Mount { attributes, ..Mount::new("/data", bind, false) });
    match run(plan) {
        Err(error) if error.to_string().contains("cannot map ids") => println!("skipped: {error}"),
        ran => assert_eq!(ran.unwrap().1, "1000:1000\n"),
    }
}

fn only_the_top_of_a_bind_is_read_only() {
    let sandbox = Sandbox::new();
    let below = sandbox.path("host/below");
    fs::create_dir(&below).unwrap();
    mount(Some("below"), &below, Some("tmpfs"), MsFlags::empty(), None::<&str>).unwrap();
    for (recursive, expected) in [(true, "ro ro\n"), (false, "ro rw\n")] {
        let bind = MountSource::Bind { source: sandbox.path("host"), recursive: true };
        let attributes = Attributes { recursive, ..Attributes::default() };
        let script = "w() { touch $1/x 2>/dev/null && echo rw || echo ro; }; echo $(w /data) $(w /data/below)";
        let (_, output) = sandbox.sh(script, |plan| {
            plan.mounts.push(Mount { attributes, ..Mount::new("/data", bind, true) });
        });
        assert_eq!(output, expected, "recursive: {recursive}");
    }
    umount2(&below, MntFlags::MNT_DETACH).unwrap();
}

fn a_function_is_called_only_with_one_thread() {
    let sandbox = Sandbox::new();
    let plan = || {
        let mut plan = sandbox.plan(&["/bin/true"]);
        plan.entry = call(Box::new(|| 7), Vec::new());
        plan
    };
    let (stop, stopped) = std::sync::mpsc::channel::<()>();
    let second = std::thread::spawn(move || stopped.recv());
    let error = spawn(plan()).unwrap_err().to_string();
    assert!(error.contains("more than one thread"), "{error}");
    drop(stop);
    second.join().unwrap().unwrap_err();
    // The kernel takes it from the list a moment later.
    while fs::read_dir("/proc/self/task").unwrap().count() > 1 {
        std::thread::yield_now();
    }
    assert_eq!(reap(&spawn(plan()).unwrap()).unwrap().exit, Exit::Code(7));
}

fn programs_start_from_several_threads() {
    let start = |number: u8| {
        let sandbox = Sandbox::new();
        for _ in 0..20 {
            let script = format!("exit {number}");
            let child = spawn(sandbox.plan(&["/bin/sh", "-c", &script])).unwrap();
            assert_eq!(reap(&child).unwrap().exit, Exit::Code(number));
        }
    };
    std::thread::scope(|scope| {
        for number in 1..=4 {
            scope.spawn(move || start(number));
        }
    });
    assert!(nix::sys::wait::waitpid(None, Some(nix::sys::wait::WaitPidFlag::WNOHANG)).is_err(), "a child is left");
}
