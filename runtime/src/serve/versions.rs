//! Which image of a function's name is served: the newest one or, after a rollback, the one before.
//!
//! ```text
//! RUNROOT/serve/NAME.versions    of each function: what is served, what was before, what is not wanted; replaced by rename
//! ```
//!
//! The gateway of that name alone writes it. The images before are held, so that nobody removes them meanwhile.

use std::{
    collections::BTreeMap,
    fs, io,
    path::{Path, PathBuf},
    sync::{Mutex, MutexGuard, PoisonError},
};

use anyhow::{Context, Result};
use images::{
    Selection,
    holds::{Holds, IMAGE},
};
use serde::{Deserialize, Serialize};

use super::{
    config::{FunctionConfig, Pull},
    plan::{FindImage, Plan},
};
use crate::{
    output::{self, errors},
    records::host::Host,
};

/// Of all functions.
pub(super) struct Versions {
    path: PathBuf,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    functions: BTreeMap<String, Version>,
    /// By digest: what is held.
    held: BTreeMap<String, Holds>,
    /// What did not come to listen, and what it was started with: with something else it may.
    failed: BTreeMap<String, (String, FunctionConfig)>,
}

/// Of one function: digests of manifests.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Version {
    current: String,
    /// What a rollback leads to.
    previous: Option<String>,
    /// What a rollback led away from: it is not served again because a name leads there.
    refused: Option<String>,
}

impl Version {
    /// What is to be served where the function's name leads to `newest`. What is refused is so until it leads elsewhere.
    fn chosen<'a>(&'a mut self, newest: &'a str) -> &'a str {
        self.refused.take_if(|refused| *refused != newest);
        if self.refused.is_some() { &self.current } else { newest }
    }

    /// It is served from now on.
    fn note(&mut self, digest: &str) {
        if self.current == digest {
            return;
        }
        let before = std::mem::replace(&mut self.current, digest.to_owned());
        // What was refused was so compared with what was served.
        *self = Self { previous: Some(before).filter(|digest| !digest.is_empty()), refused: None, ..self.clone() };
    }

    /// What was before is served from now on.
    fn roll_back(&mut self, to: &str) {
        let left = std::mem::replace(&mut self.current, to.to_owned());
        (self.previous, self.refused) = (Some(left.clone()), Some(left));
    }
}

impl Versions {
    /// Reads what an earlier gateway of the name wrote.
    pub(super) fn open(folder: &Path, name: &str) -> Result<Self> {
        let path = folder.join(format!("{name}.versions"));
        let functions = match fs::read(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => BTreeMap::new(),
            Err(error) => return Err(error).with_context(|| format!("cannot read {}", path.display())),
            Ok(bytes) => serde_json::from_slice(&bytes).unwrap_or_else(|error| {
                output::note(&format!(
                    "amphora serve: {}: {error}; rollbacks before this start are forgotten",
                    path.display()
                ));
                BTreeMap::new()
            }),
        };
        Ok(Self { path, state: Mutex::new(State { functions, ..State::default() }) })
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The digest to serve where a function's name leads to `newest`.
    pub(super) fn choice(&self, function: &str, config: &FunctionConfig, newest: &str) -> String {
        let mut state = self.lock();
        let State { functions, failed, .. } = &mut *state;
        let Some(version) = functions.get_mut(function) else { return newest.to_owned() };
        let has_failed = |(digest, of): &(String, FunctionConfig)| digest == newest && of == config;
        match failed.get(function).is_some_and(has_failed) {
            true => version.current.clone(),
            false => version.chosen(newest).to_owned(),
        }
    }

    /// It did not come to listen: what serves goes on, also when the file is read again.
    pub(super) fn note_failure(&self, function: &str, digest: &str, config: &FunctionConfig) {
        self.lock().failed.insert(function.to_owned(), (digest.to_owned(), config.clone()));
    }

    /// The same as a plan. An image that is gone is said to be, and the newest one is served.
    pub(super) fn chosen(&self, host: &Host, newest: Plan, find: FindImage) -> Plan {
        let digest = self.choice(&newest.name, &newest.config, &newest.digest);
        if digest == newest.digest {
            return newest;
        }
        let earlier = find(host, &digest, None, Pull::Never)
            .and_then(|image| Plan::of_image(host, &newest.name, &newest.config, &image));
        earlier.unwrap_or_else(|error| {
            output::note(&format!(
                "amphora serve: function {}: {digest} was served, and cannot be any more: {}",
                newest.name,
                errors::sentence(&error)
            ));
            newest
        })
    }

    /// What a rollback of this function leads to.
    pub(super) fn previous(&self, function: &str) -> Option<String> {
        self.lock().functions.get(function)?.previous.clone()
    }

    /// These are served from now on, with these digests; others are no more.
    pub(super) fn note_all<'a>(&self, host: &Host, served: impl Iterator<Item = (&'a str, &'a str)>) {
        let mut state = self.lock();
        let mut before = std::mem::take(&mut state.functions);
        for (function, digest) in served {
            let mut version = before.remove(function).unwrap_or_default();
            version.note(digest);
            state.functions.insert(function.to_owned(), version);
        }
        self.keep(host, &mut state);
    }

    /// One of them is served from another image.
    pub(super) fn note(&self, host: &Host, function: &str, digest: &str, rolled_back: bool) {
        let mut state = self.lock();
        let version = state.functions.entry(function.to_owned()).or_default();
        if rolled_back {
            version.roll_back(digest);
        } else {
            version.note(digest);
        }
        self.keep(host, &mut state);
    }

    /// Holds the images, and writes it down. What fails is told: requests are served all the same.
    fn keep(&self, host: &Host, state: &mut State) {
        let kept = hold(host, state).and_then(|()| self.write(&state.functions));
        if let Err(error) = kept {
            output::note(&format!("amphora serve: a rollback may not be possible: {}", errors::sentence(&error)));
        }
    }

    fn write(&self, functions: &BTreeMap<String, Version>) -> Result<()> {
        let draft = self.path.with_extension("versions.new");
        let written = fs::write(&draft, serde_json::to_vec(functions)?).and_then(|()| fs::rename(&draft, &self.path));
        written.with_context(|| format!("cannot write {}", self.path.display()))
    }
}

fn hold(host: &Host, state: &mut State) -> Result<()> {
    let State { functions, held, .. } = state;
    let wanted = |digest: &String| functions.values().any(|version| version.previous.as_ref() == Some(digest));
    held.retain(|digest, _| wanted(digest));
    // Nobody removes an image between the look and the hold.
    let _writing = host.store.writing()?;
    for version in functions.values_mut() {
        let Some(digest) = version.previous.clone().filter(|digest| !held.contains_key(digest)) else { continue };
        if host.store.resolve(&digest, &Selection::default())?.is_none() {
            version.previous = None;
            continue;
        }
        let holds = Holds::open(&host.paths.root)?;
        holds.take(IMAGE, &digest)?;
        held.insert(digest, holds);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn version(current: &str, previous: Option<&str>, refused: Option<&str>) -> Version {
        let [previous, refused] = [previous, refused].map(|digest| digest.map(str::to_owned));
        Version { current: current.to_owned(), previous, refused }
    }

    #[test]
    fn what_was_rolled_back_stays_so_until_there_is_something_new() {
        let mut state = Version::default();
        state.note("a");
        assert_eq!(state, version("a", None, None));
        assert_eq!(state.chosen("b"), "b");
        state.note("b");
        state.note("b");
        assert_eq!(state, version("b", Some("a"), None));
        state.roll_back("a");
        assert_eq!(state, version("a", Some("b"), Some("b")));
        // The name still leads to b, and a reload or a look at the registry changes nothing.
        assert_eq!(state.chosen("b"), "a");
        state.note("a");
        assert_eq!(state, version("a", Some("b"), Some("b")));
        // It leads elsewhere, and to b again.
        let mut other = state.clone();
        assert_eq!(other.chosen("a"), "a");
        assert_eq!(other.chosen("b"), "b");
        assert_eq!(state.chosen("c"), "c");
        state.note("c");
        assert_eq!(state, version("c", Some("a"), None));
        // Back and forth.
        state.roll_back("a");
        state.roll_back("c");
        assert_eq!(state, version("c", Some("a"), Some("a")));
        assert_eq!(state.chosen("c"), "c");
    }
}
