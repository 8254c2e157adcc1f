//! Kafka: the only room that names rdkafka.
//!
//! The way of a record: [`Publisher::send`] puts it into the send queue of its worker thread, the sender task
//! hands it to the Kafka client, and the client sends it in a batch. Handing over is only an enqueue:
//! librdkafka, the C library below, has queues and threads of its own. The delivery report comes back the
//! same way, and it alone says whether Kafka holds the record: [`InFlightRecord::verdict`] returns
//! [`Acknowledged`] or a [`Failure`].
//!
//! - `publisher.rs`: what a worker thread uses, and its sender task.
//! - `batching.rs`: how long records wait for others.
//! - `send_queue.rs`: records in flight and their delivery reports.
//! - `current.rs`: the client in use; `client.rs`: takes records, polls reports; the only `unsafe`.
//! - `context.rs`: the callbacks of librdkafka.
//! - `fault.rs`: the one table of what Kafka's error codes mean for us.
//! - `circuit_breaker.rs`: whether events may try Kafka directly.
//! - `supervisor.rs`: starts the client, replaces a broken one, explains what is wrong with a topic.
//! - `token.rs`: tokens for the brokers, from a file or signed for Amazon MSK.
//! - `access.rs`: why a client is not let in.
//! - `settings.rs`: every property of librdkafka that is relied on, with its reason.
//! - `statistics.rs`: what librdkafka reports of itself once a second.
//! - `inspect.rs`: asks the brokers about topics, for the supervisor and for `hookbridge check --kafka`.
//! - `reader.rs`: reads records back.
//! - `range.rs`: reads a part of a topic up to its end, and keeps how far it came.
//! - `ending.rs`: ends clients in time.
//! - `simulated.rs`: a Kafka on a paused clock, for tests.
//! - `broker.rs`: the development broker inside this process.

mod access;
mod batching;
mod broker;
mod circuit_breaker;
mod client;
mod context;
mod current;
mod ending;
mod fault;
mod inspect;
mod publisher;
mod range;
mod reader;
mod send_queue;
mod settings;
mod statistics;
mod supervisor;
mod token;

pub use broker::DevelopmentBroker;
pub use circuit_breaker::{CircuitBreaker, Permit};
pub use ending::EndsInTime;
pub use fault::{Failure, Fault, Remedy};
pub use inspect::{InspectedTopic, Inspector, QueryError, Severity};
pub use publisher::Publisher;
pub use range::{RangeReader, TopicRange};
pub use reader::{ConsumedRecord, Reader, TopicPosition};
pub use send_queue::{Acknowledged, InFlightRecord, Preconditions};
pub use settings::{check, client_version, producer as producer_settings};
pub use supervisor::Kafka;

#[cfg(test)]
pub(crate) mod simulated;
