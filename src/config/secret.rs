//! Settings that may hold a secret: they never print, and are overwritten when they are no longer needed.

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use zeroize::Zeroizing;

/// What stands where a secret is not printed.
const HIDDEN: &str = "(hidden)";

/// The names of properties of librdkafka that carry a secret have one of these in them.
const SECRET_NAMES: [&str; 5] = ["password", "passphrase", "secret", "pem", "oauthbearer.config"];

/// A secret text.
#[derive(Clone, PartialEq)]
pub struct Secret(Zeroizing<String>);

impl Secret {
    pub fn new(text: impl Into<String>) -> Secret {
        Secret(Zeroizing::new(text.into()))
    }

    pub fn reveal(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, formatter: &mut fmt::Formatter) -> fmt::Result {
        formatter.write_str(HIDDEN)
    }
}

impl<'de> Deserialize<'de> for Secret {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Secret, D::Error> {
        // The library's own message quotes the value.
        let wrong = |_| serde::de::Error::custom("must be a text in quotes");
        String::deserialize(deserializer).map(Secret::new).map_err(wrong)
    }
}

impl Serialize for Secret {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(HIDDEN)
    }
}

/// Properties of librdkafka by name. The value of one that carries a secret never prints.
#[derive(Clone, Default, PartialEq)]
pub struct KafkaOptions(BTreeMap<String, Zeroizing<String>>);

impl KafkaOptions {
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0.iter().map(|(name, value)| (name.as_str(), value.as_str()))
    }

    pub fn get(&self, name: &str) -> Option<&str> {
        self.0.get(name).map(|value| value.as_str())
    }

    pub fn set(&mut self, name: impl Into<String>, value: impl Into<String>) {
        self.0.insert(name.into(), Zeroizing::new(value.into()));
    }

    pub fn remove(&mut self, name: &str) {
        self.0.remove(name);
    }

    fn printable(&self) -> BTreeMap<&str, &str> {
        let is_secret = |name: &str| SECRET_NAMES.iter().any(|part| name.contains(part));
        let printable = |(name, value)| (name, if is_secret(name) { HIDDEN } else { value });
        self.iter().map(printable).collect()
    }
}

impl fmt::Debug for KafkaOptions {
    fn fmt(&self, formatter: &mut fmt::Formatter) -> fmt::Result {
        self.printable().fmt(formatter)
    }
}

impl Serialize for KafkaOptions {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.printable().serialize(serializer)
    }
}

/// One entry under `[kafka.options]`: a value, or the rest of a name whose dots were not quoted.
#[derive(Deserialize)]
#[serde(untagged)]
enum OptionEntry {
    Flag(bool),
    Number(serde_json::Number),
    Text(String),
    Table(BTreeMap<String, OptionEntry>),
}

impl<'de> Deserialize<'de> for KafkaOptions {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<KafkaOptions, D::Error> {
        let mut options = KafkaOptions::default();
        let entries = BTreeMap::<String, OptionEntry>::deserialize(deserializer)?;
        flatten("", entries, &mut options);
        Ok(options)
    }
}

/// `security.protocol` may be written quoted, as a table, or from the environment with underscores
/// (no property of librdkafka that can be set by text has one).
fn flatten(prefix: &str, entries: BTreeMap<String, OptionEntry>, options: &mut KafkaOptions) {
    for (name, entry) in entries {
        let name = format!("{prefix}{}", name.replace('_', "."));
        match entry {
            OptionEntry::Flag(value) => options.set(name, value.to_string()),
            OptionEntry::Number(value) => options.set(name, value.to_string()),
            OptionEntry::Text(value) => options.set(name, value),
            OptionEntry::Table(entries) => flatten(&format!("{name}."), entries, options),
        }
    }
}
