//! `cargo xtask link-order`: the order in which the linker lays out functions, so that those of a start lie together.
//!
//! A start runs some hundred kilobytes of a twenty-megabyte program, and left alone they lie all over it: a page fault for
//! each. This runs starts of both kinds from function to function, notes which was entered when, and writes
//! their symbols to a file that the build gives to the linker. Symbols that are no longer there are passed over, so an old
//! file does no harm but to speed.
//!
//! Every symbol of Rust's ends in a hash that depends on the compiler's version, with the newer mangling (v0) too, and the
//! linker takes whole names only. So a list holds for one compiler, which its second line names, and `cargo xtask test`
//! checks that it still fits. It is kept in the tree, as whoever builds from source would otherwise have none.

use crate::{
    command::{self, cargo, run},
    fixtures::Fixtures,
    paths,
    starts::Store,
    trace,
};
use anyhow::{Context, Result, bail};
use std::{
    collections::{BTreeMap, HashSet},
    fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::Duration,
};

const BUILD_LIMIT: Duration = Duration::from_secs(1800);
const HEADER: &str =
    "# Written by `cargo xtask link-order`. The functions of a start, in the order in which it enters them.\n";

const COMPILER: &str = "# Compiler: ";
/// Below this share, starts take noticeably more page faults than they need to.
const LEAST_PERCENT: usize = 95;

/// What is looked at, by what follows the store's options.
const STARTS: [&[&str]; 6] = [
    &["run", "--rm", "hello:wasm"],
    &["run", "--rm", "--network", "none", "hello:linux"],
    &["run", "--rm", "hello:component"],
    &["run", "-m", "64m", "--network", "none", "--pids-limit", "16", "hello:linux"],
    &["run", "-m", "64m", "--timeout", "1m", "-v", "/tmp:/data:ro", "hello:wasm"],
    &["exec", RUNNING, "true"],
];

/// The container in which `exec` is looked at.
const RUNNING: &str = "running";

/// The functions in an executable.
struct Functions {
    /// Names by addresses. Of several that are one and the same code, the last name counts.
    names: BTreeMap<u64, String>,
    /// Where the last of them ends.
    end: u64,
}

/// Builds with symbols, follows the starts, writes the file.
pub(crate) fn write() -> Result<()> {
    let fixtures = Fixtures::build(false)?;
    build_with_symbols()?;
    let store = Store::make(&fixtures, &paths::target().join("link-order"))?;
    store.load(&fixtures, "busybox-latest")?;
    run(store
        .command(&["run", "-d", "--network", "none", "--name", RUNNING, "busybox", "sleep", "1000"])
        .stdin(Stdio::null()))?;
    let names = entered(&store, &Functions::of(&paths::binary())?, &STARTS);
    run(&mut store.command(&["rm", "-f", RUNNING]))?;
    let names = names?;
    let path = list();
    fs::write(&path, format!("{HEADER}{COMPILER}{}\n{}\n", compiler()?, names.join("\n")))
        .with_context(|| format!("cannot write {}", path.display()))?;
    println!("{} functions in {}", names.len(), path.display());
    Ok(())
}

/// Whether the file still names the functions of a start. What it leaves behind is a program with symbols.
pub(crate) fn check(fixtures: &Fixtures) -> Result<()> {
    let text = command::read_text(&list())?;
    let listed: HashSet<&str> = text.lines().filter(|line| !line.starts_with('#')).collect();
    build_with_symbols()?;
    let functions = Functions::of(&paths::binary())?;
    let known: HashSet<&str> = functions.names.values().map(String::as_str).collect();
    let store = Store::make(fixtures, &paths::target().join("link-order"))?;
    let entered = entered(&store, &functions, &STARTS[..2])?;
    let shares = [
        ("listed are in the program", percent(listed.iter().map(|name| known.contains(name)))),
        ("that a start enters are listed", percent(entered.iter().map(|name| listed.contains(name.as_str())))),
    ];
    shares.iter().for_each(|(what, share)| println!("{share} % of the functions {what}"));
    if shares.iter().all(|(_, share)| *share >= LEAST_PERCENT) {
        return Ok(());
    }
    let written = text.lines().find_map(|line| line.strip_prefix(COMPILER)).unwrap_or("an unknown compiler");
    bail!(
        "{} is out of date: less than {LEAST_PERCENT} %; it was made with {written}, this is {}; cargo xtask link-order \
         makes it anew",
        list().display(),
        compiler()?
    )
}

fn percent(holds: impl Iterator<Item = bool>) -> usize {
    let (yes, all) = holds.fold((0, 0), |(yes, all), holds| (yes + usize::from(holds), all + 1));
    (yes * 100usize).checked_div(all).unwrap_or(0)
}

fn list() -> PathBuf {
    paths::workspace().join("runtime/link-order.txt")
}

/// The compiler in its own words: `rustc 1.95.0 (59807616e 2026-04-14)`.
fn compiler() -> Result<String> {
    let rustc = std::env::var_os("RUSTC").unwrap_or_else(|| "rustc".into());
    Ok(String::from_utf8_lossy(&run(Command::new(rustc).arg("--version"))?).trim().to_owned())
}

/// The functions that starts enter, each once, in the order of the first time.
fn entered(store: &Store, functions: &Functions, starts: &[&[&str]]) -> Result<Vec<String>> {
    let addresses: Vec<u64> = functions.names.keys().copied().collect();
    let (mut seen, mut order) = (HashSet::new(), Vec::new());
    for start in starts {
        let before = order.len();
        trace::functions(&store.program, &store.words(start), &addresses, functions.end, &mut |address| {
            if seen.insert(address) {
                order.push(functions.names[&address].clone());
            }
        })?;
        println!("{}: {} functions more", start.join(" "), order.len() - before);
    }
    Ok(order)
}

/// The program as it is released, but with its symbols.
fn build_with_symbols() -> Result<()> {
    let mut build = cargo(BUILD_LIMIT);
    build.current_dir(paths::workspace().join("runtime"));
    build.args(["rustc", "--release", "--bin", "amphora", "--", "-C", "strip=none"]);
    if !build.status()?.success() {
        bail!("the build failed");
    }
    Ok(())
}

impl Functions {
    /// `nm` comes with the compiler.
    fn of(program: &Path) -> Result<Self> {
        let text = run(Command::new("nm").args(["--numeric-sort", "--print-size"]).arg(program))?;
        let functions = Self::parse(&String::from_utf8_lossy(&text));
        if functions.names.is_empty() {
            bail!("{} has no symbols", program.display());
        }
        Ok(functions)
    }

    fn parse(nm: &str) -> Self {
        let mut functions = Self { names: BTreeMap::new(), end: 0 };
        for (start, size, name) in nm.lines().filter_map(function) {
            functions.names.insert(start, name.to_owned());
            functions.end = functions.end.max(start + size);
        }
        functions
    }
}

/// A line of nm: address, size, type, name.
fn function(line: &str) -> Option<(u64, u64, &str)> {
    let mut words = line.split(' ');
    let mut number = || u64::from_str_radix(words.next()?, 16).ok();
    let (start, size) = (number()?, number()?);
    let is_code = matches!(words.next()?, "t" | "T" | "w" | "W" | "i");
    is_code.then(|| words.next()).flatten().map(|name| (start, size, name))
}

#[cfg(test)]
mod tests {
    use super::Functions;

    #[test]
    fn functions_are_those_symbols_of_nm_that_are_code() {
        let nm = "0000000000000010 0000000000000008 T first\n\
                  0000000000000018 0000000000000004 D data\n\
                  0000000000000020 0000000000000010 t second\n\
                  0000000000000040 A no_size";
        let functions = Functions::parse(nm);
        let names: Vec<_> = functions.names.iter().map(|(start, name)| (*start, name.as_str())).collect();
        assert_eq!((names, functions.end), (vec![(0x10, "first"), (0x20, "second")], 0x30));
    }
}
