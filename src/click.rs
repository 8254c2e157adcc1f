//! What a click is, and every decision about it. Pure: no clock, no I/O, no async, no logging.
//!
//! In the order of a request:
//!
//! - `route.rs`: the path to a webhook; an event to its record.
//! - `auth.rs`: the head, and the body where it is signed, to the caller.
//! - `event.rs`: the bytes of a body to an event.
//! - `pseudonym.rs`: replaces fields that must not reach Kafka as they are.
//! - `outcome.rs`: the closed list of the ways that a request can end.

pub mod auth;
pub mod event;
pub mod outcome;
pub mod pseudonym;
pub mod record;
pub mod webhook;
