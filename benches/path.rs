//! The instructions and allocations of a click: figures without noise, each with a limit.
//! `cargo bench --bench path` fails when a limit is exceeded.
//!
//! Callgrind (valgrind must be installed) counts the instructions of each pure step from bytes to record.
//! Allocations are those of a whole bridge on the development broker, beyond those of a bare hyper
//! server for the same requests.
#![expect(clippy::expect_used, reason = "a measurement that cannot be made has failed")]

#[path = "click/bare.rs"]
#[expect(dead_code, reason = "the other benchmark starts it as a process")]
mod bare;
#[path = "click/load.rs"]
#[expect(dead_code, reason = "the other benchmark needs more of it")]
mod load;
#[path = "../tests/it/harness/ports.rs"]
mod ports;

use std::alloc::System;
use std::hint::black_box;
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::process::{Command, ExitCode};
use std::time::Duration;

use bytes::Bytes;
use hookbridge::bridge::{Listeners, run};
use hookbridge::click::auth::{Caller, Claim, Key, Keys, Restrictions, hash_key};
use hookbridge::click::record::{Origin, Record};
use hookbridge::click::webhook::Webhook;
use hookbridge::config::{Config, Secret};
use hookbridge::kafka::DevelopmentBroker;
use hyper::header::{AUTHORIZATION, HeaderMap, HeaderValue};
use jiff::Timestamp;
use stats_alloc::{INSTRUMENTED_SYSTEM, StatsAlloc};
use tokio::sync::oneshot;

/// Counts the allocations of Rust code; those of the Kafka client, which is C, are not counted.
#[global_allocator]
static ALLOCATOR: &StatsAlloc<System> = &INSTRUMENTED_SYSTEM;

const KEY: &str = "a-key-of-the-bench";

/// The steps, and the limit of instructions of each for one click: 5 % above the measurement. Valgrind
/// has no SHA-256 instructions, so the two steps that hash seem more expensive than they are.
const STEPS: [(&str, u64); 4] =
    [("authenticate", 4_600), ("decode", 10_100), ("record", 39_700), ("headers", 1_160)];

/// How many allocations more than a bare server the bridge may make for a click.
const ALLOCATIONS_MAX: f64 = 1.0;

/// The clicks to count allocations for, after as many to warm up.
const CLICKS: usize = 20_000;

/// Two lengths of a run: their difference excludes start and end.
const FEW: u64 = 100;
const MANY: u64 = 1_100;

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match arguments.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        [step, times] if times.parse::<u64>().is_ok() => {
            repeat(step, times.parse().expect("a number"));
            ExitCode::SUCCESS
        }
        _ => report(),
    }
}

/// Prints every figure. Fails when one exceeds its limit.
fn report() -> ExitCode {
    let mut is_within = true;
    let mut line = |name: &str, figure: f64, unit: &str, limit: f64| {
        let verdict = if figure <= limit { "" } else { "  OVER ITS LIMIT" };
        println!("{name:<14}{figure:>10.1} {unit} per click, at most {limit}{verdict}");
        is_within &= figure <= limit;
    };
    for (step, limit) in STEPS {
        let each = (instructions(step, MANY) - instructions(step, FEW)) / (MANY - FEW);
        line(step, each as f64, "instructions", limit as f64);
    }
    let [of_bare, of_bridge] = allocations();
    println!("{:<14}{of_bare:>10.1} allocations per click", "bare server");
    line("bridge", of_bridge, "allocations", of_bare.round() + ALLOCATIONS_MAX);
    if is_within { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// Counts the instructions of this program with this many repetitions of a step.
fn instructions(step: &str, times: u64) -> u64 {
    let program = std::env::current_exe().expect("this program");
    let output = Command::new("valgrind")
        .args(["--tool=callgrind", "--callgrind-out-file=/dev/null"])
        .arg(program)
        .args([step, &times.to_string()])
        .output()
        .expect("valgrind, to be installed");
    let text = String::from_utf8_lossy(&output.stderr);
    let count = text.lines().find_map(|line| line.split("Collected : ").nth(1));
    count.expect("callgrind's count").trim().parse().expect("a number")
}

/// The input of the steps.
struct Click {
    keys: Keys,
    headers: HeaderMap,
    webhook: Webhook,
    body: Bytes,
    received: Timestamp,
}

impl Click {
    fn new() -> Click {
        let mut headers = HeaderMap::new();
        headers.insert(AUTHORIZATION, HeaderValue::from_static("Bearer a-key-of-the-bench"));
        Click {
            keys: Keys::new([Key::new(
                "opptima",
                hash_key(KEY.as_bytes()),
                Restrictions::default(),
            )]),
            headers,
            webhook: Config::default().webhooks().expect("a webhook").remove(0),
            body: load::requests(1, 0)[0].clone(),
            received: "2026-11-24T12:00:00.123Z".parse().expect("a time"),
        }
    }

    fn caller(&self) -> Caller {
        let claim =
            self.webhook.auth_scheme.claim(&self.headers, &self.webhook.path, self.received);
        let Ok(Claim::Key(hash)) = claim else { unreachable!("a bearer key is a key") };
        let key = self.keys.find(&hash).expect("a key");
        let (webhook, peer) = (&self.webhook.route.webhook, Ipv4Addr::LOCALHOST.into());
        key.admit(webhook, peer, self.received).expect("a caller")
    }

    fn record(&self, caller: &Caller) -> Record {
        let event = self.webhook.shape.decode(&self.body).expect("an event");
        Origin::new(&self.webhook, caller, None, self.received).record(event, &self.body)
    }
}

fn repeat(step: &str, times: u64) {
    let click = Click::new();
    let caller = click.caller();
    let record = click.record(&caller);
    for _ in 0..times {
        match step {
            "authenticate" => drop(black_box(black_box(&click).caller())),
            "decode" => {
                let click = black_box(&click);
                let _ = black_box(click.webhook.shape.decode(&click.body));
            }
            // Includes decoding, which makes the event.
            "record" => drop(black_box(black_box(&click).record(&caller))),
            "headers" => black_box(&record).each_header(|name, value| {
                black_box((name, value));
            }),
            other => unreachable!("{other} is no step"),
        }
    }
}

/// The allocations for each click, of a bare server and of the bridge.
fn allocations() -> [f64; 2] {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.expect("a runtime");
    let address = ports::free(Ipv4Addr::LOCALHOST);
    std::thread::spawn(move || bare::serve_on(address));
    let of_bare = runtime.block_on(allocations_of(address));
    let broker = DevelopmentBroker::start(1).expect("a development broker");
    let mut config = Config::default();
    config.kafka.brokers = broker.addresses();
    ports::listen_on_free(&mut config, Ipv4Addr::LOCALHOST);
    config.auth.api_key = Some(Secret::new(KEY));
    let folder = tempfile::tempdir().expect("a folder");
    config.spool.dir = folder.path().to_owned();
    broker.create_topic(&config.webhook[0].topic, 12).expect("a topic");
    let address = config.http.listen;
    let listeners = Listeners::bind(&config).expect("free ports");
    let (stop, stopped) = oneshot::channel::<()>();
    let bridge = std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let stopped = async { drop(stopped.await) };
        runtime
            .expect("a runtime")
            .block_on(run(config, listeners, None, stopped))
            .expect("a bridge")
    });
    let of_bridge = runtime.block_on(allocations_of(address));
    drop(stop);
    bridge.join().expect("the bridge's end");
    [of_bare, of_bridge]
}

async fn allocations_of(server: SocketAddr) -> f64 {
    while TcpStream::connect(server).is_err() {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    let requests = load::requests(1_000, 0);
    let mut connections = load::idle(server, &requests, 16).await;
    connections.exchange(CLICKS).await;
    let before = ALLOCATOR.stats();
    connections.exchange(CLICKS).await;
    let after = ALLOCATOR.stats();
    let more = |count: fn(&stats_alloc::Stats) -> usize| count(&after) - count(&before);
    (more(|stats| stats.allocations) + more(|stats| stats.reallocations)) as f64 / CLICKS as f64
}
