//! TLS on the listener: versions, reloaded certificates, client certificates.

use std::net::TcpStream;
use std::sync::Arc;
use std::time::Duration;

use hookbridge::config::{Config, TlsSettings};
use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair, date_time_ymd};
use reqwest::tls::Version;
use reqwest::{Certificate, ClientBuilder, Identity, StatusCode};
use rustls::ServerConfig;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio::time::Instant;
use tokio_rustls::TlsAcceptor;

use crate::harness::brokers::Broker;
use crate::harness::process::{Serve, hookbridge};
use crate::harness::support::{KEY, Mount, PATIENCE, TestBridge, click, config, until};

/// An authority for one test.
pub struct Authority {
    issuer: Issuer<'static, KeyPair>,
    pem: String,
}

/// A certificate and its key, in PEM.
pub struct Pair {
    certificate: String,
    key: String,
}

impl Authority {
    pub fn new() -> Authority {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().unwrap();
        let pem = params.self_signed(&key).unwrap().pem();
        Authority { issuer: Issuer::new(params, key), pem }
    }

    /// A certificate for the bridge, or for a sender of this name.
    pub fn issue(&self, name: &str, end: i32) -> Pair {
        self.issue_for("127.0.0.1", name, end)
    }

    /// A certificate for a server at this host.
    pub fn issue_for(&self, host: &str, name: &str, end: i32) -> Pair {
        let mut params = CertificateParams::new([host.to_owned()]).unwrap();
        params.distinguished_name.push(DnType::CommonName, name);
        params.not_after = date_time_ymd(end, 1, 1);
        self.sign(params, KeyPair::generate().unwrap())
    }

    /// A certificate for a client of this name with this key.
    pub fn issue_for_key(&self, name: &str, key: &str) -> Pair {
        let mut params = CertificateParams::default();
        params.distinguished_name = Default::default();
        params.distinguished_name.push(DnType::CommonName, name);
        self.sign(params, KeyPair::from_pem(key).unwrap())
    }

    fn sign(&self, params: CertificateParams, key: KeyPair) -> Pair {
        let certificate = params.signed_by(&key, &self.issuer).unwrap().pem();
        Pair { certificate, key: key.serialize_pem() }
    }

    pub fn pem(&self) -> &str {
        &self.pem
    }

    /// A sender that trusts this authority alone.
    pub fn client(&self) -> ClientBuilder {
        let root = Certificate::from_pem(self.pem.as_bytes()).unwrap();
        let client = reqwest::Client::builder().timeout(PATIENCE);
        client.tls_built_in_root_certs(false).add_root_certificate(root)
    }
}

impl Pair {
    pub fn files(&self) -> [(&str, &str); 2] {
        [("tls.crt", &self.certificate), ("tls.key", &self.key)]
    }

    /// Takes connections as a server with this certificate.
    pub fn acceptor(&self) -> TlsAcceptor {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let server = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(
                vec![CertificateDer::from_pem_slice(self.certificate.as_bytes()).unwrap()],
                PrivateKeyDer::from_pem_slice(self.key.as_bytes()).unwrap(),
            )
            .unwrap();
        TlsAcceptor::from(Arc::new(server))
    }

    fn identity(&self) -> Identity {
        Identity::from_pem(format!("{}{}", self.certificate, self.key).as_bytes()).unwrap()
    }
}

pub fn settings(mount: &Mount) -> TlsSettings {
    let (cert_file, key_file) = (mount.path("tls.crt"), mount.path("tls.key"));
    TlsSettings { cert_file, key_file, client_ca_file: None }
}

/// A bridge with this certificate and this time-out of a handshake.
pub async fn start(broker: &Broker, mount: &Mount, header_timeout_ms: u64) -> TestBridge {
    let change = |config: &mut Config| {
        config.http.tls = Some(settings(mount));
        config.http.header_timeout_ms = header_timeout_ms;
    };
    TestBridge::start_with(broker, change).await
}

fn failed(reason: &str) -> String {
    format!("hookbridge_tls_handshakes_failed_total{{reason=\"{reason}\"}}")
}

const EXPIRES: &str = "hookbridge_tls_certificate_expires_seconds";

/// A failed or late handshake is counted.
#[tokio::test]
async fn tls_1_2_and_1_3_with_http_1_and_2() {
    let (broker, authority) = (Broker::embedded(), Authority::new());
    let mount = Mount::new(&authority.issue("bridge", 2040).files());
    let bridge = start(&broker, &mount, 3_000).await;
    let url = bridge.url().replace("http:", "https:");
    for version in [Version::TLS_1_2, Version::TLS_1_3] {
        let client = || authority.client().min_tls_version(version).max_tls_version(version);
        for (client, http) in [
            (client().http1_only(), reqwest::Version::HTTP_11),
            (client(), reqwest::Version::HTTP_2),
        ] {
            let request = client.build().unwrap().post(&url).bearer_auth(KEY).body(click("7"));
            let answer = request.send().await.unwrap();
            assert_eq!((answer.status(), answer.version()), (StatusCode::OK, http), "{version:?}");
        }
    }
    assert_eq!(bridge.count(), 4);
    assert_eq!(bridge.metric(EXPIRES).await, 2_208_988_800.0);

    let mut plain = bridge.raw();
    plain.send("GET / HTTP/1.1\r\n\r\n");
    assert!(!plain.read_all().contains("HTTP"));
    until("counted", async || bridge.metric(&failed("protocol")).await == 1.0).await;
    drop(bridge.raw());
    until("counted", async || bridge.metric(&failed("hung_up")).await == 1.0).await;
    let mut silent = bridge.raw();
    assert_eq!(silent.read_all(), "");
    until("counted", async || bridge.metric(&failed("timeout")).await == 1.0).await;
    until("closed", async || bridge.metric("hookbridge_connections").await == 0.0).await;
}

#[tokio::test]
async fn an_unfinished_handshake_does_not_delay_the_stop() {
    let (broker, authority) = (Broker::embedded(), Authority::new());
    let mount = Mount::new(&authority.issue("bridge", 2040).files());
    let bridge = start(&broker, &mount, 20_000).await;
    let _silent = TcpStream::connect(bridge.http).unwrap();
    until("open", async || bridge.metric("hookbridge_connections").await == 1.0).await;
    let asked = Instant::now();
    assert!(bridge.stopped().is_clean());
    assert!(asked.elapsed() < Duration::from_secs(10), "{:?}", asked.elapsed());
}

/// The exit code is 78, and the message names the problem.
#[test]
fn a_certificate_that_does_not_fit_its_key_stops_the_start() {
    let authority = Authority::new();
    let (pair, other) = (authority.issue("bridge", 2040), authority.issue("bridge", 2041));
    let mount = Mount::new(&[
        ("tls.crt", &pair.certificate),
        ("tls.key", &pair.key),
        ("other.key", &other.key),
        ("empty", ""),
    ]);
    let run = |command: &str, certificate: &str, key: &str, authorities: Option<&str>| {
        let mut program = hookbridge([command]);
        program.env("HOOKBRIDGE__AUTH__API_KEY", KEY).env("HOOKBRIDGE__SPOOL__DIR", "");
        program.env("HOOKBRIDGE__HTTP__LISTEN", "127.0.0.1:0");
        program.env("HOOKBRIDGE__ADMIN__LISTEN", "127.0.0.1:0");
        program.env("HOOKBRIDGE__HTTP__TLS__CERT_FILE", mount.path(certificate));
        program.env("HOOKBRIDGE__HTTP__TLS__KEY_FILE", mount.path(key));
        if let Some(name) = authorities {
            program.env("HOOKBRIDGE__HTTP__TLS__CLIENT_CA_FILE", mount.path(name));
        }
        let output = program.output().unwrap();
        let text = [output.stdout, output.stderr].concat();
        (output.status.code().unwrap(), String::from_utf8(text).unwrap())
    };
    for command in ["check", "serve"] {
        for (certificate, key, authorities, words) in [
            ("tls.crt", "other.key", None, "cannot be used together"),
            ("tls.crt", "empty", None, "http.tls.key_file: "),
            ("empty", "tls.key", None, "http.tls.cert_file: "),
            ("tls.key", "tls.key", None, "holds no certificate in PEM"),
            ("missing", "tls.key", None, "missing cannot be read"),
            ("tls.crt", "tls.key", Some("empty"), "http.tls.client_ca_file: "),
        ] {
            let (code, text) = run(command, certificate, key, authorities);
            assert_eq!(code, 78, "{text}");
            assert!(text.contains(words), "{words}: {text}");
            assert!(!text.contains(pair.key.lines().nth(1).unwrap()), "{text}");
        }
    }
    let (code, text) = run("check", "tls.crt", "tls.key", None);
    assert_eq!(code, 0, "{text}");
    assert!(text.contains("the certificate ends 2040-01-01T00:00:00Z"), "{text}");
    let (code, text) = run("config", "tls.crt", "tls.key", None);
    assert_eq!(code, 0, "{text}");
    assert!(text.contains("[http.tls]\ncert_file = "), "{text}");
}

/// The files are in a volume like that of Kubernetes. A broken pair changes nothing.
#[tokio::test]
async fn a_new_certificate_is_used_without_a_restart() {
    let (broker, old, new) = (Broker::embedded(), Authority::new(), Authority::new());
    let (first, second) = (old.issue("bridge", 2040), new.issue("bridge", 2041));
    let mut mount = Mount::new(&first.files());
    let mut config = config(&broker);
    config.http.tls = Some(settings(&mount));
    broker.create_topic(&config.webhook[0].topic, 12).await;
    let folder = tempfile::tempdir().unwrap();
    let mut serve = Serve::launch(&config, folder.path(), "true");
    until("ready", async || serve.is_ready().await).await;
    let url = serve.url().replace("http:", "https:");
    let send = async |client: &reqwest::Client| {
        client.post(&url).bearer_auth(KEY).body(click("7")).send().await.map(|a| a.status())
    };
    let kept = old.client().build().unwrap();
    assert_eq!(send(&kept).await.unwrap(), StatusCode::OK);
    assert!(send(&new.client().build().unwrap()).await.is_err());

    let reloads =
        |result: &str| format!("hookbridge_reloads_total{{result=\"{result}\",what=\"tls\"}}");
    mount.swap(&second.files());
    until("reloaded", async || serve.metric(&reloads("ok")).await == 1.0).await;
    assert_eq!(send(&new.client().build().unwrap()).await.unwrap(), StatusCode::OK);
    assert!(send(&old.client().build().unwrap()).await.is_err());
    assert_eq!(send(&kept).await.unwrap(), StatusCode::OK, "an open connection goes on");
    assert_eq!(serve.metric(EXPIRES).await, 2_240_611_200.0);

    mount.swap(&[("tls.crt", &first.certificate), ("tls.key", &second.key)]);
    until("refused", async || serve.metric(&reloads("failed")).await == 1.0).await;
    assert_eq!(send(&new.client().build().unwrap()).await.unwrap(), StatusCode::OK);
    assert_eq!(serve.metric(EXPIRES).await, 2_240_611_200.0);
    serve.wait_for_log("cannot be used together");
    let (code, log) = serve.stop();
    assert_eq!(code, 0, "{log}");
}

/// No key is needed.
#[tokio::test]
async fn a_client_certificate_names_its_caller() {
    let (broker, ours, theirs) = (Broker::embedded(), Authority::new(), Authority::new());
    let mount = Mount::new(&ours.issue("bridge", 2040).files());
    std::fs::write(mount.path("ca.crt"), &theirs.pem).unwrap();
    let tls = |config: &mut Config| {
        config.http.tls =
            Some(TlsSettings { client_ca_file: Some(mount.path("ca.crt")), ..settings(&mount) });
        config.auth.api_key = None;
    };
    let bridge = TestBridge::start_with(&broker, tls).await;
    let url = bridge.url().replace("http:", "https:");
    for version in [Version::TLS_1_2, Version::TLS_1_3] {
        let client = || ours.client().min_tls_version(version).max_tls_version(version);
        let send = async |client: ClientBuilder, body: Vec<u8>| {
            client.build().unwrap().post(&url).body(body).send().await.map(|a| a.status())
        };
        let before = bridge.metric(&failed("client_certificate")).await;
        assert!(send(client(), click("7")).await.is_err());
        for refused in [ours.issue("partner", 2040), theirs.issue("partner", 2020)] {
            let client = client().identity(refused.identity());
            assert!(send(client, click("7")).await.is_err());
        }
        until("counted", async || {
            bridge.metric(&failed("client_certificate")).await == before + 3.0
        })
        .await;
        let known = client().identity(theirs.issue("partner", 2040).identity());
        assert_eq!(send(known, click("7")).await.unwrap(), StatusCode::OK);
    }
    assert_eq!(bridge.count(), 2);
    let known = ours.client().identity(theirs.issue("partner", 2040).identity());
    let request = known.build().unwrap().post(&url).body("{");
    assert_eq!(request.send().await.unwrap().status(), StatusCode::OK);
    let letter = bridge.dead_letter();
    let caller = letter.headers.iter().find(|(name, _)| name == "hookbridge-caller").unwrap();
    assert_eq!(caller.1, "partner");
}
