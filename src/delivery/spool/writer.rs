//! The thread that owns the store: takes requests, makes their changes durable together, replies.

use std::collections::HashSet;
use std::sync::atomic::Ordering;
use std::sync::{Arc, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use bytes::Bytes;
use jiff::Timestamp;
use tokio::time::Instant;
use tracing::{error, info};

use super::store::{self, Action, Change, Store, StoreError, Totals};
use super::{FoundEvent, NotSpooled, Position, PutReply, SHARDS, Spool, SpoolRequest};
use crate::observe::metrics::SpoolRefusal;

/// How often a store that failed is tried again, and how often the gauges are set.
const TICK: Duration = Duration::from_secs(1);

/// How long to wait for more requests: after a commit all its senders come again, and the first of them
/// should not have the next fsync to itself.
const GATHER_TIME: Duration = Duration::from_millis(1);

/// Requests in one transaction.
const BATCH_MAX: usize = 8_192;

/// Events that are read at once, at most, and about how many bytes of them.
const CHUNK: usize = 1_024;
const CHUNK_BYTES: usize = 2 << 20;

/// With less room than this the spool counts as full: most events would not fit.
const ROOM_MIN: u64 = 4 << 10;

/// The running writer.
pub struct SpoolWriter {
    spool: Arc<Spool>,
    thread: JoinHandle<()>,
}

struct WriterThread {
    spool: Arc<Spool>,
    /// Or why the disk fails.
    store: Result<Store, Arc<str>>,
    totals: Totals,
    /// How many bytes waited when the disk itself was full: since then, events are only removed.
    full_at: Option<u64>,
    /// Whether the spool took events when the gauges were last set.
    was_working: bool,
    /// Changes other than puts that are not durable yet because the disk failed.
    retry: Vec<PendingChange>,
    round: RoundProgress,
}

/// How far the forwarder's round has read.
#[derive(Default)]
struct RoundProgress {
    /// The first sequence number that it has not come to.
    next: u64,
    /// Shards that got an event with an earlier number since. An event has its number from its arrival,
    /// but may come only when its time with Kafka is up: what follows it in its shard must wait for the
    /// next round, or it would go first.
    overtaken: HashSet<usize>,
}

/// A change, and the reply that waits for it.
type PendingChange = (Change, Option<PutReply>);

impl SpoolWriter {
    /// Opens the store and starts the thread. A disk that fails is tried again once a second.
    ///
    /// # Errors
    ///
    /// Another process uses the store, or the system refuses the thread.
    pub(super) fn start(spool: Arc<Spool>) -> Result<SpoolWriter, StoreError> {
        let mut writer = WriterThread {
            spool: spool.clone(),
            store: Err("".into()),
            totals: Totals::default(),
            full_at: None,
            was_working: true,
            retry: Vec::new(),
            round: RoundProgress::default(),
        };
        if let Err(error @ StoreError::InUse(_)) = writer.open() {
            return Err(error);
        }
        let thread = std::thread::Builder::new().name("spool-writer".into());
        let thread = thread.spawn(move || writer.run())?;
        Ok(SpoolWriter { spool, thread })
    }

    /// Waits until all requests are carried out, and closes the store.
    pub fn close(self) {
        self.spool.queue().is_stopped = true;
        self.spool.wake_writer.notify_one();
        let _ = self.thread.join();
    }
}

impl WriterThread {
    fn run(&mut self) {
        let mut tick = Instant::now() + TICK;
        loop {
            let (requests, is_stopped) = self.wait(tick);
            let is_idle = requests.is_empty();
            self.spool.health.set_spool_busy(!is_idle);
            self.carry_out(requests);
            self.spool.health.set_spool_busy(false);
            if is_stopped && is_idle {
                return;
            }
            if Instant::now() >= tick {
                self.recover();
                self.set_gauges();
                tick = Instant::now() + TICK;
            }
        }
    }

    /// Waits for requests or the next tick; and a moment for half as many as the last time.
    fn wait(&self, until: Instant) -> (Vec<SpoolRequest>, bool) {
        let rest = until.saturating_duration_since(Instant::now());
        let (queue, wakeup) = (self.spool.queue(), &self.spool.wake_writer);
        let waited = wakeup
            .wait_timeout_while(queue, rest, |queue| queue.waiting.is_empty() && !queue.is_stopped);
        let (queue, _) = waited.unwrap_or_else(PoisonError::into_inner);
        let gathered = wakeup.wait_timeout_while(queue, GATHER_TIME, |queue| {
            queue.waiting.len() < queue.enough && !queue.is_stopped
        });
        let (mut queue, _) = gathered.unwrap_or_else(PoisonError::into_inner);
        let count = queue.waiting.len().min(BATCH_MAX);
        queue.enough = count / 2;
        let rest = queue.waiting.split_off(count);
        let taken = std::mem::replace(&mut queue.waiting, rest);
        for request in &taken {
            if let SpoolRequest::Change(change, _) = request {
                queue.bytes -= change.frame_length();
            }
        }
        (taken, queue.is_stopped)
    }

    /// Carries out requests: all changes in one transaction, in their order, then the reads.
    fn carry_out(&mut self, requests: Vec<SpoolRequest>) {
        let (mut changes, mut reads) = (std::mem::take(&mut self.retry), Vec::new());
        let mut bytes = self.totals.bytes;
        for request in requests {
            match request {
                SpoolRequest::Read { from, reply } => reads.push((from, reply)),
                SpoolRequest::Change(change, None) => changes.push((change, None)),
                SpoolRequest::Change(change, Some(reply)) => {
                    let more = change.frame_length() as u64;
                    if let Err(why) = self.may_put(bytes + more) {
                        self.spool.refuse(change.position, reply, why);
                        continue;
                    }
                    bytes += more;
                    if change.position.sequence < self.round.next {
                        self.round.overtaken.insert(change.position.shard());
                    }
                    changes.push((change, Some(reply)));
                }
            }
        }
        if !changes.is_empty() {
            match self.apply(&changes) {
                Ok(found) => self.confirm(changes, found),
                Err(error) => self.fail(changes, &error),
            }
        }
        for (from, reply) in reads {
            let _ = reply.send(self.read(from));
        }
    }

    fn may_put(&self, bytes: u64) -> Result<(), NotSpooled> {
        let is_full = self.full_at.is_some() || bytes > self.spool.settings.max_bytes;
        match &self.store {
            Err(reason) => Err(NotSpooled::Failed(reason.clone())),
            Ok(_) if is_full => Err(NotSpooled::Full),
            Ok(_) => Ok(()),
        }
    }

    fn apply(&mut self, changes: &[PendingChange]) -> Result<Vec<bool>, StoreError> {
        let store = self.store.as_mut().map_err(|why| StoreError::Other(why.to_string()))?;
        let found = store.apply(changes.iter().map(|(change, _)| change))?;
        self.totals = store.totals()?;
        if self.totals.events == 0 {
            store.compact(self.full_at.is_some())?;
        }
        Ok(found)
    }

    fn read(&mut self, from: u64) -> Option<Vec<FoundEvent>> {
        let mut events = Vec::new();
        let mut left = CHUNK_BYTES;
        if from == 0 {
            self.round = RoundProgress::default();
        }
        let (spool, round) = (&self.spool, &mut self.round);
        let result = self.store.as_ref().ok()?.read(from, |position, frame| {
            // Claims are looked at here, between two transactions: the claim of an event that is being
            // removed stays as long as the event does.
            let is_withheld = spool.claims().contains(&position.sequence)
                || round.overtaken.contains(&position.shard());
            left = left.saturating_sub(frame.len());
            events.push((position, (!is_withheld).then(|| Bytes::copy_from_slice(frame))));
            round.next = position.sequence + 1;
            left > 0 && events.len() < CHUNK
        });
        result.map_err(|error| self.fail(Vec::new(), &error)).ok()?;
        Some(events)
    }

    /// The changes are durable. `found` says for each whether its event was there before.
    fn confirm(&mut self, changes: Vec<PendingChange>, found: Vec<bool>) {
        let spool = self.spool.clone();
        let before = spool.events.swap(self.totals.events, Ordering::SeqCst);
        // Before the replies: their receivers find the events counted.
        self.set_gauges();
        let mut has_room = false;
        for ((Change { position, action }, reply), found) in changes.into_iter().zip(found) {
            if let Some(reply) = reply {
                spool.metrics.written.inc();
                // A request that is gone no longer needs to know.
                let _ = reply.send(Ok(()));
                continue;
            }
            spool.release(position);
            if found {
                spool.leave_shard(position);
                has_room = true;
                if matches!(action, Action::Remove) {
                    spool.metrics.drained.inc();
                }
            }
        }
        if has_room {
            spool.room.notify_waiters();
        }
        if before == 0 && self.totals.events > 0 {
            spool.work.notify_one();
        }
    }

    /// The disk fails: none of the changes counts as durable.
    fn fail(&mut self, changes: Vec<PendingChange>, error: &StoreError) {
        if self.store.is_ok() {
            self.close_failed(error);
        }
        for (change, reply) in changes {
            match reply {
                Some(reply) => {
                    let why = NotSpooled::Failed(error.to_string().into());
                    self.spool.refuse(change.position, reply, why);
                }
                None => self.retry.push((change, None)),
            }
        }
        if error.is_disk_full() {
            self.full_at = Some(self.totals.bytes);
            store::give_up_reserve(&self.spool.settings.dir);
            // With that room, events can be removed again.
            self.recover();
        }
        self.set_gauges();
    }

    /// Tries to get the disk back, and its reserve.
    fn recover(&mut self) {
        if self.store.is_err() && self.open().is_ok() {
            info!("The spool's disk works again.");
        }
        let Some(full_at) = self.full_at.filter(|_| self.store.is_ok()) else { return };
        // Where events were removed the store has room inside; else there must be some on the disk.
        let has_room = full_at.saturating_sub(self.totals.bytes) >= 2 * store::RESERVE_BYTES;
        let folder = self.spool.settings.dir.clone();
        if store::take_reserve(&folder, !has_room).is_ok()
            || has_room && self.compact() && store::take_reserve(&folder, false).is_ok()
        {
            self.full_at = None;
            self.spool.room.notify_waiters();
        }
    }

    fn compact(&mut self) -> bool {
        let Ok(store) = &mut self.store else { return false };
        store.compact(true).map_err(|error| self.fail(Vec::new(), &error)).is_ok()
    }

    fn open(&mut self) -> Result<(), StoreError> {
        let opened = self.open_store().map(|store| self.store = Ok(store));
        if let Err(error) = &opened {
            let is_known = self.store.as_ref().is_err_and(|why| **why == *error.to_string());
            if !is_known && !matches!(error, StoreError::InUse(_)) {
                self.close_failed(error);
            }
        }
        self.set_gauges();
        opened
    }

    /// Opens the store and counts what is in it.
    fn open_store(&mut self) -> Result<Store, StoreError> {
        let spool = self.spool.clone();
        let folder = &spool.settings.dir;
        let store = Store::open(folder, spool.frame_max, || spool.metrics.damages.inc())?;
        self.totals = store.totals()?;
        // Counted beside the counts in force, which others look at meanwhile. Only this thread takes
        // events out of a shard, and those that come wait in the queue.
        let mut shards = vec![0; SHARDS];
        store.read(0, |position, _| {
            shards[position.shard()] += 1;
            true
        })?;
        let queue = spool.queue();
        for request in &queue.waiting {
            if let SpoolRequest::Change(change, Some(_)) = request {
                shards[change.position.shard()] += 1;
            }
        }
        for (shard, count) in spool.shards.iter().zip(shards) {
            shard.store(count, Ordering::SeqCst);
        }
        drop(queue);
        let Totals { events, bytes, last, .. } = self.totals;
        spool.next_sequence.fetch_max(last + 1, Ordering::SeqCst);
        spool.events.store(events, Ordering::SeqCst);
        if self.full_at.is_none() && store::take_reserve(folder, false).is_err() {
            self.full_at = Some(bytes);
        }
        if events > 0 {
            info!(events, bytes, "Events wait in the spool.");
            spool.work.notify_one();
        }
        Ok(store)
    }

    /// Lets go of a store that fails, and says so.
    fn close_failed(&mut self, error: &StoreError) {
        let reason = error.to_string();
        error!(
            reason, folder = %self.spool.settings.dir.display(),
            "The spool's disk fails: what Kafka cannot take now is refused. Look at the disk, its \
             room and its rights; it is tried again once a second."
        );
        self.store = Err(reason.into());
    }

    /// Sets gauges and readiness, and logs a change of the latter.
    fn set_gauges(&mut self) {
        let (spool, totals) = (&self.spool, &self.totals);
        let metrics = &spool.metrics;
        metrics.events.set(totals.events.cast_signed());
        metrics.bytes.set(totals.bytes.cast_signed());
        metrics.set_aside.set(totals.set_aside.cast_signed());
        let now = Timestamp::now().as_millisecond();
        metrics.oldest_age_seconds.set(totals.oldest_ms.map_or(0, |oldest| (now - oldest) / 1_000));
        let is_working = self.may_put(totals.bytes + ROOM_MIN).is_ok();
        metrics.working.set(is_working.into());
        spool.health.set_can_spool(is_working);
        let was_working = std::mem::replace(&mut self.was_working, is_working);
        if was_working == is_working || self.store.is_err() {
            return;
        }
        let (bytes, max_bytes) = (totals.bytes, spool.settings.max_bytes);
        if is_working {
            info!(bytes, max_bytes, "The spool has room again.");
        } else {
            let is_disk_full = self.full_at.is_some();
            error!(
                bytes,
                max_bytes,
                is_disk_full,
                "The spool is full: what Kafka cannot take now is refused."
            );
        }
    }
}

impl Spool {
    /// Says that an event was not written.
    fn refuse(&self, position: Position, reply: PutReply, why: NotSpooled) {
        self.leave_shard(position);
        let refusal = match why {
            NotSpooled::Full => SpoolRefusal::Full,
            NotSpooled::Failed(_) => SpoolRefusal::Failed,
        };
        self.metrics.refused[refusal].inc();
        let _ = reply.send(Err(why));
    }

    fn leave_shard(&self, position: Position) {
        // An event whose bytes were damaged may say the wrong shard.
        let less = |count: u32| count.checked_sub(1);
        let shard = &self.shards[position.shard()];
        let _ = shard.fetch_update(Ordering::SeqCst, Ordering::SeqCst, less);
    }
}
