//! The questions that some senders ask before they send: whether an address is there, and whose it is. A
//! question is never a click.

use bytes::Bytes;
use hyper::Method;
use hyper::header::{ALLOW, HeaderName, HeaderValue, X_CONTENT_TYPE_OPTIONS};
use hyper::http::request::Parts;

use super::event::form::Form;
use super::event::json::text_at;
use super::event::{Pointer, as_text};
use super::outcome::{Refusal, Rejection};

/// The longest challenge that is answered, in bytes.
const CHALLENGE_MAX: usize = 4_096;

/// Which questions a webhook answers.
#[derive(Debug)]
pub enum Verification {
    None,
    /// GET, HEAD and OPTIONS without a query: with one it could be a click.
    Ok,
    /// The handshake of CloudEvents (HTTP 1.1 Web Hooks for Event Delivery, section 4).
    CloudEvents,
    /// A challenge in the query, which is sent back.
    Query {
        challenge: String,
        /// The parameter that must be a key for the webhook.
        key: Option<String>,
    },
    /// A challenge in the body of a POST that is no event, which is sent back.
    Body(Pointer),
}

/// The answer to a question.
#[derive(Debug)]
pub struct VerificationAnswer {
    /// None: the webhook's own.
    pub text: Option<Bytes>,
    pub content_type: &'static str,
    pub headers: Vec<(HeaderName, HeaderValue)>,
}

impl Verification {
    /// The answer to a request without a body, if it is a question: what has a body could be a click.
    ///
    /// # Errors
    ///
    /// [`Refusal::Unauthorized`] where the key of a challenge is wrong.
    pub fn of_head(
        &self,
        head: &Parts,
        has_body: bool,
        is_key: impl FnOnce(&[u8]) -> bool,
    ) -> Result<Option<VerificationAnswer>, Rejection> {
        match self {
            Verification::None | Verification::Body(_) => Ok(None),
            _ if has_body => Ok(None),
            Verification::Ok => {
                let is_question = is_safe(&head.method) && head.uri.query().is_none();
                Ok(is_question.then(|| answer(None)))
            }
            Verification::CloudEvents => Ok(handshake(head)),
            Verification::Query { challenge, key } => {
                let Ok(query) = Form::read(head.uri.query().unwrap_or_default().as_bytes()) else {
                    return Ok(None);
                };
                let Some(challenge) = query.get(challenge).filter(|text| is_challenge(text)) else {
                    return Ok(None);
                };
                let is_right = key
                    .as_ref()
                    .is_none_or(|name| query.get(name).is_some_and(|key| is_key(key.as_bytes())));
                if !is_right {
                    return Err(
                        Refusal::Unauthorized.detailed("The key of the challenge is not known")
                    );
                }
                Ok(Some(answer(Some(Bytes::copy_from_slice(challenge.as_bytes())))))
            }
        }
    }

    /// The answer to the body of a POST that is no event, if it is a question: an object with the challenge.
    pub fn of_body(&self, body: &[u8]) -> Option<VerificationAnswer> {
        let Verification::Body(pointer) = self else { return None };
        let challenge = text_at(as_text(body).ok()?, pointer).filter(|text| is_challenge(text))?;
        let name = pointer.tokens().last()?;
        let text = serde_json::json!({ (name): challenge }).to_string();
        Some(VerificationAnswer { content_type: "application/json", ..answer(Some(text.into())) })
    }
}

fn is_safe(method: &Method) -> bool {
    [Method::GET, Method::HEAD, Method::OPTIONS].contains(method)
}

fn is_challenge(text: &str) -> bool {
    (1..=CHALLENGE_MAX).contains(&text.len())
}

/// An answer that no browser takes for anything but text.
fn answer(text: Option<Bytes>) -> VerificationAnswer {
    VerificationAnswer {
        text,
        content_type: "text/plain; charset=utf-8",
        headers: vec![
            (X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff")),
            (ALLOW, HeaderValue::from_static("POST")),
        ],
    }
}

/// Allows a sender what it asks for: from its origin, at any rate. Its key decides later.
fn handshake(head: &Parts) -> Option<VerificationAnswer> {
    let origin = head.headers.get("webhook-request-origin")?;
    if head.method != Method::OPTIONS {
        return None;
    }
    let mut answer = answer(None);
    answer.headers.push((HeaderName::from_static("webhook-allowed-origin"), origin.clone()));
    if head.headers.contains_key("webhook-request-rate") {
        let any = HeaderValue::from_static("*");
        answer.headers.push((HeaderName::from_static("webhook-allowed-rate"), any));
    }
    Some(answer)
}

#[cfg(test)]
mod tests {
    use hyper::Request;

    use super::*;

    /// The text of the answer, or its headers where it has no text of its own.
    #[track_caller]
    fn check(verification: &Verification, line: &str, headers: &[(&str, &str)], expected: &str) {
        let (method, target) = line.split_once(' ').expect("a method and a target");
        let mut request = Request::builder().method(method).uri(target);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let (head, ()) = request.body(()).expect("a request").into_parts();
        let has_body = head.headers.contains_key("content-length");
        let found = match verification.of_head(&head, has_body, |key| key == b"right") {
            Err(why) => why.detail.into_owned(),
            Ok(None) => "no question".into(),
            Ok(Some(VerificationAnswer { text: Some(text), .. })) => {
                String::from_utf8(text.to_vec()).expect("text")
            }
            Ok(Some(VerificationAnswer { headers, .. })) => headers[2..]
                .iter()
                .map(|(name, value)| format!("{name}: {value:?}"))
                .collect::<Vec<_>>()
                .join(", "),
        };
        assert_eq!(found, expected, "{verification:?} {line} {headers:?}");
    }

    #[test]
    fn each_webhook_answers_its_questions_alone() {
        let none = "no question";
        let sized = [("content-length", "7")];
        for line in ["GET /a", "HEAD /a", "OPTIONS /a", "POST /a", "GET /a?challenge=x"] {
            check(&Verification::None, line, &[], none);
        }
        check(&Verification::Ok, "GET /a", &[], "");
        check(&Verification::Ok, "GET /a?event=click", &[], none);
        check(&Verification::Ok, "GET /a", &sized, none);
        check(&Verification::Ok, "HEAD /a", &[], "");
        check(&Verification::Ok, "OPTIONS /a", &[], "");
        check(&Verification::Ok, "POST /a", &[], none);
        check(&Verification::Ok, "DELETE /a", &[], none);

        let origin = ("webhook-request-origin", "eventemitter.example.com");
        let allowed = "webhook-allowed-origin: \"eventemitter.example.com\"";
        check(&Verification::CloudEvents, "OPTIONS /a", &[origin], allowed);
        let rate = ("webhook-request-rate", "120");
        let both = format!("{allowed}, webhook-allowed-rate: \"*\"");
        check(&Verification::CloudEvents, "OPTIONS /a", &[origin, rate], &both);
        check(&Verification::CloudEvents, "OPTIONS /a", &[rate], none);
        check(&Verification::CloudEvents, "GET /a", &[origin], none);
        check(&Verification::CloudEvents, "POST /a", &[origin], none);

        let query = Verification::Query { challenge: "challenge".into(), key: None };
        check(&query, "GET /a?challenge=ab%20c+d", &[], "ab c d");
        check(&query, "POST /a?x=y&challenge=%3Cb%3E", &[], "<b>");
        check(&query, "POST /a?challenge=x", &sized, none);
        check(&query, "PUT /a?challenge=x", &sized, none);
        check(&query, "GET /a", &[], none);
        check(&query, "GET /a?challenge=", &[], none);
        check(&query, "GET /a?challenge=%ff", &[], none);
        check(&query, &format!("GET /a?challenge={}", "x".repeat(4_097)), &[], none);
        let key = Some("hub.verify_token".into());
        let meta = Verification::Query { challenge: "hub.challenge".into(), key };
        let wrong = "The key of the challenge is not known";
        check(&meta, "GET /a?hub.challenge=1&hub.verify_token=right", &[], "1");
        check(&meta, "GET /a?hub.challenge=1&hub.verify_token=wrong", &[], wrong);
        check(&meta, "GET /a?hub.challenge=1", &[], wrong);
        check(&meta, "GET /a?hub.verify_token=right", &[], none);
    }

    #[test]
    fn a_challenge_in_a_body_is_sent_back_as_json() {
        let slack = Verification::Body(Pointer::parse("/challenge").expect("a pointer"));
        let of = |verification: &Verification, body: &str| {
            let answer = verification.of_body(body.as_bytes());
            answer.and_then(|answer| String::from_utf8(answer.text?.to_vec()).ok())
        };
        let asked = r#"{"token":"t","challenge":"3e\"Z","type":"url_verification"}"#;
        assert_eq!(of(&slack, asked).as_deref(), Some(r#"{"challenge":"3e\"Z"}"#));
        let deep = Verification::Body(Pointer::parse("/data/nonce").expect("a pointer"));
        assert_eq!(of(&deep, r#"{"data":{"nonce":"n"}}"#).as_deref(), Some(r#"{"nonce":"n"}"#));
        for other in [r#"{"challenge":7}"#, r#"{"challenge":""}"#, "{}", "[]", "no JSON", "{"] {
            assert_eq!(of(&slack, other), None, "{other}");
        }
        assert_eq!(of(&Verification::Ok, asked), None);
    }
}
