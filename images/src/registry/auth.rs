//! Credentials: the user's, or those that other tools left in Docker's `config.json`.

use super::{Reason, RegistryOptions};
use crate::Reference;
use base64::{Engine, engine::general_purpose::STANDARD};
use serde::Deserialize;
use std::{
    collections::HashMap,
    env, fs,
    io::ErrorKind,
    path::{Path, PathBuf},
};

/// A user and a password.
pub(super) type Credentials = (String, String);

/// `config.json`, of which only plain credentials matter here.
#[derive(Deserialize, Default)]
struct DockerConfig {
    #[serde(default)]
    auths: HashMap<String, AuthEntry>,
}

#[derive(Deserialize, Default)]
struct AuthEntry {
    /// Base64 of `USER:PASSWORD`. Absent where a credential helper has it.
    #[serde(default)]
    auth: String,
}

/// What to present to a registry: the options' credentials, else those of the first file that there is.
pub(super) fn credentials(reference: &Reference, options: &RegistryOptions) -> Result<Option<Credentials>, Reason> {
    if options.credentials.is_some() {
        return Ok(options.credentials.clone());
    }
    for path in files() {
        match fs::read(&path) {
            Ok(bytes) => return from_config(&bytes, reference).map_err(|cause| unusable(&path, cause)),
            Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => {}
            Err(error) => return Err(unusable(&path, error.to_string())),
        }
    }
    Ok(None)
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
pub(super) fn from_config(bytes: &[u8], reference: &Reference) -> Result<Option<Credentials>, String> {
    // What the parser says may quote a password.
    let place = |error: serde_json::Error| {
        format!("it is not what Docker writes, at line {}, column {}", error.line(), error.column())
    };
    let config: DockerConfig = serde_json::from_slice(bytes).map_err(place)?;
    let full = format!("{}/{}", reference.registry, reference.repository);
    let parents = full.match_indices('/').map(|(at, _)| &full[..at]).collect::<Vec<_>>();
    let keys = std::iter::once(full.as_str()).chain(parents.into_iter().rev());
    let entry = keys.filter_map(|key| config.auths.iter().find(|(name, _)| normal(name) == key)).next();
    match entry {
        Some((name, entry)) if !entry.auth.is_empty() => decode(&entry.auth)
            .map(Some)
            .ok_or_else(|| format!("its entry `{name}` is not the base64 form of USER:PASSWORD")),
        _ => Ok(None),
    }
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

    fn found(config: &str, reference: &str) -> Result<Option<Credentials>, String> {
        from_config(config.as_bytes(), &reference.parse().unwrap())
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
        assert!(misplaced.starts_with("it is not what Docker writes") && !misplaced.contains("secret"), "{misplaced}");
        assert!(found(r#"{"auths":{"docker.io":{"auth":"%%"}}}"#, "alpine").is_err());
    }
}
