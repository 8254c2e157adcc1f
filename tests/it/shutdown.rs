//! SIGTERM and draining.

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use reqwest::StatusCode;
use tokio::time::Instant;

use crate::harness::brokers::Broker;
use crate::harness::process::Serve;
use crate::harness::support::{KEY, TestBridge, click, config, count, records, until};
use crate::on_every_broker;

on_every_broker! {
    /// The topic has exactly the clicks that were answered 200, and the exit code is 0.
    async fn sigterm_under_load_loses_nothing(broker: Broker) {
        let mut config = config(&broker);
        config.http.drain_delay_ms = 500;
        let topic = config.webhook[0].topic.clone();
        broker.create_topic(&topic, 12).await;
        let folder = tempfile::tempdir().unwrap();
        let serve = Serve::launch(&config, folder.path(), "true");
        until("ready", async || serve.is_ready().await).await;

        let accepted = Arc::new(AtomicUsize::new(0));
        let senders = (0..32).map(|sender| {
            let (url, accepted) = (serve.url().to_owned(), accepted.clone());
            tokio::spawn(async move {
                let client = reqwest::Client::new();
                let mut held = Vec::new();
                // Until the bridge refuses connections.
                for number in 0.. {
                    let id = format!("{sender}-{number}");
                    let request = client.post(&url).bearer_auth(KEY).body(click(&id));
                    match request.send().await {
                        Ok(answer) => {
                            assert_eq!(answer.status(), StatusCode::OK, "{id}");
                            accepted.fetch_add(1, Ordering::Relaxed);
                            held.push(id);
                        }
                        Err(error) if error.is_connect() => break,
                        // No answer: the request came on a connection that was being closed.
                        Err(_) => {}
                    }
                }
                held
            })
        });
        let senders: Vec<_> = senders.collect();
        until("load", async || accepted.load(Ordering::Relaxed) > 500).await;
        serve.signal("TERM");
        let mut held = HashSet::new();
        for sender in senders {
            held.extend(sender.await.unwrap());
        }
        let (code, log) = serve.end();
        assert_eq!(code, 0, "{log}");
        assert!(log.contains("Drained: every request was answered"), "{log}");
        let count = count(&config.kafka.brokers, &topic);
        let records = records(&config, &topic, usize::try_from(count).unwrap());
        let landed: HashSet<String> =
            records.into_iter().map(|record| String::from_utf8(record.key.unwrap()).unwrap()).collect();
        let lost: Vec<_> = held.difference(&landed).collect();
        assert!(lost.is_empty(), "answered 200 and not in the topic: {lost:?}");
        assert_eq!(landed.len(), held.len(), "in the topic without a 200");
    }
}

/// The bridge is alive and not ready, and closes connections after each answer.
#[tokio::test]
async fn during_the_drain_delay_clicks_are_still_served() {
    let broker = Broker::embedded();
    let mut bridge =
        TestBridge::start_with(&broker, |config| config.http.drain_delay_ms = 3_000).await;
    let mut idle = bridge.raw();
    let answer = bridge.post(click("7")).await;
    assert!(!answer.headers().contains_key("connection"));
    bridge.begin_stop();
    until("not ready", async || bridge.admin("/readyz").await.0 == 503).await;
    assert_eq!(bridge.admin("/livez").await.0, StatusCode::OK);
    let answer = bridge.post(click("7")).await;
    assert_eq!(answer.status(), StatusCode::OK);
    assert_eq!(answer.headers()["connection"], "close");
    assert_eq!(idle.read_all(), "");
    assert!(bridge.stopped().is_clean());
}

#[tokio::test]
async fn requests_in_flight_are_finished_and_answered() {
    let broker = Broker::embedded();
    let mut bridge = TestBridge::start(&broker).await;
    assert_eq!(bridge.post(click("7")).await.status(), StatusCode::OK);
    broker.development().cluster().broker_round_trip_time(-1, Duration::from_millis(800)).unwrap();
    let post = tokio::spawn(bridge.request(click("7")).send());
    until("in flight", async || bridge.metric("hookbridge_requests_in_flight").await == 1.0).await;
    bridge.begin_stop();
    assert_eq!(post.await.unwrap().unwrap().status(), StatusCode::OK);
    assert!(bridge.stopped().is_clean());
}

/// The log says so.
#[tokio::test]
async fn requests_beyond_the_drain_timeout_are_cut_off() {
    let broker = Broker::embedded();
    let mut bridge = TestBridge::start_with(&broker, |config| {
        config.http.drain_timeout_ms = 1_500;
        config.http.answer_timeout_ms = 60_000;
        config.kafka.ack_timeout_ms = 50_000;
    })
    .await;
    assert_eq!(bridge.post(click("7")).await.status(), StatusCode::OK);
    broker.development().cluster().broker_down(-1).unwrap();
    let post = tokio::spawn(bridge.request(click("7")).send());
    until("in flight", async || bridge.metric("hookbridge_requests_in_flight").await == 1.0).await;
    let asked = Instant::now();
    bridge.begin_stop();
    assert!(post.await.unwrap().is_err());
    let drained = bridge.stopped();
    assert_eq!((drained.cut_off, drained.unacknowledged), (1, 1));
    assert!(asked.elapsed() < Duration::from_secs(20), "stopped after {:?}", asked.elapsed());
}

#[tokio::test]
async fn a_second_signal_stops_at_once() {
    let broker = Broker::embedded();
    let mut config = config(&broker);
    (config.http.drain_delay_ms, config.http.drain_timeout_ms) = (30_000, 60_000);
    let folder = tempfile::tempdir().unwrap();
    let mut serve = Serve::launch(&config, folder.path(), "true");
    serve.wait_for_log("Serving.");
    serve.signal("TERM");
    serve.wait_for_log("a second signal stops at once");
    let asked = Instant::now();
    serve.signal("INT");
    assert_eq!(serve.end().0, 1);
    assert!(asked.elapsed() < Duration::from_secs(20));
}
