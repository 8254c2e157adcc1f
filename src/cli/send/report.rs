//! What came of a load: aligned text for people, JSON for machines.

use std::time::Duration;

use anstream::println;
use serde_json::json;

use crate::cli::paint::{BAD, FAINT, GOOD, NAME, WARN};
use crate::load::{Plan, Tally};

/// The quantiles that are told, with their names.
const QUANTILES: [(&str, f64); 4] = [("p50", 0.5), ("p90", 0.9), ("p99", 0.99), ("p99.9", 0.999)];

/// The longest bar of the histogram.
const BAR_MAX: f64 = 40.0;

/// The first line of the histogram ends here, in microseconds; each next one at twice as much.
const FIRST_LINE: u64 = 64;

/// What came of a load.
pub struct Report {
    pub url: String,
    /// The name of this run, which stands in each made-up click.
    pub run: String,
    pub plan: Plan,
    pub elapsed: Duration,
    pub tally: Tally,
    /// Clicks that were due and not sent.
    pub unsent: u64,
    /// What went wrong first, and what to do about it.
    pub advice: Option<String>,
}

impl Report {
    /// Whether every click was answered 200.
    pub fn is_clean(&self) -> bool {
        self.tally.failed() == 0 && self.unsent == 0 && self.tally.held() > 0
    }

    fn rate(&self) -> f64 {
        self.tally.held() as f64 / self.elapsed.as_secs_f64()
    }

    pub fn print(&self) {
        let Report { tally, plan, run, .. } = self;
        let seconds = self.elapsed.as_secs_f64();
        println!(
            "{} clicks in {seconds:.2} s over {} connections to {}  {FAINT}run {run}{FAINT:#}",
            tally.sent(),
            plan.connections,
            self.url,
        );
        for (status, count) in &tally.statuses {
            let paint = if *status == 200 { GOOD } else { BAD };
            let rate =
                if *status == 200 { format!("  {:.1}/s", self.rate()) } else { String::new() };
            println!("  {paint}{status:<18}{paint:#} {count:>12}{rate}");
        }
        for (kind, count) in &tally.failures {
            println!("  {BAD}{kind:<18}{BAD:#} {count:>12}");
        }
        if self.unsent > 0 {
            let unsent = self.unsent;
            println!(
                "  {WARN}{:<18}{WARN:#} {unsent:>12}  the rate was not reached",
                "due, not sent"
            );
        }
        if !tally.latency.is_empty() {
            self.print_latency();
        }
        if let Some(advice) = &self.advice {
            println!("\n{BAD}first failure{BAD:#}: {advice}");
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
        println!("  {:<6} {:>12}\n", "max", millis(latency.max()));
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
            ((*name).to_owned(), json!(tally.latency.value_at_quantile(*quantile)))
        });
        let mut latency: serde_json::Map<_, _> = quantiles.collect();
        latency.insert("max".into(), json!(tally.latency.max()));
        latency.insert("mean".into(), json!(tally.latency.mean()));
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
            "latency_from": if self.plan.rate.is_some() { "due" } else { "sent" },
            "latency_us": latency,
            "first_failure": self.advice,
        })
    }
}

/// Microseconds as milliseconds.
fn millis(micros: u64) -> String {
    format!("{:.3}", micros as f64 / 1e3)
}
