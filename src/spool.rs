//! The durable queue on disk: events that Kafka cannot take now wait here, in their order.
//!
//! One thread owns the store. Whatever waits while it writes goes into its next transaction, so one
//! fsync serves every request that waits for it. An event is in the spool when [`Spool::put`] says
//! so, and not before; it leaves when the drain has seen Kafka's acknowledgement.
//!
//! Each event has a place: its number in the order of arrival, and its lane, a hash of topic and key.
//! As long as a lane holds events, later ones of the same lane go behind them; the memory this takes
//! does not depend on how many keys there are.
//!
//! An event may be in the spool and in the Kafka client at once: it was not acknowledged in time, but
//! the client has not given up. Such an event is *claimed*. It leaves the spool with its late
//! acknowledgement, and only if the client fails it will the drain send it again.
//!
//! # Why redb
//!
//! redb 4.6 and fjall 3.1 were compared on two shared cores with 400,000 events of 600 bytes, 256 in
//! each durable transaction, drained in thousands; two runs of each, in turn, by a throw-away program:
//!
//! | | redb | fjall |
//! | --- | --- | --- |
//! | events written/s | 138,000 and 156,000 | 188,000 and 198,000 |
//! | CPU for each | 3.5 to 4.1 µs | 3.2 to 3.3 µs |
//! | bytes written for each | 830 | 1,232 |
//! | events drained/s | 357,000 and 441,000 | 544,000 and 672,000 |
//! | on disk when full, when drained | 264 MB, 32 KB (compacted in 0.1 s) | 238 MB, 265 MB |
//! | resident memory | 21 MB | 67 MB |
//! | counting the events | at once | 0.9 s for 1.5 million |
//! | opening after kill -9 | 1.1 s for 800 MB, every page verified | 0.14 s for 900 MB |
//! | after kill -9 | every commit that was reported was there | the same |
//!
//! Both are far faster than HTTP, so what decides is what happens on a bad day: redb gives the disk
//! back, verifies what it reads after a crash, is one file that one process locks, and needs a third
//! of the memory. `cargo bench --bench spool` measures this module.

mod frame;
mod salvage;
mod store;

use std::collections::{HashMap, HashSet};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use bytes::Bytes;
use jiff::Timestamp;
use tokio::sync::{Notify, oneshot};
use tokio::time::Instant;
use tracing::{error, info};

use crate::config::{self, Problem};
use crate::health::Health;
use crate::metrics::SpoolMetrics;
use crate::route::Record;

pub use frame::Damage;
pub use store::StoreError;
use store::{Change, Store, Totals};

/// How many lanes there are. Keys that share one only wait for each other.
const LANES: usize = 1 << 16;

/// How often a store that failed is tried again, and how often the gauges are brought up to date.
const TICK: Duration = Duration::from_secs(1);

/// Orders in one transaction.
const BATCH_MAX: usize = 8_192;

/// What is added to the largest body, for key, headers and frame.
const FRAME_OVERHEAD: usize = 64 << 10;

/// With less room than this the spool counts as full: most events would not fit.
const ROOM_MIN: u64 = 4 << 10;

/// The place of an event: its number in the order of arrival, and its lane.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Place {
    pub sequence: u64,
    lane: u16,
}

impl Place {
    pub fn lane(self) -> usize {
        usize::from(self.lane)
    }
}

/// Why an event is not in the spool.
#[derive(Debug, Clone)]
pub enum NotSpooled {
    /// `spool.max_bytes`, or the disk, is full.
    Full,
    /// The disk fails; for the log.
    Failed(Arc<str>),
}

/// An event that waits, as the drain finds it.
pub struct Waiting {
    pub place: Place,
    pub state: State,
}

pub enum State {
    /// The Kafka client still has it.
    Claimed,
    Ready(Record),
    /// What was written cannot be read any more.
    Damaged(Damage),
}

/// The spool, for any thread.
#[derive(Clone)]
pub struct Spool {
    shared: Arc<Shared>,
}

/// The thread that owns the store, to be waited for.
pub struct Keeper {
    shared: Arc<Shared>,
    thread: JoinHandle<()>,
}

struct Shared {
    folder: PathBuf,
    max_bytes: u64,
    frame_max: usize,
    orders: Mutex<Orders>,
    /// Rung for the thread.
    bell: Condvar,
    /// The next number in the order.
    next: AtomicU64,
    lanes: Lanes,
    /// Events that the Kafka client still has.
    claims: Mutex<HashSet<u64>>,
    events: AtomicU64,
    /// Rung when events went.
    room: Notify,
    /// Rung when there are events after there were none, or a claim was given back.
    work: Notify,
    metrics: SpoolMetrics,
    health: Arc<Health>,
}

#[derive(Default)]
struct Orders {
    waiting: Vec<Order>,
    is_stopped: bool,
}

/// What the thread is asked to do.
enum Order {
    Put { place: Place, frame: Bytes, reply: oneshot::Sender<Result<(), NotSpooled>> },
    Remove(Place),
    SetAside(Place),
    Read { from: u64, count: usize, reply: oneshot::Sender<Option<Vec<Found>>> },
}

/// An event as the thread finds it.
struct Found {
    place: Place,
    /// None where the Kafka client has it.
    frame: Option<Bytes>,
}

impl Found {
    fn read(self) -> Waiting {
        let Found { place, frame } = self;
        let Some(frame) = frame else { return Waiting { place, state: State::Claimed } };
        let record = frame::read(&frame).ok_or(Damage::Checksum).and_then(|frame| frame.record());
        Waiting { place, state: record.map_or_else(State::Damaged, State::Ready) }
    }
}

/// How many events wait in each lane.
struct Lanes(Vec<AtomicU32>);

impl Lanes {
    fn new() -> Lanes {
        Lanes(std::iter::repeat_with(AtomicU32::default).take(LANES).collect())
    }

    fn add(&self, lane: u16) {
        self.0[usize::from(lane)].fetch_add(1, Ordering::SeqCst);
    }

    fn take(&self, lane: u16) {
        // An event whose bytes were damaged may say the wrong lane.
        let less = |count: u32| count.checked_sub(1);
        let _ = self.0[usize::from(lane)].fetch_update(Ordering::SeqCst, Ordering::SeqCst, less);
    }

    fn holds(&self, lane: u16) -> bool {
        self.0[usize::from(lane)].load(Ordering::SeqCst) > 0
    }
}

impl Spool {
    /// Opens the spool and starts its thread. A disk that fails does not keep the bridge from
    /// starting: it is tried again once a second.
    ///
    /// # Errors
    ///
    /// Another process has it.
    pub fn open(
        config: &config::Spool,
        max_body_bytes: usize,
        metrics: SpoolMetrics,
        health: Arc<Health>,
    ) -> Result<(Spool, Keeper), Problem> {
        let shared = Arc::new(Shared {
            folder: config.dir.clone(),
            max_bytes: config.max_bytes,
            frame_max: max_body_bytes + FRAME_OVERHEAD,
            orders: Mutex::default(),
            bell: Condvar::new(),
            next: AtomicU64::new(first_number()),
            lanes: Lanes::new(),
            claims: Mutex::default(),
            events: AtomicU64::new(0),
            room: Notify::new(),
            work: Notify::new(),
            metrics,
            health,
        });
        shared.metrics.max_bytes.set(config.max_bytes.cast_signed());
        let mut worker = Worker::new(shared.clone());
        if let Err(error @ StoreError::InUse) = worker.open() {
            let text = format!("{}: {error}", config.dir.display());
            return Err(Problem::new("spool.dir", text));
        }
        let thread = std::thread::Builder::new()
            .name("spool".into())
            .spawn(move || worker.work())
            .map_err(|error| Problem::new("spool", error.to_string()))?;
        Ok((Spool { shared: shared.clone() }, Keeper { shared, thread }))
    }

    /// The next place in the order, for a record that has just arrived.
    pub fn place(&self, record: &Record) -> Place {
        let sequence = self.shared.next.fetch_add(1, Ordering::Relaxed);
        Place { sequence, lane: lane(record) }
    }

    /// Whether events of the same lane wait, so that this one must go behind them.
    pub fn holds(&self, place: Place) -> bool {
        self.shared.lanes.holds(place.lane)
    }

    /// How many events wait.
    pub fn events(&self) -> u64 {
        self.shared.events.load(Ordering::SeqCst)
    }

    /// Writes an event. From the call on, and not only from its end, its lane holds it. The order is
    /// placed by the call itself; waiting for the result may be given up.
    ///
    /// # Errors
    ///
    /// Why it is not in the spool.
    pub fn put(
        &self,
        place: Place,
        record: &Record,
    ) -> impl Future<Output = Result<(), NotSpooled>> + use<> {
        let (reply, result) = oneshot::channel();
        let frame = frame::write(place, Timestamp::now(), record);
        match frame {
            Ok(frame) => self.shared.order(Order::Put { place, frame, reply }),
            Err(damage) => {
                let _ = reply.send(Err(NotSpooled::Failed(damage.to_string().into())));
            }
        }
        async move {
            let gone = || Err(NotSpooled::Failed("the spool's thread is gone".into()));
            result.await.unwrap_or_else(|_| gone())
        }
    }

    /// Notes that the Kafka client has this event.
    pub fn claim(&self, place: Place) {
        self.shared.claims().insert(place.sequence);
    }

    /// Notes that it no longer has it, and that Kafka did not acknowledge it.
    pub fn release(&self, place: Place) {
        self.shared.claims().remove(&place.sequence);
        self.shared.work.notify_one();
    }

    /// Removes an event that Kafka has, and its claim with it. One that is not there is nothing to
    /// remove.
    pub fn remove(&self, place: Place) {
        self.shared.order(Order::Remove(place));
    }

    /// Takes an event out of the order for good, and keeps it for the operator.
    pub fn set_aside(&self, place: Place) {
        self.shared.order(Order::SetAside(place));
    }

    /// How many events the Kafka client has.
    pub fn claimed(&self) -> usize {
        self.shared.claims().len()
    }

    /// The waiting events from this number on, at most so many; none while the disk cannot be read.
    pub async fn read(&self, from: u64, count: usize) -> Option<Vec<Waiting>> {
        let (reply, result) = oneshot::channel();
        self.shared.order(Order::Read { from, count, reply });
        let found = result.await.ok()??;
        Some(found.into_iter().map(Found::read).collect())
    }

    /// Waits until events went, so that there may be room.
    pub async fn room(&self) {
        self.shared.room.notified().await;
    }

    /// Waits until there are events after there were none, or the client gave one back.
    pub async fn work(&self) {
        self.shared.work.notified().await;
    }
}

impl Keeper {
    /// Waits for what was ordered, and closes the store.
    pub fn close(self) {
        self.shared.orders().is_stopped = true;
        self.shared.bell.notify_one();
        let _ = self.thread.join();
    }
}

impl Shared {
    fn order(&self, order: Order) {
        let mut orders = self.orders();
        if let Order::Put { place, .. } = &order {
            // Under the lock, so that a store being opened anew counts it once.
            self.lanes.add(place.lane);
        }
        orders.waiting.push(order);
        if orders.waiting.len() == 1 {
            self.bell.notify_one();
        }
    }

    // Nothing is done under these locks that could leave their content half done.
    fn orders(&self) -> MutexGuard<'_, Orders> {
        self.orders.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn claims(&self) -> MutexGuard<'_, HashSet<u64>> {
        self.claims.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What waits in a spool's folder.
#[derive(Debug, Default)]
pub struct Contents {
    /// By topic.
    pub topics: HashMap<String, Waitings>,
    /// Events that no topic takes.
    pub set_aside: u64,
    /// Events that cannot be read any more.
    pub damaged: u64,
}

/// How much waits.
#[derive(Debug, Default)]
pub struct Waitings {
    pub events: u64,
    pub bytes: u64,
    /// When the oldest was written, milliseconds since the Unix epoch.
    pub oldest_ms: Option<i64>,
}

impl Waitings {
    pub fn add(&mut self, more: &Waitings) {
        self.events += more.events;
        self.bytes += more.bytes;
        self.oldest_ms = self.oldest_ms.into_iter().chain(more.oldest_ms).min();
    }
}

/// Looks into a folder that no bridge uses.
///
/// # Errors
///
/// There is no spool, or it is in use, or damaged.
pub fn contents(folder: &Path) -> Result<Contents, StoreError> {
    let store = Store::look_into(folder)?;
    let mut contents = Contents { set_aside: store.totals()?.set_aside, ..Contents::default() };
    store.read(0, usize::MAX, |_, bytes| {
        let read = frame::read(bytes).and_then(|f| Some((f.written_ms, f.record().ok()?)));
        let Some((written_ms, record)) = read else {
            contents.damaged += 1;
            return;
        };
        let one = Waitings { events: 1, bytes: bytes.len() as u64, oldest_ms: Some(written_ms) };
        contents.topics.entry(record.topic().to_string()).or_default().add(&one);
    })?;
    Ok(contents)
}

/// The lane of a record. Dead letters have no key, and share the lane of their topic.
fn lane(record: &Record) -> u16 {
    let mut hash = crc32fast::Hasher::new();
    hash.update(record.topic().as_bytes());
    hash.update(&[0]);
    hash.update(record.key().unwrap_or_default().as_bytes());
    (hash.finalize() & 0xffff) as u16
}

/// The first number of a process: later than any before it, by the clock, for the case that the
/// events on disk cannot be read when it starts. Leaves a million numbers for each millisecond.
fn first_number() -> u64 {
    u64::try_from(Timestamp::now().as_millisecond()).unwrap_or(0) << 20
}

/// The thread that owns the store.
struct Worker {
    shared: Arc<Shared>,
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
    behind: Vec<Order>,
}

/// What is to be said when a change is durable, or is not.
enum Answer {
    Written(Place, oneshot::Sender<Result<(), NotSpooled>>),
    Removed(Place),
    SetAside(Place),
}

impl Worker {
    fn new(shared: Arc<Shared>) -> Worker {
        Worker {
            shared,
            store: None,
            totals: Totals::default(),
            reason: "".into(),
            full_at: None,
            was_working: true,
            behind: Vec::new(),
        }
    }

    fn work(&mut self) {
        let mut tick = Instant::now() + TICK;
        loop {
            let (orders, is_stopped) = self.wait(tick);
            let is_idle = orders.is_empty();
            self.carry_out(orders);
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

    /// Waits for orders, or the next tick.
    fn wait(&self, until: Instant) -> (Vec<Order>, bool) {
        let rest = until.saturating_duration_since(Instant::now());
        let orders = self.shared.orders();
        let waited = self.shared.bell.wait_timeout_while(orders, rest, |orders| {
            orders.waiting.is_empty() && !orders.is_stopped
        });
        let (mut orders, _) = waited.unwrap_or_else(PoisonError::into_inner);
        let count = orders.waiting.len().min(BATCH_MAX);
        let rest = orders.waiting.split_off(count);
        (std::mem::replace(&mut orders.waiting, rest), orders.is_stopped)
    }

    /// Carries out orders: all changes in one transaction, in their order, then the questions.
    fn carry_out(&mut self, orders: Vec<Order>) {
        let (mut changes, mut answers, mut questions) = (Vec::new(), Vec::new(), Vec::new());
        let mut bytes = self.totals.bytes;
        for order in std::mem::take(&mut self.behind).into_iter().chain(orders) {
            match order {
                Order::Put { place, frame, reply } => {
                    let more = frame.len() as u64;
                    if let Err(why) = self.may_put(bytes + more) {
                        self.shared.refuse(place, reply, why);
                        continue;
                    }
                    bytes += more;
                    changes.push(Change::Put { sequence: place.sequence, frame });
                    answers.push(Answer::Written(place, reply));
                }
                Order::Remove(place) => {
                    changes.push(Change::Remove { sequence: place.sequence });
                    answers.push(Answer::Removed(place));
                }
                Order::SetAside(place) => {
                    changes.push(Change::SetAside { sequence: place.sequence });
                    answers.push(Answer::SetAside(place));
                }
                Order::Read { from, count, reply } => questions.push((from, count, reply)),
            }
        }
        if !changes.is_empty() {
            match self.apply(&changes) {
                Ok(found) => self.confirm(answers, found),
                Err(error) => self.fail(answers, &error),
            }
        }
        for (from, count, reply) in questions {
            let _ = reply.send(self.read(from, count));
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

    fn read(&mut self, from: u64, count: usize) -> Option<Vec<Found>> {
        let mut events = Vec::new();
        // Claims are looked at here, between two transactions: one that goes with its event is there
        // as long as the event is.
        let claims = self.shared.claims();
        let found = |sequence, frame: &[u8]| {
            let place = Place { sequence, lane: frame::lane(frame).unwrap_or_default() };
            let is_free = !claims.contains(&sequence);
            let frame = is_free.then(|| Bytes::copy_from_slice(frame));
            events.push(Found { place, frame });
        };
        let result = self.store.as_ref()?.read(from, count, found);
        drop(claims);
        match result {
            Ok(()) => Some(events),
            Err(error) => {
                self.fail(Vec::new(), &error);
                None
            }
        }
    }

    /// The changes are durable. `found` says where there was an event before.
    fn confirm(&mut self, answers: Vec<Answer>, found: Vec<bool>) {
        let shared = self.shared.clone();
        let before = shared.events.swap(self.totals.events, Ordering::SeqCst);
        // Whoever hears of it finds it counted.
        self.look();
        let mut has_gone = false;
        for (answer, found) in answers.into_iter().zip(found) {
            match answer {
                Answer::Written(_, reply) => {
                    shared.metrics.written.inc();
                    // A request that is gone no longer needs to know.
                    let _ = reply.send(Ok(()));
                }
                Answer::Removed(place) | Answer::SetAside(place) if found => {
                    shared.claims().remove(&place.sequence);
                    shared.lanes.take(place.lane);
                    has_gone = true;
                    if matches!(answer, Answer::Removed(_)) {
                        shared.metrics.drained.inc();
                    }
                }
                Answer::Removed(place) | Answer::SetAside(place) => {
                    shared.claims().remove(&place.sequence);
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
    fn fail(&mut self, answers: Vec<Answer>, error: &StoreError) {
        if self.store.take().is_some() {
            self.report(error);
        }
        for answer in answers {
            match answer {
                Answer::Written(place, reply) => {
                    self.shared.refuse(place, reply, NotSpooled::Failed(self.reason.clone()));
                }
                Answer::Removed(place) => self.behind.push(Order::Remove(place)),
                Answer::SetAside(place) => self.behind.push(Order::SetAside(place)),
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
            if store::take_reserve(&self.shared.folder, !has_room).is_ok() {
                self.full_at = None;
                self.shared.room.notify_waiters();
            }
        }
    }

    /// Opens the store and takes stock.
    fn open(&mut self) -> Result<(), StoreError> {
        let shared = self.shared.clone();
        let damaged = |_: &Path| shared.metrics.damages.inc();
        let opened = Store::open(&shared.folder, shared.frame_max, damaged).and_then(|store| {
            self.totals = store.totals()?;
            // Nobody may count an event meanwhile.
            let orders = shared.orders();
            shared.lanes.0.iter().for_each(|count| count.store(0, Ordering::SeqCst));
            store.read(0, usize::MAX, |_, frame| {
                shared.lanes.add(frame::lane(frame).unwrap_or_default());
            })?;
            for order in &orders.waiting {
                if let Order::Put { place, .. } = order {
                    shared.lanes.add(place.lane);
                }
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
                if *self.reason != *error.to_string() {
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

impl Shared {
    /// Says that an event was not written.
    fn refuse(
        &self,
        place: Place,
        reply: oneshot::Sender<Result<(), NotSpooled>>,
        why: NotSpooled,
    ) {
        self.lanes.take(place.lane);
        match why {
            NotSpooled::Full => self.metrics.refused_full.inc(),
            NotSpooled::Failed(_) => self.metrics.refused_failed.inc(),
        }
        let _ = reply.send(Err(why));
    }
}
