//! The auth schemes: the head of a request goes in, a [`Claim`] comes out, which [`Keys`](super::Keys)
//! judge.

use data_encoding::BASE64;
use hyper::HeaderMap;
use hyper::header::{AUTHORIZATION, HeaderName};
use jiff::{SignedDuration, Timestamp};

use super::sns::Sns;
use super::{
    FormSigning, KeyHash, Signature, SignatureAlgorithm, Signing, hash_key, only, refuse,
    standard_webhooks,
};
use crate::click::outcome::Rejection;

/// How the senders of a webhook prove who they are.
#[derive(Debug)]
pub enum AuthScheme {
    /// `Authorization: Bearer KEY` (RFC 6750, section 2.1).
    Bearer,
    /// `Authorization: Basic` (RFC 7617); the key is `user:password`.
    Basic,
    /// The key is the value of this header.
    Header(HeaderName),
    /// A signature made with a key that is not sent.
    Signed(Signing),
    /// Mailgun's signature: in the body, over a time and a token only.
    Mailgun {
        /// How far the time may be from the time of receipt.
        tolerance: SignedDuration,
    },
    /// A form with a signature.
    Form(FormSigning),
    /// A message with an id and signatures.
    StandardWebhooks {
        /// How far the time may be from the time of receipt.
        tolerance: SignedDuration,
    },
    /// Messages of Amazon SNS, signed with its certificates, without a key.
    Sns(Sns),
    /// The key is the last segment of the path.
    PathSecret,
}

/// What a request's head claims about who calls.
#[derive(Debug)]
pub enum Claim<'w> {
    /// The hash of a key.
    Key(KeyHash),
    /// A signature, which is over the body.
    Signature(Signature),
    /// A signature in the body: see [`read_mailgun`](super::read_mailgun).
    InBody { tolerance: SignedDuration },
    /// A signature of the form in the body: see [`FormSigning::read`].
    Form(&'w FormSigning),
    /// A signed message in the body: see [`Sns::read`].
    Sns(&'w Sns),
}

impl AuthScheme {
    /// The value of `WWW-Authenticate`, which a 401 must have. Only the first two are registered.
    pub fn challenge(&self) -> &'static str {
        match self {
            Self::Bearer => "Bearer",
            Self::Basic => "Basic realm=\"hookbridge\", charset=\"UTF-8\"",
            Self::Header(_) => "Header",
            Self::Signed(Signing { algorithm: SignatureAlgorithm::EcdsaP256, .. }) => "ECDSA-P256",
            Self::Signed(_) | Self::Mailgun { .. } => "HMAC-SHA256",
            Self::Form(_) => "HMAC-SHA1",
            Self::StandardWebhooks { .. } => "Standard-Webhooks",
            Self::Sns(_) => "SNS",
            Self::PathSecret => "Path-Secret",
        }
    }

    /// The sender's id of an authenticated request, from which the id of its event is made.
    pub fn message_id<'r>(&self, headers: &'r HeaderMap) -> Option<&'r str> {
        match self {
            Self::StandardWebhooks { .. } => standard_webhooks::id(headers),
            _ => None,
        }
    }

    /// What a request claims by its head, received at this time.
    ///
    /// # Errors
    ///
    /// `Refusal::Unauthorized`. The detail says what is wrong with the form, and nothing about the keys.
    pub fn claim(
        &self,
        headers: &HeaderMap,
        path: &str,
        received: Timestamp,
    ) -> Result<Claim<'_>, Rejection> {
        let key = match self {
            Self::Bearer => authorization(headers, "bearer ")?,
            Self::Basic => {
                let sent = BASE64.decode(authorization(headers, "basic ")?);
                let pair = sent.ok().filter(|pair| pair.contains(&b':'));
                let pair = pair.ok_or_else(|| refuse("This is not user:password in base64"))?;
                return Ok(Claim::Key(hash_key(&pair)));
            }
            Self::Header(name) => only(headers, name)?,
            Self::Signed(signing) => return signing.read(headers, received).map(Claim::Signature),
            Self::Mailgun { tolerance } => return Ok(Claim::InBody { tolerance: *tolerance }),
            Self::Form(signing) => return Ok(Claim::Form(signing)),
            Self::StandardWebhooks { tolerance } => {
                let signature = standard_webhooks::read(headers, *tolerance, received);
                return signature.map(Claim::Signature);
            }
            Self::Sns(sns) => return Ok(Claim::Sns(sns)),
            // As it was sent, but for slashes behind it.
            Self::PathSecret => {
                path.trim_end_matches('/').rsplit('/').next().unwrap_or_default().as_bytes()
            }
        };
        if key.is_empty() {
            return Err(refuse("The key is empty"));
        }
        Ok(Claim::Key(hash_key(key)))
    }
}

/// The credentials after this scheme in `Authorization`; the scheme's case does not matter.
fn authorization<'r>(headers: &'r HeaderMap, scheme: &str) -> Result<&'r [u8], Rejection> {
    let parts = only(headers, &AUTHORIZATION)?.split_at_checked(scheme.len());
    let parts = parts.filter(|(sent, _)| sent.eq_ignore_ascii_case(scheme.as_bytes()));
    parts.map(|(_, key)| key.trim_ascii()).ok_or_else(|| {
        let scheme = scheme.trim_end();
        refuse(format!("The header authorization has another scheme than {scheme}"))
    })
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::click::auth::{Key, Keys, Restrictions};

    /// The key that a request finds, as its path, or the refusal's detail.
    #[track_caller]
    fn check(
        scheme: &AuthScheme,
        path: &str,
        headers: &[(&str, &str)],
        expected: Result<&str, &str>,
    ) {
        let keys = Keys::new([
            Key::new("old", hash_key(b"first-key"), Restrictions::default()),
            Key::new("new", hash_key(b"second-key"), Restrictions::default()),
            Key::new("pair", hash_key(b"user:pass:word"), Restrictions::default()),
        ]);
        let headers = header_map(headers);
        let found = match scheme.claim(&headers, path, Timestamp::UNIX_EPOCH) {
            Ok(Claim::Key(hash)) => keys.find(&hash),
            Ok(_) => panic!("{scheme:?} has no signature"),
            Err(rejection) => Err(rejection),
        };
        let found = found.as_ref().map(|key| &**key.name()).map_err(|r| r.detail.as_ref());
        assert_eq!(found, expected, "{scheme:?} {path} {headers:?}");
    }

    pub fn header_map(headers: &[(&str, &str)]) -> HeaderMap {
        let mut map = HeaderMap::new();
        for (name, value) in headers {
            let name: HeaderName = name.parse().expect("a header name");
            map.append(name, value.parse().expect("a header value"));
        }
        map
    }

    #[test]
    fn a_bearer_key_opens() {
        let check = |values: &[&str], expected| {
            let headers: Vec<_> = values.iter().map(|value| ("authorization", *value)).collect();
            check(&AuthScheme::Bearer, "/first-key", &headers, expected);
        };
        check(&["Bearer first-key"], Ok("old"));
        check(&["Bearer second-key"], Ok("new"));
        check(&["bearer second-key"], Ok("new"));
        check(&["BEARER   second-key "], Ok("new"));
        check(&[], Err("The header authorization is missing"));
        check(&["Bearer third-key"], Err("The key is not known"));
        check(&["Bearer first-key2"], Err("The key is not known"));
        check(&["Bearer First-Key"], Err("The key is not known"));
        check(&["Bearer "], Err("The key is empty"));
        let other = Err("The header authorization has another scheme than bearer");
        check(&["Bearer"], other);
        check(&["first-key"], other);
        check(&["Basic Zmlyc3Qta2V5"], other);
        let twice = Err("There is more than one header authorization");
        check(&["Bearer first-key", "Bearer first-key"], twice);
    }

    #[test]
    fn a_basic_pair_opens() {
        let check = |value: &str, expected| {
            check(&AuthScheme::Basic, "/first-key", &[("authorization", value)], expected);
        };
        // printf user:pass:word | base64
        check("Basic dXNlcjpwYXNzOndvcmQ=", Ok("pair"));
        check("bASIC  dXNlcjpwYXNzOndvcmQ=", Ok("pair"));
        check("Basic dXNlcjpwYXNzOndvcmQh", Err("The key is not known"));
        let form = Err("This is not user:password in base64");
        check("Basic dXNlcjpwYXNzOndvcmQ", form);
        check("Basic user:pass:word", form);
        check("Basic ", form);
        // first-key, which is no pair.
        check("Basic Zmlyc3Qta2V5", form);
        let other = Err("The header authorization has another scheme than basic");
        check("Bearer first-key", other);
    }

    #[test]
    fn a_key_in_a_header_opens() {
        let scheme = AuthScheme::Header(HeaderName::from_static("x-api-key"));
        let check = |headers: &[(&str, &str)], expected| check(&scheme, "/", headers, expected);
        check(&[("X-Api-Key", "first-key")], Ok("old"));
        check(&[("x-api-key", "second-key"), ("authorization", "Bearer x")], Ok("new"));
        check(&[("x-api-key", "Bearer first-key")], Err("The key is not known"));
        check(&[("x-api-key", "")], Err("The key is empty"));
        check(&[("authorization", "Bearer first-key")], Err("The header x-api-key is missing"));
        let twice = [("x-api-key", "first-key"), ("x-api-key", "first-key")];
        check(&twice, Err("There is more than one header x-api-key"));
    }

    #[test]
    fn a_key_in_the_path_opens() {
        let check = |path, expected| check(&AuthScheme::PathSecret, path, &[], expected);
        check("/click/first-key", Ok("old"));
        check("/second-key", Ok("new"));
        check("/click/first-key/", Ok("old"));
        check("/click//second-key//", Ok("new"));
        check("/click/", Err("The key is not known"));
        check("/", Err("The key is empty"));
        check("/click/%66irst-key", Err("The key is not known"));
        check("/click", Err("The key is not known"));
        check("/first-key/click", Err("The key is not known"));
    }
}
