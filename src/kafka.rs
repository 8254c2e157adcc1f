//! Kafka: the only folder that names rdkafka.
//!
//! librdkafka, the C library below, keeps a queue of records and threads of its own. Handing it a
//! record is only an enqueue; the delivery report comes later, and it alone says whether Kafka holds the
//! record.
//!
//! - `settings.rs`: every property of librdkafka that is relied on, with its reason.
//! - `supervisor.rs`: starts the producer, replaces a broken one, explains to the operator what is wrong
//!   with a topic.
//! - `publisher.rs`: a record goes in, its acknowledgement or a [`Failure`] comes out.
//! - `producer.rs`: the producer in use, which takes the records.
//! - `client.rs`: the client itself, and how it says that it has something to report.
//! - `context.rs`: what the Kafka client calls back.
//! - `send_queue.rs`: records and reports on their way between a worker and the Kafka client.
//! - `fault.rs`: the one table of what Kafka's error codes mean for us.
//! - `statistics.rs`: what librdkafka tells of itself once a second.
//! - `inspect.rs`: asks the brokers about topics, for the keeper and for `hookbridge check --kafka`.
//! - `reader.rs`: reads records back.
//! - `range.rs`: the same for a part of a topic, up to its end, and how far that came.
//! - `circuit_breaker.rs`: whether events may try Kafka directly.
//! - `broker.rs`: the development broker inside this process.

mod broker;
pub mod circuit_breaker;
mod client;
mod context;
mod fault;
mod inspect;
mod producer;
mod publisher;
mod range;
mod reader;
mod send_queue;
mod settings;
mod statistics;
mod supervisor;

pub use broker::DevelopmentBroker;
pub use fault::{Failure, Fault, Remedy};
pub use inspect::{Finding, Inspector, NoAnswer, Severity};
pub use publisher::{Acknowledged, Publisher, Sent};
pub use range::{Bound, Range, Span};
pub use reader::{From, Reader, Seen};
pub use send_queue::Terms;
pub use settings::{check, client_version, producer as producer_settings};
pub use supervisor::Kafka;
