// Reads records with the CloudEvents SDK for Java and prints each as JSON: its attributes and extensions by name,
// and the fields that EmailMarketingClick (`hookbridge schema --format java`) reads.
//
//   java Read BROKERS TOPIC COUNT

import java.time.Duration;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import java.util.Properties;

import com.fasterxml.jackson.databind.ObjectMapper;

import io.cloudevents.CloudEvent;
import io.cloudevents.kafka.CloudEventDeserializer;

import org.apache.kafka.clients.consumer.KafkaConsumer;
import org.apache.kafka.common.serialization.StringDeserializer;

public class Read {
    public static void main(String[] arguments) throws Exception {
        var json = new ObjectMapper();
        Properties settings = new Properties();
        settings.put("bootstrap.servers", arguments[0]);
        settings.put("group.id", "cloudevents");
        settings.put("auto.offset.reset", "earliest");
        int left = Integer.parseInt(arguments[2]);
        try (var consumer = new KafkaConsumer<>(settings, new StringDeserializer(), new CloudEventDeserializer())) {
            consumer.subscribe(List.of(arguments[1]));
            while (left > 0) {
                for (var record : consumer.poll(Duration.ofSeconds(1))) {
                    CloudEvent event = record.value();
                    Map<String, Object> row = new HashMap<>();
                    for (String name : event.getAttributeNames()) {
                        row.put(name, event.getAttribute(name).toString());
                    }
                    for (String name : event.getExtensionNames()) {
                        row.put(name, event.getExtension(name).toString());
                    }
                    byte[] data = event.getData().toBytes();
                    row.put("data", new String(data, "UTF-8"));
                    if (record.key() != null) {
                        var click = EmailMarketingClick.read(record.key(), data);
                        row.put("campid", click.campid());
                        row.put("contactId", click.contactId());
                        row.put("latitude", click.latitude());
                    }
                    System.out.println(json.writeValueAsString(row));
                    left--;
                }
            }
        }
    }
}
