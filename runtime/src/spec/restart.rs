//! What becomes of a container that has ended: `--restart`, in Docker's spelling.

use serde::{Deserialize, Serialize};

/// When a container is started again by its supervisor.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum RestartPolicy {
    /// Never.
    #[default]
    No,
    /// When it ended with another code than 0; at most so often (0: always).
    OnFailure {
        /// How often.
        most: u32,
    },
    /// Always, also after the machine has begun anew.
    Always,
    /// The same, unless its user stopped it.
    UnlessStopped,
}

/// A policy that is none.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("invalid value `{found}` for --restart: expected no, on-failure[:TIMES], always or unless-stopped")]
pub(crate) struct NoPolicy {
    found: String,
}

impl RestartPolicy {
    /// Parses `no`, `on-failure[:3]`, `always`, `unless-stopped`.
    ///
    /// # Errors
    /// It is none of these.
    pub(crate) fn parse(text: &str) -> Result<Self, NoPolicy> {
        let refused = || NoPolicy { found: text.to_owned() };
        match text {
            "" | "no" => Ok(Self::No),
            "always" => Ok(Self::Always),
            "unless-stopped" => Ok(Self::UnlessStopped),
            "on-failure" => Ok(Self::OnFailure { most: 0 }),
            _ => {
                let most = text.strip_prefix("on-failure:").and_then(|most| most.parse().ok());
                most.map(|most| Self::OnFailure { most }).ok_or_else(refused)
            }
        }
    }

    /// Docker's word for it.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::No => "no",
            Self::OnFailure { .. } => "on-failure",
            Self::Always => "always",
            Self::UnlessStopped => "unless-stopped",
        }
    }

    /// How often at most; 0 where there is no such limit.
    pub(crate) fn most(self) -> u32 {
        match self {
            Self::OnFailure { most } => most,
            Self::No | Self::Always | Self::UnlessStopped => 0,
        }
    }

    /// Whether it ever starts a container again.
    pub(crate) fn restarts(self) -> bool {
        self != Self::No
    }

    /// Whether a container is started once more that ended with this code and was started again so often.
    pub(crate) fn wants_more(self, exit_code: u8, restart_count: u32) -> bool {
        match self {
            Self::No => false,
            Self::OnFailure { most } => exit_code != 0 && (most == 0 || restart_count < most),
            Self::Always | Self::UnlessStopped => true,
        }
    }

    /// Whether it runs again after the machine has begun anew. `is_halted`: its user stopped it last.
    pub(crate) fn outlives_reboot(self, is_halted: bool) -> bool {
        match self {
            Self::No | Self::OnFailure { .. } => false,
            Self::Always => true,
            Self::UnlessStopped => !is_halted,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::RestartPolicy::{self, Always, No, OnFailure, UnlessStopped};

    #[test]
    fn policies_are_parsed() {
        for (text, policy) in [
            ("", No),
            ("no", No),
            ("always", Always),
            ("unless-stopped", UnlessStopped),
            ("on-failure", OnFailure { most: 0 }),
            ("on-failure:3", OnFailure { most: 3 }),
        ] {
            assert_eq!(RestartPolicy::parse(text), Ok(policy), "{text}");
        }
        for text in ["never", "always:3", "on-failure:", "on-failure:x", "on-failure:-1", "no:1", ":"] {
            let said = RestartPolicy::parse(text).unwrap_err().to_string();
            assert!(said.starts_with(&format!("invalid value `{text}` for --restart")), "{said}");
        }
    }

    #[test]
    fn who_failed_often_enough_is_left_alone() {
        let twice = OnFailure { most: 2 };
        for (policy, code, count, again) in [
            (No, 1, 0, false),
            (twice, 0, 0, false),
            (twice, 1, 1, true),
            (twice, 1, 2, false),
            (OnFailure { most: 0 }, 1, 1_000_000, true),
            (Always, 0, 7, true),
            (UnlessStopped, 0, 7, true),
        ] {
            assert_eq!(policy.wants_more(code, count), again, "{policy:?} {code} {count}");
        }
        assert!(Always.outlives_reboot(true) && UnlessStopped.outlives_reboot(false));
        assert!(!UnlessStopped.outlives_reboot(true) && !twice.outlives_reboot(false));
    }
}
