//! When clicks are due.

use std::ops::Range;
use std::time::Duration;

use tokio::time::Instant;

/// How often to look which are.
const PACE: Duration = Duration::from_micros(200);

/// When a number is due at this rate.
pub fn due(start: Instant, rate: u32, number: u64) -> Instant {
    let nanoseconds = u128::from(number) * 1_000_000_000 / u128::from(rate.max(1));
    start + Duration::from_nanos(u64::try_from(nanoseconds).unwrap_or(u64::MAX))
}

/// Calls with the numbers that have become due, until that returns false. Blocks the thread.
pub fn pace(rate: u32, start: Instant, mut call: impl FnMut(Range<u64>) -> bool) {
    let mut called = 0;
    loop {
        std::thread::sleep(PACE);
        let now = Instant::now();
        let mut next = called;
        while due(start, rate, next) <= now {
            next += 1;
        }
        if !call(called..next) {
            return;
        }
        called = next;
    }
}
