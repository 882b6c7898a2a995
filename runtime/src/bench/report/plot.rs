//! Drawings in SVG: text stays text, and colours are those of Okabe and Ito, which colour-blind readers tell apart.

use std::fmt::Write;

use super::html::escape;
use crate::bench::{peers::OWN, results::Row};

/// In units of a drawing, which is as wide as a phone shows at its natural size, and a screen larger.
const WIDTH: f64 = 460.0;
const STRIP: f64 = 38.0;
const MARGIN: f64 = 12.0;

/// Every run of every row as a point, on one scale; the line is the median, the band its interval.
pub(super) fn strips(rows: &[&Row]) -> String {
    let most = rows.iter().map(|row| row.start.p99).fold(0.0, f64::max) * 1.05;
    let x = |value: f64| MARGIN + (value / most).min(1.0) * (WIDTH - 2.0 * MARGIN);
    let height = STRIP * rows.len() as f64 + 22.0;
    let mut svg = open(height, "Start to exit of every run, in milliseconds");
    for (index, row) in rows.iter().enumerate() {
        let top = STRIP * index as f64;
        let class = if row.contender == OWN { "own" } else { "other" };
        let beyond = row.samples.iter().filter(|sample| sample.wall_ms > most).count();
        let more = if beyond > 0 { format!(", {beyond} beyond") } else { String::new() };
        let label = format!("{}: {:.2} ms{more}", escape(&row.contender), row.start.median);
        let _ = write!(svg, r#"<text x="{MARGIN}" y="{:.1}">{label}</text>"#, top + 13.0);
        let [low, high] = row.start.interval.map(x);
        let width = (high - low).max(1.0);
        let _ =
            write!(svg, r#"<rect class="band" x="{low:.1}" y="{:.1}" width="{width:.1}" height="18"/>"#, top + 17.0);
        for sample in row.samples.iter().filter(|sample| sample.wall_ms <= most) {
            // Spread so that they do not cover each other: by the golden section, which repeats nothing.
            let y = top + 20.0 + (sample.round as f64 * 0.618).fract() * 12.0;
            let _ = write!(svg, r#"<circle class="{class}" cx="{:.1}" cy="{y:.1}" r="1.8"/>"#, x(sample.wall_ms));
        }
        let median = x(row.start.median);
        let _ = write!(svg, r#"<path class="median" d="M{median:.1} {:.1}v18"/>"#, top + 17.0);
    }
    axis(&mut svg, most, height);
    svg + "</svg>"
}

/// One point for each of several things: how fast it starts, how large it is. Points have numbers, and their names a list below, which
/// wraps as the page does.
pub(super) fn scatter(points: &[(String, f64, u64)]) -> String {
    let most = points.iter().map(|point| point.1).fold(0.0, f64::max) * 1.15;
    let largest = points.iter().map(|point| point.2).max().unwrap_or(1).max(10) as f64;
    let height = 220.0;
    let x = |value: f64| MARGIN + value / most * (WIDTH - 2.0 * MARGIN);
    // Sizes lie orders of magnitude apart.
    let y = |bytes: u64| 190.0 - (bytes.max(1) as f64).ln() / largest.ln() * 165.0;
    let mut svg = open(height, "Size, on a logarithmic scale, against start to exit in milliseconds");
    let places: Vec<[f64; 2]> = points.iter().map(|(_, start, bytes)| [x(*start), y(*bytes)]).collect();
    for (index, [left, top]) in places.iter().enumerate() {
        let class = if index % 2 == 0 { "own" } else { "other" };
        let _ = write!(svg, r#"<circle class="{class}" cx="{left:.1}" cy="{top:.1}" r="5"/>"#);
    }
    let mut taken: Vec<[f64; 2]> = Vec::new();
    for (index, point) in places.iter().enumerate() {
        let free = label_places(*point).find(|place| taken.iter().all(|other| !is_near(*place, *other)));
        // Where there is no room, the list says where it is.
        let Some([left, top]) = free else { continue };
        taken.push([left, top]);
        let number = index + 1;
        let _ = write!(svg, r#"<text x="{left:.1}" y="{top:.1}" text-anchor="middle">{number}</text>"#);
    }
    axis(&mut svg, most, height);
    svg += "</svg><ol>";
    for (name, start, bytes) in points {
        let _ = write!(svg, "<li>{}: {start:.1} ms, {}</li>", escape(name), crate::output::size(*bytes));
    }
    svg + "</ol>"
}

/// Where a point's number may stand, the best first: beside it, and then ever farther away.
fn label_places([left, top]: [f64; 2]) -> impl Iterator<Item = [f64; 2]> {
    let directions =
        [[1.0, 0.0], [-1.0, 0.0], [0.0, -1.0], [0.0, 1.0], [1.0, -1.0], [-1.0, -1.0], [1.0, 1.0], [-1.0, 1.0]];
    let places = (1..6).flat_map(move |distance| {
        let far = f64::from(distance) * LABEL;
        directions.map(|[right, down]| [left + right * far, top + 4.5 + down * far])
    });
    let is_inside = |[left, top]: &[f64; 2]| (10.0..WIDTH - 10.0).contains(left) && (14.0..196.0).contains(top);
    places.filter(is_inside)
}

/// A number's width and height, with some space around.
const LABEL: f64 = 17.0;

fn is_near([left, top]: [f64; 2], [other_left, other_top]: [f64; 2]) -> bool {
    (left - other_left).abs() < LABEL && (top - other_top).abs() < LABEL
}

fn open(height: f64, title: &str) -> String {
    format!(
        r#"<svg viewBox="0 0 {WIDTH} {height}" role="img" aria-label="{}"><title>{}</title>"#,
        escape(title),
        escape(title)
    )
}

/// Milliseconds along the lower edge.
fn axis(svg: &mut String, most: f64, height: f64) {
    let step = step(most);
    let count = most / step;
    let mut at = 0.0;
    while at <= count {
        let left = MARGIN + at / count * (WIDTH - 2.0 * MARGIN);
        let bottom = height - 17.0;
        let _ = write!(svg, r#"<path class="axis" d="M{left:.1} {bottom:.1}v4"/>"#);
        let _ = write!(
            svg,
            r#"<text class="tick" x="{left:.1}" y="{:.1}" text-anchor="middle">{}</text>"#,
            height - 3.0,
            at * step
        );
        at += 1.0;
    }
}

/// 1, 2 or 5 times a power of ten, so that there are some five steps.
fn step(most: f64) -> f64 {
    let power = 10_f64.powf((most / 5.0).log10().floor());
    let factor = most / 5.0 / power;
    power
        * if factor > 5.0 {
            10.0
        } else if factor > 2.0 {
            5.0
        } else if factor > 1.0 {
            2.0
        } else {
            1.0
        }
}

#[cfg(test)]
mod tests {
    use super::{scatter, step};

    #[test]
    fn points_at_one_place_have_numbers_at_several() {
        let points: Vec<(String, f64, u64)> = (0..6).map(|index| (format!("<{index}>"), 5.0, 1 << 20)).collect();
        let svg = scatter(&points);
        let mut places: Vec<&str> =
            svg.split("<text x=").skip(1).filter_map(|rest| rest.split(" text-anchor").next()).collect();
        places.truncate(6);
        places.sort_unstable();
        places.dedup();
        assert_eq!(places.len(), 6, "{svg}");
        assert!(svg.contains("<li>&lt;5&gt;: 5.0 ms"), "{svg}");
    }

    #[test]
    fn steps_are_round() {
        for (most, expected) in [(5.0, 1.0), (6.0, 2.0), (13.0, 5.0), (40.0, 10.0), (470.0, 100.0), (600.0, 200.0)] {
            assert!((step(most) - expected).abs() < 1e-9, "{most}: {}", step(most));
        }
        assert!((step(0.4) - 0.1).abs() < 1e-9);
    }
}
