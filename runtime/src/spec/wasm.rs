//! What is asked of a Wasm program's engine, beside limits.

use super::{names, quantity};
use serde::{Deserialize, Serialize};
use std::{collections::BTreeMap, num::NonZeroU32, path::PathBuf};

/// Of a Linux program none of it can be.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct WasmOptions {
    /// `--invoke`: one function that it exports is called so, with arguments in WAVE, instead of what starts a command.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub invoke: Option<String>,
    /// `--wasm`: names of proposals that it may use.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub proposals: Vec<String>,
    /// `--allow-net`: the only destinations that it may connect to.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub allow_net: Vec<String>,
    /// `--cacert`: absolute paths of certificates that it trusts, beside the machine's.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub ca_files: Vec<PathBuf>,
    /// `--config` and `--config-file`.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub config: BTreeMap<String, String>,
    /// `--kv`.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub stores: Vec<StoreSpec>,
    /// `--reuse`: how many requests one instance of a function answers; None: each gets its own.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reuse: Option<NonZeroU32>,
    /// `--coredump`: a folder of the host for core dumps of what does not end by itself.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub core_dumps: Option<PathBuf>,
}

/// A key-value store that a program may open.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StoreSpec {
    /// What the program calls it.
    pub name: String,
    /// The volume that keeps it; None: it goes with the run.
    pub volume: Option<String>,
    /// What its entries may come to.
    pub most_bytes: u64,
}

/// What a store may have whose user says nothing of it.
const MEMORY_BYTES: u64 = 16 << 20;
const VOLUME_BYTES: u64 = 1 << 30;
/// And the most that it may have in memory, where all of it counts.
const MOST_MEMORY_BYTES: u64 = 1 << 30;
const NAME_BYTES: usize = 64;

impl WasmOptions {
    /// Whether nothing is asked for.
    pub(crate) fn is_default(&self) -> bool {
        *self == Self::default()
    }
}

impl StoreSpec {
    /// Understands `NAME[=VOLUME][:size=BYTES]`.
    ///
    /// # Errors
    /// What is wrong with it.
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        let told = |problem: String| {
            format!(
                "invalid value `{text}` for --kv: {problem}; expected NAME[=VOLUME][:size=BYTES], such as default=data"
            )
        };
        let (place, size) = match text.split_once(':') {
            None => (text, None),
            Some((place, option)) => {
                let size = option.strip_prefix("size=").ok_or_else(|| told(format!("`{option}` is no size")))?;
                (place, Some(quantity::parse_bytes(size).map_err(|expected| told(format!("expected {expected}")))?))
            }
        };
        let (name, volume) = place.split_once('=').map_or((place, None), |(name, volume)| (name, Some(volume)));
        let is_letter = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'.' | b'-');
        if name.is_empty() || name.len() > NAME_BYTES || !name.bytes().all(is_letter) || name.starts_with('.') {
            return Err(told(format!(
                "a store's name has up to {NAME_BYTES} letters, digits, `_`, `.` or `-`, and does not begin with a dot"
            )));
        }
        if let Some(volume) = volume {
            names::validate("volume name", volume).map_err(|error| told(error.to_string()))?;
        }
        let most_bytes = size.unwrap_or(if volume.is_some() { VOLUME_BYTES } else { MEMORY_BYTES });
        match most_bytes {
            0 => Err(told("nothing could be stored in 0 bytes".to_owned())),
            bytes if volume.is_none() && bytes > MOST_MEMORY_BYTES => {
                Err(told("more than 1 GiB is kept in a volume only".to_owned()))
            }
            most_bytes => Ok(Self { name: name.to_owned(), volume: volume.map(str::to_owned), most_bytes }),
        }
    }

    /// Understands all `--kv`.
    ///
    /// # Errors
    /// What is wrong with the first that cannot be used, or two stores of one name.
    pub(crate) fn parse_all(texts: &[String]) -> Result<Vec<Self>, String> {
        let mut stores: Vec<Self> = Vec::new();
        for text in texts {
            let store = Self::parse(text)?;
            if stores.iter().any(|known| known.name == store.name) {
                return Err(format!("--kv: there are two stores of the name {}; leave out one", store.name));
            }
            stores.push(store);
        }
        Ok(stores)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_store_is_in_memory_or_in_a_volume() {
        let of = |text: &str| StoreSpec::parse(text).map(|store| (store.name, store.volume, store.most_bytes));
        assert_eq!(of("default"), Ok(("default".into(), None, 16 << 20)));
        assert_eq!(of("a=data"), Ok(("a".into(), Some("data".into()), 1 << 30)));
        assert_eq!(of("a=data:size=64m"), Ok(("a".into(), Some("data".into()), 64 << 20)));
        assert_eq!(of("a:size=1k"), Ok(("a".into(), None, 1 << 10)));
        for (text, problem) in [
            ("", "a store's name"),
            ("a/b", "a store's name"),
            (".a", "a store's name"),
            ("a=/srv", "invalid volume name"),
            ("a=", "invalid volume name"),
            ("a:64m", "is no size"),
            ("a:size=lots", "expected a size"),
            ("a:size=0", "0 bytes"),
            ("a:size=2g", "in a volume only"),
        ] {
            let message = of(text).unwrap_err();
            assert!(message.contains(problem) && message.contains("--kv"), "{text}: {message}");
        }
        assert!(StoreSpec::parse_all(&["a".into(), "a=data".into()]).unwrap_err().contains("two stores"));
    }
}
