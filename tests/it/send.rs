//! `hookbridge send`: its clicks and its reports.

use std::fs;
use std::net::TcpListener;
use std::process::{Output, Stdio};

use serde_json::Value;

use crate::harness::brokers::Broker;
use crate::harness::process::{Running, hookbridge, lines, texts};
use crate::harness::support::{KEY, Mount, PATIENCE, TestBridge};
use crate::on_every_broker;
use crate::tls::{self, Authority};

/// Runs `hookbridge send` with these arguments and this key.
fn send(url: &str, key: &str, arguments: &[&str]) -> Output {
    let mut command = hookbridge(["send", "--url", url]);
    command.args(arguments).env("HOOKBRIDGE_API_KEY", key).output().unwrap()
}

#[track_caller]
fn json(output: &Output, code: i32) -> Value {
    serde_json::from_str(&texts(output, code).0).unwrap()
}

on_every_broker! {
    /// Each click is distinct.
    async fn send_lands_one_click_or_many(broker: Broker) {
        let bridge = TestBridge::start(&broker).await;
        let url = bridge.url();
        let (out, err) = texts(&send(&url, KEY, &[]), 0);
        assert!(out.starts_with("1 clicks in ") && out.contains("p99.9"), "{out}");
        assert!(!out.contains('\x1b') && err.is_empty(), "plain in a pipe: {out}{err}");
        let closed = ["--count", "200", "--connections", "8", "--json"];
        let report = json(&send(&url, KEY, &closed), 0);
        assert_eq!((&report["held"], &report["statuses"]["200"]), (&200.into(), &200.into()));
        assert_eq!((&report["failed"], &report["unsent"]), (&0.into(), &0.into()));
        assert!(report["latency_us"]["p50"].as_u64().unwrap() > 0, "{report}");
        let records = bridge.records(201);
        let ids = records.iter().map(|record| crate::dead_letters::header(record, "ce_id"));
        assert_eq!(ids.collect::<std::collections::BTreeSet<_>>().len(), 201);
        assert!(records.iter().all(|record| record.key.as_ref().unwrap().starts_with(b"1")));
        assert_eq!(bridge.count(), 201);
    }
}

/// An open loop sends rate times duration clicks, and measures each from the moment it was due.
#[tokio::test]
async fn a_stall_counts_for_every_click_that_it_delays() {
    let broker = Broker::embedded();
    let bridge = TestBridge::start(&broker).await;
    let cluster = broker.development().cluster();
    cluster.broker_round_trip_time(-1, std::time::Duration::from_millis(100)).unwrap();
    let open = ["--rate", "200", "--duration", "1s", "--connections", "1", "--json"];
    // The open loop ends by itself when all due clicks are answered.
    let report = json(&send(&bridge.url(), KEY, &[&open[..], &["--count", "10"]].concat()), 0);
    assert_eq!(report["held"], 10);
    assert_eq!(report["latency_from"], "due");
    // One connection, 0.1 s for each answer: the fifth click waits for four others.
    let (median, max) = (&report["latency_us"]["p50"], &report["latency_us"]["max"]);
    assert!(median.as_u64().unwrap() > 400_000, "{report}");
    assert!(max.as_u64().unwrap() > 900_000, "{report}");
}

/// The bodies are sent in turn. Refusals are counted and explained, and set the exit code.
#[tokio::test]
async fn send_takes_bodies_from_a_file() {
    let broker = Broker::embedded();
    let reject = |config: &mut hookbridge::config::Config| {
        config.webhook[0].invalid = hookbridge::config::InvalidBody::Reject;
    };
    let bridge = TestBridge::start_with(&broker, reject).await;
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("bodies");
    fs::write(&file, "{\"campid\":7}\r\n\n{\"campid\":8}\n{}\n").unwrap();
    let file = file.to_str().unwrap();
    let report = json(&send(&bridge.url(), KEY, &["--bodies", file, "--count", "6", "--json"]), 1);
    assert_eq!(report["statuses"], serde_json::json!({"200": 4, "422": 2}));
    assert_eq!(report["failed_clicks"], serde_json::json!([2, 5]));
    let first = report["first_failure"].as_str().unwrap();
    assert!(first.contains("answers 422: The event has no usable key; the webhook has"), "{first}");
    let mut values: Vec<_> = bridge.records(4).into_iter().map(|record| record.value).collect();
    values.sort();
    assert_eq!(
        values,
        [b"{\"campid\":7}", b"{\"campid\":7}", b"{\"campid\":8}", b"{\"campid\":8}"]
    );
}

/// No message contains the key.
#[tokio::test]
async fn each_failure_of_send_says_what_to_do() {
    let broker = Broker::embedded();
    let bridge = TestBridge::start(&broker).await;
    let check = |url: &str, key: &str, words: &str| {
        let output = send(url, key, &["--timeout", "500ms"]);
        let (out, err) = texts(&output, 1);
        let all = out + &err;
        assert!(all.contains(words), "{words:?} is not in {all}");
        assert!(!all.contains("secret-key"), "{all}");
    };
    let url = bridge.url();
    check(&url, "not-the-secret-key", "is not one of the bridge's");
    check(&url, "", "no key was sent: put it into HOOKBRIDGE_API_KEY");
    check(&format!("{url}/more"), KEY, "--url must end in the path of a webhook");
    let admin = format!("http://{}/webhooks", bridge.admin);
    check(&admin, KEY, "not admin.listen");
    check("http://127.0.0.1:1/x", KEY, "nothing listens there: is the bridge running");
    check("http://no-such-host.invalid/x", KEY, "look at the host and the port of --url");
    check(&url.replace("http:", "https:"), KEY, "does not speak TLS there");
    check("ftp://127.0.0.1/x", KEY, "use http or https");
    // The kernel accepts the connection; no server answers.
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let silent = format!("http://{}/x", silent.local_addr().unwrap());
    check(&silent, KEY, "no answer in time; the server takes connections or requests");
    let usage = send(&url, KEY, &["--duration", "0s"]);
    assert!(texts(&usage, 64).1.contains("must be longer than nothing"));
    let missing = send(&url, KEY, &["--key-file", "/nowhere"]);
    assert!(texts(&missing, 1).1.contains("--key-file: /nowhere cannot be read"));
}

#[tokio::test]
async fn send_trusts_the_named_authority_only() {
    let authority = Authority::new();
    let pair = authority.issue("bridge", 2100);
    let mut files = pair.files().to_vec();
    files.push(("ca.crt", authority.pem()));
    let mount = Mount::new(&files);
    let broker = Broker::embedded();
    let bridge = tls::start(&broker, &mount, 5_000).await;
    let (url, ca) = (bridge.url().replace("http:", "https:"), mount.path("ca.crt"));
    let known =
        ["--count", "20", "--connections", "2", "--json", "--ca-file", ca.to_str().unwrap()];
    assert_eq!(json(&send(&url, KEY, &known), 0)["held"], 20);
    assert_eq!(bridge.count(), 20);
    let other = Authority::new();
    fs::write(&ca, other.pem()).unwrap();
    let (_, err) = texts(&send(&url, KEY, &known), 1);
    assert!(err.contains("name its authority with --ca-file"), "{err}");
}

#[tokio::test]
async fn a_stopped_send_prints_what_it_has() {
    let broker = Broker::embedded();
    let bridge = TestBridge::start(&broker).await;
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("key");
    fs::write(&file, format!("{KEY}\n")).unwrap();
    let url = bridge.url();
    let arguments = ["--duration", "1h", "--connections", "2", "--json", "--key-file"];
    let mut command = hookbridge(["send", "--url", &url]);
    command.args(arguments).arg(&file).stdout(Stdio::piped());
    let mut sending = Running(command.spawn().unwrap());
    let out = lines(sending.0.stdout.take().unwrap());
    crate::harness::support::until("clicks land", async || bridge.count() > 10).await;
    sending.signal("INT");
    assert_eq!(sending.end(), 0);
    let mut report = String::new();
    while let Ok(line) = out.recv_timeout(PATIENCE) {
        report.push_str(&line);
    }
    let report: Value = serde_json::from_str(&report).unwrap();
    assert_eq!(report["held"].as_i64().unwrap(), bridge.count());
}
