//! What "hold" means: a record is held durably, and a [`Receipt`] says so, or it is not.
//!
//! Kafka first; where Kafka does not acknowledge in time, cannot, or must wait for earlier events of
//! the same key, the spool. The drain (`delivery/forwarder.rs`) takes events from the spool to Kafka.
//!
//! # Order
//!
//! Each key's events reach Kafka in the order in which they arrived here, because
//!
//! - the Kafka client keeps the order of what it is given, and with a spool never gives up by itself:
//!   an event that is late goes to the spool *and* stays with the client, and leaves the spool with
//!   its late acknowledgement;
//! - as long as a shard of the spool holds events, later ones of that shard go behind them;
//! - after a breakdown nothing goes directly before everything that failed is in the spool
//!   (`kafka/circuit_breaker.rs`);
//! - in a shard in which Kafka refused something, the drain sends one event at a time (`refusals.rs`).
//!
//! Three things can change an order. Kafka refuses by the batch: the drain sends without waiting, so that
//! of a batch that Kafka refuses for good what is sent again comes after what was behind it. Where the
//! disk fails or is full, a click is rather delivered out of order than refused. And when the process
//! is killed, what the Kafka client had may be there before what was on disk.

mod backlog;
mod backpressure;
mod forwarder;
mod late;
mod refusals;
pub mod spool;

use std::sync::Arc;
use std::time::Duration;

use futures_util::future::try_join_all;
use tokio::time::{Instant, timeout, timeout_at};

use crate::click::outcome::{Held, Refusal, Rejection};
use crate::click::record::Record;
use crate::delivery::spool::{NotSpooled, Position, Spool};
use crate::kafka::{
    Acknowledged, CircuitBreaker, Failure, Fault, Preconditions, Publisher, Remedy,
};
use crate::observe::health::Health;
use crate::observe::metrics::{DeadLetterReason, Metrics};

pub use backlog::{Backlog, BacklogError};
use backpressure::{Backpressure, DelayedAnswer};
pub use forwarder::Forwarder;
use late::LateEvent;
use refusals::Refusals;

/// How long to wait for room in a spool that is full but being drained, before looking again.
const ROOM_WAIT: Duration = Duration::from_millis(100);

/// How many records of one body are on their way at once.
const AT_ONCE: usize = 500;

/// Proof that a click is held durably, and where. Only [`Delivery`] makes one, and only from one
/// is a 200 made.
#[derive(Debug)]
pub struct Receipt(Held);

impl Receipt {
    pub fn held(&self) -> Held {
        self.0
    }

    fn new(record: &Record, held: Held) -> Receipt {
        Receipt(if record.is_dead_letter() { Held::AsDeadLetter } else { held })
    }

    /// One for both: it says what is furthest from Kafka, and a dead letter only of nothing else.
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
    publisher: Publisher,
    spool: Option<Spool>,
    shared: DeliveryState,
}

/// What the workers and the forwarder share.
#[derive(Clone)]
pub struct DeliveryState {
    pub(crate) breaker: Arc<CircuitBreaker>,
    pub(crate) health: Arc<Health>,
    pub(crate) metrics: Arc<Metrics>,
    refusals: Arc<Refusals>,
    backpressure: Arc<Backpressure>,
    ack_timeout: Duration,
}

impl DeliveryState {
    /// An event that Kafka has not acknowledged after `ack_timeout` is late.
    pub fn new(
        breaker: Arc<CircuitBreaker>,
        health: Arc<Health>,
        metrics: Arc<Metrics>,
        ack_timeout: Duration,
    ) -> DeliveryState {
        let (refusals, backpressure) = Default::default();
        DeliveryState { breaker, health, metrics, refusals, backpressure, ack_timeout }
    }
}

impl Delivery {
    pub fn new(publisher: Publisher, spool: Option<Spool>, shared: DeliveryState) -> Delivery {
        Delivery { publisher, spool, shared }
    }

    /// Holds a record, or says by the deadline that it does not.
    ///
    /// # Errors
    ///
    /// Why the record is not held. With [`Refusal::Unconfirmed`] nobody knows: it may still land.
    pub async fn hold(&self, record: Record, deadline: Instant) -> Result<Receipt, Rejection> {
        let held = self.hold_one(record, deadline).await?;
        Ok(answer_in_turn(held, deadline).await)
    }

    async fn hold_one(
        &self,
        record: Record,
        deadline: Instant,
    ) -> Result<HeldRecord<'_>, Rejection> {
        let sampler = &self.shared.metrics.sampler;
        let sample = sampler.sample(record.received(), record.key(), record.value());
        let held = self.hold_unseen(record, deadline).await?;
        sampler.keep(sample, held.0.held());
        Ok(held)
    }

    /// The same, whether or not somebody looks.
    async fn hold_unseen(
        &self,
        mut record: Record,
        deadline: Instant,
    ) -> Result<HeldRecord<'_>, Rejection> {
        let Some(spool) = &self.spool else {
            return Ok((self.hold_in_kafka(&record, deadline).await?, None));
        };
        let position = spool.position(&record);
        // Before the pass: what the present producer fails must be in the spool before anything goes
        // to the next one.
        let generation = Some(self.publisher.generation());
        let pass = self.shared.breaker.try_acquire();
        let is_behind = pass.is_some() && spool.holds(position);
        let mut late = None;
        if pass.is_some() && !is_behind {
            let sent = self.publisher.send(record, Preconditions { generation, failures: None });
            let verdict = timeout(self.shared.ack_timeout, sent.verdict()).await;
            if let Ok(Ok(_acknowledged)) = verdict {
                return Ok((Receipt::new(sent.record(), Held::InKafka), None));
            }
            record = sent.record().clone();
            if verdict.is_err() {
                self.shared.breaker.failed();
                late = Some(LateEvent::follow(sent, position, spool));
            } else {
                // An answer, if not the one hoped for: no sign of an outage.
                self.shared.refusals.note(position.shard());
            }
        }
        let written = spool.put(position, &record);
        // From here on its shard holds it, and the direct way is free.
        drop(pass);
        let waiting = is_behind.then(|| self.shared.backpressure.enter());
        // In memory of its own, which a click that Kafka takes need not have.
        let held = self.hold_otherwise(spool, position, record, written, late, deadline);
        Ok((Box::pin(held).await?, waiting))
    }

    /// Holds a record that does not go directly: on disk, or in Kafka after all.
    async fn hold_otherwise(
        &self,
        spool: &Spool,
        position: Position,
        record: Record,
        written: impl Future<Output = Result<(), NotSpooled>>,
        late: Option<LateEvent>,
        deadline: Instant,
    ) -> Result<Receipt, Rejection> {
        let may_wait = late.is_none();
        match self.hold_on_disk(spool, position, &record, written, may_wait, deadline).await {
            Ok(()) => Ok(Receipt::new(&record, Held::OnDisk)),
            Err(why) => self.hold_after_all(record, late, why, deadline).await,
        }
    }

    /// Holds all records of a body, or says by the deadline that it does not hold them all: some it may
    /// hold all the same. They are sent in their order, not too many at once, so that no body keeps the
    /// others of this thread waiting.
    ///
    /// # Errors
    ///
    /// Why one of them is not held.
    pub async fn hold_all(
        &self,
        records: Vec<Record>,
        deadline: Instant,
    ) -> Result<Receipt, Rejection> {
        let mut held = None;
        let mut records = records.into_iter();
        loop {
            let some = records.by_ref().take(AT_ONCE).map(|record| self.hold_one(record, deadline));
            let some = try_join_all(some).await?;
            let Some(next) = some.into_iter().reduce(both) else { break };
            held = Some(match held {
                Some(held) => both(held, next),
                None => next,
            });
        }
        // Of nothing nobody can say that it is held; a body without an event is a dead letter.
        let held = held.ok_or_else(|| Refusal::Invalid.plain())?;
        Ok(answer_in_turn(held, deadline).await)
    }

    /// Waits until the record is on disk; where the spool is full, but being drained, until there is
    /// room for it, if it may wait.
    async fn hold_on_disk(
        &self,
        spool: &Spool,
        position: Position,
        record: &Record,
        written: impl Future<Output = Result<(), NotSpooled>>,
        may_wait: bool,
        deadline: Instant,
    ) -> Result<(), Rejection> {
        let slow = || Refusal::Unconfirmed.because("the disk did not confirm in time");
        let mut result = timeout_at(deadline, written).await.map_err(|_| slow())?;
        while may_wait
            && matches!(result, Err(NotSpooled::Full))
            && !self.shared.breaker.is_open()
            && Instant::now() < deadline
        {
            let _ = timeout_at(deadline, timeout(ROOM_WAIT, spool.room())).await;
            let written = spool.put(position, record);
            result = timeout_at(deadline, written).await.map_err(|_| slow())?;
        }
        result.map_err(|why| match why {
            NotSpooled::Full => Refusal::SpoolFull.because("spool.max_bytes or the disk is full"),
            NotSpooled::Failed(reason) => Refusal::SpoolFailed.because(&*reason),
        })
    }

    /// The disk did not take the record: Kafka may, after all. Better out of order than refused.
    async fn hold_after_all(
        &self,
        record: Record,
        late: Option<LateEvent>,
        why: Rejection,
        deadline: Instant,
    ) -> Result<Receipt, Rejection> {
        let verdict = async {
            match late {
                Some(late) => Some(late.arrives().await),
                None if why.refusal == Refusal::SpoolFailed
                    && self.shared.health.brokers_respond() =>
                {
                    let sent = self.publisher.send(record.clone(), Preconditions::default());
                    Some(sent.verdict().await.is_ok())
                }
                None => None,
            }
        };
        match timeout_at(deadline, verdict).await {
            Ok(Some(true)) => Ok(Receipt::new(&record, Held::InKafka)),
            Ok(Some(false) | None) => Err(why),
            // The client has it still.
            Err(_elapsed) => Err(Refusal::Unconfirmed.because(why.cause.unwrap_or_default())),
        }
    }

    /// Without a spool, Kafka's word is all there is.
    async fn hold_in_kafka(
        &self,
        record: &Record,
        deadline: Instant,
    ) -> Result<Receipt, Rejection> {
        let Err(failure) = self.publish(record, deadline).await? else {
            return Ok(Receipt::new(record, Held::InKafka));
        };
        let Some(reason) = dead_letter_reason(record, failure) else {
            return Err(refusal(failure).because(failure.explain()));
        };
        let letter = record.clone().into_dead_letter(reason.tag(), failure.explain());
        // In memory of its own, which a click that Kafka takes need not have.
        match Box::pin(self.publish(&letter, deadline)).await? {
            Ok(_acknowledged) => {
                self.shared.metrics.dead_letters(record.webhook(), reason, 1);
                Ok(Receipt(Held::AsDeadLetter))
            }
            Err(_) => Err(refusal(failure).because(failure.explain())),
        }
    }

    /// Kafka's verdict, if there is one by the deadline.
    async fn publish(
        &self,
        record: &Record,
        deadline: Instant,
    ) -> Result<Result<Acknowledged, Failure>, Rejection> {
        timeout_at(deadline, self.publisher.publish(record)).await.map_err(|_elapsed| {
            Refusal::Unconfirmed
                .because("the Kafka client gave no verdict before the answer was due")
        })
    }
}

/// A receipt, and the sender's place among those whose clicks go behind the drain, if it has one.
type HeldRecord<'a> = (Receipt, Option<DelayedAnswer<'a>>);

/// One for both.
fn both<'a>(one: HeldRecord<'a>, other: HeldRecord<'a>) -> HeldRecord<'a> {
    (one.0.and(other.0), one.1.or(other.1))
}

/// Waits until the sender's turn to be answered: once for a request, however many events it has, which all
/// have one deadline.
async fn answer_in_turn((receipt, waiting): HeldRecord<'_>, deadline: Instant) -> Receipt {
    if let Some(waiting) = waiting {
        Box::pin(waiting.pause(deadline)).await;
    }
    receipt
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
        Fault::Corrupt | Fault::Refused | Fault::ProducerFailed => Refusal::KafkaRefused,
    }
}
