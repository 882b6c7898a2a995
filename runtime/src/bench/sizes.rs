//! What a subject weighs: compressed as in a registry, unpacked, compiled, and in memory.

use std::{fs, os::unix::fs::MetadataExt, path::Path};

use anyhow::Result;

use super::{
    Benchmark,
    peers::OWN,
    results::Size,
    rounds::Lane,
    stage::{Material, STORES},
};

impl Benchmark<'_> {
    pub(super) fn sizes(&mut self, materials: &[Material], lanes: &[Lane]) -> Result<()> {
        self.watcher.begins("sizes");
        for material in materials {
            let of_subject = |lane: &&Lane| lane.subject.name == material.subject.name;
            for lane in Self::warm(lanes).filter(of_subject) {
                let is_own = lane.contender.name == OWN;
                let unpacked = match (&material.wasm, &material.rootfs) {
                    (Some(wasm), _) => fs::metadata(wasm).ok().map(|file| file.len()),
                    (None, Ok(root)) => Some(bytes_below(root)),
                    (None, Err(_)) => None,
                };
                let compiled = match (&material.wasm, is_own) {
                    (None, _) => None,
                    (Some(_), true) => Some(self.compiled_bytes(material)),
                    (Some(_), false) => compiled_by(lane),
                };
                self.results.sizes.push(Size {
                    subject: material.subject.name.clone(),
                    contender: lane.contender.name.clone(),
                    compressed: is_own.then_some(material.compressed_bytes),
                    unpacked,
                    compiled: compiled.filter(|bytes| *bytes > 0),
                    resident: lane.seen.resident_bytes,
                });
            }
        }
        Ok(())
    }

    /// What the store of warm runs has compiled of one program.
    fn compiled_bytes(&self, material: &Material) -> u64 {
        let folder = self.stage.root(STORES[0]).join("compiled");
        let digest = material.program_digest.trim_start_matches("sha256:");
        let files = fs::read_dir(folder).into_iter().flatten().flatten();
        let of_program = files.filter(|file| file.file_name().to_string_lossy().contains(digest));
        of_program.map(|file| bytes_below(&file.path())).sum()
    }
}

/// Among the words of a command, the file of compiled code.
fn compiled_by(lane: &Lane) -> Option<u64> {
    let file = lane.way.words.iter().find(|word| word.ends_with(".cwasm"))?;
    fs::metadata(file).ok().map(|file| file.len())
}

/// Of all files below a path, each counted once however many names it has.
fn bytes_below(path: &Path) -> u64 {
    fn add(path: &Path, known: &mut std::collections::HashSet<(u64, u64)>) -> u64 {
        let Ok(metadata) = path.symlink_metadata() else { return 0 };
        if metadata.is_dir() {
            return fs::read_dir(path).into_iter().flatten().flatten().map(|entry| add(&entry.path(), known)).sum();
        }
        if known.insert((metadata.dev(), metadata.ino())) { metadata.len() } else { 0 }
    }
    add(path, &mut std::collections::HashSet::new())
}

#[cfg(test)]
mod tests {
    use super::bytes_below;

    #[test]
    fn a_file_of_two_names_counts_once() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("a"), [0; 1000]).unwrap();
        std::fs::hard_link(folder.path().join("a"), folder.path().join("b")).unwrap();
        std::fs::create_dir(folder.path().join("c")).unwrap();
        std::fs::write(folder.path().join("c/d"), [0; 10]).unwrap();
        assert_eq!(bytes_below(folder.path()), 1010);
    }
}
