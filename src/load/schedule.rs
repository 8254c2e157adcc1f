//! When clicks are due.

use std::ops::Range;
use std::time::Duration;

use tokio::time::Instant;

/// How often to look which clicks are due.
const INTERVAL: Duration = Duration::from_micros(200);

/// Clicks at an even rate.
#[derive(Debug, Clone, Copy)]
pub struct Schedule {
    pub start: Instant,
    /// Clicks a second.
    pub rate: u32,
}

impl Schedule {
    /// When the click with this number is due.
    pub fn due(self, number: u64) -> Instant {
        let nanoseconds = u128::from(number) * 1_000_000_000 / u128::from(self.rate.max(1));
        self.start + Duration::from_nanos(u64::try_from(nanoseconds).unwrap_or(u64::MAX))
    }

    /// Calls with the numbers that have become due, until that returns false. Blocks the thread.
    pub fn run(self, mut call: impl FnMut(Range<u64>) -> bool) {
        let mut called = 0;
        loop {
            std::thread::sleep(INTERVAL);
            let now = Instant::now();
            let mut next = called;
            while self.due(next) <= now {
                next += 1;
            }
            if !call(called..next) {
                return;
            }
            called = next;
        }
    }
}
