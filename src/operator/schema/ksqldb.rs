//! ksqlDB: a stream of the records, and a table of each event once.

use super::columns::{Table, lines, sql_text};

/// Every field is text: ksqlDB skips a record with a field that is not of its type.
pub fn streams(table: &Table) -> String {
    let (name, webhook) = (&table.name, &table.webhook.name);
    let quoted = |name: &str| format!("`{}`", name.replace('`', "``"));
    let key = (format!("{} STRING KEY", quoted(&table.key)), "the record's key".to_owned());
    let columns = table
        .columns
        .iter()
        .map(|column| (format!("{} STRING", quoted(&column.name)), column.description.clone()));
    let id = ("`ce_id` BYTES HEADER('ce_id')".to_owned(), "the same for every record of one event");
    let id = (id.0, id.1.to_owned());
    let records = lines([key].into_iter().chain(columns).chain([id]));
    let names = [&table.key].into_iter().chain(table.columns.iter().map(|column| &column.name));
    let names =
        names.map(|name| (format!("EARLIEST_BY_OFFSET({0}) AS {0}", quoted(name)), String::new()));
    let once = [
        ("FROM_BYTES(`ce_id`, 'utf8') AS `ce_id`".to_owned(), String::new()),
        ("EARLIEST_BY_OFFSET(ROWTIME) AS `event_time`".to_owned(), "in milliseconds".to_owned()),
    ];
    let once = lines(once.into_iter().chain(names));
    format!(
        "-- The events of the webhook {webhook} in ksqlDB. Cast fields that are numbers: a record with a field\n\
         -- that is not of its type would be skipped. ROWTIME is the event's time.\n\
         CREATE STREAM {name} (\n{records}) WITH (\n  KAFKA_TOPIC = {},\n  KEY_FORMAT = 'KAFKA',\n  \
         VALUE_FORMAT = 'JSON'\n);\n\n\
         -- Each event once: the first record with its ce_id.\n\
         CREATE TABLE {name}_once AS SELECT\n{once}FROM {name}\n\
         GROUP BY FROM_BYTES(`ce_id`, 'utf8')\nEMIT CHANGES;\n",
        sql_text(table.topic),
    )
}
