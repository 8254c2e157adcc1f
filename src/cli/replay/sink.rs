//! Writes replayed records to Kafka.

use tokio::time::Instant;

use super::revalidation::NotReplayed;
use crate::bridge::{self, StartError};
use crate::click::record::Record;
use crate::config::Config;
use crate::delivery::DeliveryState;
use crate::kafka::{Fault, Kafka, Preconditions, Publisher, Remedy};

pub struct Sink {
    kafka: Kafka,
    publisher: Publisher,
}

impl Sink {
    pub fn open(config: &Config) -> Result<Sink, StartError> {
        let mut config = config.clone();
        // Without a spool the Kafka client gives up by itself, and reports it.
        config.spool.dir.clear();
        let kafka = DeliveryState::new(&config)?.start_kafka(&config)?;
        let publisher = kafka.publisher();
        tokio::spawn(kafka.delivery_report_poller());
        tokio::spawn(kafka.sender_task(&publisher));
        Ok(Sink { kafka, publisher })
    }

    /// Hands a record to the Kafka client at once. The future says whether Kafka has it, or refuses it
    /// for good; its error says that Kafka takes nothing now. A record that was refused is sent again
    /// alone first, because Kafka refuses a batch as a whole.
    pub fn write(
        &self,
        record: Record,
    ) -> impl Future<Output = Result<Result<(), NotReplayed>, String>> {
        let sent = self.publisher.send(record, Preconditions::default());
        async move {
            let verdict = match sent.verdict().await {
                Err(failure) if failure.remedy() != Remedy::Spool => {
                    self.publisher.publish(sent.record()).await
                }
                verdict => verdict,
            };
            let Err(failure) = verdict else { return Ok(Ok(())) };
            if failure.remedy() != Remedy::DeadLetter {
                let why = failure.explain();
                return Err(format!("Kafka does not take it: {why}"));
            }
            let is_too_large = failure.fault == Fault::TooLarge;
            let tag = if is_too_large { "too_large" } else { "corrupt" };
            Ok(Err(NotReplayed { tag, detail: failure.explain().into() }))
        }
    }

    /// Closes the Kafka client without waiting.
    pub async fn close(self) {
        bridge::close_kafka(self.kafka, Instant::now()).await;
    }
}
