//! Terminals and signals.

use std::{
    fs::File,
    io::{Read, Write},
    os::fd::{AsFd, OwnedFd},
    process::{Child, Stdio},
    sync::{Arc, Mutex},
    thread,
};

use nix::{
    pty::{Winsize, openpty},
    sys::signal::Signal,
};

use crate::{
    sandbox::{KINDS, Sandbox},
    session::until,
};

/// The user's side of a terminal in which amphora runs.
pub(crate) struct Terminal {
    keyboard: File,
    screen: Arc<Mutex<Vec<u8>>>,
    amphora: Child,
}

fn size(rows: u16, columns: u16) -> Winsize {
    Winsize { ws_row: rows, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 }
}

impl Terminal {
    pub(crate) fn start(sandbox: &Sandbox, words: &[&str]) -> Self {
        let pty = openpty(&size(33, 111), None).expect("a terminal");
        let other_side = |fd: &OwnedFd| Stdio::from(fd.try_clone().expect("a descriptor"));
        let mut command = sandbox.command(words);
        command.stdin(other_side(&pty.slave)).stdout(other_side(&pty.slave)).stderr(other_side(&pty.slave));
        let amphora = command.spawn().expect("amphora");
        let keyboard = File::from(pty.master);
        let mut from = keyboard.try_clone().expect("a descriptor");
        let screen = Arc::new(Mutex::new(Vec::new()));
        let sink = Arc::clone(&screen);
        thread::spawn(move || {
            let mut buffer = [0; 4096];
            while let Ok(count @ 1..) = from.read(&mut buffer) {
                sink.lock().expect("nobody panics here").extend_from_slice(&buffer[..count]);
            }
        });
        Self { keyboard, screen, amphora }
    }

    pub(crate) fn screen(&self) -> String {
        String::from_utf8_lossy(&self.screen.lock().expect("nobody panics here")).into_owned()
    }

    pub(crate) fn type_text(&mut self, text: &str) {
        self.keyboard.write_all(text.as_bytes()).expect("somebody who reads");
    }

    /// Waits until the screen shows this.
    #[track_caller]
    pub(crate) fn until_shown(&self, text: &str) {
        until(&format!("`{text}` on the screen"), || self.screen().contains(text).then_some(()));
    }

    #[track_caller]
    pub(crate) fn wait(mut self) -> Option<i32> {
        until("its end", || self.amphora.try_wait().expect("its state")).code()
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        // It has ended already, unless a test gives up.
        let _ = self.amphora.kill();
        let _ = self.amphora.wait();
    }
}

#[test]
fn a_shell_in_a_terminal_has_its_size_and_ends_with_its_code() {
    let Some((sandbox, [busybox])) = Sandbox::with(["busybox:latest"]) else { return };
    for flags in [&["run", "--rm", "-it"][..], &["run", "-it"], &["run", "--rm", "-i", "-t", "--read-only"]] {
        let words: Vec<&str> = flags.iter().copied().chain([busybox.as_str(), "sh"]).collect();
        let mut terminal = Terminal::start(&sandbox, &words);
        terminal.type_text("stty size; tty; echo $TERM\n");
        terminal.until_shown("33 111\r\n");
        terminal.until_shown("/dev/pts/0\r\n");
        terminal.until_shown("xterm\r\n");
        terminal.type_text("exit 7\n");
        assert_eq!(terminal.wait(), Some(7), "{flags:?}");
    }
}

#[test]
fn control_c_reaches_the_program_in_the_terminal_and_not_amphora() {
    let Some((sandbox, [busybox])) = Sandbox::with(["busybox:latest"]) else { return };
    let mut terminal = Terminal::start(&sandbox, &["run", "--rm", "-it", &busybox, "sh"]);
    terminal.type_text("echo be''gun; sleep 1000\n");
    terminal.until_shown("begun\r\n");
    // The shell gives the terminal to its program a moment after `begun`: until then control-C may reach nobody.
    let mut presses = 0;
    until("the shell after control-C", || {
        presses += 1;
        if presses % 50 == 1 {
            terminal.type_text("\x03");
            terminal.type_text("echo still $((40 + 2))\n");
        }
        terminal.screen().contains("still 42\r\n").then_some(())
    });
    terminal.type_text("\x04");
    assert_eq!(terminal.wait(), Some(0));
    sandbox.check_clean();
}

#[test]
fn the_terminal_follows_the_users_window() {
    let Some((sandbox, [busybox])) = Sandbox::with(["busybox:latest"]) else { return };
    let mut terminal = Terminal::start(&sandbox, &["run", "--rm", "-it", &busybox, "sh"]);
    terminal.type_text("stty size\n");
    terminal.until_shown("33 111\r\n");
    let larger = rustix::termios::Winsize { ws_row: 44, ws_col: 122, ws_xpixel: 0, ws_ypixel: 0 };
    rustix::termios::tcsetwinsize(terminal.keyboard.as_fd(), larger).expect("a size");
    // Amphora's terminal is not the one that controls this test's session, so the kernel does not tell it.
    let pid = i32::try_from(terminal.amphora.id()).expect("a pid");
    nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), Signal::SIGWINCH).expect("a process");
    terminal.type_text("while [ \"$(stty size)\" != '44 122' ]; do :; done; echo lar''ger\n");
    terminal.until_shown("larger\r\n");
    terminal.type_text("exit\n");
    assert_eq!(terminal.wait(), Some(0));
}

#[test]
fn exec_has_a_terminal_too() {
    let Some((sandbox, [busybox])) = Sandbox::with(["busybox:latest"]) else { return };
    sandbox.ok(["run", "-d", "--name", "box", &busybox, "sleep", "1000"]);
    let mut terminal = Terminal::start(&sandbox, &["exec", "-it", "box", "sh"]);
    terminal.type_text("stty size; exit 8\n");
    terminal.until_shown("33 111\r\n");
    assert_eq!(terminal.wait(), Some(8));
}

#[test]
fn both_kinds_write_to_a_terminal() {
    let Some(sandbox) = Sandbox::new() else { return };
    for tag in KINDS {
        let hello = sandbox.pull(&format!("hello:{tag}"));
        let terminal = Terminal::start(&sandbox, &["run", "--rm", "-it", &hello]);
        terminal.until_shown("hello from ");
        assert_eq!(terminal.wait(), Some(0), "{tag}");
        // The caller need have none.
        let said = sandbox.ok(["run", "--rm", "-t", &hello]);
        assert!(said.starts_with("hello from ") && said.ends_with("\r\n"), "{tag}: {said:?}");
    }
}

#[test]
fn a_terminal_in_the_background_is_logged() {
    let Some((sandbox, [busybox])) = Sandbox::with(["busybox:latest"]) else { return };
    sandbox.ok(["run", "-d", "-t", "--name", "screen", &busybox, "sh", "-c", "tty; exit 4"]);
    assert_eq!(sandbox.ok(["wait", "screen"]), "4\n");
    assert_eq!(sandbox.ok(["logs", "screen"]), "/dev/pts/0\r\n");
}

#[test]
fn a_signal_to_amphora_reaches_the_program() {
    let Some((sandbox, [busybox])) = Sandbox::with(["busybox:latest"]) else { return };
    let script =
        "trap 'echo got TERM; exit 9' TERM; trap 'echo got USR1' USR1; echo ready; while :; do sleep 0.1; done";
    for flags in [&["run", "--rm"][..], &["run"]] {
        let run = sandbox.start(flags.iter().copied().chain([busybox.as_str(), "sh", "-c", script]));
        run.until_printed("ready\n");
        run.signal(Signal::SIGUSR1);
        run.until_printed("got USR1\n");
        run.signal(Signal::SIGTERM);
        let ended = run.wait();
        assert_eq!(ended.code, Some(9), "{flags:?}: {ended}");
        assert!(ended.stdout.ends_with("got TERM\n"), "{flags:?}: {ended}");
    }
}

#[test]
fn the_user_can_interrupt_a_program_of_either_kind() {
    let Some(sandbox) = Sandbox::new() else { return };
    for tag in KINDS {
        let spin = sandbox.pull(&format!("spin:{tag}"));
        for (signal, code) in [(Signal::SIGINT, 130), (Signal::SIGTERM, 143)] {
            let run = sandbox.start(["run", "--rm", "--timeout", "60s", &spin]);
            run.until_printed("spinning\n");
            run.signal(signal);
            let ended = run.wait();
            assert_eq!(ended.code, Some(code), "{tag}, {signal}: {ended}");
        }
        sandbox.check_clean();
    }
}

#[test]
fn a_program_that_dies_of_a_signal_ends_with_128_and_its_number() {
    let Some((sandbox, [busybox])) = Sandbox::with(["busybox:latest"]) else { return };
    let ended = sandbox.run(["run", "--rm", &busybox, "sh", "-c", "sh -c 'kill -TERM $$'; exit $?"]);
    assert_eq!(ended.code, Some(143), "{ended}");
    let sleep = sandbox.pull("sleep:wasm");
    let run = sandbox.start(["run", "--name", "victim", &sleep, "1000"]);
    run.until_printed("sleeping\n");
    sandbox.ok(["kill", "-s", "KILL", "victim"]);
    assert_eq!(run.wait().code, Some(137));
}
