//! The ways in which a sender may prove who it is: a request's head goes in, a [`Claim`] comes out,
//! which [`Keys`](super::Keys) judge.

use data_encoding::{BASE64, HEXLOWER_PERMISSIVE};
use hyper::HeaderMap;
use hyper::header::{AUTHORIZATION, HeaderName};
use jiff::fmt::rfc2822;
use jiff::{SignedDuration, Timestamp};
use ring::{hmac, signature};
use serde::{Deserialize, Serialize};
use subtle::{Choice, ConstantTimeEq};

use super::sns::Sns;
use super::{KeyHash, Signer, hash_key};
use crate::click::outcome::{Refusal, Rejection};

/// How the senders of a webhook prove who they are.
#[derive(Debug)]
pub enum AuthScheme {
    /// `Authorization: Bearer KEY` (RFC 6750, section 2.1).
    Bearer,
    /// `Authorization: Basic` (RFC 7617); the key is `user:password`.
    Basic,
    /// The key is the value of this header.
    Header(HeaderName),
    /// A signature made with the key, which is not sent.
    Signed(Signing),
    /// The same as Mailgun does it: within the body, over a time and a token alone.
    Mailgun {
        /// How far the time may be from the time of receipt.
        tolerance: SignedDuration,
    },
    /// Messages of Amazon SNS, signed with its certificates; no key is needed.
    Sns(Sns),
    /// The key is the last segment of the path.
    PathSecret,
}

/// How requests are signed.
#[derive(Debug)]
pub struct Signing {
    pub algorithm: SignatureAlgorithm,
    /// Where the signature is.
    pub header: HeaderName,
    /// What stands before it there.
    pub prefix: String,
    pub encoding: Encoding,
    /// What is signed, in this order.
    pub signed: Vec<SignedPart>,
    /// Where the time of signing is, if it is signed: Unix time in seconds or milliseconds, or a date of
    /// RFC 3339 or of HTTP.
    pub timestamp_header: Option<HeaderName>,
    /// How far it may be from the time of receipt.
    pub tolerance: SignedDuration,
}

/// What a signature is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SignatureAlgorithm {
    /// HMAC with SHA-256, by a secret that both sides have (RFC 2104).
    HmacSha256,
    /// ECDSA on the curve P-256 with SHA-256, in ASN.1; here is the public key alone (FIPS 186-5).
    EcdsaP256,
}

/// How a signature is written.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Encoding {
    /// In lower or upper case.
    #[default]
    Hex,
    /// With its padding (RFC 4648, section 4).
    Base64,
}

/// A part of what is signed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SignedPart {
    Text(String),
    /// The timestamp's header, as it was sent.
    Timestamp,
    /// The body, as it was sent.
    Body,
}

impl SignedPart {
    /// Reads `v0:{timestamp}:{body}` and the like. None for a brace that is neither of the two.
    pub fn parse(template: &str) -> Option<Vec<SignedPart>> {
        let mut parts = Vec::new();
        let mut rest = template;
        while !rest.is_empty() {
            let (part, length) = if rest.starts_with("{timestamp}") {
                (SignedPart::Timestamp, "{timestamp}".len())
            } else if rest.starts_with("{body}") {
                (SignedPart::Body, "{body}".len())
            } else {
                let length = rest.find('{').unwrap_or(rest.len());
                (SignedPart::Text(rest[..length].to_owned()), length)
            };
            if length == 0 {
                return None;
            }
            parts.push(part);
            rest = &rest[length..];
        }
        Some(parts)
    }
}

/// What a request's head brings to prove who calls.
#[derive(Debug)]
pub enum Claim<'w> {
    /// The hash of a key.
    Key(KeyHash),
    /// It cannot be judged without the body.
    Signature(Signature),
    /// It is in the body: see [`read_mailgun`].
    InBody { tolerance: SignedDuration },
    /// The same: see [`Sns::read`].
    Sns(&'w Sns),
}

/// A signature as it was sent, and what else is signed.
#[derive(Debug)]
pub struct Signature {
    algorithm: SignatureAlgorithm,
    before: Vec<u8>,
    covers_body: bool,
    after: Vec<u8>,
    tag: Vec<u8>,
    /// What no other request may bring: without it one that is known could be sent again with another
    /// event.
    token: Option<String>,
}

impl Signature {
    /// Whether it was made with this key, over this body.
    pub(super) fn is_by(&self, signer: &Signer, body: &[u8]) -> Choice {
        let body = if self.covers_body { body } else { &[] };
        let signed = [&self.before, body, &self.after];
        match (self.algorithm, signer) {
            (SignatureAlgorithm::HmacSha256, Signer::Secret(key)) => {
                let mut context = hmac::Context::with_key(key);
                signed.iter().for_each(|part| context.update(part));
                context.sign().as_ref().ct_eq(&self.tag)
            }
            (SignatureAlgorithm::EcdsaP256, Signer::PublicKey(point)) => {
                let key =
                    signature::UnparsedPublicKey::new(&signature::ECDSA_P256_SHA256_ASN1, point);
                Choice::from(u8::from(key.verify(&signed.concat(), &self.tag).is_ok()))
            }
            _ => Choice::from(0),
        }
    }

    /// What no other body may be signed with; none where the signature is over the body.
    pub fn token(&self) -> Option<&str> {
        self.token.as_deref()
    }
}

/// The signature in a body of Mailgun's, judged as far as that goes without the key: it is over a time
/// and a token, not over the event.
///
/// # Errors
///
/// [`Refusal::Unauthorized`].
pub fn read_mailgun(
    body: &[u8],
    tolerance: SignedDuration,
    received: Timestamp,
) -> Result<Signature, Rejection> {
    #[derive(Deserialize)]
    struct Body {
        signature: Fields,
    }
    #[derive(Deserialize)]
    struct Fields {
        timestamp: String,
        token: String,
        signature: String,
    }
    let form = || refuse("The body has no signature with timestamp, token and signature");
    let Body { signature } = serde_json::from_slice(body).map_err(|_| form())?;
    let Fields { timestamp, token, signature } = signature;
    is_in_time(timestamp.as_bytes(), tolerance, received)?;
    let tag = Encoding::Hex.decode(signature.as_bytes());
    Ok(Signature {
        algorithm: SignatureAlgorithm::HmacSha256,
        before: format!("{timestamp}{token}").into_bytes(),
        covers_body: false,
        after: Vec::new(),
        tag: tag.ok_or_else(form)?,
        token: Some(token),
    })
}

impl AuthScheme {
    /// What to say in `WWW-Authenticate`, which a 401 must have. Only the first two are registered.
    pub fn challenge(&self) -> &'static str {
        match self {
            AuthScheme::Bearer => "Bearer",
            AuthScheme::Basic => "Basic realm=\"hookbridge\", charset=\"UTF-8\"",
            AuthScheme::Header(_) => "Header",
            AuthScheme::Signed(Signing { algorithm: SignatureAlgorithm::HmacSha256, .. })
            | AuthScheme::Mailgun { .. } => "HMAC-SHA256",
            AuthScheme::Signed(Signing { algorithm: SignatureAlgorithm::EcdsaP256, .. }) => {
                "ECDSA-P256"
            }
            AuthScheme::Sns(_) => "SNS",
            AuthScheme::PathSecret => "Path-Secret",
        }
    }

    /// What a request claims by its head, received at this time.
    ///
    /// # Errors
    ///
    /// [`Refusal::Unauthorized`], with a detail that says what is wrong with the form but nothing about
    /// the keys.
    pub fn claim(
        &self,
        headers: &HeaderMap,
        path: &str,
        received: Timestamp,
    ) -> Result<Claim<'_>, Rejection> {
        let key = match self {
            AuthScheme::Bearer => authorization(headers, "bearer ")?,
            AuthScheme::Basic => {
                let sent = BASE64.decode(authorization(headers, "basic ")?);
                let pair = sent.ok().filter(|pair| pair.contains(&b':'));
                let pair = pair.ok_or_else(|| refuse("This is not user:password in base64"))?;
                return Ok(Claim::Key(hash_key(&pair)));
            }
            AuthScheme::Header(name) => only(headers, name)?,
            AuthScheme::Signed(signing) => {
                return signing.read(headers, received).map(Claim::Signature);
            }
            AuthScheme::Mailgun { tolerance } => {
                return Ok(Claim::InBody { tolerance: *tolerance });
            }
            AuthScheme::Sns(sns) => return Ok(Claim::Sns(sns)),
            AuthScheme::PathSecret => path.rsplit('/').next().unwrap_or_default().as_bytes(),
        };
        if key.is_empty() {
            return Err(refuse("The key is empty"));
        }
        Ok(Claim::Key(hash_key(key)))
    }
}

impl Signing {
    /// The signature of a request, judged as far as that goes without key and body.
    fn read(&self, headers: &HeaderMap, received: Timestamp) -> Result<Signature, Rejection> {
        let sent = only(headers, &self.header)?.strip_prefix(self.prefix.as_bytes());
        let tag = sent.and_then(|text| self.encoding.decode(text));
        let is_right =
            |tag: &Vec<u8>| self.algorithm != SignatureAlgorithm::HmacSha256 || tag.len() == 32;
        let tag = tag.filter(is_right);
        let tag = tag.ok_or_else(|| refuse("The signature does not have the configured form"))?;
        let timestamp = match &self.timestamp_header {
            Some(name) => {
                let text = only(headers, name)?;
                is_in_time(text, self.tolerance, received)?;
                text
            }
            None => &[],
        };
        let (mut before, mut after, mut is_behind) = (Vec::new(), Vec::new(), false);
        for part in &self.signed {
            let side = if is_behind { &mut after } else { &mut before };
            match part {
                SignedPart::Text(text) => side.extend_from_slice(text.as_bytes()),
                SignedPart::Timestamp => side.extend_from_slice(timestamp),
                SignedPart::Body => is_behind = true,
            }
        }
        Ok(Signature {
            algorithm: self.algorithm,
            before,
            covers_body: true,
            after,
            tag,
            token: None,
        })
    }
}

impl Encoding {
    fn decode(self, text: &[u8]) -> Option<Vec<u8>> {
        match self {
            Encoding::Hex => HEXLOWER_PERMISSIVE.decode(text).ok(),
            Encoding::Base64 => BASE64.decode(text).ok(),
        }
    }
}

/// Whether a time of signing is near enough to the time of receipt.
pub(super) fn is_in_time(
    text: &[u8],
    tolerance: SignedDuration,
    received: Timestamp,
) -> Result<(), Rejection> {
    let time = signing_time(text);
    let time = time.ok_or_else(|| refuse("The timestamp is no Unix time and no date"))?;
    match received.duration_since(time).abs() > tolerance {
        true => Err(refuse("The timestamp is too far from the time of receipt")),
        false => Ok(()),
    }
}

/// Unix time, in milliseconds where it would be thousands of years away in seconds; or a date.
fn signing_time(text: &[u8]) -> Option<Timestamp> {
    let text = std::str::from_utf8(text).ok()?;
    match text.parse::<i64>() {
        Ok(number @ ..100_000_000_000) => Timestamp::from_second(number).ok(),
        Ok(number) => Timestamp::from_millisecond(number).ok(),
        Err(_) => {
            let http = || rfc2822::parse(text).ok().map(|date| date.timestamp());
            text.parse().ok().or_else(http)
        }
    }
}

/// What stands behind the scheme in `Authorization`; the scheme without regard to case.
fn authorization<'r>(headers: &'r HeaderMap, scheme: &str) -> Result<&'r [u8], Rejection> {
    let value = only(headers, &AUTHORIZATION)?;
    match value.split_at_checked(scheme.len()) {
        Some((sent, key)) if sent.eq_ignore_ascii_case(scheme.as_bytes()) => Ok(key.trim_ascii()),
        _ => {
            let scheme = scheme.trim_end();
            Err(refuse(format!("The header authorization has another scheme than {scheme}")))
        }
    }
}

/// The value of the one header of this name.
fn only<'r>(headers: &'r HeaderMap, name: &HeaderName) -> Result<&'r [u8], Rejection> {
    let mut values = headers.get_all(name).iter();
    match (values.next(), values.next()) {
        (Some(value), None) => Ok(value.as_bytes()),
        (None, _) => Err(refuse(format!("The header {name} is missing"))),
        (Some(_), Some(_)) => Err(refuse(format!("There is more than one header {name}"))),
    }
}

pub(super) fn refuse(detail: impl Into<std::borrow::Cow<'static, str>>) -> Rejection {
    Refusal::Unauthorized.detailed(detail)
}
