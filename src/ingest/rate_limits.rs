//! What each sender may have: requests a second by address and by key, failures by address, and lines
//! in the log by outcome.

use std::net::IpAddr;
use std::sync::atomic::{AtomicU64, Ordering};

use prometheus::IntCounter;
use tokio::time::Instant;

use crate::click::outcome::{Outcome, Refusal, Rejection};
use crate::config;
use crate::http::rate_limit::{KeyedRateLimiter, Rate, RateLimiter, client_network, elapsed_ns};

/// Lines that each outcome may have in the log.
const LINES: Rate = Rate::per_second(10);

/// The shares of all senders.
pub struct RateLimits {
    addresses: Option<KeyedRateLimiter>,
    keys: Option<KeyedRateLimiter>,
    failures: Option<KeyedRateLimiter>,
    /// By [`Outcome::index`].
    lines: [Lines; Outcome::COUNT],
    left_out: IntCounter,
    began: Instant,
}

/// What one outcome has of the log.
#[derive(Default)]
struct Lines {
    share: RateLimiter,
    /// Since its last line.
    left_out: AtomicU64,
}

impl RateLimits {
    pub fn new(limits: &config::HttpSettings, left_out: IntCounter) -> RateLimits {
        RateLimits {
            addresses: KeyedRateLimiter::per_second(limits.max_rate_per_address),
            keys: KeyedRateLimiter::per_second(limits.max_rate_per_key),
            failures: KeyedRateLimiter::per_second(limits.max_failure_rate_per_address),
            lines: std::array::from_fn(|_| Lines::default()),
            left_out,
            began: Instant::now(),
        }
    }

    /// Counts a request of this address.
    ///
    /// # Errors
    ///
    /// [`Refusal::AddressOverRate`].
    pub fn address(&self, address: IpAddr, now: Instant) -> Result<(), Rejection> {
        let Some(shares) = &self.addresses else { return Ok(()) };
        let is_within = shares.take(client_network(address), now);
        if is_within { Ok(()) } else { Err(Refusal::AddressOverRate.plain()) }
    }

    /// Counts a request of this caller.
    ///
    /// # Errors
    ///
    /// [`Refusal::KeyOverRate`].
    pub fn caller(&self, name: &str, now: Instant) -> Result<(), Rejection> {
        let Some(shares) = &self.keys else { return Ok(()) };
        if shares.take(name, now) { Ok(()) } else { Err(Refusal::KeyOverRate.plain()) }
    }

    /// Counts a request that was refused for want of a key; gives what it is to be told. Only those
    /// that fail are ever refused for it: whoever shares an address with a stranger loses no click.
    pub fn failure(&self, why: Rejection, address: IpAddr, now: Instant) -> Rejection {
        match &self.failures {
            Some(shares)
                if why.refusal == Refusal::Unauthorized
                    && !shares.take(client_network(address), now) =>
            {
                Refusal::TooManyFailures.plain()
            }
            _ => why,
        }
    }

    /// Whether a line of this outcome may be written, so that no sender can fill the log; then, how
    /// many were left out before it.
    pub fn line(&self, outcome: Outcome, now: Instant) -> Option<u64> {
        let lines = &self.lines[outcome.index()];
        if lines.share.take(elapsed_ns(now, self.began), LINES) {
            return Some(lines.left_out.swap(0, Ordering::Relaxed));
        }
        lines.left_out.fetch_add(1, Ordering::Relaxed);
        self.left_out.inc();
        None
    }
}
