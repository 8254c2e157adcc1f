//! The event reader, compared with a full parse by serde_json: both must give the same result, the same
//! key, and the same event with pseudonyms.
#![no_main]

use bytes::Bytes;
use hookbridge_fuzz::click::event::{
    Envelope, Event, Pointer, Shape, TimeFormat, as_text, parse_offset,
};
use hookbridge_fuzz::click::outcome::{Refusal, Rejection};
use hookbridge_fuzz::click::pseudonym::Pseudonyms;
use libfuzzer_sys::fuzz_target;
use serde::Deserialize;
use serde_json::Value;

const FIELDS: [&str; 3] = ["/email", "/user/name", "/to/0/email"];

fn shape(key: &str) -> Shape {
    Shape {
        key: Pointer::parse(key).unwrap(),
        id: Pointer::parse("/id"),
        time: Pointer::parse("/timestamp").unwrap(),
        time_format: TimeFormat::Text,
        r#type: "Email marketing".into(),
        event: "click".into(),
        offset: parse_offset("-05:00").unwrap(),
    }
}

/// The whole text as a tree. `Err(true)`: a string has half of a surrogate pair, which the reference
/// refuses everywhere, and the bridge only in strings that it reads.
fn parse(text: &str) -> Result<Value, bool> {
    let mut json = serde_json::Deserializer::from_str(text);
    json.disable_recursion_limit();
    let value = Value::deserialize(&mut json).and_then(|value| json.end().map(|()| value));
    value.map_err(|error| {
        let error = error.to_string();
        error.starts_with("lone leading surrogate") || error.starts_with("unexpected end of hex")
    })
}

/// The field by which serde_json marks a number that it keeps as text.
const NUMBER: &str = "$serde_json::private";

/// The expected key or refusal. None: the reference cannot tell.
fn expected(body: &[u8], key: &str) -> Option<Result<String, Refusal>> {
    let Ok(text) = std::str::from_utf8(body) else { return Some(Err(Refusal::Malformed)) };
    if text.contains(NUMBER) {
        return None;
    }
    let value = match parse(text.strip_prefix('\u{feff}').unwrap_or(text)) {
        Ok(value) => value,
        Err(true) => return None,
        Err(false) => return Some(Err(Refusal::Malformed)),
    };
    let is = |name: &str, wanted: &str| match value.get(name) {
        None | Some(Value::Null) => true,
        Some(Value::String(text)) => text.to_lowercase() == wanted.to_lowercase(),
        Some(_) => false,
    };
    if !value.is_object() || !is("type", "Email marketing") || !is("event", "click") {
        return Some(Err(Refusal::Invalid));
    }
    let key = match value.pointer(key) {
        Some(Value::String(text)) if !text.is_empty() => Some(text.clone()),
        Some(Value::Number(number)) => Some(number.to_string())
            .filter(|text| text.bytes().all(|byte| byte == b'-' || byte.is_ascii_digit())),
        _ => None,
    };
    Some(key.ok_or(Refusal::Invalid))
}

fn verdict(decoded: Result<Event<'_>, Rejection>) -> Result<String, Refusal> {
    decoded.map(|event| event.key.into_owned()).map_err(|why| why.refusal)
}

/// Removes the fields that pseudonyms may change; returns the rest and the number of fields.
fn without_fields(mut value: Value) -> (Value, usize) {
    let mut count = 0;
    for field in FIELDS {
        if let Some(value) = value.pointer_mut(field).filter(|value| !value.is_null()) {
            *value = Value::Null;
            count += 1;
        }
    }
    (value, count)
}

/// Splitting an array gives the same elements as the full parse.
fn split(body: &[u8]) {
    let Ok(text) = std::str::from_utf8(body) else { return };
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let found = Envelope::Array(None).split(&Bytes::copy_from_slice(body), 100);
    if text.contains(NUMBER) || text.trim_ascii_start().starts_with('{') {
        return;
    }
    match (parse(text), found) {
        (Err(true), _) => {}
        (Err(false), found) => assert_eq!(found.unwrap_err().refusal, Refusal::Malformed),
        (Ok(Value::Array(expected)), Ok(found)) => {
            let found = found.iter().map(|event| parse(std::str::from_utf8(event).unwrap()));
            assert_eq!(found.collect::<Result<Vec<_>, _>>(), Ok(expected));
        }
        (Ok(value), Err(why)) => {
            let may_be_split =
                value.as_array().is_some_and(|events| (1..=100).contains(&events.len()));
            assert!(!may_be_split && why.refusal == Refusal::Invalid);
        }
        (Ok(value), Ok(_)) => panic!("taken apart: {value}"),
    }
}

/// The text in a message of Amazon SNS is the same as by the full parse.
fn take_out(body: &[u8]) {
    let Ok(text) = std::str::from_utf8(body) else { return };
    let found = Envelope::Sns.split(&Bytes::copy_from_slice(body), 100);
    if text.contains(NUMBER) {
        return;
    }
    let Ok(value) = parse(text.strip_prefix('\u{feff}').unwrap_or(text)) else { return };
    match value["Message"].as_str().filter(|_| value["Type"] == "Notification") {
        Some(text) => assert_eq!(found.unwrap(), [text.as_bytes()]),
        None => assert_eq!(found.unwrap_err().refusal, Refusal::Invalid),
    }
}

fuzz_target!(|body: &[u8]| {
    split(body);
    take_out(body);
    for key in ["/campid", "/data/0/id"] {
        let found = verdict(shape(key).decode(body));
        if let Some(expected) = expected(body, key) {
            assert_eq!(found, expected, "{key}");
        }
    }
    let shape = shape("/campid");
    let Ok(event) = shape.decode(body) else { return };
    let fields = FIELDS.iter().map(|field| Pointer::parse(field).unwrap()).collect();
    let pseudonyms = Pseudonyms::new(fields, b"a key");
    let replaced = pseudonyms.replace(&Bytes::copy_from_slice(body)).unwrap();
    let again = shape.decode(&replaced).unwrap();
    assert_eq!((again.key, again.time), (event.key, event.time));
    if let (Ok(old), Ok(new)) = (parse(as_text(body).unwrap()), parse(as_text(&replaced).unwrap()))
    {
        for field in FIELDS {
            let (old, new) = (old.pointer(field), new.pointer(field));
            let is_pseudonym = |value: &Value| value.as_str().is_some_and(|text| text.len() == 64);
            match old {
                None | Some(Value::Null) => assert_eq!(old, new),
                Some(_) => assert!(new.is_some_and(is_pseudonym), "{field}"),
            }
        }
        assert_eq!(without_fields(old), without_fields(new));
    }
});
