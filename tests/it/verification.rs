//! Questions of senders before they send, answered as `verify` says.

use hookbridge::click::auth::Encoding;
use hookbridge::config::{
    AuthSchemeSettings, EchoSettings, NamedKey, Secret, SigningSettings, VerifySettings,
};
use jiff::Timestamp;
use reqwest::{Method, RequestBuilder, StatusCode};

use crate::auth_schemes::{hex, signing, webhook};
use crate::config::from;
use crate::harness::brokers::Broker;
use crate::harness::support::{KEY, TestBridge, click, sender};
use crate::keys::key;

const SIGNER: &str = "a-secret-of-the-signer";

fn echo(name: &str, key: Option<&str>) -> VerifySettings {
    VerifySettings::Echo(EchoSettings { echo: name.into(), key: key.map(str::to_owned) })
}

/// As Slack signs.
fn slack() -> SigningSettings {
    SigningSettings {
        signed: "v0:{timestamp}:{body}".into(),
        timestamp_header: Some("X-Slack-Request-Timestamp".into()),
        ..SigningSettings { header: "X-Slack-Signature".into(), ..signing(Encoding::Hex, "v0=") }
    }
}

async fn bridge(broker: &Broker) -> TestBridge {
    TestBridge::start_with(broker, |config| {
        let first = config.webhook[0].clone();
        let bearer = |name: &str, verify: VerifySettings| hookbridge::config::WebhookSettings {
            verify,
            ..webhook(&first, name, AuthSchemeSettings::Bearer)
        };
        let mut signed = bearer("slack", echo("/challenge", None));
        signed.auth = AuthSchemeSettings::HmacSha256(slack());
        let mut secret = bearer("secret", VerifySettings::Ok);
        secret.auth = AuthSchemeSettings::PathSecret;
        config.webhook.extend([
            bearer("ok", VerifySettings::Ok),
            bearer("cloudevents", VerifySettings::CloudEvents),
            bearer("graph", echo("validationToken", None)),
            bearer("meta", echo("hub.challenge", Some("hub.verify_token"))),
            signed,
            secret,
        ]);
        let signer = NamedKey { secret: Some(Secret::new(SIGNER)), ..NamedKey::default() };
        config.auth.keys = vec![
            NamedKey { name: "signer".into(), ..signer },
            NamedKey { webhooks: Some(vec!["ok".into()]), ..key("for-another-webhook") },
        ];
    })
    .await
}

/// Checks the answer of each, its count, and that there is no click.
#[tokio::test]
async fn questions_are_answered_and_are_no_clicks() {
    let broker = Broker::embedded();
    let bridge = bridge(&broker).await;
    let ask = |method: Method, path: &str| {
        sender().request(method, format!("http://{}{path}", bridge.http))
    };
    let slack = |body: &'static str, name: &str| {
        let time = Timestamp::now().as_second();
        let signature = hex(name, format!("v0:{time}:{body}").as_bytes());
        ask(Method::POST, "/slack")
            .header("X-Slack-Request-Timestamp", time)
            .header("X-Slack-Signature", format!("v0={signature}"))
            .body(body)
    };
    let challenge = r#"{"token":"t","challenge":"3eZbrw1aBm2rZgRNFdxV","type":"url_verification"}"#;
    let (get, head, options, post) = (Method::GET, Method::HEAD, Method::OPTIONS, Method::POST);
    let usual = "Webhook recibido correctamente";
    let cases: Vec<(RequestBuilder, u16, &str)> = vec![
        (ask(get.clone(), "/ok"), 200, usual),
        (ask(get.clone(), "/ok/"), 200, usual),
        (ask(get.clone(), "/ok?event=click"), 405, ""),
        (ask(head.clone(), "/ok"), 200, ""),
        (ask(options.clone(), "/ok"), 200, usual),
        (ask(Method::DELETE, "/ok"), 405, ""),
        (ask(get.clone(), "/secret"), 200, usual),
        (ask(head, "/secret/whatever-it-is"), 200, ""),
        (ask(options.clone(), "/cloudevents"), 405, ""),
        (ask(get.clone(), "/cloudevents").header("WebHook-Request-Origin", "a.example"), 405, ""),
        (
            ask(options, "/cloudevents")
                .header("WebHook-Request-Origin", "a.example")
                .header("WebHook-Request-Rate", "120"),
            200,
            usual,
        ),
        (ask(post.clone(), "/graph?validationToken=Validation%3A+a%26b"), 200, "Validation: a&b"),
        (ask(get.clone(), "/graph?validationToken=%3Cscript%3E"), 200, "<script>"),
        (ask(post.clone(), "/graph?validationToken=x").body(click("7")), 401, ""),
        (ask(get.clone(), "/graph"), 405, ""),
        (ask(get.clone(), &format!("/meta?hub.challenge=115&hub.verify_token={KEY}")), 200, "115"),
        (ask(get.clone(), "/meta?hub.challenge=115&hub.verify_token=wrong"), 401, ""),
        (ask(get.clone(), "/meta?hub.challenge=115&hub.verify_token=for-another-webhook"), 401, ""),
        (slack(challenge, SIGNER), 200, r#"{"challenge":"3eZbrw1aBm2rZgRNFdxV"}"#),
        (slack(challenge, "another-secret-of-the-signer"), 401, ""),
        (ask(get, &bridge.config.webhook[0].path), 405, ""),
    ];
    let mut verified = 0;
    for (request, status, text) in cases {
        let case = format!("{request:?}");
        let answer = request.send().await.unwrap();
        assert_eq!(answer.status(), status, "{case}");
        if status != 200 {
            continue;
        }
        verified += 1;
        assert_eq!(answer.headers()["x-content-type-options"], "nosniff", "{case}");
        assert_eq!(answer.headers()["allow"], "POST", "{case}");
        if case.contains("webhook-request-rate") {
            assert_eq!(answer.headers()["webhook-allowed-origin"], "a.example");
            assert_eq!(answer.headers()["webhook-allowed-rate"], "*");
        }
        let is_json = text.starts_with('{');
        let media = if is_json { "application/json" } else { "text/plain; charset=utf-8" };
        assert_eq!(answer.headers()["content-type"], media, "{case}");
        assert_eq!(answer.text().await.unwrap(), text, "{case}");
    }
    assert_eq!(bridge.ends().await["verified"], f64::from(verified));
    assert_eq!(bridge.ends().await["accepted"], 0.0);
    assert_eq!((bridge.count(), bridge.ends().await["dead_lettered"]), (0, 0.0));
    // A click with a challenge in it is a click, and what is neither is a dead letter.
    let event = r#"{"campid":"7","challenge":"x"}"#;
    assert_eq!(slack(event, SIGNER).send().await.unwrap().text().await.unwrap(), usual);
    assert_eq!(slack("{}", SIGNER).send().await.unwrap().status(), StatusCode::OK);
    assert_eq!(bridge.record().value, event.as_bytes());
    assert_eq!(bridge.dead_letter().value, b"{}");
}

#[test]
fn the_setting_is_read_or_refused_with_advice() {
    let entry = |verify: &str| {
        format!(
            "[auth]\napi_key = \"{KEY}\"\n[[webhook]]\nname = \"a\"\npath = \"/a\"\ntopic = \"a\"\n\
             verify = {verify}\n"
        )
    };
    for (verify, expected) in [
        ("\"none\"", "verify = \"none\"\n"),
        ("\"ok\"", "verify = \"ok\"\n"),
        ("\"cloudevents\"", "verify = \"cloudevents\"\n"),
        ("{ echo = \"challenge\" }", "echo = \"challenge\"\n"),
        (
            "{ echo = \"hub.challenge\", key = \"hub.verify_token\" }",
            "key = \"hub.verify_token\"\n",
        ),
        ("{ echo = \"/challenge\" }", "echo = \"/challenge\"\n"),
    ] {
        let config = from(&entry(verify), &[]).into_result().unwrap();
        let printed = toml::to_string(&config).unwrap();
        assert!(printed.contains(expected), "{printed}");
        let again: hookbridge::config::Config = toml::from_str(&printed).unwrap();
        assert_eq!(again.webhook, config.webhook);
    }
    for (verify, words) in [
        ("\"maybe\"", "must be none, ok, cloudevents, or a table such as"),
        ("7", "must be none, ok, cloudevents, or a table such as"),
        ("{ echo = \"\" }", "must name the parameter"),
        ("{ echo = \"/a~\" }", "must be a JSON pointer"),
        ("{ echo = \"/a\", key = \"b\" }", "key is for a challenge in the query"),
        ("{ ecco = \"a\" }", "is `echo` meant?"),
    ] {
        let problems = from(&entry(verify), &[]).problems;
        let text = format!("{problems:?}");
        assert!(problems.len() == 1 && text.contains(words), "{verify}: {text}");
    }
}
