//! ClickHouse: a table of the events, and the Kafka engine that fills it.

use super::columns::{Column, Kind, Table, lines, sql_text};

pub fn tables(table: &Table) -> String {
    let (name, webhook) = (&table.name, &table.webhook.name);
    let quoted = |name: &str| format!("`{}`", name.replace('\\', "\\\\").replace('`', "\\`"));
    let kind = |column: &Column| match column.kind {
        Kind::Text => "Nullable(String)",
        Kind::Number => "Nullable(Float64)",
        Kind::Boolean => "Nullable(Bool)",
    };
    let first = [
        ("`ce_id` UUID".to_owned(), "the same for every record of one event".to_owned()),
        (format!("{} String", quoted(&table.key)), "the record's key".to_owned()),
        ("`event_time` DateTime64(3, 'UTC')".to_owned(), String::new()),
    ];
    let event = ("`body` String".to_owned(), "as the sender wrote it".to_owned());
    let columns = table.columns.iter().map(|column| {
        (format!("{} {}", quoted(&column.name), kind(column)), column.description.clone())
    });
    let events = lines(first.into_iter().chain(columns).chain([event]));
    let fields = table.columns.iter().map(|column| {
        let path = sql_text(&column.name.replace('\\', "\\\\"));
        let field = format!("JSONExtract(`body`, {path}, '{}')", kind(column));
        (format!("{field} AS {}", quoted(&column.name)), String::new())
    });
    let header =
        "toUUIDOrZero(`_headers.value`[indexOf(`_headers.name`, 'ce_id')]) AS `ce_id`".to_owned();
    let selected = [
        (header, String::new()),
        (format!("`_key` AS {}", quoted(&table.key)), String::new()),
        ("assumeNotNull(`_timestamp_ms`) AS `event_time`".to_owned(), String::new()),
    ];
    let selected =
        lines(selected.into_iter().chain(fields).chain([("`body`".to_owned(), String::new())]));
    format!(
        "-- The events of the webhook {webhook} in ClickHouse: each once after a merge, and with FINAL at once.\n\
         CREATE TABLE {name} (\n{events}) ENGINE = ReplacingMergeTree\nORDER BY `ce_id`;\n\n\
         -- The records, which the view below takes from the topic to that table.\n\
         CREATE TABLE {name}_queue (\n  `body` String\n) ENGINE = Kafka\nSETTINGS\n  \
         kafka_broker_list = {},\n  kafka_topic_list = {},\n  kafka_group_name = {},\n  \
         kafka_format = 'RawBLOB';\n\n\
         CREATE MATERIALIZED VIEW {name}_reader TO {name} AS SELECT\n{selected}FROM {name}_queue;\n",
        sql_text(table.brokers),
        sql_text(table.topic),
        sql_text(&format!("clickhouse-{webhook}")),
    )
}
