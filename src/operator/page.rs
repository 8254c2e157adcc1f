//! The live page of the admin listener: the state of this replica, without Grafana.
//!
//! - `history.rs`: rates and latencies of the last five seconds and of the last hour.
//! - `top_keys.rs`: the most frequent keys.
//! - `tail.rs`: the last records.
//! - `view.rs`, `tables.rs`, `chart.rs`, `figures.rs`: HTML and SVG; `style.css` and `script.js` go with it.
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

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use http_body_util::channel;
use hyper::header::{self, HeaderName};
use maud::Markup;
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore, watch};
use tokio::time::{Instant, sleep, timeout};

use crate::config::Config;
use crate::observe::health::Health;
use crate::observe::lock;
use crate::observe::metrics::Metrics;
use history::{History, STEP};
use tail::RecentRecords;
use top_keys::TopKeys;

pub(super) const STYLE: &str = include_str!("page/style.css");
pub(super) const SCRIPT: &str = include_str!("page/script.js");

/// On every answer of the page: it loads nothing from elsewhere, and nothing may frame it.
pub(super) const HEADERS: [(HeaderName, &str); 6] = [
    (
        header::CONTENT_SECURITY_POLICY,
        "default-src 'none'; style-src 'self'; script-src 'self'; connect-src 'self'; \
         img-src 'self' data:; frame-ancestors 'none'; base-uri 'none'; form-action 'none'",
    ),
    (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
    (header::REFERRER_POLICY, "no-referrer"),
    (header::CACHE_CONTROL, "no-store"),
    (HeaderName::from_static("cross-origin-resource-policy"), "same-origin"),
    (HeaderName::from_static("cross-origin-opener-policy"), "same-origin"),
];

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
    drawings: watch::Sender<Arc<Drawing>>,
    viewers: Arc<Semaphore>,
    woken: Notify,
}

struct PageState {
    history: History,
    top_keys: TopKeys,
    tail: RecentRecords,
    /// When the page was last loaded.
    loaded: Option<Instant>,
    /// Since when there have been viewers.
    viewed_since: Option<Instant>,
    drawn: Option<Instant>,
    /// The HTML of each part when it was last drawn.
    parts: HashMap<&'static str, String>,
}

/// What is sent to viewers.
#[derive(Default)]
struct Drawing {
    number: u64,
    /// All parts, as one event.
    whole: Bytes,
    /// The parts that differ from the drawing before.
    changes: Bytes,
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
                top_keys: TopKeys::default(),
                tail: RecentRecords::default(),
                loaded: None,
                viewed_since: None,
                drawn: None,
                parts: HashMap::new(),
            }),
            drawings: watch::channel(Arc::default()).0,
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
    pub(super) fn show(&self) -> Markup {
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
        tokio::spawn(send(self.drawings.subscribe(), sender, viewer));
        Some(body)
    }

    /// True while there are viewers.
    fn tick(&self, now: Instant) -> bool {
        let mut state = lock(&self.state);
        let loaded = state.loaded.is_some_and(|loaded| now.duration_since(loaded) < VIEW_TIMEOUT);
        if loaded || self.viewers.available_permits() < VIEWERS_MAX {
            self.take(&mut state, now);
            if state.drawn.is_none_or(|drawn| now.duration_since(drawn) >= DRAW_INTERVAL) {
                self.draw(&mut state, now);
            }
            return true;
        }
        if state.viewed_since.take().is_some() {
            self.metrics.sampler.stop();
            (state.top_keys, state.tail) = (TopKeys::default(), RecentRecords::default());
            (state.drawn, state.parts) = (None, HashMap::new());
            let number = self.drawings.borrow().number;
            self.drawings.send_replace(Arc::new(Drawing { number, ..Drawing::default() }));
        }
        state.history.read(&self.metrics, now);
        false
    }

    /// Notes that there is a viewer.
    fn begin(&self, state: &mut PageState, now: Instant) {
        if state.viewed_since.is_none() {
            state.viewed_since = Some(now);
            self.woken.notify_one();
        }
    }

    /// Takes the sampled records, and asks for the next ones.
    fn take(&self, state: &mut PageState, now: Instant) {
        let records = self.metrics.sampler.take();
        state.top_keys.forget(now);
        for key in records.iter().filter_map(|record| record.key.as_deref()) {
            state.top_keys.count(key, now);
        }
        if self.tail_is_on {
            state.tail.take(records);
        }
    }

    fn draw(&self, state: &mut PageState, now: Instant) {
        state.drawn = Some(now);
        state.history.read(&self.metrics, now);
        let parts = view::parts(self, state, now).into_iter();
        let parts: HashMap<_, _> = parts.map(|(id, markup)| (id, markup.into_string())).collect();
        let changes: HashMap<_, _> =
            parts.iter().filter(|(id, html)| state.parts.get(*id) != Some(html)).collect();
        let number = self.drawings.borrow().number + 1;
        let drawing = Drawing { number, whole: event(&parts), changes: event(&changes) };
        self.drawings.send_replace(Arc::new(drawing));
        state.parts = parts;
    }
}

/// One server-sent event: JSON has no line breaks of its own.
fn event(parts: &impl serde::Serialize) -> Bytes {
    format!("data: {}\n\n", serde_json::to_string(parts).unwrap_or_default()).into()
}

/// Sends a viewer the changes, while it reads. A viewer that missed a drawing gets the whole of the next
/// one, so nothing is queued for it.
async fn send(
    mut drawings: watch::Receiver<Arc<Drawing>>,
    mut sender: channel::Sender<Bytes>,
    _viewer: OwnedSemaphorePermit,
) {
    let mut seen = None;
    loop {
        let drawing = drawings.borrow_and_update().clone();
        let is_next = seen == drawing.number.checked_sub(1);
        let event = if is_next { &drawing.changes } else { &drawing.whole };
        seen = Some(drawing.number);
        let sent = timeout(READ_TIMEOUT, sender.send_data(event.clone())).await;
        if !matches!(sent, Ok(Ok(()))) || drawings.changed().await.is_err() {
            return;
        }
    }
}
