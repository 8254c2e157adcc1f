import java.io.IOException;

import com.fasterxml.jackson.databind.JsonNode;
import com.fasterxml.jackson.databind.ObjectMapper;

/** An event of the webhook email-marketing-click. A field that is missing or not of its type is null. */
record EmailMarketingClick(
    /** The record's key. */
    String campid,
    /** the browser. */
    String browser,
    /** the campaign's name. */
    String campaignName,
    /** the city of the click, which may be imprecise. */
    String cityName,
    /** the contact. */
    String contactId,
    /** its country. */
    String countryName,
    /** the address that was clicked. */
    String destination,
    /** the kind of device. */
    String device_type,
    /** the recipient's address. */
    String email,
    /** where it is there, always this, in any case. */
    String event,
    /** its latitude. */
    Double latitude,
    /** its longitude. */
    Double longitude,
    /** its region, state or department. */
    String regionName,
    /** the customer's account. */
    String relid,
    /** the subject line. */
    String subject,
    /** the event's time, as the sender writes it. */
    String timestamp,
    /** where it is there, always this, in any case. */
    String type) {

    private static final ObjectMapper JSON = new ObjectMapper();

    /** Reads a record. */
    static EmailMarketingClick read(String key, byte[] value) throws IOException {
        JsonNode event = JSON.readTree(value);
        return new EmailMarketingClick(
            key,
            text(event.get("browser")),
            text(event.get("campaignName")),
            text(event.get("cityName")),
            text(event.get("contactId")),
            text(event.get("countryName")),
            text(event.get("destination")),
            text(event.get("device_type")),
            text(event.get("email")),
            text(event.get("event")),
            number(event.get("latitude")),
            number(event.get("longitude")),
            text(event.get("regionName")),
            text(event.get("relid")),
            text(event.get("subject")),
            text(event.get("timestamp")),
            text(event.get("type")));
    }

    private static String text(JsonNode field) {
        boolean isThere = field != null && !field.isNull();
        return !isThere ? null : field.isValueNode() ? field.asText() : field.toString();
    }

    private static Double number(JsonNode field) {
        try {
            String text = text(field);
            return text == null ? null : Double.valueOf(text);
        } catch (NumberFormatException error) {
            return null;
        }
    }

    private static Boolean bool(JsonNode field) {
        String text = text(field);
        return "true".equalsIgnoreCase(text) ? Boolean.TRUE
            : "false".equalsIgnoreCase(text) ? Boolean.FALSE : null;
    }
}

/** An event of the webhook email-marketing-sent. A field that is missing or not of its type is null. */
record EmailMarketingSent(
    /** The record's key. */
    String campid,
    /** the contact. */
    String contactid,
    /** where it is there, always this, in any case. */
    String event,
    /** always Web. */
    String origin,
    /** the customer's account. */
    String relid,
    /** the provider's own answer. */
    String response,
    /** the result, in Spanish prose. */
    String status,
    /** the event's time, as the sender writes it. */
    String timestamp,
    /** the recipient's address. */
    String to,
    /** where it is there, always this, in any case. */
    String type) {

    private static final ObjectMapper JSON = new ObjectMapper();

    /** Reads a record. */
    static EmailMarketingSent read(String key, byte[] value) throws IOException {
        JsonNode event = JSON.readTree(value);
        return new EmailMarketingSent(
            key,
            text(event.get("contactid")),
            text(event.get("event")),
            text(event.get("origin")),
            text(event.get("relid")),
            text(event.get("response")),
            text(event.get("status")),
            text(event.get("timestamp")),
            text(event.get("to")),
            text(event.get("type")));
    }

    private static String text(JsonNode field) {
        boolean isThere = field != null && !field.isNull();
        return !isThere ? null : field.isValueNode() ? field.asText() : field.toString();
    }

    private static Double number(JsonNode field) {
        try {
            String text = text(field);
            return text == null ? null : Double.valueOf(text);
        } catch (NumberFormatException error) {
            return null;
        }
    }

    private static Boolean bool(JsonNode field) {
        String text = text(field);
        return "true".equalsIgnoreCase(text) ? Boolean.TRUE
            : "false".equalsIgnoreCase(text) ? Boolean.FALSE : null;
    }
}

/** An event of the webhook email-marketing-bounce. A field that is missing or not of its type is null. */
record EmailMarketingBounce(
    /** The record's key. */
    String campid,
    /** the contact. */
    String contactid,
    /** where it is there, always this, in any case. */
    String event,
    /** always Web. */
    String origin,
    /** the customer's account. */
    String relid,
    /** the provider's own answer. */
    String response,
    /** the result, in Spanish prose. */
    String status,
    /** the event's time, as the sender writes it. */
    String timestamp,
    /** the recipient's address. */
    String to,
    /** where it is there, always this, in any case. */
    String type) {

    private static final ObjectMapper JSON = new ObjectMapper();

    /** Reads a record. */
    static EmailMarketingBounce read(String key, byte[] value) throws IOException {
        JsonNode event = JSON.readTree(value);
        return new EmailMarketingBounce(
            key,
            text(event.get("contactid")),
            text(event.get("event")),
            text(event.get("origin")),
            text(event.get("relid")),
            text(event.get("response")),
            text(event.get("status")),
            text(event.get("timestamp")),
            text(event.get("to")),
            text(event.get("type")));
    }

    private static String text(JsonNode field) {
        boolean isThere = field != null && !field.isNull();
        return !isThere ? null : field.isValueNode() ? field.asText() : field.toString();
    }

    private static Double number(JsonNode field) {
        try {
            String text = text(field);
            return text == null ? null : Double.valueOf(text);
        } catch (NumberFormatException error) {
            return null;
        }
    }

    private static Boolean bool(JsonNode field) {
        String text = text(field);
        return "true".equalsIgnoreCase(text) ? Boolean.TRUE
            : "false".equalsIgnoreCase(text) ? Boolean.FALSE : null;
    }
}

/** An event of the webhook smtp-bounce. A field that is missing or not of its type is null. */
record SmtpBounce(
    /** The record's key. */
    String msgid,
    /** true for certified mail, else absent. */
    Boolean certifiedEmail,
    /** the sender's own headers. */
    String custom_headers,
    /** where it is there, always this, in any case. */
    String event,
    /** whence it was submitted; not for certified mail. */
    String ip,
    /** SMTP or API; not for certified mail. */
    String origin,
    /** the customer's account. */
    String relid,
    /** the provider's own answer. */
    String response,
    /** the sender's address; not for certified mail. */
    String sender,
    /** the result, in Spanish prose. */
    String status,
    /** the subject line. */
    String subject,
    /** the event's time, as the sender writes it. */
    String timestamp,
    /** the recipient's address. */
    String to,
    /** where it is there, always this, in any case. */
    String type) {

    private static final ObjectMapper JSON = new ObjectMapper();

    /** Reads a record. */
    static SmtpBounce read(String key, byte[] value) throws IOException {
        JsonNode event = JSON.readTree(value);
        return new SmtpBounce(
            key,
            bool(event.get("certifiedEmail")),
            text(event.get("custom_headers")),
            text(event.get("event")),
            text(event.get("ip")),
            text(event.get("origin")),
            text(event.get("relid")),
            text(event.get("response")),
            text(event.get("sender")),
            text(event.get("status")),
            text(event.get("subject")),
            text(event.get("timestamp")),
            text(event.get("to")),
            text(event.get("type")));
    }

    private static String text(JsonNode field) {
        boolean isThere = field != null && !field.isNull();
        return !isThere ? null : field.isValueNode() ? field.asText() : field.toString();
    }

    private static Double number(JsonNode field) {
        try {
            String text = text(field);
            return text == null ? null : Double.valueOf(text);
        } catch (NumberFormatException error) {
            return null;
        }
    }

    private static Boolean bool(JsonNode field) {
        String text = text(field);
        return "true".equalsIgnoreCase(text) ? Boolean.TRUE
            : "false".equalsIgnoreCase(text) ? Boolean.FALSE : null;
    }
}

/** An event of the webhook smtp-delivered. A field that is missing or not of its type is null. */
record SmtpDelivered(
    /** The record's key. */
    String msgid,
    /** true for certified mail, else absent. */
    Boolean certifiedEmail,
    /** where it is there, always this, in any case. */
    String event,
    /** whence it was submitted. */
    String ip,
    /** SMTP or API; not for certified mail. */
    String origin,
    /** the customer's account. */
    String relid,
    /** the provider's own answer; for certified mail the steps. */
    String response,
    /** the result, in Spanish prose. */
    String status,
    /** the subject line. */
    String subject,
    /** the event's time, as the sender writes it. */
    String timestamp,
    /** the recipient's address. */
    String to,
    /** where it is there, always this, in any case. */
    String type) {

    private static final ObjectMapper JSON = new ObjectMapper();

    /** Reads a record. */
    static SmtpDelivered read(String key, byte[] value) throws IOException {
        JsonNode event = JSON.readTree(value);
        return new SmtpDelivered(
            key,
            bool(event.get("certifiedEmail")),
            text(event.get("event")),
            text(event.get("ip")),
            text(event.get("origin")),
            text(event.get("relid")),
            text(event.get("response")),
            text(event.get("status")),
            text(event.get("subject")),
            text(event.get("timestamp")),
            text(event.get("to")),
            text(event.get("type")));
    }

    private static String text(JsonNode field) {
        boolean isThere = field != null && !field.isNull();
        return !isThere ? null : field.isValueNode() ? field.asText() : field.toString();
    }

    private static Double number(JsonNode field) {
        try {
            String text = text(field);
            return text == null ? null : Double.valueOf(text);
        } catch (NumberFormatException error) {
            return null;
        }
    }

    private static Boolean bool(JsonNode field) {
        String text = text(field);
        return "true".equalsIgnoreCase(text) ? Boolean.TRUE
            : "false".equalsIgnoreCase(text) ? Boolean.FALSE : null;
    }
}
