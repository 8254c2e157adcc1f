//! A record goes in, its acknowledgement or a [`Failure`] comes out.
//!
//! Both ways lead through a post office, one for each worker thread, and its postman, a task on that
//! thread, because what is expensive is waking another thread:
//!
//! - Records wait in the outbox until the postman's turn, after all requests that are ready now, and
//!   are handed to the Kafka client together: it wakes up once and makes one batch of them.
//! - Delivery reports arrive on a thread of the Kafka client and are put into the inbox. Only the
//!   first wakes the worker; the postman then hands out all that are there.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use arc_swap::ArcSwap;
use rdkafka::error::RDKafkaErrorCode;
use rdkafka::message::{Header, OwnedHeaders};
use rdkafka::producer::{BaseRecord, Producer as _, ThreadedProducer};
use tokio::sync::{oneshot, watch};
use tokio::time::Instant;

use super::context::{Context, code};
use super::fault::Failure;
use super::post::{Letter, PostOffice, Reply, Report, Terms, Ticket};
use crate::route::Record;

/// Proof that every in-sync replica has a record. Only a [`Sent`] record makes one.
#[derive(Debug)]
pub struct Acknowledged(());

/// Publishes records from one worker thread.
#[derive(Clone)]
pub struct Publisher {
    shared: Arc<Shared>,
    post: Arc<PostOffice>,
}

/// The producer in use, which the keeper may replace.
pub(super) struct Shared {
    pub current: ArcSwap<Producer>,
    /// The generation of `current`, for those who wait for the next.
    pub generation: watch::Sender<u64>,
}

/// A producer; each replacement has the next generation.
pub(super) struct Producer {
    pub generation: u64,
    pub client: ThreadedProducer<Context>,
}

impl Publisher {
    pub(super) fn new(shared: Arc<Shared>) -> Publisher {
        Publisher { shared, post: Arc::default() }
    }

    /// Carries records and reports; to be run on the thread whose requests publish.
    pub fn postman(&self) -> impl Future<Output = std::convert::Infallible> + Send + use<> {
        let Publisher { shared, post } = self.clone();
        async move {
            loop {
                post.bell.notified().await;
                for (reply, report) in post.inbox.take() {
                    // A request that is gone no longer needs to know.
                    let _ = reply.send(report);
                }
                let producer = shared.current.load();
                for Letter { record, terms, reply } in post.outbox.take() {
                    let failures = post.failures.load(Ordering::SeqCst);
                    if terms.hold(producer.generation, failures) {
                        producer.send(&record, reply, &post);
                    } else {
                        let gone = Err(Failure::new(RDKafkaErrorCode::PurgeQueue));
                        let report = Report { generation: producer.generation, result: gone };
                        let _ = reply.send(report);
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
    pub fn send(&self, record: Arc<Record>, terms: Terms) -> Sent {
        let (reply, report) = oneshot::channel();
        self.post.send(Letter { record, terms, reply });
        Sent(report)
    }

    /// Publishes a record and waits for Kafka's verdict, which without a spool comes within
    /// `kafka.ack_timeout_ms` and about another second; the caller holds the deadline. When the
    /// producer breaks down meanwhile, the record goes once more to its replacement: it may then be
    /// in the topic twice, with the same id.
    ///
    /// # Errors
    ///
    /// Why the record is not acknowledged.
    pub async fn publish(&self, record: Arc<Record>) -> Result<Acknowledged, Failure> {
        let mut report = self.send(record.clone(), Terms::default()).report().await;
        if report.is_broken() {
            let mut generations = self.shared.generation.subscribe();
            let _ = generations.wait_for(|current| *current > report.generation).await;
            report = self.send(record, Terms::default()).report().await;
        }
        report.result.map(Acknowledged)
    }
}

/// A record that the Kafka client has.
pub struct Sent(oneshot::Receiver<Report>);

impl Sent {
    /// Waits for Kafka's verdict. May be given up and called again.
    ///
    /// # Errors
    ///
    /// Why the record is not acknowledged.
    pub async fn verdict(&mut self) -> Result<Acknowledged, Failure> {
        self.report().await.result.map(Acknowledged)
    }

    async fn report(&mut self) -> Report {
        // Every record gets a report, also when its producer is dropped.
        let lost = Err(Failure::new(RDKafkaErrorCode::PurgeInflight));
        (&mut self.0).await.unwrap_or(Report { generation: 0, result: lost })
    }
}

impl Producer {
    fn send(&self, record: &Record, reply: Reply, post: &Arc<PostOffice>) {
        let post = post.clone();
        let ticket = Ticket { reply, post, topic: record.topic().clone(), sent: Instant::now() };
        let headers = OwnedHeaders::new_with_capacity(record.headers().len());
        let headers = record.headers().iter().fold(headers, |headers, (key, value)| {
            headers.insert(Header { key, value: Some(value.as_ref()) })
        });
        let message = BaseRecord::with_opaque_to(record.topic(), Box::new(ticket))
            .payload(record.value())
            .timestamp(record.timestamp_ms())
            .headers(headers);
        let message = BaseRecord { key: record.key(), ..message };
        if let Err((error, message)) = self.client.send(message) {
            let failure = Failure::new(code(&error));
            self.client.context().settle(*message.delivery_opaque, Err(failure));
        }
    }

    /// Records that have no report yet.
    pub fn in_flight(&self) -> usize {
        usize::try_from(self.client.in_flight_count()).unwrap_or(0)
    }
}
