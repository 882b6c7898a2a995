//! Proposals for WebAssembly: what the engine has and what of it is on.

use wasmparser::{Validator, WasmFeatures};
use wasmtime::Config;

/// Those that are off unless they are asked for: unfinished, and not covered by wasmtime's promises of security.
const OPTIONAL: [(&str, WasmFeatures); 9] = [
    ("custom-page-sizes", WasmFeatures::CUSTOM_PAGE_SIZES),
    ("stack-switching", WasmFeatures::STACK_SWITCHING),
    ("wide-arithmetic", WasmFeatures::WIDE_ARITHMETIC),
    ("component-async-stackful", WasmFeatures::CM_ASYNC_STACKFUL),
    ("component-error-context", WasmFeatures::CM_ERROR_CONTEXT),
    ("component-fixed-length-lists", WasmFeatures::CM_FIXED_LENGTH_LISTS),
    ("component-map", WasmFeatures::CM_MAP),
    ("component-more-async-builtins", WasmFeatures::CM_MORE_ASYNC_BUILTINS),
    ("component-threading", WasmFeatures::CM_THREADING),
];

/// Those that are always on.
const STANDARD: [&str; 14] = [
    "bulk-memory",
    "component-async",
    "component-model",
    "exceptions",
    "extended-const",
    "function-references",
    "gc",
    "memory64",
    "multi-memory",
    "multi-value",
    "reference-types",
    "relaxed-simd",
    "simd",
    "tail-call",
];

/// Those that this version of the engine lacks, or that nothing here provides the rest of.
const LACKING: [(&str, &str); 7] = [
    ("custom-descriptors", "the engine does not have it"),
    ("legacy-exceptions", "the engine has only what became of it: exceptions, which are always on"),
    ("memory-control", "the engine does not have it"),
    ("shared-everything-threads", "the engine does not have it"),
    ("compact-imports", "the engine does not have it"),
    ("component-gc", "the engine does not have it"),
    ("threads", "its instructions are always on, but nothing here starts threads or shares a memory (wasi-threads)"),
];

/// Proposals that a program is compiled for, beside those that are always on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct Proposals(u16);

/// A proposal that cannot be had.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ProposalError {
    /// There is none of this name.
    #[error("there is no proposal `{0}`; those that can be switched on are {known}; always on are {always}",
        known = names().collect::<Vec<_>>().join(", "), always = STANDARD.join(", "))]
    Unknown(String),
    /// It is known, and not to be had.
    #[error("the proposal `{name}` cannot be had: {why}")]
    Lacking {
        /// Its name.
        name: String,
        /// Why not.
        why: &'static str,
    },
}

impl Proposals {
    /// Adds one by its name, which changes nothing for one that is always on.
    pub fn with(self, name: &str) -> Result<Self, ProposalError> {
        if let Some(place) = OPTIONAL.iter().position(|(known, _)| *known == name) {
            return Ok(Self(self.0 | 1 << place));
        }
        match LACKING.iter().find(|(known, _)| *known == name) {
            Some((_, why)) => Err(ProposalError::Lacking { name: name.to_owned(), why }),
            None if STANDARD.contains(&name) => Ok(self),
            None => Err(ProposalError::Unknown(name.to_owned())),
        }
    }

    /// Those beside what is always on.
    pub fn names(self) -> impl Iterator<Item = &'static str> {
        self.features().map(|(name, _)| name)
    }

    fn features(self) -> impl Iterator<Item = (&'static str, WasmFeatures)> {
        OPTIONAL
            .into_iter()
            .enumerate()
            .filter(move |(place, _)| self.0 & 1 << place != 0)
            .map(|(_, proposal)| proposal)
    }

    /// Part of a file's name: nothing, or `-with` and a number.
    pub(crate) fn suffix(self) -> String {
        if self.0 == 0 { String::new() } else { format!("-with{:x}", self.0) }
    }

    /// Takes that part off the end of a name.
    pub(crate) fn strip(name: &str) -> (&str, Self) {
        let found =
            name.rsplit_once("-with").and_then(|(rest, bits)| Some((rest, u16::from_str_radix(bits, 16).ok()?)));
        found.map_or((name, Self::default()), |(rest, bits)| (rest, Self(bits)))
    }

    pub(crate) fn enable(self, config: &mut Config) {
        for (_, feature) in self.features() {
            config.wasm_features(feature, true);
        }
    }
}

fn names() -> impl Iterator<Item = &'static str> {
    OPTIONAL.iter().map(|(name, _)| *name)
}

/// Which proposals a program uses that are not among `on`: names that can be switched on; or, if those are not enough, that of one
/// which cannot be had. None if the program is malformed, or uses none.
pub fn missing_proposals(program: &[u8], on: Proposals) -> Option<Result<Vec<&'static str>, String>> {
    let valid_with = |features: WasmFeatures| Validator::new_with_features(features).validate_all(program).is_ok();
    if !valid_with(WasmFeatures::all()) {
        return None;
    }
    let standard =
        WasmFeatures::WASM3 | WasmFeatures::GC_TYPES | WasmFeatures::COMPONENT_MODEL | WasmFeatures::CM_ASYNC;
    let base = on.features().fold(standard, |all, (_, feature)| all | feature);
    if valid_with(base) {
        return None;
    }
    let every = OPTIONAL.iter().fold(base, |all, (_, feature)| all | *feature);
    if valid_with(every) {
        let needed =
            OPTIONAL.iter().filter(|(_, feature)| !base.contains(*feature) && !valid_with(every.difference(*feature)));
        return Some(Ok(needed.map(|(name, _)| *name).collect()));
    }
    let all = WasmFeatures::all();
    let lacking = all.difference(every).iter_names().find(|(_, feature)| !valid_with(all.difference(*feature)));
    Some(Err(lacking.map_or("one of several", |(name, _)| name).to_ascii_lowercase().replace('_', "-")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_taken_or_refused() {
        let some = Proposals::default().with("gc").unwrap().with("wide-arithmetic").unwrap();
        assert_eq!(some.names().collect::<Vec<_>>(), ["wide-arithmetic"]);
        let name = format!("abc{}", some.suffix());
        assert_eq!(Proposals::strip(&name), ("abc", some));
        assert_eq!(Proposals::strip("abc-fuel"), ("abc-fuel", Proposals::default()));
        let told = |name| Proposals::default().with(name).unwrap_err().to_string();
        assert!(told("shared-everything-threads").contains("does not have it"));
        assert!(told("threads").contains("wasi-threads"));
        assert!(
            told("warp").contains("no proposal `warp`") && told("warp").contains("stack-switching"),
            "{}",
            told("warp")
        );
    }

    #[test]
    fn what_a_program_lacks_is_found() {
        let wasm = |text: &str| wat::parse_str(text).unwrap();
        let pages = wasm("(module (memory 1 (pagesize 1)))");
        assert_eq!(missing_proposals(&pages, Proposals::default()), Some(Ok(vec!["custom-page-sizes"])));
        assert_eq!(missing_proposals(&pages, Proposals::default().with("custom-page-sizes").unwrap()), None);
        assert_eq!(missing_proposals(&wasm("(module)"), Proposals::default()), None);
        assert_eq!(missing_proposals(b"\0asm\x01\0\0\0\x02\xff", Proposals::default()), None);
        let shared = wasm("(module (global (shared i32) (i32.const 0)))");
        assert_eq!(missing_proposals(&shared, Proposals::default()), Some(Err("shared-everything-threads".to_owned())));
    }
}
