//! Archives made byte by byte, unpacked by the real kernel.

use super::*;
use rustix::fs::{CWD, Mode, OFlags, openat};
use sha2::Digest as _;
use std::{
    fs,
    io::{Cursor, Write},
    os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt},
};
use tar::{EntryType, Header};

mod hostile;

/// A tar archive in the making.
#[derive(Clone, Default)]
struct Archive(Vec<u8>);

impl Archive {
    /// An entry; names are written as they are, up to 100 bytes.
    fn entry(mut self, kind: EntryType, name: &str, link: &str, mode: u32, data: &[u8]) -> Self {
        let mut header = Header::new_gnu();
        header.as_old_mut().name[..name.len()].copy_from_slice(name.as_bytes());
        header.as_old_mut().linkname[..link.len()].copy_from_slice(link.as_bytes());
        header.set_entry_type(kind);
        header.set_mode(mode);
        header.set_uid(rustix::process::geteuid().as_raw().into());
        header.set_gid(rustix::process::getegid().as_raw().into());
        header.set_mtime(1_000_000_000);
        header.set_size(data.len() as u64);
        self.header(&mut header, data);
        self
    }

    fn header(&mut self, header: &mut Header, data: &[u8]) {
        header.set_cksum();
        self.0.extend_from_slice(header.as_bytes());
        self.0.extend_from_slice(data);
        self.0.resize(self.0.len().next_multiple_of(512), 0);
    }

    fn file(self, name: &str, data: &str) -> Self {
        self.entry(EntryType::Regular, name, "", 0o644, data.as_bytes())
    }

    fn directory(self, name: &str) -> Self {
        self.entry(EntryType::Directory, name, "", 0o755, b"")
    }

    fn symlink(self, name: &str, target: &str) -> Self {
        self.entry(EntryType::Symlink, name, target, 0o777, b"")
    }

    fn hard_link(self, name: &str, target: &str) -> Self {
        self.entry(EntryType::Link, name, target, 0o644, b"")
    }

    /// A PAX header with these records.
    fn pax(self, records: &[(&str, &[u8])]) -> Self {
        let mut bytes = Vec::new();
        for (key, value) in records {
            let rest = key.len() + value.len() + 3;
            let mut length = rest;
            while length.to_string().len() + rest != length {
                length += 1;
            }
            bytes.extend_from_slice(format!("{length} {key}=").as_bytes());
            bytes.extend_from_slice(value);
            bytes.push(b'\n');
        }
        self.entry(EntryType::XHeader, "PaxHeaders/x", "", 0o644, &bytes)
    }

    fn bytes(&self) -> Vec<u8> {
        [&self.0[..], &[0; 1024]].concat()
    }

    fn unpack(&self) -> (tempfile::TempDir, Result<Digest, UnpackError>) {
        let target = tempfile::tempdir().unwrap();
        let result = unpack(&mut Cursor::new(self.bytes()), target.path(), &Budget::default());
        (target, result)
    }

    /// Unpacks what must succeed.
    fn good(&self) -> tempfile::TempDir {
        let (target, result) = self.unpack();
        let sum = sha2::Sha256::digest(self.bytes());
        assert_eq!(result.unwrap().digest(), input::hex(&sum));
        target
    }
}

fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

fn xattr(path: &Path, name: &str) -> Option<Vec<u8>> {
    let mut value = vec![0; 256];
    let length = rustix::fs::lgetxattr(path, name, value.as_mut_slice()).ok()?;
    value.truncate(length);
    Some(value)
}

fn is_whiteout(path: &Path) -> bool {
    let data = fs::symlink_metadata(path).unwrap();
    data.file_type().is_char_device() && data.rdev() == 0
}

#[test]
fn files_directories_and_links_are_made_with_modes_and_times() {
    let root = Archive::default()
        .entry(EntryType::Directory, "./", "", 0o751, b"")
        .entry(EntryType::Directory, "bin/", "", 0o2755, b"")
        .entry(EntryType::Regular, "bin/su", "", 0o4755, b"#!")
        .entry(EntryType::Regular, "bin/group", "", 0o666, b"")
        .hard_link("bin/su2", "./bin/su")
        .symlink("sh", "bin/su")
        .entry(EntryType::Fifo, "fifo", "", 0o600, b"")
        .file("no/such/parent", "x")
        .good();
    let at = |name: &str| fs::symlink_metadata(root.path().join(name)).unwrap();
    assert_eq!(at("").mode() & 0o7777, 0o751);
    assert_eq!(at("bin").mode() & 0o7777, 0o2755);
    assert_eq!(at("bin").mtime(), 1_000_000_000);
    assert_eq!(at("bin/su").mode() & 0o7777, 0o4755);
    assert_eq!(at("bin/su").ino(), at("bin/su2").ino());
    assert_eq!(at("bin/group").mode() & 0o7777, 0o666);
    assert_eq!(at("sh").mtime(), 1_000_000_000);
    assert_eq!(fs::read_link(root.path().join("sh")).unwrap(), Path::new("bin/su"));
    assert!(at("fifo").file_type().is_fifo());
    assert_eq!(at("no/such").mode() & 0o7777, 0o755);
    assert_eq!(fs::read(root.path().join("no/such/parent")).unwrap(), b"x");
}

#[test]
fn owners_and_devices_are_those_of_the_archive() {
    if !is_root() {
        return println!("skipped: only root changes owners and makes devices");
    }
    let mut archive = Archive::default();
    let mut header = Header::new_gnu();
    header.set_path("owned").unwrap();
    header.set_mode(0o6711);
    header.set_uid(12);
    header.set_gid(3_000_000);
    header.set_size(0);
    header.set_mtime(5);
    archive.header(&mut header, b"");
    header.set_path("null").unwrap();
    header.set_entry_type(EntryType::Char);
    header.set_device_major(1).unwrap();
    header.set_device_minor(3).unwrap();
    archive.header(&mut header, b"");
    let root = archive.directory("d").pax(&[("uid", b"77"), ("gid", b"78")]).directory("d").good();
    let owned = fs::metadata(root.path().join("owned")).unwrap();
    assert_eq!((owned.uid(), owned.gid(), owned.mode() & 0o7777, owned.mtime()), (12, 3_000_000, 0o6711, 5));
    let directory = fs::metadata(root.path().join("d")).unwrap();
    assert_eq!((directory.uid(), directory.gid()), (77, 78));
    match fs::metadata(root.path().join("null")) {
        Ok(null) => assert_eq!((null.rdev(), null.uid()), (rustix::fs::makedev(1, 3), 12)),
        Err(error) => println!("skipped: this machine's root makes no devices ({error})"),
    }
}

#[test]
fn whiteouts_become_what_overlayfs_reads() {
    let root = Archive::default()
        .directory("etc")
        .file("etc/.wh.passwd", "")
        .file("etc/.wh.gone", "")
        .directory("var")
        .file("var/.wh..wh..opq", "")
        .file("implicit/.wh..wh..opq", "")
        .file(".wh..wh.plnk/0.1", "x")
        .file(".wh..wh.aufs", "x")
        .good();
    let name = if is_root() && fs::read_to_string("/proc/self/uid_map").unwrap().contains("4294967295") {
        "trusted.overlay.opaque"
    } else {
        "user.overlay.opaque"
    };
    assert!(is_whiteout(&root.path().join("etc/passwd")) && is_whiteout(&root.path().join("etc/gone")));
    for opaque in ["var", "implicit"] {
        assert_eq!(xattr(&root.path().join(opaque), name).as_deref(), Some(&b"y"[..]), "{opaque}");
    }
    assert_eq!(xattr(&root.path().join("etc"), name), None);
    assert_eq!(fs::read_dir(root.path()).unwrap().count(), 3);
    assert_eq!(fs::read_dir(root.path().join("var")).unwrap().count(), 0);
}

#[test]
fn a_whiteout_hides_lower_layers_only() {
    let root = Archive::default()
        .file("kept", "x")
        .file(".wh.kept", "")
        .file(".wh.new", "")
        .file("new", "y")
        .directory("before")
        .file("before/a", "")
        .file(".wh.before", "")
        .file(".wh.after", "")
        .file("after/b", "")
        .good();
    assert_eq!(fs::read(root.path().join("kept")).unwrap(), b"x");
    assert_eq!(fs::read(root.path().join("new")).unwrap(), b"y");
    assert!(root.path().join("before/a").exists() && root.path().join("after/b").exists());
    let opaque = |name: &str| {
        let path = root.path().join(name);
        xattr(&path, "trusted.overlay.opaque").or_else(|| xattr(&path, "user.overlay.opaque")).is_some()
    };
    assert!(opaque("before") && opaque("after"));
}

#[test]
fn later_entries_replace_earlier_ones() {
    let root = Archive::default()
        .file("a", "old, and longer")
        .file("a", "new")
        .directory("d")
        .file("d/kept", "k")
        .entry(EntryType::Directory, "d", "", 0o700, b"")
        .directory("d/e")
        .file("d/e/f", "x")
        .file("d/e", "file over directory")
        .file("f", "x")
        .directory("f")
        .file("f/g", "directory over file")
        .file("h", "one")
        .hard_link("i", "h")
        .file("h", "two")
        .symlink("s", "h")
        .file("s", "not through the link")
        .good();
    let read = |name: &str| fs::read_to_string(root.path().join(name)).unwrap();
    assert_eq!((read("a"), read("d/kept"), read("d/e")), ("new".into(), "k".into(), "file over directory".into()));
    assert_eq!(fs::metadata(root.path().join("d")).unwrap().mode() & 0o7777, 0o700);
    assert_eq!((read("f/g"), read("h"), read("i")), ("directory over file".into(), "two".into(), "one".into()));
    assert_eq!(read("s"), "not through the link");
}

#[test]
fn a_layers_own_links_are_followed_inside_the_root() {
    let outside = tempfile::tempdir().unwrap();
    let outside_name = outside.path().to_str().unwrap();
    let root = Archive::default()
        .symlink("lib", "usr/lib")
        .file("lib/a", "made through a link to what is missing")
        .symlink("abs", "/usr/lib")
        .file("abs/b", "x")
        .symlink("up", "../../../../usr")
        .file("up/lib/c", "x")
        .symlink("away", outside_name)
        .file("away/d", "x")
        .symlink("root", "/")
        .file("root/e", "x")
        .directory("abs/deep")
        .entry(EntryType::Directory, "abs/deep", "", 0o711, b"")
        .good();
    for name in ["usr/lib/a", "usr/lib/b", "usr/lib/c", "e", "usr/lib/deep"] {
        assert!(root.path().join(name).exists(), "{name}");
    }
    assert_eq!(fs::metadata(root.path().join("usr/lib/deep")).unwrap().mode() & 0o777, 0o711);
    assert!(root.path().join(outside_name.trim_start_matches('/')).join("d").exists());
    assert_eq!(fs::read_dir(outside.path()).unwrap().count(), 0);
}

#[test]
fn a_hard_link_to_a_symbolic_link_is_the_link() {
    let root = Archive::default().symlink("passwd", "/etc/passwd").hard_link("p", "passwd").good();
    assert_eq!(fs::read_link(root.path().join("p")).unwrap(), Path::new("/etc/passwd"));
    let root = Archive::default().symlink("passwd", "/etc/passwd").hard_link("p", "passwd").file("p", "own").good();
    assert_eq!(fs::read(root.path().join("p")).unwrap(), b"own");
    assert_ne!(fs::read("/etc/passwd").unwrap(), b"own");
}

#[test]
fn long_names_and_pax_records_apply_to_the_next_entry_only() {
    let long = format!("{}/{}", "d".repeat(120), "f".repeat(200));
    let gnu =
        Archive::default().entry(EntryType::GNULongName, "././@LongLink", "", 0o644, format!("{long}\0").as_bytes());
    let root = gnu.file("short", "long").file("other", "o").good();
    assert_eq!(fs::read(root.path().join(&long)).unwrap(), b"long");
    assert!(root.path().join("other").exists() && !root.path().join("short").exists());
    let link = "t".repeat(150);
    let root = Archive::default()
        .pax(&[("path", long.as_bytes()), ("mtime", b"-1.5")])
        .file("short", "pax")
        .pax(&[("linkpath", link.as_bytes())])
        .symlink("s", "x")
        .file("other", "o")
        .good();
    let data = fs::metadata(root.path().join(&long)).unwrap();
    assert_eq!((data.mtime(), data.mtime_nsec()), (-2, 500_000_000));
    assert_eq!(fs::read_link(root.path().join("s")).unwrap(), Path::new(&link));
    assert_eq!(fs::metadata(root.path().join("other")).unwrap().mtime(), 1_000_000_000);
}

#[test]
fn extended_attributes_are_kept_except_the_overlays_own() {
    let capability = [1, 0, 0, 2, 0, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    let root = Archive::default()
        .pax(&[
            ("SCHILY.xattr.user.note", b"a\nb=c\0d"),
            ("SCHILY.xattr.security.capability", &capability),
            ("SCHILY.xattr.trusted.overlay.redirect", b"/etc"),
            ("SCHILY.xattr.user.overlay.metacopy", b""),
        ])
        .file("ping", "x")
        .pax(&[("SCHILY.xattr.user.dir", b"v")])
        .directory("d")
        .good();
    let path = root.path().join("ping");
    if xattr(&path, "user.note").is_none() {
        return println!("skipped: {} has no user xattrs", root.path().display());
    }
    assert_eq!(xattr(&path, "user.note").unwrap(), b"a\nb=c\0d");
    assert_eq!(xattr(&root.path().join("d"), "user.dir").unwrap(), b"v");
    assert!(!is_root() || xattr(&path, "security.capability").is_some());
    assert_eq!(xattr(&path, "trusted.overlay.redirect"), None);
    assert_eq!(xattr(&path, "user.overlay.metacopy"), None);
}

/// 1 MiB with `head` at its start and `tail` at its end.
fn check_sparse(root: &Path, name: &str) {
    let bytes = fs::read(root.join(name)).unwrap();
    assert_eq!(bytes.len(), 1 << 20, "{name}");
    assert!(bytes.starts_with(b"head\0") && bytes.ends_with(b"\0tail"), "{name}");
    assert_eq!(bytes.iter().filter(|&&byte| byte != 0).count(), 8, "{name}");
    assert!(fs::metadata(root.join(name)).unwrap().blocks() < 1024, "{name} has no holes");
}

#[test]
fn sparse_files_of_every_format_keep_their_holes() {
    let end = (1 << 20) - 4;
    let mut archive = Archive::default();
    let mut header = Header::new_gnu();
    header.set_path("gnu").unwrap();
    header.set_entry_type(EntryType::GNUSparse);
    header.set_size(8);
    header.set_mode(0o644);
    header.set_uid(0);
    header.set_gid(0);
    header.set_mtime(0);
    let gnu = header.as_gnu_mut().unwrap();
    gnu.sparse[0].set_offset(0);
    gnu.sparse[0].set_length(4);
    gnu.sparse[1].set_offset(end);
    gnu.sparse[1].set_length(4);
    gnu.set_real_size(1 << 20);
    archive.header(&mut header, b"headtail");
    let end = end.to_string();
    let size = (1 << 20).to_string();
    let map = format!("0,4,{end},4");
    let mut stored = format!("2\n0\n4\n{end}\n4\n").into_bytes();
    stored.resize(512, 0);
    stored.extend_from_slice(b"headtail");
    let root = archive
        .pax(&[
            ("GNU.sparse.size", size.as_bytes()),
            ("GNU.sparse.numblocks", b"2"),
            ("GNU.sparse.offset", b"0"),
            ("GNU.sparse.numbytes", b"4"),
            ("GNU.sparse.offset", end.as_bytes()),
            ("GNU.sparse.numbytes", b"4"),
        ])
        .file("pax-0.0", "headtail")
        .pax(&[
            ("GNU.sparse.size", size.as_bytes()),
            ("GNU.sparse.name", b"pax-0.1"),
            ("GNU.sparse.map", map.as_bytes()),
        ])
        .file("GNUSparseFile.1/x", "headtail")
        .pax(&[
            ("GNU.sparse.major", b"1"),
            ("GNU.sparse.minor", b"0"),
            ("GNU.sparse.name", b"pax-1.0"),
            ("GNU.sparse.realsize", size.as_bytes()),
        ])
        .entry(EntryType::Regular, "GNUSparseFile.2/x", "", 0o644, &stored)
        .file("after", "x")
        .good();
    for name in ["gnu", "pax-0.0", "pax-0.1", "pax-1.0"] {
        check_sparse(root.path(), name);
    }
    assert!(root.path().join("after").exists());
}

#[test]
fn gnu_tar_and_we_agree() {
    let source = tempfile::tempdir().unwrap();
    let at = |name: &str| source.path().join(name);
    fs::create_dir_all(at("a/b")).unwrap();
    let mut holes = fs::File::create(at("a/holes")).unwrap();
    for piece in 0..60_u64 {
        std::os::unix::fs::FileExt::write_at(&holes, b"data", piece * 131_072).unwrap();
    }
    holes.flush().unwrap();
    fs::write(at(&format!("a/b/{}", "n".repeat(220))), "long").unwrap();
    fs::set_permissions(at("a/b"), fs::Permissions::from_mode(0o3710)).unwrap();
    std::os::unix::fs::symlink("/x".repeat(80), at("l")).unwrap();
    for format in ["gnu", "pax"] {
        let made = std::process::Command::new("tar")
            .args(["--sparse", &format!("--format={format}"), "-c", "."])
            .current_dir(source.path())
            .output()
            .unwrap();
        assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
        let target = tempfile::tempdir().unwrap();
        unpack(&mut Cursor::new(made.stdout), target.path(), &Budget::default()).unwrap();
        let differ = std::process::Command::new("diff")
            .arg("-r")
            .arg("--no-dereference")
            .args([source.path(), target.path()])
            .output();
        assert!(differ.unwrap().stdout.is_empty(), "{format}");
        assert_eq!(fs::metadata(target.path().join("a/b")).unwrap().mode() & 0o7777, 0o3710);
        let blocks = |root: &Path| fs::metadata(root.join("a/holes")).unwrap().blocks();
        assert!(blocks(target.path()) <= blocks(source.path()), "{format}");
    }
}

#[test]
fn compression_is_told_by_the_bytes() {
    let plain = Archive::default().file("a", "x").bytes();
    let gzip = |bytes: &[u8]| {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        encoder.write_all(bytes).unwrap();
        encoder.finish().unwrap()
    };
    let zstd = |bytes: &[u8]| zstd::encode_all(bytes, 1).unwrap();
    let (first, second) = plain.split_at(700);
    for (name, bytes) in [
        ("plain", plain.clone()),
        ("gzip", gzip(&plain)),
        ("gzip of two members", [gzip(first), gzip(second)].concat()),
        ("zstd", zstd(&plain)),
        ("zstd of two frames", [zstd(first), zstd(second)].concat()),
        ("zstd after a skippable frame", [&[0x51, 0x2a, 0x4d, 0x18, 2, 0, 0, 0, 9, 9][..], &zstd(&plain)].concat()),
    ] {
        let mut found = Vec::new();
        decompress(Box::new(Cursor::new(bytes)), &Budget::default()).unwrap().read_to_end(&mut found).unwrap();
        assert!(found == plain, "{name}");
    }
    let mut cut = decompress(Box::new(Cursor::new(gzip(&plain)[..60].to_vec())), &Budget::default()).unwrap();
    assert!(cut.read_to_end(&mut Vec::new()).is_err());
}

#[test]
fn a_deep_tree_does_not_exhaust_descriptors() {
    let mut archive = Archive::default();
    let mut path = String::new();
    for _ in 0..1300 {
        path.push_str("d/");
        archive = archive.pax(&[("path", path.as_bytes())]).directory("d");
    }
    archive =
        archive.pax(&[("path", format!("{path}f").as_bytes())]).file("f", "deep").file("d", "file over a deep tree");
    let root = archive.good();
    assert_eq!(fs::read(root.path().join("d")).unwrap(), b"file over a deep tree");
}

/// What another user's layer would leave to us: a single-id user namespace keeps our own ids and skips devices.
#[test]
fn in_a_user_namespace_with_one_id_owners_stay_ours() {
    const INSIDE: &str = "AMPHORA_TEST_UNPACK_INSIDE";
    let owned = |archive: Archive| {
        let mut archive =
            archive.pax(&[("uid", b"1234"), ("gid", b"99")]).entry(EntryType::Regular, "su", "", 0o4755, b"x");
        let mut header = Header::new_gnu();
        header.set_path("null").unwrap();
        header.set_entry_type(EntryType::Char);
        header.set_device_major(1).unwrap();
        header.set_device_minor(3).unwrap();
        header.set_mode(0o666);
        header.set_uid(0);
        header.set_gid(0);
        header.set_mtime(0);
        header.set_size(0);
        archive.header(&mut header, b"");
        archive.file(".wh.gone", "").directory("d").file("d/.wh..wh..opq", "")
    };
    if std::env::var_os(INSIDE).is_some() {
        let root = owned(Archive::default()).good();
        let su = fs::metadata(root.path().join("su")).unwrap();
        assert_eq!((su.uid(), su.mode() & 0o7777), (0, 0o4755));
        assert!(!root.path().join("null").exists());
        assert!(is_whiteout(&root.path().join("gone")));
        assert_eq!(xattr(&root.path().join("d"), "user.overlay.opaque").as_deref(), Some(&b"y"[..]));
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o777)).unwrap();
    let name = "unpack::tests::in_a_user_namespace_with_one_id_owners_stay_ours";
    let mut command = std::process::Command::new("unshare");
    command.args(["--user", "--map-root-user"]).arg(std::env::current_exe().unwrap());
    let run = command.args(["--exact", name, "--nocapture"]).env(INSIDE, "1").env("TMPDIR", folder.path()).output();
    match run {
        Err(error) => println!("skipped: unshare(1): {error}"),
        Ok(run) if String::from_utf8_lossy(&run.stderr).starts_with("unshare:") => {
            println!("skipped: {}", String::from_utf8_lossy(&run.stderr));
        }
        Ok(run) => assert!(
            run.status.success(),
            "{}{}",
            String::from_utf8_lossy(&run.stdout),
            String::from_utf8_lossy(&run.stderr)
        ),
    }
}

/// Set by hand to count system calls: `AMPHORA_TEST_TAR=x.tar strace -c -f …`.
#[test]
fn unpacks_the_archive_that_is_named() {
    let Some(path) = std::env::var_os("AMPHORA_TEST_TAR") else {
        return println!("skipped: AMPHORA_TEST_TAR names no archive");
    };
    let target = tempfile::tempdir().unwrap();
    let file = openat(CWD, Path::new(&path), OFlags::RDONLY, Mode::empty()).unwrap();
    let mut stream = decompress(Box::new(fs::File::from(file)), &Budget::default()).unwrap();
    unpack(&mut stream, target.path(), &Budget::default()).unwrap();
    assert!(fs::read_dir(target.path()).unwrap().count() > 0);
    if std::env::var_os("AMPHORA_TEST_KEEP").is_some() {
        println!("unpacked into {}", target.keep().display());
    }
}
