//! Supervises the producer: starts it, replaces it when it breaks for good, closes it, and explains to the
//! operator what is wrong with a topic. Calls that may block are made here, on a thread of their own.

use std::convert::Infallible;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::thread::JoinHandle;
use std::time::Duration;

use rdkafka::producer::{Producer, PurgeConfig};
use tokio::time::Instant;
use tracing::{error, info, warn};

use super::circuit_breaker::CircuitBreaker;
use super::client::Client;
use super::context::{Subscribers, SupervisorRequest};
use super::current::{CurrentClient, RecordSink};
use super::ending::{CLOSE_TIMEOUT, end_within};
use super::inspect::{InspectedTopic, Inspector, Severity};
use super::publisher::Publisher;
use super::token::TokenRenewal;
use crate::config::{Config, Problem};
use crate::observe::health::Health;
use crate::observe::metrics::Metrics;

/// How long to wait between two attempts to replace a producer.
const REPLACE_INTERVAL: Duration = Duration::from_secs(1);

/// How long the last reports of a replaced producer may take.
const REPORTS_TIMEOUT: Duration = Duration::from_secs(10);

/// How often the state of the topics is worth log lines.
const EXPLAIN_INTERVAL: Duration = Duration::from_secs(10);

/// How long the brokers may take for one question.
const INSPECT_TIMEOUT: Duration = Duration::from_secs(2);

/// Requests to the supervisor that may wait; more of the same add nothing.
const REQUESTS_MAX: usize = 64;

/// The connection to Kafka.
pub struct Kafka {
    current: Arc<CurrentClient<Client>>,
    requests: SyncSender<SupervisorRequest>,
    thread: JoinHandle<()>,
    tokens: Option<TokenRenewal>,
}

/// What the thread works with.
struct Supervisor {
    current: Arc<CurrentClient<Client>>,
    subscribers: Subscribers,
    config: Config,
    /// Whether the topics have been inspected since the start.
    has_inspected: bool,
    explained: Option<Instant>,
    /// Whether the producer must be replaced.
    is_broken: bool,
    /// Not before then: what broke the last one may well break the next.
    replace_after: Instant,
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
        breaker: Arc<CircuitBreaker>,
    ) -> Result<Kafka, Problem> {
        let (requests, received) = sync_channel(REQUESTS_MAX);
        let subscribers = Subscribers { metrics, health, breaker, supervisor: requests.clone() };
        let client = Client::start(config, 0, subscribers.clone())?;
        let current = CurrentClient::new(client);
        let tokens = TokenRenewal::start(config, current.clone(), subscribers.breaker.clone())?;
        let supervisor = Supervisor {
            current: current.clone(),
            subscribers,
            config: config.clone(),
            has_inspected: false,
            explained: None,
            is_broken: false,
            replace_after: Instant::now(),
        };
        let thread = std::thread::Builder::new()
            .name("supervisor".into())
            .spawn(move || supervisor.run(&received))
            .map_err(|error| Problem::new("kafka", error.to_string()))?;
        Ok(Kafka { current, requests, thread, tokens })
    }

    /// A publisher for one worker thread.
    pub fn publisher(&self) -> Publisher {
        self.current.publisher()
    }

    /// Moves the records and reports of a publisher; to be run on the thread whose requests publish.
    pub fn sender_task(
        &self,
        publisher: &Publisher,
    ) -> impl Future<Output = Infallible> + Send + use<> {
        self.current.clone().sender_task(publisher)
    }

    /// Polls delivery reports, statistics and errors; to be run on one thread, best that of a worker.
    pub fn delivery_report_poller(&self) -> impl Future<Output = Infallible> + Send + use<> {
        let current = self.current.clone();
        async move {
            loop {
                let client = current.client.load_full();
                tokio::select! {
                    // Dropped at once: the supervisor waits to close it.
                    () = current.in_use.replaced(client.generation()) => {}
                    never = client.poll() => match never {},
                }
            }
        }
    }

    #[cfg(test)]
    pub(super) fn replace_producer(&self) {
        let generation = self.current.generation();
        self.requests.send(SupervisorRequest::Replace(generation)).expect("a supervisor");
    }

    /// Flushes and closes the producer. Blocks until `CLOSE_TIMEOUT` after the deadline at most. Returns
    /// how many records got no acknowledgement.
    pub fn close(self, deadline: Instant) -> usize {
        // First, so that the supervisor ends while the producer is flushed. This finds no room where requests
        // have piled up, because the supervisor is asking the brokers something.
        let _ = self.requests.try_send(SupervisorRequest::Stop);
        let client = self.current.client.load_full();
        let rest = deadline.saturating_duration_since(Instant::now());
        let left = match client.producer.flush(rest) {
            // The count could only be of statistics that nobody fetches any more.
            Ok(()) => 0,
            Err(_timed_out) => client.producer.in_flight_count(),
        };
        let rest = deadline.saturating_duration_since(Instant::now());
        end_within(rest + CLOSE_TIMEOUT, move || {
            let _ = self.requests.send(SupervisorRequest::Stop);
            self.tokens.into_iter().for_each(TokenRenewal::stop);
            let _ = self.thread.join();
            drop((client, self.current));
        });
        usize::try_from(left).unwrap_or(0)
    }
}

impl Supervisor {
    fn run(mut self, requests: &Receiver<SupervisorRequest>) {
        loop {
            // Any answer makes the replica ready; the state of the topics may take longer to find out.
            if !self.has_inspected || self.subscribers.health.probe_is_due() {
                self.ask_brokers();
            }
            if !self.has_inspected {
                self.explain();
            }
            match requests.recv_timeout(REPLACE_INTERVAL) {
                Ok(SupervisorRequest::Replace(generation)) => {
                    self.is_broken |= self.current.generation() == generation;
                }
                Ok(SupervisorRequest::Explain) => {
                    if self.explained.is_none_or(|last| last.elapsed() >= EXPLAIN_INTERVAL) {
                        self.explain();
                    }
                }
                Ok(SupervisorRequest::Stop) | Err(RecvTimeoutError::Disconnected) => return,
                Err(RecvTimeoutError::Timeout) => {}
            }
            if self.is_broken && self.replace_after <= Instant::now() {
                self.replace();
            }
        }
    }

    /// Starts a new producer and closes the old one, which fails its records: their requests try
    /// once more with the new one.
    fn replace(&mut self) {
        let generation = self.current.generation() + 1;
        match Client::start(&self.config, generation, self.subscribers.clone()) {
            Ok(client) => {
                let old = self.current.replace(client);
                self.subscribers.metrics.kafka.producer_rebuilds.inc();
                warn!(generation, "The Kafka producer was replaced.");
                close_replaced(old);
                self.is_broken = false;
            }
            Err(problem) => {
                error!(%problem, "The Kafka producer cannot be replaced; trying again.");
            }
        }
        self.replace_after = Instant::now() + REPLACE_INTERVAL;
    }

    /// Without clicks the brokers have no reason to say anything, so they are asked, over the
    /// producer's own connections.
    fn ask_brokers(&self) {
        let client = self.current.client.load_full();
        let topic = self.config.webhook.first().map(|webhook| webhook.topic.as_str());
        if client.producer.client().fetch_metadata(topic, INSPECT_TIMEOUT).is_ok() {
            self.subscribers.health.broker_responded();
        }
    }

    /// Inspects the topics and logs what is wrong. The connections for it are closed afterwards: open and
    /// idle they would take a third of the CPU of a bridge that has nothing to do.
    fn explain(&mut self) {
        let topics =
            Inspector::new(&self.config).and_then(|inspector| inspector.inspect(INSPECT_TIMEOUT));
        self.explained = match topics {
            Ok(topics) => {
                let is_first = !std::mem::replace(&mut self.has_inspected, true);
                if is_first && topics.iter().all(|topic| topic.findings.is_empty()) {
                    info!("Kafka answers and the topics are in order.");
                }
                log(topics);
                // What fails after the first inspection is explained at once.
                (!is_first).then(Instant::now)
            }
            Err(error) => {
                if self.has_inspected || self.explained.is_none() {
                    error!(%error, "Kafka does not answer; trying again.");
                }
                Some(Instant::now())
            }
        };
    }
}

/// Closes a producer that is no longer in use. Dropping the last reference closes it, which blocks: a worker
/// that is just handing it a record must not be the last.
fn close_replaced(client: Arc<Client>) {
    // Each record must get its report, or the task that follows it waits for ever; the producer itself
    // takes half a second for that at most.
    client.producer.purge(PurgeConfig::default().queue().inflight());
    let _ = client.producer.flush(REPORTS_TIMEOUT);
    let deadline = Instant::now() + REPLACE_INTERVAL;
    while Arc::strong_count(&client) > 1 && Instant::now() < deadline {
        std::thread::yield_now();
    }
}

fn log(topics: Vec<InspectedTopic>) {
    for InspectedTopic { name: topic, findings, .. } in &topics {
        for (severity, text) in findings {
            match severity {
                Severity::Error => error!(topic, "{text}"),
                Severity::Warning | Severity::Missing => warn!(topic, "{text}"),
            }
        }
    }
}
