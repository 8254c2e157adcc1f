//! Where clicks go, and their requests.

use bytes::Bytes;
use http_body_util::Full;
use hyper::header::{AUTHORIZATION, CONTENT_TYPE, HOST, HeaderValue, USER_AGENT};
use hyper::http::uri::PathAndQuery;
use hyper::{Request, Uri};

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
    /// Every request, but for its body.
    request: Request<Full<Bytes>>,
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
        let path = url.path_and_query().map_or("/", |path| path.as_str());
        let (path, credentials) = match (key, method) {
            (None, _) => (path.to_owned(), None),
            (Some(key), AuthMethod::Bearer) => (path.to_owned(), Some(format!("Bearer {key}"))),
            (Some(key), AuthMethod::Basic) => {
                let key = data_encoding::BASE64.encode(key.as_bytes());
                (path.to_owned(), Some(format!("Basic {key}")))
            }
            (Some(key), AuthMethod::PathSecret) => {
                (format!("{}/{key}", path.trim_end_matches('/')), None)
            }
        };
        let path =
            PathAndQuery::try_from(path).map_err(|_| "the key has bytes that no path can hold")?;
        let mut request = Request::post(path)
            .header(HOST, url.authority().map_or("", |authority| authority.as_str()))
            .header(USER_AGENT, concat!("hookbridge/", env!("CARGO_PKG_VERSION")))
            .header(CONTENT_TYPE, "application/json");
        if let Some(credentials) = credentials {
            let credentials = HeaderValue::from_str(&credentials)
                .map_err(|_| "the key has bytes that no header can hold")?;
            request = request.header(AUTHORIZATION, credentials);
        }
        let request = request.body(Full::default()).map_err(|error| error.to_string())?;
        Ok(Target { connector, request })
    }

    /// # Errors
    ///
    /// Why there is no connection.
    pub async fn connect(&self) -> Result<Connection, ExchangeError> {
        let stream = self.connector.connect().await.map_err(ExchangeError::Connect)?;
        Connection::over(stream).await
    }

    /// The request with this body.
    pub fn request(&self, body: Bytes) -> Request<Full<Bytes>> {
        self.request.clone().map(|_| Full::new(body))
    }
}
