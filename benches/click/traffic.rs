//! The cost of a click at steady rates and in closed loops: CPU of the bridge, of the broker, and both, beside
//! the floor (`floor.rs`) and other programs (`peers.rs`), in turn.

use std::slice;
use std::time::Duration;

use hookbridge::config::Config;
use hookbridge::load::{Bodies, Clicks};
use tokio::time::{Instant, sleep};

use crate::brokers::{count, delete_topic, unique};
use crate::load::{Load, Shape};
use crate::peers::Peer;
use crate::process::{LOOK_INTERVAL, Server};
use crate::report::{Goal, Report};
use crate::{Bench, CAMPAIGNS, Cost, PARTITIONS};

/// The connections of a steady rate: so many that most of them wait for their next click.
const OPEN_CONNECTIONS: usize = 512;

/// Fewer clicks a second are measured for several times as long, because CPU is counted in steps of 10 ms.
const SLOW_RATE: u32 = 1_000;
const SLOW_TIMES: u32 = 3;

/// How long the last records of a program that answers earlier may take to be in the topic.
const RECORDS_TIMEOUT: Duration = Duration::from_secs(10);

const MANY_PARTITIONS: i32 = 120;

/// The load of a new topic.
const FIRST: Shape = Shape { connections: 256, rate: None };

/// A load and its lines in the report.
struct Traffic {
    name: &'static str,
    shape: Shape,
    partitions: i32,
    /// The fewest clicks a second.
    least: Option<f64>,
}

const fn steady(name: &'static str, rate: u32) -> Traffic {
    let shape = Shape { connections: OPEN_CONNECTIONS, rate: Some(rate) };
    Traffic { name, shape, partitions: PARTITIONS, least: None }
}

const fn closed(name: &'static str, connections: usize) -> Traffic {
    let shape = Shape { connections, rate: None };
    Traffic { name, shape, partitions: PARTITIONS, least: None }
}

const ALL: [Traffic; 11] = [
    steady("steady/100", 100),
    steady("steady/1,000", 1_000),
    steady("steady/5,000", 5_000),
    steady("steady/20,000", 20_000),
    Traffic { partitions: MANY_PARTITIONS, ..steady("steady/1,000, 120 partitions", 1_000) },
    Traffic { least: Some(500.0), ..closed("closed/1", 1) },
    Traffic { least: Some(4_000.0), ..closed("closed/8", 8) },
    closed("closed/16", 16),
    closed("closed/64", 64),
    closed("closed/256", 256),
    closed("closed/1,024", 1_024),
];

/// What one program took under one load, in each round.
struct Rounds {
    program: String,
    costs: Vec<Cost>,
}

impl Bench {
    pub async fn traffic(&self, report: &mut Report) {
        for traffic in &ALL {
            if !report.wants(&[traffic.name]) {
                continue;
            }
            let programs = ["hookbridge", "floor"].map(str::to_owned).into_iter();
            let programs = programs.chain(self.peers.iter().map(|peer| peer.name.clone()));
            let mut all: Vec<_> =
                programs.map(|program| Rounds { program, costs: Vec::new() }).collect();
            // One topic for all of them, which has had records before: a broker makes a new one while it is used.
            let mut config = self.config(traffic.partitions).await;
            self.of_bridge(&Traffic { shape: FIRST, ..*traffic }, &mut config).await;
            for _ in 0..self.options.rounds {
                let ours = self.of_bridge(traffic, &mut config).await;
                all[0].costs.push(ours);
                let rate = Some(ours.clicks_per_second as u32);
                // The floor answers at once, so that its own closed loop would be another load.
                let as_much = Traffic { shape: Shape { rate, ..traffic.shape }, ..*traffic };
                all[1].costs.push(self.of_other(&as_much, &config, None).await);
                for (peer, rounds) in self.peers.iter().zip(&mut all[2..]) {
                    rounds.costs.push(self.of_other(traffic, &config, Some(peer)).await);
                }
            }
            delete_topic(&config.kafka.brokers, &config.webhook[0].topic).await;
            let floor = all[1].costs.clone();
            for Rounds { program, costs } in &all {
                report.traffic(traffic.name, program, costs, &floor);
            }
            if let Some(least) = traffic.least {
                let rates = all[0].costs.iter().map(|cost| cost.clicks_per_second).collect();
                let goal = Goal::AtLeast { must: least, aim: least };
                report.line(traffic.name, "clicks/s", goal, rates);
            }
        }
    }

    async fn of_bridge(&self, traffic: &Traffic, config: &mut Config) -> Cost {
        config.spool.dir = self.folder.path().join(unique("spool"));
        let server = Server::bridge(config, self.folder.path()).await;
        let load = || Load::start(&server.url, &bodies(), traffic.shape);
        self.by_kafka_alone(config, &server, traffic.time(self), load).await
    }

    /// A peer, or the floor.
    async fn of_other(&self, traffic: &Traffic, config: &Config, peer: Option<&Peer>) -> Cost {
        let (brokers, topic) = (&config.kafka.brokers, &config.webhook[0].topic);
        let records = || count(brokers, topic);
        let (records_before, bytes_before) = (records(), self.kafka.bytes_of(topic));
        let server = match peer {
            Some(peer) => Server::peer(peer, brokers, topic, self.folder.path()).await,
            None => Server::floor(brokers, topic).await,
        };
        let load = Load::start(&server.url, &bodies(), traffic.shape);
        let time = traffic.time(self);
        let (mut cost, held) = self.cost_over(time, slice::from_ref(&server), load).await;
        // Whoever writes nothing is cheap.
        let deadline = Instant::now() + RECORDS_TIMEOUT;
        let new = || records() - records_before;
        while u64::try_from(new()).is_ok_and(|new| new < held) {
            assert!(Instant::now() < deadline, "{} of {held} clicks in the topic", new());
            sleep(LOOK_INTERVAL).await;
        }
        cost.bytes = (self.kafka.bytes_of(topic) - bytes_before) as f64 / new() as f64;
        cost
    }
}

impl Traffic {
    fn time(&self, bench: &Bench) -> Duration {
        let is_slow = self.shape.rate.is_some_and(|rate| rate < SLOW_RATE);
        Duration::from_secs(bench.options.seconds) * if is_slow { SLOW_TIMES } else { 1 }
    }
}

fn bodies() -> Bodies {
    Bodies::Made(Clicks::new("bench", CAMPAIGNS as u32))
}
