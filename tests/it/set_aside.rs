//! Events that neither their topic nor its dead letters took are tried again, on a real Kafka.

use hookbridge::config::Config;
use rdkafka::admin::{AdminClient, AdminOptions, AlterConfig, ResourceSpecifier};
use rdkafka::client::DefaultClientContext;
use reqwest::StatusCode;
use std::path::Path;
use std::time::Duration;

use crate::harness::brokers::{Broker, create_topic};
use crate::harness::process::{Serve, hookbridge, texts};
use crate::harness::support::{config, count, incompressible, until, until_within};

const SET_ASIDE: &str = "hookbridge_spool_set_aside_events";

/// The bridge tries one event of each topic once a minute.
const RETRIED: Duration = Duration::from_secs(150);

async fn limit(broker: &Broker, topic: &str, bytes: &str) {
    let mut client = rdkafka::ClientConfig::new();
    client.set("bootstrap.servers", broker.addresses());
    let admin: AdminClient<DefaultClientContext> = client.create().unwrap();
    let change = AlterConfig::new(ResourceSpecifier::Topic(topic)).set("max.message.bytes", bytes);
    let answers = admin.alter_configs([&change], &AdminOptions::new()).await.unwrap();
    assert!(answers.iter().all(Result::is_ok), "{answers:?}");
}

async fn with_small_topics(broker: &Broker, folder: &Path) -> Config {
    let mut config = config(broker);
    config.spool.dir = folder.join("spool");
    let small = [("max.message.bytes", "2000")];
    let webhook = &config.webhook[0];
    create_topic(&broker.addresses(), &webhook.topic, 3, 1, &small).await;
    create_topic(&broker.addresses(), &webhook.dead_letters(), 1, 1, &small).await;
    config
}

/// Larger than the topics take, the first one more than the others.
fn large(number: usize) -> String {
    let length = if number == 0 { 9_000 } else { 3_000 };
    format!(r#"{{"campid":7,"relid":{number},"x":"{}"}}"#, incompressible(length))
}

#[tokio::test]
async fn events_set_aside_go_to_kafka_once_it_takes_them() {
    let Some(broker) = Broker::kafka() else { return };
    let folder = tempfile::tempdir().unwrap();
    let config = with_small_topics(&broker, folder.path()).await;
    let (topic, dead) = (config.webhook[0].topic.clone(), config.webhook[0].dead_letters());
    let serve = Serve::launch(&config, folder.path(), "true");
    until("ready", async || serve.is_ready().await).await;
    for number in 0..3 {
        assert_eq!(serve.post(large(number)).send().await.unwrap().status(), StatusCode::OK);
    }
    until("set aside", async || serve.metric(SET_ASIDE).await == 3.0).await;
    assert!(serve.metric("hookbridge_spool_bytes").await > 15_000.0);
    assert_eq!(serve.metric("hookbridge_spool_events").await, 0.0);

    // Once a minute one event is tried: the limit of the topic is noticed, and the largest stays.
    limit(&broker, &topic, "5000").await;
    until_within(RETRIED, "tried again", async || serve.metric(SET_ASIDE).await == 1.0).await;
    assert_eq!(count(&broker.addresses(), &topic), 2);
    assert_eq!(count(&broker.addresses(), &dead), 0);
    let file = serve.file.clone();
    assert_eq!(serve.stop().0, 0);
    let output = hookbridge(["spool", "status", "--config"]).arg(&file).output().unwrap();
    let (out, _) = texts(&output, 0);
    let line = out.lines().find(|line| line.contains("set aside")).unwrap_or_default();
    assert!(line.contains(&topic) && line.contains(" 1 set aside"), "{out}");
    assert!(line.contains("too large") && line.contains("ago"), "{out}");

    // The start tries each of them.
    limit(&broker, &dead, "20000").await;
    let serve = Serve::launch(&config, folder.path(), "true");
    until("tried at the start", async || {
        serve.is_ready().await && serve.metric(SET_ASIDE).await == 0.0
    })
    .await;
    until("a dead letter", async || count(&broker.addresses(), &dead) == 1).await;
    assert_eq!(count(&broker.addresses(), &topic), 2);
    let (code, log) = serve.stop();
    assert_eq!(code, 0, "{log}");
}
