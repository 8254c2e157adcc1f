use hookbridge::auth::{format_hash, hash_key};
use hookbridge::config::{Config, NamedKey};
use jiff::{SignedDuration, Timestamp};
use serde_json::Value;

use crate::brokers::Broker;
use crate::support::{TestBridge, click, sender};

/// A key whose text is its name.
pub fn key(name: &str) -> NamedKey {
    NamedKey::new(name, format_hash(&hash_key(name.as_bytes())))
}

fn uses_after_end(key: &str) -> String {
    format!("hookbridge_key_uses_after_end_total{{key=\"{key}\"}}")
}

/// Each limit of a key: the answer, its tag, and who is counted.
#[tokio::test]
async fn limits_of_keys() {
    let hour = SignedDuration::from_hours(1);
    let (past, future) = (Timestamp::now() - hour, Timestamp::now() + hour);
    let networks = |net: &str| Some(vec![net.parse().unwrap()]);
    let mut other = Config::default().webhook.remove(0);
    (other.name, other.path) = ("other".into(), "/other".into());
    let broker = Broker::embedded();
    let bridge = TestBridge::start_with(&broker, |config| {
        config.auth.keys = vec![
            NamedKey { not_before: Some(past), expires_at: Some(future), ..key("good") },
            NamedKey { expires_at: Some(past), ..key("ended") },
            NamedKey { not_before: Some(future), ..key("early") },
            NamedKey { webhooks: Some(vec!["other".into()]), ..key("elsewhere") },
            NamedKey { networks: networks("127.0.0.0/8"), ..key("near") },
            NamedKey { networks: networks("10.0.0.0/8"), ..key("far") },
        ];
        config.webhook.push(other);
    })
    .await;
    for name in ["good", "ended", "api_key"] {
        assert_eq!(bridge.metric(&uses_after_end(name)).await, 0.0, "{name}");
    }
    for (name, status, tag, detail) in [
        ("good", 200, "accepted", ""),
        ("near", 200, "accepted", ""),
        ("ended", 401, "unauthorized", "The bearer key has expired"),
        ("early", 401, "unauthorized", "The bearer key is not valid yet"),
        ("elsewhere", 403, "forbidden", "This key is not for this webhook"),
        ("far", 403, "forbidden", "This key is not for this address"),
    ] {
        let before = bridge.outcomes(tag).await;
        let request = sender().post(bridge.url()).bearer_auth(name).body(click("7"));
        let answer = request.send().await.unwrap();
        assert_eq!(answer.status(), status, "{name}");
        let text = answer.text().await.unwrap();
        if status != 200 {
            let problem: Value = serde_json::from_str(&text).unwrap();
            assert_eq!(problem["detail"], detail, "{name}");
        }
        assert_eq!(bridge.outcomes(tag).await, before + 1.0, "{name}");
    }
    assert_eq!(bridge.metric(&uses_after_end("ended")).await, 1.0);
    for name in ["good", "early", "elsewhere", "far", "api_key"] {
        assert_eq!(bridge.metric(&uses_after_end(name)).await, 0.0, "{name}");
    }
    assert_eq!(bridge.count(), 2);
}
