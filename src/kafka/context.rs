//! What the Kafka client calls back, on the thread that polls it (`client.rs`): delivery reports,
//! statistics, errors, log lines.

use std::collections::HashMap;
use std::sync::mpsc::SyncSender;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use rdkafka::ClientContext;
use rdkafka::Offset;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::{DeliveryResult, Message};
use rdkafka::producer::ProducerContext;
use tokio::time::Instant;
use tracing::{debug, error, info, warn};

use super::fault::{self, Failure, Fault};
use super::send_queue::{Parcel, Report};
use super::statistics::{self, Statistics};
use crate::kafka::circuit_breaker::Breaker;
use crate::observe::health::Health;
use crate::observe::metrics::{Metrics, RecordResult};

/// What the keeper is asked to do.
#[derive(Debug)]
pub(super) enum Work {
    /// Replace the producer, if it is still of this generation.
    Replace(u64),
    /// Say what is wrong with the topics.
    Explain,
    Stop,
}

/// How often the same trouble with a broker is worth a log line.
const COMPLAINT_INTERVAL: Duration = Duration::from_secs(10);

/// What the Kafka client calls back: reports, statistics, errors, log lines.
pub(super) struct Context {
    pub generation: u64,
    pub metrics: Arc<Metrics>,
    pub health: Arc<Health>,
    pub breaker: Arc<Breaker>,
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
    pub fn settle(&self, parcel: Arc<Parcel>, result: Result<(), Failure>) {
        let topic = self.metrics.topic(parcel.record.topic());
        match result {
            Ok(()) => {
                self.breaker.succeeded();
                topic.ack_seconds.observe(parcel.sent.elapsed().as_secs_f64());
            }
            Err(failure) => match failure.fault {
                Fault::ProducerFailed => self.replace(),
                Fault::TimedOut | Fault::Refused => self.ask(Work::Explain),
                Fault::NotTried | Fault::Unproven | Fault::TooLarge | Fault::Corrupt => {}
            },
        }
        topic.count(result.map_or_else(|f| f.fault.result(), |()| RecordResult::Acknowledged));
        parcel.report(Report { generation: self.generation, result });
    }

    /// Has the producer replaced. The breaker opens first: what this producer still has must be in the
    /// spool before anything goes directly to the next one.
    fn replace(&self) {
        self.breaker.open("the Kafka producer broke down");
        self.ask(Work::Replace(self.generation));
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
    type DeliveryOpaque = Arc<Parcel>;

    fn delivery(&self, report: &DeliveryResult<'_>, parcel: Arc<Parcel>) {
        let result = match report {
            // The broker's answer gives each record its offset. Without one, the client only concludes
            // from a later answer that this record must be there, too (`Fault::Unproven`).
            Ok(message) if Offset::from_raw(message.offset()) == Offset::Invalid => {
                Err(Failure::unproven())
            }
            Ok(_) => Ok(()),
            Err((error, _)) => Err(Failure::new(code(error))),
        };
        self.settle(parcel, result);
    }
}

impl ClientContext for Context {
    fn stats_raw(&self, json: &[u8]) {
        let statistics = match Statistics::read(json) {
            Ok(statistics) => statistics,
            Err(error) => return warn!(%error, "The Kafka client's statistics cannot be read."),
        };
        if self.metrics.sampler.is_on()
            && let Ok(partitions) = statistics::partitions(json)
        {
            self.metrics.sampler.set_partitions(partitions);
        }
        self.metrics.kafka_queue.set(statistics.queued);
        self.metrics.kafka_brokers_up.set(statistics.brokers_up);
        let mut seen = self.lock();
        // Fewer than before means that a broker went away.
        if statistics.responses > std::mem::replace(&mut seen.responses, statistics.responses) {
            self.health.broker_responded();
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
            self.replace();
        } else if code == RDKafkaErrorCode::AllBrokersDown {
            self.breaker.open("no Kafka broker is up");
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

pub(super) fn code(error: &KafkaError) -> RDKafkaErrorCode {
    error.rdkafka_error_code().unwrap_or(RDKafkaErrorCode::Fail)
}
