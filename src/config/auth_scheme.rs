//! `[[webhook]] auth`: how senders prove who they are. A name alone, `auth = "basic"`, or a table where
//! more has to be said, `auth = { type = "header", header = "X-Api-Key" }`.

use std::path::PathBuf;

use hyper::Uri;
use hyper::header::HeaderName;
use jiff::SignedDuration;
use serde::de::Error;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::section::sections;
use crate::click::auth::sns::{Sns, Topic};
use crate::click::auth::{
    AuthScheme, Encoding, FormSigning, SignatureAlgorithm, SignedText, Signing,
};

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
    /// As Mandrill and Twilio sign forms.
    HmacSha1Form(FormSigningSettings),
    /// As Svix signs, and many others.
    StandardWebhooks {
        /// How far its time may be from the time of receipt.
        #[serde(default = "tolerance_s")]
        tolerance_s: u32,
    },
    /// As Amazon SNS signs, with its certificates.
    Sns(SnsSettings),
    PathSecret,
}

sections! {
    /// What is taken from Amazon SNS, and how it is reached.
    #[serde(deny_unknown_fields)]
    pub struct SnsSettings {
        /// The ARNs of the topics whose messages are taken.
        pub topics: Vec<String>,
        /// Whether a subscription to them is confirmed as soon as it is asked for.
        pub confirm: bool = false,
        /// A proxy between the bridge and Amazon, such as `http://proxy:3128`; empty: none.
        pub proxy: String,
        /// The authorities that are trusted for Amazon's hosts, in PEM; empty: those of the system.
        pub ca_file: PathBuf,
        /// How far a message's time may be from the time of receipt: SNS tries again for an hour at most.
        pub tolerance_s: u32 = 2 * 60 * 60,
    }
}

/// How forms are signed.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FormSigningSettings {
    /// Where the signature is.
    pub header: String,
    /// The address of the webhook as the sender has it.
    pub url: String,
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
    pub timestamp_header: Option<String>,
    /// How far it may be from the time of receipt.
    #[serde(default = "tolerance_s")]
    pub tolerance_s: u32,
}

fn body() -> String {
    "{body}".into()
}

fn tolerance_s() -> u32 {
    5 * 60
}

/// Reads a name or a table.
pub(super) fn deserialize<'de, D: Deserializer<'de>>(
    from: D,
) -> Result<AuthSchemeSettings, D::Error> {
    let message = "must be a name such as \"basic\", or a table with a `type`";
    let table = match toml::Value::deserialize(from)? {
        toml::Value::String(name) => [("type".to_owned(), name.into())].into_iter().collect(),
        toml::Value::Table(table) => table,
        _ => return Err(D::Error::custom(message)),
    };
    table.try_into().map_err(|error: toml::de::Error| D::Error::custom(error.message()))
}

/// Writes a name where that says it all.
pub(super) fn serialize<S: Serializer>(
    scheme: &AuthSchemeSettings,
    to: S,
) -> Result<S::Ok, S::Error> {
    let table = toml::Table::try_from(scheme).map_err(serde::ser::Error::custom)?;
    match table.get("type") {
        Some(name) if table.len() == 1 => name.serialize(to),
        _ => table.serialize(to),
    }
}

impl AuthSchemeSettings {
    pub(super) fn is_sns(&self) -> bool {
        matches!(self, Self::Sns(_))
    }

    /// The scheme as the pipeline uses it, or what is wrong with it and what to do about that.
    pub(super) fn read(&self) -> Result<AuthScheme, String> {
        Ok(match self {
            Self::Bearer => AuthScheme::Bearer,
            Self::Basic => AuthScheme::Basic,
            Self::Header { header } => AuthScheme::Header(header_name("header", header)?),
            Self::HmacSha256(signing) => signing.read(SignatureAlgorithm::HmacSha256)?,
            Self::EcdsaP256(signing) => signing.read(SignatureAlgorithm::EcdsaP256)?,
            Self::Mailgun { tolerance_s } => {
                AuthScheme::Mailgun { tolerance: read_tolerance(*tolerance_s)? }
            }
            Self::HmacSha1Form(signing) => AuthScheme::Form(signing.read()?),
            Self::StandardWebhooks { tolerance_s } => {
                AuthScheme::StandardWebhooks { tolerance: read_tolerance(*tolerance_s)? }
            }
            Self::Sns(sns) => AuthScheme::Sns(sns.read()?),
            Self::PathSecret => AuthScheme::PathSecret,
        })
    }
}

impl SnsSettings {
    fn read(&self) -> Result<Sns, String> {
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
        Ok(Sns {
            topics: self.topics.iter().map(topic).collect::<Result<_, _>>()?,
            confirm: self.confirm,
            tolerance: read_tolerance(self.tolerance_s)?,
        })
    }

    /// The proxy, if there is one.
    ///
    /// # Errors
    ///
    /// The setting is not the address of a proxy.
    pub(crate) fn proxy(&self) -> Result<Option<Uri>, String> {
        let wrong =
            "proxy must be http://host:port of a proxy that takes CONNECT, without a password";
        match self.proxy.parse::<Uri>() {
            _ if self.proxy.is_empty() => Ok(None),
            Ok(uri) if is_plain_http(&uri) && uri.path() == "/" => Ok(Some(uri)),
            _ => Err(wrong.into()),
        }
    }
}

impl FormSigningSettings {
    fn read(&self) -> Result<FormSigning, String> {
        let is_url = self.url.starts_with("https://") || self.url.starts_with("http://");
        if !is_url {
            return Err("url must be the address that the sender posts to, exactly as it has it, \
                        because it is signed, such as https://your.host/webhooks/mandrill"
                .into());
        }
        let header = header_name("header", &self.header)?;
        Ok(FormSigning { header, url: self.url.clone() })
    }
}

impl SigningSettings {
    fn read(&self, algorithm: SignatureAlgorithm) -> Result<AuthScheme, String> {
        let signed = SignedText::parse(&self.signed).ok_or(
            "signed must have {body} once, and may have {timestamp} once, as in \
             \"{timestamp}.{body}\"",
        )?;
        let timed_by = self.timestamp_header.as_ref();
        match (signed.has_timestamp(), timed_by) {
            (false, None) | (true, Some(_)) => Ok(()),
            (true, None) => Err("signed has {timestamp}: timestamp_header must say where it is"),
            (false, Some(_)) => {
                Err("timestamp_header is of no use unless signed has {timestamp}: \
                                     anybody could change it")
            }
        }?;
        let timed_by = timed_by.map(|name| header_name("timestamp_header", name)).transpose()?;
        Ok(AuthScheme::Signed(Signing {
            algorithm,
            header: header_name("header", &self.header)?,
            prefix: self.prefix.clone(),
            encoding: self.encoding,
            signed,
            timestamp_header: timed_by,
            tolerance: read_tolerance(self.tolerance_s)?,
        }))
    }
}

/// Whether it is `http://`, a host and perhaps a port and a path: no password, no query.
pub(super) fn is_plain_http(uri: &Uri) -> bool {
    uri.scheme_str() == Some("http")
        && uri.authority().is_some_and(|a| !a.host().is_empty() && !a.as_str().contains('@'))
        && uri.query().is_none()
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
