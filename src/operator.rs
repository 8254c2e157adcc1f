//! What an operator or a machine reads: the admin listener and the documents on it.
//!
//! The listener has its own thread, so that no load of clicks can keep an operator out. `routes` is the
//! list of its paths.
//!
//! - `origin.rs`: whose requests it answers.
//! - `openapi.rs`: what both listeners take and answer, as OpenAPI.
//! - `schema.rs`: what is in the topics, as JSON Schema, AsyncAPI, and for stream processors.
//! - `page.rs`: the live page.

pub mod openapi;
mod origin;
mod page;
pub mod schema;

use std::convert::Infallible;
use std::io;
use std::sync::Arc;

use bytes::Bytes;
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full};
use hyper::body::{Body, Incoming};
use hyper::header::{self, HeaderValue};
use hyper::{Method, Request, Response, StatusCode};
use tokio::net::TcpListener;

use crate::config::{Config, HttpSettings};
use crate::http::{self, Acceptor, Drain, Handler, InFlightRequest, Peer};
use crate::observe::health::Health;
use crate::observe::metrics::{ConnectionMetrics, Metrics};
use RouteContent::{Events, Fixed, Html, Livez, OpenApi, Readyz, Scrape};
use origin::Hosts;
use page::Page;
use schema::Format;

/// A scraper, a kubelet and a few people.
const CONNECTIONS_MAX: usize = 64;

const TEXT: &str = "text/plain; charset=utf-8";
const JSON: &str = "application/json";

/// The answer at any other path.
const UNKNOWN: &str = "/metrics, /livez, /readyz, /openapi.json, /asyncapi.json, /schemas/NAME.json; / where admin.page is on\n";

/// The listener. Dropping the future stops it at once, without waiting for answers: an operator can ask
/// again.
///
/// # Errors
///
/// The OpenAPI document cannot be made.
pub fn serve(
    listener: std::net::TcpListener,
    config: &Config,
    metrics: Arc<Metrics>,
    health: Arc<Health>,
) -> io::Result<impl Future<Output = ()> + Send + use<>> {
    let limits = HttpSettings {
        max_connections: CONNECTIONS_MAX,
        max_connections_per_address: 0,
        // No balancer stands before it.
        trusted_proxies: Vec::new(),
        tls: None,
        ..config.http.clone()
    };
    let handler = AdminHandler {
        routes: routes(config).into(),
        hosts: Hosts::new(&config.admin.hosts).into(),
        openapi: openapi::document(config).map_err(io::Error::other)?.into(),
        page: Arc::new(Page::new(config, metrics.clone(), health.clone())),
        metrics,
        health,
    };
    let page = config.admin.page.then(|| handler.page.clone());
    Ok(async {
        if let Some(page) = page {
            tokio::spawn(async move { page.run().await });
        }
        if let Err(error) = accept(listener, limits, handler).await {
            tracing::error!(%error, "The admin listener cannot be served.");
        }
    })
}

async fn accept(
    listener: std::net::TcpListener,
    limits: HttpSettings,
    handler: AdminHandler,
) -> io::Result<()> {
    let listener = TcpListener::from_std(listener)?;
    // Connections to the admin listener are limited, but not counted with those of senders.
    let metrics = ConnectionMetrics::new(&prometheus::Registry::new()).map_err(io::Error::other)?;
    let acceptor = Acceptor::new(&limits, metrics);
    let limits = Arc::new(limits);
    loop {
        let socket = acceptor.accept(&listener).await;
        let (handler, limits) = (handler.clone(), limits.clone());
        tokio::spawn(async move {
            http::serve(socket, &handler, &limits, &Drain::default(), None).await
        });
    }
}

/// A path of the listener: how to answer it, and what the OpenAPI document says of it.
struct AdminRoute {
    path: String,
    id: String,
    summary: String,
    media: &'static str,
    /// When it is answered 503.
    unavailable: Option<&'static str>,
    content: RouteContent,
}

impl AdminRoute {
    /// Whether probes and scrapers ask for it, which use any name: it is answered whoever asks.
    fn is_for_everybody(&self) -> bool {
        matches!(self.content, Scrape | Livez | Readyz)
    }
}

enum RouteContent {
    Scrape,
    Livez,
    Readyz,
    OpenApi,
    Html,
    Events,
    Fixed(Bytes),
}

/// Every path of the listener.
fn routes(config: &Config) -> Vec<AdminRoute> {
    let route = |path: &str, id: &str, summary: &str, media, content| AdminRoute {
        path: path.to_owned(),
        id: id.to_owned(),
        summary: summary.to_owned(),
        media,
        unavailable: None,
        content,
    };
    let document = |document: serde_json::Value| Fixed(document.to_string().into());
    let metrics = "text/plain; version=0.0.4; charset=utf-8";
    let topics = document(schema::of_topics(config));
    let mut routes = vec![
        route("/metrics", "metrics", "Everything in Prometheus' text form", metrics, Scrape),
        // Kafka has no say in it: a restart cures no broker.
        route("/livez", "livez", "The process answers", TEXT, Livez),
        AdminRoute {
            unavailable: Some("It should not; why"),
            ..route("/readyz", "readyz", "The replica should be sent requests", TEXT, Readyz)
        },
        route("/openapi.json", "openapi", "This document", JSON, OpenApi),
        route("/asyncapi.json", "asyncapi", "What is in the topics", JSON, topics),
    ];
    for webhook in &config.webhook {
        let name = &webhook.name;
        let (path, id) = (format!("/schemas/{name}.json"), format!("schema-{name}"));
        let summary = format!("The JSON Schema of {name}'s events");
        let schema = document(schema::of_events(webhook));
        routes.push(route(&path, &id, &summary, JSON, schema));
        for format in Format::OF_WEBHOOKS {
            let end = format.extension();
            let id = format!("schema-{name}-{}", end.replace('.', "-"));
            let summary = format!("What `hookbridge schema` prints of {name} ({end})");
            let text = schema::document(config, webhook, format).into();
            routes.push(route(&format!("/schemas/{name}.{end}"), &id, &summary, TEXT, Fixed(text)));
        }
    }
    if config.admin.page {
        let (html, css) = ("text/html; charset=utf-8", "text/css; charset=utf-8");
        let (script, events) = ("text/javascript; charset=utf-8", "text/event-stream");
        let fixed = |text: &'static str| Fixed(Bytes::from_static(text.as_bytes()));
        routes.extend([
            route("/", "page", "The live page", html, Html),
            route("/page/style.css", "style", "Its looks", css, fixed(page::STYLE)),
            route("/page/script.js", "script", "Its script", script, fixed(page::SCRIPT)),
            AdminRoute {
                unavailable: Some("Too many look at the page already"),
                ..route("/page/events", "events", "What changes on it", events, Events)
            },
        ]);
    }
    routes
}

type AdminBody = UnsyncBoxBody<Bytes, Infallible>;

#[derive(Clone)]
struct AdminHandler {
    metrics: Arc<Metrics>,
    health: Arc<Health>,
    page: Arc<Page>,
    openapi: Bytes,
    routes: Arc<[AdminRoute]>,
    hosts: Arc<Hosts>,
}

impl Handler for AdminHandler {
    type Body = AdminBody;

    async fn handle(&self, _peer: Peer, request: Request<Incoming>) -> Response<AdminBody> {
        let mut answer = self.receive(&request);
        for (name, value) in origin::HEADERS {
            answer.headers_mut().insert(name, HeaderValue::from_static(value));
        }
        answer
    }

    fn panicked(&self) -> Response<AdminBody> {
        text(StatusCode::INTERNAL_SERVER_ERROR, "a panic; the log says where\n")
    }

    fn answered(answer: &mut Response<AdminBody>, in_flight: InFlightRequest) {
        // The page's events, whose length nobody knows, keep the request in flight.
        if answer.body().size_hint().exact().is_none() {
            let events = std::mem::take(answer.body_mut());
            let events = events.map_frame(move |frame| {
                let _ = &in_flight;
                frame
            });
            *answer.body_mut() = events.boxed_unsync();
        }
    }
}

impl AdminHandler {
    fn receive(&self, request: &Request<Incoming>) -> Response<AdminBody> {
        let path = request.uri().path();
        let route = self.routes.iter().find(|route| route.path == path);
        if !route.is_some_and(AdminRoute::is_for_everybody)
            && let Err((status, why)) = self.hosts.check(request)
        {
            return text(status, why);
        }
        if !matches!(*request.method(), Method::GET | Method::HEAD) {
            let mut refused = text(StatusCode::METHOD_NOT_ALLOWED, "GET only\n");
            let allowed = HeaderValue::from_static("GET, HEAD");
            refused.headers_mut().insert(header::ALLOW, allowed);
            return refused;
        }
        route.map_or_else(|| text(StatusCode::NOT_FOUND, UNKNOWN), |route| self.answer(route))
    }

    fn answer(&self, route: &AdminRoute) -> Response<AdminBody> {
        let unavailable = |why| text(StatusCode::SERVICE_UNAVAILABLE, why);
        let whole = |body: Bytes| typed(Full::new(body).boxed_unsync(), route.media);
        match &route.content {
            Scrape => match self.metrics.scrape() {
                Ok(metrics) => whole(metrics.into()),
                Err(error) => text(StatusCode::INTERNAL_SERVER_ERROR, &format!("{error}\n")),
            },
            Livez => text(StatusCode::OK, "alive\n"),
            Readyz => match self.health.ready() {
                Ok(()) => text(StatusCode::OK, "ready\n"),
                Err(reason) => unavailable(&reason.to_string()),
            },
            OpenApi => whole(self.openapi.clone()),
            Html => whole(self.page.show().into()),
            Events => match self.page.follow() {
                Some(events) => typed(events.boxed_unsync(), route.media),
                None => unavailable("too many look at the page already\n"),
            },
            Fixed(document) => whole(document.clone()),
        }
    }
}

fn text(status: StatusCode, text: &str) -> Response<AdminBody> {
    let mut response = typed(Full::new(text.to_owned().into()).boxed_unsync(), TEXT);
    *response.status_mut() = status;
    response
}

fn typed(body: AdminBody, media: &'static str) -> Response<AdminBody> {
    let mut response = Response::new(body);
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(media));
    response
}
