//! What follows its file while the bridge serves: the keys of `auth.keys_file`, the TLS identity
//! and the log level.
//!
//! A thread of its own looks at the files once a second. What has changed and is settled is taken, what
//! SIGHUP asks for at once. If something is wrong with it, what was in force stays in force. Either way
//! it is counted and logged.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::oneshot;
use tokio::time::{MissedTickBehavior, interval};
use tracing::{error, info, warn};

use crate::config::{self, Config, Followed, NamedKey, Problem};
use crate::http::TlsIdentity;
use crate::ingest::IngestState;
use crate::observe::metrics::Reloaded;

/// How often the files are looked at. New content is taken at the second look that finds it.
const LOOK_INTERVAL: Duration = Duration::from_secs(1);

/// The settings file, and who is told of the log level in it.
pub struct SettingsFile {
    pub path: PathBuf,
    pub set_log_level: Box<dyn Fn(&str) + Send>,
}

/// The files that are followed.
pub struct Files {
    keys: Option<Followed>,
    tls: Option<Followed>,
    settings: Option<(Followed, SettingsFile)>,
}

impl Files {
    /// What changes from now on is noticed; so this comes before the files are put to use.
    pub fn new(config: &Config, settings: Option<SettingsFile>) -> Files {
        let follow = |path: &PathBuf| Followed::new(vec![path.clone()]);
        Files {
            keys: config.auth.keys_file.as_ref().map(follow),
            tls: config.http.tls.as_ref().map(|tls| Followed::new(tls.files())),
            settings: settings.map(|settings| (follow(&settings.path), settings)),
        }
    }
}

/// The running thread.
pub struct Reload {
    stop: oneshot::Sender<()>,
    thread: JoinHandle<()>,
}

impl Reload {
    /// Starts to follow; none if there is nothing to follow.
    ///
    /// # Errors
    ///
    /// No thread, or no signals.
    pub fn start(
        files: Files,
        config: &Config,
        state: &Arc<IngestState>,
    ) -> io::Result<Option<Reload>> {
        if files.keys.is_none() && files.tls.is_none() && files.settings.is_none() {
            return Ok(None);
        }
        let follower = Follower { config: config.clone(), state: state.clone(), files };
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let hangups = {
            let _inside = runtime.enter();
            signal(SignalKind::hangup())?
        };
        let (stop, stopped) = oneshot::channel();
        let thread = std::thread::Builder::new().name("reload".into()).spawn(move || {
            runtime.block_on(async {
                tokio::select! {
                    () = follower.follow(hangups) => {}
                    _ = stopped => {}
                }
            });
        })?;
        Ok(Some(Reload { stop, thread }))
    }

    pub fn stop(self) {
        drop(self.stop);
        let _ = self.thread.join();
    }
}

struct Follower {
    /// What is in force.
    config: Config,
    state: Arc<IngestState>,
    files: Files,
}

impl Follower {
    async fn follow(mut self, mut hangups: Signal) {
        let mut looks = interval(LOOK_INTERVAL);
        looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            let is_told = tokio::select! {
                _ = looks.tick() => false,
                _ = hangups.recv() => true,
            };
            if is_told {
                info!("Told to reload.");
            }
            if self.files.keys.as_mut().is_some_and(|files| is_due(files, is_told)) {
                let result = self.reload_keys();
                self.report(Reloaded::Keys, result);
            }
            if self.files.tls.as_mut().is_some_and(|files| is_due(files, is_told)) {
                let result = self.reload_tls();
                self.report(Reloaded::Tls, result);
            }
            if self.files.settings.as_mut().is_some_and(|(files, _)| is_due(files, is_told)) {
                let result = self.reload_log_level();
                self.report(Reloaded::Log, result);
            }
        }
    }

    fn reload_keys(&mut self) -> Result<(), Vec<Problem>> {
        let config = config::reload_keys(&self.config)?;
        let keys = config.callers().map_err(|problem| vec![problem])?;
        let (old, new) = (&self.config.auth.keys, &config.auth.keys);
        let (added, removed) = (names_beyond(new, old), names_beyond(old, new));
        let is_other = |key: &&NamedKey| old.iter().any(|o| o.name == key.name && o != *key);
        let changed: Vec<_> = new.iter().filter(is_other).map(|key| key.name.as_str()).collect();
        self.state.set_keys(keys);
        info!(?added, ?removed, ?changed, "Keys reloaded.");
        self.config = config;
        Ok(())
    }

    fn reload_tls(&self) -> Result<(), Vec<Problem>> {
        if let Some((tls, settings)) = self.state.tls.as_ref().zip(self.config.http.tls.as_ref()) {
            let identity = TlsIdentity::read(settings).map_err(|problem| vec![problem])?;
            info!(ends = %identity.ends, "TLS certificate reloaded.");
            tls.replace(identity);
        }
        Ok(())
    }

    fn reload_log_level(&mut self) -> Result<(), Vec<Problem>> {
        let Some((_, settings)) = &self.files.settings else { return Ok(()) };
        let loaded = config::load(Some(&settings.path), config::environment());
        let config = loaded.into_result()?;
        (settings.set_log_level)(&config.log.level);
        info!(level = config.log.level, "Log level reloaded.");
        self.config.log.level.clone_from(&config.log.level);
        let others = self.config.sections_that_differ(&config);
        if !others.is_empty() {
            warn!(sections = ?others, "The settings file has changes that take a restart.");
        }
        Ok(())
    }

    fn report(&self, what: Reloaded, result: Result<(), Vec<Problem>>) {
        self.state.metrics.reload(what, result.is_ok());
        for problem in result.err().unwrap_or_default() {
            error!(what = what.tag(), %problem, "Not reloaded; what was in force stays in force.");
        }
    }
}

fn is_due(files: &mut Followed, is_told: bool) -> bool {
    if is_told {
        files.take();
    }
    is_told || files.has_changed()
}

/// The names of keys that the others do not have.
fn names_beyond<'k>(keys: &'k [NamedKey], others: &[NamedKey]) -> Vec<&'k str> {
    let is_new = |key: &&NamedKey| !others.iter().any(|other| other.name == key.name);
    keys.iter().filter(is_new).map(|key| key.name.as_str()).collect()
}
