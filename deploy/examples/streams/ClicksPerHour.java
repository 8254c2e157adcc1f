// Counts the clicks of each campaign and hour, with its name: clicks come from hookbridge, names from a
// table that any Java producer writes (Campaigns.java). Both topics must have as many partitions; then
// the rows of a campaign and its clicks are in the same one, because hookbridge partitions as Java does.
//
//   mvn -q dependency:copy-dependencies -DoutputDirectory=target/jars
//   java -cp "target/jars/*" ClicksPerHour.java localhost:9092 opptima.email-marketing.click campaigns counts
//
// Each count comes as a record of its own whenever it changes; the last one of a key is the one that
// holds. Key: campaign and begin of the hour, `12345@2026-11-24T12:00:00Z`. Value: name and count as JSON.

import java.nio.charset.StandardCharsets;
import java.time.Duration;
import java.time.Instant;
import java.util.Properties;
import java.util.concurrent.CountDownLatch;

import com.fasterxml.jackson.databind.ObjectMapper;
import com.fasterxml.jackson.databind.node.ObjectNode;

import org.apache.kafka.common.header.Header;
import org.apache.kafka.common.serialization.Serdes;
import org.apache.kafka.streams.KafkaStreams;
import org.apache.kafka.streams.KeyValue;
import org.apache.kafka.streams.StreamsBuilder;
import org.apache.kafka.streams.StreamsConfig;
import org.apache.kafka.streams.errors.StreamsUncaughtExceptionHandler.StreamThreadExceptionResponse;
import org.apache.kafka.streams.Topology;
import org.apache.kafka.streams.kstream.Consumed;
import org.apache.kafka.streams.kstream.Grouped;
import org.apache.kafka.streams.kstream.Joined;
import org.apache.kafka.streams.kstream.Materialized;
import org.apache.kafka.streams.kstream.Produced;
import org.apache.kafka.streams.kstream.TimeWindows;
import org.apache.kafka.streams.processor.api.FixedKeyProcessor;
import org.apache.kafka.streams.processor.api.FixedKeyProcessorContext;
import org.apache.kafka.streams.processor.api.FixedKeyRecord;
import org.apache.kafka.streams.state.StoreBuilder;
import org.apache.kafka.streams.state.Stores;
import org.apache.kafka.streams.state.WindowStore;

public class ClicksPerHour {
    /** As old as an event's own time may be for hookbridge (`timestamp_max_age_s`). */
    static final Duration LATEST = Duration.ofDays(7);

    static final String SEEN = "seen";

    public static void main(String[] arguments) throws InterruptedException {
        String brokers = arguments[0];
        Topology topology = topology(arguments[1], arguments[2], arguments[3]);
        Properties settings = new Properties();
        settings.put(StreamsConfig.APPLICATION_ID_CONFIG, "clicks-per-hour-" + arguments[1]);
        settings.put(StreamsConfig.BOOTSTRAP_SERVERS_CONFIG, brokers);
        // What is counted is counted once, whatever dies meanwhile. What hookbridge sends twice has the
        // same ce_id, and is dropped below.
        settings.put(StreamsConfig.PROCESSING_GUARANTEE_CONFIG, StreamsConfig.EXACTLY_ONCE_V2);
        // A campaign's row is read before its clicks, where both are there.
        settings.put(StreamsConfig.MAX_TASK_IDLE_MS_CONFIG, 1_000);
        settings.put(StreamsConfig.COMMIT_INTERVAL_MS_CONFIG, 200);
        settings.put(StreamsConfig.REPLICATION_FACTOR_CONFIG, -1);
        KafkaStreams streams = new KafkaStreams(topology, settings);
        CountDownLatch ended = new CountDownLatch(1);
        Runtime.getRuntime().addShutdownHook(new Thread(() -> {
            streams.close(Duration.ofSeconds(10));
            ended.countDown();
        }));
        // Ends the program: whoever runs it starts it again.
        streams.setUncaughtExceptionHandler(error -> {
            error.printStackTrace();
            ended.countDown();
            return StreamThreadExceptionResponse.SHUTDOWN_CLIENT;
        });
        streams.start();
        ended.await();
        System.exit(1);
    }

    static Topology topology(String clicks, String campaigns, String counts) {
        StreamsBuilder builder = new StreamsBuilder();
        var text = Serdes.String();
        StoreBuilder<WindowStore<String, Long>> seen = Stores.windowStoreBuilder(
            Stores.inMemoryWindowStore(SEEN, LATEST.multipliedBy(2), LATEST, false),
            text, Serdes.Long());
        builder.addStateStore(seen);
        var names = builder.table(campaigns, Consumed.with(text, text), Materialized.as(
            Stores.inMemoryKeyValueStore("campaigns")));
        builder.stream(clicks, Consumed.with(text, text))
            .processValues(OnlyOnce::new, SEEN)
            // The time of a record is that of the click, so hours are those of the clicks.
            .join(names, (click, name) -> name, Joined.with(text, text, text))
            .groupByKey(Grouped.with(text, text))
            .windowedBy(TimeWindows.ofSizeAndGrace(Duration.ofHours(1), LATEST))
            .aggregate(
                () -> "",
                (campaign, name, count) -> plusOne(name, count),
                Materialized.<String, String>as(Stores.inMemoryWindowStore(
                    "hours", LATEST.multipliedBy(2), Duration.ofHours(1), false))
                    .withKeySerde(text).withValueSerde(text))
            .toStream()
            .map((hour, count) -> KeyValue.pair(hour.key() + "@" + hour.window().startTime(), count))
            .to(counts, Produced.with(text, text));
        return builder.build();
    }

    static final ObjectMapper JSON = new ObjectMapper();

    static String plusOne(String name, String count) {
        try {
            long clicks = count.isEmpty() ? 0 : JSON.readTree(count).get("clicks").asLong();
            ObjectNode next = JSON.createObjectNode().put("campaign", name).put("clicks", clicks + 1);
            return JSON.writeValueAsString(next);
        } catch (java.io.IOException error) {
            throw new java.io.UncheckedIOException(error);
        }
    }

    /** Passes the first record with each ce_id. */
    static class OnlyOnce implements FixedKeyProcessor<String, String, String> {
        private FixedKeyProcessorContext<String, String> context;
        private WindowStore<String, Long> seen;

        @Override
        public void init(FixedKeyProcessorContext<String, String> context) {
            this.context = context;
            this.seen = context.getStateStore(SEEN);
        }

        @Override
        public void process(FixedKeyRecord<String, String> click) {
            Header header = click.headers().lastHeader("ce_id");
            if (header == null) {
                // Not from hookbridge.
                return;
            }
            String id = new String(header.value(), StandardCharsets.UTF_8);
            Instant time = Instant.ofEpochMilli(click.timestamp());
            try (var before = seen.fetch(id, time.minus(LATEST), time.plus(LATEST))) {
                if (before.hasNext()) {
                    return;
                }
            }
            seen.put(id, 1L, click.timestamp());
            context.forward(click);
        }
    }
}
