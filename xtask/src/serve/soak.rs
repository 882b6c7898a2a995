//! `cargo xtask soak serve`: a gateway for some minutes, with reloads, a function that misbehaves, and one whose containers are killed. No
//! request of the others may be lost, and the gateway's memory has to stay as it is.

use super::{
    Options,
    gateway::Gateway,
    load::{Outcome, ask},
    plot,
};
use crate::{fixtures::Fixtures, paths, registry::Registries};
use anyhow::{Context, Result, bail};
use std::{
    fs,
    sync::atomic::{AtomicBool, Ordering::Relaxed},
    thread,
    time::{Duration, Instant},
};

const OPTIONS: [&str; 4] = ["--minutes", "--reload-seconds", "--kill-seconds", "--program"];
/// Between two looks at the gateway's memory.
const LOOK: Duration = Duration::from_secs(1);
/// What a gateway may have more in its last quarter than in its second: a tenth, and this.
const SLACK_KIB: u64 = 8 << 10;

const PAGES: &str = "exec busybox httpd -f -p 127.0.0.1:$PORT -h /www\n";

/// Load on one function.
struct Stream {
    paths: &'static [&'static str],
    per_second: u64,
    /// None: it may fail.
    expected: Option<&'static str>,
}

const STREAMS: [(&str, Stream); 5] = [
    ("good", Stream { paths: &["/"], per_second: 100, expected: Some("hello from wasm") }),
    ("other", Stream { paths: &["/other/"], per_second: 50, expected: Some("hello from wasm") }),
    ("web", Stream { paths: &["/web/index.html"], per_second: 50, expected: Some("hello from linux") }),
    (
        "bad",
        Stream {
            paths: &[
                "/bad/trap",
                "/bad/grow",
                "/bad/spin",
                "/bad/half",
                "/bad/never",
                "/bad/big",
                "/bad/after",
                "/bad/open",
            ],
            per_second: 10,
            expected: None,
        },
    ),
    ("killed", Stream { paths: &["/killed/index.html"], per_second: 10, expected: None }),
];

/// `cargo xtask soak serve OPTIONS`.
pub(crate) fn run(words: &[&str]) -> Result<()> {
    let options = Options::parse(words, &OPTIONS)?;
    let [minutes, reload, kill] = [("--minutes", 20), ("--reload-seconds", 60), ("--kill-seconds", 10)]
        .map(|(name, usual)| options.number(name, usual));
    let (length, reload, kill) = (Duration::from_secs(minutes? * 60), reload?.max(1), kill?.max(1));
    let fixtures = Fixtures::build(false)?;
    let registries = Registries::start(&fixtures)?.context("docker-registry is not installed")?;
    let registry = registries.open_address();
    let files = [("www/index.html", "hello from linux\n"), ("www/serve", PAGES)];
    let mut gateway = Gateway::start(options.program(), &functions(registry, 0), &files)?;
    let (over, outcomes) = (AtomicBool::new(false), STREAMS.map(|_| Outcome::default()));
    let port = gateway.port;
    let memory = thread::scope(|scope| {
        for ((_, stream), outcome) in STREAMS.iter().zip(&outcomes) {
            let Stream { paths, per_second, expected } = *stream;
            let over = &over;
            scope.spawn(move || ask(port, paths, per_second, expected, over, outcome));
        }
        let memory = disturb(&mut gateway, registry, length, reload, kill);
        over.store(true, Relaxed);
        memory
    })?;
    println!(
        "{}",
        gateway
            .ask("/metrics")?
            .lines()
            .filter(|line| line.starts_with("amphora_traps"))
            .collect::<Vec<_>>()
            .join("\n")
    );
    let said = gateway.said();
    gateway.stop()?;
    if said.contains("panicked") {
        bail!("the gateway panicked: {said}");
    }
    judge(&outcomes, &memory)
}

/// What is served; `round` is in it, so that another one is another file.
fn functions(registry: &str, round: u64) -> String {
    let wasm = format!("image = \"{registry}/function:latest\"\n");
    let linux = format!(
        "image = \"{registry}/busybox:latest\"\nentrypoint = [\"sh\", \"/www/serve\"]\nvolumes = [\"./www:/www:ro\"]\n"
    );
    let route = |name: &str| format!("[[routes]]\npath = \"/{name}\"\nfunction = \"{name}\"\n");
    format!(
        "[functions.good]\n{wasm}[[routes]]\nfunction = \"good\"\n\
         [functions.other]\n{wasm}env = {{ ROUND = \"{round}\" }}\n{}\
         [functions.web]\n{linux}{}\
         [functions.bad]\n{wasm}memory = \"64m\"\ntimeout = \"1s\"\ncpus = 0.5\nenv = {{ ROUND = \"{round}\" }}\n{}\
         [functions.killed]\n{linux}max = 2\n{}",
        route("other"),
        route("web"),
        route("bad"),
        route("killed")
    )
}

/// Reloads and kills as often as it is wanted; what the gateway had of memory meanwhile, in KiB.
fn disturb(gateway: &mut Gateway, registry: &str, length: Duration, reload: u64, kill: u64) -> Result<Vec<u64>> {
    let (began, mut memory) = (Instant::now(), Vec::new());
    let (mut reloads, mut kills) = (0, 0);
    while began.elapsed() < length {
        thread::sleep(LOOK);
        memory.push(resident_kib(gateway.pid())?);
        let seconds = began.elapsed().as_secs();
        if seconds / reload > reloads {
            reloads = seconds / reload;
            gateway.reload(&functions(registry, reloads))?;
        }
        if seconds / kill > kills {
            kills = seconds / kill;
            let found = gateway.amphora(&["ps", "-q", "--filter", "label=amphora.serve.function=killed"])?;
            for id in found.split_whitespace() {
                // It may end by itself meanwhile.
                drop(gateway.amphora(&["kill", id]));
            }
        }
    }
    println!("{reloads} reloads, {kills} times all containers of one function killed, in {} s", length.as_secs());
    Ok(memory)
}

fn resident_kib(pid: u32) -> Result<u64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).context("the gateway is gone")?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let number = line.and_then(|line| line.split_whitespace().next()?.parse().ok());
    number.context("no VmRSS in /proc/PID/status")
}

fn judge(outcomes: &[Outcome], memory: &[u64]) -> Result<()> {
    let mut lost = Vec::new();
    for ((name, stream), outcome) in STREAMS.iter().zip(outcomes) {
        let (answered, failed, failures) = outcome.counts();
        let [half, most] = [500, 990].map(|of_thousand| outcome.quantile(of_thousand));
        println!("{name}: {answered} answered, {failed} lost; p50 {half:.2} ms, p99 {most:.2} ms");
        if stream.expected.is_some() && (failed > 0 || answered == 0) {
            lost.push(format!("{name}: {failed} of {} requests: {}", answered + failed, failures.join("; ")));
        }
    }
    let folder = paths::target().join("soak");
    fs::create_dir_all(&folder).with_context(|| format!("cannot make {}", folder.display()))?;
    let picture = folder.join("serve.svg");
    fs::write(&picture, plot::svg("The gateway's resident memory, once a second", "KiB", memory))?;
    println!("memory: {}", picture.display());
    if let Some(growth) = growth(memory) {
        lost.push(growth);
    }
    if lost.is_empty() { Ok(()) } else { bail!("{}", lost.join("\n")) }
}

/// A sentence, if there is more in the end than after the beginning.
fn growth(memory: &[u64]) -> Option<String> {
    let quarter = memory.len() / 4;
    let median = |part: &[u64]| {
        let mut sorted = part.to_vec();
        sorted.sort_unstable();
        sorted.get(sorted.len() / 2).copied().unwrap_or(0)
    };
    let (before, after) = (median(&memory[quarter..2 * quarter]), median(&memory[memory.len() - quarter..]));
    println!("memory: {before} KiB in the second quarter, {after} KiB in the last one");
    let is_more = after > before + before / 10 + SLACK_KIB;
    is_more.then(|| format!("the gateway's memory grew from {before} KiB to {after} KiB"))
}

#[cfg(test)]
mod tests {
    use super::growth;

    #[test]
    fn what_is_warm_may_not_grow() {
        let flat: Vec<u64> = (0..100).map(|second| 50_000 + second % 7).collect();
        assert_eq!(growth(&flat), None);
        let leaks: Vec<u64> = (0..100).map(|second| 50_000 + second * 1000).collect();
        assert!(growth(&leaks).unwrap().contains("grew from 87000 KiB to 137000 KiB"));
    }
}
