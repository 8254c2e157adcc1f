//! The segments of one kind, in the order of their numbers: events are appended to the last one, read from all by
//! sequence number, and a segment is deleted when all its events have left.
//!
//! The index of a segment, its live events by sequence number, is in memory only for the few segments that are
//! written or read just now.

use std::collections::{HashMap, VecDeque};
use std::io;

use tracing::error;

use super::disk::Disk;
use super::error::StoreError;
use super::frame;
use super::layout::{self, Commit, Entry, SEGMENT_HEAD, SegmentHead, Topics};
use super::manifest::Listed;
use super::notes::{self, Note};
use super::segment::{Checked, Kind, NewEvent, Segment};

/// Indexes in memory, beside those that are needed at once.
const LOADED_MAX: usize = 6;

pub(super) struct Series {
    pub kind: Kind,
    pub segments: Vec<Segment>,
    /// The numbers of segments whose index is in memory, the latest last.
    pub loaded: VecDeque<u64>,
    /// The results of checks, until they are taken.
    pub checked: Vec<Checked>,
}

impl Series {
    /// Opens the segments of this kind. Those that are listed and not there are returned, too.
    pub fn open(
        kind: Kind,
        disk: &dyn Disk,
        names: &[String],
        listed: &[Listed],
    ) -> io::Result<(Series, Vec<Listed>)> {
        let mut numbers: Vec<u64> = names.iter().filter_map(|name| kind.number(name)).collect();
        numbers.sort_unstable();
        let mut series =
            Series { kind, segments: Vec::new(), loaded: VecDeque::new(), checked: Vec::new() };
        let mut until = 0;
        for number in &numbers {
            let of_number = listed.iter().find(|listed| listed.number == *number);
            let segment = Segment::open(disk, names, kind, *number, of_number)?;
            if *number <= until {
                // It was joined into the one before, and the process ended before it was deleted.
                disk.remove(&kind.file(*number))?;
                notes::remove(disk, *number)?;
                continue;
            }
            until = segment.head.until;
            if segment.index.is_some() {
                series.loaded.push_back(*number);
            }
            series.segments.push(segment);
        }
        let is_gone = |listed: &&Listed| {
            let joined = |segment: &Segment| {
                (segment.head.number..=segment.head.until).contains(&listed.number)
            };
            !series.segments.iter().any(joined)
        };
        let gone = listed.iter().filter(is_gone).cloned().collect();
        Ok((series, gone))
    }

    pub fn events(&self) -> u64 {
        self.segments.iter().map(|segment| segment.events).sum()
    }

    pub fn bytes(&self) -> u64 {
        self.segments.iter().map(|segment| segment.bytes).sum()
    }

    /// The highest number of a segment, and of an event.
    pub fn last(&self) -> (u64, u64) {
        let number = self.segments.iter().map(|segment| segment.head.until).max();
        let event = self.segments.iter().map(|segment| segment.all.last).max();
        (number.unwrap_or(0), event.unwrap_or(0))
    }

    pub fn is_checked(&self) -> bool {
        self.segments.iter().all(|segment| segment.is_checked)
    }

    /// Checks the first segment that was not checked yet.
    pub fn check_next(&mut self, disk: &dyn Disk, new_id: u64) -> io::Result<()> {
        let unchecked = self.segments.iter().position(|segment| !segment.is_checked);
        unchecked.map_or(Ok(()), |at| self.use_index(disk, at, new_id))
    }

    /// Sees to it that the index of a segment is in memory, and that the segment was checked. A damaged one is
    /// kept under another name, and what can be read of it is written anew.
    pub fn use_index(&mut self, disk: &dyn Disk, at: usize, new_id: u64) -> io::Result<()> {
        let segment = &mut self.segments[at];
        let number = segment.head.number;
        if segment.index.is_none() || !segment.is_checked {
            let damage = segment.load(disk, &disk.names()?)?;
            if !std::mem::replace(&mut segment.is_checked, true) {
                let shards = segment.index.iter().flatten().map(|e| e.position.shard()).collect();
                let is_damaged = damage.is_some();
                self.checked.push(Checked { shards, damage });
                if is_damaged {
                    keep_damaged(disk, &self.kind.file(number));
                    let written = self.rewrite(disk, at..at + 1, new_id);
                    // On a full disk it stays as it is: its index has what can be read.
                    if let Err(error) = written.map_err(StoreError::from)
                        && !error.is_disk_full()
                    {
                        return Err(io::Error::other(error));
                    }
                }
            }
        }
        self.loaded.retain(|loaded| *loaded != number);
        self.loaded.push_back(number);
        Ok(())
    }

    /// Whether there is an event of this number.
    pub fn has(&mut self, disk: &dyn Disk, sequence: u64, new_id: &mut u64) -> io::Result<bool> {
        Ok(self.locate(disk, sequence, new_id)?.is_some())
    }

    /// How many events, and bytes, the open segment has.
    pub fn written(&self) -> (u64, u64) {
        let open = self.segments.last().filter(|segment| segment.is_open);
        open.map_or((0, 0), |segment| (segment.all.events, segment.length))
    }

    /// Notes how much of the open segment was synced, so that it is missed should the file be cut off.
    pub fn note_synced(&mut self, disk: &dyn Disk) -> io::Result<()> {
        let (events, length) = self.written();
        let [events, length] = [events, length].map(|n| u32::try_from(n).unwrap_or(u32::MAX));
        match self.segments.last_mut().filter(|segment| segment.is_open) {
            Some(segment) => segment.note(disk, &[Note::Synced { events, length }]),
            None => Ok(()),
        }
    }

    /// When the oldest event was written; `known` is what was found the last time.
    pub fn oldest(&mut self, known: &mut Option<(u64, i64)>) -> Option<i64> {
        let holding = self.segments.iter_mut().filter(|segment| segment.events > 0);
        let segment = holding.min_by_key(|segment| segment.all.first)?;
        let Some(entry) = segment.entry(segment.find(0)) else {
            return Some(segment.all.oldest_ms);
        };
        let sequence = entry.position.sequence;
        if known.is_none_or(|(number, _)| number != sequence) {
            // Not by the bytes that were read ahead: those are for the reader.
            let head = segment.file.read(entry.place.into(), frame::HEAD).ok()?;
            let written_ms = frame::written_ms(&head)?;
            *known = Some((sequence, written_ms));
        }
        known.map(|(_, written_ms)| written_ms)
    }

    /// Forgets indexes that were not used lately.
    pub fn unload(&mut self) {
        while self.loaded.len() > LOADED_MAX {
            let Some(number) = self.loaded.pop_front() else { return };
            let segment = self.segments.iter_mut().find(|segment| segment.head.number == number);
            match segment {
                Some(segment) if segment.is_open => self.loaded.push_back(number),
                Some(segment) => segment.unload(),
                None => {}
            }
        }
    }

    /// Begins the next segment.
    pub fn begin(&mut self, disk: &dyn Disk, number: u64, id: u64) -> io::Result<()> {
        self.segments.iter_mut().for_each(Segment::close);
        let head = SegmentHead { number, until: number, id };
        let file = disk.create(&self.kind.file(number))?;
        file.write(0, &head.write())?;
        file.sync()?;
        disk.sync()?;
        let mut segment = Segment::with_file(head, file, SEGMENT_HEAD as u64);
        (segment.index, segment.is_checked, segment.is_open) = (Some(Vec::new()), true, true);
        self.loaded.push_back(number);
        self.segments.push(segment);
        Ok(())
    }

    /// Whether the last segment takes more.
    pub fn is_open(&self, length_max: u64) -> bool {
        self.segments.last().is_some_and(|s| s.is_open && s.length < length_max)
    }

    /// Appends events to the open segment and syncs it. When this fails, none of them is there.
    ///
    /// # Errors
    ///
    /// [`Append::Full`] leaves the segment as it was; after [`Append::Failed`] nothing may be appended to it.
    pub fn append(&mut self, events: &mut [NewEvent]) -> Result<(), Append> {
        events.sort_unstable_by_key(|event| event.entry.sequence);
        let Some(segment) = self.segments.last_mut().filter(|segment| segment.is_open) else {
            return Err(Append::Failed(io::Error::other("no segment is open").into()));
        };
        let mut batch =
            Vec::with_capacity(events.iter().map(|e| e.frame.len()).sum::<usize>() + 256);
        let mut entries = Vec::with_capacity(events.len());
        let start = usize::try_from(segment.length).unwrap_or(usize::MAX);
        let mut topics = Topics::new();
        for event in &*events {
            let place = start.saturating_add(batch.len());
            let entry = layout::entry(event.entry, place, event.frame.len());
            let full = || Append::Failed(io::Error::other("the segment is too large").into());
            entries.push(entry.ok_or_else(full)?);
            batch.extend(event.frame);
            match topics.get_mut(event.topic) {
                Some(count) => *count += 1,
                None => drop(topics.insert(event.topic.to_owned(), 1)),
            }
        }
        let total = segment.all.events + entries.len() as u64;
        let commit = Commit { total, topics };
        commit.write(&mut batch).map_err(|e| Append::Failed(io::Error::other(e).into()))?;
        if let Err(error) = segment.file.write(segment.length, &batch) {
            let error = StoreError::from(error);
            // What was written of it goes; nothing was lost, as it would be where a sync fails.
            let is_undone = segment.file.truncate(segment.length).is_ok();
            return Err(if error.is_disk_full() && is_undone {
                Append::Full(error)
            } else {
                Append::Failed(error)
            });
        }
        segment.file.sync().map_err(|error| Append::Failed(error.into()))?;
        segment.confirm(&entries, batch.len() as u64, commit, events);
        Ok(())
    }

    /// Where an event is: its segment, and its place in the index.
    fn locate(
        &mut self,
        disk: &dyn Disk,
        sequence: u64,
        new_id: &mut u64,
    ) -> io::Result<Option<(usize, usize)>> {
        for at in 0..self.segments.len() {
            let segment = &self.segments[at];
            if segment.events == 0 || !(segment.all.first..=segment.all.last).contains(&sequence) {
                continue;
            }
            *new_id += 1;
            self.use_index(disk, at, *new_id)?;
            let place = self.segments[at].find(sequence);
            if self.segments[at].entry(place).is_some_and(|e| e.position.sequence == sequence) {
                return Ok(Some((at, place)));
            }
        }
        Ok(None)
    }

    /// Reads one event.
    pub fn get(
        &mut self,
        disk: &dyn Disk,
        sequence: u64,
        new_id: &mut u64,
    ) -> io::Result<Option<Vec<u8>>> {
        let Some((at, place)) = self.locate(disk, sequence, new_id)? else { return Ok(None) };
        let segment = &mut self.segments[at];
        let Some(entry) = segment.entry(place) else { return Ok(None) };
        Ok(Some(segment.frame(entry)?.to_vec()))
    }

    /// Removes events, durably. Says for each whether it was there.
    pub fn remove(
        &mut self,
        disk: &dyn Disk,
        sequences: &[u64],
        new_id: &mut u64,
    ) -> io::Result<Vec<bool>> {
        let mut found = Vec::with_capacity(sequences.len());
        let mut notes: HashMap<u64, Vec<Note>> = HashMap::new();
        for sequence in sequences {
            let located = self.locate(disk, *sequence, new_id)?;
            found.push(located.is_some());
            let Some((at, place)) = located else { continue };
            let segment = &mut self.segments[at];
            let Some(entry) = segment.index.as_mut().and_then(|index| index.get_mut(place)) else {
                continue;
            };
            let Entry { place, length, .. } = *entry;
            entry.length = 0;
            segment.events -= 1;
            segment.bytes = segment.bytes.saturating_sub(length.into());
            notes.entry(segment.head.number).or_default().push(Note::Left { place, length });
        }
        for segment in &mut self.segments {
            // Those of a segment that is deleted at once are not needed.
            if let Some(notes) = notes.get(&segment.head.number)
                && (segment.events > 0 || segment.is_open)
            {
                segment.note(disk, notes)?;
            }
        }
        Ok(found)
    }

    /// Calls `found` with the events from this sequence number on, in their order, as long as it returns true.
    pub fn read(
        &mut self,
        disk: &dyn Disk,
        from: u64,
        new_id: &mut u64,
        mut found: impl FnMut(Entry, &[u8]) -> bool,
    ) -> io::Result<()> {
        let mut order: Vec<usize> = (0..self.segments.len()).collect();
        order.retain(|at| {
            let segment = &self.segments[*at];
            segment.events > 0 && segment.all.last >= from
        });
        order.sort_unstable_by_key(|at| self.segments[*at].all.first);
        let mut order = order.into_iter().peekable();
        // The next entry of each segment that may have the next event: mostly there is one.
        let mut heads: Vec<(u64, usize, usize)> = Vec::new();
        loop {
            heads.sort_unstable();
            while let Some(at) = order.peek().copied()
                && heads.first().is_none_or(|head| self.segments[at].all.first <= head.0)
            {
                order.next();
                *new_id += 1;
                self.use_index(disk, at, *new_id)?;
                self.push_head(&mut heads, at, from);
                heads.sort_unstable();
            }
            let Some((sequence, at, place)) = heads.first().copied() else { return Ok(()) };
            heads.remove(0);
            self.push_head(&mut heads, at, sequence + 1);
            let segment = &mut self.segments[at];
            let Some(entry) = segment.entry(place) else { continue };
            if !found(entry, segment.frame(entry)?) {
                return Ok(());
            }
        }
    }

    fn push_head(&self, heads: &mut Vec<(u64, usize, usize)>, at: usize, from: u64) {
        let place = self.segments[at].find(from);
        if let Some(entry) = self.segments[at].entry(place) {
            heads.push((entry.position.sequence, at, place));
        }
    }

    /// Takes out the segments that are not needed any more. Their files are to be deleted.
    pub fn take_empty(&mut self, open_max: u64) -> Vec<Segment> {
        let is_empty = |segment: &mut Segment| {
            segment.events == 0
                && segment.is_checked
                && (!segment.is_open || segment.length > open_max)
        };
        self.segments.extract_if(.., is_empty).collect()
    }

    /// Deletes the files of a segment.
    pub fn delete(&self, disk: &dyn Disk, segment: &Segment) -> io::Result<()> {
        disk.remove(&self.kind.file(segment.head.number))?;
        // Before its notes: a power cut must not bring it back without them.
        disk.sync()?;
        notes::remove(disk, segment.head.number)
    }
}

/// Why events were not appended.
#[derive(Debug)]
pub(super) enum Append {
    Full(StoreError),
    Failed(StoreError),
}

/// Keeps a damaged file under another name, if the file system can.
fn keep_damaged(disk: &dyn Disk, name: &str) {
    let now = jiff::Timestamp::now().strftime("%Y%m%dT%H%M%S%3f");
    let file = format!("damaged-{now}-{name}");
    match disk.link(name, &file) {
        Ok(()) => error!(file, "The damaged file is kept under this name."),
        Err(error) => error!(%error, file = name, "The damaged file cannot be kept."),
    }
}
