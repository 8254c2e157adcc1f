//! The breaker: whether events may try Kafka directly, or go straight to the spool.
//!
//! It opens after several events in a row were not acknowledged in time, or when the Kafka client says
//! that no broker is up, so that an outage costs no event the time-out. It closes with the next
//! acknowledgement: of an event that the client still has, or of one that the drain sends from the
//! spool to find out.
//!
//! Order hangs on one rule: it closes only when no event is any more on the direct way that it had
//! opened for. Whatever failed there is in the spool by then, and goes first.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicUsize, Ordering};

use tokio::sync::Notify;
use tracing::{info, warn};

use crate::observe::metrics::{BreakerChange, BreakerMetrics};

/// So many events in a row that were not acknowledged in time open the breaker.
const FAILURES_MAX: u32 = 5;

/// Whether events may try Kafka directly.
pub struct CircuitBreaker {
    /// Whether there is a spool for events to go to; without one it never opens.
    has_spool: bool,
    is_open: AtomicBool,
    /// In a row.
    failures: AtomicU32,
    /// Events on the direct way: tried, and neither acknowledged nor given to the spool.
    direct: AtomicUsize,
    /// Whether Kafka has acknowledged anything since the breaker opened.
    heard: AtomicBool,
    /// Rung when there is something for the drain to look at.
    bell: Notify,
    metrics: BreakerMetrics,
}

/// Leave to try Kafka directly. To be kept until the event is acknowledged or given to the spool.
pub struct Permit(Arc<CircuitBreaker>);

impl CircuitBreaker {
    /// `has_spool` says whether there is a spool; without one the breaker never opens.
    pub fn new(metrics: BreakerMetrics, has_spool: bool) -> Arc<CircuitBreaker> {
        Arc::new(CircuitBreaker {
            has_spool,
            is_open: AtomicBool::new(false),
            failures: AtomicU32::new(0),
            direct: AtomicUsize::new(0),
            heard: AtomicBool::new(false),
            bell: Notify::new(),
            metrics,
        })
    }

    pub fn is_open(&self) -> bool {
        self.is_open.load(Ordering::SeqCst)
    }

    /// Leave to try Kafka directly; none while the breaker is open.
    pub fn try_acquire(self: &Arc<CircuitBreaker>) -> Option<Permit> {
        // Counted before the look, so that whoever sees the breaker open and nobody on the way can
        // rely on it. The pass itself takes the count back.
        self.direct.fetch_add(1, Ordering::SeqCst);
        let pass = Permit(self.clone());
        (!self.is_open()).then_some(pass)
    }

    /// Notes an acknowledgement.
    pub fn succeeded(&self) {
        if self.failures.load(Ordering::Relaxed) > 0 {
            self.failures.store(0, Ordering::Relaxed);
        }
        if self.is_open() {
            self.heard.store(true, Ordering::SeqCst);
            self.close_if_recovered();
        }
    }

    /// Notes that there was no acknowledgement in time.
    pub fn failed(&self) {
        if self.failures.fetch_add(1, Ordering::Relaxed) + 1 >= FAILURES_MAX {
            self.open("several events in a row were not acknowledged");
        }
    }

    /// Opens at once.
    pub fn open(&self, reason: &str) {
        if !self.has_spool || self.is_open() {
            return;
        }
        // First, so that an acknowledgement of before does not close it.
        self.heard.store(false, Ordering::SeqCst);
        if !self.is_open.swap(true, Ordering::SeqCst) {
            self.metrics.is_open.set(1);
            self.metrics.changes[BreakerChange::Open].inc();
            warn!(reason, "CircuitBreaker open: events go to the spool.");
            self.bell.notify_one();
        }
    }

    /// Closes, if Kafka has acknowledged something since it opened and the direct way is empty.
    pub fn close_if_recovered(&self) {
        if !self.heard.load(Ordering::SeqCst) || !self.is_direct_path_empty() {
            return;
        }
        self.failures.store(0, Ordering::Relaxed);
        if self.is_open.swap(false, Ordering::SeqCst) {
            self.metrics.is_open.set(0);
            self.metrics.changes[BreakerChange::Closed].inc();
            info!("CircuitBreaker closed: Kafka acknowledges, events go there directly.");
            self.bell.notify_one();
        }
    }

    /// Whether no event is on the direct way.
    pub fn is_direct_path_empty(&self) -> bool {
        self.direct.load(Ordering::SeqCst) == 0
    }

    /// Waits for something to look at.
    pub async fn changed(&self) {
        self.bell.notified().await;
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        self.0.direct.fetch_sub(1, Ordering::SeqCst);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::observe::metrics::Metrics;

    fn breaker() -> Arc<CircuitBreaker> {
        CircuitBreaker::new(Metrics::new(&["click"], &["clicks"]).expect("metrics").breaker, true)
    }

    #[test]
    fn opens_after_failures_in_a_row() {
        let breaker = breaker();
        for _ in 0..2 {
            (1..FAILURES_MAX).for_each(|_| breaker.failed());
            assert!(breaker.try_acquire().is_some());
            breaker.succeeded();
        }
        (0..FAILURES_MAX).for_each(|_| breaker.failed());
        assert!(breaker.try_acquire().is_none());
    }

    #[test]
    fn closes_after_an_acknowledgement_once_the_direct_way_is_empty() {
        let breaker = breaker();
        let pass = breaker.try_acquire();
        breaker.succeeded();
        breaker.open("no broker is up");
        breaker.close_if_recovered();
        assert!(breaker.is_open(), "nothing was acknowledged since it opened");
        breaker.succeeded();
        assert!(breaker.is_open(), "an event is still on the direct way");
        drop(pass);
        breaker.close_if_recovered();
        assert!(breaker.try_acquire().is_some());
        assert!(breaker.is_direct_path_empty());
        breaker.open("no broker is up");
        breaker.succeeded();
        assert!(!breaker.is_open(), "the direct way was empty");
    }
}
