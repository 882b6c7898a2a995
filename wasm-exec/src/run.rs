//! Running a program as all that this process still does.

use crate::{
    Command, Instance, Network, Outcome, Program, Report, RunError,
    limits::MemorySum,
    watch::{self, Watched},
};
use std::{io, mem::ManuallyDrop};
use tokio::runtime::{self, Runtime};

/// Runs the program in this process to its end.
///
/// Call it in a process of its own that ends right after: it takes the process's stdio, installs signal handlers for
/// traps, blocks in every call of the program's to its host, leaves the program's memory as it is, and may leave a thread
/// behind that waits for standard input or, after a time-out, for something else. Whatever ends the program is in the report; an error means that nothing of it ran.
pub fn run(program: Program, command: Command) -> Result<Report, RunError> {
    let program = ManuallyDrop::new(program);
    let memory = MemorySum::new(command.memory_bytes);
    let Some(limit) = command.timeout else { return execute(&program, &command, &memory, None) };

    let engine = ManuallyDrop::new(program.engine().clone());
    let work = {
        let memory = memory.clone();
        move |watched| execute(&program, &command, &memory, Some(watched))
    };
    match watch::within(limit, &engine, work) {
        Ok(Some(ended)) => ended,
        Ok(None) => Ok(Report::new(Outcome::timed_out_waiting(), &memory, None)),
        Err(error) => Err(RunError::Thread { what: "the program's thread", error }),
    }
}

/// Runs the program in this thread.
///
/// Nothing is dropped: the process ends now, and the kernel takes its memory back faster than it can be unmapped and freed
/// piece by piece.
fn execute(
    program: &Program,
    command: &Command,
    memory: &MemorySum,
    watched: Option<Watched>,
) -> Result<Report, RunError> {
    let mut instance = ManuallyDrop::new(Instance::counted(program, command, memory.clone())?);
    if let Some(watched) = watched {
        watched.attach(instance.store());
    }
    let runtime = event_loop(&command.network).map_err(|error| RunError::Thread { what: "the event loop", error })?;
    ManuallyDrop::new(runtime).block_on(instance.run())
}

fn event_loop(network: &Network) -> io::Result<Runtime> {
    let mut builder = runtime::Builder::new_current_thread();
    builder.enable_time();
    if !network.is_none() {
        builder.enable_io();
    }
    builder.build()
}
