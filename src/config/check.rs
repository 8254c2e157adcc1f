//! Checks the values of settings, and how they relate.

use std::collections::HashSet;

use hyper::Uri;
use hyper::header::HeaderName;
use hyper::http::uri::Authority;

use super::auth_scheme::is_plain_http;
use super::problem::Problems;
use super::{AuthSchemeSettings, BodyFormat, Config, NamedKey, TracingSettings, WebhookSettings};
use crate::click::auth::SignatureAlgorithm;
use crate::click::path;

/// How long after its own time-out librdkafka may report that a record was not acknowledged: it checks
/// about once a second (measured: up to 1.06 s late).
pub(crate) const VERDICT_LAG_MS: u64 = 1_250;

const HOUR_MS: u64 = 3_600_000;

const BODY_MAX: usize = 100 << 20;

/// The key of pseudonyms has at least this many bytes.
const PSEUDONYM_KEY_BYTES_MIN: usize = 32;

/// Everything that is wrong with the values.
pub(super) fn check(config: &Config, problems: &mut Problems) {
    limits(config, problems);
    proxies(config, problems);
    admin(config, problems);
    time_chain(config, problems);
    kafka(config, problems);
    spool(config, problems);
    super::keys::check(config, problems);
    pseudonym_key(config, problems);
    tracing(config, problems);
    webhooks(config, problems);
    let is_level = |level: &str| level.parse::<tracing_subscriber::filter::LevelFilter>().is_ok();
    let levels = config.log.level.split(',').map(|part| part.rsplit('=').next().unwrap_or(part));
    let known =
        "must be error, warn, info, debug or trace, or levels by module: info,librdkafka=debug";
    let is_known = |level: &str| !level.is_empty() && is_level(level);
    problems.expect(levels.map(str::trim).all(is_known), "log.level", known);
}

fn limits(config: &Config, problems: &mut Problems) {
    let http = &config.http;
    problems.expect_within("http.workers", http.workers, 0..=1_024);
    problems.expect_within("http.max_connections", http.max_connections, 1..=1_000_000);
    let in_flight = http.max_requests_in_flight;
    problems.expect_within("http.max_requests_in_flight", in_flight, 1..=1_000_000);
    problems.expect_within("http.max_headers", http.max_headers, 1..=100);
    problems.expect_within("http.max_header_bytes", http.max_header_bytes, 1_024..=256 << 10);
    let has_body = problems.expect_within("http.max_body_bytes", http.max_body_bytes, 1..=BODY_MAX);
    problems.expect_within("http.max_events", http.max_events, 1..=1_000_000);
    problems.expect_within("http.max_bytes_in_flight", http.max_bytes_in_flight, 1..=1 << 40);
    for (key, value) in [
        ("http.max_rate_per_address", http.max_rate_per_address),
        ("http.max_rate_per_key", http.max_rate_per_key),
        ("http.max_failure_rate_per_address", http.max_failure_rate_per_address),
    ] {
        let range = format!("must be at most 1000000, or 0 for no limit (it is {value})");
        problems.expect(value <= 1_000_000, key, range);
    }
    problems.expect(
        !has_body || http.max_bytes_in_flight >= http.max_body_bytes,
        "http.max_bytes_in_flight",
        "must be at least http.max_body_bytes, or the largest body could never be taken",
    );
}

fn proxies(config: &Config, problems: &mut Problems) {
    let http = &config.http;
    let key = "http.trusted_proxies";
    let message =
        "must not name everybody, or anybody could claim any address: name your balancers";
    problems.expect(http.trusted_proxies.iter().all(|net| net.prefix_len() > 0), key, message);
    let is_known = !http.proxy_protocol || !http.trusted_proxies.is_empty();
    problems.expect(is_known, key, "must name the balancers, since http.proxy_protocol is on");
    let is_header = http.forwarded_header.parse::<HeaderName>().is_ok();
    let message = "must be a header's name such as x-forwarded-for";
    problems.expect(is_header, "http.forwarded_header", message);
}

fn admin(config: &Config, problems: &mut Problems) {
    let (http, admin) = (config.http.listen, config.admin.listen);
    let is_apart = admin.port() == 0
        || admin.port() != http.port()
        || admin.ip() != http.ip() && !admin.ip().is_unspecified() && !http.ip().is_unspecified();
    problems.expect(is_apart, "admin.listen", "must have another port than http.listen");
    let is_name = |name: &String| !name.is_empty() && is_plain(name, "._");
    for (index, name) in config.admin.hosts.iter().enumerate().filter(|(_, name)| !is_name(name)) {
        let message = format!(
            "{name:?} must be a name such as hooks.example.com, without http:// and port: addresses and \
             localhost are always answered"
        );
        problems.note(format!("admin.hosts[{index}]"), message);
    }
}

/// Each time-out is shorter than the next, so that no answer comes before Kafka's report is due.
fn time_chain(config: &Config, problems: &mut Problems) {
    let (http, kafka) = (&config.http, &config.kafka);
    problems.expect_within("http.header_timeout_ms", http.header_timeout_ms, 1..=HOUR_MS);
    problems.expect_within("http.body_timeout_ms", http.body_timeout_ms, 1..=HOUR_MS);
    problems.expect_within("http.idle_timeout_ms", http.idle_timeout_ms, 1..=HOUR_MS);
    let is_within =
        problems.expect_within("http.answer_timeout_ms", http.answer_timeout_ms, 1..=HOUR_MS)
            & problems.expect_within("http.drain_timeout_ms", http.drain_timeout_ms, 1..=HOUR_MS)
            & problems.expect_within("kafka.ack_timeout_ms", kafka.ack_timeout_ms, 1..=HOUR_MS);
    if !is_within {
        return;
    }
    let verdict = kafka.ack_timeout_ms.saturating_add(VERDICT_LAG_MS);
    problems.expect(
        verdict < http.answer_timeout_ms,
        "http.answer_timeout_ms",
        format!(
            "must be more than kafka.ack_timeout_ms + {VERDICT_LAG_MS} (= {verdict}, it is {}): the \
             Kafka client reports a time-out up to that late, and an answer before it may be untrue",
            http.answer_timeout_ms
        ),
    );
    // Amazon SNS is asked before the event is held, and may take as long again.
    let asks = config.webhook.iter().any(|webhook| webhook.auth.is_sns());
    let asked = if asks { http.answer_timeout_ms } else { 0 };
    let waits = [http.drain_delay_ms, http.body_timeout_ms, http.answer_timeout_ms, asked];
    let request = waits.into_iter().fold(0, u64::saturating_add);
    problems.expect(
        request < http.drain_timeout_ms,
        "http.drain_timeout_ms",
        format!(
            "must be more than http.drain_delay_ms + http.body_timeout_ms + \
             http.answer_timeout_ms (= {request}, it is {}), or requests are cut off",
            http.drain_timeout_ms
        ),
    );
}

fn spool(config: &Config, problems: &mut Problems) {
    let least = config.http.max_body_bytes.min(BODY_MAX) as u64;
    problems.expect(
        !config.spool.is_on() || config.spool.max_bytes > least,
        "spool.max_bytes",
        format!("must be more than http.max_body_bytes (= {least}), or an event may never fit"),
    );
}

fn kafka(config: &Config, problems: &mut Problems) {
    let brokers = &config.kafka.brokers;
    let wrong = brokers.split(',').map(str::trim).find(|broker| !is_broker(broker));
    let message =
        "must name brokers as host:port, separated by commas, such as kafka-1:9092,kafka-2:9092";
    if let Some(wrong) = wrong {
        // Nothing secret belongs there, but a password may have been put before a host.
        let it_is =
            if wrong.contains('@') { String::new() } else { format!(" ({wrong:?} is none)") };
        problems.note("kafka.brokers", format!("{message}{it_is}"));
    }
    let kafka = &config.kafka;
    let has_one = kafka.token_file.is_none() || !kafka.aws_msk_iam;
    problems.expect(
        has_one,
        "kafka.aws_msk_iam",
        "kafka.token_file gives tokens, too; take one out",
    );
    let region = &kafka.aws_region;
    problems.expect(is_plain(region, ""), "kafka.aws_region", "must be a region such as us-east-1");
    let is_used = region.is_empty() || kafka.aws_msk_iam;
    problems.expect(is_used, "kafka.aws_region", "is only for kafka.aws_msk_iam, which is off");
}

/// Whether it is `host` or `host:port`, perhaps with the protocol before it, as librdkafka takes it.
fn is_broker(broker: &str) -> bool {
    let protocols = ["PLAINTEXT://", "SSL://", "SASL_PLAINTEXT://", "SASL_SSL://"];
    let address =
        protocols.iter().find_map(|protocol| broker.strip_prefix(protocol)).unwrap_or(broker);
    let is_host = |authority: &Authority| {
        !authority.host().is_empty() && !authority.as_str().contains(['@', ';'])
    };
    let authority = address.parse::<Authority>().ok().filter(is_host);
    authority.is_some_and(|authority| {
        let has_port = authority.as_str() != authority.host();
        !has_port || authority.port_u16().is_some_and(|port| port > 0)
    })
}

fn pseudonym_key(config: &Config, problems: &mut Problems) {
    let Some(key) = &config.pseudonym.key else { return };
    problems.expect(
        key.reveal().trim().len() >= PSEUDONYM_KEY_BYTES_MIN,
        "pseudonym.key",
        format!(
            "must have {PSEUDONYM_KEY_BYTES_MIN} bytes at least, since addresses can be tried out \
             against a short one: take one that `hookbridge key` makes"
        ),
    );
}

fn tracing(config: &Config, problems: &mut Problems) {
    let TracingSettings { otlp_endpoint, sample_ratio } = &config.tracing;
    let is_endpoint =
        |uri: Uri| is_plain_http(&uri) && !uri.path().trim_end_matches('/').ends_with("/v1/traces");
    problems.expect(
        otlp_endpoint.is_empty() || otlp_endpoint.parse().is_ok_and(is_endpoint),
        "tracing.otlp_endpoint",
        "must be http://host:port of a collector that takes OTLP over HTTP (port 4318 as a rule), \
         without /v1/traces; for one behind TLS run a collector beside the bridge",
    );
    problems.expect_within("tracing.sample_ratio", *sample_ratio, 0.0..=1.0);
}

fn webhooks(config: &Config, problems: &mut Problems) {
    problems.expect(!config.webhook.is_empty(), "webhook", "there must be at least one");
    config.read_webhooks(problems);
    let (mut names, mut paths) = (HashSet::new(), HashSet::new());
    for (index, webhook) in config.webhook.iter().enumerate() {
        let entry = format!("webhook[{index}]");
        let key = |name: &str| format!("{entry}.{name}");
        let WebhookSettings { name, path, topic, .. } = webhook;
        let needed = [("name", name), ("path", path), ("topic", topic)];
        if let Some((setting, _)) = needed.into_iter().find(|(_, value)| value.is_empty()) {
            problems.note(entry, format!("needs `{setting}`"));
            continue;
        }
        problems.expect(
            is_plain(name, "") && name != "none",
            &key("name"),
            "must be letters, digits and hyphens, and not `none`",
        );
        problems.expect(names.insert(name), &key("name"), "is the name of another webhook");
        let message = "must start with / and have no space, `?` or `#`";
        problems.expect(is_path(path), &key("path"), message);
        let is_new = paths.insert(path::normalised(path));
        problems.expect(is_new, &key("path"), "is the path of another webhook");
        problems.expect(
            is_plain(topic, "._") && topic.len() <= 249,
            &key("topic"),
            "must be a Kafka topic: at most 249 letters, digits, dots, underscores and hyphens",
        );
        let letters = webhook.dead_letters();
        let is_made_of_topic = webhook.dead_letter_topic.is_empty() && topic.len() <= 249;
        problems.expect(
            (is_plain(&letters, "._") || is_made_of_topic)
                && letters.len() <= 249
                && letters != *topic,
            &key("dead_letter_topic"),
            "must be a Kafka topic, at most 249 characters, and not the topic itself",
        );
        callers(config, webhook, &key("auth"), problems);
        let has_array = matches!(webhook.body, BodyFormat::Array | BodyFormat::Form);
        let message = "is only for body = \"array\" and body = \"form\"";
        problems.expect(has_array || webhook.events.is_empty(), &key("events"), message);
        let is_unpacked = !webhook.auth.is_sns() || webhook.body == BodyFormat::Sns;
        problems.expect(is_unpacked, &key("body"), "must be sns, as auth is");
    }
}

/// Whether a name has only letters, digits, hyphens and these.
fn is_plain(name: &str, more: &str) -> bool {
    name.chars().all(|c| c.is_ascii_alphanumeric() || c == '-' || more.contains(c))
}

fn is_path(path: &str) -> bool {
    let is_in_path = |byte: u8| byte.is_ascii_graphic() && byte != b'?' && byte != b'#';
    path.starts_with('/') && path.bytes().all(is_in_path)
}

/// Whether any sender could prove who it is.
fn callers(config: &Config, webhook: &WebhookSettings, place: &str, problems: &mut Problems) {
    let has_place = webhook.auth != AuthSchemeSettings::PathSecret || !webhook.path.ends_with('/');
    let message = "the secret comes behind the path and one more /: let the path end without it";
    problems.expect(has_place, place, message);
    let secret = "no key can sign for this webhook: a hash cannot, so give a key `secret` in place of sha256";
    let (algorithms, message): (&[_], _) = match webhook.auth {
        AuthSchemeSettings::HmacSha256(_) | AuthSchemeSettings::Mailgun { .. } => {
            (&[SignatureAlgorithm::HmacSha256], secret)
        }
        AuthSchemeSettings::HmacSha1Form(_) => (&[SignatureAlgorithm::HmacSha1], secret),
        AuthSchemeSettings::EcdsaP256(_) => (
            &[SignatureAlgorithm::EcdsaP256],
            "no key can sign for this webhook: give a key the sender's `public_key` in place of sha256",
        ),
        AuthSchemeSettings::StandardWebhooks { .. } => (
            &[SignatureAlgorithm::StandardHmac, SignatureAlgorithm::Ed25519],
            "no key can sign for this webhook: give a key the sender's `secret` (whsec_ and base64) or \
             `public_key` (whpk_ and base64) in place of sha256",
        ),
        AuthSchemeSettings::Bearer
        | AuthSchemeSettings::Basic
        | AuthSchemeSettings::Header { .. }
        | AuthSchemeSettings::PathSecret
        | AuthSchemeSettings::Sns(_) => return,
    };
    let named = config.auth.keys.iter().filter(|key| key.is_for(webhook));
    let mut keys = named.filter_map(|key| key.read().ok()).chain(config.plain_key());
    let is_wrong = |key: &NamedKey| key.is_for(webhook) && key.read().is_err();
    let can_sign = config.http.names_callers()
        || config.auth.keys.iter().any(is_wrong)
        || keys.any(|key| algorithms.iter().any(|algorithm| key.verifies(*algorithm)));
    problems.expect(can_sign, place, message);
}
