//! Where clicks go, and the head of their requests.

use std::io::Write;

use hyper::Uri;
use hyper::header::HeaderValue;
use hyper::http::uri::PathAndQuery;

use super::clicks::Bodies;
use super::connection::{Connection, ExchangeError};
use crate::http::Connector;

/// How the sender proves who it is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum AuthMethod {
    /// `Authorization: Bearer KEY`
    #[default]
    Bearer,
    /// `Authorization: Basic`, the key being user:password
    Basic,
    /// The key as one more segment of the path
    PathSecret,
}

/// Where clicks go.
pub struct Target {
    connector: Connector,
    /// The head of every request, up to the length of its body.
    head: Vec<u8>,
}

impl Target {
    /// # Errors
    ///
    /// What of these cannot be used. The text holds nothing of the key.
    pub fn new(
        url: &Uri,
        key: Option<&str>,
        method: AuthMethod,
        authorities: Option<&[u8]>,
    ) -> Result<Target, String> {
        let connector = Connector::new(url, authorities)?;
        let mut path = url.path_and_query().map_or("/", |path| path.as_str()).to_owned();
        let host = url.authority().map_or("", |authority| authority.as_str());
        let mut lines = format!("host: {host}\r\n");
        if let Some(key) = key {
            // A line break in the key would begin another header.
            HeaderValue::from_str(key).map_err(|_| "the key has bytes that no header can hold")?;
            match method {
                AuthMethod::Bearer => lines.push_str(&format!("authorization: Bearer {key}\r\n")),
                AuthMethod::Basic => {
                    let key = data_encoding::BASE64.encode(key.as_bytes());
                    lines.push_str(&format!("authorization: Basic {key}\r\n"));
                }
                AuthMethod::PathSecret => {
                    path = format!("{}/{key}", path.trim_end_matches('/'));
                    PathAndQuery::try_from(path.as_str())
                        .map_err(|_| "the key has bytes that no path can hold")?;
                }
            }
        }
        let version = env!("CARGO_PKG_VERSION");
        let head = format!(
            "POST {path} HTTP/1.1\r\n{lines}user-agent: hookbridge/{version}\r\n\
             content-type: application/json\r\ncontent-length: "
        );
        Ok(Target { connector, head: head.into_bytes() })
    }

    /// # Errors
    ///
    /// Why there is no connection.
    pub async fn connect(&self) -> Result<Connection, ExchangeError> {
        self.connector.connect().await.map(Connection::over).map_err(ExchangeError::Connect)
    }

    /// Replaces the buffer by the request of the click with this number.
    pub fn write(&self, bodies: &mut Bodies, number: u64, request: &mut Vec<u8>) {
        request.clear();
        request.extend_from_slice(&self.head);
        let body = bodies.get(number);
        // Writing to memory does not fail.
        let _ = write!(request, "{}\r\n\r\n", body.len());
        request.extend_from_slice(body);
    }
}
