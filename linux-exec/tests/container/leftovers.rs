//! What a container that can mount cgroup hierarchies makes in its own groups to outlive its end, or to hold up its removal.
use crate::{
    hierarchies::{Guarded, Named, administrator, hierarchies},
    sandbox::{Sandbox, call, piped, plan},
};
use linux_exec::{
    cgroup::Cgroups,
    spawn::{Child, Exit, reap, spawn},
};
use nix::{
    mount::{MntFlags, MsFlags, mount, umount2},
    poll::{PollFd, PollFlags, PollTimeout, poll},
    unistd::chdir,
};
use std::{
    fs,
    io::{Read, Write},
    os::fd::AsFd,
    path::Path,
    process::Command,
    thread,
};

/// More than clean-up once looked at.
const MANY: usize = 110_000;

/// Runs `function` in a container that can mount, until it has said `up`.
fn start(guarded: &Guarded, function: impl FnOnce() + 'static) -> Child {
    let sandbox = Sandbox::new();
    let (mut reader, files) = piped();
    let function = Box::new(move || {
        function();
        0
    });
    let mut plan = administrator(plan(sandbox.root(), call(function, Vec::new())), &guarded.0);
    plan.stdio = files;
    let child = spawn(plan).unwrap();
    let mut said = [0; 3];
    reader.read_exact(&mut said).unwrap();
    assert_eq!(&said, b"up\n");
    child
}

fn say_up() {
    std::io::stdout().write_all(b"up\n").unwrap();
    std::io::stdout().flush().unwrap();
}

/// Calls `function` in each hierarchy's own group, as the current directory, told the options of the mount; the v2 tree has none.
fn in_each(mut function: impl FnMut(&str)) {
    let _ = fs::create_dir("/host");
    let mut all: Vec<_> = hierarchies().into_iter().map(|options| ("cgroup", options)).collect();
    all.push(("cgroup2", String::new()));
    for (kind, options) in all {
        let data = Some(options.as_str()).filter(|options| !options.is_empty());
        if mount(Some("none"), "/host", Some(kind), MsFlags::empty(), data).is_ok() {
            chdir("/host").unwrap();
            function(&options);
            chdir("/").unwrap();
            umount2("/host", MntFlags::MNT_DETACH).unwrap();
        }
    }
}

/// A group of v1 that takes processes.
fn make_group(name: &str) {
    fs::create_dir(name).unwrap();
    for file in ["cpuset.cpus", "cpuset.mems"] {
        if let Ok(value) = fs::read(file) {
            fs::write(Path::new(name).join(file), value).unwrap();
        }
    }
}

/// Kills it by its cgroup and waits for its end, in bounded time.
fn kill(guarded: &Guarded, child: &Child) {
    guarded.0.kill().unwrap();
    let mut fds = [PollFd::new(child.pidfd.as_fd(), PollFlags::POLLIN)];
    assert_eq!(poll(&mut fds, PollTimeout::from(10_000_u16)), Ok(1), "it does not end");
    assert_eq!(reap(child).unwrap().exit, Exit::Signal(9));
}

fn remove(guarded: &Guarded) {
    guarded.0.remove().unwrap();
    let left: Vec<_> = guarded.0.paths().into_iter().filter(|path| path.exists()).collect();
    assert!(left.is_empty(), "{left:?}");
}

pub(crate) fn groups_deeper_than_a_path_reaches_are_removed() {
    let _named = Named::new();
    let guarded = Guarded::new("deep");
    let child = start(&guarded, || {
        in_each(|_| {
            let name = "d".repeat(200);
            for _ in 0..50 {
                make_group(&name);
                chdir(name.as_str()).unwrap();
            }
        });
        say_up();
    });
    assert_eq!(reap(&child).unwrap().exit, Exit::Code(0));
    guarded.0.kill().unwrap();
    remove(&guarded);
}

pub(crate) fn a_process_deeper_than_a_path_reaches_is_killed() {
    let _named = Named::new();
    let guarded = Guarded::new("bottom");
    let child = start(&guarded, || {
        in_each(|_| {
            let name = "d".repeat(200);
            for _ in 0..50 {
                make_group(&name);
                chdir(name.as_str()).unwrap();
            }
            fs::write("cgroup.procs", "0").unwrap();
        });
        say_up();
        thread::sleep(std::time::Duration::MAX);
    });
    kill(&guarded, &child);
    remove(&guarded);
}

pub(crate) fn a_hundred_thousand_groups_are_removed() {
    let Some(named) = Named::new() else { return println!("skipped: the kernel has no cgroup v1") };
    let own = format!("name={}", named.name);
    let guarded = Guarded::new("many");
    let child = start(&guarded, move || {
        in_each(|options| {
            for outer in (0..MANY / 1000).filter(|_| options == own) {
                fs::create_dir(outer.to_string()).unwrap();
                (1..1000).for_each(|inner| fs::create_dir(format!("{outer}/{inner}")).unwrap());
            }
        });
        say_up();
    });
    assert_eq!(reap(&child).unwrap().exit, Exit::Code(0));
    remove(&guarded);
}

#[expect(clippy::zombie_processes, reason = "they end with the container")]
pub(crate) fn who_makes_groups_as_fast_as_it_can_is_killed() {
    let _named = Named::new();
    let guarded = Guarded::new("maker");
    let child = start(&guarded, || {
        in_each(|options| {
            // It starts one maker for each hierarchy, which moves on into each group that it makes.
            let script =
                "while :; do mkdir a b && cp cpuset.cpus cpuset.mems a; cd a; echo 0 >cgroup.procs; done 2>/dev/null";
            let directory = format!("/made-{}", options.replace(',', "-"));
            fs::create_dir(&directory).unwrap();
            mount(Some("/host"), directory.as_str(), None::<&str>, MsFlags::MS_BIND, None::<&str>).unwrap();
            Command::new("/bin/busybox").args(["sh", "-c", script]).current_dir(&directory).spawn().unwrap();
        });
        say_up();
        thread::sleep(std::time::Duration::MAX);
    });
    thread::sleep(std::time::Duration::from_millis(200));
    kill(&guarded, &child);
    remove(&guarded);
}

/// In v1 nothing ends in a frozen group, nor does a group thaw with the one that it lies in if it was frozen itself.
#[expect(clippy::zombie_processes, reason = "they end with the container")]
pub(crate) fn what_froze_its_own_groups_is_killed() {
    for itself in [false, true] {
        let guarded = Guarded::new("frozen");
        let child = start(&guarded, move || {
            let freeze = |directory: &str| {
                let _ = fs::write(format!("{directory}/freezer.state"), "FROZEN");
                let _ = fs::write(format!("{directory}/cgroup.freeze"), "1");
            };
            in_each(|options| {
                if !options.is_empty() && !options.split(',').any(|option| option == "freezer") {
                    return;
                }
                fs::create_dir_all("below/deeper").unwrap();
                let sleeper = Command::new("/bin/sleep").arg("1000").spawn().unwrap();
                fs::write("below/deeper/cgroup.procs", sleeper.id().to_string()).unwrap();
                freeze("below/deeper");
                freeze("below");
                if itself {
                    say_up();
                    freeze(".");
                }
            });
            say_up();
            thread::sleep(std::time::Duration::MAX);
        });
        kill(&guarded, &child);
        remove(&guarded);
    }
}

/// Of v1 moved one by one; on v2 in a threaded group, whose `cgroup.procs` cannot be read.
pub(crate) fn what_moved_single_threads_is_killed() {
    let guarded = Guarded::new("threads");
    let child = start(&guarded, || {
        thread::spawn(|| {
            in_each(|options| {
                make_group("threads");
                if options.is_empty() {
                    // Where a controller cannot be shared by threads the group stays as it is.
                    let _ = fs::write("threads/cgroup.type", "threaded");
                    let _ = fs::write("threads/cgroup.threads", "0");
                } else {
                    fs::write("threads/tasks", "0").unwrap();
                }
            });
            say_up();
            thread::sleep(std::time::Duration::MAX);
        });
        thread::sleep(std::time::Duration::MAX);
    });
    kill(&guarded, &child);
    remove(&guarded);
}

/// Who is told, and whether, is the affair of the hierarchy's root.
pub(crate) fn what_a_container_writes_in_its_groups_keeps_none_of_them() {
    let guarded = Guarded::new("settings");
    let child = start(&guarded, || {
        in_each(|_| {
            make_group("below");
            for directory in [".", "below"] {
                for (file, value) in [
                    ("notify_on_release", "1"),
                    ("cgroup.clone_children", "1"),
                    ("cpuset.cpu_exclusive", "1"),
                    ("memory.oom_control", "1"),
                    ("pids.max", "0"),
                    ("cgroup.max.descendants", "0"),
                    ("cgroup.max.depth", "0"),
                ] {
                    let _ = fs::write(Path::new(directory).join(file), value);
                }
            }
        });
        say_up();
        thread::sleep(std::time::Duration::MAX);
    });
    assert!(Cgroups::detect().unwrap().list().iter().any(|id| id.starts_with("test-settings")));
    kill(&guarded, &child);
    remove(&guarded);
}
