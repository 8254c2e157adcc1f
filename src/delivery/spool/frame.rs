//! One event as bytes on disk: a record, with what it takes to trust it.
//!
//! | bytes | what |
//! | --- | --- |
//! | 8 | the mark, which also names this version of the layout |
//! | 4 | CRC-32 of all that follows |
//! | 4 | length of the record |
//! | 8 | the event's sequence number |
//! | 2 | its shard |
//! | 8 | when it was written, milliseconds since the Unix epoch |
//! | | the record, as postcard writes it |
//!
//! Numbers are little-endian. With mark and checksum, `salvage.rs` finds frames in a damaged file.

use bytes::Bytes;
use jiff::Timestamp;

use super::Position;
use crate::click::record::Record;

/// Begins every frame. Not text, so that no sender's body is full of it.
pub(super) const MARK: [u8; 8] = *b"\x00hbevt2\xff";

/// The length of what comes before the record.
pub(super) const HEAD: usize = 34;

/// A frame whose checksum is right.
pub(super) struct Frame<'b> {
    pub position: Position,
    pub written_ms: i64,
    /// All of it.
    pub bytes: &'b [u8],
}

/// What is wrong with a frame.
#[derive(Debug, thiserror::Error)]
pub enum Damage {
    #[error("its checksum is wrong")]
    Checksum,
    #[error("it cannot be read: {0}")]
    Record(#[from] postcard::Error),
}

/// Writes a frame.
pub(super) fn write(position: Position, now: Timestamp, record: &Record) -> Result<Bytes, Damage> {
    let mut frame = Vec::with_capacity(record.value().len() + 512);
    frame.extend(MARK);
    frame.extend([0; 8]);
    frame.extend(position.sequence.to_le_bytes());
    frame.extend(position.shard.to_le_bytes());
    frame.extend(now.as_millisecond().to_le_bytes());
    let mut frame = postcard::to_extend(record, frame)?;
    let length = u32::try_from(frame.len() - HEAD).unwrap_or(u32::MAX);
    frame[12..16].copy_from_slice(&length.to_le_bytes());
    let checksum = crc32fast::hash(&frame[12..]);
    frame[8..12].copy_from_slice(&checksum.to_le_bytes());
    Ok(frame.into())
}

/// Reads the frame that the bytes begin with; more may follow it.
pub(super) fn read(bytes: &[u8]) -> Option<Frame<'_>> {
    let bytes = bytes.get(..length(bytes)?).filter(|frame| frame.starts_with(&MARK))?;
    if crc32fast::hash(&bytes[12..]) != u32::from_le_bytes(field(bytes, 8)?) {
        return None;
    }
    let sequence = u64::from_le_bytes(field(bytes, 16)?);
    let written_ms = written_ms(bytes)?;
    Some(Frame { position: Position { sequence, shard: shard(bytes)? }, written_ms, bytes })
}

/// The length that the frame says it has; not verified.
pub(super) fn length(bytes: &[u8]) -> Option<usize> {
    HEAD.checked_add(usize::try_from(u32::from_le_bytes(field(bytes, 12)?)).ok()?)
}

/// When the frame says that it was written; not verified.
pub(super) fn written_ms(bytes: &[u8]) -> Option<i64> {
    Some(i64::from_le_bytes(field(bytes, 26)?))
}

/// The shard that the frame says it has; not verified.
pub(super) fn shard(bytes: &[u8]) -> Option<u16> {
    Some(u16::from_le_bytes(field(bytes, 24)?))
}

/// The topic of an event; empty where it cannot be read.
pub(super) fn topic(bytes: &[u8]) -> String {
    let record = read(bytes).and_then(|frame| frame.record().ok());
    record.map_or(String::new(), |record| record.topic().to_string())
}

pub(super) fn field<const LENGTH: usize>(bytes: &[u8], from: usize) -> Option<[u8; LENGTH]> {
    bytes.get(from..)?.first_chunk().copied()
}

impl Frame<'_> {
    pub fn record(&self) -> Result<Record, Damage> {
        Ok(postcard::from_bytes(&self.bytes[HEAD..])?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::click::record::tests::{headers, record_of};

    #[test]
    fn a_record_comes_back_as_it_was() {
        let record = record_of(r#"{"campid":7}"#, "2026-01-10T12:00:00.5Z", None);
        let now: Timestamp = "2026-01-10T12:00:01Z".parse().expect("a time");
        let position = Position { sequence: 9, shard: 77 };
        let mut bytes = write(position, now, &record).expect("a frame").to_vec();
        let length = bytes.len();
        bytes.extend(b"more");
        let frame = read(&bytes).expect("a frame");
        assert_eq!((frame.position, frame.written_ms), (position, now.as_millisecond()));
        assert_eq!(frame.bytes.len(), length);
        let back = frame.record().expect("a record");
        assert_eq!(back.topic(), record.topic());
        assert_eq!((back.key(), back.value()), (record.key(), record.value()));
        assert_eq!(headers(&back), headers(&record));
        assert_eq!(back.timestamp_ms(), record.timestamp_ms());
    }

    #[test]
    fn any_flipped_bit_and_any_missing_byte_is_noticed() {
        let record = record_of(r#"{"campid":7}"#, "2026-01-10T12:00:00.5Z", None);
        let position = Position { sequence: 9, shard: 77 };
        let bytes = write(position, Timestamp::UNIX_EPOCH, &record).expect("a frame");
        for index in 0..bytes.len() {
            let mut damaged = bytes.to_vec();
            damaged[index] ^= 1 << (index % 8);
            assert!(read(&damaged).is_none(), "byte {index}");
            assert!(read(&bytes[..index]).is_none(), "cut at {index}");
        }
    }
}
