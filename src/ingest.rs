//! The path of a request: the one function that takes it through every step, top to bottom, and the
//! one place that counts, logs and answers what came of it.

use std::sync::Arc;

use arc_swap::ArcSwap;
use bytes::Bytes;
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::header::{self, HeaderMap, HeaderValue};
use hyper::http::request::Parts;
use hyper::{Request, StatusCode, Version};
use jiff::Timestamp;
use tokio::time::Instant;
use tracing::Level;

use crate::auth::{Caller, Claim, Key, Keys, Signature, Way};
use crate::config::{self, Config, Problem};
use crate::delivery::{Delivery, Receipt};
use crate::health::Health;
use crate::http::{self, Admission, Closed, Handler, Pair, Peer, Response, Tls};
use crate::metrics::{DeadLetterReason, Metrics, NO_WEBHOOK};
use crate::outcome::{Held, Outcome, Refusal, Rejection};
use crate::route::{self, Webhook};
use crate::trace::{Span, Tracer};

/// Who calls, or the signature that will tell.
enum Proof<'r> {
    Caller(Caller),
    Signature(Signature<'r>),
}

/// What a refused sender is told to wait before it tries again.
const RETRY_AFTER_SECONDS: HeaderValue = HeaderValue::from_static("5");

/// Serves requests on one worker thread.
pub struct Ingest {
    rules: Arc<Rules>,
    admission: Admission,
    delivery: Delivery,
}

/// What all workers share.
pub struct Rules {
    pub webhooks: Vec<Webhook>,
    pub keys: ArcSwap<Keys>,
    pub limits: config::Http,
    pub tls: Option<Tls>,
    pub health: Arc<Health>,
    pub metrics: Arc<Metrics>,
    /// None: requests are not traced.
    pub tracer: Option<Tracer>,
}

impl Rules {
    /// # Errors
    ///
    /// A setting or a file that cannot be read.
    pub fn new(
        config: &Config,
        health: Arc<Health>,
        metrics: Arc<Metrics>,
    ) -> Result<Rules, Problem> {
        let (webhooks, keys) = (config.webhooks()?, ArcSwap::default());
        let tls = config.http.tls.as_ref().map(Pair::read).transpose()?;
        let tls = tls.map(|pair| Tls::new(pair, metrics.tls.clone()));
        let tracer = Tracer::start(config);
        let limits = config.http.clone();
        let rules = Rules { webhooks, keys, limits, tls, health, metrics, tracer };
        rules.set_keys(config.callers()?);
        Ok(rules)
    }

    /// Replaces the keys that may call. Requests that have been let in are served to their end.
    pub fn set_keys(&self, keys: Keys) {
        self.metrics.set_keys(keys.names());
        self.keys.store(Arc::new(keys));
    }
}

impl Ingest {
    pub fn new(rules: Arc<Rules>, admission: Admission, delivery: Delivery) -> Ingest {
        Ingest { rules, admission, delivery }
    }

    /// The path of a request.
    async fn receive(
        &self,
        head: &Parts,
        body: Incoming,
        account: &mut Account<'_>,
    ) -> Result<Receipt, Rejection> {
        let received = now();
        self.check_head(&head.headers)?;
        let webhook = route::find(&self.rules.webhooks, &head.method, head.uri.path())?;
        account.webhook = Some(webhook.index);
        // Before a byte of the body is read: a stranger costs no memory.
        let proof = self.authenticate(head, webhook, received, account)?;
        let mut slot = self.admission.admit()?;
        let body = http::read_body(body, &mut slot, &self.rules.limits).await?;
        // Before anything looks into the body.
        let caller = self.verify(proof, &body, head, webhook, received, account)?;
        let deadline = Instant::now() + self.rules.limits.answer_timeout();
        let span = account.span.as_deref().map(Span::traceparent);
        let trace = span.or_else(|| route::trace_parent(&head.headers));
        let record = match webhook.shape.decode(&body) {
            Ok(event) => route::record(webhook, &caller, event, &body, trace, received),
            Err(why) if webhook.rejects_invalid => return Err(why),
            Err(why) => {
                account.kept = Some(why.refusal);
                route::dead_letter(webhook, &caller, &why, &body, trace, received)
            }
        };
        self.delivery.hold(record, deadline).await
    }

    /// Who calls, as far as the head tells.
    fn authenticate<'r>(
        &self,
        head: &'r Parts,
        webhook: &'r Webhook,
        received: Timestamp,
        account: &mut Account<'_>,
    ) -> Result<Proof<'r>, Rejection> {
        if let Some(caller) = &account.peer.caller {
            account.caller = Some(caller.shared_name());
            account.span = self.begin_span(head, webhook);
            return Ok(Proof::Caller(caller.clone()));
        }
        match webhook.way.claim(&head.headers, head.uri.path(), received)? {
            Claim::Key(hash) => {
                let keys = self.rules.keys.load();
                let caller = self.admit(keys.find(&hash)?, head, webhook, received, account)?;
                Ok(Proof::Caller(caller))
            }
            Claim::Signature(signature) => Ok(Proof::Signature(signature)),
        }
    }

    /// Who calls, now that the body is there.
    fn verify(
        &self,
        proof: Proof<'_>,
        body: &[u8],
        head: &Parts,
        webhook: &Webhook,
        received: Timestamp,
        account: &mut Account<'_>,
    ) -> Result<Caller, Rejection> {
        match proof {
            Proof::Caller(caller) => Ok(caller),
            Proof::Signature(signature) => {
                let keys = self.rules.keys.load();
                let key = keys.find_signer(&signature, body, &webhook.route.webhook)?;
                self.admit(key, head, webhook, received, account)
            }
        }
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
            self.rules.metrics.key_used_after_end(name);
        }
        let caller = key.admit(&webhook.route.webhook, account.peer.address.ip(), received)?;
        account.span = self.begin_span(head, webhook);
        Ok(caller)
    }

    /// Not before it is known who calls: a stranger's `traceparent` would fill the collector.
    fn begin_span(&self, head: &Parts, webhook: &Webhook) -> Option<Box<Span>> {
        let tracer = self.rules.tracer.as_ref()?;
        tracer.begin(webhook, route::trace_parent(&head.headers))
    }

    fn check_head(&self, headers: &HeaderMap) -> Result<(), Rejection> {
        let limits = &self.rules.limits;
        let bytes: usize =
            headers.iter().map(|(name, value)| name.as_str().len() + value.len()).sum();
        if headers.len() > limits.max_headers || bytes > limits.max_header_bytes {
            return Err(Refusal::HeadTooLarge.plain());
        }
        Ok(())
    }

    /// Counts and logs a connection that was closed without a request's end.
    pub fn closed(&self, closed: &Closed) {
        let peer = Peer { address: closed.address, caller: None };
        let mut account = Account::open(&self.rules, peer);
        account.close(Err(&closed.why.plain()));
    }
}

impl Handler for Arc<Ingest> {
    async fn handle(&self, mut peer: Peer, request: Request<Incoming>) -> Response {
        let (head, body) = request.into_parts();
        peer.address = http::sender(peer.address, &head.headers, &self.rules.limits);
        let version = head.version;
        let mut account = Account::open(&self.rules, peer);
        let result = self.receive(&head, body, &mut account).await;
        account.close(result.as_ref().map(Receipt::held));
        // The answer takes over the map of the request's headers: hyper will use it for the next
        // request of the connection, and nobody allocates one.
        let mut headers = head.headers;
        headers.clear();
        let mut response = match result {
            Ok(receipt) => accepted(&self.rules.webhooks, account.webhook, headers, receipt),
            Err(rejection) => refused(headers, &rejection, account.challenge()),
        };
        // A sender that keeps its connection is asked to make its next one elsewhere.
        if version < Version::HTTP_2 && self.rules.health.is_draining() {
            response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
        }
        response
    }
}

/// The one 200; it takes a receipt.
fn accepted(
    webhooks: &[Webhook],
    webhook: Option<usize>,
    mut headers: HeaderMap,
    _receipt: Receipt,
) -> Response {
    let answer = webhook.and_then(|index| webhooks.get(index)).map(|w| w.answer.clone());
    let text = HeaderValue::from_static("text/plain; charset=utf-8");
    headers.insert(header::CONTENT_TYPE, text);
    let mut response = Response::new(Full::new(answer.unwrap_or_default()));
    *response.headers_mut() = headers;
    response
}

/// A refusal as problem details (RFC 9457).
fn refused(mut headers: HeaderMap, rejection: &Rejection, challenge: &'static str) -> Response {
    let facts = rejection.refusal.facts();
    let problem = serde_json::json!({
        "type": format!("urn:hookbridge:problem:{}", facts.tag),
        "title": facts.text,
        "status": facts.status.as_u16(),
        "detail": rejection.detail,
    });
    let mut response = Response::new(Full::new(Bytes::from(problem.to_string())));
    *response.status_mut() = facts.status;
    let problem = HeaderValue::from_static("application/problem+json");
    headers.insert(header::CONTENT_TYPE, problem);
    match facts.status {
        StatusCode::UNAUTHORIZED => {
            headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static(challenge));
        }
        StatusCode::METHOD_NOT_ALLOWED => {
            headers.insert(header::ALLOW, HeaderValue::from_static("POST"));
        }
        StatusCode::SERVICE_UNAVAILABLE => {
            headers.insert(header::RETRY_AFTER, RETRY_AFTER_SECONDS);
        }
        _ => {}
    }
    *response.headers_mut() = headers;
    response
}

/// What is known of a request while it is served. Closed once, with its outcome; dropped before that,
/// the sender is gone.
struct Account<'r> {
    rules: &'r Rules,
    peer: Peer,
    started: Instant,
    webhook: Option<usize>,
    /// The name of the caller, or of the key that may not be used so.
    caller: Option<Arc<str>>,
    span: Option<Box<Span>>,
    /// Why the body is kept as a dead letter, if it is.
    kept: Option<Refusal>,
    is_closed: bool,
}

impl<'r> Account<'r> {
    fn open(rules: &'r Rules, peer: Peer) -> Account<'r> {
        let started = Instant::now();
        let (webhook, caller, span, kept) = (None, None, None, None);
        Account { rules, peer, started, webhook, caller, span, kept, is_closed: false }
    }

    fn close(&mut self, result: Result<Held, &Rejection>) {
        self.is_closed = true;
        let took = self.started.elapsed();
        let outcome = result.map_or_else(|r| Outcome::Refused(r.refusal), Outcome::Held);
        self.rules.metrics.request(self.webhook, outcome, took.as_secs_f64());
        if let (Some(span), Some(webhook)) = (self.span.take(), self.webhook) {
            span.end(&self.rules.webhooks[webhook], outcome);
        }
        match result {
            Ok(_) => self.count_dead_letter(),
            Err(rejection) => {
                self.log(rejection, u64::try_from(took.as_millis()).unwrap_or(u64::MAX));
            }
        }
    }

    fn count_dead_letter(&self) {
        let Some(why) = self.kept else { return };
        let reason = match why {
            Refusal::Malformed => DeadLetterReason::Malformed,
            _ => DeadLetterReason::Invalid,
        };
        self.rules.metrics.dead_letter(self.webhook_name(), reason);
        let (webhook, caller) = (self.webhook_name(), self.caller_name());
        tracing::warn!(
            webhook, caller, peer = %self.peer, reason = reason.tag(),
            "Body kept as a dead letter."
        );
    }

    /// How a sender would have to prove who it is.
    fn challenge(&self) -> &'static str {
        let webhook = self.webhook.map(|index| &self.rules.webhooks[index]);
        webhook.map_or(Way::Bearer.challenge(), |webhook| webhook.way.challenge())
    }

    fn webhook_name(&self) -> &str {
        self.webhook.map_or(NO_WEBHOOK, |index| &self.rules.webhooks[index].route.webhook)
    }

    fn caller_name(&self) -> &str {
        self.caller.as_deref().unwrap_or_default()
    }

    /// One line for each failed request; success is quiet.
    fn log(&self, rejection: &Rejection, took_ms: u64) {
        let facts = rejection.refusal.facts();
        let status = facts.status.as_u16();
        let (webhook, caller) = (self.webhook_name(), self.caller_name());
        let cause = rejection.cause.as_deref().unwrap_or(&rejection.detail);
        // A level must be known when the program is compiled.
        macro_rules! line {
            ($level:expr) => {
                tracing::event!(
                    $level, outcome = facts.tag, status, webhook, caller, peer = %self.peer,
                    took_ms, cause, "Request refused."
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
            self.close(Err(&Refusal::SenderGone.plain()));
        }
    }
}

/// The time in whole milliseconds, as Kafka counts.
fn now() -> Timestamp {
    let now = Timestamp::now();
    Timestamp::from_millisecond(now.as_millisecond()).unwrap_or(now)
}
