//! Which webhook a path is, and what its events become: an [`Event`] goes in, a [`Record`] comes out.

use std::sync::Arc;

use bytes::Bytes;
use hyper::Method;
use hyper::http::HeaderMap;
use jiff::{SignedDuration, Timestamp};
use sha2::{Digest, Sha256};

use crate::event::{Event, Shape, is_plausible};
use crate::outcome::{Refusal, Rejection};

/// A webhook as the pipeline uses it: the config's entry, read and checked.
#[derive(Debug)]
pub struct Webhook {
    /// Its name: the metric label, and part of the event id.
    pub name: String,
    /// The path that it is posted to.
    pub path: String,
    /// Where its records go.
    pub topic: Arc<str>,
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

/// One Kafka record, ready to publish. Only [`record`] makes one. It has no `Debug`: it holds a body.
pub struct Record {
    topic: Arc<str>,
    webhook: usize,
    key: String,
    value: Bytes,
    timestamp: Timestamp,
    headers: Vec<(&'static str, Bytes)>,
}

impl Record {
    pub fn topic(&self) -> &Arc<str> {
        &self.topic
    }

    /// The place of its webhook among the configured ones.
    pub fn webhook(&self) -> usize {
        self.webhook
    }

    pub fn key(&self) -> &str {
        &self.key
    }

    /// The body's bytes, exactly as received.
    pub fn value(&self) -> &[u8] {
        &self.value
    }

    /// Milliseconds since the Unix epoch, as Kafka counts.
    pub fn timestamp_ms(&self) -> i64 {
        self.timestamp.as_millisecond()
    }

    pub fn headers(&self) -> &[(&'static str, Bytes)] {
        &self.headers
    }
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
    event: Event,
    body: Bytes,
    trace: Option<&str>,
    received: Timestamp,
) -> Record {
    let (age, ahead) = (webhook.time_age_max, webhook.time_ahead_max);
    let time = event.time().filter(|time| is_plausible(*time, received, age, ahead));
    let received_text = Bytes::from(received.to_string());
    let time_text = time.map_or(received_text.clone(), |time| Bytes::from(time.to_string()));
    let mut headers = Vec::with_capacity(8);
    headers.extend([
        ("ce_specversion", Bytes::from_static(b"1.0")),
        ("ce_id", Bytes::from(event_id(&webhook.name, &body))),
        ("ce_source", webhook.ce_source.clone()),
        ("ce_type", webhook.ce_type.clone()),
        ("ce_time", time_text),
        ("content-type", Bytes::from_static(b"application/json")),
        ("hookbridge-received-at", received_text),
    ]);
    headers.extend(trace.map(|trace| ("traceparent", Bytes::copy_from_slice(trace.as_bytes()))));
    Record {
        topic: webhook.topic.clone(),
        webhook: webhook.index,
        key: event.into_key(),
        value: body,
        timestamp: time.unwrap_or(received),
        headers,
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
mod tests {
    use super::*;
    use crate::event::{Pointer, parse_offset};

    fn click() -> Webhook {
        Webhook {
            name: "click".into(),
            path: "/click".into(),
            topic: "clicks".into(),
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

    fn record_of(body: &'static str, received: &str, trace: Option<&str>) -> Record {
        let webhook = click();
        let body = Bytes::from_static(body.as_bytes());
        let event = webhook.shape.decode(&body).expect("an event");
        record(&webhook, event, body, trace, received.parse().expect("a time"))
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
        assert_eq!((record.key(), record.value()), ("7", body.as_bytes()));
        assert_eq!(record.timestamp_ms(), 1_768_046_340_000);
        let text = |value| std::str::from_utf8(value).expect("text");
        let headers: Vec<_> = record.headers().iter().map(|(n, v)| (*n, text(v))).collect();
        assert_eq!(
            headers,
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
            assert_eq!(
                record.headers()[4],
                ("ce_time", Bytes::from_static(b"2026-01-10T12:00:00.5Z"))
            );
        }
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
