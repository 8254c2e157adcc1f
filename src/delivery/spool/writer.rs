//! The thread that owns the store: takes orders, makes their changes durable together, answers.

use std::collections::HashSet;
use std::sync::atomic::Ordering;
use std::sync::{Arc, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use bytes::Bytes;
use jiff::Timestamp;
use tokio::sync::oneshot;
use tokio::time::Instant;
use tracing::{error, info};

use super::store::{self, Change, Store, StoreError, Totals};
use super::{NotSpooled, Position, RawEvent, SHARDS, SpoolRequest, SpoolState, frame};
use crate::config::Problem;
use crate::observe::metrics::SpoolRefusal;

/// How often a store that failed is tried again, and how often the gauges are brought up to date.
const TICK: Duration = Duration::from_secs(1);

/// How long to wait for company: after a commit all its senders come again, and the first of them
/// should not have the next fsync to itself.
const GATHER_TIME: Duration = Duration::from_millis(1);

/// RequestQueue in one transaction.
const BATCH_MAX: usize = 8_192;

/// With less room than this the spool counts as full: most events would not fit.
const ROOM_MIN: u64 = 4 << 10;

/// The thread that owns the store, to be waited for.
pub struct SpoolWriter {
    shared: Arc<SpoolState>,
    thread: JoinHandle<()>,
}

/// What the thread works with.
struct WriterThread {
    shared: Arc<SpoolState>,
    /// None while the disk fails.
    store: Option<Store>,
    totals: Totals,
    /// Why the disk fails, for whoever wants to write.
    reason: Arc<str>,
    /// How many bytes waited when the disk itself was full: since then, events may only go.
    full_at: Option<u64>,
    /// Whether the spool took events when this was last looked at.
    was_working: bool,
    /// Removals that the disk did not take yet.
    behind: Vec<SpoolRequest>,
    pass: Pass,
}

/// How far the drain's pass has got.
#[derive(Default)]
struct Pass {
    /// The first number that it has not come to.
    next: u64,
    /// Shards that got an event with an earlier number since. An event has its number from its arrival,
    /// but may come only when its time with Kafka is up: what follows it in its shard must wait for the
    /// next pass, or it would go first.
    overtaken: HashSet<usize>,
}

/// What is to be said when a change is durable, or is not.
enum PendingReply {
    Written(Position, oneshot::Sender<Result<(), NotSpooled>>),
    Removed(Position),
    SetAside(Position),
}

impl SpoolWriter {
    /// Opens the store and starts the thread. A disk that fails is tried again once a second.
    pub(super) fn start(shared: Arc<SpoolState>) -> Result<SpoolWriter, Problem> {
        let mut worker = WriterThread::new(shared.clone());
        if let Err(error @ StoreError::InUse) = worker.open() {
            let text = format!("{}: {error}", shared.folder.display());
            return Err(Problem::new("spool.dir", text));
        }
        let thread = std::thread::Builder::new()
            .name("spool-writer".into())
            .spawn(move || worker.work())
            .map_err(|error| Problem::new("spool", error.to_string()))?;
        Ok(SpoolWriter { shared, thread })
    }

    /// Waits for what was ordered, and closes the store.
    pub fn close(self) {
        self.shared.orders().is_stopped = true;
        self.shared.bell.notify_one();
        let _ = self.thread.join();
    }
}

impl WriterThread {
    fn new(shared: Arc<SpoolState>) -> WriterThread {
        WriterThread {
            shared,
            store: None,
            totals: Totals::default(),
            reason: "".into(),
            full_at: None,
            was_working: true,
            behind: Vec::new(),
            pass: Pass::default(),
        }
    }

    fn work(&mut self) {
        let mut tick = Instant::now() + TICK;
        loop {
            let (orders, is_stopped) = self.wait(tick);
            let is_idle = orders.is_empty();
            self.shared.health.set_spool_busy(!is_idle);
            self.carry_out(orders);
            self.shared.health.set_spool_busy(false);
            if is_stopped && is_idle {
                return;
            }
            if Instant::now() >= tick {
                self.recover();
                self.look();
                tick = Instant::now() + TICK;
            }
        }
    }

    /// Waits for orders, or the next tick; and a moment for half as many as the last time.
    fn wait(&self, until: Instant) -> (Vec<SpoolRequest>, bool) {
        let rest = until.saturating_duration_since(Instant::now());
        let orders = self.shared.orders();
        let waited = self.shared.bell.wait_timeout_while(orders, rest, |orders| {
            orders.waiting.is_empty() && !orders.is_stopped
        });
        let (mut orders, _) = waited.unwrap_or_else(PoisonError::into_inner);
        if orders.waiting.len() < orders.enough {
            let gathered = self.shared.bell.wait_timeout_while(orders, GATHER_TIME, |orders| {
                orders.waiting.len() < orders.enough && !orders.is_stopped
            });
            (orders, _) = gathered.unwrap_or_else(PoisonError::into_inner);
        }
        let count = orders.waiting.len().min(BATCH_MAX);
        orders.enough = count / 2;
        let taken: usize = orders.waiting.iter().take(count).map(SpoolRequest::bytes).sum();
        orders.bytes -= taken;
        let rest = orders.waiting.split_off(count);
        (std::mem::replace(&mut orders.waiting, rest), orders.is_stopped)
    }

    /// Carries out orders: all changes in one transaction, in their order, then the questions.
    fn carry_out(&mut self, orders: Vec<SpoolRequest>) {
        let (mut changes, mut answers, mut questions) = (Vec::new(), Vec::new(), Vec::new());
        let mut bytes = self.totals.bytes;
        for order in std::mem::take(&mut self.behind).into_iter().chain(orders) {
            match order {
                SpoolRequest::Put { position, frame, reply } => {
                    let more = frame.len() as u64;
                    if let Err(why) = self.may_put(bytes + more) {
                        self.shared.refuse(position, reply, why);
                        continue;
                    }
                    bytes += more;
                    if position.sequence < self.pass.next {
                        self.pass.overtaken.insert(position.shard());
                    }
                    changes.push(Change::Put { sequence: position.sequence, frame });
                    answers.push(PendingReply::Written(position, reply));
                }
                SpoolRequest::Remove(position) => {
                    changes.push(Change::Remove { sequence: position.sequence });
                    answers.push(PendingReply::Removed(position));
                }
                SpoolRequest::SetAside(position) => {
                    changes.push(Change::SetAside { sequence: position.sequence });
                    answers.push(PendingReply::SetAside(position));
                }
                SpoolRequest::Read { from, count, bytes, reply } => {
                    questions.push((from, count, bytes, reply));
                }
            }
        }
        if !changes.is_empty() {
            match self.apply(&changes) {
                Ok(found) => self.confirm(answers, found),
                Err(error) => self.fail(answers, &error),
            }
        }
        for (from, count, bytes, reply) in questions {
            let _ = reply.send(self.read(from, count, bytes));
        }
    }

    fn may_put(&self, bytes: u64) -> Result<(), NotSpooled> {
        if self.store.is_none() {
            Err(NotSpooled::Failed(self.reason.clone()))
        } else if self.full_at.is_some() || bytes > self.shared.max_bytes {
            Err(NotSpooled::Full)
        } else {
            Ok(())
        }
    }

    fn apply(&mut self, changes: &[Change]) -> Result<Vec<bool>, StoreError> {
        let Some(store) = &mut self.store else {
            return Err(StoreError::Other(self.reason.to_string()));
        };
        let found = store.apply(changes)?;
        self.totals = store.totals()?;
        if self.totals.events == 0 {
            store.tidy(self.full_at.is_some())?;
        }
        Ok(found)
    }

    fn read(&mut self, from: u64, count: usize, bytes: usize) -> Option<Vec<RawEvent>> {
        let mut events: Vec<RawEvent> = Vec::new();
        let mut left = bytes;
        if from == 0 {
            self.pass = Pass::default();
        }
        // Claims are looked at here, between two transactions: one that goes with its event is there
        // as long as the event is.
        let (shared, overtaken) = (&self.shared, &self.pass.overtaken);
        let found = |sequence, frame: &[u8]| {
            let position = Position { sequence, shard: frame::shard(frame).unwrap_or_default() };
            let is_free =
                !shared.claims().contains(&sequence) && !overtaken.contains(&position.shard());
            left = left.saturating_sub(frame.len());
            let frame = is_free.then(|| Bytes::copy_from_slice(frame));
            events.push(RawEvent { position, frame });
            left > 0
        };
        let result = self.store.as_ref()?.read(from, count, found);
        match result {
            Ok(()) => {
                if let Some(last) = events.last() {
                    self.pass.next = last.position.sequence + 1;
                }
                Some(events)
            }
            Err(error) => {
                self.fail(Vec::new(), &error);
                None
            }
        }
    }

    /// The changes are durable. `found` says where there was an event before.
    fn confirm(&mut self, answers: Vec<PendingReply>, found: Vec<bool>) {
        let shared = self.shared.clone();
        let before = shared.events.swap(self.totals.events, Ordering::SeqCst);
        // Whoever hears of it finds it counted.
        self.look();
        let mut has_gone = false;
        for (answer, found) in answers.into_iter().zip(found) {
            match answer {
                PendingReply::Written(_, reply) => {
                    shared.metrics.written.inc();
                    // A request that is gone no longer needs to know.
                    let _ = reply.send(Ok(()));
                }
                PendingReply::Removed(position) | PendingReply::SetAside(position) if found => {
                    shared.release(position);
                    shared.shards.take(position.shard);
                    has_gone = true;
                    if matches!(answer, PendingReply::Removed(_)) {
                        shared.metrics.drained.inc();
                    }
                }
                PendingReply::Removed(position) | PendingReply::SetAside(position) => {
                    shared.release(position);
                }
            }
        }
        if has_gone {
            shared.room.notify_waiters();
        }
        if before == 0 && self.totals.events > 0 {
            shared.work.notify_one();
        }
    }

    /// The disk fails: nothing that was asked for is durable, as far as anybody knows.
    fn fail(&mut self, answers: Vec<PendingReply>, error: &StoreError) {
        if self.store.take().is_some() {
            self.report(error);
        }
        for answer in answers {
            match answer {
                PendingReply::Written(position, reply) => {
                    self.shared.refuse(position, reply, NotSpooled::Failed(self.reason.clone()));
                }
                PendingReply::Removed(position) => self.behind.push(SpoolRequest::Remove(position)),
                PendingReply::SetAside(position) => {
                    self.behind.push(SpoolRequest::SetAside(position))
                }
            }
        }
        if error.is_disk_full() {
            self.full_at = Some(self.totals.bytes);
            store::give_up_reserve(&self.shared.folder);
            // With that room, events can be removed again.
            self.recover();
        }
        self.look();
    }

    /// Tries to get the disk back, and its reserve.
    fn recover(&mut self) {
        if self.store.is_none() && self.open().is_ok() {
            info!("The spool's disk works again.");
        }
        if self.store.is_some()
            && let Some(full_at) = self.full_at
        {
            // Where events went the store has room inside; else there must be some on the disk.
            let has_room = full_at.saturating_sub(self.totals.bytes) >= 2 * store::RESERVE_BYTES;
            let mut taken = store::take_reserve(&self.shared.folder, !has_room).is_ok();
            if !taken && has_room && self.compact() {
                taken = store::take_reserve(&self.shared.folder, false).is_ok();
            }
            if taken {
                self.full_at = None;
                self.shared.room.notify_waiters();
            }
        }
    }

    /// Gives the disk back what the store does not need.
    fn compact(&mut self) -> bool {
        match self.store.as_mut().map(|store| store.tidy(true)) {
            Some(Err(error)) => {
                self.fail(Vec::new(), &error);
                false
            }
            done => done.is_some(),
        }
    }

    /// Opens the store and takes stock.
    fn open(&mut self) -> Result<(), StoreError> {
        let shared = self.shared.clone();
        let damaged = || shared.metrics.damages.inc();
        let opened = Store::open(&shared.folder, shared.frame_max, damaged).and_then(|store| {
            self.totals = store.totals()?;
            // Counted beside those in force, which others look at meanwhile. Only this thread takes
            // events out of a shard, and those that come wait in `orders`.
            let mut shards = vec![0; SHARDS];
            store.read(0, usize::MAX, |_, frame| {
                shards[usize::from(frame::shard(frame).unwrap_or_default())] += 1;
                true
            })?;
            let orders = shared.orders();
            for order in &orders.waiting {
                if let SpoolRequest::Put { position, .. } = order {
                    shards[position.shard()] += 1;
                }
            }
            for (shard, count) in shared.shards.0.iter().zip(shards) {
                shard.store(count, Ordering::SeqCst);
            }
            Ok(store)
        });
        match opened {
            Ok(store) => {
                self.store = Some(store);
                shared.next.fetch_max(self.totals.last + 1, Ordering::SeqCst);
                shared.events.store(self.totals.events, Ordering::SeqCst);
                if self.full_at.is_none() && store::take_reserve(&shared.folder, false).is_err() {
                    self.full_at = Some(self.totals.bytes);
                }
                if self.totals.events > 0 {
                    let Totals { events, bytes, .. } = self.totals;
                    info!(events, bytes, "Events wait in the spool.");
                    shared.work.notify_one();
                }
                self.look();
                Ok(())
            }
            Err(error) => {
                let is_news = *self.reason != *error.to_string();
                if is_news && !matches!(error, StoreError::InUse) {
                    self.report(&error);
                }
                self.look();
                Err(error)
            }
        }
    }

    fn report(&mut self, error: &StoreError) {
        self.reason = error.to_string().into();
        error!(
            reason = &*self.reason, folder = %self.shared.folder.display(),
            "The spool's disk fails: what Kafka cannot take now is refused. Look at the disk, its \
             room and its rights; it is tried again once a second."
        );
    }

    /// Brings gauges and readiness up to date.
    fn look(&mut self) {
        let (shared, totals) = (&self.shared, &self.totals);
        let metrics = &shared.metrics;
        metrics.events.set(totals.events.cast_signed());
        metrics.bytes.set(totals.bytes.cast_signed());
        metrics.set_aside.set(totals.set_aside.cast_signed());
        let now = Timestamp::now().as_millisecond();
        metrics.oldest_age_seconds.set(totals.oldest_ms.map_or(0, |oldest| (now - oldest) / 1_000));
        let is_working = self.may_put(totals.bytes + ROOM_MIN).is_ok();
        metrics.working.set(is_working.into());
        shared.health.set_can_spool(is_working);
        if is_working != std::mem::replace(&mut self.was_working, is_working)
            && self.store.is_some()
        {
            let (bytes, max_bytes) = (totals.bytes, shared.max_bytes);
            if is_working {
                info!(bytes, max_bytes, "The spool has room again.");
            } else {
                error!(
                    bytes,
                    max_bytes,
                    is_disk_full = self.full_at.is_some(),
                    "The spool is full: what Kafka cannot take now is refused."
                );
            }
        }
    }
}

impl SpoolState {
    /// Says that an event was not written.
    fn refuse(
        &self,
        position: Position,
        reply: oneshot::Sender<Result<(), NotSpooled>>,
        why: NotSpooled,
    ) {
        self.shards.take(position.shard);
        let refusal = match why {
            NotSpooled::Full => SpoolRefusal::Full,
            NotSpooled::Failed(_) => SpoolRefusal::Failed,
        };
        self.metrics.refused[refusal].inc();
        let _ = reply.send(Err(why));
    }
}
