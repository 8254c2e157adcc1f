//! Connections of the load: a request goes out, its response comes back.
//!
//! HTTP/1.1 is read by hand, so that a response of 200 costs the load generator no allocation.

use std::io;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::Instant;

use crate::http::ClientStream;

/// Bytes of a response that are read. A longer one ends its connection.
const RESPONSE_MAX: usize = 4_096;
/// Its headers.
const HEADERS_MAX: usize = 64;

/// A connection that is kept alive between requests.
pub struct Connection {
    stream: ClientStream,
    bytes: Box<[u8; RESPONSE_MAX]>,
    used: Instant,
}

#[derive(Debug)]
pub struct ServerResponse {
    pub status: u16,
    /// The body, as far as it was read; empty where the status is 200.
    pub text: String,
    /// Whether the connection is good for another request.
    pub keeps: bool,
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

impl Connection {
    pub fn over(stream: ClientStream) -> Connection {
        Connection { stream, bytes: Box::new([0; RESPONSE_MAX]), used: Instant::now() }
    }

    pub fn is_idle_for(&self, time: Duration) -> bool {
        self.used.elapsed() > time
    }

    /// Sends a request and reads its response. The caller holds the deadline. The connection must not be used
    /// again after an error, or a response that does not keep it.
    ///
    /// # Errors
    ///
    /// Why there is no response.
    pub async fn exchange(&mut self, request: &[u8]) -> Result<ServerResponse, ExchangeError> {
        let written = async {
            self.stream.write_all(request).await?;
            self.stream.flush().await
        };
        // A server may respond before it has read all, and close: the response tells more.
        let broken = written.await.err().map(|error| error.to_string());
        let mut length = 0;
        loop {
            let read = self.stream.read(&mut self.bytes[length..]).await;
            let read = read.map_err(|error| ExchangeError::Lost(error.to_string()))?;
            if read == 0 {
                return Err(ExchangeError::Lost(broken.unwrap_or_else(|| "it was closed".into())));
            }
            length += read;
            if let Some(response) = self.response(&mut length)? {
                self.used = Instant::now();
                return Ok(response);
            }
        }
    }

    /// The response in the first bytes of the buffer, once it is complete or the buffer is full.
    fn response(&mut self, length: &mut usize) -> Result<Option<ServerResponse>, ExchangeError> {
        let is_full = *length == RESPONSE_MAX;
        let mut headers = [httparse::EMPTY_HEADER; HEADERS_MAX];
        let mut head = httparse::Response::new(&mut headers);
        let parsed = head.parse(&self.bytes[..*length]).map_err(not_http)?;
        let (httparse::Status::Complete(head_length), Some(status)) = (parsed, head.code) else {
            return if is_full { Err(not_http("its head is too long")) } else { Ok(None) };
        };
        if status < 200 {
            // An interim response; the final one follows.
            self.bytes.copy_within(head_length..*length, 0);
            *length -= head_length;
            return self.response(length);
        }
        let (mut body, mut keeps) = (None, head.version == Some(1));
        for header in head.headers.iter() {
            if header.name.eq_ignore_ascii_case("content-length") {
                let text = std::str::from_utf8(header.value).ok();
                body = text.and_then(|text| text.trim().parse::<usize>().ok());
            } else if header.name.eq_ignore_ascii_case("connection") {
                keeps &= !header.value.eq_ignore_ascii_case(b"close");
            }
        }
        if matches!(status, 204 | 304) {
            body = Some(0);
        }
        // Unknown where only the end of the connection ends the body.
        let whole = body.map(|body| head_length.saturating_add(body));
        if whole.is_some_and(|whole| *length < whole) && !is_full {
            return Ok(None);
        }
        let text = match status {
            200 => String::new(),
            _ => String::from_utf8_lossy(&self.bytes[head_length..*length]).into_owned(),
        };
        // Bytes behind the response were not asked for.
        Ok(Some(ServerResponse { status, text, keeps: keeps && whole == Some(*length) }))
    }
}

fn not_http(reason: impl ToString) -> ExchangeError {
    ExchangeError::NotHttp(reason.to_string())
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::{TcpListener, TcpStream};
    use tokio_util::either::Either;

    use super::*;

    /// What is made of these bytes from a server that then closes.
    async fn response_to(bytes: &'static str) -> Result<ServerResponse, ExchangeError> {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("an address");
        let server = tokio::spawn(async move {
            let (mut stream, _) = listener.accept().await.expect("a connection");
            stream.read_exact(&mut [0; 3]).await.expect("a request");
            stream.write_all(bytes.as_bytes()).await.expect("written");
        });
        let stream = TcpStream::connect(address).await.expect("a connection");
        let response = Connection::over(Either::Left(stream)).exchange(b"ask").await;
        server.await.expect("the server");
        response
    }

    #[tokio::test]
    async fn responses_are_read_as_far_as_they_go() {
        for (bytes, status, text, keeps) in [
            ("HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok", 200, "", true),
            ("HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 204 None\r\n\r\n", 204, "", true),
            (
                "HTTP/1.1 401 No\r\nContent-Length: 3\r\nConnection: Close\r\n\r\nkey",
                401,
                "key",
                false,
            ),
            ("HTTP/1.1 502 Bad\r\ntransfer-encoding: chunked\r\n\r\n", 502, "", false),
            ("HTTP/1.0 200 OK\r\ncontent-length: 0\r\n\r\n", 200, "", false),
            ("HTTP/1.1 200 OK\r\ncontent-length: 1\r\n\r\nxx", 200, "", false),
        ] {
            let response = response_to(bytes).await.expect(bytes);
            let found = (response.status, response.text.as_str(), response.keeps);
            assert_eq!(found, (status, text, keeps), "{bytes:?}");
        }
    }

    #[tokio::test]
    async fn what_is_no_response_is_an_error() {
        let kind = async |bytes| response_to(bytes).await.expect_err(bytes).kind();
        assert_eq!(kind("").await, "connection lost");
        assert_eq!(kind("HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nok").await, "connection lost");
        assert_eq!(kind("SSH-2.0-x\r\n").await, "not HTTP");
    }
}
