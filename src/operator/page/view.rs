//! The page as HTML, in parts that are replaced by themselves. Every value goes through maud, which
//! escapes it; what comes from senders has been through `observe/redact.rs` before.

use std::time::Duration;

use maud::{DOCTYPE, Markup, PreEscaped, html};

use super::chart::{self, ALARM, FIRST, Line, SECOND, compact};
use super::history::{History, Point, STEP, Window, is_held};
use super::tail::{self, Tail};
use super::top_keys::{MINUTES, Minutes};
use crate::click::outcome::{Held, Outcome};
use crate::observe::health::Health;
use crate::observe::metrics::{DeadLetterReason, Metrics};
use crate::observe::sampler::{Partition, SAMPLES_MAX};

/// How many campaigns and partitions are shown.
const ROWS: usize = 12;

/// The spans of the charts: the smallest that holds what is known.
const SPANS_MINUTES: [usize; 3] = [5, 15, 60];

/// A part of the page, by the id of the element that it is in.
pub type Part = (&'static str, Markup);

/// All that the page shows.
pub struct View<'v> {
    pub metrics: &'v Metrics,
    pub health: &'v Health,
    pub history: &'v History,
    pub minutes: &'v Minutes,
    /// None where it is off.
    pub tail: Option<&'v Tail>,
    /// The topics of events.
    pub topics: &'v [String],
    pub up: Duration,
    /// How long somebody has been looking.
    pub looked: Duration,
}

impl View<'_> {
    pub fn parts(&self) -> Vec<Part> {
        let window = self.history.now();
        vec![
            ("state", self.state()),
            ("up", html! { "up " (duration(self.up)) }),
            ("clicks", self.clicks(&window)),
            ("lost", lost(&window)),
            ("kafka", self.kafka(&window)),
            ("waiting", self.waiting()),
            ("chart-clicks", self.chart_of_clicks()),
            ("chart-time", self.chart_of_time(&window)),
            ("chart-waiting", self.chart_of_waiting()),
            ("outcomes", outcomes(&window)),
            ("letters", letters(&window)),
            ("campaigns", self.campaigns()),
            ("partitions", self.partitions()),
            ("tail", self.tail()),
        ]
    }

    fn state(&self) -> Markup {
        match self.health.ready() {
            Ok(()) => html! { strong.good { "ready" } },
            Err(reason) => html! { strong.bad { "not ready: " (reason.text()) } },
        }
    }

    fn clicks(&self, window: &Window) -> Markup {
        let now = window.rate(is_held);
        let peak = self.history.points().iter().map(|point| point.held).fold(0.0, f32::max);
        let verdict = if now > 0.0 { ("good", "yes") } else { ("quiet", "none just now") };
        let note = format!(
            "{} held since the start, {} a second at most in the last hour",
            thousands(window.total(is_held)),
            rate(f64::from(peak).max(now)),
        );
        card(&rate(now), "a second", verdict, &note)
    }

    fn kafka(&self, window: &Window) -> Markup {
        let (metrics, is_open) = (self.metrics, self.metrics.breaker.is_open.get() != 0);
        let verdict = if is_open {
            ("bad", "no: breaker open")
        } else if self.health.brokers_respond() {
            ("good", "yes")
        } else {
            ("bad", "no: not heard")
        };
        let note = format!(
            "half within {}; brokers up: {}; records in the client: {}, not acknowledged: {}; breaker {}",
            seconds(window.acknowledged_within(0.5)),
            metrics.kafka.brokers_up.get(),
            metrics.kafka.queue.get(),
            thousands(window.counts().not_acknowledged),
            if is_open { "open" } else { "closed" },
        );
        card(&seconds(window.acknowledged_within(0.99)), "for 99 %", verdict, &note)
    }

    fn waiting(&self) -> Markup {
        let spool = &self.metrics.spool;
        let (events, most) = (spool.events.get(), spool.max_bytes.get());
        let verdict = match (events, most, spool.working.get()) {
            (_, 0, _) => ("quiet", "no spool"),
            (_, _, 0) => ("bad", "full or broken"),
            (0, ..) => ("good", "no"),
            _ => ("look", "yes"),
        };
        let aside = match spool.set_aside.get() {
            0 => String::new(),
            events => format!(", {events} set aside"),
        };
        let oldest = duration(Duration::from_secs(
            u64::try_from(spool.oldest_age_seconds.get()).unwrap_or_default(),
        ));
        let (held, most) = (bytes(spool.bytes.get()), bytes(most));
        let note = format!("the oldest for {oldest}; {held} of {most}{aside}");
        card(&thousands(events.unsigned_abs()), "events", verdict, &note)
    }

    fn chart_of_clicks(&self) -> Markup {
        let values = |value: fn(&Point) -> f32| self.values(|point| Some(value(point)));
        let lines = [
            Line { colour: FIRST, is_filled: true, values: values(|point| point.held) },
            Line { colour: ALARM, is_filled: false, values: values(|point| point.refused) },
        ];
        let keys = [("first", "held"), ("alarm", "refused")];
        self.chart(&lines, &keys, |most, last| {
            format!(
                "Clicks a second: held {}, at most {}; refused {}, at most {}.",
                rate(last[0]),
                rate(most[0]),
                rate(last[1]),
                rate(most[1])
            )
        })
    }

    fn chart_of_time(&self, window: &Window) -> Markup {
        let lines = [
            Line { colour: SECOND, is_filled: false, values: self.values(|point| point.p99) },
            Line { colour: FIRST, is_filled: false, values: self.values(|point| point.p50) },
        ];
        let keys = [("first", "half of them"), ("second", "99 % of them")];
        let chart = self.chart(&lines, &keys, |most, last| {
            let time = |milliseconds: f64| seconds(Some(milliseconds / 1e3));
            format!(
                "Time to acknowledge: half within {}, at most {}; 99 % within {}, at most {}.",
                time(last[1]),
                time(most[1]),
                time(last[0]),
                time(most[0])
            )
        });
        let [half, most] = [0.5, 0.99].map(|share| seconds(window.answered_within(share)));
        html! { (chart) p.keys { "Answers: half within " (half) ", 99 % within " (most) "." } }
    }

    fn chart_of_waiting(&self) -> Markup {
        let values = self.values(|point| Some(point.spooled));
        let lines = [Line { colour: SECOND, is_filled: true, values }];
        self.chart(&lines, &[("second", "events on disk")], |most, last| {
            format!("Events on disk: {}, at most {}.", rate(last[0]), rate(most[0]))
        })
    }

    fn values(&self, value: impl Fn(&Point) -> Option<f32>) -> Vec<Option<f32>> {
        self.history.points().iter().map(value).collect()
    }

    /// A chart, its text alternative made of the most and the last of each line, and its keys.
    fn chart(
        &self,
        lines: &[Line],
        keys: &[(&str, &str)],
        tell: impl Fn(Vec<f64>, Vec<f64>) -> String,
    ) -> Markup {
        let per_minute = 60 / STEP.as_secs() as usize;
        let known = self.history.points().len();
        let minutes = SPANS_MINUTES.into_iter().find(|minutes| minutes * per_minute >= known);
        let minutes = minutes.unwrap_or(60);
        let svg = chart::draw(lines, minutes * per_minute, STEP.as_secs_f64() / 60.0);
        let each = |pick: fn(&[Option<f32>]) -> Option<f32>| {
            let picked = lines.iter().map(|line| f64::from(pick(&line.values).unwrap_or_default()));
            picked.collect::<Vec<_>>()
        };
        let most = each(|values| values.iter().flatten().copied().reduce(f32::max));
        let last = each(|values| values.iter().flatten().last().copied());
        html! {
            div role="img" aria-label={ (tell(most, last)) " Over " (minutes) " minutes." } {
                (PreEscaped(svg))
            }
            ul.keys aria-hidden="true" { @for (class, text) in keys { li class=(class) { (text) } } }
        }
    }

    fn campaigns(&self) -> Markup {
        let (top, total) = (self.minutes.top(ROWS), self.minutes.total());
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
                (duration(self.looked.min(Duration::from_secs(60 * MINUTES as u64))))
                ", at most " (thousands(u64::from(SAMPLES_MAX) * 4)) " a second."
            }
        }
    }

    fn partitions(&self) -> Markup {
        let all = self.metrics.sampler.partitions();
        let all: Vec<_> = all.into_iter().filter(|p| self.topics.contains(&p.topic)).collect();
        let total: u64 = all.iter().map(|partition| partition.records).sum();
        if total == 0 {
            return html! { p.quiet { "No record has been sent yet, or the Kafka client has not said." } };
        }
        html! { @for topic in self.topics {
            @let mine: Vec<_> = all.iter().filter(|p| p.topic == *topic).collect();
            @if !mine.is_empty() { (partitions_of(topic, &mine)) }
        } }
    }

    fn tail(&self) -> Markup {
        let Some(tail) = self.tail else {
            return html! { p.quiet {
                "Off. " code { "admin.tail = true" }
                " shows the last records here, e-mail addresses masked, to whoever can reach this port."
            } };
        };
        html! {
            p.quiet { "E-mail addresses are masked. Kept only while somebody looks, for "
                (duration(self.looked)) " now; when there are many, some of each second." }
            table {
                thead { tr { th scope="col" { "Received, UTC" } th scope="col" { "Key" }
                    th scope="col" { "Held" } th.number scope="col" { "Bytes" }
                    th scope="col" { "Value" } } }
                tbody {
                    @for row in tail.rows() { tr {
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
}

/// The whole page, with the parts in their places.
pub fn page(parts: Vec<Part>, settings: &str, tail_is_on: bool) -> Markup {
    let part = |wanted: &str| {
        let found = parts.iter().find(|(id, _)| *id == wanted);
        found.map_or_else(|| html! {}, |(_, markup)| markup.clone())
    };
    let card = |id: &str, question: &str| {
        html! { section.card { h2 { (question) } div id=(id) { (part(id)) } } }
    };
    let third = |id: &str, title: &str| {
        html! { section.third { h2 { (title) } div id=(id) { (part(id)) } } }
    };
    html! {
        (DOCTYPE)
        html lang="en" {
            (head())
            body {
                a.skip href="#main" { "To the figures" }
                header {
                    h1 { "hookbridge" }
                    p { span role="status" { span id="state" { (part("state")) } } }
                    p.quiet { span id="up" { (part("up")) } " · " (env!("CARGO_PKG_VERSION")) }
                    div.end {
                        span.quiet role="status" id="link" { noscript { "updated every 5 seconds" } }
                        button type="button" id="pause" aria-pressed="false" hidden { "Pause" }
                        a href="metrics" { "Metrics" }
                    }
                }
                main id="main" tabindex="-1" {
                    (card("clicks", "Are clicks coming in?"))
                    (card("lost", "Are any lost or refused?"))
                    (card("kafka", "Is Kafka keeping up?"))
                    (card("waiting", "Is something waiting on disk?"))
                    (third("chart-clicks", "Clicks a second"))
                    (third("chart-time", "Milliseconds to Kafka's acknowledgement"))
                    (third("chart-waiting", "Events waiting on disk"))
                    section.third {
                        h2 { "Answers" }
                        div id="outcomes" { (part("outcomes")) }
                        h2.next { "Dead letters" }
                        div id="letters" { (part("letters")) }
                    }
                    (third("campaigns", "Most frequent keys"))
                    (third("partitions", "Partitions"))
                    section {
                        h2 id="last" { "Last records" }
                        @if tail_is_on {
                            div.tail id="tail" tabindex="0" role="region" aria-labelledby="last" {
                                (part("tail"))
                            }
                        } @else { div id="tail" { (part("tail")) } }
                    }
                    details {
                        summary { "Settings of this replica" }
                        p.quiet { "As it was started, secrets hidden." }
                        pre tabindex="0" aria-label="Settings" { (settings) }
                    }
                }
                script type="module" src="page/script.js" {}
            }
        }
    }
}

fn head() -> Markup {
    html! { head {
        meta charset="utf-8";
        title { "hookbridge" }
        meta name="viewport" content="width=device-width, initial-scale=1";
        meta name="color-scheme" content="light dark";
        link rel="stylesheet" href="page/style.css";
        // Or the browser asks for one that there is not.
        link rel="icon" href="data:,";
        noscript { meta http-equiv="refresh" content="5"; }
    } }
}

/// An answer to one of the four questions.
fn card(figure: &str, unit: &str, verdict: (&str, &str), note: &str) -> Markup {
    let (class, word) = verdict;
    html! {
        span.figure { (figure) " " small { (unit) } }
        span class={ "verdict " (class) } { (word) }
        p.note { (note) }
    }
}

fn lost(window: &Window) -> Markup {
    let is_ours = |outcome: Outcome| outcome.facts().status.is_server_error();
    let is_theirs = |outcome: Outcome| outcome.facts().status.is_client_error();
    let now = window.rate(|outcome| !is_held(outcome));
    let (ours, theirs) = (window.total(is_ours), window.total(is_theirs));
    let verdict = if window.rate(is_ours) > 0.0 {
        ("bad", "yes")
    } else if window.rate(is_theirs) > 0.0 {
        ("look", "some refused")
    } else if ours > 0 {
        ("look", "not now")
    } else {
        ("good", "no")
    };
    let note = format!(
        "since the start {} that could not be held (5xx), {} by the sender's doing (4xx)",
        thousands(ours),
        thousands(theirs),
    );
    card(&rate(now), "a second", verdict, &note)
}

fn outcomes(window: &Window) -> Markup {
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

fn letters(window: &Window) -> Markup {
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

/// The fullest partitions of a topic.
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

fn place(held: Held) -> &'static str {
    match held {
        Held::InKafka => "Kafka",
        Held::OnDisk => "disk",
        Held::AsDeadLetter => "dead letter",
    }
}

/// A tag that may be broken between its words, where there is little room.
fn tag(tag: &str) -> Markup {
    html! { @for word in tag.split_inclusive('_') { (word) wbr; } }
}

/// A bar beside its number, which says the same.
fn bar(value: u64, most: u64) -> Markup {
    let width = value as f64 * 100.0 / most.max(1) as f64;
    html! {
        svg.meter viewBox="0 0 100 8" preserveAspectRatio="none" aria-hidden="true" {
            rect width=(format!("{width:.1}")) height="8" {}
        }
    }
}

fn percent(part: u64, whole: u64) -> String {
    format!("{:.1} %", part as f64 * 100.0 / whole.max(1) as f64)
}

fn rate(value: f64) -> String {
    if value >= 1e4 {
        compact(value)
    } else if value >= 10.0 {
        thousands(value.round() as u64)
    } else {
        compact((value * 10.0).round() / 10.0)
    }
}

fn seconds(seconds: Option<f64>) -> String {
    match seconds {
        None => "–".into(),
        Some(seconds) if seconds < 0.01 => format!("{:.1} ms", seconds * 1e3),
        Some(seconds) if seconds < 1.0 => format!("{:.0} ms", seconds * 1e3),
        Some(seconds) => format!("{seconds:.1} s"),
    }
}

fn duration(duration: Duration) -> String {
    let seconds = duration.as_secs();
    match (seconds / 86_400, seconds / 3_600 % 24, seconds / 60 % 60, seconds % 60) {
        (0, 0, 0, seconds) => format!("{seconds} s"),
        (0, 0, minutes, _) => format!("{minutes} min"),
        (0, hours, minutes, _) => format!("{hours} h {minutes} min"),
        (days, hours, ..) => format!("{days} d {hours} h"),
    }
}

fn bytes(bytes: i64) -> String {
    let bytes = bytes as f64;
    let (value, unit) = match bytes {
        b if b >= 1_073_741_824.0 => (b / 1_073_741_824.0, "GiB"),
        b if b >= 1_048_576.0 => (b / 1_048_576.0, "MiB"),
        b if b >= 1_024.0 => (b / 1_024.0, "KiB"),
        b => (b, "bytes"),
    };
    format!("{} {unit}", compact(value))
}

fn thousands(number: u64) -> String {
    let digits = number.to_string();
    let groups: Vec<_> = digits.as_bytes().rchunks(3).rev().map(String::from_utf8_lossy).collect();
    groups.join(",")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_read_well() {
        assert_eq!([0, 999, 1_000, 12_345_678].map(thousands), ["0", "999", "1,000", "12,345,678"]);
        assert_eq!(
            [0.0, 0.2, 9.96, 1_234.5, 50_000.0].map(rate),
            ["0", "0.2", "10", "1,235", "50 k"]
        );
        assert_eq!(
            [None, Some(0.0012), Some(0.0123), Some(1.5)].map(seconds),
            ["–", "1.2 ms", "12 ms", "1.5 s"]
        );
        assert_eq!(
            [0, 800, 3 << 20, 4 << 30].map(bytes),
            ["0 bytes", "800 bytes", "3 MiB", "4 GiB"]
        );
        let spans = [5, 90, 3_700, 90_000].map(|seconds| duration(Duration::from_secs(seconds)));
        assert_eq!(spans, ["5 s", "1 min", "1 h 1 min", "1 d 1 h"]);
    }
}
