//! `hookbridge schema`: what readers of the topics need, for the system that they use; and the registration of
//! the JSON Schemas at a schema registry.

use std::time::Duration;

use anstream::println;
use bytes::Bytes;
use clap::Args;
use data_encoding::BASE64;
use http_body_util::Full;
use hyper::header::{AUTHORIZATION, CONTENT_TYPE};
use hyper::{Request, StatusCode, Uri};
use serde_json::{Value, json};

use super::{CommandResult, Exit, webhook};
use crate::config::{self, Config, WebhookSettings};
use crate::http;
use crate::operator::schema::{Format, documents, of_events};

const AUTH_VARIABLE: &str = "HOOKBRIDGE_REGISTRY_AUTH";

/// Far more than a registry answers.
const ANSWER_MAX: usize = 1 << 20;

/// How long the registry may take for one schema.
const TIMEOUT: Duration = Duration::from_secs(30);

#[derive(Debug, Args)]
pub struct SchemaArgs {
    /// The webhook; all of the settings if nothing is said
    #[arg(long)]
    webhook: Option<String>,
    /// The system that the schema is for
    #[arg(long, value_enum, default_value_t = Format::JsonSchema)]
    format: Format,
    /// Register the JSON Schema at this schema registry instead, under the subject TOPIC-value;
    /// HOOKBRIDGE_REGISTRY_AUTH may hold USER:PASSWORD
    #[arg(long, value_name = "URL", conflicts_with = "format")]
    register: Option<Uri>,
}

impl SchemaArgs {
    pub fn run(self, config: &Config) -> CommandResult {
        let mut config = config.clone();
        if let Some(name) = &self.webhook {
            let found = webhook(&config, Some(name)).cloned();
            let none = format!("there is no webhook {name}; see `hookbridge config`");
            config.webhook = vec![found.ok_or(none)?];
        }
        let Some(registry) = &self.register else {
            print!("{}", documents(&config, self.format));
            return Ok(Exit::Clean);
        };
        // It would stand in errors, and in the list of processes.
        if registry.authority().is_some_and(|authority| authority.as_str().contains('@')) {
            let error =
                format!("--register takes no credentials: set {AUTH_VARIABLE} to USER:PASSWORD");
            return Err(error.into());
        }
        let auth = config::environment().remove(AUTH_VARIABLE).filter(|auth| !auth.is_empty());
        if auth.as_ref().is_some_and(|auth| !auth.contains(':')) {
            return Err(format!("{AUTH_VARIABLE} must be USER:PASSWORD").into());
        }
        for webhook in &config.webhook {
            let subject = format!("{}-value", webhook.topic);
            let id = register(registry, auth.as_deref(), &subject, webhook)
                .map_err(|error| format!("{registry} does not take {subject}: {error}"))?;
            println!("{subject}: id {id}");
        }
        Ok(Exit::Clean)
    }
}

/// Registers the schema of a webhook's events, and returns its id. The same schema has the same id each time.
fn register(
    registry: &Uri,
    auth: Option<&str>,
    subject: &str,
    webhook: &WebhookSettings,
) -> Result<Value, http::BoxError> {
    let url = registry.to_string();
    let url = format!("{}/subjects/{subject}/versions", url.trim_end_matches('/'));
    let body = json!({ "schemaType": "JSON", "schema": of_events(webhook).to_string() });
    let mut request =
        Request::post(url).header(CONTENT_TYPE, "application/vnd.schemaregistry.v1+json");
    if let Some(auth) = auth {
        let basic = format!("Basic {}", BASE64.encode(auth.as_bytes()));
        request = request.header(AUTHORIZATION, basic);
    }
    let request = request.body(Full::from(Bytes::from(body.to_string())))?;
    let (status, answer) = http::ask_blocking(request, TIMEOUT, ANSWER_MAX)?;
    let answer: Value = serde_json::from_slice(&answer).unwrap_or_default();
    if !status.is_success() {
        let why = answer["message"].as_str().unwrap_or("without a reason");
        let advice = match (status, auth) {
            (StatusCode::UNAUTHORIZED, None) => {
                format!("; set {AUTH_VARIABLE} to USER:PASSWORD")
            }
            (StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN, Some(_)) => {
                format!("; look at {AUTH_VARIABLE}, and at what its user may do there")
            }
            _ => String::new(),
        };
        return Err(format!("it answers {status}, {why}{advice}").into());
    }
    Ok(answer["id"].clone())
}
