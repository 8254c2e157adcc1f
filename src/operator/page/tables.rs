//! The tables of the page: outcomes, dead letters, top keys, partitions, last records.

use std::cmp::Reverse;
use std::time::Duration;

use maud::{Markup, html};

use super::figures::{duration, percent, rate, thousands};
use super::history::{Window, is_held};
use super::tail::{self, RecentRecords};
use super::top_keys::{MINUTES, TopKeys};
use crate::click::outcome::{Held, Outcome};
use crate::observe::metrics::{DeadLetterReason, Metrics};
use crate::observe::sampler::{Partition, SAMPLES_MAX};

/// How many keys and partitions are shown.
const ROWS: usize = 12;

pub(super) fn outcomes(window: &Window) -> Markup {
    let counts = &window.counts().outcomes;
    let shown = Outcome::all().filter(|o| is_held(*o) || counts[o.index()] > 0);
    html! { table {
        thead { tr { th scope="col" { "Outcome" } th.number scope="col" { "Status" }
            th.number scope="col" { "A second" } th.number scope="col" { "In all" } } }
        tbody { @for outcome in shown {
            @let facts = outcome.facts();
            tr {
                th scope="row" title=(facts.text) { (tag(facts.tag)) }
                td.number { (facts.status.as_u16()) }
                td.number { (rate(window.rate(|other| other == outcome))) }
                td.number { (thousands(counts[outcome.index()])) }
            }
        } }
    } }
}

pub(super) fn letters(window: &Window) -> Markup {
    html! { table {
        thead { tr { th scope="col" { "Reason" } th scope="col" { "Meaning" }
            th.number scope="col" { "In all" } } }
        tbody { @for reason in DeadLetterReason::ALL {
            tr {
                th scope="row" { (tag(reason.tag())) }
                td.quiet { (meaning(reason)) }
                td.number { (thousands(window.counts().dead_letters[reason as usize])) }
            }
        } }
    } }
}

fn meaning(reason: DeadLetterReason) -> &'static str {
    match reason {
        DeadLetterReason::Malformed => "not JSON",
        DeadLetterReason::Invalid => "not an event of its webhook",
        DeadLetterReason::UnknownEncoding => "compressed in a way that is not supported",
        DeadLetterReason::TooLarge => "larger than its topic takes",
        DeadLetterReason::Corrupt => "not taken by Kafka",
    }
}

pub(super) fn campaigns(keys: &TopKeys, viewed: Duration) -> Markup {
    let (top, total) = (keys.top(ROWS), keys.total());
    if top.is_empty() {
        return html! { p.quiet { "None yet, since somebody began to look." } };
    }
    let rows = top.iter().map(|(key, count)| {
        let key = html! { span.value { (tail::key(key)) } };
        (key, count.count, count.error)
    });
    html! {
        (shares(["Key", "Clicks"], rows.collect(), total))
        p.quiet {
            "Of " (thousands(total)) " clicks that were looked at in the last "
            (duration(viewed.min(Duration::from_secs(60 * MINUTES as u64))))
            ", at most " (thousands(u64::from(SAMPLES_MAX) * 4)) " a second."
        }
    }
}

pub(super) fn partitions(metrics: &Metrics, topics: &[String]) -> Markup {
    let all = metrics.sampler.partitions();
    if !all.iter().any(|partition| topics.contains(&partition.topic) && partition.records > 0) {
        return html! { p.quiet { "No record has been sent yet, or the Kafka client has not said." } };
    }
    html! { @for topic in topics {
        (partitions_of(topic, all.iter().filter(|partition| partition.topic == *topic).collect()))
    } }
}

/// The partitions of a topic with the most records.
fn partitions_of(topic: &str, mut partitions: Vec<&Partition>) -> Markup {
    partitions.sort_unstable_by_key(|partition| (Reverse(partition.records), partition.number));
    let Some(fullest) = partitions.first() else { return html! {} };
    let total: u64 = partitions.iter().map(|partition| partition.records).sum();
    let skew = fullest.records as f64 * partitions.len() as f64 / total.max(1) as f64;
    let rows = partitions.iter().map(|p| (html! { (p.number) }, p.records, 0));
    html! {
        (shares(["Partition", "Records"], rows.take(ROWS).collect(), total))
        p.quiet {
            span.value { (topic) } ": " (partitions.len()) " partitions; the fullest has "
            (format!("{skew:.1}")) " times the mean. Since the Kafka client was started."
        }
    }
}

/// The largest parts of a whole, the largest first: the name of each, its size, and by how much that may be
/// too large. A bar stands beside the number.
fn shares(headings: [&str; 2], parts: Vec<(Markup, u64, u64)>, whole: u64) -> Markup {
    let largest = parts.first().map_or(1, |(_, size, _)| *size).max(1);
    let width = |size: u64| format!("{:.1}", size as f64 * 100.0 / largest as f64);
    html! { table {
        thead { tr { th scope="col" { (headings[0]) } th.number scope="col" { (headings[1]) }
            th.number scope="col" { "Share" } th.bar { } } }
        tbody { @for (name, size, error) in parts {
            tr {
                th scope="row" { (name) }
                td.number { (thousands(size))
                    @if error > 0 { span.quiet { " ±" (thousands(error)) } } }
                td.number { (percent(size, whole)) }
                td.bar {
                    svg.meter viewBox="0 0 100 8" preserveAspectRatio="none" aria-hidden="true" {
                        rect width=(width(size)) height="8" {}
                    }
                }
            }
        } }
    } }
}

pub(super) fn tail(records: &RecentRecords, viewed: Duration) -> Markup {
    html! {
        p.quiet { "E-mail addresses are masked. Kept only while somebody looks, for "
            (duration(viewed)) " now; when there are many, some of each second." }
        table {
            thead { tr { th scope="col" { "Received, UTC" } th scope="col" { "Key" }
                th scope="col" { "Held" } th.number scope="col" { "Bytes" }
                th scope="col" { "Value" } } }
            tbody {
                @for row in records.iter() { tr {
                    td.number { (row.received.strftime("%H:%M:%S%.3f")) }
                    td { span.value { (row.key.as_deref().unwrap_or("none")) } }
                    td { (row.held.map_or("", place)) }
                    td.number.bytes { (thousands(row.length as u64)) }
                    td.code { span.text { (row.text) } }
                } }
            }
        }
    }
}

fn place(held: Held) -> &'static str {
    match held {
        Held::InKafka => "Kafka",
        Held::OnDisk => "disk",
        Held::AsDeadLetter => "dead letter",
    }
}

/// A tag that may wrap between its words.
fn tag(tag: &str) -> Markup {
    html! { @for word in tag.split_inclusive('_') { (word) wbr; } }
}
