//! Clicks that Kafka cannot take now: held on disk, delivered later, in order.

use std::collections::BTreeMap;
use std::process::Stdio;
use std::time::Duration;

use hookbridge::config::Config;
use hookbridge::kafka::ConsumedRecord;
use rdkafka::consumer::Consumer;
use reqwest::StatusCode;
use tokio::time::Instant;

use crate::harness::brokers::{Broker, Kafka, consumer};
use crate::harness::process::{Running, Serve, hookbridge, lines};
use crate::harness::support::{
    PATIENCE, TestBridge, click, config, count, numbered, records, until,
};

/// The numbers of each campaign's clicks, in the order of the topic.
fn numbers(config: &Config, expected: usize) -> BTreeMap<String, Vec<usize>> {
    let mut numbers: BTreeMap<String, Vec<usize>> = BTreeMap::new();
    for record in records(config, &config.webhook[0].topic, expected) {
        let body: serde_json::Value = serde_json::from_slice(&record.value).unwrap();
        let number = body["relid"].as_str().unwrap().parse().unwrap();
        let key = String::from_utf8(record.key.unwrap()).unwrap();
        numbers.entry(key).or_default().push(number);
    }
    numbers
}

async fn empty(bridge: &TestBridge) {
    until("the spool is empty", async || bridge.metric("hookbridge_spool_events").await == 0.0)
        .await;
}

#[tokio::test]
async fn clicks_wait_on_disk_while_the_development_broker_is_away() {
    let broker = Broker::embedded();
    let bridge = TestBridge::start_spooling(&broker, |_| {}).await;
    let away = || broker.development().cluster().broker_down(-1).unwrap();
    let back = || broker.development().cluster().broker_up(-1).unwrap();
    outage(&bridge, away, back).await;
}

#[tokio::test]
async fn clicks_wait_on_disk_while_kafka_is_killed() {
    let Some(kafka) = Kafka::start() else { return };
    let bridge = TestBridge::start_spooling(&Broker::Kafka(kafka.plaintext()), |_| {}).await;
    outage(&bridge, || kafka.kill(), || kafka.resume()).await;
}

/// Kafka hangs for longer than readiness allows without a spool.
#[tokio::test]
async fn clicks_wait_on_disk_while_kafka_hangs() {
    let Some(kafka) = Kafka::start() else { return };
    let bridge = TestBridge::start_spooling(&Broker::Kafka(kafka.plaintext()), |_| {}).await;
    outage(&bridge, || kafka.signal("STOP"), || kafka.signal("CONT")).await;
}

/// During an outage clicks are answered 200, after the first one at once, and the replica stays ready.
/// Then each click is in the topic once, in its campaign's order, and new ones go directly again.
async fn outage(bridge: &TestBridge, away: impl Fn(), back: impl Fn()) {
    let mut sent: BTreeMap<String, Vec<usize>> = BTreeMap::new();
    let mut number = 0;
    let mut post = async |times: usize| {
        for _ in 0..times {
            number += 1;
            let campaign = format!("{}", number % 7);
            let asked = Instant::now();
            assert_eq!(bridge.post(numbered(&campaign, number)).await.status(), StatusCode::OK);
            assert!(asked.elapsed() < Duration::from_secs(8), "after {:?}", asked.elapsed());
            sent.entry(campaign).or_default().push(number);
        }
    };
    post(20).await;
    assert_eq!(bridge.outcomes("accepted").await, 20.0);
    away();
    post(50).await;
    assert_eq!(bridge.metric("hookbridge_breaker_open").await, 1.0);
    let asked = Instant::now();
    post(50).await;
    // With a wait for Kafka each time this would take more than a minute.
    assert!(asked.elapsed() < Duration::from_secs(25), "{:?} for 50 clicks", asked.elapsed());
    until("brokers silent", async || bridge.metric("hookbridge_kafka_brokers_up").await == 0.0)
        .await;
    assert!(bridge.admin("/readyz").await.0.is_success());
    assert_eq!(bridge.outcomes("spooled").await, 100.0);
    assert_eq!(bridge.metric("hookbridge_spool_events").await, 100.0);
    back();
    // These clicks go behind those on disk, while there are any.
    post(20).await;
    empty(bridge).await;
    until("direct again", async || bridge.metric("hookbridge_breaker_open").await == 0.0).await;
    post(7).await;
    assert!(bridge.outcomes("accepted").await >= 27.0);
    assert_eq!(numbers(&bridge.config, 147), sent);
    assert_eq!(bridge.count(), 147, "each click once");
}

/// Clicks of these campaigns wait on disk, in order; all others go directly.
#[tokio::test]
async fn partitions_without_a_leader_delay_their_own_campaigns_alone() {
    let Some(kafka) = Kafka::start() else { return };
    let second = kafka.add_broker();
    let broker = Broker::Kafka(kafka.plaintext());
    let bridge = TestBridge::start_spooling(&broker, |_| {}).await;
    let leaders = leaders(&bridge);
    let leads = |broker: i32| leaders.values().any(|leader| *leader == broker);
    assert!(leads(1) && leads(2), "{leaders:?}");
    let mut sent: BTreeMap<String, Vec<usize>> = BTreeMap::new();
    let mut post = async |round: usize, campaigns: &[String]| {
        for name in campaigns {
            assert_eq!(bridge.post(numbered(name, round)).await.status(), StatusCode::OK);
            sent.entry(name.clone()).or_default().push(round);
        }
    };
    let mut campaigns: Vec<_> = (0..24).map(|campaign| campaign.to_string()).collect();
    post(0, &campaigns).await;
    // Campaigns of the broker that stays come first. If the first ones were all of the other broker, the
    // circuit breaker would open before any click had gone directly.
    let partition_of = |record: ConsumedRecord| (record.key.expect("a key"), record.partition);
    let partitions: BTreeMap<_, _> = bridge.records(24).into_iter().map(partition_of).collect();
    campaigns.sort_by_key(|name| leaders[&partitions[name.as_bytes()]]);
    second.kill();
    for round in 1..5 {
        post(round, &campaigns).await;
    }
    let (direct, spooled) = (bridge.outcomes("accepted").await, bridge.outcomes("spooled").await);
    assert!(direct > 24.0 && spooled > 0.0, "{direct} {spooled}");
    // Clicks that were spooled only because of the circuit breaker are forwarded.
    until("the healthy half is delivered", async || {
        let stuck = bridge.metric("hookbridge_spool_events").await;
        stuck > 0.0 && bridge.metric("hookbridge_breaker_open").await == 0.0 && stuck <= spooled
    })
    .await;
    second.resume();
    empty(&bridge).await;
    post(5, &campaigns).await;
    empty(&bridge).await;
    assert_eq!(numbers(&bridge.config, 144), sent);
    assert_eq!(bridge.count(), 144);
}

/// Which broker leads each partition.
fn leaders(bridge: &TestBridge) -> BTreeMap<i32, i32> {
    let consumer = consumer(&bridge.config.kafka.brokers);
    let metadata = consumer.fetch_metadata(Some(bridge.topic()), PATIENCE).unwrap();
    let partitions = metadata.topics()[0].partitions().iter();
    partitions.map(|partition| (partition.id(), partition.leader())).collect()
}

/// No click is delivered twice.
#[tokio::test]
async fn a_late_acknowledgement_removes_the_event_from_disk() {
    let broker = Broker::embedded();
    let bridge = TestBridge::start_spooling(&broker, |_| {}).await;
    assert_eq!(bridge.post(click("7")).await.status(), StatusCode::OK);
    let cluster = broker.development().cluster();
    cluster.broker_round_trip_time(-1, Duration::from_secs(8)).unwrap();
    let asked = Instant::now();
    assert_eq!(bridge.post(click("7")).await.status(), StatusCode::OK);
    assert!(asked.elapsed() < Duration::from_secs(7), "after {:?}", asked.elapsed());
    assert_eq!(bridge.outcomes("spooled").await, 1.0);
    cluster.broker_round_trip_time(-1, Duration::ZERO).unwrap();
    empty(&bridge).await;
    assert_eq!(bridge.post(click("8")).await.status(), StatusCode::OK);
    until("direct", async || bridge.outcomes("accepted").await >= 2.0).await;
    assert_eq!(bridge.count(), 3);
}

#[tokio::test]
async fn a_full_spool_refuses_clicks_until_there_is_room() {
    let broker = Broker::embedded();
    let small = |config: &mut Config| {
        config.http.max_body_bytes = 10_000;
        config.http.max_bytes_in_flight = 1 << 20;
        config.spool.max_bytes = 20_000;
    };
    let bridge = TestBridge::start_spooling(&broker, small).await;
    assert_eq!(bridge.post(click("7")).await.status(), StatusCode::OK);
    broker.development().cluster().broker_down(-1).unwrap();
    let mut held = 1;
    let refused = loop {
        let answer = bridge.post(click("7")).await;
        if answer.status() != StatusCode::OK {
            break answer;
        }
        held += 1;
    };
    assert_eq!(refused.status(), StatusCode::SERVICE_UNAVAILABLE);
    assert!(refused.headers().contains_key("retry-after"));
    assert!(held > 10, "{held}");
    assert!(bridge.outcomes("spool_full").await >= 1.0);
    assert!(bridge.metric("hookbridge_spool_refused_total{reason=\"full\"}").await >= 1.0);
    assert!(bridge.metric("hookbridge_spool_bytes").await <= 20_000.0);
    until("not ready", async || bridge.admin("/readyz").await.0 == 503).await;
    broker.development().cluster().broker_up(-1).unwrap();
    empty(&bridge).await;
    bridge.ready().await;
    assert_eq!(bridge.post(click("7")).await.status(), StatusCode::OK);
    assert_eq!(bridge.count(), held + 1);
}

/// SIGTERM comes during an outage, which is not a failure.
#[tokio::test]
async fn events_left_on_disk_are_delivered_by_the_next_process() {
    let Some(kafka) = Kafka::start() else { return };
    let broker = Broker::Kafka(kafka.plaintext());
    let folder = tempfile::tempdir().unwrap();
    let mut config = config(&broker);
    config.spool.dir = folder.path().join("spool");
    config.http.body_timeout_ms = 500;
    config.http.drain_timeout_ms = 5_000;
    broker.create_topic(&config.webhook[0].topic, 3).await;
    let mut serve = Serve::launch(&config, folder.path(), "true");
    until("ready", async || serve.is_ready().await).await;
    kafka.kill();
    for number in 0..20 {
        let answer = serve.post(numbered("7", number)).send().await.unwrap();
        assert_eq!(answer.status(), StatusCode::OK);
    }
    let spool = |what: &str, file: &std::path::Path| {
        let output = hookbridge(["spool", what, "--config"]).arg(file).output().unwrap();
        let text = [output.stdout, output.stderr].concat();
        (output.status.code().unwrap(), String::from_utf8(text).unwrap())
    };
    serve.signal("TERM");
    let file = serve.file.clone();
    serve.wait_for_log("the next start delivers what is on disk");
    let (code, log) = serve.end();
    assert_eq!(code, 0, "{log}");
    assert!(log.contains("\"spooled\":20"), "{log}");
    let (code, text) = spool("status", &file);
    let topic = &config.webhook[0].topic;
    assert!(code == 0 && text.contains(topic) && text.contains("20 events"), "{text}");
    kafka.resume();
    let serve = Serve::launch(&config, folder.path(), "true");
    until("delivered", async || count(&broker.addresses(), topic) == 20).await;
    until("empty", async || serve.metric("hookbridge_spool_events").await == 0.0).await;
    assert_eq!(numbers(&config, 20)["7"], (0..20).collect::<Vec<_>>());
    assert_eq!(serve.stop().0, 0);
    let (code, text) = spool("status", &file);
    assert!(code == 0 && text.contains(" 0 events"), "{text}");
}

/// An interrupted run says how much is left.
#[tokio::test]
async fn spool_drain_empties_a_left_behind_volume() {
    let Some(kafka) = Kafka::start() else { return };
    let broker = Broker::Kafka(kafka.plaintext());
    let folder = tempfile::tempdir().unwrap();
    let mut config = config(&broker);
    config.spool.dir = folder.path().join("spool");
    broker.create_topic(&config.webhook[0].topic, 3).await;
    let serve = Serve::launch(&config, folder.path(), "true");
    until("ready", async || serve.is_ready().await).await;
    kafka.kill();
    for number in 0..20 {
        let answer = serve.post(numbered("7", number)).send().await.unwrap();
        assert_eq!(answer.status(), StatusCode::OK);
    }
    let file = serve.file.clone();
    serve.signal("KILL");
    serve.end();
    // The keys of senders are not needed.
    let settings = std::fs::read_to_string(&file).unwrap();
    let (before, after) = settings.split_once("api_key").unwrap();
    std::fs::write(&file, [before, after.split_once('\n').unwrap().1].concat()).unwrap();
    let drain = || {
        let mut command = hookbridge(["spool", "drain", "--config"]);
        command.arg(&file).stdout(Stdio::piped()).stderr(Stdio::piped());
        Running(command.spawn().unwrap())
    };
    let mut stopped = drain();
    let out = lines(stopped.0.stdout.take().unwrap());
    let log = lines(stopped.0.stderr.take().unwrap());
    assert!(log.iter().any(|line| line.contains("Events wait in the spool.")));
    stopped.signal("INT");
    assert_eq!(stopped.end(), 1);
    assert!(out.iter().any(|line| line.starts_with("0 events delivered, 20 left")));
    kafka.resume();
    let mut whole = drain();
    let out = lines(whole.0.stdout.take().unwrap());
    assert_eq!(whole.end(), 0);
    assert!(out.iter().any(|line| line == "20 events delivered, 0 left, 0 set aside"));
    assert_eq!(numbers(&config, 20)["7"], (0..20).collect::<Vec<_>>());
    assert_eq!(count(&broker.addresses(), &config.webhook[0].topic), 20);
}
