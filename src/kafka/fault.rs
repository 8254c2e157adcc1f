//! The one table of what Kafka's error codes mean for us: the kind of fault, and what an operator
//! should do about it.

use rdkafka::error::RDKafkaErrorCode as Code;

use crate::metrics::RecordResult;

/// A record that was not acknowledged.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Failure {
    pub fault: Fault,
    code: Code,
}

/// What kind of fault it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// The client's queue is full; the record was never in it.
    QueueFull,
    /// No acknowledgement in time.
    TimedOut,
    /// Kafka takes no record of this size.
    TooLarge,
    /// Kafka answered, and did not take it.
    Refused,
    /// The producer is broken and must be replaced.
    ProducerFailed,
}

impl Fault {
    pub fn result(self) -> RecordResult {
        match self {
            Fault::QueueFull => RecordResult::QueueFull,
            Fault::TimedOut => RecordResult::TimedOut,
            Fault::TooLarge => RecordResult::TooLarge,
            Fault::Refused => RecordResult::Refused,
            Fault::ProducerFailed => RecordResult::ProducerFailed,
        }
    }
}

impl Failure {
    pub(super) fn new(code: Code) -> Failure {
        Failure { fault: classify(code).0, code }
    }

    /// For the log: what happened and what to do.
    pub fn explain(&self) -> String {
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
            Fault::QueueFull,
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
        Code::Fatal | Code::PurgeQueue | Code::PurgeInflight | Code::State => (
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
            Fault::Refused,
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
        for (code, fault) in [
            (Code::QueueFull, Fault::QueueFull),
            (Code::MessageTimedOut, Fault::TimedOut),
            (Code::MessageSizeTooLarge, Fault::TooLarge),
            (Code::Fatal, Fault::ProducerFailed),
            (Code::PurgeQueue, Fault::ProducerFailed),
            (Code::UnknownTopic, Fault::Refused),
            (Code::NotEnoughReplicas, Fault::Refused),
            (Code::TopicAuthorizationFailed, Fault::Refused),
            (Code::OutOfOrderSequenceNumber, Fault::Refused),
        ] {
            assert_eq!(Failure::new(code).fault, fault, "{code:?}");
        }
    }
}
