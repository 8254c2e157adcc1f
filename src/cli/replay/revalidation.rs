//! Makes a record to be written of one that was read, by the same steps as of a request's body.

use std::borrow::Cow;

use bytes::Bytes;
use jiff::Timestamp;

use crate::cli::CommandResult;
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
    topic: String,
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
    /// For records of this topic, with the overrides of the command line.
    pub fn new(
        config: &Config,
        topic: &str,
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
        Ok(Revalidation { webhooks, is_only_one: webhook.is_some(), topic: topic.to_owned() })
    }

    /// The record to be written; or of a body with several events, one for each. What cannot be replayed is
    /// in its place.
    pub fn records(&self, consumed: &ConsumedRecord) -> Vec<Result<Record, NotReplayed>> {
        match self.read(consumed) {
            Ok(records) => records,
            Err(why) => vec![Err(why)],
        }
    }

    fn read(
        &self,
        consumed: &ConsumedRecord,
    ) -> Result<Vec<Result<Record, NotReplayed>>, NotReplayed> {
        let webhook = self.webhook(consumed).ok_or(NotReplayed {
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
        let received = consumed.header("hookbridge-received-at").and_then(|text| text.parse().ok());
        let received = received.or(consumed.timestamp).unwrap_or_else(Timestamp::now);
        let caller = Caller::named(consumed.header("hookbridge-caller").unwrap_or(CALLER));
        let body = Bytes::copy_from_slice(&consumed.value);
        let trace = consumed.header("traceparent");
        let mut origin = Origin::new(webhook, &caller, trace, received);
        let why = match webhook.shape.decode(&body) {
            Ok(event) => {
                let record = origin.record(event, &body);
                let record = match consumed.header("ce_id") {
                    Some(id) => record.with_id(id),
                    None => record,
                };
                return Ok(vec![Ok(record)]);
            }
            Err(why) => why,
        };
        let events = match webhook.envelope {
            Envelope::One => Vec::new(),
            _ => webhook.envelope.salvage(&body),
        };
        let whole = events.iter().map(Bytes::len).max() == Some(body.len());
        if events.is_empty() || whole {
            return Err(NotReplayed::because(&why, ""));
        }
        // Each has the id that it would have had, if the body had been understood.
        let record = |(place, event): (usize, &Bytes)| match webhook.shape.decode(event) {
            Ok(decoded) => Ok(origin.record(decoded, event)),
            Err(why) => Err(NotReplayed::because(&why, &format!("event {}: ", place + 1))),
        };
        let mut records: Vec<_> = events.iter().enumerate().map(record).collect();
        if webhook.envelope.split(&body, usize::MAX).is_err() {
            records.push(Err(NotReplayed::because(&why, "the rest: ")));
        }
        Ok(records)
    }

    /// The webhook of the command line, else the one that the record names, else the one of its topic.
    fn webhook(&self, consumed: &ConsumedRecord) -> Option<&Webhook> {
        let name = consumed.header("hookbridge-webhook");
        self.webhooks.iter().find(|webhook| match name {
            _ if self.is_only_one => true,
            Some(name) => *webhook.route.webhook == *name,
            None => *webhook.route.topic == self.topic,
        })
    }
}
