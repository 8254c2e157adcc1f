//! The writer's store, opened, closed where its disk fails, and opened again; what is said of it.

use std::sync::atomic::Ordering;

use jiff::Timestamp;
use tracing::{error, info};

use super::error::StoreError;
use super::store::{Store, Totals};
use super::writer::{ROOM_MIN, WriterThread};
use super::{SpoolRequest, reserve};

impl WriterThread {
    /// Tries to get the disk back, and its reserve.
    pub(super) fn recover(&mut self) {
        if self.store.is_err() && self.open().is_ok() {
            info!("The spool's disk works again.");
        }
        let Some(full_at) = self.full_at.filter(|_| self.store.is_ok()) else { return };
        // Where events were removed the disk has got room; else there must be some beside the reserve.
        let has_room = full_at.saturating_sub(self.totals.bytes) >= 2 * reserve::BYTES;
        let taken = (self.open_disk)().and_then(|disk| reserve::take(&*disk, !has_room));
        if taken.is_ok() {
            self.full_at = None;
            self.spool.room.notify_waiters();
        }
    }

    pub(super) fn open(&mut self) -> Result<(), StoreError> {
        let mut opened = self.open_store();
        if opened.as_ref().is_err_and(StoreError::is_disk_full) && self.full_at.is_none() {
            // Opening writes a little.
            self.be_full();
            opened = self.open_store();
        }
        let opened = opened.map(|store| self.store = Ok(store));
        self.note_checked();
        if let Err(error) = &opened {
            let is_known = self.store.as_ref().is_err_and(|why| **why == *error.to_string());
            if !is_known && !matches!(error, StoreError::InUse(_)) {
                self.close_failed(error);
            }
        }
        self.set_gauges();
        opened
    }

    /// Opens the store. What is in it is read bit by bit, or when the forwarder comes to it; until then every
    /// shard counts as one that has events.
    fn open_store(&mut self) -> Result<Store, StoreError> {
        let spool = self.spool.clone();
        let disk = (self.open_disk)()?;
        if self.lock.is_none() {
            self.lock = Some(disk.lock()?);
        }
        let opened = Store::open(disk.clone(), spool.settings.max_bytes, spool.frame_max);
        if let Err(StoreError::InUse(_)) = &opened {
            self.lock = None;
        }
        let mut store = opened?;
        self.lock.iter_mut().for_each(|lock| lock.sign());
        self.totals = store.totals();
        spool.is_checked.store(false, Ordering::SeqCst);
        let queue = spool.queue();
        spool.shards.iter().for_each(|shard| shard.store(0, Ordering::SeqCst));
        for request in &queue.waiting {
            if let SpoolRequest::Put(put) = request {
                spool.shards[put.position.shard()].fetch_add(1, Ordering::SeqCst);
            }
        }
        drop(queue);
        let Totals { events, bytes, set_aside, last, .. } = self.totals;
        spool.next_sequence.fetch_max(last + 1, Ordering::SeqCst);
        spool.events.store(events, Ordering::SeqCst);
        spool.set_aside.store(set_aside, Ordering::SeqCst);
        if self.full_at.is_none() && reserve::take(&*disk, false).is_err() {
            self.full_at = Some(bytes);
        }
        if events > 0 {
            info!(events, bytes, "Events wait in the spool.");
            spool.work.notify_one();
        }
        Ok(store)
    }

    /// Lets go of a store that fails, and says so.
    pub(super) fn close_failed(&mut self, error: &StoreError) {
        let reason = error.to_string();
        error!(
            reason, folder = %self.spool.settings.dir.display(),
            "The spool's disk fails: what Kafka cannot take now is refused. Look at the disk, its \
             room and its rights; it is tried again once a second."
        );
        self.store = Err(reason.into());
    }

    /// Sets gauges and readiness, and logs a change of the latter.
    pub(super) fn set_gauges(&mut self) {
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
