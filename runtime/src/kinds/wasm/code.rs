//! A program's bytes, and its native code in the cache.

use std::{collections::HashSet, fs::File, io::Read, os::unix::process::CommandExt, process::Stdio};

use anyhow::{Context, Result, anyhow, bail};
use images::{Image, Selection};
use wasm_exec::{CacheError, CodeCache, Compiled, Found, Profile, Proposals};

use crate::{
    output::{self, errors::Coded},
    records::{host::Host, own_process::OwnProcess},
    spec::{WasmProgram, Workload, exit_code},
};

/// A program of a larger image takes a moment to compile; then a word says what is being waited for, and its first run does not wait for
/// code that is optimised.
const LARGE_BYTES: u64 = 1 << 20;

/// The largest program that is read into memory, as for import; the largest real ones have half of it. A sparse file in a small
/// layer can claim any size.
const MOST_BYTES: u64 = 128 << 20;

/// The native code of an image's program: from the cache, else compiled now, outside the program's own cgroup and in a
/// process of its own, as the compiler's threads must be gone before this process is copied.
pub(super) fn compiled(program: &WasmProgram, host: &Host, image: &Image, profile: Profile) -> Result<Compiled> {
    let code = Code::of(program, host, image)?;
    if let Some(found) = code.find(profile)? {
        return Ok(found);
    }
    if image.size_bytes > LARGE_BYTES {
        output::note(&format!("Compiling {} to native code, once", code.name()));
    }
    code.compile(profile)?;
    code.found(profile)
}

/// The same for a run that waits for nothing that the next one can have: baseline code, if there is no better and the program is large.
/// What is optimised is then made on the side.
pub(super) fn compiled_soon(program: &WasmProgram, host: &Host, image: &Image, profile: Profile) -> Result<Compiled> {
    let code = Code::of(program, host, image)?;
    if image.size_bytes <= LARGE_BYTES {
        return compiled(program, host, image, profile);
    }
    if let Some(found) = code.find(profile)? {
        return Ok(found);
    }
    let baseline = Profile { baseline: true, ..profile };
    match code.find(baseline)? {
        Some(found) if code.cache.is_being_compiled(&code.key, profile)? => return Ok(found),
        // Whoever was to make what is better did not come to it.
        Some(_) => {}
        None => output::note(&format!("Compiling {} to native code, quickly; its next runs have better", code.name())),
    }
    if code.compile(baseline).is_err() {
        // It takes more of the disk than what is optimised, of which what is wrong with the program is told again.
        return compiled(program, host, image, profile);
    }
    // By now there may be the better one, and with it no other.
    match code.find(profile)? {
        Some(found) => Ok(found),
        None => code.found(baseline),
    }
}

/// The code of one image's program.
struct Code<'a> {
    program: &'a WasmProgram,
    host: &'a Host,
    image: &'a Image,
    cache: CodeCache,
    key: String,
}

impl<'a> Code<'a> {
    fn of(program: &'a WasmProgram, host: &'a Host, image: &'a Image) -> Result<Self> {
        Ok(Self { program, host, image, cache: cache(host), key: cache_key(program, image)? })
    }

    fn name(&self) -> String {
        self.image.reference.as_ref().map_or_else(|| self.key.clone(), |reference| reference.familiar())
    }

    /// What the cache has; of what must not be run it is said why.
    fn find(&self, profile: Profile) -> Result<Option<Compiled>> {
        match self.cache.lookup(&self.key, profile)? {
            Found::Code(code) => Ok(Some(code)),
            Found::Refused(why) => {
                let name = self.name();
                output::note(&format!("The compiled code of {name} is not used, and compiled again: {why}"));
                Ok(None)
            }
            Found::Nothing => Ok(None),
        }
    }

    fn found(&self, profile: Profile) -> Result<Compiled> {
        self.cache.lookup(&self.key, profile)?.code().context("the compiled program vanished from the cache; try again")
    }

    /// Waits until it is compiled.
    fn compile(&self, profile: Profile) -> Result<()> {
        let Host { program, paths, .. } = self.host;
        let compiler = OwnProcess::Compile
            .command(program)
            .args([&paths.root, &paths.runroot])
            .args(self.words(profile)?)
            .args([profile.baseline.to_string(), std::process::id().to_string()])
            .output()
            .context("cannot start the compiler")?;
        if compiler.status.success() {
            return Ok(());
        }
        let said = String::from_utf8_lossy(&compiler.stderr);
        let said = said.trim().trim_start_matches("amphora: ").to_owned();
        Err(match compiler.status.code() {
            Some(code) if code == i32::from(exit_code::NOT_EXECUTABLE) => {
                Coded::new(exit_code::NOT_EXECUTABLE, said).into()
            }
            _ => anyhow!(said),
        })
    }

    /// What a process is told of it: digest of the image, which program of that, whether fuel is counted, proposals.
    fn words(&self, profile: Profile) -> Result<[String; 4]> {
        let proposals = profile.proposals.names().collect::<Vec<_>>().join(",");
        let program = serde_json::to_string(self.program)?;
        Ok([self.image.digest.to_string(), program, profile.fuel.to_string(), proposals])
    }

    fn bytes(&self) -> Result<Vec<u8>> {
        bytes(self.program, self.host, self.image)
    }
}

/// How large the code is that has been compiled for this; None: none has.
pub(super) fn size(program: &WasmProgram, host: &Host, image: &Image, profile: Profile) -> Result<Option<u64>> {
    let (cache, key) = (cache(host), cache_key(program, image)?);
    match cache.bytes(&key, profile)? {
        Some(bytes) => Ok(Some(bytes)),
        None => Ok(cache.bytes(&key, Profile { baseline: true, ..profile })?),
    }
}

/// A program of an image, and what it is to be compiled for, as a process is told.
pub(crate) struct Wanted {
    program: WasmProgram,
    profile: Profile,
}

impl Wanted {
    /// Of the words that it was told.
    pub(crate) fn parse(program: &str, fuel: &str, proposals: &str, baseline: bool) -> Result<Self> {
        let mut names = proposals.split(',').filter(|name| !name.is_empty());
        let proposals = names.try_fold(Proposals::default(), Proposals::with)?;
        let profile = Profile { fuel: fuel == "true", proposals, baseline, ..Profile::default() };
        Ok(Self { program: serde_json::from_str(program)?, profile })
    }
}

/// What the compiler process does. After baseline code another process makes what is optimised, which nobody waits for: it is no child
/// of who waits for this one.
pub(crate) fn compile(host: &Host, image: &Image, wanted: &Wanted) -> Result<()> {
    let code = Code::of(&wanted.program, host, image)?;
    // Who removes compiled code does so while nobody has this lock.
    let _writing = host.store.writing()?;
    code.cache.compile(&code.key, wanted.profile, || code.bytes()).map(drop).map_err(explained)?;
    if wanted.profile.baseline {
        let optimiser = OwnProcess::Optimise
            .command(&host.program)
            .args([&host.paths.root, &host.paths.runroot])
            .args(code.words(wanted.profile)?)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .process_group(0)
            .spawn();
        // Where there is none now, the next run starts one.
        drop(optimiser);
    }
    Ok(())
}

/// What the process does that nobody waits for. It holds up nobody who removes something, and makes nothing for an image that was removed.
pub(crate) fn optimise(host: &Host, image: &Image, wanted: &Wanted) -> Result<()> {
    let code = Code::of(&wanted.program, host, image)?;
    let made = code.cache.compile_on_the_side(&code.key, wanted.profile, || code.bytes())?;
    let Some(made) = made else { return Ok(()) };
    let _writing = host.store.writing()?;
    if host.store.unnamed_image("", &image.digest, &Selection::default())?.is_some() {
        made.publish()?;
    }
    Ok(())
}

/// An error of compiling, with the flag that would help.
fn explained(error: anyhow::Error) -> anyhow::Error {
    match error.downcast_ref() {
        Some(CacheError::Off { names, detail }) => {
            let with = format!("run it with --wasm {names}");
            let what = "it uses proposals for WebAssembly that are off unless they are asked for";
            Coded::new(exit_code::NOT_EXECUTABLE, format!("{what}: {with} ({detail})")).into()
        }
        _ => error,
    }
}

fn cache(host: &Host) -> CodeCache {
    CodeCache::new(host.paths.compiled(), host.paths.checked())
}

/// Compiled code of no image that is here: one sentence each; removed when `remove`. None while that cannot be told from
/// the code of an image that is on its way, which has no name yet.
pub(crate) fn check_compiled(host: &Host, remove: bool) -> Result<Option<Vec<String>>> {
    host.store.while_nobody_writes(|| check_compiled_alone(host, remove))?.transpose()
}

fn check_compiled_alone(host: &Host, remove: bool) -> Result<Vec<String>> {
    let mut keys = HashSet::new();
    for image in host.store.list()? {
        for (image, workload) in Workload::all_of(&image) {
            // Of an image whose key cannot be told no code was ever compiled.
            if let Workload::Wasm(program) = workload
                && let Ok(key) = cache_key(&program, &image)
            {
                keys.insert(key);
            }
        }
    }
    let cache = cache(host);
    let stale = cache.stale(&|key| keys.contains(key))?;
    if remove {
        stale.iter().try_for_each(|path| cache.discard(path))?;
        cache.forget_gone()?;
    }
    Ok(stale.iter().map(|path| format!("compiled code of no image: {}", path.display())).collect())
}

/// 64 hexadecimal digits: of the program itself, or of the image in whose file system it lies.
fn cache_key(program: &WasmProgram, image: &Image) -> Result<String> {
    let digest = match program {
        WasmProgram::Blob { digest } => digest.clone(),
        WasmProgram::File { .. } => image.digest.to_string(),
    };
    // Of sha512 the first half: as many digits as sha256 has.
    let hex = digest.split_once(':').and_then(|(_, hex)| hex.get(..64));
    Ok(hex.with_context(|| format!("{digest} is no digest of sha256 or sha512"))?.to_owned())
}

/// The bytes of the program.
pub(super) fn bytes(program: &WasmProgram, host: &Host, image: &Image) -> Result<Vec<u8>> {
    let mut file = match program {
        WasmProgram::Blob { digest } => return Ok(host.store.blob_bytes(&digest.parse()?, MOST_BYTES)?),
        WasmProgram::File { path } => open_in_layers(host, image, path)?,
    };
    let size = file.metadata()?.len();
    if size > MOST_BYTES {
        bail!("the image's program has {size} bytes, a Wasm program at most {MOST_BYTES}");
    }
    let mut bytes = Vec::new();
    file.by_ref().take(MOST_BYTES).read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// A Wasm program as a container of the image would see it.
fn open_in_layers(host: &Host, image: &Image, path: &str) -> Result<File> {
    let found = host.store.open_in_root(image, path)?;
    found.with_context(|| format!("the image's entrypoint {path} is no file in its root file system"))
}
