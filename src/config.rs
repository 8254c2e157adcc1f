//! The typed settings: one tree, with a default for everything, checked as a whole.
//!
//! `load` merges defaults, file and environment (`config/load.rs`); `check` judges values and how
//! they relate (`config/check.rs`). Both report every problem at once. `config/follow.rs` notices
//! that files have changed; `config/auth_scheme.rs` is how senders prove who they are, `config/profiles.rs`
//! what is known of some. Units are in the names.
//! Secrets are [`Secret`] and never print.

mod auth_scheme;
mod check;
mod follow;
mod load;
mod profiles;

use std::collections::BTreeMap;
use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use hyper::StatusCode;
use ipnet::IpNet;
use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use zeroize::Zeroizing;

use crate::click::auth::{
    Key, KeyHash, Keys, Restrictions, hash_key, parse_hash, parse_public_key,
};
use crate::click::event::{Envelope, Pointer, Shape, TimeFormat, parse_offset};
use crate::click::pseudonym::Pseudonyms;
use crate::click::record::Route;
use crate::click::webhook;

pub use auth_scheme::{AuthSchemeSettings, Encoding, SigningSettings, SnsSettings};
pub use check::VERDICT_LAG_MS;
pub use follow::Followed;
pub use load::{Loaded, environment, load, read_file, read_file_within, reload_keys};

/// Something wrong with the settings.
#[derive(Debug, Clone, PartialEq)]
pub struct Problem {
    /// The setting, as a dotted path.
    pub key: String,
    /// What is wrong, and what to do about it.
    pub message: String,
}

impl Problem {
    pub fn new(key: impl Into<String>, message: impl Into<String>) -> Problem {
        Problem { key: key.into(), message: message.into() }
    }
}

impl std::error::Error for Problem {}

impl fmt::Display for Problem {
    fn fmt(&self, formatter: &mut fmt::Formatter) -> fmt::Result {
        write!(formatter, "{}: {}", self.key, self.message)
    }
}

/// All settings.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Config {
    pub http: HttpSettings,
    pub admin: AdminSettings,
    pub kafka: KafkaSettings,
    pub spool: SpoolSettings,
    pub auth: AuthSettings,
    pub pseudonym: PseudonymSettings,
    pub log: LogSettings,
    pub tracing: TracingSettings,
    pub webhook: Vec<WebhookSettings>,
}

/// The listener for senders, and its limits.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct HttpSettings {
    pub listen: SocketAddr,
    /// Threads that serve requests; 0 takes one for each two CPUs granted.
    pub workers: usize,
    pub max_connections: usize,
    /// 0 is no limit: behind a balancer every sender has the same address.
    pub max_connections_per_address: usize,
    /// The networks of balancers that are believed what they say of a sender's address.
    pub trusted_proxies: Vec<IpNet>,
    /// The header in which they say it.
    pub forwarded_header: String,
    /// Whether their connections begin with the PROXY protocol.
    pub proxy_protocol: bool,
    pub max_requests_in_flight: usize,
    /// Body bytes from the socket to the acknowledgement, over all requests.
    pub max_bytes_in_flight: usize,
    pub max_headers: usize,
    pub max_header_bytes: usize,
    /// Also of an unpacked body.
    pub max_body_bytes: usize,
    /// Events of a body that carries several.
    pub max_events: usize,
    /// Requests a second; 0 is no limit, here and below.
    pub max_rate_per_address: u32,
    pub max_rate_per_key: u32,
    /// Requests a second without a valid key.
    pub max_failure_rate_per_address: u32,
    pub header_timeout_ms: u64,
    pub body_timeout_ms: u64,
    /// How long a connection may stay open between requests.
    pub idle_timeout_ms: u64,
    /// From the body's last byte to our answer; also how long a sender may take to read it.
    pub answer_timeout_ms: u64,
    /// How long to keep serving after SIGTERM, so that the balancer can forget this replica.
    pub drain_delay_ms: u64,
    /// From SIGTERM to the end, all told.
    pub drain_timeout_ms: u64,
    /// Absent: plain HTTP.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tls: Option<TlsSettings>,
}

/// TLS on the listener for senders; files in PEM.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct TlsSettings {
    /// The certificate, and behind it those between it and its authority.
    pub cert_file: PathBuf,
    pub key_file: PathBuf,
    /// Senders must show a certificate of one of these authorities, and its name is the caller.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub client_ca_file: Option<PathBuf>,
}

impl TlsSettings {
    /// All its files: they are read as a unit.
    pub fn files(&self) -> Vec<PathBuf> {
        let pair = [&self.cert_file, &self.key_file];
        pair.into_iter().chain(&self.client_ca_file).cloned().collect()
    }

    /// Whether the sender's certificate says who calls.
    pub fn names_callers(&self) -> bool {
        self.client_ca_file.is_some()
    }
}

/// The operator's listener.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct AdminSettings {
    pub listen: SocketAddr,
    /// Whether the live page is there.
    pub page: bool,
    /// Whether it shows the last records.
    pub tail: bool,
}

/// Kafka.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct KafkaSettings {
    /// `host:port`, separated by commas.
    pub brokers: String,
    /// How long Kafka may take to acknowledge, before the click goes to the spool.
    pub ack_timeout_ms: u64,
    /// Any other property of librdkafka.
    pub options: KafkaOptions,
}

impl KafkaSettings {
    pub fn ack_timeout(&self) -> Duration {
        Duration::from_millis(self.ack_timeout_ms)
    }
}

/// The durable queue on disk, for what Kafka cannot take now.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct SpoolSettings {
    /// Its folder, for one process alone; empty: no spool.
    pub dir: PathBuf,
    /// Bytes of the events in it; the disk needs about a tenth more.
    pub max_bytes: u64,
}

impl SpoolSettings {
    pub fn is_on(&self) -> bool {
        !self.dir.as_os_str().is_empty()
    }
}

impl Default for SpoolSettings {
    fn default() -> SpoolSettings {
        SpoolSettings { dir: "./data/spool".into(), max_bytes: 4 << 30 }
    }
}

/// Who may call.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct AuthSettings {
    pub keys: Vec<NamedKey>,
    /// A TOML file with more `keys`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub keys_file: Option<PathBuf>,
    /// One plain key, for the simplest set-up by environment.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub api_key: Option<Secret>,
}

/// The key that pseudonyms are made with.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct PseudonymSettings {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub key: Option<Secret>,
    /// A file with it; read at the start, into `key`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub key_file: Option<PathBuf>,
}

/// A key that may call, as its SHA-256 or in plain, and when and where it may be used.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
// A misspelt limit must not make a key without one.
#[serde(deny_unknown_fields)]
pub struct NamedKey {
    pub name: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sha256: Option<Secret>,
    /// Instead of it the key itself, without which nothing can be signed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub secret: Option<Secret>,
    /// Instead of both the public half of a sender's pair on the curve P-256, in base64 or PEM.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub public_key: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "time")]
    pub not_before: Option<Timestamp>,
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "time")]
    pub expires_at: Option<Timestamp>,
    /// The names of the webhooks that it is for; absent: all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub webhooks: Option<Vec<String>>,
    /// The networks that it may be used from; absent: any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub networks: Option<Vec<IpNet>>,
    /// Whether it is from `auth.keys_file`.
    #[serde(skip)]
    pub is_filed: bool,
}

impl NamedKey {
    /// One that may be used always and everywhere.
    pub fn new(name: impl Into<String>, sha256: impl Into<String>) -> NamedKey {
        NamedKey {
            name: name.into(),
            sha256: Some(Secret::new(sha256)),
            secret: None,
            public_key: None,
            not_before: None,
            expires_at: None,
            webhooks: None,
            networks: None,
            is_filed: false,
        }
    }

    /// Its SHA-256; none if it has none, or not as it should be.
    fn hash(&self) -> Option<KeyHash> {
        match (&self.sha256, &self.secret) {
            (Some(hash), None) => parse_hash(hash.reveal()),
            (None, Some(secret)) => Some(hash_key(secret.reveal().as_bytes())),
            _ => None,
        }
    }

    fn read(&self) -> Option<Key> {
        let restrictions = Restrictions {
            not_before: self.not_before,
            expires_at: self.expires_at,
            webhooks: self.webhooks.clone(),
            networks: self.networks.clone(),
        };
        match (&self.sha256, &self.secret, &self.public_key) {
            (Some(hash), None, None) => {
                Some(Key::new(&self.name, parse_hash(hash.reveal())?, restrictions))
            }
            (None, Some(key), None) => {
                Some(Key::of_secret(&self.name, key.reveal().as_bytes(), restrictions))
            }
            (None, None, Some(key)) => {
                Some(Key::of_public_key(&self.name, parse_public_key(key)?, restrictions))
            }
            _ => None,
        }
    }
}

/// A time of RFC 3339, in quotes or as TOML's own.
fn time<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Timestamp>, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum TimeText {
        Text(String),
        Datetime(toml::value::Datetime),
    }
    let text = match TimeText::deserialize(deserializer) {
        Ok(TimeText::Text(text)) => text,
        Ok(TimeText::Datetime(time)) => time.to_string(),
        Err(_) => String::new(),
    };
    let wrong = "must be a time of RFC 3339 with its offset, such as 2027-01-31T00:00:00Z";
    text.parse().map(Some).map_err(|_| serde::de::Error::custom(wrong))
}

/// Log lines.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct LogSettings {
    pub format: LogFormat,
    /// A level, or levels by module: `info,librdkafka=debug`.
    pub level: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase", try_from = "String")]
pub enum LogFormat {
    /// Text on a terminal, JSON otherwise.
    Auto,
    Text,
    Json,
}

impl TryFrom<String> for LogFormat {
    type Error = &'static str;

    fn try_from(name: String) -> Result<LogFormat, &'static str> {
        match name.as_str() {
            "auto" => Ok(LogFormat::Auto),
            "text" => Ok(LogFormat::Text),
            "json" => Ok(LogFormat::Json),
            _ => Err("must be auto, text or json"),
        }
    }
}

impl Default for LogSettings {
    fn default() -> LogSettings {
        LogSettings { format: LogFormat::Auto, level: "info".into() }
    }
}

/// Spans for a collector.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct TracingSettings {
    /// Where spans go, in OTLP over HTTP; empty: nowhere, and none are made.
    pub otlp_endpoint: String,
    /// Of the requests without a `traceparent`, the share that is traced: from 0 to 1.
    pub sample_ratio: f64,
}

impl Default for TracingSettings {
    fn default() -> TracingSettings {
        TracingSettings { otlp_endpoint: String::new(), sample_ratio: 0.01 }
    }
}

/// One webhook: data, not code.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct WebhookSettings {
    /// What is known of the sender: the defaults of this entry, already taken; empty: none.
    #[serde(default)]
    pub profile: String,
    /// Letters, digits and hyphens; the metric label and part of the event id.
    pub name: String,
    pub path: String,
    /// How its senders prove who they are.
    #[serde(default, with = "auth_scheme")]
    pub auth: AuthSchemeSettings,
    pub topic: String,
    /// Where bodies go that nobody can understand; empty: the topic with `.dead-letter` behind it.
    #[serde(default)]
    pub dead_letter_topic: String,
    /// What becomes of such a body.
    #[serde(default)]
    pub invalid: InvalidBody,
    /// JSON pointers to what is replaced by a pseudonym.
    #[serde(default)]
    pub pseudonymise: Vec<String>,
    /// How many events a body carries.
    #[serde(default)]
    pub body: BodyFormat,
    /// JSON pointer to the array of events; empty: the body is the array.
    #[serde(default)]
    pub events: String,
    /// JSON pointer to the record's key.
    #[serde(default = "defaults::key")]
    pub key: String,
    /// JSON pointer to what the sender calls the event; empty: it gives no ids.
    #[serde(default)]
    pub id: String,
    /// JSON pointer to the event's time.
    #[serde(default = "defaults::timestamp")]
    pub timestamp: String,
    /// How it is written.
    #[serde(default)]
    pub timestamp_format: TimestampFormat,
    /// What `type` must say, where present; empty: anything.
    #[serde(default)]
    pub r#type: String,
    /// What `event` must say, where present; empty: anything.
    #[serde(default)]
    pub event: String,
    /// The zone of a time that names none.
    #[serde(default = "defaults::utc_offset")]
    pub utc_offset: String,
    /// An older event time gives way to the time of receipt.
    #[serde(default = "defaults::timestamp_max_age_s")]
    pub timestamp_max_age_s: u32,
    /// So does one further ahead.
    #[serde(default = "defaults::timestamp_max_ahead_s")]
    pub timestamp_max_ahead_s: u32,
    /// The text of the 200.
    #[serde(default = "defaults::answer")]
    pub answer: String,
    /// The status for a click that cannot be held now: 503 or 429.
    #[serde(default = "defaults::unavailable")]
    pub unavailable: u16,
    /// The CloudEvents attribute `source`; empty: the path.
    #[serde(default)]
    pub ce_source: String,
    /// The CloudEvents attribute `type`; empty: the topic.
    #[serde(default)]
    pub ce_type: String,
}

/// What becomes of a body that is no event of its webhook.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", try_from = "String")]
pub enum InvalidBody {
    /// It is kept as a dead letter and answered 200: no sender can mend it by trying again.
    #[default]
    DeadLetter,
    /// It is answered 400 or 422, and not kept.
    Reject,
}

impl TryFrom<String> for InvalidBody {
    type Error = &'static str;

    fn try_from(name: String) -> Result<InvalidBody, &'static str> {
        match name.as_str() {
            "dead-letter" => Ok(InvalidBody::DeadLetter),
            "reject" => Ok(InvalidBody::Reject),
            _ => Err("must be dead-letter or reject"),
        }
    }
}

/// How many events a body carries.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase", try_from = "String")]
pub enum BodyFormat {
    /// One.
    #[default]
    Object,
    /// Those of a JSON array.
    Array,
    /// One on each line.
    Ndjson,
    /// One, as text in a message of Amazon SNS.
    Sns,
}

impl TryFrom<String> for BodyFormat {
    type Error = &'static str;

    fn try_from(name: String) -> Result<BodyFormat, &'static str> {
        match name.as_str() {
            "object" => Ok(BodyFormat::Object),
            "array" => Ok(BodyFormat::Array),
            "ndjson" => Ok(BodyFormat::Ndjson),
            "sns" => Ok(BodyFormat::Sns),
            _ => Err("must be object, array, ndjson or sns"),
        }
    }
}

/// How the time of an event is written.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", try_from = "String")]
pub enum TimestampFormat {
    /// `2020-10-02 15:07:31`, or with its own offset.
    #[default]
    Text,
    /// Seconds since 1970, as a number or in digits.
    Unix,
    /// The same in milliseconds.
    UnixMs,
}

impl TryFrom<String> for TimestampFormat {
    type Error = &'static str;

    fn try_from(name: String) -> Result<TimestampFormat, &'static str> {
        match name.as_str() {
            "text" => Ok(TimestampFormat::Text),
            "unix" => Ok(TimestampFormat::Unix),
            "unix-ms" => Ok(TimestampFormat::UnixMs),
            _ => Err("must be text, unix or unix-ms"),
        }
    }
}

/// What a webhook is that does not say otherwise: Opptima's.
mod defaults {
    pub fn key() -> String {
        "/campid".into()
    }
    pub fn timestamp() -> String {
        "/timestamp".into()
    }
    /// Colombia, all year.
    pub fn utc_offset() -> String {
        "-05:00".into()
    }
    pub fn timestamp_max_age_s() -> u32 {
        7 * 24 * 60 * 60
    }
    pub fn timestamp_max_ahead_s() -> u32 {
        60 * 60
    }
    /// The description of the one answer that Opptima documents.
    pub fn answer() -> String {
        "Webhook recibido correctamente".into()
    }
    pub fn unavailable() -> u16 {
        503
    }
}

impl Default for Config {
    fn default() -> Config {
        Config {
            http: HttpSettings::default(),
            admin: AdminSettings::default(),
            kafka: KafkaSettings::default(),
            spool: SpoolSettings::default(),
            auth: AuthSettings::default(),
            pseudonym: PseudonymSettings::default(),
            log: LogSettings::default(),
            tracing: TracingSettings::default(),
            webhook: vec![WebhookSettings {
                profile: String::new(),
                name: "email-marketing-click".into(),
                path: "/webhooks/email-marketing/click".into(),
                auth: AuthSchemeSettings::default(),
                topic: "opptima.email-marketing.click".into(),
                dead_letter_topic: String::new(),
                invalid: InvalidBody::default(),
                pseudonymise: Vec::new(),
                body: BodyFormat::default(),
                events: String::new(),
                key: defaults::key(),
                id: String::new(),
                timestamp: defaults::timestamp(),
                timestamp_format: TimestampFormat::default(),
                r#type: "Email marketing".into(),
                event: "click".into(),
                utc_offset: defaults::utc_offset(),
                timestamp_max_age_s: defaults::timestamp_max_age_s(),
                timestamp_max_ahead_s: defaults::timestamp_max_ahead_s(),
                answer: defaults::answer(),
                unavailable: defaults::unavailable(),
                ce_source: String::new(),
                ce_type: String::new(),
            }],
        }
    }
}

impl Default for HttpSettings {
    fn default() -> HttpSettings {
        HttpSettings {
            listen: SocketAddr::from(([0, 0, 0, 0], 8080)),
            workers: 0,
            max_connections: 16_384,
            max_connections_per_address: 0,
            trusted_proxies: Vec::new(),
            forwarded_header: "x-forwarded-for".into(),
            proxy_protocol: false,
            max_requests_in_flight: 8_192,
            max_bytes_in_flight: 64 << 20,
            max_headers: 64,
            max_header_bytes: 16 << 10,
            max_body_bytes: 1 << 20,
            max_events: 10_000,
            max_rate_per_address: 0,
            max_rate_per_key: 0,
            max_failure_rate_per_address: 100,
            header_timeout_ms: 5_000,
            body_timeout_ms: 5_000,
            // Longer than the 60 s of the usual balancers: whoever closes an idle connection
            // first must be the one that does not send on it.
            idle_timeout_ms: 75_000,
            // The tightest sender on the market hangs up after 4 s.
            answer_timeout_ms: 3_000,
            drain_delay_ms: 5_000,
            // Inside Kubernetes' 30 s grace period.
            drain_timeout_ms: 25_000,
            tls: None,
        }
    }
}

impl Default for AdminSettings {
    fn default() -> AdminSettings {
        AdminSettings {
            listen: SocketAddr::from(([0, 0, 0, 0], 8081)),
            page: true,
            // Whoever reaches the listener sees it, and a click says what a person did.
            tail: false,
        }
    }
}

impl Default for KafkaSettings {
    fn default() -> KafkaSettings {
        KafkaSettings {
            brokers: "localhost:9092".into(),
            ack_timeout_ms: 1_500,
            options: KafkaOptions::default(),
        }
    }
}

impl HttpSettings {
    pub fn header_timeout(&self) -> Duration {
        Duration::from_millis(self.header_timeout_ms)
    }

    pub fn body_timeout(&self) -> Duration {
        Duration::from_millis(self.body_timeout_ms)
    }

    pub fn idle_timeout(&self) -> Duration {
        Duration::from_millis(self.idle_timeout_ms)
    }

    pub fn answer_timeout(&self) -> Duration {
        Duration::from_millis(self.answer_timeout_ms)
    }

    pub fn drain_delay(&self) -> Duration {
        Duration::from_millis(self.drain_delay_ms)
    }

    pub fn drain_timeout(&self) -> Duration {
        Duration::from_millis(self.drain_timeout_ms)
    }
}

/// What stands where a secret is not printed.
const HIDDEN: &str = "(hidden)";

/// The name of the one plain key.
const API_KEY: &str = "api_key";

/// A text that never prints, and is overwritten when it is no longer needed.
#[derive(Clone, PartialEq)]
pub struct Secret(Zeroizing<String>);

impl Secret {
    pub fn new(text: impl Into<String>) -> Secret {
        Secret(Zeroizing::new(text.into()))
    }

    pub fn reveal(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, formatter: &mut fmt::Formatter) -> fmt::Result {
        formatter.write_str(HIDDEN)
    }
}

impl<'de> Deserialize<'de> for Secret {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Secret, D::Error> {
        // The library's own message quotes what is there.
        let wrong = |_| serde::de::Error::custom("must be a text in quotes");
        String::deserialize(deserializer).map(Secret::new).map_err(wrong)
    }
}

impl Serialize for Secret {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(HIDDEN)
    }
}

/// Properties of librdkafka by name. Those that carry a secret never print; all are overwritten when they
/// are no longer needed.
#[derive(Clone, Default, PartialEq)]
pub struct KafkaOptions(BTreeMap<String, Zeroizing<String>>);

impl KafkaOptions {
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0.iter().map(|(name, value)| (name.as_str(), value.as_str()))
    }

    pub fn set(&mut self, name: impl Into<String>, value: impl Into<String>) {
        self.0.insert(name.into(), Zeroizing::new(value.into()));
    }

    fn printable(&self) -> BTreeMap<&str, &str> {
        let secret = |name: &str| {
            ["password", "passphrase", "secret", "pem", "oauthbearer.config"]
                .iter()
                .any(|part| name.contains(part))
        };
        self.iter().map(|(name, value)| (name, if secret(name) { HIDDEN } else { value })).collect()
    }
}

impl fmt::Debug for KafkaOptions {
    fn fmt(&self, formatter: &mut fmt::Formatter) -> fmt::Result {
        self.printable().fmt(formatter)
    }
}

impl Serialize for KafkaOptions {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.printable().serialize(serializer)
    }
}

/// One entry under `[kafka.options]`: a value, or the rest of a name whose dots were not quoted.
#[derive(Deserialize)]
#[serde(untagged)]
enum OptionEntry {
    Flag(bool),
    Number(i64),
    Text(String),
    Table(BTreeMap<String, OptionEntry>),
}

impl<'de> Deserialize<'de> for KafkaOptions {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<KafkaOptions, D::Error> {
        let mut options = KafkaOptions::default();
        let entries = BTreeMap::<String, OptionEntry>::deserialize(deserializer)?;
        flatten("", entries, &mut options);
        Ok(options)
    }
}

/// `security.protocol` may be written quoted, as a table, or from the environment with underscores
/// (no property of librdkafka that can be set by text has one).
fn flatten(prefix: &str, entries: BTreeMap<String, OptionEntry>, options: &mut KafkaOptions) {
    for (name, entry) in entries {
        let name = format!("{prefix}{}", name.replace('_', "."));
        match entry {
            OptionEntry::Flag(value) => options.set(name, value.to_string()),
            OptionEntry::Number(value) => options.set(name, value.to_string()),
            OptionEntry::Text(value) => options.set(name, value),
            OptionEntry::Table(entries) => flatten(&format!("{name}."), entries, options),
        }
    }
}

impl Config {
    /// The keys that may call.
    ///
    /// # Errors
    ///
    /// The first key whose hash cannot be read; none in a config that [`load()`] found no fault with.
    pub fn callers(&self) -> Result<Keys, Problem> {
        let mut keys = Vec::new();
        for key in &self.auth.keys {
            let key = key.read();
            keys.push(key.ok_or_else(|| {
                Problem::new("auth.keys", "has no sha256, no secret and no public_key")
            })?);
        }
        if let Some(key) = &self.auth.api_key {
            let secret = key.reveal().trim().as_bytes();
            keys.push(Key::of_secret(API_KEY, secret, Restrictions::default()));
        }
        Ok(Keys::new(keys))
    }

    /// The sections that differ in anything that is not reloaded.
    pub fn sections_that_differ(&self, other: &Config) -> Vec<&'static str> {
        let auth = |config: &Config| {
            let mut auth = config.auth.clone();
            auth.keys.retain(|key| !key.is_filed);
            auth
        };
        let sections = [
            ("http", self.http == other.http),
            ("admin", self.admin == other.admin),
            ("kafka", self.kafka == other.kafka),
            ("spool", self.spool == other.spool),
            ("auth", auth(self) == auth(other)),
            ("pseudonym", self.pseudonym == other.pseudonym),
            ("log", self.log.format == other.log.format),
            ("webhook", self.webhook == other.webhook),
        ];
        sections.into_iter().filter_map(|(name, is_same)| (!is_same).then_some(name)).collect()
    }

    /// Every topic that is written to, once, each with whether it is for events: those first, then
    /// those for dead letters.
    pub fn topics(&self) -> Vec<(String, bool)> {
        let events = self.webhook.iter().map(|webhook| (webhook.topic.clone(), true));
        let letters = self.webhook.iter().map(|webhook| (webhook.dead_letters(), false));
        let mut topics: Vec<(String, bool)> = Vec::new();
        for topic in events.chain(letters) {
            if !topics.iter().any(|(name, _)| *name == topic.0) {
                topics.push(topic);
            }
        }
        topics
    }

    /// The webhooks as the pipeline uses them.
    ///
    /// # Errors
    ///
    /// The first entry that cannot be read; none in a config that [`load()`] found no fault with.
    pub fn webhooks(&self) -> Result<Vec<webhook::Webhook>, Problem> {
        let key = self.pseudonym.key.as_ref();
        self.webhook.iter().enumerate().map(|(index, webhook)| webhook.read(index, key)).collect()
    }
}

impl WebhookSettings {
    /// Where bodies go that nobody can understand.
    pub fn dead_letters(&self) -> String {
        match self.dead_letter_topic.as_str() {
            "" => format!("{}.dead-letter", self.topic),
            topic => topic.to_owned(),
        }
    }

    /// What is answered in place of 503.
    fn unavailable_status(&self) -> Option<StatusCode> {
        let status = StatusCode::from_u16(self.unavailable).ok()?;
        let is_for_now =
            [StatusCode::SERVICE_UNAVAILABLE, StatusCode::TOO_MANY_REQUESTS].contains(&status);
        is_for_now.then_some(status)
    }

    /// What replaces fields, if any are to be; none if that cannot be read.
    fn pseudonyms(&self, key: Option<&Secret>) -> Option<Option<Pseudonyms>> {
        if self.pseudonymise.is_empty() {
            return Some(None);
        }
        let fields = self.pseudonymise.iter().map(|field| Pointer::parse(field));
        Some(Some(Pseudonyms::new(fields.collect::<Option<_>>()?, key?.reveal().trim().as_bytes())))
    }

    fn read(&self, index: usize, key: Option<&Secret>) -> Result<webhook::Webhook, Problem> {
        let wrong = |name: &str| Problem::new(format!("webhook[{index}].{name}"), "cannot be read");
        let or = |text: &String, default: &String| {
            if text.is_empty() { default.as_str().into() } else { text.as_str().into() }
        };
        Ok(webhook::Webhook {
            route: Arc::new(Route {
                webhook: self.name.as_str().into(),
                topic: self.topic.as_str().into(),
                dead_letter_topic: self.dead_letters().into(),
                ce_source: or(&self.ce_source, &self.path),
                ce_type: or(&self.ce_type, &self.topic),
            }),
            path: self.path.clone(),
            auth_scheme: self.auth.read().map_err(|_| wrong("auth"))?,
            // Nothing can be found in what cannot be understood, so none of it may be kept.
            rejects_invalid: self.invalid == InvalidBody::Reject || !self.pseudonymise.is_empty(),
            pseudonyms: self.pseudonyms(key).ok_or_else(|| wrong("pseudonymise"))?,
            envelope: match self.body {
                BodyFormat::Object => Envelope::One,
                BodyFormat::Array => {
                    Envelope::Array(optional(&self.events).ok_or_else(|| wrong("events"))?)
                }
                BodyFormat::Ndjson => Envelope::Lines,
                BodyFormat::Sns => Envelope::Sns,
            },
            shape: Shape {
                key: Pointer::parse(&self.key).ok_or_else(|| wrong("key"))?,
                id: optional(&self.id).ok_or_else(|| wrong("id"))?,
                time: Pointer::parse(&self.timestamp).ok_or_else(|| wrong("timestamp"))?,
                time_format: match self.timestamp_format {
                    TimestampFormat::Text => TimeFormat::Text,
                    TimestampFormat::Unix => TimeFormat::Unix,
                    TimestampFormat::UnixMs => TimeFormat::UnixMs,
                },
                r#type: self.r#type.clone(),
                event: self.event.clone(),
                offset: parse_offset(&self.utc_offset).ok_or_else(|| wrong("utc_offset"))?,
            },
            time_age_max: SignedDuration::from_secs(self.timestamp_max_age_s.into()),
            time_ahead_max: SignedDuration::from_secs(self.timestamp_max_ahead_s.into()),
            answer: Bytes::from(self.answer.clone()),
            unavailable: self.unavailable_status().ok_or_else(|| wrong("unavailable"))?,
            index,
        })
    }
}

/// A pointer, where there is to be one; the outer none where it cannot be read.
fn optional(pointer: &str) -> Option<Option<Pointer>> {
    if pointer.is_empty() { Some(None) } else { Pointer::parse(pointer).map(Some) }
}
