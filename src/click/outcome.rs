//! Every way that a request can end: the one closed list, with the facts of each entry.
//!
//! The tag is the metric's label, the status and the text go to the sender, the level decides how
//! loud the log is. A new way to end is a new variant here, and does not compile without its facts.

use std::borrow::Cow;

use hyper::StatusCode;
use tracing::Level;

/// How a request ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// The click is held durably: 200. Only a [`Receipt`](crate::delivery::Receipt) leads here.
    Held(Held),
    /// There was no click: Amazon SNS asked whether it shall send them, and was told so: 200.
    Confirmed,
    /// The click was not answered 200.
    Refused(Refusal),
}

/// Where a click is held.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Held {
    /// By every in-sync replica.
    InKafka,
    /// On this replica's disk, until Kafka has it.
    OnDisk,
    /// In Kafka or on disk, as a dead letter: nobody could understand it.
    AsDeadLetter,
}

/// Why a request was not answered 200.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refusal {
    /// The sender hung up before the answer. What was already handed to Kafka still lands.
    SenderGone,
    /// The bytes are not HTTP.
    NotHttp,
    /// The body is not JSON.
    Malformed,
    /// No valid key or signature.
    Unauthorized,
    /// A valid key, but not for this webhook or not from this address.
    Forbidden,
    /// No webhook has this path.
    UnknownPath,
    /// A webhook takes POST alone.
    WrongMethod,
    /// The request's head did not arrive in time; the connection is closed.
    SlowHead,
    /// The body did not arrive in time.
    SlowBody,
    /// The body is over the limit, as it came or unpacked.
    BodyTooLarge,
    /// Neither the topic nor its dead letters take a record of this size.
    RecordTooLarge,
    /// The body is compressed in a way that is not taken.
    UnknownEncoding,
    /// The body is JSON, but not an event of this webhook.
    Invalid,
    /// The address sends more requests than its share.
    AddressOverRate,
    /// The key does.
    KeyOverRate,
    /// The address sends more requests without a valid key than its share.
    TooManyFailures,
    /// Too many headers, or too many bytes of them.
    HeadTooLarge,
    /// Serving it panicked, which is a mistake of ours.
    Panicked,
    /// As many requests as allowed are being served.
    TooManyRequests,
    /// The bodies being held for an acknowledgement use up their budget.
    MemoryFull,
    /// The Kafka client's queue is full.
    KafkaQueueFull,
    /// Kafka did not acknowledge in time.
    KafkaTimeout,
    /// Kafka answered, but did not take the record.
    KafkaRefused,
    /// Kafka cannot take it now, and the spool is full.
    SpoolFull,
    /// Kafka cannot take it now, and the disk fails.
    SpoolFailed,
    /// Nobody knows: no verdict came before our answer was due, and the record may still land.
    Unconfirmed,
    /// Amazon SNS did not give the certificate of a message, or did not take a confirmation.
    SnsUnreachable,
}

/// What is fixed about one way to end.
#[derive(Debug, Clone, Copy)]
pub struct Facts {
    /// The value of the metric label `outcome`; stable.
    pub tag: &'static str,
    /// What the sender gets, if it is still there.
    pub status: StatusCode,
    /// How loud the log line is; none where success is quiet.
    pub level: Option<Level>,
    /// The text for the sender, and the meaning for the reader of the table in the README.
    pub text: &'static str,
}

impl Facts {
    /// What a refusal is called in the answer: a problem's `type` (RFC 9457).
    pub fn problem_type(&self) -> String {
        format!("urn:hookbridge:problem:{}", self.tag)
    }
}

impl Outcome {
    /// The whole list, in the order of the metric's labels.
    pub fn all() -> impl Iterator<Item = Outcome> {
        let held = Held::ALL.into_iter().map(Outcome::Held);
        held.chain([Outcome::Confirmed]).chain(Refusal::ALL.into_iter().map(Outcome::Refused))
    }

    /// How many outcomes there are.
    pub const COUNT: usize = Held::ALL.len() + 1 + Refusal::ALL.len();

    /// The place of this outcome in [`Outcome::all`].
    pub fn index(self) -> usize {
        match self {
            Outcome::Held(held) => held as usize,
            Outcome::Confirmed => Held::ALL.len(),
            Outcome::Refused(refusal) => Held::ALL.len() + 1 + refusal as usize,
        }
    }

    pub fn facts(self) -> Facts {
        match self {
            Outcome::Held(held) => held.facts(),
            Outcome::Confirmed => Facts {
                tag: "confirmed",
                status: StatusCode::OK,
                level: None,
                text: "No click: a subscription of Amazon SNS was confirmed",
            },
            Outcome::Refused(refusal) => refusal.facts(),
        }
    }
}

impl Held {
    /// The whole list, in the order of the declaration.
    pub const ALL: [Held; 3] = [Held::InKafka, Held::OnDisk, Held::AsDeadLetter];

    pub fn facts(self) -> Facts {
        let (tag, text) = match self {
            Held::InKafka => ("accepted", "Every in-sync replica of Kafka has the click"),
            Held::OnDisk => {
                ("spooled", "The click is on disk, and goes to Kafka as soon as it can")
            }
            Held::AsDeadLetter => {
                ("dead_lettered", "Nobody can understand the body; it is kept as a dead letter")
            }
        };
        Facts { tag, status: StatusCode::OK, level: None, text }
    }
}

impl Refusal {
    /// The whole list, in the order of the declaration.
    pub const ALL: [Refusal; 27] = [
        Refusal::SenderGone,
        Refusal::NotHttp,
        Refusal::Malformed,
        Refusal::Unauthorized,
        Refusal::Forbidden,
        Refusal::UnknownPath,
        Refusal::WrongMethod,
        Refusal::SlowHead,
        Refusal::SlowBody,
        Refusal::BodyTooLarge,
        Refusal::RecordTooLarge,
        Refusal::UnknownEncoding,
        Refusal::Invalid,
        Refusal::AddressOverRate,
        Refusal::KeyOverRate,
        Refusal::TooManyFailures,
        Refusal::HeadTooLarge,
        Refusal::Panicked,
        Refusal::TooManyRequests,
        Refusal::MemoryFull,
        Refusal::KafkaQueueFull,
        Refusal::KafkaTimeout,
        Refusal::KafkaRefused,
        Refusal::SpoolFull,
        Refusal::SpoolFailed,
        Refusal::Unconfirmed,
        Refusal::SnsUnreachable,
    ];

    pub fn facts(self) -> Facts {
        let (tag, status, level, text) = match self {
            Refusal::SenderGone => (
                "abandoned",
                StatusCode::BAD_REQUEST,
                Level::WARN,
                "The sender hung up before the answer",
            ),
            Refusal::NotHttp => {
                ("not_http", StatusCode::BAD_REQUEST, Level::INFO, "The request is not valid HTTP")
            }
            Refusal::Malformed => {
                ("malformed", StatusCode::BAD_REQUEST, Level::WARN, "The body is not JSON")
            }
            Refusal::Unauthorized => (
                "unauthorized",
                StatusCode::UNAUTHORIZED,
                Level::WARN,
                "A valid key or signature is required",
            ),
            Refusal::Forbidden => (
                "forbidden",
                StatusCode::FORBIDDEN,
                Level::WARN,
                "The key is not for this webhook or this address",
            ),
            Refusal::UnknownPath => (
                "unknown_path",
                StatusCode::NOT_FOUND,
                Level::INFO,
                "No webhook is configured at this path",
            ),
            Refusal::WrongMethod => (
                "wrong_method",
                StatusCode::METHOD_NOT_ALLOWED,
                Level::INFO,
                "This webhook takes POST",
            ),
            Refusal::SlowHead => (
                "slow_head",
                StatusCode::REQUEST_TIMEOUT,
                Level::INFO,
                "The request's head did not arrive in time",
            ),
            Refusal::SlowBody => (
                "slow_body",
                StatusCode::REQUEST_TIMEOUT,
                Level::WARN,
                "The body did not arrive in time",
            ),
            Refusal::BodyTooLarge => (
                "body_too_large",
                StatusCode::PAYLOAD_TOO_LARGE,
                Level::WARN,
                "The body is larger than the limit",
            ),
            Refusal::RecordTooLarge => (
                "record_too_large",
                StatusCode::PAYLOAD_TOO_LARGE,
                Level::ERROR,
                "The event is larger than its topic takes",
            ),
            Refusal::UnknownEncoding => (
                "unknown_encoding",
                StatusCode::UNSUPPORTED_MEDIA_TYPE,
                Level::WARN,
                "A body may be compressed by gzip or zstd alone",
            ),
            Refusal::Invalid => (
                "invalid",
                StatusCode::UNPROCESSABLE_ENTITY,
                Level::WARN,
                "The body is not an event of this webhook",
            ),
            Refusal::AddressOverRate => (
                "address_over_rate",
                StatusCode::TOO_MANY_REQUESTS,
                Level::WARN,
                "Too many requests a second from this address",
            ),
            Refusal::KeyOverRate => (
                "key_over_rate",
                StatusCode::TOO_MANY_REQUESTS,
                Level::WARN,
                "Too many requests a second with this key",
            ),
            Refusal::TooManyFailures => (
                "too_many_failures",
                StatusCode::TOO_MANY_REQUESTS,
                Level::WARN,
                "Too many requests a second without a valid key from this address",
            ),
            Refusal::HeadTooLarge => (
                "head_too_large",
                StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE,
                Level::INFO,
                "Too many headers, or too many bytes of them",
            ),
            Refusal::Panicked => (
                "panicked",
                StatusCode::INTERNAL_SERVER_ERROR,
                Level::ERROR,
                "The bridge made a mistake",
            ),
            Refusal::TooManyRequests => (
                "too_many_requests",
                StatusCode::SERVICE_UNAVAILABLE,
                Level::ERROR,
                "Too many requests are in flight",
            ),
            Refusal::MemoryFull => (
                "memory_full",
                StatusCode::SERVICE_UNAVAILABLE,
                Level::ERROR,
                "Too many bytes are in flight",
            ),
            Refusal::KafkaQueueFull => (
                "kafka_queue_full",
                StatusCode::SERVICE_UNAVAILABLE,
                Level::ERROR,
                "The queue to the event store is full",
            ),
            Refusal::KafkaTimeout => (
                "kafka_timeout",
                StatusCode::SERVICE_UNAVAILABLE,
                Level::ERROR,
                "The event store did not answer in time",
            ),
            Refusal::KafkaRefused => (
                "kafka_refused",
                StatusCode::SERVICE_UNAVAILABLE,
                Level::ERROR,
                "The event store did not take the event",
            ),
            Refusal::SpoolFull => (
                "spool_full",
                StatusCode::SERVICE_UNAVAILABLE,
                Level::ERROR,
                "There is no more room to hold the event",
            ),
            Refusal::SpoolFailed => (
                "spool_failed",
                StatusCode::SERVICE_UNAVAILABLE,
                Level::ERROR,
                "The event could not be stored",
            ),
            Refusal::Unconfirmed => (
                "unconfirmed",
                StatusCode::SERVICE_UNAVAILABLE,
                Level::ERROR,
                "The event store has not confirmed the event",
            ),
            Refusal::SnsUnreachable => (
                "sns_unreachable",
                StatusCode::SERVICE_UNAVAILABLE,
                Level::ERROR,
                "Amazon SNS could not be asked about its message",
            ),
        };
        Facts { tag, status, level: Some(level), text }
    }
}

impl Refusal {
    /// Whether the sender gets an answer: not one that is gone, or has not said what it wants.
    pub fn is_answered(self) -> bool {
        !matches!(self, Refusal::SenderGone | Refusal::SlowHead)
    }
}

/// A refusal with its particulars: a short one for the sender, a full one for the log.
#[derive(Debug)]
pub struct Rejection {
    pub refusal: Refusal,
    /// For the sender. Never a broker's address, a topic or anything it did not cause.
    pub detail: Cow<'static, str>,
    /// For the log. Never a body, an e-mail address or a key.
    pub cause: Option<String>,
}

impl Refusal {
    /// A rejection whose detail is the refusal's own text.
    pub fn plain(self) -> Rejection {
        self.detailed(self.facts().text)
    }

    /// A rejection that tells the sender more.
    pub fn detailed(self, detail: impl Into<Cow<'static, str>>) -> Rejection {
        Rejection { refusal: self, detail: detail.into(), cause: None }
    }

    /// A rejection whose cause is for the operator alone.
    pub fn because(self, cause: impl Into<String>) -> Rejection {
        Rejection { cause: Some(cause.into()), ..self.plain() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_outcome_stands_at_its_index_and_has_a_tag_of_its_own() {
        let all: Vec<Outcome> = Outcome::all().collect();
        assert_eq!(all.len(), Outcome::COUNT);
        for (index, outcome) in all.iter().enumerate() {
            assert_eq!(outcome.index(), index, "{outcome:?}");
        }
        let tags: std::collections::BTreeSet<_> = all.iter().map(|o| o.facts().tag).collect();
        assert_eq!(tags.len(), all.len());
    }

    #[test]
    fn no_refusal_looks_like_success() {
        for refusal in Refusal::ALL {
            let status = refusal.facts().status;
            assert!(status.is_client_error() || status.is_server_error(), "{refusal:?}");
        }
    }
}
