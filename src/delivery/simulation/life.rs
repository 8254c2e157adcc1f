//! A life of the process: started as the bridge starts it, with requests and faults, until it is killed or told to
//! stop; and what must hold once everything works again.

use std::sync::Arc;
use std::time::Duration;

use tokio::task::{AbortHandle, JoinHandle};
use tokio::time::{Instant, sleep, timeout_at};

use super::super::backlog::emptied;
use super::super::forwarder::Forwarder;
use super::super::spool::disk::simulated::SyncFault;
use super::super::spool::{Spool, simulated};
use super::super::{Delivery, DeliveryState};
use super::faults::InjectedFault;
use super::ledger::EventKind;
use super::world::{KEYS, Life, World};
use crate::click::outcome::{Held, Refusal, Rejection};
use crate::config::SpoolSettings;
use crate::kafka::CircuitBreaker;
use crate::kafka::simulated::{ClientLimits, RecordObserver, SimulatedKafka};

const ACK_TIMEOUT: Duration = Duration::from_millis(1_500);
const ANSWER_TIMEOUT: Duration = Duration::from_secs(3);
const DRAIN_TIMEOUT: Duration = Duration::from_secs(10);
const FLUSH_RESERVE: Duration = Duration::from_secs(1);

/// After the last fault the spool is empty and the breaker closed within this.
const RECOVERED_WITHIN: Duration = Duration::from_secs(60);

/// And what was set aside is delivered within this: it is tried once a minute.
const RETRIED_WITHIN: Duration = Duration::from_secs(400);

/// Every request of the client has its answer by then.
const SETTLED_AFTER: Duration = Duration::from_secs(10);

/// A spool that is often full.
pub(super) const SMALL_SPOOL: u64 = 30_000;

const LOOK_INTERVAL: Duration = Duration::from_millis(200);

/// How a life ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum LifeEnd {
    /// Killed at a poll of a task, or after a time: the process, or the whole machine.
    Kill {
        poll: u64,
        after: Duration,
        loses_power: bool,
    },
    /// The power goes at a sync.
    PowerCut {
        sync: usize,
        after: Duration,
    },
    Stop {
        after: Duration,
    },
    /// Everything works again after this time.
    Heal {
        after: Duration,
    },
}

/// What a history is like; drawn once from its seed.
#[derive(Debug, Clone)]
pub(super) struct HistoryPlan {
    pub has_spool: bool,
    pub max_bytes: u64,
    pub queue_max: usize,
    pub lingers: bool,
    pub events: usize,
    /// Events of one body at most.
    pub body_max: usize,
    pub keys: usize,
    pub padding_max: usize,
    /// One event in so many is bad; 0 for none.
    pub bad_events: u32,
    pub faults: Vec<InjectedFault>,
    pub fault_pause: Duration,
    /// How long requests come, and in how many bursts; 0 for none.
    pub span: Duration,
    pub bursts: u64,
    pub lives: Vec<LifeEnd>,
}

impl HistoryPlan {
    pub fn draw(world: &World) -> HistoryPlan {
        let longest = Duration::from_secs(60);
        let span = world.time_up_to(longest) + Duration::from_millis(50);
        let fault_pause = world.time_up_to(Duration::from_secs(10)) + Duration::from_millis(20);
        let count = world.draw(|random| random.usize(0..=2));
        let mut lives: Vec<LifeEnd> = (0..count).map(|_| LifeEnd::draw(world, longest)).collect();
        lives.push(LifeEnd::Heal { after: world.time_up_to(longest) });
        // Each history has only some of the faults, so that rare ones are not hidden by others.
        let share = world.draw(|random| random.u32(0..=6));
        let faults = InjectedFault::ALL.into_iter();
        let faults = faults.filter(|_| world.draw(|random| random.u32(0..10)) < share).collect();
        world.draw(|random| {
            let mut one_in = |count: u32| random.u32(0..count) == 0;
            HistoryPlan {
                has_spool: !one_in(12),
                max_bytes: if one_in(6) { SMALL_SPOOL } else { 1 << 20 },
                queue_max: if one_in(8) { 6 } else { 1_000 },
                lingers: one_in(4),
                padding_max: if one_in(6) { 6_000 } else { 200 },
                bad_events: if one_in(3) { 6 } else { 0 },
                body_max: if one_in(3) { 5 } else { 1 },
                events: random.usize(2..50),
                keys: random.usize(1..=KEYS.len()),
                faults,
                fault_pause,
                span,
                bursts: random.u64(0..4),
                lives,
            }
        })
    }
}

impl LifeEnd {
    fn draw(world: &World, longest: Duration) -> LifeEnd {
        let after = world.time_up_to(longest);
        world.draw(|random| match random.u32(0..4) {
            0 => LifeEnd::Stop { after },
            1 => LifeEnd::PowerCut { sync: random.usize(1..60), after },
            _ => {
                let poll = 2_f64.powf(random.f64() * 12.0 + 3.0) as u64;
                LifeEnd::Kill { poll, after, loses_power: random.bool() }
            }
        })
    }
}

/// What runs in a life.
struct Process {
    life: Arc<Life>,
    state: DeliveryState,
    kafka: Arc<SimulatedKafka>,
    spool: Option<Arc<Spool>>,
    workers: Vec<Delivery>,
    forwarder: Option<AbortHandle>,
    writer: Option<JoinHandle<()>>,
    senders: Vec<AbortHandle>,
}

/// Lives until the end that is planned.
pub(super) async fn live(world: &Arc<World>, plan: &HistoryPlan, number: usize) {
    let end = plan.lives[number];
    let poll = if let LifeEnd::Kill { poll, .. } = end { poll } else { u64::MAX };
    let life = Life::begin(world, poll);
    life.world.tell(|| format!("life {number} begins: {end:?}"));
    if !plan.faults.is_empty() && world.one_in(3) {
        // As the process starts.
        let at = world.draw(|random| random.usize(0..plan.faults.len()));
        life.begin_fault(plan.faults[at]);
    }
    let run = async {
        let Some(process) = Process::start(&life, plan, number) else {
            // Nothing starts without power.
            return;
        };
        process.run(plan, number).await;
    };
    tokio::select! {
        biased;
        () = life.ended.notified() => {}
        () = run => {}
    }
    life.end();
    // A stop does not wait for the last acknowledgements where no broker has been heard from yet.
    if !matches!(end, LifeEnd::Heal { .. }) {
        world.ledger().forgets_what_left();
    }
    match end {
        LifeEnd::PowerCut { .. } | LifeEnd::Kill { loses_power: true, .. } => {
            life.world.tell(|| "what was not synced is lost".to_owned());
            world.disk.cut_power();
            world.counts().power_cuts += 1;
        }
        LifeEnd::Kill { .. } => world.counts().crashes += 1,
        LifeEnd::Stop { .. } => world.counts().stops += 1,
        LifeEnd::Heal { .. } => {}
    }
    world.cluster.end_life(&*life);
    life.end_faults();
    world.end_life();
}

impl Process {
    fn start(life: &Arc<Life>, plan: &HistoryPlan, number: usize) -> Option<Process> {
        let world = &life.world;
        let (health, refusals, backpressure) = Default::default();
        let metrics = world.metrics.clone();
        let breaker = CircuitBreaker::new(metrics.breaker.clone(), plan.has_spool);
        let ack_timeout = ACK_TIMEOUT;
        let state = DeliveryState { breaker, health, metrics, refusals, backpressure, ack_timeout };
        if let LifeEnd::PowerCut { sync, .. } = plan.lives[number] {
            let mut disk = world.disk.state();
            let at = disk.syncs + sync;
            disk.fault = Some((at, SyncFault::PowerCut));
        }
        let limits = ClientLimits {
            queue_max: plan.queue_max,
            lingers: plan.lingers,
            timeout: (!plan.has_spool).then_some(ACK_TIMEOUT),
        };
        let of_life: Arc<dyn RecordObserver> = life.clone();
        let DeliveryState { metrics, health, breaker, .. } = state.clone();
        let kafka =
            SimulatedKafka::start(&world.cluster, &of_life, (metrics, health, breaker), limits);
        let mut process = Process {
            life: life.clone(),
            state,
            kafka,
            spool: None,
            workers: Vec::new(),
            forwarder: None,
            writer: None,
            senders: Vec::new(),
        };
        if plan.has_spool {
            process.start_spool(plan, number)?;
        }
        for _ in 0..2 {
            let publisher = process.kafka.publisher();
            process.senders.push(process.kafka.start_sender(&publisher));
            let (spool, state) = (process.spool.clone(), process.state.clone());
            process.workers.push(Delivery { publisher, spool, state });
        }
        Some(process)
    }

    fn start_spool(&mut self, plan: &HistoryPlan, number: usize) -> Option<()> {
        let (life, world) = (&self.life, &self.life.world);
        let settings = SpoolSettings { max_bytes: plan.max_bytes, ..SpoolSettings::default() };
        // As by the clock of the machine, which does not stand still between two lives.
        let time_ms = 1_700_000_000_000 + life.world.now().as_millis() as u64 + number as u64;
        let (metrics, health) = (world.metrics.spool.clone(), self.state.health.clone());
        let opened = simulated::open(&settings, &world.disk, time_ms << 20, metrics, health);
        let (spool, writer) = opened.expect("no other process has it");
        if world.disk.state().has_no_power {
            life.world.tell(|| "the power is gone".to_owned());
            return None;
        }
        let _ = life.spool.set(spool.clone());
        let of_writer = life.clone();
        let writer = life.start(async move {
            let turn = || {
                let world = &of_writer.world;
                let some = world.draw(|random| random.usize(1..6));
                (world.disk_delay(), if world.one_in(3) { some } else { 8_192 })
            };
            writer.run(&of_writer.wake_writer, turn).await;
            of_writer.world.tell(|| "the spool is closed".to_owned());
        });
        self.writer = Some(writer);
        let publisher = self.kafka.publisher();
        self.senders.push(self.kafka.start_sender(&publisher));
        let forwarder = Forwarder::new(publisher, spool.clone(), self.state.clone());
        let forwarder = life.start(async move { match forwarder.run().await {} });
        self.forwarder = Some(forwarder.abort_handle());
        self.spool = Some(spool);
        Some(())
    }

    async fn run(self, plan: &HistoryPlan, number: usize) {
        let faults = self.life.clone().suffer(plan.faults.clone(), plan.fault_pause);
        let faults = self.life.start(faults);
        let requests = self.start_requests(plan, number);
        match plan.lives[number] {
            LifeEnd::Kill { after, .. } | LifeEnd::PowerCut { after, .. } => sleep(after).await,
            LifeEnd::Stop { after } => {
                sleep(after).await;
                self.stop(requests).await;
            }
            LifeEnd::Heal { after } => {
                sleep(after).await;
                faults.abort();
                self.life.heal();
                self.recover(requests).await;
                self.stop(Vec::new()).await;
            }
        }
    }

    /// Has the requests of this life come.
    fn start_requests(&self, plan: &HistoryPlan, life_number: usize) -> Vec<JoinHandle<()>> {
        let world = &self.life.world;
        let mut left = plan.events / plan.lives.len() + 1;
        let mut requests = Vec::new();
        while left > 0 {
            let size = world.draw(|random| random.usize(1..=plan.body_max)).min(left);
            left -= size;
            let numbers = (0..size).map(|_| self.draw_event(plan, life_number)).collect();
            let span_ms = plan.span.as_millis() as u64;
            let burst_ms = span_ms / plan.bursts.max(1);
            let (at, padding, worker) = world.draw(|random| {
                let worker = random.usize(0..self.workers.len());
                let at = match plan.bursts {
                    0 => random.u64(0..=span_ms),
                    bursts => random.u64(0..bursts) * burst_ms + random.u64(0..6),
                };
                (at, random.usize(0..=plan.padding_max), worker)
            });
            requests.push(self.request(numbers, worker, padding, Duration::from_millis(at)));
        }
        requests
    }

    fn draw_event(&self, plan: &HistoryPlan, life_number: usize) -> usize {
        let world = &self.life.world;
        let (kind, key, topic) = world.draw(|random| {
            let is_bad = plan.bad_events > 0 && random.u32(0..plan.bad_events) == 0;
            let bad = EventKind::BAD[random.usize(0..EventKind::BAD.len())];
            let key = &KEYS[random.usize(0..plan.keys)];
            let topic = if random.u8(0..4) == 0 { "opens" } else { "clicks" };
            (if is_bad { bad } else { EventKind::Good }, key, topic)
        });
        world.ledger().add(kind, topic, key, life_number)
    }

    /// A request with these events, after a while.
    fn request(
        &self,
        numbers: Vec<usize>,
        worker: usize,
        padding: usize,
        after: Duration,
    ) -> JoinHandle<()> {
        let (life, delivery) = (self.life.clone(), self.workers[worker].clone());
        self.life.start(async move {
            sleep(after).await;
            life.hold((&delivery, worker), &numbers, padding).await;
        })
    }

    /// As the bridge stops.
    async fn stop(self, requests: Vec<JoinHandle<()>>) {
        self.life.world.tell(|| "it is told to stop".to_owned());
        let deadline = Instant::now() + DRAIN_TIMEOUT;
        let requests_deadline = deadline - FLUSH_RESERVE;
        for request in requests {
            let _ = timeout_at(requests_deadline, request).await;
        }
        if let Some(spool) = &self.spool {
            emptied(spool, &self.state, requests_deadline).await;
        }
        self.forwarder.iter().for_each(AbortHandle::abort);
        if self.spool.is_none() {
            while self.kafka.queued() > 0 && Instant::now() < deadline {
                sleep(LOOK_INTERVAL).await;
            }
        }
        self.senders.iter().for_each(AbortHandle::abort);
        self.kafka.close();
        if let Some(spool) = &self.spool {
            spool.stop_writer();
            self.life.wake_writer.notify_one();
        }
        if let Some(writer) = self.writer {
            // The disk may hang: then the process is killed.
            let _ = timeout_at(deadline + DRAIN_TIMEOUT, writer).await;
        }
        self.life.world.tell(|| "it has stopped".to_owned());
    }

    /// Everything works: each request is answered, and what is held reaches Kafka in time.
    async fn recover(&self, requests: Vec<JoinHandle<()>>) {
        for request in requests {
            let _ = request.await;
        }
        let spool = self.spool.as_ref();
        let healed = Instant::now();
        let waits = || spool.is_some_and(|spool| !spool.is_empty());
        self.wait_until(healed + RECOVERED_WITHIN, || !waits()).await;
        let set_aside = || spool.map_or(0, |spool| spool.set_aside());
        self.wait_until(healed + RETRIED_WITHIN, || set_aside() == 0 && !waits()).await;
        // The disk is opened again, and the client has an answer to everything.
        sleep(SETTLED_AFTER).await;
        let deadline = Instant::now() + RECOVERED_WITHIN;
        while (self.state.breaker.is_open() || waits()) && Instant::now() < deadline {
            // It closes with the next event that is acknowledged, which there may not have been.
            self.hold_one_more("clicks", &KEYS[0]).await;
            sleep(LOOK_INTERVAL).await;
        }
        let claims = || spool.map_or(0, |spool| spool.claimed());
        self.wait_until(Instant::now() + ANSWER_TIMEOUT, || claims() == 0).await;
        let breaker = &self.state.breaker;
        if waits() || set_aside() > 0 || claims() > 0 || breaker.is_open() || !breaker.is_idle() {
            let (events, is_open) = (spool.map_or(0, |s| s.events()), self.state.breaker.is_open());
            let (set_aside, claims) = (set_aside(), claims());
            let is_idle = self.state.breaker.is_idle();
            self.life.world.ledger().violate(format!(
                "not recovered: {events} events wait, {set_aside} set aside, {claims} claims, breaker open: \
                 {is_open}, idle: {is_idle}"
            ));
            return;
        }
        // Every key goes directly again.
        for topic in ["clicks", "opens"] {
            for key in KEYS.iter() {
                let answer = self.hold_one_more(topic, key).await;
                if answer != Some(Ok(Held::InKafka)) {
                    let what = format!("{topic}/{key} does not go directly: {answer:?}");
                    self.life.world.ledger().violate(what);
                }
            }
        }
    }

    async fn hold_one_more(&self, topic: &'static str, key: &str) -> Option<Result<Held, Refusal>> {
        let number = self.life.world.ledger().add(EventKind::Good, topic, key, usize::MAX);
        self.life.hold((&self.workers[0], 0), &[number], 0).await;
        self.life.world.ledger().events[number].answer
    }

    async fn wait_until(&self, deadline: Instant, mut is_so: impl FnMut() -> bool) {
        while !is_so() && Instant::now() < deadline {
            sleep(LOOK_INTERVAL).await;
        }
    }
}

impl Life {
    /// Holds the events of a body, and notes the answer.
    async fn hold(
        &self,
        (delivery, worker): (&Delivery, usize),
        numbers: &[usize],
        padding: usize,
    ) {
        let records: Vec<_> =
            numbers.iter().map(|number| self.world.record(*number, padding)).collect();
        self.world.tell(|| format!("{numbers:?} arrive"));
        self.world.ledger().arrive(numbers, worker, self.world.now());
        let deadline = Instant::now() + ANSWER_TIMEOUT;
        let is_one = records.len() == 1;
        let result = match records.into_iter().next().filter(|_| is_one) {
            Some(record) => delivery.hold(record, deadline).await,
            None => {
                let records = numbers.iter().map(|number| self.world.record(*number, padding));
                delivery.hold_all(records.collect(), deadline).await
            }
        };
        let answer =
            result.map(|receipt| receipt.held()).map_err(|Rejection { refusal, .. }| refusal);
        self.answered(numbers, deadline, answer);
    }
}
