//! Settings of the kernel that belong to a namespace (sysctl(8)).
use crate::{confinement::Namespaces, error::Error, steps::Step};
use rustix::io::Errno;
use std::ffi::CString;

/// What is an ipc namespace's own, beside all of `fs.mqueue` (ipc_namespaces(7)).
const IPC: [&str; 8] = [
    "kernel.msgmax",
    "kernel.msgmnb",
    "kernel.msgmni",
    "kernel.sem",
    "kernel.shm_rmid_forced",
    "kernel.shmall",
    "kernel.shmmax",
    "kernel.shmmni",
];

/// A setting as a step, unless it is one of the host's.
pub(crate) fn step<'a>(name: &str, value: &str, namespaces: &Namespaces<'_>) -> Result<Step<'a>, Error> {
    let refused = |errno, hint: &str| Error::new(format!("set the sysctl {name} to `{value}`"), errno).hint(hint);
    // As sysctl(8) has it: whichever of the two comes first parts the names, and the other one is what it is not.
    let path: String = match name.find(['.', '/']) {
        Some(at) if name[at..].starts_with('.') => name.chars().map(swapped).collect(),
        _ => name.to_owned(),
    };
    let dotted = path.replace('/', ".");
    let (kind, namespace) = match () {
        () if path.starts_with("net/") => ("network", &namespaces.network),
        () if path.starts_with("fs/mqueue/") || IPC.contains(&dotted.as_str()) => ("ipc", &namespaces.ipc),
        () if ["kernel.domainname", "kernel.hostname"].contains(&dotted.as_str()) => ("uts", &namespaces.uts),
        () => return Err(refused(Errno::PERM, "it belongs to no namespace: it would change the host's")),
    };
    if namespace.is_callers() {
        return Err(refused(Errno::PERM, &format!("the {kind} namespace is the host's, and so the setting would be")));
    }
    if path.split('/').any(|part| part.is_empty() || part.starts_with('.')) {
        return Err(refused(Errno::INVAL, "expected names with dots between, such as net.ipv4.ip_forward"));
    }
    let path =
        CString::new(format!("/proc/sys/{path}")).map_err(|_| refused(Errno::INVAL, "it contains a NUL byte"))?;
    Ok(Step::Sysctl { path, value: value.as_bytes().to_vec() })
}

fn swapped(character: char) -> char {
    match character {
        '.' => '/',
        '/' => '.',
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::confinement::Namespace;

    #[test]
    fn only_what_belongs_to_a_namespace_of_its_own_is_set() {
        let own = Namespaces::NEW;
        let host = Namespaces { network: Namespace::Host, ipc: Namespace::Host, uts: Namespace::Host, ..own };
        for (name, path) in [
            ("net.ipv4.ip_forward", Some("net/ipv4/ip_forward")),
            ("net/ipv4/conf/eth0.1/forwarding", Some("net/ipv4/conf/eth0.1/forwarding")),
            ("net.ipv4.conf.eth0/1.forwarding", Some("net/ipv4/conf/eth0.1/forwarding")),
            ("kernel.shmmax", Some("kernel/shmmax")),
            ("fs.mqueue.msg_max", Some("fs/mqueue/msg_max")),
            ("kernel.domainname", Some("kernel/domainname")),
            ("kernel.core_pattern", None),
            ("net/../kernel/core_pattern", None),
            ("net//../x", None),
            ("net.", None),
            ("", None),
            ("vm.overcommit_memory", None),
            ("kernel.shmmaxx", None),
        ] {
            let made = step(name, "1", &own);
            let found = match &made {
                Ok(Step::Sysctl { path, .. }) => path.to_str().unwrap().strip_prefix("/proc/sys/"),
                _ => None,
            };
            assert_eq!(found, path, "{name}");
            assert!(step(name, "1", &host).is_err(), "{name} of the host");
        }
    }
}
