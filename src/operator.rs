//! The operator's listener, on a thread of its own, so that no load on the senders' side can blind
//! the operator.
//!
//! - `GET /metrics`: everything in Prometheus' text form.
//! - `GET /livez`: 200 while the process answers. Kafka has no say in it: a restart cures no broker.
//! - `GET /readyz`: 200 while the replica should be sent requests, else 503 with the reason.
//! - `GET /asyncapi.json`, `/schemas/NAME.json`: what is in the topics (`operator/schema.rs`).
//! - `GET /openapi.json`: what both listeners take and answer (`operator/openapi.rs`).
//! - `GET /`, `/page/...`: the live page (`operator/page.rs`), unless `admin.page` is off.

pub mod openapi;
pub mod page;
pub mod schema;

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::thread::JoinHandle;

use bytes::Bytes;
use http_body_util::{Channel, Full};
use hyper::body::{Body, Frame, Incoming, SizeHint};
use hyper::header::{self, HeaderName, HeaderValue};
use hyper::{Method, Request, StatusCode};
use tokio::net::TcpListener;
use tokio::sync::oneshot;

use crate::config::{self, Config, Problem};
use crate::http::{self, Acceptor, Drain, Handler, InFlightRequest, Peer};
use crate::observe::health::Health;
use crate::observe::metrics::{ConnectionMetrics, Metrics};
use page::Page;

type Response = hyper::Response<Answer>;

/// A scraper, a kubelet and a few people.
const CONNECTIONS_MAX: usize = 64;

/// The running listener.
pub struct Admin {
    stop: oneshot::Sender<()>,
    thread: JoinHandle<()>,
}

impl Admin {
    /// Starts serving.
    ///
    /// # Errors
    ///
    /// No thread, or a socket that cannot be used.
    pub fn start(
        listener: std::net::TcpListener,
        config: &Config,
        metrics: Arc<Metrics>,
        health: Arc<Health>,
    ) -> io::Result<Admin> {
        let page = || Arc::new(Page::new(config, metrics.clone(), health.clone()));
        let page = config.admin.page.then(page);
        let limits = config::HttpSettings {
            max_connections: CONNECTIONS_MAX,
            max_connections_per_address: 0,
            // No balancer stands before it.
            trusted_proxies: Vec::new(),
            tls: None,
            ..config.http.clone()
        };
        let documents = Arc::new(documents(config).map_err(io::Error::other)?);
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let (stop, stopped) = oneshot::channel();
        let serve = serve(listener, limits, Routes { metrics, health, documents, page });
        let thread = std::thread::Builder::new().name("admin".into()).spawn(move || {
            runtime.block_on(async {
                tokio::select! {
                    result = serve => if let Err(error) = result {
                        tracing::error!(%error, "The admin listener cannot be served.");
                    },
                    _ = stopped => {}
                }
            });
        })?;
        Ok(Admin { stop, thread })
    }

    /// Stops at once: an operator's question can be asked again.
    pub fn stop(self) {
        drop(self.stop);
        let _ = self.thread.join();
    }
}

async fn serve(
    listener: std::net::TcpListener,
    limits: config::HttpSettings,
    routes: Routes,
) -> io::Result<()> {
    let listener = TcpListener::from_std(listener)?;
    // The operator's connections are not the senders': they are limited, but not counted.
    let metrics = ConnectionMetrics::new(&prometheus::Registry::new()).map_err(io::Error::other)?;
    let acceptor = Acceptor::new(&limits, metrics);
    let limits = Arc::new(limits);
    if let Some(page) = routes.page.clone() {
        tokio::spawn(async move { page.run().await });
    }
    loop {
        let socket = acceptor.accept(&listener).await;
        let (routes, limits) = (routes.clone(), limits.clone());
        tokio::spawn(
            async move { http::serve(socket, routes, &limits, &Drain::default(), None).await },
        );
    }
}

#[derive(Clone)]
struct Routes {
    metrics: Arc<Metrics>,
    health: Arc<Health>,
    /// By path.
    documents: Arc<BTreeMap<String, Bytes>>,
    /// None where it is off.
    page: Option<Arc<Page>>,
}

impl Handler for Routes {
    type Body = Answer;

    async fn handle(&self, _peer: Peer, request: Request<Incoming>) -> Response {
        if !matches!(*request.method(), Method::GET | Method::HEAD) {
            let mut refused = text(StatusCode::METHOD_NOT_ALLOWED, "GET only\n");
            let allowed = HeaderValue::from_static("GET, HEAD");
            refused.headers_mut().insert(header::ALLOW, allowed);
            return refused;
        }
        match request.uri().path() {
            "/metrics" => self.scrape(),
            "/livez" => text(StatusCode::OK, "alive\n"),
            "/readyz" => match self.health.ready() {
                Ok(()) => text(StatusCode::OK, "ready\n"),
                Err(reason) => text(StatusCode::SERVICE_UNAVAILABLE, reason.text()),
            },
            path => match self.documents.get(path) {
                Some(document) => answer(document.clone(), "application/json"),
                None => self.page.as_ref().and_then(|page| see(page, path)).unwrap_or_else(nothing),
            },
        }
    }

    fn panicked(&self) -> Response {
        text(StatusCode::INTERNAL_SERVER_ERROR, "a panic; the log says where\n")
    }

    fn answered(answer: &mut Response, in_flight: InFlightRequest) {
        if let Answer::Events(_, kept) = answer.body_mut() {
            *kept = Some(in_flight);
        }
    }
}

impl Routes {
    fn scrape(&self) -> Response {
        match self.metrics.scrape() {
            Ok(metrics) => answer(metrics, "text/plain; version=0.0.4; charset=utf-8"),
            Err(error) => text(StatusCode::INTERNAL_SERVER_ERROR, &format!("{error}\n")),
        }
    }
}

fn nothing() -> Response {
    let known =
        "/metrics, /livez, /readyz, /openapi.json, /asyncapi.json; / where admin.page is on\n";
    text(StatusCode::NOT_FOUND, known)
}

/// What machines may know of the listeners and the topics, by path.
fn documents(config: &Config) -> Result<BTreeMap<String, Bytes>, Problem> {
    let schema = |webhook: &config::WebhookSettings| {
        (format!("/schemas/{}.json", webhook.name), schema::of_events(webhook))
    };
    let schemas = config.webhook.iter().map(schema);
    let documents = schemas.chain([("/asyncapi.json".to_owned(), schema::of_topics(config))]);
    let mut documents: BTreeMap<String, Bytes> =
        documents.map(|(path, document)| (path, document.to_string().into())).collect();
    documents.insert("/openapi.json".to_owned(), openapi::document(config)?.into());
    Ok(documents)
}

/// The page and what belongs to it, if that is asked for.
fn see(page: &Page, path: &str) -> Option<Response> {
    let mut answer = match path {
        "/" => answer(page.show().into_string(), "text/html; charset=utf-8"),
        "/page/style.css" => answer(page::STYLE, "text/css; charset=utf-8"),
        "/page/script.js" => answer(page::SCRIPT, "text/javascript; charset=utf-8"),
        "/page/events" => match page.follow() {
            Some(events) => typed(Answer::Events(events, None), "text/event-stream"),
            None => text(StatusCode::SERVICE_UNAVAILABLE, "too many look at the page already\n"),
        },
        _ => return None,
    };
    for (name, value) in [
        (header::CONTENT_SECURITY_POLICY, page::POLICY),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::REFERRER_POLICY, "no-referrer"),
        (header::CACHE_CONTROL, "no-store"),
        (HeaderName::from_static("cross-origin-resource-policy"), "same-origin"),
        (HeaderName::from_static("cross-origin-opener-policy"), "same-origin"),
    ] {
        answer.headers_mut().insert(name, HeaderValue::from_static(value));
    }
    Some(answer)
}

fn text(status: StatusCode, text: &str) -> Response {
    let mut response = answer(text.to_owned(), "text/plain; charset=utf-8");
    *response.status_mut() = status;
    response
}

fn answer(body: impl Into<Bytes>, content_type: &'static str) -> Response {
    typed(Answer::Whole(Full::new(body.into())), content_type)
}

fn typed(body: Answer, content_type: &'static str) -> Response {
    let mut response = Response::new(body);
    let content_type = HeaderValue::from_static(content_type);
    response.headers_mut().insert(header::CONTENT_TYPE, content_type);
    response
}

/// What the operator is told: all at once, or as it comes.
enum Answer {
    Whole(Full<Bytes>),
    /// With the request that is in hand for as long.
    Events(Channel<Bytes>, Option<InFlightRequest>),
}

impl Body for Answer {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        self: Pin<&mut Self>,
        context: &mut Context,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        match self.get_mut() {
            Answer::Whole(body) => Pin::new(body).poll_frame(context),
            Answer::Events(body, _) => Pin::new(body).poll_frame(context),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Answer::Whole(body) => body.is_end_stream(),
            Answer::Events(body, _) => body.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Answer::Whole(body) => body.size_hint(),
            Answer::Events(body, _) => body.size_hint(),
        }
    }
}
