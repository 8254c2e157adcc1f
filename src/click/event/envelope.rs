//! Takes apart a body that carries several events, or one event inside a message. Each event keeps its
//! bytes and its place.

use std::fmt;

use bytes::Bytes;
use serde::de::{SeqAccess, Visitor};
use serde::{Deserialize, Deserializer as _};
use serde_json::value::RawValue;

use super::form::Form;
use super::json::{Pointer, as_text, descend, into_bytes, member, other_than, parse, pick, string};
use crate::click::outcome::{Refusal, Rejection};

/// How a body carries its events.
#[derive(Debug, Clone, PartialEq)]
pub enum Envelope {
    /// The body is one event.
    One,
    /// Events in a JSON array: the body, or the member at this pointer. Without a pointer, a body that is
    /// an object is one event.
    Array(Option<Pointer>),
    /// A form (`application/x-www-form-urlencoded`): an object of its fields, or what is at this pointer,
    /// whose first token names the field that holds JSON: an event or an array of events.
    Form(Option<Pointer>),
    /// An event on each line that is not blank.
    Lines,
    /// One event, as text in a message of Amazon SNS.
    Sns,
}

impl Envelope {
    /// The events of a body, not yet decoded; at least one.
    ///
    /// # Errors
    ///
    /// [`Refusal::Malformed`] where it is not JSON, [`Refusal::Invalid`] where it has no event, or more
    /// than `max`.
    pub fn split(&self, body: &Bytes, max: usize) -> Result<Vec<Bytes>, Rejection> {
        let events = match self {
            Envelope::One => vec![body.clone()],
            Envelope::Array(pointer) => array(pointer.as_ref(), body, max)?,
            Envelope::Form(pointer) => form(pointer.as_ref(), body, max)?,
            Envelope::Lines => lines(body, max),
            Envelope::Sns => vec![message(body)?],
        };
        match events.len() {
            0 => Err(Refusal::Invalid.detailed("The body has no event")),
            count if count > max => {
                let detail = format!("The body has more than {max} events (http.max_events)");
                Err(Refusal::Invalid.detailed(detail))
            }
            _ => Ok(events),
        }
    }

    /// The events of a body as far as it can be read: of an array, those before what is wrong in it. None
    /// where there is no event to be seen.
    pub fn salvage(&self, body: &Bytes) -> Vec<Bytes> {
        if let Ok(events) = self.split(body, usize::MAX) {
            return events;
        }
        let valid = body.utf8_chunks().next().map_or("", |chunk| chunk.valid());
        let text = valid.trim_start_matches('\u{feff}').trim_ascii_start();
        if !matches!(self, Envelope::Array(None)) || !text.starts_with('[') {
            return Vec::new();
        }
        let mut elements = Vec::new();
        // What is wrong is in the dead letter; here only what comes before it matters.
        let mut json = serde_json::Deserializer::from_str(text);
        let _ = json.deserialize_seq(Salvaged(&mut elements));
        elements.into_iter().map(|element| body.slice_ref(element.get().as_bytes())).collect()
    }
}

/// The elements of an array, at most one more than `max`.
fn array(pointer: Option<&Pointer>, body: &Bytes, max: usize) -> Result<Vec<Bytes>, Rejection> {
    let text = as_text(body)?;
    let wrong = |detail| other_than(text, detail);
    let array = match (text.trim_ascii_start().as_bytes().first(), pointer) {
        (Some(b'{'), None) => return Ok(vec![body.clone()]),
        (Some(b'['), None) => text,
        (_, None) => return Err(wrong("The body is not a JSON array")),
        (Some(b'{'), Some(pointer)) => {
            let found = member(text, pointer).map(RawValue::get);
            let found = found.filter(|found| found.starts_with('['));
            found.ok_or_else(|| wrong("The body has no array where its events should be"))?
        }
        (_, Some(_)) => return Err(wrong("The body is not a JSON object")),
    };
    let elements = parse(array, |json| json.deserialize_seq(Elements(max)))?;
    Ok(elements.into_iter().map(|element| body.slice_ref(element.get().as_bytes())).collect())
}

/// The events of a form.
fn form(pointer: Option<&Pointer>, body: &Bytes, max: usize) -> Result<Vec<Bytes>, Rejection> {
    let form = Form::read(body)?;
    let none = || Refusal::Invalid.detailed("The form has no field with events");
    let Some(pointer) = pointer else {
        if form.is_empty() {
            return Err(none());
        }
        let object = serde_json::to_vec(&form).map_err(|_| Refusal::Malformed.plain())?;
        return Ok(vec![object.into()]);
    };
    let (name, rest) = pointer.split();
    let text = Bytes::from(form.take(name).ok_or_else(none)?);
    let value: &RawValue = parse(as_text(&text)?, |json| Deserialize::deserialize(json))?;
    let value = descend(value, rest).ok_or_else(none)?;
    array(None, &text.slice_ref(value.get().as_bytes()), max)
}

/// The lines that are not blank, at most one more than `max`.
fn lines(body: &Bytes, max: usize) -> Vec<Bytes> {
    let lines = body.split(|byte| *byte == b'\n').map(<[u8]>::trim_ascii);
    let events = lines.filter(|line| !line.is_empty()).take(max.saturating_add(1));
    events.map(|line| body.slice_ref(line)).collect()
}

/// The text in a notification of Amazon SNS.
fn message(body: &Bytes) -> Result<Bytes, Rejection> {
    let none = "The body is no message of Amazon SNS";
    let text = as_text(body)?;
    if !text.trim_ascii_start().starts_with('{') {
        return Err(other_than(text, none));
    }
    let [kind, message] = pick(text, ["Type", "Message"])?;
    let detail = match (kind.and_then(string).as_deref(), message.and_then(string)) {
        (Some("Notification"), Some(event)) => return Ok(into_bytes(event, body)),
        (Some("SubscriptionConfirmation"), _) => {
            "Amazon SNS asks whether it shall send here: to say yes, visit SubscribeURL"
        }
        (Some("UnsubscribeConfirmation"), _) => {
            "Amazon SNS no longer sends here: to be sent to again, visit SubscribeURL"
        }
        _ => none,
    };
    Err(Refusal::Invalid.detailed(detail))
}

/// Reads an array to its end, and keeps at most one element more than this.
struct Elements(usize);

impl<'t> Visitor<'t> for Elements {
    type Value = Vec<&'t RawValue>;

    fn expecting(&self, formatter: &mut fmt::Formatter) -> fmt::Result {
        formatter.write_str("an array")
    }

    fn visit_seq<A: SeqAccess<'t>>(self, mut array: A) -> Result<Self::Value, A::Error> {
        let mut elements = Vec::new();
        while let Some(element) = array.next_element()? {
            if elements.len() <= self.0 {
                elements.push(element);
            }
        }
        Ok(elements)
    }
}

/// Keeps the elements of an array up to the first that cannot be read.
struct Salvaged<'s, 't>(&'s mut Vec<&'t RawValue>);

impl<'t> Visitor<'t> for Salvaged<'_, 't> {
    type Value = ();

    fn expecting(&self, formatter: &mut fmt::Formatter) -> fmt::Result {
        formatter.write_str("an array")
    }

    fn visit_seq<A: SeqAccess<'t>>(self, mut array: A) -> Result<(), A::Error> {
        while let Some(element) = array.next_element()? {
            self.0.push(element);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(envelope: &Envelope, body: &'static str, expected: Result<&[&str], Refusal>) {
        let events = envelope.split(&Bytes::from_static(body.as_bytes()), 3);
        let events = events.as_ref().map_err(|why| why.refusal).map(|events| {
            let text = |event| std::str::from_utf8(event).expect("text");
            events.iter().map(|event| text(event)).collect::<Vec<_>>()
        });
        assert_eq!(events, expected.map(<[&str]>::to_vec), "{envelope:?} {body}");
    }

    #[test]
    fn one_is_the_body() {
        check(&Envelope::One, "", Ok(&[""]));
        check(&Envelope::One, "[1,2]", Ok(&["[1,2]"]));
    }

    #[test]
    fn an_array_is_its_elements() {
        let array = Envelope::Array(None);
        check(&array, r#" [ {"a":[1, 2]} ,7,"x" ] "#, Ok(&[r#"{"a":[1, 2]}"#, "7", r#""x""#]));
        check(&array, "\u{feff}[1]", Ok(&["1"]));
        check(&array, r#" {"a":1} "#, Ok(&[r#" {"a":1} "#]));
        check(&array, "[]", Err(Refusal::Invalid));
        check(&array, "7", Err(Refusal::Invalid));
        check(&array, "[1,2,3,4]", Err(Refusal::Invalid));
        check(&array, "", Err(Refusal::Malformed));
        check(&array, "[1,2", Err(Refusal::Malformed));
        check(&array, "[1,2]]", Err(Refusal::Malformed));
        check(&array, "[1,{2}]", Err(Refusal::Malformed));
        check(&array, "[1,2,3,4,]", Err(Refusal::Malformed));
    }

    #[test]
    fn an_array_may_be_a_member() {
        let data = Envelope::Array(Pointer::parse("/meta/data"));
        check(&data, r#"{"meta":{"data":[{"a":1},2]}}"#, Ok(&[r#"{"a":1}"#, "2"]));
        check(&data, r#"{"meta":{"data":[]}}"#, Err(Refusal::Invalid));
        check(&data, r#"{"meta":{"data":{}}}"#, Err(Refusal::Invalid));
        check(&data, r#"{"meta":{}}"#, Err(Refusal::Invalid));
        check(&data, "[1]", Err(Refusal::Invalid));
        check(&data, r#"{"meta":{"data":[1]}"#, Err(Refusal::Malformed));
    }

    #[test]
    fn a_form_is_an_object_or_has_json_in_a_field() {
        let form = Envelope::Form(None);
        check(&form, "event=click&id=7", Ok(&[r#"{"event":"click","id":"7"}"#]));
        check(&form, "", Err(Refusal::Invalid));
        check(&form, "a=%ff", Err(Refusal::Malformed));
        let form = Envelope::Form(Pointer::parse("/events"));
        check(&form, "events=%5B%7B%22a%22%3A+1%7D%2C2%5D&x=y", Ok(&[r#"{"a": 1}"#, "2"]));
        check(&form, "events={\"a\":1}", Ok(&[r#"{"a":1}"#]));
        check(&form, "events=[]", Err(Refusal::Invalid));
        check(&form, "events=[1,2,3,4]", Err(Refusal::Invalid));
        check(&form, "events=[1", Err(Refusal::Malformed));
        check(&form, "events=", Err(Refusal::Malformed));
        check(&form, "event=[1]", Err(Refusal::Invalid));
        let form = Envelope::Form(Pointer::parse("/payload/data"));
        check(&form, "payload={\"data\":[1]}", Ok(&["1"]));
        check(&form, "payload={\"dat\":[1]}", Err(Refusal::Invalid));
    }

    #[test]
    fn lines_stand_by_themselves() {
        let lines = Envelope::Lines;
        check(&lines, "{\"a\":1}\r\n\n \t\n 2\nnot JSON", Ok(&["{\"a\":1}", "2", "not JSON"]));
        check(&lines, " \r\n", Err(Refusal::Invalid));
        check(&lines, "1\n2\n3\n4", Err(Refusal::Invalid));
    }

    #[test]
    fn a_message_is_its_text() {
        let sns = Envelope::Sns;
        check(&sns, r#"{"Type":"Notification","Message":"plain"}"#, Ok(&["plain"]));
        let escaped = r#" {"Message" : "{\"a\":\"\u00e9\/\n\"}", "Type" : "Notification"} "#;
        check(&sns, escaped, Ok(&["{\"a\":\"\u{e9}/\n\"}"]));
        check(&sns, r#"{"Type":"Notification","Message":{"a":1}}"#, Err(Refusal::Invalid));
        check(&sns, r#"{"Type":"Notification","Message":"\ud800"}"#, Err(Refusal::Invalid));
        check(&sns, r#"{"Type":"Notification"}"#, Err(Refusal::Invalid));
        check(&sns, r#"{"Type":"SubscriptionConfirmation","Message":"x"}"#, Err(Refusal::Invalid));
        check(&sns, r#"{"Type":"UnsubscribeConfirmation","Message":"x"}"#, Err(Refusal::Invalid));
        check(&sns, r#"{"Message":"{}"}"#, Err(Refusal::Invalid));
        check(&sns, "[]", Err(Refusal::Invalid));
        check(&sns, "{", Err(Refusal::Malformed));
    }

    #[test]
    fn what_comes_before_a_fault_is_salvaged() {
        let check = |envelope: &Envelope, body: &'static [u8], expected: &[&str]| {
            let events = envelope.salvage(&Bytes::from_static(body));
            let texts: Vec<_> = events.iter().map(|event| String::from_utf8_lossy(event)).collect();
            assert_eq!(texts, expected, "{}", String::from_utf8_lossy(body));
        };
        let array = Envelope::Array(None);
        check(&array, br#"[{"a":1},{"b":[2]}]"#, &[r#"{"a":1}"#, r#"{"b":[2]}"#]);
        check(&array, br#" [{"a":1}, 2 ,{"b":"#, &[r#"{"a":1}"#, "2"]);
        check(&array, b"[{\"a\":1},{\"b\":\"\xff\"}]", &[r#"{"a":1}"#]);
        check(&array, br#"[{"a":1},{b}]"#, &[r#"{"a":1}"#]);
        check(&array, b"[", &[]);
        check(&array, b"7", &[]);
        check(&Envelope::Lines, b"1\n{\n2", &["1", "{", "2"]);
        check(&Envelope::Sns, b"{", &[]);
        let data = Envelope::Array(Pointer::parse("/data"));
        check(&data, br#"{"data":[1,2]}"#, &["1", "2"]);
        check(&data, br#"{"data":[1,2"#, &[]);
    }

    #[test]
    fn depth_does_not_matter() {
        let deep = format!("[{}{},1]", "[".repeat(200_000), "]".repeat(200_000));
        let events = Envelope::Array(None).split(&Bytes::from(deep), 3).expect("events");
        assert_eq!((events.len(), &*events[1]), (2, &b"1"[..]));
    }
}
