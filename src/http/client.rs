//! Connections to other servers, plain TCP or TLS, direct or through a proxy, and single requests to them.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Incoming;
use hyper::client::conn::http1;
use hyper::header::{HOST, HeaderValue};
use hyper::{Request, Response, StatusCode, Uri};
use hyper_util::rt::TokioIo;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{CertificateError, ClientConfig, RootCertStore};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_util::either::Either;

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
    block_on(within, async { Ok(send(&connector, request).await?.status()) })
}

/// The same, with the body of the answer.
///
/// # Errors
///
/// As [`send_blocking`], or a body of more than `max` bytes.
pub fn ask_blocking(
    request: Request<Full<Bytes>>,
    within: Duration,
    max: usize,
) -> Result<(StatusCode, Bytes), BoxError> {
    let connector = Connector::new(request.uri(), None)?;
    block_on(within, async { read(send(&connector, request).await?, max).await })
}

fn block_on<T>(
    within: Duration,
    answer: impl Future<Output = Result<T, BoxError>>,
) -> Result<T, BoxError> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let answer = runtime.block_on(async { timeout(within, answer).await });
    // A name that is still being looked up is not waited for.
    runtime.shutdown_background();
    answer.map_err(|_elapsed| "no answer in time")?
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
    fetch(connector, Request::get(url).body(Full::default())?, max).await
}

/// Sends a request to the connector's server: the status and the body of the answer. Follows no redirection;
/// the caller holds the deadline.
///
/// # Errors
///
/// No connection, no answer in HTTP, or a body of more than `max` bytes.
pub async fn fetch(
    connector: &Connector,
    request: Request<Full<Bytes>>,
    max: usize,
) -> Result<(StatusCode, Bytes), BoxError> {
    read(send(connector, request).await?, max).await
}

async fn read(answer: Response<Incoming>, max: usize) -> Result<(StatusCode, Bytes), BoxError> {
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
    Ok(exchange(connector.connect().await?, request).await?)
}

/// Sends a request over a connection of its own.
async fn exchange(
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    request: Request<Full<Bytes>>,
) -> hyper::Result<Response<Incoming>> {
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
    // It ends with the answer, or when nobody waits for that any longer.
    tokio::spawn(connection.with_upgrades());
    sender.send_request(request).await
}

/// A connection, plain or TLS.
pub type ClientStream = Either<TcpStream, Box<TlsStream<TcpStream>>>;

/// Why a server's certificate is not accepted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CertificateFault {
    UnknownAuthority,
    OtherName,
    Expired,
    NotYetValid,
}

/// Connects to one server.
pub struct Connector {
    server: (String, u16),
    tls: Option<(TlsConnector, ServerName<'static>)>,
    proxy: Option<(String, u16)>,
}

impl Connector {
    /// For the server of this URL. With `https` its certificate must be of one of these authorities, in
    /// PEM; without any, of one that the system trusts.
    ///
    /// # Errors
    ///
    /// What cannot be used, and what to do instead.
    pub fn new(url: &Uri, authorities: Option<&[u8]>) -> Result<Connector, String> {
        let (Some(scheme), Some(host)) = (url.scheme_str(), host(url)) else {
            return Err(format!("{url} is no URL; write it like http://host:8080/path"));
        };
        let (port, tls) = match scheme {
            "http" => (80, None),
            "https" => {
                let name = ServerName::try_from(host.clone());
                let name = name.map_err(|_| format!("{host} is no name of a server"))?;
                (443, Some((tls_connector(authorities)?, name)))
            }
            other => return Err(format!("{other} is not spoken here; use http or https")),
        };
        let server = (host, url.port_u16().unwrap_or(port));
        Ok(Connector { server, tls, proxy: None })
    }

    /// The same through a proxy, where there is one, by its CONNECT.
    pub fn via(self, proxy: Option<&Uri>) -> Connector {
        let proxy = proxy.and_then(|url| Some((host(url)?, url.port_u16().unwrap_or(80))));
        Connector { proxy, ..self }
    }

    /// Connects. The caller holds the deadline.
    ///
    /// # Errors
    ///
    /// No such host, no connection, no handshake.
    pub async fn connect(&self) -> io::Result<ClientStream> {
        let (host, port) = self.proxy.as_ref().unwrap_or(&self.server);
        let mut stream = TcpStream::connect((host.as_str(), *port)).await?;
        // A request must not wait in the kernel for another (Nagle's algorithm).
        stream.set_nodelay(true)?;
        if self.proxy.is_some() {
            stream = self.open_tunnel(stream).await.map_err(io::Error::other)?;
        }
        Ok(match &self.tls {
            None => Either::Left(stream),
            Some((tls, name)) => Either::Right(Box::new(tls.connect(name.clone(), stream).await?)),
        })
    }

    /// What is wrong with the server's certificate, if that is what is wrong with the server.
    pub async fn certificate_fault(&self) -> Option<CertificateFault> {
        let error = self.connect().await.err()?;
        match error.get_ref()?.downcast_ref::<rustls::Error>()? {
            rustls::Error::InvalidCertificate(fault) => Some(match fault {
                CertificateError::NotValidForName
                | CertificateError::NotValidForNameContext { .. } => CertificateFault::OtherName,
                CertificateError::Expired | CertificateError::ExpiredContext { .. } => {
                    CertificateFault::Expired
                }
                CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => {
                    CertificateFault::NotYetValid
                }
                _ => CertificateFault::UnknownAuthority,
            }),
            _ => None,
        }
    }

    /// Has the proxy connect to the server (RFC 9110, section 9.3.6).
    async fn open_tunnel(&self, stream: TcpStream) -> Result<TcpStream, BoxError> {
        let server = match &self.server {
            (host, port) if host.contains(':') => format!("[{host}]:{port}"),
            (host, port) => format!("{host}:{port}"),
        };
        let request = Request::connect(&server).header(HOST, &server).body(Full::default())?;
        let answer = exchange(stream, request).await?;
        if !answer.status().is_success() {
            return Err(format!("the proxy answered {}", answer.status().as_u16()).into());
        }
        let tunnel = hyper::upgrade::on(answer).await?.downcast::<TokioIo<TcpStream>>();
        // The server behind it says nothing before it is spoken to.
        Ok(tunnel.map_err(|_| "the proxy gave no tunnel")?.io.into_inner())
    }
}

/// The host of a URL. An address of IPv6 stands in brackets there, and nowhere else.
fn host(url: &Uri) -> Option<String> {
    url.host().map(|host| host.trim_start_matches('[').trim_end_matches(']').to_owned())
}

fn tls_connector(authorities: Option<&[u8]>) -> Result<TlsConnector, String> {
    let roots = match authorities {
        Some(pem) => roots(pem)?,
        None => system_roots()?,
    };
    let mut config = ClientConfig::builder().with_root_certificates(roots).with_no_client_auth();
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(TlsConnector::from(Arc::new(config)))
}

fn system_roots() -> Result<RootCertStore, String> {
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    if roots.is_empty() {
        return Err(
            "the system trusts no authority: install ca-certificates, or name a file of some"
                .into(),
        );
    }
    Ok(roots)
}

/// The authorities of a file.
pub(super) fn roots(pem: &[u8]) -> Result<RootCertStore, String> {
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(pem) {
        let certificate = certificate.map_err(|error| format!("is not PEM: {error}"))?;
        roots.add(certificate).map_err(|error| error.to_string())?;
    }
    if roots.is_empty() { Err("holds no certificate in PEM".into()) } else { Ok(roots) }
}
