//! Hides e-mail addresses in text that is shown.

/// The at sign: plain, full-width, small, URL-encoded once and twice, in JSON, in HTML.
const AT: [&str; 7] = ["@", "\u{ff20}", "\u{fe6b}", "%40", "%2540", "\\u0040", "&#64;"];

const HIDDEN: &str = "***";

/// The text with the local part of every e-mail address hidden, except its first letter. JSON stays
/// valid JSON.
pub fn addresses(text: &str) -> String {
    let mut redacted = String::with_capacity(text.len());
    let mut done = 0;
    while let Some((at, length)) = find_at(text, done) {
        let is_address = text[at + length..].starts_with(char::is_alphanumeric);
        let local = text[done..at].bytes().rev().take_while(|byte| is_address && is_local(*byte));
        let start = at - local.count();
        redacted.push_str(&text[done..start]);
        if start < at {
            // Half of an escape would not be valid JSON.
            redacted.extend(text[start..].chars().next().filter(char::is_ascii_alphanumeric));
            redacted.push_str(HIDDEN);
        }
        redacted.push_str(&text[at..at + length]);
        done = at + length;
    }
    redacted.push_str(&text[done..]);
    redacted
}

/// The next at sign and its length.
fn find_at(text: &str, from: usize) -> Option<(usize, usize)> {
    text[from..].char_indices().find_map(|(place, _)| {
        let rest = &text[from + place..];
        let sign = AT.iter().find(|sign| rest.starts_with(**sign))?;
        Some((from + place, sign.len()))
    })
}

/// Whether a byte may be in a local part: also all that is not ASCII, and escapes of URLs and of JSON.
fn is_local(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || byte >= 0x80 || b"!#$%&'*+-/=?^_`{|}~.\\".contains(&byte)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_hidden_however_they_are_written() {
        for (text, redacted) in [
            ("", ""),
            ("nothing @ all, @handle a@", "nothing @ all, @handle a@"),
            ("<test@testdomain.com>", "<t***@testdomain.com>"),
            ("a@b.co,c.d+e@f.co", "a***@b.co,c***@f.co"),
            ("josé@ejemplo.co", "j***@ejemplo.co"),
            ("élan@ejemplo.co x", "***@ejemplo.co x"),
            ("u:test%40x.co", "u:t***%40x.co"),
            ("u:test%2540x.co", "u:t***%2540x.co"),
            ("test\u{ff20}x.co", "t***\u{ff20}x.co"),
            ("test&#64;x.co", "t***&#64;x.co"),
            (r#""\u00e9a\u0040x.co""#, r#""***\u0040x.co""#),
            (r#"{"a":"b\"c@x.co"}"#, r#"{"a":"b\"c***@x.co"}"#),
        ] {
            assert_eq!(addresses(text), redacted, "{text}");
        }
    }

    #[test]
    fn many_signs_cost_no_more_than_their_bytes() {
        let text = "%40".repeat(1 << 20);
        assert_eq!(addresses(&text).matches("%40").count(), 1 << 20);
    }
}
