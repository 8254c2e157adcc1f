//! Which keys come most often, in a memory that does not grow: Space-Saving (Metwally, Agrawal and El
//! Abbadi, 2005), one sketch for each of the last minutes.
//!
//! A key that is not among the counted ones takes the place of the one counted least, with its count:
//! no count is ever too small, and it is too large by at most that of the place it took.

use std::collections::{HashMap, VecDeque};
use std::time::Duration;

use tokio::time::Instant;

/// How many keys are counted in each minute.
const COUNTERS: usize = 256;

/// So many sketches are kept, of a minute each.
pub const MINUTES: usize = 5;

const MINUTE: Duration = Duration::from_secs(60);

/// The keys of one minute.
#[derive(Default)]
struct Sketch {
    counters: Vec<Counter>,
    /// Their places.
    places: HashMap<Box<[u8]>, usize>,
    /// How many came, of whatever key.
    total: u64,
}

struct Counter {
    key: Box<[u8]>,
    count: u64,
    /// By how much it may be too large.
    error: u64,
}

impl Sketch {
    fn count(&mut self, key: &[u8]) {
        self.total += 1;
        if let Some(place) = self.places.get(key) {
            self.counters[*place].count += 1;
        } else if self.counters.len() < COUNTERS {
            self.places.insert(key.into(), self.counters.len());
            self.counters.push(Counter { key: key.into(), count: 1, error: 0 });
        } else if let Some((place, least)) =
            self.counters.iter_mut().enumerate().min_by_key(|(_, counter)| counter.count)
        {
            self.places.remove(&least.key);
            self.places.insert(key.into(), place);
            *least = Counter { key: key.into(), count: least.count + 1, error: least.count };
        }
    }
}

/// One of the keys that come most often.
#[derive(Debug, PartialEq, Eq)]
pub struct Frequent {
    pub key: Box<[u8]>,
    pub count: u64,
    /// By how much it may be too large.
    pub error: u64,
}

/// The keys of the last minutes.
#[derive(Default)]
pub struct Minutes {
    /// The newest last, each with its begin.
    sketches: VecDeque<(Instant, Sketch)>,
}

impl Minutes {
    pub fn count(&mut self, key: &[u8], now: Instant) {
        self.forget(now);
        let is_over = |begin: Instant| now.duration_since(begin) >= MINUTE;
        if self.sketches.back().is_none_or(|(begin, _)| is_over(*begin)) {
            self.sketches.push_back((now, Sketch::default()));
        }
        if let Some((_, sketch)) = self.sketches.back_mut() {
            sketch.count(key);
        }
    }

    /// Forgets what is too old.
    pub fn forget(&mut self, now: Instant) {
        let age = MINUTE * MINUTES as u32;
        while self.sketches.front().is_some_and(|(begin, _)| now.duration_since(*begin) >= age) {
            self.sketches.pop_front();
        }
    }

    /// How many were counted.
    pub fn total(&self) -> u64 {
        self.sketches.iter().map(|(_, sketch)| sketch.total).sum()
    }

    /// The most frequent, and how many there are of each, the most frequent first.
    pub fn top(&self, count: usize) -> Vec<Frequent> {
        let mut sums: HashMap<&[u8], (u64, u64)> = HashMap::new();
        for counter in self.sketches.iter().flat_map(|(_, sketch)| &sketch.counters) {
            let (sum, error) = sums.entry(&counter.key).or_default();
            *sum += counter.count;
            *error += counter.error;
        }
        let frequent = sums.into_iter().map(|(key, (count, error))| Frequent {
            key: key.into(),
            count,
            error,
        });
        let mut frequent: Vec<_> = frequent.collect();
        frequent.sort_unstable_by(|a, b| b.count.cmp(&a.count).then_with(|| a.key.cmp(&b.key)));
        frequent.truncate(count);
        frequent
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_frequent_ones_are_found_among_very_many_in_a_fixed_memory() {
        let (mut minutes, now) = (Minutes::default(), Instant::now());
        for number in 0..20_000_u32 {
            minutes.count(&number.to_be_bytes(), now);
            if number % 10 == 0 {
                minutes.count(b"often", now);
            }
            if number % 20 == 0 {
                minutes.count(b"less often", now);
            }
        }
        let top = minutes.top(2);
        assert_eq!([&*top[0].key, &*top[1].key], [&b"often"[..], b"less often"]);
        for (frequent, truth) in top.iter().zip([2_000, 1_000]) {
            assert!(frequent.count >= truth && frequent.count - frequent.error <= truth);
        }
        assert_eq!(minutes.total(), 23_000);
        let [(_, sketch)] = minutes.sketches.make_contiguous() else { panic!("one minute") };
        assert_eq!([sketch.counters.len(), sketch.places.len()], [COUNTERS; 2]);
    }

    #[test]
    fn minutes_pass() {
        let (mut minutes, start) = (Minutes::default(), Instant::now());
        for minute in 0..10 {
            minutes.count(b"7", start + MINUTE * minute);
            assert!(minutes.sketches.len() <= MINUTES);
        }
        assert_eq!(minutes.top(10), [Frequent { key: b"7"[..].into(), count: 5, error: 0 }]);
        minutes.forget(start + MINUTE * 20);
        assert_eq!((minutes.total(), minutes.top(10).len()), (0, 0));
    }
}
