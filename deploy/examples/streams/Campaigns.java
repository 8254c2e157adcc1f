// Writes the table of campaigns: a plain Java producer, as any other service would have one. The key is
// the campaign's id as text, the value its name. The topic must be compacted.
//
//   java -cp "target/jars/*" Campaigns.java localhost:9092 campaigns 12345=Spring 12346=Summer

import java.util.Properties;

import org.apache.kafka.clients.producer.KafkaProducer;
import org.apache.kafka.clients.producer.ProducerRecord;
import org.apache.kafka.common.serialization.StringSerializer;

public class Campaigns {
    public static void main(String[] arguments) {
        Properties settings = new Properties();
        settings.put("bootstrap.servers", arguments[0]);
        try (var producer = new KafkaProducer<>(settings, new StringSerializer(), new StringSerializer())) {
            for (int place = 2; place < arguments.length; place++) {
                String[] row = arguments[place].split("=", 2);
                // A row holds from the beginning: late clicks find it, too.
                producer.send(new ProducerRecord<>(arguments[1], null, 0L, row[0], row[1]));
            }
        }
    }
}
