//! The files below the store. [`Folder`] is the real disk; tests put one in its place that fails, forgets and
//! loses its power.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::error::StoreError;
use super::owner::Lock;

/// Opens the disk: once at the start, and again after each failure.
pub(super) type OpenDisk = Box<dyn Fn() -> io::Result<Arc<dyn Disk>> + Send>;

/// A folder of files.
pub(super) trait Disk: Send + Sync {
    /// Where the folder is in the file system, if it is there.
    fn path(&self) -> Option<&Path>;

    /// Takes the folder for this process, until what is returned is dropped.
    ///
    /// # Errors
    ///
    /// Another process has it, or the disk fails.
    fn lock(&self) -> Result<Box<dyn FolderLock>, StoreError>;

    fn names(&self) -> io::Result<Vec<String>>;

    /// Makes an empty file; one of this name is gone.
    fn create(&self, name: &str) -> io::Result<Box<dyn DiskFile>>;

    /// Opens a file for reading alone: what was written by another life of the process, or before a fault, is
    /// never appended to.
    fn open(&self, name: &str) -> io::Result<Box<dyn DiskFile>>;

    fn rename(&self, from: &str, to: &str) -> io::Result<()>;

    /// Gives a file a second name.
    fn link(&self, from: &str, to: &str) -> io::Result<()>;

    fn remove(&self, name: &str) -> io::Result<()>;

    /// Makes the names survive a power cut; a file's sync does so for its bytes.
    fn sync(&self) -> io::Result<()>;
}

/// A folder that no other process uses.
pub(super) trait FolderLock: Send {
    /// Tells others which process has it.
    fn sign(&mut self);
}

/// An open file.
pub(super) trait DiskFile: Send {
    fn length(&self) -> io::Result<u64>;

    /// Reads this many bytes from this place on.
    fn read(&self, place: u64, length: usize) -> io::Result<Vec<u8>>;

    fn write(&self, place: u64, bytes: &[u8]) -> io::Result<()>;

    fn truncate(&self, length: u64) -> io::Result<()>;

    fn sync(&self) -> io::Result<()>;

    /// Whether the file has a name yet: somebody may have deleted it.
    fn has_name(&self) -> io::Result<bool>;
}

/// A folder of the file system.
pub(super) struct Folder(PathBuf);

impl Folder {
    /// Makes the folder, unless it is there.
    pub fn make(path: &Path) -> io::Result<Folder> {
        fs::create_dir_all(path)?;
        Ok(Folder(path.to_owned()))
    }

    /// A folder that is there.
    pub fn at(path: &Path) -> io::Result<Folder> {
        fs::read_dir(path)?;
        Ok(Folder(path.to_owned()))
    }
}

impl Disk for Folder {
    fn path(&self) -> Option<&Path> {
        Some(&self.0)
    }

    fn lock(&self) -> Result<Box<dyn FolderLock>, StoreError> {
        Ok(Box::new(Lock::take(&self.0)?))
    }

    fn names(&self) -> io::Result<Vec<String>> {
        let name = |entry: io::Result<fs::DirEntry>| Ok(entry?.file_name().into_string().ok());
        fs::read_dir(&self.0)?.filter_map(|entry| name(entry).transpose()).collect()
    }

    fn create(&self, name: &str) -> io::Result<Box<dyn DiskFile>> {
        let mut options = File::options();
        options.read(true).write(true).create(true).truncate(true);
        Ok(Box::new(options.open(self.0.join(name))?))
    }

    fn open(&self, name: &str) -> io::Result<Box<dyn DiskFile>> {
        Ok(Box::new(File::open(self.0.join(name))?))
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        fs::rename(self.0.join(from), self.0.join(to))
    }

    fn link(&self, from: &str, to: &str) -> io::Result<()> {
        fs::hard_link(self.0.join(from), self.0.join(to))
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        fs::remove_file(self.0.join(name))
    }

    fn sync(&self) -> io::Result<()> {
        File::open(&self.0)?.sync_all()
    }
}

impl DiskFile for File {
    fn length(&self) -> io::Result<u64> {
        Ok(self.metadata()?.len())
    }

    fn read(&self, place: u64, length: usize) -> io::Result<Vec<u8>> {
        let mut bytes = vec![0; length];
        self.read_exact_at(&mut bytes, place)?;
        Ok(bytes)
    }

    fn write(&self, place: u64, bytes: &[u8]) -> io::Result<()> {
        self.write_all_at(bytes, place)
    }

    fn truncate(&self, length: u64) -> io::Result<()> {
        self.set_len(length)
    }

    fn sync(&self) -> io::Result<()> {
        self.sync_data()
    }

    fn has_name(&self) -> io::Result<bool> {
        Ok(self.metadata()?.nlink() > 0)
    }
}

#[cfg(test)]
pub(in crate::delivery) mod simulated;
