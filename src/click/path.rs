//! Paths that mean the same, although senders and proxies write them in different ways.

use std::borrow::Cow;

/// A path in its normal form (RFC 3986, section 6.2.2): no percent-encoding of characters that need none,
/// upper-case digits in the rest, no dot segments; and no repeated slashes and none at the end. Borrowed
/// where it is that already.
pub fn normalised(path: &str) -> Cow<'_, str> {
    let is_normal = !path.contains('%')
        && !path.contains("//")
        && !path.contains("/.")
        && (path.len() < 2 || !path.ends_with('/'));
    if is_normal {
        return Cow::Borrowed(path);
    }
    let decoded = decoded(path);
    let mut segments: Vec<&str> = Vec::new();
    for segment in decoded.split('/') {
        match segment {
            "" | "." => {}
            ".." => drop(segments.pop()),
            segment => segments.push(segment),
        }
    }
    Cow::Owned(format!("/{}", segments.join("/")))
}

/// The path with the unreserved characters of RFC 3986 as they are, and other encodings in upper case.
fn decoded(path: &str) -> String {
    let mut parts = path.split('%');
    let mut decoded = String::with_capacity(path.len());
    decoded.push_str(parts.next().unwrap_or_default());
    for part in parts {
        let mut rest = part;
        match hex_byte(part.as_bytes()) {
            Some((byte, _)) => {
                rest = &part[2..];
                match is_unreserved(byte) {
                    true => decoded.push(char::from(byte)),
                    false => decoded.push_str(&format!("%{byte:02X}")),
                }
            }
            // It encodes nothing.
            None => decoded.push('%'),
        }
        decoded.push_str(rest);
    }
    decoded
}

/// The byte whose two hexadecimal digits a text begins with, and the rest of the text.
pub(super) fn hex_byte(text: &[u8]) -> Option<(u8, &[u8])> {
    let digit = |byte: u8| char::from(byte).to_digit(16).and_then(|digit| u8::try_from(digit).ok());
    let [high, low, rest @ ..] = text else { return None };
    Some(((digit(*high)? << 4) | digit(*low)?, rest))
}

fn is_unreserved(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"-._~".contains(&byte)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ways_to_write_a_path_have_one_normal_form() {
        for (path, expected) in [
            ("/", "/"),
            ("//", "/"),
            ("", ""),
            ("/click", "/click"),
            ("/click/", "/click"),
            ("/click//", "/click"),
            ("//webhooks///click", "/webhooks/click"),
            ("/webhooks/./click", "/webhooks/click"),
            ("/webhooks/x/../click", "/webhooks/click"),
            ("/../../click", "/click"),
            ("/click/.", "/click"),
            ("/click/..", "/"),
            ("/%63lick", "/click"),
            ("/%63%6C%69%63%6b", "/click"),
            ("/email%2Dmarketing%7e", "/email-marketing~"),
            ("/a/%2e%2E/b", "/b"),
            ("/.hidden", "/.hidden"),
            ("/a..b", "/a..b"),
            // These are other paths: what is encoded has a meaning, or none.
            ("/click%2f", "/click%2F"),
            ("/caf%c3%a9", "/caf%C3%A9"),
            ("/a%20b", "/a%20b"),
            ("/100%", "/100%"),
            ("/%zz/%4", "/%zz/%4"),
            ("/%25", "/%25"),
            ("/CLICK", "/CLICK"),
        ] {
            assert_eq!(normalised(path), expected, "{path}");
            assert_eq!(normalised(expected), expected, "twice: {path}");
        }
        assert!(matches!(normalised("/webhooks/email-marketing/click"), Cow::Borrowed(_)));
    }
}
