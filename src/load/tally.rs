//! The results of a load: responses by status, failures by kind, and how long the responses took.

use std::collections::BTreeMap;
use std::time::Duration;

use hdrhistogram::Histogram;

use super::connection::{ExchangeError, ServerResponse};

/// A response that takes longer than this counts as this.
const LATENCY_MAX: Duration = Duration::from_secs(3_600);

/// So many numbers of failed clicks are kept.
const FAILED_MAX: usize = 100_000;

/// The results of a load.
pub struct Tally {
    /// Responses by status.
    pub statuses: BTreeMap<u16, u64>,
    /// Clicks without a response, by the kind of failure.
    pub failures: BTreeMap<&'static str, u64>,
    /// How long responses took, in microseconds.
    pub latency: Histogram<u64>,
    /// The first click that was not answered 200.
    pub first_failure: Option<Result<ServerResponse, ExchangeError>>,
    /// The numbers of the first 100,000 clicks that were not answered 200, as they failed.
    pub failed_clicks: Vec<u64>,
}

impl Default for Tally {
    fn default() -> Tally {
        let (statuses, failures) = (BTreeMap::new(), BTreeMap::new());
        let failed_clicks = Vec::new();
        Tally { statuses, failures, latency: histogram(), first_failure: None, failed_clicks }
    }
}

impl Tally {
    /// Notes what became of the click with this number.
    pub fn note(
        &mut self,
        number: u64,
        result: Result<ServerResponse, ExchangeError>,
        took: Duration,
    ) {
        match &result {
            Ok(response) => {
                *self.statuses.entry(response.status).or_default() += 1;
                let micros = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
                self.latency.saturating_record(micros);
            }
            Err(error) => *self.failures.entry(error.kind()).or_default() += 1,
        }
        if !result.as_ref().is_ok_and(|response| response.status == 200) {
            self.first_failure.get_or_insert(result);
            if self.failed_clicks.len() < FAILED_MAX {
                self.failed_clicks.push(number);
            }
        }
    }

    /// Clicks answered 200.
    pub fn held(&self) -> u64 {
        self.statuses.get(&200).copied().unwrap_or(0)
    }

    /// Clicks that were sent, or for which there was no connection.
    pub fn sent(&self) -> u64 {
        self.statuses.values().chain(self.failures.values()).sum()
    }

    /// Clicks that were not answered 200.
    pub fn failed(&self) -> u64 {
        self.sent() - self.held()
    }
}

/// An empty histogram of microseconds, with a precision of three digits.
pub fn histogram() -> Histogram<u64> {
    let max = LATENCY_MAX.as_micros() as u64;
    Histogram::new_with_bounds(1, max, 3).unwrap_or_else(|_| unreachable!("constant and valid"))
}
