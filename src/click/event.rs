//! Decoding: the bytes of a body become a checked [`Event`], or the request ends with 400 or 422.
//!
//! Reading is lenient, because senders drift: the body must be a JSON object with a usable key, and all
//! else passes.
//!
//! - `event/envelope.rs`: takes apart a body that carries several events.
//! - `event/form.rs`: reads forms.
//! - `event/json.rs`: finds values in JSON.

mod envelope;
pub(super) mod form;
pub(super) mod json;

use std::borrow::Cow;

use jiff::Timestamp;
use jiff::civil::DateTime;
use jiff::tz::Offset;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use super::outcome::{Refusal, Rejection};
use json::{descend, member, other_than, pick, string};

pub use envelope::Envelope;
pub use json::{Pointer, WILDCARD, as_text};

/// A checked event. Only [`Shape::decode`] makes one.
#[derive(Debug, PartialEq)]
pub struct Event<'b> {
    /// The key as text: `7` and `"7"` are the same. Borrowed from the body where that has it as it is.
    pub key: Cow<'b, str>,
    /// The sender's id; none where the webhook's events have no ids, or this one has none.
    pub(super) id: Option<Cow<'b, str>>,
    /// When it happened, as the sender says; none where that is absent or cannot be read.
    pub time: Option<Timestamp>,
}

/// Where a webhook's events have what the bridge needs.
#[derive(Debug, Clone)]
pub struct Shape {
    /// The record's key.
    pub key: Pointer,
    /// The sender's id of the event.
    pub id: Option<Pointer>,
    /// The time of the event.
    pub time: Pointer,
    pub time_format: TimeFormat,
    /// The value of `type`, where the event has one and this is not empty.
    pub r#type: String,
    /// The value of `event`, likewise.
    pub event: String,
    /// The offset of a time that has none.
    pub offset: Offset,
}

/// How a webhook's events write their time.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", try_from = "String")]
pub enum TimeFormat {
    /// As `2020-10-02 15:07:31`, with or without an offset.
    #[default]
    Text,
    /// In seconds since 1970, as a number or in digits, with or without a fraction.
    Unix,
    /// The same in milliseconds.
    UnixMs,
}

impl TryFrom<String> for TimeFormat {
    type Error = &'static str;

    fn try_from(name: String) -> Result<TimeFormat, &'static str> {
        match name.as_str() {
            "text" => Ok(TimeFormat::Text),
            "unix" => Ok(TimeFormat::Unix),
            "unix-ms" => Ok(TimeFormat::UnixMs),
            _ => Err("must be text, unix or unix-ms"),
        }
    }
}

/// Reads a fixed offset from UTC: `-05:00`, `+00:00`, `Z`.
pub fn parse_offset(text: &str) -> Option<Offset> {
    // The library reads an offset only at the end of a time. 1970-01-01T00:00 at an offset is as many
    // seconds from the Unix epoch as the offset has, with the opposite sign.
    let midnight: Timestamp = format!("1970-01-01T00:00:00{text}").parse().ok()?;
    Offset::from_seconds(i32::try_from(-midnight.as_second()).ok()?).ok()
}

impl Shape {
    /// Reads the body in one pass.
    ///
    /// # Errors
    ///
    /// [`Refusal::Malformed`] where it is not JSON, [`Refusal::Invalid`] where it is not an event of
    /// this shape. The rejection quotes nothing of the body.
    pub fn decode<'b>(&self, body: &'b [u8]) -> Result<Event<'b>, Rejection> {
        let text = as_text(body)?;
        if !text.trim_ascii_start().starts_with('{') {
            return Err(other_than(text, "The body is not a JSON object"));
        }
        let ((key, key_rest), (time, time_rest)) = (self.key.split(), self.time.split());
        let [key, time, r#type, event] = pick(text, [key, time, "type", "event"])?;
        expect_constant(r#type, &self.r#type, "The event's type is not this webhook's")?;
        expect_constant(event, &self.event, "The event's name is not this webhook's")?;
        let key = key.and_then(|value| descend(value, key_rest)).and_then(key_text);
        let time = time.and_then(|value| descend(value, time_rest));
        Ok(Event {
            key: key.ok_or_else(|| Refusal::Invalid.detailed("The event has no usable key"))?,
            // A second pass, only for the few senders that give ids.
            id: self.id.as_ref().and_then(|id| member(text, id)).and_then(key_text),
            time: time.and_then(|value| self.read_time(value)),
        })
    }

    fn read_time(&self, value: &RawValue) -> Option<Timestamp> {
        match self.time_format {
            TimeFormat::Text => read_time(&string(value)?, self.offset),
            TimeFormat::Unix => unix_time(value, 1_000.0),
            TimeFormat::UnixMs => unix_time(value, 1.0),
        }
    }
}

/// A key: a string that is not empty, or an integer as it was written.
fn key_text(value: &RawValue) -> Option<Cow<'_, str>> {
    let raw = value.get();
    if raw.starts_with('"') {
        return string(value).filter(|text| !text.is_empty());
    }
    let digits = raw.strip_prefix('-').unwrap_or(raw);
    digits.bytes().all(|byte| byte.is_ascii_digit()).then_some(Cow::Borrowed(raw))
}

/// Checks a constant that the webhook asks for, where the event has it.
fn expect_constant(
    value: Option<&RawValue>,
    expected: &str,
    detail: &'static str,
) -> Result<(), Rejection> {
    let Some(value) = value.filter(|value| !expected.is_empty() && value.get() != "null") else {
        return Ok(());
    };
    let is_expected = |text: Cow<str>| {
        text.eq_ignore_ascii_case(expected) || text.to_lowercase() == expected.to_lowercase()
    };
    let is_right = string(value).is_some_and(is_expected);
    if is_right { Ok(()) } else { Err(Refusal::Invalid.detailed(detail)) }
}

/// Reads `2020-10-02 15:07:31` at the given offset, or a time that names its own.
fn read_time(text: &str, offset: Offset) -> Option<Timestamp> {
    if let Ok(time) = text.parse::<Timestamp>() {
        return Some(time);
    }
    // A date alone would be read as its midnight, which no click means.
    let time: DateTime = text.parse().ok().filter(|_| text.contains(':'))?;
    offset.to_timestamp(time).ok()
}

/// Reads Unix time, in a unit of so many milliseconds, to the millisecond.
fn unix_time(value: &RawValue, unit_ms: f64) -> Option<Timestamp> {
    let raw = value.get();
    let digits = raw.strip_prefix('"').and_then(|raw| raw.strip_suffix('"')).unwrap_or(raw);
    let number: f64 = digits.parse().ok().filter(|number: &f64| number.is_finite())?;
    // The cast saturates, and its limits are out of range for a time.
    Timestamp::from_millisecond((number * unit_ms).round() as i64).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn click() -> Shape {
        Shape {
            key: Pointer::parse("/campid").expect("a pointer"),
            id: None,
            time: Pointer::parse("/timestamp").expect("a pointer"),
            time_format: TimeFormat::Text,
            r#type: "Email marketing".into(),
            event: "click".into(),
            offset: parse_offset("-05:00").expect("an offset"),
        }
    }

    #[track_caller]
    fn check_shape(shape: &Shape, body: &[u8], expected: Result<&str, Refusal>) {
        let actual = shape.decode(body);
        let actual = actual.as_ref().map(|event| &*event.key).map_err(|r| r.refusal);
        assert_eq!(actual, expected, "{}", String::from_utf8_lossy(body));
    }

    #[track_caller]
    fn check(body: &str, expected: Result<&str, Refusal>) {
        check_shape(&click(), body.as_bytes(), expected);
    }

    #[test]
    fn a_key_is_text_or_an_integer() {
        check(r#"{"campid":"7"}"#, Ok("7"));
        check(r#"{"campid":7}"#, Ok("7"));
        check(r#"{"campid":-7}"#, Ok("-7"));
        check(r#"{"campid":123456789012345678901234567890}"#, Ok("123456789012345678901234567890"));
        check(r#"{"campid":"007"}"#, Ok("007"));
        check(r#"{"campid":" 7 "}"#, Ok(" 7 "));
        check(r#"{"campid":"caf\u00e9 \ud83d\ude00\n"}"#, Ok("café 😀\n"));
        check(r#"{"campid":"日本"}"#, Ok("日本"));
        check("\t\r\n {\n\"campid\" :\t7 }\n ", Ok("7"));
    }

    #[test]
    fn other_keys_cannot_be_used() {
        for value in [
            "null",
            "true",
            "false",
            "\"\"",
            "{}",
            "[]",
            "[7]",
            "7.0",
            "7e0",
            "7.5",
            "-7E2",
            r#""\ud800""#,
        ] {
            check(&format!(r#"{{"campid":{value}}}"#), Err(Refusal::Invalid));
        }
        check("{}", Err(Refusal::Invalid));
        check(r#"{"Campid":"7"}"#, Err(Refusal::Invalid));
        check(r#"{"campaign":{"campid":"7"}}"#, Err(Refusal::Invalid));
    }

    #[test]
    fn names_may_be_escaped_repeated_and_in_any_order() {
        check(r#"{"c\u0061mpid":"7"}"#, Ok("7"));
        check(r#"{"campid":"1","campid":2}"#, Ok("2"));
        check(r#"{"campid":"1","campid":null}"#, Err(Refusal::Invalid));
        check(
            r#"{"event":"click","x":[{"campid":"no"}],"campid":"7","type":"Email marketing"}"#,
            Ok("7"),
        );
    }

    #[test]
    fn what_is_not_json_is_malformed() {
        for body in [
            "",
            " ",
            "{",
            "}",
            "{\"campid\"}",
            "{\"campid\":}",
            "{\"campid\":7,}",
            "{'campid':7}",
            "{\"campid\":7}{\"campid\":8}",
            "{\"campid\":7} x",
            "{\"campid\":07}",
            "[1,2",
            "nul",
            "{\"campid\":7,\"x\":tru}",
            "{\"campid\":\"a\nb\"}",
            "{\"campid\":7,\"x\":\"\\q\"}",
            "{\"campid\":7,\"x\":NaN}",
            "{campid:7}",
            "{\"a\":1]",
            "\u{feff}",
        ] {
            check(body, Err(Refusal::Malformed));
        }
        check_shape(
            &click(),
            b"{\"campid\":7,\"cityName\":\"Bogot\xe1\"}",
            Err(Refusal::Malformed),
        );
        check_shape(&click(), b"\xff\xfe{\0}\0", Err(Refusal::Malformed));
    }

    #[test]
    fn what_is_not_an_object_is_invalid() {
        for body in ["[]", "[{\"campid\":7}]", "7", "\"campid\"", "null", "true", "\u{feff}[]"] {
            check(body, Err(Refusal::Invalid));
        }
    }

    #[test]
    fn constants_are_compared_where_present_and_without_regard_to_case() {
        check(r#"{"campid":7,"type":"EMAIL Marketing","event":"CLICK"}"#, Ok("7"));
        check(r#"{"campid":7,"type":null,"event":null}"#, Ok("7"));
        check(r#"{"campid":7,"type":"SMTP"}"#, Err(Refusal::Invalid));
        check(r#"{"campid":7,"event":"open"}"#, Err(Refusal::Invalid));
        check(r#"{"campid":7,"event":1}"#, Err(Refusal::Invalid));
        let any = Shape { r#type: String::new(), event: String::new(), ..click() };
        check_shape(&any, br#"{"campid":7,"type":"SMTP","event":1}"#, Ok("7"));
    }

    #[test]
    fn depth_and_size_elsewhere_do_not_matter() {
        let deep = "[".repeat(200_000) + &"]".repeat(200_000);
        check(&format!(r#"{{"x":{deep},"campid":7}}"#), Ok("7"));
        check(&format!(r#"{{"campid":{deep}}}"#), Err(Refusal::Invalid));
        check(&format!(r#"{{"x":{},"campid":7}}"#, "[".repeat(200_000)), Err(Refusal::Malformed));
        check(&deep, Err(Refusal::Invalid));
        let digits = "9".repeat(100_000);
        check(&format!(r#"{{"x":{digits}e{digits},"campid":7}}"#), Ok("7"));
        check(r#"{"x":1e999999,"y":-0.0000001E-999,"campid":7}"#, Ok("7"));
        check("\u{feff}{\"campid\":7}", Ok("7"));
    }

    #[test]
    fn pointers_reach_into_objects_and_arrays() {
        let at = |pointer| Shape { key: Pointer::parse(pointer).expect(pointer), ..click() };
        check_shape(&at("/data/id"), br#"{"data":{"id":"1","id":"2"}}"#, Ok("2"));
        check_shape(&at("/data/1/id"), br#"{"data":[{"id":1},{"id":2}]}"#, Ok("2"));
        check_shape(&at("/data/9/id"), br#"{"data":[{"id":1}]}"#, Err(Refusal::Invalid));
        check_shape(&at("/data/id"), br#"{"data":"id"}"#, Err(Refusal::Invalid));
        check_shape(&at("/data/*/id"), br#"{"data":{"x":{"id":1}}}"#, Ok("1"));
        for other in [r#"{"x":{"id":1},"y":{"id":2}}"#, "{}", "[{\"id\":1}]", r#"{"x":7}"#, "7"] {
            let body = format!(r#"{{"data":{other}}}"#);
            check_shape(&at("/data/*/id"), body.as_bytes(), Err(Refusal::Invalid));
        }
        check_shape(&at("/*/id"), br#"{"x":{"id":1}}"#, Err(Refusal::Invalid));
        check_shape(&at("/a~1b~0"), br#"{"a/b~":7}"#, Ok("7"));
        check_shape(&at("/timestamp"), br#"{"timestamp":"7"}"#, Ok("7"));
        check_shape(&at("/"), br#"{"":7}"#, Ok("7"));
        for wrong in ["", "campid", "/a~2", "/a~"] {
            assert_eq!(Pointer::parse(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn times_are_read_in_the_webhooks_offset() {
        let time = |value: &str| {
            let body = format!(r#"{{"campid":7,"timestamp":{value}}}"#);
            click().decode(body.as_bytes()).expect("an event").time.map(|t| t.to_string())
        };
        for (value, expected) in [
            (r#""2020-10-02 15:07:31""#, Some("2020-10-02T20:07:31Z")),
            (r#""2020-10-02T15:07:31""#, Some("2020-10-02T20:07:31Z")),
            (r#""2020-10-02 23:30:00.250""#, Some("2020-10-03T04:30:00.25Z")),
            (r#""2020-10-02T15:07:31Z""#, Some("2020-10-02T15:07:31Z")),
            (r#""2020-10-02T15:07:31+02:00""#, Some("2020-10-02T13:07:31Z")),
            (r#""2020-10-02""#, None),
            (r#""02/10/2020 15:07:31""#, None),
            (r#""2020-13-02 15:07:31""#, None),
            (r#""2020-02-30 15:07:31""#, None),
            (r#""""#, None),
            ("1601651251", None),
            ("null", None),
            ("{}", None),
        ] {
            assert_eq!(time(value).as_deref(), expected, "{value}");
        }
    }

    #[test]
    fn unix_times_are_read_as_numbers_and_as_digits() {
        let time = |value: &str, time_format| {
            let body = format!(r#"{{"campid":7,"timestamp":{value}}}"#);
            let shape = Shape { time_format, ..click() };
            shape.decode(body.as_bytes()).expect("an event").time.map(|t| t.to_string())
        };
        let (unix, ms) = (TimeFormat::Unix, TimeFormat::UnixMs);
        for (value, format, expected) in [
            ("1601651251", unix, Some("2020-10-02T15:07:31Z")),
            (r#""1601651251""#, unix, Some("2020-10-02T15:07:31Z")),
            ("1601651251.0296", unix, Some("2020-10-02T15:07:31.03Z")),
            ("1601651251250", ms, Some("2020-10-02T15:07:31.25Z")),
            (r#""2020-10-02 15:07:31""#, unix, None),
            ("1601651251250", unix, None),
            (r#""NaN""#, unix, None),
            (r#""inf""#, unix, None),
            ("1e400", unix, None),
            ("null", unix, None),
            ("[1601651251]", unix, None),
        ] {
            assert_eq!(time(value, format).as_deref(), expected, "{value}");
        }
    }

    #[test]
    fn a_sender_may_give_ids() {
        let shape = Shape { id: Pointer::parse("/data/id"), ..click() };
        let id = |body: &str| {
            let event = shape.decode(body.as_bytes()).expect("an event");
            event.id.map(Cow::into_owned)
        };
        assert_eq!(id(r#"{"campid":7,"data":{"id":"a\u0062c"}}"#).as_deref(), Some("abc"));
        assert_eq!(id("\u{feff}{\"campid\":7,\"data\":{\"id\":12}}").as_deref(), Some("12"));
        assert_eq!(id(r#"{"campid":7,"data":{"id":""}}"#), None);
        assert_eq!(id(r#"{"campid":7,"data":{}}"#), None);
        assert_eq!(id(r#"{"campid":7}"#), None);
    }

    #[test]
    fn offsets_are_read_with_their_sign() {
        for (text, seconds) in [
            ("-05:00", Some(-18_000)),
            ("+05:30", Some(19_800)),
            ("+00:00", Some(0)),
            ("Z", Some(0)),
            ("", None),
            ("EST", None),
            ("-5", None),
            ("-30:00", None),
        ] {
            assert_eq!(parse_offset(text).map(Offset::seconds), seconds, "{text}");
        }
    }
}
