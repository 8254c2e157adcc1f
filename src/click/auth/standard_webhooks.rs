//! Standard Webhooks, the scheme of Svix and of many who use it: a message with an id and a time, signed with
//! a secret (`v1`, HMAC-SHA256) or a private key (`v1a`, Ed25519). Several signatures may be there at once,
//! while a key is replaced.

use data_encoding::BASE64;
use hyper::HeaderMap;
use jiff::{SignedDuration, Timestamp};

use super::signature::check_time;
use super::{Signature, SignatureAlgorithm, only, refuse};
use crate::click::outcome::Rejection;

/// The names of the three headers, of which the second ones are Svix's own.
const NAMES: [[&str; 3]; 2] = [
    ["webhook-id", "webhook-timestamp", "webhook-signature"],
    ["svix-id", "svix-timestamp", "svix-signature"],
];

/// The most signatures of one message: each costs a pass over the body.
const SIGNATURES_MAX: usize = 8;

/// What a secret may begin with; the rest is base64.
const SECRET_PREFIX: &str = "whsec_";

/// The names that a request uses.
fn names(headers: &HeaderMap) -> [&'static str; 3] {
    let [standard, svix] = NAMES;
    if headers.contains_key(standard[0]) { standard } else { svix }
}

/// The key that a secret of this scheme stands for. None for any other text.
pub(super) fn secret_key(secret: &str) -> Option<Vec<u8>> {
    let text = secret.strip_prefix(SECRET_PREFIX).unwrap_or(secret);
    BASE64.decode(text.as_bytes()).ok().filter(|key| !key.is_empty())
}

/// The message's id, which stays the same when the sender tries again.
pub(super) fn id(headers: &HeaderMap) -> Option<&str> {
    let [id, ..] = names(headers);
    headers.get(id)?.to_str().ok().filter(|id| !id.is_empty())
}

/// Reads the signatures of a request, and checks their form and time.
pub(super) fn read(
    headers: &HeaderMap,
    tolerance: SignedDuration,
    received: Timestamp,
) -> Result<Signature, Rejection> {
    let [id, time, signatures] = names(headers);
    let text = |name| -> Result<&str, Rejection> {
        let wrong = |_| refuse(format!("The header {name} is not text"));
        std::str::from_utf8(only(headers, name)?).map_err(wrong)
    };
    let (id, time, signatures) = (text(id)?, text(time)?, text(signatures)?);
    check_time(time, tolerance, received)?;
    let tags: Vec<_> = signatures.split(' ').filter_map(tag).take(SIGNATURES_MAX + 1).collect();
    match tags.len() {
        0 => Err(refuse("There is no signature of the versions v1 and v1a")),
        1..=SIGNATURES_MAX => Ok(Signature::new(tags, format!("{id}.{time}."))),
        _ => Err(refuse(format!("There are more than {SIGNATURES_MAX} signatures"))),
    }
}

/// One of the signatures, if its version is known.
fn tag(text: &str) -> Option<(SignatureAlgorithm, Vec<u8>)> {
    let (version, tag) = text.split_once(',')?;
    let algorithm = match version {
        "v1" => SignatureAlgorithm::StandardHmac,
        "v1a" => SignatureAlgorithm::Ed25519,
        _ => return None,
    };
    Some((algorithm, BASE64.decode(tag.as_bytes()).ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::click::auth::scheme::tests::header_map;
    use crate::click::auth::{Key, Keys, Restrictions, parse_public_key};

    const BODY: &str = r#"{"test": 2432232314}"#;

    /// Who signed, or why nobody did. The first secret, id, time and signature are those of the tests of the
    /// reference implementation; the others were made with openssl.
    #[track_caller]
    fn check(headers: &[(&str, &str)], received: i64, expected: &str) {
        let public = "whpk_6kp9SVkTgQbRGqEaCwXlXVYfDW3QxxFK3hGnV7Zw8kc=";
        let keys = Keys::new(
            [
                Key::of_secret("no-base64", b"a secret of another scheme", Restrictions::default()),
                Key::of_secret(
                    "plain",
                    b"MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw",
                    Restrictions::default(),
                ),
            ]
            .into_iter()
            .chain(
                parse_public_key(public)
                    .map(|key| Key::of_public_key("public", key, Restrictions::default())),
            ),
        );
        let received = Timestamp::from_second(received).expect("a time");
        let found = read(&header_map(headers), SignedDuration::from_secs(300), received);
        let found = found.and_then(|signature| {
            keys.find_signer(&signature, BODY.as_bytes(), "click").map(|key| key.name().to_string())
        });
        let found = found.unwrap_or_else(|why| why.detail.into_owned());
        assert_eq!(found, expected, "{headers:?}");
    }

    #[test]
    fn any_of_the_signatures_opens() {
        let at = 1_614_265_330;
        let right = "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=";
        let check_one = |signatures: &str, expected: &str| {
            for [id, time, signature] in NAMES {
                let headers = [
                    (id, "msg_p5jXN8AQM9LWM0D4loKWxJek"),
                    (time, "1614265330"),
                    (signature, signatures),
                ];
                check(&headers, at, expected);
            }
        };
        check_one(right, "plain");
        check_one(&format!("v1,AAAA v2,AAAA nonsense {right}"), "plain");
        check_one(&format!("{right} {right}"), "plain");
        let nobody = "No key made the signature of this body";
        check_one(&right.replace('g', "h"), nobody);
        check_one("v1,AAAA", nobody);
        check_one("v1a,AAAA", nobody);
        // The tag of one version under the other's name.
        check_one(&right.replace("v1,", "v1a,"), nobody);
        let none = "There is no signature of the versions v1 and v1a";
        check_one("v2,AAAA", none);
        check_one("", none);
        check_one(right.trim_end_matches('='), none);
        check_one(&["v1,AAAA"; 9].join(" "), "There are more than 8 signatures");
    }

    #[test]
    fn the_headers_are_there_once_and_of_now() {
        let right = "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=";
        let [id, time, signature] = NAMES[0];
        let id = (id, "msg_p5jXN8AQM9LWM0D4loKWxJek");
        let (time, signature) = ((time, "1614265330"), (signature, right));
        check(&[id, time, signature], 1_614_265_030, "plain");
        check(&[id, time, signature], 1_614_265_630, "plain");
        let far = "The timestamp is too far from the time of receipt";
        check(&[id, time, signature], 1_614_265_029, far);
        check(&[id, time, signature], 1_614_265_631, far);
        check(&[id, signature], 1_614_265_330, "The header webhook-timestamp is missing");
        check(&[id, time], 1_614_265_330, "The header webhook-signature is missing");
        check(&[time, signature], 1_614_265_330, "The header svix-id is missing");
        let twice = "There is more than one header webhook-signature";
        check(&[id, time, signature, signature], 1_614_265_330, twice);
        // Both sets, as Svix sends them: the standard one counts.
        let svix = ("svix-signature", "v1,AAAA");
        check(&[id, time, signature, ("svix-id", "x"), svix], 1_614_265_330, "plain");
    }

    #[test]
    fn secrets_are_base64_with_or_without_their_prefix() {
        assert_eq!(secret_key("whsec_AAEC").as_deref(), Some(&[0, 1, 2][..]));
        assert_eq!(secret_key("AAEC").as_deref(), Some(&[0, 1, 2][..]));
        for wrong in ["", "whsec_", "whsec_AAE", "whsec_!", "a secret"] {
            assert_eq!(secret_key(wrong), None, "{wrong}");
        }
    }
}
