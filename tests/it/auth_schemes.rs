//! How senders prove who they are, and that no secret is printed.

use std::time::Duration;

use data_encoding::{BASE64, HEXLOWER};
use hookbridge::click::auth::Encoding;
use hookbridge::config::{
    AuthSchemeSettings, Config, NamedKey, Secret, SigningSettings, WebhookSettings,
};
use jiff::{SignedDuration, Timestamp};
use reqwest::{RequestBuilder, StatusCode, Version};
use ring::hmac;
use serde_json::Value;

use crate::harness::brokers::Broker;
use crate::harness::process::{Serve, hookbridge};
use crate::harness::support::{KEY, Mount, Raw, TestBridge, click, config, sender, until};
use crate::keys::key;

/// A webhook at `/NAME` with this auth scheme, to the topic of the first.
pub fn webhook(first: &WebhookSettings, name: &str, auth: AuthSchemeSettings) -> WebhookSettings {
    WebhookSettings { name: name.into(), path: format!("/{name}"), auth, ..first.clone() }
}

fn header() -> AuthSchemeSettings {
    AuthSchemeSettings::Header { header: "X-Api-Key".into() }
}

/// Signatures over the body alone.
pub fn signing(encoding: Encoding, prefix: &str) -> SigningSettings {
    SigningSettings {
        header: "X-Signature".into(),
        prefix: prefix.into(),
        encoding,
        signed: "{body}".into(),
        timestamp_header: None,
        tolerance_s: 300,
    }
}

fn timed() -> SigningSettings {
    SigningSettings {
        signed: "v0:{timestamp}:{body}".into(),
        timestamp_header: Some("X-Timestamp".into()),
        ..signing(Encoding::Hex, "v0=")
    }
}

fn sign(secret: &str, signed: &[u8]) -> hmac::Tag {
    hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, secret.as_bytes()), signed)
}

pub fn hex(secret: &str, signed: &[u8]) -> String {
    HEXLOWER.encode(sign(secret, signed).as_ref())
}

fn secret(name: &str, secret: &str) -> NamedKey {
    NamedKey { sha256: None, secret: Some(Secret::new(secret)), ..NamedKey::new(name, "") }
}

/// A bridge with a webhook for each auth scheme.
async fn bridge(broker: &Broker) -> TestBridge {
    TestBridge::start_with(broker, |config| {
        let first = config.webhook[0].clone();
        config.webhook.extend([
            webhook(&first, "basic", AuthSchemeSettings::Basic),
            webhook(&first, "header", header()),
            webhook(
                &first,
                "hex",
                AuthSchemeSettings::HmacSha256(signing(Encoding::Hex, "sha256=")),
            ),
            webhook(
                &first,
                "base64",
                AuthSchemeSettings::HmacSha256(signing(Encoding::Base64, "")),
            ),
            webhook(&first, "timed", AuthSchemeSettings::HmacSha256(timed())),
            webhook(&first, "path", AuthSchemeSettings::PathSecret),
        ]);
        config.auth.keys = vec![
            key("user:password"),
            key("in-a-header"),
            key("in-the-path"),
            secret("signer", "a-shared-secret"),
            NamedKey { webhooks: Some(vec!["path".into()]), ..key("for-the-path") },
            NamedKey {
                expires_at: Some(Timestamp::UNIX_EPOCH),
                ..secret("ended", "an-old-secret")
            },
        ];
    })
    .await
}

/// Checks the answer, its challenge, and the webhook and key of the counted failure.
#[tokio::test]
async fn each_auth_scheme_accepts_its_key_and_nothing_else() {
    let broker = Broker::embedded();
    let bridge = bridge(&broker).await;
    let body = click("7");
    let post = |path: &str| sender().post(format!("http://{}{path}", bridge.http)).body(click("7"));
    let good = hex("a-shared-secret", &body);
    let signed_at = |offset: i64, name: &str| {
        let time = (Timestamp::now() + SignedDuration::from_secs(offset)).as_second();
        let signed = [format!("v0:{time}:").as_bytes(), &body].concat();
        let signature = format!("v0={}", hex(name, &signed));
        post("/timed").header("X-Timestamp", time).header("X-Signature", signature)
    };
    let (basic, hmac) = ("Basic realm=\"hookbridge\", charset=\"UTF-8\"", "HMAC-SHA256");
    let unknown = "No key made the signature of this body";
    let cases: Vec<(&str, RequestBuilder, &str, &str)> = vec![
        ("basic", post("/basic").basic_auth("user", Some("password")), "", ""),
        ("basic", post("/basic").basic_auth("user", Some("wrong")), basic, "The key is not known"),
        ("basic", post("/basic"), basic, "The header authorization is missing"),
        (
            "basic",
            post("/basic").bearer_auth("user:password"),
            basic,
            "The header authorization has another scheme than basic",
        ),
        ("header", post("/header").header("X-Api-Key", "in-a-header"), "", ""),
        ("header", post("/header").header("X-Api-Key", KEY), "", ""),
        (
            "header",
            post("/header").bearer_auth("in-a-header"),
            "Header",
            "The header x-api-key is missing",
        ),
        ("hex", post("/hex").header("X-Signature", format!("sha256={good}")), "", ""),
        ("hex", post("/hex").header("X-Signature", format!("sha256={}", hex(KEY, &body))), "", ""),
        (
            "hex",
            post("/hex").header("X-Signature", format!("sha256={good}")).body(click("8")),
            hmac,
            unknown,
        ),
        (
            "hex",
            post("/hex").header("X-Signature", format!("sha256={}", hex("in-a-header", &body))),
            hmac,
            unknown,
        ),
        (
            "hex",
            post("/hex").header("X-Signature", &good),
            hmac,
            "The signature does not have the configured form",
        ),
        ("hex", post("/hex").bearer_auth(KEY), hmac, "The header x-signature is missing"),
        (
            "hex",
            post("/hex").header("X-Signature", format!("sha256={}", hex("an-old-secret", &body))),
            hmac,
            "The key has expired",
        ),
        (
            "base64",
            post("/base64")
                .header("X-Signature", BASE64.encode(sign("a-shared-secret", &body).as_ref())),
            "",
            "",
        ),
        ("timed", signed_at(-200, "a-shared-secret"), "", ""),
        ("timed", signed_at(200, "a-shared-secret"), "", ""),
        ("timed", signed_at(0, "in-a-header"), hmac, unknown),
        (
            "timed",
            signed_at(-400, "a-shared-secret"),
            hmac,
            "The timestamp is too far from the time of receipt",
        ),
        ("path", post("/path/in-the-path"), "", ""),
        ("path", post("/path/for-the-path?source=x"), "", ""),
        ("path", post("/path/wrong"), "Path-Secret", "The key is not known"),
        ("path", post("/path/in-the-path/"), "", ""),
        ("path", post("//path//in-the-path"), "", ""),
        ("path", post("/%70ath/in-the-path"), "", ""),
        ("path", post("/path/in-th%65-path"), "Path-Secret", "The key is not known"),
        ("path", post("/path/"), "Path-Secret", "The key is not known"),
        ("path", post("/path").bearer_auth(KEY), "Path-Secret", "The key is not known"),
        ("none", post("/path/in-the-path/more"), "", "No webhook is configured at this path"),
        ("none", post("/header/in-a-header"), "", "No webhook is configured at this path"),
    ];
    let mut accepted = 0;
    for (webhook, request, challenge, detail) in cases {
        let tag = match (webhook, detail) {
            ("none", _) => "unknown_path",
            (_, "") => "accepted",
            _ => "unauthorized",
        };
        let series =
            format!("hookbridge_requests_total{{outcome=\"{tag}\",webhook=\"{webhook}\"}}");
        let before = bridge.metric(&series).await;
        let case = format!("{request:?}");
        let answer = request.send().await.unwrap();
        let sent = answer.headers().get("www-authenticate").map_or("", |v| v.to_str().unwrap());
        assert_eq!(sent, challenge, "{case}");
        let text = answer.text().await.unwrap();
        if detail.is_empty() {
            accepted += 1;
        } else {
            let problem: Value = serde_json::from_str(&text).unwrap();
            assert_eq!(problem["detail"], detail, "{case}");
        }
        assert_eq!(bridge.metric(&series).await, before + 1.0, "{case}");
    }
    assert_eq!(bridge.metric("hookbridge_key_uses_after_end_total{key=\"ended\"}").await, 1.0);
    assert_eq!(bridge.records(accepted).len(), accepted);
    assert_eq!(bridge.count(), accepted as i64);
}

/// A wrong head is refused before the body is read; a wrong signature of the body is refused before
/// the body is parsed.
#[tokio::test]
async fn a_signature_is_judged_before_the_event() {
    let broker = Broker::embedded();
    let bridge = bridge(&broker).await;
    let mut raw = Raw::connect(bridge.http);
    raw.send(
        "POST /hex HTTP/1.1\r\nhost: test\r\nx-signature: sha256=00\r\ncontent-length: 9\r\n\r\n",
    );
    let answer = raw.read_until("configured form", 1);
    assert!(answer.starts_with("HTTP/1.1 401 "), "{answer}");
    let strange = sender().post(format!("http://{}/hex", bridge.http)).body("no JSON at all");
    let signed = |name| format!("sha256={}", hex(name, b"no JSON at all"));
    let strange = |name| strange.try_clone().unwrap().header("X-Signature", signed(name)).send();
    assert_eq!(strange("an-unknown-key").await.unwrap().status(), StatusCode::UNAUTHORIZED);
    assert_eq!(strange("a-shared-secret").await.unwrap().status(), StatusCode::OK);
    let letter = bridge.dead_letter();
    assert_eq!(letter.value, b"no JSON at all");
}

/// Runs every auth scheme at the most verbose log level.
#[tokio::test]
async fn secrets_are_in_no_output_and_follow_their_file() {
    let broker = Broker::embedded();
    let keys = |secret: &str| {
        format!(
            "keys = [{{ name = \"signer\", secret = \"{secret}\", webhooks = [\"hex\"] }},\n\
             {{ name = \"path\", secret = \"{secret}-in-the-path\", webhooks = [\"path\"] }}]\n"
        )
    };
    let mut mount = Mount::new(&[("keys.toml", &keys("zq-first-signing-key"))]);
    let mut config: Config = config(&broker);
    let first = config.webhook[0].clone();
    config.webhook.extend([
        webhook(&first, "hex", AuthSchemeSettings::HmacSha256(signing(Encoding::Hex, ""))),
        webhook(&first, "path", AuthSchemeSettings::PathSecret),
    ]);
    config.auth.keys_file = Some(mount.path("keys.toml"));
    config.log.level = "trace".into();
    broker.create_topic(&first.topic, 12).await;
    let folder = tempfile::tempdir().unwrap();
    let serve = Serve::launch(&config, folder.path(), "true");
    until("ready", async || serve.is_ready().await).await;

    let http2 = reqwest::Client::builder().http2_prior_knowledge().timeout(Duration::from_secs(30));
    let clients = [sender(), http2.build().unwrap()];
    let base = format!("http://{}", serve.http);
    let status = async |client: &reqwest::Client, secret: &str| {
        let in_path = client.post(format!("{base}/path/{secret}-in-the-path")).body(click("7"));
        let signature = hex(secret, &click("7"));
        let signed = client.post(format!("{base}/hex")).header("X-Signature", signature);
        let in_path = in_path.send().await.unwrap();
        let signed = signed.body(click("7")).send().await.unwrap();
        assert_eq!(signed.status(), in_path.status(), "{secret}");
        (signed.status(), signed.version())
    };
    for (client, version) in clients.iter().zip([Version::HTTP_11, Version::HTTP_2]) {
        assert_eq!(status(client, "zq-first-signing-key").await, (StatusCode::OK, version));
        assert_eq!(
            status(client, "zq-second-signing-key").await,
            (StatusCode::UNAUTHORIZED, version)
        );
    }
    // A key that is valid for no webhook is recognised and refused.
    let elsewhere = sender().post(serve.url()).bearer_auth("zq-first-signing-key").body(click("7"));
    assert_eq!(elsewhere.send().await.unwrap().status(), StatusCode::FORBIDDEN);
    mount.swap(&[("keys.toml", &keys("zq-second-signing-key"))]);
    let reloads = "hookbridge_reloads_total{result=\"ok\",what=\"keys\"}";
    until("reloaded", async || serve.metric(reloads).await == 1.0).await;
    assert_eq!(status(&clients[0], "zq-second-signing-key").await.0, StatusCode::OK);
    assert_eq!(status(&clients[0], "zq-first-signing-key").await.0, StatusCode::UNAUTHORIZED);
    // A file that cannot be read reveals no secret either.
    let failed = "hookbridge_reloads_total{result=\"failed\",what=\"keys\"}";
    for (count, text) in [
        (1.0, "keys = [{ name = \"a\", secret = \"zq-third\", secrets = 1 }]"),
        (2.0, "keys = [{ name = \"a\", secret = [\"zq-third\"] }]"),
    ] {
        mount.swap(&[("keys.toml", text)]);
        until("refused", async || serve.metric(failed).await == count).await;
    }
    let scrape = reqwest::get(format!("http://{}/metrics", serve.admin)).await.unwrap();
    let scrape = scrape.text().await.unwrap();
    assert!(scrape.contains("webhook=\"path\"") && !scrape.contains("zq-"), "{scrape}");
    let settings = serve.file.display().to_string();
    let (code, log) = serve.stop();
    assert_eq!(code, 0, "{log}");
    assert!(log.contains("TRACE"), "{log}");
    assert!(log.contains("must be a text in quotes"), "{log}");
    mount.swap(&[("keys.toml", &keys("zq-second-signing-key"))]);
    let mut printed = log;
    for command in ["check", "config"] {
        let output = hookbridge([command, "--config", &settings]).output().unwrap();
        assert!(output.status.success(), "{output:?}");
        printed.push_str(&String::from_utf8(output.stdout).unwrap());
    }
    assert!(printed.contains("path-secret"), "{printed}");
    let leak = printed.lines().find(|line| line.contains("zq-"));
    assert_eq!(leak, None);
}
