//! The client in use, and its replacement by the next.

use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use arc_swap::ArcSwap;
use tokio::sync::{Mutex, Notify};

use super::publisher::Publisher;
use super::send_queue::InFlightRecord;

/// A Kafka client as the sender task sees it: librdkafka's, or a simulated one.
pub(super) trait RecordSink: Send + Sync + 'static {
    /// Each replacement has the next.
    fn generation(&self) -> u64;

    /// Whether it waits itself for more records, as long as the operator has set.
    fn lingers(&self) -> bool;

    /// Takes a record. Its report comes through its send queue.
    fn send(&self, sent: Arc<InFlightRecord>);
}

/// The client in use, which the supervisor may replace.
pub(super) struct CurrentClient<C> {
    pub client: ArcSwap<C>,
    pub in_use: Arc<ProducerInUse>,
}

/// What publishers know of the client.
pub(super) struct ProducerInUse {
    /// Its generation; set after it came into use.
    generation: AtomicU64,
    replaced: Notify,
    /// Held while a record that was refused in a batch is sent alone.
    pub alone: Mutex<()>,
}

impl<C: RecordSink> CurrentClient<C> {
    pub fn new(client: C) -> Arc<CurrentClient<C>> {
        let in_use = Arc::new(ProducerInUse {
            generation: AtomicU64::new(client.generation()),
            replaced: Notify::new(),
            alone: Mutex::default(),
        });
        Arc::new(CurrentClient { client: ArcSwap::from_pointee(client), in_use })
    }

    pub fn generation(&self) -> u64 {
        self.client.load().generation()
    }

    /// Puts the next client into use. Returns the one that was.
    pub fn replace(&self, next: C) -> Arc<C> {
        let generation = next.generation();
        let old = self.client.swap(Arc::new(next));
        self.in_use.generation.store(generation, Ordering::SeqCst);
        self.in_use.replaced.notify_waiters();
        old
    }

    /// A publisher for one worker thread.
    pub fn publisher(&self) -> Publisher {
        Publisher { in_use: self.in_use.clone(), queue: Arc::default() }
    }
}

impl ProducerInUse {
    pub fn generation(&self) -> u64 {
        self.generation.load(Ordering::SeqCst)
    }

    /// Waits until a client of a later generation is in use.
    pub async fn replaced(&self, generation: u64) {
        loop {
            let mut replaced = pin!(self.replaced.notified());
            // Before the look, so that no replacement is missed.
            replaced.as_mut().enable();
            if self.generation() > generation {
                return;
            }
            replaced.await;
        }
    }
}
