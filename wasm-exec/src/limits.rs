//! The memory limit: one sum over all linear memories and tables of a program, however many instances it is made of.

use std::sync::{
    Arc,
    atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
};
use wasmtime::ResourceLimiter;

/// Bytes that one table element takes in this process.
const TABLE_ELEMENT_BYTES: u64 = 8;

/// Instances, memories and tables that a program may have, of each. The sum limits what they hold; this limits what
/// they cost besides (each memory reserves 4 GiB of address space).
const MAX_ITEMS: usize = 1_000;

/// Counts what memories, tables and the garbage collector's heap come to, and refuses growth over the limit.
///
/// A refused growth is what the specification says it is: `memory.grow` and `table.grow` return -1. A growth that is
/// granted here and then fails for want of the system's own memory stays counted; nothing is ever given back before
/// the program ends, so the sum is also the peak.
///
/// Clones count together, so that a thread which watches the program can tell what it came to. Only the program's own
/// thread adds.
#[derive(Debug, Clone)]
pub(crate) struct MemorySum {
    limit_bytes: Option<u64>,
    counts: Arc<Counts>,
}

/// What several programs have together, which begin and end independently of each other.
///
/// Each has a [`MemorySum`] that is a part of it, and gives its part back when it ends.
#[derive(Debug, Clone)]
pub(crate) struct MemoryTotal {
    limit_bytes: Option<u64>,
    shared: Arc<Totals>,
}

#[derive(Debug, Default)]
struct Totals {
    used_bytes: AtomicU64,
    peak_bytes: AtomicU64,
    refused: AtomicBool,
}

impl MemoryTotal {
    pub(crate) fn new(limit_bytes: Option<u64>) -> Self {
        Self { limit_bytes, shared: Arc::default() }
    }

    /// What there is now.
    pub(crate) fn used_bytes(&self) -> u64 {
        self.shared.used_bytes.load(Relaxed)
    }

    /// Most that there was at once.
    pub(crate) fn peak_bytes(&self) -> u64 {
        self.shared.peak_bytes.load(Relaxed)
    }

    /// Whether anybody was refused anything.
    pub(crate) fn was_refused(&self) -> bool {
        self.shared.refused.load(Relaxed)
    }

    /// What all would have; an error if that is more than they may.
    fn grow(&self, by_bytes: u64) -> Result<(), u64> {
        let limit = self.limit_bytes.unwrap_or(u64::MAX);
        let fits = |used: u64| used.checked_add(by_bytes).filter(|wanted| *wanted <= limit);
        match self.shared.used_bytes.fetch_update(Relaxed, Relaxed, fits) {
            Ok(used) => {
                self.shared.peak_bytes.fetch_max(used.saturating_add(by_bytes), Relaxed);
                Ok(())
            }
            Err(used) => {
                self.shared.refused.store(true, Relaxed);
                Err(used.saturating_add(by_bytes))
            }
        }
    }
}

#[derive(Debug, Default)]
struct Counts {
    used_bytes: AtomicU64,
    /// What the last growth that was refused would have come to; 0 if there was none.
    refused_bytes: AtomicU64,
    /// The program has gone on with its work since.
    went_on: AtomicBool,
    /// What this is a part of.
    total: Option<MemoryTotal>,
}

impl Drop for Counts {
    fn drop(&mut self) {
        if let Some(total) = &self.total {
            total.shared.used_bytes.fetch_sub(*self.used_bytes.get_mut(), Relaxed);
        }
    }
}

impl MemorySum {
    pub(crate) fn new(limit_bytes: Option<u64>) -> Self {
        Self { limit_bytes, counts: Arc::default() }
    }

    /// One that ends before others do, with which it shares their limit.
    pub(crate) fn part_of(total: &MemoryTotal) -> Self {
        let mut counts = Counts::default();
        counts.total = Some(total.clone());
        Self { limit_bytes: total.limit_bytes, counts: Arc::new(counts) }
    }

    /// Most that there was at once.
    pub(crate) fn peak_bytes(&self) -> u64 {
        self.counts.used_bytes.load(Relaxed)
    }

    /// The limit and what the program wanted to have in all, of the last growth that was refused for the limit.
    pub(crate) fn refused(&self) -> Option<(u64, u64)> {
        let wanted = self.counts.refused_bytes.load(Relaxed);
        self.limit_bytes.filter(|_| wanted > 0).map(|limit| (limit, wanted))
    }

    /// The same, if the program has done nothing since by which one could see that it copes without.
    pub(crate) fn in_want(&self) -> Option<(u64, u64)> {
        self.refused().filter(|_| !self.counts.went_on.load(Relaxed))
    }

    /// The program does something that one which has no memory left, and complains of that, does not do: it has more memory,
    /// writes to its standard output, or works with files.
    pub(crate) fn goes_on(&self) {
        self.counts.went_on.store(true, Relaxed);
    }

    fn grow(&self, by_bytes: u64) -> bool {
        let wanted = self.peak_bytes().saturating_add(by_bytes);
        let refused = match &self.counts.total {
            Some(total) => total.grow(by_bytes).err(),
            None => self.limit_bytes.is_some_and(|limit| wanted > limit).then_some(wanted),
        };
        if let Some(wanted) = refused {
            self.counts.refused_bytes.store(wanted, Relaxed);
            self.counts.went_on.store(false, Relaxed);
            return false;
        }
        self.goes_on();
        self.counts.used_bytes.store(wanted, Relaxed);
        true
    }
}

impl ResourceLimiter for MemorySum {
    fn memory_growing(&mut self, current: usize, desired: usize, maximum: Option<usize>) -> wasmtime::Result<bool> {
        // Over its own maximum it fails whatever is said here, and must not be counted.
        Ok(within(desired, maximum) && self.grow(difference(current, desired)))
    }

    fn table_growing(&mut self, current: usize, desired: usize, maximum: Option<usize>) -> wasmtime::Result<bool> {
        let by = difference(current, desired).saturating_mul(TABLE_ELEMENT_BYTES);
        Ok(within(desired, maximum) && self.grow(by))
    }

    fn instances(&self) -> usize {
        MAX_ITEMS
    }

    fn tables(&self) -> usize {
        MAX_ITEMS
    }

    fn memories(&self) -> usize {
        MAX_ITEMS
    }
}

fn within(desired: usize, maximum: Option<usize>) -> bool {
    maximum.is_none_or(|maximum| desired <= maximum)
}

fn difference(current: usize, desired: usize) -> u64 {
    u64::try_from(desired.saturating_sub(current)).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memories_and_tables_share_one_sum() {
        let mut sum = MemorySum::new(Some(1000));
        assert!(sum.memory_growing(0, 600, None).unwrap());
        assert!(sum.table_growing(0, 40, None).unwrap());
        assert_eq!(sum.peak_bytes(), 920);
        assert_eq!(sum.refused(), None);
        assert!(!sum.memory_growing(600, 700, None).unwrap());
        assert_eq!(sum.refused(), Some((1000, 1020)));
        assert_eq!(sum.in_want(), Some((1000, 1020)));
        assert!(sum.table_growing(40, 50, None).unwrap());
        assert_eq!(sum.peak_bytes(), 1000);
        // It got less, and went on with that.
        assert_eq!((sum.refused(), sum.in_want()), (Some((1000, 1020)), None));
    }

    #[test]
    fn growth_over_an_items_own_maximum_is_neither_counted_nor_blamed_on_the_limit() {
        let mut sum = MemorySum::new(Some(1000));
        assert!(!sum.memory_growing(0, 900, Some(800)).unwrap());
        assert!(!sum.table_growing(0, 900, Some(800)).unwrap());
        assert_eq!((sum.peak_bytes(), sum.refused()), (0, None));
    }

    #[test]
    fn without_a_limit_everything_is_counted_and_granted() {
        let mut sum = MemorySum::new(None);
        assert!(sum.memory_growing(0, usize::MAX, None).unwrap());
        assert!(sum.table_growing(0, usize::MAX, None).unwrap());
        assert_eq!((sum.peak_bytes(), sum.refused()), (u64::MAX, None));
    }
}
