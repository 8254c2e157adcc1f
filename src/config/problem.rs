//! What is wrong with the settings, collected so that all of it is reported at once.

use std::fmt::Display;
use std::ops::RangeInclusive;

/// Something wrong with the settings.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[error("{key}: {message}")]
pub struct Problem {
    /// The setting, as a dotted path.
    pub key: String,
    /// What is wrong, and what to do about it.
    pub message: String,
}

impl Problem {
    pub(crate) fn new(key: impl Into<String>, message: impl Into<String>) -> Problem {
        Problem { key: key.into(), message: message.into() }
    }
}

/// Collects problems.
#[derive(Default)]
pub(super) struct Problems(pub(super) Vec<Problem>);

impl Problems {
    pub(super) fn note(&mut self, key: impl Into<String>, message: impl Into<String>) {
        self.0.push(Problem::new(key, message));
    }

    pub(super) fn expect(&mut self, holds: bool, key: &str, message: impl Into<String>) {
        if !holds {
            self.note(key, message);
        }
    }

    pub(super) fn expect_within<T: PartialOrd + Display>(
        &mut self,
        key: &str,
        value: T,
        range: RangeInclusive<T>,
    ) {
        let (least, most) = (range.start(), range.end());
        let message = format!("must be from {least} to {most} (it is {value})");
        self.expect(range.contains(&value), key, message);
    }

    /// The value of what was read, or none and one problem more.
    pub(super) fn value<T>(&mut self, key: &str, read: Result<T, impl Into<String>>) -> Option<T> {
        read.map_err(|message| self.note(key, message)).ok()
    }
}
