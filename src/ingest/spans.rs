//! Spans: one for each traced request, a child of the sender's, exported over OTLP.
//!
//! Without a collector in the settings there is no [`Tracer`]. With one, ended spans go into a bounded queue,
//! and a thread of the library sends them in batches. No request waits for it: spans are lost while the
//! collector is away or slow.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use http_body_util::Full;
use hyper::Request;
use hyper::header::CONTENT_TYPE;
use opentelemetry::trace::{
    Span as _, SpanBuilder, SpanContext, SpanId, SpanKind, Status, TraceContextExt, TraceFlags,
    TraceId, TraceState, Tracer as _, TracerProvider,
};
use opentelemetry::{Context, KeyValue};
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::transform::common::tonic::ResourceAttributesWithSchema;
use opentelemetry_proto::transform::trace::tonic::group_spans_by_resource_and_scope;
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::error::{OTelSdkError, OTelSdkResult};
use opentelemetry_sdk::resource::{EnvResourceDetector, TelemetryResourceDetector};
use opentelemetry_sdk::trace::{
    BatchConfigBuilder, BatchSpanProcessor, Sampler, SdkTracer, SdkTracerProvider, SpanData,
    SpanExporter,
};
use prost::Message;
use tokio::time::Instant;
use tracing::{info, warn};

use crate::click::outcome::{Held, Outcome, Refusal};
use crate::click::webhook::Webhook;
use crate::config::Config;
use crate::http;

/// Ended spans in the queue, some 1 KiB each; further ones are lost.
const QUEUE_MAX: usize = 4_096;

/// Spans sent at once.
const BATCH_MAX: usize = 512;

/// How long a span waits for its batch to fill.
const BATCH_DELAY: Duration = Duration::from_secs(1);

/// How long the collector may take for one batch.
const EXPORT_TIMEOUT: Duration = Duration::from_secs(5);

/// How long the last spans may delay the end of the process.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(1);

/// The least time between log lines while batches fail.
const LOG_INTERVAL: Duration = Duration::from_secs(60);

/// Begins spans.
pub struct Tracer {
    tracer: SdkTracer,
    provider: SdkTracerProvider,
    scheme: &'static str,
}

impl Tracer {
    /// None where the settings name no collector. Connects to nothing before there are spans.
    pub(super) fn start(config: &Config) -> Option<Tracer> {
        let endpoint = config.tracing.otlp_endpoint.trim_end_matches('/');
        if endpoint.is_empty() {
            return None;
        }
        // The environment's OTEL_RESOURCE_ATTRIBUTES take precedence.
        let resource = Resource::builder_empty()
            .with_service_name("hookbridge")
            .with_attribute(KeyValue::new("service.version", env!("CARGO_PKG_VERSION")))
            .with_detector(Box::new(TelemetryResourceDetector))
            .with_detector(Box::new(EnvResourceDetector::new()))
            .build();
        let batches = BatchConfigBuilder::default()
            .with_max_queue_size(QUEUE_MAX)
            .with_max_export_batch_size(BATCH_MAX)
            .with_scheduled_delay(BATCH_DELAY)
            .build();
        let collector = Collector {
            url: format!("{endpoint}/v1/traces"),
            resource: ResourceAttributesWithSchema::default(),
            failing: Mutex::default(),
        };
        let processor = BatchSpanProcessor::builder(collector).with_batch_config(batches).build();
        let ratio = Sampler::TraceIdRatioBased(config.tracing.sample_ratio);
        let provider = SdkTracerProvider::builder()
            .with_resource(resource)
            .with_sampler(Sampler::ParentBased(Box::new(ratio)))
            .with_span_processor(processor)
            .build();
        let scheme = if config.http.tls.is_some() { "https" } else { "http" };
        Some(Tracer { tracer: provider.tracer("hookbridge"), provider, scheme })
    }

    /// Begins the span of a request, if it is sampled: as its parent is, or without a parent by the ratio.
    /// Its attributes, here and at the end, are those of OpenTelemetry for HTTP servers and for messaging;
    /// none of them comes from the sender.
    pub(super) fn begin(&self, webhook: &Webhook, parent: Option<&str>) -> Option<Box<Span>> {
        let parent = parent.and_then(context).map(|p| Context::new().with_remote_span_context(p));
        let span = SpanBuilder::from_name("POST").with_kind(SpanKind::Server);
        let mut span = self.tracer.build_with_context(span, &parent.unwrap_or_default());
        if !span.is_recording() {
            return None;
        }
        span.update_name(format!("POST {}", webhook.path));
        span.set_attributes([
            KeyValue::new("http.request.method", "POST"),
            KeyValue::new("http.route", webhook.path.clone()),
            KeyValue::new("url.path", webhook.path.clone()),
            KeyValue::new("url.scheme", self.scheme),
        ]);
        let context = span.span_context();
        let (trace, id, flags) = (context.trace_id(), context.span_id(), context.trace_flags());
        let traceparent = format!("00-{trace}-{id}-{flags:02x}");
        Some(Box::new(Span { span, traceparent }))
    }

    /// Sends the last spans and ends, within a second.
    pub async fn close(&self, deadline: Instant) {
        let provider = self.provider.clone();
        let left = deadline.saturating_duration_since(Instant::now()).min(CLOSE_TIMEOUT);
        let closed =
            tokio::task::spawn_blocking(move || provider.shutdown_with_timeout(left)).await;
        if !matches!(closed, Ok(Ok(()))) {
            warn!("The last spans may be lost: the collector did not take them in time.");
        }
    }
}

/// The span of a request.
pub(super) struct Span {
    span: opentelemetry_sdk::trace::Span,
    /// The header `traceparent` of what follows this span.
    pub(super) traceparent: String,
}

impl Span {
    pub(super) fn end(mut self, webhook: &Webhook, outcome: Outcome) {
        let facts = outcome.facts();
        let span = &mut self.span;
        span.set_attribute(KeyValue::new("hookbridge.outcome", facts.tag));
        let is_gone = outcome == Outcome::Refused(Refusal::SenderGone);
        if !is_gone {
            let status = i64::from(facts.status.as_u16());
            span.set_attribute(KeyValue::new("http.response.status_code", status));
        }
        if is_gone || facts.status.is_server_error() {
            span.set_attribute(KeyValue::new("error.type", facts.tag));
            span.set_status(Status::error(facts.text));
        }
        if let Outcome::Held(held) = outcome {
            let route = &webhook.route;
            let topic =
                if held == Held::AsDeadLetter { &route.dead_letter_topic } else { &route.topic };
            span.set_attributes([
                KeyValue::new("messaging.system", "kafka"),
                KeyValue::new("messaging.operation.type", "send"),
                KeyValue::new("messaging.operation.name", "send"),
                KeyValue::new("messaging.destination.name", topic.clone()),
            ]);
        }
        span.end();
    }
}

/// A valid `traceparent` as the parent of a span, with the flags of version 00.
fn context(traceparent: &str) -> Option<SpanContext> {
    let mut parts = traceparent.split('-').skip(1);
    let trace = TraceId::from_hex(parts.next()?).ok()?;
    let parent = SpanId::from_hex(parts.next()?).ok()?;
    let flags = u8::from_str_radix(parts.next()?, 16).ok()? & FLAGS_KNOWN;
    Some(SpanContext::new(trace, parent, TraceFlags::new(flags), true, TraceState::NONE))
}

/// Sampled, and the trace id is random.
const FLAGS_KNOWN: u8 = 0b11;

/// Sends batches to the collector, and logs when that fails.
#[derive(Debug)]
struct Collector {
    url: String,
    resource: ResourceAttributesWithSchema,
    /// When the last failure was logged, while batches fail.
    failing: Mutex<Option<Instant>>,
}

impl Collector {
    fn send(&self, batch: Vec<SpanData>) -> Result<(), String> {
        let spans = ExportTraceServiceRequest {
            resource_spans: group_spans_by_resource_and_scope(batch, &self.resource),
        };
        let request = Request::post(&self.url)
            .header(CONTENT_TYPE, "application/x-protobuf")
            .body(Full::from(spans.encode_to_vec()))
            .map_err(|error| error.to_string())?;
        match http::send_blocking(request, EXPORT_TIMEOUT) {
            Ok(status) if status.is_success() => Ok(()),
            Ok(status) => Err(format!("the collector answers {status}")),
            Err(error) => Err(error.to_string()),
        }
    }

    fn report(&self, result: &Result<(), String>) {
        let mut failing = self.failing.lock().unwrap_or_else(PoisonError::into_inner);
        match result {
            Ok(()) if failing.take().is_some() => info!("Spans are exported again."),
            Err(cause) if failing.is_none_or(|said| said.elapsed() >= LOG_INTERVAL) => {
                warn!(cause, "Spans cannot be exported and are lost; clicks are not affected.");
                *failing = Some(Instant::now());
            }
            _ => {}
        }
    }
}

impl SpanExporter for Collector {
    /// Blocks the library's thread, which does nothing else.
    async fn export(&self, batch: Vec<SpanData>) -> OTelSdkResult {
        let result = self.send(batch);
        self.report(&result);
        result.map_err(OTelSdkError::InternalFailure)
    }

    fn set_resource(&mut self, resource: &Resource) {
        self.resource = resource.into();
    }
}
