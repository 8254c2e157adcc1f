//! `hookbridge spool export` and `hookbridge replay --from-file`: the events on a disk as lines, and back.
//!
//! What the spool's files are called, and what is in them beside events, is no matter here.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use hookbridge::config::{BodyFormat, Config};
use hookbridge::kafka::ConsumedRecord;
use serde_json::Value;
use tempfile::TempDir;

use crate::dead_letters::header;
use crate::harness::brokers::{Broker, create_topic};
use crate::harness::process::{Running, Serve, hookbridge, lines, printed, settings_file, texts};
use crate::harness::support::{
    config, count, incompressible, large_click, numbered, records, until,
};

/// The dead letter that is among the clicks: two events, for settings that take one.
const LETTER: &str = r#"[{"campid":"día 🎉"},{"campid":4}]"#;

/// The folder of a spool that a killed process left behind, on a broker that is away.
struct LeftBehind {
    broker: Broker,
    folder: TempDir,
    config: Config,
}

impl LeftBehind {
    /// With so many clicks of the campaign 7, and then a body that is text, and one that is not.
    async fn with(clicks: usize) -> LeftBehind {
        let broker = Broker::embedded();
        let folder = tempfile::tempdir().unwrap();
        let mut config = config(&broker);
        config.spool.dir = folder.path().join("spool");
        broker.create_topic(&config.webhook[0].topic, 3).await;
        broker.create_topic(&config.webhook[0].dead_letters(), 1).await;
        let serve = Serve::launch(&config, folder.path(), "true");
        until("ready", async || serve.is_ready().await).await;
        broker.development().cluster().broker_down(-1).unwrap();
        let bodies = (0..clicks).map(|number| numbered("7", number));
        for body in bodies.chain([LETTER.into(), b"\xff\n".to_vec()]) {
            assert_eq!(serve.post(body).send().await.unwrap().status(), 200);
        }
        // While it runs, nobody else reads its folder.
        let left = LeftBehind { broker, folder, config };
        let (out, err) = printed(left.export(&[]), 1);
        assert!(out.is_empty() && err.contains("uses it. Stop that process first"), "{out}{err}");
        serve.signal("KILL");
        serve.end();
        left
    }

    /// The program with these settings, without the senders' keys.
    fn command(&self, config: &Config) -> Command {
        let mut config = config.clone();
        config.auth.api_key = None;
        let mut command = hookbridge(["--config"]);
        command.arg(settings_file(self.folder.path(), &config));
        command
    }

    fn export(&self, arguments: &[&str]) -> Command {
        let mut command = self.command(&self.config);
        command.args(["spool", "export"]).args(arguments);
        command
    }

    /// Replays a file, with settings that understand bodies with several events.
    fn replay(&self, file: &Path, arguments: &[&str]) -> Command {
        let mut config = self.config.clone();
        config.webhook[0].body = BodyFormat::Array;
        let mut command = self.command(&config);
        command.args(["replay", "--from-file"]).arg(file).args(arguments);
        command
    }

    fn topic(&self) -> &str {
        &self.config.webhook[0].topic
    }

    fn count(&self) -> i64 {
        count(&self.broker.addresses(), self.topic())
    }

    /// The spool's files.
    fn files(&self) -> Vec<PathBuf> {
        let entries = fs::read_dir(&self.config.spool.dir).unwrap();
        let files: Vec<_> = entries.map(|entry| entry.unwrap().path()).collect();
        files.into_iter().filter(|path| path.is_file()).collect()
    }
}

fn parsed(lines: &str) -> Vec<Value> {
    lines.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// The numbers of the clicks among these lines.
fn numbers(lines: &[Value]) -> Vec<usize> {
    let number = |line: &Value| {
        let body: Value = serde_json::from_str(line["value"].as_str()?).ok()?;
        body["relid"].as_str()?.parse().ok()
    };
    lines.iter().filter_map(number).collect()
}

/// Compares a record of the topic with the line that it was.
#[track_caller]
fn check_same(record: &ConsumedRecord, line: &Value) {
    assert_eq!(record.key.as_deref(), line["key"].as_str().map(str::as_bytes), "{line}");
    assert_eq!(record.value, line["value"].as_str().unwrap().as_bytes());
    assert_eq!(record.timestamp.unwrap().to_string(), line["timestamp"].as_str().unwrap());
    let headers: BTreeMap<&str, &str> =
        record.headers.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
    assert_eq!(serde_json::json!(headers), line["headers"]);
}

/// The lines are the records that would be in the topic, and become them.
#[tokio::test]
async fn what_a_killed_process_left_is_exported_and_replayed() {
    let left = LeftBehind::with(5).await;
    let (out, err) = printed(left.export(&[]), 0);
    assert!(err.contains("7 events written"), "{err}");
    let lines = parsed(&out);
    assert_eq!(numbers(&lines), [0, 1, 2, 3, 4]);
    for line in &lines[..5] {
        assert_eq!((line["topic"].as_str(), line["key"].as_str()), (Some(left.topic()), Some("7")));
    }
    let letters = left.config.webhook[0].dead_letters();
    for (line, name, value) in [(&lines[5], "value", LETTER), (&lines[6], "value_base64", "/wo=")] {
        assert_eq!((line["topic"].as_str(), &line["key"]), (Some(&*letters), &Value::Null));
        assert_eq!(line[name], value, "{line}");
        assert_eq!(line["headers"]["hookbridge-webhook"], *left.config.webhook[0].name);
    }
    // It changes nothing, and nothing is set aside.
    assert_eq!(printed(left.export(&[]), 0).0, out);
    assert_eq!(printed(left.export(&["--set-aside"]), 0).0, "");

    let file = left.folder.path().join("events.jsonl");
    fs::write(&file, &out).unwrap();
    left.broker.development().cluster().broker_up(-1).unwrap();
    let (said, _) = printed(left.replay(&file, &["--dry-run"]), 1);
    assert!(said.contains("would be replayed           7"), "{said}");
    assert_eq!(left.count(), 0);
    let (said, _) = printed(left.replay(&file, &[]), 1);
    for words in
        ["7 lines read from ", "  replayed                    7", "  malformed", "line 7  "]
    {
        assert!(said.contains(words), "{words:?} is not in {said}");
    }
    let landed = records(&left.config, left.topic(), 7);
    assert_eq!(left.count(), 7);
    for line in &lines[..5] {
        let id = line["headers"]["ce_id"].as_str().unwrap();
        let same = landed.iter().find(|record| header(record, "ce_id") == id);
        check_same(same.unwrap_or_else(|| panic!("{line} is not there")), line);
    }
    let keys: BTreeSet<_> = landed.iter().map(|record| record.key.clone().unwrap()).collect();
    assert_eq!(keys, ["7", "4", "día 🎉"].map(|key| key.as_bytes().to_vec()).into());

    // Twice is twice, with the same ids, here from standard input.
    let mut again = left.replay(Path::new("-"), &[]);
    again.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut again = again.spawn().unwrap();
    again.stdin.take().unwrap().write_all(out.as_bytes()).unwrap();
    let (said, _) = texts(&again.wait_with_output().unwrap(), 1);
    assert!(said.contains("7 lines read from standard input"), "{said}");
    let ids = |records: &[ConsumedRecord]| -> BTreeSet<String> {
        records.iter().map(|record| header(record, "ce_id").to_owned()).collect()
    };
    let twice = records(&left.config, left.topic(), 14);
    assert_eq!((left.count(), ids(&twice)), (14, ids(&landed)));
}

/// Bytes of one event are changed in a copy of each file of the spool.
#[tokio::test]
async fn of_a_damaged_file_every_other_event_is_exported() {
    const CLICKS: usize = 100;
    let left = LeftBehind::with(CLICKS).await;
    let mut found = Vec::new();
    for file in left.files() {
        let mut bytes = fs::read(&file).unwrap();
        let damaged = br#""relid":"50""#;
        let places: Vec<_> = memchr::memmem::find_iter(&bytes, damaged).collect();
        places.iter().for_each(|place| bytes[place + 3] ^= 4);
        let copy = left.folder.path().join("damaged-copy");
        fs::write(&copy, &bytes).unwrap();
        let has_events = !places.is_empty();
        let mut export = left.export(&["--file"]);
        // No spool is needed for it.
        export.arg(&copy).env("HOOKBRIDGE__SPOOL__DIR", "");
        let (out, err) = printed(export, if has_events { 0 } else { 1 });
        if has_events {
            assert!(err.contains("events written"), "{err}");
        } else {
            assert!(
                out.is_empty() && err.contains("no event can be read of this file"),
                "{out}{err}"
            );
        }
        found.extend(parsed(&out));
    }
    assert!(!found.is_empty(), "no file has the click");
    let mut numbers = numbers(&found);
    numbers.sort_unstable();
    let expected: Vec<_> = (0..CLICKS).filter(|number| *number != 50).collect();
    assert_eq!(numbers, expected, "each other click once");
    assert_eq!(found.len(), CLICKS - 1 + 2, "and the dead letters");
    let (_, err) = printed(left.export(&["--file", "/nowhere"]), 1);
    assert!(err.contains("/nowhere: No such file"), "{err}");
}

#[tokio::test]
async fn lines_that_are_not_understood_do_not_stop_the_others() {
    let broker = Broker::embedded();
    let mut config = config(&broker);
    config.http.max_body_bytes = 1_000;
    let folder = tempfile::tempdir().unwrap();
    broker.create_topic(&config.webhook[0].topic, 1).await;
    let topic = &config.webhook[0].topic;
    let line = |key: usize| format!(r#"{{"topic":"{topic}","value":"{{\"campid\":{key}}}"}}"#);
    let long = format!(r#"{{"topic":"{topic}","value":"{}"}}"#, "x".repeat(1 << 20));
    let other = r#"{"topic":"another","value":"{\"campid\":7}"}"#.to_owned();
    let id = r#""headers":{"ce_id":"0f0e0d0c-0b0a-8908-8706-050403020100"}"#;
    let lines = [
        line(1),
        "click".into(),
        "".into(),
        long,
        other,
        line(2).replace(r#","value""#, &format!(r#",{id},"value""#)),
        "\u{feff}{}".into(),
        line(3),
    ];
    let file = folder.path().join("lines");
    fs::write(&file, lines.join("\n")).unwrap();
    let replay = |more: &[&str]| {
        let mut command = hookbridge(["replay", "--from-file"]);
        command.arg(&file).arg("--config").arg(settings_file(folder.path(), &config)).args(more);
        command
    };
    let (out, _) = printed(replay(&[]), 1);
    for words in [
        "7 lines read from ",
        "  replayed                    3",
        "  bad_line                    3",
        "line 2  The line is not understood: it is no JSON object",
        "line 4  The line is not understood: it is longer than 399216 bytes",
        "line 7  The line is not understood: ",
        "  no_webhook                  1",
        "line 5  It names no webhook",
    ] {
        assert!(out.contains(words), "{words:?} is not in {out}");
    }
    let landed = records(&config, topic, 3);
    let keys: BTreeSet<_> = landed.iter().map(|record| record.key.clone().unwrap()).collect();
    assert_eq!(keys, ["1", "2", "3"].map(|key| key.as_bytes().to_vec()).into());
    let second = landed.iter().find(|record| record.key.as_deref() == Some(b"2")).unwrap();
    assert_eq!(header(second, "ce_id"), "0f0e0d0c-0b0a-8908-8706-050403020100");
    // The webhook and the key of the command line are those of every line.
    let name = config.webhook[0].name.as_str();
    let (out, _) = printed(replay(&["--webhook", name, "--key", "/campid"]), 1);
    assert!(out.contains("  replayed                    4"), "{out}");
    let (out, _) = printed(replay(&["--key", "/relid", "--dry-run"]), 1);
    assert!(out.contains("would be replayed           0"), "{out}");

    for more in [
        &["--topic", "t"][..],
        &["--partition", "1"],
        &["--from", "1h"],
        &["--to", "1h"],
        &["--group", "g"],
        &["--restart"],
        &["email-marketing-click"],
    ] {
        let (_, err) = printed(replay(more), 64);
        assert!(err.contains("cannot be used with"), "{more:?}: {err}");
    }
    for (path, words) in
        [("/nowhere", "--from-file: /nowhere cannot be read"), ("/", "/ cannot be read")]
    {
        let mut command = hookbridge(["replay", "--from-file", path, "--dry-run", "--config"]);
        command.arg(settings_file(folder.path(), &config));
        let (_, err) = printed(command, 1);
        assert!(err.contains(words), "{err}");
    }
}

/// As with `head`.
#[tokio::test]
async fn a_reader_that_has_enough_ends_the_export_quietly() {
    let left = LeftBehind::with(3).await;
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    let mut export = left.export(&[]);
    let output = export.stdout(writer).stderr(Stdio::piped()).spawn().unwrap();
    let output = output.wait_with_output().unwrap();
    assert_eq!(texts(&output, 0).1, "");
}

/// A replay that Kafka stops says from which line on to go on.
#[tokio::test]
async fn a_replay_that_kafka_stops_names_the_line_to_go_on_with() {
    let left = LeftBehind::with(3).await;
    let (out, _) = printed(left.export(&[]), 0);
    let file = left.folder.path().join("events.jsonl");
    fs::write(&file, out).unwrap();
    // The brokers are still away.
    let (_, err) = printed(left.replay(&file, &[]), 1);
    let words = "run it again with the lines from 1 on, as `tail -n +1` gives them";
    assert!(err.contains("Kafka does not take it: ") && err.contains(words), "{err}");
}

/// Standard input has nothing more, and does not end either.
#[tokio::test]
async fn a_replay_that_waits_for_lines_can_be_stopped() {
    const LINES: usize = 1_000;
    let broker = Broker::embedded();
    let (config, folder) = (config(&broker), tempfile::tempdir().unwrap());
    let topic = &config.webhook[0].topic;
    broker.create_topic(topic, 1).await;
    let mut command = hookbridge(["replay", "--from-file", "-", "--config"]);
    command.arg(settings_file(folder.path(), &config));
    command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::piped());
    let mut replay = Running(command.spawn().unwrap());
    let said = lines(replay.0.stderr.take().unwrap());
    let mut input = replay.0.stdin.take().unwrap();
    let line = serde_json::json!({"topic": topic, "value": r#"{"campid":7}"#});
    input.write_all(format!("{line}\n").repeat(LINES).as_bytes()).unwrap();
    until("replayed", async || count(&broker.addresses(), topic) == LINES as i64).await;
    replay.signal("INT");
    assert_eq!(replay.end(), 1);
    let words = "stopped: run it again with the lines from 1001 on";
    assert!(said.iter().any(|line| line.contains(words)));
    drop(input);
}

/// Neither the topic nor its dead letters take them.
#[tokio::test]
async fn what_is_set_aside_is_exported_alone_or_with_what_waits() {
    let Some(broker) = Broker::kafka() else { return };
    let folder = tempfile::tempdir().unwrap();
    let mut config = config(&broker);
    config.spool.dir = folder.path().join("spool");
    let webhook = config.webhook[0].clone();
    let small = [("max.message.bytes", "2000")];
    create_topic(&broker.addresses(), &webhook.topic, 1, 1, &small).await;
    create_topic(&broker.addresses(), &webhook.dead_letters(), 1, 1, &small).await;
    let serve = Serve::launch(&config, folder.path(), "true");
    until("ready", async || serve.is_ready().await).await;
    let large = large_click(3_000);
    for body in [large.clone(), incompressible(3_001)] {
        let answer = serve.post(body).send().await.unwrap();
        assert_eq!(answer.status(), 200);
    }
    until("set aside", async || {
        serve.metric("hookbridge_spool_set_aside_events").await == 2.0
            && serve.metric("hookbridge_spool_events").await == 0.0
    })
    .await;
    assert_eq!(serve.stop().0, 0);
    let export = |more: &[&str]| {
        let mut command = hookbridge(["spool", "export", "--config"]);
        command.arg(settings_file(folder.path(), &config)).args(more);
        parsed(&printed(command, 0).0)
    };
    let lines = export(&["--set-aside"]);
    let mut found: Vec<_> = lines
        .iter()
        .map(|line| {
            (line["topic"].as_str().unwrap(), line["key"].as_str(), line["value"].as_str().unwrap())
        })
        .collect();
    found.sort_unstable();
    let letters = webhook.dead_letters();
    let blank = incompressible(3_001);
    let mut expected =
        [(webhook.topic.as_str(), Some("7"), large.as_str()), (&*letters, None, &*blank)];
    expected.sort_unstable();
    assert_eq!(found, expected);
    assert_eq!(export(&[]), lines);
}
