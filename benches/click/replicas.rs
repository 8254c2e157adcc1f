//! Replicas behind a balancer, for `--long`.

use std::time::Duration;

use crate::haproxy::{self, HaProxy};
use crate::load::Load;
use crate::process::Server;
use crate::report::{Goal, Report};
use crate::{Bench, CASE, Cost, PARTITIONS, ratios};

/// The rate of each replica behind a balancer. It is so small that four replicas leave two cores mostly
/// idle, together with the broker, the balancer and the load; otherwise contention for the cores would
/// be measured. With so few clicks it takes longer to measure their CPU.
const REPLICA_RATE: u32 = 300;
const REPLICA_SECONDS: u64 = 10;

impl Bench {
    /// The total cost of a click with several replicas behind a balancer, relative to one. The goal is for
    /// the same rate at each replica; at a lower rate caches are colder and the idle cost of each replica
    /// weighs more.
    pub async fn scale(&self, report: &mut Report) {
        let goal = Goal::AtMost { must: 1.1, aim: 1.05 };
        for (name, is_bare, count, rate) in [
            ("scale/2 replicas, double rate", false, 2, 2 * REPLICA_RATE),
            ("scale/4 replicas, 4 times the rate", false, 4, 4 * REPLICA_RATE),
            ("scale/2 replicas, same rate", false, 2, REPLICA_RATE),
            ("scale/4 replicas, same rate", false, 4, REPLICA_RATE),
            ("scale/2 bare, same rate", true, 2, REPLICA_RATE),
            ("scale/4 bare, same rate", true, 4, REPLICA_RATE),
        ] {
            let is_wanted = self.options.long || !self.options.only.is_empty();
            if !is_wanted || !report.wants(&[name]) || haproxy::program().is_none() {
                continue;
            }
            let replicas = async |count, rate| match is_bare {
                true => self.bare_replicas(count, rate).await,
                false => self.replicas(count, rate).await,
            };
            let mut pairs = Vec::new();
            for _ in 0..self.options.rounds {
                pairs.push((replicas(1, REPLICA_RATE).await, replicas(count, rate).await));
            }
            let goal = if rate > REPLICA_RATE { goal } else { Goal::None };
            report.line(name, "x 1 replica", goal, ratios(&pairs, |c| c.cpu_us));
        }
    }

    /// Measures this many replicas at this rate, and verifies that each 200 is in the topic.
    async fn replicas(&self, count: usize, rate: u32) -> Cost {
        let config = self.config(PARTITIONS).await;
        let mut replicas = Vec::new();
        for number in 0..count {
            let mut config = config.clone();
            config.spool.dir = config.spool.dir.join(number.to_string());
            replicas.push(Server::bridge(&config, self.folder.path()).await);
        }
        let (cost, held) = self.balanced(&replicas, rate).await;
        self.verify(&config, held).await;
        cost
    }

    async fn bare_replicas(&self, count: usize, rate: u32) -> Cost {
        let mut replicas = Vec::new();
        for _ in 0..count {
            replicas.push(Server::bare().await);
        }
        self.balanced(&replicas, rate).await.0
    }

    /// The cost of a click in all replicas behind a balancer, and how many clicks were held.
    async fn balanced(&self, replicas: &[Server], rate: u32) -> (Cost, u64) {
        let servers = replicas.iter().enumerate().map(|(number, replica)| haproxy::Server {
            name: format!("replica-{number}"),
            http: replica.address,
            admin: replica.admin,
        });
        let balancer = HaProxy::start(&servers.collect::<Vec<_>>()).await.expect("HAProxy");
        let load = Load::open(balancer.address, &CASE.requests(), 64, rate).await;
        self.cost_over(Duration::from_secs(REPLICA_SECONDS), replicas, load).await
    }
}
