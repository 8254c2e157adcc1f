//! Asks the brokers about topics: whether they exist, have leaders and replicas, and may be written to.
//! For the supervisor, which explains failures, and for `hookbridge check --kafka`.

use std::sync::OnceLock;
use std::time::Duration;

use rdkafka::ClientContext;
use rdkafka::admin::{AdminClient, AdminOptions, ConfigResource, ResourceSpecifier};
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::error::{KafkaError, RDKafkaErrorCode as Code};
use rdkafka::message::DeliveryResult;
use rdkafka::metadata::MetadataPartition;
use rdkafka::producer::{BaseProducer, BaseRecord, Producer, ProducerContext};

use super::access::Trouble;
use super::context::code;
use super::ending::EndsInTime;
use super::token::{TokenError, Tokens};
use super::{fault, settings};
use crate::config::{Config, WebhookSettings};

/// A larger record is not sent to find out whether a topic may be written to.
const PROBE_BYTES_MAX: usize = 32 << 20;

/// A client that is not let in reports a few events each time it tries.
const EVENTS_MAX: usize = 1_000;

/// A topic as the brokers describe it.
#[derive(Debug)]
pub struct InspectedTopic {
    pub name: String,
    /// Its partitions and replicas, in a few words.
    pub summary: String,
    /// What is wrong, and what to do about it.
    pub findings: Vec<(Severity, String)>,
    /// `max.message.bytes`, if the brokers tell.
    max_message_bytes: Option<usize>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Severity {
    /// Clicks cannot be held.
    Error,
    /// Clicks are held, but not as well as they should be.
    Warning,
    /// There is no topic for dead letters: they wait in the spool.
    Missing,
}

/// Why the brokers gave no answer, and what to do about it.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct QueryError(String);

impl QueryError {
    /// About a topic, or a part of it.
    pub(super) fn about(what: &str, code: Code) -> QueryError {
        QueryError(fault::with_advice(format!("{what}: {code}"), code))
    }
}

impl From<KafkaError> for QueryError {
    fn from(error: KafkaError) -> QueryError {
        QueryError(fault::with_advice(&error, code(&error)))
    }
}

impl From<TokenError> for QueryError {
    fn from(error: TokenError) -> QueryError {
        QueryError(error.to_string())
    }
}

/// Asks about the configured topics, over connections of its own.
pub struct Inspector {
    /// Tells why it is not let in, which the other does not.
    client: BaseProducer<SilentContext>,
    admin: AdminClient<SilentContext>,
    config: Config,
}

impl Inspector {
    /// # Errors
    ///
    /// Settings that librdkafka does not take.
    pub fn new(config: &Config) -> Result<EndsInTime<Inspector>, QueryError> {
        let settings = settings::client(config);
        let client: BaseProducer<_> = settings.create_with_context(SilentContext::default())?;
        let admin: AdminClient<_> = settings.create_with_context(SilentContext::default())?;
        let inspector = EndsInTime::new(Inspector { client, admin, config: config.clone() });
        if let Some(mut tokens) = Tokens::of(config) {
            tokens.renew(inspector.client.client())?;
            tokens.renew(inspector.admin.inner())?;
        }
        Ok(inspector)
    }

    /// Inspects every topic. Blocks for at most about two time-outs for each.
    ///
    /// # Errors
    ///
    /// No broker answers.
    pub fn inspect(&self, timeout: Duration) -> Result<Vec<InspectedTopic>, QueryError> {
        let inspect = |(name, is_for_events)| self.inspect_topic(name, is_for_events, timeout);
        self.config.topics().into_iter().map(inspect).collect()
    }

    fn inspect_topic(
        &self,
        name: String,
        is_for_events: bool,
        timeout: Duration,
    ) -> Result<InspectedTopic, QueryError> {
        let metadata = self.client.client().fetch_metadata(Some(&name), timeout);
        let metadata = metadata.map_err(|error| self.explain(error))?;
        let found = metadata.topics().iter().find(|topic| topic.name() == name);
        let refusal = match found.map(|topic| topic.error().map(Code::from)) {
            Some(None) => None,
            None => Some((Severity::Error, "the brokers say nothing of this topic".to_owned())),
            Some(Some(Code::UnknownTopicOrPartition | Code::UnknownTopic)) => Some((
                if is_for_events { Severity::Error } else { Severity::Missing },
                format!(
                    "the topic does not exist; create it: kafka-topics.sh --bootstrap-server BROKER \
                     --create --topic {name} --partitions 12 --replication-factor 3 --config \
                     min.insync.replicas=2"
                ),
            )),
            Some(Some(code)) => Some((Severity::Error, fault::with_advice(code, code))),
        };
        let (summary, findings) = (String::new(), Vec::from_iter(refusal));
        let mut topic = InspectedTopic { name, summary, findings, max_message_bytes: None };
        if topic.findings.is_empty() {
            let partitions = found.map_or(&[][..], |topic| topic.partitions());
            let config = self.topic_config(&topic.name, timeout);
            let value = |key| config.as_ref()?.get(key)?.value.as_deref();
            let number = |key| value(key)?.parse().ok();
            topic.max_message_bytes = number("max.message.bytes");
            topic.check(partitions, number("min.insync.replicas"), self.config.http.max_body_bytes);
            if is_for_events {
                topic.check_timestamps(&self.config.webhook, value);
            }
        }
        Ok(topic)
    }

    /// Why the brokers do not answer: what the client has reported, if it has, says more than the time-out.
    fn explain(&self, error: KafkaError) -> QueryError {
        // Each poll serves one event, and there are few.
        for _ in 0..EVENTS_MAX {
            self.client.poll(Duration::ZERO);
        }
        let explained = self.client.context().trouble.explain(&self.config);
        explained.map_or_else(|| error.into(), QueryError)
    }

    /// The topic's configuration, if the brokers tell: they may forbid it.
    fn topic_config(&self, topic: &str, timeout: Duration) -> Option<ConfigResource> {
        let options = AdminOptions::new().request_timeout(Some(timeout));
        let topics = [ResourceSpecifier::Topic(topic)];
        let answer = self.admin.describe_configs(&topics, &options);
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().ok()?;
        let answer = runtime.block_on(async { tokio::time::timeout(timeout, answer).await });
        answer.ok()?.ok()?.pop()?.ok()
    }

    /// Whether we are known to have the right to write to a topic, without writing: the brokers check the
    /// rights of a record first, and then refuse one that is larger than the topic takes. Unknown where they
    /// do not tell what size that is, or it is too large to send.
    ///
    /// # Errors
    ///
    /// We have no such right, or no broker answers.
    pub fn may_write(&self, topic: &InspectedTopic, timeout: Duration) -> Result<bool, QueryError> {
        let size = topic.max_message_bytes.and_then(|bytes| bytes.checked_add(1));
        let Some(size) = size.filter(|size| *size <= PROBE_BYTES_MAX) else { return Ok(false) };
        let mut config = settings::producer(&self.config);
        config.set("message.max.bytes", (size + (64 << 10)).to_string());
        // Compressed, the record might fit.
        config.set("compression.type", "none");
        let producer: BaseProducer<_> = config.create_with_context(SilentContext::default())?;
        let producer = EndsInTime::new(producer);
        if let Some(mut tokens) = Tokens::of(&self.config) {
            tokens.renew(producer.client())?;
        }
        let record = vec![b' '; size];
        let sent = producer.send(BaseRecord::<(), _>::to(&topic.name).payload(&record));
        sent.map_err(|(error, _)| error)?;
        let _ = producer.flush(timeout);
        match producer.context().report.get().copied() {
            Some(Code::MessageSizeTooLarge) => Ok(true),
            Some(code) => Err(QueryError(fault::with_advice(code, code))),
            None => Err(QueryError(Code::MessageTimedOut.to_string())),
        }
    }
}

impl InspectedTopic {
    /// Finds what is wrong with an existing topic.
    fn check(
        &mut self,
        partitions: &[MetadataPartition],
        min_insync_replicas: Option<usize>,
        max_body_bytes: usize,
    ) {
        let all = partitions.len();
        let least = min_insync_replicas.unwrap_or(1);
        let replicas = partitions.iter().map(|p| p.replicas().len()).min().unwrap_or(0);
        self.summary = format!(
            "{all} partitions, replicas: {replicas}, min.insync.replicas: {}",
            min_insync_replicas.map_or("not told".to_owned(), |least| least.to_string()),
        );
        let leaderless = partitions.iter().filter(|p| p.leader() < 0).count();
        if leaderless > 0 {
            self.error(format!(
                "{leaderless} of {all} partitions have no leader; bring the brokers that hold them back"
            ));
        }
        // A topic with fewer replicas than that asks for all it has (Kafka 4, KIP-966).
        let is_short = |p: &&MetadataPartition| p.isr().len() < least.min(p.replicas().len());
        let short = partitions.iter().filter(is_short).count();
        if short > 0 {
            self.error(format!(
                "{short} of {all} partitions have fewer in-sync replicas than min.insync.replicas \
                 ({least}); bring the missing brokers back, or lower it"
            ));
        }
        if replicas < least {
            self.warn(format!(
                "min.insync.replicas ({least}) is more than the topic has replicas ({replicas}); \
                 brokers before 4.0 refuse every click then"
            ));
        }
        if replicas == 1 || least == 1 {
            self.warn(format!(
                "a click acknowledged by {} of {replicas} replicas is lost with that broker's disk; \
                 use a replication factor of 3 and min.insync.replicas=2",
                least.min(replicas),
            ));
        }
        if let Some(bytes) = self.max_message_bytes.filter(|bytes| *bytes < max_body_bytes) {
            self.warn(format!(
                "max.message.bytes ({bytes}) is less than http.max_body_bytes ({max_body_bytes}): \
                 larger events will be refused"
            ));
        }
    }

    /// Finds settings of the topic that contradict the times that its webhooks believe.
    fn check_timestamps<'v>(
        &mut self,
        webhooks: &[WebhookSettings],
        value: impl Fn(&'static str) -> Option<&'v str>,
    ) {
        if value("message.timestamp.type") == Some("LogAppendTime") {
            self.warn(
                "message.timestamp.type is LogAppendTime: records have the broker's time, and not that of \
                 their click; set it to CreateTime"
                    .to_owned(),
            );
            return;
        }
        let number = |key| value(key).and_then(|text| text.parse::<u64>().ok());
        let (before, after) = ("message.timestamp.before.max.ms", "message.timestamp.after.max.ms");
        let of_topic = |webhook: &&WebhookSettings| webhook.topic == self.name;
        for webhook in webhooks.iter().filter(of_topic).collect::<Vec<_>>() {
            let age = ("timestamp_max_age_s", webhook.timestamp_max_age_s);
            let ahead = ("timestamp_max_ahead_s", webhook.timestamp_max_ahead_s);
            for (key, (setting, seconds)) in [(before, age), (after, ahead)] {
                let Some(taken) = number(key).filter(|ms| *ms < u64::from(seconds) * 1_000) else {
                    continue;
                };
                self.warn(format!(
                    "{key} ({taken}) is less than {setting} ({seconds}) of the webhook {}: a click between \
                     the two gets the time of receipt as its timestamp; raise the one or lower the other",
                    webhook.name
                ));
            }
        }
    }

    fn error(&mut self, text: String) {
        self.findings.push((Severity::Error, text));
    }

    fn warn(&mut self, text: String) {
        self.findings.push((Severity::Warning, text));
    }
}

/// Logs nothing, because the publisher's client logs the same. Keeps the code of one delivery report, and why the
/// client is not let in.
#[derive(Default)]
struct SilentContext {
    report: OnceLock<Code>,
    trouble: Trouble,
}

impl ClientContext for SilentContext {
    fn log(&self, _: RDKafkaLogLevel, _: &str, _: &str) {}
    fn error(&self, error: KafkaError, reason: &str) {
        self.trouble.note(code(&error), reason);
    }
}

impl ProducerContext for SilentContext {
    type DeliveryOpaque = ();

    fn delivery(&self, report: &DeliveryResult<'_>, (): ()) {
        let code = report.as_ref().map_or_else(|(error, _)| code(error), |_| Code::NoError);
        let _ = self.report.set(code);
    }
}
