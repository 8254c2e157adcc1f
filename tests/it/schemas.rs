//! JSON Schema and AsyncAPI, compared with records from the topic.

use std::collections::{BTreeMap, HashMap};
use std::fs;
use std::path::Path;

use data_encoding::BASE64;
use hookbridge::config::{Config, load};
use hookbridge::operator::schema::{self, Format};
use reqwest::StatusCode;
use serde_json::Value;

use crate::harness::brokers::variable;
use crate::harness::ports;
use crate::harness::process::{hookbridge, printed};
use crate::harness::secured::serve_plainly;
use crate::harness::support::{TestBridge, click, fixture};
use crate::on_every_broker;

fn opptima() -> Config {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("config/opptima.toml");
    load(Some(&file), HashMap::new()).config
}

/// The documents are those of `config/opptima.toml`. To rewrite them:
/// `HOOKBRIDGE_WRITE=1 cargo test --test it schemas::the_documents`.
#[test]
fn the_documents_in_config_are_those_that_the_bridge_serves() {
    let config = opptima();
    let schema = |webhook| schema::of_events(webhook);
    let named = |name: &str| format!("config/schemas/{name}.json");
    let schemas = config.webhook.iter().map(|webhook| (named(&webhook.name), schema(webhook)));
    let documents: BTreeMap<String, Value> =
        schemas.chain([("config/asyncapi.json".to_owned(), schema::of_topics(&config))]).collect();
    let text = |document| serde_json::to_string_pretty(&document).unwrap() + "\n";
    let documents = documents.into_iter().map(|(name, document)| (name, text(document)));
    let others = Format::OF_WEBHOOKS.into_iter().map(|format| {
        let name = format!("config/schemas/opptima.{}", format.extension());
        (name, schema::documents(&config, format))
    });
    let documents: BTreeMap<String, String> = documents.chain(others).collect();
    assert_eq!(documents.len(), 14);
    for (name, text) in documents {
        let file = Path::new(env!("CARGO_MANIFEST_DIR")).join(&name);
        if variable("HOOKBRIDGE_WRITE").is_some() {
            fs::create_dir_all(file.parent().unwrap()).unwrap();
            fs::write(&file, &text).unwrap();
        }
        let written = fs::read_to_string(&file).unwrap_or_default();
        assert!(written == text, "{name} is not what the settings say: write it anew");
    }
}

#[test]
fn every_reference_of_asyncapi_leads_somewhere() {
    fn check(document: &Value, value: &Value) -> usize {
        match value {
            Value::Object(members) => {
                let reference = members.get("$ref").and_then(Value::as_str);
                let found = reference.map(|to| document.pointer(to.strip_prefix('#').unwrap()));
                assert!(found != Some(None), "{reference:?} leads nowhere");
                let inner: usize = members.values().map(|value| check(document, value)).sum();
                inner + usize::from(found.is_some())
            }
            Value::Array(items) => items.iter().map(|value| check(document, value)).sum(),
            _ => 0,
        }
    }
    let document = schema::of_topics(&opptima());
    // Three for each topic of five webhooks, dead letters included: the channel's, two of the operation.
    assert_eq!(check(&document, &document), 30);
}

#[track_caller]
fn validate(schema: &Value, instance: &Value, is_valid: bool) {
    let errors: Vec<String> = jsonschema::validator_for(schema)
        .expect("a schema")
        .iter_errors(instance)
        .map(|error| format!("{} at {}", error, error.instance_path()))
        .collect();
    assert_eq!(errors.is_empty(), is_valid, "{errors:?} of {instance}");
}

on_every_broker! {
    /// The documents of the admin listener validate the records in the topic.
    async fn records_are_what_the_documents_say(broker: Broker) {
        let bridge = TestBridge::start(&broker).await;
        let document = async |path: &str| -> Value {
            serde_json::from_str(&bridge.admin(path).await.1).expect("JSON")
        };
        let name = &bridge.config.webhook[0].name;
        let of_event = document(&format!("/schemas/{name}.json")).await;
        let of_topics = document("/asyncapi.json").await;
        let message = |name: &str| &of_topics["components"]["messages"][name];

        let bodies = [fixture("email-marketing-click.json"), click("7"), b"{\"campid\":7}".into()];
        for body in &bodies {
            bridge.post(body.clone()).await;
        }
        bridge.post("[]").await;
        let letter = format!("{name}-dead-letter");
        let dead = bridge.dead_letter();
        for (records, message) in
            [(bridge.records(bodies.len()), message(name)), (vec![dead], message(&letter))]
        {
            for record in records {
                let headers = record.headers.iter().cloned();
                let headers = headers.map(|(name, value)| (name, Value::from(value))).collect();
                validate(&message["headers"], &Value::Object(headers), true);
                if record.key.is_some() {
                    let value = serde_json::from_slice(&record.value).unwrap();
                    validate(&of_event, &value, true);
                    validate(&message["payload"]["schema"], &value, true);
                }
            }
        }
        // The schema refuses wrong events.
        for wrong in [r#"{}"#, r#"{"campid":""}"#, r#"{"campid":7,"event":"open"}"#, "[]"] {
            validate(&of_event, &serde_json::from_str(wrong).unwrap(), false);
        }
        let topics = of_topics["channels"].as_object().unwrap();
        assert!(topics.contains_key(bridge.topic()) && topics.len() == 2);
    }
}

/// `hookbridge schema` prints what is kept in `config`, and says what is wrong with its arguments.
#[test]
fn schema_prints_the_documents() {
    let file = format!("{}/config/opptima.toml", env!("CARGO_MANIFEST_DIR"));
    let run = |more: &[&str], code| {
        let mut command = hookbridge(["schema", "--config", &file]);
        command.args(more);
        printed(command, code)
    };
    let kept = |name: &str| {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("config/schemas");
        fs::read_to_string(folder.join(name)).unwrap()
    };
    assert_eq!(run(&["--format", "flink"], 0).0, kept("opptima.flink.sql"));
    assert_eq!(run(&["--webhook", "smtp-bounce"], 0).0, kept("smtp-bounce.json"));
    let (out, _) = run(&["--webhook", "smtp-bounce", "--format", "asyncapi"], 0);
    let channels: Value = serde_json::from_str(&out).unwrap();
    assert_eq!(channels["channels"].as_object().unwrap().len(), 2);
    assert!(run(&["--webhook", "none"], 1).1.contains("there is no webhook none"));
    let nobody = format!("http://{}", ports::free(std::net::Ipv4Addr::LOCALHOST));
    let (_, err) = run(&["--register", &nobody], 1);
    assert!(err.contains("does not take opptima.email-marketing.click-value"), "{err}");
}

/// The credentials come from the environment. They are in no output, right or wrong.
#[test]
fn a_registry_may_ask_for_credentials() {
    let file = format!("{}/config/opptima.toml", env!("CARGO_MANIFEST_DIR"));
    let authorization = format!("Basic {}", BASE64.encode("reader:se:cr\u{e9}t".as_bytes()));
    let url = serve_plainly(move |request| {
        let line = |line: &str| {
            let (name, value) = line.split_once(": ")?;
            name.eq_ignore_ascii_case("authorization").then(|| value.to_owned())
        };
        if request.lines().find_map(line).as_ref() == Some(&authorization) {
            (StatusCode::OK, r#"{"id":7}"#.to_owned())
        } else {
            (StatusCode::UNAUTHORIZED, r#"{"error_code":401,"message":"Who are you?"}"#.to_owned())
        }
    });
    let register = |url: &str, auth: Option<&str>, code| {
        let mut command = hookbridge(["schema", "--config", &file, "--webhook", "smtp-bounce"]);
        command.args(["--register", url]).env_remove("HOOKBRIDGE_REGISTRY_AUTH");
        command.envs(auth.map(|auth| ("HOOKBRIDGE_REGISTRY_AUTH", auth)));
        let (out, err) = printed(command, code);
        let encoded = auth.map(|auth| BASE64.encode(auth.as_bytes()));
        for secret in ["reader", "se:cr", "wrong"].into_iter().chain(encoded.as_deref()) {
            let is_there = !secret.is_empty() && format!("{out}{err}").contains(secret);
            assert!(!is_there, "{secret:?} is in {out}{err}");
        }
        (out, err)
    };
    let right = "reader:se:cr\u{e9}t";
    let (out, err) = register(&url, Some(right), 0);
    assert_eq!((out.as_str(), err.as_str()), ("opptima.smtp.bounce-value: id 7\n", ""));
    let refused = "it answers 401 Unauthorized, Who are you?";
    for (auth, words) in [
        (None, "; set HOOKBRIDGE_REGISTRY_AUTH to USER:PASSWORD"),
        (Some(""), "; set HOOKBRIDGE_REGISTRY_AUTH to USER:PASSWORD"),
        (Some("reader:wrong"), "; look at HOOKBRIDGE_REGISTRY_AUTH, and at"),
    ] {
        let (out, err) = register(&url, auth, 1);
        assert_eq!(out, "");
        assert!(err.contains(&format!("{refused}{words}")), "{err}");
    }
    let (_, err) = register(&url, Some("reader"), 1);
    assert!(err.contains("HOOKBRIDGE_REGISTRY_AUTH must be USER:PASSWORD"), "{err}");
    let with_both = url.replace("://", &format!("://{}@", "reader:wrong"));
    let (_, err) = register(&with_both, None, 1);
    assert!(err.contains("set HOOKBRIDGE_REGISTRY_AUTH to USER:PASSWORD"), "{err}");
}
