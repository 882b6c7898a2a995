//! What a program is, and how each kind is compiled.

use super::error::{CacheError, engine_error};
use crate::{Profile, concurrency, engine, proposals};

/// What a program is, by its first eight bytes and what it asks of the component model.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Module,
    Component,
    ConcurrentComponent,
}

impl Kind {
    const ALL: [Self; 3] = [Self::Module, Self::Component, Self::ConcurrentComponent];

    /// The one of this number, as files have it.
    pub(super) fn numbered(number: u64) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| *kind as u64 == number)
    }

    /// Core specification, binary format, modules; component model, Binary.md, preamble.
    pub(crate) fn of(wasm: &[u8]) -> Result<Self, CacheError> {
        match wasm.get(..8) {
            Some(b"\0asm\x01\0\0\0") => Ok(Self::Module),
            Some(b"\0asm\x0d\0\x01\0") if concurrency::is_needed(wasm) => Ok(Self::ConcurrentComponent),
            Some(b"\0asm\x0d\0\x01\0") => Ok(Self::Component),
            Some([0, b'a', b's', b'm', version @ ..]) => Err(CacheError::Program {
                detail: format!("unknown version {version:02x?}, neither module nor component"),
            }),
            _ => Err(CacheError::Program { detail: "it does not begin with `\\0asm` and a version".into() }),
        }
    }

    pub(super) fn compile(self, wasm: &[u8], profile: Profile) -> Result<Vec<u8>, CacheError> {
        let profile = Profile { concurrent: self == Self::ConcurrentComponent, ..profile };
        let engine = engine::compiler(profile, wasm.len()).map_err(engine_error)?;
        let image = match self {
            Self::Module => engine.precompile_module(wasm),
            Self::Component | Self::ConcurrentComponent => engine.precompile_component(wasm),
        };
        image.map_err(|error| match proposals::missing_proposals(wasm, profile.proposals) {
            Some(Ok(names)) => CacheError::Off { names: names.join(","), detail: format!("{error:#}") },
            Some(Err(name)) => CacheError::Lacking { name, detail: format!("{error:#}") },
            None => CacheError::Program { detail: format!("{error:#}") },
        })
    }
}
