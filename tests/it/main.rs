//! The tests of the bridge from outside: real sockets, a real broker, faults.
//!
//! # How to run them
//!
//! - All: `cargo test`, about 16 minutes on two cores after a first build of about 3.
//! - One file: `cargo test --test it -- spool::`. One test: any part of its name.
//! - Pure code, such as `src/click`, has its tests beside it: `cargo test --lib`, a few seconds.
//!
//! A test whose program is missing says so and passes, unless `HOOKBRIDGE_REQUIRE_KAFKA=1`,
//! `..._PROMETHEUS=1`, `..._HAPROXY=1`, `..._BROWSER=1` or `..._CLIENTS=1` is set, as `.ci/run` does. Tests named `embedded`
//! run on librdkafka's mock cluster, the same tests named `kafka` on a real Apache Kafka of one node. It needs
//! Java 17 and Maven, or `HOOKBRIDGE_TEST_BROKERS` names one. `HOOKBRIDGE_PROOF=long` makes the proofs long.
//!
//! # Which file proves what
//!
//! | promise | files | need, beyond Kafka |
//! | --- | --- | --- |
//! | 200 means held, whatever fails | `proof`, `faults`, `spool`, `spool_files`, `disk`, `shutdown`, `takeover` | a C compiler; `disk`: the right to mount |
//! | every click that can be held is held | `accepts`, `batches`, `compression`, `dead_letters`, `set_aside`, `replay`, `clients` | `clients`: see `.ci/run` |
//! | the record is as documented | `accepts`, `partitions`, `pseudonyms`, `properties`, `schemas` | |
//! | readers can use it | `examples`, `tail` | `examples`: Java, Maven; the long ones (`.ci/more`) PostgreSQL, Python; `tail`: jq |
//! | only callers with a key get in | `auth_schemes`, `keys`, `tls`, `rejects`, `sns`, `senders`, `verification` | |
//! | attackers cost no click | `attacks`, `limits`, `rate_limits`, `wire`, `proxies` | `proxies`: HAProxy |
//! | nothing secret gets out | `secrets`, `pseudonyms`, `auth_schemes`, `origins` | `origins`: Chromium |
//! | a secured Kafka works, and its errors are explained | `security`, `managed`, `kerberos` | `kerberos`: a KDC, and the feature `gssapi` |
//! | operators see what happens | `metrics`, `observability`, `page`, `spans` | Prometheus, Chromium |
//! | replicas can be replaced under load | `rolling_update`, `keys`, `tls` | HAProxy |
//! | commands and settings do what they say | `cli`, `config`, `check`, `export`, `send`, `tail`, `replay` | `check`: the right to mount |
//! | nothing waits for a resolver that does not answer | `resolver` | the right to mount, and to port 53 |
//! | documents are true | `docs`, `openapi`, `schemas`, `observability` | |
//! | the architecture is as drawn | `tidy` | |
#![expect(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test may fail")]

mod harness;

mod accepts;
mod attacks;
mod auth_schemes;
mod batches;
mod check;
mod cli;
mod clients;
mod compression;
mod config;
mod dead_letters;
mod disk;
mod docs;
mod examples;
mod export;
mod faults;
mod kerberos;
mod keys;
mod limits;
mod managed;
mod metrics;
mod observability;
mod openapi;
mod origins;
mod page;
mod partitions;
mod proof;
mod properties;
mod proxies;
mod pseudonyms;
mod rate_limits;
mod rejects;
mod replay;
mod resolver;
mod rolling_update;
mod schemas;
mod secrets;
mod security;
mod send;
mod senders;
mod set_aside;
mod shutdown;
mod sns;
mod spans;
mod spool;
mod spool_files;
mod tail;
mod takeover;
mod tidy;
mod tls;
mod verification;
mod wire;
