//! Finds every whole frame in a damaged file, wherever it lies and whatever the store makes of the rest.
//!
//! Pages that the store had freed may still hold events that Kafka has already: those are delivered
//! again, with the same event id. No event that is still whole is lost.

use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

use super::frame::{self, Frame, HEAD, MARK};

/// How much of the file is read at once.
const PIECE: usize = 4 << 20;

/// Calls `found` with every whole frame of the file. `length_max` bounds the length that a frame that is
/// cut off may claim.
pub(super) fn salvage<E: From<io::Error>>(
    path: &Path,
    length_max: usize,
    mut found: impl FnMut(Frame) -> Result<(), E>,
) -> Result<(), E> {
    let mut file = File::open(path)?;
    let mut window: Vec<u8> = Vec::new();
    loop {
        let is_last = file.by_ref().take(PIECE as u64).read_to_end(&mut window)? == 0;
        let mut from = 0;
        // Where a frame may begin that goes on in the next piece.
        let mut rest = window.len();
        while let Some(offset) = memchr::memmem::find(&window[from..], &MARK) {
            let start = from + offset;
            let bytes = &window[start..];
            if let Some(frame) = frame::read(bytes) {
                from = start + frame.bytes.len();
                found(frame)?;
                continue;
            }
            let may_go_on = bytes.len() < HEAD
                || frame::length(bytes).is_some_and(|l| l > bytes.len() && l <= length_max);
            if may_go_on && !is_last {
                rest = start;
                break;
            }
            from = start + 1;
        }
        if is_last {
            return Ok(());
        }
        // The mark itself may lie across the end.
        let keep = rest.min(window.len().saturating_sub(MARK.len() - 1)).max(from);
        window.drain(..keep);
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::super::Position;
    use super::*;
    use crate::click::record::tests::record_of;

    #[test]
    fn whole_frames_are_found_between_anything_else() {
        let record = record_of(r#"{"campid":7}"#, "2026-01-10T12:00:00.5Z", None);
        let frame = |sequence| {
            let position = Position { sequence, shard: 0 };
            frame::write(position, jiff::Timestamp::UNIX_EPOCH, &record).expect("a frame")
        };
        let mut file = tempfile::NamedTempFile::new().expect("a file");
        // One at the beginning, one across the pieces, one damaged, one cut off, one at the end.
        let mut bytes = frame(1).to_vec();
        bytes.resize(PIECE - 20, b'x');
        bytes.extend(frame(2));
        let mut damaged = frame(3).to_vec();
        damaged[40] ^= 1;
        bytes.extend(damaged);
        bytes.extend(&frame(4)[..100]);
        bytes.extend(frame(5));
        file.write_all(&bytes).expect("written");
        let mut numbers = Vec::new();
        salvage(file.path(), 1 << 20, |found| {
            let number = found.position.sequence;
            assert_eq!(found.bytes, frame(number));
            numbers.push(number);
            io::Result::Ok(())
        })
        .expect("read");
        assert_eq!(numbers, [1, 2, 5]);
    }
}
