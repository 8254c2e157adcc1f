//! What is known of a request while it is served, and its end: counted, logged and traced exactly once.

use std::sync::Arc;

use jiff::Timestamp;
use tokio::time::Instant;
use tracing::Level;

use super::spans::Span;
use super::{IngestState, answer};
use crate::click::outcome::{Outcome, Refusal, Rejection};
use crate::click::webhook::Webhook;
use crate::http::Peer;
use crate::observe::metrics::{DeadLetterReason, NO_WEBHOOK};

/// Dropping it before `close` counts as `abandoned`, or as `panicked` during unwinding.
pub(super) struct RequestLog<'r> {
    pub(super) state: &'r IngestState,
    pub(super) peer: Peer,
    pub(super) started: Instant,
    /// In whole milliseconds, as Kafka counts.
    pub(super) received: Timestamp,
    pub(super) webhook: Option<&'r Webhook>,
    /// The name of the caller, or of the key that may not be used for this request.
    pub(super) caller: Option<Arc<str>>,
    pub(super) span: Option<Box<Span>>,
    /// Dead letters among the records, counted once they are held. By [`DeadLetterReason`].
    pub(super) dead_letters: [u64; DeadLetterReason::ALL.len()],
    is_closed: bool,
}

impl<'r> RequestLog<'r> {
    pub(super) fn open(state: &'r IngestState, peer: Peer) -> RequestLog<'r> {
        let now = Timestamp::now();
        RequestLog {
            state,
            peer,
            started: Instant::now(),
            received: Timestamp::from_millisecond(now.as_millisecond()).unwrap_or(now),
            webhook: None,
            caller: None,
            span: None,
            dead_letters: Default::default(),
            is_closed: false,
        }
    }

    pub(super) fn close(&mut self, result: Result<Outcome, &Rejection>) {
        self.is_closed = true;
        let now = Instant::now();
        let took = now - self.started;
        let outcome = result.unwrap_or_else(|why| Outcome::Refused(why.refusal));
        let place = self.webhook.map(|webhook| webhook.index);
        self.state.metrics.request(place, outcome, took.as_secs_f64());
        if let (Some(span), Some(webhook)) = (self.span.take(), self.webhook) {
            span.end(webhook, outcome);
        }
        let line = || self.state.rate_limits.line(outcome, now);
        match result {
            Ok(_) => {
                let counts = DeadLetterReason::ALL.into_iter().zip(self.dead_letters);
                for (reason, count) in counts.filter(|(_, count)| *count > 0) {
                    self.state.metrics.dead_letters(self.webhook_name(), reason, count);
                    if let Some(left_out) = line() {
                        tracing::warn!(
                            webhook = self.webhook_name(), caller = self.caller_name(),
                            peer = %self.peer, reason = reason.tag(), count, left_out,
                            "Kept as a dead letter."
                        );
                    }
                }
            }
            Err(rejection) => {
                let took_ms = u64::try_from(took.as_millis()).unwrap_or(u64::MAX);
                line().inspect(|left_out| self.log_refusal(rejection, took_ms, *left_out));
            }
        }
    }

    fn webhook_name(&self) -> &str {
        self.webhook.map_or(NO_WEBHOOK, |webhook| &webhook.route.webhook)
    }

    fn caller_name(&self) -> &str {
        self.caller.as_deref().unwrap_or_default()
    }

    fn log_refusal(&self, rejection: &Rejection, took_ms: u64, left_out: u64) {
        let facts = rejection.refusal.facts();
        let status = answer::status(self.webhook, rejection).as_u16();
        let (webhook, caller) = (self.webhook_name(), self.caller_name());
        let cause = rejection.cause.as_deref().unwrap_or(&rejection.detail);
        // The level of an event must be a constant.
        macro_rules! line {
            ($level:expr) => {
                tracing::event!(
                    $level, outcome = facts.tag, status, webhook, caller, peer = %self.peer,
                    took_ms, cause, left_out, "Request refused."
                )
            };
        }
        match facts.level {
            Some(Level::ERROR) => line!(Level::ERROR),
            Some(Level::WARN) => line!(Level::WARN),
            Some(Level::INFO) => line!(Level::INFO),
            _ => line!(Level::DEBUG),
        }
    }
}

impl Drop for RequestLog<'_> {
    fn drop(&mut self) {
        if !self.is_closed {
            let is_panic = std::thread::panicking();
            let why = if is_panic { Refusal::Panicked } else { Refusal::SenderGone };
            self.close(Err(&why.plain()));
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;
    use std::panic::{AssertUnwindSafe, catch_unwind};

    use super::*;
    use crate::config::Config;
    use crate::delivery::DeliveryState;

    fn state() -> IngestState {
        let config = Config::default();
        let delivery = DeliveryState::new(&config).expect("metrics");
        IngestState::new(&config, &delivery).expect("state")
    }

    fn count(state: &IngestState, outcome: &str) -> String {
        let scrape = String::from_utf8(state.metrics.scrape().expect("a scrape")).expect("text");
        let series =
            format!("hookbridge_requests_total{{outcome=\"{outcome}\",webhook=\"none\"}} ");
        let count = scrape.lines().find_map(|line| line.strip_prefix(&series));
        count.expect("the series").to_owned()
    }

    #[test]
    fn a_request_that_panics_is_counted_as_ours_and_one_that_is_dropped_is_not() {
        let state = state();
        let peer = Peer { address: SocketAddr::from(([192, 0, 2, 1], 1)), caller: None };
        drop(RequestLog::open(&state, peer.clone()));
        assert_eq!([count(&state, "abandoned"), count(&state, "panicked")], ["1", "0"]);
        let caught = catch_unwind(AssertUnwindSafe(|| {
            let log = RequestLog::open(&state, peer);
            assert!(log.is_closed, "as it should");
        }));
        assert!(caught.is_err());
        assert_eq!([count(&state, "abandoned"), count(&state, "panicked")], ["1", "1"]);
    }
}
