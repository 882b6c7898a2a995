//! Credentials: the user's, or those that other tools left in Docker's `config.json`.

use super::{Reason, RegistryOptions};
use crate::Reference;
use base64::{Engine, engine::general_purpose::STANDARD};
use rustix::fs::OFlags;
use serde::Deserialize;
use serde_json::Value;
use std::{
    collections::BTreeMap,
    env,
    fs::OpenOptions,
    io::{self, ErrorKind, Read},
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
};

/// The largest `config.json` that is read. Real ones have a few KiB.
const CONFIG_BYTES: u64 = 1 << 20;

/// A user and a password.
pub(super) type Credentials = (String, String);

/// What to present to a registry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Known {
    /// These.
    Login(Credentials),
    /// Nothing; why, as the end of a sentence.
    Nothing(String),
}

impl Known {
    pub(super) fn login(&self) -> Option<&Credentials> {
        match self {
            Known::Login(login) => Some(login),
            Known::Nothing(_) => None,
        }
    }

    fn nothing(why: &str) -> Self {
        Known::Nothing(why.to_owned())
    }
}

/// `config.json`, of which only plain credentials matter here. Entries are looked at one by one: a bad one is its own registry's.
#[derive(Deserialize, Default)]
struct DockerConfig {
    auths: Option<BTreeMap<String, Value>>,
    #[serde(rename = "credHelpers")]
    helpers: Option<BTreeMap<String, Value>>,
    #[serde(rename = "credsStore")]
    store: Option<Value>,
}

impl DockerConfig {
    /// The program that Docker would ask.
    fn helper(&self, keys: &[&str]) -> Option<&str> {
        let own = self.helpers.iter().flatten().find(|(name, _)| keys.contains(&normal(name)));
        own.map(|(_, helper)| helper).or(self.store.as_ref())?.as_str().filter(|name| !name.is_empty())
    }
}

/// What to present to a registry: the options' credentials, else those of the first file that there is.
pub(super) fn credentials(reference: &Reference, options: &RegistryOptions) -> Result<Known, Reason> {
    if let Some(login) = &options.credentials {
        return Ok(Known::Login(login.clone()));
    }
    for path in files() {
        match read(&path) {
            Ok(bytes) => return from_config(&bytes, reference).map_err(|cause| unusable(&path, cause)),
            Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => {}
            Err(error) => return Err(unusable(&path, error.to_string())),
        }
    }
    Ok(Known::nothing("neither given nor in Docker's config.json, as there is none"))
}

/// The file may be a link, but what it leads to must be plain, and is not waited for.
fn read(path: &Path) -> io::Result<Vec<u8>> {
    let flags = (OFlags::NONBLOCK | OFlags::NOCTTY).bits().cast_signed();
    let file = OpenOptions::new().read(true).custom_flags(flags).open(path)?;
    if !file.metadata()?.is_file() {
        return Err(io::Error::other("it is no plain file, which was expected"));
    }
    let mut bytes = Vec::new();
    file.take(CONFIG_BYTES + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > CONFIG_BYTES {
        return Err(io::Error::other(format!("it has more than {CONFIG_BYTES} bytes, which no real one has")));
    }
    Ok(bytes)
}

fn unusable(path: &Path, cause: String) -> Reason {
    Reason::Credentials { path: path.display().to_string(), cause }
}

fn files() -> impl Iterator<Item = PathBuf> {
    let folder = env::var_os("DOCKER_CONFIG").map(PathBuf::from);
    let docker = folder.or_else(|| env::var_os("HOME").map(|home| Path::new(&home).join(".docker")));
    let named = env::var_os("REGISTRY_AUTH_FILE").map(PathBuf::from);
    named.into_iter().chain(docker.map(|folder| folder.join("config.json")))
}

/// The entry of the registry, or of its longest parent path (`ghcr.io/user` before `ghcr.io`), as
/// containers-auth.json(5) has it.
pub(super) fn from_config(bytes: &[u8], reference: &Reference) -> Result<Known, String> {
    // What the parser says may quote a password.
    let place = |error: serde_json::Error| {
        format!("it is not what Docker writes, at line {}, column {}", error.line(), error.column())
    };
    let config: DockerConfig = serde_json::from_slice(bytes).map_err(place)?;
    let full = format!("{}/{}", reference.registry, reference.repository);
    let parents = full.match_indices('/').map(|(at, _)| &full[..at]).collect::<Vec<_>>();
    let keys: Vec<&str> = std::iter::once(full.as_str()).chain(parents.into_iter().rev()).collect();
    let entries = keys.iter().filter_map(|key| config.auths.iter().flatten().find(|(name, _)| normal(name) == *key));
    let found = entries.map(|(name, entry)| of_entry(name, entry)).next().unwrap_or(Ok(None))?;
    Ok(found.unwrap_or_else(|| match config.helper(&keys) {
        Some(helper) => Known::Nothing(format!(
            "none was given, and Docker's config.json leaves them to `docker-credential-{helper}` (credential helpers are not asked)"
        )),
        None => Known::nothing("neither given nor in Docker's config.json"),
    }))
}

/// What Docker's client takes of an entry, in its order: `auth`, the base64 form of `USER:PASSWORD`; two fields.
fn of_entry(name: &str, entry: &Value) -> Result<Option<Known>, String> {
    if !entry.is_object() && !entry.is_null() {
        return Err(format!("its entry `{name}` is not what Docker writes"));
    }
    let field = |name: &str| entry.get(name).and_then(Value::as_str).filter(|text| !text.is_empty());
    let has_token = field("identitytoken").is_some();
    let login = match (field("auth"), field("username")) {
        (Some(auth), _) => {
            Some(decode(auth).ok_or_else(|| format!("its entry `{name}` is not the base64 form of USER:PASSWORD"))?)
        }
        (None, Some(user)) => Some((user.to_owned(), field("password").unwrap_or_default().to_owned())),
        (None, None) => None,
    };
    let token = "none was given, and Docker's config.json has an identity token for it, of which no use is made here";
    Ok(match login.filter(|(_, password)| !(has_token && password.is_empty())) {
        Some(login) => Some(Known::Login(login)),
        None => has_token.then(|| Known::nothing(token)),
    })
}

/// Docker writes keys as URLs too, and its own registry under an old name.
fn normal(key: &str) -> &str {
    if key == "https://index.docker.io/v1/" {
        return "docker.io";
    }
    let key = key.strip_prefix("https://").or_else(|| key.strip_prefix("http://")).unwrap_or(key);
    key.trim_end_matches('/')
}

fn decode(text: &str) -> Option<Credentials> {
    let plain = String::from_utf8(STANDARD.decode(text).ok()?).ok()?;
    let (user, password) = plain.split_once(':')?;
    Some((user.to_owned(), password.trim_end_matches('\0').to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn known(config: &str, reference: &str) -> Result<Known, String> {
        from_config(config.as_bytes(), &reference.parse().unwrap())
    }

    fn found(config: &str, reference: &str) -> Result<Option<Credentials>, String> {
        known(config, reference).map(|known| known.login().cloned())
    }

    #[test]
    fn entries_are_found_by_registry_and_by_path() {
        // u:p, v:q
        let config = r#"{"auths":{"https://index.docker.io/v1/":{"auth":"dTpw"},"localhost:5000":{"auth":"dTpw"},
            "ghcr.io/a":{"auth":"djpx"},"ghcr.io":{"auth":"dTpw"},"empty.example":{}},"credsStore":"x"}"#;
        let (u, v) = (Some(("u".into(), "p".into())), Some(("v".into(), "q".into())));
        assert_eq!(found(config, "alpine"), Ok(u.clone()));
        assert_eq!(found(config, "localhost:5000/x"), Ok(u.clone()));
        assert_eq!(found(config, "ghcr.io/a/b"), Ok(v));
        assert_eq!(found(config, "ghcr.io/c/b"), Ok(u));
        assert_eq!(found(config, "empty.example/b"), Ok(None));
        assert_eq!(found(config, "quay.io/b"), Ok(None));
    }

    #[test]
    fn a_damaged_file_is_named() {
        assert_eq!(found("{", "alpine").unwrap_err(), "it is not what Docker writes, at line 1, column 1");
        let misplaced = found(r#"{"auths":{"docker.io":"secret"}}"#, "alpine").unwrap_err();
        assert_eq!(misplaced, "its entry `docker.io` is not what Docker writes");
        assert!(found(r#"{"auths":{"docker.io":{"auth":"%%"}}}"#, "alpine").is_err());
    }

    /// Every pull failed for what another registry's entry was.
    #[test]
    fn a_bad_entry_is_its_own_registrys() {
        for bad in ["null", "7", "{\"auth\":null}", "{\"auth\":\"%%\"}", "[]"] {
            let config = format!(r#"{{"auths":{{"bad.example":{bad},"r.example":{{"auth":"dTpw"}}}}}}"#);
            assert_eq!(found(&config, "r.example/a"), Ok(Some(("u".into(), "p".into()))), "{bad}");
        }
        for config in
            ["{}", r#"{"auths":null,"credsStore":null,"credHelpers":null}"#, r#"{"auths":{"r.example":null}}"#]
        {
            assert_eq!(found(config, "r.example/a"), Ok(None), "{config}");
        }
    }

    #[test]
    fn what_is_there_instead_of_a_password_is_told() {
        let fields = r#"{"auths":{"r.example":{"username":"u","password":"p:q"}}}"#;
        assert_eq!(found(fields, "r.example/a"), Ok(Some(("u".into(), "p:q".into()))));
        // `<token>:`
        let token = r#"{"auths":{"r.example":{"auth":"PHRva2VuPjo=","identitytoken":"secret"}}}"#;
        let helper = r#"{"auths":{"r.example":{}},"credHelpers":{"https://r.example":"mine"},"credsStore":"desktop"}"#;
        let store = r#"{"credHelpers":{"other.example":"mine"},"credsStore":"desktop"}"#;
        for (config, part) in [
            (token, "has an identity token"),
            (helper, "`docker-credential-mine`"),
            (store, "`docker-credential-desktop`"),
            ("{}", "neither given nor in Docker's config.json"),
        ] {
            let Ok(Known::Nothing(why)) = known(config, "r.example/a") else { panic!("{config}") };
            assert!(why.contains(part) && !why.contains("secret"), "{why}");
        }
    }

    /// One that was a FIFO was waited for, and /dev/zero read until no memory was left.
    #[test]
    fn only_a_plain_file_of_bounded_size_is_read() {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name);
        rustix::fs::mknodat(rustix::fs::CWD, path("fifo"), rustix::fs::FileType::Fifo, 0o600.into(), 0).unwrap();
        std::fs::write(path("plain"), "{}").unwrap();
        std::os::unix::fs::symlink("plain", path("link")).unwrap();
        std::fs::File::create(path("large")).unwrap().set_len(CONFIG_BYTES + 1).unwrap();
        assert_eq!(read(&path("link")).unwrap(), b"{}");
        assert_eq!(read(&path("nothing")).unwrap_err().kind(), ErrorKind::NotFound);
        for bad in [path("fifo"), "/dev/zero".into(), path("large"), folder.path().to_owned()] {
            let error = read(&bad).unwrap_err().to_string();
            assert!(error.starts_with("it "), "{bad:?}: {error}");
        }
    }
}
