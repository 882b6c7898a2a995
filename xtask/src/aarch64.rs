//! `cargo check` for aarch64, the other machine of containers: what names registers, numbers of calls or sizes must fit there too.
//!
//! Rust's library for it comes from rustup where that has it (`rustup target add`), else from Debian, whose compiler of the same version
//! comes along: both are unpacked into `target/tools`, and nothing is installed. C is not compiled, as a check needs none of it.

use crate::{
    command::{self, bounded, cargo, run},
    paths,
};
use anyhow::{Context, Result, bail};
use std::{
    fs,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

const TARGET: &str = "aarch64-unknown-linux-gnu";
/// Debian's newest compiler; it lies beside the one of the distribution.
const PACKAGES: [&str; 3] = ["rustc-web", LIBRARY, "libstd-rust-web-dev:arm64"];
const LIBRARY: &str = "libstd-rust-web-dev";
/// How those begin of which it depends in turn, and that are not on every machine.
const SHARED: [&str; 2] = ["libstd-rust-web-", "libllvm"];
const SHORT: Duration = Duration::from_secs(60);
const DOWNLOAD_LIMIT: Duration = Duration::from_secs(600);
const CHECK_LIMIT: Duration = Duration::from_secs(1200);

/// A compiler that has the library of aarch64.
pub(crate) enum Compiler {
    /// The one that everything is built with.
    Own,
    Other(PathBuf),
}

/// Finds one, or fetches it if that is allowed; else the reason why there is none.
pub(crate) fn find(download: bool) -> Result<Compiler, String> {
    let folder = paths::target().join("tools/aarch64");
    let compiler = folder.join("rustc");
    if has_library(&std::env::var_os("RUSTC").map_or_else(|| "rustc".into(), PathBuf::from)) {
        Ok(Compiler::Own)
    } else if has_library(&compiler) {
        Ok(Compiler::Other(compiler))
    } else if !download || command::find("apt-get").is_none() {
        Err(format!("this toolchain has no library for it (rustup target add {TARGET})"))
    } else {
        fetch(&folder).map_err(|error| format!("Debian's compiler cannot be had: {error:#}"))?;
        Ok(Compiler::Other(compiler))
    }
}

fn has_library(rustc: &Path) -> bool {
    let mut ask = bounded(rustc, SHORT);
    let answer = ask.args(["--print", "target-libdir", "--target", TARGET]).output();
    let Some(answer) = answer.ok().filter(|answer| answer.status.success()) else { return false };
    Path::new(String::from_utf8_lossy(&answer.stdout).trim()).is_dir()
}

/// Everything of the workspace.
pub(crate) fn check(compiler: &Compiler) -> Result<bool> {
    let mut check = cargo(CHECK_LIMIT);
    check.current_dir(paths::workspace()).args(["check", "--quiet", "--workspace", "--target", TARGET]);
    check.arg("--target-dir").arg(paths::target().join("aarch64"));
    if let Compiler::Other(rustc) = compiler {
        check.env("RUSTC", rustc);
    }
    // Build scripts that compile C go on without.
    for tool in ["CC", "AR"] {
        check.env(format!("{tool}_{}", TARGET.replace('-', "_")), "true");
    }
    Ok(check.status()?.success())
}

/// Downloads with lists of its own, so that the machine's packages stay as they are.
fn fetch(folder: &Path) -> Result<()> {
    let packages = folder.join("packages");
    let lists = folder.join("lists");
    fs::create_dir_all(packages.join("partial")).and_then(|()| fs::create_dir_all(lists.join("partial")))?;
    let apt = |program: &str| {
        let mut apt = bounded(program, DOWNLOAD_LIMIT);
        apt.current_dir(&packages).args(["-q", "-o", "APT::Architectures::=amd64", "-o", "APT::Architectures::=arm64"]);
        // Its usual user may not write to this folder.
        apt.args(["-o", "APT::Sandbox::User=root", "-o"]).arg(format!("Dir::State::lists={}", lists.display()));
        apt.args(["-o", "Dir::Cache::pkgcache=", "-o", "Dir::Cache::srcpkgcache="]);
        apt
    };
    run(apt("apt-get").arg("update"))?;
    let mut wanted = PACKAGES.map(str::to_owned).to_vec();
    let mut asked = vec![LIBRARY.to_owned()];
    while let Some(package) = asked.pop() {
        let depends = run(apt("apt-cache").args(["depends", &package]))?;
        let needed: Vec<String> = shared(&String::from_utf8_lossy(&depends)).collect();
        wanted.extend_from_slice(&needed);
        asked.extend(needed);
    }
    run(apt("apt-get").arg("download").args(&wanted))?;
    for package in fs::read_dir(&packages)? {
        let path = package?.path();
        if path.extension().is_some_and(|extension| extension == "deb") {
            run(bounded("dpkg-deb", DOWNLOAD_LIMIT).arg("--extract").args([&path, &folder.join("root")]))?;
        }
    }
    fs::remove_dir_all(&packages)?;
    write_wrapper(folder)
}

/// The names in what `apt-cache depends` prints.
fn shared(depends: &str) -> impl Iterator<Item = String> {
    let names = depends.lines().filter_map(|line| line.trim().strip_prefix("Depends: "));
    names.filter(|name| SHARED.iter().any(|start| name.starts_with(start))).map(str::to_owned)
}

/// The compiler looks for its own libraries where they would have been installed.
fn write_wrapper(folder: &Path) -> Result<()> {
    let root = folder.join("root/usr");
    let text = format!(
        "#!/bin/sh\nLD_LIBRARY_PATH={0}/lib:{0}/lib/x86_64-linux-gnu exec {0}/bin/rustc \"$@\"\n",
        root.display()
    );
    let path = folder.join("rustc");
    fs::write(&path, text).and_then(|()| fs::set_permissions(&path, fs::Permissions::from_mode(0o755)))?;
    let version = run(Command::new(&path).arg("--version")).context("what was unpacked is no compiler that runs")?;
    println!("unpacked {}", String::from_utf8_lossy(&version).trim());
    if !has_library(&path) {
        bail!("{} has no library for {TARGET}", path.display());
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::shared;

    #[test]
    fn of_what_a_package_needs_the_compilers_own_libraries_are_taken() {
        let depends = "libstd-rust-web-1.96\n  Depends: libc6\n  Depends: libllvm22\n  Conflicts: <rustup>\n";
        assert_eq!(shared(depends).collect::<Vec<_>>(), ["libllvm22"]);
    }
}
