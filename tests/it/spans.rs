//! Spans, as a collector receives them.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::net::{SocketAddr, TcpListener};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

use hookbridge::click::auth::Encoding;
use hookbridge::config::{AuthSchemeSettings, Config, InvalidBody};
use hookbridge::kafka::ConsumedRecord;
use http_body_util::{BodyExt, Full};
use hyper::body::{Bytes, Incoming};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::common::v1::{AnyValue, KeyValue};
use opentelemetry_proto::tonic::trace::v1::Span;
use opentelemetry_proto::tonic::trace::v1::span::SpanKind;
use opentelemetry_proto::tonic::trace::v1::status::StatusCode as SpanStatus;
use prost::Message;
use reqwest::{RequestBuilder, StatusCode};
use tokio::net::TcpSocket;
use tokio::sync::oneshot;
use tokio::time::Instant;

use crate::auth_schemes;
use crate::harness::brokers::Broker;
use crate::harness::process::Serve;
use crate::harness::support::{KEY, TestBridge, click, config, records, sender, until};
use crate::on_every_broker;

/// The `traceparent` of a sender, sampled and unsampled.
const SAMPLED: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
const UNSAMPLED: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-00";

/// A collector that accepts OTLP over HTTP and keeps the spans.
struct Collector {
    address: SocketAddr,
    book: Arc<Book>,
    /// The instance that the bridge's environment names.
    instance: Option<&'static str>,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Default)]
struct Book {
    connections: AtomicUsize,
    exports: Mutex<Vec<ExportTraceServiceRequest>>,
}

impl Collector {
    fn start() -> Collector {
        Collector::start_on(TcpListener::bind("127.0.0.1:0").unwrap())
    }

    /// Runs on its own thread, because tests block theirs.
    fn start_on(listener: TcpListener) -> Collector {
        listener.set_nonblocking(true).unwrap();
        let address = listener.local_addr().unwrap();
        let book = Arc::new(Book::default());
        let (stop, stopped) = oneshot::channel::<()>();
        let serve = serve(listener, book.clone());
        let thread = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            runtime.unwrap().block_on(async {
                tokio::select! {
                    () = serve => {}
                    _ = stopped => {}
                }
            });
        });
        Collector { address, book, instance: None, stop: Some(stop), thread: Some(thread) }
    }

    fn endpoint(&self) -> String {
        format!("http://{}", self.address)
    }

    fn connections(&self) -> usize {
        self.book.connections.load(Ordering::Relaxed)
    }

    /// Every received span, after a check of its resource.
    fn spans(&self) -> Vec<Span> {
        let exports = self.book.exports.lock().unwrap();
        let of_resources = exports.iter().flat_map(|export| &export.resource_spans);
        let spans = of_resources.flat_map(|from| {
            let resource = attributes(&from.resource.as_ref().unwrap().attributes);
            assert_eq!(resource["service.name"], "hookbridge");
            assert_eq!(resource["service.version"], env!("CARGO_PKG_VERSION"));
            assert_eq!(resource.get("service.instance.id").map(|id| &**id), self.instance);
            from.scope_spans.iter().flat_map(|scope| scope.spans.clone())
        });
        spans.collect()
    }
}

impl Drop for Collector {
    fn drop(&mut self) {
        drop(self.stop.take());
        let _ = self.thread.take().unwrap().join();
    }
}

async fn serve(listener: TcpListener, book: Arc<Book>) {
    let listener = tokio::net::TcpListener::from_std(listener).unwrap();
    loop {
        let (stream, _) = listener.accept().await.unwrap();
        book.connections.fetch_add(1, Ordering::Relaxed);
        let book = book.clone();
        let take = service_fn(move |request| take(request, book.clone()));
        // Some collectors close the connection after each answer: that is not a failure.
        let mut http = http1::Builder::new();
        tokio::spawn(http.keep_alive(false).serve_connection(TokioIo::new(stream), take));
    }
}

async fn take(
    request: hyper::Request<Incoming>,
    book: Arc<Book>,
) -> Result<hyper::Response<Full<Bytes>>, Infallible> {
    assert_eq!((request.method().as_str(), request.uri().path()), ("POST", "/v1/traces"));
    assert_eq!(request.headers()["content-type"], "application/x-protobuf");
    assert!(request.headers().contains_key("host"));
    #[expect(clippy::disallowed_methods, reason = "what the test itself has caused")]
    let body = request.into_body().collect().await.unwrap().to_bytes();
    book.exports.lock().unwrap().push(ExportTraceServiceRequest::decode(body).unwrap());
    Ok(hyper::Response::new(Full::default()))
}

fn attributes(list: &[KeyValue]) -> BTreeMap<String, String> {
    let text = |value: &Option<AnyValue>| match value.as_ref().unwrap().value.as_ref().unwrap() {
        Value::StringValue(text) => text.clone(),
        Value::IntValue(number) => number.to_string(),
        other => panic!("{other:?}"),
    };
    let all: BTreeMap<_, _> = list.iter().map(|a| (a.key.clone(), text(&a.value))).collect();
    assert_eq!(all.len(), list.len(), "an attribute stands twice: {list:?}");
    all
}

/// Compares all attributes of the span.
#[track_caller]
fn check_attributes(span: &Span, expected: &[(&str, &str)]) {
    let expected = expected.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
    assert_eq!(attributes(&span.attributes), expected);
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn traceparent(record: &ConsumedRecord) -> Option<&str> {
    let mut all = record.headers.iter().filter(|(name, _)| name == "traceparent");
    let first = all.next().map(|(_, value)| value.as_str());
    assert!(all.next().is_none());
    first
}

/// A bridge whose spans go to this endpoint.
async fn traced(broker: &Broker, endpoint: &str, ratio: f64) -> TestBridge {
    TestBridge::start_with(broker, |config| {
        config.tracing.otlp_endpoint = endpoint.to_owned();
        config.tracing.sample_ratio = ratio;
    })
    .await
}

/// Sends a request as part of a trace.
async fn post(request: RequestBuilder, trace: &str) -> StatusCode {
    request.header("traceparent", trace).send().await.unwrap().status()
}

on_every_broker! {
    /// At any ratio there is one span, the child of the sender's and the parent of the reader's. It is
    /// exported before the bridge has stopped.
    async fn a_sampled_parent_is_followed(broker: Broker) {
        let collector = Collector::start();
        let bridge = traced(&broker, &collector.endpoint(), 0.0).await;
        assert_eq!(post(bridge.request(click("7")), SAMPLED).await, StatusCode::OK);
        let (record, path) = (bridge.record(), bridge.config.webhook[0].path.clone());
        let topic = bridge.topic().to_owned();
        assert!(bridge.stopped().is_clean());
        let spans = collector.spans();
        let [span] = &spans[..] else { panic!("{spans:?}") };
        assert_eq!(hex(&span.trace_id), "0af7651916cd43dd8448eb211c80319c");
        assert_eq!(hex(&span.parent_span_id), "b7ad6b7169203331");
        let child = format!("00-0af7651916cd43dd8448eb211c80319c-{}-01", hex(&span.span_id));
        assert_eq!(traceparent(&record), Some(&*child));
        assert_ne!(span.span_id, span.parent_span_id);
        assert_eq!((span.kind(), &*span.name), (SpanKind::Server, &*format!("POST {path}")));
        assert!(span.start_time_unix_nano < span.end_time_unix_nano);
        assert!(span.status.as_ref().is_none_or(|status| status.code() == SpanStatus::Unset));
        check_attributes(
            span,
            &[
                ("http.request.method", "POST"),
                ("http.response.status_code", "200"),
                ("http.route", &path),
                ("url.path", &path),
                ("url.scheme", "http"),
                ("hookbridge.outcome", "accepted"),
                ("messaging.destination.name", &topic),
                ("messaging.operation.name", "send"),
                ("messaging.operation.type", "send"),
                ("messaging.system", "kafka"),
            ],
        );
    }
}

on_every_broker! {
    /// At 1 every request is traced, and the record carries the new trace.
    async fn without_a_parent_the_ratio_decides(broker: Broker) {
        let collector = Collector::start();
        let bridge = traced(&broker, &collector.endpoint(), 1.0).await;
        assert_eq!(bridge.post(click("7")).await.status(), StatusCode::OK);
        let first = bridge.record();
        // Spans are exported in the background, not only at the end.
        until("a span", async || !collector.spans().is_empty()).await;
        // An unsampled parent is respected: no span, and the header is passed on unchanged.
        assert_eq!(post(bridge.request(click("8")), UNSAMPLED).await, StatusCode::OK);
        let records = bridge.records(2);
        assert!(bridge.stopped().is_clean());
        let spans = collector.spans();
        let [span] = &spans[..] else { panic!("{spans:?}") };
        assert!(span.parent_span_id.is_empty(), "{span:?}");
        let (trace, id) = (hex(&span.trace_id), hex(&span.span_id));
        assert_eq!(traceparent(&first), Some(&*format!("00-{trace}-{id}-01")));
        let second = records.iter().find(|record| record.value == click("8")).unwrap();
        assert_eq!(traceparent(second), Some(UNSAMPLED));
    }
}

/// The bridge makes no connection to the collector.
#[tokio::test]
async fn a_ratio_of_0_starts_no_traces() {
    let collector = Collector::start();
    let broker = Broker::embedded();
    let bridge = traced(&broker, &collector.endpoint(), 0.0).await;
    for _ in 0..20 {
        assert_eq!(bridge.post(click("7")).await.status(), StatusCode::OK);
    }
    assert_eq!(post(bridge.request(click("8")), UNSAMPLED).await, StatusCode::OK);
    let mut headers: Vec<_> =
        bridge.records(21).iter().map(|r| traceparent(r).map(str::to_owned)).collect();
    headers.sort();
    assert_eq!(headers[..20], vec![None; 20]);
    assert_eq!(headers[20].as_deref(), Some(UNSAMPLED));
    assert!(bridge.stopped().is_clean());
    assert_eq!(collector.connections(), 0);
}

/// Only the fields of version 00 are read.
#[tokio::test]
async fn a_later_version_of_traceparent_is_followed() {
    let collector = Collector::start();
    let broker = Broker::embedded();
    let bridge = traced(&broker, &collector.endpoint(), 0.0).await;
    let later = "cc-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-ff-more";
    assert_eq!(post(bridge.request(click("7")), later).await, StatusCode::OK);
    let record = bridge.record();
    assert!(bridge.stopped().is_clean());
    let id = hex(&collector.spans()[0].span_id);
    let child = format!("00-0af7651916cd43dd8448eb211c80319c-{id}-03");
    assert_eq!(traceparent(&record), Some(&*child));
}

#[tokio::test]
async fn spans_carry_the_outcome_and_strangers_have_none() {
    let collector = Collector::start();
    let broker = Broker::embedded();
    let bridge = TestBridge::start_with(&broker, |config: &mut Config| {
        config.tracing.otlp_endpoint = collector.endpoint();
        config.http.max_body_bytes = 1_000;
        let mut strict = config.webhook[0].clone();
        (strict.name, strict.path) = ("strict".into(), "/strict".into());
        strict.invalid = InvalidBody::Reject;
        let auth = AuthSchemeSettings::HmacSha256(auth_schemes::signing(Encoding::Hex, ""));
        let signed = auth_schemes::webhook(&config.webhook[0], "signed", auth);
        config.webhook.extend([strict, signed]);
    })
    .await;
    assert_eq!(post(bridge.request("{"), SAMPLED).await, StatusCode::OK);
    assert_eq!(
        post(bridge.request(vec![b' '; 1_001]), SAMPLED).await,
        StatusCode::PAYLOAD_TOO_LARGE
    );
    for (key, status) in [("wrong", StatusCode::UNAUTHORIZED), (KEY, StatusCode::BAD_REQUEST)] {
        let strict = sender().post(format!("http://{}/strict", bridge.http)).body("{");
        assert_eq!(post(strict.bearer_auth(key), SAMPLED).await, status);
    }
    // A signature can be checked only after the body.
    for (key, status) in [("wrong", StatusCode::UNAUTHORIZED), (KEY, StatusCode::OK)] {
        let signed = sender().post(format!("http://{}/signed", bridge.http)).body(click("7"));
        let signed = signed.header("X-Signature", auth_schemes::hex(key, &click("7")));
        assert_eq!(post(signed, SAMPLED).await, status);
    }
    // A sender that hangs up while its body is read.
    let mut raw = bridge.raw();
    let path = bridge.config.webhook[0].path.clone();
    raw.send_head(&path, &format!("traceparent: {SAMPLED}\r\ncontent-length: 500\r\n"));
    until("in flight", async || bridge.metric("hookbridge_requests_in_flight").await == 1.0).await;
    drop(raw);
    until("abandoned", async || bridge.outcomes("abandoned").await == 1.0).await;
    let letter = bridge.dead_letter();
    let letters = bridge.config.webhook[0].dead_letters();
    assert!(bridge.stopped().is_clean());

    let spans = collector.spans();
    let with = |outcome: &str| {
        let mut all = spans
            .iter()
            .filter(|span| attributes(&span.attributes)["hookbridge.outcome"] == outcome);
        let first = all.next().unwrap_or_else(|| panic!("no {outcome} in {spans:?}"));
        assert!(all.next().is_none(), "{outcome} twice");
        first
    };
    assert_eq!(spans.len(), 5, "{spans:?}");
    assert_eq!(attributes(&with("accepted").attributes)["http.route"], "/signed");
    let dead = with("dead_lettered");
    assert_eq!(attributes(&dead.attributes)["messaging.destination.name"], letters);
    assert!(traceparent(&letter).unwrap().contains(&hex(&dead.span_id)));
    let refused = |status, path, outcome| {
        vec![
            ("http.request.method", "POST"),
            ("http.response.status_code", status),
            ("http.route", path),
            ("url.path", path),
            ("url.scheme", "http"),
            ("hookbridge.outcome", outcome),
        ]
    };
    check_attributes(with("body_too_large"), &refused("413", &path, "body_too_large"));
    check_attributes(with("malformed"), &refused("400", "/strict", "malformed"));
    let gone = with("abandoned");
    assert_eq!(gone.status.as_ref().unwrap().code(), SpanStatus::Error);
    let attributes = attributes(&gone.attributes);
    assert_eq!(attributes["error.type"], "abandoned");
    assert!(!attributes.contains_key("http.response.status_code"));
}

/// The collector accepts connections and never answers. More clicks than the queue of spans holds are
/// answered without delay, and the stop is in time.
#[tokio::test]
async fn a_collector_that_hangs_delays_nothing() {
    const CLICKS: usize = 8_000;
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let endpoint = format!("http://{}", silent.local_addr().unwrap());
    let broker = Broker::embedded();
    let bridge = traced(&broker, &endpoint, 1.0).await;
    let senders = (0..16).map(|_| {
        let (client, url) = (sender(), bridge.url());
        tokio::spawn(async move {
            let mut slowest = Duration::ZERO;
            for _ in 0..CLICKS / 16 {
                let began = Instant::now();
                let request = client.post(&url).bearer_auth(KEY).body(click("7"));
                assert_eq!(request.send().await.unwrap().status(), StatusCode::OK);
                slowest = slowest.max(began.elapsed());
            }
            slowest
        })
    });
    for sender in senders.collect::<Vec<_>>() {
        let slowest = sender.await.unwrap();
        // Less than the time-out of an export.
        assert!(slowest < Duration::from_secs(5), "{slowest:?}");
    }
    // The export has begun, and delays no answer.
    silent.set_nonblocking(true).unwrap();
    let mut asked = None;
    until("asked", async || {
        asked = asked.take().or_else(|| silent.accept().ok());
        asked.is_some()
    })
    .await;
    assert_eq!(bridge.outcomes("accepted").await, CLICKS as f64);
    let began = Instant::now();
    assert!(bridge.stopped().is_clean());
    // The full queue is eight batches, each with a time-out of five seconds.
    assert!(began.elapsed() < Duration::from_secs(20), "{:?}", began.elapsed());
}

/// The log has one line for the whole outage.
#[tokio::test]
async fn a_collector_that_comes_back_gets_spans() {
    let broker = Broker::embedded();
    // The port is bound without a listener.
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind(([127, 0, 0, 1], 0).into()).unwrap();
    let address = socket.local_addr().unwrap();
    let mut config = config(&broker);
    config.tracing.otlp_endpoint = format!("http://{address}/");
    broker.create_topic(&config.webhook[0].topic, 12).await;
    let folder = tempfile::tempdir().unwrap();
    let first = "export OTEL_RESOURCE_ATTRIBUTES=service.instance.id=replica-1";
    let mut serve = Serve::launch(&config, folder.path(), first);
    until("ready", async || serve.is_ready().await).await;
    assert_eq!(post(serve.post(click("away")), SAMPLED).await, StatusCode::OK);
    serve.wait_for_log("Spans cannot be exported");
    let mut collector = Collector::start_on(socket.listen(16).unwrap().into_std().unwrap());
    collector.instance = Some("replica-1");
    until("back", async || {
        assert_eq!(post(serve.post(click("back")), SAMPLED).await, StatusCode::OK);
        !collector.spans().is_empty()
    })
    .await;
    serve.wait_for_log("Spans are exported again");
    let (code, log) = serve.stop();
    assert_eq!(code, 0, "{log}");
    assert_eq!(log.matches("Spans cannot be exported").count(), 1, "{log}");
    assert!(log.contains("refused"), "the log does not say why: {log}");
}

/// This holds even where the environment names a collector. The sender's header is passed on unchanged.
#[tokio::test]
async fn without_an_endpoint_nothing_is_sent() {
    let collector = Collector::start();
    let broker = Broker::embedded();
    let mut config = config(&broker);
    config.tracing.sample_ratio = 1.0;
    broker.create_topic(&config.webhook[0].topic, 12).await;
    let folder = tempfile::tempdir().unwrap();
    let first = format!("export OTEL_EXPORTER_OTLP_ENDPOINT={}", collector.endpoint());
    let serve = Serve::launch(&config, folder.path(), &first);
    until("ready", async || serve.is_ready().await).await;
    assert_eq!(post(serve.post(click("7")), SAMPLED).await, StatusCode::OK);
    let record = records(&config, &config.webhook[0].topic, 1).remove(0);
    assert_eq!(traceparent(&record), Some(SAMPLED));
    let (code, log) = serve.stop();
    assert_eq!(code, 0, "{log}");
    assert_eq!(collector.connections(), 0);
}
