//! The cache of compiled code.
//!
//! ```text
//! compiled/
//!   <program sha256>-<engine key>.cwasm            one program, for one engine and kind of processor
//!   <program sha256>-<engine key>-fuel.cwasm       the same, counting instructions
//!   <one of them, before -fuel>-with<bits>         the same, for proposals that are off for others
//!   <any of them>.<pid>-<number>.tmp               being written, and locked (flock(2)) as long as it is
//! ```
//!
//! A file is wasmtime's ELF image followed by a trailer of 88 bytes: the magic `AMPHORA2`, the kind (0 module, 1
//! component, 2 concurrent component) and the image's length, both 64-bit little-endian, and the program's sha256 as 64 digits. A file without a
//! right trailer was cut short, or is another program's: it counts as missing, is compiled again and replaced.
//!
//! Nobody waits for a lock. A file appears by rename when it is whole and on disk, and is never written again; two processes
//! that compile the same program both do the work, and the last rename wins.
//!
//! What is in here becomes machine code, so a file counts only if this user owns it and nobody else can write it.

use crate::{Profile, Proposals, concurrency, engine, proposals};
use rustix::{
    fs::{FileType, FlockOperation, Mode, OFlags, flock},
    io::Errno,
    process::geteuid,
};
use std::{
    fs::{self, DirBuilder, File},
    io::{self, Write},
    os::unix::fs::{DirBuilderExt, FileExt, OpenOptionsExt},
    path::{Path, PathBuf},
    process,
    sync::atomic::{AtomicU64, Ordering},
};

const MAGIC: [u8; 8] = *b"AMPHORA2";
const TRAILER_BYTES: usize = 24 + DIGEST_DIGITS;
const DIGEST_DIGITS: usize = 64;
const SUFFIX: &str = ".cwasm";
const FUEL: &str = "-fuel";
const TEMPORARY: &str = ".tmp";

/// Compiled code on disk: `compiled/<program sha256>-<engine key>[-fuel].cwasm`, each written to a temporary name and
/// renamed when whole; only files that this process's user owns and nobody else can write are opened.
#[derive(Debug, Clone)]
pub struct CodeCache {
    /// The directory.
    pub dir: PathBuf,
}

/// Native code, opened.
#[derive(Debug)]
pub struct Compiled {
    /// The file; mapped by [`crate::Program::load`].
    pub(crate) file: File,
    /// Whether it is a component (else a core module).
    pub component: bool,
    /// What it was compiled for.
    pub profile: Profile,
}

impl Compiled {
    fn new(file: File, kind: Kind, profile: Profile) -> Self {
        let profile = Profile { concurrent: kind == Kind::ConcurrentComponent, ..profile };
        Self { file, component: kind != Kind::Module, profile }
    }
}

/// Why a program could not be compiled or its code not be cached.
#[derive(Debug, thiserror::Error)]
pub enum CacheError {
    /// The digest is not one.
    #[error("`{0}` is not a sha256 digest: expected 64 lower-case hexadecimal digits")]
    Digest(String),
    /// The bytes are not a program.
    #[error("this is not a Wasm program that can be compiled: {detail}")]
    Program {
        /// What is wrong, and at which offset.
        detail: String,
    },
    /// It uses proposals that are off.
    #[error("this program uses proposals for WebAssembly that are off unless they are asked for, {names}: {detail}")]
    Off {
        /// Their names, with commas between.
        names: String,
        /// Where, in wasmtime's words.
        detail: String,
    },
    /// It uses a proposal that this engine does not have.
    #[error("this program uses a proposal for WebAssembly that the engine does not have, {name}: {detail}")]
    Lacking {
        /// Its name.
        name: String,
        /// Where, in wasmtime's words.
        detail: String,
    },
    /// The engine could not be made.
    #[error("the Wasm engine cannot be set up: {detail}")]
    Engine {
        /// wasmtime's words.
        detail: String,
    },
    /// A file is there that must not be run.
    #[error("{path}: not loaded as compiled code, because {found}; remove it, and the program is compiled again")]
    Untrusted {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        found: String,
    },
    /// A system call failed.
    #[error("cannot {action} {path}")]
    Io {
        /// What was to be done.
        action: &'static str,
        /// With what.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
}

impl CodeCache {
    /// The cache in `dir`, which is made when something is compiled, if it is missing then.
    pub fn new(dir: PathBuf) -> Self {
        Self { dir }
    }

    /// The code of the program whose bytes hash to `sha256` (64 hex digits), if it has been compiled for this profile.
    ///
    /// Costs one open, one stat and one read of 88 bytes. Code that was cut short, or is another program's, is not there; code that somebody else
    /// could have written is an error.
    pub fn lookup(&self, sha256: &str, profile: Profile) -> Result<Option<Compiled>, CacheError> {
        let path = self.path(sha256, profile)?;
        let Some((file, bytes)) = open_trusted(&path)? else { return Ok(None) };
        let kind = trailer_kind(&file, bytes, sha256).map_err(io_error("read", &path))?;
        Ok(kind.map(|kind| Compiled::new(file, kind, profile)))
    }

    /// Compiles `wasm` (binary module or component) unless the cache has it. Two processes at once are fine.
    pub fn compile(&self, sha256: &str, wasm: &[u8], profile: Profile) -> Result<Compiled, CacheError> {
        if let Some(found) = self.lookup(sha256, profile)? {
            return Ok(found);
        }
        let kind = Kind::of(wasm)?;
        let image = kind.compile(wasm, profile)?;
        let code = Code { kind, image: &image, sha256 };
        let file = self.publish(&self.path(sha256, profile)?, &code)?;
        Ok(Compiled::new(file, kind, profile))
    }

    /// Removes all code of a program, of any engine, as its image is removed.
    pub fn remove(&self, sha256: &str) -> Result<(), CacheError> {
        check_digest(sha256)?;
        for name in self.names()? {
            if Name::parse(&name).is_some_and(|name| name.sha256 == sha256) {
                remove_if_there(&self.dir.join(&name))?;
            }
        }
        Ok(())
    }

    /// Leftovers: temporary files of dead writers, code of other engines, code that was cut short or has another's name,
    /// and code whose sha256 `keep` says false to. What is none of ours is not listed.
    pub fn stale(&self, keep: &dyn Fn(&str) -> bool) -> Result<Vec<PathBuf>, CacheError> {
        let is_unwanted = |name: &Name| name.key != engine::key(name.profile) || !keep(name.sha256);
        let mut stale = Vec::new();
        for name in self.names()? {
            let path = self.dir.join(&name);
            let is_stale = match is_temporary(&name) {
                true => is_abandoned(&path).map_err(io_error("look at", &path))?,
                false => Name::parse(&name).is_some_and(|name| is_unwanted(&name)),
            };
            if is_stale || Name::parse(&name).is_some_and(|name| is_cut_short(&path, name.sha256)) {
                stale.push(path);
            }
        }
        Ok(stale)
    }

    fn path(&self, sha256: &str, profile: Profile) -> Result<PathBuf, CacheError> {
        check_digest(sha256)?;
        let (fuel, proposals) = (if profile.fuel { FUEL } else { "" }, profile.proposals.suffix());
        Ok(self.dir.join(format!("{sha256}-{}{proposals}{fuel}{SUFFIX}", engine::key(profile))))
    }

    /// Makes `path` appear whole, or not at all, and opens it: by then somebody may have removed it again.
    fn publish(&self, path: &Path, code: &Code) -> Result<File, CacheError> {
        DirBuilder::new().recursive(true).mode(0o700).create(&self.dir).map_err(io_error("make", &self.dir))?;
        let (temporary, locked) = new_temporary(path)?;
        let written = write_whole(&locked, code)
            .and_then(|()| File::open(&temporary))
            .map_err(io_error("write", &temporary))
            .and_then(|file| fs::rename(&temporary, path).map(|()| file).map_err(io_error("rename to", path)));
        if written.is_err() {
            // The error to report is the first one; what cannot be removed either is found by `stale`.
            let _ = fs::remove_file(&temporary);
        }
        written
    }

    fn names(&self) -> Result<Vec<String>, CacheError> {
        let entries = match fs::read_dir(&self.dir) {
            Ok(entries) => entries,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => return Err(io_error("list", &self.dir)(error)),
        };
        let names: io::Result<Vec<_>> = entries.map(|entry| Ok(entry?.file_name())).collect();
        let names = names.map_err(io_error("list", &self.dir))?;
        Ok(names.into_iter().filter_map(|name| name.into_string().ok()).collect())
    }
}

/// What a program is, by its first eight bytes and what it asks of the component model.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Module,
    Component,
    ConcurrentComponent,
}

impl Kind {
    const ALL: [Self; 3] = [Self::Module, Self::Component, Self::ConcurrentComponent];

    /// Core specification, binary format, modules; component model, Binary.md, preamble.
    pub(crate) fn of(wasm: &[u8]) -> Result<Self, CacheError> {
        match wasm.get(..8) {
            Some(b"\0asm\x01\0\0\0") => Ok(Self::Module),
            Some(b"\0asm\x0d\0\x01\0") if concurrency::is_needed(wasm) => Ok(Self::ConcurrentComponent),
            Some(b"\0asm\x0d\0\x01\0") => Ok(Self::Component),
            Some([0, b'a', b's', b'm', version @ ..]) => Err(CacheError::Program {
                detail: format!("unknown version {version:02x?}, neither module nor component"),
            }),
            _ => Err(CacheError::Program { detail: "it does not begin with `\\0asm` and a version".into() }),
        }
    }

    fn compile(self, wasm: &[u8], profile: Profile) -> Result<Vec<u8>, CacheError> {
        let profile = Profile { concurrent: self == Self::ConcurrentComponent, ..profile };
        let engine = engine::compiler(profile).map_err(engine_error)?;
        let image = match self {
            Self::Module => engine.precompile_module(wasm),
            Self::Component | Self::ConcurrentComponent => engine.precompile_component(wasm),
        };
        image.map_err(|error| match proposals::missing_proposals(wasm, profile.proposals) {
            Some(Ok(names)) => CacheError::Off { names: names.join(","), detail: format!("{error:#}") },
            Some(Err(name)) => CacheError::Lacking { name, detail: format!("{error:#}") },
            None => CacheError::Program { detail: format!("{error:#}") },
        })
    }
}

/// What becomes a file of the cache.
struct Code<'a> {
    kind: Kind,
    image: &'a [u8],
    sha256: &'a str,
}

/// A file name of the cache, taken apart.
struct Name<'a> {
    sha256: &'a str,
    key: &'a str,
    profile: Profile,
}

impl<'a> Name<'a> {
    fn parse(name: &'a str) -> Option<Self> {
        let stem = name.strip_suffix(SUFFIX)?;
        let (stem, fuel) = stem.strip_suffix(FUEL).map_or((stem, false), |stem| (stem, true));
        let (stem, proposals) = Proposals::strip(stem);
        let (sha256, key) = stem.split_once('-')?;
        (is_digest(sha256) && !key.contains('-')).then_some(Self {
            sha256,
            key,
            profile: Profile { fuel, concurrent: false, proposals },
        })
    }
}

/// Taken by value, as `map_err` gives it.
#[expect(clippy::needless_pass_by_value, reason = "the signature that map_err needs")]
fn engine_error(error: wasmtime::Error) -> CacheError {
    CacheError::Engine { detail: format!("{error:#}") }
}

fn io_error(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> CacheError {
    let path = path.to_owned();
    move |source| CacheError::Io { action, path, source }
}

fn is_digest(text: &str) -> bool {
    text.len() == 64 && text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
}

fn check_digest(text: &str) -> Result<(), CacheError> {
    if is_digest(text) { Ok(()) } else { Err(CacheError::Digest(text.into())) }
}

/// Opens a file if it is there and may be run; tells its size.
fn open_trusted(path: &Path) -> Result<Option<(File, u64)>, CacheError> {
    let untrusted = |found: String| CacheError::Untrusted { path: path.into(), found };
    // Non-blocking, or a FIFO in this place would be waited for.
    let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NOFOLLOW | OFlags::NONBLOCK;
    let file = match rustix::fs::open(path, flags, Mode::empty()) {
        Ok(file) => File::from(file),
        Err(Errno::NOENT) => return Ok(None),
        Err(Errno::LOOP) => return Err(untrusted("it is a symbolic link".into())),
        Err(errno) => return Err(io_error("open", path)(errno.into())),
    };
    let stat = rustix::fs::fstat(&file).map_err(|errno| io_error("stat", path)(errno.into()))?;
    if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
        return Err(untrusted("it is not a regular file".into()));
    }
    if stat.st_uid != geteuid().as_raw() {
        return Err(untrusted(format!("it belongs to user {} and not to user {}", stat.st_uid, geteuid().as_raw())));
    }
    if stat.st_mode & 0o022 != 0 {
        return Err(untrusted(format!("others than its owner can write it (mode {:04o})", stat.st_mode & 0o7777)));
    }
    Ok(Some((file, u64::try_from(stat.st_size).unwrap_or_default())))
}

/// The kind that a whole file of this program says it is of; none if it was cut short, or is another's.
fn trailer_kind(file: &File, bytes: u64, sha256: &str) -> io::Result<Option<Kind>> {
    let Some(image_bytes) = bytes.checked_sub(TRAILER_BYTES as u64) else { return Ok(None) };
    let mut trailer = [0; TRAILER_BYTES];
    file.read_exact_at(&mut trailer, image_bytes)?;
    Ok(Kind::ALL.into_iter().find(|kind| trailer == self::trailer(*kind, image_bytes, sha256)))
}

/// `sha256` has been checked to be 64 digits.
fn trailer(kind: Kind, image_bytes: u64, sha256: &str) -> [u8; TRAILER_BYTES] {
    let mut trailer = [0; TRAILER_BYTES];
    trailer[..8].copy_from_slice(&MAGIC);
    trailer[8..16].copy_from_slice(&(kind as u64).to_le_bytes());
    trailer[16..24].copy_from_slice(&image_bytes.to_le_bytes());
    trailer[24..].copy_from_slice(sha256.as_bytes());
    trailer
}

/// What is there and must not be run is not looked into; who wants to run it is told.
fn is_cut_short(path: &Path, sha256: &str) -> bool {
    let Ok(Some((file, bytes))) = open_trusted(path) else { return false };
    matches!(trailer_kind(&file, bytes, sha256), Ok(None))
}

/// A new file that nobody else writes, and its path. It is locked until it is closed, which tells who cleans up that somebody writes
/// it, wherever that one runs.
fn new_temporary(path: &Path) -> Result<(PathBuf, File), CacheError> {
    static NUMBER: AtomicU64 = AtomicU64::new(0);
    loop {
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let mut name = path.as_os_str().to_owned();
        name.push(format!(".{}-{number}{TEMPORARY}", process::id()));
        let temporary = PathBuf::from(name);
        let failed = |source| io_error("write", &temporary)(source);
        match File::options().write(true).create_new(true).mode(0o600).open(&temporary) {
            // Of a process of another pid namespace, or one that left it behind.
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            Err(error) => return Err(failed(error)),
            Ok(file) if is_ours(&file).map_err(failed)? => return Ok((temporary, file)),
            // Before it was locked, somebody took it for a leftover, and may not remove it.
            Ok(_) => _ = fs::remove_file(&temporary),
        }
    }
}

/// Locks a new file; whether nobody has taken it for a leftover.
fn is_ours(file: &File) -> io::Result<bool> {
    match flock(file, FlockOperation::NonBlockingLockExclusive) {
        Err(Errno::WOULDBLOCK) => Ok(false),
        other => other.map_err(io::Error::from).and_then(|()| Ok(rustix::fs::fstat(file)?.st_nlink > 0)),
    }
}

/// Whether a name is that of a file of the cache that is, or was, being written.
fn is_temporary(name: &str) -> bool {
    let written = name.strip_suffix(TEMPORARY).and_then(|name| name.rsplit_once(SUFFIX));
    written.is_some_and(|(stem, _writer)| Name::parse(&format!("{stem}{SUFFIX}")).is_some())
}

/// Whether nobody writes a temporary file any more. One that somebody is just about to lock is given up by him.
fn is_abandoned(path: &Path) -> io::Result<bool> {
    let file = match rustix::fs::open(
        path,
        OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NOFOLLOW | OFlags::NONBLOCK,
        Mode::empty(),
    ) {
        // Somebody has just made it whole, or removed it.
        Err(Errno::NOENT) => return Ok(false),
        other => other?,
    };
    match flock(file, FlockOperation::NonBlockingLockExclusive) {
        Err(Errno::WOULDBLOCK) => Ok(false),
        other => Ok(other.map(|()| true)?),
    }
}

/// Writes the file and waits for the disk: a file that a power failure emptied behind its name would be run.
fn write_whole(mut file: &File, code: &Code) -> io::Result<()> {
    file.write_all(code.image)?;
    file.write_all(&trailer(code.kind, code.image.len() as u64, code.sha256))?;
    file.sync_data()
}

fn remove_if_there(path: &Path) -> Result<(), CacheError> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(io_error("remove", path)(error)),
        _ => Ok(()),
    }
}
