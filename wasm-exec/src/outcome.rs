//! How a program ended, in terms that both kinds of program share.

use crate::limits::MemorySum;
use wasmtime::{Error, Trap, WasmBacktrace};
use wasmtime_wasi::I32Exit;

/// How the program ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// By itself, with this status: the low eight bits of what it gave, as with a POSIX process. A component whose `run`
    /// returns an error has status 1.
    Exited(u8),
    /// By a trap: one line, and the readable backtrace.
    Trapped {
        /// What wasmtime calls the trap, e.g. `wasm trap: integer divide by zero`.
        trap: String,
        /// One frame a line, innermost first; may be empty.
        backtrace: String,
    },
    /// Its time was over.
    TimedOut {
        /// Where it was, as for a trap; or a sentence, if it was waiting for its host.
        backtrace: String,
    },
    /// It had used its fuel.
    OutOfFuel,
    /// It asked for memory over the limit and ended with a trap (or could not even start). One that copes without, and
    /// traps later over something else, has [trapped](Self::Trapped).
    OutOfMemory {
        /// The limit.
        limit_bytes: u64,
        /// What it asked for in all.
        wanted_bytes: u64,
        /// The trap, as above; empty if it did not start.
        trap: String,
        /// As above.
        backtrace: String,
    },
}

/// What a run came to.
#[derive(Debug)]
pub struct Report {
    /// The end.
    pub outcome: Outcome,
    /// Fuel consumed, if it was counted and the program is not still waiting.
    pub fuel_used: Option<u64>,
    /// Most that memories and tables came to at once.
    pub peak_memory_bytes: u64,
    /// Whether any growth was refused because of `memory_bytes`.
    pub memory_refused: bool,
    /// A Wasm core dump, if the [engine](crate::Engine::with_core_dumps) makes them and the program did not end by itself.
    pub core_dump: Option<Vec<u8>>,
}

impl Report {
    pub(crate) fn new(outcome: Outcome, memory: &MemorySum, fuel_used: Option<u64>) -> Self {
        let (peak_memory_bytes, memory_refused) = (memory.peak_bytes(), memory.refused().is_some());
        Self { outcome, fuel_used, peak_memory_bytes, memory_refused, core_dump: None }
    }
}

impl Outcome {
    /// The end of a program that waited in a call of its host when its time was over.
    pub(crate) fn timed_out_waiting() -> Self {
        Self::TimedOut { backtrace: "waiting in a call to its host (a sleep, a read or a write)".into() }
    }

    /// What an error says about the program, if it is the program's: it ran, or it was too large to start.
    pub(crate) fn of_error(error: &Error, memory: &MemorySum) -> Option<Self> {
        if let Some(I32Exit(status)) = error.downcast_ref() {
            return Some(Self::Exited(status.to_le_bytes()[0]));
        }
        let trap = error.downcast_ref::<Trap>();
        let backtrace = error.downcast_ref::<WasmBacktrace>();
        match trap {
            Some(Trap::OutOfFuel) => return Some(Self::OutOfFuel),
            Some(Trap::Interrupt) => return Some(Self::TimedOut { backtrace: frames(backtrace) }),
            _ => {}
        }
        let ran = trap.is_some() || backtrace.is_some();
        let told = || if ran { (one_line(error), frames(backtrace)) } else { Default::default() };
        let (trap, backtrace) = match memory.in_want().filter(|_| trap.is_none_or(|trap| is_for_want_of_memory(*trap)))
        {
            Some((limit_bytes, wanted_bytes)) => {
                let (trap, backtrace) = told();
                return Some(Self::OutOfMemory { limit_bytes, wanted_bytes, trap, backtrace });
            }
            None => told(),
        };
        ran.then_some(Self::Trapped { trap, backtrace })
    }
}

/// Whether a program ends like this when its allocator got nothing: it aborts, or uses -1 as if it were an address.
fn is_for_want_of_memory(trap: Trap) -> bool {
    matches!(
        trap,
        Trap::UnreachableCodeReached
            | Trap::MemoryOutOfBounds
            | Trap::HeapMisaligned
            | Trap::TableOutOfBounds
            | Trap::IndirectCallToNull
            | Trap::AllocationTooLarge
    )
}

fn one_line(error: &Error) -> String {
    let cause = error.root_cause().to_string();
    cause.lines().next().unwrap_or_default().to_owned()
}

/// The frames as wasmtime prints them, without its heading.
fn frames(backtrace: Option<&WasmBacktrace>) -> String {
    let text = backtrace.map(WasmBacktrace::to_string).unwrap_or_default();
    text.split_once('\n').map_or(String::new(), |(_heading, frames)| frames.to_owned())
}
