import java.io.PrintStream;
import java.nio.charset.StandardCharsets;
import org.apache.kafka.clients.producer.internals.BuiltInPartitioner;

/**
 * Prints where Java's own producer puts 1,000 keys in a topic of 12 partitions, a line each: the
 * partition, a tab, the key. tests/fixtures/partitions.tsv is what it prints.
 */
class PartitionTable {
    public static void main(String[] arguments) {
        PrintStream out = new PrintStream(System.out, true, StandardCharsets.UTF_8);
        String[] shapes = {"%d", "%d00000000000000000000", "camp-%d", "campaña %d", "キャンペーン%d"};
        for (int i = 0; i < 1000; i++) {
            String key = String.format(shapes[i % shapes.length], i);
            byte[] bytes = key.getBytes(StandardCharsets.UTF_8);
            out.println(BuiltInPartitioner.partitionForKey(bytes, 12) + "\t" + key);
        }
    }
}
