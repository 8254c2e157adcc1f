//! The most frequent keys, in bounded memory: the Space-Saving algorithm (Metwally, Agrawal and El Abbadi,
//! 2005), for each of the last minutes.
//!
//! A key that is not yet counted replaces the key with the lowest count and starts from that count. So no
//! count is too low, and it is too high by at most the count that it started from.

use std::cmp::Reverse;
use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use tokio::time::Instant;

/// How many keys are counted in each minute.
const COUNTERS: usize = 256;

/// How many minutes are kept.
pub(super) const MINUTES: usize = 5;

const MINUTE: Duration = Duration::from_secs(60);

/// How often a key came.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct KeyCount {
    pub(super) count: u64,
    /// By how much the count may be too large.
    pub(super) error: u64,
}

/// The keys of one minute.
#[derive(Default)]
struct MinuteCounts {
    keys: BTreeMap<Box<[u8]>, KeyCount>,
    /// Records with any key.
    total: u64,
}

impl MinuteCounts {
    fn count(&mut self, key: &[u8]) {
        self.total += 1;
        if let Some(known) = self.keys.get_mut(key) {
            known.count += 1;
            return;
        }
        let mut error = 0;
        if self.keys.len() == COUNTERS
            && let Some((least, count)) = self.keys.iter().min_by_key(|(_, known)| known.count)
        {
            error = count.count;
            self.keys.remove(&least.clone());
        }
        self.keys.insert(key.into(), KeyCount { count: error + 1, error });
    }
}

/// The keys of the last minutes.
#[derive(Default)]
pub(super) struct TopKeys {
    /// The newest last, each with its begin.
    minutes: VecDeque<(Instant, MinuteCounts)>,
}

impl TopKeys {
    pub(super) fn count(&mut self, key: &[u8], now: Instant) {
        self.forget(now);
        let is_over = |begin: Instant| now.duration_since(begin) >= MINUTE;
        if self.minutes.back().is_none_or(|(begin, _)| is_over(*begin)) {
            self.minutes.push_back((now, MinuteCounts::default()));
        }
        if let Some((_, minute)) = self.minutes.back_mut() {
            minute.count(key);
        }
    }

    /// Removes the minutes that are too old.
    pub(super) fn forget(&mut self, now: Instant) {
        let age = MINUTE * MINUTES as u32;
        while self.minutes.front().is_some_and(|(begin, _)| now.duration_since(*begin) >= age) {
            self.minutes.pop_front();
        }
    }

    /// Records with any key.
    pub(super) fn total(&self) -> u64 {
        self.minutes.iter().map(|(_, minute)| minute.total).sum()
    }

    /// The most frequent keys, the first the most frequent.
    pub(super) fn top(&self, count: usize) -> Vec<(&[u8], KeyCount)> {
        let mut sums: BTreeMap<&[u8], KeyCount> = BTreeMap::new();
        for (key, counted) in self.minutes.iter().flat_map(|(_, minute)| &minute.keys) {
            let sum = sums.entry(key).or_default();
            sum.count += counted.count;
            sum.error += counted.error;
        }
        // The sort is stable: keys that came equally often stay in their order.
        let mut top: Vec<_> = sums.into_iter().collect();
        top.sort_by_key(|(_, sum)| Reverse(sum.count));
        top.truncate(count);
        top
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_frequent_ones_are_found_among_very_many_in_a_fixed_memory() {
        let (mut keys, now) = (TopKeys::default(), Instant::now());
        for number in 0..20_000_u32 {
            keys.count(&number.to_be_bytes(), now);
            if number % 10 == 0 {
                keys.count(b"often", now);
            }
            if number % 20 == 0 {
                keys.count(b"less often", now);
            }
        }
        let top = keys.top(2);
        assert_eq!([top[0].0, top[1].0], [&b"often"[..], b"less often"]);
        for ((_, frequent), truth) in top.iter().zip([2_000, 1_000]) {
            assert!(frequent.count >= truth && frequent.count - frequent.error <= truth);
        }
        assert_eq!(keys.total(), 23_000);
        let [(_, minute)] = keys.minutes.make_contiguous() else { panic!("one minute") };
        assert_eq!(minute.keys.len(), COUNTERS);
    }

    #[test]
    fn minutes_pass() {
        let (mut keys, start) = (TopKeys::default(), Instant::now());
        for minute in 0..10 {
            keys.count(b"7", start + MINUTE * minute);
            assert!(keys.minutes.len() <= MINUTES);
        }
        assert_eq!(keys.top(10), [(&b"7"[..], KeyCount { count: 5, error: 0 })]);
        keys.forget(start + MINUTE * 20);
        assert_eq!((keys.total(), keys.top(10).len()), (0, 0));
    }
}
