//! The last records as the page shows them: cut, with e-mail addresses redacted, as plain text.

use std::collections::VecDeque;

use jiff::Timestamp;

use crate::click::outcome::Held;
use crate::observe::redact;
use crate::observe::sampler::{KEY_MAX, SampledRecord, VALUE_MAX};

/// Records that are kept, at most about 2 KiB each.
const ROWS: usize = 40;

/// A record as it is shown.
pub(super) struct ShownRecord {
    pub(super) received: Timestamp,
    /// None for a dead letter.
    pub(super) key: Option<String>,
    pub(super) text: String,
    /// Bytes of the whole value.
    pub(super) length: usize,
    pub(super) held: Option<Held>,
}

/// The last records, the newest first.
#[derive(Default)]
pub(super) struct RecentRecords(VecDeque<ShownRecord>);

impl RecentRecords {
    /// Adds records; those beyond the last [`ROWS`] are dropped unread.
    pub(super) fn take(&mut self, records: Vec<SampledRecord>) {
        let skipped = records.len().saturating_sub(ROWS);
        for record in records.into_iter().skip(skipped) {
            self.0.push_front(ShownRecord {
                received: record.received,
                key: record.key.as_deref().map(key),
                text: text(&record.value, record.length),
                length: record.length,
                held: record.held,
            });
        }
        self.0.truncate(ROWS);
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &ShownRecord> {
        self.0.iter()
    }
}

/// A key as it is shown.
pub(super) fn key(bytes: &[u8]) -> String {
    let text = whole_chars(bytes);
    let cut = if bytes.len() < KEY_MAX { "" } else { "…" };
    legible(&redact::addresses(&text)) + cut
}

/// The beginning of a value. If it was cut, the part after the last comma is left out, because an address
/// that is cut in two is not recognised.
fn text(bytes: &[u8], length: usize) -> String {
    // Addresses in UTF-16 would not be recognised.
    if bytes.contains(&0) {
        return "(not text)".into();
    }
    let text = whole_chars(bytes);
    let whole =
        if length > VALUE_MAX { text.rfind(',').map_or("", |end| &text[..end]) } else { &text };
    let words = redact::addresses(whole).split_whitespace().collect::<Vec<_>>().join(" ");
    let cut = match length > VALUE_MAX {
        true if words.is_empty() => "…",
        true => ", …",
        false => "",
    };
    legible(&words) + cut
}

/// The text without an incomplete last character.
fn whole_chars(bytes: &[u8]) -> String {
    let end = match std::str::from_utf8(bytes) {
        Err(error) if error.error_len().is_none() => error.valid_up_to(),
        _ => bytes.len(),
    };
    String::from_utf8_lossy(&bytes[..end]).into_owned()
}

/// Escapes control characters, and characters that are invisible or change the direction of text.
fn legible(text: &str) -> String {
    let mut legible = String::with_capacity(text.len());
    for char in text.chars() {
        match char {
            '\u{200b}'..='\u{200f}'
            | '\u{2028}'..='\u{202e}'
            | '\u{2060}'..='\u{206f}'
            | '\u{61c}'
            | '\u{ad}'
            | '\u{180e}'
            | '\u{feff}'
            | '\u{fff9}'..='\u{fffb}'
            | '\u{e0000}'..='\u{e007f}' => legible.extend(char.escape_unicode()),
            char if char.is_control() => legible.extend(char.escape_default()),
            char => legible.push(char),
        }
    }
    legible
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(value: &[u8]) -> SampledRecord {
        SampledRecord {
            received: Timestamp::UNIX_EPOCH,
            key: Some(b"7"[..].into()),
            value: value[..value.len().min(VALUE_MAX)].into(),
            length: value.len(),
            held: Some(Held::InKafka),
        }
    }

    fn shown(value: &[u8]) -> String {
        let mut tail = RecentRecords::default();
        tail.take(vec![record(value)]);
        tail.iter().next().expect("a row").text.clone()
    }

    #[test]
    fn what_is_shown_is_redacted_wherever_it_was_cut() {
        let body = br#"{"email":"john.doe@example.com", "x":"\u0000"}"#;
        assert_eq!(shown(body), r#"{"email":"j***@example.com", "x":"\u0000"}"#);
        for padding in VALUE_MAX - 60..VALUE_MAX {
            let padding = "p".repeat(padding);
            let body = format!(r#"{{"p":"{padding}","email":"john.doe@example.com"}}"#);
            let text = shown(body.as_bytes());
            assert!(!text.contains("john"), "{text}");
        }
        let wide: Vec<u8> = "john@example.com".bytes().flat_map(|byte| [byte, 0]).collect();
        assert_eq!(shown(&wide), "(not text)");
        assert_eq!(shown(&[b'x'; 70_000]), "…");
        assert_eq!(shown("a\u{202e}\r\n  b".as_bytes()), "a\\u{202e} b");
        assert_eq!(shown(b"\xff{"), "\u{fffd}{");
    }

    #[test]
    fn only_the_last_are_kept_the_newest_first() {
        let mut tail = RecentRecords::default();
        for batch in 0..3 {
            let numbers = (0..100).map(|number| format!("{batch}-{number}"));
            tail.take(numbers.map(|number| record(number.as_bytes())).collect());
        }
        let rows: Vec<_> = tail.iter().map(|row| row.text.as_str()).collect();
        assert_eq!((rows.len(), rows[0], rows[ROWS - 1]), (ROWS, "2-99", "2-60"));
    }

    #[test]
    fn what_a_screen_would_obey_is_written_out() {
        assert_eq!(legible("a\u{202e}b\n\u{1b}[31m\u{0}"), "a\\u{202e}b\\n\\u{1b}[31m\\u{0}");
        assert_eq!(legible("Bogot\u{e1} 日本 😀 עברית"), "Bogot\u{e1} 日本 😀 עברית");
    }
}
