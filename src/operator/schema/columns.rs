//! A webhook's events as columns, for the formats that have tables or classes.
//!
//! A column's type is one that reads whatever a sender writes there: text where the schema has text or a
//! number, and the JSON of an object. The key is not read from the event but from the record, where it is
//! always there and always text.

use serde_json::Value;

use super::json_schema::of_events;
use crate::click::event::Pointer;
use crate::config::WebhookSettings;

/// The names of columns that are no fields of the event; a field of such a name is left out.
const TAKEN: [&str; 6] = ["body", "ce_id", "event_time", "headers", "read_at", "record_key"];

/// What the formats need to know of a webhook.
pub struct Table<'c> {
    pub webhook: &'c WebhookSettings,
    pub brokers: &'c str,
    /// The webhook's name, as SQL writes names.
    pub name: String,
    /// The webhook's name, as Java writes those of classes.
    pub class: String,
    /// The column of the record's key.
    pub key: String,
    /// The columns of the event's other fields.
    pub columns: Vec<Column>,
    /// The topics of events and of dead letters.
    pub topic: &'c str,
    pub letters: String,
}

pub struct Column {
    pub name: String,
    pub kind: Kind,
    pub description: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Text, or anything else as its JSON.
    Text,
    Number,
    Boolean,
}

impl Table<'_> {
    pub fn of<'c>(webhook: &'c WebhookSettings, brokers: &'c str) -> Table<'c> {
        let schema = of_events(webhook);
        let pointer = Pointer::parse(&webhook.key);
        let key = match pointer.as_ref().map(Pointer::tokens) {
            Some([name]) if !TAKEN.contains(&name.as_str()) => name.clone(),
            _ => "record_key".to_owned(),
        };
        let properties = schema["properties"].as_object().into_iter().flatten();
        let column = |(name, schema): (&String, &Value)| Column {
            name: name.clone(),
            kind: kind(schema),
            description: schema["description"].as_str().unwrap_or_default().to_owned(),
        };
        let is_field =
            |column: &Column| column.name != key && !TAKEN.contains(&column.name.as_str());
        Table {
            webhook,
            brokers,
            name: sql_name(&webhook.name),
            class: class_name(&webhook.name),
            columns: properties.map(column).filter(is_field).collect(),
            key,
            topic: &webhook.topic,
            letters: webhook.dead_letters(),
        }
    }
}

fn kind(schema: &Value) -> Kind {
    match schema["type"].as_str() {
        Some("number" | "integer") => Kind::Number,
        Some("boolean") => Kind::Boolean,
        _ => Kind::Text,
    }
}

/// A name of lower-case letters, digits and underscores.
pub fn sql_name(name: &str) -> String {
    let letter = |c: char| if c.is_ascii_alphanumeric() { c.to_ascii_lowercase() } else { '_' };
    let name: String = name.chars().map(letter).collect();
    if name.starts_with(|c: char| c.is_ascii_digit()) { format!("_{name}") } else { name }
}

fn class_name(name: &str) -> String {
    let words = name.split(|c: char| !c.is_ascii_alphanumeric()).filter(|word| !word.is_empty());
    let capital = |word: &str| word[..1].to_uppercase() + &word[1..];
    let name: String = words.map(capital).collect();
    if name.starts_with(|c: char| c.is_ascii_alphabetic()) { name } else { format!("Of{name}") }
}

/// A name of Java and Avro: other characters become underscores.
pub fn member_name(name: &str) -> String {
    let letter = |c: char| if c.is_ascii_alphanumeric() { c } else { '_' };
    let name: String = name.chars().map(letter).collect();
    let is_name = name.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_');
    if is_name { name } else { format!("_{name}") }
}

/// A text in SQL.
pub fn sql_text(text: &str) -> String {
    format!("'{}'", text.replace('\'', "''"))
}

/// A text in Java, or in JSON.
pub fn java_text(text: &str) -> String {
    Value::from(text).to_string()
}

/// Lines that end in `-- ` and the column's description.
pub fn lines(columns: impl IntoIterator<Item = (String, String)>) -> String {
    let columns: Vec<(String, String)> = columns.into_iter().collect();
    let last = columns.len().saturating_sub(1);
    let line = |(place, (column, description)): (usize, &(String, String))| {
        let column = if place == last { column.clone() } else { format!("{column},") };
        match description.as_str() {
            "" => format!("  {column}\n"),
            description => format!("  {column:<34} -- {description}\n"),
        }
    };
    columns.iter().enumerate().map(line).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;

    #[test]
    fn names_are_those_of_their_language() {
        assert_eq!(sql_name("email-marketing.Click"), "email_marketing_click");
        assert_eq!(sql_name("2go"), "_2go");
        assert_eq!(class_name("email-marketing-click"), "EmailMarketingClick");
        assert_eq!(class_name("2-go"), "Of2Go");
        assert_eq!(member_name("user-agent"), "user_agent");
        assert_eq!(sql_text("it's"), "'it''s'");
        assert_eq!(java_text("a\"b\\"), r#""a\"b\\""#);
    }

    #[test]
    fn the_key_is_a_column_of_its_own() {
        let config = Config::default();
        let mut webhook = config.webhook[0].clone();
        let names =
            |table: &Table| table.columns.iter().map(|c| c.name.clone()).collect::<Vec<_>>();
        let table = Table::of(&webhook, "");
        assert_eq!((table.key.as_str(), names(&table).len()), ("campid", 16));
        assert!(!names(&table).contains(&"campid".to_owned()));
        webhook.key = "/data/id".into();
        let table = Table::of(&webhook, "");
        assert_eq!(table.key, "record_key");
        assert!(names(&table).contains(&"data".to_owned()));
    }

    #[test]
    fn a_field_that_may_be_text_is_text() {
        let column = |schema: &str| kind(&serde_json::from_str(schema).expect("a schema"));
        assert_eq!(column(r#"{"type":"number"}"#), Kind::Number);
        assert_eq!(column(r#"{"type":"boolean"}"#), Kind::Boolean);
        for text in [r#"{"type":["string","integer"]}"#, r#"{"type":"object"}"#, "{}"] {
            assert_eq!(column(text), Kind::Text, "{text}");
        }
    }
}
