//! `attach`, and `run` and `start` in front of a container that its user can leave.

use std::io::{self, IsTerminal};

use anyhow::{Result, bail};

use super::find;
use crate::{
    cli::{AttachArgs, ProgramArgs, StartArgs},
    lifecycle::attach::{self, Attachment},
    output::errors::Coded,
    records::host::Host,
    spec::{RunSpec, detach_keys::DetachKeys},
};

/// `amphora attach`: the container's exit code, or 0 when its user leaves it.
pub(crate) fn attach(host: &Host, args: &AttachArgs) -> Result<u8> {
    let container = find(host, &args.container)?;
    let input = !args.no_stdin;
    if input && container.spec.stdio.terminal && container.spec.stdio.interactive && !io::stdin().is_terminal() {
        bail!(Coded::new(1, "the input device is not a TTY"));
    }
    let keys = DetachKeys::parse(args.detach_keys.as_deref())?;
    container.happened("attach");
    attach::attach(&container, Attachment { input, stdout: true, stderr: true, keys, passes_signals: args.sig_proxy })
}

/// A terminal is asked for and the input is none: nothing is to be made then, as with Docker.
pub(super) fn refuse_without_terminal(args: &ProgramArgs) -> Result<()> {
    let is_attached = args.attach.is_empty() || args.attach.iter().any(|stream| stream.eq_ignore_ascii_case("stdin"));
    if !args.detach && args.tty && args.interactive && is_attached && !io::stdin().is_terminal() {
        bail!(Coded::new(1, "the input device is not a TTY"));
    }
    Ok(())
}

/// How `run` is attached, if that takes more than its own streams: it can be left, or goes on when its program has ended, or only some of
/// its streams are wanted.
pub(super) fn of_run(args: &ProgramArgs, spec: &RunSpec) -> Result<Option<Attachment>> {
    let keys = DetachKeys::parse(args.detach_keys.as_deref())?;
    let passes_signals = match args.sig_proxy.as_deref() {
        None | Some("true" | "1") => true,
        Some("false" | "0") => false,
        Some(other) => bail!("invalid value `{other}` for --sig-proxy: expected true or false"),
    };
    let wanted =
        |name: &str| args.attach.is_empty() || args.attach.iter().any(|stream| stream.eq_ignore_ascii_case(name));
    if let Some(other) =
        args.attach.iter().find(|name| !["stdin", "stdout", "stderr"].contains(&name.to_lowercase().as_str()))
    {
        bail!("invalid value `{other}` for --attach: expected stdin, stdout or stderr");
    }
    let attachment = Attachment {
        input: wanted("stdin") && spec.stdio.interactive,
        stdout: wanted("stdout"),
        stderr: wanted("stderr"),
        keys,
        passes_signals,
    };
    let is_plain = args.attach.is_empty() && passes_signals && !spec.restart.restarts();
    let ends_input = spec.stdio.interactive && !spec.stdio.terminal && attachment.input;
    if !is_plain && ends_input {
        bail!(
            "-i without -t cannot be used with --attach, --restart or --sig-proxy=false in the foreground: use -d, then amphora attach"
        );
    }
    Ok((!is_plain || spec.stdio.terminal && spec.stdio.interactive).then_some(attachment))
}

/// The same for `start -a` and `start -i`.
pub(super) fn of_start(args: &StartArgs, spec: &RunSpec) -> Result<Option<Attachment>> {
    let keys = DetachKeys::parse(args.detach_keys.as_deref())?;
    let needs_front = spec.restart.restarts() || spec.stdio.terminal && spec.stdio.interactive;
    let attachment = Attachment { input: args.interactive, stdout: true, stderr: true, keys, passes_signals: true };
    Ok(needs_front.then_some(attachment))
}
