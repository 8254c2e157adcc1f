//! The OpenAPI document, compared with the listeners.

use hookbridge::config::{AuthSchemeSettings, Config};
use hookbridge::operator::openapi::document;
use serde_json::Value;

use crate::harness::brokers::Broker;
use crate::harness::support::{TestBridge, sender};

fn read(config: &Config) -> Value {
    serde_json::from_str(&document(config).unwrap()).unwrap()
}

#[test]
fn the_document_in_config_is_that_of_the_defaults() {
    let document = document(&Config::default()).unwrap();
    let new = format!("{}/openapi.json", env!("CARGO_TARGET_TMPDIR"));
    std::fs::write(&new, &document).unwrap();
    let is_the_same = document == include_str!("../../config/openapi.json");
    assert!(is_the_same, "to write it anew: cp {new} config/openapi.json");
}

#[tokio::test]
async fn the_admin_listener_answers_as_documented() {
    let broker = Broker::embedded();
    let bridge = TestBridge::start(&broker).await;
    let (_, text) = bridge.admin("/openapi.json").await;
    assert_eq!(text, document(&bridge.config).unwrap());
    let served: Value = serde_json::from_str(&text).unwrap();
    let mut seen = 0;
    for (path, item) in served["paths"].as_object().unwrap() {
        let Some(get) = item.get("get") else { continue };
        let answer = sender().get(format!("http://{}{path}", bridge.admin)).send().await.unwrap();
        let content = get["responses"][answer.status().as_str()]["content"].as_object().unwrap();
        let media = answer.headers()["content-type"].to_str().unwrap();
        assert!(answer.status().is_success() && content.contains_key(media), "{path} {media}");
        seen += 1;
    }
    assert_eq!(seen, 18);
}

#[test]
fn a_webhook_is_described_by_its_settings() {
    let mut config = Config::default();
    let webhook = &mut config.webhook[0];
    webhook.path = "/hook".into();
    webhook.key = "/data/campaign~1id".into();
    webhook.unavailable = 429;
    webhook.invalid = hookbridge::config::InvalidBody::Reject;
    webhook.auth = AuthSchemeSettings::Header { header: "X-Api-Key".into() };
    let document = read(&config);
    let post = &document["paths"]["/hook"]["post"];
    assert_eq!(post["security"][0]["header-x-api-key"], Value::Array(Vec::new()));
    let scheme = &document["components"]["securitySchemes"]["header-x-api-key"];
    assert_eq!((&scheme["type"], &scheme["name"]), (&"apiKey".into(), &"x-api-key".into()));
    let schema = &post["requestBody"]["content"]["application/json"]["schema"];
    assert_eq!(schema["properties"]["data"]["required"][0], "campaign/id");
    assert_eq!(post["responses"].get("503"), None);
    let retry = &post["responses"]["429"]["headers"]["retry-after"]["schema"]["enum"];
    assert_eq!(retry.as_array().map(Vec::len), Some(2));
    assert!(post["responses"].get("422").is_some());

    config.webhook[0].body = hookbridge::config::BodyFormat::Sns;
    let document = read(&config);
    let post = &document["paths"]["/hook"]["post"];
    let message = &post["requestBody"]["content"]["application/json"]["schema"]["properties"];
    assert_eq!(message["Message"]["contentSchema"]["required"][0], "data");
    config.webhook[0].body = hookbridge::config::BodyFormat::Object;

    config.webhook[0].auth = AuthSchemeSettings::PathSecret;
    let document = read(&config);
    let post = &document["paths"]["/hook/{secret}"]["post"];
    assert_eq!(post["parameters"][0]["in"], "path");
    assert_eq!(post["security"], Value::Array(Vec::new()));
}
