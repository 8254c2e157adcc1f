//! The log: lines to standard error, text for people, JSON for machines.
//!
//! A thread of its own writes them, so that a stalled reader delays no click. Lines that do not fit in
//! its queue are lost, and counted.

use std::io::IsTerminal;
use std::sync::OnceLock;

use tracing::error;
use tracing_appender::non_blocking::{ErrorCounter, NonBlockingBuilder, WorkerGuard};
use tracing_subscriber::filter::Targets;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::reload::Handle;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{Layer, Registry, fmt, reload};

use crate::config::{self, LogFormat};

/// Lines that may be queued.
const LINES_MAX: usize = 16_384;

/// One for the process, as the log is.
static LOST: OnceLock<ErrorCounter> = OnceLock::new();

/// The running log. On drop it writes the queued lines, for at most a second.
pub struct Log {
    _writer: WorkerGuard,
    levels: Handle<Targets, Registry>,
}

impl Log {
    pub fn start(log: &config::LogSettings) -> Log {
        let is_text = match log.format {
            LogFormat::Auto => std::io::stderr().is_terminal(),
            LogFormat::Text => true,
            LogFormat::Json => false,
        };
        let levels: Targets = log.level.parse().unwrap_or_default();
        let (levels, handle) = reload::Layer::new(levels);
        let builder = NonBlockingBuilder::default().buffered_lines_limit(LINES_MAX);
        let (writer, guard) = builder.thread_name("log").finish(std::io::stderr());
        let _ = LOST.set(writer.error_counter());
        let lines = fmt::layer().with_writer(writer);
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
        // It fails for a second bridge in one process (in tests), which uses the first one's log.
        let _ = tracing_subscriber::registry().with(lines.with_filter(levels)).try_init();
        Log { _writer: guard, levels: handle }
    }

    /// A function that sets another level.
    pub fn level(&self) -> impl Fn(&str) + Send + use<> {
        let levels = self.levels.clone();
        move |level| {
            let _ = levels.reload(level.parse::<Targets>().unwrap_or_default());
        }
    }
}

/// Lines lost so far because the queue was full.
pub fn lost() -> u64 {
    LOST.get().map_or(0, |lost| u64::try_from(lost.dropped_lines()).unwrap_or(u64::MAX))
}
