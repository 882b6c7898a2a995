//! `cargo xtask conformance`: public test suites, run against what was built last.

mod case;
mod http;
mod reasons;
mod suite;

use crate::{command::run as run_command, paths, serve};
use anyhow::{Context, Result, bail};
use case::Contender;
use std::{collections::BTreeMap, fs, path::Path};
use suite::Case;

/// Dispatches on the suite's name.
pub(crate) fn run(words: &[&str]) -> Result<()> {
    match words {
        ["wasi", checkout] => wasi(Path::new(checkout), None),
        ["wasi", checkout, "--wasmtime", program] => wasi(Path::new(checkout), Some(Path::new(program))),
        ["h2spec", h2spec] => serve::h2spec(h2spec, None),
        ["h2spec", h2spec, "--program", program] => serve::h2spec(h2spec, Some(program)),
        _ => bail!(
            "usage: cargo xtask conformance wasi CHECKOUT [--wasmtime PROGRAM]; CHECKOUT is one of WebAssembly/wasi-testsuite, \
             of its branch prod/testsuite-base, which has the programs; or cargo xtask conformance h2spec FILE [--program PROGRAM]"
        ),
    }
}

/// Runs WebAssembly/wasi-testsuite, prints totals and each test that does not pass, and compares with docs/conformance.md.
fn wasi(checkout: &Path, wasmtime: Option<&Path>) -> Result<()> {
    let cases = suite::find(&checkout.join("tests"))?;
    let folder = paths::target().join("conformance");
    remake(&folder)?;
    let contender = match wasmtime {
        Some(program) => Contender::Wasmtime(program.to_owned()),
        None => Contender::amphora(&folder),
    };
    let mut totals: BTreeMap<&str, (usize, usize)> = BTreeMap::new();
    let mut failed = Vec::new();
    for (number, case) in cases.iter().enumerate() {
        let (passed, all) = totals.entry(&case.suite).or_default();
        *all += 1;
        match contender.run(case, &folder.join(format!("case-{number}"))) {
            Ok(()) => *passed += 1,
            Err(why) => failed.push((case, format!("{why:#}"))),
        }
    }
    for (case, why) in &failed {
        println!("{}: {}: {}", case.suite, case.name, why.trim_end().replace('\n', "\n    "));
    }
    for (suite, (passed, all)) in &totals {
        println!("{suite}: {passed} of {all} pass");
    }
    println!("all: {} of {} pass", cases.len() - failed.len(), cases.len());
    fs::remove_dir_all(&folder).with_context(|| format!("cannot remove {}", folder.display()))?;
    if wasmtime.is_some() { Ok(()) } else { compare(&cases, &failed) }
}

/// Each rest has a reason, and each reason a rest.
fn compare(cases: &[Case], failed: &[(&Case, String)]) -> Result<()> {
    let reasons = reasons::read(&paths::workspace().join("docs/conformance.md"))?;
    let has_failed = |name: &str| failed.iter().any(|(case, _)| case.name == name);
    let unexplained = failed.iter().map(|(case, _)| case.name.as_str()).filter(|name| !reasons.contains(*name));
    let passing =
        cases.iter().map(|case| case.name.as_str()).filter(|name| reasons.contains(*name) && !has_failed(name));
    match (unexplained.collect::<Vec<_>>(), passing.collect::<Vec<_>>()) {
        (unexplained, passing) if unexplained.is_empty() && passing.is_empty() => Ok(()),
        (unexplained, passing) => bail!(
            "docs/conformance.md does not fit: without a reason there: {}; listed and passing: {}",
            listed(&unexplained),
            listed(&passing)
        ),
    }
}

fn listed(names: &[&str]) -> String {
    if names.is_empty() { "none".to_owned() } else { names.join(", ") }
}

/// An empty folder that nobody else can enter.
fn remake(folder: &Path) -> Result<()> {
    if folder.exists() {
        fs::remove_dir_all(folder).with_context(|| format!("cannot remove {}", folder.display()))?;
    }
    run_command(std::process::Command::new("mkdir").args(["-p", "-m", "700"]).arg(folder)).map(drop)
}
