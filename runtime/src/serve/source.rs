//! Where it is said what a gateway serves: in a file, which is read again when it changes, or on the command line.

use std::{
    collections::BTreeMap,
    fmt::{self, Write},
    fs,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    thread,
    time::Duration,
};

use anyhow::{Context, Result, anyhow, bail};
use tokio::sync::mpsc::UnboundedSender;

use super::{config::Config, signals::Wish};

/// What is larger was not written by anybody.
const LARGEST_FILE: u64 = 4 << 20;
/// Between two looks at the file. A path is looked at, and not watched: so a link that leads elsewhere, as Kubernetes changes its files,
/// is seen, too, and whatever file system it lies on.
const LOOK: Duration = Duration::from_millis(250);
/// Of a function's name that is made of its image's.
const LONGEST_NAME: usize = 40;

/// What a gateway serves.
#[derive(Debug)]
pub(crate) enum Source {
    File(PathBuf),
    Typed(Typed),
}

/// What was typed instead of a file.
#[derive(Debug, Default)]
pub(crate) struct Typed {
    /// Empty: where a file would say nothing, either.
    pub(crate) listen: Vec<String>,
    pub(crate) admin: Option<String>,
    /// `[HOST]/PATH=IMAGE`
    pub(crate) routes: Vec<String>,
}

/// Of a file: its device and inode, its length, and when it was written.
type Version = (u64, u64, u64, i64, i64);

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(path) => write!(f, "{}", path.display()),
            Self::Typed(_) => f.write_str("the command line"),
        }
    }
}

impl Source {
    /// Reads all of it.
    pub(crate) fn read(&self) -> Result<Config> {
        match self {
            Self::File(path) => read_file(path),
            Self::Typed(typed) => typed.config(),
        }
    }

    /// Which version of the file there is; None where it is none, or gone.
    pub(super) fn version(&self) -> Option<Version> {
        let Self::File(path) = self else { return None };
        let found = fs::metadata(path).ok()?;
        Some((found.dev(), found.ino(), found.len(), found.mtime(), found.mtime_nsec()))
    }

    /// Wishes for a reload whenever the file is another than the one of `seen`, and stays so for a moment: editors write in several steps.
    pub(super) fn watch(&self, mut seen: Option<Version>, wishes: UnboundedSender<Wish>) -> Result<()> {
        let Self::File(path) = self else { return Ok(()) };
        let source = Self::File(path.clone());
        let watch = move || {
            let mut before = seen;
            while !wishes.is_closed() {
                thread::sleep(LOOK);
                let now = source.version();
                if now.is_some() && now == before && now != seen {
                    seen = now;
                    // Nobody reloads any more.
                    _ = wishes.send(Wish::Reload);
                }
                before = now;
            }
        };
        thread::Builder::new().name("file".to_owned()).spawn(watch).context("cannot start a thread for the file")?;
        Ok(())
    }
}

fn read_file(path: &Path) -> Result<Config> {
    let shown = path.display();
    let length = fs::metadata(path).with_context(|| format!("cannot read {shown}"))?.len();
    anyhow::ensure!(length <= LARGEST_FILE, "{shown} has {length} bytes; at most {LARGEST_FILE} are read");
    let text = fs::read_to_string(path).with_context(|| format!("cannot read {shown}"))?;
    let mut config = Config::parse(&text).with_context(|| shown.to_string())?;
    let folder = std::path::absolute(path).with_context(|| format!("cannot find the folder of {shown}"))?;
    let folder = folder.parent().unwrap_or(Path::new("/"));
    config.resolve_paths(folder).map_err(|problem| anyhow!("{shown}: {problem}"))?;
    Ok(config)
}

impl Typed {
    fn config(&self) -> Result<Config> {
        // Lines and columns are of a text that nobody wrote.
        let mut config = Config::parse(&self.text()?).map_err(|mistake| anyhow!("{}", mistake.message()))?;
        let here = std::env::current_dir().context("cannot find the current folder")?;
        config.resolve_paths(&here).map_err(|problem| anyhow!(problem))?;
        Ok(config)
    }

    /// The file that says the same.
    fn text(&self) -> Result<String> {
        let mut text = String::new();
        if !self.listen.is_empty() {
            let addresses: Vec<String> = self.listen.iter().map(|address| quoted(address)).collect();
            _ = writeln!(text, "listen = [{}]", addresses.join(", "));
        }
        if let Some(admin) = &self.admin {
            _ = writeln!(text, "admin = {}", quoted(admin));
        }
        let (mut functions, mut routes) = (BTreeMap::new(), String::new());
        for route in &self.routes {
            // A path may have a `=`, an image has none.
            let Some((place, image)) = route.rsplit_once('=').filter(|(place, _)| place.contains('/')) else {
                bail!(
                    "--route {route}: expected [HOST]/PATH=IMAGE such as /=alpine or example.com/api=registry/image:1"
                );
            };
            let (host, path) = place.split_at(place.find('/').unwrap_or_default());
            let name = name_of(image, &mut functions);
            _ = writeln!(routes, "[[routes]]\nfunction = {}\npath = {}", quoted(&name), quoted(path));
            if !host.is_empty() {
                _ = writeln!(routes, "host = {}", quoted(host));
            }
        }
        for (name, image) in &functions {
            _ = writeln!(text, "[functions.{}]\nimage = {}", quoted(name), quoted(image));
        }
        Ok(text + &routes)
    }
}

/// As TOML has it: as JSON, but for one character.
fn quoted(text: &str) -> String {
    serde_json::Value::from(text).to_string().replace('\u{7f}', "\\u007f")
}

/// What the function of an image is called: as the last part of its name, with a number where that is another image's.
fn name_of(image: &str, functions: &mut BTreeMap<String, String>) -> String {
    let last = image.rsplit('/').next().unwrap_or_default().split(['@', ':']).next().unwrap_or_default();
    let plain: String = last.chars().filter(|c| c.is_ascii_alphanumeric() || "-_.".contains(*c)).collect();
    let base = match plain.trim_start_matches(['-', '_', '.']) {
        short if short.len() < 2 => format!("function-{short}"),
        base => base.chars().take(LONGEST_NAME).collect(),
    };
    let mut number = 1;
    loop {
        let name = if number == 1 { base.clone() } else { format!("{base}-{number}") };
        if functions.get(&name).is_none_or(|other| other == image) {
            functions.insert(name.clone(), image.to_owned());
            return name;
        }
        number += 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn typed(routes: &[&str]) -> Typed {
        Typed { routes: routes.iter().map(ToString::to_string).collect(), ..Typed::default() }
    }

    #[test]
    fn what_is_typed_is_what_a_file_would_say() {
        let typed = Typed {
            listen: vec!["127.0.0.1:0".to_owned()],
            admin: Some("off".to_owned()),
            ..typed(&[
                "/=localhost:5000/team/web:1",
                "/api=localhost:5000/team/api@sha256:00",
                "example.com/x=y/=other/web",
                "/again=localhost:5000/team/web:1",
                "/short=a",
            ])
        };
        let config = typed.config().unwrap();
        let functions: Vec<(&str, &str)> =
            config.functions.iter().map(|(name, function)| (name.as_str(), function.image.as_str())).collect();
        let expected = [
            ("api", "localhost:5000/team/api@sha256:00"),
            ("function-a", "a"),
            ("web", "localhost:5000/team/web:1"),
            ("web-2", "other/web"),
        ];
        assert_eq!(functions, expected);
        let routes: Vec<(String, String)> = config
            .routes
            .iter()
            .map(|route| route.get_ref())
            .map(|route| (route.host.as_ref().map_or(String::new(), ToString::to_string), route.path.shape()))
            .collect();
        let expected = [("", "/"), ("", "/api"), ("example.com", "/x=y"), ("", "/again"), ("", "/short")];
        assert_eq!(routes, expected.map(|(host, path)| (host.to_owned(), path.to_owned())));
    }

    #[test]
    fn what_is_typed_wrong_is_told_without_a_place() {
        for (route, expected) in [
            ("web", "--route web: expected [HOST]/PATH=IMAGE"),
            ("web=x", "--route web=x: expected [HOST]/PATH=IMAGE"),
            ("/a/../b=x", "the path `/a/../b` cannot be used"),
            ("a:80/=x", "`a:80` is no host"),
        ] {
            let error = format!("{:#}", typed(&[route]).config().unwrap_err());
            assert!(error.contains(expected) && !error.contains("line "), "{route}: {error}");
        }
        let twice = typed(&["/=x", "/=y"]).config().unwrap_err().to_string();
        assert!(twice.contains("route 2 is for the same requests as route 1"), "{twice}");
    }

    #[test]
    fn another_file_in_its_place_is_another_version() {
        let folder = tempfile::tempdir().unwrap();
        let [path, other] = ["a", "b"].map(|name| folder.path().join(name));
        let source = Source::File(path.clone());
        assert_eq!(source.version(), None);
        fs::write(&path, "one").unwrap();
        let first = source.version();
        assert!(first.is_some() && first == source.version());
        fs::write(&other, "two").unwrap();
        fs::rename(&other, &path).unwrap();
        assert_ne!(source.version(), first);
    }
}
