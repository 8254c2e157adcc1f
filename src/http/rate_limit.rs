//! RateLimits shares: how often something may happen, for one or for each of many, in memory that does not
//! grow with them.
//!
//! Each bucket is the generic cell rate algorithm in one atomic number. `governor` has the same, but
//! keeps an entry for every address that ever came until somebody sweeps; here the number of buckets
//! is fixed, and who shares one with whom is decided by a hash that nobody outside can foresee.

use std::hash::{BuildHasher, Hash, RandomState};
use std::net::{IpAddr, Ipv6Addr};
use std::sync::atomic::{AtomicU64, Ordering};

use tokio::time::Instant;

/// Half a MiB for each kind of share. A stranger that is out of its share takes another's with a
/// probability of one in so many.
const BUCKETS: usize = 1 << 16;

const SECOND_NS: u64 = 1_000_000_000;

/// So many a second, of which as many may come at once.
#[derive(Debug, Clone, Copy)]
pub struct Rate {
    interval_ns: u64,
}

impl Rate {
    /// At least one.
    pub const fn per_second(count: u32) -> Rate {
        let count = if count == 0 { 1 } else { count };
        Rate { interval_ns: SECOND_NS / count as u64 }
    }
}

/// One share: when its next is due, had all come evenly, in elapsed_ns of the owner's clock.
#[derive(Debug, Default)]
pub struct RateLimiter(AtomicU64);

impl RateLimiter {
    /// Takes one, if there is one by now.
    pub fn take(&self, now_ns: u64, rate: Rate) -> bool {
        let next = |due: u64| {
            let due = due.max(now_ns);
            let is_there = due - now_ns <= SECOND_NS - rate.interval_ns;
            is_there.then_some(due.saturating_add(rate.interval_ns))
        };
        self.0.fetch_update(Ordering::Relaxed, Ordering::Relaxed, next).is_ok()
    }
}

/// A share for each of many.
pub struct KeyedRateLimiter {
    rate: Rate,
    buckets: Box<[RateLimiter]>,
    hasher: RandomState,
    began: Instant,
}

impl KeyedRateLimiter {
    /// None where there is no limit: a count of 0.
    pub fn per_second(count: u32) -> Option<KeyedRateLimiter> {
        let buckets = || (0..BUCKETS).map(|_| RateLimiter::default()).collect();
        (count > 0).then(|| KeyedRateLimiter {
            rate: Rate::per_second(count),
            buckets: buckets(),
            hasher: RandomState::new(),
            began: Instant::now(),
        })
    }

    /// Takes one of this one's share.
    pub fn take(&self, whose: impl Hash, now: Instant) -> bool {
        let hash = self.hasher.hash_one(whose);
        let bucket = &self.buckets[hash as usize % BUCKETS];
        bucket.take(elapsed_ns(now, self.began), self.rate)
    }
}

/// How long it has been, as buckets count.
pub fn elapsed_ns(now: Instant, began: Instant) -> u64 {
    u64::try_from(now.saturating_duration_since(began).as_nanos()).unwrap_or(u64::MAX)
}

/// Who shares: an address of IPv4, or the 64 bits of IPv6 within which a sender chooses its address.
pub fn client_network(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V4(address) => address.into(),
        IpAddr::V6(address) => {
            Ipv6Addr::from_bits(address.to_bits() & !u128::from(u64::MAX)).into()
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_bucket_gives_a_seconds_worth_at_once_and_then_as_they_come() {
        let (bucket, rate) = (RateLimiter::default(), Rate::per_second(10));
        let taken = |now_ns| (0..100).filter(|_| bucket.take(now_ns, rate)).count();
        assert_eq!(taken(5 * SECOND_NS), 10);
        assert_eq!(taken(5 * SECOND_NS + SECOND_NS / 10 - 1), 0);
        assert_eq!(taken(5 * SECOND_NS + SECOND_NS / 10), 1);
        assert_eq!(taken(6 * SECOND_NS), 9);
        assert_eq!(taken(600 * SECOND_NS), 10);
        let (bucket, rate) = (RateLimiter::default(), Rate::per_second(1));
        assert!(bucket.take(0, rate));
        assert!(!bucket.take(SECOND_NS - 1, rate));
        assert!(bucket.take(SECOND_NS, rate));
    }

    #[test]
    fn threads_together_get_no_more_than_one() {
        let (bucket, rate) = (RateLimiter::default(), Rate::per_second(1_000));
        let take = || (0..10_000).filter(|_| bucket.take(SECOND_NS, rate)).count();
        let taken: usize = std::thread::scope(|scope| {
            let threads: Vec<_> = (0..4).map(|_| scope.spawn(take)).collect();
            threads.into_iter().map(|thread| thread.join().expect("a count")).sum()
        });
        assert_eq!(taken, 1_000);
    }

    #[test]
    fn one_that_is_out_of_its_share_leaves_others_theirs() {
        assert!(KeyedRateLimiter::per_second(0).is_none());
        let shares = KeyedRateLimiter::per_second(2).expect("a limit");
        let now = shares.began + Duration::from_secs(1);
        let taken = |whose: u32| (0..5).filter(|_| shares.take(whose, now)).count();
        // Two of a thousand may share a bucket; with all of them it would not be by chance.
        let whole = (0..1_000).filter(|whose| taken(*whose) == 2).count();
        assert!(whole > 900, "{whole}");
    }

    #[test]
    fn a_client_network_is_what_one_sender_has() {
        for (address, expected) in [
            ("192.0.2.1", "192.0.2.1"),
            ("::ffff:192.0.2.1", "192.0.2.1"),
            ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::"),
            ("2001:db8:1:3::", "2001:db8:1:3::"),
        ] {
            let address: IpAddr = address.parse().expect("an address");
            assert_eq!(client_network(address).to_string(), expected);
        }
    }
}
