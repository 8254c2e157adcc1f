//! Properties of any body, tested with random bodies.

use std::collections::BTreeSet;

use bytes::Bytes;
use hmac::{Hmac, Mac};
use hookbridge::click::auth::Caller;
use hookbridge::click::event::{Envelope, Pointer};
use hookbridge::click::outcome::Refusal;
use hookbridge::click::pseudonym::Pseudonyms;
use hookbridge::click::record::Origin;
use hookbridge::click::webhook::Webhook;
use hookbridge::config::{BodyFormat, Config, InvalidBody};
use jiff::Timestamp;
use proptest::prelude::*;
use serde_json::{Map, Value};
use sha2::Sha256;

/// Few cases, because every change runs them; `.ci/fuzz` runs many.
fn few() -> ProptestConfig {
    ProptestConfig { cases: 100, failure_persistence: None, ..ProptestConfig::default() }
}

/// Names that have a meaning, and others.
fn name() -> impl Strategy<Value = String> {
    const KNOWN: [&str; 7] = ["campid", "type", "event", "timestamp", "email", "data", ""];
    prop_oneof![3 => prop::sample::select(&KNOWN[..]).prop_map(str::to_owned), 1 => any::<String>()]
}

fn value() -> impl Strategy<Value = Value> {
    let text =
        prop_oneof![Just("click".to_owned()), Just("Email Marketing".into()), any::<String>()];
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        text.prop_map(Value::from),
    ];
    leaf.prop_recursive(4, 32, 6, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..6).prop_map(Value::from),
            prop::collection::vec((name(), inner), 0..6)
                .prop_map(|members| Value::Object(Map::from_iter(members))),
        ]
    })
}

/// An object that is an event more often than by chance.
fn event() -> impl Strategy<Value = Value> {
    let members = prop::collection::vec((name(), value()), 0..6);
    let key = prop_oneof![
        any::<i64>().prop_map(Value::from),
        any::<String>().prop_map(Value::from),
        value()
    ];
    (members, prop::option::of(key)).prop_map(|(members, key)| {
        let key = key.map(|key| ("campid".to_owned(), key));
        Value::Object(members.into_iter().chain(key).collect())
    })
}

/// The value as JSON, compact or pretty, sometimes cut off.
fn text(value: impl Strategy<Value = Value>) -> impl Strategy<Value = Vec<u8>> {
    let end = prop_oneof![9 => Just(None), 1 => any::<prop::sample::Index>().prop_map(Some)];
    (value, any::<bool>(), end).prop_map(|(value, is_pretty, end)| {
        let text = if is_pretty { format!("{value:#}") } else { value.to_string() };
        let mut bytes = text.into_bytes();
        let length = bytes.len();
        bytes.truncate(end.map_or(length, |end| end.index(length)));
        bytes
    })
}

fn webhook(change: impl FnOnce(&mut hookbridge::config::WebhookSettings)) -> Webhook {
    let mut config = Config::default();
    change(&mut config.webhook[0]);
    config.webhooks().unwrap().remove(0)
}

/// The key, or the refusal, by a full parse of the text.
fn expected(body: &[u8]) -> Result<String, Refusal> {
    let value: Value = serde_json::from_slice(body).map_err(|_| Refusal::Malformed)?;
    let says = |name: &str, wanted: &str| match value.get(name) {
        None | Some(Value::Null) => true,
        Some(Value::String(text)) => text.to_lowercase() == wanted.to_lowercase(),
        Some(_) => false,
    };
    let is_ours = value.is_object() && says("type", "Email marketing") && says("event", "click");
    let key = value.get("campid").filter(|_| is_ours).and_then(|key| match key {
        Value::String(text) => Some(text.clone()).filter(|text| !text.is_empty()),
        Value::Number(number) if !number.is_f64() => Some(number.to_string()),
        _ => None,
    });
    key.ok_or(Refusal::Invalid)
}

/// The ids of the records of one body.
fn ids(webhook: &Webhook, events: &[Vec<u8>]) -> Vec<Vec<u8>> {
    let caller = Caller::named("opptima");
    let mut origin = Origin::new(webhook, &caller, None, Timestamp::UNIX_EPOCH);
    let id = |event: &Vec<u8>| {
        let body = Bytes::copy_from_slice(event);
        let record = match webhook.shape.decode(&body) {
            Ok(event) => origin.record(event, &body),
            Err(why) => origin.dead_letter(&why, &body),
        };
        let mut id = Vec::new();
        record.each_header(|name, value| {
            if name == "ce_id" {
                id = value.to_vec();
            }
        });
        id
    };
    events.iter().map(id).collect()
}

proptest! {
    #![proptest_config(few())]

    /// Both give the same key or the same refusal.
    #[test]
    fn an_event_is_read_as_by_a_full_parse(body in text(prop_oneof![4 => event(), 1 => value()])) {
        let webhook = webhook(|_| {});
        let found = webhook.shape.decode(&body);
        let found = found.map(|event| event.key.into_owned()).map_err(|why| why.refusal);
        prop_assert_eq!(found, expected(&body));
    }

    #[test]
    fn an_array_is_split_as_by_a_full_parse(
        body in text(prop::collection::vec(value(), 0..8).prop_map(Value::from)),
    ) {
        let found = Envelope::Array(None).split(&Bytes::from(body.clone()), 6);
        match serde_json::from_slice::<Vec<Value>>(&body) {
            Ok(events) if (1..=6).contains(&events.len()) => {
                let found = found.unwrap();
                let found = found.iter().map(|event| serde_json::from_slice(event).unwrap());
                prop_assert_eq!(found.collect::<Vec<Value>>(), events);
            }
            Ok(_) => prop_assert_eq!(found.unwrap_err().refusal, Refusal::Invalid),
            Err(_) => prop_assert_eq!(found.unwrap_err().refusal, Refusal::Malformed),
        }
    }

    /// Another implementation of HMAC checks the replacement; all else stays byte for byte.
    #[test]
    fn pseudonyms_change_only_their_fields(
        members in prop::collection::vec((name(), value(), "[ \t\r\n]{0,3}"), 0..8),
        is_deep in any::<bool>(),
    ) {
        let pseudonym = |value: &Value| {
            let text = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
            let mut hmac = Hmac::<Sha256>::new_from_slice(b"a key of the test").unwrap();
            hmac.update(text.as_bytes());
            format!("\"{}\"", data_encoding::HEXLOWER.encode(&hmac.finalize().into_bytes()))
        };
        let write = |is_replaced: bool| {
            let members = members.iter().map(|(name, value, space)| {
                let is_field = is_replaced && name == "email" && !value.is_null();
                let value = if is_field { pseudonym(value) } else { value.to_string() };
                format!("{space}{}{space}:{space}{value}{space}", Value::from(name.as_str()))
            });
            let object = format!("{{{}}}", members.collect::<Vec<_>>().join(","));
            // Only the field at the pointer counts, not every field of its name.
            if is_deep { format!("\u{feff} {{\"to\":{object}}}\n") } else { object }
        };
        let field = if is_deep { "/to/email" } else { "/email" };
        let fields = vec![Pointer::parse(field).unwrap()];
        let pseudonyms = Pseudonyms::new(fields, b"a key of the test");
        let replaced = pseudonyms.replace(&Bytes::from(write(false))).unwrap();
        let expected = write(true);
        prop_assert_eq!(std::str::from_utf8(&replaced), Ok(expected.as_str()));
    }

    #[test]
    fn an_id_depends_on_body_and_webhook(one in text(event()), other in text(event())) {
        let (here, there) = (webhook(|_| {}), webhook(|webhook| webhook.name = "sent".into()));
        let of = |webhook: &Webhook, body: &Vec<u8>| ids(webhook, std::slice::from_ref(body));
        prop_assert_eq!(of(&here, &one), of(&here, &one));
        prop_assert_eq!(of(&here, &one) == of(&here, &other), one == other);
        prop_assert_ne!(of(&here, &one), of(&there, &one));
    }

    #[test]
    fn ids_within_a_body_are_distinct_and_do_not_depend_on_order(
        events in prop::collection::vec(text(event()), 1..6),
        again in any::<prop::sample::Index>(),
    ) {
        let webhook = webhook(|webhook| {
            webhook.body = BodyFormat::Array;
            webhook.invalid = InvalidBody::DeadLetter;
        });
        let mut events = events;
        events.push(events[again.index(events.len())].clone());
        let found: BTreeSet<_> = ids(&webhook, &events).into_iter().collect();
        prop_assert_eq!(found.len(), events.len());
        events.reverse();
        prop_assert_eq!(ids(&webhook, &events).into_iter().collect::<BTreeSet<_>>(), found);
    }
}
