//! `hookbridge tail`: for people and machines, from anywhere in a topic.

use std::path::Path;
use std::process::{Command, Stdio};

use hookbridge::config::Config;
use jiff::{SignedDuration, Timestamp};
use rdkafka::ClientConfig;
use rdkafka::producer::{BaseProducer, BaseRecord, Producer};
use serde_json::Value;

use crate::harness::brokers::{Broker, run, variable, without};
use crate::harness::process::{Running, hookbridge, lines, printed, settings_file};
use crate::harness::support::{PATIENCE, TestBridge, click, fixture, records, sender};
use crate::keys::key;
use crate::on_every_broker;

/// `hookbridge tail` with the settings of this folder.
fn tail(config: &Config, folder: &Path, arguments: &[&str]) -> Command {
    let file = settings_file(folder, config);
    let mut command = hookbridge(["tail", "--config"]);
    command.arg(file).args(arguments);
    command
}

on_every_broker! {
    /// Tests the start at the beginning, the filter by campaign, and addresses hidden or not.
    async fn tail_shows_records_for_people_and_machines(broker: Broker) {
        let bridge = TestBridge::start(&broker).await;
        bridge.post(fixture("email-marketing-click.json")).await;
        let hostile = "{\"campid\":\"7\",\n\"subject\":\"\\u001b[2J\\u202e a\\u0040b.co\",\"n\":1e999}";
        bridge.post(hostile).await;
        let folder = tempfile::tempdir().unwrap();
        // An operator's machine has no senders' keys.
        let mut config = bridge.config.clone();
        config.auth.api_key = None;
        let run = |arguments: &[&str]| {
            let arguments = [&["--from", "beginning"], arguments].concat();
            printed(tail(&config, folder.path(), &arguments), 0).0
        };
        let out = run(&["--campaign", "12345", "--count", "1"]);
        assert_eq!(out.lines().count(), 1, "{out}");
        for words in ["8:0 ", "12345 ", "click  Bogota  Colombia  mobile  Chrome", "t***@testdomain.com"] {
            assert!(out.contains(words), "{words:?} is not in {out}");
        }
        assert!(!out.contains('\x1b'), "plain in a pipe");
        let out = run(&["--key", "7", "--count", "1"]);
        assert!(out.contains("[2J a***@b.co\n"), "{out:?}");
        let out = run(&["--count", "2", "--json"]);
        let records: Vec<Value> =
            out.lines().map(|line| serde_json::from_str(line).unwrap_or_default()).collect();
        let click = records.iter().find(|record| record["key"] == "12345").expect(&out);
        assert_eq!(click["topic"], bridge.topic());
        assert_eq!((&click["partition"], &click["offset"]), (&8.into(), &0.into()));
        assert_eq!(click["value"]["email"], "t***@testdomain.com");
        assert_eq!(click["headers"]["ce_specversion"], "1.0");
        assert!(click["timestamp"].as_str().unwrap().parse::<jiff::Timestamp>().is_ok());
        // A number of any size is unchanged, and a record stays on one line.
        assert!(out.contains("\\u202e a***\\u0040b.co\",\"n\":1e999}"), "{out}");
        let out = run(&["--campaign", "12345", "--count", "1", "--json", "--show-addresses"]);
        assert!(out.contains("\"test@testdomain.com\""), "{out}");
    }
}

on_every_broker! {
    /// `tail` ends cleanly when the reader closes the pipe.
    async fn tail_follows_new_records_by_default(broker: Broker) {
        let bridge = TestBridge::start(&broker).await;
        bridge.post(click("1")).await;
        let folder = tempfile::tempdir().unwrap();
        let mut command = tail(&bridge.config, folder.path(), &["--json"]);
        let mut follower = Running(command.stdout(Stdio::piped()).spawn().unwrap());
        let out = lines(follower.0.stdout.take().unwrap());
        // The start of `tail` is not visible, so clicks are sent until it shows one.
        let line = loop {
            bridge.post(click("2")).await;
            if let Ok(line) = out.recv_timeout(std::time::Duration::from_millis(300)) {
                break line;
            }
        };
        let record: Value = serde_json::from_str(&line).unwrap();
        assert_eq!(record["key"], "2");
        drop(out);
        let deadline = tokio::time::Instant::now() + PATIENCE;
        while follower.0.try_wait().unwrap().is_none() {
            assert!(tokio::time::Instant::now() < deadline, "it does not end");
            bridge.post(click("3")).await;
        }
        assert_eq!(follower.end(), 0);
    }
}

/// Only a real broker finds offsets by time. A webhook's name selects its topic.
#[tokio::test]
async fn tail_starts_at_a_time() {
    let Some(broker) = Broker::kafka() else { return };
    let bridge = TestBridge::start(&broker).await;
    bridge.post(r#"{"campid":"1"}"#).await;
    let folder = tempfile::tempdir().unwrap();
    let last = bridge.record().timestamp.unwrap().as_millisecond();
    let later = jiff::Timestamp::from_millisecond(last + 1).unwrap().to_string();
    while jiff::Timestamp::now().as_millisecond() <= last {
        std::thread::yield_now();
    }
    bridge.post(r#"{"campid":"2"}"#).await;
    let name = &bridge.config.webhook[0].name;
    let run = |from: &str| {
        let arguments = [name.as_str(), "--json", "--count", "1", "--from", from];
        printed(tail(&bridge.config, folder.path(), &arguments), 0).0
    };
    assert!(run(&later).contains("\"key\":\"2\""));
    assert!(run("1h").contains("\"key\":"));
}

/// Runs the line of the page for readers as it stands there. A dead letter of the day before is not counted.
#[tokio::test]
async fn the_pages_line_counts_todays_dead_letters() {
    let Some(broker) = Broker::kafka() else { return };
    if let Err(error) = Command::new("jq").arg("--version").output() {
        let reason = format!("jq cannot be run ({error})");
        return without("HOOKBRIDGE_REQUIRE_KAFKA", "THE LINE THAT COUNTS DEAD LETTERS", &reason);
    }
    let bridge =
        TestBridge::start_with(&broker, |config| config.auth.keys = vec![key("crm")]).await;
    let letters = bridge.config.webhook[0].dead_letters();
    let producer = ClientConfig::new().set("bootstrap.servers", broker.addresses()).create();
    let producer: BaseProducer = producer.unwrap();
    let old = (Timestamp::now() - SignedDuration::from_hours(25)).as_millisecond();
    for partition in 0..2 {
        let record = BaseRecord::<(), str>::to(&letters).partition(partition).timestamp(old);
        producer.send(record.payload("old")).unwrap();
    }
    producer.flush(PATIENCE).unwrap();
    for body in ["{", "{", "{}", r#"{"campid":7,"event":"open"}"#] {
        bridge.post(body).await;
    }
    sender().post(bridge.url()).bearer_auth("crm").body("{}").send().await.unwrap();
    assert_eq!(records(&bridge.config, &letters, 7).len(), 7);

    let page = include_str!("../../deploy/examples/README.md");
    let blocks = page.split("```sh\n").skip(1).filter_map(|rest| rest.split("```").next());
    let line = blocks.into_iter().find(|block| block.contains("uniq -c")).expect("the line");
    let line = line.replace("TOPIC.dead-letter", &letters);
    let folder = tempfile::tempdir().unwrap();
    let program = Path::new(env!("CARGO_BIN_EXE_hookbridge")).parent().unwrap();
    let mut shell = Command::new("bash");
    shell.args(["-c", &line]).env("LC_ALL", "C");
    shell.env("PATH", format!("{}:{}", program.display(), variable("PATH").unwrap()));
    shell.env("HOOKBRIDGE_CONFIG", settings_file(folder.path(), &bridge.config));
    let expected = [
        "1 invalid\tThe event has no usable key\tapi_key",
        "1 invalid\tThe event has no usable key\tcrm",
        "1 invalid\tThe event's name is not this webhook's\tapi_key",
        "2 malformed\tThe body is not JSON: see line 1, column 1\tapi_key",
    ];
    // On a busy machine the seconds that the line gives `tail` may not be enough.
    let deadline = tokio::time::Instant::now() + PATIENCE;
    loop {
        let out = run(&mut shell);
        if out.lines().map(str::trim).eq(expected) {
            break;
        }
        assert!(tokio::time::Instant::now() < deadline, "{out}");
    }
}

#[tokio::test]
async fn each_failure_of_tail_says_what_to_do() {
    let broker = Broker::embedded();
    let bridge = TestBridge::start(&broker).await;
    let folder = tempfile::tempdir().unwrap();
    let mut config = bridge.config.clone();
    let no_place = printed(tail(&config, folder.path(), &["--from", "yesterday"]), 64);
    assert!(no_place.1.contains("how long ago, such as 10m"), "{}", no_place.1);
    let missing = printed(tail(&config, folder.path(), &["no-such-topic"]), 1).1;
    assert!(missing.contains("no-such-topic") && missing.contains("create it"), "{missing}");
    config.kafka.brokers = "127.0.0.1:1".into();
    let nobody = printed(tail(&config, folder.path(), &[]), 1).1;
    assert!(nobody.contains("no broker can be reached; look at kafka.brokers"), "{nobody}");
}
