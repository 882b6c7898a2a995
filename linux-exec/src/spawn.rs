//! Starts a plan: everything is prepared here, then one clone, and the child walks the list.
pub use crate::reap::{Child, Exit, Reaped, reap};
use crate::{
    cgroup::Cgroup,
    child::{Last, Launch, ranges_without, stdio_steps},
    credentials::Credentials,
    detached,
    error::Error,
    launcher::{Becomes, Launcher, c_strings, exec_strings},
    mounts::{Mounts, has_host_devices},
    overlay::in_private_mount_namespace,
    plan::{Entry, Plan, Stdio},
    steps::Step,
    sys,
    target::{c_path, target},
    terminal::Terminal,
};
use nix::libc;
use rustix::{
    fd::{AsFd, OwnedFd},
    mount::MountAttrFlags,
};

/// New for every container; the network only where the plan says so, and the cgroup namespace as a step, since its root
/// is the cgroup that the process is in at that moment.
const NAMESPACES: libc::c_int = libc::CLONE_NEWNS | libc::CLONE_NEWPID | libc::CLONE_NEWUTS;

/// Starts the plan. When it returns `Ok`, the program's execve has succeeded (or `Call` is about to begin); a child
/// that was killed on its way there has that as its exit status.
///
/// The child gets SIGKILL when the calling *thread* ends (PR_SET_PDEATHSIG): call this from one that lives as long as
/// the container should. Needs Linux 5.12.
pub fn spawn(mut plan: Plan<'_>) -> Result<Child, Error> {
    let (devpts, terminal) = open_terminal(&plan)?;
    let (master, slave) = terminal.map(|terminal| (terminal.master, terminal.slave)).unzip();
    let console = slave.as_ref().map(OwnedFd::try_clone).transpose();
    let console = console.map_err(|error| Error::new("duplicate a descriptor", error))?;
    let mounts = Mounts::prepare(&plan, devpts.zip(console))?;
    if !has_host_devices(&plan) {
        sys::mount_setattr(plan.root.mount.as_fd(), c"", MountAttrFlags::MOUNT_ATTR_NODEV, false, false)
            .map_err(|errno| Error::new("switch off device nodes in the container's root", errno))?;
    }
    let last = last(std::mem::replace(&mut plan.entry, no_entry()))?;
    let credentials = Credentials {
        user: &plan.user,
        capabilities: plan.capabilities,
        no_new_privileges: plan.no_new_privileges,
        seccomp: plan.seccomp.take(),
        rlimits: &plan.rlimits,
        cwd: &plan.cwd,
        joined: None,
    }
    .steps()?;

    let mut steps = Vec::with_capacity(mounts.before.len() + mounts.steps.len() + credentials.len() + 16);
    steps.push(Step::NewSession);
    if let Some(cgroup) = plan.cgroup {
        steps.extend(cgroup.join_files(true).into_iter().map(Step::JoinCgroup));
        let id = cgroup.id().as_bytes().to_vec();
        steps.extend(cgroup.is_in_every_hierarchy().then_some(Step::InOwnCgroups { id, hierarchies: None }));
    }
    if plan.namespaces.cgroup {
        steps.push(Step::NewCgroupNamespace);
    }
    steps.push(Step::PrivateMounts);
    steps.extend(mounts.before);
    steps.push(Step::EnterRoot(plan.root.mount));
    steps.extend(mounts.steps);
    steps.push(Step::MakeDirectory(target(&plan.cwd)?));
    if plan.root_readonly {
        steps.push(Step::ReadOnlyRoot);
    }
    steps.extend(plan.hostname.map(|name| Step::HostName(name.into_bytes())));
    if plan.namespaces.network {
        steps.push(Step::LoopbackUp);
    }
    steps.extend(stdio_steps(plan.stdio, slave, &plan.user, true)?);
    steps.extend(credentials);

    let network = if plan.namespaces.network { libc::CLONE_NEWNET } else { 0 };
    let ipc = if plan.namespaces.ipc { libc::CLONE_NEWIPC } else { 0 };
    let launch = Launch {
        namespaces: NAMESPACES | network | ipc,
        cgroup: plan.cgroup.and_then(Cgroup::clone_into),
        steps,
        last,
        terminal: master,
        joined: None,
        patience: plan.patience,
    };
    launch.start()
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
    Entry::Call { function: Box::new(|| 0), keep: Vec::new() }
}

/// The last step.
fn last(entry: Entry) -> Result<Last, Error> {
    Ok(match entry {
        Entry::Exec { program, argv, env, init } => {
            let above = |fd| sys::above_stdio(fd).map_err(|errno| Error::new("duplicate a descriptor", errno));
            let becomes = match init {
                None => Becomes::Exec,
                Some(init) => Becomes::Init { report: above(init.report)? },
            };
            Last::Program(Launcher::new(becomes, vec![c_path(&program)?], c_strings(argv)?, exec_strings(env)?)?)
        }
        Entry::Call { function, keep } => Last::Call { function, close: ranges_without(&keep) },
    })
}
