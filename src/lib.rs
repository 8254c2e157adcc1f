//! hookbridge takes click webhooks over HTTP and lands them in Kafka.
//!
//! > **200 means that the click is held durably. Any other answer means that it is not.**
//!
//! Held durably is: acknowledged by Kafka with `acks=all` from an idempotent producer. The one
//! exception is an acknowledgement that comes after the answer was due: the click was then refused
//! and is in Kafka all the same. It carries the same event id as its repetition.
//!
//! # The path of a request
//!
//! One function, `Ingest::receive`, from top to bottom; each step hands over a type that only it
//! makes, and the 200 is built from a [`delivery::Receipt`].
//!
//! ```text
//! http      accept ──► Request            connection, header and time limits
//! ingest      │
//! route       ├─ method, path ─────► Webhook     else 404, 405
//! auth        ├─ headers ──────────► Caller      else 401, before a byte of the body is read
//! http        ├─ bounded read ─────► Bytes       else 413, 408, 503
//! event       ├─ decode ───────────► Event       else 400, 422
//! route       ├─ topic, key, headers ► Record
//! delivery    ├─ hold ─────────────► Receipt     else 503, 413
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
//! | `cli.rs`, `cli/` | the subcommands; logging and signals of `serve` |
//! | `serve.rs` | builds the bridge, serves until told to stop, drains |
//! | `admin.rs` | the operator's listener: `/metrics`, `/livez`, `/readyz` |
//! | `ingest.rs` | the path of a request; the one place that counts, logs and answers |
//! | `http.rs`, `http/` | HTTP without knowledge of webhooks: accept, limits, timers, bounded read |
//! | `delivery.rs` | what "hold" means |
//! | `kafka.rs`, `kafka/` | the only place that names rdkafka |
//! | `metrics.rs` | every metric |
//! | `health.rs` | started, hearing from brokers, draining |
//! | `config.rs`, `config/` | the settings: typed, merged, checked |
//! | `route.rs` | pure: path to webhook, event to record |
//! | `event.rs` | pure: bytes to event |
//! | `auth.rs` | pure: headers to caller |
//! | `outcome.rs` | pure: every way that a request can end |
//!
//! # Threads
//!
//! One accepts connections and spreads them over the workers; each worker is a thread with a runtime
//! of its own and keeps a connection to its end. The Kafka client has threads of its own, `kafka`'s
//! keeper does what may block, and the operator's listener has its own thread, so that no load can
//! blind the operator.
//!
//! # Invariants, most of them absences
//!
//! - No 200 without a receipt, and no receipt without an acknowledgement.
//! - No body, e-mail address or key in a log line, a metric or an answer.
//! - No text from a sender becomes a metric label.
//! - No queue without a bound, no wait without a deadline.
//! - No file but those of `kafka/` names rdkafka; none but `config/load.rs` reads files or the
//!   environment; none but `metrics.rs` makes a metric.
//! - `route`, `event`, `auth` and `outcome` have no async, no clock, no I/O and no logging.
//!
//! `tests/it/tidy.rs` holds the source to what can be read off it.

pub mod admin;
pub mod auth;
pub mod cli;
pub mod config;
pub mod delivery;
pub mod event;
pub mod health;
pub mod http;
pub mod ingest;
pub mod kafka;
pub mod metrics;
pub mod outcome;
pub mod route;
pub mod serve;
