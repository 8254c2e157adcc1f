//! The way of replayed records to Kafka.

use std::sync::Arc;

use tokio::task::AbortHandle;
use tokio::time::Instant;

use crate::bridge::{self, StartError};
use crate::click::record::Record;
use crate::config::Config;
use crate::kafka::{
    CircuitBreaker, Failure, Fault, InFlightRecord, Kafka, Preconditions, Publisher, Remedy,
};
use crate::observe::health::Health;

/// Writes records, and says which are acknowledged.
pub struct Outlet {
    kafka: Kafka,
    publisher: Publisher,
    tasks: [AbortHandle; 2],
}

/// Why a record is not written.
pub enum NotWritten {
    /// Kafka does not take it, for good.
    Refused(&'static str, String),
    /// Kafka does not take anything now.
    Away(String),
}

impl Outlet {
    /// # Errors
    ///
    /// Settings that cannot be used.
    pub fn open(config: &Config) -> Result<Outlet, StartError> {
        let mut config = config.clone();
        // Without a spool the Kafka client gives up by itself, and says so.
        config.spool.dir.clear();
        let metrics = Arc::new(bridge::metrics(&config)?);
        let breaker = CircuitBreaker::new(metrics.breaker.clone(), false);
        let kafka = Kafka::start(&config, metrics, Arc::new(Health::default()), breaker)?;
        let publisher = kafka.publisher();
        let tasks = [
            tokio::spawn(kafka.delivery_report_poller()).abort_handle(),
            tokio::spawn(publisher.sender_task()).abort_handle(),
        ];
        Ok(Outlet { kafka, publisher, tasks })
    }

    /// Hands a record over; what becomes of it says [`Outlet::settle`].
    pub fn send(&self, record: Record) -> Arc<InFlightRecord> {
        self.publisher.send(record, Preconditions::default())
    }

    /// Waits until Kafka has the record.
    ///
    /// # Errors
    ///
    /// It has not. One that was refused was tried again alone: a batch is refused as one.
    pub async fn settle(&self, sent: Arc<InFlightRecord>) -> Result<(), NotWritten> {
        let mut failure = match sent.verdict().await {
            Ok(_acknowledged) => return Ok(()),
            Err(failure) => failure,
        };
        if failure.remedy() != Remedy::Spool {
            failure = match self.publisher.publish(sent.record()).await {
                Ok(_acknowledged) => return Ok(()),
                Err(failure) => failure,
            };
        }
        Err(not_written(failure))
    }

    /// Lets the Kafka client go.
    pub async fn close(self) {
        self.tasks.iter().for_each(AbortHandle::abort);
        let kafka = self.kafka;
        let _ = tokio::task::spawn_blocking(move || kafka.close(Instant::now())).await;
    }
}

fn not_written(failure: Failure) -> NotWritten {
    match (failure.remedy(), failure.fault) {
        (Remedy::DeadLetter, Fault::TooLarge) => {
            NotWritten::Refused("too_large", failure.explain())
        }
        (Remedy::DeadLetter, _) => NotWritten::Refused("corrupt", failure.explain()),
        _ => NotWritten::Away(failure.explain()),
    }
}
