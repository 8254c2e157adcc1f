//! Rates and latencies from the counters: of the last five seconds, and of each five seconds of an hour.
//!
//! The counters are read every second while there are viewers, else every five seconds. An hour is 720
//! points of 32 bytes.

use std::collections::VecDeque;
use std::time::Duration;

use tokio::time::Instant;

use crate::click::outcome::Outcome;
use crate::observe::metrics::{BUCKETS, Counts, Metrics, Observations};

/// From one point of the hour to the next.
pub(super) const STEP: Duration = Duration::from_secs(5);

/// How many points are kept: an hour.
const POINTS: usize = 720;

/// A reading that follows the last one sooner is skipped.
const LEAST: Duration = Duration::from_millis(500);

/// Five seconds of the past.
#[derive(Debug, Clone, Copy)]
pub(super) struct Point {
    /// Clicks a second that were answered 200.
    pub(super) held: f32,
    /// Requests a second that were not.
    pub(super) refused: f32,
    /// Milliseconds to the acknowledgement.
    pub(super) p50: Option<f32>,
    pub(super) p99: Option<f32>,
    /// Events that wait on disk.
    pub(super) spooled: f32,
}

pub(super) struct History {
    /// The readings of the last [`STEP`] and one before it, the newest last.
    readings: VecDeque<(Instant, Counts)>,
    /// The reading that the last point ended with.
    marked: (Instant, Counts),
    /// The last hour, the newest last.
    pub(super) points: VecDeque<Point>,
}

impl History {
    pub(super) fn new(metrics: &Metrics, now: Instant) -> History {
        let (reading, points) = ((now, metrics.counts()), VecDeque::new());
        History { readings: [reading.clone()].into(), marked: reading, points }
    }

    pub(super) fn read(&mut self, metrics: &Metrics, now: Instant) {
        let age = |(at, _): &(Instant, Counts)| now.duration_since(*at);
        if self.readings.back().is_some_and(|last| age(last) < LEAST) {
            return;
        }
        let reading = (now, metrics.counts());
        if age(&self.marked) >= STEP {
            let window = Window { from: &self.marked, to: &reading };
            if self.points.len() == POINTS {
                self.points.pop_front();
            }
            self.points.push_back(window.point(metrics.spool.events.get()));
            self.marked = reading.clone();
        }
        self.readings.push_back(reading);
        while self.readings.get(1).is_some_and(|second| age(second) >= STEP) {
            self.readings.pop_front();
        }
    }

    /// The last five seconds.
    pub(super) fn now(&self) -> Window<'_> {
        let last = self.readings.back().unwrap_or(&self.marked);
        Window { from: self.readings.front().unwrap_or(last), to: last }
    }

    /// One value of each point of the last hour, the newest last.
    pub(super) fn values(&self, value: impl Fn(&Point) -> Option<f32>) -> Vec<Option<f32>> {
        self.points.iter().map(value).collect()
    }
}

/// What was counted between two readings.
#[derive(Clone, Copy)]
pub(super) struct Window<'s> {
    from: &'s (Instant, Counts),
    to: &'s (Instant, Counts),
}

impl Window<'_> {
    /// Since the start.
    pub(super) fn total(&self, is_meant: impl Fn(Outcome) -> bool) -> u64 {
        sum(&self.to.1, is_meant)
    }

    /// Per second.
    pub(super) fn rate(&self, is_meant: impl Fn(Outcome) -> bool) -> f64 {
        let count = sum(&self.to.1, &is_meant).saturating_sub(sum(&self.from.1, &is_meant));
        let seconds = self.to.0.duration_since(self.from.0).as_secs_f64();
        if seconds > 0.0 { count as f64 / seconds } else { 0.0 }
    }

    /// The quantile of the time to the acknowledgement, in seconds; `None` without acknowledgements.
    pub(super) fn acknowledged_within(&self, share: f64) -> Option<f64> {
        quantile(&self.from.1.acknowledgements, &self.to.1.acknowledgements, share)
    }

    /// The quantile of the time to the answer.
    pub(super) fn answered_within(&self, share: f64) -> Option<f64> {
        quantile(&self.from.1.answers, &self.to.1.answers, share)
    }

    pub(super) fn counts(&self) -> &Counts {
        &self.to.1
    }

    fn point(&self, spooled: i64) -> Point {
        let milliseconds =
            |share| self.acknowledged_within(share).map(|seconds| (seconds * 1e3) as f32);
        Point {
            held: self.rate(is_held) as f32,
            refused: self.rate(|outcome| !is_held(outcome)) as f32,
            p50: milliseconds(0.5),
            p99: milliseconds(0.99),
            spooled: spooled as f32,
        }
    }
}

fn sum(counts: &Counts, is_meant: impl Fn(Outcome) -> bool) -> u64 {
    Outcome::all().filter(|outcome| is_meant(*outcome)).map(|o| counts.outcomes[o.index()]).sum()
}

/// Whether it was answered 200.
pub(super) fn is_held(outcome: Outcome) -> bool {
    matches!(outcome, Outcome::Held(_))
}

/// As Prometheus' `histogram_quantile`: linear within a bucket.
fn quantile(from: &Observations, to: &Observations, share: f64) -> Option<f64> {
    let up_to = |bucket: usize| to[bucket].saturating_sub(from[bucket]) as f64;
    let all = up_to(BUCKETS.len());
    if all == 0.0 {
        return None;
    }
    let rank = share * all;
    let last = BUCKETS[BUCKETS.len() - 1];
    let Some(bucket) = (0..BUCKETS.len()).find(|bucket| up_to(*bucket) >= rank) else {
        return Some(last);
    };
    let (floor, below) =
        bucket.checked_sub(1).map_or((0.0, 0.0), |lower| (BUCKETS[lower], up_to(lower)));
    let within = up_to(bucket) - below;
    let part = if within > 0.0 { (rank - below) / within } else { 1.0 };
    Some(floor + (BUCKETS[bucket] - floor) * part)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::click::outcome::{Held, Refusal};

    #[test]
    fn an_hour_of_points_and_the_rate_of_just_now() {
        let metrics = Metrics::new(&["webhook"], &["topic"]).expect("metrics");
        let start = Instant::now();
        let mut history = History::new(&metrics, start);
        assert_eq!(history.now().rate(is_held), 0.0);
        for second in 1..=4_000 {
            for _ in 0..30 {
                metrics.request(Some(0), Outcome::Held(Held::InKafka), 0.002);
            }
            metrics.request(None, Outcome::Refused(Refusal::UnknownPath), 0.002);
            metrics.topic("topic").ack_seconds.observe(0.002);
            history.read(&metrics, start + Duration::from_secs(second));
            // Too close.
            history.read(&metrics, start + Duration::from_secs(second));
            assert!(history.readings.len() <= 6);
        }
        assert_eq!(history.now().rate(is_held), 30.0);
        assert_eq!(history.now().total(is_held), 120_000);
        assert_eq!(history.points.len(), POINTS);
        let point = history.points[POINTS - 1];
        assert_eq!((point.held, point.refused, point.spooled), (30.0, 1.0, 0.0));
        assert!(point.p50 > Some(1.0) && point.p99 <= Some(2.5), "{point:?}");
    }

    #[test]
    fn quantiles_lie_within_their_bucket() {
        let (none, mut some) = (Observations::default(), Observations::default());
        assert_eq!(quantile(&none, &some, 0.5), None);
        // 90 of up to 1 ms, 9 of up to 2.5 ms, one that took longer than any bucket.
        some[0] = 90;
        some[1..BUCKETS.len()].fill(99);
        some[BUCKETS.len()] = 100;
        assert_eq!(quantile(&none, &some, 0.45), Some(0.0005));
        assert_eq!(quantile(&none, &some, 0.99), Some(0.0025));
        assert_eq!(quantile(&none, &some, 1.0), Some(5.0));
        assert_eq!(quantile(&some, &some, 0.5), None);
    }
}
