//! What is made of results: for a terminal, for README, for a spreadsheet, and for a browser.

mod csv;
mod html;
mod markdown;
mod plot;
mod text;

use std::{fs, path::Path};

use anyhow::{Context, Result};

pub(crate) use self::text::{comparison, text};
use super::{
    results::{Results, Row, Table, Trace, Until},
    statistics,
};

/// Makes the folder, and sees whether something can be written there: before anything is measured for it.
pub(crate) fn prepare(folder: &Path) -> Result<()> {
    fs::create_dir_all(folder).with_context(|| format!("cannot make {}", folder.display()))?;
    let trial = folder.join(".results.part");
    let written = fs::write(&trial, [b' '; 4096]).and_then(|()| fs::remove_file(&trial));
    written.inspect_err(|_| drop(fs::remove_file(&trial))).with_context(|| format!("cannot write {}", trial.display()))
}

/// Writes all forms into a folder, which need not be there; the names of the files.
pub(crate) fn write(results: &Results, folder: &Path) -> Result<Vec<&'static str>> {
    fs::create_dir_all(folder).with_context(|| format!("cannot make {}", folder.display()))?;
    let files = [
        ("results.json", results.to_json()?),
        ("results.csv", csv::csv(results)),
        ("report.md", markdown::markdown(results)),
        ("report.html", html::html(results)),
    ];
    for (name, text) in &files {
        let (path, part) = (folder.join(name), folder.join(format!(".{name}.part")));
        // Whole or not at all: results of an earlier benchmark may be there.
        let written = fs::write(&part, text).and_then(|()| fs::rename(&part, &path));
        written
            .inspect_err(|_| drop(fs::remove_file(&part)))
            .with_context(|| format!("cannot write {}", path.display()))?;
    }
    Ok(files.map(|(name, _)| name).to_vec())
}

/// What stands above the columns of a table of rows.
fn headings(table: &Table<'_>) -> Vec<String> {
    let mut headings = HEADINGS.map(str::to_owned).to_vec();
    headings[FIRST_BYTE] = match table.until {
        Until::Exit => "first byte",
        Until::Answer => "next request",
        Until::Ready => "–",
    }
    .to_owned();
    headings
}

/// The column whose meaning hangs on what is timed.
const FIRST_BYTE: usize = 7;
const HEADINGS: [&str; 12] = [
    "contender",
    "min ms",
    "median ms",
    "95 % interval",
    "p90",
    "p99",
    "÷ amphora",
    "first byte",
    "user ms",
    "system ms",
    "machine ms",
    "faults",
];

/// One row's cells, in the order of [`HEADINGS`].
fn cells(row: &Row) -> Vec<String> {
    let figure = |value: f64| format!("{value:.2}");
    let requests: Vec<f64> = row.samples.iter().filter_map(|sample| sample.request_ms).collect();
    let request = (!requests.is_empty()).then(|| statistics::median(&requests));
    let [low, high] = row.start.interval;
    let ratio = row.ratio.map_or_else(String::new, |ratio| {
        let [low, high] = ratio.interval;
        format!("{:.2} ({low:.2}–{high:.2})", ratio.median)
    });
    vec![
        row.contender.clone(),
        figure(row.start.min),
        figure(row.start.median),
        format!("{low:.2}–{high:.2}"),
        figure(row.start.p90),
        figure(row.start.p99),
        ratio,
        milliseconds(row.first_byte.map(|first| first.median).or(request)),
        figure(row.median_of(|sample| sample.user_ms)),
        figure(row.median_of(|sample| sample.system_ms)),
        figure(row.machine_cpu_ms),
        format!("{:.0}", row.median_of(|sample| sample.minor_faults as f64)),
    ]
}

/// What else has to be said of a row, if anything.
fn failures(row: &Row) -> Option<String> {
    let all = row.failures + row.samples.len();
    let reason = row.first_failure.as_deref().unwrap_or("");
    (row.failures > 0).then(|| format!("{} of {all} runs failed, and do not count: {reason}", row.failures))
}

/// Parts of the time of a contender's runs as the kernel saw them, in one line.
fn trace(trace: &Trace) -> String {
    let parts = [("until the program", trace.before), ("program", trace.program), ("after it", trace.after)];
    let parts: Vec<String> =
        parts.iter().filter_map(|(name, micros)| micros.map(|micros| format!("{name} {micros:.0}"))).collect();
    let parts = if parts.is_empty() { String::new() } else { format!(" ({})", parts.join(", ")) };
    let (processes, executions) = (trace.processes, trace.executions);
    format!("{:.0} µs{parts}, {processes:.0} processes and threads, {executions:.0} executions", trace.all)
}

/// What was measured where, in one sentence.
fn introduction(results: &Results) -> String {
    let (machine, settings) = (&results.machine, &results.settings);
    let place = match (machine.is_container, machine.is_virtual) {
        (true, _) => ", in a container",
        (false, true) => ", a virtual machine",
        (false, false) => "",
    };
    format!(
        "amphora {} on {}, {} cores{place}, Linux {}, {}; {} interleaved runs ({} cold) in an order drawn from seed {}; store on {}, \
         state on {}, as {}",
        results.tool.version,
        machine.cpu,
        machine.cores,
        machine.kernel,
        machine.cgroups,
        settings.runs,
        settings.cold_runs,
        settings.seed,
        machine.store_file_system,
        machine.state_file_system,
        machine.user
    )
}

/// Milliseconds, or a dash.
fn milliseconds(value: Option<f64>) -> String {
    value.map_or_else(|| "–".to_owned(), |value| format!("{value:.2}"))
}

/// A size, or a dash.
fn size(bytes: Option<u64>) -> String {
    bytes.map_or_else(|| "–".to_owned(), crate::output::size)
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::{
        bench::{
            results::{
                Absent, Confinement, Got, Machine, Memory, Program, Rate, SCHEMA, Sample, Settings, Size, Stages,
                Subject, Temperature, Tool, Trace, Until, VERSION,
            },
            statistics::{self, Summary},
        },
        spec::Kind,
    };

    /// Results with something of everything.
    pub(crate) fn example() -> Results {
        let mut random = fastrand::Rng::with_seed(7);
        let mut results = Results {
            schema: SCHEMA.to_owned(),
            version: VERSION,
            tool: Tool { version: "0.1.0".to_owned(), digest: "sha256:00".to_owned() },
            began: "2026-01-01T00:00:00Z".to_owned(),
            settings: Settings {
                runs: 40,
                cold_runs: 10,
                warm_up_runs: 2,
                seed: 7,
                timeout_seconds: 60,
                drop_caches: false,
                allow_failure: false,
                command: "amphora bench".to_owned(),
            },
            partial: false,
            machine: machine(),
            subjects: vec![subject("vessel:linux", Kind::Linux), subject("vessel:wasm", Kind::Wasm)],
            contenders: vec![program("amphora"), program("<script>crun</script>")],
            rows: Vec::new(),
            stages: vec![Stages {
                subject: "vessel:wasm".to_owned(),
                medians: vec![("resolve".to_owned(), 100.0), ("spawn".to_owned(), 500.0)],
            }],
            sizes: vec![Size {
                subject: "vessel:wasm".to_owned(),
                contender: "amphora".to_owned(),
                compressed: Some(1000),
                unpacked: Some(4000),
                compiled: Some(20_000),
                resident: Some(9_000_000),
            }],
            rates: vec![Rate {
                subject: "vessel:linux".to_owned(),
                contender: "amphora".to_owned(),
                at_a_time: 2,
                starts: 500,
                seconds: 2.0,
                per_second: 250.0,
                cpu_ms_per_start: Some(5.0),
                failures: 0,
            }],
            memory: vec![Memory {
                subject: "vessel:linux".to_owned(),
                contender: "amphora".to_owned(),
                count: 10,
                pss_bytes: 20_000_000,
                kernel_bytes: 5_000_000,
                processes: 20,
            }],
            traces: vec![Trace {
                subject: "vessel:linux".to_owned(),
                contender: "amphora".to_owned(),
                processes: 2.0,
                executions: 3.0,
                before: Some(2000.0),
                program: Some(100.0),
                after: Some(900.0),
                all: 3000.0,
            }],
            absent: vec![Absent { name: "youki".to_owned(), subject: None, reason: "not found on PATH".to_owned() }],
            remarks: vec!["a remark".to_owned()],
        };
        for (subject, temperature, contender, base) in [
            ("vessel:linux", Temperature::Warm, "amphora", 5.0),
            ("vessel:linux", Temperature::Warm, "<script>crun</script>", 12.0),
            ("vessel:linux", Temperature::Cold, "amphora", 30.0),
            ("vessel:wasm", Temperature::Warm, "amphora", 2.0),
        ] {
            results.rows.push(row(subject, temperature, contender, base, &mut random));
        }
        for (subject, until, base) in [("vessel:wasm", Until::Answer, 8.0), ("vessel:linux", Until::Ready, 90.0)] {
            let mut row =
                Row { until, first_byte: None, ..row(subject, Temperature::Warm, "amphora", base, &mut random) };
            for sample in &mut row.samples {
                sample.first_byte_ms = None;
                sample.request_ms = (until == Until::Answer).then_some(0.25);
            }
            results.rows.push(row);
        }
        let own = results.rows[0].walls();
        for row in &mut results.rows {
            row.ratio = statistics::ratio(&row.walls(), &own, &mut random);
        }
        results
    }

    fn row(subject: &str, temperature: Temperature, contender: &str, base: f64, random: &mut fastrand::Rng) -> Row {
        let sample = |round: u32| Sample {
            round: round as usize,
            wall_ms: base * (1.0 + 0.02 * f64::from(round * 7 % 10)),
            first_byte_ms: Some(base * 0.8),
            request_ms: None,
            user_ms: base * 0.3,
            system_ms: base * 0.5,
            minor_faults: 120,
        };
        let samples: Vec<Sample> = (0..40).map(sample).collect();
        let walls: Vec<f64> = samples.iter().map(|sample| sample.wall_ms).collect();
        Row {
            subject: subject.to_owned(),
            temperature,
            until: Until::Exit,
            contender: contender.to_owned(),
            command: format!("{contender} run 'a b' | c"),
            start: Summary::of(&walls, random).unwrap(),
            first_byte: Summary::of(&[base * 0.8; 40], random),
            samples,
            ratio: None,
            machine_cpu_ms: base,
            got: Got::Seen(Confinement { namespaces: vec!["net".to_owned()], seccomp: 2, ..Confinement::default() }),
            failures: 1,
            first_failure: Some("it ended with 1 instead of 0".to_owned()),
        }
    }

    fn machine() -> Machine {
        Machine {
            kernel: "6.1".to_owned(),
            kernel_build: "#1".to_owned(),
            architecture: "x86_64".to_owned(),
            cpu: "A CPU".to_owned(),
            cores: 2,
            memory_bytes: 1 << 34,
            cgroups: "v2".to_owned(),
            user: "root".to_owned(),
            store_file_system: "ext4".to_owned(),
            state_file_system: "tmpfs".to_owned(),
            governor: "performance".to_owned(),
            mitigations: vec![["retbleed".to_owned(), "Mitigation: x".to_owned()]],
            clock_source: "tsc".to_owned(),
            huge_pages: "madvise".to_owned(),
            is_virtual: true,
            is_container: false,
            load_before: Some(0.1),
            steal: 0.001,
        }
    }

    fn subject(name: &str, kind: Kind) -> Subject {
        let (digest, output) = ("sha256:11".to_owned(), Some("sha256:22".to_owned()));
        Subject { name: name.to_owned(), kind, digest, arguments: Vec::new(), exit_code: 0, output }
    }

    fn program(name: &str) -> Program {
        let note = name.contains("crun").then(|| "without a cgroup".to_owned());
        Program {
            name: name.to_owned(),
            path: format!("/usr/bin/{name}"),
            version: "1".to_owned(),
            digest: "sha256:33".to_owned(),
            bytes: 1000,
            note,
        }
    }

    #[test]
    fn every_form_has_every_row_with_its_command() {
        let results = example();
        for (form, text) in [("text", text(&results)), ("markdown", markdown::markdown(&results))] {
            for word in [
                "crun",
                "12.",
                "–",
                "youki",
                "a remark",
                "runs failed",
                "net ✓",
                "run 'a b'",
                "retbleed",
                "next request",
                "0.25",
                "3 executions",
            ] {
                assert!(text.contains(word), "{form} lacks {word}:\n{text}");
            }
        }
        let csv = csv::csv(&results);
        assert_eq!(csv.lines().count(), 1 + 6 * 40, "a line for each sample");
    }

    #[test]
    fn a_report_is_written_whole_or_its_place_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let written = write(&example(), &folder.path().join("a/b")).unwrap();
        let found = |name: &&str| folder.path().join("a/b").join(name).is_file();
        assert!(written.iter().all(found) && written.contains(&"results.json"));
        fs::write(folder.path().join("file"), "").unwrap();
        let error = write(&example(), &folder.path().join("file")).unwrap_err();
        assert!(format!("{error:#}").contains("cannot make"), "{error:#}");
    }
}
