//! Java: a record that Jackson reads.

use super::columns::{Kind, Table, java_text, member_name};

pub const IMPORTS: &str = "\
import java.io.IOException;

import com.fasterxml.jackson.databind.JsonNode;
import com.fasterxml.jackson.databind.ObjectMapper;

";

/// Words that are no names in Java; a field of such a name has an underscore behind.
const RESERVED: [&str; 53] = [
    "abstract",
    "assert",
    "boolean",
    "break",
    "byte",
    "case",
    "catch",
    "char",
    "class",
    "const",
    "continue",
    "default",
    "do",
    "double",
    "else",
    "enum",
    "extends",
    "false",
    "final",
    "finally",
    "float",
    "for",
    "goto",
    "if",
    "implements",
    "import",
    "instanceof",
    "int",
    "interface",
    "long",
    "native",
    "new",
    "null",
    "package",
    "private",
    "protected",
    "public",
    "return",
    "short",
    "static",
    "strictfp",
    "super",
    "switch",
    "synchronized",
    "this",
    "throw",
    "throws",
    "transient",
    "true",
    "try",
    "void",
    "volatile",
    "while",
];

pub fn record(table: &Table) -> String {
    let (class, webhook) = (&table.class, &table.webhook.name);
    let name = |name: &str| {
        let name = member_name(name);
        if RESERVED.contains(&name.as_str()) || name == "_" { name + "_" } else { name }
    };
    let parts = table.columns.iter().map(|column| {
        let (kind, reader) = match column.kind {
            Kind::Text => ("String", "text"),
            Kind::Number => ("Double", "number"),
            Kind::Boolean => ("Boolean", "bool"),
        };
        let field = java_text(&column.name);
        let member =
            format!("\n    /** {}. */\n    {kind} {}", column.description, name(&column.name));
        (member, format!("\n            {reader}(event.get({field}))"))
    });
    let (members, reads): (Vec<_>, Vec<_>) = parts.unzip();
    let (members, reads) = (members.join(","), reads.join(","));
    let key = name(&table.key);
    format!(
        r#"/** An event of the webhook {webhook}. A field that is missing or not of its type is null. */
record {class}(
    /** The record's key. */
    String {key},{members}) {{

    private static final ObjectMapper JSON = new ObjectMapper();

    /** Reads a record. */
    static {class} read(String key, byte[] value) throws IOException {{
        JsonNode event = JSON.readTree(value);
        return new {class}(
            key,{reads});
    }}

    private static String text(JsonNode field) {{
        boolean isThere = field != null && !field.isNull();
        return !isThere ? null : field.isValueNode() ? field.asText() : field.toString();
    }}

    private static Double number(JsonNode field) {{
        try {{
            String text = text(field);
            return text == null ? null : Double.valueOf(text);
        }} catch (NumberFormatException error) {{
            return null;
        }}
    }}

    private static Boolean bool(JsonNode field) {{
        String text = text(field);
        return "true".equalsIgnoreCase(text) ? Boolean.TRUE
            : "false".equalsIgnoreCase(text) ? Boolean.FALSE : null;
    }}
}}
"#
    )
}
