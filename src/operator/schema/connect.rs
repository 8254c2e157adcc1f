//! Kafka Connect: the settings of a JDBC sink into PostgreSQL, one for events and one for dead letters.

use super::columns::Table;

/// What both sinks have in common. The key, some headers and the timestamp become fields beside the value.
const COMMON: &str = "\
connector.class=io.debezium.connector.jdbc.JdbcSinkConnector
tasks.max=1
connection.url=jdbc:postgresql://localhost:5432/clicks
connection.username=clicks
connection.password=clicks
insert.mode=upsert
primary.key.mode=record_value
primary.key.fields=ce_id
schema.evolution=none
key.converter=org.apache.kafka.connect.storage.StringConverter
header.converter=org.apache.kafka.connect.storage.StringConverter
";

/// Two files in one, each from its name on: Kafka Connect takes them one by one.
pub fn sinks(table: &Table) -> String {
    let Table { name, topic, letters, key, .. } = table;
    let webhook = &table.webhook.name;
    let events = format!(
        "# The events of the webhook {webhook} into PostgreSQL, by Debezium's JDBC sink. The tables are those of\n\
         # `hookbridge schema --format postgres`. Set connection.*, and keep the password out of the file:\n\
         # https://kafka.apache.org/documentation/#connect_configproviders\n\
         name={webhook}\ntopics={topic}\ncollection.name.format={name}\n{COMMON}\
         value.converter=org.apache.kafka.connect.storage.StringConverter\n\
         transforms=value,time,key,keyHeader,headers\n\
         transforms.value.type=org.apache.kafka.connect.transforms.HoistField$Value\n\
         transforms.value.field=body\n\
         transforms.time.type=org.apache.kafka.connect.transforms.InsertField$Value\n\
         transforms.time.timestamp.field=event_time\n\
         transforms.key.type=org.apache.kafka.connect.transforms.HoistField$Key\n\
         transforms.key.field={key}\n\
         transforms.keyHeader.type=org.apache.kafka.connect.transforms.HeaderFrom$Key\n\
         transforms.keyHeader.fields={key}\n\
         transforms.keyHeader.headers={key}\n\
         transforms.keyHeader.operation=copy\n\
         transforms.headers.type=io.debezium.transforms.HeaderToValue\n\
         transforms.headers.headers=ce_id,{key}\n\
         transforms.headers.fields=ce_id,{key}\n\
         transforms.headers.operation=copy\n"
    );
    let (from, to) = [
        ("ce_id", "ce_id"),
        ("hookbridge-reason", "reason"),
        ("hookbridge-detail", "detail"),
        ("hookbridge-webhook", "webhook"),
        ("hookbridge-caller", "sender"),
    ]
    .into_iter()
    .unzip::<_, _, Vec<_>, Vec<_>>();
    let (from, to) = (from.join(","), to.join(","));
    format!(
        "{events}\n\
         # What came for it and is no such event. In a file of its own:\n\
         name={webhook}-dead-letter\ntopics={letters}\ncollection.name.format={name}_dead_letter\n{COMMON}\
         value.converter=org.apache.kafka.connect.converters.ByteArrayConverter\n\
         transforms=value,time,headers\n\
         transforms.value.type=org.apache.kafka.connect.transforms.HoistField$Value\n\
         transforms.value.field=body\n\
         transforms.time.type=org.apache.kafka.connect.transforms.InsertField$Value\n\
         transforms.time.timestamp.field=received\n\
         transforms.headers.type=io.debezium.transforms.HeaderToValue\n\
         transforms.headers.headers={from}\n\
         transforms.headers.fields={to}\n\
         transforms.headers.operation=copy\n"
    )
}
