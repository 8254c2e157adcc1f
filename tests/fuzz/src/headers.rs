//! Authentication by each auth scheme: an accepted request has the key or the signature in its place.
//! Also `traceparent`, and messages of Amazon SNS, which cause requests to Amazon only.
//!
//! The input: a letter for the scheme, a line with the path, a line for each header, an empty line, and
//! the body.
#![no_main]

use std::sync::LazyLock;

use data_encoding::{BASE64, HEXLOWER};
use hookbridge_fuzz::click::auth::sns::{Sns, Topic};
use hookbridge_fuzz::click::auth::{
    AuthScheme, Claim, Encoding, Key, Keys, PublicKey, Restrictions, Signature, SignatureAlgorithm,
    SignedText, Signing, read_mailgun,
};
use hookbridge_fuzz::click::record::trace_parent;
use hyper::HeaderMap;
use hyper::header::{HeaderName, HeaderValue};
use jiff::{SignedDuration, Timestamp};
use libfuzzer_sys::fuzz_target;
use p256::ecdsa::signature::Verifier;
use p256::ecdsa::{self, SigningKey};
use ring::hmac;
use serde::Deserialize;

const KEY: &str = "k:7";

/// The key of Standard Webhooks: 24 bytes of 7.
const STANDARD_KEY: [u8; 24] = [7; 24];
const STANDARD_SECRET: &str = "whsec_BwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcH";

/// The private key: 32 bytes of 7.
static PAIR: LazyLock<SigningKey> = LazyLock::new(|| SigningKey::from_slice(&[7; 32]).unwrap());

static KEYS: LazyLock<Keys> = LazyLock::new(|| {
    let point = PAIR.verifying_key().to_encoded_point(false).as_bytes().to_vec();
    Keys::new([
        Key::of_secret("name", KEY.as_bytes(), Restrictions::default()),
        Key::of_secret("standard", STANDARD_SECRET.as_bytes(), Restrictions::default()),
        Key::of_public_key("pair", PublicKey::P256(point), Restrictions::default()),
    ])
});

static SCHEMES: LazyLock<[AuthScheme; 9]> = LazyLock::new(|| {
    let signing = |algorithm, encoding, prefix: &str, signed: &str, timestamp_header| Signing {
        algorithm,
        header: HeaderName::from_static("x-signature"),
        prefix: prefix.into(),
        encoding,
        signed: SignedText::parse(signed).unwrap(),
        timestamp_header,
        tolerance: SignedDuration::from_secs(300),
    };
    let time = || Some(HeaderName::from_static("x-time"));
    let hmac = SignatureAlgorithm::HmacSha256;
    [
        AuthScheme::Bearer,
        AuthScheme::Basic,
        AuthScheme::Header(HeaderName::from_static("x-key")),
        AuthScheme::PathSecret,
        AuthScheme::Signed(signing(hmac, Encoding::Hex, "v0=", "{timestamp}.{body}", time())),
        AuthScheme::Signed(signing(hmac, Encoding::Base64, "", "{body}", None)),
        AuthScheme::Mailgun { tolerance: SignedDuration::from_secs(300) },
        AuthScheme::Signed(signing(
            SignatureAlgorithm::EcdsaP256,
            Encoding::Base64,
            "",
            "{timestamp}{body}",
            time(),
        )),
        AuthScheme::StandardWebhooks { tolerance: SignedDuration::from_secs(300) },
    ]
});

/// The settings of Amazon SNS, whose messages are read under any scheme.
static SNS: LazyLock<Sns> = LazyLock::new(|| Sns {
    topics: vec![Topic::parse("arn:aws:sns:a:1:a").unwrap()],
    confirm: true,
    tolerance: SignedDuration::from_secs(300),
});

fn sign(signed: &[u8]) -> Vec<u8> {
    hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, KEY.as_bytes()), signed).as_ref().to_vec()
}

/// The head and the body of an input. Invalid headers are skipped.
fn read(input: &[u8]) -> Option<(&AuthScheme, String, HeaderMap, &[u8])> {
    let (scheme, input) = input.split_first()?;
    let end = input.windows(2).position(|pair| pair == b"\n\n");
    let (head, body) = end.map_or((input, &b""[..]), |end| (&input[..end], &input[end + 2..]));
    let mut lines = head.split(|byte| *byte == b'\n');
    let path = String::from_utf8(lines.next()?.to_vec()).ok()?;
    let mut headers = HeaderMap::new();
    for line in lines {
        let colon = line.iter().position(|byte| *byte == b':')?;
        let name = HeaderName::from_bytes(&line[..colon]);
        let value = HeaderValue::from_bytes(line[colon + 1..].trim_ascii());
        if let (Ok(name), Ok(value)) = (name, value) {
            headers.append(name, value);
        }
    }
    Some((&SCHEMES[usize::from(*scheme) % SCHEMES.len()], path, headers, body))
}

/// The value of the one header of this name.
fn one<'h>(headers: &'h HeaderMap, name: &str) -> Option<&'h [u8]> {
    let values: Vec<_> = headers.get_all(name).iter().collect();
    (values.len() == 1).then(|| values[0].as_bytes())
}

/// The credentials after the scheme's name.
fn behind<'h>(headers: &'h HeaderMap, scheme: &str) -> Option<&'h [u8]> {
    let value = one(headers, "authorization")?;
    let (sent, key) = value.split_at_checked(scheme.len() + 1)?;
    let is_it = sent.to_ascii_lowercase() == [scheme.as_bytes(), b" "].concat();
    is_it.then(|| key.trim_ascii())
}

/// Whether the key, or the signature of the body, is in its place.
fn is_proven(scheme: &AuthScheme, path: &str, headers: &HeaderMap, body: &[u8]) -> bool {
    let key = Some(KEY.as_bytes());
    match scheme {
        AuthScheme::Bearer => behind(headers, "bearer") == key,
        AuthScheme::Basic => {
            behind(headers, "basic") == Some(BASE64.encode(KEY.as_bytes()).as_bytes())
        }
        AuthScheme::Header(name) => one(headers, name.as_str()) == key,
        AuthScheme::PathSecret => path.trim_end_matches('/').split('/').next_back() == Some(KEY),
        AuthScheme::Mailgun { .. } => is_signed_inside(body),
        // It needs a certificate, and there is none here.
        AuthScheme::Sns(_) => false,
        // Its reader is compared in its own tests.
        AuthScheme::Form(_) => false,
        AuthScheme::StandardWebhooks { .. } => is_standard(headers, body),
        AuthScheme::Signed(signing) => {
            let Some(sent) = one(headers, "x-signature") else { return false };
            if signing.timestamp_header.is_none() {
                return sent == BASE64.encode(&sign(body)).as_bytes();
            }
            let Some(time) = one(headers, "x-time") else { return false };
            let number = std::str::from_utf8(time).ok().and_then(|text| text.parse::<i64>().ok());
            let is_signed = match signing.algorithm {
                SignatureAlgorithm::HmacSha256 => {
                    let expected = HEXLOWER.encode(&sign(&[time, b".", body].concat()));
                    let hex = sent.strip_prefix(b"v0=");
                    hex.is_some_and(|hex| hex.to_ascii_lowercase() == expected.as_bytes())
                }
                _ => is_signed_by_pair(sent, &[time, body].concat()),
            };
            // The time of receipt is 0.
            is_signed && number.is_some_and(|number| number.abs() <= 300)
        }
    }
}

/// Whether this is the key's signature, by another implementation than the bridge's.
fn is_signed_by_pair(sent: &[u8], signed: &[u8]) -> bool {
    let signature = BASE64.decode(sent).ok();
    let signature = signature.and_then(|der| ecdsa::Signature::from_der(&der).ok());
    signature.is_some_and(|signature| PAIR.verifying_key().verify(signed, &signature).is_ok())
}

/// Whether one of the signatures is of id, time and body.
fn is_standard(headers: &HeaderMap, body: &[u8]) -> bool {
    let prefix = if headers.contains_key("webhook-id") { "webhook" } else { "svix" };
    let value = |name: &str| std::str::from_utf8(one(headers, &format!("{prefix}-{name}"))?).ok();
    let (Some(id), Some(time), Some(sent)) = (value("id"), value("timestamp"), value("signature"))
    else {
        return false;
    };
    let key = hmac::Key::new(hmac::HMAC_SHA256, &STANDARD_KEY);
    let signed = [format!("{id}.{time}.").as_bytes(), body].concat();
    let expected = format!("v1,{}", BASE64.encode(hmac::sign(&key, &signed).as_ref()));
    let is_known = |text: &&str| {
        let tag = text.strip_prefix("v1,").or_else(|| text.strip_prefix("v1a,"));
        tag.is_some_and(|tag| BASE64.decode(tag.as_bytes()).is_ok())
    };
    let count = sent.split(' ').filter(is_known).count();
    let is_near = time.parse::<i64>().is_ok_and(|time| time.abs() <= 300);
    count <= 8 && is_near && sent.split(' ').any(|text| text == expected)
}

/// The fields that Mailgun signs, each of which is needed. They are read by serde_json, as in the bridge: compared are
/// signature and time.
#[derive(Deserialize)]
struct SignedInside {
    timestamp: String,
    token: String,
    signature: String,
}

#[derive(Deserialize)]
struct MailgunBody {
    signature: SignedInside,
}

/// Whether the body contains a valid signature.
fn is_signed_inside(body: &[u8]) -> bool {
    let Ok(MailgunBody { signature: sent }) = serde_json::from_slice(body) else { return false };
    let signed = [sent.timestamp.as_bytes(), sent.token.as_bytes()].concat();
    let expected = HEXLOWER.encode(&sign(&signed));
    let time = sent.timestamp.parse::<i64>();
    sent.signature.to_ascii_lowercase() == expected && time.is_ok_and(|time| time.abs() <= 300)
}

/// `00-` 32 digits `-` 16 digits `-` 2 digits; neither of the first two is all zeros.
fn is_trace_parent(value: &str) -> bool {
    let digits =
        |text: &str| text.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b));
    let fields = [(0, 2), (3, 35), (36, 52), (53, 55)];
    value.len() >= 55
        && value.is_ascii()
        && fields.iter().all(|(begin, end)| digits(&value[*begin..*end]))
        && [2, 35, 52].iter().all(|place| value.as_bytes()[*place] == b'-')
        && &value[..2] != "ff"
        && value[3..35].trim_matches('0') != ""
        && value[36..52].trim_matches('0') != ""
        && (value.len() == 55 || (&value[..2] != "00" && value.as_bytes()[55] == b'-'))
}

fn is_signed(signature: &Signature, body: &[u8]) -> bool {
    KEYS.find_signer(signature, body, "click").is_ok()
}

fuzz_target!(|input: &[u8]| {
    let Some((scheme, path, headers, body)) = read(input) else { return };
    let found = match scheme.claim(&headers, &path, Timestamp::UNIX_EPOCH) {
        Ok(Claim::Key(hash)) => KEYS.find(&hash).is_ok(),
        Ok(Claim::Signature(signature)) => is_signed(&signature, body),
        Ok(Claim::InBody { tolerance }) => {
            let signature = read_mailgun(body, tolerance, Timestamp::UNIX_EPOCH);
            signature.is_ok_and(|signature| is_signed(&signature, body))
        }
        Ok(Claim::Form(_)) => false,
        Ok(Claim::Sns(_)) => false,
        Err(why) => {
            assert!(!why.detail.contains(KEY));
            false
        }
    };
    assert_eq!(found, is_proven(scheme, &path, &headers, body), "{scheme:?} {path} {headers:?}");
    if let Ok(message) = SNS.read(body, Timestamp::UNIX_EPOCH) {
        assert_eq!(message.topic.host(), "sns.a.amazonaws.com");
        let is_plain = |path: &str, more: &str| {
            path.bytes().all(|byte| byte.is_ascii_alphanumeric() || more.contains(char::from(byte)))
        };
        let path = &message.certificate;
        assert!(path.starts_with("/SimpleNotificationService-") && is_plain(path, "/-."), "{path}");
        if let Some(path) = message.confirmation.as_deref() {
            assert!(path.starts_with("/?") && is_plain(path, "/?&=:%"), "{path}");
        }
    }
    let sent = one(&headers, "traceparent").and_then(|value| std::str::from_utf8(value).ok());
    assert_eq!(trace_parent(&headers), sent.filter(|value| is_trace_parent(value)));
});
