//! What goes in and what comes out: bodies, connections, records.

use jiff::Timestamp;
use reqwest::StatusCode;

use crate::harness::support::{TestBridge, click, fixture};
use crate::on_every_broker;

on_every_broker! {
    /// The record's value is the body, byte for byte.
    async fn every_documented_body_becomes_one_record(broker: Broker) {
        for (sample, r#type, event, key, pointer) in [
            ("email-marketing-click.json", "Email marketing", "click", "12345", "/campid"),
            ("email-marketing-sent.json", "Email marketing", "sent", "1234", "/campid"),
            ("email-marketing-bounce.json", "Email marketing", "bounce", "1234", "/campid"),
            (
                "smtp-bounce.json",
                "SMTP",
                "bounce",
                "d3f26a70-075b-11eb-b547-478382137ef6",
                "/msgid",
            ),
            (
                "smtp-delivered-certified.json",
                "SMTP",
                "delivered",
                "010001823804f1a3-a09c363d-98c8-4609-b1f0-148736ffec6f-000000",
                "/msgid",
            ),
        ] {
            let bridge = TestBridge::start_with(&broker, |config| {
                let webhook = &mut config.webhook[0];
                webhook.r#type = r#type.into();
                webhook.event = event.into();
                webhook.key = pointer.into();
            })
            .await;
            let body = fixture(sample);
            let answer = bridge.post(body.clone()).await;
            assert_eq!(answer.status(), StatusCode::OK, "{sample}");
            assert_eq!(answer.text().await.unwrap(), "Webhook recibido correctamente");
            let record = bridge.record();
            assert_eq!(record.key.as_deref(), Some(key.as_bytes()), "{sample}");
            assert_eq!(record.value, body, "{sample}");
        }
    }
}

on_every_broker! {
    async fn a_record_has_the_documented_key_time_and_headers(broker: Broker) {
        let bridge = TestBridge::start(&broker).await;
        let trace = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
        let now = Timestamp::now();
        let offset = hookbridge::click::event::parse_offset("-05:00").unwrap();
        let an_hour_ago = now.as_second() - 3_600;
        let local = offset.to_datetime(Timestamp::from_second(an_hour_ago).unwrap());
        let body = format!(
            " {{\"timestamp\":\"{}\",\n\"x\":1.0e5,\"campid\":7}}\r\n",
            local.strftime("%Y-%m-%d %H:%M:%S")
        );
        let request = bridge.request(body.clone()).header("traceparent", trace);
        assert_eq!(request.send().await.unwrap().status(), StatusCode::OK);
        let record = bridge.record();
        assert_eq!(record.key.as_deref(), Some(b"7".as_slice()));
        assert_eq!(record.value, body.as_bytes());
        assert_eq!(record.timestamp.map(|time| time.as_millisecond()), Some(an_hour_ago * 1_000));
        let header = |name: &str| {
            let mut values = record.headers.iter().filter(|(key, _)| key == name);
            let value = values.next().unwrap_or_else(|| panic!("no header {name}"));
            assert!(values.next().is_none(), "{name} twice");
            value.1.clone()
        };
        assert_eq!(record.headers.len(), 8, "{:?}", record.headers);
        assert_eq!(header("ce_specversion"), "1.0");
        assert_eq!(header("ce_source"), "/webhooks/email-marketing/click");
        assert_eq!(header("ce_type"), bridge.topic());
        let time: Timestamp = header("ce_time").parse().unwrap();
        assert_eq!(time.as_second(), an_hour_ago);
        assert_eq!(header("content-type"), "application/json");
        assert_eq!(header("traceparent"), trace);
        let received: Timestamp = header("hookbridge-received-at").parse().unwrap();
        assert!(received.duration_since(now).abs() < jiff::SignedDuration::from_secs(60));
        assert_eq!(header("ce_id").len(), 36);

        // A repeated event is another record with the same id.
        assert_eq!(bridge.post(body).await.status(), StatusCode::OK);
        let again = bridge.records(2);
        let ids = again.iter().flat_map(|r| r.headers.iter().filter(|(k, _)| k == "ce_id"));
        assert_eq!(ids.map(|(_, id)| id).collect::<Vec<_>>(), [&header("ce_id"), &header("ce_id")]);
    }
}

on_every_broker! {
    async fn fields_that_drift_are_accepted(broker: Broker) {
        let bridge = TestBridge::start(&broker).await;
        let deep = format!(r#"{{"x":{}{},"campid":"deep"}}"#, "[".repeat(50_000), "]".repeat(50_000));
        let bodies: [(&str, &str); 9] = [
            (r#"{"campid":7}"#, "7"),
            (r#"{"campid":"7"}"#, "7"),
            ("\u{feff}{\"campid\":\"bom\"}", "bom"),
            (r#"{"c\u0061mpid":"caf\u00e9 \ud83d\ude00"}"#, "café 😀"),
            (r#"{"campid":"first","campid":"last"}"#, "last"),
            (r#"{"new":{"field":[1,2]},"event":"CLICK","type":"email MARKETING","campid":"case"}"#, "case"),
            (r#"{"campid":98765432109876543210987654321}"#, "98765432109876543210987654321"),
            (r#"{"n":1e99999,"m":123456789012345678901234567890.5,"campid":"huge"}"#, "huge"),
            (&deep, "deep"),
        ];
        for (body, _) in &bodies {
            let answer = bridge.post(body.to_string()).await;
            assert_eq!(answer.status(), StatusCode::OK, "{body:.80}");
        }
        for content_type in ["text/plain", "application/x-www-form-urlencoded", "nonsense", ""] {
            let request = bridge.request(click("any")).header("content-type", content_type);
            assert_eq!(request.send().await.unwrap().status(), StatusCode::OK, "{content_type}");
        }
        let records = bridge.records(bodies.len() + 4);
        for (body, key) in bodies {
            assert!(
                records.iter().any(|record| {
                    record.key.as_deref() == Some(key.as_bytes()) && record.value == body.as_bytes()
                }),
                "{body:.80}"
            );
        }
    }
}

on_every_broker! {
    async fn one_connection_serves_many_requests(broker: Broker) {
        let bridge = TestBridge::start(&broker).await;
        let mut raw = bridge.raw();
        for number in 0..3 {
            let body = click("7");
            raw.send_head(&bridge.config.webhook[0].path, &format!("content-length: {}\r\n", body.len()));
            raw.send(&body);
            let answer = raw.read_until("correctamente", 1);
            assert!(answer.starts_with("HTTP/1.1 200 OK\r\n"), "{number}: {answer}");
        }
        assert_eq!(bridge.count(), 3);
        assert_eq!(bridge.metric("hookbridge_connections").await, 1.0);
    }
}

on_every_broker! {
    /// The sender does not wait for answers, and then closes its side of the connection.
    async fn pipelined_requests_are_answered_in_order(broker: Broker) {
        let bridge = TestBridge::start(&broker).await;
        let path = &bridge.config.webhook[0].path;
        let body = String::from_utf8(click("7")).unwrap();
        let request = format!(
            "POST {path} HTTP/1.1\r\nhost: test\r\nauthorization: Bearer a-key-of-the-tests\r\n\
             content-length: {}\r\n\r\n{body}",
            body.len()
        );
        let mut raw = bridge.raw();
        raw.send(request.repeat(20));
        raw.stop_writing();
        let answers = raw.read_all();
        assert_eq!(answers.matches("HTTP/1.1 200 OK").count(), 20, "{answers}");
        assert_eq!(bridge.count(), 20);
    }
}

on_every_broker! {
    /// The body comes in several chunks, also after `Expect: 100-continue`.
    async fn a_chunked_body_is_accepted(broker: Broker) {
        let bridge = TestBridge::start(&broker).await;
        let mut raw = bridge.raw();
        raw.send_head(
            &bridge.config.webhook[0].path,
            "transfer-encoding: chunked\r\nexpect: 100-continue\r\n",
        );
        raw.read_until("HTTP/1.1 100 Continue\r\n\r\n", 1);
        for piece in ["5\r\n{\"cam\r\n", "7;x=y\r\npid\":7}\r\n", "0\r\n\r\n"] {
            raw.send(piece);
        }
        assert!(raw.read_until("correctamente", 1).starts_with("HTTP/1.1 200"));
        assert_eq!(bridge.record().value, br#"{"campid":7}"#);
    }
}

on_every_broker! {
    /// The sender uses HTTP/2 with prior knowledge.
    async fn http2_serves_many_requests_on_one_connection(broker: Broker) {
        let bridge = TestBridge::start(&broker).await;
        let sender = reqwest::Client::builder().http2_prior_knowledge().build().unwrap();
        let mut answers = Vec::new();
        for _ in 0..50 {
            let request = sender.post(bridge.url()).bearer_auth("a-key-of-the-tests").body(click("7"));
            answers.push(tokio::spawn(request.send()));
        }
        for answer in answers {
            let answer = answer.await.unwrap().unwrap();
            assert_eq!((answer.status(), answer.version()), (StatusCode::OK, reqwest::Version::HTTP_2));
        }
        assert_eq!(bridge.count(), 50);
        assert_eq!(bridge.metric("hookbridge_connections").await, 1.0);
    }
}

on_every_broker! {
    async fn several_keys_are_valid_at_once(broker: Broker) {
        let bridge = TestBridge::start_with(&broker, |config| {
            for name in ["old", "new"] {
                config.auth.keys.push(crate::keys::key(name));
            }
        })
        .await;
        for (key, status) in [("old", 200), ("new", 200), ("a-key-of-the-tests", 200), ("other", 401)] {
            let request = crate::harness::support::sender().post(bridge.url()).bearer_auth(key);
            let answer = request.body(click("7")).send().await.unwrap();
            assert_eq!(answer.status().as_u16(), status, "{key}");
        }
        assert_eq!(bridge.count(), 3);
    }
}
