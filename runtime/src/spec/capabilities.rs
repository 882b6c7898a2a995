//! Which capabilities a container has.

use anyhow::Result;
use linux_exec::capabilities::CapabilitySet;

use super::Security;

/// What Docker gives a container that asks for nothing: moby `daemon/pkg/oci/caps/defaults.go`, June 2026.
pub(crate) const DOCKER_DEFAULT: CapabilitySet = CapabilitySet::of(&[
    "CHOWN",
    "DAC_OVERRIDE",
    "FSETID",
    "FOWNER",
    "MKNOD",
    "NET_RAW",
    "SETGID",
    "SETUID",
    "SETFCAP",
    "SETPCAP",
    "NET_BIND_SERVICE",
    "SYS_CHROOT",
    "KILL",
    "AUDIT_WRITE",
]);

impl Security {
    /// All for a program that is `privileged`, else the default set, with what was added and dropped.
    pub(crate) fn capabilities(&self, privileged: bool) -> Result<CapabilitySet> {
        let base = if privileged { CapabilitySet::all() } else { DOCKER_DEFAULT };
        Ok(base.adjusted(&self.cap_add, &self.cap_drop)?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_default_set_is_the_documented_mask() {
        // What /proc/self/status shows in a container that Docker started.
        assert_eq!(DOCKER_DEFAULT.0, 0xa804_25fb);
        let security = Security { cap_drop: vec!["MKNOD".to_owned()], ..Security::default() };
        assert_eq!(security.capabilities(false).unwrap().names().len(), 13);
    }
}
