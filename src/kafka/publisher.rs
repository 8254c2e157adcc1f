//! A record goes in, its acknowledgement or a [`Failure`] comes out.
//!
//! Both ways lead through a post office, one for each worker thread, and its postman, a task on that
//! thread, because what is expensive is waking another thread:
//!
//! - Records wait in the outbox until the postman's turn, after all requests that are ready now, and
//!   are handed to the Kafka client together: it wakes up once and makes one batch of them.
//! - Delivery reports are handed out by the clerk, on one worker's thread, and put into the inboxes.
//!   Only the first wakes a postman, who then passes on all that are there.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use rdkafka::error::RDKafkaErrorCode;

use super::fault::{Failure, Fault};
use super::linger::Hint;
use super::post::{Parcel, PostOffice, Report, Terms};
use super::producer::Shared;
use crate::route::Record;

/// Proof that every in-sync replica has a record. Only a [`Sent`] record makes one.
#[derive(Debug)]
pub struct Acknowledged(());

/// Publishes records from one worker thread.
#[derive(Clone)]
pub struct Publisher {
    shared: Arc<Shared>,
    post: Arc<PostOffice>,
    linger: Option<Hint>,
}

impl Publisher {
    pub(super) fn new(shared: Arc<Shared>, linger: Option<Hint>) -> Publisher {
        Publisher { shared, post: Arc::default(), linger }
    }

    /// Carries records and reports; to be run on the thread whose requests publish.
    pub fn postman(&self) -> impl Future<Output = std::convert::Infallible> + Send + use<> {
        let Publisher { shared, post, linger } = self.clone();
        async move {
            let (mut reports, mut parcels) = (Vec::new(), Vec::new());
            loop {
                post.bell.notified().await;
                post.inbox.empty_into(&mut reports);
                for (parcel, report) in reports.drain(..) {
                    // Each is reported once.
                    let _ = parcel.report.set(report);
                }
                post.outbox.empty_into(&mut parcels);
                if parcels.is_empty() {
                    continue;
                }
                let producer = shared.current.load();
                for parcel in parcels.drain(..) {
                    let failures = post.failures.load(Ordering::SeqCst);
                    if parcel.terms.hold(producer.generation, failures) {
                        producer.send(parcel);
                    } else {
                        let gone = Err(Failure::new(RDKafkaErrorCode::PurgeQueue));
                        let report = Report { generation: producer.generation, result: gone };
                        let _ = parcel.report.set(report);
                    }
                }
                if let Some(hint) = &linger {
                    hint.give();
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
