// Stands in for Amazon MSK's check of a token, which is not public: decodes the signed URL, signs its request again
// by AWS's documentation ("Create a signed AWS API request"), and takes the token if the signatures are equal and the
// time is within its life. The user is then `clicks`; the access key must be known.

import java.net.URI;
import java.net.URLDecoder;
import java.nio.charset.StandardCharsets;
import java.security.MessageDigest;
import java.time.Instant;
import java.time.ZoneOffset;
import java.time.format.DateTimeFormatter;
import java.util.Arrays;
import java.util.Base64;
import java.util.HashMap;
import java.util.HexFormat;
import java.util.List;
import java.util.Map;
import java.util.Set;
import java.util.TreeMap;
import java.util.stream.Collectors;
import javax.crypto.Mac;
import javax.crypto.spec.SecretKeySpec;
import javax.security.auth.callback.Callback;
import javax.security.auth.login.AppConfigurationEntry;
import org.apache.kafka.common.security.auth.AuthenticateCallbackHandler;
import org.apache.kafka.common.security.oauthbearer.OAuthBearerExtensionsValidatorCallback;
import org.apache.kafka.common.security.oauthbearer.OAuthBearerToken;
import org.apache.kafka.common.security.oauthbearer.OAuthBearerValidatorCallback;

public class MskTokens implements AuthenticateCallbackHandler {
    // The keys that the tests' sources of credentials give.
    private static final String SECRET = "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY";

    @Override
    public void configure(Map<String, ?> configs, String mechanism, List<AppConfigurationEntry> entries) {
    }

    @Override
    public void close() {
    }

    @Override
    public void handle(Callback[] callbacks) {
        for (Callback callback : callbacks) {
            if (callback instanceof OAuthBearerValidatorCallback validator) {
                try {
                    validator.token(check(validator.tokenValue()));
                } catch (Exception refused) {
                    System.out.println("MskTokens: " + refused);
                    validator.error("invalid_token", null, null);
                }
            } else if (callback instanceof OAuthBearerExtensionsValidatorCallback extensions) {
                extensions.inputExtensions().map().keySet().forEach(extensions::valid);
            }
        }
    }

    private static OAuthBearerToken check(String value) throws Exception {
        URI url = URI.create(new String(Base64.getUrlDecoder().decode(value), StandardCharsets.UTF_8));
        Map<String, String> parameters = new HashMap<>();
        TreeMap<String, String> signed = new TreeMap<>();
        for (String parameter : url.getRawQuery().split("&")) {
            String[] parts = parameter.split("=", 2);
            parameters.put(parts[0], URLDecoder.decode(parts[1], StandardCharsets.UTF_8));
            if (!parts[0].equals("X-Amz-Signature") && !parts[0].equals("User-Agent")) {
                signed.put(parts[0], parts[1]);
            }
        }
        String[] credential = parameters.get("X-Amz-Credential").split("/");
        String date = credential[1], region = credential[2], time = parameters.get("X-Amz-Date");
        expect(url.getScheme().equals("https") && url.getHost().equals("kafka." + region + ".amazonaws.com"));
        expect(parameters.get("Action").equals("kafka-cluster:Connect"));
        expect(credential[3].equals("kafka-cluster") && credential[4].equals("aws4_request"));
        expect(parameters.get("X-Amz-SignedHeaders").equals("host") && parameters.containsKey("User-Agent"));
        // Temporary keys come with a token, which the tests name after their source.
        boolean isTemporary = credential[0].startsWith("ASIA");
        expect(isTemporary == parameters.containsKey("X-Amz-Security-Token"));
        expect(isTemporary || credential[0].startsWith("AKI"));

        String query = signed.entrySet().stream().map(it -> it.getKey() + "=" + it.getValue())
            .collect(Collectors.joining("&"));
        String request = "GET\n/\n" + query + "\nhost:" + url.getHost() + "\n\nhost\n" + sha256("");
        String scope = date + "/" + region + "/kafka-cluster/aws4_request";
        String toSign = "AWS4-HMAC-SHA256\n" + time + "\n" + scope + "\n" + sha256(request);
        byte[] key = ("AWS4" + SECRET).getBytes(StandardCharsets.UTF_8);
        for (String part : Arrays.asList(date, region, "kafka-cluster", "aws4_request")) {
            key = hmac(key, part);
        }
        expect(HexFormat.of().formatHex(hmac(key, toSign)).equals(parameters.get("X-Amz-Signature")));

        Instant begin = DateTimeFormatter.ofPattern("yyyyMMdd'T'HHmmss'Z'").withZone(ZoneOffset.UTC)
            .parse(time, Instant::from);
        Instant end = begin.plusSeconds(Long.parseLong(parameters.get("X-Amz-Expires")));
        expect(Instant.now().isBefore(end) && Instant.now().isAfter(begin.minusSeconds(60)));
        System.out.println("MskTokens: took " + credential[0] + " " + parameters.get("X-Amz-Security-Token"));
        return new Taken(value, end.toEpochMilli());
    }

    private record Taken(String value, long lifetimeMs) implements OAuthBearerToken {
        @Override
        public Set<String> scope() {
            return Set.of();
        }

        @Override
        public String principalName() {
            return "clicks";
        }

        @Override
        public Long startTimeMs() {
            return null;
        }
    }

    private static void expect(boolean holds) {
        if (!holds) {
            throw new IllegalArgumentException("not so");
        }
    }

    private static String sha256(String text) throws Exception {
        byte[] bytes = text.getBytes(StandardCharsets.UTF_8);
        return HexFormat.of().formatHex(MessageDigest.getInstance("SHA-256").digest(bytes));
    }

    private static byte[] hmac(byte[] key, String text) throws Exception {
        Mac mac = Mac.getInstance("HmacSHA256");
        mac.init(new SecretKeySpec(key, "HmacSHA256"));
        return mac.doFinal(text.getBytes(StandardCharsets.UTF_8));
    }
}
