//! Opptima and other senders, by their profiles.
//!
//! - `senders/signed_and_forms.rs`: those that sign the address or a message, or send forms.

mod signed_and_forms;

use data_encoding::{BASE64, HEXLOWER};
use hmac::{Hmac, Mac};
use hookbridge::config::{Config, NamedKey, Secret};
use hookbridge::kafka::ConsumedRecord;
use jiff::Timestamp;
use p256::ecdsa::signature::Signer;
use p256::ecdsa::{Signature, SigningKey};
use p256::pkcs8::EncodePublicKey;
use reqwest::{RequestBuilder, StatusCode};
use sha2::Sha256;

use crate::config::from;
use crate::dead_letters::header;
use crate::harness::brokers::Broker;
use crate::harness::support::{TestBridge, config, fixture, records, sender};
use crate::on_every_broker;

use signed_and_forms::STANDARD_KEY;

const SECRET: &str = "a-secret-of-the-sender";

/// A bridge with a webhook for each profile, each with its own topic.
async fn bridge_to(broker: &Broker, profiles: &[&str]) -> TestBridge {
    let entries = profiles.iter().map(|name| format!("[[webhook]]\nprofile = \"{name}\"\n"));
    bridge_with(broker, &entries.collect::<String>()).await
}

/// A bridge with these entries, each with its own topic.
async fn bridge_with(broker: &Broker, entries: &str) -> TestBridge {
    // The missing key is a problem here; the keys are added below.
    let profiles = from(entries, &[]).config.webhook;
    let mut config = Config { webhook: profiles, ..config(broker) };
    let pair = NamedKey::new("pair", "");
    let public = pair_of_keys().verifying_key().to_public_key_der().unwrap();
    let public_key = Some(BASE64.encode(public.as_bytes()));
    config.auth.keys = vec![
        NamedKey { sha256: None, public_key, ..pair },
        NamedKey { sha256: None, secret: Some(Secret::new(SECRET)), ..NamedKey::new("secret", "") },
        NamedKey {
            sha256: None,
            secret: Some(Secret::new(format!("whsec_{}", BASE64.encode(STANDARD_KEY)))),
            ..NamedKey::new("standard", "")
        },
        crate::keys::key("user:password"),
    ];
    TestBridge::start_all(broker, config).await
}

fn pair_of_keys() -> SigningKey {
    SigningKey::from_bytes(&[7; 32].into()).unwrap()
}

fn hmac(signed: &str) -> String {
    let mut mac = Hmac::<Sha256>::new_from_slice(SECRET.as_bytes()).unwrap();
    mac.update(signed.as_bytes());
    HEXLOWER.encode(&mac.finalize().into_bytes())
}

fn now() -> i64 {
    Timestamp::now().as_second()
}

fn post(bridge: &TestBridge, body: impl Into<String>) -> RequestBuilder {
    let path = &bridge.config.webhook[0].path;
    sender().post(format!("http://{}{path}", bridge.http)).body(body.into())
}

#[track_caller]
fn is(record: &ConsumedRecord, key: &str, value: &str, seconds: i64) {
    assert_eq!(record.key.as_deref(), Some(key.as_bytes()));
    assert_eq!(record.value, value.as_bytes());
    assert_eq!(record.timestamp.map(|time| time.as_second()), Some(seconds));
}

/// The genuine request is accepted, the forged one refused.
async fn check_forged(request: RequestBuilder, forged: RequestBuilder) {
    let answer = request.send().await.unwrap();
    assert_eq!(answer.status(), StatusCode::OK);
    assert_eq!(forged.send().await.unwrap().status(), StatusCode::UNAUTHORIZED);
}

on_every_broker! {
    /// The bodies are the documented ones.
    async fn all_five_webhooks_of_opptima_on_one_bridge(broker: Broker) {
        let samples = [
            ("opptima-email-marketing-click", "email-marketing-click.json", "12345"),
            ("opptima-email-marketing-sent", "email-marketing-sent.json", "1234"),
            ("opptima-email-marketing-bounce", "email-marketing-bounce.json", "1234"),
            ("opptima-smtp-bounce", "smtp-bounce.json", "d3f26a70-075b-11eb-b547-478382137ef6"),
            (
                "opptima-smtp-delivered",
                "smtp-delivered-certified.json",
                "010001823804f1a3-a09c363d-98c8-4609-b1f0-148736ffec6f-000000",
            ),
        ];
        let bridge = bridge_to(&broker, &samples.map(|(profile, ..)| profile)).await;
        for ((_, sample, key), webhook) in samples.iter().zip(&bridge.config.webhook) {
            let url = format!("http://{}{}", bridge.http, webhook.path);
            let post = |body: Vec<u8>| sender().post(&url).bearer_auth(SECRET).body(body);
            let answer = post(fixture(sample)).send().await.unwrap();
            assert_eq!(answer.status(), StatusCode::OK, "{sample}");
            assert_eq!(answer.text().await.unwrap(), "Webhook recibido correctamente");
            let record = records(&bridge.config, &webhook.topic, 1).remove(0);
            assert_eq!((record.key.as_deref(), record.value), (Some(key.as_bytes()), fixture(sample)));
            // The body of another webhook is not an event here.
            let other = if webhook.r#type == "SMTP" { "email-marketing-click.json" } else { "smtp-bounce.json" };
            assert_eq!(post(fixture(other)).send().await.unwrap().status(), StatusCode::OK);
            let letter = records(&bridge.config, &webhook.dead_letters(), 1).remove(0);
            assert_eq!(header(&letter, "hookbridge-reason"), "invalid");
        }
    }
}

/// A campaign has the same key as text and as a number. Renamed, missing and new fields and other
/// spellings of `type` are accepted.
#[tokio::test]
async fn documented_drift_of_opptima_is_accepted() {
    let profiles =
        ["opptima-email-marketing-click", "opptima-email-marketing-sent", "opptima-smtp-delivered"];
    let broker = Broker::embedded();
    let bridge = bridge_to(&broker, &profiles).await;
    let bodies: [(usize, &str, &str); 9] = [
        // `relid` is text in a click and a number elsewhere; `campid` may vary likewise.
        (0, r#"{"campid":"12345","relid":"123"}"#, "12345"),
        (1, r#"{"campid":12345,"relid":123}"#, "12345"),
        // `contactId` and `contactid`.
        (0, r#"{"campid":"1","contactId":"112528991"}"#, "1"),
        (1, r#"{"campid":"1","contactid":1}"#, "1"),
        // `email` and `to`.
        (0, r#"{"campid":"2","to":"test@testdomain.com"}"#, "2"),
        // Aldeamo's spelling of the type; neither type nor event.
        (1, r#"{"type":"Email Marketing","event":"SENT","campid":"3"}"#, "3"),
        (0, r#"{"campid":"4"}"#, "4"),
        // `response` as text and as steps; a `msgid` that is not a UUID.
        (2, r#"{"msgid":"m-1","response":"OK","certifiedEmail":true}"#, "m-1"),
        (2, r#"{"msgid":"m-2","response":[{"eventType":"Send"}],"status":"Entregado"}"#, "m-2"),
    ];
    for (webhook, body, key) in bodies {
        let webhook = &bridge.config.webhook[webhook];
        let url = format!("http://{}{}", bridge.http, webhook.path);
        let answer = sender().post(url).bearer_auth(SECRET).body(body).send().await.unwrap();
        assert_eq!(answer.status(), StatusCode::OK, "{body}");
        let found = records(&bridge.config, &webhook.topic, count(&bridge, &webhook.topic));
        let record = found.iter().find(|record| record.value == body.as_bytes()).expect(body);
        assert_eq!(record.key.as_deref(), Some(key.as_bytes()));
    }
}

fn count(bridge: &TestBridge, topic: &str) -> usize {
    usize::try_from(crate::harness::brokers::count(&bridge.config.kafka.brokers, topic)).unwrap()
}

#[tokio::test]
async fn sendgrid() {
    let broker = Broker::embedded();
    let bridge = bridge_to(&broker, &["sendgrid"]).await;
    let at = now() - 30;
    let event = |id: &str| {
        format!(
            r#"{{"email":"a@example.com","timestamp":{at},"event":"click","url":"https://example.com/","ip":"192.0.2.1","sg_event_id":"{id}","sg_message_id":"m.1"}}"#
        )
    };
    // SendGrid ends its bodies with CRLF, which is signed, too.
    let body = format!("[{},\r\n{}]\r\n", event("e1"), event("e2"));
    let time = now().to_string();
    let signature: Signature = pair_of_keys().sign(format!("{time}{body}").as_bytes());
    let signature = BASE64.encode(signature.to_der().as_bytes());
    let request = |body: &str, time: &str| {
        post(&bridge, body)
            .header("X-Twilio-Email-Event-Webhook-Signature", &signature)
            .header("X-Twilio-Email-Event-Webhook-Timestamp", time)
    };
    check_forged(request(&body, &time), request(&body.replace("e1", "e3"), &time)).await;
    check_forged(request(&body, &time), request(&body, &(now() + 1).to_string())).await;
    // The public key proves nothing.
    let public = bridge.config.auth.keys[0].public_key.clone().unwrap();
    let shown = post(&bridge, body.as_str()).bearer_auth(public).send().await.unwrap();
    assert_eq!(shown.status(), StatusCode::UNAUTHORIZED);
    let records = bridge.records(4);
    is(&records[0], "m.1", &event("e1"), at);
    is(&records[1], "m.1", &event("e2"), at);
    // A retry has the same ids.
    let id = |n: usize| header(&records[n], "ce_id");
    assert_eq!((id(0), id(1)), (id(2), id(3)));
    assert_ne!(id(0), id(1));
}

#[tokio::test]
async fn mailgun() {
    let broker = Broker::embedded();
    let bridge = bridge_to(&broker, &["mailgun"]).await;
    let at = now();
    let body = |token: &str, id: &str| {
        let signature = hmac(&format!("{at}{token}"));
        format!(
            r#"{{"signature":{{"timestamp":"{at}","token":"{token}","signature":"{signature}"}},"event-data":{{"event":"clicked","id":"{id}","timestamp":{at}.25,"recipient":"a@example.com","url":"https://example.com/"}}}}"#
        )
    };
    let request = |body: String| post(&bridge, body);
    check_forged(request(body("t1", "e1")), request(body("t1", "e1").replace("t1", "t2"))).await;
    // A token is valid for one event; that event may be retried.
    check_forged(request(body("t1", "e1")), request(body("t1", "e2"))).await;
    let unsigned = request(r#"{"event-data":{"id":"e3"}}"#.into()).send().await.unwrap();
    assert_eq!(unsigned.status(), StatusCode::UNAUTHORIZED);
    let records = bridge.records(2);
    is(&records[0], "e1", &body("t1", "e1"), at);
    assert_eq!(records[0].timestamp.map(|time| time.as_millisecond()), Some(at * 1_000 + 250));
}

#[tokio::test]
async fn postmark() {
    let broker = Broker::embedded();
    let bridge = bridge_to(&broker, &["postmark"]).await;
    let at = Timestamp::from_second(now() - 5).unwrap();
    let body = format!(
        r#"{{"RecordType":"Click","MessageStream":"outbound","ClickLocation":"HTML","OriginalLink":"https://example.com/","MessageID":"883953f4","Recipient":"a@example.com","ReceivedAt":"{at}"}}"#
    );
    let request = |password| post(&bridge, body.as_str()).basic_auth("user", Some(password));
    check_forged(request("password"), request("wrong")).await;
    is(&bridge.record(), "883953f4", &body, at.as_second());
}

#[tokio::test]
async fn mailjet() {
    let broker = Broker::embedded();
    let bridge = bridge_to(&broker, &["mailjet"]).await;
    let at = now() - 5;
    let event = |n: i64| {
        format!(
            r#"{{"event":"click","time":{at},"MessageID":{n},"email":"a@example.com","mj_campaign_id":1898,"mj_contact_id":9,"url":"https://example.com/"}}"#
        )
    };
    let post = |body: String| post(&bridge, body);
    check_forged(
        post(format!("[{},{}]", event(1), event(2))).basic_auth("user", Some("password")),
        post(event(3)),
    )
    .await;
    let one = post(event(3)).basic_auth("user", Some("password")).send().await.unwrap();
    assert_eq!(one.status(), StatusCode::OK);
    let records = bridge.records(3);
    for (record, n) in records.iter().zip(1..) {
        is(record, "1898", &event(n), at);
    }
}

#[tokio::test]
async fn brevo() {
    let broker = Broker::embedded();
    let bridge = bridge_to(&broker, &["brevo"]).await;
    let at = now() - 5;
    let body = format!(
        r#"{{"event":"click","email":"a@example.com","id":1,"camp_id":77,"campaign name":"A","ts_event":{at},"URL":"https://example.com/"}}"#
    );
    let request = |key| post(&bridge, body.as_str()).bearer_auth(key);
    check_forged(request(SECRET), request("another")).await;
    is(&bridge.record(), "77", &body, at);
    assert_eq!(bridge.config.webhook[0].unavailable, 429);
}

#[tokio::test]
async fn sparkpost() {
    let broker = Broker::embedded();
    let bridge = bridge_to(&broker, &["sparkpost"]).await;
    let at = now() - 5;
    let event = format!(
        r#"{{"msys":{{"track_event":{{"type":"click","event_id":"92356927","transmission_id":"65832150921904138","rcpt_to":"a@example.com","target_link_url":"https://example.com/","timestamp":"{at}"}}}}}}"#
    );
    let post = |body: String, password| post(&bridge, body).basic_auth("user", Some(password));
    check_forged(post(format!("[{event}]"), "password"), post("[]".into(), "wrong")).await;
    is(&bridge.record(), "65832150921904138", &event, at);
    // SparkPost tests an address with an empty event, which is not an error.
    let empty = post(r#"[{"msys":{}}]"#.into(), "password").send().await.unwrap();
    assert_eq!(empty.status(), StatusCode::OK);
    assert_eq!(bridge.dead_letter().value, br#"{"msys":{}}"#);
}

#[tokio::test]
async fn customerio() {
    let broker = Broker::embedded();
    let bridge = bridge_to(&broker, &["customerio"]).await;
    let at = now() - 5;
    let body = format!(
        r#"{{"event_id":"01E4C4C6P79C12J5A6KPE6XNFD","object_type":"email","metric":"clicked","timestamp":{at},"data":{{"customer_id":"0200102","delivery_id":"RPILAgABcRhIBqSp","recipient":"a@example.com","href":"https://example.com/","link_id":1}}}}"#
    );
    let time = now();
    let signature = hmac(&format!("v0:{time}:{body}"));
    let request = |time: i64| {
        post(&bridge, body.as_str())
            .header("X-CIO-Timestamp", time.to_string())
            .header("X-CIO-Signature", &signature)
    };
    check_forged(request(time), request(time + 1)).await;
    is(&bridge.record(), "RPILAgABcRhIBqSp", &body, at);
}

#[tokio::test]
async fn klaviyo() {
    let broker = Broker::embedded();
    let bridge = bridge_to(&broker, &["klaviyo"]).await;
    let at = now() - 5;
    let event = |id: &str| {
        format!(
            r#"{{"topic":"event:klaviyo.clicked_email","external_id":"{id}","payload":{{"data":{{"type":"event","attributes":{{"timestamp":{at}}}}}}}}}"#
        )
    };
    let body = format!(
        r#"{{"data":[{}, {}],"meta":{{"klaviyo_account_id":"A","klaviyo_webhook_id":"W"}}}}"#,
        event("x1"),
        event("x2")
    );
    let date = Timestamp::now().strftime("%a, %d %b %Y %H:%M:%S GMT").to_string();
    let signature = hmac(&format!("{body}{date}"));
    let request = |body: &str| {
        post(&bridge, body)
            .header("Klaviyo-Timestamp", &date)
            .header("Klaviyo-Signature", &signature)
            .header("Klaviyo-Webhook-Id", "W")
    };
    check_forged(request(&body), request(&body.replace("x1", "x3"))).await;
    let mut records = bridge.records(2);
    records.sort_by(|one, other| one.key.cmp(&other.key));
    is(&records[0], "x1", &event("x1"), at);
    is(&records[1], "x2", &event("x2"), at);
}
