//! Against this machine's own cgroups, whichever version they are.

use super::*;
use std::{
    fs,
    os::unix::process::ExitStatusExt,
    process::{Child, Command, ExitStatus, Stdio},
};

/// A group that is taken away when the test ends, however it does.
struct Guarded(Cgroup);

impl Drop for Guarded {
    fn drop(&mut self) {
        self.0.kill().unwrap();
        self.0.remove().unwrap();
    }
}

/// None, with the reason printed, where the limits cannot be had.
fn make(test: &str, wanted: &Resources) -> Option<(Cgroups, String, Guarded)> {
    let cgroups = Cgroups::detect().unwrap();
    let missing = cgroups.unenforceable(wanted);
    if !missing.is_empty() {
        println!("skipped: {missing:?}");
        return None;
    }
    let id = format!("test-{test}-{}", std::process::id());
    let group = Guarded(cgroups.create(&id, wanted).unwrap());
    Some((cgroups, id, group))
}

/// A shell that enters the group and then runs `script`.
fn start(group: &Cgroup, script: &str) -> Child {
    let enter: String =
        group.paths().iter().map(|path| format!("echo $$ >{}/cgroup.procs; ", path.display())).collect();
    Command::new("sh").arg("-c").arg(enter + script).stderr(Stdio::null()).spawn().unwrap()
}

fn run(group: &Cgroup, script: &str) -> ExitStatus {
    start(group, script).wait().unwrap()
}

/// Until the child has entered the group.
fn await_member(path: &Path, child: &mut Child) {
    while fs::read_to_string(path.join("cgroup.procs")).unwrap().is_empty() {
        assert_eq!(child.try_wait().unwrap(), None, "{} takes no process", path.display());
        std::thread::yield_now();
    }
}

fn value(group: &Cgroup, file: &str) -> String {
    let read = |path: &PathBuf| fs::read_to_string(path.join(file)).ok();
    group.paths().iter().find_map(read).unwrap_or_else(|| panic!("no {file} in {:?}", group.paths())).trim().to_owned()
}

#[test]
fn limits_are_what_the_kernel_reads() {
    let wanted = Resources {
        memory_bytes: Some(64 << 20),
        memory_swap_bytes: None,
        cpu_millis: Some(500),
        cpu_shares: Some(512),
        cpuset_cpus: None,
        pids: Some(7),
        ..Resources::default()
    };
    let Some((cgroups, id, guarded)) = make("limits", &wanted) else { return };
    let group = &guarded.0;
    let expected: &[(&str, &str)] = match cgroups.mode() {
        "v2" => &[
            ("memory.max", "67108864"),
            ("cpu.max", "50000 100000"),
            ("cpu.weight", "59"),
            ("pids.max", "7"),
            ("memory.oom.group", "0"),
        ],
        _ => &[
            ("memory.limit_in_bytes", "67108864"),
            ("cpu.cfs_quota_us", "50000"),
            ("cpu.cfs_period_us", "100000"),
            ("cpu.shares", "512"),
            ("pids.max", "7"),
        ],
    };
    for (file, expected) in expected {
        assert_eq!(value(group, file), *expected, "{file}");
    }
    assert!(cgroups.list().contains(&id));
    assert_eq!(cgroups.open(&id).unwrap().unwrap().paths(), group.paths());
    assert_eq!(group.clone_into().is_some(), cgroups.mode() == "v2");
    assert_eq!(group.join_files(false).len(), group.paths().len());
    assert!(run(group, "exit 0").success());
}

#[test]
fn memory_hog_is_killed_and_counted() {
    let wanted = Resources { memory_bytes: Some(20 << 20), ..Resources::default() };
    let Some((_, _, group)) = make("hog", &wanted) else { return };
    assert_eq!(run(&group.0, "exec tail /dev/zero").signal(), Some(9));
    let usage = group.0.usage();
    assert_eq!(usage.oom_kills, 1);
    // v2 counts the peak since Linux 5.19.
    assert!(usage.peak_memory_bytes.is_none_or(|peak| (10 << 20..=20 << 20).contains(&peak)), "{usage:?}");
}

#[test]
fn fork_bomb_is_refused_and_counted() {
    let wanted = Resources { pids: Some(4), ..Resources::default() };
    let Some((_, _, group)) = make("forks", &wanted) else { return };
    run(&group.0, "for n in 1 2 3 4 5 6; do sleep 1 & done; wait");
    assert!(group.0.usage().pids_refused > 0, "{:?}", group.0.usage());
}

#[test]
fn kill_ends_all_and_remove_takes_nested_groups_along() {
    let Some((cgroups, id, group)) = make("kill", &Resources::default()) else { return };
    let Some(path) = group.0.paths().first().cloned() else {
        println!("skipped: no cgroup can be made here");
        return;
    };
    fs::create_dir_all(path.join("one/two")).unwrap();
    let mut outer = start(&group.0, "sleep 1000 & wait");
    let inner = format!("echo $$ >{}/one/two/cgroup.procs; exec sleep 1000", path.display());
    let mut inner = Command::new("sh").arg("-c").arg(inner).spawn().unwrap();
    await_member(&path, &mut outer);
    await_member(&path.join("one/two"), &mut inner);
    let busy = cgroups.create(&id, &Resources::default()).err().map(|error| error.to_string());
    assert!(busy.is_some_and(|error| error.contains("still has processes")), "a group in use is not taken over");
    group.0.kill().unwrap();
    assert_eq!(inner.wait().unwrap().signal(), Some(9));
    assert_eq!(outer.wait().unwrap().signal(), Some(9));
    group.0.remove().unwrap();
    assert!(!path.exists() && !cgroups.list().contains(&id) && cgroups.open(&id).unwrap().is_none());
    group.0.remove().unwrap();
}

#[test]
fn leftover_group_is_made_anew() {
    let wanted = Resources { pids: Some(5), ..Resources::default() };
    let Some((cgroups, id, _group)) = make("leftover", &wanted) else { return };
    let again = cgroups.create(&id, &Resources { pids: Some(6), ..Resources::default() }).unwrap();
    assert_eq!(value(&again, "pids.max"), "6");
}

#[test]
fn ids_and_values_are_checked_before_anything_is_made() {
    let cgroups = Cgroups::detect().unwrap();
    for id in ["", ".", "..", ".hidden", "a/b", "a\0b", "a\nb"] {
        assert!(matches!(cgroups.create(id, &Resources::default()), Err(CgroupError::Id(_))), "{id:?}");
        assert!(cgroups.open(id).is_err(), "{id:?}");
    }
    let small = Resources { memory_bytes: Some(1000), ..Resources::default() };
    assert!(
        cgroups.create("test-small", &small).is_err_and(|error| error.to_string().starts_with("the memory limit 1000"))
    );
    assert!(cgroups.open("test-small").unwrap().is_none());
}

#[test]
fn cpuset_holds_and_takes_processes() {
    let wanted = Resources { cpuset_cpus: Some("0".to_owned()), ..Resources::default() };
    let Some((_, _, group)) = make("cpuset", &wanted) else { return };
    assert_eq!(value(&group.0, "cpuset.cpus"), "0");
    assert!(run(&group.0, "grep -q '^Cpus_allowed_list:.0$' /proc/self/status").success());
}

#[test]
fn absent_cpu_is_named() {
    let wanted = Resources { cpuset_cpus: Some("0,4000".to_owned()), ..Resources::default() };
    let cgroups = Cgroups::detect().unwrap();
    if let [sentence] = cgroups.unenforceable(&wanted).as_slice() {
        return println!("skipped: {sentence}");
    }
    let error = cgroups.create("test-cpus", &wanted).err().map(|error| error.to_string()).unwrap_or_default();
    assert!(error.starts_with("the list of CPUs 0,4000: expected CPUs out of"), "{error}");
    assert!(cgroups.open("test-cpus").unwrap().is_none(), "what was made is taken back");
}

#[test]
fn a_place_is_made_with_what_it_lies_in_and_only_the_group_is_removed() {
    let cgroups = Cgroups::detect().unwrap();
    let parent = format!("amphora-test-{}", std::process::id());
    let wanted = Resources { pids: Some(9), ..Resources::default() };
    if let [sentence, ..] = cgroups.unenforceable(&wanted).as_slice() {
        return println!("skipped: {sentence}");
    }
    for place in [format!("/{parent}/a/leaf"), format!("{parent}/a/leaf")] {
        let place = Place::parse(&place).unwrap();
        let group = Guarded(cgroups.create_at(&place, &wanted).unwrap());
        assert_eq!(value(&group.0, "pids.max"), "9");
        assert!(run(&group.0, "exit 0").success());
        let paths = group.0.paths();
        assert!(paths.iter().all(|path| path.ends_with(format!("{parent}/a/leaf"))), "{paths:?}");
        assert_eq!(cgroups.open_at(&place).unwrap().unwrap().paths(), paths);
        fs::create_dir(paths[0].join("below")).unwrap();
        let again = cgroups.create_at(&place, &wanted).err();
        assert!(matches!(again, Some(CgroupError::Busy(_))), "a group that is not ours is not emptied: {again:?}");
        drop(group);
        for path in &paths {
            let above = path.parent().unwrap();
            assert!(!path.exists() && above.exists(), "{path:?}");
        }
        for path in &paths {
            fs::remove_dir(path.parent().unwrap()).unwrap();
            fs::remove_dir(path.parent().unwrap().parent().unwrap()).unwrap();
        }
    }
}

#[test]
fn limits_change_while_a_process_is_inside() {
    let wanted =
        Resources { memory_bytes: Some(64 << 20), cpu_millis: Some(500), pids: Some(5), ..Resources::default() };
    let Some((cgroups, id, group)) = make("update", &wanted) else { return };
    let mut inside = start(&group.0, "exec sleep 1000");
    group.0.paths().iter().for_each(|path| await_member(path, &mut inside));
    let place = Place::of_container(&id).unwrap();
    let is_v2 = cgroups.mode() == "v2";
    // Up and down again, and to a period that the quota of before would not fit in.
    for (memory, quota, period, pids) in [(128, 900_000, 1_000_000, 50), (32, 2000, 4000, 6)] {
        let further = Further { cpu_quota_usec: Some(quota), cpu_period_usec: Some(period), ..Further::default() };
        let wanted = Resources {
            memory_bytes: Some(memory << 20),
            memory_swap_bytes: Some(memory << 20),
            pids: Some(pids),
            further,
            ..Resources::default()
        };
        if !cgroups.unenforceable(&wanted).is_empty() {
            return println!("skipped: {:?}", cgroups.unenforceable(&wanted));
        }
        cgroups.update(&place, &wanted).unwrap();
        assert_eq!(
            value(&group.0, if is_v2 { "memory.max" } else { "memory.limit_in_bytes" }),
            (memory << 20).to_string()
        );
        assert_eq!(value(&group.0, "pids.max"), pids.to_string());
        match is_v2 {
            true => assert_eq!(value(&group.0, "cpu.max"), format!("{quota} {period}")),
            false => assert_eq!(value(&group.0, "cpu.cfs_quota_us"), quota.to_string()),
        }
    }
    let unlimited = Resources { memory_bytes: Some(u64::MAX), pids: Some(u64::MAX), ..Resources::default() };
    cgroups.update(&place, &unlimited).unwrap();
    let statistics = group.0.statistics();
    assert_eq!((statistics.memory_limit_bytes, statistics.pids_limit), (None, None));
    assert!(statistics.memory_bytes.is_some() && statistics.pids == Some(1), "{statistics:?}");
    group.0.kill().unwrap();
    inside.wait().unwrap();
}

#[test]
fn what_is_frozen_does_nothing_until_it_is_thawed() {
    let wanted = Resources { further: Further { freezable: true, ..Further::default() }, ..Resources::default() };
    let Some((cgroups, id, group)) = make("freeze", &wanted) else { return };
    let mut inside = start(&group.0, "while :; do :; done");
    group.0.paths().iter().for_each(|path| await_member(path, &mut inside));
    // Another process does it, which only knows the name.
    let opened = cgroups.open(&id).unwrap().unwrap();
    assert!(!opened.is_frozen().unwrap());
    opened.freeze().unwrap();
    assert!(opened.is_frozen().unwrap());
    let ticks = || {
        let stat = fs::read_to_string(format!("/proc/{}/stat", inside.id())).unwrap();
        stat.rsplit(") ").next().unwrap().split(' ').nth(11).unwrap().to_owned()
    };
    let before = ticks();
    std::thread::sleep(std::time::Duration::from_millis(50));
    assert_eq!(ticks(), before);
    opened.thaw().unwrap();
    assert!(!opened.is_frozen().unwrap());
    opened.freeze().unwrap();
    opened.kill().unwrap();
    assert_eq!(inside.wait().unwrap().signal(), Some(9), "what is frozen can be killed");
}

#[test]
fn a_list_of_devices_is_enforced() {
    let access = Access { read: true, write: true, make: true };
    let character = |major, minor, access, allow| DeviceRule {
        allow,
        kind: Some(DeviceKind::Character),
        major: Some(major),
        minor,
        access,
    };
    let mut rules: Vec<_> = [3, 5, 9].map(|minor| character(1, Some(minor), access, true)).to_vec();
    rules.push(character(1, Some(5), Access { write: true, ..Access::default() }, false));
    rules.push(character(1, Some(9), access, false));
    for every_hierarchy in [false, true] {
        let further = Further { devices: Some(rules.clone()), ..Further::default() };
        let wanted = Resources { further, every_hierarchy, ..Resources::default() };
        let cgroups = Cgroups::detect().unwrap();
        if let [sentence, ..] = cgroups.unenforceable(&wanted).as_slice() {
            return println!("skipped: {sentence}");
        }
        // On v1 a group has no more than what it lies in, and at our own place that is the default list.
        let parent = format!("amphora-test-devices-{}", std::process::id());
        let made = cgroups.create_at(&Place::parse(&format!("{parent}/leaf")).unwrap(), &wanted);
        if let Err(CgroupError::File { action, source, .. }) = &made
            && action.contains("a program for devices")
        {
            return println!("skipped: this kernel attaches no program to a cgroup: {source}");
        }
        let group = Guarded(made.unwrap());
        assert!(group.0.restricts_devices());
        let script = "for d in null zero urandom tty; do (: </dev/$d) && r=r || r=-; (: >/dev/$d) && w=w || w=-; echo $d $r$w; done";
        let (reader, writer) = std::io::pipe().unwrap();
        let enter: String = group
            .0
            .paths()
            .iter()
            .map(|path| if path.join("inside").exists() { path.join("inside") } else { path.clone() })
            .map(|path| format!("echo $$ >{}/cgroup.procs; ", path.display()))
            .collect();
        // `null` is opened before. The command goes at once, with its end of the pipe.
        let mut child =
            Command::new("sh").args(["-c", &(enter + script)]).stderr(Stdio::null()).stdout(writer).spawn().unwrap();
        assert!(child.wait().unwrap().success());
        let output = std::io::read_to_string(reader).unwrap();
        assert_eq!(output, "null rw\nzero r-\nurandom --\ntty --\n", "every hierarchy: {every_hierarchy}");
        // Opened while the group is there: it holds those hierarchies that are mounted nowhere.
        let root = |path: &PathBuf| fs::File::open(path.ancestors().nth(2).unwrap()).unwrap();
        let roots: Vec<fs::File> = group.0.paths().iter().map(root).collect();
        drop(group);
        roots.iter().for_each(|root| rustix::fs::unlinkat(root, &parent, rustix::fs::AtFlags::REMOVEDIR).unwrap());
    }
}

#[test]
fn what_this_version_does_not_have_is_refused() {
    let cgroups = Cgroups::detect().unwrap();
    let further = match cgroups.mode() {
        "v2" => Further { memory_swappiness: Some(10), ..Further::default() },
        _ => Further { unified: [("memory.high".to_owned(), "1".to_owned())].into(), ..Further::default() },
    };
    let wanted = Resources { further, ..Resources::default() };
    let sentences = cgroups.unenforceable(&wanted);
    assert!(sentences[0].contains(" only, and here is the other one"), "{sentences:?}");
    assert!(matches!(cgroups.create("test-refused", &wanted), Err(CgroupError::Unenforceable(_))));
    assert!(cgroups.open("test-refused").unwrap().is_none());
}
