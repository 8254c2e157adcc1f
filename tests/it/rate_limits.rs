//! Senders over their rate limit.

use std::net::Ipv4Addr;

use reqwest::{Client, RequestBuilder, StatusCode};
use tokio::time::Instant;

use crate::harness::brokers::Broker;
use crate::harness::process::Serve;
use crate::harness::support::{KEY, PATIENCE, Raw, TestBridge, click, config, until};
use crate::keys::key;

/// The addresses of two senders.
const NOISY: [u8; 4] = [127, 0, 0, 2];
const QUIET: [u8; 4] = [127, 0, 0, 3];

/// A sender at this address, with a persistent connection.
fn sender_at(address: [u8; 4]) -> Client {
    let client = Client::builder().local_address(Some(Ipv4Addr::from(address).into()));
    client.timeout(PATIENCE).build().unwrap()
}

/// Sends until a request is over the limit of two a second; returns how many were within it.
async fn send_until_too_many(request: impl Fn() -> RequestBuilder, within: StatusCode) -> usize {
    let began = Instant::now();
    for count in 0.. {
        let answer = request().send().await.unwrap();
        if answer.status() == StatusCode::TOO_MANY_REQUESTS {
            assert_eq!(answer.headers()["retry-after"], "1");
            let most = 2.0 * (began.elapsed().as_secs_f64() + 1.0);
            assert!(count >= 2 && count as f64 <= most, "{count}, at most {most}");
            return count;
        }
        assert_eq!(answer.status(), within);
    }
    unreachable!("it ends with an answer");
}

/// Other addresses are not affected.
#[tokio::test]
async fn the_rate_of_an_address_is_limited() {
    let broker = Broker::embedded();
    let bridge = TestBridge::start_with(&broker, |config| {
        config.http.max_rate_per_address = 2;
    })
    .await;
    let (noisy, quiet) = (sender_at(NOISY), sender_at(QUIET));
    let post = |sender: &Client| sender.post(bridge.url()).bearer_auth(KEY).body(click("7"));
    let held = send_until_too_many(|| post(&noisy), StatusCode::OK).await;
    assert_eq!(post(&quiet).send().await.unwrap().status(), StatusCode::OK);
    assert_eq!(bridge.outcomes_without_webhook("address_over_rate").await, 1.0);
    assert_eq!(bridge.count(), i64::try_from(held).unwrap() + 1);
    let is_held = async || post(&noisy).send().await.unwrap().status() == StatusCode::OK;
    until("within the rate limit again", is_held).await;
}

/// The limit holds for all addresses together.
#[tokio::test]
async fn the_rate_of_a_key_is_limited() {
    let broker = Broker::embedded();
    let bridge = TestBridge::start_with(&broker, |config| {
        config.http.max_rate_per_key = 2;
        config.auth.keys = vec![key("noisy"), key("quiet")];
    })
    .await;
    let (here, there) = (sender_at(NOISY), sender_at(QUIET));
    let post = |sender: &Client, key| sender.post(bridge.url()).bearer_auth(key).body(click("7"));
    let held = send_until_too_many(|| post(&here, "noisy"), StatusCode::OK).await;
    assert_eq!(post(&here, "quiet").send().await.unwrap().status(), StatusCode::OK);
    assert_eq!(bridge.outcomes("key_over_rate").await, 1.0);
    assert_eq!(bridge.count(), i64::try_from(held).unwrap() + 1);
    let elsewhere = async || post(&there, "noisy").send().await.unwrap().status();
    let is_over = async || elsewhere().await == StatusCode::TOO_MANY_REQUESTS;
    until("over the rate limit there, too", is_over).await;
}

/// A sender with a valid key is not affected by another sender at the same address.
#[tokio::test]
async fn the_rate_of_failures_is_limited() {
    let broker = Broker::embedded();
    let bridge = TestBridge::start_with(&broker, |config| {
        config.http.max_failure_rate_per_address = 2;
    })
    .await;
    let (noisy, quiet) = (sender_at(NOISY), sender_at(QUIET));
    let post = |sender: &Client, key| sender.post(bridge.url()).bearer_auth(key).body(click("7"));
    send_until_too_many(|| post(&noisy, "wrong"), StatusCode::UNAUTHORIZED).await;
    assert_eq!(post(&noisy, KEY).send().await.unwrap().status(), StatusCode::OK);
    let elsewhere = post(&quiet, "wrong").send().await.unwrap();
    assert_eq!(elsewhere.status(), StatusCode::UNAUTHORIZED);
    assert_eq!(bridge.outcomes("too_many_failures").await, 1.0);
    assert_eq!(bridge.count(), 1);
}

#[tokio::test]
async fn one_address_cannot_take_all_connections() {
    let broker = Broker::embedded();
    let bridge = TestBridge::start_with(&broker, |config| {
        config.http.max_connections = 16;
    })
    .await;
    let mut held = Vec::new();
    for _ in 0..14 {
        held.push(Raw::connect_from(NOISY, bridge.http).await);
    }
    until("held", async || bridge.metric("hookbridge_connections").await == 14.0).await;
    let refused = Raw::connect_from(NOISY, bridge.http).await.read_all();
    assert!(refused.starts_with("HTTP/1.1 503"), "{refused}");
    let limit = "hookbridge_connections_refused_total{reason=\"limit\"}";
    assert_eq!(bridge.metric(limit).await, 1.0);
    let post = sender_at(QUIET).post(bridge.url()).bearer_auth(KEY).body(click("7"));
    assert_eq!(post.send().await.unwrap().status(), StatusCode::OK);
}

/// Omitted lines are counted.
#[tokio::test]
async fn refused_requests_cannot_fill_the_log() {
    const CLIENTS: usize = 300;
    let broker = Broker::embedded();
    let mut config = config(&broker);
    config.http.max_failure_rate_per_address = 0;
    broker.create_topic(&config.webhook[0].topic, 3).await;
    let folder = tempfile::tempdir().unwrap();
    let serve = Serve::launch(&config, folder.path(), "true");
    until("ready", async || serve.is_ready().await).await;
    let sender = sender_at(NOISY);
    let began = Instant::now();
    for _ in 0..CLIENTS {
        let answer = sender.post(serve.url()).bearer_auth("wrong").body(click("7")).send().await;
        assert_eq!(answer.unwrap().status(), StatusCode::UNAUTHORIZED);
    }
    let most = 10.0 * (began.elapsed().as_secs_f64() + 1.0);
    let left_out = serve.metric("hookbridge_log_lines_left_out_total").await;
    let (code, log) = serve.stop();
    assert_eq!(code, 0, "{log}");
    let lines = log.lines().filter(|line| line.contains("unauthorized"));
    let lines: Vec<serde_json::Value> =
        lines.map(|line| serde_json::from_str(line).expect("JSON")).collect();
    assert_eq!(lines.len() as f64 + left_out, CLIENTS as f64);
    assert!(lines.len() as f64 <= most, "{} lines, at most {most}", lines.len());
    assert!(left_out > 0.0, "{} lines in {:?}", lines.len(), began.elapsed());
    let said: f64 = lines.iter().filter_map(|line| line["left_out"].as_f64()).sum();
    assert!(said <= left_out, "{said} of {left_out}");
}
