//! Archives that want out, are damaged, or are too much.

use super::*;
use crate::budget::Limits;

/// What hostile entries try to make beside the root; nobody else makes it.
const OUTSIDE: &str = "amphora-test-was-here";

#[test]
fn hostile_entries_are_refused() {
    let secret = tempfile::NamedTempFile::new().unwrap();
    let secret_name = secret.path().to_str().unwrap();
    let long = "a/".repeat(3000);
    let table: Vec<(&str, Archive)> = vec![
        ("parent", Archive::default().file(&format!("../../{OUTSIDE}"), "")),
        ("parent in the middle", Archive::default().file(&format!("a/../../{OUTSIDE}"), "")),
        ("hard link out", Archive::default().hard_link("x", "../../etc/passwd")),
        ("hard link to a file outside", Archive::default().hard_link("x", secret_name)),
        (
            "hard link through a link out",
            Archive::default().symlink("l", "/tmp").hard_link("x", &format!("l/{}", &secret_name[5..])),
        ),
        ("hard link to nothing", Archive::default().hard_link("x", "y")),
        ("hard link to a directory", Archive::default().directory("d").hard_link("x", "d")),
        ("link loop", Archive::default().symlink("a", "b").symlink("b", "a").file("a/x", "")),
        ("file as a directory", Archive::default().file("a", "").file("a/b", "")),
        ("whiteout of the parent", Archive::default().file("a/.wh...", "")),
        ("whiteout of nothing", Archive::default().file("a/.wh.", "")),
        ("root as a file", Archive::default().file("./", "").file(".", "")),
        ("empty link", Archive::default().symlink("a", "")),
        ("PAX path out", Archive::default().pax(&[("path", format!("../{OUTSIDE}").as_bytes())]).file("fine", "")),
        ("PAX path with NUL", Archive::default().pax(&[("path", b"a\0b")]).file("fine", "")),
        ("PAX path too long", Archive::default().pax(&[("path", long.as_bytes())]).file("fine", "")),
        ("PAX size", Archive::default().pax(&[("size", b"18446744073709551615")]).file("fine", "")),
        ("PAX owner", Archive::default().pax(&[("uid", b"4294967295")]).file("fine", "")),
        ("unknown type", Archive::default().entry(EntryType::new(b'V'), "volume", "", 0o644, b"")),
        ("multi-volume", Archive::default().entry(EntryType::new(b'M'), "m", "", 0o644, b"")),
    ];
    for (name, archive) in table {
        let (target, result) = archive.unpack();
        let message = result.expect_err(name).to_string();
        println!("{name}: {message}");
        assert!(!target.path().parent().unwrap().join(OUTSIDE).exists(), "{name}");
    }
    assert_eq!(fs::read(secret.path()).unwrap(), b"");
}

#[test]
fn damaged_streams_are_named() {
    let whole = Archive::default().file("a", "x").entry(EntryType::Regular, "big", "", 0o644, &[7; 5000]);
    let mut huge = Archive::default();
    let mut header = Header::new_gnu();
    header.set_path("claims-much").unwrap();
    header.set_size(1 << 60);
    header.set_mode(0o644);
    header.set_uid(0);
    header.set_gid(0);
    header.set_mtime(0);
    header.set_cksum();
    huge.0.extend_from_slice(header.as_bytes());
    let mut wrong_sum = whole.bytes();
    wrong_sum[3] ^= 1;
    let mut long_name = Header::new_gnu();
    long_name.set_entry_type(EntryType::GNULongName);
    long_name.set_size(1 << 40);
    long_name.set_path("././@LongLink").unwrap();
    long_name.set_cksum();
    for (name, bytes, expected) in [
        ("cut in data", whole.bytes()[..2000].to_vec(), "`big`"),
        ("cut in a header", whole.bytes()[..1200].to_vec(), "`a`"),
        ("claims an exabyte", huge.bytes(), "`claims-much`"),
        ("checksum", wrong_sum, "checksum"),
        ("no tar", vec![b'x'; 4096], "checksum"),
        ("long name of a terabyte", long_name.as_bytes().to_vec(), "extension header"),
    ] {
        let target = tempfile::tempdir().unwrap();
        let error = unpack(&mut Cursor::new(bytes), target.path(), &Budget::default()).expect_err(name).to_string();
        assert!(error.contains(expected), "{name}: {error}");
    }
}

#[test]
fn bounds_hold() {
    let archive = Archive::default().file("a", "x").file("b", "y").file("c", "z");
    let target = tempfile::tempdir().unwrap();
    let bounds = |entries, unpacked_bytes| Budget::new(Limits { entries, unpacked_bytes, ..Limits::default() });
    let few = bounds(2, 1 << 20);
    let error = unpack(&mut Cursor::new(archive.bytes()), target.path(), &few).unwrap_err().to_string();
    assert!(error.contains("at entry `c`: it has more than 2 entries"), "{error}");
    let small = bounds(10, 2000);
    let error = unpack(&mut Cursor::new(archive.bytes()), target.path(), &small).unwrap_err().to_string();
    assert!(error.contains("2000 bytes"), "{error}");
    // Ten thousand times as much after decompression, behind the end of the archive.
    let zeros = zstd::encode_all(std::io::repeat(0).take(64 << 20), 1).unwrap();
    let mut bomb = decompress(Box::new(Cursor::new(zeros)), &Budget::default()).unwrap();
    assert!(unpack(&mut bomb, target.path(), &bounds(10, 1 << 20)).is_err());
}

#[test]
fn a_whiteout_behind_a_link_of_its_own_layer_hides_nothing() {
    let archive = Archive::default()
        .directory("b")
        .directory("etc")
        .symlink("a", "b")
        .symlink("link", "/etc")
        .file("a/.wh.a", "")
        .file("link/.wh.passwd", "")
        .file("link/.wh..wh..opq", "");
    let target = archive.good();
    assert!(fs::symlink_metadata(target.path().join("b/a")).is_err());
    assert!(fs::symlink_metadata(target.path().join("etc/passwd")).is_err());
    for name in ["trusted.overlay.opaque", "user.overlay.opaque"] {
        assert_eq!(xattr(&target.path().join("etc"), name), None, "{name}");
    }
}

#[test]
fn many_extension_headers_before_one_entry_are_refused() {
    let value = vec![b'x'; 600 << 10];
    let archive = Archive::default().pax(&[("comment", &value)]).pax(&[("comment", &value)]).file("a", "");
    let (_target, result) = archive.unpack();
    let error = result.unwrap_err().to_string();
    assert!(error.contains("extension headers of"), "{error}");
}

#[test]
fn attributes_of_directories_are_not_held_without_end() {
    let value = vec![b'x'; 1 << 20];
    let mut archive = Archive::default();
    for number in 0..100 {
        archive = archive.pax(&[("SCHILY.xattr.user.x", &value[..1000 << 10])]).directory(&format!("d{number}"));
    }
    let (_target, result) = archive.unpack();
    let error = result.unwrap_err().to_string();
    assert!(error.contains("bytes of memory"), "{error}");
}

#[test]
fn a_second_name_of_a_whiteout_hides_nothing() {
    let archive = Archive::default().directory("etc").file("etc/.wh.gone", "").hard_link("etc/passwd", "etc/gone");
    let (target, result) = archive.unpack();
    let error = result.unwrap_err().to_string();
    assert!(error.contains("a file that this layer removes"), "{error}");
    assert!(fs::symlink_metadata(target.path().join("etc/passwd")).is_err());
}

#[test]
fn a_link_that_a_later_entry_replaces_is_followed_no_more() {
    let archive = Archive::default()
        .directory("x")
        .symlink("l", "x")
        .symlink("x/up", "..")
        .file("l/first", "")
        // By this name `l` itself becomes a directory.
        .directory("l/up/l")
        .file("l/second", "");
    let target = archive.good();
    let there = |name: &str| fs::symlink_metadata(target.path().join(name)).is_ok();
    assert!(there("x/first") && there("l/second") && !there("x/second") && !there("l/first"));
    // Even one that replaces the link which it came by.
    let target = Archive::default().symlink("here", ".").file("here/here", "").good();
    assert!(target.path().join("here").is_file());
}

#[test]
fn directories_left_out_count_as_entries() {
    let deep = "d/".repeat(30);
    let archive = Archive::default().file(&format!("a/{deep}x"), "").file(&format!("b/{deep}x"), "");
    let target = tempfile::tempdir().unwrap();
    let few = Budget::new(Limits { entries: 60, ..Limits::default() });
    let error = unpack(&mut Cursor::new(archive.bytes()), target.path(), &few).unwrap_err().to_string();
    assert!(error.contains("it has more than 60 entries"), "{error}");
}

#[test]
fn a_replaced_directory_is_forgotten_without_a_look_at_its_neighbours() {
    let archive = Archive::default()
        .directory("a")
        .directory("a-b")
        .directory("a/c")
        .directory("a0")
        .file("a", "")
        .entry(EntryType::Directory, "a-b", "", 0o700, b"");
    let target = archive.good();
    assert!(target.path().join("a").is_file());
    assert_eq!(fs::metadata(target.path().join("a-b")).unwrap().mode() & 0o7777, 0o700);
    assert_eq!(fs::metadata(target.path().join("a0")).unwrap().mtime(), 1_000_000_000);
}

/// Twenty kilobytes of names behind links behind links took half a minute.
#[test]
fn links_lead_through_no_more_than_the_bound() {
    let deep = "d/".repeat(14);
    let mut archive = Archive::default().directory(&deep).symlink("l0", &deep);
    for number in 1..10 {
        let up = "../".repeat(14);
        archive = archive.symlink(&format!("l{number}"), &format!("l{}/{up}{deep}", number - 1));
    }
    for number in 0..20 {
        archive = archive.file(&format!("l9/{number}/file"), "");
    }
    archive.good();
    let target = tempfile::tempdir().unwrap();
    let few = |steps| Budget::new(Limits { steps, ..Limits::default() });
    let error = unpack(&mut Cursor::new(archive.bytes()), target.path(), &few(3000)).unwrap_err().to_string();
    assert!(error.contains("/file") && error.contains("more than 3000 steps through links"), "{error}");
    let mut linked = Archive::default().directory(&deep).symlink("a", &deep).file("a/f", "");
    for number in 0..200 {
        linked = linked.hard_link(&format!("h{number}"), "a/f");
    }
    linked.good();
    let target = tempfile::tempdir().unwrap();
    let error = unpack(&mut Cursor::new(linked.bytes()), target.path(), &few(1000)).unwrap_err().to_string();
    assert!(error.contains("steps through links"), "{error}");
}

#[test]
fn the_stores_own_mark_is_not_a_layers() {
    let value = b"sha256:0";
    let own = ("SCHILY.xattr.user.amphora.diff-id", &value[..]);
    let target = Archive::default().pax(&[own]).directory("./").good();
    assert_eq!(xattr(target.path(), "user.amphora.diff-id"), None);
}
