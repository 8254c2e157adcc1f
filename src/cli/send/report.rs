//! The result of a load: aligned text for people, JSON for machines.

use std::fmt::Display;
use std::time::Duration;

use anstream::println;
use anstyle::Style;
use serde_json::json;

use crate::cli::terminal::{BAD, FAINT, GOOD, NAME, WARN};
use crate::load::{Plan, Tally};

/// The quantiles that are reported, with their names.
const QUANTILES: [(&str, f64); 5] =
    [("p50", 0.5), ("p90", 0.9), ("p99", 0.99), ("p99.9", 0.999), ("max", 1.0)];

/// The length of the histogram's longest possible bar, in characters.
const BAR_MAX: f64 = 40.0;

/// Where the histogram's first line ends, in microseconds; each next one ends at twice as much.
const FIRST_LINE: u64 = 64;

pub struct LoadReport {
    pub url: String,
    /// The name of this run; it is in each made-up click.
    pub run: String,
    pub plan: Plan,
    pub elapsed: Duration,
    pub tally: Tally,
    /// Clicks that were due and not sent.
    pub unsent: u64,
    /// What went wrong first, and what to do about it.
    pub first_failure: Option<String>,
}

impl LoadReport {
    /// Whether every click was answered 200.
    pub fn is_clean(&self) -> bool {
        self.tally.failed() == 0 && self.unsent == 0 && self.tally.held() > 0
    }

    fn rate(&self) -> f64 {
        self.tally.held() as f64 / self.elapsed.as_secs_f64()
    }

    pub fn print(&self) {
        let LoadReport { tally, plan, run, .. } = self;
        let seconds = self.elapsed.as_secs_f64();
        println!(
            "{} clicks in {seconds:.2} s over {} connections to {}  {FAINT}run {run}{FAINT:#}",
            tally.sent(),
            plan.connections,
            self.url,
        );
        for (status, count) in &tally.statuses {
            if *status == 200 {
                row(GOOD, status, *count, &format!("  {:.1}/s", self.rate()));
            } else {
                row(BAD, status, *count, "");
            }
        }
        for (kind, count) in &tally.failures {
            row(BAD, kind, *count, "");
        }
        if self.unsent > 0 {
            row(WARN, "due, not sent", self.unsent, "  the rate was not reached");
        }
        if !tally.latency.is_empty() {
            self.print_latency();
        }
        if let Some(first_failure) = &self.first_failure {
            println!("\n{BAD}first failure{BAD:#}: {first_failure}");
        }
    }

    fn print_latency(&self) {
        let latency = &self.tally.latency;
        let from = match self.plan.rate {
            Some(_) => "from when each click was due",
            None => "from when each click was sent",
        };
        println!("\n{NAME}latency{NAME:#}, ms, {from}");
        for (name, quantile) in QUANTILES {
            println!("  {name:<6} {:>12}", millis(latency.value_at_quantile(quantile)));
        }
        println!();
        let all = latency.len() as f64;
        for line in latency.iter_log(FIRST_LINE, 2.0) {
            let count = line.count_since_last_iteration();
            if count == 0 {
                continue;
            }
            let share = count as f64 / all;
            let bar = "█".repeat((share * BAR_MAX).round() as usize);
            let up_to = millis(line.value_iterated_to() + 1);
            println!("  < {up_to:>10}  {count:>10}  {:>5.1} %  {NAME}{bar}{NAME:#}", share * 100.0);
        }
    }

    pub fn json(&self) -> serde_json::Value {
        let tally = &self.tally;
        let quantiles = QUANTILES.iter().map(|(name, quantile)| {
            ((*name).to_owned(), tally.latency.value_at_quantile(*quantile).into())
        });
        let mut latency: serde_json::Map<_, _> = quantiles.collect();
        latency.insert("mean".into(), tally.latency.mean().into());
        json!({
            "url": self.url,
            "run": self.run,
            "connections": self.plan.connections,
            "rate_asked": self.plan.rate,
            "seconds": self.elapsed.as_secs_f64(),
            "sent": tally.sent(),
            "held": tally.held(),
            "failed": tally.failed(),
            "unsent": self.unsent,
            "rate": self.rate(),
            "statuses": tally.statuses,
            "failures": tally.failures,
            "failed_clicks": tally.failed_clicks,
            "latency_from": if self.plan.rate.is_some() { "due" } else { "sent" },
            "latency_us": latency,
            "first_failure": self.first_failure,
        })
    }
}

fn row(style: Style, name: impl Display, count: u64, note: &str) {
    println!("  {style}{name:<18}{style:#} {count:>12}{note}");
}

/// Microseconds as milliseconds.
fn millis(micros: u64) -> String {
    format!("{:.3}", micros as f64 / 1e3)
}
