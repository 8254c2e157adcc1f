//! What the bridge shows of itself: metrics, health, the log, samples for the live page.
//!
//! - `metrics.rs`: every metric, in one table; `metrics/labels.rs`: the values of its labels.
//! - `health.rs`: started, able to hold clicks, draining.
//! - `log.rs`: the log, which never blocks a click.
//! - `redact.rs`: pure: hides e-mail addresses in text that is shown.
//! - `sampler.rs`: copies of a few records, while somebody looks at the page.

pub mod health;
pub mod log;
pub mod metrics;
pub mod redact;
pub mod sampler;
