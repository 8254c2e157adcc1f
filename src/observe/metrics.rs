//! Every metric: its name, help, labels, and the registry it lives on.
//!
//! Label values come from enums (`metrics/labels.rs`) and from the config, never from a sender, and every
//! combination exists from the start: a series that is absent until the first failure cannot be alerted on.

mod labels;

use std::collections::BTreeSet;
use std::marker::PhantomData;
use std::ops::Index;
use std::sync::Mutex;

use prometheus::core::{Collector, Metric};
use prometheus::{
    Encoder, Histogram, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGauge,
    IntGaugeVec, Opts, Registry, TextEncoder,
};

use crate::click::outcome::Outcome;
use crate::observe::sampler::Sampler;
use crate::observe::{lock, log};
pub use labels::{
    BreakerChange, ConnectionRefusal, DeadLetterReason, HandshakeFailure, Label, RecordResult,
    ReloadResult, Reloaded, SpoolRefusal,
};

/// The value of the label `webhook` where a request has none: no such path, or not even HTTP.
pub const NO_WEBHOOK: &str = "none";

/// The value of the label `topic` for records from the spool whose topic is no longer configured.
const OTHER_TOPIC: &str = "other";

/// Upper bounds in seconds, for answers and acknowledgements: a broker near by takes a few milliseconds,
/// and the answer is due after 3 s.
pub const BUCKETS: [f64; 13] =
    [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 1.5, 2.5, 5.0];

/// Declares groups of metrics by field, type, name and help. In brackets: the labels whose values are
/// only known from the settings; a group has one row for each value.
macro_rules! metrics {
    ($(
        $(#[$attribute:meta])*
        $group:ident $labels:tt {
            $($field:ident: $type:ty = $name:literal, $help:literal;)*
        }
    )*) => {$(
        $(#[$attribute])*
        #[derive(Clone)]
        pub struct $group {
            $(#[doc = $help] pub $field: $type,)*
        }

        impl $group {
            /// Registers the metrics and gives what makes a row of them.
            fn rows(registry: &Registry) -> prometheus::Result<impl Fn(&[&str]) -> $group + use<>> {
                $(let $field = register::<$type>(registry, $name, $help, &$labels)?;)*
                Ok(move |values: &[&str]| $group { $($field: Registered::row(&$field, values),)* })
            }
        }
    )*};
}

metrics! {
    /// What is counted of one webhook.
    WebhookMetrics ["webhook"] {
        requests: Counters<Outcome> = "hookbridge_requests_total",
            "Requests by webhook and by how they ended";
        request_seconds: Histogram = "hookbridge_request_duration_seconds",
            "From a request's head to its answer";
        dead_letters: Counters<DeadLetterReason> = "hookbridge_dead_letters_total",
            "Bodies kept as dead letters, by webhook and reason";
        restamped: IntCounter = "hookbridge_restamped_events_total",
            "Events in Kafka without their own time as timestamp, because their topic refuses it";
    }

    /// What is counted of one topic.
    TopicMetrics ["topic"] {
        ack_seconds: Histogram = "hookbridge_kafka_ack_duration_seconds",
            "From handing a record to the Kafka client to Kafka's acknowledgement";
        records: Counters<RecordResult> = "hookbridge_kafka_records_total",
            "Records handed to the Kafka client, by topic and by what became of them";
    }

    /// The load that is limited by the settings.
    InFlightMetrics [] {
        requests: IntGauge = "hookbridge_requests_in_flight", "Requests being served";
        body_bytes: IntGauge = "hookbridge_body_bytes_in_flight", "Bytes of the bodies being served";
    }

    /// What is counted of a listener's connections.
    ConnectionMetrics [] {
        open: IntGauge = "hookbridge_connections", "Open connections of senders";
        refused: Counters<ConnectionRefusal> = "hookbridge_connections_refused_total",
            "Connections refused, and pauses of the listener, by what ran out";
    }

    /// What is counted of TLS.
    TlsMetrics [] {
        certificate_expires: IntGauge = "hookbridge_tls_certificate_expires_seconds",
            "When the certificate in force ends, in Unix time; 0 without TLS";
        handshakes_failed: Counters<HandshakeFailure> = "hookbridge_tls_handshakes_failed_total",
            "TLS handshakes that failed, by reason";
    }

    /// What is counted of the Kafka client.
    KafkaMetrics [] {
        queue: IntGauge = "hookbridge_kafka_queue_messages",
            "Records in the Kafka client, queued or on their way";
        brokers_up: IntGauge = "hookbridge_kafka_brokers_up",
            "Brokers that the Kafka client is connected to";
        producer_rebuilds: IntCounter = "hookbridge_kafka_producer_rebuilds_total",
            "Producers replaced after a fatal error";
    }

    /// What is counted of the circuit breaker.
    BreakerMetrics [] {
        is_open: IntGauge = "hookbridge_breaker_open",
            "Whether events go to the spool without trying Kafka first";
        changes: Counters<BreakerChange> = "hookbridge_breaker_changes_total",
            "How often the direct way to Kafka was left (open) and resumed (closed)";
    }

    /// What is counted of the spool.
    SpoolMetrics [] {
        events: IntGauge = "hookbridge_spool_events", "Events that wait on disk for Kafka";
        bytes: IntGauge = "hookbridge_spool_bytes", "Bytes of the events that wait on disk";
        max_bytes: IntGauge = "hookbridge_spool_max_bytes",
            "How many bytes may wait on disk; 0 without a spool";
        oldest_age_seconds: IntGauge = "hookbridge_spool_oldest_age_seconds",
            "How long the oldest event has waited on disk";
        working: IntGauge = "hookbridge_spool_working",
            "Whether the spool takes events: 1, or 0 while it is off, full or broken";
        set_aside: IntGauge = "hookbridge_spool_set_aside_events",
            "Events kept on disk that neither the topic nor its dead letters take";
        written: IntCounter = "hookbridge_spool_written_total", "Events written to the spool";
        drained: IntCounter = "hookbridge_spool_drained_total", "Events that left the spool for Kafka";
        refused: Counters<SpoolRefusal> = "hookbridge_spool_refused_total",
            "Events that the spool could not take, by reason";
        damages: IntCounter = "hookbridge_spool_damages_total",
            "Damaged files and events of the spool";
        lost: IntCounter = "hookbridge_spool_lost_events_total",
            "Events that were in the spool and cannot be read any more";
    }

    /// What is counted of the log.
    LogMetrics [] {
        lines_left_out: IntCounter = "hookbridge_log_lines_left_out_total",
            "Lines of refused requests and dead letters that were too many for the log";
        lines_lost: IntCounter = "hookbridge_log_lines_lost_total",
            "Log lines that were lost because nobody read them in time";
    }

    /// What is counted of one kind of file that is read again.
    ReloadMetrics ["what"] {
        reloads: Counters<ReloadResult> = "hookbridge_reloads_total",
            "Changed files that were taken (ok) or not (failed), by what is in them";
    }

    /// Which version this is.
    BuildMetrics ["version"] {
        info: IntGauge = "hookbridge_build_info", "Always 1; the version is in the label";
    }
}

/// All metrics of one bridge.
pub struct Metrics {
    registry: Registry,
    /// The other one is for [`NO_WEBHOOK`].
    webhooks: ByName<WebhookMetrics>,
    topics: ByName<TopicMetrics>,
    pub in_flight: InFlightMetrics,
    pub connections: ConnectionMetrics,
    pub tls: TlsMetrics,
    pub kafka: KafkaMetrics,
    pub breaker: BreakerMetrics,
    pub spool: SpoolMetrics,
    pub log: LogMetrics,
    /// By the key's name; [`Metrics::set_keys`] says which there are.
    key_uses_after_end: IntCounterVec,
    keys: Mutex<BTreeSet<String>>,
    /// By [`Reloaded`].
    reloads: [ReloadMetrics; Reloaded::ALL.len()],
    /// No metrics, but the copies of records that the page shows.
    pub sampler: Sampler,
}

/// What has been counted so far, over all webhooks and topics.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
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

/// How many observations are at most each of [`BUCKETS`]; the last is all of them.
pub type Observations = [u64; BUCKETS.len() + 1];

impl ConnectionMetrics {
    /// Registers them.
    ///
    /// # Errors
    ///
    /// They are registered already.
    pub fn new(registry: &Registry) -> prometheus::Result<ConnectionMetrics> {
        Ok(ConnectionMetrics::rows(registry)?(&[]))
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
        let key_uses_after_end = register::<IntCounter>(
            &registry,
            "hookbridge_key_uses_after_end_total",
            "Requests refused because their key's life had ended, by the key's name",
            &["key"],
        )?;
        let reloads = ReloadMetrics::rows(&registry)?;
        let build = BuildMetrics::rows(&registry)?;
        build(&[env!("CARGO_PKG_VERSION")]).info.set(1);
        registry.register(Box::new(prometheus::process_collector::ProcessCollector::for_self()))?;
        Ok(Metrics {
            webhooks: ByName::new(webhooks, NO_WEBHOOK, WebhookMetrics::rows(&registry)?),
            topics: ByName::new(topics, OTHER_TOPIC, TopicMetrics::rows(&registry)?),
            in_flight: InFlightMetrics::rows(&registry)?(&[]),
            connections: ConnectionMetrics::new(&registry)?,
            tls: TlsMetrics::rows(&registry)?(&[]),
            kafka: KafkaMetrics::rows(&registry)?(&[]),
            breaker: BreakerMetrics::rows(&registry)?(&[]),
            spool: SpoolMetrics::rows(&registry)?(&[]),
            log: LogMetrics::rows(&registry)?(&[]),
            key_uses_after_end,
            keys: Mutex::default(),
            reloads: Reloaded::ALL.map(|what| reloads(&[what.tag()])),
            sampler: Sampler::default(),
            registry,
        })
    }

    /// Counts a request's end, once. `webhook` is the index of its webhook, if it has one.
    pub fn request(&self, webhook: Option<usize>, outcome: Outcome, seconds: f64) {
        let webhook = self.webhooks.at(webhook);
        webhook.requests[outcome].inc();
        webhook.request_seconds.observe(seconds);
    }

    /// What is counted of this topic; one that is no longer configured counts as `other`.
    pub fn topic(&self, name: &str) -> &TopicMetrics {
        self.topics.get(name)
    }

    /// Counts dead letters. A webhook that is no longer configured counts as [`NO_WEBHOOK`].
    pub fn dead_letters(&self, webhook: &str, reason: DeadLetterReason, count: u64) {
        self.webhooks.get(webhook).dead_letters[reason].inc_by(count);
    }

    /// Counts an event whose topic refuses its timestamp, and has it with another.
    pub fn restamped(&self, webhook: &str) {
        self.webhooks.get(webhook).restamped.inc();
    }

    /// Makes a series for each of these keys and drops those of others, so that there are never more
    /// than the settings name.
    pub fn set_keys<'k>(&self, names: impl Iterator<Item = &'k str>) {
        let names: BTreeSet<String> = names.map(str::to_owned).collect();
        let mut keys = lock(&self.keys);
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
        // A key that has just been removed gets no series again.
        if lock(&self.keys).contains(name) {
            self.key_uses_after_end.with_label_values(&[name]).inc();
        }
    }

    /// Counts a reload.
    pub fn reload(&self, what: Reloaded, is_ok: bool) {
        let result = if is_ok { ReloadResult::Ok } else { ReloadResult::Failed };
        self.reloads[what as usize].reloads[result].inc();
    }

    /// What has been counted so far.
    pub fn counts(&self) -> Counts {
        let mut counts = Counts::default();
        for webhook in self.webhooks.iter() {
            webhook.requests.add_to(&mut counts.outcomes);
            webhook.dead_letters.add_to(&mut counts.dead_letters);
            add_observations(&mut counts.answers, &webhook.request_seconds);
        }
        for topic in self.topics.iter() {
            add_observations(&mut counts.acknowledgements, &topic.ack_seconds);
            let failures = RecordResult::ALL.into_iter().skip(1);
            counts.not_acknowledged += failures.map(|r| topic.records[r].get()).sum::<u64>();
        }
        counts
    }

    /// Everything in Prometheus' text form.
    ///
    /// # Errors
    ///
    /// A metric that cannot be written.
    pub fn scrape(&self) -> prometheus::Result<Vec<u8>> {
        let lost = &self.log.lines_lost;
        lost.inc_by(log::lost().saturating_sub(lost.get()));
        let mut text = Vec::new();
        TextEncoder::new().encode(&self.registry.gather(), &mut text)?;
        Ok(text)
    }
}

fn add_observations(sums: &mut Observations, histogram: &Histogram) {
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
    other: T,
}

impl<T> ByName<T> {
    fn new(names: &[&str], other: &str, row: impl Fn(&[&str]) -> T) -> ByName<T> {
        let named = names.iter().map(|name| ((*name).to_owned(), row(&[name]))).collect();
        ByName { named, other: row(&[other]) }
    }

    fn iter(&self) -> impl Iterator<Item = &T> {
        self.named.iter().map(|(_, row)| row).chain([&self.other])
    }

    fn at(&self, index: Option<usize>) -> &T {
        index.map_or(&self.other, |index| &self.named[index].1)
    }

    fn get(&self, name: &str) -> &T {
        self.at(self.named.iter().position(|row| row.0 == name))
    }
}

/// A counter for each value of a label.
#[derive(Clone)]
pub struct Counters<L> {
    counters: Vec<IntCounter>,
    label: PhantomData<L>,
}

impl<L: Label> Counters<L> {
    fn add_to(&self, sums: &mut [u64]) {
        for (sum, counter) in sums.iter_mut().zip(&self.counters) {
            *sum += counter.get();
        }
    }
}

impl<L: Label> Index<L> for Counters<L> {
    type Output = IntCounter;

    fn index(&self, value: L) -> &IntCounter {
        &self.counters[value.index()]
    }
}

/// A kind of metric.
trait Registered: Sized {
    /// All its series.
    type Family: Collector + Clone + 'static;

    fn family(name: &str, help: &str, labels: &[&str]) -> prometheus::Result<Self::Family>;

    /// The series with these values of the labels.
    fn row(family: &Self::Family, values: &[&str]) -> Self;
}

fn register<T: Registered>(
    registry: &Registry,
    name: &str,
    help: &str,
    labels: &[&str],
) -> prometheus::Result<T::Family> {
    let family = T::family(name, help, labels)?;
    registry.register(Box::new(family.clone()))?;
    Ok(family)
}

macro_rules! registered {
    ($metric:ident, $family:ident, $options:expr) => {
        impl Registered for $metric {
            type Family = $family;

            fn family(name: &str, help: &str, labels: &[&str]) -> prometheus::Result<$family> {
                $family::new($options(name, help), labels)
            }

            fn row(family: &$family, values: &[&str]) -> $metric {
                family.with_label_values(values)
            }
        }
    };
}

registered!(IntCounter, IntCounterVec, Opts::new);
registered!(IntGauge, IntGaugeVec, Opts::new);
registered!(Histogram, HistogramVec, |name, help| {
    HistogramOpts::new(name, help).buckets(BUCKETS.to_vec())
});

impl<L: Label> Registered for Counters<L> {
    type Family = IntCounterVec;

    fn family(name: &str, help: &str, labels: &[&str]) -> prometheus::Result<IntCounterVec> {
        IntCounter::family(name, help, &[labels, &[L::NAME]].concat())
    }

    fn row(family: &IntCounterVec, values: &[&str]) -> Counters<L> {
        let counter = |tag| family.with_label_values(&[values, &[tag]].concat());
        Counters { counters: L::tags().map(counter).collect(), label: PhantomData }
    }
}
