//! A load by `hookbridge send`, and what of it is in Kafka by `hookbridge tail`.

use std::collections::BTreeMap;
use std::fmt;
use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::time::{Duration, Instant};

use serde::Deserialize;
use serde_json::Value;

use crate::command::{Result, stop};

/// How long the records may take to get into Kafka once nothing is in the way.
const DELIVERY: Duration = Duration::from_secs(180);

/// Without a record for so long, the reader has read what is there.
const QUIET: Duration = Duration::from_secs(4);

/// A running `hookbridge send`.
pub struct Load {
    child: Child,
    seconds: u64,
    start: Instant,
}

/// What `hookbridge send --json` reports.
#[derive(Debug, Deserialize)]
pub struct Sent {
    run: String,
    pub sent: u64,
    /// Answered 200.
    pub held: u64,
    failed: u64,
    unsent: u64,
    /// The numbers of the clicks that were not answered 200.
    failed_clicks: Vec<u64>,
    latency_us: Latency,
    first_failure: Option<String>,
}

#[derive(Debug, Deserialize)]
struct Latency {
    max: u64,
}

/// A line of the proof's table.
#[derive(Debug, Default)]
pub struct Row {
    pub sent: u64,
    pub held: u64,
    /// Of the clicks that were sent.
    pub in_kafka: u64,
    /// Answered 200, and not in Kafka.
    pub lost: u64,
    /// Clicks that are in Kafka more than once.
    pub twice: u64,
    pub slowest: Duration,
    pub note: String,
}

impl Load {
    /// Starts `send`, a command that ends with `hookbridge send`'s options so far.
    pub fn start(mut send: Command, rate: u32, seconds: u64) -> Result<Load> {
        send.args([
            "--json",
            "--timeout",
            "15s",
            "--rate",
            &rate.to_string(),
            "--duration",
            &format!("{seconds}s"),
        ]);
        let child = send.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn()?;
        Ok(Load { child, seconds, start: Instant::now() })
    }

    /// Waits for its end. It must have run all the time that the fault took.
    pub fn end(self) -> Result<Sent> {
        let is_over = self.start.elapsed().as_secs() >= self.seconds;
        let output = self.child.wait_with_output()?;
        let out = String::from_utf8_lossy(&output.stdout);
        if is_over {
            return Err(format!("the fault took longer than {} s of load", self.seconds).into());
        }
        let sent: Sent = serde_json::from_str(&out)
            .map_err(|_| format!("{out}{}", String::from_utf8_lossy(&output.stderr)))?;
        if sent.unsent > 0 {
            return Err(format!("{} clicks were due and not sent", sent.unsent).into());
        }
        if sent.failed != sent.failed_clicks.len() as u64 {
            return Err("too many clicks failed to tell them apart".into());
        }
        Ok(sent)
    }
}

impl Sent {
    /// Every click was answered 200.
    pub fn all_held(&self) -> Result<()> {
        match &self.first_failure {
            None => Ok(()),
            Some(reason) => {
                let (failed, sent) = (self.failed, self.sent);
                Err(format!("{failed} of {sent} clicks were not answered 200: {reason}").into())
            }
        }
    }

    /// Looks for the clicks among the records that `tail`, a `hookbridge tail --json`, prints.
    ///
    /// # Errors
    ///
    /// A click that was answered 200 is not in Kafka.
    pub fn look_for(&self, tail: Command) -> Result<Row> {
        let row = self.count(tail, DELIVERY)?;
        if row.lost > 0 {
            return Err(format!("{} clicks are lost: {row:?}", row.lost).into());
        }
        Ok(row)
    }

    /// Counts the clicks among the records that `tail` prints. Those that are missing may take so long to come.
    pub fn count(&self, mut tail: Command, patience: Duration) -> Result<Row> {
        let mut tail = tail.stdout(Stdio::piped()).stderr(Stdio::null()).spawn()?;
        let lines = tail.stdout.take().ok_or("no output")?;
        let (sender, receiver) = mpsc::sync_channel(1024);
        std::thread::spawn(move || {
            for line in BufReader::new(lines).lines().map_while(std::result::Result::ok) {
                if sender.send(line).is_err() {
                    return;
                }
            }
        });
        let (mut found, end) = (BTreeMap::<u64, u64>::new(), Instant::now() + patience);
        loop {
            match receiver.recv_timeout(QUIET) {
                Ok(line) => {
                    if let Some(number) = self.number(&line)? {
                        *found.entry(number).or_default() += 1;
                    }
                }
                Err(RecvTimeoutError::Timeout) if self.lost(&found) > 0 && Instant::now() < end => {
                }
                Err(_) => break,
            }
        }
        stop(&mut tail)?;
        Ok(Row {
            sent: self.sent,
            held: self.held,
            in_kafka: found.len() as u64,
            lost: self.lost(&found),
            twice: found.values().filter(|count| **count > 1).count() as u64,
            slowest: Duration::from_micros(self.latency_us.max),
            note: String::new(),
        })
    }

    fn lost(&self, found: &BTreeMap<u64, u64>) -> u64 {
        let refused_but_found = self.failed_clicks.iter().filter(|click| found.contains_key(click));
        let found = found.len() as u64 - refused_but_found.count() as u64;
        self.held.saturating_sub(found)
    }

    /// The number of this run's click in a record.
    fn number(&self, record: &str) -> Result<Option<u64>> {
        let record: Value = serde_json::from_str(record)?;
        let destination = record["value"]["destination"].as_str().unwrap_or_default();
        let click = destination.rsplit_once("click=").and_then(|(_, click)| click.split_once('-'));
        Ok(click.filter(|(run, _)| *run == self.run).and_then(|(_, number)| number.parse().ok()))
    }
}

impl fmt::Display for Row {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Row { sent, held, in_kafka, lost, twice, slowest, note } = self;
        let seconds = slowest.as_secs_f64();
        match sent {
            0 => write!(f, "| | | | | | {note}"),
            _ => write!(
                f,
                "{sent} | {held} | {in_kafka} | {lost} | {twice} | {seconds:.2} s | {note}"
            ),
        }
    }
}

impl Row {
    pub fn note(mut self, note: impl Into<String>) -> Row {
        self.note = note.into();
        self
    }
}

/// The present time, as `tail --from` takes it.
pub fn now() -> String {
    // A little earlier, since the clocks of the nodes differ.
    let now = jiff::Timestamp::now() - jiff::SignedDuration::from_secs(10);
    now.to_string()
}
