//! Keeps the producer: starts it, replaces it when it breaks for good, explains to the operator what
//! is wrong with a topic, closes it. All that may block is done here, on a thread of its own.

use std::convert::Infallible;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::thread::JoinHandle;
use std::time::Duration;

use arc_swap::ArcSwap;
use rdkafka::ClientConfig;
use rdkafka::producer::{Producer as _, PurgeConfig};
use tokio::sync::watch;
use tokio::time::Instant;
use tracing::{error, info, warn};

use super::client::Client;
use super::context::{Context, Work};
use super::inspect::{Finding, Inspector, Severity};
use super::producer::{Producer, Shared};
use super::publisher::Publisher;
use super::settings;
use crate::config::{Config, Problem};
use crate::kafka::circuit_breaker::Breaker;
use crate::observe::health::Health;
use crate::observe::metrics::Metrics;

/// How long to wait between two attempts to replace a producer.
const REPLACE_INTERVAL: Duration = Duration::from_secs(1);

/// How long the reports of a producer that is let go may take.
const REPORTS_TIMEOUT: Duration = Duration::from_secs(10);

/// How often the state of the topics is worth log lines.
const EXPLAIN_INTERVAL: Duration = Duration::from_secs(10);

/// How long one look at the brokers may take.
const INSPECT_TIMEOUT: Duration = Duration::from_secs(2);

/// Requests to the keeper that may wait; more of the same add nothing.
const WORK_MAX: usize = 64;

/// The connection to Kafka.
pub struct Kafka {
    shared: Arc<Shared>,
    work: SyncSender<Work>,
    thread: JoinHandle<()>,
}

/// What the thread works with.
struct Keeper {
    shared: Arc<Shared>,
    maker: Maker,
    config: Config,
    /// Whether the topics have been looked at since the start.
    looked: bool,
    explained: Option<Instant>,
    /// Set while the producer must be replaced: not before then.
    replace_at: Option<Instant>,
    /// When it was last replaced.
    replaced: Option<Instant>,
}

/// Makes producers.
struct Maker {
    config: ClientConfig,
    metrics: Arc<Metrics>,
    health: Arc<Health>,
    breaker: Arc<Breaker>,
    work: SyncSender<Work>,
}

impl Kafka {
    /// Starts the producer. The brokers need not be up.
    ///
    /// # Errors
    ///
    /// Settings that librdkafka does not take.
    pub fn start(
        config: &Config,
        metrics: Arc<Metrics>,
        health: Arc<Health>,
        breaker: Arc<Breaker>,
    ) -> Result<Kafka, Problem> {
        let (work, orders) = sync_channel(WORK_MAX);
        let orders_from_clients = work.clone();
        let config_of_clients = settings::producer(config);
        let maker = Maker {
            config: config_of_clients,
            metrics,
            health,
            breaker,
            work: orders_from_clients,
        };
        let shared = Arc::new(Shared {
            current: ArcSwap::from_pointee(maker.make(0)?),
            generation: watch::Sender::new(0),
        });
        let keeper = Keeper {
            shared: shared.clone(),
            maker,
            config: config.clone(),
            looked: false,
            explained: None,
            replace_at: None,
            replaced: None,
        };
        let system = |error: std::io::Error| Problem::new("kafka", error.to_string());
        let thread = std::thread::Builder::new()
            .name("kafka-keeper".into())
            .spawn(move || keeper.work(&orders))
            .map_err(system)?;
        Ok(Kafka { shared, work, thread })
    }

    /// A publisher for one worker thread.
    pub fn publisher(&self) -> Publisher {
        Publisher::new(self.shared.clone())
    }

    /// Hands out what the Kafka client reports; to be run on one thread, best that of a worker.
    pub fn clerk(&self) -> impl Future<Output = Infallible> + Send + use<> {
        let shared = self.shared.clone();
        async move {
            let mut generations = shared.generation.subscribe();
            loop {
                generations.mark_unchanged();
                let producer = shared.current.load_full();
                tokio::select! {
                    // Let go at once: the keeper waits to close it.
                    _ = generations.changed() => {}
                    never = producer.client.serve() => match never {},
                }
            }
        }
    }

    #[cfg(test)]
    pub(super) fn replace_producer(&self) {
        let generation = self.shared.current.load().generation;
        self.work.send(Work::Replace(generation)).expect("a keeper");
    }

    /// Flushes and closes the producer. Blocks, at most until the deadline and until the keeper has
    /// ended, which may be asking the brokers something. Returns how many records got no
    /// acknowledgement.
    pub fn close(self, deadline: Instant) -> usize {
        // First, so that the keeper ends while the producer is flushed.
        let _ = self.work.send(Work::Stop);
        let producer = self.shared.current.load_full();
        let rest = deadline.saturating_duration_since(Instant::now());
        let flushed = producer.client.producer().flush(rest);
        // Where it succeeds, the number could only be statistics that nobody fetches any more.
        let left = flushed.map_or_else(|_timed_out| producer.in_flight(), |()| 0);
        let _ = self.thread.join();
        left
    }
}

impl Keeper {
    fn work(mut self, orders: &Receiver<Work>) {
        self.look();
        loop {
            match orders.recv_timeout(REPLACE_INTERVAL) {
                Ok(Work::Replace(generation)) => {
                    let is_current = self.shared.current.load().generation == generation;
                    if is_current && self.replace_at.is_none() {
                        // What broke the last one may well break the next.
                        let now = Instant::now();
                        let next = self.replaced.map_or(now, |last| last + REPLACE_INTERVAL);
                        self.replace_at = Some(next.max(now));
                    }
                }
                Ok(Work::Explain) => self.explain(),
                Ok(Work::Stop) | Err(RecvTimeoutError::Disconnected) => return,
                Err(RecvTimeoutError::Timeout) => {}
            }
            if self.replace_at.is_some_and(|at| at <= Instant::now()) {
                self.replace();
            }
            if !self.looked {
                self.look();
            } else if self.maker.health.probe_is_due() {
                self.listen();
            }
        }
    }

    /// Makes a new producer and lets the old one go, which fails its records: their requests try
    /// once more with the new one.
    fn replace(&mut self) {
        let generation = self.shared.current.load().generation + 1;
        match self.maker.make(generation) {
            Ok(producer) => {
                let old = self.shared.current.swap(Arc::new(producer));
                self.shared.generation.send_replace(generation);
                self.maker.metrics.producer_rebuilds.inc();
                warn!(generation, "The Kafka producer was replaced.");
                let_go(old);
                self.replace_at = None;
                self.replaced = Some(Instant::now());
            }
            Err(problem) => {
                error!(%problem, "The Kafka producer cannot be replaced; trying again.");
                self.replace_at = Some(Instant::now() + REPLACE_INTERVAL);
            }
        }
    }

    /// The first look at the topics, as soon as a broker answers.
    fn look(&mut self) {
        // Any answer makes the replica ready; what the topics are like may take longer to find out.
        self.listen();
        match self.inspect() {
            Ok(findings) => {
                self.looked = true;
                if findings.is_empty() {
                    info!("Kafka answers and the topics are in order.");
                }
                report(findings);
            }
            Err(error) => {
                if self.explained.is_none() {
                    error!(%error, "Kafka does not answer; trying again.");
                }
                self.explained = Some(Instant::now());
            }
        }
    }

    /// Without clicks the brokers have no reason to say anything, so they are asked, over the
    /// producer's own connections.
    fn listen(&self) {
        let producer = self.shared.current.load_full();
        let client = producer.client.producer().client();
        let topic = self.config.webhook.first().map(|webhook| webhook.topic.as_str());
        if client.fetch_metadata(topic, INSPECT_TIMEOUT).is_ok() {
            self.maker.health.broker_responded();
        }
    }

    /// Looks at the topics, over connections that end with the look: open and idle they would take a third
    /// of the CPU of a bridge that has nothing to do.
    fn inspect(&self) -> Result<Vec<Finding>, String> {
        let inspector = Inspector::new(&self.config).map_err(|problem| problem.to_string())?;
        inspector.inspect(INSPECT_TIMEOUT).map_err(|error| error.to_string())
    }

    fn explain(&mut self) {
        if self.explained.is_some_and(|last| last.elapsed() < EXPLAIN_INTERVAL) {
            return;
        }
        match self.inspect() {
            Ok(findings) => report(findings),
            Err(error) => error!(%error, "Kafka does not answer."),
        }
        self.explained = Some(Instant::now());
    }
}

/// Closes a producer that is no longer in use. Whoever lets go last closes it, which blocks: that must
/// not be a worker that is just handing it a record.
fn let_go(producer: Arc<Producer>) {
    // Each record must get its report, or whoever follows it waits for ever; the producer itself takes
    // half a second for that at most.
    producer.client.producer().purge(PurgeConfig::default().queue().inflight());
    let _ = producer.client.producer().flush(REPORTS_TIMEOUT);
    let deadline = Instant::now() + REPLACE_INTERVAL;
    while Arc::strong_count(&producer) > 1 && Instant::now() < deadline {
        std::thread::yield_now();
    }
}

fn report(findings: Vec<Finding>) {
    for finding in findings {
        let topic = finding.topic.as_str();
        match finding.severity {
            Severity::Error => error!(topic, "{}", finding.text),
            Severity::Warning | Severity::Missing => warn!(topic, "{}", finding.text),
        }
    }
}

impl Maker {
    fn make(&self, generation: u64) -> Result<Producer, Problem> {
        let context = Context {
            generation,
            metrics: self.metrics.clone(),
            health: self.health.clone(),
            breaker: self.breaker.clone(),
            work: self.work.clone(),
            seen: Default::default(),
        };
        let client = Client::start(&self.config, context);
        let client = client.map_err(|error| Problem::new("kafka.options", error.to_string()))?;
        Ok(Producer { generation, client })
    }
}
