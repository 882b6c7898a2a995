//! What starts must reach, as ratios to others in one benchmark: met or missed.

use anyhow::{Context, Result};
use serde_json::Value;

/// How long one start may take, as a share of another's of the same image.
struct Budget {
    what: &'static str,
    subject: &'static str,
    temperature: &'static str,
    base: &'static str,
    share: f64,
}

const BUDGETS: [Budget; 5] = [
    Budget { what: "Linux", subject: "vessel:linux", temperature: "warm", base: "floor", share: 2.0 },
    Budget { what: "Linux", subject: "vessel:linux", temperature: "warm", base: "crun", share: 0.333 },
    Budget { what: "Linux", subject: "vessel:linux", temperature: "warm", base: "runc", share: 0.125 },
    Budget { what: "Wasm", subject: "vessel:wasm", temperature: "warm", base: "wasmtime", share: 0.4 },
    Budget { what: "Wasm, cold", subject: "vessel:wasm", temperature: "cold", base: "wasmtime", share: 1.0 },
];

/// A table in Markdown, of `results.json`.
pub(crate) fn table(results: &str) -> Result<String> {
    let results: Value = serde_json::from_str(results).context("results.json is no JSON")?;
    let mut text = "\n| Budgets, as ratios of medians | at most | reached | |\n|---|--:|--:|---|\n".to_owned();
    for budget in &BUDGETS {
        let median = |name: &str| median(&results, budget, name);
        let reached = median("amphora").zip(median(budget.base)).map(|(own, base)| own / base);
        let [reached, verdict] = verdict(reached, budget.share);
        let Budget { what, base, share, .. } = budget;
        text += &format!("| {what}: amphora ÷ {base} | {share:.3} | {reached} | {verdict} |\n");
    }
    Ok(text)
}

fn median(results: &Value, budget: &Budget, contender: &str) -> Option<f64> {
    let is_wanted = |row: &&Value| {
        row["subject"] == budget.subject && row["temperature"] == budget.temperature && row["contender"] == contender
    };
    results["rows"].as_array()?.iter().find(is_wanted)?["start"]["median"].as_f64()
}

fn verdict(reached: Option<f64>, allowed: f64) -> [String; 2] {
    match reached {
        Some(reached) if reached <= allowed => [format!("{reached:.2}"), "met".to_owned()],
        Some(reached) => [format!("{reached:.2}"), "**missed**".to_owned()],
        None => [String::new(), "not measured".to_owned()],
    }
}

#[cfg(test)]
mod tests {
    use super::{table, verdict};

    #[test]
    fn what_is_missed_is_said_as_plainly_as_what_is_met() {
        assert_eq!(verdict(Some(1.53), 2.0), ["1.53", "met"]);
        assert_eq!(verdict(Some(0.5), 0.333), ["0.50", "**missed**"]);
        assert_eq!(verdict(None, 0.4), ["", "not measured"]);
    }

    #[test]
    fn rows_are_found_by_subject_temperature_and_contender() {
        let row = |contender: &str, median: f64| {
            serde_json::json!({
                "subject": "vessel:linux", "temperature": "warm", "contender": contender, "start": { "median": median },
            })
        };
        let results = serde_json::json!({ "rows": [row("amphora", 5.0), row("floor", 4.0), row("crun", 10.0)] });
        let table = table(&results.to_string()).unwrap();
        assert!(table.contains("| Linux: amphora ÷ floor | 2.000 | 1.25 | met |"), "{table}");
        assert!(table.contains("| Linux: amphora ÷ crun | 0.333 | 0.50 | **missed** |"), "{table}");
        assert!(table.contains("| Wasm: amphora ÷ wasmtime | 0.400 |  | not measured |"), "{table}");
    }
}
