//! The send queue of one worker thread: records that go to the Kafka client, and delivery reports
//! that come back.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::{Notify, SetOnce};
use tokio::time::Instant;

use super::fault::Failure;
use crate::click::record::Record;

/// Proof that every in-sync replica has a record. Only a delivery report makes one.
#[derive(Debug)]
pub struct Acknowledged(());

/// What became of a record, and which producer says so.
#[derive(Debug, Clone, Copy)]
pub(super) struct DeliveryReport {
    pub generation: u64,
    pub result: Result<(), Failure>,
}

impl DeliveryReport {
    pub fn verdict(self) -> Result<Acknowledged, Failure> {
        self.result.map(Acknowledged)
    }
}

/// A record that the Kafka client has, or is about to get. The sender task, the client and the request that
/// waits share it.
pub struct InFlightRecord {
    record: Record,
    pub(super) preconditions: Preconditions,
    pub(super) sent_at: Instant,
    pub(super) report: SetOnce<DeliveryReport>,
    queue: Arc<SendQueue>,
}

/// What must still be true for a record to be handed to the Kafka client when its turn comes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Preconditions {
    /// The producer in use is of this generation.
    pub generation: Option<u64>,
    /// No more records of this publisher than these have failed.
    pub failures: Option<u64>,
}

impl Preconditions {
    pub(super) fn are_met(self, generation: u64, failures: u64) -> bool {
        self.generation.is_none_or(|wanted| wanted == generation)
            && self.failures.is_none_or(|known| known == failures)
    }
}

impl InFlightRecord {
    pub fn record(&self) -> &Record {
        &self.record
    }

    /// Waits for Kafka's verdict. May be given up and called again.
    ///
    /// # Errors
    ///
    /// Why the record is not acknowledged.
    pub async fn verdict(&self) -> Result<Acknowledged, Failure> {
        self.wait().await.verdict()
    }

    /// Every record gets a report, also when its producer is closed.
    pub(super) async fn wait(&self) -> DeliveryReport {
        *self.report.wait().await
    }

    /// Queues the report for the sender task, which wakes the request that waits.
    pub(super) fn put_report(self: Arc<InFlightRecord>, report: DeliveryReport) {
        let queue = self.queue.clone();
        if report.result.is_err() {
            queue.failures.fetch_add(1, Ordering::SeqCst);
        }
        if queue.reports.put((self, report)) {
            queue.wakeup.notify_one();
        }
    }
}

/// Records that go out and reports that come back, for one worker thread.
#[derive(Default)]
pub(super) struct SendQueue {
    pub records: Queue<Arc<InFlightRecord>>,
    pub reports: Queue<(Arc<InFlightRecord>, DeliveryReport)>,
    /// Wakes the sender task.
    pub wakeup: Notify,
    /// Records that failed so far.
    pub failures: AtomicU64,
}

impl SendQueue {
    pub fn put(
        self: &Arc<Self>,
        record: Record,
        preconditions: Preconditions,
    ) -> Arc<InFlightRecord> {
        let (sent_at, report, queue) = (Instant::now(), SetOnce::new(), self.clone());
        let sent = Arc::new(InFlightRecord { record, preconditions, sent_at, report, queue });
        if self.records.put(sent.clone()) {
            self.wakeup.notify_one();
        }
        sent
    }
}

/// One direction of a send queue. It holds at most as many items as there are requests in flight, or as
/// the forwarder sends at once.
pub(super) struct Queue<T>(Mutex<Vec<T>>);

impl<T> Default for Queue<T> {
    fn default() -> Queue<T> {
        Queue(Mutex::default())
    }
}

impl<T> Queue<T> {
    fn lock(&self) -> MutexGuard<'_, Vec<T>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// True for the first item since the queue was emptied.
    fn put(&self, item: T) -> bool {
        let mut items = self.lock();
        items.push(item);
        items.len() == 1
    }

    pub fn is_empty(&self) -> bool {
        self.lock().is_empty()
    }

    /// Moves all items into an empty vector, and takes its memory for the next ones.
    pub fn take_into(&self, empty: &mut Vec<T>) {
        std::mem::swap(empty, &mut *self.lock());
    }
}
