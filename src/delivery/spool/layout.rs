//! One file of events: written once, from the front, and never changed.
//!
//! | bytes | what |
//! | --- | --- |
//! | 8 | the mark, which also names this version of the layout |
//! | 4 | CRC-32 of the rest of the head |
//! | 8 | the segment's number |
//! | 8 | the number of the last segment that was joined into this one |
//! | 8 | its id, which its notes name |
//! | | batches: frames, each an event, and a commit that says how many and of which topics |
//!
//! A batch is written and synced as one. A commit counts the events of all batches up to its own, so that it is
//! known how many are missing where bytes were damaged. What follows the last commit was never confirmed:
//! the process or the machine stopped while it was written.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::Position;
use super::frame::{self, field};

const MARK: [u8; 8] = *b"\x00hbseg1\xff";
const COMMIT_MARK: [u8; 8] = *b"\x00hbcmt1\xff";

/// What every mark begins with.
const MARK_START: &[u8] = b"\x00hb";

/// The length of a segment's head.
pub(super) const SEGMENT_HEAD: usize = 36;

/// The length of what comes before a commit's content.
const COMMIT_HEAD: usize = 16;

/// The head of a segment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct SegmentHead {
    pub number: u64,
    pub until: u64,
    pub id: u64,
}

/// How many events there are of each topic.
pub(super) type Topics = BTreeMap<String, u64>;

/// The end of a batch.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Commit {
    /// How many events the segment has up to here.
    pub total: u64,
    /// Those of this batch.
    pub topics: Topics,
}

/// Where an event is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Entry {
    pub position: Position,
    pub place: u32,
    pub length: u32,
}

/// What was found in the bytes of a segment.
#[derive(Debug, Default)]
pub(super) struct Parsed {
    /// Whole frames, in the order of the file.
    pub entries: Vec<Entry>,
    /// How many of them are in batches that have their commit.
    pub committed: u64,
    /// How many events the last commit counts.
    pub total: u64,
    /// The events that the commits name, by topic.
    pub topics: Topics,
    /// Where the last commit ends.
    pub end: u64,
    /// Whether the head is damaged, or bytes before the last commit.
    pub is_damaged: bool,
}

impl SegmentHead {
    pub fn write(self) -> Vec<u8> {
        let mut head = Vec::with_capacity(SEGMENT_HEAD);
        head.extend(MARK);
        head.extend([0; 4]);
        [self.number, self.until, self.id].iter().for_each(|n| head.extend(n.to_le_bytes()));
        let checksum = crc32fast::hash(&head[12..]);
        head[8..12].copy_from_slice(&checksum.to_le_bytes());
        head
    }

    pub fn read(bytes: &[u8]) -> Option<SegmentHead> {
        let head = bytes.get(..SEGMENT_HEAD).filter(|head| head.starts_with(&MARK))?;
        let checksum = u32::from_le_bytes(field(head, 8)?);
        let number = |from| field(head, from).map(u64::from_le_bytes);
        let read = SegmentHead { number: number(12)?, until: number(20)?, id: number(28)? };
        (crc32fast::hash(&head[12..]) == checksum).then_some(read)
    }
}

impl Commit {
    /// Writes the commit behind the frames of its batch.
    pub fn write(&self, batch: &mut Vec<u8>) -> Result<(), postcard::Error> {
        let start = batch.len();
        batch.extend(COMMIT_MARK);
        batch.extend([0; 8]);
        *batch = postcard::to_extend(self, std::mem::take(batch))?;
        let length = u32::try_from(batch.len() - start - COMMIT_HEAD).unwrap_or(u32::MAX);
        batch[start + 12..start + 16].copy_from_slice(&length.to_le_bytes());
        let checksum = crc32fast::hash(&batch[start + 12..]);
        batch[start + 8..start + 12].copy_from_slice(&checksum.to_le_bytes());
        Ok(())
    }

    /// Reads the commit that the bytes begin with, and its length.
    fn read(bytes: &[u8]) -> Option<(Commit, usize)> {
        let length = usize::try_from(u32::from_le_bytes(field(bytes, 12)?)).ok()?;
        let length = COMMIT_HEAD.checked_add(length)?;
        let bytes = bytes.get(..length).filter(|bytes| bytes.starts_with(&COMMIT_MARK))?;
        if crc32fast::hash(&bytes[12..]) != u32::from_le_bytes(field(bytes, 8)?) {
            return None;
        }
        Some((postcard::from_bytes(&bytes[COMMIT_HEAD..]).ok()?, length))
    }
}

/// Finds what is whole in the bytes of a segment.
pub(super) fn parse(bytes: &[u8]) -> Parsed {
    let mut parsed = Parsed { is_damaged: SegmentHead::read(bytes).is_none(), ..Parsed::default() };
    let mut at = if parsed.is_damaged { 0 } else { SEGMENT_HEAD };
    // Damage counts only where a commit follows it: else it may be a write that was not finished.
    let mut has_gap = false;
    while at < bytes.len() {
        let rest = &bytes[at..];
        if let Some(frame) = frame::read(rest) {
            let length = frame.bytes.len();
            let entry = entry(frame.position, at, length);
            parsed.entries.extend(entry);
            at += length;
        } else if let Some((commit, length)) = Commit::read(rest) {
            parsed.is_damaged |= has_gap;
            parsed.committed = parsed.entries.len() as u64;
            parsed.total = parsed.total.max(commit.total);
            for (topic, events) in commit.topics {
                *parsed.topics.entry(topic).or_default() += events;
            }
            at += length;
            parsed.end = at as u64;
        } else {
            has_gap |= at >= SEGMENT_HEAD;
            let next = rest.get(1..).and_then(|rest| memchr::memmem::find(rest, MARK_START));
            at = next.map_or(bytes.len(), |next| at + 1 + next);
        }
    }
    parsed
}

/// An entry, as far as a file has room for it.
pub(super) fn entry(position: Position, place: usize, length: usize) -> Option<Entry> {
    let (place, length) = (u32::try_from(place).ok()?, u32::try_from(length).ok()?);
    Some(Entry { position, place, length })
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;
    use crate::click::record::tests::record_of;

    fn frame(sequence: u64) -> Bytes {
        let record = record_of(r#"{"campid":7}"#, "2026-01-10T12:00:00.5Z", None);
        let position = Position { sequence, shard: 3 };
        frame::write(position, jiff::Timestamp::UNIX_EPOCH, &record).expect("a frame")
    }

    /// A segment with two batches: 1 and 2, then 3.
    fn segment() -> Vec<u8> {
        let mut bytes = SegmentHead { number: 5, until: 5, id: 9 }.write();
        let topics = |count| Topics::from([("clicks".to_owned(), count)]);
        bytes.extend([frame(1), frame(2)].concat());
        Commit { total: 2, topics: topics(2) }.write(&mut bytes).expect("a commit");
        bytes.extend(frame(3));
        Commit { total: 3, topics: topics(1) }.write(&mut bytes).expect("a commit");
        bytes
    }

    fn numbers(parsed: &Parsed) -> Vec<u64> {
        parsed.entries.iter().map(|entry| entry.position.sequence).collect()
    }

    #[test]
    fn what_was_written_is_found() {
        let bytes = segment();
        let parsed = parse(&bytes);
        assert_eq!(numbers(&parsed), [1, 2, 3]);
        assert_eq!((parsed.committed, parsed.total, parsed.is_damaged), (3, 3, false));
        assert_eq!((parsed.end, parsed.topics["clicks"]), (bytes.len() as u64, 3));
        let head = SegmentHead { number: 5, until: 5, id: 9 };
        assert_eq!(SegmentHead::read(&bytes), Some(head));
    }

    #[test]
    fn damage_costs_what_it_hits() {
        let whole = segment();
        let first = SEGMENT_HEAD;
        let length = frame(1).len();
        // Where a byte is flipped, what is found, how many the commits count, whether that is damage.
        for (place, found, total, is_damaged) in [
            (0, &[1, 2, 3][..], 3, true),
            (20, &[1, 2, 3], 3, true),
            (first + 50, &[2, 3], 3, true),
            (first + length + 3, &[1, 3], 3, true),
            // The commit of the first batch: the second one counts it.
            (first + 2 * length + 9, &[1, 2, 3], 3, true),
            // The last commit: perhaps it was never finished.
            (whole.len() - 1, &[1, 2, 3], 2, false),
        ] {
            let mut bytes = whole.clone();
            bytes[place] ^= 1;
            let parsed = parse(&bytes);
            assert_eq!(numbers(&parsed), found, "{place}");
            assert_eq!((parsed.total, parsed.is_damaged), (total, is_damaged), "{place}");
        }
    }

    #[test]
    fn a_write_that_was_not_finished_is_no_damage() {
        let whole = segment();
        let second = SEGMENT_HEAD + 2 * frame(1).len();
        for length in SEGMENT_HEAD..whole.len() {
            let parsed = parse(&whole[..length]);
            assert!(!parsed.is_damaged, "{length}");
            assert!(parsed.total == 0 || length > second, "{length}");
        }
        // Pages of zeros at its end.
        let mut bytes = whole.clone();
        bytes.extend([0; 5_000]);
        assert!(!parse(&bytes).is_damaged);
    }
}
