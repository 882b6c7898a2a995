//! Parts of WASI that are linked for those components alone that import them: most do not, and each takes its time to link.

use crate::{Command, RunError, config, keyvalue, logging, network, state::State};
use wasmtime::{
    Engine, Result,
    component::{Component, Linker},
};
use wasmtime_wasi_http::{p2, p3};

/// Whether an import is of values or stores, without which a program that has it is not run.
pub fn is_granted_by_value(import: &str) -> bool {
    config::is_interface(import) || keyvalue::is_interface(import)
}

/// Which of them a component imports; the names of those that have to be granted.
#[derive(Debug, Clone, Default)]
pub(crate) struct Parts {
    http: bool,
    lookup: bool,
    logging: bool,
    config: Vec<String>,
    keyvalue: Vec<String>,
}

impl Parts {
    pub(crate) fn of(engine: &Engine, component: &Component) -> Self {
        Self::named(component.component_type().imports(engine).map(|(name, _)| name))
    }

    pub(crate) fn named<'a>(imports: impl Iterator<Item = &'a str>) -> Self {
        let mut parts = Self::default();
        for name in imports {
            parts.http |= name.starts_with("wasi:http/");
            parts.lookup |= name.starts_with("wasi:sockets/ip-name-lookup@");
            parts.logging |= logging::is_interface(name);
            if config::is_interface(name) {
                parts.config.push(name.to_owned());
            } else if keyvalue::is_interface(name) {
                parts.keyvalue.push(name.to_owned());
            }
        }
        parts
    }

    /// Adds them to a linker that lets what is added last count; those of 0.3, too, if the component is `concurrent`.
    pub(crate) fn add(&self, linker: &mut Linker<State>, concurrent: bool) -> Result<()> {
        if self.http {
            p2::add_only_http_to_linker_async(linker)?;
            if concurrent {
                p3::add_to_linker(linker)?;
            }
        }
        if self.lookup {
            network::add_lookup(linker)?;
            if concurrent {
                network::add_concurrent_lookup(linker)?;
            }
        }
        if self.logging {
            logging::add(linker)?;
        }
        if !self.config.is_empty() {
            config::add(linker)?;
        }
        if !self.keyvalue.is_empty() {
            keyvalue::add(linker)?;
        }
        Ok(())
    }

    /// Fails if it imports what it was granted nothing of.
    pub(crate) fn check(&self, command: &Command) -> std::result::Result<(), RunError> {
        let config = self.config.iter().filter(|_| command.config.is_empty());
        let keyvalue = self.keyvalue.iter().filter(|_| command.stores.is_empty());
        match config.chain(keyvalue).cloned().collect::<Vec<_>>() {
            missing if missing.is_empty() => Ok(()),
            missing => Err(RunError::Imports { missing }),
        }
    }
}
