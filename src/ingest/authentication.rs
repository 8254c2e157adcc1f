//! Who calls: from the head of a request, or from its body where that is signed.

use hyper::body::{Body, Incoming};
use hyper::http::request::Parts;
use jiff::SignedDuration;
use tokio::time::Instant;

use super::request_log::RequestLog;
use super::sns::Confirmed;
use crate::click::auth::sns::Sns;
use crate::click::auth::{self, Caller, Claim, FormSigning, Key, Signature, hash_key};
use crate::click::outcome::{Refusal, Rejection};
use crate::click::record::trace_parent;
use crate::click::verification::VerificationAnswer;
use crate::click::webhook::Webhook;

/// What the head of a request proves.
pub(super) enum Proof<'w> {
    Caller(Caller),
    /// It is checked against the body.
    Signature(Signature),
    /// The signature is in the body.
    InBody {
        tolerance: SignedDuration,
    },
    /// The form in the body is signed.
    Form(&'w FormSigning),
    Sns(&'w Sns),
}

/// What the head and the body of a request prove.
pub(super) enum Verified {
    Caller(Caller),
    /// The request asked for a confirmation, which it has now, and has no event.
    Confirmed(Confirmed),
}

/// Judges the head of a request.
pub(super) fn authenticate<'w>(
    head: &Parts,
    webhook: &'w Webhook,
    log: &mut RequestLog<'_>,
) -> Result<Proof<'w>, Rejection> {
    if let Some(caller) = log.peer.caller.clone() {
        return admit(caller, head, webhook, log).map(Proof::Caller);
    }
    match webhook.auth_scheme.claim(&head.headers, head.uri.path(), log.received)? {
        Claim::Key(hash) => {
            let keys = log.state.keys.load();
            admit_key(keys.find(&hash)?, head, webhook, log).map(Proof::Caller)
        }
        Claim::Signature(signature) => Ok(Proof::Signature(signature)),
        Claim::InBody { tolerance } => Ok(Proof::InBody { tolerance }),
        Claim::Form(signing) => Ok(Proof::Form(signing)),
        Claim::Sns(sns) => Ok(Proof::Sns(sns)),
    }
}

/// Judges the body of a request, where its head does not prove who calls.
pub(super) async fn verify(
    proof: Proof<'_>,
    body: &[u8],
    head: &Parts,
    webhook: &Webhook,
    log: &mut RequestLog<'_>,
) -> Result<Verified, Rejection> {
    let signature = match proof {
        Proof::Caller(caller) => return Ok(Verified::Caller(caller)),
        Proof::Signature(signature) => signature,
        Proof::InBody { tolerance } => auth::read_mailgun(body, tolerance, log.received)?,
        Proof::Form(signing) => signing.read(&head.headers, body)?,
        // Boxed, so that other requests have no room for it.
        Proof::Sns(sns) => return Box::pin(verify_sns(sns, body, head, webhook, log)).await,
    };
    let keys = log.state.keys.load();
    let key = keys.find_signer(&signature, body, &webhook.route.webhook)?;
    let caller = admit_key(key, head, webhook, log)?;
    if let Some(token) = &signature.token {
        log.state.tokens.note(token, body)?;
    }
    Ok(Verified::Caller(caller))
}

/// The answer to a question of a sender, if the head of its request is one.
///
/// # Errors
///
/// [`Refusal::Unauthorized`] where a challenge needs a key.
pub(super) fn verification<'r>(
    head: &Parts,
    body: &Incoming,
    webhook: &'r Webhook,
    log: &mut RequestLog<'r>,
) -> Result<Option<VerificationAnswer>, Rejection> {
    let is_key = |text: &[u8]| is_key(text, webhook, log);
    let answer = webhook.verification.of_head(head, !body.is_end_stream(), is_key);
    if !matches!(answer, Ok(None)) {
        log.webhook = Some(webhook);
    }
    answer
}

/// Whether this is a key for the webhook, and may be used now.
fn is_key(text: &[u8], webhook: &Webhook, log: &RequestLog<'_>) -> bool {
    let keys = log.state.keys.load();
    let found = keys.find(&hash_key(text));
    let (name, address) = (&webhook.route.webhook, log.peer.address.ip());
    found.is_ok_and(|key| key.admit(name, address, log.received).is_ok())
}

/// Judges a message of Amazon SNS, which is asked for its certificate and may be sent a confirmation.
async fn verify_sns(
    sns: &Sns,
    body: &[u8],
    head: &Parts,
    webhook: &Webhook,
    log: &mut RequestLog<'_>,
) -> Result<Verified, Rejection> {
    let message = sns.read(body, log.received)?;
    let deadline = Instant::now() + log.state.limits.answer_timeout();
    let client = log.state.sns_clients.get(&webhook.index);
    let client = client.ok_or_else(|| Refusal::SnsUnreachable.plain())?;
    let certificate = client.certificate(&message, log.received, deadline).await?;
    let caller = message.verify(&certificate, log.received)?;
    let caller = admit(caller, head, webhook, log)?;
    let confirmed = client.confirm(&message, sns, deadline).await?;
    Ok(confirmed.map_or(Verified::Caller(caller), Verified::Confirmed))
}

fn admit_key(
    key: &Key,
    head: &Parts,
    webhook: &Webhook,
    log: &mut RequestLog<'_>,
) -> Result<Caller, Rejection> {
    let name = log.caller.insert(key.name().clone());
    if key.has_expired(log.received) {
        log.state.metrics.key_used_after_end(name);
    }
    let caller = key.admit(&webhook.route.webhook, log.peer.address.ip(), log.received)?;
    admit(caller, head, webhook, log)
}

/// Applies the caller's rate limit and begins the span. An unknown client has no span: its
/// `traceparent` could flood the collector.
fn admit(
    caller: Caller,
    head: &Parts,
    webhook: &Webhook,
    log: &mut RequestLog<'_>,
) -> Result<Caller, Rejection> {
    log.caller.get_or_insert_with(|| caller.name().clone());
    log.state.rate_limits.caller(caller.name(), log.started)?;
    let tracer = log.state.tracer.as_ref();
    log.span = tracer.and_then(|t| t.begin(webhook, trace_parent(&head.headers)));
    Ok(caller)
}
