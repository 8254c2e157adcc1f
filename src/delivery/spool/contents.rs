//! What waits in a spool's folder, for whoever looks into one that no bridge uses.

use std::collections::HashMap;
use std::path::Path;

use super::frame;
use super::store::{Store, StoreError};

/// What waits in a spool's folder.
#[derive(Debug, Default)]
pub struct Contents {
    /// By topic.
    pub topics: HashMap<String, WaitingEvents>,
    /// Events that no topic takes.
    pub set_aside: u64,
    /// Events that cannot be read any more.
    pub damaged: u64,
}

/// How much waits.
#[derive(Debug, Default)]
pub struct WaitingEvents {
    pub events: u64,
    pub bytes: u64,
    /// When the oldest was written, milliseconds since the Unix epoch.
    pub oldest_ms: Option<i64>,
}

impl WaitingEvents {
    pub fn add(&mut self, more: &WaitingEvents) {
        self.events += more.events;
        self.bytes += more.bytes;
        self.oldest_ms = self.oldest_ms.into_iter().chain(more.oldest_ms).min();
    }
}

/// Looks into a folder that no bridge uses.
///
/// # Errors
///
/// There is no spool, or it is in use, or damaged.
pub fn contents(folder: &Path) -> Result<Contents, StoreError> {
    let store = Store::look_into(folder)?;
    let mut contents = Contents { set_aside: store.totals()?.set_aside, ..Contents::default() };
    store.read(0, usize::MAX, |_, bytes| {
        let read = frame::read(bytes).and_then(|f| Some((f.written_ms, f.record().ok()?)));
        let Some((written_ms, record)) = read else {
            contents.damaged += 1;
            return true;
        };
        let one =
            WaitingEvents { events: 1, bytes: bytes.len() as u64, oldest_ms: Some(written_ms) };
        contents.topics.entry(record.topic().to_string()).or_default().add(&one);
        true
    })?;
    Ok(contents)
}
