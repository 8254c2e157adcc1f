//! The tests of the bridge through its front door: real sockets, a real broker, faults.
//!
//! Each scenario runs on the development broker and on a real Apache Kafka (`brokers.rs`).
#![expect(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test may fail")]

mod brokers;
mod found;
mod frames;
mod haproxy;
mod load;
mod process;
mod support;

/// What goes in and what comes out.
mod accepts;
/// Senders that mean no good, beside one that does.
mod attacks;
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
/// The same key lands where a Java producer would put it.
mod partitions;
/// The promise, against everything that fails at once.
mod proof;
/// Who calls through a balancer.
mod proxies;
/// A table of requests, with status, tag and nothing published.
mod rejects;
/// Replicas that restart, come and go behind a balancer.
mod rolling;
/// TLS, passwords and rights.
mod security;
/// More than a sender's share.
mod shares;
/// SIGTERM and the drain.
mod shutdown;
/// Spans, as a collector gets them.
mod spans;
/// What Kafka cannot take now: held on disk, delivered later, in order.
mod spool;
/// The architecture's rules, read off the source.
mod tidy;
/// TLS on the listener: versions, pairs that change, client certificates.
mod tls;
/// The ways to prove who calls, and that no secret is printed.
mod ways;
/// HTTP byte for byte: a table of what senders may say, and what comes of it.
mod wire;
