//! Whether what is mounted later on one side of a bind is seen on the other: `-v …:rslave`, `bind-propagation=`.

use std::fmt;

use serde::{Deserialize, Serialize};

/// How mounts travel (mount_namespaces(7), "Shared subtrees"); each holds for all that is mounted below, too.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Propagation {
    /// Not at all.
    #[default]
    Private,
    /// From the host into the container.
    Slave,
    /// Both ways.
    Shared,
}

impl Propagation {
    /// Docker's word, with and without its `r`.
    pub(crate) fn parse(word: &str) -> Option<Self> {
        match word {
            "private" | "rprivate" => Some(Self::Private),
            "slave" | "rslave" => Some(Self::Slave),
            "shared" | "rshared" => Some(Self::Shared),
            _ => None,
        }
    }

    pub(crate) fn is_private(&self) -> bool {
        *self == Self::Private
    }
}

impl fmt::Display for Propagation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Private => "rprivate",
            Self::Slave => "rslave",
            Self::Shared => "rshared",
        })
    }
}
