//! The HTTP side under a deterministic simulator: the real code of a connection on simulated time and sockets.
//!
//! A seed chooses everything: settings, connections, requests, the pieces in which their bytes arrive, pauses,
//! cuts, how answers are read, how long the handler takes, the drain. The same seed gives the same history.
//!
//! - `plan.rs`, `script.rs`: what a seed chooses.
//! - `wire.rs`: the socket.
//! - `sender.rs`, `http2.rs`: senders of HTTP/1.1 and HTTP/2.
//! - `double.rs`: the handler.
//! - `ledger.rs`, `answers.rs`: what was seen.
//! - `invariants.rs`: what must be true of it.

mod answers;
mod double;
mod http2;
mod invariants;
mod ledger;
mod plan;
mod script;
mod sender;
mod wire;

use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::runtime::Builder;
use tokio::time::{sleep, timeout};

use super::{Acceptor, Admission, Drain, Socket, serve};
use crate::observe::metrics::Metrics;
use double::Double;
use ledger::{ObservedHistory, Watch};
use plan::Plan;

/// By then every connection is closed: the longest pause of a sender is an hour.
const HORIZON: Duration = Duration::from_secs(3 * 3_600);

/// How a history went.
pub struct Run {
    /// Its lines.
    pub history: Vec<String>,
    /// What is broken.
    pub violations: Vec<String>,
    pub counts: ConnectionCounts,
}

/// What was in the histories.
#[derive(Debug, Default)]
pub struct ConnectionCounts {
    pub connections: usize,
    pub requests: usize,
    pub answers: usize,
    pub drains: usize,
    pub events: usize,
}

impl ConnectionCounts {
    fn add(&mut self, other: &ConnectionCounts) {
        self.connections += other.connections;
        self.requests += other.requests;
        self.answers += other.answers;
        self.drains += other.drains;
        self.events += other.events;
    }
}

/// Runs the history of a seed.
pub fn run(seed: u64, metrics: &Metrics, with_history: bool) -> Run {
    let runtime = Builder::new_current_thread().enable_time().start_paused(true).build();
    let runtime = runtime.unwrap_or_else(|error| panic!("no runtime: {error}"));
    runtime.block_on(live(Plan::of(seed), metrics, with_history))
}

async fn live(plan: Plan, metrics: &Metrics, with_history: bool) -> Run {
    let world = ObservedHistory::new(plan);
    let limits = Arc::new(world.plan.limits.clone());
    let acceptor = Acceptor::new(&limits, metrics.connections.clone());
    let admission = Arc::new(Admission::new(&limits, metrics.in_flight.clone()));
    let drain = Drain::default();
    let connections = (0..world.plan.connections.len()).map(|number| {
        let watch = world.watch(number);
        let (acceptor, limits, drain) = (acceptor.clone(), limits.clone(), drain.clone());
        let handler = Double { world: world.clone(), admission: admission.clone() };
        tokio::spawn(async move {
            sleep(watch.plan().opens_at).await;
            let address = watch.plan().from;
            let Some(permit) = acceptor.permit(address.ip()) else { return watch.is_full() };
            let plan = watch.plan();
            let (bridge, sender) = wire::wire(plan.rng.clone(), plan.reading.room, watch.clone());
            watch.opens();
            tokio::spawn(if plan.is_http2 {
                future(http2::send(sender, watch.clone()))
            } else {
                future(sender::send(sender, watch.clone()))
            });
            let socket = Socket { stream: bridge, peer: address, permit };
            let serve = serve(socket, &handler, &limits, &drain, None);
            Turns { watch: watch.clone(), serve: pin!(serve) }.await;
            watch.is_closed();
        })
    });
    let connections: Vec<_> = connections.collect();
    if let Some(at) = world.plan.drain_at {
        let (world, drain) = (world.clone(), drain.clone());
        tokio::spawn(async move {
            sleep(at).await;
            world.drains();
            drain.begin();
        });
    }
    let _ = timeout(HORIZON, futures_util::future::join_all(connections)).await;
    let all_closed = timeout(Duration::ZERO, acceptor.all_closed()).await.is_ok();
    // What HTTP/2 has in tasks of its own has ended, too.
    sleep(limits.body_timeout() + 2 * limits.answer_timeout()).await;
    let mut violations = check(&world, metrics);
    if !all_closed {
        violations.push("a connection keeps its place among those that are open".into());
    }
    let seen = world.seen();
    let counts = ConnectionCounts {
        connections: seen.ledgers.len(),
        requests: seen.ledgers.iter().map(|ledger| ledger.handed.len()).sum(),
        answers: seen
            .ledgers
            .iter()
            .map(|ledger| ledger.answers.all.len() + ledger.got.len())
            .sum(),
        drains: usize::from(world.plan.drain_at.is_some()),
        events: seen.history.len(),
    };
    let history = if with_history || !violations.is_empty() {
        lines(&world.plan, &seen.history)
    } else {
        Vec::new()
    };
    Run { history, violations, counts }
}

fn check(world: &ObservedHistory, metrics: &Metrics) -> Vec<String> {
    let seen = &mut *world.seen();
    let mut violations = std::mem::take(&mut seen.violations);
    for (number, ledger) in seen.ledgers.iter().enumerate() {
        if let Err(what) = invariants::check(&world.plan, number, ledger) {
            violations.push(format!("connection {number}: {what}"));
        }
    }
    let left = [
        ("requests in flight", metrics.in_flight.requests.get()),
        ("body bytes in flight", metrics.in_flight.body_bytes.get()),
        ("open connections", metrics.connections.open.get()),
    ];
    for (what, count) in left.into_iter().filter(|(_, count)| *count != 0) {
        violations.push(format!("{count} {what} are counted in the end"));
    }
    violations
}

fn future(
    future: impl Future<Output = ()> + Send + 'static,
) -> Pin<Box<dyn Future<Output = ()> + Send>> {
    Box::pin(future)
}

/// Notes the turns of a connection's task.
struct Turns<'f, F> {
    watch: Watch,
    serve: Pin<&'f mut F>,
}

impl<F: Future> Future for Turns<'_, F> {
    type Output = F::Output;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context) -> Poll<F::Output> {
        self.watch.turns();
        self.serve.as_mut().poll(context)
    }
}

/// A history as lines that a person can follow: the settings, then what happened when.
fn lines(plan: &Plan, history: &[(Duration, Option<usize>, ledger::Event)]) -> Vec<String> {
    let limits = &plan.limits;
    let mut lines = vec![format!(
        "seed {}: header_timeout {} ms, body_timeout {} ms, idle_timeout {} ms, answer_timeout {} ms",
        plan.seed,
        limits.header_timeout_ms,
        limits.body_timeout_ms,
        limits.idle_timeout_ms,
        limits.answer_timeout_ms,
    )];
    for (number, connection) in plan.connections.iter().enumerate() {
        let version = if connection.is_http2 { "HTTP/2" } else { "HTTP/1.1" };
        lines.push(format!("connection {number}: {version}, {:?}", connection.reading));
        for (number, request) in connection.requests.iter().enumerate() {
            lines.push(format!(
                "  request {number}: {} {:?} {} bytes{}{}, {:?}, an answer of {} bytes",
                request.method,
                request.framing,
                request.body.len(),
                if request.expects_continue { ", expects 100" } else { "" },
                if request.closes { ", closes" } else { "" },
                request.conduct,
                request.answer,
            ));
        }
    }
    lines.extend(history.iter().map(|(at, connection, event)| {
        let who = connection.map_or(String::new(), |number| format!("connection {number} "));
        format!("{:>8} ms  {who}{event}", at.as_millis())
    }));
    lines
}

#[cfg(test)]
#[expect(
    clippy::disallowed_types,
    clippy::disallowed_methods,
    reason = "how long it took, and how many histories are wanted"
)]
mod tests {
    use std::env;
    use std::time::Instant;

    use super::*;

    /// As many as a debug build runs in about two seconds.
    const SEEDS: u64 = 1_000;

    /// The histories in which faults were found. The faults of early seeds are among tests/mutations, too.
    const FOUND: [(u64, &str); 7] = [
        (3870, "a drain closes a connection on which the next head has begun"),
        (11, "an answer is lost by a reset, because the sender still sends"),
        (207, "a request that is answered at once does not renew the time of an idle connection"),
        (37, "the rest of a body that nobody wanted counts as a slow head"),
        (11, "HEAD over HTTP/2 is answered with a body"),
        (21, "a connection that is about to rest outlives a short idle_timeout"),
        (590_522, "an answer over HTTP/2 is lost by a reset, because the sender still sends"),
    ];

    fn number(variable: &str) -> Option<u64> {
        env::var(variable).ok().map(|text| text.parse().expect("a number"))
    }

    fn metrics() -> Metrics {
        Metrics::new(&[], &[]).expect("metrics")
    }

    /// `HOOKBRIDGE_SEEDS=N` runs so many histories; `HOOKBRIDGE_SEED=N` runs one and prints it.
    #[test]
    fn no_history_breaks_an_invariant() {
        let metrics = metrics();
        let one = number("HOOKBRIDGE_SEED");
        let seeds = one.map_or(0..number("HOOKBRIDGE_SEEDS").unwrap_or(SEEDS), |one| one..one + 1);
        let (began, count) = (Instant::now(), seeds.end - seeds.start);
        let mut all = ConnectionCounts::default();
        for seed in seeds {
            let Run { history, violations, counts } = run(seed, &metrics, one.is_some());
            history.iter().for_each(|line| println!("{line}"));
            assert!(
                violations.is_empty(),
                "seed {seed}: {violations:#?}\nIts history: HOOKBRIDGE_SEED={seed} cargo test --lib \
                 http::simulation::tests::no_history -- --nocapture"
            );
            all.add(&counts);
        }
        println!("{count} histories in {:.1?}: {all:?}", began.elapsed());
    }

    #[test]
    fn what_was_found_stays_mended() {
        let metrics = metrics();
        for (seed, what) in FOUND {
            let Run { violations, .. } = run(seed, &metrics, false);
            assert!(violations.is_empty(), "seed {seed}, {what}: {violations:#?}");
        }
    }

    #[test]
    fn a_seed_always_gives_the_same_history() {
        let metrics = metrics();
        for seed in 0..number("HOOKBRIDGE_SEEDS").unwrap_or(SEEDS) / 10 {
            let [first, second] = [(); 2].map(|()| run(seed, &metrics, true).history);
            assert!(first.len() > 3, "{first:#?}");
            assert_eq!(first, second, "seed {seed}");
        }
    }
}
