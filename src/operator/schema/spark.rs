//! Spark: the `StructType`, the options and the columns, in Java; in Scala they are written the same.

use super::columns::{Kind, Table, java_text};

pub const IMPORTS: &str = "\
import static org.apache.spark.sql.functions.col;
import static org.apache.spark.sql.functions.expr;
import static org.apache.spark.sql.functions.from_json;

import org.apache.spark.sql.Dataset;
import org.apache.spark.sql.Row;
import org.apache.spark.sql.SparkSession;
import org.apache.spark.sql.types.StructType;

";

/// Every field is read as text, and numbers are tried: Spark reads no number that is written as text.
pub fn class(table: &Table) -> String {
    let (class, webhook) = (&table.class, &table.webhook.name);
    let columns = || table.columns.iter();
    let fields = columns().map(|column| {
        let name = java_text(&column.name);
        format!("\n        .add({name}, \"string\", true, {})", java_text(&column.description))
    });
    let fields = fields.collect::<String>();
    let selected = columns().map(|column| {
        let path = format!("fields.`{}`", column.name.replace('`', "``"));
        let path = match column.kind {
            Kind::Text => path,
            Kind::Number => format!("try_cast({path} AS DOUBLE)"),
            Kind::Boolean => format!("try_cast({path} AS BOOLEAN)"),
        };
        format!("expr({}).as({}),\n                ", java_text(&path), java_text(&column.name))
    });
    let selected = selected.collect::<String>();
    let (key, brokers, topic) =
        (java_text(&table.key), java_text(table.brokers), java_text(table.topic));
    format!(
        r#"/** The events of the webhook {webhook} in Spark. A field that is missing or not of its type is null. */
final class {class} {{
    /** The fields of an event, each as text: senders write numbers as text, too. */
    static final StructType FIELDS = new StructType(){fields};

    /** The records, as a stream. */
    static Dataset<Row> read(SparkSession spark) {{
        return spark.readStream().format("kafka")
            .option("kafka.bootstrap.servers", {brokers})
            .option("subscribe", {topic})
            .option("startingOffsets", "earliest")
            .option("includeHeaders", "true")
            .load()
            .withColumn("fields", from_json(col("value").cast("string"), FIELDS))
            .select(
                col("key").cast("string").as({key}),
                {selected}expr("CAST(filter(headers, one -> one.key = 'ce_id')[0].value AS STRING)").as("ce_id"),
                col("timestamp").as("event_time"));
    }}
}}
"#
    )
}
