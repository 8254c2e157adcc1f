//! Signatures made with a key: in a header, of a form that the webhook sets, or in the body as Mailgun
//! does it.

use data_encoding::{BASE64, HEXLOWER_PERMISSIVE};
use hyper::HeaderMap;
use hyper::header::HeaderName;
use jiff::fmt::rfc2822;
use jiff::{SignedDuration, Timestamp};
use ring::hmac;
use serde::{Deserialize, Serialize};
use subtle::{Choice, ConstantTimeEq};

use super::key::Verifier;
use super::{only, refuse};
use crate::click::outcome::Rejection;

/// How requests are signed.
#[derive(Debug)]
pub struct Signing {
    pub algorithm: SignatureAlgorithm,
    /// Where the signature is.
    pub header: HeaderName,
    /// The text before it there, such as `sha256=`.
    pub prefix: String,
    pub encoding: Encoding,
    pub signed: SignedText,
    /// Has the time of signing, if that is signed: Unix time in seconds or milliseconds, or a date of
    /// RFC 3339 or of HTTP.
    pub timestamp_header: Option<HeaderName>,
    /// How far the time of signing may be from the time of receipt.
    pub tolerance: SignedDuration,
}

/// What makes a signature.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SignatureAlgorithm {
    /// HMAC with SHA-256, by a secret that both sides know (RFC 2104).
    HmacSha256,
    /// ECDSA on the curve P-256 with SHA-256, in ASN.1; the bridge has only the public key (FIPS 186-5).
    EcdsaP256,
    /// HMAC with SHA-1, as some sign forms.
    HmacSha1,
    /// HMAC with SHA-256, by a secret in base64, as Standard Webhooks has it (`v1`).
    StandardHmac,
    /// Ed25519 (RFC 8032), of Standard Webhooks too (`v1a`).
    Ed25519,
}

/// How a signature is written.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Encoding {
    /// In lower or upper case.
    #[default]
    Hex,
    /// With padding (RFC 4648, section 4).
    Base64,
}

/// The signed text, as the parts of a template before and after the body.
#[derive(Debug)]
pub struct SignedText {
    before: String,
    after: String,
}

/// Stands for the value of the timestamp's header, as it was sent.
const TIMESTAMP: &str = "{timestamp}";

impl SignedText {
    /// Reads a template such as `v0:{timestamp}:{body}`. None unless it has `{body}` once, `{timestamp}` at
    /// most once, and no other brace that opens.
    pub fn parse(template: &str) -> Option<SignedText> {
        let (before, after) = template.split_once("{body}")?;
        let rest = format!("{before} {after}").replacen(TIMESTAMP, " ", 1);
        let is_right = !rest.contains('{');
        is_right.then(|| SignedText { before: before.to_owned(), after: after.to_owned() })
    }

    pub fn has_timestamp(&self) -> bool {
        self.before.contains(TIMESTAMP) || self.after.contains(TIMESTAMP)
    }
}

/// A signature as it was sent, and what is signed before and after the body.
#[derive(Debug)]
pub struct Signature {
    /// Any of them proves the sender. Those that are HMACs have one algorithm.
    tags: Vec<(SignatureAlgorithm, Vec<u8>)>,
    before: String,
    after: String,
    /// Whether the body as it came is between the two.
    has_body: bool,
    /// Signed in place of the event. It must be new, or anybody who has seen the signature could send it
    /// again with another event.
    pub token: Option<String>,
}

impl Signature {
    /// Signatures of a body and of a text before it.
    pub(super) fn new(tags: Vec<(SignatureAlgorithm, Vec<u8>)>, before: String) -> Signature {
        Signature { tags, before, after: String::new(), has_body: true, token: None }
    }

    /// A signature of a text that is made of the body.
    pub(super) fn of_text(algorithm: SignatureAlgorithm, tag: Vec<u8>, text: String) -> Signature {
        Signature { has_body: false, ..Signature::new(vec![(algorithm, tag)], text) }
    }

    /// Whether it was made with this key, over this body.
    pub(super) fn is_by(&self, verifier: &Verifier, body: &[u8]) -> Choice {
        let body = if self.has_body { body } else { &[] };
        let signed = [self.before.as_bytes(), body, self.after.as_bytes()];
        let mac_by = |key| {
            let mut context = hmac::Context::with_key(key);
            signed.iter().for_each(|part| context.update(part));
            context.sign()
        };
        let (mut mac, mut text) = (None, None);
        let mut is_found = Choice::from(0);
        for (algorithm, tag) in &self.tags {
            if let Some(key) = verifier.hmac_key(*algorithm) {
                is_found |= mac.get_or_insert_with(|| mac_by(key)).as_ref().ct_eq(tag);
            } else if let Some(key) = verifier.public_key(*algorithm) {
                let text = text.get_or_insert_with(|| signed.concat());
                is_found |= Choice::from(u8::from(key.verify(text, tag).is_ok()));
            }
        }
        is_found
    }
}

/// Reads the signature in a body of Mailgun, which is over a time and a token, and checks the time.
///
/// # Errors
///
/// `Refusal::Unauthorized`.
pub fn read_mailgun(
    body: &[u8],
    tolerance: SignedDuration,
    received: Timestamp,
) -> Result<Signature, Rejection> {
    #[derive(Deserialize)]
    struct MailgunBody {
        signature: MailgunSignature,
    }
    #[derive(Deserialize)]
    struct MailgunSignature {
        timestamp: String,
        token: String,
        signature: String,
    }
    let form = || refuse("The body has no signature with timestamp, token and signature");
    let sent: MailgunBody = serde_json::from_slice(body).map_err(|_| form())?;
    let MailgunSignature { timestamp, token, signature } = sent.signature;
    check_time(&timestamp, tolerance, received)?;
    let tag = Encoding::Hex.decode(signature.as_bytes()).ok_or_else(form)?;
    let text = format!("{timestamp}{token}");
    let signature = Signature::of_text(SignatureAlgorithm::HmacSha256, tag, text);
    Ok(Signature { token: Some(token), ..signature })
}

impl Signing {
    /// Reads the signature of a request, and checks its form and time.
    pub(super) fn read(
        &self,
        headers: &HeaderMap,
        received: Timestamp,
    ) -> Result<Signature, Rejection> {
        let algorithm = self.algorithm;
        let sent = only(headers, &self.header)?.strip_prefix(self.prefix.as_bytes());
        let tag = sent
            .and_then(|text| self.encoding.decode(text))
            .filter(|tag| algorithm != SignatureAlgorithm::HmacSha256 || tag.len() == 32)
            .ok_or_else(|| refuse("The signature does not have the configured form"))?;
        let mut timestamp = "";
        if let Some(name) = &self.timestamp_header {
            timestamp = std::str::from_utf8(only(headers, name)?).unwrap_or_default();
            check_time(timestamp, self.tolerance, received)?;
        }
        let before = self.signed.before.replace(TIMESTAMP, timestamp);
        let after = self.signed.after.replace(TIMESTAMP, timestamp);
        Ok(Signature { after, ..Signature::new(vec![(algorithm, tag)], before) })
    }
}

impl Encoding {
    pub(super) fn decode(self, text: &[u8]) -> Option<Vec<u8>> {
        match self {
            Encoding::Hex => HEXLOWER_PERMISSIVE.decode(text).ok(),
            Encoding::Base64 => BASE64.decode(text).ok(),
        }
    }
}

/// Checks that a time of signing is near the time of receipt.
pub(super) fn check_time(
    text: &str,
    tolerance: SignedDuration,
    received: Timestamp,
) -> Result<(), Rejection> {
    let time = signing_time(text);
    let time = time.ok_or_else(|| refuse("The timestamp is no Unix time and no date"))?;
    if received.duration_since(time).abs() > tolerance {
        return Err(refuse("The timestamp is too far from the time of receipt"));
    }
    Ok(())
}

/// Unix time, in milliseconds where seconds would be thousands of years away; or a date.
fn signing_time(text: &str) -> Option<Timestamp> {
    match text.parse::<i64>() {
        Ok(number @ ..100_000_000_000) => Timestamp::from_second(number).ok(),
        Ok(number) => Timestamp::from_millisecond(number).ok(),
        Err(_) => {
            let http = || rfc2822::parse(text).ok().map(|date| date.timestamp());
            text.parse().ok().or_else(http)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::click::auth::scheme::tests::header_map;
    use crate::click::auth::{AuthScheme, Claim, Key, Keys, Restrictions, hash_key};

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
        let found = found.as_ref().map_or_else(|r| r.detail.as_ref(), |key| key.name());
        assert_eq!(found, expected, "{headers:?} {body}");
    }

    fn signing(encoding: Encoding, prefix: &str, signed: &str) -> Signing {
        let is_timed = signed.contains("{timestamp}");
        Signing {
            algorithm: SignatureAlgorithm::HmacSha256,
            header: HeaderName::from_static("x-signature"),
            prefix: prefix.into(),
            encoding,
            signed: SignedText::parse(signed).expect("a template"),
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
    fn a_template_has_the_body_once_and_the_timestamp_at_most_once() {
        for (template, parts) in [
            ("{body}", Some(("", ""))),
            ("{timestamp}.{body}", Some(("{timestamp}.", ""))),
            ("v0:{body}{timestamp}!", Some(("v0:", "{timestamp}!"))),
            ("a}{body}}", Some(("a}", "}"))),
            ("", None),
            ("{timestamp}", None),
            ("{body}{body}", None),
            ("{timestamp}{body}{timestamp}", None),
            ("{id}.{body}", None),
            ("{body", None),
            ("{time{body}stamp}", None),
            ("{bo{timestamp}dy}{body}", None),
        ] {
            let signed = SignedText::parse(template);
            let found = signed.as_ref().map(|text| (&*text.before, &*text.after));
            assert_eq!(found, parts, "{template}");
            let is_timed = template.contains("{timestamp}");
            assert!(signed.is_none_or(|text| text.has_timestamp() == is_timed), "{template}");
        }
    }
}
