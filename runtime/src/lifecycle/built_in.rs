//! The images that amphora brings along: one program as a Linux executable and as a Wasm module, for who has none yet.

use anyhow::Result;
use images::{
    Reference,
    import::{self, Changes},
};

use crate::{records::host::Host, spec::Workload};

const LINUX_PROGRAM: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/vessel"));
const WASM_PROGRAM: &str = include_str!("../../demo/vessel.wat");

/// Their names.
pub(crate) const IMAGES: [&str; 2] = ["vessel:linux", "vessel:wasm"];

/// Puts them into a store, ready to run.
pub(crate) fn import(host: &Host) -> Result<()> {
    let linux: Reference = IMAGES[0].parse()?;
    let changes = Changes { entrypoint: Some(vec!["/vessel".to_owned()]), ..Changes::default() };
    import::import_files(&host.store, &[("vessel", 0o755, LINUX_PROGRAM)], &linux, &changes)?;
    let wasm = import::import_wasm(&host.store, WASM_PROGRAM.as_bytes(), &IMAGES[1].parse()?)?;
    Workload::of(&wasm)?.behaviour().prepare(host, &wasm)
}
