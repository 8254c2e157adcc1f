//! The live page of the operator's listener: what goes on, without Grafana.
//!
//! - `history.rs`: figures from the counters, of just now and of the last hour.
//! - `top_keys.rs`: the most frequent keys.
//! - `tail.rs`: the last records.
//! - `chart.rs`, `view.rs`: all that as SVG and HTML; `style.css` and `script.js` go with it.
//!
//! `GET /` is the page as it is, `/page/events` what changes of it (server-sent events). It is drawn once
//! a second for all who look, and not while nobody does. Memory: some 30 KiB always, for the hour; at most
//! 1.5 MiB more while somebody looks (sketch, tail, records, drawings).

mod chart;
mod figures;
mod history;
mod tables;
mod tail;
mod top_keys;
mod view;

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use http_body_util::channel;
use hyper::header::{self, HeaderName};
use maud::Markup;
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore, watch};
use tokio::time::{Instant, sleep, timeout};

use crate::config::Config;
use crate::observe::health::Health;
use crate::observe::metrics::Metrics;
use history::{History, STEP};
use tail::RecentRecords;
use top_keys::TopKeys;

pub const STYLE: &str = include_str!("page/style.css");
pub const SCRIPT: &str = include_str!("page/script.js");

/// On every answer of the page: it loads nothing from elsewhere, and nothing may frame it.
pub const HEADERS: [(HeaderName, &str); 6] = [
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

/// So many may look at once: the listener has room for probes and scrapers beside them.
const VIEWERS_MAX: usize = 8;

/// How often records are taken that are to be looked at.
const SAMPLE_INTERVAL: Duration = Duration::from_millis(250);

/// How often the page is drawn for those who look.
const DRAW_INTERVAL: Duration = Duration::from_secs(1);

/// Who has loaded the page looks for so long, with or without a script that follows it.
const VIEW_TIMEOUT: Duration = Duration::from_secs(10);

/// How long a viewer may take to read a frame; then it is let go, and may come again.
const READ_TIMEOUT: Duration = Duration::from_secs(5);

/// The page and what it shows.
pub struct Page {
    metrics: Arc<Metrics>,
    health: Arc<Health>,
    /// The settings in force, secrets hidden.
    settings: String,
    topics: Vec<String>,
    tail_is_on: bool,
    started: Instant,
    state: Mutex<PageState>,
    frames: watch::Sender<Arc<Drawing>>,
    viewers: Arc<Semaphore>,
    woken: Notify,
}

struct PageState {
    history: History,
    top_keys: TopKeys,
    tail: RecentRecords,
    /// When the page was last loaded.
    loaded: Option<Instant>,
    /// Since when somebody looks.
    viewed_since: Option<Instant>,
    drawn: Option<Instant>,
    /// The parts as they were last drawn.
    parts: HashMap<&'static str, String>,
}

/// What is sent to those who look.
#[derive(Default)]
struct Drawing {
    number: u64,
    /// All parts, as one event.
    whole: Bytes,
    /// Those that are not as they were in the frame before.
    changes: Bytes,
}

impl Page {
    pub fn new(config: &Config, metrics: Arc<Metrics>, health: Arc<Health>) -> Page {
        let now = Instant::now();
        Page {
            // Settings that were just read can be written.
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
            frames: watch::channel(Arc::default()).0,
            viewers: Arc::new(Semaphore::new(VIEWERS_MAX)),
            woken: Notify::new(),
            metrics,
            health,
        }
    }

    /// Samples the counters, and draws while somebody looks, for ever.
    pub async fn run(&self) {
        loop {
            let pause = if self.tick(Instant::now()) { SAMPLE_INTERVAL } else { STEP };
            tokio::select! {
                () = sleep(pause) => {}
                () = self.woken.notified() => {}
            }
        }
    }

    /// The page as it is.
    pub fn show(&self) -> Markup {
        let now = Instant::now();
        let mut state = self.lock();
        state.loaded = Some(now);
        self.begin(&mut state, now);
        self.take(&mut state, now);
        state.history.read(&self.metrics, now);
        view::page(view::parts(self, &state, now), &self.settings, self.tail_is_on)
    }

    /// What changes of it, from now on; none where too many look already.
    pub fn follow(&self) -> Option<channel::Channel<Bytes>> {
        let viewer = self.viewers.clone().try_acquire_owned().ok()?;
        let now = Instant::now();
        let mut state = self.lock();
        self.begin(&mut state, now);
        self.draw(&mut state, now);
        drop(state);
        let (sender, body) = channel::Channel::new(1);
        tokio::spawn(send(self.frames.subscribe(), sender, viewer));
        Some(body)
    }

    /// True while somebody looks.
    fn tick(&self, now: Instant) -> bool {
        let mut state = self.lock();
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
            let number = self.frames.borrow().number;
            self.frames.send_replace(Arc::new(Drawing { number, ..Drawing::default() }));
        }
        state.history.read(&self.metrics, now);
        false
    }

    /// Somebody looks.
    fn begin(&self, state: &mut PageState, now: Instant) {
        if state.viewed_since.is_none() {
            state.viewed_since = Some(now);
            self.woken.notify_one();
        }
    }

    /// Takes the records that have been seen.
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
        let number = self.frames.borrow().number + 1;
        let frame = Drawing { number, whole: event(&parts), changes: event(&changes) };
        self.frames.send_replace(Arc::new(frame));
        state.parts = parts;
    }

    fn lock(&self) -> MutexGuard<'_, PageState> {
        // Nothing is done under the lock that could leave it half done.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// One server-sent event: JSON has no line breaks of its own.
fn event(parts: &impl serde::Serialize) -> Bytes {
    format!("data: {}\n\n", serde_json::to_string(parts).unwrap_or_default()).into()
}

/// Sends a viewer what changes, for as long as it reads. One that has missed a frame gets all of the
/// next, so that nothing is kept for it.
async fn send(
    mut frames: watch::Receiver<Arc<Drawing>>,
    mut sender: channel::Sender<Bytes>,
    _viewer: OwnedSemaphorePermit,
) {
    let mut seen = None;
    loop {
        let frame = frames.borrow_and_update().clone();
        let is_next = seen == frame.number.checked_sub(1);
        let event = if is_next { &frame.changes } else { &frame.whole };
        seen = Some(frame.number);
        let sent = timeout(READ_TIMEOUT, sender.send_data(event.clone())).await;
        if !matches!(sent, Ok(Ok(()))) || frames.changed().await.is_err() {
            return;
        }
    }
}
