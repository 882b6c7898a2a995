//! Developer commands: `cargo xtask COMMAND`.

mod aarch64;
mod bench;
mod budget;
mod catalog;
mod command;
mod conformance;
mod deny;
mod fixtures;
mod hugetlb;
mod layout;
mod link_order;
mod paths;
mod push;
mod registry;
mod rootless;
mod second_kernel;
mod serve;
mod setup;
mod soak;
mod start_budgets;
mod starts;
mod tally;
mod test;
mod trace;

use anyhow::{Context, Result, bail};
use fixtures::Fixtures;
use registry::Registries;
use std::{fs, process::ExitCode};

const USAGE: &str = "usage: cargo xtask COMMAND

  test              everything that must hold: lints, rules for dependencies, tests, an ordinary user, a second kernel
    --quick           without clippy, cargo deny, the ordinary user, the second kernel, and what takes long
    --no-install      installs nothing: no Debian packages though this may be root, no cargo-deny
    --only=PART       builds, and runs one part: workspace, ordinary-user or second-kernel
  bench             start-up of both kinds beside the other runtimes on PATH; results in target/bench
    --runs N, -n N    so many runs of each (100)
    --readme          puts the table into README.md; every other option is one of `amphora bench`
  bench serve       requests of one component by a gateway's, and by wasmtime's own server; asked by wrk; in target/bench/serve.md
    --rounds N        so many of each, in turns (5), each of --seconds N (4)
    --program FILE    another amphora than the release build
  soak serve        a gateway under load, with reloads, a function that misbehaves, and kills; in target/soak/serve.svg its memory
    --minutes N       for so long (20); --reload-seconds N (60), --kill-seconds N (10), --program FILE
  soak store        kills commands at random moments, and runs many at once, on one store that must stay whole
    --kills N         so many kills (1000)
    --commands N      so many commands (5000)
    --seed N          draws the same ones again
  conformance wasi CHECKOUT
                    runs the public tests of WASI: CHECKOUT is WebAssembly/wasi-testsuite, branch prod/testsuite-base
    --wasmtime FILE   with wasmtime's command line instead, for comparison
  conformance h2spec FILE
                    runs the public tests of HTTP/2 against a gateway: FILE is the program of summerwind/h2spec
    --program FILE    another amphora than the release build
  link-order        follows starts of both kinds, and writes which functions belong together to runtime/link-order.txt
    --check           only tells whether it still fits
  budget            page faults and system calls of a start, and what they may be; of the program built last
  fixtures          makes what tests and benchmarks run on, and prints the environment that names it
  registry          serves the test images until it is ended; writes the environment to target/fixtures/env
";

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match dispatch(&words) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("xtask: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn dispatch(words: &[&str]) -> Result<()> {
    match words {
        ["test", options @ ..] => test::run(test::Options::parse(options)?),
        ["bench", "serve", options @ ..] => serve::bench(options),
        ["bench", options @ ..] => bench::run(options),
        ["soak", "serve", options @ ..] => serve::soak(options),
        ["soak", options @ ..] => soak::run(options),
        ["conformance", words @ ..] => conformance::run(words),
        ["link-order"] => link_order::write(),
        ["link-order", "--check"] => link_order::check(&Fixtures::build(false)?),
        ["budget"] => budget::check(&Fixtures::build(false)?),
        ["fixtures"] => make_fixtures(),
        ["registry"] => serve_registry(),
        [] | ["help" | "-h" | "--help"] => {
            print!("{USAGE}");
            Ok(())
        }
        _ => bail!("unknown command: {}\n\n{USAGE}", words.join(" ")),
    }
}

/// The environment that every test can rely on.
fn environment() -> Vec<(&'static str, String)> {
    vec![
        ("AMPHORA_TEST_FIXTURES", paths::fixtures().display().to_string()),
        ("AMPHORA_BIN", paths::binary().display().to_string()),
        // Tests that are about networks have one of their own as the machine's.
        ("AMPHORA_NETWORK", "none".to_owned()),
    ]
}

fn make_fixtures() -> Result<()> {
    let fixtures = Fixtures::build(true)?;
    fixtures.left_out.iter().for_each(|line| eprintln!("left out: {line}"));
    print!("{}", lines(&environment()));
    Ok(())
}

fn serve_registry() -> Result<()> {
    let fixtures = Fixtures::build(true)?;
    let registries = Registries::start(&fixtures)?.context("docker-registry is not installed")?;
    let text = lines(&[environment(), registries.environment()].concat());
    fs::write(fixtures.path("env"), &text)?;
    print!("{text}");
    loop {
        std::thread::park();
    }
}

fn lines(environment: &[(&str, String)]) -> String {
    environment.iter().map(|(name, value)| format!("{name}={value}\n")).collect()
}
