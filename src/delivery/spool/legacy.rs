//! The spool of versions before segments, one file of redb: it is read and emptied, and nothing is added.
//! The only file that names redb.

use std::fs;
use std::io::ErrorKind;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};

use jiff::Timestamp;
use redb::{
    Database, ReadOnlyDatabase, ReadableDatabase, ReadableTable, ReadableTableMetadata,
    TableDefinition,
};
use tracing::error;

use super::owner::Owner;
use super::salvage::salvage;
use super::{Position, StoreError, frame};

/// Waiting events, by sequence number.
const EVENTS: TableDefinition<u64, &[u8]> = TableDefinition::new("events");
/// Events that neither the topic nor its dead letters take.
const SET_ASIDE: TableDefinition<u64, &[u8]> = TableDefinition::new("set-aside");
/// The sum of the lengths of the waiting events, under the name `bytes`.
const TOTALS: TableDefinition<&str, u64> = TableDefinition::new("totals");

/// The file. Once it is empty a folder has its name, on which an older program fails: it would make a new file
/// and deliver nothing of the segments.
pub(super) const FILE: &str = "spool.redb";

/// What the folder of that name has, for whoever wonders.
const EXPLANATION: &str = "use-a-newer-hookbridge";

/// Pages kept in memory.
const CACHE_BYTES: usize = 16 << 20;

/// The old file, open.
pub(super) struct Legacy {
    database: Database,
    path: PathBuf,
    pub events: u64,
    pub bytes: u64,
    pub last: u64,
}

impl From<redb::Error> for StoreError {
    fn from(error: redb::Error) -> StoreError {
        use ErrorKind::{InvalidData, UnexpectedEof};
        use redb::Error::{Corrupted, DatabaseAlreadyOpen, Io, RepairAborted, UpgradeRequired};
        match error {
            DatabaseAlreadyOpen => StoreError::InUse(Owner::default()),
            Io(error) if !matches!(error.kind(), InvalidData | UnexpectedEof) => error.into(),
            Io(_) | Corrupted(_) | UpgradeRequired(_) | RepairAborted => {
                StoreError::Damaged(error.to_string())
            }
            error => StoreError::Other(error.to_string()),
        }
    }
}

/// Runs something that may meet a damaged file, on which redb may panic.
fn guarded<T>(run: impl FnOnce() -> Result<T, redb::Error>) -> Result<T, StoreError> {
    match catch_unwind(AssertUnwindSafe(run)) {
        Ok(result) => Ok(result?),
        Err(_panic) => Err(StoreError::Damaged("the store cannot make sense of it".into())),
    }
}

/// Whether there is such a file.
pub(super) fn is_there(folder: &Path) -> bool {
    fs::metadata(folder.join(FILE)).is_ok_and(|file| file.is_file())
}

/// Whether an older program uses it.
pub(super) fn is_in_use(folder: &Path) -> bool {
    let opened = guarded(|| Ok(ReadOnlyDatabase::open(folder.join(FILE))?));
    matches!(opened, Err(StoreError::InUse(_)))
}

/// Puts the folder in the place of the old file that keeps older programs out.
pub(super) fn keep_older_programs_out(folder: &Path) -> std::io::Result<()> {
    let path = folder.join(FILE);
    if path.is_dir() {
        return Ok(());
    }
    fs::create_dir(&path)?;
    fs::write(path.join(EXPLANATION), "")
}

impl Legacy {
    /// Opens the file, and verifies every page of it.
    pub fn open(folder: &Path) -> Result<Legacy, StoreError> {
        let path = folder.join(FILE);
        if fs::metadata(&path)?.len() == 0 {
            return Err(StoreError::Damaged("the file is empty".into()));
        }
        let database = guarded(|| {
            let mut builder = Database::builder();
            builder.set_cache_size(CACHE_BYTES).set_check_integrity_on_open(true);
            Ok(builder.open(&path)?)
        })?;
        let mut legacy = Legacy { database, path, events: 0, bytes: 0, last: 0 };
        legacy.count()?;
        Ok(legacy)
    }

    fn count(&mut self) -> Result<(), StoreError> {
        (self.events, self.bytes, self.last) = guarded(|| {
            let transaction = self.database.begin_read()?;
            let events = match transaction.open_table(EVENTS) {
                Err(redb::TableError::TableDoesNotExist(_)) => return Ok((0, 0, 0)),
                events => events?,
            };
            let bytes = transaction.open_table(TOTALS)?.get("bytes")?.map_or(0, |b| b.value());
            let last = events.last()?.map_or(0, |(sequence, _)| sequence.value());
            Ok((events.len()?, bytes, last))
        })?;
        Ok(())
    }

    /// Calls `found` with the waiting events from this sequence number on, as long as it returns true.
    pub fn read(
        &self,
        from: u64,
        found: impl FnMut(Position, &[u8]) -> bool,
    ) -> Result<(), StoreError> {
        self.read_table(EVENTS, from, found)
    }

    /// Calls `found` with the events that were set aside.
    pub fn read_set_aside(
        &self,
        found: impl FnMut(Position, &[u8]) -> bool,
    ) -> Result<(), StoreError> {
        self.read_table(SET_ASIDE, 0, found)
    }

    fn read_table(
        &self,
        table: TableDefinition<u64, &[u8]>,
        from: u64,
        mut found: impl FnMut(Position, &[u8]) -> bool,
    ) -> Result<(), StoreError> {
        guarded(|| {
            let events = match self.database.begin_read()?.open_table(table) {
                Err(redb::TableError::TableDoesNotExist(_)) => return Ok(()),
                events => events?,
            };
            for event in events.range(from..)? {
                let (sequence, frame) = event?;
                let shard = frame::shard(frame.value()).unwrap_or_default();
                if !found(Position { sequence: sequence.value(), shard }, frame.value()) {
                    break;
                }
            }
            Ok(())
        })
    }

    /// Removes events, durably. Says for each whether it was there.
    pub fn remove(&mut self, sequences: &[u64]) -> Result<Vec<bool>, StoreError> {
        let found = guarded(|| {
            let transaction = self.database.begin_write()?;
            let mut found = Vec::with_capacity(sequences.len());
            {
                let mut events = transaction.open_table(EVENTS)?;
                let mut totals = transaction.open_table(TOTALS)?;
                let mut bytes = totals.get("bytes")?.map_or(0, |bytes| bytes.value());
                for sequence in sequences {
                    let before = events.remove(sequence)?;
                    let length = before.as_ref().map(|event| event.value().len() as u64);
                    bytes = bytes.saturating_sub(length.unwrap_or(0));
                    found.push(before.is_some());
                }
                totals.insert("bytes", bytes)?;
            }
            transaction.commit()?;
            Ok(found)
        })?;
        self.count()?;
        Ok(found)
    }

    /// Deletes the file.
    pub fn delete(self) -> std::io::Result<()> {
        drop(self.database);
        fs::remove_file(&self.path)
    }
}

/// Calls `found` with every event that can be read of a damaged file, and then sets the file aside.
pub(super) fn read_damaged(
    folder: &Path,
    frame_max: usize,
    found: impl FnMut(frame::Frame) -> Result<(), StoreError>,
) -> Result<(), StoreError> {
    let path = folder.join(FILE);
    salvage(&path, frame_max, found)?;
    let now = Timestamp::now().strftime("%Y%m%dT%H%M%S%3f");
    let aside = path.with_file_name(format!("damaged-{now}.redb"));
    fs::rename(&path, &aside)?;
    error!(file = %aside.display(), "The damaged file is set aside.");
    Ok(())
}
