//! What a benchmark found, as it is stored: the schema of `results.json`, which docs/benchmarks.md describes.
//!
//! An amphora reads its own version and all before it; a field that is added has a default, and makes a new [`VERSION`], as
//! who does not know it has to say so.

use std::{fs, path::Path};

use anyhow::{Context, Result, bail, ensure};
use serde::{Deserialize, Serialize};

use super::statistics::{self, Summary};
use crate::spec::Kind;

/// The first word of the file, by which it is known.
pub(crate) const SCHEMA: &str = "amphora-bench";
/// Of the schema.
pub(crate) const VERSION: u32 = 2;

/// Everything that one benchmark found.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Results {
    pub(crate) schema: String,
    pub(crate) version: u32,
    /// The amphora that measured.
    pub(crate) tool: Tool,
    /// RFC 3339.
    pub(crate) began: String,
    pub(crate) settings: Settings,
    /// It was interrupted: what is there is right, and not all.
    pub(crate) partial: bool,
    pub(crate) machine: Machine,
    pub(crate) subjects: Vec<Subject>,
    pub(crate) contenders: Vec<Program>,
    pub(crate) rows: Vec<Row>,
    #[serde(default)]
    pub(crate) stages: Vec<Stages>,
    #[serde(default)]
    pub(crate) sizes: Vec<Size>,
    #[serde(default)]
    pub(crate) rates: Vec<Rate>,
    #[serde(default)]
    pub(crate) memory: Vec<Memory>,
    #[serde(default)]
    pub(crate) traces: Vec<Trace>,
    /// Who did not take part in what, and why.
    pub(crate) absent: Vec<Absent>,
    /// What a reader has to know to judge the figures.
    pub(crate) remarks: Vec<String>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Tool {
    pub(crate) version: String,
    pub(crate) digest: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Settings {
    /// Warm runs of each contender; of cold ones there are fewer.
    pub(crate) runs: usize,
    pub(crate) cold_runs: usize,
    pub(crate) warm_up_runs: usize,
    /// Of the order of rounds, and of what is resampled.
    pub(crate) seed: u64,
    /// A run that takes longer is killed, and has failed.
    pub(crate) timeout_seconds: u64,
    pub(crate) drop_caches: bool,
    pub(crate) allow_failure: bool,
    /// The command line that began it.
    pub(crate) command: String,
}

/// What figures depend on besides the programs.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Machine {
    pub(crate) kernel: String,
    pub(crate) kernel_build: String,
    pub(crate) architecture: String,
    pub(crate) cpu: String,
    pub(crate) cores: usize,
    pub(crate) memory_bytes: u64,
    pub(crate) cgroups: String,
    /// `root`, or how many ids an ordinary user has.
    pub(crate) user: String,
    pub(crate) store_file_system: String,
    pub(crate) state_file_system: String,
    pub(crate) governor: String,
    /// Name and state, as the kernel says them; those that do not concern this CPU are left out.
    pub(crate) mitigations: Vec<[String; 2]>,
    /// As the kernel says it: `tsc`, `kvm-clock`, …
    #[serde(default)]
    pub(crate) clock_source: String,
    /// Transparent huge pages: `always`, `madvise` or `never`.
    #[serde(default)]
    pub(crate) huge_pages: String,
    /// Whether the CPU says that there is a hypervisor below it.
    #[serde(default)]
    pub(crate) is_virtual: bool,
    /// Whether it was measured from inside of a container.
    #[serde(default)]
    pub(crate) is_container: bool,
    /// How many processes wanted a CPU, as an average of the minute before; None: it could not be read.
    #[serde(default)]
    pub(crate) load_before: Option<f64>,
    /// Share of the CPU time that went to other guests of the host while it was measured.
    pub(crate) steal: f64,
}

/// An image, as it is started by everybody.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Subject {
    pub(crate) name: String,
    pub(crate) kind: Kind,
    pub(crate) digest: String,
    pub(crate) arguments: Vec<String>,
    /// What every run must end with.
    pub(crate) exit_code: i32,
    /// SHA-256 of what every run must write to standard output; None: it is another one each time.
    pub(crate) output: Option<String>,
}

/// A program that took part.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Program {
    pub(crate) name: String,
    pub(crate) path: String,
    pub(crate) version: String,
    pub(crate) digest: String,
    pub(crate) bytes: u64,
    /// Why it is called with other flags than by default, if it is.
    #[serde(default)]
    pub(crate) note: Option<String>,
}

/// Whether everything was read and compiled before.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Temperature {
    /// Everything is in the page cache, and compiled.
    Warm,
    /// Nothing is compiled, and the files involved are not in the page cache.
    Cold,
}

impl Temperature {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Warm => "warm",
            Self::Cold => "cold",
        }
    }
}

/// What a row's clock stops at.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Until {
    /// The command has ended.
    #[default]
    Exit,
    /// A server in the image has answered a request with 200.
    Answer,
    /// The image has been pulled, and is ready to run.
    Ready,
}

impl Until {
    /// In the order of a report.
    pub(crate) const ALL: [Self; 3] = [Self::Exit, Self::Answer, Self::Ready];

    /// Behind a table's temperature, if it is not the usual one.
    pub(crate) fn title(self) -> &'static str {
        match self {
            Self::Exit => "",
            Self::Answer => ", command to the first 200",
            Self::Ready => ", pulled from a registry on loopback until ready to run",
        }
    }
}

/// One contender starting one subject, over and over.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Row {
    pub(crate) subject: String,
    pub(crate) temperature: Temperature,
    #[serde(default)]
    pub(crate) until: Until,
    pub(crate) contender: String,
    /// As it can be typed.
    pub(crate) command: String,
    pub(crate) samples: Vec<Sample>,
    pub(crate) start: Summary,
    /// None where nothing is written.
    pub(crate) first_byte: Option<Summary>,
    /// To the row `amphora` of the same table.
    pub(crate) ratio: Option<Ratio>,
    /// CPU time of the whole machine per run, in ms: what is done later by the kernel, or by a daemon, is in it.
    pub(crate) machine_cpu_ms: f64,
    pub(crate) got: Got,
    pub(crate) failures: usize,
    pub(crate) first_failure: Option<String>,
}

/// One run that did its work.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Sample {
    pub(crate) round: usize,
    /// From just before the process is made until what the row waits for.
    pub(crate) wall_ms: f64,
    pub(crate) first_byte_ms: Option<f64>,
    /// What one more request to a server took, on a connection of its own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) request_ms: Option<f64>,
    /// Of the process and of all that it started and that ended.
    pub(crate) user_ms: f64,
    pub(crate) system_ms: f64,
    pub(crate) minor_faults: i64,
}

/// A quotient of medians with its 95 % interval.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Ratio {
    pub(crate) median: f64,
    pub(crate) interval: [f64; 2],
}

/// What a contender's process really got.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Got {
    /// Read from /proc while it ran.
    Seen(Confinement),
    /// Why it is not known.
    Unseen(String),
}

/// What one process is kept in.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Confinement {
    /// Those that are not the benchmark's own: `mnt`, `pid`, …
    pub(crate) namespaces: Vec<String>,
    /// It is in a cgroup that is not the benchmark's own.
    pub(crate) cgroup: bool,
    /// As /proc/PID/status says it: 0 none, 1 strict, 2 a filter.
    pub(crate) seccomp: u8,
    pub(crate) no_new_privileges: bool,
    /// How many capabilities are in effect, and which.
    pub(crate) capabilities: u32,
    pub(crate) capability_mask: String,
    /// Mounts that cover something below /proc and /sys, read-only ones among them.
    pub(crate) masks: usize,
    /// File system of its root.
    pub(crate) root: String,
}

/// Where the time of `amphora run` goes.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Stages {
    pub(crate) subject: String,
    /// Name and median in µs.
    pub(crate) medians: Vec<(String, f64)>,
}

/// What a subject weighs with one contender.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Size {
    pub(crate) subject: String,
    pub(crate) contender: String,
    pub(crate) compressed: Option<u64>,
    pub(crate) unpacked: Option<u64>,
    pub(crate) compiled: Option<u64>,
    /// Of all processes of one run together, at its largest moment: largest resident set.
    pub(crate) resident: Option<u64>,
}

/// How many starts there are in a second.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Rate {
    pub(crate) subject: String,
    pub(crate) contender: String,
    pub(crate) at_a_time: usize,
    pub(crate) starts: usize,
    /// Until the last one had ended and everything it left was gone.
    pub(crate) seconds: f64,
    pub(crate) per_second: f64,
    /// Of the whole machine; None: it did not rest before or afterwards.
    pub(crate) cpu_ms_per_start: Option<f64>,
    pub(crate) failures: usize,
}

/// What many at once take.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Memory {
    pub(crate) subject: String,
    pub(crate) contender: String,
    pub(crate) count: usize,
    /// Of all processes that belong to them, helpers included.
    pub(crate) pss_bytes: u64,
    /// Slab, stacks, page tables and per-CPU memory, as the machine's total grew.
    pub(crate) kernel_bytes: i64,
    pub(crate) processes: usize,
}

/// What the kernel saw of a contender's runs, in runs of their own; medians.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Trace {
    pub(crate) subject: String,
    pub(crate) contender: String,
    pub(crate) processes: f64,
    /// How often a program was executed.
    pub(crate) executions: f64,
    /// In µs: from the command's process until the image's program is executed; None: it never is, as of Wasm.
    pub(crate) before: Option<f64>,
    pub(crate) program: Option<f64>,
    /// From the program's end to the command's.
    pub(crate) after: Option<f64>,
    pub(crate) all: f64,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Absent {
    pub(crate) name: String,
    /// None: of all.
    pub(crate) subject: Option<String>,
    pub(crate) reason: String,
}

/// The beginning of a file of any version.
#[derive(Deserialize)]
struct Head {
    schema: Option<String>,
    version: Option<u32>,
}

impl Results {
    /// As JSON, one value a line.
    pub(crate) fn to_json(&self) -> Result<String> {
        let mut json = serde_json::to_string_pretty(self)?;
        json.push('\n');
        Ok(json)
    }

    /// Reads a file that a benchmark wrote, and no other.
    pub(crate) fn read(path: &Path) -> Result<Self> {
        let text = fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
        Self::parse(&text).with_context(|| format!("cannot use {}", path.display()))
    }

    pub(crate) fn parse(text: &str) -> Result<Self> {
        let head: Head =
            serde_json::from_str(text).context("it is not whole, or no JSON (results.json is expected)")?;
        match (head.schema.as_deref(), head.version) {
            (Some(SCHEMA), Some(1..=VERSION)) => {}
            (Some(SCHEMA), Some(newer)) if newer > VERSION => {
                bail!("it has version {newer} of the schema, known here are those up to {VERSION}: use a newer amphora")
            }
            (Some(SCHEMA), version) => {
                bail!("it has version {version:?} of the schema, and 1 to {VERSION} are expected")
            }
            (found, _) => bail!("it is no results.json of `amphora bench`: its schema is {found:?}, not {SCHEMA:?}"),
        }
        let results: Self = serde_json::from_str(text).context("it does not have the form of its version")?;
        results.check()?;
        Ok(results)
    }

    /// That its figures are those of its samples: a file that somebody has edited says neither.
    fn check(&self) -> Result<()> {
        for (index, row) in self.rows.iter().enumerate() {
            let what = || format!("the row of {} with {} ({})", row.contender, row.subject, row.temperature.name());
            let figures = row.samples.iter().flat_map(|sample| [sample.wall_ms, sample.first_byte_ms.unwrap_or(0.0)]);
            ensure!(!row.samples.is_empty(), "{} has no samples", what());
            ensure!(figures.into_iter().all(|figure| figure >= 0.0), "{} has a time below nothing", what());
            let edited = "somebody has edited it";
            let is_plain = |name: &str| !name.chars().any(char::is_control);
            ensure!(is_plain(&row.contender) && is_plain(&row.subject), "{:?} is no name; {edited}", row.contender);
            ensure!(row.start.is_of(&row.walls()), "{}: its figures are not those of its samples; {edited}", what());
            let first_bytes: Vec<f64> = row.samples.iter().filter_map(|sample| sample.first_byte_ms).collect();
            let is_same = row.first_byte.map_or(first_bytes.is_empty(), |first| first.is_of(&first_bytes));
            ensure!(is_same, "{}: its first bytes are not those of its samples; {edited}", what());
            let is_known = self.subjects.iter().any(|subject| subject.name == row.subject);
            ensure!(is_known, "{}: it is about an image that the file does not name; {edited}", what());
            let same = self.rows[..index].iter().any(|other| other.is_about_the_same_as(row));
            ensure!(!same, "{} is there twice; {edited}", what());
        }
        ensure!(self.memory.iter().all(|one| one.count > 0), "it has memory of none at once");
        Ok(())
    }

    /// The row of one contender.
    pub(crate) fn row(&self, subject: &str, temperature: Temperature, until: Until, contender: &str) -> Option<&Row> {
        self.rows.iter().find(|row| {
            row.subject == subject && row.temperature == temperature && row.until == until && row.contender == contender
        })
    }

    /// All rows, those that are compared with each other together, the fastest first.
    pub(crate) fn tables(&self) -> Vec<Table<'_>> {
        let mut tables = Vec::new();
        for until in Until::ALL {
            for temperature in [Temperature::Warm, Temperature::Cold] {
                for subject in &self.subjects {
                    let belongs = |row: &&Row| {
                        row.subject == subject.name && row.temperature == temperature && row.until == until
                    };
                    let mut rows: Vec<&Row> = self.rows.iter().filter(belongs).collect();
                    rows.sort_by(|one, other| one.start.median.total_cmp(&other.start.median));
                    if !rows.is_empty() {
                        tables.push(Table { subject, temperature, until, rows });
                    }
                }
            }
        }
        tables
    }

    /// Whether anything was measured.
    pub(crate) fn is_empty(&self) -> bool {
        self.rows.is_empty()
            && self.sizes.is_empty()
            && self.stages.is_empty()
            && self.rates.is_empty()
            && self.memory.is_empty()
            && self.traces.is_empty()
    }
}

/// Rows that are compared with each other.
pub(crate) struct Table<'r> {
    pub(crate) subject: &'r Subject,
    pub(crate) temperature: Temperature,
    pub(crate) until: Until,
    pub(crate) rows: Vec<&'r Row>,
}

impl Table<'_> {
    pub(crate) fn title(&self) -> String {
        format!("{} ({}), {}{}", self.subject.name, self.subject.kind, self.temperature.name(), self.until.title())
    }

    /// Of command to exit, with everything in its caches: what is said first.
    pub(crate) fn is_usual(&self) -> bool {
        self.temperature == Temperature::Warm && self.until == Until::Exit
    }
}

impl Row {
    pub(crate) fn is_about_the_same_as(&self, other: &Self) -> bool {
        let key = |row: &Self| (row.subject.clone(), row.temperature, row.until, row.contender.clone());
        key(self) == key(other)
    }

    pub(crate) fn walls(&self) -> Vec<f64> {
        self.samples.iter().map(|sample| sample.wall_ms).collect()
    }

    /// Median of a figure of each run.
    pub(crate) fn median_of(&self, figure: impl Fn(&Sample) -> f64) -> f64 {
        statistics::median(&self.samples.iter().map(figure).collect::<Vec<f64>>())
    }
}

impl Confinement {
    /// In one line, alike for all: `mnt ✓ pid ✓ net – …`.
    pub(crate) fn sentence(&self) -> String {
        let sign = |is: bool| if is { "✓" } else { "–" };
        let mut words: Vec<String> = ["mnt", "pid", "net", "ipc", "uts", "user"]
            .iter()
            .map(|name| format!("{name} {}", sign(self.namespaces.iter().any(|found| found == name))))
            .collect();
        words.push(format!("cgroup {}", sign(self.cgroup)));
        words.push(format!("seccomp {}", sign(self.seccomp != 0)));
        words.push(format!("nnp {}", sign(self.no_new_privileges)));
        words.push(format!("caps {}", self.capabilities));
        words.push(format!("masks {}", self.masks));
        words.join(" ")
    }
}

impl Got {
    pub(crate) fn sentence(&self) -> String {
        match self {
            Self::Seen(confinement) => confinement.sentence(),
            Self::Unseen(reason) => format!("not seen: {reason}"),
        }
    }
}
