//! `--device` and `--gpus`: nodes of the host's, and what vendors' files say of them.

use std::{fs, io::ErrorKind, path::Path};

use anyhow::{Context, Result, bail};

use crate::{
    cli::ProgramArgs,
    output,
    records::given,
    spec::{
        cdi::{Cdi, Edits},
        devices::{DeviceSpec, Wanted},
        mounts::{MountKind, MountSpec},
        propagation::Propagation,
    },
};

/// Where vendors' files lie; of two that have a device the later one counts.
pub(super) const FOLDERS: [&str; 2] = ["/etc/cdi", "/var/run/cdi"];
/// The most that is read of one.
const FILE_BYTES: u64 = 8 << 20;
/// What `--gpus` stands for.
const GPUS: &str = "nvidia.com/gpu";

/// What a container gets for its devices.
#[derive(Debug, Default)]
pub(super) struct Granted {
    pub(super) nodes: Vec<DeviceSpec>,
    pub(super) env: Vec<String>,
    pub(super) mounts: Vec<MountSpec>,
    pub(super) groups: Vec<String>,
}

/// Understands the flags, and reads the files that they are about.
pub(super) fn granted(args: &ProgramArgs) -> Result<Granted> {
    let mut granted = Granted::default();
    let gpus = args.gpus.as_deref().map(gpus).transpose()?.unwrap_or_default();
    let wanted = args.device.iter().map(|text| Ok(Wanted::parse(text)?)).chain(gpus.into_iter().map(Ok));
    for wanted in wanted.collect::<Result<Vec<_>>>()? {
        match wanted {
            Wanted::Node(node) => granted.nodes.push(node),
            Wanted::Cdi { kind, name } => {
                let found = FOLDERS.iter().map(|folder| find(Path::new(folder), &kind, &name));
                let found = found.collect::<Result<Vec<_>>>()?.into_iter().flatten().next_back();
                let [all, own] = found.with_context(|| {
                    format!("--device {kind}={name}: no JSON file in {} has that device", FOLDERS.join(" or "))
                })?;
                granted
                    .add(&all)
                    .and_then(|()| granted.add(&own))
                    .with_context(|| format!("--device {kind}={name}"))?;
            }
        }
    }
    Ok(granted)
}

impl Granted {
    fn add(&mut self, edits: &Edits) -> Result<()> {
        if let Some(what) = edits.refused() {
            bail!("its file asks for {what}: not supported");
        }
        self.nodes.extend(edits.nodes().filter(|node| !self.nodes.contains(node)).collect::<Vec<_>>());
        self.env.extend(edits.env.iter().cloned());
        self.groups.extend(edits.groups.iter().map(u32::to_string));
        for mount in &edits.mounts {
            let kind = MountKind::Bind {
                source: mount.host_path.clone(),
                recursive: true,
                propagation: Propagation::default(),
            };
            let mount = MountSpec { target: mount.container_path.clone(), readonly: mount.is_readonly(), kind };
            if !self.mounts.iter().any(|known| known.target == mount.target) {
                self.mounts.push(mount);
            }
        }
        Ok(())
    }
}

/// `all`, a number, or `device=ID,ID`, which may be quoted.
fn gpus(text: &str) -> Result<Vec<Wanted>> {
    let gpu = |name: &str| Wanted::Cdi { kind: GPUS.to_owned(), name: name.to_owned() };
    let text = text.trim_matches('"');
    if text == "all" {
        return Ok(vec![gpu("all")]);
    }
    if let Some(names) = text.strip_prefix("device=") {
        return Ok(names.split(',').map(gpu).collect());
    }
    match text.parse::<u16>() {
        Ok(count) => Ok((0..count).map(|number| gpu(&number.to_string())).collect()),
        Err(_) => bail!("invalid value `{text}` for --gpus: expected all, a number, or device=ID"),
    }
}

/// What a folder's files say of all devices of a kind, and of this one.
fn find(folder: &Path, kind: &str, name: &str) -> Result<Option<[Edits; 2]>> {
    let entries = match fs::read_dir(folder) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        entries => entries.with_context(|| format!("cannot list {}", folder.display()))?,
    };
    let mut paths: Vec<_> = entries.filter_map(|entry| Some(entry.ok()?.path())).collect();
    paths.retain(|path| path.extension().is_some_and(|extension| extension == "json"));
    paths.sort();
    for path in paths {
        let read = || Ok::<Cdi, anyhow::Error>(serde_json::from_slice(&given::read(&path, FILE_BYTES)?)?);
        let cdi = match read() {
            Ok(cdi) => cdi,
            // It may be another vendor's. If it is this one's, the device is not found, and this was said.
            Err(error) => {
                output::note(&format!("cannot use {}: {error:#}", path.display()));
                continue;
            }
        };
        if cdi.kind != kind {
            continue;
        }
        if let Some(device) = cdi.devices.into_iter().find(|device| device.name == name) {
            return Ok(Some([cdi.container_edits, device.container_edits]));
        }
    }
    Ok(None)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_device_is_found_in_the_files_of_a_folder() {
        let folder = tempfile::tempdir().unwrap();
        let write = |name: &str, text: &str| fs::write(folder.path().join(name), text).unwrap();
        write("a.json", r#"{"kind": "v.com/a", "devices": [{"name": "1", "containerEdits": {"env": ["A=1"]}}]}"#);
        write("b.yaml", "kind: v.com/b");
        let [_, own] = find(folder.path(), "v.com/a", "1").unwrap().unwrap();
        assert_eq!(own.env, ["A=1"]);
        assert!(find(folder.path(), "v.com/a", "2").unwrap().is_none());
        assert!(find(&folder.path().join("none"), "v.com/a", "1").unwrap().is_none());
        // What others have there keeps nobody from theirs.
        write("0.json", "{");
        fs::create_dir(folder.path().join("1.json")).unwrap();
        nix::unistd::mkfifo(&folder.path().join("2.json"), nix::sys::stat::Mode::S_IRWXU).unwrap();
        assert!(find(folder.path(), "v.com/a", "1").unwrap().is_some());
        assert_eq!(gpus("all").unwrap().len(), 1);
        assert_eq!(gpus("\"device=0,1\"").unwrap().len(), 2);
        assert_eq!(gpus("3").unwrap().len(), 3);
        assert!(gpus("some").is_err());
    }
}
