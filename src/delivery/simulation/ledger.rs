//! What was promised and what came of it: every event, its answer, and where it is in Kafka.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use crate::click::outcome::{Held, Refusal};
use crate::click::record::Record;
use crate::kafka::simulated::{Order, TopicPartition};

/// How long a disk that failed may take to be opened again: the writer tries it once a second.
const REOPENED_WITHIN: Duration = Duration::from_millis(2_500);

/// What Kafka makes of an event, until the limits are raised.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum EventKind {
    Good,
    /// Its topic does not take it, but the dead letters do.
    TooLarge,
    Corrupt,
    /// Neither takes it.
    TooLargeForBoth,
    CorruptForBoth,
    /// Its topic takes it only with another timestamp.
    OldTimestamp,
}

impl EventKind {
    pub const BAD: [EventKind; 5] = [
        EventKind::TooLarge,
        EventKind::Corrupt,
        EventKind::TooLargeForBoth,
        EventKind::CorruptForBoth,
        EventKind::OldTimestamp,
    ];
}

/// One event.
#[derive(Debug, Clone)]
pub(super) struct TrackedEvent {
    pub kind: EventKind,
    pub topic: &'static str,
    pub key: String,
    pub life: usize,
    /// Its place in the order of arrival.
    pub arrival: Option<usize>,
    began: Duration,
    ended: Option<Duration>,
    worker: usize,
    pub answer: Option<Result<Held, Refusal>>,
    /// Where its first copy is in Kafka.
    place: Option<(TopicPartition, usize)>,
    pub copies: usize,
    is_dead_letter: bool,
    is_synced: bool,
    has_failed: bool,
    /// Why it need not be in the order of its key.
    exception: Option<String>,
    /// Whether it may be in Kafka more than once.
    may_be_twice: bool,
}

/// All events of a history.
#[derive(Default)]
pub(super) struct EventLedger {
    pub events: Vec<TrackedEvent>,
    arrivals: usize,
    lengths: BTreeMap<TopicPartition, usize>,
    /// Until when the disk fails, is full, or is slow.
    disk_fails_until: Option<Duration>,
    disk_is_slow_until: Option<Duration>,
    pub has_spool: bool,
    /// Whether the spool is so small that it is often full.
    pub may_be_full: bool,
    pub violations: Vec<String>,
}

/// The number of an event in its bytes: `#000123#`.
pub(super) fn number_in(bytes: &[u8]) -> Option<usize> {
    numbers_in(bytes).next()
}

/// The numbers of all events in some bytes.
pub(super) fn numbers_in(bytes: &[u8]) -> impl Iterator<Item = usize> {
    memchr::memchr_iter(b'#', bytes).filter_map(|at| {
        let digits = bytes.get(at + 1..at + 8)?.strip_suffix(b"#")?;
        std::str::from_utf8(digits).ok()?.parse().ok()
    })
}

impl EventLedger {
    pub fn add(&mut self, kind: EventKind, topic: &'static str, key: &str, life: usize) -> usize {
        self.events.push(TrackedEvent {
            kind,
            topic,
            key: key.to_owned(),
            life,
            arrival: None,
            began: Duration::ZERO,
            ended: None,
            worker: 0,
            answer: None,
            place: None,
            copies: 0,
            is_dead_letter: false,
            is_synced: false,
            has_failed: false,
            exception: None,
            // An event that was set aside is not followed where its acknowledgement is late.
            may_be_twice: matches!(kind, EventKind::TooLargeForBoth | EventKind::CorruptForBoth),
        });
        self.events.len() - 1
    }

    pub fn arrive(&mut self, numbers: &[usize], worker: usize, now: Duration) {
        for number in numbers {
            let event = &mut self.events[*number];
            (event.arrival, event.began) = (Some(self.arrivals), now);
            event.worker = worker;
            self.arrivals += 1;
        }
    }

    /// A record is in Kafka.
    pub fn logged(&mut self, partition: &TopicPartition, record: &Record) {
        let length = self.lengths.entry(partition.clone()).or_default();
        let place = *length;
        *length += 1;
        let Some(event) = number_in(record.value()).and_then(|n| self.events.get_mut(n)) else {
            return;
        };
        event.copies += 1;
        event.is_dead_letter |= record.is_dead_letter();
        if event.place.is_none() && !record.is_dead_letter() {
            event.place = Some((partition.clone(), place));
        }
    }

    /// Bytes are durable.
    pub fn synced(&mut self, bytes: &[u8]) {
        for number in numbers_in(bytes) {
            if let Some(event) = self.events.get_mut(number) {
                event.is_synced = true;
            }
        }
    }

    /// Whether an event has left the spool may be forgotten: the process is killed, or the disk fails.
    pub fn forgets_what_left(&mut self) {
        let there = self.events.iter_mut().filter(|event| event.arrival.is_some());
        there.for_each(|event| event.may_be_twice = true);
    }

    /// The disk fails, or is full, until then.
    pub fn disk_fails(&mut self, until: Duration) {
        self.forgets_what_left();
        self.disk_fails_until = self.disk_fails_until.max(Some(until));
    }

    pub fn disk_is_slow(&mut self, until: Duration) {
        self.disk_is_slow_until = self.disk_is_slow_until.max(Some(until));
    }

    /// All faults of the disk have ended by now.
    pub fn heal_disk(&mut self, now: Duration) {
        self.disk_fails_until = self.disk_fails_until.min(Some(now));
        self.disk_is_slow_until = self.disk_is_slow_until.min(Some(now));
    }

    /// Kafka did not take an event. A batch of the forwarder is refused as one, so that what follows may be first; what
    /// is on its way together has no order where one of it fails.
    pub fn failed(&mut self, number: usize, why: &str, order: Order) {
        let event = &mut self.events[number];
        event.may_be_twice = true;
        event.has_failed |= order != Order::Kept;
        // Without a spool nobody waits for those that failed.
        if !self.has_spool || order == Order::Lost && event.is_synced {
            self.except(number, why);
        }
    }

    /// The client that has an event is replaced. Without a spool nobody waits for what it has.
    pub fn outlives_its_client(&mut self, number: usize) {
        if !self.has_spool {
            self.except(number, "its producer was replaced");
        }
    }

    /// An event need not be in the order of its key.
    fn except(&mut self, number: usize, why: &str) {
        let exception = &mut self.events[number].exception;
        exception.get_or_insert_with(|| why.to_owned());
    }

    /// A request was answered.
    pub fn answered(
        &mut self,
        numbers: &[usize],
        answer: Result<Held, Refusal>,
        (now, deadline): (Duration, Duration),
    ) {
        if now > deadline + Duration::from_millis(2) {
            let late = now - deadline;
            self.violate(format!("{numbers:?} were answered {late:?} after their deadline"));
        }
        for number in numbers {
            let event = &mut self.events[*number];
            event.answer = Some(answer);
            event.ended = Some(now);
            // Who waits for room may be overtaken by those who need less.
            event.has_failed |= self.may_be_full;
            let is_in_kafka = event.place.is_some() || event.is_dead_letter;
            let is_held = match answer {
                Ok(Held::InKafka) => event.place.is_some(),
                Ok(Held::AsDeadLetter) => event.is_dead_letter,
                Ok(Held::OnDisk) => event.is_synced || is_in_kafka,
                Err(_) => true,
            };
            // The receipt of a body with several events says which of them is furthest from Kafka.
            if !is_held && (numbers.len() == 1 || !(event.is_synced || is_in_kafka)) {
                self.violate(format!("{number} has a receipt ({answer:?}) and is not there"));
            }
        }
        let began = numbers.iter().map(|number| self.events[*number].began).min();
        let began = began.unwrap_or(now);
        let overlaps =
            |until: Option<Duration>| until.is_some_and(|until| until + REOPENED_WITHIN >= began);
        let (disk_failed, disk_was_slow) =
            (overlaps(self.disk_fails_until), overlaps(self.disk_is_slow_until));
        if disk_failed {
            for number in numbers {
                self.except(*number, "the disk failed");
                self.events[*number].may_be_twice = true;
            }
        }
        let is_allowed = match answer {
            Ok(_) => true,
            // It depends on Kafka alone.
            Err(_) if !self.has_spool => true,
            Err(Refusal::SpoolFull) => disk_failed || self.may_be_full,
            Err(Refusal::SpoolFailed) => disk_failed,
            Err(Refusal::Unconfirmed) => disk_failed || disk_was_slow || self.may_be_full,
            Err(_) => false,
        };
        if !is_allowed {
            self.violate(format!("{numbers:?} were refused ({answer:?}) although there was room"));
        }
    }

    /// Whether an event that arrived earlier must be in Kafka earlier: if it was answered before the other came, and
    /// on one worker as long as none of it fails.
    fn must_precede(&self, first: usize, second: usize) -> bool {
        let (first, second) = (&self.events[first], &self.events[second]);
        first.worker == second.worker && !first.has_failed
            || first.ended.is_some_and(|ended| ended < second.began)
    }

    pub fn violate(&mut self, what: String) {
        self.violations.push(what);
    }

    /// The whole history: everything with a receipt is in Kafka, and each key's events are in their order.
    pub fn check(&mut self) {
        let mut found = Vec::new();
        for (number, event) in self.events.iter().enumerate() {
            let is_in_kafka = event.place.is_some() || event.is_dead_letter;
            if matches!(event.answer, Some(Ok(_))) && !is_in_kafka {
                found.push(format!("{number} is lost: {event}"));
            }
            if event.copies > 1 && !event.may_be_twice {
                found.push(format!("{number} is there more than once: {event}"));
            }
        }
        let mut of_keys: BTreeMap<_, Vec<(usize, usize)>> = BTreeMap::new();
        for (number, event) in self.events.iter().enumerate() {
            if let (Some(arrival), Some(Ok(_)), Some(_), None) =
                (event.arrival, event.answer, &event.place, &event.exception)
            {
                let key = (event.topic, &event.key);
                of_keys.entry(key).or_default().push((arrival, number));
            }
        }
        for events in of_keys.values_mut() {
            events.sort_unstable();
            for (at, (_, second)) in events.iter().enumerate() {
                let earlier = events[..at].iter().map(|(_, first)| *first);
                let overtaken = earlier.filter(|first| self.must_precede(*first, *second));
                for first in
                    overtaken.filter(|f| self.events[*f].place > self.events[*second].place)
                {
                    found.push(format!(
                        "{second} is in Kafka before {first}, which came first: {}; {}",
                        self.events[*second], self.events[first]
                    ));
                }
            }
        }
        self.violations.append(&mut found);
    }
}

impl fmt::Display for TrackedEvent {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        let TrackedEvent { kind, topic, key, life, answer, place, copies, .. } = self;
        write!(f, "life {life}, {topic}/{key}, {kind:?}, {answer:?}, {copies} times in Kafka")?;
        place.iter().try_for_each(|((_, partition), at)| write!(f, " from {partition}:{at} on"))
    }
}
