//! For a terminal.

use super::{cells, failures, headings, introduction, milliseconds, size, trace};
use crate::{
    bench::{
        compare::Comparison,
        results::{Absent, Results},
    },
    output,
};

pub(crate) fn text(results: &Results) -> String {
    let mut text = format!("{}.\n", introduction(results));
    for table in results.tables() {
        text += &format!("\n{}\n", table.title());
        let lines = std::iter::once(headings(&table)).chain(table.rows.iter().map(|row| cells(row)));
        text += &output::aligned(&lines.collect::<Vec<_>>());
        for row in &table.rows {
            failures(row).iter().for_each(|note| text += &format!("  {}: {note}\n", row.contender));
        }
        if table.is_usual() {
            let got = table.rows.iter().map(|row| vec![format!("  {}", row.contender), row.got.sentence()]);
            text += "what each process got:\n";
            text += &output::aligned(&got.collect::<Vec<_>>());
        }
    }
    text += &others(results);
    for program in &results.contenders {
        let note = program.note.as_ref().map_or_else(String::new, |note| format!("; {note}"));
        text += &format!("{}: {} ({}){note}\n", program.name, program.version, output::size(program.bytes));
    }
    let mitigations: Vec<&str> = results.machine.mitigations.iter().map(|[name, _]| name.as_str()).collect();
    text += &format!("\nmitigations in force or missing: {}\n", mitigations.join(", "));
    results.remarks.iter().for_each(|remark| text += &format!("{remark}\n"));
    results.absent.iter().map(Absent::sentence).for_each(|line| text += &format!("not measured: {line}\n"));
    text += "\ncommands:\n";
    let mut commands: Vec<&str> = results.rows.iter().map(|row| row.command.as_str()).collect();
    // Those of cold runs are at times the same, and then next to each other.
    commands.dedup();
    commands.iter().for_each(|command| text += &format!("  {command}\n"));
    text
}

/// Stages, sizes, rates and memory.
fn others(results: &Results) -> String {
    let mut text = String::new();
    for stages in &results.stages {
        let list: Vec<String> = stages.medians.iter().map(|(name, median)| format!("{name} {median:.0}")).collect();
        text += &format!("\nstages of amphora run {}, median µs: {}\n", stages.subject, list.join(", "));
    }
    let sizes = results.sizes.iter().map(|one| {
        let [compressed, unpacked, compiled, resident] =
            [one.compressed, one.unpacked, one.compiled, one.resident].map(size);
        vec![one.subject.clone(), one.contender.clone(), compressed, unpacked, compiled, resident]
    });
    text += &titled(&["SUBJECT", "SIZE WITH", "COMPRESSED", "UNPACKED", "COMPILED", "RESIDENT"], sizes.collect());
    let rates = results.rates.iter().map(|one| {
        let figures = [format!("{:.1}", one.per_second), milliseconds(one.cpu_ms_per_start)];
        let [per_second, cpu] = figures;
        let (subject, contender) = (one.subject.clone(), one.contender.clone());
        vec![subject, contender, one.at_a_time.to_string(), per_second, cpu, one.failures.to_string()]
    });
    text += &titled(&["SUBJECT", "RATE OF", "AT A TIME", "STARTS/S", "CPU MS", "FAILED"], rates.collect());
    let memory = results.memory.iter().map(|one| {
        let each = output::size(one.pss_bytes / one.count as u64);
        let kernel = format!("{:.1} kB", one.kernel_bytes as f64 / one.count as f64 / 1e3);
        let (subject, contender) = (one.subject.clone(), one.contender.clone());
        vec![subject, contender, one.count.to_string(), each, kernel, one.processes.to_string()]
    });
    text += &titled(&["SUBJECT", "MEMORY OF", "AT ONCE", "PSS EACH", "KERNEL EACH", "PROCESSES"], memory.collect());
    let traces = results.traces.iter().map(|one| vec![one.subject.clone(), one.contender.clone(), trace(one)]);
    text += &titled(&["SUBJECT", "TRACE OF", "MEDIANS"], traces.collect());
    text + "\n"
}

/// A table under its headings, if there is anything in it.
fn titled(headings: &[&str], rows: Vec<Vec<String>>) -> String {
    if rows.is_empty() {
        return String::new();
    }
    let headings = headings.iter().map(|heading| (*heading).to_owned()).collect();
    format!("\n{}", output::aligned(&std::iter::once(headings).chain(rows).collect::<Vec<_>>()))
}

/// What two benchmarks say together.
pub(crate) fn comparison(comparison: &Comparison) -> String {
    let rows = comparison.changes.iter().map(|change| {
        let [before, after] = change.medians.map(|median| format!("{median:.2}"));
        let [low, high] = change.interval;
        vec![
            change.subject.clone(),
            format!("{}{}", change.temperature.name(), change.until.title()),
            change.contender.clone(),
            before,
            after,
            format!("{:.3} ({low:.3}–{high:.3})", change.ratio),
            change.verdict.word().to_owned(),
        ]
    });
    let [before, after] = ["BEFORE", "AFTER"].map(|when| format!("{when} {}", comparison.unit));
    let headings = ["SUBJECT", "", "CONTENDER", &before, &after, "RATIO", ""];
    let mut text = titled(&headings, rows.collect()).trim_start().to_owned();
    comparison.unmatched.iter().chain(&comparison.remarks).for_each(|line| text += &format!("{line}\n"));
    text
}
