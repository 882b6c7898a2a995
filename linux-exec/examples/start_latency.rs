//! Measures what starting and reaping a container costs: `start_latency [RUNS]`, as root, with busybox-static.
//!
//! Prints minimum and median of the wall time of each part, and the minor faults of the whole; the variants leave out
//! one thing each, so that what it costs is seen.
use linux_exec::{
    capabilities::{CapabilitySet, CapabilitySets},
    confinement::{Confinement, Namespace, Namespaces, Privileges},
    plan::{Entry, Mount, MountSource, Plan},
    rootfs::Rootfs,
    seccomp::{
        Filter,
        profile::{Action, Call, Flags, Profile, Rule},
    },
    spawn::{Exit, reap, spawn},
};
use nix::sys::resource::{UsageWho, getrusage};
use std::{
    error::Error,
    fs,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

/// Refused to the programs: as many ranges of numbers as filters of containers have.
const REFUSED: [&str; 24] = [
    "acct",
    "add_key",
    "bpf",
    "clock_settime",
    "delete_module",
    "finit_module",
    "fsopen",
    "get_mempolicy",
    "init_module",
    "io_uring_setup",
    "kcmp",
    "kexec_load",
    "keyctl",
    "mount",
    "move_pages",
    "open_by_handle_at",
    "perf_event_open",
    "pivot_root",
    "process_vm_readv",
    "reboot",
    "setns",
    "swapon",
    "unshare",
    "userfaultfd",
];

/// A change to the plan of which the cost is wanted.
type Variant = (&'static str, fn(&mut Plan<'static>));

const VARIANTS: &[Variant] = &[
    ("all of it", |_| ()),
    ("without a network namespace", |plan| confine(plan, |namespaces, _| namespaces.network = Namespace::Host)),
    ("without seccomp", |plan| confine(plan, |_, privileges| privileges.seccomp = None)),
    ("without masked and read-only paths", |plan| {
        plan.masked_paths.clear();
        plan.readonly_paths.clear();
    }),
    ("without mounts", |plan| {
        plan.mounts.clear();
        plan.masked_paths.clear();
        plan.readonly_paths.clear();
    }),
    ("without anything", |plan| {
        plan.mounts.clear();
        plan.masked_paths.clear();
        plan.readonly_paths.clear();
        confine(plan, |namespaces, privileges| {
            namespaces.network = Namespace::Host;
            privileges.seccomp = None;
            privileges.capabilities = CapabilitySets::of_user(CapabilitySet::all(), 0);
        });
    }),
];

fn main() -> Result<(), Box<dyn Error>> {
    let runs = std::env::args().nth(1).map_or(Ok(200), |text| text.parse())?;
    let directory = tempfile::tempdir_in("/dev/shm")?;
    for name in ["lower/bin", "upper", "work"] {
        fs::create_dir_all(directory.path().join(name))?;
    }
    fs::copy("/bin/busybox", directory.path().join("lower/bin/true"))?;
    println!(
        "{:36} {:>15} {:>15} {:>15} {:>15} {:>7}",
        "µs: minimum, median", "root", "spawn", "reap", "all", "faults"
    );
    for (name, change) in VARIANTS {
        let mut samples = Vec::with_capacity(runs);
        for _ in 0..runs {
            samples.push(sample(directory.path(), *change)?);
        }
        print(name, &samples);
    }
    Ok(())
}

struct Sample {
    times: [Duration; 4],
    faults: i64,
}

fn sample(directory: &Path, change: fn(&mut Plan<'static>)) -> Result<Sample, Box<dyn Error>> {
    let work = directory.join("work/0");
    let _ = fs::remove_dir_all(&work);
    fs::create_dir(&work)?;
    let faults = faults()?;
    let begin = Instant::now();
    let root = Rootfs::overlay(&[directory.join("lower")], &directory.join("upper"), &work, true)?;
    let made = begin.elapsed();
    let mut plan = plan(root);
    change(&mut plan);
    let child = spawn(plan)?;
    let spawned = begin.elapsed();
    let exit = reap(&child)?.exit;
    let all = begin.elapsed();
    if exit != Exit::Code(0) {
        return Err(format!("the program ended with {exit:?}").into());
    }
    Ok(Sample { times: [made, spawned - made, all - spawned, all], faults: self::faults()? - faults })
}

/// This process's and its children's.
fn faults() -> nix::Result<i64> {
    let of = |who| getrusage(who).map(|usage| usage.minor_page_faults());
    Ok(of(UsageWho::RUSAGE_SELF)? + of(UsageWho::RUSAGE_CHILDREN)?)
}

fn print(name: &str, samples: &[Sample]) {
    print!("{name:36}");
    for index in 0..4 {
        let mut times: Vec<_> = samples.iter().map(|sample| sample.times[index].as_micros()).collect();
        times.sort_unstable();
        print!(" {:>7}{:>8}", times[0], times[times.len() / 2]);
    }
    let mut faults: Vec<_> = samples.iter().map(|sample| sample.faults).collect();
    faults.sort_unstable();
    println!(" {:>7}", faults[faults.len() / 2]);
}

fn filter() -> Filter {
    let calls = REFUSED.map(|name| Call::Name(name.to_owned())).to_vec();
    let profile = Profile {
        default: Action::Allow,
        architectures: Vec::new(),
        rules: vec![Rule { calls, action: Action::Errno(1), conditions: Vec::new() }],
        newer_are_unknown: false,
        flags: Flags::default(),
    };
    profile.compile().expect("a profile that the kernel takes")
}

fn plan(root: Rootfs) -> Plan<'static> {
    let mount = |target: &str, source, readonly| Mount::new(target, source, readonly);
    let paths = |paths: &[&str]| paths.iter().map(PathBuf::from).collect();
    let capabilities = CapabilitySet::of(&["CHOWN", "DAC_OVERRIDE", "KILL", "SETGID", "SETUID"]);
    let confinement = Confinement::new(
        Namespaces::NEW,
        Privileges {
            capabilities: CapabilitySets::of_user(capabilities, 0),
            no_new_privileges: true,
            seccomp: Some(filter()),
        },
    );
    let confinement = confinement.expect("new namespaces");
    let entry = Entry::Exec {
        program: "/bin/true".into(),
        argv: vec![b"true".to_vec()],
        env: vec![b"PATH=/bin".to_vec()],
        init: None,
    };
    Plan {
        mounts: vec![
            mount("/proc", MountSource::Proc, false),
            mount("/dev", MountSource::Dev { shm_bytes: Some(64 << 20), host_devices: false }, false),
            mount("/sys", MountSource::Sysfs, true),
            mount("/sys/fs/cgroup", MountSource::Cgroup, true),
        ],
        masked_paths: paths(&[
            "/proc/asound",
            "/proc/acpi",
            "/proc/interrupts",
            "/proc/kcore",
            "/proc/keys",
            "/proc/latency_stats",
            "/proc/timer_list",
            "/proc/timer_stats",
            "/proc/sched_debug",
            "/proc/scsi",
            "/sys/firmware",
            "/sys/devices/virtual/powercap",
        ]),
        readonly_paths: paths(&["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"]),
        hostname: Some("measured".into()),
        ..Plan::new(root, confinement, entry)
    }
}

fn confine(plan: &mut Plan<'static>, change: impl FnOnce(&mut Namespaces<'static>, &mut Privileges)) {
    let (mut namespaces, mut privileges) = plan.confinement.clone().into_parts();
    change(&mut namespaces, &mut privileges);
    plan.confinement = Confinement::new(namespaces, privileges).expect("what is not new is the host's");
}
