//! Lanes of which Kafka refused an event lately. Where one event is refused and the next is not, the
//! order of the two is lost: in such a lane the drain sends one event at a time.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

/// How long a refusal is remembered.
const MEMORY: Duration = Duration::from_secs(3);

/// When each lane's last event was refused.
#[derive(Default)]
pub struct Refusals {
    by_lane: Mutex<HashMap<usize, Instant>>,
    /// Whether there are any: most of the time there are none.
    any: AtomicBool,
}

impl Refusals {
    /// Notes that an event of this lane was refused.
    pub fn note(&self, lane: usize) {
        let mut lanes = self.by_lane.lock().unwrap_or_else(PoisonError::into_inner);
        lanes.insert(lane, Instant::now());
        self.any.store(true, Ordering::SeqCst);
    }

    /// Whether one was, lately.
    pub fn has(&self, lane: usize) -> bool {
        if !self.any.load(Ordering::SeqCst) {
            return false;
        }
        let mut lanes = self.by_lane.lock().unwrap_or_else(PoisonError::into_inner);
        lanes.retain(|_, refused| refused.elapsed() < MEMORY);
        self.any.store(!lanes.is_empty(), Ordering::SeqCst);
        lanes.contains_key(&lane)
    }
}
