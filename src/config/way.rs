//! `[[webhook]] auth`: how senders prove who they are. A name alone, `auth = "basic"`, or a table where
//! more has to be said, `auth = { type = "header", header = "X-Api-Key" }`.

use hyper::header::HeaderName;
use jiff::SignedDuration;
use serde::de::Error;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::auth::{self, Part};

/// How the senders of a webhook prove who they are.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "kebab-case", deny_unknown_fields)]
pub enum Way {
    #[default]
    Bearer,
    Basic,
    Header {
        /// Its value is the key.
        header: String,
    },
    HmacSha256(Signing),
    PathSecret,
}

/// How requests are signed.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Signing {
    /// Where the signature is.
    pub header: String,
    /// What stands before it there, such as `sha256=`.
    #[serde(default)]
    pub prefix: String,
    #[serde(default)]
    pub encoding: Encoding,
    /// What is signed, such as `{timestamp}.{body}`.
    #[serde(default = "body")]
    pub signed: String,
    /// Where the time of signing is, in Unix time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timestamp_header: Option<String>,
    /// How far it may be from the time of receipt.
    #[serde(default = "tolerance_s")]
    pub tolerance_s: u32,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Encoding {
    #[default]
    Hex,
    Base64,
}

fn body() -> String {
    "{body}".into()
}

fn tolerance_s() -> u32 {
    5 * 60
}

/// Reads a name or a table.
pub(super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Way, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged, expecting = "must be a name such as \"basic\", or a table with a `type`")]
    enum Entry {
        Name(String),
        Table(toml::Table),
    }
    let table = match Entry::deserialize(from)? {
        Entry::Name(name) => [("type".to_owned(), name.into())].into_iter().collect(),
        Entry::Table(table) => table,
    };
    table.try_into().map_err(|error: toml::de::Error| D::Error::custom(error.message()))
}

/// Writes a name where that says it all.
pub(super) fn serialize<S: Serializer>(way: &Way, to: S) -> Result<S::Ok, S::Error> {
    let table = toml::Table::try_from(way).map_err(serde::ser::Error::custom)?;
    match table.get("type") {
        Some(name) if table.len() == 1 => name.serialize(to),
        _ => table.serialize(to),
    }
}

impl Way {
    /// Whether the bridge must know more of a key than its hash.
    pub fn takes_secrets(&self) -> bool {
        matches!(self, Way::HmacSha256(_))
    }

    /// The way as the pipeline uses it.
    ///
    /// # Errors
    ///
    /// What is wrong with it, and what to do about it.
    pub(super) fn read(&self) -> Result<auth::Way, String> {
        Ok(match self {
            Way::Bearer => auth::Way::Bearer,
            Way::Basic => auth::Way::Basic,
            Way::Header { header } => auth::Way::Header(header_name("header", header)?),
            Way::HmacSha256(signing) => auth::Way::HmacSha256(signing.read()?),
            Way::PathSecret => auth::Way::PathSecret,
        })
    }
}

impl Signing {
    fn read(&self) -> Result<auth::Signing, String> {
        let signed = Part::parse(&self.signed).unwrap_or_default();
        let count = |part| signed.iter().filter(|other| **other == part).count();
        let (bodies, timestamps) = (count(Part::Body), count(Part::Timestamp));
        if bodies != 1 || timestamps > 1 {
            return Err("signed must have {body} once, and may have {timestamp} once, as in \
                        \"{timestamp}.{body}\""
                .into());
        }
        let timestamp_header = self.timestamp_header.as_ref();
        match (timestamps, timestamp_header) {
            (1, None) => {
                return Err("signed has {timestamp}: timestamp_header must say where it is".into());
            }
            (0, Some(_)) => {
                return Err(
                    "timestamp_header is of no use unless signed has {timestamp}: anybody \
                            could change it"
                        .into(),
                );
            }
            _ => {}
        }
        if self.tolerance_s == 0 {
            return Err("tolerance_s must be more than 0, or no request would be in time".into());
        }
        let timestamp_header =
            timestamp_header.map(|name| header_name("timestamp_header", name)).transpose()?;
        Ok(auth::Signing {
            header: header_name("header", &self.header)?,
            prefix: self.prefix.clone(),
            encoding: match self.encoding {
                Encoding::Hex => auth::Encoding::Hex,
                Encoding::Base64 => auth::Encoding::Base64,
            },
            signed,
            timestamp_header,
            tolerance: SignedDuration::from_secs(self.tolerance_s.into()),
        })
    }
}

fn header_name(setting: &str, name: &str) -> Result<HeaderName, String> {
    let wrong = |_| format!("{setting} must be a header's name such as X-Signature");
    name.parse().map_err(wrong)
}
