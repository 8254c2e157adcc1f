//! The cost of a click: `cargo bench --bench click`.
//!
//! First at steady rates and in closed loops (`traffic.rs`): CPU of the bridge, of the broker, and both, beside a
//! floor (`floor.rs`) and other programs (`peers.rs`). Then single lines, some beside a bare hyper server
//! (`bare.rs`). What is compared runs in turn, A B A B, each in its own process, under the same load (`load.rs`)
//! and beside the same Apache Kafka. CPU and memory are read from the operating system (`process.rs`). Each line
//! is printed when it is measured, with its goal; `--json FILE` also writes all of them as JSON (`report.rs`).
//!
//! All takes eight minutes; `--rounds N` and `--seconds N` change that, `--long` adds replicas and ten minutes
//! of steady load. A name on the command line measures only the lines that contain it.
#![expect(
    clippy::expect_used,
    clippy::unwrap_used,
    clippy::panic,
    reason = "a measurement that cannot be made has failed"
)]

mod bare;
#[path = "../../tests/it/harness/brokers.rs"]
#[expect(dead_code, reason = "the tests need more of it")]
mod brokers;
mod floor;
#[path = "../../tests/it/harness/haproxy.rs"]
#[expect(dead_code, reason = "the tests need more of it")]
mod haproxy;
mod load;
mod peers;
#[path = "../../tests/it/harness/ports.rs"]
mod ports;
mod process;
mod replicas;
mod report;
mod traffic;

use std::path::{Path, PathBuf};
use std::slice;
use std::time::Duration;

use clap::Parser;
use hookbridge::config::Config;
use hookbridge::load::Bodies;
use tokio::time::{Instant, sleep};

use brokers::{Kafka, count, counts, create_topic, delete_topic, unique};
use load::{Load, Shape, warm_up};
use peers::Peer;
use process::Server;
use report::{Goal, Report};

/// The load's key.
const KEY: &str = "a-key-of-the-bench";

/// The default number of campaigns and of partitions.
const CAMPAIGNS: usize = 1_000;
const PARTITIONS: i32 = 12;

/// The number of idle connections.
const IDLE_CONNECTIONS: usize = 2_000;

/// The steady load of `--long`.
const LONG_MINUTES: usize = 10;

/// The size of a click's body, and of a large one.
const SMALL_BODY: usize = 500;
const LARGE_BODY: usize = 4_096;

/// The metric of events on disk, and how many to spool before they are forwarded.
const SPOOLED: &str = "hookbridge_spool_events";
const DRAINED: u64 = 500_000;
const DRAIN_TIMEOUT: Duration = Duration::from_secs(60);

/// The metric of clicks that were answered from the spool.
const BY_DISK: &str =
    "hookbridge_requests_total{outcome=\"spooled\",webhook=\"email-marketing-click\"}";

/// The largest number of attempts at a measurement.
const ATTEMPTS: usize = 3;

/// An address without a listener.
const NOBODY: &str = "127.0.0.1:1";

/// How long the broker's JIT compiler gets. Before that the broker takes most of the CPU, and batches
/// have few records.
const BROKER_WARM_UP: Duration = Duration::from_secs(20);

const MIB: f64 = (1 << 20) as f64;

#[derive(Parser)]
struct Options {
    /// Measure only lines whose name contains this.
    #[arg(default_value = "")]
    only: String,
    /// How often each is measured.
    #[arg(long, default_value_t = 2)]
    rounds: usize,
    /// The length of a measurement, in seconds.
    #[arg(long, default_value_t = 2)]
    seconds: u64,
    /// Add replicas behind a balancer, and ten minutes of steady load.
    #[arg(long)]
    long: bool,
    /// The file for every figure as JSON.
    #[arg(long)]
    json: Option<PathBuf>,
    /// A file that says how to run another program under the same loads; may be given several times.
    #[arg(long)]
    peer: Vec<PathBuf>,
    /// Cargo adds this argument.
    #[arg(long, hide = true)]
    bench: bool,
}

fn main() {
    // This program also runs the bare server and the floor.
    if std::env::args().nth(1).as_deref() == Some(bare::ARGUMENT) {
        return bare::serve();
    }
    if std::env::args().nth(1).as_deref() == Some(floor::ARGUMENT) {
        return floor::serve();
    }
    process::raise_descriptor_limit();
    let options = Options::parse();
    let kafka = Kafka::start().expect("Java and Maven, for a real Kafka");
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let mut report = Report::new(&options.only);
    let peers = options.peer.iter().map(|file| Peer::read(file)).collect();
    let mut bench = Bench {
        options,
        kafka,
        peers,
        folder: tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).expect("a folder"),
    };
    runtime.expect("a runtime").block_on(bench.measure(&mut report));
    if let Some(file) = &bench.options.json {
        std::fs::write(file, report.json()).expect("the JSON file");
    }
}

struct Bench {
    options: Options,
    kafka: Kafka,
    peers: Vec<Peer>,
    folder: tempfile::TempDir,
}

/// A variant of the bridge or of its load.
#[derive(Clone, Copy)]
struct Case {
    connections: usize,
    campaigns: usize,
    partitions: i32,
    /// Bytes to add to each body.
    more_bytes: usize,
}

const CASE: Case =
    Case { connections: 256, campaigns: CAMPAIGNS, partitions: PARTITIONS, more_bytes: 0 };

/// One measurement under one load.
#[derive(Debug, Clone, Copy)]
struct Cost {
    /// CPU time of all servers for each click.
    cpu_us: f64,
    /// CPU time of the broker for each click.
    broker_cpu_us: f64,
    clicks_per_second: f64,
    p50_ms: f64,
    p99_ms: f64,
    /// Bytes of a click on the broker's disk.
    bytes: f64,
}

impl Cost {
    fn sum_us(&self) -> f64 {
        self.cpu_us + self.broker_cpu_us
    }
}

impl Bench {
    async fn measure(&mut self, report: &mut Report) {
        self.warm_up_broker().await;
        self.traffic(report).await;
        self.spooled(report).await;
        self.drained(report).await;
        self.memory(report).await;
        self.growth(report).await;
        self.scale(report).await;
        self.spread(report).await;
        self.start(report).await;
        if self.options.long && report.wants(&["growth/10 minutes"]) {
            self.long(report).await;
        }
    }

    async fn warm_up_broker(&self) {
        let config = self.config(PARTITIONS).await;
        let server = Server::bridge(&config, self.folder.path()).await;
        let load = Load::closed(server.address, &CASE.requests(), CASE.connections).await;
        sleep(BROKER_WARM_UP).await;
        self.verify(&config, load.stop().await.held).await;
    }

    /// Measures the bare server and the bridge in turn.
    async fn pairs(&self, case: Case) -> Vec<(Cost, Cost)> {
        let mut pairs = Vec::new();
        for _ in 0..self.options.rounds {
            pairs.push((self.bare(case).await, self.bridge(case).await));
        }
        pairs
    }

    async fn bare(&self, case: Case) -> Cost {
        let server = Server::bare().await;
        let load = Load::closed(server.address, &case.requests(), case.connections).await;
        self.cost(slice::from_ref(&server), load).await.0
    }

    async fn bridge(&self, case: Case) -> Cost {
        let config = self.config(case.partitions).await;
        let server = Server::bridge(&config, self.folder.path()).await;
        let requests = Bodies::Given(case.requests());
        let shape = Shape { connections: case.connections, rate: None };
        let time = Duration::from_secs(self.options.seconds);
        let load = || Load::start(&server.url, &requests, shape);
        let cost = self.by_kafka_alone(&config, &server, time, load).await;
        delete_topic(&config.kafka.brokers, &config.webhook[0].topic).await;
        cost
    }

    /// Measures the bridge and verifies that each 200 is in the topic. Repeats the measurement if clicks were
    /// spooled, because the machine paused or the broker still created files of the new topic.
    async fn by_kafka_alone(
        &self,
        config: &Config,
        server: &Server,
        time: Duration,
        start: impl Fn() -> Load,
    ) -> Cost {
        let topic = &config.webhook[0].topic;
        let there = || (count(&config.kafka.brokers, topic), self.kafka.bytes_of(topic));
        let (records_before, bytes_before) = there();
        let mut all_held = 0;
        for _ in 0..ATTEMPTS {
            let load = start();
            warm_up(&load).await;
            all_held += load.stop().await.held;
            drain(server).await;
            let load = start();
            let by_disk = server.metric(BY_DISK).await;
            let (mut cost, held) = self.cost_over(time, slice::from_ref(server), load).await;
            let is_by_kafka_alone = server.metric(BY_DISK).await == by_disk;
            all_held += held;
            drain(server).await;
            if is_by_kafka_alone {
                let (records, bytes) = there();
                let new = u64::try_from(records - records_before);
                assert_eq!(new, Ok(all_held), "records in the topic, clicks answered 200");
                cost.bytes = (bytes - bytes_before) as f64 / all_held as f64;
                return cost;
            }
            eprintln!("clicks went to the disk meanwhile; once more");
        }
        panic!("clicks went to the disk each time");
    }

    /// Warms up and measures. Also returns how many clicks were held in all.
    async fn cost(&self, servers: &[Server], load: Load) -> (Cost, u64) {
        self.cost_over(Duration::from_secs(self.options.seconds), servers, load).await
    }

    async fn cost_over(&self, time: Duration, servers: &[Server], load: Load) -> (Cost, u64) {
        warm_up(&load).await;
        load.time_from_now();
        let of_all = || servers.iter().map(Server::cpu).sum::<Duration>();
        let broker = || process::cpu(self.kafka.pid());
        let (began, held, cpu, broker_cpu) = (Instant::now(), load.held(), of_all(), broker());
        sleep(time).await;
        let clicks = (load.held() - held) as f64;
        let cost = |used: Duration| used.as_secs_f64() * 1e6 / clicks;
        let (cpu_us, broker_cpu_us) = (cost(of_all() - cpu), cost(broker() - broker_cpu));
        let clicks_per_second = clicks / began.elapsed().as_secs_f64();
        let answers = load.stop().await;
        let [p50_ms, p99_ms] =
            [0.5, 0.99].map(|part| answers.latency.value_at_quantile(part) as f64 / 1e3);
        let bytes = f64::NAN;
        let cost = Cost { cpu_us, broker_cpu_us, clicks_per_second, p50_ms, p99_ms, bytes };
        (cost, answers.held)
    }

    /// Settings with a new topic and a new spool.
    async fn config(&self, partitions: i32) -> Config {
        let mut config = Config::default();
        config.kafka.brokers = self.kafka.plaintext();
        config.webhook[0].topic = unique("bench");
        config.spool.dir = self.folder.path().join(&config.webhook[0].topic);
        let topics =
            [(config.webhook[0].topic.clone(), partitions), (config.webhook[0].dead_letters(), 1)];
        for (topic, partitions) in topics {
            create_topic(&config.kafka.brokers, &topic, partitions, 1, &[]).await;
        }
        config
    }

    /// Verifies that each 200 is in the topic, then deletes it, so that the broker's partitions do not
    /// accumulate.
    async fn verify(&self, config: &Config, held: u64) {
        let (brokers, topic) = (&config.kafka.brokers, &config.webhook[0].topic);
        let there = count(brokers, topic);
        assert_eq!(u64::try_from(there), Ok(held), "records in the topic, clicks answered 200");
        delete_topic(brokers, topic).await;
    }

    /// The cost of spooled clicks, during an outage of Kafka.
    async fn spooled(&self, report: &mut Report) {
        let names = ["cpu/spooled", "rate/spooled"];
        if !report.wants(&names) {
            return;
        }
        let mut pairs = Vec::new();
        for _ in 0..self.options.rounds {
            let bare = self.bare(CASE).await;
            let mut config = self.config(PARTITIONS).await;
            config.kafka.brokers = NOBODY.to_owned();
            let server = Server::bridge(&config, self.folder.path()).await;
            let load = Load::closed(server.address, &CASE.requests(), CASE.connections).await;
            let (cost, held) = self.cost(slice::from_ref(&server), load).await;
            assert_eq!(server.metric(SPOOLED).await, held as f64, "events on disk");
            pairs.push((bare, cost));
        }
        report.line(
            names[0],
            "x bare",
            Goal::AtMost { must: 3.0, aim: 2.0 },
            ratios(&pairs, |c| c.cpu_us),
        );
        let rates = ratios(&pairs, |c| c.clicks_per_second);
        report.line(names[1], "x bare", Goal::None, rates);
    }

    /// The cost of forwarding the spool after an outage.
    async fn drained(&self, report: &mut Report) {
        let name = "rate/drained";
        if !report.wants(&[name]) {
            return;
        }
        let mut rates = Vec::new();
        for _ in 0..self.options.rounds {
            let config = self.config(PARTITIONS).await;
            let mut away = config.clone();
            away.kafka.brokers = NOBODY.to_owned();
            let server = Server::bridge(&away, self.folder.path()).await;
            let load = Load::closed(server.address, &CASE.requests(), CASE.connections).await;
            while load.held() < DRAINED {
                sleep(process::LOOK_INTERVAL).await;
            }
            let held = load.stop().await.held;
            drop(server);
            let server = Server::bridge(&config, self.folder.path()).await;
            let (began, first) = (Instant::now(), server.metric(SPOOLED).await);
            drain(&server).await;
            rates.push(first / began.elapsed().as_secs_f64());
            self.verify(&config, held).await;
        }
        let goal = Goal::AtLeast { must: 50_000.0, aim: 80_000.0 };
        report.line(name, "events/s", goal, rates);
    }

    async fn memory(&self, report: &mut Report) {
        let names = ["memory/idle", "memory/1,024 busy", "memory/idle connection"];
        if !report.wants(&names) {
            return;
        }
        let (mut idle, mut busy, mut each) = (vec![], vec![], vec![]);
        for _ in 0..self.options.rounds {
            let config = self.config(PARTITIONS).await;
            let server = Server::bridge(&config, self.folder.path()).await;
            let at_rest = server.resident() as f64;
            let connections = load::idle(server.address, &CASE.requests(), IDLE_CONNECTIONS).await;
            let more = server.resident() as f64 - at_rest;
            drop((connections, server));
            let server = Server::bridge(&config, self.folder.path()).await;
            let load = Load::closed(server.address, &CASE.requests(), 1_024).await;
            sleep(Duration::from_secs(self.options.seconds)).await;
            busy.push(server.resident() as f64 / MIB);
            load.stop().await;
            idle.push(at_rest / MIB);
            each.push(more / IDLE_CONNECTIONS as f64 / 1_024.0);
        }
        report.line(names[0], "MiB", Goal::AtMost { must: 20.0, aim: 12.0 }, idle);
        report.line(names[1], "MiB", Goal::AtMost { must: 60.0, aim: 40.0 }, busy);
        report.line(names[2], "KiB", Goal::AtMost { must: 10.0, aim: 5.0 }, each);
    }

    /// The cost of a click with more partitions, campaigns or bytes, relative to the default.
    async fn growth(&self, report: &mut Report) {
        let goal = Goal::AtMost { must: 1.15, aim: 1.05 };
        for (name, few, many) in [
            ("growth/12 to 120 partitions", CASE, Case { partitions: 120, ..CASE }),
            (
                "growth/1 to 100,000 campaigns",
                Case { campaigns: 1, ..CASE },
                Case { campaigns: 100_000, ..CASE },
            ),
        ] {
            if !report.wants(&[name]) {
                continue;
            }
            let mut pairs = Vec::new();
            for _ in 0..self.options.rounds {
                pairs.push((self.bridge(few).await, self.bridge(many).await));
            }
            report.line(name, "x", goal, ratios(&pairs, |c| c.cpu_us));
        }
        let name = "growth/4 KiB bodies";
        if report.wants(&[name]) {
            let large = Case { more_bytes: LARGE_BODY - SMALL_BODY, ..CASE };
            let (small, large) = (self.pairs(CASE).await, self.pairs(large).await);
            let growth =
                small.iter().zip(&large).map(|((bare, bridge), (large_bare, large_bridge))| {
                    (large_bridge.cpu_us / bridge.cpu_us) / (large_bare.cpu_us / bare.cpu_us)
                });
            report.line(name, "x bare's own", goal, growth.collect());
        }
    }

    /// The load of the busiest partition with many equal campaigns, relative to the average. It is as even
    /// as a hash makes so many keys, and it must be Java's hash.
    async fn spread(&self, report: &mut Report) {
        for (name, campaigns) in
            [("spread/1,000 campaigns", 1_000), ("spread/10,000 campaigns", 10_000)]
        {
            if !report.wants(&[name]) {
                continue;
            }
            let config = self.config(PARTITIONS).await;
            let server = Server::bridge(&config, self.folder.path()).await;
            let requests = Case { campaigns, ..CASE }.requests();
            let load = Load::closed(server.address, &requests, CASE.connections).await;
            let held = self.cost(slice::from_ref(&server), load).await.1;
            assert!(held > 4 * campaigns as u64, "{held} clicks are too few");
            let each = counts(&config.kafka.brokers, &config.webhook[0].topic);
            let busiest = *each.iter().max().expect("partitions") as f64;
            let even = held as f64 / each.len() as f64;
            report.line(name, "x even share", Goal::None, vec![busiest / even]);
        }
    }

    async fn start(&self, report: &mut Report) {
        if report.wants(&["start to ready"]) {
            let mut times = Vec::new();
            let config = self.config(PARTITIONS).await;
            for _ in 0..3 * self.options.rounds {
                let server = Server::bridge(&config, self.folder.path()).await;
                times.push(server.start_time.as_secs_f64() * 1e3);
            }
            report.line("start to ready", "ms", Goal::AtMost { must: 300.0, aim: 100.0 }, times);
        }
        if report.wants(&["binary"]) {
            // Of this build's program the crates have features that only tests need.
            let built = Path::new(env!("CARGO_BIN_EXE_hookbridge"));
            match std::fs::metadata(built.with_file_name("../dist/hookbridge")) {
                Ok(shipped) => {
                    let size = shipped.len() as f64 / MIB;
                    let goal = Goal::AtMost { must: 15.0, aim: 10.0 };
                    report.line("binary", "MiB", goal, vec![size]);
                }
                Err(_) => eprintln!("binary: deploy/dist has not built what is shipped"),
            }
        }
    }

    /// The cost of each minute, relative to the first.
    async fn long(&self, report: &mut Report) {
        let config = self.config(PARTITIONS).await;
        let server = Server::bridge(&config, self.folder.path()).await;
        let load = Load::closed(server.address, &CASE.requests(), CASE.connections).await;
        warm_up(&load).await;
        let mut minutes = Vec::new();
        for _ in 0..LONG_MINUTES {
            let (held, cpu) = (load.held(), server.cpu());
            sleep(Duration::from_secs(60)).await;
            minutes.push((server.cpu() - cpu).as_secs_f64() / (load.held() - held) as f64);
        }
        self.verify(&config, load.stop().await.held).await;
        let growth = minutes.iter().map(|minute| minute / minutes[0]).collect();
        report.line(
            "growth/10 minutes",
            "x first minute",
            Goal::AtMost { must: 1.15, aim: 1.05 },
            growth,
        );
    }
}

/// Waits until the spool is empty.
async fn drain(server: &Server) {
    let deadline = Instant::now() + DRAIN_TIMEOUT;
    while server.metric(SPOOLED).await > 0.0 {
        assert!(Instant::now() < deadline, "the disk does not get empty");
        sleep(process::LOOK_INTERVAL).await;
    }
}

impl Case {
    fn requests(&self) -> load::Requests {
        load::requests(self.campaigns, self.more_bytes)
    }
}

/// The second figure of each pair divided by the first.
fn ratios(pairs: &[(Cost, Cost)], figure: impl Fn(&Cost) -> f64) -> Vec<f64> {
    pairs.iter().map(|(one, other)| figure(other) / figure(one)).collect()
}
