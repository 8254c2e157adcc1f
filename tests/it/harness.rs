//! Helpers of the tests: brokers, a bridge, senders, and the programs around them.
//!
//! - `brokers.rs`: the development broker, and a real Apache Kafka.
//! - `support.rs`: a bridge in this process, a sender, and the records in the topic.
//! - `process.rs`: the built program as a process.
//! - `load.rs`: a steady load of numbered clicks; `found.rs`: the clicks found in Kafka afterwards.
//! - `secured.rs`: a Kafka with every way to let a client in, and an OpenID provider.
//! - `postgres.rs`: a PostgreSQL. `ports.rs`: free ports. `frames.rs`: frames of HTTP/2.
//! - `haproxy.rs`, `browser.rs`: a real HAProxy and a real Chromium. `clients.rs`: real clients and proxies.

pub mod brokers;
pub mod browser;
pub mod clients;
pub mod found;
pub mod frames;
pub mod haproxy;
pub mod load;
pub mod ports;
pub mod postgres;
pub mod process;
pub mod secured;
pub mod support;
