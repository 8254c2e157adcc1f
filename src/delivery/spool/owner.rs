//! Who uses a spool: the process that has the lock writes itself into the locked file, because a lock itself tells
//! nobody who has it.

use std::fmt;
use std::fs::File;
use std::io::{self, Read, Write};
use std::path::Path;

use jiff::{Timestamp, Unit};
use rustix::fs::{FlockOperation, flock};

use super::StoreError;
use super::disk::FolderLock;

pub(super) const FILE: &str = "owner";

/// Bytes of the file that are read; it has some 80.
const TEXT_MAX: u64 = 256;

/// The process that uses a spool.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Owner(Option<String>);

impl Owner {
    /// As the file in this folder says. It is to be believed only while it is locked.
    pub(super) fn read(folder: &Path) -> Owner {
        let mut text = String::new();
        let read = File::open(folder.join(FILE))
            .and_then(|file| file.take(TEXT_MAX).read_to_string(&mut text));
        // It goes to terminals and logs.
        let text: String = text.trim().chars().filter(|c| !c.is_control()).collect();
        Owner(Some(text).filter(|text| read.is_ok() && !text.is_empty()))
    }

    /// Who has the lock of this folder, if anybody does. Changes nothing.
    pub(super) fn of(folder: &Path) -> Option<Owner> {
        let file = File::open(folder.join(FILE)).ok()?;
        let locked = flock(&file, FlockOperation::NonBlockingLockShared);
        locked.is_err().then(|| Owner::read(folder))
    }
}

impl fmt::Display for Owner {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str(self.0.as_deref().unwrap_or("another process"))
    }
}

/// The lock of a folder, for one process. The system gives it up with the process.
pub(super) struct Lock(File);

impl Lock {
    /// Takes the lock of a folder that is there.
    pub fn take(folder: &Path) -> Result<Lock, StoreError> {
        let mut options = File::options();
        let file = options.read(true).write(true).create(true).truncate(false);
        let file = file.open(folder.join(FILE))?;
        match flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => Ok(Lock(file)),
            Err(rustix::io::Errno::WOULDBLOCK) => Err(StoreError::InUse(Owner::read(folder))),
            Err(error) => Err(io::Error::from(error).into()),
        }
    }
}

impl FolderLock for Lock {
    /// Writes this process into the file. On a disk that does not take it the owner is unknown to others.
    fn sign(&mut self) {
        let (process, system) = (std::process::id(), rustix::system::uname());
        let host = system.nodename().to_string_lossy();
        let now = Timestamp::now().round(Unit::Second).unwrap_or_default();
        let _ = self.0.set_len(0);
        let _ = writeln!(self.0, "process {process} on {host} since {now}");
    }
}

impl Drop for Lock {
    fn drop(&mut self) {
        // The file stays: another process may just be about to lock it.
        let _ = self.0.set_len(0);
    }
}
