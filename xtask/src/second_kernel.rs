//! The end-to-end tests, and those of `linux-exec` with real containers, once more on another kernel, where cgroup v2 is
//! alone: most users' machines are such ones.
//!
//! user-mode-linux boots as an ordinary process on this machine's own files (hostfs). Those know neither whiteouts nor
//! extended attributes, so all that amphora stores goes to a tmpfs of the guest (`AMPHORA_ROOT`, `TMPDIR`).
//!
//! ```text
//! target/second-kernel/
//!   init          the guest's first process
//!   xstate.so     see `xtask/second-kernel/xstate.c`
//!   log           what the tests printed
//!   status        appears last: 0 if all tests passed
//!   console       what the guest's kernel printed
//! ```

use crate::{
    command::{self, bounded, find, read_text},
    paths,
    tally::Tally,
    test::TestBinary,
};
use anyhow::{Context, Result, bail};
use std::{
    fmt::Write,
    fs::{self, File},
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    time::Duration,
};

const SHORT: Duration = Duration::from_secs(60);
const LIMIT: Duration = Duration::from_secs(2700);
/// For one test binary inside the guest, so that one that hangs does not hide what the others say.
const TEST_LIMIT: Duration = Duration::from_secs(1800);
/// End-to-end tests of what no kernel decides, of races that need more than its one processor, and of networks, for which it has
/// no modules: beginnings of names, or parts of them.
const LEFT_OUT: [&str; 5] = ["docker::", "bench::", "wasm_bad_input::", "networks::", "pairs_of_commands"];
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

/// Boots the second kernel and runs the test binaries; true if all succeed.
pub(crate) fn run(guest: &Guest, tests: &[TestBinary], tally: &mut Tally) -> Result<bool> {
    let kernel = find("linux.uml").context("linux.uml is not installed")?;
    let folder = paths::target().join("second-kernel");
    fs::create_dir_all(&folder)?;
    for old in ["log", "status", "console"] {
        let _ = fs::remove_file(folder.join(old));
    }
    let init = folder.join("init");
    fs::write(&init, script(guest, tests, &folder)?)?;
    fs::set_permissions(&init, fs::Permissions::from_mode(0o755))?;

    let xstate = folder.join("xstate.so");
    let source = paths::workspace().join("xtask/second-kernel/xstate.c");
    command::run(bounded("cc", SHORT).args(["-O2", "-shared", "-fPIC", "-o"]).arg(&xstate).arg(source))?;

    let console = File::create(folder.join("console"))?;
    let mut machine = bounded(kernel, LIMIT);
    machine.env("LD_PRELOAD", xstate);
    machine.args([MEMORY, "rootfstype=hostfs", "rootflags=/", "rw", "quiet", "con=null", "con0=fd:0,fd:1"]);
    machine.arg(format!("init={}", init.display())).stdout(console.try_clone()?).stderr(console);
    let ended = machine.status().context("cannot start linux.uml")?;

    let log = fs::read(folder.join("log")).unwrap_or_default();
    String::from_utf8_lossy(&log).lines().for_each(|line| tally.print(line));
    match read_text(&folder.join("status")) {
        Ok(status) => Ok(status.trim() == "0"),
        Err(_) => bail!("the guest ended ({ended}) before its tests did; its last words:\n{}", last_words(&folder)),
    }
}

fn script(guest: &Guest, tests: &[TestBinary], folder: &Path) -> Result<String> {
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
        writeln!(script, "echo '     Running {} on '$(uname -sr)", test.name)?;
        writeln!(script, "cd '{}'", test.package_folder.display())?;
        let executable = test.executable.display();
        let left_out =
            if test.name == "e2e" { LEFT_OUT.map(|name| format!(" --skip {name}")).concat() } else { String::new() };
        writeln!(script, "timeout -k 10 {} '{executable}' --show-output{left_out} || result=1", TEST_LIMIT.as_secs())?;
    }
    writeln!(script, "cd /; sync\necho $result >'{folder}/status.new' && mv '{folder}/status.new' '{folder}/status'")?;
    writeln!(script, "exec busybox halt -f")?;
    Ok(script)
}

fn last_words(folder: &Path) -> String {
    let text = |name| fs::read(folder.join(name)).map(|bytes| String::from_utf8_lossy(&bytes).into_owned());
    let all = [text("console"), text("log")].map(Result::unwrap_or_default).concat();
    let lines: Vec<&str> = all.lines().collect();
    lines[lines.len().saturating_sub(20)..].join("\n")
}
