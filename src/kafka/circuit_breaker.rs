//! The circuit breaker: whether events may try Kafka directly, or go straight to the spool.
//!
//! It opens after several events in a row were not acknowledged in time, or when the Kafka client says
//! that no broker is up, so that in an outage events do not wait for the time-out. It closes with the next
//! acknowledgement: of an event that the client still has, or of one that the forwarder sends from the
//! spool to find out.
//!
//! The order of events needs one rule: it closes only when no event that was sent directly still waits for
//! its end. Every one that failed is in the spool by then, and goes first.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicUsize, Ordering};

use tokio::sync::Notify;
use tracing::{info, warn};

use crate::observe::metrics::{BreakerChange, BreakerMetrics};

/// This many events in a row that were not acknowledged in time open the breaker.
const FAILURES_MAX: u32 = 5;

/// Whether events may try Kafka directly.
pub struct CircuitBreaker {
    has_spool: bool,
    is_open: AtomicBool,
    /// In a row.
    failures: AtomicU32,
    /// Permits in use.
    permits: AtomicUsize,
    /// Whether Kafka has acknowledged anything since the breaker opened.
    is_acknowledged: AtomicBool,
    /// Wakes the forwarder.
    change: Notify,
    metrics: BreakerMetrics,
}

/// Permission to try Kafka directly. To be kept until the event is acknowledged or in the spool.
pub struct Permit(Arc<CircuitBreaker>);

impl CircuitBreaker {
    /// Without a spool the breaker never opens.
    pub fn new(metrics: BreakerMetrics, has_spool: bool) -> Arc<CircuitBreaker> {
        Arc::new(CircuitBreaker {
            has_spool,
            is_open: AtomicBool::new(false),
            failures: AtomicU32::new(0),
            permits: AtomicUsize::new(0),
            is_acknowledged: AtomicBool::new(false),
            change: Notify::new(),
            metrics,
        })
    }

    pub fn is_open(&self) -> bool {
        self.is_open.load(Ordering::SeqCst)
    }

    /// Permission to try Kafka directly; none while the breaker is open.
    pub fn try_acquire(self: &Arc<CircuitBreaker>) -> Option<Permit> {
        // Counted before the state is read: once the breaker is open and no permit is in use, no event can
        // be sent directly any more. Dropping the permit takes the count back.
        self.permits.fetch_add(1, Ordering::SeqCst);
        let permit = Permit(self.clone());
        (!self.is_open()).then_some(permit)
    }

    /// Notes an acknowledgement.
    pub fn succeeded(&self) {
        if self.failures.load(Ordering::Relaxed) > 0 {
            self.failures.store(0, Ordering::Relaxed);
        }
        if self.is_open() {
            self.is_acknowledged.store(true, Ordering::SeqCst);
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
        // First, so that an earlier acknowledgement does not close it.
        self.is_acknowledged.store(false, Ordering::SeqCst);
        if !self.is_open.swap(true, Ordering::SeqCst) {
            self.metrics.is_open.set(1);
            self.metrics.changes[BreakerChange::Open].inc();
            warn!(reason, "Circuit breaker open: events go to the spool.");
            self.change.notify_one();
        }
    }

    /// Closes if Kafka has acknowledged something since it opened and no permit is in use.
    pub fn close_if_recovered(&self) {
        if !self.is_acknowledged.load(Ordering::SeqCst) || !self.is_idle() {
            return;
        }
        self.failures.store(0, Ordering::Relaxed);
        if self.is_open.swap(false, Ordering::SeqCst) {
            self.metrics.is_open.set(0);
            self.metrics.changes[BreakerChange::Closed].inc();
            info!("Circuit breaker closed: Kafka acknowledges, events go there directly.");
            self.change.notify_one();
        }
    }

    /// Whether no permit is in use.
    pub fn is_idle(&self) -> bool {
        self.permits.load(Ordering::SeqCst) == 0
    }

    /// Waits until it has opened or closed.
    pub async fn changed(&self) {
        self.change.notified().await;
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        self.0.permits.fetch_sub(1, Ordering::SeqCst);
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
    fn closes_after_an_acknowledgement_once_no_permit_is_in_use() {
        let breaker = breaker();
        let permit = breaker.try_acquire();
        breaker.succeeded();
        breaker.open("no broker is up");
        breaker.close_if_recovered();
        assert!(breaker.is_open(), "nothing was acknowledged since it opened");
        breaker.succeeded();
        assert!(breaker.is_open(), "a permit is still in use");
        drop(permit);
        breaker.close_if_recovered();
        assert!(breaker.try_acquire().is_some());
        assert!(breaker.is_idle());
        breaker.open("no broker is up");
        breaker.succeeded();
        assert!(!breaker.is_open(), "no permit was in use");
    }
}
