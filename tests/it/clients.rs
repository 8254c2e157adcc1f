//! What real clients and proxies send, and what arrives in Kafka: one bridge for the whole table.
//!
//! The programs are in `tests/clients`; each prints the status of each of its requests. There is no .NET in
//! the table, because none of the package managers that the tests use has it.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use data_encoding::BASE64;
use hookbridge::config::{AuthSchemeSettings, BodyFormat, NamedKey, Secret, WebhookSettings};
use hookbridge::kafka::ConsumedRecord;
use ring::signature::{Ed25519KeyPair, KeyPair};

use crate::auth_schemes::webhook;
use crate::dead_letters::header;
use crate::harness::brokers::Broker;
use crate::harness::clients::{Proxy, file, node, python, run};
use crate::harness::support::{KEY, TestBridge, records};
use crate::keys::key;

/// The requests of each client. A click's campaign is the request's name, by which its record is found.
#[rustfmt::skip]
const TABLE: [(&str, &[&str]); 8] = [
    ("curl.sh", &[
        "curl: --data", "curl: --json", "curl: no Content-Type", "curl: chunked", "curl: large, expects 100",
        "curl: HTTP/1.0", "curl: HTTP/2", "curl: upgrade to HTTP/2", "curl: gzip", "curl: deflate",
        "curl: an encoding that is none", "curl: brotli", "curl: a slash at the end", "curl: two slashes",
        "curl: dots", "curl: a needless %2d", "curl: everything encoded", "curl: a query",
        "curl: a whole URL as target", "curl: another method in a header", "curl: user and password",
        "curl: a form", "curl: BOM", "curl: as through a proxy",
        "wget: --post-file", "wget: --post-data", "wget: JSON",
    ]),
    ("client.php", &[
        "PHP curl: a text", "PHP curl: without Content-Type", "PHP curl: large, expects 100",
        "PHP curl: HTTP/1.0", "PHP curl: a slash at the end", "PHP curl: gzip", "PHP curl: gzcompress",
        "PHP curl: gzdeflate", "PHP curl: a form", "PHP stream: a text", "PHP stream: HTTP/1.0",
        "PHP stream: two slashes", "PHP stream: user and password",
    ]),
    ("client.py", &[
        "requests: data", "requests: a generator", "requests: gzip", "requests: large",
        "requests: a slash at the end", "requests: params", "requests: form", "requests: user and password",
        "requests: first of a session", "requests: second of a session",
        "httpx: content", "httpx: a generator", "httpx: a URL in parts", "httpx: HTTP/2",
        "aiohttp: data", "aiohttp: deflate", "aiohttp: gzip", "aiohttp: chunked", "aiohttp: large, expects 100",
        "urllib: a request", "http.client: a file", "svix for Python", "standardwebhooks for Python",
    ]),
    ("client.mjs", &[
        "fetch: text", "fetch: large", "fetch: a stream", "fetch: a Blob", "fetch: gzip", "fetch: deflate",
        "fetch: brotli", "fetch: a slash at the end", "fetch: a form",
        "axios: an object", "axios: a stream", "axios: a form", "axios: user and password",
        "http: chunks", "http: expects 100", "http: trailers", "http2: a stream",
        "svix for Node", "standardwebhooks for Node", "standardwebhooks for Node: further signatures",
        "Ed25519 by OpenSSL",
    ]),
    ("client.rb", &[
        "Ruby: post", "Ruby: large, expects 100", "Ruby: a charset", "Ruby: gzip", "Ruby: deflate",
        "Ruby: a slash at the end", "Ruby: user and password", "Ruby: a form", "Ruby: a stream",
        "Ruby: second of a connection",
    ]),
    ("client.pl", &[
        "LWP: a text", "LWP: second of a connection", "LWP: large", "LWP: chunks", "LWP: gzip", "LWP: a form",
        "HTTP::Tiny: a text", "HTTP::Tiny: a slash at the end",
    ]),
    ("Client.java", &[
        "Java HttpClient: upgrade to HTTP/2", "Java HttpClient: HTTP/1.1", "Java HttpClient: a stream",
        "Java HttpClient: large, expects 100", "Java HttpClient: gzip", "Java HttpClient: a slash at the end",
        "HttpURLConnection: a length", "HttpURLConnection: chunks",
    ]),
    ("client.go", &[
        "Go: a text", "Go: a reader", "Go: large, expects 100", "Go: trailers", "Go: gzip", "Go: zlib",
        "Go: a slash at the end", "Go: user and password", "Go: a form", "Go: HTTP/2",
    ]),
];

/// What curl sends through each proxy.
const THROUGH_PROXIES: [&str; 9] = [
    "plain",
    "chunked",
    "HTTP/1.0",
    "large, expects 100",
    "gzip",
    "a slash at the end",
    "two slashes",
    "a needless %2D",
    "a query",
];

/// Requests whose encoding is not supported: they arrive as dead letters, and all others as events.
const BROTLI: [&str; 2] = ["curl: brotli", "fetch: brotli"];

const STANDARD_SECRET: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";

/// What a private key of Ed25519 begins with in PKCS 8 (RFC 8410); the seed follows.
const ED25519_PRIVATE: &[u8] = b"\x30\x2e\x02\x01\x00\x30\x05\x06\x03\x2b\x65\x70\x04\x22\x04\x20";

/// The value of a request's record.
fn click(name: &str) -> String {
    let noise = if name.contains("large") {
        format!(",\"noise\":\"{}\"", "x".repeat(100_000))
    } else {
        String::new()
    };
    let mark = if name.contains("BOM") { "\u{feff}" } else { "" };
    format!("{mark}{{\"campid\":\"{name}\"{noise}}}")
}

/// A bridge with webhooks for the ways that the clients prove who they are, all to one topic; and the private
/// key of a sender, in PKCS 8.
async fn bridge(broker: &Broker) -> (TestBridge, String) {
    let seed = [7; 32];
    let pair = Ed25519KeyPair::from_seed_unchecked(&seed).unwrap();
    let public = format!("whpk_{}", BASE64.encode(pair.public_key().as_ref()));
    let bridge = TestBridge::start_with(broker, |config| {
        let first = config.webhook[0].clone();
        let standard = AuthSchemeSettings::StandardWebhooks { tolerance_s: 300 };
        config.webhook.extend([
            webhook(&first, "basic", AuthSchemeSettings::Basic),
            webhook(&first, "standard", standard),
            WebhookSettings {
                body: BodyFormat::Form,
                ..webhook(&first, "form", AuthSchemeSettings::Bearer)
            },
        ]);
        let unhashed = |name: &str| NamedKey { sha256: None, ..NamedKey::new(name, "") };
        config.auth.keys = vec![
            key("user:a-password-of-the-tests"),
            NamedKey { secret: Some(Secret::new(STANDARD_SECRET)), ..unhashed("standard") },
            NamedKey { public_key: Some(public), ..unhashed("public") },
        ];
    })
    .await;
    (bridge, BASE64.encode(&[ED25519_PRIVATE, &seed].concat()))
}

/// The statuses that a client of the table got; none where its program is missing.
fn client(name: &str, url: &str, private: &str) -> Option<BTreeMap<String, String>> {
    let path = file(name).display().to_string();
    let plain = |program: &str, before: &[&str]| {
        run(Path::new(program), &[before, &[path.as_str(), url, KEY]].concat())
    };
    match name {
        "curl.sh" => plain("bash", &[]),
        "client.php" => plain("php", &[]),
        "client.rb" => plain("ruby", &[]),
        "client.pl" => plain("perl", &[]),
        "Client.java" => plain("java", &[]),
        "client.go" => plain("go", &["run"]),
        "client.py" => run(&python()?.join("python"), &[&path, url, KEY, STANDARD_SECRET]),
        "client.mjs" => {
            let script = node()?.join("client.mjs").display().to_string();
            run(Path::new("node"), &[&script, url, KEY, STANDARD_SECRET, private])
        }
        other => panic!("{other} is no client"),
    }
}

/// What curl's requests through each proxy that is there were answered.
fn through_proxies(bridge: &TestBridge) -> Vec<(&'static str, BTreeMap<String, String>)> {
    let debian = |name: &str| PathBuf::from("/usr/sbin").join(name);
    let envoy = python().map(|folder| folder.join("envoy"));
    let proxies: [(&str, Option<PathBuf>, &[&str], &str); 5] = [
        ("nginx", Some(debian("nginx")), &["-c"], "nginx.conf"),
        ("Apache", Some(debian("apache2")), &["-DFOREGROUND", "-f"], "apache.conf"),
        ("HAProxy", Some(debian("haproxy")), &["-db", "-f"], "haproxy.cfg"),
        ("Envoy", envoy, &["--log-level", "warning", "--use-dynamic-base-id", "-c"], "envoy.yaml"),
        (
            "Caddy",
            Some("/usr/bin/caddy".into()),
            &["run", "--adapter", "caddyfile", "--config"],
            "Caddyfile",
        ),
    ];
    let script = file("curl.sh").display().to_string();
    let through = |(name, program, arguments, settings): (_, Option<PathBuf>, &[&str], &str)| {
        let proxy = Proxy::start(&program?, arguments, settings, bridge.http)?;
        let url = format!("http://{}", proxy.address);
        Some((name, run(Path::new("bash"), &[&script, &url, KEY, name])?))
    };
    proxies.into_iter().filter_map(through).collect()
}

#[tokio::test]
async fn clicks_of_real_clients_and_proxies_arrive() {
    let broker = Broker::kafka().unwrap_or_else(Broker::embedded);
    let (bridge, private) = bridge(&broker).await;
    let url = format!("http://{}", bridge.http);
    let mut answers: Vec<(BTreeSet<String>, BTreeMap<String, String>)> = Vec::new();
    std::thread::scope(|scope| {
        let of_client = |(name, expected): (&'static str, &'static [&'static str])| {
            let (url, private) = (&url, &private);
            let task = scope.spawn(move || client(name, url, private));
            (expected, task)
        };
        let clients: Vec<_> = TABLE.into_iter().map(of_client).collect();
        for (name, statuses) in through_proxies(&bridge) {
            let expected = THROUGH_PROXIES.iter().map(|request| format!("{name}: {request}"));
            answers.push((expected.collect(), statuses));
        }
        for (expected, task) in clients {
            let statuses = task.join().expect("a client");
            let expected = expected.iter().map(|name| (*name).to_owned()).collect();
            answers.extend(statuses.map(|statuses| (expected, statuses)));
        }
    });
    let mut sent: BTreeSet<String> = BTreeSet::new();
    for (expected, statuses) in answers {
        let found: BTreeSet<String> = statuses.keys().cloned().collect();
        assert_eq!(found, expected);
        let refused: Vec<_> = statuses.iter().filter(|(_, status)| *status != "200").collect();
        assert!(refused.is_empty(), "{refused:?}");
        sent.extend(found);
    }
    let (letters, events): (Vec<String>, Vec<String>) =
        sent.into_iter().partition(|name| BROTLI.contains(&name.as_str()));
    println!("\n{} requests arrived as events, {} as dead letters", events.len(), letters.len());
    let found: BTreeMap<String, ConsumedRecord> = bridge
        .records(events.len())
        .into_iter()
        .map(|record| (String::from_utf8(record.key.clone().expect("a key")).unwrap(), record))
        .collect();
    assert_eq!(found.keys().collect::<Vec<_>>(), events.iter().collect::<Vec<_>>());
    for name in &events {
        let record = &found[name];
        assert!(
            record.value == click(name).as_bytes(),
            "{name}: {:.200}",
            String::from_utf8_lossy(&record.value)
        );
        assert_eq!(header(record, "content-type"), "application/json", "{name}");
    }
    assert_eq!(bridge.count(), events.len() as i64);
    let topic = bridge.config.webhook[0].dead_letters();
    for letter in records(&bridge.config, &topic, letters.len()) {
        assert_eq!(header(&letter, "hookbridge-reason"), "unknown_encoding");
        assert_eq!(header(&letter, "content-encoding"), "br");
    }
}

/// The table has what it promises.
#[test]
fn at_least_sixty_requests_are_in_the_table() {
    let names: Vec<&str> = TABLE.iter().flat_map(|(_, names)| names.iter().copied()).collect();
    let distinct: BTreeSet<&&str> = names.iter().collect();
    assert!(distinct.len() == names.len() && names.len() >= 60, "{}", names.len());
    assert!(BROTLI.iter().all(|name| names.contains(name)));
}
