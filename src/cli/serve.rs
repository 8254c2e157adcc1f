//! `hookbridge serve`: logging, signals, runtime.

use std::io::IsTerminal;
use std::path::PathBuf;

use tokio::signal::unix::{Signal, SignalKind, signal};
use tracing::{error, info, warn};
use tracing_subscriber::filter::Targets;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{Layer, fmt, reload};

use super::{Exit, fail, report};
use crate::config::{Config, Log, LogFormat};
use crate::kafka;
use crate::reload::Settings;
use crate::serve::{Listeners, StartError, run};

/// Runs the bridge; its log level follows the settings' file, if they are from one.
pub fn serve(config: Config, file: Option<PathBuf>) -> Exit {
    let set_log_level = start_logging(&config.log);
    let settings = file.map(|file| Settings { file, set_log_level: Box::new(set_log_level) });
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

/// Log lines go to standard error: text for people, JSON for machines. What it gives back sets another
/// level.
pub fn start_logging(log: &Log) -> impl Fn(&str) + Send + use<> {
    let is_text = match log.format {
        LogFormat::Auto => std::io::stderr().is_terminal(),
        LogFormat::Text => true,
        LogFormat::Json => false,
    };
    let levels: Targets = log.level.parse().unwrap_or_default();
    let (levels, in_force) = reload::Layer::new(levels);
    let lines = fmt::layer().with_writer(std::io::stderr);
    let lines = if is_text {
        lines.with_ansi(std::io::stderr().is_terminal()).with_target(false).boxed()
    } else {
        lines.json().flatten_event(true).with_current_span(false).with_span_list(false).boxed()
    };
    // A panic's own text may quote a body.
    std::panic::set_hook(Box::new(|panic| {
        let location = panic.location().map(ToString::to_string);
        error!(location, "A panic; what it was working on has failed.");
    }));
    // A second bridge in one process, as tests have it, logs like the first.
    let _ = tracing_subscriber::registry().with(lines.with_filter(levels)).try_init();
    move |level| {
        let _ = in_force.reload(level.parse::<Targets>().unwrap_or_default());
    }
}
