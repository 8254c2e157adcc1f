//! The example in Kafka Streams for readers of the topic.

use std::collections::BTreeMap;
use std::process::{Child, Command};
use std::time::Duration;

use hookbridge::kafka::{Reader, TopicPosition};
use jiff::{SignedDuration, Timestamp, Unit};
use reqwest::StatusCode;
use serde_json::{Value, json};

use crate::harness::brokers::{Broker, Kafka, fetch, run, unique};
use crate::harness::support::{PATIENCE, TestBridge, until_within};

/// How long Kafka Streams may take, including Java's compilation of the source.
const START_TIME: Duration = Duration::from_secs(240);

/// A process that is killed when dropped.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn example(source: &str) -> Command {
    let jars = fetch("deploy/examples/streams/pom.xml", "streams-jars").expect("jars");
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/deploy/examples/streams/");
    let mut java = Command::new("java");
    java.arg("-cp").arg(jars.join("*")).arg(format!("{folder}{source}"));
    java
}

/// A click of this campaign, with its number and time.
fn click(campaign: &str, number: usize, time: Timestamp) -> String {
    let offset = hookbridge::click::event::parse_offset("-05:00").unwrap();
    let time = offset.to_datetime(time).strftime("%Y-%m-%d %H:%M:%S").to_string();
    json!({ "campid": campaign, "contactId": number.to_string(), "timestamp": time }).to_string()
}

/// The example joins clicks with a table from a plain Java producer. That requires that both choose the
/// same partition for a campaign. Late clicks count in their hour; duplicates count once.
#[tokio::test]
async fn kafka_streams_counts_clicks_per_campaign_and_hour() {
    let Some(kafka) = Kafka::start() else { return };
    let broker = Broker::Kafka(kafka.plaintext());
    let bridge = TestBridge::start(&broker).await;
    let (campaigns, counts) = (unique("campaigns"), unique("counts"));
    broker.create_topic(&campaigns, 12).await;
    broker.create_topic(&counts, 1).await;
    let ids: Vec<String> = (1..=40).map(|id| format!("campaign-{id}")).collect();
    let rows = ids.iter().map(|id| format!("{id}=The name of {id}"));
    run(example("Campaigns.java").arg(broker.addresses()).arg(&campaigns).args(rows));

    // A whole hour, so that every click falls into the expected hour.
    let now = Timestamp::now().round(Unit::Hour).unwrap() - SignedDuration::from_hours(1);
    let hours = [now, now - SignedDuration::from_hours(3), now - SignedDuration::from_hours(100)];
    let mut expected: BTreeMap<String, u64> = BTreeMap::new();
    for (place, id) in ids.iter().enumerate() {
        for (back, hour) in hours.iter().enumerate() {
            for number in 0..=(place + back) % 3 {
                let body = click(id, number, *hour + SignedDuration::from_secs(number as i64));
                // Every click is sent twice, the late ones last.
                for _ in 0..2 {
                    assert_eq!(bridge.post(body.clone()).await.status(), StatusCode::OK);
                }
                *expected.entry(format!("{id}@{hour}")).or_default() += 1;
            }
        }
    }
    // This campaign is not in the table.
    assert_eq!(bridge.post(click("unknown", 1, now)).await.status(), StatusCode::OK);

    let mut java = example("ClicksPerHour.java");
    java.args([&broker.addresses(), bridge.topic(), &campaigns, &counts]);
    let mut streams = Running(java.spawn().expect("java"));
    let reader = Reader::open(&bridge.config, &counts, TopicPosition::Beginning, PATIENCE)
        .expect("a reader");
    let mut last: BTreeMap<String, u64> = BTreeMap::new();
    until_within(START_TIME, "every click is counted once", async || {
        // On an error the example prints it and ends; the test starts it again.
        if streams.0.try_wait().expect("a process").is_some() {
            streams = Running(java.spawn().expect("java"));
        }
        while let Some(record) = reader.next(Duration::from_millis(100)).expect("a record") {
            let hour = String::from_utf8(record.key.unwrap()).unwrap();
            let count: Value = serde_json::from_slice(&record.value).unwrap();
            let id = hour.split('@').next().unwrap();
            assert_eq!(count["campaign"], format!("The name of {id}"));
            last.insert(hour, count["clicks"].as_u64().unwrap());
        }
        last == expected
    })
    .await;
}
