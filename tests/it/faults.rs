//! A bridge without a spool, while Kafka is slow, unreachable, refusing or broken.

use std::time::Duration;

use rdkafka::types::{RDKafkaApiKey, RDKafkaRespErr as Code};
use reqwest::StatusCode;
use tokio::task::JoinSet;
use tokio::time::Instant;

use crate::harness::brokers::{Broker, Kafka, create_topic};
use crate::harness::process::Serve;
use crate::harness::support::{TestBridge, click, config, count, large_click, until};
use crate::on_every_broker;

/// The answer is 503 with `Retry-After`; the bridge is alive, not ready, and ready again when the
/// broker is back.
#[tokio::test]
async fn without_a_broker_clicks_are_refused_in_time() {
    let broker = Broker::embedded();
    let bridge = TestBridge::start(&broker).await;
    let away = || broker.development().cluster().broker_down(-1).unwrap();
    let back = || broker.development().cluster().broker_up(-1).unwrap();
    outage(&bridge, away, back).await;
}

#[tokio::test]
async fn a_killed_kafka_refuses_clicks_until_it_is_back() {
    let Some(kafka) = Kafka::start() else { return };
    let bridge = TestBridge::start(&Broker::Kafka(kafka.plaintext())).await;
    outage(&bridge, || kafka.kill(), || kafka.resume()).await;
}

async fn outage(bridge: &TestBridge, away: impl Fn(), back: impl Fn()) {
    assert_eq!(bridge.post(click("before")).await.status(), StatusCode::OK);
    away();
    let asked = Instant::now();
    let answer = bridge.post(click("lost")).await;
    assert_eq!(answer.status(), StatusCode::SERVICE_UNAVAILABLE);
    assert!(answer.headers().contains_key("retry-after"));
    assert!(asked.elapsed() < Duration::from_secs(10), "answered after {:?}", asked.elapsed());
    until("not ready", async || bridge.admin("/readyz").await.0 == 503).await;
    assert_eq!(bridge.admin("/livez").await.0, StatusCode::OK);
    back();
    until("accepted", async || bridge.post(click("after")).await.status() == StatusCode::OK).await;
    bridge.ready().await;
    assert_eq!(bridge.count() as f64, bridge.outcomes("accepted").await);
}

#[tokio::test]
async fn each_produce_error_has_its_answer() {
    use Code::*;
    let refused = (StatusCode::SERVICE_UNAVAILABLE, "kafka_refused");
    let kept = (StatusCode::OK, "dead_lettered");
    for (errors, (status, outcome)) in [
        (vec![RD_KAFKA_RESP_ERR_TOPIC_AUTHORIZATION_FAILED], refused),
        // It is sent again with the time of receipt.
        (vec![RD_KAFKA_RESP_ERR_INVALID_TIMESTAMP], (StatusCode::OK, "accepted")),
        (vec![RD_KAFKA_RESP_ERR_POLICY_VIOLATION], refused),
        // The batch may have been too large: the record is sent again, alone; so is its dead letter.
        (vec![RD_KAFKA_RESP_ERR_MSG_SIZE_TOO_LARGE], (StatusCode::OK, "accepted")),
        (vec![RD_KAFKA_RESP_ERR_MSG_SIZE_TOO_LARGE; 2], kept),
        (
            vec![RD_KAFKA_RESP_ERR_MSG_SIZE_TOO_LARGE; 4],
            (StatusCode::PAYLOAD_TOO_LARGE, "record_too_large"),
        ),
        // The client retries while there is time.
        (vec![RD_KAFKA_RESP_ERR_NOT_ENOUGH_REPLICAS; 2], (StatusCode::OK, "accepted")),
        (vec![RD_KAFKA_RESP_ERR_NOT_LEADER_FOR_PARTITION; 2], (StatusCode::OK, "accepted")),
        (vec![RD_KAFKA_RESP_ERR_REQUEST_TIMED_OUT], (StatusCode::OK, "accepted")),
        (vec![RD_KAFKA_RESP_ERR__TRANSPORT; 2], (StatusCode::OK, "accepted")),
        (
            vec![RD_KAFKA_RESP_ERR_NOT_ENOUGH_REPLICAS; 200],
            (StatusCode::SERVICE_UNAVAILABLE, "kafka_timeout"),
        ),
    ] {
        let broker = Broker::embedded();
        let bridge = TestBridge::start(&broker).await;
        // The producer already has its id, so that the errors apply to the record.
        assert_eq!(bridge.post(click("first")).await.status(), StatusCode::OK);
        let cluster = broker.development().cluster();
        cluster.request_errors(RDKafkaApiKey::Produce, &errors);
        let answer = bridge.post(click("7")).await;
        assert_eq!(answer.status(), status, "{errors:?}");
        let count = if outcome == "accepted" { 2.0 } else { 1.0 };
        assert_eq!(bridge.outcomes(outcome).await, count, "{errors:?}");
        cluster.clear_request_errors(RDKafkaApiKey::Produce);
        until("well again", async || bridge.post(click("8")).await.status() == 200).await;
        assert_eq!(bridge.count() as f64, bridge.outcomes("accepted").await, "{errors:?}");
    }
}

/// Of two requests in flight the first is refused, and a broker that does not know the producer
/// takes the second. The Kafka client then reports both as delivered.
#[tokio::test]
async fn a_click_answered_200_is_there_after_a_misleading_delivery_report() {
    for is_spooling in [false, true] {
        let broker = Broker::embedded();
        let bridge = if is_spooling {
            TestBridge::start_spooling(&broker, |_| {}).await
        } else {
            TestBridge::start(&broker).await
        };
        assert_eq!(bridge.post(click("7")).await.status(), StatusCode::OK);
        // The development broker ignores sequence numbers, like a broker that does not know the producer.
        let cluster = broker.development().cluster();
        cluster.broker_round_trip_time(-1, Duration::from_millis(100)).unwrap();
        until("delivered without a broker's word", async || {
            let error = [Code::RD_KAFKA_RESP_ERR_NOT_ENOUGH_REPLICAS_AFTER_APPEND];
            cluster.request_errors(RDKafkaApiKey::Produce, &error);
            let mut answers = JoinSet::new();
            for _ in 0..20 {
                answers.spawn(bridge.request(click("7")).send());
                // Spreads the requests, so that some come while others are in flight.
                bridge.admin("/livez").await;
            }
            for answer in answers.join_all().await {
                assert_eq!(answer.unwrap().status(), StatusCode::OK);
            }
            bridge.results("unproven").await > 0.0
        })
        .await;
        let accepted = bridge.outcomes("accepted").await + bridge.outcomes("spooled").await;
        until("all are there", async || bridge.count() as f64 == accepted).await;
    }
}

/// The events are logged at the level that the settings say.
#[tokio::test]
async fn events_of_the_kafka_client_before_the_first_poll_silence_nothing() {
    let broker = Broker::embedded();
    let mut config = config(&broker);
    broker.create_topic(&config.webhook[0].topic, 1).await;
    // The client logs before the wake-up of its poller is set up.
    config.kafka.options.set("debug", "broker");
    config.log.level = "info,librdkafka=debug".into();
    let folder = tempfile::tempdir().unwrap();
    let mut serve = Serve::launch(&config, folder.path(), "true");
    until("ready", async || serve.is_ready().await).await;
    assert_eq!(serve.post(click("7")).send().await.unwrap().status(), StatusCode::OK);
    serve.wait_for_log("Broker changed state");
    assert_eq!(serve.stop().0, 0);
}

#[tokio::test]
async fn a_fatal_producer_error_is_repaired_and_its_click_held() {
    let broker = Broker::embedded();
    let fatal = [Code::RD_KAFKA_RESP_ERR_CLUSTER_AUTHORIZATION_FAILED; 2];
    let cluster = broker.development().cluster();
    cluster.request_errors(RDKafkaApiKey::InitProducerId, &fatal);
    let bridge = TestBridge::start(&broker).await;
    until("accepted", async || bridge.post(click("7")).await.status() == StatusCode::OK).await;
    assert_eq!(bridge.metric("hookbridge_kafka_producer_rebuilds_total").await, 2.0);
    assert_eq!(bridge.count() as f64, bridge.outcomes("accepted").await);
}

on_every_broker! {
    async fn a_missing_topic_is_not_created_and_is_used_once_it_exists(broker: Broker) {
        let bridge = TestBridge::launch(config(&broker));
        bridge.ready().await;
        let answer = bridge.post(click("7")).await;
        assert_eq!(answer.status(), StatusCode::SERVICE_UNAVAILABLE);
        broker.create_topic(bridge.topic(), 3).await;
        until("accepted", async || bridge.post(click("7")).await.status() == StatusCode::OK).await;
        assert_eq!(bridge.count() as f64, bridge.outcomes("accepted").await);
    }
}

/// A real broker refuses the record.
#[tokio::test]
async fn a_record_larger_than_its_topic_allows_is_refused() {
    let Some(broker) = Broker::kafka() else { return };
    let small = config(&broker);
    let topic = small.webhook[0].topic.clone();
    create_topic(&broker.addresses(), &topic, 3, 1, &[("max.message.bytes", "2000")]).await;
    let bridge = TestBridge::launch(small);
    bridge.ready().await;
    let large = large_click(3_000);
    assert_eq!(bridge.post(large).await.status(), StatusCode::PAYLOAD_TOO_LARGE);
    assert_eq!(bridge.outcomes("record_too_large").await, 1.0);
    assert_eq!(bridge.post(click("7")).await.status(), StatusCode::OK);
    assert_eq!(bridge.count(), 1);
}

/// The answer says that the click is not confirmed.
#[tokio::test]
async fn a_slow_broker_is_answered_for_in_time() {
    let broker = Broker::embedded();
    let bridge = TestBridge::start(&broker).await;
    assert_eq!(bridge.post(click("7")).await.status(), StatusCode::OK);
    broker.development().cluster().broker_round_trip_time(-1, Duration::from_secs(20)).unwrap();
    let asked = Instant::now();
    assert_eq!(bridge.post(click("7")).await.status(), StatusCode::SERVICE_UNAVAILABLE);
    assert!(asked.elapsed() < Duration::from_secs(10), "answered after {:?}", asked.elapsed());
}

#[tokio::test]
async fn a_click_is_held_although_its_sender_is_gone() {
    let broker = Broker::embedded();
    let bridge = TestBridge::start(&broker).await;
    assert_eq!(bridge.post(click("7")).await.status(), StatusCode::OK);
    broker.development().cluster().broker_round_trip_time(-1, Duration::from_millis(300)).unwrap();
    let body = click("7");
    let mut raw = bridge.raw();
    let lines = format!("content-length: {}\r\n", body.len());
    raw.send_head(&bridge.config.webhook[0].path, &lines);
    raw.send(&body);
    drop(raw);
    let (brokers, topic) = (&bridge.config.kafka.brokers, bridge.topic());
    until("held", async || count(brokers, topic) == 2).await;
    until("settled", async || {
        bridge.outcomes("accepted").await + bridge.outcomes("abandoned").await == 2.0
    })
    .await;
}

/// The answer is 503 and the log says what to do; clicks are accepted when the broker is back.
#[tokio::test]
async fn too_few_in_sync_replicas_refuse_clicks() {
    let Some(kafka) = Kafka::start() else { return };
    let second = kafka.add_broker();
    let config = config(&Broker::Kafka(kafka.plaintext()));
    let topic = &config.webhook[0].topic;
    create_topic(&kafka.plaintext(), topic, 3, 2, &[("min.insync.replicas", "2")]).await;
    let folder = tempfile::tempdir().unwrap();
    let mut serve = Serve::launch(&config, folder.path(), "true");
    until("ready", async || serve.is_ready().await).await;
    let post = async |serve: &Serve| serve.post(click("7")).send().await.unwrap().status();
    assert_eq!(post(&serve).await, StatusCode::OK);
    second.kill();
    until("refused and explained", async || {
        post(&serve).await == StatusCode::SERVICE_UNAVAILABLE
            && serve.has_logged("fewer in-sync replicas than min.insync.replicas (2)")
    })
    .await;
    second.resume();
    until("accepted", async || post(&serve).await == StatusCode::OK).await;
    assert_eq!(serve.stop().0, 0);
}
