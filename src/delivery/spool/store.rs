//! The events on disk: those that wait, those that were set aside, and the manifest of both.
//!
//! A file is appended to only by the life of the process that made it, and only until a write or a sync of it
//! fails: Linux forgets what it could not write, and the next sync succeeds without it. Opening begins a new
//! segment and writes anew what was not complete, so nothing is ever built on a file that may have lost something.

use std::io;
use std::sync::Arc;

use jiff::Timestamp;
use tracing::error;

use super::disk::Disk;
use super::error::StoreError;
use super::layout::Entry;
use super::legacy::{self, Legacy};
use super::manifest::{Listed, Manifest};
use super::missing::{gone_segment, has_reserve, read_manifest};
use super::segment::{Checked, Kind, NewEvent, Segment, SegmentDamage};
use super::series::{Append, Series};
use super::{Position, frame};

/// The length at which the next segment begins: a part of `spool.max_bytes` within these bounds.
const SEGMENT_PART: u64 = 256;
const SEGMENT_MIN: u64 = 8 << 10;
const SEGMENT_MAX: u64 = 16 << 20;

/// The events on disk, open.
pub(super) struct Store {
    pub(super) disk: Arc<dyn Disk>,
    pub(super) waiting: Series,
    pub(super) set_aside: Series,
    pub(super) legacy: Option<Legacy>,
    pub(super) legacy_checked: Vec<Checked>,
    pub(super) segment_max: u64,
    pub(super) next_number: u64,
    pub(super) next_id: u64,
    /// Whether the manifest on disk is not that of what is in memory.
    pub(super) manifest_is_due: bool,
    /// How many events and bytes were noted as synced.
    pub(super) noted: (u64, u64),
    /// When the oldest event was written, and its number.
    pub(super) oldest: Option<(u64, i64)>,
}

/// What a store says of itself.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Totals {
    pub events: u64,
    /// Of waiting events and of those that are set aside.
    pub bytes: u64,
    pub set_aside: u64,
    /// When the oldest waiting event was written, milliseconds since the Unix epoch.
    pub oldest_ms: Option<i64>,
    /// The highest sequence number in use.
    pub last: u64,
}

impl Store {
    /// Opens the store on this disk, or makes it. The caller holds its lock.
    pub fn open(
        disk: Arc<dyn Disk>,
        max_bytes: u64,
        frame_max: usize,
    ) -> Result<Store, StoreError> {
        let (manifest, mut damages) = read_manifest(&*disk)?;
        let has_legacy = disk.path().is_some_and(legacy::is_there);
        let names = disk.names()?;
        if manifest.is_none() && damages.is_empty() && !has_legacy && has_reserve(&names) {
            damages.push(SegmentDamage::default());
            error!(
                "The spool's files are gone: there is a reserve, and nothing else. What they held cannot be \
                 delivered, and nobody knows how much that was."
            );
        }
        let manifest = manifest.unwrap_or_default();
        for name in names.iter().filter(|name| name.ends_with(".new")) {
            disk.remove(name)?;
        }
        let (waiting, gone) = Series::open(Kind::Waiting, &*disk, &names, &manifest.waiting)?;
        let (set_aside, more_gone) =
            Series::open(Kind::SetAside, &*disk, &names, &manifest.set_aside)?;
        for listed in gone.iter().chain(&more_gone) {
            damages.extend(gone_segment(&*disk, &names, listed)?);
        }
        let id = u64::try_from(Timestamp::now().as_nanosecond()).unwrap_or(0);
        let mut store = Store {
            disk,
            next_number: waiting.last().0.max(set_aside.last().0) + 1,
            waiting,
            set_aside,
            legacy: None,
            legacy_checked: Vec::new(),
            segment_max: (max_bytes / SEGMENT_PART).clamp(SEGMENT_MIN, SEGMENT_MAX),
            next_id: id,
            manifest_is_due: true,
            noted: (0, 0),
            oldest: None,
        };
        let damages = damages.into_iter().map(Some);
        store.legacy_checked.extend(damages.map(|damage| Checked { damage, ..Checked::default() }));
        store.write_incomplete_anew(&manifest)?;
        if has_legacy {
            store.open_legacy(frame_max)?;
        }
        if store.legacy.is_none() {
            store.keep_older_programs_out()?;
        }
        store.maintain()?;
        Ok(store)
    }

    /// Segments that were written when the last life ended, or when a sync failed.
    fn write_incomplete_anew(&mut self, manifest: &Manifest) -> Result<(), StoreError> {
        let lists = [&manifest.waiting, &manifest.set_aside];
        for (series, listed) in [&mut self.waiting, &mut self.set_aside].into_iter().zip(lists) {
            for at in 0..series.segments.len() {
                let segment = &series.segments[at];
                let of_number = listed.iter().find(|listed| listed.number == segment.number());
                if of_number.is_some_and(|l| l.complete.is_some()) || segment.events() == 0 {
                    continue;
                }
                let written = series.write_anew(&*self.disk, at, &mut self.next_id);
                match written.map_err(StoreError::from) {
                    // What was confirmed was synced, and stays as it is.
                    Err(error) if error.is_disk_full() => {}
                    result => result?,
                }
            }
        }
        Ok(())
    }

    /// Writes events durably, all or none.
    ///
    /// # Errors
    ///
    /// Where the disk is full the store goes on as it was; after another error it must be opened again.
    pub fn put(&mut self, events: &mut [NewEvent]) -> Result<(), Append> {
        self.append(Kind::Waiting, events)
    }

    pub(super) fn append(&mut self, which: Kind, events: &mut [NewEvent]) -> Result<(), Append> {
        let full = |error: io::Error| {
            let error = StoreError::from(error);
            if error.is_disk_full() { Append::Full(error) } else { Append::Failed(error) }
        };
        let segment_max = self.segment_max;
        if !self.series(which).is_open(segment_max) {
            self.next_id += 1;
            self.next_number += 1;
            let (number, id, disk) = (self.next_number, self.next_id, self.disk.clone());
            self.series(which).begin(&*disk, number, id).map_err(full)?;
            (self.noted, self.manifest_is_due) = ((0, 0), true);
        }
        if self.manifest_is_due {
            self.write_manifest().map_err(full)?;
        }
        self.series(which).append(events)
    }

    /// Removes events durably. Says for each whether it was there.
    pub fn remove(&mut self, which: Kind, sequences: &[u64]) -> Result<Vec<bool>, StoreError> {
        let series = match which {
            Kind::Waiting => &mut self.waiting,
            Kind::SetAside => &mut self.set_aside,
        };
        let mut found = series.remove(&*self.disk, sequences, &mut self.next_id)?;
        if which == Kind::Waiting
            && let Some(legacy) = &mut self.legacy
            && found.iter().any(|found| !found)
        {
            let in_legacy = legacy.remove(sequences)?;
            found.iter_mut().zip(in_legacy).for_each(|(found, also)| *found |= also);
        }
        Ok(found)
    }

    /// Takes an event out of the order, and keeps it. Says whether it was there.
    pub fn set_event_aside(&mut self, sequence: u64, code: u32) -> Result<bool, StoreError> {
        let Some(frame) = self.get(sequence)? else { return Ok(false) };
        let topic = frame::topic(&frame);
        let shard = frame::shard(&frame).unwrap_or_default();
        let event = NewEvent { entry: Position { sequence, shard }, frame: &frame, topic: &topic };
        self.append(Kind::SetAside, &mut [event]).map_err(Append::into_error)?;
        let disk = self.disk.clone();
        if let Some(segment) = self.set_aside.segments.last_mut() {
            segment.note_refused(&*disk, sequence, code)?;
        }
        self.remove(Kind::Waiting, &[sequence])?;
        Ok(true)
    }

    fn get(&mut self, sequence: u64) -> Result<Option<Vec<u8>>, StoreError> {
        let found = self.waiting.get(&*self.disk, sequence, &mut self.next_id)?;
        if let (None, Some(legacy)) = (&found, &self.legacy) {
            let mut frame = None;
            legacy.read(sequence, |position, bytes| {
                frame = (position.sequence == sequence).then(|| bytes.to_vec());
                false
            })?;
            return Ok(frame);
        }
        Ok(found)
    }

    /// Calls `found` with the events from this sequence number on, as long as it returns true.
    pub fn read(
        &mut self,
        which: Kind,
        from: u64,
        mut found: impl FnMut(Position, &[u8]) -> bool,
    ) -> Result<(), StoreError> {
        let mut goes_on = true;
        if let (Kind::Waiting, Some(legacy)) = (which, &self.legacy) {
            // All of it is older than any segment.
            legacy.read(from, |position, frame| {
                goes_on = found(position, frame);
                goes_on
            })?;
        }
        if goes_on {
            let series = match which {
                Kind::Waiting => &mut self.waiting,
                Kind::SetAside => &mut self.set_aside,
            };
            let found = |entry: Entry, frame: &[u8]| found(entry.position, frame);
            series.read(&*self.disk, from, &mut self.next_id, found)?;
        }
        Ok(())
    }

    pub fn totals(&mut self) -> Totals {
        let (events, bytes, last) = self
            .legacy
            .as_ref()
            .map_or((0, 0, 0), |legacy| (legacy.events, legacy.bytes, legacy.last));
        Totals {
            events: events + self.waiting.events(),
            bytes: bytes + self.waiting.bytes() + self.set_aside.bytes(),
            set_aside: self.set_aside.events(),
            oldest_ms: self.oldest_ms(),
            last: last.max(self.waiting.last().1).max(self.set_aside.last().1),
        }
    }

    fn oldest_ms(&mut self) -> Option<i64> {
        if let Some(legacy) = self.legacy.as_ref().filter(|legacy| legacy.events > 0) {
            let mut oldest = None;
            let read = legacy.read(0, |_, bytes| {
                oldest = frame::read(bytes).map(|frame| frame.written_ms);
                false
            });
            return read.ok().and(oldest);
        }
        self.waiting.oldest(&mut self.oldest)
    }

    /// Whether every segment was read since the store was opened.
    pub fn is_checked(&self) -> bool {
        self.waiting.is_checked() && self.set_aside.is_checked()
    }

    /// Reads the next segment that was not read yet.
    pub fn check_next(&mut self) -> Result<(), StoreError> {
        self.next_id += 1;
        let series =
            if self.waiting.is_checked() { &mut self.set_aside } else { &mut self.waiting };
        series.check_next(&*self.disk, self.next_id)?;
        series.unload();
        Ok(())
    }

    /// What was found since this was asked last.
    pub fn take_checked(&mut self) -> Vec<Checked> {
        // Only the shards of waiting events count.
        let aside = self.set_aside.checked.drain(..);
        let aside = aside.map(|checked| Checked { shards: Vec::new(), ..checked });
        let mut checked: Vec<_> = self.legacy_checked.drain(..).chain(aside).collect();
        checked.append(&mut self.waiting.checked);
        checked
    }

    /// Gives the disk back what is not needed any more.
    pub fn maintain(&mut self) -> Result<(), StoreError> {
        if let Some(legacy) = self.legacy.take_if(|legacy| legacy.events == 0) {
            legacy.delete()?;
            self.keep_older_programs_out()?;
        }
        let waiting = self.waiting.take_empty(self.segment_max / 4);
        let set_aside = self.set_aside.take_empty(0);
        self.manifest_is_due |= !waiting.is_empty() || !set_aside.is_empty();
        if self.manifest_is_due {
            self.write_manifest()?;
        }
        for segment in &waiting {
            self.waiting.delete(&*self.disk, segment)?;
        }
        for segment in &set_aside {
            self.set_aside.delete(&*self.disk, segment)?;
        }
        for which in [Kind::Waiting, Kind::SetAside] {
            self.write_sparse_anew(which)?;
            self.series(which).unload();
        }
        Ok(())
    }

    /// Writes what is left of segments anew where they take a sixth more than that.
    fn write_sparse_anew(&mut self, which: Kind) -> Result<(), StoreError> {
        let (disk, segment_max) = (self.disk.clone(), self.segment_max);
        let series = self.series(which);
        let size: u64 = series.segments.iter().map(Segment::size).sum();
        if size <= series.bytes() + series.bytes() / 6 + 2 * segment_max {
            return Ok(());
        }
        let Some(range) = series.sparsest(segment_max) else { return Ok(()) };
        self.next_id += 1;
        let id = self.next_id;
        match self.series(which).rewrite(&*disk, range, id).map_err(StoreError::from) {
            Err(error) if error.is_disk_full() => Ok(()),
            result => {
                self.manifest_is_due = true;
                result?;
                Ok(self.write_manifest()?)
            }
        }
    }

    /// Once a second: notes how much was synced, and writes a segment anew whose file somebody deleted.
    pub fn tick(&mut self) -> Result<(), StoreError> {
        for series in [&mut self.waiting, &mut self.set_aside] {
            if series.write_deleted_anew(&*self.disk, &mut self.next_id)? {
                self.manifest_is_due = true;
                error!("Files of the spool were deleted; what they held is written anew.");
            }
        }
        let noted = self.waiting.written();
        if noted != self.noted && noted.0 > 0 {
            self.noted = noted;
            self.waiting.note_synced(&*self.disk)?;
        }
        self.maintain()
    }

    /// Writes down what is in each segment, so that the next start need not read them.
    pub fn close(mut self) -> Result<(), StoreError> {
        for series in [&mut self.waiting, &mut self.set_aside] {
            series.segments.iter_mut().for_each(Segment::close);
        }
        self.manifest_is_due = true;
        self.maintain()
    }

    fn series(&mut self, which: Kind) -> &mut Series {
        match which {
            Kind::Waiting => &mut self.waiting,
            Kind::SetAside => &mut self.set_aside,
        }
    }

    fn write_manifest(&mut self) -> io::Result<()> {
        let listed = |series: &Series| -> Vec<Listed> {
            series.segments.iter().map(Segment::listed).collect()
        };
        Manifest::new(listed(&self.waiting), listed(&self.set_aside)).write(&*self.disk)?;
        self.manifest_is_due = false;
        Ok(())
    }

    fn keep_older_programs_out(&self) -> Result<(), StoreError> {
        Ok(self.disk.path().map_or(Ok(()), legacy::keep_older_programs_out)?)
    }
}

impl Append {
    pub fn into_error(self) -> StoreError {
        match self {
            Append::Full(error) | Append::Failed(error) => error,
        }
    }
}

#[cfg(test)]
mod tests;
