//! A connection to another server: plain TCP or TLS, direct or through a proxy.

use std::io;
use std::sync::Arc;

use hyper::Uri;
use rustls::crypto::ring;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_util::either::Either;

/// A connection, plain or TLS.
pub type ClientStream = Either<TcpStream, Box<TlsStream<TcpStream>>>;

/// Connects to one server.
pub struct Connector {
    host: String,
    port: u16,
    tls: Option<(TlsConnector, ServerName<'static>)>,
    proxy: Option<(String, u16)>,
}

/// Bytes of a proxy's answer.
const PROXY_ANSWER_MAX: usize = 8 << 10;

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
        Ok(Connector { host, port: url.port_u16().unwrap_or(port), tls, proxy: None })
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
        let here = (self.host.as_str(), self.port);
        let (host, port) = self.proxy.as_ref().map_or(here, |(host, port)| (host, *port));
        let mut stream = TcpStream::connect((host, port)).await?;
        // A request must not wait in the kernel for another (Nagle's algorithm).
        stream.set_nodelay(true)?;
        if self.proxy.is_some() {
            self.open_tunnel(&mut stream).await?;
        }
        Ok(match &self.tls {
            None => Either::Left(stream),
            Some((tls, name)) => Either::Right(Box::new(tls.connect(name.clone(), stream).await?)),
        })
    }

    /// Has the proxy connect to the server (RFC 9110, section 9.3.6).
    async fn open_tunnel(&self, stream: &mut TcpStream) -> io::Result<()> {
        let server = match self.host.contains(':') {
            true => format!("[{}]:{}", self.host, self.port),
            false => format!("{}:{}", self.host, self.port),
        };
        let request = format!("CONNECT {server} HTTP/1.1\r\nhost: {server}\r\n\r\n");
        stream.write_all(request.as_bytes()).await?;
        let mut answer = Vec::new();
        loop {
            let mut rest = (&mut *stream).take((PROXY_ANSWER_MAX - answer.len()) as u64);
            if rest.read_buf(&mut answer).await? == 0 {
                return Err(io::Error::other("the proxy answered without an end"));
            }
            let mut headers = [httparse::EMPTY_HEADER; 64];
            let mut head = httparse::Response::new(&mut headers);
            let parsed = head.parse(&answer);
            let parsed =
                parsed.map_err(|_| io::Error::other("the proxy does not speak HTTP/1.1"))?;
            if parsed.is_partial() {
                continue;
            }
            return match head.code.unwrap_or_default() {
                // The server behind it says nothing before it is spoken to.
                200..300 => Ok(()),
                status => Err(io::Error::other(format!("the proxy answered {status}"))),
            };
        }
    }
}

/// The host of a URL. An address of IPv6 stands in brackets there, and nowhere else.
fn host(url: &Uri) -> Option<String> {
    url.host().map(|host| host.trim_start_matches('[').trim_end_matches(']').to_owned())
}

fn tls_connector(authorities: Option<&[u8]>) -> Result<TlsConnector, String> {
    let builder = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(|error| error.to_string())?;
    let roots = match authorities {
        Some(pem) => roots(pem)?,
        None => system_roots()?,
    };
    let mut config = builder.with_root_certificates(roots).with_no_client_auth();
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
