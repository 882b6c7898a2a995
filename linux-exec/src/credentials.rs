//! Who the program is and what it may do, as steps: the same for a container's first process and for one that joins.
use crate::{
    capabilities::CapabilitySet, confinement::Privileges, error::Error, plan::Lifetime, process::Process, steps::Step,
    sys, target::c_path, users::User,
};
use rustix::fs::{Gid, Mode, Uid};
use std::path::Path;

/// What the last steps before the program need.
pub(crate) struct Credentials<'p> {
    pub(crate) user: &'p User,
    pub(crate) privileges: Privileges,
    pub(crate) rlimits: &'p [(u32, u64, u64)],
    pub(crate) cwd: &'p Path,
    pub(crate) umask: u32,
    pub(crate) lifetime: Lifetime,
    /// A process of the container that is joined; None: the container is new, in this process's user namespace.
    pub(crate) joined: Option<Process>,
}

impl Credentials<'_> {
    /// The steps, in order.
    ///
    /// The working directory is entered with the user's rights. The death signal is cleared by a change of ids (prctl(2)), so it is set after. The filter comes last, but
    /// without no_new_privs it needs CAP_SYS_ADMIN, so then it comes before that is given up.
    pub(crate) fn steps<'a>(self) -> Result<Vec<Step<'a>>, Error> {
        let groups_are_fixed = self.groups_are_fixed();
        let Privileges { capabilities, no_new_privileges, seccomp } = self.privileges;
        let mut steps = Vec::with_capacity(16 + self.rlimits.len());
        steps.extend(self.rlimits.iter().map(|&(resource, soft, hard)| Step::ResourceLimit { resource, soft, hard }));
        if seccomp.is_none() {
            // What keeps programs from the caller's keys is else the filter.
            steps.push(Step::NewSessionKeyring);
        }
        let mut filter = seccomp.map(Step::Seccomp);
        if !no_new_privileges {
            steps.extend(filter.take());
        }
        steps.push(Step::BoundingSet(capabilities.bounding));
        if !(self.user.groups.is_empty() && groups_are_fixed) {
            // The primary one among them: a program that changes its group must not get rid of a group that files deny
            // rights to (CVE-2022-36109).
            let others = self.user.groups.iter().copied().filter(|&group| group != self.user.gid);
            steps.push(Step::Groups([self.user.gid].into_iter().chain(others).map(Gid::from_raw).collect()));
        }
        // Otherwise the kernel takes them from who is no longer root.
        let keeps = self.user.uid != 0 && capabilities.permitted != CapabilitySet::default();
        steps.extend(keeps.then_some(Step::KeepCapabilities));
        steps.push(Step::Ids(Uid::from_raw(self.user.uid), Gid::from_raw(self.user.gid)));
        steps.push(Step::Capabilities(capabilities));
        if no_new_privileges {
            steps.push(Step::NoNewPrivileges);
        }
        steps.extend((self.lifetime == Lifetime::OfStarter).then_some(Step::DieWithParent));
        steps.push(Step::WorkingDirectory(c_path(self.cwd)?));
        steps.push(Step::ResetInherited { umask: Mode::from_raw_mode(self.umask) });
        steps.extend(filter);
        Ok(steps)
    }

    /// In a user namespace made without newgidmap setgroups(2) is off (user_namespaces(7)).
    fn groups_are_fixed(&self) -> bool {
        let file = match self.joined {
            Some(process) => format!("/proc/{}/setgroups", process.pid),
            None if sys::in_user_namespace() => "/proc/self/setgroups".to_owned(),
            None => return false,
        };
        std::fs::read(file).is_ok_and(|text| text.starts_with(b"deny"))
    }
}
