//! Columns that line up, as Docker's do.

/// Text between columns, at least.
const GAP: usize = 3;
/// No column but the last is narrower than this, its gap included.
const MINIMUM: usize = 10;

/// Aligns cells in columns; the last cell of a line is not padded. Widths count characters.
///
/// Docker's figures, which it hands to Go's text/tabwriter: three spaces between columns, ten characters at least.
pub(crate) fn align(lines: &[Vec<String>]) -> String {
    let widths = widths(lines);
    let mut text = String::new();
    for line in lines {
        for (index, cell) in line.iter().enumerate() {
            text.push_str(cell);
            if index + 1 < line.len() {
                text.extend(std::iter::repeat_n(' ', widths[index] - cell.chars().count()));
            }
        }
        text.push('\n');
    }
    text
}

fn widths(lines: &[Vec<String>]) -> Vec<usize> {
    let columns = lines.iter().map(Vec::len).max().unwrap_or(0);
    let width = |index: usize| {
        let padded = lines.iter().filter(|line| index + 1 < line.len());
        padded.map(|line| line[index].chars().count() + GAP).max().unwrap_or(0).max(MINIMUM)
    };
    (0..columns).map(width).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(lines: &[&[&str]]) -> Vec<Vec<String>> {
        lines.iter().map(|line| line.iter().map(|cell| (*cell).to_owned()).collect()).collect()
    }

    #[test]
    fn columns_have_room() {
        let text = align(&lines(&[&["A", "LONG HEADER", "B"], &["a long cell", "é", "x"]]));
        assert_eq!(text, "A             LONG HEADER   B\na long cell   é             x\n");
        assert_eq!(align(&lines(&[&["A", "B"]])), "A         B\n");
        assert_eq!(align(&lines(&[&["", "x"], &["only"]])), "          x\nonly\n");
        assert_eq!(align(&[]), "");
    }
}
