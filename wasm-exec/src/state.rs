//! What the host's functions of one instance work on.

use crate::{
    Command, NetworkGrant, RunError,
    limits::MemorySum,
    preopens::{self, Granted},
    stdio::Output,
    wasi_p1::{Listings, Outward, Places},
};
use wasmtime::WasmBacktrace;
use wasmtime_wasi::{WasiCtxBuilder, WasiCtxView, WasiView, p1::WasiP1Ctx};

/// What a running program's host functions work on.
pub(crate) struct State {
    pub(crate) wasi: WasiP1Ctx,
    pub(crate) memory: MemorySum,
    /// Where an exit says that it was raised.
    pub(crate) nowhere: Option<WasmBacktrace>,
    /// Of a module.
    pub(crate) places: Places,
    /// Of a module.
    pub(crate) listings: Listings,
    /// Of a module whose working directory lies within a grant.
    pub(crate) outward: Option<Outward>,
}

impl State {
    /// Of a program that is given this. Opens the directories.
    pub(crate) fn new(command: &Command, memory: MemorySum) -> Result<Self, RunError> {
        let (wasi, granted) = wasi(command, memory.clone())?;
        Ok(Self {
            wasi,
            memory,
            nowhere: None,
            places: Places::new(granted.places),
            listings: Listings::default(),
            outward: granted.outward,
        })
    }

    /// A state for linking and not for running.
    pub(crate) fn empty() -> Self {
        Self {
            wasi: WasiCtxBuilder::new().build_p1(),
            memory: MemorySum::new(None),
            nowhere: None,
            places: Places::default(),
            listings: Listings::default(),
            outward: None,
        }
    }
}

impl WasiView for State {
    fn ctx(&mut self) -> WasiCtxView<'_> {
        self.wasi.ctx()
    }
}

fn wasi(command: &Command, memory: MemorySum) -> Result<(WasiP1Ctx, Granted), RunError> {
    let mut wasi = WasiCtxBuilder::new();
    wasi.inherit_stdin().stdout(Output::stdout(memory)).stderr(Output::Stderr);
    wasi.args(&command.argv).envs(&command.env);
    // Nobody else is served by this thread, and handing file operations to another costs far more than most of them.
    wasi.allow_blocking_current_thread(true);
    // Of the root, where everybody begins, nobody is told.
    if let Some(cwd) = command.cwd.as_ref().filter(|cwd| *cwd != "/") {
        wasi.initial_cwd(cwd);
        if !command.env.iter().any(|(name, _)| name == "PWD") {
            wasi.env("PWD", cwd);
        }
    }
    let granted = preopens::grant(&mut wasi, &command.preopens, command.cwd.as_deref())?;
    // Otherwise no socket can even be made.
    if command.network == NetworkGrant::All {
        wasi.inherit_network().allow_tcp(true).allow_udp(true).allow_ip_name_lookup(true);
    }
    Ok((wasi.build_p1(), granted))
}
