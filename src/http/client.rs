//! One request to another server, on a connection of its own.

use std::error::Error;
use std::pin::pin;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::header::{HOST, HeaderValue};
use hyper::{Request, StatusCode, Uri};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::Connector;

type Failure = Box<dyn Error + Send + Sync>;

/// Sends a request to the host that its URI names, in plain text, and waits for the answer's status;
/// its body is not read. Blocks the thread, so it is not for one that has a runtime.
///
/// # Errors
///
/// No such host, no connection, or no answer in HTTP within the time.
pub fn send_blocking(
    request: Request<Full<Bytes>>,
    within: Duration,
) -> Result<StatusCode, Failure> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let answer = runtime.block_on(async { timeout(within, exchange(request)).await });
    // A name that is still being looked up is not waited for.
    runtime.shutdown_background();
    answer.unwrap_or_else(|_elapsed| Err("no answer in time".into()))
}

/// Gets what a server has at a path, with the answer's status, if it is no more than so many bytes. The
/// caller holds the deadline. No redirection is followed.
///
/// # Errors
///
/// No connection, no answer in HTTP, or one that is too large.
pub async fn get(
    connector: &Connector,
    host: &str,
    path: &str,
    max: usize,
) -> Result<(StatusCode, Bytes), Failure> {
    let request = Request::get(path).header(HOST, host).body(Full::default())?;
    over(connector.connect().await?, request, Some(max)).await
}

async fn exchange(mut request: Request<Full<Bytes>>) -> Result<StatusCode, Failure> {
    let uri = request.uri();
    let authority = uri.authority().ok_or("the URI names no host")?.clone();
    let path = uri.path_and_query().map_or("/", |path| path.as_str()).parse::<Uri>()?;
    *request.uri_mut() = path;
    request.headers_mut().insert(HOST, HeaderValue::from_str(authority.as_str())?);
    let address = format!("{}:{}", authority.host(), authority.port_u16().unwrap_or(80));
    let stream = TcpStream::connect(address).await?;
    over(stream, request, None).await.map(|(status, _)| status)
}

/// Sends a request over a connection; of the answer's body at most so many bytes are read, or none.
async fn over(
    stream: impl AsyncRead + AsyncWrite + Unpin,
    request: Request<Full<Bytes>>,
    max: Option<usize>,
) -> Result<(StatusCode, Bytes), Failure> {
    let (mut sender, connection) =
        hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
    let mut answer = pin!(async {
        let answer = sender.send_request(request).await?;
        let status = answer.status();
        let body = match max {
            Some(max) => read(answer.into_body(), max).await?,
            None => Bytes::new(),
        };
        Ok((status, body))
    });
    tokio::select! {
        answer = &mut answer => answer,
        // A server that closes after its answer ends both at once: the answer is there all the same.
        _ended = connection => answer.await,
    }
}

async fn read(mut body: Incoming, max: usize) -> Result<Bytes, Failure> {
    let mut whole = Vec::new();
    while let Some(frame) = body.frame().await {
        let Ok(data) = frame?.into_data() else { continue };
        if whole.len() + data.len() > max {
            return Err("the answer is too large".into());
        }
        whole.extend_from_slice(&data);
    }
    Ok(whole.into())
}
