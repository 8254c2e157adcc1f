//! Flink SQL: the records, each event once, and the dead letters.

use super::columns::{Kind, Table, lines, sql_text};

pub fn tables(table: &Table) -> String {
    let (name, webhook) = (&table.name, &table.webhook.name);
    let columns = table.columns.iter().map(|column| {
        let kind = match column.kind {
            Kind::Text => "STRING",
            Kind::Number => "DOUBLE",
            Kind::Boolean => "BOOLEAN",
        };
        (format!("{} {kind}", quoted(&column.name)), column.description.clone())
    });
    let text = |column: &str, description: &str| (column.to_owned(), description.to_owned());
    let key = (format!("{} STRING", quoted(&table.key)), "the record's key".to_owned());
    let more = [
        text("`headers` MAP<STRING, BYTES> METADATA VIRTUAL", ""),
        text(
            "`ce_id` AS CAST(`headers`['ce_id'] AS STRING)",
            "the same for every record of one event",
        ),
        text("`event_time` TIMESTAMP_LTZ(3) METADATA FROM 'timestamp' VIRTUAL", ""),
        text("`read_at` AS PROCTIME()", ""),
        text("WATERMARK FOR `event_time` AS `event_time` - INTERVAL '1' HOUR", ""),
    ];
    let records = lines([key].into_iter().chain(columns).chain(more));
    let names = table.columns.iter().map(|column| quoted(&column.name));
    let names = [quoted(&table.key)].into_iter().chain(names).collect::<Vec<_>>().join(", ");
    let header = |column: &str, header: &str| {
        (format!("`{column}` AS CAST(`headers`['{header}'] AS STRING)"), String::new())
    };
    let letters = lines([
        text("`body` BYTES", "as it came"),
        text("`headers` MAP<STRING, BYTES> METADATA VIRTUAL", ""),
        text("`received` TIMESTAMP_LTZ(3) METADATA FROM 'timestamp' VIRTUAL", ""),
        header("reason", "hookbridge-reason"),
        header("detail", "hookbridge-detail"),
        header("webhook", "hookbridge-webhook"),
        header("sender", "hookbridge-caller"),
    ]);
    let source = |topic: &str| {
        format!(
            "  'connector' = 'kafka',\n  'topic' = {},\n  'properties.bootstrap.servers' = {},\n  \
             'properties.group.id' = {},\n  'scan.startup.mode' = 'earliest-offset',\n",
            sql_text(topic),
            sql_text(table.brokers),
            sql_text(&format!("flink-{webhook}")),
        )
    };
    format!(
        "-- The events of the webhook {webhook} in Flink SQL. A field that is missing or not of its type is NULL.\n\
         CREATE TABLE `{name}` (\n{records}) WITH (\n{}  'key.format' = 'raw',\n  'key.fields' = {},\n  \
         'value.format' = 'json',\n  'value.json.ignore-parse-errors' = 'true',\n  \
         'value.fields-include' = 'EXCEPT_KEY'\n);\n\n\
         -- Each event once: the first record with its ce_id. Ids are remembered for 'table.exec.state.ttl'.\n\
         CREATE VIEW `{name}_once` AS\n\
         SELECT {names}, `ce_id`, `event_time`\nFROM (\n  \
         SELECT *, ROW_NUMBER() OVER (PARTITION BY `ce_id` ORDER BY `read_at`) AS `nth` FROM `{name}`\n)\n\
         WHERE `nth` = 1;\n\n\
         -- What came for it and is no such event.\n\
         CREATE TABLE `{name}_dead_letter` (\n{letters}) WITH (\n{}  'format' = 'raw'\n);\n",
        source(table.topic),
        sql_text(&table.key),
        source(&table.letters),
    )
}

/// A name in Flink SQL.
fn quoted(name: &str) -> String {
    format!("`{}`", name.replace('`', "``"))
}
