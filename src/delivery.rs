//! A click is *held* when Kafka has acknowledged it, or the spool has it on disk, fsynced. A [`Receipt`]
//! is the proof, and the only way to a 200.
//!
//! # The path of a click
//!
//! 1. It goes directly to Kafka where the circuit breaker is closed and the click's shard (a hash of topic
//!    and key) has nothing in the spool. An acknowledgement within `kafka.ack_timeout_ms` holds it.
//! 2. Otherwise it goes to the spool, and the fsync holds it. A click whose acknowledgement is late is in
//!    the spool *and* stays with the Kafka client; it leaves the spool with its late acknowledgement.
//! 3. Where the spool does not take it, Kafka may still acknowledge it. If not, the answer is 503.
//!
//! The forwarder takes the events of the spool to Kafka. While Kafka is away the breaker is open: clicks go
//! straight to the spool, and the forwarder probes Kafka with a few of the oldest events until one is
//! acknowledged. Without a spool there is only step 1, and 503.
//!
//! # Where a click can be lost
//!
//! Before its 200: any other answer leaves it with the sender, who must send it again. After its 200:
//! with the disk of the spool, if that is lost before the forwarder has emptied it, or with Kafka's own
//! replicas. An event that neither its topic nor its dead letters take is set aside on disk, and tried again.
//!
//! # Order
//!
//! The events of each key reach Kafka in the order of their arrival here, because
//!
//! - the Kafka client keeps the order of its records and, with a spool, never gives up by itself;
//! - while a shard has events in the spool, later ones of that shard go behind them;
//! - after an outage or a failed producer, nothing goes directly until all that failed is in the spool;
//! - in a shard in which Kafka refused something, the forwarder sends one event at a time.
//!
//! Four exceptions: Kafka refuses whole batches, so that an event of a refused batch of the forwarder may
//! be sent again after events that followed it. Where the disk fails or is full, a click goes to Kafka
//! out of order rather than be refused. When the process is killed, records that the Kafka client
//! had may reach Kafka before earlier events on disk. Without a spool nothing waits for records that failed, or that a
//! failed producer still has: they may come after those that followed them.
//!
//! # Files
//!
//! - `spool.rs`, `spool/`: the durable queue on disk.
//! - `backlog.rs`: the spool with its forwarder; `forwarder.rs`: from the spool to Kafka.
//! - `set_aside.rs`: tries again what neither the topic nor its dead letters took.
//! - `refusals.rs`: shards in which Kafka refused something lately.
//! - `simulation.rs`, `simulation/`: all of this under a simulated clock, disk and Kafka, for tests.
//! - `backpressure.rs`: delays answers, so that the forwarder gets through.

mod backlog;
mod backpressure;
mod forwarder;
mod refusals;
mod set_aside;
pub mod spool;

use std::sync::Arc;
use std::time::Duration;

use futures_util::future::try_join_all;
use tokio::time::{Instant, timeout, timeout_at};

use crate::click::outcome::{Held, Refusal, Rejection};
use crate::click::record::Record;
use crate::config::{Config, Problem};
use crate::kafka::{
    CircuitBreaker, Failure, Fault, InFlightRecord, Kafka, Preconditions, Publisher, Remedy,
};
use crate::observe::health::Health;
use crate::observe::metrics::{DeadLetterReason, Metrics};
use backpressure::{Backpressure, DelayedAnswer};
use refusals::Refusals;
use spool::{NotSpooled, Position, Spool, SpoolWriter, StoreError};

pub use backlog::Backlog;

/// How long to wait for room in a full spool that is being emptied, before looking again.
const ROOM_WAIT: Duration = Duration::from_millis(100);

/// How many records of one body are in flight at once.
const BATCH: usize = 500;

/// Proof that a click is held durably, and where. Only [`Delivery`] makes one.
#[derive(Debug)]
pub struct Receipt(Held);

impl Receipt {
    pub fn held(&self) -> Held {
        self.0
    }

    fn new(record: &Record, held: Held) -> Receipt {
        Receipt(if record.is_dead_letter() { Held::AsDeadLetter } else { held })
    }

    /// One for both: it says which is furthest from Kafka, and a dead letter only if both are.
    fn and(self, other: Receipt) -> Receipt {
        let far = |held| match held {
            Held::AsDeadLetter => 0,
            Held::InKafka => 1,
            Held::OnDisk => 2,
        };
        if far(other.0) > far(self.0) { other } else { self }
    }
}

/// Holds records, for one worker thread.
#[derive(Clone)]
pub struct Delivery {
    pub publisher: Publisher,
    pub spool: Option<Arc<Spool>>,
    pub state: DeliveryState,
}

/// What the workers and the forwarder share.
#[derive(Clone)]
pub struct DeliveryState {
    pub(crate) breaker: Arc<CircuitBreaker>,
    pub(crate) health: Arc<Health>,
    pub(crate) metrics: Arc<Metrics>,
    refusals: Arc<Refusals>,
    backpressure: Arc<Backpressure>,
    /// After this an event that Kafka has not acknowledged is late.
    ack_timeout: Duration,
}

/// A receipt, and the delay of the answer for a record that went behind the spool.
type HeldRecord<'a> = (Receipt, Option<DelayedAnswer<'a>>);

impl DeliveryState {
    /// The state with these settings, and with it new metrics.
    ///
    /// # Errors
    ///
    /// A metric that cannot be made.
    pub fn new(config: &Config) -> prometheus::Result<DeliveryState> {
        let webhooks: Vec<_> = config.webhook.iter().map(|webhook| webhook.name.as_str()).collect();
        let topics = config.topics();
        let topics: Vec<_> = topics.iter().map(|(name, _)| name.as_str()).collect();
        let metrics = Arc::new(Metrics::new(&webhooks, &topics)?);
        let breaker = CircuitBreaker::new(metrics.breaker.clone(), config.spool.is_on());
        let (health, refusals, backpressure) = Default::default();
        let ack_timeout = config.kafka.ack_timeout();
        Ok(DeliveryState { breaker, health, metrics, refusals, backpressure, ack_timeout })
    }

    /// # Errors
    ///
    /// Settings that the Kafka client does not take.
    pub fn start_kafka(&self, config: &Config) -> Result<Kafka, Problem> {
        let DeliveryState { metrics, health, breaker, .. } = self.clone();
        Kafka::start(config, metrics, health, breaker)
    }

    /// Opens the spool, if it is on; waits for `patience` while another process uses it.
    ///
    /// # Errors
    ///
    /// Another process uses the spool for longer, or the system refuses a thread.
    pub async fn open_spool(
        &self,
        config: &Config,
        patience: Duration,
    ) -> Result<Option<(Arc<Spool>, SpoolWriter)>, StoreError> {
        if !config.spool.is_on() {
            return Ok(None);
        }
        let (metrics, health) = (self.metrics.spool.clone(), self.health.clone());
        let body_max = config.http.max_body_bytes;
        Spool::open(&config.spool, body_max, metrics, health, patience).await.map(Some)
    }
}

impl Delivery {
    /// Holds a record, or fails by the deadline.
    ///
    /// # Errors
    ///
    /// Why the record is not held. With [`Refusal::Unconfirmed`] nobody knows: it may still land.
    pub async fn hold(&self, record: Record, deadline: Instant) -> Result<Receipt, Rejection> {
        let held = self.hold_one(record, deadline).await?;
        Ok(answer_when_due(held, deadline).await)
    }

    /// Holds all records of a body, in their order, or fails by the deadline; some may be held even
    /// then. Only so many are in flight at once, so that no body keeps the thread's other requests
    /// waiting.
    ///
    /// # Errors
    ///
    /// Why one of them is not held.
    pub async fn hold_all(
        &self,
        records: Vec<Record>,
        deadline: Instant,
    ) -> Result<Receipt, Rejection> {
        let mut held: Option<HeldRecord> = None;
        let mut records = records.into_iter();
        while records.len() > 0 {
            let some = records.by_ref().take(BATCH).map(|record| self.hold_one(record, deadline));
            let some = try_join_all(some).await?.into_iter();
            held = some.chain(held).reduce(|one, other| (one.0.and(other.0), one.1.or(other.1)));
        }
        // A body without an event is a dead letter, which is a record.
        let held = held.ok_or_else(|| Refusal::Invalid.plain())?;
        Ok(answer_when_due(held, deadline).await)
    }

    /// Holds a record, and samples it for the page.
    async fn hold_one(
        &self,
        record: Record,
        deadline: Instant,
    ) -> Result<HeldRecord<'_>, Rejection> {
        let sampler = &self.state.metrics.sampler;
        let sample = sampler.sample(record.received(), record.key(), record.value());
        let held = match &self.spool {
            Some(spool) => self.hold_with_spool(spool, record, deadline).await?,
            None => (self.hold_in_kafka(&record, deadline).await?, None),
        };
        sampler.keep(sample, held.0.held());
        Ok(held)
    }

    async fn hold_with_spool(
        &self,
        spool: &Arc<Spool>,
        mut record: Record,
        deadline: Instant,
    ) -> Result<HeldRecord<'_>, Rejection> {
        let position = spool.position(&record);
        // Before the permit: what the present producer fails must be in the spool before anything goes
        // to the next one.
        let generation = Some(self.publisher.generation());
        let permit = self.state.breaker.try_acquire();
        let is_behind = permit.is_some() && spool.holds(position);
        let mut late = None;
        if permit.is_some() && !is_behind {
            let sent = self.publisher.send(record, Preconditions { generation, failures: None });
            let verdict = sent.verdict_within(self.state.ack_timeout).await;
            if let Ok(Ok(_acknowledged)) = verdict {
                return Ok((Receipt::new(sent.record(), Held::InKafka), None));
            }
            record = sent.record().clone();
            if verdict.is_err() {
                self.state.breaker.failed();
                follow_late(sent.clone(), position, spool);
                late = Some(sent);
            } else {
                // Kafka answers: no sign of an outage.
                self.state.refusals.note(position.shard());
            }
        }
        let written = spool.put(position, &record);
        // Its shard holds the record now, and the direct path is free.
        drop(permit);
        let delay = is_behind.then(|| self.state.backpressure.delay_answer());
        // On the heap, so that the future of a click that Kafka takes stays small.
        let receipt =
            Box::pin(self.hold_in_spool(spool, position, record, written, late, deadline));
        Ok((receipt.await?, delay))
    }

    /// Holds a record on disk. Where the disk fails, Kafka may hold it after all: better out of order
    /// than refused.
    async fn hold_in_spool(
        &self,
        spool: &Spool,
        position: Position,
        record: Record,
        written: impl Future<Output = Result<(), NotSpooled>>,
        late: Option<Arc<InFlightRecord>>,
        deadline: Instant,
    ) -> Result<Receipt, Rejection> {
        let mut result = timeout_at(deadline, written).await;
        // While the spool is being emptied, wait for room; a late record may hear from Kafka instead.
        while matches!(result, Ok(Err(NotSpooled::Full)))
            && late.is_none()
            && !self.state.breaker.is_open()
            && Instant::now() < deadline
        {
            let _ = timeout_at(deadline, timeout(ROOM_WAIT, spool.room())).await;
            result = timeout_at(deadline, spool.put(position, &record)).await;
        }
        let why = match result {
            Ok(Ok(())) => return Ok(Receipt::new(&record, Held::OnDisk)),
            Ok(Err(NotSpooled::Full)) => {
                Refusal::SpoolFull.because("spool.max_bytes or the disk is full")
            }
            Ok(Err(NotSpooled::Failed(reason))) => Refusal::SpoolFailed.because(&*reason),
            Err(_elapsed) => Refusal::Unconfirmed.because("the disk did not confirm in time"),
        };
        let may_send = why.refusal == Refusal::SpoolFailed && self.state.health.brokers_respond();
        let Some(sent) = late else {
            if !may_send {
                return Err(why);
            }
            let held = self.hold_in_kafka(&record, deadline).await;
            return held.map_err(|rejection| match rejection.refusal {
                // The client still has it.
                Refusal::Unconfirmed => Refusal::Unconfirmed.because(why.cause.unwrap_or_default()),
                _ => why,
            });
        };
        match timeout_at(deadline, sent.verdict()).await {
            Ok(Ok(_acknowledged)) => Ok(Receipt::new(sent.record(), Held::InKafka)),
            Ok(Err(_failure)) => Err(why),
            // The client still has it.
            Err(_elapsed) => Err(Refusal::Unconfirmed.because(why.cause.unwrap_or_default())),
        }
    }

    /// Without a spool: Kafka acknowledges the record or its dead letter, or it is not held.
    async fn hold_in_kafka(
        &self,
        record: &Record,
        deadline: Instant,
    ) -> Result<Receipt, Rejection> {
        publish_or_bury(&self.publisher, &self.state, record, deadline).await
    }
}

/// Kafka acknowledges the record or its dead letter, or it is not held.
async fn publish_or_bury(
    publisher: &Publisher,
    state: &DeliveryState,
    record: &Record,
    deadline: Instant,
) -> Result<Receipt, Rejection> {
    let publish = async |record: &Record| {
        let verdict = timeout_at(deadline, publisher.publish(record)).await;
        let slow = "the Kafka client gave no verdict before the answer was due";
        verdict.map_err(|_elapsed| Refusal::Unconfirmed.because(slow))
    };
    let Err(failure) = publish(record).await? else {
        return Ok(Receipt::new(record, Held::InKafka));
    };
    let refused = || refusal(failure).because(failure.explain());
    let reason = dead_letter_reason(record, failure).ok_or_else(refused)?;
    let dead_letter = record.clone().into_dead_letter(reason.tag(), failure.explain());
    // On the heap, so that the future of a click that Kafka takes stays small.
    Box::pin(publish(&dead_letter)).await?.map_err(|_failure| refused())?;
    state.metrics.dead_letters(record.webhook(), reason, 1);
    Ok(Receipt(Held::AsDeadLetter))
}

/// Waits until the answer is due: once for a request, however many events it has.
async fn answer_when_due((receipt, delay): HeldRecord<'_>, deadline: Instant) -> Receipt {
    if let Some(delay) = delay {
        Box::pin(delay.wait(deadline)).await;
    }
    receipt
}

/// Claims a record whose acknowledgement is late, and waits in the background for its verdict, however
/// long it takes: acknowledged, it leaves the spool; else the forwarder sends it again.
fn follow_late(sent: Arc<InFlightRecord>, position: Position, spool: &Arc<Spool>) {
    spool.claim(position);
    let spool = spool.clone();
    tokio::spawn(async move {
        match sent.verdict().await {
            // The claim goes with the event, or when the event is not found.
            Ok(_acknowledged) => spool.remove(position),
            Err(_failure) => spool.release(position),
        }
        spool.wake_forwarder();
    });
}

/// Why a record that Kafka does not take belongs to the dead letters, if it does.
fn dead_letter_reason(record: &Record, failure: Failure) -> Option<DeadLetterReason> {
    if record.is_dead_letter() || failure.remedy() != Remedy::DeadLetter {
        return None;
    }
    Some(match failure.fault {
        Fault::TooLarge => DeadLetterReason::TooLarge,
        _ => DeadLetterReason::Corrupt,
    })
}

fn refusal(failure: Failure) -> Refusal {
    match failure.fault {
        Fault::NotTried => Refusal::KafkaQueueFull,
        Fault::TimedOut => Refusal::KafkaTimeout,
        Fault::Unproven => Refusal::Unconfirmed,
        Fault::TooLarge => Refusal::RecordTooLarge,
        Fault::Corrupt | Fault::Timestamp | Fault::Refused | Fault::ProducerFailed => {
            Refusal::KafkaRefused
        }
    }
}

#[cfg(test)]
mod simulation;
