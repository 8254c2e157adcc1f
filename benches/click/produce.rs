//! The Kafka client alone: the time of a produce without the bridge.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use hdrhistogram::Histogram;
use hookbridge::config::Config;
use hookbridge::load::{Schedule, histogram};
use rdkafka::ClientContext;
use rdkafka::message::DeliveryResult;
use rdkafka::producer::{BaseRecord, Producer, ProducerContext, ThreadedProducer};
use tokio::time::Instant;

use crate::load::micros;

/// How long the last acknowledgements may take.
const FLUSH_TIMEOUT: Duration = Duration::from_secs(10);

/// Times each record from the moment it was due to its acknowledgement.
struct Timer(Mutex<Histogram<u64>>);

impl ClientContext for Timer {}

impl ProducerContext for Timer {
    type DeliveryOpaque = Box<Instant>;

    fn delivery(&self, result: &DeliveryResult<'_>, due: Box<Instant>) {
        result.as_ref().expect("an acknowledgement");
        self.0.lock().expect("the times").saturating_record(micros(*due));
    }
}

/// Produces at this rate, in records a second, with the bridge's settings. Returns times in microseconds.
pub fn timed(config: &Config, keys: usize, rate: u32, duration: Duration) -> Histogram<u64> {
    let timer = Timer(Mutex::new(histogram()));
    let producer: ThreadedProducer<Timer> = hookbridge::kafka::producer_settings(config)
        .create_with_context(timer)
        .expect("a producer");
    let producer = Arc::new(producer);
    let (value, topic) = ("x".repeat(600), &*config.webhook[0].topic);
    let send = |number: u64, due| {
        let key = (number as usize % keys).to_string();
        let record = BaseRecord::with_opaque_to(topic, Box::new(due)).key(&key).payload(&value);
        producer.send(record).map_err(|(error, _)| error).expect("room in the queue");
    };
    // The first records wait until the client knows the topic and the broker has created its files.
    (0..u64::from(rate)).for_each(|number| send(number, Instant::now()));
    producer.flush(FLUSH_TIMEOUT).expect("every acknowledgement");
    producer.context().0.lock().expect("the times").clear();
    let schedule = Schedule { start: Instant::now(), rate };
    schedule.run(|numbers| {
        numbers.for_each(|number| send(number, schedule.due(number)));
        schedule.start.elapsed() < duration
    });
    producer.flush(FLUSH_TIMEOUT).expect("every acknowledgement");
    let times = producer.context().0.lock().expect("the times");
    times.clone()
}
