//! What the commands share to print: colours, text on one line, progress bars, a closed pipe.
//!
//! `anstream` leaves the colours out in a pipe and where `NO_COLOR` is set. The bars are on standard
//! error, and only if that is a terminal.

use std::io::{self, ErrorKind};
use std::time::Duration;

use anstyle::{AnsiColor, Style};
use indicatif::{ProgressBar, ProgressStyle};

/// What is well.
pub const GOOD: Style = AnsiColor::Green.on_default();
/// What needs a look.
pub const WARN: Style = AnsiColor::Yellow.on_default();
/// What is wrong.
pub const BAD: Style = AnsiColor::Red.on_default();
/// A name, or a heading.
pub const NAME: Style = AnsiColor::Cyan.on_default();
/// What matters less.
pub const FAINT: Style = Style::new().dimmed();

/// How often a bar moves.
pub const BAR_INTERVAL: Duration = Duration::from_millis(100);

/// The text on one line and cut to a length: runs of white space and control characters become a
/// space, and characters that change the direction of writing go.
pub fn one_line(text: &str, length_max: usize) -> String {
    let is_space = |c: char| c.is_whitespace() || c.is_control();
    let words: Vec<_> = text.split(is_space).filter(|word| !word.is_empty()).collect();
    let text = words.join(" ").replace(changes_direction, "");
    let mut shown: String = text.chars().take(length_max).collect();
    if shown.len() < text.len() {
        shown.push('…');
    }
    shown
}

/// Whether a character changes the direction of what follows (Unicode, annex 9).
fn changes_direction(c: char) -> bool {
    matches!(c, '\u{61c}' | '\u{200e}'..='\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

/// Whether the reader of standard output has closed it, which is no error.
pub fn is_closed(written: io::Result<()>) -> Result<bool, String> {
    match written {
        Ok(()) => Ok(false),
        Err(error) if error.kind() == ErrorKind::BrokenPipe => Ok(true),
        Err(error) => Err(format!("standard output: {error}")),
    }
}

/// A bar up to a total, or a running count if the total is not known.
pub fn bar(total: Option<u64>, what: &str) -> ProgressBar {
    let (count, time) = match total {
        Some(_) => ("{bar:30} {human_pos} of {human_len}", "{eta} left"),
        None => ("{spinner} {human_pos}", "{elapsed}"),
    };
    let bar = total.map_or_else(ProgressBar::new_spinner, ProgressBar::new);
    let template = format!("{count} {what}  {{per_sec}}  {time}  {{msg}}");
    let style = ProgressStyle::with_template(&template);
    bar.with_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()))
}
