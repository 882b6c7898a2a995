//! What the machine needs to have: Debian packages and an ordinary user.

use crate::command::{self, bounded, is_root};
use anyhow::{Context, Result, bail};
use std::{collections::HashSet, env, fs, time::Duration};

/// A Debian package and what is not tested without it.
struct Package {
    name: &'static str,
    needed_for: &'static str,
}

const PACKAGES: [Package; 18] = [
    Package { name: "busybox-static", needed_for: "the busybox image, and the script inside the second kernel" },
    Package { name: "chromium", needed_for: "the look of the benchmark's page in a browser" },
    Package { name: "clang", needed_for: "all programs compiled to Wasm" },
    Package { name: "docker-registry", needed_for: "every test that pulls" },
    Package { name: "gcc", needed_for: "the Linux programs of the images" },
    Package { name: "libc6-dev", needed_for: "the Linux programs of the images" },
    Package { name: "libclang-rt-14-dev-wasm32", needed_for: "all programs compiled to Wasm" },
    Package { name: "lld", needed_for: "all programs compiled to Wasm" },
    Package { name: "mmdebstrap", needed_for: "the Debian image" },
    Package { name: "nftables", needed_for: "what somebody else does to rules of networks" },
    Package { name: "openssl", needed_for: "the registry over HTTPS" },
    Package { name: "passt", needed_for: "networks of an ordinary user" },
    Package { name: "python3-pip", needed_for: "the large Wasm application, which comes from PyPI" },
    Package { name: "skopeo", needed_for: "docker-archive and oci-archive files as others make them" },
    Package { name: "uidmap", needed_for: "containers of an ordinary user with more than one id" },
    Package { name: "umoci", needed_for: "the comparison with another program's unpacking" },
    Package { name: "wabt", needed_for: "the check that the demo's Wasm text is what its source compiles to" },
    Package { name: "wasi-libc", needed_for: "all programs compiled to Wasm" },
];

/// Only the whole test needs these.
const SECOND_KERNEL: Package =
    Package { name: "user-mode-linux", needed_for: "the second kernel, where cgroup v2 is alone" };

const SHORT: Duration = Duration::from_secs(60);
const LONG: Duration = Duration::from_secs(900);

/// The ordinary user as whom the rootless part of the tests runs.
pub(crate) const ORDINARY_USER: &str = "amphora-test";

/// Whether skipping for want of a package is a failure: in CI, where `CI` is set.
pub(crate) fn is_ci() -> bool {
    env::var_os("CI").is_some_and(|value| !value.is_empty())
}

/// Installs what is missing if it may, and tells what is missing after that and why it matters.
pub(crate) fn packages(install: bool, second_kernel: bool) -> Result<Vec<String>> {
    let wanted: Vec<&Package> = PACKAGES.iter().chain(second_kernel.then_some(&SECOND_KERNEL)).collect();
    let mut missing = missing(&wanted);
    if !missing.is_empty() && install && is_root() {
        apt_install(&missing)?;
        missing = self::missing(&wanted);
    }
    if !missing.is_empty() && is_ci() && is_root() {
        bail!("still not installed after apt-get install: {}", names(&missing).join(" "));
    }
    if !missing.is_empty() {
        println!("to test everything, as root: apt-get install {}", names(&missing).join(" "));
    }
    let reason = |package: &&Package| format!("{}: {} is not installed", package.needed_for, package.name);
    Ok(missing.iter().map(reason).collect())
}

fn names(packages: &[&'static Package]) -> Vec<&'static str> {
    packages.iter().map(|package| package.name).collect()
}

/// Asks dpkg; where there is none, everything counts as missing, and tests find out by themselves what there is.
fn missing(wanted: &[&'static Package]) -> Vec<&'static Package> {
    let mut query = bounded("dpkg-query", SHORT);
    query.args(["--show", "--showformat", "${Package} ${db:Status-Status}\n"]).args(names(wanted));
    // It fails when it does not know one of the names, and prints the others all the same.
    let answer = query.output().map(|output| output.stdout).unwrap_or_default();
    let answer = String::from_utf8_lossy(&answer);
    let installed: HashSet<&str> = answer.lines().filter_map(|line| line.strip_suffix(" installed")).collect();
    wanted.iter().copied().filter(|package| !installed.contains(package.name)).collect()
}

fn apt_install(packages: &[&'static Package]) -> Result<()> {
    println!("installing {}", names(packages).join(" "));
    let apt = |arguments: &[&str]| {
        let mut apt = bounded("apt-get", LONG);
        apt.env("DEBIAN_FRONTEND", "noninteractive").args(["-q", "-y", "-o", "DPkg::Lock::Timeout=120"]);
        command::run(apt.args(arguments))
    };
    apt(&["update"])?;
    let install = ["install", "--no-install-recommends"];
    apt(&[&install, names(packages).as_slice()].concat()).map(drop)
}

/// An ordinary user's numbers.
pub(crate) struct OrdinaryUser {
    pub(crate) uid: u32,
    pub(crate) gid: u32,
}

/// Finds the ordinary user, or creates it with a range of subordinate ids.
pub(crate) fn ordinary_user() -> Result<OrdinaryUser> {
    if look_up(ORDINARY_USER)?.is_none() {
        println!("creating the user {ORDINARY_USER}");
        let mut useradd = bounded("/usr/sbin/useradd", SHORT);
        command::run(useradd.args(["--no-create-home", "--shell", "/usr/sbin/nologin", ORDINARY_USER]))?;
    }
    for (file, option) in [("/etc/subuid", "--add-subuids"), ("/etc/subgid", "--add-subgids")] {
        let ranges = fs::read_to_string(file).unwrap_or_default();
        if !ranges.lines().any(|line| line.starts_with(&format!("{ORDINARY_USER}:"))) {
            let range = free_range(&ranges);
            command::run(bounded("/usr/sbin/usermod", SHORT).args([option, &range, ORDINARY_USER]))?;
        }
    }
    look_up(ORDINARY_USER)?.with_context(|| format!("useradd did not create {ORDINARY_USER}"))
}

fn look_up(name: &str) -> Result<Option<OrdinaryUser>> {
    let users = fs::read_to_string("/etc/passwd").context("cannot read /etc/passwd")?;
    Ok(users.lines().find_map(|line| {
        let fields: Vec<&str> = line.split(':').collect();
        let is_it = fields.first() == Some(&name);
        is_it.then_some(OrdinaryUser { uid: fields.get(2)?.parse().ok()?, gid: fields.get(3)?.parse().ok()? })
    }))
}

/// 65,536 ids above all ranges of `/etc/subuid` or `/etc/subgid`, as `FIRST-LAST`.
fn free_range(ranges: &str) -> String {
    let end = |line: &str| -> Option<u32> {
        let (start, count) = line.split_once(':')?.1.split_once(':')?;
        Some(start.parse::<u32>().ok()? + count.parse::<u32>().ok()?)
    };
    let first = ranges.lines().filter_map(end).max().unwrap_or(100_000).max(100_000);
    format!("{first}-{}", first + 65_535)
}

#[cfg(test)]
mod tests {
    use super::free_range;

    #[test]
    fn a_free_range_lies_above_all_others() {
        assert_eq!(free_range(""), "100000-165535");
        assert_eq!(free_range("a:100000:65536\nb:300000:10\n"), "300010-365545");
        assert_eq!(free_range("garbage\n"), "100000-165535");
    }
}
