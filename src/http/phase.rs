//! What a connection waits for, and for how long it may.
//!
//! hyper's own header timer would need an allocation and a timer for each request, and would run between
//! requests too. So there is one timer for each connection, set for the phase that the connection is in, and
//! moved only when it fires too early. A request in flight has deadlines of its own (the read of its body, its
//! answer); the timer rests then.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering::Relaxed};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::time::{Instant, Sleep, sleep_until};

use super::{Drain, FIRST_REQUEST_TIMEOUT};
use crate::click::outcome::Refusal;
use crate::config::HttpSettings;

/// How long a connection that has had more than one request is silent before it rests.
pub(super) const REST_AFTER: Duration = Duration::from_secs(1);

/// Reads of a connection before others have their turn.
const READS_MAX: u32 = 2;

/// What the two ends of hyper see of a connection: the socket below it, the requests above.
#[derive(Default)]
pub(super) struct Activity {
    /// Requests in flight.
    requests: AtomicU32,
    /// Whether bytes were read that belong to no request yet.
    unclaimed: AtomicBool,
    /// Whether the bytes behind an answer may be the rest of a body that nobody wanted: until there are no
    /// more at once.
    may_be_body: AtomicBool,
    /// Whether the sender does not read what we write.
    stalled: AtomicBool,
    /// Pieces written, to tell a slow reader from one that stopped.
    written: AtomicU32,
    /// Whether everything is written, and everything that arrived is read.
    is_quiet: AtomicBool,
    /// Requests that there have been.
    begun: AtomicU64,
    /// Over HTTP/2 bytes that belong to no request are housekeeping.
    is_http2: AtomicBool,
    /// Whether a request began in this turn of the connection's task. A sender that sends without end, and
    /// perhaps without reading, is always ready: each turn is short, so that the other connections of the
    /// thread wait briefly.
    turn_is_taken: AtomicBool,
    /// Reads in this turn.
    reads: AtomicU32,
}

/// What a connection is waiting for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    /// The head of its first request, or of one that has begun; changes with every request, because one may
    /// be answered between two looks.
    Head(u64),
    /// The next request; changes likewise.
    Idle(u64),
    /// The bridge.
    Busy,
    /// The sender to read; changes with every piece that it takes.
    Stalled(u32),
}

impl Activity {
    pub(super) fn begin_turn(&self) {
        self.turn_is_taken.store(false, Relaxed);
        self.reads.store(0, Relaxed);
    }

    /// Whether this is the first request of the turn.
    pub(super) fn takes_turn(&self) -> bool {
        !self.turn_is_taken.swap(true, Relaxed)
    }

    pub(super) fn reads_are_used_up(&self) -> bool {
        self.reads.load(Relaxed) >= READS_MAX
    }

    pub(super) fn has_read_from_socket(&self) {
        self.reads.fetch_add(1, Relaxed);
        self.has_read();
    }

    pub(super) fn has_read(&self) {
        self.unclaimed.store(!self.may_be_body.load(Relaxed), Relaxed);
        self.is_quiet.store(false, Relaxed);
    }

    pub(super) fn waits_for_bytes(&self) {
        self.may_be_body.store(false, Relaxed);
        self.is_quiet.store(true, Relaxed);
    }

    pub(super) fn has_written(&self, is_done: bool) {
        self.is_quiet.store(false, Relaxed);
        self.stalled.store(!is_done, Relaxed);
        self.written.fetch_add(u32::from(is_done), Relaxed);
    }

    pub(super) fn has_flushed(&self, is_done: bool) {
        self.stalled.store(!is_done, Relaxed);
    }

    /// Whether the connection can leave hyper until its next byte.
    fn may_rest(&self) -> bool {
        self.is_quiet.load(Relaxed) && !self.is_http2.load(Relaxed)
    }

    fn phase(&self) -> Phase {
        let has_begun = || self.unclaimed.load(Relaxed) && !self.is_http2.load(Relaxed);
        let begun = self.begun.load(Relaxed);
        if self.stalled.load(Relaxed) {
            Phase::Stalled(self.written.load(Relaxed))
        } else if self.requests.load(Relaxed) > 0 {
            Phase::Busy
        } else if begun == 0 || has_begun() {
            Phase::Head(begun)
        } else {
            Phase::Idle(begun)
        }
    }
}

/// How hyper's part of a connection ended.
pub(super) enum Served {
    /// A limit was reached, or the drain's.
    Closed,
    /// hyper is done, perhaps because of what the sender sent.
    Finished(Option<Refusal>),
    /// The connection stays open without hyper.
    Resting,
}

/// Closes a connection that stays in a phase for too long, and tells it when to drain.
pub(super) struct PhaseTimer<'l> {
    pub(super) activity: Arc<Activity>,
    limits: &'l HttpSettings,
    phase: Phase,
    since: Instant,
    has_rested: bool,
    /// Never later than the deadline of the phase, unless the phase has none.
    timer: Pin<Box<Sleep>>,
    drain: &'l Drain,
    drain_begins: Pin<Box<dyn Future<Output = &'l ()> + Send + 'l>>,
    waits_for_drain: bool,
    is_draining: bool,
}

impl<'l> PhaseTimer<'l> {
    pub(super) fn new(
        activity: Arc<Activity>,
        limits: &'l HttpSettings,
        drain: &'l Drain,
    ) -> PhaseTimer<'l> {
        let since = Instant::now();
        PhaseTimer {
            phase: activity.phase(),
            activity,
            limits,
            since,
            has_rested: false,
            timer: Box::pin(sleep_until(since + limits.header_timeout())),
            drain,
            drain_begins: Box::pin(drain.0.wait()),
            waits_for_drain: false,
            is_draining: false,
        }
    }

    /// True once, when draining begins.
    pub(super) fn should_drain(&mut self, context: &mut Context) -> bool {
        if !std::mem::replace(&mut self.waits_for_drain, true) {
            // The task's waker stays the same, so one registration lasts.
            let _ = self.drain_begins.as_mut().poll(context);
        }
        // A click is about to come where a head has begun, and perhaps on a connection that was just accepted.
        let begins = !self.is_draining
            && self.drain.has_begun()
            && !matches!(self.activity.phase(), Phase::Head(_));
        self.is_draining |= begins;
        begins
    }

    /// Ready when the connection has been in its phase for long enough to rest, or for too long. A
    /// connection `is_resting` while it is without hyper.
    ///
    /// # Errors
    ///
    /// Why it is closed before its request was complete.
    pub(super) fn poll(
        &mut self,
        context: &mut Context,
        is_resting: bool,
    ) -> Poll<Result<Served, Refusal>> {
        let phase = self.activity.phase();
        if phase != self.phase {
            self.phase = phase;
            if phase != Phase::Busy {
                self.since = Instant::now();
            }
        }
        let may_rest = !is_resting && self.activity.may_rest();
        let (allowed, end) = match phase {
            Phase::Busy => return Poll::Pending,
            Phase::Head(_) if self.drain.has_begun() => {
                (FIRST_REQUEST_TIMEOUT.min(self.limits.header_timeout()), Ok(Served::Closed))
            }
            Phase::Head(_) => (self.limits.header_timeout(), Err(Refusal::SlowHead)),
            // Many connections bring one click.
            Phase::Idle(_) if may_rest && !self.has_rested => (Duration::ZERO, Ok(Served::Resting)),
            Phase::Idle(_) if may_rest && REST_AFTER < self.limits.idle_timeout() => {
                (REST_AFTER, Ok(Served::Resting))
            }
            Phase::Idle(_) => (self.limits.idle_timeout(), Ok(Served::Closed)),
            Phase::Stalled(_) => (self.limits.answer_timeout(), Err(Refusal::SenderGone)),
        };
        if !allowed.is_zero() {
            ready!(self.poll_deadline(context, self.since + allowed));
        }
        self.has_rested |= matches!(end, Ok(Served::Resting));
        Poll::Ready(end)
    }

    fn poll_deadline(&mut self, context: &mut Context, deadline: Instant) -> Poll<()> {
        if self.timer.deadline() > deadline {
            self.timer.as_mut().reset(deadline);
        }
        loop {
            ready!(self.timer.as_mut().poll(context));
            if Instant::now() >= deadline {
                return Poll::Ready(());
            }
            self.timer.as_mut().reset(deadline);
        }
    }
}

/// A request in flight, until it is dropped.
pub struct InFlightRequest(Arc<Activity>);

impl InFlightRequest {
    pub(super) fn new(activity: Arc<Activity>, is_http2: bool) -> InFlightRequest {
        activity.requests.fetch_add(1, Relaxed);
        activity.unclaimed.store(false, Relaxed);
        activity.begun.fetch_add(1, Relaxed);
        activity.is_http2.store(is_http2, Relaxed);
        InFlightRequest(activity)
    }
}

impl Drop for InFlightRequest {
    fn drop(&mut self) {
        // What was read meanwhile was its body. If the next head has begun with it, that head has the time
        // of an idle connection, which is limited too.
        self.0.unclaimed.store(false, Relaxed);
        self.0.may_be_body.store(true, Relaxed);
        self.0.requests.fetch_sub(1, Relaxed);
    }
}
