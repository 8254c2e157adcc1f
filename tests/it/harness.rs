//! What the tests share: brokers, a bridge, senders, and what lies around them.
//!
//! - `brokers.rs`: the development broker, and a real Apache Kafka.
//! - `support.rs`: a bridge in this process, a sender, and the records in the topic.
//! - `process.rs`: the built program as a process.
//! - `load.rs`: a steady load of clicks that can be told apart; `found.rs`: what of it is in Kafka.
//! - `ports.rs`: free ports. `frames.rs`: frames of HTTP/2.
//! - `haproxy.rs`, `browser.rs`: a real HAProxy and a real Chromium.

pub mod brokers;
pub mod browser;
pub mod found;
pub mod frames;
pub mod haproxy;
pub mod load;
pub mod ports;
pub mod process;
pub mod support;
