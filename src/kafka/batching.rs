//! How long records wait for others, so that they go to the Kafka client together.
//!
//! Each hand-over wakes the client's thread, and each request wakes a broker, the client and a worker; records
//! that go together share that. How long they wait is chosen from how fast they come ([`delay`]).
//!
//! Senders that wait for their answers send nothing more meanwhile (a closed loop), and waiting for more would only
//! hold them up. So a batch goes before its time when as many records are on their way (waiting, or without a report)
//! as there were in a whole wait, and a quarter of them wait. Where several batches in a row do, the senders are taken
//! for a closed loop, and records do not wait at all until one batch waits its whole time again.

use std::time::Duration;

use tokio::time::Instant;

/// The longest wait, which senders do not notice.
const DELAY_MAX: Duration = Duration::from_millis(10);

/// Fewer records a second than these have hardly anything to share: 5 in the longest wait.
const RATE_MIN: f64 = 500.0;

/// More records at once than these gain nothing.
const ENOUGH: f64 = 200.0;

/// The rate is that of at least so much time.
const RATE_TIME: Duration = Duration::from_millis(100);

/// So many early batches in a row are of a closed loop. There, waiting for all senders gave fewer answers than not to
/// wait, for no less CPU (8 and 16 connections); waiting for half of them was a little better with 16, and worse with 8
/// and 64.
const CLOSED_LOOP: u32 = 16;

/// How long batches go early before one waits its whole time: in a closed loop that wait is lost for all.
const EARLY_TIME: Duration = Duration::from_secs(1);

/// An early batch has at least one of so many of the records on their way.
const SHARE: usize = 4;

/// How much of what was expected a whole wait that finds fewer takes off: all would make small batches of the fewest
/// that came by chance.
const FALL: f64 = 0.25;

/// The policy: how long the first record of a batch waits when so many records come in a second.
pub(super) fn delay(rate: f64) -> Duration {
    if rate < RATE_MIN {
        return Duration::ZERO;
    }
    Duration::from_secs_f64(ENOUGH / rate).min(DELAY_MAX)
}

/// What a sender task does with the records that wait.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Turn {
    HandOver,
    /// Nothing before then, or before so many wait.
    Wait {
        until: Instant,
        records: usize,
    },
}

/// The batches of one sender task.
pub(super) struct Batching {
    /// Where the operator has set how long the client waits, records do not wait here.
    is_on: bool,
    /// Records that the client has, without a report.
    in_flight: usize,
    /// When the first record of the next batch was seen.
    first: Option<Instant>,
    /// Records in a second, lately.
    rate: f64,
    /// The records since the rate was last measured, and when that was.
    counted: usize,
    counted_since: Instant,
    /// The most records on their way at once since the last batch.
    peak: usize,
    /// As many as that were there in whole waits.
    expected: f64,
    /// When the last whole wait was.
    waited: Instant,
    /// Batches that went early since then.
    early: u32,
}

impl Batching {
    pub fn new(is_on: bool, now: Instant) -> Batching {
        Batching {
            is_on,
            in_flight: 0,
            first: None,
            rate: 0.0,
            counted: 0,
            counted_since: now,
            peak: 0,
            expected: 0.0,
            waited: now,
            early: 0,
        }
    }

    /// So many reports have come while so many records wait.
    pub fn reported(&mut self, reports: usize, waiting: usize) {
        self.peak = self.peak.max(self.in_flight + waiting);
        self.in_flight = self.in_flight.saturating_sub(reports);
    }

    /// What to do with so many records (at least one) that wait.
    pub fn turn(&mut self, now: Instant, waiting: usize) -> Turn {
        let delay = delay(self.rate);
        if !self.is_on || delay.is_zero() {
            return Turn::HandOver;
        }
        let until = *self.first.get_or_insert(now) + delay;
        if until <= now {
            let found = self.peak.max(self.in_flight + waiting) as f64;
            self.expected = found.max(self.expected - FALL * (self.expected - found));
            (self.early, self.waited) = (0, now);
            return Turn::HandOver;
        }
        if now - self.waited >= EARLY_TIME {
            return Turn::Wait { until, records: usize::MAX };
        }
        if self.early < CLOSED_LOOP {
            let expected = self.expected.round() as usize;
            let records = expected.saturating_sub(self.in_flight).max(expected.div_ceil(SHARE));
            if waiting < records {
                return Turn::Wait { until, records };
            }
        }
        self.early += 1;
        Turn::HandOver
    }

    /// So many records went to the client.
    pub fn handed_over(&mut self, now: Instant, records: usize) {
        self.in_flight += records;
        self.peak = self.in_flight;
        self.first = None;
        self.counted += records;
        let time = now - self.counted_since;
        if time >= RATE_TIME {
            self.rate = self.counted as f64 / time.as_secs_f64();
            (self.counted, self.counted_since) = (0, now);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;

    use super::*;

    #[test]
    fn the_delay_follows_the_rate() {
        for (rate, milliseconds) in [
            (0.0, 0.0),
            (100.0, 0.0),
            (499.0, 0.0),
            (500.0, 10.0),
            (1_000.0, 10.0),
            (5_000.0, 10.0),
            (10_000.0, 10.0),
            (20_000.0, 10.0),
            (50_000.0, 4.0),
            (100_000.0, 2.0),
            (1_000_000.0, 0.2),
        ] {
            let found = delay(rate).as_secs_f64() * 1e3;
            assert!((found - milliseconds).abs() < 1e-6, "{rate}/s: {found} ms");
        }
    }

    const TICK: Duration = Duration::from_micros(100);
    /// From handing over to the report, as of a broker near by.
    const KAFKA: Duration = Duration::from_millis(1);

    /// Senders on a clock of its own.
    enum Senders {
        /// A record each time that so much has passed.
        Every(Duration),
        /// So many in a second, independent of each other.
        Random(f64),
        /// So many, each of which sends its next record when it is answered.
        Closed(usize),
        /// So many as that until a quarter of the time has passed, then so many in a second.
        ClosedThenRandom(usize, f64),
        /// So many, and one more that takes so long for its next.
        ClosedAndSlow(usize, Duration),
    }

    struct Found {
        /// Records answered in a second.
        rate: f64,
        /// Records in a batch.
        batch: f64,
        /// The longest that any waited for the client.
        longest: Duration,
    }

    /// What a sender task with this batching does for these senders in the last half of the time.
    fn simulate(senders: &Senders, time: Duration) -> Found {
        let start = Instant::now();
        let mut batching = Batching::new(true, start);
        let mut waiting = VecDeque::new();
        let mut in_flight: VecDeque<(Instant, usize)> = VecDeque::new();
        let (mut next, mut random) = (start, fastrand::Rng::with_seed(1));
        let mut due = match senders {
            Senders::Every(_) | Senders::Random(_) => 0,
            Senders::Closed(count) | Senders::ClosedThenRandom(count, _) => *count,
            Senders::ClosedAndSlow(count, _) => count + 1,
        };
        let (mut batches, mut records, mut longest) = (0_usize, 0_usize, Duration::ZERO);
        let mut now = start;
        while now < start + time {
            now += TICK;
            while in_flight.front().is_some_and(|(until, _)| *until <= now) {
                let (_, reports) = in_flight.pop_front().expect("a batch");
                batching.reported(reports, waiting.len());
                match senders {
                    Senders::Every(_) | Senders::Random(_) => {}
                    Senders::Closed(_) => due += reports,
                    Senders::ClosedThenRandom(..) if now < start + time / 4 => due += reports,
                    Senders::ClosedThenRandom(..) => {}
                    Senders::ClosedAndSlow(count, _) => due += reports.min(*count),
                }
            }
            while next <= now {
                next += match senders {
                    Senders::Every(time) | Senders::ClosedAndSlow(_, time) => *time,
                    // Poisson's arrivals.
                    Senders::ClosedThenRandom(..) if now < start + time / 4 => break,
                    Senders::Random(rate) | Senders::ClosedThenRandom(_, rate) => {
                        Duration::from_secs_f64(-random.f64().ln() / rate)
                    }
                    Senders::Closed(_) => break,
                };
                due += 1;
            }
            waiting.extend(std::iter::repeat_n(now, std::mem::take(&mut due)));
            if waiting.is_empty() || batching.turn(now, waiting.len()) != Turn::HandOver {
                continue;
            }
            batching.handed_over(now, waiting.len());
            in_flight.push_back((now + KAFKA, waiting.len()));
            if now >= start + time / 2 {
                batches += 1;
                records += waiting.len();
                longest = longest.max(now - waiting[0]);
            }
            waiting.clear();
        }
        let rate = records as f64 / (time / 2).as_secs_f64();
        Found { rate, batch: records as f64 / batches as f64, longest }
    }

    #[test]
    fn steady_records_are_gathered_and_none_waits_longer_than_the_longest_delay() {
        for (rate, batch) in [(100.0, 1.0), (1_000.0, 8.0), (5_000.0, 40.0), (20_000.0, 160.0)] {
            let even = Senders::Every(Duration::from_secs_f64(1.0 / rate));
            for senders in [even, Senders::Random(rate)] {
                let found = simulate(&senders, Duration::from_secs(10));
                assert!(found.batch >= batch, "{rate}/s: {} in a batch", found.batch);
                assert!(found.longest <= DELAY_MAX + TICK, "{rate}/s: {:?}", found.longest);
            }
        }
    }

    #[test]
    fn senders_that_wait_for_their_answers_are_hardly_held_up() {
        for count in [1, 2, 8, 16, 64, 256] {
            let found = simulate(&Senders::Closed(count), Duration::from_secs(10));
            let most = count as f64 / (KAFKA + TICK).as_secs_f64();
            assert!(found.rate >= 0.9 * most, "{count}: {} of {most}", found.rate);
            // All of them answer at once here; with a real broker a few at a time.
            assert!(found.batch >= 0.9 * count as f64, "{count}: {}", found.batch);
        }
    }

    #[test]
    fn senders_that_begin_to_come_by_themselves_are_noticed() {
        for count in [1, 16, 64] {
            let senders = Senders::ClosedThenRandom(count, 2_000.0);
            let found = simulate(&senders, Duration::from_secs(20));
            assert!(found.batch >= 10.0, "after {count}: {} in a batch", found.batch);
        }
    }

    /// It is missing in most batches. None of the others waits for it for long.
    #[test]
    fn a_slow_sender_does_not_hold_up_those_that_are_quick() {
        let senders = Senders::ClosedAndSlow(8, Duration::from_millis(50));
        let found = simulate(&senders, Duration::from_secs(10));
        assert!(found.rate >= 4_000.0, "{}", found.rate);
    }

    #[test]
    fn nothing_waits_where_the_client_does() {
        let now = Instant::now();
        let mut batching = Batching::new(false, now);
        for number in 1..1_000 {
            let now = now + number * TICK;
            assert_eq!(batching.turn(now, 1), Turn::HandOver);
            batching.handed_over(now, 1);
        }
    }
}
