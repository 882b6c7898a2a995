//! The configurations that code is compiled for and run with, one for each profile.
//!
//! There are two engines for each: one that can compile, used when an image arrives, and one that cannot, used to run.
//! The second never initialises the compiler, which is most of what making an engine costs.

use crate::{Proposals, RunError};
use std::hash::{DefaultHasher, Hash, Hasher};
use wasmtime::{Config, InstanceAllocationStrategy, OptLevel, RegallocAlgorithm, WasmBacktraceDetails};

/// What code is compiled for, and can then do. Code of one profile cannot be run with another.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Profile {
    /// Instructions are counted, so that fuel can be limited and reported. The program is slower for it.
    pub fuel: bool,
    /// The program may have several calls under way at once, as WASI 0.3 asks for. Whether it does is for the program to say:
    /// [`CodeCache`](crate::CodeCache) sets this, whatever it was given. Those that do not start without what it takes.
    pub concurrent: bool,
    /// What it may use beside the proposals that are always on.
    pub proposals: Proposals,
    /// Compiled in about half of the time, without optimising: slower, and with more stack to run on, as each call takes more
    /// of it. All else is the same, fuel to the last instruction.
    pub baseline: bool,
}

/// Runs programs of one profile, any number and from any thread; it cannot compile. Clones are the same engine.
#[derive(Clone)]
pub struct Engine {
    inner: wasmtime::Engine,
    profile: Profile,
}

impl Engine {
    /// Makes one, and installs handlers for the signals by which the processor tells of traps, once in a process.
    ///
    /// Fails if the processor or the system lacks what the profile needs.
    pub fn new(profile: Profile) -> Result<Self, RunError> {
        Ok(Self { inner: runner(profile).map_err(RunError::engine)?, profile })
    }

    /// The same; what does not end by itself leaves a [core dump](crate::Report::core_dump).
    pub fn with_core_dumps(profile: Profile) -> Result<Self, RunError> {
        let mut config = config(profile);
        let inner = wasmtime::Engine::new(config.enable_compiler(false).coredump_on_trap(true));
        Ok(Self { inner: inner.map_err(RunError::engine)?, profile })
    }

    /// One whose instances lie in places that are reserved now, for a program that is instantiated again and again.
    pub(crate) fn pooled(
        profile: Profile,
        strategy: InstanceAllocationStrategy,
        core_dumps: bool,
    ) -> Result<Self, RunError> {
        let mut config = config(profile);
        config.enable_compiler(false).allocation_strategy(strategy).coredump_on_trap(core_dumps);
        let inner = wasmtime::Engine::new(&config).map_err(RunError::engine)?;
        Ok(Self { inner, profile })
    }

    /// What it was made from.
    pub fn profile(&self) -> Profile {
        self.profile
    }

    /// Ends all instances that run now, where they are, as timed out ([`Outcome::TimedOut`](crate::Outcome)): at their next
    /// loop or call. One that waits in a call to its host goes on until that returns. May be called from any thread.
    pub fn interrupt(&self) {
        self.inner.increment_epoch();
    }

    pub(crate) fn inner(&self) -> &wasmtime::Engine {
        &self.inner
    }
}

/// What a program may use as its stack: twice wasmtime's default, as counting instructions and looking at the epoch take more of it for
/// each call. A function's stack as wasmtime reserves it has as much again for calls to the host.
const STACK_BYTES: usize = 1 << 20;
/// The same of baseline code. No two of a function's values share a place there, which makes
/// a call in an interpreter's main loop take 30 times as much of it as with optimised code.
const BASELINE_STACK_BYTES: usize = 16 << 20;
/// For calls of the program's to its host.
const HOST_STACK_BYTES: usize = 1 << 20;

/// A program of fewer bytes is compiled before threads for it have begun.
const WORTH_THREADS_BYTES: usize = 64 << 10;

/// An engine that compiles a program of so many bytes; it uses all processors for what is not small.
pub(crate) fn compiler(profile: Profile, program_bytes: usize) -> wasmtime::Result<wasmtime::Engine> {
    let mut config = config(profile);
    if profile.baseline {
        // The second is what saves most; the first alone nearly nothing.
        config.cranelift_opt_level(OptLevel::None).cranelift_regalloc_algorithm(RegallocAlgorithm::SinglePass);
    }
    wasmtime::Engine::new(config.parallel_compilation(program_bytes >= WORTH_THREADS_BYTES))
}

/// An engine that runs what [`compiler`] made.
pub(crate) fn runner(profile: Profile) -> wasmtime::Result<wasmtime::Engine> {
    wasmtime::Engine::new(config(profile).enable_compiler(false))
}

/// The hash of `Engine::precompile_compatibility_hash` for the engines, without fuel and with it, and then the same of those for
/// concurrent programs: wasmtime's version to the last digit, its settings and the Wasm features.
///
/// Written down, because finding out takes an engine, and looking for code is on the way of every start. A test compares;
/// when it fails, wasmtime or its settings here have changed: put in what it found, and code is compiled anew.
const CONFIGURATIONS: [[u64; 2]; 2] =
    [[0x958b_cef0_2775_13e7, 0xcbb4_afe0_e655_317d], [0xf4ec_3bc7_dc03_3b55, 0x383d_e8ee_e1a5_aac3]];

/// What decides whether code compiled by one process can be run by another: wasmtime's version and settings, and the
/// processor's features, as 16 hex digits.
///
/// Code is looked up by this, so that another version of this program, or another machine on the same storage, compiles
/// its own. It is for finding, not for safety: wasmtime checks all of it once more when it loads the code. It is the same
/// for programs that are concurrent and those that are not: which of them it is the code says. Baseline code has it, too.
pub(crate) fn key(profile: Profile) -> String {
    let mut hasher = DefaultHasher::new();
    CONFIGURATIONS.map(|pair| pair[usize::from(profile.fuel)]).hash(&mut hasher);
    profile.proposals.hash(&mut hasher);
    cpu_features().hash(&mut hasher);
    format!("{:016x}", hasher.finish())
}

fn config(profile: Profile) -> Config {
    let mut config = Config::new();
    config
        // The time-out. It costs about a tenth of the speed, but it is the only way to stop a loop and tell where it was.
        .epoch_interruption(true)
        .consume_fuel(profile.fuel)
        .concurrency_support(profile.concurrent)
        // Only debuggers and profilers read this; wasmtime finds frames by their pointers. Without it code is smaller,
        // and loading it need not register it with the unwinder.
        .native_unwind_info(false)
        // Keeps the guest's DWARF, for file and line in backtraces. Said here because by default an environment
        // variable decides, and that would be one of the things that the code depends on.
        .wasm_backtrace_details(WasmBacktraceDetails::Enable);
    let stack_bytes = if profile.baseline { BASELINE_STACK_BYTES } else { STACK_BYTES };
    config.max_wasm_stack(stack_bytes).async_stack_size(stack_bytes + HOST_STACK_BYTES);
    profile.proposals.enable(&mut config);
    config
}

/// The processor features that the code generator looks for.
#[cfg(target_arch = "x86_64")]
fn cpu_features() -> Vec<bool> {
    use std::arch::is_x86_feature_detected as has;
    vec![
        has!("sse3"),
        has!("cmpxchg16b"),
        has!("ssse3"),
        has!("sse4.1"),
        has!("sse4.2"),
        has!("popcnt"),
        has!("avx"),
        has!("avx2"),
        has!("avxvnni"),
        has!("fma"),
        has!("bmi1"),
        has!("bmi2"),
        has!("avx512bitalg"),
        has!("avx512dq"),
        has!("avx512f"),
        has!("avx512vl"),
        has!("avx512vbmi"),
        has!("avx512vnni"),
        has!("lzcnt"),
    ]
}

/// The processor features that the code generator looks for.
#[cfg(target_arch = "aarch64")]
fn cpu_features() -> Vec<bool> {
    use std::arch::is_aarch64_feature_detected as has;
    vec![has!("lse"), has!("paca"), has!("fp16"), has!("dotprod"), has!("i8mm")]
}

/// None that are known: the code generator then looks for none that could be missing elsewhere.
#[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
fn cpu_features() -> Vec<bool> {
    Vec::new()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plain() -> Profile {
        Profile::default()
    }

    fn counting() -> Profile {
        Profile { fuel: true, ..plain() }
    }

    fn configuration(profile: Profile) -> u64 {
        let mut hasher = DefaultHasher::new();
        runner(profile).unwrap().precompile_compatibility_hash().hash(&mut hasher);
        hasher.finish()
    }

    #[test]
    fn the_configurations_that_are_written_down_are_those_of_the_engines() {
        let concurrent = |profile| Profile { concurrent: true, ..profile };
        let found =
            [[plain(), counting()], [concurrent(plain()), concurrent(counting())]].map(|pair| pair.map(configuration));
        assert!(CONFIGURATIONS == found, "CONFIGURATIONS must be {found:#018x?}");
        assert_eq!(configuration(Profile { baseline: true, ..plain() }), CONFIGURATIONS[0][0]);
    }

    #[test]
    fn code_is_told_apart_by_fuel_and_proposals() {
        let more = Profile { proposals: Proposals::default().with("wide-arithmetic").unwrap(), ..plain() };
        assert_ne!(key(plain()), key(more));
        assert_ne!(key(plain()), key(counting()));
        assert_eq!(key(plain()).len(), 16);
    }

    #[test]
    fn code_of_the_compiling_engine_is_accepted_by_the_running_one() {
        let image = compiler(plain(), 0).unwrap().precompile_module(b"\0asm\x01\0\0\0").unwrap();
        assert_eq!(wasmtime::Engine::detect_precompiled(&image), Some(wasmtime::Precompiled::Module));
    }
}
