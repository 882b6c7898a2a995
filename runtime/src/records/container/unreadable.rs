//! Containers whose spec this version cannot read: damaged, or of a version that wrote it differently. They are listed with
//! what can be said of them, their images and volumes stay, and only `rm -f` removes them.

use std::{fmt, fs};

use anyhow::{Context, Result, bail};
use serde_json::Value;

use super::{Containers, RunFound, Running, files::remove_folder, remove_if, try_lock};
use crate::output::errors;

/// One of them.
#[derive(Debug)]
pub(crate) struct Unreadable {
    pub(crate) id: String,
    /// What it is called, if a name leads to it.
    pub(crate) name: Option<String>,
    /// Its run, if one goes on.
    pub(crate) running: Option<Running>,
    /// What is wrong, with the path.
    problem: String,
    /// All texts in its spec; None if not even those can be read.
    texts: Option<Vec<String>>,
}

impl fmt::Display for Unreadable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { id, problem, .. } = self;
        let name = self.name.as_deref().unwrap_or(id);
        write!(f, "container {name}: {problem}; `amphora rm -f {id}` removes it, and nothing else does")
    }
}

impl std::error::Error for Unreadable {}

impl Unreadable {
    /// Whether it may have to do with something of this name: an image's digest, a volume's name.
    ///
    /// # Errors
    /// That cannot be said.
    pub(crate) fn mentions(&self) -> Result<&[String]> {
        self.texts.as_deref().with_context(|| format!("cannot tell what is still used: {self}"))
    }
}

impl Containers {
    /// What can be said of a container, and why it is not more.
    pub(super) fn name_unreadable(&self, id: &str, error: &anyhow::Error) -> Unreadable {
        let specs = self.shelves().map(|shelf| shelf.folder(id).join("spec.json"));
        let spec = specs.iter().find_map(|path| serde_json::from_slice::<Value>(&fs::read(path).ok()?).ok());
        let run = RunFound::open(&self.paths.running().join(format!("{id}.json")));
        let name = self.shelves().into_iter().find_map(|shelf| {
            let names = shelf.names_of(id).ok()?;
            Some(names.first()?.file_name()?.to_str()?.to_owned())
        });
        Unreadable {
            id: id.to_owned(),
            name,
            running: run.ok().flatten().filter(|run| run.is_going_on().unwrap_or(true)).map(|run| run.running),
            problem: errors::sentence(error),
            texts: spec.map(|spec| texts(&spec)),
        }
    }

    /// Removes everything of one that does not run.
    pub(crate) fn delete_unreadable(&self, unreadable: &Unreadable) -> Result<()> {
        let id = unreadable.id.as_str();
        for shelf in self.shelves() {
            let dir = shelf.folder(id);
            if !super::is_there(&dir)? {
                continue;
            }
            let run = try_lock(&dir.join("spec.json"))?;
            let (Some(_lock), true) = (try_lock(&dir)?, run.is_some() || !super::is_there(&dir.join("spec.json"))?)
            else {
                bail!("container {id} is in use by another command");
            };
            shelf.names_of(id)?.iter().try_for_each(|link| remove_if(true, link))?;
            remove_folder(&dir)?;
        }
        remove_folder(&self.paths.writable().join(id))?;
        remove_if(true, &self.paths.running().join(format!("{id}.json")))
    }
}

/// All texts in a value.
fn texts(value: &Value) -> Vec<String> {
    match value {
        Value::String(text) => vec![text.clone()],
        Value::Array(items) => items.iter().flat_map(texts).collect(),
        Value::Object(fields) => fields.values().flat_map(texts).collect(),
        Value::Null | Value::Bool(_) | Value::Number(_) => Vec::new(),
    }
}
