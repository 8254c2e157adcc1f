//! The typed settings: one tree, with a default for everything, checked as a whole.
//!
//! [`load()`] gives a [`Config`] and every problem with it at once. Units are in the names of settings.
//!
//! - `load.rs` merges defaults, file and environment, and reads the files that settings name.
//! - `profiles.rs` fills in what is known of some senders.
//! - `check.rs` checks values and how they relate.
//! - `webhook.rs` is one webhook, `auth_scheme.rs` how its senders prove who they are, `verify.rs` which
//!   of their questions are answered, `keys.rs` the keys.
//! - `secret.rs` is what never prints.
//! - `follow.rs` notices that files have changed.
//! - `section.rs` is how settings are declared, `problem.rs` what is wrong with one, `wrong.rs` how that is said of
//!   one that cannot be read.

mod auth_scheme;
mod check;
mod follow;
mod keys;
mod load;
mod problem;
mod profiles;
mod secret;
mod section;
mod verify;
mod webhook;
mod wrong;

use std::collections::HashSet;
use std::net::SocketAddr;
use std::path::PathBuf;

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use crate::click::auth::{Key, Keys, Restrictions};
use crate::click::webhook::Webhook;
use problem::Problems;
use section::{choices, sections};

pub use auth_scheme::{AuthSchemeSettings, FormSigningSettings, SigningSettings, SnsSettings};
pub(crate) use check::VERDICT_LAG_MS;
pub(crate) use follow::Followed;
pub use keys::NamedKey;
pub(crate) use keys::weakness;
pub use load::{Loaded, load};
pub(crate) use load::{environment, open_file, read_file, read_file_within, reload_keys};
pub use problem::Problem;
pub use secret::{KafkaOptions, Secret};
pub use verify::{EchoSettings, VerifySettings};
pub use webhook::{BodyFormat, InvalidBody, WebhookSettings};
pub(crate) use wrong::not_a_number;

sections! {
    /// All settings.
    pub struct Config {
        pub http: HttpSettings,
        pub admin: AdminSettings,
        pub kafka: KafkaSettings,
        pub spool: SpoolSettings,
        pub auth: AuthSettings,
        pub pseudonym: PseudonymSettings,
        pub log: LogSettings,
        pub tracing: TracingSettings,
        pub webhook: Vec<WebhookSettings> = vec![WebhookSettings {
            name: "email-marketing-click".into(),
            path: "/webhooks/email-marketing/click".into(),
            topic: "opptima.email-marketing.click".into(),
            r#type: "Email marketing".into(),
            event: "click".into(),
            ..WebhookSettings::default()
        }],
    }

    /// The listener for senders, and its limits.
    pub struct HttpSettings {
        pub listen: SocketAddr = SocketAddr::from(([0, 0, 0, 0], 8080)),
        /// Threads that serve requests; 0 takes one for each two CPUs granted.
        pub workers: usize = 0,
        pub max_connections: usize = 16_384,
        /// 0 is no limit: behind a balancer every sender has the same address.
        pub max_connections_per_address: usize = 0,
        /// The networks of balancers whose word on a sender's address is believed.
        pub trusted_proxies: Vec<IpNet>,
        /// The header in which they give it.
        pub forwarded_header: String = "x-forwarded-for".into(),
        /// Whether their connections begin with the PROXY protocol.
        pub proxy_protocol: bool = false,
        pub max_requests_in_flight: usize = 8_192,
        /// Body bytes from the socket to the acknowledgement, over all requests.
        pub max_bytes_in_flight: usize = 64 << 20,
        pub max_headers: usize = 64,
        pub max_header_bytes: usize = 16 << 10,
        /// Also of an unpacked body.
        pub max_body_bytes: usize = 1 << 20,
        /// Events of a body that carries several.
        pub max_events: usize = 10_000,
        /// Requests a second; 0 is no limit, here and below.
        pub max_rate_per_address: u32 = 0,
        pub max_rate_per_key: u32 = 0,
        /// Requests a second without a valid key.
        pub max_failure_rate_per_address: u32 = 100,
        pub header_timeout_ms: u64 = 5_000 => header_timeout,
        pub body_timeout_ms: u64 = 5_000 => body_timeout,
        /// How long a connection may stay open between requests. Longer than the 60 s of the usual
        /// balancers: they must close it first, since they send on it.
        pub idle_timeout_ms: u64 = 75_000 => idle_timeout,
        /// From the body's last byte to our answer; also how long a sender may take to read it. The
        /// tightest sender on the market hangs up after 4 s.
        pub answer_timeout_ms: u64 = 3_000 => answer_timeout,
        /// How long to keep serving after SIGTERM, so that the balancer can forget this replica.
        pub drain_delay_ms: u64 = 5_000 => drain_delay,
        /// From SIGTERM to the end, all told: inside Kubernetes' 30 s grace period.
        pub drain_timeout_ms: u64 = 25_000 => drain_timeout,
        /// Absent: plain HTTP.
        pub tls: Option<TlsSettings>,
    }

    /// The operator's listener.
    pub struct AdminSettings {
        pub listen: SocketAddr = SocketAddr::from(([0, 0, 0, 0], 8081)),
        /// The names that it answers to, besides IP addresses and `localhost`.
        pub hosts: Vec<String>,
        /// Whether the live page is there.
        pub page: bool = true,
        /// Whether it shows the last records: a click says what a person did, and everybody who
        /// reaches the listener sees it.
        pub tail: bool = false,
    }

    /// Kafka.
    pub struct KafkaSettings {
        /// `host:port`, separated by commas.
        pub brokers: String = "localhost:9092".into(),
        /// How long Kafka may take to acknowledge, before the click goes to the spool.
        pub ack_timeout_ms: u64 = 1_500 => ack_timeout,
        /// A file with a token for OAUTHBEARER, which somebody else writes anew before it expires.
        pub token_file: Option<PathBuf>,
        /// Whether to sign tokens for Amazon MSK with the credentials of AWS that the process has.
        pub aws_msk_iam: bool = false,
        /// The region of the cluster; empty: as the brokers' names have it.
        pub aws_region: String,
        /// Any other property of librdkafka.
        pub options: KafkaOptions,
    }

    /// The durable queue on disk, for what Kafka cannot take now.
    pub struct SpoolSettings {
        /// Its folder, for one process alone; empty: no spool.
        pub dir: PathBuf = "./data/spool".into(),
        /// Bytes of the events in it; the disk needs about a sixth more.
        pub max_bytes: u64 = 4 << 30,
    }

    /// Who may call.
    pub struct AuthSettings {
        pub keys: Vec<NamedKey>,
        /// A TOML file with more `keys`.
        pub keys_file: Option<PathBuf>,
        /// One plain key, for the simplest set-up by environment.
        pub api_key: Option<Secret>,
    }

    /// The key that pseudonyms are made with.
    pub struct PseudonymSettings {
        pub key: Option<Secret>,
        /// A file with it; read at the start, into `key`.
        pub key_file: Option<PathBuf>,
    }

    /// Log lines.
    pub struct LogSettings {
        pub format: LogFormat,
        /// A level, or levels by module: `info,librdkafka=debug`.
        pub level: String = "info".into(),
    }

    /// Spans for a collector.
    pub struct TracingSettings {
        /// Where spans go, in OTLP over HTTP; empty: nowhere, and none are made.
        pub otlp_endpoint: String,
        /// Of the requests without a `traceparent`, the share that is traced: from 0 to 1.
        pub sample_ratio: f64 = 0.01,
    }
}

impl KafkaSettings {
    /// The setting by which the bridge gets its own tokens for the brokers, if one does.
    pub(crate) fn token_setting(&self) -> Option<&'static str> {
        match &self.token_file {
            Some(_) => Some("kafka.token_file"),
            None => self.aws_msk_iam.then_some("kafka.aws_msk_iam"),
        }
    }
}

impl HttpSettings {
    /// Whether a sender's certificate says who calls.
    pub(crate) fn names_callers(&self) -> bool {
        self.tls.as_ref().is_some_and(|tls| tls.client_ca_file.is_some())
    }
}

/// TLS on the listener for senders; files in PEM.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct TlsSettings {
    /// The certificate, followed by those between it and its authority.
    pub cert_file: PathBuf,
    pub key_file: PathBuf,
    /// Senders must show a certificate of one of these authorities, and its name is the caller.
    pub client_ca_file: Option<PathBuf>,
}

impl TlsSettings {
    /// All its files: they are read as a unit.
    pub(crate) fn files(&self) -> Vec<PathBuf> {
        let pair = [&self.cert_file, &self.key_file];
        pair.into_iter().chain(&self.client_ca_file).cloned().collect()
    }
}

impl SpoolSettings {
    pub(crate) fn is_on(&self) -> bool {
        !self.dir.as_os_str().is_empty()
    }
}

choices! {
    /// How log lines are written.
    pub enum LogFormat: "must be auto, text or json" {
        /// Text on a terminal, JSON otherwise.
        #[default]
        Auto = "auto",
        Text = "text",
        Json = "json",
    }
}

/// The name of the one plain key.
const API_KEY: &str = "api_key";

impl Config {
    /// The keys that may call.
    ///
    /// # Errors
    ///
    /// The first key that cannot be read; none in a config that [`load()`] found no problem with.
    pub fn callers(&self) -> Result<Keys, Problem> {
        let wrong = |message| Problem::new("auth.keys", message);
        let named = self.auth.keys.iter().map(|key| key.read().map_err(wrong));
        let plain = self.plain_key().map(Ok);
        Ok(Keys::new(named.chain(plain).collect::<Result<Vec<_>, _>>()?))
    }

    /// The key of `auth.api_key`.
    fn plain_key(&self) -> Option<Key> {
        let key = self.auth.api_key.as_ref()?;
        let secret = key.reveal().trim().as_bytes();
        Some(Key::of_secret(API_KEY, secret, Restrictions::default()))
    }

    /// The sections that differ in anything that is not reloaded.
    pub(crate) fn sections_that_differ(&self, other: &Config) -> Vec<&'static str> {
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
            ("tracing", self.tracing == other.tracing),
            ("webhook", self.webhook == other.webhook),
        ];
        sections.into_iter().filter_map(|(name, is_same)| (!is_same).then_some(name)).collect()
    }

    /// Every topic that is written to, once, each with whether it is for events: those first, then
    /// those for dead letters.
    pub(crate) fn topics(&self) -> Vec<(String, bool)> {
        let events = self.webhook.iter().map(|webhook| (webhook.topic.clone(), true));
        let letters = self.webhook.iter().map(|webhook| (webhook.dead_letters(), false));
        let mut known = HashSet::new();
        events.chain(letters).filter(|(topic, _)| known.insert(topic.clone())).collect()
    }

    /// The webhooks as the pipeline uses them.
    ///
    /// # Errors
    ///
    /// The first problem with one; none in a config that [`load()`] found no problem with.
    pub fn webhooks(&self) -> Result<Vec<Webhook>, Problem> {
        let mut problems = Problems::default();
        let webhooks = self.read_webhooks(&mut problems);
        problems.found.into_iter().next().map_or(Ok(webhooks), Err)
    }

    /// The webhooks that can be read.
    fn read_webhooks(&self, problems: &mut Problems) -> Vec<Webhook> {
        let key = self.pseudonym.key.as_ref();
        let webhooks = self.webhook.iter().enumerate();
        webhooks.filter_map(|(index, webhook)| webhook.read(index, key, problems)).collect()
    }
}
