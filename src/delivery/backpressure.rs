//! The answer to a sender whose click goes behind the spool is delayed; the delay grows with the number
//! of such senders.
//!
//! A sender that waits for each answer then comes no faster than the forwarder can empty the spool beside
//! it. Without the delay some thousands of senders keep a full spool full for good: writing their clicks
//! takes the CPU that would empty it.
//!
//! On two cores shared with the broker and the load, with 2,048 connections and an outage of five
//! seconds, half a million events were on disk half a minute after it without the delay. With it all but
//! 200 of 230,000 were gone in four seconds, and nine of ten clicks went directly again.

use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use tokio::time::{Instant, sleep_until};

/// The delay for each sender that waits: all of them together come 20,000 times a second.
const DELAY_EACH: Duration = Duration::from_micros(50);

/// A longer delay does not slow down a sender that does not wait for answers.
const DELAY_MAX: Duration = Duration::from_millis(100);

/// Less is not worth a timer, whose resolution is a millisecond.
const DELAY_MIN: Duration = Duration::from_millis(1);

/// How many answers are delayed.
#[derive(Debug, Default)]
pub(super) struct Backpressure(AtomicU32);

/// Counts as one of them until it is dropped.
pub(super) struct DelayedAnswer<'a>(&'a Backpressure);

impl Backpressure {
    pub fn delay_answer(&self) -> DelayedAnswer<'_> {
        self.0.fetch_add(1, Ordering::Relaxed);
        DelayedAnswer(self)
    }
}

impl DelayedAnswer<'_> {
    /// Waits until the answer is due, at most until the deadline.
    pub async fn wait(self, deadline: Instant) {
        let delay = delay(self.0.0.load(Ordering::Relaxed));
        if !delay.is_zero() {
            sleep_until(deadline.min(Instant::now() + delay)).await;
        }
    }
}

impl Drop for DelayedAnswer<'_> {
    fn drop(&mut self) {
        self.0.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// The delay while so many answers are delayed.
fn delay(answers: u32) -> Duration {
    let delay = DELAY_EACH.saturating_mul(answers).min(DELAY_MAX);
    if delay < DELAY_MIN { Duration::ZERO } else { delay }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_delay_grows_with_the_number_of_delayed_answers() {
        for (answers, milliseconds) in [
            (0, 0.0),
            (19, 0.0),
            (20, 1.0),
            (256, 12.8),
            (1_999, 99.95),
            (2_000, 100.0),
            (u32::MAX, 100.0),
        ] {
            let expected = Duration::from_secs_f64(milliseconds / 1e3);
            assert_eq!(delay(answers), expected, "{answers}");
        }
    }
}
