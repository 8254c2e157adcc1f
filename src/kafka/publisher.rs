//! A record goes in, its acknowledgement or a [`Failure`] comes out.
//!
//! Delivery reports arrive on a thread of the Kafka client. Waking a request from there costs a
//! system call each, so reports are put into a mailbox of the worker that asked, which is woken only
//! when its mailbox was empty; a task on the worker's own thread then hands them out.

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
    mailbox: Arc<Mailbox>,
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
        Publisher { shared, mailbox: Arc::default() }
    }

    /// Hands out this publisher's delivery reports, on the thread whose requests wait for them.
    pub fn postman(&self) -> impl Future<Output = std::convert::Infallible> + Send + use<> {
        let mailbox = self.mailbox.clone();
        async move {
            loop {
                mailbox.filled.notified().await;
                for (reply, result) in mailbox.take() {
                    // A request that is gone no longer needs to know.
                    let _ = reply.send(result);
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
    pub async fn publish(&self, record: &Record) -> Result<Acknowledged, Failure> {
        let (generation, result) = self.attempt(record).await;
        let result = match result {
            Err(Failure { fault: Fault::ProducerFailed, .. }) => {
                let mut generations = self.shared.generation.subscribe();
                let _ = generations.wait_for(|current| *current > generation).await;
                self.attempt(record).await.1
            }
            result => result,
        };
        result.map(Acknowledged)
    }

    async fn attempt(&self, record: &Record) -> (u64, Result<(), Failure>) {
        let (ticket, verdict) = self.ticket(record);
        let (generation, sent) = {
            let producer = self.shared.current.load();
            (producer.generation, producer.send(record, ticket))
        };
        if let Err(failure) = sent {
            return (generation, Err(failure));
        }
        // Every enqueued record gets a report, also when its producer is dropped.
        let lost = Failure::new(RDKafkaErrorCode::PurgeInflight);
        (generation, verdict.await.unwrap_or(Err(lost)))
    }

    fn ticket(&self, record: &Record) -> (Box<Ticket>, oneshot::Receiver<Result<(), Failure>>) {
        let (reply, verdict) = oneshot::channel();
        let mailbox = self.mailbox.clone();
        let ticket = Ticket { reply, mailbox, webhook: record.webhook(), sent: Instant::now() };
        (Box::new(ticket), verdict)
    }
}

impl Producer {
    fn send(&self, record: &Record, ticket: Box<Ticket>) -> Result<(), Failure> {
        let headers = OwnedHeaders::new_with_capacity(record.headers().len());
        let headers = record.headers().iter().fold(headers, |headers, (key, value)| {
            headers.insert(Header { key, value: Some(value) })
        });
        let message = BaseRecord::with_opaque_to(record.topic(), ticket)
            .key(record.key())
            .payload(record.value())
            .timestamp(record.timestamp_ms())
            .headers(headers);
        self.client.send(message).map_err(|(error, message)| {
            let failure = Failure::new(code(&error));
            self.client.context().settle(message.delivery_opaque.webhook, Err(failure));
            failure
        })
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
    reply: oneshot::Sender<Result<(), Failure>>,
    mailbox: Arc<Mailbox>,
    webhook: usize,
    sent: Instant,
}

type Mail = Vec<(oneshot::Sender<Result<(), Failure>>, Result<(), Failure>)>;

/// Delivery reports on their way to one worker thread.
#[derive(Default)]
struct Mailbox {
    mail: Mutex<Mail>,
    filled: Notify,
}

impl Mailbox {
    fn put(&self, reply: oneshot::Sender<Result<(), Failure>>, result: Result<(), Failure>) {
        let mut mail = self.mail.lock().unwrap_or_else(PoisonError::into_inner);
        mail.push((reply, result));
        let was_empty = mail.len() == 1;
        drop(mail);
        if was_empty {
            self.filled.notify_one();
        }
    }

    fn take(&self) -> Mail {
        std::mem::take(&mut self.mail.lock().unwrap_or_else(PoisonError::into_inner))
    }
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
    /// Counts a record's end and asks the keeper for what it can do about it.
    fn settle(&self, webhook: usize, result: Result<(), Failure>) {
        let outcome = result.map_or_else(|f| f.fault.result(), |()| RecordResult::Acknowledged);
        self.metrics.topic(webhook).count(outcome);
        match result {
            Ok(()) => {}
            Err(Failure { fault: Fault::ProducerFailed, .. }) => {
                self.ask(Work::Replace(self.generation))
            }
            Err(Failure { fault: Fault::TimedOut | Fault::Refused, .. }) => self.ask(Work::Explain),
            Err(Failure { fault: Fault::QueueFull | Fault::TooLarge, .. }) => {}
        }
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
        let Ticket { reply, mailbox, webhook, sent } = *ticket;
        let result = report.as_ref().map(drop).map_err(|(error, _)| Failure::new(code(error)));
        if result.is_ok() {
            self.metrics.topic(webhook).ack_seconds.observe(sent.elapsed().as_secs_f64());
        }
        self.settle(webhook, result);
        mailbox.put(reply, result);
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
        if statistics.responses > seen.responses {
            seen.responses = statistics.responses;
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
