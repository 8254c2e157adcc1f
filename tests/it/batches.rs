//! Bodies that carry several events.

use hookbridge::click::event::TimeFormat;
use hookbridge::config::{BodyFormat, Config, InvalidBody};
use reqwest::StatusCode;

use crate::dead_letters::header;
use crate::harness::brokers::{Broker, Kafka};
use crate::harness::support::{TestBridge, records, until};
use crate::on_every_broker;

async fn bridge(broker: &Broker, body: BodyFormat) -> TestBridge {
    TestBridge::start_with(broker, |config| config.webhook[0].body = body).await
}

on_every_broker! {
    /// Each record has the key and the bytes of its element. An element that is not an event becomes a
    /// dead letter and does not affect the others.
    async fn each_element_of_an_array_becomes_a_record(broker: Broker) {
        let bridge = bridge(&broker, BodyFormat::Array).await;
        let body = "\n[ {\"campid\": 1, \"n\": 1.50}, {\"campid\":\"2\"},{\"x\":1} , 7,{\"campid\": 1, \"n\": 1.50}]";
        for _ in 0..2 {
            assert_eq!(bridge.post(body).await.status(), StatusCode::OK);
        }
        let records = bridge.records(6);
        let of = |key: &str| {
            let key = Some(key.as_bytes());
            records.iter().filter(|r| r.key.as_deref() == key).collect::<Vec<_>>()
        };
        assert_eq!((of("1").len(), of("2").len()), (4, 2));
        assert!(of("1").iter().all(|record| record.value == b"{\"campid\": 1, \"n\": 1.50}"));
        assert!(of("2").iter().all(|record| record.value == b"{\"campid\":\"2\"}"));
        // Equal events of one body have different ids; a repeated body has the same ids.
        let ids: Vec<_> = of("1").iter().map(|record| header(record, "ce_id").to_owned()).collect();
        assert_ne!(ids[0], ids[1]);
        assert_eq!(ids[..2], ids[2..]);
        let mut letters: Vec<_> = self::records(&bridge.config, &bridge.config.webhook[0].dead_letters(), 4)
            .into_iter().map(|letter| letter.value).collect();
        letters.sort();
        assert_eq!(letters, [&b"7"[..], b"7", b"{\"x\":1}", b"{\"x\":1}"]);
        assert_eq!(bridge.outcomes("accepted").await, 2.0);
        let name = &bridge.config.webhook[0].name;
        let series = format!("hookbridge_dead_letters_total{{reason=\"invalid\",webhook=\"{name}\"}}");
        assert_eq!(bridge.metric(&series).await, 4.0);
    }
}

on_every_broker! {
    async fn a_body_that_is_no_array_is_one_dead_letter(broker: Broker) {
        let bridge = TestBridge::start_with(&broker, |config| {
            config.webhook[0].body = BodyFormat::Array;
            config.http.max_events = 3;
        }).await;
        let bodies = [
            ("[]", "The body has no event"),
            ("[{\"campid\":7},", "The body is not JSON: see line 1, column 14"),
            ("[1,2,3,4]", "The body has more than 3 events (http.max_events)"),
            ("\"campid\"", "The body is not a JSON array"),
        ];
        for (body, _) in bodies {
            assert_eq!(bridge.post(body).await.status(), StatusCode::OK, "{body}");
        }
        let letters = records(&bridge.config, &bridge.config.webhook[0].dead_letters(), bodies.len());
        for (body, detail) in bodies {
            let letter = letters.iter().find(|letter| letter.value == body.as_bytes());
            assert_eq!(header(letter.expect(body), "hookbridge-detail"), detail);
        }
        assert_eq!(bridge.outcomes("dead_lettered").await, 4.0);
        assert_eq!(bridge.count(), 0);
        // A single event needs no array.
        assert_eq!(bridge.post("{\"campid\":7}").await.status(), StatusCode::OK);
        assert_eq!(bridge.record().value, b"{\"campid\":7}");
    }
}

on_every_broker! {
    async fn each_line_becomes_a_record(broker: Broker) {
        let bridge = bridge(&broker, BodyFormat::Ndjson).await;
        let body = b"{\"campid\":1}\r\n\n {\"campid\":2} \n{\"campid\":\"\xff\"}\n{\"campid\":3";
        assert_eq!(bridge.post(&body[..]).await.status(), StatusCode::OK);
        let mut values: Vec<_> = bridge.records(2).into_iter().map(|r| r.value).collect();
        values.sort();
        assert_eq!(values, [b"{\"campid\":1}", b"{\"campid\":2}"]);
        let letters = records(&bridge.config, &bridge.config.webhook[0].dead_letters(), 2);
        assert!(letters.iter().all(|letter| header(letter, "hookbridge-reason") == "malformed"));
    }
}

on_every_broker! {
    /// The array is inside an object; ids and times have other formats than Opptima's.
    async fn thousands_of_events_of_one_key_keep_their_order(broker: Broker) {
        let bridge = TestBridge::start_with(&broker, |config| {
            let webhook = &mut config.webhook[0];
            (webhook.body, webhook.events) = (BodyFormat::Array, "/data".into());
            (webhook.id, webhook.timestamp) = ("/meta/id".into(), "/at".into());
            webhook.timestamp_format = TimeFormat::Unix;
        }).await;
        let at = jiff::Timestamp::now().as_second() - 60;
        let event = |n| format!(r#"{{"campid":"one","n":{n},"at":{at}.5,"meta":{{"id":{}}}}}"#, n / 2);
        let events: Vec<_> = (0..3_000).map(event).collect();
        let body = format!(r#"{{"data":[{}]}}"#, events.join(","));
        assert_eq!(bridge.post(body).await.status(), StatusCode::OK);
        let records = bridge.records(3_000);
        let values: Vec<_> = records.iter().map(|record| record.value.as_slice()).collect();
        let expected: Vec<_> = events.iter().map(|event| event.as_bytes()).collect();
        assert!(values == expected, "the order is another");
        assert_eq!(records[0].timestamp.map(|time| time.as_millisecond()), Some(at * 1_000 + 500));
        let id = |n: usize| header(&records[n], "ce_id");
        assert_eq!(id(0), id(1));
        assert_ne!(id(1), id(2));
    }
}

on_every_broker! {
    async fn one_invalid_event_refuses_the_body_where_invalid_is_reject(broker: Broker) {
        let bridge = TestBridge::start_with(&broker, |config| {
            config.webhook[0].body = BodyFormat::Array;
            config.webhook[0].invalid = InvalidBody::Reject;
        }).await;
        let answer = bridge.post("[{\"campid\":7},{}]").await;
        assert_eq!(answer.status(), StatusCode::UNPROCESSABLE_ENTITY);
        assert_eq!(bridge.post("[{\"campid\":7}").await.status(), StatusCode::BAD_REQUEST);
        assert_eq!(bridge.count(), 0);
    }
}

/// Without a spool the answer is the `unavailable` status of the webhook.
#[tokio::test]
async fn events_of_a_body_wait_on_disk_while_kafka_is_away() {
    let Some(kafka) = Kafka::start() else { return };
    let broker = Broker::Kafka(kafka.plaintext());
    let array = |config: &mut Config| config.webhook[0].body = BodyFormat::Array;
    let bridge = TestBridge::start_spooling(&broker, array).await;
    let without = TestBridge::start_with(&broker, |config| {
        array(config);
        config.webhook[0].unavailable = 429;
    })
    .await;
    kafka.kill();
    let events: Vec<_> = (0..700).map(|n| format!(r#"{{"campid":"one","n":{n}}}"#)).collect();
    let body = format!("[{}]", events.join(","));
    assert_eq!(bridge.post(body.clone()).await.status(), StatusCode::OK);
    assert_eq!(bridge.outcomes("spooled").await, 1.0);
    let answer = without.post(body).await;
    assert_eq!(answer.status(), StatusCode::TOO_MANY_REQUESTS);
    assert_eq!(answer.headers()["retry-after"], "5");
    let problem: serde_json::Value =
        serde_json::from_slice(&answer.bytes().await.unwrap()).unwrap();
    assert_eq!(problem["status"], 429);
    kafka.resume();
    until("delivered", async || bridge.metric("hookbridge_spool_events").await == 0.0).await;
    let values: Vec<_> = bridge.records(700).into_iter().map(|record| record.value).collect();
    assert!(values.iter().map(Vec::as_slice).eq(events.iter().map(|event| event.as_bytes())));
}
