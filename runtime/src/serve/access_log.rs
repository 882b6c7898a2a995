//! Lines of JSON, one for each request, written by a thread of its own: a disk that is full or a reader who does not read holds up no
//! request.

use std::{
    fs::OpenOptions,
    io::{self, Write},
    os::unix::fs::OpenOptionsExt,
    sync::{
        atomic::{AtomicU64, Ordering::Relaxed},
        mpsc::{Receiver, SyncSender, sync_channel},
    },
    thread,
};

use anyhow::{Context, Result};
use serde::Serialize;

use super::config;
use crate::output;

/// Lines that wait for the writer; what comes then is counted and lost.
const WAITING: usize = 4096;

/// Where they go.
pub(super) struct AccessLog {
    lines: Option<SyncSender<Vec<u8>>>,
    lost: AtomicU64,
}

impl AccessLog {
    pub(super) fn open(to: &config::AccessLog) -> Result<Self> {
        let sink: Box<dyn Write + Send> = match to {
            config::AccessLog::Off => return Ok(Self { lines: None, lost: AtomicU64::new(0) }),
            config::AccessLog::Stdout => Box::new(io::stdout()),
            config::AccessLog::File(path) => {
                let file = OpenOptions::new().append(true).create(true).mode(0o600).open(path);
                Box::new(file.with_context(|| format!("cannot open the access log {}", path.display()))?)
            }
        };
        let (lines, waiting) = sync_channel(WAITING);
        thread::Builder::new()
            .name("access-log".to_owned())
            .spawn(move || write_all(&waiting, sink))
            .context("cannot start a thread for the access log")?;
        Ok(Self { lines: Some(lines), lost: AtomicU64::new(0) })
    }

    pub(super) fn write(&self, line: &impl Serialize) {
        let Some(lines) = &self.lines else { return };
        let Ok(text) = serde_json::to_string(line) else { return };
        // Paths and hosts are the client's, and somebody may read this on a terminal.
        let text = format!("{}\n", output::harmless_json(&text));
        if lines.try_send(text.into_bytes()).is_err() {
            self.lost.fetch_add(1, Relaxed);
        }
    }

    /// Lines that nobody wrote.
    pub(super) fn lost(&self) -> u64 {
        self.lost.load(Relaxed)
    }
}

/// Until nobody writes any more. What cannot be written is lost; the next line may find room.
fn write_all(lines: &Receiver<Vec<u8>>, mut sink: Box<dyn Write + Send>) {
    while let Ok(line) = lines.recv() {
        _ = sink.write_all(&line).and_then(|()| sink.flush());
    }
}
