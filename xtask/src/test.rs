//! `cargo xtask test`: everything that must hold, one step after the other.

use crate::{
    aarch64, budget,
    command::{self, cargo, is_root},
    deny, environment,
    fixtures::Fixtures,
    link_order, paths,
    registry::Registries,
    rootless, second_kernel, setup, soak,
    tally::Tally,
};
use anyhow::{Context, Result, bail};
use serde_json::Value;
use std::{
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

const LINT_LIMIT: Duration = Duration::from_secs(1500);
const BUILD_LIMIT: Duration = Duration::from_secs(1800);
const TEST_LIMIT: Duration = Duration::from_secs(1500);

/// What takes ten seconds and more, by parts of names: large images, and waiting for limits of time.
const SLOW_TESTS: [&str; 4] = [
    "a_real_wasm_application_runs_on_the_users_files",
    "two_pulls_that_share_a_layer",
    "limits::a_busy_loop",
    "a_pull_that_is_killed",
];

/// A part of the tests that can run alone.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Part {
    /// Everything that `cargo test` runs.
    Workspace,
    OrdinaryUser,
    SecondKernel,
}

/// What was typed.
#[derive(Clone, Copy)]
pub(crate) struct Options {
    /// Under a minute after a build: no clippy, no cargo deny, no ordinary user, no second kernel, no fixture that takes long to make
    /// and is not there, and none of [`SLOW_TESTS`].
    pub(crate) quick: bool,
    /// May missing packages be installed (as root)?
    pub(crate) install: bool,
    /// Only this, and no lints.
    only: Option<Part>,
}

impl Options {
    pub(crate) fn parse(words: &[&str]) -> Result<Self> {
        let mut options = Self { quick: false, install: true, only: None };
        for word in words {
            match *word {
                "--quick" => options.quick = true,
                "--no-install" => options.install = false,
                "--only=workspace" => options.only = Some(Part::Workspace),
                "--only=ordinary-user" => options.only = Some(Part::OrdinaryUser),
                "--only=second-kernel" => options.only = Some(Part::SecondKernel),
                other => bail!("unknown option of test: {other}; `cargo xtask help` names all"),
            }
        }
        Ok(options)
    }

    fn includes(self, part: Part) -> bool {
        self.only.is_none_or(|only| only == part)
    }
}

/// A test binary of a package.
#[derive(Clone)]
pub(crate) struct TestBinary {
    pub(crate) name: String,
    pub(crate) executable: PathBuf,
    /// Where cargo would run it.
    pub(crate) package_folder: PathBuf,
}

/// What came of it so far.
#[derive(Default)]
struct Report {
    tally: Tally,
    /// Steps that did not succeed.
    failures: Vec<String>,
    /// Steps and tests that did not run, each with the reason.
    skipped: Vec<String>,
}

impl Report {
    /// Runs one step, says how long it took, and goes on whatever came of it.
    fn step(&mut self, name: &str, step: impl FnOnce(&mut Self) -> Result<bool>) {
        println!("== {name}");
        let begun = Instant::now();
        let verdict = match step(self) {
            Ok(true) => "done",
            Ok(false) => "FAILED",
            Err(error) => {
                println!("{error:#}");
                "FAILED"
            }
        };
        if verdict != "done" {
            self.failures.push(name.to_owned());
        }
        println!("== {name}: {verdict} in {:.1} s", begun.elapsed().as_secs_f64());
    }

    /// The end of the output; an error if anything failed, or was skipped in CI that apt could have mended.
    fn conclude(mut self, begun: Instant) -> Result<()> {
        self.skipped.append(&mut self.tally.skipped);
        self.skipped.iter().for_each(|line| println!("skipped {line}"));
        let mendable = self.skipped.iter().filter(|line| line.contains("not installed")).count();
        if setup::is_ci() && mendable > 0 {
            self.failures.push(format!("{mendable} skipped for want of a package, in CI"));
        }
        let (passed, failed, skipped) = (self.tally.passed, self.tally.failed, self.skipped.len());
        let minutes = begun.elapsed().as_secs_f64() / 60.0;
        println!("{passed} passed, {failed} failed, {skipped} skipped in {minutes:.1} min");
        if !self.failures.is_empty() || failed > 0 {
            bail!("failed: {}", self.failures.join(", "));
        }
        Ok(())
    }
}

/// Runs all steps. A build that fails ends it; after everything else it goes on, to find all that is wrong.
pub(crate) fn run(options: Options) -> Result<()> {
    let begun = Instant::now();
    let mut report = Report::default();
    // Only as information: what this costs is named again, exactly, by each fixture and test that needs it.
    setup::packages(options.install, !options.quick)?;
    if options.only.is_none() {
        lint(options, &mut report);
    }
    println!("== fixtures");
    let fixtures = Fixtures::build(!options.quick)?;
    if options.only.is_none() && cfg!(target_arch = "x86_64") {
        // Before the build, as it leaves a program with symbols behind.
        report.step("link order of a start", |_| link_order::check(&fixtures).map(|()| true));
    }
    report.step("cargo build --release", |_| build());
    if !report.failures.iter().any(|step| step.starts_with("cargo build")) {
        test(options, &fixtures, &mut report)?;
    }
    report.conclude(begun)
}

fn lint(options: Options, report: &mut Report) {
    let clippy = ("clippy", "clippy --release --workspace --all-targets -- -D warnings");
    for (component, arguments) in
        std::iter::once(("fmt", "fmt --all --check")).chain((!options.quick).then_some(clippy))
    {
        if !is_available(component) {
            report.skipped.push(format!("cargo {component}: not part of this toolchain (rustup component add)"));
            continue;
        }
        report.step(&format!("cargo {arguments}"), |_| {
            Ok(cargo(LINT_LIMIT).args(arguments.split(' ')).status()?.success())
        });
    }
    if !options.quick {
        other_machine(options, report);
        dependencies(options, report);
    }
}

fn other_machine(options: Options, report: &mut Report) {
    if cfg!(target_arch = "aarch64") {
        return;
    }
    match aarch64::find(options.install) {
        Ok(compiler) => report.step("cargo check for aarch64", |_| aarch64::check(&compiler)),
        Err(reason) => report.skipped.push(format!("cargo check for aarch64: {reason}")),
    }
}

fn dependencies(options: Options, report: &mut Report) {
    let mut found = true;
    report.step("cargo deny check", |_| {
        let program = deny::find(options.install)?;
        found = program.is_some();
        program.iter().try_for_each(|program| deny::check(program)).map(|()| true)
    });
    if !found {
        report
            .skipped
            .push("cargo deny: neither on PATH nor in target/tools (cargo install --locked cargo-deny)".to_owned());
    }
}

fn is_available(component: &str) -> bool {
    cargo(LINT_LIMIT).args([component, "--version"]).output().is_ok_and(|output| output.status.success())
}

/// The release binary, and then the tests: in two commands, so that the first is what README tells users to type.
fn build() -> Result<bool> {
    let built = cargo(BUILD_LIMIT).args(["build", "--release"]).status()?.success();
    Ok(built && cargo(BUILD_LIMIT).args(["test", "--release", "--workspace", "--no-run"]).status()?.success())
}

fn test(options: Options, fixtures: &Fixtures, report: &mut Report) -> Result<()> {
    report.skipped.extend(fixtures.left_out.iter().cloned());
    if options.only.is_none() {
        match budget::reason_to_skip(fixtures) {
            Some(reason) => report.skipped.push(format!("what a start may cost: {reason}")),
            None => report.step("what a start may cost", |_| budget::check(fixtures).map(|()| true)),
        }
    }
    let registries = Registries::start(fixtures)?;
    let mut environment = environment();
    match &registries {
        Some(registries) => environment.extend(registries.environment()),
        None => report.skipped.push("every test that pulls: docker-registry is not installed".to_owned()),
    }
    if let Some(archive) = fixtures.existing("debian.tar") {
        environment.push(("AMPHORA_TEST_TAR", archive.display().to_string()));
    }
    if options.includes(Part::Workspace) {
        report.step("cargo test --release --workspace", |report| {
            let mut tests = cargo(TEST_LIMIT);
            tests.args(["test", "--release", "--workspace", "--no-fail-fast", "--", "--show-output"]);
            if options.quick {
                tests.args(SLOW_TESTS.map(|name| format!("--skip={name}")));
            }
            report.tally.run(tests.envs(environment.iter().cloned()))
        });
    }
    if let Some(registries) = registries.as_ref().filter(|_| options.only.is_none() && !options.quick) {
        report.step("soak store, a short share", |_| {
            soak::store(fixtures, registries.open_address(), soak::Options::short())
        });
    }
    if options.quick {
        let left_out =
            ["cargo clippy", "cargo deny", "tests that take long", "the soak", "an ordinary user", "the second kernel"];
        report.skipped.extend(left_out.map(|what| format!("{what}: --quick was given")));
        return Ok(());
    }
    let tests = end_to_end_tests()?;
    if options.includes(Part::OrdinaryUser) {
        as_ordinary_user(&tests, fixtures, &environment, report);
    }
    if options.includes(Part::SecondKernel) {
        let configurations = registries.as_ref().map(Registries::configurations).unwrap_or_default();
        on_second_kernel(&tests, &environment, configurations, report);
    }
    Ok(())
}

fn as_ordinary_user(
    tests: &[TestBinary],
    fixtures: &Fixtures,
    environment: &[(&'static str, String)],
    report: &mut Report,
) {
    if !is_root() {
        report.skipped.push("another ordinary user: this is one".to_owned());
        return;
    }
    report.step("end-to-end tests as an ordinary user", |report| {
        rootless::run(&paths::binary(), tests, fixtures, environment, &mut report.tally)
    });
}

fn on_second_kernel(
    tests: &[TestBinary],
    environment: &[(&'static str, String)],
    registry_configurations: Vec<PathBuf>,
    report: &mut Report,
) {
    if !is_root() {
        report.skipped.push("the second kernel: its files are this machine's, so it needs root".to_owned());
    } else if command::find("linux.uml").is_none() {
        report.skipped.push("the second kernel: user-mode-linux is not installed".to_owned());
    } else {
        let guest = second_kernel::Guest { environment, registry_configurations };
        report.step("tests of containers on a second kernel (cgroup v2 only)", |report| {
            let mut tests = tests.to_vec();
            tests.extend(test_binaries(|name| name == "container")?);
            second_kernel::run(&guest, &tests, &mut report.tally)
        });
    }
}

/// The test binaries that run the real program, as cargo names them: `runtime/tests/e2e*.rs`.
fn end_to_end_tests() -> Result<Vec<TestBinary>> {
    let tests = test_binaries(|name| name.starts_with("e2e"))?;
    if tests.is_empty() {
        bail!("there are no end-to-end tests: runtime/tests has no e2e*.rs");
    }
    Ok(tests)
}

fn test_binaries(wanted: impl Fn(&str) -> bool) -> Result<Vec<TestBinary>> {
    let mut list = cargo(BUILD_LIMIT);
    list.args(["test", "--release", "--workspace", "--no-run", "--message-format=json"]);
    let messages = command::run(&mut list)?;
    let mut tests = Vec::new();
    for line in String::from_utf8(messages)?.lines() {
        let message: Value = serde_json::from_str(line).context("cargo printed something that is not JSON")?;
        let is_built_test = message["target"]["kind"][0] == "test" && message["executable"].is_string();
        if is_built_test && message["target"]["name"].as_str().is_some_and(&wanted) {
            tests.push(test_binary(&message).context("cargo names a test binary without its package")?);
        }
    }
    Ok(tests)
}

fn test_binary(message: &Value) -> Option<TestBinary> {
    Some(TestBinary {
        name: message["target"]["name"].as_str()?.to_owned(),
        executable: PathBuf::from(message["executable"].as_str()?),
        package_folder: Path::new(message["manifest_path"].as_str()?).parent()?.to_owned(),
    })
}
