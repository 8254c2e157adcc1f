//! Tokens, the identities of AWS and certificates, as managed services of Kafka ask for them, on a real Kafka.

use std::net::Ipv4Addr;
use std::path::Path;
use std::process::Command;
use std::sync::{Arc, Mutex};

use hookbridge::config::Config;
use reqwest::StatusCode;

use crate::harness::brokers::{Broker, count, create_topic};
use crate::harness::found::Found;
use crate::harness::load::Load;
use crate::harness::ports;
use crate::harness::process::{Serve, hookbridge, settings_file, texts};
use crate::harness::secured::{
    AUDIENCE, AWS_KEY, CLIENT, Endpoint, REGION, Secured, secured, serve_plainly,
};
use crate::harness::support::{TestBridge, click, config, until};
use crate::security::check;

/// The seconds that a token lives which is to expire in a test.
const SHORT: i64 = 6;

/// The seconds that a token lives which is to be renewed: librdkafka asks for the next after four fifths, by a
/// timer of a second, and shows it to the broker after nine tenths.
const RENEWED: i64 = 20;

fn plain(secured: &Secured) -> Broker {
    Broker::Kafka(secured.kafka.plaintext())
}

/// Settings for one listener, with a topic created through the plain one.
async fn at(secured: &Secured, brokers: String, options: &[(&str, &str)]) -> Config {
    let mut config = config(&plain(secured));
    create_topic(&secured.kafka.plaintext(), &config.webhook[0].topic, 3, 1, &[]).await;
    create_topic(&secured.kafka.plaintext(), &config.webhook[0].dead_letters(), 1, 1, &[]).await;
    set(&mut config, brokers, options);
    config.kafka.options.set("ssl.ca.location", secured.ca_file());
    config
}

fn set(config: &mut Config, brokers: String, options: &[(&str, &str)]) {
    config.kafka.brokers = brokers;
    for (name, value) in options {
        config.kafka.options.set(*name, *value);
    }
}

/// The properties for tokens of this endpoint.
fn oidc(secured: &Secured, endpoint: &Endpoint, config: &mut Config) {
    let (url, ca) = (endpoint.url(), secured.ca_file());
    let options = [
        ("security.protocol", "SASL_SSL"),
        ("sasl.mechanism", "OAUTHBEARER"),
        ("sasl.oauthbearer.method", "oidc"),
        ("sasl.oauthbearer.token.endpoint.url", &url),
        ("sasl.oauthbearer.client.id", CLIENT.0),
        ("sasl.oauthbearer.client.secret", CLIENT.1),
        ("ssl.ca.location", &ca),
        ("https.ca.location", &ca),
    ];
    set(config, secured.tokens(), &options);
}

/// The same topic through the listener that lets everybody in.
fn plainly(secured: &Secured, config: &Config) -> Config {
    let mut config = config.clone();
    config.kafka = Config::default().kafka;
    config.kafka.brokers = secured.kafka.plaintext();
    config
}

async fn is_open(bridge: &TestBridge) -> bool {
    bridge.metric("hookbridge_breaker_open").await == 1.0
}

/// Tokens expire and are renewed. Then their endpoint is away for longer than a token lives: clicks go to the
/// spool, and afterwards to Kafka. No click is refused.
#[tokio::test]
async fn tokens_of_a_provider_are_renewed_and_missed_without_a_lost_click() {
    let Some(secured) = secured() else { return };
    let endpoint = secured.endpoint(0, RENEWED);
    let change = |config: &mut Config| oidc(secured, &endpoint, config);
    let bridge = TestBridge::start_spooling(&plain(secured), change).await;
    let load = Load::start(&bridge.url(), 100, "oidc");
    until("tokens have been renewed", async || endpoint.given() >= 3).await;
    assert!(!is_open(&bridge).await);
    assert_eq!(bridge.metric("hookbridge_spool_events").await, 0.0);

    let port = endpoint.port();
    drop(endpoint);
    until("the token has expired", async || is_open(&bridge).await).await;
    load.more(200).await;
    assert_eq!(bridge.admin("/readyz").await.0, StatusCode::OK);
    assert!(bridge.metric("hookbridge_spool_events").await > 0.0);

    let endpoint = secured.endpoint(port, 300);
    until("all is in Kafka", async || {
        !is_open(&bridge).await && bridge.metric("hookbridge_spool_events").await == 0.0
    })
    .await;
    assert!(endpoint.given() > 0);
    load.more(50).await;
    let book = load.stop().await;
    until("the rest is in Kafka", async || bridge.metric("hookbridge_spool_events").await == 0.0)
        .await;
    let found = Found::in_kafka(&plainly(secured, &bridge.config), "oidc");
    found.check("tokens", &book, 0.0);
    found.check_order(&book);
}

/// The other ways to a token that librdkafka knows.
#[tokio::test]
async fn tokens_come_for_an_assertion_and_for_an_identity_of_azure() {
    let Some(secured) = secured() else { return };
    let endpoint = secured.endpoint(0, 300);
    let key = crate::harness::support::fixture("client-key.pem");
    let key = String::from_utf8(key).unwrap();
    let encrypted = key.split_once('\n').unwrap().1.split("-----BEGIN PRIVATE KEY").next().unwrap();
    let azure = [
        ("sasl.oauthbearer.metadata.authentication.type", "azure_imds"),
        ("sasl.oauthbearer.config", "query=resource=kafka"),
    ];
    let assertion = [
        ("sasl.oauthbearer.grant.type", "urn:ietf:params:oauth:grant-type:jwt-bearer"),
        ("sasl.oauthbearer.assertion.algorithm", "ES256"),
        ("sasl.oauthbearer.assertion.private.key.pem", encrypted),
        ("sasl.oauthbearer.assertion.private.key.passphrase", "zq-passphrase"),
        ("sasl.oauthbearer.assertion.claim.aud", "provider"),
        ("sasl.oauthbearer.assertion.claim.iss", "hookbridge"),
        ("sasl.oauthbearer.assertion.claim.sub", "hookbridge"),
    ];
    for options in [&azure[..], &assertion] {
        let mut config = at(secured, secured.tokens(), &[]).await;
        oidc(secured, &endpoint, &mut config);
        config.kafka.options.remove("sasl.oauthbearer.client.id");
        config.kafka.options.remove("sasl.oauthbearer.client.secret");
        set(&mut config, secured.tokens(), options);
        let given = endpoint.given();
        let (code, out) = check(&config);
        assert_eq!(code, 0, "{out}");
        assert!(endpoint.given() > given && !out.contains("zq-"), "{out}");
    }
}

/// A new token in the file is taken before the old one expires; without one clicks go to the spool.
#[tokio::test]
async fn a_token_from_a_file_is_read_again() {
    let Some(secured) = secured() else { return };
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("token");
    let config = with_file(secured, &file, folder.path()).await;
    let mut serve = Serve::launch(&config, folder.path(), "true");
    // There is none yet.
    serve.wait_for_log("kafka.token_file");
    until("ready by its spool", async || serve.is_ready().await).await;
    assert_eq!(serve.post(click("1")).send().await.unwrap().status(), StatusCode::OK);
    assert_eq!(serve.metric("hookbridge_spool_events").await, 1.0);
    std::fs::write(&file, secured.token(SHORT)).unwrap();
    until("delivered", async || serve.metric("hookbridge_spool_events").await == 0.0).await;
    // Of these lives one ends, and Kafka ends the connection with it, before the last click. This was the only
    // broker, so that clicks may take the way over the spool until there is another connection.
    let mut posted = 1;
    for number in 2..5 {
        let token = secured.token(SHORT);
        std::fs::write(&file, format!("{token}\n")).unwrap();
        let deadline = tokio::time::Instant::now() + std::time::Duration::from_secs(4);
        while tokio::time::Instant::now() < deadline {
            assert_eq!(serve.post(click(&number.to_string())).send().await.unwrap().status(), 200);
            posted += 1;
        }
        until("delivered", async || serve.metric("hookbridge_spool_events").await == 0.0).await;
    }
    // None is lost; one whose acknowledgement went with the connection may be there twice.
    assert!(count(&secured.kafka.plaintext(), &config.webhook[0].topic) >= posted);
    let (code, log) = serve.stop();
    assert_eq!(code, 0, "{log}");
    assert!(!log.contains("eyJ"), "{log}");
    assert!(!log.contains("expired"), "{log}");
}

async fn with_file(secured: &Secured, file: &Path, folder: &Path) -> Config {
    let mut config = at(secured, secured.tokens(), &[]).await;
    config.kafka.token_file = Some(file.to_owned());
    config.spool.dir = folder.join("spool");
    config
}

/// Every way to give a certificate and its key.
#[tokio::test]
async fn brokers_take_the_certificate_of_the_bridge() {
    let Some(secured) = secured() else { return };
    let key = crate::harness::support::fixture("client-key.pem");
    let key = String::from_utf8(key).unwrap();
    let (encrypted, key) = key.split_once("-----BEGIN PRIVATE KEY-----").unwrap();
    let key = format!("-----BEGIN PRIVATE KEY-----{key}");
    let encrypted = encrypted.split_once('\n').unwrap().1;
    let pair = secured.authority.issue_for_key("clicks", &key);
    let [(_, certificate), _] = pair.files();
    let folder = tempfile::tempdir().unwrap();
    let file = |name: &str, text: &str| {
        let path = folder.path().join(name);
        std::fs::write(&path, text).unwrap();
        path.display().to_string()
    };
    let ca = std::fs::read_to_string(secured.ca_file()).unwrap();
    let (cert_file, key_file) = (file("tls.crt", certificate), file("tls.key", &key));
    let encrypted_file = file("encrypted.key", encrypted);
    for options in [
        &[("ssl.certificate.location", cert_file.as_str()), ("ssl.key.location", &key_file)][..],
        &[
            ("ssl.certificate.location", &cert_file),
            ("ssl.key.location", &encrypted_file),
            ("ssl.key.password", "zq-passphrase"),
        ],
        &[("ssl.certificate.pem", certificate), ("ssl.key.pem", &key), ("ssl.ca.pem", &ca)],
        &[
            ("ssl.certificate.pem", certificate),
            ("ssl.key.pem", encrypted),
            ("ssl.key.password", "zq-passphrase"),
        ],
    ] {
        let mut config = at(secured, secured.mutual_tls(), options).await;
        config.kafka.options.set("security.protocol", "SSL");
        if options.iter().any(|(name, _)| *name == "ssl.ca.pem") {
            config.kafka.options.remove("ssl.ca.location");
        }
        let bridge = TestBridge::launch(config);
        bridge.ready().await;
        assert_eq!(bridge.post(click("7")).await.status(), StatusCode::OK, "{options:?}");
        assert_eq!(bridge.records(1)[0].value, click("7"));
    }
    // Without one the broker ends the handshake.
    let mut config = at(secured, secured.mutual_tls(), &[("security.protocol", "SSL")]).await;
    let (code, out) = check(&config);
    assert_eq!(code, 1, "{out}");
    assert!(out.contains("ssl.certificate.location"), "{out}");
    // A passphrase that is missing or wrong is a problem with the settings.
    set(&mut config, secured.mutual_tls(), &[("ssl.key.location", &encrypted_file)]);
    config.kafka.options.set("ssl.key.password", "zq-wrong");
    let (code, out) = check(&config);
    assert_eq!(code, 78, "{out}");
    assert!(!out.contains("zq-wrong"), "{out}");
}

/// `check --kafka` says in one line what is wrong, and what to do.
#[tokio::test]
async fn what_keeps_the_bridge_out_is_explained() {
    let Some(secured) = secured() else { return };
    let endpoint = secured.endpoint(0, 300);
    let expired = secured.endpoint(0, -10);
    let base = at(secured, secured.tokens(), &[]).await;
    let away = ports::free(Ipv4Addr::LOCALHOST);
    let away = format!("https://localhost:{}/token", away.port());
    let ip = |brokers: String| brokers.replace("localhost", "127.0.0.1");
    let other_host = endpoint.url().replace("localhost", "127.0.0.1");
    let folder = tempfile::tempdir().unwrap();
    let token = |name: &str, text: String| {
        std::fs::write(folder.path().join(name), text).unwrap();
        Some(folder.path().join(name))
    };
    type Change<'c> = &'c dyn Fn(&mut Config);
    let cases: &[(&str, Change, &str)] = &[
        (
            "a wrong secret",
            &|config| config.kafka.options.set("sasl.oauthbearer.client.secret", "zq-other"),
            "the token endpoint does not know this client or its secret",
        ),
        (
            "an endpoint that is away",
            &|config| {
                config.kafka.options.set("sasl.oauthbearer.token.endpoint.url", away.as_str())
            },
            "the token endpoint cannot be reached",
        ),
        (
            "an endpoint of an unknown authority",
            &|config| config.kafka.options.set("https.ca.location", "probe"),
            "name it in https.ca.location",
        ),
        (
            "an endpoint with another name",
            &|config| {
                config.kafka.options.set("sasl.oauthbearer.token.endpoint.url", other_host.as_str())
            },
            "the certificate of the token endpoint is for another name",
        ),
        (
            "a clock that is wrong",
            &|config| {
                config.kafka.options.set("sasl.oauthbearer.token.endpoint.url", expired.url())
            },
            "set the clock of this machine, or that of the token endpoint",
        ),
        (
            "a broker of an unknown authority",
            &|config| config.kafka.options.set("ssl.ca.location", "probe"),
            "is of no authority that is trusted here; name it in ssl.ca.location",
        ),
        (
            "a broker with another name",
            &|config| config.kafka.brokers = ip(secured.tokens()),
            "is for another name; write kafka.brokers",
        ),
        (
            "a broker whose certificate has expired",
            &|config| set(config, secured.expired(), &[("security.protocol", "SSL")]),
            "has expired, or the clock of this machine is ahead",
        ),
        (
            "a token for somebody else",
            &|config| {
                *config = base.clone();
                config.kafka.token_file = token("other", secured.token_for("other", 300));
            },
            "the brokers do not take the token; compare its issuer, audience and scope",
        ),
        (
            "a forged token",
            &|config| {
                *config = base.clone();
                config.kafka.token_file = token("forged", secured.forged_token());
            },
            "the brokers do not take the token; compare its issuer, audience and scope",
        ),
        (
            "a token that has expired",
            &|config| {
                *config = base.clone();
                config.kafka.token_file = token("expired", secured.token_for(AUDIENCE, -5));
            },
            "look at whoever writes it anew, and at the clock",
        ),
    ];
    for (what, change, expected) in cases {
        let mut config = base.clone();
        oidc(secured, &endpoint, &mut config);
        change(&mut config);
        let (code, out) = check(&config);
        println!("{what}: {out}");
        assert_eq!(code, 1, "{what}: {out}");
        let line = out.lines().find(|line| line.contains(expected));
        let line = line.unwrap_or_else(|| panic!("{what}: {expected} is not in {out}"));
        assert!(line.trim_start().starts_with("problem"), "{what}: {line}");
        assert_eq!(out.lines().filter(|line| line.contains("problem")).count(), 1, "{what}: {out}");
        assert!(!out.contains("zq-"), "{what}: {out}");
    }
    let mut config = base.clone();
    oidc(secured, &endpoint, &mut config);
    let (code, out) = check(&config);
    assert_eq!(code, 0, "{out}");
}

/// The log says it, too, and the replica, which has no spool, is not ready.
#[tokio::test]
async fn the_log_says_what_keeps_the_bridge_out() {
    let Some(secured) = secured() else { return };
    let endpoint = secured.endpoint(0, 300);
    let folder = tempfile::tempdir().unwrap();
    let mut config = at(secured, secured.tokens(), &[]).await;
    oidc(secured, &endpoint, &mut config);
    config.kafka.options.set("sasl.oauthbearer.client.secret", "zq-other");
    let mut serve = Serve::launch(&config, folder.path(), "true");
    serve.wait_for_log("the token endpoint does not know this client or its secret");
    assert!(!serve.is_ready().await);
    assert_eq!(serve.post(click("7")).send().await.unwrap().status(), 503);
    let (_, log) = serve.stop();
    assert!(!log.contains("zq-"), "{log}");

    oidc(secured, &endpoint, &mut config);
    config.kafka.brokers = config.kafka.brokers.replace("localhost", "127.0.0.1");
    let mut serve = Serve::launch(&config, folder.path(), "true");
    serve.wait_for_log("is for another name; write kafka.brokers");
}

/// Settings for the listener that checks tokens as Amazon MSK does.
async fn msk(secured: &Secured) -> Config {
    let mut config = at(secured, secured.msk(), &[]).await;
    config.kafka.aws_msk_iam = true;
    config.kafka.aws_region = REGION.into();
    config
}

/// A click lands with a signed token, and each source of credentials is asked by its protocol.
#[tokio::test]
async fn every_source_of_credentials_of_aws_is_known() {
    let Some(secured) = secured() else { return };
    let config = msk(secured).await;
    let folder = tempfile::tempdir().unwrap();
    let home = folder.path().display().to_string();
    let write = |name: &str, text: &str| {
        std::fs::create_dir_all(folder.path().join(".aws")).unwrap();
        std::fs::write(folder.path().join(name), text).unwrap();
    };
    let (id, secret) = AWS_KEY;
    let asked = Arc::new(Mutex::new(Vec::new()));
    let seen = asked.clone();
    let base = serve_plainly(move |request| {
        let (status, answer) = aws(request);
        seen.lock().unwrap().push(request.lines().next().unwrap_or_default().to_owned());
        (status, answer)
    });
    let file = settings_file(folder.path(), &config);
    write("web-token", "zq-web-token");
    write("pod-token", "zq-pod-token");
    let profile =
        format!("[default]\naws_access_key_id = {id}\naws_secret_access_key = {secret}\n");
    let web_token = folder.path().join("web-token").display().to_string();
    let pod_token = folder.path().join("pod-token").display().to_string();
    let full = format!("{base}/v1/credentials");
    let environment = [("AWS_ACCESS_KEY_ID", id), ("AWS_SECRET_ACCESS_KEY", secret)];
    let web_identity = [
        ("AWS_ROLE_ARN", "arn:aws:iam::123456789012:role/clicks"),
        ("AWS_WEB_IDENTITY_TOKEN_FILE", &web_token),
        ("AWS_ENDPOINT_URL_STS", &base),
    ];
    let pod_identity = [
        ("AWS_CONTAINER_CREDENTIALS_FULL_URI", full.as_str()),
        ("AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE", &pod_token),
    ];
    let ecs = [
        ("AWS_CONTAINER_CREDENTIALS_FULL_URI", full.as_str()),
        ("AWS_CONTAINER_AUTHORIZATION_TOKEN", "zq-pod-token"),
    ];
    let instance = [("AWS_EC2_METADATA_SERVICE_ENDPOINT", base.as_str())];
    let first = format!("export AWS_ACCESS_KEY_ID={id} AWS_SECRET_ACCESS_KEY={secret}");
    let serve = Serve::launch(&config, folder.path(), &first);
    until("ready", async || serve.is_ready().await).await;
    assert_eq!(serve.post(click("7")).send().await.unwrap().status(), StatusCode::OK);

    let run = |variables: &[(&str, &str)], code: i32| {
        let mut command: Command = hookbridge(["check", "--kafka", "--config"]);
        command.arg(&file).env("HOME", &home).env("AWS_EC2_METADATA_DISABLED", "true");
        if variables == instance {
            command.env_remove("AWS_EC2_METADATA_DISABLED");
        }
        let output = command.envs(variables.iter().copied()).output().unwrap();
        let (out, err) = texts(&output, code);
        assert!(!out.contains("zq-") && !err.contains("zq-"), "{out}{err}");
        out
    };
    for (what, variables, path) in [
        ("the environment", &environment[..], None),
        ("a web identity", &web_identity, Some("POST / ")),
        ("EKS Pod Identity", &pod_identity, Some("GET /v1/credentials ")),
        ("ECS", &ecs, Some("GET /v1/credentials ")),
        ("the instance", &instance, Some("GET /latest/meta-data/iam/security-credentials/role ")),
    ] {
        let out = run(variables, 0);
        assert!(out.contains("the right to write"), "{what}: {out}");
        let asked = std::mem::take(&mut *asked.lock().unwrap());
        assert_eq!(asked.is_empty(), path.is_none(), "{what}: {asked:?}");
        assert!(path.is_none_or(|path| asked.iter().any(|it| it.starts_with(path))), "{asked:?}");
    }
    write(".aws/credentials", &profile);
    run(&[], 0);
    std::fs::remove_file(folder.path().join(".aws/credentials")).unwrap();

    // What fails does not fall back to the role of the instance.
    write("web-token", "zq-unknown");
    let out = run(&web_identity, 1);
    assert!(out.contains("the web identity gives no credentials of AWS"), "{out}");
    assert!(out.contains("InvalidIdentityToken"), "{out}");
    let out = run(&[], 1);
    assert!(out.contains("there are no credentials of AWS; give the pod"), "{out}");
    let other = [("AWS_ACCESS_KEY_ID", id), ("AWS_SECRET_ACCESS_KEY", "zq-other")];
    let out = run(&other, 1);
    assert!(out.contains("the brokers do not take the token"), "{out}");
}

/// Plays the sources that AWS documents: STS, the agent of EKS and ECS, the metadata of an instance.
fn aws(request: &str) -> (StatusCode, String) {
    let secret = AWS_KEY.1;
    let has = |words: &str| request.to_lowercase().contains(&words.to_lowercase());
    let json = |source: &str| {
        format!(
            r#"{{"Code":"Success","Type":"AWS-HMAC","AccessKeyId":"ASIAEXAMPLE","SecretAccessKey":"{secret}","Token":"{source}/+=","Expiration":"2099-01-01T00:00:00Z","LastUpdated":"2026-01-01T00:00:00Z"}}"#
        )
    };
    let first = request.lines().next().unwrap_or_default().to_owned();
    let path = first.split(' ').nth(1).unwrap_or_default();
    let is_metadata = has("x-aws-ec2-metadata-token: zq-metadata");
    match (first.split(' ').next().unwrap_or_default(), path) {
        ("POST", "/")
            if has("WebIdentityToken=zq-web-token") && has("Action=AssumeRoleWithWebIdentity") =>
        {
            let answer = format!(
                "<AssumeRoleWithWebIdentityResponse><AssumeRoleWithWebIdentityResult><Credentials>\
                 <AccessKeyId>ASIAEXAMPLE</AccessKeyId><SecretAccessKey>{secret}</SecretAccessKey>\
                 <SessionToken>sts/+=</SessionToken><Expiration>2099-01-01T00:00:00Z</Expiration>\
                 </Credentials></AssumeRoleWithWebIdentityResult></AssumeRoleWithWebIdentityResponse>"
            );
            (StatusCode::OK, answer)
        }
        ("POST", "/") => {
            let answer = "<ErrorResponse><Error><Code>InvalidIdentityToken</Code>\
                          <Message>the token is unknown</Message></Error></ErrorResponse>";
            (StatusCode::BAD_REQUEST, answer.to_owned())
        }
        ("GET", "/v1/credentials") if has("authorization: zq-pod-token") => {
            (StatusCode::OK, json("agent"))
        }
        ("PUT", "/latest/api/token") if has("x-aws-ec2-metadata-token-ttl-seconds: ") => {
            (StatusCode::OK, "zq-metadata".to_owned())
        }
        ("GET", "/latest/meta-data/iam/security-credentials/") if is_metadata => {
            (StatusCode::OK, "role".to_owned())
        }
        ("GET", "/latest/meta-data/iam/security-credentials/role") if is_metadata => {
            (StatusCode::OK, json("instance"))
        }
        _ => (StatusCode::FORBIDDEN, String::new()),
    }
}
