//! What one pull, load or import may take, all of its parts together.
//!
//! Bounds on parts do not bound their sum: a thousand headers of a megabyte each are a gigabyte. So whatever outlives
//! the entry, the document or the reply that it came from is charged to one budget, which is handed down from where the
//! command begins. Sums are chosen so that a process with a whole budget spent stays below 256 MiB.
//!
//! | bound | counts | given back |
//! |---|---|---|
//! | held | bytes kept in memory: names, attributes, documents (parsed: [`Budget::document`]) | when its [`Hold`] is dropped |
//! | windows | bytes that decompressors keep; waited for, not refused | when its [`Hold`] is dropped |
//! | documents | manifests, indexes, configs, tokens | never |
//! | entries | of archives, and directories that they left out | never |
//! | unpacked | bytes after decompression | never |
//! | steps | components that links in layers lead through | never |
//! | seconds | since the budget was made | never |

use std::{
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

/// What one value of a JSON document costs when it is parsed, at most: the largest of OCI's types, by the shortest text
/// that makes one.
const VALUE_BYTES: u64 = 192;

/// The bounds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Bytes kept in memory at any time.
    pub held_bytes: u64,
    /// Bytes that decompressors keep at any time; the most that a single one may need, too.
    pub window_bytes: u64,
    /// Documents read.
    pub documents: u64,
    /// Entries of archives.
    pub entries: u64,
    /// Bytes after decompression.
    pub unpacked_bytes: u64,
    /// Components of paths that links in layers lead through.
    pub steps: u64,
    /// How long it may take.
    pub time: Duration,
}

impl Default for Limits {
    /// Far above any image in use, far below what a small hostile one can claim.
    fn default() -> Self {
        Self {
            held_bytes: 64 << 20,
            window_bytes: 128 << 20,
            documents: 4096,
            entries: 8 << 20,
            unpacked_bytes: 128 << 30,
            // Two or three microseconds each.
            steps: 4 << 20,
            time: Duration::from_hours(12),
        }
    }
}

/// A bound was reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Exceeded {
    /// Memory.
    #[error("{what} would need more than {limit} bytes of memory together, the most for one pull, load or import")]
    Held {
        /// What asked for the last of it.
        what: &'static str,
        /// The bound.
        limit: u64,
    },
    /// A decompressor's memory.
    #[error("decompressing needs {found} bytes of memory, at most {limit} are possible: compress it at a lower level")]
    Window {
        /// What it asked for.
        found: u64,
        /// The bound.
        limit: u64,
    },
    /// A count.
    #[error("it has more than {limit} {unit}, the most for one pull, load or import")]
    Count {
        /// `documents`, `entries`, `bytes after decompression`, `steps through links`.
        unit: &'static str,
        /// The bound.
        limit: u64,
    },
    /// Time.
    #[error("it took more than {} seconds, the most for one pull, load or import", limit.as_secs())]
    Time {
        /// The bound.
        limit: Duration,
    },
}

/// What is left for one command. Clones share it.
#[derive(Debug, Clone)]
pub struct Budget(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    limits: Limits,
    start: Instant,
    spent: Mutex<Spent>,
    /// Told when windows are given back.
    window_free: Condvar,
}

#[derive(Debug, Default)]
struct Spent {
    held_bytes: u64,
    window_bytes: u64,
    documents: u64,
    entries: u64,
    unpacked_bytes: u64,
    steps: u64,
}

impl Default for Budget {
    fn default() -> Self {
        Self::new(Limits::default())
    }
}

impl Budget {
    /// A whole budget with other bounds than the usual ones.
    pub fn new(limits: Limits) -> Self {
        let (spent, window_free) = (Mutex::default(), Condvar::new());
        Self(Arc::new(Shared { limits, start: Instant::now(), spent, window_free }))
    }

    /// The bounds.
    pub fn limits(&self) -> &Limits {
        &self.0.limits
    }

    /// Charges bytes kept in memory until the guard is dropped. `what` completes "… would need more than".
    ///
    /// # Errors
    /// [`Exceeded::Held`].
    pub fn hold(&self, bytes: u64, what: &'static str) -> Result<Hold, Exceeded> {
        let mut hold = Hold { budget: self.clone(), bytes: 0, pool: Pool::Held };
        hold.grow(bytes, what)?;
        Ok(hold)
    }

    /// Counts a JSON document, and charges its bytes and what they take when parsed, until the guard is dropped.
    ///
    /// # Errors
    /// [`Exceeded::Count`], [`Exceeded::Held`].
    pub fn document(&self, json: &[u8], what: &'static str) -> Result<Hold, Exceeded> {
        self.count(|spent| &mut spent.documents, 1, self.0.limits.documents, "documents")?;
        self.hold(parsed_bytes(json), what)
    }

    /// Waits until a decompressor may keep so many bytes.
    ///
    /// # Errors
    /// [`Exceeded::Window`]: so many are never possible.
    pub fn window(&self, bytes: u64) -> Result<Hold, Exceeded> {
        let limit = self.0.limits.window_bytes;
        if bytes > limit {
            return Err(Exceeded::Window { found: bytes, limit });
        }
        let full = |spent: &mut Spent| spent.window_bytes + bytes > limit;
        let waited = self.0.window_free.wait_while(self.spent(), full);
        waited.unwrap_or_else(PoisonError::into_inner).window_bytes += bytes;
        Ok(Hold { budget: self.clone(), bytes, pool: Pool::Windows })
    }

    /// Charges entries of an archive.
    ///
    /// # Errors
    /// [`Exceeded::Count`].
    pub fn entries(&self, count: u64) -> Result<(), Exceeded> {
        self.count(|spent| &mut spent.entries, count, self.0.limits.entries, "entries")
    }

    /// Charges components of paths that links lead through.
    ///
    /// # Errors
    /// [`Exceeded::Count`].
    pub fn steps(&self, count: u64) -> Result<(), Exceeded> {
        self.count(|spent| &mut spent.steps, count, self.0.limits.steps, "steps through links")
    }

    /// Charges bytes after decompression.
    ///
    /// # Errors
    /// [`Exceeded::Count`].
    pub fn unpacked(&self, bytes: u64) -> Result<(), Exceeded> {
        let limit = self.0.limits.unpacked_bytes;
        self.count(|spent| &mut spent.unpacked_bytes, bytes, limit, "bytes after decompression")
    }

    /// What of the time is left.
    ///
    /// # Errors
    /// [`Exceeded::Time`]: nothing.
    pub fn time_left(&self) -> Result<Duration, Exceeded> {
        let limit = self.0.limits.time;
        let left = limit.checked_sub(self.0.start.elapsed()).filter(|left| !left.is_zero());
        left.ok_or(Exceeded::Time { limit })
    }

    fn count(
        &self,
        counter: impl Fn(&mut Spent) -> &mut u64,
        more: u64,
        limit: u64,
        unit: &'static str,
    ) -> Result<(), Exceeded> {
        let mut spent = self.spent();
        let counter = counter(&mut spent);
        *counter = counter.checked_add(more).filter(|&sum| sum <= limit).ok_or(Exceeded::Count { unit, limit })?;
        Ok(())
    }

    fn spent(&self) -> MutexGuard<'_, Spent> {
        // Numbers only: whoever panicked left them whole.
        self.0.spent.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Bytes charged to a budget; dropped, they are given back.
#[derive(Debug)]
pub struct Hold {
    budget: Budget,
    bytes: u64,
    pool: Pool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Pool {
    Held,
    Windows,
}

impl Hold {
    /// Charges more of what is held.
    ///
    /// # Errors
    /// [`Exceeded::Held`]: what was charged before stays charged.
    pub fn grow(&mut self, bytes: u64, what: &'static str) -> Result<(), Exceeded> {
        let limit = self.budget.0.limits.held_bytes;
        let mut spent = self.budget.spent();
        let sum = spent.held_bytes.checked_add(bytes).filter(|&sum| sum <= limit);
        spent.held_bytes = sum.ok_or(Exceeded::Held { what, limit })?;
        self.bytes += bytes;
        Ok(())
    }
}

impl Drop for Hold {
    fn drop(&mut self) {
        let mut spent = self.budget.spent();
        match self.pool {
            Pool::Held => spent.held_bytes -= self.bytes,
            Pool::Windows => {
                spent.window_bytes -= self.bytes;
                self.budget.0.window_free.notify_all();
            }
        }
    }
}

/// What a JSON document takes in memory together with its parsed form, at most.
pub fn parsed_bytes(json: &[u8]) -> u64 {
    // Every value follows one of these. Those within strings are counted too: it is a bound.
    let values = json.iter().filter(|byte| matches!(byte, b'{' | b'[' | b',' | b':')).count() as u64;
    2 * json.len() as u64 + values * VALUE_BYTES
}

#[cfg(test)]
mod memory;

#[cfg(test)]
mod tests {
    use super::*;

    fn small() -> Budget {
        Budget::new(Limits { held_bytes: 100, window_bytes: 10, documents: 2, entries: 3, ..Limits::default() })
    }

    #[test]
    fn what_is_held_is_given_back_and_what_is_counted_is_not() {
        let budget = small();
        let mut first = budget.hold(60, "names").unwrap();
        assert_eq!(budget.hold(41, "names").unwrap_err(), Exceeded::Held { what: "names", limit: 100 });
        first.grow(40, "names").unwrap();
        assert!(first.grow(1, "names").is_err());
        drop(first);
        drop(budget.hold(100, "names").unwrap());
        budget.entries(3).unwrap();
        assert_eq!(budget.entries(1).unwrap_err(), Exceeded::Count { unit: "entries", limit: 3 });
        assert!(budget.entries(u64::MAX).is_err());
        budget.document(b"1", "a").unwrap();
        budget.document(b"1", "a").unwrap();
        assert!(budget.document(b"1", "a").is_err());
    }

    #[test]
    fn a_window_is_waited_for() {
        let budget = small();
        assert!(budget.window(11).is_err());
        let first = budget.window(6).unwrap();
        std::thread::scope(|scope| {
            let second = scope.spawn(|| drop(budget.window(5).unwrap()));
            drop(first);
            second.join().unwrap();
        });
        assert_eq!(budget.spent().window_bytes, 0);
    }

    #[test]
    fn time_ends() {
        let budget = Budget::new(Limits { time: Duration::ZERO, ..Limits::default() });
        assert_eq!(budget.time_left(), Err(Exceeded::Time { limit: Duration::ZERO }));
        assert!(Budget::default().time_left().is_ok());
    }

    #[test]
    fn a_document_costs_what_its_parsed_form_takes() {
        assert_eq!(parsed_bytes(b""), 0);
        // 1 MiB of `{},` in a config's history is ten times that when parsed.
        assert!(parsed_bytes(&b"{},".repeat(350_000)) > 64 << 20);
        let ordinary = br#"{"mediaType":"application/vnd.oci.image.manifest.v1+json","size":7143}"#;
        assert!(parsed_bytes(ordinary) < 1200);
    }
}
