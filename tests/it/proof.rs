//! The proof of the promise: a steady load during faults of every kind; at the end each click answered
//! 200 must be in Kafka.
//!
//! `cargo test` runs a short form. The long form has a million clicks and more:
//!
//! ```text
//! HOOKBRIDGE_PROOF=long cargo test --release --test it -- --nocapture --test-threads 1 proof
//! ```

mod proxy;

use std::path::Path;
use std::time::Duration;

use hookbridge::config::Config;
use hookbridge::observe::metrics::RecordResult;
use rdkafka::bindings::rd_kafka_resp_err_t as Code;
use rdkafka::types::RDKafkaApiKey;
use tokio::time::{Instant, sleep};

use crate::harness::brokers::{Broker, Kafka, create_topic, delete_topic, has_topic};
use crate::harness::found::Found;
use crate::harness::load::{Load, is_long};
use crate::harness::process::Serve;
use crate::harness::support::{TestBridge, config, until};
use proxy::{Mode, Proxy};

/// The size of a proof.
struct Form {
    clicks_per_second: usize,
    rounds: usize,
    kills: usize,
    /// How long a fault lasts.
    fault: Duration,
    /// The least number of clicks in the Kafka part.
    clicks_min: usize,
    /// The length of the outage of all brokers in seconds, and the load meanwhile.
    outage_seconds: usize,
    outage_clicks_per_second: usize,
}

impl Form {
    fn asked_for() -> Form {
        if is_long() {
            Form {
                clicks_per_second: 4_000,
                rounds: 2,
                kills: 50,
                fault: Duration::from_secs(8),
                clicks_min: 1_000_000,
                outage_seconds: 300,
                outage_clicks_per_second: 5_000,
            }
        } else {
            Form {
                clicks_per_second: 400,
                rounds: 1,
                kills: 4,
                fault: Duration::from_secs(4),
                clicks_min: 5_000,
                outage_seconds: 10,
                outage_clicks_per_second: 400,
            }
        }
    }
}

/// A cluster of three brokers, each behind a proxy, with its topics.
struct Cluster {
    nodes: [Kafka; 3],
    proxies: Vec<Proxy>,
    /// Settings that bypass the proxies, to read the topics.
    direct: Config,
}

impl Cluster {
    async fn start() -> Option<(Cluster, Config)> {
        let nodes = Kafka::start_three()?;
        let mut proxies = Vec::new();
        for node in &nodes {
            proxies.push(Proxy::start(node.proxy_ports()).await);
        }
        let addresses =
            |of: &dyn Fn(&Kafka) -> String| nodes.iter().map(of).collect::<Vec<_>>().join(",");
        let direct = config(&Broker::Kafka(addresses(&Kafka::plaintext)));
        let mut proxied = direct.clone();
        proxied.kafka.brokers = addresses(&|node| format!("127.0.0.1:{}", node.proxy_ports().0));
        let cluster = Cluster { nodes, proxies, direct };
        cluster.create_topic().await;
        let letters = cluster.direct.webhook[0].dead_letters();
        create_topic(&cluster.direct.kafka.brokers, &letters, 2, 3, &SAFE).await;
        Some((cluster, proxied))
    }

    async fn create_topic(&self) {
        let topic = &self.direct.webhook[0].topic;
        create_topic(&self.direct.kafka.brokers, topic, 12, 3, &SAFE).await;
    }

    /// Deletes the topic, and waits until every broker knows.
    async fn delete_topic(&self) {
        let topic = &self.direct.webhook[0].topic;
        delete_topic(&self.direct.kafka.brokers, topic).await;
        for node in &self.nodes {
            until("deleted", async || !has_topic(&node.plaintext(), topic)).await;
        }
    }

    fn set_proxies(&self, mode: Mode) {
        self.proxies.iter().for_each(|proxy| proxy.set(mode));
    }
}

const SAFE: [(&str, &str); 1] = [("min.insync.replicas", "2")];

const SET_ASIDE: &str = "hookbridge_spool_set_aside_events";

async fn set_aside(serve: &Serve) -> f64 {
    serve.metric(SET_ASIDE).await
}

const WAITING: &str = "hookbridge_spool_events";

/// Waits until nothing is left in the spool.
async fn delivered(serve: &Serve) {
    let mut left = serve.metric(WAITING).await;
    while left > 0.0 {
        let before = left;
        until("less waits", async || {
            left = serve.metric(WAITING).await;
            left < before
        })
        .await;
    }
}

/// Brokers die, hang, restart and change leaders; the network delays, cuts and drops answers; a topic
/// is deleted and created again. No click is refused, lost or out of order.
#[tokio::test(flavor = "multi_thread")]
async fn proof_of_kafka() {
    let form = Form::asked_for();
    let Some((cluster, mut config)) = Cluster::start().await else { return };
    let folder = tempfile::tempdir().unwrap();
    config.spool.dir = folder.path().join("spool");
    let mut serve = Serve::launch(&config, folder.path(), "true");
    until("ready", async || serve.is_ready().await).await;
    let load = Load::start(serve.url(), form.clicks_per_second, "steady");
    let mut memory_max = 0.0_f64;
    let mut round = 0;
    while round < form.rounds || load.held() < form.clicks_min {
        round += 1;
        for fault in [
            "one killed",
            "one hangs",
            "all killed",
            "all hang",
            "rolling",
            "late",
            "cut",
            "swallowed",
        ] {
            let [first, second, third] = &cluster.nodes;
            match fault {
                "one killed" => {
                    second.kill();
                    sleep(form.fault).await;
                    second.resume();
                }
                "one hangs" => {
                    third.signal("STOP");
                    sleep(2 * form.fault).await;
                    third.signal("CONT");
                }
                "all killed" => {
                    cluster.nodes.iter().for_each(Kafka::kill);
                    sleep(form.fault).await;
                    resume_all(&cluster.nodes);
                }
                "all hang" => {
                    cluster.nodes.iter().for_each(|node| node.signal("STOP"));
                    sleep(3 * form.fault).await;
                    cluster.nodes.iter().for_each(|node| node.signal("CONT"));
                }
                "rolling" => {
                    for node in [third, second, first] {
                        node.kill();
                        node.resume();
                        load.more(form.clicks_per_second).await;
                    }
                }
                "late" => cluster.set_proxies(Mode::Delay(Duration::from_millis(900))),
                "cut" => cluster.set_proxies(Mode::Cut),
                _ => cluster.set_proxies(Mode::Swallow),
            }
            if matches!(fault, "late" | "cut" | "swallowed") {
                sleep(form.fault).await;
                cluster.set_proxies(Mode::Pass);
            }
            load.more(2 * form.clicks_per_second).await;
            memory_max = memory_max.max(serve.metric("process_resident_memory_bytes").await);
            println!("{fault}: {} held, spool {}", load.held(), serve.metric(WAITING).await);
        }
    }
    let book = load.stop().await;
    delivered(&serve).await;
    let found = Found::in_kafka(&cluster.direct, "steady");
    println!("memory of the bridge: at most {:.0} MB", memory_max / 1e6);
    found.check("Kafka fails", &book, set_aside(&serve).await);
    found.check_order(&book);
    assert!(memory_max < 200e6, "{memory_max} bytes");

    survive_an_outage(&form, &cluster, &serve).await;

    // Deleting the topic deletes its records; clicks that come without a topic are kept.
    for round in 0..2 * form.rounds {
        cluster.delete_topic().await;
        // The dead-letter topic still has the last round's records, under another name.
        let name = format!("deleted{round}");
        let load = Load::start(serve.url(), form.clicks_per_second, &name);
        load.more(3 * form.clicks_per_second).await;
        assert!(serve.metric(WAITING).await > 0.0);
        cluster.create_topic().await;
        load.more(3 * form.clicks_per_second).await;
        let book = load.stop().await;
        delivered(&serve).await;
        let found = Found::in_kafka(&cluster.direct, &name);
        let set_aside = set_aside(&serve).await;
        found.check("topic deleted and made again", &book, set_aside);
        found.check_order(&book);
    }
    assert!(!serve.has_logged("panicked"));
    assert_eq!(serve.stop().0, 0);
}

/// Without a broker for minutes the spool holds every click, memory stays level, and all are delivered.
async fn survive_an_outage(form: &Form, cluster: &Cluster, serve: &Serve) {
    let rate = form.outage_clicks_per_second;
    let load = Load::start(serve.url(), rate, "away");
    load.more(rate).await;
    cluster.nodes.iter().for_each(Kafka::kill);
    let mut memory = Vec::new();
    for _ in 0..form.outage_seconds {
        load.more(rate).await;
        memory.push(serve.metric("process_resident_memory_bytes").await);
    }
    let spooled = serve.metric(WAITING).await;
    resume_all(&cluster.nodes);
    load.more(rate).await;
    let book = load.stop().await;
    let stopped = Instant::now();
    delivered(serve).await;
    let took = stopped.elapsed();
    let (early, late) = memory.split_at(memory.len() / 5);
    let [early, late] = [early, late].map(|part| part.iter().fold(0.0_f64, |a, b| a.max(*b)));
    println!(
        "{spooled} clicks in the spool; memory at most {:.0} MB in the first fifth, {:.0} MB after; \
         empty {took:?} after the load; slowest answer {:?}",
        early / 1e6,
        late / 1e6,
        book.percentile(1.0),
    );
    let found = Found::in_kafka(&cluster.direct, "away");
    found.check("a long outage", &book, set_aside(serve).await);
    found.check_order(&book);
    assert!(spooled as usize > rate * form.outage_seconds * 9 / 10);
    assert!(late < 1.2 * early && late < 200e6, "memory grows");
}

fn resume_all(nodes: &[Kafka; 3]) {
    // In parallel: one broker alone cannot serve topics with three replicas.
    std::thread::scope(|scope| nodes.iter().for_each(|node| drop(scope.spawn(|| node.resume()))));
}

/// Brokers refuse records under load with every error code: no click is lost or refused, and only
/// refused records are out of order.
#[tokio::test(flavor = "multi_thread")]
async fn proof_of_refusals() {
    use Code::*;
    let form = Form::asked_for();
    let broker = Broker::embedded();
    let bridge = TestBridge::start_spooling(&broker, |_| {}).await;
    // The development broker keeps some 90,000 clicks.
    let rate = form.clicks_per_second.min(400);
    let load = Load::start(&bridge.url(), rate, "refused");
    let cluster = broker.development().cluster();
    for round in 0..form.rounds {
        for (number, code) in [
            RD_KAFKA_RESP_ERR_UNKNOWN_TOPIC_OR_PART,
            RD_KAFKA_RESP_ERR_NOT_LEADER_FOR_PARTITION,
            RD_KAFKA_RESP_ERR_REQUEST_TIMED_OUT,
            RD_KAFKA_RESP_ERR_NOT_ENOUGH_REPLICAS_AFTER_APPEND,
            RD_KAFKA_RESP_ERR_TOPIC_AUTHORIZATION_FAILED,
            RD_KAFKA_RESP_ERR_CLUSTER_AUTHORIZATION_FAILED,
            RD_KAFKA_RESP_ERR_POLICY_VIOLATION,
            RD_KAFKA_RESP_ERR_OUT_OF_ORDER_SEQUENCE_NUMBER,
            RD_KAFKA_RESP_ERR_INVALID_PRODUCER_ID_MAPPING,
            RD_KAFKA_RESP_ERR_INVALID_PRODUCER_EPOCH,
            RD_KAFKA_RESP_ERR_UNKNOWN_PRODUCER_ID,
            RD_KAFKA_RESP_ERR_KAFKA_STORAGE_ERROR,
            RD_KAFKA_RESP_ERR_THROTTLING_QUOTA_EXCEEDED,
            RD_KAFKA_RESP_ERR_INVALID_RECORD,
            RD_KAFKA_RESP_ERR_MSG_SIZE_TOO_LARGE,
            RD_KAFKA_RESP_ERR__TRANSPORT,
        ]
        .into_iter()
        .enumerate()
        {
            let times = 1 + (number + round) % 6;
            if (number + round) % 2 == 1 {
                // The outage fills the spool, so that the forwarder meets the errors, too.
                cluster.broker_down(-1).unwrap();
                load.more(rate).await;
                cluster.broker_up(-1).unwrap();
            }
            cluster.request_errors(RDKafkaApiKey::Produce, &vec![code; times]);
            load.more(rate / 4).await;
            cluster.clear_request_errors(RDKafkaApiKey::Produce);
            load.more(rate / 4).await;
        }
    }
    let book = load.stop().await;
    until("everything is delivered", async || bridge.metric(WAITING).await == 0.0).await;
    // The topic and its dead-letter topic refuse this record at each attempt.
    let set_aside = bridge.metric(SET_ASIDE).await;
    let found = Found::in_kafka(&bridge.config, "refused");
    found.check("records refused", &book, set_aside);
    found.check_order_except(&book, refused_records(&bridge).await);
}

/// How many attempts of the topic's records Kafka did not acknowledge.
async fn refused_records(bridge: &TestBridge) -> f64 {
    let mut refused = 0.0;
    for result in RecordResult::ALL {
        if result != RecordResult::Acknowledged {
            refused += bridge.results(result.tag()).await;
        }
    }
    refused
}

/// The bridge is killed or stopped at any moment, with Kafka and without it. No click answered 200 is
/// lost.
#[tokio::test(flavor = "multi_thread")]
async fn proof_of_the_bridge() {
    let form = Form::asked_for();
    let Some((cluster, mut config)) = Cluster::start().await else { return };
    let folder = tempfile::tempdir().unwrap();
    config.spool.dir = folder.path().join("spool");
    config.http.drain_timeout_ms = 10_000;
    let mut serve = launch(&config, folder.path()).await;
    let load = Load::start(serve.url(), form.clicks_per_second, "crash");
    for kill in 0..2 * form.kills {
        let is_away = kill % 4 >= 2;
        if is_away {
            cluster.set_proxies(Mode::Swallow);
        }
        // Each time after another number of clicks since the start.
        load.more(form.clicks_per_second / 4 + (kill * 7_919) % form.clicks_per_second).await;
        serve.signal(if kill % 2 == 0 { "KILL" } else { "TERM" });
        let (code, log) = serve.end();
        assert!(!log.contains("panicked"), "{log}");
        assert_eq!(code, if kill % 2 == 0 { -1 } else { 0 }, "{log}");
        cluster.set_proxies(Mode::Pass);
        serve = launch(&config, folder.path()).await;
        *load.aim.url.lock().unwrap() = serve.url().to_owned();
    }
    load.more(form.clicks_per_second).await;
    let book = load.stop().await;
    delivered(&serve).await;
    let found = Found::in_kafka(&cluster.direct, "crash");
    let name = format!("bridge ended {} times", 2 * form.kills);
    found.check(&name, &book, set_aside(&serve).await);
    assert_eq!(serve.stop().0, 0);
}

async fn launch(config: &Config, folder: &Path) -> Serve {
    let serve = Serve::launch(config, folder, "true");
    until("ready", async || serve.is_ready().await).await;
    serve
}
