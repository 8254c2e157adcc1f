//! A Kafka with TLS, passwords and access rights.

use hookbridge::config::Config;
use reqwest::StatusCode;

use crate::harness::brokers::{Broker, Kafka, UNPRIVILEGED, USER, create_topic, shared};
use crate::harness::process::{hookbridge, settings_file};
use crate::harness::support::{TestBridge, click, config, count, until};

/// Settings for the broker's TLS listener, with a topic created through the plain one.
async fn secured(kafka: &Kafka, mechanism: &str, (user, password): (&str, &str)) -> Config {
    let mut config = config(&Broker::Kafka(kafka.sasl_ssl()));
    let options = &mut config.kafka.options;
    options.set("security.protocol", "SASL_SSL");
    options.set("sasl.mechanism", mechanism);
    options.set("sasl.username", user);
    options.set("sasl.password", password);
    options.set("ssl.ca.location", kafka.ca_file().display().to_string());
    create_topic(&kafka.plaintext(), &config.webhook[0].topic, 12, 1, &[]).await;
    config
}

#[tokio::test]
async fn each_sasl_mechanism_works_over_tls() {
    let Some(kafka) = shared() else { return };
    for mechanism in ["SCRAM-SHA-512", "PLAIN"] {
        let bridge = TestBridge::launch(secured(kafka, mechanism, USER).await);
        bridge.ready().await;
        assert_eq!(bridge.post(click("7")).await.status(), StatusCode::OK, "{mechanism}");
        assert_eq!(bridge.records(1)[0].value, click("7"), "{mechanism}");
    }
}

/// The bridge is not ready, answers 503 and writes nothing.
#[tokio::test]
async fn a_wrong_kafka_password_refuses_clicks() {
    let Some(kafka) = shared() else { return };
    let config = secured(kafka, "SCRAM-SHA-512", (USER.0, "wrong")).await;
    let topic = config.webhook[0].topic.clone();
    let bridge = TestBridge::launch(config);
    assert_eq!(bridge.post(click("7")).await.status(), StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(bridge.admin("/readyz").await.0, StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(count(&kafka.plaintext(), &topic), 0);
}

/// The bridge answers 503 and writes nothing; `check --kafka` says why.
#[tokio::test]
async fn missing_kafka_rights_refuse_clicks() {
    let Some(kafka) = shared() else { return };
    let config = secured(kafka, "SCRAM-SHA-512", UNPRIVILEGED).await;
    let topic = config.webhook[0].topic.clone();
    let bridge = TestBridge::launch(config.clone());
    assert_eq!(bridge.post(click("7")).await.status(), StatusCode::SERVICE_UNAVAILABLE);
    until("counted", async || bridge.outcomes("accepted").await == 0.0).await;
    let (code, out) = check(&config);
    assert_eq!(code, 1, "{out}");
    assert!(out.contains("grant it WRITE and DESCRIBE"), "{out}");
    assert_eq!(count(&kafka.plaintext(), &topic), 0);
}

#[tokio::test]
async fn check_kafka_writes_nothing() {
    let Some(kafka) = shared() else { return };
    let config = secured(kafka, "SCRAM-SHA-512", USER).await;
    let topic = &config.webhook[0].topic;
    let (code, out) = check(&config);
    assert_eq!(code, 0, "{out}");
    assert!(
        out.contains(&format!("ok       {topic}: 12 partitions, replicas: 1, min.insync")),
        "{out}"
    );
    assert!(out.contains("the right to write (nothing was written)"), "{out}");
    assert!(out.contains("warning") && out.contains("min.insync.replicas=2"), "{out}");
    assert_eq!(count(&kafka.plaintext(), topic), 0);
}

/// `hookbridge check --kafka`: its exit code and what it prints.
pub fn check(config: &Config) -> (i32, String) {
    let folder = tempfile::tempdir().unwrap();
    let file = settings_file(folder.path(), config);
    let output = hookbridge(["check", "--kafka", "--config"]).arg(file).output().unwrap();
    (output.status.code().unwrap(), String::from_utf8(output.stdout).unwrap())
}
