//! An archive's members by name: files of a directory, or sections of a tar file.

use super::{ArchiveError, input};
use crate::{
    Budget, Store,
    budget::{Hold, Limits},
    unpack::{Compression, Entries, HEAD_LENGTH, Kind, Source as TarSource, decompress, names},
};
use rustix::{
    fs::{Mode, OFlags, ResolveFlags, openat2},
    io::Errno,
};
use std::{
    collections::HashMap,
    fs::File,
    io::{self, Read, Seek, SeekFrom},
    os::{fd::OwnedFd, unix::fs::FileExt},
    path::Path,
};

/// Documents (index, manifests, configs) are read into memory; real ones have a few KiB.
const DOCUMENT_BYTES: u64 = 8 << 20;
/// Links followed to find a member.
const LINKS: usize = 8;
/// What a member of an archive costs in memory besides its name.
const MEMBER_BYTES: usize = 160;
/// What is charged, for messages.
const HELD: &str = "the names of its members";
const DOCUMENTS: &str = "its documents";
/// What is read ahead for headers.
const WINDOW: usize = 4096;

/// An archive that is open.
pub(super) struct Source {
    /// For messages.
    pub(super) name: String,
    /// Of all that is loaded from it.
    pub(super) budget: Budget,
    members: Members,
}

/// A document in memory.
pub(super) struct Document {
    pub(super) bytes: Vec<u8>,
    /// Its bytes, and what they take when parsed.
    _held: Hold,
}

enum Members {
    Directory(OwnedFd),
    Tar { file: File, members: HashMap<String, Member>, _held: Hold },
}

/// What a tar archive has under a name.
enum Member {
    Section { offset: u64, size: u64 },
    Link(String),
}

impl Source {
    pub(super) fn open(store: &Store, path: &Path) -> Result<Self, ArchiveError> {
        let name = if path == Path::new("-") { "standard input".to_owned() } else { path.display().to_string() };
        let budget = Budget::default();
        if path.is_dir() {
            let flags = OFlags::DIRECTORY | OFlags::PATH | OFlags::CLOEXEC;
            let opened = rustix::fs::open(path, flags, Mode::empty());
            let folder = opened.map_err(|error| ArchiveError::Read { archive: name.clone(), source: error.into() })?;
            return Ok(Self { name, budget, members: Members::Directory(folder) });
        }
        let opened = open_seekable(store, path, &budget).and_then(|file| plain(store, file, &budget));
        let file = opened.map_err(|source| ArchiveError::Read { archive: name.clone(), source })?;
        let (members, held) =
            index(&file, &budget).map_err(|source| ArchiveError::Read { archive: name.clone(), source })?;
        Ok(Self { name, budget, members: Members::Tar { file, members, _held: held } })
    }

    pub(super) fn has(&self, member: &str) -> bool {
        match &self.members {
            Members::Directory(folder) => open_beneath(folder, member).is_ok(),
            Members::Tar { members, .. } => find(members, member).is_some(),
        }
    }

    /// A member's content, as a stream.
    pub(super) fn stream(&self, member: &str, needed_by: &str) -> Result<Box<dyn Read + Send + '_>, ArchiveError> {
        let missing = || ArchiveError::Missing {
            archive: self.name.clone(),
            member: member.to_owned(),
            needed_by: needed_by.to_owned(),
        };
        match &self.members {
            Members::Directory(folder) => match open_beneath(folder, member) {
                Ok(file) => Ok(Box::new(file)),
                Err(error) if error.kind() == io::ErrorKind::NotFound => Err(missing()),
                Err(source) => Err(ArchiveError::Read { archive: format!("`{member}` in {}", self.name), source }),
            },
            Members::Tar { file, members, .. } => {
                let (offset, left) = find(members, member).ok_or_else(missing)?;
                Ok(Box::new(Section { file, offset, left }))
            }
        }
    }

    /// A member's whole content, JSON; bounded.
    pub(super) fn document(&self, member: &str, needed_by: &str) -> Result<Document, ArchiveError> {
        let mut bytes = Vec::new();
        let read = self.stream(member, needed_by)?.take(DOCUMENT_BYTES + 1).read_to_end(&mut bytes);
        read.map_err(|source| ArchiveError::Read { archive: format!("`{member}` in {}", self.name), source })?;
        if bytes.len() as u64 > DOCUMENT_BYTES {
            return Err(
                self.malformed(member, format!("it is larger than {DOCUMENT_BYTES} bytes, which no real one is"))
            );
        }
        let charged = self.budget.document(&bytes, DOCUMENTS);
        let held = charged.map_err(|bound| self.malformed(member, bound.to_string()))?;
        Ok(Document { bytes, _held: held })
    }

    pub(super) fn malformed(&self, member: &str, reason: String) -> ArchiveError {
        ArchiveError::Malformed { archive: self.name.clone(), member: member.to_owned(), reason }
    }
}

/// Opens a plain file beneath a directory that somebody else made: no links, no way out, no waiting for a FIFO.
fn open_beneath(folder: &OwnedFd, member: &str) -> io::Result<File> {
    let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::NOCTTY;
    let within = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS;
    let refused = |error: Errno| match error {
        Errno::XDEV => io::Error::other("it lies outside the directory; the files of a layout lie in it"),
        Errno::LOOP => io::Error::other("it is, or is reached by, a symbolic link; a layout has plain files"),
        other => other.into(),
    };
    let file = File::from(openat2(folder, member, flags, Mode::empty(), within).map_err(refused)?);
    if !file.metadata()?.is_file() {
        return Err(io::Error::other("it is no plain file, as those of a layout are"));
    }
    Ok(file)
}

/// Opens a file, or standard input for `-`; what cannot be sought through is copied into an unnamed file.
pub(crate) fn open_seekable(store: &Store, path: &Path, budget: &Budget) -> io::Result<File> {
    let file = input::open(path)?;
    if file.metadata()?.is_file() {
        return Ok(file);
    }
    spool(store, &mut *input::worth_copying(input::Pipe { file, budget: budget.clone() })?)
}

/// The same file if it is not compressed, else an unnamed one with what is in it.
fn plain(store: &Store, mut file: File, budget: &Budget) -> io::Result<File> {
    file.rewind()?;
    let mut first = Vec::new();
    file.by_ref().take(HEAD_LENGTH as u64).read_to_end(&mut first)?;
    file.rewind()?;
    match Compression::of(&first) {
        Compression::None => Ok(file),
        _ => spool(store, &mut decompress(Box::new(file), budget)?),
    }
}

/// Copies a stream into a file that has no name and goes when it is closed, also after a kill.
fn spool(store: &Store, stream: &mut dyn Read) -> io::Result<File> {
    let mut file = tempfile::tempfile_in(&store.root)?;
    let limit = Limits::default().unpacked_bytes;
    if io::copy(&mut stream.take(limit + 1), &mut file)? > limit {
        let text = format!("it has more than {limit} bytes after decompression, which is the bound for an archive");
        return Err(io::Error::new(io::ErrorKind::FileTooLarge, text));
    }
    file.rewind()?;
    Ok(file)
}

/// Where each member lies; of several with one name, the last. What is no tar archive has none.
fn index(file: &File, budget: &Budget) -> io::Result<(HashMap<String, Member>, Hold)> {
    let mut entries = Entries::new(Window::new(file)?);
    let too_large = |bound| io::Error::new(io::ErrorKind::FileTooLarge, bound);
    let mut members = HashMap::new();
    let mut held = budget.hold(0, HELD).map_err(too_large)?;
    loop {
        let entry = match entries.next() {
            Ok(Some(entry)) => entry,
            Ok(None) => break,
            Err(_) if members.is_empty() => break,
            Err(error) => return Err(io::Error::other(error)),
        };
        budget.entries(1).map_err(too_large)?;
        let Ok(name) = names::clean(&entry.path) else { continue };
        let member = match entry.kind {
            Kind::File if entry.sparse.is_none() => Member::Section { offset: entries.source().at, size: entry.size },
            Kind::HardLink => Member::Link(normal(b"", &entry.link)),
            Kind::Symlink => Member::Link(normal(names::split(&name).0, &entry.link)),
            _ => continue,
        };
        // A byte that is no UTF-8 becomes three.
        let bytes = (name.len() + entry.link.len()) * 3 + MEMBER_BYTES;
        held.grow(bytes as u64, HELD).map_err(too_large)?;
        members.insert(String::from_utf8_lossy(&name).into_owned(), member);
    }
    Ok((members, held))
}

/// A link's target as a name in the archive.
fn normal(directory: &[u8], target: &[u8]) -> String {
    let mut path: Vec<&[u8]> =
        if target.starts_with(b"/") { Vec::new() } else { names::components(directory).collect() };
    for component in names::components(target) {
        if component == b".." {
            path.pop();
        } else {
            path.push(component);
        }
    }
    String::from_utf8_lossy(&path.join(&b'/')).into_owned()
}

/// A member's offset and size, through links.
fn find(members: &HashMap<String, Member>, name: &str) -> Option<(u64, u64)> {
    let clean = names::clean(name.as_bytes()).ok()?;
    let mut name = std::str::from_utf8(&clean).ok()?;
    for _ in 0..LINKS {
        match members.get(name)? {
            Member::Section { offset, size } => return Some((*offset, *size)),
            Member::Link(target) => name = target,
        }
    }
    None
}

/// A part of a file.
struct Section<'a> {
    file: &'a File,
    offset: u64,
    left: u64,
}

impl Read for Section<'_> {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        let most = usize::try_from(self.left).unwrap_or(usize::MAX).min(out.len());
        let count = self.file.read_at(&mut out[..most], self.offset)?;
        if count == 0 && most > 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        self.offset += count as u64;
        self.left -= count as u64;
        Ok(count)
    }
}

/// A file seen through a window, for reading headers and skipping content.
struct Window<'a> {
    file: &'a File,
    length: u64,
    at: u64,
    bytes: Vec<u8>,
    /// The window's place in the file.
    start: u64,
}

impl<'a> Window<'a> {
    fn new(mut file: &'a File) -> io::Result<Self> {
        let length = file.seek(SeekFrom::End(0))?;
        Ok(Self { file, length, at: 0, bytes: Vec::new(), start: 0 })
    }

    fn range(&self, length: usize) -> Option<(usize, usize)> {
        let from = usize::try_from(self.at.checked_sub(self.start)?).ok()?;
        (from + length <= self.bytes.len()).then_some((from, from + length))
    }
}

impl TarSource for Window<'_> {
    fn peek(&mut self, length: usize) -> io::Result<&[u8]> {
        let there = usize::try_from(self.length.saturating_sub(self.at)).unwrap_or(usize::MAX);
        let length = length.min(there);
        if self.range(length).is_none() {
            self.bytes.resize(length.max(WINDOW).min(there), 0);
            self.file.read_exact_at(&mut self.bytes, self.at)?;
            self.start = self.at;
        }
        let (from, to) = self.range(length).unwrap_or((0, 0));
        Ok(&self.bytes[from..to])
    }

    fn consume(&mut self, length: usize) {
        self.at += length as u64;
    }

    fn skip(&mut self, length: u64) -> io::Result<bool> {
        self.at = self.at.saturating_add(length);
        Ok(self.at <= self.length)
    }
}
