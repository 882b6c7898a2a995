//! `wasi:config`: values that a program asks for by name.

use crate::state::State;
use std::{collections::BTreeMap, sync::Arc};
use wasmtime::{
    Result, StoreContextMut,
    component::{ComponentType, Lift, Linker, Lower},
};

/// In all drafts that tools emit the two functions are the same.
const INTERFACES: [&str; 4] = [
    "wasi:config/store@0.2.0-rc.1",
    "wasi:config/store@0.2.0-draft-2024-09-27",
    "wasi:config/store@0.2.0-draft",
    "wasi:config/runtime@0.2.0-draft",
];

/// What a program is configured with; clones are the same.
#[derive(Debug, Clone, Default)]
pub struct Configuration(Arc<BTreeMap<String, String>>);

impl FromIterator<(String, String)> for Configuration {
    fn from_iter<I: IntoIterator<Item = (String, String)>>(values: I) -> Self {
        Self(Arc::new(values.into_iter().collect()))
    }
}

impl Configuration {
    /// Whether there is no value.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

/// Of asking for a value; nothing that is told here fails.
#[derive(ComponentType, Lift, Lower)]
#[component(variant)]
enum Error {
    #[component(name = "upstream")]
    Upstream(String),
    #[component(name = "io")]
    Io(String),
}

/// Whether it is one of those that are here.
pub(crate) fn is_interface(name: &str) -> bool {
    INTERFACES.contains(&name)
}

type All = Vec<(String, String)>;

/// Adds all drafts to a linker.
pub(crate) fn add(linker: &mut Linker<State>) -> Result<()> {
    for interface in INTERFACES {
        let mut store = linker.instance(interface)?;
        store.func_wrap("get", |call: StoreContextMut<'_, State>, (name,): (String,)| {
            Ok((Ok::<_, Error>(call.data().config.0.get(&name).cloned()),))
        })?;
        store.func_wrap("get-all", |call: StoreContextMut<'_, State>, (): ()| {
            let all: All = call.data().config.0.iter().map(|(name, value)| (name.clone(), value.clone())).collect();
            Ok((Ok::<_, Error>(all),))
        })?;
    }
    Ok(())
}
