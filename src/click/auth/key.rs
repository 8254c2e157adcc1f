//! The keys that may call, and the restrictions of each. Keys are kept as SHA-256, or as what signatures
//! are verified with. Each search compares all of them in constant time.

use std::net::IpAddr;
use std::sync::Arc;

use data_encoding::{BASE64, HEXLOWER, HEXLOWER_PERMISSIVE};
use ipnet::IpNet;
use jiff::Timestamp;
use ring::hmac;
use ring::signature::{ECDSA_P256_SHA256_ASN1, ED25519, UnparsedPublicKey, VerificationAlgorithm};
use sha2::{Digest, Sha256};
use subtle::{Choice, ConditionallySelectable, ConstantTimeEq};

use super::{Caller, Signature, SignatureAlgorithm, refuse, standard_webhooks};
use crate::click::outcome::{Refusal, Rejection};

/// The SHA-256 of a key.
pub type KeyHash = [u8; 32];

/// The hash under which a key is kept.
pub fn hash_key(key: &[u8]) -> KeyHash {
    Sha256::digest(key).into()
}

/// Reads a hash from the 64 hexadecimal digits of the config.
pub fn parse_hash(hex: &str) -> Option<KeyHash> {
    HEXLOWER_PERMISSIVE.decode(hex.as_bytes()).ok()?.try_into().ok()
}

/// Writes a hash as the config reads it.
pub fn format_hash(hash: &KeyHash) -> String {
    HEXLOWER.encode(hash)
}

/// What a SubjectPublicKeyInfo (RFC 5280) on the curve P-256 begins with; the point follows.
const P256_INFO: &[u8] =
    b"\x30\x59\x30\x13\x06\x07\x2a\x86\x48\xce\x3d\x02\x01\x06\x08\x2a\x86\x48\xce\x3d\x03\x01\x07\x03\x42\x00";

/// What one of an Ed25519 key begins with (RFC 8410); the key follows.
const ED25519_INFO: &[u8] = b"\x30\x2a\x30\x05\x06\x03\x2b\x65\x70\x03\x21\x00";

/// What a public key of Standard Webhooks begins with; an Ed25519 key in base64 follows.
const STANDARD_PREFIX: &str = "whpk_";

/// The public half of a pair.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PublicKey {
    /// A point on the curve P-256, in the long form.
    P256(Vec<u8>),
    Ed25519([u8; 32]),
}

impl PublicKey {
    pub fn bytes(&self) -> &[u8] {
        match self {
            PublicKey::P256(point) => point,
            PublicKey::Ed25519(key) => key,
        }
    }
}

/// Reads a public key: a SubjectPublicKeyInfo in base64, with or without the lines of PEM around it, or as
/// Standard Webhooks writes it. None for any other key.
pub fn parse_public_key(text: &str) -> Option<PublicKey> {
    let ed25519 = |key: &[u8]| key.try_into().ok().map(PublicKey::Ed25519);
    if let Some(key) = text.trim().strip_prefix(STANDARD_PREFIX) {
        return ed25519(&BASE64.decode(key.as_bytes()).ok()?);
    }
    let lines = text.lines().map(str::trim).filter(|line| !line.starts_with("-----"));
    let der = BASE64.decode(lines.collect::<String>().as_bytes()).ok()?;
    if let Some(key) = der.strip_prefix(ED25519_INFO) {
        return ed25519(key);
    }
    let point = der.strip_prefix(P256_INFO)?;
    (point.len() == 65 && point[0] == 4).then(|| PublicKey::P256(point.to_vec()))
}

/// The keys that may call.
#[derive(Debug, Clone, Default)]
pub struct Keys(Vec<Key>);

/// A key that may call.
#[derive(Debug, Clone)]
pub struct Key {
    name: Arc<str>,
    /// None for a public key, which proves nothing by being shown.
    hash: Option<KeyHash>,
    /// What signatures are verified with, where more than the hash is known.
    verifier: Option<Verifier>,
    restrictions: Restrictions,
}

/// What signatures are verified with.
#[derive(Debug, Clone)]
pub(super) enum Verifier {
    /// The secret that they are made with.
    Secret(Box<Secret>),
    PublicKey(PublicKey),
}

/// A secret as each algorithm uses it.
#[derive(Debug, Clone)]
pub(super) struct Secret {
    sha256: hmac::Key,
    sha1: hmac::Key,
    /// None where it is not the base64 of Standard Webhooks.
    standard: Option<hmac::Key>,
}

impl Verifier {
    /// What makes an HMAC of this kind, if this does.
    pub fn hmac_key(&self, algorithm: SignatureAlgorithm) -> Option<&hmac::Key> {
        let Verifier::Secret(secret) = self else { return None };
        match algorithm {
            SignatureAlgorithm::HmacSha256 => Some(&secret.sha256),
            SignatureAlgorithm::HmacSha1 => Some(&secret.sha1),
            SignatureAlgorithm::StandardHmac => secret.standard.as_ref(),
            SignatureAlgorithm::EcdsaP256 | SignatureAlgorithm::Ed25519 => None,
        }
    }

    /// What verifies a signature of this kind, if this does.
    pub fn public_key(&self, algorithm: SignatureAlgorithm) -> Option<UnparsedPublicKey<&[u8]>> {
        let Verifier::PublicKey(key) = self else { return None };
        let kind: &'static dyn VerificationAlgorithm = match (algorithm, key) {
            (SignatureAlgorithm::EcdsaP256, PublicKey::P256(_)) => &ECDSA_P256_SHA256_ASN1,
            (SignatureAlgorithm::Ed25519, PublicKey::Ed25519(_)) => &ED25519,
            _ => return None,
        };
        Some(UnparsedPublicKey::new(kind, key.bytes()))
    }
}

/// When and where a key may be used; by default always and everywhere.
#[derive(Debug, Clone, Default)]
pub struct Restrictions {
    pub not_before: Option<Timestamp>,
    /// From then on it may not be used.
    pub expires_at: Option<Timestamp>,
    /// The names of its webhooks.
    pub webhooks: Option<Vec<String>>,
    /// The networks of its senders.
    pub networks: Option<Vec<IpNet>>,
}

impl Keys {
    pub fn new(keys: impl IntoIterator<Item = Key>) -> Keys {
        Keys(keys.into_iter().collect())
    }

    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.0.iter().map(|key| &*key.name)
    }

    /// Finds a key by its hash. Only [`Key::admit`] says whether it may be used.
    ///
    /// # Errors
    ///
    /// [`Refusal::Unauthorized`].
    pub fn find(&self, hash: &KeyHash) -> Result<&Key, Rejection> {
        let key = self.search(|key| key.hash.map_or(Choice::from(0), |known| hash.ct_eq(&known)));
        key.ok_or_else(|| refuse("The key is not known"))
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
        let key = self.search(|key| match &key.verifier {
            Some(verifier) if key.is_for(webhook) => signature.is_by(verifier, body),
            _ => Choice::from(0),
        });
        key.ok_or_else(|| refuse("No key made the signature of this body"))
    }

    /// The key that matches, found in a time that does not depend on its place.
    fn search(&self, matches: impl Fn(&Key) -> Choice) -> Option<&Key> {
        let mut is_found = Choice::from(0);
        let mut position = 0u32;
        for (index, key) in self.0.iter().enumerate() {
            let is_it = matches(key);
            position.conditional_assign(&(index as u32), is_it);
            is_found |= is_it;
        }
        bool::from(is_found).then(|| &self.0[position as usize])
    }
}

impl Key {
    /// A key that is known by its hash alone, and so can verify no signature.
    pub fn new(name: &str, hash: KeyHash, restrictions: Restrictions) -> Key {
        Key { name: name.into(), hash: Some(hash), verifier: None, restrictions }
    }

    /// A key whose text is known: it can be sent, or sign.
    pub fn of_secret(name: &str, secret: &[u8], restrictions: Restrictions) -> Key {
        let key = |algorithm, secret: &[u8]| hmac::Key::new(algorithm, secret);
        let text = std::str::from_utf8(secret).unwrap_or_default();
        let verifier = Verifier::Secret(Box::new(Secret {
            sha256: key(hmac::HMAC_SHA256, secret),
            sha1: key(hmac::HMAC_SHA1_FOR_LEGACY_USE_ONLY, secret),
            standard: standard_webhooks::secret_key(text)
                .map(|secret| key(hmac::HMAC_SHA256, &secret)),
        }));
        Key { verifier: Some(verifier), ..Key::new(name, hash_key(secret), restrictions) }
    }

    /// The public half of a pair, as [`parse_public_key`] reads it.
    pub fn of_public_key(name: &str, key: PublicKey, restrictions: Restrictions) -> Key {
        let verifier = Some(Verifier::PublicKey(key));
        Key { name: name.into(), hash: None, verifier, restrictions }
    }

    pub fn name(&self) -> &Arc<str> {
        &self.name
    }

    /// Whether signatures of this kind can be verified with it.
    pub fn verifies(&self, algorithm: SignatureAlgorithm) -> bool {
        let verifier = self.verifier.as_ref();
        verifier.is_some_and(|verifier| {
            verifier.hmac_key(algorithm).is_some() || verifier.public_key(algorithm).is_some()
        })
    }

    fn is_for(&self, webhook: &str) -> bool {
        let webhooks = self.restrictions.webhooks.as_ref();
        webhooks.is_none_or(|names| names.iter().any(|name| name == webhook))
    }

    /// Whether it had expired when a request was received.
    pub fn has_expired(&self, received: Timestamp) -> bool {
        self.restrictions.expires_at.is_some_and(|end| received >= end)
    }

    /// The caller, if the key may be used for this webhook, from this address, at this time.
    ///
    /// # Errors
    ///
    /// [`Refusal::Unauthorized`] before or after the key's validity, [`Refusal::Forbidden`] for another
    /// webhook or from another network. The detail may be precise: its reader has the key.
    pub fn admit(
        &self,
        webhook: &str,
        address: IpAddr,
        received: Timestamp,
    ) -> Result<Caller, Rejection> {
        let Restrictions { not_before, networks, .. } = &self.restrictions;
        if not_before.is_some_and(|begin| received < begin) {
            return Err(refuse("The key is not valid yet"));
        }
        if self.has_expired(received) {
            return Err(refuse("The key has expired"));
        }
        if !self.is_for(webhook) {
            return Err(Refusal::Forbidden.detailed("This key is not for this webhook"));
        }
        // A socket of both families shows an IPv4 sender with an IPv6 address.
        let address = address.to_canonical();
        if networks.as_ref().is_some_and(|nets| !nets.iter().any(|net| net.contains(&address))) {
            return Err(Refusal::Forbidden.detailed("This key is not for this address"));
        }
        Ok(Caller { name: self.name.clone() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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
