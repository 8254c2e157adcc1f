//! `hookbridge replay`: replayed records, records that still fail, and a killed replay.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::{Command, Stdio};

use hookbridge::config::{BodyFormat, Config};
use hookbridge::kafka::ConsumedRecord;

use crate::dead_letters::header;
use crate::harness::brokers::{Broker, count};
use crate::harness::process::{Running, hookbridge, printed, settings_file};
use crate::harness::support::{TestBridge, records, until};
use crate::on_every_broker;

/// `hookbridge replay` with these settings, without the senders' keys.
fn replay(config: &Config, folder: &Path, arguments: &[&str]) -> Command {
    let mut config = config.clone();
    config.auth.api_key = None;
    let mut command = hookbridge(["replay", "--config"]);
    command.arg(settings_file(folder, &config)).args(arguments);
    command
}

fn ids(records: &[ConsumedRecord]) -> BTreeMap<String, usize> {
    let mut ids = BTreeMap::new();
    for record in records {
        *ids.entry(header(record, "ce_id").to_owned()).or_default() += 1;
    }
    ids
}

on_every_broker! {
    /// The records are as if the settings had always been right. Dead letters that still fail are
    /// named. Nothing is replayed twice.
    async fn dead_letters_are_replayed_once_the_settings_are_right(broker: Broker) {
        let bridge = TestBridge::start(&broker).await;
        for body in [r#"{"id":{"campaign":7}}"#, r#"{"id":{"campaign":"8"}}"#, "{", "[]"] {
            bridge.post(body).await;
        }
        let (config, folder) = (&bridge.config, tempfile::tempdir().unwrap());
        let letters = records(config, &config.webhook[0].dead_letters(), 4);
        let group = config.webhook[0].topic.as_str();
        let run = |more: &[&str], code| {
            printed(replay(config, folder.path(), &[&["--group", group], more].concat()), code)
        };
        let key = ["--key", "/id/campaign"];
        let (out, _) = run(&[&key[..], &["--dry-run"]].concat(), 1);
        assert!(out.contains("would be replayed           2"), "{out}");
        assert_eq!(bridge.count(), 0);
        let (out, err) = run(&key, 1);
        for words in ["4 records read", "  replayed                    2", "  malformed                   1",
            "  invalid                     1", "The body is not a JSON object"] {
            assert!(out.contains(words), "{words:?} is not in {out}{err}");
        }
        let landed = bridge.records(2);
        for record in &landed {
            let letter = letters.iter().find(|letter| letter.value == record.value).unwrap();
            for name in ["ce_id", "hookbridge-received-at"] {
                assert_eq!(header(record, name), header(letter, name));
            }
            assert_eq!(record.timestamp, letter.timestamp);
            assert!(matches!(record.key.as_deref(), Some(b"7" | b"8")));
        }
        let (out, _) = run(&key, 0);
        assert!(out.contains("4 records were done before") && out.contains("0 records read"), "{out}");
        assert_eq!(bridge.count(), 2);
        run(&[&key[..], &["--restart"]].concat(), 1);
        assert_eq!(bridge.count(), 4);
        assert!(ids(&bridge.records(4)).values().all(|times| *times == 2));
    }
}

on_every_broker! {
    /// The records keep their ids.
    async fn a_part_of_a_topic_is_replayed_to_another_webhook(broker: Broker) {
        let other = |config: &mut Config| {
            let mut webhook = config.webhook[0].clone();
            (webhook.name, webhook.path) = ("other".into(), "/other".into());
            webhook.topic = crate::harness::brokers::unique("other");
            config.webhook.push(webhook);
        };
        let bridge = TestBridge::start_with(&broker, other).await;
        let config = &bridge.config;
        broker.create_topic(&config.webhook[1].topic, 3).await;
        for number in 0..10 {
            bridge.post(crate::harness::support::numbered("7", number)).await;
        }
        let seen = bridge.records(10);
        let partition = seen[0].partition.to_string();
        let folder = tempfile::tempdir().unwrap();
        let part = ["--topic", bridge.topic(), "--from", "2", "--to", "5", "--webhook", "other"];
        let (_, err) = printed(replay(config, folder.path(), &part), 1);
        assert!(err.contains("name it with --partition"), "{err}");
        let part = [&part[..], &["--group", bridge.topic(), "--partition", &partition]].concat();
        let (out, _) = printed(replay(config, folder.path(), &part), 0);
        assert!(out.contains("3 records read"), "{out}");
        let landed = records(config, &config.webhook[1].topic, 3);
        assert_eq!(ids(&landed), ids(&seen[2..5]));
        assert_eq!(count(&broker.addresses(), &config.webhook[1].topic), 3);
        let wrong = ["--topic", bridge.topic(), "--webhook", "none"];
        let (_, err) = printed(replay(config, folder.path(), &wrong), 1);
        assert!(err.contains("there is no none; the settings have email-marketing-click, other"), "{err}");
    }
}

on_every_broker! {
    /// The settings took each body for one event. The events have the ids that they would have had.
    async fn a_body_with_several_events_is_taken_apart(broker: Broker) {
        let bridge = TestBridge::start(&broker).await;
        let bodies = [
            r#"[{"campid":1},{"campid":2,"n":1},{"x":1},{"campid":2,"n":1}]"#,
            r#"[{"campid":3},{"campid":4},{"campid""#,
        ];
        for body in bodies {
            bridge.post(body).await;
        }
        let mut config = bridge.config.clone();
        config.webhook[0].body = BodyFormat::Array;
        let folder = tempfile::tempdir().unwrap();
        let group = ["--group", bridge.topic()];
        let (out, _) = printed(replay(&config, folder.path(), &group), 1);
        for words in ["2 records read", "  replayed                    5", "event 3: The event has no usable key",
            "the rest: The body is not JSON"] {
            assert!(out.contains(words), "{words:?} is not in {out}");
        }
        let landed = bridge.records(5);
        assert_eq!(bridge.count(), 5);
        // A bridge that understands the bodies gives the same ids.
        let topic = crate::harness::brokers::unique("clicks");
        broker.create_topic(&topic, 3).await;
        config.webhook[0].topic = topic;
        let right = TestBridge::launch(config);
        right.ready().await;
        right.post(bodies[0]).await;
        right.post(r#"[{"campid":3},{"campid":4}]"#).await;
        assert_eq!(ids(&landed), ids(&right.records(5)));
    }
}

/// A duplicate record has the same id.
#[tokio::test]
async fn a_killed_replay_loses_nothing() {
    const LETTERS: usize = 6_000;
    let Some(broker) = Broker::kafka() else { return };
    let bridge = TestBridge::start(&broker).await;
    let (config, folder) = (&bridge.config, tempfile::tempdir().unwrap());
    let letters = config.webhook[0].dead_letters();
    let url = bridge.url();
    let bodies: String = (0..LETTERS).map(|n| format!("{{\"id\":\"{n}\"}}\n")).collect();
    let file = folder.path().join("bodies");
    std::fs::write(&file, bodies).unwrap();
    let mut send = hookbridge(["send", "--url", &url, "--connections", "64"]);
    send.args(["--count", &LETTERS.to_string(), "--bodies"]).arg(&file);
    let sent = send.env("HOOKBRIDGE_API_KEY", crate::harness::support::KEY).output().unwrap();
    assert!(sent.status.success());
    assert_eq!(count(&broker.addresses(), &letters), LETTERS as i64);
    let run = || replay(config, folder.path(), &["--key", "/id", "--group", bridge.topic()]);
    let mut kills = 0;
    for round in 1..=3 {
        let mut command = run();
        let mut process = Running(command.stdout(Stdio::null()).spawn().unwrap());
        let wanted = round * LETTERS as i64 / 6;
        until("some are there", async || {
            bridge.count() > wanted || process.0.try_wait().unwrap().is_some()
        })
        .await;
        kills += usize::from(process.0.try_wait().unwrap().is_none());
        // It may have ended by now.
        process.0.kill().unwrap();
        process.end();
    }
    assert!(kills > 0, "it was never killed midway");
    printed(run(), 0);
    let landed = bridge.records(bridge.count() as usize);
    let ids = ids(&landed);
    assert_eq!(ids.len(), LETTERS);
    println!("{} of {LETTERS} are there twice after {kills} kills", landed.len() - LETTERS);
    let (out, _) = printed(run(), 0);
    assert!(out.contains("0 records read"), "{out}");
}
