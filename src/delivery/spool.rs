//! The durable queue on disk: events that Kafka cannot take now wait here, in the order of arrival.
//!
//! An event is in the spool when [`Spool::put`] has returned `Ok`, and not before: its batch is
//! written and synced. It leaves when the forwarder has seen Kafka's acknowledgement.
//!
//! An event's [`Position`] is its sequence number, taken on arrival, and its shard, a hash of topic and
//! key. As long as a shard holds events, later ones of the same shard go behind them; the memory that
//! this takes does not depend on the number of keys.
//!
//! An event may be in the spool and with the Kafka client at once: it was not acknowledged in time, but
//! the client has not given up. Such an event is *claimed*. It leaves the spool with its late
//! acknowledgement; only if the client fails does the forwarder send it again.
//!
//! - `spool/writer.rs`: the thread that owns the store; one sync serves all requests that wait for it.
//! - `spool/store.rs`: the events on disk; `series.rs`: segments in their order; `segment.rs`: one file of
//!   events; `notes.rs`: what has left it; `manifest.rs`: which segments there are.
//! - `spool/disk.rs`: the files below the store; `owner.rs`: who uses them.
//! - `spool/frame.rs`: one event as bytes; `salvage.rs`: finds whole events in any file.
//! - `spool/legacy.rs`: the spool of versions before segments; `upgrade.rs`: what it held.
//! - `spool/missing.rs`: what is gone since the last life.
//! - `spool/rewriting.rs`: segments that are written anew; `reserve.rs`: room for a full disk.
//! - `spool/contents.rs`: what `hookbridge spool status` counts.
//! - `spool/export.rs`: what `hookbridge spool export` reads.
//! - `spool/inspection.rs`: whether the folder will do, for `hookbridge check`.
//!
//! # Why segments
//!
//! One file of redb was the spool of earlier versions, chosen for what it does on a bad day. Three things did not
//! hold: a start verified every page before the first click (11 s for 3 GB after kill -9), a file was built on after
//! a sync of it had failed, and events of other sizes than a click's took up to 1.6 bytes for each of theirs.
//! Segments are read when there is time, a failed one is left, and the disk takes what the events have. What was
//! measured is in `benches/README.md`; `cargo bench --bench spool` measures this module.

mod contents;
pub(super) mod disk;
mod error;
mod export;
mod frame;
mod inspection;
mod layout;
mod legacy;
mod manifest;
mod missing;
mod notes;
mod opening;
mod owner;
mod requests;
mod reserve;
mod rewriting;
mod salvage;
mod segment;
mod series;
mod store;
mod upgrade;
mod writer;

use std::collections::HashSet;
use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use jiff::Timestamp;
use tokio::sync::{Notify, oneshot};
use tokio::time::{Instant, sleep};
use tracing::{info, warn};

use crate::click::record::Record;
use crate::config::SpoolSettings;
use crate::observe::health::Health;
use crate::observe::metrics::{SpoolMetrics, SpoolRefusal};
use disk::{Folder, OpenDisk};
use requests::{Action, Change, Put, RequestQueue, SpoolRequest};
use segment::Kind;

pub use contents::{Contents, EventCount, contents};
pub use error::StoreError;
pub use export::{ExportSource, export};
pub use frame::Damage;
pub use inspection::{Finding, inspect};
pub use owner::Owner;
pub use writer::SpoolWriter;

/// Keys of one shard only wait for each other.
const SHARDS: usize = 1 << 16;

/// Bytes that may wait to be written: some seconds' worth for any disk. A disk that hangs must not fill
/// the memory.
const QUEUE_BYTES_MAX: usize = 64 << 20;

/// What is added to the largest body for key, headers and frame.
const FRAME_OVERHEAD: usize = 64 << 10;

/// How often to look whether another process still uses the spool.
const LOOK_INTERVAL: Duration = Duration::from_millis(200);

/// Where an event belongs in the order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Position {
    /// Its number in the order of arrival.
    pub(super) sequence: u64,
    shard: u16,
}

impl Position {
    /// Its number in the order of arrival.
    pub fn sequence(self) -> u64 {
        self.sequence
    }

    pub(super) fn shard(self) -> usize {
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

/// Why neither the topic of an event nor its dead letters take it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum SetAsideReason {
    TooLarge,
    Corrupt,
    /// An earlier version did not note it.
    Unknown,
}

impl SetAsideReason {
    fn code(self) -> u32 {
        match self {
            SetAsideReason::Unknown => 0,
            SetAsideReason::TooLarge => 1,
            SetAsideReason::Corrupt => 2,
        }
    }

    fn of(code: Option<u32>) -> SetAsideReason {
        let known = [SetAsideReason::TooLarge, SetAsideReason::Corrupt];
        let reason = known.into_iter().find(|reason| Some(reason.code()) == code);
        reason.unwrap_or(SetAsideReason::Unknown)
    }
}

impl fmt::Display for SetAsideReason {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str(match self {
            SetAsideReason::TooLarge => "too large",
            SetAsideReason::Corrupt => "refused as invalid",
            SetAsideReason::Unknown => "reason unknown",
        })
    }
}

/// An event in the spool, as the forwarder reads it.
pub struct SpooledEvent {
    pub position: Position,
    pub state: SpooledState,
}

#[expect(clippy::large_enum_variant, reason = "almost all of them are records")]
pub enum SpooledState {
    /// Not to be sent now, nor what follows it in its shard: the Kafka client still has it, or the
    /// forwarder's round had gone by its shard when an earlier event came.
    Withheld,
    Ready(Record),
    /// It cannot be read any more.
    Damaged(Damage),
}

impl SpooledState {
    fn of(frame: Option<Bytes>) -> SpooledState {
        let Some(frame) = frame else { return SpooledState::Withheld };
        let record = frame::read(&frame).ok_or(Damage::Checksum).and_then(|frame| frame.record());
        record.map_or_else(SpooledState::Damaged, SpooledState::Ready)
    }
}

/// The spool, for any thread: what its users and its writer share.
pub struct Spool {
    settings: SpoolSettings,
    frame_max: usize,
    queue: Mutex<RequestQueue>,
    wake_writer: Condvar,
    next_sequence: AtomicU64,
    /// How many events each shard holds, as far as the store was read.
    shards: Vec<AtomicU32>,
    /// Whether all of the store was read.
    is_checked: AtomicBool,
    /// Sequence numbers of the events that the Kafka client still has.
    claims: Mutex<HashSet<u64>>,
    events: AtomicU64,
    set_aside: AtomicU64,
    /// Notified when events have left.
    room: Notify,
    /// Notified when the forwarder should look at the spool.
    work: Notify,
    metrics: SpoolMetrics,
    health: Arc<Health>,
}

/// An event's position and its frame, unless it is not to be sent now.
type FoundEvent = (Position, Option<Bytes>);

impl Spool {
    /// Opens the spool and starts its writer; waits for `patience` while another process uses it. A disk
    /// that fails does not keep the bridge from starting: it is tried again once a second.
    ///
    /// # Errors
    ///
    /// Another process uses it for longer, or the system refuses a thread.
    pub async fn open(
        settings: &SpoolSettings,
        max_body_bytes: usize,
        metrics: SpoolMetrics,
        health: Arc<Health>,
        patience: Duration,
    ) -> Result<(Arc<Spool>, SpoolWriter), StoreError> {
        let attempt = || {
            let opened = Spool::try_open(settings, max_body_bytes, &metrics, &health);
            health.set_spool_in_use(matches!(opened, Err(StoreError::InUse(_))));
            opened
        };
        when_free(patience, attempt).await
    }

    fn try_open(
        settings: &SpoolSettings,
        max_body_bytes: usize,
        metrics: &SpoolMetrics,
        health: &Arc<Health>,
    ) -> Result<(Arc<Spool>, SpoolWriter), StoreError> {
        let (metrics, health, first) = (metrics.clone(), health.clone(), first_sequence());
        let spool = Arc::new(Spool::new(settings, max_body_bytes, first, metrics, health));
        let folder = settings.dir.clone();
        let open_disk: OpenDisk = Box::new(move || Ok(Arc::new(Folder::make(&folder)?)));
        let writer = SpoolWriter::start(spool.clone(), open_disk)?;
        Ok((spool, writer))
    }

    /// A spool without its writer.
    fn new(
        settings: &SpoolSettings,
        max_body_bytes: usize,
        first_sequence: u64,
        metrics: SpoolMetrics,
        health: Arc<Health>,
    ) -> Spool {
        metrics.max_bytes.set(settings.max_bytes.cast_signed());
        Spool {
            settings: settings.clone(),
            frame_max: max_body_bytes + FRAME_OVERHEAD,
            queue: Mutex::default(),
            wake_writer: Condvar::new(),
            next_sequence: AtomicU64::new(first_sequence),
            shards: std::iter::repeat_with(AtomicU32::default).take(SHARDS).collect(),
            is_checked: AtomicBool::new(false),
            claims: Mutex::default(),
            events: AtomicU64::new(0),
            set_aside: AtomicU64::new(0),
            room: Notify::new(),
            work: Notify::new(),
            metrics,
            health,
        }
    }

    /// The next position in the order, for a record that has just arrived.
    pub fn position(&self, record: &Record) -> Position {
        let sequence = self.next_sequence.fetch_add(1, Ordering::Relaxed);
        Position { sequence, shard: shard(record) }
    }

    /// The sequence number of the event that arrives next.
    pub(super) fn next_sequence(&self) -> u64 {
        self.next_sequence.load(Ordering::Relaxed)
    }

    /// Whether the shard of this event has events in the spool, so that it must go behind them. While the store
    /// is read after a start, every shard may have some.
    pub(super) fn holds(&self, position: Position) -> bool {
        !self.is_checked.load(Ordering::SeqCst)
            || self.shards[position.shard()].load(Ordering::SeqCst) > 0
    }

    /// How many events wait.
    pub fn events(&self) -> u64 {
        self.events.load(Ordering::SeqCst)
    }

    /// Whether nothing waits, and all of the store was read.
    pub fn is_empty(&self) -> bool {
        self.events() == 0 && self.is_checked.load(Ordering::SeqCst)
    }

    /// How many events are set aside.
    pub fn set_aside(&self) -> u64 {
        self.set_aside.load(Ordering::SeqCst)
    }

    /// Writes an event. Its shard holds it from the call on, not only from the end of the future, which
    /// may be dropped: the event is written all the same.
    ///
    /// # Errors
    ///
    /// Why it is not in the spool.
    pub fn put(
        &self,
        position: Position,
        record: &Record,
    ) -> impl Future<Output = Result<(), NotSpooled>> + use<> {
        let written = self.enqueue(position, record);
        async move {
            let gone = |_| NotSpooled::Failed("the spool's thread is gone".into());
            written?.await.map_err(gone)?
        }
    }

    /// Notes that the Kafka client has this event.
    pub(super) fn claim(&self, position: Position) {
        self.claims().insert(position.sequence);
    }

    /// Notes that the client no longer has it and that Kafka did not acknowledge it.
    pub(super) fn release(&self, position: Position) {
        self.claims().remove(&position.sequence);
    }

    /// How many events the Kafka client has.
    pub fn claimed(&self) -> usize {
        self.claims().len()
    }

    /// Removes an event that Kafka has, and its claim with it. An event that is not there is ignored.
    pub fn remove(&self, position: Position) {
        self.change(position, Action::Remove);
    }

    /// Removes an event that cannot be read any more.
    pub(super) fn lose(&self, position: Position) {
        self.change(position, Action::Lose);
    }

    /// Takes an event out of the order, and keeps it on disk.
    pub(super) fn set_event_aside(&self, position: Position, reason: SetAsideReason) {
        self.change(position, Action::SetAside(reason));
    }

    /// Removes an event that was set aside, and that Kafka has now.
    pub(super) fn remove_set_aside(&self, position: Position) {
        self.change(position, Action::RemoveSetAside);
    }

    /// Reads the next chunk of events from this sequence number on; 0 begins a new round. `None` while
    /// the disk cannot be read.
    pub async fn read(&self, from: u64) -> Option<Vec<SpooledEvent>> {
        self.read_chunk(Kind::Waiting, from).await
    }

    /// The same for events that are set aside.
    pub(super) async fn read_set_aside(&self, from: u64) -> Option<Vec<SpooledEvent>> {
        self.read_chunk(Kind::SetAside, from).await
    }

    async fn read_chunk(&self, which: Kind, from: u64) -> Option<Vec<SpooledEvent>> {
        let (reply, found) = oneshot::channel();
        self.push(self.queue(), SpoolRequest::Read { which, from, reply });
        let event = |(position, frame)| SpooledEvent { position, state: SpooledState::of(frame) };
        Some(found.await.ok()??.into_iter().map(event).collect())
    }

    /// Waits until events leave, so that there may be room.
    pub(super) async fn room(&self) {
        self.room.notified().await;
    }

    /// Waits until there are events after there were none, or [`wake_forwarder`](Spool::wake_forwarder)
    /// is called.
    pub(super) async fn work(&self) {
        self.work.notified().await;
    }

    pub(super) fn wake_forwarder(&self) {
        self.work.notify_one();
    }

    /// Hands an event to the writer, whose reply says whether it was written.
    fn enqueue(
        &self,
        position: Position,
        record: &Record,
    ) -> Result<oneshot::Receiver<Result<(), NotSpooled>>, NotSpooled> {
        let frame = frame::write(position, Timestamp::now(), record)
            .map_err(|damage| NotSpooled::Failed(damage.to_string().into()))?;
        let (reply, written) = oneshot::channel();
        let mut queue = self.queue();
        if queue.bytes > QUEUE_BYTES_MAX {
            self.metrics.refused[SpoolRefusal::Failed].inc();
            return Err(NotSpooled::Failed("the disk does not keep up".into()));
        }
        queue.bytes += frame.len();
        // Under the lock, so that a store being opened anew counts it once.
        self.shards[position.shard()].fetch_add(1, Ordering::SeqCst);
        let topic = record.topic().clone();
        self.push(queue, SpoolRequest::Put(Put { position, frame, topic, reply }));
        Ok(written)
    }

    fn change(&self, position: Position, action: Action) {
        self.push(self.queue(), SpoolRequest::Change(Change { position, action }));
    }

    fn push(&self, mut queue: MutexGuard<RequestQueue>, request: SpoolRequest) {
        queue.waiting.push(request);
        let count = queue.waiting.len();
        if count == 1 || count == queue.enough {
            self.wake_writer.notify_one();
        }
    }

    /// Has the writer end once it has carried out all requests.
    pub(super) fn stop_writer(&self) {
        self.queue().is_stopped = true;
        self.wake_writer.notify_one();
    }

    // Nothing is done under these locks that could leave their content half done.
    fn queue(&self) -> MutexGuard<'_, RequestQueue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn claims(&self) -> MutexGuard<'_, HashSet<u64>> {
        self.claims.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Tries until no other process uses the spool, for `patience` at most.
async fn when_free<T>(
    patience: Duration,
    mut attempt: impl FnMut() -> Result<T, StoreError>,
) -> Result<T, StoreError> {
    let deadline = Instant::now() + patience;
    let mut result = attempt();
    if let Err(StoreError::InUse(owner)) = &result
        && !patience.is_zero()
    {
        let patience_s = patience.as_secs();
        warn!(%owner, patience_s, "Another process uses the spool: waiting until it ends.");
        while matches!(result, Err(StoreError::InUse(_))) && Instant::now() < deadline {
            sleep(LOOK_INTERVAL).await;
            result = attempt();
        }
        if result.is_ok() {
            info!("The other process no longer uses the spool.");
        }
    }
    result
}

/// The shard of a record. Dead letters have no key and share the shard of their topic.
fn shard(record: &Record) -> u16 {
    let mut hash = crc32fast::Hasher::new();
    hash.update(record.topic().as_bytes());
    hash.update(&[0]);
    hash.update(record.key().unwrap_or_default());
    (hash.finalize() & 0xffff) as u16
}

/// The first sequence number of a process: by the clock, so that it is greater than any before it, even
/// if the events on disk cannot be read yet. Leaves a million numbers for each millisecond.
fn first_sequence() -> u64 {
    u64::try_from(Timestamp::now().as_millisecond()).unwrap_or(0) << 20
}

#[cfg(test)]
pub(super) mod simulated;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::click::record::tests::record_of;
    use crate::observe::metrics::Metrics;

    /// The numbers of the events from here on, and whether each may be sent.
    async fn read(spool: &Spool, from: u64) -> Vec<(u64, bool)> {
        let events = spool.read(from).await.expect("a disk that works");
        let is_ready = |state| matches!(state, SpooledState::Ready(_));
        events.into_iter().map(|e| (e.position.sequence, is_ready(e.state))).collect()
    }

    /// A click whose time with Kafka was up only after the round had gone by its position, and the next
    /// click of its campaign.
    #[tokio::test]
    async fn an_event_behind_a_late_event_of_its_shard_waits_for_the_next_round() {
        let folder = tempfile::tempdir().expect("a folder");
        let config = SpoolSettings { dir: folder.path().to_owned(), max_bytes: 1 << 20 };
        let metrics = Metrics::new(&["click"], &["clicks"]).expect("metrics").spool;
        let opened = Spool::open(&config, 1 << 20, metrics, Arc::default(), Duration::ZERO).await;
        let (spool, writer) = opened.expect("a spool");
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
