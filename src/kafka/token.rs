//! Tokens for OAUTHBEARER that the bridge gets itself: from a file, or signed for Amazon MSK. (With
//! `sasl.oauthbearer.method=oidc` librdkafka gets its own.)
//!
//! librdkafka asks for a token on the thread that serves its events, which is that of clicks. So nothing is done
//! there: whoever has a client renews its token, on a thread that may block.

mod aws;
mod file;
mod msk;

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::thread::JoinHandle;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use rdkafka::ClientContext;
use rdkafka::producer::Producer;
use tokio::time::Instant;
use tracing::{debug, error, info};

use super::circuit_breaker::CircuitBreaker;
use super::client::{Client, set_token};
use super::current::{CurrentClient, RecordSink};
use crate::config::{Config, Followed, Problem};

pub(super) use msk::region;

/// How often the thread looks whether a token is due.
const LOOK_INTERVAL: Duration = Duration::from_secs(1);

/// How long to wait after a token could not be had.
const RETRY_INTERVAL: Duration = Duration::from_secs(2);

/// How often the same trouble is worth a log line.
const COMPLAINT_INTERVAL: Duration = Duration::from_secs(10);

/// A token that Kafka takes for a time.
pub(super) struct Token {
    pub value: String,
    /// Where it does not say, as far ahead as the client needs.
    pub expires: Timestamp,
}

/// Why there is no token, and what to do about it.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[error("no token for Kafka: {0}")]
pub(super) struct TokenError(pub String);

/// Where tokens come from.
#[derive(Debug, Clone)]
enum Source {
    File(PathBuf),
    Msk { region: String },
}

impl Source {
    fn of(config: &Config) -> Option<Source> {
        match &config.kafka.token_file {
            Some(path) => Some(Source::File(path.clone())),
            None if config.kafka.aws_msk_iam => {
                Some(Source::Msk { region: region(&config.kafka).unwrap_or_default() })
            }
            None => None,
        }
    }

    /// Blocks until there is a token or an error, for some seconds at most.
    fn token(&self) -> Result<Token, TokenError> {
        match self {
            Source::File(path) => file::read(path, Timestamp::now()),
            Source::Msk { region } => {
                let found = aws::credentials(region);
                found.and_then(|found| msk::token(&found, region, Timestamp::now()))
            }
        }
        .map_err(TokenError)
    }
}

/// Keeps the tokens of clients new.
pub(super) struct Tokens {
    source: Source,
    /// Notices a new file before the old token expires.
    file: Option<Followed>,
    renew_at: Timestamp,
}

impl Tokens {
    /// None where the settings name no source.
    pub fn of(config: &Config) -> Option<Tokens> {
        let source = Source::of(config)?;
        let file = match &source {
            Source::File(path) => Some(Followed::new(vec![path.clone()])),
            Source::Msk { .. } => None,
        };
        Some(Tokens { source, file, renew_at: Timestamp::MIN })
    }

    /// Whether the token is worth renewing: most of its life is over, or there is another in the file.
    pub fn are_due(&mut self) -> bool {
        let is_changed = self.file.as_mut().is_some_and(|file| file.is_due(false));
        is_changed || self.renew_at <= Timestamp::now()
    }

    /// Gives a client a new token. Blocks for some seconds at most.
    pub fn renew(
        &mut self,
        client: &rdkafka::client::Client<impl ClientContext>,
    ) -> Result<(), TokenError> {
        let token = self.source.token()?;
        set_token(client, &token).map_err(TokenError)?;
        let now = Timestamp::now();
        let life = token.expires.duration_since(now);
        // As librdkafka itself would: there is time for some more attempts.
        self.renew_at = now + life.min(SignedDuration::from_hours(24)) * 4 / 5;
        debug!(expires = %token.expires, "A new token for Kafka.");
        Ok(())
    }
}

/// Renews the tokens of the producer, on a thread of its own.
pub(super) struct TokenRenewal {
    /// Dropped: the thread ends.
    stop: SyncSender<()>,
    thread: JoinHandle<()>,
}

impl TokenRenewal {
    /// None where the settings name no source.
    pub fn start(
        config: &Config,
        current: Arc<CurrentClient<Client>>,
        breaker: Arc<CircuitBreaker>,
    ) -> Result<Option<TokenRenewal>, Problem> {
        let Some(tokens) = Tokens::of(config) else { return Ok(None) };
        let (stop, stopped) = sync_channel(0);
        let thread = std::thread::Builder::new()
            .name("kafka-token".into())
            .spawn(move || renew(tokens, &current, &breaker, &stopped))
            .map_err(|error| Problem::new("kafka", error.to_string()))?;
        Ok(Some(TokenRenewal { stop, thread }))
    }

    /// Blocks while a token is being fetched.
    pub fn stop(self) {
        drop(self.stop);
        let _ = self.thread.join();
    }
}

fn renew(
    mut tokens: Tokens,
    current: &CurrentClient<Client>,
    breaker: &CircuitBreaker,
    stopped: &Receiver<()>,
) {
    // The generation of the client that has a token.
    let mut given = None;
    let mut complained: Option<(TokenError, Instant)> = None;
    loop {
        let client = current.client.load_full();
        let mut wait = LOOK_INTERVAL;
        if tokens.are_due() || given != Some(client.generation()) {
            match tokens.renew(client.producer.client()) {
                Ok(()) => {
                    if given.is_none() || complained.take().is_some() {
                        info!("There is a token for Kafka.");
                    }
                    given = Some(client.generation());
                }
                Err(error) => {
                    // A client that never had a token connects to no broker, and says nothing about it.
                    if given != Some(client.generation()) {
                        breaker.open("there is no token for Kafka");
                    }
                    let is_new = complained.as_ref().is_none_or(|(last, at)| {
                        *last != error || at.elapsed() >= COMPLAINT_INTERVAL
                    });
                    if is_new {
                        error!(%error, "Trying again; the last token is used as long as Kafka takes it.");
                        complained = Some((error, Instant::now()));
                    }
                    wait = RETRY_INTERVAL;
                }
            }
        }
        // The supervisor waits for this client's last use before it closes it.
        drop(client);
        match stopped.recv_timeout(wait) {
            Err(RecvTimeoutError::Timeout) => {}
            Ok(()) | Err(RecvTimeoutError::Disconnected) => return,
        }
    }
}
