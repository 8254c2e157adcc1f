//! PostgreSQL: the tables that `connect` fills, and a view of the fields.

use super::columns::{Kind, Table, lines, sql_text};

/// The helpers of the views: each text that cannot be read is NULL, and its row is there all the same.
const FUNCTIONS: &str = "\
CREATE OR REPLACE FUNCTION event_json(body text) RETURNS jsonb
LANGUAGE plpgsql IMMUTABLE STRICT PARALLEL SAFE AS $$
BEGIN
  RETURN ltrim(body, E'\\uFEFF')::jsonb;
EXCEPTION WHEN OTHERS THEN
  RETURN NULL; -- jsonb has no \\u0000
END $$;

CREATE OR REPLACE FUNCTION event_number(field text) RETURNS double precision
LANGUAGE plpgsql IMMUTABLE STRICT PARALLEL SAFE AS $$
BEGIN
  RETURN field::double precision;
EXCEPTION WHEN OTHERS THEN
  RETURN NULL;
END $$;
";

pub fn tables(table: &Table) -> String {
    let (name, webhook) = (&table.name, &table.webhook.name);
    let quoted = |name: &str| format!("\"{}\"", name.replace('"', "\"\""));
    let plain = |column: &str, description: &str| (column.to_owned(), description.to_owned());
    let events = lines([
        plain("ce_id text PRIMARY KEY", "the same for every record of one event"),
        (format!("{} text NOT NULL", quoted(&table.key)), "the record's key".to_owned()),
        plain("event_time timestamptz NOT NULL", ""),
        plain("body text NOT NULL", "as the sender wrote it"),
    ]);
    let fields = table.columns.iter().map(|column| {
        let field = format!("json->>{}", sql_text(&column.name));
        let field = match column.kind {
            Kind::Text => field,
            Kind::Number => format!("event_number({field})"),
            Kind::Boolean => format!("lower({field}) = 'true'"),
        };
        (format!("{field} AS {}", quoted(&column.name)), column.description.clone())
    });
    let first = ["ce_id".to_owned(), quoted(&table.key), "event_time".to_owned()];
    let first = first.map(|column| (column, String::new()));
    let selected = lines(first.into_iter().chain(fields));
    let letters = lines([
        plain("ce_id text PRIMARY KEY", ""),
        plain("received timestamptz NOT NULL", ""),
        plain("reason text NOT NULL", "as in the header hookbridge-reason"),
        plain("detail text NOT NULL", "what is wrong with it"),
        plain("webhook text NOT NULL", "its webhook"),
        plain("sender text NOT NULL", "the name of the key that brought it"),
        plain("body bytea NOT NULL", "as it came"),
    ]);
    format!(
        "-- The events of the webhook {webhook} in PostgreSQL: each once, by its primary key. Kafka Connect fills\n\
         -- the tables (`hookbridge schema --format connect`).\n\
         CREATE TABLE {name} (\n{events});\nCREATE INDEX ON {name} (event_time);\n\n\
         -- What came for it and is no such event.\n\
         CREATE TABLE {name}_dead_letter (\n{letters});\n\n{FUNCTIONS}\n\
         -- The fields. One that is missing or not of its type is NULL.\n\
         CREATE VIEW {name}_fields AS SELECT\n{selected}\
         FROM (SELECT *, event_json(body) AS json FROM {name} OFFSET 0) AS events;\n",
    )
}
