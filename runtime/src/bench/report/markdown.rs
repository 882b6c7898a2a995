//! For README and for whoever quotes it.

use super::{cells, failures, headings, introduction, milliseconds, size, trace};
use crate::bench::results::{Absent, Results};

pub(super) fn markdown(results: &Results) -> String {
    let mut text = format!("{}.\n", introduction(results));
    for one in results.tables() {
        let mut headings = headings(&one);
        headings[0] = one.title();
        text += &table(&headings, &one.rows.iter().map(|row| cells(row)).collect::<Vec<Vec<String>>>());
        let notes = one.rows.iter().filter_map(|row| Some(format!("{}: {}", row.contender, failures(row)?)));
        notes.for_each(|note| text += &format!("\n{}\n", plain(&note)));
    }
    text += &others(results);
    text += "\nWhat each process got:\n\n";
    for one in results.tables().iter().filter(|one| one.is_usual()) {
        for row in &one.rows {
            let words = [row.contender.as_str(), &row.subject, &row.got.sentence()].map(plain);
            text += &format!("- {} with {}: {}\n", words[0], words[1], words[2]);
        }
    }
    for program in results.contenders.iter().filter(|program| program.note.is_some()) {
        text += &format!("- {} runs {}\n", plain(&program.name), program.note.as_deref().unwrap_or(""));
    }
    for stages in &results.stages {
        let list: Vec<String> = stages.medians.iter().map(|(name, median)| format!("{name} {median:.0}")).collect();
        text += &format!("\nStages of `amphora run {}`, in µs: {}.\n", stages.subject, list.join(", "));
    }
    results.remarks.iter().for_each(|remark| text += &format!("\nNote: {}.\n", plain(remark)));
    if !results.absent.is_empty() {
        let list: Vec<String> = results.absent.iter().map(Absent::sentence).collect();
        text += &format!("\nNot measured: {}.\n", plain(&list.join("; ")));
    }
    text += "\n<details><summary>Commands, programs and mitigations</summary>\n\n";
    results.rows.iter().for_each(|row| text += &format!("    {}\n", row.command.replace('\n', "\\n")));
    text += "\n";
    for program in &results.contenders {
        text += &format!("- {}: {}, {}\n", plain(&program.name), plain(&program.version), program.digest);
    }
    results
        .machine
        .mitigations
        .iter()
        .for_each(|[name, state]| text += &format!("- {}: {}\n", plain(name), plain(state)));
    text += "\n</details>\n";
    text
}

/// Sizes, rates and memory.
fn others(results: &Results) -> String {
    let mut text = String::new();
    if !results.sizes.is_empty() {
        let rows = results.sizes.iter().map(|one| {
            vec![
                format!("{} with {}", one.contender, one.subject),
                size(one.compressed),
                size(one.unpacked),
                size(one.compiled),
                size(one.resident),
            ]
        });
        text += &table(&owned(&["size", "compressed", "unpacked", "compiled", "resident"]), &rows.collect::<Vec<_>>());
    }
    if !results.rates.is_empty() {
        let rows = results.rates.iter().map(|one| {
            vec![
                format!("{} with {}", one.contender, one.subject),
                one.at_a_time.to_string(),
                format!("{:.1}", one.per_second),
                milliseconds(one.cpu_ms_per_start),
                one.failures.to_string(),
            ]
        });
        let headings = ["rate", "at a time", "starts/s", "machine CPU ms a start", "failed"];
        text += &table(&owned(&headings), &rows.collect::<Vec<_>>());
    }
    if !results.memory.is_empty() {
        let rows = results.memory.iter().map(|one| {
            vec![
                format!("{} with {}", one.contender, one.subject),
                one.count.to_string(),
                size(Some(one.pss_bytes / one.count as u64)),
                format!("{:.1} kB", one.kernel_bytes as f64 / one.count as f64 / 1e3),
                one.processes.to_string(),
            ]
        });
        let headings = ["memory", "at once", "PSS of each", "kernel memory of each", "processes"];
        text += &table(&owned(&headings), &rows.collect::<Vec<_>>());
    }
    if !results.traces.is_empty() {
        let rows = results.traces.iter().map(|one| vec![format!("{} with {}", one.contender, one.subject), trace(one)]);
        text += &table(&owned(&["trace", "medians"]), &rows.collect::<Vec<_>>());
    }
    text
}

fn owned(words: &[&str]) -> Vec<String> {
    words.iter().map(|word| (*word).to_owned()).collect()
}

fn table(headings: &[String], rows: &[Vec<String>]) -> String {
    let line =
        |cells: &[String]| format!("| {} |\n", cells.iter().map(|cell| plain(cell)).collect::<Vec<_>>().join(" | "));
    let mut text = format!("\n{}|---|{}\n", line(headings), "--:|".repeat(headings.len() - 1));
    rows.iter().for_each(|row| text += &line(row));
    text
}

/// Text that is no Markdown, in one line.
fn plain(text: &str) -> String {
    let mut plain = String::new();
    for character in text.chars() {
        match character {
            '|' | '<' | '>' | '*' | '`' | '[' | ']' | '\\' => plain.extend(['\\', character]),
            '\n' | '\r' | '\t' => plain.push(' '),
            character if character.is_control() => {}
            character => plain.push(character),
        }
    }
    plain
}
