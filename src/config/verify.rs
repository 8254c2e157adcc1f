//! `[[webhook]] verify`: how the questions are answered that some senders ask before they send. A name alone,
//! `verify = "ok"`, or a table, `verify = { echo = "challenge" }`.

use serde::de::Error;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::click::event::Pointer;
use crate::click::verification::Verification;

/// Which questions of a webhook's senders are answered.
#[derive(Debug, Clone, Default, PartialEq)]
pub enum VerifySettings {
    #[default]
    None,
    /// GET, HEAD and OPTIONS without a query.
    Ok,
    /// The handshake of CloudEvents.
    CloudEvents,
    Echo(EchoSettings),
}

/// Where a challenge is that is sent back.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EchoSettings {
    /// A parameter of the query, or a JSON pointer into the body of an authenticated POST.
    pub echo: String,
    /// The parameter of the query that must be a key for this webhook.
    pub key: Option<String>,
}

const NAMES: [(&str, VerifySettings); 3] = [
    ("none", VerifySettings::None),
    ("ok", VerifySettings::Ok),
    ("cloudevents", VerifySettings::CloudEvents),
];

impl<'de> Deserialize<'de> for VerifySettings {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<VerifySettings, D::Error> {
        let message = "must be none, ok, cloudevents, or a table such as { echo = \"challenge\" }";
        match toml::Value::deserialize(from)? {
            toml::Value::String(name) => {
                let known = NAMES.into_iter().find(|(known, _)| *known == name);
                known.map(|(_, settings)| settings).ok_or_else(|| D::Error::custom(message))
            }
            toml::Value::Table(table) => {
                let wrong = |error: toml::de::Error| D::Error::custom(error.message());
                table.try_into().map(VerifySettings::Echo).map_err(wrong)
            }
            _ => Err(D::Error::custom(message)),
        }
    }
}

impl Serialize for VerifySettings {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        match self {
            VerifySettings::Echo(echo) => echo.serialize(to),
            other => {
                let name = NAMES.iter().find(|(_, known)| known == other).map(|(name, _)| *name);
                to.serialize_str(name.unwrap_or("none"))
            }
        }
    }
}

impl VerifySettings {
    /// The questions as the pipeline answers them, or what is wrong.
    pub(super) fn read(&self) -> Result<Verification, &'static str> {
        Ok(match self {
            VerifySettings::None => Verification::None,
            VerifySettings::Ok => Verification::Ok,
            VerifySettings::CloudEvents => Verification::CloudEvents,
            VerifySettings::Echo(EchoSettings { echo, key }) if echo.starts_with('/') => {
                if key.is_some() {
                    return Err(
                        "key is for a challenge in the query: a POST has the webhook's auth",
                    );
                }
                let pointer = Pointer::parse(echo).ok_or("echo must be a JSON pointer")?;
                Verification::Body(pointer)
            }
            VerifySettings::Echo(EchoSettings { echo, .. }) if echo.is_empty() => {
                return Err(
                    "echo must name the parameter of the query that has the challenge, or \
                            be a JSON pointer to it in the body, such as /challenge",
                );
            }
            VerifySettings::Echo(EchoSettings { echo, key }) => {
                Verification::Query { challenge: echo.clone(), key: key.clone() }
            }
        })
    }
}
