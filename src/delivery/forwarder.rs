//! Takes events from the spool to Kafka: oldest first, each shard in its order, on a thread of its own.
//!
//! It works in passes, from the oldest event to the newest that was there when it began. A shard or a topic
//! that does not get through is left out for the rest of the pass, so that a partition without a leader or a
//! topic that is not there does not hold up the others. An event leaves the spool only after its
//! acknowledgement.
//!
//! While the breaker is open a pass is a probe: a few of the oldest events, and when one of them is
//! acknowledged the breaker closes. Of a shard in which Kafka refused something lately, a pass takes
//! one event, so that none overtakes one that is refused.

use std::collections::{HashSet, VecDeque};
use std::io;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use tokio::sync::oneshot;
use tokio::time::{Instant, sleep, timeout_at};
use tracing::{error, info, warn};

use super::{DeliveryState, LateEvent, dead_letter_reason};
use crate::click::record::Record;
use crate::delivery::spool::{Position, Spool, SpooledEvent, SpooledState};
use crate::kafka::{Failure, InFlightRecord, Preconditions, Publisher, Remedy};

/// Events that are read at once, at most, and about how many bytes of them.
const CHUNK: usize = 1_024;
const CHUNK_BYTES: usize = 2 << 20;

/// Chunks on their way at once: enough for batches, and for brokers that are far away; and few enough
/// that a live event waits behind them for some milliseconds only.
const WINDOW: usize = 6;

/// Events that are risked to find out whether Kafka is back.
const PROBE: usize = 32;

/// Events that the Kafka client may have after their time was up; with more, it gets no others from
/// here until some of those have arrived. The client's queue has room for them.
const CLAIMS_MAX: usize = 16_384;

/// How long to rest after a pass that moved nothing; doubled each time. Less than a refusal is
/// remembered, so that the pass that gets through still knows of it.
const REST_MIN: Duration = Duration::from_millis(100);
const REST_MAX: Duration = Duration::from_secs(2);

/// A fruitless pass through a large spool is followed by a rest so many times as long.
const REST_FACTOR: u32 = 4;

/// How often to look whether the spool is empty.
const LOOK_INTERVAL: Duration = Duration::from_millis(20);

/// The running drain.
pub struct Forwarder {
    spool: Spool,
    stop: oneshot::Sender<()>,
    thread: JoinHandle<()>,
}

/// What the thread works with.
struct ForwarderTask {
    publisher: Publisher,
    spool: Spool,
    shared: DeliveryState,
}

/// An event on its way.
struct SentEvent {
    position: Position,
    sent: Arc<InFlightRecord>,
}

/// What became of an event that was sent by itself.
enum SoloOutcome {
    /// It has left the spool.
    Arrived,
    /// Kafka does not take it, for good.
    Refused(Failure),
    /// It stays in the spool, and its shard waits.
    Waits,
}

/// What does not get through in this pass.
#[derive(Default)]
struct Blocked {
    shards: HashSet<usize>,
    /// Whether some of the shards wait for events that the client has or had, or that came late.
    by_claims: bool,
    topics: HashSet<Arc<str>>,
    /// Shards of which something was sent.
    sent: HashSet<usize>,
}

/// Events on their way together.
struct Chunk {
    events: Vec<SentEvent>,
    /// Until when they have time.
    deadline: Instant,
    /// Whether nothing may follow them in this pass.
    is_last: bool,
}

impl Forwarder {
    /// Starts draining.
    ///
    /// # Errors
    ///
    /// What the system reports.
    pub fn start(
        publisher: Publisher,
        spool: Spool,
        shared: DeliveryState,
    ) -> io::Result<Forwarder> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build()?;
        let (stop, stopped) = oneshot::channel::<()>();
        let sender_task = publisher.sender_task();
        let worker = ForwarderTask { publisher, spool: spool.clone(), shared };
        let thread = std::thread::Builder::new().name("forwarder".into()).spawn(move || {
            runtime.block_on(async {
                tokio::select! {
                    never = sender_task => match never {},
                    never = worker.run() => match never {},
                    _ = stopped => {}
                }
            });
        })?;
        Ok(Forwarder { spool, stop, thread })
    }

    /// Waits until the spool is empty, at most until the deadline, and stops. Returns how many events
    /// are left on disk.
    pub async fn finish(self, deadline: Instant) -> u64 {
        while self.spool.events() > 0 && Instant::now() < deadline {
            sleep(LOOK_INTERVAL).await;
        }
        drop(self.stop);
        let _ = tokio::task::spawn_blocking(|| self.thread.join()).await;
        self.spool.events()
    }
}

impl ForwarderTask {
    async fn run(self) -> std::convert::Infallible {
        let mut rest = REST_MIN;
        loop {
            self.shared.breaker.close_if_recovered();
            let (began, waiting) = (Instant::now(), self.spool.events());
            if waiting > 0 && self.pass().await {
                rest = REST_MIN;
                if self.spool.events() == 0 {
                    info!("The spool is empty.");
                }
                continue;
            }
            rest = rest.max(began.elapsed() * REST_FACTOR);
            tokio::select! {
                () = sleep(rest) => rest = (rest * 2).min(REST_MAX),
                () = self.spool.work() => rest = REST_MIN,
                () = self.shared.breaker.changed() => rest = REST_MIN,
            }
        }
    }

    /// From the oldest event to the newest. Whether the next pass should follow at once: some left the spool, or
    /// what held up shards is gone.
    async fn pass(&self) -> bool {
        let mut preconditions = self.preconditions();
        let generation = preconditions.generation;
        let mut blocked = Blocked::default();
        let mut window = VecDeque::with_capacity(WINDOW);
        // With no end a shard that is left out might be so for ever: events may come as fast as they are read.
        let end = self.spool.next_number();
        let (mut from, mut moved) = (Some(0), 0);
        loop {
            if self.shared.breaker.is_open() && moved + window.len() > 0
                || self.preconditions().generation != generation
            {
                from = None;
            }
            if window.is_empty() {
                // Whatever failed has blocked its shard by now, and what is left may go on.
                preconditions = self.preconditions();
            }
            while let Some(number) = from
                && window.len() < WINDOW
                && preconditions == self.preconditions()
            {
                let launched = self.launch(number, preconditions, &mut blocked).await;
                let Some((next, chunk)) = launched else {
                    from = None;
                    break;
                };
                if chunk.events.is_empty() && blocked.by_claims && self.spool.claimed() == 0 {
                    // As after an outage, when the client gets rid of what it had. What this pass has sent is
                    // claimed until it has landed, so none of it is on its way.
                    return true;
                }
                let goes_on = next < end && (!chunk.is_last || chunk.events.is_empty());
                from = goes_on.then_some(next);
                window.push_back(chunk);
            }
            let Some(chunk) = window.pop_front() else { return moved > 0 };
            moved += self.land(chunk, &mut blocked).await;
            self.shared.breaker.close_if_recovered();
        }
    }

    /// Nothing may be sent by a later producer, or after a failure: it might overtake what failed.
    fn preconditions(&self) -> Preconditions {
        let (generation, failures) = (self.publisher.generation(), self.publisher.failures());
        Preconditions { generation: Some(generation), failures: Some(failures) }
    }

    /// Reads the next events and sends them. Returns where to go on, unless that was all, or Kafka
    /// should be left alone.
    async fn launch(
        &self,
        from: u64,
        preconditions: Preconditions,
        blocked: &mut Blocked,
    ) -> Option<(u64, Chunk)> {
        let is_probe = self.shared.breaker.is_open();
        if is_probe && !self.may_probe() || self.spool.claimed() >= CLAIMS_MAX {
            return None;
        }
        let events_max = if is_probe { PROBE } else { CHUNK };
        let waiting = self.spool.read(from, CHUNK, CHUNK_BYTES).await?;
        let next = waiting.last()?.position.sequence + 1;
        let mut events = Vec::with_capacity(waiting.len());
        for SpooledEvent { position, state } in waiting {
            if events.len() == events_max {
                // A probe; nothing follows it in this pass.
                break;
            }
            let is_suspect = self.shared.refusals.has(position.shard());
            match state {
                SpooledState::Withheld => {
                    blocked.by_claims = true;
                    blocked.shards.insert(position.shard());
                }
                SpooledState::Damaged(damage) => {
                    error!(%damage, "An event in the spool is damaged; it is set aside.");
                    self.shared.metrics.spool.damages.inc();
                    self.spool.set_aside(position);
                }
                SpooledState::Ready(record) if blocked.has(position, &record) => {}
                SpooledState::Ready(_)
                    if is_suspect && blocked.sent.contains(&position.shard()) =>
                {
                    // For the whole pass: the refusal may be forgotten before its end.
                    blocked.shards.insert(position.shard());
                }
                SpooledState::Ready(record) => {
                    blocked.sent.insert(position.shard());
                    events.push(self.send(position, record, preconditions));
                }
            }
        }
        let deadline = Instant::now() + self.shared.ack_timeout;
        Some((next, Chunk { events, deadline, is_last: is_probe }))
    }

    /// Whether there is anything to find out that the events with the client do not tell, and nothing
    /// on the direct way that should go before.
    fn may_probe(&self) -> bool {
        let tells = self.spool.claimed() > 0 && !self.shared.health.brokers_respond();
        self.shared.breaker.is_direct_path_empty() && !tells
    }

    /// Waits for what becomes of the events. Returns how many left the spool.
    async fn land(&self, chunk: Chunk, blocked: &mut Blocked) -> usize {
        let (mut moved, mut alone, mut is_stuck) = (0, Vec::new(), false);
        for event in chunk.events {
            match timeout_at(chunk.deadline, event.sent.verdict()).await {
                Ok(Ok(_acknowledged)) => {
                    self.spool.remove(event.position);
                    moved += 1;
                }
                Ok(Err(failure)) => match failure.remedy() {
                    Remedy::TryAgain | Remedy::DeadLetter => alone.push(event),
                    Remedy::Spool => self.keep(event, blocked),
                    // In the next pass, in its order.
                    Remedy::Rebuild | Remedy::Repeat => {
                        blocked.shards.insert(event.position.shard());
                        self.spool.release(event.position);
                    }
                },
                Err(_elapsed) => {
                    self.overdue(event, blocked);
                    is_stuck = true;
                }
            }
        }
        if is_stuck && moved == 0 {
            // Not for each of them: one partition without a leader is no outage.
            self.shared.breaker.failed();
        }
        for event in alone {
            if blocked.has(event.position, event.sent.record()) {
                self.spool.release(event.position);
            } else {
                moved += usize::from(self.deliver_alone(event, blocked).await);
            }
        }
        moved
    }

    fn send(&self, position: Position, record: Record, preconditions: Preconditions) -> SentEvent {
        self.spool.claim(position);
        SentEvent { position, sent: self.publisher.send(record, preconditions) }
    }

    /// Kafka does not take it as things are: it stays, and so does all of its topic in this pass.
    fn keep(&self, event: SentEvent, blocked: &mut Blocked) {
        self.shared.refusals.note(event.position.shard());
        blocked.topics.insert(event.sent.record().topic().clone());
        self.spool.release(event.position);
    }

    /// The client has not given up; but its shard waits.
    fn overdue(&self, event: SentEvent, blocked: &mut Blocked) {
        blocked.by_claims = true;
        blocked.shards.insert(event.position.shard());
        LateEvent::follow(event.sent, event.position, &self.spool);
    }

    /// Sends an event by itself: a batch is refused as one, so that nothing is known against most of
    /// the events in it. What is refused alone belongs to the dead letters. Returns whether it left
    /// the spool.
    async fn deliver_alone(&self, event: SentEvent, blocked: &mut Blocked) -> bool {
        self.shared.refusals.note(event.position.shard());
        let (position, record) = (event.position, event.sent.record().clone());
        let failure = match self.land_alone(position, record.clone(), blocked).await {
            SoloOutcome::Arrived => return true,
            SoloOutcome::Waits => return false,
            SoloOutcome::Refused(failure) => failure,
        };
        let Some(reason) = dead_letter_reason(&record, failure) else {
            self.set_aside(position, &record, failure);
            return true;
        };
        let letter = record.clone().into_dead_letter(reason.tag(), failure.explain());
        match self.land_alone(position, letter, blocked).await {
            SoloOutcome::Arrived => {
                self.shared.metrics.dead_letters(record.webhook(), reason, 1);
                let (topic, reason) = (&**record.topic(), failure.explain());
                warn!(topic, reason, "An event went to the dead letters.");
                true
            }
            SoloOutcome::Refused(failure) => {
                self.set_aside(position, &record, failure);
                true
            }
            SoloOutcome::Waits => false,
        }
    }

    /// Sends an event and waits for what becomes of it.
    async fn land_alone(
        &self,
        position: Position,
        record: Record,
        blocked: &mut Blocked,
    ) -> SoloOutcome {
        let deadline = Instant::now() + self.shared.ack_timeout;
        let event = self.send(position, record, self.preconditions());
        match timeout_at(deadline, event.sent.verdict()).await {
            Ok(Ok(_acknowledged)) => {
                self.spool.remove(position);
                SoloOutcome::Arrived
            }
            Ok(Err(failure)) if failure.remedy() == Remedy::DeadLetter => {
                SoloOutcome::Refused(failure)
            }
            Ok(Err(_failure)) => {
                self.keep(event, blocked);
                SoloOutcome::Waits
            }
            Err(_elapsed) => {
                self.overdue(event, blocked);
                SoloOutcome::Waits
            }
        }
    }

    /// Neither the topic nor its dead letters take it: it is kept for the operator.
    fn set_aside(&self, position: Position, record: &Record, failure: Failure) {
        error!(
            topic = &**record.topic(),
            reason = failure.explain(),
            "An event is set aside: its dead letters do not take it either."
        );
        self.spool.set_aside(position);
    }
}

impl Blocked {
    fn has(&self, position: Position, record: &Record) -> bool {
        self.shards.contains(&position.shard()) || self.topics.contains(record.topic())
    }
}
