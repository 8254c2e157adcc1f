//! A spool on a simulated disk, whose writer is a task instead of a thread, for tests on a paused clock.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::{sleep, timeout_at};

use super::disk::simulated::SimulatedDisk;
use super::writer::WriterThread;
use super::{Spool, StoreError};
use crate::config::SpoolSettings;
use crate::observe::health::Health;
use crate::observe::metrics::SpoolMetrics;

/// The writer of an open spool.
pub(in crate::delivery) struct SimulatedWriter(WriterThread);

/// Opens the spool on this disk.
pub(in crate::delivery) fn open(
    settings: &SpoolSettings,
    disk: &SimulatedDisk,
    first_sequence: u64,
    metrics: SpoolMetrics,
    health: Arc<Health>,
) -> Result<(Arc<Spool>, SimulatedWriter), StoreError> {
    let spool = Arc::new(Spool::new(settings, 1 << 20, first_sequence, metrics, health));
    let disk = disk.clone();
    let writer = WriterThread::new(spool.clone(), Box::new(move || Ok(Arc::new(disk.clone()))))?;
    Ok((spool, SimulatedWriter(writer)))
}

impl SimulatedWriter {
    /// Does what the thread does. Each turn begins after a delay, and carries out so many requests at most.
    pub async fn run(self, wakeup: &Notify, turn: impl Fn() -> (Duration, usize)) {
        let SimulatedWriter(mut writer) = self;
        let spool = writer.spool.clone();
        loop {
            if !spool.has_requests() && !spool.queue().is_stopped {
                let _ = timeout_at(writer.next_turn(), wakeup.notified()).await;
            }
            let (delay, count_max) = turn();
            spool.health.set_spool_busy(spool.has_requests());
            sleep(delay).await;
            let (requests, is_stopped) = {
                let mut queue = spool.queue();
                (queue.take(count_max), queue.is_stopped)
            };
            let is_idle = requests.is_empty();
            writer.turn(requests);
            if is_stopped && is_idle {
                return writer.close();
            }
        }
    }
}

impl Spool {
    /// Whether the writer has something to do.
    pub(in crate::delivery) fn has_requests(&self) -> bool {
        !self.queue().waiting.is_empty()
    }
}
