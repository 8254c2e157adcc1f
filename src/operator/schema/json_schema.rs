//! The JSON Schema of a webhook's events. The fields that a sender documents are in `config/fields.toml`.

use std::collections::BTreeSet;
use std::sync::LazyLock;

use serde::Deserialize;
use serde_json::{Value, json};

use crate::click::event::{Pointer, TimeFormat, WILDCARD};
use crate::config::WebhookSettings;

/// The contents of `config/fields.toml`.
static DOCUMENTED: LazyLock<Vec<Documented>> = LazyLock::new(|| {
    #[derive(Deserialize)]
    struct File {
        event: Vec<Documented>,
    }
    let file = toml::from_str::<File>(include_str!("../../../config/fields.toml"));
    file.map(|file| file.event).unwrap_or_default()
});

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
pub(in crate::operator) fn put_fields(
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
pub(in crate::operator) fn put(
    schema: &mut Value,
    names: &[String],
    member: Value,
    is_required: bool,
) {
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

#[cfg(test)]
mod tests {
    use serde_json::Map;

    use super::*;
    use crate::config::Config;

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
