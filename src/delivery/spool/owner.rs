//! Who uses a spool: the process that holds the store's lock writes itself into a file beside it, because the
//! lock itself tells nobody who has it.

use std::fmt;
use std::fs::{self, File};
use std::io::Read;
use std::path::{Path, PathBuf};

use jiff::{Timestamp, Unit};

const FILE: &str = "owner";

/// Bytes of the file that are read; it has some 80.
const TEXT_MAX: u64 = 256;

/// The process that uses a spool.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Owner(Option<String>);

impl Owner {
    /// As the file in this folder says. It is to be believed only while the store is locked.
    pub(super) fn read(folder: &Path) -> Owner {
        let mut text = String::new();
        let read = File::open(folder.join(FILE))
            .and_then(|file| file.take(TEXT_MAX).read_to_string(&mut text));
        // It goes to terminals and logs.
        let text: String = text.trim().chars().filter(|c| !c.is_control()).collect();
        Owner(Some(text).filter(|text| read.is_ok() && !text.is_empty()))
    }
}

impl fmt::Display for Owner {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str(self.0.as_deref().unwrap_or("another process"))
    }
}

/// The file, which says that this process uses the spool. Dropping it removes it.
pub(super) struct OwnerFile(PathBuf);

impl OwnerFile {
    /// Writes it, under the store's lock. On a disk that does not take it the owner is unknown to others.
    pub fn write(folder: &Path) -> OwnerFile {
        let path = folder.join(FILE);
        let (process, system) = (std::process::id(), rustix::system::uname());
        let host = system.nodename().to_string_lossy();
        let now = Timestamp::now().round(Unit::Second).unwrap_or_default();
        let _ = fs::write(&path, format!("process {process} on {host} since {now}\n"));
        OwnerFile(path)
    }
}

impl Drop for OwnerFile {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.0);
    }
}
