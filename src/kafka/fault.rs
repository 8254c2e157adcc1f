//! The one table of what Kafka's error codes mean for us: the kind of fault, and what an operator
//! should do about it; and what the bridge does about each kind.

use rdkafka::error::RDKafkaErrorCode as Code;

use crate::observe::metrics::RecordResult;

/// A record that was not acknowledged.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Failure {
    pub fault: Fault,
    code: Code,
}

/// What kind of fault it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// The client's queue is full, or another record of the batch was refused: nothing is known
    /// against this one.
    NotTried,
    /// The client takes it for acknowledged, and no broker said so.
    ///
    /// Of two requests on their way the first failed and the second did not. A broker takes the second
    /// alone only if it has the first already, for it knows the numbers of a producer's records: so the
    /// client reports the first as delivered. But a broker that knows nothing of the producer yet, or
    /// no longer (`ProducerAppendInfo.checkSequence`), takes any number, and then the first is lost.
    Unproven,
    /// No acknowledgement in time.
    TimedOut,
    /// Kafka takes no record of this size.
    TooLarge,
    /// Kafka takes no such record.
    Corrupt,
    /// Kafka answered, and does not take it as things are.
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
    /// Send it to the dead letters, if it is refused alone, too: a batch is refused as one.
    DeadLetter,
    /// Keep it until there is a new producer.
    Rebuild,
}

impl Fault {
    pub fn remedy(self) -> Remedy {
        match self {
            Fault::NotTried => Remedy::TryAgain,
            Fault::Unproven => Remedy::Repeat,
            Fault::TimedOut | Fault::Refused => Remedy::Spool,
            Fault::TooLarge | Fault::Corrupt => Remedy::DeadLetter,
            Fault::ProducerFailed => Remedy::Rebuild,
        }
    }

    pub fn result(self) -> RecordResult {
        match self {
            Fault::NotTried => RecordResult::QueueFull,
            Fault::Unproven => RecordResult::Unproven,
            Fault::TimedOut => RecordResult::TimedOut,
            Fault::TooLarge => RecordResult::TooLarge,
            Fault::Corrupt => RecordResult::Corrupt,
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
        self.fault.remedy()
    }

    /// For the log: what happened and what to do.
    pub fn explain(&self) -> String {
        if self.fault == Fault::Unproven {
            return "the Kafka client takes it for delivered, but no broker said so".to_owned();
        }
        let (_, advice) = classify(self.code);
        if advice.is_empty() { self.code.to_string() } else { format!("{}: {advice}", self.code) }
    }
}

/// What to do about an error that belongs to no record.
pub(super) fn advice(code: Code) -> &'static str {
    classify(code).1
}

/// The table.
fn classify(code: Code) -> (Fault, &'static str) {
    match code {
        Code::QueueFull => (
            Fault::NotTried,
            "Kafka takes records more slowly than they come; look at the brokers, or add replicas",
        ),
        Code::MessageTimedOut
        | Code::OperationTimedOut
        | Code::RequestTimedOut
        | Code::TimedOutQueue => (
            Fault::TimedOut,
            "no broker acknowledged in time; look whether the brokers are up and reachable under \
             the names they advertise, and whether the topic has enough in-sync replicas",
        ),
        Code::MessageSizeTooLarge | Code::InvalidMessageSize => {
            (Fault::TooLarge, "raise max.message.bytes of the topic, or lower http.max_body_bytes")
        }
        Code::InvalidDifferentRecord => {
            (Fault::NotTried, "another record of its batch was refused")
        }
        Code::InvalidMessage | Code::InvalidRecord | Code::BadMessage => (
            Fault::Corrupt,
            "Kafka cannot read the record as it arrived, or the topic's policies forbid it (a \
             compacted topic needs keys)",
        ),
        Code::Fatal
        | Code::PurgeQueue
        | Code::PurgeInflight
        | Code::State
        | Code::Fenced
        | Code::GaplessGuarantee
        | Code::OutOfOrderSequenceNumber
        | Code::DuplicateSequenceNumber
        | Code::InvalidProducerEpoch
        | Code::InvalidProducerIdMapping
        | Code::UnknownProducerId
        | Code::ProducerFenced => (
            Fault::ProducerFailed,
            "the producer is being replaced; nothing to do unless this repeats",
        ),
        Code::UnknownTopic | Code::UnknownTopicOrPartition | Code::UnknownPartition => (
            Fault::Refused,
            "the topic does not exist; create it, with as many partitions as its readers need",
        ),
        Code::NotEnoughReplicas | Code::NotEnoughReplicasAfterAppend => (
            Fault::Refused,
            "fewer replicas are in sync than min.insync.replicas asks for; bring the missing \
             brokers back, or lower it if the topic has fewer replicas than that",
        ),
        Code::TopicAuthorizationFailed => (
            Fault::Refused,
            "the bridge's user may not write to the topic; grant it WRITE and DESCRIBE",
        ),
        Code::ClusterAuthorizationFailed | Code::TransactionalIdAuthorizationFailed => (
            Fault::ProducerFailed,
            "the bridge's user may not produce idempotently; grant it WRITE on the topic (brokers \
             before 2.8 also ask for IDEMPOTENT_WRITE on the cluster)",
        ),
        Code::Authentication | Code::SaslAuthenticationFailed => (
            Fault::Refused,
            "the brokers do not know this user or password; look at sasl.mechanism, sasl.username \
             and sasl.password under [kafka.options]",
        ),
        Code::SSL => (
            Fault::Refused,
            "the TLS handshake failed; look at security.protocol and ssl.ca.location under \
             [kafka.options]",
        ),
        Code::BrokerTransportFailure | Code::AllBrokersDown | Code::Resolve => (
            Fault::TimedOut,
            "no broker can be reached; look at kafka.brokers, and whether the brokers are up and \
             reachable under the names they advertise",
        ),
        Code::InvalidTimestamp => (
            Fault::Corrupt,
            "the topic does not take this timestamp; widen its message.timestamp.before.max.ms and \
             message.timestamp.after.max.ms, or narrow the webhook's timestamp_max settings",
        ),
        Code::PolicyViolation | Code::ThrottlingQuotaExceeded => (
            Fault::Refused,
            "the brokers throttle or forbid this; look at their quotas and policies",
        ),
        Code::KafkaStorageError => {
            (Fault::Refused, "a broker's disk fails; look at the broker's log")
        }
        _ => (Fault::Refused, ""),
    }
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
                    // Whatever is not in the table is held.
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
                    Code::InvalidTimestamp,
                ],
            ),
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
