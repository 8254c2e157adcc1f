//! Reads a part of a topic, up to where it ends now, and keeps under a group's name how far it came.

use std::collections::BTreeMap;
use std::time::Duration;

use jiff::Timestamp;
use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::Message;
use rdkafka::{Offset, TopicPartitionList};

use super::inspect::QueryError;
use super::reader::{ConsumedRecord, StartPosition, consumer, offsets, partitions};
use crate::config::Config;

/// Which part of a topic.
#[derive(Debug, Clone)]
pub struct TopicRange {
    pub topic: String,
    /// None: all of them.
    pub partition: Option<i32>,
    /// None: the beginning.
    pub from: Option<Bound>,
    /// The first that is left out. None: the end as it is now.
    pub to: Option<Bound>,
    /// Under whose name it is kept how far it came.
    pub group: String,
    /// Whether to begin where the group came to.
    pub resumes: bool,
}

/// A place in a topic.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Bound {
    /// In each partition.
    Offset(i64),
    /// The first record of this time or a later one.
    Time(Timestamp),
}

/// A part of a topic, being read.
pub struct RangeReader {
    consumer: BaseConsumer,
    topic: String,
    timeout: Duration,
    /// By partition: the next offset to be read, and the first that is not.
    places: BTreeMap<i32, (i64, i64)>,
    /// How many records the group had done before.
    pub done_before: u64,
}

impl RangeReader {
    /// # Errors
    ///
    /// No broker answers within the time-out, or the topic or the partition is not there.
    pub fn open(
        config: &Config,
        span: &TopicRange,
        timeout: Duration,
    ) -> Result<RangeReader, QueryError> {
        let topic = span.topic.as_str();
        let options = [("enable.partition.eof", "true"), ("auto.offset.reset", "earliest")];
        let consumer = consumer(config, &span.group, &options)?;
        let mut all = partitions(&consumer, topic, timeout)?;
        if let Some(partition) = span.partition {
            all.retain(|one| *one == partition);
            if all.is_empty() {
                let code = RDKafkaErrorCode::UnknownPartition;
                return Err(QueryError::about(&format!("{topic}, partition {partition}"), code));
            }
        }
        let at = |from| offsets(&consumer, topic, &all, from, timeout);
        let (lows, highs) = (at(StartPosition::Beginning)?, at(StartPosition::End)?);
        let bound = |bound| match bound {
            None => Ok(BTreeMap::new()),
            Some(Bound::Offset(offset)) => Ok(all.iter().map(|one| (*one, offset)).collect()),
            Some(Bound::Time(time)) => at(StartPosition::Time(time)),
        };
        let (froms, tos) = (bound(span.from)?, bound(span.to)?);
        let committed = if span.resumes {
            committed(&consumer, topic, &all, timeout)?
        } else {
            BTreeMap::new()
        };
        let (mut places, mut done_before) = (BTreeMap::new(), 0);
        for (partition, high) in highs {
            let of = |places: &BTreeMap<i32, i64>| places.get(&partition).copied();
            let end = of(&tos).map_or(high, |to| to.min(high));
            let start = of(&froms).unwrap_or(0).max(of(&lows).unwrap_or(0));
            let next = of(&committed).map_or(start, |done| done.clamp(start, end.max(start)));
            done_before += next.abs_diff(start);
            places.insert(partition, (next, end));
        }
        let mut list = TopicPartitionList::new();
        for (partition, (next, end)) in &places {
            if next < end {
                list.add_partition_offset(topic, *partition, Offset::Offset(*next))?;
            }
        }
        consumer.assign(&list)?;
        Ok(RangeReader { consumer, topic: topic.to_owned(), timeout, places, done_before })
    }

    /// How many records are left, at most.
    pub fn left(&self) -> u64 {
        self.places
            .values()
            .map(|(next, end)| end.saturating_sub(*next).max(0).unsigned_abs())
            .sum()
    }

    /// The next record; none when there are no more.
    ///
    /// # Errors
    ///
    /// What the consumer reports, or no record within the time-out.
    pub fn read(&mut self) -> Result<Option<ConsumedRecord>, QueryError> {
        while self.left() > 0 {
            let Some(message) = self.consumer.poll(self.timeout) else {
                return Err(QueryError::about(&self.topic, RDKafkaErrorCode::OperationTimedOut));
            };
            let message = match message {
                Ok(message) => message,
                // What a compacted topic no longer has does not come.
                Err(KafkaError::PartitionEOF(partition)) => {
                    if let Some((next, end)) = self.places.get_mut(&partition) {
                        *next = (*next).max(*end);
                    }
                    continue;
                }
                Err(error) => return Err(error.into()),
            };
            let Some((next, end)) = self.places.get_mut(&message.partition()) else { continue };
            let is_wanted = message.offset() < *end;
            *next = (message.offset() + 1).max(*next).min(*end);
            if is_wanted {
                return Ok(Some(ConsumedRecord::of(&message)));
            }
        }
        Ok(None)
    }

    /// Keeps that everything that was read so far is done.
    ///
    /// # Errors
    ///
    /// The group does not take it.
    pub fn commit(&self) -> Result<(), QueryError> {
        let mut list = TopicPartitionList::new();
        for (partition, (next, _)) in &self.places {
            list.add_partition_offset(&self.topic, *partition, Offset::Offset(*next))?;
        }
        Ok(self.consumer.commit(&list, CommitMode::Sync)?)
    }
}

/// How far the group came in each partition where it was before.
fn committed(
    consumer: &BaseConsumer,
    topic: &str,
    partitions: &[i32],
    timeout: Duration,
) -> Result<BTreeMap<i32, i64>, QueryError> {
    let mut list = TopicPartitionList::new();
    for partition in partitions {
        list.add_partition(topic, *partition);
    }
    let mut committed = BTreeMap::new();
    for element in consumer.committed_offsets(list, timeout)?.elements() {
        element.error()?;
        if let Offset::Offset(offset) = element.offset() {
            committed.insert(element.partition(), offset);
        }
    }
    Ok(committed)
}
