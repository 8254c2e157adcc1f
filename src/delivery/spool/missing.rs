//! What was there in the last life and is not: looked for when the store is opened.

use std::io;

use tracing::error;

use super::disk::Disk;
use super::error::StoreError;
use super::manifest::{Listed, Manifest};
use super::segment::{Kind, SegmentDamage};
use super::{notes, reserve};

/// The manifest; if it cannot be read, the segments are what there is.
pub(super) fn read_manifest(
    disk: &dyn Disk,
) -> Result<(Option<Manifest>, Vec<SegmentDamage>), StoreError> {
    match Manifest::read(disk) {
        Ok(manifest) => Ok((manifest, Vec::new())),
        Err(StoreError::Damaged(reason)) => {
            error!(reason, "The spool is damaged; what can be read of it goes on.");
            Ok((None, vec![SegmentDamage::default()]))
        }
        Err(error) => Err(error),
    }
}

pub(super) fn has_reserve(names: &[String]) -> bool {
    let is_segment = |name: &String| {
        [Kind::Waiting, Kind::SetAside].iter().any(|kind| kind.number(name).is_some())
    };
    names.iter().any(|name| name == reserve::FILE) && !names.iter().any(is_segment)
}

/// What was in a segment that is listed and not there.
pub(super) fn gone_segment(
    disk: &dyn Disk,
    names: &[String],
    listed: &Listed,
) -> io::Result<Option<SegmentDamage>> {
    let left = notes::read(disk, names, listed.number, listed.id)?;
    let all = listed.complete.clone().unwrap_or_default();
    let missing = all.events.max(left.synced.0.into()).saturating_sub(left.left.len() as u64);
    notes::remove(disk, listed.number)?;
    // The manifest is written before a segment is deleted: this one was not deleted here.
    Ok((missing > 0 || listed.complete.is_none()).then(|| SegmentDamage {
        segment: listed.number,
        read: 0,
        missing,
        topics: all.topics.into_keys().collect(),
    }))
}
