//! `cargo xtask bench`: builds what is compared, runs the side-by-side benchmark, and puts its table into README.

use crate::{
    command::{self, cargo},
    fixtures::Fixtures,
    paths,
};
use anyhow::{Context, Result, bail};
use std::{env, fs, path::PathBuf, time::Duration};

const BUILD_LIMIT: Duration = Duration::from_secs(1800);
const BEGIN: &str = "<!-- bench: begin, written by `cargo xtask bench --readme` -->";
const END: &str = "<!-- bench: end -->";

/// Runs the benchmark; what is not an option of its own goes to the benchmark as it is.
pub(crate) fn run(words: &[&str]) -> Result<()> {
    let into_readme = words.contains(&"--readme");
    let passed_on = words.iter().filter(|word| **word != "--readme");
    // The slow ones take no part in it.
    let fixtures = Fixtures::build(false)?;
    let mut build = cargo(BUILD_LIMIT);
    build.args(["build", "--release", "--package", "amphora", "--package", "amphora-benches"]);
    if !build.status()?.success() {
        bail!("the build failed");
    }
    let out = paths::target().join("bench");
    let program = paths::release("side-by-side");
    let mut benchmark = std::process::Command::new(&program);
    benchmark.arg("--amphora").arg(paths::binary()).arg("--fixtures").arg(fixtures.path("")).arg("--out").arg(&out);
    let status = benchmark.args(passed_on).env("PATH", path_with_peers()?).status();
    if !status.with_context(|| format!("cannot start {}", program.display()))?.success() {
        bail!("the benchmark failed");
    }
    if into_readme {
        let table = command::read_text(&out.join("side-by-side.md"))?;
        update_readme(&table)?;
    }
    Ok(())
}

/// `PATH`, and behind it where `cargo install --root target/peers` puts peers that Debian does not have.
fn path_with_peers() -> Result<std::ffi::OsString> {
    let path = env::var_os("PATH").unwrap_or_default();
    let folders = env::split_paths(&path).chain([paths::target().join("peers/bin")]);
    Ok(env::join_paths(folders.collect::<Vec<PathBuf>>())?)
}

fn update_readme(table: &str) -> Result<()> {
    let path = paths::workspace().join("README.md");
    let readme = command::read_text(&path)?;
    let updated = replace_block(&readme, table)
        .with_context(|| format!("{} has no block between {BEGIN:?} and {END:?}", path.display()))?;
    fs::write(&path, updated).with_context(|| format!("cannot write {}", path.display()))
}

/// Replaces what is between the two marks.
fn replace_block(readme: &str, table: &str) -> Option<String> {
    let (before, rest) = readme.split_once(BEGIN)?;
    let (_, after) = rest.split_once(END)?;
    Some(format!("{before}{BEGIN}\n{}\n{END}{after}", table.trim_end()))
}

#[cfg(test)]
mod tests {
    use super::{BEGIN, END, replace_block};

    #[test]
    fn only_the_marked_block_of_the_readme_changes() {
        let readme = format!("# A\n{BEGIN}\nold\n{END}\nB\n");
        let updated = replace_block(&readme, "new\n").expect("the block is there");
        assert_eq!(updated, format!("# A\n{BEGIN}\nnew\n{END}\nB\n"));
        assert_eq!(replace_block(&updated, "new\n").as_ref(), Some(&updated));
        assert_eq!(replace_block("no block", "new"), None);
    }
}
