import static org.apache.spark.sql.functions.col;
import static org.apache.spark.sql.functions.expr;
import static org.apache.spark.sql.functions.from_json;

import org.apache.spark.sql.Dataset;
import org.apache.spark.sql.Row;
import org.apache.spark.sql.SparkSession;
import org.apache.spark.sql.types.StructType;

/** The events of the webhook email-marketing-click in Spark. A field that is missing or not of its type is null. */
final class EmailMarketingClick {
    /** The fields of an event, each as text: senders write numbers as text, too. */
    static final StructType FIELDS = new StructType()
        .add("browser", "string", true, "the browser")
        .add("campaignName", "string", true, "the campaign's name")
        .add("cityName", "string", true, "the city of the click, which may be imprecise")
        .add("contactId", "string", true, "the contact")
        .add("countryName", "string", true, "its country")
        .add("destination", "string", true, "the address that was clicked")
        .add("device_type", "string", true, "the kind of device")
        .add("email", "string", true, "the recipient's address")
        .add("event", "string", true, "where it is there, always this, in any case")
        .add("latitude", "string", true, "its latitude")
        .add("longitude", "string", true, "its longitude")
        .add("regionName", "string", true, "its region, state or department")
        .add("relid", "string", true, "the customer's account")
        .add("subject", "string", true, "the subject line")
        .add("timestamp", "string", true, "the event's time, as the sender writes it")
        .add("type", "string", true, "where it is there, always this, in any case");

    /** The records, as a stream. */
    static Dataset<Row> read(SparkSession spark) {
        return spark.readStream().format("kafka")
            .option("kafka.bootstrap.servers", "localhost:9092")
            .option("subscribe", "opptima.email-marketing.click")
            .option("startingOffsets", "earliest")
            .option("includeHeaders", "true")
            .load()
            .withColumn("fields", from_json(col("value").cast("string"), FIELDS))
            .select(
                col("key").cast("string").as("campid"),
                expr("fields.`browser`").as("browser"),
                expr("fields.`campaignName`").as("campaignName"),
                expr("fields.`cityName`").as("cityName"),
                expr("fields.`contactId`").as("contactId"),
                expr("fields.`countryName`").as("countryName"),
                expr("fields.`destination`").as("destination"),
                expr("fields.`device_type`").as("device_type"),
                expr("fields.`email`").as("email"),
                expr("fields.`event`").as("event"),
                expr("try_cast(fields.`latitude` AS DOUBLE)").as("latitude"),
                expr("try_cast(fields.`longitude` AS DOUBLE)").as("longitude"),
                expr("fields.`regionName`").as("regionName"),
                expr("fields.`relid`").as("relid"),
                expr("fields.`subject`").as("subject"),
                expr("fields.`timestamp`").as("timestamp"),
                expr("fields.`type`").as("type"),
                expr("CAST(filter(headers, one -> one.key = 'ce_id')[0].value AS STRING)").as("ce_id"),
                col("timestamp").as("event_time"));
    }
}

/** The events of the webhook email-marketing-sent in Spark. A field that is missing or not of its type is null. */
final class EmailMarketingSent {
    /** The fields of an event, each as text: senders write numbers as text, too. */
    static final StructType FIELDS = new StructType()
        .add("contactid", "string", true, "the contact")
        .add("event", "string", true, "where it is there, always this, in any case")
        .add("origin", "string", true, "always Web")
        .add("relid", "string", true, "the customer's account")
        .add("response", "string", true, "the provider's own answer")
        .add("status", "string", true, "the result, in Spanish prose")
        .add("timestamp", "string", true, "the event's time, as the sender writes it")
        .add("to", "string", true, "the recipient's address")
        .add("type", "string", true, "where it is there, always this, in any case");

    /** The records, as a stream. */
    static Dataset<Row> read(SparkSession spark) {
        return spark.readStream().format("kafka")
            .option("kafka.bootstrap.servers", "localhost:9092")
            .option("subscribe", "opptima.email-marketing.sent")
            .option("startingOffsets", "earliest")
            .option("includeHeaders", "true")
            .load()
            .withColumn("fields", from_json(col("value").cast("string"), FIELDS))
            .select(
                col("key").cast("string").as("campid"),
                expr("fields.`contactid`").as("contactid"),
                expr("fields.`event`").as("event"),
                expr("fields.`origin`").as("origin"),
                expr("fields.`relid`").as("relid"),
                expr("fields.`response`").as("response"),
                expr("fields.`status`").as("status"),
                expr("fields.`timestamp`").as("timestamp"),
                expr("fields.`to`").as("to"),
                expr("fields.`type`").as("type"),
                expr("CAST(filter(headers, one -> one.key = 'ce_id')[0].value AS STRING)").as("ce_id"),
                col("timestamp").as("event_time"));
    }
}

/** The events of the webhook email-marketing-bounce in Spark. A field that is missing or not of its type is null. */
final class EmailMarketingBounce {
    /** The fields of an event, each as text: senders write numbers as text, too. */
    static final StructType FIELDS = new StructType()
        .add("contactid", "string", true, "the contact")
        .add("event", "string", true, "where it is there, always this, in any case")
        .add("origin", "string", true, "always Web")
        .add("relid", "string", true, "the customer's account")
        .add("response", "string", true, "the provider's own answer")
        .add("status", "string", true, "the result, in Spanish prose")
        .add("timestamp", "string", true, "the event's time, as the sender writes it")
        .add("to", "string", true, "the recipient's address")
        .add("type", "string", true, "where it is there, always this, in any case");

    /** The records, as a stream. */
    static Dataset<Row> read(SparkSession spark) {
        return spark.readStream().format("kafka")
            .option("kafka.bootstrap.servers", "localhost:9092")
            .option("subscribe", "opptima.email-marketing.bounce")
            .option("startingOffsets", "earliest")
            .option("includeHeaders", "true")
            .load()
            .withColumn("fields", from_json(col("value").cast("string"), FIELDS))
            .select(
                col("key").cast("string").as("campid"),
                expr("fields.`contactid`").as("contactid"),
                expr("fields.`event`").as("event"),
                expr("fields.`origin`").as("origin"),
                expr("fields.`relid`").as("relid"),
                expr("fields.`response`").as("response"),
                expr("fields.`status`").as("status"),
                expr("fields.`timestamp`").as("timestamp"),
                expr("fields.`to`").as("to"),
                expr("fields.`type`").as("type"),
                expr("CAST(filter(headers, one -> one.key = 'ce_id')[0].value AS STRING)").as("ce_id"),
                col("timestamp").as("event_time"));
    }
}

/** The events of the webhook smtp-bounce in Spark. A field that is missing or not of its type is null. */
final class SmtpBounce {
    /** The fields of an event, each as text: senders write numbers as text, too. */
    static final StructType FIELDS = new StructType()
        .add("certifiedEmail", "string", true, "true for certified mail, else absent")
        .add("custom_headers", "string", true, "the sender's own headers")
        .add("event", "string", true, "where it is there, always this, in any case")
        .add("ip", "string", true, "whence it was submitted; not for certified mail")
        .add("origin", "string", true, "SMTP or API; not for certified mail")
        .add("relid", "string", true, "the customer's account")
        .add("response", "string", true, "the provider's own answer")
        .add("sender", "string", true, "the sender's address; not for certified mail")
        .add("status", "string", true, "the result, in Spanish prose")
        .add("subject", "string", true, "the subject line")
        .add("timestamp", "string", true, "the event's time, as the sender writes it")
        .add("to", "string", true, "the recipient's address")
        .add("type", "string", true, "where it is there, always this, in any case");

    /** The records, as a stream. */
    static Dataset<Row> read(SparkSession spark) {
        return spark.readStream().format("kafka")
            .option("kafka.bootstrap.servers", "localhost:9092")
            .option("subscribe", "opptima.smtp.bounce")
            .option("startingOffsets", "earliest")
            .option("includeHeaders", "true")
            .load()
            .withColumn("fields", from_json(col("value").cast("string"), FIELDS))
            .select(
                col("key").cast("string").as("msgid"),
                expr("try_cast(fields.`certifiedEmail` AS BOOLEAN)").as("certifiedEmail"),
                expr("fields.`custom_headers`").as("custom_headers"),
                expr("fields.`event`").as("event"),
                expr("fields.`ip`").as("ip"),
                expr("fields.`origin`").as("origin"),
                expr("fields.`relid`").as("relid"),
                expr("fields.`response`").as("response"),
                expr("fields.`sender`").as("sender"),
                expr("fields.`status`").as("status"),
                expr("fields.`subject`").as("subject"),
                expr("fields.`timestamp`").as("timestamp"),
                expr("fields.`to`").as("to"),
                expr("fields.`type`").as("type"),
                expr("CAST(filter(headers, one -> one.key = 'ce_id')[0].value AS STRING)").as("ce_id"),
                col("timestamp").as("event_time"));
    }
}

/** The events of the webhook smtp-delivered in Spark. A field that is missing or not of its type is null. */
final class SmtpDelivered {
    /** The fields of an event, each as text: senders write numbers as text, too. */
    static final StructType FIELDS = new StructType()
        .add("certifiedEmail", "string", true, "true for certified mail, else absent")
        .add("event", "string", true, "where it is there, always this, in any case")
        .add("ip", "string", true, "whence it was submitted")
        .add("origin", "string", true, "SMTP or API; not for certified mail")
        .add("relid", "string", true, "the customer's account")
        .add("response", "string", true, "the provider's own answer; for certified mail the steps")
        .add("status", "string", true, "the result, in Spanish prose")
        .add("subject", "string", true, "the subject line")
        .add("timestamp", "string", true, "the event's time, as the sender writes it")
        .add("to", "string", true, "the recipient's address")
        .add("type", "string", true, "where it is there, always this, in any case");

    /** The records, as a stream. */
    static Dataset<Row> read(SparkSession spark) {
        return spark.readStream().format("kafka")
            .option("kafka.bootstrap.servers", "localhost:9092")
            .option("subscribe", "opptima.smtp.delivered")
            .option("startingOffsets", "earliest")
            .option("includeHeaders", "true")
            .load()
            .withColumn("fields", from_json(col("value").cast("string"), FIELDS))
            .select(
                col("key").cast("string").as("msgid"),
                expr("try_cast(fields.`certifiedEmail` AS BOOLEAN)").as("certifiedEmail"),
                expr("fields.`event`").as("event"),
                expr("fields.`ip`").as("ip"),
                expr("fields.`origin`").as("origin"),
                expr("fields.`relid`").as("relid"),
                expr("fields.`response`").as("response"),
                expr("fields.`status`").as("status"),
                expr("fields.`subject`").as("subject"),
                expr("fields.`timestamp`").as("timestamp"),
                expr("fields.`to`").as("to"),
                expr("fields.`type`").as("type"),
                expr("CAST(filter(headers, one -> one.key = 'ce_id')[0].value AS STRING)").as("ce_id"),
                col("timestamp").as("event_time"));
    }
}
