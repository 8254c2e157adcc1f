//! Text of senders on the operator's terminal.

/// The text on one line: white space and control characters folded, without what turns the direction of
/// writing, cut to a readable length.
pub fn folded(text: &str, length_max: usize) -> String {
    let is_space = |c: char| c.is_whitespace() || c.is_control();
    let words: Vec<_> = text.split(is_space).filter(|word| !word.is_empty()).collect();
    let text = words.join(" ").replace(turns, "");
    let mut shown: String = text.chars().take(length_max).collect();
    if shown.len() < text.len() {
        shown.push('…');
    }
    shown
}

/// Whether a character changes the direction of what follows (Unicode, annex 9).
fn turns(c: char) -> bool {
    matches!(c, '\u{61c}' | '\u{200e}'..='\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}
