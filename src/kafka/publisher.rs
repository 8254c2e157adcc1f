//! A record goes in, its acknowledgement or a [`Failure`] comes out.
//!
//! Both ways lead through a post office, one for each worker thread, and its postman, a task on that
//! thread, because what is expensive is waking another thread:
//!
//! - Records wait in the outbox until the postman's turn, after all requests that are ready now, and
//!   are handed to the Kafka client together: it wakes up once and makes one batch of them.
//! - Delivery reports arrive on a thread of the Kafka client and are put into the inbox. Only the
//!   first wakes the worker; the postman then hands out all that are there.

use std::collections::HashMap;
use std::sync::mpsc::SyncSender;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use arc_swap::ArcSwap;
use rdkafka::ClientContext;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::{DeliveryResult, Header, OwnedHeaders};
use rdkafka::producer::{BaseRecord, Producer as _, ProducerContext, ThreadedProducer};
use tokio::sync::{Notify, oneshot, watch};
use tokio::time::Instant;
use tracing::{debug, error, info, warn};

use super::fault::{self, Failure, Fault};
use super::keeper::Work;
use super::statistics::Statistics;
use crate::health::Health;
use crate::metrics::{Metrics, RecordResult};
use crate::route::Record;

/// Proof that every in-sync replica has a record. Only [`Publisher::publish`] makes one.
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
                for (record, reply) in post.outbox.take() {
                    producer.send(&record, reply, &post);
                }
            }
        }
    }

    /// Publishes a record and waits for Kafka's verdict, which comes within
    /// `kafka.ack_timeout_ms` and about another second; the caller holds the deadline. When the
    /// producer breaks down meanwhile, the record goes once more to its replacement: it may then be
    /// in the topic twice, with the same id.
    ///
    /// # Errors
    ///
    /// Why the record is not acknowledged.
    pub async fn publish(&self, record: Arc<Record>) -> Result<Acknowledged, Failure> {
        let mut report = self.attempt(record.clone()).await;
        if report.is_broken() {
            let mut generations = self.shared.generation.subscribe();
            let _ = generations.wait_for(|current| *current > report.generation).await;
            report = self.attempt(record).await;
        }
        report.result.map(Acknowledged)
    }

    async fn attempt(&self, record: Arc<Record>) -> Report {
        let (reply, report) = oneshot::channel();
        self.post.send(record, reply);
        // Every record gets a report, also when its producer is dropped.
        let lost = Err(Failure::new(RDKafkaErrorCode::PurgeInflight));
        report.await.unwrap_or(Report { generation: 0, result: lost })
    }
}

/// What became of a record, and which producer says so.
#[derive(Debug, Clone, Copy)]
struct Report {
    generation: u64,
    result: Result<(), Failure>,
}

impl Report {
    fn is_broken(&self) -> bool {
        matches!(self.result, Err(Failure { fault: Fault::ProducerFailed, .. }))
    }
}

type Reply = oneshot::Sender<Report>;

/// Records on their way out and reports on their way back, for one worker thread.
#[derive(Default)]
struct PostOffice {
    outbox: Letters<(Arc<Record>, Reply)>,
    inbox: Letters<(Reply, Report)>,
    bell: Notify,
}

impl PostOffice {
    fn send(&self, record: Arc<Record>, reply: Reply) {
        if self.outbox.put((record, reply)) {
            self.bell.notify_one();
        }
    }

    fn receive(&self, reply: Reply, report: Report) {
        if self.inbox.put((reply, report)) {
            self.bell.notify_one();
        }
    }
}

/// Letters in one direction. At most as many as there are requests in flight.
struct Letters<T>(Mutex<Vec<T>>);

impl<T> Default for Letters<T> {
    fn default() -> Letters<T> {
        Letters(Mutex::default())
    }
}

impl<T> Letters<T> {
    /// True for the first one since the box was emptied.
    fn put(&self, letter: T) -> bool {
        let mut letters = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        letters.push(letter);
        letters.len() == 1
    }

    fn take(&self) -> Vec<T> {
        std::mem::take(&mut *self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Producer {
    fn send(&self, record: &Record, reply: Reply, post: &Arc<PostOffice>) {
        let post = post.clone();
        let ticket = Ticket { reply, post, webhook: record.webhook(), sent: Instant::now() };
        let headers = OwnedHeaders::new_with_capacity(record.headers().len());
        let headers = record.headers().iter().fold(headers, |headers, (key, value)| {
            headers.insert(Header { key, value: Some(value) })
        });
        let message = BaseRecord::with_opaque_to(record.topic(), Box::new(ticket))
            .key(record.key())
            .payload(record.value())
            .timestamp(record.timestamp_ms())
            .headers(headers);
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

fn code(error: &KafkaError) -> RDKafkaErrorCode {
    error.rdkafka_error_code().unwrap_or(RDKafkaErrorCode::Fail)
}

/// Travels with a record through the client and comes back with its report.
pub(super) struct Ticket {
    reply: Reply,
    post: Arc<PostOffice>,
    webhook: usize,
    sent: Instant,
}

/// How often the same trouble with a broker is worth a log line.
const COMPLAINT_INTERVAL: Duration = Duration::from_secs(10);

/// What the Kafka client calls back: reports, statistics, errors, log lines.
pub(super) struct Context {
    pub generation: u64,
    pub metrics: Arc<Metrics>,
    pub health: Arc<Health>,
    pub work: SyncSender<Work>,
    pub seen: Mutex<SoFar>,
}

/// What was seen so far, to notice what is new.
#[derive(Default)]
pub(super) struct SoFar {
    responses: u64,
    is_silent: bool,
    /// By error code.
    complaints: HashMap<i32, Instant>,
}

impl Context {
    /// Counts a record's end, asks the keeper for what it can do about it, and reports.
    fn settle(&self, ticket: Ticket, result: Result<(), Failure>) {
        let topic = self.metrics.topic(ticket.webhook);
        match result {
            Ok(()) => topic.ack_seconds.observe(ticket.sent.elapsed().as_secs_f64()),
            Err(failure) => match failure.fault {
                Fault::ProducerFailed => self.ask(Work::Replace(self.generation)),
                Fault::TimedOut | Fault::Refused => self.ask(Work::Explain),
                Fault::QueueFull | Fault::TooLarge => {}
            },
        }
        topic.count(result.map_or_else(|f| f.fault.result(), |()| RecordResult::Acknowledged));
        ticket.post.receive(ticket.reply, Report { generation: self.generation, result });
    }

    fn ask(&self, work: Work) {
        // The keeper has more than enough to do if its queue is full, and the next failure asks again.
        let _ = self.work.try_send(work);
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, SoFar> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn may_complain(&self, code: RDKafkaErrorCode) -> bool {
        let now = Instant::now();
        let mut seen = self.lock();
        let last = seen.complaints.get(&(code as i32));
        let due = last.is_none_or(|last| now.duration_since(*last) >= COMPLAINT_INTERVAL);
        if due {
            seen.complaints.insert(code as i32, now);
        }
        due
    }
}

impl ProducerContext for Context {
    type DeliveryOpaque = Box<Ticket>;

    fn delivery(&self, report: &DeliveryResult<'_>, ticket: Box<Ticket>) {
        let result = report.as_ref().map(drop).map_err(|(error, _)| Failure::new(code(error)));
        self.settle(*ticket, result);
    }
}

impl ClientContext for Context {
    fn stats_raw(&self, json: &[u8]) {
        let statistics = match Statistics::read(json) {
            Ok(statistics) => statistics,
            Err(error) => return warn!(%error, "The Kafka client's statistics cannot be read."),
        };
        self.metrics.kafka_queue.set(statistics.queued);
        self.metrics.kafka_brokers_up.set(statistics.brokers_up);
        let mut seen = self.lock();
        // Fewer than before means that a broker went away.
        if statistics.responses > std::mem::replace(&mut seen.responses, statistics.responses) {
            self.health.hear();
            if std::mem::take(&mut seen.is_silent) {
                info!("Kafka brokers are heard from again.");
            }
        }
    }

    fn error(&self, error: KafkaError, reason: &str) {
        let code = code(&error);
        let what_to_do = fault::advice(code);
        if code == RDKafkaErrorCode::Fatal {
            error!(reason, "The Kafka producer failed for good and is being replaced.");
            self.ask(Work::Replace(self.generation));
        } else if code == RDKafkaErrorCode::AllBrokersDown {
            if !std::mem::replace(&mut self.lock().is_silent, true) {
                error!(reason, what_to_do, "No Kafka broker is up.");
            }
        } else if self.may_complain(code) {
            warn!(%code, reason, what_to_do, "Trouble with a Kafka broker.");
        }
    }

    fn log(&self, level: RDKafkaLogLevel, facility: &str, text: &str) {
        // What an operator must know comes through `error` above, once.
        if level as i32 <= RDKafkaLogLevel::Critical as i32 {
            error!(target: "librdkafka", facility, "{text}");
        } else {
            debug!(target: "librdkafka", facility, "{text}");
        }
    }
}
