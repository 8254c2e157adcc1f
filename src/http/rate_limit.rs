//! Rate limits, for one or for each of many, in memory that does not grow with their number.
//!
//! Each is the generic cell rate algorithm in one atomic number. `governor` implements the same, but keeps
//! an entry for every address until they are swept. Here the number of buckets is fixed, and a hash with a
//! random seed assigns them, so that no client can choose whose bucket it shares.

use std::hash::{BuildHasher, Hash, RandomState};
use std::net::{IpAddr, Ipv6Addr};
use std::sync::atomic::{AtomicU64, Ordering};

use tokio::time::Instant;

/// Buckets of a limiter by key: half a MiB. A client over its limit also limits another client with
/// probability 1/65,536 (a hash collision).
const BUCKETS: usize = 1 << 16;

const SECOND_NS: u64 = 1_000_000_000;

/// So many per second and bucket, in bursts of up to as many.
pub struct RateLimiter {
    interval_ns: u64,
    began: Instant,
    /// When the next is due if all had come evenly, in nanoseconds since the limiter began.
    buckets: Box<[AtomicU64]>,
    hasher: RandomState,
}

impl RateLimiter {
    /// One limit for all, which have the key `()`; at least one.
    pub fn per_second(count: u32) -> RateLimiter {
        RateLimiter::new(count, 1)
    }

    /// The same limit for each key. No limit where the count is 0.
    pub fn per_second_and_key(count: u32) -> RateLimiter {
        RateLimiter::new(count, if count == 0 { 0 } else { BUCKETS })
    }

    fn new(count: u32, buckets: usize) -> RateLimiter {
        RateLimiter {
            interval_ns: SECOND_NS / u64::from(count.max(1)),
            began: Instant::now(),
            buckets: (0..buckets).map(|_| AtomicU64::default()).collect(),
            hasher: RandomState::new(),
        }
    }

    /// Counts one of this key, unless it is over the limit.
    pub fn take(&self, key: impl Hash, now: Instant) -> bool {
        if self.buckets.is_empty() {
            return true;
        }
        let now_ns = now.saturating_duration_since(self.began).as_nanos();
        let now_ns = u64::try_from(now_ns).unwrap_or(u64::MAX);
        let next = |due: u64| {
            let due = due.max(now_ns);
            let is_within = due - now_ns <= SECOND_NS - self.interval_ns;
            is_within.then_some(due.saturating_add(self.interval_ns))
        };
        let bucket = self.hasher.hash_one(key) as usize % self.buckets.len();
        self.buckets[bucket].fetch_update(Ordering::Relaxed, Ordering::Relaxed, next).is_ok()
    }
}

/// The addresses of one client: one of IPv4, or the 64 bits of IPv6 within which it chooses its address.
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
    fn a_limiter_allows_a_seconds_worth_at_once_and_then_as_they_come() {
        let at = |limiter: &RateLimiter, ns| limiter.began + Duration::from_nanos(ns);
        let limiter = RateLimiter::per_second(10);
        let taken = |ns| (0..100).filter(|_| limiter.take((), at(&limiter, ns))).count();
        assert_eq!(taken(5 * SECOND_NS), 10);
        assert_eq!(taken(5 * SECOND_NS + SECOND_NS / 10 - 1), 0);
        assert_eq!(taken(5 * SECOND_NS + SECOND_NS / 10), 1);
        assert_eq!(taken(6 * SECOND_NS), 9);
        assert_eq!(taken(600 * SECOND_NS), 10);
        let limiter = RateLimiter::per_second(1);
        assert!(limiter.take((), at(&limiter, 0)));
        assert!(!limiter.take((), at(&limiter, SECOND_NS - 1)));
        assert!(limiter.take((), at(&limiter, SECOND_NS)));
    }

    #[test]
    fn threads_together_get_no_more_than_one() {
        let limiter = RateLimiter::per_second(1_000);
        let now = limiter.began + Duration::from_secs(1);
        let take = || (0..10_000).filter(|_| limiter.take((), now)).count();
        let taken: usize = std::thread::scope(|scope| {
            let threads: Vec<_> = (0..4).map(|_| scope.spawn(take)).collect();
            threads.into_iter().map(|thread| thread.join().expect("a count")).sum()
        });
        assert_eq!(taken, 1_000);
    }

    #[test]
    fn one_key_over_its_limit_does_not_limit_the_others() {
        let limiter = RateLimiter::per_second_and_key(2);
        let now = limiter.began + Duration::from_secs(1);
        let taken = |key: u32| (0..5).filter(|_| limiter.take(key, now)).count();
        // Two keys of a thousand may share a bucket; if many did, it would not be chance.
        let whole = (0..1_000).filter(|key| taken(*key) == 2).count();
        assert!(whole > 900, "{whole}");
        let unlimited = RateLimiter::per_second_and_key(0);
        assert!((0..1_000).all(|_| unlimited.take(1, now)));
    }

    #[test]
    fn a_client_network_has_the_addresses_of_one_client() {
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
