//! What a prune says: a heading, what it removed, a line each, and how much space that gave back; as Docker does.

use anyhow::Result;

use crate::output;

/// What has been removed so far.
pub(super) struct Removed {
    what: &'static str,
    count: usize,
    bytes: u64,
}

impl Removed {
    /// `Containers`, `Volumes`.
    pub(super) fn of(what: &'static str) -> Self {
        Self { what, count: 0, bytes: 0 }
    }

    /// Says it at once, as what comes next may fail.
    pub(super) fn say(&mut self, name: &str, bytes: u64) -> Result<()> {
        if self.count == 0 {
            output::say(&format!("Deleted {}:", self.what))?;
        }
        (self.count, self.bytes) = (self.count + 1, self.bytes + bytes);
        output::say(name)
    }

    /// How much that gave back.
    pub(super) fn bytes(&self) -> u64 {
        self.bytes
    }

    /// The last line, and the exit code.
    pub(super) fn end(self) -> Result<u8> {
        let gap = if self.count > 0 { "\n" } else { "" };
        output::say(&format!("{gap}Total reclaimed space: {}", output::size(self.bytes)))?;
        Ok(0)
    }
}
