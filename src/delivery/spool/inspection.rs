//! Whether the folder of the spool will do, for `hookbridge check`. Changes nothing and leaves nothing there.

use std::fs::{self, File, Metadata};
use std::io::{self, ErrorKind};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use rustix::fs::{Access, AtFlags, CWD, accessat, statvfs};

use super::legacy;
use super::owner::Owner;
use crate::config::SpoolSettings;

/// What was found, and what to do about it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Finding {
    Good(String),
    /// Clicks are held, but not as many or not for as long as they should be; or nobody can tell from here.
    Warning(String),
    /// The spool takes nothing.
    Problem(String),
}

/// Looks at the folder of a spool that is on.
pub fn inspect(settings: &SpoolSettings) -> Vec<Finding> {
    // The settings may have it relative to the folder that `serve` runs in.
    let folder = std::path::absolute(&settings.dir).unwrap_or_else(|_| settings.dir.clone());
    let shown = folder.display();
    match fs::metadata(&folder) {
        Ok(metadata) if !metadata.is_dir() => {
            vec![Finding::Problem(format!("{shown} is no folder; move it, or set spool.dir"))]
        }
        Ok(metadata) => inspect_folder(&folder, &metadata, settings.max_bytes),
        Err(error) if error.kind() == ErrorKind::NotFound => {
            inspect_missing(&folder, settings.max_bytes)
        }
        Err(error) => vec![Finding::Problem(format!(
            "{shown} cannot be looked at: {error}; {}",
            ask_for_rights()
        ))],
    }
}

/// A folder that `serve` is to make.
fn inspect_missing(folder: &Path, max_bytes: u64) -> Vec<Finding> {
    let shown = folder.display();
    let parent = folder.ancestors().skip(1).find(|parent| parent.exists());
    let parent = parent.unwrap_or(Path::new("/"));
    if let Err(error) = accessat(CWD, parent, Access::WRITE_OK | Access::EXEC_OK, AtFlags::EACCESS)
    {
        // No problem yet: settings are also checked on machines that will not serve.
        return vec![Finding::Warning(format!(
            "{shown} is not there, and cannot be made in {}: {error}. Here serve would hold nothing on \
             disk; make the folder, and {}",
            parent.display(),
            ask_for_rights()
        ))];
    }
    let made = format!("{shown} is not there; serve makes it in {}", parent.display());
    vec![Finding::Good(made), room(folder, parent, max_bytes)]
}

fn inspect_folder(folder: &Path, metadata: &Metadata, max_bytes: u64) -> Vec<Finding> {
    let shown = folder.display();
    let (owner, mode) = (metadata.uid(), metadata.mode() & 0o7777);
    let lock = folder.join(super::owner::FILE);
    let writable = write_into(folder).map_err(|error| {
        format!(
            "{shown} cannot be written: {error}. It belongs to user {owner} and has mode {mode:o}; {}",
            ask_for_rights()
        )
    });
    let writable =
        writable.and_then(|()| match File::options().read(true).write(true).open(&lock) {
            Err(error) if error.kind() != ErrorKind::NotFound => {
                Err(format!("{} cannot be written: {error}; {}", lock.display(), ask_for_rights()))
            }
            _ => Ok(()),
        });
    if let Err(problem) = writable {
        return vec![Finding::Problem(problem)];
    }
    let mut findings = vec![Finding::Good(format!("{shown} can be written"))];
    if user() == 0 && owner != 0 {
        findings.push(Finding::Warning(format!(
            "{shown} belongs to user {owner}, and root may write anywhere: check as the user of serve"
        )));
    }
    let owner = Owner::of(folder);
    if let Some(owner) = owner.or_else(|| legacy::is_in_use(folder).then(|| Owner::read(folder))) {
        findings.push(Finding::Good(format!(
            "{owner} uses it; a serve that starts now waits until that ends"
        )));
    }
    findings.push(room(folder, folder, max_bytes));
    findings
}

/// Makes a file and removes it: only that tells whether the disk takes one.
fn write_into(folder: &Path) -> io::Result<()> {
    struct Trial(PathBuf);
    impl Drop for Trial {
        fn drop(&mut self) {
            let _ = fs::remove_file(&self.0);
        }
    }
    let path = folder.join(format!("check-{}", std::process::id()));
    File::create_new(&path)?;
    drop(Trial(path));
    Ok(())
}

/// Whether the file system has room for `spool.max_bytes` and a third, with what the store has already.
fn room(folder: &Path, existing: &Path, max_bytes: u64) -> Finding {
    let file_system = match statvfs(existing) {
        Ok(file_system) => file_system,
        Err(error) => {
            return Finding::Warning(format!("nobody can tell how much room there is: {error}"));
        }
    };
    let files = fs::read_dir(folder).into_iter().flatten().flatten();
    let taken: u64 = files.flat_map(|file| file.metadata()).map(|file| file.blocks() * 512).sum();
    let free = file_system.f_bavail.saturating_mul(file_system.f_frsize);
    let room = free.saturating_add(taken);
    let needed = max_bytes.saturating_add(max_bytes.div_ceil(3));
    if room >= needed {
        return Finding::Good(format!(
            "room: {room} bytes; spool.max_bytes and a third are {needed}"
        ));
    }
    Finding::Warning(format!(
        "room: {room} bytes, {} less than spool.max_bytes and a third (= {needed}): in an outage of Kafka \
         clicks are refused once the disk is full; give it more room, or lower spool.max_bytes",
        needed - room
    ))
}

fn ask_for_rights() -> String {
    format!("give the user of serve the right to write (this is user {})", user())
}

fn user() -> u32 {
    rustix::process::geteuid().as_raw()
}
