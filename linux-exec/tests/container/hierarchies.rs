//! Attacks on the host's cgroups by a container that can mount their hierarchies.
use crate::sandbox::{Sandbox, added, call, confine, finish, part, piped, plan, run, unfiltered, without};
use linux_exec::{
    capabilities::{CapabilitySet, CapabilitySets},
    cgroup::{Cgroup, Cgroups, Resources},
    plan::Plan,
    spawn::{Exit, spawn},
};
use nix::{
    mount::{MntFlags, MsFlags, mount, umount2},
    sched::{CloneFlags, unshare},
};
use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

/// A v1 hierarchy of the test's own, so that the attack may write to what it reaches.
pub(crate) struct Named {
    directory: tempfile::TempDir,
    pub(crate) name: String,
}

impl Named {
    /// None where the kernel has no cgroup v1.
    pub(crate) fn new() -> Option<Self> {
        let named =
            Self { directory: tempfile::tempdir().unwrap(), name: format!("amphora-test-{}", std::process::id()) };
        let options = format!("none,name={}", named.name);
        mount(Some("none"), named.directory.path(), Some("cgroup"), MsFlags::empty(), Some(options.as_str())).ok()?;
        Some(named)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }
}

impl Drop for Named {
    fn drop(&mut self) {
        let _ = umount2(self.directory.path(), MntFlags::MNT_DETACH);
    }
}

/// A container's cgroup that goes when the test ends.
pub(crate) struct Guarded(pub(crate) Cgroup);

impl Guarded {
    pub(crate) fn new(name: &str) -> Self {
        let wanted = Resources { restrict_devices: true, every_hierarchy: true, ..Resources::default() };
        let id = format!("test-{name}-{}", std::process::id());
        Self(Cgroups::detect().unwrap().create(&id, &wanted).unwrap())
    }
}

impl Drop for Guarded {
    fn drop(&mut self) {
        self.0.kill().unwrap();
        self.0.remove().unwrap();
    }
}

/// With what `--cap-add SYS_ADMIN` gives.
pub(crate) fn administrator<'a>(mut plan: Plan<'a>, cgroup: &'a Cgroup) -> Plan<'a> {
    confine(&mut plan, |_, privileges| {
        let capabilities = added("SYS_ADMIN");
        privileges.capabilities = CapabilitySets::of_user(capabilities, 0);
        privileges.seccomp = Some(without(&["add_key", "keyctl", "request_key"]));
    });
    plan.cgroup = Some(cgroup);
    plan
}

/// What /proc/self/cgroup names, without the v2 tree: as options of a mount.
pub(crate) fn hierarchies() -> Vec<String> {
    let text = fs::read_to_string("/proc/self/cgroup").unwrap();
    let names = text.lines().filter_map(|line| line.split(':').nth(1));
    names.filter(|name| !name.is_empty()).map(str::to_owned).collect()
}

/// Controllers that no hierarchy has.
fn unused() -> Vec<String> {
    let text = fs::read_to_string("/proc/cgroups").unwrap_or_default();
    let fields = text.lines().filter(|line| !line.starts_with('#')).map(|line| line.split('\t').collect::<Vec<_>>());
    fields.filter(|fields| fields.get(1) == Some(&"0")).map(|fields| fields[0].to_owned()).collect()
}

/// It mounts each hierarchy in its cgroup namespace and in new ones, from a group below its own too, and after everything that covers
/// is unmounted. In none is there a root, a process of others, or a group of others.
pub(crate) fn a_container_that_mounts_sees_no_group_of_the_hosts() {
    let named = Named::new();
    let guarded = Guarded::new("mounts");
    let (existing, absent) = (hierarchies(), unused());
    let function = Box::new(move || {
        look_everywhere("", &existing);
        create_none(&absent);
        remount(&existing);
        unshare(CloneFlags::CLONE_NEWCGROUP).unwrap();
        look_everywhere("in a new cgroup namespace", &existing);
        enter_below();
        unshare(CloneFlags::CLONE_NEWCGROUP).unwrap();
        look_everywhere("from a group below", &existing);
        unshare(CloneFlags::CLONE_NEWNS).unwrap();
        unmount_all();
        look_everywhere("after everything was unmounted", &existing);
        println!("end");
        0
    });
    let sandbox = Sandbox::new();
    let plan = plan(sandbox.root(), call(function, Vec::new()));
    let (exit, output) = run(administrator(plan, &guarded.0)).unwrap();
    assert_eq!((exit, output.as_str()), (Exit::Code(0), "end\n"));
    let left: Vec<PathBuf> = guarded.0.paths();
    drop(guarded);
    assert!(left.iter().all(|path| !path.exists()), "{left:?}");
    if let Some(named) = named {
        assert_eq!(fs::read_to_string(named.path("release_agent")).unwrap().trim(), "");
        assert!(!named.path("amphora").exists(), "our directory would keep the hierarchy alive");
    } else {
        println!("skipped in part: the kernel has no cgroup v1");
    }
}

fn look_everywhere(when: &str, existing: &[String]) {
    let place = Path::new("/host");
    let _ = fs::create_dir(place);
    for options in existing {
        match mount(Some("none"), place, Some("cgroup"), MsFlags::empty(), Some(options.as_str())) {
            Ok(()) => look(&format!("{options} {when}"), place),
            Err(errno) => println!("{options} {when} cannot be mounted: {errno}"),
        }
    }
    if mount(Some("none"), place, Some("cgroup2"), MsFlags::empty(), None::<&str>).is_ok() {
        look(&format!("v2 {when}"), place);
    }
}

/// Complains of everything that is not the container's, and unmounts.
fn look(what: &str, place: &Path) {
    let entries = fs::read_dir(place).unwrap().flatten();
    let names: Vec<_> = entries.map(|entry| (entry.file_name(), entry.path().is_dir())).collect();
    for root in ["release_agent", "cgroup.sane_behavior"] {
        if names.iter().any(|(name, _)| name == root) {
            println!("{what}: the hierarchy's root, with {root}");
        }
    }
    for (name, _) in names.iter().filter(|(name, directory)| *directory && name != "below") {
        println!("{what}: a group of others: {}", name.display());
    }
    let processes = fs::read_to_string(place.join("cgroup.procs")).unwrap();
    // One of another pid namespace shows as 0.
    if processes.lines().any(|pid| pid == "0") {
        println!("{what}: processes of others");
    }
    umount2(place, MntFlags::MNT_DETACH).unwrap();
}

/// A new hierarchy would have a root of its own.
fn create_none(absent: &[String]) {
    for options in absent.iter().map(String::as_str).chain(["none,name=fresh"]) {
        if mount(Some("none"), "/host", Some("cgroup"), MsFlags::empty(), Some(options)).is_ok() {
            println!("a new hierarchy could be made: {options}");
            umount2("/host", MntFlags::MNT_DETACH).unwrap();
        }
    }
}

/// Of the test's own hierarchy only, as this would succeed.
fn remount(existing: &[String]) {
    for options in existing.iter().filter(|options| options.contains("amphora-test")) {
        mount(Some("none"), "/host", Some("cgroup"), MsFlags::empty(), Some(options.as_str())).unwrap();
        let other = format!("{options},release_agent=/bin/true");
        for options in [other.as_str(), &format!("{options},none,release_agent=/bin/true")] {
            if mount(Some("none"), "/host", None::<&str>, MsFlags::MS_REMOUNT, Some(options)).is_ok() {
                println!("remounted with {options}");
            }
        }
        umount2("/host", MntFlags::MNT_DETACH).unwrap();
    }
}

/// Moves into a group that it makes itself, in each hierarchy.
fn enter_below() {
    for options in hierarchies() {
        mount(Some("none"), "/host", Some("cgroup"), MsFlags::empty(), Some(options.as_str())).unwrap();
        let _ = fs::create_dir("/host/below");
        for name in ["cpuset.cpus", "cpuset.mems"] {
            if let Ok(value) = fs::read(Path::new("/host").join(name)) {
                fs::write(Path::new("/host/below").join(name), value).unwrap();
            }
        }
        fs::write("/host/below/cgroup.procs", "0").unwrap();
        umount2("/host", MntFlags::MNT_DETACH).unwrap();
    }
}

/// Like `umount -a`, the root aside.
fn unmount_all() {
    let mountinfo = fs::read_to_string("/proc/self/mountinfo").unwrap();
    for point in mountinfo.lines().rev().filter_map(|line| line.split(' ').nth(4)).filter(|point| *point != "/") {
        let _ = umount2(point, MntFlags::MNT_DETACH);
    }
}

/// Whoever joins is in all of the groups, or could enter a cgroup namespace that begins at the host's.
pub(crate) fn who_joins_is_in_every_hierarchy() {
    let _named = Named::new();
    let guarded = Guarded::new("joins");
    let sandbox = Sandbox::new();
    let (mut reader, files) = piped();
    let mut plan = administrator(sandbox.plan(&["/bin/sh", "-c", "echo up; exec sleep 1000"]), &guarded.0);
    plan.stdio = files;
    let container = spawn(plan).unwrap();
    std::io::Read::read_exact(&mut reader, &mut [0; 3]).unwrap();
    let id = format!("test-joins-{}", std::process::id());
    let arguments = [container.process.pid.to_string(), container.process.start_ticks.to_string(), id];
    let output = part("@join_cgroup", &arguments);
    container.process.signal(nix::libc::SIGKILL).unwrap();
    finish(&container, &mut reader);
    let wrong: Vec<_> = output.lines().filter(|line| !line.ends_with(":/")).collect();
    assert!(wrong.is_empty() && output.lines().count() >= hierarchies().len(), "{output}");
}

/// A hierarchy that lost its mount but not its groups is still one that a container can mount.
pub(crate) fn a_hierarchy_that_is_mounted_nowhere_is_not_shared_either() {
    let Some(named) = Named::new() else { return println!("skipped: the kernel has no cgroup v1") };
    fs::create_dir(named.path("kept")).unwrap();
    umount2(named.directory.path(), MntFlags::MNT_DETACH).unwrap();
    let own = format!("name={}", named.name);
    assert!(hierarchies().contains(&own), "it lives on");
    let guarded = Guarded::new("nowhere");
    let sandbox = Sandbox::new();
    let looked = own.clone();
    let function = Box::new(move || {
        look_everywhere("", &[looked]);
        println!("end");
        0
    });
    let plan = plan(sandbox.root(), call(function, Vec::new()));
    let ended = run(administrator(plan, &guarded.0));
    drop(guarded);
    mount(Some("none"), named.directory.path(), Some("cgroup"), MsFlags::empty(), Some(own.as_str())).unwrap();
    fs::remove_dir(named.path("kept")).unwrap();
    assert!(!named.path("amphora").exists());
    assert_eq!(ended.unwrap(), (Exit::Code(0), "end\n".to_owned()));
}

/// In a user namespace the hierarchies can be mounted too, but nothing in them belongs to anybody inside.
pub(crate) fn a_user_namespace_changes_no_group_of_the_hosts() {
    let existing = hierarchies();
    let function = Box::new(move || {
        let _ = fs::create_dir("/host");
        for options in &existing {
            if mount(Some("none"), "/host", Some("cgroup"), MsFlags::empty(), Some(options.as_str())).is_ok() {
                complain_of_writable(Path::new("/host"), 3);
                umount2("/host", MntFlags::MNT_DETACH).unwrap();
            }
        }
        println!("end");
        0
    });
    let sandbox = Sandbox::new();
    let mut plan = plan(sandbox.root(), call(function, Vec::new()));
    unfiltered(&mut plan, CapabilitySet::all());
    assert_eq!(run(plan).unwrap(), (Exit::Code(0), "end\n".to_owned()));
}

fn complain_of_writable(place: &Path, depth: usize) {
    if nix::unistd::access(place, nix::unistd::AccessFlags::W_OK).is_ok() {
        println!("can be written: {}", place.display());
    }
    let entries = fs::read_dir(place).into_iter().flatten().flatten();
    for path in entries.map(|entry| entry.path()).filter(|_| depth > 0) {
        complain_of_writable(&path, depth - 1);
    }
}

/// On v2 devices are kept away by a program that is attached to a cgroup, and who can mount it could take the program off.
pub(crate) fn a_container_that_mounts_lifts_no_rule_for_devices() {
    let guarded = Guarded::new("rules");
    if Cgroups::detect().unwrap().mode() != "v2" {
        return println!("skipped: on cgroup v1 there are no such programs");
    }
    if !guarded.0.restricts_devices() {
        return println!("skipped: this kernel attaches no programs to cgroups");
    }
    let sandbox = Sandbox::new();
    let source = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/container/lift_rules.c");
    let mut compiler = Command::new("cc");
    compiler.args(["-static", "-O1", "-Wall", "-Werror", "-o"]).arg(sandbox.path("lower/bin/lift_rules")).arg(source);
    assert!(compiler.status().unwrap().success());
    let plan = administrator(sandbox.plan(&["/bin/lift_rules"]), &guarded.0);
    assert_eq!(run(plan).unwrap(), (Exit::Code(0), "end\n".to_owned()));
}
