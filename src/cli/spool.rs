//! `hookbridge spool`: shows what waits in a spool's folder, sends it to Kafka without a bridge, or writes it
//! as lines: for a volume that a replica left behind.

mod export;

use std::time::Duration;

use clap::Subcommand;
use jiff::{Timestamp, Unit};
use tokio::time::Instant;

use super::serve::signals;
use super::terminal::{BAR_INTERVAL, bar};
use super::{CommandError, CommandResult, Exit, block_on};
use crate::bridge::{self, StartError};
use crate::config::Config;
use crate::delivery::spool::{self, Contents, StoreError};
use crate::delivery::{Backlog, DeliveryState};
use crate::observe::log::Log;

/// How long events that are in flight when it is stopped may take.
const FINISH_TIMEOUT: Duration = Duration::from_secs(2);

/// How long to wait for a process that uses the spool: one that ends just now.
const PATIENCE: Duration = Duration::from_secs(3);

#[derive(Debug, Subcommand)]
pub enum SpoolCommand {
    /// Show what waits: events, bytes and age, for each topic
    Status,
    /// Send everything to Kafka; what is stopped midway goes on where it was
    Drain,
    /// Write its events as JSON lines on standard output, for `replay --from-file`; none of them leaves it
    Export(export::ExportArgs),
}

impl SpoolCommand {
    pub fn run(self, config: &Config) -> CommandResult {
        let does_drain = match self {
            SpoolCommand::Export(args) => return args.run(config),
            SpoolCommand::Status => false,
            SpoolCommand::Drain => true,
        };
        if !config.spool.is_on() {
            return Err("there is no spool: spool.dir is empty".into());
        }
        let folder = config.spool.dir.display();
        let contents = block_on(spool::contents(&config.spool.dir, PATIENCE));
        match (does_drain, contents) {
            (false, Ok(contents)) => {
                println!("{folder}");
                print(&contents);
                Ok(Exit::Clean)
            }
            (_, Err(StoreError::InUse(owner))) => Err(format!(
                "{folder}: {owner} uses it. A running bridge delivers it by itself: see \
                 hookbridge_spool_events and its neighbours at its /metrics, or its live page. Or stop \
                 that process first"
            )
            .into()),
            // A folder without a spool is an error, not an empty spool.
            (true, Ok(_) | Err(StoreError::Damaged(_))) => drain(config),
            (_, Err(error)) => Err(format!("{folder}: {error}").into()),
        }
    }
}

fn print(contents: &Contents) {
    let mut total = spool::EventCount::default();
    let width =
        contents.topics.keys().map(|topic| topic.len()).max().unwrap_or(0).max("total".len());
    let line = |name: &str, waiting: &spool::EventCount| {
        let oldest = waiting.oldest_ms.map_or(String::new(), age);
        println!(
            "  {name:<width$}  {:>10} events  {:>14} bytes{oldest}",
            waiting.events, waiting.bytes
        );
    };
    for (topic, waiting) in &contents.topics {
        line(topic, waiting);
        total.add(waiting);
    }
    line("total", &total);
    for ((topic, reason), count) in &contents.set_aside {
        let oldest = count.oldest_ms.map_or(String::new(), age);
        println!(
            "  {topic:<width$}  {:>10} set aside  {:>11} bytes{oldest}  {reason}: tried again at the start and \
             every few minutes",
            count.events, count.bytes
        );
    }
    if contents.missing > 0 {
        println!("  {} events cannot be read any more", contents.missing);
    }
}

/// How long ago something was, in words.
fn age(then_ms: i64) -> String {
    let Ok(then) = Timestamp::from_millisecond(then_ms) else { return String::new() };
    let age = Timestamp::now().duration_since(then).round(Unit::Second);
    age.map_or(String::new(), |age| format!("  oldest from {then} ({age:#} ago)"))
}

fn drain(config: &Config) -> CommandResult {
    let _log = Log::start(&config.log);
    match block_on(drain_until_empty(config)).map_err(CommandError::start)? {
        0 => Ok(Exit::Clean),
        left => Err(format!("{left} events are left; run it again to go on").into()),
    }
}

/// Forwards events until the spool is empty or a signal comes. Returns how many are left.
async fn drain_until_empty(config: &Config) -> Result<u64, StartError> {
    let mut signals = signals()?;
    let state = DeliveryState::new(config)?;
    let spool = state.open_spool(config, PATIENCE).await;
    let Some(spool) = spool.map_err(|source| StartError::spool(config, source))? else {
        return Ok(0);
    };
    let kafka = state.start_kafka(config)?;
    let backlog = Backlog::start(spool, &kafka, &state)?;
    let total = backlog.spool.events();
    let bar = bar(Some(total), "events");
    let set_aside = || state.metrics.spool.set_aside.get();
    let set_aside_before = set_aside();
    let report_poller = tokio::spawn(kafka.delivery_report_poller());
    while !backlog.spool.is_empty() {
        bar.set_position(total.saturating_sub(backlog.spool.events()));
        bar.set_message(if backlog.spool.claimed() > 0 { "" } else { "waiting for Kafka" });
        tokio::select! {
            () = tokio::time::sleep(BAR_INTERVAL) => {}
            () = signals.next() => break,
        }
    }
    let (left, writer) = backlog.finish(Instant::now() + FINISH_TIMEOUT).await;
    bar.set_position(total.saturating_sub(left));
    bar.abandon_with_message("");
    let set_aside = set_aside() - set_aside_before;
    let delivered = total.saturating_sub(left).saturating_sub(set_aside.unsigned_abs());
    println!("{delivered} events delivered, {left} left, {set_aside} set aside");
    report_poller.abort();
    bridge::close_kafka(kafka, Instant::now()).await;
    writer.close();
    Ok(left)
}
