//! Rate limits: requests by address and by key, failed authentications by address, log lines by outcome.

use std::net::IpAddr;
use std::sync::atomic::{AtomicU64, Ordering};

use prometheus::IntCounter;
use tokio::time::Instant;

use crate::click::outcome::{Outcome, Refusal, Rejection};
use crate::config::HttpSettings;
use crate::http::rate_limit::{KeyedRateLimiter, RateLimiter, client_network};

/// Log lines per second and outcome.
const LINES_PER_SECOND: u32 = 10;

pub(super) struct RateLimits {
    addresses: Option<KeyedRateLimiter>,
    keys: Option<KeyedRateLimiter>,
    failures: Option<KeyedRateLimiter>,
    /// By [`Outcome::index`].
    lines: [Lines; Outcome::COUNT],
    left_out: IntCounter,
}

/// The log lines of one outcome.
struct Lines {
    limiter: RateLimiter,
    /// Since the last line.
    left_out: AtomicU64,
}

impl RateLimits {
    pub(super) fn new(limits: &HttpSettings, left_out: IntCounter) -> RateLimits {
        let lines = || Lines {
            limiter: RateLimiter::per_second(LINES_PER_SECOND),
            left_out: AtomicU64::default(),
        };
        RateLimits {
            addresses: KeyedRateLimiter::per_second(limits.max_rate_per_address),
            keys: KeyedRateLimiter::per_second(limits.max_rate_per_key),
            failures: KeyedRateLimiter::per_second(limits.max_failure_rate_per_address),
            lines: std::array::from_fn(|_| lines()),
            left_out,
        }
    }

    /// Counts a request from this address.
    pub(super) fn address(&self, address: IpAddr, now: Instant) -> Result<(), Rejection> {
        match &self.addresses {
            Some(limiter) if !limiter.take(client_network(address), now) => {
                Err(Refusal::AddressOverRate.plain())
            }
            _ => Ok(()),
        }
    }

    /// Counts a request of this caller.
    pub(super) fn caller(&self, name: &str, now: Instant) -> Result<(), Rejection> {
        match &self.keys {
            Some(limiter) if !limiter.take(name, now) => Err(Refusal::KeyOverRate.plain()),
            _ => Ok(()),
        }
    }

    /// Counts a failed authentication and replaces its refusal when they are too many. A request that is
    /// authenticated is never refused for the failures of others at its address.
    pub(super) fn failure(&self, why: &mut Rejection, address: IpAddr, now: Instant) {
        if let Some(limiter) = &self.failures
            && why.refusal == Refusal::Unauthorized
            && !limiter.take(client_network(address), now)
        {
            *why = Refusal::TooManyFailures.plain();
        }
    }

    /// Counts a log line of this outcome. How many lines were left out before it; none where this one is
    /// to be left out too, so that no sender can fill the log.
    pub(super) fn line(&self, outcome: Outcome, now: Instant) -> Option<u64> {
        let lines = &self.lines[outcome.index()];
        if lines.limiter.take(now) {
            return Some(lines.left_out.swap(0, Ordering::Relaxed));
        }
        lines.left_out.fetch_add(1, Ordering::Relaxed);
        self.left_out.inc();
        None
    }
}
