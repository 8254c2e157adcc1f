//! What a click is, and every decision about it. Pure: no clock, no I/O, no async, no logging.
//!
//! In the order of a request:
//!
//! - `verification.rs`: the questions that senders ask before they send.
//! - `webhook.rs`: from method and path to a webhook. `path.rs`: paths that mean the same.
//! - `auth.rs`: from the head, and the body where it is signed, to a caller.
//! - `event.rs`: from the body to its events.
//! - `pseudonym.rs`: replaces fields that must not reach Kafka as they are.
//! - `record.rs`: from an event to its record, or from any other body to a dead letter.
//! - `outcome.rs`: the closed list of how a request can end.

pub mod auth;
pub mod event;
pub mod outcome;
pub mod path;
pub mod pseudonym;
pub mod record;
pub mod verification;
pub mod webhook;
