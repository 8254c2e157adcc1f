//! The path of a request: `Ingest::receive` takes it through every step, top to bottom.
//!
//! - `authentication.rs`: from a request to its caller.
//! - `records.rs`: from a body to its records.
//! - `request_log.rs`: what is known of a request; counts and logs its outcome.
//! - `answer.rs`: the 200 and the refusals.
//! - `rate_limits.rs`: requests, failures and log lines, each with its limit.
//! - `tokens.rs`: tokens that were used before.
//! - `sns.rs`: requests to Amazon SNS.
//! - `spans.rs`: spans of requests, exported over OTLP.

mod answer;
mod authentication;
mod rate_limits;
mod records;
mod request_log;
mod sns;
mod spans;
mod tokens;

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;

use arc_swap::ArcSwap;
use bytes::Bytes;
use futures_util::future::Either;
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::header::{self, HeaderMap, HeaderValue};
use hyper::http::request::Parts;
use hyper::{Request, Response, Version};
use tokio::time::Instant;

use crate::click::auth::Keys;
use crate::click::outcome::{Refusal, Rejection};
use crate::click::webhook::{self, Webhook};
use crate::config::{Config, HttpSettings, Problem};
use crate::delivery::{Delivery, DeliveryState, Receipt};
use crate::http::{self, Admission, Coding, Handler, Peer, Tls, TlsIdentity};
use crate::observe::health::Health;
use crate::observe::metrics::Metrics;
use answer::Accepted;
use authentication::{Verified, authenticate, verification, verify};
use rate_limits::RateLimits;
use records::{Records, records};
use request_log::RequestLog;
use sns::SnsClient;
use spans::Tracer;
use tokens::Tokens;

pub use answer::hint;

/// Serves requests on one worker thread.
pub struct Ingest {
    pub state: Arc<IngestState>,
    pub delivery: Delivery,
}

/// What all workers share.
pub struct IngestState {
    webhooks: Vec<Webhook>,
    keys: ArcSwap<Keys>,
    pub limits: HttpSettings,
    rate_limits: RateLimits,
    admission: Admission,
    tokens: Tokens,
    /// By [`Webhook::index`].
    sns_clients: HashMap<usize, SnsClient>,
    pub tls: Option<Tls>,
    pub health: Arc<Health>,
    pub metrics: Arc<Metrics>,
    /// None where requests are not traced.
    pub tracer: Option<Tracer>,
}

impl IngestState {
    /// # Errors
    ///
    /// A setting or a file that cannot be read.
    pub fn new(config: &Config, delivery: &DeliveryState) -> Result<IngestState, Problem> {
        let DeliveryState { health, metrics, .. } = delivery.clone();
        let webhooks = config.webhooks()?;
        let identity = config.http.tls.as_ref().map(TlsIdentity::read).transpose()?;
        let state = IngestState {
            keys: ArcSwap::default(),
            limits: config.http.clone(),
            rate_limits: RateLimits::new(&config.http, metrics.log.lines_left_out.clone()),
            admission: Admission::new(&config.http, metrics.in_flight.clone()),
            tokens: Tokens::default(),
            sns_clients: sns::clients(config, &webhooks)?,
            tls: identity.map(|identity| Tls::new(identity, metrics.tls.clone())),
            tracer: Tracer::start(config),
            webhooks,
            health,
            metrics,
        };
        state.set_keys(config.callers()?);
        Ok(state)
    }

    /// Replaces the keys. A request that was authenticated before keeps its caller.
    pub fn set_keys(&self, keys: Keys) {
        self.metrics.set_keys(keys.names());
        self.keys.store(Arc::new(keys));
    }
}

impl Ingest {
    /// The path of a request.
    async fn receive<'r>(
        &'r self,
        head: &Parts,
        body: Incoming,
        log: &mut RequestLog<'r>,
    ) -> Result<Accepted, Rejection> {
        let IngestState { limits, rate_limits, admission, webhooks, .. } = &*self.state;
        rate_limits.address(log.peer.address.ip(), log.started)?;
        http::check_head(head, limits)?;
        let webhook = webhook::find(webhooks, head.uri.path())?;
        if let Some(answer) = verification(head, &body, webhook, log)? {
            return Ok(Accepted::Verified(answer));
        }
        webhook::check_method(&head.method)?;
        log.webhook = Some(webhook);
        // Authentication comes before the body, so that an unknown client costs no memory.
        let proof = authenticate(head, webhook, log)?;
        let coding = Coding::of(&head.headers);
        let mut slot = admission.admit()?;
        let body = http::read_body(body, &mut slot, limits).await?;
        // A signature is over the body as it was sent, so it comes before unpacking.
        let caller = match verify(proof, &body, head, webhook, log).await? {
            Verified::Caller(caller) => caller,
            Verified::Confirmed(confirmed) => return Ok(Accepted::Confirmed(confirmed)),
        };
        let body = coding.unpack(body, &mut slot, limits)?;
        if let Some(answer) = webhook.question(&body.bytes) {
            return Ok(Accepted::Verified(answer));
        }
        let deadline = Instant::now() + limits.answer_timeout();
        let records = records(body, webhook, &caller, head, &mut slot, log)?;
        self.hold(records, deadline).await.map(Accepted::Held)
    }

    /// Holds the records of one request. Not `async`, and several records boxed, so that the future of a
    /// request with one event has no room for more.
    fn hold(
        &self,
        records: Records,
        deadline: Instant,
    ) -> impl Future<Output = Result<Receipt, Rejection>> {
        match records {
            Records::One(record) => Either::Left(self.delivery.hold(record, deadline)),
            Records::Several(records) => {
                Either::Right(Box::pin(self.delivery.hold_all(records, deadline)))
            }
        }
    }
}

impl Handler for Arc<Ingest> {
    type Body = Full<Bytes>;

    async fn handle(&self, mut peer: Peer, request: Request<Incoming>) -> Response<Full<Bytes>> {
        let (head, body) = request.into_parts();
        peer.address = http::sender_address(peer.address, &head.headers, &self.state.limits);
        let mut log = RequestLog::open(&self.state, peer);
        let mut result = self.receive(&head, body, &mut log).await;
        if let Err(why) = &mut result {
            // A failed authentication, at whichever step, counts against its address.
            self.state.rate_limits.failure(why, log.peer.address.ip(), log.started);
        }
        log.close(result.as_ref().map(Accepted::outcome));
        // What follows a request that two programs may read differently is not read. While draining, a
        // sender that keeps its connection is asked to open its next one elsewhere.
        let is_ambiguous = result.as_ref().is_err_and(|why| why.refusal == Refusal::NotHttp);
        let closes =
            head.version < Version::HTTP_2 && (is_ambiguous || self.state.health.is_draining());
        // The answer reuses the request's header map, and hyper reuses it for the next request of the
        // connection: no allocation for either.
        let mut headers = head.headers;
        headers.clear();
        let mut response = match result {
            Ok(accepted) => answer::ok(headers, log.webhook, accepted),
            Err(why) => answer::refused(headers, log.webhook, &why),
        };
        if closes {
            response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
        }
        response
    }

    fn panicked(&self) -> Response<Full<Bytes>> {
        answer::refused(HeaderMap::new(), None, &Refusal::Panicked.plain())
    }

    fn closed(&self, address: SocketAddr, why: Refusal) {
        let peer = Peer { address, caller: None };
        RequestLog::open(&self.state, peer).close(Err(&why.plain()));
    }
}
