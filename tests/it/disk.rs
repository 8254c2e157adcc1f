//! A disk that fails, fills up or is damaged.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use hookbridge::config::Config;
use reqwest::StatusCode;
use tokio::time::Instant;

use crate::harness::brokers::Broker;
use crate::harness::process::{Serve, may_mount};
use crate::harness::support::{config, count, numbered, records, until};

/// A preloaded library that makes the disk fail, and the file that selects the fault.
struct FaultyDisk {
    library: PathBuf,
    fault: PathBuf,
}

impl FaultyDisk {
    fn new(folder: &Path) -> FaultyDisk {
        let library = folder.join("faulty.so");
        let source = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/it/disk/faulty.c");
        let mut cc = Command::new("cc");
        cc.args(["-shared", "-fPIC", "-o"]).arg(&library).arg(source).arg("-ldl");
        assert!(cc.status().expect("a C compiler").success());
        FaultyDisk { library, fault: folder.join("fault") }
    }

    fn set(&self, letter: &str) {
        fs::write(&self.fault, letter).unwrap();
    }

    /// The shell runs this command before the bridge.
    fn preload(&self) -> String {
        let (library, fault) = (self.library.display(), self.fault.display());
        format!("export LD_PRELOAD={library} FAULT_FILE={fault}")
    }
}

fn spooling(broker: &Broker, folder: &Path) -> Config {
    let mut config = config(broker);
    config.spool.dir = folder.join("spool");
    config.http.body_timeout_ms = 500;
    config.http.drain_timeout_ms = 6_000;
    config
}

async fn post(serve: &Serve, number: usize) -> StatusCode {
    let asked = Instant::now();
    let answer = serve.post(numbered("7", number)).send().await.unwrap();
    assert!(asked.elapsed() < Duration::from_secs(10), "answered after {:?}", asked.elapsed());
    if answer.status() != StatusCode::OK {
        assert!(answer.headers().contains_key("retry-after"));
    }
    answer.status()
}

/// The numbers of the clicks in the topic, once it has this many records.
fn delivered(config: &Config, expected: usize) -> BTreeSet<usize> {
    let records = records(config, &config.webhook[0].topic, expected);
    let number = |value: &[u8]| {
        let body: serde_json::Value = serde_json::from_slice(value).unwrap();
        body["relid"].as_str().unwrap().parse().unwrap()
    };
    records.iter().map(|record| number(&record.value)).collect()
}

/// Never a false 200; clicks are held again as soon as the disk works.
#[tokio::test]
async fn a_failing_disk_refuses_clicks_while_kafka_is_away() {
    for fault in ["i", "w", "r", "s"] {
        let broker = Broker::embedded();
        let folder = tempfile::tempdir().unwrap();
        let (config, disk) = (spooling(&broker, folder.path()), FaultyDisk::new(folder.path()));
        broker.create_topic(&config.webhook[0].topic, 3).await;
        let serve = Serve::launch(&config, folder.path(), &disk.preload());
        until("ready", async || serve.is_ready().await).await;
        let mut held = BTreeSet::new();
        for number in 0..3 {
            assert_eq!(post(&serve, number).await, StatusCode::OK, "{fault}");
            held.insert(number);
        }
        broker.development().cluster().broker_down(-1).unwrap();
        for number in 3..6 {
            assert_eq!(post(&serve, number).await, StatusCode::OK, "{fault}");
            held.insert(number);
        }
        disk.set(fault);
        assert_eq!(post(&serve, 6).await, StatusCode::SERVICE_UNAVAILABLE, "{fault}");
        if fault != "s" {
            until("not ready", async || !serve.is_ready().await).await;
            let refused = serve.metric("hookbridge_spool_refused_total{reason=\"failed\"}").await;
            assert!(refused >= 1.0, "{fault}");
        }
        disk.set("");
        // A refused click may still be on disk; it was not confirmed.
        let mut number = 7;
        until("held again", async || {
            number += 1;
            let answer = post(&serve, number).await;
            held.extend(Some(number).filter(|_| answer == StatusCode::OK));
            answer == StatusCode::OK
        })
        .await;
        until("ready", async || serve.is_ready().await).await;
        broker.development().cluster().broker_up(-1).unwrap();
        until("empty", async || serve.metric("hookbridge_spool_events").await == 0.0).await;
        let there = count(&broker.addresses(), &config.webhook[0].topic);
        let there = delivered(&config, usize::try_from(there).unwrap());
        assert!(held.is_subset(&there), "{fault}: {held:?} {there:?}");
        let (code, log) = serve.stop();
        assert_eq!(code, 0, "{fault}: {log}");
        assert!(!log.contains("panicked"), "{fault}: {log}");
    }
}

#[tokio::test]
async fn a_disk_that_fails_at_the_start_stops_nothing_while_kafka_is_there() {
    let broker = Broker::embedded();
    let folder = tempfile::tempdir().unwrap();
    let (config, disk) = (spooling(&broker, folder.path()), FaultyDisk::new(folder.path()));
    broker.create_topic(&config.webhook[0].topic, 3).await;
    disk.set("r");
    let mut serve = Serve::launch(&config, folder.path(), &disk.preload());
    serve.wait_for_log("The spool's disk fails");
    until("ready", async || serve.is_ready().await).await;
    assert_eq!(serve.metric("hookbridge_spool_working").await, 0.0);
    for number in 0..3 {
        assert_eq!(post(&serve, number).await, StatusCode::OK);
    }
    disk.set("");
    until("working", async || serve.metric("hookbridge_spool_working").await == 1.0).await;
    assert_eq!(count(&broker.addresses(), &config.webhook[0].topic), 3);
    assert_eq!(serve.stop().0, 0);
}

/// The reserve is enough to forward the events on disk; afterwards there is room again.
#[tokio::test]
async fn a_full_disk_refuses_clicks_and_can_still_be_drained() {
    let broker = Broker::embedded();
    let folder = tempfile::tempdir().unwrap();
    let config = spooling(&broker, folder.path());
    broker.create_topic(&config.webhook[0].topic, 12).await;
    fs::create_dir(&config.spool.dir).unwrap();
    // The mount is in its own namespace, which ends with the process.
    let mount = format!("mount -t tmpfs -o size=12m none {}", config.spool.dir.display());
    let Some(options) = may_mount(&mount) else {
        eprintln!(
            "NOT TESTED ON A DISK THAT IS FULL: no right to mount one, only on `spool.max_bytes`"
        );
        return;
    };
    let serve = Serve::launch_in(&["unshare", options, "sh"], &config, folder.path(), &mount);
    until("ready", async || serve.is_ready().await).await;
    broker.development().cluster().broker_down(-1).unwrap();
    // Many campaigns: the development broker keeps only 5 MB for each partition.
    let large = |number: usize| {
        let mut body = numbered(&number.to_string(), number);
        body.extend(vec![b' '; 100_000]);
        body
    };
    let mut held = 0;
    let refused = loop {
        let answer = serve.post(large(held)).send().await.unwrap();
        if answer.status() != StatusCode::OK {
            break answer;
        }
        held += 1;
        assert!(held < 200, "12 MB take no more than that");
    };
    assert_eq!(refused.status(), StatusCode::SERVICE_UNAVAILABLE);
    assert!(refused.headers().contains_key("retry-after"));
    assert!(held > 20, "{held}");
    until("not ready", async || !serve.is_ready().await).await;
    assert_eq!(post(&serve, 0).await, StatusCode::SERVICE_UNAVAILABLE);
    assert!(serve.metric("hookbridge_spool_refused_total{reason=\"full\"}").await >= 1.0);
    broker.development().cluster().broker_up(-1).unwrap();
    until("empty", async || serve.metric("hookbridge_spool_events").await == 0.0).await;
    until("working", async || serve.metric("hookbridge_spool_working").await == 1.0).await;
    broker.development().cluster().broker_down(-1).unwrap();
    assert_eq!(post(&serve, held).await, StatusCode::OK);
    broker.development().cluster().broker_up(-1).unwrap();
    until("empty", async || serve.metric("hookbridge_spool_events").await == 0.0).await;
    let there = count(&broker.addresses(), &config.webhook[0].topic);
    let there = delivered(&config, usize::try_from(there).unwrap());
    assert!((0..=held).all(|number| there.contains(&number)), "{there:?}");
    let (code, log) = serve.stop();
    assert_eq!(code, 0, "{log}");
    assert!(!log.contains("panicked"), "{log}");
}

/// The spool's files of these names.
fn files(config: &Config, is_wanted: impl Fn(&str) -> bool) -> Vec<PathBuf> {
    let files = fs::read_dir(&config.spool.dir).unwrap().map(|file| file.unwrap().path());
    files.filter(|path| path.file_name().unwrap().to_str().is_some_and(&is_wanted)).collect()
}

/// How many events were last noted: the second number of the last note.
fn noted(config: &Config) -> Option<usize> {
    let file = files(config, |name| name.contains(".notes-")).pop()?;
    let notes = fs::read(file).unwrap();
    let number = notes.last_chunk::<12>()?.first_chunk()?;
    Some(u32::from_le_bytes(*number) as usize)
}

/// The damage is what a crash, a bad disk or a person may cause.
#[tokio::test]
async fn damaged_spools_are_set_aside_and_salvaged() {
    const EVENTS: usize = 300;
    type Damage = fn(&mut Vec<u8>);
    // Name, damage, events that may be lost, and whether the damage is certain to be noticed.
    let damages: [(&str, Damage, usize, bool); 6] = [
        (
            "a flipped bit in an event",
            |file| {
                let place = memchr::memmem::find(file, b"\"relid\":\"150\"").unwrap();
                file[place + 3] ^= 4;
            },
            1,
            true,
        ),
        ("a flipped bit in the header", |file| file[20] ^= 1, 0, true),
        ("a page of zeros", |file| file[..4_096].fill(0), 20, true),
        (
            "a torn last write",
            |file| {
                let end = file.iter().rposition(|byte| *byte != 0).unwrap();
                file[end - 3_000..].fill(0);
            },
            20,
            false,
        ),
        ("half of the file", |file| file.truncate(file.len() / 2), EVENTS, true),
        ("an empty file", Vec::clear, EVENTS, true),
    ];
    for (what, damage, lost_max, is_noticed) in damages {
        let broker = Broker::embedded();
        let folder = tempfile::tempdir().unwrap();
        let config = spooling(&broker, folder.path());
        broker.create_topic(&config.webhook[0].topic, 3).await;
        let serve = Serve::launch(&config, folder.path(), "true");
        until("ready", async || serve.is_ready().await).await;
        broker.development().cluster().broker_down(-1).unwrap();
        for number in 0..EVENTS {
            assert_eq!(post(&serve, number).await, StatusCode::OK);
        }
        // Once a second it notes how many events there are, so that they are missed where the file is cut off.
        until("all are noted", async || noted(&config) == Some(EVENTS)).await;
        serve.signal("KILL");
        serve.end();
        let [path] = &files(&config, |name| name.ends_with(".waiting"))[..] else {
            panic!("one segment")
        };
        let mut file = fs::read(path).unwrap();
        damage(&mut file);
        fs::write(path, &file).unwrap();
        // Intact bodies are counted in the raw bytes, without knowledge of the store's format.
        let whole = |number: &usize| memchr::memmem::find(&file, &numbered("7", *number)).is_some();
        let readable: BTreeSet<usize> = (0..EVENTS).filter(whole).collect();
        broker.development().cluster().broker_up(-1).unwrap();
        let mut serve = Serve::launch(&config, folder.path(), "true");
        until("ready", async || serve.is_ready().await).await;
        until("empty", async || serve.metric("hookbridge_spool_events").await == 0.0).await;
        let there = count(&broker.addresses(), &config.webhook[0].topic);
        let there = delivered(&config, usize::try_from(there).unwrap());
        // One body may be intact while the rest of its entry is damaged.
        assert!(there.len() + 1 >= readable.len(), "{what}: {} of {}", there.len(), readable.len());
        let missing = EVENTS - there.len();
        assert!(missing <= lost_max, "{what}: only {}", there.len());
        assert!(there.iter().all(|number| *number < EVENTS), "{what}");
        let lost = serve.metric("hookbridge_spool_lost_events_total").await;
        if is_noticed {
            assert!(serve.has_logged("The spool was damaged"), "{what}");
            assert_eq!(serve.metric("hookbridge_spool_damages_total").await, 1.0, "{what}");
            assert_eq!(files(&config, |name| name.starts_with("damaged-")).len(), 1, "{what}");
            assert!(lost > 0.0 || missing == 0, "{what}");
        }
        if lost_max < EVENTS && is_noticed {
            assert_eq!(lost, missing as f64, "{what}");
        }
        assert!(lost <= missing as f64, "{what}");
        let before = count(&broker.addresses(), &config.webhook[0].topic);
        assert_eq!(post(&serve, EVENTS).await, StatusCode::OK, "{what}");
        until("on", async || count(&broker.addresses(), &config.webhook[0].topic) > before).await;
        let (code, log) = serve.stop();
        assert_eq!(code, 0, "{what}: {log}");
    }
}
