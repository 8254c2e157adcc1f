//! A webhook with its settings read and checked, and which webhook a request is for.

use std::sync::Arc;

use bytes::Bytes;
use hyper::{Method, StatusCode};
use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};

use super::auth::AuthScheme;
use super::event::{Envelope, Shape};
use super::outcome::{Refusal, Rejection};
use super::path;
use super::pseudonym::Pseudonyms;
use super::verification::{Verification, VerificationAnswer};

/// A webhook as each request uses it.
#[derive(Debug)]
pub struct Webhook {
    /// Its name, and where its records go.
    pub route: Arc<Route>,
    /// The path of its requests, without a secret.
    pub path: String,
    /// How its senders prove who they are.
    pub auth_scheme: AuthScheme,
    /// Which questions of its senders are answered.
    pub verification: Verification,
    /// Whether a body that is no event is refused, instead of kept as a dead letter.
    pub rejects_invalid: bool,
    /// How a body carries its events.
    pub envelope: Envelope,
    /// Where its events have what the bridge needs.
    pub shape: Shape,
    /// Replaces fields of its events that must not reach Kafka as they are.
    pub pseudonyms: Option<Pseudonyms>,
    /// How long before receipt an event's time may be; else the time of receipt is taken.
    pub time_age_max: SignedDuration,
    /// How long after receipt it may be.
    pub time_ahead_max: SignedDuration,
    /// The text of the 200.
    pub answer: Bytes,
    /// The status in place of 503.
    pub unavailable: StatusCode,
    /// Its place among the configured webhooks.
    pub index: usize,
}

/// The names that all records of a webhook have in common.
#[derive(Debug, Serialize, Deserialize)]
pub struct Route {
    /// The webhook's name: the metric label, and part of the event id.
    pub webhook: Box<str>,
    /// Where its records go.
    pub topic: Arc<str>,
    /// Where its dead letters go.
    pub dead_letter_topic: Arc<str>,
    /// The CloudEvents attribute `source`.
    pub ce_source: Box<str>,
    /// The CloudEvents attribute `type`.
    pub ce_type: Box<str>,
}

impl Webhook {
    /// Whether an event's time is near enough to the time of receipt.
    pub(super) fn believes(&self, time: Timestamp, received: Timestamp) -> bool {
        let age = received.duration_since(time);
        age <= self.time_age_max && -age <= self.time_ahead_max
    }

    /// The answer to the body of an authenticated POST, if it is a question of its sender: neither an event
    /// nor a body with events.
    pub fn question(&self, body: &Bytes) -> Option<VerificationAnswer> {
        let answer = self.verification.of_body(body)?;
        let is_event = |part: &Bytes| part != body || self.shape.decode(part).is_ok();
        let has_events = self.envelope.salvage(body).iter().any(is_event);
        (!has_events).then_some(answer)
    }

    /// The status of a refusal, as this webhook's senders understand it.
    pub fn status(&self, status: StatusCode) -> StatusCode {
        if status == StatusCode::SERVICE_UNAVAILABLE { self.unavailable } else { status }
    }
}

/// Finds the webhook of a request. A secret in the path is one more segment.
///
/// # Errors
///
/// [`Refusal::UnknownPath`].
pub fn find<'w>(webhooks: &'w [Webhook], path: &str) -> Result<&'w Webhook, Rejection> {
    let exact = webhooks.iter().find(|webhook| webhook.path == path);
    let webhook = exact.or_else(|| find_alike(webhooks, path));
    webhook.ok_or_else(|| Refusal::UnknownPath.plain())
}

/// Checks that a request may have a click.
///
/// # Errors
///
/// [`Refusal::WrongMethod`].
pub fn check_method(method: &Method) -> Result<(), Rejection> {
    if method == Method::POST { Ok(()) } else { Err(Refusal::WrongMethod.plain()) }
}

/// The webhook whose path is the same once both are normalised, or is followed by a secret.
fn find_alike<'w>(webhooks: &'w [Webhook], path: &str) -> Option<&'w Webhook> {
    let path = path::normalised(path);
    let at = |path: &str| webhooks.iter().find(|webhook| path::normalised(&webhook.path) == path);
    at(&path).or_else(|| {
        let (parent, _secret) = path.rsplit_once('/')?;
        at(parent).filter(|webhook| matches!(webhook.auth_scheme, AuthScheme::PathSecret))
    })
}

#[cfg(test)]
mod tests {
    use super::super::record::tests::click;
    use super::*;

    #[test]
    fn paths_and_methods() {
        let secret = Webhook {
            path: "/click/more".into(),
            auth_scheme: AuthScheme::PathSecret,
            index: 1,
            ..click()
        };
        let webhooks = [click(), secret];
        let find = |path| find(&webhooks, path).map(|w| w.index).map_err(|r| r.refusal);
        assert_eq!(find("/click"), Ok(0));
        assert_eq!(find("/click/"), Ok(0));
        assert_eq!(find("//click"), Ok(0));
        assert_eq!(find("/%63lick"), Ok(0));
        assert_eq!(find("/click//more/secret/"), Ok(1));
        assert_eq!(find("/click/mor%65/s%65cret"), Ok(1));
        assert_eq!(find("/click%2Fmore"), Err(Refusal::UnknownPath));
        assert_eq!(find("/CLICK"), Err(Refusal::UnknownPath));
        assert_eq!(find("/"), Err(Refusal::UnknownPath));
        assert_eq!(find("/click/other"), Err(Refusal::UnknownPath));
        assert_eq!(find("/click/more/secret"), Ok(1));
        assert_eq!(find("/click/more"), Ok(1));
        assert_eq!(find("/click/more/"), Ok(1));
        assert_eq!(find("/click/more/secret/x"), Err(Refusal::UnknownPath));
        assert_eq!(find("/secret"), Err(Refusal::UnknownPath));
        let check = |method| check_method(&method).map_err(|why| why.refusal);
        assert_eq!(check(Method::POST), Ok(()));
        assert_eq!(check(Method::GET), Err(Refusal::WrongMethod));
    }

    #[test]
    fn a_time_is_plausible_within_its_window() {
        let now: Timestamp = "2026-01-10T12:00:00Z".parse().expect("a time");
        let plausible = |text: &str| {
            let time = text.parse().expect("a time");
            click().believes(time, now)
        };
        assert!(plausible("2026-01-10T12:00:00Z"));
        assert!(plausible("2026-01-03T12:00:00Z"));
        assert!(!plausible("2026-01-03T11:59:59Z"));
        assert!(plausible("2026-01-10T13:00:00Z"));
        assert!(!plausible("2026-01-10T13:00:01Z"));
    }
}
