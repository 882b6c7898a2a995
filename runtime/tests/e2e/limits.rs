//! One limit model for both kinds: the same flag, the same exit code, and `inspect` says which limit it was.

use std::{fs, path::Path, time::Instant};

use crate::{
    sandbox::{KINDS, Sandbox},
    session::until,
};

/// Exit code, `OOMKilled` and `LimitHit` of a container that ended.
fn end_of(sandbox: &Sandbox, name: &str) -> (String, String, String) {
    let field = |field: &str| sandbox.inspect(name, &format!(".State.{field}"));
    (field("ExitCode"), field("OOMKilled"), field("LimitHit"))
}

fn end(code: &str, oom_killed: &str, limit_hit: &str) -> (String, String, String) {
    (code.to_owned(), oom_killed.to_owned(), limit_hit.to_owned())
}

#[test]
fn a_memory_hog_is_stopped_at_its_limit() {
    let Some(sandbox) = Sandbox::new() else { return };
    let for_linux = sandbox.can_limit(&["-m", "64m"]);
    for tag in KINDS.into_iter().filter(|tag| for_linux || *tag != "linux") {
        let hog = sandbox.pull(&format!("hog:{tag}"));
        let ended = sandbox.run(["run", "--name", "hog", "-m", "64m", &hog]);
        assert_eq!(ended.code, Some(137), "{tag}: {ended}");
        assert_eq!(end_of(&sandbox, "hog"), end("137", "true", "memory"), "{tag}");
        let peak: u64 = sandbox.inspect("hog", ".State.PeakMemoryBytes").parse().expect("bytes");
        assert!((32 << 20..100 << 20).contains(&peak), "{tag}: {peak}");
        sandbox.ok(["rm", "hog"]);
        // In the background, and with what fits.
        sandbox.ok(["run", "-d", "--name", "hog", "-m", "64m", &hog]);
        assert_eq!(sandbox.ok(["wait", "hog"]), "137\n", "{tag}");
        sandbox.ok(["rm", "hog"]);
        // The adapter in components that Debian's wasi-libc makes does not survive malloc, with any engine.
        if tag != "component" {
            assert_eq!(sandbox.ok(["run", "--rm", "-m", "64m", &hog, "32"]), "hog: has 32 MiB\n", "{tag}");
        }
        sandbox.check_clean();
    }
}

#[test]
fn a_busy_loop_and_a_sleeper_end_at_the_time_limit() {
    let Some(sandbox) = Sandbox::new() else { return };
    for tag in KINDS {
        for program in ["spin", "sleep"] {
            let image = sandbox.pull(&format!("{program}:{tag}"));
            let ended = sandbox.run(["run", "--name", "slow", "--timeout", "1s", "--stop-timeout", "1", &image]);
            assert_eq!(ended.code, Some(124), "{program}:{tag}: {ended}");
            assert_eq!(end_of(&sandbox, "slow"), end("124", "false", "timeout"), "{program}:{tag}");
            sandbox.ok(["rm", "slow"]);
            sandbox.ok(["run", "-d", "--name", "slow", "--timeout", "500ms", &image]);
            assert_eq!(sandbox.ok(["wait", "slow"]), "124\n", "{program}:{tag}");
            sandbox.ok(["rm", "slow"]);
        }
        sandbox.check_clean();
    }
}

#[test]
fn a_program_that_ends_in_time_keeps_its_own_code() {
    let Some(sandbox) = Sandbox::new() else { return };
    for tag in KINDS {
        let image = sandbox.pull(&format!("exit:{tag}"));
        let ended = sandbox.run(["run", "--name", "quick", "--timeout", "100s", &image, "1"]);
        assert_eq!(ended.code, Some(1), "{tag}: {ended}");
        assert_eq!(sandbox.inspect("quick", ".State.LimitHit"), "", "{tag}");
        sandbox.ok(["rm", "quick"]);
    }
}

#[test]
fn a_linux_program_with_a_handler_is_asked_before_it_is_killed() {
    let Some((sandbox, [busybox])) = Sandbox::with(["busybox:latest"]) else { return };
    let script = "trap 'echo asked; exit 0' TERM; while :; do sleep 0.1; done";
    let ended = sandbox.run(["run", "--rm", "--timeout", "2s", &busybox, "sh", "-c", script]);
    assert_eq!((ended.code, ended.stdout.as_str()), (Some(124), "asked\n"), "{ended}");
}

#[test]
fn an_endless_output_fills_a_bounded_log() {
    let Some(sandbox) = Sandbox::new() else { return };
    for tag in KINDS {
        let spew = sandbox.pull(&format!("spew:{tag}"));
        sandbox.ok(["run", "-d", "--name", "spew", &spew]);
        let log = sandbox.inspect("spew", ".LogPath");
        until("a second log file", || Path::new(&log).with_extension("1").exists().then_some(()));
        sandbox.ok(["kill", "spew"]);
        sandbox.ok(["wait", "spew"]);
        let folder = Path::new(&log).parent().expect("a folder");
        let files =
            fs::read_dir(folder).expect("the container's folder").filter_map(|entry| entry.ok()?.metadata().ok());
        let size: u64 = files.filter(fs::Metadata::is_file).map(|file| file.len()).sum();
        assert!((16 << 20..40 << 20).contains(&size), "{tag}: {size}");
        assert_eq!(sandbox.ok(["logs", "--tail", "1", "spew"]).get(..5), Some("spew "), "{tag}");
        sandbox.ok(["rm", "spew"]);
    }
}

#[test]
fn an_endless_file_ends_at_its_size_with_one_code_for_both_kinds() {
    let Some(sandbox) = Sandbox::new() else { return };
    for tag in KINDS {
        let fill = sandbox.pull(&format!("fill:{tag}"));
        let flags = ["run", "--name", "fill", "-v", ".:/data", "--ulimit", "fsize=1000000"];
        let ended = sandbox.run(flags.iter().copied().chain([fill.as_str(), "/data/file"]));
        // 128 + SIGXFSZ.
        assert_eq!(ended.code, Some(153), "{tag}: {ended}");
        assert_eq!(end_of(&sandbox, "fill"), end("153", "false", "fsize"), "{tag}");
        assert_eq!(fs::metadata(sandbox.work().join("file")).expect("the file").len(), 1_000_000, "{tag}");
        sandbox.ok(["rm", "fill"]);
    }
}

#[test]
fn a_busy_loop_ends_at_its_processor_seconds_with_one_code_for_both_kinds() {
    let Some(sandbox) = Sandbox::new() else { return };
    for tag in KINDS {
        let spin = sandbox.pull(&format!("spin:{tag}"));
        // At the soft limit SIGXCPU; where that is the hard one too, SIGKILL.
        for (limit, code) in [("cpu=1:2", 152), ("cpu=1", 137)] {
            let ended = sandbox.run(["run", "--name", "spin", "--ulimit", limit, &spin]);
            assert_eq!(ended.code, Some(code), "{tag} {limit}: {ended}");
            assert_eq!(end_of(&sandbox, "spin"), end(&code.to_string(), "false", "cpu"), "{tag} {limit}");
            sandbox.ok(["rm", "spin"]);
        }
    }
}

#[test]
fn a_fork_bomb_is_contained() {
    let Some((sandbox, [busybox])) = Sandbox::with(["busybox:latest"]) else { return };
    if !sandbox.can_limit(&["--pids-limit", "64"]) {
        return;
    }
    let bomb = "bomb() { bomb | bomb & }; bomb; while :; do sleep 1; done";
    let flags = ["run", "--name", "bomb", "--pids-limit", "32", "--timeout", "3s", "--stop-timeout", "1"];
    let ended = sandbox.run(flags.iter().copied().chain([busybox.as_str(), "sh", "-c", bomb]));
    assert_ne!(ended.code, Some(0), "{ended}");
    let limit = sandbox.inspect("bomb", ".State.LimitHit");
    assert!(matches!(limit.as_str(), "pids" | "timeout"), "{limit}: {ended}");
    let refused: u64 = sandbox.inspect("bomb", ".State.ForksRefused").parse().expect("a count");
    assert!(refused > 0, "{ended}");
    sandbox.check_clean();
    // The machine is not at its end.
    assert_eq!(sandbox.ok(["run", "--rm", &busybox, "echo", "well"]), "well\n");
}

#[test]
fn processor_time_and_processors_are_limited() {
    let Some((sandbox, [busybox, spin])) = Sandbox::with(["busybox:latest", "spin:wasm"]) else { return };
    if !sandbox.can_limit(&["--cpus", "0.25"]) || !sandbox.can_limit(&["--cpuset-cpus", "0"]) {
        return;
    }
    let status = sandbox.ok(["run", "--rm", "--cpuset-cpus", "0", &busybox, "cat", "/proc/self/status"]);
    assert!(status.contains("Cpus_allowed_list:\t0\n"), "{status}");
    for (image, words) in [(&busybox, &["sh", "-c", "while :; do :; done"][..]), (&spin, &[])] {
        let begun = Instant::now();
        let flags = ["run", "--name", "quarter", "--cpus", "0.25", "--timeout", "3s", "--stop-timeout", "0", image];
        assert_eq!(sandbox.run(flags.iter().chain(words)).code, Some(124));
        let wall = begun.elapsed().as_micros();
        if let Ok(used) = sandbox.inspect("quarter", ".State.CpuMicroseconds").parse::<u128>() {
            assert!(used < wall / 4 + 300_000, "{image}: {used} of {wall} microseconds");
        }
        sandbox.ok(["rm", "quarter"]);
    }
}

#[test]
fn open_files_are_limited() {
    let Some((sandbox, [busybox])) = Sandbox::with(["busybox:latest"]) else { return };
    let words = ["run", "--rm", "--ulimit", "nofile=64:128", &busybox, "sh", "-c", "ulimit -Sn; ulimit -Hn"];
    assert_eq!(sandbox.ok(words), "64\n128\n");
}

#[test]
fn fuel_stops_a_wasm_program_and_is_refused_for_linux() {
    let Some(sandbox) = Sandbox::new() else { return };
    for tag in ["wasm", "component"] {
        let (spin, hello) = (sandbox.pull(&format!("spin:{tag}")), sandbox.pull(&format!("hello:{tag}")));
        let ended = sandbox.run(["run", "--name", "spin", "--fuel", "1000000", &spin]);
        assert_eq!(ended.code, Some(134), "{tag}: {ended}");
        assert!(ended.stderr.contains("fuel"), "{tag}: {ended}");
        assert_eq!(end_of(&sandbox, "spin"), end("134", "false", "fuel"), "{tag}");
        let used: u64 = sandbox.inspect("spin", ".State.FuelUsed").parse().expect("a count");
        assert!((900_000..=1_100_000).contains(&used), "{tag}: {used}");
        sandbox.ok(["rm", "spin"]);
        sandbox.ok(["run", "--name", "hello", "--fuel", "100000000", &hello]);
        let used: u64 = sandbox.inspect("hello", ".State.FuelUsed").parse().expect("a count");
        assert!((1..1_000_000).contains(&used), "{tag}: {used}");
        sandbox.ok(["rm", "hello"]);
    }
    let linux = sandbox.pull("hello:linux");
    let message = sandbox.fails(125, ["run", "--rm", "--fuel", "1000", &linux]);
    assert!(message.contains("--fuel") && message.contains("--timeout"), "{message}");
    sandbox.check_clean();
}

#[test]
fn a_trap_ends_with_134_and_a_backtrace_and_a_linux_fault_with_its_signal() {
    let Some(sandbox) = Sandbox::new() else { return };
    for tag in ["wasm", "component"] {
        let trap = sandbox.pull(&format!("trap:{tag}"));
        for flags in [&["--rm"][..], &[]] {
            let ended = sandbox.run(["run"].iter().chain(flags).copied().chain([trap.as_str()]));
            assert_eq!(ended.code, Some(134), "{tag}: {ended}");
            for part in ["unreachable", "innermost", "middle"] {
                assert!(ended.stderr.contains(part), "{tag}: no {part}: {ended}");
            }
        }
    }
    let trap = sandbox.pull("trap:linux");
    assert_eq!(sandbox.run(["run", "--rm", &trap]).code, Some(132), "SIGILL");
}

#[test]
fn what_cannot_be_enforced_is_refused_before_anything_starts() {
    let Some((sandbox, [linux, wasm])) = Sandbox::with(["hello:linux", "hello:wasm"]) else { return };
    let cases: [(&[&str], &str, &str); 10] = [
        (&["-m", "1k"], &linux, "the minimum is 6m"),
        (&["-m", "1k"], &wasm, "the minimum is 6m"),
        (&["-m", "lots"], &wasm, "`lots`"),
        (&["--cpus", "1000"], &linux, "1000"),
        (&["--cpuset-cpus", "999"], &linux, "999"),
        (&["--memory-swap", "64m"], &linux, "--memory-swap needs --memory"),
        (&["-m", "64m", "--memory-swap", "32m"], &wasm, "less than --memory"),
        (&["--timeout", "soon"], &wasm, "`soon`"),
        (&["--fuel", "0"], &wasm, "--fuel"),
        (&["--ulimit", "nproc=3"], &wasm, "nproc"),
    ];
    for (flags, image, part) in cases {
        let words = ["run", "--rm"].iter().chain(flags).copied();
        let message = sandbox.fails(125, words.chain([image]));
        assert!(message.contains(part), "{flags:?}: {message}");
    }
    assert_eq!(sandbox.ok(["ps", "-aq"]), "");
    sandbox.check_clean();
}
