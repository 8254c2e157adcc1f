//! A record that was read becomes one to be written, by the same steps as a request's body; or it is
//! said why not.

use std::borrow::Cow;

use bytes::Bytes;
use jiff::Timestamp;

use crate::click::auth::Caller;
use crate::click::event::Pointer;
use crate::click::record::{Origin, Record};
use crate::click::webhook::Webhook;
use crate::config::{Config, Problem};
use crate::kafka::ConsumedRecord;

/// Who called, where the record does not say.
const CALLER: &str = "replay";

/// Judges records.
pub struct Judge {
    webhooks: Vec<Webhook>,
    /// The webhook of all of them, whatever they say.
    webhook: Option<usize>,
    topic: String,
}

/// Why a record is not replayed.
pub struct Fault {
    /// Its kind, by which it is counted.
    pub tag: &'static str,
    pub detail: Cow<'static, str>,
}

impl Judge {
    /// For records of this topic, with the overrides of the command line.
    ///
    /// # Errors
    ///
    /// A webhook that is not there, or no pointer.
    pub fn new(
        config: &Config,
        topic: &str,
        webhook: Option<&str>,
        key: Option<&str>,
    ) -> Result<Judge, String> {
        let webhooks = config.webhooks().map_err(|problem: Problem| problem.to_string())?;
        let mut judge = Judge { webhooks, webhook: None, topic: topic.to_owned() };
        if let Some(name) = webhook {
            let found = judge.webhooks.iter().position(|found| *found.route.webhook == *name);
            let names = || judge.webhooks.iter().map(|found| &*found.route.webhook);
            judge.webhook = Some(found.ok_or_else(|| {
                let names = names().collect::<Vec<_>>().join(", ");
                format!("--webhook: there is no {name}; the settings have {names}")
            })?);
        }
        if let Some(key) = key {
            let pointer = Pointer::parse(key);
            let pointer = pointer.ok_or("--key: write a JSON pointer such as /data/id")?;
            judge.webhooks.iter_mut().for_each(|webhook| webhook.shape.key = pointer.clone());
        }
        Ok(judge)
    }

    /// # Errors
    ///
    /// Why it is no event of its webhook.
    pub fn judge(&self, seen: ConsumedRecord) -> Result<Record, Fault> {
        let webhook = self.webhook(&seen).ok_or(Fault {
            tag: "no_webhook",
            detail: "It names no webhook of these settings: choose one with --webhook".into(),
        })?;
        if webhook.pseudonyms.is_some() {
            return Err(Fault {
                tag: "pseudonyms",
                detail: "Its webhook has pseudonyms, and nobody can tell whether it has them, too"
                    .into(),
            });
        }
        let received = seen.header("hookbridge-received-at").and_then(|text| text.parse().ok());
        let written = seen.timestamp_ms.and_then(|ms| Timestamp::from_millisecond(ms).ok());
        let received = received.or(written).unwrap_or_else(Timestamp::now);
        let caller = Caller::named(seen.header("hookbridge-caller").unwrap_or(CALLER));
        let body = Bytes::copy_from_slice(&seen.value);
        let event = webhook.shape.decode(&body);
        let event = event
            .map_err(|why| Fault { tag: why.refusal.facts().tag, detail: why.detail.clone() })?;
        let trace = seen.header("traceparent");
        let record = Origin::new(webhook, &caller, trace, received).record(event, &body);
        Ok(match seen.header("ce_id") {
            Some(id) => record.with_id(id),
            None => record,
        })
    }

    /// The webhook that is asked for, that the record names, or whose topic it is.
    fn webhook(&self, seen: &ConsumedRecord) -> Option<&Webhook> {
        if let Some(index) = self.webhook {
            return self.webhooks.get(index);
        }
        let mut webhooks = self.webhooks.iter();
        match seen.header("hookbridge-webhook") {
            Some(name) => webhooks.find(|webhook| *webhook.route.webhook == *name),
            None => webhooks.find(|webhook| *webhook.route.topic == self.topic),
        }
    }
}
