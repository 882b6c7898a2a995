//! Who takes part, and how each is called.

use crate::{Options, bundle, find, install, prepare};
use anyhow::Result;
use std::{
    ffi::OsString,
    fs,
    path::{Path, PathBuf},
    process::Command,
};

/// What is started.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Family {
    /// A static executable in a container.
    Linux,
    /// A WASI module, compiled already.
    Wasm,
    /// The same, with nothing compiled yet.
    WasmFirstRun,
}

/// A command to measure.
pub(crate) struct Contender {
    pub(crate) name: String,
    pub(crate) family: Family,
    pub(crate) program: PathBuf,
    pub(crate) arguments: Vec<OsString>,
    pub(crate) expected_output: &'static str,
    /// Done before each run, outside of the time.
    pub(crate) before: Option<Box<dyn Fn() -> Result<()>>>,
}

impl Contender {
    fn new(name: &str, family: Family, program: &Path, arguments: &[&str]) -> Self {
        let expected_output = if family == Family::Linux { "hello from linux\n" } else { "hello from wasm\n" };
        let arguments = arguments.iter().map(OsString::from).collect();
        Self { name: name.to_owned(), family, program: program.to_owned(), arguments, expected_output, before: None }
    }
}

/// The store of all images, and one whose compiled code is thrown away before each run.
const STORES: [&str; 2] = ["store", "first-run-store"];
/// The images of both, as layouts among the fixtures.
const LAYOUTS: [&str; 3] = ["hello-linux", "hello-wasm", "busybox-latest"];

/// Everyone who is installed, and a line for each who is not.
pub(crate) fn all(options: &Options) -> Result<(Vec<Contender>, Vec<String>)> {
    let mut table = Table { contenders: Vec::new(), absent: Vec::new(), out: options.out.clone() };
    let bundle = bundle::create(&options.out.join("bundle"), &options.fixtures.join("programs/linux/hello"))?;
    table.floor(&bundle)?;
    table.amphora(options)?;
    table.oci_runtimes(&bundle, options);
    table.bubblewrap(&bundle);
    if options.podman {
        table.podman(options)?;
    }
    table.wasmtime(options)?;
    Ok((table.contenders, table.absent))
}

/// How amphora is called on the benchmark's own store.
pub(crate) fn amphora(options: &Options) -> Command {
    let mut command = Command::new(&options.amphora);
    command.args(store_arguments(options, STORES[0]));
    command
}

fn store_arguments(options: &Options, store: &str) -> [String; 4] {
    let root = options.out.join(store).join("root").display().to_string();
    ["--root".to_owned(), root, "--runroot".to_owned(), options.state.of(store)]
}

struct Table {
    contenders: Vec<Contender>,
    absent: Vec<String>,
    out: PathBuf,
}

impl Table {
    fn add(&mut self, name: &str, family: Family, program: &Path, arguments: &[&str]) {
        self.contenders.push(Contender::new(name, family, program, arguments));
    }

    /// A program's path; or a note that it is not here.
    fn installed(&mut self, program: &str) -> Option<PathBuf> {
        let found = find(program);
        if found.is_none() {
            self.absent.push(format!("{program}: not found on PATH"));
        }
        found
    }

    fn floor(&mut self, bundle: &Path) -> Result<()> {
        let (floor, source) = (self.out.join("floor"), Path::new(env!("CARGO_MANIFEST_DIR")).join("floor.c"));
        prepare(Command::new("cc").args(["-O2", "-static", "-o"]).arg(&floor).arg(source))?;
        let (lower, scratch) = (bundle.join("rootfs"), self.out.join("floor-scratch"));
        let arguments = [&*lower.to_string_lossy(), &*scratch.to_string_lossy(), "/hello"];
        self.add("floor", Family::Linux, &floor, &arguments);
        Ok(())
    }

    fn amphora(&mut self, options: &Options) -> Result<()> {
        for (store, layout) in STORES.iter().flat_map(|store| LAYOUTS.map(|layout| (store, layout))) {
            let folder = options.fixtures.join("layouts").join(layout);
            let mut load = Command::new(&options.amphora);
            prepare(load.args(store_arguments(options, store)).args(["load", "-i"]).arg(folder))?;
        }
        let contender = |name: &str, family, store: &str, image: &[&str]| {
            let store = store_arguments(options, store);
            let store: Vec<&str> = store.iter().map(String::as_str).collect();
            let run = ["run", "--rm", "--network", "none"];
            Contender::new(name, family, &options.amphora, &[&store, run.as_slice(), image].concat())
        };
        self.contenders.push(contender("amphora run", Family::Linux, STORES[0], &["hello:linux"]));
        let mut busybox =
            contender("amphora run busybox /bin/true", Family::Linux, STORES[0], &["busybox:latest", "/bin/true"]);
        busybox.expected_output = "";
        self.contenders.push(busybox);
        self.contenders.push(contender("amphora run", Family::Wasm, STORES[0], &["hello:wasm"]));
        let mut first = contender("amphora run", Family::WasmFirstRun, STORES[1], &["hello:wasm"]);
        let compiled = options.out.join(STORES[1]).join("root/compiled");
        first.before = Some(Box::new(move || empty(&compiled)));
        self.contenders.push(first);
        Ok(())
    }

    fn oci_runtimes(&mut self, bundle: &Path, options: &Options) {
        let bundle = bundle.to_string_lossy();
        let id = format!("amphora-bench-{}", std::process::id());
        for (name, program) in [("crun run", "crun"), ("runc run", "runc")] {
            if let Some(path) = self.installed(program) {
                let state = options.state.of(program);
                self.add(name, Family::Linux, &path, &["--root", &state, "run", "--bundle", &bundle, &id]);
            }
        }
    }

    fn bubblewrap(&mut self, bundle: &Path) {
        if let Some(path) = self.installed("bwrap") {
            let root = bundle.join("rootfs").to_string_lossy().into_owned();
            let arguments = ["--unshare-all", "--bind", &root, "/", "--proc", "/proc", "--dev", "/dev", "/hello"];
            self.add("bwrap --unshare-all", Family::Linux, &path, &arguments);
        }
    }

    fn podman(&mut self, options: &Options) -> Result<()> {
        let Some(path) = self.installed("podman") else { return Ok(()) };
        let root = self.out.join("podman").to_string_lossy().into_owned();
        let runroot = options.state.of("podman");
        let store = ["--root", &root, "--runroot", &runroot, "--cgroup-manager=cgroupfs", "--events-backend=none"];
        let image = format!("oci:{}:hello:linux", options.fixtures.join("layouts/hello-linux").display());
        let id = prepare(Command::new(&path).args(store).args(["pull", "--quiet", &image]))?;
        let run = [store.as_slice(), &["run", "--rm", "--network", "none", "--log-driver=none", id.trim()]].concat();
        self.add("podman run", Family::Linux, &path, &run);
        Ok(())
    }

    fn wasmtime(&mut self, options: &Options) -> Result<()> {
        let Some(path) = self.installed("wasmtime") else { return Ok(()) };
        let path = install(&path, &options.out)?;
        let module = options.fixtures.join("programs/wasm/hello.wasm");
        let compiled = self.out.join("hello.cwasm");
        prepare(Command::new(&path).arg("compile").arg(&module).arg("-o").arg(&compiled))?;
        let (module, compiled) = (module.to_string_lossy(), compiled.to_string_lossy());
        let precompiled = ["run", "--allow-precompiled", &*compiled];
        self.add("wasmtime run --allow-precompiled", Family::Wasm, &path, &precompiled);
        self.add("wasmtime run -C cache=n", Family::WasmFirstRun, &path, &["run", "-C", "cache=n", &*module]);
        Ok(())
    }
}

/// Removes what is in a folder.
fn empty(folder: &Path) -> Result<()> {
    match fs::remove_dir_all(folder) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(error.into()),
        _ => Ok(()),
    }
}
