//! Refused requests: status, tag, and no record.

use hookbridge::config::{Config, InvalidBody};
use reqwest::{Method, StatusCode};
use serde_json::Value;

use crate::harness::support::{KEY, TestBridge, click, sender};
use crate::on_every_broker;

/// Tag, method, path, `Authorization`, body, status.
type Case<'c> = (&'c str, &'c Method, &'c str, Option<&'c str>, Vec<u8>, u16);

on_every_broker! {
    /// A refusal publishes no record.
    async fn each_refusal_has_its_status_tag_and_problem_details(broker: Broker) {
        let reject = |config: &mut Config| config.webhook[0].invalid = InvalidBody::Reject;
        let bridge = TestBridge::start_with(&broker, reject).await;
        let path = bridge.config.webhook[0].path.clone();
        let key = format!("Bearer {KEY}");
        let (good, post) = (click("7"), Method::POST);
        let body = |text: &str| text.as_bytes().to_vec();
        let cases: Vec<Case> = vec![
            ("unknown_path", &post, "/", Some(&key), good.clone(), 404),
            ("unknown_path", &post, "/webhooks/email-marketing/click/x", Some(&key), good.clone(), 404),
            ("wrong_method", &Method::GET, &path, Some(&key), vec![], 405),
            ("wrong_method", &Method::PUT, &path, Some(&key), good.clone(), 405),
            ("unauthorized", &post, &path, None, good.clone(), 401),
            ("unauthorized", &post, &path, Some("Bearer wrong"), good.clone(), 401),
            ("unauthorized", &post, &path, Some("Basic YTpi"), good.clone(), 401),
            ("unauthorized", &post, &path, Some(KEY), good.clone(), 401),
            ("malformed", &post, &path, Some(&key), body(""), 400),
            ("malformed", &post, &path, Some(&key), body("{\"campid\":7"), 400),
            ("malformed", &post, &path, Some(&key), b"{\"campid\":\"\xff\"}".to_vec(), 400),
            ("invalid", &post, &path, Some(&key), body("42"), 422),
            ("invalid", &post, &path, Some(&key), body("[{\"campid\":7}]"), 422),
            ("invalid", &post, &path, Some(&key), body("{}"), 422),
            ("invalid", &post, &path, Some(&key), body("{\"campid\":\"\"}"), 422),
            ("invalid", &post, &path, Some(&key), body("{\"campid\":1.5}"), 422),
            ("invalid", &post, &path, Some(&key), body("{\"campid\":7,\"event\":\"open\"}"), 422),
            ("body_too_large", &post, &path, Some(&key), vec![b' '; (1 << 20) + 1], 413),
        ];
        for (tag, method, path, key, body, status) in cases {
            let what = format!("{method} {path} {key:?} {:.60}", String::from_utf8_lossy(&body));
            let before = bridge.outcomes(tag).await + bridge.outcomes_without_webhook(tag).await;
            let url = format!("http://{}{path}", bridge.http);
            let mut request = sender().request(method.clone(), url).body(body);
            if let Some(key) = key {
                request = request.header("authorization", key);
            }
            let answer = request.send().await.unwrap();
            assert_eq!(answer.status().as_u16(), status, "{what}");
            let header = |name: &str| answer.headers().get(name).map(|v| v.to_str().unwrap().to_owned());
            assert_eq!(header("content-type").as_deref(), Some("application/problem+json"), "{what}");
            assert_eq!(header("www-authenticate").is_some(), status == 401, "{what}");
            assert_eq!(header("allow").is_some(), status == 405, "{what}");
            let problem: Value = serde_json::from_slice(&answer.bytes().await.unwrap()).unwrap();
            assert_eq!(problem["type"], format!("urn:hookbridge:problem:{tag}"), "{what}");
            assert_eq!(problem["status"], status, "{what}");
            let after = bridge.outcomes(tag).await + bridge.outcomes_without_webhook(tag).await;
            assert_eq!(after, before + 1.0, "{what}");
        }
        // The marker is the only record.
        assert_eq!(bridge.post(click("marker")).await.status(), StatusCode::OK);
        assert_eq!(bridge.record().key.as_deref(), Some(b"marker".as_slice()));
    }
}

#[tokio::test]
async fn bytes_that_are_no_http_are_answered_counted_and_closed() {
    let broker = crate::harness::brokers::Broker::embedded();
    let bridge = TestBridge::start(&broker).await;
    let mut raw = bridge.raw();
    raw.send("nonsense\r\n\r\n");
    assert!(raw.read_all().starts_with("HTTP/1.1 400"));
    crate::harness::support::until("counted", async || {
        bridge.outcomes_without_webhook("not_http").await == 1.0
    })
    .await;
    assert_eq!(bridge.post(click("7")).await.status(), StatusCode::OK);
}

#[tokio::test]
async fn a_broken_chunk_publishes_nothing() {
    let broker = crate::harness::brokers::Broker::embedded();
    let bridge = TestBridge::start(&broker).await;
    let mut raw = bridge.raw();
    raw.send_head(&bridge.config.webhook[0].path, "transfer-encoding: chunked\r\n");
    raw.send("zz\r\n{\"campid\":7}\r\n0\r\n\r\n");
    assert!(raw.read_all().starts_with("HTTP/1.1 400"));
    assert_eq!(bridge.outcomes("not_http").await, 1.0);
    assert_eq!(bridge.count(), 0);
}
