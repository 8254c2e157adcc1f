//! The tests of the bridge through its front door: real sockets, a real broker, faults.
//!
//! Each scenario runs on the development broker and on a real Apache Kafka (`brokers.rs`).
#![expect(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test may fail")]

mod brokers;
mod browser;
mod found;
mod frames;
mod haproxy;
mod load;
mod ports;
mod process;
mod support;

/// What goes in and what comes out.
mod accepts;
/// Senders that mean no good, beside one that does.
mod attacks;
/// Bodies that carry several events.
mod batches;
/// The subcommands and their exit codes, on the built program.
mod cli;
/// Compressed bodies.
mod coding;
/// Files, variables, problems.
mod config;
/// A disk that fails, fills up, or comes back damaged.
mod disk;
/// The tables of the README against the code.
mod docs;
/// The worked example for readers of the topic, on a real Kafka.
mod example;
/// Kafka slow, away, unwilling or broken, for a bridge without a spool.
mod faults;
/// Who may call, when and from where; keys that follow their file.
mod keys;
/// Bodies that nobody can understand, and records that Kafka does not take.
mod letters;
/// Slow, large and many.
mod limits;
/// Names, labels, and that all are there from the start.
mod metrics;
/// The alerts and the dashboard, on a real Prometheus.
mod observability;
/// What the listeners say of themselves.
mod openapi;
/// The live page, in its parts and in a browser.
mod page;
/// The same key lands where a Java producer would put it.
mod partitions;
/// The promise, against everything that fails at once.
mod proof;
/// What holds for whatever is sent.
mod properties;
/// Who calls through a balancer.
mod proxies;
/// Fields that must not reach Kafka.
mod pseudonyms;
/// A table of requests, with status, tag and nothing published.
mod rejects;
/// `hookbridge replay`: what is replayed, what still fails, and a replay that is killed.
mod replay;
/// Replicas that restart, come and go behind a balancer.
mod rolling;
/// JSON Schema and AsyncAPI, against records read back.
mod schemas;
/// No secret and nothing of a body in any output.
mod secrets;
/// TLS, passwords and rights.
mod security;
/// `hookbridge send`: clicks to a bridge, and what it says of them.
mod send;
/// Opptima whole, and other senders by their profiles.
mod senders;
/// More than a sender's share.
mod shares;
/// SIGTERM and the drain.
mod shutdown;
/// Amazon SNS: its signatures, certificates and confirmations.
mod sns;
/// Spans, as a collector gets them.
mod spans;
/// What Kafka cannot take now: held on disk, delivered later, in order.
mod spool;
/// `hookbridge tail`: for people and machines, from anywhere in a topic.
mod tail;
/// The architecture's rules, read off the source.
mod tidy;
/// TLS on the listener: versions, pairs that change, client certificates.
mod tls;
/// The ways to prove who calls, and that no secret is printed.
mod ways;
/// HTTP byte for byte: a table of what senders may say, and what comes of it.
mod wire;
