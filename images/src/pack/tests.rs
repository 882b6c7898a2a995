use super::*;
use crate::{
    Budget,
    unpack::{extract, unpack},
};
use rustix::fs::{CWD, XattrFlags, setxattr};
use std::{
    collections::BTreeMap,
    fs::{self, File},
    os::unix::{
        ffi::OsStrExt,
        fs::{FileExt, MetadataExt, PermissionsExt, symlink},
        net::UnixListener,
    },
    path::Path,
};

fn open(path: &Path) -> OwnedFd {
    openat(CWD, path, OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty()).unwrap()
}

fn packed(path: &Path, form: Form) -> (Vec<u8>, LeftOut) {
    let mut packer = Packer::new(Vec::new(), form);
    packer.add_opened(&open(path), b".").unwrap();
    packer.finish().unwrap()
}

/// Names, kinds and sizes as GNU tar sees them.
fn listed(archive: &[u8]) -> String {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("a.tar"), archive).unwrap();
    let listed = std::process::Command::new("tar")
        .args(["--numeric-owner", "--quoting-style=escape", "-tvf"])
        .arg(dir.path().join("a.tar"))
        .output()
        .unwrap();
    assert!(listed.status.success() && listed.stderr.is_empty(), "{}", String::from_utf8_lossy(&listed.stderr));
    String::from_utf8(listed.stdout).unwrap()
}

#[test]
fn a_tree_comes_back_as_it_was() {
    let dir = tempfile::tempdir().unwrap();
    let (from, to) = (dir.path().join("from"), dir.path().join("to"));
    fs::create_dir_all(from.join("deep/er")).unwrap();
    fs::create_dir(&to).unwrap();
    fs::write(from.join("deep/file"), "text").unwrap();
    fs::hard_link(from.join("deep/file"), from.join("twin")).unwrap();
    fs::set_permissions(from.join("deep/file"), fs::Permissions::from_mode(0o4751)).unwrap();
    symlink("/etc/passwd", from.join("link")).unwrap();
    symlink("x".repeat(300), from.join("long-link")).unwrap();
    let long = "l".repeat(200);
    fs::write(from.join(&long), "long").unwrap();
    let odd = std::ffi::OsStr::from_bytes(b"no\xffutf8");
    fs::write(from.join(odd), "odd").unwrap();
    fs::write(from.join(".wh.kept"), "plain").unwrap();
    let _socket = UnixListener::bind(from.join("socket")).unwrap();
    nix::unistd::mkfifo(&from.join("fifo"), nix::sys::stat::Mode::S_IRUSR).unwrap();
    let has_attributes = setxattr(from.join("twin"), "user.mine", b"a=b\n\0", XattrFlags::empty()).is_ok();
    let (archive, left_out) = packed(&from, Form::Files);
    assert_eq!((left_out.count, left_out.told.as_slice()), (1, ["./socket: it is a socket".to_owned()].as_slice()));
    extract(&mut archive.as_slice(), &to, &Budget::default()).unwrap();
    assert_eq!(fs::read_to_string(to.join("twin")).unwrap(), "text");
    let (file, twin) = (to.join("deep/file").metadata().unwrap(), to.join("twin").metadata().unwrap());
    assert_eq!(
        (file.ino(), file.mode() & 0o7777, file.mtime()),
        (twin.ino(), 0o4751, from.join("twin").metadata().unwrap().mtime())
    );
    assert_eq!(fs::read_link(to.join("link")).unwrap(), Path::new("/etc/passwd"));
    assert_eq!(fs::read_link(to.join("long-link")).unwrap().as_os_str().len(), 300);
    for (name, text) in [(std::ffi::OsStr::new(&long), "long"), (odd, "odd"), (".wh.kept".as_ref(), "plain")] {
        assert_eq!(fs::read_to_string(to.join(name)).unwrap(), text);
    }
    assert!(to.join("deep/er").is_dir());
    if has_attributes {
        let mut value = [0; 16];
        let length = rustix::fs::getxattr(to.join("twin"), "user.mine", &mut value).unwrap();
        assert_eq!(&value[..length], b"a=b\n\0");
    }
    let listed = listed(&archive);
    for line in ["pr--------", "no\\377utf8", &long, " -> /etc/passwd", " link to ./deep/file"] {
        assert!(listed.contains(line), "{line}: {listed}");
    }
}

#[test]
fn a_file_longer_than_the_disk_costs_what_is_in_it() {
    let dir = tempfile::tempdir().unwrap();
    let (from, to) = (dir.path().join("from"), dir.path().join("to"));
    fs::create_dir(&from).unwrap();
    fs::create_dir(&to).unwrap();
    let long = File::create(from.join("long")).unwrap();
    long.write_all_at(b"middle", 1 << 32).unwrap();
    long.set_len(1 << 36).unwrap();
    File::create(from.join("empty")).unwrap().set_len(1 << 35).unwrap();
    let (archive, _) = packed(&from, Form::Files);
    assert!(archive.len() < 1 << 20, "{}", archive.len());
    extract(&mut archive.as_slice(), &to, &Budget::default()).unwrap();
    let (new, mut text) = (File::open(to.join("long")).unwrap(), [0; 6]);
    new.read_exact_at(&mut text, 1 << 32).unwrap();
    assert_eq!((new.metadata().unwrap().len(), &text), (1 << 36, b"middle"));
    assert_eq!(to.join("empty").metadata().unwrap().len(), 1 << 35);
    let listed = listed(&archive);
    assert!(listed.contains("68719476736") && listed.contains("34359738368"), "{listed}");
}

/// Takes away what is being packed.
struct Shrinks<'a>(&'a Path, Vec<u8>);
impl Write for Shrinks<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.1.len() > 1 << 20 {
            File::options().write(true).open(self.0.join("shrinks"))?.set_len(10)?;
            let _ = fs::remove_file(self.0.join("gone"));
        }
        self.1.write(bytes)
    }
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Somebody writes to a file, and takes files away, while it is packed.
#[test]
fn what_changes_meanwhile_leaves_the_archive_whole() {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("shrinks"), vec![b'x'; 3 << 20]).unwrap();
    fs::write(dir.path().join("z"), "last").unwrap();
    fs::write(dir.path().join("gone"), "gone").unwrap();
    let mut packer = Packer::new(Shrinks(dir.path(), Vec::new()), Form::Files);
    let root = open(dir.path());
    for name in [c"shrinks", c"gone", c"z", c"never"] {
        packer.add_tree(root.as_fd(), name, name.to_bytes()).unwrap();
    }
    let (Shrinks(_, archive), _) = packer.finish().unwrap();
    let names: Vec<String> = listed(&archive).lines().map(|line| line.rsplit(' ').next().unwrap().to_owned()).collect();
    assert_eq!(names, ["shrinks", "z"]);
}

#[test]
fn a_layer_has_the_marks_of_what_is_gone() {
    if !nix::unistd::geteuid().is_root() {
        return println!("skipped: only root makes whiteouts");
    }
    let dir = tempfile::tempdir().unwrap();
    let (upper, layer) = (dir.path().join("upper"), dir.path().join("layer"));
    fs::create_dir_all(upper.join("new/in")).unwrap();
    fs::create_dir(&layer).unwrap();
    fs::write(upper.join("new/.wh.hostile"), "x").unwrap();
    rustix::fs::mknodat(CWD, upper.join("gone"), FileType::CharacterDevice, Mode::empty(), 0).unwrap();
    let opaque = setxattr(upper.join("new"), "trusted.overlay.opaque", b"y", XattrFlags::empty());
    if opaque.is_err() {
        return println!("skipped: this file system has no trusted attributes: {opaque:?}");
    }
    let (archive, left_out) = packed(&upper, Form::Layer);
    assert_eq!(left_out.told, ["./new/.wh.hostile: in a layer its name would remove another file"]);
    let listed = listed(&archive);
    let names: Vec<&str> = listed.lines().filter_map(|line| line.rsplit(' ').next()).collect();
    assert_eq!(names, ["./", "./.wh.gone", "./new/", "./new/.wh..wh..opq", "./new/in/"]);
    // As a layer it becomes what it was.
    unpack(&mut archive.as_slice(), &layer, &Budget::default()).unwrap();
    let mut value = [0; 4];
    assert_eq!(rustix::fs::getxattr(layer.join("new"), "trusted.overlay.opaque", &mut value), Ok(1));
    let kinds: BTreeMap<_, _> = fs::read_dir(&layer)
        .unwrap()
        .map(|entry| entry.unwrap())
        .map(|entry| (entry.file_name(), entry.metadata().unwrap().rdev()))
        .collect();
    assert_eq!(kinds.get(std::ffi::OsStr::new("gone")), Some(&0));
    // What refers to files below is in no layer.
    setxattr(upper.join("new"), "trusted.overlay.redirect", b"/old", XattrFlags::empty()).unwrap();
    let mut packer = Packer::new(Vec::new(), Form::Layer);
    let refused = packer.add_opened(&open(&upper), b".").unwrap_err().to_string();
    assert!(refused.contains("redirect_dir"), "{refused}");
}
