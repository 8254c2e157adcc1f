//! Room on disk that is given up when there is no more.

use std::fs::{self, File};
use std::io::{self, Read};
use std::path::Path;

/// A file that is deleted when the disk is full, so that events can still be removed: what has left is noted.
pub(super) const FILE: &str = "reserve";
pub(super) const BYTES: u64 = 4 << 20;

/// Takes room on disk that can be given up when there is no more; with `and_more`, only if there is as
/// much again beside it.
pub(super) fn take(folder: &Path, and_more: bool) -> io::Result<()> {
    let path = folder.join(FILE);
    if fs::metadata(&path).is_ok_and(|reserve| reserve.len() == BYTES) {
        return Ok(());
    }
    // Under another name until it is whole.
    let part = path.with_extension("part");
    let length = if and_more { 2 * BYTES } else { BYTES };
    let write = || {
        let mut file = File::create(&part)?;
        io::copy(&mut io::repeat(0).take(length), &mut file)?;
        file.set_len(BYTES)?;
        file.sync_all()?;
        fs::rename(&part, path)
    };
    write().inspect_err(|_| {
        // A part of it only takes room.
        let _ = fs::remove_file(&part);
        give_up(folder);
    })
}

pub(super) fn give_up(folder: &Path) {
    // If it is not there, there is nothing to give up.
    let _ = fs::remove_file(folder.join(FILE));
}
