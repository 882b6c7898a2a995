//! Image references: the names that users type.
//!
//! The grammar is that of Docker and the distribution project
//! (<https://github.com/distribution/reference/blob/main/reference.go>), with Docker's defaults: no registry is
//! `docker.io`, a single word there is in `library/`, no tag and no digest is the tag `latest`.
//!
//! ```text
//! reference  = [registry "/"] component *("/" component) [":" tag] ["@" digest]
//! registry   = host [":" port], and: has a dot or a colon, or is localhost, or has an uppercase letter
//! component  = 1*(a-z 0-9), more of it after one ".", one or two "_", or any number of "-"
//! tag        = 1 word character, up to 127 more or "." or "-"
//! digest     = algorithm ":" at least 32 hexadecimal digits (64 for sha256, 128 for sha512)
//! ```
//!
//! What is printed as an image's id is never a name: a word of 12 or more hexadecimal digits and nothing else, and
//! whatever begins with `sha256:` or `sha512:`. Docker refuses such names of 64 digits, and the tag of a repository
//! `sha256`. A name of 4 to 11 hexadecimal digits may be the beginning of an id too; the store tells.

use oci_spec::image::Digest;
use std::{fmt, net::Ipv6Addr, str::FromStr};

const DEFAULT_REGISTRY: &str = "docker.io";
const DEFAULT_TAG: &str = "latest";
/// What registries accept: the bound of the distribution project.
const REPOSITORY_MAX_BYTES: usize = 255;
const TAG_MAX_BYTES: usize = 128;
const DIGEST_MIN_DIGITS: usize = 32;
/// The longest name that DNS has.
const HOST_MAX_BYTES: usize = 255;
/// Ids are printed with so many digits, or all.
const ID_DIGITS: usize = 12;
/// Repositories of no registry: with a tag, they read as digests.
const ALGORITHMS: [&str; 2] = ["sha256", "sha512"];

/// An image reference. `alpine` is docker.io/library/alpine:latest.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Reference {
    /// `docker.io`, `localhost:5000`, …
    pub registry: String,
    /// `library/alpine`
    pub repository: String,
    /// None only when there is a digest.
    pub tag: Option<String>,
    /// `sha256:…`
    pub digest: Option<String>,
}

/// What does not parse, and what was expected at which place.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("image reference `{reference}`: {problem}")]
pub struct ReferenceError {
    reference: String,
    problem: String,
}

impl FromStr for Reference {
    type Err = ReferenceError;

    fn from_str(text: &str) -> Result<Self, ReferenceError> {
        parse(text).map_err(|problem| ReferenceError { reference: text.to_owned(), problem })
    }
}

/// The full name: `docker.io/library/alpine:latest`. This is the name in the store's index.
impl fmt::Display for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.registry, self.repository)?;
        self.write_tag_and_digest(f)
    }
}

impl Reference {
    /// As a user would type it: `alpine:latest`, `localhost:5000/debian:bookworm`.
    pub fn familiar(&self) -> String {
        struct Familiar<'a>(&'a Reference);
        impl fmt::Display for Familiar<'_> {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0.familiar_repository())?;
                self.0.write_tag_and_digest(f)
            }
        }
        Familiar(self).to_string()
    }

    /// `alpine`, `localhost:5000/debian`. The registry is left out where nothing else would be understood without it.
    pub fn familiar_repository(&self) -> String {
        let short = match self.repository.strip_prefix("library/") {
            Some(short) if !short.contains('/') => short,
            _ => &self.repository,
        };
        // `docker.io/localhost/x` would become another registry's, and 64 digits an image id.
        let is_other = split_registry(short) != (DEFAULT_REGISTRY, short) || is_image_id(short);
        if self.registry == DEFAULT_REGISTRY && !is_other {
            return short.to_owned();
        }
        format!("{}/{}", self.registry, self.repository)
    }

    fn write_tag_and_digest(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(tag) = &self.tag {
            write!(f, ":{tag}")?;
        }
        if let Some(digest) = &self.digest {
            write!(f, "@{digest}")?;
        }
        Ok(())
    }
}

fn parse(text: &str) -> Result<Reference, String> {
    if text.is_empty() {
        return Err("it is empty; expected a name such as `alpine` or `ghcr.io/user/app:1.0`".to_owned());
    }
    if let Some(scheme) =
        ["http://", "https://", "docker://", "oci://"].into_iter().find(|scheme| text.starts_with(scheme))
    {
        return Err(format!("leave out `{scheme}`: a reference begins with the registry or the repository"));
    }
    if is_image_id(text) {
        let named = format!("if a name is meant, add its tag: `{text}:{DEFAULT_TAG}`");
        return Err(format!("{ID_DIGITS} or more hexadecimal digits are an image id, not a name; {named}"));
    }
    let (rest, digest) = match text.split_once('@') {
        Some((rest, digest)) => (rest, Some(parse_digest(digest)?)),
        None => (text, None),
    };
    let (registry, rest) = split_registry(rest);
    let (path, tag) = match rest.split_once(':') {
        Some((path, tag)) => (path, Some(parse_tag(tag)?)),
        None => (rest, None),
    };
    check_registry(registry)?;
    let repository = parse_repository(registry, path)?;
    if registry == DEFAULT_REGISTRY && ALGORITHMS.iter().any(|algorithm| repository == format!("library/{algorithm}")) {
        return Err(format!("`{path}` with a tag is an image id, not a name"));
    }
    let tag = tag.or_else(|| digest.is_none().then(|| DEFAULT_TAG.to_owned()));
    Ok(Reference { registry: registry.to_owned(), repository, tag, digest })
}

/// The part before the first slash is a registry only if it cannot be a path component or is `localhost`.
fn split_registry(text: &str) -> (&str, &str) {
    match text.split_once('/') {
        Some(("index.docker.io", rest)) => (DEFAULT_REGISTRY, rest),
        Some((first, rest)) if is_registry(first) => (first, rest),
        _ => (DEFAULT_REGISTRY, text),
    }
}

fn is_registry(first: &str) -> bool {
    first == "localhost" || first.bytes().any(|byte| matches!(byte, b'.' | b':') || byte.is_ascii_uppercase())
}

fn check_registry(registry: &str) -> Result<(), String> {
    let (host, port) = split_port(registry);
    if host.len() > HOST_MAX_BYTES {
        return Err(format!("the registry's host is {} bytes long; at most {HOST_MAX_BYTES} are allowed", host.len()));
    }
    if let Some(port) = port
        && port.parse::<u16>().map_or(true, |number| number == 0)
    {
        return Err(format!("the registry `{registry}` has port `{port}`; expected a number from 1 to 65535"));
    }
    let valid = match host.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
        Some(address) => address.parse::<Ipv6Addr>().is_ok(),
        None => host.split('.').all(is_host_label),
    };
    if valid { Ok(()) } else { Err(format!("the registry's host `{host}` is neither a host name nor an address")) }
}

/// A colon inside brackets belongs to an IPv6 address.
fn split_port(registry: &str) -> (&str, Option<&str>) {
    match registry.rsplit_once(':') {
        Some((host, port)) if !port.ends_with(']') => (host, Some(port)),
        _ => (registry, None),
    }
}

fn is_host_label(label: &str) -> bool {
    let inner = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-';
    !label.is_empty() && label.bytes().all(inner) && !label.starts_with('-') && !label.ends_with('-')
}

fn parse_repository(registry: &str, path: &str) -> Result<String, String> {
    if path.is_empty() {
        return Err(format!("there is no repository after the registry `{registry}`; expected `{registry}/name`"));
    }
    if path.bytes().any(|byte| byte.is_ascii_uppercase()) {
        let lower = path.to_ascii_lowercase();
        return Err(format!("the repository `{path}` must be lowercase; did you mean `{lower}`?"));
    }
    path.split('/').try_for_each(|component| check_component(path, component))?;
    let in_library = registry == DEFAULT_REGISTRY && !path.contains('/');
    let repository = if in_library { format!("library/{path}") } else { path.to_owned() };
    match repository.len() {
        ..=REPOSITORY_MAX_BYTES => Ok(repository),
        length => Err(format!("the repository is {length} bytes long; at most {REPOSITORY_MAX_BYTES} are allowed")),
    }
}

fn check_component(path: &str, component: &str) -> Result<(), String> {
    if component.is_empty() {
        return Err(format!("the repository `{path}` has an empty part between its slashes"));
    }
    let allowed = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"._-".contains(&byte);
    if let Some(wrong) = component.chars().find(|char| !u8::try_from(*char).is_ok_and(allowed)) {
        let expected = "expected lowercase letters, digits, and `.`, `_`, `-` between them";
        return Err(format!("the repository's part `{component}` has the character {wrong:?}; {expected}"));
    }
    let is_word = |byte: &u8| byte.is_ascii_alphanumeric();
    let ends_are_words =
        component.as_bytes().first().is_some_and(is_word) && component.as_bytes().last().is_some_and(is_word);
    let mut separators = component.split(|char: char| char.is_ascii_alphanumeric()).filter(|part| !part.is_empty());
    if ends_are_words && separators.all(is_separator) {
        return Ok(());
    }
    let expected = "between letters and digits may be one `.`, one or two `_`, or any number of `-`";
    Err(format!("the repository's part `{component}` is not a name: {expected}"))
}

fn is_separator(part: &str) -> bool {
    matches!(part, "." | "_" | "__") || part.bytes().all(|byte| byte == b'-')
}

fn parse_tag(tag: &str) -> Result<String, String> {
    let is_word = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
    let expected = "expected letters, digits, `_`, `.` and `-`, not beginning with `.` or `-`";
    match tag.as_bytes() {
        [] => Err("there is no tag after the colon; leave the colon out for `latest`".to_owned()),
        long if long.len() > TAG_MAX_BYTES => {
            Err(format!("the tag is {} bytes long; at most {TAG_MAX_BYTES} are allowed", long.len()))
        }
        [first, rest @ ..] if is_word(*first) && rest.iter().all(|byte| is_word(*byte) || b".-".contains(byte)) => {
            Ok(tag.to_owned())
        }
        _ => Err(format!("the tag `{tag}` is not valid; {expected}")),
    }
}

fn parse_digest(text: &str) -> Result<String, String> {
    let wrong =
        |reason: String| format!("the digest `{text}` is not valid: {reason}; expected `sha256:` and 64 digits");
    let digest = Digest::from_str(text).map_err(|error| wrong(error.to_string()))?;
    let hex = digest.digest();
    if hex.len() < DIGEST_MIN_DIGITS || !hex.bytes().all(is_hex_digit) {
        return Err(wrong("it is not of hexadecimal digits".to_owned()));
    }
    Ok(text.to_owned())
}

fn is_image_id(text: &str) -> bool {
    text.len() >= ID_DIGITS && text.bytes().all(is_hex_digit)
}

fn is_hex_digit(byte: u8) -> bool {
    matches!(byte, b'0'..=b'9' | b'a'..=b'f')
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEX: &str = "6c3c624b58dbbcd3c0dd82b4c53f04194d1247c6eebdaab7c610cf7d66709b3b";

    #[test]
    fn names_are_completed_and_shortened() {
        let pinned = format!("alpine@sha256:{HEX}");
        let full_pinned = format!("docker.io/library/alpine@sha256:{HEX}");
        let both = format!("ghcr.io/a/b:1@sha256:{HEX}");
        let table = [
            ("alpine", "docker.io/library/alpine:latest", "alpine:latest"),
            ("alpine:3.20", "docker.io/library/alpine:3.20", "alpine:3.20"),
            ("library/alpine", "docker.io/library/alpine:latest", "alpine:latest"),
            ("docker.io/alpine", "docker.io/library/alpine:latest", "alpine:latest"),
            ("index.docker.io/alpine", "docker.io/library/alpine:latest", "alpine:latest"),
            ("user/app", "docker.io/user/app:latest", "user/app:latest"),
            ("docker.io/library/a/b", "docker.io/library/a/b:latest", "library/a/b:latest"),
            ("ghcr.io/a/b:1", "ghcr.io/a/b:1", "ghcr.io/a/b:1"),
            ("docker.io/localhost/x", "docker.io/localhost/x:latest", "docker.io/localhost/x:latest"),
            ("docker.io/a.b/x", "docker.io/a.b/x:latest", "docker.io/a.b/x:latest"),
            ("docker.io/library/a.b", "docker.io/library/a.b:latest", "a.b:latest"),
            ("localhost/x", "localhost/x:latest", "localhost/x:latest"),
            ("localhost:5000/debian:bookworm", "localhost:5000/debian:bookworm", "localhost:5000/debian:bookworm"),
            ("localhost:5000", "docker.io/library/localhost:5000", "localhost:5000"),
            ("127.0.0.1:5000/a", "127.0.0.1:5000/a:latest", "127.0.0.1:5000/a:latest"),
            ("[::1]:5000/a", "[::1]:5000/a:latest", "[::1]:5000/a:latest"),
            ("[2001:db8::1]/a", "[2001:db8::1]/a:latest", "[2001:db8::1]/a:latest"),
            ("Registry/a", "Registry/a:latest", "Registry/a:latest"),
            ("xn--n3h.com/a", "xn--n3h.com/a:latest", "xn--n3h.com/a:latest"),
            ("a_b/c__d/e---f/g.h", "docker.io/a_b/c__d/e---f/g.h:latest", "a_b/c__d/e---f/g.h:latest"),
            ("alpine:_X.y-z", "docker.io/library/alpine:_X.y-z", "alpine:_X.y-z"),
            (&pinned, &full_pinned, &pinned),
            (&both, &both, &both),
        ];
        for (typed, full, familiar) in table {
            let parsed: Reference = typed.parse().unwrap();
            assert_eq!(parsed.to_string(), full, "{typed}");
            assert_eq!(parsed.familiar(), familiar, "{typed}");
            for printed in [full, familiar] {
                assert_eq!(printed.parse::<Reference>().unwrap(), parsed, "{printed} means the same as {typed}");
            }
        }
    }

    #[test]
    fn parts() {
        let parsed: Reference = "localhost:5000/a/b".parse().unwrap();
        assert_eq!((parsed.registry.as_str(), parsed.repository.as_str()), ("localhost:5000", "a/b"));
        assert_eq!((parsed.tag.as_deref(), parsed.digest), (Some("latest"), None));
        let pinned: Reference = format!("a@sha256:{HEX}").parse().unwrap();
        assert_eq!((pinned.tag, pinned.digest), (None, Some(format!("sha256:{HEX}"))));
        assert_eq!(
            "localhost:5000/debian:1".parse::<Reference>().unwrap().familiar_repository(),
            "localhost:5000/debian"
        );
    }

    #[test]
    fn lengths() {
        let tag = |length: usize| format!("a:{}", "t".repeat(length)).parse::<Reference>();
        assert!(tag(128).is_ok());
        assert!(tag(129).unwrap_err().to_string().contains("129 bytes"));
        let path = |length: usize| format!("r.io/{}", "p".repeat(length)).parse::<Reference>();
        assert!(path(255).is_ok());
        assert!(path(256).unwrap_err().to_string().contains("256 bytes"));
        let in_library = "p".repeat(250).parse::<Reference>();
        assert!(in_library.unwrap_err().to_string().contains("258 bytes"), "library/ counts");
    }

    #[test]
    fn what_does_not_parse_is_named() {
        let short = format!("a@sha256:{}", &HEX[1..]);
        let upper = format!("a@sha256:{}", HEX.to_uppercase());
        let table = [
            ("", "is empty"),
            (HEX, "image id"),
            (&HEX[..12], "if a name is meant, add its tag: `6c3c624b58db:latest`"),
            ("sha256:abcd", "is an image id"),
            ("docker.io/library/sha256:abcd", "is an image id"),
            ("library/sha512", "is an image id"),
            (&format!("{}/a", "r.".repeat(200) + "io"), "402 bytes long"),
            ("https://ghcr.io/a", "leave out `https://`"),
            ("Alpine", "did you mean `alpine`?"),
            ("docker.io/user/App:1", "did you mean `user/app`?"),
            ("localhost:5000/", "no repository after the registry `localhost:5000`"),
            ("a//b", "empty part"),
            ("/a", "empty part"),
            ("a/", "empty part"),
            ("-a", "is not a name"),
            ("a-", "is not a name"),
            ("a..b", "is not a name"),
            ("a___b", "is not a name"),
            ("a._b", "is not a name"),
            ("a b", "the character ' '"),
            ("aé", "the character 'é'"),
            ("a:", "no tag after the colon"),
            ("a:b:c", "the tag `b:c`"),
            ("a:.b", "the tag `.b`"),
            ("a:-b", "the tag `-b`"),
            ("a:ü", "the tag `ü`"),
            ("host.:5/a", "neither a host name"),
            ("-x.io/a", "neither a host name"),
            ("[::g]/a", "neither a host name"),
            ("localhost:0/a", "from 1 to 65535"),
            ("localhost:65536/a", "from 1 to 65535"),
            ("localhost:/a", "from 1 to 65535"),
            ("a@", "the digest ``"),
            ("a@sha256", "the digest `sha256`"),
            (&short, "63 expected 64"),
            (&upper, "non-hexadecimal"),
            ("a@md5:0123", "not of hexadecimal digits"),
        ];
        for (typed, problem) in table {
            let message = typed.parse::<Reference>().unwrap_err().to_string();
            assert!(message.contains(problem), "{typed}: {message}");
        }
    }
}
