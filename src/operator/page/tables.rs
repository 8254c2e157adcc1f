//! The tables of the page: outcomes, dead letters, top keys, partitions, last records.

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
        DeadLetterReason::TooLarge => "larger than its topic takes",
        DeadLetterReason::Corrupt => "not taken by Kafka",
    }
}

pub(super) fn campaigns(keys: &TopKeys, viewed: Duration) -> Markup {
    let (top, total) = (keys.top(ROWS), keys.total());
    if top.is_empty() {
        return html! { p.quiet { "None yet, since somebody began to look." } };
    }
    let most = top[0].count;
    html! {
        table {
            thead { tr { th scope="col" { "Key" } th.number scope="col" { "Clicks" }
                th.number scope="col" { "Share" } th.bar { } } }
            tbody { @for frequent in &top {
                tr {
                    th scope="row" { span.value { (tail::key(&frequent.key)) } }
                    td.number { (thousands(frequent.count))
                        @if frequent.error > 0 { span.quiet { " ±" (thousands(frequent.error)) } } }
                    td.number { (percent(frequent.count, total)) }
                    td.bar { (bar(frequent.count, most)) }
                }
            } }
        }
        p.quiet {
            "Of " (thousands(total)) " clicks that were looked at in the last "
            (duration(viewed.min(Duration::from_secs(60 * MINUTES as u64))))
            ", at most " (thousands(u64::from(SAMPLES_MAX) * 4)) " a second."
        }
    }
}

pub(super) fn partitions(metrics: &Metrics, topics: &[String]) -> Markup {
    let all = metrics.sampler.partitions();
    let all: Vec<_> = all.into_iter().filter(|p| topics.contains(&p.topic)).collect();
    let total: u64 = all.iter().map(|partition| partition.records).sum();
    if total == 0 {
        return html! { p.quiet { "No record has been sent yet, or the Kafka client has not said." } };
    }
    html! { @for topic in topics {
        @let mine: Vec<_> = all.iter().filter(|p| p.topic == *topic).collect();
        @if !mine.is_empty() { (partitions_of(topic, &mine)) }
    } }
}

/// The partitions of a topic with the most records.
fn partitions_of(topic: &str, partitions: &[&Partition]) -> Markup {
    let mut fullest = partitions.to_vec();
    fullest
        .sort_unstable_by_key(|partition| (std::cmp::Reverse(partition.records), partition.number));
    let most = fullest[0].records;
    let total: u64 = partitions.iter().map(|partition| partition.records).sum();
    let skew = most as f64 * partitions.len() as f64 / total.max(1) as f64;
    html! {
        table {
            thead { tr { th scope="col" { "Partition" } th.number scope="col" { "Records" }
                th.number scope="col" { "Share" } th.bar { } } }
            tbody { @for partition in fullest.iter().take(ROWS) {
                tr {
                    th scope="row" { (partition.number) }
                    td.number { (thousands(partition.records)) }
                    td.number { (percent(partition.records, total)) }
                    td.bar { (bar(partition.records, most)) }
                }
            } }
        }
        p.quiet {
            span.value { (topic) } ": " (partitions.len()) " partitions; the fullest has "
            (format!("{skew:.1}")) " times the mean. Since the Kafka client was started."
        }
    }
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

/// A bar for a value whose number stands beside it.
fn bar(value: u64, most: u64) -> Markup {
    let width = value as f64 * 100.0 / most.max(1) as f64;
    html! {
        svg.meter viewBox="0 0 100 8" preserveAspectRatio="none" aria-hidden="true" {
            rect width=(format!("{width:.1}")) height="8" {}
        }
    }
}
