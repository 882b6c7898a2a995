//! `amphora serve --demo`: a gateway with a function of each kind, its page, and how fast they answer.
//!
//! Needs no image and no network, and leaves nothing behind: its store is a temporary folder.

use std::{
    fmt::Write as _,
    io::{BufRead, BufReader, Read, Write},
    net::{SocketAddr, TcpStream},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail, ensure};

use super::{
    demo::{Stage, milliseconds, quantile, title},
    serve::find,
};
use crate::{
    cli::ServeArgs,
    lifecycle::built_in::FUNCTIONS,
    output::{self, errors},
    records::host::Host,
    serve::{self, Options, Source},
};

/// What is asked, and what it stands for.
const PATHS: [(&str, &str); 2] = [("/", "wasm"), ("/legacy", "linux")];
/// How long each is asked, and by how many at once.
const SECONDS: u64 = 3;
const CLIENTS: usize = 8;
/// For one answer.
const PATIENCE: Duration = Duration::from_secs(30);

/// `amphora serve --demo`.
pub(super) fn demo(args: &ServeArgs) -> Result<u8> {
    let stage = Stage::set()?;
    let served = play(&stage, args);
    let cleared = stage.clear();
    served.and(cleared.map(|()| 0))
}

fn play(stage: &Stage, args: &ServeArgs) -> Result<u8> {
    title(
        "Two functions: a static Linux executable that listens at $PORT, and a Wasm component that answers wasi:http",
    )?;
    stage.import_built_in("functions")?;
    let text = file(args);
    output::say(&text)?;
    let source = Source::File(stage.file("functions.toml", &text)?);
    let host = Host::open(Some(stage.root()), Some(stage.runroot()))?;
    let measure = |addresses: &[SocketAddr]| {
        let address = addresses.first().copied();
        // The gateway goes on beside it, and ends it when it ends.
        thread::spawn(move || {
            if let Err(error) = address.context("nobody listens").and_then(measure) {
                output::note(&format!("amphora serve: the demo cannot go on: {}", errors::sentence(&error)));
            }
        });
    };
    serve::run(host, Options { source, find, dev: args.dev, when_serving: Some(Box::new(measure)) })
}

/// What a user would write.
fn file(args: &ServeArgs) -> String {
    let or = |given: Option<&String>| given.map_or("127.0.0.1:0", String::as_str).to_owned();
    let (listen, admin) = (or(args.listen.first()), or(args.admin.as_ref()));
    let [linux, wasm] = FUNCTIONS;
    let mut text = String::new();
    _ = writeln!(text, "listen = [{listen:?}]\nadmin = {admin:?}\naccess_log = \"off\"\n");
    _ = writeln!(text, "[functions.wasm]\nimage = \"{wasm}\"\n");
    _ = writeln!(text, "[functions.linux]\nimage = \"{linux}\"\ncommand = [\"serve\", \"8080\"]\nmax = 2\n");
    _ = writeln!(text, "[[routes]]\nfunction = \"wasm\"\n\n[[routes]]\npath = \"/legacy\"\nfunction = \"linux\"");
    text
}

/// Asks both functions, first once and then for a while, and prints what came of it.
fn measure(address: SocketAddr) -> Result<()> {
    let mut table = vec![["FUNCTION", "FIRST ANSWER", "REQUESTS/S", "P50", "P99"].map(str::to_owned).to_vec()];
    for (path, name) in PATHS {
        let begin = Instant::now();
        Client::connect(address)?.get(path)?;
        let first = begin.elapsed();
        let mut times = load(address, path)?;
        times.sort_unstable();
        let rate = times.len() as u64 / SECONDS;
        let [p50, p99] = [0.5, 0.99].map(|share| milliseconds(quantile(&times, share)));
        table.push(vec![name.to_owned(), milliseconds(first), rate.to_string(), p50, p99]);
    }
    let about = format!(
        "{CLIENTS} clients for {SECONDS} s each, on this machine beside the gateway; the first answer includes the start"
    );
    title(&about)?;
    output::emit(&output::aligned(&table))?;
    output::say(&format!("\nIt goes on until it is ended (^C). Try: curl http://{address}/legacy"))
}

/// How long each request took.
fn load(address: SocketAddr, path: &'static str) -> Result<Vec<Duration>> {
    let until = Instant::now() + Duration::from_secs(SECONDS);
    let ask = move || -> Result<Vec<Duration>> {
        let (mut client, mut times) = (Client::connect(address)?, Vec::new());
        while Instant::now() < until {
            let begin = Instant::now();
            client.get(path)?;
            times.push(begin.elapsed());
        }
        Ok(times)
    };
    let clients: Vec<_> = (0..CLIENTS).map(|_| thread::spawn(ask)).collect();
    let mut times = Vec::new();
    for client in clients {
        // It does not panic.
        times.extend(client.join().ok().context("a client ended")??);
    }
    ensure!(!times.is_empty(), "no request was answered within {SECONDS} s");
    Ok(times)
}

/// A client that asks one thing after another on one connection.
struct Client(BufReader<TcpStream>);

impl Client {
    fn connect(address: SocketAddr) -> Result<Self> {
        let stream = TcpStream::connect(address).with_context(|| format!("cannot connect to {address}"))?;
        stream.set_read_timeout(Some(PATIENCE)).context("cannot wait for an answer")?;
        stream.set_nodelay(true).context("cannot use a socket")?;
        Ok(Self(BufReader::new(stream)))
    }

    /// An answer of 200, to its end.
    fn get(&mut self, path: &str) -> Result<()> {
        self.0.get_mut().write_all(format!("GET {path} HTTP/1.1\r\nhost: demo\r\n\r\n").as_bytes())?;
        let status = self.line()?;
        ensure!(status.starts_with("HTTP/1.1 200"), "{path} is answered with {status}");
        let (mut length, mut is_chunked) = (0, false);
        loop {
            let line = self.line()?.to_ascii_lowercase();
            match line.split_once(": ") {
                Some(("content-length", number)) => length = number.parse().context("a length is a number")?,
                Some(("transfer-encoding", _)) => is_chunked = true,
                Some(_) => {}
                None => break,
            }
        }
        if !is_chunked {
            return self.skip(length);
        }
        loop {
            let size = u64::from_str_radix(&self.line()?, 16).context("a chunk's size is a number")?;
            self.skip(size + 2)?;
            if size == 0 {
                return Ok(());
            }
        }
    }

    fn line(&mut self) -> Result<String> {
        let mut line = String::new();
        if self.0.read_line(&mut line)? == 0 {
            bail!("the connection was closed");
        }
        Ok(line.trim_end().to_owned())
    }

    fn skip(&mut self, bytes: u64) -> Result<()> {
        let skipped = std::io::copy(&mut self.0.by_ref().take(bytes), &mut std::io::sink())?;
        ensure!(skipped == bytes, "an answer broke off");
        Ok(())
    }
}
