//! The Kafka client: records are handed to it here, and its delivery reports are polled here.
//!
//! rdkafka's own way to hear of delivery reports is a thread that waits for nothing else. That thread
//! must then wake the worker whose request waits. Here the client writes to an event descriptor that a
//! worker's runtime listens to, and the reports are served on that worker's thread.
//!
//! The only unsafe code of the bridge is in this file, because rdkafka has no safe call that ties an event
//! descriptor to a producer.

use std::convert::Infallible;
use std::ffi::{CStr, CString, c_char};
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use rdkafka::ClientContext;
use rdkafka::bindings as native;
use rdkafka::message::{Header, OwnedHeaders};
use rdkafka::producer::{BaseProducer, BaseRecord, Producer};
use rustix::event::{EventfdFlags, eventfd};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::task::yield_now;
use tokio::time::sleep;
use tracing::error;

use super::context::{Context, Subscribers, code};
use super::current::RecordSink;
use super::fault::Failure;
use super::send_queue::InFlightRecord;
use super::settings;
use super::token::Token;
use crate::config::{Config, Problem};

/// How often to poll where the event descriptor cannot be listened to.
const POLL_INTERVAL: Duration = Duration::from_millis(5);

/// The headers of most records.
const HEADERS: usize = 8;

/// The principal that a token is for: librdkafka wants one, and sends it to nobody.
const PRINCIPAL: &CStr = c"hookbridge";

/// A producer with its event queue. Each replacement has the next generation.
pub(super) struct Client {
    // Dropped in this order: the queue is the producer's, and the producer writes to the descriptor.
    queue: EventQueue,
    pub producer: BaseProducer<Context>,
    lingers: bool,
    /// Readable when there is something to report.
    readiness: OwnedFd,
}

/// librdkafka's queue of delivery reports, statistics, errors and log lines.
struct EventQueue(*mut native::rd_kafka_queue_t);

// SAFETY: librdkafka's queues may be used by several threads at once. The pointer is given back only in
// `drop`, which has the queue to itself.
#[expect(unsafe_code, reason = "rdkafka does not show the producer's queue")]
unsafe impl Send for EventQueue {}
#[expect(unsafe_code, reason = "the same")]
// SAFETY: as above.
unsafe impl Sync for EventQueue {}

impl Client {
    pub fn start(
        config: &Config,
        generation: u64,
        subscribers: Subscribers,
    ) -> Result<Client, Problem> {
        // Non-blocking, so that a descriptor that nobody reads does not hold up the client's threads.
        let readiness = eventfd(0, EventfdFlags::NONBLOCK | EventfdFlags::CLOEXEC)
            .map_err(|error| Problem::new("kafka", format!("no event descriptor: {error}")))?;
        let context = Context { generation, subscribers, observed: Mutex::default() };
        let producer = settings::producer(config)
            .create_with_context(context)
            .map_err(|error| Problem::new("kafka.options", error.to_string()))?;
        let queue = EventQueue::of(&producer);
        queue.notify(&readiness);
        Ok(Client { queue, producer, lingers: settings::sets_linger(config), readiness })
    }

    /// Serves events as they come.
    pub async fn poll(&self) -> Infallible {
        let readiness = self.readiness.try_clone().and_then(listen);
        if let Err(error) = &readiness {
            error!(%error, "The Kafka client's event descriptor cannot be listened to; polling instead.");
        }
        loop {
            // Before the first wait, too: only an event that comes into an empty queue makes the descriptor
            // readable, and an event may have come before the descriptor was tied to the queue.
            while !self.queue.is_empty() {
                // Serves one event (a batch of delivery reports), then yields to other tasks.
                self.producer.poll(Duration::ZERO);
                yield_now().await;
            }
            let is_notified = match &readiness {
                // Each write is an event of its own, so that the counter need not be read.
                Ok(fd) => fd.readable().await.map(|mut guard| guard.clear_ready()).is_ok(),
                Err(_) => false,
            };
            if !is_notified {
                sleep(POLL_INTERVAL).await;
            }
        }
    }
}

impl RecordSink for Client {
    fn generation(&self) -> u64 {
        self.producer.context().generation
    }

    fn lingers(&self) -> bool {
        self.lingers
    }

    /// Hands a record to librdkafka, which only enqueues it.
    fn send(&self, sent: Arc<InFlightRecord>) {
        let record = sent.record();
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
            ..BaseRecord::with_opaque_to(record.topic(), sent.clone())
        };
        if let Err((error, message)) = self.producer.send(message) {
            let failure = Failure::new(code(&error));
            self.producer.context().settle(message.delivery_opaque, Err(failure));
        }
    }
}

/// Gives a client of librdkafka its token for OAUTHBEARER.
///
/// # Errors
///
/// Why librdkafka does not take it.
#[expect(
    unsafe_code,
    reason = "rdkafka sets a token only where it asks for one, on the thread of clicks"
)]
pub(super) fn set_token(
    client: &rdkafka::client::Client<impl ClientContext>,
    token: &Token,
) -> Result<(), String> {
    let value = CString::new(token.value.as_str()).map_err(|_| "the token has a zero byte")?;
    let mut error: [c_char; 512] = [0; 512];
    // SAFETY: the client is alive, the texts are copied by the call, and it writes the reason as a text that ends
    // with a zero byte within the array.
    let (code, reason) = unsafe {
        let code = native::rd_kafka_oauthbearer_set_token(
            client.native_ptr(),
            value.as_ptr(),
            token.expires.as_millisecond(),
            PRINCIPAL.as_ptr(),
            std::ptr::null_mut(),
            0,
            error.as_mut_ptr(),
            error.len(),
        );
        (code, CStr::from_ptr(error.as_ptr()).to_string_lossy())
    };
    match code {
        native::rd_kafka_resp_err_t::RD_KAFKA_RESP_ERR_NO_ERROR => Ok(()),
        _ => Err(reason.into_owned()),
    }
}

/// Registers a descriptor with the runtime of this thread.
#[expect(unsafe_code, reason = "tokio cannot know by itself that a descriptor stays what it is")]
fn listen(readiness: OwnedFd) -> io::Result<AsyncFd<OwnedFd>> {
    // SAFETY: the descriptor is owned by what is returned, which neither replaces nor closes it.
    Ok(unsafe { AsyncFd::register_with_interest(readiness, Interest::READABLE) }?)
}

impl EventQueue {
    #[expect(unsafe_code, reason = "rdkafka does not show the producer's queue")]
    fn of(producer: &BaseProducer<Context>) -> EventQueue {
        // SAFETY: the client is alive. The reference that this returns is counted; `drop` gives it
        // back, before the client is destroyed.
        EventQueue(unsafe { native::rd_kafka_queue_get_main(producer.client().native_ptr()) })
    }

    /// Has librdkafka write to a descriptor when an event comes into an empty queue.
    #[expect(unsafe_code, reason = "rdkafka has no safe call for it")]
    fn notify(&self, readiness: &OwnedFd) {
        let one = 1_u64.to_ne_bytes();
        // SAFETY: the queue is alive, the bytes are copied by the call, and the descriptor stays open
        // until the client is destroyed: it is the field dropped last.
        unsafe {
            native::rd_kafka_queue_io_event_enable(
                self.0,
                readiness.as_raw_fd(),
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

impl Drop for EventQueue {
    #[expect(unsafe_code, reason = "the counted reference must be given back")]
    fn drop(&mut self) {
        // SAFETY: the reference is ours and used for the last time. What the client still writes goes to
        // a descriptor that outlives it.
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
    use crate::kafka::{CircuitBreaker, DevelopmentBroker, Kafka, Preconditions};
    use crate::observe::health::Health;
    use crate::observe::metrics::Metrics;

    /// How long a replacement may take on a slow machine, which under valgrind any is.
    const PATIENCE: Duration = Duration::from_secs(60);

    /// A producer that is replaced three times while its reports are polled. `.ci/run` runs this
    /// under valgrind, too, which sees memory that is used after it was given back.
    #[tokio::test]
    async fn each_report_is_heard_also_while_the_producer_is_replaced() {
        let broker = DevelopmentBroker::start(1).expect("a broker");
        broker.create_topic("clicks", 2).expect("a topic");
        let mut config = Config::default();
        config.kafka.brokers = broker.addresses();
        config.webhook[0].topic = "clicks".into();
        let metrics = Arc::new(Metrics::new(&["click"], &["clicks"]).expect("metrics"));
        let breaker = CircuitBreaker::new(metrics.breaker.clone(), false);
        let kafka = Kafka::start(&config, metrics, Arc::new(Health::default()), breaker);
        let kafka = kafka.expect("a producer");
        let publisher = kafka.publisher();
        let (report_poller, sender_task) = (
            tokio::spawn(kafka.delivery_report_poller()),
            tokio::spawn(kafka.sender_task(&publisher)),
        );
        let record = || record_of(r#"{"campid":7}"#, "2026-01-10T12:00:00Z", None);
        for generation in 0..3 {
            let all: Vec<_> =
                (0..100).map(|_| publisher.send(record(), Preconditions::default())).collect();
            all[99].verdict().await.expect("an acknowledgement");
            for _ in 0..100 {
                // In flight when their producer is replaced; each gets its report.
                let _ = publisher.send(record(), Preconditions::default());
            }
            let last = publisher.send(record(), Preconditions::default());
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
        report_poller.abort();
        sender_task.abort();
        let closed = tokio::task::spawn_blocking(move || kafka.close(Instant::now()));
        assert_eq!(closed.await.expect("closed"), 0);
    }
}
