//! The thread that owns the store: takes requests, makes their changes durable together, replies.

use std::collections::HashSet;
use std::sync::atomic::Ordering;
use std::sync::{Arc, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use bytes::Bytes;
use tokio::time::Instant;
use tracing::{error, warn};

use super::disk::{FolderLock, OpenDisk};
use super::error::StoreError;
use super::reserve;
use super::segment::{Kind, NewEvent, SegmentDamage};
use super::series::Append;
use super::store::{Store, Totals};
use super::{Action, Change, FoundEvent, NotSpooled, Position, Put, Spool, SpoolRequest};
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
pub(super) const ROOM_MIN: u64 = 4 << 10;

/// The running writer.
pub struct SpoolWriter {
    spool: Arc<Spool>,
    thread: JoinHandle<()>,
}

pub(super) struct WriterThread {
    pub(super) spool: Arc<Spool>,
    pub(super) open_disk: OpenDisk,
    /// The lock of the folder, once it could be taken: not given up where the disk fails.
    pub(super) lock: Option<Box<dyn FolderLock>>,
    /// Or why the disk fails.
    pub(super) store: Result<Store, Arc<str>>,
    pub(super) totals: Totals,
    /// How many bytes waited when the disk itself was full: since then, events are only removed.
    pub(super) full_at: Option<u64>,
    /// Whether the spool took events when the gauges were last set.
    pub(super) was_working: bool,
    /// Changes that are not durable yet because the disk failed.
    pub(super) retry: Vec<Change>,
    round: RoundProgress,
    next_tick: Instant,
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

impl SpoolWriter {
    /// Opens the store and starts the thread. A disk that fails is tried again once a second.
    ///
    /// # Errors
    ///
    /// Another process uses the store, a newer program wrote it, or the system refuses the thread.
    pub(super) fn start(spool: Arc<Spool>, open_disk: OpenDisk) -> Result<SpoolWriter, StoreError> {
        let writer = WriterThread::new(spool.clone(), open_disk)?;
        let thread = std::thread::Builder::new().name("spool-writer".into());
        let thread = thread.spawn(move || writer.run())?;
        Ok(SpoolWriter { spool, thread })
    }

    /// Waits until all requests are carried out, and closes the store.
    pub fn close(self) {
        self.spool.stop_writer();
        let _ = self.thread.join();
    }
}

impl WriterThread {
    /// Opens the store, if the disk works.
    pub(super) fn new(spool: Arc<Spool>, open_disk: OpenDisk) -> Result<WriterThread, StoreError> {
        let mut writer = WriterThread {
            spool,
            open_disk,
            lock: None,
            store: Err("".into()),
            totals: Totals::default(),
            full_at: None,
            was_working: true,
            retry: Vec::new(),
            round: RoundProgress::default(),
            next_tick: Instant::now() + TICK,
        };
        match writer.open() {
            Err(error @ (StoreError::InUse(_) | StoreError::Newer(_))) => Err(error),
            _ => Ok(writer),
        }
    }

    fn run(mut self) {
        loop {
            let (requests, is_stopped) = self.wait();
            let is_idle = requests.is_empty();
            self.turn(requests);
            if is_stopped && is_idle {
                self.close();
                return;
            }
        }
    }

    /// Carries out requests, and what else is due.
    pub(super) fn turn(&mut self, requests: Vec<SpoolRequest>) {
        self.spool.health.set_spool_busy(!requests.is_empty());
        self.carry_out(requests);
        self.spool.health.set_spool_busy(false);
        self.check_next();
        if Instant::now() >= self.next_tick {
            self.tick();
            self.next_tick = Instant::now() + TICK;
        }
    }

    /// When there is something to do without requests.
    pub(super) fn next_turn(&self) -> Instant {
        let is_checked = self.store.as_ref().map_or(true, Store::is_checked);
        if is_checked { self.next_tick } else { Instant::now() }
    }

    fn tick(&mut self) {
        self.recover();
        if let Ok(store) = &mut self.store
            && let Err(error) = store.tick()
        {
            self.fail(&error);
        }
        self.note_checked();
        self.set_gauges();
    }

    /// Reads a part of what was there at the start.
    fn check_next(&mut self) {
        if let Ok(store) = &mut self.store
            && !store.is_checked()
            && let Err(error) = store.check_next()
        {
            self.fail(&error);
        }
        self.note_checked();
    }

    /// Closes the store.
    pub(super) fn close(self) {
        if let Ok(store) = self.store
            && let Err(error) = store.close()
        {
            // Nothing is lost: the next start reads more.
            warn!(%error, "The spool was not closed.");
        }
    }

    /// Waits for requests or the next turn; and a moment for half as many as the last time. Says whether these
    /// are the last.
    fn wait(&self) -> (Vec<SpoolRequest>, bool) {
        let rest = self.next_turn().saturating_duration_since(Instant::now());
        let (queue, wakeup) = (self.spool.queue(), &self.spool.wake_writer);
        let waited = wakeup
            .wait_timeout_while(queue, rest, |queue| queue.waiting.is_empty() && !queue.is_stopped);
        let (queue, _) = waited.unwrap_or_else(PoisonError::into_inner);
        let gathered = wakeup.wait_timeout_while(queue, GATHER_TIME, |queue| {
            queue.waiting.len() < queue.enough && !queue.is_stopped
        });
        let (mut queue, _) = gathered.unwrap_or_else(PoisonError::into_inner);
        let taken = queue.take(BATCH_MAX);
        queue.enough = taken.len() / 2;
        (taken, queue.is_stopped)
    }

    /// Carries out requests: puts with one sync, then the other changes, then the reads.
    fn carry_out(&mut self, requests: Vec<SpoolRequest>) {
        let (mut puts, mut reads) = (Vec::new(), Vec::new());
        let mut changes = std::mem::take(&mut self.retry);
        let mut bytes = self.totals.bytes;
        for request in requests {
            match request {
                SpoolRequest::Read { which, from, reply } => reads.push((which, from, reply)),
                SpoolRequest::Change(change) => changes.push(change),
                SpoolRequest::Put(put) => {
                    if let Err(why) = self.may_put(bytes + put.frame.len() as u64) {
                        self.spool.refuse(put, why);
                        continue;
                    }
                    bytes += put.frame.len() as u64;
                    if put.position.sequence < self.round.next {
                        self.round.overtaken.insert(put.position.shard());
                    }
                    puts.push(put);
                }
            }
        }
        if !puts.is_empty() {
            self.put(puts);
        }
        if !changes.is_empty() {
            self.change(changes);
        }
        for (which, from, reply) in reads {
            let _ = reply.send(self.read(which, from));
        }
    }

    pub(super) fn may_put(&self, bytes: u64) -> Result<(), NotSpooled> {
        let is_full = self.full_at.is_some() || bytes > self.spool.settings.max_bytes;
        match &self.store {
            Err(reason) => Err(NotSpooled::Failed(reason.clone())),
            Ok(_) if is_full => Err(NotSpooled::Full),
            Ok(_) => Ok(()),
        }
    }

    fn put(&mut self, puts: Vec<Put>) {
        let mut events: Vec<NewEvent> = puts
            .iter()
            .map(|put| NewEvent { entry: put.position, frame: &put.frame, topic: &put.topic })
            .collect();
        let result = match &mut self.store {
            Ok(store) => store.put(&mut events),
            Err(why) => Err(Append::Failed(StoreError::Other(why.to_string()))),
        };
        drop(events);
        match result {
            Ok(()) => {
                self.count();
                let written = self.spool.metrics.written.clone();
                for put in puts {
                    written.inc();
                    // A request that is gone no longer needs to know.
                    let _ = put.reply.send(Ok(()));
                }
            }
            Err(append) => {
                let is_failed = matches!(append, Append::Failed(_));
                let error = append.into_error();
                let why = if error.is_disk_full() {
                    NotSpooled::Full
                } else {
                    NotSpooled::Failed(error.to_string().into())
                };
                puts.into_iter().for_each(|put| self.spool.refuse(put, why.clone()));
                if is_failed {
                    self.fail(&error);
                } else {
                    self.be_full();
                }
            }
        }
    }

    /// Makes changes durable, or keeps them until the disk works again.
    fn change(&mut self, changes: Vec<Change>) {
        match self.try_change(&changes) {
            Ok(found) => self.confirm(changes, found),
            Err(error) => {
                self.retry.extend(changes);
                self.fail(&error);
            }
        }
    }

    /// Says for each change whether its event was there.
    fn try_change(&mut self, changes: &[Change]) -> Result<Vec<bool>, StoreError> {
        let store = self.store.as_mut().map_err(|why| StoreError::Other(why.to_string()))?;
        let of = |which, also| {
            let is_of = move |change: &&Change| change.action == which || change.action == also;
            changes.iter().filter(is_of).map(|change| change.position.sequence).collect::<Vec<_>>()
        };
        let waiting = of(Action::Remove, Action::Lose);
        let set_aside = of(Action::RemoveSetAside, Action::RemoveSetAside);
        let mut waiting = store.remove(Kind::Waiting, &waiting)?.into_iter();
        let mut set_aside = store.remove(Kind::SetAside, &set_aside)?.into_iter();
        let mut found = Vec::with_capacity(changes.len());
        for change in changes {
            found.push(match change.action {
                Action::Remove | Action::Lose => waiting.next().unwrap_or_default(),
                Action::RemoveSetAside => set_aside.next().unwrap_or_default(),
                Action::SetAside(reason) => {
                    store.set_event_aside(change.position.sequence, reason.code())?
                }
            });
        }
        store.maintain()?;
        Ok(found)
    }

    fn read(&mut self, which: Kind, from: u64) -> Option<Vec<FoundEvent>> {
        let mut events = Vec::new();
        let mut left = CHUNK_BYTES;
        if which == Kind::Waiting && from == 0 {
            self.round = RoundProgress::default();
        }
        let (spool, round) = (&self.spool, &mut self.round);
        let result = self.store.as_mut().ok()?.read(which, from, |position, frame| {
            // Claims are looked at here, between two changes: the claim of an event that is being
            // removed stays as long as the event does.
            let is_withheld = which == Kind::Waiting
                && (spool.claims().contains(&position.sequence)
                    || round.overtaken.contains(&position.shard()));
            left = left.saturating_sub(frame.len());
            events.push((position, (!is_withheld).then(|| Bytes::copy_from_slice(frame))));
            if which == Kind::Waiting {
                round.next = position.sequence + 1;
            }
            left > 0 && events.len() < CHUNK
        });
        self.note_checked();
        result.map_err(|error| self.fail(&error)).ok()?;
        Some(events)
    }

    /// The changes are durable. `found` says for each whether its event was there before.
    fn confirm(&mut self, changes: Vec<Change>, found: Vec<bool>) {
        self.note_checked();
        self.count();
        let spool = self.spool.clone();
        let mut has_room = false;
        for (Change { position, action }, found) in changes.into_iter().zip(found) {
            if action == Action::RemoveSetAside {
                has_room |= found;
                spool.metrics.drained.inc_by(found.into());
                continue;
            }
            spool.release(position);
            if found {
                spool.leave_shard(position);
                has_room = true;
                match action {
                    Action::Remove => spool.metrics.drained.inc(),
                    Action::Lose => spool.metrics.lost.inc(),
                    Action::SetAside(_) | Action::RemoveSetAside => {}
                }
            }
        }
        if has_room {
            spool.room.notify_waiters();
        }
    }

    /// Counts what is there. Before any reply: its receiver finds its event counted.
    pub(super) fn count(&mut self) {
        if let Ok(store) = &mut self.store {
            self.totals = store.totals();
        }
        let before = self.spool.events.swap(self.totals.events, Ordering::SeqCst);
        self.spool.set_aside.store(self.totals.set_aside, Ordering::SeqCst);
        self.set_gauges();
        if before == 0 && self.totals.events > 0 {
            self.spool.work.notify_one();
        }
    }

    /// Counts what was found when segments were read.
    pub(super) fn note_checked(&mut self) {
        let Ok(store) = &mut self.store else { return };
        let (spool, all) = (self.spool.clone(), store.take_checked());
        let is_damaged = all.iter().any(|checked| checked.damage.is_some());
        for checked in all {
            for shard in checked.shards {
                spool.shards[shard].fetch_add(1, Ordering::SeqCst);
            }
            if let Some(SegmentDamage { segment, read, missing, topics }) = checked.damage {
                spool.metrics.damages.inc();
                spool.metrics.lost.inc_by(missing);
                error!(
                    segment,
                    read,
                    missing,
                    topics = topics.join(", "),
                    "The spool was damaged: what can be read of it goes on, and what is missing is lost. A \
                     damaged file is kept under the name damaged-...: see the runbook."
                );
            }
        }
        let is_checked = store.is_checked();
        if is_damaged {
            self.count();
        }
        if is_checked && !spool.is_checked.swap(true, Ordering::SeqCst) {
            spool.work.notify_one();
        }
    }

    /// The disk fails: the store is opened again, which trusts nothing that was being written.
    pub(super) fn fail(&mut self, error: &StoreError) {
        if self.store.is_ok() {
            self.note_checked();
            self.close_failed(error);
        }
        if error.is_disk_full() {
            self.be_full();
            // With that room, events can be removed again.
            self.recover();
        }
        self.set_gauges();
    }

    /// The disk is full: from now on events are only removed.
    pub(super) fn be_full(&mut self) {
        self.full_at = Some(self.totals.bytes);
        if let Ok(disk) = (self.open_disk)() {
            reserve::give_up(&*disk);
        }
        self.set_gauges();
    }
}

impl Spool {
    /// Says that an event was not written.
    fn refuse(&self, put: Put, why: NotSpooled) {
        self.leave_shard(put.position);
        let refusal = match why {
            NotSpooled::Full => SpoolRefusal::Full,
            NotSpooled::Failed(_) => SpoolRefusal::Failed,
        };
        self.metrics.refused[refusal].inc();
        let _ = put.reply.send(Err(why));
    }

    fn leave_shard(&self, position: Position) {
        // An event whose bytes were damaged may say the wrong shard.
        let less = |count: u32| count.checked_sub(1);
        let shard = &self.shards[position.shard()];
        let _ = shard.fetch_update(Ordering::SeqCst, Ordering::SeqCst, less);
    }
}
