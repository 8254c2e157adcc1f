//! The durable queue on disk: events that Kafka cannot take now wait here, in their order.
//!
//! One thread owns the store (`spool/writer.rs`). Whatever waits while it writes goes into its next transaction, so one
//! fsync serves every request that waits for it. An event is in the spool when [`Spool::put`] says
//! so, and not before; it leaves when the drain has seen Kafka's acknowledgement.
//!
//! Each event has a position: its number in the order of arrival, and its shard, a hash of topic and key.
//! As long as a shard holds events, later ones of the same shard go behind them; the memory this takes
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

mod contents;
mod frame;
mod salvage;
mod store;
mod writer;

use std::collections::HashSet;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU32, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use jiff::Timestamp;
use tokio::sync::{Notify, oneshot};

use crate::click::record::Record;
use crate::config::{self, Problem};
use crate::observe::health::Health;
use crate::observe::metrics::{SpoolMetrics, SpoolRefusal};

pub use contents::{Contents, WaitingEvents, contents};
pub use frame::Damage;
pub use store::StoreError;
pub use writer::SpoolWriter;

/// How many shards there are. Keys that share one only wait for each other.
const SHARDS: usize = 1 << 16;

/// Bytes that may wait to be written. Some seconds' worth for any disk; one that hangs must not fill the
/// memory.
const WAITING_BYTES_MAX: usize = 64 << 20;

/// What is added to the largest body, for key, headers and frame.
const FRAME_OVERHEAD: usize = 64 << 10;

/// The place of an event: its number in the order of arrival, and its shard.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Position {
    pub sequence: u64,
    shard: u16,
}

impl Position {
    pub fn shard(self) -> usize {
        usize::from(self.shard)
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
pub struct SpooledEvent {
    pub position: Position,
    pub state: SpooledState,
}

pub enum SpooledState {
    /// Not to be sent now, nor what follows it in its shard: the Kafka client still has it, or an
    /// earlier one came after the drain's pass had gone by its position.
    Withheld,
    Ready(Record),
    /// What was written cannot be read any more.
    Damaged(Damage),
}

/// The spool, for any thread.
#[derive(Clone)]
pub struct Spool {
    shared: Arc<SpoolState>,
}

struct SpoolState {
    folder: PathBuf,
    max_bytes: u64,
    frame_max: usize,
    orders: Mutex<RequestQueue>,
    /// Rung for the thread.
    bell: Condvar,
    /// The next number in the order.
    next: AtomicU64,
    shards: Shards,
    /// Events that the Kafka client still has.
    claims: Mutex<HashSet<u64>>,
    /// How many those are.
    claimed: AtomicUsize,
    events: AtomicU64,
    /// Rung when events went.
    room: Notify,
    /// Rung when there is something for the drain to look at.
    work: Notify,
    metrics: SpoolMetrics,
    health: Arc<Health>,
}

#[derive(Default)]
struct RequestQueue {
    waiting: Vec<SpoolRequest>,
    /// Of the events that wait to be written.
    bytes: usize,
    /// With so many the thread need not wait for more.
    enough: usize,
    is_stopped: bool,
}

/// What the thread is asked to do.
enum SpoolRequest {
    Put { position: Position, frame: Bytes, reply: oneshot::Sender<Result<(), NotSpooled>> },
    Remove(Position),
    SetAside(Position),
    Read { from: u64, count: usize, bytes: usize, reply: oneshot::Sender<Option<Vec<RawEvent>>> },
}

impl SpoolRequest {
    /// What is to be written.
    fn bytes(&self) -> usize {
        match self {
            SpoolRequest::Put { frame, .. } => frame.len(),
            SpoolRequest::Remove(_) | SpoolRequest::SetAside(_) | SpoolRequest::Read { .. } => 0,
        }
    }
}

/// An event as the thread finds it.
struct RawEvent {
    position: Position,
    /// None where it is not to be sent now.
    frame: Option<Bytes>,
}

impl RawEvent {
    fn read(self) -> SpooledEvent {
        let RawEvent { position, frame } = self;
        let Some(frame) = frame else {
            return SpooledEvent { position, state: SpooledState::Withheld };
        };
        let record = frame::read(&frame).ok_or(Damage::Checksum).and_then(|frame| frame.record());
        SpooledEvent {
            position,
            state: record.map_or_else(SpooledState::Damaged, SpooledState::Ready),
        }
    }
}

/// How many events wait in each shard.
struct Shards(Vec<AtomicU32>);

impl Shards {
    fn new() -> Shards {
        Shards(std::iter::repeat_with(AtomicU32::default).take(SHARDS).collect())
    }

    fn add(&self, shard: u16) {
        self.0[usize::from(shard)].fetch_add(1, Ordering::SeqCst);
    }

    fn take(&self, shard: u16) {
        // An event whose bytes were damaged may say the wrong shard.
        let less = |count: u32| count.checked_sub(1);
        let _ = self.0[usize::from(shard)].fetch_update(Ordering::SeqCst, Ordering::SeqCst, less);
    }

    fn holds(&self, shard: u16) -> bool {
        self.0[usize::from(shard)].load(Ordering::SeqCst) > 0
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
        config: &config::SpoolSettings,
        max_body_bytes: usize,
        metrics: SpoolMetrics,
        health: Arc<Health>,
    ) -> Result<(Spool, SpoolWriter), Problem> {
        let shared = Arc::new(SpoolState {
            folder: config.dir.clone(),
            max_bytes: config.max_bytes,
            frame_max: max_body_bytes + FRAME_OVERHEAD,
            orders: Mutex::default(),
            bell: Condvar::new(),
            next: AtomicU64::new(first_number()),
            shards: Shards::new(),
            claims: Mutex::default(),
            claimed: AtomicUsize::new(0),
            events: AtomicU64::new(0),
            room: Notify::new(),
            work: Notify::new(),
            metrics,
            health,
        });
        shared.metrics.max_bytes.set(config.max_bytes.cast_signed());
        let writer = SpoolWriter::start(shared.clone())?;
        Ok((Spool { shared }, writer))
    }

    /// The next place in the order, for a record that has just arrived.
    pub fn position(&self, record: &Record) -> Position {
        let sequence = self.shared.next.fetch_add(1, Ordering::Relaxed);
        Position { sequence, shard: shard(record) }
    }

    /// The number of the event that arrives next.
    pub fn next_number(&self) -> u64 {
        self.shared.next.load(Ordering::Relaxed)
    }

    /// Whether events of the same shard wait, so that this one must go behind them.
    pub fn holds(&self, position: Position) -> bool {
        self.shared.shards.holds(position.shard)
    }

    /// How many events wait.
    pub fn events(&self) -> u64 {
        self.shared.events.load(Ordering::SeqCst)
    }

    /// Writes an event. From the call on, and not only from its end, its shard holds it. The order is
    /// placed by the call itself; waiting for the result may be given up.
    ///
    /// # Errors
    ///
    /// Why it is not in the spool.
    pub fn put(
        &self,
        position: Position,
        record: &Record,
    ) -> impl Future<Output = Result<(), NotSpooled>> + use<> {
        let (reply, result) = oneshot::channel();
        let frame = frame::write(position, Timestamp::now(), record);
        match frame {
            Ok(frame) => self.shared.order(SpoolRequest::Put { position, frame, reply }),
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
    pub fn claim(&self, position: Position) {
        if self.shared.claims().insert(position.sequence) {
            self.shared.claimed.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Notes that it no longer has it, and that Kafka did not acknowledge it.
    pub fn release(&self, position: Position) {
        self.shared.release(position);
    }

    /// Has the drain look at the spool.
    pub fn ring(&self) {
        self.shared.work.notify_one();
    }

    /// Removes an event that Kafka has, and its claim with it. One that is not there is nothing to
    /// remove.
    pub fn remove(&self, position: Position) {
        self.shared.order(SpoolRequest::Remove(position));
    }

    /// Takes an event out of the order for good, and keeps it for the operator.
    pub fn set_aside(&self, position: Position) {
        self.shared.order(SpoolRequest::SetAside(position));
    }

    /// How many events the Kafka client has.
    pub fn claimed(&self) -> usize {
        self.shared.claimed.load(Ordering::Relaxed)
    }

    /// The waiting events from this number on, where 0 begins a new pass: at most so many and, beyond the first, so many bytes of
    /// them; none while the disk cannot be read.
    pub async fn read(&self, from: u64, count: usize, bytes: usize) -> Option<Vec<SpooledEvent>> {
        let (reply, result) = oneshot::channel();
        self.shared.order(SpoolRequest::Read { from, count, bytes, reply });
        let found = result.await.ok()??;
        Some(found.into_iter().map(RawEvent::read).collect())
    }

    /// Waits until events went, so that there may be room.
    pub async fn room(&self) {
        self.shared.room.notified().await;
    }

    /// Waits until there are events after there were none, or [`ring`](Spool::ring) is called.
    pub async fn work(&self) {
        self.shared.work.notified().await;
    }
}

impl SpoolState {
    fn order(&self, order: SpoolRequest) {
        let mut orders = self.orders();
        if let SpoolRequest::Put { position, frame, .. } = &order {
            if orders.bytes > WAITING_BYTES_MAX {
                drop(orders);
                return self.turn_away(order);
            }
            orders.bytes += frame.len();
            // Under the lock, so that a store being opened anew counts it once.
            self.shards.add(position.shard);
        }
        orders.waiting.push(order);
        let count = orders.waiting.len();
        if count == 1 || count == orders.enough {
            self.bell.notify_one();
        }
    }

    /// The disk does not keep up: what waits for it must not fill the memory.
    fn turn_away(&self, order: SpoolRequest) {
        if let SpoolRequest::Put { reply, .. } = order {
            self.metrics.refused[SpoolRefusal::Failed].inc();
            let _ = reply.send(Err(NotSpooled::Failed("the disk does not keep up".into())));
        }
    }

    fn release(&self, position: Position) {
        if self.claims().remove(&position.sequence) {
            self.claimed.fetch_sub(1, Ordering::Relaxed);
        }
    }

    // Nothing is done under these locks that could leave their content half done.
    fn orders(&self) -> MutexGuard<'_, RequestQueue> {
        self.orders.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn claims(&self) -> MutexGuard<'_, HashSet<u64>> {
        self.claims.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The shard of a record. Dead letters have no key, and share the shard of their topic.
fn shard(record: &Record) -> u16 {
    let mut hash = crc32fast::Hasher::new();
    hash.update(record.topic().as_bytes());
    hash.update(&[0]);
    hash.update(record.key().unwrap_or_default());
    (hash.finalize() & 0xffff) as u16
}

/// The first number of a process: later than any before it, by the clock, for the case that the
/// events on disk cannot be read when it starts. Leaves a million numbers for each millisecond.
fn first_number() -> u64 {
    u64::try_from(Timestamp::now().as_millisecond()).unwrap_or(0) << 20
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::click::record::tests::record_of;
    use crate::observe::metrics::Metrics;

    /// The numbers of the events from here on, and whether each may be sent.
    async fn read(spool: &Spool, from: u64) -> Vec<(u64, bool)> {
        let events = spool.read(from, 100, 1 << 20).await.expect("a disk that works");
        let is_ready = |state| matches!(state, SpooledState::Ready(_));
        events.into_iter().map(|e| (e.position.sequence, is_ready(e.state))).collect()
    }

    /// A click whose time with Kafka was up only after the drain had gone by its position, and the next
    /// click of its campaign.
    #[tokio::test]
    async fn what_follows_a_late_comer_waits_for_the_next_pass() {
        let folder = tempfile::tempdir().expect("a folder");
        let config = config::SpoolSettings { dir: folder.path().to_owned(), max_bytes: 1 << 20 };
        let metrics = Metrics::new(&["click"], &["clicks"]).expect("metrics").spool;
        let (spool, writer) =
            Spool::open(&config, 1 << 20, metrics, Arc::default()).expect("a spool");
        let record = |body| record_of(body, "2026-01-10T12:00:00Z", None);
        let (seven, eight) = (record(r#"{"campid":7}"#), record(r#"{"campid":8}"#));
        let [late, other] = [&seven, &eight].map(|record| spool.position(record));
        spool.put(other, &eight).await.expect("room");
        assert_eq!(read(&spool, 0).await, [(other.sequence, true)]);
        spool.put(late, &seven).await.expect("room");
        let next = spool.position(&seven);
        spool.put(next, &seven).await.expect("room");
        assert_eq!(read(&spool, other.sequence + 1).await, [(next.sequence, false)]);
        let all = [late, other, next].map(|position| (position.sequence, true));
        assert_eq!(read(&spool, 0).await, all);
        writer.close();
    }
}
