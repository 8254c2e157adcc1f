//! The one table of what Kafka's error codes mean for us: the kind of fault, and what an operator
//! should do about it; and what the bridge does about each kind.

use std::fmt::Display;

use rdkafka::error::RDKafkaErrorCode as Code;

use crate::observe::metrics::RecordResult;

/// A record that was not acknowledged.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Failure {
    pub fault: Fault,
    code: Code,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// The client's queue is full, or another record of the batch was refused: this one may be good.
    NotTried,
    /// The client reports it as delivered, but no broker acknowledged it.
    ///
    /// Of two requests in flight the first failed and the second did not. The broker knows the sequence
    /// numbers of a producer's records and takes the second only after the first: so the client concludes
    /// that the first was delivered, too. But a broker that does not know the producer yet, or no longer
    /// (`ProducerAppendInfo.checkSequence`), takes any number, and then the first is lost.
    Unproven,
    /// No acknowledgement in time.
    TimedOut,
    /// Kafka takes no record of this size.
    TooLarge,
    /// Kafka takes no record with this content.
    Corrupt,
    /// The topic takes no record with this timestamp.
    Timestamp,
    /// Kafka refuses it now, for a reason that an operator can remove.
    Refused,
    /// The producer is broken and must be replaced.
    ProducerFailed,
}

/// What the bridge does about a fault.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Remedy {
    /// Send it again, alone.
    TryAgain,
    /// Send it again, before what follows it.
    Repeat,
    /// Keep it until Kafka takes it.
    Spool,
    /// Send it to the dead letters if it is refused alone, too: Kafka refuses a batch as one.
    DeadLetter,
    /// Send it again alone with its own timestamp, then with another: the event itself is good.
    Restamp,
    /// Keep it until there is a new producer.
    Rebuild,
}

impl Fault {
    /// How it is counted.
    pub(super) fn result(self) -> RecordResult {
        match self {
            Fault::NotTried => RecordResult::QueueFull,
            Fault::Unproven => RecordResult::Unproven,
            Fault::TimedOut => RecordResult::TimedOut,
            Fault::TooLarge => RecordResult::TooLarge,
            Fault::Corrupt => RecordResult::Corrupt,
            Fault::Timestamp => RecordResult::InvalidTimestamp,
            Fault::Refused => RecordResult::Refused,
            Fault::ProducerFailed => RecordResult::ProducerFailed,
        }
    }
}

impl Failure {
    pub(super) fn new(code: Code) -> Failure {
        Failure { fault: classify(code).0, code }
    }

    pub(super) fn unproven() -> Failure {
        Failure { fault: Fault::Unproven, code: Code::NoError }
    }

    pub fn remedy(&self) -> Remedy {
        match self.fault {
            Fault::NotTried => Remedy::TryAgain,
            Fault::Unproven => Remedy::Repeat,
            Fault::TimedOut | Fault::Refused => Remedy::Spool,
            Fault::TooLarge | Fault::Corrupt => Remedy::DeadLetter,
            Fault::Timestamp => Remedy::Restamp,
            Fault::ProducerFailed => Remedy::Rebuild,
        }
    }

    /// Whether another timestamp may help. Where several records of a batch are refused, the client says
    /// only that each of them is invalid.
    pub fn may_be_of_timestamp(&self) -> bool {
        matches!(self.code, Code::InvalidTimestamp | Code::InvalidRecord)
    }

    /// Whether the record may be good, and another one of its batch is not.
    pub(super) fn may_be_of_another(&self) -> bool {
        self.code == Code::InvalidDifferentRecord || self.remedy() == Remedy::DeadLetter
    }

    /// For the log: what happened and what to do.
    pub fn explain(&self) -> String {
        if self.fault == Fault::Unproven {
            return "the Kafka client takes it for delivered, but no broker said so".to_owned();
        }
        with_advice(self.code, self.code)
    }
}

/// What an operator should do about an error; empty where there is nothing to say.
pub(super) fn advice(code: Code) -> &'static str {
    classify(code).1
}

/// What an operator should do about an error that a client reports, by its code and by librdkafka's words, which
/// may say more.
pub(super) fn advice_on(code: Code, reason: &str) -> &'static str {
    if CERTIFICATE_ALERTS.iter().any(|words| reason.contains(words)) {
        return "the brokers ask for a certificate of this bridge, or do not take it; look at \
                ssl.certificate.location and ssl.key.location under [kafka.options]";
    }
    if reason.contains("Idempotent producer not supported") {
        return "the brokers do not take idempotent producers, without which a retry would change the order of \
                clicks; use others";
    }
    let is_about_token = reason.contains(TOKEN_FAILED);
    let is_login = matches!(code, Code::Authentication | Code::SaslAuthenticationFailed);
    let rows: &[_] = match (is_about_token, is_login) {
        (true, _) => &TOKEN_REASONS,
        (false, true) => &LOGIN_REASONS,
        (false, false) => return advice(code),
    };
    let row = rows.iter().find(|(words, _)| words.iter().any(|words| reason.contains(words)));
    row.map_or(if is_about_token { TOKEN_ADVICE } else { advice(code) }, |(_, advice)| advice)
}

/// What brokers end a handshake with, and librdkafka reports as a lost connection.
const CERTIFICATE_ALERTS: [&str; 4] = [
    "alert bad certificate",
    "alert certificate required",
    "alert certificate unknown",
    "alert unknown ca",
];

/// How librdkafka begins when it could not get a token.
const TOKEN_FAILED: &str = "Failed to acquire SASL OAUTHBEARER token";

const TOKEN_ADVICE: &str = "look at the settings sasl.oauthbearer under [kafka.options], and at the log of the token endpoint";

/// Words of librdkafka, curl, OpenSSL and token endpoints (RFC 6749, 5.2), and what to do.
type Reasons<const N: usize> = [(&'static [&'static str], &'static str); N];

const TOKEN_REASONS: Reasons<7> = [
    (
        &["unexpired token"],
        "the token has expired when it comes: set the clock of this machine, or that of the token endpoint",
    ),
    (
        &["invalid_client", "unauthorized_client", "Unauthorized", "access_denied"],
        "the token endpoint does not know this client or its secret; look at sasl.oauthbearer.client.id and \
         sasl.oauthbearer.client.secret under [kafka.options]",
    ),
    (
        &["invalid_scope"],
        "the token endpoint does not give this scope; look at sasl.oauthbearer.scope under [kafka.options]",
    ),
    (
        &["has expired", "not yet valid"],
        "the certificate of the token endpoint is out of its time, or the clock of this machine is wrong",
    ),
    (
        &["subject name", "host name", "hostname"],
        "the certificate of the token endpoint is for another name; look at \
         sasl.oauthbearer.token.endpoint.url under [kafka.options]",
    ),
    (
        &["issuer certificate", "self-signed", "self signed"],
        "the certificate of the token endpoint is of no authority that is trusted here; name it in \
         https.ca.location under [kafka.options]",
    ),
    (
        &[
            "resolve host",
            "connect to",
            "timed out",
            "Timeout",
            "Connection",
            "Recv failure",
            "SSL",
        ],
        "the token endpoint cannot be reached; look at sasl.oauthbearer.token.endpoint.url under \
         [kafka.options], and whether it is up",
    ),
];

const LOGIN_REASONS: Reasons<2> = [
    (
        &["invalid_token", "OAUTHBEARER"],
        "the brokers do not take the token; compare its issuer, audience and scope with what they expect, and \
         the clocks of brokers, token endpoint and this machine",
    ),
    (
        &["mechanism"],
        "the brokers do not know this user or password, or do not offer this mechanism; look at \
         sasl.mechanism, sasl.username and sasl.password under [kafka.options]",
    ),
];

/// What happened, and what an operator should do about it.
pub(super) fn with_advice(what: impl Display, code: Code) -> String {
    match advice(code) {
        "" => what.to_string(),
        advice => format!("{what}: {advice}"),
    }
}

/// The table: a kind of fault, its codes, and what an operator should do. A code that is not in it is refused.
macro_rules! classify {
    ($($fault:ident: $($code:ident)|+ => $advice:literal;)+) => {
        fn classify(code: Code) -> (Fault, &'static str) {
            match code {
                $($(Code::$code)|+ => (Fault::$fault, $advice),)+
                _ => (Fault::Refused, ""),
            }
        }
    };
}

classify! {
    NotTried: QueueFull
        => "Kafka takes records more slowly than they come; look at the brokers, or add replicas";
    NotTried: InvalidDifferentRecord
        => "another record of its batch was refused";
    TimedOut: MessageTimedOut | OperationTimedOut | RequestTimedOut | TimedOutQueue
        => "no broker acknowledged in time; look whether the brokers are up and reachable under the \
            names they advertise, and whether the topic has enough in-sync replicas";
    TimedOut: BrokerTransportFailure | AllBrokersDown | Resolve
        => "no broker can be reached; look at kafka.brokers, and whether the brokers are up and \
            reachable under the names they advertise";
    TooLarge: MessageSizeTooLarge | InvalidMessageSize
        => "raise max.message.bytes of the topic, or lower http.max_body_bytes";
    Corrupt: InvalidMessage | InvalidRecord | BadMessage
        => "Kafka cannot read the record as it arrived, or the topic's policies forbid it (a \
            compacted topic needs keys)";
    Timestamp: InvalidTimestamp
        => "the topic does not take this timestamp; widen its message.timestamp.before.max.ms and \
            message.timestamp.after.max.ms, or narrow the webhook's timestamp_max settings";
    Refused: UnknownTopic | UnknownTopicOrPartition | UnknownPartition
        => "the topic does not exist; create it, with as many partitions as its readers need";
    Refused: NotEnoughReplicas | NotEnoughReplicasAfterAppend
        => "fewer replicas are in sync than min.insync.replicas asks for; bring the missing brokers \
            back, or lower it if the topic has fewer replicas than that";
    Refused: TopicAuthorizationFailed
        => "the bridge's user may not write to the topic; grant it WRITE and DESCRIBE";
    Refused: Authentication | SaslAuthenticationFailed
        => "the brokers do not know this user or password; look at sasl.mechanism, sasl.username and \
            sasl.password under [kafka.options]";
    Refused: SSL
        => "the TLS handshake failed; look at security.protocol and ssl.ca.location under \
            [kafka.options]";
    Refused: PolicyViolation | ThrottlingQuotaExceeded
        => "the brokers throttle or forbid this; look at their quotas and policies";
    Refused: KafkaStorageError
        => "a broker's disk fails; look at the broker's log";
    ProducerFailed: Fatal | PurgeQueue | PurgeInflight | State | Fenced | ProducerFenced
        | GaplessGuarantee | OutOfOrderSequenceNumber | DuplicateSequenceNumber
        | InvalidProducerEpoch | InvalidProducerIdMapping | UnknownProducerId
        => "the producer is being replaced; nothing to do unless this repeats";
    ProducerFailed: ClusterAuthorizationFailed | TransactionalIdAuthorizationFailed
        => "the bridge's user may not produce idempotently; grant it WRITE on the topic (brokers \
            before 2.8 also ask for IDEMPOTENT_WRITE on the cluster)";
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_are_told_apart() {
        for (remedy, codes) in [
            (Remedy::TryAgain, &[Code::QueueFull, Code::InvalidDifferentRecord][..]),
            (
                Remedy::Spool,
                &[
                    Code::MessageTimedOut,
                    Code::OperationTimedOut,
                    Code::RequestTimedOut,
                    Code::TimedOutQueue,
                    Code::BrokerTransportFailure,
                    Code::AllBrokersDown,
                    Code::Resolve,
                    Code::UnknownTopic,
                    Code::UnknownTopicOrPartition,
                    Code::UnknownPartition,
                    Code::NotEnoughReplicas,
                    Code::NotEnoughReplicasAfterAppend,
                    Code::NotLeaderForPartition,
                    Code::LeaderNotAvailable,
                    Code::TopicAuthorizationFailed,
                    Code::Authentication,
                    Code::SaslAuthenticationFailed,
                    Code::SSL,
                    Code::PolicyViolation,
                    Code::ThrottlingQuotaExceeded,
                    Code::KafkaStorageError,
                    // A code that is not in the table is held.
                    Code::Unknown,
                    Code::Fail,
                ],
            ),
            (
                Remedy::DeadLetter,
                &[
                    Code::MessageSizeTooLarge,
                    Code::InvalidMessageSize,
                    Code::InvalidMessage,
                    Code::InvalidRecord,
                    Code::BadMessage,
                ],
            ),
            (Remedy::Restamp, &[Code::InvalidTimestamp]),
            (
                Remedy::Rebuild,
                &[
                    Code::Fatal,
                    Code::PurgeQueue,
                    Code::PurgeInflight,
                    Code::State,
                    Code::Fenced,
                    Code::GaplessGuarantee,
                    Code::OutOfOrderSequenceNumber,
                    Code::DuplicateSequenceNumber,
                    Code::InvalidProducerEpoch,
                    Code::InvalidProducerIdMapping,
                    Code::UnknownProducerId,
                    Code::ProducerFenced,
                    Code::ClusterAuthorizationFailed,
                    Code::TransactionalIdAuthorizationFailed,
                ],
            ),
        ] {
            for code in codes {
                assert_eq!(Failure::new(*code).remedy(), remedy, "{code:?}");
            }
        }
    }
}
