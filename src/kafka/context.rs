//! Callbacks of the Kafka client, on the thread that polls it (`client.rs`): delivery reports, statistics,
//! errors, log lines.

use std::collections::HashMap;
use std::sync::mpsc::SyncSender;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use rdkafka::ClientContext;
use rdkafka::Offset;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::{DeliveryResult, Message};
use rdkafka::producer::ProducerContext;
use tokio::time::Instant;
use tracing::{debug, error, info, warn};

use super::access::one_line;
use super::circuit_breaker::CircuitBreaker;
use super::fault::{self, Failure, Fault};
use super::send_queue::{DeliveryReport, InFlightRecord};
use super::statistics::Statistics;
use crate::observe::health::Health;
use crate::observe::lock;
use crate::observe::metrics::{Metrics, RecordResult};

/// What the supervisor is asked to do.
#[derive(Debug)]
pub(super) enum SupervisorRequest {
    /// Replace the producer, if it is still of this generation.
    Replace(u64),
    /// Log what is wrong with the topics.
    Explain,
    Stop,
}

/// How often the same trouble with a broker is worth a log line.
const COMPLAINT_INTERVAL: Duration = Duration::from_secs(10);

/// The receivers of what the client reports.
#[derive(Clone)]
pub(super) struct Subscribers {
    pub metrics: Arc<Metrics>,
    pub health: Arc<Health>,
    pub breaker: Arc<CircuitBreaker>,
    pub supervisor: SyncSender<SupervisorRequest>,
}

/// What librdkafka calls back.
pub(super) struct Context {
    pub generation: u64,
    pub subscribers: Subscribers,
    pub observed: Mutex<Observed>,
}

/// What was reported so far, to notice what is new.
#[derive(Default)]
pub(super) struct Observed {
    responses: u64,
    is_silent: bool,
    /// By error code.
    complaints: HashMap<i32, Instant>,
}

impl Context {
    /// Counts what became of a record, asks the supervisor for help where it can help, and reports.
    pub fn settle(&self, sent: Arc<InFlightRecord>, result: DeliveryReport) {
        let topic = self.subscribers.metrics.topic(sent.record().topic());
        match result {
            Ok(()) => {
                self.subscribers.breaker.succeeded();
                topic.ack_seconds.observe(sent.sent_at.elapsed().as_secs_f64());
                if sent.record().is_restamped() {
                    self.subscribers.metrics.restamped(sent.record().webhook());
                }
            }
            Err(failure) => match failure.fault {
                Fault::ProducerFailed => self.replace(),
                Fault::TimedOut | Fault::Refused => self.request(SupervisorRequest::Explain),
                Fault::Timestamp if self.may_complain(RDKafkaErrorCode::InvalidTimestamp) => {
                    let (topic, reason) = (&**sent.record().topic(), failure.explain());
                    warn!(topic, reason, "An event is sent again with another timestamp.");
                }
                Fault::Timestamp
                | Fault::NotTried
                | Fault::Unproven
                | Fault::TooLarge
                | Fault::Corrupt => {}
            },
        }
        let ended = result.map_or_else(|f| f.fault.result(), |()| RecordResult::Acknowledged);
        topic.records[ended].inc();
        sent.put_report(result);
    }

    /// Has the producer replaced. The circuit breaker opens first: what this producer still has must be in
    /// the spool before anything goes directly to the next one.
    fn replace(&self) {
        self.subscribers.breaker.open("the Kafka producer broke down");
        self.request(SupervisorRequest::Replace(self.generation));
    }

    fn request(&self, request: SupervisorRequest) {
        // The supervisor has more than enough to do if its queue is full, and the next failure asks again.
        let _ = self.subscribers.supervisor.try_send(request);
    }

    fn may_complain(&self, code: RDKafkaErrorCode) -> bool {
        let now = Instant::now();
        let mut observed = lock(&self.observed);
        let last = observed.complaints.get(&(code as i32));
        let is_due = last.is_none_or(|last| now.duration_since(*last) >= COMPLAINT_INTERVAL);
        if is_due {
            observed.complaints.insert(code as i32, now);
        }
        is_due
    }
}

impl ProducerContext for Context {
    type DeliveryOpaque = Arc<InFlightRecord>;

    fn delivery(&self, report: &DeliveryResult<'_>, sent: Arc<InFlightRecord>) {
        let result = match report {
            // The broker's answer gives each record its offset. Without one, the client only concludes
            // from a later answer that this record must be there, too (`Fault::Unproven`).
            Ok(message) if Offset::from_raw(message.offset()) == Offset::Invalid => {
                Err(Failure::unproven())
            }
            Ok(_) => Ok(()),
            Err((error, _)) => Err(Failure::new(code(error))),
        };
        self.settle(sent, result);
    }
}

impl ClientContext for Context {
    fn stats_raw(&self, json: &[u8]) {
        let Subscribers { metrics, health, .. } = &self.subscribers;
        let statistics = match serde_json::from_slice::<Statistics>(json) {
            Ok(statistics) => statistics,
            Err(error) => return warn!(%error, "The Kafka client's statistics cannot be read."),
        };
        metrics.kafka.queue.set(statistics.queued);
        metrics.kafka.brokers_up.set(statistics.brokers_up());
        if metrics.sampler.is_on() {
            metrics.sampler.set_partitions(statistics.partitions());
        }
        let responses = statistics.responses();
        let mut observed = lock(&self.observed);
        // Fewer than before means that a broker went away.
        if responses > std::mem::replace(&mut observed.responses, responses) {
            health.broker_responded();
            if std::mem::take(&mut observed.is_silent) {
                info!("Kafka brokers are heard from again.");
            }
        }
    }

    fn error(&self, error: KafkaError, reason: &str) {
        let code = code(&error);
        let what_to_do = fault::advice_on(code, reason);
        let reason = one_line(reason);
        if code == RDKafkaErrorCode::Fatal {
            error!(reason, what_to_do, "The Kafka producer failed for good and is being replaced.");
            self.replace();
        } else if code == RDKafkaErrorCode::AllBrokersDown {
            self.subscribers.breaker.open("no Kafka broker is up");
            if !std::mem::replace(&mut lock(&self.observed).is_silent, true) {
                error!(reason, what_to_do, "No Kafka broker is up.");
            }
        } else if self.may_complain(code) {
            warn!(%code, reason, what_to_do, "Trouble with a Kafka broker.");
        }
    }

    fn log(&self, level: RDKafkaLogLevel, facility: &str, text: &str) {
        // What an operator must know is logged once, by `error` above.
        if level as i32 <= RDKafkaLogLevel::Critical as i32 {
            error!(target: "librdkafka", facility, "{text}");
        } else {
            debug!(target: "librdkafka", facility, "{text}");
        }
    }
}

pub(super) fn code(error: &KafkaError) -> RDKafkaErrorCode {
    error.rdkafka_error_code().unwrap_or(RDKafkaErrorCode::Fail)
}
