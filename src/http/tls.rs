//! TLS of a listener: its certificate, key and authorities, and the handshake.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;

use arc_swap::ArcSwap;
use jiff::Timestamp;
use rustls::ServerConfig;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use tokio::time::timeout;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use tracing::{debug, warn};

use super::client::roots;
use super::{Drain, Transport};
use crate::click::auth::Caller;
use crate::config::{self, HttpSettings, Problem, TlsSettings};
use crate::observe::metrics::{HandshakeFailure, TlsMetrics};

/// A certificate with its key and the authorities for clients, checked together.
pub struct TlsIdentity {
    config: Arc<ServerConfig>,
    /// When the certificate ends.
    pub ends: Timestamp,
}

impl TlsIdentity {
    /// Reads the files of the settings.
    ///
    /// # Errors
    ///
    /// The file that cannot be used. Nothing of a key is in it.
    pub fn read(settings: &TlsSettings) -> Result<TlsIdentity, Problem> {
        let (chain, ends) = read("http.tls.cert_file", &settings.cert_file, |pem| {
            let chain = CertificateDer::pem_slice_iter(pem).collect::<Result<Vec<_>, _>>();
            let chain = chain.map_err(|error| format!("is not certificates in PEM: {error}"))?;
            let ends = chain.first().and_then(end).ok_or("holds no certificate in PEM")?;
            Ok((chain, ends))
        })?;
        let key = read("http.tls.key_file", &settings.key_file, |pem| {
            PrivateKeyDer::from_pem_slice(pem).map_err(|_| "holds no private key in PEM".into())
        })?;
        let builder = match &settings.client_ca_file {
            Some(file) => {
                let verifier = read("http.tls.client_ca_file", file, |pem| {
                    let roots = Arc::new(roots(pem)?);
                    let verifier = WebPkiClientVerifier::builder(roots).build();
                    verifier.map_err(|error| format!("cannot be used: {error}"))
                })?;
                ServerConfig::builder().with_client_cert_verifier(verifier)
            }
            None => ServerConfig::builder().with_no_client_auth(),
        };
        let mut config = builder.with_single_cert(chain, key).map_err(|error| {
            let why = format!("the key and the certificate cannot be used together: {error}");
            Problem::new("http.tls", why)
        })?;
        config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        Ok(TlsIdentity { config: Arc::new(config), ends })
    }
}

/// Reads a file of a setting; a problem names both.
fn read<T>(
    setting: &str,
    path: &Path,
    parse: impl FnOnce(&[u8]) -> Result<T, String>,
) -> Result<T, Problem> {
    let text = config::read_file(setting, path)?;
    parse(&text).map_err(|why| Problem::new(setting, format!("{} {why}", path.display())))
}

fn end(certificate: &CertificateDer) -> Option<Timestamp> {
    let (_, certificate) = x509_parser::parse_x509_certificate(certificate).ok()?;
    Timestamp::from_second(certificate.validity().not_after.timestamp()).ok()
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

    /// Uses this identity for further handshakes. Open connections are not affected.
    pub fn replace(&self, pair: TlsIdentity) {
        if pair.ends <= Timestamp::now() {
            warn!(ended = %pair.ends, "The TLS certificate has ended: senders will refuse it.");
        }
        self.metrics.certificate_expires.set(pair.ends.as_second());
        self.in_force.store(pair.config);
    }

    /// Makes the handshake: the stream, and the caller that a client certificate names. None if it fails,
    /// which is counted, or takes longer than `http.header_timeout_ms`.
    pub(super) async fn accept<S: Transport>(
        &self,
        stream: S,
        peer: SocketAddr,
        limits: &HttpSettings,
        drain: &Drain,
    ) -> Option<(Box<TlsStream<S>>, Option<Caller>)> {
        let handshake = TlsAcceptor::from(self.in_force.load_full()).accept(stream);
        let result = tokio::select! {
            // A handshake that is done counts, also where the drain's time is over.
            biased;
            result = timeout(limits.header_timeout(), handshake) => result,
            () = drain.first_request_is_overdue() => return None,
        };
        let (failure, why) = match result {
            Ok(Ok(stream)) => {
                let chain = stream.get_ref().1.peer_certificates();
                let certificate = chain.and_then(|chain| chain.first());
                let caller = certificate.map(|certificate| {
                    Caller::of_certificate(certificate).ok_or("the certificate names nobody")
                });
                match caller.transpose() {
                    Ok(caller) => return Some((Box::new(stream), caller)),
                    Err(why) => (HandshakeFailure::ClientCertificate, why.into()),
                }
            }
            Ok(Err(error)) => (failure(&error), error.to_string()),
            Err(late) => (HandshakeFailure::Timeout, late.to_string()),
        };
        self.metrics.handshakes_failed[failure].inc();
        debug!(%peer, reason = failure.tag(), why, "TLS handshake failed.");
        None
    }
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
