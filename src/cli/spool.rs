//! `hookbridge spool`: what waits in a spool's folder, and its way to Kafka without a bridge: for a
//! volume that a replica left behind.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use clap::Subcommand;
use jiff::{Timestamp, Unit};
use tokio::time::Instant;

use super::serve::signals;
use super::{Exit, fail, progress, report};
use crate::bridge::{self, StartError};
use crate::config::Config;
use crate::delivery::spool::{self, Contents};
use crate::delivery::{Backlog, DeliveryState};
use crate::kafka::{CircuitBreaker, Kafka};
use crate::observe::health::Health;
use crate::observe::log::Log;

/// How long events that are on their way when it is stopped may take.
const FINISH_TIMEOUT: Duration = Duration::from_secs(2);

#[derive(Debug, Subcommand)]
pub enum Command {
    /// Show what waits: events, bytes and age, for each topic
    Status,
    /// Send everything to Kafka; what is stopped midway goes on where it was
    Drain,
}

impl Command {
    pub fn run(self, config: Config) -> Exit {
        if !config.spool.is_on() {
            return fail("there is no spool: spool.dir is empty");
        }
        match self {
            Command::Status => status(&config),
            Command::Drain => drain(config),
        }
    }
}

fn status(config: &Config) -> Exit {
    let folder = config.spool.dir.display();
    let contents = match spool::contents(&config.spool.dir) {
        Ok(contents) => contents,
        Err(spool::StoreError::InUse) => {
            return fail(format!(
                "{folder}: another process uses it, such as a running bridge; see \
                 hookbridge_spool_events and its neighbours at its /metrics"
            ));
        }
        Err(error) => return fail(format!("{folder}: {error}")),
    };
    println!("{folder}");
    print(&contents);
    Exit::Clean
}

fn print(contents: &Contents) {
    let mut total = spool::WaitingEvents::default();
    let rows: BTreeMap<_, _> = contents.topics.iter().collect();
    let width = rows.keys().map(|topic| topic.len()).max().unwrap_or(0).max("total".len());
    let line = |name: &str, waiting: &spool::WaitingEvents| {
        let oldest = waiting.oldest_ms.map_or(String::new(), age);
        println!(
            "  {name:<width$}  {:>10} events  {:>14} bytes{oldest}",
            waiting.events, waiting.bytes
        );
    };
    for (topic, waiting) in rows {
        line(topic, waiting);
        total.add(waiting);
    }
    line("total", &total);
    if contents.set_aside > 0 {
        println!("  {} events are set aside: no topic takes them", contents.set_aside);
    }
    if contents.damaged > 0 {
        println!("  {} events are damaged and cannot be delivered", contents.damaged);
    }
}

/// How long ago something was, in words.
fn age(then_ms: i64) -> String {
    let Ok(then) = Timestamp::from_millisecond(then_ms) else { return String::new() };
    let age = Timestamp::now().duration_since(then).round(Unit::Second);
    age.map_or(String::new(), |age| format!("  oldest from {then} ({age:#} ago)"))
}

fn drain(config: Config) -> Exit {
    // A folder without a spool would be one without events.
    match spool::contents(&config.spool.dir) {
        Ok(_) | Err(spool::StoreError::Damaged(_)) => {}
        Err(error) => return fail(format!("{}: {error}", config.spool.dir.display())),
    }
    let _log = Log::start(&config.log);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let drained = match runtime {
        Ok(runtime) => runtime.block_on(drain_until_empty(&config)),
        Err(error) => return fail(error),
    };
    match drained {
        Ok(0) => Exit::Clean,
        Ok(left) => fail(format!("{left} events are left; run it again to go on")),
        Err(StartError::Config(problem)) => report(&[problem]),
        Err(error) => fail(error),
    }
}

/// Drains until the spool is empty or a signal comes. Returns how many events are left.
async fn drain_until_empty(config: &Config) -> Result<u64, StartError> {
    let mut signals = signals()?;
    let metrics = Arc::new(bridge::metrics(config)?);
    let health = Arc::new(Health::default());
    let breaker = CircuitBreaker::new(metrics.breaker.clone(), true);
    let kafka = Kafka::start(config, metrics.clone(), health.clone(), breaker.clone())?;
    let ack_timeout = config.kafka.ack_timeout();
    let shared = DeliveryState::new(breaker, health, metrics.clone(), ack_timeout);
    let Some(backlog) = Backlog::open(config, &kafka, &shared)? else { return Ok(0) };
    let total = backlog.spool.events();
    let bar = progress::bar(total, "events");
    let set_aside = || metrics.spool.set_aside.get();
    let set_aside_before = set_aside();
    let report_poller = tokio::spawn(kafka.delivery_report_poller());
    while backlog.spool.events() > 0 {
        bar.set_position(total.saturating_sub(backlog.spool.events()));
        bar.set_message(if backlog.spool.claimed() > 0 { "" } else { "waiting for Kafka" });
        tokio::select! {
            () = tokio::time::sleep(progress::INTERVAL) => {}
            () = signals.next() => break,
        }
    }
    let left = backlog.forwarder.finish(Instant::now() + FINISH_TIMEOUT).await;
    bar.set_position(total.saturating_sub(left));
    bar.abandon_with_message("");
    let set_aside = set_aside() - set_aside_before;
    let delivered = total.saturating_sub(left).saturating_sub(set_aside.unsigned_abs());
    println!("{delivered} events delivered, {left} left, {set_aside} set aside");
    report_poller.abort();
    let closed = tokio::task::spawn_blocking(move || kafka.close(Instant::now())).await;
    drop(closed);
    backlog.writer.close();
    Ok(left)
}
