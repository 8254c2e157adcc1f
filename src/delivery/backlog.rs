//! The spool, open, with the drain at work on it.

use std::io;

use super::{DeliveryState, Forwarder};
use crate::config::{Config, Problem};
use crate::delivery::spool::{Spool, SpoolWriter};
use crate::kafka::Kafka;

/// The spool and what works on it.
pub struct Backlog {
    pub spool: Spool,
    /// To be closed last.
    pub writer: SpoolWriter,
    pub forwarder: Forwarder,
}

/// Why there is no backlog.
#[derive(Debug, thiserror::Error)]
pub enum BacklogError {
    #[error("{0}")]
    Spool(Problem),
    #[error("the drain cannot be started: {0}")]
    Forwarder(#[from] io::Error),
}

impl Backlog {
    /// Opens the spool, if there is to be one, and begins to drain it.
    ///
    /// # Errors
    ///
    /// Another process has the spool, or there is no thread to be had.
    pub fn open(
        config: &Config,
        kafka: &Kafka,
        shared: &DeliveryState,
    ) -> Result<Option<Backlog>, BacklogError> {
        if !config.spool.is_on() {
            return Ok(None);
        }
        let (metrics, health) = (shared.metrics.spool.clone(), shared.health.clone());
        let body_max = config.http.max_body_bytes;
        let opened = Spool::open(&config.spool, body_max, metrics, health);
        let (spool, writer) = opened.map_err(BacklogError::Spool)?;
        let forwarder = Forwarder::start(kafka.publisher(), spool.clone(), shared.clone())?;
        Ok(Some(Backlog { spool, writer, forwarder }))
    }
}
