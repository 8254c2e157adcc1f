//! The path of a request: the one function that takes it through every step, top to bottom, and the
//! one place that counts, logs and answers what came of it.
//!
//! `ingest/rate_limits.rs` says what each sender may have of it, `ingest/tokens.rs` which tokens have been used,
//! `ingest/sns.rs` asks Amazon SNS where its messages are taken.

mod rate_limits;
mod sns;
pub mod spans;
mod tokens;

use std::collections::HashMap;
use std::sync::Arc;

use arc_swap::ArcSwap;
use bytes::Bytes;
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::header::{self, HeaderMap, HeaderName, HeaderValue};
use hyper::http::request::Parts;
use hyper::{Request, StatusCode, Version};
use jiff::{SignedDuration, Timestamp};
use tokio::time::Instant;
use tracing::Level;

use crate::click::auth::sns::Sns;
use crate::click::auth::{self, AuthScheme, Caller, Claim, Key, Keys, Signature};
use crate::click::event::Envelope;
use crate::click::outcome::{Outcome, Refusal, Rejection};
use crate::click::record::{Origin, Record, trace_parent};
use crate::click::webhook::{self, Webhook};
use crate::config::{self, Config, Problem};
use crate::delivery::{Delivery, Receipt};
use crate::http::{
    self, Admission, Closed, Coding, Handler, Peer, Response, Slot, Tls, TlsIdentity,
};
use crate::ingest::spans::{Span, Tracer};
use crate::observe::health::Health;
use crate::observe::metrics::{DeadLetterReason, Metrics, NO_WEBHOOK};
use rate_limits::RateLimits;
use sns::{Asker, Confirmed};
use tokens::Tokens;

/// Who calls, or the signature that will tell, or that it is in the body.
enum Proof<'w> {
    Caller(Caller),
    Signature(Signature),
    InBody { tolerance: SignedDuration },
    Sns(&'w Sns),
}

/// Who calls, or that Amazon SNS has to be asked first.
enum Verified<'w> {
    Caller(Caller),
    Ask(&'w Sns),
}

/// What earns the 200.
enum Done {
    Held(Receipt),
    /// There was nothing to hold.
    Confirmed(Confirmed),
}

impl Done {
    fn outcome(&self) -> Outcome {
        match self {
            Done::Held(receipt) => Outcome::Held(receipt.held()),
            Done::Confirmed(_) => Outcome::Confirmed,
        }
    }
}

/// What a refused sender is told to wait before it tries again.
const RETRY_AFTER_SECONDS: HeaderValue = HeaderValue::from_static("5");

/// The same for one that sends more than its share, which is one of a second.
const RETRY_NEXT_SECOND: HeaderValue = HeaderValue::from_static("1");

/// Serves requests on one worker thread.
pub struct Ingest {
    state: Arc<IngestState>,
    admission: Admission,
    delivery: Delivery,
}

/// What all workers share.
pub struct IngestState {
    pub webhooks: Vec<Webhook>,
    pub keys: ArcSwap<Keys>,
    pub limits: config::HttpSettings,
    rate_limits: RateLimits,
    tokens: Tokens,
    /// By webhook, where its messages are those of Amazon SNS.
    sns: HashMap<usize, Asker>,
    pub tls: Option<Tls>,
    pub health: Arc<Health>,
    pub metrics: Arc<Metrics>,
    /// None: requests are not traced.
    pub tracer: Option<Tracer>,
}

impl IngestState {
    /// # Errors
    ///
    /// A setting or a file that cannot be read.
    pub fn new(
        config: &Config,
        health: Arc<Health>,
        metrics: Arc<Metrics>,
    ) -> Result<IngestState, Problem> {
        let (webhooks, keys) = (config.webhooks()?, ArcSwap::default());
        let tls = config.http.tls.as_ref().map(TlsIdentity::read).transpose()?;
        let tls = tls.map(|pair| Tls::new(pair, metrics.tls.clone()));
        let (tracer, limits) = (Tracer::start(config), config.http.clone());
        let rate_limits = RateLimits::new(&limits, metrics.log_lines_left_out.clone());
        let (tokens, sns) = (Tokens::default(), sns::askers(config, &webhooks)?);
        let state = IngestState {
            webhooks,
            keys,
            limits,
            rate_limits,
            tokens,
            sns,
            tls,
            health,
            metrics,
            tracer,
        };
        state.set_keys(config.callers()?);
        Ok(state)
    }

    /// Replaces the keys that may call. Requests that have been let in are served to their end.
    pub fn set_keys(&self, keys: Keys) {
        self.metrics.set_keys(keys.names());
        self.keys.store(Arc::new(keys));
    }
}

impl Ingest {
    pub fn new(state: Arc<IngestState>, admission: Admission, delivery: Delivery) -> Ingest {
        Ingest { state, admission, delivery }
    }

    /// The path of a request.
    async fn receive(
        &self,
        head: &Parts,
        body: Incoming,
        account: &mut Account<'_>,
    ) -> Result<Done, Rejection> {
        let received = now();
        let (state, address, began) = (&self.state, account.peer.address.ip(), account.started);
        state.rate_limits.address(address, began)?;
        http::check_head(head, &state.limits)?;
        let webhook = webhook::find(&state.webhooks, &head.method, head.uri.path())?;
        account.webhook = Some(webhook.index);
        // Before a byte of the body is read: a stranger costs no memory.
        let proof = self.authenticate(head, webhook, received, account);
        let proof = proof.map_err(|why| state.rate_limits.failure(why, address, began))?;
        let coding = Coding::of(&head.headers)?;
        let mut slot = self.admission.admit()?;
        let body = http::read_body(body, &mut slot, &state.limits).await?;
        // Before anything looks into the body.
        let verified = self.verify(proof, &body, head, webhook, received, account);
        let verified = verified.map_err(|why| state.rate_limits.failure(why, address, began))?;
        let (caller, confirmed) = match verified {
            Verified::Caller(caller) => (caller, None),
            Verified::Ask(sns) => {
                // In memory of its own, which the other requests need not have.
                let asked = self.verify_sns(sns, &body, head, webhook, received, account);
                let asked = Box::pin(asked).await;
                asked.map_err(|why| state.rate_limits.failure(why, address, began))?
            }
        };
        if let Some(confirmed) = confirmed {
            return Ok(Done::Confirmed(confirmed));
        }
        let (body, flaw) = match coding {
            Some(coding) => coding.unpack(body, &mut slot, &state.limits)?,
            None => (body, None),
        };
        let deadline = Instant::now() + state.limits.answer_timeout();
        let span = account.span.as_deref().map(Span::traceparent);
        let trace = span.or_else(|| trace_parent(&head.headers));
        let mut origin = Origin::new(webhook, &caller, trace, received);
        match &webhook.envelope {
            Envelope::One => {
                let record = to_record(flaw, &body, &mut origin, &mut slot, &mut account.kept)?;
                self.delivery.hold(record, deadline).await.map(Done::Held)
            }
            envelope => {
                if *envelope == Envelope::Sns {
                    // Its text is taken out of its escapes.
                    slot.reserve(body.len())?;
                }
                let events = envelope.split(&body, state.limits.max_events);
                let events = flaw.map_or(events, Err);
                let (slot, kept) = (&mut slot, &mut account.kept);
                let records = to_records(events, &body, &mut origin, slot, kept)?;
                // In memory of its own, which the other requests need not have.
                Box::pin(self.delivery.hold_all(records, deadline)).await.map(Done::Held)
            }
        }
    }

    /// Who calls, as far as the head tells.
    fn authenticate<'w>(
        &self,
        head: &Parts,
        webhook: &'w Webhook,
        received: Timestamp,
        account: &mut Account<'_>,
    ) -> Result<Proof<'w>, Rejection> {
        if let Some(caller) = &account.peer.caller {
            let caller = caller.clone();
            account.caller = Some(caller.shared_name());
            return self.let_in(caller, head, webhook, account).map(Proof::Caller);
        }
        match webhook.auth_scheme.claim(&head.headers, head.uri.path(), received)? {
            Claim::Key(hash) => {
                let keys = self.state.keys.load();
                let caller = self.admit(keys.find(&hash)?, head, webhook, received, account)?;
                Ok(Proof::Caller(caller))
            }
            Claim::Signature(signature) => Ok(Proof::Signature(signature)),
            Claim::InBody { tolerance } => Ok(Proof::InBody { tolerance }),
            Claim::Sns(sns) => Ok(Proof::Sns(sns)),
        }
    }

    /// Who calls, now that the body is there.
    fn verify<'w>(
        &self,
        proof: Proof<'w>,
        body: &[u8],
        head: &Parts,
        webhook: &Webhook,
        received: Timestamp,
        account: &mut Account<'_>,
    ) -> Result<Verified<'w>, Rejection> {
        let signature = match proof {
            Proof::Caller(caller) => return Ok(Verified::Caller(caller)),
            Proof::Signature(signature) => signature,
            Proof::InBody { tolerance } => auth::read_mailgun(body, tolerance, received)?,
            Proof::Sns(sns) => return Ok(Verified::Ask(sns)),
        };
        let keys = self.state.keys.load();
        let key = keys.find_signer(&signature, body, &webhook.route.webhook)?;
        let caller = self.admit(key, head, webhook, received, account)?;
        self.state.tokens.note(signature.token(), body)?;
        Ok(Verified::Caller(caller))
    }

    /// The same for a message of Amazon SNS, which is asked for its certificate; and whether the message
    /// wanted no more than a confirmation, which it has now.
    async fn verify_sns(
        &self,
        sns: &Sns,
        body: &[u8],
        head: &Parts,
        webhook: &Webhook,
        received: Timestamp,
        account: &mut Account<'_>,
    ) -> Result<(Caller, Option<Confirmed>), Rejection> {
        let message = sns.read(body, received)?;
        let deadline = Instant::now() + self.state.limits.answer_timeout();
        let asker = self.state.sns.get(&webhook.index);
        let asker = asker.ok_or_else(|| Refusal::SnsUnreachable.plain())?;
        let certificate = asker.certificate(&message, received, deadline).await?;
        let caller = message.verify(&certificate, received)?;
        account.caller = Some(caller.shared_name());
        let caller = self.let_in(caller, head, webhook, account)?;
        Ok((caller, asker.confirm(&message, sns, deadline).await?))
    }

    fn admit(
        &self,
        key: &Key,
        head: &Parts,
        webhook: &Webhook,
        received: Timestamp,
        account: &mut Account<'_>,
    ) -> Result<Caller, Rejection> {
        let name = account.caller.insert(key.shared_name());
        if key.has_expired(received) {
            self.state.metrics.key_used_after_end(name);
        }
        let caller = key.admit(&webhook.route.webhook, account.peer.address.ip(), received)?;
        self.let_in(caller, head, webhook, account)
    }

    /// What comes as soon as it is known who calls: its share, and its span. Not before: a stranger's
    /// `traceparent` would fill the collector.
    fn let_in(
        &self,
        caller: Caller,
        head: &Parts,
        webhook: &Webhook,
        account: &mut Account<'_>,
    ) -> Result<Caller, Rejection> {
        self.state.rate_limits.caller(caller.name(), account.started)?;
        let begin = |tracer: &Tracer| tracer.begin(webhook, trace_parent(&head.headers));
        account.span = self.state.tracer.as_ref().and_then(begin);
        Ok(caller)
    }

    /// Counts and logs a connection that was closed without a request's end.
    pub fn closed(&self, closed: &Closed) {
        let peer = Peer { address: closed.address, caller: None };
        let mut account = Account::open(&self.state, peer);
        account.close(Err(&closed.why.plain()));
    }
}

impl Handler for Arc<Ingest> {
    type Body = Full<Bytes>;

    async fn handle(&self, mut peer: Peer, request: Request<Incoming>) -> Response {
        let (head, body) = request.into_parts();
        peer.address = http::sender(peer.address, &head.headers, &self.state.limits);
        let version = head.version;
        let mut account = Account::open(&self.state, peer);
        let result = self.receive(&head, body, &mut account).await;
        account.close(result.as_ref().map(Done::outcome));
        // The answer takes over the map of the request's headers: hyper will use it for the next
        // request of the connection, and nobody allocates one.
        let mut headers = head.headers;
        headers.clear();
        // A sender that keeps its connection is asked to make its next one elsewhere; and where two
        // may read a request differently, nothing that follows is read at all.
        let is_doubtful = result.as_ref().is_err_and(|why| why.refusal == Refusal::NotHttp);
        let closes = version < Version::HTTP_2 && (is_doubtful || self.state.health.is_draining());
        let mut response = match result {
            Ok(done) => accepted(&self.state.webhooks, account.webhook, headers, done),
            Err(rejection) => {
                refused(headers, &rejection, account.status(rejection.refusal), account.challenge())
            }
        };
        if closes {
            response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
        }
        response
    }

    fn panicked(&self) -> Response {
        let why = Refusal::Panicked;
        refused(HeaderMap::new(), &why.plain(), why.facts().status, AuthScheme::Bearer.challenge())
    }
}

/// The record of an event, or of what is none, which is then a dead letter or refused. The flaw is what
/// is known to be wrong with it.
fn to_record(
    flaw: Option<Rejection>,
    body: &Bytes,
    origin: &mut Origin<'_>,
    slot: &mut Slot<'_>,
    kept: &mut Kept,
) -> Result<Record, Rejection> {
    let webhook = origin.webhook();
    match flaw.map_or_else(|| webhook.shape.decode(body), Err) {
        Ok(event) => match &webhook.pseudonyms {
            None => Ok(origin.record(event, body)),
            // Of the body as it came nothing is kept.
            Some(pseudonyms) => {
                let body = pseudonyms.replace(body)?;
                slot.reserve(body.len())?;
                Ok(origin.record(webhook.shape.decode(&body)?, &body))
            }
        },
        Err(why) if webhook.rejects_invalid => Err(why),
        Err(why) => {
            kept.add(why.refusal);
            Ok(origin.dead_letter(&why, body))
        }
    }
}

/// The record of each event of a body, or of a body that cannot be taken apart.
fn to_records(
    events: Result<Vec<Bytes>, Rejection>,
    body: &Bytes,
    origin: &mut Origin<'_>,
    slot: &mut Slot<'_>,
    kept: &mut Kept,
) -> Result<Vec<Record>, Rejection> {
    match events {
        Ok(events) => {
            events.iter().map(|event| to_record(None, event, origin, slot, kept)).collect()
        }
        Err(why) => to_record(Some(why), body, origin, slot, kept).map(|letter| vec![letter]),
    }
}

/// The one 200; it takes what earns it.
fn accepted(
    webhooks: &[Webhook],
    webhook: Option<usize>,
    mut headers: HeaderMap,
    _done: Done,
) -> Response {
    let answer = webhook.and_then(|index| webhooks.get(index)).map(|w| w.answer.clone());
    let text = HeaderValue::from_static("text/plain; charset=utf-8");
    headers.insert(header::CONTENT_TYPE, text);
    let mut response = Response::new(Full::new(answer.unwrap_or_default()));
    *response.headers_mut() = headers;
    response
}

/// A refusal as problem details (RFC 9457).
fn refused(
    mut headers: HeaderMap,
    rejection: &Rejection,
    status: StatusCode,
    challenge: &'static str,
) -> Response {
    let facts = rejection.refusal.facts();
    let problem = serde_json::json!({
        "type": facts.problem_type(),
        "title": facts.text,
        "status": status.as_u16(),
        "detail": rejection.detail,
    });
    let mut response = Response::new(Full::new(Bytes::from(problem.to_string())));
    *response.status_mut() = status;
    let problem = HeaderValue::from_static("application/problem+json");
    headers.insert(header::CONTENT_TYPE, problem);
    headers.extend(hint(facts.status, challenge));
    *response.headers_mut() = headers;
    response
}

/// What a refused sender can do about it, where there is a header to say so.
pub fn hint(status: StatusCode, challenge: &'static str) -> Option<(HeaderName, HeaderValue)> {
    let text = HeaderValue::from_static;
    match status {
        StatusCode::UNAUTHORIZED => Some((header::WWW_AUTHENTICATE, text(challenge))),
        StatusCode::METHOD_NOT_ALLOWED => Some((header::ALLOW, text("POST"))),
        StatusCode::UNSUPPORTED_MEDIA_TYPE => Some((header::ACCEPT_ENCODING, text(http::CODINGS))),
        StatusCode::TOO_MANY_REQUESTS => Some((header::RETRY_AFTER, RETRY_NEXT_SECOND)),
        StatusCode::SERVICE_UNAVAILABLE => Some((header::RETRY_AFTER, RETRY_AFTER_SECONDS)),
        _ => None,
    }
}

/// What is known of a request while it is served. Closed once, with its outcome; dropped before that,
/// the sender is gone, or serving it panicked.
struct Account<'r> {
    state: &'r IngestState,
    peer: Peer,
    started: Instant,
    webhook: Option<usize>,
    /// The name of the caller, or of the key that may not be used so.
    caller: Option<Arc<str>>,
    span: Option<Box<Span>>,
    /// What of the body is kept as dead letters, once it is held.
    kept: Kept,
    is_closed: bool,
}

/// How much of a body is kept as dead letters.
#[derive(Clone, Copy, Default)]
struct Kept {
    malformed: u64,
    invalid: u64,
}

impl Kept {
    fn add(&mut self, why: Refusal) {
        match why {
            Refusal::Malformed => self.malformed += 1,
            _ => self.invalid += 1,
        }
    }
}

impl<'r> Account<'r> {
    fn open(state: &'r IngestState, peer: Peer) -> Account<'r> {
        let started = Instant::now();
        let (webhook, caller, span, kept) = (None, None, None, Kept::default());
        Account { state, peer, started, webhook, caller, span, kept, is_closed: false }
    }

    fn close(&mut self, result: Result<Outcome, &Rejection>) {
        self.is_closed = true;
        let now = Instant::now();
        let took = now - self.started;
        let outcome = result.unwrap_or_else(|r| Outcome::Refused(r.refusal));
        self.state.metrics.request(self.webhook, outcome, took.as_secs_f64());
        if let (Some(span), Some(webhook)) = (self.span.take(), self.webhook) {
            span.end(&self.state.webhooks[webhook], outcome);
        }
        let line = || self.state.rate_limits.line(outcome, now);
        match result {
            Ok(_) => {
                self.count_dead_letters(DeadLetterReason::Malformed, self.kept.malformed, line);
                self.count_dead_letters(DeadLetterReason::Invalid, self.kept.invalid, line);
            }
            Err(rejection) => {
                let took_ms = u64::try_from(took.as_millis()).unwrap_or(u64::MAX);
                line().inspect(|left_out| self.log(rejection, took_ms, *left_out));
            }
        }
    }

    fn count_dead_letters(
        &self,
        reason: DeadLetterReason,
        count: u64,
        line: impl Fn() -> Option<u64>,
    ) {
        if count == 0 {
            return;
        }
        self.state.metrics.dead_letters(self.webhook_name(), reason, count);
        let (webhook, caller) = (self.webhook_name(), self.caller_name());
        if let Some(left_out) = line() {
            tracing::warn!(
                webhook, caller, peer = %self.peer, reason = reason.tag(), count, left_out,
                "Kept as a dead letter."
            );
        }
    }

    /// How a sender would have to prove who it is.
    fn challenge(&self) -> &'static str {
        let webhook = self.webhook.map(|index| &self.state.webhooks[index]);
        webhook.map_or(AuthScheme::Bearer.challenge(), |webhook| webhook.auth_scheme.challenge())
    }

    /// The status of a refusal, as this webhook's senders understand it.
    fn status(&self, refusal: Refusal) -> StatusCode {
        let status = refusal.facts().status;
        match self.webhook.map(|index| &self.state.webhooks[index]) {
            Some(webhook) => webhook.status(status),
            None => status,
        }
    }

    fn webhook_name(&self) -> &str {
        self.webhook.map_or(NO_WEBHOOK, |index| &self.state.webhooks[index].route.webhook)
    }

    fn caller_name(&self) -> &str {
        self.caller.as_deref().unwrap_or_default()
    }

    /// One line for each failed request, but for those that were too many; success is quiet.
    fn log(&self, rejection: &Rejection, took_ms: u64, left_out: u64) {
        let facts = rejection.refusal.facts();
        let status = self.status(rejection.refusal).as_u16();
        let (webhook, caller) = (self.webhook_name(), self.caller_name());
        let cause = rejection.cause.as_deref().unwrap_or(&rejection.detail);
        // A level must be known when the program is compiled.
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
            Some(Level::DEBUG) => line!(Level::DEBUG),
            Some(Level::TRACE) | None => line!(Level::TRACE),
        }
    }
}

impl Drop for Account<'_> {
    fn drop(&mut self) {
        if !self.is_closed {
            let is_ours = std::thread::panicking();
            let why = if is_ours { Refusal::Panicked } else { Refusal::SenderGone };
            self.close(Err(&why.plain()));
        }
    }
}

/// The time in whole milliseconds, as Kafka counts.
fn now() -> Timestamp {
    let now = Timestamp::now();
    Timestamp::from_millisecond(now.as_millisecond()).unwrap_or(now)
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;
    use std::panic::{AssertUnwindSafe, catch_unwind};

    use super::*;

    fn state() -> IngestState {
        let metrics = Metrics::new(&["email-marketing-click"], &[]).expect("metrics");
        IngestState::new(&Config::default(), Arc::default(), Arc::new(metrics)).expect("state")
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
        drop(Account::open(&state, peer.clone()));
        assert_eq!([count(&state, "abandoned"), count(&state, "panicked")], ["1", "0"]);
        let caught = catch_unwind(AssertUnwindSafe(|| {
            let account = Account::open(&state, peer);
            assert!(account.is_closed, "as it should");
        }));
        assert!(caught.is_err());
        assert_eq!([count(&state, "abandoned"), count(&state, "panicked")], ["1", "1"]);
    }

    #[tokio::test]
    async fn a_panic_is_answered_500() {
        let why = Refusal::Panicked;
        let answer = refused(
            HeaderMap::new(),
            &why.plain(),
            why.facts().status,
            AuthScheme::Bearer.challenge(),
        );
        assert_eq!(answer.status(), StatusCode::INTERNAL_SERVER_ERROR);
        assert_eq!(answer.headers()[header::CONTENT_TYPE], "application/problem+json");
    }
}
