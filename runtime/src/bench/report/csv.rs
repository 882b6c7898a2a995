//! For a spreadsheet: one line for each run.

use crate::bench::results::{Results, Until};

const HEADER: &str =
    "subject,temperature,until,contender,round,wall_ms,first_byte_ms,request_ms,user_ms,system_ms,minor_faults\n";

pub(super) fn csv(results: &Results) -> String {
    let mut text = HEADER.to_owned();
    for row in &results.rows {
        let until = match row.until {
            Until::Exit => "exit",
            Until::Answer => "answer",
            Until::Ready => "ready",
        };
        let names = [row.subject.as_str(), row.temperature.name(), until, &row.contender].map(quoted).join(",");
        for sample in &row.samples {
            let figure = |figure: Option<f64>| figure.map_or_else(String::new, |figure| figure.to_string());
            let [first, request] = [sample.first_byte_ms, sample.request_ms].map(figure);
            text += &format!(
                "{names},{},{},{first},{request},{},{},{}\n",
                sample.round, sample.wall_ms, sample.user_ms, sample.system_ms, sample.minor_faults
            );
        }
    }
    text
}

/// A value as RFC 4180 has it. One that a spreadsheet would take for a formula begins with an apostrophe.
fn quoted(value: &str) -> String {
    let value = if value.starts_with(['=', '+', '-', '@']) { format!("'{value}") } else { value.to_owned() };
    match value.contains([',', '"', '\n', '\r']) {
        true => format!("\"{}\"", value.replace('"', "\"\"")),
        false => value,
    }
}

#[cfg(test)]
mod tests {
    use super::quoted;

    #[test]
    fn values_stay_values() {
        for (value, cell) in [("a", "a"), ("a,b", "\"a,b\""), ("a\"b", "\"a\"\"b\""), ("=1+1", "'=1+1")] {
            assert_eq!(quoted(value), cell);
        }
    }
}
