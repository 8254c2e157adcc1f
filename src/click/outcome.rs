//! The one closed list of how a request can end: metric label, status, log level and text of each entry.
//!
//! An outcome is declared together with its facts, in one entry of one table: none can be forgotten.

use std::borrow::Cow;

use hyper::StatusCode;
use tracing::Level;

/// How a request ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// The click is held durably: 200. Only a [`Receipt`](crate::delivery::Receipt) leads here.
    Held(Held),
    /// There was no click: 200.
    NoClick(NoClick),
    /// The click was not answered 200.
    Refused(Refusal),
}

/// What is fixed about one outcome.
#[derive(Debug, Clone, Copy)]
pub struct Facts {
    /// The value of the metric label `outcome`; stable.
    pub tag: &'static str,
    /// What the sender gets, if it is still there.
    pub status: StatusCode,
    /// The level of the log line; none where nothing is logged.
    pub level: Option<Level>,
    /// The text for the sender, and the meaning in the table of `config/README.md`.
    pub text: &'static str,
}

/// Declares an enum of outcomes. An entry: `Variant = tag, status, level, text;`.
macro_rules! outcomes {
    (
        $(#[$about:meta])*
        pub enum $name:ident {
            $($(#[$doc:meta])* $variant:ident = $tag:literal, $status:ident, $level:expr, $text:literal;)+
        }
    ) => {
        $(#[$about])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub enum $name {
            $($(#[$doc])* $variant,)+
        }

        impl $name {
            /// The whole list, in the order of the declaration.
            const ALL: &[$name] = &[$($name::$variant),+];

            pub fn facts(self) -> Facts {
                let (tag, status, level, text) = match self {
                    $($name::$variant => ($tag, StatusCode::$status, $level, $text),)+
                };
                Facts { tag, status, level, text }
            }
        }
    };
}

outcomes! {
    /// Where a click is held.
    pub enum Held {
        /// By every in-sync replica.
        InKafka = "accepted", OK, None,
            "Every in-sync replica of Kafka has the click";
        /// On this replica's disk, until Kafka has it.
        OnDisk = "spooled", OK, None,
            "The click is on disk, and goes to Kafka as soon as it can";
        /// In Kafka or on disk, as a dead letter: the body is no event of its webhook.
        AsDeadLetter = "dead_lettered", OK, None,
            "Nobody can understand the body; it is kept as a dead letter";
    }
}

outcomes! {
    /// What a request was that was no click.
    pub enum NoClick {
        /// Amazon SNS asked whether a subscription is wanted.
        Confirmed = "confirmed", OK, None,
            "No click: a subscription of Amazon SNS was confirmed";
        /// The sender asked whether the address is right.
        Verified = "verified", OK, None,
            "No click: the sender asked about the address, and was answered";
    }
}

outcomes! {
    /// Why a request was not answered 200.
    pub enum Refusal {
        /// The sender hung up before the answer. What was already handed to Kafka still lands.
        SenderGone = "abandoned", BAD_REQUEST, Some(Level::WARN),
            "The sender hung up before the answer";
        /// The bytes are not HTTP.
        NotHttp = "not_http", BAD_REQUEST, Some(Level::INFO),
            "The request is not valid HTTP";
        /// The body is not JSON.
        Malformed = "malformed", BAD_REQUEST, Some(Level::WARN),
            "The body is not JSON";
        /// No valid key or signature.
        Unauthorized = "unauthorized", UNAUTHORIZED, Some(Level::WARN),
            "A valid key or signature is required";
        /// A valid key, but not for this webhook or not from this address.
        Forbidden = "forbidden", FORBIDDEN, Some(Level::WARN),
            "The key is not for this webhook or this address";
        /// No webhook has this path.
        UnknownPath = "unknown_path", NOT_FOUND, Some(Level::INFO),
            "No webhook is configured at this path";
        /// A webhook takes only POST.
        WrongMethod = "wrong_method", METHOD_NOT_ALLOWED, Some(Level::INFO),
            "This webhook takes POST";
        /// The request's head did not arrive in time; the connection is closed.
        SlowHead = "slow_head", REQUEST_TIMEOUT, Some(Level::INFO),
            "The request's head did not arrive in time";
        /// The body did not arrive in time.
        SlowBody = "slow_body", REQUEST_TIMEOUT, Some(Level::WARN),
            "The body did not arrive in time";
        /// The body is over the limit, as sent or unpacked.
        BodyTooLarge = "body_too_large", PAYLOAD_TOO_LARGE, Some(Level::WARN),
            "The body is larger than the limit";
        /// Neither the topic nor its dead-letter topic takes a record of this size.
        RecordTooLarge = "record_too_large", PAYLOAD_TOO_LARGE, Some(Level::ERROR),
            "The event is larger than its topic takes";
        /// The body has a content coding that is not supported.
        UnknownEncoding = "unknown_encoding", UNSUPPORTED_MEDIA_TYPE, Some(Level::WARN),
            "A body may be compressed by gzip, deflate or zstd";
        /// The body is JSON, but not an event of this webhook.
        Invalid = "invalid", UNPROCESSABLE_ENTITY, Some(Level::WARN),
            "The body is not an event of this webhook";
        /// The address is over its rate limit.
        AddressOverRate = "address_over_rate", TOO_MANY_REQUESTS, Some(Level::WARN),
            "Too many requests a second from this address";
        /// The key is over its rate limit.
        KeyOverRate = "key_over_rate", TOO_MANY_REQUESTS, Some(Level::WARN),
            "Too many requests a second with this key";
        /// The address sends too many requests without a valid key.
        TooManyFailures = "too_many_failures", TOO_MANY_REQUESTS, Some(Level::WARN),
            "Too many requests a second without a valid key from this address";
        /// Too many headers, or too many bytes of them.
        HeadTooLarge = "head_too_large", REQUEST_HEADER_FIELDS_TOO_LARGE, Some(Level::INFO),
            "Too many headers, or too many bytes of them";
        /// The code that served it panicked.
        Panicked = "panicked", INTERNAL_SERVER_ERROR, Some(Level::ERROR),
            "The bridge made a mistake";
        /// The limit of requests in flight is reached.
        TooManyRequests = "too_many_requests", SERVICE_UNAVAILABLE, Some(Level::ERROR),
            "Too many requests are in flight";
        /// The limit of body bytes in flight is reached.
        MemoryFull = "memory_full", SERVICE_UNAVAILABLE, Some(Level::ERROR),
            "Too many bytes are in flight";
        /// The Kafka client's queue is full.
        KafkaQueueFull = "kafka_queue_full", SERVICE_UNAVAILABLE, Some(Level::ERROR),
            "The queue to the event store is full";
        /// Kafka did not acknowledge in time.
        KafkaTimeout = "kafka_timeout", SERVICE_UNAVAILABLE, Some(Level::ERROR),
            "The event store did not answer in time";
        /// Kafka answered with an error.
        KafkaRefused = "kafka_refused", SERVICE_UNAVAILABLE, Some(Level::ERROR),
            "The event store did not take the event";
        /// Kafka does not take it now, and the spool is full.
        SpoolFull = "spool_full", SERVICE_UNAVAILABLE, Some(Level::ERROR),
            "There is no more room to hold the event";
        /// Kafka does not take it now, and the disk fails.
        SpoolFailed = "spool_failed", SERVICE_UNAVAILABLE, Some(Level::ERROR),
            "The event could not be stored";
        /// No verdict came before the answer was due; the record may still land in Kafka.
        Unconfirmed = "unconfirmed", SERVICE_UNAVAILABLE, Some(Level::ERROR),
            "The event store has not confirmed the event";
        /// Amazon SNS did not serve a certificate, or did not take a confirmation.
        SnsUnreachable = "sns_unreachable", SERVICE_UNAVAILABLE, Some(Level::ERROR),
            "Amazon SNS could not be asked about its message";
    }
}

impl Facts {
    /// The outcome's name in the answer: a problem's `type` (RFC 9457).
    pub fn problem_type(&self) -> String {
        format!("urn:hookbridge:problem:{}", self.tag)
    }
}

impl Outcome {
    /// The whole list, in the order of the metric's labels.
    pub fn all() -> impl Iterator<Item = Outcome> {
        let held = Held::ALL.iter().copied().map(Outcome::Held);
        let refused = Refusal::ALL.iter().copied().map(Outcome::Refused);
        let no_click = NoClick::ALL.iter().copied().map(Outcome::NoClick);
        held.chain(no_click).chain(refused)
    }

    /// How many outcomes there are.
    pub const COUNT: usize = Held::ALL.len() + NoClick::ALL.len() + Refusal::ALL.len();

    /// The place of this outcome in [`Outcome::all`].
    pub fn index(self) -> usize {
        match self {
            Outcome::Held(held) => held as usize,
            Outcome::NoClick(no_click) => Held::ALL.len() + no_click as usize,
            Outcome::Refused(refusal) => Held::ALL.len() + NoClick::ALL.len() + refusal as usize,
        }
    }

    pub fn facts(self) -> Facts {
        match self {
            Outcome::Held(held) => held.facts(),
            Outcome::NoClick(no_click) => no_click.facts(),
            Outcome::Refused(refusal) => refusal.facts(),
        }
    }
}

impl Refusal {
    /// Whether the sender gets an answer: not if it is gone, or has sent no whole head.
    pub fn is_answered(self) -> bool {
        !matches!(self, Refusal::SenderGone | Refusal::SlowHead)
    }

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

/// A refusal with its particulars: short ones for the sender, full ones for the log.
#[derive(Debug)]
pub struct Rejection {
    pub refusal: Refusal,
    /// For the sender. Never a broker's address, a topic or anything that it did not cause.
    pub detail: Cow<'static, str>,
    /// For the log. Never a body, an e-mail address or a key.
    pub cause: Option<String>,
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
