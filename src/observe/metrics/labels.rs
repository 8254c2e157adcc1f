//! The values of labels that are fixed: closed lists, so that every series exists from the start.

use crate::click::outcome::Outcome;

/// A label whose values are a closed list.
pub trait Label: Copy {
    const NAME: &'static str;

    /// The values; they are stable.
    fn tags() -> impl Iterator<Item = &'static str>;

    /// The place of this value's tag.
    fn index(self) -> usize;
}

impl Label for Outcome {
    const NAME: &'static str = "outcome";

    fn tags() -> impl Iterator<Item = &'static str> {
        Outcome::all().map(|outcome| outcome.facts().tag)
    }

    fn index(self) -> usize {
        self.index()
    }
}

/// Declares enums with the label's name and each variant's tag.
macro_rules! labels {
    ($(
        $(#[$attribute:meta])*
        $name:ident, $label:literal: { $($(#[$meaning:meta])* $variant:ident = $tag:literal,)* }
    )*) => {$(
        $(#[$attribute])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub enum $name { $($(#[$meaning])* $variant,)* }

        impl $name {
            pub const ALL: [$name; [$($tag),*].len()] = [$($name::$variant),*];

            /// The label's value; stable.
            pub fn tag(self) -> &'static str {
                match self { $($name::$variant => $tag,)* }
            }
        }

        impl Label for $name {
            const NAME: &'static str = $label;

            fn tags() -> impl Iterator<Item = &'static str> {
                $name::ALL.into_iter().map($name::tag)
            }

            fn index(self) -> usize {
                self as usize
            }
        }
    )*};
}

labels! {
    /// How sending a record to Kafka ended.
    RecordResult, "result": {
        Acknowledged = "acknowledged",
        QueueFull = "queue_full",
        /// The client takes it for acknowledged, but no broker said so.
        Unproven = "unproven",
        TimedOut = "timed_out",
        TooLarge = "too_large",
        Corrupt = "corrupt",
        /// Its topic does not take its timestamp; it is sent again with another.
        InvalidTimestamp = "invalid_timestamp",
        Refused = "refused",
        /// The producer failed and was replaced.
        ProducerFailed = "producer_failed",
    }

    /// Why a body became a dead letter. The tag is also the value of the record's header.
    DeadLetterReason, "reason": {
        /// It is not JSON.
        Malformed = "malformed",
        /// It is not an event of its webhook.
        Invalid = "invalid",
        /// It is compressed in a way that is not supported.
        UnknownEncoding = "unknown_encoding",
        /// Its topic takes no record of this size.
        TooLarge = "too_large",
        /// Kafka does not take it as it is.
        Corrupt = "corrupt",
    }

    /// Why a connection was not taken, or why the listener paused.
    ConnectionRefusal, "reason": {
        Limit = "limit",
        AddressLimit = "address_limit",
        FileDescriptors = "file_descriptors",
    }

    /// Why a TLS handshake failed.
    HandshakeFailure, "reason": {
        Timeout = "timeout",
        /// The sender went away, as port scanners do.
        HungUp = "hung_up",
        /// The sender's certificate is missing or does not verify.
        ClientCertificate = "client_certificate",
        /// No common version or cipher, or the bytes are not TLS.
        Protocol = "protocol",
    }

    /// Why the spool did not take an event.
    SpoolRefusal, "reason": {
        Full = "full",
        Failed = "failed",
    }

    /// The state that the circuit breaker changed to.
    BreakerChange, "to": {
        Open = "open",
        Closed = "closed",
    }

    /// What is read again when its file changes.
    Reloaded, "what": {
        Keys = "keys",
        Tls = "tls",
        Log = "log",
    }

    /// Whether what was read again was taken.
    ReloadResult, "result": {
        Failed = "failed",
        Ok = "ok",
    }
}
