//! The spool, open, and the forwarder at work on it.

use std::io;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use tokio::sync::oneshot;
use tokio::time::{Instant, sleep};

use super::DeliveryState;
use super::forwarder::Forwarder;
use super::spool::{Spool, SpoolWriter};
use crate::kafka::Kafka;

/// How often to look whether the spool is empty.
const LOOK_INTERVAL: Duration = Duration::from_millis(20);

/// The spool and what works on it.
pub struct Backlog {
    pub spool: Arc<Spool>,
    writer: SpoolWriter,
    state: DeliveryState,
    forwarder: JoinHandle<()>,
    stop_forwarder: oneshot::Sender<()>,
}

impl Backlog {
    /// Starts the forwarder on an open spool.
    ///
    /// # Errors
    ///
    /// The system refuses a thread.
    pub fn start(
        (spool, writer): (Arc<Spool>, SpoolWriter),
        kafka: &Kafka,
        state: &DeliveryState,
    ) -> io::Result<Backlog> {
        let (stop_forwarder, stopped) = oneshot::channel();
        let publisher = kafka.publisher();
        let sender_task = kafka.sender_task(&publisher);
        let forwarder = Forwarder::new(publisher, spool.clone(), state.clone());
        let forwarder = forwarder.start(sender_task, stopped)?;
        Ok(Backlog { spool, writer, state: state.clone(), forwarder, stop_forwarder })
    }

    /// Waits until the spool is empty, at most until the deadline or until Kafka is away, and stops the
    /// forwarder. Returns how many events are left on disk, and the writer, to be closed after the Kafka
    /// client.
    pub async fn finish(self, deadline: Instant) -> (u64, SpoolWriter) {
        emptied(&self.spool, &self.state, deadline).await;
        drop(self.stop_forwarder);
        let _ = tokio::task::spawn_blocking(|| self.forwarder.join()).await;
        (self.spool.events(), self.writer)
    }
}

/// Waits until the spool is empty, at most until the deadline or until Kafka is away.
pub(super) async fn emptied(spool: &Spool, state: &DeliveryState, deadline: Instant) {
    let DeliveryState { breaker, health, .. } = state;
    let is_away = || breaker.is_idle() && (breaker.is_open() || !health.brokers_respond());
    while spool.events() > 0 && Instant::now() < deadline && !is_away() {
        sleep(LOOK_INTERVAL).await;
    }
}
