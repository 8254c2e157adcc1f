//! Room on disk that is given up when there is no more.

use std::io;

use super::disk::Disk;

/// A file that is deleted when the disk is full, so that events can still be removed: what has left is noted.
pub(super) const FILE: &str = "reserve";
pub(super) const BYTES: u64 = 4 << 20;

/// Its name until it is whole.
const PART: &str = "reserve.part";

/// Bytes that are written at once.
const PIECE: usize = 64 << 10;

/// Takes room on disk that can be given up when there is no more; with `and_more`, only if there is as
/// much again beside it.
pub(super) fn take(disk: &dyn Disk, and_more: bool) -> io::Result<()> {
    if disk.open(FILE).and_then(|file| file.length()).is_ok_and(|length| length == BYTES) {
        return Ok(());
    }
    let length = if and_more { 2 * BYTES } else { BYTES };
    let write = || {
        let file = disk.create(PART)?;
        for place in (0..length).step_by(PIECE) {
            file.write(place, &[0; PIECE])?;
        }
        file.truncate(BYTES)?;
        file.sync()?;
        disk.rename(PART, FILE)
    };
    write().inspect_err(|_| {
        // A part of it only takes room.
        let _ = disk.remove(PART);
        give_up(disk);
    })
}

pub(super) fn give_up(disk: &dyn Disk) {
    // If it is not there, there is nothing to give up.
    let _ = disk.remove(FILE);
}
