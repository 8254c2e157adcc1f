//! `[[webhook]]`: one webhook as it is set, and how that becomes what the pipeline uses.

use std::sync::Arc;

use bytes::Bytes;
use hyper::StatusCode;
use jiff::SignedDuration;
use serde::{Deserialize, Serialize};

use super::problem::Problems;
use super::section::{choices, sections};
use super::{AuthSchemeSettings, Secret, VerifySettings, auth_scheme};
use crate::click::event::{Envelope, Pointer, Shape, TimeFormat, WILDCARD, parse_offset};
use crate::click::pseudonym::Pseudonyms;
use crate::click::webhook::{Route, Webhook};

sections! {
    /// One webhook: data, not code. It needs a name, a path and a topic.
    pub struct WebhookSettings {
        /// The profile whose defaults this entry has taken; empty: none.
        pub profile: String,
        /// Letters, digits and hyphens; the metric label and part of the event id.
        pub name: String,
        pub path: String,
        /// How its senders prove who they are.
        #[serde(with = "auth_scheme")]
        pub auth: AuthSchemeSettings,
        /// Which questions are answered that its senders ask before they send.
        pub verify: VerifySettings,
        pub topic: String,
        /// The topic of bodies that are no events; empty: `topic` with `.dead-letter` behind it.
        pub dead_letter_topic: String,
        /// What becomes of such a body.
        pub invalid: InvalidBody,
        /// JSON pointers to what is replaced by a pseudonym.
        pub pseudonymise: Vec<String>,
        /// How many events a body carries.
        pub body: BodyFormat,
        /// JSON pointer to the array of events; empty: the body is the array. In a form the pointer begins
        /// with the field; empty: the fields are the event.
        pub events: String,
        /// JSON pointer to the record's key.
        pub key: String = "/campid".into(),
        /// JSON pointer to what the sender calls the event; empty: it gives no ids.
        pub id: String,
        /// JSON pointer to the event's time.
        pub timestamp: String = "/timestamp".into(),
        /// How it is written.
        pub timestamp_format: TimeFormat,
        /// What `type` must say, where present; empty: anything.
        pub r#type: String,
        /// What `event` must say, where present; empty: anything.
        pub event: String,
        /// The zone of a time that names none: Colombia's, all year.
        pub utc_offset: String = "-05:00".into(),
        /// An older event time gives way to the time of receipt.
        pub timestamp_max_age_s: u32 = 7 * 24 * 60 * 60,
        /// So does one further ahead.
        pub timestamp_max_ahead_s: u32 = 60 * 60,
        /// The text of the 200: the description of the one answer that Opptima documents.
        pub answer: String = "Webhook recibido correctamente".into(),
        /// The status for a click that cannot be held now: 503 or 429.
        pub unavailable: u16 = 503,
        /// The CloudEvents attribute `source`; empty: the path.
        pub ce_source: String,
        /// The CloudEvents attribute `type`; empty: the topic.
        pub ce_type: String,
    }
}

choices! {
    /// What becomes of a body that is no event of its webhook.
    pub enum InvalidBody: "must be dead-letter or reject" {
        /// It is kept as a dead letter and answered 200: no sender can mend it by trying again.
        #[default]
        DeadLetter = "dead-letter",
        /// It is answered 400 or 422, and not kept.
        Reject = "reject",
    }

    /// How many events a body carries.
    pub enum BodyFormat: "must be object, array, form, ndjson or sns" {
        /// One.
        #[default]
        Object = "object",
        /// Those of a JSON array.
        Array = "array",
        /// One, which is the fields of a form, or those of the JSON in one of its fields.
        Form = "form",
        /// One on each line.
        Ndjson = "ndjson",
        /// One, as text in a message of Amazon SNS.
        Sns = "sns",
    }
}

impl WebhookSettings {
    /// The topic of dead letters.
    pub fn dead_letters(&self) -> String {
        match self.dead_letter_topic.as_str() {
            "" => format!("{}.dead-letter", self.topic),
            topic => topic.to_owned(),
        }
    }

    /// The webhook as the pipeline uses it; none where there is a problem that prevents it.
    pub(super) fn read(
        &self,
        index: usize,
        pseudonym_key: Option<&Secret>,
        problems: &mut Problems,
    ) -> Option<Webhook> {
        let place = |setting: &str| format!("webhook[{index}].{setting}");
        let pointer = |text| Pointer::parse(text).ok_or("must be a JSON pointer such as /campid");
        let optional = |text: &str| match text {
            "" => Ok(None),
            _ => Pointer::parse(text)
                .map(Some)
                .ok_or("must be a JSON pointer such as /data, or empty"),
        };
        let unavailable = match self.unavailable {
            503 => Ok(StatusCode::SERVICE_UNAVAILABLE),
            429 => Ok(StatusCode::TOO_MANY_REQUESTS),
            _ => Err("must be 503 or 429"),
        };
        let offset = parse_offset(&self.utc_offset).ok_or("must be an offset such as -05:00");

        let auth_scheme = problems.value(&place("auth"), self.auth.read());
        let verification = problems.value(&place("verify"), self.verify.read());
        let key = problems.value(&place("key"), pointer(&self.key));
        let time = problems.value(&place("timestamp"), pointer(&self.timestamp));
        let pseudonyms = self.pseudonyms(pseudonym_key, &place("pseudonymise"), problems);
        let events = problems.value(&place("events"), optional(&self.events));
        let id = problems.value(&place("id"), optional(&self.id));
        let unavailable = problems.value(&place("unavailable"), unavailable);
        let offset = problems.value(&place("utc_offset"), offset);
        let or = |text: &str, default: &str| -> Box<str> {
            if text.is_empty() { default.into() } else { text.into() }
        };
        Some(Webhook {
            route: Arc::new(Route {
                webhook: self.name.as_str().into(),
                topic: self.topic.as_str().into(),
                dead_letter_topic: self.dead_letters().into(),
                ce_source: or(&self.ce_source, &self.path),
                ce_type: or(&self.ce_type, &self.topic),
            }),
            path: self.path.clone(),
            auth_scheme: auth_scheme?,
            verification: verification?,
            rejects_invalid: self.invalid == InvalidBody::Reject,
            pseudonyms: pseudonyms?,
            envelope: match self.body {
                BodyFormat::Object => Envelope::One,
                BodyFormat::Array => Envelope::Array(events?),
                BodyFormat::Form => Envelope::Form(events?),
                BodyFormat::Ndjson => Envelope::Lines,
                BodyFormat::Sns => Envelope::Sns,
            },
            shape: Shape {
                key: key?,
                id: id?,
                time: time?,
                time_format: self.timestamp_format,
                r#type: self.r#type.clone(),
                event: self.event.clone(),
                offset: offset?,
            },
            time_age_max: SignedDuration::from_secs(self.timestamp_max_age_s.into()),
            time_ahead_max: SignedDuration::from_secs(self.timestamp_max_ahead_s.into()),
            answer: Bytes::from(self.answer.clone()),
            unavailable: unavailable?,
            index,
        })
    }

    /// What replaces fields, if any are to be; the outer none where there is a problem.
    fn pseudonyms(
        &self,
        key: Option<&Secret>,
        place: &str,
        problems: &mut Problems,
    ) -> Option<Option<Pseudonyms>> {
        if self.pseudonymise.is_empty() {
            return Some(None);
        }
        problems.expect(
            key.is_some(),
            place,
            "needs a key to make pseudonyms with: set pseudonym.key_file, or \
             HOOKBRIDGE__PSEUDONYM__KEY, to one that `hookbridge key` makes",
        );
        problems.expect(
            self.invalid == InvalidBody::Reject,
            place,
            "needs invalid = \"reject\": in a body that cannot be understood no field can be found, \
             and the dead letters would get it as it came",
        );
        let constant =
            |text: &str, pointer: &'static str| if text.is_empty() { "" } else { pointer };
        let others = [
            ("key", self.key.as_str()),
            ("timestamp", self.timestamp.as_str()),
            ("type", constant(&self.r#type, "/type")),
            ("event", constant(&self.event, "/event")),
        ];
        let mut fields: Vec<Pointer> = Vec::new();
        for text in &self.pseudonymise {
            let Some(field) = Pointer::parse(text) else {
                problems.note(place, format!("{text:?} is no JSON pointer such as /email"));
                continue;
            };
            let has_wildcard = field.tokens().iter().any(|token| token == WILDCARD);
            let message = format!("{text:?}: here a pointer has no wildcard, so name the field");
            problems.expect(!has_wildcard, place, message);
            for (name, other) in others {
                let is_apart = Pointer::parse(other).is_none_or(|other| !field.meets(&other));
                let message =
                    format!("{text:?} is, holds or is in this webhook's `{name}`, which must stay");
                problems.expect(is_apart, place, message);
            }
            let is_apart = !fields.iter().any(|other| field.meets(other));
            let message = format!("{text:?} is, holds or is in another of these fields");
            problems.expect(is_apart, place, message);
            fields.push(field);
        }
        Some(Some(Pseudonyms::new(fields, key?.reveal().trim().as_bytes())))
    }
}
