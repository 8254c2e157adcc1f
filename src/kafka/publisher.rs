//! A record goes in, its acknowledgement or a [`Failure`] comes out.
//!
//! Waking another thread is expensive, so each worker thread has a send queue and a sender task that works
//! in batches:
//!
//! - Records wait in the send queue until the sender task's turn, which comes after all requests that are
//!   ready now, and longer where others are about to come (`batching.rs`). It hands them to the Kafka client
//!   together: the client wakes up once and makes one batch of them.
//! - The delivery-report poller runs on one worker's thread and puts each report into the send queue that
//!   the record came from. Only the first report wakes the sender task, which then passes on all of them.

use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use jiff::Timestamp;
use rdkafka::error::RDKafkaErrorCode;
use tokio::time::{Instant, timeout_at};

use super::batching::{Batching, Turn};
use super::current::{CurrentClient, ProducerInUse, RecordSink};
use super::fault::{Failure, Fault, Remedy};
use super::send_queue::{Acknowledged, InFlightRecord, Preconditions, SendQueue};
use crate::click::record::Record;
use crate::observe::lock;

/// Publishes records from one worker thread.
#[derive(Clone)]
pub struct Publisher {
    pub(super) in_use: Arc<ProducerInUse>,
    pub(super) queue: Arc<SendQueue>,
}

impl<C: RecordSink> CurrentClient<C> {
    /// Moves the records and reports of a publisher; to be run on the thread whose requests publish.
    pub fn sender_task(
        self: Arc<Self>,
        publisher: &Publisher,
    ) -> impl Future<Output = Infallible> + Send + use<C> {
        let queue = publisher.queue.clone();
        async move {
            let (mut reports, mut records) = (Vec::new(), Vec::new());
            let mut batching = Batching::new(!self.client.load().lingers(), Instant::now());
            let mut wait_until = None;
            loop {
                match wait_until {
                    Some(until) => drop(timeout_at(until, queue.wakeup.notified()).await),
                    None => queue.wakeup.notified().await,
                }
                std::mem::swap(&mut reports, &mut *lock(&queue.reports));
                let waiting = lock(&queue.records).len();
                batching.reported(reports.len(), waiting);
                for (sent, report) in reports.drain(..) {
                    // It was not set before: each record is reported once.
                    let _ = sent.report.set(report);
                }
                if waiting == 0 {
                    continue;
                }
                if let Turn::Wait { until, records } = batching.turn(Instant::now(), waiting) {
                    queue.wakes_at.store(records, Ordering::Relaxed);
                    wait_until = Some(until);
                    continue;
                }
                wait_until = None;
                std::mem::swap(&mut records, &mut *lock(&queue.records));
                let mut sent_records = 0;
                let client = self.client.load();
                for sent in records.drain(..) {
                    let failures = queue.failures.load(Ordering::SeqCst);
                    if sent.preconditions.are_met(client.generation(), failures) {
                        sent_records += 1;
                        client.send(sent);
                    } else {
                        let failure = Failure::new(RDKafkaErrorCode::PurgeQueue);
                        let _ = sent.report.set(Err(failure));
                    }
                }
                batching.handed_over(Instant::now(), sent_records);
            }
        }
    }
}

impl Publisher {
    /// The generation of the producer in use.
    pub fn generation(&self) -> u64 {
        self.in_use.generation()
    }

    /// How many records sent by this publisher have failed.
    pub fn failures(&self) -> u64 {
        self.queue.failures.load(Ordering::SeqCst)
    }

    /// Queues a record for the Kafka client, which gets it if the preconditions are met when its turn comes.
    /// The caller holds the deadline of the verdict: with a spool, the client does not give up by itself.
    pub fn send(&self, record: Record, preconditions: Preconditions) -> Arc<InFlightRecord> {
        self.queue.put_record(record, preconditions)
    }

    /// Publishes a record and waits for Kafka's verdict on it: a record that is refused in a batch is sent
    /// again, and one that is refused for its timestamp has another then. Without a spool each verdict comes
    /// within `kafka.ack_timeout_ms` and about another second; the caller holds the deadline.
    ///
    /// # Errors
    ///
    /// Why the record is not acknowledged.
    pub async fn publish(&self, record: &Record) -> Result<Acknowledged, Failure> {
        let mut verdict = self.publish_in_batch(record).await;
        if verdict.as_ref().is_err_and(Failure::may_be_of_timestamp)
            && let Some(restamped) = record.restamped(Timestamp::now())
        {
            // Not alone, because a body may carry many old events.
            verdict = self.publish_in_batch(&restamped).await;
        }
        match verdict {
            Err(failure) if failure.may_be_of_another() || failure.may_be_of_timestamp() => {
                self.publish_alone(record).await
            }
            verdict => verdict,
        }
    }

    /// Sends a record that was refused in a batch, one such record at a time.
    async fn publish_alone(&self, record: &Record) -> Result<Acknowledged, Failure> {
        let _turn = self.in_use.alone.lock().await;
        let mut record = record.clone();
        loop {
            let verdict = self.publish_in_batch(&record).await;
            let Err(failure) = verdict else { return verdict };
            // Records that have just come may be in its batch.
            let restamped = record.restamped(Timestamp::now());
            match (failure.remedy(), restamped) {
                (Remedy::TryAgain, _) if failure.may_be_of_another() => {}
                (_, Some(restamped)) if failure.may_be_of_timestamp() => record = restamped,
                _ => return Err(failure),
            }
        }
    }

    /// Publishes a record with what else is ready. When the producer breaks down meanwhile, the record goes
    /// once more to its replacement; when its acknowledgement is unproven, once more to the same producer. It
    /// may then be in the topic twice, with the same id.
    async fn publish_in_batch(&self, record: &Record) -> Result<Acknowledged, Failure> {
        let generation = self.generation();
        // To a replacement as well, if that comes first: before what comes after it.
        let verdict = self.send(record.clone(), Preconditions::default()).verdict().await;
        match verdict.as_ref().map_err(|failure| failure.fault) {
            Err(Fault::ProducerFailed) => self.in_use.replaced(generation).await,
            Err(Fault::Unproven) => {}
            _ => return verdict,
        }
        self.send(record.clone(), Preconditions::default()).verdict().await
    }
}
