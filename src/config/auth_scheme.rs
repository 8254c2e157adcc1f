//! `[[webhook]] auth`: how senders prove who they are. A name alone, `auth = "basic"`, or a table where
//! more has to be said, `auth = { type = "header", header = "X-Api-Key" }`.

use std::path::PathBuf;

use hyper::Uri;
use hyper::header::HeaderName;
use jiff::SignedDuration;
use serde::de::Error;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::click::auth::sns::{self, Topic};
use crate::click::auth::{self, SignatureAlgorithm, SignedPart};

/// How the senders of a webhook prove who they are.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "kebab-case", deny_unknown_fields)]
pub enum AuthSchemeSettings {
    #[default]
    Bearer,
    Basic,
    Header {
        /// Its value is the key.
        header: String,
    },
    HmacSha256(SigningSettings),
    #[serde(rename = "ecdsa-p256")]
    EcdsaP256(SigningSettings),
    /// As Mailgun signs, within the body.
    Mailgun {
        /// How far its time may be from the time of receipt.
        #[serde(default = "tolerance_s")]
        tolerance_s: u32,
    },
    /// As Amazon SNS signs, with its certificates.
    Sns(SnsSettings),
    PathSecret,
}

/// What of a key a way needs.
pub enum Needs {
    /// None at all.
    Nothing,
    /// Its hash, which every way of giving it has.
    Hash,
    /// The key itself.
    Secret,
    /// The public half of a pair.
    PublicKey,
}

/// What is taken from Amazon SNS, and how it is reached.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SnsSettings {
    /// The ARNs of the topics whose messages are taken.
    #[serde(default)]
    pub topics: Vec<String>,
    /// Whether a subscription to them is confirmed as soon as it is asked for.
    #[serde(default)]
    pub confirm: bool,
    /// A proxy on the way there, such as `http://proxy:3128`; empty: none.
    #[serde(default)]
    pub proxy: String,
    /// The authorities to trust on the way there, in PEM; empty: those of the system.
    #[serde(default)]
    pub ca_file: PathBuf,
    /// How far a message's time may be from the time of receipt.
    #[serde(default = "sns_tolerance_s")]
    pub tolerance_s: u32,
}

/// How requests are signed.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SigningSettings {
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
    /// Where the time of signing is: Unix time, or a date.
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

/// It tries again for an hour at most.
fn sns_tolerance_s() -> u32 {
    2 * 60 * 60
}

/// Reads a name or a table.
pub(super) fn deserialize<'de, D: Deserializer<'de>>(
    from: D,
) -> Result<AuthSchemeSettings, D::Error> {
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
pub(super) fn serialize<S: Serializer>(way: &AuthSchemeSettings, to: S) -> Result<S::Ok, S::Error> {
    let table = toml::Table::try_from(way).map_err(serde::ser::Error::custom)?;
    match table.get("type") {
        Some(name) if table.len() == 1 => name.serialize(to),
        _ => table.serialize(to),
    }
}

impl AuthSchemeSettings {
    /// What of a key the bridge must know.
    pub fn needs(&self) -> Needs {
        match self {
            AuthSchemeSettings::Bearer
            | AuthSchemeSettings::Basic
            | AuthSchemeSettings::Header { .. }
            | AuthSchemeSettings::PathSecret => Needs::Hash,
            AuthSchemeSettings::HmacSha256(_) | AuthSchemeSettings::Mailgun { .. } => Needs::Secret,
            AuthSchemeSettings::EcdsaP256(_) => Needs::PublicKey,
            AuthSchemeSettings::Sns(_) => Needs::Nothing,
        }
    }

    /// The way as the pipeline uses it.
    ///
    /// # Errors
    ///
    /// What is wrong with it, and what to do about it.
    pub(super) fn read(&self) -> Result<auth::AuthScheme, String> {
        Ok(match self {
            AuthSchemeSettings::Bearer => auth::AuthScheme::Bearer,
            AuthSchemeSettings::Basic => auth::AuthScheme::Basic,
            AuthSchemeSettings::Header { header } => {
                auth::AuthScheme::Header(header_name("header", header)?)
            }
            AuthSchemeSettings::HmacSha256(signing) => {
                auth::AuthScheme::Signed(signing.read(SignatureAlgorithm::HmacSha256)?)
            }
            AuthSchemeSettings::EcdsaP256(signing) => {
                auth::AuthScheme::Signed(signing.read(SignatureAlgorithm::EcdsaP256)?)
            }
            AuthSchemeSettings::Mailgun { tolerance_s } => {
                auth::AuthScheme::Mailgun { tolerance: read_tolerance(*tolerance_s)? }
            }
            AuthSchemeSettings::Sns(sns) => auth::AuthScheme::Sns(sns.read()?),
            AuthSchemeSettings::PathSecret => auth::AuthScheme::PathSecret,
        })
    }
}

impl SnsSettings {
    fn read(&self) -> Result<sns::Sns, String> {
        if self.topics.is_empty() {
            return Err("topics must name your topics, as in { type = \"sns\", topics = \
                        [\"arn:aws:sns:eu-west-1:123456789012:clicks\"] }: anybody may have others"
                .into());
        }
        let topic = |arn: &String| {
            let wrong = || format!("topics: {arn} is no ARN of a topic of Amazon SNS");
            Topic::parse(arn).ok_or_else(wrong)
        };
        self.proxy()?;
        Ok(sns::Sns {
            topics: self.topics.iter().map(topic).collect::<Result<_, _>>()?,
            confirm: self.confirm,
            tolerance: read_tolerance(self.tolerance_s)?,
        })
    }

    /// The proxy, if there is one.
    ///
    /// # Errors
    ///
    /// That it is none.
    pub fn proxy(&self) -> Result<Option<Uri>, String> {
        if self.proxy.is_empty() {
            return Ok(None);
        }
        let is_proxy = |uri: &Uri| {
            uri.scheme_str() == Some("http")
                && uri
                    .authority()
                    .is_some_and(|a| !a.host().is_empty() && !a.as_str().contains('@'))
                && uri.path() == "/"
                && uri.query().is_none()
        };
        let uri = self.proxy.parse().ok().filter(is_proxy);
        let wrong =
            "proxy must be http://host:port of a proxy that takes CONNECT, without a password";
        uri.map(Some).ok_or_else(|| wrong.into())
    }
}

impl SigningSettings {
    fn read(&self, algorithm: SignatureAlgorithm) -> Result<auth::Signing, String> {
        let signed = SignedPart::parse(&self.signed).unwrap_or_default();
        let count = |part| signed.iter().filter(|other| **other == part).count();
        let (bodies, timestamps) = (count(SignedPart::Body), count(SignedPart::Timestamp));
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
        let timestamp_header =
            timestamp_header.map(|name| header_name("timestamp_header", name)).transpose()?;
        Ok(auth::Signing {
            algorithm,
            header: header_name("header", &self.header)?,
            prefix: self.prefix.clone(),
            encoding: match self.encoding {
                Encoding::Hex => auth::Encoding::Hex,
                Encoding::Base64 => auth::Encoding::Base64,
            },
            signed,
            timestamp_header,
            tolerance: read_tolerance(self.tolerance_s)?,
        })
    }
}

fn read_tolerance(tolerance_s: u32) -> Result<SignedDuration, String> {
    match tolerance_s {
        0 => Err("tolerance_s must be more than 0, or no request would be in time".into()),
        seconds => Ok(SignedDuration::from_secs(seconds.into())),
    }
}

fn header_name(setting: &str, name: &str) -> Result<HeaderName, String> {
    let wrong = |_| format!("{setting} must be a header's name such as X-Signature");
    name.parse().map_err(wrong)
}
