//! The Container Device Interface: what a vendor's file says that a container needs for a device.
//!
//! Source: its specification, version 1.0 (github.com/cncf-tags/container-device-interface, SPEC.md). What is left out: hooks, which are
//! programs of the host's, and the settings of hardware that has its own interfaces.

use std::path::PathBuf;

use serde::Deserialize;
use serde_json::Value;

use super::devices::{DeviceSpec, is_access};

/// One file.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Cdi {
    /// `vendor.com/class`
    pub(crate) kind: String,
    #[serde(default)]
    pub(crate) devices: Vec<Device>,
    /// For every device of the file.
    #[serde(default)]
    pub(crate) container_edits: Edits,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Device {
    pub(crate) name: String,
    #[serde(default)]
    pub(crate) container_edits: Edits,
}

/// What is changed of a container.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct Edits {
    pub(crate) env: Vec<String>,
    device_nodes: Vec<Node>,
    pub(crate) mounts: Vec<Mount>,
    hooks: Vec<Value>,
    intel_rdt: Option<Value>,
    net_devices: Vec<Value>,
    #[serde(rename = "additionalGids")]
    pub(crate) groups: Vec<u32>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Node {
    path: PathBuf,
    host_path: Option<PathBuf>,
    permissions: Option<String>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Mount {
    pub(crate) host_path: PathBuf,
    pub(crate) container_path: PathBuf,
    #[serde(default)]
    options: Vec<String>,
}

impl Edits {
    /// Nodes of the host's.
    pub(crate) fn nodes(&self) -> impl Iterator<Item = DeviceSpec> {
        self.device_nodes.iter().map(|node| {
            let device = DeviceSpec::new(node.host_path.as_ref().unwrap_or(&node.path), &node.path);
            DeviceSpec {
                uses: node.permissions.clone().filter(|uses| is_access(uses)).unwrap_or(device.uses),
                ..device
            }
        })
    }

    /// The first thing among them that is not done here.
    pub(crate) fn refused(&self) -> Option<&'static str> {
        let asked = [
            (!self.hooks.is_empty(), "hooks, which are programs that would run on the host"),
            (self.intel_rdt.is_some(), "intelRdt"),
            (!self.net_devices.is_empty(), "netDevices"),
        ];
        asked.into_iter().find(|(asked, _)| *asked).map(|(_, what)| what)
    }
}

impl Mount {
    pub(crate) fn is_readonly(&self) -> bool {
        self.options.iter().any(|option| option == "ro")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_vendors_file_is_read() {
        let text = r#"{"cdiVersion": "0.6.0", "kind": "vendor.com/net", "annotations": {"a": "b"},
            "devices": [{"name": "a", "containerEdits": {"deviceNodes": [{"path": "/dev/a", "hostPath": "/dev/null", "type": "c",
                "permissions": "rw"}, {"path": "/dev/zero"}], "env": ["A=b"]}}, {"name": "b", "containerEdits": {"hooks": [{}]}}],
            "containerEdits": {"mounts": [{"hostPath": "/lib/x", "containerPath": "/x", "options": ["ro", "nosuid"]}]}}"#;
        let cdi: Cdi = serde_json::from_str(text).unwrap();
        let [a, b] = cdi.devices.as_slice() else { panic!("{cdi:?}") };
        let nodes: Vec<_> = a.container_edits.nodes().map(|node| (node.path, node.target)).collect();
        assert_eq!(nodes, [("/dev/null".into(), "/dev/a".into()), ("/dev/zero".into(), "/dev/zero".into())]);
        assert!(a.container_edits.refused().is_none() && b.container_edits.refused().is_some());
        assert!(cdi.container_edits.mounts[0].is_readonly());
    }
}
