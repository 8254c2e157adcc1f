//! How much waits in the folder of a spool that no bridge uses.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use super::store::{Store, StoreError};
use super::{frame, when_free};

/// What waits in a spool's folder.
#[derive(Debug, Default)]
pub struct Contents {
    /// By topic.
    pub topics: BTreeMap<String, WaitingEvents>,
    /// Events that neither their topic nor its dead letters take.
    pub set_aside: u64,
    /// Events that cannot be read any more.
    pub damaged: u64,
}

/// How many events wait.
#[derive(Debug, Default)]
pub struct WaitingEvents {
    pub events: u64,
    pub bytes: u64,
    /// When the oldest was written, in milliseconds since the Unix epoch.
    pub oldest_ms: Option<i64>,
}

impl WaitingEvents {
    pub fn add(&mut self, more: &WaitingEvents) {
        self.events += more.events;
        self.bytes += more.bytes;
        self.oldest_ms = self.oldest_ms.into_iter().chain(more.oldest_ms).min();
    }
}

/// Counts what waits in a folder that no bridge uses; waits for `patience` while one does.
///
/// # Errors
///
/// There is no spool, or a process uses it for longer than `patience`, or it is damaged.
pub async fn contents(folder: &Path, patience: Duration) -> Result<Contents, StoreError> {
    let store = when_free(patience, || Store::open_existing(folder)).await?;
    let mut contents = Contents { set_aside: store.totals()?.set_aside, ..Contents::default() };
    store.read(0, |_, bytes| {
        match frame::read(bytes).and_then(|f| Some((f.written_ms, f.record().ok()?))) {
            Some((written_ms, record)) => {
                let (events, bytes, oldest_ms) = (1, bytes.len() as u64, Some(written_ms));
                let topic = contents.topics.entry(record.topic().to_string()).or_default();
                topic.add(&WaitingEvents { events, bytes, oldest_ms });
            }
            None => contents.damaged += 1,
        }
        true
    })?;
    Ok(contents)
}
