//! `cargo xtask bench`: builds amphora and the floor, has `amphora bench` measure, and puts its table into README.

use crate::{
    command::{self, cargo},
    hugetlb, paths, start_budgets,
};
use anyhow::{Context, Result, bail};
use std::{
    env, fs,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

const BUILD_LIMIT: Duration = Duration::from_secs(1800);
const BEGIN: &str = "<!-- bench: begin, written by `cargo xtask bench --readme` -->";
const END: &str = "<!-- bench: end -->";

/// Runs the benchmark; what is not an option of its own goes to `amphora bench` as it is.
pub(crate) fn run(words: &[&str]) -> Result<()> {
    let into_readme = words.contains(&"--readme");
    let passed_on = words.iter().filter(|word| **word != "--readme");
    if !cargo(BUILD_LIMIT).args(["build", "--release", "--package", "amphora"]).status()?.success() {
        bail!("the build failed");
    }
    let out = paths::target().join("bench");
    fs::create_dir_all(&out).with_context(|| format!("cannot make {}", out.display()))?;
    // crun refuses a cgroup v2 tree that has a controller; undone when this is dropped.
    let _hugetlb = hugetlb::move_to_v1()?;
    let floor = format!("floor={} {{rootfs}} {{scratch}} {{program}}", compile_floor(&out)?.display());
    let mut benchmark = Command::new(paths::binary());
    benchmark.args(["bench", "--peer", &floor, "--report"]).arg(&out).args(passed_on);
    let status = benchmark.env("PATH", path_with_peers()?).status();
    if !status.with_context(|| format!("cannot start {}", paths::binary().display()))?.success() {
        bail!("the benchmark failed");
    }
    let budgets = start_budgets::table(&command::read_text(&out.join("results.json"))?)?;
    print!("{budgets}");
    if into_readme {
        let report = command::read_text(&out.join("report.md"))?;
        update_readme(&format!("{report}{budgets}"))?;
    }
    Ok(())
}

/// What the kernel has to do for a container, and nothing else.
fn compile_floor(out: &Path) -> Result<PathBuf> {
    let (floor, source) = (out.join("floor"), paths::workspace().join("benches/floor.c"));
    command::run(Command::new("cc").args(["-O2", "-static", "-o"]).arg(&floor).arg(source))?;
    Ok(floor)
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
    // A reader's checkout lies elsewhere.
    let table = table.replace(&format!("{}/", paths::workspace().display()), "");
    let updated = replace_block(&readme, &table)
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
