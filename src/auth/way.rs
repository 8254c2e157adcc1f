//! The ways in which a sender may prove who it is: a request's head goes in, a [`Claim`] comes out,
//! which [`Keys`](super::Keys) judge.

use data_encoding::{BASE64, HEXLOWER_PERMISSIVE};
use hyper::HeaderMap;
use hyper::header::{AUTHORIZATION, HeaderName};
use jiff::{SignedDuration, Timestamp};
use ring::hmac;
use subtle::{Choice, ConstantTimeEq};

use super::{KeyHash, hash_key};
use crate::outcome::{Refusal, Rejection};

/// How the senders of a webhook prove who they are.
#[derive(Debug)]
pub enum Way {
    /// `Authorization: Bearer KEY` (RFC 6750, section 2.1).
    Bearer,
    /// `Authorization: Basic` (RFC 7617); the key is `user:password`.
    Basic,
    /// The key is the value of this header.
    Header(HeaderName),
    /// A signature made with the key, which is not sent.
    HmacSha256(Signing),
    /// The key is the last segment of the path.
    PathSecret,
}

/// How requests are signed.
#[derive(Debug)]
pub struct Signing {
    /// Where the signature is.
    pub header: HeaderName,
    /// What stands before it there.
    pub prefix: String,
    pub encoding: Encoding,
    /// What is signed, in this order.
    pub signed: Vec<Part>,
    /// Where the time of signing is, if it is signed, in seconds or milliseconds of Unix time.
    pub timestamp_header: Option<HeaderName>,
    /// How far it may be from the time of receipt.
    pub tolerance: SignedDuration,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Encoding {
    /// In lower or upper case.
    Hex,
    /// With its padding (RFC 4648, section 4).
    Base64,
}

/// A part of what is signed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Part {
    Text(String),
    /// The timestamp's header, as it was sent.
    Timestamp,
    /// The body, as it was sent.
    Body,
}

impl Part {
    /// Reads `v0:{timestamp}:{body}` and the like. None for a brace that is neither of the two.
    pub fn parse(template: &str) -> Option<Vec<Part>> {
        let mut parts = Vec::new();
        let mut rest = template;
        while !rest.is_empty() {
            let (part, length) = if rest.starts_with("{timestamp}") {
                (Part::Timestamp, "{timestamp}".len())
            } else if rest.starts_with("{body}") {
                (Part::Body, "{body}".len())
            } else {
                let length = rest.find('{').unwrap_or(rest.len());
                (Part::Text(rest[..length].to_owned()), length)
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
pub enum Claim<'r> {
    /// The hash of a key.
    Key(KeyHash),
    /// It cannot be judged without the body.
    Signature(Signature<'r>),
}

/// A signature as it was sent, and what else is signed.
#[derive(Debug)]
pub struct Signature<'r> {
    signing: &'r Signing,
    timestamp: &'r [u8],
    tag: [u8; 32],
}

impl Signature<'_> {
    /// Whether it was made with this key, over this body.
    pub(super) fn is_by(&self, key: &hmac::Key, body: &[u8]) -> Choice {
        let mut context = hmac::Context::with_key(key);
        for part in &self.signing.signed {
            context.update(match part {
                Part::Text(text) => text.as_bytes(),
                Part::Timestamp => self.timestamp,
                Part::Body => body,
            });
        }
        context.sign().as_ref().ct_eq(&self.tag)
    }
}

impl Way {
    /// What to say in `WWW-Authenticate`, which a 401 must have. Only the first two are registered.
    pub fn challenge(&self) -> &'static str {
        match self {
            Way::Bearer => "Bearer",
            Way::Basic => "Basic realm=\"hookbridge\", charset=\"UTF-8\"",
            Way::Header(_) => "Header",
            Way::HmacSha256(_) => "HMAC-SHA256",
            Way::PathSecret => "Path-Secret",
        }
    }

    /// What a request claims by its head, received at this time.
    ///
    /// # Errors
    ///
    /// [`Refusal::Unauthorized`], with a detail that says what is wrong with the form but nothing about
    /// the keys.
    pub fn claim<'r>(
        &'r self,
        headers: &'r HeaderMap,
        path: &str,
        received: Timestamp,
    ) -> Result<Claim<'r>, Rejection> {
        let key = match self {
            Way::Bearer => authorization(headers, "bearer ")?,
            Way::Basic => {
                let sent = BASE64.decode(authorization(headers, "basic ")?);
                let pair = sent.ok().filter(|pair| pair.contains(&b':'));
                let pair = pair.ok_or_else(|| refuse("This is not user:password in base64"))?;
                return Ok(Claim::Key(hash_key(&pair)));
            }
            Way::Header(name) => only(headers, name)?,
            Way::HmacSha256(signing) => {
                return signing.read(headers, received).map(Claim::Signature);
            }
            Way::PathSecret => path.rsplit('/').next().unwrap_or_default().as_bytes(),
        };
        if key.is_empty() {
            return Err(refuse("The key is empty"));
        }
        Ok(Claim::Key(hash_key(key)))
    }
}

impl Signing {
    /// The signature of a request, judged as far as that goes without key and body.
    fn read<'r>(
        &'r self,
        headers: &'r HeaderMap,
        received: Timestamp,
    ) -> Result<Signature<'r>, Rejection> {
        let sent = only(headers, &self.header)?.strip_prefix(self.prefix.as_bytes());
        let tag = sent.and_then(|text| self.encoding.decode(text));
        let tag = tag.ok_or_else(|| refuse("The signature does not have the configured form"))?;
        let timestamp = match &self.timestamp_header {
            Some(name) => {
                let text = only(headers, name)?;
                let time =
                    unix_time(text).ok_or_else(|| refuse("The timestamp is no Unix time"))?;
                if received.duration_since(time).abs() > self.tolerance {
                    return Err(refuse("The timestamp is too far from the time of receipt"));
                }
                text
            }
            None => &[],
        };
        Ok(Signature { signing: self, timestamp, tag })
    }
}

impl Encoding {
    fn decode(self, text: &[u8]) -> Option<[u8; 32]> {
        let bytes = match self {
            Encoding::Hex => HEXLOWER_PERMISSIVE.decode(text),
            Encoding::Base64 => BASE64.decode(text),
        };
        bytes.ok()?.try_into().ok()
    }
}

/// In milliseconds where it would be thousands of years away in seconds.
fn unix_time(text: &[u8]) -> Option<Timestamp> {
    let number: i64 = std::str::from_utf8(text).ok()?.parse().ok()?;
    match number {
        ..100_000_000_000 => Timestamp::from_second(number).ok(),
        _ => Timestamp::from_millisecond(number).ok(),
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

fn refuse(detail: impl Into<std::borrow::Cow<'static, str>>) -> Rejection {
    Refusal::Unauthorized.detailed(detail)
}
