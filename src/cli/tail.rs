//! `hookbridge tail`: prints records as they land in a topic, for people or for machines.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::io::{BufWriter, Write};
use std::time::Duration;

use clap::Args;
use jiff::{SignedDuration, Timestamp};
use serde::Serialize;
use serde_json::value::{RawValue, to_raw_value};

use super::terminal::{BAD, FAINT, NAME, is_closed, one_line};
use super::{CommandResult, Exit, webhook};
use crate::config::Config;
use crate::kafka::{ConsumedRecord, Reader, TopicPosition};
use crate::observe::redact;

/// How long the brokers may take for one question.
const TIMEOUT: Duration = Duration::from_secs(5);

/// How long to wait for a record before looking again.
const POLL: Duration = Duration::from_millis(200);

/// The fields of a body that are shown, as Opptima's webhooks name them, in this order.
const FIELDS: [&str; 10] = [
    "event",
    "cityName",
    "countryName",
    "device_type",
    "browser",
    "email",
    "to",
    "status",
    "subject",
    "destination",
];

/// A field is cut to so many characters, a value without any of them to so many.
const FIELD_MAX: usize = 60;
const VALUE_MAX: usize = 160;

#[derive(Debug, Args)]
pub struct TailArgs {
    /// A webhook's name, for its topic, or any topic; the first webhook if nothing is said
    source: Option<String>,
    /// Only records with this key, which is the campaign
    #[arg(long, visible_alias = "campaign")]
    key: Option<String>,
    /// Where to begin: beginning, end, a time as RFC 3339 has it, or how long ago, such as 10m
    #[arg(long, value_name = "PLACE", default_value = "end", value_parser = from)]
    from: TopicPosition,
    /// End after so many records
    #[arg(long)]
    count: Option<u64>,
    /// Print each record as JSON, on a line of its own
    #[arg(long)]
    json: bool,
    /// Show e-mail addresses as they are
    #[arg(long)]
    show_addresses: bool,
}

fn from(text: &str) -> Result<TopicPosition, &'static str> {
    match text {
        "beginning" => Ok(TopicPosition::Beginning),
        "end" => Ok(TopicPosition::End),
        text => time(text)
            .map(TopicPosition::Time)
            .ok_or("write beginning, end, 2026-11-24T12:00:00Z, or how long ago, such as 10m"),
    }
}

/// Reads a time, or how long ago it was.
pub fn time(text: &str) -> Option<Timestamp> {
    if let Ok(time) = text.parse() {
        return Some(time);
    }
    let ago: SignedDuration = text.parse().ok()?;
    if ago.is_negative() { None } else { Timestamp::now().checked_sub(ago).ok() }
}

impl TailArgs {
    pub fn run(self, config: &Config) -> CommandResult {
        // A webhook's topic, or the topic of this name.
        let source = self.source.as_deref();
        let topic = webhook(config, source).map(|webhook| webhook.topic.as_str());
        let topic = topic.or(source).unwrap_or_default();
        let reader = Reader::open(config, topic, self.from, TIMEOUT)?;
        let mut out = BufWriter::new(anstream::stdout().lock());
        let mut left = self.count.unwrap_or(u64::MAX);
        while left > 0 {
            let record = match reader.next(Duration::ZERO)? {
                // No record is ready: what was printed should show before the wait.
                None if is_closed(out.flush())? => return Ok(Exit::Clean),
                None => reader.next(POLL)?,
                record => record,
            };
            let Some(record) = record else { continue };
            let key = self.key.as_ref().map(String::as_bytes);
            if key.is_some_and(|key| record.key.as_deref() != Some(key)) {
                continue;
            }
            left -= 1;
            let line = if self.json { self.json(topic, &record) } else { self.line(&record) };
            if is_closed(writeln!(out, "{line}"))? {
                return Ok(Exit::Clean);
            }
        }
        is_closed(out.flush())?;
        Ok(Exit::Clean)
    }

    fn mask<'t>(&self, text: Cow<'t, str>) -> Cow<'t, str> {
        if self.show_addresses { text } else { redact::addresses(&text).into() }
    }

    /// A record for people.
    fn line(&self, record: &ConsumedRecord) -> String {
        let time = record.timestamp.map_or(String::new(), |time| time.to_string());
        let place = format!("{}:{}", record.partition, record.offset);
        let key = record.key.as_deref().map(String::from_utf8_lossy);
        let key = key.map_or("-".into(), |key| one_line(&self.mask(key), FIELD_MAX));
        let reason = record.header("hookbridge-reason").map_or(String::new(), |reason| {
            let detail = record.header("hookbridge-detail").unwrap_or_default();
            let reason = one_line(&format!("{reason}: {detail}"), VALUE_MAX);
            format!("{BAD}{reason}{BAD:#}  ")
        });
        let fields = self.fields(&record.value);
        format!(
            "{FAINT}{time:<24}  {place:<10}{FAINT:#}  {NAME}{key:<12}{NAME:#}  {reason}{fields}"
        )
    }

    /// The values of `FIELDS`, or the whole value if it has none of them.
    fn fields(&self, value: &[u8]) -> String {
        let body: Option<BTreeMap<String, &RawValue>> = serde_json::from_slice(value).ok();
        let field = |name: &&str| {
            let raw = body.as_ref()?.get(*name)?.get();
            let text = serde_json::from_str(raw).unwrap_or_else(|_| raw.to_owned());
            Some(text).filter(|_| raw != "null")
        };
        let fields = FIELDS.iter().filter_map(field);
        let fields: Vec<_> =
            fields.map(|text| one_line(&self.mask(text.into()), FIELD_MAX)).collect();
        if fields.is_empty() {
            return one_line(&self.mask(String::from_utf8_lossy(value)), VALUE_MAX);
        }
        fields.join("  ")
    }

    /// A record for machines.
    fn json(&self, topic: &str, record: &ConsumedRecord) -> String {
        let headers = record.headers.iter();
        let key = record.key.as_deref().map(String::from_utf8_lossy);
        let record = JsonRecord {
            topic,
            partition: record.partition,
            offset: record.offset,
            timestamp: record.timestamp,
            key: key.map(|key| self.mask(key)),
            headers: headers.map(|(name, value)| (&**name, self.mask(value.into()))).collect(),
            value: self.json_value(&record.value),
        };
        // Text and numbers can be written.
        serde_json::to_string(&record).unwrap_or_default()
    }

    /// The value as it is, or as text if it is not JSON.
    fn json_value(&self, value: &[u8]) -> Option<Box<RawValue>> {
        let text = self.mask(String::from_utf8_lossy(value));
        let json = std::str::from_utf8(value).ok().and_then(|_| {
            // Inside JSON a new line can only stand between its parts.
            RawValue::from_string(text.trim().replace(['\n', '\r'], " ")).ok()
        });
        json.or_else(|| to_raw_value(&text).ok())
    }
}

#[derive(Serialize)]
struct JsonRecord<'s> {
    topic: &'s str,
    partition: i32,
    offset: i64,
    timestamp: Option<Timestamp>,
    key: Option<Cow<'s, str>>,
    headers: BTreeMap<&'s str, Cow<'s, str>>,
    value: Option<Box<RawValue>>,
}
