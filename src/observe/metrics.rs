//! Every metric: its name, help, labels, and the registry it lives on.
//!
//! Label values come from enums and from the config, never from a sender, and every combination
//! exists from the start: a series that is absent until the first failure cannot be alerted on.

use std::collections::BTreeSet;
use std::sync::{Mutex, PoisonError};

use prometheus::core::Metric;
use prometheus::{
    Encoder, Histogram, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGauge,
    IntGaugeVec, Opts, Registry, TextEncoder,
};

use crate::click::outcome::Outcome;
use crate::observe::log;
use crate::observe::sampler::Sampler;

/// The value of the label `webhook` where a request has none: no such path, or not even HTTP.
pub const NO_WEBHOOK: &str = "none";

/// The value of the label `topic` for records from the spool whose topic is no longer configured.
const OTHER_TOPIC: &str = "other";

/// Seconds, for answers and acknowledgements alike: a broker near by takes a few milliseconds, and
/// the answer is due after 3 s.
pub const BUCKETS: [f64; 13] =
    [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 1.5, 2.5, 5.0];

/// All metrics of one bridge.
pub struct Metrics {
    registry: Registry,
    /// By webhook, and within it by [`Outcome::index`]; the last row is for [`NO_WEBHOOK`].
    requests: Vec<Vec<IntCounter>>,
    /// By webhook; the last is for [`NO_WEBHOOK`].
    request_seconds: Vec<Histogram>,
    topics: ByName<TopicMetrics>,
    /// By webhook, and within it by [`DeadLetterReason`].
    dead_letters: ByName<Vec<IntCounter>>,
    /// By the key's name; [`Metrics::set_keys`] says which there are.
    key_uses_after_end: IntCounterVec,
    keys: Mutex<BTreeSet<String>>,
    pub requests_in_flight: IntGauge,
    pub bytes_in_flight: IntGauge,
    pub connections: ConnectionMetrics,
    pub log_lines_left_out: IntCounter,
    pub kafka_queue: IntGauge,
    pub kafka_brokers_up: IntGauge,
    pub producer_rebuilds: IntCounter,
    log_lines_lost: IntCounter,
    pub spool: SpoolMetrics,
    pub breaker: BreakerMetrics,
    pub tls: TlsMetrics,
    /// By [`Reloaded`]: failed, ok.
    reloads: Vec<[IntCounter; 2]>,
    /// No metrics, but what is looked at closely only while somebody looks.
    pub sampler: Sampler,
}

/// What has been counted so far, over all webhooks and topics.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Counts {
    /// By [`Outcome::index`].
    pub outcomes: [u64; Outcome::COUNT],
    /// By [`DeadLetterReason`].
    pub dead_letters: [u64; DeadLetterReason::ALL.len()],
    pub answers: Observations,
    pub acknowledgements: Observations,
    /// Records that the Kafka client was given, and that were not acknowledged.
    pub not_acknowledged: u64,
}

/// How often something took as long as each of [`BUCKETS`], or less; the last is all of them.
pub type Observations = [u64; BUCKETS.len() + 1];

/// What is counted of TLS.
#[derive(Clone)]
pub struct TlsMetrics {
    pub certificate_expires: IntGauge,
    /// By [`HandshakeFailure`].
    handshakes_failed: Vec<IntCounter>,
}

/// Why there was no TLS handshake.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HandshakeFailure {
    Timeout,
    /// The sender went away, as port scanners do.
    HungUp,
    /// The sender's certificate is missing or does not verify.
    ClientCertificate,
    /// The two found no way, or what came was not TLS.
    Protocol,
}

impl HandshakeFailure {
    pub const ALL: [HandshakeFailure; 4] = [
        HandshakeFailure::Timeout,
        HandshakeFailure::HungUp,
        HandshakeFailure::ClientCertificate,
        HandshakeFailure::Protocol,
    ];

    /// The value of the label `reason`.
    pub fn tag(self) -> &'static str {
        match self {
            HandshakeFailure::Timeout => "timeout",
            HandshakeFailure::HungUp => "hung_up",
            HandshakeFailure::ClientCertificate => "client_certificate",
            HandshakeFailure::Protocol => "protocol",
        }
    }
}

impl TlsMetrics {
    fn new(registry: &Registry) -> prometheus::Result<TlsMetrics> {
        let failed = counters(
            registry,
            "hookbridge_tls_handshakes_failed_total",
            "TLS handshakes that failed, by reason",
            &["reason"],
        )?;
        Ok(TlsMetrics {
            certificate_expires: gauge(
                registry,
                "hookbridge_tls_certificate_expires_seconds",
                "When the certificate in force ends, in Unix time; 0 without TLS",
            )?,
            handshakes_failed: HandshakeFailure::ALL
                .map(|failure| failed.with_label_values(&[failure.tag()]))
                .into(),
        })
    }

    pub fn failed(&self, failure: HandshakeFailure) {
        self.handshakes_failed[failure as usize].inc();
    }
}

/// What follows its file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reloaded {
    Keys,
    Tls,
    Log,
}

impl Reloaded {
    pub const ALL: [Reloaded; 3] = [Reloaded::Keys, Reloaded::Tls, Reloaded::Log];

    /// The value of the label `what`.
    pub fn tag(self) -> &'static str {
        match self {
            Reloaded::Keys => "keys",
            Reloaded::Tls => "tls",
            Reloaded::Log => "log",
        }
    }
}

/// What is counted of the spool.
#[derive(Clone)]
pub struct SpoolMetrics {
    pub events: IntGauge,
    pub bytes: IntGauge,
    pub max_bytes: IntGauge,
    pub oldest_age_seconds: IntGauge,
    pub working: IntGauge,
    pub set_aside: IntGauge,
    pub written: IntCounter,
    pub drained: IntCounter,
    pub refused_full: IntCounter,
    pub refused_failed: IntCounter,
    pub damages: IntCounter,
}

/// What is counted of the breaker.
#[derive(Clone)]
pub struct BreakerMetrics {
    pub is_open: IntGauge,
    pub opened: IntCounter,
    pub closed: IntCounter,
}

/// Why a body became a dead letter.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DeadLetterReason {
    /// It is not JSON.
    Malformed,
    /// It is not an event of its webhook.
    Invalid,
    /// Its topic takes no record of this size.
    TooLarge,
    /// Kafka does not take it as it is.
    Corrupt,
}

impl DeadLetterReason {
    pub const ALL: [DeadLetterReason; 4] = [
        DeadLetterReason::Malformed,
        DeadLetterReason::Invalid,
        DeadLetterReason::TooLarge,
        DeadLetterReason::Corrupt,
    ];

    /// The value of the label `reason`, and of the record's header.
    pub fn tag(self) -> &'static str {
        match self {
            DeadLetterReason::Malformed => "malformed",
            DeadLetterReason::Invalid => "invalid",
            DeadLetterReason::TooLarge => "too_large",
            DeadLetterReason::Corrupt => "corrupt",
        }
    }
}

/// What is counted of one topic.
#[derive(Clone)]
pub struct TopicMetrics {
    pub ack_seconds: Histogram,
    /// By [`RecordResult`].
    records: Vec<IntCounter>,
}

/// How a record's way to Kafka ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RecordResult {
    Acknowledged,
    QueueFull,
    /// The client takes it for acknowledged, and no broker said so.
    Unproven,
    TimedOut,
    TooLarge,
    Corrupt,
    Refused,
    /// The producer broke down and was replaced.
    ProducerFailed,
}

impl RecordResult {
    pub const ALL: [RecordResult; 8] = [
        RecordResult::Acknowledged,
        RecordResult::QueueFull,
        RecordResult::Unproven,
        RecordResult::TimedOut,
        RecordResult::TooLarge,
        RecordResult::Corrupt,
        RecordResult::Refused,
        RecordResult::ProducerFailed,
    ];

    /// The value of the label `result`.
    pub fn tag(self) -> &'static str {
        match self {
            RecordResult::Acknowledged => "acknowledged",
            RecordResult::QueueFull => "queue_full",
            RecordResult::Unproven => "unproven",
            RecordResult::TimedOut => "timed_out",
            RecordResult::TooLarge => "too_large",
            RecordResult::Corrupt => "corrupt",
            RecordResult::Refused => "refused",
            RecordResult::ProducerFailed => "producer_failed",
        }
    }
}

/// What is counted of a listener's connections.
#[derive(Clone)]
pub struct ConnectionMetrics {
    pub open: IntGauge,
    pub over_limit: IntCounter,
    pub over_address_limit: IntCounter,
    pub no_descriptor: IntCounter,
}

impl TopicMetrics {
    pub fn count(&self, result: RecordResult) {
        self.records[result as usize].inc();
    }
}

impl Metrics {
    /// Registers everything for webhooks and topics of these names.
    ///
    /// # Errors
    ///
    /// A name that Prometheus does not take, or that is taken twice.
    pub fn new(webhooks: &[&str], topics: &[&str]) -> prometheus::Result<Metrics> {
        let registry = Registry::new();
        let names = || webhooks.iter().copied().chain([NO_WEBHOOK]);
        let requests = counters(
            &registry,
            "hookbridge_requests_total",
            "Requests by webhook and by how they ended",
            &["webhook", "outcome"],
        )?;
        let request_seconds = histograms(
            &registry,
            "hookbridge_request_duration_seconds",
            "From a request's head to its answer",
            "webhook",
        )?;
        let ack_seconds = histograms(
            &registry,
            "hookbridge_kafka_ack_duration_seconds",
            "From handing a record to the Kafka client to Kafka's acknowledgement",
            "topic",
        )?;
        let records = counters(
            &registry,
            "hookbridge_kafka_records_total",
            "Records handed to the Kafka client, by topic and by what became of them",
            &["topic", "result"],
        )?;
        let dead_letters = counters(
            &registry,
            "hookbridge_dead_letters_total",
            "Bodies kept as dead letters, by webhook and reason",
            &["webhook", "reason"],
        )?;
        let key_uses_after_end = counters(
            &registry,
            "hookbridge_key_uses_after_end_total",
            "Requests refused because their key's life had ended, by the key's name",
            &["key"],
        )?;
        let reloads = counters(
            &registry,
            "hookbridge_reloads_total",
            "Changed files that were taken (ok) or not (failed), by what is in them",
            &["what", "result"],
        )?;
        let build = IntGaugeVec::new(
            Opts::new("hookbridge_build_info", "Always 1; the version is in the label"),
            &["version"],
        )?;
        registry.register(Box::new(build.clone()))?;
        build.with_label_values(&[env!("CARGO_PKG_VERSION")]).set(1);
        registry.register(Box::new(prometheus::process_collector::ProcessCollector::for_self()))?;
        Ok(Metrics {
            requests: names()
                .map(|name| {
                    let counter = |outcome: Outcome| [name, outcome.facts().tag];
                    Outcome::all().map(|o| requests.with_label_values(&counter(o))).collect()
                })
                .collect(),
            request_seconds: names().map(|n| request_seconds.with_label_values(&[n])).collect(),
            topics: ByName::new(topics, OTHER_TOPIC, |topic| {
                let counter = |result: RecordResult| [topic, result.tag()];
                let count = RecordResult::ALL.map(|r| records.with_label_values(&counter(r)));
                let ack_seconds = ack_seconds.with_label_values(&[topic]);
                TopicMetrics { ack_seconds, records: count.into() }
            }),
            dead_letters: ByName::new(webhooks, NO_WEBHOOK, |webhook| {
                let counter = |reason: DeadLetterReason| [webhook, reason.tag()];
                DeadLetterReason::ALL.map(|r| dead_letters.with_label_values(&counter(r))).into()
            }),
            key_uses_after_end,
            keys: Mutex::default(),
            requests_in_flight: gauge(
                &registry,
                "hookbridge_requests_in_flight",
                "Requests being served",
            )?,
            bytes_in_flight: gauge(
                &registry,
                "hookbridge_body_bytes_in_flight",
                "Bytes of the bodies being served",
            )?,
            connections: ConnectionMetrics::new(&registry)?,
            log_lines_left_out: counter(
                &registry,
                "hookbridge_log_lines_left_out_total",
                "Lines of refused requests and dead letters that were too many for the log",
            )?,
            kafka_queue: gauge(
                &registry,
                "hookbridge_kafka_queue_messages",
                "Records in the Kafka client, queued or on their way",
            )?,
            kafka_brokers_up: gauge(
                &registry,
                "hookbridge_kafka_brokers_up",
                "Brokers that the Kafka client is connected to",
            )?,
            log_lines_lost: counter(
                &registry,
                "hookbridge_log_lines_lost_total",
                "Log lines that were lost because nobody read them in time",
            )?,
            producer_rebuilds: counter(
                &registry,
                "hookbridge_kafka_producer_rebuilds_total",
                "Producers replaced after a fatal error",
            )?,
            spool: SpoolMetrics::new(&registry)?,
            breaker: BreakerMetrics::new(&registry)?,
            tls: TlsMetrics::new(&registry)?,
            reloads: Reloaded::ALL
                .map(|what| {
                    ["failed", "ok"].map(|result| reloads.with_label_values(&[what.tag(), result]))
                })
                .into(),
            sampler: Sampler::default(),
            registry,
        })
    }

    /// Counts a request's end, once. `webhook` is the index of its webhook, if it has one.
    pub fn request(&self, webhook: Option<usize>, outcome: Outcome, seconds: f64) {
        let row = webhook.unwrap_or(self.requests.len() - 1);
        self.requests[row][outcome.index()].inc();
        self.request_seconds[row].observe(seconds);
    }

    /// What is counted of this topic; one that is no longer configured counts as `other`.
    pub fn topic(&self, name: &str) -> &TopicMetrics {
        self.topics.get(name)
    }

    /// Counts a dead letter. A webhook that is no longer configured counts as [`NO_WEBHOOK`].
    pub fn dead_letter(&self, webhook: &str, reason: DeadLetterReason) {
        self.dead_letters(webhook, reason, 1);
    }

    /// The same for so many of them.
    pub fn dead_letters(&self, webhook: &str, reason: DeadLetterReason, count: u64) {
        self.dead_letters.get(webhook)[reason as usize].inc_by(count);
    }

    /// Makes a series for each of these keys and drops those of others, so that there are never more
    /// than the settings name.
    pub fn set_keys<'k>(&self, names: impl Iterator<Item = &'k str>) {
        let names: BTreeSet<String> = names.map(str::to_owned).collect();
        let mut keys = self.keys.lock().unwrap_or_else(PoisonError::into_inner);
        for name in keys.difference(&names) {
            let _ = self.key_uses_after_end.remove_label_values(&[name]);
        }
        for name in &names {
            self.key_uses_after_end.with_label_values(&[name]);
        }
        *keys = names;
    }

    /// Counts a use of this key after its end.
    pub fn key_used_after_end(&self, name: &str) {
        // A key that has just been taken out gets no series again.
        if self.keys.lock().unwrap_or_else(PoisonError::into_inner).contains(name) {
            self.key_uses_after_end.with_label_values(&[name]).inc();
        }
    }

    /// Counts a reload.
    pub fn reload(&self, what: Reloaded, is_ok: bool) {
        self.reloads[what as usize][usize::from(is_ok)].inc();
    }

    /// What has been counted so far.
    pub fn counts(&self) -> Counts {
        let mut counts = Counts {
            outcomes: [0; Outcome::COUNT],
            dead_letters: [0; DeadLetterReason::ALL.len()],
            answers: Observations::default(),
            acknowledgements: Observations::default(),
            not_acknowledged: 0,
        };
        self.requests.iter().for_each(|row| add(&mut counts.outcomes, row));
        self.dead_letters.iter().for_each(|row| add(&mut counts.dead_letters, row));
        self.request_seconds.iter().for_each(|seconds| observed(&mut counts.answers, seconds));
        for topic in self.topics.iter() {
            observed(&mut counts.acknowledgements, &topic.ack_seconds);
            let failures = topic.records.iter().skip(RecordResult::Acknowledged as usize + 1);
            counts.not_acknowledged += failures.map(IntCounter::get).sum::<u64>();
        }
        counts
    }

    /// Everything in Prometheus' text form.
    ///
    /// # Errors
    ///
    /// A metric that cannot be written.
    pub fn scrape(&self) -> prometheus::Result<Vec<u8>> {
        self.log_lines_lost.inc_by(log::lost().saturating_sub(self.log_lines_lost.get()));
        let mut text = Vec::new();
        TextEncoder::new().encode(&self.registry.gather(), &mut text)?;
        Ok(text)
    }
}

fn add(sums: &mut [u64], counters: &[IntCounter]) {
    for (sum, counter) in sums.iter_mut().zip(counters) {
        *sum += counter.get();
    }
}

fn observed(sums: &mut Observations, histogram: &Histogram) {
    let metric = histogram.metric();
    let histogram = metric.get_histogram();
    for (sum, bucket) in sums.iter_mut().zip(histogram.get_bucket()) {
        *sum += bucket.cumulative_count();
    }
    sums[BUCKETS.len()] += histogram.get_sample_count();
}

/// Something for each of a few names, and for all others together.
struct ByName<T> {
    named: Vec<(String, T)>,
    others: T,
}

impl<T> ByName<T> {
    fn new(names: &[&str], others: &str, make: impl Fn(&str) -> T) -> ByName<T> {
        let named = names.iter().map(|name| ((*name).to_owned(), make(name))).collect();
        ByName { named, others: make(others) }
    }

    fn iter(&self) -> impl Iterator<Item = &T> {
        self.named.iter().map(|(_, row)| row).chain([&self.others])
    }

    fn get(&self, name: &str) -> &T {
        self.named.iter().find(|row| row.0 == name).map_or(&self.others, |(_, row)| row)
    }
}

impl SpoolMetrics {
    fn new(registry: &Registry) -> prometheus::Result<SpoolMetrics> {
        let refused = counters(
            registry,
            "hookbridge_spool_refused_total",
            "Events that the spool could not take, by reason",
            &["reason"],
        )?;
        Ok(SpoolMetrics {
            events: gauge(
                registry,
                "hookbridge_spool_events",
                "Events that wait on disk for Kafka",
            )?,
            bytes: gauge(
                registry,
                "hookbridge_spool_bytes",
                "Bytes of the events that wait on disk",
            )?,
            max_bytes: gauge(
                registry,
                "hookbridge_spool_max_bytes",
                "How many bytes may wait on disk; 0 without a spool",
            )?,
            oldest_age_seconds: gauge(
                registry,
                "hookbridge_spool_oldest_age_seconds",
                "How long the oldest event has waited on disk",
            )?,
            working: gauge(
                registry,
                "hookbridge_spool_working",
                "Whether the spool takes events: 1, or 0 while it is off, full or broken",
            )?,
            set_aside: gauge(
                registry,
                "hookbridge_spool_set_aside_events",
                "Events kept on disk that neither the topic nor its dead letters take",
            )?,
            written: counter(
                registry,
                "hookbridge_spool_written_total",
                "Events written to the spool",
            )?,
            drained: counter(
                registry,
                "hookbridge_spool_drained_total",
                "Events that left the spool for Kafka",
            )?,
            refused_full: refused.with_label_values(&["full"]),
            refused_failed: refused.with_label_values(&["failed"]),
            damages: counter(
                registry,
                "hookbridge_spool_damages_total",
                "Damaged files and events that were set aside",
            )?,
        })
    }
}

impl BreakerMetrics {
    fn new(registry: &Registry) -> prometheus::Result<BreakerMetrics> {
        let changes = counters(
            registry,
            "hookbridge_breaker_changes_total",
            "How often the direct way to Kafka was left (open) and resumed (closed)",
            &["to"],
        )?;
        Ok(BreakerMetrics {
            is_open: gauge(
                registry,
                "hookbridge_breaker_open",
                "Whether events go to the spool without trying Kafka first",
            )?,
            opened: changes.with_label_values(&["open"]),
            closed: changes.with_label_values(&["closed"]),
        })
    }
}

impl ConnectionMetrics {
    pub fn new(registry: &Registry) -> prometheus::Result<ConnectionMetrics> {
        let refused = counters(
            registry,
            "hookbridge_connections_refused_total",
            "Connections refused, and pauses of the listener, by what ran out",
            &["reason"],
        )?;
        Ok(ConnectionMetrics {
            open: gauge(registry, "hookbridge_connections", "Open connections of senders")?,
            over_limit: refused.with_label_values(&["limit"]),
            over_address_limit: refused.with_label_values(&["address_limit"]),
            no_descriptor: refused.with_label_values(&["file_descriptors"]),
        })
    }
}

fn counter(registry: &Registry, name: &str, help: &str) -> prometheus::Result<IntCounter> {
    let counter = IntCounter::new(name, help)?;
    registry.register(Box::new(counter.clone()))?;
    Ok(counter)
}

fn counters(
    registry: &Registry,
    name: &str,
    help: &str,
    labels: &[&str],
) -> prometheus::Result<IntCounterVec> {
    let counters = IntCounterVec::new(Opts::new(name, help), labels)?;
    registry.register(Box::new(counters.clone()))?;
    Ok(counters)
}

fn gauge(registry: &Registry, name: &str, help: &str) -> prometheus::Result<IntGauge> {
    let gauge = IntGauge::new(name, help)?;
    registry.register(Box::new(gauge.clone()))?;
    Ok(gauge)
}

fn histograms(
    registry: &Registry,
    name: &str,
    help: &str,
    label: &str,
) -> prometheus::Result<HistogramVec> {
    let options = HistogramOpts::new(name, help).buckets(BUCKETS.to_vec());
    let histograms = HistogramVec::new(options, &[label])?;
    registry.register(Box::new(histograms.clone()))?;
    Ok(histograms)
}
