//! Lines of JSON, one for each request, written by a thread of its own: a disk that is full or a reader who does not read holds up no
//! request.

use std::{
    convert::Infallible,
    fs::{File, OpenOptions},
    io::{self, Write},
    os::{fd::AsFd, unix::fs::OpenOptionsExt},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering::Relaxed},
        mpsc::{self, Receiver, SyncSender, sync_channel},
    },
    thread,
    time::Duration,
};

use anyhow::{Context, Result};
use serde::Serialize;

use super::config;
use crate::output;

/// Lines that wait for the writer; what comes then is counted and lost.
const WAITING: usize = 4096;

/// For the lines that wait at the end.
const ENDS_WITHIN: Duration = Duration::from_secs(2);

/// Where they go.
pub(super) struct AccessLog {
    /// None: nobody reads them, or nobody does any more.
    writer: Mutex<Option<Writer>>,
    lost: Arc<AtomicU64>,
}

struct Writer {
    lines: SyncSender<Vec<u8>>,
    /// Closed when the last line is written.
    ended: Receiver<Infallible>,
}

impl AccessLog {
    pub(super) fn open(to: &config::AccessLog) -> Result<Self> {
        let lost = Arc::default();
        let sink = match to {
            config::AccessLog::Off => return Ok(Self { writer: Mutex::new(None), lost }),
            // Not by the library's buffer, which keeps what cannot be written and puts it before a later line.
            config::AccessLog::Stdout => {
                File::from(io::stdout().as_fd().try_clone_to_owned().context("cannot copy standard output")?)
            }
            config::AccessLog::File(path) => {
                let file = OpenOptions::new().append(true).create(true).mode(0o600).open(path);
                file.with_context(|| format!("cannot open the access log {}", path.display()))?
            }
        };
        let writer = Some(Writer::begin(sink, Arc::clone(&lost))?);
        Ok(Self { writer: Mutex::new(writer), lost })
    }

    /// Whether lines are written.
    pub(super) fn is_on(&self) -> bool {
        self.lock().is_some()
    }

    pub(super) fn write(&self, line: &impl Serialize) {
        let Ok(text) = serde_json::to_string(line) else { return };
        // Paths and hosts are the client's, and somebody may read this on a terminal.
        let text = format!("{}\n", output::harmless_json(&text));
        let writer = self.lock();
        if writer.as_ref().is_some_and(|writer| writer.lines.try_send(text.into_bytes()).is_err()) {
            self.lost.fetch_add(1, Relaxed);
        }
    }

    fn lock(&self) -> MutexGuard<'_, Option<Writer>> {
        self.writer.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Lines that nobody wrote, or not whole.
    pub(super) fn lost(&self) -> u64 {
        self.lost.load(Relaxed)
    }

    /// Waits for what is to be written, though not for a reader who does not read. What comes afterwards is not written.
    pub(super) fn end(&self) {
        let writer = self.lock().take();
        if let Some(Writer { lines, ended }) = writer {
            drop(lines);
            // Nothing is ever sent: it is closed, or it is late.
            _ = ended.recv_timeout(ENDS_WITHIN);
        }
    }
}

impl Writer {
    fn begin(sink: impl Write + Send + 'static, lost: Arc<AtomicU64>) -> Result<Self> {
        let (lines, waiting) = sync_channel(WAITING);
        let (goes_on, ended) = mpsc::channel();
        let write = move || {
            write_all(&waiting, sink, &lost);
            drop(goes_on);
        };
        thread::Builder::new()
            .name("access-log".to_owned())
            .spawn(write)
            .context("cannot start a thread for the access log")?;
        Ok(Self { lines, ended })
    }
}

/// Until nobody writes any more. What cannot be written is lost; the next line may find room.
fn write_all(lines: &Receiver<Vec<u8>>, mut sink: impl Write, lost: &AtomicU64) {
    let mut is_broken = false;
    while let Ok(mut line) = lines.recv() {
        if is_broken {
            // A part of the one before may be there, which this one must not be joined to.
            line.insert(0, b'\n');
        }
        is_broken = sink.write_all(&line).is_err();
        lost.fetch_add(u64::from(is_broken), Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What is full from time to time.
    struct Disk {
        text: Arc<Mutex<Vec<u8>>>,
        room: Vec<usize>,
    }

    impl Write for Disk {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            let room = if self.room.is_empty() { usize::MAX } else { self.room.remove(0) };
            if room == 0 {
                return Err(io::ErrorKind::StorageFull.into());
            }
            let length = room.min(bytes.len());
            self.text.lock().unwrap().extend(&bytes[..length]);
            Ok(length)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn what_a_full_disk_takes_is_counted_and_joins_no_other_line() {
        let text = Arc::default();
        // The second line breaks off after two bytes, of the third one there is none.
        let disk = Disk { text: Arc::clone(&text), room: vec![100, 2, 0, 0] };
        let lost = Arc::default();
        let writer = Writer::begin(disk, Arc::clone(&lost)).unwrap();
        let log = AccessLog { writer: Mutex::new(Some(writer)), lost };
        (1000..=1004).for_each(|number| log.write(&number));
        // All that was written is there when it has ended.
        log.end();
        assert_eq!(String::from_utf8_lossy(&text.lock().unwrap()), "1000\n10\n1003\n1004\n");
        assert_eq!(log.lost(), 2);
        log.write(&1005);
        assert_eq!(log.lost(), 2);
    }
}
