//! Explains the first failure of a load, and says what to do about it.

use std::io::ErrorKind;

use hyper::Uri;
use serde_json::Value;

use crate::cli::terminal::one_line;
use crate::load::{ExchangeError, ServerResponse};

/// Other text of an answer is cut to this many characters.
const TEXT_MAX: usize = 200;

/// What went wrong, and what to do.
pub fn explain(first: &Result<ServerResponse, ExchangeError>, url: &Uri, has_key: bool) -> String {
    let server = url.authority().map_or("", |authority| authority.as_str());
    match first {
        Err(failure) => format!("{server}: {failure}; {}", for_failure(failure, url)),
        Ok(answer) => {
            let (status, detail) = (answer.status, detail(&answer.text));
            format!("{server} answers {status}: {detail}; {}", for_status(status, has_key))
        }
    }
}

fn for_failure(failure: &ExchangeError, url: &Uri) -> &'static str {
    match failure {
        ExchangeError::Connect(error) => match error.kind() {
            ErrorKind::ConnectionRefused => {
                "nothing listens there: is the bridge running, and is this the port of http.listen?"
            }
            ErrorKind::InvalidData if error.to_string().contains("certificate") => {
                "the server's certificate is not one to trust: name its authority with --ca-file, \
                 and use the name that the certificate is for"
            }
            ErrorKind::InvalidData | ErrorKind::UnexpectedEof => {
                "the server does not speak TLS there: try http:// or another port"
            }
            _ => "look at the host and the port of --url, and at the network between",
        },
        ExchangeError::Late => {
            "the server takes connections or requests and says nothing: look at its log, and at \
             what stands between; --timeout waits longer"
        }
        ExchangeError::Lost(_) if url.scheme_str() == Some("http") => {
            "look at the server's log; where it has TLS, use https://"
        }
        ExchangeError::Lost(_) => "look at the server's log",
        ExchangeError::NotHttp(_) => "another program listens there, or it has TLS: try https://",
    }
}

/// The server's own explanation: the bridge's refusals have it as RFC 9457 does.
fn detail(text: &str) -> String {
    let problem: Value = serde_json::from_str(text).unwrap_or_default();
    problem["detail"].as_str().map_or_else(|| one_line(text, TEXT_MAX), str::to_owned)
}

fn for_status(status: u16, has_key: bool) -> &'static str {
    match status {
        401 if !has_key => {
            "no key was sent: put it into HOOKBRIDGE_API_KEY, or into a file for --key-file"
        }
        401 => {
            "this key is not one of the bridge's, or --auth is not the webhook's: `hookbridge key` \
             makes one and prints the line for the settings"
        }
        403 => "the key is good, but not for this webhook or from this address: see its entry",
        404 | 405 => {
            "--url must end in the path of a webhook, such as /webhooks/email-marketing/click, \
             and its port must be that of http.listen, not admin.listen"
        }
        400 | 422 => "the webhook has invalid = \"reject\" and does not take such bodies",
        413 => "the body is larger than http.max_body_bytes, or than the topic takes",
        429 => "lower --rate, or raise the http.max_rate settings of the bridge",
        431 => "the request's head is larger than http.max_header_bytes",
        502..=504 => {
            "clicks cannot be held now: look at the bridge's log, at its /readyz and at Kafka"
        }
        200..300 => "only 200 says that a click is held: is this a hookbridge?",
        300..400 => "the server sends senders elsewhere: give that address as --url",
        _ => "look at the server's log",
    }
}
