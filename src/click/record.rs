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
pub(crate) mod tests {
    use hyper::StatusCode;
    use jiff::SignedDuration;

    use super::*;
    use crate::click::auth::AuthScheme;
    use crate::click::event::{Pointer, Shape, TimeFormat, parse_offset};
    use crate::click::outcome::Refusal;
    use crate::click::verification::Verification;

    pub(crate) fn click() -> Webhook {
        Webhook {
            route: Arc::new(Route {
                webhook: "click".into(),
                topic: "clicks".into(),
                dead_letter_topic: "clicks.dead-letter".into(),
                ce_source: "/click".into(),
                ce_type: "clicks".into(),
            }),
            path: "/click".into(),
            auth_scheme: AuthScheme::Bearer,
            rejects_invalid: false,
            envelope: Envelope::One,
            shape: Shape {
                key: Pointer::parse("/campid").expect("a pointer"),
                id: None,
                time_format: TimeFormat::Text,
                time: Pointer::parse("/timestamp").expect("a pointer"),
                r#type: String::new(),
                event: String::new(),
                offset: parse_offset("-05:00").expect("an offset"),
            },
            pseudonyms: None,
            time_age_max: SignedDuration::from_hours(168),
            time_ahead_max: SignedDuration::from_hours(1),
            verification: Verification::None,
            answer: Bytes::from_static(b"ok"),
            unavailable: StatusCode::SERVICE_UNAVAILABLE,
            index: 0,
        }
    }

    pub(crate) fn record_of(body: &'static str, received: &str, trace: Option<&str>) -> Record {
        let webhook = click();
        let body = Bytes::from_static(body.as_bytes());
        let event = webhook.shape.decode(&body).expect("an event");
        let received = received.parse().expect("a time");
        let caller = Caller::named("opptima");
        Origin::new(&webhook, &caller, trace, received).record(event, &body)
    }

    pub(crate) fn headers(record: &Record) -> Vec<(String, String)> {
        let mut headers = Vec::new();
        record.each_header(|name, value| {
            let value = String::from_utf8(value.to_vec()).expect("text");
            headers.push((name.to_owned(), value));
        });
        headers
    }

    /// Some of a record's headers.
    #[track_caller]
    fn check(record: &Record, from: usize, expected: &[(&str, &str)]) {
        let headers = headers(record);
        let headers: Vec<_> =
            headers[from..].iter().map(|(n, v)| (n.as_str(), v.as_str())).collect();
        assert_eq!(headers[..expected.len()], *expected);
    }

    #[test]
    fn a_record_carries_the_event_and_its_cloudevents_attributes() {
        let body = r#"{"campid":7,"timestamp":"2026-01-10 06:59:00"}"#;
        let trace = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
        let record = record_of(body, "2026-01-10T12:00:00.5Z", Some(trace));
        assert_eq!((record.key(), record.value()), (Some(&b"7"[..]), body.as_bytes()));
        assert_eq!(record.timestamp_ms(), 1_768_046_340_000);
        assert_eq!(headers(&record).len(), 8);
        check(
            &record,
            0,
            &[
                ("ce_specversion", "1.0"),
                // printf 'click\0%s' "$body" | sha256sum, with version 8 and the variant set.
                ("ce_id", "72b7159e-5c9e-8776-90f1-19c091e680c4"),
                ("ce_source", "/click"),
                ("ce_type", "clicks"),
                ("ce_time", "2026-01-10T11:59:00Z"),
                ("content-type", "application/json"),
                ("hookbridge-received-at", "2026-01-10T12:00:00.5Z"),
                ("traceparent", trace),
            ],
        );
    }

    #[test]
    fn a_time_that_cannot_be_believed_gives_way_to_the_time_of_receipt() {
        for body in [
            r#"{"campid":7,"timestamp":"2020-10-02 15:07:31"}"#,
            r#"{"campid":7,"timestamp":"2026-01-10 08:00:01"}"#,
            r#"{"campid":7,"timestamp":"yesterday"}"#,
            r#"{"campid":7}"#,
        ] {
            let record = record_of(body, "2026-01-10T12:00:00.5Z", None);
            assert_eq!(record.timestamp_ms(), 1_768_046_400_500, "{body}");
            check(&record, 4, &[("ce_time", "2026-01-10T12:00:00.5Z")]);
        }
    }

    #[test]
    fn a_timestamp_that_kafka_refuses_gives_way_to_receipt_and_then_to_sending() {
        let now = "2026-01-10T13:00:00Z".parse().expect("a time");
        let record = |body| record_of(body, "2026-01-10T12:00:00Z", None);
        let timed = record(r#"{"campid":7,"timestamp":"2026-01-10 05:00:00"}"#);
        let mut stamps = Vec::new();
        let mut next = Some(timed.clone());
        while let Some(record) = next {
            stamps.push((record.timestamp_ms() / 1000, record.is_restamped()));
            // All headers stay: `ce_time` is the event's own time.
            assert_eq!(headers(&record), headers(&timed));
            next = record.restamped(now);
        }
        let (ten, hour) = (1_768_039_200, 3_600);
        assert_eq!(stamps, [(ten, false), (ten + 2 * hour, true), (ten + 3 * hour, true)]);
        let untimed = record(r#"{"campid":7}"#).restamped(now).expect("another timestamp");
        assert_eq!(untimed.timestamp_ms() / 1000, ten + 3 * hour);
        assert!(untimed.restamped(now).is_none());
    }

    #[test]
    fn a_dead_letter_says_why_and_whence() {
        let webhook = click();
        let body = Bytes::from_static(b"{");
        let why = webhook.shape.decode(&body).expect_err("not JSON");
        let received = "2026-01-10T12:00:00.5Z".parse().expect("a time");
        let caller = Caller::named("opptima");
        let letter = Origin::new(&webhook, &caller, None, received).dead_letter(&why, &body);
        assert!(letter.is_dead_letter());
        assert_eq!((&**letter.topic(), letter.key()), ("clicks.dead-letter", None));
        assert_eq!(letter.value(), b"{");
        assert_eq!(headers(&letter).len(), 12);
        check(
            &letter,
            5,
            &[
                ("content-type", "application/octet-stream"),
                ("hookbridge-received-at", "2026-01-10T12:00:00.5Z"),
                ("hookbridge-reason", "malformed"),
                ("hookbridge-detail", "The body is not JSON: see line 1, column 1"),
                ("hookbridge-webhook", "click"),
                ("hookbridge-caller", "opptima"),
                ("hookbridge-topic", "clicks"),
            ],
        );
    }

    /// The spool's files hold records in this form.
    #[test]
    fn a_record_on_disk_has_its_bytes_of_old() {
        let trace = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
        let record = record_of(r#"{"campid":7}"#, "2026-01-10T12:00:00.5Z", Some(trace));
        let head = b"\x05click\x06clicks\x12clicks.dead-letter\x06/click\x06clicks\x07opptima\
            \x80\xb8D\xa0\xe5I\x8dx\x89HsE}\x91~e";
        let rest = b"\x0c{\"campid\":7}\x01\x80\x94\xaf\x83\xae\xb5\xae\x891\
            \x80\x94\xaf\x83\xae\xb5\xae\x891\
            \x01700-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
        let bytes = [&head[..], b"\x01\x017", rest, b"\0"].concat();
        assert_eq!(postcard::to_stdvec(&record).expect("bytes"), bytes);
        let back: Record = postcard::from_bytes(&bytes).expect("a record");
        assert_eq!(headers(&back), headers(&record));
        let letter = record.into_dead_letter("too_large", "at most 1000 bytes".into());
        let reason = b"\x01\ttoo_large\x12at most 1000 bytes";
        let bytes = [&head[..], b"\0", rest, reason].concat();
        let now = [&bytes[..], b"\0"].concat();
        assert_eq!(postcard::to_stdvec(&letter).expect("bytes"), now);
        // Version 0.1.0 wrote no encoding.
        for bytes in [bytes, now] {
            let back: Record = postcard::from_bytes(&bytes).expect("a record");
            assert_eq!(headers(&back), headers(&letter));
        }
    }

    #[test]
    fn a_dead_letter_says_how_it_is_compressed() {
        let webhook = click();
        let caller = Caller::named("opptima");
        let mut origin = Origin::new(&webhook, &caller, None, Timestamp::UNIX_EPOCH);
        origin.is_encoded_as(Bytes::from_static(b"br"));
        let body = Bytes::from_static(b"\x1b\x06\0\xf8");
        let letter = origin.dead_letter(&Refusal::UnknownEncoding.plain(), &body);
        let expected = [("content-encoding", "br"), ("hookbridge-reason", "unknown_encoding")];
        check(&letter, 7, &expected);
        let bytes = postcard::to_stdvec(&letter).expect("bytes");
        let back: Record = postcard::from_bytes(&bytes).expect("a record");
        assert_eq!(headers(&back), headers(&letter));
    }

    #[test]
    fn a_record_that_kafka_does_not_take_keeps_its_id_and_bytes() {
        let record = record_of(r#"{"campid":7}"#, "2026-01-10T12:00:00.5Z", None);
        assert!(!record.is_dead_letter());
        let letter = record.clone().into_dead_letter("too_large", "at most 1000 bytes".into());
        assert!(letter.is_dead_letter());
        assert_eq!(letter.value(), record.value());
        assert_eq!(headers(&letter)[..7], headers(&record)[..7]);
        check(&letter, 7, &[("hookbridge-reason", "too_large")]);
        check(&letter, 11, &[("hookbridge-topic", "clicks")]);
    }

    /// The ids of these events, in one body.
    fn ids(webhook: &Webhook, events: &[&'static str]) -> Vec<[u8; 16]> {
        let caller = Caller::named("opptima");
        let mut origin = Origin::new(webhook, &caller, None, Timestamp::UNIX_EPOCH);
        let id = |event: &&'static str| {
            let body = Bytes::from_static(event.as_bytes());
            let record = match webhook.shape.decode(&body) {
                Ok(event) => origin.record(event, &body),
                Err(why) => origin.dead_letter(&why, &body),
            };
            record.id
        };
        events.iter().map(id).collect()
    }

    fn named(name: &str) -> Webhook {
        let mut webhook = click();
        let route = Arc::get_mut(&mut webhook.route).expect("a route of its own");
        route.webhook = name.into();
        webhook
    }

    #[test]
    fn ids_depend_on_webhook_and_body_alone() {
        let id = |name, body| ids(&named(name), &[body])[0];
        let (one, other) = (r#"{"campid":7}"#, r#"{"campid": 7}"#);
        assert_eq!(id("click", one), id("click", one));
        assert_ne!(id("click", one), id("click", other));
        assert_ne!(id("click", one), id("open", one));
        assert_ne!(id("a", "b{}"), id("ab", "{}"));
    }

    #[test]
    fn equal_events_of_one_body_have_ids_by_their_place_among_them() {
        let (one, other) = (r#"{"campid":7}"#, r#"{"campid":8}"#);
        let many = Webhook { envelope: Envelope::Array(None), ..click() };
        let first = ids(&many, &[one, other, one, "{}", one, "{}"]);
        assert_eq!(first[..2], [ids(&click(), &[one])[0], ids(&click(), &[other])[0]]);
        let distinct: std::collections::HashSet<_> = first.iter().collect();
        assert_eq!(distinct.len(), 6);
        // Put together in another way, they are the same.
        assert_eq!(ids(&many, &[one, one, one]), [first[0], first[2], first[4]]);
    }

    #[test]
    fn an_id_of_the_senders_is_all_that_counts() {
        let mut many = Webhook { envelope: Envelope::Array(None), ..click() };
        many.shape.id = Pointer::parse("/id");
        let (one, again) = (r#"{"campid":7,"id":"x"}"#, r#"{"campid":8,"id":"x"}"#);
        let none = r#"{"campid":7}"#;
        let found = ids(&many, &[one, again, none, none]);
        assert_eq!(found[0], found[1]);
        assert_ne!(found[2], found[3]);
        // printf 'click\1x' | sha256sum, with version 8 and the variant set.
        assert_eq!(&id_text(found[0]), b"9486f632-9dc7-81c7-b1d8-ee348e77c276");
    }

    #[test]
    fn an_id_of_the_request_is_that_of_its_events() {
        let caller = Caller::named("opptima");
        let ids = |webhook: &Webhook, message, bodies: &[&'static str]| -> Vec<[u8; 16]> {
            let mut origin = Origin::new(webhook, &caller, None, Timestamp::UNIX_EPOCH);
            origin.is_named(message);
            let record = |body: &&'static str| {
                let body = Bytes::from_static(body.as_bytes());
                match webhook.shape.decode(&body) {
                    Ok(event) => origin.record(event, &body).id,
                    Err(why) => origin.dead_letter(&why, &body).id,
                }
            };
            bodies.iter().map(record).collect()
        };
        let one = |message, body| ids(&click(), message, &[body])[0];
        let (body, other) = (r#"{"campid":7}"#, r#"{"campid":8}"#);
        // As one that the event has.
        assert_eq!(&id_text(one(Some("x"), body)), b"9486f632-9dc7-81c7-b1d8-ee348e77c276");
        assert_eq!(one(Some("x"), body), one(Some("x"), other));
        assert_eq!(one(Some("x"), body), one(Some("x"), "no event"));
        assert_ne!(one(Some("x"), body), one(Some("y"), body));
        assert_ne!(one(Some("x"), body), one(None, body));
        let many = Webhook { envelope: Envelope::Array(None), ..click() };
        let found = ids(&many, Some("x"), &[body, other, body]);
        assert_eq!(found[0], one(Some("x"), body));
        assert!(found[0] != found[1] && found[1] != found[2] && found[0] != found[2]);
        assert_eq!(found, ids(&many, Some("x"), &[body, other, body]));
    }

    #[test]
    fn a_traceparent_is_taken_only_when_valid() {
        let check = |values: &[&str]| {
            let mut headers = HeaderMap::new();
            for value in values {
                headers.append("traceparent", value.parse().expect("a header value"));
            }
            trace_parent(&headers).map(str::to_owned)
        };
        let valid = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
        let future = "01-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01-more";
        assert_eq!(check(&[valid]).as_deref(), Some(valid));
        assert_eq!(check(&[future]).as_deref(), Some(future));
        for invalid in [
            "",
            "00",
            "ff-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
            "00-0AF7651916CD43DD8448EB211C80319C-b7ad6b7169203331-01",
            "00-00000000000000000000000000000000-b7ad6b7169203331-01",
            "00-0af7651916cd43dd8448eb211c80319c-0000000000000000-01",
            "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01-more",
            "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331",
        ] {
            assert_eq!(check(&[invalid]), None, "{invalid}");
        }
        assert_eq!(check(&[valid, valid]), None);
    }
}
