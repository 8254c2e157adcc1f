//! What a load got: answers by status, failures by kind, and how long the answers took.

use std::collections::BTreeMap;
use std::time::Duration;

use hdrhistogram::Histogram;

use super::connection::{ExchangeError, ServerResponse};

/// An answer that takes longer than this counts as this.
const LATENCY_MAX: Duration = Duration::from_secs(3_600);

/// What a load got.
pub struct Tally {
    /// Answers by status.
    pub statuses: BTreeMap<u16, u64>,
    /// Clicks without an answer, by the kind of failure.
    pub failures: BTreeMap<&'static str, u64>,
    /// How long answers took, in microseconds.
    pub latency: Histogram<u64>,
    /// What went wrong first.
    pub first: Option<FirstFailure>,
}

/// What went wrong first.
#[derive(Debug)]
pub enum FirstFailure {
    Response(ServerResponse),
    NoResponse(ExchangeError),
}

impl Default for Tally {
    fn default() -> Tally {
        let (statuses, failures) = (BTreeMap::new(), BTreeMap::new());
        Tally { statuses, failures, latency: histogram(), first: None }
    }
}

impl Tally {
    /// Notes what became of a click.
    pub fn note(&mut self, result: Result<ServerResponse, ExchangeError>, took: Duration) {
        match result {
            Ok(answer) => {
                *self.statuses.entry(answer.status).or_default() += 1;
                let micros = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
                self.latency.saturating_record(micros);
                if answer.status != 200 {
                    self.first.get_or_insert(FirstFailure::Response(answer));
                }
            }
            Err(failure) => {
                *self.failures.entry(failure.kind()).or_default() += 1;
                self.first.get_or_insert(FirstFailure::NoResponse(failure));
            }
        }
    }

    /// Clicks answered 200.
    pub fn held(&self) -> u64 {
        self.statuses.get(&200).copied().unwrap_or(0)
    }

    /// Clicks that were sent, or should have been.
    pub fn sent(&self) -> u64 {
        self.statuses.values().chain(self.failures.values()).sum()
    }

    /// Clicks that were not answered 200.
    pub fn failed(&self) -> u64 {
        self.sent() - self.held()
    }
}

/// Microseconds, to three digits.
pub fn histogram() -> Histogram<u64> {
    let max = LATENCY_MAX.as_micros() as u64;
    // These bounds are good ones.
    let histogram = Histogram::new_with_bounds(1, max, 3);
    histogram.unwrap_or_else(|_| unreachable!("the bounds are constant"))
}
