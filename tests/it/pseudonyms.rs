//! Fields that are pseudonymised.

use hookbridge::config::{Config, InvalidBody, Secret};
use reqwest::StatusCode;
use sha2::{Digest, Sha256};

use crate::auth_schemes::hex;
use crate::harness::support::{TestBridge, fixture};
use crate::on_every_broker;

const PSEUDONYM_KEY: &str = "a key for pseudonyms, long enough";

fn pseudonymising(config: &mut Config) {
    config.pseudonym.key = Some(Secret::new(PSEUDONYM_KEY));
    let webhook = &mut config.webhook[0];
    webhook.pseudonymise = vec!["/email".into(), "/Ip".into()];
    webhook.invalid = InvalidBody::Reject;
}

on_every_broker! {
    /// All else of the click stays byte for byte; its id is that of the body with pseudonyms. A body
    /// that is not an event is not kept.
    async fn a_pseudonymised_field_does_not_reach_kafka(broker: Broker) {
        let bridge = TestBridge::start_with(&broker, pseudonymising).await;
        let body = String::from_utf8(fixture("email-marketing-click.json")).unwrap();
        let address = body.split("\"email\"").nth(1).unwrap().split('"').nth(1).unwrap();
        assert!(address.contains('@'), "{address}");
        let malformed = format!("{{\"email\":\"{address}\"");
        for (body, status) in [
            (body.as_str(), StatusCode::OK),
            (malformed.as_str(), StatusCode::BAD_REQUEST),
            (&format!("[{malformed}}}]"), StatusCode::UNPROCESSABLE_ENTITY),
        ] {
            assert_eq!(bridge.post(body.to_owned()).await.status(), status, "{body}");
        }
        let record = bridge.record();
        assert_eq!(record.key.as_deref(), Some(&b"12345"[..]));
        let quoted = |text: &str| format!("\"{text}\"");
        let pseudonym = hex(PSEUDONYM_KEY, address.as_bytes());
        let expected = body.replacen(&quoted(address), &quoted(&pseudonym), 1);
        assert_eq!(String::from_utf8(record.value.clone()).unwrap(), expected);
        let named = [b"email-marketing-click\0", expected.as_bytes()].concat();
        let digits = data_encoding::HEXLOWER.encode(&Sha256::digest(named)[..16]);
        let id = record.headers.iter().find(|(name, _)| name == "ce_id").unwrap();
        let id = id.1.replace('-', "");
        // All digits except the version and variant of the UUID.
        assert_eq!((&id[..12], &id[13..16], &id[17..]), (&digits[..12], &digits[13..16], &digits[17..]));
        let letters = bridge.config.webhook[0].dead_letters();
        assert_eq!(crate::harness::support::count(&bridge.config.kafka.brokers, &letters), 0);
    }
}
