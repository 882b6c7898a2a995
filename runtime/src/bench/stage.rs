//! Where a benchmark happens: a folder with stores, root file systems and programs that are all its own.
//!
//! ```text
//! WORK/bin/              copies of the programs: what a linker has just written starts slower than what was copied
//! WORK/warm/root/        a store in which everything is prepared
//! WORK/cold/root/        one whose compiled code is thrown away before each run
//! WORK/pull/root/        one into which amphora pulls; empty before each run
//! WORK/registry/         what docker-registry has, for others to pull
//! WORK/subject-N/        rootfs/, config.json (a bundle), program.wasm, layout/
//! WORK/server-N/         the same of servers
//! STATE/                 state of all who run: memory, as /run is on most machines
//! ```

use std::{
    cell::RefCell,
    fs::{self, DirBuilder},
    os::unix::fs::DirBuilderExt,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result, bail};
use images::{Digest, Image, Selection, Store};
use nix::mount::{MsFlags, mount, umount};
use serde_json::json;

use super::{Request, results::Subject};
use crate::{
    lifecycle::built_in,
    records::{host::Host, own_process::OwnProcess},
    spec::{Kind, WasmProgram, Workload},
};

/// What is prepared, and what is thrown away before each run.
pub(super) const STORES: [&str; 2] = ["warm", "cold"];
/// What is pulled into.
pub(super) const PULLED: &str = "pull";
/// The built-in function.
const FUNCTION_NAME: &str = built_in::FUNCTIONS[1];

pub(super) struct Stage {
    pub(super) work: PathBuf,
    pub(super) state: PathBuf,
    /// The amphora that is measured.
    pub(super) amphora: PathBuf,
    is_kept: bool,
    /// What others have to do at the end to leave nothing: command lines.
    afterwards: RefCell<Vec<Vec<String>>>,
}

/// A subject, and what others than amphora need of it.
#[derive(Clone)]
pub(super) struct Material {
    pub(super) subject: Subject,
    /// Its name in the benchmark's own stores.
    pub(super) image: String,
    pub(super) folder: PathBuf,
    /// The program inside of the root file system with its arguments, or a Wasm program's arguments.
    pub(super) program: Vec<String>,
    pub(super) env: Vec<String>,
    pub(super) cwd: String,
    /// User and group of the program; None: the image says it by name.
    pub(super) ids: Option<[u32; 2]>,
    /// Its root file system, or why there is none.
    pub(super) rootfs: Result<PathBuf, String>,
    pub(super) wasm: Option<PathBuf>,
    pub(super) is_built_in: bool,
    /// It shares the host's network, as servers do that are compared.
    pub(super) on_host_network: bool,
    /// As in a registry.
    pub(super) compressed_bytes: u64,
    /// Of a Wasm program in a blob, by which compiled code is named.
    pub(super) program_digest: String,
}

impl Stage {
    pub(super) fn set(work: Option<&Path>) -> Result<Self> {
        let name = format!("amphora-bench-{}", std::process::id());
        let folder = match work {
            Some(work) => std::path::absolute(work)?,
            // Without the user's word, on a disk on most machines: where images lie.
            None => std::env::var_os("TMPDIR").map_or("/var/tmp".into(), PathBuf::from).join(&name),
        };
        make_private(&folder)?;
        let state = Path::new("/dev/shm").join(&name);
        let state = if make_private(&state).is_ok() { state } else { folder.join("state") };
        let this = std::env::current_exe().context("cannot find this program")?;
        let stage = Self {
            amphora: folder.join("bin/amphora"),
            work: folder,
            state,
            is_kept: work.is_some(),
            afterwards: RefCell::default(),
        };
        let made = fs::create_dir(stage.work.join("bin")).and_then(|()| fs::copy(&this, &stage.amphora));
        if let Err(error) = made {
            // What is half there need not stay.
            let _ = stage.clear();
            return Err(error).with_context(|| format!("cannot put {} into {}", this.display(), stage.work.display()));
        }
        Ok(stage)
    }

    /// Has a command run at the end, once, and before those that were named earlier.
    pub(super) fn run_afterwards(&self, words: Vec<String>) {
        let mut afterwards = self.afterwards.borrow_mut();
        if !afterwards.contains(&words) {
            afterwards.push(words);
        }
    }

    /// By way of amphora: as an ordinary user, the files of a container belong to ids that only it may touch.
    pub(super) fn clear(&self) -> Result<()> {
        if self.is_kept {
            return Ok(());
        }
        let words = self.afterwards.take();
        let others: Vec<Result<String>> = words.iter().rev().map(|words| run_words(words)).collect();
        unmount_below(&self.work)?;
        for store in STORES.iter().chain([&PULLED]).filter(|store| self.work.join(store).exists()) {
            let mut prune = self.amphora(store);
            run(prune.args(["system", "prune", "-a", "-f"])).context("cannot clean up")?;
        }
        for folder in [&self.state, &self.work].into_iter().filter(|folder| folder.exists()) {
            fs::remove_dir_all(folder).with_context(|| format!("cannot remove {}", folder.display()))?;
        }
        others.into_iter().collect::<Result<Vec<String>>>().context("cannot clean up").map(drop)
    }

    /// Where the state of one of those who run lies.
    pub(super) fn state_of(&self, name: &str) -> String {
        self.state.join(name).display().to_string()
    }

    /// ROOT of one of the stores.
    pub(super) fn root(&self, store: &str) -> PathBuf {
        self.work.join(store).join("root")
    }

    /// The words of a command on one of the stores.
    pub(super) fn amphora_words(&self, store: &str) -> Vec<String> {
        let (amphora, root) = (self.amphora.display().to_string(), self.root(store).display().to_string());
        vec![amphora, "--root".to_owned(), root, "--runroot".to_owned(), self.state_of(store)]
    }

    fn amphora(&self, store: &str) -> Command {
        let words = self.amphora_words(store);
        let mut command = Command::new(&words[0]);
        command.args(&words[1..]);
        command
    }

    /// Cgroup mode, and who we are.
    pub(super) fn circumstances(&self) -> Result<(String, String)> {
        let ask = |field: &str| {
            let said = run(self.amphora(STORES[0]).args(["info", "--format", field]))?;
            Ok::<String, anyhow::Error>(said.trim().to_owned())
        };
        Ok((ask("{{.CgroupMode}}")?, ask("{{.Ids}}")?))
    }

    /// Puts the images into both stores, and makes what others need of them.
    pub(super) fn materials(&self, host: &Host, request: &Request) -> Result<Vec<Material>> {
        let names: Vec<String> = if request.images.is_empty() {
            for store in STORES {
                let mut import = OwnProcess::ImportDemo.command(&self.amphora);
                run(import.arg(self.root(store)).arg(self.state_of(store)).arg("programs"))
                    .context("cannot import the built-in images")?;
            }
            built_in::IMAGES.map(str::to_owned).to_vec()
        } else {
            let into =
                |(index, name): (usize, &String)| self.take(host, name, &self.work.join(format!("layout-{index}")));
            request.images.iter().enumerate().map(into).collect::<Result<_>>()?
        };
        let store = Store::open(&self.root(STORES[0]))?;
        let material = |(index, name): (usize, &String)| {
            let shown = request.images.get(index).unwrap_or(name);
            self.material(&store, name, shown, &self.work.join(format!("subject-{index}")), request)
                .with_context(|| format!("cannot measure {shown}"))
        };
        names.iter().enumerate().map(material).collect()
    }

    /// Servers: the built-in pair, or the user's images as they are.
    pub(super) fn servers(&self, materials: &[Material], port: u16, request: &Request) -> Result<Vec<Material>> {
        let mut servers = Vec::new();
        for (index, material) in materials.iter().enumerate() {
            let folder = self.work.join(format!("server-{index}"));
            if material.is_built_in && !material.is_linux() {
                servers.push(self.function(&folder, request)?);
                continue;
            }
            let mut server = match material.is_built_in {
                true => material.with_arguments(&["serve", &port.to_string()]),
                false => material.clone(),
            };
            server.subject.name += if material.is_built_in { " serve" } else { " as a server" };
            server.on_host_network = true;
            fs::create_dir(&folder).with_context(|| format!("cannot make {}", folder.display()))?;
            server.folder = folder;
            servers.push(server);
        }
        Ok(servers)
    }

    fn function(&self, folder: &Path, request: &Request) -> Result<Material> {
        let mut import = OwnProcess::ImportDemo.command(&self.amphora);
        run(import.arg(self.root(STORES[0])).arg(self.state_of(STORES[0])).arg("functions"))
            .context("cannot import the built-in function")?;
        let store = Store::open(&self.root(STORES[0]))?;
        self.material(&store, FUNCTION_NAME, FUNCTION_NAME, folder, request)
    }

    /// Takes an image from the user's store into both of ours: the name that it has there.
    fn take(&self, host: &Host, name: &str, layout: &Path) -> Result<String> {
        let found = host.store.resolve(name, &Selection::default())?;
        let image = found.with_context(|| format!("no image {name} here: `amphora pull {name}` fetches it"))?;
        write_layout(&host.store, &image, layout)?;
        for store in STORES {
            run(self.amphora(store).args(["load", "-q", "-i"]).arg(layout))
                .with_context(|| format!("cannot take {name} into the benchmark's store"))?;
        }
        Ok(image.reference.as_ref().map_or_else(|| image.digest.to_string(), ToString::to_string))
    }

    fn material(&self, store: &Store, name: &str, shown: &str, folder: &Path, request: &Request) -> Result<Material> {
        let image = store.resolve(name, &Selection::default())?.with_context(|| format!("{name} got lost"))?;
        let workload = Workload::of(&image)?;
        fs::create_dir(folder).with_context(|| format!("cannot make {}", folder.display()))?;
        let config = image.config.config().clone().unwrap_or_default();
        let entrypoint = config.entrypoint().clone().unwrap_or_default();
        let command = if request.arguments.is_empty() { config.cmd().clone() } else { Some(request.arguments.clone()) };
        let command = command.unwrap_or_default();
        let (program, rootfs, wasm) = match &workload {
            Workload::Linux => {
                let rootfs = root_file_system(store, &image, folder).map_err(|error| format!("{error:#}"));
                ([entrypoint, command].concat(), rootfs, None)
            }
            Workload::Wasm(program) => {
                let wasm = wasm_file(store, &image, program, &folder.join("program.wasm"))?;
                (command, Err("it is a Wasm program".to_owned()), Some(wasm))
            }
        };
        Ok(Material {
            subject: Subject {
                name: shown.to_owned(),
                kind: workload.kind(),
                digest: image.digest.to_string(),
                arguments: request.arguments.clone(),
                exit_code: 0,
                output: None,
            },
            image: name.to_owned(),
            folder: folder.to_owned(),
            program,
            env: config.env().clone().unwrap_or_default(),
            cwd: config.working_dir().clone().filter(|cwd| !cwd.is_empty()).unwrap_or_else(|| "/".to_owned()),
            ids: ids(config.user().as_deref().unwrap_or("")),
            rootfs,
            wasm,
            is_built_in: request.images.is_empty(),
            on_host_network: false,
            compressed_bytes: image.size_bytes,
            program_digest: match workload {
                Workload::Wasm(WasmProgram::Blob { digest }) => digest,
                _ => String::new(),
            },
        })
    }
}

impl Material {
    /// The same image, called with other arguments.
    pub(super) fn with_arguments(&self, arguments: &[&str]) -> Self {
        let arguments: Vec<String> = arguments.iter().map(|argument| (*argument).to_owned()).collect();
        let mut other = self.clone();
        other.program.extend(arguments.iter().cloned());
        other.subject.arguments = arguments;
        other
    }

    pub(super) fn is_linux(&self) -> bool {
        self.subject.kind == Kind::Linux
    }
}

/// A folder that nobody else can look into, and that was not there.
fn make_private(folder: &Path) -> Result<()> {
    let made = DirBuilder::new().mode(0o700).create(folder);
    made.with_context(|| {
        format!(
            "cannot make {}, a new folder for the benchmark (TMPDIR or --work names another place)",
            folder.display()
        )
    })
}

/// Unmounts what others have mounted there and forgotten.
fn unmount_below(folder: &Path) -> Result<()> {
    let mounts = fs::read_to_string("/proc/self/mountinfo").context("cannot read /proc/self/mountinfo")?;
    let places = mounts.lines().filter_map(|line| line.split(' ').nth(4)).map(Path::new);
    let below: Vec<&Path> = places.filter(|place| place.starts_with(folder)).collect();
    // What was mounted last lies on top.
    for place in below.into_iter().rev() {
        umount(place).with_context(|| format!("cannot unmount {}", place.display()))?;
    }
    Ok(())
}

/// `USER[:GROUP]` in numbers; None: in names.
fn ids(user: &str) -> Option<[u32; 2]> {
    let (user, group) = user.split_once(':').unwrap_or((user, ""));
    let number = |text: &str| if text.is_empty() || text == "root" { Some(0) } else { text.parse().ok() };
    Some([number(user)?, number(group)?])
}

/// An OCI layout of one image, which every tool can read.
fn write_layout(store: &Store, image: &Image, layout: &Path) -> Result<()> {
    let manifest = store.blob_path(&image.digest);
    let media_type = image
        .manifest
        .media_type()
        .as_ref()
        .map_or_else(|| "application/vnd.oci.image.manifest.v1+json".to_owned(), ToString::to_string);
    let size = fs::metadata(&manifest).with_context(|| format!("cannot find {}", manifest.display()))?.len();
    let mut descriptor = json!({ "mediaType": media_type, "digest": image.digest.to_string(), "size": size });
    if let Some(reference) = &image.reference {
        descriptor["annotations"] = json!({ "org.opencontainers.image.ref.name": reference.to_string() });
    }
    let parts = image.manifest.layers().iter().chain([image.manifest.config()]).map(|part| part.digest());
    for digest in parts.chain([&image.digest]) {
        copy_blob(store, digest, layout)?;
    }
    let index = json!({ "schemaVersion": 2, "manifests": [descriptor] });
    fs::write(layout.join("oci-layout"), r#"{"imageLayoutVersion":"1.0.0"}"#)?;
    fs::write(layout.join("index.json"), serde_json::to_vec(&index)?)?;
    Ok(())
}

fn copy_blob(store: &Store, digest: &Digest, layout: &Path) -> Result<()> {
    let folder = layout.join("blobs").join(digest.algorithm().as_ref());
    fs::create_dir_all(&folder)?;
    let (from, to) = (store.blob_path(digest), folder.join(digest.digest()));
    fs::copy(&from, &to).with_context(|| format!("cannot copy {}", from.display())).map(drop)
}

/// The layers as one tree of plain files, which whoever knows no images can start.
fn root_file_system(store: &Store, image: &Image, folder: &Path) -> Result<PathBuf> {
    let mut layers = store.layers(image)?;
    let rootfs = folder.join("rootfs");
    fs::create_dir(&rootfs)?;
    let [only] = layers.as_slice() else {
        if !nix::unistd::geteuid().is_root() {
            bail!("only root can put its layers together");
        }
        layers.reverse();
        copy_overlay(&layers, &folder.join("merged"), &rootfs)?;
        return Ok(rootfs);
    };
    copy_tree(only, &rootfs)?;
    Ok(rootfs)
}

fn copy_overlay(layers: &[PathBuf], merged: &Path, rootfs: &Path) -> Result<()> {
    fs::create_dir(merged)?;
    let lower: Vec<String> = layers.iter().map(|layer| layer.display().to_string()).collect();
    let options = format!("lowerdir={}", lower.join(":"));
    mount(Some("overlay"), merged, Some("overlay"), MsFlags::MS_RDONLY, Some(options.as_str()))
        .context("cannot put its layers together")?;
    let copied = copy_tree(merged, rootfs);
    umount(merged).with_context(|| format!("cannot unmount {}", merged.display()))?;
    copied
}

fn copy_tree(from: &Path, to: &Path) -> Result<()> {
    run(Command::new("cp").arg("-a").arg(from.join(".")).arg(to)).map(drop)
}

fn wasm_file(store: &Store, image: &Image, program: &WasmProgram, to: &Path) -> Result<PathBuf> {
    match program {
        WasmProgram::Blob { digest } => {
            let digest = digest.parse().with_context(|| format!("`{digest}` is no digest"))?;
            fs::copy(store.blob_path(&digest), to)?;
        }
        WasmProgram::File { path } => {
            let file = store.open_in_root(image, path)?.with_context(|| format!("{path} is not in the image"))?;
            std::io::copy(&mut std::io::BufReader::new(file), &mut fs::File::create(to)?)?;
        }
    }
    Ok(to.to_owned())
}

/// The same for a command line.
pub(super) fn run_words(words: &[String]) -> Result<String> {
    run(Command::new(&words[0]).args(&words[1..]))
}

/// Runs a command of the preparations to its end; its output.
pub(super) fn run(command: &mut Command) -> Result<String> {
    let output = command.stdin(std::process::Stdio::null()).output();
    let name = Path::new(command.get_program()).display().to_string();
    let output = output.with_context(|| format!("cannot start {name}"))?;
    if !output.status.success() {
        let words = String::from_utf8_lossy(&output.stderr);
        bail!("{name} ended with {}: {}", output.status, words.trim().trim_start_matches("amphora: "));
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

#[cfg(test)]
mod tests {
    use super::ids;

    #[test]
    fn users_are_numbers_or_unknown() {
        for (user, expected) in [
            ("", Some([0, 0])),
            ("root", Some([0, 0])),
            ("1000", Some([1000, 0])),
            ("1000:50", Some([1000, 50])),
            ("web", None),
            ("0:web", None),
        ] {
            assert_eq!(ids(user), expected, "{user}");
        }
    }
}
