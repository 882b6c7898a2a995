//! A line of numbers as a picture.

use std::fmt::Write;

/// An SVG of values at equal distances.
pub(super) fn svg(title: &str, unit: &str, values: &[u64]) -> String {
    let (width, height, edge) = (800.0, 300.0, 40.0);
    let most = values.iter().copied().max().unwrap_or(0).max(1) as f64;
    let step = (width - 2.0 * edge) / (values.len().saturating_sub(1).max(1) as f64);
    let mut points = String::new();
    for (number, value) in values.iter().enumerate() {
        let (x, y) = (edge + step * number as f64, height - edge - (height - 2.0 * edge) * *value as f64 / most);
        _ = write!(points, "{x:.1},{y:.1} ");
    }
    format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {width} {height}\" font-family=\"sans-serif\" font-size=\"12\">\n\
         <text x=\"{edge}\" y=\"20\">{title}; the highest is {most} {unit}</text>\n\
         <rect x=\"{edge}\" y=\"{edge}\" width=\"{}\" height=\"{}\" fill=\"none\" stroke=\"#999\"/>\n\
         <polyline fill=\"none\" stroke=\"#06c\" points=\"{}\"/>\n</svg>\n",
        width - 2.0 * edge,
        height - 2.0 * edge,
        points.trim_end()
    )
}

#[cfg(test)]
mod tests {
    use super::svg;

    #[test]
    fn the_highest_is_at_the_top_and_nothing_is_at_the_bottom() {
        let picture = svg("memory", "KiB", &[0, 10, 5]);
        assert!(picture.contains("points=\"40.0,260.0 400.0,40.0 760.0,150.0\""), "{picture}");
        assert!(svg("memory", "KiB", &[]).contains("points=\"\""));
    }
}
