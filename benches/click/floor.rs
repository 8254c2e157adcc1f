//! The floor: what hyper and librdkafka alone take for the same clicks. A bare hyper server, on one thread,
//! reads each body, gives it to a bare producer as a record of the bridge's size, and answers 200 at once.
//!
//! The producer has the bridge's properties (`acks=all`, idempotent, compression), but for the `linger.ms` that
//! librdkafka has by default: 5. It checks nothing, waits for nothing, and keeps no promise.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;

use bytes::Bytes;
use hookbridge::config::Config;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::{Request, Response};
use rdkafka::message::{Header, OwnedHeaders};
use rdkafka::producer::{BaseRecord, DefaultProducerContext, ThreadedProducer};

use crate::bare::{received, serve_with};

/// The argument that makes this program the floor; address, brokers and topic follow.
pub const ARGUMENT: &str = "floor";

/// As in librdkafka's documentation.
const LINGER_MS: &str = "5";

/// As many bytes as the bridge's headers have.
const HEADERS: [(&str, &str); 7] = [
    ("ce_specversion", "1.0"),
    ("ce_id", "00000000000000000000000000000000"),
    ("ce_source", "/webhooks/email-marketing/click"),
    ("ce_type", "opptima.email-marketing.click"),
    ("ce_time", "2026-01-10T12:00:00Z"),
    ("content-type", "application/json"),
    ("hookbridge-received-at", "2026-01-10T12:00:00.000000Z"),
];

struct Floor {
    producer: ThreadedProducer<DefaultProducerContext>,
    headers: OwnedHeaders,
    topic: String,
}

/// Serves as the arguments say until it is killed.
pub fn serve() {
    let [address, brokers, topic] =
        [2, 3, 4].map(|number| std::env::args().nth(number).expect("three arguments"));
    let address: SocketAddr = address.parse().expect("an address");
    let mut config = Config::default();
    config.kafka.brokers = brokers;
    let producer = hookbridge::kafka::producer_settings(&config)
        .set("linger.ms", LINGER_MS)
        .create()
        .expect("a producer");
    let headers = HEADERS.iter().fold(OwnedHeaders::new(), |headers, (key, value)| {
        headers.insert(Header { key, value: Some(*value) })
    });
    let floor = Arc::new(Floor { producer, headers, topic });
    serve_with(address, move |request| answer(floor.clone(), request));
}

#[expect(clippy::disallowed_methods, reason = "it trusts the load")]
async fn answer(
    floor: Arc<Floor>,
    request: Request<Incoming>,
) -> Result<Response<Full<Bytes>>, Infallible> {
    // The load stops only after its last answer.
    if let Ok(body) = request.into_body().collect().await {
        let body = body.to_bytes();
        let record = BaseRecord::to(&floor.topic)
            .key(campaign(&body))
            .payload(&body[..])
            .headers(floor.headers.clone());
        floor.producer.send(record).map_err(|(error, _)| error).expect("room in the queue");
    }
    Ok(received())
}

/// The digits after `"campid":"`, which is among the first members.
fn campaign(body: &[u8]) -> &[u8] {
    const BEFORE: &[u8] = br#""campid":""#;
    let found = body.windows(BEFORE.len()).position(|window| window == BEFORE);
    let value = &body[found.expect("a campaign") + BEFORE.len()..];
    &value[..value.iter().position(|byte| *byte == b'"').expect("the end of a text")]
}
