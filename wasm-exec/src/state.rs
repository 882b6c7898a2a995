//! What the host's functions of one instance work on.

use crate::{
    Command, NetworkGrant, RunError,
    http::Hooks,
    limits::MemorySum,
    preopens::{self, Granted},
    stdio::Output,
    wasi_p1::{Listings, Outward, Places},
};
use wasmtime::WasmBacktrace;
use wasmtime_wasi::{WasiCtxBuilder, WasiCtxView, WasiView, p1::WasiP1Ctx};
use wasmtime_wasi_http::{WasiHttpCtx, WasiHttpCtxView, WasiHttpView};

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
    http: WasiHttpCtx,
    hooks: Hooks,
}

impl State {
    /// Of a program that is given this. Opens the directories.
    pub(crate) fn new(command: &Command, memory: MemorySum) -> Result<Self, RunError> {
        let (mut wasi, granted) = wasi(command, memory.clone())?;
        wasi.inherit_stdin();
        // Nobody else is served by this thread, and handing file operations to another costs far more than most of them.
        wasi.allow_blocking_current_thread(true);
        Ok(Self { places: Places::new(granted.places), outward: granted.outward, ..Self::with(wasi, memory) })
    }

    /// Of a function that answers one request beside others: it has no standard input, and what blocks is done elsewhere.
    pub(crate) fn of_request(command: &Command, memory: MemorySum) -> Result<Self, RunError> {
        // The rest is for modules, and a function is a component.
        let (wasi, _granted) = wasi(command, memory.clone())?;
        Ok(Self::with(wasi, memory))
    }

    /// A state for linking and not for running.
    pub(crate) fn empty() -> Self {
        Self::with(WasiCtxBuilder::new(), MemorySum::new(None))
    }

    fn with(mut wasi: WasiCtxBuilder, memory: MemorySum) -> Self {
        Self {
            wasi: wasi.build_p1(),
            memory,
            nowhere: None,
            places: Places::default(),
            listings: Listings::default(),
            outward: None,
            http: WasiHttpCtx::new(),
            hooks: Hooks,
        }
    }
}

impl WasiView for State {
    fn ctx(&mut self) -> WasiCtxView<'_> {
        self.wasi.ctx()
    }
}

impl WasiHttpView for State {
    fn http(&mut self) -> WasiHttpCtxView<'_> {
        WasiHttpCtxView { ctx: &mut self.http, table: self.wasi.ctx().table, hooks: &mut self.hooks }
    }
}

fn wasi(command: &Command, memory: MemorySum) -> Result<(WasiCtxBuilder, Granted), RunError> {
    let mut wasi = WasiCtxBuilder::new();
    wasi.stdout(Output::stdout(memory)).stderr(Output::Stderr);
    wasi.args(&command.argv).envs(&command.env);
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
    Ok((wasi, granted))
}
