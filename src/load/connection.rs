//! Connections of the load: a request goes out, its response comes back.

use std::io;
use std::pin::pin;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::Request;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use tokio::time::Instant;

use crate::http::ClientStream;

/// Bytes of a body that are read. A longer one ends its connection.
const TEXT_MAX: usize = 4_096;

/// A connection that was idle for longer may be about to be closed by the server.
const IDLE_MAX: Duration = Duration::from_secs(5);

/// A connection that is kept alive between requests.
pub struct Connection {
    requests: http1::SendRequest<Full<Bytes>>,
    /// Reads and writes; polled only during an exchange, so that no connection needs a task of its own.
    driver: http1::Connection<TokioIo<ClientStream>, Full<Bytes>>,
    /// When it became ready for another request; none while it is not.
    ready: Option<Instant>,
}

#[derive(Debug)]
pub struct ServerResponse {
    pub status: u16,
    /// The body, as far as it was read.
    pub text: String,
}

/// Why there is no response.
#[derive(Debug, thiserror::Error)]
pub enum ExchangeError {
    #[error("{0}")]
    Connect(#[source] io::Error),
    #[error("the connection ended before the answer: {0}")]
    Lost(String),
    #[error("no answer in time")]
    Late,
    #[error("the answer is not HTTP/1.1: {0}")]
    NotHttp(String),
}

impl ExchangeError {
    /// The name under which it is counted.
    pub fn kind(&self) -> &'static str {
        match self {
            ExchangeError::Connect(_) => "not connected",
            ExchangeError::Lost(_) => "connection lost",
            ExchangeError::Late => "no answer in time",
            ExchangeError::NotHttp(_) => "not HTTP",
        }
    }
}

impl From<hyper::Error> for ExchangeError {
    fn from(error: hyper::Error) -> ExchangeError {
        let mut cause: &dyn std::error::Error = &error;
        while let Some(source) = cause.source() {
            cause = source;
        }
        let text = cause.to_string();
        // What remains of hyper's errors is about what it read, before the request or after.
        match cause.downcast_ref::<hyper::Error>() {
            Some(error) if !error.is_incomplete_message() && !error.is_canceled() => {
                ExchangeError::NotHttp(text)
            }
            _ => ExchangeError::Lost(text),
        }
    }
}

impl Connection {
    pub async fn over(stream: ClientStream) -> Result<Connection, ExchangeError> {
        let (requests, driver) = http1::handshake(TokioIo::new(stream)).await?;
        Ok(Connection { requests, driver, ready: Some(Instant::now()) })
    }

    /// Whether it may be used for another request.
    pub fn is_usable(&self) -> bool {
        self.ready.is_some_and(|since| since.elapsed() <= IDLE_MAX)
    }

    /// Sends a request and reads its response. The caller holds the deadline.
    ///
    /// # Errors
    ///
    /// Why there is no response.
    pub async fn exchange(
        &mut self,
        request: Request<Full<Bytes>>,
    ) -> Result<ServerResponse, ExchangeError> {
        self.ready = None;
        let mut exchange = pin!(async {
            let response = respond(&mut self.requests, request).await?;
            self.ready = self.requests.is_ready().then(Instant::now);
            Ok(response)
        });
        tokio::select! {
            biased;
            response = &mut exchange => response,
            // What it read before it ended is still there.
            _ended = &mut self.driver => exchange.await,
        }
    }
}

async fn respond(
    requests: &mut http1::SendRequest<Full<Bytes>>,
    request: Request<Full<Bytes>>,
) -> Result<ServerResponse, ExchangeError> {
    let response = requests.send_request(request).await?;
    let status = response.status().as_u16();
    let (mut body, mut text) = (response.into_body(), Vec::new());
    while text.len() < TEXT_MAX
        && let Some(frame) = body.frame().await
    {
        text.extend(frame?.into_data().unwrap_or_default());
    }
    Ok(ServerResponse { status, text: String::from_utf8_lossy(&text).into_owned() })
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::{TcpListener, TcpStream};
    use tokio_util::either::Either;

    use super::*;

    /// What is made of these bytes from a server that then closes or does not, and whether the connection is
    /// usable.
    async fn response_to(
        bytes: &str,
        closes: bool,
    ) -> Result<(ServerResponse, bool), ExchangeError> {
        let (listener, bytes) = (TcpListener::bind("127.0.0.1:0").await, bytes.to_owned());
        let listener = listener.expect("a port");
        let address = listener.local_addr().expect("an address");
        let server = tokio::spawn(async move {
            let (mut stream, _) = listener.accept().await.expect("a connection");
            let mut request = Vec::new();
            while !request.ends_with(b"ask") {
                stream.read_buf(&mut request).await.expect("a request");
            }
            // Fails where the client has read enough.
            let _ = stream.write_all(bytes.as_bytes()).await;
            (!closes).then_some(stream)
        });
        let stream = TcpStream::connect(address).await.expect("a connection");
        let mut connection = Connection::over(Either::Left(stream)).await?;
        let request = Request::post("/").body("ask".into()).expect("a request");
        let response = connection.exchange(request).await;
        let is_usable = connection.is_usable();
        drop(connection);
        server.await.expect("the server");
        response.map(|response| (response, is_usable))
    }

    #[tokio::test]
    async fn responses_are_read_as_far_as_they_go() {
        for (bytes, status, text, is_usable) in [
            ("HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok", 200, "ok", true),
            ("HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 204 None\r\n\r\n", 204, "", true),
            (
                "HTTP/1.1 401 No\r\nContent-Length: 3\r\nConnection: Close\r\n\r\nkey",
                401,
                "key",
                false,
            ),
            (
                "HTTP/1.1 502 Bad\r\ntransfer-encoding: chunked\r\n\r\n3\r\nbad\r\n0\r\n\r\n",
                502,
                "bad",
                true,
            ),
            ("HTTP/1.0 200 OK\r\ncontent-length: 0\r\n\r\n", 200, "", false),
            ("HTTP/1.1 200 OK\r\ncontent-length: 1\r\n\r\nxx", 200, "x", false),
        ] {
            let (response, found) = response_to(bytes, false).await.expect(bytes);
            let found = (response.status, response.text.as_str(), found);
            assert_eq!(found, (status, text, is_usable), "{bytes:?}");
        }
        let (response, is_usable) =
            response_to("HTTP/1.1 502 Bad\r\n\r\nbad", true).await.expect("a response");
        assert_eq!((response.status, response.text.as_str(), is_usable), (502, "bad", false));
    }

    #[tokio::test]
    async fn what_is_no_response_is_an_error() {
        let kind = async |bytes| response_to(bytes, true).await.expect_err(bytes).kind();
        assert_eq!(kind("").await, "connection lost");
        assert_eq!(kind("HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nok").await, "connection lost");
        assert_eq!(kind("SSH-2.0-x\r\n").await, "not HTTP");
    }

    #[tokio::test]
    async fn a_greeting_before_the_request_is_not_http() {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("an address");
        let stream = TcpStream::connect(address).await.expect("a connection");
        let (mut server, _) = listener.accept().await.expect("a connection");
        server.write_all(b"SSH-2.0-x\r\n").await.expect("written");
        stream.readable().await.expect("a greeting");
        let mut connection = Connection::over(Either::Left(stream)).await.expect("a connection");
        let error = connection.exchange(Request::default()).await.expect_err("no response");
        assert_eq!(error.kind(), "not HTTP", "{error}");
    }

    #[tokio::test]
    async fn a_long_text_is_cut_and_ends_its_connection() {
        let body = "x".repeat(1 << 20);
        let bytes = format!("HTTP/1.1 404 No\r\ncontent-length: {}\r\n\r\n{body}", body.len());
        let (response, is_usable) = response_to(&bytes, false).await.expect("a response");
        assert_eq!((response.status, is_usable), (404, false));
        assert!((TEXT_MAX..1 << 20).contains(&response.text.len()), "{}", response.text.len());
    }
}
