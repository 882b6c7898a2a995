//! What a program is given.

use crate::{Configuration, Network, OutputSink, Preopen, Stores};
use std::{net::TcpListener, sync::Arc, time::Duration};

/// All that a program is given. Standard input is this process's own.
#[derive(Debug)]
pub struct Command {
    /// Arguments, `argv[0]` first.
    pub argv: Vec<String>,
    /// Environment.
    pub env: Vec<(String, String)>,
    /// Granted directories.
    pub preopens: Vec<Preopen>,
    /// Working directory as a guest path, where relative paths begin.
    ///
    /// Components are told it, unless it is `/`. Modules have no such thing: `PWD` is set, unless `env` has it, and the directory is
    /// granted once more under the name `.`, if it is inside a granted one and none of them is `/` or `.` already;
    /// relative paths of a C program then begin there.
    pub cwd: Option<String>,
    /// Sockets, and requests by HTTP.
    pub network: Network,
    /// Values that a component asks for by `wasi:config`.
    pub config: Configuration,
    /// Stores that it opens by `wasi:keyvalue`.
    pub stores: Stores,
    /// Where what it writes goes. None: to this process's own streams.
    pub output: Option<OutputSink>,
    /// Sockets that listen and do not block, for a module to accept at: its descriptors from 3 on, before all directories. A component opens
    /// its own and can be given none.
    pub listeners: Vec<Arc<TcpListener>>,
    /// The sum of all linear memories and tables, in bytes; a table element counts 8.
    pub memory_bytes: Option<u64>,
    /// Instructions, roughly; needs code compiled with fuel.
    pub fuel: Option<u64>,
    /// Wall-clock time from the call of [`run`]. Ends loops as well as waiting, whatever is waited for; a program that
    /// waits is left waiting on a thread of its own, and ends with the process.
    pub timeout: Option<Duration>,
}

impl Command {
    /// Granted nothing, and limited by nothing.
    #[must_use]
    pub fn new(argv: Vec<String>) -> Self {
        Self {
            argv,
            env: Vec::new(),
            preopens: Vec::new(),
            cwd: None,
            network: Network::none(|_| ()),
            config: Configuration::default(),
            stores: Stores::default(),
            output: None,
            listeners: Vec::new(),
            memory_bytes: None,
            fuel: None,
            timeout: None,
        }
    }
}
