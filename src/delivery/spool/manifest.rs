//! Which segments there are, and what is in those that are complete: so that a start need not read them, and
//! that one which is gone is missed.

use std::io::{self, ErrorKind};

use serde::{Deserialize, Serialize};

use super::StoreError;
use super::disk::Disk;
use super::layout::Topics;

pub(super) const FILE: &str = "manifest.json";

/// The layout of the folder. An older program must not touch a folder of a newer one.
const FORMAT: u32 = 1;

/// The file's content.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Manifest {
    format: u32,
    pub waiting: Vec<Listed>,
    pub set_aside: Vec<Listed>,
}

/// A segment.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Listed {
    pub number: u64,
    pub id: u64,
    /// None while it is written.
    pub complete: Option<Complete>,
}

/// What is in a segment that is not appended to any more, with what has left it since.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Complete {
    pub events: u64,
    /// Of their frames.
    pub bytes: u64,
    /// The lowest and the highest sequence number.
    pub first: u64,
    pub last: u64,
    /// When its first event was written, milliseconds since the Unix epoch.
    pub oldest_ms: i64,
    pub topics: Topics,
}

impl Manifest {
    pub fn new(waiting: Vec<Listed>, set_aside: Vec<Listed>) -> Manifest {
        Manifest { format: FORMAT, waiting, set_aside }
    }

    /// Reads it; `None` where there is none.
    pub fn read(disk: &dyn Disk) -> Result<Option<Manifest>, StoreError> {
        let file = match disk.open(FILE) {
            Ok(file) => file,
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error.into()),
        };
        let length = usize::try_from(file.length()?).unwrap_or(0);
        let bytes = file.read(0, length)?;
        #[derive(Deserialize)]
        struct Format {
            format: u32,
        }
        let damaged = |error: serde_json::Error| StoreError::Damaged(format!("{FILE}: {error}"));
        let Format { format } = serde_json::from_slice(&bytes).map_err(damaged)?;
        if format > FORMAT {
            return Err(StoreError::Newer(format));
        }
        serde_json::from_slice(&bytes).map(Some).map_err(damaged)
    }

    /// Puts it in the place of the last one, durably.
    pub fn write(&self, disk: &dyn Disk) -> io::Result<()> {
        let new = format!("{FILE}.new");
        let file = disk.create(&new)?;
        file.write(0, &serde_json::to_vec_pretty(self)?)?;
        file.sync()?;
        disk.rename(&new, FILE)?;
        disk.sync()
    }
}
