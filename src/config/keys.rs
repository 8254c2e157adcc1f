//! `[[auth.keys]]`: a key that may call, and when and where it may be used; and which keys are too weak.

use std::collections::HashMap;

use ipnet::IpNet;
use jiff::Timestamp;
use serde::{Deserialize, Deserializer, Serialize};

use super::problem::Problems;
use super::{API_KEY, AuthSchemeSettings, Config, Secret, WebhookSettings};
use crate::click::auth::{Key, KeyHash, Restrictions, hash_key, parse_hash, parse_public_key};

/// A key has at least this many bytes. Anybody may try keys, and who sees one signed request can try
/// secrets without being noticed.
///
/// This holds where the text is known: for `auth.api_key`, for `secret`, and for what `hookbridge key`
/// makes an entry of. A sender that dictates a shorter one can still be let in, by saying so.
const KEY_BYTES_MIN: usize = 16;

/// Keys of examples in this project's pages, now or once.
const EXAMPLES: [&str; 2] = ["demo-key", "user:password"];

/// A key that may call: its SHA-256, the key itself, or the public half of a sender's pair.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
// A misspelt restriction must not make a key without one.
#[serde(deny_unknown_fields)]
pub struct NamedKey {
    pub name: String,
    pub sha256: Option<Secret>,
    /// The key itself, without which nothing can be signed.
    pub secret: Option<Secret>,
    /// Whether the secret may be short, because its sender dictates it.
    #[serde(default)]
    pub allow_short: bool,
    /// A public key on the curve P-256, in base64 or PEM, or of Ed25519.
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

    /// What tells it from other keys; none where it cannot be read.
    fn identity(&self) -> Option<Vec<u8>> {
        match &self.public_key {
            Some(key) => parse_public_key(key).map(|key| key.bytes().to_vec()),
            None => self.hash().map(Vec::from),
        }
    }

    /// Its SHA-256; none for a public key, or where it cannot be read.
    fn hash(&self) -> Option<KeyHash> {
        match (&self.sha256, &self.secret) {
            (Some(hash), None) => parse_hash(hash.reveal()),
            (None, Some(secret)) => Some(hash_key(secret.reveal().as_bytes())),
            _ => None,
        }
    }

    /// Whether it may be used for this webhook.
    pub(super) fn is_for(&self, webhook: &WebhookSettings) -> bool {
        self.webhooks.as_ref().is_none_or(|names| names.contains(&webhook.name))
    }

    /// The key as the pipeline uses it, or what it needs.
    pub(super) fn read(&self) -> Result<Key, &'static str> {
        let restrictions = Restrictions {
            not_before: self.not_before,
            expires_at: self.expires_at,
            webhooks: self.webhooks.clone(),
            networks: self.networks.clone(),
        };
        match (&self.sha256, &self.secret, &self.public_key) {
            (Some(hash), None, None) => parse_hash(hash.reveal())
                .map(|hash| Key::new(&self.name, hash, restrictions))
                .ok_or("sha256 must be the 64 hexadecimal digits that `hookbridge key` prints"),
            (None, Some(secret), None) => {
                Ok(Key::of_secret(&self.name, secret.reveal().as_bytes(), restrictions))
            }
            (None, None, Some(key)) => parse_public_key(key)
                .map(|key| Key::of_public_key(&self.name, key, restrictions))
                .ok_or(
                    "public_key must be a P-256 or Ed25519 key in base64, as the sender shows it",
                ),
            (None, None, None) => Err(
                "needs sha256, the 64 hexadecimal digits that `hookbridge key` prints, or else \
                 secret, the key itself, or public_key, a P-256 or Ed25519 key in base64",
            ),
            _ => Err("has more than one of sha256, secret and public_key: leave one"),
        }
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

/// Everything that is wrong with the keys.
pub(super) fn check(config: &Config, problems: &mut Problems) {
    let auth = &config.auth;
    problems.expect(
        !auth.keys.is_empty()
            || auth.api_key.is_some()
            || config.webhook.iter().all(|webhook| webhook.auth.is_sns())
            || config.http.names_callers(),
        "auth",
        "no key may call: run `hookbridge key` and put the line it prints under [auth] keys, or \
         set HOOKBRIDGE__AUTH__API_KEY",
    );
    // The place of each key that has been seen.
    let mut known: HashMap<Vec<u8>, String> = HashMap::new();
    if let Some(key) = auth.api_key.as_ref().map(|key| key.reveal().trim()) {
        let place = "auth.api_key";
        let is_pair = config.webhook.iter().any(is_basic);
        let advice = "take one that `hookbridge key` makes; if the sender dictates this one, make its \
                      entry for auth.keys by `hookbridge key --stdin --allow-short`";
        if key.is_empty() {
            problems.note(place, "must not be empty: put a key there that `hookbridge key` makes");
        } else if let Some(weakness) = weakness(API_KEY, key, is_pair) {
            problems.note(place, format!("{weakness}: {advice}"));
        }
        known.insert(hash_key(key.as_bytes()).into(), place.into());
    }
    for (index, key) in auth.keys.iter().enumerate() {
        let place = match key.is_filed {
            true => format!("auth.keys_file: key {:?}", key.name),
            false => format!("auth.keys[{index}]"),
        };
        problems.expect(!key.name.is_empty(), &place, "needs a name");
        // Several keys may share a name, as the old and the new one of a sender do.
        problems.expect(
            auth.api_key.is_none() || key.name != API_KEY,
            &place,
            "has the name that log lines give to auth.api_key: take another",
        );
        if problems.value(&place, key.read()).is_some() {
            strength(config, key, &place, problems);
        }
        let other = key.identity().and_then(|identity| known.insert(identity, place.clone()));
        if let Some(other) = other {
            let message = format!("is the same key as {other}: take one of the two out");
            problems.note(&place, message);
        }
        restrictions(config, key, &place, problems);
    }
}

/// Whether a key can be guessed.
fn strength(config: &Config, key: &NamedKey, place: &str, problems: &mut Problems) {
    let basic = config.webhook.iter().filter(|webhook| is_basic(webhook));
    let is_pair = basic.into_iter().any(|webhook| key.is_for(webhook));
    let Some(secret) = key.secret.as_ref().map(Secret::reveal) else {
        let message = "allow_short is for a secret: the length of another key is not known";
        problems.expect(!key.allow_short, place, message);
        let known = key.hash().and_then(|hash| known_key(&key.name, &hash));
        if let Some(weakness) = known {
            problems.note(place, format!("{weakness}: take one that `hookbridge key` makes"));
        }
        return;
    };
    if secret.is_empty() {
        return problems.note(place, "secret must not be empty");
    }
    if let Some(weakness) = weakness(&key.name, secret, is_pair).filter(|_| !key.allow_short) {
        let advice = "take one that `hookbridge key` makes; if the sender dictates this one, say \
                      allow_short = true";
        problems.note(place, format!("{weakness}: {advice}"));
    }
}

fn is_basic(webhook: &WebhookSettings) -> bool {
    webhook.auth == AuthSchemeSettings::Basic
}

/// Why this key could be guessed, if it could be. Of a pair `user:password` only the password is secret.
pub(crate) fn weakness(name: &str, key: &str, is_pair: bool) -> Option<String> {
    let (what, secret) = match key.split_once(':') {
        Some((_, password)) if is_pair => ("the password of this pair", password),
        _ => ("this key", key),
    };
    let is_name = !secret.is_empty() && secret == name;
    let known = if is_name { Some(IS_NAME) } else { known_key(name, &hash_key(key.as_bytes())) };
    let short = || {
        // What stands behind the prefix of Standard Webhooks is base64.
        let encoded = secret.strip_prefix("whsec_").map(|text| text.trim_end_matches('='));
        let length = encoded.map_or(secret.len(), |text| text.len() * 3 / 4);
        let bytes = if length == 1 { "byte" } else { "bytes" };
        let message =
            format!("{what} has {length} {bytes}, and fewer than {KEY_BYTES_MIN} can be guessed");
        (length < KEY_BYTES_MIN).then_some(message)
    };
    known.map(str::to_owned).or_else(short)
}

const IS_NAME: &str = "this key is its own name, which anybody could try";

/// Why a key with this hash is one that anybody could try, if it is.
fn known_key(name: &str, hash: &KeyHash) -> Option<&'static str> {
    let is = |key: &str| hash_key(key.as_bytes()) == *hash;
    if EXAMPLES.into_iter().any(is) {
        return Some("this key is an example of the documentation, which anybody could try");
    }
    let is_name = is(name) || is(&name.to_lowercase()) || is(&format!("{name}:{name}"));
    is_name.then_some(IS_NAME)
}

/// When and where a key may be used.
fn restrictions(config: &Config, key: &NamedKey, place: &str, problems: &mut Problems) {
    let has_life = key.not_before.zip(key.expires_at).is_none_or(|(begin, end)| begin < end);
    problems.expect(has_life, place, "expires_at must come after not_before");
    // A webhook without a name, such as one with a misspelt profile, may be the one that is meant.
    let known = |name: &String| {
        config.webhook.iter().any(|webhook| webhook.name == *name || webhook.name.is_empty())
    };
    for name in key.webhooks.iter().flatten() {
        let unknown = format!("webhooks: there is no webhook named {name}");
        problems.expect(known(name), place, unknown);
    }
    let is_for_one = key.webhooks.as_ref().is_none_or(|names| !names.is_empty());
    problems.expect(is_for_one, place, "webhooks must name one, or be left out for all");
    let is_for_one = key.networks.as_ref().is_none_or(|networks| !networks.is_empty());
    problems.expect(is_for_one, place, "networks must name one, or be left out for any");
}
