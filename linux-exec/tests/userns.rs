//! `become_root` as an ordinary user. Without the test harness, whose threads the kernel would refuse: this program runs
//! itself again as another user, with `inner` as its argument.

use linux_exec::userns::{IdMap, become_root};
use nix::{
    mount::{MsFlags, mount},
    unistd::geteuid,
};
use std::{env, error::Error, fs, process::Command};

const NOBODY: u32 = 65534;

fn main() -> Result<(), Box<dyn Error>> {
    if env::args().nth(1).as_deref() == Some("inner") {
        return inner();
    }
    if !geteuid().is_root() || Command::new("setpriv").arg("--version").output().is_err() {
        println!("skipped: needs root and setpriv (util-linux) to become an ordinary user");
        return Ok(());
    }
    assert_eq!(become_root()?, IdMap::Host, "root stays what it is");
    user_without_a_range_maps_itself()?;
    user_with_a_range_maps_it()
}

/// What the user's own process sees: it is root, may mount, and its ids are mapped.
fn inner() -> Result<(), Box<dyn Error>> {
    let map = become_root()?;
    assert!(geteuid().is_root());
    mount(Some("none"), "/tmp", Some("tmpfs"), MsFlags::empty(), None::<&str>)?;
    assert_eq!(become_root()?, IdMap::Host, "a second time nothing happens");
    for file in ["uid_map", "gid_map"] {
        let ids = fs::read_to_string(format!("/proc/self/{file}"))?;
        println!("{file} {}", ids.split_whitespace().collect::<Vec<_>>().join(" "));
    }
    println!("{map:?}");
    Ok(())
}

fn user_without_a_range_maps_itself() -> Result<(), Box<dyn Error>> {
    let printed = run_as(NOBODY)?;
    assert_eq!(printed, format!("uid_map 0 {NOBODY} 1\ngid_map 0 {NOBODY} 1\nSingle\n"));
    let mounted = fs::read_to_string("/proc/self/mounts")?.lines().any(|line| line.starts_with("none /tmp tmpfs"));
    assert!(!mounted, "a mount of the user's is not seen outside");
    Ok(())
}

fn user_with_a_range_maps_it() -> Result<(), Box<dyn Error>> {
    if Command::new("newuidmap").output().is_err() {
        println!("skipped: newuidmap (Debian: uidmap) is not installed");
        return Ok(());
    }
    let user = TemporaryUser::add()?;
    let id = user.id()?;
    let (uids, gids) = (user.range("/etc/subuid")?, user.range("/etc/subgid")?);
    let line = |file: &str, range: &[String]| format!("{file} 0 {id} 1 1 {} {}\n", range[1], range[2]);
    let expected = line("uid_map", &uids) + &line("gid_map", &gids) + &format!("Range {{ count: {} }}\n", uids[2]);
    assert_eq!(run_as(id)?, expected);
    Ok(())
}

/// What `inner` prints on standard output as that user and group.
fn run_as(id: u32) -> Result<String, Box<dyn Error>> {
    let mut command = Command::new("setpriv");
    command.args(["--reuid", &id.to_string(), "--regid", &id.to_string(), "--clear-groups"]);
    let output = command.arg(env::current_exe()?).arg("inner").output()?;
    print!("{}", String::from_utf8_lossy(&output.stderr));
    Ok(String::from_utf8(output.stdout)?)
}

/// A user that is removed when the test ends.
struct TemporaryUser(String);

impl TemporaryUser {
    fn add() -> Result<Self, Box<dyn Error>> {
        let name = format!("amphora-test-{}", std::process::id());
        let added = Command::new("useradd").args(["--no-create-home", &name]).status()?;
        assert!(added.success(), "useradd {name}: {added}");
        Ok(Self(name))
    }

    fn id(&self) -> Result<u32, Box<dyn Error>> {
        Ok(self.line("/etc/passwd")?[2].parse()?)
    }

    /// Name, start and count.
    fn range(&self, file: &str) -> Result<Vec<String>, Box<dyn Error>> {
        self.line(file)
    }

    fn line(&self, file: &str) -> Result<Vec<String>, Box<dyn Error>> {
        let text = fs::read_to_string(file)?;
        let prefix = format!("{}:", self.0);
        let line = text.lines().find(|line| line.starts_with(&prefix)).ok_or(format!("{prefix} is not in {file}"))?;
        Ok(line.split(':').map(str::to_owned).collect())
    }
}

impl Drop for TemporaryUser {
    fn drop(&mut self) {
        let removed = Command::new("userdel").arg(&self.0).status();
        assert!(removed.is_ok_and(|status| status.success()), "user {} could not be removed", self.0);
    }
}
