//! The cost of the spool alone: events per second with group commit, CPU and bytes written for each
//! event, and reading it back. `cargo bench --bench spool`.
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

fn main() {
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
                for number in 0..EVENTS / SENDERS {
                    let record = &records[(sender + number * 7) % records.len()];
                    spool.put(spool.position(record), record).await.expect("on disk");
                }
            })
        });
        for sender in senders.collect::<Vec<_>>() {
            sender.await.expect("a sender");
        }
    });
    start.report("written", EVENTS / SENDERS * SENDERS, folder.path());

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
}

/// A click with all its headers.
fn record(number: usize) -> Record {
    let webhook = Config::default().webhooks().expect("a webhook").remove(0);
    let key = Key::new("opptima", hash_key(b"key"), Restrictions::default());
    let caller = key.admit("", Ipv4Addr::LOCALHOST.into(), Timestamp::now()).expect("a caller");
    let body = format!(
        r#"{{"type":"Email marketing","event":"click","campid":"{number}","relid":"123","cityName":"Bogota","regionName":"Distrito Capital de Bogota","countryName":"Colombia","latitude":4.60971,"longitude":-74.081749,"device_type":"mobile","browser":"Chrome","timestamp":"2026-11-23 17:07:31","email":"test@testdomain.com","campaignName":"Test campaign name","subject":"Test campaign subject","contactId":"112528991","destination":"https://www.testdomain.com/"}}"#
    );
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
        let files = std::fs::read_dir(folder).expect("a folder");
        let size: u64 = files.map(|file| size(&file.expect("a file").path())).sum();
        println!(
            "{what} {events} events: {:.0}/s, {:.1} us of CPU and {:.0} bytes written for each; \
             {} KiB on disk",
            events as f64 / end.time.duration_since(self.time).as_secs_f64(),
            each((end.cpu - self.cpu).as_secs_f64() * 1e6),
            each((end.written - self.written) as f64),
            size / 1_024,
        );
    }
}

fn size(file: &Path) -> u64 {
    use std::os::unix::fs::MetadataExt;
    std::fs::metadata(file).map_or(0, |file| file.blocks() * 512)
}
