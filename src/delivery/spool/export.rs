//! Reads the events of a spool that no bridge uses, or of one file, for `hookbridge spool export`.

use std::collections::HashMap;
use std::io;
use std::path::Path;
use std::time::Duration;

use super::contents::{each_event, not_in_use};
use super::error::StoreError;
use super::salvage::salvage;
use super::segment::Kind;
use super::{frame, when_free};
use crate::click::record::Record;

/// A frame of a file may claim to be so long: the settings allow bodies of 100 MiB.
const FRAME_MAX: usize = 128 << 20;

/// What is read.
#[derive(Debug, Clone, Copy)]
pub enum ExportSource<'p> {
    /// A spool's folder: what waits, in its order, and then what is set aside, or that alone.
    Folder { folder: &'p Path, is_only_set_aside: bool },
    /// Whatever can be read of a file, damaged or not, also while a bridge uses it. Some of it may have
    /// left the spool. An event that is in the file twice is read once.
    File(&'p Path),
}

/// Calls `found` with each event, None for one that cannot be read any more, as long as it returns true.
/// Waits for `patience` while a bridge uses the folder. No event is changed or removed.
///
/// # Errors
///
/// There is no spool, or a process uses it for longer than `patience`, or it is damaged as a whole.
pub async fn export(
    source: ExportSource<'_>,
    patience: Duration,
    mut found: impl FnMut(Option<Record>) -> bool,
) -> Result<(), StoreError> {
    let (folder, is_only_set_aside) = match source {
        ExportSource::Folder { folder, is_only_set_aside } => (folder, is_only_set_aside),
        ExportSource::File(path) => return export_file(path, found),
    };
    when_free(patience, || not_in_use(folder)).await?;
    let kinds =
        if is_only_set_aside { &[Kind::SetAside][..] } else { &[Kind::Waiting, Kind::SetAside] };
    for which in kinds {
        let mut is_wanted = true;
        let missing = each_event(folder, *which, |bytes, _| {
            is_wanted = found(frame::read(bytes).and_then(|frame| frame.record().ok()));
            is_wanted
        })?;
        if !is_wanted || (0..missing).any(|_| !found(None)) {
            return Ok(());
        }
    }
    Ok(())
}

/// Why the reading of a file ended before its end.
enum Ended {
    Unwanted,
    Failed(io::Error),
}

impl From<io::Error> for Ended {
    fn from(error: io::Error) -> Ended {
        Ended::Failed(error)
    }
}

fn export_file(
    path: &Path,
    mut found: impl FnMut(Option<Record>) -> bool,
) -> Result<(), StoreError> {
    let mut seen = SequenceSet::default();
    let read = salvage(path, FRAME_MAX, |frame| {
        let is_new = seen.insert(frame.position.sequence);
        if !is_new || found(frame.record().ok()) { Ok(()) } else { Err(Ended::Unwanted) }
    });
    match read {
        Ok(()) | Err(Ended::Unwanted) => Ok(()),
        Err(Ended::Failed(error)) => Err(error.into()),
    }
}

/// Sequence numbers: a bit for each, because those of a process follow each other.
#[derive(Default)]
struct SequenceSet(HashMap<u64, u64>);

impl SequenceSet {
    /// Whether the number was not in it.
    fn insert(&mut self, sequence: u64) -> bool {
        let bits = self.0.entry(sequence / 64).or_default();
        let bit = 1 << (sequence % 64);
        let is_new = *bits & bit == 0;
        *bits |= bit;
        is_new
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sequence_number_is_new_once() {
        let mut seen = SequenceSet::default();
        let numbers = [0, 63, 64, 1 << 60, u64::MAX];
        assert!(numbers.iter().all(|number| seen.insert(*number)));
        assert!(!numbers.iter().any(|number| seen.insert(*number)));
        assert!(seen.insert(62) && seen.insert(65));
    }
}
