//! Binds the sockets, builds the bridge from its settings, serves until told to stop, and drains.
//!
//! `workers.rs` has the threads that serve requests, `reload.rs` follows changed files while the bridge serves,
//! `thread.rs` is what their threads have in common.

pub(crate) mod reload;
mod thread;
mod workers;

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::path::PathBuf;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, sleep, timeout_at};
use tracing::{info, warn};

use crate::config::{Config, Problem};
use crate::delivery::spool::StoreError;
use crate::delivery::{Backlog, DeliveryState};
use crate::http::{self, Acceptor};
use crate::ingest::IngestState;
use crate::kafka::Kafka;
use crate::operator;
use reload::{Follower, SettingsFile};
use thread::ServiceThread;
use workers::Workers;

/// How much of `http.drain_timeout_ms` is kept for closing the Kafka client and the spool.
const FLUSH_RESERVE: Duration = Duration::from_secs(1);

/// How long a process that was told to stop may live beyond `http.drain_timeout_ms`: to close what it has
/// open, and until it is killed where it hangs.
const TAKEOVER_RESERVE: Duration = Duration::from_secs(15);

/// The sockets. They are bound before anything else is built, so that a port in use is the first error.
pub struct Listeners {
    /// For senders.
    pub http: TcpListener,
    /// For operators.
    pub admin: TcpListener,
}

impl Listeners {
    /// # Errors
    ///
    /// An address that cannot be listened on.
    pub fn bind(config: &Config) -> Result<Listeners, StartError> {
        let bind = |key, address| {
            http::listen(address).map_err(|source| StartError::Bind { key, address, source })
        };
        Ok(Listeners {
            http: bind("http.listen", config.http.listen)?,
            admin: bind("admin.listen", config.admin.listen)?,
        })
    }
}

/// Why the bridge does not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    #[error("{key}: cannot listen on {address}: {source}; is another program there already?")]
    Bind { key: &'static str, address: SocketAddr, source: io::Error },
    #[error("{0}")]
    Config(#[from] Problem),
    #[error("spool.dir: {}: {source}", folder.display())]
    Spool { folder: PathBuf, source: StoreError },
    #[error("a metric cannot be made: {0}")]
    Metrics(#[from] prometheus::Error),
    #[error("the system refuses what the bridge needs: {0}")]
    System(#[from] io::Error),
}

impl StartError {
    pub(crate) fn spool(config: &Config, source: StoreError) -> StartError {
        StartError::Spool { folder: config.spool.dir.clone(), source }
    }
}

/// Runs the bridge until `shutdown`, then drains it. The log level follows the settings' file, if they are
/// from one.
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
    let mut shutdown = pin!(shutdown);
    let bridge = tokio::select! {
        biased;
        bridge = Bridge::build(config, listeners, settings) => bridge?,
        // It waits for the spool, and has taken no click yet.
        () = &mut shutdown => {
            info!("Stopped before the spool was free; no click was taken.");
            return Ok(Drained::default());
        }
    };
    bridge.accept_until(shutdown).await;
    let drained = bridge.drain().await;
    drained.log();
    Ok(drained)
}

/// The running whole.
struct Bridge {
    ingest: Arc<IngestState>,
    kafka: Kafka,
    backlog: Option<Backlog>,
    acceptor: Arc<Acceptor>,
    listener: tokio::net::TcpListener,
    workers: Workers,
    reload: Option<ServiceThread>,
    admin: ServiceThread,
}

impl Bridge {
    /// Waits only for a process that still uses the spool. Until then nothing is accepted: connections
    /// wait in the kernel.
    async fn build(
        config: Config,
        listeners: Listeners,
        settings: Option<SettingsFile>,
    ) -> Result<Bridge, StartError> {
        let (http_address, admin_address) =
            (listeners.http.local_addr()?, listeners.admin.local_addr()?);
        let files = reload::files(&config, settings.as_ref());
        let delivery = DeliveryState::new(&config)?;
        let (health, metrics) = (&delivery.health, &delivery.metrics);
        let ingest = Arc::new(IngestState::new(&config, &delivery)?);
        let follower = Follower { config: config.clone(), ingest: ingest.clone(), files, settings };
        let reload = follower.start()?;
        let admin = operator::serve(listeners.admin, &config, metrics.clone(), health.clone())?;
        let admin = ServiceThread::start("admin".into(), admin)?;
        let patience = config.http.drain_timeout() + TAKEOVER_RESERVE;
        let spool = delivery.open_spool(&config, patience).await;
        let spool = spool.map_err(|source| StartError::spool(&config, source))?;
        let kafka = delivery.start_kafka(&config)?;
        let backlog = spool.map(|spool| Backlog::start(spool, &kafka, &delivery)).transpose()?;
        let acceptor = Acceptor::new(&config.http, metrics.connections.clone());
        let workers = Workers::start(&ingest, &delivery, &kafka, backlog.as_ref())?;
        let listener = tokio::net::TcpListener::from_std(listeners.http)?;
        health.start();
        info!(%http_address, %admin_address, workers = workers.count(), "Serving.");
        Ok(Bridge { ingest, kafka, backlog, acceptor, listener, workers, reload, admin })
    }

    /// Accepts connections and hands them to the workers.
    async fn accept_until(&self, stop: impl Future) {
        tokio::pin!(stop);
        loop {
            // Only the wait for a connection is cancelled: an accepted one is always handed over.
            tokio::select! {
                _ = &mut stop => return,
                socket = self.acceptor.accept(&self.listener) => self.workers.give(socket).await,
            }
        }
    }

    /// Stops in this order, within `http.drain_timeout_ms`:
    ///
    /// 1. Not ready; still serving for `http.drain_delay_ms`, until the balancer has noticed.
    /// 2. No new connections. Requests have until [`FLUSH_RESERVE`] before the end.
    /// 3. With a spool the forwarder has the rest of that time, unless Kafka is away: what is on disk is
    ///    safe, and the next start should not have to wait. Without one the Kafka client is flushed.
    /// 4. The spans are sent, and the operator's listener stops last.
    async fn drain(self) -> Drained {
        let http = &self.ingest.limits;
        let deadline = Instant::now() + http.drain_timeout();
        let requests_deadline = deadline.checked_sub(FLUSH_RESERVE).unwrap_or(deadline);
        self.ingest.health.drain();
        info!(delay_ms = http.drain_delay_ms, "Draining: not ready, still serving.");
        self.accept_until(sleep(http.drain_delay())).await;
        // Connections that the kernel has accepted would be reset with the listener.
        for socket in self.acceptor.accept_rest(&self.listener).await {
            self.workers.give(socket).await;
        }
        drop(self.listener);
        self.workers.drain();
        let closed = timeout_at(requests_deadline, self.acceptor.all_closed()).await;
        let in_flight = self.ingest.metrics.in_flight.requests.get();
        let cut_off = if closed.is_ok() { 0 } else { usize::try_from(in_flight).unwrap_or(0) };
        let (unacknowledged, spooled) = match self.backlog {
            Some(backlog) => {
                // The spool has every record that the Kafka client still has, so nothing is flushed. The
                // workers run until then, because late acknowledgements reach them.
                let (left, writer) = backlog.finish(requests_deadline).await;
                self.workers.stop();
                close_kafka(self.kafka, Instant::now()).await;
                writer.close();
                (0, left)
            }
            None => {
                self.workers.stop();
                (close_kafka(self.kafka, deadline).await, 0)
            }
        };
        if let Some(tracer) = &self.ingest.tracer {
            tracer.close(deadline).await;
        }
        self.reload.into_iter().chain([self.admin]).for_each(ServiceThread::stop);
        Drained { cut_off, unacknowledged, spooled }
    }
}

/// How the drain went.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Drained {
    /// Requests that were still being served at the deadline.
    pub cut_off: usize,
    /// Records that the Kafka client still had, and that are not in a spool.
    pub unacknowledged: usize,
    /// Events in the spool, for the next start.
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

/// Closes the Kafka client. Returns how many records it still had at the deadline.
pub(crate) async fn close_kafka(kafka: Kafka, deadline: Instant) -> usize {
    tokio::task::spawn_blocking(move || kafka.close(deadline)).await.unwrap_or(0)
}
