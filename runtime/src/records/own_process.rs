//! Processes that amphora starts of its own program, each known by the first word of its command line.

use std::{path::Path, process::Command};

/// This program, whatever became of the file that it was started from; proc(5).
pub(crate) const THIS_PROGRAM: &str = "/proc/self/exe";

/// What such a process is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum OwnProcess {
    /// Supervises a container that runs in the background: ROOT, RUNROOT, id.
    Supervise,
    /// Supervises a program of `exec -d`: the whole command line, as it was typed.
    Exec,
    /// Compiles a Wasm program: ROOT, RUNROOT, digest of the image, program, whether fuel is counted, proposals, whether in haste, pid of who
    /// waits for it.
    Compile,
    /// Compiles one that runs already, for its next run: ROOT, RUNROOT, digest of the image, program, whether fuel is counted, proposals.
    Optimise,
    /// Looks after the health of a container: ROOT, RUNROOT, id.
    Health,
    /// Imports the images of a demo: ROOT, RUNROOT, `programs` or `functions`.
    ImportDemo,
    /// Becomes pasta, which connects a container of somebody who is not root: pid of who waits for it, the program, its arguments.
    Pasta,
    /// Passes frames between containers of a network of somebody who is not root: it listens at its standard input.
    Switch,
}

impl OwnProcess {
    const ALL: [Self; 8] = [
        Self::Supervise,
        Self::Exec,
        Self::Compile,
        Self::Optimise,
        Self::Health,
        Self::ImportDemo,
        Self::Pasta,
        Self::Switch,
    ];

    fn word(self) -> &'static str {
        match self {
            Self::Supervise => "__supervise",
            Self::Exec => "__exec",
            Self::Compile => "__compile",
            Self::Optimise => "__optimise",
            Self::Health => "__health",
            Self::ImportDemo => "__import-demo",
            Self::Pasta => "__pasta",
            Self::Switch => "__switch",
        }
    }

    /// The process that a first word stands for; None for what a user types.
    pub(crate) fn parse(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|process| process.word() == word)
    }

    /// The command that starts it. Of this process's files it gets what the command says; it may outlive whoever waits for the others.
    pub(crate) fn command(self, program: &Path) -> Command {
        // Where this fails, a container cannot be started either.
        let _ = linux_exec::process::pass_on_streams_alone();
        let mut command = Command::new(program);
        command.arg(self.word());
        command
    }
}
