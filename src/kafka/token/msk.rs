//! The token that Amazon MSK takes for an identity of AWS: a request to `kafka-cluster:Connect` that is signed
//! (Signature Version 4, in the query) and never sent, in base64.

use std::fmt::Write;

use data_encoding::{BASE64URL_NOPAD, HEXLOWER};
use jiff::{SignedDuration, Timestamp};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use reqsign_aws_core::Credential;
use ring::{digest, hmac};

use super::Token;
use crate::config::KafkaSettings;

/// The longest that MSK takes.
const LIFE: SignedDuration = SignedDuration::from_secs(900);

/// What a query has as it is (RFC 3986, 2.3).
const ENCODED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

/// The region: as set, or as the brokers' names have it (`b-1.demo.a1b2c3.c2.kafka.us-east-1.amazonaws.com`).
pub(in crate::kafka) fn region(kafka: &KafkaSettings) -> Option<String> {
    if !kafka.aws_region.is_empty() {
        return Some(kafka.aws_region.clone());
    }
    let host = kafka.brokers.split(',').next()?.trim().rsplit_once(':')?.0;
    let (_, end) = host.split_once(".kafka.").or_else(|| host.split_once(".kafka-serverless."))?;
    let (region, domain) = end.split_once('.')?;
    domain.starts_with("amazonaws.com").then(|| region.to_owned())
}

/// Signs a token, which is good for 15 minutes, but no longer than the credentials.
///
/// # Errors
///
/// The credentials have expired.
pub fn token(credentials: &Credential, region: &str, now: Timestamp) -> Result<Token, String> {
    let end = now + LIFE;
    let expires = credentials
        .expires_in
        .and_then(|time| Timestamp::from_second(time.as_second()).ok())
        .map_or(end, |time| time.min(end));
    if expires <= now {
        return Err(format!(
            "the credentials of AWS expired {expires}; look at their source, and at the clock of this machine \
             (it is {now})"
        ));
    }
    let url = signed_url(credentials, region, now);
    Ok(Token { value: BASE64URL_NOPAD.encode(url.as_bytes()), expires })
}

/// Signs as AWS documents it: "Create a signed AWS API request", with the signature in the query.
fn signed_url(credentials: &Credential, region: &str, now: Timestamp) -> String {
    let host = format!("kafka.{region}.amazonaws.com");
    let time = now.strftime("%Y%m%dT%H%M%SZ").to_string();
    let date = &time[..8];
    let scope = format!("{date}/{region}/kafka-cluster/aws4_request");
    let access_key = format!("{}/{scope}", credentials.access_key_id);
    let life = LIFE.as_secs().to_string();
    // In the order of their names, as they are signed.
    let mut query = String::new();
    for (name, value) in [
        ("Action", Some("kafka-cluster:Connect")),
        ("X-Amz-Algorithm", Some("AWS4-HMAC-SHA256")),
        ("X-Amz-Credential", Some(access_key.as_str())),
        ("X-Amz-Date", Some(time.as_str())),
        ("X-Amz-Expires", Some(life.as_str())),
        ("X-Amz-Security-Token", credentials.session_token.as_deref()),
        ("X-Amz-SignedHeaders", Some("host")),
    ] {
        let Some(value) = value else { continue };
        let separator = if query.is_empty() { "" } else { "&" };
        // Writing to a text cannot fail.
        let _ = write!(query, "{separator}{name}={}", utf8_percent_encode(value, ENCODED));
    }
    let empty_body = sha256(b"");
    let request = format!("GET\n/\n{query}\nhost:{host}\n\nhost\n{empty_body}");
    let to_sign = format!("AWS4-HMAC-SHA256\n{time}\n{scope}\n{}", sha256(request.as_bytes()));
    let secret = format!("AWS4{}", credentials.secret_access_key);
    let key = [date, region, "kafka-cluster", "aws4_request"]
        .iter()
        .fold(secret.into_bytes(), |key, part| sign(&key, part));
    let signature = HEXLOWER.encode(&sign(&key, &to_sign));
    let agent = concat!("hookbridge%2F", env!("CARGO_PKG_VERSION"));
    format!("https://{host}/?{query}&X-Amz-Signature={signature}&User-Agent={agent}")
}

fn sha256(bytes: &[u8]) -> String {
    HEXLOWER.encode(digest::digest(&digest::SHA256, bytes).as_ref())
}

fn sign(key: &[u8], text: &str) -> Vec<u8> {
    hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, key), text.as_bytes()).as_ref().to_vec()
}

#[cfg(test)]
mod tests {
    use serde::Deserialize;

    use super::*;

    /// A token of Amazon's own signer; `.ci/msk-tokens` makes the file and says with which.
    #[derive(Deserialize)]
    struct Signed {
        region: String,
        time: Timestamp,
        access_key: String,
        secret_key: String,
        session_token: Option<String>,
        /// Without the user agent, which each signer has its own.
        url: String,
        life_ms: i64,
    }

    fn sorted(url: &str) -> Vec<&str> {
        let mut parts: Vec<_> = url.split(['?', '&']).collect();
        parts.sort_unstable();
        parts
    }

    #[test]
    fn tokens_are_those_of_amazons_signer() {
        let file = include_str!("../../../tests/fixtures/msk-tokens.json");
        let all: Vec<Signed> = serde_json::from_str(file).expect("tokens");
        assert!(all.len() > 3);
        for signed in all {
            let credentials = Credential {
                access_key_id: signed.access_key,
                secret_access_key: signed.secret_key,
                session_token: signed.session_token,
                expires_in: None,
            };
            let token = token(&credentials, &signed.region, signed.time).expect("a token");
            let url = BASE64URL_NOPAD.decode(token.value.as_bytes()).expect("base64");
            let url = String::from_utf8(url).expect("a text");
            let (url, agent) = url.split_once("&User-Agent=").expect("an agent");
            assert!(agent.starts_with("hookbridge%2F"), "{agent}");
            // The order of the parameters in the URL, unlike in what is signed, is each signer's own.
            assert_eq!(sorted(url), sorted(&signed.url));
            assert_eq!(
                token.expires.as_millisecond() - signed.time.as_millisecond(),
                signed.life_ms
            );
        }
    }

    #[test]
    fn the_region_is_in_the_brokers_names() {
        for (brokers, region, expected) in [
            ("b-1.demo.a1b2.c2.kafka.us-east-1.amazonaws.com:9098", "", Some("us-east-1")),
            ("boot-a1.c1.kafka-serverless.eu-west-1.amazonaws.com:9098,x:1", "", Some("eu-west-1")),
            ("b-1.demo.a1b2.c2.kafka.cn-north-1.amazonaws.com.cn:9098", "", Some("cn-north-1")),
            ("b-1.demo.a1b2.c2.kafka.us-east-1.amazonaws.com:9098", "us-west-2", Some("us-west-2")),
            ("kafka.us-east-1.example.com:9098", "", None),
            ("kafka.internal:9098", "sa-east-1", Some("sa-east-1")),
            ("localhost:9092", "", None),
        ] {
            let settings = KafkaSettings {
                brokers: brokers.into(),
                aws_region: region.into(),
                ..KafkaSettings::default()
            };
            assert_eq!(super::region(&settings).as_deref(), expected, "{brokers}");
        }
    }

    /// A token is worth no more than the credentials that signed it.
    #[test]
    fn tokens_live_no_longer_than_their_credentials() {
        let now: Timestamp = "2026-01-01T00:00:00Z".parse().expect("a time");
        for (end, life) in [
            ("2026-01-01T00:05:00Z", Some(300)),
            ("2026-01-01T09:00:00Z", Some(900)),
            ("2025-12-31T23:59:00Z", None),
        ] {
            let credentials = Credential {
                access_key_id: "a".into(),
                secret_access_key: "b".into(),
                session_token: None,
                expires_in: Some(end.parse().expect("a time")),
            };
            let token = token(&credentials, "us-east-1", now);
            let expires = token.ok().map(|token| token.expires.as_second() - now.as_second());
            assert_eq!(expires, life, "{end}");
        }
    }
}
