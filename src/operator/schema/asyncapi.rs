//! AsyncAPI for the topics: their keys, headers and payloads.

use serde_json::{Map, Value, json};

use super::json_schema::of_events;
use crate::config::{Config, WebhookSettings};

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
}
