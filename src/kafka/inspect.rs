//! Asks the brokers about topics: do they exist, have leaders and replicas, may we write to them.
//! For the keeper, which explains failures, and for `hookbridge check --kafka`.

use std::fmt;
use std::time::Duration;

use rdkafka::ClientConfig;
use rdkafka::admin::{AdminClient, AdminOptions, ConfigResource, ResourceSpecifier};
use rdkafka::error::{KafkaError, RDKafkaErrorCode, RDKafkaErrorCode as Code};
use rdkafka::metadata::{Metadata, MetadataTopic};
use rdkafka::producer::{BaseProducer, BaseRecord, Producer as _, ProducerContext};
use rdkafka::{ClientContext, message::DeliveryResult};
use std::sync::{Arc, OnceLock};

use super::{fault, settings};
use crate::config::{Config, Problem};

/// Something about a topic that an operator should know.
#[derive(Debug, Clone, PartialEq)]
pub struct Finding {
    pub severity: Severity,
    pub topic: String,
    /// What is wrong and what to do.
    pub text: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Severity {
    /// Clicks cannot be held.
    Error,
    /// They can, but not as well as they should.
    Warning,
    /// There is no topic for dead letters: they wait in the spool.
    Missing,
}

/// Why nothing could be asked.
#[derive(Debug, thiserror::Error)]
#[error("{reason}: {advice}")]
pub struct QueryError {
    reason: String,
    advice: &'static str,
}

impl QueryError {
    /// About a topic, or a part of it.
    pub(super) fn about(what: &str, code: RDKafkaErrorCode) -> QueryError {
        QueryError { reason: format!("{what}: {code}"), advice: fault::advice(code) }
    }
}

impl From<KafkaError> for QueryError {
    fn from(error: KafkaError) -> QueryError {
        let advice = error.rdkafka_error_code().map_or("", fault::advice);
        QueryError { reason: error.to_string(), advice }
    }
}

/// Asks about the configured topics, over connections of its own.
pub struct Inspector {
    client: AdminClient<Quiet>,
    producer: ClientConfig,
    /// Each with whether it is for events, or for dead letters.
    topics: Vec<(String, bool)>,
    max_body_bytes: usize,
}

/// A client whose log lines the operator does not need: the publisher's say the same.
struct Quiet;

impl ClientContext for Quiet {
    fn log(&self, _: rdkafka::config::RDKafkaLogLevel, _: &str, _: &str) {}
    fn error(&self, _: KafkaError, _: &str) {}
}

/// What the broker says of a topic's own settings.
#[derive(Default)]
struct TopicConfig {
    min_insync_replicas: Option<usize>,
    max_message_bytes: Option<usize>,
}

impl Inspector {
    /// # Errors
    ///
    /// Settings that librdkafka does not take.
    pub fn new(config: &Config) -> Result<Inspector, Problem> {
        let client = settings::client(config).create_with_context(Quiet);
        let client = client.map_err(|error| Problem::new("kafka.options", error.to_string()))?;
        Ok(Inspector {
            client,
            producer: settings::producer(config),
            topics: config.topics(),
            max_body_bytes: config.http.max_body_bytes,
        })
    }

    pub fn topics(&self) -> impl Iterator<Item = &str> {
        self.topics.iter().map(|(name, _)| name.as_str())
    }

    /// Looks at every topic. Blocks for at most about the time-out for each.
    ///
    /// # Errors
    ///
    /// No broker answers.
    pub fn inspect(&self, timeout: Duration) -> Result<Vec<Finding>, QueryError> {
        let mut findings = Vec::new();
        for (name, is_for_events) in &self.topics {
            let mut find = |severity, text: String| {
                findings.push(Finding { severity, topic: name.clone(), text });
            };
            let metadata = self.metadata(name, timeout)?;
            let Some(topic) = metadata.topics().iter().find(|topic| topic.name() == name) else {
                find(Severity::Error, "the brokers say nothing of this topic".into());
                continue;
            };
            match topic.error().map(RDKafkaErrorCode::from) {
                Some(Code::UnknownTopicOrPartition | Code::UnknownTopic) => find(
                    if *is_for_events { Severity::Error } else { Severity::Missing },
                    format!(
                        "the topic does not exist; create it: kafka-topics.sh --bootstrap-server \
                         BROKER --create --topic {name} --partitions 12 --replication-factor 3 \
                         --config min.insync.replicas=2"
                    ),
                ),
                Some(code) => find(Severity::Error, format!("{code}: {}", fault::advice(code))),
                None => {
                    let config = self.topic_config(name, timeout);
                    self.judge(topic, &config, &mut find);
                }
            }
        }
        Ok(findings)
    }

    fn metadata(&self, topic: &str, timeout: Duration) -> Result<Metadata, QueryError> {
        Ok(self.client.inner().fetch_metadata(Some(topic), timeout)?)
    }

    fn judge(
        &self,
        topic: &MetadataTopic,
        config: &TopicConfig,
        find: &mut impl FnMut(Severity, String),
    ) {
        let partitions = topic.partitions();
        let leaderless = partitions.iter().filter(|partition| partition.leader() < 0).count();
        if leaderless > 0 {
            let text = format!(
                "{leaderless} of {} partitions have no leader; bring the brokers that hold them \
                 back",
                partitions.len()
            );
            find(Severity::Error, text);
        }
        let least = config.min_insync_replicas.unwrap_or(1);
        // A topic with fewer replicas than that asks for all it has (Kafka 4, KIP-966).
        let short = partitions.iter().filter(|p| p.isr().len() < least.min(p.replicas().len()));
        let short = short.count();
        if short > 0 {
            let text = format!(
                "{short} of {} partitions have fewer in-sync replicas than min.insync.replicas \
                 ({least}); bring the missing brokers back, or lower it",
                partitions.len()
            );
            find(Severity::Error, text);
        }
        let replicas = partitions.iter().map(|p| p.replicas().len()).min().unwrap_or(0);
        if replicas < least {
            let text = format!(
                "min.insync.replicas ({least}) is more than the topic has replicas ({replicas}); \
                 brokers before 4.0 refuse every click then"
            );
            find(Severity::Warning, text);
        }
        if replicas == 1 || least == 1 {
            let held = least.min(replicas);
            let text = format!(
                "a click acknowledged by {held} of {replicas} replicas is lost with that broker's \
                 disk; use a replication factor of 3 and min.insync.replicas=2"
            );
            find(Severity::Warning, text);
        }
        if let Some(bytes) = config.max_message_bytes.filter(|bytes| *bytes < self.max_body_bytes) {
            let text = format!(
                "max.message.bytes ({bytes}) is less than http.max_body_bytes ({}): larger events \
                 will be refused",
                self.max_body_bytes
            );
            find(Severity::Warning, text);
        }
    }

    /// The topic's settings, as far as the brokers tell: they may forbid it.
    fn topic_config(&self, topic: &str, timeout: Duration) -> TopicConfig {
        let options = AdminOptions::new().request_timeout(Some(timeout));
        let asked = [ResourceSpecifier::Topic(topic)];
        let answer = self.client.describe_configs(&asked, &options);
        let Ok(runtime) = tokio::runtime::Builder::new_current_thread().enable_time().build()
        else {
            return TopicConfig::default();
        };
        let answer = runtime.block_on(async { tokio::time::timeout(timeout, answer).await });
        let Ok(Ok(mut answers)) = answer else { return TopicConfig::default() };
        let Some(Ok(resource)) = answers.pop() else { return TopicConfig::default() };
        let number = |name: &str| number(&resource, name);
        TopicConfig {
            min_insync_replicas: number("min.insync.replicas"),
            max_message_bytes: number("max.message.bytes"),
        }
    }

    /// A topic in a few words, for the reader of `check --kafka`.
    ///
    /// # Errors
    ///
    /// No broker answers.
    pub fn summary(&self, topic: &str, timeout: Duration) -> Result<String, QueryError> {
        let metadata = self.metadata(topic, timeout)?;
        let partitions = metadata.topics().first().map_or(&[][..], |topic| topic.partitions());
        let replicas = partitions.iter().map(|partition| partition.replicas().len()).min();
        let least = self.topic_config(topic, timeout).min_insync_replicas;
        Ok(format!(
            "{} partitions, replicas: {}, min.insync.replicas: {}",
            partitions.len(),
            replicas.unwrap_or(0),
            least.map_or("not told".to_owned(), |least| least.to_string()),
        ))
    }

    /// Whether we may write to a topic, without writing: a record larger than the topic takes is
    /// judged for its rights first and then refused for its size. None where the brokers do not
    /// tell what size that is, or it is too large to send.
    pub fn may_write(&self, topic: &str, timeout: Duration) -> Option<Result<(), String>> {
        const PROBE_BYTES_MAX: usize = 32 << 20;
        let limit = self.topic_config(topic, timeout).max_message_bytes?;
        let size = limit.checked_add(1).filter(|size| *size <= PROBE_BYTES_MAX)?;
        let mut config = self.producer.clone();
        // Compressed, the record might fit.
        config.set("message.max.bytes", (size + (64 << 10)).to_string());
        config.set("compression.type", "none");
        let context = Probe::default();
        let verdict = context.0.clone();
        let failed = |error: KafkaError| Some(Err(QueryError::from(error).to_string()));
        let producer: BaseProducer<Probe> = match config.create_with_context(context) {
            Ok(producer) => producer,
            Err(error) => return failed(error),
        };
        let body = vec![b' '; size];
        if let Err((error, _)) = producer.send(BaseRecord::<(), _>::to(topic).payload(&body)) {
            return failed(error);
        }
        let _ = producer.flush(timeout);
        match verdict.get() {
            Some(Code::MessageSizeTooLarge) => Some(Ok(())),
            Some(code) => Some(Err(format!("{code}: {}", fault::advice(*code)))),
            None => Some(Err(format!("{}", Code::MessageTimedOut))),
        }
    }
}

fn number(resource: &ConfigResource, name: &str) -> Option<usize> {
    resource.get(name)?.value.as_ref()?.parse().ok()
}

/// Keeps the code of the one report that it waits for.
#[derive(Default)]
struct Probe(Arc<OnceLock<RDKafkaErrorCode>>);

impl ClientContext for Probe {
    fn log(&self, _: rdkafka::config::RDKafkaLogLevel, _: &str, _: &str) {}
    fn error(&self, _: KafkaError, _: &str) {}
}

impl ProducerContext for Probe {
    type DeliveryOpaque = ();

    fn delivery(&self, report: &DeliveryResult<'_>, (): ()) {
        let code = match report {
            Ok(_) => Code::NoError,
            Err((error, _)) => error.rdkafka_error_code().unwrap_or(Code::Fail),
        };
        let _ = self.0.set(code);
    }
}

impl fmt::Debug for Inspector {
    fn fmt(&self, formatter: &mut fmt::Formatter) -> fmt::Result {
        formatter.debug_struct("Inspector").field("topics", &self.topics).finish_non_exhaustive()
    }
}
