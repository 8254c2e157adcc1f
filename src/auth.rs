//! Who calls: the `Authorization` header becomes a [`Caller`], or the request ends with 401.
//!
//! Keys are kept as SHA-256 and compared in constant time, all of them, whatever the first ones
//! say. Nothing here sees a body.

use std::sync::Arc;

use hyper::HeaderMap;
use hyper::header::AUTHORIZATION;
use sha2::{Digest, Sha256};
use subtle::{Choice, ConditionallySelectable, ConstantTimeEq};

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
pub struct Keys(Vec<(Arc<str>, KeyHash)>);

/// An authenticated caller. Only [`Keys::authenticate`] makes one.
#[derive(Debug, Clone)]
pub struct Caller {
    name: Arc<str>,
}

impl Caller {
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
    pub fn new(keys: impl IntoIterator<Item = (String, KeyHash)>) -> Keys {
        Keys(keys.into_iter().map(|(name, hash)| (name.into(), hash)).collect())
    }

    /// Finds the caller by its bearer key.
    ///
    /// # Errors
    ///
    /// [`Refusal::Unauthorized`], with a detail that says what is wrong with the header's form but
    /// nothing about the keys.
    pub fn authenticate(&self, headers: &HeaderMap) -> Result<Caller, Rejection> {
        let hash = hash_key(bearer_key(headers)?);
        let mut known = Choice::from(0);
        let mut position = 0u32;
        for (index, (_, expected)) in self.0.iter().enumerate() {
            let equal = hash.ct_eq(expected);
            position.conditional_assign(&(index as u32), equal);
            known |= equal;
        }
        if bool::from(known) {
            Ok(Caller { name: self.0[position as usize].0.clone() })
        } else {
            Err(Refusal::Unauthorized.detailed("The bearer key is not known"))
        }
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
    use super::*;

    #[track_caller]
    fn check(headers: &[&str], expected: Result<&str, &str>) {
        let keys = Keys::new([
            ("old".to_owned(), hash_key(b"first-key")),
            ("new".to_owned(), hash_key(b"second-key")),
        ]);
        let mut map = HeaderMap::new();
        for value in headers {
            map.append(AUTHORIZATION, value.parse().expect("a header value"));
        }
        let actual = keys.authenticate(&map);
        let actual = actual.as_ref().map(Caller::name).map_err(|r| r.detail.as_ref());
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
