//! Whether this replica has started, can hold clicks, or is draining: what `/readyz` answers.

use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio::time::Instant;

use crate::observe::lock;

/// Without a response from any broker for this long, the replica is not ready. Several times
/// [`PROBE_AFTER`], so that one lost probe changes nothing.
const SILENCE_MAX: Duration = Duration::from_secs(10);

/// After this long without a response, a broker is to be probed.
const PROBE_AFTER: Duration = Duration::from_secs(3);

/// After such a gap, brokers must respond for this long before the replica is ready again, so that
/// readiness does not flap with a connection that comes and goes.
const STEADY_MIN: Duration = Duration::from_secs(2);

/// A disk operation that takes longer than this counts as hung.
const SPOOL_HANG: Duration = Duration::from_secs(3);

/// The state behind readiness. Liveness has no state: the process answers or it does not.
#[derive(Debug, Default)]
pub struct Health {
    started: AtomicBool,
    draining: AtomicBool,
    /// Whether the start waits for a process that uses the spool.
    spool_in_use: AtomicBool,
    /// Whether there is a spool that takes clicks.
    can_spool: AtomicBool,
    /// When its disk operation under way began.
    spool_busy: Mutex<Option<Instant>>,
    brokers: Mutex<Brokers>,
}

/// When brokers responded.
#[derive(Debug, Default, Clone, Copy)]
struct Brokers {
    last: Option<Instant>,
    /// Since when there has been no gap, and whether there was a gap before that.
    steady: Option<(Instant, bool)>,
}

/// Why a replica is not ready.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum NotReady {
    #[error("starting")]
    Starting,
    #[error("starting: another process still uses the spool; the log says which")]
    SpoolInUse,
    #[error("draining")]
    Draining,
    #[error("no Kafka broker has been heard from lately, and the spool is off, full or broken")]
    CannotHold,
}

impl Health {
    pub fn start(&self) {
        self.started.store(true, Ordering::Relaxed);
    }

    pub fn drain(&self) {
        self.draining.store(true, Ordering::Relaxed);
    }

    pub fn is_draining(&self) -> bool {
        self.draining.load(Ordering::Relaxed)
    }

    pub fn set_can_spool(&self, can: bool) {
        self.can_spool.store(can, Ordering::Relaxed);
    }

    pub fn set_spool_in_use(&self, in_use: bool) {
        self.spool_in_use.store(in_use, Ordering::Relaxed);
    }

    /// Notes that a disk operation of the spool begins or has ended.
    pub fn set_spool_busy(&self, is_busy: bool) {
        let since = is_busy.then(Instant::now);
        *lock(&self.spool_busy) = since;
    }

    fn can_spool(&self) -> bool {
        let busy = *lock(&self.spool_busy);
        self.can_spool.load(Ordering::Relaxed)
            && busy.is_none_or(|since| since.elapsed() < SPOOL_HANG)
    }

    /// Whether a broker has responded lately.
    pub fn brokers_respond(&self) -> bool {
        lock(&self.brokers).are_responding(Instant::now())
    }

    /// Notes that a broker responded just now.
    pub fn broker_responded(&self) {
        lock(&self.brokers).note_response(Instant::now());
    }

    /// Whether no broker has responded for so long that one should be probed.
    pub fn probe_is_due(&self) -> bool {
        lock(&self.brokers).last.is_none_or(|last| last.elapsed() >= PROBE_AFTER)
    }

    /// # Errors
    ///
    /// Why this replica should not be sent requests.
    pub fn ready(&self) -> Result<(), NotReady> {
        if self.is_draining() {
            Err(NotReady::Draining)
        } else if !self.started.load(Ordering::Relaxed) {
            let waits = self.spool_in_use.load(Ordering::Relaxed);
            Err(if waits { NotReady::SpoolInUse } else { NotReady::Starting })
        } else if !self.brokers_respond() && !self.can_spool() {
            Err(NotReady::CannotHold)
        } else {
            Ok(())
        }
    }
}

impl Brokers {
    fn note_response(&mut self, now: Instant) {
        let gap = self.last.map(|last| now.duration_since(last) > SILENCE_MAX);
        if gap != Some(false) {
            self.steady = Some((now, gap.is_some()));
        }
        self.last = Some(now);
    }

    fn are_responding(&self, now: Instant) -> bool {
        let (Some(last), Some((since, after_gap))) = (self.last, self.steady) else { return false };
        now.duration_since(last) <= SILENCE_MAX
            && (!after_gap || last.duration_since(since) >= STEADY_MIN)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn readiness_waits_for_silence_and_for_steadiness() {
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        let mut brokers = Brokers::default();
        assert!(!brokers.are_responding(at(0)), "never heard");
        brokers.note_response(at(1));
        assert!(brokers.are_responding(at(1)), "the first word is enough to start");
        assert!(brokers.are_responding(at(11)));
        assert!(!brokers.are_responding(at(12)), "silent for too long");
        brokers.note_response(at(20));
        assert!(!brokers.are_responding(at(20)), "one word after a gap is not yet steady");
        brokers.note_response(at(21));
        assert!(!brokers.are_responding(at(21)));
        brokers.note_response(at(22));
        assert!(brokers.are_responding(at(22)));
    }

    #[test]
    fn draining_comes_before_all() {
        let health = Health::default();
        assert_eq!(health.ready(), Err(NotReady::Starting));
        health.set_spool_in_use(true);
        assert_eq!(health.ready(), Err(NotReady::SpoolInUse));
        health.start();
        assert_eq!(health.ready(), Err(NotReady::CannotHold));
        health.set_can_spool(true);
        assert_eq!(health.ready(), Ok(()), "an outage of Kafka is what the spool is for");
        health.set_can_spool(false);
        health.broker_responded();
        assert_eq!(health.ready(), Ok(()));
        health.drain();
        assert_eq!(health.ready(), Err(NotReady::Draining));
    }
}
