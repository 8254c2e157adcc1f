//! The answers to a request: the one 200, and the problem details of a refusal (RFC 9457).

use bytes::Bytes;
use http_body_util::Full;
use hyper::header::{self, HeaderMap, HeaderName, HeaderValue};
use hyper::{Response, StatusCode};

use super::sns::Confirmed;
use crate::click::auth::AuthScheme;
use crate::click::outcome::{NoClick, Outcome, Rejection};
use crate::click::verification::VerificationAnswer;
use crate::click::webhook::Webhook;
use crate::delivery::Receipt;
use crate::http;

/// What earns the 200.
pub(super) enum Accepted {
    Held(Receipt),
    /// There was no event to hold.
    Confirmed(Confirmed),
    /// Neither was there here.
    Verified(VerificationAnswer),
}

impl Accepted {
    pub(super) fn outcome(&self) -> Outcome {
        match self {
            Accepted::Held(receipt) => Outcome::Held(receipt.held()),
            Accepted::Confirmed(_) => Outcome::NoClick(NoClick::Confirmed),
            Accepted::Verified(_) => Outcome::NoClick(NoClick::Verified),
        }
    }
}

/// The one 200; it takes what earns it.
pub(super) fn ok(
    headers: HeaderMap,
    webhook: Option<&Webhook>,
    accepted: Accepted,
) -> Response<Full<Bytes>> {
    let text = || webhook.map(|webhook| webhook.answer.clone()).unwrap_or_default();
    match accepted {
        Accepted::Held(_) | Accepted::Confirmed(_) => {
            answer(StatusCode::OK, headers, "text/plain; charset=utf-8", text())
        }
        Accepted::Verified(question) => {
            let text = question.text.unwrap_or_else(text);
            let mut response = answer(StatusCode::OK, headers, question.content_type, text);
            response.headers_mut().extend(question.headers);
            response
        }
    }
}

/// The answer to a refused request.
pub(super) fn refused(
    headers: HeaderMap,
    webhook: Option<&Webhook>,
    rejection: &Rejection,
) -> Response<Full<Bytes>> {
    let facts = rejection.refusal.facts();
    let status = status(webhook, rejection);
    let problem = serde_json::json!({
        "type": facts.problem_type(),
        "title": facts.text,
        "status": status.as_u16(),
        "detail": rejection.detail,
    });
    let challenge = webhook.map_or(&AuthScheme::Bearer, |webhook| &webhook.auth_scheme).challenge();
    let problem = problem.to_string().into();
    let mut response = answer(status, headers, "application/problem+json", problem);
    response.headers_mut().extend(hint(facts.status, challenge));
    response
}

/// The status of a refusal, as the senders of this webhook understand it.
pub(super) fn status(webhook: Option<&Webhook>, rejection: &Rejection) -> StatusCode {
    let status = rejection.refusal.facts().status;
    webhook.map_or(status, |webhook| webhook.status(status))
}

/// The header that tells a refused sender what it can do about it.
pub fn hint(status: StatusCode, challenge: &'static str) -> Option<(HeaderName, HeaderValue)> {
    let (name, value) = match status {
        StatusCode::UNAUTHORIZED => (header::WWW_AUTHENTICATE, challenge),
        StatusCode::METHOD_NOT_ALLOWED => (header::ALLOW, "POST"),
        StatusCode::UNSUPPORTED_MEDIA_TYPE => (header::ACCEPT_ENCODING, http::CODINGS),
        // Rate limits are per second.
        StatusCode::TOO_MANY_REQUESTS => (header::RETRY_AFTER, "1"),
        StatusCode::SERVICE_UNAVAILABLE => (header::RETRY_AFTER, "5"),
        _ => return None,
    };
    Some((name, HeaderValue::from_static(value)))
}

fn answer(
    status: StatusCode,
    mut headers: HeaderMap,
    content_type: &'static str,
    body: Bytes,
) -> Response<Full<Bytes>> {
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(content_type));
    let mut response = Response::new(Full::new(body));
    *response.status_mut() = status;
    *response.headers_mut() = headers;
    response
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::click::outcome::Refusal;

    #[test]
    fn a_panic_is_answered_500() {
        let answer = refused(HeaderMap::new(), None, &Refusal::Panicked.plain());
        assert_eq!(answer.status(), StatusCode::INTERNAL_SERVER_ERROR);
        assert_eq!(answer.headers()[header::CONTENT_TYPE], "application/problem+json");
    }
}
