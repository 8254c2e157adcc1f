//! The send queue of one worker thread: records that go to the Kafka client, and delivery reports
//! that come back.

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::sync::{Notify, SetOnce};
use tokio::time::error::Elapsed;
use tokio::time::{Instant, timeout_at};

use super::fault::Failure;
use crate::click::record::Record;
use crate::observe::lock;

/// Proof that every in-sync replica has a record. Only a delivery report makes one.
#[derive(Debug)]
pub struct Acknowledged(());

/// What became of a record.
pub(super) type DeliveryReport = Result<(), Failure>;

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

    /// Waits for Kafka's verdict. Every record gets one, also when its producer is closed. May be given up
    /// and called again.
    ///
    /// # Errors
    ///
    /// Why the record is not acknowledged.
    pub async fn verdict(&self) -> Result<Acknowledged, Failure> {
        self.report.wait().await.map(Acknowledged)
    }

    /// Waits for the verdict until so much time has passed since the record was sent.
    ///
    /// # Errors
    ///
    /// There is none yet.
    pub async fn verdict_within(
        &self,
        time: Duration,
    ) -> Result<Result<Acknowledged, Failure>, Elapsed> {
        timeout_at(self.sent_at + time, self.verdict()).await
    }

    /// Queues the report for the sender task, which wakes the request that waits.
    pub(super) fn put_report(self: Arc<InFlightRecord>, report: DeliveryReport) {
        let queue = self.queue.clone();
        if report.is_err() {
            queue.failures.fetch_add(1, Ordering::SeqCst);
        }
        queue.put(&queue.reports, (self, report), 1);
    }
}

/// Records that go out and reports that come back, for one worker thread. Each direction holds at most as
/// many as there are requests in flight, or as the forwarder sends at once.
#[derive(Default)]
pub(super) struct SendQueue {
    pub records: Mutex<Vec<Arc<InFlightRecord>>>,
    pub reports: Mutex<Vec<(Arc<InFlightRecord>, DeliveryReport)>>,
    /// Wakes the sender task.
    pub wakeup: Notify,
    /// How many records that wait wake it, besides the first.
    pub wakes_at: AtomicUsize,
    /// Records that failed so far.
    pub failures: AtomicU64,
}

impl SendQueue {
    pub fn put_record(
        self: &Arc<Self>,
        record: Record,
        preconditions: Preconditions,
    ) -> Arc<InFlightRecord> {
        let (sent_at, report, queue) = (Instant::now(), SetOnce::new(), self.clone());
        let sent = Arc::new(InFlightRecord { record, preconditions, sent_at, report, queue });
        let wakes_at = self.wakes_at.load(Ordering::Relaxed);
        self.put(&self.records, sent.clone(), wakes_at);
        sent
    }

    /// Adds an item to one direction. The first since that was emptied wakes the sender task, and the one with
    /// this number.
    fn put<T>(&self, direction: &Mutex<Vec<T>>, item: T, wakes_at: usize) {
        let mut items = lock(direction);
        items.push(item);
        if items.len() == 1 || items.len() == wakes_at {
            drop(items);
            self.wakeup.notify_one();
        }
    }
}
