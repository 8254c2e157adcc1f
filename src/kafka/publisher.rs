//! A record goes in, its acknowledgement or a [`Failure`] comes out.
//!
//! Both ways lead through a post office, one for each worker thread, and its postman, a task on that
//! thread, because what is expensive is waking another thread:
//!
//! - Records wait in the outbox until the postman's turn, after all requests that are ready now, and
//!   are handed to the Kafka client together: it wakes up once and makes one batch of them. Where many
//!   are on their way they wait a little longer, so that batches are larger where it counts.
//! - Delivery reports are handed out by the clerk, on one worker's thread, and put into the inboxes.
//!   Only the first wakes a postman, who then passes on all that are there.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use rdkafka::error::RDKafkaErrorCode;
use tokio::time::{Instant, timeout_at};

use super::fault::{Failure, Fault};
use super::producer::Shared;
use super::send_queue::{Parcel, PostOffice, Report, Terms};
use crate::click::record::Record;

/// While so many records of one thread are on their way, the next ones wait for company: until fewer are, or
/// for as long as said below. With 256 connections, 12 partitions and campaigns that are equally busy a
/// click took a quarter less CPU by it, half of the broker's, and half as many clicks more went through; where
/// few campaigns are busy it made no difference. From 48 on it would cost 64 connections 5 %.
const CROWD: usize = 128;

/// Less than a sender notices. The Kafka client's own `linger.ms` comes on top. While a partition is away for
/// long and many late records stay with the client, all others of the thread wait so.
const COMPANY_WAIT: Duration = Duration::from_millis(5);

/// Proof that every in-sync replica has a record. Only a [`Sent`] record makes one.
#[derive(Debug)]
pub struct Acknowledged(());

/// Publishes records from one worker thread.
#[derive(Clone)]
pub struct Publisher {
    shared: Arc<Shared>,
    post: Arc<PostOffice>,
}

impl Publisher {
    pub(super) fn new(shared: Arc<Shared>) -> Publisher {
        Publisher { shared, post: Arc::default() }
    }

    /// Carries records and reports; to be run on the thread whose requests publish.
    pub fn postman(&self) -> impl Future<Output = std::convert::Infallible> + Send + use<> {
        let Publisher { shared, post } = self.clone();
        async move {
            let (mut reports, mut parcels) = (Vec::new(), Vec::new());
            let (mut on_their_way, mut company) = (0_usize, None);
            loop {
                match company {
                    Some(until) => drop(timeout_at(until, post.bell.notified()).await),
                    None => post.bell.notified().await,
                }
                post.inbox.empty_into(&mut reports);
                on_their_way = on_their_way.saturating_sub(reports.len());
                for (parcel, report) in reports.drain(..) {
                    // Each is reported once.
                    let _ = parcel.report.set(report);
                }
                if post.outbox.is_empty() {
                    continue;
                }
                if on_their_way >= CROWD {
                    let now = Instant::now();
                    if now < *company.get_or_insert(now + COMPANY_WAIT) {
                        continue;
                    }
                }
                company = None;
                post.outbox.empty_into(&mut parcels);
                let producer = shared.current.load();
                for parcel in parcels.drain(..) {
                    let failures = post.failures.load(Ordering::SeqCst);
                    if parcel.terms.hold(producer.generation, failures) {
                        on_their_way += 1;
                        producer.send(parcel);
                    } else {
                        let gone = Err(Failure::new(RDKafkaErrorCode::PurgeQueue));
                        let report = Report { generation: producer.generation, result: gone };
                        let _ = parcel.report.set(report);
                    }
                }
            }
        }
    }

    /// The generation of the producer in use.
    pub fn generation(&self) -> u64 {
        self.shared.current.load().generation
    }

    /// How many records sent by this publisher have failed.
    pub fn failures(&self) -> u64 {
        self.post.failures.load(Ordering::SeqCst)
    }

    /// Hands a record to the Kafka client, if the terms hold when its turn comes. What becomes of it
    /// is to be awaited from the result, with a deadline: with a spool, the client does not give up by
    /// itself.
    pub fn send(&self, record: Record, terms: Terms) -> Sent {
        Sent(self.post.send(record, terms))
    }

    /// Publishes a record and waits for Kafka's verdict, which without a spool comes within
    /// `kafka.ack_timeout_ms` and about another second; the caller holds the deadline. When the
    /// producer breaks down meanwhile, the record goes once more to its replacement; when its
    /// acknowledgement is unproven, once more to the same one. It may then be in the topic twice, with
    /// the same id.
    ///
    /// # Errors
    ///
    /// Why the record is not acknowledged.
    pub async fn publish(&self, record: &Record) -> Result<Acknowledged, Failure> {
        let send = || self.send(record.clone(), Terms::default());
        let mut report = send().report().await;
        if report.fault() == Some(Fault::ProducerFailed) {
            let mut generations = self.shared.generation.subscribe();
            let _ = generations.wait_for(|current| *current > report.generation).await;
            report = send().report().await;
        } else if report.fault() == Some(Fault::Unproven) {
            report = send().report().await;
        }
        report.result.map(Acknowledged)
    }
}

/// A record that the Kafka client has, or is about to get.
pub struct Sent(Arc<Parcel>);

impl Sent {
    pub fn record(&self) -> &Record {
        &self.0.record
    }

    /// Waits for Kafka's verdict. May be given up and called again.
    ///
    /// # Errors
    ///
    /// Why the record is not acknowledged.
    pub async fn verdict(&self) -> Result<Acknowledged, Failure> {
        self.report().await.result.map(Acknowledged)
    }

    /// Every record gets a report, also when its producer is let go.
    async fn report(&self) -> Report {
        *self.0.report.wait().await
    }
}
