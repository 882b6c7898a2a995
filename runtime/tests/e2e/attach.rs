//! Containers that are left and come back to.

use std::process::Stdio;

use crate::{
    sandbox::Sandbox,
    session::{Session, until},
    terminal::Terminal,
};

#[test]
fn a_shell_is_left_by_keys_and_attached_to_again() {
    let Some((sandbox, [busybox])) = Sandbox::with(["busybox:latest"]) else { return };
    for flags in [&["run", "-it"][..], &["run", "-it", "--rm"]] {
        let words: Vec<&str> = flags.iter().copied().chain(["--name", "web", busybox.as_str(), "sh"]).collect();
        let mut first = Terminal::start(&sandbox, &words);
        first.type_text("x=va''lue; echo se''t\n");
        first.until_shown("set\r\n");
        first.type_text("\x10\x11");
        assert_eq!(first.wait(), Some(0), "{flags:?}");
        assert_eq!(sandbox.inspect("web", ".State.Status"), "running", "{flags:?}");
        // Other keys, of which some are typed for themselves.
        let mut second = Terminal::start(&sandbox, &["attach", "--detach-keys", "ctrl-a,d", "web"]);
        second.type_text("echo it is $x; stty size\n");
        second.until_shown("it is value\r\n");
        second.until_shown("33 111\r\n");
        second.type_text("\x01d");
        assert_eq!(second.wait(), Some(0), "{flags:?}");
        let mut third = Terminal::start(&sandbox, &["attach", "web"]);
        third.type_text("exit 7\n");
        assert_eq!(third.wait(), Some(7), "{flags:?}");
        sandbox.run(["rm", "-f", "web"]);
    }
    sandbox.check_clean();
}

/// It ended at once, as its input was closed.
#[test]
fn an_input_stays_open_in_the_background_for_who_attaches() {
    let Some((sandbox, [busybox])) = Sandbox::with(["busybox:latest"]) else { return };
    sandbox.ok(["run", "-d", "-i", "--name", "web", &busybox, "cat"]);
    for text in ["one\n", "two\n"] {
        let mut command = sandbox.command(["attach", "web"]);
        let mut session = Session::start({
            command.stdin(Stdio::piped());
            command
        });
        session.write(text.as_bytes());
        session.until_printed(text);
        assert_eq!(sandbox.inspect("web", ".State.Status"), "running");
    }
    assert_eq!(sandbox.ok(["logs", "web"]), "one\ntwo\n");
    sandbox.ok(["stop", "-t", "0", "web"]);
    assert!(sandbox.fails(1, ["attach", "web"]).contains("does not run"));
}

#[test]
fn who_attaches_sees_output_and_gets_the_exit_code() {
    let Some((sandbox, [busybox])) = Sandbox::with(["busybox:latest"]) else { return };
    let script = "trap 'echo got it; echo bad >&2; exit 9' TERM; echo ready; while :; do sleep 0.05; done";
    sandbox.ok(["run", "-d", "--name", "web", &busybox, "sh", "-c", script]);
    until("its trap", || sandbox.ok(["logs", "web"]).contains("ready").then_some(()));
    let session = sandbox.start(["attach", "--no-stdin", "web"]);
    // What is sent before it is attached ends it, and not the program.
    until("the attached", || {
        let stat = std::fs::read_to_string(format!("/proc/{}/status", session.pid())).ok()?;
        let blocked = stat.lines().find_map(|line| line.strip_prefix("SigBlk:\t"))?;
        (u64::from_str_radix(blocked, 16).ok()? & 1 << 14 != 0).then_some(())
    });
    session.signal(nix::sys::signal::Signal::SIGTERM);
    let ended = session.wait();
    assert_eq!((ended.code, ended.stdout.as_str(), ended.stderr.as_str()), (Some(9), "got it\n", "bad\n"), "{ended}");
}

#[test]
fn only_the_streams_that_are_wanted_are_shown() {
    let Some((sandbox, [busybox])) = Sandbox::with(["busybox:latest"]) else { return };
    let script = "echo one; echo two >&2; exit 3";
    let ended = sandbox.run(["run", "--name", "web", "-a", "stderr", &busybox, "sh", "-c", script]);
    assert_eq!((ended.code, ended.stdout.as_str(), ended.stderr.as_str()), (Some(3), "", "two\n"), "{ended}");
    let logs = sandbox.run(["logs", "web"]);
    assert_eq!((logs.stdout.as_str(), logs.stderr.as_str()), ("one\n", "two\n"));
    let ended = sandbox.run(["run", "--restart", "on-failure:1", "--name", "again", &busybox, "sh", "-c", script]);
    assert_eq!((ended.code, ended.stdout.as_str()), (Some(3), "one\n"), "{ended}");
    sandbox.ok(["wait", "again"]);
    assert!(sandbox.fails(125, ["run", "-a", "stdout", "-d", &busybox, "true"]).contains("--detach"));
    assert!(sandbox.fails(125, ["run", "-a", "nothing", &busybox, "true"]).contains("nothing"));
    assert!(sandbox.fails(125, ["run", "--detach-keys", "ctrl-", &busybox, "true"]).contains("--detach-keys"));
}
