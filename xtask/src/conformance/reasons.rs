//! The names of tests that docs/conformance.md gives a reason for.

use crate::command::read_text;
use anyhow::Result;
use std::{collections::BTreeSet, path::Path};

/// First cells, in backquotes, of the rows of its tables.
pub(super) fn read(path: &Path) -> Result<BTreeSet<String>> {
    Ok(names(&read_text(path)?))
}

fn names(text: &str) -> BTreeSet<String> {
    let cells = text.lines().filter_map(|line| line.strip_prefix("| `")?.split_once("` |"));
    cells.map(|(name, _reason)| name.to_owned()).collect()
}

#[cfg(test)]
mod tests {
    #[test]
    fn names_are_the_first_cells() {
        let text = "| test | why |\n|---|---|\n| `a-b` | it `c` |\n`d`\n| `e` | x |\n";
        assert_eq!(super::names(text).into_iter().collect::<Vec<_>>(), ["a-b", "e"]);
    }
}
