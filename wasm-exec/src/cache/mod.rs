//! The cache of compiled code.
//!
//! ```text
//! compiled.key                                     made with the first code, readable by this user alone
//! compiled/
//!   <program sha256>-<engine key>.cwasm            one program, for one engine and kind of processor
//!   <program sha256>-<engine key>-fuel.cwasm       the same, counting instructions
//!   <one of them, before -fuel>-with<bits>         the same, for proposals that are off for others
//!   <any of them>-baseline                         the same, not optimised: there until the one that is appears
//!   <any of them>[.<pid>-<number>].tmp             being written, and locked (flock(2)) as long as it is
//! ```
//!
//! What is in here becomes machine code, so a file counts only if this user owns it, nobody else can write it, and a keyed
//! digest over all of it says that this directory's owner wrote it, of this program and for this engine (`seal.rs`). That is found
//! out once for each file and start of the machine (`checked.rs`). What does not count is compiled again and replaced.
//!
//! A file appears by rename when it is whole, and is never written again. One process compiles a program, and others who want it
//! meanwhile wait for that, for a minute (`draft.rs`). Nobody waits for the disk: of what a power failure left behind the digest is wrong.

mod checked;
mod draft;
mod error;
mod kind;
mod name;
mod pending;
mod seal;

pub use error::CacheError;
pub(crate) use kind::Kind;
pub use pending::Pending;

use crate::Profile;
use draft::{Draft, is_abandoned, is_written};
use error::io_error;
use name::{Name, check_digest, is_temporary};
use rustix::{
    fs::{FileType, Mode, OFlags, Stat, fstat},
    io::Errno,
    process::geteuid,
};
use seal::Key;
use std::{
    fs::{self, DirBuilder, File},
    io,
    os::unix::fs::DirBuilderExt,
    path::{Path, PathBuf},
};

/// Compiled code on disk: `compiled/<program sha256>-<engine key>[-fuel].cwasm`, each of which appears by rename when it is whole
/// and is used only if a keyed digest says that it was written here.
#[derive(Debug, Clone)]
pub struct CodeCache {
    /// The directory.
    pub dir: PathBuf,
    /// Where it is noted what was checked since the machine was started; nobody else can write there.
    pub checked: PathBuf,
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

/// What the cache has of a program.
#[derive(Debug)]
pub enum Found {
    /// Its code.
    Code(Compiled),
    /// Nothing.
    Nothing,
    /// A file that must not be run, and why; compiling replaces it.
    Refused(String),
}

impl Found {
    /// The code, if it is that.
    pub fn code(self) -> Option<Compiled> {
        match self {
            Self::Code(code) => Some(code),
            Self::Nothing | Self::Refused(_) => None,
        }
    }
}

impl Compiled {
    fn new(file: File, kind: Kind, profile: Profile) -> Self {
        let profile = Profile { concurrent: kind == Kind::ConcurrentComponent, ..profile };
        Self { file, component: kind != Kind::Module, profile }
    }
}

/// A file as it is opened.
enum Opened {
    File(File, Stat),
    Nothing,
    Refused(String),
}

/// Whether a file is right.
enum Verdict {
    Right(Kind),
    Wrong(String),
}

impl CodeCache {
    /// The cache in `dir`, which is made when something is compiled, if it is missing then; what was checked is noted in `checked`.
    pub fn new(dir: PathBuf, checked: PathBuf) -> Self {
        Self { dir, checked }
    }

    /// The code of the program whose bytes hash to `sha256` (64 hex digits), if it has been compiled for this profile.
    ///
    /// Costs one open, one stat and the reading of one link; the first time after a start of the machine, the reading of the whole file.
    pub fn lookup(&self, sha256: &str, profile: Profile) -> Result<Found, CacheError> {
        let name = name::of(sha256, profile)?;
        let path = self.dir.join(&name);
        let (file, stat) = match open(&path)? {
            Opened::File(file, stat) => (file, stat),
            Opened::Nothing => return Ok(Found::Nothing),
            Opened::Refused(why) => return Ok(Found::Refused(why)),
        };
        Ok(match self.judge(&name, &file, &stat)? {
            Verdict::Right(kind) => Found::Code(Compiled::new(file, kind, profile)),
            Verdict::Wrong(why) => Found::Refused(why),
        })
    }

    /// What a program's code takes on disk, whatever is in it; None if there is none.
    pub fn bytes(&self, sha256: &str, profile: Profile) -> Result<Option<u64>, CacheError> {
        let path = self.dir.join(name::of(sha256, profile)?);
        match fs::symlink_metadata(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            found => found.map(|found| Some(found.len())).map_err(io_error("look at", &path)),
        }
    }

    /// Compiles what `wasm` gives (a binary module or component) unless the cache has it. Of several processes at once one compiles,
    /// and the others wait for it, for a minute.
    pub fn compile<E: From<CacheError>>(
        &self,
        sha256: &str,
        profile: Profile,
        wasm: impl FnOnce() -> Result<Vec<u8>, E>,
    ) -> Result<Compiled, E> {
        if let Some(found) = self.lookup(sha256, profile)?.code() {
            return Ok(found);
        }
        let path = self.dir.join(name::of(sha256, profile)?);
        self.make_dir()?;
        let draft = Draft::begin(&path)?;
        // Somebody else may have been at it.
        if let Some(found) = self.lookup(sha256, profile)?.code() {
            return Ok(found);
        }
        let wasm = wasm()?;
        let kind = Kind::of(&wasm)?;
        let image = kind.compile(&wasm, profile)?;
        Ok(self.publish(draft, &path, kind, &image, profile)?)
    }

    /// The same for who does it on the side, and so waits for nobody: None if the cache has it, or somebody is at it.
    /// It appears when the caller says so.
    pub fn compile_on_the_side<E: From<CacheError>>(
        &self,
        sha256: &str,
        profile: Profile,
        wasm: impl FnOnce() -> Result<Vec<u8>, E>,
    ) -> Result<Option<Pending<'_>>, E> {
        let path = self.dir.join(name::of(sha256, profile)?);
        self.make_dir()?;
        let Some(draft) = Draft::begin_unless_written(&path)? else { return Ok(None) };
        if self.lookup(sha256, profile)?.code().is_some() {
            return Ok(None);
        }
        let wasm = wasm()?;
        let kind = Kind::of(&wasm)?;
        let image = kind.compile(&wasm, profile)?;
        Ok(Some(Pending { cache: self, draft, path, kind, image, profile }))
    }

    /// Whether somebody is at compiling a program for this profile.
    pub fn is_being_compiled(&self, sha256: &str, profile: Profile) -> Result<bool, CacheError> {
        let path = self.dir.join(name::of(sha256, profile)?);
        is_written(&path).map_err(io_error("look at", &path))
    }

    /// Removes all code of a program, of any engine, as its image is removed.
    pub fn remove(&self, sha256: &str) -> Result<(), CacheError> {
        check_digest(sha256)?;
        let names = names_in(&self.dir)?;
        let is_its = |name: &&String| Name::parse(name).is_some_and(|name| name.sha256 == sha256);
        names.iter().filter(is_its).try_for_each(|name| self.discard(&self.dir.join(name)))
    }

    /// Leftovers: temporary files of dead writers, code of other engines, code that must not be run, code whose sha256 `keep`
    /// says false to. What is none of ours is not listed.
    pub fn stale(&self, keep: &dyn Fn(&str) -> bool) -> Result<Vec<PathBuf>, CacheError> {
        let (names, mut stale) = (names_in(&self.dir)?, Vec::new());
        let optimised = |name: &Name| name::of(name.sha256, Profile { baseline: false, ..name.profile });
        let is_superseded =
            |name: &Name| name.profile.baseline && optimised(name).is_ok_and(|optimised| names.contains(&optimised));
        let is_unwanted = |name: &Name| name.is_of_another_engine() || !keep(name.sha256) || is_superseded(name);
        for name in &names {
            let path = self.dir.join(name);
            let is_stale = match (is_temporary(name), Name::parse(name)) {
                (true, _) => is_abandoned(&path).map_err(io_error("look at", &path))?,
                (false, Some(parsed)) => is_unwanted(&parsed) || self.is_wrong(name, &path)?,
                (false, None) => false,
            };
            if is_stale {
                stale.push(path);
            }
        }
        Ok(stale)
    }

    /// Removes notes of code that is not there any more, as who removed it had other notes.
    pub fn forget_gone(&self) -> Result<(), CacheError> {
        let (names, noted) = (names_in(&self.dir)?, names_in(&self.checked)?);
        let mut gone = noted.iter().filter(|name| !names.contains(name));
        gone.try_for_each(|name| checked::forget(&self.checked, name).map_err(io_error("remove from", &self.checked)))
    }

    /// Removes a leftover, if it is still there.
    pub fn discard(&self, stale: &Path) -> Result<(), CacheError> {
        remove_if_there(stale)?;
        checked::forget(&self.checked, name_of(stale)).map_err(io_error("remove from", &self.checked))
    }

    /// What cannot be opened as a file is not looked into; who wants to run it replaces it.
    fn is_wrong(&self, name: &str, path: &Path) -> Result<bool, CacheError> {
        match open(path)? {
            Opened::File(file, stat) => Ok(matches!(self.judge(name, &file, &stat)?, Verdict::Wrong(_))),
            Opened::Nothing | Opened::Refused(_) => Ok(false),
        }
    }

    fn judge(&self, name: &str, file: &File, stat: &Stat) -> Result<Verdict, CacheError> {
        if let Some(kind) = checked::find(&self.checked, name, stat) {
            return Ok(Verdict::Right(kind));
        }
        let Some(key) = Key::read(&self.key_path())? else {
            return Ok(Verdict::Wrong("there is no key of this store that it could have been written with".into()));
        };
        let sealed = key.check(file, name, length(stat)).map_err(io_error("read", &self.dir.join(name)))?;
        let Some(kind) = sealed else {
            return Ok(Verdict::Wrong("this store has not written it so, of this program and for this engine".into()));
        };
        checked::note(&self.checked, name, stat, kind);
        Ok(Verdict::Right(kind))
    }

    /// Makes the draft's path appear whole, or not at all.
    fn publish(
        &self,
        draft: Draft,
        path: &Path,
        kind: Kind,
        image: &[u8],
        profile: Profile,
    ) -> Result<Compiled, CacheError> {
        let name = name_of(path);
        let key = Key::read_or_make(&self.key_path())?;
        key.write(&draft.file, name, kind, image).map_err(io_error("write", path))?;
        let file = draft.publish(path)?;
        // Its new name was a change, too.
        let stat = fstat(&file).map_err(io_error("stat", path))?;
        checked::note(&self.checked, name, &stat, kind);
        self.remove_superseded(name)?;
        Ok(Compiled::new(file, kind, profile))
    }

    /// Of two files of which one is optimised the other goes, whichever of them has just appeared under this name.
    fn remove_superseded(&self, name: &str) -> Result<(), CacheError> {
        let Some(parsed) = Name::parse(name) else { return Ok(()) };
        let of = |baseline| name::of(parsed.sha256, Profile { baseline, ..parsed.profile });
        if !parsed.profile.baseline || self.dir.join(of(false)?).exists() {
            self.discard(&self.dir.join(of(true)?))?;
        }
        Ok(())
    }

    fn make_dir(&self) -> Result<(), CacheError> {
        DirBuilder::new().recursive(true).mode(0o700).create(&self.dir).map_err(io_error("make", &self.dir))
    }

    fn key_path(&self) -> PathBuf {
        self.dir.with_extension("key")
    }
}

fn names_in(dir: &Path) -> Result<Vec<String>, CacheError> {
    let entries = match fs::read_dir(dir) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(io_error("list", dir)(error)),
    };
    let names: io::Result<Vec<_>> = entries.map(|entry| Ok(entry?.file_name())).collect();
    let names = names.map_err(io_error("list", dir))?;
    Ok(names.into_iter().filter_map(|name| name.into_string().ok()).collect())
}

/// Opens a file if it is there and of a kind that may be run.
fn open(path: &Path) -> Result<Opened, CacheError> {
    let refused = |why: String| Ok(Opened::Refused(why));
    // Non-blocking, or a FIFO in this place would be waited for.
    let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NOFOLLOW | OFlags::NONBLOCK;
    let file = match rustix::fs::open(path, flags, Mode::empty()) {
        Ok(file) => File::from(file),
        Err(Errno::NOENT) => return Ok(Opened::Nothing),
        Err(Errno::LOOP) => return refused("it is a symbolic link".into()),
        Err(errno) => return Err(io_error("open", path)(errno)),
    };
    let stat = fstat(&file).map_err(io_error("stat", path))?;
    if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
        return refused("it is not a regular file".into());
    }
    if stat.st_uid != geteuid().as_raw() {
        return refused(format!("it belongs to user {} and not to user {}", stat.st_uid, geteuid().as_raw()));
    }
    if stat.st_mode & 0o022 != 0 {
        return refused(format!("others than its owner can write it (mode {:04o})", stat.st_mode & 0o7777));
    }
    Ok(Opened::File(file, stat))
}

fn length(stat: &Stat) -> u64 {
    u64::try_from(stat.st_size).unwrap_or_default()
}

/// Of a path that was made of the directory and a name.
fn name_of(path: &Path) -> &str {
    path.file_name().and_then(|name| name.to_str()).unwrap_or_default()
}

fn remove_if_there(path: &Path) -> Result<(), CacheError> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(io_error("remove", path)(error)),
        _ => Ok(()),
    }
}
