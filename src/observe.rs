//! What the bridge shows of itself: metrics, health, the log, samples for the live page.
//!
//! - `metrics.rs`: every metric, in one table; `metrics/labels.rs`: the values of its labels.
//! - `health.rs`: started, able to hold clicks, draining.
//! - `log.rs`: the log, which never blocks a click.
//! - `redact.rs`: pure: hides e-mail addresses in text that is shown.
//! - `sampler.rs`: copies of a few records, while somebody looks at the page.

pub mod health;
pub(crate) mod log;
pub mod metrics;
pub(crate) mod redact;
pub(crate) mod sampler;

use std::sync::{Mutex, MutexGuard, PoisonError};

/// Locks a value that no panic can leave half changed.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
