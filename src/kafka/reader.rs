//! Reads records back, as any consumer would, outside any consumer group.

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::time::Duration;

use jiff::Timestamp;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::{BorrowedMessage, Headers, Message};
use rdkafka::{Offset, TopicPartitionList};

use super::ending::EndsInTime;
use super::inspect::QueryError;
use super::settings;
use super::token::Tokens;
use crate::config::Config;
use crate::observe::lock;

/// Reads a topic, by a consumer that commits nothing by itself.
pub struct Reader {
    pub(super) consumer: EndsInTime<BaseConsumer>,
    pub(super) topic: String,
    pub(super) partitions: Vec<i32>,
    pub(super) timeout: Duration,
    tokens: Option<Mutex<Tokens>>,
}

/// An offset for each partition.
pub(super) type Offsets = BTreeMap<i32, i64>;

/// A position in each partition of a topic.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TopicPosition {
    Beginning,
    /// Where the next record goes.
    End,
    Offset(i64),
    /// The first record of this time or a later one.
    Time(Timestamp),
}

/// A record as it lies in the topic.
#[derive(Debug, Clone, PartialEq)]
pub struct ConsumedRecord {
    pub partition: i32,
    pub offset: i64,
    pub timestamp: Option<Timestamp>,
    pub key: Option<Vec<u8>>,
    pub value: Vec<u8>,
    pub headers: Vec<(String, String)>,
}

impl ConsumedRecord {
    pub(super) fn of(message: &BorrowedMessage) -> ConsumedRecord {
        let text = |value: Option<&[u8]>| String::from_utf8_lossy(value.unwrap_or_default()).into();
        let headers = message.headers().into_iter().flat_map(|headers| headers.iter());
        let timestamp = message.timestamp().to_millis();
        ConsumedRecord {
            partition: message.partition(),
            offset: message.offset(),
            timestamp: timestamp.and_then(|ms| Timestamp::from_millisecond(ms).ok()),
            key: message.key().map(<[u8]>::to_owned),
            value: message.payload().unwrap_or_default().to_owned(),
            headers: headers.map(|header| (header.key.to_owned(), text(header.value))).collect(),
        }
    }

    /// The value of its last header of this name.
    pub fn header(&self, name: &str) -> Option<&str> {
        let mut headers = self.headers.iter().rev();
        headers.find(|(found, _)| found == name).map(|(_, value)| value.as_str())
    }
}

impl Reader {
    /// Reads all partitions.
    ///
    /// # Errors
    ///
    /// No broker answers within the time-out, or the topic is not there.
    pub fn open(
        config: &Config,
        topic: &str,
        from: TopicPosition,
        timeout: Duration,
    ) -> Result<Reader, QueryError> {
        let options = [("group.id", "hookbridge-reader")];
        let reader = Reader::unassigned(config, topic, &options, timeout)?;
        // Looked up now, so that no record that comes from now on is missed.
        reader.assign(reader.offsets(from)?)?;
        Ok(reader)
    }

    /// The next record, if one comes within the time-out.
    ///
    /// # Errors
    ///
    /// What the consumer reports.
    pub fn next(&self, timeout: Duration) -> Result<Option<ConsumedRecord>, QueryError> {
        if let Some(tokens) = &self.tokens {
            let mut tokens = lock(tokens);
            if tokens.are_due() {
                tokens.renew(self.consumer.client())?;
            }
        }
        let message = self.consumer.poll(timeout).transpose()?;
        Ok(message.map(|message| ConsumedRecord::of(&message)))
    }

    /// Knows the partitions of the topic, and reads none yet.
    pub(super) fn unassigned(
        config: &Config,
        topic: &str,
        options: &[(&str, &str)],
        timeout: Duration,
    ) -> Result<Reader, QueryError> {
        let mut client = settings::client(config);
        client
            .set("enable.auto.commit", "false")
            .set("enable.auto.offset.store", "false")
            // An offset that the topic no longer has must not skip the rest.
            .set("auto.offset.reset", "earliest")
            // The newest record should show at once.
            .set("fetch.wait.max.ms", "100")
            .extend(options.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())));
        let consumer = EndsInTime::new(client.create::<BaseConsumer>()?);
        let mut tokens = Tokens::of(config);
        if let Some(tokens) = &mut tokens {
            tokens.renew(consumer.client())?;
        }
        let metadata = consumer.fetch_metadata(Some(topic), timeout)?;
        let Some(found) = metadata.topics().iter().find(|found| found.name() == topic) else {
            return Err(QueryError::about(topic, RDKafkaErrorCode::UnknownTopicOrPartition));
        };
        if let Some(error) = found.error() {
            return Err(QueryError::about(topic, error.into()));
        }
        let partitions = found.partitions().iter().map(|partition| partition.id()).collect();
        let (topic, tokens) = (topic.to_owned(), tokens.map(Mutex::new));
        Ok(Reader { consumer, topic, partitions, timeout, tokens })
    }

    /// The offset of each partition at this position.
    pub(super) fn offsets(&self, at: TopicPosition) -> Result<Offsets, QueryError> {
        // Beginning and end have numbers that no time has.
        let raw = match at {
            TopicPosition::Beginning => Offset::Beginning,
            TopicPosition::End => Offset::End,
            TopicPosition::Offset(offset) => {
                return Ok(self.partitions.iter().map(|partition| (*partition, offset)).collect());
            }
            TopicPosition::Time(time) => Offset::Offset(time.as_millisecond().max(0)),
        };
        let found = self.consumer.offsets_for_times(self.list(raw)?, self.timeout)?;
        let mut offsets = known_offsets(&found)?;
        if offsets.len() < self.partitions.len() && at != TopicPosition::End {
            // A partition without a record of this time or later starts at its end.
            for (partition, end) in self.offsets(TopicPosition::End)? {
                offsets.entry(partition).or_insert(end);
            }
        }
        Ok(offsets)
    }

    /// What the group has committed, of the partitions where it has.
    pub(super) fn committed(&self) -> Result<Offsets, QueryError> {
        let list = self.list(Offset::Invalid)?;
        Ok(known_offsets(&self.consumer.committed_offsets(list, self.timeout)?)?)
    }

    /// Reads these partitions from these offsets on.
    pub(super) fn assign(
        &self,
        offsets: impl IntoIterator<Item = (i32, i64)>,
    ) -> Result<(), QueryError> {
        let offsets = offsets.into_iter().map(|(one, offset)| (one, Offset::Offset(offset)));
        Ok(self.consumer.assign(&self.list_of(offsets)?)?)
    }

    fn list(&self, offset: Offset) -> Result<TopicPartitionList, KafkaError> {
        self.list_of(self.partitions.iter().map(|partition| (*partition, offset)))
    }

    pub(super) fn list_of(
        &self,
        offsets: impl Iterator<Item = (i32, Offset)>,
    ) -> Result<TopicPartitionList, KafkaError> {
        let offsets = offsets.map(|(partition, offset)| ((self.topic.clone(), partition), offset));
        TopicPartitionList::from_topic_map(&offsets.collect())
    }
}

fn known_offsets(list: &TopicPartitionList) -> Result<Offsets, KafkaError> {
    let mut offsets = Offsets::new();
    for element in list.elements() {
        element.error()?;
        if let Offset::Offset(offset) = element.offset() {
            offsets.insert(element.partition(), offset);
        }
    }
    Ok(offsets)
}
