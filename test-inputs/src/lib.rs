//! Inputs for tests of what parses: the files of a corpus, and what chance makes of them, the same in every run.
//!
//! A [`Target`] is a function that takes any bytes, gives them to a parser, and asserts what must hold of the outcome. It is
//! run here by ordinary tests, and by libFuzzer from `fuzz/`. What once went wrong stays as a file of the corpus.
//!
//! `AMPHORA_TEST_CASES=COUNT` makes more inputs for each target, `AMPHORA_TEST_SEED=SEED` begins with another one: what
//! failed says which.

mod mutation;
mod random;
pub mod seccomp;

use std::{
    env, fs,
    path::{Path, PathBuf},
};

pub use random::Random;

/// One parser and what must hold of it.
pub struct Target {
    /// Also that of its folder in the corpus.
    pub name: &'static str,
    /// Panics where something does not hold. Whether the input was taken, and not refused.
    pub property: fn(&[u8]) -> bool,
    /// What the parser knows: put into inputs now and then.
    pub words: &'static [&'static str],
    /// Inputs in an ordinary run, which takes a second or two.
    pub cases: u64,
}

/// Says which input it was, if the property panics.
struct Told<'a> {
    target: &'a str,
    origin: &'a str,
    input: &'a [u8],
}

impl Drop for Told<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let shown = &self.input[..self.input.len().min(4000)];
            let (length, input) = (self.input.len(), shown.escape_ascii());
            eprintln!("{}, {}, {length} bytes: b\"{input}\"", self.target, self.origin);
        }
    }
}

impl Target {
    /// Runs the property over each file of `corpus/NAME`, and over what is made of them.
    ///
    /// # Panics
    /// The property does not hold, or there is no corpus; or all was taken or all refused, which tries half of the parser.
    pub fn run(&self, corpus: &Path) {
        let files = files(&corpus.join(self.name));
        assert!(!files.is_empty(), "no files in {}", corpus.join(self.name).display());
        let mut taken = 0;
        for (path, input) in &files {
            taken += u64::from(self.check(&path.display().to_string(), input));
        }
        let seeds: Vec<&[u8]> = files.iter().map(|(_, bytes)| bytes.as_slice()).collect();
        let first = setting("AMPHORA_TEST_SEED").unwrap_or(0);
        let count = setting("AMPHORA_TEST_CASES").unwrap_or(self.cases);
        for seed in first..first + count {
            let input = mutation::input(&mut Random::new(seed), &seeds, self.words);
            taken +=
                u64::from(self.check(&format!("again with AMPHORA_TEST_SEED={seed} AMPHORA_TEST_CASES=1"), &input));
        }
        let all = files.len() as u64 + count;
        println!("{}: {} files, {count} inputs made of them, {taken} taken", self.name, files.len());
        assert!(0 < taken && taken < all, "{}: {taken} of {all} were taken", self.name);
    }

    fn check(&self, origin: &str, input: &[u8]) -> bool {
        let _told = Told { target: self.name, origin, input };
        (self.property)(input)
    }
}

/// A number that the environment sets.
///
/// # Panics
/// It is no number.
pub fn setting(name: &str) -> Option<u64> {
    let text = env::var(name).ok()?;
    Some(text.parse().unwrap_or_else(|_| panic!("{name} is `{text}`; expected a number")))
}

/// In the order of their names, so that a seed means the same everywhere.
fn files(folder: &Path) -> Vec<(PathBuf, Vec<u8>)> {
    let entries = fs::read_dir(folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
    let mut paths: Vec<PathBuf> = entries.flatten().map(|entry| entry.path()).collect();
    paths.sort();
    let read = |path: PathBuf| {
        let bytes = fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        (path, bytes)
    };
    paths.into_iter().map(read).collect()
}
