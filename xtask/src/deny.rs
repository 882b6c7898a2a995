//! `cargo deny check`: licences, sources and bans of dependencies, by `deny.toml`.
//!
//! Advisories are left out, as their database lies on another server than crates: `cargo deny check advisories`.

use crate::{
    command::{self, cargo, run},
    paths,
    setup::is_ci,
};
use anyhow::{Result, bail};
use std::{
    path::{Path, PathBuf},
    time::Duration,
};

/// What is installed where there is none: building it takes two and a half minutes on two cores, once.
const VERSION: &str = "0.20.2";
const INSTALL_LIMIT: Duration = Duration::from_secs(900);
const CHECK_LIMIT: Duration = Duration::from_secs(300);

/// Finds `cargo-deny`, or installs it into `target/tools` if that is allowed. None if there is none.
pub(crate) fn find(install: bool) -> Result<Option<PathBuf>> {
    let tools = paths::target().join("tools");
    let own = tools.join("bin/cargo-deny");
    if let Some(program) = command::find("cargo-deny").or_else(|| Some(own.clone()).filter(|own| own.is_file())) {
        return Ok(Some(program));
    }
    if !install {
        return Ok(None);
    }
    let mut cargo = cargo(INSTALL_LIMIT);
    cargo.args(["install", "--quiet", "--locked", "--version", VERSION, "--root"]).arg(&tools).arg("cargo-deny");
    match run(&mut cargo) {
        Ok(_) => Ok(Some(own)),
        Err(error) if is_ci() => Err(error),
        Err(error) => {
            println!("{error:#}");
            Ok(None)
        }
    }
}

/// Warnings, such as of two versions of one crate, are only shown by hand.
pub(crate) fn check(program: &Path) -> Result<()> {
    let mut deny = command::bounded(program, CHECK_LIMIT);
    deny.current_dir(paths::workspace());
    deny.args(["--log-level", "error", "check", "bans", "licenses", "sources"]);
    if !deny.status()?.success() {
        bail!("a dependency breaks a rule of deny.toml, or cargo deny could not look");
    }
    Ok(())
}
