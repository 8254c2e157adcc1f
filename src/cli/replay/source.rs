//! Where the records come from that are replayed: a part of a topic, or a file of lines.

use std::fmt;

use tokio::task::spawn_blocking;

use super::file::LineFile;
use super::revalidation::{NotReplayed, StoredRecord};
use crate::cli::CommandResult;
use crate::kafka::RangeReader;

/// Records that are in flight at once, and between two commits; and about how many bytes of them.
pub const CHUNK: usize = 1_000;
pub const CHUNK_BYTES: usize = 16 << 20;

#[expect(clippy::large_enum_variant, reason = "a replay has one")]
pub enum Source {
    Topic {
        range: RangeReader,
        topic: String,
        group: String,
    },
    File {
        /// None while a chunk is being read, and after that has failed.
        lines: Option<LineFile>,
        /// As it is called.
        name: String,
        /// The number of the last line that is done.
        done: u64,
    },
}

/// A record, or why there is none, and where it was.
pub struct FoundRecord {
    pub place: Place,
    pub record: Result<StoredRecord, NotReplayed>,
}

#[derive(Debug, Clone, Copy)]
pub enum Place {
    Record { partition: i32, offset: i64 },
    Line(u64),
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        match self {
            Place::Record { partition, offset } => write!(f, "{partition}:{offset}"),
            Place::Line(number) => write!(f, "line {number}"),
        }
    }
}

impl Source {
    pub fn file(lines: LineFile) -> Source {
        Source::File { name: lines.name.clone(), lines: Some(lines), done: 0 }
    }

    /// What it consists of.
    pub fn unit(&self) -> &'static str {
        match self {
            Source::Topic { .. } => "records",
            Source::File { .. } => "lines",
        }
    }

    pub fn name(&self) -> &str {
        match self {
            Source::Topic { topic, .. } => topic,
            Source::File { name, .. } => name,
        }
    }

    /// How many records are left, at most, where that is known.
    pub fn left(&self) -> Option<u64> {
        match self {
            Source::Topic { range, .. } => Some(range.left()),
            Source::File { .. } => None,
        }
    }

    pub fn has_ended(&self) -> bool {
        match self {
            Source::Topic { range, .. } => range.left() == 0,
            Source::File { lines, .. } => lines.as_ref().is_none_or(|lines| lines.has_ended),
        }
    }

    /// The next records. A file is read on a thread of its own, because standard input may have nothing
    /// for a long time.
    pub async fn chunk(&mut self) -> CommandResult<Vec<FoundRecord>> {
        match self {
            Source::Topic { range, topic, .. } => {
                let (mut found, mut bytes) = (Vec::new(), 0);
                while found.len() < CHUNK && bytes < CHUNK_BYTES {
                    let Some(seen) = range.read()? else { break };
                    bytes += seen.value.len();
                    let place = Place::Record { partition: seen.partition, offset: seen.offset };
                    let record = Ok(StoredRecord::of_topic(topic, seen));
                    found.push(FoundRecord { place, record });
                }
                Ok(found)
            }
            Source::File { lines, name, .. } => {
                let Some(mut file) = lines.take() else { return Ok(Vec::new()) };
                let read = spawn_blocking(move || (file.chunk(), file)).await;
                let (found, file) = read.map_err(|_| "the thread that reads is gone")?;
                *lines = Some(file);
                found.map_err(|error| format!("{name} cannot be read: {error}").into())
            }
        }
    }

    /// Notes that all records so far are done; of a topic, in Kafka.
    pub fn commit(&mut self) -> CommandResult<()> {
        match self {
            Source::Topic { range, group, .. } => range.commit().map_err(|error| {
                format!("the group {group} cannot keep how far it came: {error}").into()
            }),
            Source::File { lines, done, .. } => {
                *done = lines.as_ref().map_or(*done, |lines| lines.number);
                Ok(())
            }
        }
    }

    /// What to do after a stop midway.
    pub fn how_to_go_on(&self) -> String {
        match self {
            Source::Topic { .. } => "run it again to go on".into(),
            Source::File { done, .. } => {
                let next = done + 1;
                format!(
                    "run it again with the lines from {next} on, as `tail -n +{next}` gives them"
                )
            }
        }
    }
}
