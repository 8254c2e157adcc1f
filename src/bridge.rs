//! Builds the bridge from its settings, serves until told to stop, and drains.

pub mod reload;

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, sleep, timeout_at};
use tracing::{error, info, warn};

use crate::bridge::reload::{Files, Reload, SettingsFile};
use crate::config::{Config, Problem};
use crate::delivery::{Backlog, Delivery, DeliveryState};
use crate::http::{self, Acceptor, Admission, Drain, Socket};
use crate::ingest::{Ingest, IngestState};
use crate::kafka::{CircuitBreaker, Kafka};
use crate::observe::metrics::Metrics;
use crate::operator::Admin;

/// Of the drain's budget, what is kept for closing the producer and the spool after the last request.
const FLUSH_RESERVE: Duration = Duration::from_secs(1);

/// Accepted connections that wait for their worker.
const HANDOVER_MAX: usize = 256;

/// The sockets, bound before anything is built on them, so that a port in use is the first error.
pub struct Listeners {
    http: TcpListener,
    admin: TcpListener,
}

impl Listeners {
    /// # Errors
    ///
    /// The address that cannot be had.
    pub fn bind(config: &Config) -> Result<Listeners, StartError> {
        let bind = |key, address| {
            http::listen(address).map_err(|source| StartError::Bind { key, address, source })
        };
        Ok(Listeners {
            http: bind("http.listen", config.http.listen)?,
            admin: bind("admin.listen", config.admin.listen)?,
        })
    }

    /// Where senders are served, with the port that the system chose if the setting was 0.
    ///
    /// # Errors
    ///
    /// What the system reports.
    pub fn http_address(&self) -> io::Result<SocketAddr> {
        self.http.local_addr()
    }

    /// The same for the operator.
    ///
    /// # Errors
    ///
    /// What the system reports.
    pub fn admin_address(&self) -> io::Result<SocketAddr> {
        self.admin.local_addr()
    }
}

/// Why the bridge does not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    #[error("{key}: cannot listen on {address}: {source}; is another program there already?")]
    Bind { key: &'static str, address: SocketAddr, source: io::Error },
    #[error("{0}")]
    Config(Problem),
    #[error("a metric cannot be made: {0}")]
    Metrics(#[from] prometheus::Error),
    #[error("the system refuses what the bridge needs: {0}")]
    System(#[from] io::Error),
}

impl From<Problem> for StartError {
    fn from(problem: Problem) -> StartError {
        StartError::Config(problem)
    }
}

/// How the drain went.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Drained {
    /// Requests that were still being served when time was up.
    pub cut_off: usize,
    /// Records that the Kafka client still had, and that are nowhere else.
    pub unacknowledged: usize,
    /// Events that wait on disk for the next start.
    pub spooled: u64,
}

impl Drained {
    pub fn is_clean(&self) -> bool {
        self.cut_off == 0 && self.unacknowledged == 0
    }

    fn log(self) {
        let Drained { cut_off, unacknowledged, spooled } = self;
        if !self.is_clean() {
            warn!(cut_off, unacknowledged, spooled, "The drain's time was up.");
        } else if spooled > 0 {
            warn!(
                spooled,
                "Drained: every request was answered; the next start delivers what is on disk."
            );
        } else {
            info!("Drained: every request was answered and every record acknowledged.");
        }
    }
}

/// Runs the bridge until `shutdown`, then drains it. The log level follows `settings`, where they are
/// from a file.
///
/// # Errors
///
/// Why it does not start; once it serves, nothing stops it but `shutdown`.
pub async fn run(
    config: Config,
    listeners: Listeners,
    settings: Option<SettingsFile>,
    shutdown: impl Future<Output = ()>,
) -> Result<Drained, StartError> {
    let files = Files::new(&config, settings);
    let delivery = delivery_state(&config)?;
    let (health, metrics) = (delivery.health.clone(), delivery.metrics.clone());
    let state = Arc::new(IngestState::new(&config, health.clone(), metrics.clone())?);
    let reload = Reload::start(files, &config, &state)?;
    let (http_address, admin_address) = (listeners.http_address()?, listeners.admin_address()?);
    let admin = Admin::start(listeners.admin, &config, metrics.clone(), health.clone())?;
    let kafka = start_kafka(&config, &delivery)?;
    let backlog = Backlog::open::<StartError>(&config, &kafka, &delivery)?;
    let acceptor = Acceptor::new(&config.http, metrics.connections.clone());
    let workers = Workers::start(&config, &state, &kafka, backlog.as_ref(), &delivery)?;
    let listener = tokio::net::TcpListener::from_std(listeners.http)?;
    health.start();
    info!(%http_address, %admin_address, workers = workers.all.len(), "Serving.");

    tokio::pin!(shutdown);
    accept_until(&listener, &acceptor, &workers, shutdown).await;

    let deadline = Instant::now() + config.http.drain_timeout();
    health.drain();
    info!(delay_ms = config.http.drain_delay_ms, "Draining: not ready, still serving.");
    accept_until(&listener, &acceptor, &workers, sleep(config.http.drain_delay())).await;
    // What the kernel has accepted for us would be cut off with the listener.
    for socket in acceptor.accept_rest(&listener).await {
        workers.give(socket).await;
    }
    drop(listener);
    workers.drain();
    let requests_deadline = deadline.checked_sub(FLUSH_RESERVE).unwrap_or(deadline);
    let emptied = timeout_at(requests_deadline, acceptor.all_closed()).await;
    let in_flight = usize::try_from(metrics.in_flight.requests.get()).unwrap_or(0);
    let cut_off = if emptied.is_ok() { 0 } else { in_flight };
    let drained = match backlog {
        Some(backlog) => {
            // What the Kafka client still has is in the spool, too, and nothing is to be flushed. The
            // workers stay until then: they hear of late acknowledgements.
            let (left, writer) = backlog.finish(requests_deadline).await;
            workers.stop();
            close_kafka(kafka, Instant::now()).await;
            writer.close();
            Drained { cut_off, unacknowledged: 0, spooled: left }
        }
        None => {
            workers.stop();
            Drained { cut_off, unacknowledged: close_kafka(kafka, deadline).await, spooled: 0 }
        }
    };
    if let Some(tracer) = &state.tracer {
        tracer.close(deadline).await;
    }
    drained.log();
    if let Some(reload) = reload {
        reload.stop();
    }
    admin.stop();
    Ok(drained)
}

/// The state of delivery with these settings, and with it new metrics.
///
/// # Errors
///
/// A metric that cannot be made.
pub(crate) fn delivery_state(config: &Config) -> Result<DeliveryState, StartError> {
    let webhooks: Vec<_> = config.webhook.iter().map(|webhook| webhook.name.as_str()).collect();
    let topics = config.topics();
    let topics: Vec<_> = topics.iter().map(|(name, _)| name.as_str()).collect();
    let metrics = Arc::new(Metrics::new(&webhooks, &topics)?);
    let breaker = CircuitBreaker::new(metrics.breaker.clone(), config.spool.is_on());
    Ok(DeliveryState::new(breaker, Arc::default(), metrics, config.kafka.ack_timeout()))
}

/// # Errors
///
/// Settings that librdkafka does not take.
pub(crate) fn start_kafka(config: &Config, state: &DeliveryState) -> Result<Kafka, Problem> {
    let DeliveryState { metrics, health, breaker, .. } = state.clone();
    Kafka::start(config, metrics, health, breaker)
}

/// Closes the Kafka client. Returns how many records it still had at the deadline.
pub(crate) async fn close_kafka(kafka: Kafka, deadline: Instant) -> usize {
    tokio::task::spawn_blocking(move || kafka.close(deadline)).await.unwrap_or(0)
}

/// Accepts connections and spreads them over the workers.
async fn accept_until(
    listener: &tokio::net::TcpListener,
    acceptor: &Acceptor,
    workers: &Workers,
    stop: impl Future,
) {
    tokio::pin!(stop);
    loop {
        // Only the wait for a connection is given up: one that was accepted is handed over.
        tokio::select! {
            _ = &mut stop => return,
            socket = acceptor.accept(listener) => workers.give(socket).await,
        }
    }
}

/// The threads that serve requests, each with a runtime of its own: a request stays on the thread
/// of its connection, which costs half of what moving it between threads does (measured for a bare
/// hyper server with 64 connections: 4.7 against 9.9 us of CPU per request).
struct Workers {
    all: Vec<WorkerHandle>,
    /// Counts connections, for each worker to have its turn.
    turn: AtomicUsize,
}

struct WorkerHandle {
    inbox: mpsc::Sender<Socket>,
    drain: Drain,
    stop: oneshot::Sender<()>,
    thread: JoinHandle<()>,
}

impl Workers {
    fn start(
        config: &Config,
        state: &Arc<IngestState>,
        kafka: &Kafka,
        backlog: Option<&Backlog>,
        shared: &DeliveryState,
    ) -> Result<Workers, StartError> {
        let metrics = &state.metrics;
        let (requests, bytes) = (&metrics.in_flight.requests, &metrics.in_flight.body_bytes);
        let admission = Admission::new(&config.http, requests.clone(), bytes.clone());
        let workers = (0..worker_count(config.http.workers)).map(|number| {
            let publisher = kafka.publisher();
            let sender_task = publisher.sender_task();
            // One hands out the reports for all.
            let report_poller = (number == 0).then(|| kafka.delivery_report_poller());
            let spool = backlog.map(|backlog| backlog.spool.clone());
            let delivery = Delivery::new(publisher, spool, shared.clone());
            let ingest = Arc::new(Ingest::new(state.clone(), admission.clone(), delivery));
            WorkerHandle::start(number, ingest, state.clone(), sender_task, report_poller)
        });
        Ok(Workers { all: workers.collect::<io::Result<_>>()?, turn: AtomicUsize::new(0) })
    }

    /// Hands a connection to the next worker in turn.
    async fn give(&self, socket: Socket) {
        let turn = self.turn.fetch_add(1, Ordering::Relaxed);
        if self.all[turn % self.all.len()].inbox.send(socket).await.is_err() {
            error!("A worker is gone; its connection is closed.");
        }
    }

    fn drain(&self) {
        for worker in &self.all {
            worker.drain.begin();
        }
    }

    fn stop(self) {
        for worker in self.all {
            drop(worker.stop);
            let _ = worker.thread.join();
        }
    }
}

impl WorkerHandle {
    fn start(
        number: usize,
        ingest: Arc<Ingest>,
        state: Arc<IngestState>,
        sender_task: impl Future + Send + 'static,
        report_poller: Option<impl Future<Output: Send> + Send + 'static>,
    ) -> io::Result<WorkerHandle> {
        let (inbox, mut sockets) = mpsc::channel::<Socket>(HANDOVER_MAX);
        let (stop, stopped) = oneshot::channel::<()>();
        let drain = Drain::default();
        let draining = drain.clone();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let serve = async move {
            while let Some(socket) = sockets.recv().await {
                let (ingest, state, drain) = (ingest.clone(), state.clone(), draining.clone());
                tokio::spawn(async move {
                    let (limits, tls) = (&state.limits, state.tls.as_ref());
                    let served = http::serve(socket, ingest.clone(), limits, &drain, tls).await;
                    if let Err(closed) = served {
                        ingest.closed(&closed);
                    }
                });
            }
        };
        let thread =
            std::thread::Builder::new().name(format!("worker-{number}")).spawn(move || {
                runtime.block_on(async {
                    report_poller.map(tokio::spawn);
                    tokio::select! {
                        _ = sender_task => {}
                        () = serve => {}
                        _ = stopped => {}
                    }
                });
            })?;
        Ok(WorkerHandle { inbox, drain, stop, thread })
    }
}

/// How many workers serve: as configured, or one for each two CPUs that this process may use, since
/// the Kafka client's threads need the others.
fn worker_count(configured: usize) -> usize {
    if configured > 0 {
        return configured;
    }
    std::thread::available_parallelism().map_or(1, |cpus| cpus.get().div_ceil(2))
}
