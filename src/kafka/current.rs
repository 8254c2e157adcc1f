//! The client in use, and its replacement by the next.

use std::sync::Arc;

use arc_swap::ArcSwap;
use tokio::sync::{Mutex, watch};

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
    pub generation: watch::Sender<u64>,
    /// Held while a record that was refused in a batch is sent alone.
    pub alone: Mutex<()>,
}

impl<C: RecordSink> CurrentClient<C> {
    pub fn new(client: C) -> Arc<CurrentClient<C>> {
        let (generation, alone) = (watch::Sender::new(client.generation()), Mutex::default());
        let in_use = Arc::new(ProducerInUse { generation, alone });
        Arc::new(CurrentClient { client: ArcSwap::from_pointee(client), in_use })
    }

    pub fn generation(&self) -> u64 {
        self.client.load().generation()
    }

    /// Puts the next client into use. Returns the one that was.
    pub fn replace(&self, next: C) -> Arc<C> {
        let generation = next.generation();
        let old = self.client.swap(Arc::new(next));
        self.in_use.generation.send_replace(generation);
        old
    }

    /// A publisher for one worker thread.
    pub fn publisher(&self) -> Publisher {
        Publisher { in_use: self.in_use.clone(), queue: Arc::default() }
    }
}
