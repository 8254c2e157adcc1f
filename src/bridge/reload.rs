//! Follows files while the bridge serves: the keys of `auth.keys_file`, the TLS identity and the log level.
//!
//! A thread looks at the files once a second. Changed content is taken when it is the same at two looks, or
//! at once on SIGHUP. If it is wrong, what was in force stays in force. Either way it is counted and
//! logged.

use std::collections::BTreeSet;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::time::{MissedTickBehavior, interval};
use tracing::{error, info, warn};

use super::thread::ServiceThread;
use crate::config::{self, Config, Followed, NamedKey, Problem, TlsSettings};
use crate::http::TlsIdentity;
use crate::ingest::IngestState;
use crate::observe::metrics::Reloaded;

/// How often the files are looked at.
const LOOK_INTERVAL: Duration = Duration::from_secs(1);

/// The settings' file, and how to set the log level that it has.
pub struct SettingsFile {
    pub path: PathBuf,
    pub set_log_level: Box<dyn Fn(&str) + Send>,
}

pub type FollowedFiles = Vec<(Reloaded, Followed)>;

/// Notices changes from now on; so it is called before the files are read for use.
pub fn files(config: &Config, settings: Option<&SettingsFile>) -> FollowedFiles {
    let files = [
        (Reloaded::Keys, config.auth.keys_file.clone().map(|path| vec![path])),
        (Reloaded::Tls, config.http.tls.as_ref().map(TlsSettings::files)),
        (Reloaded::Log, settings.map(|settings| vec![settings.path.clone()])),
    ];
    files.into_iter().filter_map(|(what, paths)| Some((what, Followed::new(paths?)))).collect()
}

/// Follows the files.
pub struct Follower {
    /// What is in force.
    pub config: Config,
    pub ingest: Arc<IngestState>,
    pub files: FollowedFiles,
    pub settings: Option<SettingsFile>,
}

impl Follower {
    /// Starts to follow; none if there is nothing to follow.
    pub fn start(self) -> io::Result<Option<ServiceThread>> {
        if self.files.is_empty() {
            return Ok(None);
        }
        let hangups = signal(SignalKind::hangup())?;
        ServiceThread::start("reload".into(), self.follow(hangups)).map(Some)
    }

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
            let files = self.files.iter_mut();
            let due = files.filter_map(|(what, files)| files.is_due(is_told).then_some(*what));
            for what in due.collect::<Vec<_>>() {
                let result = match what {
                    Reloaded::Keys => self.reload_keys(),
                    Reloaded::Tls => self.reload_tls(),
                    Reloaded::Log => self.reload_log_level(),
                };
                self.ingest.metrics.reload(what, result.is_ok());
                for problem in result.err().unwrap_or_default() {
                    error!(what = what.tag(), %problem, "Not reloaded; what was in force stays in force.");
                }
            }
        }
    }

    fn reload_keys(&mut self) -> Result<(), Vec<Problem>> {
        let config = config::reload_keys(&self.config)?;
        let keys = config.callers().map_err(|problem| vec![problem])?;
        let (old, new) = (&self.config.auth.keys, &config.auth.keys);
        let (added, removed) = (names_beyond(new, old), names_beyond(old, new));
        let changed = names_changed(old, new);
        self.ingest.set_keys(keys);
        info!(?added, ?removed, ?changed, "Keys reloaded.");
        self.config = config;
        Ok(())
    }

    fn reload_tls(&self) -> Result<(), Vec<Problem>> {
        if let Some((tls, settings)) = self.ingest.tls.as_ref().zip(self.config.http.tls.as_ref()) {
            let identity = TlsIdentity::read(settings).map_err(|problem| vec![problem])?;
            info!(ends = %identity.ends, "TLS certificate reloaded.");
            tls.replace(identity);
        }
        Ok(())
    }

    fn reload_log_level(&mut self) -> Result<(), Vec<Problem>> {
        let Some(settings) = &self.settings else { return Ok(()) };
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
}

/// The names of keys that the others do not have.
fn names_beyond<'k>(keys: &'k [NamedKey], others: &[NamedKey]) -> Vec<&'k str> {
    let is_new = |key: &&NamedKey| !others.iter().any(|other| other.name == key.name);
    keys.iter().filter(is_new).map(|key| key.name.as_str()).collect()
}

/// The names in both whose keys are not the same. Several keys may share a name.
fn names_changed<'k>(old: &'k [NamedKey], new: &'k [NamedKey]) -> Vec<&'k str> {
    let differing = |one: &'k [NamedKey], other: &'k [NamedKey]| {
        let has_name = |key: &&NamedKey| other.iter().any(|other| other.name == key.name);
        one.iter().filter(has_name).filter(|key| !other.contains(key)).map(|key| key.name.as_str())
    };
    let names: BTreeSet<_> = differing(new, old).chain(differing(old, new)).collect();
    names.into_iter().collect()
}
