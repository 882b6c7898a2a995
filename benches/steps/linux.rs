//! From an image to a process: its root, its cgroup, its child, and all of it together.

use std::{
    fs,
    path::{Path, PathBuf},
};

use ::images::import::{self, Changes};
use amphora::{Host, Network, Request};
use criterion::{BatchSize, Criterion};
use linux_exec::{
    capabilities::{CapabilitySet, CapabilitySets},
    cgroup::{Cgroups, Resources},
    confinement::{Confinement, Namespaces, Privileges},
    plan::{Entry, Mount, MountSource, Plan, Stdio, Stream},
    rootfs::Rootfs,
    spawn::{reap, spawn},
};

/// A program without libraries, which most machines that build this have.
const PROGRAM: &str = "/bin/busybox";

pub(crate) fn steps(criterion: &mut Criterion) {
    if !nix::unistd::geteuid().is_root() || !Path::new(PROGRAM).exists() {
        println!("left out: overlay, cgroup, child, records and a whole start want root and {PROGRAM}");
        return;
    }
    let place = if Path::new("/dev/shm").is_dir() { "/dev/shm" } else { "/tmp" };
    let folder = tempfile::tempdir_in(place).unwrap();
    let tree = Tree::make(folder.path());
    criterion.bench_function("overlay", |bench| {
        bench.iter_batched(|| tree.fresh(), |work| drop(tree.root(&work)), BatchSize::PerIteration);
    });
    criterion.bench_function("find the program", |bench| {
        let root = tree.root(&tree.fresh());
        bench.iter(|| root.find_program(&[], "true", "/usr/bin:/bin", Path::new("/")).unwrap());
    });
    let cgroups = Cgroups::detect().unwrap();
    let limits = Resources { memory_bytes: Some(64 << 20), ..Resources::default() };
    criterion.bench_function("cgroup", |bench| {
        bench.iter(|| cgroups.create("amphora-steps", &limits).unwrap().remove().unwrap());
    });
    criterion.bench_function("plan", |bench| {
        bench.iter_batched(|| tree.root(&tree.fresh()), plan, BatchSize::PerIteration);
    });
    criterion.bench_function("the child's steps", |bench| {
        let run = |root| {
            let child = spawn(plan(root)).unwrap();
            reap(&child).unwrap();
        };
        bench.iter_batched(|| tree.root(&tree.fresh()), run, BatchSize::PerIteration);
    });
    whole(criterion, folder.path());
}

/// One layer with one program, and an upper directory.
struct Tree {
    folder: PathBuf,
}

impl Tree {
    fn make(folder: &Path) -> Self {
        let tree = Self { folder: folder.to_owned() };
        for name in ["lower/bin", "upper", "work"] {
            fs::create_dir_all(folder.join(name)).unwrap();
        }
        fs::copy(PROGRAM, folder.join("lower/bin/true")).unwrap();
        tree
    }

    /// A work directory that no overlay has used.
    fn fresh(&self) -> PathBuf {
        let work = self.folder.join("work/0");
        let _ = fs::remove_dir_all(&work);
        fs::create_dir(&work).unwrap();
        work
    }

    fn root(&self, work: &Path) -> Rootfs {
        Rootfs::overlay(&[self.folder.join("lower")], &self.folder.join("upper"), work, true).unwrap()
    }
}

/// What `run` makes by default, but for its filter and its capabilities, which are those of the runtime: namespaces of all kinds, mounts.
fn plan<'a>(root: Rootfs) -> Plan<'a> {
    let privileges = Privileges {
        capabilities: CapabilitySets::of_user(CapabilitySet::all(), 0),
        no_new_privileges: true,
        seccomp: None,
    };
    let confinement = Confinement::new(Namespaces::NEW, privileges).unwrap();
    let entry = Entry::Exec { program: "/bin/true".into(), argv: vec![b"true".to_vec()], env: Vec::new(), init: None };
    let null = || Stream::Null;
    Plan {
        mounts: vec![
            Mount::new("/proc", MountSource::Proc, false),
            Mount::new("/dev", MountSource::Dev { shm_bytes: Some(64 << 20), host_devices: false }, false),
            Mount::new("/sys", MountSource::Sysfs, true),
        ],
        masked_paths: ["/proc/acpi", "/proc/keys", "/proc/scsi", "/sys/firmware"].map(PathBuf::from).to_vec(),
        readonly_paths: ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys"].map(PathBuf::from).to_vec(),
        stdio: Stdio::Streams([null(), null(), null()]),
        ..Plan::new(root, confinement, entry)
    }
}

/// A record, and a start with everything that a start has.
fn whole(criterion: &mut Criterion, folder: &Path) {
    let host = Host::open(Some(folder.join("root")), Some(folder.join("run"))).unwrap();
    let program = fs::read(PROGRAM).unwrap();
    let (files, name) = ([("bin/true", 0o755, program.as_slice())], "localhost/step:latest".parse().unwrap());
    let image = import::import_files(host.store(), &files, &name, &Changes::default()).unwrap();
    let request = |name: Option<&str>| Request {
        image: "localhost/step".into(),
        command: vec!["/bin/true".into()],
        name: name.map(str::to_owned),
        auto_remove: name.is_none(),
        network: Some(Network::None),
        ..Request::default()
    };
    amphora::run(&host, &image, request(Some("steps"))).unwrap();
    criterion.bench_function("read a record", |bench| bench.iter(|| host.image_of("steps").unwrap()));
    criterion.bench_function("a whole start, from a request to its end", |bench| {
        bench.iter(|| assert_eq!(amphora::run(&host, &image, request(None)).unwrap(), 0));
    });
}
