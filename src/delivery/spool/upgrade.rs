//! What an earlier version left, and what is missing since the last life: looked at when the store is opened.

use std::io;

use tracing::{error, info};

use super::disk::Disk;
use super::legacy::{self, Legacy};
use super::manifest::{Listed, Manifest};
use super::segment::{Checked, Kind, NewEvent, SegmentDamage};
use super::series::Append;
use super::store::{Store, StoreError, Which, topic_of};
use super::{Position, notes, reserve};

impl Store {
    pub(super) fn open_legacy(&mut self, frame_max: usize) -> Result<(), StoreError> {
        match Legacy::open(&self.folder) {
            Ok(legacy) => {
                let mut shards = Vec::new();
                legacy.read(0, |position, _| {
                    shards.push(position.shard());
                    true
                })?;
                self.legacy_checked.push(Checked { shards, damage: None });
                self.adopt_set_aside(&legacy)?;
                info!(events = legacy.events, "The spool of an earlier version is read.");
                self.legacy = Some(legacy);
                Ok(())
            }
            Err(StoreError::Damaged(reason)) => {
                error!(reason, "The spool is damaged; what can be read of it goes on.");
                self.salvage_legacy(frame_max)
            }
            Err(error) => Err(error),
        }
    }

    /// Takes over what an earlier version had set aside.
    fn adopt_set_aside(&mut self, legacy: &Legacy) -> Result<(), StoreError> {
        let mut frames = Vec::new();
        legacy.read_set_aside(|position, bytes| {
            frames.push((position, bytes.to_vec()));
            true
        })?;
        let mut adopted = Vec::new();
        for (position, bytes) in frames {
            // The old file keeps them until it is deleted, and this may happen again.
            if !self.set_aside.has(&*self.disk, position.sequence, &mut self.next_id)? {
                adopted.push((position, bytes));
            }
        }
        if adopted.is_empty() {
            return Ok(());
        }
        let topics: Vec<String> = adopted.iter().map(|(_, bytes)| topic_of(bytes)).collect();
        let mut events: Vec<NewEvent> = adopted
            .iter()
            .zip(&topics)
            .map(|((position, frame), topic)| NewEvent { entry: *position, frame, topic })
            .collect();
        self.append(Which::SetAside, &mut events).map_err(Append::into_error)
    }

    /// Writes every event that can be read of a damaged file of an earlier version into a segment.
    fn salvage_legacy(&mut self, frame_max: usize) -> Result<(), StoreError> {
        const BATCH: usize = 4 << 20;
        let (mut batch, mut bytes, mut events) = (Vec::new(), 0, 0);
        let folder = self.folder.clone();
        legacy::read_damaged(&folder, frame_max, |frame| {
            bytes += frame.bytes.len();
            batch.push((frame.position, frame.bytes.to_vec()));
            if bytes >= BATCH {
                bytes = 0;
                events += batch.len();
                self.append_frames(&std::mem::take(&mut batch))?;
            }
            Ok(())
        })?;
        events += batch.len();
        self.append_frames(&batch)?;
        error!(events, "Events were read out of the damaged spool.");
        let shards = Vec::new();
        self.legacy_checked.push(Checked { shards, damage: Some(SegmentDamage::default()) });
        Ok(())
    }

    fn append_frames(&mut self, frames: &[(Position, Vec<u8>)]) -> Result<(), StoreError> {
        if frames.is_empty() {
            return Ok(());
        }
        let topics: Vec<String> = frames.iter().map(|(_, frame)| topic_of(frame)).collect();
        let mut events: Vec<NewEvent> = frames
            .iter()
            .zip(&topics)
            .map(|((position, frame), topic)| NewEvent { entry: *position, frame, topic })
            .collect();
        self.append(Which::Waiting, &mut events).map_err(Append::into_error)?;
        let shards = frames.iter().map(|(position, _)| position.shard()).collect();
        self.legacy_checked.push(Checked { shards, damage: None });
        Ok(())
    }
}

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
