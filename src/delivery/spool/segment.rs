//! One segment, open: its index, what has left it, its notes.

use std::collections::HashSet;
use std::io;

use super::disk::{Disk, DiskFile};
use super::frame;
use super::layout::{self, Commit, Entry, SEGMENT_HEAD, SegmentHead, Topics};
use super::manifest::{Complete, Listed};
use super::notes::{self, Note, NotesFile};

/// Bytes of a file that are read at once, where events are read in their order.
const READ_AHEAD: usize = 256 << 10;

/// Which events a segment has; the extension of its file says it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Waiting,
    SetAside,
}

/// A segment that is open.
pub(super) struct Segment {
    pub(super) head: SegmentHead,
    pub(super) file: Box<dyn DiskFile>,
    /// Of the file, as far as it is confirmed.
    pub(super) length: u64,
    /// What is in it, with what has left.
    pub(super) all: Complete,
    /// How many events are in it, and their bytes.
    pub(super) events: u64,
    pub(super) bytes: u64,
    pub(super) notes: Option<NotesFile>,
    pub(super) notes_length: u64,
    /// Those events, by sequence number. One that has left has no length any more.
    pub(super) index: Option<Vec<Entry>>,
    /// Bytes of the file that were read ahead, and where they begin.
    pub(super) ahead: (u64, Vec<u8>),
    /// Whether its shards were counted, and damage would have been found.
    pub(super) is_checked: bool,
    /// Whether it may be appended to.
    pub(super) is_open: bool,
}

/// An event to be appended.
pub(super) struct NewEvent<'e> {
    pub entry: super::Position,
    pub frame: &'e [u8],
    pub topic: &'e str,
}

/// What the check of a segment found.
#[derive(Debug, Default)]
pub(super) struct Checked {
    /// The shards of its events, one for each.
    pub shards: Vec<usize>,
    pub damage: Option<SegmentDamage>,
}

/// What is missing in a segment.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct SegmentDamage {
    pub segment: u64,
    /// The events that can be read.
    pub read: u64,
    /// The events that cannot.
    pub missing: u64,
    /// Whose events are missing, as far as is known.
    pub topics: Vec<String>,
}

impl Kind {
    pub fn file(self, number: u64) -> String {
        let extension = match self {
            Kind::Waiting => "waiting",
            Kind::SetAside => "set-aside",
        };
        format!("{number:012}.{extension}")
    }

    /// The number of the segment with this file.
    pub fn number(self, name: &str) -> Option<u64> {
        let number = name.split_once('.')?.0.parse().ok()?;
        (self.file(number) == name).then_some(number)
    }
}

impl Segment {
    /// Opens a segment that is there. `listed` is what the manifest says of it.
    pub(super) fn open(
        disk: &dyn Disk,
        names: &[String],
        kind: Kind,
        number: u64,
        listed: Option<&Listed>,
    ) -> io::Result<Segment> {
        let file = disk.open(&kind.file(number))?;
        let length = file.length()?;
        let head = file.read(0, SEGMENT_HEAD.min(usize::try_from(length).unwrap_or(0)))?;
        let head = SegmentHead::read(&head).filter(|head| head.number == number);
        let id = listed.map_or(0, |listed| listed.id);
        let head = head.unwrap_or(SegmentHead { number, until: number, id });
        // One that was written anew just before the end is not the one that is listed.
        let listed = listed.filter(|listed| listed.id == head.id);
        let notes_length = notes::size(disk, names, number)?;
        let mut segment = Segment::with_file(head, file, length);
        segment.notes_length = notes_length;
        if let Some(complete) = listed.and_then(|listed| listed.complete.clone()) {
            let left = notes::read(disk, names, number, segment.head.id)?.left;
            segment.events = complete.events.saturating_sub(left.len() as u64);
            let bytes: u64 = left.values().map(|length| u64::from(*length)).sum();
            segment.bytes = complete.bytes.saturating_sub(bytes);
            segment.all = complete;
        } else {
            segment.load(disk, names)?;
        }
        Ok(segment)
    }

    pub(super) fn with_file(head: SegmentHead, file: Box<dyn DiskFile>, length: u64) -> Segment {
        Segment {
            head,
            file,
            length,
            all: Complete::default(),
            events: 0,
            bytes: 0,
            notes: None,
            notes_length: 0,
            index: None,
            ahead: Default::default(),
            is_checked: false,
            is_open: false,
        }
    }

    pub fn number(&self) -> u64 {
        self.head.number
    }

    pub fn events(&self) -> u64 {
        self.events
    }

    /// Bytes that it takes on disk.
    pub fn size(&self) -> u64 {
        self.length + self.notes_length
    }

    /// Nothing is appended to it from now on.
    pub fn close(&mut self) {
        self.is_open = false;
    }

    pub fn listed(&self) -> Listed {
        let complete = (!self.is_open).then(|| self.all.clone());
        Listed { number: self.head.number, id: self.head.id, complete }
    }

    /// Reads the file and makes the index. Returns what is missing, if it is damaged.
    pub(super) fn load(
        &mut self,
        disk: &dyn Disk,
        names: &[String],
    ) -> io::Result<Option<SegmentDamage>> {
        let length = usize::try_from(self.file.length()?).unwrap_or(0);
        let bytes = self.file.read(0, length)?;
        let parsed = layout::parse(&bytes);
        let noted = notes::read(disk, names, self.head.number, self.head.id)?;
        let expected = parsed.total.max(self.all.events).max(noted.synced.0.into());
        let found = parsed.entries.len() as u64;
        let unconfirmed = (found - parsed.committed).min(expected - parsed.total);
        let missing = expected.saturating_sub(parsed.committed + unconfirmed);
        let places: HashSet<u32> = parsed.entries.iter().map(|entry| entry.place).collect();
        let left_unread = noted.left.keys().filter(|place| !places.contains(place)).count();
        let missing = missing.saturating_sub(left_unread as u64);
        let damage = (parsed.is_damaged || missing > 0).then(|| {
            let expected =
                if self.all.topics.is_empty() { &parsed.topics } else { &self.all.topics };
            let topics = missing_topics(&bytes, &parsed.entries, expected.clone());
            SegmentDamage { segment: self.head.number, read: 0, missing, topics }
        });
        let sequence = |entry: &Entry| entry.position.sequence;
        let all = &parsed.entries;
        if self.all.events == 0 {
            let oldest = all.first().and_then(|e| frame::read(&bytes[e.place as usize..]));
            self.all = Complete {
                events: expected,
                bytes: all.iter().map(|entry| u64::from(entry.length)).sum(),
                first: all.iter().map(sequence).min().unwrap_or(0),
                last: all.iter().map(sequence).max().unwrap_or(0),
                oldest_ms: oldest.map_or(0, |frame| frame.written_ms),
                topics: parsed.topics,
            };
        }
        let mut index: Vec<Entry> = parsed.entries;
        index.retain(|entry| !noted.left.contains_key(&entry.place));
        index.sort_unstable_by_key(sequence);
        index.shrink_to_fit();
        self.events = index.len() as u64;
        self.bytes = index.iter().map(|entry| u64::from(entry.length)).sum();
        self.index = Some(index);
        Ok(damage.map(|damage| SegmentDamage { read: self.events, ..damage }))
    }

    /// The bytes of an event.
    pub(super) fn frame(&mut self, entry: Entry) -> io::Result<&[u8]> {
        let (place, length) = (u64::from(entry.place), entry.length as usize);
        let is_ahead = |(start, bytes): &(u64, Vec<u8>)| {
            *start <= place && place + length as u64 <= start + bytes.len() as u64
        };
        if !is_ahead(&self.ahead) {
            let rest = usize::try_from(self.length.saturating_sub(place)).unwrap_or(0);
            let bytes = self.file.read(place, READ_AHEAD.min(rest).max(length))?;
            self.ahead = (place, bytes);
        }
        let start = usize::try_from(place - self.ahead.0).unwrap_or(0);
        Ok(self.ahead.1.get(start..start + length).unwrap_or_default())
    }

    /// Where the first live entry from this sequence number on is in the index.
    pub(super) fn find(&self, from: u64) -> usize {
        let index = self.index.as_deref().unwrap_or_default();
        let mut at = index.partition_point(|entry| entry.position.sequence < from);
        while index.get(at).is_some_and(|entry| entry.length == 0) {
            at += 1;
        }
        at
    }

    pub(super) fn entry(&self, at: usize) -> Option<Entry> {
        self.index.as_ref()?.get(at).copied()
    }

    pub(super) fn unload(&mut self) {
        self.index = None;
        self.ahead = Default::default();
    }

    /// Counts events that were synced.
    pub(super) fn confirm(
        &mut self,
        entries: &[Entry],
        more: u64,
        commit: Commit,
        events: &[NewEvent],
    ) {
        if self.all.events == 0 {
            let frame = events.first().and_then(|event| frame::read(event.frame));
            self.all.oldest_ms = frame.map_or(0, |frame| frame.written_ms);
        }
        self.add(entries, more, commit);
    }

    /// Counts events that were written.
    pub(super) fn add(&mut self, entries: &[Entry], more: u64, commit: Commit) {
        let bytes: u64 = entries.iter().map(|entry| u64::from(entry.length)).sum();
        let sequences = || entries.iter().map(|entry| entry.position.sequence);
        let first = sequences().min().unwrap_or(u64::MAX);
        self.all.first = if self.all.events == 0 { first } else { self.all.first.min(first) };
        self.all.last = self.all.last.max(sequences().max().unwrap_or(0));
        self.all.events += entries.len() as u64;
        self.all.bytes += bytes;
        for (topic, events) in commit.topics {
            *self.all.topics.entry(topic).or_default() += events;
        }
        self.events += entries.len() as u64;
        self.bytes += bytes;
        self.length += more;
        let Some(index) = &mut self.index else { return };
        let is_later = index.last().is_none_or(|last| last.position.sequence < first);
        index.extend(entries);
        // Entries of several segments that are joined are in the order of each.
        if !(is_later && sequences().is_sorted()) {
            index.sort_unstable_by_key(|entry| entry.position.sequence);
        }
    }

    /// Writes notes beside it, durably.
    pub(super) fn note(&mut self, disk: &dyn Disk, notes: &[Note]) -> io::Result<()> {
        let file = match self.notes.take() {
            Some(file) => self.notes.insert(file),
            None => self.notes.insert(NotesFile::begin(disk, self.head.number)?),
        };
        file.write(self.head.id, notes)?;
        self.notes_length += 16 * notes.len() as u64;
        file.sync()
    }

    /// Notes why an event was refused.
    pub fn note_refused(&mut self, disk: &dyn Disk, sequence: u64, code: u32) -> io::Result<()> {
        let place = self.entry(self.find(sequence)).map(|entry| entry.place);
        place.map_or(Ok(()), |place| self.note(disk, &[Note::Refused { place, code }]))
    }
}

/// Whose events are not among those that were found.
fn missing_topics(bytes: &[u8], entries: &[Entry], mut topics: Topics) -> Vec<String> {
    for entry in entries {
        let record = frame::read(&bytes[entry.place as usize..]).and_then(|f| f.record().ok());
        if let Some(count) = record.and_then(|record| topics.get_mut(&**record.topic())) {
            *count = count.saturating_sub(1);
        }
    }
    topics.into_iter().filter(|(_, missing)| *missing > 0).map(|(topic, _)| topic).collect()
}

/// Calls `found` with each event of a segment that no process uses, and the code that it was refused with, as
/// long as it returns true. Changes nothing. Returns how many events are missing.
pub(super) fn read_file(
    disk: &dyn Disk,
    names: &[String],
    (kind, number): (Kind, u64),
    listed: Option<&Listed>,
    found: &mut impl FnMut(&[u8], Option<u32>) -> bool,
) -> io::Result<u64> {
    let mut segment = Segment::open(disk, names, kind, number, listed)?;
    let damage = segment.load(disk, names)?;
    let refused = notes::read(disk, names, number, segment.head.id)?.refused;
    for entry in segment.index.clone().unwrap_or_default() {
        if !found(segment.frame(entry)?, refused.get(&entry.place).copied()) {
            return Ok(0);
        }
    }
    Ok(damage.map_or(0, |damage| damage.missing))
}
