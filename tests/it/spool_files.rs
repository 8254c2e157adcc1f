//! The folder of the spool: those of other versions, files that are gone, and a start on much that waits.

use std::fs;
use std::io::Read;
use std::path::Path;
use std::time::Duration;

use hookbridge::config::Config;
use reqwest::StatusCode;
use tokio::time::Instant;

use crate::harness::brokers::Broker;
use crate::harness::process::{Serve, hookbridge, texts};
use crate::harness::support::{config, count, fixture, numbered, records, until};

fn spooling(broker: &Broker, folder: &Path) -> Config {
    let mut config = config(broker);
    config.spool.dir = folder.join("spool");
    config
}

/// The numbers of the clicks in the topic.
fn delivered(config: &Config, expected: usize) -> Vec<usize> {
    let number = |value: &[u8]| {
        let body: serde_json::Value = serde_json::from_slice(value).unwrap();
        body["relid"].as_str().unwrap().parse().unwrap()
    };
    let records = records(config, &config.webhook[0].topic, expected);
    records.iter().map(|record| number(&record.value)).collect()
}

/// Twenty clicks in a file of the last version before segments; more come before Kafka does.
#[tokio::test]
async fn the_spool_of_an_earlier_version_is_delivered_in_its_order() {
    let broker = Broker::embedded();
    let folder = tempfile::tempdir().unwrap();
    let mut config = spooling(&broker, folder.path());
    config.webhook[0].topic = "clicks-of-an-earlier-version".into();
    fs::create_dir(&config.spool.dir).unwrap();
    let mut file = Vec::new();
    let packed = fixture("spool-before-segments.redb.gz");
    flate2::read::GzDecoder::new(&*packed).read_to_end(&mut file).unwrap();
    let path = config.spool.dir.join("spool.redb");
    fs::write(&path, file).unwrap();
    broker.create_topic(&config.webhook[0].topic, 3).await;
    broker.development().cluster().broker_down(-1).unwrap();
    let serve = Serve::launch(&config, folder.path(), "true");
    until("ready", async || serve.is_ready().await).await;
    assert_eq!(serve.metric("hookbridge_spool_events").await, 20.0);
    for number in 20..25 {
        assert_eq!(serve.post(numbered("7", number)).send().await.unwrap().status(), 200);
    }
    broker.development().cluster().broker_up(-1).unwrap();
    until("empty", async || serve.metric("hookbridge_spool_events").await == 0.0).await;
    assert_eq!(delivered(&config, 25), (0..25).collect::<Vec<_>>());
    // Nothing is left that an older program would take for a spool.
    until("a folder in its place", async || path.is_dir()).await;
    let (code, log) = serve.stop();
    assert_eq!(code, 0, "{log}");
}

#[tokio::test]
async fn the_spool_of_a_newer_version_is_left_alone() {
    let broker = Broker::embedded();
    let folder = tempfile::tempdir().unwrap();
    let config = spooling(&broker, folder.path());
    fs::create_dir(&config.spool.dir).unwrap();
    let manifest = config.spool.dir.join("manifest.json");
    fs::write(&manifest, r#"{"format": 2}"#).unwrap();
    let serve = Serve::launch(&config, folder.path(), "true");
    let file = serve.file.clone();
    let (code, log) = serve.end();
    assert_eq!(code, 1, "{log}");
    assert!(log.contains("a newer hookbridge wrote it (format 2)"), "{log}");
    for command in ["status", "drain"] {
        let output = hookbridge(["spool", command, "--config"]).arg(&file).output().unwrap();
        let (_, error) = texts(&output, 1);
        assert!(error.contains("a newer hookbridge wrote it"), "{error}");
    }
    assert_eq!(fs::read_to_string(&manifest).unwrap(), r#"{"format": 2}"#);
}

/// While the program runs nothing is lost: it still has the files open. What goes while it does not is counted.
#[tokio::test]
async fn files_that_are_gone_are_missed() {
    const EVENTS: usize = 30;
    for is_running in [true, false] {
        let broker = Broker::embedded();
        let folder = tempfile::tempdir().unwrap();
        let config = spooling(&broker, folder.path());
        broker.create_topic(&config.webhook[0].topic, 3).await;
        broker.development().cluster().broker_down(-1).unwrap();
        let serve = Serve::launch(&config, folder.path(), "true");
        until("ready", async || serve.is_ready().await).await;
        for number in 0..EVENTS {
            assert_eq!(serve.post(numbered("7", number)).send().await.unwrap().status(), 200);
        }
        let delete = || {
            for file in fs::read_dir(&config.spool.dir).unwrap() {
                let path = file.unwrap().path();
                if path.extension().is_some_and(|extension| extension == "waiting") {
                    fs::remove_file(path).unwrap();
                }
            }
        };
        let serve = if is_running {
            delete();
            serve
        } else {
            assert_eq!(serve.stop().0, 0);
            delete();
            let serve = Serve::launch(&config, folder.path(), "true");
            until("ready", async || serve.is_ready().await).await;
            serve
        };
        until("noticed", async || serve.metric("hookbridge_spool_damages_total").await == 1.0)
            .await;
        let lost = serve.metric("hookbridge_spool_lost_events_total").await;
        let waiting = serve.metric("hookbridge_spool_events").await;
        let expected = if is_running { (0.0, EVENTS as f64) } else { (EVENTS as f64, 0.0) };
        assert_eq!((lost, waiting), expected);
        broker.development().cluster().broker_up(-1).unwrap();
        until("empty", async || serve.metric("hookbridge_spool_events").await == 0.0).await;
        assert_eq!(count(&broker.addresses(), &config.webhook[0].topic), waiting as i64);
        let (code, log) = serve.stop();
        assert_eq!(code, 0, "{log}");
        assert!(log.contains("The spool was damaged"), "{log}");
    }
}

#[tokio::test]
async fn a_reserve_without_a_spool_is_damage() {
    let broker = Broker::embedded();
    for has_empty_file in [true, false] {
        let folder = tempfile::tempdir().unwrap();
        let config = spooling(&broker, folder.path());
        fs::create_dir(&config.spool.dir).unwrap();
        fs::write(config.spool.dir.join("reserve"), "").unwrap();
        if has_empty_file {
            // Of an earlier version.
            fs::write(config.spool.dir.join("spool.redb"), "").unwrap();
        }
        let serve = Serve::launch(&config, folder.path(), "true");
        until("ready", async || serve.is_ready().await).await;
        assert_eq!(serve.metric("hookbridge_spool_damages_total").await, 1.0);
        assert_eq!(serve.stop().0, 0);
        // It is said once.
        let serve = Serve::launch(&config, folder.path(), "true");
        until("ready", async || serve.is_ready().await).await;
        assert_eq!(serve.metric("hookbridge_spool_damages_total").await, 0.0);
        assert_eq!(serve.stop().0, 0);
    }
}

/// 1.5 GB wait, the process was killed, and nothing of it is in memory: a click is answered at once, and goes
/// behind what is there.
#[tokio::test]
#[ignore = "long: .ci/more"]
async fn a_start_does_not_wait_for_what_is_there() {
    const BODY: usize = 60_000;
    const EVENTS: usize = 25_000;
    let broker = Broker::embedded();
    let folder = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let mut config = spooling(&broker, folder.path());
    config.http.max_body_bytes = 100_000;
    config.kafka.brokers = "127.0.0.1:1".into();
    let serve = Serve::launch(&config, folder.path(), "true");
    until("ready", async || serve.is_ready().await).await;
    let body = |number: usize| {
        let mut body = numbered("7", number);
        body.resize(BODY, b' ');
        body
    };
    let mut posts = futures_util::stream::FuturesUnordered::new();
    let mut next = 0;
    while next < EVENTS || !posts.is_empty() {
        while next < EVENTS && posts.len() < 32 {
            posts.push(serve.post(body(next)).send());
            next += 1;
        }
        let answer = futures_util::StreamExt::next(&mut posts).await.unwrap().unwrap();
        assert_eq!(answer.status(), StatusCode::OK);
    }
    drop(posts);
    serve.signal("KILL");
    serve.end();
    rustix::fs::sync();
    let is_cold = fs::write("/proc/sys/vm/drop_caches", "3").is_ok();
    let serve = Serve::launch(&config, folder.path(), "true");
    let started = Instant::now();
    let answered = loop {
        match serve.post(body(EVENTS)).send().await {
            Ok(answer) if answer.status() == StatusCode::OK => break started.elapsed(),
            _ => assert!(started.elapsed() < Duration::from_secs(60)),
        }
    };
    println!("first 200 after {answered:?}, cold: {is_cold}");
    assert!(answered < Duration::from_millis(1_500), "{answered:?}");
    until("all is read", async || {
        serve.metric("hookbridge_spool_events").await == EVENTS as f64 + 1.0
    })
    .await;
    assert_eq!(serve.stop().0, 0);
}
