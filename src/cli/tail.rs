//! `hookbridge tail`: records as they land in a topic, for people or for machines.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::io::{self, BufWriter, ErrorKind, Write};
use std::time::Duration;

use clap::Args;
use jiff::{SignedDuration, Timestamp};
use serde::Serialize;
use serde_json::value::RawValue;

use super::paint::{BAD, FAINT, NAME};
use super::{Exit, fail, show};
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

/// A field is cut to this, a value without any of them to this.
const FIELD_MAX: usize = 60;
const VALUE_MAX: usize = 160;

#[derive(Debug, Args)]
pub struct Tail {
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
    let ago: SignedDuration =
        text.parse().ok().filter(|ago: &SignedDuration| !ago.is_negative())?;
    Timestamp::now().checked_sub(ago).ok()
}

impl Tail {
    pub fn run(self, config: &Config) -> Exit {
        match self.follow(config) {
            Ok(()) => Exit::Clean,
            Err(reason) => fail(reason),
        }
    }

    fn follow(&self, config: &Config) -> Result<(), String> {
        let topic = topic(config, self.source.as_deref());
        let reader = Reader::open(config, &topic, self.from, TIMEOUT);
        let reader = reader.map_err(|error| error.to_string())?;
        let mut out = BufWriter::new(anstream::stdout().lock());
        let mut left = self.count.unwrap_or(u64::MAX);
        while left > 0 {
            let seen = match reader.next(Duration::ZERO) {
                // Nothing is there just now: what was printed should show.
                Ok(None) if gone(out.flush())? => return Ok(()),
                Ok(None) => reader.next(POLL),
                seen => seen,
            };
            let Some(seen) = seen.map_err(|error| error.to_string())? else { continue };
            let key = self.key.as_ref().map(String::as_bytes);
            if key.is_some_and(|key| seen.key.as_deref() != Some(key)) {
                continue;
            }
            left -= 1;
            let line = if self.json { self.json(&topic, &seen) } else { self.line(&seen) };
            if gone(writeln!(out, "{line}"))? {
                return Ok(());
            }
        }
        gone(out.flush()).map(drop)
    }

    fn mask<'t>(&self, text: Cow<'t, str>) -> Cow<'t, str> {
        if self.show_addresses { text } else { redact::addresses(&text).into() }
    }

    /// A record for people.
    fn line(&self, seen: &ConsumedRecord) -> String {
        let time = time_of(seen).map_or(String::new(), |time| time.to_string());
        let place = format!("{}:{}", seen.partition, seen.offset);
        let key = seen.key.as_deref().map(String::from_utf8_lossy);
        let key = key.map_or("-".into(), |key| show::folded(&self.mask(key), FIELD_MAX));
        let reason = seen.header("hookbridge-reason").map_or(String::new(), |reason| {
            let detail = seen.header("hookbridge-detail").unwrap_or_default();
            let reason = show::folded(&format!("{reason}: {detail}"), VALUE_MAX);
            format!("{BAD}{reason}{BAD:#}  ")
        });
        let fields = self.fields(&seen.value);
        format!(
            "{FAINT}{time:<24}  {place:<10}{FAINT:#}  {NAME}{key:<12}{NAME:#}  {reason}{fields}"
        )
    }

    /// The fields that are shown, or the value where it has none.
    fn fields(&self, value: &[u8]) -> String {
        let body: Option<BTreeMap<String, &RawValue>> = serde_json::from_slice(value).ok();
        let field = |name: &&str| {
            let raw = body.as_ref()?.get(*name)?.get();
            let text = serde_json::from_str(raw).unwrap_or_else(|_| raw.to_owned());
            Some(text).filter(|_| raw != "null")
        };
        let fields = FIELDS.iter().filter_map(field);
        let fields: Vec<_> =
            fields.map(|text| show::folded(&self.mask(text.into()), FIELD_MAX)).collect();
        if fields.is_empty() {
            return show::folded(&self.mask(String::from_utf8_lossy(value)), VALUE_MAX);
        }
        fields.join("  ")
    }

    /// A record for machines.
    fn json(&self, topic: &str, seen: &ConsumedRecord) -> String {
        let headers = seen.headers.iter();
        let headers = headers.map(|(name, value)| (name.clone(), self.mask(value.into()).into()));
        let key = seen.key.as_deref().map(String::from_utf8_lossy);
        let line = Line {
            topic,
            partition: seen.partition,
            offset: seen.offset,
            timestamp: time_of(seen).map(|time| time.to_string()),
            key: key.map(|key| self.mask(key)),
            headers: headers.collect(),
            value: self.value(&seen.value),
        };
        // Text and numbers can be written.
        serde_json::to_string(&line).unwrap_or_default()
    }

    fn value(&self, value: &[u8]) -> Value {
        let text = self.mask(String::from_utf8_lossy(value));
        // A new line inside JSON can only stand between its parts.
        let raw = || RawValue::from_string(text.trim().replace(['\n', '\r'], " ")).ok();
        match std::str::from_utf8(value).ok().and_then(|_| raw()) {
            Some(json) => Value::Json(json),
            None => Value::Text(text.into_owned()),
        }
    }
}

/// A record as JSON.
#[derive(Serialize)]
struct Line<'s> {
    topic: &'s str,
    partition: i32,
    offset: i64,
    timestamp: Option<String>,
    key: Option<Cow<'s, str>>,
    headers: serde_json::Map<String, serde_json::Value>,
    value: Value,
}

/// A value as it is, or as text where it is not JSON.
#[derive(Serialize)]
#[serde(untagged)]
enum Value {
    Json(Box<RawValue>),
    Text(String),
}

/// The topic of a webhook, or of this name; without a name that of the first webhook.
pub fn topic(config: &Config, source: Option<&str>) -> String {
    let mut webhooks = config.webhook.iter();
    let webhook = match source {
        Some(name) => webhooks.find(|webhook| webhook.name == name),
        None => webhooks.next(),
    };
    webhook.map_or_else(|| source.unwrap_or_default().to_owned(), |webhook| webhook.topic.clone())
}

fn time_of(seen: &ConsumedRecord) -> Option<Timestamp> {
    Timestamp::from_millisecond(seen.timestamp_ms?).ok()
}

/// Whether the reader of what is printed has gone, which is no mistake.
fn gone(written: io::Result<()>) -> Result<bool, String> {
    match written {
        Ok(()) => Ok(false),
        Err(error) if error.kind() == ErrorKind::BrokenPipe => Ok(true),
        Err(error) => Err(format!("standard output: {error}")),
    }
}
