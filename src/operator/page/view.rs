//! The page as HTML, in parts that the script replaces one by one. maud escapes every value; text from
//! senders was redacted before (`observe/redact.rs`).

use std::time::Duration;

use maud::{DOCTYPE, Markup, PreEscaped, html};
use tokio::time::Instant;

use super::chart::{self, ALARM, FIRST, SECOND, Series};
use super::figures::{bytes, duration, rate, seconds, thousands};
use super::history::{History, STEP, Window, is_held};
use super::{Page, PageState, tables};
use crate::click::outcome::Outcome;
use crate::observe::health::Health;
use crate::observe::metrics::{Metrics, SpoolMetrics};

/// A chart shows the shortest of these spans that holds all points.
const SPANS_MINUTES: [usize; 3] = [5, 15, 60];

/// A part of the page, by the id of the element that it is in.
pub(super) type PagePart = (&'static str, Markup);

pub(super) fn parts(page: &Page, state: &PageState, now: Instant) -> Vec<PagePart> {
    let (history, metrics, health) = (&state.history, &*page.metrics, &*page.health);
    let window = history.now();
    let viewed = state.viewed_since.map(|since| now - since).unwrap_or_default();
    let tail = if page.tail_is_on {
        tables::tail(&state.tail, viewed)
    } else {
        html! { p.quiet {
            "Off. " code { "admin.tail = true" }
            " shows the last records here, e-mail addresses masked, to whoever can reach this port."
        } }
    };
    vec![
        ("state", readiness(health)),
        ("up", html! { "up " (duration(now - page.started)) }),
        ("clicks", clicks(history, &window)),
        ("lost", lost(&window)),
        ("kafka", kafka(metrics, health, &window)),
        ("waiting", waiting(&metrics.spool)),
        ("chart-clicks", chart_of_clicks(history)),
        ("chart-time", chart_of_time(history, &window)),
        ("chart-waiting", chart_of_waiting(history)),
        ("outcomes", tables::outcomes(&window)),
        ("letters", tables::letters(&window)),
        ("campaigns", tables::campaigns(&state.top_keys, viewed)),
        ("partitions", tables::partitions(metrics, &page.topics)),
        ("tail", tail),
    ]
}

fn readiness(health: &Health) -> Markup {
    match health.ready() {
        Ok(()) => html! { strong.good { "ready" } },
        Err(reason) => html! { strong.bad { "not ready: " (reason.text()) } },
    }
}

fn clicks(history: &History, window: &Window) -> Markup {
    let now = window.rate(is_held);
    let peak = history.points().iter().map(|point| point.held).fold(0.0, f32::max);
    let verdict = if now > 0.0 { ("good", "yes") } else { ("quiet", "none just now") };
    let note = format!(
        "{} held since the start, {} a second at most in the last hour",
        thousands(window.total(is_held)),
        rate(f64::from(peak).max(now)),
    );
    card(&rate(now), "a second", verdict, &note)
}

fn kafka(metrics: &Metrics, health: &Health, window: &Window) -> Markup {
    let is_open = metrics.breaker.is_open.get() != 0;
    let verdict = if is_open {
        ("bad", "no: breaker open")
    } else if health.brokers_respond() {
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

fn waiting(spool: &SpoolMetrics) -> Markup {
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

fn chart_of_clicks(history: &History) -> Markup {
    let held = history.values(|point| Some(point.held));
    let refused = history.values(|point| Some(point.refused));
    let text = format!(
        "Clicks a second: held {}; refused {}.",
        extent(&held, rate),
        extent(&refused, rate)
    );
    let series = [
        Series { colour: FIRST, is_filled: true, values: held },
        Series { colour: ALARM, is_filled: false, values: refused },
    ];
    chart(&text, &series, &[("first", "held"), ("alarm", "refused")])
}

fn chart_of_time(history: &History, window: &Window) -> Markup {
    let (p50, p99) = (history.values(|point| point.p50), history.values(|point| point.p99));
    let time = |milliseconds: f64| seconds(Some(milliseconds / 1e3));
    let text = format!(
        "Time to acknowledge: half within {}; 99 % within {}.",
        extent(&p50, time),
        extent(&p99, time)
    );
    let series = [
        Series { colour: SECOND, is_filled: false, values: p99 },
        Series { colour: FIRST, is_filled: false, values: p50 },
    ];
    let chart = chart(&text, &series, &[("first", "half of them"), ("second", "99 % of them")]);
    let [half, most] = [0.5, 0.99].map(|share| seconds(window.answered_within(share)));
    html! { (chart) p.keys { "Answers: half within " (half) ", 99 % within " (most) "." } }
}

fn chart_of_waiting(history: &History) -> Markup {
    let values = history.values(|point| Some(point.spooled));
    let text = format!("Events on disk: {}.", extent(&values, rate));
    let series = [Series { colour: SECOND, is_filled: true, values }];
    chart(&text, &series, &[("second", "events on disk")])
}

/// The last value and the largest, in words.
fn extent(values: &[Option<f32>], show: impl Fn(f64) -> String) -> String {
    let known = || values.iter().flatten().copied();
    let [last, most] = [known().last(), known().reduce(f32::max)]
        .map(|value| show(f64::from(value.unwrap_or_default())));
    format!("{last}, at most {most}")
}

/// A chart with its text alternative and its keys.
fn chart(text: &str, series: &[Series], keys: &[(&str, &str)]) -> Markup {
    let known = series[0].values.len() * STEP.as_secs() as usize;
    let minutes = SPANS_MINUTES.into_iter().find(|minutes| minutes * 60 >= known).unwrap_or(60);
    let svg = chart::draw(series, minutes);
    html! {
        div role="img" aria-label={ (text) " Over " (minutes) " minutes." } { (PreEscaped(svg)) }
        ul.keys aria-hidden="true" { @for (class, text) in keys { li class=(class) { (text) } } }
    }
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

/// The whole page, with the parts in their places.
pub(super) fn page(parts: Vec<PagePart>, settings: &str, tail_is_on: bool) -> Markup {
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
        // Without it the browser asks for /favicon.ico.
        link rel="icon" href="data:,";
        noscript { meta http-equiv="refresh" content="5"; }
    } }
}
