//! What the two listeners take and answer, as OpenAPI 3.1. It is made from the list of outcomes and from
//! the settings, so that it cannot differ from what the bridge does.

use std::collections::{BTreeMap, BTreeSet};

use hyper::header::HeaderName;
use serde_json::{Value, json};

use crate::click::auth::{AuthScheme, Signing};
use crate::click::event::Envelope;
use crate::click::outcome::{Facts, Held, NoClick, Outcome, Refusal};
use crate::click::verification::Verification;
use crate::click::webhook::Webhook;
use crate::config::{Config, Problem, WebhookSettings};
use crate::http::CODINGS;
use crate::ingest::hint;
use crate::operator::{AdminRoute, JSON, TEXT, schema};

/// The document for these settings, indented.
///
/// # Errors
///
/// A webhook that cannot be read.
pub fn document(config: &Config) -> Result<String, Problem> {
    let mut document = json!({
        "openapi": "3.1.0",
        "info": {
            "title": "hookbridge",
            "version": env!("CARGO_PKG_VERSION"),
            "license": { "name": "MIT OR Apache-2.0", "identifier": "MIT OR Apache-2.0" },
            "description": "200 means that the click is held durably; any other answer means that it \
                is not. Another path than those of the webhooks is answered 404, another method than \
                POST 405.",
        },
        "tags": [
            { "name": "ingest", "description": "For senders: http.listen" },
            { "name": "admin", "description": "For the operator: admin.listen" },
        ],
        "components": { "securitySchemes": {} },
    });
    let has_certificates = config.http.names_callers();
    for webhook in &config.webhooks()? {
        let has_secret = !has_certificates && matches!(webhook.auth_scheme, AuthScheme::PathSecret);
        let scheme = security_scheme(webhook, has_certificates);
        let mut operation = post(config, webhook);
        operation["security"] = scheme.iter().map(|(name, _)| json!({ (name): [] })).collect();
        operation["parameters"] = parameters(webhook, has_secret).into();
        let path = format!("{}{}", webhook.path, if has_secret { "/{secret}" } else { "" });
        for (method, operation) in questions(config, webhook) {
            document["paths"][&path][method] = operation;
        }
        document["paths"][path]["post"] = operation;
        if let Some((name, scheme)) = scheme {
            document["components"]["securitySchemes"][name] = scheme;
        }
    }
    // A webhook may have the same path on the other listener.
    for route in super::routes(config) {
        document["paths"][&route.path]["get"] = admin_operation(&route, config);
    }
    Ok(format!("{document:#}\n"))
}

/// A listener whose host the reader fills in.
fn server(scheme: &str, port: u16) -> Value {
    let variables = json!({ "host": { "default": "localhost" } });
    json!([{ "url": format!("{scheme}://{{host}}:{port}"), "variables": variables }])
}

/// How senders authenticate, with the scheme's name; `None` where OpenAPI has no such scheme.
fn security_scheme(webhook: &Webhook, has_certificates: bool) -> Option<(String, Value)> {
    if has_certificates {
        return Some(("certificate".into(), json!({ "type": "mutualTLS" })));
    }
    let http = |scheme: &str| (scheme.to_owned(), json!({ "type": "http", "scheme": scheme }));
    let api_key = |kind: &str, header: &HeaderName, description: &str| {
        let scheme = json!({
            "type": "apiKey", "in": "header", "name": header.as_str(), "description": description,
        });
        (format!("{kind}-{header}"), scheme)
    };
    match &webhook.auth_scheme {
        AuthScheme::Bearer => Some(http("bearer")),
        AuthScheme::Basic => Some(http("basic")),
        AuthScheme::Header(header) => Some(api_key("header", header, "The key")),
        AuthScheme::Signed(Signing { header, .. }) => {
            let kind = webhook.auth_scheme.challenge().to_lowercase();
            Some(api_key(&kind, header, "A signature made with the key"))
        }
        AuthScheme::Form(signing) => {
            Some(api_key("hmac-sha1", &signing.header, "A signature of the address and the form"))
        }
        AuthScheme::StandardWebhooks { .. } => {
            let header = HeaderName::from_static("webhook-signature");
            let description = "Signatures of id, time and body; svix-signature is the same";
            Some(api_key("standard-webhooks", &header, description))
        }
        AuthScheme::Mailgun { .. } | AuthScheme::Sns(_) | AuthScheme::PathSecret => None,
    }
}

/// The questions by other methods than POST that a webhook answers.
fn questions(config: &Config, webhook: &Webhook) -> Vec<(&'static str, Value)> {
    let methods: &[&str] = match webhook.verification {
        Verification::None | Verification::Body(_) => &[],
        Verification::Ok => &["get", "head", "options"],
        Verification::CloudEvents => &["options"],
        Verification::Query { .. } => &["get"],
    };
    let scheme = if config.http.tls.is_some() { "https" } else { "http" };
    let operation = |method: &&'static str| {
        let text = Outcome::NoClick(NoClick::Verified).facts().text;
        let operation = json!({
            "tags": ["ingest"],
            "operationId": format!("{}-{method}", webhook.route.webhook),
            "summary": "A sender asks about the address",
            "servers": server(scheme, config.http.listen.port()),
            "responses": { "200": { "description": text } },
            "security": [],
        });
        (*method, operation)
    };
    methods.iter().map(operation).collect()
}

/// The parameters in the path and the headers that are no security scheme.
fn parameters(webhook: &Webhook, has_secret: bool) -> Vec<Value> {
    let required = |name: &str, place: &str, description: &str| {
        json!({
            "name": name, "in": place, "required": true, "description": description,
            "schema": { "type": "string", "minLength": 1 },
        })
    };
    let mut parameters = Vec::new();
    if let AuthScheme::Signed(Signing { timestamp_header: Some(name), .. }) = &webhook.auth_scheme {
        parameters.push(required(name.as_str(), "header", "When it was signed"));
    }
    if has_secret {
        parameters.push(required("secret", "path", "The key"));
    }
    parameters.push(json!({
        "name": "traceparent", "in": "header", "schema": { "type": "string" },
        "description": "W3C Trace Context; goes on to the record if it is valid",
    }));
    parameters
}

/// A webhook's one operation.
fn post(config: &Config, webhook: &Webhook) -> Value {
    let scheme = if config.http.tls.is_some() { "https" } else { "http" };
    let event = event(&config.webhook[webhook.index]);
    let media = match webhook.envelope {
        Envelope::Lines => "application/x-ndjson",
        Envelope::Form(_) => "application/x-www-form-urlencoded",
        _ => "application/json",
    };
    let schema = match &webhook.envelope {
        Envelope::One => event,
        Envelope::Array(None) => {
            json!({ "anyOf": [{ "type": "array", "minItems": 1, "items": event }, event] })
        }
        Envelope::Array(Some(pointer)) => {
            let mut body = json!({ "type": "object" });
            let array = json!({ "type": "array", "minItems": 1, "items": event });
            schema::put(&mut body, pointer.tokens(), array, true);
            body
        }
        Envelope::Form(None) => event,
        Envelope::Form(Some(pointer)) => {
            let mut body = json!({ "type": "object" });
            let field = json!({ "type": "string", "description": "JSON: an event, or several" });
            schema::put(&mut body, &pointer.tokens()[..1], field, true);
            body
        }
        Envelope::Lines => json!({ "type": "string", "minLength": 1 }),
        Envelope::Sns => json!({
            "type": "object",
            "description": "A notification of Amazon SNS",
            "required": ["Type", "Message"],
            "properties": {
                "Type": { "const": "Notification" },
                "Message": {
                    "type": "string",
                    "contentMediaType": "application/json",
                    "contentSchema": event,
                },
            },
        }),
    };
    let (schema, rest) = match webhook.rejects_invalid {
        true => (schema, "is refused"),
        false => {
            let rest = json!({ "description": "Anything else is kept as a dead letter" });
            (json!({ "anyOf": [schema, rest] }), "is kept as a dead letter and answered 200")
        }
    };
    json!({
        "tags": ["ingest"],
        "operationId": webhook.route.webhook,
        "summary": format!("Events for the topic {}", webhook.route.topic),
        "servers": server(scheme, config.http.listen.port()),
        "requestBody": {
            "required": webhook.rejects_invalid,
            "description": format!(
                "An event of this webhook, or several where it takes several; anything else {rest}. \
                 At most {} bytes, also unpacked; Content-Encoding may be one of: {CODINGS}. \
                 Content-Type is not looked at.",
                config.http.max_body_bytes,
            ),
            "content": { (media): { "schema": schema } },
        },
        "responses": responses(webhook),
    })
}

/// The fields of an event that the bridge reads.
fn event(webhook: &WebhookSettings) -> Value {
    let mut event = json!({ "type": "object" });
    let description = "Without regard to case; may be absent";
    let constant = |text: &str| json!({ "enum": [text, null], "description": description });
    let texts = [
        "The time of the event; one that cannot be read is ignored",
        "What the sender calls the event",
        "The record's key; an integer is written without fraction or exponent",
    ];
    schema::put_fields(&mut event, webhook, constant, texts);
    event
}

/// Every answer that a webhook's senders can get, by status.
fn responses(webhook: &Webhook) -> Value {
    let mut by_status: BTreeMap<u16, Vec<Facts>> = BTreeMap::new();
    for outcome in Outcome::all().filter(|outcome| may_end(*outcome, webhook)) {
        let facts = outcome.facts();
        by_status.entry(webhook.status(facts.status).as_u16()).or_default().push(facts);
    }
    let responses = by_status.into_iter().map(|(status, facts)| {
        let text = facts.iter().map(|facts| facts.text).collect::<Vec<_>>().join("; or: ");
        let response = match facts[0].status.is_success() {
            true => accepted(webhook, &text),
            false => refused(webhook, status, &facts, &text),
        };
        (status.to_string(), response)
    });
    Value::Object(responses.collect())
}

/// Whether a POST to this webhook can end with this outcome.
fn may_end(outcome: Outcome, webhook: &Webhook) -> bool {
    match outcome {
        Outcome::Held(Held::AsDeadLetter) => !webhook.rejects_invalid,
        Outcome::Held(_) => true,
        Outcome::NoClick(NoClick::Verified) => {
            matches!(webhook.verification, Verification::Query { .. } | Verification::Body(_))
        }
        Outcome::NoClick(NoClick::Confirmed) => {
            matches!(&webhook.auth_scheme, AuthScheme::Sns(sns) if sns.confirm)
        }
        Outcome::Refused(Refusal::SnsUnreachable) => {
            matches!(webhook.auth_scheme, AuthScheme::Sns(_))
        }
        Outcome::Refused(Refusal::Malformed | Refusal::Invalid | Refusal::UnknownEncoding) => {
            webhook.rejects_invalid
        }
        Outcome::Refused(Refusal::UnknownPath | Refusal::WrongMethod) => false,
        Outcome::Refused(refusal) => refusal.is_answered(),
    }
}

fn accepted(webhook: &Webhook, text: &str) -> Value {
    let answer = String::from_utf8_lossy(&webhook.answer);
    let schema = json!({ "type": "string", "const": answer });
    json!({ "description": text, "content": { "text/plain; charset=utf-8": { "schema": schema } } })
}

/// A refusal with this status; `facts` are its possible reasons.
fn refused(webhook: &Webhook, status: u16, facts: &[Facts], text: &str) -> Value {
    let types: Vec<String> = facts.iter().map(Facts::problem_type).collect();
    let titles: Vec<&str> = facts.iter().map(|facts| facts.text).collect();
    let schema = json!({
        "type": "object",
        "required": ["type", "title", "status", "detail"],
        "properties": {
            "type": { "enum": types },
            "title": { "enum": titles },
            "status": { "const": status },
            "detail": { "type": "string" },
        },
    });
    let mut response = json!({
        "description": text, "content": { "application/problem+json": { "schema": schema } },
    });
    let challenge = webhook.auth_scheme.challenge();
    let mut hints: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for (name, value) in facts.iter().filter_map(|facts| hint(facts.status, challenge)) {
        let value = String::from_utf8_lossy(value.as_bytes()).into_owned();
        hints.entry(name.to_string()).or_default().insert(value);
    }
    for (name, values) in hints {
        let schema = json!({ "type": "string", "enum": values });
        response["headers"][name] = json!({ "required": true, "schema": schema });
    }
    response
}

/// The operation of a path of the admin listener.
fn admin_operation(route: &AdminRoute, config: &Config) -> Value {
    let answer = |media: &str, description: &str| {
        let kind = if media == JSON { "object" } else { "string" };
        let schema = json!({ "type": kind });
        json!({ "description": description, "content": { (media): { "schema": schema } } })
    };
    let mut responses = json!({
        "200": answer(route.media, &route.summary),
        "500": answer(TEXT, "The bridge made a mistake"),
    });
    if !route.is_for_everybody() {
        responses["403"] = answer(TEXT, "A page of another origin has asked");
        responses["421"] =
            answer(TEXT, "The host is no IP address, localhost or name in admin.hosts");
    }
    if let Some(text) = route.unavailable {
        responses["503"] = answer(TEXT, text);
    }
    json!({
        "tags": ["admin"],
        "operationId": route.id,
        "summary": route.summary,
        "servers": server("http", config.admin.listen.port()),
        "responses": responses,
        "security": [],
    })
}
