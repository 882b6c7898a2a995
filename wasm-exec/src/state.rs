//! What the host's functions of one instance work on.

use crate::{
    Command, Configuration, Network, RunError, Stores,
    limits::MemorySum,
    network::Hooks,
    preopens::{self, Granted},
    stdio::Output,
    wasi_p1::{Listings, Outward, Places, Sockets},
};
use wasmtime::WasmBacktrace;
use wasmtime_wasi::{WasiCtxBuilder, WasiCtxView, WasiView, p1::WasiP1Ctx};
use wasmtime_wasi_http::{WasiHttpCtx, WasiHttpCtxView, WasiHttpView};

/// Files, streams, requests and the like that one request may have at once.
const RESOURCES: usize = 10_000;

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
    /// Of a module.
    pub(crate) sockets: Sockets,
    pub(crate) config: Configuration,
    pub(crate) stores: Stores,
    /// What is said beside the program's own words.
    pub(crate) stderr: Output,
    http: WasiHttpCtx,
    hooks: Hooks,
}

impl State {
    /// Of a program that is given this. Opens the directories.
    pub(crate) fn new(command: &Command, memory: MemorySum) -> Result<Self, RunError> {
        let (mut wasi, granted) = wasi(command, memory.clone(), command.listeners.len())?;
        wasi.inherit_stdin();
        // Nobody else is served by this thread, and handing file operations to another costs far more than most of them.
        wasi.allow_blocking_current_thread(true);
        Ok(Self {
            places: Places::new(granted.places),
            outward: granted.outward,
            sockets: Sockets::new(&command.listeners),
            ..Self::with(wasi, memory, command)
        })
    }

    /// Of a function that answers one request beside others: it has no standard input, and what blocks is done elsewhere.
    pub(crate) fn of_request(command: &Command, memory: MemorySum) -> Result<Self, RunError> {
        // The rest is for modules, and a function is a component.
        let (wasi, _granted) = wasi(command, memory.clone(), 0)?;
        let mut state = Self::with(wasi, memory, command);
        // They are memory of this process, which no limit of the function's counts.
        state.wasi.ctx().table.set_max_capacity(RESOURCES);
        Ok(state)
    }

    /// A state for linking and not for running.
    pub(crate) fn empty() -> Self {
        let (wasi, memory) = (WasiCtxBuilder::new(), MemorySum::new(None));
        Self::with(wasi, memory, &Command::new(Vec::new()))
    }

    fn with(mut wasi: WasiCtxBuilder, memory: MemorySum, command: &Command) -> Self {
        Self {
            wasi: wasi.build_p1(),
            memory,
            nowhere: None,
            places: Places::default(),
            listings: Listings::default(),
            outward: None,
            sockets: Sockets::default(),
            config: command.config.clone(),
            stores: command.stores.clone(),
            stderr: Output::stderr(command.output.clone()),
            http: WasiHttpCtx::new(),
            hooks: Hooks(command.network.clone()),
        }
    }

    /// Where it may connect to.
    pub(crate) fn network(&self) -> &Network {
        &self.hooks.0
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

/// `sockets`: so many descriptors are not for directories.
fn wasi(command: &Command, memory: MemorySum, sockets: usize) -> Result<(WasiCtxBuilder, Granted), RunError> {
    let mut wasi = WasiCtxBuilder::new();
    let sink = || command.output.clone();
    wasi.stdout(Output::stdout(memory, sink())).stderr(Output::stderr(sink()));
    wasi.args(&command.argv).envs(&command.env);
    // Of the root, where everybody begins, nobody is told.
    if let Some(cwd) = command.cwd.as_ref().filter(|cwd| *cwd != "/") {
        wasi.initial_cwd(cwd);
        if !command.env.iter().any(|(name, _)| name == "PWD") {
            wasi.env("PWD", cwd);
        }
    }
    let granted = preopens::grant(&mut wasi, &command.preopens, command.cwd.as_deref(), sockets)?;
    // Otherwise no socket can even be made.
    if !command.network.is_none() {
        let network = command.network.clone();
        wasi.socket_addr_check(move |address, used_for| {
            let permitted = network.permits(address, used_for);
            Box::pin(async move { permitted })
        });
        wasi.allow_tcp(true).allow_udp(true);
    }
    Ok((wasi, granted))
}
