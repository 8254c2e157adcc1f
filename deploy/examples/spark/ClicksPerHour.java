// Counts the clicks of each campaign and hour in Spark's structured streaming, with the campaign's name.
// EmailMarketingClick is what `hookbridge schema --format spark` prints.
//
//   ./run BROKERS CAMPAIGNS COUNTS CHECKPOINTS
//
// Each count comes as a record of its own whenever it changes; the last one of a key is the one that holds. Key:
// campaign and begin of the hour, `12345@2026-11-24T12:00:00Z`. Value: name and count as JSON.

import static org.apache.spark.sql.functions.col;
import static org.apache.spark.sql.functions.concat_ws;
import static org.apache.spark.sql.functions.date_format;
import static org.apache.spark.sql.functions.struct;
import static org.apache.spark.sql.functions.to_json;
import static org.apache.spark.sql.functions.window;

import org.apache.spark.api.java.function.VoidFunction2;
import org.apache.spark.sql.Dataset;
import org.apache.spark.sql.Row;
import org.apache.spark.sql.SparkSession;

public class ClicksPerHour {
    public static void main(String[] arguments) throws Exception {
        String brokers = arguments[0], campaigns = arguments[1], counts = arguments[2];
        SparkSession spark = SparkSession.builder()
            .master("local[2]")
            .appName("clicks-per-hour")
            .config("spark.sql.session.timeZone", "UTC")
            .config("spark.sql.shuffle.partitions", "2")
            .config("spark.ui.enabled", "false")
            .getOrCreate();
        VoidFunction2<Dataset<Row>, Long> write = (hours, batch) -> hours
            .join(names(spark, brokers, campaigns), "campid")
            .select(
                concat_ws("@", col("campid"), date_format(col("hour"), "yyyy-MM-dd'T'HH:mm:ss'Z'")).as("key"),
                to_json(struct(col("campaign"), col("clicks"))).as("value"))
            .write().format("kafka")
            .option("kafka.bootstrap.servers", brokers)
            .option("topic", counts)
            .save();
        EmailMarketingClick.read(spark)
            // Longer than an event's own time may be old for hookbridge (timestamp_max_age_s): so long are ids
            // remembered and hours kept.
            .withWatermark("event_time", "8 days")
            .dropDuplicatesWithinWatermark(new String[] {"ce_id"})
            .groupBy(col("campid"), window(col("event_time"), "1 hour").getField("start").as("hour"))
            .count().withColumnRenamed("count", "clicks")
            .writeStream()
            .outputMode("update")
            .option("checkpointLocation", arguments[3])
            .foreachBatch(write)
            .start()
            .awaitTermination();
    }

    /** The table of campaigns as it is now: of each key the last row. */
    static Dataset<Row> names(SparkSession spark, String brokers, String campaigns) {
        return spark.read().format("kafka")
            .option("kafka.bootstrap.servers", brokers)
            .option("subscribe", campaigns)
            .load()
            .selectExpr("CAST(key AS STRING) AS campid", "CAST(value AS STRING) AS campaign", "offset")
            .groupBy("campid").agg(org.apache.spark.sql.functions.max_by(col("campaign"), col("offset")).as("campaign"))
            .where("campaign IS NOT NULL");
    }
}
