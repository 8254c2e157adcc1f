//! What outlives a life of the process: the cluster, the disk, the clock, the ledger; and how tasks take turns.

use std::collections::HashMap;
use std::io;
use std::ops::AddAssign;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, LazyLock, Mutex, MutexGuard, OnceLock, Weak};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::Notify;
use tokio::task::{AbortHandle, JoinHandle};
use tokio::time::Instant;

use super::super::spool::Spool;
use super::super::spool::disk::simulated::SimulatedDisk;
use super::ledger::{EventKind, EventLedger, number_in};
use crate::click::outcome::{Held, Refusal};
use crate::click::record::{Record, tests::record_of_topic};
use crate::kafka::simulated::{Code, Order, RecordObserver, SimulatedCluster, TopicPartition};
use crate::observe::lock;
use crate::observe::metrics::Metrics;

/// Turns of all tasks in one life: ten times as many as any has needed.
const POLLS_MAX: u64 = 1_000_000;

/// One history.
pub(super) struct World {
    random: Mutex<fastrand::Rng>,
    pub cluster: Arc<SimulatedCluster>,
    pub disk: SimulatedDisk,
    ledger: Arc<Mutex<EventLedger>>,
    pub metrics: Arc<Metrics>,
    /// How long the lives before this one took, and when it began.
    clock: Mutex<(Duration, Option<Instant>)>,
    /// Whether topics take what they refused before.
    limits_are_raised: AtomicBool,
    /// None while nobody reads it.
    history: Option<Mutex<Vec<String>>>,
    counts: Mutex<HistoryCounts>,
    /// The longest that the disk takes for something.
    disk_delay: Mutex<Duration>,
}

/// What happened in a history, or in many.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct HistoryCounts {
    pub events: u64,
    pub on_disk: u64,
    pub refused: u64,
    pub duplicates: u64,
    pub faults: u64,
    pub crashes: u64,
    pub power_cuts: u64,
    pub stops: u64,
    pub seconds: u64,
}

/// Begins a line of the log in a history.
pub(super) const LOGGED: &str = "  log: ";

/// Takes the log of the bridge into the history.
pub(super) struct LogLine(pub Arc<World>);

impl io::Write for LogLine {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        self.0.tell(|| format!("{LOGGED}{}", String::from_utf8_lossy(line).trim()));
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl AddAssign for HistoryCounts {
    fn add_assign(&mut self, more: HistoryCounts) {
        self.events += more.events;
        self.on_disk += more.on_disk;
        self.refused += more.refused;
        self.duplicates += more.duplicates;
        self.faults += more.faults;
        self.crashes += more.crashes;
        self.power_cuts += more.power_cuts;
        self.stops += more.stops;
        self.seconds += more.seconds;
    }
}

/// One life of the process.
pub(super) struct Life {
    this: Weak<Life>,
    pub world: Arc<World>,
    polls: AtomicU64,
    /// The process ends at this poll of a task.
    ends_at_poll: u64,
    has_ended: AtomicBool,
    /// Notified when it ends.
    pub ended: Notify,
    pub wake_writer: Notify,
    pub spool: OnceLock<Arc<Spool>>,
}

/// A task whose turn comes at random, until its process ends.
struct Task {
    life: Arc<Life>,
    future: Pin<Box<dyn Future<Output = ()> + Send>>,
}

/// Keys of campaigns, of which the last two share a shard in the topic `clicks`.
pub(super) static KEYS: LazyLock<Vec<String>> = LazyLock::new(|| {
    let mut seen: HashMap<u32, u32> = HashMap::new();
    let shard = |key: u32| crc32fast::hash(format!("clicks\0{key}").as_bytes()) & 0xffff;
    let twins = (100_u32..).find_map(|key| seen.insert(shard(key), key).map(|twin| [twin, key]));
    [1, 2, 3].into_iter().chain(twins.unwrap_or_default()).map(|key| key.to_string()).collect()
});

impl World {
    pub fn new(seed: u64, metrics: &Arc<Metrics>, is_recorded: bool) -> Arc<World> {
        let mut random = fastrand::Rng::with_seed(seed);
        let partitions = random.usize(1..=3);
        let (cluster, disk) =
            (SimulatedCluster::new(random.fork(), partitions), SimulatedDisk::default());
        let ledger = Arc::<Mutex<EventLedger>>::default();
        let synced = ledger.clone();
        {
            let mut state = disk.state();
            state.random = Some(random.fork());
            state.on_sync = Some(Box::new(move |bytes| lock(&synced).synced(bytes)));
        }
        Arc::new(World {
            random: Mutex::new(random),
            cluster,
            disk,
            ledger,
            metrics: metrics.clone(),
            clock: Mutex::default(),
            limits_are_raised: AtomicBool::new(false),
            history: is_recorded.then(Mutex::default),
            counts: Mutex::default(),
            disk_delay: Mutex::default(),
        })
    }

    /// Draws something at random.
    pub fn draw<T>(&self, draw: impl FnOnce(&mut fastrand::Rng) -> T) -> T {
        draw(&mut lock(&self.random))
    }

    pub fn one_in(&self, count: u32) -> bool {
        self.draw(|random| random.u32(0..count)) == 0
    }

    /// A time up to this one; short ones are as likely as long ones.
    pub fn time_up_to(&self, longest: Duration) -> Duration {
        let most = longest.as_millis().max(1) as f64;
        Duration::from_millis(most.powf(self.draw(fastrand::Rng::f64)) as u64)
    }

    pub fn ledger(&self) -> MutexGuard<'_, EventLedger> {
        lock(&self.ledger)
    }

    /// Adds a line to the history.
    pub fn tell(&self, what: impl Fn() -> String) {
        if let Some(history) = &self.history {
            lock(history).push(format!("{:>10.3} s  {}", self.now().as_secs_f64(), what()));
        }
    }

    pub fn counts(&self) -> MutexGuard<'_, HistoryCounts> {
        lock(&self.counts)
    }

    /// How long the disk takes for the next turn of the spool's writer.
    pub fn disk_delay(&self) -> Duration {
        let most = *lock(&self.disk_delay) + Duration::from_millis(4);
        self.time_up_to(most)
    }

    pub fn set_disk_delay(&self, longest: Duration) {
        *lock(&self.disk_delay) = longest;
    }

    pub fn raise_limits(&self) {
        self.limits_are_raised.store(true, Ordering::SeqCst);
    }

    pub fn take_history(&self) -> Vec<String> {
        self.history.as_ref().map(|history| std::mem::take(&mut *lock(history))).unwrap_or_default()
    }

    pub fn take_counts(&self) -> HistoryCounts {
        let mut counts = *self.counts();
        let ledger = self.ledger();
        for event in &ledger.events {
            counts.events += 1;
            counts.on_disk += u64::from(event.answer == Some(Ok(Held::OnDisk)));
            counts.refused += u64::from(matches!(event.answer, Some(Err(_))));
            counts.duplicates += event.copies.saturating_sub(1) as u64;
        }
        counts.seconds = self.now().as_secs();
        counts
    }

    /// Since the history began.
    pub fn now(&self) -> Duration {
        let (before, began) = *lock(&self.clock);
        before + began.map_or(Duration::ZERO, |began| began.elapsed())
    }

    fn begin_life(&self) {
        lock(&self.clock).1 = Some(Instant::now());
    }

    /// The next life begins where this one ended.
    pub fn end_life(&self) {
        let now = self.now();
        *lock(&self.clock) = (now, None);
    }

    /// The record of an event.
    pub fn record(&self, number: usize, padding: usize) -> Record {
        let ledger = self.ledger();
        let event = &ledger.events[number];
        let body = format!(
            r##"{{"campid":"{}","id":"#{number:06}#","pad":"{}"}}"##,
            event.key,
            "x".repeat(padding)
        );
        // Two webhooks have the same topics.
        let webhook = if number.is_multiple_of(2) { "click" } else { "app" };
        record_of_topic(webhook, event.topic, Bytes::from(body))
    }
}

impl Life {
    pub fn begin(world: &Arc<World>, ends_at_poll: u64) -> Arc<Life> {
        world.begin_life();
        Arc::new_cyclic(|this| Life {
            this: this.clone(),
            world: world.clone(),
            polls: AtomicU64::new(0),
            ends_at_poll,
            has_ended: AtomicBool::new(false),
            ended: Notify::new(),
            wake_writer: Notify::new(),
            spool: OnceLock::new(),
        })
    }

    /// Ends the process: no task has another turn.
    pub fn end(&self) {
        self.has_ended.store(true, Ordering::SeqCst);
        self.ended.notify_one();
    }

    pub fn has_ended(&self) -> bool {
        self.has_ended.load(Ordering::SeqCst)
    }

    pub fn answered(&self, numbers: &[usize], deadline: Instant, answer: Result<Held, Refusal>) {
        self.world.tell(|| format!("{numbers:?} answered: {answer:?}"));
        let now = self.world.now();
        let deadline = (now + deadline.saturating_duration_since(Instant::now()))
            .saturating_sub(deadline.elapsed());
        self.world.ledger().answered(numbers, answer, (now, deadline));
    }

    pub fn start(
        self: &Arc<Self>,
        future: impl Future<Output = ()> + Send + 'static,
    ) -> JoinHandle<()> {
        tokio::spawn(Task { life: self.clone(), future: Box::pin(future) })
    }
}

impl Future for Task {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, context: &mut Context) -> Poll<()> {
        let life = self.life.clone();
        if life.has_ended() {
            return Poll::Pending;
        }
        let polls = life.polls.fetch_add(1, Ordering::SeqCst);
        if polls == life.ends_at_poll {
            life.world.tell(|| "the process is killed".to_owned());
            life.end();
            return Poll::Pending;
        }
        if polls == POLLS_MAX {
            life.world.ledger().violate("it goes round in circles".to_owned());
            life.end();
            return Poll::Pending;
        }
        if life.world.one_in(4) {
            context.waker().wake_by_ref();
            return Poll::Pending;
        }
        let polled = catch_unwind(AssertUnwindSafe(|| self.future.as_mut().poll(context)));
        let polled = polled.unwrap_or_else(|_panic| {
            life.world.ledger().violate("a task panicked".to_owned());
            Poll::Ready(())
        });
        if life.spool.get().is_some_and(|spool| spool.has_requests()) {
            life.wake_writer.notify_one();
        }
        if life.world.disk.state().has_no_power && !life.has_ended() {
            life.world.tell(|| "the power is gone".to_owned());
            life.end();
        }
        polled
    }
}

impl RecordObserver for Life {
    fn refusal(&self, record: &Record) -> Option<Code> {
        if self.world.limits_are_raised.load(Ordering::SeqCst) {
            return None;
        }
        let kind = self.world.ledger().events.get(number_in(record.value())?)?.kind;
        let is_dead_letter = record.is_dead_letter();
        match kind {
            EventKind::TooLarge if !is_dead_letter => Some(Code::MessageSizeTooLarge),
            EventKind::TooLargeForBoth => Some(Code::MessageSizeTooLarge),
            EventKind::Corrupt if !is_dead_letter => Some(Code::InvalidRecord),
            EventKind::CorruptForBoth => Some(Code::InvalidRecord),
            EventKind::OldTimestamp if !is_dead_letter && !record.is_restamped() => {
                Some(Code::InvalidTimestamp)
            }
            _ => None,
        }
    }

    fn logged(&self, partition: &TopicPartition, record: &Record) {
        self.world
            .tell(|| format!("{:?} in {}/{}", number_in(record.value()), partition.0, partition.1));
        self.world.ledger().logged(partition, record);
    }

    fn failed(&self, record: &Record, why: &str, order: Order) {
        let Some(number) = number_in(record.value()) else { return };
        self.world.tell(|| format!("{number} failed: {why}"));
        self.world.ledger().failed(number, why, order);
    }

    fn outlives_its_client(&self, record: &Record) {
        let Some(number) = number_in(record.value()) else { return };
        self.world.ledger().outlives_its_client(number);
    }

    fn spawn(&self, future: Pin<Box<dyn Future<Output = ()> + Send>>) -> AbortHandle {
        let life = self.this.upgrade().expect("a life has its tasks");
        life.start(future).abort_handle()
    }

    fn note(&self, what: &dyn Fn() -> String) {
        self.world.tell(what);
    }
}
