//! What was seen of each connection of a history, by the wire, the handler and the sender.

use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use super::answers::{Answers, Written};
use super::invariants::SLACK;
use super::plan::{ConnectionPlan, Framing, Plan};
use super::script::{self, Marks};
use super::wire::End;
use crate::click::outcome::Refusal;

/// Reads of a connection in one turn of its task: those that the bridge allows itself, and those that find
/// out the version.
const READS_MAX: usize = 2 + 24;

/// Requests that begin in one turn: one, one that was put off in the turn before, and few more where hyper
/// looks again.
const BEGINS_MAX: usize = 5;

/// hyper's buffer of a connection beyond the bytes of a head. It may be filled twice.
const BUFFER_MAX: usize = 16 << 10;

/// Headers of an answer.
const HEADERS: usize = 100;

/// One history: its plan, and what was seen.
pub struct ObservedHistory {
    pub plan: Plan,
    began: Instant,
    seen: Mutex<Seen>,
}

#[derive(Default)]
pub struct Seen {
    pub history: Vec<(Duration, Option<usize>, Event)>,
    pub ledgers: Vec<Ledger>,
    pub violations: Vec<String>,
}

/// What was seen of a connection.
#[derive(Default)]
pub struct Ledger {
    pub opened: Option<Duration>,
    /// When its header of the PROXY protocol was complete.
    pub proxied: Option<Duration>,
    /// When the first byte of each request, its head and all of it had arrived.
    pub arrivals: Vec<Arrival>,
    pub ended: Option<(Duration, End)>,
    pub handed: Vec<Handed>,
    pub answers: Answers,
    pub last_write: Option<Duration>,
    pub blocked: Option<Duration>,
    pub received: usize,
    /// When the bridge reset the connection.
    pub was_reset: Option<Duration>,
    pub closed: Option<(Duration, Option<Refusal>)>,
    /// Requests whose answers the sender has, over HTTP/2.
    pub got: Vec<usize>,
    is_shut: bool,
    read: usize,
    claimed: usize,
    produced: usize,
    reads: usize,
    begins: usize,
}

#[derive(Debug, Clone, Copy, Default)]
pub struct Arrival {
    pub first: Option<Duration>,
    pub head: Option<Duration>,
    pub last: Option<Duration>,
}

/// A request that was handed over.
pub struct Handed {
    pub request: usize,
    pub at: Duration,
    /// How its body was read: none where it was not.
    pub body: Option<(Duration, Result<(), Refusal>)>,
    pub ended: Option<(Duration, u16)>,
    /// When the handler was dropped before its end.
    pub dropped: Option<Duration>,
}

#[derive(Debug, Clone, Copy)]
pub enum Event {
    Opens,
    Full,
    Sends(usize, usize, Marks),
    SendsProxy(usize),
    Ends(End),
    Reads(usize),
    Writes(usize),
    Blocked,
    Received(usize),
    Shuts,
    Resets(usize),
    Handed(usize),
    BodyRead(usize, Result<usize, Refusal>),
    Answers(usize, u16),
    Dropped(usize),
    Closed(Option<Refusal>),
    Drains,
    Got(usize, u16),
}

impl fmt::Display for Event {
    fn fmt(&self, formatter: &mut fmt::Formatter) -> fmt::Result {
        match *self {
            Event::Opens => write!(formatter, "opens"),
            Event::Full => write!(formatter, "is refused, because there are too many"),
            Event::Sends(request, count, marks) => {
                let part = match marks {
                    Marks { is_first: true, is_last: true, .. } => "all",
                    Marks { is_first: true, has_head: true, .. } => "the head",
                    Marks { is_first: true, .. } => "the beginning",
                    Marks { is_last: true, .. } => "the rest",
                    _ => "a part",
                };
                write!(formatter, "sends {part} of request {request}, {count} bytes")
            }
            Event::SendsProxy(count) => write!(formatter, "sends {count} bytes of a PROXY header"),
            Event::Ends(End::Finished) => write!(formatter, "sends no more"),
            Event::Ends(End::Reset) => write!(formatter, "resets the connection"),
            Event::Reads(count) => write!(formatter, "  the bridge reads {count} bytes"),
            Event::Writes(count) => write!(formatter, "  the bridge writes {count} bytes"),
            Event::Blocked => write!(formatter, "  the bridge cannot write"),
            Event::Received(count) => write!(formatter, "reads {count} bytes"),
            Event::Shuts => write!(formatter, "  the bridge sends no more"),
            Event::Resets(lost) => write!(formatter, "  is reset; {lost} bytes are lost"),
            Event::Handed(request) => write!(formatter, "  request {request} is handed over"),
            Event::BodyRead(request, Ok(count)) => {
                write!(formatter, "  the body of request {request} is read, {count} bytes")
            }
            Event::BodyRead(request, Err(why)) => {
                write!(formatter, "  the body of request {request} is not read: {why:?}")
            }
            Event::Answers(request, status) => {
                write!(formatter, "  request {request} is answered {status}")
            }
            Event::Dropped(request) => write!(formatter, "  request {request} is dropped"),
            Event::Closed(None) => write!(formatter, "  the bridge is done"),
            Event::Closed(Some(why)) => write!(formatter, "  the bridge is done: {why:?}"),
            Event::Drains => write!(formatter, "the bridge drains"),
            Event::Got(request, status) => {
                write!(formatter, "has the answer to request {request}, {status}")
            }
        }
    }
}

impl ObservedHistory {
    /// Begins now.
    pub fn new(plan: Plan) -> Arc<ObservedHistory> {
        let ledger = |connection: &ConnectionPlan| Ledger {
            arrivals: vec![Arrival::default(); connection.requests.len()],
            ..Ledger::default()
        };
        let ledgers = plan.connections.iter().map(ledger).collect();
        let seen = Mutex::new(Seen { ledgers, ..Seen::default() });
        Arc::new(ObservedHistory { plan, began: Instant::now(), seen })
    }

    pub fn seen(&self) -> MutexGuard<'_, Seen> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn now(&self) -> Duration {
        self.began.elapsed()
    }

    pub fn drains(&self) {
        let now = self.now();
        self.seen().history.push((now, None, Event::Drains));
    }

    pub fn watch(self: &Arc<Self>, connection: usize) -> Watch {
        Watch { world: self.clone(), connection }
    }
}

/// Notes what happens on one connection.
#[derive(Clone)]
pub struct Watch {
    world: Arc<ObservedHistory>,
    connection: usize,
}

impl Watch {
    pub fn plan(&self) -> &ConnectionPlan {
        &self.world.plan.connections[self.connection]
    }

    fn note(&self, event: Event, change: impl FnOnce(&mut Ledger, Duration)) {
        let now = self.world.now();
        let seen = &mut *self.world.seen();
        seen.history.push((now, Some(self.connection), event));
        change(&mut seen.ledgers[self.connection], now);
    }

    fn look<T>(&self, look: impl FnOnce(&mut Ledger) -> T) -> T {
        look(&mut self.world.seen().ledgers[self.connection])
    }

    /// An invariant is broken.
    pub fn violation(&self, what: &str) {
        let now = self.world.now().as_millis();
        let what = format!("connection {} at {now} ms: {what}", self.connection);
        self.world.seen().violations.push(what);
    }

    pub fn opens(&self) {
        self.note(Event::Opens, |ledger, now| ledger.opened = Some(now));
    }

    pub fn is_full(&self) {
        self.note(Event::Full, |_, _| {});
    }

    /// A turn of the connection's task begins.
    pub fn turns(&self) {
        self.look(|ledger| (ledger.reads, ledger.begins) = (0, 0));
    }

    pub fn sends_proxy(&self, count: usize, is_last: bool) {
        self.note(Event::SendsProxy(count), |ledger, now| {
            ledger.claimed += count;
            ledger.proxied = is_last.then_some(now);
        });
    }

    pub fn sends(&self, request: usize, count: usize, marks: Marks) {
        self.note(Event::Sends(request, count, marks), |ledger, now| {
            let arrival = &mut ledger.arrivals[request];
            arrival.first = arrival.first.or(marks.is_first.then_some(now));
            arrival.head = arrival.head.or(marks.has_head.then_some(now));
            arrival.last = marks.is_last.then_some(now);
        });
    }

    pub fn ends(&self, end: End) {
        self.note(Event::Ends(end), |ledger, now| ledger.ended = Some((now, end)));
    }

    pub fn reads(&self, count: usize) {
        let limit = 2 * (self.world.plan.limits.max_header_bytes + BUFFER_MAX);
        self.note(Event::Reads(count), |ledger, _| {
            // What is read after the last answer is dropped.
            if !ledger.is_shut {
                ledger.read += count;
                ledger.reads += 1;
            }
        });
        let (ahead, reads) =
            self.look(|ledger| (ledger.read.saturating_sub(ledger.claimed), ledger.reads));
        if ahead > limit && !self.plan().is_http2 {
            self.violation(&format!("memory: {ahead} bytes are read ahead of the requests"));
        }
        // A header of the PROXY protocol is read byte by byte.
        let proxy = self.plan().proxy.as_ref().map_or(0, Vec::len);
        if reads > READS_MAX + proxy && !self.plan().is_http2 {
            self.violation(&format!("fairness: {reads} reads in one turn"));
        }
    }

    pub fn writes(&self, bytes: &[u8]) {
        let is_http2 = self.plan().is_http2;
        let (now, limit) = (self.world.now(), self.world.plan.limits.answer_timeout());
        if self
            .look(|ledger| ledger.stalled_since())
            .is_some_and(|since| now > since + limit + SLACK)
        {
            self.violation("limits: a sender that did not read has had too much time");
        }
        self.note(Event::Writes(bytes.len()), |ledger, now| {
            ledger.blocked = None;
            ledger.last_write = Some(now);
            if !is_http2 {
                ledger.answers.write(bytes, now);
            }
        });
    }

    pub fn is_blocked(&self) {
        self.note(Event::Blocked, |ledger, now| ledger.blocked = ledger.blocked.or(Some(now)));
    }

    pub fn is_read(&self, count: usize) {
        let (before, _) = self.progress();
        self.note(Event::Received(count), |ledger, _| ledger.received += count);
        let (after, _) = self.progress();
        for place in before..after {
            let status = self.look(|ledger| ledger.answers.all[place].status);
            self.note(Event::Got(place, status), |_, _| {});
        }
    }

    pub fn shuts(&self) {
        self.note(Event::Shuts, |ledger, _| ledger.is_shut = true);
    }

    pub fn resets(&self, lost: usize) {
        self.note(Event::Resets(lost), |ledger, now| {
            ledger.was_reset = Some(now).filter(|_| lost > 0);
        });
    }

    pub fn is_handed(&self, request: usize) {
        let plan = &self.plan().requests[request];
        let (bytes, _) = script::bytes(request, plan);
        self.note(Event::Handed(request), |ledger, at| {
            ledger.claimed += bytes.len();
            ledger.begins += 1;
            let handed = Handed { request, at, body: None, ended: None, dropped: None };
            ledger.handed.push(handed);
        });
        let begins = self.look(|ledger| ledger.begins);
        if begins > BEGINS_MAX && !self.plan().is_http2 {
            self.violation(&format!("fairness: {begins} requests begin in one turn"));
        }
        // A proxy's own address would be here without its header.
        if plan.framing == Framing::Garbage {
            self.violation("bytes that are no HTTP were handed over");
        }
    }

    pub fn body_is_read(&self, request: usize, result: Result<usize, Refusal>) {
        self.note(Event::BodyRead(request, result), |ledger, now| {
            ledger.last_handed(request).body = Some((now, result.map(drop)));
        });
    }

    pub fn answers(&self, request: usize, status: u16) {
        let plan = &self.plan().requests[request];
        let body = if plan.method == "HEAD" || status == 500 { 0 } else { plan.answer };
        let limits = &self.world.plan.limits;
        let largest = self.plan().requests.iter().map(|plan| plan.answer).max().unwrap_or_default();
        let limit = limits.max_header_bytes + BUFFER_MAX + 2 * (HEADERS + largest);
        self.note(Event::Answers(request, status), |ledger, now| {
            ledger.last_handed(request).ended = Some((now, status));
            ledger.produced += HEADERS + body;
        });
        let waiting = self.look(|ledger| ledger.produced.saturating_sub(ledger.answers.written()));
        if waiting > limit && !self.plan().is_http2 {
            self.violation(&format!("memory: {waiting} bytes of answers wait to be written"));
        }
    }

    pub fn is_dropped(&self, request: usize) {
        self.note(Event::Dropped(request), |ledger, now| {
            ledger.last_handed(request).dropped = Some(now);
        });
    }

    /// The sender has the whole answer, over HTTP/2.
    pub fn got(&self, request: usize, status: u16) {
        self.note(Event::Got(request, status), |ledger, _| ledger.got.push(request));
    }

    pub fn closes(&self, why: Refusal) {
        self.look(|ledger| ledger.closed = Some((Duration::ZERO, Some(why))));
    }

    pub fn is_closed(&self) {
        let why = self.look(|ledger| ledger.closed.and_then(|(_, why)| why));
        self.note(Event::Closed(why), |ledger, now| ledger.closed = Some((now, why)));
    }

    /// How many answers the sender has read, and whether it was asked to send the last body.
    pub fn progress(&self) -> (usize, usize) {
        self.look(|ledger| {
            let received = ledger.received;
            let is_read = |answer: &&Written| answer.end <= received;
            (ledger.answers.all.iter().filter(is_read).count(), ledger.answers.continues(received))
        })
    }
}

impl Ledger {
    /// Since when the bridge waits for the sender to read, if it waits.
    pub fn stalled_since(&self) -> Option<Duration> {
        Some(self.blocked?.max(self.last_write.unwrap_or_default()))
    }

    /// The request as it was handed over last.
    fn last_handed(&mut self, request: usize) -> &mut Handed {
        let place = self.handed.iter().rposition(|handed| handed.request == request);
        &mut self.handed[place.unwrap_or_default()]
    }
}
