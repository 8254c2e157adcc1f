//! What the bridge asks Amazon SNS: for the certificates of its messages, and to confirm subscriptions.
//!
//! Whoever knows a topic's ARN can have it asked for certificates that are not there. So one webhook asks
//! for one thing at a time, and seldom; and what it has been given it does not ask for again.

use std::collections::{HashMap, VecDeque};
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
use crate::config::{self, Config, Problem};
use crate::http::rate_limit::{Rate, RateLimiter, elapsed_ns};
use crate::http::{self, Connector};

/// So many bytes an answer has at most; a certificate has some 2 KiB.
const ANSWER_MAX: usize = 64 << 10;

/// So many certificates are kept. There is one for each region at a time.
const CERTIFICATES_MAX: usize = 16;

/// How often something may be asked.
const RATE: Rate = Rate::per_second(2);

/// Proof that a subscription was confirmed. Only [`Asker::confirm`] makes one.
pub struct Confirmed(());

/// Asks on behalf of one webhook.
pub struct Asker {
    /// By host.
    connectors: HashMap<String, Connector>,
    /// The oldest first, by host and path.
    certificates: Mutex<VecDeque<(String, Arc<Certificate>)>>,
    /// Whoever has it may ask.
    turn: tokio::sync::Mutex<RateLimiter>,
    began: Instant,
}

/// One for each webhook that takes messages of Amazon SNS, by its place.
///
/// # Errors
///
/// A file of authorities that cannot be used, or none where the system has none.
pub fn askers(config: &Config, webhooks: &[Webhook]) -> Result<HashMap<usize, Asker>, Problem> {
    let mut askers = HashMap::new();
    for (webhook, entry) in webhooks.iter().zip(&config.webhook) {
        if let (AuthScheme::Sns(sns), config::AuthSchemeSettings::Sns(settings)) =
            (&webhook.auth_scheme, &entry.auth)
        {
            let place = format!("webhook[{}].auth", webhook.index);
            askers.insert(webhook.index, Asker::new(sns, settings, &place)?);
        }
    }
    Ok(askers)
}

impl Asker {
    fn new(sns: &Sns, settings: &config::SnsSettings, place: &str) -> Result<Asker, Problem> {
        let wrong = |message: String| Problem::new(place, message);
        let authorities = match settings.ca_file.as_os_str().is_empty() {
            true => None,
            false => Some(config::read_file(&format!("{place}.ca_file"), &settings.ca_file)?),
        };
        let proxy = settings.proxy().map_err(wrong)?;
        let mut connectors = HashMap::new();
        for host in sns.topics.iter().map(|topic| topic.host()) {
            if connectors.contains_key(host) {
                continue;
            }
            let url: Uri = format!("https://{host}")
                .parse()
                .map_err(|_| wrong(format!("{host} is no host")))?;
            let connector = Connector::new(&url, authorities.as_deref()).map_err(wrong)?;
            let connector = match &proxy {
                Some(proxy) => connector.through(proxy),
                None => connector,
            };
            connectors.insert(host.to_owned(), connector);
        }
        let (certificates, turn) = (Mutex::default(), tokio::sync::Mutex::default());
        Ok(Asker { connectors, certificates, turn, began: Instant::now() })
    }

    /// The certificate that a message says it is signed with.
    ///
    /// # Errors
    ///
    /// [`Refusal::SnsUnreachable`].
    pub async fn certificate(
        &self,
        message: &Message<'_>,
        received: Timestamp,
        deadline: Instant,
    ) -> Result<Arc<Certificate>, Rejection> {
        let name = format!("{}{}", message.host(), message.certificate());
        if let Some(certificate) = self.known(&name, received) {
            return Ok(certificate);
        }
        let asked = async {
            let turn = self.turn.lock().await;
            // Others may have asked for it in the meantime.
            if let Some(certificate) = self.known(&name, received) {
                return Ok(certificate);
            }
            let answer = self.ask(&turn, message.host(), message.certificate()).await?;
            let certificate = Certificate::read(&answer).ok_or("what it gave is no certificate")?;
            let certificate = Arc::new(certificate);
            self.keep(name, certificate.clone());
            Ok(certificate)
        };
        within(deadline, message.host(), asked).await
    }

    /// Does what a message asks for: visits the address with which Amazon SNS is told to send here, if
    /// that is what it wants and is meant to have.
    ///
    /// # Errors
    ///
    /// [`Refusal::SnsUnreachable`].
    pub async fn confirm(
        &self,
        message: &Message<'_>,
        sns: &Sns,
        deadline: Instant,
    ) -> Result<Option<Confirmed>, Rejection> {
        let topic = message.topic().arn();
        match (message.kind, message.confirmation()) {
            (Kind::Notification, _) => Ok(None),
            (Kind::SubscriptionConfirmation, Some(path)) if sns.confirm => {
                let asked = async {
                    let turn = self.turn.lock().await;
                    self.ask(&turn, message.host(), path).await
                };
                within(deadline, message.host(), asked).await?;
                info!(topic, "Subscription confirmed.");
                Ok(Some(Confirmed(())))
            }
            (Kind::SubscriptionConfirmation, _) => {
                warn!(
                    topic,
                    "Amazon SNS asks whether it shall send here. To say yes, set `confirm = true` and \
                     subscribe again; or visit the SubscribeURL of its message, which is a dead letter \
                     unless such are refused."
                );
                Ok(None)
            }
            (Kind::UnsubscribeConfirmation, _) => {
                warn!(
                    topic,
                    "Somebody ended the subscription: Amazon SNS sends no more. Subscribe again, or visit \
                     the SubscribeURL of its message, which is a dead letter unless such are refused."
                );
                Ok(None)
            }
        }
    }

    async fn ask(&self, turn: &RateLimiter, host: &str, path: &str) -> Result<Bytes, Failure> {
        if !turn.take(elapsed_ns(Instant::now(), self.began), RATE) {
            return Err("it was asked too often just now".into());
        }
        let connector = self.connectors.get(host).ok_or("it is not a topic's host")?;
        match http::get(connector, host, path, ANSWER_MAX).await.map_err(away)? {
            (StatusCode::OK, answer) => Ok(answer),
            (status, _) => Err(format!("it answered {}", status.as_u16()).into()),
        }
    }

    fn known(&self, name: &str, received: Timestamp) -> Option<Arc<Certificate>> {
        let certificates = self.certificates.lock().unwrap_or_else(PoisonError::into_inner);
        let (_, certificate) = certificates.iter().find(|(known, _)| known == name)?;
        certificate.is_good_at(received).then(|| certificate.clone())
    }

    fn keep(&self, name: String, certificate: Arc<Certificate>) {
        let mut certificates = self.certificates.lock().unwrap_or_else(PoisonError::into_inner);
        certificates.retain(|(known, _)| *known != name);
        if certificates.len() == CERTIFICATES_MAX {
            certificates.pop_front();
        }
        certificates.push_back((name, certificate));
    }
}

type Failure = Box<dyn std::error::Error + Send + Sync>;

/// Why nothing came of it, where that is most often the network's rules.
fn away(error: impl fmt::Display) -> Failure {
    let hint = "The bridge must reach its port 443: see the NetworkPolicy or the firewall, or set the \
                proxy of the webhook's auth";
    format!("{error}. {hint}").into()
}

/// Waits for an answer of this host.
async fn within<T>(
    deadline: Instant,
    host: &str,
    asked: impl Future<Output = Result<T, Failure>>,
) -> Result<T, Rejection> {
    let answer = timeout_at(deadline, asked).await;
    let answer = answer.unwrap_or_else(|_elapsed| Err(away("it gave no answer in time")));
    answer.map_err(|error| {
        Refusal::SnsUnreachable.because(format!("https://{host} cannot be asked: {error}"))
    })
}
