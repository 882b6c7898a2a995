//! Random stacks of layers, seen three ways: unpacked and mounted by the kernel's overlayfs; looked up without mounting;
//! and by applying the archives one entry after the other to one tree, here in memory.
//!
//! `AMPHORA_TEST_STACKS=COUNT` makes more of them, `AMPHORA_TEST_SEED=SEED` begins with another one: what failed says
//! which.

mod umoci;

use super::super::{Store, merged::locate};
use crate::{Budget, unpack::unpack};
use rustix::{
    fs::{Mode, OFlags, ResolveFlags, openat2},
    io::Errno,
    mount::{FsMountFlags, FsOpenFlags, MountAttrFlags, fsconfig_create, fsconfig_set_string, fsmount, fsopen},
};
use std::{
    collections::{BTreeMap, VecDeque},
    fmt::Write as _,
    fs, io,
    os::{
        fd::{AsFd, AsRawFd, OwnedFd},
        unix::fs::{FileTypeExt, MetadataExt},
    },
    path::{Path, PathBuf},
};
use tar::{EntryType, Header};
use test_inputs::{Random, setting};

/// Stacks in an ordinary run: a few seconds.
const STACKS: u64 = 300;
const LAYERS: u64 = 4;
const ENTRIES: u64 = 12;
const LOOKUPS: usize = 40;

/// A path of a few components.
fn random_path(random: &mut Random, names: &[&str], longest: u64) -> String {
    let length = 1 + random.below(longest);
    (0..length).map(|_| random.one(names)).collect::<Vec<_>>().join("/")
}

#[derive(Debug, Clone, PartialEq)]
struct Attributes {
    mode: u32,
    owner: (u32, u32),
    mtime: i64,
    xattr: Option<String>,
}

/// An entry of a layer.
#[derive(Debug, Clone)]
struct Item {
    path: String,
    what: What,
    attributes: Attributes,
}

#[derive(Debug, Clone)]
enum What {
    File(String),
    Directory,
    Link(String),
    HardLink(String),
    Fifo,
    /// /dev/null's.
    Device,
    Whiteout,
    Opaque,
}

fn item(random: &mut Random, number: u64) -> Item {
    const NAMES: &[&str] = &["a", "b", "c"];
    let path = random_path(random, NAMES, 3);
    let what = match random.below(20) {
        0..=5 => What::File(format!("content {number}")),
        6..=10 => What::Directory,
        11..=12 => {
            let start = random.one(&["", "", "/", "../"]);
            What::Link(format!("{start}{}", random_path(random, &["a", "b", "c", "..", "."], 3)))
        }
        13..=14 => What::HardLink(random_path(random, NAMES, 3)),
        15 => What::Fifo,
        16..=18 => What::Whiteout,
        _ => What::Opaque,
    };
    let path = match what {
        // The root's own entry, and its own mark.
        What::Directory | What::Opaque if random.below(8) == 0 => String::new(),
        _ => path,
    };
    let attributes = Attributes {
        mode: random.one(&[0o755, 0o700, 0o1777, 0o2755, 0o4711, 0o000, 0o644]),
        owner: random.one(&[(0, 0), (0, 0), (7, 8), (1000, 50_000)]),
        mtime: 1_000_000_000 + random.below(1000).cast_signed(),
        xattr: (random.below(4) == 0).then(|| format!("value {number}")),
    };
    Item { path, what, attributes }
}

/// The archive of a layer.
fn archive(items: &[Item]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for Item { path, what, attributes } in items {
        let (directory, name) = path.rsplit_once('/').unwrap_or(("", path));
        let (kind, path, link, data) = match what {
            What::File(text) => (EntryType::Regular, path.clone(), "", text.as_str()),
            What::Directory => (EntryType::Directory, format!("./{path}"), "", ""),
            What::Link(target) => (EntryType::Symlink, path.clone(), target.as_str(), ""),
            What::HardLink(target) => (EntryType::Link, path.clone(), target.as_str(), ""),
            What::Fifo => (EntryType::Fifo, path.clone(), "", ""),
            What::Device => (EntryType::Char, path.clone(), "", ""),
            What::Whiteout => (EntryType::Regular, format!("./{directory}/.wh.{name}"), "", ""),
            What::Opaque => (EntryType::Regular, format!("./{path}/.wh..wh..opq"), "", ""),
        };
        if let Some(value) = &attributes.xattr {
            let record = format!(" SCHILY.xattr.user.x={value}\n");
            let record = format!("{}{record}", record.len() + 2);
            push(&mut bytes, EntryType::XHeader, "x", "", attributes, &record);
        }
        push(&mut bytes, kind, &path, link, attributes, data);
    }
    bytes.extend_from_slice(&[0; 1024]);
    bytes
}

fn push(bytes: &mut Vec<u8>, kind: EntryType, path: &str, link: &str, attributes: &Attributes, data: &str) {
    if path.len() > 100 {
        push(bytes, EntryType::GNULongName, "long", "", attributes, path);
    }
    let path = &path[..path.len().min(100)];
    let mut header = Header::new_gnu();
    if kind == EntryType::Char {
        header.set_device_major(1).unwrap();
        header.set_device_minor(3).unwrap();
    }
    header.as_old_mut().name[..path.len()].copy_from_slice(path.as_bytes());
    header.as_old_mut().linkname[..link.len()].copy_from_slice(link.as_bytes());
    header.set_entry_type(kind);
    header.set_mode(attributes.mode);
    header.set_uid(attributes.owner.0.into());
    header.set_gid(attributes.owner.1.into());
    header.set_mtime(attributes.mtime.cast_unsigned());
    header.set_size(data.len() as u64);
    header.set_cksum();
    bytes.extend_from_slice(header.as_bytes());
    bytes.extend_from_slice(data.as_bytes());
    bytes.resize(bytes.len().next_multiple_of(512), 0);
}

/// What a tree has under a name.
#[derive(Debug, Clone)]
struct Node {
    kind: Kind,
    /// None: a directory that all archives left out.
    attributes: Option<Attributes>,
    /// The layer that had it last.
    layer: usize,
    /// The layer that said what it is like.
    given: usize,
}

#[derive(Debug, Clone)]
enum Kind {
    File(String),
    Link(String),
    Fifo,
    Device,
    Directory(BTreeMap<String, Node>),
}

impl Node {
    fn directory(layer: usize) -> Self {
        Self { kind: Kind::Directory(BTreeMap::new()), attributes: None, layer, given: layer }
    }

    fn children(&mut self) -> &mut BTreeMap<String, Node> {
        match &mut self.kind {
            Kind::Directory(children) => children,
            other => panic!("{other:?} is no directory"),
        }
    }

    fn is_directory(&self) -> bool {
        matches!(self.kind, Kind::Directory(_))
    }

    /// What is left of it when a layer removes it: what that layer brought itself, and nothing of what was there before.
    fn survives(&mut self, layer: usize) -> bool {
        if self.given != layer {
            self.attributes = None;
        }
        if self.layer == layer && self.is_directory() {
            self.children().retain(|_, child| child.survives(layer));
        }
        self.layer == layer
    }

    /// That a layer has a directory, without saying what it is like.
    fn touch(&mut self, layer: usize) {
        self.layer = layer;
    }

    fn at(&mut self, path: &[String]) -> &mut Node {
        path.iter().fold(self, |node, name| node.children().get_mut(name).unwrap())
    }

    /// Where a directory's name leads, in what the layer itself has: links of lower layers are not followed. Makes what
    /// is missing, or fails.
    fn enter(&mut self, name: &str, layer: usize, make: bool) -> Option<Vec<String>> {
        let mut ahead: VecDeque<String> = components(name).map(str::to_owned).collect();
        let (mut path, mut links): (Vec<String>, _) = (Vec::new(), 0);
        while let Some(part) = ahead.pop_front() {
            if part == ".." {
                path.pop();
                continue;
            }
            let children = self.at(&path).children();
            match children.get_mut(&part) {
                Some(node) if node.is_directory() && (make || node.layer == layer) => {
                    node.touch(layer);
                    path.push(part);
                }
                Some(node) if node.layer == layer => {
                    let Kind::Link(target) = &node.kind else { return None };
                    links += 1;
                    if links > 40 {
                        return None;
                    }
                    if target.starts_with('/') {
                        path.clear();
                    }
                    components(target).rev().for_each(|part| ahead.push_front(part.to_owned()));
                }
                _ if make => {
                    children.insert(part.clone(), Node::directory(layer));
                    path.push(part);
                }
                _ => return None,
            }
        }
        Some(path)
    }

    /// Whether a directory's name leads through a link of the layer.
    fn is_behind_link(&mut self, name: &str, layer: usize) -> bool {
        let mut node = self;
        for part in components(name) {
            match node.children().get_mut(part) {
                Some(next) if next.layer == layer && next.is_directory() => node = next,
                other => return other.is_some_and(|it| it.layer == layer && matches!(it.kind, Kind::Link(_))),
            }
        }
        false
    }

    /// Applies one entry; None: no archive may have it here.
    fn apply(&mut self, item: &Item, layer: usize) -> Option<()> {
        let attributes = Some(item.attributes.clone());
        if let What::Opaque = item.what {
            if !self.is_behind_link(&item.path, layer) {
                let path = self.enter(&item.path, layer, true)?;
                self.at(&path).children().retain(|_, child| child.survives(layer));
            }
            return Some(());
        }
        if item.path.is_empty() {
            (self.given, self.attributes) = (layer, attributes);
            return Some(());
        }
        let (parent, name) = item.path.rsplit_once('/').unwrap_or(("", &item.path));
        let kind = match &item.what {
            What::File(text) => Kind::File(text.clone()),
            What::Link(target) => Kind::Link(target.clone()),
            What::Fifo => Kind::Fifo,
            What::Device => Kind::Device,
            What::HardLink(target) => return self.hard_link(parent, name, target, layer),
            What::Whiteout if self.is_behind_link(parent, layer) => return Some(()),
            What::Whiteout => {
                let path = self.enter(parent, layer, true)?;
                self.at(&path).children().retain(|other, child| other != name || child.survives(layer));
                return Some(());
            }
            What::Directory | What::Opaque => Kind::Directory(BTreeMap::new()),
        };
        let path = self.enter(parent, layer, true)?;
        let children = self.at(&path).children();
        match children.get_mut(name) {
            Some(node) if node.is_directory() && matches!(item.what, What::Directory) => {
                (node.layer, node.given, node.attributes) = (layer, layer, attributes);
            }
            _ => drop(children.insert(name.to_owned(), Node { kind, attributes, layer, given: layer })),
        }
        Some(())
    }

    fn hard_link(&mut self, parent: &str, name: &str, target: &str, layer: usize) -> Option<()> {
        let (old_parent, old_name) = target.rsplit_once('/').unwrap_or(("", target));
        let mut old = self.enter(old_parent, layer, false)?;
        let node = self.at(&old).children().get(old_name).filter(|node| node.layer == layer)?.clone();
        if (parent, name) == (old_parent, old_name) {
            return Some(());
        }
        if node.is_directory() {
            return None;
        }
        old.push(old_name.to_owned());
        let path = self.enter(parent, layer, true)?;
        // Putting it there would remove it.
        if old.starts_with(&[&path[..], &[name.to_owned()]].concat()) {
            return None;
        }
        self.at(&path).children().insert(name.to_owned(), node);
        Some(())
    }
}

fn components(path: &str) -> impl DoubleEndedIterator<Item = &str> {
    path.split('/').filter(|part| !matches!(*part, "" | "."))
}

/// A random layer that can be applied to the tree, and, now and then, an entry that can't be.
fn layer(random: &mut Random, tree: &mut Node, number: usize) -> (Vec<Item>, Option<Item>) {
    let (mut items, mut impossible) = (Vec::new(), None);
    // Every layer has a root, whether or not it says so.
    tree.touch(number);
    for at in 0..1 + random.below(ENTRIES) {
        let item = item(random, number as u64 * 100 + at);
        let mut next = tree.clone();
        if next.apply(&item, number).is_some() {
            *tree = next;
            items.push(item);
        } else if impossible.is_none() {
            impossible = Some((items.len(), item));
        }
    }
    // Only the end of the archive is known not to have made it possible.
    (items.clone(), impossible.filter(|(at, _)| *at == items.len()).map(|(_, item)| item))
}

/// The layers, mounted together and read-only.
fn mounted(base_first: &[PathBuf], empty: &Path) -> io::Result<OwnedFd> {
    let context = fsopen("overlay", FsOpenFlags::FSOPEN_CLOEXEC)?;
    for lower in base_first.iter().rev().map(PathBuf::as_path).chain([empty]) {
        fsconfig_set_string(context.as_fd(), "lowerdir+", lower)?;
    }
    fsconfig_create(context.as_fd())?;
    Ok(fsmount(context.as_fd(), FsMountFlags::FSMOUNT_CLOEXEC, MountAttrFlags::empty())?)
}

/// Everything beneath a directory, as lines.
fn seen(place: &Path, name: &str, expected: Option<&Node>, lines: &mut String) {
    let data = match fs::symlink_metadata(place) {
        // The kernel lists whiteouts in a directory that only one layer has, though there is nothing to be found.
        Err(error) if error.kind() == io::ErrorKind::NotFound => return,
        other => other.unwrap(),
    };
    let kind = data.file_type();
    let what = if kind.is_dir() {
        "directory".to_owned()
    } else if kind.is_symlink() {
        format!("link to {}", fs::read_link(place).unwrap().display())
    } else if kind.is_fifo() {
        "fifo".to_owned()
    } else if kind.is_char_device() {
        format!("character device {}", data.rdev())
    } else if kind.is_file() {
        format!("file of `{}`", fs::read_to_string(place).unwrap())
    } else {
        format!("{kind:?}")
    };
    let mode = if kind.is_symlink() { 0o777 } else { data.mode() & 0o7777 };
    // When a directory that no entry asked for was made is nobody's business; of a root not more matters than this.
    let is_untold = |node: &Node| node.attributes.is_none() || name.is_empty();
    let mtime = if expected.is_some_and(is_untold) { 0 } else { data.mtime() };
    let mut value = [0_u8; 64];
    let xattr = rustix::fs::lgetxattr(place, "user.x", &mut value).map_or(&value[..0], |length| &value[..length]);
    let xattr = if name.is_empty() { "" } else { std::str::from_utf8(xattr).unwrap() };
    writeln!(lines, "{name}: {what} {mode:o} {}:{} {mtime} {xattr}", data.uid(), data.gid()).unwrap();
    if kind.is_dir() {
        let mut names: Vec<String> =
            fs::read_dir(place).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        for child in names {
            let expected = expected.and_then(|node| match &node.kind {
                Kind::Directory(children) => children.get(&child),
                _ => None,
            });
            seen(&place.join(&child), &format!("{name}/{child}"), expected, lines);
        }
    }
}

/// The same of a tree in memory.
fn told(node: &Node, name: &str, lines: &mut String) {
    let what = match &node.kind {
        Kind::Directory(_) => "directory".to_owned(),
        Kind::Link(target) => format!("link to {target}"),
        Kind::Fifo => "fifo".to_owned(),
        Kind::Device => "character device 259".to_owned(),
        Kind::File(text) => format!("file of `{text}`"),
    };
    let left_out = Attributes { mode: 0o755, owner: (0, 0), mtime: 0, xattr: None };
    let Attributes { mode, owner, mtime, xattr } = node.attributes.as_ref().unwrap_or(&left_out);
    let mode = if matches!(node.kind, Kind::Link(_)) { 0o777 } else { *mode };
    // The kernel has these on files and directories only.
    let has_xattr = matches!(node.kind, Kind::File(_) | Kind::Directory(_)) && !name.is_empty();
    let mtime = if name.is_empty() { &0 } else { mtime };
    let xattr = xattr.as_deref().filter(|_| has_xattr).unwrap_or_default();
    writeln!(lines, "{name}: {what} {mode:o} {}:{} {mtime} {xattr}", owner.0, owner.1).unwrap();
    if let Kind::Directory(children) = &node.kind {
        for (child, node) in children {
            told(node, &format!("{name}/{child}"), lines);
        }
    }
}

/// What a path leads to for a process whose root the mount is: the content of a file.
fn opened(root: &OwnedFd, path: &str) -> Option<String> {
    let within = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
    let found = loop {
        match openat2(root, path, OFlags::PATH | OFlags::CLOEXEC, Mode::empty(), within) {
            // A `..` while anything on the machine was renamed.
            Err(Errno::AGAIN) => {}
            other => break other.ok()?,
        }
    };
    let name = format!("/proc/self/fd/{}", found.as_raw_fd());
    fs::metadata(&name).unwrap().is_file().then(|| fs::read_to_string(&name).unwrap())
}

/// Layers, for messages.
fn listed(layers: &[Vec<Item>]) -> String {
    let items = layers.iter().enumerate().flat_map(|(number, items)| items.iter().map(move |item| (number, item)));
    items.fold(String::new(), |lines, (number, Item { path, what, attributes })| {
        format!("{lines}\nlayer {number}: `{path}` {what:?} {attributes:?}")
    })
}

fn check(seed: u64) -> Result<(), String> {
    let mut random = Random::new(seed);
    let folder = tempfile::tempdir().unwrap();
    let empty = folder.path().join("empty");
    fs::create_dir(&empty).unwrap();
    let mut tree = Node::directory(usize::MAX);
    let (mut stack, mut archives): (Vec<PathBuf>, Vec<Vec<Item>>) = (Vec::new(), Vec::new());
    for number in 0..usize::try_from(1 + random.below(LAYERS)).unwrap() {
        let again = usize::try_from(random.below(10)).unwrap();
        if let Some(items) = archives.get(again).cloned() {
            // The same layer a second time is the same directory.
            tree.touch(number);
            if items.iter().try_for_each(|item| tree.apply(item, number)).is_none() {
                return Err("a layer could be applied once, and not twice".to_owned());
            }
            stack.push(stack[again].clone());
            archives.push(items);
            continue;
        }
        let (items, impossible) = layer(&mut random, &mut tree, number);
        let place = folder.path().join(number.to_string());
        fs::create_dir(&place).unwrap();
        unpack(&mut archive(&items).as_slice(), &place, &Budget::default())
            .map_err(|error| format!("layer {number}{}: {error}", listed(std::slice::from_ref(&items))))?;
        if let Some(item) = impossible {
            let place = folder.path().join(format!("{number}-impossible"));
            fs::create_dir(&place).unwrap();
            let items: Vec<_> = items.iter().cloned().chain([item]).collect();
            if unpack(&mut archive(&items).as_slice(), &place, &Budget::default()).is_ok() {
                return Err(format!("this could be unpacked: {}", listed(&[items])));
            }
        }
        stack.push(place);
        archives.push(items);
    }
    let store = Store::open(&folder.path().join("store")).unwrap();
    let mut shown = store.completed(&stack).unwrap();
    let mount = mounted(&shown, &empty).map_err(|error| format!("mounting: {error}"))?;
    let root = PathBuf::from(format!("/proc/self/fd/{}/", mount.as_raw_fd()));
    let (mut found, mut expected) = (String::new(), String::new());
    seen(&root, "", Some(&tree), &mut found);
    told(&tree, "", &mut expected);
    if found != expected {
        return Err(format!("{}\nmounted, they are\n{found}expected was\n{expected}", listed(&archives)));
    }
    shown.reverse();
    for _ in 0..LOOKUPS {
        let (start, end) = (random.one(&["", "/"]), random.one(&["", "", "", "/", "/."]));
        let path = format!("{start}{}{end}", random_path(&mut random, &["a", "b", "c", "a", "b", "c", "..", "."], 4));
        let looked_up = locate(&shown, path.as_ref()).map_err(|error| format!("{path}: {error}"))?;
        let looked_up = looked_up.map(|file| fs::read_to_string(file).unwrap());
        let mounted = opened(&mount, &path);
        if looked_up != mounted {
            let archives = listed(&archives);
            return Err(format!("{archives}\n{found}{path} is {looked_up:?} looked up, and {mounted:?} mounted"));
        }
    }
    Ok(())
}

#[test]
fn random_stacks_of_layers_are_the_same_unpacked_looked_up_and_applied() {
    if !rustix::process::geteuid().is_root() {
        return println!("skipped: only root mounts an overlay and changes owners");
    }
    let (first, count) = (setting("AMPHORA_TEST_SEED").unwrap_or(0), setting("AMPHORA_TEST_STACKS").unwrap_or(STACKS));
    for seed in first..first + count {
        if let Err(difference) = check(seed) {
            panic!("{difference}\nagain with AMPHORA_TEST_SEED={seed} AMPHORA_TEST_STACKS=1");
        }
    }
}
