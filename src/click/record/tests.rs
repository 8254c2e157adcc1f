//! The tests of records, and those that others make for theirs.

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

pub(crate) fn record_of(body: &str, received: &str, trace: Option<&str>) -> Record {
    let webhook = click();
    let body = Bytes::copy_from_slice(body.as_bytes());
    let event = webhook.shape.decode(&body).expect("an event");
    let received = received.parse().expect("a time");
    let caller = Caller::named("opptima");
    Origin::new(&webhook, &caller, trace, received).record(event, &body)
}

/// The record of an event of another webhook and topic, received at a fixed time.
pub(crate) fn record_of_topic(name: &str, topic: &str, body: Bytes) -> Record {
    let mut webhook = click();
    webhook.route = Arc::new(Route {
        webhook: name.into(),
        topic: topic.into(),
        dead_letter_topic: format!("{topic}.dead-letter").into(),
        ce_source: "/click".into(),
        ce_type: topic.into(),
    });
    let event = webhook.shape.decode(&body).expect("an event");
    let received = Timestamp::from_second(1_768_000_000).expect("a time");
    let caller = Caller::named("opptima");
    Origin::new(&webhook, &caller, None, received).record(event, &body)
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
    let headers: Vec<_> = headers[from..].iter().map(|(n, v)| (n.as_str(), v.as_str())).collect();
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
