//! What an earlier version left: looked at when the store is opened.

use std::collections::HashSet;
use std::path::Path;

use tracing::{error, info};

use super::Position;
use super::error::StoreError;
use super::frame;
use super::legacy::{self, Legacy};
use super::segment::{Checked, Kind, NewEvent, SegmentDamage};
use super::series::Append;
use super::store::Store;

impl Store {
    pub(super) fn open_legacy(&mut self, frame_max: usize) -> Result<(), StoreError> {
        let disk = self.disk.clone();
        let Some(folder) = disk.path() else { return Ok(()) };
        match Legacy::open(folder) {
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
                self.salvage_legacy(folder, frame_max)
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
        self.append_frames(Kind::SetAside, &adopted)
    }

    /// Writes every event that can be read of a damaged file of an earlier version into a segment.
    fn salvage_legacy(&mut self, folder: &Path, frame_max: usize) -> Result<(), StoreError> {
        const BATCH: usize = 4 << 20;
        let (mut batch, mut bytes, mut events) = (Vec::new(), 0, 0);
        // A page that was copied may be there twice.
        let mut seen = HashSet::new();
        legacy::read_damaged(folder, frame_max, |frame| {
            if !seen.insert(frame.position.sequence) {
                return Ok(());
            }
            bytes += frame.bytes.len();
            batch.push((frame.position, frame.bytes.to_vec()));
            if bytes >= BATCH {
                bytes = 0;
                events += batch.len();
                self.append_frames(Kind::Waiting, &std::mem::take(&mut batch))?;
            }
            Ok(())
        })?;
        events += batch.len();
        self.append_frames(Kind::Waiting, &batch)?;
        error!(events, "Events were read out of the damaged spool.");
        let shards = Vec::new();
        self.legacy_checked.push(Checked { shards, damage: Some(SegmentDamage::default()) });
        Ok(())
    }

    fn append_frames(
        &mut self,
        which: Kind,
        frames: &[(Position, Vec<u8>)],
    ) -> Result<(), StoreError> {
        if frames.is_empty() {
            return Ok(());
        }
        let topics: Vec<String> = frames.iter().map(|(_, frame)| frame::topic(frame)).collect();
        let mut events: Vec<NewEvent> = frames
            .iter()
            .zip(&topics)
            .map(|((position, frame), topic)| NewEvent { entry: *position, frame, topic })
            .collect();
        self.append(which, &mut events).map_err(Append::into_error)?;
        if which == Kind::Waiting {
            let shards = frames.iter().map(|(position, _)| position.shard()).collect();
            self.legacy_checked.push(Checked { shards, damage: None });
        }
        Ok(())
    }
}
