//! Pure: what is in the topics, for those who read them, made from the settings.
//!
//! [`of_events`] is the source: the JSON Schema of a webhook's events. Every other format is made of it, by
//! a file of its own in `schema/`, over the columns that `columns.rs` takes from it.

mod asyncapi;
mod avro;
mod clickhouse;
mod columns;
mod connect;
mod flink;
mod java;
mod json_schema;
mod ksqldb;
mod postgres;
mod spark;

use clap::ValueEnum;
use serde_json::Value;

use crate::config::{Config, WebhookSettings};
use columns::Table;

pub use asyncapi::of_topics;
pub use json_schema::of_events;
pub(super) use json_schema::{put, put_fields};

/// The systems that a schema can be written for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// The source of all the others
    JsonSchema,
    /// The topics, their keys and their headers, too
    Asyncapi,
    /// Flink SQL: the records, each event once, the dead letters
    Flink,
    /// Spark: the `StructType`, the options and the columns, in Java
    Spark,
    /// ksqlDB: a stream, and each event once
    Ksqldb,
    /// ClickHouse: Kafka engine, materialised view, `ReplacingMergeTree`
    Clickhouse,
    /// PostgreSQL: the tables that `connect` fills, and a view of the fields
    Postgres,
    /// Kafka Connect: the settings of a JDBC sink into PostgreSQL
    Connect,
    /// Avro: for who writes events on as Avro
    Avro,
    /// Java: a record that Jackson reads
    Java,
}

impl Format {
    /// The formats that are served and kept for each webhook, beside JSON Schema.
    pub const OF_WEBHOOKS: [Format; 8] = [
        Format::Flink,
        Format::Spark,
        Format::Ksqldb,
        Format::Clickhouse,
        Format::Postgres,
        Format::Connect,
        Format::Avro,
        Format::Java,
    ];

    /// How a file's name ends.
    pub fn extension(self) -> &'static str {
        match self {
            Format::JsonSchema => "json",
            Format::Asyncapi => "asyncapi.json",
            Format::Flink => "flink.sql",
            Format::Spark => "spark.java",
            Format::Ksqldb => "ksqldb.sql",
            Format::Clickhouse => "clickhouse.sql",
            Format::Postgres => "postgres.sql",
            Format::Connect => "connect.properties",
            Format::Avro => "avsc",
            Format::Java => "java",
        }
    }
}

/// What readers of the configured webhooks' topics need, one webhook after another.
pub fn documents(config: &Config, format: Format) -> String {
    if format == Format::Asyncapi {
        return pretty(&of_topics(config));
    }
    let parts = config.webhook.iter().map(|webhook| part(config, webhook, format));
    imports(format).to_owned() + &parts.collect::<Vec<_>>().join("\n")
}

/// The same for one webhook.
pub fn document(config: &Config, webhook: &WebhookSettings, format: Format) -> String {
    imports(format).to_owned() + &part(config, webhook, format)
}

/// What a file begins with, once.
fn imports(format: Format) -> &'static str {
    match format {
        Format::Spark => spark::IMPORTS,
        Format::Java => java::IMPORTS,
        _ => "",
    }
}

fn part(config: &Config, webhook: &WebhookSettings, format: Format) -> String {
    let table = Table::of(webhook, &config.kafka.brokers);
    match format {
        Format::JsonSchema => pretty(&of_events(webhook)),
        Format::Asyncapi => {
            let config = Config { webhook: vec![webhook.clone()], ..config.clone() };
            pretty(&of_topics(&config))
        }
        Format::Flink => flink::tables(&table),
        Format::Spark => spark::class(&table),
        Format::Ksqldb => ksqldb::streams(&table),
        Format::Clickhouse => clickhouse::tables(&table),
        Format::Postgres => postgres::tables(&table),
        Format::Connect => connect::sinks(&table),
        Format::Avro => pretty(&avro::schema(&table)),
        Format::Java => java::record(&table),
    }
}

fn pretty(document: &Value) -> String {
    format!("{document:#}\n")
}
