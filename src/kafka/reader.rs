//! Reads records back, as any consumer would, outside any consumer group.

use std::collections::BTreeMap;
use std::time::Duration;

use jiff::Timestamp;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::{BorrowedMessage, Headers, Message};
use rdkafka::{Offset, TopicPartitionList};

use super::inspect::QueryError;
use super::settings;
use crate::config::Config;

/// Reads a topic, all partitions.
pub struct Reader {
    consumer: BaseConsumer,
}

/// Where to begin.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StartPosition {
    Beginning,
    /// With what comes from now on.
    End,
    /// With the first record of this time or a later one.
    Time(Timestamp),
}

/// A record as it lies in the topic.
#[derive(Debug, Clone, PartialEq)]
pub struct ConsumedRecord {
    pub partition: i32,
    pub offset: i64,
    pub timestamp_ms: Option<i64>,
    pub key: Option<Vec<u8>>,
    pub value: Vec<u8>,
    pub headers: Vec<(String, String)>,
}

impl ConsumedRecord {
    pub(super) fn of(message: &BorrowedMessage) -> ConsumedRecord {
        let headers = message.headers().map(|headers| {
            let text = |value: Option<&[u8]>| {
                String::from_utf8_lossy(value.unwrap_or_default()).into_owned()
            };
            headers.iter().map(|header| (header.key.to_owned(), text(header.value))).collect()
        });
        ConsumedRecord {
            partition: message.partition(),
            offset: message.offset(),
            timestamp_ms: message.timestamp().to_millis(),
            key: message.key().map(<[u8]>::to_owned),
            value: message.payload().unwrap_or_default().to_owned(),
            headers: headers.unwrap_or_default(),
        }
    }

    /// The value of its last header of this name.
    pub fn header(&self, name: &str) -> Option<&str> {
        let mut headers = self.headers.iter().rev();
        headers.find(|(found, _)| found == name).map(|(_, value)| value.as_str())
    }
}

impl Reader {
    /// # Errors
    ///
    /// No broker answers within the time-out, or the topic is not there.
    pub fn open(
        config: &Config,
        topic: &str,
        from: StartPosition,
        timeout: Duration,
    ) -> Result<Reader, QueryError> {
        let consumer = consumer(config, "hookbridge-reader", &[])?;
        let partitions = partitions(&consumer, topic, timeout)?;
        let mut list = TopicPartitionList::new();
        match from {
            StartPosition::Beginning => {
                for partition in partitions {
                    list.add_partition_offset(topic, partition, Offset::Beginning)?;
                }
            }
            // Looked up now, so that nothing that comes from now on is missed.
            from => {
                for (partition, offset) in offsets(&consumer, topic, &partitions, from, timeout)? {
                    list.add_partition_offset(topic, partition, Offset::Offset(offset))?;
                }
            }
        }
        consumer.assign(&list)?;
        Ok(Reader { consumer })
    }

    /// The next record, if one comes within the time-out.
    ///
    /// # Errors
    ///
    /// What the consumer reports.
    pub fn next(&self, timeout: Duration) -> Result<Option<ConsumedRecord>, QueryError> {
        let Some(message) = self.consumer.poll(timeout) else { return Ok(None) };
        Ok(Some(ConsumedRecord::of(&message?)))
    }
}

/// A consumer that commits nothing by itself.
pub(super) fn consumer(
    config: &Config,
    group: &str,
    options: &[(&str, &str)],
) -> Result<BaseConsumer, KafkaError> {
    let mut client = settings::client(config);
    client
        .set("group.id", group)
        .set("enable.auto.commit", "false")
        .set("enable.auto.offset.store", "false")
        // The newest record should show at once.
        .set("fetch.wait.max.ms", "100");
    for (name, value) in options {
        client.set(*name, *value);
    }
    client.create()
}

/// The partitions of a topic.
pub(super) fn partitions(
    consumer: &BaseConsumer,
    topic: &str,
    timeout: Duration,
) -> Result<Vec<i32>, QueryError> {
    let metadata = consumer.fetch_metadata(Some(topic), timeout)?;
    let Some(found) = metadata.topics().iter().find(|found| found.name() == topic) else {
        return Err(QueryError::about(topic, RDKafkaErrorCode::UnknownTopicOrPartition));
    };
    match found.error().map(RDKafkaErrorCode::from) {
        Some(code) => Err(QueryError::about(topic, code)),
        None => Ok(found.partitions().iter().map(|partition| partition.id()).collect()),
    }
}

/// The offset of each partition at this place.
pub(super) fn offsets(
    consumer: &BaseConsumer,
    topic: &str,
    partitions: &[i32],
    at: StartPosition,
    timeout: Duration,
) -> Result<BTreeMap<i32, i64>, QueryError> {
    // Beginning and end have numbers that no time has.
    let at_raw = match at {
        StartPosition::Beginning => Offset::Beginning,
        StartPosition::End => Offset::End,
        StartPosition::Time(time) => Offset::Offset(time.as_millisecond().max(0)),
    };
    let mut asked = TopicPartitionList::new();
    for partition in partitions {
        asked.add_partition_offset(topic, *partition, at_raw)?;
    }
    let mut offsets = BTreeMap::new();
    for element in consumer.offsets_for_times(asked, timeout)?.elements() {
        element.error()?;
        if let Offset::Offset(offset) = element.offset() {
            offsets.insert(element.partition(), offset);
        }
    }
    if offsets.len() < partitions.len() && at != StartPosition::End {
        // Where nothing is as late as that, the end is what comes next.
        for (partition, end) in
            self::offsets(consumer, topic, partitions, StartPosition::End, timeout)?
        {
            offsets.entry(partition).or_insert(end);
        }
    }
    Ok(offsets)
}
