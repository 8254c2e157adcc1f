//! Authentication: an [`AuthScheme`] makes a [`Claim`] of a request's head, the claim finds a [`Key`], and
//! the key makes a [`Caller`], unless its [`Restrictions`] forbid it; else the request ends with 401 or
//! 403. A client certificate makes a caller by itself.
//!
//! - `auth/scheme.rs`: what the head of a request claims.
//! - `auth/signature.rs`: claims that need the body, because it is signed.
//! - `auth/standard_webhooks.rs`: the signatures of Standard Webhooks. `auth/form_signature.rs`: of forms.
//! - `auth/key.rs`: the keys, their restrictions, and the search for one.
//! - `auth/sns.rs`: messages of Amazon SNS, which are signed with certificates.

mod form_signature;
mod key;
mod scheme;
mod signature;
pub mod sns;
mod standard_webhooks;

use std::borrow::Cow;
use std::fmt::Display;
use std::sync::Arc;

use hyper::HeaderMap;
use hyper::header::AsHeaderName;
use x509_parser::extensions::GeneralName;

use super::outcome::{Refusal, Rejection};

pub use form_signature::FormSigning;
pub use key::{
    Key, KeyHash, Keys, PublicKey, Restrictions, format_hash, hash_key, parse_hash,
    parse_public_key,
};
pub use scheme::{AuthScheme, Claim};
pub use signature::{Encoding, Signature, SignatureAlgorithm, SignedText, Signing, read_mailgun};

/// An authenticated caller. For a request only [`Key::admit`], [`Caller::of_certificate`] and
/// [`sns::Message::verify`] make one.
#[derive(Debug, Clone)]
pub struct Caller {
    name: Arc<str>,
}

impl Caller {
    /// The caller that a verified certificate names: by its common name, else by its first DNS name or
    /// URI. None if it has none of them, or one that cannot be printed.
    pub fn of_certificate(der: &[u8]) -> Option<Caller> {
        let (_, certificate) = x509_parser::parse_x509_certificate(der).ok()?;
        let common = certificate.subject().iter_common_name().next();
        let alternative = certificate.subject_alternative_name().ok().flatten();
        let mut names = alternative.iter().flat_map(|names| &names.value.general_names);
        let alternative = names.find_map(|name| match name {
            GeneralName::DNSName(name) | GeneralName::URI(name) => Some(*name),
            _ => None,
        });
        let name = common.and_then(|name| name.as_str().ok()).or(alternative)?;
        let is_printable = !name.is_empty() && !name.chars().any(char::is_control);
        is_printable.then(|| Caller { name: name.into() })
    }

    /// The name of the key or topic, as configured, or of the certificate: safe to log.
    pub fn name(&self) -> &Arc<str> {
        &self.name
    }

    /// The caller that a record in Kafka names, which was authenticated when the record was made.
    pub fn named(name: &str) -> Caller {
        Caller { name: name.into() }
    }
}

/// The value of the header of this name, which must be there once.
fn only<N: AsHeaderName + Display + Copy>(
    headers: &HeaderMap,
    name: N,
) -> Result<&[u8], Rejection> {
    let mut values = headers.get_all(name).iter();
    match (values.next(), values.next()) {
        (Some(value), None) => Ok(value.as_bytes()),
        (None, _) => Err(refuse(format!("The header {name} is missing"))),
        (Some(_), Some(_)) => Err(refuse(format!("There is more than one header {name}"))),
    }
}

fn refuse(detail: impl Into<Cow<'static, str>>) -> Rejection {
    Refusal::Unauthorized.detailed(detail)
}

#[cfg(test)]
mod tests {
    use rcgen::{CertificateParams, DistinguishedName, DnType, KeyPair, SanType};

    use super::*;

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
        assert_eq!(caller.as_ref().map(|caller| &**caller.name()), expected, "{params:?}");
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
}
