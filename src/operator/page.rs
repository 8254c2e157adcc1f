//! The live page of the admin listener: the state of this replica, without Grafana.
//!
//! - `history.rs`: rates and latencies of the last five seconds and of the last hour.
//! - `top_keys.rs`: the most frequent keys.
//! - `tail.rs`: the last records.
//! - `view.rs`, `tables.rs`, `chart.rs`, `figures.rs`: the parts of the page as HTML and SVG.
//! - `page.html`, `style.css`, `script.js`: what the parts are put in.
//!
//! `GET /` is the whole page, `/page/events` its changes (server-sent events). It is drawn once a second for
//! all viewers, and not without a viewer. Memory: about 30 KiB always, for the hour; at most 1.5 MiB more
//! while there are viewers (top keys, last records, drawings).

mod chart;
mod figures;
mod history;
mod tables;
mod tail;
mod top_keys;
mod view;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use http_body_util::channel;
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore, watch};
use tokio::time::{Instant, sleep, timeout};

use crate::config::Config;
use crate::observe::health::Health;
use crate::observe::lock;
use crate::observe::metrics::Metrics;
use history::{History, STEP};
use tail::RecentRecords;
use top_keys::TopKeys;
use view::PageParts;

pub(super) const STYLE: &str = include_str!("page/style.css");
pub(super) const SCRIPT: &str = include_str!("page/script.js");

/// Viewers at once. The listener has more connections, for probes and scrapers.
const VIEWERS_MAX: usize = 8;

/// How often sampled records are taken.
const SAMPLE_INTERVAL: Duration = Duration::from_millis(250);

/// How often the page is drawn while there are viewers.
const DRAW_INTERVAL: Duration = Duration::from_secs(1);

/// A load of the page counts as a viewer for this long, with or without its script.
const VIEW_TIMEOUT: Duration = Duration::from_secs(10);

/// A viewer that takes longer to read an event is disconnected, and may come again.
const READ_TIMEOUT: Duration = Duration::from_secs(5);

pub(super) struct Page {
    metrics: Arc<Metrics>,
    health: Arc<Health>,
    /// The settings in force, secrets hidden.
    settings: String,
    topics: Vec<String>,
    tail_is_on: bool,
    started: Instant,
    state: Mutex<PageState>,
    /// What was drawn last; empty without viewers.
    drawn: watch::Sender<Arc<PageParts>>,
    viewers: Arc<Semaphore>,
    woken: Notify,
}

struct PageState {
    history: History,
    /// When the page was last loaded.
    loaded: Option<Instant>,
    viewing: Viewing,
}

/// What is kept only while there are viewers.
#[derive(Default)]
struct Viewing {
    /// Since when there have been any.
    since: Option<Instant>,
    /// When the page was last drawn for them.
    drawn: Option<Instant>,
    top_keys: TopKeys,
    tail: RecentRecords,
}

impl Page {
    pub(super) fn new(config: &Config, metrics: Arc<Metrics>, health: Arc<Health>) -> Page {
        let now = Instant::now();
        Page {
            settings: toml::to_string(config).unwrap_or_default(),
            topics: config.webhook.iter().map(|webhook| webhook.topic.clone()).collect(),
            tail_is_on: config.admin.tail,
            started: now,
            state: Mutex::new(PageState {
                history: History::new(&metrics, now),
                loaded: None,
                viewing: Viewing::default(),
            }),
            drawn: watch::channel(Arc::default()).0,
            viewers: Arc::new(Semaphore::new(VIEWERS_MAX)),
            woken: Notify::new(),
            metrics,
            health,
        }
    }

    /// Reads the counters, and draws while there are viewers. It does not return.
    pub(super) async fn run(&self) {
        loop {
            let pause = if self.tick(Instant::now()) { SAMPLE_INTERVAL } else { STEP };
            tokio::select! {
                () = sleep(pause) => {}
                () = self.woken.notified() => {}
            }
        }
    }

    /// The whole page.
    pub(super) fn show(&self) -> String {
        let now = Instant::now();
        let mut state = lock(&self.state);
        state.loaded = Some(now);
        self.begin(&mut state, now);
        self.take(&mut state, now);
        state.history.read(&self.metrics, now);
        view::page(view::parts(self, &state, now), &self.settings, self.tail_is_on)
    }

    /// Its changes from now on; `None` if there are [`VIEWERS_MAX`] already.
    pub(super) fn follow(&self) -> Option<channel::Channel<Bytes>> {
        let viewer = self.viewers.clone().try_acquire_owned().ok()?;
        let now = Instant::now();
        let mut state = lock(&self.state);
        self.begin(&mut state, now);
        self.draw(&mut state, now);
        drop(state);
        let (sender, body) = channel::Channel::new(1);
        tokio::spawn(send(self.drawn.subscribe(), sender, viewer));
        Some(body)
    }

    /// True while there are viewers.
    fn tick(&self, now: Instant) -> bool {
        let mut state = lock(&self.state);
        let loaded = state.loaded.is_some_and(|loaded| now.duration_since(loaded) < VIEW_TIMEOUT);
        if loaded || self.viewers.available_permits() < VIEWERS_MAX {
            self.take(&mut state, now);
            if state.viewing.drawn.is_none_or(|drawn| now.duration_since(drawn) >= DRAW_INTERVAL) {
                self.draw(&mut state, now);
            }
            return true;
        }
        if state.viewing.since.is_some() {
            self.metrics.sampler.stop();
            state.viewing = Viewing::default();
            self.drawn.send_replace(Arc::default());
        }
        state.history.read(&self.metrics, now);
        false
    }

    /// Notes that there is a viewer.
    fn begin(&self, state: &mut PageState, now: Instant) {
        if state.viewing.since.is_none() {
            state.viewing.since = Some(now);
            self.woken.notify_one();
        }
    }

    /// Takes the sampled records, and asks for the next ones.
    fn take(&self, state: &mut PageState, now: Instant) {
        let records = self.metrics.sampler.take();
        let viewing = &mut state.viewing;
        viewing.top_keys.forget(now);
        for key in records.iter().filter_map(|record| record.key.as_deref()) {
            viewing.top_keys.count(key, now);
        }
        if self.tail_is_on {
            viewing.tail.take(records);
        }
    }

    fn draw(&self, state: &mut PageState, now: Instant) {
        state.viewing.drawn = Some(now);
        state.history.read(&self.metrics, now);
        self.drawn.send_replace(Arc::new(view::parts(self, state, now)));
    }
}

/// Sends a viewer the parts that differ from those that it was sent before, as server-sent events. A viewer
/// that reads slowly misses drawings, so nothing is queued for it.
async fn send(
    mut drawn: watch::Receiver<Arc<PageParts>>,
    mut sender: channel::Sender<Bytes>,
    _viewer: OwnedSemaphorePermit,
) {
    let mut seen = Arc::<PageParts>::default();
    loop {
        let parts = drawn.borrow_and_update().clone();
        let is_new = |(id, html): &(&&str, &String)| seen.get(**id) != Some(*html);
        let changes: BTreeMap<_, _> = parts.iter().filter(is_new).collect();
        // JSON has no line breaks of its own.
        let event = format!("data: {}\n\n", serde_json::to_string(&changes).unwrap_or_default());
        let sent = timeout(READ_TIMEOUT, sender.send_data(event.into())).await;
        if !matches!(sent, Ok(Ok(()))) || drawn.changed().await.is_err() {
            return;
        }
        seen = parts;
    }
}
