//! Exit codes: the only place where they are decided.
//!
//! Those of Docker (`docker run`: 125, 126, 127), of timeout(1) (124), and of a shell for signals (128 + number).

use linux_exec::spawn::Exit;
use wasm_exec::Outcome;

/// It did what it was to do.
pub(crate) const SUCCESS: u8 = 0;
/// A time limit ended it.
pub(crate) const TIMED_OUT: u8 = 124;
/// A command failed that runs no program.
pub(crate) const FAILED: u8 = 1;
/// Two benchmarks could not be compared, where [`FAILED`] says what came of it.
pub(crate) const NOT_COMPARED: u8 = 2;
/// A template that does not parse, of `inspect`.
pub(crate) const NO_TEMPLATE: u8 = 64;
/// An error of amphora's own where the code is otherwise a program's, or of who typed the command.
pub(crate) const OURS: u8 = 125;
/// There is something of that name, and it cannot be executed.
pub(crate) const NOT_EXECUTABLE: u8 = 126;
/// There is no such program.
pub(crate) const NOT_FOUND: u8 = 127;
/// Nobody was left to see how it ended; Docker's code for a container that ran when the machine went down.
pub(crate) const LOST: u8 = 255;

/// SIGABRT, by which a trap would end a process, and SIGKILL, by which a want of memory does; signal(7).
const ABORT: u8 = 6;
const KILL: u8 = 9;

/// Of a program that a signal ended.
pub(crate) fn of_signal(signal: u8) -> u8 {
    128u8.saturating_add(signal)
}

/// The other way round: by which signal a program ended of which only the code is known.
pub(crate) fn signal_of(code: u8) -> Option<u8> {
    code.checked_sub(128)
}

/// What the kernel said of a process.
pub(crate) fn of_exit(exit: Exit) -> u8 {
    match exit {
        Exit::Code(code) => code,
        Exit::Signal(signal) => of_signal(signal),
    }
}

/// What the engine said of a program.
pub(crate) fn of_outcome(outcome: &Outcome) -> u8 {
    match outcome {
        Outcome::Exited(code) => *code,
        Outcome::Trapped { .. } | Outcome::OutOfFuel => of_signal(ABORT),
        Outcome::TimedOut { .. } => TIMED_OUT,
        Outcome::OutOfMemory { .. } => of_signal(KILL),
    }
}

/// A supervisor that was killed took its container with it.
pub(crate) fn of_killed() -> u8 {
    of_signal(KILL)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ends_have_the_codes_that_shells_give_them() {
        assert_eq!((of_exit(Exit::Code(3)), of_exit(Exit::Signal(15)), of_exit(Exit::Signal(255))), (3, 143, 255));
        assert_eq!((signal_of(137), signal_of(3)), (Some(9), None));
        let trapped = Outcome::Trapped { trap: String::new(), backtrace: String::new() };
        assert_eq!(
            (of_outcome(&Outcome::Exited(7)), of_outcome(&trapped), of_outcome(&Outcome::OutOfFuel)),
            (7, 134, 134)
        );
        let (trap, backtrace) = (String::new(), String::new());
        assert_eq!(of_outcome(&Outcome::OutOfMemory { limit_bytes: 1, wanted_bytes: 2, trap, backtrace }), 137);
        assert_eq!(of_outcome(&Outcome::TimedOut { backtrace: String::new() }), 124);
    }
}
