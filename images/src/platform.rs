//! Platforms, and which manifest of an index is wanted.
//!
//! No I/O: [`Search`] is told indexes and says which nested one it needs next, so that the store and the registry
//! client, which get them in different ways, choose the same.
//!
//! Sources: OCI image-spec, image-index.md; containerd's platforms package for aliases and variants.

use oci_spec::image::{Descriptor, ImageIndex};
use std::{collections::VecDeque, fmt, str::FromStr};

/// How many indexes may lie within each other, the outermost counted.
const MAX_DEPTH: usize = 4;
/// How many indexes may be read to find one manifest.
const MAX_INDEXES: usize = 64;

/// os/arch[/variant], lower case, aliases resolved (x86_64 = amd64, aarch64 = arm64).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Platform {
    /// Operating system.
    pub os: String,
    /// Architecture.
    pub architecture: String,
    /// Variant.
    pub variant: Option<String>,
}

/// `--prefer`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Prefer {
    /// The host's Linux manifest, then Wasm.
    #[default]
    Linux,
    /// Wasm, then the host's Linux manifest.
    Wasm,
}

/// What the user asked for.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Selection {
    /// `--platform`; None = the host's.
    pub platform: Option<Platform>,
    /// `--prefer`.
    pub prefer: Prefer,
}

/// What was typed for a platform, and why it is none.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "platform `{0}`: expected os/architecture or os/architecture/variant, such as linux/arm64 or wasi/wasm, or only wasm"
)]
pub struct PlatformError(String);

/// Why no manifest of an index could be chosen.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SelectError {
    /// Nothing for the wanted platform.
    #[error("nothing for {wanted}; there is: {}", if available.is_empty() { "nothing".to_owned() } else { available.join(", ") })]
    NoMatch {
        /// What was looked for.
        wanted: String,
        /// The platforms that there are, each once; of very many, the first.
        available: Vec<String>,
    },
    /// Indexes within indexes, too many.
    #[error("index {digest} lies deeper than {MAX_DEPTH} indexes within each other, the most that are followed")]
    TooDeep {
        /// The index one too deep.
        digest: String,
    },
    /// An index that holds itself, or more of them than are read.
    #[error("index {digest} contains itself")]
    Cycle {
        /// The index.
        digest: String,
    },
    /// Too many indexes.
    #[error("more than {MAX_INDEXES} indexes lie within this one, the most that are read")]
    TooMany,
}

impl FromStr for Platform {
    type Err = PlatformError;

    fn from_str(text: &str) -> Result<Self, PlatformError> {
        let is_part =
            |part: &str| !part.is_empty() && part.bytes().all(|b| b.is_ascii_alphanumeric() || b"._-".contains(&b));
        let parts: Vec<&str> = text.split('/').collect();
        match parts.as_slice() {
            [alone] if is_wasm_word(&alone.to_ascii_lowercase()) => Ok(Self::new(alone, "", None)),
            [os, architecture] if parts.iter().all(|part| is_part(part)) => Ok(Self::new(os, architecture, None)),
            [os, architecture, variant] if parts.iter().all(|part| is_part(part)) => {
                Ok(Self::new(os, architecture, Some(variant)))
            }
            _ => Err(PlatformError(text.to_owned())),
        }
    }
}

impl fmt::Display for Platform {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.os, self.architecture)?;
        self.variant.as_ref().map_or(Ok(()), |variant| write!(f, "/{variant}"))
    }
}

impl Platform {
    /// Resolves aliases, in any case; a variant that is its architecture's default is left out (`arm64/v8`,
    /// `amd64/v1`), the default one of 32-bit ARM (`v7`) is put in. Of Wasm, whose os and architecture some tools exchange
    /// or leave out, both are put in their places.
    pub fn new(os: &str, architecture: &str, variant: Option<&str>) -> Self {
        let (os, lower) = wasm_in_place(os.to_ascii_lowercase(), architecture.to_ascii_lowercase());
        let os = if os == "macos" { "darwin".to_owned() } else { os };
        let (architecture, implied) = unalias(&lower);
        let variant = variant.filter(|variant| !variant.is_empty()).map(str::to_ascii_lowercase);
        let variant = normal_variant(architecture, variant.or_else(|| implied.map(str::to_owned)));
        Self { os, architecture: architecture.to_owned(), variant }
    }

    /// The machine that this runs on.
    pub fn host() -> Self {
        Self::new("linux", std::env::consts::ARCH, None)
    }

    /// Whether it is WebAssembly. The architecture decides: `wasi/wasm`, `wasip1/wasm`, and `linux/wasm` too.
    pub fn is_wasm(&self) -> bool {
        matches!(self.architecture.as_str(), "wasm" | "wasm64")
    }

    /// The platform of an index entry or a config.
    fn of(described: &oci_spec::image::Platform) -> Self {
        let (os, architecture) = (described.os().to_string(), described.architecture().to_string());
        Self::new(&os, &architecture, described.variant().as_deref())
    }

    /// How well something for `offered` serves who wants `self`: 0 is exactly, None is not at all.
    fn accepts(&self, offered: &Self) -> Option<usize> {
        if self.is_wasm() {
            return self.accepts_wasm(offered);
        }
        if (&self.os, &self.architecture) != (&offered.os, &offered.architecture) {
            return None;
        }
        served_variants(self).iter().position(|variant| *variant == offered.variant.as_deref())
    }

    /// `wasi` stands for every system interface of Wasm, on either side.
    fn accepts_wasm(&self, offered: &Self) -> Option<usize> {
        match (self.os.as_str(), offered.os.as_str()) {
            _ if self.architecture != offered.architecture => None,
            (wanted, offered) if wanted == offered => Some(0),
            ("wasi", _) | (_, "wasi") => Some(1),
            _ => None,
        }
    }
}

/// System interfaces of Wasm.
const WASI: [&str; 4] = ["wasi", "wasip1", "wasip2", "wasip3"];
/// Its architectures.
const WASM: [&str; 3] = ["wasm", "wasm32", "wasm64"];

fn is_wasm_word(word: &str) -> bool {
    WASI.contains(&word) || WASM.contains(&word)
}

/// `wasm32/wasi`, `wasi/`, `/wasm` and `wasm/` are what they were meant to be.
fn wasm_in_place(os: String, architecture: String) -> (String, String) {
    match (os.as_str(), architecture.as_str()) {
        (wasm, wasi) if WASM.contains(&wasm) && WASI.contains(&wasi) => (architecture, os),
        (wasi, "") if WASI.contains(&wasi) => (os, "wasm".to_owned()),
        (wasm, "") if WASM.contains(&wasm) => ("wasi".to_owned(), os),
        ("", wasm) if WASM.contains(&wasm) => ("wasi".to_owned(), architecture),
        ("", wasi) if WASI.contains(&wasi) => (architecture, "wasm".to_owned()),
        _ => (os, architecture),
    }
}

/// GOARCH of an architecture, and the variant that the alias implies.
fn unalias(architecture: &str) -> (&str, Option<&str>) {
    match architecture {
        "x86_64" | "x86-64" => ("amd64", None),
        "i386" | "i486" | "i586" | "i686" | "x86" => ("386", None),
        "aarch64" => ("arm64", None),
        "armhf" | "armv7l" => ("arm", Some("v7")),
        "armel" | "armv6l" => ("arm", Some("v6")),
        "powerpc64" if cfg!(target_endian = "little") => ("ppc64le", None),
        "powerpc64le" => ("ppc64le", None),
        "loongarch64" => ("loong64", None),
        "wasm32" => ("wasm", None),
        other => (other, None),
    }
}

fn normal_variant(architecture: &str, variant: Option<String>) -> Option<String> {
    let variant = variant
        .map(|text| if text.starts_with(|char: char| char.is_ascii_digit()) { format!("v{text}") } else { text });
    match (architecture, variant.as_deref()) {
        ("arm64", Some("v8")) | ("amd64", Some("v1")) => None,
        ("arm", None) => Some("v7".to_owned()),
        _ => variant,
    }
}

/// The variants that run where `wanted` does, best first: its own and the older ones.
fn served_variants(wanted: &Platform) -> Vec<Option<&str>> {
    let variant = wanted.variant.as_deref();
    let older: &[Option<&str>] = match (wanted.architecture.as_str(), variant) {
        ("arm", Some("v8")) => &[Some("v7"), Some("v6"), Some("v5")],
        ("arm", Some("v7")) => &[Some("v6"), Some("v5")],
        ("arm", Some("v6")) => &[Some("v5")],
        ("amd64", Some("v4")) => &[Some("v3"), Some("v2"), None],
        ("amd64", Some("v3")) => &[Some("v2"), None],
        ("amd64", Some("v2")) | ("arm64", Some(_)) => &[None],
        _ => &[],
    };
    std::iter::once(variant).chain(older.iter().copied()).collect()
}

impl Selection {
    /// Rank of a platform: smaller is better, None does not serve. Without a wish: the host's Linux and any Wasm, in
    /// the order of `prefer`.
    fn rank(&self, offered: &Platform) -> Option<usize> {
        if let Some(wanted) = &self.platform {
            return wanted.accepts(offered);
        }
        let kinds = |linux: usize, wasm: usize| {
            let as_linux = Platform::host().accepts(offered).map(|rank| linux + rank);
            as_linux.or_else(|| offered.is_wasm().then_some(wasm))
        };
        match self.prefer {
            Prefer::Linux => kinds(0, WORSE),
            Prefer::Wasm => kinds(WORSE, 0),
        }
    }

    /// Checks an image that is no part of an index. Without a wish anything is right.
    pub fn check(&self, offered: &Platform) -> Result<(), SelectError> {
        match &self.platform {
            Some(wanted) if wanted.accepts(offered).is_none() => {
                Err(SelectError::NoMatch { wanted: wanted.to_string(), available: vec![offered.to_string()] })
            }
            _ => Ok(()),
        }
    }
}

impl fmt::Display for Selection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (&self.platform, self.prefer) {
            (Some(platform), _) => write!(f, "{platform}"),
            (None, Prefer::Linux) => write!(f, "{} or Wasm", Platform::host()),
            (None, Prefer::Wasm) => write!(f, "Wasm or {}", Platform::host()),
        }
    }
}

/// More than any number of variants.
const WORSE: usize = 100;
/// A manifest that does not say its platform: only if nothing else serves and nothing was wished for.
const UNKNOWN: usize = 2 * WORSE;

/// Platforms that are told of where none fits; no real index has as many.
const NAMED: usize = 64;

/// What [`Search::next`] asks for, or found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    /// Get this nested index and give it to [`Search::add`].
    Fetch(Descriptor),
    /// This is the manifest.
    Chosen(Descriptor),
}

/// The search for one manifest in an index and those nested in it.
///
/// ```text
/// let mut search = Search::new(&selection, digest_of_the_index);
/// search.add(&index)?;
/// loop {
///     match search.next()? {
///         Step::Fetch(descriptor) => search.add(&get_index(&descriptor))?,
///         Step::Chosen(descriptor) => break descriptor,
///     }
/// }
/// ```
#[derive(Debug)]
pub struct Search {
    selection: Selection,
    /// Nested indexes not yet read, with the digests of those around them.
    pending: VecDeque<(Descriptor, Vec<String>)>,
    /// The index that `add` will be given, and those around it, outermost first.
    current: Vec<String>,
    read: usize,
    best: Option<(usize, Descriptor)>,
    available: Vec<String>,
}

impl Search {
    /// Begins with the outermost index, whose digest is given; `add` it next.
    pub fn new(selection: &Selection, index_digest: &str) -> Self {
        Self {
            selection: selection.clone(),
            pending: VecDeque::new(),
            current: vec![index_digest.to_owned()],
            read: 0,
            best: None,
            available: Vec::new(),
        }
    }

    /// Takes in the outermost index, or the one that [`Step::Fetch`] asked for.
    pub fn add(&mut self, index: &ImageIndex) -> Result<(), SelectError> {
        self.read += 1;
        for entry in index.manifests().iter().filter(|entry| !is_attestation(entry)) {
            if is_index(entry.media_type().as_ref()) {
                self.nest(entry)?;
            } else {
                self.consider(entry);
            }
        }
        Ok(())
    }

    /// What to do next. An index is read only while nothing fits best.
    #[allow(clippy::should_implement_trait, reason = "it fails, and it never ends in None")]
    pub fn next(&mut self) -> Result<Step, SelectError> {
        let perfect = matches!(self.best, Some((0, _)));
        if !perfect && let Some((nested, around)) = self.pending.pop_front() {
            if self.read >= MAX_INDEXES {
                return Err(SelectError::TooMany);
            }
            self.current = around;
            self.current.push(nested.digest().to_string());
            return Ok(Step::Fetch(nested));
        }
        match &self.best {
            Some((_, manifest)) => Ok(Step::Chosen(manifest.clone())),
            None => Err(SelectError::NoMatch { wanted: self.selection.to_string(), available: self.available.clone() }),
        }
    }

    fn nest(&mut self, entry: &Descriptor) -> Result<(), SelectError> {
        let digest = entry.digest().to_string();
        if self.current.contains(&digest) {
            return Err(SelectError::Cycle { digest });
        }
        if self.current.len() >= MAX_DEPTH {
            return Err(SelectError::TooDeep { digest });
        }
        self.pending.push_back((entry.clone(), self.current.clone()));
        Ok(())
    }

    /// Keeps the better of this and what there was; the first of equals.
    fn consider(&mut self, entry: &Descriptor) {
        let platform = entry.platform().as_ref().map(Platform::of);
        let name = platform.as_ref().map_or_else(|| "a manifest without a platform".to_owned(), Platform::to_string);
        if self.available.len() < NAMED && !self.available.contains(&name) {
            self.available.push(name);
        }
        let rank = match &platform {
            Some(offered) => self.selection.rank(offered),
            None => self.selection.platform.is_none().then_some(UNKNOWN),
        };
        if let Some(rank) = rank
            && self.best.as_ref().is_none_or(|(best, _)| rank < *best)
        {
            self.best = Some((rank, entry.clone()));
        }
    }
}

/// Whether a media type is that of an index: OCI's, or Docker's manifest list.
pub fn is_index(media_type: &str) -> bool {
    matches!(
        media_type,
        "application/vnd.oci.image.index.v1+json" | "application/vnd.docker.distribution.manifest.list.v2+json"
    )
}

/// Provenance and SBOMs that BuildKit stores as manifests for an unknown platform.
pub fn is_attestation(entry: &Descriptor) -> bool {
    let annotated = |all: &std::collections::HashMap<String, String>| all.contains_key("vnd.docker.reference.type");
    let unknown = |platform: &oci_spec::image::Platform| {
        (platform.os().to_string(), platform.architecture().to_string()) == ("unknown".to_owned(), "unknown".to_owned())
    };
    entry.annotations().as_ref().is_some_and(annotated) || entry.platform().as_ref().is_some_and(unknown)
}

#[cfg(test)]
mod tests;
