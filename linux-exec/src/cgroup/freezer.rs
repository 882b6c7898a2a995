//! Pausing a group: `freezer.state` of v1, or `cgroup.freeze` of v2.

use super::{CgroupError, files};
use std::{
    path::{Path, PathBuf},
    thread,
    time::Duration,
};

/// Together two seconds.
const WAITS_MILLIS: [u64; 16] = [0, 1, 1, 2, 4, 8, 16, 32, 64, 128, 200, 256, 256, 300, 300, 432];

/// The file that freezes a group.
pub(super) enum Freezer {
    V1(PathBuf),
    V2(PathBuf),
}

impl Freezer {
    /// Of a container's groups; the one of v1 where there are both, as it freezes what is in any hierarchy's group of the container too.
    pub(super) fn of(paths: &[PathBuf]) -> Option<Self> {
        let having = |file: &str| paths.iter().find(|path| path.join(file).exists()).cloned();
        having("freezer.state").map(Self::V1).or_else(|| having("cgroup.freeze").map(Self::V2))
    }

    /// Returns when all are frozen; if some are not after two seconds, all are thawed again.
    pub(super) fn freeze(&self) -> Result<(), CgroupError> {
        for wait in WAITS_MILLIS {
            // On v1 once more: what began to freeze may have been passed over.
            self.write(true)?;
            if self.is_frozen()? {
                return Ok(());
            }
            thread::sleep(Duration::from_millis(wait));
        }
        if self.is_frozen()? {
            return Ok(());
        }
        self.write(false)?;
        Err(CgroupError::NotFrozen(self.group().to_owned()))
    }

    pub(super) fn thaw(&self) -> Result<(), CgroupError> {
        self.write(false)
    }

    pub(super) fn is_frozen(&self) -> Result<bool, CgroupError> {
        match self {
            Self::V1(group) => Ok(files::read(&group.join("freezer.state"))? == "FROZEN"),
            Self::V2(group) => Ok(files::read_keyed(&group.join("cgroup.events"), "frozen") == Some(1)),
        }
    }

    fn group(&self) -> &Path {
        match self {
            Self::V1(group) | Self::V2(group) => group,
        }
    }

    fn write(&self, frozen: bool) -> Result<(), CgroupError> {
        match self {
            Self::V1(group) => files::write(&group.join("freezer.state"), if frozen { "FROZEN" } else { "THAWED" }),
            Self::V2(group) => files::write(&group.join("cgroup.freeze"), if frozen { "1" } else { "0" }),
        }
    }
}
