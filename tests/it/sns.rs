//! Amazon SNS: its signatures, certificates and confirmations.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use data_encoding::BASE64;
use hookbridge::config::Config;
use jiff::{SignedDuration, Timestamp};
use num_bigint::BigUint;
use rcgen::{
    CertificateParams, Issuer, KeyPair, PKCS_RSA_SHA256, PublicKeyData, SignatureAlgorithm,
    date_time_ymd,
};
use reqwest::StatusCode;
use serde_json::{Value, json};
use sha1::Sha1;
use sha2::{Digest, Sha256};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::Instant;
use tokio_rustls::TlsAcceptor;

use crate::config::from;
use crate::dead_letters::header;
use crate::harness::brokers::{Broker, unique};
use crate::harness::support::{Mount, PATIENCE, TestBridge, config, records, sender, until};
use crate::tls::Authority;

const HOST: &str = "sns.us-east-1.amazonaws.com";
pub const ARN: &str = "arn:aws:sns:us-east-1:123456789012:clicks";
const CERTIFICATE: &str = "/SimpleNotificationService-0123456789abcdef.pem";
const EVENT: &str = r#"{"eventType":"Click","mail":{"messageId":"EXAMPLE7c-000000","timestamp":"TIME","source":"sender@example.com","destination":["a@example.com"]},"click":{"ipAddress":"192.0.2.1","link":"https:\/\/example.com/\u00f1?a=\"b\"","linkTags":null,"timestamp":"TIME","userAgent":"Mozilla/5.0"}}"#;

/// An RSA key pair in plain arithmetic. The primes are Mersenne primes: they need no search, and are
/// obviously not secret.
pub struct Pair {
    modulus: BigUint,
    private: BigUint,
    public: Vec<u8>,
}

impl Pair {
    fn new(exponents: [u32; 2]) -> Pair {
        let one = BigUint::from(1u8);
        let [p, q] = exponents.map(|exponent| (&one << exponent) - &one);
        let (modulus, e) = (&p * &q, BigUint::from(65_537u32));
        let private = e.modinv(&((&p - &one) * (&q - &one))).unwrap();
        let public = sequence(&[integer(&modulus), integer(&e)].concat());
        Pair { modulus, private, public }
    }

    /// RSASSA-PKCS1-v1_5 (RFC 8017, section 8.2.1) of a hash.
    fn sign(&self, algorithm: &[u8], hash: &[u8]) -> String {
        let length = self.modulus.bits().div_ceil(8) as usize;
        let padding = vec![0xff; length - 3 - algorithm.len() - hash.len()];
        let encoded = [&[0, 1], &padding[..], &[0], algorithm, hash].concat();
        let signature = BigUint::from_bytes_be(&encoded).modpow(&self.private, &self.modulus);
        let bytes = signature.to_bytes_be();
        BASE64.encode(&[vec![0; length - bytes.len()], bytes].concat())
    }

    /// Signs by version 1 or 2 of Amazon's signatures.
    fn sign_version(&self, version: &str, text: &str) -> String {
        // DigestInfo of both hashes (RFC 8017, section 9.2).
        const SHA1: &[u8] = b"\x30\x21\x30\x09\x06\x05\x2b\x0e\x03\x02\x1a\x05\x00\x04\x14";
        const SHA256: &[u8] =
            b"\x30\x31\x30\x0d\x06\x09\x60\x86\x48\x01\x65\x03\x04\x02\x01\x05\x00\x04\x20";
        match version {
            "1" => self.sign(SHA1, &Sha1::digest(text)),
            _ => self.sign(SHA256, &Sha256::digest(text)),
        }
    }

    /// A certificate for the key in PEM, valid until this year.
    fn certificate(&self, until: i32) -> Vec<u8> {
        let (params, key) = (CertificateParams::default(), KeyPair::generate().unwrap());
        let issuer = Issuer::new(params, key);
        let mut params = CertificateParams::new(["sns.amazonaws.com".to_owned()]).unwrap();
        params.not_after = date_time_ymd(until, 1, 1);
        params.signed_by(self, &issuer).unwrap().pem().into_bytes()
    }
}

impl PublicKeyData for Pair {
    fn der_bytes(&self) -> &[u8] {
        &self.public
    }

    fn algorithm(&self) -> &'static SignatureAlgorithm {
        &PKCS_RSA_SHA256
    }
}

/// Encodes a value in DER with this tag.
fn der(tag: u8, content: &[u8]) -> Vec<u8> {
    let length = u16::try_from(content.len()).unwrap().to_be_bytes();
    [&[tag, 0x82], &length[..], content].concat()
}

fn sequence(content: &[u8]) -> Vec<u8> {
    der(0x30, content)
}

fn integer(number: &BigUint) -> Vec<u8> {
    let bytes = [&[0][..], &number.to_bytes_be()].concat();
    // DER allows a leading zero only for the sign, and requires the short form of a short length.
    let bytes = if bytes[1] < 0x80 { &bytes[1..] } else { &bytes[..] };
    match u8::try_from(bytes.len()) {
        Ok(length @ ..0x80) => [&[0x02, length], bytes].concat(),
        _ => der(0x02, bytes),
    }
}

pub fn pair() -> Pair {
    Pair::new([521, 2_203])
}

/// Amazon SNS behind a proxy, with its pages and the bridge's requests.
struct Amazon {
    proxy: SocketAddr,
    mount: Mount,
    shared: Arc<Shared>,
}

#[derive(Default)]
struct Shared {
    /// Status and body by path; any other path is 404.
    pages: Mutex<HashMap<String, (u16, Vec<u8>)>>,
    asked: Mutex<Vec<String>>,
    /// The proxy reaches no server.
    is_away: AtomicBool,
    /// The server does not answer.
    is_silent: AtomicBool,
}

impl Amazon {
    async fn start() -> Amazon {
        let authority = Authority::new();
        let mount = Mount::new(&[("ca.pem", authority.pem())]);
        let acceptor = authority.issue_for(HOST, "amazon", 2100).acceptor();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let (proxy, shared) = (listener.local_addr().unwrap(), Arc::<Shared>::default());
        let for_task = shared.clone();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(lead_on(stream, acceptor.clone(), for_task.clone()));
            }
        });
        let amazon = Amazon { proxy, mount, shared };
        amazon.put(CERTIFICATE, 200, pair().certificate(2100));
        amazon
    }

    fn put(&self, path: &str, status: u16, body: impl Into<Vec<u8>>) {
        self.shared.pages.lock().unwrap().insert(path.to_owned(), (status, body.into()));
    }

    /// The paths requested since the last call.
    fn asked(&self) -> Vec<String> {
        std::mem::take(&mut self.shared.asked.lock().unwrap())
    }

    /// A bridge with the profile as its one webhook and these further settings of its `auth`.
    async fn bridge(&self, broker: &Broker, more: &str) -> TestBridge {
        let auth = format!(
            "{{ type = \"sns\", topics = [\"{ARN}\"], proxy = \"http://{}\", ca_file = \"{}\"{more} }}",
            self.proxy,
            self.mount.path("ca.pem").display(),
        );
        // No key is needed.
        bridge_with(broker, &auth, "").await
    }
}

/// A bridge with the profile as its one webhook, this `auth` and these further settings.
async fn bridge_with(broker: &Broker, auth: &str, more: &str) -> TestBridge {
    let entry = format!("[[webhook]]\nprofile = \"amazon-ses\"\nauth = {auth}\n{more}");
    let Config { webhook, auth, .. } = from(&entry, &[]).into_result().unwrap();
    TestBridge::start_all(broker, Config { webhook, auth, ..config(broker) }).await
}

/// Accepts a CONNECT, then serves as the server that it names.
async fn lead_on(mut stream: TcpStream, acceptor: TlsAcceptor, shared: Arc<Shared>) {
    let head = head(&mut stream).await;
    if shared.is_away.load(Ordering::Relaxed) || !head.starts_with(&format!("CONNECT {HOST}:443 "))
    {
        let _ = stream.write_all(b"HTTP/1.1 502 Bad Gateway\r\ncontent-length: 0\r\n\r\n").await;
        return;
    }
    stream.write_all(b"HTTP/1.1 200 Connected\r\n\r\n").await.unwrap();
    let Ok(mut stream) = acceptor.accept(stream).await else { return };
    let head = crate::sns::head(&mut stream).await;
    if shared.is_silent.load(Ordering::Relaxed) {
        tokio::time::sleep(PATIENCE).await;
    }
    assert!(head.contains(&format!("\r\nhost: {HOST}\r\n")), "{head}");
    let path = head.strip_prefix("GET ").and_then(|rest| rest.split(' ').next()).unwrap();
    shared.asked.lock().unwrap().push(path.to_owned());
    let page = shared.pages.lock().unwrap().get(path).cloned();
    let (status, body) = page.unwrap_or_else(|| (404, b"not there".to_vec()));
    let location = format!("https://{HOST}{CERTIFICATE}");
    let head = format!(
        "HTTP/1.1 {status} X\r\nlocation: {location}\r\ncontent-length: {}\r\n\r\n",
        body.len()
    );
    let _ = stream.write_all(&[head.as_bytes(), &body].concat()).await;
    let _ = stream.shutdown().await;
}

/// Reads a request's head, to its empty line.
async fn head(stream: &mut (impl AsyncRead + Unpin)) -> String {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        match stream.read_u8().await {
            Ok(byte) => head.push(byte),
            Err(_) => break,
        }
    }
    String::from_utf8(head).unwrap()
}

/// An unsigned message as Amazon SNS documents it, this many seconds old.
pub fn message(kind: &str, ago_s: i64) -> Value {
    let time = Timestamp::now() - SignedDuration::from_secs(ago_s);
    let id = unique("id");
    let mut message = json!({
        "Type": kind,
        "MessageId": id,
        "TopicArn": ARN,
        "Message": EVENT.replace("TIME", "2026-11-24T12:00:00.123Z"),
        "Timestamp": time.strftime("%Y-%m-%dT%H:%M:%S.%3fZ").to_string(),
        "SignatureVersion": "2",
        "SigningCertURL": format!("https://{HOST}{CERTIFICATE}"),
    });
    if kind == "Notification" {
        let unsubscribe = format!("https://{HOST}/?Action=Unsubscribe&SubscriptionArn={ARN}:1");
        message["UnsubscribeURL"] = unsubscribe.into();
    } else {
        message["Message"] = "You have chosen to subscribe.\nVisit SubscribeURL.".into();
        message["Token"] = "2336412f37fb".into();
        message["SubscribeURL"] = format!("https://{HOST}{}", confirmation()).into();
    }
    message
}

fn confirmation() -> String {
    format!("/?Action=ConfirmSubscription&TopicArn={ARN}&Token=2336412f37fb")
}

/// Signs a message.
pub fn signed(pair: &Pair, mut message: Value) -> String {
    let names: &[&str] = match message["Type"].as_str() {
        Some("Notification") => {
            &["Message", "MessageId", "Subject", "Timestamp", "TopicArn", "Type"]
        }
        _ => &["Message", "MessageId", "SubscribeURL", "Timestamp", "Token", "TopicArn", "Type"],
    };
    let pairs = names.iter().filter_map(|name| Some((name, message.get(name)?.as_str()?)));
    let text: String = pairs.map(|(name, value)| format!("{name}\n{value}\n")).collect();
    let version = message["SignatureVersion"].as_str().unwrap();
    message["Signature"] = pair.sign_version(version, &text).into();
    message.to_string()
}

/// Posts a body as Amazon SNS does.
async fn post(bridge: &TestBridge, body: String) -> (StatusCode, String) {
    let request = sender().post(bridge.url()).header("content-type", "text/plain; charset=UTF-8");
    let answer = request.body(body).send().await.unwrap();
    let status = answer.status();
    assert_eq!(answer.headers().contains_key("retry-after"), status.as_u16() == 503);
    (status, answer.text().await.unwrap())
}

/// Posts until the answer is not `sns_unreachable`: requests to Amazon are rate-limited.
async fn post_until_asked(bridge: &TestBridge, body: &str) -> StatusCode {
    let mut status = StatusCode::SERVICE_UNAVAILABLE;
    until("asked", async || {
        status = post(bridge, body.to_owned()).await.0;
        status != StatusCode::SERVICE_UNAVAILABLE
    })
    .await;
    status
}

#[tokio::test]
async fn a_notification_lands_as_the_events_in_it() {
    let (broker, amazon) = (Broker::embedded(), Amazon::start().await);
    let bridge = amazon.bridge(&broker, "").await;
    let at = Timestamp::now() - SignedDuration::from_mins(1);
    let event = EVENT.replace("TIME", &at.strftime("%Y-%m-%dT%H:%M:%S.%3fZ").to_string());
    for (version, subject) in
        [("1", Value::Null), ("2", Value::Null), ("2", "A subject".into()), ("2", "".into())]
    {
        let mut message = message("Notification", 3_600);
        message["SignatureVersion"] = version.into();
        message["Subject"] = subject;
        message["Message"] = event.as_str().into();
        let (status, answer) = post(&bridge, signed(&pair(), message)).await;
        assert_eq!((status, &*answer), (StatusCode::OK, ""));
    }
    for record in bridge.records(4) {
        assert_eq!(record.value, event.as_bytes());
        assert_eq!(record.key.as_deref(), Some(&b"EXAMPLE7c-000000"[..]));
        assert_eq!(record.timestamp.map(|time| time.as_millisecond()), Some(at.as_millisecond()));
    }
    assert_eq!(amazon.asked(), [CERTIFICATE]);
    // A text that is not an event becomes a dead letter, as from any other sender.
    let mut text = message("Notification", 0);
    text["Message"] = "Successfully validated SNS topic.".into();
    assert_eq!(post(&bridge, signed(&pair(), text)).await.0, StatusCode::OK);
    let letter = bridge.dead_letter();
    assert_eq!(letter.value, b"Successfully validated SNS topic.");
    assert_eq!(header(&letter, "hookbridge-reason"), "malformed");
    assert_eq!(header(&letter, "hookbridge-caller"), ARN);
    assert_eq!(amazon.asked(), [""; 0]);
}

#[tokio::test]
async fn a_message_that_amazon_did_not_sign_is_refused() {
    let (broker, amazon) = (Broker::embedded(), Amazon::start().await);
    let bridge = amazon.bridge(&broker, "").await;
    let refused = async |body: String| {
        let (status, answer) = post(&bridge, body).await;
        assert_eq!(status, StatusCode::UNAUTHORIZED, "{answer}");
        let answer: Value = serde_json::from_str(&answer).unwrap();
        answer["detail"].as_str().unwrap().to_owned()
    };
    let with = |name: &str, value: &str| {
        let mut message = message("Notification", 0);
        message[name] = value.into();
        signed(&pair(), message)
    };
    // A message of an unknown topic causes no request to Amazon.
    let foreign = with("TopicArn", "arn:aws:sns:us-east-1:666666666666:clicks");
    assert_eq!(refused(foreign).await, "The message is not of a topic of this webhook");
    for url in [
        format!("https://{HOST}.evil.test{CERTIFICATE}"),
        format!("https://sns.eu-west-1.amazonaws.com{CERTIFICATE}"),
        format!("https://bucket.s3.amazonaws.com{CERTIFICATE}"),
        format!("http://{HOST}{CERTIFICATE}"),
    ] {
        let why = "The certificate's address is none of Amazon SNS in the topic's region";
        assert_eq!(refused(with("SigningCertURL", &url)).await, why);
    }
    let far = "The timestamp is too far from the time of receipt";
    assert_eq!(refused(signed(&pair(), message("Notification", 7_300))).await, far);
    assert_eq!(refused(signed(&pair(), message("Notification", -7_300))).await, far);
    assert_eq!(refused("{}".into()).await, "The body is no message of Amazon SNS");
    assert_eq!(amazon.asked(), [""; 0]);
    // A message with valid fields is checked by the certificate.
    let forged = "The certificate did not make the signature of this message";
    let good = signed(&pair(), message("Notification", 0));
    assert_eq!(refused(good.replace("192.0.2.1", "192.0.2.2")).await, forged);
    assert_eq!(refused(good.replace("Version\":\"2", "Version\":\"1")).await, forged);
    let other = Pair::new([607, 2_203]);
    assert_eq!(refused(signed(&other, message("Notification", 0))).await, forged);
    assert_eq!(amazon.asked(), [CERTIFICATE]);
    let (old, new) = ("/SimpleNotificationService-01.pem", "/SimpleNotificationService-02.pem");
    amazon.put(old, 200, pair().certificate(2020));
    amazon.put(new, 200, other.certificate(2100));
    let with = |path: &str| with("SigningCertURL", &format!("https://{HOST}{path}"));
    assert_eq!(post_until_asked(&bridge, &with(old)).await, StatusCode::UNAUTHORIZED);
    assert_eq!(post_until_asked(&bridge, &with(new)).await, StatusCode::UNAUTHORIZED);
    assert_eq!(bridge.outcomes("unauthorized").await, 13.0);
    assert_eq!(post(&bridge, good).await.0, StatusCode::OK);
    bridge.record();
}

#[tokio::test]
async fn a_subscription_is_confirmed_where_that_is_set() {
    let (broker, amazon) = (Broker::embedded(), Amazon::start().await);
    let wanted = || signed(&pair(), message("SubscriptionConfirmation", 0));
    let ended = || signed(&pair(), message("UnsubscribeConfirmation", 0));

    let bridge = amazon.bridge(&broker, "").await;
    assert_eq!(post(&bridge, wanted()).await.0, StatusCode::OK);
    assert_eq!(amazon.asked(), [CERTIFICATE]);
    let letter = bridge.dead_letter();
    assert!(String::from_utf8(letter.value.clone()).unwrap().contains(&confirmation()));
    assert!(header(&letter, "hookbridge-detail").contains("visit SubscribeURL"));
    assert_eq!(bridge.outcomes("confirmed").await, 0.0);

    let bridge = amazon.bridge(&broker, ", confirm = true").await;
    // Only a signed confirmation counts, and only its URL at Amazon is visited.
    let forged = wanted().replace("You have chosen", "You have not chosen");
    assert_eq!(post(&bridge, forged).await.0, StatusCode::UNAUTHORIZED);
    let mut elsewhere = message("SubscriptionConfirmation", 0);
    elsewhere["SubscribeURL"] = format!("https://evil.test{}", confirmation()).into();
    let elsewhere = post(&bridge, signed(&pair(), elsewhere)).await;
    assert_eq!(elsewhere.0, StatusCode::UNAUTHORIZED);
    assert_eq!(amazon.asked(), [CERTIFICATE]);
    // A failed confirmation can be retried.
    amazon.put(&confirmation(), 500, "");
    assert_eq!(post(&bridge, wanted()).await.0, StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(amazon.asked(), [confirmation()]);
    amazon.put(&confirmation(), 200, "<ConfirmSubscriptionResponse/>");
    assert_eq!(post_until_asked(&bridge, &wanted()).await, StatusCode::OK);
    assert_eq!(amazon.asked(), [confirmation()]);
    assert_eq!(bridge.outcomes("confirmed").await, 1.0);
    // The bridge does not renew a subscription that was ended.
    assert_eq!(post(&bridge, ended()).await.0, StatusCode::OK);
    assert_eq!(amazon.asked(), [""; 0]);
    let letter = bridge.dead_letter();
    assert!(header(&letter, "hookbridge-detail").contains("no longer sends here"));
    assert_eq!(bridge.count(), 0);
}

#[tokio::test]
async fn while_amazon_is_unreachable_its_messages_are_answered_503() {
    let (broker, amazon) = (Broker::embedded(), Amazon::start().await);
    let bridge = amazon.bridge(&broker, "").await;
    let good = signed(&pair(), message("Notification", 0));
    let unavailable = async || {
        let (status, answer) = post(&bridge, good.clone()).await;
        assert_eq!(status, StatusCode::SERVICE_UNAVAILABLE);
        assert!(answer.contains("sns_unreachable"), "{answer}");
    };
    amazon.shared.is_away.store(true, Ordering::Relaxed);
    unavailable().await;
    amazon.shared.is_away.store(false, Ordering::Relaxed);
    // Too large, a redirect, or not a certificate.
    let pages = [(200, vec![b' '; 1 << 20]), (301, Vec::new()), (200, b"<html>".to_vec())];
    for (status, body) in pages {
        amazon.put(CERTIFICATE, status, body);
        until("asked", async || {
            unavailable().await;
            amazon.asked() == [CERTIFICATE]
        })
        .await;
    }
    // A server that does not answer is timed out.
    amazon.shared.is_silent.store(true, Ordering::Relaxed);
    until("silent", async || {
        let began = Instant::now();
        unavailable().await;
        let took = began.elapsed();
        assert!(took < PATIENCE / 2, "{took:?}");
        took.as_millis() >= bridge.config.http.answer_timeout_ms.into()
    })
    .await;
    amazon.shared.is_silent.store(false, Ordering::Relaxed);
    amazon.put(CERTIFICATE, 200, pair().certificate(2100));
    assert_eq!(post_until_asked(&bridge, &good).await, StatusCode::OK);
    bridge.record();
    // A cached certificate needs no request.
    amazon.shared.is_away.store(true, Ordering::Relaxed);
    let next = signed(&pair(), message("Notification", 0));
    assert_eq!(post(&bridge, next).await.0, StatusCode::OK);
    assert!(bridge.outcomes("sns_unreachable").await >= 5.0);
    assert_eq!(records(&bridge.config, bridge.topic(), 2).len(), 2);
}

/// Amazon SNS sends the password only after a challenge.
#[tokio::test]
async fn a_password_in_the_url_works_without_a_way_out() {
    let broker = Broker::embedded();
    let bridge =
        bridge_with(&broker, "\"basic\"", "[auth]\napi_key = \"user:password-of-the-test\"\n")
            .await;
    let post = |body: &str| sender().post(bridge.url()).body(body.to_owned());
    let body = message("Notification", 0).to_string();
    let answer = post(&body).send().await.unwrap();
    assert_eq!(answer.status(), StatusCode::UNAUTHORIZED);
    assert!(answer.headers()["www-authenticate"].to_str().unwrap().starts_with("Basic "));
    for body in [body, message("SubscriptionConfirmation", 0).to_string()] {
        let answer =
            post(&body).basic_auth("user", Some("password-of-the-test")).send().await.unwrap();
        assert_eq!(answer.status(), StatusCode::OK);
    }
    assert!(header(&bridge.dead_letter(), "hookbridge-detail").contains("visit SubscribeURL"));
    assert_eq!(bridge.record().value, EVENT.replace("TIME", "2026-11-24T12:00:00.123Z").as_bytes());
}
