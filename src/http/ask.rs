//! One request to another server, on a connection of its own.

use std::error::Error;
use std::pin::pin;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::Full;
use hyper::header::{HOST, HeaderValue};
use hyper::{Request, StatusCode, Uri};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tokio::time::timeout;

type Failure = Box<dyn Error + Send + Sync>;

/// Sends a request to the host that its URI names, in plain text, and waits for the answer's status;
/// its body is not read. Blocks the thread, so it is not for one that has a runtime.
///
/// # Errors
///
/// No such host, no connection, or no answer in HTTP within the time.
pub fn ask(request: Request<Full<Bytes>>, within: Duration) -> Result<StatusCode, Failure> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let answer = runtime.block_on(async { timeout(within, exchange(request)).await });
    // A name that is still being looked up is not waited for.
    runtime.shutdown_background();
    answer.unwrap_or_else(|_elapsed| Err("no answer in time".into()))
}

async fn exchange(mut request: Request<Full<Bytes>>) -> Result<StatusCode, Failure> {
    let uri = request.uri();
    let authority = uri.authority().ok_or("the URI names no host")?.clone();
    let path = uri.path_and_query().map_or("/", |path| path.as_str()).parse::<Uri>()?;
    *request.uri_mut() = path;
    request.headers_mut().insert(HOST, HeaderValue::from_str(authority.as_str())?);
    let address = format!("{}:{}", authority.host(), authority.port_u16().unwrap_or(80));
    let stream = TcpStream::connect(address).await?;
    let (mut sender, connection) =
        hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
    let mut answer = pin!(sender.send_request(request));
    let answer = tokio::select! {
        answer = &mut answer => answer,
        // A server that closes after its answer ends both at once: the answer is there all the same.
        _ended = connection => answer.await,
    };
    Ok(answer?.status())
}
