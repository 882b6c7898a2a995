//! Random stacks of layers once more, against another program: what `umoci unpack` makes of the image, entry by entry.
//!
//! umoci applies archives to one tree, one after the other. Where what it does is its own, no stack asks for it:
//!
//! | not in these stacks | umoci (0.4.7) | here |
//! |---|---|---|
//! | an entry beneath a link | follows links of lower layers too | each layer by itself, as Docker unpacks them (`random_stacks_…`) |
//! | an entry beneath what is no directory | fails | a directory takes its place, as in an overlay |
//! | the time of a directory in which one was made that is left out (not compared) | now | what its entry says |
//! | an attribute that the kernel has on files and directories only | fails | leaves it out, as GNU tar does |
//! | a directory left out in one with the set-group-id bit | has the bit too | 0755, as any other |
//! | a second name that is the first one | removes the file, and fails | changes nothing |
//! | a mark in a directory that is not there | makes none | makes it, as Docker and containerd do |
//! | a whiteout of what the same layer brought | removes it, or not, by the order of entries | never removes it (OCI image-spec, layer.md) |

use super::{
    Attributes, ENTRIES, Item, Kind, LAYERS, Node, Random, What, archive, components, item, listed, mounted, seen,
    setting,
};
use crate::{
    Budget,
    store::Store,
    unpack::{hex, unpack},
};
use serde_json::json;
use sha2::{Digest as _, Sha256};
use std::{fs, os::fd::AsRawFd, path::Path, process::Command};

/// Stacks in an ordinary run: a few seconds.
const STACKS: u64 = 60;

impl What {
    fn has_attributes(&self) -> bool {
        matches!(self, What::File(_) | What::Directory)
    }
}

impl Node {
    /// Whether a name leads through directories only, those included that are not there yet.
    fn is_plain(&self, name: &str) -> bool {
        let mut node = self;
        for part in components(name) {
            let Kind::Directory(children) = &node.kind else { return false };
            match children.get(part) {
                Some(next) => node = next,
                None => return true,
            }
        }
        node.is_directory()
    }

    /// Whether a layer brought any of it.
    fn has_of(&self, layer: usize) -> bool {
        let below = |children: &std::collections::BTreeMap<String, Node>| children.values().any(|it| it.has_of(layer));
        self.layer == layer || matches!(&self.kind, Kind::Directory(children) if below(children))
    }

    fn find(&self, name: &str) -> Option<&Node> {
        components(name).try_fold(self, |node, part| match &node.kind {
            Kind::Directory(children) => children.get(part),
            _ => None,
        })
    }

    /// Without the times of directories that umoci may have changed.
    fn untimed(mut self) -> Self {
        let Kind::Directory(children) = &mut self.kind else { return self };
        if self.given != self.layer || children.values().any(Self::is_directory) {
            self.attributes = None;
        }
        *children = std::mem::take(children).into_iter().map(|(name, node)| (name, node.untimed())).collect();
        self
    }

    /// Whether both programs should do the same with an entry.
    fn is_common(&self, item: &Item, layer: usize) -> bool {
        let parent = item.path.rsplit_once('/').map_or("", |(parent, _)| parent);
        match &item.what {
            What::Opaque => {
                let hidden = self.find(&item.path);
                let own =
                    |node: &Node| matches!(&node.kind, Kind::Directory(all) if all.values().any(|it| it.has_of(layer)));
                self.is_plain(&item.path) && hidden.is_some_and(|node| !own(node))
            }
            What::Whiteout => {
                self.is_plain(parent)
                    && self.find(parent).is_some()
                    && !self.find(&item.path).is_some_and(|node| node.has_of(layer))
            }
            What::HardLink(target) => {
                let old = target.rsplit_once('/').map_or("", |(old, _)| old);
                *target != item.path && self.is_plain(parent) && self.is_plain(old)
            }
            _ => self.is_plain(parent),
        }
    }
}

/// A random layer that both should apply in the same way.
fn layer(random: &mut Random, tree: &mut Node, number: usize) -> Vec<Item> {
    let mut items = Vec::new();
    tree.touch(number);
    for at in 0..1 + random.below(ENTRIES) {
        let mut item = item(random, number as u64 * 100 + at);
        item.attributes.xattr = item.attributes.xattr.filter(|_| item.what.has_attributes());
        if let What::Directory = item.what {
            item.attributes.mode &= !0o2000;
        }
        let mut next = tree.clone();
        if tree.is_common(&item, number) && next.apply(&item, number).is_some() {
            *tree = next;
            items.push(item);
        }
    }
    items
}

/// Writes the layout of an image with these layers and this tag.
fn write_layout(folder: &Path, layers: &[Vec<u8>]) {
    let blobs = folder.join("blobs/sha256");
    fs::create_dir_all(&blobs).unwrap();
    let blob = |media_type: &str, bytes: &[u8]| {
        let digest = hex(&Sha256::digest(bytes));
        fs::write(blobs.join(&digest), bytes).unwrap();
        json!({ "mediaType": media_type, "digest": format!("sha256:{digest}"), "size": bytes.len() })
    };
    let layers: Vec<_> = layers.iter().map(|tar| blob("application/vnd.oci.image.layer.v1.tar", tar)).collect();
    let diff_ids: Vec<_> = layers.iter().map(|layer| layer["digest"].clone()).collect();
    let config = json!({
        "architecture": "amd64", "os": "linux", "config": {}, "rootfs": { "type": "layers", "diff_ids": diff_ids },
    });
    let config = blob("application/vnd.oci.image.config.v1+json", config.to_string().as_bytes());
    let manifest = json!({ "schemaVersion": 2, "config": config, "layers": layers });
    let mut manifest = blob("application/vnd.oci.image.manifest.v1+json", manifest.to_string().as_bytes());
    manifest["annotations"] = json!({ "org.opencontainers.image.ref.name": "tag" });
    let index = json!({ "schemaVersion": 2, "manifests": [manifest] });
    fs::write(folder.join("index.json"), index.to_string()).unwrap();
    fs::write(folder.join("oci-layout"), r#"{"imageLayoutVersion":"1.0.0"}"#).unwrap();
}

/// What both show, as lines: umoci first.
fn both(layers: &[Vec<Item>], tree: &Node) -> Result<[String; 2], String> {
    let folder = tempfile::tempdir().unwrap();
    let place = |name: &str| folder.path().join(name);
    let archives: Vec<Vec<u8>> = layers.iter().map(|items| archive(items)).collect();
    write_layout(&place("layout"), &archives);
    let mut umoci = Command::new("umoci");
    umoci.arg("unpack").arg("--image").arg(format!("{}:tag", place("layout").display())).arg(place("bundle"));
    let ended = umoci.output().unwrap();
    if !ended.status.success() {
        return Err(format!("umoci: {}", String::from_utf8_lossy(&ended.stderr)));
    }
    let mut stack = Vec::new();
    for (number, mut tar) in archives.iter().map(Vec::as_slice).enumerate() {
        let target = place(&number.to_string());
        fs::create_dir(&target).unwrap();
        unpack(&mut tar, &target, &Budget::default()).map_err(|error| error.to_string())?;
        stack.push(target);
    }
    fs::create_dir(place("empty")).unwrap();
    let store = Store::open(&place("store")).unwrap();
    let mount = mounted(&store.completed(&stack).unwrap(), &place("empty")).unwrap();
    let mut lines = [String::new(), String::new()];
    let tree = &tree.clone().untimed();
    seen(&place("bundle/rootfs"), "", Some(tree), &mut lines[0]);
    seen(Path::new(&format!("/proc/self/fd/{}/", mount.as_raw_fd())), "", Some(tree), &mut lines[1]);
    Ok(lines)
}

fn compare(layers: &[Vec<Item>], tree: &Node) -> Result<(), String> {
    let layers_told = listed(layers);
    match both(layers, tree) {
        Ok([umoci, ours]) if umoci == ours => Ok(()),
        Ok([umoci, ours]) => Err(format!("{layers_told}\numoci makes of it\n{umoci}here it is\n{ours}")),
        Err(error) => Err(format!("{layers_told}\n{error}")),
    }
}

fn is_possible() -> bool {
    let is_root = rustix::process::geteuid().is_root();
    let possible = is_root && Command::new("umoci").arg("--version").output().is_ok();
    if !possible {
        println!("skipped: umoci is not installed, or this is not root, who mounts overlays and changes owners");
    }
    possible
}

#[test]
fn random_stacks_of_layers_are_what_umoci_makes_of_them() {
    if !is_possible() {
        return;
    }
    let (first, count) = (setting("AMPHORA_TEST_SEED").unwrap_or(0), setting("AMPHORA_TEST_STACKS").unwrap_or(STACKS));
    for seed in first..first + count {
        let mut random = Random::new(seed);
        let mut tree = Node::directory(usize::MAX);
        let number = usize::try_from(1 + random.below(LAYERS)).unwrap();
        let layers: Vec<_> = (0..number).map(|number| layer(&mut random, &mut tree, number)).collect();
        if let Err(difference) = compare(&layers, &tree) {
            panic!("{difference}\nagain with AMPHORA_TEST_SEED={seed} AMPHORA_TEST_STACKS=1");
        }
    }
}

/// A layer of entries with the modes and owners of the first list, by hand.
fn by_hand(entries: &[(&str, What, u32, (u32, u32))]) -> Vec<Item> {
    let item = |(path, what, mode, owner): &(&str, What, u32, (u32, u32))| Item {
        path: (*path).to_owned(),
        what: what.clone(),
        attributes: Attributes {
            mode: *mode,
            owner: *owner,
            mtime: 1_000_000_000,
            xattr: what.has_attributes().then(|| "x".to_owned()),
        },
    };
    entries.iter().map(item).collect()
}

#[test]
fn stacks_made_by_hand_are_what_umoci_makes_of_them() {
    if !is_possible() {
        return;
    }
    let (file, directory) = (|| What::File("text".to_owned()), || What::Directory);
    let long = "n".repeat(200);
    let deep = format!("{long}/{long}/{long}");
    let root = (0, 0);
    let base = || {
        by_hand(&[
            ("", directory(), 0o711, (7, 8)),
            ("home", directory(), 0o1777, (1000, 1000)),
            ("home/me", directory(), 0o2750, (1000, 50_000)),
            ("home/me/old", file(), 0o4755, (1000, 1000)),
            ("etc", directory(), 0o755, root),
            ("etc/file", file(), 0o600, (3, 4)),
        ])
    };
    let stacks = [
        vec![base(), by_hand(&[("home/me/new", file(), 0o644, root)])],
        vec![
            base(),
            by_hand(&[("home/me/new", file(), 0o644, root)]),
            by_hand(&[("home/me/old", What::Whiteout, 0, root)]),
        ],
        vec![base(), by_hand(&[("home/me", What::Opaque, 0, root), ("home/me/new", file(), 0o644, root)])],
        vec![base(), by_hand(&[("", What::Opaque, 0, root), ("new/file", file(), 0o644, root)])],
        vec![base(), by_hand(&[("home", What::Whiteout, 0, root)]), by_hand(&[("home/me/x", file(), 0o644, root)])],
        vec![base(), by_hand(&[("home", file(), 0o644, root)]), by_hand(&[("home", directory(), 0o700, (5, 5))])],
        vec![base(), by_hand(&[("etc", What::Link("home".to_owned()), 0o777, (9, 9))])],
        vec![base(), by_hand(&[("a", file(), 0o6711, (1, 2)), ("etc/b", What::HardLink("a".to_owned()), 0, root)])],
        vec![base(), by_hand(&[(&deep, file(), 0o644, root)]), by_hand(&[(&long, directory(), 0o700, (6, 6))])],
        vec![base(), by_hand(&[(&long, directory(), 0o700, (6, 6))]), by_hand(&[(&deep, file(), 0o644, root)])],
        vec![base(), by_hand(&[("etc/null", What::Device, 0o666, (0, 5)), ("etc/fifo", What::Fifo, 0o622, (8, 8))])],
    ];
    for layers in stacks {
        let mut tree = Node::directory(usize::MAX);
        for (number, items) in layers.iter().enumerate() {
            tree.touch(number);
            items.iter().for_each(|item| tree.apply(item, number).unwrap());
        }
        if let Err(difference) = compare(&layers, &tree) {
            panic!("{difference}");
        }
    }
}
