//! How slow a registry may be.

use std::time::Duration;

/// Bounds of one request; what all requests of a pull may take together is the [`Budget`](crate::Budget)'s.
#[derive(Debug, Clone)]
pub struct Pace {
    /// How long the registry may take until a request is answered, status and headers; and the time over which
    /// `least_rate` is measured. Time in which this machine does not read, its disk being slower, does not count.
    pub window: Duration,
    /// Bytes a second, on average over a `window`, that a body must bring.
    pub least_rate: u64,
    /// How long one document (manifest, config, token) may take in all, repetitions left aside. A layer may take as
    /// long as the budget of the pull has time.
    pub document_time: Duration,
}

impl Default for Pace {
    /// 30 s, 1 KiB/s, two minutes.
    fn default() -> Self {
        Self { window: Duration::from_secs(30), least_rate: 1 << 10, document_time: Duration::from_secs(120) }
    }
}

impl Pace {
    /// What a `window` must bring.
    pub(super) fn least_bytes(&self) -> u64 {
        let bytes = u128::from(self.least_rate) * self.window.as_millis() / 1000;
        u64::try_from(bytes).unwrap_or(u64::MAX).max(1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_window_asks_for_at_least_a_byte() {
        let pace = Pace { window: Duration::from_millis(500), least_rate: 100, ..Pace::default() };
        assert_eq!(pace.least_bytes(), 50);
        assert_eq!(Pace { least_rate: 0, ..pace }.least_bytes(), 1);
    }
}
