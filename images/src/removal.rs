//! Removing trees that others made: layers with read-only directories, links to anywhere, and depths beyond what
//! a path or a process's file descriptors can hold.

use rustix::{
    fd::{AsFd, OwnedFd},
    fs::{
        AtFlags, CWD, Mode, OFlags, RawDir, RenameFlags, SeekFrom, chmodat, fchmod, fstat, openat, renameat_with, seek,
        unlinkat,
    },
    io::Errno,
};
use std::{
    ffi::{CStr, CString},
    io,
    path::Path,
};

/// Directories open at once. What lies deeper is first moved up to the top.
const MAX_OPEN: usize = 64;
/// Of names that are in memory, for each of these.
const BATCH_BYTES: usize = 16 << 10;

/// Removes a file, or a directory with all beneath it, whatever its permissions; what is gone already is fine.
///
/// Symbolic links are removed, never followed. However deep it is, few descriptors are open.
///
/// # Errors
/// That of the first entry that cannot be removed.
pub fn remove_tree(path: &Path) -> io::Result<()> {
    let name = CString::new(path.as_os_str().as_encoded_bytes())?;
    Ok(Tree { top: None, moved: 0, buffer: Vec::with_capacity(BATCH_BYTES) }.remove(CWD, &name, 0)?)
}

/// One removal.
struct Tree {
    /// Where what lies too deep is moved to: the directory that is being removed.
    top: Option<OwnedFd>,
    /// How many were moved.
    moved: u64,
    /// For one batch of names, which is copied before anything is removed: one for all depths. It has no length, as what the kernel does not
    /// write to is not touched.
    buffer: Vec<u8>,
}

impl Tree {
    /// Removes one entry of a directory.
    fn remove(&mut self, parent: impl AsFd, name: &CStr, depth: usize) -> Result<(), Errno> {
        match gone_is_fine(unlinkat(&parent, name, AtFlags::empty())) {
            Err(Errno::ISDIR) => self.remove_directory(parent, name, depth),
            other => other,
        }
    }

    fn remove_directory(&mut self, parent: impl AsFd, name: &CStr, depth: usize) -> Result<(), Errno> {
        let directory = match open(&parent, name) {
            Err(Errno::NOENT) => return Ok(()),
            other => other?,
        };
        match &self.top {
            Some(_) if depth >= MAX_OPEN => return self.move_up(parent, name),
            Some(_) => {}
            None => self.top = Some(rustix::io::fcntl_dupfd_cloexec(&directory, 0)?),
        }
        loop {
            let found = self.empty(&directory, depth)?;
            match gone_is_fine(unlinkat(&parent, name, AtFlags::REMOVEDIR)) {
                // The kernel may pass over names while a directory changes, and what lay too deep is in the top now.
                Err(Errno::NOTEMPTY) if found => seek(&directory, SeekFrom::Start(0))?,
                other => return other,
            };
        }
    }

    /// From where the directory was read to, a batch of names at a time, as it may have millions. Whether it had any.
    fn empty(&mut self, directory: &OwnedFd, depth: usize) -> Result<bool, Errno> {
        let mut found = false;
        while let Some(names) = batch(directory, &mut self.buffer)? {
            names.iter().try_for_each(|name| self.remove(directory, name, depth + 1))?;
            found = true;
        }
        Ok(found)
    }

    /// Under a name that the top does not have yet.
    fn move_up(&mut self, parent: impl AsFd, name: &CStr) -> Result<(), Errno> {
        let Some(top) = &self.top else { return Ok(()) };
        loop {
            self.moved += 1;
            match renameat_with(&parent, name, top, format!("deeper-{}", self.moved), RenameFlags::NOREPLACE) {
                Err(Errno::EXIST) => {}
                other => return other,
            }
        }
    }
}

/// The next names in a directory, those of one system call; none: the end.
fn batch(directory: &OwnedFd, buffer: &mut Vec<u8>) -> Result<Option<Vec<CString>>, Errno> {
    loop {
        let mut entries = RawDir::new(directory, buffer.spare_capacity_mut());
        let (mut names, mut seen) = (Vec::new(), false);
        while let Some(entry) = entries.next() {
            seen = true;
            let name = entry?.file_name().to_owned();
            if !matches!(name.as_bytes(), b"." | b"..") {
                names.push(name);
            }
            if entries.is_buffer_empty() {
                break;
            }
        }
        if !seen || !names.is_empty() {
            return Ok(seen.then_some(names));
        }
    }
}

/// Opens a directory, and lets its owner list and change it: without root, layers may hold directories that do not.
fn open(parent: impl AsFd, name: &CStr) -> Result<OwnedFd, Errno> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let opened = match openat(&parent, name, flags, Mode::empty()) {
        // It is a directory, so no link is followed here; nobody else changes the tree.
        Err(Errno::ACCESS) => {
            chmodat(&parent, name, Mode::RWXU, AtFlags::empty())?;
            openat(&parent, name, flags, Mode::empty())
        }
        other => other,
    }?;
    if !Mode::from_raw_mode(fstat(&opened)?.st_mode).contains(Mode::RWXU) {
        fchmod(&opened, Mode::RWXU)?;
    }
    Ok(opened)
}

fn gone_is_fine(result: Result<(), Errno>) -> Result<(), Errno> {
    match result {
        Err(Errno::NOENT) => Ok(()),
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::{
        fs::{chown, mkdirat},
        process::{Gid, Uid, geteuid},
        thread::set_thread_res_uid,
    };
    use std::{
        fs::{self, Permissions},
        os::unix::fs::{PermissionsExt, symlink},
        thread,
    };

    #[test]
    fn links_are_not_followed_and_absent_is_fine() {
        let folder = tempfile::tempdir().unwrap();
        let (kept, tree) = (folder.path().join("kept"), folder.path().join("tree"));
        fs::create_dir_all(tree.join("a/b")).unwrap();
        fs::create_dir(&kept).unwrap();
        fs::write(kept.join("file"), b"").unwrap();
        symlink(&kept, tree.join("a/link")).unwrap();
        symlink("nowhere", tree.join("a/b/dangling")).unwrap();
        for _ in 0..2 {
            remove_tree(&tree).unwrap();
            assert!(!tree.exists());
        }
        symlink(&kept, &tree).unwrap();
        remove_tree(&tree).unwrap();
        assert!(fs::symlink_metadata(&tree).is_err() && kept.join("file").exists());
    }

    /// All names of a directory were kept in memory at once.
    #[test]
    fn a_directory_of_many_batches_is_emptied() {
        let folder = tempfile::tempdir().unwrap();
        let tree = folder.path().join("tree");
        fs::create_dir(&tree).unwrap();
        for number in 0..3_000 {
            fs::write(tree.join(format!("{number:0>200}")), b"").unwrap();
        }
        let directory = open(CWD, &CString::new(tree.as_os_str().as_encoded_bytes()).unwrap()).unwrap();
        let mut buffer = Vec::with_capacity(BATCH_BYTES);
        let mut sum = 0;
        while let Some(names) = batch(&directory, &mut buffer).unwrap() {
            assert!(names.len() * 200 < BATCH_BYTES, "{}", names.len());
            sum += names.len();
        }
        assert_eq!(sum, 3_000);
        remove_tree(&tree).unwrap();
        assert!(!tree.exists());
    }

    #[test]
    fn deeper_than_paths_and_descriptors_reach() {
        let folder = tempfile::tempdir().unwrap();
        let tree = folder.path().join("tree");
        fs::create_dir_all(tree.join("deeper-1")).unwrap();
        let mut directory = open(CWD, &CString::new(tree.as_os_str().as_encoded_bytes()).unwrap()).unwrap();
        for _ in 0..3_000 {
            mkdirat(&directory, c"dd", Mode::RWXU).unwrap();
            directory = open(&directory, c"dd").unwrap();
        }
        remove_tree(&tree).unwrap();
        assert!(!tree.exists());
    }

    #[test]
    fn read_only_directories_without_root() {
        let folder = tempfile::tempdir().unwrap();
        let tree = folder.path().join("tree");
        fs::create_dir_all(tree.join("locked/inner")).unwrap();
        fs::write(tree.join("locked/inner/file"), b"").unwrap();
        let nobody = Uid::from_raw(65_534);
        if geteuid().is_root() {
            for path in ["", "tree", "tree/locked", "tree/locked/inner", "tree/locked/inner/file"] {
                chown(folder.path().join(path), Some(nobody), Some(Gid::from_raw(65_534))).unwrap();
            }
        }
        for (path, mode) in [("tree/locked/inner", 0o500), ("tree/locked", 0o000), ("tree", 0o555)] {
            fs::set_permissions(folder.path().join(path), Permissions::from_mode(mode)).unwrap();
        }
        let target = tree.clone();
        let removed = thread::spawn(move || {
            if geteuid().is_root() {
                // Of this thread alone: the call below the C library's.
                set_thread_res_uid(nobody, nobody, nobody).unwrap();
            }
            remove_tree(&target)
        });
        removed.join().unwrap().unwrap();
        assert!(!tree.exists());
    }
}
