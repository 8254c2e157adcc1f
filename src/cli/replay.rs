//! `hookbridge replay`: sends dead letters, a part of any topic, or a file of `spool export` through the same
//! validation again and to their webhook's topic.
//!
//! The progress in a topic is kept as the offsets of a consumer group, committed after Kafka has acknowledged
//! the records. So a replay that is killed resumes where it was, and may write again what it had just written:
//! with the same `ce_id`, which a replay never changes. Of a file no progress is kept.

mod file;
mod revalidation;
mod sink;
mod source;

use std::collections::BTreeMap;
use std::path::PathBuf;
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
use file::LineFile;
use revalidation::{NotReplayed, Revalidation};
use sink::Sink;
use source::{FoundRecord, Place, Source};

/// The consumer group, if no other is named.
const GROUP: &str = "hookbridge-replay";

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
    /// Replay the lines of `spool export` in this file instead, or - for those of standard input. How far
    /// it came is kept nowhere: what is run twice is written twice, with the same ce_id
    #[arg(long, value_name = "FILE", conflicts_with_all = [
        "letters_of", "topic", "partition", "from", "to", "group", "restart",
    ])]
    from_file: Option<PathBuf>,
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
        let revalidation = Revalidation::new(config, self.webhook.as_deref(), self.key.as_deref())?;
        let source = match &self.from_file {
            Some(path) => Source::file(LineFile::open(path, config)?),
            None => self.topic_source(config)?,
        };
        let sink = if self.dry_run { None } else { Some(Sink::open(config)?) };
        let mut run = Run { source, revalidation, sink, summary: Summary::default() };
        let result = run.replay_all().await;
        if let Some(sink) = run.sink {
            sink.close().await;
        }
        run.summary.print(&run.source, self.dry_run);
        result?;
        Ok(if run.summary.failures.is_empty() { Exit::Clean } else { Exit::Failed })
    }

    fn topic_source(&self, config: &Config) -> CommandResult<Source> {
        let span = self.span(config)?;
        let range = RangeReader::open(config, &span, TIMEOUT)?;
        let TopicRange { topic, group, .. } = span;
        if range.done_before > 0 {
            println!(
                "{WARN}{} records were done before{WARN:#} by the group {group}; --restart begins again",
                range.done_before
            );
        }
        Ok(Source::Topic { range, topic, group })
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
    source: Source,
    revalidation: Revalidation,
    /// None in a dry run.
    sink: Option<Sink>,
    summary: Summary,
}

impl Run {
    /// Chunk by chunk, until no record is left or a signal comes.
    async fn replay_all(&mut self) -> CommandResult<()> {
        let mut signals = signals()?;
        let total = self.source.left();
        let bar = bar(total, self.source.unit());
        while !self.source.has_ended() {
            let chunk = tokio::select! {
                chunk = self.source.chunk() => Some(chunk?),
                () = signals.next() => None,
            };
            let is_stopped = match chunk {
                Some(chunk) => {
                    self.replay_chunk(chunk).await?;
                    !self.source.has_ended() && timeout(SIGNAL_WAIT, signals.next()).await.is_ok()
                }
                None => true,
            };
            bar.set_position(self.summary.read);
            let failed = self.summary.failed();
            bar.set_message(if failed > 0 { format!("{failed} fail") } else { String::new() });
            if is_stopped {
                bar.abandon();
                let left =
                    self.source.left().map_or(String::new(), |left| format!("; {left} are left"));
                return Err(format!("stopped{left}: {}", self.source.how_to_go_on()).into());
            }
        }
        bar.finish_and_clear();
        Ok(())
    }

    /// Waits until Kafka has acknowledged the valid records of a chunk.
    async fn replay_chunk(&mut self, chunk: Vec<FoundRecord>) -> CommandResult<()> {
        let mut in_flight = Vec::new();
        for FoundRecord { place, record } in chunk {
            self.summary.read += 1;
            let records = match record {
                Ok(record) => self.revalidation.records(&record),
                Err(why) => vec![Err(why)],
            };
            for record in records {
                match (record, &self.sink) {
                    (Ok(record), Some(sink)) => in_flight.push((place, sink.write(record))),
                    (result, _) => self.summary.count(place, result.map(drop)),
                }
            }
        }
        for (place, written) in in_flight {
            let go_on = || self.source.how_to_go_on();
            let written = written.await.map_err(|why| format!("{why}; {}", go_on()))?;
            self.summary.count(place, written);
        }
        if self.sink.is_some() { self.source.commit() } else { Ok(()) }
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
    fn count(&mut self, place: Place, result: Result<(), NotReplayed>) {
        let Err(NotReplayed { tag, detail }) = result else {
            self.replayed += 1;
            return;
        };
        let (count, listed) = self.failures.entry(tag).or_default();
        *count += 1;
        if listed.len() < LISTED_MAX {
            listed.push(format!("{place}  {detail}"));
        }
    }

    fn failed(&self) -> u64 {
        self.failures.values().map(|(count, _)| count).sum()
    }

    fn print(&self, source: &Source, is_dry: bool) {
        println!("{} {} read from {}", self.read, source.unit(), source.name());
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
