//! Who calls: what a request brings by the [`AuthScheme`] of its webhook names a [`Key`], and the key makes a
//! [`Caller`] where and when it may be used; else the request ends with 401 or 403. Where senders show
//! certificates, those name the caller.
//!
//! Keys are kept as SHA-256, or as what signatures are made with, and compared in constant time, all of
//! them, whatever the first ones say. A body is only ever signed over.
//!
//! `auth/sns.rs` is for the one sender whose messages are signed with certificates.

mod scheme;
pub mod sns;

use std::net::IpAddr;
use std::sync::Arc;

use data_encoding::BASE64;
use ipnet::IpNet;
use jiff::Timestamp;
use ring::hmac;
use sha2::{Digest, Sha256};
use subtle::{Choice, ConditionallySelectable, ConstantTimeEq};
use x509_parser::extensions::GeneralName;
use x509_parser::oid_registry::{OID_EC_P256, OID_KEY_TYPE_EC_PUBLIC_KEY};
use x509_parser::prelude::FromDer;
use x509_parser::x509::SubjectPublicKeyInfo;

use crate::click::outcome::{Refusal, Rejection};

pub use scheme::{
    AuthScheme, Claim, Encoding, Signature, SignatureAlgorithm, SignedPart, Signing, read_mailgun,
};

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
    /// None for a public key: who shows that has shown nothing.
    hash: Option<KeyHash>,
    /// What signatures are judged by, where more than the hash is known.
    signer: Option<Signer>,
    terms: Restrictions,
}

/// What signatures are judged by.
#[derive(Debug, Clone)]
pub enum Signer {
    /// What they are made with.
    Secret(hmac::Key),
    /// A point on the curve P-256, in the long form.
    PublicKey(Vec<u8>),
}

/// Reads a public key for [`Signer::PublicKey`]: a SubjectPublicKeyInfo (RFC 5280) in base64, with or
/// without the lines of PEM around it. None if it is no key on the curve P-256.
pub fn parse_public_key(text: &str) -> Option<Vec<u8>> {
    let lines = text.lines().map(str::trim).filter(|line| !line.starts_with("-----"));
    let der = BASE64.decode(lines.collect::<String>().as_bytes()).ok()?;
    let (rest, info) = SubjectPublicKeyInfo::from_der(&der).ok()?;
    let curve = info.algorithm.parameters.as_ref()?.as_oid().ok()?;
    let is_ours = rest.is_empty()
        && info.algorithm.algorithm == OID_KEY_TYPE_EC_PUBLIC_KEY
        && curve == OID_EC_P256;
    let point = info.subject_public_key.data;
    (is_ours && point.len() == 65 && point[0] == 4).then(|| point.to_vec())
}

/// When and where a key may be used; by default always and everywhere.
#[derive(Debug, Clone, Default)]
pub struct Restrictions {
    pub not_before: Option<Timestamp>,
    /// From then on it may not.
    pub expires_at: Option<Timestamp>,
    /// The names of its webhooks.
    pub webhooks: Option<Vec<String>>,
    /// The networks of its senders.
    pub networks: Option<Vec<IpNet>>,
}

/// An authenticated caller. For a request only [`Key::admit`], [`Caller::of_certificate`] and
/// [`Message::verify`] make one.
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

    /// The name of the key or topic, as configured, or of the certificate: safe to log.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The same, to keep.
    pub fn shared_name(&self) -> Arc<str> {
        self.name.clone()
    }

    /// Whom a record in Kafka names: it was authenticated when the record was made.
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

    /// Finds a key by its hash. It is known; whether it may be used is another question.
    ///
    /// # Errors
    ///
    /// [`Refusal::Unauthorized`].
    pub fn find(&self, hash: &KeyHash) -> Result<&Key, Rejection> {
        let key = self.only(|key| key.hash.map_or(Choice::from(0), |known| hash.ct_eq(&known)));
        key.ok_or_else(|| Refusal::Unauthorized.detailed("The key is not known"))
    }

    /// Finds the key that made a signature over this body, among those for this webhook.
    ///
    /// # Errors
    ///
    /// [`Refusal::Unauthorized`].
    pub fn find_signer(
        &self,
        signature: &Signature,
        body: &[u8],
        webhook: &str,
    ) -> Result<&Key, Rejection> {
        let key = self.only(|key| match &key.signer {
            Some(signer) if key.is_for(webhook) => signature.is_by(signer, body),
            _ => Choice::from(0),
        });
        key.ok_or_else(|| Refusal::Unauthorized.detailed("No key made the signature of this body"))
    }

    /// The key that matches. All of them are asked.
    fn only(&self, matches: impl Fn(&Key) -> Choice) -> Option<&Key> {
        let mut known = Choice::from(0);
        let mut position = 0u32;
        for (index, key) in self.0.iter().enumerate() {
            let equal = matches(key);
            position.conditional_assign(&(index as u32), equal);
            known |= equal;
        }
        bool::from(known).then(|| &self.0[position as usize])
    }
}

impl Key {
    /// A key that signs nothing.
    pub fn new(name: &str, hash: KeyHash, terms: Restrictions) -> Key {
        Key { name: name.into(), hash: Some(hash), signer: None, terms }
    }

    /// One whose text is known, so that it may sign, too.
    pub fn of_secret(name: &str, secret: &[u8], terms: Restrictions) -> Key {
        let signer = Signer::Secret(hmac::Key::new(hmac::HMAC_SHA256, secret));
        Key { signer: Some(signer), ..Key::new(name, hash_key(secret), terms) }
    }

    /// The public half of a pair, as [`parse_public_key`] reads it.
    pub fn of_public_key(name: &str, point: Vec<u8>, terms: Restrictions) -> Key {
        Key { name: name.into(), hash: None, signer: Some(Signer::PublicKey(point)), terms }
    }

    /// Its name, to keep.
    pub fn shared_name(&self) -> Arc<str> {
        self.name.clone()
    }

    fn is_for(&self, webhook: &str) -> bool {
        self.terms.webhooks.as_ref().is_none_or(|names| names.iter().any(|name| name == webhook))
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
        let Restrictions { not_before, networks, .. } = &self.terms;
        if not_before.is_some_and(|begin| received < begin) {
            return Err(Refusal::Unauthorized.detailed("The key is not valid yet"));
        }
        if self.has_expired(received) {
            return Err(Refusal::Unauthorized.detailed("The key has expired"));
        }
        if !self.is_for(webhook) {
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

#[cfg(test)]
mod tests {
    use hyper::HeaderMap;
    use hyper::header::HeaderName;
    use jiff::SignedDuration;
    use rcgen::{CertificateParams, DistinguishedName, DnType, KeyPair, SanType};

    use super::*;

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
        let found = found.as_ref().map(|key| &*key.name).map_err(|r| r.detail.as_ref());
        assert_eq!(found, expected, "{scheme:?} {path} {headers:?}");
    }

    fn header_map(headers: &[(&str, &str)]) -> HeaderMap {
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
        check("/click/first-key/", Err("The key is empty"));
        check("/click", Err("The key is not known"));
        check("/first-key/click", Err("The key is not known"));
    }

    /// Who signed, or why nobody did. The signatures are those of
    /// `printf '%s' "$signed" | openssl dgst -sha256 -hmac "$secret"`, in base64 with `-binary | base64`.
    #[track_caller]
    fn check_signature(signing: Signing, headers: &[(&str, &str)], body: &str, expected: &str) {
        let other = Restrictions { webhooks: Some(vec!["open".into()]), ..Restrictions::default() };
        let keys = Keys::new([
            Key::new("hashed", hash_key(b"secret-1"), Restrictions::default()),
            Key::of_secret("elsewhere", b"secret-1", other),
            Key::of_secret("one", b"secret-1", Restrictions::default()),
            Key::of_secret("two", b"secret-2", Restrictions::default()),
        ]);
        let scheme = AuthScheme::Signed(signing);
        let headers = header_map(headers);
        let received = "2026-11-24T12:00:00.123Z".parse().expect("a time");
        let found = match scheme.claim(&headers, "/secret-1", received) {
            Ok(Claim::Signature(signature)) => {
                keys.find_signer(&signature, body.as_bytes(), "click")
            }
            Ok(_) => panic!("no signature"),
            Err(rejection) => Err(rejection),
        };
        let found = found.as_ref().map_or_else(|r| r.detail.as_ref(), |key| &key.name);
        assert_eq!(found, expected, "{headers:?} {body}");
    }

    fn signing(encoding: Encoding, prefix: &str, signed: &str) -> Signing {
        let is_timed = signed.contains("{timestamp}");
        Signing {
            algorithm: SignatureAlgorithm::HmacSha256,
            header: HeaderName::from_static("x-signature"),
            prefix: prefix.into(),
            encoding,
            signed: SignedPart::parse(signed).expect("parts"),
            timestamp_header: is_timed.then_some(HeaderName::from_static("x-time")),
            tolerance: SignedDuration::from_secs(300),
        }
    }

    #[test]
    fn a_signature_of_the_body_opens() {
        let hex = |prefix, value: &str, body, expected: &str| {
            let headers = [("X-Signature", value)];
            check_signature(signing(Encoding::Hex, prefix, "{body}"), &headers, body, expected);
        };
        let body = "{\"campid\":7}\r\n";
        let by_one = "43ea22952ca46f152b48ce2fab913872d1fc1d7dbfbc4c7751a7c06d19c951ca";
        let by_two = "dc94c931c7bdd56795326627267dccee95ff885f2913490f201abf2160bdc4ed";
        hex("", by_one, body, "one");
        hex("", &by_one.to_uppercase(), body, "one");
        hex("", by_two, body, "two");
        hex("sha256=", &format!("sha256={by_two}"), body, "two");
        hex("", by_one, "{\"campid\":7}\n", "No key made the signature of this body");
        hex("", &by_one.replace('4', "0"), body, "No key made the signature of this body");
        let form = "The signature does not have the configured form";
        hex("", &by_one[2..], body, form);
        hex("", &format!("{by_one}00"), body, form);
        hex("", &format!("sha256={by_one}"), body, form);
        hex("sha256=", by_one, body, form);
        hex("", "", body, form);
        let base64 = |value, expected: &str| {
            let signing = signing(Encoding::Base64, "", "{body}");
            check_signature(signing, &[("x-signature", value)], body, expected);
        };
        base64("Q+oilSykbxUrSM4vq5E4ctH8HX2/vEx3UafAbRnJUco=", "one");
        base64("Q+oilSykbxUrSM4vq5E4ctH8HX2/vEx3UafAbRnJUco=".trim_end_matches('='), form);
        base64(by_one, form);
        let plain = || signing(Encoding::Hex, "", "{body}");
        check_signature(plain(), &[], body, "The header x-signature is missing");
        let twice = [("x-signature", by_one), ("x-signature", by_one)];
        check_signature(plain(), &twice, body, "There is more than one header x-signature");
    }

    #[test]
    fn a_signature_with_a_timestamp_opens_for_a_while() {
        let check = |time: &str, signature, expected: &str| {
            let signing = signing(Encoding::Hex, "v0=", "v0:{timestamp}:{body}");
            let headers = [("x-signature", signature), ("x-time", time)];
            let headers = &headers[..if time.is_empty() { 1 } else { 2 }];
            check_signature(signing, headers, "{}", expected);
        };
        let now = "v0=bfd8a0f5cd3c31a825503f37dc1999850cdf4747aad0d1c2fdf32d99741bba1b";
        check("1795521600", now, "one");
        check("1795521601", now, "No key made the signature of this body");
        check(
            "1795521600123",
            "v0=1bf013f1867e88edbc4e36e952b88580f4bfe0d343afc423e3576882b8a55e4a",
            "one",
        );
        // Five minutes before receipt, and a millisecond more than that.
        check(
            "1795521300123",
            "v0=8833153857493039b39972a81a6cb95750c8dba3db1a9973a3ead0096e9fa9cb",
            "one",
        );
        let far = "The timestamp is too far from the time of receipt";
        check("1795521300122", now, far);
        check("1795521300", now, far);
        check("1795521901", now, far);
        check("0", now, far);
        check("-1795521600", now, far);
        check("9223372036854775807", now, "The timestamp is no Unix time and no date");
        check("yesterday", now, "The timestamp is no Unix time and no date");
        // Its form is good, the signature is of another time.
        check("2026-11-24T12:00:00Z", now, "No key made the signature of this body");
        check("Tue, 24 Nov 2026 12:00:00 GMT", now, "No key made the signature of this body");
        check("Tue, 24 Nov 2026 11:00:00 GMT", now, far);
        check("", now, "The header x-time is missing");
    }

    #[test]
    fn what_is_signed_is_read_as_it_is_meant() {
        let text = |text: &str| SignedPart::Text(text.into());
        for (template, parts) in [
            ("{body}", Some(vec![SignedPart::Body])),
            ("{timestamp}.{body}", Some(vec![SignedPart::Timestamp, text("."), SignedPart::Body])),
            (
                "v0:{body}{timestamp}!",
                Some(vec![text("v0:"), SignedPart::Body, SignedPart::Timestamp, text("!")]),
            ),
            ("", Some(vec![])),
            ("{id}.{body}", None),
            ("{body", None),
        ] {
            assert_eq!(SignedPart::parse(template), parts, "{template}");
        }
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
    fn check_terms(terms: &Restrictions, webhook: &str, address: &str, at: &str, expected: &str) {
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
        check_terms(&Restrictions::default(), "click", "192.0.2.1", "1970-01-01T00:00:00Z", "");
        check_terms(&Restrictions::default(), "open", "2001:db8::1", "9999-01-01T00:00:00Z", "");
    }

    #[test]
    fn a_key_has_a_life() {
        let time = |text: &str| Some(text.parse().expect("a time"));
        let terms = Restrictions {
            not_before: time("2026-11-01T00:00:00Z"),
            expires_at: time("2026-12-01T00:00:00-05:00"),
            ..Restrictions::default()
        };
        let check = |at, expected| check_terms(&terms, "click", "192.0.2.1", at, expected);
        check("2026-10-31T23:59:59.999Z", "unauthorized: The key is not valid yet");
        check("2026-11-01T00:00:00Z", "");
        check("2026-12-01T04:59:59.999Z", "");
        check("2026-12-01T05:00:00Z", "unauthorized: The key has expired");
    }

    #[test]
    fn a_key_has_its_webhooks_and_networks() {
        let nets = ["10.0.0.0/8", "192.0.2.1/32", "2001:db8::/32"];
        let terms = Restrictions {
            webhooks: Some(vec!["click".into(), "open".into()]),
            networks: Some(nets.map(|net| net.parse().expect("a network")).into()),
            ..Restrictions::default()
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
