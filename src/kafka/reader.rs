//! Reads records back, as any consumer would, outside any consumer group.

use std::time::Duration;

use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::KafkaResult;
use rdkafka::message::{Headers, Message};
use rdkafka::{Offset, TopicPartitionList};

use super::settings;
use crate::config::Config;

/// Reads a topic from its beginning, all partitions.
pub struct Reader {
    consumer: BaseConsumer,
}

/// A record as it lies in the topic.
#[derive(Debug, Clone, PartialEq)]
pub struct Seen {
    pub partition: i32,
    pub offset: i64,
    pub timestamp_ms: Option<i64>,
    pub key: Option<Vec<u8>>,
    pub value: Vec<u8>,
    pub headers: Vec<(String, String)>,
}

impl Reader {
    /// # Errors
    ///
    /// No broker answers within the time-out, or the topic is not there.
    pub fn open(config: &Config, topic: &str, timeout: Duration) -> KafkaResult<Reader> {
        let mut client = settings::client(config);
        client
            .set("group.id", "hookbridge-reader")
            .set("enable.auto.commit", "false")
            // The newest record should show at once.
            .set("fetch.wait.max.ms", "100");
        let consumer: BaseConsumer = client.create()?;
        let metadata = consumer.fetch_metadata(Some(topic), timeout)?;
        let mut partitions = TopicPartitionList::new();
        for partition in metadata.topics().iter().flat_map(|topic| topic.partitions()) {
            partitions.add_partition_offset(topic, partition.id(), Offset::Beginning)?;
        }
        consumer.assign(&partitions)?;
        Ok(Reader { consumer })
    }

    /// The next record, if one comes within the time-out.
    ///
    /// # Errors
    ///
    /// What the consumer reports.
    pub fn next(&self, timeout: Duration) -> KafkaResult<Option<Seen>> {
        let Some(message) = self.consumer.poll(timeout) else { return Ok(None) };
        let message = message?;
        let headers = message.headers().map(|headers| {
            let text = |value: Option<&[u8]>| {
                String::from_utf8_lossy(value.unwrap_or_default()).into_owned()
            };
            headers.iter().map(|header| (header.key.to_owned(), text(header.value))).collect()
        });
        Ok(Some(Seen {
            partition: message.partition(),
            offset: message.offset(),
            timestamp_ms: message.timestamp().to_millis(),
            key: message.key().map(<[u8]>::to_owned),
            value: message.payload().unwrap_or_default().to_owned(),
            headers: headers.unwrap_or_default(),
        }))
    }
}
