//! A token in a file, which somebody else writes anew before it expires: Kubernetes, a sidecar.

use std::path::Path;

use data_encoding::BASE64URL_NOPAD;
use jiff::{SignedDuration, Timestamp};
use serde::Deserialize;

use super::Token;
use crate::config::read_file_within;

/// A larger file is something else.
const BYTES_MAX: u64 = 1 << 20;

/// How long a token is taken for good that does not say when it expires.
const LIFE: SignedDuration = SignedDuration::from_hours(1);

/// What a JSON Web Token says of itself.
#[derive(Deserialize)]
struct Claims {
    /// Seconds since 1970.
    exp: Option<f64>,
}

/// # Errors
///
/// What is wrong with the file or the token, and what to do.
pub fn read(path: &Path, now: Timestamp) -> Result<Token, String> {
    let bytes =
        read_file_within("kafka.token_file", path, BYTES_MAX).map_err(|it| it.to_string())?;
    let wrong = |what: &str| format!("kafka.token_file: {} {what}", path.display());
    let value = String::from_utf8(bytes).map_err(|_| wrong("is not a text"))?;
    let value = value.trim().to_owned();
    if value.is_empty() {
        return Err(wrong("is empty; whoever writes it has not yet, or failed to"));
    }
    if !value.bytes().all(|byte| byte.is_ascii_graphic()) {
        return Err(wrong("is no token: it must hold one, and nothing else"));
    }
    let expires = expiry(&value);
    if let Some(expires) = expires.filter(|expires| *expires <= now) {
        return Err(wrong(&format!(
            "holds a token that expired {expires}; look at whoever writes it anew, and at the clock of this \
             machine (it is {now})"
        )));
    }
    Ok(Token { value, expires: expires.unwrap_or(now + LIFE) })
}

/// When a JSON Web Token expires; none for other tokens.
fn expiry(token: &str) -> Option<Timestamp> {
    let payload = token.split('.').nth(1)?;
    let payload = BASE64URL_NOPAD.decode(payload.trim_end_matches('=').as_bytes()).ok()?;
    let seconds = serde_json::from_slice::<Claims>(&payload).ok()?.exp?;
    Timestamp::from_second(seconds as i64).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn jwt(payload: &str) -> String {
        format!("eyJ9.{}.c2ln", BASE64URL_NOPAD.encode(payload.as_bytes()))
    }

    #[test]
    fn a_token_is_read_with_its_expiry() {
        let now: Timestamp = "2026-01-01T00:00:00Z".parse().expect("a time");
        let seconds = now.as_second();
        let later = |seconds| now + SignedDuration::from_secs(seconds);
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("token");
        for (text, expected) in [
            (jwt(&format!("{{\"exp\":{}}}", seconds + 600)), Ok(later(600))),
            (jwt(&format!("{{\"exp\":{}.5}}", seconds + 60)) + "\n", Ok(later(60))),
            ("opaque-token".to_owned(), Ok(later(3_600))),
            (jwt("{}"), Ok(later(3_600))),
            (jwt(&format!("{{\"exp\":{}}}", seconds - 1)), Err("expired 2025-12-31T23:59:59Z")),
            (" \n".to_owned(), Err("is empty")),
            ("two words".to_owned(), Err("is no token")),
        ] {
            std::fs::write(&path, &text).expect("written");
            match (read(&path, now), expected) {
                (Ok(token), Ok(expires)) => {
                    assert_eq!((token.value.as_str(), token.expires), (text.trim(), expires));
                }
                (Err(error), Err(words)) => {
                    assert!(error.contains(words) && error.contains("kafka.token_file"), "{error}");
                    assert!(!error.contains("eyJ9"), "{error}");
                }
                (read, _) => panic!("{text}: {:?}", read.map(|token| token.expires)),
            }
        }
        std::fs::remove_file(&path).expect("removed");
        assert!(read(&path, now).is_err_and(|error| error.contains("cannot be read")));
    }
}
