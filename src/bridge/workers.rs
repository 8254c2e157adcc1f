//! The threads that serve requests.
//!
//! Each has a runtime of its own, and a request stays on the thread of its connection. That costs half of
//! what moving it between threads does (measured for a bare hyper server with 64 connections: 4.7 against
//! 9.9 us of CPU per request).

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::sync::mpsc;
use tracing::error;

use super::thread::ServiceThread;
use crate::delivery::{Backlog, Delivery, DeliveryState};
use crate::http::{self, Drain, Socket};
use crate::ingest::{Ingest, IngestState};
use crate::kafka::Kafka;

/// Accepted connections that wait for their worker.
const HANDOVER_MAX: usize = 256;

pub struct Workers {
    all: Vec<WorkerHandle>,
    /// Counts connections, so that each worker has its turn.
    turn: AtomicUsize,
}

struct WorkerHandle {
    connections: mpsc::Sender<Socket>,
    drain: Drain,
    thread: ServiceThread,
}

impl Workers {
    pub fn start(
        ingest: &Arc<IngestState>,
        delivery: &DeliveryState,
        kafka: &Kafka,
        backlog: Option<&Backlog>,
    ) -> io::Result<Workers> {
        let workers = (0..worker_count(ingest.limits.workers)).map(|number| {
            let publisher = kafka.publisher();
            let sender_task = kafka.sender_task(&publisher);
            // One worker polls the delivery reports for all.
            let report_poller = (number == 0).then(|| kafka.delivery_report_poller());
            let spool = backlog.map(|backlog| backlog.spool.clone());
            let delivery = Delivery { publisher, spool, state: delivery.clone() };
            let handler = Arc::new(Ingest { state: ingest.clone(), delivery });
            let (connections, inbox) = mpsc::channel(HANDOVER_MAX);
            let drain = Drain::default();
            let serve = serve(inbox, handler, drain.clone());
            let service = async move {
                report_poller.map(tokio::spawn);
                tokio::select! {
                    never = sender_task => match never {},
                    () = serve => {}
                }
            };
            let thread = ServiceThread::start(format!("worker-{number}"), service)?;
            Ok(WorkerHandle { connections, drain, thread })
        });
        Ok(Workers { all: workers.collect::<io::Result<_>>()?, turn: AtomicUsize::new(0) })
    }

    pub fn count(&self) -> usize {
        self.all.len()
    }

    /// Hands a connection to the next worker in turn.
    pub async fn give(&self, socket: Socket) {
        let turn = self.turn.fetch_add(1, Ordering::Relaxed);
        if self.all[turn % self.all.len()].connections.send(socket).await.is_err() {
            error!("A worker is gone; its connection is closed.");
        }
    }

    /// Has each connection closed after the request that it serves.
    pub fn drain(&self) {
        self.all.iter().for_each(|worker| worker.drain.begin());
    }

    /// Stops at once.
    pub fn stop(self) {
        self.all.into_iter().for_each(|worker| worker.thread.stop());
    }
}

/// Serves the connections that are handed over, each in a task of its own.
async fn serve(mut connections: mpsc::Receiver<Socket>, handler: Arc<Ingest>, drain: Drain) {
    while let Some(socket) = connections.recv().await {
        let (handler, drain) = (handler.clone(), drain.clone());
        tokio::spawn(async move {
            let IngestState { limits, tls, .. } = &*handler.state;
            http::serve(socket, &handler, limits, &drain, tls.as_ref()).await;
        });
    }
}

/// As configured, or one for each two CPUs that this process may use: the Kafka client's threads need the
/// others.
fn worker_count(configured: usize) -> usize {
    if configured > 0 {
        return configured;
    }
    std::thread::available_parallelism().map_or(1, |cpus| cpus.get().div_ceil(2))
}
