//! A simulated Kafka, for tests on a paused clock: a cluster that keeps what it acknowledged through every life of
//! the process, and a client with its supervisor for one life.
//!
//! Each partition takes batches in their order, as an idempotent producer of librdkafka sends them. What the client
//! reports goes through the real [`Context`]: the circuit breaker, the metrics and the request for another producer
//! are those of librdkafka's client.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, sync_channel};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use rdkafka::ClientContext;
use rdkafka::error::KafkaError;
pub(crate) use rdkafka::error::RDKafkaErrorCode as Code;
use tokio::sync::Notify;
use tokio::task::AbortHandle;
use tokio::time::{sleep, timeout};

use super::circuit_breaker::CircuitBreaker;
use super::context::{Context, Subscribers, SupervisorRequest};
use super::current::{CurrentClient, RecordSink};
use super::fault::{Failure, Remedy};
use super::publisher::Publisher;
use super::send_queue::{DeliveryReport, InFlightRecord};
use crate::click::record::Record;
use crate::observe::health::Health;
use crate::observe::lock;
use crate::observe::metrics::Metrics;

/// Records of one request.
const BATCH_MAX: usize = 16;

/// How long a client that was replaced may go on: its last reports take a while.
const PURGED_WITHIN_MS: u64 = 2_000;

/// Where a record is to go.
pub(crate) type TopicPartition = (Arc<str>, usize);

/// What the test knows of records.
pub(crate) trait RecordObserver: Send + Sync {
    /// Whether a topic takes a record, or with which code it refuses it.
    fn refusal(&self, record: &Record) -> Option<Code>;

    /// A record is in the log of its partition.
    fn logged(&self, partition: &TopicPartition, record: &Record);

    /// A record was not acknowledged.
    fn failed(&self, record: &Record, why: &str, order: Order);

    /// The client that has a record is replaced; it may still get it to its topic.
    fn outlives_its_client(&self, record: &Record);

    /// Runs a future as a task of this life.
    fn spawn(&self, future: std::pin::Pin<Box<dyn Future<Output = ()> + Send>>) -> AbortHandle;

    /// For the history.
    fn note(&self, what: &dyn Fn() -> String);
}

/// What is left of the order of a record that was not acknowledged.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Order {
    Kept,
    /// What is on its way at the same time may come first.
    AmongAnswered,
    Lost,
}

/// The cluster. It outlives the process.
pub(crate) struct SimulatedCluster {
    pub state: Mutex<ClusterState>,
}

pub(crate) struct ClusterState {
    pub random: fastrand::Rng,
    /// Of each topic.
    pub partitions: usize,
    /// Whether no broker can be reached.
    pub is_away: bool,
    /// Partitions without a leader.
    pub without_leader: BTreeSet<TopicPartition>,
    /// What a topic refuses everything with.
    pub refusing: BTreeMap<Arc<str>, Code>,
    /// Milliseconds that a request takes at most, and at most its answer.
    pub latency_max_ms: u64,
    /// One in so many requests meets each of these; 0 for none.
    pub lost_requests: u32,
    pub lost_answers: u32,
    pub unproven: u32,
    /// Whether the next request finds that the producer failed for good.
    pub producer_fails: bool,
    /// Requests that are on their way, by number.
    on_the_wire: BTreeMap<u64, (TopicPartition, Vec<Record>)>,
    next_request: u64,
}

/// What a broker, or the client, makes of a request.
enum Answer {
    Acknowledged,
    /// For each record of the batch.
    Refused(Vec<Code>),
    Unproven,
    /// The client sends it again.
    Nothing,
    Fatal,
}

impl SimulatedCluster {
    pub fn new(random: fastrand::Rng, partitions: usize) -> Arc<SimulatedCluster> {
        Arc::new(SimulatedCluster {
            state: Mutex::new(ClusterState {
                random,
                partitions,
                is_away: false,
                without_leader: BTreeSet::new(),
                refusing: BTreeMap::new(),
                latency_max_ms: 5,
                lost_requests: 0,
                lost_answers: 0,
                unproven: 0,
                producer_fails: false,
                on_the_wire: BTreeMap::new(),
                next_request: 0,
            }),
        })
    }

    pub fn state(&self) -> MutexGuard<'_, ClusterState> {
        lock(&self.state)
    }

    /// Ends a life: what was on its way may have arrived.
    pub fn end_life(&self, records: &dyn RecordObserver) {
        let requests = std::mem::take(&mut self.state().on_the_wire);
        for (partition, batch) in requests.into_values() {
            let has_arrived = self.state().random.bool();
            for record in &batch {
                records.failed(record, "the process ended", Order::Lost);
                if has_arrived && records.refusal(record).is_none() {
                    records.logged(&partition, record);
                }
            }
        }
    }
}

impl ClusterState {
    fn happens(&mut self, one_in: u32) -> bool {
        one_in > 0 && self.random.u32(0..one_in) == 0
    }

    pub fn random_partition(&mut self) -> usize {
        self.random.usize(0..self.partitions)
    }

    fn latency(&mut self) -> Duration {
        Duration::from_millis(self.random.u64(0..=self.latency_max_ms))
    }

    fn is_reachable(&self, partition: &TopicPartition) -> bool {
        !self.is_away && !self.without_leader.contains(partition)
    }

    /// A broker takes a request. `is_there` says that an earlier attempt has arrived.
    fn receive(
        &mut self,
        partition: &TopicPartition,
        batch: &[Record],
        is_there: &mut bool,
        records: &dyn RecordObserver,
    ) -> Answer {
        if !self.is_reachable(partition) || self.happens(self.lost_requests) {
            return Answer::Nothing;
        }
        if std::mem::take(&mut self.producer_fails) {
            return Answer::Fatal;
        }
        if let Some(code) = self.refusing.get(&partition.0).filter(|_| !*is_there) {
            return Answer::Refused(vec![*code; batch.len()]);
        }
        let refusals: Vec<_> = batch.iter().map(|record| records.refusal(record)).collect();
        if !*is_there && refusals.iter().any(Option::is_some) {
            let is_too_large = |code: &Option<Code>| *code == Some(Code::MessageSizeTooLarge);
            let several = refusals.iter().flatten().count() > 1;
            let each = |refusal: &Option<Code>| match refusal {
                // The broker says it of the request.
                _ if refusals.iter().any(is_too_large) => Code::MessageSizeTooLarge,
                // The client says no more where several are refused.
                Some(_) if several => Code::InvalidRecord,
                Some(code) => *code,
                None => Code::InvalidDifferentRecord,
            };
            return Answer::Refused(refusals.iter().map(each).collect());
        }
        if !*is_there && self.happens(self.unproven) {
            if self.random.bool() {
                batch.iter().for_each(|record| records.logged(partition, record));
            }
            return Answer::Unproven;
        }
        if !std::mem::replace(is_there, true) {
            batch.iter().for_each(|record| records.logged(partition, record));
        }
        if self.happens(self.lost_answers) { Answer::Nothing } else { Answer::Acknowledged }
    }
}

/// A client and its supervisor, for one life of the process.
pub(crate) struct SimulatedKafka {
    cluster: Arc<SimulatedCluster>,
    records: Arc<dyn RecordObserver>,
    current: Arc<CurrentClient<SimulatedClient>>,
    subscribers: Subscribers,
    requests: Mutex<Receiver<SupervisorRequest>>,
    limits: ClientLimits,
}

/// What a client is set to.
#[derive(Debug, Clone, Copy)]
pub(crate) struct ClientLimits {
    pub queue_max: usize,
    /// Whether the operator has set how long it waits for more records.
    pub lingers: bool,
    /// Without a spool the client gives up after this.
    pub timeout: Option<Duration>,
}

struct SimulatedClient(Arc<ClientCore>);

struct ClientCore {
    context: Context,
    cluster: Arc<SimulatedCluster>,
    records: Arc<dyn RecordObserver>,
    limits: ClientLimits,
    queued: AtomicUsize,
    /// After a fatal error, and once it is closed, a client takes nothing more.
    is_broken: AtomicBool,
    broken: Notify,
    partitions: Mutex<BTreeMap<TopicPartition, Arc<PartitionQueue>>>,
}

#[derive(Default)]
struct PartitionQueue {
    waiting: Mutex<VecDeque<Arc<InFlightRecord>>>,
    in_flight: Mutex<Vec<Arc<InFlightRecord>>>,
    wakeup: Notify,
    task: Mutex<Option<AbortHandle>>,
}

impl SimulatedKafka {
    pub fn start(
        cluster: &Arc<SimulatedCluster>,
        records: &Arc<dyn RecordObserver>,
        (metrics, health, breaker): (Arc<Metrics>, Arc<Health>, Arc<CircuitBreaker>),
        limits: ClientLimits,
    ) -> Arc<SimulatedKafka> {
        let (supervisor, requests) = sync_channel(64);
        let subscribers = Subscribers { metrics, health, breaker, supervisor };
        let (cluster, records) = (cluster.clone(), records.clone());
        let first = client(0, &cluster, &records, &subscribers, limits);
        let (current, requests) = (CurrentClient::new(first), Mutex::new(requests));
        let kafka = SimulatedKafka { cluster, records, current, subscribers, requests, limits };
        let kafka = Arc::new(kafka);
        let supervisor = kafka.clone();
        kafka.records.spawn(Box::pin(async move { supervisor.supervise().await }));
        kafka
    }

    pub fn publisher(&self) -> Publisher {
        self.current.publisher()
    }

    /// Starts the sender task of a publisher.
    pub fn start_sender(&self, publisher: &Publisher) -> AbortHandle {
        let task = self.current.clone().sender_task(publisher);
        self.records.spawn(Box::pin(async move { match task.await {} }))
    }

    /// Does once in a while what the supervisor and librdkafka's own threads do.
    async fn supervise(&self) {
        let mut is_silent = false;
        loop {
            let (pause, moment) = {
                let random = &mut self.cluster.state().random;
                (random.u64(1..=1_000), random.u64(0..=3))
            };
            // The supervisor hears at once of a producer that failed.
            let client = self.current.client.load_full();
            let _ = timeout(Duration::from_millis(pause), client.0.broken.notified()).await;
            sleep(Duration::from_millis(moment)).await;
            let is_away = self.cluster.state().is_away;
            if !is_away {
                self.subscribers.health.broker_responded();
            } else if !is_silent {
                let error = KafkaError::Global(Code::AllBrokersDown);
                client.0.context.error(error, "all of them");
            }
            is_silent = is_away;
            let generation = self.current.generation();
            let requests: Vec<_> = lock(&self.requests).try_iter().collect();
            let replace = |request: &SupervisorRequest| matches!(request, SupervisorRequest::Replace(g) if *g == generation);
            if requests.iter().any(replace) {
                self.replace(generation + 1);
            }
        }
    }

    fn replace(&self, generation: u64) {
        self.records.note(&|| format!("producer {generation} takes over"));
        let next = client(generation, &self.cluster, &self.records, &self.subscribers, self.limits);
        let old = self.current.replace(next);
        for queue in lock(&old.0.partitions).values() {
            for sent in lock(&queue.in_flight).iter().chain(&*lock(&queue.waiting)) {
                self.records.outlives_its_client(sent.record());
            }
        }
        let pause = self.cluster.state().random.u64(0..=PURGED_WITHIN_MS);
        self.records.spawn(Box::pin(async move {
            sleep(Duration::from_millis(pause)).await;
            old.0.purge();
        }));
    }

    /// How many records the client has.
    pub fn queued(&self) -> usize {
        self.current.client.load().0.queued.load(Ordering::SeqCst)
    }

    /// Closes the client, which has until now sent what it could.
    pub fn close(&self) -> usize {
        let left = self.queued();
        self.current.client.load_full().0.purge();
        left
    }
}

fn client(
    generation: u64,
    cluster: &Arc<SimulatedCluster>,
    records: &Arc<dyn RecordObserver>,
    subscribers: &Subscribers,
    limits: ClientLimits,
) -> SimulatedClient {
    let observed = Mutex::default();
    let context = Context { generation, subscribers: subscribers.clone(), observed };
    SimulatedClient(Arc::new(ClientCore {
        context,
        cluster: cluster.clone(),
        records: records.clone(),
        limits,
        queued: AtomicUsize::new(0),
        is_broken: AtomicBool::new(false),
        broken: Notify::new(),
        partitions: Mutex::default(),
    }))
}

impl RecordSink for SimulatedClient {
    fn generation(&self) -> u64 {
        self.0.context.generation
    }

    fn lingers(&self) -> bool {
        self.0.limits.lingers
    }

    fn send(&self, sent: Arc<InFlightRecord>) {
        let core = &self.0;
        if core.is_broken.load(Ordering::SeqCst) {
            core.records.failed(sent.record(), "the producer is broken", Order::Kept);
            return core.context.settle(sent, Err(Failure::new(Code::Fatal)));
        }
        if core.queued.load(Ordering::SeqCst) >= core.limits.queue_max {
            core.records.failed(sent.record(), "the client's queue is full", Order::AmongAnswered);
            return core.context.settle(sent, Err(Failure::new(Code::QueueFull)));
        }
        core.queued.fetch_add(1, Ordering::SeqCst);
        let partition = core.partition_of(sent.record());
        let mut partitions = lock(&core.partitions);
        let queue = partitions.entry(partition.clone()).or_default().clone();
        drop(partitions);
        lock(&queue.waiting).push_back(sent);
        queue.wakeup.notify_one();
        let mut task = lock(&queue.task);
        if task.is_none() {
            let (core, queue) = (core.clone(), queue.clone());
            let records = core.records.clone();
            *task =
                Some(records.spawn(Box::pin(async move { core.deliver(partition, &queue).await })));
        }
    }
}

impl ClientCore {
    fn partition_of(&self, record: &Record) -> TopicPartition {
        let count = self.cluster.state().partitions;
        let partition = match record.key() {
            Some(key) => crc32fast::hash(key) as usize % count,
            None => self.cluster.state().random.usize(0..count),
        };
        (record.topic().clone(), partition)
    }

    /// Sends batch after batch to one partition.
    async fn deliver(&self, partition: TopicPartition, queue: &PartitionQueue) {
        loop {
            while lock(&queue.waiting).is_empty() {
                queue.wakeup.notified().await;
            }
            let pause = self.cluster.state().latency();
            sleep(pause).await;
            let size = self.cluster.state().random.usize(1..=BATCH_MAX);
            let batch: Vec<_> = {
                let mut waiting = lock(&queue.waiting);
                let size = size.min(waiting.len());
                waiting.drain(..size).collect()
            };
            lock(&queue.in_flight).clone_from(&batch);
            let answer = self.send_batch(&partition, &batch).await;
            lock(&queue.in_flight).clear();
            let reports: Vec<DeliveryReport> = match answer {
                Answer::Acknowledged => vec![Ok(()); batch.len()],
                Answer::Refused(codes) => {
                    codes.into_iter().map(|code| Err(Failure::new(code))).collect()
                }
                Answer::Unproven => vec![Err(Failure::unproven()); batch.len()],
                Answer::Fatal => {
                    if !self.is_broken.swap(true, Ordering::SeqCst) {
                        let error = KafkaError::Global(Code::Fatal);
                        self.context.error(error, "the broker has lost the producer's state");
                        self.broken.notify_one();
                    }
                    vec![Err(Failure::new(Code::Fatal)); batch.len()]
                }
                Answer::Nothing => vec![Err(Failure::new(Code::MessageTimedOut)); batch.len()],
            };
            for (sent, report) in batch.into_iter().zip(reports) {
                self.settle(sent, report);
            }
        }
    }

    /// Sends a batch until there is an answer; gives up only where there is no spool.
    async fn send_batch(
        &self,
        partition: &TopicPartition,
        batch: &[Arc<InFlightRecord>],
    ) -> Answer {
        let records: Vec<Record> = batch.iter().map(|sent| sent.record().clone()).collect();
        let (mut is_there, mut backoff_ms) = (false, 50);
        loop {
            if self.is_broken.load(Ordering::SeqCst) && !is_there {
                // It keeps what it has until it is closed.
                return std::future::pending().await;
            }
            let is_late = |timeout| batch.iter().any(|sent| sent.sent_at.elapsed() >= timeout);
            if self.limits.timeout.is_some_and(is_late) {
                return Answer::Nothing;
            }
            if self.cluster.state().is_reachable(partition) {
                // What has arrived does not arrive again: the broker knows the producer's sequence numbers.
                let on_its_way = if is_there { &[][..] } else { &records };
                let (number, latency) = self.put_on_the_wire(partition, on_its_way);
                sleep(latency).await;
                let answer = {
                    let mut state = self.cluster.state();
                    state.on_the_wire.remove(&number);
                    state.receive(partition, &records, &mut is_there, &*self.records)
                };
                let latency = self.cluster.state().latency();
                sleep(latency).await;
                if !matches!(answer, Answer::Nothing) {
                    return answer;
                }
            }
            let pause = self.cluster.state().random.u64(1..=backoff_ms);
            sleep(Duration::from_millis(pause)).await;
            backoff_ms = (backoff_ms * 2).min(2_000);
        }
    }

    fn put_on_the_wire(&self, partition: &TopicPartition, records: &[Record]) -> (u64, Duration) {
        let mut state = self.cluster.state();
        state.next_request += 1;
        let number = state.next_request;
        state.on_the_wire.insert(number, (partition.clone(), records.to_vec()));
        (number, state.latency())
    }

    fn settle(&self, sent: Arc<InFlightRecord>, report: DeliveryReport) {
        self.queued.fetch_sub(1, Ordering::SeqCst);
        if let Err(failure) = report {
            let is_kept = failure.remedy() == Remedy::Rebuild;
            let order = if is_kept { Order::Kept } else { Order::Lost };
            self.records.failed(sent.record(), &format!("{:?}", failure.fault), order);
        }
        self.context.settle(sent, report);
    }

    /// Fails what the client still has. A request on its way may arrive all the same.
    fn purge(&self) {
        self.is_broken.store(true, Ordering::SeqCst);
        let partitions = std::mem::take(&mut *lock(&self.partitions));
        for queue in partitions.into_values() {
            if let Some(task) = lock(&queue.task).take() {
                task.abort();
            }
            let in_flight = std::mem::take(&mut *lock(&queue.in_flight));
            let waiting = std::mem::take(&mut *lock(&queue.waiting));
            for (sent, code) in in_flight
                .into_iter()
                .map(|sent| (sent, Code::PurgeInflight))
                .chain(waiting.into_iter().map(|sent| (sent, Code::PurgeQueue)))
            {
                self.settle(sent, Err(Failure::new(code)));
            }
        }
        self.cluster.end_life(&*self.records);
    }
}
