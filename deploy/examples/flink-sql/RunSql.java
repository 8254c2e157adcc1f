// Runs the statements of SQL files in Flink, all in this process: what `sql-client.sh -f` does on a cluster.
// An argument NAME=VALUE replaces ${NAME}.

import java.nio.file.Files;
import java.nio.file.Path;

import org.apache.flink.table.api.EnvironmentSettings;
import org.apache.flink.table.api.TableEnvironment;
import org.apache.flink.table.api.TableResult;

public class RunSql {
    public static void main(String[] arguments) throws Exception {
        StringBuilder script = new StringBuilder();
        for (String argument : arguments) {
            if (!argument.contains("=")) {
                script.append(Files.readString(Path.of(argument))).append('\n');
            }
        }
        String sql = script.toString();
        for (String argument : arguments) {
            if (argument.contains("=")) {
                String[] pair = argument.split("=", 2);
                sql = sql.replace("${" + pair[0] + "}", pair[1]);
            }
        }
        var flink = TableEnvironment.create(EnvironmentSettings.inStreamingMode());
        TableResult last = null;
        for (String statement : sql.split(";\\s*(\n|$)")) {
            String text = statement.replaceAll("(?m)^--.*$", "").strip();
            if (text.startsWith("SET ")) {
                String[] pair = text.substring(4).split("=", 2);
                flink.getConfig().set(unquoted(pair[0]), unquoted(pair[1]));
            } else if (!text.isEmpty()) {
                last = flink.executeSql(text);
                if (text.startsWith("SELECT")) {
                    last.print();
                }
            }
        }
        // A job that reads Kafka has no end.
        last.await();
    }

    private static String unquoted(String text) {
        return text.strip().replaceAll("^'|'$", "");
    }
}
