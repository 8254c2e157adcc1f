//! Who calls: the `Authorization` header names a [`Key`], and the key makes a [`Caller`] where and
//! when it may be used; else the request ends with 401 or 403. Where senders show certificates, those
//! name the caller.
//!
//! Keys are kept as SHA-256 and compared in constant time, all of them, whatever the first ones
//! say. Nothing here sees a body.

use std::net::IpAddr;
use std::sync::Arc;

use hyper::HeaderMap;
use hyper::header::AUTHORIZATION;
use ipnet::IpNet;
use jiff::Timestamp;
use sha2::{Digest, Sha256};
use subtle::{Choice, ConditionallySelectable, ConstantTimeEq};
use x509_parser::extensions::GeneralName;

use crate::outcome::{Refusal, Rejection};

/// The SHA-256 of a key.
pub type KeyHash = [u8; 32];

/// The hash under which a key is kept.
pub fn hash_key(key: &[u8]) -> KeyHash {
    Sha256::digest(key).into()
}

/// Reads a hash from the 64 hexadecimal digits of the config.
pub fn parse_hash(hex: &str) -> Option<KeyHash> {
    let digits = hex.as_bytes();
    if digits.len() != 64 {
        return None;
    }
    let mut hash = [0; 32];
    for (byte, pair) in hash.iter_mut().zip(digits.chunks_exact(2)) {
        let high = char::from(pair[0]).to_digit(16)?;
        let low = char::from(pair[1]).to_digit(16)?;
        *byte = (high * 16 + low) as u8;
    }
    Some(hash)
}

/// Writes a hash as the config reads it.
pub fn format_hash(hash: &KeyHash) -> String {
    hash.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The keys that may call.
#[derive(Debug, Clone, Default)]
pub struct Keys(Vec<Key>);

/// A key that may call.
#[derive(Debug, Clone)]
pub struct Key {
    name: Arc<str>,
    hash: KeyHash,
    terms: Terms,
}

/// When and where a key may be used; by default always and everywhere.
#[derive(Debug, Clone, Default)]
pub struct Terms {
    pub not_before: Option<Timestamp>,
    /// From then on it may not.
    pub expires_at: Option<Timestamp>,
    /// The names of its webhooks.
    pub webhooks: Option<Vec<String>>,
    /// The networks of its senders.
    pub networks: Option<Vec<IpNet>>,
}

/// An authenticated caller. Only [`Key::admit`] and [`Caller::of_certificate`] make one.
#[derive(Debug, Clone)]
pub struct Caller {
    name: Arc<str>,
}

impl Caller {
    /// Whom a certificate names that has been verified: its common name, or its first DNS name or URI.
    /// None if it names nobody, or not in a printable way.
    pub fn of_certificate(der: &[u8]) -> Option<Caller> {
        let (_, certificate) = x509_parser::parse_x509_certificate(der).ok()?;
        let common = certificate.subject().iter_common_name().next();
        let alternative = certificate.subject_alternative_name().ok().flatten();
        let alternative = alternative.and_then(|names| {
            names.value.general_names.iter().find_map(|name| match name {
                GeneralName::DNSName(name) | GeneralName::URI(name) => Some(*name),
                _ => None,
            })
        });
        let name = common.and_then(|name| name.as_str().ok()).or(alternative)?;
        let is_printable = !name.is_empty() && !name.chars().any(char::is_control);
        is_printable.then(|| Caller { name: name.into() })
    }

    /// The name of the key, as configured: safe to log.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The same, to keep.
    pub fn shared_name(&self) -> Arc<str> {
        self.name.clone()
    }

    /// A caller of this name, for tests of other steps.
    #[cfg(test)]
    pub fn named(name: &str) -> Caller {
        Caller { name: name.into() }
    }
}

impl Keys {
    pub fn new(keys: impl IntoIterator<Item = Key>) -> Keys {
        Keys(keys.into_iter().collect())
    }

    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.0.iter().map(|key| &*key.name)
    }

    /// Finds the bearer key of these headers. It is known; whether it may be used is another question.
    ///
    /// # Errors
    ///
    /// [`Refusal::Unauthorized`], with a detail that says what is wrong with the header's form but
    /// nothing about the keys.
    pub fn find(&self, headers: &HeaderMap) -> Result<&Key, Rejection> {
        let hash = hash_key(bearer_key(headers)?);
        let mut known = Choice::from(0);
        let mut position = 0u32;
        for (index, key) in self.0.iter().enumerate() {
            let equal = hash.ct_eq(&key.hash);
            position.conditional_assign(&(index as u32), equal);
            known |= equal;
        }
        if bool::from(known) {
            Ok(&self.0[position as usize])
        } else {
            Err(Refusal::Unauthorized.detailed("The bearer key is not known"))
        }
    }
}

impl Key {
    pub fn new(name: &str, hash: KeyHash, terms: Terms) -> Key {
        Key { name: name.into(), hash, terms }
    }

    /// Its name, to keep.
    pub fn shared_name(&self) -> Arc<str> {
        self.name.clone()
    }

    /// Whether its life was over when a request was received.
    pub fn has_expired(&self, received: Timestamp) -> bool {
        self.terms.expires_at.is_some_and(|end| received >= end)
    }

    /// The caller, if the key may be used for this webhook, from this address, at this time.
    ///
    /// # Errors
    ///
    /// [`Refusal::Unauthorized`] outside the key's life, [`Refusal::Forbidden`] for another webhook or
    /// from another network. Whoever reads the detail has the key.
    pub fn admit(
        &self,
        webhook: &str,
        address: IpAddr,
        received: Timestamp,
    ) -> Result<Caller, Rejection> {
        let Terms { not_before, webhooks, networks, .. } = &self.terms;
        if not_before.is_some_and(|begin| received < begin) {
            return Err(Refusal::Unauthorized.detailed("The bearer key is not valid yet"));
        }
        if self.has_expired(received) {
            return Err(Refusal::Unauthorized.detailed("The bearer key has expired"));
        }
        if webhooks.as_ref().is_some_and(|names| !names.iter().any(|name| name == webhook)) {
            return Err(Refusal::Forbidden.detailed("This key is not for this webhook"));
        }
        // On a socket for both families an IPv4 sender has an address of IPv6.
        let address = address.to_canonical();
        if networks.as_ref().is_some_and(|nets| !nets.iter().any(|net| net.contains(&address))) {
            return Err(Refusal::Forbidden.detailed("This key is not for this address"));
        }
        Ok(Caller { name: self.name.clone() })
    }
}

/// The key in `Authorization: Bearer KEY` (RFC 6750, section 2.1; the scheme without regard to case).
fn bearer_key(headers: &HeaderMap) -> Result<&[u8], Rejection> {
    let mut values = headers.get_all(AUTHORIZATION).iter();
    let value = match (values.next(), values.next()) {
        (None, _) => return Err(Refusal::Unauthorized.plain()),
        (Some(_), Some(_)) => {
            return Err(Refusal::Unauthorized.detailed("More than one Authorization header"));
        }
        (Some(value), None) => value.as_bytes(),
    };
    match value.split_first_chunk::<7>() {
        Some((scheme, key)) if scheme.eq_ignore_ascii_case(b"bearer ") => {
            let key = key.trim_ascii();
            if key.is_empty() {
                return Err(Refusal::Unauthorized.detailed("The bearer key is empty"));
            }
            Ok(key)
        }
        _ => Err(Refusal::Unauthorized.detailed("The Authorization header is not a bearer key")),
    }
}

#[cfg(test)]
mod tests {
    use rcgen::{CertificateParams, DistinguishedName, DnType, KeyPair, SanType};

    use super::*;

    #[track_caller]
    fn check(headers: &[&str], expected: Result<&str, &str>) {
        let keys = Keys::new([
            Key::new("old", hash_key(b"first-key"), Terms::default()),
            Key::new("new", hash_key(b"second-key"), Terms::default()),
        ]);
        let mut map = HeaderMap::new();
        for value in headers {
            map.append(AUTHORIZATION, value.parse().expect("a header value"));
        }
        let actual = keys.find(&map);
        let actual = actual.as_ref().map(|key| &*key.name).map_err(|r| r.detail.as_ref());
        assert_eq!(actual, expected, "{headers:?}");
    }

    #[test]
    fn any_of_the_keys_opens() {
        check(&["Bearer first-key"], Ok("old"));
        check(&["Bearer second-key"], Ok("new"));
        check(&["bearer second-key"], Ok("new"));
        check(&["BEARER   second-key "], Ok("new"));
    }

    #[test]
    fn everything_else_is_refused() {
        check(&[], Err("A valid bearer key is required"));
        check(&["Bearer third-key"], Err("The bearer key is not known"));
        check(&["Bearer first-key2"], Err("The bearer key is not known"));
        check(&["Bearer First-Key"], Err("The bearer key is not known"));
        check(&["Bearer "], Err("The bearer key is empty"));
        check(&["Bearer"], Err("The Authorization header is not a bearer key"));
        check(&["first-key"], Err("The Authorization header is not a bearer key"));
        check(&["Basic Zmlyc3Qta2V5"], Err("The Authorization header is not a bearer key"));
        check(&["Bearer first-key", "Bearer first-key"], Err("More than one Authorization header"));
    }

    #[track_caller]
    fn check_certificate(
        common: Option<&str>,
        alternative: Option<SanType>,
        expected: Option<&str>,
    ) {
        let mut params = CertificateParams::default();
        params.distinguished_name = DistinguishedName::new();
        if let Some(name) = common {
            params.distinguished_name.push(DnType::CommonName, name);
        }
        params.subject_alt_names.extend(alternative);
        let certificate = params.self_signed(&KeyPair::generate().expect("a key"));
        let caller = Caller::of_certificate(certificate.expect("a certificate").der());
        assert_eq!(caller.as_ref().map(Caller::name), expected, "{params:?}");
    }

    #[test]
    fn a_certificate_names_its_caller() {
        let text = |name: &str| name.try_into().expect("a name");
        let dns = || Some(SanType::DnsName(text("sender.example")));
        check_certificate(Some("partner"), None, Some("partner"));
        check_certificate(Some("partner"), dns(), Some("partner"));
        check_certificate(None, dns(), Some("sender.example"));
        let uri = SanType::URI(text("spiffe://example/sender"));
        check_certificate(None, Some(uri), Some("spiffe://example/sender"));
        check_certificate(None, Some(SanType::Rfc822Name(text("someone@example.com"))), None);
        check_certificate(None, None, None);
        check_certificate(Some(""), dns(), None);
        check_certificate(Some("two\nlines"), None, None);
        assert!(Caller::of_certificate(b"nonsense").is_none());
    }

    #[track_caller]
    fn check_terms(terms: &Terms, webhook: &str, address: &str, at: &str, expected: &str) {
        let key = Key::new("key", hash_key(b"key"), terms.clone());
        let address = address.parse().expect("an address");
        let received = at.parse().expect("a time");
        let actual = key.admit(webhook, address, received);
        let tag = |r: Rejection| (r.refusal.facts().tag, r.detail);
        let actual =
            actual.map_err(tag).map_or_else(|(tag, why)| format!("{tag}: {why}"), |_| "".into());
        assert_eq!(actual, expected, "{terms:?} {webhook} {address} {at}");
    }

    #[test]
    fn a_key_without_terms_is_good_always_and_everywhere() {
        check_terms(&Terms::default(), "click", "192.0.2.1", "1970-01-01T00:00:00Z", "");
        check_terms(&Terms::default(), "open", "2001:db8::1", "9999-01-01T00:00:00Z", "");
    }

    #[test]
    fn a_key_has_a_life() {
        let time = |text: &str| Some(text.parse().expect("a time"));
        let terms = Terms {
            not_before: time("2026-11-01T00:00:00Z"),
            expires_at: time("2026-12-01T00:00:00-05:00"),
            ..Terms::default()
        };
        let check = |at, expected| check_terms(&terms, "click", "192.0.2.1", at, expected);
        check("2026-10-31T23:59:59.999Z", "unauthorized: The bearer key is not valid yet");
        check("2026-11-01T00:00:00Z", "");
        check("2026-12-01T04:59:59.999Z", "");
        check("2026-12-01T05:00:00Z", "unauthorized: The bearer key has expired");
    }

    #[test]
    fn a_key_has_its_webhooks_and_networks() {
        let nets = ["10.0.0.0/8", "192.0.2.1/32", "2001:db8::/32"];
        let terms = Terms {
            webhooks: Some(vec!["click".into(), "open".into()]),
            networks: Some(nets.map(|net| net.parse().expect("a network")).into()),
            ..Terms::default()
        };
        let check = |webhook, address, expected| {
            check_terms(&terms, webhook, address, "2026-11-24T00:00:00Z", expected);
        };
        check("click", "10.255.0.1", "");
        check("open", "192.0.2.1", "");
        check("click", "2001:db8:1::1", "");
        check("click", "::ffff:10.0.0.1", "");
        check("clic", "10.0.0.1", "forbidden: This key is not for this webhook");
        check("click", "11.0.0.1", "forbidden: This key is not for this address");
        check("click", "192.0.2.2", "forbidden: This key is not for this address");
        check("click", "::1", "forbidden: This key is not for this address");
    }

    #[test]
    fn hashes_are_read_as_they_are_written() {
        let hash = hash_key(b"key");
        assert_eq!(parse_hash(&format_hash(&hash)), Some(hash));
        assert_eq!(parse_hash(&format_hash(&hash).to_uppercase()), Some(hash));
        assert_eq!(parse_hash("12"), None);
        assert_eq!(parse_hash(&"é".repeat(32)), None);
        assert_eq!(parse_hash(&"+f".repeat(32)), None);
    }
}
