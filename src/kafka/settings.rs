//! Every property of librdkafka that is relied on, with its reason.
//!
//! Properties whose value is librdkafka's default are set, too: a default may change with the library, the
//! promise may not.

use rdkafka::ClientConfig;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::error::KafkaError;
use rdkafka::producer::BaseProducer;

use super::token;
use crate::config::{self, Config, Problem};

/// Why a property cannot be set under `[kafka.options]`, and what to do instead: it carries the promise, or
/// another setting stands for it.
fn refusal(config: &Config, property: &str, value: &str) -> Option<&'static str> {
    let has_tokens = config.kafka.token_setting().is_some();
    Some(match property {
        "acks" | "request.required.acks" => {
            "is fixed at all: a 200 means that every in-sync replica has the click"
        }
        "enable.idempotence" => {
            "is fixed at true: a retry inside the client must not write a click twice or out of order (without \
             it librdkafka sends a failed request again behind later ones, also with one request in flight)"
        }
        "sasl.mechanism" | "sasl.mechanisms" if has_tokens && value != "OAUTHBEARER" => {
            "must be OAUTHBEARER, or left out: kafka.token_file or kafka.aws_msk_iam gives the tokens"
        }
        "sasl.oauthbearer.method" if has_tokens && value == "oidc" => {
            "is a second source of tokens: take kafka.token_file or kafka.aws_msk_iam out, or this"
        }
        "sasl.username" | "sasl.password" if has_tokens => {
            "is not used with tokens: take it out, or kafka.token_file or kafka.aws_msk_iam"
        }
        "security.protocol" if has_tokens && !takes_tokens(config, value) => {
            "must be SASL_SSL, or left out: tokens are for SASL, and secret"
        }
        TOKEN_ENDPOINT if has_user(value) => {
            "must not have a user or a password in it, since it is logged: set sasl.oauthbearer.client.id and \
             sasl.oauthbearer.client.secret"
        }
        "partitioner" => {
            "is fixed at murmur2_random: it puts a key where Java producers, Kafka Streams and ksqlDB \
             would"
        }
        "message.timeout.ms" | "delivery.timeout.ms" | "request.timeout.ms" => {
            "is set by kafka.ack_timeout_ms, whose place in the time chain is checked"
        }
        "bootstrap.servers" | "metadata.broker.list" => "is set by kafka.brokers",
        "message.max.bytes" => "is set by http.max_body_bytes",
        "queue.buffering.max.messages" | "queue.buffering.max.kbytes" => {
            "is set by http.max_requests_in_flight and http.max_bytes_in_flight"
        }
        "statistics.interval.ms" | "topic.metadata.refresh.interval.ms" => {
            "is fixed: readiness, metrics and the sight of new partitions depend on it"
        }
        "allow.auto.create.topics" => {
            "is fixed at false: a topic made by accident has the wrong number of partitions and replicas"
        }
        "delivery.report.only.error" => {
            "is fixed at false: the 200 is made from the report of success"
        }
        "enable.gapless.guarantee" | "transactional.id" | "test.mock.num.brokers" => {
            "is not supported: the bridge's promise does not rest on it"
        }
        _ => return None,
    })
}

/// Whether tokens may be sent by this protocol. Those from a file may be for a proxy on this machine.
fn takes_tokens(config: &Config, protocol: &str) -> bool {
    protocol.eq_ignore_ascii_case("SASL_SSL")
        || protocol.eq_ignore_ascii_case("SASL_PLAINTEXT") && config.kafka.token_file.is_some()
}

/// Whether there is a user before the host of this URL.
fn has_user(url: &str) -> bool {
    let rest = url.split_once("://").map_or(url, |(_, rest)| rest);
    rest.split(['/', '?', '#']).next().is_some_and(|authority| authority.contains('@'))
}

/// Whether the property names a file or a folder that librdkafka reads.
fn is_file(property: &str, value: &str) -> bool {
    let is_library = property == "ssl.engine.location";
    let is_system = value == "probe" && property.ends_with("ca.location");
    !is_library && !is_system && (property.ends_with(".location") || property.ends_with(".file"))
}

/// How long the client waits after the first record of a partition, in milliseconds: so long that all records which
/// are handed over together (`batching.rs`) are there, and, where senders wait for their answers and nothing waits
/// there, those that come together. Without it the client sends the first one alone.
const LINGER_MS: &str = "0.5";

/// The names under which the operator may set it.
const LINGER_OPTIONS: [&str; 2] = ["linger.ms", "queue.buffering.max.ms"];

/// Clicks are alike: from 1,000/s on they take two thirds to a quarter of the disk and network. The CPU of the bridge and
/// the broker together was no higher at 1,000 and 5,000/s, and 6 to 13 % higher with 16 and 256 connections that wait
/// for their answers. zstd takes some more off, and some more CPU.
const COMPRESSION: &str = "lz4";

/// Some hundred clicks; larger batches gain nothing.
const BATCH_BYTES: usize = 128 << 10;

/// Records from the spool, in flight or late; more than `delivery` ever has there.
const SPOOL_RECORDS: usize = 32_768;
const SPOOL_KBYTES: usize = 32 << 10;

/// What a record needs on top of the largest body: key, headers and framing.
const RECORD_OVERHEAD_BYTES: usize = 64 << 10;

const TOKEN_ENDPOINT: &str = "sasl.oauthbearer.token.endpoint.url";

/// Where nobody listens: a connection to it fails at once.
const NOWHERE: &str = "http://127.0.0.1:0/";

/// Everything that is wrong with the Kafka settings, as librdkafka itself judges them.
pub fn check(config: &Config) -> Vec<Problem> {
    let key = |name: &str| format!("kafka.options.\"{name}\"");
    let mut problems = Vec::new();
    if config.kafka.aws_msk_iam && token::region(&config.kafka).is_none() {
        problems
            .push(Problem::new("kafka.aws_region", "must be set: kafka.brokers do not name it"));
    }
    for (name, value) in config.kafka.options.iter() {
        if let Some(why) = refusal(config, name, value) {
            problems.push(Problem::new(key(name), why));
            continue;
        }
        if is_file(name, value)
            && let Err(problem) = config::open_file(&key(name), value.as_ref())
        {
            problems.push(problem);
            continue;
        }
        match ClientConfig::new().set(name, value).create_native_config() {
            Err(error) => problems.push(Problem::new(key(name), reason(&error))),
            // Of `5s` it takes 5, whatever the unit is.
            Ok(taken) => {
                let is_number = |text: &str| text.parse::<f64>().is_ok();
                if !is_number(value) && taken.get(name).is_ok_and(|it| is_number(&it)) {
                    problems.push(Problem::new(key(name), config::not_a_number(name, value)));
                }
            }
        }
    }
    if problems.is_empty() {
        let mut client = producer(config);
        // A client with brokers looks up their names, and does not end before it has an answer; the same with
        // the endpoint of tokens.
        client.remove("bootstrap.servers");
        let is_oidc = client.get("sasl.oauthbearer.method") == Some("oidc");
        let has_query =
            client.get("sasl.oauthbearer.config").is_some_and(|it| it.contains("query"));
        if is_oidc && (client.get(TOKEN_ENDPOINT).is_some() || has_query) {
            client.set(TOKEN_ENDPOINT, NOWHERE);
        }
        let mut create = |client: &ClientConfig| match client.create::<BaseProducer>() {
            Ok(_producer) => true,
            Err(error) => {
                problems.push(Problem::new("kafka.options", reason(&error)));
                false
            }
        };
        // librdkafka 2.12 aborts the process if a client with OIDC fails for its certificates. So these are tried
        // without OIDC before.
        let is_tls =
            client.get("security.protocol").is_some_and(|it| it.eq_ignore_ascii_case("SASL_SSL"));
        if !(is_oidc && is_tls) || create(client.clone().set("security.protocol", "SSL")) {
            create(&client);
        }
    }
    problems
}

/// librdkafka's reason, without the property's value, which may be a secret.
fn reason(error: &KafkaError) -> String {
    match error {
        KafkaError::ClientConfig(_, text, _, _) | KafkaError::ClientCreation(text) => text.clone(),
        other => other.to_string(),
    }
}

/// The settings of any client: where the brokers are and how to get in.
pub(super) fn client(config: &Config) -> ClientConfig {
    let mut client = ClientConfig::new();
    client
        .set("bootstrap.servers", &config.kafka.brokers)
        .set("client.id", "hookbridge")
        // Brokers and balancers drop idle connections; the kernel should notice that before a click does.
        .set("socket.keepalive.enable", "true")
        // A broker that does not finish a handshake in this time counts as down.
        .set("socket.connection.setup.timeout.ms", "5000")
        // A small request must not wait in the kernel for another (Nagle's algorithm).
        .set("socket.nagle.disable", "true")
        // Quick to come back after an outage, without burning CPU during one.
        .set("reconnect.backoff.ms", "250")
        .set("reconnect.backoff.max.ms", "2000")
        // A topic made by accident has the wrong number of partitions and replicas.
        .set("allow.auto.create.topics", "false");
    for (name, value) in config.kafka.options.iter() {
        client.set(name, value);
    }
    if config.kafka.token_setting().is_some() {
        if client.get("security.protocol").is_none() {
            client.set("security.protocol", "SASL_SSL");
        }
        client.remove("sasl.mechanisms").set("sasl.mechanism", "OAUTHBEARER");
    }
    // The authorities that the system trusts, wherever they are: an OpenSSL that is built in looks only where its
    // build put them. They are for the brokers (`ssl`) and for token endpoints (`https`).
    for (location, pem) in
        [("ssl.ca.location", "ssl.ca.pem"), ("https.ca.location", "https.ca.pem")]
    {
        if client.get(location).or(client.get(pem)).is_none() {
            client.set(location, "probe");
        }
    }
    // Where `debug` is set, librdkafka passes on every line; `log.level` decides which are written.
    let has_debug = config.kafka.options.iter().any(|(name, _)| name == "debug");
    client.set_log_level(if has_debug { RDKafkaLogLevel::Debug } else { RDKafkaLogLevel::Info });
    client
}

/// The settings of the producer: what the promise rests on, and what the operator has added.
pub fn producer(config: &Config) -> ClientConfig {
    let Config { http, kafka, .. } = config;
    let ack_timeout = kafka.ack_timeout_ms.to_string();
    let record_bytes = (http.max_body_bytes + RECORD_OVERHEAD_BYTES).max(1_000_000);
    let queue_records = 2 * http.max_requests_in_flight + SPOOL_RECORDS;
    let queue_kbytes = (2 * http.max_bytes_in_flight / 1_024 + SPOOL_KBYTES).min(2_097_151);
    let mut client = self::client(config);
    // A broker that hangs must not keep a partition whose leader has moved from it for librdkafka's
    // 60 s. Longer than the broker's own time-out, so that it can answer with the reason.
    if client.get("socket.timeout.ms").is_none() {
        client.set("socket.timeout.ms", (2 * kafka.ack_timeout_ms).max(5_000).to_string());
    }
    // A batch is refused as one: it should be smaller than any topic's limit.
    if client.get("batch.size").is_none() {
        client.set("batch.size", BATCH_BYTES.to_string());
    }
    if client.get("compression.type").or(client.get("compression.codec")).is_none() {
        client.set("compression.type", COMPRESSION);
    }
    if !sets_linger(config) {
        client.set("linger.ms", LINGER_MS);
    }
    client
        // The promise: all in-sync replicas have it, once, in order.
        .set("acks", "all")
        .set("enable.idempotence", "true")
        // As Java's default partitioner. librdkafka's own default puts keys elsewhere.
        .set("partitioner", "murmur2_random")
        // When the client gives a record up; it looks about once a second, so the verdict may be
        // more than a second late. With a spool it never does: a late record goes there, too, and the
        // client still sends it in its turn, so that time-outs change no order.
        .set("message.timeout.ms", if config.spool.is_on() { "0" } else { &ack_timeout })
        // When the broker gives up waiting for its replicas: no later than we do, so that it answers
        // with the reason and the connection need not be cut.
        .set("request.timeout.ms", &ack_timeout)
        // The largest body must fit, so that the topic decides what is too large.
        .set("message.max.bytes", record_bytes.to_string())
        // Room for every admitted request, as much again for records whose senders are gone, and for
        // what the spool sends and what is late.
        .set("queue.buffering.max.messages", queue_records.to_string())
        .set("queue.buffering.max.kbytes", queue_kbytes.to_string())
        // The metrics of queue and brokers and readiness are made from them.
        .set("statistics.interval.ms", "1000")
        // New partitions and leaders are seen this soon.
        .set("topic.metadata.refresh.interval.ms", "5000")
        // After this time a missing topic is reported as such; librdkafka's default is 30 s.
        .set("topic.metadata.propagation.max.ms", "1000")
        .set("delivery.report.only.error", "false");
    client
}

/// Whether the operator has set how long the client waits for more records.
pub(super) fn sets_linger(config: &Config) -> bool {
    config.kafka.options.iter().any(|(name, _)| LINGER_OPTIONS.contains(&name))
}

/// The version of librdkafka.
pub fn client_version() -> String {
    rdkafka::util::get_rdkafka_version().1
}

#[cfg(test)]
mod tests {
    use super::*;

    const OIDC: [(&str, &str); 6] = [
        ("security.protocol", "SASL_SSL"),
        ("sasl.mechanism", "OAUTHBEARER"),
        ("sasl.oauthbearer.method", "oidc"),
        ("sasl.oauthbearer.client.id", "hookbridge"),
        ("sasl.oauthbearer.client.secret", "zq-secret"),
        (TOKEN_ENDPOINT, "https://id.example.com/token"),
    ];

    /// Each mistake ends in one message, whatever else librdkafka would make of it.
    #[test]
    fn a_mistake_in_an_option_has_one_message() {
        let no_file = "/nowhere/ca.pem cannot be read: No such file";
        for (name, value, expected) in [
            ("ssl.ca.location", "/nowhere/ca.pem", no_file),
            ("ssl.key.location", "/nowhere/ca.pem", no_file),
            ("https.ca.location", "/nowhere/ca.pem", no_file),
            ("sasl.oauthbearer.assertion.private.key.file", "/nowhere/ca.pem", no_file),
            ("ssl.ca.pem", "zq-no-pem", "ssl.ca.pem"),
            ("ssl.key.pem", "zq-no-pem", "ssl.key.pem"),
            (TOKEN_ENDPOINT, "https://me:zq-secret@id.example.com/", "must not have a user"),
            ("socket.timeout.ms", "10s", "milliseconds, without a unit: write 10000"),
            ("linger.ms", "0.5ms", "must be a number of milliseconds"),
            ("batch.size", "64k", "must be a whole number"),
        ] {
            let mut config = Config::default();
            for (name, value) in OIDC.iter().chain([&(name, value)]) {
                config.kafka.options.set(*name, *value);
            }
            let problems = check(&config);
            let text = format!("{problems:?}");
            assert!(problems.len() == 1 && text.contains(expected), "{name}: {text}");
            assert!(!text.contains("zq-"), "{name}: {text}");
        }
        let mut config = Config::default();
        for (name, value) in OIDC.iter().chain(&[
            ("https.ca.location", "probe"),
            ("ssl.ca.location", "/"),
            ("linger.ms", "0.5"),
            ("client.id", "7th"),
            (TOKEN_ENDPOINT, "https://id.example.com/@/token?to=a@b"),
        ]) {
            config.kafka.options.set(*name, *value);
        }
        assert_eq!(check(&config), []);
    }

    /// A build without one of these looks the same, and refuses the property only here.
    #[test]
    fn the_kafka_client_is_built_with_what_the_documentation_names() {
        for (name, value) in [
            ("sasl.oauthbearer.method", "oidc"),
            ("sasl.oauthbearer.metadata.authentication.type", "azure_imds"),
            ("https.ca.location", "probe"),
            ("ssl.ca.location", "probe"),
            ("compression.type", "zstd"),
            ("compression.type", "gzip"),
        ] {
            let built = ClientConfig::new().set(name, value).create_native_config();
            assert!(built.is_ok(), "{name}={value}: {:?}", built.err());
        }
        for (mechanism, is_built_in) in
            [("SCRAM-SHA-512", true), ("GSSAPI", cfg!(feature = "gssapi"))]
        {
            let mut client = ClientConfig::new();
            client.set("security.protocol", "SASL_SSL").set("sasl.mechanism", mechanism);
            client.set("sasl.username", "hookbridge").set("sasl.password", "any");
            client.set("sasl.kerberos.keytab", "/any");
            let made = client.create::<BaseProducer>();
            assert_eq!(made.is_ok(), is_built_in, "{mechanism}: {:?}", made.err());
        }
    }
}
