//! The Kafka client, and the bell by which it says that it has something to report.
//!
//! rdkafka's own way to hear of delivery reports is a thread that waits for nothing else. That thread
//! must then wake the worker whose request waits. Here the client rings a bell, an event descriptor that
//! a worker's runtime listens to, and the reports are handed out on that worker's thread.
//!
//! The only unsafe code of the bridge is in this file, because rdkafka has no safe call that ties a
//! bell to a producer.

use std::convert::Infallible;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::time::Duration;

use rdkafka::ClientConfig;
use rdkafka::bindings as native;
use rdkafka::config::FromClientConfigAndContext;
use rdkafka::error::KafkaError;
use rdkafka::producer::{BaseProducer, Producer};
use rustix::event::{EventfdFlags, eventfd};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::task::yield_now;
use tokio::time::sleep;
use tracing::error;

use super::context::Context;

/// How often to look for reports where the bell cannot be heard.
const LOOK_INTERVAL: Duration = Duration::from_millis(5);

/// Why there is no client.
#[derive(Debug, thiserror::Error)]
pub(super) enum ClientError {
    #[error(transparent)]
    Kafka(#[from] KafkaError),
    #[error("an event descriptor cannot be had: {0}")]
    System(#[from] rustix::io::Errno),
}

/// A client and its bell.
pub(super) struct Client {
    // Dropped in this order: the queue is the producer's, and the producer writes to the bell.
    queue: Queue,
    producer: BaseProducer<Context>,
    /// Rung when there is something to report.
    bell: OwnedFd,
}

/// The queue of what the client has to report.
struct Queue(*mut native::rd_kafka_queue_t);

// SAFETY: librdkafka's queues may be used from any thread, by several at once; the pointer is given up
// only in `drop`, which has the queue to itself.
#[expect(unsafe_code, reason = "rdkafka does not show the producer's queue")]
unsafe impl Send for Queue {}
#[expect(unsafe_code, reason = "the same")]
// SAFETY: as above.
unsafe impl Sync for Queue {}

impl Client {
    pub fn start(config: &ClientConfig, context: Context) -> Result<Client, ClientError> {
        // A bell that nobody listens to must not hold up who rings it.
        let bell = eventfd(0, EventfdFlags::NONBLOCK | EventfdFlags::CLOEXEC)?;
        let producer = BaseProducer::from_config_and_context(config, context)?;
        let queue = Queue::of(&producer);
        queue.ring(&bell);
        Ok(Client { queue, producer, bell })
    }

    pub fn producer(&self) -> &BaseProducer<Context> {
        &self.producer
    }

    /// Hands out reports as they come.
    pub async fn serve(&self) -> Infallible {
        let bell = self.bell.try_clone().and_then(listen);
        if let Err(error) = &bell {
            error!(%error, "The Kafka client's bell cannot be heard; reports are looked for.");
        }
        loop {
            // Before the first ring, too: the bell is rung for what comes into an empty queue, and before it
            // was tied to the queue something may have come already.
            while !self.queue.is_empty() {
                // One report, which may be of many records; then the others on this thread.
                self.producer.poll(Duration::ZERO);
                yield_now().await;
            }
            let heard = match &bell {
                // Each ring is an event of its own, so that the count of them need not be read.
                Ok(bell) => bell.readable().await.map(|mut ring| ring.clear_ready()).is_ok(),
                Err(_) => false,
            };
            if !heard {
                sleep(LOOK_INTERVAL).await;
            }
        }
    }
}

/// Ties a bell to the runtime of this thread.
#[expect(unsafe_code, reason = "tokio cannot know by itself that a descriptor stays what it is")]
fn listen(bell: OwnedFd) -> io::Result<AsyncFd<OwnedFd>> {
    // SAFETY: the descriptor is owned by what is returned, which neither replaces nor closes it.
    Ok(unsafe { AsyncFd::register_with_interest(bell, Interest::READABLE) }?)
}

impl Queue {
    #[expect(unsafe_code, reason = "rdkafka does not show the producer's queue")]
    fn of(producer: &BaseProducer<Context>) -> Queue {
        // SAFETY: the client is alive. The reference that this returns is counted; `drop` gives it
        // back, before the client is destroyed.
        Queue(unsafe { native::rd_kafka_queue_get_main(producer.client().native_ptr()) })
    }

    /// Has the bell rung when something comes into an empty queue.
    #[expect(unsafe_code, reason = "rdkafka has no safe call for it")]
    fn ring(&self, bell: &OwnedFd) {
        let one = 1_u64.to_ne_bytes();
        // SAFETY: the queue is alive, the bytes are copied by the call, and the descriptor stays open
        // until the client is destroyed: it is the field dropped last.
        unsafe {
            native::rd_kafka_queue_io_event_enable(
                self.0,
                bell.as_raw_fd(),
                one.as_ptr().cast(),
                one.len(),
            );
        }
    }

    #[expect(unsafe_code, reason = "rdkafka has no safe call for it")]
    fn is_empty(&self) -> bool {
        // SAFETY: the queue is alive.
        unsafe { native::rd_kafka_queue_length(self.0) == 0 }
    }
}

impl Drop for Queue {
    #[expect(unsafe_code, reason = "what was counted must be given back")]
    fn drop(&mut self) {
        // SAFETY: the reference is ours and used for the last time. Whatever the client still writes
        // goes to a bell that outlives it.
        unsafe { native::rd_kafka_queue_destroy(self.0) }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::time::Duration;

    use tokio::time::{Instant, timeout};

    use crate::click::record::tests::record_of;
    use crate::config::Config;
    use crate::kafka::circuit_breaker::Breaker;
    use crate::kafka::{DevelopmentBroker, Kafka, Terms};
    use crate::observe::health::Health;
    use crate::observe::metrics::Metrics;

    /// How long a replacement may take on a slow machine, which under valgrind any is.
    const PATIENCE: Duration = Duration::from_secs(60);

    /// A producer that is replaced three times under its clerk, with reports on their way. `.ci/run` runs this
    /// under valgrind, too, which sees memory that is used after it was given back.
    #[tokio::test]
    async fn each_report_is_heard_also_while_the_producer_is_replaced() {
        let broker = DevelopmentBroker::start(1).expect("a broker");
        broker.create_topic("clicks", 2).expect("a topic");
        let mut config = Config::default();
        config.kafka.brokers = broker.addresses();
        config.webhook[0].topic = "clicks".into();
        let metrics = Arc::new(Metrics::new(&["click"], &["clicks"]).expect("metrics"));
        let breaker = Breaker::new(metrics.breaker.clone(), false);
        let kafka = Kafka::start(&config, metrics, Arc::new(Health::default()), breaker);
        let kafka = kafka.expect("a producer");
        let publisher = kafka.publisher();
        let (clerk, postman) = (tokio::spawn(kafka.clerk()), tokio::spawn(publisher.postman()));
        let record = || record_of(r#"{"campid":7}"#, "2026-01-10T12:00:00Z", None);
        for generation in 0..3 {
            let all: Vec<_> =
                (0..100).map(|_| publisher.send(record(), Terms::default())).collect();
            all[99].verdict().await.expect("an acknowledgement");
            for _ in 0..100 {
                // On their way when their producer goes; each is told what became of it.
                let _ = publisher.send(record(), Terms::default());
            }
            let last = publisher.send(record(), Terms::default());
            tokio::task::yield_now().await;
            kafka.replace_producer();
            let _either_way = last.verdict().await;
            let replaced = async {
                while publisher.generation() == generation {
                    tokio::task::yield_now().await;
                }
            };
            timeout(PATIENCE, replaced).await.expect("a new producer");
        }
        clerk.abort();
        postman.abort();
        let closed = tokio::task::spawn_blocking(move || kafka.close(Instant::now()));
        assert_eq!(closed.await.expect("closed"), 0);
    }
}
