//! Containers of gateways that were killed, for who asks what was left behind.

use std::{fs::File, io::ErrorKind, path::Path};

use anyhow::{Context, Result};
use rustix::{
    fs::{FlockOperation, flock},
    io::Errno,
};

use super::{
    launcher::{Record, folder},
    plan::LABEL_GATEWAY,
};
use crate::{
    lifecycle,
    records::{container::Container, host::Host},
};

/// A sentence for each; removed when `remove`.
pub(crate) fn check(host: &Host, remove: bool) -> Result<Vec<String>> {
    let mut found = Vec::new();
    // Those that cannot be read are named elsewhere.
    for container in host.containers.list()?.0 {
        let Some(label) = container.spec.labels.get(LABEL_GATEWAY) else { continue };
        // Held, so that no gateway of this name begins meanwhile.
        let Some(_alone) = ended(&folder(host), label)? else { continue };
        found.push(format!("container {} of a gateway that was killed", container.spec.name));
        if remove {
            lifecycle::remove(host, &container, true, true)?;
        }
    }
    Ok(found)
}

/// Whether a container is one of a gateway that runs, as far as its label tells: what is a function within that has a record, which does not
/// run by itself.
pub(crate) fn is_served(host: &Host, container: &Container) -> Result<bool> {
    let Some(label) = container.spec.labels.get(LABEL_GATEWAY) else { return Ok(false) };
    Ok(matches!(gateway(&folder(host), label)?, Some(Gateway::Running)))
}

/// One whose file is there.
enum Gateway {
    Running,
    /// With its file, which is locked as long as this is held.
    Ended(File),
}

/// The file of the gateway that gave a container its label, if it has ended. Whose label is in no file was named so by somebody else, for
/// all that can be said.
fn ended(folder: &Path, label: &str) -> Result<Option<File>> {
    let Some(Gateway::Ended(file)) = gateway(folder, label)? else { return Ok(None) };
    let text = std::io::read_to_string(&file).with_context(|| format!("cannot read the record of gateway {label}"))?;
    let is_its = serde_json::from_str(&text).is_ok_and(|record: Record| record.label == label);
    Ok(is_its.then_some(file))
}

fn gateway(folder: &Path, label: &str) -> Result<Option<Gateway>> {
    let Some((name, _)) = label.rsplit_once('-').filter(|(name, _)| !name.contains('/')) else { return Ok(None) };
    let path = folder.join(format!("{name}.json"));
    let file = match File::open(&path) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        other => other.with_context(|| format!("cannot open {}", path.display()))?,
    };
    match flock(&file, FlockOperation::NonBlockingLockExclusive) {
        Err(Errno::WOULDBLOCK) => Ok(Some(Gateway::Running)),
        other => other.map(|()| Some(Gateway::Ended(file))).with_context(|| format!("cannot lock {}", path.display())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    #[test]
    fn a_gateway_has_ended_when_nobody_holds_its_file() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("edge.json");
        assert!(ended(folder.path(), "edge-00").unwrap().is_none());
        fs::write(&path, r#"{"label":"edge-00"}"#).unwrap();
        assert!(ended(folder.path(), "edge-00").unwrap().is_some());
        for of_somebody_else in ["edge-01", "other-00", "edge", "../edge-00", "", "-"] {
            assert!(ended(folder.path(), of_somebody_else).unwrap().is_none(), "{of_somebody_else}");
        }
        let held = File::open(&path).unwrap();
        flock(&held, FlockOperation::LockExclusive).unwrap();
        assert!(ended(folder.path(), "edge-00").unwrap().is_none());
        drop(held);
        fs::write(&path, "{").unwrap();
        assert!(ended(folder.path(), "edge-00").unwrap().is_none());
    }
}
