import java.io.ByteArrayInputStream;
import java.io.ByteArrayOutputStream;
import java.net.HttpURLConnection;
import java.net.URI;
import java.net.http.HttpClient;
import java.net.http.HttpRequest;
import java.net.http.HttpRequest.BodyPublisher;
import java.net.http.HttpRequest.BodyPublishers;
import java.net.http.HttpResponse.BodyHandlers;
import java.nio.charset.StandardCharsets;
import java.time.Duration;
import java.util.zip.GZIPOutputStream;

/** Requests by Java's clients. `Client.java URL KEY` prints a line for each: its name, a tab, the status. */
class Client {
    static String base;
    static String key;

    public static void main(String[] arguments) throws Exception {
        base = arguments[0];
        key = arguments[1];
        var any = HttpClient.newHttpClient();
        var one = HttpClient.newBuilder().version(HttpClient.Version.HTTP_1_1).build();
        send("Java HttpClient: upgrade to HTTP/2", any, text("Java HttpClient: upgrade to HTTP/2"), "");
        send("Java HttpClient: HTTP/1.1", one, text("Java HttpClient: HTTP/1.1"), "");
        send("Java HttpClient: a stream", one, stream("Java HttpClient: a stream"), "");
        send("Java HttpClient: large, expects 100", one, text("Java HttpClient: large, expects 100"), "expects");
        send("Java HttpClient: gzip", one,
                BodyPublishers.ofByteArray(gzip("Java HttpClient: gzip")), "gzip");
        send("Java HttpClient: a slash at the end", one, text("Java HttpClient: a slash at the end"), "slash");
        connect("HttpURLConnection: a length", false);
        connect("HttpURLConnection: chunks", true);
    }

    static String click(String name) {
        var noise = name.contains("large") ? ",\"noise\":\"" + "x".repeat(100_000) + "\"" : "";
        return "{\"campid\":\"" + name + "\"" + noise + "}";
    }

    static BodyPublisher text(String name) {
        return BodyPublishers.ofString(click(name));
    }

    static BodyPublisher stream(String name) {
        return BodyPublishers.ofInputStream(() -> new ByteArrayInputStream(click(name).getBytes()));
    }

    static byte[] gzip(String name) throws Exception {
        var bytes = new ByteArrayOutputStream();
        try (var packed = new GZIPOutputStream(bytes)) {
            packed.write(click(name).getBytes(StandardCharsets.UTF_8));
        }
        return bytes.toByteArray();
    }

    static void send(String name, HttpClient client, BodyPublisher body, String how) throws Exception {
        var path = "/webhooks/email-marketing/click" + (how.equals("slash") ? "/" : "");
        var request = HttpRequest.newBuilder(URI.create(base + path))
                .timeout(Duration.ofSeconds(60))
                .header("Authorization", "Bearer " + key)
                .header("Content-Type", "application/json")
                .expectContinue(how.equals("expects"));
        if (how.equals("gzip")) {
            request.header("Content-Encoding", "gzip");
        }
        var answer = client.send(request.POST(body).build(), BodyHandlers.ofString());
        System.out.println(name + "\t" + answer.statusCode());
    }

    static void connect(String name, boolean isChunked) throws Exception {
        var url = URI.create(base + "/webhooks/email-marketing/click").toURL();
        var connection = (HttpURLConnection) url.openConnection();
        connection.setRequestMethod("POST");
        connection.setRequestProperty("Authorization", "Bearer " + key);
        connection.setDoOutput(true);
        if (isChunked) {
            connection.setChunkedStreamingMode(16);
        }
        connection.getOutputStream().write(click(name).getBytes(StandardCharsets.UTF_8));
        System.out.println(name + "\t" + connection.getResponseCode());
    }
}
