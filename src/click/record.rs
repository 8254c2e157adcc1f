//! What goes to Kafka: the [`Record`] of an [`Event`], or of a body that is no event, as a dead letter.

use std::borrow::Cow;
use std::collections::HashMap;
use std::io::Write;
use std::sync::Arc;

use bytes::Bytes;
use data_encoding::HEXLOWER_PERMISSIVE;
use hyper::http::HeaderMap;
use jiff::Timestamp;
use jiff::fmt::serde::timestamp::nanosecond;
use serde::{Deserialize, Deserializer, Serialize};
use sha2::{Digest, Sha256};

use super::auth::Caller;
use super::event::json::into_bytes;
use super::event::{Envelope, Event};
use super::outcome::Rejection;
use super::webhook::{Route, Webhook};

/// One Kafka record, ready to publish. Only an [`Origin`] makes one, or the spool reads one back: the
/// spool's files have these fields in this order. It has no `Debug`, because it holds a body.
#[derive(Clone, Serialize, Deserialize)]
pub struct Record {
    route: Arc<Route>,
    caller: Arc<str>,
    id: [u8; 16],
    key: Option<Bytes>,
    value: Bytes,
    /// Whether the value is an event of its webhook.
    is_event: bool,
    #[serde(with = "nanosecond::required")]
    time: Timestamp,
    #[serde(with = "nanosecond::required")]
    received: Timestamp,
    trace: Option<Bytes>,
    /// Why it is a dead letter, if it is one.
    reason: Option<Box<Reason>>,
    /// Not on disk: Kafka may refuse it again.
    #[serde(skip)]
    stamp: Stamp,
}

/// What the record's timestamp in Kafka is. The event's time stays in `ce_time`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
enum Stamp {
    /// The event's time, or that of receipt where the event has none.
    #[default]
    Own,
    Receipt,
    Sending(Timestamp),
}

/// Why a record is a dead letter.
#[derive(Clone, Serialize, Deserialize)]
struct Reason {
    tag: Cow<'static, str>,
    detail: Cow<'static, str>,
    /// The request's `Content-Encoding`, where the body could not be unpacked. It is the last field of a
    /// record on disk, and missing in records of earlier versions.
    #[serde(deserialize_with = "or_nothing")]
    encoding: Option<Bytes>,
}

/// Reads a field, and nothing where the bytes end before it.
fn or_nothing<'d, D: Deserializer<'d>>(from: D) -> Result<Option<Bytes>, D::Error> {
    Ok(Option::deserialize(from).unwrap_or_default())
}

impl Record {
    pub fn topic(&self) -> &Arc<str> {
        if self.is_dead_letter() { &self.route.dead_letter_topic } else { &self.route.topic }
    }

    /// The key; a dead letter has none.
    pub fn key(&self) -> Option<&[u8]> {
        self.key.as_deref()
    }

    /// The event's bytes, as received except for pseudonyms.
    pub fn value(&self) -> &[u8] {
        &self.value
    }

    pub fn received(&self) -> Timestamp {
        self.received
    }

    /// Milliseconds since the Unix epoch, as Kafka counts.
    pub fn timestamp_ms(&self) -> i64 {
        let time = match self.stamp {
            Stamp::Own => self.time,
            Stamp::Receipt => self.received,
            Stamp::Sending(now) => now,
        };
        time.as_millisecond()
    }

    /// The record with the next timestamp that its topic may take, where that refuses the last one: that of
    /// receipt, then this one. None if it had both.
    pub fn restamped(&self, now: Timestamp) -> Option<Record> {
        let stamp = match self.stamp {
            Stamp::Own if self.time != self.received => Stamp::Receipt,
            Stamp::Own | Stamp::Receipt => Stamp::Sending(now),
            Stamp::Sending(_) => return None,
        };
        Some(Record { stamp, ..self.clone() })
    }

    pub fn is_restamped(&self) -> bool {
        self.stamp != Stamp::Own
    }

    /// The name of its webhook.
    pub fn webhook(&self) -> &str {
        &self.route.webhook
    }

    pub fn is_dead_letter(&self) -> bool {
        self.reason.is_some()
    }

    /// The record as a dead letter, with the reason why Kafka does not take it as it is.
    pub fn into_dead_letter(mut self, tag: &'static str, detail: String) -> Record {
        self.key = None;
        let (tag, detail) = (tag.into(), detail.into());
        self.reason = Some(Box::new(Reason { tag, detail, encoding: None }));
        self
    }

    /// The record with the id, a UUID as text, that it had before. A text that is no UUID changes nothing.
    pub fn with_id(mut self, text: &str) -> Record {
        let id = HEXLOWER_PERMISSIVE.decode(text.replace('-', "").as_bytes()).ok();
        self.id = id.and_then(|id| id.try_into().ok()).unwrap_or(self.id);
        self
    }

    /// Gives name and value of each header: CloudEvents attributes in binary mode, and our own. Nothing is
    /// allocated, because every click has them.
    pub fn each_header(&self, mut give: impl FnMut(&str, &[u8])) {
        let content_type =
            if self.is_event { "application/json" } else { "application/octet-stream" };
        let (mut received, mut time) = ([0; TIME_TEXT_MAX], [0; TIME_TEXT_MAX]);
        let received = time_text(self.received, &mut received);
        give("ce_specversion", b"1.0");
        give("ce_id", &id_text(self.id));
        give("ce_source", self.route.ce_source.as_bytes());
        give("ce_type", self.route.ce_type.as_bytes());
        let is_own = self.time != self.received;
        give("ce_time", if is_own { time_text(self.time, &mut time) } else { received });
        give("content-type", content_type.as_bytes());
        give("hookbridge-received-at", received);
        if let Some(trace) = &self.trace {
            give("traceparent", trace);
        }
        if let Some(reason) = &self.reason {
            if let Some(encoding) = &reason.encoding {
                give("content-encoding", encoding);
            }
            give("hookbridge-reason", reason.tag.as_bytes());
            give("hookbridge-detail", reason.detail.as_bytes());
            give("hookbridge-webhook", self.route.webhook.as_bytes());
            give("hookbridge-caller", self.caller.as_bytes());
            give("hookbridge-topic", self.route.topic.as_bytes());
        }
    }
}

/// As long as the longest time, with its nanoseconds and a year of six digits and a sign.
const TIME_TEXT_MAX: usize = 40;

/// Writes a time as RFC 3339 does.
fn time_text(time: Timestamp, buffer: &mut [u8; TIME_TEXT_MAX]) -> &[u8] {
    let mut rest = &mut buffer[..];
    // A time that did not fit would be cut off; all of them fit.
    let _ = write!(rest, "{time}");
    let length = TIME_TEXT_MAX - rest.len();
    &buffer[..length]
}

/// Makes the records of one request, from what they have in common.
pub struct Origin<'r> {
    webhook: &'r Webhook,
    caller: &'r Caller,
    trace: Option<&'r str>,
    received: Timestamp,
    /// The sender's id of the request.
    message: Option<&'r str>,
    /// The body's `Content-Encoding`, where it could not be unpacked.
    encoding: Option<Bytes>,
    /// How often each id has occurred, where a body may carry several events.
    ids: Option<HashMap<[u8; 16], u32>>,
}

impl<'r> Origin<'r> {
    pub fn new(
        webhook: &'r Webhook,
        caller: &'r Caller,
        trace: Option<&'r str>,
        received: Timestamp,
    ) -> Origin<'r> {
        let ids = (webhook.envelope != Envelope::One).then(HashMap::new);
        Origin { webhook, caller, trace, received, message: None, encoding: None, ids }
    }

    /// Notes the sender's id of the request, of which the ids of events are made that have none of their own.
    pub fn is_named(&mut self, message: Option<&'r str>) {
        self.message = message;
    }

    /// Notes how a body is compressed that could not be unpacked. Its dead letters say it.
    pub fn is_encoded_as(&mut self, encoding: Bytes) {
        self.encoding = Some(encoding);
    }

    /// Makes the record of an event.
    pub fn record(&mut self, event: Event<'_>, body: &Bytes) -> Record {
        let time = event.time.filter(|time| self.webhook.believes(*time, self.received));
        let id = event.id.map(|id| hash(&[self.name(), &[1], id.as_bytes()]));
        Record {
            key: Some(into_bytes(event.key, body)),
            is_event: true,
            time: time.unwrap_or(self.received),
            ..self.unkeyed(id, body)
        }
    }

    /// Makes the record of a body that is no event of its webhook, with the reason.
    pub fn dead_letter(&mut self, why: &Rejection, body: &Bytes) -> Record {
        let (tag, detail) = (why.refusal.facts().tag.into(), why.detail.clone());
        let reason = Some(Box::new(Reason { tag, detail, encoding: self.encoding.clone() }));
        Record { reason, ..self.unkeyed(None, body) }
    }

    /// What records of events and dead letters have in common.
    fn unkeyed(&mut self, id: Option<[u8; 16]>, body: &Bytes) -> Record {
        Record {
            route: self.webhook.route.clone(),
            caller: self.caller.name().clone(),
            id: id.unwrap_or_else(|| self.id_of(body)),
            key: None,
            value: body.clone(),
            is_event: false,
            time: self.received,
            received: self.received,
            trace: self.trace.map(|trace| Bytes::copy_from_slice(trace.as_bytes())),
            reason: None,
            stamp: Stamp::Own,
        }
    }

    /// The id of an event without an id of its sender: the same on every replica and after every restart.
    /// Equal events in one body have different ids, by their place among them. So they keep their ids if
    /// the sender divides its events into bodies in another way.
    fn id_of(&mut self, body: &[u8]) -> [u8; 16] {
        let id = match self.message {
            Some(message) => hash(&[self.name(), &[1], message.as_bytes()]),
            None => hash(&[self.name(), &[0], body]),
        };
        let Some(ids) = &mut self.ids else { return id };
        let place = ids.entry(id).or_default();
        *place += 1;
        if *place == 1 { id } else { hash(&[&id, &place.to_be_bytes()]) }
    }

    fn name(&self) -> &'r [u8] {
        self.webhook.route.webhook.as_bytes()
    }
}

/// An event's id: the first 16 bytes of SHA-256 over these parts, marked as a UUID of version 8 (RFC 9562,
/// section 5.8). The parts are the webhook's name, and then a byte 0 and the event, or a byte 1 and the
/// sender's id. The event is the record's value, with its pseudonyms: the hash of the original would let
/// readers test guesses of the replaced texts.
fn hash(parts: &[&[u8]]) -> [u8; 16] {
    let mut hash = Sha256::new();
    parts.iter().for_each(|part| hash.update(part));
    let mut id = [0; 16];
    id.copy_from_slice(&hash.finalize()[..16]);
    id[6] = (id[6] & 0x0f) | 0x80;
    id[8] = (id[8] & 0x3f) | 0x80;
    id
}

/// A UUID as RFC 9562 writes it.
fn id_text(id: [u8; 16]) -> [u8; 36] {
    const PLACES: [usize; 16] = [0, 2, 4, 6, 9, 11, 14, 16, 19, 21, 24, 26, 28, 30, 32, 34];
    let digit = |value: u8| b"0123456789abcdef"[usize::from(value)];
    let mut text = [b'-'; 36];
    for (byte, place) in id.into_iter().zip(PLACES) {
        text[place] = digit(byte >> 4);
        text[place + 1] = digit(byte & 0x0f);
    }
    text
}

/// The request's `traceparent`, where it has exactly one and it is valid (W3C Trace Context,
/// section 3.2.2).
pub fn trace_parent(headers: &HeaderMap) -> Option<&str> {
    let mut values = headers.get_all("traceparent").iter();
    let value = values.next().filter(|_| values.next().is_none())?.to_str().ok()?;
    let mut parts = value.splitn(5, '-');
    let mut hex = |digits| {
        let is_digit = |byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f');
        parts.next().filter(|part| part.len() == digits && part.bytes().all(is_digit))
    };
    let (version, trace, parent, _flags) = (hex(2)?, hex(32)?, hex(16)?, hex(2)?);
    let is_zero = |digits: &str| digits.bytes().all(|digit| digit == b'0');
    // Later versions may have more parts.
    let has_right_end = version != "00" || parts.next().is_none();
    let is_valid = version != "ff" && !is_zero(trace) && !is_zero(parent) && has_right_end;
    is_valid.then_some(value)
}

#[cfg(test)]
pub(crate) mod tests;
