//! A program's bytes, and its native code in the cache.

use std::{collections::HashSet, fs::File, io::Read};

use anyhow::{Context, Result, anyhow, bail};
use images::Image;
use wasm_exec::{CacheError, CodeCache, Compiled, Found, Profile, Proposals};

use crate::{
    output::{self, errors::Coded},
    records::{host::Host, own_process::OwnProcess},
    spec::{WasmProgram, Workload, exit_code},
};

/// A program larger than this takes a moment to compile; then a word says what is being waited for.
const WORTH_A_WORD_BYTES: u64 = 1 << 20;

/// The largest program that is read into memory, as for import; the largest real ones have half of it. A sparse file in a small
/// layer can claim any size.
const MOST_BYTES: u64 = 128 << 20;

/// The native code of an image's program: from the cache, else compiled now, outside the program's own cgroup and in a
/// process of its own, as the compiler's threads must be gone before this process is copied.
pub(crate) fn compiled(program: &WasmProgram, host: &Host, image: &Image, profile: Profile) -> Result<Compiled> {
    let cache = cache(host);
    let key = cache_key(program, image)?;
    let name = || image.reference.as_ref().map_or_else(|| key.clone(), |r| r.familiar());
    match cache.lookup(&key, profile)? {
        Found::Code(code) => return Ok(code),
        Found::Refused(why) => {
            output::note(&format!("The compiled code of {} is not used, and compiled again: {why}", name()));
        }
        Found::Nothing if image.size_bytes > WORTH_A_WORD_BYTES => {
            output::note(&format!("Compiling {} to native code, once", name()));
        }
        Found::Nothing => {}
    }
    let compiler = OwnProcess::Compile
        .command(&host.program)
        .args([&host.paths.root, &host.paths.runroot])
        .args([image.digest.to_string(), profile.fuel.to_string()])
        .args([profile.proposals.names().collect::<Vec<_>>().join(","), std::process::id().to_string()])
        .output()
        .context("cannot start the compiler")?;
    if !compiler.status.success() {
        let said = String::from_utf8_lossy(&compiler.stderr);
        let said = said.trim().trim_start_matches("amphora: ").to_owned();
        return Err(match compiler.status.code() {
            Some(code) if code == i32::from(exit_code::NOT_EXECUTABLE) => {
                Coded::new(exit_code::NOT_EXECUTABLE, said).into()
            }
            _ => anyhow!(said),
        });
    }
    cache.lookup(&key, profile)?.code().context("the compiled program vanished from the cache; try again")
}

/// How large the code is that has been compiled for this; None: none has.
pub(super) fn size(program: &WasmProgram, host: &Host, image: &Image, profile: Profile) -> Result<Option<u64>> {
    Ok(cache(host).bytes(&cache_key(program, image)?, profile)?)
}

/// What the compiler process does.
pub(crate) fn compile(host: &Host, image: &Image, fuel: bool, proposals: &str) -> Result<()> {
    let Workload::Wasm(program) = Workload::of(image)? else { bail!("a Linux program is not compiled") };
    // Who removes compiled code does so while nobody has this lock.
    let _writing = host.store.writing()?;
    let mut names = proposals.split(',').filter(|name| !name.is_empty());
    let proposals = names.try_fold(Proposals::default(), Proposals::with)?;
    let profile = Profile { fuel, proposals, ..Profile::default() };
    let compiled = cache(host).compile(&cache_key(&program, image)?, profile, || bytes(&program, host, image));
    compiled.map(drop).map_err(|error| match error.downcast_ref() {
        Some(CacheError::Off { names, detail }) => {
            let with = format!("run it with --wasm {names}");
            let what = "it uses proposals for WebAssembly that are off unless they are asked for";
            Coded::new(exit_code::NOT_EXECUTABLE, format!("{what}: {with} ({detail})")).into()
        }
        _ => error,
    })
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
        // Of an image whose key cannot be told no code was ever compiled.
        if let Ok(Workload::Wasm(program)) = Workload::of(&image)
            && let Ok(key) = cache_key(&program, &image)
        {
            keys.insert(key);
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
