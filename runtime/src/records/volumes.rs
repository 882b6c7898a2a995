//! Volumes: folders that containers of both kinds share and that outlive them, `ROOT/volumes/NAME/_data`. Those that got no
//! name from their user have the form of an id, and go with their container where that is asked for. Beside `_data` lies
//! `labels.json`, if there are any.

use std::{
    collections::BTreeMap,
    fs::{self, DirBuilder, File, Permissions},
    io::{self, ErrorKind},
    os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt},
    path::{Path, PathBuf},
};

use anyhow::{Context, Result, bail};
use images::{holds::Holds, remove_tree};
use rustix::{
    fd::{AsFd, OwnedFd},
    fs::{Mode, OFlags, ResolveFlags, openat2},
    io::Errno,
};

use crate::{
    records::{
        container::{VOLUME, read_json, write_json},
        paths::Paths,
        tree::{self, Keep},
    },
    spec::{RunSpec, names},
};

/// The volumes of one ROOT.
pub(crate) struct Volumes {
    root: PathBuf,
    folder: PathBuf,
}

/// One volume.
pub(crate) struct Volume {
    pub(crate) name: String,
    pub(crate) labels: BTreeMap<String, String>,
    pub(crate) created_unix_nanos: i64,
}

impl Volumes {
    /// Nothing is made before the first volume is.
    pub(crate) fn new(paths: &Paths) -> Self {
        Self { root: paths.root.clone(), folder: paths.volumes() }
    }

    /// Where a volume's files are.
    pub(crate) fn data(&self, name: &str) -> PathBuf {
        self.folder.join(name).join("_data")
    }

    /// A volume's folder, made if it is not there.
    ///
    /// What a container leaves in it may be setuid root. So the folders above it are for their owner alone, whatever the umask, and
    /// whoever made them: no other user of the host can get there (CVE-2021-41091).
    pub(crate) fn make(&self, name: &str) -> Result<PathBuf> {
        let data = self.data(name);
        let make = || -> io::Result<()> {
            if let Some(root) = self.folder.parent() {
                DirBuilder::new().mode(0o700).recursive(true).create(root)?;
            }
            for folder in [&self.folder, &self.folder.join(name)] {
                make_folder(folder, 0o700)?;
                if folder.symlink_metadata()?.mode() & 0o077 != 0 {
                    fs::set_permissions(folder, Permissions::from_mode(0o700))?;
                }
            }
            make_folder(&data, 0o755)
        };
        make().with_context(|| format!("cannot make volume {name}: {}", data.display()))?;
        Ok(data)
    }

    /// Makes a volume that has labels; one that is there keeps its own. Whether it was made.
    pub(crate) fn make_labelled(&self, name: &str, labels: &BTreeMap<String, String>) -> Result<bool> {
        if self.find(name)?.is_some() {
            return Ok(false);
        }
        self.make(name)?;
        if !labels.is_empty() {
            write_json(&self.labels(name), labels)?;
        }
        Ok(true)
    }

    fn labels(&self, name: &str) -> PathBuf {
        self.folder.join(name).join("labels.json")
    }

    /// Copies into a volume what an image has at `target`, unless something was ever copied or written there.
    ///
    /// Whoever fills it has it locked. A mark stands beside it until all is copied, so that who is killed meanwhile leaves nothing half.
    pub(crate) fn fill(&self, name: &str, root: &OwnedFd, target: &Path) -> io::Result<()> {
        let folder = File::open(self.folder.join(name))?;
        let mark = self.folder.join(name).join("filling");
        let is_new = || -> io::Result<bool> { Ok(fs::read_dir(self.data(name))?.next().is_none() || mark.exists()) };
        if !is_new()? {
            return Ok(());
        }
        folder.lock()?;
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let image = match openat2(root, target, flags, Mode::empty(), ResolveFlags::IN_ROOT) {
            Ok(image) => image,
            // It has nothing there, or a file.
            Err(Errno::NOENT | Errno::NOTDIR) => return Ok(()),
            Err(errno) => return Err(errno.into()),
        };
        if !is_new()? {
            return Ok(());
        }
        File::create(&mark)?;
        let data = File::open(self.data(name))?;
        let keep = Keep { owners: true, owner: (0, 0) };
        tree::copy_contents(image.as_fd(), data.as_fd(), keep)?;
        tree::resemble(image.as_fd(), data.as_fd(), keep)?;
        fs::remove_file(&mark)
    }

    /// All volumes, by name.
    pub(crate) fn list(&self) -> Result<Vec<Volume>> {
        let entries = match fs::read_dir(&self.folder) {
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
            other => other.with_context(|| format!("cannot list {}", self.folder.display()))?,
        };
        let name = |entry: fs::DirEntry| entry.file_name().into_string().ok();
        let mut volumes = Vec::new();
        for name in entries.filter_map(|entry| entry.ok().and_then(name)) {
            volumes.extend(self.find(&name)?);
        }
        volumes.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(volumes)
    }

    /// The volume of this name.
    pub(crate) fn find(&self, name: &str) -> Result<Option<Volume>> {
        names::validate("volume name", name)?;
        let dir = self.folder.join(name);
        match dir.metadata() {
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
            other => {
                let metadata = other.with_context(|| format!("cannot look at {}", dir.display()))?;
                let created_unix_nanos = metadata.mtime() * 1_000_000_000 + metadata.mtime_nsec();
                let labels = read_json(&self.labels(name))?.unwrap_or_default();
                Ok(Some(Volume { name: name.to_owned(), labels, created_unix_nanos }))
            }
        }
    }

    /// Removes a volume with all that is in it; whether it was there.
    pub(crate) fn remove(&self, name: &str) -> Result<bool> {
        let folder = self.folder.join(name);
        match folder.symlink_metadata() {
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(false),
            found => found.map(drop).with_context(|| format!("cannot look at volume {name}"))?,
        }
        // What a container wrote may be deeper than a path can say, and than there are descriptors.
        remove_tree(&folder).with_context(|| format!("cannot remove volume {name}"))?;
        Ok(true)
    }

    /// Removes a volume unless a container has it; whether it was there.
    pub(crate) fn remove_unused(&self, name: &str, used: &BTreeMap<String, String>) -> Result<bool> {
        names::validate("volume name", name)?;
        match used.get(name) {
            Some(container) => {
                bail!("volume {name} is used by container {container}; remove that first (amphora rm {container})")
            }
            None if self.is_held(name)? => {
                bail!(
                    "volume {name} is used by a container with --rm that runs with another --runroot; remove that first"
                )
            }
            None => self.remove(name),
        }
    }

    /// Whether a container uses it of which nothing else may be known here.
    pub(crate) fn is_held(&self, name: &str) -> Result<bool> {
        Ok(Holds::open(&self.root)?.is_held(VOLUME, name)?)
    }

    /// Removes those of a container's volumes that it gave their names itself.
    pub(crate) fn remove_unnamed_of(&self, spec: &RunSpec) -> Result<()> {
        spec.volumes().filter(|name| names::is_id(name)).try_for_each(|name| self.remove(name).map(drop))
    }
}

/// Makes a folder that may exist, with a mode that no umask narrows.
fn make_folder(folder: &Path, mode: u32) -> io::Result<()> {
    match DirBuilder::new().mode(mode).create(folder) {
        Err(error) if error.kind() == ErrorKind::AlreadyExists => Ok(()),
        Err(error) => Err(error),
        Ok(()) => fs::set_permissions(folder, Permissions::from_mode(mode)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn volumes_are_made_listed_and_removed() {
        let folder = tempfile::tempdir().unwrap();
        let paths = Paths { root: folder.path().to_owned(), runroot: folder.path().join("run") };
        let volumes = Volumes::new(&paths);
        assert!(volumes.list().unwrap().is_empty());
        let data = volumes.make("data").unwrap();
        assert_eq!(volumes.make("data").unwrap(), data);
        fs::write(data.join("file"), "").unwrap();
        volumes.make("cache").unwrap();
        let names: Vec<String> = volumes.list().unwrap().into_iter().map(|volume| volume.name).collect();
        assert_eq!(names, ["cache", "data"]);
        let used = BTreeMap::from([("data".to_owned(), "web".to_owned())]);
        let message = volumes.remove_unused("data", &used).unwrap_err().to_string();
        assert!(message.contains("data") && message.contains("rm web"), "{message}");
        assert!(volumes.remove_unused("data", &BTreeMap::new()).unwrap());
        assert!(!volumes.remove_unused("data", &BTreeMap::new()).unwrap());
        assert!(volumes.remove_unused("../x", &BTreeMap::new()).is_err());
        let labels = BTreeMap::from([("tier".to_owned(), "back".to_owned())]);
        assert!(volumes.make_labelled("labelled", &labels).unwrap());
        assert!(!volumes.make_labelled("labelled", &BTreeMap::new()).unwrap());
        assert_eq!(volumes.find("labelled").unwrap().unwrap().labels, labels);
        assert!(volumes.find("cache").unwrap().is_some() && volumes.find("data").unwrap().is_none());
    }
}
