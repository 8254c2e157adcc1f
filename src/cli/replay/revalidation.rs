//! Makes a record to be written of one that was read, by the same steps as of a request's body.

use std::borrow::Cow;

use bytes::Bytes;
use jiff::Timestamp;

use crate::cli::CommandResult;
use crate::cli::lines::LineRecord;
use crate::click::auth::Caller;
use crate::click::event::{Envelope, Pointer};
use crate::click::outcome::Rejection;
use crate::click::record::{Origin, Record};
use crate::click::webhook::Webhook;
use crate::config::Config;
use crate::kafka::ConsumedRecord;

/// The caller, if the record does not name one.
const CALLER: &str = "replay";

pub struct Revalidation {
    webhooks: Vec<Webhook>,
    /// Whether there is only the webhook of the command line, for every record.
    is_only_one: bool,
}

/// A record that is to be replayed, wherever it was read.
pub struct StoredRecord {
    topic: String,
    timestamp: Option<Timestamp>,
    headers: Vec<(String, String)>,
    value: Bytes,
}

impl StoredRecord {
    pub fn of_topic(topic: &str, record: ConsumedRecord) -> StoredRecord {
        let ConsumedRecord { timestamp, headers, value, .. } = record;
        StoredRecord { topic: topic.to_owned(), timestamp, headers, value: value.into() }
    }

    /// The value of its last header of this name.
    fn header(&self, name: &str) -> Option<&str> {
        let mut headers = self.headers.iter().rev();
        headers.find(|(found, _)| found == name).map(|(_, value)| value.as_str())
    }
}

impl From<LineRecord> for StoredRecord {
    /// The key is not needed: it is taken from the value again.
    fn from(line: LineRecord) -> StoredRecord {
        let LineRecord { topic, timestamp, headers, value, .. } = line;
        let text = |value: Vec<u8>| String::from_utf8_lossy(&value).into_owned();
        let headers = headers.into_iter().map(|(name, value)| (name, text(value))).collect();
        StoredRecord { topic, timestamp, headers, value }
    }
}

/// Why a record is not replayed.
pub struct NotReplayed {
    /// Its kind, by which it is counted.
    pub tag: &'static str,
    pub detail: Cow<'static, str>,
}

impl NotReplayed {
    fn because(why: &Rejection, what: &str) -> NotReplayed {
        let detail = if what.is_empty() {
            why.detail.clone()
        } else {
            format!("{what}{}", why.detail).into()
        };
        NotReplayed { tag: why.refusal.facts().tag, detail }
    }
}

impl Revalidation {
    /// With the overrides of the command line.
    pub fn new(
        config: &Config,
        webhook: Option<&str>,
        key: Option<&str>,
    ) -> CommandResult<Revalidation> {
        let mut webhooks = config.webhooks()?;
        if let Some(name) = webhook {
            let names: Vec<_> = webhooks.iter().map(|one| &*one.route.webhook).collect();
            let names = names.join(", ");
            webhooks.retain(|webhook| *webhook.route.webhook == *name);
            if webhooks.is_empty() {
                let reason = format!("--webhook: there is no {name}; the settings have {names}");
                return Err(reason.into());
            }
        }
        if let Some(key) = key {
            let pointer = Pointer::parse(key);
            let pointer = pointer.ok_or("--key: write a JSON pointer such as /data/id")?;
            webhooks.iter_mut().for_each(|webhook| webhook.shape.key = pointer.clone());
        }
        Ok(Revalidation { webhooks, is_only_one: webhook.is_some() })
    }

    /// The record to be written; or of a body with several events, one for each. What cannot be replayed is
    /// in its place.
    pub fn records(&self, stored: &StoredRecord) -> Vec<Result<Record, NotReplayed>> {
        match self.read(stored) {
            Ok(records) => records,
            Err(why) => vec![Err(why)],
        }
    }

    fn read(&self, stored: &StoredRecord) -> Result<Vec<Result<Record, NotReplayed>>, NotReplayed> {
        let webhook = self.webhook(stored).ok_or(NotReplayed {
            tag: "no_webhook",
            detail: "It names no webhook of these settings: choose one with --webhook".into(),
        })?;
        if webhook.pseudonyms.is_some() {
            return Err(NotReplayed {
                tag: "pseudonyms",
                detail: "Its webhook has pseudonyms, and nobody can tell whether it has them, too"
                    .into(),
            });
        }
        let received = stored.header("hookbridge-received-at").and_then(|text| text.parse().ok());
        let received = received.or(stored.timestamp).unwrap_or_else(Timestamp::now);
        let caller = Caller::named(stored.header("hookbridge-caller").unwrap_or(CALLER));
        let trace = stored.header("traceparent");
        let mut origin = Origin::new(webhook, &caller, trace, received);
        let why = match webhook.shape.decode(&stored.value) {
            Ok(event) => {
                let record = origin.record(event, &stored.value);
                let record = match stored.header("ce_id") {
                    Some(id) => record.with_id(id),
                    None => record,
                };
                return Ok(vec![Ok(record)]);
            }
            Err(why) => why,
        };
        let events = match webhook.envelope {
            Envelope::One => Vec::new(),
            _ => webhook.envelope.salvage(&stored.value),
        };
        let whole = events.iter().map(Bytes::len).max() == Some(stored.value.len());
        if events.is_empty() || whole {
            return Err(NotReplayed::because(&why, ""));
        }
        // Each has the id that it would have had, if the body had been understood.
        let record = |(place, event): (usize, &Bytes)| match webhook.shape.decode(event) {
            Ok(decoded) => Ok(origin.record(decoded, event)),
            Err(why) => Err(NotReplayed::because(&why, &format!("event {}: ", place + 1))),
        };
        let mut records: Vec<_> = events.iter().enumerate().map(record).collect();
        if webhook.envelope.split(&stored.value, usize::MAX).is_err() {
            records.push(Err(NotReplayed::because(&why, "the rest: ")));
        }
        Ok(records)
    }

    /// The webhook of the command line, else the one that the record names, else the one of its topic.
    fn webhook(&self, stored: &StoredRecord) -> Option<&Webhook> {
        let name = stored.header("hookbridge-webhook");
        self.webhooks.iter().find(|webhook| match name {
            _ if self.is_only_one => true,
            Some(name) => *webhook.route.webhook == *name,
            None => *webhook.route.topic == stored.topic,
        })
    }
}
