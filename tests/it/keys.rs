//! Keys: restrictions, rotation, files that are reread when they change.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use hookbridge::click::auth::{format_hash, hash_key};
use hookbridge::config::{Config, NamedKey};
use jiff::{SignedDuration, Timestamp};
use reqwest::StatusCode;
use serde_json::Value;

use crate::harness::brokers::Broker;
use crate::harness::process::{Serve, settings_file};
use crate::harness::support::{KEY, Mount, TestBridge, click, config, sender, until};

/// A key whose text is its name.
pub fn key(name: &str) -> NamedKey {
    NamedKey::new(name, format_hash(&hash_key(name.as_bytes())))
}

/// The text of a file with these keys of one sender.
fn keys(name: &str, keys: &[&str]) -> String {
    let entry = |key: &&str| {
        let hash = format_hash(&hash_key(key.as_bytes()));
        format!("[[keys]]\nname = \"{name}\"\nsha256 = \"{hash}\"\n")
    };
    keys.iter().map(entry).collect()
}

fn uses_after_end(key: &str) -> String {
    format!("hookbridge_key_uses_after_end_total{{key=\"{key}\"}}")
}

fn reloads(what: &str, result: &str) -> String {
    format!("hookbridge_reloads_total{{result=\"{result}\",what=\"{what}\"}}")
}

/// Checks the answer, its tag, and the webhook and key of the counted failure.
#[tokio::test]
async fn restrictions_of_keys_are_enforced() {
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
        ("ended", 401, "unauthorized", "The key has expired"),
        ("early", 401, "unauthorized", "The key is not valid yet"),
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

/// The keys file is in a volume like that of Kubernetes. The old and the new key have one name.
#[tokio::test]
async fn a_key_is_replaced_under_load_without_a_refusal() {
    let broker = Broker::embedded();
    let mut mount = Mount::new(&[("keys.toml", &keys("partner", &["old"]))]);
    let mut config = config(&broker);
    config.auth.keys_file = Some(mount.path("keys.toml"));
    broker.create_topic(&config.webhook[0].topic, 12).await;
    let folder = tempfile::tempdir().unwrap();
    let mut serve = Serve::launch(&config, folder.path(), "true");
    until("ready", async || serve.is_ready().await).await;

    let in_use = Arc::new(Mutex::new("old"));
    let (answered, is_over) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicBool::new(false)));
    let senders = (0..4).map(|_| {
        let (url, in_use) = (serve.url().to_owned(), in_use.clone());
        let (answered, is_over) = (answered.clone(), is_over.clone());
        tokio::spawn(async move {
            let client = reqwest::Client::new();
            while !is_over.load(Ordering::Relaxed) {
                let key = *in_use.lock().unwrap();
                let answer = client.post(&url).bearer_auth(key).body(click("7")).send().await;
                assert_eq!(answer.unwrap().status(), StatusCode::OK, "{key}");
                answered.fetch_add(1, Ordering::Relaxed);
            }
        })
    });
    let senders: Vec<_> = senders.collect();
    let load = async || {
        let enough = answered.load(Ordering::Relaxed) + 100;
        until("load", async || answered.load(Ordering::Relaxed) >= enough).await;
    };
    load().await;
    mount.swap(&[("keys.toml", &keys("partner", &["old", "new"]))]);
    until("reloaded", async || serve.metric(&reloads("keys", "ok")).await == 1.0).await;
    *in_use.lock().unwrap() = "new";
    load().await;
    mount.swap(&[("keys.toml", &keys("partner", &["new"]))]);
    until("reloaded", async || serve.metric(&reloads("keys", "ok")).await == 2.0).await;
    load().await;
    is_over.store(true, Ordering::Relaxed);
    for sender in senders {
        sender.await.unwrap();
    }

    let url = serve.url().to_owned();
    let status = async |key: &str| {
        let request = sender().post(&url).bearer_auth(key).body(click("7"));
        request.send().await.unwrap().status()
    };
    assert_eq!(status("old").await, StatusCode::UNAUTHORIZED);
    assert_eq!(serve.metric(&uses_after_end("partner")).await, 0.0);
    for _ in 0..2 {
        serve.wait_for_log("\"changed\":\"[\\\"partner\\\"]\"");
    }

    // A wrong file is counted and logged, and changes nothing.
    for (text, words) in [
        ("keys = [{ name = \"late\", sha256 = \"secret-text\" }]", "64 hexadecimal digits"),
        ("keys = [{ name = \"late\"", "keys.toml cannot be read"),
    ] {
        let failed = serve.metric(&reloads("keys", "failed")).await;
        mount.swap(&[("keys.toml", text)]);
        until("refused", async || serve.metric(&reloads("keys", "failed")).await == failed + 1.0)
            .await;
        assert_eq!(status("new").await, StatusCode::OK);
        assert_eq!(status(KEY).await, StatusCode::OK);
        serve.wait_for_log(words);
    }
    mount.swap(&[("keys.toml", &keys("other", &["last"]))]);
    until("accepted", async || status("last").await == StatusCode::OK).await;
    assert_eq!(status("new").await, StatusCode::UNAUTHORIZED);
    let scrape = reqwest::get(format!("http://{}/metrics", serve.admin)).await.unwrap();
    assert!(!scrape.text().await.unwrap().contains("key=\"partner\""));
    serve.wait_for_log("\"removed\":\"[\\\"partner\\\"]\"");
    let (code, log) = serve.stop();
    assert_eq!(code, 0, "{log}");
    assert!(
        !log.contains("secret-text") && !log.contains(&format_hash(&hash_key(b"new"))),
        "{log}"
    );
}

/// The log names changed settings that need a restart. SIGHUP is applied at once.
#[tokio::test]
async fn the_log_level_follows_its_file() {
    let broker = Broker::embedded();
    let mut config = config(&broker);
    broker.create_topic(&config.webhook[0].topic, 12).await;
    config.log.level = "error".into();
    let folder = tempfile::tempdir().unwrap();
    let mut serve = Serve::launch(&config, folder.path(), "true");
    until("ready", async || serve.is_ready().await).await;
    let url = serve.url().to_owned();
    let refuse = async || {
        let request = sender().post(&url).bearer_auth("wrong").body(click("7"));
        assert_eq!(request.send().await.unwrap().status(), StatusCode::UNAUTHORIZED);
    };
    refuse().await;
    (config.http.listen, config.admin.listen) = (serve.http, serve.admin);
    config.log.level = "info".into();
    config.kafka.ack_timeout_ms = 1_400;
    settings_file(folder.path(), &config);
    until("reloaded", async || serve.metric(&reloads("log", "ok")).await == 1.0).await;
    refuse().await;
    serve.wait_for_log("changes that take a restart");

    std::fs::write(&serve.file, "[log]\nlevel = \"loud\"\n").unwrap();
    until("refused", async || serve.metric(&reloads("log", "failed")).await == 1.0).await;
    settings_file(folder.path(), &config);
    until("reloaded", async || serve.metric(&reloads("log", "ok")).await == 2.0).await;
    serve.signal("HUP");
    serve.wait_for_log("Told to reload.");
    until("reloaded", async || serve.metric(&reloads("log", "ok")).await == 3.0).await;
    let (code, log) = serve.stop();
    assert_eq!(code, 0, "{log}");
    assert_eq!(log.matches("Request refused.").count(), 1, "{log}");
    assert!(log.contains("[\\\"kafka\\\"]"), "{log}");
    assert!(log.contains("log.level: must be error"), "{log}");
}
