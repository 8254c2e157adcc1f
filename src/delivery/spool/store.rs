//! The events on disk: the only file that names redb.
//!
//! Opening is also where damage is dealt with. redb verifies the checksum of every page when it opens
//! a file that was not closed cleanly, and here it is asked to do so always; a file that does not
//! pass is set aside under another name, and what can be read of it goes into a new one.

use std::fs::{self, File};
use std::io::{self, Read};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};

use bytes::Bytes;
use jiff::Timestamp;
use redb::{
    Database, DatabaseError, ReadableDatabase, ReadableTable, ReadableTableMetadata, StorageError,
    Table, TableDefinition,
};
use tracing::error;

use super::frame;
use super::salvage::salvage;

/// Waiting events, by their place in the order.
const EVENTS: TableDefinition<u64, &[u8]> = TableDefinition::new("events");
/// Events that neither the topic nor its dead letters take.
const SET_ASIDE: TableDefinition<u64, &[u8]> = TableDefinition::new("set-aside");
/// Numbers about them: [`BYTES`].
const TOTALS: TableDefinition<&str, u64> = TableDefinition::new("totals");
/// The sum of the lengths of the waiting events.
const BYTES: &str = "bytes";

const FILE: &str = "spool.redb";

/// Room that is given up when the disk is full, so that events can still be removed: a store that
/// never overwrites what is in force needs some pages for every change.
const RESERVE: &str = "reserve";
pub(super) const RESERVE_BYTES: u64 = 4 << 20;

/// Pages kept in memory.
const CACHE_BYTES: usize = 16 << 20;

/// An empty file that is larger than this is made small again.
const COMPACT_BYTES: u64 = 16 << 20;

/// Bytes of events that are copied in one transaction out of a damaged file.
const SALVAGE_BYTES: usize = 4 << 20;

/// The events on disk, open.
pub(super) struct Store {
    database: Database,
    path: PathBuf,
}

/// What a store says of itself.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Totals {
    pub events: u64,
    pub bytes: u64,
    pub set_aside: u64,
    /// When the oldest event was written, milliseconds since the Unix epoch.
    pub oldest_ms: Option<i64>,
    /// The highest place in the order that is taken.
    pub last: u64,
}

/// One change; several are made together, durably, or none of them.
pub(super) enum Change {
    Put { sequence: u64, frame: Bytes },
    Remove { sequence: u64 },
    SetAside { sequence: u64 },
}

/// Why the disk cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    #[error("another process uses it; each needs a folder of its own")]
    InUse,
    #[error("it is damaged: {0}")]
    Damaged(String),
    #[error("{0}")]
    Io(#[from] io::Error),
    #[error("{0}")]
    Other(String),
}

impl StoreError {
    pub fn is_disk_full(&self) -> bool {
        matches!(
            self,
            StoreError::Io(error) if matches!(
                error.kind(),
                io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded
            )
        )
    }
}

impl From<redb::Error> for StoreError {
    fn from(error: redb::Error) -> StoreError {
        match error {
            redb::Error::DatabaseAlreadyOpen => StoreError::InUse,
            redb::Error::Io(error) if error.kind() == io::ErrorKind::InvalidData => {
                StoreError::Damaged(error.to_string())
            }
            redb::Error::Io(error) if error.kind() == io::ErrorKind::UnexpectedEof => {
                StoreError::Damaged(error.to_string())
            }
            redb::Error::Io(error) => StoreError::Io(error),
            redb::Error::Corrupted(_)
            | redb::Error::UpgradeRequired(_)
            | redb::Error::RepairAborted => StoreError::Damaged(error.to_string()),
            error => StoreError::Other(error.to_string()),
        }
    }
}

/// Every error of redb's own by its common type.
macro_rules! from_redb {
    ($($error:ty),*) => {$(
        impl From<$error> for StoreError {
            fn from(error: $error) -> StoreError {
                redb::Error::from(error).into()
            }
        }
    )*};
}
from_redb!(
    DatabaseError,
    StorageError,
    redb::TransactionError,
    redb::TableError,
    redb::CommitError,
    redb::CompactionError
);

/// Runs something that may meet a damaged file: the store may panic on one.
fn guarded<T>(run: impl FnOnce() -> Result<T, StoreError>) -> Result<T, StoreError> {
    catch_unwind(AssertUnwindSafe(run))
        .unwrap_or_else(|_| Err(StoreError::Damaged("the store cannot make sense of it".into())))
}

impl Store {
    /// Opens the store in this folder, or makes it. Calls `damaged` if its file had to be set aside.
    pub fn open(
        folder: &Path,
        frame_max: usize,
        damaged: impl FnOnce(),
    ) -> Result<Store, StoreError> {
        fs::create_dir_all(folder)?;
        let path = folder.join(FILE);
        match Store::open_file(&path) {
            Err(StoreError::Damaged(reason)) => {
                error!(reason, "The spool is damaged; what can be read of it goes on.");
                let aside = Store::mend(&path, frame_max)?;
                error!(file = %aside.display(), "The damaged file is set aside.");
                damaged();
                Store::open_file(&path)
            }
            opened => opened,
        }
    }

    /// Puts everything that can be read of a damaged file into a new one, and that in its position. Until
    /// it is there, whole and durable, the damaged file stays where it is: this can be tried again.
    /// Returns the damaged file's new name.
    fn mend(path: &Path, frame_max: usize) -> Result<PathBuf, StoreError> {
        let new = path.with_extension("new");
        let _ = fs::remove_file(&new);
        let filled = Store::open_file(&new).and_then(|store| store.fill_from(path, frame_max));
        let events = filled.inspect_err(|_| drop(fs::remove_file(&new)))?;
        let now = Timestamp::now().strftime("%Y%m%dT%H%M%S%3f");
        let aside = path.with_file_name(format!("damaged-{now}.redb"));
        fs::hard_link(path, &aside)?;
        fs::rename(&new, path)?;
        sync_folder(path)?;
        error!(events, "Events were read out of the damaged spool.");
        Ok(aside)
    }

    /// Opens a store that is there, without setting anything aside.
    pub fn look_into(folder: &Path) -> Result<Store, StoreError> {
        let path = folder.join(FILE);
        fs::metadata(&path)?;
        Store::open_file(&path)
    }

    fn open_file(path: &Path) -> Result<Store, StoreError> {
        let is_new = !path.exists();
        let database = guarded(|| {
            let mut builder = Database::builder();
            builder.set_cache_size(CACHE_BYTES).set_check_integrity_on_open(true);
            let database = builder.create(path)?;
            // Says at once whether the disk can be written.
            let transaction = database.begin_write()?;
            transaction.open_table(EVENTS)?;
            transaction.open_table(SET_ASIDE)?;
            transaction.open_table(TOTALS)?;
            transaction.commit()?;
            Ok(database)
        })?;
        if is_new {
            sync_folder(path)?;
        }
        Ok(Store { database, path: path.to_owned() })
    }

    /// Puts everything that can be read of a damaged file into this store. Returns how much that is.
    fn fill_from(self, damaged: &Path, frame_max: usize) -> Result<u64, StoreError> {
        let (mut batch, mut bytes) = (Vec::new(), 0);
        salvage(damaged, frame_max, |sequence, frame| {
            bytes += frame.len();
            batch.push(Change::Put { sequence, frame: Bytes::copy_from_slice(frame) });
            if bytes >= SALVAGE_BYTES {
                self.apply(&std::mem::take(&mut batch))?;
                bytes = 0;
            }
            Ok::<_, StoreError>(())
        })?;
        self.apply(&batch)?;
        Ok(self.totals()?.events)
    }

    /// Makes all changes durable, or none. Returns for each whether there was an event at its place
    /// before.
    pub fn apply(&self, changes: &[Change]) -> Result<Vec<bool>, StoreError> {
        guarded(|| {
            let mut found = Vec::with_capacity(changes.len());
            let transaction = self.database.begin_write()?;
            {
                let mut events = transaction.open_table(EVENTS)?;
                let mut set_aside = transaction.open_table(SET_ASIDE)?;
                let mut totals = transaction.open_table(TOTALS)?;
                let mut bytes = totals.get(BYTES)?.map_or(0, |bytes| bytes.value());
                for change in changes {
                    let before = match change {
                        Change::Put { sequence, frame } => {
                            bytes += frame.len() as u64;
                            length(events.insert(sequence, &**frame)?)
                        }
                        Change::Remove { sequence } => length(events.remove(sequence)?),
                        Change::SetAside { sequence } => {
                            move_event(&mut events, &mut set_aside, *sequence)?
                        }
                    };
                    bytes = bytes.saturating_sub(before.unwrap_or(0));
                    found.push(before.is_some());
                }
                totals.insert(BYTES, bytes)?;
            }
            transaction.commit()?;
            Ok(found)
        })
    }

    /// The waiting events from this place on, at most so many, as long as `found` wants more.
    pub fn read(
        &self,
        from: u64,
        count: usize,
        mut found: impl FnMut(u64, &[u8]) -> bool,
    ) -> Result<(), StoreError> {
        guarded(|| {
            let events = self.database.begin_read()?.open_table(EVENTS)?;
            for event in events.range(from..)?.take(count) {
                let (sequence, frame) = event?;
                if !found(sequence.value(), frame.value()) {
                    break;
                }
            }
            Ok(())
        })
    }

    pub fn totals(&self) -> Result<Totals, StoreError> {
        guarded(|| {
            let transaction = self.database.begin_read()?;
            let events = transaction.open_table(EVENTS)?;
            let set_aside = transaction.open_table(SET_ASIDE)?;
            let bytes = transaction.open_table(TOTALS)?.get(BYTES)?.map_or(0, |b| b.value());
            let oldest = events.first()?;
            let oldest = oldest.and_then(|(_, frame)| Some(frame::read(frame.value())?.written_ms));
            let last = |last: Option<(redb::AccessGuard<u64>, _)>| last.map_or(0, |l| l.0.value());
            Ok(Totals {
                events: events.len()?,
                bytes,
                set_aside: set_aside.len()?,
                oldest_ms: oldest,
                last: last(events.last()?).max(last(set_aside.last()?)),
            })
        })
    }

    /// Gives the disk back what an outage took, once nothing waits any more; also a little, if it is
    /// needed.
    pub fn tidy(&mut self, is_needed: bool) -> Result<(), StoreError> {
        if is_needed || fs::metadata(&self.path)?.len() > COMPACT_BYTES {
            guarded(|| Ok(self.database.compact().map(drop)?))?;
        }
        Ok(())
    }
}

fn length(event: Option<redb::AccessGuard<&[u8]>>) -> Option<u64> {
    event.map(|event| event.value().len() as u64)
}

/// Moves an event to another table and returns its length, if it is there.
fn move_event(
    from: &mut Table<u64, &[u8]>,
    to: &mut Table<u64, &[u8]>,
    sequence: u64,
) -> Result<Option<u64>, StorageError> {
    let Some(event) = from.remove(sequence)? else { return Ok(None) };
    to.insert(sequence, event.value())?;
    Ok(Some(event.value().len() as u64))
}

/// Makes the names in a file's folder survive a power cut, as its content does.
fn sync_folder(path: &Path) -> io::Result<()> {
    path.parent().map_or(Ok(()), |folder| File::open(folder)?.sync_all())
}

/// Takes room on disk that can be given up when there is no more; with `and_more`, only if there is as
/// much again beside it.
pub(super) fn take_reserve(folder: &Path, and_more: bool) -> io::Result<()> {
    let path = folder.join(RESERVE);
    if fs::metadata(&path).is_ok_and(|reserve| reserve.len() == RESERVE_BYTES) {
        return Ok(());
    }
    let written = write_reserve(&path, if and_more { 2 } else { 1 });
    if written.is_err() {
        // A part of it only takes room.
        give_up_reserve(folder);
    }
    written
}

fn write_reserve(path: &Path, times: u64) -> io::Result<()> {
    // Under another name until it is whole.
    let part = path.with_extension("part");
    let mut file = File::create(&part)?;
    let taken = io::copy(&mut io::repeat(0).take(times * RESERVE_BYTES), &mut file)
        .and_then(|_| file.set_len(RESERVE_BYTES))
        .and_then(|()| file.sync_all())
        .and_then(|()| fs::rename(&part, path));
    if taken.is_err() {
        let _ = fs::remove_file(&part);
    }
    taken
}

pub(super) fn give_up_reserve(folder: &Path) {
    // If it is not there, there is nothing to give up.
    let _ = fs::remove_file(folder.join(RESERVE));
}
