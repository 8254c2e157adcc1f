//! Tries events again that neither their topic nor its dead letters took: its limits may have changed.
//!
//! At the start each of them, and then with growing pauses; between these, once a minute, the smallest of each topic,
//! so that a limit that was raised is noticed soon.

use std::collections::HashMap;
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

/// Tries events again, and knows when to.
pub(super) struct Retries<'r> {
    publisher: &'r Publisher,
    spool: &'r Spool,
    state: &'r DeliveryState,
    probe: Instant,
    all: Instant,
    pause: Duration,
}

impl<'r> Retries<'r> {
    pub fn new(publisher: &'r Publisher, spool: &'r Spool, state: &'r DeliveryState) -> Self {
        let now = Instant::now();
        Retries { publisher, spool, state, probe: now, all: now, pause: PAUSE_MIN }
    }

    /// Tries what is due.
    pub async fn run(&mut self) {
        let now = Instant::now();
        if self.spool.set_aside() == 0 || self.state.breaker.is_open() || now < self.probe {
            return;
        }
        let is_for_all = now >= self.all;
        let delivered = if is_for_all { self.try_all().await } else { self.try_smallest().await };
        self.probe = Instant::now() + PROBE_PAUSE;
        if is_for_all {
            self.all = Instant::now() + self.pause;
            self.pause = (self.pause * 2).min(PAUSE_MAX);
        } else if delivered > 0 {
            // Others may get through, too.
            (self.probe, self.all, self.pause) = (now, now, PAUSE_MIN);
        }
        if delivered > 0 {
            let left = self.spool.set_aside();
            info!(delivered, left, "Events that were set aside went to Kafka.");
        }
    }

    /// Tries each event. Returns how many went to Kafka.
    async fn try_all(&self) -> u64 {
        let (mut delivered, mut from) = (0, 0);
        while let Some(events) = self.spool.read_set_aside(from).await
            && let Some(last) = events.last()
        {
            from = last.position.sequence + 1;
            for event in events {
                let SpooledState::Ready(record) = event.state else { continue };
                let Some(is_delivered) = self.try_one(event.position, &record).await else {
                    return delivered;
                };
                delivered += u64::from(is_delivered);
            }
        }
        delivered
    }

    /// Tries the smallest event of each topic. Returns how many went to Kafka.
    async fn try_smallest(&self) -> u64 {
        let mut smallest: HashMap<Arc<str>, (Position, Record)> = HashMap::new();
        let mut from = 0;
        while let Some(events) = self.spool.read_set_aside(from).await
            && let Some(last) = events.last()
        {
            from = last.position.sequence + 1;
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
