//! hookbridge takes click webhooks over HTTP and lands them in Kafka.
//!
//! > **200 means that the click is held durably. Any other answer means that it is not.**
//!
//! Held durably is: acknowledged by Kafka with `acks=all` from an idempotent producer, or written to the
//! spool on disk and fsynced. What is in the spool goes to Kafka as soon as it can, in its order.
//!
//! There are two exceptions, and neither loses a click. When a process is killed, clicks that were in flight
//! may be in Kafka twice, with the same event id. Without a spool, or when its disk fails, an acknowledgement
//! may come after the answer was due: the click was refused, and is in Kafka all the same.
//!
//! # The path of a request
//!
//! One function, `Ingest::receive`, from top to bottom. Each step hands over a type that only it makes,
//! and the 200 is built from a [`delivery::Receipt`].
//!
//! ```text
//! http      accept ──► Request            connection, header and time limits
//! ingest      ├─ rate limits                     else 429
//! click       ├─ path, method ─────► Webhook     else 404, 405
//! click       ├─ head ─────────────► Proof       else 401, before a byte of the body is read
//! http        ├─ bounded read ─────► Bytes       else 413, 408, 503; unpacked: else 413
//! click       ├─ proof, bytes ─────► Caller      else 401, where the body is signed (503 where Amazon
//!             │                                  SNS cannot be asked for its certificate)
//! click       ├─ decode ───────────► Event       else a dead letter (or 400, 415, 422)
//! click       ├─ topic, key, headers ► Record
//! delivery    ├─ hold ─────────────► Receipt     Kafka's acknowledgement, else the spool's, else 503
//! click       └─ answer ◄─ Receipt or Rejection
//! ```
//!
//! The only 200s without a receipt are the answers to questions, in which there is no click: to a message of
//! Amazon SNS that asks for a confirmation, and to a sender that asks about the address (`verify`).
//!
//! # The rooms
//!
//! Each room uses only rooms further down. The file named like a room is its front door: what other rooms
//! may use, and in which file each duty is.
//!
//! | room | duty |
//! | --- | --- |
//! | `main.rs` | the process edge: arguments in, exit code out |
//! | `cli` | the commands: one file for each |
//! | `bridge` | builds the whole, serves, reloads, drains |
//! | `operator` | what an operator or a machine reads: admin listener, live page, OpenAPI, AsyncAPI, schemas |
//! | `ingest` | the path of a request; the rate limits of senders; spans |
//! | `load` | a load of clicks, for `hookbridge send` and the benchmark |
//! | `delivery` | what *held* means; the spool on disk; the forwarder from the spool to Kafka |
//! | `kafka` | the Kafka client; the circuit breaker |
//! | `http` | HTTP without knowledge of webhooks: accept, TLS, limits, timers, bounded read |
//! | `observe` | metrics, health, log, redaction, the sampler for the page |
//! | `config` | the settings: typed, merged, checked |
//! | `click` | pure: authentication, event, record, pseudonyms, outcomes |
//!
//! # Threads
//!
//! One thread accepts connections and spreads them over the workers. Each worker is a thread with a
//! runtime of its own and keeps a connection to its end. The Kafka client has its own threads; its delivery
//! reports are polled on the first worker, and a supervisor thread makes its blocking calls. One thread
//! writes the spool, and one forwards it to Kafka. One gets tokens for Kafka, where the settings ask for
//! them. The admin listener has its own thread, so that no load of clicks can keep an operator out; it also
//! samples and draws what the page shows. One thread looks for changed files, one writes the log, and one
//! exports spans where requests are traced.
//!
//! # Invariants
//!
//! - No 200 without a receipt, and no receipt without an acknowledgement or an fsync. (The
//!   answers to questions, in which there is no click, are the one exception.)
//! - No event leaves the spool without an acknowledgement.
//! - The bridge connects to no host that a sender names, but to those of Amazon SNS where that is set.
//! - No body, e-mail address or key is in a log line, a metric or an answer to a sender. The page shows the
//!   beginnings of bodies where `admin.tail` is set, with addresses redacted, and only as text.
//! - While nobody looks at the page, it costs a click one relaxed load.
//! - No text from a sender becomes a metric label.
//! - No queue without a bound, no wait without a deadline.
//! - A library stays in its place: rdkafka in `kafka`, redb in `delivery/spool/legacy.rs`, reqsign in `kafka/token`, rustls in `http`,
//!   OpenTelemetry (which reads variables of its own, `OTEL_...`) in `ingest/spans.rs`, plotters and maud in
//!   `operator/page`. Only `config` and `delivery/spool` work with files, only `config/load.rs` reads the
//!   environment, only `observe/metrics.rs` makes a metric.
//! - `unsafe` is in `kafka/client.rs` alone.
//! - `click` has no async, no clock, no I/O and no logging.
//!
//! `tests/it/tidy.rs` checks what can be read off the source.

pub mod bridge;
pub mod cli;
pub mod click;
pub mod config;
pub mod delivery;
pub mod http;
pub mod ingest;
pub mod kafka;
pub mod load;
pub mod observe;
pub mod operator;
