//! A container's output, kept.
//!
//! Each line is `TIMESTAMP STREAM TAG TEXT`, where the tag is `F` for a full line and `P` for a part of one: the format
//! of the Kubernetes container runtime interface, so that its tools can read it. A log that would grow over its bound is moved to
//! `log.1`, and that to `log.2`, as many as are wanted; the last one goes: an endless writer fills a bounded space.

use std::{
    fs::{File, OpenOptions},
    io::{self, BufRead, BufReader, ErrorKind, Read, Seek, SeekFrom, Write},
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result};

use super::journal::{self, Journal};
use crate::{
    output,
    records::container::Container,
    spec::logging::{LogDriver, LogSpec},
};

/// Longest text of one entry.
const MAX_TEXT: usize = 16 << 10;

/// Which stream a line came from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Stream {
    Stdout,
    Stderr,
}

impl Stream {
    fn name(self) -> &'static str {
        match self {
            Stream::Stdout => "stdout",
            Stream::Stderr => "stderr",
        }
    }

    /// For sentences.
    pub(crate) fn title(self) -> &'static str {
        match self {
            Stream::Stdout => "standard output",
            Stream::Stderr => "standard error",
        }
    }
}

/// Where a container's log is, how much of it is kept, and who gets it besides.
pub(crate) struct Log {
    path: PathBuf,
    spec: LogSpec,
    journal: Option<Journal>,
}

impl Log {
    /// Opens nothing on disk yet.
    ///
    /// # Errors
    /// The host's journal is to have it, and there is none.
    pub(crate) fn of(container: &Container) -> Result<Self> {
        let spec = &container.spec.log;
        let is_told = spec.driver == LogDriver::Journald;
        let journal = is_told.then(|| Journal::open(journal::SOCKET.as_ref(), &container.spec)).transpose()?;
        Ok(Self { path: container.log_path(), spec: spec.clone(), journal })
    }

    /// Continues it, or begins it.
    pub(crate) fn open(self) -> Result<LogWriter> {
        let writer = LogWriter::open(self.path.clone(), &self.spec);
        let writer = writer.with_context(|| format!("cannot open {}", self.path.display()))?;
        Ok(LogWriter { journal: self.journal, ..writer })
    }
}

/// Appends to a log.
pub(crate) struct LogWriter {
    path: PathBuf,
    file: File,
    written: u64,
    max_bytes: u64,
    max_files: u32,
    entry: Vec<u8>,
    journal: Option<Journal>,
}

impl LogWriter {
    /// Continues the log at `path`, or begins it.
    fn open(path: PathBuf, spec: &LogSpec) -> io::Result<Self> {
        let file = OpenOptions::new().append(true).create(true).open(&path)?;
        let written = file.metadata()?.len();
        let LogSpec { max_bytes, max_files, .. } = *spec;
        Ok(Self { path, file, written, max_bytes, max_files, entry: Vec::new(), journal: None })
    }

    /// One read's worth of output: whole lines, and at its end perhaps a part of one.
    pub(crate) fn write(&mut self, stream: Stream, bytes: &[u8]) -> io::Result<()> {
        let now = output::rfc3339(output::now_nanos());
        for line in bytes.split_inclusive(|&byte| byte == b'\n') {
            for text in line.chunks(MAX_TEXT) {
                self.write_entry(&now, stream, text)?;
            }
        }
        Ok(())
    }

    fn write_entry(&mut self, now: &str, stream: Stream, text: &[u8]) -> io::Result<()> {
        let (tag, text) = match text.strip_suffix(b"\n") {
            Some(text) => ('F', text),
            None => ('P', text),
        };
        if let Some(journal) = &mut self.journal {
            journal.send(stream, tag == 'F', text);
        }
        self.entry.clear();
        write!(self.entry, "{now} {} {tag} ", stream.name())?;
        self.entry.extend_from_slice(text);
        self.entry.push(b'\n');
        if self.written + self.entry.len() as u64 > self.max_bytes {
            self.rotate()?;
        }
        self.file.write_all(&self.entry)?;
        self.written += self.entry.len() as u64;
        Ok(())
    }

    fn rotate(&mut self) -> io::Result<()> {
        // The file that is written counts too.
        for number in (1..self.max_files.saturating_sub(1)).rev() {
            match std::fs::rename(numbered(&self.path, number), numbered(&self.path, number + 1)) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => {}
            }
        }
        match self.max_files {
            // Who follows it has it open, and reads it to its end.
            0 | 1 => std::fs::remove_file(&self.path)?,
            _ => std::fs::rename(&self.path, numbered(&self.path, 1))?,
        }
        self.file = OpenOptions::new().append(true).create_new(true).open(&self.path)?;
        self.written = 0;
        Ok(())
    }
}

/// `log.1` is what was written before `log`.
fn numbered(path: &Path, number: u32) -> PathBuf {
    path.with_extension(number.to_string())
}

/// The older files that there are, the oldest first.
fn older(path: &Path) -> Vec<PathBuf> {
    let mut found: Vec<PathBuf> = (1..).map(|number| numbered(path, number)).take_while(|path| path.exists()).collect();
    found.reverse();
    found
}

/// One entry, parsed.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Entry<'a> {
    pub(crate) timestamp: &'a str,
    pub(crate) stream: Stream,
    /// Whether a newline followed.
    pub(crate) full: bool,
    pub(crate) text: &'a [u8],
}

/// Parses an entry without its newline; None if it is none.
pub(crate) fn parse(line: &[u8]) -> Option<Entry<'_>> {
    let mut fields = line.splitn(4, |&byte| byte == b' ');
    let timestamp = std::str::from_utf8(fields.next()?).ok()?;
    let stream = match fields.next()? {
        b"stdout" => Stream::Stdout,
        b"stderr" => Stream::Stderr,
        _ => return None,
    };
    let full = match fields.next()? {
        b"F" => true,
        b"P" => false,
        _ => return None,
    };
    Some(Entry { timestamp, stream, full, text: fields.next()? })
}

/// Reads a log from its beginning, then on as it grows and rotates.
pub(crate) struct LogReader {
    path: PathBuf,
    /// To be read before the current one, the oldest last.
    older: Vec<File>,
    current: Option<BufReader<File>>,
    line: Vec<u8>,
}

impl LogReader {
    /// A log that is not there (yet) is empty.
    pub(crate) fn open(path: PathBuf) -> io::Result<Self> {
        let mut files: Vec<File> = Vec::new();
        for path in older(&path).iter().chain([&path]) {
            // What was moved meanwhile is met under its next name too.
            let inode = |file: &File| file.metadata().map(|found| found.ino()).ok();
            files.extend(open_if_there(path)?.filter(|file| files.iter().all(|other| inode(other) != inode(file))));
        }
        files.reverse();
        let current = files.pop().map(BufReader::new);
        Ok(Self { path, older: files, current, line: Vec::new() })
    }

    /// Only what is written from now on.
    pub(crate) fn open_at_end(path: PathBuf) -> io::Result<Self> {
        let mut current = open_if_there(&path)?.map(BufReader::new);
        if let Some(current) = &mut current {
            current.seek(SeekFrom::End(0))?;
        }
        Ok(Self { path, older: Vec::new(), current, line: Vec::new() })
    }

    /// Opens the log if there was none.
    pub(crate) fn reopen_if_new(&mut self) -> io::Result<()> {
        if self.current.is_none() {
            self.current = open_if_there(&self.path)?.map(BufReader::new);
        }
        Ok(())
    }

    /// Whether there is a log.
    pub(crate) fn is_there(&self) -> bool {
        self.current.is_some()
    }

    /// The next whole entry; None when there is none yet.
    pub(crate) fn next(&mut self) -> io::Result<Option<&[u8]>> {
        self.reopen_if_new()?;
        loop {
            self.line.clear();
            let Some(current) = &mut self.current else { return Ok(None) };
            if read_line(current, &mut self.line)? {
                return Ok(Some(trimmed(&self.line)));
            }
            let next = match self.older.pop() {
                Some(next) => Some(next),
                None => self.after_current()?,
            };
            let Some(next) = next else { return Ok(None) };
            // What was written to it since we were at its end.
            if let Some(current) = &mut self.current
                && read_line(current, &mut self.line)?
            {
                self.older.push(next);
                return Ok(Some(trimmed(&self.line)));
            }
            self.current = Some(BufReader::new(next));
        }
    }

    /// The file that follows the current one, which has been moved away: the one before it in name, or if it is gone the oldest.
    fn after_current(&self) -> io::Result<Option<File>> {
        let (Some(current), Ok(named)) = (&self.current, std::fs::metadata(&self.path)) else { return Ok(None) };
        let own = current.get_ref().metadata()?.ino();
        if own == named.ino() {
            return Ok(None);
        }
        let mut files = Vec::new();
        for path in older(&self.path).iter().chain([&self.path]) {
            files.extend(open_if_there(path)?);
        }
        let place = files.iter().position(|file| file.metadata().is_ok_and(|found| found.ino() == own));
        let next = place.map_or(0, |place| place + 1);
        Ok(files.into_iter().nth(next))
    }
}

fn open_if_there(path: &Path) -> io::Result<Option<File>> {
    match File::open(path) {
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        other => other.map(Some),
    }
}

/// Whether a whole line came. Entries are appended by one write(2) each, so that half a line is seen only when the disk is full.
fn read_line(reader: &mut BufReader<File>, line: &mut Vec<u8>) -> io::Result<bool> {
    reader.by_ref().take(MAX_TEXT as u64 * 2).read_until(b'\n', line)?;
    Ok(line.last() == Some(&b'\n'))
}

fn trimmed(line: &[u8]) -> &[u8] {
    line.strip_suffix(b"\n").unwrap_or(line)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn texts(reader: &mut LogReader) -> Vec<String> {
        let mut all = Vec::new();
        while let Some(line) = reader.next().expect("readable") {
            let entry = parse(line).expect("an entry");
            all.push(format!("{:?} {} {}", entry.stream, entry.full, String::from_utf8_lossy(entry.text)));
        }
        all
    }

    #[test]
    fn lines_and_parts_come_back_as_written() {
        let dir = tempfile::tempdir().expect("a folder");
        let mut writer = LogWriter::open(dir.path().join("log"), &LogSpec::default()).expect("a log");
        let mut reader = LogReader::open(dir.path().join("log")).expect("a log");
        writer.write(Stream::Stdout, b"one\ntwo\nthr").expect("written");
        writer.write(Stream::Stderr, b"\xff\n\n").expect("written");
        assert_eq!(
            texts(&mut reader),
            ["Stdout true one", "Stdout true two", "Stdout false thr", "Stderr true \u{fffd}", "Stderr true "]
        );
    }

    #[test]
    fn an_endless_writer_fills_two_files_at_most_and_a_reader_follows() {
        let dir = tempfile::tempdir().expect("a folder");
        let mut writer = LogWriter::open(dir.path().join("log"), &LogSpec::default()).expect("a log");
        let mut reader = LogReader::open(dir.path().join("log")).expect("a log");
        let chunk = vec![b'x'; 1 << 20];
        for _ in 0..40 {
            writer.write(Stream::Stdout, &chunk).expect("written");
        }
        let sizes = std::fs::read_dir(dir.path()).expect("listed").map(|e| e.expect("e").metadata().expect("m").len());
        let sizes: Vec<u64> = sizes.collect();
        assert_eq!(sizes.len(), 2);
        assert!(sizes.iter().all(|&size| size <= LogSpec::default().max_bytes), "{sizes:?}");
        assert!(!texts(&mut reader).is_empty());
    }

    /// It lost what was written between its last look and the rotation, and all of the older files but one.
    #[test]
    fn a_reader_who_keeps_up_loses_nothing_to_rotations() {
        for max_files in [1, 2, 3, 5] {
            let dir = tempfile::tempdir().expect("a folder");
            let spec = LogSpec { max_bytes: 200, max_files, ..LogSpec::default() };
            let mut writer = LogWriter::open(dir.path().join("log"), &spec).expect("a log");
            let mut reader = LogReader::open(dir.path().join("log")).expect("a log");
            let mut seen = Vec::new();
            for number in 0..100 {
                writer.write(Stream::Stdout, format!("{number}\n").as_bytes()).expect("written");
                // Looks now and then, at most a file behind.
                if number % 3 == 0 {
                    seen.extend(texts(&mut reader));
                }
            }
            seen.extend(texts(&mut reader));
            let all: Vec<String> = (0..100).map(|number| format!("Stdout true {number}")).collect();
            assert_eq!(seen, all, "{max_files} files");
            let files = std::fs::read_dir(dir.path()).expect("listed").count();
            assert_eq!(files, max_files as usize);
            // Who comes later reads all files, in their order.
            let late = texts(&mut LogReader::open(dir.path().join("log")).expect("a log"));
            assert_eq!(late, all[100 - late.len()..], "{max_files} files");
            assert!(late.len() >= 2 * (max_files as usize - 1), "{late:?}");
        }
    }

    #[test]
    fn what_is_no_entry_is_not_parsed() {
        for line in ["", "x", "t stdout F", "t stdin F x", "t stdout Q x"] {
            assert_eq!(parse(line.as_bytes()), None, "{line:?}");
        }
    }
}
