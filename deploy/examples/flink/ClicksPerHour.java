// Counts the clicks of each campaign and hour in Flink's DataStream API, exactly once into a second topic: each
// click makes one record there, with its campaign's name and how many clicks its hour has by then.
//
//   ./run BROKERS CLICKS CAMPAIGNS COUNTS CHECKPOINTS
//
// Key: campaign and begin of the hour, `12345@2026-11-24T12:00:00Z`. Value: name and count as JSON. Readers need
// `isolation.level=read_committed`. A job that is started again goes on from the last checkpoint in its folder.

import java.io.File;
import java.nio.charset.StandardCharsets;
import java.time.Duration;
import java.time.Instant;
import java.time.temporal.ChronoUnit;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.Comparator;

import com.fasterxml.jackson.databind.ObjectMapper;

import org.apache.flink.api.common.eventtime.WatermarkStrategy;
import org.apache.flink.api.common.functions.OpenContext;
import org.apache.flink.api.common.state.ListState;
import org.apache.flink.api.common.state.ListStateDescriptor;
import org.apache.flink.api.common.state.MapState;
import org.apache.flink.api.common.state.MapStateDescriptor;
import org.apache.flink.api.common.state.StateTtlConfig;
import org.apache.flink.api.common.state.ValueState;
import org.apache.flink.api.common.state.ValueStateDescriptor;
import org.apache.flink.api.common.typeinfo.TypeInformation;
import org.apache.flink.configuration.Configuration;
import org.apache.flink.connector.base.DeliveryGuarantee;
import org.apache.flink.connector.kafka.sink.KafkaRecordSerializationSchema;
import org.apache.flink.connector.kafka.sink.KafkaSink;
import org.apache.flink.connector.kafka.source.KafkaSource;
import org.apache.flink.connector.kafka.source.enumerator.initializer.OffsetsInitializer;
import org.apache.flink.connector.kafka.source.reader.deserializer.KafkaRecordDeserializationSchema;
import org.apache.flink.streaming.api.environment.StreamExecutionEnvironment;
import org.apache.flink.streaming.api.functions.KeyedProcessFunction;
import org.apache.flink.streaming.api.functions.co.KeyedCoProcessFunction;
import org.apache.flink.util.Collector;
import org.apache.kafka.clients.consumer.ConsumerRecord;
import org.apache.kafka.clients.producer.ProducerRecord;

public class ClicksPerHour {
    /** Longer than an event's own time may be old for hookbridge (`timestamp_max_age_s`). */
    static final Duration MEMORY = Duration.ofDays(8);

    /** Of a click: its id, its campaign and the begin of its hour. Of a name: its campaign and the name. */
    public static class Click {
        public String id, campaign, hour;
    }

    public static class Name {
        public String campaign, name;
    }

    public static class Count {
        public String hour, json;
    }

    public static void main(String[] arguments) throws Exception {
        String brokers = arguments[0], counts = arguments[3];
        File checkpoints = new File(arguments[4]).getAbsoluteFile();
        Configuration settings = new Configuration();
        settings.setString("execution.checkpointing.interval", "1 s");
        settings.setString("execution.checkpointing.dir", checkpoints.toURI().toString());
        settings.setString("execution.checkpointing.externalized-checkpoint-retention", "RETAIN_ON_CANCELLATION");
        settings.setString("parallelism.default", "2");
        String last = lastCheckpoint(checkpoints);
        if (last != null) {
            settings.setString("execution.state-recovery.path", last);
        }
        var flink = StreamExecutionEnvironment.getExecutionEnvironment(settings);
        var clicks = flink.fromSource(source(brokers, arguments[1], new ReadClick()),
            WatermarkStrategy.noWatermarks(), "clicks").uid("clicks");
        var names = flink.fromSource(source(brokers, arguments[2], new ReadName()),
            WatermarkStrategy.noWatermarks(), "campaigns").uid("campaigns");
        clicks
            .keyBy(click -> click.id)
            .process(new OnlyOnce()).uid("once")
            .keyBy(click -> click.campaign)
            .connect(names.keyBy(name -> name.campaign))
            .process(new CountHours()).uid("hours")
            .sinkTo(KafkaSink.<Count>builder()
                .setBootstrapServers(brokers)
                .setDeliveryGuarantee(DeliveryGuarantee.EXACTLY_ONCE)
                .setTransactionalIdPrefix("clicks-per-hour-" + counts)
                // Less than the brokers' transaction.max.timeout.ms, more than an outage of the job.
                .setProperty("transaction.timeout.ms", "900000")
                .setRecordSerializer(new WriteCount(counts))
                .build()).uid("counts");
        flink.execute("clicks per hour");
    }

    static <T> KafkaSource<T> source(String brokers, String topic, KafkaRecordDeserializationSchema<T> read) {
        return KafkaSource.<T>builder()
            .setBootstrapServers(brokers)
            .setTopics(topic)
            .setGroupId("clicks-per-hour")
            .setStartingOffsets(OffsetsInitializer.earliest())
            .setDeserializer(read)
            .build();
    }

    /** The newest complete checkpoint, if there is one. */
    static String lastCheckpoint(File folder) {
        File[] jobs = folder.listFiles(File::isDirectory);
        return Arrays.stream(jobs == null ? new File[0] : jobs)
            .flatMap(job -> Arrays.stream(job.listFiles()))
            .map(checkpoint -> new File(checkpoint, "_metadata"))
            .filter(File::exists)
            .max(Comparator.comparingLong(File::lastModified))
            .map(found -> found.getParentFile().toURI().toString())
            .orElse(null);
    }

    static class ReadClick implements KafkaRecordDeserializationSchema<Click> {
        @Override
        public void deserialize(ConsumerRecord<byte[], byte[]> record, Collector<Click> out) {
            var header = record.headers().lastHeader("ce_id");
            if (header == null || record.key() == null) {
                // Not from hookbridge.
                return;
            }
            Click click = new Click();
            click.id = new String(header.value(), StandardCharsets.UTF_8);
            click.campaign = new String(record.key(), StandardCharsets.UTF_8);
            // The record's time is the click's.
            click.hour = Instant.ofEpochMilli(record.timestamp()).truncatedTo(ChronoUnit.HOURS).toString();
            out.collect(click);
        }

        @Override
        public TypeInformation<Click> getProducedType() {
            return TypeInformation.of(Click.class);
        }
    }

    static class ReadName implements KafkaRecordDeserializationSchema<Name> {
        @Override
        public void deserialize(ConsumerRecord<byte[], byte[]> record, Collector<Name> out) {
            if (record.value() != null) {
                Name name = new Name();
                name.campaign = new String(record.key(), StandardCharsets.UTF_8);
                name.name = new String(record.value(), StandardCharsets.UTF_8);
                out.collect(name);
            }
        }

        @Override
        public TypeInformation<Name> getProducedType() {
            return TypeInformation.of(Name.class);
        }
    }

    static class WriteCount implements KafkaRecordSerializationSchema<Count> {
        private final String topic;

        WriteCount(String topic) {
            this.topic = topic;
        }

        @Override
        public ProducerRecord<byte[], byte[]> serialize(Count count, KafkaSinkContext context, Long timestamp) {
            return new ProducerRecord<>(topic,
                count.hour.getBytes(StandardCharsets.UTF_8), count.json.getBytes(StandardCharsets.UTF_8));
        }
    }

    /** Passes the first click with each id. */
    static class OnlyOnce extends KeyedProcessFunction<String, Click, Click> {
        private transient ValueState<Boolean> seen;

        @Override
        public void open(OpenContext context) {
            var state = new ValueStateDescriptor<>("seen", Boolean.class);
            state.enableTimeToLive(StateTtlConfig.newBuilder(MEMORY).build());
            seen = getRuntimeContext().getState(state);
        }

        @Override
        public void processElement(Click click, Context context, Collector<Click> out) throws Exception {
            if (seen.value() == null) {
                seen.update(true);
                out.collect(click);
            }
        }
    }

    /** Counts the clicks of a campaign by their hours. Clicks that come before its name wait for that. */
    static class CountHours extends KeyedCoProcessFunction<String, Click, Name, Count> {
        private static final ObjectMapper JSON = new ObjectMapper();
        private transient ValueState<String> name;
        private transient ListState<String> waiting;
        private transient MapState<String, Long> hours;

        @Override
        public void open(OpenContext context) {
            var hours = new MapStateDescriptor<>("hours", String.class, Long.class);
            var waiting = new ListStateDescriptor<>("waiting", String.class);
            var ttl = StateTtlConfig.newBuilder(MEMORY).build();
            hours.enableTimeToLive(ttl);
            waiting.enableTimeToLive(ttl);
            this.hours = getRuntimeContext().getMapState(hours);
            this.waiting = getRuntimeContext().getListState(waiting);
            this.name = getRuntimeContext().getState(new ValueStateDescriptor<>("name", String.class));
        }

        @Override
        public void processElement1(Click click, Context context, Collector<Count> out) throws Exception {
            if (name.value() == null) {
                waiting.add(click.hour);
            } else {
                count(click.campaign, click.hour, out);
            }
        }

        @Override
        public void processElement2(Name row, Context context, Collector<Count> out) throws Exception {
            name.update(row.name);
            var before = new ArrayList<String>();
            waiting.get().forEach(before::add);
            waiting.clear();
            for (String hour : before) {
                count(row.campaign, hour, out);
            }
        }

        private void count(String campaign, String hour, Collector<Count> out) throws Exception {
            Long before = hours.get(hour);
            long clicks = before == null ? 1 : before + 1;
            hours.put(hour, clicks);
            Count count = new Count();
            count.hour = campaign + "@" + hour;
            count.json = JSON.writeValueAsString(
                JSON.createObjectNode().put("campaign", name.value()).put("clicks", clicks));
            out.collect(count);
        }
    }
}
