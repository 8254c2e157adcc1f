//! A rolling update: replicas behind a real balancer are restarted in turn, added and removed under a
//! steady load. No request fails, and every click is in Kafka.
//!
//! Like a pod of a StatefulSet, each replica has its own address with fixed ports, and a folder that
//! outlives its process. The long form, with the shipped drain delay:
//!
//! ```text
//! HOOKBRIDGE_PROOF=long cargo test --release --test it -- --nocapture rolling
//! ```

use std::process::Command;

use hookbridge::config::Config;
use tempfile::TempDir;

use crate::harness::brokers::{Broker, run};
use crate::harness::found::Found;
use crate::harness::haproxy::{self, HaProxy, Server};
use crate::harness::load::{Book, Connections, Load, is_long};
use crate::harness::ports;
use crate::harness::process::Serve;
use crate::harness::support::{config, until};

/// The size of the test.
struct Form {
    clicks_per_second: usize,
    rounds: usize,
    drain_delay_ms: u64,
    /// How often the balancer is reloaded with unchanged settings.
    reloads: usize,
}

impl Form {
    fn asked_for() -> Form {
        if is_long() {
            let drain_delay_ms = Config::default().http.drain_delay_ms;
            Form { clicks_per_second: 1_000, rounds: 5, drain_delay_ms, reloads: 10 }
        } else {
            Form { clicks_per_second: 200, rounds: 1, drain_delay_ms: 3_000, reloads: 5 }
        }
    }
}

/// A replica that restarts on its ports and folder.
struct Replica {
    config: Config,
    folder: TempDir,
    serve: Serve,
    number: u8,
}

impl Replica {
    /// Starts a replica at its own address, where no outgoing connection takes a port while the replica
    /// is down.
    async fn start(config: &Config, number: u8) -> Replica {
        let folder = tempfile::tempdir().unwrap();
        let mut config = config.clone();
        ports::listen_on_free(&mut config, [127, 0, 1, number]);
        config.spool.dir = folder.path().join("spool");
        let serve = Serve::resume(&config, folder.path());
        until("ready", async || serve.is_ready().await).await;
        Replica { config, folder, serve, number }
    }

    /// Stops the replica, starts it and waits until it is ready.
    async fn restart(self) -> Replica {
        let Replica { config, folder, serve, number } = self;
        stop(serve).await;
        let serve = Serve::resume(&config, folder.path());
        until("ready", async || serve.is_ready().await).await;
        Replica { config, folder, serve, number }
    }

    fn server(&self) -> Server {
        let name = format!("bridge-{}", self.number);
        Server { name, http: self.serve.http, admin: self.serve.admin }
    }

    /// Waits until the replica has accepted a click.
    async fn gets_clicks(&self) {
        let webhook = &self.config.webhook[0].name;
        let accepted =
            format!("hookbridge_requests_total{{outcome=\"accepted\",webhook=\"{webhook}\"}}");
        until("clicks", async || self.serve.metric(&accepted).await > 0.0).await;
    }
}

/// Stops a replica by SIGTERM; its spool must be empty.
async fn stop(mut serve: Serve) {
    serve.signal("TERM");
    until("ended", async || serve.has_ended()).await;
    let (code, log) = serve.end();
    // Prints why clicks were refused, if any were.
    let refusals = log.lines().filter(|line| line.contains("Request refused."));
    refusals.take(5).for_each(|line| println!("{line}"));
    assert_eq!(code, 0, "{log}");
    assert!(log.contains("Drained: every request was answered and every record"), "{log}");
}

fn servers(replicas: &[Replica]) -> Vec<Server> {
    replicas.iter().map(Replica::server).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rolling_update_fails_no_request() {
    if haproxy::program().is_none() {
        return;
    }
    let Some(broker) = Broker::kafka() else { return };
    let form = Form::asked_for();
    let mut config = config(&broker);
    config.http.drain_delay_ms = form.drain_delay_ms;
    broker.create_topic(&config.webhook[0].topic, 12).await;
    broker.create_topic(&config.webhook[0].dead_letters(), 2).await;
    let mut replicas = Vec::new();
    for number in 1..=3 {
        replicas.push(Replica::start(&config, number).await);
    }
    let balancer = HaProxy::start(&servers(&replicas)).await.unwrap();
    let url = format!("http://{}{}", balancer.address, config.webhook[0].path);
    // A client may retry by itself when its persistent connection was closed; HAProxy relies on that.
    // A new connection for each click shows every failure.
    let loads = [(Connections::Kept, "rolling-kept"), (Connections::New, "rolling-new")].map(
        |(connections, name)| Load::start_over(connections, &url, form.clicks_per_second, name),
    );

    for round in 0..form.rounds {
        for turn in 0..replicas.len() {
            let replica = replicas.remove(0);
            replicas.push(replica.restart().await);
            println!("round {round}: {} restarted", turn + 1);
        }
        // Adds a replica: the balancer learns of it when it is ready.
        let number = 4 + u8::try_from(round).unwrap();
        replicas.push(Replica::start(&config, number).await);
        balancer.reload(&servers(&replicas)).await;
        for replica in &replicas {
            replica.gets_clicks().await;
        }
        // Removes a replica: the balancer notices by its checks, and is reloaded afterwards.
        stop(replicas.remove(0).serve).await;
        for _ in 0..form.reloads {
            balancer.reload(&servers(&replicas)).await;
            for load in &loads {
                load.more(form.clicks_per_second / 4).await;
            }
        }
    }
    let mut book = Book::default();
    for load in loads {
        book.add(load.stop().await);
    }
    for replica in replicas {
        stop(replica.serve).await;
    }
    let (log, retries) = (balancer.log(), balancer.unusual_requests());
    println!(
        "{log}\n{retries} requests tried again or failed, slowest answer {:?}",
        book.percentile(1.0)
    );
    let found = Found::in_kafka(&config, "rolling");
    found.check("rolling update", &book, 0.0);
    assert_eq!(book.unanswered, 0, "requests without an answer");
    // Retries of the balancer would hide a drain that does not work.
    assert_eq!(retries, 0, "requests that met a replica that was no longer there");
}

#[test]
fn haproxy_accepts_the_shipped_file() {
    let Some(mut haproxy): Option<Command> = haproxy::program() else { return };
    run(haproxy.args(["-c", "-f", haproxy::SHIPPED]));
}
