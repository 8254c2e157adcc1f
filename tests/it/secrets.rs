//! No output contains a secret or a part of a body.

use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::Command;

use hookbridge::click::auth::Encoding;
use hookbridge::config::{AuthSchemeSettings, Config, InvalidBody, LogFormat, Secret};
use reqwest::{Client, StatusCode};

use crate::auth_schemes::{hex, signing, webhook};
use crate::harness::brokers::Broker;
use crate::harness::process::{Serve, hookbridge};
use crate::harness::support::{Mount, config, until};
use crate::tls::{self, Authority};

/// Every secret, address and body contains this mark; no output may.
const MARK: &str = "zq-";

const BODY: &str =
    r#"{"campid":"zq-campaign","email":"zq-ana@example.com","type":"Email marketing"}"#;

const SIGNING_KEY: &str = "zq-signing-secret";

/// Settings with every kind of secret, and a webhook for each auth scheme.
fn secretive(broker: &Broker, mount: &Mount, format: LogFormat, folder: &Path) -> Config {
    let mut config: Config = config(broker);
    config.log.level = "trace".into();
    config.log.format = format;
    config.spool.dir = folder.join("spool");
    config.http.max_body_bytes = 10_000;
    // The stop comes while Kafka is away and takes the whole drain time-out.
    (config.http.body_timeout_ms, config.http.drain_timeout_ms) = (1_000, 5_000);
    config.http.tls = Some(tls::settings(mount));
    config.auth.api_key = Some(Secret::new("zq-api-key-of-20-bytes"));
    config.auth.keys_file = Some(mount.path("keys.toml"));
    config.pseudonym.key = Some(Secret::new("zq-pseudonym-key-of-32-bytes-or-more"));
    // Unused without SASL, but the client logs all properties.
    config.kafka.options.set("sasl.username", "hookbridge");
    config.kafka.options.set("sasl.password", "zq-kafka-password");
    config.kafka.options.set("ssl.key.password", "zq-kafka-key-password");
    for name in ["client.secret", "assertion.private.key.passphrase", "assertion.private.key.pem"] {
        config.kafka.options.set(format!("sasl.oauthbearer.{name}"), "zq-token-secret");
    }
    config.kafka.options.set("debug", "all");
    let first = config.webhook[0].clone();
    config.webhook.extend([
        webhook(&first, "basic", AuthSchemeSettings::Basic),
        webhook(&first, "header", AuthSchemeSettings::Header { header: "X-Api-Key".into() }),
        webhook(&first, "signed", AuthSchemeSettings::HmacSha256(signing(Encoding::Hex, ""))),
        webhook(&first, "path", AuthSchemeSettings::PathSecret),
        webhook(&first, "pseudonyms", AuthSchemeSettings::Bearer),
    ]);
    let last = config.webhook.last_mut().unwrap();
    (last.invalid, last.pseudonymise) = (InvalidBody::Reject, vec!["/email".into()]);
    config
}

/// Sends requests for every outcome that a sender can cause; returns their statuses.
async fn send_all(client: &Client, base: &str) -> Vec<StatusCode> {
    let bodies = [
        BODY.to_owned(),
        BODY.replace('}', ""),
        format!("[{BODY}]"),
        BODY.replace("\"zq-campaign\"", "[\"zq-campaign\"]"),
        BODY.replace("Email marketing", "zq-other"),
        BODY.replace("zq-ana", &"zq-ana".repeat(2_000)),
    ];
    let mut statuses = Vec::new();
    for body in bodies {
        let post = |path: &str| client.post(format!("{base}{path}")).body(body.clone());
        let click = "/webhooks/email-marketing/click";
        for request in [
            post(click).bearer_auth("zq-api-key-of-20-bytes"),
            post(click).bearer_auth("zq-unknown"),
            post(click).header("Authorization", "zq-no-scheme"),
            post("/basic").basic_auth("zq-user", Some("zq-password-of-23-bytes")),
            post("/basic").basic_auth("zq-user", Some("zq-unknown")),
            post("/basic").header("Authorization", "Basic zq-no-base64"),
            post("/header").header("X-Api-Key", "zq-api-key-of-20-bytes"),
            post("/header").header("X-Api-Key", "zq-unknown"),
            post("/signed").header("X-Signature", hex(SIGNING_KEY, body.as_bytes())),
            post("/signed").header("X-Signature", hex("zq-unknown", body.as_bytes())),
            post("/signed").header("X-Signature", "zq-no-signature"),
            post("/path/zq-api-key-of-20-bytes"),
            post("/path/zq-unknown"),
            post("/path/zq-api-key-of-20-bytes/zq-more"),
            post("/path/zq-api-key-of-20-bytes?key=zq-query"),
            post("/pseudonyms").bearer_auth("zq-api-key-of-20-bytes"),
            client.get(format!("{base}/path/zq-api-key-of-20-bytes")),
        ] {
            statuses.push(request.send().await.unwrap().status());
        }
    }
    statuses
}

/// At the most verbose log level, over TLS, with Kafka and without it: no key, password, address or body
/// is in the log, standard output, the metrics or the printed settings. With pseudonyms no address is on
/// disk either.
#[tokio::test]
async fn no_output_has_a_secret() {
    for (format, trace) in [(LogFormat::Text, " TRACE "), (LogFormat::Json, "\"TRACE\"")] {
        let broker = Broker::embedded();
        let authority = Authority::new();
        let pair = authority.issue("bridge", 2030);
        let keys = format!(
            "keys = [{{ name = \"signer\", secret = \"{SIGNING_KEY}\" }},\n\
             {{ name = \"pair\", secret = \"zq-user:zq-password-of-23-bytes\" }}]\n"
        );
        let [certificate, key] = pair.files();
        let mount = Mount::new(&[certificate, key, ("keys.toml", &keys)]);
        let folder = tempfile::tempdir().unwrap();
        let config = secretive(&broker, &mount, format, folder.path());
        broker.create_topic(&config.webhook[0].topic, 12).await;
        broker.create_topic(&config.webhook[0].dead_letters(), 2).await;
        let stdout = folder.path().join("stdout");
        let serve = Serve::launch(&config, folder.path(), &format!("exec > {}", stdout.display()));
        until("ready", async || serve.is_ready().await).await;

        let base = format!("https://{}", serve.http);
        let client = authority.client().build().unwrap();
        let statuses = send_all(&client, &base).await;
        for status in [200, 400, 401, 404, 405, 413, 422] {
            assert!(statuses.iter().any(|s| s.as_u16() == status), "{status} in {statuses:?}");
        }
        broker.development().cluster().broker_down(-1).unwrap();
        let away = client.post(format!("{base}/pseudonyms")).bearer_auth("zq-api-key-of-20-bytes");
        let body = BODY.replace("zq-campaign", "a-campaign").replace("zq-ana", "zq-eva");
        let away = away.body(body).send().await.unwrap();
        assert_eq!(away.status(), StatusCode::OK);
        until("on disk", async || serve.metric("hookbridge_spool_events").await > 0.0).await;
        assert!(is_in(b"a-campaign", &config.spool.dir));
        assert!(!is_in(b"zq-eva", &config.spool.dir));

        let admin = async |path: &str| {
            let answer = reqwest::get(format!("http://{}{path}", serve.admin)).await.unwrap();
            answer.text().await.unwrap()
        };
        let mut printed = [admin("/metrics").await, admin("/readyz").await].concat();
        assert!(printed.contains("webhook=\"pseudonyms\""), "{printed}");
        let settings = serve.file.display().to_string();
        for command in ["check", "config"] {
            printed.push_str(&output(&mut hookbridge([command, "--config", &settings])));
        }
        assert!(printed.contains("path-secret") && printed.contains("(hidden)"), "{printed}");
        let (_, log) = serve.stop();
        assert!(log.contains(trace), "{log}");
        printed.push_str(&log);
        printed.push_str(&std::fs::read_to_string(stdout).unwrap());
        let key = pair.files()[1].1.lines().nth(1).unwrap();
        let leak = printed.lines().find(|line| line.contains(MARK) || line.contains(key));
        assert_eq!(leak, None);
    }
}

/// Whether a file in this folder has these bytes.
fn is_in(bytes: &[u8], folder: &Path) -> bool {
    let files = std::fs::read_dir(folder).unwrap().map(|file| file.unwrap().path());
    let mut files = files.filter(|path| path.is_file()).map(|path| std::fs::read(path).unwrap());
    files.any(|file| memchr::memmem::find(&file, bytes).is_some())
}

fn output(command: &mut Command) -> String {
    let output = command.output().unwrap();
    let both = [output.stdout, output.stderr].concat();
    String::from_utf8(both).unwrap()
}

#[test]
fn a_problem_with_a_misplaced_secret_does_not_quote_it() {
    let folder = tempfile::tempdir().unwrap();
    let keys = folder.path().join("keys.toml");
    let file = folder.path().join("hookbridge.toml");
    let keys_file = format!("[auth]\nkeys_file = {:?}\n", keys.display().to_string());
    let key = |key: &str| format!("[auth]\nkeys = [{key}]\n");
    for settings in [
        "[auth]\napi_key = \"zq-open\n".into(),
        "[auth]\napi_key = zq-bare\n".into(),
        "[auth]\napi_key = [\"zq-list\"]\n".into(),
        "[auth]\napi_key = { zq-table = \"zq-value\" }\n".into(),
        "auth = \"zq-text\"\n".into(),
        "[auth]\nkeys = \"zq-text\"\n".into(),
        "[auth]\nkeys = \"zq-\\\"quoted\\\"\"\n".into(),
        key("\"zq-text\""),
        key("{ name = \"a\", sha256 = \"zq-short\" }"),
        key("{ name = \"a\", sha256 = [\"zq-list\"] }"),
        key("{ name = \"a\", secret = [\"zq-list\"] }"),
        key("{ name = \"a\", secret = \"zq-secret-0123456789\", expires_at = \"zq-date\" }"),
        key("{ name = \"a\", secret = \"zq-secret-0123456789\", networks = [\"zq-network\"] }"),
        key("{ name = \"a\", secret = \"zq-secret-0123456789\", webhooks = \"zq-webhook\" }"),
        "[pseudonym]\nkey = \"zq-short\"\n".into(),
        "[pseudonym]\nkey = [\"zq-list\"]\n".into(),
        "pseudonym = \"zq-text\"\n".into(),
        "[kafka]\noptions = \"zq-text\"\n".into(),
        "[kafka.options]\n\"sasl.password\" = [\"zq-list\"]\n".into(),
        "[kafka.options]\n\"ssl.key.pem\" = \"zq-pem\"\n\"security.protocol\" = \"SSL\"\n".into(),
        keys_file.clone() + "# zq-open",
        keys_file.clone() + "# zq-list",
    ] {
        let settings: String = settings;
        std::fs::write(&file, &settings).unwrap();
        let text = if settings.contains("zq-open") { "keys = \"zq" } else { "keys = [\"zq-key\"]" };
        std::fs::write(&keys, text).unwrap();
        for command in ["check", "config", "serve"] {
            let mut program = hookbridge([command, "--config", &file.display().to_string()]);
            let printed = output(&mut program);
            assert!(printed.lines().count() > 0, "{settings}");
            let printed = printed.replace("zq-table", "");
            assert!(!printed.contains("zq"), "{settings}{printed}");
        }
    }
    for name in ["AUTH", "AUTH__KEYS", "PSEUDONYM", "PSEUDONYM__KEY", "KAFKA__OPTIONS"] {
        let mut program = hookbridge(["check"]);
        let printed = output(program.env(format!("HOOKBRIDGE__{name}"), "zq-text"));
        assert!(printed.contains("problem"), "{name}: {printed}");
        assert!(!printed.contains("zq"), "{name}: {printed}");
    }
}

/// Another program does leave one here.
#[tokio::test]
async fn a_crash_leaves_no_core_dump() {
    let cores = tempfile::tempdir().unwrap();
    let first = format!("cd {} && ulimit -c unlimited", cores.path().display());
    let other = Command::new("sh").args(["-c", &format!("{first} && kill -s ABRT $$")]).status();
    if !other.unwrap().core_dumped() {
        return println!("no program leaves a core dump here");
    }
    let broker = Broker::embedded();
    let folder = tempfile::tempdir().unwrap();
    let config = config(&broker);
    broker.create_topic(&config.webhook[0].topic, 1).await;
    let serve = Serve::launch(&config, folder.path(), &first);
    until("ready", async || serve.is_ready().await).await;
    // The process metrics still work.
    assert!(serve.metric("process_open_fds").await > 0.0);
    assert!(!serve.dumps_core());
}
