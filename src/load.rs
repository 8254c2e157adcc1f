//! A load of clicks over HTTP/1.1, for `hookbridge send` and the benchmark.
//!
//! - Closed loop: each connection sends its next click when the last one is answered.
//! - Open loop: clicks are due at an even rate, whether or not earlier ones are answered, and each is
//!   timed from the moment when it was due. So the time that a click waits for a server that stalls counts,
//!   too (coordinated omission).
//!
//! `clicks.rs` makes bodies, `target.rs` the requests, `connection.rs` sends one and reads its response,
//! `tally.rs` counts.

mod clicks;
mod connection;
mod tally;
mod target;

use std::ops::Range;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use bytes::Bytes;
use http_body_util::Full;
use hyper::Request;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, timeout};

pub use clicks::{Bodies, Clicks};
pub use connection::{Connection, ExchangeError, ServerResponse};
pub use tally::{Tally, histogram};
pub use target::{AuthMethod, Target};

use crate::observe::lock;

/// How long a connection waits before it tries again to connect.
const CONNECT_PAUSE: Duration = Duration::from_millis(100);

/// How often to look which clicks are due.
const SCHEDULE_INTERVAL: Duration = Duration::from_micros(200);

/// The shape of a load.
#[derive(Debug, Clone, Copy)]
pub struct Plan {
    pub connections: usize,
    /// Clicks a second of an open loop; none for a closed loop.
    pub rate: Option<u32>,
    /// Stop after this many clicks.
    pub count: Option<u64>,
    /// Stop after this time.
    pub duration: Option<Duration>,
    /// How long a response may take, and the connection before it if there is none.
    pub timeout: Duration,
}

impl Plan {
    /// How many clicks there will be, if there is a limit.
    pub fn total(&self) -> Option<u64> {
        let due = self.rate.zip(self.duration).map(|(rate, duration)| {
            let due = u128::from(rate) * duration.as_nanos() / 1_000_000_000;
            u64::try_from(due).unwrap_or(u64::MAX)
        });
        [self.count, due].into_iter().flatten().min()
    }
}

/// Clicks at an even rate.
#[derive(Debug, Clone, Copy)]
pub struct Schedule {
    pub start: Instant,
    /// Clicks a second.
    pub rate: u32,
}

impl Schedule {
    /// When the click with this number is due.
    pub fn due(self, number: u64) -> Instant {
        let nanoseconds = u128::from(number) * 1_000_000_000 / u128::from(self.rate.max(1));
        self.start + Duration::from_nanos(u64::try_from(nanoseconds).unwrap_or(u64::MAX))
    }

    /// Calls with the numbers that have become due, until that returns false. Blocks the thread.
    pub fn run(self, mut call: impl FnMut(Range<u64>) -> bool) {
        let mut called = 0;
        loop {
            std::thread::sleep(SCHEDULE_INTERVAL);
            let now = Instant::now();
            let mut next = called;
            while self.due(next) <= now {
                next += 1;
            }
            if !call(called..next) {
                return;
            }
            called = next;
        }
    }
}

/// A running load.
pub struct Load {
    shared: Arc<RunningLoad>,
    connections: JoinSet<()>,
}

struct RunningLoad {
    target: Arc<Target>,
    plan: Plan,
    total: u64,
    start: Instant,
    /// Of an open loop.
    schedule: Option<Schedule>,
    is_stopped: AtomicBool,
    /// The number of the next click.
    next: AtomicU64,
    /// A permit for each click of the open loop that is due.
    due: Semaphore,
    /// How many those were so far.
    released: AtomicU64,
    tally: Mutex<Tally>,
}

impl Load {
    /// Starts a load on this runtime. Each connection gets bodies of its own.
    pub fn start(target: Arc<Target>, bodies: &Bodies, plan: Plan) -> Load {
        let start = Instant::now();
        let shared = Arc::new(RunningLoad {
            target,
            plan,
            total: plan.total().unwrap_or(u64::MAX),
            start,
            schedule: plan.rate.map(|rate| Schedule { start, rate }),
            is_stopped: AtomicBool::new(false),
            next: AtomicU64::new(0),
            due: Semaphore::new(0),
            released: AtomicU64::new(0),
            tally: Mutex::default(),
        });
        if let Some(schedule) = shared.schedule {
            let shared = shared.clone();
            std::thread::spawn(move || schedule.run(|due| shared.release(due)));
        }
        let (mut bodies, mut connections) = (bodies.clone(), JoinSet::new());
        for _ in 0..plan.connections {
            connections.spawn(send_clicks(shared.clone(), bodies.fork()));
        }
        Load { shared, connections }
    }

    /// The results so far.
    pub fn tally(&self) -> MutexGuard<'_, Tally> {
        lock(&self.shared.tally)
    }

    pub fn elapsed(&self) -> Duration {
        self.shared.start.elapsed()
    }

    /// Sends no more clicks. Responses to those in flight are still read.
    pub fn stop(&self) {
        self.shared.is_stopped.store(true, Ordering::Relaxed);
        self.shared.due.close();
    }

    /// Waits for the last response. May be given up and called again.
    pub async fn done(&mut self) {
        while self.connections.join_next().await.is_some() {}
    }

    /// The results, and how many clicks were due and not sent.
    pub fn end(self) -> (Tally, u64) {
        let tally = std::mem::take(&mut *self.tally());
        let unsent = self.shared.released.load(Ordering::Relaxed).saturating_sub(tally.sent());
        (tally, unsent)
    }
}

/// Sends clicks over one connection, one after the other.
async fn send_clicks(shared: Arc<RunningLoad>, mut bodies: Bodies) {
    let mut connection = None;
    while let Some((number, due)) = shared.turn().await {
        let request = shared.target.request(bodies.get(number));
        let exchange = exchange(&shared.target, &mut connection, request);
        let result = timeout(shared.plan.timeout, exchange).await;
        let result = result.unwrap_or(Err(ExchangeError::Late));
        let pauses = matches!(result, Err(ExchangeError::Connect(_)));
        lock(&shared.tally).note(number, result, due.elapsed());
        if pauses {
            sleep(CONNECT_PAUSE).await;
        }
    }
}

/// Sends a click, over a new connection where there is none or the old one is not usable.
async fn exchange(
    target: &Target,
    connection: &mut Option<Connection>,
    request: Request<Full<Bytes>>,
) -> Result<ServerResponse, ExchangeError> {
    connection.take_if(|open| !open.is_usable());
    let connection = match connection {
        Some(open) => open,
        None => connection.insert(target.connect().await?),
    };
    connection.exchange(request).await
}

impl RunningLoad {
    /// The next click's number, and the moment from which it is timed; none when there are no more.
    async fn turn(&self) -> Option<(u64, Instant)> {
        if self.plan.rate.is_some() {
            self.due.acquire().await.ok()?.forget();
        }
        let now = Instant::now();
        let is_over = || self.plan.duration.is_some_and(|duration| now >= self.start + duration);
        if self.is_stopped.load(Ordering::Relaxed) || (self.plan.rate.is_none() && is_over()) {
            return None;
        }
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        let due = self.schedule.map_or(now, |schedule| schedule.due(number));
        (number < self.total).then_some((number, due))
    }

    /// Releases the clicks that have become due. False when those were the last; then each connection gets
    /// one turn more, which ends it.
    fn release(&self, due: Range<u64>) -> bool {
        // The load lasts until one more click would be due: the last one has its whole interval.
        let is_last = due.end > self.total;
        self.released.store(due.end.min(self.total), Ordering::Relaxed);
        self.due.add_permits(due.count());
        if is_last {
            self.due.add_permits(self.plan.connections);
        }
        !is_last && !self.is_stopped.load(Ordering::Relaxed)
    }
}
