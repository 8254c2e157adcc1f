//! `hookbridge serve`: signals, runtime.

use std::path::PathBuf;

use rustix::process::{DumpableBehavior, set_dumpable_behavior};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tracing::{info, warn};

use super::{Exit, fail, report};
use crate::bridge::reload::Settings;
use crate::bridge::{Listeners, StartError, run};
use crate::config::Config;
use crate::kafka;
use crate::observe::log::Log;

/// Runs the bridge; its log level follows the settings' file, if they are from one.
pub fn serve(config: Config, file: Option<PathBuf>) -> Exit {
    let log = Log::start(&config.log);
    // A core dump would hold keys and bodies, and so does what a debugger reads.
    if let Err(error) = set_dumpable_behavior(DumpableBehavior::NotDumpable) {
        warn!(%error, "Core dumps cannot be turned off.");
    }
    let settings = file.map(|file| Settings { file, set_log_level: Box::new(log.level()) });
    let (version, client) = (env!("CARGO_PKG_VERSION"), kafka::client_version());
    info!(version, librdkafka = client, "Starting.");
    match Listeners::bind(&config) {
        Ok(listeners) => run_until_signal(config, listeners, settings),
        Err(error) => fail(error),
    }
}

/// Runs the bridge until SIGTERM or SIGINT and drains it; a second signal stops it at once.
pub fn run_until_signal(config: Config, listeners: Listeners, settings: Option<Settings>) -> Exit {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = match runtime {
        Ok(runtime) => runtime,
        Err(error) => return fail(StartError::System(error)),
    };
    let drained =
        runtime.block_on(async { run(config, listeners, settings, first_of(signals()?)).await });
    match drained {
        Ok(drained) if drained.is_clean() => Exit::Clean,
        Ok(_) => Exit::Failed,
        Err(StartError::Config(problem)) => report(&[problem]),
        Err(error) => fail(error),
    }
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

/// SIGTERM and SIGINT.
pub struct Signals(Signal, Signal);

/// Listens for the signals that end a program.
///
/// # Errors
///
/// What the system reports.
pub fn signals() -> std::io::Result<Signals> {
    Ok(Signals(signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?))
}

impl Signals {
    /// Waits for the next.
    pub async fn next(&mut self) {
        tokio::select! {
            _ = self.0.recv() => {}
            _ = self.1.recv() => {}
        }
    }
}
