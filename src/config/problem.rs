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
pub(super) struct Problems {
    pub(super) found: Vec<Problem>,
    /// How many of them are about settings that could not be read, and have their default meanwhile.
    unread: usize,
}

impl Problems {
    /// Notes a problem, unless it only follows from one with a setting that could not be read: that one, or
    /// one within it.
    pub(super) fn note(&mut self, key: impl Into<String>, message: impl Into<String>) {
        let problem = Problem::new(key, message);
        let follows = |unread: &Problem| {
            unread
                .key
                .strip_prefix(&problem.key)
                .is_some_and(|rest| !rest.starts_with(|c: char| c.is_alphanumeric() || c == '_'))
        };
        if !self.found[..self.unread].iter().any(follows) {
            self.found.push(problem);
        }
    }

    /// Ends the reading of settings.
    pub(super) fn all_is_read(&mut self) {
        self.unread = self.found.len();
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
    ) -> bool {
        let (least, most) = (range.start(), range.end());
        let is_within = range.contains(&value);
        let message = format!("must be from {least} to {most} (it is {value})");
        self.expect(is_within, key, message);
        is_within
    }

    /// The value of what was read, or none and one problem more.
    pub(super) fn value<T>(&mut self, key: &str, read: Result<T, impl Into<String>>) -> Option<T> {
        read.map_err(|message| self.note(key, message)).ok()
    }
}
