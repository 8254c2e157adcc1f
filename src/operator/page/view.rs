//! The page as HTML, in parts that the script replaces one by one. maud escapes every value; text from
//! senders was redacted before (`observe/redact.rs`).

use std::collections::BTreeMap;
use std::time::Duration;

use maud::{Markup, PreEscaped, html};
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

/// The HTML of each part of the page, by the id of the element that it is in.
pub(super) type PageParts = BTreeMap<&'static str, String>;

pub(super) fn parts(page: &Page, state: &PageState, now: Instant) -> PageParts {
    let (history, metrics, health) = (&state.history, &*page.metrics, &*page.health);
    let window = history.now();
    let viewing = &state.viewing;
    let viewed = viewing.since.map(|since| now - since).unwrap_or_default();
    let tail = if page.tail_is_on {
        tables::tail(&viewing.tail, viewed)
    } else {
        html! { p.quiet {
            "Off. " code { "admin.tail = true" }
            " shows the last records here, e-mail addresses masked, to whoever can reach this port."
        } }
    };
    let parts = [
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
        ("campaigns", tables::campaigns(&viewing.top_keys, viewed)),
        ("partitions", tables::partitions(metrics, &page.topics)),
        ("tail", tail),
    ];
    parts.map(|(id, markup)| (id, markup.into_string())).into()
}

fn readiness(health: &Health) -> Markup {
    match health.ready() {
        Ok(()) => html! { strong.good { "ready" } },
        Err(reason) => html! { strong.bad { "not ready: " (reason) } },
    }
}

fn clicks(history: &History, window: &Window) -> Markup {
    let now = window.rate(is_held);
    let peak = history.points.iter().map(|point| point.held).fold(0.0, f32::max);
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
    let oldest = duration(Duration::from_secs(spool.oldest_age_seconds.get().unsigned_abs()));
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

/// The whole page: `page.html` without line breaks and indentation, with the parts in their places. Its
/// empty icon keeps browsers from asking for /favicon.ico.
pub(super) fn page(mut parts: PageParts, settings: &str, tail_is_on: bool) -> String {
    let tail_attributes = match tail_is_on {
        true => r#"class="tail" id="tail" tabindex="0" role="region" aria-labelledby="last""#,
        false => r#"id="tail""#,
    };
    parts.insert("tail-attributes", tail_attributes.into());
    parts.insert("settings", html! { (settings) }.into_string());
    parts.insert("version", env!("CARGO_PKG_VERSION").into());
    let template: String = include_str!("page.html").lines().map(str::trim_start).collect();
    let mut page = String::new();
    for piece in template.split('{') {
        let (name, text) = piece.split_once('}').unwrap_or(("", piece));
        page.push_str(parts.get(name).map_or("", String::as_str));
        page.push_str(text);
    }
    page
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::config::Config;
    use crate::observe::lock;

    #[test]
    fn every_part_has_its_place_and_no_value_is_one() {
        let metrics = Metrics::new(&["webhook"], &["topic"]).expect("metrics");
        let live = Page::new(&Config::default(), Arc::new(metrics), Arc::default());
        let parts = parts(&live, &lock(&live.state), Instant::now());
        for tail_is_on in [true, false] {
            let html = page(parts.clone(), "<{tail}>", tail_is_on);
            for (id, part) in &parts {
                let (_, place) = html.split_once(&format!(" id=\"{id}\"")).expect(id);
                let (_, place) = place.split_once('>').expect(id);
                assert!(place.starts_with(part), "{id}");
            }
            assert_eq!(html.matches('{').count(), 1, "{html}");
            assert!(html.contains("Settings\">&lt;{tail}&gt;</pre>"), "{html}");
        }
    }
}
