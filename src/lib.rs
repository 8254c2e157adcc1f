//! hookbridge takes click webhooks over HTTP and lands them in Kafka.
//!
//! > **200 means that the click is held durably. Any other answer means that it is not.**
//!
//! Held durably is: acknowledged by Kafka with `acks=all` from an idempotent producer, or written to the
//! spool on disk and fsynced. What is in the spool goes to Kafka as soon as it can, in its order.
//!
//! The exceptions, none of which loses a click: what was on its way when a process was killed may be
//! in Kafka twice, with the same event id; and where there is no spool, or its disk fails, an
//! acknowledgement may come after the answer was due: the click was then refused and is in Kafka all
//! the same.
//!
//! # The path of a request
//!
//! One function, `Ingest::receive`, from top to bottom; each step hands over a type that only it
//! makes, and the 200 is built from a [`delivery::Receipt`] (or, where Amazon SNS wanted no more than that,
//! from the proof that a subscription was confirmed).
//!
//! ```text
//! http      accept ──► Request            connection, header and time limits
//! ingest      ├─ fair shares                     else 429
//! route       ├─ method, path ─────► Webhook     else 404, 405
//! auth        ├─ head ─────────────► Proof       else 401, before a byte of the body is read
//! http        ├─ bounded read ─────► Bytes       else 413, 408, 503; unpacked: else 415, 413
//! auth        ├─ proof, bytes ─────► Caller      else 401, where the body is signed (503 where Amazon
//!             │                                  SNS cannot be asked for its certificate)
//! event       ├─ decode ───────────► Event       else a dead letter (or 400, 422)
//! route       ├─ topic, key, headers ► Record
//! delivery    ├─ hold ─────────────► Receipt     Kafka's word, else the spool's, else 503
//! outcome     └─ answer ◄─ Receipt or Rejection
//! ```
//!
//! # The map
//!
//! A file uses only files further down.
//!
//! | file | duty |
//! | --- | --- |
//! | `main.rs` | the process edge: arguments in, exit code out |
//! | `cli.rs`, `cli/` | the subcommands; signals of `serve` |
//! | `serve.rs` | builds the bridge, serves until told to stop, drains |
//! | `reload.rs` | what follows its file without a restart |
//! | `admin.rs` | the operator's listener: `/metrics`, `/livez`, `/readyz`, documents for machines, the page |
//! | `page.rs`, `page/` | the live page: what is sampled, kept, drawn and written; the only place that names plotters and maud |
//! | `openapi.rs` | pure: what the listeners take and answer, as OpenAPI |
//! | `load.rs`, `load/` | a load of clicks, for `hookbridge send` and the benchmark |
//! | `schema.rs` | pure: what is in the topics, for machines: JSON Schema, AsyncAPI |
//! | `ingest.rs` | the path of a request; the one place that counts, logs and answers |
//! | `trace.rs` | spans and their export; the only place that names OpenTelemetry |
//! | `http.rs`, `http/` | HTTP without knowledge of webhooks: accept, limits, timers, bounded read |
//! | `delivery.rs`, `delivery/` | what "hold" means; the drain from the spool to Kafka |
//! | `spool.rs`, `spool/` | the durable queue on disk; the only place that names redb |
//! | `kafka.rs`, `kafka/` | the only place that names rdkafka |
//! | `breaker.rs` | whether events may try Kafka directly |
//! | `shares.rs` | fair shares: how often something may happen, for each of many |
//! | `metrics.rs` | every metric |
//! | `log.rs` | the log, which holds up nobody |
//! | `health.rs` | started, able to hold clicks, draining |
//! | `mask.rs` | pure: hides e-mail addresses in text that is shown |
//! | `config.rs`, `config/` | the settings: typed, merged, checked |
//! | `route.rs` | pure: path to webhook, event to record |
//! | `pseudonym.rs` | pure: fields that must not reach Kafka as they are |
//! | `event.rs` | pure: bytes to event |
//! | `auth.rs`, `auth/` | pure: head, and body where it is signed, to caller |
//! | `watch.rs` | what is looked at closely only while somebody looks |
//! | `outcome.rs` | pure: every way that a request can end |
//!
//! # Threads
//!
//! One accepts connections and spreads them over the workers; each worker is a thread with a runtime
//! of its own and keeps a connection to its end. The Kafka client has threads of its own; what it
//! reports is handed out on the first worker, and `kafka`'s keeper does what may block. One thread owns the
//! spool's store, and one drains it. The operator's listener has its own thread, so that no load can blind
//! the operator, and samples and draws what the page shows; one looks whether files have changed, one
//! writes the log. Where requests are traced, one sends the spans to the collector.
//!
//! # Invariants, most of them absences
//!
//! - No 200 without a receipt, and no receipt without an acknowledgement or an fsync; but for a
//!   subscription of Amazon SNS that was confirmed, in which there is no click.
//! - Nothing is asked of a host that a sender names, but of those of Amazon SNS, where that is set.
//! - No event leaves the spool without an acknowledgement.
//! - No body, e-mail address or key in a log line, a metric or an answer to a sender. The page shows the
//!   beginnings of bodies where `admin.tail` is set, with addresses masked, and only as text.
//! - What the page shows costs a click one relaxed load while nobody looks.
//! - No text from a sender becomes a metric label.
//! - No queue without a bound, no wait without a deadline.
//! - No file but those of `kafka/` names rdkafka, none but `spool/store.rs` redb, none but those of
//!   `http/` rustls, none but `trace.rs` OpenTelemetry (which reads variables of its own, `OTEL_...`),
//!   none but `page.rs` and those of `page/` plotters and maud;
//!   none but those of `config/` and `spool/` works with files, and only `config/load.rs` reads the
//!   environment; none but `metrics.rs` makes a metric.
//! - No `unsafe` but in `kafka/client.rs`.
//! - `route`, `pseudonym`, `event`, `auth` and `outcome` have no async, no clock, no I/O and no logging.
//!
//! `tests/it/tidy.rs` holds the source to what can be read off it.

pub mod admin;
pub mod auth;
pub mod breaker;
pub mod cli;
pub mod config;
pub mod delivery;
pub mod event;
pub mod health;
pub mod http;
pub mod ingest;
pub mod kafka;
pub mod load;
pub mod log;
pub mod mask;
pub mod metrics;
pub mod openapi;
pub mod outcome;
pub mod page;
pub mod pseudonym;
pub mod reload;
pub mod route;
pub mod schema;
pub mod serve;
pub mod shares;
pub mod spool;
pub mod trace;
pub mod watch;
