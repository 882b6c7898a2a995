//! The end-to-end tests, and those of `linux-exec` with real containers, once more on another kernel, where cgroup v2 is
//! alone: most users' machines are such ones.
//!
//! user-mode-linux boots as an ordinary process on this machine's own files (hostfs). Those know neither whiteouts nor
//! extended attributes, so all that amphora stores goes to a tmpfs of the guest (`AMPHORA_ROOT`, `TMPDIR`).
//!
//! Such a kernel has one processor, so two of them share the tests.
//!
//! ```text
//! target/second-kernel/
//!   xstate.so     see `xtask/second-kernel/xstate.c`
//!   0/, 1/        a guest each:
//!     init        its first process
//!     log         what its tests printed
//!     status      appears last: 0 if all of them passed
//!     console     what its kernel printed
//! ```

use crate::{
    command::{self, bounded, find, read_text},
    paths,
    tally::Tally,
    test::TestBinary,
};
use anyhow::{Context, Result, anyhow, bail};
use std::{
    fmt::Write,
    fs::{self, File},
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::{ExitStatus, Stdio},
    thread,
    time::Duration,
};

const SHORT: Duration = Duration::from_secs(60);
const LIMIT: Duration = Duration::from_secs(2700);
/// For one test binary inside the guest, so that one that hangs does not hide what the others say.
const TEST_LIMIT: Duration = Duration::from_secs(1800);
/// End-to-end tests of what no kernel decides, of races that need more than its one processor, and of networks, for which it has
/// no modules: beginnings of names, or parts of them.
const LEFT_OUT: [&str; 8] = [
    "docker::",
    "bench::",
    "bench_page::",
    "wasm_bad_input::",
    "networks::",
    "pairs_of_commands",
    "serve::",
    "serve_clients::",
];
/// End-to-end tests that the second guest runs, and the first one leaves out: about half of the time.
const SECOND_SHARE: [&str; 13] = [
    "life::",
    "lifecycle::",
    "limits::",
    "lost::",
    "parallel::",
    "published::",
    "registry::",
    "run::",
    "settings::",
    "store::",
    "terminal::",
    "volumes::",
    "wasm_",
];
const MEMORY: &str = "mem=4G";

/// Everything up to the tests.
///
/// Not for busybox's own shell: it starts its commands as `/proc/self/exe`, which on hostfs, before proc is mounted, is
/// the kernel itself.
const PROLOGUE: &str = r#"#!/bin/sh
# The first process of the second kernel; made by `cargo xtask test`.
export PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin LANG=C.UTF-8
mount -t proc proc /proc
mount -t sysfs sysfs /sys
mount -t tmpfs -o mode=755,size=90% tmpfs /run
mkdir -p /dev/pts /dev/shm && mount -t devpts -o ptmxmode=666 devpts /dev/pts && mount -t tmpfs tmpfs /dev/shm
mount -t cgroup2 cgroup2 /sys/fs/cgroup
for module in fs/overlayfs/overlay; do
    file=/usr/lib/uml/modules/$(uname -r)/kernel/$module.ko
    [ ! -f $file ] || busybox insmod $file
done
busybox ifconfig lo 127.0.0.1 up
hostname second-kernel
mkdir -p /run/tmp /run/home /run/user/0
export TMPDIR=/run/tmp HOME=/run/home XDG_RUNTIME_DIR=/run/user/0
export AMPHORA_ROOT=/run/amphora-root AMPHORA_SECOND_KERNEL=1
result=0
"#;

/// What the tests need besides themselves.
pub(crate) struct Guest<'a> {
    pub(crate) environment: &'a [(&'a str, String)],
    /// Configurations of the registries to start inside, on the ports that the environment names.
    pub(crate) registry_configurations: Vec<PathBuf>,
}

/// Boots the second kernel twice and runs the test binaries; true if all succeed.
pub(crate) fn run(guest: &Guest, tests: &[TestBinary], tally: &mut Tally) -> Result<bool> {
    let kernel = find("linux.uml").context("linux.uml is not installed")?;
    let folder = paths::target().join("second-kernel");
    fs::create_dir_all(&folder)?;
    let xstate = folder.join("xstate.so");
    let source = paths::workspace().join("xtask/second-kernel/xstate.c");
    command::run(bounded("cc", SHORT).args(["-O2", "-shared", "-fPIC", "-o"]).arg(&xstate).arg(source))?;

    let shares = [0, 1].map(|share| (share, folder.join(share.to_string())));
    let boot =
        |(share, folder): &(usize, PathBuf)| boot(&kernel, &xstate, folder, &script(guest, tests, *share, folder)?);
    let ends = thread::scope(|scope| {
        let machines = shares.each_ref().map(|share| scope.spawn(move || boot(share)));
        machines.map(|machine| machine.join().map_err(|_| anyhow!("a thread panicked")).flatten())
    });
    let mut passed = true;
    for ((_, folder), end) in shares.iter().zip(ends) {
        let log = fs::read(folder.join("log")).unwrap_or_default();
        String::from_utf8_lossy(&log).lines().for_each(|line| tally.print(line));
        let ended = end?;
        match read_text(&folder.join("status")) {
            Ok(status) => passed &= status.trim() == "0",
            Err(_) => bail!("a guest ended ({ended}) before its tests did; its last words:\n{}", last_words(folder)),
        }
    }
    Ok(passed)
}

/// One machine, until it halts.
fn boot(kernel: &Path, xstate: &Path, folder: &Path, script: &str) -> Result<ExitStatus> {
    fs::create_dir_all(folder)?;
    for old in ["log", "status", "console"] {
        let _ = fs::remove_file(folder.join(old));
    }
    let init = folder.join("init");
    fs::write(&init, script)?;
    fs::set_permissions(&init, fs::Permissions::from_mode(0o755))?;

    let console = File::create(folder.join("console"))?;
    let mut machine = bounded(kernel, LIMIT);
    machine.env("LD_PRELOAD", xstate);
    machine.args([MEMORY, "rootfstype=hostfs", "rootflags=/", "rw", "quiet", "con=null", "con0=fd:0,fd:1"]);
    machine.arg(format!("init={}", init.display())).stdout(console.try_clone()?).stderr(console);
    machine.stdin(Stdio::null()).status().context("cannot start linux.uml")
}

fn script(guest: &Guest, tests: &[TestBinary], share: usize, folder: &Path) -> Result<String> {
    let mut script = PROLOGUE.to_owned();
    for (name, value) in guest.environment {
        writeln!(script, "export {name}='{value}'")?;
    }
    for configuration in &guest.registry_configurations {
        writeln!(script, "docker-registry serve '{}' >/dev/null 2>&1 &", configuration.display())?;
    }
    let folder = folder.display();
    writeln!(script, "exec >'{folder}/log' 2>&1\nsleep 2")?;
    for test in tests {
        let Some(filter) = filter(&test.name, share) else { continue };
        writeln!(script, "echo '     Running {} on '$(uname -sr)", test.name)?;
        writeln!(script, "cd '{}'", test.package_folder.display())?;
        let executable = test.executable.display();
        writeln!(script, "timeout -k 10 {} '{executable}' --show-output{filter} || result=1", TEST_LIMIT.as_secs())?;
    }
    writeln!(script, "cd /; sync\necho $result >'{folder}/status.new' && mv '{folder}/status.new' '{folder}/status'")?;
    writeln!(script, "exec busybox halt -f")?;
    Ok(script)
}

/// Which tests of a binary a guest runs; None: it leaves the binary to the other one.
fn filter(binary: &str, share: usize) -> Option<String> {
    let skipped = |names: &[&str]| names.iter().map(|name| format!(" --skip {name}")).collect::<String>();
    match (binary, share) {
        ("e2e", 0) => Some(skipped(&LEFT_OUT) + &skipped(&SECOND_SHARE)),
        ("e2e", _) => Some(skipped(&LEFT_OUT) + " " + &SECOND_SHARE.join(" ")),
        (_, 0) => Some(String::new()),
        _ => None,
    }
}

fn last_words(folder: &Path) -> String {
    let text = |name| fs::read(folder.join(name)).map(|bytes| String::from_utf8_lossy(&bytes).into_owned());
    let all = [text("console"), text("log")].map(Result::unwrap_or_default).concat();
    let lines: Vec<&str> = all.lines().collect();
    lines[lines.len().saturating_sub(20)..].join("\n")
}
