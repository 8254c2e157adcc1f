//! Bodies that are not events, and records that Kafka refuses.

use hookbridge::config::BodyFormat;
use hookbridge::kafka::ConsumedRecord;
use jiff::{SignedDuration, Timestamp};
use rdkafka::bindings::rd_kafka_resp_err_t as Code;
use rdkafka::types::RDKafkaApiKey;
use reqwest::StatusCode;

use crate::harness::brokers::{Broker, create_topic};
use crate::harness::process::{hookbridge, printed, settings_file};
use crate::harness::support::{
    TestBridge, click, config, count, incompressible, large_click, records, until,
};
use crate::on_every_broker;

pub fn header<'s>(seen: &'s ConsumedRecord, name: &str) -> &'s str {
    let found = seen.headers.iter().find(|(found, _)| found == name);
    &found.unwrap_or_else(|| panic!("no {name} in {:?}", seen.headers)).1
}

on_every_broker! {
    /// The bodies are answered 200 and kept byte for byte; the topic of the events has none of them.
    async fn bodies_that_are_no_events_are_kept_with_their_reason(broker: Broker) {
        let bodies: [(&[u8], &str, &str); 8] = [
            (b"", "malformed", "The body is not JSON: see line 1, column 0"),
            (b"{\"campid\":7", "malformed", "The body is not JSON: see line 1, column 11"),
            (b"{\"campid\":\"\xff\"}", "malformed", "The body is not JSON: it is not UTF-8"),
            (b"[{\"campid\":7}]", "invalid", "The body is not a JSON object"),
            (b"{}", "invalid", "The event has no usable key"),
            (b"{\"campid\":1.5}", "invalid", "The event has no usable key"),
            (b"{\"campid\":7,\"type\":\"SMS\"}", "invalid", "The event's type is not this webhook's"),
            (b"{\"campid\":7,\"event\":\"open\"}", "invalid", "The event's name is not this webhook's"),
        ];
        let bridge = TestBridge::start(&broker).await;
        for (body, ..) in bodies {
            assert_eq!(bridge.post(body).await.status(), StatusCode::OK);
        }
        let webhook = &bridge.config.webhook[0];
        let letters = records(&bridge.config, &webhook.dead_letters(), bodies.len());
        for (body, reason, detail) in bodies {
            let letter = letters.iter().find(|letter| letter.value == body);
            let letter = letter.unwrap_or_else(|| panic!("{body:?} is not there"));
            assert_eq!(letter.key, None);
            assert_eq!(header(letter, "hookbridge-reason"), reason);
            assert_eq!(header(letter, "hookbridge-detail"), detail);
            assert_eq!(header(letter, "hookbridge-webhook"), webhook.name);
            assert_eq!(header(letter, "hookbridge-caller"), "api_key");
            assert_eq!(header(letter, "hookbridge-topic"), webhook.topic);
            let received = header(letter, "hookbridge-received-at").parse::<jiff::Timestamp>();
            assert_eq!(letter.timestamp.map(|time| time.as_millisecond()), Some(received.unwrap().as_millisecond()));
            assert_eq!(header(letter, "ce_id").len(), 36);
        }
        assert_eq!(bridge.outcomes("dead_lettered").await, 8.0);
        for (reason, times) in [("malformed", 3.0), ("invalid", 5.0)] {
            let name = &webhook.name;
            let series =
                format!("hookbridge_dead_letters_total{{reason=\"{reason}\",webhook=\"{name}\"}}");
            assert_eq!(bridge.metric(&series).await, times);
        }
        assert_eq!(bridge.count(), 0);
    }
}

/// Meanwhile clicks are delivered without delay.
#[tokio::test]
async fn dead_letters_wait_on_disk_until_their_topic_exists() {
    let Some(broker) = Broker::kafka() else { return };
    let folder = tempfile::tempdir().unwrap();
    let mut config = config(&broker);
    config.spool.dir = folder.path().into();
    broker.create_topic(&config.webhook[0].topic, 3).await;
    let bridge = TestBridge::launch(config);
    bridge.ready().await;
    assert_eq!(bridge.post("{").await.status(), StatusCode::OK);
    assert_eq!(bridge.metric("hookbridge_spool_events").await, 1.0);
    for _ in 0..3 {
        assert_eq!(bridge.post(click("7")).await.status(), StatusCode::OK);
    }
    assert_eq!(bridge.outcomes("accepted").await, 3.0);
    let letters = bridge.config.webhook[0].dead_letters();
    broker.create_topic(&letters, 1).await;
    until("delivered", async || bridge.metric("hookbridge_spool_events").await == 0.0).await;
    assert_eq!(bridge.dead_letter().value, b"{");
    assert_eq!(bridge.count(), 3);
}

/// The other events of its key stay in order, with and without a spool.
#[tokio::test]
async fn a_record_larger_than_its_topic_allows_is_a_dead_letter() {
    let Some(broker) = Broker::kafka() else { return };
    for has_spool in [true, false] {
        let folder = tempfile::tempdir().unwrap();
        let mut config = config(&broker);
        if has_spool {
            config.spool.dir = folder.path().into();
        }
        let webhook = config.webhook[0].clone();
        let small = [("max.message.bytes", "2000")];
        create_topic(&broker.addresses(), &webhook.topic, 3, 1, &small).await;
        broker.create_topic(&webhook.dead_letters(), 1).await;
        let bridge = TestBridge::launch(config);
        bridge.ready().await;
        let large = large_click(3_000);
        assert_eq!(bridge.post(large.clone()).await.status(), StatusCode::OK);
        assert_eq!(bridge.post(click("7")).await.status(), StatusCode::OK);
        until("one dead letter", async || {
            count(&broker.addresses(), &webhook.dead_letters()) == 1 && bridge.count() == 1
        })
        .await;
        let letter = bridge.dead_letter();
        assert_eq!(letter.value, large.as_bytes());
        assert_eq!(header(&letter, "hookbridge-reason"), "too_large");
        assert_eq!(header(&letter, "hookbridge-topic"), webhook.topic);
        assert_eq!(header(&letter, "content-type"), "application/json");
        let series = format!(
            "hookbridge_dead_letters_total{{reason=\"too_large\",webhook=\"{}\"}}",
            webhook.name
        );
        assert_eq!(bridge.metric(&series).await, 1.0);
        // Nothing is set aside: the dead-letter topic has accepted the record.
        if has_spool {
            assert_eq!(bridge.metric("hookbridge_spool_set_aside_events").await, 0.0);
        }
    }
}

/// Events that a topic refuses for their age, among others in one body: each is in the topic once, as the time
/// of an old one its time of receipt. Not one is a dead letter.
#[tokio::test]
async fn a_timestamp_that_the_topic_refuses_makes_no_dead_letter() {
    let Some(broker) = Broker::kafka() else { return };
    for has_spool in [true, false] {
        let folder = tempfile::tempdir().unwrap();
        let mut config = config(&broker);
        if has_spool {
            config.spool.dir = folder.path().into();
        }
        config.webhook[0].body = BodyFormat::Ndjson;
        let webhook = config.webhook[0].clone();
        let day = [("message.timestamp.before.max.ms", "86400000")];
        // One partition, so that they are in one batch.
        create_topic(&broker.addresses(), &webhook.topic, 1, 1, &day).await;
        broker.create_topic(&webhook.dead_letters(), 1).await;
        let bridge = TestBridge::launch(config);
        bridge.ready().await;
        let now = Timestamp::now();
        let lines = (0..20).map(|number| {
            // Two days old, an hour old, and without a time.
            let time = [now - SignedDuration::from_hours(48), now - SignedDuration::from_hours(1)];
            let time = time.get(number % 3).map(|time| format!(r#","timestamp":"{time}""#));
            format!(r#"{{"campid":{number}{}}}"#, time.unwrap_or_default())
        });
        let body = lines.collect::<Vec<_>>().join("\n");
        assert_eq!(bridge.post(body.clone()).await.status(), StatusCode::OK, "{has_spool}");
        let landed = bridge.records(20);
        for record in &landed {
            let stamp = record.timestamp.unwrap().as_millisecond();
            let time = |name| header(record, name).parse::<Timestamp>().unwrap().as_millisecond();
            let number: usize =
                std::str::from_utf8(record.key.as_deref().unwrap()).unwrap().parse().unwrap();
            let expected =
                if number % 3 == 1 { time("ce_time") } else { time("hookbridge-received-at") };
            assert_eq!(stamp, expected, "{record:?}");
            let is_old = time("ce_time") < now.as_millisecond() - 86_400_000;
            assert_eq!(is_old, number.is_multiple_of(3), "{record:?}");
        }
        assert_eq!(bridge.count(), 20);
        assert_eq!(count(&broker.addresses(), &webhook.dead_letters()), 0);
        let series = format!("hookbridge_restamped_events_total{{webhook=\"{}\"}}", webhook.name);
        assert_eq!(bridge.metric(&series).await, 7.0);
        // `check --kafka` says that the settings contradict.
        let file = settings_file(folder.path(), &bridge.config);
        let mut check = hookbridge(["check", "--kafka", "--config"]);
        check.arg(file);
        let (out, _) = printed(check, 0);
        let warning =
            "message.timestamp.before.max.ms (86400000) is less than timestamp_max_age_s (604800)";
        assert!(out.contains(warning), "{out}");
    }
}

/// Without a spool: a record that is too large alone, and others that are so only in one batch with it.
#[tokio::test]
async fn a_batch_that_is_refused_for_one_record_makes_one_dead_letter() {
    let Some(broker) = Broker::kafka() else { return };
    let mut config = config(&broker);
    config.webhook[0].body = BodyFormat::Ndjson;
    let webhook = config.webhook[0].clone();
    let small = [("max.message.bytes", "2000")];
    create_topic(&broker.addresses(), &webhook.topic, 1, 1, &small).await;
    broker.create_topic(&webhook.dead_letters(), 1).await;
    let bridge = TestBridge::launch(config);
    bridge.ready().await;
    // Incompressible, so that the batch is too large as well.
    let salt = |from: u64| {
        (from..from + 400).map(|n| format!("{:x}", n.wrapping_mul(0x9E37_79B9_7F4A_7C15)))
    };
    let line = |key: u64, words| {
        format!(r#"{{"campid":{key},"x":"{}"}}"#, salt(key * 1_000).take(words).collect::<String>())
    };
    let lines: Vec<_> = (1..=9).map(|key| line(key, if key == 5 { 400 } else { 20 })).collect();
    assert_eq!(bridge.post(lines.join("\n")).await.status(), StatusCode::OK);
    let letter = bridge.dead_letter();
    assert_eq!(letter.value, lines[4].as_bytes());
    assert_eq!(header(&letter, "hookbridge-reason"), "too_large");
    assert_eq!(bridge.count(), 8);
}

#[tokio::test]
async fn what_the_dead_letter_topic_refuses_is_set_aside_on_disk() {
    let Some(broker) = Broker::kafka() else { return };
    let folder = tempfile::tempdir().unwrap();
    let mut config = config(&broker);
    config.spool.dir = folder.path().into();
    let webhook = config.webhook[0].clone();
    let small = [("max.message.bytes", "2000")];
    create_topic(&broker.addresses(), &webhook.topic, 3, 1, &small).await;
    create_topic(&broker.addresses(), &webhook.dead_letters(), 1, 1, &small).await;
    let bridge = TestBridge::launch(config);
    bridge.ready().await;
    let large = large_click(3_000);
    assert_eq!(bridge.post(large).await.status(), StatusCode::OK);
    assert_eq!(bridge.post(incompressible(3_000)).await.status(), StatusCode::OK);
    until("set aside", async || {
        bridge.metric("hookbridge_spool_set_aside_events").await == 2.0
            && bridge.metric("hookbridge_spool_events").await == 0.0
    })
    .await;
    // The shard is left a moment after the event is counted as gone, and a refusal is remembered for some seconds.
    until("directly", async || {
        assert_eq!(bridge.post(click("7")).await.status(), StatusCode::OK);
        bridge.outcomes("accepted").await > 0.0
    })
    .await;
}

/// For each error code of a broker the click is answered 200 and the next one goes directly.
#[tokio::test]
async fn each_produce_error_ends_in_the_topic_or_in_the_dead_letters() {
    use Code::*;
    let delivered = [
        RD_KAFKA_RESP_ERR_UNKNOWN,
        RD_KAFKA_RESP_ERR_OFFSET_OUT_OF_RANGE,
        // Corrupted on the wire: the client sends it again.
        RD_KAFKA_RESP_ERR_INVALID_MSG,
        RD_KAFKA_RESP_ERR_UNKNOWN_TOPIC_OR_PART,
        RD_KAFKA_RESP_ERR_LEADER_NOT_AVAILABLE,
        RD_KAFKA_RESP_ERR_NOT_LEADER_FOR_PARTITION,
        RD_KAFKA_RESP_ERR_REQUEST_TIMED_OUT,
        RD_KAFKA_RESP_ERR_NETWORK_EXCEPTION,
        RD_KAFKA_RESP_ERR_TOPIC_EXCEPTION,
        RD_KAFKA_RESP_ERR_NOT_ENOUGH_REPLICAS,
        RD_KAFKA_RESP_ERR_NOT_ENOUGH_REPLICAS_AFTER_APPEND,
        RD_KAFKA_RESP_ERR_INVALID_REQUIRED_ACKS,
        RD_KAFKA_RESP_ERR_TOPIC_AUTHORIZATION_FAILED,
        RD_KAFKA_RESP_ERR_CLUSTER_AUTHORIZATION_FAILED,
        RD_KAFKA_RESP_ERR_UNSUPPORTED_VERSION,
        RD_KAFKA_RESP_ERR_POLICY_VIOLATION,
        RD_KAFKA_RESP_ERR_OUT_OF_ORDER_SEQUENCE_NUMBER,
        RD_KAFKA_RESP_ERR_INVALID_PRODUCER_EPOCH,
        RD_KAFKA_RESP_ERR_INVALID_PRODUCER_ID_MAPPING,
        RD_KAFKA_RESP_ERR_TRANSACTIONAL_ID_AUTHORIZATION_FAILED,
        RD_KAFKA_RESP_ERR_KAFKA_STORAGE_ERROR,
        RD_KAFKA_RESP_ERR_UNKNOWN_PRODUCER_ID,
        RD_KAFKA_RESP_ERR_FENCED_LEADER_EPOCH,
        RD_KAFKA_RESP_ERR_THROTTLING_QUOTA_EXCEEDED,
        RD_KAFKA_RESP_ERR_PRODUCER_FENCED,
        // The event is good.
        RD_KAFKA_RESP_ERR_INVALID_TIMESTAMP,
        RD_KAFKA_RESP_ERR__TRANSPORT,
    ];
    let buried = [
        RD_KAFKA_RESP_ERR_INVALID_MSG_SIZE,
        RD_KAFKA_RESP_ERR_MSG_SIZE_TOO_LARGE,
        RD_KAFKA_RESP_ERR_INVALID_RECORD,
    ];
    // After these errors the producer must be rebuilt.
    let rebuilt = [
        RD_KAFKA_RESP_ERR_CLUSTER_AUTHORIZATION_FAILED,
        RD_KAFKA_RESP_ERR_TRANSACTIONAL_ID_AUTHORIZATION_FAILED,
        RD_KAFKA_RESP_ERR_PRODUCER_FENCED,
    ];
    let broker = Broker::embedded();
    let cluster = broker.development().cluster();
    for (codes, is_buried) in [(&delivered[..], false), (&buried[..], true)] {
        for code in codes {
            let bridge = TestBridge::start_spooling(&broker, |_| {}).await;
            assert_eq!(bridge.post(click("7")).await.status(), StatusCode::OK, "{code:?}");
            let times = match code {
                _ if !is_buried => 1,
                // One for the direct attempt, and one for each attempt of the forwarder: in a chunk, by itself,
                // with the time of receipt and with that of sending.
                RD_KAFKA_RESP_ERR_INVALID_RECORD => 5,
                _ => 3,
            };
            cluster.request_errors(RDKafkaApiKey::Produce, &vec![*code; times]);
            assert_eq!(bridge.post(click("8")).await.status(), StatusCode::OK, "{code:?}");
            until("delivered", async || bridge.metric("hookbridge_spool_events").await == 0.0)
                .await;
            cluster.clear_request_errors(RDKafkaApiKey::Produce);
            let letters = count(&broker.addresses(), &bridge.config.webhook[0].dead_letters());
            let there = (bridge.count(), letters);
            assert_eq!(there, if is_buried { (1, 1) } else { (2, 0) }, "{code:?}");
            until("direct again", async || {
                let before = bridge.outcomes("accepted").await;
                assert_eq!(bridge.post(click("9")).await.status(), StatusCode::OK, "{code:?}");
                bridge.outcomes("accepted").await > before
            })
            .await;
            if rebuilt.contains(code) {
                let rebuilds = "hookbridge_kafka_producer_rebuilds_total";
                until("replaced", async || bridge.metric(rebuilds).await > 0.0).await;
            }
        }
    }
}
