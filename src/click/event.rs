//! What the bridge needs to know of an event: body bytes become a checked [`Event`], or the request
//! ends with 400 or 422.
//!
//! Reading is lenient, because senders drift: the body must be a JSON object with a usable key,
//! and all else passes. The body is walked once and never built into a tree, so neither deep
//! nesting nor a number of any size costs more than the bytes it takes. Where a name occurs twice
//! the last one counts, as it does for the readers of the topic (Jackson, JavaScript, serde_json).
//!
//! Where a body carries several events, `event/envelope.rs` takes it apart first.

mod envelope;

use std::borrow::Cow;
use std::fmt;

use jiff::civil::DateTime;
use jiff::tz::Offset;
use jiff::{SignedDuration, Timestamp};
use serde::de::{DeserializeSeed, Deserializer as _, IgnoredAny, MapAccess, Visitor};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use crate::click::outcome::{Refusal, Rejection};

pub use envelope::Envelope;

/// A checked event. Only [`Shape::decode`] makes one.
#[derive(Debug, PartialEq)]
pub struct Event<'b> {
    key: Cow<'b, str>,
    id: Option<Cow<'b, str>>,
    time: Option<Timestamp>,
}

impl<'b> Event<'b> {
    /// The key as text: `7` and `"7"` are the same.
    pub fn key(&self) -> &str {
        &self.key
    }

    /// The key, for its record: borrowed from the body where it stands there as it is.
    pub fn into_key(self) -> Cow<'b, str> {
        self.key
    }

    /// What its sender calls it; none where the webhook's events have no ids, or this one has not.
    pub fn id(&self) -> Option<&str> {
        self.id.as_deref()
    }

    /// When it happened, as the sender says; none where that is absent or cannot be read.
    pub fn time(&self) -> Option<Timestamp> {
        self.time
    }
}

/// Where a webhook's events carry what the bridge needs.
#[derive(Debug, Clone)]
pub struct Shape {
    /// The record's key.
    pub key: Pointer,
    /// What the sender calls the event.
    pub id: Option<Pointer>,
    /// The time of the event.
    pub time: Pointer,
    pub time_format: TimeFormat,
    /// What `type` must say, where it is there and this is not empty.
    pub r#type: String,
    /// The same for `event`.
    pub event: String,
    /// The zone of a time that names none.
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

/// A JSON pointer (RFC 6901) to a member of an object, at any depth.
#[derive(Debug, Clone, PartialEq)]
pub struct Pointer(Vec<String>);

impl Pointer {
    /// Reads `/campid` or `/data/campaign~1id`. The empty pointer, the whole body, is refused.
    pub fn parse(text: &str) -> Option<Pointer> {
        text.strip_prefix('/')?.split('/').map(unescape).collect::<Option<_>>().map(Pointer)
    }

    /// The names or indices on the way, one at least.
    pub fn tokens(&self) -> &[String] {
        &self.0
    }

    /// The first of them and the rest.
    fn split(&self) -> (&str, &[String]) {
        self.0.split_first().map_or(("", &[]), |(first, rest)| (first, rest))
    }

    /// Whether one leads to the other, or both to the same.
    pub fn meets(&self, other: &Pointer) -> bool {
        self.0.starts_with(&other.0) || other.0.starts_with(&self.0)
    }
}

/// Undoes RFC 6901's two escapes, `~1` for a slash and `~0` for a tilde; any other is an error.
fn unescape(token: &str) -> Option<String> {
    let mut text = String::with_capacity(token.len());
    let mut chars = token.chars();
    while let Some(char) = chars.next() {
        match char {
            '~' => text.push(match chars.next()? {
                '0' => '~',
                '1' => '/',
                _ => return None,
            }),
            char => text.push(char),
        }
    }
    Some(text)
}

/// Reads a fixed offset from UTC: `-05:00`, `+00:00`, `Z`.
pub fn parse_offset(text: &str) -> Option<Offset> {
    // The library reads an offset as the end of a time. What the clock at that offset shows at
    // 1970-01-01T00:00 is the offset with its sign turned.
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
        let names = [key, time, "type", "event"];
        let [key, time, r#type, event] =
            parse(text, |json| json.deserialize_map(Pick(&names))).map(|Picked(values)| values)?;
        expect_constant(r#type, &self.r#type, "The event's type is not this webhook's")?;
        expect_constant(event, &self.event, "The event's name is not this webhook's")?;
        let key = key.and_then(|value| descend(value, key_rest)).and_then(key_text);
        let time = time.and_then(|value| descend(value, time_rest));
        Ok(Event {
            key: key.ok_or_else(|| Refusal::Invalid.detailed("The event has no usable key"))?,
            // Few senders give ids: one more pass for those that do.
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

/// The body as text, without a byte order mark.
pub fn as_text(body: &[u8]) -> Result<&str, Rejection> {
    let text = std::str::from_utf8(body)
        .map_err(|_| Refusal::Malformed.detailed("The body is not JSON: it is not UTF-8"))?;
    Ok(text.strip_prefix('\u{feff}').unwrap_or(text))
}

/// Why a text is refused that is something else than it should be, if it is JSON at all.
fn other_than(text: &str, detail: &'static str) -> Rejection {
    let is_json = parse(text, |json| json.deserialize_ignored_any(IgnoredAny));
    is_json.err().unwrap_or_else(|| Refusal::Invalid.detailed(detail))
}

/// Runs one pass over the whole text, to its end.
fn parse<'t, T>(
    text: &'t str,
    pass: impl FnOnce(
        &mut serde_json::Deserializer<serde_json::de::StrRead<'t>>,
    ) -> serde_json::Result<T>,
) -> Result<T, Rejection> {
    let mut json = serde_json::Deserializer::from_str(text);
    pass(&mut json).and_then(|value| json.end().map(|()| value)).map_err(|error| {
        // The library's own text may quote the body, its position does not.
        let (line, column) = (error.line(), error.column());
        Refusal::Malformed
            .detailed(format!("The body is not JSON: see line {line}, column {column}"))
    })
}

/// Picks the last value of each of four names out of an object and skips all others.
#[derive(Clone, Copy)]
struct Pick<'n>(&'n [&'n str; 4]);

/// What [`Pick`] found.
struct Picked<'t>([Option<&'t RawValue>; 4]);

impl<'t> Visitor<'t> for Pick<'_> {
    type Value = Picked<'t>;

    fn expecting(&self, formatter: &mut fmt::Formatter) -> fmt::Result {
        formatter.write_str("an object")
    }

    fn visit_map<A: MapAccess<'t>>(self, mut map: A) -> Result<Picked<'t>, A::Error> {
        let mut picked = [None; 4];
        while let Some(wanted) = map.next_key_seed(Wanted(self.0))? {
            if wanted == [false; 4] {
                map.next_value::<IgnoredAny>()?;
                continue;
            }
            let value = map.next_value::<&RawValue>()?;
            for (slot, wanted) in picked.iter_mut().zip(wanted) {
                if wanted {
                    *slot = Some(value);
                }
            }
        }
        Ok(Picked(picked))
    }
}

/// Says which of the names a member has, whether or not it is written with escapes.
struct Wanted<'n>(&'n [&'n str; 4]);

impl<'t> DeserializeSeed<'t> for Wanted<'_> {
    type Value = [bool; 4];

    fn deserialize<D: serde::Deserializer<'t>>(self, name: D) -> Result<[bool; 4], D::Error> {
        name.deserialize_str(self)
    }
}

impl Visitor<'_> for Wanted<'_> {
    type Value = [bool; 4];

    fn expecting(&self, formatter: &mut fmt::Formatter) -> fmt::Result {
        formatter.write_str("a name")
    }

    fn visit_str<E>(self, name: &str) -> Result<[bool; 4], E> {
        Ok(self.0.map(|wanted| wanted == name))
    }
}

/// The value that a pointer leads to in a text that is an object.
fn member<'t>(text: &'t str, pointer: &Pointer) -> Option<&'t RawValue> {
    let (first, rest) = pointer.split();
    let Picked([value, ..]) = parse(text, |json| json.deserialize_map(Pick(&[first; 4]))).ok()?;
    descend(value?, rest)
}

/// Follows the rest of a pointer into a value.
fn descend<'t>(value: &'t RawValue, rest: &[String]) -> Option<&'t RawValue> {
    let Some((token, rest)) = rest.split_first() else { return Some(value) };
    let inner = match value.get().as_bytes().first()? {
        b'{' => {
            let names = [token.as_str(); 4];
            let mut json = serde_json::Deserializer::from_str(value.get());
            let Picked([inner, ..]) = json.deserialize_map(Pick(&names)).ok()?;
            inner?
        }
        b'[' => {
            let index: usize = token.parse().ok()?;
            *serde_json::from_str::<Vec<&RawValue>>(value.get()).ok()?.get(index)?
        }
        _ => return None,
    };
    descend(inner, rest)
}

/// The text of a JSON string.
pub fn string(value: &RawValue) -> Option<Cow<'_, str>> {
    let raw = value.get();
    match raw.strip_prefix('"')?.strip_suffix('"')? {
        text if !text.contains('\\') => Some(Cow::Borrowed(text)),
        _escaped => serde_json::from_str(raw).ok().map(Cow::Owned),
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

/// Compares a constant where the event has one and the webhook asks for one.
fn expect_constant(
    value: Option<&RawValue>,
    expected: &str,
    detail: &'static str,
) -> Result<(), Rejection> {
    let Some(value) = value.filter(|value| !expected.is_empty() && value.get() != "null") else {
        return Ok(());
    };
    match string(value) {
        Some(text) if text.eq_ignore_ascii_case(expected) => Ok(()),
        Some(text) if text.to_lowercase() == expected.to_lowercase() => Ok(()),
        _ => Err(Refusal::Invalid.detailed(detail)),
    }
}

/// Reads `2020-10-02 15:07:31` at the given offset, or a time that names its own.
fn read_time(text: &str, offset: Offset) -> Option<Timestamp> {
    if let Ok(time) = text.parse::<Timestamp>() {
        return Some(time);
    }
    // A bare date would be read as its midnight, which no click means.
    let time: DateTime = text.parse().ok().filter(|_| text.contains(':'))?;
    offset.to_timestamp(time).ok()
}

/// Reads Unix time, in units of so many milliseconds, to the millisecond.
fn unix_time(value: &RawValue, unit_ms: f64) -> Option<Timestamp> {
    let raw = value.get();
    let digits = raw.strip_prefix('"').and_then(|raw| raw.strip_suffix('"')).unwrap_or(raw);
    let number: f64 = digits.parse().ok().filter(|number: &f64| number.is_finite())?;
    // What is out of range for the cast is out of range for a time.
    Timestamp::from_millisecond((number * unit_ms).round() as i64).ok()
}

/// Whether a time lies within the window around the time of receipt.
pub fn is_plausible(
    time: Timestamp,
    now: Timestamp,
    age: SignedDuration,
    ahead: SignedDuration,
) -> bool {
    let since = now.duration_since(time);
    since <= age && -since <= ahead
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
        let actual = actual.as_ref().map(|event| event.key()).map_err(|r| r.refusal);
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
            click().decode(body.as_bytes()).expect("an event").time().map(|t| t.to_string())
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
            shape.decode(body.as_bytes()).expect("an event").time().map(|t| t.to_string())
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
            event.id().map(str::to_owned)
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

    #[test]
    fn a_time_is_plausible_within_its_window() {
        let now: Timestamp = "2026-01-10T12:00:00Z".parse().expect("a time");
        let plausible = |text: &str| {
            let time = text.parse().expect("a time");
            is_plausible(time, now, SignedDuration::from_hours(168), SignedDuration::from_hours(1))
        };
        assert!(plausible("2026-01-10T12:00:00Z"));
        assert!(plausible("2026-01-03T12:00:00Z"));
        assert!(!plausible("2026-01-03T11:59:59Z"));
        assert!(plausible("2026-01-10T13:00:00Z"));
        assert!(!plausible("2026-01-10T13:00:01Z"));
    }
}
