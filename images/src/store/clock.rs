//! The time of day in the form that OCI annotations use.

use chrono::{DateTime, SecondsFormat, Utc};
use std::time::SystemTime;

/// Now, in UTC, as RFC 3339 with nanoseconds, by which images have an order: `2026-03-01T12:00:00.123456789Z`.
pub(crate) fn now() -> String {
    DateTime::<Utc>::from(SystemTime::now()).to_rfc3339_opts(SecondsFormat::Nanos, true)
}
