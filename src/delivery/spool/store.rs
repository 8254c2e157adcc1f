//! The events on disk: the only file that names redb.
//!
//! Opening also deals with damage. redb verifies the checksum of every page of a file that was not
//! closed cleanly, and here it is asked to do so always; a file that does not pass is set aside under
//! another name, and every event in it that can be read goes into a new one.

use std::fs::{self, File};
use std::io::{self, ErrorKind, Read};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};

use bytes::Bytes;
use jiff::Timestamp;
use redb::{
    Database, ReadOnlyDatabase, ReadableDatabase, ReadableTable, ReadableTableMetadata,
    TableDefinition,
};
use tracing::error;

use super::owner::{Owner, OwnerFile};
use super::salvage::salvage;
use super::{Position, frame};

/// Waiting events, by sequence number.
const EVENTS: TableDefinition<u64, &[u8]> = TableDefinition::new("events");
/// Events that neither the topic nor its dead letters take.
const SET_ASIDE: TableDefinition<u64, &[u8]> = TableDefinition::new("set-aside");
/// Figures about them, by name.
const TOTALS: TableDefinition<&str, u64> = TableDefinition::new("totals");
/// The sum of the lengths of the waiting events.
const BYTES: &str = "bytes";

pub(super) const FILE: &str = "spool.redb";

/// A file that is deleted when the disk is full, so that events can still be removed: a store that
/// never overwrites what is in force needs some pages for every change.
pub(super) const RESERVE: &str = "reserve";
pub(super) const RESERVE_BYTES: u64 = 4 << 20;

/// Pages kept in memory.
const CACHE_BYTES: usize = 16 << 20;

/// An empty file that is larger than this is compacted.
const COMPACT_BYTES: u64 = 16 << 20;

/// Bytes of events that are copied in one transaction out of a damaged file.
const SALVAGE_BYTES: usize = 4 << 20;

/// The events on disk, open.
pub(super) struct Store {
    /// Removed before the lock is given up. None while a damaged file is read into this one.
    _owner: Option<OwnerFile>,
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
    /// The highest sequence number in use.
    pub last: u64,
}

/// A change of one event; several are made together, durably, or none of them.
pub(super) struct Change {
    pub position: Position,
    pub action: Action,
}

pub(super) enum Action {
    /// Writes this frame.
    Put(Bytes),
    Remove,
    SetAside,
}

impl Change {
    pub fn frame_length(&self) -> usize {
        if let Action::Put(frame) = &self.action { frame.len() } else { 0 }
    }
}

/// Why the disk cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    #[error("{0} uses it; each process needs a folder of its own")]
    InUse(Owner),
    #[error("it is damaged: {0}")]
    Damaged(String),
    #[error("{0}")]
    Io(#[from] io::Error),
    #[error("{0}")]
    Other(String),
}

impl StoreError {
    pub(super) fn is_disk_full(&self) -> bool {
        let StoreError::Io(error) = self else { return false };
        matches!(error.kind(), ErrorKind::StorageFull | ErrorKind::QuotaExceeded)
    }
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

impl Store {
    /// Opens the store in this folder, or makes it. Calls `damaged` if its file was damaged.
    pub fn open(
        folder: &Path,
        frame_max: usize,
        damaged: impl FnOnce(),
    ) -> Result<Store, StoreError> {
        fs::create_dir_all(folder)?;
        let path = folder.join(FILE);
        let mut opened = Store::open_file(&path);
        if let Err(StoreError::Damaged(reason)) = &opened {
            error!(reason, "The spool is damaged; what can be read of it goes on.");
            Store::mend(&path, frame_max)?;
            damaged();
            opened = Store::open_file(&path);
        }
        Store::owned(opened, folder)
    }

    /// Writes every event that can be read of a damaged file to a new one, and puts that in its place.
    /// Until the new one is durable the damaged file stays where it is: this can be tried again.
    fn mend(path: &Path, frame_max: usize) -> Result<(), StoreError> {
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
        error!(file = %aside.display(), "The damaged file is set aside.");
        Ok(())
    }

    /// Opens a store that exists, without mending it.
    pub fn open_existing(folder: &Path) -> Result<Store, StoreError> {
        let path = folder.join(FILE);
        fs::metadata(&path)?;
        Store::owned(Store::open_file(&path), folder)
    }

    /// Says in the folder that this process uses the store, or finds out which one does.
    fn owned(opened: Result<Store, StoreError>, folder: &Path) -> Result<Store, StoreError> {
        match opened {
            Ok(store) => Ok(Store { _owner: Some(OwnerFile::write(folder)), ..store }),
            Err(StoreError::InUse(_)) => Err(StoreError::InUse(Owner::read(folder))),
            Err(error) => Err(error),
        }
    }

    /// Who uses the store in this folder, if anybody does. Changes nothing.
    pub fn owner(folder: &Path) -> Option<Owner> {
        let opened = guarded(|| Ok(ReadOnlyDatabase::open(folder.join(FILE))?));
        matches!(opened, Err(StoreError::InUse(_))).then(|| Owner::read(folder))
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
        Ok(Store { _owner: None, database, path: path.to_owned() })
    }

    /// Puts everything that can be read of a damaged file into this store. Returns how many events.
    fn fill_from(self, damaged: &Path, frame_max: usize) -> Result<u64, StoreError> {
        let (mut batch, mut bytes) = (Vec::new(), 0);
        salvage(damaged, frame_max, |frame| {
            bytes += frame.bytes.len();
            let action = Action::Put(Bytes::copy_from_slice(frame.bytes));
            batch.push(Change { position: frame.position, action });
            if bytes >= SALVAGE_BYTES {
                self.apply(&std::mem::take(&mut batch))?;
                bytes = 0;
            }
            Ok::<_, StoreError>(())
        })?;
        self.apply(&batch)?;
        Ok(self.totals()?.events)
    }

    /// Makes all changes durable, or none. Returns for each whether its event was there before.
    pub fn apply<'a>(
        &self,
        changes: impl IntoIterator<Item = &'a Change>,
    ) -> Result<Vec<bool>, StoreError> {
        guarded(|| {
            let mut found = Vec::new();
            let transaction = self.database.begin_write()?;
            {
                let mut events = transaction.open_table(EVENTS)?;
                let mut set_aside = transaction.open_table(SET_ASIDE)?;
                let mut totals = transaction.open_table(TOTALS)?;
                let mut bytes = totals.get(BYTES)?.map_or(0, |bytes| bytes.value());
                for Change { position: Position { sequence, .. }, action } in changes {
                    let before = match action {
                        Action::Put(frame) => {
                            bytes += frame.len() as u64;
                            events.insert(sequence, &**frame)?
                        }
                        Action::Remove => events.remove(sequence)?,
                        Action::SetAside => {
                            let event = events.remove(sequence)?;
                            if let Some(event) = &event {
                                set_aside.insert(sequence, event.value())?;
                            }
                            event
                        }
                    };
                    let length = before.as_ref().map(|event| event.value().len() as u64);
                    bytes = bytes.saturating_sub(length.unwrap_or(0));
                    found.push(before.is_some());
                }
                totals.insert(BYTES, bytes)?;
            }
            transaction.commit()?;
            Ok(found)
        })
    }

    /// Calls `found` with the waiting events from this sequence number on, as long as it returns true.
    pub fn read(
        &self,
        from: u64,
        mut found: impl FnMut(Position, &[u8]) -> bool,
    ) -> Result<(), StoreError> {
        guarded(|| {
            let events = self.database.begin_read()?.open_table(EVENTS)?;
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

    /// Calls `found` with the events set aside, as long as it returns true.
    pub fn read_set_aside(&self, mut found: impl FnMut(&[u8]) -> bool) -> Result<(), StoreError> {
        guarded(|| {
            let events = self.database.begin_read()?.open_table(SET_ASIDE)?;
            for event in events.iter()? {
                if !found(event?.1.value()) {
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

    /// Gives the disk back what the store does not need, if that is much or `is_needed`.
    pub fn compact(&mut self, is_needed: bool) -> Result<(), StoreError> {
        if is_needed || fs::metadata(&self.path)?.len() > COMPACT_BYTES {
            guarded(|| Ok(self.database.compact().map(drop)?))?;
        }
        Ok(())
    }
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
    // Under another name until it is whole.
    let part = path.with_extension("part");
    let length = if and_more { 2 * RESERVE_BYTES } else { RESERVE_BYTES };
    let write = || {
        let mut file = File::create(&part)?;
        io::copy(&mut io::repeat(0).take(length), &mut file)?;
        file.set_len(RESERVE_BYTES)?;
        file.sync_all()?;
        fs::rename(&part, path)
    };
    write().inspect_err(|_| {
        // A part of it only takes room.
        let _ = fs::remove_file(&part);
        give_up_reserve(folder);
    })
}

pub(super) fn give_up_reserve(folder: &Path) {
    // If it is not there, there is nothing to give up.
    let _ = fs::remove_file(folder.join(RESERVE));
}
