//! The proof in the field: the image, the chart and docker-compose.yml on a real engine and a real cluster.
//!
//! `.ci/cluster` makes both from packages and runs it. By hand:
//!
//! - `cargo test --test cluster -- kubernetes` on the cluster that `kubectl` is set to (kind, or one of yours)
//!   with the images `hookbridge:0.1.0` (or `HOOKBRIDGE_IMAGE`) and `apache/kafka:4.1.1` on its nodes, storage
//!   of a default class, the metrics API, network policies that are enforced, and the right to run a privileged
//!   pod. It wants `docker`, `kubectl`, `helm` and `curl`, makes the namespace `clicks`, and leaves it there.
//! - `cargo test --test cluster -- compose` on the Docker engine, with the ports of docker-compose.yml free.
//!   `HOOKBRIDGE_COMPOSE` names the program, otherwise it is `docker compose`.
//!
//! Further arguments are the names of the only steps to run. Each prints a line of a table: clicks sent,
//! answered 200, in Kafka, lost (answered 200, not in Kafka), in Kafka twice, and the slowest answer. The exit
//! code is 1 if a step does not show what it should; the next steps run all the same.
//!
//! `pages.rs` takes commands from the pages, `load.rs` sends and counts, `kube.rs` is the cluster, `command.rs`
//! runs programs. The steps are in `operating.rs`, `replacing.rs`, `failing.rs` and `compose.rs`.

mod command;
mod compose;
mod failing;
mod kube;
mod load;
mod operating;
mod pages;
mod replacing;

use std::env;
use std::process::ExitCode;
use std::time::Instant;

use command::Result;
use compose::Composition;
use kube::Cluster;
use load::Row;

/// A step of the proof, with its name.
type Step<T> = (&'static str, fn(&T) -> Result<Row>);

const KUBERNETES: [Step<Cluster>; 18] = [
    ("install", operating::install),
    ("helm test", operating::helm_test),
    ("policies", operating::policies),
    ("rolling restart", replacing::rolling_restart),
    ("rolling restart, Kafka away", replacing::rolling_restart_without_kafka),
    ("upgrade", replacing::upgrade),
    ("upgrade, Kafka away", replacing::upgrade_without_kafka),
    ("scaled up", replacing::scaled_up),
    ("scaled down, Kafka away", replacing::scaled_down_without_kafka),
    ("evictions", replacing::evictions),
    ("pod killed, Kafka away", failing::pod_killed_without_kafka),
    ("pod hangs", failing::pod_hangs),
    ("broker restarts", failing::broker_restarts),
    ("keys changed", operating::keys_changed),
    ("certificate changed", operating::certificate_changed),
    ("autoscaler switched on", replacing::autoscaler_switched_on),
    ("autoscaler by CPU", replacing::autoscaler_by_cpu),
    ("reinstalled", operating::reinstalled),
];

const COMPOSE: [Step<Composition>; 5] = [
    ("up", compose::up),
    ("Prometheus", compose::prometheus),
    ("Kafka stopped, bridge killed", compose::kafka_stopped_and_bridge_killed),
    ("stop", compose::stop),
    ("down and up", compose::down_and_up),
];

fn main() -> ExitCode {
    let mut arguments = env::args().skip(1);
    let (what, only) = (arguments.next().unwrap_or_default(), arguments.collect::<Vec<_>>());
    let all_passed = match &*what {
        "kubernetes" => {
            Cluster::open().and_then(|cluster| run(&KUBERNETES, &cluster, Cluster::restore, &only))
        }
        "compose" => {
            Composition::open().and_then(|compose| run(&COMPOSE, &compose, |_| Ok(()), &only))
        }
        _ => Err("say what to prove: kubernetes or compose".into()),
    };
    match all_passed {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}

/// Runs the steps and prints the table. A step that failed leaves the place for `restore` to put right. Whether all
/// of them passed.
fn run<T>(
    steps: &[Step<T>],
    place: &T,
    restore: fn(&T) -> Result<()>,
    only: &[String],
) -> Result<bool> {
    let mut failed = Vec::new();
    println!("| step | sent | answered 200 | in Kafka | lost | twice | slowest | |");
    println!("| --- | --- | --- | --- | --- | --- | --- | --- |");
    let is_wanted = |name: &str| only.is_empty() || only.iter().any(|only| only == name);
    for (name, step) in steps.iter().filter(|(name, _)| is_wanted(name)) {
        let start = Instant::now();
        match step(place) {
            Ok(row) => println!("| {name} | {row} |"),
            Err(error) => {
                println!("| {name} | FAILED: {} |", error.to_string().replace('\n', " "));
                failed.push(*name);
                if let Err(error) = restore(place) {
                    eprintln!("after {name}: {error}");
                }
            }
        }
        eprintln!("{name}: {} s", start.elapsed().as_secs());
    }
    if !failed.is_empty() {
        println!("\nfailed: {}", failed.join(", "));
    }
    Ok(failed.is_empty())
}
