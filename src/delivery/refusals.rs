//! Shards of which Kafka refused an event lately. Where one event is refused and the next is not, the
//! order of the two is lost: of such a shard the forwarder sends one event at a time.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

/// How long a refusal is remembered.
const MEMORY: Duration = Duration::from_secs(3);

/// When each shard's last event was refused.
#[derive(Default)]
pub(super) struct Refusals {
    by_shard: Mutex<HashMap<usize, Instant>>,
    /// Most of the time there are none, and the lock is not needed.
    any: AtomicBool,
}

impl Refusals {
    /// Notes that an event of this shard was refused.
    pub fn note(&self, shard: usize) {
        let mut shards = self.by_shard.lock().unwrap_or_else(PoisonError::into_inner);
        shards.insert(shard, Instant::now());
        self.any.store(true, Ordering::SeqCst);
    }

    /// Whether an event of this shard was refused lately.
    pub fn has(&self, shard: usize) -> bool {
        if !self.any.load(Ordering::SeqCst) {
            return false;
        }
        let now = Instant::now();
        let mut shards = self.by_shard.lock().unwrap_or_else(PoisonError::into_inner);
        shards.retain(|_, refused| now.duration_since(*refused) < MEMORY);
        self.any.store(!shards.is_empty(), Ordering::SeqCst);
        shards.contains_key(&shard)
    }
}
