//! Rate limits: requests by address and by key, failed authentications by address, log lines by outcome.

use std::net::IpAddr;
use std::sync::atomic::{AtomicU64, Ordering};

use prometheus::IntCounter;
use tokio::time::Instant;

use crate::click::outcome::{Outcome, Refusal, Rejection};
use crate::config::HttpSettings;
use crate::http::rate_limit::{RateLimiter, client_network};

/// Log lines per second and outcome.
const LINES_PER_SECOND: u32 = 10;

pub(super) struct RateLimits {
    addresses: RateLimiter,
    keys: RateLimiter,
    failures: RateLimiter,
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
        let limiter = || RateLimiter::per_second(LINES_PER_SECOND);
        let lines = |_| Lines { limiter: limiter(), left_out: AtomicU64::default() };
        RateLimits {
            addresses: RateLimiter::per_second_and_key(limits.max_rate_per_address),
            keys: RateLimiter::per_second_and_key(limits.max_rate_per_key),
            failures: RateLimiter::per_second_and_key(limits.max_failure_rate_per_address),
            lines: std::array::from_fn(lines),
            left_out,
        }
    }

    /// Counts a request from this address.
    pub(super) fn address(&self, address: IpAddr, now: Instant) -> Result<(), Rejection> {
        let is_within = self.addresses.take(client_network(address), now);
        is_within.then_some(()).ok_or_else(|| Refusal::AddressOverRate.plain())
    }

    /// Counts a request of this caller.
    pub(super) fn caller(&self, name: &str, now: Instant) -> Result<(), Rejection> {
        let is_within = self.keys.take(name, now);
        is_within.then_some(()).ok_or_else(|| Refusal::KeyOverRate.plain())
    }

    /// Counts a failed authentication and replaces its refusal where they are too many. A request that is
    /// authenticated is never refused for the failures of others at its address.
    pub(super) fn failure(&self, why: &mut Rejection, address: IpAddr, now: Instant) {
        let is_failure = why.refusal == Refusal::Unauthorized;
        if is_failure && !self.failures.take(client_network(address), now) {
            *why = Refusal::TooManyFailures.plain();
        }
    }

    /// Counts a log line of this outcome: how many were left out before it, or none where it is left out
    /// too. So no sender can fill the log.
    pub(super) fn line(&self, outcome: Outcome, now: Instant) -> Option<u64> {
        let lines = &self.lines[outcome.index()];
        if lines.limiter.take((), now) {
            return Some(lines.left_out.swap(0, Ordering::Relaxed));
        }
        lines.left_out.fetch_add(1, Ordering::Relaxed);
        self.left_out.inc();
        None
    }
}
