//! Signals as messages: the first one that ends lets requests finish, the second one does not.

use std::thread;

use anyhow::{Context, Result};
use nix::sys::{
    signal::{SigSet, Signal},
    signalfd::{SfdFlags, SignalFd},
};
use tokio::sync::mpsc;

/// What somebody wants of the gateway.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Wish {
    /// Read the file again.
    Reload,
    /// End.
    Stop,
}

const ENDING: [Signal; 3] = [Signal::SIGINT, Signal::SIGTERM, Signal::SIGQUIT];

/// Blocks them, before any other thread is there, so that all of them leave signals to one. Others may have wishes, too.
pub(super) fn listen() -> Result<(mpsc::UnboundedSender<Wish>, mpsc::UnboundedReceiver<Wish>)> {
    let signals: SigSet = ENDING.into_iter().chain([Signal::SIGHUP]).collect();
    signals.thread_block().context("cannot block signals")?;
    let arrivals = SignalFd::with_flags(&signals, SfdFlags::SFD_CLOEXEC).context("cannot make a signalfd")?;
    let (wishes, receiver) = mpsc::unbounded_channel();
    let others = wishes.clone();
    let wait = move || {
        // An error is an interruption, by what is waited for.
        loop {
            let Ok(Some(info)) = arrivals.read_signal() else { continue };
            let wish = if info.ssi_signo == Signal::SIGHUP as u32 { Wish::Reload } else { Wish::Stop };
            if wishes.send(wish).is_err() {
                return;
            }
        }
    };
    thread::Builder::new().name("signals".to_owned()).spawn(wait).context("cannot start a thread for signals")?;
    Ok((others, receiver))
}
