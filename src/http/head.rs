//! Checks of a request's head that hyper leaves out.
//!
//! hyper refuses most of what two programs could read differently: lengths that differ or are no number, spaces
//! before a colon, folded lines, a body whose last coding is not `chunked`. With both a length and chunks it
//! reads the chunks and closes the connection after the answer.

use hyper::Version;
use hyper::header::{self, HeaderValue};
use hyper::http::request::Parts;

use crate::click::outcome::{Refusal, Rejection};
use crate::config::HttpSettings;

/// Checks a head against the limits and RFC 9112.
///
/// # Errors
///
/// [`Refusal::HeadTooLarge`] or [`Refusal::NotHttp`].
pub fn check_head(head: &Parts, limits: &HttpSettings) -> Result<(), Rejection> {
    let (mut bytes, mut hosts, mut codings) = (0, 0, 0);
    for (name, value) in &head.headers {
        bytes += name.as_str().len() + value.len();
        if name == header::HOST {
            hosts += 1;
            if !is_host(value) {
                return Err(Refusal::NotHttp.detailed("The Host header is not a host"));
            }
        } else if name == header::TRANSFER_ENCODING {
            codings += 1;
            if codings > 1 || !value.as_bytes().eq_ignore_ascii_case(b"chunked") {
                let detail = "Transfer-Encoding may be chunked alone";
                return Err(Refusal::NotHttp.detailed(detail));
            }
        }
    }
    if head.headers.len() > limits.max_headers || bytes > limits.max_header_bytes {
        return Err(Refusal::HeadTooLarge.plain());
    }
    // HTTP/1.0 has no Host header; HTTP/2 has `:authority`.
    if hosts > 1 || (hosts == 0 && head.version == Version::HTTP_11) {
        return Err(Refusal::NotHttp.detailed("There must be one Host header"));
    }
    Ok(())
}

/// Whether this can be a host with a port (RFC 9110, section 7.2); it may be empty.
fn is_host(value: &HeaderValue) -> bool {
    value
        .as_bytes()
        .iter()
        .all(|byte| byte.is_ascii_alphanumeric() || b"-._~:[]%!$&'()*+;=".contains(byte))
}
