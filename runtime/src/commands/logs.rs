//! `logs`.

use std::{
    collections::VecDeque,
    io::{self, Write},
    time::Duration,
};

use anyhow::{Context, Result, bail};

use super::find;
use crate::{
    cli::{LogsArgs, Tail},
    lifecycle::log::{Entry, LogReader, Stream, parse},
    output::{self, errors::Coded},
    records::{container::Container, host::Host},
    spec::{RunSpec, logging::LogDriver},
};

/// How often a followed log is looked at.
const POLL: Duration = Duration::from_millis(50);

/// `amphora logs`.
pub(crate) fn logs(host: &Host, args: &LogsArgs) -> Result<u8> {
    let container = find(host, &args.container)?;
    if container.spec.log.driver == LogDriver::None {
        bail!(Coded::new(1, "configured logging driver does not support reading (--log-driver none)"));
    }
    let path = container.log_path();
    let mut reader = LogReader::open(path.clone()).with_context(|| format!("cannot open {}", path.display()))?;
    let window = Window::parse(args)?;
    let mut output = Output::new(args, &container.spec);
    let written = print_backlog(&mut reader, args, &window, &mut output).and_then(|()| match args.follow {
        true => follow(&mut reader, &container, &window, &mut output),
        false => Ok(()),
    });
    match written {
        // The reader of a pipe has gone away, as `| head` does.
        Err(error) if error.downcast_ref::<io::Error>().is_some_and(|e| e.kind() == io::ErrorKind::BrokenPipe) => Ok(0),
        other => other.map(|()| 0).with_context(|| format!("cannot show the log of container {}", container.spec.name)),
    }
}

/// `--since` and `--until`, as timestamps that compare as text.
struct Window {
    since: Option<String>,
    until: Option<String>,
}

impl Window {
    fn parse(args: &LogsArgs) -> Result<Self> {
        let now = output::now_nanos();
        let bound = |flag: &str, text: &Option<String>| -> Result<Option<String>> {
            let parse = |text| output::parse_moment(text, now).with_context(|| format!("cannot use {flag}"));
            Ok(text.as_deref().map(parse).transpose()?.map(output::rfc3339))
        };
        Ok(Self { since: bound("--since", &args.since)?, until: bound("--until", &args.until)? })
    }

    /// Whether nothing more can come.
    fn is_over(&self) -> bool {
        self.until.as_ref().is_some_and(|until| output::rfc3339(output::now_nanos()) > *until)
    }

    fn contains(&self, timestamp: &str) -> bool {
        self.since.as_deref().is_none_or(|since| timestamp >= since)
            && self.until.as_deref().is_none_or(|until| timestamp < until)
    }
}

fn print_backlog(reader: &mut LogReader, args: &LogsArgs, window: &Window, output: &mut Output) -> Result<()> {
    let Tail::Last(count) = args.tail else {
        while let Some(line) = reader.next()? {
            output.print(line, window)?;
        }
        return output.flush();
    };
    let mut last: VecDeque<Vec<u8>> = VecDeque::new();
    let mut lines = 0;
    while let Some(line) = reader.next()? {
        let is_shown = parse(line).is_some_and(|entry| window.contains(entry.timestamp));
        if !is_shown {
            continue;
        }
        // What came in parts is one line.
        let begins = last.back().is_none_or(|last| parse(last).is_some_and(|entry| entry.full));
        last.push_back(line.to_vec());
        lines += usize::from(begins);
        while lines > count {
            let full = last.pop_front().is_none_or(|first| parse(&first).is_some_and(|entry| entry.full));
            lines -= usize::from(full || last.is_empty());
        }
    }
    last.iter().try_for_each(|line| output.print(line, window))?;
    output.flush()
}

/// Until the container has ended and all that it wrote has been shown.
fn follow(reader: &mut LogReader, container: &Container, window: &Window, output: &mut Output) -> Result<()> {
    loop {
        // Asked before reading: what is written before the end is read after it.
        let running = container.status().is_ok_and(|status| status.is_up()) && !window.is_over();
        while let Some(line) = reader.next()? {
            output.print(line, window)?;
        }
        output.flush()?;
        if !running {
            return Ok(());
        }
        std::thread::sleep(POLL);
    }
}

/// As Docker shows them: `a=b,c=d`, escaped as in the query of an address.
fn details(spec: &RunSpec) -> String {
    let pairs = spec.log.details.of(spec);
    let pairs = pairs.iter().map(|(name, value)| format!("{}={}", escaped(name), escaped(value)));
    pairs.collect::<Vec<_>>().join(",")
}

fn escaped(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for byte in text.bytes() {
        match byte {
            b' ' => escaped.push('+'),
            byte if byte.is_ascii_alphanumeric() || b"-_.~".contains(&byte) => escaped.push(char::from(byte)),
            byte => escaped.push_str(&format!("%{byte:02X}")),
        }
    }
    escaped
}

struct Output {
    stdout: io::BufWriter<io::Stdout>,
    stderr: io::Stderr,
    timestamps: bool,
    /// What is said of the container before each line.
    details: Option<String>,
    /// Whether the last entry of each stream was a part of a line, which goes on.
    goes_on: [bool; 2],
}

impl Output {
    fn new(args: &LogsArgs, spec: &RunSpec) -> Self {
        let (stdout, stderr) = (io::BufWriter::new(io::stdout()), io::stderr());
        let details = args.details.then(|| details(spec));
        Self { stdout, stderr, timestamps: args.timestamps, details, goes_on: [false; 2] }
    }

    fn print(&mut self, line: &[u8], window: &Window) -> Result<()> {
        let Some(Entry { timestamp, stream, full, text }) = parse(line) else { return Ok(()) };
        if !window.contains(timestamp) {
            return Ok(());
        }
        let mut whole = Vec::with_capacity(text.len() + 40);
        let goes_on = &mut self.goes_on[usize::from(stream == Stream::Stderr)];
        let begins = !std::mem::replace(goes_on, !full);
        if self.timestamps && begins {
            whole.extend_from_slice(timestamp.as_bytes());
            whole.push(b' ');
        }
        if let Some(details) = self.details.as_ref().filter(|_| begins) {
            whole.extend_from_slice(details.as_bytes());
            whole.push(b' ');
        }
        whole.extend_from_slice(text);
        if full {
            whole.push(b'\n');
        }
        match stream {
            Stream::Stdout => self.stdout.write_all(&whole)?,
            Stream::Stderr => {
                self.stdout.flush()?;
                self.stderr.write_all(&whole)?;
            }
        }
        Ok(())
    }

    fn flush(&mut self) -> Result<()> {
        Ok(self.stdout.flush()?)
    }
}
