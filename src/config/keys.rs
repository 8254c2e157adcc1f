//! `[[auth.keys]]`: a key that may call, and when and where it may be used.

use ipnet::IpNet;
use jiff::Timestamp;
use serde::{Deserialize, Deserializer, Serialize};

use super::Secret;
use crate::click::auth::{Key, KeyHash, Restrictions, hash_key, parse_hash, parse_public_key};

/// A key that may call: its SHA-256, the key itself, or the public half of a sender's pair.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
// A misspelt restriction must not make a key without one.
#[serde(deny_unknown_fields)]
pub struct NamedKey {
    pub name: String,
    pub sha256: Option<Secret>,
    /// The key itself, without which nothing can be signed.
    pub secret: Option<Secret>,
    /// A public key on the curve P-256, in base64 or PEM.
    pub public_key: Option<String>,
    #[serde(default, deserialize_with = "time")]
    pub not_before: Option<Timestamp>,
    #[serde(default, deserialize_with = "time")]
    pub expires_at: Option<Timestamp>,
    /// The names of the webhooks that it is for; absent: all.
    pub webhooks: Option<Vec<String>>,
    /// The networks that it may be used from; absent: any.
    pub networks: Option<Vec<IpNet>>,
    /// Whether it is from `auth.keys_file`.
    #[serde(skip)]
    pub is_filed: bool,
}

impl NamedKey {
    /// A key that may be used always and everywhere.
    pub fn new(name: impl Into<String>, sha256: impl Into<String>) -> NamedKey {
        let sha256 = Some(Secret::new(sha256));
        NamedKey { name: name.into(), sha256, ..NamedKey::default() }
    }

    /// Its SHA-256; none for a public key, or where it cannot be read.
    pub(super) fn hash(&self) -> Option<KeyHash> {
        match (&self.sha256, &self.secret) {
            (Some(hash), None) => parse_hash(hash.reveal()),
            (None, Some(secret)) => Some(hash_key(secret.reveal().as_bytes())),
            _ => None,
        }
    }

    /// The key as the pipeline uses it, or what it needs.
    pub(super) fn read(&self) -> Result<Key, &'static str> {
        let restrictions = Restrictions {
            not_before: self.not_before,
            expires_at: self.expires_at,
            webhooks: self.webhooks.clone(),
            networks: self.networks.clone(),
        };
        let key = match (&self.sha256, &self.secret, &self.public_key) {
            (Some(hash), None, None) => {
                parse_hash(hash.reveal()).map(|hash| Key::new(&self.name, hash, restrictions))
            }
            (None, Some(secret), None) => {
                Some(Key::of_secret(&self.name, secret.reveal().as_bytes(), restrictions))
            }
            (None, None, Some(key)) => parse_public_key(key)
                .map(|point| Key::of_public_key(&self.name, point, restrictions)),
            _ => None,
        };
        key.ok_or(
            "needs sha256, the 64 hexadecimal digits that `hookbridge key` prints, or else \
             secret, the key itself, or public_key, a P-256 key in base64",
        )
    }
}

/// A time of RFC 3339, in quotes or as TOML's own.
fn time<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Timestamp>, D::Error> {
    let text = match toml::Value::deserialize(deserializer) {
        Ok(toml::Value::String(text)) => text,
        Ok(other) => other.to_string(),
        Err(_) => String::new(),
    };
    let wrong = "must be a time of RFC 3339 with its offset, such as 2027-01-31T00:00:00Z";
    text.parse().map(Some).map_err(|_| serde::de::Error::custom(wrong))
}
