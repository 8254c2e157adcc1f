//! A Kafka that lets clients in by tokens of an OpenID provider, by signed tokens as Amazon MSK does, and by
//! certificates; and the provider: a key set for the broker, and endpoints that give tokens.
//!
//! Kafka checks the tokens of the provider itself (`BrokerJwtValidator`). For Amazon's, whose check is not public,
//! `tests/kafka/MskTokens.java` takes its place: it signs the request of the token again.

use std::fs;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};

use data_encoding::{BASE64, BASE64URL_NOPAD};
use jiff::Timestamp;
use p256::ecdsa::signature::Signer;
use p256::ecdsa::{Signature, SigningKey};
use reqwest::StatusCode;
use serde_json::json;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::sync::oneshot;
use tokio_rustls::TlsAcceptor;

use super::brokers::{Kafka, More, jars, run, unique};
use super::ports;
use super::support::PATIENCE;
use crate::tls::Authority;

pub const AUDIENCE: &str = "kafka";
const ISSUER: &str = "https://id.example.com/";
/// The user with every right, as in `brokers.rs`; the broker takes it from the token.
const SUBJECT: &str = "clicks";
/// The client of the token endpoint.
pub const CLIENT: (&str, &str) = ("hookbridge", "zq-client-secret");
/// What the broker takes for Amazon's credentials.
pub const AWS_KEY: (&str, &str) = ("AKIDEXAMPLE", "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY");
pub const REGION: &str = "us-east-1";

pub struct Secured {
    pub kafka: Kafka,
    /// Of the brokers' and the provider's certificates.
    pub authority: Authority,
    folder: PathBuf,
    key: SigningKey,
    tokens: u16,
    msk: u16,
    mutual_tls: u16,
    expired: u16,
}

/// The one that all tests use; none where Java or Maven is missing.
pub fn secured() -> Option<&'static Secured> {
    static SECURED: OnceLock<Option<Secured>> = OnceLock::new();
    SECURED.get_or_init(Secured::start).as_ref()
}

impl Secured {
    fn start() -> Option<Secured> {
        let jars = jars()?;
        let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join(unique("secured"));
        fs::create_dir_all(&folder).unwrap();
        let authority = Authority::new();
        let [tokens, msk, mutual_tls, expired] =
            [(); 4].map(|()| ports::free(Ipv4Addr::LOCALHOST).port());
        let key = SigningKey::from_slice(&[7; 32]).unwrap();
        let jwks = serve_key_set(&authority, &key);
        let write = |name: &str, text: &str| fs::write(folder.join(name), text).unwrap();
        let keystore = |name: &str, end| {
            let pair = authority.issue_for("localhost", "broker", end);
            let [(_, certificate), (_, key)] = pair.files();
            write(name, &format!("{key}{certificate}"));
        };
        keystore("broker.pem", 2040);
        keystore("expired.pem", 2020);
        write("ca.pem", authority.pem());
        let truststore = folder.join("ca.p12");
        run(Command::new("keytool")
            .args(["-importcert", "-noprompt", "-alias", "ca", "-storepass", "changeit"])
            .arg("-file")
            .arg(folder.join("ca.pem"))
            .arg("-keystore")
            .arg(&truststore));
        run(Command::new("javac")
            .args(["-proc:none", "-cp", &format!("{}/*", jars.display()), "-d"])
            .arg(&folder)
            .arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/kafka/MskTokens.java")));
        let more = More {
            listeners: vec![
                ("TOKENS", tokens, "SASL_SSL"),
                ("MSK", msk, "SASL_SSL"),
                ("MUTUAL", mutual_tls, "SSL"),
                ("EXPIRED", expired, "SSL"),
            ],
            super_users: ";User:CN=clicks",
            properties: properties(&folder, &jwks),
            classes: folder.clone(),
            java_options: format!(
                "-Djavax.net.ssl.trustStore={} -Djavax.net.ssl.trustStorePassword=changeit \
                 -Dorg.apache.kafka.sasl.oauthbearer.allowed.urls={jwks}",
                truststore.display()
            ),
        };
        let kafka = Kafka::start_with(more)?;
        Some(Secured { kafka, authority, folder, key, tokens, msk, mutual_tls, expired })
    }

    pub fn tokens(&self) -> String {
        format!("localhost:{}", self.tokens)
    }

    pub fn msk(&self) -> String {
        format!("localhost:{}", self.msk)
    }

    pub fn mutual_tls(&self) -> String {
        format!("localhost:{}", self.mutual_tls)
    }

    /// Its certificate has expired.
    pub fn expired(&self) -> String {
        format!("localhost:{}", self.expired)
    }

    pub fn ca_file(&self) -> String {
        self.folder.join("ca.pem").display().to_string()
    }

    /// A token that is good for so many seconds.
    pub fn token(&self, seconds: i64) -> String {
        self.token_for(AUDIENCE, seconds)
    }

    /// A token that another key signed.
    pub fn forged_token(&self) -> String {
        let token = self.token(300);
        let (signed, signature) = token.rsplit_once('.').unwrap();
        format!("{signed}.{}", signature.chars().rev().collect::<String>())
    }

    pub fn token_for(&self, audience: &str, seconds: i64) -> String {
        let now = Timestamp::now().as_second();
        let claims = json!({
            "iss": ISSUER, "sub": SUBJECT, "aud": audience, "iat": now - 60, "exp": now + seconds,
            "jti": unique("token"),
        });
        sign(&self.key, &claims)
    }

    /// Starts an endpoint that gives tokens to [`CLIENT`], for an assertion, and as the metadata of Azure do, on this port, or a free one.
    pub fn endpoint(&'static self, port: u16, seconds: i64) -> Endpoint {
        let address = match port {
            0 => ports::free(Ipv4Addr::LOCALHOST),
            port => (Ipv4Addr::LOCALHOST, port).into(),
        };
        let given = Arc::new(AtomicUsize::new(0));
        let count = given.clone();
        let login =
            format!("Basic {}", BASE64.encode(format!("{}:{}", CLIENT.0, CLIENT.1).as_bytes()));
        let stop = serve(&self.authority, address, move |request| {
            let has = |words: &str| request.to_lowercase().contains(&words.to_lowercase());
            let is_assertion = has("grant_type=urn:ietf:params:oauth:grant-type:jwt-bearer")
                && has("assertion=eyJ");
            let is_azure = has("Metadata: true") && has("GET /token?resource=kafka ");
            if !request.contains(&login) && !is_assertion && !is_azure {
                return (
                    StatusCode::UNAUTHORIZED,
                    json!({ "error": "invalid_client" }).to_string(),
                );
            }
            count.fetch_add(1, Ordering::SeqCst);
            let token = self.token(seconds);
            (StatusCode::OK, json!({ "access_token": token, "token_type": "Bearer" }).to_string())
        });
        Endpoint { address, given, _stop: stop }
    }
}

fn properties(folder: &Path, jwks: &str) -> String {
    let folder = folder.display();
    let mut properties = format!(
        "sasl.oauthbearer.jwks.endpoint.url={jwks}\n\
         sasl.oauthbearer.expected.audience={AUDIENCE}\n\
         sasl.oauthbearer.expected.issuer={ISSUER}\n\
         sasl.oauthbearer.clock.skew.seconds=0\n\
         sasl.oauthbearer.jwt.validator.class=org.apache.kafka.common.security.oauthbearer.\
         BrokerJwtValidator\n\
         listener.name.mutual.ssl.client.auth=required\n\
         listener.name.mutual.ssl.truststore.type=PEM\n\
         listener.name.mutual.ssl.truststore.location={folder}/ca.pem\n"
    );
    for (listener, keystore) in
        [("tokens", "broker"), ("msk", "broker"), ("mutual", "broker"), ("expired", "expired")]
    {
        properties.push_str(&format!(
            "listener.name.{listener}.ssl.keystore.type=PEM\n\
             listener.name.{listener}.ssl.keystore.location={folder}/{keystore}.pem\n"
        ));
    }
    for (listener, handler) in [
        (
            "tokens",
            "org.apache.kafka.common.security.oauthbearer.OAuthBearerValidatorCallbackHandler",
        ),
        ("msk", "MskTokens"),
    ] {
        properties.push_str(&format!(
            "listener.name.{listener}.sasl.enabled.mechanisms=OAUTHBEARER\n\
             listener.name.{listener}.oauthbearer.connections.max.reauth.ms=3600000\n\
             listener.name.{listener}.oauthbearer.sasl.server.callback.handler.class={handler}\n\
             listener.name.{listener}.oauthbearer.sasl.jaas.config=org.apache.kafka.common.security.\
             oauthbearer.OAuthBearerLoginModule required;\n"
        ));
    }
    properties
}

/// An endpoint that gives tokens. Dropped: nobody listens there.
pub struct Endpoint {
    address: SocketAddr,
    given: Arc<AtomicUsize>,
    _stop: oneshot::Sender<()>,
}

impl Endpoint {
    pub fn url(&self) -> String {
        format!("https://localhost:{}/token", self.address.port())
    }

    pub fn port(&self) -> u16 {
        self.address.port()
    }

    /// How many tokens it has given.
    pub fn given(&self) -> usize {
        self.given.load(Ordering::SeqCst)
    }
}

/// A JSON Web Token with ES256.
fn sign(key: &SigningKey, claims: &serde_json::Value) -> String {
    let header = json!({ "alg": "ES256", "typ": "JWT", "kid": "1" });
    let encode = |part: &serde_json::Value| BASE64URL_NOPAD.encode(part.to_string().as_bytes());
    let signed = format!("{}.{}", encode(&header), encode(claims));
    let signature: Signature = key.sign(signed.as_bytes());
    format!("{signed}.{}", BASE64URL_NOPAD.encode(&signature.to_bytes()))
}

/// Serves the public key for as long as the tests run; returns the URL.
fn serve_key_set(authority: &Authority, key: &SigningKey) -> String {
    let point = key.verifying_key().to_encoded_point(false);
    let encode = |part: Option<&p256::FieldBytes>| BASE64URL_NOPAD.encode(part.unwrap());
    let set = json!({ "keys": [{
        "kty": "EC", "crv": "P-256", "use": "sig", "alg": "ES256", "kid": "1",
        "x": encode(point.x()), "y": encode(point.y()),
    }] });
    let address = ports::free(Ipv4Addr::LOCALHOST);
    let stop = serve(authority, address, move |_| (StatusCode::OK, set.to_string()));
    std::mem::forget(stop);
    format!("https://localhost:{}/keys", address.port())
}

/// Serves JSON over TLS on a thread of its own until what is returned is dropped. `answer` gets the whole
/// request.
fn serve(
    authority: &Authority,
    address: SocketAddr,
    answer: impl Fn(&str) -> (StatusCode, String) + Send + Sync + 'static,
) -> oneshot::Sender<()> {
    let pair = authority.issue_for("localhost", "provider", 2040);
    serve_over(Some(pair.acceptor()), address, answer)
}

/// The same without TLS, for as long as the tests run; returns the URL.
pub fn serve_plainly(
    answer: impl Fn(&str) -> (StatusCode, String) + Send + Sync + 'static,
) -> String {
    let address = ports::free(Ipv4Addr::LOCALHOST);
    std::mem::forget(serve_over(None, address, answer));
    format!("http://{address}")
}

fn serve_over(
    tls: Option<TlsAcceptor>,
    address: SocketAddr,
    answer: impl Fn(&str) -> (StatusCode, String) + Send + Sync + 'static,
) -> oneshot::Sender<()> {
    let (stop, stopped) = oneshot::channel();
    let (listens, is_listening) = std::sync::mpsc::sync_channel(1);
    std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let accept = async {
            let listener = TcpListener::bind(address).await.unwrap();
            listens.send(()).unwrap();
            let answer = Arc::new(answer);
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                let (tls, answer) = (tls.clone(), answer.clone());
                tokio::spawn(async move {
                    let Some(tls) = tls else { return give(stream, &*answer).await };
                    let Ok(stream) = tls.accept(stream).await else { return };
                    give(stream, &*answer).await;
                });
            }
        };
        runtime.block_on(async {
            tokio::select! { () = accept => {}, _ = stopped => {} }
        });
    });
    is_listening.recv_timeout(PATIENCE).unwrap();
    stop
}

/// Serves one request.
async fn give(
    mut stream: impl AsyncRead + AsyncWrite + Unpin,
    answer: &(impl Fn(&str) -> (StatusCode, String) + Sync),
) {
    let (status, body) = answer(&request(&mut stream).await);
    let head = format!(
        "HTTP/1.1 {status}\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\
         connection: close\r\n\r\n",
        body.len()
    );
    let _ = stream.write_all(format!("{head}{body}").as_bytes()).await;
    let _ = stream.shutdown().await;
}

/// Reads a request with its body.
async fn request(stream: &mut (impl AsyncRead + Unpin)) -> String {
    let mut request = Vec::new();
    loop {
        let text = String::from_utf8_lossy(&request).into_owned();
        if let Some((head, body)) = text.split_once("\r\n\r\n") {
            let length = head.to_lowercase();
            let length = length.split("content-length: ").nth(1).map_or(0, |rest| {
                rest.split("\r\n").next().unwrap().trim().parse::<usize>().unwrap()
            });
            if body.len() >= length {
                return text;
            }
        }
        let mut buffer = [0; 4_096];
        match stream.read(&mut buffer).await {
            Ok(count @ 1..) => request.extend(&buffer[..count]),
            _ => return text,
        }
    }
}

impl Drop for Secured {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.folder);
    }
}
