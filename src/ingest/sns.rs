//! Requests to Amazon SNS: for the certificates of its messages, and to confirm subscriptions.
//!
//! Anyone who knows a topic's ARN can send messages that name certificates which do not exist. So each
//! webhook makes one request at a time, at a limited rate, and keeps the certificates that it gets.

use std::collections::{BTreeSet, HashMap};
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use hyper::{StatusCode, Uri};
use jiff::Timestamp;
use tokio::time::{Instant, timeout_at};
use tracing::{info, warn};

use crate::click::auth::AuthScheme;
use crate::click::auth::sns::{Certificate, Kind, Message, Sns};
use crate::click::outcome::{Refusal, Rejection};
use crate::click::webhook::Webhook;
use crate::config::{self, AuthSchemeSettings, Config, Problem, SnsSettings};
use crate::http::rate_limit::RateLimiter;
use crate::http::{self, BoxError, Connector};

/// Bytes of an answer; a certificate has some 2 KiB.
const ANSWER_MAX: usize = 64 << 10;

/// Certificates that are kept. Each region uses one at a time.
const CERTIFICATES_MAX: usize = 16;

const REQUESTS_PER_SECOND: u32 = 2;

/// Proof that a subscription was confirmed. Only [`SnsClient::confirm`] makes one.
pub(super) struct Confirmed(());

/// Makes the requests of one webhook.
pub(super) struct SnsClient {
    /// By host.
    connectors: HashMap<String, Connector>,
    /// By host and path.
    certificates: Mutex<HashMap<String, Arc<Certificate>>>,
    /// Held during a request.
    turn: tokio::sync::Mutex<RateLimiter>,
}

/// A client for each webhook that takes messages of Amazon SNS, by [`Webhook::index`].
///
/// # Errors
///
/// A file of authorities that cannot be used; no file, and no authorities of the system.
pub(super) fn clients(
    config: &Config,
    webhooks: &[Webhook],
) -> Result<HashMap<usize, SnsClient>, Problem> {
    let mut clients = HashMap::new();
    for (webhook, entry) in webhooks.iter().zip(&config.webhook) {
        if let (AuthScheme::Sns(sns), AuthSchemeSettings::Sns(settings)) =
            (&webhook.auth_scheme, &entry.auth)
        {
            let place = format!("webhook[{}].auth", webhook.index);
            clients.insert(webhook.index, SnsClient::new(sns, settings, &place)?);
        }
    }
    Ok(clients)
}

impl SnsClient {
    fn new(sns: &Sns, settings: &SnsSettings, place: &str) -> Result<SnsClient, Problem> {
        let wrong = |message: String| Problem::new(place, message);
        let authorities = match settings.ca_file.as_os_str().is_empty() {
            true => None,
            false => Some(config::read_file(&format!("{place}.ca_file"), &settings.ca_file)?),
        };
        let proxy = settings.proxy().map_err(wrong)?;
        let connector = |host: &str| {
            let url = format!("https://{host}").parse::<Uri>();
            let url = url.map_err(|_| format!("{host} is no host"))?;
            let connector = Connector::new(&url, authorities.as_deref())?;
            Ok((host.to_owned(), connector.via(proxy.as_ref())))
        };
        let hosts: BTreeSet<&str> = sns.topics.iter().map(|topic| topic.host()).collect();
        let connectors = hosts.into_iter().map(connector).collect::<Result<_, _>>();
        Ok(SnsClient {
            connectors: connectors.map_err(wrong)?,
            certificates: Mutex::default(),
            turn: tokio::sync::Mutex::new(RateLimiter::per_second(REQUESTS_PER_SECOND)),
        })
    }

    /// The certificate that a message says it is signed with.
    ///
    /// # Errors
    ///
    /// [`Refusal::SnsUnreachable`].
    pub(super) async fn certificate(
        &self,
        message: &Message<'_>,
        received: Timestamp,
        deadline: Instant,
    ) -> Result<Arc<Certificate>, Rejection> {
        let name = format!("{}{}", message.topic.host(), &message.certificate);
        if let Some(certificate) = self.known(&name, received) {
            return Ok(certificate);
        }
        let fetched = async {
            let turn = self.turn.lock().await;
            // Another request may have fetched it meanwhile.
            if let Some(certificate) = self.known(&name, received) {
                return Ok(certificate);
            }
            let answer = self.get(&turn, message.topic.host(), &message.certificate).await?;
            let certificate = Certificate::read(&answer).ok_or("what it gave is no certificate")?;
            let certificate = Arc::new(certificate);
            self.keep(name, certificate.clone());
            Ok(certificate)
        };
        within(deadline, message.topic.host(), fetched).await
    }

    /// Confirms a subscription, if the message asks for that and the settings allow it.
    ///
    /// # Errors
    ///
    /// [`Refusal::SnsUnreachable`].
    pub(super) async fn confirm(
        &self,
        message: &Message<'_>,
        sns: &Sns,
        deadline: Instant,
    ) -> Result<Option<Confirmed>, Rejection> {
        let topic = message.topic.arn();
        match (message.kind, message.confirmation.as_deref()) {
            (Kind::Notification, _) => {}
            (Kind::SubscriptionConfirmation, Some(path)) if sns.confirm => {
                let visited = async {
                    let turn = self.turn.lock().await;
                    self.get(&turn, message.topic.host(), path).await
                };
                within(deadline, message.topic.host(), visited).await?;
                info!(topic, "Subscription confirmed.");
                return Ok(Some(Confirmed(())));
            }
            (Kind::SubscriptionConfirmation, _) => warn!(
                topic,
                "Amazon SNS asks whether it shall send here. To say yes, set `confirm = true` and \
                 subscribe again; or visit the SubscribeURL of its message, which is a dead letter \
                 unless such are refused."
            ),
            (Kind::UnsubscribeConfirmation, _) => warn!(
                topic,
                "Somebody ended the subscription: Amazon SNS sends no more. Subscribe again, or visit \
                 the SubscribeURL of its message, which is a dead letter unless such are refused."
            ),
        }
        Ok(None)
    }

    async fn get(&self, turn: &RateLimiter, host: &str, path: &str) -> Result<Bytes, BoxError> {
        if !turn.take((), Instant::now()) {
            return Err("it was asked too often just now".into());
        }
        let connector = self.connectors.get(host).ok_or("it is not a topic's host")?;
        let url = format!("https://{host}{path}");
        match http::get(connector, &url, ANSWER_MAX).await.map_err(unreachable)? {
            (StatusCode::OK, answer) => Ok(answer),
            (status, _) => Err(format!("it answered {}", status.as_u16()).into()),
        }
    }

    fn known(&self, name: &str, received: Timestamp) -> Option<Arc<Certificate>> {
        let certificates = self.certificates.lock().unwrap_or_else(PoisonError::into_inner);
        certificates.get(name).filter(|known| known.is_good_at(received)).cloned()
    }

    fn keep(&self, name: String, certificate: Arc<Certificate>) {
        let mut certificates = self.certificates.lock().unwrap_or_else(PoisonError::into_inner);
        // What is still in use is fetched again.
        if certificates.len() == CERTIFICATES_MAX {
            certificates.clear();
        }
        certificates.insert(name, certificate);
    }
}

/// Adds the most frequent cause: rules of the network.
fn unreachable(error: impl fmt::Display) -> BoxError {
    let hint = "The bridge must reach its port 443: see the NetworkPolicy or the firewall, or set the \
                proxy of the webhook's auth";
    format!("{error}. {hint}").into()
}

/// Holds a request to this host to its deadline.
async fn within<T>(
    deadline: Instant,
    host: &str,
    request: impl Future<Output = Result<T, BoxError>>,
) -> Result<T, Rejection> {
    let answer = timeout_at(deadline, request).await;
    let answer = answer.unwrap_or_else(|_elapsed| Err(unreachable("it gave no answer in time")));
    answer.map_err(|error| {
        Refusal::SnsUnreachable.because(format!("https://{host} cannot be asked: {error}"))
    })
}
