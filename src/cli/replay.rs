//! `hookbridge replay`: dead letters, or a part of any topic, through the same validation again and to
//! their webhook's topic.
//!
//! What is done is kept as the offsets of a consumer group, after Kafka has acknowledged it. So a replay
//! that is killed goes on where it was, and may write again what it had just written: with the same
//! `ce_id`, which a replay never changes.

mod revalidation;
mod sink;

use std::collections::BTreeMap;
use std::time::Duration;

use anstream::println;
use clap::Args;
use tokio::time::timeout;

use super::paint::{BAD, GOOD, WARN};
use super::serve::signals;
use super::{Exit, fail, progress, tail};
use crate::config::Config;
use crate::kafka::{RangeReader, TopicPosition, TopicRange};
use crate::observe::log::Log;
use revalidation::{Fault, Judge};
use sink::{NotWritten, Outlet};

/// The consumer group, if nobody names another.
const GROUP: &str = "hookbridge-replay";

/// Records that are on their way at once, and between two commits.
const CHUNK: usize = 1_000;

/// How long the brokers may take for one question, or for the next record.
const TIMEOUT: Duration = Duration::from_secs(10);

/// How long to listen for a signal after each chunk.
const SIGNAL_WAIT: Duration = Duration::from_millis(1);

/// So many places are told for each kind of fault.
const PLACES_MAX: usize = 5;

#[derive(Debug, Args)]
pub struct Replay {
    /// The webhook whose dead letters are replayed; the first if nothing is said
    #[arg(conflicts_with = "topic")]
    letters_of: Option<String>,
    /// Replay a part of this topic instead
    #[arg(long)]
    topic: Option<String>,
    /// This partition alone
    #[arg(long)]
    partition: Option<i32>,
    /// Where to begin: an offset (with --partition), a time as RFC 3339 has it, or how long ago (10m)
    #[arg(long, value_name = "PLACE", value_parser = place)]
    from: Option<Place>,
    /// The first that is not replayed; without it, what is there when the replay begins
    #[arg(long, value_name = "PLACE", value_parser = place)]
    to: Option<Place>,
    /// The webhook of all records, whatever they say
    #[arg(long)]
    webhook: Option<String>,
    /// The JSON pointer to the key, instead of the webhook's own
    #[arg(long, value_name = "POINTER")]
    key: Option<String>,
    /// The consumer group that keeps how far it came; hookbridge-replay if nothing is said, and with
    /// the places of --from and --to behind it
    #[arg(long)]
    group: Option<String>,
    /// Begin again, wherever the group came to
    #[arg(long)]
    restart: bool,
    /// Say what would be replayed and what would fail, and write nothing
    #[arg(long)]
    dry_run: bool,
}

/// A position and how it was written.
#[derive(Debug, Clone)]
struct Place {
    text: String,
    position: TopicPosition,
}

fn place(text: &str) -> Result<Place, &'static str> {
    let offset = text.parse().ok().filter(|offset| *offset >= 0).map(TopicPosition::Offset);
    let position = offset.or_else(|| tail::time(text).map(TopicPosition::Time));
    let position =
        position.ok_or("write an offset, 2026-11-24T12:00:00Z, or how long ago, such as 10m")?;
    Ok(Place { text: text.to_owned(), position })
}

/// What came of a replay.
#[derive(Default)]
struct Summary {
    read: u64,
    replayed: u64,
    /// By their kind: how many, and what is said of the first ones.
    faults: BTreeMap<&'static str, (u64, Vec<String>)>,
}

impl Summary {
    fn fault(&mut self, (partition, offset): (i32, i64), tag: &'static str, detail: &str) {
        let (count, places) = self.faults.entry(tag).or_default();
        *count += 1;
        if places.len() < PLACES_MAX {
            places.push(format!("{partition}:{offset}  {detail}"));
        }
    }

    fn print(&self, topic: &str, is_dry: bool) {
        println!("{} records read from {topic}", self.read);
        let done = if is_dry { "would be replayed" } else { "replayed" };
        println!("  {GOOD}{done:<18}{GOOD:#} {:>10}", self.replayed);
        for (tag, (count, places)) in &self.faults {
            println!("  {BAD}{tag:<18}{BAD:#} {count:>10}");
            for place in places {
                println!("      {place}");
            }
        }
    }
}

impl Replay {
    pub fn run(self, config: &Config) -> Exit {
        let _log = Log::start(&config.log);
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let replayed = match runtime {
            Ok(runtime) => runtime.block_on(self.replay(config)),
            Err(error) => return fail(error),
        };
        match replayed {
            Ok(summary) if summary.faults.is_empty() => Exit::Clean,
            Ok(_) => Exit::Failed,
            Err(reason) => fail(reason),
        }
    }

    fn span(&self, config: &Config) -> Result<TopicRange, String> {
        let position = |place: &Option<Place>| place.as_ref().map(|place| place.position);
        let from = position(&self.from).unwrap_or(TopicPosition::Beginning);
        let to = position(&self.to).unwrap_or(TopicPosition::End);
        let is_offset = |position| matches!(position, TopicPosition::Offset(_));
        if self.partition.is_none() && (is_offset(from) || is_offset(to)) {
            return Err("an offset belongs to a partition: name it with --partition".into());
        }
        let mut webhooks = config.webhook.iter();
        let letters = match &self.letters_of {
            Some(name) => webhooks.find(|webhook| webhook.name == *name),
            None => webhooks.next(),
        };
        let topic = self.topic.clone().or_else(|| letters.map(|webhook| webhook.dead_letters()));
        Ok(TopicRange {
            topic: topic.ok_or("there is no such webhook; see `hookbridge config`")?,
            partition: self.partition,
            from,
            to,
            group: self.group(),
            resumes: !self.restart,
        })
    }

    /// What was done of a part says nothing of what lies before it, so each has a group of its own.
    fn group(&self) -> String {
        let places = [&self.from, &self.to].map(|place| place.as_ref().map(|p| p.text.as_str()));
        match (&self.group, places) {
            (Some(group), _) => group.clone(),
            (None, [None, None]) => GROUP.to_owned(),
            (None, [from, to]) => {
                format!("{GROUP}-{}-{}", from.unwrap_or_default(), to.unwrap_or_default())
            }
        }
    }

    async fn replay(&self, config: &Config) -> Result<Summary, String> {
        let span = self.span(config)?;
        let (webhook, key) = (self.webhook.as_deref(), self.key.as_deref());
        let judge = Judge::new(config, &span.topic, webhook, key)?;
        let mut range =
            RangeReader::open(config, &span, TIMEOUT).map_err(|error| error.to_string())?;
        if range.done_before > 0 {
            println!(
                "{WARN}{} records were done before{WARN:#} by the group {}; --restart begins again",
                range.done_before, span.group
            );
        }
        let outlet = if self.dry_run { None } else { Some(Outlet::open(config)) };
        let outlet = outlet.transpose().map_err(|error| error.to_string())?;
        let mut summary = Summary::default();
        let result = self.work(&mut range, &judge, outlet.as_ref(), &mut summary).await;
        if let Some(outlet) = outlet {
            outlet.close().await;
        }
        summary.print(&span.topic, self.dry_run);
        result.map(|()| summary)
    }

    /// Chunk by chunk, until there is no more or a signal comes.
    async fn work(
        &self,
        range: &mut RangeReader,
        judge: &Judge,
        outlet: Option<&Outlet>,
        summary: &mut Summary,
    ) -> Result<(), String> {
        let mut signals = signals().map_err(|error| error.to_string())?;
        let bar = progress::bar(range.left(), "records");
        while range.left() > 0 {
            chunk(range, judge, outlet, summary).await?;
            if outlet.is_some() {
                range.commit().map_err(|error| {
                    format!("the group {} cannot keep how far it came: {error}", self.group())
                })?;
            }
            bar.set_position(bar.length().unwrap_or(0).saturating_sub(range.left()));
            let faults: u64 = summary.faults.values().map(|(count, _)| count).sum();
            bar.set_message(if faults > 0 { format!("{faults} fail") } else { String::new() });
            if timeout(SIGNAL_WAIT, signals.next()).await.is_ok() && range.left() > 0 {
                bar.abandon();
                return Err(format!("stopped; {} are left: run it again to go on", range.left()));
            }
        }
        bar.finish_and_clear();
        Ok(())
    }
}

/// Reads a chunk, and waits until what is good of it is acknowledged.
async fn chunk(
    range: &mut RangeReader,
    judge: &Judge,
    outlet: Option<&Outlet>,
    summary: &mut Summary,
) -> Result<(), String> {
    let mut on_their_way = Vec::new();
    for _ in 0..CHUNK {
        let Some(seen) = range.read().map_err(|error| error.to_string())? else { break };
        let place = (seen.partition, seen.offset);
        summary.read += 1;
        match (judge.judge(seen), outlet) {
            (Ok(record), Some(outlet)) => on_their_way.push((place, outlet.send(record))),
            (Ok(_), None) => summary.replayed += 1,
            (Err(Fault { tag, detail }), _) => summary.fault(place, tag, &detail),
        }
    }
    for (place, sent) in on_their_way {
        let Some(outlet) = outlet else { continue };
        match outlet.settle(sent).await {
            Ok(()) => summary.replayed += 1,
            Err(NotWritten::Refused(tag, detail)) => summary.fault(place, tag, &detail),
            Err(NotWritten::Away(why)) => {
                return Err(format!("Kafka does not take it: {why}; run it again to go on"));
            }
        }
    }
    Ok(())
}
