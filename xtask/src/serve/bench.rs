//! `cargo xtask bench serve`: the same component under `amphora serve`, `amphora run -p` and `wasmtime serve`, asked by wrk, in turns.

use super::{Options, gateway::Gateway};
use crate::{
    command::{bounded, find, run as run_command, tied},
    fixtures::Fixtures,
    paths,
    registry::Registries,
};
use anyhow::{Context, Result};
use std::{
    fs,
    net::{Ipv4Addr, TcpListener, TcpStream},
    path::{Path, PathBuf},
    process::{Child, Stdio},
    thread,
    time::{Duration, Instant},
};

const OPTIONS: [&str; 3] = ["--rounds", "--seconds", "--program"];
/// Connections at once, each a row.
const CONNECTIONS: [u32; 3] = [1, 8, 64];
/// What wasmtime's own server is given, so that it reserves places as the gateway does.
const POOLING: [&str; 8] = [
    "pooling-allocator=y",
    "pooling-total-component-instances=1000",
    "pooling-total-core-instances=20000",
    "pooling-total-memories=4000",
    "pooling-total-tables=8000",
    "pooling-total-stacks=1000",
    "pooling-memory-keep-resident=262144",
    "pooling-table-keep-resident=262144",
];
const LIMIT: Duration = Duration::from_secs(300);

/// A server that is asked.
struct Contender {
    name: &'static str,
    port: u16,
    path: &'static str,
    pid: u32,
}

/// What one round came to.
#[derive(Clone, Copy)]
struct Figures {
    per_second: f64,
    p50_ms: f64,
    p99_ms: f64,
    cpu_micros: f64,
    faults: f64,
}

/// `cargo xtask bench serve OPTIONS`.
pub(crate) fn run(words: &[&str]) -> Result<()> {
    let options = Options::parse(words, &OPTIONS)?;
    let (rounds, seconds) = (options.number("--rounds", 5)?.max(1), options.number("--seconds", 4)?.max(1));
    let wrk = find("wrk").context("wrk is not installed (Debian: wrk)")?;
    let fixtures = Fixtures::build(false)?;
    let registries = Registries::start(&fixtures)?.context("docker-registry is not installed")?;
    let image = format!("{}/function:latest", registries.open_address());
    let process = "[functions.own]\nisolation = \"process\"\nmin = 1\nfreeze_after = \"never\"\n";
    let linux = format!(
        "[functions.web]\nimage = \"{}/busybox:latest\"\nentrypoint = [\"sh\", \"/www/serve\"]\nvolumes = [\"./www:/www:ro\"]\n\
         [[routes]]\npath = \"/web\"\nfunction = \"web\"\n",
        registries.open_address()
    );
    let functions = format!(
        "[functions.hello]\nimage = \"{image}\"\n[[routes]]\nfunction = \"hello\"\n\
         {process}image = \"{image}\"\n[[routes]]\npath = \"/own\"\nfunction = \"own\"\n{linux}"
    );
    let files =
        [("www/index.html", "hello from linux\n"), ("www/serve", "exec busybox httpd -f -p 127.0.0.1:$PORT -h /www\n")];
    let gateway = Gateway::start(options.program(), &functions, &files)?;
    let mut contenders = vec![
        Contender { name: "amphora serve", port: gateway.port, path: "/", pid: gateway.pid() },
        Contender { name: "amphora serve, a process", port: gateway.port, path: "/own/", pid: gateway.pid() },
        Contender { name: "amphora serve, busybox httpd", port: gateway.port, path: "/web/", pid: gateway.pid() },
    ];
    let wasmtime = Wasmtime::start(&fixtures)?;
    match &wasmtime {
        Some(server) => contenders.push(Contender {
            name: "wasmtime serve",
            port: server.port,
            path: "/",
            pid: server.process.id(),
        }),
        None => println!("wasmtime is not installed (cargo install --root target/peers wasmtime-cli): left out"),
    }
    let table = measure(&wrk, &contenders, rounds, seconds)?;
    println!(
        "{}",
        gateway
            .ask("/metrics")?
            .lines()
            .filter(|line| line.starts_with("amphora_instan"))
            .collect::<Vec<_>>()
            .join("\n")
    );
    gateway.stop()?;
    let out = paths::target().join("bench");
    fs::create_dir_all(&out).with_context(|| format!("cannot make {}", out.display()))?;
    fs::write(out.join("serve.md"), &table)?;
    print!("{table}");
    Ok(())
}

/// All of them in turns, so that what else the machine does is all of theirs; medians.
fn measure(wrk: &Path, contenders: &[Contender], rounds: u64, seconds: u64) -> Result<String> {
    let mut table = "| connections | server | requests/s | p50 ms | p99 ms | CPU µs each | faults each |\n|---|---|---|---|---|---|---|\n".to_owned();
    for connections in CONNECTIONS {
        let mut all: Vec<Vec<Figures>> = contenders.iter().map(|_| Vec::new()).collect();
        for _ in 0..rounds {
            for (contender, figures) in contenders.iter().zip(&mut all) {
                figures.push(ask(wrk, contender, connections, seconds)?);
            }
        }
        for (contender, figures) in contenders.iter().zip(&all) {
            let median = |of: fn(&Figures) -> f64| {
                let mut values: Vec<f64> = figures.iter().map(of).collect();
                values.sort_by(f64::total_cmp);
                values[values.len() / 2]
            };
            table += &format!(
                "| {connections} | {} | {:.0} | {:.2} | {:.2} | {:.1} | {:.2} |\n",
                contender.name,
                median(|figures| figures.per_second),
                median(|figures| figures.p50_ms),
                median(|figures| figures.p99_ms),
                median(|figures| figures.cpu_micros),
                median(|figures| figures.faults)
            );
        }
    }
    Ok(table)
}

fn ask(wrk: &Path, contender: &Contender, connections: u32, seconds: u64) -> Result<Figures> {
    let url = format!("http://127.0.0.1:{}{}", contender.port, contender.path);
    let before = used(contender.pid)?;
    let mut command = bounded(wrk, LIMIT);
    command.args(["-t1", &format!("-c{connections}"), &format!("-d{seconds}"), "--latency", &url]);
    let said = String::from_utf8_lossy(&run_command(&mut command)?).into_owned();
    let after = used(contender.pid)?;
    anyhow::ensure!(!said.contains("Non-2xx") && !said.contains("Socket errors"), "{}: {said}", contender.name);
    let requests = number_before(&said, " requests in").with_context(|| format!("no count: {said}"))?;
    let quantile = |name: &str| said.lines().find_map(|line| milliseconds(line.trim().strip_prefix(name)?.trim()));
    Ok(Figures {
        per_second: requests / seconds as f64,
        p50_ms: quantile("50%").unwrap_or(f64::NAN),
        p99_ms: quantile("99%").unwrap_or(f64::NAN),
        cpu_micros: (after.0 - before.0) / requests,
        faults: (after.1 - before.1) / requests,
    })
}

fn number_before(text: &str, mark: &str) -> Option<f64> {
    text.split_once(mark)?.0.rsplit(char::is_whitespace).next()?.parse().ok()
}

/// wrk's `1.25ms`, `830.00us` or `1.10s`.
fn milliseconds(text: &str) -> Option<f64> {
    let (number, factor) = text
        .strip_suffix("us")
        .map(|number| (number, 0.001))
        .or_else(|| text.strip_suffix("ms").map(|number| (number, 1.0)))
        .or_else(|| text.strip_suffix('s').map(|number| (number, 1000.0)))?;
    Some(number.parse::<f64>().ok()? * factor)
}

/// Microseconds of processors, and minor faults, of a process so far.
fn used(pid: u32) -> Result<(f64, f64)> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).context("the server is gone")?;
    let fields: Vec<&str> = stat.rsplit(')').next().unwrap_or_default().split_whitespace().collect();
    let field = |number: usize| fields.get(number).and_then(|text| text.parse::<f64>().ok());
    let [faults, user, system] = [7, 11, 12].map(|number| field(number).unwrap_or(0.0));
    Ok(((user + system) * 10_000.0, faults))
}

/// wasmtime's own server; it ends when this is dropped.
struct Wasmtime {
    process: Child,
    port: u16,
}

impl Wasmtime {
    fn start(fixtures: &Fixtures) -> Result<Option<Self>> {
        let installed = Some(paths::target().join("peers/bin/wasmtime")).filter(|path| path.is_file());
        let Some(program) = installed.or_else(|| find("wasmtime")) else { return Ok(None) };
        let (component, code) = (fixtures.path("functions/handler.wasm"), paths::target().join("bench/handler.cwasm"));
        compile(&program, &component, &code)?;
        // Free just now.
        let port = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?.port();
        let mut command = tied(&program);
        command.args(["serve", "-S", "cli", "--allow-precompiled", "--addr", &format!("127.0.0.1:{port}")]);
        command.args(POOLING.iter().flat_map(|option| ["-O", option])).arg(&code);
        let process = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().context("cannot start wasmtime")?;
        let server = Self { process, port };
        let began = Instant::now();
        while TcpStream::connect((Ipv4Addr::LOCALHOST, port)).is_err() {
            anyhow::ensure!(began.elapsed() < LIMIT, "wasmtime serve does not listen");
            thread::sleep(Duration::from_millis(20));
        }
        Ok(Some(server))
    }
}

fn compile(program: &PathBuf, component: &Path, code: &Path) -> Result<()> {
    fs::create_dir_all(code.parent().context("a file without a folder")?)?;
    let mut command = bounded(program, LIMIT);
    run_command(command.args(["compile", "-O", "pooling-allocator=y"]).arg(component).arg("-o").arg(code)).map(drop)
}

impl Drop for Wasmtime {
    fn drop(&mut self) {
        // It may have ended by itself.
        drop(self.process.kill());
        drop(self.process.wait());
    }
}

#[cfg(test)]
mod tests {
    use super::{milliseconds, number_before};

    #[test]
    fn what_wrk_says_is_read() {
        assert_eq!(
            ["750.00us", "1.25ms", "1.50s", "x"].map(milliseconds),
            [Some(0.75), Some(1.25), Some(1500.0), None]
        );
        assert_eq!(number_before("  Thread\n  40240 requests in 4.00s, 5MB read", " requests in"), Some(40240.0));
    }
}
