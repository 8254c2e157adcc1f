//! Tries events again that neither their topic nor its dead letters took: its limits may have changed.
//!
//! At the start each of them, and then with growing pauses; between these, once a minute, the smallest of each topic,
//! so that a limit that was raised is noticed soon.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;
use tracing::info;

use super::spool::{Position, Spool, SpooledState};
use super::{DeliveryState, publish_or_bury};
use crate::click::outcome::Refusal;
use crate::click::record::Record;
use crate::kafka::Publisher;

/// The pause between two tries of one event of each topic.
const PROBE_PAUSE: Duration = Duration::from_secs(60);

/// The pause between two tries of all events; doubled each time.
const PAUSE_MIN: Duration = Duration::from_secs(600);
const PAUSE_MAX: Duration = Duration::from_secs(4 * 3_600);

/// Events that are tried before the forwarder goes on with what waits.
const TRIED_AT_ONCE: usize = 50;

/// Chunks that are looked at for the smallest events: some 30 MB.
const CHUNKS_PROBED: usize = 16;

/// Tries events again, and knows when to.
pub(super) struct Retries<'r> {
    publisher: &'r Publisher,
    spool: &'r Spool,
    state: &'r DeliveryState,
    /// When to try the smallest ones next, and when all.
    probe: Instant,
    all: Instant,
    pause: Duration,
    /// The first sequence number that is not tried yet, while all are tried.
    next: Option<u64>,
}

impl<'r> Retries<'r> {
    pub fn new(publisher: &'r Publisher, spool: &'r Spool, state: &'r DeliveryState) -> Self {
        let now = Instant::now();
        Retries { publisher, spool, state, probe: now, all: now, pause: PAUSE_MIN, next: None }
    }

    /// Tries some of what is due.
    pub async fn run(&mut self) {
        let now = Instant::now();
        if self.spool.set_aside() == 0 || self.state.breaker.is_open() && !self.may_probe() {
            return;
        }
        let mut delivered = 0;
        if now >= self.all {
            self.next = Some(0);
            self.all = now + self.pause;
            self.pause = (self.pause * 2).min(PAUSE_MAX);
        }
        if let Some(from) = self.next {
            (delivered, self.next) = self.try_some(from).await;
            self.probe = Instant::now() + PROBE_PAUSE;
        } else if now >= self.probe {
            delivered = self.try_smallest().await;
            self.probe = Instant::now() + PROBE_PAUSE;
            if delivered > 0 {
                // Others may get through, too.
                (self.all, self.pause) = (now, PAUSE_MIN);
            }
        }
        if delivered > 0 {
            info!(delivered, "Events that were set aside went to Kafka.");
        }
    }

    /// Whether an event may find out that Kafka is back: where nothing waits, nothing else does.
    fn may_probe(&self) -> bool {
        self.spool.is_empty() && self.state.health.brokers_respond()
    }

    /// Tries events from this sequence number on. Returns how many went to Kafka, and where to go on.
    async fn try_some(&self, from: u64) -> (u64, Option<u64>) {
        let mut delivered = 0;
        let events = self.spool.read_set_aside(from).await.unwrap_or_default();
        for event in events.iter().take(TRIED_AT_ONCE) {
            let SpooledState::Ready(record) = &event.state else { continue };
            match self.try_one(event.position, record).await {
                Some(is_delivered) => delivered += u64::from(is_delivered),
                None => return (delivered, Some(event.position.sequence)),
            }
        }
        let last = events.iter().take(TRIED_AT_ONCE).last();
        (delivered, last.map(|last| last.position.sequence + 1))
    }

    /// Tries the smallest event of each topic. Returns how many went to Kafka.
    async fn try_smallest(&self) -> u64 {
        let mut smallest: BTreeMap<Arc<str>, (Position, Record)> = BTreeMap::new();
        let (mut from, mut chunks) = (0, 0);
        while chunks < CHUNKS_PROBED
            && let Some(events) = self.spool.read_set_aside(from).await
            && let Some(last) = events.last()
        {
            from = last.position.sequence + 1;
            chunks += 1;
            for event in events {
                let SpooledState::Ready(record) = event.state else { continue };
                let known = smallest.get(record.topic());
                if known.is_none_or(|(_, known)| record.value().len() < known.value().len()) {
                    smallest.insert(record.topic().clone(), (event.position, record));
                }
            }
        }
        let mut delivered = 0;
        for (position, record) in smallest.into_values() {
            let Some(is_delivered) = self.try_one(position, &record).await else { break };
            delivered += u64::from(is_delivered);
        }
        delivered
    }

    /// Tries an event. Returns whether it went to Kafka; `None` where Kafka should be left alone for now.
    async fn try_one(&self, position: Position, record: &Record) -> Option<bool> {
        let deadline = Instant::now() + self.state.ack_timeout;
        let Retries { publisher, state, spool, .. } = self;
        let published = publish_or_bury(publisher, state, record, deadline).await;
        match published.map_err(|rejection| rejection.refusal) {
            Ok(_receipt) => {
                spool.remove_set_aside(position);
                Some(true)
            }
            Err(Refusal::RecordTooLarge | Refusal::KafkaRefused) => Some(false),
            Err(_) => None,
        }
    }
}
