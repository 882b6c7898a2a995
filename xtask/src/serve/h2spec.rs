//! `cargo xtask conformance h2spec FILE`: the public test suite of HTTP/2, against a gateway with a function of each kind.
//!
//! A test is passed if it is with one of the paths: some want an answer that begins before the request is whole, others one that does not.

use super::gateway::Gateway;
use crate::{
    command::{bounded, read_text},
    fixtures::Fixtures,
    paths,
    registry::Registries,
};
use anyhow::{Context, Result, bail};
use std::{collections::BTreeSet, fs, path::Path, process::Stdio, time::Duration};

const LIMIT: Duration = Duration::from_secs(900);
/// Answers at once, reads all before it answers, is a Linux program behind the gateway.
const PATHS: [&str; 3] = ["/", "/upload", "/web/index.html"];
/// Fail with all of them; docs/conformance.md says why.
const EXPECTED: [&str; 1] = ["http2/3.5: Sends invalid connection preface"];

/// `h2spec`: the program of summerwind/h2spec.
pub(crate) fn run(h2spec: &str, program: Option<&str>) -> Result<()> {
    let fixtures = Fixtures::build(false)?;
    let registries = Registries::start(&fixtures)?.context("docker-registry is not installed")?;
    let registry = registries.open_address();
    let functions = format!(
        "[functions.hello]\nimage = \"{registry}/function:latest\"\n[[routes]]\nfunction = \"hello\"\n\
         [functions.web]\nimage = \"{registry}/busybox:latest\"\nentrypoint = [\"sh\", \"/www/serve\"]\n\
         volumes = [\"./www:/www:ro\"]\n[[routes]]\npath = \"/web\"\nfunction = \"web\"\n"
    );
    let files =
        [("www/index.html", "hello from linux\n"), ("www/serve", "exec busybox httpd -f -p 127.0.0.1:$PORT -h /www\n")];
    let program = program.map_or_else(paths::binary, Into::into);
    let gateway = Gateway::start(program, &functions, &files)?;
    let report = paths::target().join("h2spec.xml");
    let mut failed: Option<BTreeSet<String>> = None;
    for path in PATHS {
        let (tests, failing) = ask(h2spec, gateway.port, path, &report)?;
        println!("{path}: {} of {tests} pass", tests - failing.len());
        failed = Some(failed.map_or_else(|| failing.clone(), |before| &before & &failing));
    }
    gateway.stop()?;
    let failed: Vec<String> = failed.unwrap_or_default().into_iter().collect();
    println!("fail with each path: {}", if failed.is_empty() { "none".to_owned() } else { failed.join(", ") });
    if failed != EXPECTED { bail!("docs/conformance.md has {}", EXPECTED.join(", ")) } else { Ok(()) }
}

/// How many tests there are, and which do not pass.
fn ask(h2spec: &str, port: u16, path: &str, report: &Path) -> Result<(usize, BTreeSet<String>)> {
    if report.exists() {
        fs::remove_file(report)?;
    }
    let mut command = bounded(Path::new(h2spec), LIMIT);
    command.args(["--strict", "--host", "127.0.0.1", "--port", &port.to_string(), "--path", path, "--junit-report"]);
    // Its status says whether all pass.
    command.arg(report).stdout(Stdio::null()).status().with_context(|| format!("cannot start {h2spec}"))?;
    Ok(read(&read_text(report)?))
}

/// Of a report in JUnit's form.
fn read(report: &str) -> (usize, BTreeSet<String>) {
    let cases = || report.split("<testcase ").skip(1);
    let attribute = |case: &str, name: &str| Some(case.split_once(name)?.1.split_once('"')?.0.to_owned());
    let failing = cases()
        .filter(|case| case.contains("<failure") || case.contains("<error"))
        .filter_map(|case| Some(format!("{}: {}", attribute(case, "package=\"")?, attribute(case, "classname=\"")?)));
    (cases().count(), failing.collect())
}

#[cfg(test)]
mod tests {
    use super::read;

    #[test]
    fn what_does_not_pass_is_named() {
        let report = "<testsuites><testsuite><testcase package=\"http2/1\" classname=\"A\" time=\"0\"></testcase>\n\
                      <testcase package=\"http2/2\" classname=\"B\" time=\"0\"><failure>no</failure></testcase></testsuite></testsuites>";
        let (tests, failing) = read(report);
        assert_eq!((tests, failing.into_iter().collect::<Vec<_>>()), (2, vec!["http2/2: B".to_owned()]));
    }
}
