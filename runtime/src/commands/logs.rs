//! `logs`.

use std::{
    collections::VecDeque,
    io::{self, Write},
    time::Duration,
};

use anyhow::{Context, Result};

use super::find;
use crate::{
    cli::{LogsArgs, Tail},
    lifecycle::log::{Entry, LogReader, Stream, parse},
    output,
    records::{container::Container, host::Host},
};

/// How often a followed log is looked at.
const POLL: Duration = Duration::from_millis(50);

/// `amphora logs`.
pub(crate) fn logs(host: &Host, args: &LogsArgs) -> Result<u8> {
    let container = find(host, &args.container)?;
    let path = container.log_path();
    let mut reader = LogReader::open(path.clone()).with_context(|| format!("cannot open {}", path.display()))?;
    let window = Window::parse(args)?;
    let written = print_backlog(&mut reader, args, &window).and_then(|()| match args.follow {
        true => follow(&mut reader, &container, args, &window),
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

    fn contains(&self, timestamp: &str) -> bool {
        self.since.as_deref().is_none_or(|since| timestamp >= since)
            && self.until.as_deref().is_none_or(|until| timestamp < until)
    }
}

fn print_backlog(reader: &mut LogReader, args: &LogsArgs, window: &Window) -> Result<()> {
    let mut output = Output::new(args.timestamps);
    let Tail::Last(count) = args.tail else {
        while let Some(line) = reader.next()? {
            output.print(line, window)?;
        }
        return output.flush();
    };
    let mut last: VecDeque<Vec<u8>> = VecDeque::new();
    while let Some(line) = reader.next()? {
        last.push_back(line.to_vec());
        if last.len() > count {
            last.pop_front();
        }
    }
    last.iter().try_for_each(|line| output.print(line, window))?;
    output.flush()
}

/// Until the container has ended and all that it wrote has been shown.
fn follow(reader: &mut LogReader, container: &Container, args: &LogsArgs, window: &Window) -> Result<()> {
    let mut output = Output::new(args.timestamps);
    loop {
        // Asked before reading: what is written before the end is read after it.
        let running = container.status().is_ok_and(|status| status.is_up());
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

struct Output {
    stdout: io::BufWriter<io::Stdout>,
    stderr: io::Stderr,
    timestamps: bool,
}

impl Output {
    fn new(timestamps: bool) -> Self {
        Self { stdout: io::BufWriter::new(io::stdout()), stderr: io::stderr(), timestamps }
    }

    fn print(&mut self, line: &[u8], window: &Window) -> Result<()> {
        let Some(Entry { timestamp, stream, full, text }) = parse(line) else { return Ok(()) };
        if !window.contains(timestamp) {
            return Ok(());
        }
        let mut whole = Vec::with_capacity(text.len() + 40);
        if self.timestamps {
            whole.extend_from_slice(timestamp.as_bytes());
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
