//! A store with an image of each kind in it, and a program that starts them, to look at their starts.

use crate::{command::run, fixtures::Fixtures, paths};
use anyhow::{Context, Result};
use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

/// The images that every store has: what they are made of, and their names.
const PROGRAMS: [(&str, &str); 2] = [("wasm/hello.wasm", "hello:wasm"), ("component/hello.wasm", "hello:component")];

/// A program and the store that it uses.
pub(crate) struct Store {
    pub(crate) program: PathBuf,
    options: Vec<String>,
}

impl Store {
    /// Makes one in `folder`, anew, for a copy of the release binary: a linker writes its file in another way than it is
    /// copied, and then its pages lie in the page cache so that a start takes a few faults more.
    pub(crate) fn make(fixtures: &Fixtures, folder: &Path) -> Result<Self> {
        if folder.exists() {
            fs::remove_dir_all(folder).with_context(|| format!("cannot empty {}", folder.display()))?;
        }
        fs::create_dir_all(folder)?;
        let program = folder.join("amphora");
        // Written out too: pages that are on their way to the disk are not mapped along with others.
        fs::copy(paths::binary(), &program)
            .and_then(|_| fs::File::open(&program)?.sync_all())
            .with_context(|| format!("cannot write {}", program.display()))?;
        let option = |name: &str, place: &str| format!("--{name}={}", folder.join(place).display());
        let store = Self { program, options: vec![option("root", "root"), option("runroot", "run")] };
        for (file, image) in PROGRAMS {
            let file = fixtures.path("programs").join(file);
            run(store.command(&["import"]).arg(file).arg(image))?;
        }
        store.load(fixtures, "hello-linux")?;
        Ok(store)
    }

    /// Takes one more image from the fixtures.
    pub(crate) fn load(&self, fixtures: &Fixtures, layout: &str) -> Result<()> {
        run(self.command(&["load", "-i"]).arg(fixtures.path("layouts").join(layout))).map(drop)
    }

    /// All words of a command on this store.
    pub(crate) fn words<'s>(&'s self, words: &[&'s str]) -> Vec<&'s str> {
        self.options.iter().map(String::as_str).chain(words.iter().copied()).collect()
    }

    pub(crate) fn command(&self, words: &[&str]) -> Command {
        let mut command = Command::new(&self.program);
        command.args(self.words(words));
        command
    }
}
