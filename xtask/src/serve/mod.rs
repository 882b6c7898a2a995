//! `cargo xtask soak serve`, `bench serve` and `conformance h2spec`: a gateway that is asked, in a folder of its own.

mod bench;
mod client;
mod gateway;
mod h2spec;
mod load;
mod plot;
mod soak;

pub(crate) use bench::run as bench;
pub(crate) use h2spec::run as h2spec;
pub(crate) use soak::run as soak;

use crate::paths;
use anyhow::{Context, Result, bail};
use std::path::PathBuf;

/// Options of both: pairs of a name and a value.
struct Options<'a>(Vec<(&'a str, &'a str)>);

impl<'a> Options<'a> {
    fn parse(words: &[&'a str], known: &[&str]) -> Result<Self> {
        let mut pairs = Vec::new();
        for pair in words.chunks(2) {
            let [name, value] = pair else { bail!("{} needs a value", pair[0]) };
            if !known.contains(name) {
                bail!("unknown option {name}; there are {}", known.join(", "));
            }
            pairs.push((*name, *value));
        }
        Ok(Self(pairs))
    }

    fn text(&self, name: &str) -> Option<&'a str> {
        self.0.iter().rev().find(|(found, _)| *found == name).map(|(_, value)| *value)
    }

    fn number(&self, name: &str, usual: u64) -> Result<u64> {
        let Some(text) = self.text(name) else { return Ok(usual) };
        text.parse().with_context(|| format!("{name} {text}: expected a number"))
    }

    /// What is served by: the release binary, unless another is named.
    fn program(&self) -> PathBuf {
        self.text("--program").map_or_else(paths::binary, PathBuf::from)
    }
}
