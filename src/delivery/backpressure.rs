//! Senders whose clicks go behind those that the drain is taking to Kafka get their answers a little
//! later, the more of them there are. Who waits for an answer before the next click then comes no faster
//! than the drain gets through beside it; else some thousands of them keep a spool full for good, once it
//! was: what they write costs the CPU that it would take to empty it.
//!
//! Two cores with broker and load on them, 2,048 connections that send whenever they are answered, an
//! outage of five seconds: without this half a million events were on disk half a minute after it, with it all but
//! 200 of 230,000 went in four seconds, and nine of ten clicks took the direct way again.

use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use tokio::time::{Instant, sleep_until};

/// How much later an answer is for each sender that waits: all of them together come 20,000 times a second.
const EACH: Duration = Duration::from_micros(50);

/// Who comes whatever the answers are is not held up any longer.
const MOST: Duration = Duration::from_millis(100);

/// Less is not worth a timer, which goes by milliseconds.
const LEAST: Duration = Duration::from_millis(1);

/// How many senders wait.
#[derive(Debug, Default)]
pub struct Backpressure(AtomicU32);

/// One of them, until it is dropped.
pub(super) struct DelayedAnswer<'a>(&'a Backpressure);

impl Backpressure {
    pub(super) fn enter(&self) -> DelayedAnswer<'_> {
        self.0.fetch_add(1, Ordering::Relaxed);
        DelayedAnswer(self)
    }
}

impl DelayedAnswer<'_> {
    /// Waits as long as it takes with so many, at most until the deadline.
    pub(super) async fn pause(self, deadline: Instant) {
        let pause = pause(self.0.0.load(Ordering::Relaxed));
        if !pause.is_zero() {
            sleep_until(deadline.min(Instant::now() + pause)).await;
        }
    }
}

impl Drop for DelayedAnswer<'_> {
    fn drop(&mut self) {
        self.0.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Where so many wait.
fn pause(waiting: u32) -> Duration {
    let pause = EACH.saturating_mul(waiting).min(MOST);
    if pause < LEAST { Duration::ZERO } else { pause }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses() {
        for (waiting, milliseconds) in [
            (0, 0.0),
            (19, 0.0),
            (20, 1.0),
            (256, 12.8),
            (1_999, 99.95),
            (2_000, 100.0),
            (u32::MAX, 100.0),
        ] {
            let expected = Duration::from_secs_f64(milliseconds / 1e3);
            assert_eq!(pause(waiting), expected, "{waiting}");
        }
    }
}
