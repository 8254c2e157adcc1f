//! A process that finds the spool in use by another one, which may be dying.

use reqwest::StatusCode;

use crate::harness::brokers::Broker;
use crate::harness::process::{Serve, hookbridge, texts};
use crate::harness::support::{TestBridge, config, count, numbered, sender, until};

const WAITS: &str = "Another process uses the spool";

/// Meanwhile it is alive but not ready, and takes no click: one that comes is answered when it is held.
#[tokio::test]
async fn a_process_waits_until_its_predecessor_has_ended() {
    let broker = Broker::embedded();
    let folders = [(); 3].map(|()| tempfile::tempdir().unwrap());
    let mut config = config(&broker);
    config.spool.dir = folders[0].path().join("spool");
    // How long it waits depends on this.
    config.http.drain_timeout_ms = 3_600_000;
    let topic = config.webhook[0].topic.clone();
    broker.create_topic(&topic, 3).await;
    let first = Serve::launch(&config, folders[0].path(), "true");
    until("ready", async || first.is_ready().await).await;
    let owner = format!("process {} on ", first.id());
    let file = first.file.clone();
    let spool = |what: &str, code: i32| {
        let output = hookbridge(["spool", what, "--config"]).arg(&file).output().unwrap();
        texts(&output, code)
    };

    let mut second = Serve::launch(&config, folders[1].path(), "true");
    second.wait_for_log(WAITS);
    assert!(second.has_logged(&owner));
    let admin = async |path: &str| {
        let answer = sender().get(format!("http://{}{path}", second.admin)).send().await.unwrap();
        (answer.status(), answer.text().await.unwrap())
    };
    assert_eq!(admin("/livez").await.0, StatusCode::OK);
    let (status, why) = admin("/readyz").await;
    assert_eq!(status, StatusCode::SERVICE_UNAVAILABLE);
    assert!(why.contains("another process still uses the spool"), "{why}");
    assert!(admin("/metrics").await.1.contains("hookbridge_spool_working 0\n"));
    let click = tokio::spawn(second.post(numbered("7", 0)).send());

    // A signal ends the wait.
    let mut third = Serve::launch(&config, folders[2].path(), "true");
    third.wait_for_log(WAITS);
    let (code, log) = third.stop();
    assert_eq!(code, 0, "{log}");
    assert!(log.contains("no click was taken"), "{log}");

    for what in ["status", "drain"] {
        let (_, error) = spool(what, 1);
        assert!(error.contains(&owner) && error.contains("/metrics"), "{error}");
    }
    assert!(!click.is_finished(), "{click:?}");
    assert!(!second.has_ended());

    assert_eq!(first.stop().0, 0);
    until("ready", async || second.is_ready().await).await;
    assert_eq!(click.await.unwrap().unwrap().status(), StatusCode::OK);
    until("delivered", async || count(&broker.addresses(), &topic) == 1).await;
    let (code, log) = second.stop();
    assert_eq!(code, 0, "{log}");
    assert_eq!(log.matches(WAITS).count(), 1, "{log}");
    let (out, _) = spool("status", 0);
    assert!(out.contains(" 0 events"), "{out}");
    assert_eq!(std::fs::read_to_string(config.spool.dir.join("owner")).unwrap(), "");
}

/// After as long as a process may take to die.
#[tokio::test]
async fn a_process_gives_up_on_a_spool_that_stays_in_use() {
    let broker = Broker::embedded();
    let bridge = TestBridge::start_spooling(&broker, |_| {}).await;
    let mut config = bridge.config.clone();
    config.kafka.ack_timeout_ms = 100;
    config.http.answer_timeout_ms = 1_400;
    config.http.body_timeout_ms = 100;
    config.http.drain_timeout_ms = 1_600;
    let folder = tempfile::tempdir().unwrap();
    let (code, log) = Serve::launch(&config, folder.path(), "true").end();
    assert_eq!(code, 1, "{log}");
    let owner = format!("process {} on ", std::process::id());
    assert!(log.contains(WAITS) && log.contains("\"patience_s\":16"), "{log}");
    let last = log.lines().last().unwrap();
    assert!(last.contains("spool.dir: ") && last.contains(&owner), "{log}");
}
