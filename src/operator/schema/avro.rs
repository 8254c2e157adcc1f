//! Avro: the schema of an event, for who writes events on as Avro. The topic itself has JSON.

use serde_json::{Value, json};

use super::columns::{Kind, Table, member_name};

pub fn schema(table: &Table) -> Value {
    let key =
        json!({ "name": member_name(&table.key), "type": "string", "doc": "the record's key" });
    let columns = table.columns.iter().map(|column| {
        let kind = match column.kind {
            Kind::Text => "string",
            Kind::Number => "double",
            Kind::Boolean => "boolean",
        };
        json!({
            "name": member_name(&column.name),
            "type": ["null", kind],
            "default": null,
            "doc": column.description,
        })
    });
    let time = json!({ "type": "long", "logicalType": "timestamp-millis" });
    let more = [
        json!({ "name": "ce_id", "type": "string", "doc": "the same for every record of one event" }),
        json!({ "name": "event_time", "type": time, "doc": "the record's timestamp" }),
    ];
    let fields: Vec<Value> = [key].into_iter().chain(columns).chain(more).collect();
    json!({
        "type": "record",
        "name": table.class,
        "namespace": "hookbridge",
        "doc": format!("An event of the webhook {}.", table.webhook.name),
        "fields": fields,
    })
}
