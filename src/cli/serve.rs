//! `hookbridge serve`: runs the bridge until a signal.

use std::hint::black_box;

use rustix::process::{DumpableBehavior, set_dumpable_behavior};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tracing::{info, warn};

use super::{CommandError, CommandResult, Exit, block_on, valid};
use crate::bridge::reload::SettingsFile;
use crate::bridge::{Listeners, run};
use crate::config::{Config, Loaded};
use crate::kafka;
use crate::observe::log::Log;

pub fn serve(loaded: Loaded) -> CommandResult {
    let file = loaded.file.clone();
    let config = valid(loaded)?;
    let log = Log::start(&config.log);
    // Core dumps and debuggers would show keys and bodies.
    if let Err(error) = set_dumpable_behavior(DumpableBehavior::NotDumpable) {
        warn!(%error, "Core dumps cannot be turned off.");
    }
    let settings = file.map(|path| SettingsFile { path, set_log_level: Box::new(log.level()) });
    let (version, client) = (env!("CARGO_PKG_VERSION"), kafka::client_version());
    info!(version, librdkafka = client, "Starting.");
    let listeners = Listeners::bind(&config)?;
    run_until_signal(config, listeners, settings)
}

/// Runs the bridge until SIGTERM or SIGINT and drains it; a second signal stops it at once.
pub fn run_until_signal(
    config: Config,
    listeners: Listeners,
    settings: Option<SettingsFile>,
) -> CommandResult {
    keep_freed_memory();
    let served = async { run(config, listeners, settings, first_of(signals()?)).await };
    let drained = block_on(served).map_err(CommandError::start)?;
    Ok(if drained.is_clean() { Exit::Clean } else { Exit::Failed })
}

/// glibc gives a heap's free end back to the kernel when it is longer than twice this.
const LARGE_PIECE: usize = 1 << 20;

/// Raises glibc's limit for giving memory back, which follows the largest piece that was ever freed (mallopt(3),
/// `M_MMAP_THRESHOLD`). The Kafka client takes and frees about as much as the first limit for each request that it
/// compresses, which cost up to two page faults for a click at 1,000/s.
fn keep_freed_memory() {
    drop(black_box(Vec::<u8>::with_capacity(LARGE_PIECE)));
}

async fn first_of(mut signals: Signals) {
    signals.next().await;
    info!("Told to stop; a second signal stops at once.");
    tokio::spawn(async move {
        signals.next().await;
        warn!("Told to stop at once.");
        std::process::exit(Exit::Failed as i32);
    });
}

/// SIGTERM and SIGINT, the signals that end a command.
pub struct Signals(Signal, Signal);

pub fn signals() -> std::io::Result<Signals> {
    Ok(Signals(signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?))
}

impl Signals {
    pub async fn next(&mut self) {
        tokio::select! {
            _ = self.0.recv() => {}
            _ = self.1.recv() => {}
        }
    }
}
