//! Senders that sign the address or a message, or send forms.

use data_encoding::BASE64;
use hmac::{Hmac, Mac};
use reqwest::StatusCode;
use sha1::Sha1;
use sha2::Sha256;

use super::{SECRET, bridge_to, bridge_with, check_forged, hmac, is, now, post};
use crate::dead_letters::header;
use crate::harness::brokers::Broker;
use crate::harness::support::{records, sender};

/// The secret of Standard Webhooks: these bytes in base64.
pub const STANDARD_KEY: &[u8] = b"twenty-four-secret-bytes";

fn base64_of_sha256(key: &[u8], signed: &str) -> String {
    let mut mac = Hmac::<Sha256>::new_from_slice(key).unwrap();
    mac.update(signed.as_bytes());
    BASE64.encode(&mac.finalize().into_bytes())
}

/// The body is the documented one.
#[tokio::test]
async fn resend() {
    let broker = Broker::embedded();
    let bridge = bridge_to(&broker, &["resend"]).await;
    let at = now() - 5;
    let time = jiff::Timestamp::from_second(at).unwrap();
    let body = format!(
        r#"{{"type":"email.clicked","created_at":"{time}","data":{{"broadcast_id":"8b146471-e88e-4322-86af-016cd36fd216","created_at":"2024-11-22T23:41:11.894719+00:00","email_id":"56761188-7520-42d8-8898-ff6fc54ce618","from":"Acme <a@example.com>","to":["b@example.com"],"click":{{"ipAddress":"122.115.53.11","link":"https://example.com","timestamp":"2024-11-24T05:00:57.163Z","userAgent":"Mozilla/5.0"}},"subject":"Sending this example","tags":{{"category":"confirm_email"}}}}}}"#
    );
    let request = |id: &str, offset: i64, body: &str, key: &[u8]| {
        let time = now() + offset;
        let signature = base64_of_sha256(key, &format!("{id}.{time}.{body}"));
        post(&bridge, body)
            .header("svix-id", id)
            .header("svix-timestamp", time)
            .header("svix-signature", format!("v1,AAAA v1,{signature}"))
    };
    check_forged(
        request("msg_1", 0, &body, STANDARD_KEY),
        request("msg_1", 0, &body, b"another-key-of-24-bytes!"),
    )
    .await;
    check_forged(
        request("msg_1", -200, &body, STANDARD_KEY),
        request("msg_1", -400, &body, STANDARD_KEY),
    )
    .await;
    assert_eq!(
        request("msg_2", 0, &body, STANDARD_KEY).send().await.unwrap().status(),
        StatusCode::OK
    );
    let records = bridge.records(3);
    is(&records[0], "56761188-7520-42d8-8898-ff6fc54ce618", &body, at);
    // The id is that of the message, whenever it was signed and whatever it says.
    let id = |n: usize| header(&records[n], "ce_id");
    assert_eq!(id(0), id(1));
    assert_ne!(id(0), id(2));
    let letter = request("msg_1", 0, "no JSON", STANDARD_KEY).send().await.unwrap();
    assert_eq!(letter.status(), StatusCode::OK);
    assert_eq!(header(&bridge.dead_letter(), "ce_id"), id(0));
}

#[tokio::test]
async fn mailersend() {
    let broker = Broker::embedded();
    let bridge = bridge_to(&broker, &["mailersend"]).await;
    let at = now() - 5;
    let time = jiff::Timestamp::from_second(at).unwrap();
    let body = format!(
        r#"{{"type":"activity.clicked","created_at":"{time}","data":{{"id":"6892766a5b66e2daf3dc9155","domain_id":"yv69oxl5kl785kw2","message_id":"6892766ae78995a317577aa1","email_id":"6892766a8d52ba62543d5e71","type":"clicked","subject":"Test email","email":"a@example.com","tags":["test"],"meta":{{"url":"https://example.com/"}}}}}}"#
    );
    let request = |body: &str| post(&bridge, body).header("Signature", hmac(body));
    let forged = post(&bridge, body.replace("clicked", "opened")).header("Signature", hmac(&body));
    check_forged(request(&body), forged).await;
    is(&bridge.record(), "6892766ae78995a317577aa1", &body, at);
    // The test of an address has no data.
    let test = r#"{"type":"webhook.test","message":"This is a ping test message","created_at":"2026-03-27T07:24:20.577080Z"}"#;
    assert_eq!(request(test).send().await.unwrap().status(), StatusCode::OK);
    assert_eq!(bridge.dead_letter().value, test.as_bytes());
}

#[tokio::test]
async fn smtp2go_as_json_and_as_a_form() {
    let broker = Broker::embedded();
    let settings = "[[webhook]]\nprofile = \"smtp2go\"\n\
                    [[webhook]]\nprofile = \"smtp2go\"\nname = \"form\"\npath = \"/form\"\nbody = \"form\"\n";
    let bridge = bridge_with(&broker, settings).await;
    let at = now() - 5;
    let time = jiff::Timestamp::from_second(at).unwrap();
    let body = format!(
        r#"{{"event":"click","time":"{time}","email_id":"1er8bV-6Tw0Mi-7h","rcpt":"a@example.com","url":"https://example.com/?a=b","user-agent":"x"}}"#
    );
    let request = |key| post(&bridge, body.as_str()).bearer_auth(key);
    check_forged(request(SECRET), request("another")).await;
    is(&bridge.record(), "1er8bV-6Tw0Mi-7h", &body, at);
    // The same fields as a form become the same object.
    let fields: std::collections::BTreeMap<String, String> = serde_json::from_str(&body).unwrap();
    let order = ["event", "time", "email_id", "rcpt", "url", "user-agent"];
    let pairs: Vec<(&str, &str)> = order.iter().map(|name| (*name, &*fields[*name])).collect();
    let form = sender().post(format!("http://{}/form", bridge.http)).bearer_auth(SECRET);
    assert_eq!(form.form(&pairs).send().await.unwrap().status(), StatusCode::OK);
    let record = records(&bridge.config, &bridge.config.webhook[1].topic, 1).remove(0);
    is(&record, "1er8bV-6Tw0Mi-7h", &body, at);
    assert_eq!(header(&record, "content-type"), "application/json");
}

#[tokio::test]
async fn mandrill() {
    let broker = Broker::embedded();
    let url = "https://hooks.example.com/webhooks/mandrill?source=x";
    let settings = format!(
        "[[webhook]]\nprofile = \"mandrill\"\nauth = {{ type = \"hmac-sha1-form\", \
         header = \"X-Mandrill-Signature\", url = \"{url}\" }}\n"
    );
    let bridge = bridge_with(&broker, &settings).await;
    let at = now() - 5;
    let event = |id: &str| {
        format!(
            r#"{{"event":"click","msg":{{"ts":1365109999,"subject":"é & ü","email":"a@example.com","_id":"{id}"}},"_id":"{id}","ts":{at},"url":"https://example.com/?a=b&c=d"}}"#
        )
    };
    let request = |events: &str, key: &str| {
        let mut mac = Hmac::<Sha1>::new_from_slice(key.as_bytes()).unwrap();
        mac.update(format!("{url}mandrill_events{events}").as_bytes());
        let signature = BASE64.encode(&mac.finalize().into_bytes());
        let path = &bridge.config.webhook[0].path;
        let request = sender().post(format!("http://{}{path}?source=x", bridge.http));
        request.header("X-Mandrill-Signature", signature).form(&[("mandrill_events", events)])
    };
    let events = format!("[{},{}]", event("m1"), event("m2"));
    check_forged(request(&events, SECRET), request(&events, "another-key-of-the-sender")).await;
    let mut found = bridge.records(2);
    found.sort_by(|one, other| one.key.cmp(&other.key));
    is(&found[0], "m1", &event("m1"), at);
    is(&found[1], "m2", &event("m2"), at);
    // It asks by HEAD, and tests an address with an empty array.
    let address = format!("http://{}/webhooks/mandrill", bridge.http);
    assert_eq!(sender().head(&address).send().await.unwrap().status(), StatusCode::OK);
    assert_eq!(bridge.outcomes("verified").await, 1.0);
    assert_eq!(request("[]", SECRET).send().await.unwrap().status(), StatusCode::OK);
    assert_eq!(bridge.dead_letter().value, b"mandrill_events=%5B%5D");
}

/// The fields are those that the sender documents for its calls with GET.
#[tokio::test]
async fn elastic_email() {
    let broker = Broker::embedded();
    let bridge = bridge_to(&broker, &["elastic-email"]).await;
    let at = now() - 5;
    let time = jiff::Timestamp::from_second(at).unwrap().strftime("%Y-%m-%d %H:%M:%S");
    let body = format!(
        r#"{{"transaction":"b5a4fdd5","to":"a@example.com","date":"{time}","status":"Clicked","channel":"news","account":"b@example.com","category":"","target":"https://example.com/"}}"#
    );
    let post = |secret: &str| {
        let path = format!("/webhooks/elastic-email/{secret}");
        sender().post(format!("http://{}{path}", bridge.http)).body(body.clone())
    };
    check_forged(post(SECRET), post("another-secret-of-the-sender")).await;
    is(&bridge.record(), "b5a4fdd5", &body, at);
    let question = sender().get(format!("http://{}/webhooks/elastic-email/{SECRET}", bridge.http));
    assert_eq!(question.send().await.unwrap().status(), StatusCode::OK);
}

#[tokio::test]
async fn activecampaign() {
    let broker = Broker::embedded();
    let bridge = bridge_to(&broker, &["activecampaign"]).await;
    let at = now() - 5;
    let time = jiff::Timestamp::from_second(at).unwrap();
    let body = format!(
        "type=click&date_time={}&initiated_by=contact&contact%5Bid%5D=7&contact%5Bemail%5D=a%40example.com\
         &link=https%3A%2F%2Fexample.com%2F%3Fa%3Db&campaign%5Bid%5D=3&campaign%5Bname%5D=Spring+%26+co",
        time.to_string().replace(':', "%3A")
    );
    let post = |secret: &str| {
        let path = format!("/webhooks/activecampaign/{secret}");
        sender().post(format!("http://{}{path}", bridge.http)).body(body.clone())
    };
    check_forged(post(SECRET), post("another-secret-of-the-sender")).await;
    let event = format!(
        r#"{{"type":"click","date_time":"{time}","initiated_by":"contact","contact[id]":"7","contact[email]":"a@example.com","link":"https://example.com/?a=b","campaign[id]":"3","campaign[name]":"Spring & co"}}"#
    );
    is(&bridge.record(), "7", &event, at);
}

#[tokio::test]
async fn hubspot() {
    let broker = Broker::embedded();
    let settings = "[[webhook]]\nprofile = \"hubspot\"\n[webhook.auth]\ntype = \"hmac-sha256\"\n\
                    header = \"X-HubSpot-Signature-v3\"\nencoding = \"base64\"\n\
                    signed = \"POSThttps://hooks.example.com/webhooks/hubspot{body}{timestamp}\"\n\
                    timestamp_header = \"X-HubSpot-Request-Timestamp\"\n";
    let bridge = bridge_with(&broker, settings).await;
    let at = now() - 5;
    let event = |id: u32| {
        format!(
            r#"{{"objectId":1246965,"subscriptionType":"contact.propertyChange","eventId":{id},"portalId":33,"occurredAt":{at}000}}"#
        )
    };
    let body = format!("[{},{}]", event(1), event(2));
    let request = |url: &str| {
        let time = now() * 1_000;
        let signature = base64_of_sha256(SECRET.as_bytes(), &format!("POST{url}{body}{time}"));
        post(&bridge, body.as_str())
            .header("X-HubSpot-Signature-v3", signature)
            .header("X-HubSpot-Request-Timestamp", time)
    };
    check_forged(
        request("https://hooks.example.com/webhooks/hubspot"),
        request("https://evil.example.com/webhooks/hubspot"),
    )
    .await;
    let found = bridge.records(2);
    is(&found[0], "1246965", &event(1), at);
    is(&found[1], "1246965", &event(2), at);
}

/// Each kind is in an object of its own name.
#[tokio::test]
async fn sparkpost_sends_events_of_every_kind() {
    let broker = Broker::embedded();
    let bridge = bridge_to(&broker, &["sparkpost"]).await;
    let at = now() - 5;
    let kinds = ["message_event", "track_event", "gen_event", "unsubscribe_event"];
    let event = |kind: &str| {
        format!(
            r#"{{"msys":{{"{kind}":{{"type":"x","event_id":"{kind}","transmission_id":"t-{kind}","timestamp":"{at}"}}}}}}"#
        )
    };
    let body = format!("[{}]", kinds.map(event).join(","));
    let request = post(&bridge, body).basic_auth("user", Some("password"));
    assert_eq!(request.send().await.unwrap().status(), StatusCode::OK);
    let found = bridge.records(kinds.len());
    for kind in kinds {
        let key = format!("t-{kind}");
        let record = found.iter().find(|record| record.key.as_deref() == Some(key.as_bytes()));
        is(record.expect(kind), &key, &event(kind), at);
    }
}
