//! For a browser: one file that needs no other, no script and no network; light and dark, on a phone and on paper.

use std::fmt::Write;

use super::{cells, failures, headings, introduction, milliseconds, plot, size, trace};
use crate::bench::{
    peers::OWN,
    results::{Absent, Results, Row, Temperature, Until},
};

const STYLE: &str = include_str!("style.css");

pub(super) fn html(results: &Results) -> String {
    let mut page = format!(
        "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\"><meta name=\"viewport\" \
         content=\"width=device-width, initial-scale=1\"><title>amphora bench, {}</title><style>{STYLE}</style></head><body>\n",
        escape(&results.began)
    );
    page += "<main><h1>How fast images start</h1>\n";
    if results.partial {
        page += "<p class=\"partial\">This benchmark was interrupted: what is here is right, and not all.</p>\n";
    }
    let _ = writeln!(page, "<p class=\"lead\">{}</p>", escape(&sentence(results)));
    page += &bars(results);
    page += &distributions(results);
    page += &stages(results);
    page += &sizes(results);
    page += &tables(results);
    page += &method(results);
    page + "</main></body></html>\n"
}

/// Who starts how fast and how big.
fn sentence(results: &Results) -> String {
    let tables = results.tables();
    let parts = tables.iter().filter(|table| table.is_usual()).filter_map(|table| {
        let subject = table.subject;
        let own = table.rows.iter().find(|row| row.contender == OWN)?;
        let size = results.sizes.iter().find(|size| size.subject == subject.name && size.contender == OWN);
        let weighs = size.and_then(|size| size.compressed).map(crate::output::size);
        let weighs = weighs.map_or_else(String::new, |weighs| format!(" and weighs {weighs} as it is pulled"));
        Some(format!("{} ({}) starts and ends in {:.1} ms{weighs}", subject.name, subject.kind, own.start.median))
    });
    let parts: Vec<String> = parts.collect();
    match parts.is_empty() {
        true => "No run of amphora itself was counted.".to_owned(),
        false => format!("With amphora, {}: medians on this machine, with everything in its caches.", parts.join("; ")),
    }
}

/// The first drawing: medians of warm starts. Of plain boxes, so that their words keep their size on a phone.
fn bars(results: &Results) -> String {
    let warm: Vec<_> = results.tables().into_iter().filter(|table| table.temperature == Temperature::Warm).collect();
    let mut text = String::new();
    for table in &warm {
        // Each on a scale of its own where something else is timed.
        let same = warm.iter().filter(|other| other.until == table.until).flat_map(|other| &other.rows);
        let most = same.map(|row| row.start.median).fold(0.0, f64::max);
        let what = match table.until {
            Until::Exit => ", start to exit",
            until => until.title(),
        };
        let (name, kind) = (escape(&table.subject.name), table.subject.kind);
        let _ = writeln!(text, "<h2>{name} <small>{kind}{what}</small></h2><div class=\"bars\">");
        let rows = &table.rows;
        for row in rows {
            let class = if row.contender == OWN { "own" } else { "other" };
            let share = row.start.median / most * 100.0;
            let times = row.ratio.filter(|_| row.contender != OWN);
            let times = times.map_or_else(String::new, |ratio| format!(", {:.2} times amphora", ratio.median));
            let _ = writeln!(
                text,
                "<div class=\"row\"><span>{}</span><span class=\"bar {class}\" style=\"width:{share:.1}%\"></span>\
                 <span>{:.2} ms{times}</span></div>",
                escape(&row.contender),
                row.start.median
            );
        }
        text += "</div>\n";
    }
    text
}

fn distributions(results: &Results) -> String {
    let mut text =
        "<h2>Every run</h2><p>A point is a run, the line the median, the band its 95 % interval.</p>\n".to_owned();
    for table in results.tables() {
        let _ = writeln!(text, "<h3>{}</h3>{}", escape(&table.title()), plot::strips(&table.rows));
    }
    text
}

fn stages(results: &Results) -> String {
    let mut text = String::new();
    for stages in results.stages.iter().filter(|stages| !stages.medians.is_empty()) {
        let all: f64 = stages.medians.iter().map(|stage| stage.1).sum();
        let _ = writeln!(text, "<h3>Stages of {}</h3><div class=\"bars\">", escape(&stages.subject));
        for (name, median) in &stages.medians {
            let share = if all > 0.0 { median / all * 100.0 } else { 0.0 };
            let _ = writeln!(
                text,
                "<div class=\"row\"><span>{}</span><span class=\"bar own\" style=\"width:{share:.1}%\"></span>\
                 <span>{median:.0} µs</span></div>",
                escape(name)
            );
        }
        text += "</div>\n";
    }
    if text.is_empty() { text } else { format!("<h2>Where amphora's time goes</h2>\n{text}") }
}

fn sizes(results: &Results) -> String {
    let start = |subject: &str, contender: &str| {
        results.row(subject, Temperature::Warm, Until::Exit, contender).map(|row: &Row| row.start.median)
    };
    let points = results.sizes.iter().filter_map(|size| {
        let name = format!("{} with {}", size.subject, size.contender);
        Some((name, start(&size.subject, &size.contender)?, size.resident?))
    });
    let points: Vec<(String, f64, u64)> = points.collect();
    let mut text = String::new();
    if points.len() > 1 {
        let _ = writeln!(
            text,
            "<h2>Memory against start-up</h2><p>Up: the largest resident set of one of its processes.</p>{}",
            plot::scatter(&points)
        );
    }
    let rows = results.sizes.iter().map(|one| {
        let sizes = [one.compressed, one.unpacked, one.compiled, one.resident].map(size);
        [vec![one.subject.clone(), one.contender.clone()], sizes.to_vec()].concat()
    });
    text += &table(
        "Sizes",
        &["image", "with", "compressed", "unpacked", "compiled", "resident"],
        &rows.collect::<Vec<_>>(),
    );
    let rows = results.rates.iter().map(|one| {
        let figures = [one.at_a_time.to_string(), format!("{:.1}", one.per_second), milliseconds(one.cpu_ms_per_start)];
        [vec![one.subject.clone(), one.contender.clone()], figures.to_vec()].concat()
    });
    text += &table(
        "Starts in a second",
        &["image", "with", "at a time", "starts/s", "machine CPU ms"],
        &rows.collect::<Vec<_>>(),
    );
    let rows = results.memory.iter().map(|one| {
        let kernel = format!("{:.1} kB", one.kernel_bytes as f64 / one.count as f64 / 1e3);
        let figures = [one.count.to_string(), size(Some(one.pss_bytes / one.count as u64)), kernel];
        [vec![one.subject.clone(), one.contender.clone()], figures.to_vec()].concat()
    });
    text += &table(
        "Memory of many",
        &["image", "with", "at once", "PSS of each", "kernel of each"],
        &rows.collect::<Vec<_>>(),
    );
    let rows = results.traces.iter().map(|one| vec![one.subject.clone(), one.contender.clone(), trace(one)]);
    text + &table("What the kernel saw", &["image", "with", "medians"], &rows.collect::<Vec<_>>())
}

fn tables(results: &Results) -> String {
    let mut text = String::new();
    for one in results.tables() {
        let headings = headings(&one);
        let headings: Vec<&str> = headings.iter().map(String::as_str).collect();
        text += &table(&one.title(), &headings, &one.rows.iter().map(|row| cells(row)).collect::<Vec<_>>());
        text += "<ul>";
        for row in one.rows {
            let failed = failures(row).map_or_else(String::new, |failed| format!("; {failed}"));
            let _ = writeln!(
                text,
                "<li>{}: {}{}</li>",
                escape(&row.contender),
                escape(&row.got.sentence()),
                escape(&failed)
            );
        }
        text += "</ul>\n";
    }
    text
}

fn method(results: &Results) -> String {
    let mut text = format!("<h2>Method</h2><p>{}.</p>\n<ul>", escape(&introduction(results)));
    let absent = results.absent.iter().map(|absent: &Absent| format!("not measured: {}", absent.sentence()));
    for line in results.remarks.iter().cloned().chain(absent) {
        let _ = writeln!(text, "<li>{}</li>", escape(&line));
    }
    for program in &results.contenders {
        let note = program.note.as_ref().map_or_else(String::new, |note| format!(", {note}"));
        let line = format!("{}: {}, {}{note}", program.name, program.version, program.digest);
        let _ = writeln!(text, "<li>{}</li>", escape(&line));
    }
    for [name, state] in &results.machine.mitigations {
        let _ = writeln!(text, "<li>{}: {}</li>", escape(name), escape(state));
    }
    text += "</ul>\n<h2>Commands</h2>\n<pre>";
    for row in &results.rows {
        let _ = writeln!(text, "{}", escape(&row.command));
    }
    text + "</pre>\n"
}

fn table(title: &str, headings: &[&str], rows: &[Vec<String>]) -> String {
    if rows.is_empty() {
        return String::new();
    }
    let cells = |tag: &str, cells: &[String]| {
        cells.iter().map(|cell| format!("<{tag}>{}</{tag}>", escape(cell))).collect::<String>()
    };
    let headings: Vec<String> = headings.iter().map(|heading| (*heading).to_owned()).collect();
    let mut text =
        format!("<h3>{}</h3><div class=\"wide\"><table><tr>{}</tr>\n", escape(title), cells("th", &headings));
    rows.iter().for_each(|row| text += &format!("<tr>{}</tr>\n", cells("td", row)));
    text + "</table></div>\n"
}

/// Text that is no HTML, in elements and in quoted attributes.
pub(super) fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for character in text.chars() {
        match character {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' => escaped.push_str("&quot;"),
            '\'' => escaped.push_str("&#39;"),
            character if character.is_control() && character != '\n' => {}
            character => escaped.push(character),
        }
    }
    escaped
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::report::tests::example;

    #[test]
    fn a_page_stands_alone_and_names_are_no_markup() {
        let page = html(&example());
        assert!(!page.contains("<script"), "a contender's name became a script");
        assert!(page.contains("&lt;script&gt;crun"));
        for outside in ["http:", "https:", "src=", "@import", "url("] {
            assert!(!page.contains(outside), "{outside}");
        }
        assert!(!page.contains("NaN") && !page.contains("inf"), "a drawing without a scale");
        assert_eq!(page.matches("<svg").count(), page.matches("</svg>").count());
        assert_eq!(page.matches("<circle").count(), 240, "every run is a point");
    }

    #[test]
    fn a_page_of_nothing_is_a_page() {
        let mut results = example();
        results.rows.clear();
        results.partial = true;
        let page = html(&results);
        assert!(page.contains("was interrupted") && page.ends_with("</html>\n"), "{page}");
    }
}
