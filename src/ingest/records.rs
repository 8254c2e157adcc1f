//! From a body to its records.

use bytes::Bytes;
use hyper::http::request::Parts;

use super::request_log::RequestLog;
use crate::click::auth::Caller;
use crate::click::event::Envelope;
use crate::click::outcome::{Refusal, Rejection};
use crate::click::record::{Origin, Record, trace_parent};
use crate::click::webhook::Webhook;
use crate::http::{Slot, Unpacked, content_encoding};
use crate::observe::metrics::DeadLetterReason;

/// The records of one request.
pub(super) enum Records {
    One(Record),
    /// Of a webhook whose bodies may carry several events.
    Several(Vec<Record>),
}

/// Makes the records of one request.
struct Recorder<'r, 's> {
    webhook: &'r Webhook,
    origin: Origin<'r>,
    slot: &'r mut Slot<'s>,
    dead_letters: &'r mut [u64],
}

/// The records of a body. A body, or an event in it, that cannot be decoded is a dead letter.
///
/// # Errors
///
/// Why it cannot be decoded, where the webhook has no dead letters; [`Refusal::MemoryFull`].
pub(super) fn records(
    body: Unpacked,
    webhook: &Webhook,
    caller: &Caller,
    head: &Parts,
    slot: &mut Slot<'_>,
    log: &mut RequestLog<'_>,
) -> Result<Records, Rejection> {
    let RequestLog { state, span, dead_letters, received, .. } = log;
    let span = span.as_deref().map(|span| span.traceparent.as_str());
    let trace = span.or_else(|| trace_parent(&head.headers));
    let mut origin = Origin::new(webhook, caller, trace, *received);
    origin.is_named(webhook.auth_scheme.message_id(&head.headers));
    let Unpacked { bytes, flaw } = body;
    if flaw.is_some() {
        origin.is_encoded_as(content_encoding(&head.headers));
    }
    // What is text was never compressed, whatever the head says.
    let flaw = flaw.filter(|_| std::str::from_utf8(&bytes).is_err());
    let mut recorder = Recorder { webhook, origin, slot, dead_letters };
    if webhook.envelope == Envelope::One {
        return recorder.record(&bytes, flaw).map(Records::One);
    }
    if matches!(webhook.envelope, Envelope::Sns | Envelope::Form(_)) {
        // The events are in a text within the body, and are copied out of it.
        recorder.slot.reserve(bytes.len())?;
    }
    let events = webhook.envelope.split(&bytes, state.limits.max_events);
    match flaw.map_or(events, Err) {
        Ok(events) => events.iter().map(|event| recorder.record(event, None)).collect(),
        Err(why) => recorder.record(&bytes, Some(why)).map(|record| vec![record]),
    }
    .map(Records::Several)
}

impl Recorder<'_, '_> {
    /// The record of an event, or the dead letter of what is none: the flaw is what is already known to
    /// be wrong with it.
    fn record(&mut self, body: &Bytes, flaw: Option<Rejection>) -> Result<Record, Rejection> {
        let shape = &self.webhook.shape;
        match flaw.map_or_else(|| shape.decode(body), Err) {
            Ok(event) => match &self.webhook.pseudonyms {
                None => Ok(self.origin.record(event, body)),
                // Nothing of the original body is kept.
                Some(pseudonyms) => {
                    let body = pseudonyms.replace(body)?;
                    self.slot.reserve(body.len())?;
                    Ok(self.origin.record(shape.decode(&body)?, &body))
                }
            },
            Err(why) if self.webhook.rejects_invalid => Err(why),
            Err(why) => {
                let reason = match why.refusal {
                    Refusal::Malformed => DeadLetterReason::Malformed,
                    Refusal::UnknownEncoding => DeadLetterReason::UnknownEncoding,
                    _ => DeadLetterReason::Invalid,
                };
                self.dead_letters[reason as usize] += 1;
                Ok(self.origin.dead_letter(&why, body))
            }
        }
    }
}
