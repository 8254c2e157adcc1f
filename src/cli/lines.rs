//! Records as JSON, one on a line: what `spool export` writes and `replay --from-file` reads.
//!
//! Bytes that are UTF-8 are text. Others are base64, in a field whose name ends in `_base64`.

use std::collections::BTreeMap;

use bytes::Bytes;
use data_encoding::BASE64;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::click::record::Record;

/// A record of a topic, or one that is to be in it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LineRecord {
    pub topic: String,
    /// A dead letter has none.
    pub key: Option<Vec<u8>>,
    pub timestamp: Option<Timestamp>,
    pub headers: BTreeMap<String, Vec<u8>>,
    pub value: Bytes,
}

/// The fields of a line, in their order.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Line {
    topic: String,
    /// Null without a key.
    #[serde(default)]
    key: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    key_base64: Option<String>,
    #[serde(default)]
    timestamp: Option<Timestamp>,
    #[serde(default)]
    headers: BTreeMap<String, String>,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    headers_base64: BTreeMap<String, String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    value: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    value_base64: Option<String>,
}

impl LineRecord {
    /// As Kafka would have it.
    pub fn of(record: &Record) -> LineRecord {
        let mut headers = BTreeMap::new();
        record.each_header(|name, value| {
            headers.insert(name.to_owned(), value.to_owned());
        });
        LineRecord {
            topic: record.topic().to_string(),
            key: record.key().map(<[u8]>::to_owned),
            timestamp: Timestamp::from_millisecond(record.timestamp_ms()).ok(),
            headers,
            value: Bytes::copy_from_slice(record.value()),
        }
    }

    /// The line, without an end.
    pub fn write(self) -> String {
        let (key, key_base64) = self.key.map_or((None, None), text_or_base64);
        let (value, value_base64) = text_or_base64(self.value.into());
        let (mut headers, mut headers_base64) = (BTreeMap::new(), BTreeMap::new());
        for (name, value) in self.headers {
            match text_or_base64(value) {
                (Some(text), _) => headers.insert(name, text),
                (None, base64) => headers_base64.insert(name, base64.unwrap_or_default()),
            };
        }
        let (topic, timestamp) = (self.topic, self.timestamp);
        let line = Line {
            topic,
            key,
            key_base64,
            timestamp,
            headers,
            headers_base64,
            value,
            value_base64,
        };
        // Text and times can be written.
        serde_json::to_string(&line).unwrap_or_default()
    }

    /// Reads a line.
    ///
    /// # Errors
    ///
    /// What cannot be understood.
    pub fn read(line: &[u8]) -> Result<LineRecord, String> {
        if !line.trim_ascii_start().starts_with(b"{") {
            return Err("it is no JSON object".into());
        }
        let line: Line = serde_json::from_slice(line).map_err(|error| explain(&error))?;
        let value = bytes("value", line.value, line.value_base64)?;
        let mut headers: BTreeMap<_, _> =
            line.headers.into_iter().map(|(name, text)| (name, text.into_bytes())).collect();
        for (name, base64) in line.headers_base64 {
            let value = decode("headers_base64", &base64)?;
            if headers.insert(name, value).is_some() {
                return Err("a header is in headers and in headers_base64".into());
            }
        }
        Ok(LineRecord {
            topic: line.topic,
            key: bytes("key", line.key, line.key_base64)?,
            timestamp: line.timestamp,
            headers,
            value: value.ok_or("it has neither value nor value_base64")?.into(),
        })
    }
}

/// The bytes as text, or else as base64.
fn text_or_base64(bytes: Vec<u8>) -> (Option<String>, Option<String>) {
    match String::from_utf8(bytes) {
        Ok(text) => (Some(text), None),
        Err(error) => (None, Some(BASE64.encode(error.as_bytes()))),
    }
}

/// The bytes of a field that is there as text, as base64 or not at all.
fn bytes(
    name: &str,
    text: Option<String>,
    base64: Option<String>,
) -> Result<Option<Vec<u8>>, String> {
    match (text, base64) {
        (Some(_), Some(_)) => Err(format!("it has {name} and {name}_base64")),
        (Some(text), None) => Ok(Some(text.into_bytes())),
        (None, Some(base64)) => decode(&format!("{name}_base64"), &base64).map(Some),
        (None, None) => Ok(None),
    }
}

fn decode(name: &str, base64: &str) -> Result<Vec<u8>, String> {
    BASE64.decode(base64.as_bytes()).map_err(|error| format!("{name} is no base64: {error}"))
}

/// What is wrong, and where in the line; serde_json would always say line 1.
fn explain(error: &serde_json::Error) -> String {
    let text = error.to_string();
    let what = text.split(" at line ").next().unwrap_or_default();
    format!("{what} (column {})", error.column())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::click::auth::Caller;
    use crate::click::outcome::Refusal;
    use crate::click::record::Origin;
    use crate::click::record::tests::{click, record_of};

    fn record(key: Option<&[u8]>, headers: &[(&str, &[u8])], value: &'static [u8]) -> LineRecord {
        let headers = headers.iter().map(|(name, value)| ((*name).to_owned(), value.to_vec()));
        LineRecord {
            topic: "clicks".into(),
            key: key.map(<[u8]>::to_owned),
            timestamp: Some("2026-01-10T12:00:00.5Z".parse().expect("a time")),
            headers: headers.collect(),
            value: Bytes::from_static(value),
        }
    }

    #[test]
    fn a_record_is_one_line_and_comes_back_byte_for_byte() {
        let time = r#""timestamp":"2026-01-10T12:00:00.5Z""#;
        for (record, key, rest) in [
            (
                record(Some(b"7"), &[("ce_id", b"1")], br#"{"campid":7}"#),
                r#""key":"7""#,
                r#""headers":{"ce_id":"1"},"value":"{\"campid\":7}""#,
            ),
            // A dead letter has no key, and may be anything.
            (record(None, &[], b""), r#""key":null"#, r#""headers":{},"value":"""#),
            (
                record(None, &[], b"\xff\x00{"),
                r#""key":null"#,
                r#""headers":{},"value_base64":"/wB7""#,
            ),
            (
                record(Some(b"\xff"), &[("a", b"\xfe"), ("b", b"c")], b"x"),
                r#""key":null,"key_base64":"/w==""#,
                r#""headers":{"b":"c"},"headers_base64":{"a":"/g=="},"value":"x""#,
            ),
            (
                record(Some("día 🎉".as_bytes()), &[], "{\"a\":\"🎉\"}".as_bytes()),
                r#""key":"día 🎉""#,
                r#""headers":{},"value":"{\"a\":\"🎉\"}""#,
            ),
            // Ends of lines, control characters, half an emoji.
            (
                record(Some(b""), &[], b"a\r\nb\n\x00\x1b[31m\t"),
                r#""key":"""#,
                r#""headers":{},"value":"a\r\nb\n\u0000\u001b[31m\t""#,
            ),
            (
                record(Some(b"7"), &[], b"\xf0\x9f\x8e"),
                r#""key":"7""#,
                r#""headers":{},"value_base64":"8J+O""#,
            ),
        ] {
            let line = record.clone().write();
            assert_eq!(line, format!(r#"{{"topic":"clicks",{key},{time},{rest}}}"#));
            assert_eq!(LineRecord::read(line.as_bytes()).as_ref(), Ok(&record), "{line}");
            let line = format!("  {line}\r");
            assert_eq!(LineRecord::read(line.as_bytes()).as_ref(), Ok(&record), "{line}");
        }
    }

    #[test]
    fn a_line_has_what_kafka_would_have() {
        let event = record_of(r#"{"campid":7}"#, "2026-01-10T12:00:00.5Z", None);
        let line = LineRecord::of(&event);
        let header = |name| line.headers.get(name).map(Vec::as_slice);
        assert_eq!((&*line.topic, line.key.as_deref()), ("clicks", Some(&b"7"[..])));
        assert_eq!(line.timestamp, "2026-01-10T12:00:00.5Z".parse().ok());
        assert_eq!(header("ce_source"), Some(&b"/click"[..]));
        assert_eq!(header("hookbridge-received-at"), Some(&b"2026-01-10T12:00:00.5Z"[..]));
        assert_eq!((line.headers.len(), &*line.value), (7, &br#"{"campid":7}"#[..]));

        // The sender says what the encoding of its body is called.
        let (webhook, caller) = (click(), Caller::named("opptima"));
        let mut origin = Origin::new(&webhook, &caller, None, event.received());
        origin.is_encoded_as(Bytes::from_static(b"br\xe9"));
        let why = Refusal::UnknownEncoding.plain();
        let letter = origin.dead_letter(&why, &Bytes::from_static(b"\xff"));
        let line = LineRecord::of(&letter);
        assert_eq!((&*line.topic, &line.key), ("clicks.dead-letter", &None));
        assert_eq!(line.headers["content-encoding"], b"br\xe9");
        assert_eq!(line.headers["hookbridge-reason"], b"unknown_encoding");
        assert_eq!(LineRecord::read(line.clone().write().as_bytes()), Ok(line));
    }

    #[test]
    fn what_is_wrong_with_a_line_is_said() {
        for (line, why) in [
            ("", "it is no JSON object"),
            ("click", "it is no JSON object"),
            (r#"["t","k",null,null,{},{},"v",null]"#, "it is no JSON object"),
            (r#"{"topic""#, "EOF while parsing an object (column 8)"),
            ("{}", "missing field `topic` (column 2)"),
            (r#"{"topic":"t"}"#, "it has neither value nor value_base64"),
            (r#"{"topic":"t","value":null}"#, "it has neither value nor value_base64"),
            (r#"{"topic":"t","value":"v","value_base64":"dg=="}"#, "it has value and value_base64"),
            (r#"{"topic":"t","value_base64":"dg"}"#, "value_base64 is no base64: "),
            (
                r#"{"topic":"t","value":"v","key":"k","key_base64":"aw=="}"#,
                "it has key and key_base64",
            ),
            (
                r#"{"topic":"t","value":"v","headers":{"a":"b"},"headers_base64":{"a":"Yg=="}}"#,
                "a header is in headers and in headers_base64",
            ),
            // As `tail --json` prints it, with addresses masked.
            (
                r#"{"topic":"t","partition":1,"value":{"campid":7}}"#,
                "unknown field `partition`, expected one of ",
            ),
            (
                r#"{"topic":"t","value":{"campid":7}}"#,
                "invalid type: map, expected a string (column 21)",
            ),
            (r#"{"topic":"t","timestamp":"now","value":"v"}"#, "expected four digit year "),
            (r#"{"topic":"t","value":"v"} {}"#, "trailing characters (column 27)"),
        ] {
            let found = LineRecord::read(line.as_bytes()).expect_err(line);
            assert!(found.starts_with(why), "{line}: {found}");
        }
    }
}
