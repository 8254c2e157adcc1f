//! Reads a part of a topic, up to where it ends now, and commits how far it came for a consumer group.

use std::collections::BTreeMap;
use std::time::Duration;

use rdkafka::Offset;
use rdkafka::consumer::{CommitMode, Consumer};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::Message;

use super::inspect::QueryError;
use super::reader::{ConsumedRecord, Offsets, Reader, TopicPosition};
use crate::config::Config;

/// A part of a topic.
#[derive(Debug, Clone)]
pub struct TopicRange {
    pub topic: String,
    /// None: all partitions.
    pub partition: Option<i32>,
    pub from: TopicPosition,
    /// The first that is left out.
    pub to: TopicPosition,
    /// The consumer group that commits.
    pub group: String,
    /// Whether to begin at what the group has committed.
    pub resumes: bool,
}

/// Reads a part of a topic.
pub struct RangeReader {
    reader: Reader,
    /// By partition: the next offset to be read, and the first that is not.
    positions: BTreeMap<i32, (i64, i64)>,
    /// How many records of the part the group had committed before.
    pub done_before: u64,
}

impl RangeReader {
    /// # Errors
    ///
    /// No broker answers within the time-out, or the topic or the partition is not there.
    pub fn open(
        config: &Config,
        range: &TopicRange,
        timeout: Duration,
    ) -> Result<RangeReader, QueryError> {
        let options = [("group.id", range.group.as_str()), ("enable.partition.eof", "true")];
        let mut reader = Reader::unassigned(config, &range.topic, &options, timeout)?;
        if let Some(partition) = range.partition {
            reader.partitions.retain(|one| *one == partition);
            if reader.partitions.is_empty() {
                let what = format!("{}, partition {partition}", range.topic);
                return Err(QueryError::about(&what, RDKafkaErrorCode::UnknownPartition));
            }
        }
        let lows = reader.offsets(TopicPosition::Beginning)?;
        let highs = reader.offsets(TopicPosition::End)?;
        let (starts, ends) = (reader.offsets(range.from)?, reader.offsets(range.to)?);
        let committed = if range.resumes { reader.committed()? } else { Offsets::new() };
        let (mut positions, mut done_before) = (BTreeMap::new(), 0);
        for (partition, high) in highs {
            let of = |offsets: &Offsets| offsets.get(&partition).copied();
            let end = of(&ends).map_or(high, |end| end.min(high));
            let start = of(&starts).max(of(&lows)).unwrap_or(0);
            let next = of(&committed).map_or(start, |done| done.clamp(start, end.max(start)));
            done_before += next.abs_diff(start);
            positions.insert(partition, (next, end));
        }
        let unread = positions.iter().filter(|(_, (next, end))| next < end);
        reader.assign(unread.map(|(partition, (next, _))| (*partition, *next)))?;
        Ok(RangeReader { reader, positions, done_before })
    }

    /// How many records are left, at most.
    pub fn left(&self) -> u64 {
        let left = |(next, end): &(i64, i64)| u64::try_from(end - next).unwrap_or(0);
        self.positions.values().map(left).sum()
    }

    /// The next record; none when there are no more.
    ///
    /// # Errors
    ///
    /// What the consumer reports, or no record within the time-out.
    pub fn read(&mut self) -> Result<Option<ConsumedRecord>, QueryError> {
        while self.left() > 0 {
            let message = match self.reader.consumer.poll(self.reader.timeout) {
                Some(Ok(message)) => message,
                // The last records may be missing in a compacted topic.
                Some(Err(KafkaError::PartitionEOF(partition))) => {
                    if let Some((next, end)) = self.positions.get_mut(&partition) {
                        *next = (*next).max(*end);
                    }
                    continue;
                }
                Some(Err(error)) => return Err(error.into()),
                None => {
                    let code = RDKafkaErrorCode::OperationTimedOut;
                    return Err(QueryError::about(&self.reader.topic, code));
                }
            };
            let Some((next, end)) = self.positions.get_mut(&message.partition()) else { continue };
            let is_wanted = message.offset() < *end;
            *next = (message.offset() + 1).max(*next).min(*end);
            if is_wanted {
                return Ok(Some(ConsumedRecord::of(&message)));
            }
        }
        Ok(None)
    }

    /// Commits that every record that was read so far is done.
    ///
    /// # Errors
    ///
    /// The group does not take it.
    pub fn commit(&self) -> Result<(), QueryError> {
        let positions = self.positions.iter();
        let offsets = positions.map(|(partition, (next, _))| (*partition, Offset::Offset(*next)));
        Ok(self.reader.consumer.commit(&self.reader.list_of(offsets)?, CommitMode::Sync)?)
    }
}
