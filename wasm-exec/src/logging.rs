//! `wasi:logging`: messages of a program, a line each on its standard error.

use crate::state::State;
use wasmtime::{
    Result, StoreContextMut,
    component::{ComponentType, Lift, Linker, Lower},
};

/// The draft, and the same as it was before drafts had numbers.
const INTERFACES: [&str; 2] = ["wasi:logging/logging@0.1.0-draft", "wasi:logging/logging"];

/// How grave it is.
#[derive(Debug, Clone, Copy, ComponentType, Lift, Lower)]
#[expect(dead_code, reason = "they are lifted from what a component gives")]
#[component(enum)]
#[repr(u8)]
enum Level {
    #[component(name = "trace")]
    Trace,
    #[component(name = "debug")]
    Debug,
    #[component(name = "info")]
    Info,
    #[component(name = "warn")]
    Warn,
    #[component(name = "error")]
    Error,
    #[component(name = "critical")]
    Critical,
}

impl Level {
    fn word(self) -> &'static str {
        match self {
            Self::Trace => "TRACE",
            Self::Debug => "DEBUG",
            Self::Info => "INFO",
            Self::Warn => "WARN",
            Self::Error => "ERROR",
            Self::Critical => "CRITICAL",
        }
    }
}

/// Whether it is one of those that are here.
pub(crate) fn is_interface(name: &str) -> bool {
    INTERFACES.contains(&name)
}

/// Adds both to a linker.
pub(crate) fn add(linker: &mut Linker<State>) -> Result<()> {
    for interface in INTERFACES {
        linker.instance(interface)?.func_wrap(
            "log",
            |store: StoreContextMut<'_, State>, (level, context, message): (Level, String, String)| {
                // In one piece, as several requests may write at once. Who has closed the stream wants to know nothing.
                let _ = store.data().stderr.write_whole(line(level, &context, &message).as_bytes());
                Ok(())
            },
        )?;
    }
    Ok(())
}

fn line(level: Level, context: &str, message: &str) -> String {
    let context = if context.is_empty() { String::new() } else { format!("{context}: ") };
    format!("{} {context}{}\n", level.word(), message.trim_end())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_is_a_line() {
        assert_eq!(line(Level::Warn, "net", "slow\n"), "WARN net: slow\n");
        assert_eq!(line(Level::Info, "", "ready"), "INFO ready\n");
    }
}
