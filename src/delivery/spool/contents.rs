//! What is in the folder of a spool that no process uses: nothing is changed there.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use super::disk::{Disk, Folder};
use super::error::StoreError;
use super::legacy::{self, Legacy};
use super::manifest::Manifest;
use super::owner::Owner;
use super::segment::{self, Kind};
use super::{SetAsideReason, frame, when_free};

/// What is in a spool's folder.
#[derive(Debug, Default)]
pub struct Contents {
    /// What waits, by topic.
    pub topics: BTreeMap<String, EventCount>,
    /// What neither its topic nor its dead letters take, by topic and reason.
    pub set_aside: BTreeMap<(String, SetAsideReason), EventCount>,
    /// Events that cannot be read any more.
    pub missing: u64,
}

/// How many events there are.
#[derive(Debug, Default)]
pub struct EventCount {
    pub events: u64,
    pub bytes: u64,
    /// When the oldest was written, in milliseconds since the Unix epoch.
    pub oldest_ms: Option<i64>,
}

impl EventCount {
    pub fn add(&mut self, more: &EventCount) {
        self.events += more.events;
        self.bytes += more.bytes;
        self.oldest_ms = self.oldest_ms.into_iter().chain(more.oldest_ms).min();
    }
}

/// Counts what is in a folder that no process uses; waits for `patience` while one does.
///
/// # Errors
///
/// There is no spool, or a process uses it for longer than `patience`.
pub async fn contents(folder: &Path, patience: Duration) -> Result<Contents, StoreError> {
    when_free(patience, || not_in_use(folder)).await?;
    let mut contents = Contents::default();
    for kind in [Kind::Waiting, Kind::SetAside] {
        let missing = each_event(folder, kind, |bytes, code| {
            let read = frame::read(bytes).and_then(|f| Some((f.written_ms, f.record().ok()?)));
            let Some((written_ms, record)) = read else {
                contents.missing += 1;
                return true;
            };
            let topic = record.topic().to_string();
            let count = match kind {
                Kind::Waiting => contents.topics.entry(topic).or_default(),
                Kind::SetAside => {
                    contents.set_aside.entry((topic, SetAsideReason::of(code))).or_default()
                }
            };
            let (events, bytes, oldest_ms) = (1, bytes.len() as u64, Some(written_ms));
            count.add(&EventCount { events, bytes, oldest_ms });
            true
        })?;
        contents.missing += missing;
    }
    Ok(contents)
}

pub(super) fn not_in_use(folder: &Path) -> Result<(), StoreError> {
    let owner = Owner::of(folder);
    let owner = owner.or_else(|| legacy::is_in_use(folder).then(|| Owner::read(folder)));
    owner.map_or(Ok(()), |owner| Err(StoreError::InUse(owner)))
}

/// Calls `found` with the bytes of each event, and with the code that it was refused with, as long as it returns
/// true. Returns how many events are missing.
pub(super) fn each_event(
    folder: &Path,
    kind: Kind,
    mut found: impl FnMut(&[u8], Option<u32>) -> bool,
) -> Result<u64, StoreError> {
    let disk = Folder::at(folder)?;
    let names = disk.names()?;
    let manifest = match Manifest::read(&disk) {
        Err(StoreError::Damaged(_)) => None,
        manifest => manifest?,
    };
    if manifest.is_none() && !legacy::is_there(folder) {
        return Err(StoreError::Other("there is no spool in this folder".into()));
    }
    let manifest = manifest.unwrap_or_default();
    if legacy::is_there(folder) {
        let legacy = Legacy::open(folder)?;
        match kind {
            Kind::Waiting => legacy.read(0, |_, bytes| found(bytes, None))?,
            Kind::SetAside => legacy.read_set_aside(|_, bytes| found(bytes, None))?,
        }
    }
    let list = match kind {
        Kind::Waiting => &manifest.waiting,
        Kind::SetAside => &manifest.set_aside,
    };
    let mut numbers: Vec<u64> = names.iter().filter_map(|name| kind.number(name)).collect();
    numbers.sort_unstable();
    let mut missing = 0;
    for number in numbers {
        let listed = list.iter().find(|listed| listed.number == number);
        missing += segment::read_file(&disk, &names, (kind, number), listed, &mut found)?;
    }
    Ok(missing)
}
