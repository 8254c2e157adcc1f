//! TLS: certificate, key and authorities as one unit, and the handshake.

use std::path::Path;
use std::sync::Arc;

use arc_swap::ArcSwap;
use jiff::Timestamp;
use rustls::crypto::{CryptoProvider, ring};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use rustls::server::danger::ClientCertVerifier;
use rustls::{RootCertStore, ServerConfig};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use tracing::{debug, warn};

use super::Drain;
use crate::click::auth::Caller;
use crate::config::{self, Problem};
use crate::observe::metrics::{HandshakeFailure, TlsMetrics};

/// What one reading of the files gave, checked as a unit.
pub struct TlsIdentity {
    config: Arc<ServerConfig>,
    /// When the certificate ends.
    pub ends: Timestamp,
}

impl TlsIdentity {
    /// Reads certificate, key and, where there are any, the authorities for senders.
    ///
    /// # Errors
    ///
    /// The file that cannot be used. Nothing of a key is in it.
    pub fn read(settings: &config::TlsSettings) -> Result<TlsIdentity, Problem> {
        let wrong = |problem: String| Problem::new("http.tls", problem);
        let chain = certificates("http.tls.cert_file", &settings.cert_file)?;
        let ends = chain.first().and_then(end);
        let ends = ends.ok_or_else(|| {
            let problem = format!("{} holds no certificate in PEM", settings.cert_file.display());
            Problem::new("http.tls.cert_file", problem)
        })?;
        let key = config::read_file("http.tls.key_file", &settings.key_file)?;
        let key = PrivateKeyDer::from_pem_slice(&key).map_err(|_| {
            let problem = format!("{} holds no private key in PEM", settings.key_file.display());
            Problem::new("http.tls.key_file", problem)
        })?;
        let provider = Arc::new(ring::default_provider());
        let builder = ServerConfig::builder_with_provider(provider.clone())
            .with_safe_default_protocol_versions()
            .map_err(|error| wrong(error.to_string()))?;
        let builder = match &settings.client_ca_file {
            Some(file) => builder.with_client_cert_verifier(verifier(file, provider)?),
            None => builder.with_no_client_auth(),
        };
        let mut config = builder.with_single_cert(chain, key).map_err(|error| {
            wrong(format!("the key and the certificate cannot be used together: {error}"))
        })?;
        config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        Ok(TlsIdentity { config: Arc::new(config), ends })
    }
}

fn certificates(name: &str, path: &Path) -> Result<Vec<CertificateDer<'static>>, Problem> {
    let text = config::read_file(name, path)?;
    CertificateDer::pem_slice_iter(&text).collect::<Result<_, _>>().map_err(|error| {
        Problem::new(name, format!("{} is not certificates in PEM: {error}", path.display()))
    })
}

fn end(certificate: &CertificateDer) -> Option<Timestamp> {
    let (_, certificate) = x509_parser::parse_x509_certificate(certificate).ok()?;
    Timestamp::from_second(certificate.validity().not_after.timestamp()).ok()
}

/// Senders must show a certificate of one of these authorities.
fn verifier(
    path: &Path,
    provider: Arc<CryptoProvider>,
) -> Result<Arc<dyn ClientCertVerifier>, Problem> {
    const NAME: &str = "http.tls.client_ca_file";
    let wrong = |error: &dyn std::fmt::Display| {
        Problem::new(NAME, format!("{} cannot be used: {error}", path.display()))
    };
    let mut roots = RootCertStore::empty();
    for certificate in certificates(NAME, path)? {
        roots.add(certificate).map_err(|error| wrong(&error))?;
    }
    let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider).build();
    verifier.map_err(|error| wrong(&error))
}

/// The TLS of a listener.
pub struct Tls {
    in_force: ArcSwap<ServerConfig>,
    metrics: TlsMetrics,
}

impl Tls {
    pub fn new(pair: TlsIdentity, metrics: TlsMetrics) -> Tls {
        let tls = Tls { in_force: ArcSwap::new(pair.config.clone()), metrics };
        tls.replace(pair);
        tls
    }

    /// From now on handshakes are made with this. Connections that are open keep what they have.
    pub fn replace(&self, pair: TlsIdentity) {
        if pair.ends <= Timestamp::now() {
            warn!(ended = %pair.ends, "The TLS certificate has ended: senders will refuse it.");
        }
        self.metrics.certificate_expires.set(pair.ends.as_second());
        self.in_force.store(pair.config);
    }

    /// The handshake, and who the sender's certificate says it is. None if it fails or takes longer than
    /// `http.header_timeout_ms`: that is counted, and logged for those who want to know.
    pub(super) async fn accept(
        &self,
        stream: TcpStream,
        limits: &config::HttpSettings,
        drain: &Drain,
    ) -> Option<(Box<TlsStream<TcpStream>>, Option<Caller>)> {
        let peer = stream.peer_addr().ok();
        let handshake = TlsAcceptor::from(self.in_force.load_full()).accept(stream);
        let result = tokio::select! {
            result = timeout(limits.header_timeout(), handshake) => result,
            () = drain.first_word_is_over() => return None,
        };
        let (failure, why) = match result {
            Ok(Ok(stream)) => match caller(&stream) {
                Ok(caller) => return Some((Box::new(stream), caller)),
                Err(Nameless) => {
                    (HandshakeFailure::ClientCertificate, "the certificate names nobody".into())
                }
            },
            Ok(Err(error)) => (failure(&error), error.to_string()),
            Err(late) => (HandshakeFailure::Timeout, late.to_string()),
        };
        self.metrics.handshakes_failed[failure].inc();
        debug!(peer = ?peer, reason = failure.tag(), why, "TLS handshake failed.");
        None
    }
}

/// A certificate that names nobody.
struct Nameless;

/// Who the sender is by its certificate; none where no certificates are asked for.
fn caller(stream: &TlsStream<TcpStream>) -> Result<Option<Caller>, Nameless> {
    let chain = stream.get_ref().1.peer_certificates();
    let Some(certificate) = chain.and_then(|chain| chain.first()) else { return Ok(None) };
    Caller::of_certificate(certificate).map(Some).ok_or(Nameless)
}

fn failure(error: &std::io::Error) -> HandshakeFailure {
    use rustls::Error::{InvalidCertificate, NoCertificatesPresented};
    match error.get_ref().and_then(|error| error.downcast_ref()) {
        Some(InvalidCertificate(_) | NoCertificatesPresented) => {
            HandshakeFailure::ClientCertificate
        }
        Some(_) => HandshakeFailure::Protocol,
        None => HandshakeFailure::HungUp,
    }
}
