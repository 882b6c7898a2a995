//! The end-to-end tests once more, as an ordinary user.

use crate::{
    command::{self, bounded, find},
    fixtures::Fixtures,
    setup::{self, ORDINARY_USER, OrdinaryUser},
    tally::Tally,
    test::TestBinary,
};
use anyhow::{Context, Result};
use std::{
    fs,
    os::unix::fs::{PermissionsExt, chown},
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

const SHORT: Duration = Duration::from_secs(120);
const TEST_LIMIT: Duration = Duration::from_secs(1200);

/// A folder that the ordinary user can read whatever the checkout's own permissions are, with all that the tests use:
///
/// ```text
/// /var/tmp/amphora-test-PID/
///   bin/amphora
///   tests/NAME         the test binaries
///   fixtures/          the parts that tests read
///   home/ run/ tmp/    the user's own: HOME, XDG_RUNTIME_DIR, TMPDIR
/// ```
struct Stage {
    folder: PathBuf,
    user: OrdinaryUser,
}

impl Stage {
    fn create(binary: &Path, tests: &[TestBinary], fixtures: &Fixtures) -> Result<Self> {
        let folder = PathBuf::from(format!("/var/tmp/amphora-test-{}", std::process::id()));
        let stage = Self { user: setup::ordinary_user()?, folder };
        for name in ["bin", "tests", "fixtures", "home", "run", "tmp"] {
            fs::create_dir_all(stage.folder.join(name))?;
        }
        fs::set_permissions(&stage.folder, fs::Permissions::from_mode(0o755))?;
        for name in ["home", "run", "tmp"] {
            let own = stage.folder.join(name);
            chown(&own, Some(stage.user.uid), Some(stage.user.gid))?;
            fs::set_permissions(&own, fs::Permissions::from_mode(0o700))?;
        }
        copy(binary, &stage.folder.join("bin/amphora"))?;
        for test in tests {
            copy(&test.executable, &stage.folder.join("tests").join(&test.name))?;
        }
        for name in ["programs", "layouts", "archives", "busybox", "debian.tar", "yosys", "tls/ca.pem"] {
            if let Some(fixture) = fixtures.existing(name) {
                copy(&fixture, &stage.folder.join("fixtures").join(fixture.file_name().unwrap_or_default()))?;
            }
        }
        Ok(stage)
    }

    /// A command line that runs `program` as the user, with the user's environment.
    fn command(&self, program: &Path, environment: &[(&str, String)]) -> Command {
        let mut command = match has_closed_tun() {
            true => bounded("unshare", TEST_LIMIT),
            false => bounded("setpriv", TEST_LIMIT),
        };
        if has_closed_tun() {
            command.args(["--mount", "sh", "-c", OPEN_TUN, "sh", "setpriv"]);
        }
        command.args([&format!("--reuid={}", self.user.uid), &format!("--regid={}", self.user.gid), "--clear-groups"]);
        command.arg("--inh-caps=-all").arg(program).env_clear().envs(environment.iter().cloned());
        let own = |name: &str| self.folder.join(name);
        command.env("PATH", "/usr/local/bin:/usr/bin:/bin").env("USER", ORDINARY_USER).env("LOGNAME", ORDINARY_USER);
        command.env("HOME", own("home")).env("XDG_RUNTIME_DIR", own("run")).env("TMPDIR", own("tmp"));
        command.env("AMPHORA_BIN", own("bin/amphora")).env("AMPHORA_TEST_FIXTURES", own("fixtures"));
        command.env("AMPHORA_TEST_REGISTRY_CA", own("fixtures/ca.pem")).current_dir(own("home"));
        command
    }
}

impl Drop for Stage {
    fn drop(&mut self) {
        // Files that a container of the user owns through subordinate ids are root's to remove.
        let _ = fs::remove_dir_all(&self.folder);
    }
}

/// Makes the device for networks of users what udev makes it, where only the command sees that.
const OPEN_TUN: &str = r#"mount -t tmpfs tmpfs /dev/net && mknod -m 666 /dev/net/tun c 10 200 && exec "$@""#;

/// Whether there is one that is root's alone, as on machines without udev.
fn has_closed_tun() -> bool {
    fs::metadata("/dev/net/tun").is_ok_and(|found| found.permissions().mode() & 0o006 != 0o006)
}

/// Runs each test binary as the ordinary user; true if all succeed.
pub(crate) fn run(
    binary: &Path,
    tests: &[TestBinary],
    fixtures: &Fixtures,
    environment: &[(&str, String)],
    tally: &mut Tally,
) -> Result<bool> {
    find("setpriv").context("setpriv is not installed")?;
    let stage = Stage::create(binary, tests, fixtures)?;
    let mut all_succeed = true;
    for test in tests {
        println!("     Running {} as {ORDINARY_USER}", test.name);
        let executable = stage.folder.join("tests").join(&test.name);
        all_succeed &= tally.run(stage.command(&executable, environment).arg("--show-output"))?;
    }
    Ok(all_succeed)
}

/// Copies a file or folder, by hard links where both places are on one file system.
fn copy(from: &Path, to: &Path) -> Result<()> {
    let linked = command::run(bounded("cp", SHORT).args(["-a", "--link"]).arg(from).arg(to));
    if linked.is_err() {
        command::run(bounded("cp", SHORT).arg("-a").arg(from).arg(to))?;
    }
    Ok(())
}
