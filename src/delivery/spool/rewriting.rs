//! Segments that are written anew: what is left of a sparse or a damaged one goes to a new file, which takes its
//! place.

use std::io;
use std::ops::Range;

use super::disk::Disk;
use super::frame;
use super::layout::{Commit, Entry, SEGMENT_HEAD, SegmentHead, Topics};
use super::notes::{self, Note};
use super::segment::{Checked, Segment, SegmentDamage};
use super::series::Series;

/// Bytes of events in one batch.
const REWRITE_BATCH: usize = 4 << 20;

impl Series {
    /// Checks a segment, and writes what is in it to a new file.
    pub fn write_anew(&mut self, disk: &dyn Disk, at: usize, new_id: &mut u64) -> io::Result<()> {
        *new_id += 1;
        self.use_index(disk, at, *new_id)?;
        *new_id += 1;
        self.rewrite(disk, at..at + 1, *new_id)
    }

    /// Writes segments anew whose files were deleted. Says whether there were any.
    pub fn write_deleted_anew(&mut self, disk: &dyn Disk, new_id: &mut u64) -> io::Result<bool> {
        let mut were_deleted = false;
        for at in 0..self.segments.len() {
            if !self.segments[at].file.has_name()? {
                were_deleted = true;
                self.write_anew(disk, at, new_id)?;
                let segment = self.segments[at].head.number;
                let (read, missing, topics) = (self.segments[at].events, 0, Vec::new());
                let damage = Some(SegmentDamage { segment, read, missing, topics });
                self.checked.push(Checked { shards: Vec::new(), damage });
            }
        }
        Ok(were_deleted)
    }

    /// Writes what is left of adjacent segments into one new file, which takes the place of the first.
    pub fn rewrite(&mut self, disk: &dyn Disk, range: Range<usize>, id: u64) -> io::Result<()> {
        let (first, last) = (range.start, range.end.saturating_sub(1));
        let number = self.segments[first].head.number;
        let head = SegmentHead { number, until: self.segments[last].head.until, id };
        let name = self.kind.file(number);
        let new = format!("{name}.new");
        let mut rewritten = Segment::with_file(head, disk.create(&new)?, SEGMENT_HEAD as u64);
        rewritten.file.write(0, &head.write())?;
        let (mut notes, mut damage) = (Vec::new(), SegmentDamage::default());
        let mut batch = Rewritten::default();
        rewritten.index = Some(Vec::new());
        for at in range.clone() {
            let segment = &mut self.segments[at];
            let names = disk.names()?;
            if segment.index.is_none() {
                segment.load(disk, &names)?;
            }
            let refused = notes::read(disk, &names, segment.head.number, segment.head.id)?.refused;
            for entry in segment.index.clone().unwrap_or_default() {
                if entry.length == 0 {
                    continue;
                }
                let bytes = segment.frame(entry)?;
                let Some(record) = frame::read(bytes).and_then(|frame| frame.record().ok()) else {
                    damage.missing += 1;
                    continue;
                };
                let place = u32::try_from(rewritten.length).unwrap_or(u32::MAX);
                let place =
                    place.saturating_add(u32::try_from(batch.bytes.len()).unwrap_or(u32::MAX));
                if let Some(code) = refused.get(&entry.place) {
                    notes.push(Note::Refused { place, code: *code });
                }
                batch.push(Entry { place, ..entry }, bytes, record.topic());
                if batch.bytes.len() >= REWRITE_BATCH {
                    batch.write_to(&mut rewritten)?;
                }
            }
        }
        batch.write_to(&mut rewritten)?;
        rewritten.file.sync()?;
        if !notes.is_empty() {
            rewritten.note(disk, &notes)?;
        }
        let oldest = self.segments[range.clone()].iter().map(|s| s.all.oldest_ms).min();
        rewritten.all.oldest_ms = oldest.unwrap_or(0);
        disk.rename(&new, &name)?;
        disk.sync()?;
        rewritten.is_checked = self.segments[range.clone()].iter().all(|s| s.is_checked);
        self.loaded.push_back(number);
        for old in self.segments.splice(range, [rewritten]).skip(1) {
            disk.remove(&self.kind.file(old.head.number))?;
            notes::remove(disk, old.head.number)?;
        }
        if damage.missing > 0 {
            damage.segment = number;
            self.checked.push(Checked { shards: Vec::new(), damage: Some(damage) });
        }
        Ok(())
    }

    /// Which adjacent segments to write anew, so that the disk has more room: those with the least left, and as
    /// many as fit into one.
    pub fn sparsest(&self, length_max: u64) -> Option<Range<usize>> {
        let is_sparse = |segment: &Segment| {
            !segment.is_open && segment.is_checked && 7 * segment.bytes < 6 * segment.size()
        };
        let share = |segment: &Segment| (segment.bytes << 10) / segment.size().max(1);
        let sparse = (0..self.segments.len()).filter(|at| is_sparse(&self.segments[*at]));
        let start = sparse.min_by_key(|at| share(&self.segments[*at]))?;
        let (mut from, mut to, mut bytes) = (start, start + 1, self.segments[start].bytes);
        let mut fits = |at: usize| {
            let more =
                self.segments.get(at).filter(|s| is_sparse(s) && bytes + s.bytes < length_max);
            bytes += more.map_or(0, |segment| segment.bytes);
            more.is_some()
        };
        while fits(to) {
            to += 1;
        }
        while from > 0 && fits(from - 1) {
            from -= 1;
        }
        Some(from..to)
    }
}

/// A batch of a segment that is written anew.
#[derive(Default)]
struct Rewritten {
    entries: Vec<Entry>,
    bytes: Vec<u8>,
    topics: Topics,
}

impl Rewritten {
    fn push(&mut self, entry: Entry, frame: &[u8], topic: &str) {
        self.entries.push(entry);
        self.bytes.extend(frame);
        *self.topics.entry(topic.to_owned()).or_default() += 1;
    }

    fn write_to(&mut self, segment: &mut Segment) -> io::Result<()> {
        if self.entries.is_empty() {
            return Ok(());
        }
        let Rewritten { entries, mut bytes, topics } = std::mem::take(self);
        let commit = Commit { total: segment.all.events + entries.len() as u64, topics };
        commit.write(&mut bytes).map_err(io::Error::other)?;
        segment.file.write(segment.length, &bytes)?;
        segment.add(&entries, bytes.len() as u64, commit);
        Ok(())
    }
}
