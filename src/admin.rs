//! The operator's listener, on a thread of its own, so that no load on the senders' side can blind
//! the operator.
//!
//! - `GET /metrics`: everything in Prometheus' text form.
//! - `GET /livez`: 200 while the process answers. Kafka has no say in it: a restart cures no broker.
//! - `GET /readyz`: 200 while the replica should be sent requests, else 503 with the reason.

use std::io;
use std::sync::Arc;
use std::thread::JoinHandle;

use bytes::Bytes;
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::header::{self, HeaderValue};
use hyper::{Method, Request, StatusCode};
use tokio::net::TcpListener;
use tokio::sync::oneshot;

use crate::config;
use crate::health::Health;
use crate::http::{self, Drain, Gate, Handler, Peer, Response};
use crate::metrics::{ConnectionMetrics, Metrics};

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
        limits: &config::Http,
        metrics: Arc<Metrics>,
        health: Arc<Health>,
    ) -> io::Result<Admin> {
        let limits = config::Http {
            max_connections: CONNECTIONS_MAX,
            max_connections_per_address: 0,
            // No balancer stands before it.
            trusted_proxies: Vec::new(),
            tls: None,
            ..limits.clone()
        };
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let (stop, stopped) = oneshot::channel();
        let serve = serve(listener, limits, Routes { metrics, health });
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
    limits: config::Http,
    routes: Routes,
) -> io::Result<()> {
    let listener = TcpListener::from_std(listener)?;
    // The operator's connections are not the senders': they are limited, but not counted.
    let metrics = ConnectionMetrics::new(&prometheus::Registry::new()).map_err(io::Error::other)?;
    let gate = Gate::new(&limits, metrics);
    let limits = Arc::new(limits);
    loop {
        let socket = gate.accept(&listener).await;
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
}

impl Handler for Routes {
    async fn handle(&self, _peer: Peer, request: Request<Incoming>) -> Response {
        if !matches!(*request.method(), Method::GET | Method::HEAD) {
            return text(StatusCode::METHOD_NOT_ALLOWED, "GET only\n");
        }
        match request.uri().path() {
            "/metrics" => self.scrape(),
            "/livez" => text(StatusCode::OK, "alive\n"),
            "/readyz" => match self.health.ready() {
                Ok(()) => text(StatusCode::OK, "ready\n"),
                Err(reason) => text(StatusCode::SERVICE_UNAVAILABLE, reason.text()),
            },
            _ => text(StatusCode::NOT_FOUND, "/metrics, /livez, /readyz\n"),
        }
    }

    fn panicked(&self) -> Response {
        text(StatusCode::INTERNAL_SERVER_ERROR, "a panic; the log says where\n")
    }
}

impl Routes {
    fn scrape(&self) -> Response {
        match self.metrics.scrape() {
            Ok(metrics) => {
                let mut response = Response::new(Full::new(Bytes::from(metrics)));
                let version = HeaderValue::from_static("text/plain; version=0.0.4; charset=utf-8");
                response.headers_mut().insert(header::CONTENT_TYPE, version);
                response
            }
            Err(error) => text(StatusCode::INTERNAL_SERVER_ERROR, &format!("{error}\n")),
        }
    }
}

fn text(status: StatusCode, text: &str) -> Response {
    let mut response = Response::new(Full::new(Bytes::copy_from_slice(text.as_bytes())));
    *response.status_mut() = status;
    let plain = HeaderValue::from_static("text/plain; charset=utf-8");
    response.headers_mut().insert(header::CONTENT_TYPE, plain);
    response
}
