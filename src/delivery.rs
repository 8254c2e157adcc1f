//! What "hold" means: a record is held durably, and a [`Receipt`] says so, or it is not.
//!
//! Today held means acknowledged by Kafka. The durable queue on disk belongs behind this file:
//! where [`Delivery::hold`] now gives up, it will take the record.

use std::sync::Arc;

use tokio::time::{Instant, timeout_at};

use crate::kafka::{Failure, Fault, Publisher};
use crate::outcome::{Refusal, Rejection};
use crate::route::Record;

/// Proof that a click is held durably. Only [`Delivery::hold`] makes one, and only from one is a
/// 200 made.
#[derive(Debug)]
pub struct Receipt(());

/// Holds records, for one worker thread.
#[derive(Clone)]
pub struct Delivery {
    publisher: Publisher,
}

impl Delivery {
    pub fn new(publisher: Publisher) -> Delivery {
        Delivery { publisher }
    }

    /// Holds a record, or says by the deadline that it does not.
    ///
    /// # Errors
    ///
    /// Why the record is not held. With [`Refusal::Unconfirmed`] nobody knows: it may still land.
    pub async fn hold(&self, record: Record, deadline: Instant) -> Result<Receipt, Rejection> {
        match timeout_at(deadline, self.publisher.publish(Arc::new(record))).await {
            Ok(Ok(_acknowledged)) => Ok(Receipt(())),
            Ok(Err(failure)) => Err(refusal(failure).because(failure.explain())),
            Err(_elapsed) => {
                let cause = "the Kafka client gave no verdict before the answer was due";
                Err(Refusal::Unconfirmed.because(cause))
            }
        }
    }
}

fn refusal(failure: Failure) -> Refusal {
    match failure.fault {
        Fault::QueueFull => Refusal::KafkaQueueFull,
        Fault::TimedOut => Refusal::KafkaTimeout,
        Fault::TooLarge => Refusal::RecordTooLarge,
        Fault::Refused | Fault::ProducerFailed => Refusal::KafkaRefused,
    }
}
