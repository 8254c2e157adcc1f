//! A disk in memory that fails, forgets and loses its power, for tests.
//!
//! What was written and not synced is lost in a power cut, in any part and order: each page of a file, and each
//! change of a name, by itself. What was written and not synced survives the end of the process.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard};

use super::{Disk, DiskFile, FolderLock, StoreError};
use crate::delivery::spool::reserve;
use crate::observe::lock;

const PAGE: usize = 4_096;

/// What happens at one sync of a history.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::delivery) enum SyncFault {
    /// It fails, and what it covered counts as clean: the next sync succeeds without it.
    Forgets,
    /// The same, and what it covered is read from the disk again.
    ForgetsAndEvicts,
    /// The power goes just before it.
    PowerCut,
    /// The same, when a part of what was written had come to the disk by itself.
    TornPowerCut,
    /// The disk is full at the write before it.
    Full,
}

/// What a disk does for a while.
#[derive(Debug, Clone, Copy, Default)]
pub(in crate::delivery) struct DiskTrouble {
    /// No more bytes than these fit.
    pub capacity: Option<u64>,
    /// One in so many syncs fails, and forgets; 0 for none.
    pub failing_syncs: u32,
    pub fails_reads: bool,
    pub fails_writes: bool,
}

/// Called with bytes.
type OnSync = Box<dyn Fn(&[u8]) + Send>;

#[derive(Default)]
pub(in crate::delivery) struct DiskState {
    pub names: BTreeMap<String, usize>,
    durable_names: BTreeMap<String, usize>,
    /// Changes of names since those were last synced.
    changes: Vec<NameChange>,
    pub files: Vec<FileState>,
    pub syncs: usize,
    /// What happens at the sync of this number.
    pub fault: Option<(usize, SyncFault)>,
    pub trouble: DiskTrouble,
    /// Nothing works until the next life.
    pub has_no_power: bool,
    /// Decides what a power cut takes, and which syncs fail; without it every other page is taken.
    pub random: Option<fastrand::Rng>,
    /// Called with the bytes that a sync has made durable.
    pub on_sync: Option<OnSync>,
}

#[derive(Clone)]
enum NameChange {
    Set(String, usize),
    Rename(String, String),
    Remove(String),
}

#[derive(Default, Clone)]
pub(in crate::delivery) struct FileState {
    pub cached: Vec<u8>,
    durable: Vec<u8>,
    dirty: BTreeSet<usize>,
    /// The length of a file of which only the length matters.
    hollow: Option<u64>,
}

#[derive(Clone, Default)]
pub(in crate::delivery) struct SimulatedDisk(Arc<Mutex<DiskState>>);

struct SimulatedFile(SimulatedDisk, usize);

struct Unlocked;

impl FolderLock for Unlocked {
    fn sign(&mut self) {}
}

impl SimulatedDisk {
    pub fn state(&self) -> MutexGuard<'_, DiskState> {
        lock(&self.0)
    }

    /// Takes the power away, with what was not synced, and brings it back.
    pub fn cut_power(&self) {
        let state = &mut *self.state();
        let is_torn = state.random.is_some()
            || state.fault.is_some_and(|(_, fault)| fault == SyncFault::TornPowerCut);
        let mut random = state.random.take();
        let mut survives = |page: usize| match &mut random {
            Some(random) => random.bool(),
            None => page.is_multiple_of(2),
        };
        if is_torn {
            for (number, change) in state.changes.drain(..).enumerate() {
                if survives(2 * number) {
                    change.apply(&mut state.durable_names);
                }
            }
        }
        state.changes.clear();
        state.names.clone_from(&state.durable_names);
        for (number, file) in state.files.iter_mut().enumerate() {
            if is_torn && !file.dirty.is_empty() {
                let pages = file.dirty.iter().filter(|page| survives(*page + number));
                for page in pages.copied().collect::<Vec<_>>() {
                    file.keep(page);
                }
                let more = file.cached.len().saturating_sub(file.durable.len());
                if more > 0 && survives(number) {
                    // The length may have come to the disk without the bytes.
                    file.durable.resize(file.cached.len(), 0);
                }
            }
            file.cached.clone_from(&file.durable);
            file.dirty.clear();
        }
        (state.random, state.has_no_power, state.fault) = (random, false, None);
    }
}

impl NameChange {
    fn apply(self, names: &mut BTreeMap<String, usize>) {
        match self {
            NameChange::Set(name, number) => drop(names.insert(name, number)),
            NameChange::Remove(name) => drop(names.remove(&name)),
            NameChange::Rename(from, to) => {
                if let Some(number) = names.remove(&from) {
                    names.insert(to, number);
                }
            }
        }
    }
}

impl FileState {
    fn pages(&self, page: usize) -> std::ops::Range<usize> {
        (page * PAGE).min(self.cached.len())..((page + 1) * PAGE).min(self.cached.len())
    }

    /// Makes a page durable.
    fn keep(&mut self, page: usize) {
        let range = self.pages(page);
        self.durable.resize(self.durable.len().max(range.end), 0);
        self.durable[range.clone()].copy_from_slice(&self.cached[range]);
    }

    fn length(&self) -> u64 {
        self.hollow.unwrap_or(self.cached.len() as u64)
    }
}

impl DiskState {
    /// Counts a sync. Returns the fault that happens at it.
    fn sync(&mut self) -> Option<SyncFault> {
        self.syncs += 1;
        let fault = self.fault.filter(|(at, _)| *at == self.syncs).map(|(_, fault)| fault);
        self.has_no_power |= matches!(fault, Some(SyncFault::PowerCut | SyncFault::TornPowerCut));
        let every = self.trouble.failing_syncs;
        let mut fails = |random: &mut fastrand::Rng| every > 0 && random.u32(0..every) == 0;
        if fault.is_none() && self.random.as_mut().is_some_and(&mut fails) {
            let evicts = self.random.as_mut().is_some_and(|random| random.bool());
            return Some(if evicts { SyncFault::ForgetsAndEvicts } else { SyncFault::Forgets });
        }
        fault
    }

    fn check(&self) -> io::Result<()> {
        if self.has_no_power { Err(io::Error::other("no power")) } else { Ok(()) }
    }

    fn check_write(&self) -> io::Result<()> {
        self.check()?;
        if self.trouble.fails_writes { Err(io::Error::other("a write failed")) } else { Ok(()) }
    }

    fn check_read(&self) -> io::Result<()> {
        self.check()?;
        if self.trouble.fails_reads { Err(io::Error::other("a read failed")) } else { Ok(()) }
    }

    pub fn used(&self) -> u64 {
        self.names.values().map(|number| self.files[*number].length()).sum()
    }

    fn change(&mut self, change: NameChange) {
        change.clone().apply(&mut self.names);
        self.changes.push(change);
    }
}

impl Disk for SimulatedDisk {
    fn path(&self) -> Option<&Path> {
        None
    }

    fn lock(&self) -> Result<Box<dyn FolderLock>, StoreError> {
        self.state().check()?;
        Ok(Box::new(Unlocked))
    }

    fn names(&self) -> io::Result<Vec<String>> {
        self.state().check_read()?;
        Ok(self.state().names.keys().cloned().collect())
    }

    fn create(&self, name: &str) -> io::Result<Box<dyn DiskFile>> {
        let mut state = self.state();
        state.check_write()?;
        let hollow = name.starts_with(reserve::FILE).then_some(0);
        state.files.push(FileState { hollow, ..FileState::default() });
        let number = state.files.len() - 1;
        state.change(NameChange::Set(name.to_owned(), number));
        Ok(Box::new(SimulatedFile(self.clone(), number)))
    }

    fn open(&self, name: &str) -> io::Result<Box<dyn DiskFile>> {
        let state = self.state();
        state.check_read()?;
        let number = *state.names.get(name).ok_or(io::ErrorKind::NotFound)?;
        Ok(Box::new(SimulatedFile(self.clone(), number)))
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        let mut state = self.state();
        state.check_write()?;
        if !state.names.contains_key(from) {
            return Err(io::ErrorKind::NotFound.into());
        }
        state.change(NameChange::Rename(from.to_owned(), to.to_owned()));
        Ok(())
    }

    fn link(&self, from: &str, to: &str) -> io::Result<()> {
        let mut state = self.state();
        let number = *state.names.get(from).ok_or(io::ErrorKind::NotFound)?;
        state.change(NameChange::Set(to.to_owned(), number));
        Ok(())
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        let mut state = self.state();
        state.check_write()?;
        if !state.names.contains_key(name) {
            return Err(io::ErrorKind::NotFound.into());
        }
        state.change(NameChange::Remove(name.to_owned()));
        Ok(())
    }

    fn sync(&self) -> io::Result<()> {
        let state = &mut *self.state();
        state.check_write()?;
        match state.sync() {
            None | Some(SyncFault::Full) => {
                state.changes.clear();
                state.durable_names.clone_from(&state.names);
                Ok(())
            }
            Some(_) => Err(io::Error::other("the sync failed")),
        }
    }
}

impl DiskFile for SimulatedFile {
    fn length(&self) -> io::Result<u64> {
        let state = self.0.state();
        state.check_read()?;
        Ok(state.files[self.1].length())
    }

    fn read(&self, place: u64, length: usize) -> io::Result<Vec<u8>> {
        let state = self.0.state();
        state.check_read()?;
        let place = usize::try_from(place).expect("a small file");
        let bytes = state.files[self.1].cached.get(place..place + length);
        Ok(bytes.ok_or(io::ErrorKind::UnexpectedEof)?.to_vec())
    }

    fn write(&self, place: u64, bytes: &[u8]) -> io::Result<()> {
        let state = &mut *self.0.state();
        state.check_write()?;
        let end = place + bytes.len() as u64;
        let more = end.saturating_sub(state.files[self.1].length());
        let room = state.trouble.capacity.map(|capacity| capacity.saturating_sub(state.used()));
        let lacks = more.saturating_sub(room.unwrap_or(u64::MAX));
        if let Some(length) = &mut state.files[self.1].hollow {
            if lacks > 0 {
                return Err(io::ErrorKind::StorageFull.into());
            }
            *length = end.max(*length);
            return Ok(());
        }
        let is_full_once = state.fault == Some((state.syncs + 1, SyncFault::Full));
        let place = usize::try_from(place).expect("a small file");
        // A full disk takes a part of a write.
        let lacks = usize::try_from(lacks).expect("a small write").min(bytes.len());
        let lacks = if is_full_once { bytes.len().div_ceil(2) } else { lacks };
        let bytes = &bytes[..bytes.len() - lacks];
        let file = &mut state.files[self.1];
        let length = file.cached.len().max(place + bytes.len());
        file.cached.resize(length, 0);
        file.cached[place..place + bytes.len()].copy_from_slice(bytes);
        file.dirty.extend(place / PAGE..=(place + bytes.len()) / PAGE);
        if is_full_once {
            state.fault = None;
        }
        if lacks > 0 { Err(io::ErrorKind::StorageFull.into()) } else { Ok(()) }
    }

    fn truncate(&self, length: u64) -> io::Result<()> {
        let state = &mut *self.0.state();
        state.check_write()?;
        let file = &mut state.files[self.1];
        match &mut file.hollow {
            Some(hollow) => *hollow = length,
            None => file.cached.truncate(usize::try_from(length).expect("a small file")),
        }
        Ok(())
    }

    fn sync(&self) -> io::Result<()> {
        let state = &mut *self.0.state();
        state.check_write()?;
        let fault = state.sync();
        let file = &mut state.files[self.1];
        let dirty = match fault {
            Some(SyncFault::PowerCut | SyncFault::TornPowerCut) => {
                return Err(io::Error::other("no power"));
            }
            _ => std::mem::take(&mut file.dirty),
        };
        let is_forgotten = matches!(fault, Some(SyncFault::Forgets | SyncFault::ForgetsAndEvicts));
        if !is_forgotten {
            file.durable.resize(file.cached.len(), 0);
            if let (Some(first), Some(last)) = (dirty.first(), dirty.last())
                && let Some(on_sync) = &state.on_sync
            {
                on_sync(&file.cached[file.pages(*first).start..file.pages(*last).end]);
            }
        }
        for page in dirty {
            match fault {
                Some(SyncFault::Forgets) => {}
                Some(SyncFault::ForgetsAndEvicts) => {
                    for at in file.pages(page) {
                        file.cached[at] = file.durable.get(at).copied().unwrap_or(0);
                    }
                }
                _ => file.keep(page),
            }
        }
        if is_forgotten { Err(io::Error::other("the sync failed")) } else { Ok(()) }
    }

    fn has_name(&self) -> io::Result<bool> {
        Ok(self.0.state().names.values().any(|number| *number == self.1))
    }
}
