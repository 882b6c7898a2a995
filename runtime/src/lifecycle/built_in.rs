//! The images that amphora brings along: one program as a Linux executable and as a Wasm module, for who has none yet.

use anyhow::Result;
use images::{
    Reference,
    import::{self, Changes},
};

use crate::{records::host::Host, spec::Workload};

const LINUX_PROGRAM: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/vessel"));
const WASM_PROGRAM: &str = include_str!("../../demo/vessel.wat");
const WASM_FUNCTION: &str = include_str!("../../demo/function.wat");

/// Their names.
pub(crate) const IMAGES: [&str; 2] = ["vessel:linux", "vessel:wasm"];

/// Of them, the one that answers HTTP requests by `serve PORT`; and a Wasm component that answers them.
pub(crate) const FUNCTIONS: [&str; 2] = [IMAGES[0], "vessel:function"];

/// Puts the programs into a store, ready to run.
pub(crate) fn import(host: &Host) -> Result<()> {
    import_linux(host)?;
    import_wasm(host, WASM_PROGRAM, IMAGES[1])
}

/// Puts the functions into a store, ready to run.
pub(crate) fn import_functions(host: &Host) -> Result<()> {
    import_linux(host)?;
    import_wasm(host, WASM_FUNCTION, FUNCTIONS[1])
}

fn import_linux(host: &Host) -> Result<()> {
    let name: Reference = IMAGES[0].parse()?;
    let changes = Changes { entrypoint: Some(vec!["/vessel".to_owned()]), ..Changes::default() };
    import::import_files(&host.store, &[("vessel", 0o755, LINUX_PROGRAM)], &name, &changes)?;
    Ok(())
}

fn import_wasm(host: &Host, text: &str, name: &str) -> Result<()> {
    let image = import::import_wasm(&host.store, text.as_bytes(), &name.parse()?)?;
    Workload::of(&image)?.behaviour().prepare(host, &image)
}
