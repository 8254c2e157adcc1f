//! Progress bars, on standard error, and there only where it is a terminal.

use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};

/// How often a bar moves.
pub const INTERVAL: Duration = Duration::from_millis(100);

/// A bar of so many of these.
pub fn bar(total: u64, what: &str) -> ProgressBar {
    let template = format!(
        "{{bar:30}} {{human_pos}} of {{human_len}} {what}  {{per_sec}}  {{eta}} left  {{msg}}"
    );
    ProgressBar::new(total).with_style(style(&template))
}

/// A count of these, where nobody knows how many there will be.
pub fn count(what: &str) -> ProgressBar {
    let template = format!("{{spinner}} {{human_pos}} {what}  {{per_sec}}  {{elapsed}}  {{msg}}");
    ProgressBar::new_spinner().with_style(style(&template))
}

fn style(template: &str) -> ProgressStyle {
    ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar())
}
