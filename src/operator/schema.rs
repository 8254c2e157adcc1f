//! Pure: what is in the topics, for machines. A JSON Schema for the events of each webhook, and AsyncAPI
//! for the topics, both made from the settings. The fields that a sender documents are in
//! `config/fields.toml`.

use std::collections::BTreeSet;
use std::sync::LazyLock;

use serde::Deserialize;
use serde_json::{Map, Value, json};

use crate::click::event::{Pointer, TimeFormat, WILDCARD};
use crate::config::{Config, WebhookSettings};

/// The contents of `config/fields.toml`.
static DOCUMENTED: LazyLock<Vec<Documented>> = LazyLock::new(|| {
    #[derive(Deserialize)]
    struct File {
        event: Vec<Documented>,
    }
    let file = toml::from_str::<File>(include_str!("../../config/fields.toml"));
    file.map(|file| file.event).unwrap_or_default()
});

/// Every header of a record, whether all records have it, and its meaning, in the order of
/// [`Record::each_header`](crate::click::record::Record::each_header).
const HEADERS: [(&str, bool, &str); 8] = [
    ("ce_specversion", true, "CloudEvents, in binary mode: its version, 1.0"),
    ("ce_id", true, "a UUID, the same for every record of the same event: deduplicate by it"),
    ("ce_source", true, "the webhook's path, or its setting ce_source"),
    ("ce_type", true, "the topic, or the webhook's setting ce_type"),
    ("ce_time", true, "the event's time; where it has none that is plausible, that of receipt"),
    ("content-type", true, "application/json for an event, else application/octet-stream"),
    ("hookbridge-received-at", true, "when the bridge received it"),
    ("traceparent", false, "the W3C trace context, where the request had one or is traced"),
];

/// The additional headers of a dead letter.
const LETTER_HEADERS: [(&str, bool, &str); 6] = [
    ("content-encoding", false, "how the value is compressed, where it could not be unpacked"),
    ("hookbridge-reason", true, "malformed, invalid, unknown_encoding, too_large or corrupt"),
    ("hookbridge-detail", true, "what is wrong with it"),
    ("hookbridge-webhook", true, "its webhook"),
    ("hookbridge-caller", true, "the name of the key that brought it"),
    ("hookbridge-topic", true, "where it would have gone"),
];

/// The documented fields of one event.
#[derive(Deserialize)]
struct Documented {
    r#type: String,
    event: String,
    /// The schema of each.
    fields: Value,
}

/// The schema of a webhook's events, as they are in its topic.
pub fn of_events(webhook: &WebhookSettings) -> Value {
    let mut schema = json!({
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "$id": format!("/schemas/{}.json", webhook.name),
        "title": webhook.name,
        "description": "Bytes as the sender wrote them. Fields other than the key may be missing, \
                        new ones may come, and where a name occurs twice the last one counts.",
        "type": "object",
        "properties": documented(webhook),
    });
    let time = match webhook.timestamp_format {
        TimeFormat::Text => "the event's time, as the sender writes it",
        TimeFormat::Unix => "the event's time in seconds since 1970",
        TimeFormat::UnixMs => "the event's time in milliseconds since 1970",
    };
    let text = "where it is there, always this, in any case";
    let constant = |value: &str| json!({ "description": text, "pattern": in_any_case(value) });
    let texts = [time, "what the sender calls the event", "the record's key, there as text"];
    put_fields(&mut schema, webhook, constant, texts);
    for pointer in &webhook.pseudonymise {
        let pseudonym = json!({
            "description": "a pseudonym, the same for the same text",
            "anyOf": [{ "type": "null" }, { "type": "string", "pattern": "^[0-9a-f]{64}$" }],
        });
        put_at(&mut schema, pointer, pseudonym, false);
    }
    schema
}

/// Sets the schemas of the fields that the bridge reads: those that are constant, and, described in these
/// words, the time, the id and the key. Only the key is required.
pub(super) fn put_fields(
    schema: &mut Value,
    webhook: &WebhookSettings,
    constant: impl Fn(&str) -> Value,
    [time, id, key]: [&str; 3],
) {
    for (name, value) in [("type", &webhook.r#type), ("event", &webhook.event)] {
        if !value.is_empty() {
            put(schema, &[name.to_owned()], constant(value), false);
        }
    }
    put_at(schema, &webhook.timestamp, json!({ "description": time }), false);
    put_at(schema, &webhook.id, json!({ "description": id }), false);
    let key = json!({
        "description": key,
        "anyOf": [{ "type": "string", "minLength": 1 }, { "type": "integer" }],
    });
    put_at(schema, &webhook.key, key, true);
}

/// The fields that the sender documents for the webhook's event.
fn documented(webhook: &WebhookSettings) -> Value {
    let is_it = |event: &&Documented| {
        event.r#type.eq_ignore_ascii_case(&webhook.r#type)
            && event.event.eq_ignore_ascii_case(&webhook.event)
    };
    DOCUMENTED.iter().find(is_it).map_or_else(|| json!({}), |event| event.fields.clone())
}

/// [`put`] for a pointer of the settings, which may be empty.
fn put_at(schema: &mut Value, pointer: &str, member: Value, is_required: bool) {
    if let Some(pointer) = Pointer::parse(pointer) {
        put(schema, pointer.tokens(), member, is_required);
    }
}

/// Sets the schema of the member at this path of names. A number in the path may be a name or an index, and a
/// wildcard any name, so nothing is said from there on.
pub(super) fn put(schema: &mut Value, names: &[String], member: Value, is_required: bool) {
    let Some((name, rest)) = names.split_first() else {
        *schema = member;
        return;
    };
    if name.parse::<usize>().is_ok() || name == WILDCARD {
        return;
    }
    if is_required {
        schema["type"] = "object".into();
        schema["required"] = json!([name]);
    }
    if !schema["properties"][name].is_object() {
        schema["properties"][name] = json!({});
    }
    put(&mut schema["properties"][name], rest, member, is_required);
}

/// A pattern for a text in any case.
fn in_any_case(text: &str) -> String {
    let mut pattern = String::from("^");
    for char in text.chars() {
        let cases: BTreeSet<char> = char.to_lowercase().chain(char.to_uppercase()).collect();
        match cases.len() {
            1 if char.is_alphanumeric() || char == ' ' => pattern.push(char),
            1 => pattern.extend(['\\', char]),
            _ => pattern.push_str(&format!("[{}]", cases.into_iter().collect::<String>())),
        }
    }
    pattern.push('$');
    pattern
}

/// The topics: their keys, headers and payloads, and those of the dead letters.
pub fn of_topics(config: &Config) -> Value {
    let (mut channels, mut operations, mut messages) = (Map::new(), Map::new(), Map::new());
    for webhook in &config.webhook {
        let letters = format!("{}-dead-letter", webhook.name);
        messages.insert(webhook.name.clone(), event_message(webhook));
        messages.insert(letters.clone(), letter_message(webhook));
        for (topic, message) in
            [(&webhook.topic, &webhook.name), (&webhook.dead_letters(), &letters)]
        {
            let channel = channels.entry(topic.as_str()).or_insert(Value::Null);
            channel["address"] = json!(topic);
            channel["bindings"]["kafka"] = json!({ "topic": topic, "bindingVersion": "0.5.0" });
            let place = format!("#/components/messages/{message}");
            channel["messages"][message] = json!({ "$ref": place });
            let channel = format!("#/channels/{}", topic.replace('~', "~0").replace('/', "~1"));
            let place = format!("{channel}/messages/{message}");
            let operation = json!({
                "action": "send",
                "channel": { "$ref": channel },
                "messages": [{ "$ref": place }],
            });
            operations.insert(message.clone(), operation);
        }
    }
    let brokers = config.kafka.brokers.split(',').map(str::trim).enumerate();
    let server = |(index, host): (usize, &str)| {
        (format!("broker-{index}"), json!({ "host": host, "protocol": "kafka" }))
    };
    json!({
        "asyncapi": "3.0.0",
        "info": {
            "title": "hookbridge",
            "version": env!("CARGO_PKG_VERSION"),
            "description": "Clicks as records in Kafka, at least once, each campaign's in one partition.",
        },
        "defaultContentType": "application/json",
        "servers": brokers.map(server).collect::<Map<_, _>>(),
        "channels": channels,
        "operations": operations,
        "components": { "messages": messages },
    })
}

fn event_message(webhook: &WebhookSettings) -> Value {
    json!({
        "name": webhook.name,
        "title": format!("An event of {}", webhook.name),
        "contentType": "application/json",
        "headers": headers(&[]),
        "payload": {
            "schemaFormat": "application/schema+json;version=draft-2020-12",
            "schema": of_events(webhook),
        },
        "bindings": { "kafka": {
            "key": { "type": "string", "description": format!("the event's {}, as text", webhook.key) },
            "bindingVersion": "0.5.0",
        } },
    })
}

fn letter_message(webhook: &WebhookSettings) -> Value {
    json!({
        "name": format!("{}-dead-letter", webhook.name),
        "title": format!("What came for {}, or became of it, and its topic cannot have", webhook.name),
        "contentType": "application/octet-stream",
        "headers": headers(&LETTER_HEADERS),
        "payload": { "description": "The bytes as they came. It has no key." },
    })
}

/// The schema of a record's headers; their values are UTF-8.
fn headers(more: &[(&str, bool, &str)]) -> Value {
    let all = || HEADERS.iter().chain(more);
    let property = |(name, _, text): &(&str, bool, &str)| {
        ((*name).to_owned(), json!({ "type": "string", "description": text }))
    };
    let required = all().filter(|(_, is_always, _)| *is_always).map(|(name, ..)| *name);
    json!({
        "type": "object",
        "properties": all().map(property).collect::<Map<_, _>>(),
        "required": required.collect::<Vec<_>>(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::click::record::tests::{headers as headers_of, record_of};

    #[test]
    fn the_headers_are_those_of_records() {
        let trace = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
        let record = record_of(r#"{"campid":7}"#, "2026-01-10T12:00:00.5Z", Some(trace));
        let letter = record.into_dead_letter("too_large", "at most 1000 bytes".into());
        let names: Vec<String> = headers_of(&letter).into_iter().map(|(name, _)| name).collect();
        // One that is complete has no encoding.
        let letter = LETTER_HEADERS.iter().filter(|(_, is_always, _)| *is_always);
        let described = HEADERS.iter().chain(letter).map(|(name, ..)| *name);
        assert_eq!(names, described.collect::<Vec<_>>());
    }

    #[test]
    fn the_schema_says_what_the_settings_say() {
        let mut webhook = Config::default().webhook.remove(0);
        webhook.key = "/data/campaign".into();
        webhook.pseudonymise = vec!["/email".into()];
        let schema = of_events(&webhook);
        assert_eq!(schema["required"], json!(["data"]));
        assert_eq!(schema["properties"]["data"]["required"], json!(["campaign"]));
        assert_eq!(schema["properties"]["event"]["pattern"], "^[Cc][Ll][Ii][Cc][Kk]$");
        assert!(schema["properties"]["email"]["anyOf"][1]["pattern"].is_string());
        assert_eq!(schema["properties"]["latitude"]["type"], "number");
        // Names of fields: the 17 that are documented, and the key's.
        assert_eq!(schema["properties"].as_object().map(Map::len), Some(18));
    }

    #[test]
    fn a_constant_is_matched_letter_by_letter() {
        assert_eq!(in_any_case("Ab 1-é"), "^[Aa][Bb] 1\\-[Éé]$");
    }
}
