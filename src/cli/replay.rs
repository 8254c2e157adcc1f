//! `hookbridge replay`: sends dead letters, or a part of any topic, through the same validation again and to
//! their webhook's topic.
//!
//! The progress is kept as the offsets of a consumer group, committed after Kafka has acknowledged the
//! records. So a replay that is killed resumes where it was, and may write again what it had just written:
//! with the same `ce_id`, which a replay never changes.

mod revalidation;
mod sink;

use std::collections::BTreeMap;
use std::time::Duration;

use anstream::println;
use clap::Args;
use tokio::time::timeout;

use super::serve::signals;
use super::terminal::{BAD, GOOD, WARN, bar};
use super::{CommandResult, Exit, block_on, tail, webhook};
use crate::config::Config;
use crate::kafka::{RangeReader, TopicPosition, TopicRange};
use crate::observe::log::Log;
use revalidation::{NotReplayed, Revalidation};
use sink::Sink;

/// The consumer group, if no other is named.
const GROUP: &str = "hookbridge-replay";

/// Records that are in flight at once, and between two commits.
const CHUNK: usize = 1_000;

/// How long the brokers may take for one question, or for the next record.
const TIMEOUT: Duration = Duration::from_secs(10);

/// How long to listen for a signal after each chunk.
const SIGNAL_WAIT: Duration = Duration::from_millis(1);

/// How many records of each kind of failure are listed.
const LISTED_MAX: usize = 5;

#[derive(Debug, Args)]
pub struct ReplayArgs {
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
    #[arg(long, value_name = "PLACE", value_parser = position)]
    from: Option<WrittenPosition>,
    /// The first that is not replayed; without it, what is there when the replay begins
    #[arg(long, value_name = "PLACE", value_parser = position)]
    to: Option<WrittenPosition>,
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
struct WrittenPosition {
    text: String,
    position: TopicPosition,
}

fn position(text: &str) -> Result<WrittenPosition, &'static str> {
    let offset = text.parse().ok().filter(|offset| *offset >= 0).map(TopicPosition::Offset);
    let position = offset.or_else(|| tail::time(text).map(TopicPosition::Time));
    let position =
        position.ok_or("write an offset, 2026-11-24T12:00:00Z, or how long ago, such as 10m")?;
    Ok(WrittenPosition { text: text.to_owned(), position })
}

impl ReplayArgs {
    pub fn run(self, config: &Config) -> CommandResult {
        let _log = Log::start(&config.log);
        block_on(self.replay(config))
    }

    async fn replay(&self, config: &Config) -> CommandResult {
        let span = self.span(config)?;
        let (webhook, key) = (self.webhook.as_deref(), self.key.as_deref());
        let revalidation = Revalidation::new(config, &span.topic, webhook, key)?;
        let range = RangeReader::open(config, &span, TIMEOUT)?;
        if range.done_before > 0 {
            println!(
                "{WARN}{} records were done before{WARN:#} by the group {}; --restart begins again",
                range.done_before, span.group
            );
        }
        let sink = if self.dry_run { None } else { Some(Sink::open(config)?) };
        let mut run = Run { range, revalidation, sink, summary: Summary::default() };
        let result = run.replay_all(&span.group).await;
        if let Some(sink) = run.sink {
            sink.close().await;
        }
        run.summary.print(&span.topic, self.dry_run);
        result?;
        Ok(if run.summary.failures.is_empty() { Exit::Clean } else { Exit::Failed })
    }

    fn span(&self, config: &Config) -> CommandResult<TopicRange> {
        let position = |written: &Option<WrittenPosition>| written.as_ref().map(|one| one.position);
        let from = position(&self.from).unwrap_or(TopicPosition::Beginning);
        let to = position(&self.to).unwrap_or(TopicPosition::End);
        let is_offset = |position| matches!(position, TopicPosition::Offset(_));
        if self.partition.is_none() && (is_offset(from) || is_offset(to)) {
            return Err("an offset belongs to a partition: name it with --partition".into());
        }
        let letters = || Some(webhook(config, self.letters_of.as_deref())?.dead_letters());
        let topic = self.topic.clone().or_else(letters);
        Ok(TopicRange {
            topic: topic.ok_or("there is no such webhook; see `hookbridge config`")?,
            partition: self.partition,
            from,
            to,
            group: self.group(),
            resumes: !self.restart,
        })
    }

    /// Each part has a group of its own: that a part is done says nothing about the records before it.
    fn group(&self) -> String {
        let texts = [&self.from, &self.to].map(|end| end.as_ref().map_or("", |end| &end.text));
        match (&self.group, texts) {
            (Some(group), _) => group.clone(),
            (None, ["", ""]) => GROUP.to_owned(),
            (None, [from, to]) => format!("{GROUP}-{from}-{to}"),
        }
    }
}

/// A running replay.
struct Run {
    range: RangeReader,
    revalidation: Revalidation,
    /// None in a dry run.
    sink: Option<Sink>,
    summary: Summary,
}

impl Run {
    /// Chunk by chunk, until no record is left or a signal comes.
    async fn replay_all(&mut self, group: &str) -> CommandResult<()> {
        let mut signals = signals()?;
        let total = self.range.left();
        let bar = bar(Some(total), "records");
        while self.range.left() > 0 {
            self.replay_chunk().await?;
            if self.sink.is_some() {
                self.range.commit().map_err(|error| {
                    format!("the group {group} cannot keep how far it came: {error}")
                })?;
            }
            let left = self.range.left();
            bar.set_position(total.saturating_sub(left));
            let failed = self.summary.failed();
            bar.set_message(if failed > 0 { format!("{failed} fail") } else { String::new() });
            if left > 0 && timeout(SIGNAL_WAIT, signals.next()).await.is_ok() {
                bar.abandon();
                return Err(format!("stopped; {left} are left: run it again to go on").into());
            }
        }
        bar.finish_and_clear();
        Ok(())
    }

    /// Reads a chunk, and waits until Kafka has acknowledged its valid records.
    async fn replay_chunk(&mut self) -> CommandResult<()> {
        let mut in_flight = Vec::new();
        for _ in 0..CHUNK {
            let Some(seen) = self.range.read()? else { break };
            let place = (seen.partition, seen.offset);
            self.summary.read += 1;
            for record in self.revalidation.records(&seen) {
                match (record, &self.sink) {
                    (Ok(record), Some(sink)) => in_flight.push((place, sink.write(record))),
                    (result, _) => self.summary.count(place, result.map(drop)),
                }
            }
        }
        for (place, written) in in_flight {
            self.summary.count(place, written.await?);
        }
        Ok(())
    }
}

#[derive(Default)]
struct Summary {
    read: u64,
    replayed: u64,
    /// By their kind: how many there are, and the first ones.
    failures: BTreeMap<&'static str, (u64, Vec<String>)>,
}

impl Summary {
    fn count(&mut self, (partition, offset): (i32, i64), result: Result<(), NotReplayed>) {
        let Err(NotReplayed { tag, detail }) = result else {
            self.replayed += 1;
            return;
        };
        let (count, listed) = self.failures.entry(tag).or_default();
        *count += 1;
        if listed.len() < LISTED_MAX {
            listed.push(format!("{partition}:{offset}  {detail}"));
        }
    }

    fn failed(&self) -> u64 {
        self.failures.values().map(|(count, _)| count).sum()
    }

    fn print(&self, topic: &str, is_dry: bool) {
        println!("{} records read from {topic}", self.read);
        let done = if is_dry { "would be replayed" } else { "replayed" };
        println!("  {GOOD}{done:<18}{GOOD:#} {:>10}", self.replayed);
        for (tag, (count, listed)) in &self.failures {
            println!("  {BAD}{tag:<18}{BAD:#} {count:>10}");
            for record in listed {
                println!("      {record}");
            }
        }
    }
}
