//! The results as a table for the terminal, as Markdown for README, and as JSON.

use crate::{
    budgets,
    contenders::Family,
    measure::Measured,
    stages::{Stages, machine},
};
use anyhow::Result;
use serde_json::{Value, json};
use std::fmt::Write;

/// Everything that a benchmark found.
pub(crate) struct Results {
    pub(crate) runs: usize,
    pub(crate) measured: Vec<Measured>,
    pub(crate) stages: Vec<Stages>,
    /// Who did not take part, and why.
    pub(crate) absent: Vec<String>,
}

const FAMILIES: [(Family, &str); 3] = [
    (Family::Linux, "Linux: a static hello"),
    (Family::Wasm, "Wasm: the same hello, compiled before"),
    (Family::WasmFirstRun, "Wasm: the same hello, nothing compiled yet"),
];
const HEADINGS: [&str; 9] =
    ["", "min ms", "median ms", "p99 ms", "÷ floor", "÷ amphora", "CPU ms", "÷ amphora", "minor faults"];

impl Results {
    /// Rows of one family: texts in the order of [`HEADINGS`]. Ratios are of medians.
    fn rows(&self, family: Family) -> Vec<[String; HEADINGS.len()]> {
        let members: Vec<&Measured> = self.measured.iter().filter(|measured| measured.family == family).collect();
        let named = |name: &str| members.iter().find(|measured| measured.name == name).copied();
        let (floor, own) = (named("floor"), named("amphora run"));
        let row = |measured: &&Measured| {
            let [min, median, p99] = [0.0, 0.5, 0.99].map(|fraction| format!("{:.2}", measured.wall_ms(fraction)));
            let wall = |base: Option<&Measured>| ratio(base, |one| one.wall_ms(0.5), measured);
            let cpu = format!("{:.2}", measured.cpu_ms());
            let cpu_ratio = ratio(own, Measured::cpu_ms, measured);
            let faults = format!("{:.0}", measured.minor_faults());
            [measured.name.clone(), min, median, p99, wall(floor), wall(own), cpu, cpu_ratio, faults]
        };
        members.iter().map(row).collect()
    }

    fn introduction(&self) -> String {
        format!("{} interleaved runs each on {}, warm caches; CPU time and faults are medians.", self.runs, machine())
    }

    /// For the terminal.
    pub(crate) fn as_text(&self) -> String {
        let mut text = format!("{}\n", self.introduction());
        for (family, title) in FAMILIES {
            text += &format!("\n{title}\n");
            for [name, cells @ ..] in std::iter::once(HEADINGS.map(str::to_owned)).chain(self.rows(family)) {
                text += &format!("  {name:<33}");
                cells.iter().for_each(|cell| text += &format!(" {cell:>11}"));
                text += "\n";
            }
        }
        text += "\nBudgets, as ratios of medians\n";
        for [what, allowed, reached, verdict] in budgets::rows(&self.measured) {
            text += &format!("  {what:<72} {allowed:>5} {reached:>5} {verdict}\n");
        }
        for stages in self.stages.iter().filter(|stages| !stages.medians.is_empty()) {
            text += &format!("\nStages of amphora run {} (median µs)\n", stages.image);
            stages.medians.iter().for_each(|(name, median)| text += &format!("  {name:<33} {median:>11.0}\n"));
        }
        self.absent.iter().for_each(|line| text += &format!("\nnot measured: {line}\n"));
        text
    }

    /// For README.
    pub(crate) fn as_markdown(&self) -> String {
        let mut text = format!("{}\n", self.introduction());
        for (family, title) in FAMILIES {
            let headings = HEADINGS.map(|heading| if heading.is_empty() { title } else { heading });
            text += &format!("\n| {} |\n|---|{}\n", headings.join(" | "), "--:|".repeat(HEADINGS.len() - 1));
            self.rows(family).iter().for_each(|row| text += &format!("| {} |\n", row.join(" | ")));
        }
        text += "\n| Budgets, as ratios of medians | at most | reached | |\n|---|--:|--:|---|\n";
        budgets::rows(&self.measured).iter().for_each(|row| text += &format!("| {} |\n", row.join(" | ")));
        for stages in self.stages.iter().filter(|stages| !stages.medians.is_empty()) {
            let list: Vec<String> = stages.medians.iter().map(|(name, median)| format!("{name} {median:.0}")).collect();
            text += &format!("\nStages of `amphora run {}`, in µs: {}.\n", stages.image, list.join(", "));
        }
        text += "\nThe floor is a C program that does nothing but make the same namespaces, mounts and masks. crun and runc \
                 get a plain directory as root and no seccomp filter, which is in their favour; amphora makes an overlay \
                 and installs its filter.\n";
        if !self.absent.is_empty() {
            let _ = writeln!(text, "\nNot measured: {}.", self.absent.join("; "));
        }
        text
    }

    /// For comparing two benchmarks.
    pub(crate) fn as_json(&self) -> Result<String> {
        let measured: Vec<Value> = self.measured.iter().map(|measured| {
            json!({
                "name": measured.name, "family": format!("{:?}", measured.family),
                "wall_ms": { "min": measured.wall_ms(0.0), "median": measured.wall_ms(0.5), "p99": measured.wall_ms(0.99) },
                "cpu_ms_median": measured.cpu_ms(), "minor_faults_median": measured.minor_faults(),
            })
        }).collect();
        let stages: Vec<Value> =
            self.stages.iter().map(|stages| json!({ "image": stages.image, "median_us": stages.medians })).collect();
        let document = json!({
            "runs": self.runs, "machine": machine(), "measured": measured, "stages": stages, "absent": self.absent,
        });
        Ok(serde_json::to_string_pretty(&document)?)
    }
}

/// How many times the base's figure one has; nothing where there is no base.
fn ratio(base: Option<&Measured>, figure: impl Fn(&Measured) -> f64, measured: &Measured) -> String {
    base.map_or(String::new(), |base| format!("{:.2}", figure(measured) / figure(base)))
}
