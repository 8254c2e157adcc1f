//! Takes events from the spool to Kafka: oldest first, each shard in its order, on a thread of its own.
//!
//! It works in rounds, each from the oldest event to the newest that was there when it began. A shard or
//! a topic that does not get through is skipped for the rest of the round, so that a partition without a
//! leader or a missing topic does not hold up the others. An event leaves the spool only after its
//! acknowledgement.
//!
//! While the circuit breaker is open a round is a probe: it sends a few of the oldest events, and the
//! breaker closes when one of them is acknowledged. Of a shard in which Kafka refused something lately, a
//! round sends one event, so that none overtakes one that is refused.

use std::collections::{HashMap, HashSet, VecDeque};
use std::convert::Infallible;
use std::io;
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

use jiff::Timestamp;
use tokio::sync::oneshot;
use tokio::time::{Instant, sleep, timeout_at};
use tracing::{error, info, warn};

use super::set_aside::Retries;
use super::spool::{Position, SetAsideReason, Spool, SpooledState};
use super::{DeliveryState, dead_letter_reason, follow_late};
use crate::click::record::Record;
use crate::kafka::{Failure, Fault, InFlightRecord, Preconditions, Publisher, Remedy};
use crate::observe::lock;

/// Chunks of the spool in flight: enough for batches and for distant brokers, and few enough that a live event waits
/// behind them for some milliseconds only.
const WINDOW: usize = 6;

/// Events that are risked to find out whether Kafka is back.
const PROBE: usize = 32;

/// Events that the Kafka client may have after their time was up; with more, the forwarder sends nothing
/// until some of those have arrived. The client's queue has room for them.
const CLAIMS_MAX: usize = 16_384;

/// How long to rest after a round that moved nothing; doubled each time. Less than a refusal is
/// remembered, so that the round that gets through still knows of it.
const REST_MIN: Duration = Duration::from_millis(100);
const REST_MAX: Duration = Duration::from_secs(2);

/// After a fruitless round the rest is so many times as long as the round.
const REST_FACTOR: u32 = 4;

/// What the forwarder's thread works with.
pub(super) struct Forwarder {
    publisher: Publisher,
    spool: Arc<Spool>,
    state: DeliveryState,
    /// The newest timestamp of an old event that each topic refused.
    refused_times: Mutex<HashMap<Arc<str>, i64>>,
}

/// An event in flight.
struct SentEvent {
    position: Position,
    sent: Arc<InFlightRecord>,
}

/// What is skipped for the rest of a round.
#[derive(Default)]
struct Blocked {
    shards: HashSet<usize>,
    /// Whether some of the shards wait for events that the client has or had, or that came late.
    by_claims: bool,
    topics: HashSet<Arc<str>>,
    /// Shards of which something was sent.
    sent: HashSet<usize>,
}

/// Events in flight together.
struct Chunk {
    events: Vec<SentEvent>,
    /// Where the round goes on.
    next: u64,
    deadline: Instant,
    /// The generation of the producer that they went to.
    generation: Option<u64>,
    /// Whether nothing may follow them in this round.
    is_probe: bool,
}

impl Forwarder {
    pub fn new(publisher: Publisher, spool: Arc<Spool>, state: DeliveryState) -> Forwarder {
        Forwarder { publisher, spool, state, refused_times: Mutex::default() }
    }

    /// Starts the thread, which ends when the other end of `stopped` is dropped. It runs the publisher's sender
    /// task, too.
    pub fn start(
        self,
        sender_task: impl Future<Output = Infallible> + Send + 'static,
        stopped: oneshot::Receiver<()>,
    ) -> io::Result<JoinHandle<()>> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build()?;
        std::thread::Builder::new().name("forwarder".into()).spawn(move || {
            runtime.block_on(async {
                tokio::select! {
                    never = sender_task => match never {},
                    never = self.run() => match never {},
                    _ = stopped => {}
                }
            });
        })
    }

    pub async fn run(&self) -> Infallible {
        let mut retries = Retries::new(&self.publisher, &self.spool, &self.state);
        let mut rest = REST_MIN;
        loop {
            self.state.breaker.close_if_recovered();
            retries.run().await;
            let (began, waiting) = (Instant::now(), self.spool.events());
            if waiting > 0 && self.round().await {
                rest = REST_MIN;
                if self.spool.events() == 0 {
                    info!("The spool is empty.");
                }
                continue;
            }
            rest = rest.max(began.elapsed() * REST_FACTOR);
            tokio::select! {
                biased;
                () = sleep(rest) => rest = (rest * 2).min(REST_MAX),
                () = self.spool.work() => rest = REST_MIN,
                () = self.state.breaker.changed() => rest = REST_MIN,
            }
        }
    }

    /// Sends the events from the oldest to the newest. Returns whether the next round should follow at
    /// once: some events left the spool, or nothing blocks the skipped shards any more.
    async fn round(&self) -> bool {
        let mut preconditions = self.preconditions();
        let generation = preconditions.generation;
        let mut blocked = Blocked::default();
        let mut window = VecDeque::with_capacity(WINDOW);
        // Without an end a skipped shard might wait for ever: events may come as fast as they are read.
        let end = self.spool.next_sequence();
        let (mut next, mut moved) = (Some(0), 0);
        loop {
            if self.state.breaker.is_open() && moved + window.len() > 0
                || self.preconditions().generation != generation
            {
                next = None;
            }
            if window.is_empty() {
                // Every failure has blocked its shard by now; the other shards may go on.
                preconditions = self.preconditions();
            }
            while let Some(from) = next
                && window.len() < WINDOW
                && preconditions == self.preconditions()
            {
                let Some(chunk) = self.send_chunk(from, preconditions, &mut blocked).await else {
                    next = None;
                    break;
                };
                if chunk.events.is_empty() && blocked.by_claims && self.spool.claimed() == 0 {
                    // As after an outage, when the client gives up what it had. What this round has sent
                    // is claimed until it is settled, so none of it is in flight.
                    return true;
                }
                let goes_on = chunk.next < end && (!chunk.is_probe || chunk.events.is_empty());
                next = goes_on.then_some(chunk.next);
                window.push_back(chunk);
            }
            let Some(chunk) = window.pop_front() else { return moved > 0 };
            moved += self.settle_chunk(chunk, &mut blocked).await;
            self.state.breaker.close_if_recovered();
        }
    }

    /// Nothing may be sent by a later producer, or after a failure: it might overtake what failed.
    fn preconditions(&self) -> Preconditions {
        let (generation, failures) = (self.publisher.generation(), self.publisher.failures());
        Preconditions { generation: Some(generation), failures: Some(failures) }
    }

    /// Reads the next events and sends them; `None` where there are none, or Kafka should be left alone.
    async fn send_chunk(
        &self,
        from: u64,
        preconditions: Preconditions,
        blocked: &mut Blocked,
    ) -> Option<Chunk> {
        let is_probe = self.state.breaker.is_open();
        if is_probe && !self.may_probe() || self.spool.claimed() >= CLAIMS_MAX {
            return None;
        }
        let events_max = if is_probe { PROBE } else { usize::MAX };
        let spooled = self.spool.read(from).await?;
        let next = spooled.last()?.position.sequence + 1;
        let mut events = Vec::with_capacity(spooled.len());
        for event in spooled {
            if events.len() == events_max {
                break;
            }
            let position = event.position;
            let shard = position.shard();
            let is_suspect = self.state.refusals.has(shard);
            match event.state {
                SpooledState::Withheld => {
                    blocked.by_claims = true;
                    blocked.shards.insert(shard);
                }
                SpooledState::Damaged(damage) => {
                    error!(%damage, "An event in the spool is damaged: it is lost.");
                    self.state.metrics.spool.damages.inc();
                    self.spool.lose(position);
                }
                SpooledState::Ready(record) if blocked.has(position, &record) => {}
                SpooledState::Ready(_) if is_suspect && blocked.sent.contains(&shard) => {
                    // For the whole round: the refusal may be forgotten before its end.
                    blocked.shards.insert(shard);
                }
                SpooledState::Ready(record) => {
                    blocked.sent.insert(shard);
                    let record = self.with_time(record);
                    events.push(self.send(position, record, preconditions));
                }
            }
        }
        let deadline = Instant::now() + self.state.ack_timeout;
        Some(Chunk { events, next, deadline, generation: preconditions.generation, is_probe })
    }

    /// Whether a probe can find out more than the events with the client will, and nothing is on the
    /// direct path that should go first.
    fn may_probe(&self) -> bool {
        let client_tells = self.spool.claimed() > 0 && !self.state.health.brokers_respond();
        self.state.breaker.is_idle() && !client_tells
    }

    /// The record with another timestamp, if its topic refused that of a younger one: without this, each event of
    /// a long outage would be refused, and with it the batch it is in.
    fn with_time(&self, record: Record) -> Record {
        let times = lock(&self.refused_times);
        let is_refused =
            times.get(record.topic()).is_some_and(|time| record.timestamp_ms() <= *time);
        let restamped = is_refused.then(|| record.restamped(Timestamp::now())).flatten();
        restamped.unwrap_or(record)
    }

    /// Notes that the topic takes this record only with another timestamp.
    fn note_refused_time(&self, record: &Record) {
        if record.timestamp_ms() < record.received().as_millisecond() {
            let mut times = lock(&self.refused_times);
            let time = times.entry(record.topic().clone()).or_insert(i64::MIN);
            *time = record.timestamp_ms().max(*time);
        }
    }

    fn send(&self, position: Position, record: Record, preconditions: Preconditions) -> SentEvent {
        self.spool.claim(position);
        SentEvent { position, sent: self.publisher.send(record, preconditions) }
    }

    /// Waits for the verdict on each event. Returns how many left the spool.
    async fn settle_chunk(&self, chunk: Chunk, blocked: &mut Blocked) -> usize {
        let (mut moved, mut alone, mut is_stuck) = (0, Vec::new(), false);
        for event in chunk.events {
            match self.settle(&event, chunk.deadline, blocked).await {
                Ok(true) => moved += 1,
                Ok(false) => is_stuck = true,
                Err(failure) => match failure.remedy() {
                    Remedy::TryAgain | Remedy::DeadLetter | Remedy::Restamp => alone.push(event),
                    Remedy::Spool => self.keep(&event, blocked),
                    // In the next round, in its order.
                    Remedy::Rebuild | Remedy::Repeat => {
                        blocked.shards.insert(event.position.shard());
                        self.spool.release(event.position);
                    }
                },
            }
        }
        if is_stuck && moved == 0 {
            // Not for each of them: one partition without a leader is no outage.
            self.state.breaker.failed();
        }
        for event in alone {
            // What a producer that is gone had may have come to the spool meanwhile, before this.
            let is_replaced = self.preconditions().generation != chunk.generation;
            if is_replaced || blocked.has(event.position, event.sent.record()) {
                self.spool.release(event.position);
            } else {
                moved += usize::from(self.deliver_alone(event, blocked).await);
            }
        }
        moved
    }

    /// Waits for the verdict on an event. Returns whether it has left the spool; if it has not, the client
    /// still has it and its shard waits.
    async fn settle(
        &self,
        event: &SentEvent,
        deadline: Instant,
        blocked: &mut Blocked,
    ) -> Result<bool, Failure> {
        let Ok(verdict) = timeout_at(deadline, event.sent.verdict()).await else {
            blocked.by_claims = true;
            blocked.shards.insert(event.position.shard());
            follow_late(event.sent.clone(), event.position, &self.spool);
            return Ok(false);
        };
        verdict?;
        self.spool.remove(event.position);
        Ok(true)
    }

    /// Keeps an event that Kafka refuses as things are; its topic is skipped.
    fn keep(&self, event: &SentEvent, blocked: &mut Blocked) {
        self.state.refusals.note(event.position.shard());
        blocked.topics.insert(event.sent.record().topic().clone());
        self.spool.release(event.position);
    }

    /// Sends an event by itself: Kafka refuses a batch as one, though most events in it may be good. An
    /// event that is refused alone becomes a dead letter, or is set aside. Returns whether it left the
    /// spool.
    async fn deliver_alone(&self, event: SentEvent, blocked: &mut Blocked) -> bool {
        let (position, record) = (event.position, event.sent.record());
        self.state.refusals.note(position.shard());
        let mut failure = match self.send_alone(position, record.clone(), blocked).await {
            Ok(has_left) => return has_left,
            Err(failure) => failure,
        };
        let topic = &**record.topic();
        if let Some(reason) = dead_letter_reason(record, failure) {
            let explanation = failure.explain();
            let dead_letter = record.clone().into_dead_letter(reason.tag(), explanation.clone());
            match self.send_alone(position, dead_letter, blocked).await {
                Ok(true) => {
                    self.state.metrics.dead_letters(record.webhook(), reason, 1);
                    warn!(topic, reason = explanation, "An event went to the dead letters.");
                    return true;
                }
                Ok(false) => return false,
                Err(refused) => failure = refused,
            }
        }
        error!(
            topic,
            reason = failure.explain(),
            "An event is set aside: its dead letters do not take it either."
        );
        let reason = match failure.fault {
            Fault::TooLarge => SetAsideReason::TooLarge,
            _ => SetAsideReason::Corrupt,
        };
        self.spool.set_event_aside(position, reason);
        true
    }

    /// Sends an event by itself, with other timestamps where its own is refused. Returns whether it has left
    /// the spool; fails where Kafka refuses it for good.
    async fn send_alone(
        &self,
        position: Position,
        record: Record,
        blocked: &mut Blocked,
    ) -> Result<bool, Failure> {
        let first = record.clone();
        let mut record = self.with_time(record);
        loop {
            let deadline = Instant::now() + self.state.ack_timeout;
            let event = self.send(position, record, self.preconditions());
            let settled = self.settle(&event, deadline, blocked).await;
            let Err(failure) = settled else {
                if event.sent.record().is_restamped() {
                    self.note_refused_time(&first);
                }
                return settled;
            };
            let restamped = event.sent.record().restamped(Timestamp::now());
            match (failure.remedy(), restamped) {
                // It may be invalid for its timestamp: see `may_be_of_timestamp`.
                (_, Some(restamped)) if failure.may_be_of_timestamp() => record = restamped,
                (Remedy::DeadLetter, _) => return Err(failure),
                _ => {
                    self.keep(&event, blocked);
                    return Ok(false);
                }
            }
        }
    }
}

impl Blocked {
    fn has(&self, position: Position, record: &Record) -> bool {
        self.shards.contains(&position.shard()) || self.topics.contains(record.topic())
    }
}
