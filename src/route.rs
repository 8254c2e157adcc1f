//! Which webhook a path is, and what its bodies become: an [`Event`] goes in, a [`Record`] comes out;
//! a body that is no event becomes a record for the dead letters.

use std::borrow::Cow;
use std::sync::Arc;

use bytes::Bytes;
use hyper::Method;
use hyper::http::HeaderMap;
use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::auth::Caller;
use crate::event::{Event, Shape, is_plausible};
use crate::outcome::{Refusal, Rejection};

/// A webhook as the pipeline uses it: the config's entry, read and checked.
#[derive(Debug)]
pub struct Webhook {
    /// Its name: the metric label, and part of the event id.
    pub name: Arc<str>,
    /// The path that it is posted to.
    pub path: String,
    /// Where its records go.
    pub topic: Arc<str>,
    /// Where those go that nobody can understand.
    pub dead_letter_topic: Arc<str>,
    /// Whether a body that is no event is refused, instead of kept as a dead letter.
    pub rejects_invalid: bool,
    /// Where its events carry what the bridge needs.
    pub shape: Shape,
    /// An older event time is not believed.
    pub time_age_max: SignedDuration,
    /// Nor is one further ahead.
    pub time_ahead_max: SignedDuration,
    /// The text of the 200.
    pub answer: Bytes,
    /// The CloudEvents attribute `source`.
    pub ce_source: Bytes,
    /// The CloudEvents attribute `type`.
    pub ce_type: Bytes,
    /// Its place among the configured webhooks.
    pub index: usize,
}

/// One Kafka record, ready to publish. Only [`record`] and [`dead_letter`] make one, or the spool gives
/// one back. It has no `Debug`: it holds a body.
#[derive(Clone, Serialize, Deserialize)]
pub struct Record {
    topic: Arc<str>,
    key: Option<String>,
    value: Bytes,
    timestamp_ms: i64,
    headers: Vec<Header>,
    origin: Origin,
}

/// A record's header: its name and its value.
type Header = (Cow<'static, str>, Bytes);

/// Where a record comes from, should it become a dead letter.
#[derive(Clone, Serialize, Deserialize)]
struct Origin {
    webhook: Arc<str>,
    caller: Arc<str>,
    dead_letter_topic: Arc<str>,
}

impl Record {
    pub fn topic(&self) -> &Arc<str> {
        &self.topic
    }

    /// The key; a dead letter has none.
    pub fn key(&self) -> Option<&str> {
        self.key.as_deref()
    }

    /// The body's bytes, exactly as received.
    pub fn value(&self) -> &[u8] {
        &self.value
    }

    /// Milliseconds since the Unix epoch, as Kafka counts.
    pub fn timestamp_ms(&self) -> i64 {
        self.timestamp_ms
    }

    pub fn headers(&self) -> &[Header] {
        &self.headers
    }

    /// The name of its webhook.
    pub fn webhook(&self) -> &str {
        &self.origin.webhook
    }

    pub fn is_dead_letter(&self) -> bool {
        self.topic == self.origin.dead_letter_topic
    }

    /// The same for the dead letters, with the reason: Kafka does not take it as it is.
    pub fn into_dead_letter(mut self, reason: &str, detail: &str) -> Record {
        let topic = std::mem::replace(&mut self.topic, self.origin.dead_letter_topic.clone());
        self.headers.extend(reasons(&self.origin, &topic, reason, detail));
        self.key = None;
        self
    }
}

/// What a dead letter says of itself.
fn reasons(origin: &Origin, topic: &str, reason: &str, detail: &str) -> [Header; 5] {
    [
        ("hookbridge-reason", reason),
        ("hookbridge-detail", detail),
        ("hookbridge-webhook", &*origin.webhook),
        ("hookbridge-caller", &*origin.caller),
        ("hookbridge-topic", topic),
    ]
    .map(|(name, value)| (Cow::Borrowed(name), Bytes::copy_from_slice(value.as_bytes())))
}

/// Finds the webhook of a request.
///
/// # Errors
///
/// [`Refusal::UnknownPath`], or [`Refusal::WrongMethod`] where the path is right.
pub fn find<'w>(
    webhooks: &'w [Webhook],
    method: &Method,
    path: &str,
) -> Result<&'w Webhook, Rejection> {
    let webhook = webhooks.iter().find(|webhook| webhook.path == path);
    let webhook = webhook.ok_or_else(|| Refusal::UnknownPath.plain())?;
    if method == Method::POST { Ok(webhook) } else { Err(Refusal::WrongMethod.plain()) }
}

/// Makes the record of an event.
pub fn record(
    webhook: &Webhook,
    caller: &Caller,
    event: Event,
    body: Bytes,
    trace: Option<&str>,
    received: Timestamp,
) -> Record {
    let (age, ahead) = (webhook.time_age_max, webhook.time_ahead_max);
    let time = event.time().filter(|time| is_plausible(*time, received, age, ahead));
    Record {
        topic: webhook.topic.clone(),
        headers: attributes(webhook, &body, time, "application/json", trace, received),
        key: Some(event.into_key()),
        value: body,
        timestamp_ms: time.unwrap_or(received).as_millisecond(),
        origin: webhook.origin(caller),
    }
}

/// Makes the record of a body that is no event of its webhook: the bytes as they came, and why.
pub fn dead_letter(
    webhook: &Webhook,
    caller: &Caller,
    why: &Rejection,
    body: Bytes,
    trace: Option<&str>,
    received: Timestamp,
) -> Record {
    let origin = webhook.origin(caller);
    let mut headers = attributes(webhook, &body, None, "application/octet-stream", trace, received);
    headers.extend(reasons(&origin, &webhook.topic, why.refusal.facts().tag, &why.detail));
    Record {
        topic: webhook.dead_letter_topic.clone(),
        headers,
        key: None,
        value: body,
        timestamp_ms: received.as_millisecond(),
        origin,
    }
}

/// The headers of every record: CloudEvents attributes in binary mode, and ours.
fn attributes(
    webhook: &Webhook,
    body: &[u8],
    time: Option<Timestamp>,
    content_type: &'static str,
    trace: Option<&str>,
    received: Timestamp,
) -> Vec<Header> {
    let received_text = Bytes::from(received.to_string());
    let time_text = time.map_or(received_text.clone(), |time| Bytes::from(time.to_string()));
    let mut headers = Vec::with_capacity(8);
    headers.extend(
        [
            ("ce_specversion", Bytes::from_static(b"1.0")),
            ("ce_id", Bytes::from(event_id(&webhook.name, body))),
            ("ce_source", webhook.ce_source.clone()),
            ("ce_type", webhook.ce_type.clone()),
            ("ce_time", time_text),
            ("content-type", Bytes::from_static(content_type.as_bytes())),
            ("hookbridge-received-at", received_text),
        ]
        .map(|(name, value)| (Cow::Borrowed(name), value)),
    );
    let trace = trace.map(|trace| Bytes::copy_from_slice(trace.as_bytes()));
    headers.extend(trace.map(|trace| (Cow::Borrowed("traceparent"), trace)));
    headers
}

impl Webhook {
    fn origin(&self, caller: &Caller) -> Origin {
        Origin {
            webhook: self.name.clone(),
            caller: caller.shared_name(),
            dead_letter_topic: self.dead_letter_topic.clone(),
        }
    }
}

/// The id of an event: the first 16 bytes of SHA-256 over the webhook's name, a zero byte and the
/// body, as a UUID of version 8 (RFC 9562, section 5.8). The same event has the same id on every
/// replica and after every restart.
fn event_id(webhook: &str, body: &[u8]) -> String {
    let hash = Sha256::new().chain_update(webhook).chain_update([0]).chain_update(body).finalize();
    let mut id = [0; 16];
    id.copy_from_slice(&hash[..16]);
    id[6] = (id[6] & 0x0f) | 0x80;
    id[8] = (id[8] & 0x3f) | 0x80;
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let mut text = String::with_capacity(36);
    for (index, byte) in id.iter().enumerate() {
        if [4, 6, 8, 10].contains(&index) {
            text.push('-');
        }
        text.push(char::from(DIGITS[usize::from(byte >> 4)]));
        text.push(char::from(DIGITS[usize::from(byte & 0x0f)]));
    }
    text
}

/// The request's `traceparent`, where it has exactly one and it is valid (W3C Trace Context,
/// section 3.2.2).
pub fn trace_parent(headers: &HeaderMap) -> Option<&str> {
    let mut values = headers.get_all("traceparent").iter();
    let value = values.next().filter(|_| values.next().is_none())?.to_str().ok()?;
    let mut parts = value.splitn(5, '-');
    let (version, trace, parent) = (parts.next()?, parts.next()?, parts.next()?);
    let (flags, rest) = (parts.next()?, parts.next());
    let hex = |text: &str, digits: usize| {
        text.len() == digits && text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'))
    };
    let not_zero = |text: &str| text.bytes().any(|byte| byte != b'0');
    let valid = hex(version, 2)
        && version != "ff"
        && (version != "00" || rest.is_none())
        && hex(trace, 32)
        && not_zero(trace)
        && hex(parent, 16)
        && not_zero(parent)
        && hex(flags, 2);
    valid.then_some(value)
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::event::{Pointer, parse_offset};

    fn click() -> Webhook {
        Webhook {
            name: "click".into(),
            path: "/click".into(),
            topic: "clicks".into(),
            dead_letter_topic: "clicks.dead-letter".into(),
            rejects_invalid: false,
            shape: Shape {
                key: Pointer::parse("/campid").expect("a pointer"),
                time: Pointer::parse("/timestamp").expect("a pointer"),
                r#type: String::new(),
                event: String::new(),
                offset: parse_offset("-05:00").expect("an offset"),
            },
            time_age_max: SignedDuration::from_hours(168),
            time_ahead_max: SignedDuration::from_hours(1),
            answer: Bytes::from_static(b"ok"),
            ce_source: "/click".into(),
            ce_type: "clicks".into(),
            index: 0,
        }
    }

    pub(crate) fn record_of(body: &'static str, received: &str, trace: Option<&str>) -> Record {
        let webhook = click();
        let body = Bytes::from_static(body.as_bytes());
        let event = webhook.shape.decode(&body).expect("an event");
        let received = received.parse().expect("a time");
        record(&webhook, &Caller::named("opptima"), event, body, trace, received)
    }

    fn text<'r>(headers: &'r [Header]) -> Vec<(&'r str, &'r str)> {
        let text = |value: &'r Bytes| std::str::from_utf8(value).expect("text");
        headers.iter().map(|(name, value)| (&**name, text(value))).collect()
    }

    #[test]
    fn paths_and_methods() {
        let webhooks = [click()];
        let find =
            |method, path| find(&webhooks, &method, path).map(|w| w.index).map_err(|r| r.refusal);
        assert_eq!(find(Method::POST, "/click"), Ok(0));
        assert_eq!(find(Method::GET, "/click"), Err(Refusal::WrongMethod));
        assert_eq!(find(Method::POST, "/click/"), Err(Refusal::UnknownPath));
        assert_eq!(find(Method::POST, "/CLICK"), Err(Refusal::UnknownPath));
        assert_eq!(find(Method::GET, "/"), Err(Refusal::UnknownPath));
    }

    #[test]
    fn a_record_carries_the_event_and_its_cloudevents_attributes() {
        let body = r#"{"campid":7,"timestamp":"2026-01-10 06:59:00"}"#;
        let trace = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
        let record = record_of(body, "2026-01-10T12:00:00.5Z", Some(trace));
        assert_eq!((record.key(), record.value()), (Some("7"), body.as_bytes()));
        assert_eq!(record.timestamp_ms(), 1_768_046_340_000);
        assert_eq!(
            text(record.headers()),
            [
                ("ce_specversion", "1.0"),
                // printf 'click\0%s' "$body" | sha256sum, with version 8 and the variant set.
                ("ce_id", "72b7159e-5c9e-8776-90f1-19c091e680c4"),
                ("ce_source", "/click"),
                ("ce_type", "clicks"),
                ("ce_time", "2026-01-10T11:59:00Z"),
                ("content-type", "application/json"),
                ("hookbridge-received-at", "2026-01-10T12:00:00.5Z"),
                ("traceparent", trace),
            ]
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
            assert_eq!(text(record.headers())[4], ("ce_time", "2026-01-10T12:00:00.5Z"));
        }
    }

    #[test]
    fn a_dead_letter_says_why_and_whence() {
        let webhook = click();
        let body = Bytes::from_static(b"{");
        let why = webhook.shape.decode(&body).expect_err("not JSON");
        let received = "2026-01-10T12:00:00.5Z".parse().expect("a time");
        let caller = Caller::named("opptima");
        let letter = dead_letter(&webhook, &caller, &why, body, None, received);
        assert!(letter.is_dead_letter());
        assert_eq!((&**letter.topic(), letter.key()), ("clicks.dead-letter", None));
        assert_eq!(letter.value(), b"{");
        assert_eq!(
            text(letter.headers())[5..],
            [
                ("content-type", "application/octet-stream"),
                ("hookbridge-received-at", "2026-01-10T12:00:00.5Z"),
                ("hookbridge-reason", "malformed"),
                ("hookbridge-detail", "The body is not JSON: see line 1, column 1"),
                ("hookbridge-webhook", "click"),
                ("hookbridge-caller", "opptima"),
                ("hookbridge-topic", "clicks"),
            ]
        );
    }

    #[test]
    fn a_record_that_kafka_does_not_take_keeps_its_id_and_bytes() {
        let record = record_of(r#"{"campid":7}"#, "2026-01-10T12:00:00.5Z", None);
        assert!(!record.is_dead_letter());
        let letter = record.clone().into_dead_letter("too_large", "at most 1000 bytes");
        assert!(letter.is_dead_letter());
        assert_eq!(letter.value(), record.value());
        assert_eq!(letter.headers()[..7], record.headers()[..7]);
        assert_eq!(text(letter.headers())[7], ("hookbridge-reason", "too_large"));
        assert_eq!(text(letter.headers())[11], ("hookbridge-topic", "clicks"));
    }

    #[test]
    fn ids_depend_on_webhook_and_body_alone() {
        assert_eq!(event_id("click", b"{}"), event_id("click", b"{}"));
        assert_ne!(event_id("click", b"{}"), event_id("click", b"{ }"));
        assert_ne!(event_id("click", b"{}"), event_id("open", b"{}"));
        assert_ne!(event_id("a", b"b{}"), event_id("ab", b"{}"));
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
