//! Starts a plan: everything is prepared here, then one clone, and the child walks the list.
use crate::{
    cgroup::Cgroup,
    child::{Last, Launch, stdio_steps},
    confinement::{Clocks, Namespace, Namespaces},
    credentials::Credentials,
    detached,
    error::Error,
    launcher::{Becomes, Launcher, c_strings, exec_strings},
    mounts::{Mounts, has_host_devices},
    overlay::in_private_mount_namespace,
    plan::{Begin, Call, Entry, Lifetime, Plan, Stdio},
    steps::Step,
    sys::{self, Birth, MountChange, NewNamespaces},
    sysctl,
    target::{c_path, target},
    terminal::Terminal,
};
pub use crate::{
    child::{Child, Held, reap},
    reap::{Exit, Reaped},
};
use rustix::{
    fd::{AsFd, OwnedFd},
    fs::{AtFlags, CWD, StatxFlags, statx},
    io::Errno,
    mount::MountAttrFlags,
    thread::LinkNameSpaceType,
};

/// Starts the plan. When it returns `Ok`, the program's execve has succeeded (or `Call` is about to begin, or the program is held);
/// a child that was killed on its way there has that as its exit status.
///
/// From several threads at once, but for [`Entry::Call`]. Needs Linux 5.12.
pub fn spawn(mut plan: Plan<'_>) -> Result<Child, Error> {
    check(&plan)?;
    let (devpts, terminal) = open_terminal(&plan)?;
    let (master, slave) = terminal.map(|terminal| (terminal.master, terminal.slave)).unzip();
    let console = slave.as_ref().map(OwnedFd::try_clone).transpose();
    let console = console.map_err(|error| Error::new("duplicate a descriptor", error))?;
    let mounts = Mounts::prepare(&plan, devpts.zip(console))?;
    if !has_host_devices(&plan) {
        sys::mount_setattr(plan.root.mount.as_fd(), c"", MountChange::set(MountAttrFlags::MOUNT_ATTR_NODEV))
            .map_err(|errno| Error::new("switch off device nodes in the container's root", errno))?;
    }
    let (namespaces, privileges) = plan.confinement.clone().into_parts();
    let joined = joined_pids(&namespaces)?;
    let entry = std::mem::replace(&mut plan.entry, no_entry());
    let begin = std::mem::replace(&mut plan.begin, Begin::Now);
    let last = last(entry, begin, joined.map(|_| (slave.is_some(), plan.lifetime)))?;
    let credentials = Credentials {
        user: &plan.user,
        privileges,
        rlimits: &plan.rlimits,
        cwd: &plan.cwd,
        umask: plan.umask,
        lifetime: plan.lifetime,
        joined: None,
    }
    .steps()?;

    let mut steps = Vec::with_capacity(mounts.before.len() + mounts.steps.len() + credentials.len() + 16);
    steps.extend(namespaces.user.map(|owner| Step::JoinNamespace(owner, LinkNameSpaceType::User)));
    let between = steps.len();
    steps.extend(outside(&plan, &namespaces)?);
    steps.push(Step::PrivateMounts);
    steps.extend(matches!(last, Last::Call(_)).then_some(Step::PrepareCall));
    steps.extend(mounts.before);
    steps.push(Step::EnterRoot(plan.root.mount));
    steps.extend(mounts.steps);
    steps.push(Step::MakeDirectory(target(&plan.cwd)?));
    if plan.root_readonly {
        steps.push(Step::ReadOnlyRoot);
    }
    steps.extend(plan.hostname.map(|name| Step::HostName(name.into_bytes())));
    steps.extend(plan.domain_name.map(|name| Step::DomainName(name.into_bytes())));
    if namespaces.network.is_new() {
        steps.push(Step::LoopbackUp);
    }
    steps.extend(stdio_steps(plan.stdio, slave, &plan.user, joined.is_none())?);
    steps.extend(credentials);

    let birth = Birth {
        namespaces: NewNamespaces::MOUNT
            .and(NewNamespaces::PID, namespaces.pid.is_new())
            .and(NewNamespaces::UTS, namespaces.uts.is_new())
            .and(NewNamespaces::NETWORK, namespaces.network.is_new())
            .and(NewNamespaces::IPC, namespaces.ipc.is_new()),
        cgroup: plan.cgroup.and_then(Cgroup::clone_into),
        ..Birth::default()
    };
    Launch { birth, between, steps, last, terminal: master, joined, patience: plan.patience }.start()
}

/// What cannot be meant.
fn check(plan: &Plan<'_>) -> Result<(), Error> {
    let namespaces = plan.confinement.namespaces();
    let refused = |action: &str, hint: &str| Err(Error::new(action, Errno::INVAL).hint(hint));
    if (plan.hostname.is_some() || plan.domain_name.is_some()) && namespaces.uts.is_callers() {
        return refused("set the host or domain name", "the uts namespace is the host's, and so the name would be");
    }
    match &plan.entry {
        Entry::Call { .. } if threads()? > 1 => refused(
            "call a function in a copy of this process",
            "it has more than one thread, whose locks would stay held",
        ),
        Entry::Call { .. } if !matches!(plan.begin, Begin::Now) => {
            refused("hold a function", "only a program that is executed can wait")
        }
        Entry::Call { .. } | Entry::Exec { init: Some(_), .. } if !namespaces.pid.is_new() => {
            refused("be the first process", "of a pid namespace that is not new")
        }
        Entry::Call { .. } | Entry::Exec { .. } => Ok(()),
    }
}

/// How many this process has: a directory has two links, and one for each directory in it.
fn threads() -> Result<u32, Error> {
    // Not stat(2), in which the type of this number is another one on each machine.
    let stat = statx(CWD, c"/proc/self/task", AtFlags::empty(), StatxFlags::NLINK)
        .map_err(|errno| Error::new("count this process's threads", errno))?;
    Ok(stat.stx_nlink.saturating_sub(2))
}

/// The inode number of the pid namespace to be joined.
fn joined_pids(namespaces: &Namespaces<'_>) -> Result<Option<u64>, Error> {
    let Namespace::Join(fd) = namespaces.pid else { return Ok(None) };
    let stat = rustix::fs::fstat(fd).map_err(|errno| Error::new("look at the pid namespace to be joined", errno))?;
    Ok(Some(stat.st_ino))
}

/// Before the mounts: cgroup, namespaces, and what is written by the host's /proc.
fn outside<'a>(plan: &Plan<'a>, namespaces: &Namespaces<'a>) -> Result<Vec<Step<'a>>, Error> {
    let mut steps = vec![Step::NewSession, Step::DefaultSignals];
    if let Some(cgroup) = plan.cgroup {
        steps.extend(cgroup.join_files(true).into_iter().map(Step::JoinCgroup));
        let id = cgroup.id().as_bytes().to_vec();
        steps.extend(cgroup.is_in_every_hierarchy().then_some(Step::InOwnCgroups { id, hierarchies: None }));
    }
    steps.extend(namespaces.joined().map(|(fd, kind)| Step::JoinNamespace(fd, kind)));
    if namespaces.cgroup.is_new() {
        steps.push(Step::NewCgroupNamespace);
    }
    if let Clocks::New { monotonic, boottime } = namespaces.time {
        let line = |name: &str, (seconds, nanos): (i64, u32)| match (seconds, nanos) {
            (0, 0) => String::new(),
            _ => format!("{name} {seconds} {nanos}\n"),
        };
        let offsets = line("monotonic", monotonic) + &line("boottime", boottime);
        steps.push(Step::NewTimeNamespace { offsets: offsets.into_bytes() });
    }
    steps.extend(plan.oom_score_adj.map(|score| Step::OomScore(score.to_string().into_bytes())));
    for (name, value) in &plan.sysctls {
        steps.push(sysctl::step(name, value, namespaces)?);
    }
    Ok(steps)
}

/// A devpts and a terminal in it, if the plan wants one.
fn open_terminal(plan: &Plan<'_>) -> Result<(Option<OwnedFd>, Option<Terminal>), Error> {
    let Stdio::Terminal { size } = plan.stdio else { return Ok((None, None)) };
    let open = || -> rustix::io::Result<_> {
        // Not in this namespace, which may be the host's: see there.
        let devpts = in_private_mount_namespace(detached::devpts)?;
        let terminal = Terminal::open(devpts.as_fd(), size, plan.user.uid)?;
        Ok((Some(devpts), Some(terminal)))
    };
    open().map_err(|errno| Error::new("open a terminal", errno))
}

/// What stays in a plan whose entry was taken out.
fn no_entry() -> Entry {
    Entry::Call { prepare: Box::new(|| Call { function: Box::new(|| 0), keep: Vec::new() }) }
}

/// The last step. `joins`: a pid namespace, with or without a terminal.
fn last(entry: Entry, begin: Begin, joins: Option<(bool, Lifetime)>) -> Result<Last, Error> {
    let above = |fd| sys::above_stdio(fd).map_err(|errno| Error::new("duplicate a descriptor", errno));
    let held = match begin {
        Begin::Now => None,
        Begin::WhenTold(fd) => Some(above(fd)?),
    };
    Ok(match entry {
        Entry::Exec { program, argv, env, init } => {
            let becomes = match (init, joins) {
                (Some(init), _) => Becomes::Init { report: above(init.report)? },
                (None, Some((terminal, lifetime))) => Becomes::Join { terminal, lifetime },
                (None, None) => Becomes::Exec,
            };
            Last::Program(Launcher::new(becomes, held, vec![c_path(&program)?], c_strings(argv)?, exec_strings(env)?)?)
        }
        Entry::Call { prepare } => Last::Call(Some(prepare)),
    })
}
