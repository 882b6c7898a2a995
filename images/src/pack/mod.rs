//! Packing: directories become a tar stream, as `export`, `cp` and `commit` need it.
//!
//! What is packed belongs to a container, which may run: names are any bytes, files are longer than disks, and everything changes
//! meanwhile. So each file is opened beneath its directory, following no link and waiting for nobody, and then only asked by its
//! descriptor; what is gone by then was not there. An entry has as many bytes as its header says, whatever is written to the file.
//!
//! | found | written |
//! |---|---|
//! | a file with several names | once; its other names as hard links |
//! | a file with holes | its pieces (GNU's sparse format 1.0 in PAX), so that what is empty costs nothing |
//! | a name, owner or size that the old header has no room for | a PAX record |
//! | extended attributes | `security.capability` and `user.*`, but not those of overlayfs |
//! | a socket | nothing: no archive has any |
//! | as a layer: overlayfs's mark for "removed" | `.wh.NAME` |
//! | as a layer: overlayfs's mark for "nothing below shows" | `.wh..wh..opq` in the directory |
//! | as a layer: a file whose name begins with `.wh.` | nothing, as in a layer that would remove another one; it is told |
//!
//! Sources: tar(5), pax(1), GNU tar's manual on sparse formats, the OCI image-spec (layer.md), the kernel's overlayfs.rst.

mod header;
mod pieces;
#[cfg(test)]
mod tests;

use std::{
    collections::HashMap,
    ffi::{CStr, CString},
    io::{self, Write},
    thread,
    time::Duration,
};

use rustix::{
    fd::{AsFd, BorrowedFd, OwnedFd},
    fs::{
        AtFlags, Dir, FileType, Mode, OFlags, Stat, fgetxattr, flistxattr, fstat, fstatfs, openat, readlinkat, statat,
    },
    io::Errno,
};
use tar::EntryType;

use crate::unpack::{is_overlay_attribute, names::printable};
use header::Meta;
use pieces::Pieces;

/// How deep directories are followed: each takes a descriptor.
const MAX_DEPTH: usize = 250;
/// Of one file's attributes, which a header has to have room for.
const ATTRIBUTE_BYTES: usize = 512 << 10;
const BUFFER_BYTES: usize = 128 << 10;
/// proc, sysfs, both cgroups, devpts, mqueue, debugfs, tracefs, securityfs, bpf (linux/magic.h).
const KERNELS_OWN: [i64; 10] = [
    0x9fa0,
    0x6265_6572,
    0x0027_e0eb,
    0x6367_7270,
    0x1cd1,
    0x1980_0202,
    0x6462_6720,
    0x7472_6163,
    0x7363_6673,
    0xcafe_4a11,
];
/// Names of what was left out, of which the first ones are told.
const TOLD: usize = 10;

/// What the archive is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    /// Files as they are.
    Files,
    /// What overlayfs's upper directory says of those below it.
    Layer,
}

/// What could not be in the archive, and why.
#[derive(Debug, Default)]
pub struct LeftOut {
    /// The first ones, each with the reason.
    pub told: Vec<String>,
    /// All of them.
    pub count: usize,
}

/// Writes an archive.
pub struct Packer<W> {
    to: W,
    form: Form,
    /// Files with several names, by device and inode: the first one.
    names: HashMap<(u64, u64), Vec<u8>>,
    left_out: LeftOut,
    buffer: Vec<u8>,
}

impl<W: Write> Packer<W> {
    /// Begins an archive.
    pub fn new(to: W, form: Form) -> Self {
        Self { to, form, names: HashMap::new(), left_out: LeftOut::default(), buffer: vec![0; BUFFER_BYTES] }
    }

    /// Adds one file, link or directory, without what is in it, as `path`. A directory is opened, for who looks into it.
    ///
    /// # Errors
    /// It cannot be read, or the archive not be written. What is not there any more is no error.
    pub fn add(&mut self, parent: BorrowedFd<'_>, name: &CStr, path: &[u8]) -> io::Result<Option<OwnedFd>> {
        if self.form == Form::Layer && name.to_bytes().starts_with(b".wh.") {
            self.leave_out(path, "in a layer its name would remove another file");
            return Ok(None);
        }
        let found = match statat(parent, name, AtFlags::SYMLINK_NOFOLLOW) {
            Err(Errno::NOENT) => return Ok(None),
            found => found.map_err(|errno| named(path, errno))?,
        };
        match FileType::from_raw_mode(found.st_mode) {
            FileType::Directory => self.add_directory(parent, name, path),
            FileType::RegularFile => self.add_file(parent, name, path).map(|()| None),
            FileType::Symlink => self.add_link(parent, name, path, &found).map(|()| None),
            FileType::CharacterDevice if self.form == Form::Layer && found.st_rdev == 0 => {
                self.add_whiteout(path).map(|()| None)
            }
            FileType::Socket => {
                self.leave_out(path, "it is a socket");
                Ok(None)
            }
            kind => self.add_special(kind, path, &found).map(|()| None),
        }
    }

    /// Adds the same with all that is in it.
    ///
    /// # Errors
    /// As [`Self::add`].
    pub fn add_tree(&mut self, parent: BorrowedFd<'_>, name: &CStr, path: &[u8]) -> io::Result<()> {
        self.add_tree_at(parent, name, path, 0)
    }

    /// Adds a directory that is open, as `path`, with all that is in it.
    ///
    /// # Errors
    /// As [`Self::add`].
    pub fn add_opened(&mut self, directory: &OwnedFd, path: &[u8]) -> io::Result<()> {
        self.note_directory(directory, path)?;
        self.add_contents(directory, path, 0)
    }

    fn add_tree_at(&mut self, parent: BorrowedFd<'_>, name: &CStr, path: &[u8], depth: usize) -> io::Result<()> {
        if depth > MAX_DEPTH {
            let path = printable(path);
            return Err(io::Error::other(format!("{path}: directories are more than {MAX_DEPTH} deep")));
        }
        match self.add(parent, name, path)? {
            Some(directory) => self.add_contents(&directory, path, depth),
            None => Ok(()),
        }
    }

    /// Adds what is in a directory that is open.
    ///
    /// # Errors
    /// As [`Self::add`].
    fn add_contents(&mut self, directory: &OwnedFd, path: &[u8], depth: usize) -> io::Result<()> {
        // What the kernel shows of itself there is no file of anybody's.
        if fstatfs(directory).is_ok_and(|found| KERNELS_OWN.contains(&found.f_type)) {
            return Ok(());
        }
        let mut names = names(directory).map_err(|error| named(path, error))?;
        names.sort_unstable();
        for name in names {
            let path = join(path, name.to_bytes());
            self.add_tree_at(directory.as_fd(), &name, &path, depth + 1)?;
        }
        Ok(())
    }

    /// Adds a file that is open, as `path`.
    ///
    /// # Errors
    /// As [`Self::add`].
    pub fn add_opened_file(&mut self, file: &OwnedFd, path: &[u8]) -> io::Result<()> {
        let found = fstat(file).map_err(|errno| named(path, errno))?;
        if FileType::from_raw_mode(found.st_mode) != FileType::RegularFile {
            return Err(named(path, Errno::INVAL));
        }
        if found.st_nlink > 1 {
            let first = self.names.entry((found.st_dev, found.st_ino)).or_insert_with(|| path.to_vec());
            if first.as_slice() != path {
                let first = first.clone();
                return self.put(&Meta { link: &first, ..Meta::of(EntryType::Link, path, &found) }, &[]);
            }
        }
        self.put_file(file, path, &found)
    }

    /// Ends the archive.
    ///
    /// # Errors
    /// It cannot be written.
    pub fn finish(mut self) -> io::Result<(W, LeftOut)> {
        self.to.write_all(&[0; 1024])?;
        self.to.flush()?;
        Ok((self.to, self.left_out))
    }

    fn leave_out(&mut self, path: &[u8], why: &str) {
        self.left_out.count += 1;
        if self.left_out.told.len() < TOLD {
            self.left_out.told.push(format!("{}: {why}", printable(path)));
        }
    }

    fn add_directory(&mut self, parent: BorrowedFd<'_>, name: &CStr, path: &[u8]) -> io::Result<Option<OwnedFd>> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let directory = match openat(parent, name, flags, Mode::empty()) {
            Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => return Ok(None),
            opened => opened.map_err(|errno| named(path, errno))?,
        };
        self.note_directory(&directory, path)?;
        Ok(Some(directory))
    }

    fn note_directory(&mut self, directory: &OwnedFd, path: &[u8]) -> io::Result<()> {
        let found = fstat(directory).map_err(|errno| named(path, errno))?;
        let attributes = attributes(directory).map_err(|errno| named(path, errno))?;
        let with_slash = [path, b"/".as_slice()].concat();
        self.put(&Meta::of(EntryType::Directory, &with_slash, &found), &attributes)?;
        if self.form == Form::Layer {
            refuse_redirected(directory, path)?;
            if is_opaque(directory)? {
                let mark = join(path, b".wh..wh..opq");
                self.put(&Meta::empty_file(&mark), &[])?;
            }
        }
        Ok(())
    }

    fn add_file(&mut self, parent: BorrowedFd<'_>, name: &CStr, path: &[u8]) -> io::Result<()> {
        let Some(file) = open_file(parent, name).map_err(|errno| named(path, errno))? else { return Ok(()) };
        if self.form == Form::Layer {
            refuse_redirected(&file, path)?;
        }
        self.add_opened_file(&file, path)
    }

    fn put_file(&mut self, file: &OwnedFd, path: &[u8], found: &Stat) -> io::Result<()> {
        let attributes = attributes(file).map_err(|errno| named(path, errno))?;
        let size = u64::try_from(found.st_size).unwrap_or(0);
        let pieces = Pieces::of(file, found).map_err(|errno| named(path, errno))?;
        let Some(pieces) = pieces else {
            self.put(&Meta { size, ..Meta::of(EntryType::Regular, path, found) }, &attributes)?;
            self.put_bytes(file, path, 0, size)?;
            return self.pad(size);
        };
        let map = pieces.map();
        let stored = map.len() as u64 + pieces.bytes();
        let meta = Meta { size: stored, real_size: Some(size), ..Meta::of(EntryType::Regular, path, found) };
        self.put(&meta, &attributes)?;
        self.to.write_all(&map)?;
        for (offset, length) in pieces.iter() {
            self.put_bytes(file, path, offset, length)?;
        }
        self.pad(stored)
    }

    /// So many bytes, of which those that are not there any more are zero.
    fn put_bytes(&mut self, file: &OwnedFd, path: &[u8], offset: u64, length: u64) -> io::Result<()> {
        let mut done = 0;
        while done < length {
            let wanted = usize::try_from(length - done).map_or(BUFFER_BYTES, |left| left.min(BUFFER_BYTES));
            let read = rustix::io::retry_on_intr(|| rustix::io::pread(file, &mut self.buffer[..wanted], offset + done));
            let mut count = read.map_err(|errno| named(path, errno))?;
            if count == 0 {
                self.buffer[..wanted].fill(0);
                count = wanted;
            }
            self.to.write_all(&self.buffer[..count])?;
            done += count as u64;
        }
        Ok(())
    }

    fn add_link(&mut self, parent: BorrowedFd<'_>, name: &CStr, path: &[u8], found: &Stat) -> io::Result<()> {
        let target = match readlinkat(parent, name, Vec::new()) {
            Err(Errno::NOENT | Errno::INVAL) => return Ok(()),
            target => target.map_err(|errno| named(path, errno))?,
        };
        self.put(&Meta { link: target.as_bytes(), ..Meta::of(EntryType::Symlink, path, found) }, &[])
    }

    fn add_whiteout(&mut self, path: &[u8]) -> io::Result<()> {
        let (directory, name) = crate::unpack::names::split(path);
        let mark = join(directory, &[b".wh.".as_slice(), name].concat());
        self.put(&Meta::empty_file(&mark), &[])
    }

    fn add_special(&mut self, kind: FileType, path: &[u8], found: &Stat) -> io::Result<()> {
        let kind = match kind {
            FileType::Fifo => EntryType::Fifo,
            FileType::CharacterDevice => EntryType::Char,
            FileType::BlockDevice => EntryType::Block,
            _ => {
                self.leave_out(path, "it is of a kind that no archive has");
                return Ok(());
            }
        };
        self.put(&Meta::of(kind, path, found), &[])
    }

    fn put(&mut self, meta: &Meta<'_>, attributes: &[(Vec<u8>, Vec<u8>)]) -> io::Result<()> {
        let bytes = meta.bytes(attributes)?;
        self.to.write_all(&bytes)
    }

    fn pad(&mut self, size: u64) -> io::Result<()> {
        self.to.write_all(&[0; 512][..header::padding(size)])
    }
}

/// Opens a regular file; None if it is none any more.
fn open_file(parent: BorrowedFd<'_>, name: &CStr) -> rustix::io::Result<Option<OwnedFd>> {
    // Somebody's lease on it ends after 45 seconds, whatever he does (fcntl(2), lease-break-time).
    const PAUSE: Duration = Duration::from_millis(100);
    const PAUSES: u32 = 600;
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
    let mut pauses = 0;
    let file = loop {
        match openat(parent, name, flags, Mode::empty()) {
            Err(Errno::AGAIN) if pauses < PAUSES => {
                pauses += 1;
                thread::sleep(PAUSE);
            }
            Err(Errno::NOENT | Errno::LOOP | Errno::NXIO | Errno::ISDIR) => return Ok(None),
            opened => break opened?,
        }
    };
    let is_regular = FileType::from_raw_mode(fstat(&file)?.st_mode) == FileType::RegularFile;
    Ok(is_regular.then_some(file))
}

/// Those that are kept.
fn attributes(file: &OwnedFd) -> rustix::io::Result<Vec<(Vec<u8>, Vec<u8>)>> {
    let mut list = vec![0; 64 << 10];
    let length = match flistxattr(file, list.as_mut_slice()) {
        Err(Errno::OPNOTSUPP | Errno::NOSYS | Errno::PERM | Errno::ACCESS | Errno::RANGE) => return Ok(Vec::new()),
        length => length?,
    };
    let (mut kept, mut size) = (Vec::new(), 0);
    let is_kept = |name: &&[u8]| {
        (*name == b"security.capability".as_slice() || name.starts_with(b"user.")) && !is_overlay_attribute(name)
    };
    let mut value = vec![0; 64 << 10];
    for name in list[..length].split(|&byte| byte == 0).filter(is_kept) {
        let length = match fgetxattr(file, name, value.as_mut_slice()) {
            // It is gone by now.
            Err(Errno::NODATA) => continue,
            length => length?,
        };
        // A name with an equals sign has no place in a PAX record.
        size += name.len() + length;
        if size > ATTRIBUTE_BYTES || name.contains(&b'=') {
            continue;
        }
        kept.push((name.to_vec(), value[..length].to_vec()));
    }
    Ok(kept)
}

/// The first byte of an attribute that a file has under one of these names.
fn attribute(file: &OwnedFd, names: [&str; 2]) -> rustix::io::Result<Option<u8>> {
    let mut value = [0_u8; 4096];
    for name in names {
        match fgetxattr(file, name, value.as_mut_slice()) {
            Ok(length) => return Ok(Some(if length > 0 { value[0] } else { 0 })),
            // It is there, and longer than any of which the value counts.
            Err(Errno::RANGE) => return Ok(Some(0)),
            Err(Errno::NODATA | Errno::OPNOTSUPP | Errno::NOSYS) => {}
            Err(errno) => return Err(errno),
        }
    }
    Ok(None)
}

fn is_opaque(directory: &OwnedFd) -> rustix::io::Result<bool> {
    Ok(attribute(directory, ["trusted.overlay.opaque", "user.overlay.opaque"])? == Some(b'y'))
}

/// A kernel may be set up so that overlayfs refers from the upper directory to files below, which a layer cannot say.
fn refuse_redirected(file: &OwnedFd, path: &[u8]) -> io::Result<()> {
    for (names, option) in [
        (["trusted.overlay.redirect", "user.overlay.redirect"], "redirect_dir"),
        (["trusted.overlay.metacopy", "user.overlay.metacopy"], "metacopy"),
    ] {
        if attribute(file, names)?.is_some() {
            let path = printable(path);
            return Err(io::Error::other(format!(
                "{path} is kept in a form that no layer can have, as this kernel's overlayfs has {option} switched on \
                 (/sys/module/overlay/parameters/{option}): switch it off and start the container anew"
            )));
        }
    }
    Ok(())
}

/// All names in a directory.
pub fn names(directory: impl AsFd) -> rustix::io::Result<Vec<CString>> {
    let mut names = Vec::new();
    for entry in Dir::read_from(directory)? {
        let name = entry?.file_name().to_owned();
        if !matches!(name.to_bytes(), b"." | b"..") {
            names.push(name);
        }
    }
    Ok(names)
}

fn join(directory: &[u8], name: &[u8]) -> Vec<u8> {
    crate::unpack::names::join(directory, name)
}

fn named(path: &[u8], error: Errno) -> io::Error {
    io::Error::other(format!("{}: {}", printable(path), io::Error::from(error)))
}
