//! One request to another server, on a connection of its own.

use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Incoming;
use hyper::client::conn::http1;
use hyper::header::{HOST, HeaderValue};
use hyper::{Request, Response, StatusCode, Uri};
use hyper_util::rt::TokioIo;
use tokio::time::timeout;

use super::Connector;

/// Why there is no answer.
pub type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// Sends a request to the server that its URI names and returns the status of the answer. Blocks the
/// thread, which must have no runtime.
///
/// # Errors
///
/// No such host, no connection, or no answer in HTTP within the time.
pub fn send_blocking(
    request: Request<Full<Bytes>>,
    within: Duration,
) -> Result<StatusCode, BoxError> {
    let connector = Connector::new(request.uri(), None)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let answer = runtime.block_on(async { timeout(within, send(&connector, request)).await });
    // A name that is still being looked up is not waited for.
    runtime.shutdown_background();
    Ok(answer.map_err(|_elapsed| "no answer in time")??.status())
}

/// Gets a URL of the connector's server: the status and the body of the answer. Follows no redirection;
/// the caller holds the deadline.
///
/// # Errors
///
/// No connection, no answer in HTTP, or a body of more than `max` bytes.
pub async fn get(
    connector: &Connector,
    url: &str,
    max: usize,
) -> Result<(StatusCode, Bytes), BoxError> {
    let answer = send(connector, Request::get(url).body(Full::default())?).await?;
    let status = answer.status();
    #[expect(clippy::disallowed_methods, reason = "the body is limited")]
    let body = Limited::new(answer.into_body(), max).collect().await?;
    Ok((status, body.to_bytes()))
}

async fn send(
    connector: &Connector,
    mut request: Request<Full<Bytes>>,
) -> Result<Response<Incoming>, BoxError> {
    let authority = request.uri().authority().ok_or("the URI names no host")?;
    let host = HeaderValue::from_str(authority.as_str())?;
    request.headers_mut().insert(HOST, host);
    let path = request.uri().path_and_query().cloned();
    *request.uri_mut() = path.map_or_else(Uri::default, Uri::from);
    let stream = TokioIo::new(connector.connect().await?);
    let (mut sender, connection) = http1::handshake(stream).await?;
    // It ends with the answer, or when nobody waits for that any longer.
    tokio::spawn(connection);
    Ok(sender.send_request(request).await?)
}
