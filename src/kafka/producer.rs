//! The producer in use: a record is handed to the Kafka client here.

use std::sync::Arc;

use arc_swap::ArcSwap;
use rdkafka::message::{Header, OwnedHeaders};
use rdkafka::producer::{BaseRecord, Producer as _};
use tokio::sync::watch;

use super::client::Client;
use super::context::code;
use super::fault::Failure;
use super::send_queue::Parcel;

/// The headers of most records.
const HEADERS: usize = 8;

/// The producer in use, which the keeper may replace.
pub(super) struct Shared {
    pub current: ArcSwap<Producer>,
    /// The generation of `current`, for those who wait for the next.
    pub generation: watch::Sender<u64>,
}

/// A producer; each replacement has the next generation.
pub(super) struct Producer {
    pub generation: u64,
    pub client: Client,
}

impl Producer {
    /// Hands a record to the Kafka client.
    pub fn send(&self, parcel: Arc<Parcel>) {
        let record = &parcel.record;
        let mut headers = Some(OwnedHeaders::new_with_capacity(HEADERS));
        record.each_header(|key, value| {
            headers = headers.take().map(|some| some.insert(Header { key, value: Some(value) }));
        });
        let message = BaseRecord {
            partition: None,
            payload: Some(record.value()),
            key: record.key(),
            timestamp: Some(record.timestamp_ms()),
            headers,
            ..BaseRecord::with_opaque_to(record.topic(), parcel.clone())
        };
        let producer = self.client.producer();
        if let Err((error, message)) = producer.send(message) {
            let failure = Failure::new(code(&error));
            producer.context().settle(message.delivery_opaque, Err(failure));
        }
    }

    /// Records that have no report yet.
    pub fn in_flight(&self) -> usize {
        usize::try_from(self.client.producer().in_flight_count()).unwrap_or(0)
    }
}
