//! The cost of the spool alone: events per second with group commit, CPU and bytes written for each
//! event, and reading it back; then the disk that events of other sizes take, all of them and when one in twelve is
//! left. `cargo bench --bench spool`.
#![expect(clippy::expect_used, reason = "a measurement that cannot be made has failed")]

use std::net::Ipv4Addr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use hookbridge::click::auth::{Key, Restrictions, hash_key};
use hookbridge::click::record::{Origin, Record};
use hookbridge::config::{self, Config};
use hookbridge::delivery::spool::Spool;
use hookbridge::observe::health::Health;
use hookbridge::observe::metrics::Metrics;
use jiff::Timestamp;
use tokio::time::Instant;

/// The number of senders, each of which waits until its event is on disk.
const SENDERS: usize = 256;
const EVENTS: usize = 400_000;
// Another number: `cargo bench --bench spool -- 6000000` for 4 GiB.

/// The lengths of other events, and how many bytes of each are written.
const LENGTHS: [usize; 5] = [500, 2_700, 20_000, 200_000, 1_000_000];
const BYTES: usize = 200 << 20;

fn main() {
    let events = std::env::args().find_map(|argument| argument.parse().ok()).unwrap_or(EVENTS);
    let folder = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).expect("a folder");
    let settings = config::SpoolSettings { dir: folder.path().into(), max_bytes: 1 << 40 };
    let metrics = Metrics::new(&["bench"], &["bench"]).expect("metrics").spool;
    let health = Arc::new(Health::default());
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.expect("a runtime");
    let opened = Spool::open(&settings, 1 << 20, metrics, health, Duration::ZERO);
    let (spool, writer) = runtime.block_on(opened).expect("a spool");
    let records: Arc<Vec<Record>> = Arc::new((0..1_000).map(record).collect());

    let start = Usage::now();
    runtime.block_on(async {
        let senders = (0..SENDERS).map(|sender| {
            let (spool, records) = (spool.clone(), records.clone());
            tokio::spawn(async move {
                for number in 0..events / SENDERS {
                    let record = &records[(sender + number * 7) % records.len()];
                    spool.put(spool.position(record), record).await.expect("on disk");
                }
            })
        });
        for sender in senders.collect::<Vec<_>>() {
            sender.await.expect("a sender");
        }
    });
    start.report("written", events / SENDERS * SENDERS, folder.path());

    let start = Usage::now();
    let mut drained = 0;
    runtime.block_on(async {
        while let Some(events) = spool.read(0).await.filter(|events| !events.is_empty()) {
            drained += events.len();
            events.iter().for_each(|event| spool.remove(event.position));
        }
    });
    writer.close();
    start.report("drained", drained, folder.path());
    drop(folder);
    LENGTHS.iter().for_each(|length| runtime.block_on(disk(*length)));
}

/// Bytes on disk for each byte of the events that wait, beside the reserve.
async fn disk(length: usize) {
    let folder = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).expect("a folder");
    // As large as it is filled.
    let settings = config::SpoolSettings { dir: folder.path().into(), max_bytes: 4 << 30 };
    let metrics = Metrics::new(&["bench"], &["bench"]).expect("metrics").spool;
    let health = Arc::new(Health::default());
    let opened = Spool::open(&settings, 2 << 20, metrics.clone(), health, Duration::ZERO);
    let (spool, writer) = opened.await.expect("a spool");
    let record = of_length(length);
    for _ in 0..BYTES / length / 32 {
        let puts = (0..32).map(|_| spool.put(spool.position(&record), &record));
        futures_util::future::try_join_all(puts).await.expect("on disk");
    }
    let share = || {
        let files =
            std::fs::read_dir(folder.path()).expect("a folder").map(|file| file.expect("a file"));
        let files = files.filter(|file| file.file_name() != "reserve");
        let size: u64 = files.map(|file| size(&file.path())).sum();
        size as f64 / metrics.bytes.get() as f64
    };
    let full = share();
    let (mut from, mut number) = (0, 0);
    while let Some(events) = spool.read(from).await.filter(|events| !events.is_empty()) {
        for event in events {
            from = event.position.sequence() + 1;
            number += 1;
            if number % 12 > 0 {
                spool.remove(event.position);
            }
        }
    }
    // A read is answered after the removals before it.
    let sparse = async || {
        spool.read(u64::MAX).await.expect("a disk that works");
        share()
    };
    for _ in 0..200 {
        spool.read(u64::MAX).await.expect("a disk that works");
    }
    println!(
        "events of {length} bytes: {full:.2} on disk for each byte; {:.2} when one in twelve is left",
        sparse().await
    );
    writer.close();
}

/// An event of about this length.
fn of_length(length: usize) -> Record {
    let body = format!(r#"{{"campid":"7","text":"{}"}}"#, "x".repeat(length.saturating_sub(250)));
    record_of(body)
}

/// A click with all its headers.
fn record(number: usize) -> Record {
    record_of(format!(
        r#"{{"type":"Email marketing","event":"click","campid":"{number}","relid":"123","cityName":"Bogota","regionName":"Distrito Capital de Bogota","countryName":"Colombia","latitude":4.60971,"longitude":-74.081749,"device_type":"mobile","browser":"Chrome","timestamp":"2026-11-23 17:07:31","email":"test@testdomain.com","campaignName":"Test campaign name","subject":"Test campaign subject","contactId":"112528991","destination":"https://www.testdomain.com/"}}"#
    ))
}

fn record_of(body: String) -> Record {
    let webhook = Config::default().webhooks().expect("a webhook").remove(0);
    let key = Key::new("opptima", hash_key(b"key"), Restrictions::default());
    let caller = key.admit("", Ipv4Addr::LOCALHOST.into(), Timestamp::now()).expect("a caller");
    let body = Bytes::from(body);
    let event = webhook.shape.decode(&body).expect("an event");
    Origin::new(&webhook, &caller, None, Timestamp::now()).record(event, &body)
}

/// The resources that this process has used.
struct Usage {
    time: Instant,
    cpu: Duration,
    written: u64,
}

impl Usage {
    fn now() -> Usage {
        let stat = std::fs::read_to_string("/proc/self/stat").expect("/proc");
        let fields: Vec<&str> = stat.rsplit(')').next().unwrap_or("").split_whitespace().collect();
        let ticks = |index: usize| fields[index].parse::<u64>().expect("a number");
        let io = std::fs::read_to_string("/proc/self/io").expect("/proc");
        let written = io.lines().find_map(|line| line.strip_prefix("write_bytes: "));
        Usage {
            time: Instant::now(),
            // Linux counts 100 ticks a second.
            cpu: Duration::from_millis(10 * (ticks(11) + ticks(12))),
            written: written.expect("a number").parse().expect("a number"),
        }
    }

    fn report(&self, what: &str, events: usize, folder: &Path) {
        let end = Usage::now();
        let each = |total: f64| total / events as f64;
        let status = std::fs::read_to_string("/proc/self/status").expect("/proc");
        let memory = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).expect("a number");
        let files = std::fs::read_dir(folder).expect("a folder");
        let size: u64 = files.map(|file| size(&file.expect("a file").path())).sum();
        println!(
            "{what} {events} events: {:.0}/s, {:.1} us of CPU and {:.0} bytes written for each; \
             {} KiB on disk, at most {} of memory",
            events as f64 / end.time.duration_since(self.time).as_secs_f64(),
            each((end.cpu - self.cpu).as_secs_f64() * 1e6),
            each((end.written - self.written) as f64),
            size / 1_024,
            memory.trim(),
        );
    }
}

fn size(file: &Path) -> u64 {
    use std::os::unix::fs::MetadataExt;
    std::fs::metadata(file).map_or(0, |file| file.blocks() * 512)
}
