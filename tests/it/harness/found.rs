//! Compares the clicks found in Kafka with the answers.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use hookbridge::config::Config;
use hookbridge::kafka::{Reader, TopicPosition};
use tokio::time::Instant;

use super::load::{Book, read_mark};
use super::support::{PATIENCE, count};

/// All records of one click.
#[derive(Default)]
struct Seen {
    ids: Vec<String>,
}

/// The records found in Kafka.
#[derive(Default)]
pub struct Found {
    clicks: HashMap<(Arc<str>, u32), Seen>,
    records: usize,
    /// Clicks whose first record comes after one of a later click of their campaign, with its place.
    out_of_order: Vec<String>,
}

impl Found {
    /// Reads the topic and its dead letters: the clicks of campaigns whose names begin so.
    pub fn in_kafka(config: &Config, name: &str) -> Found {
        let mut found = Found::default();
        found.read(config, &config.webhook[0].topic, name);
        found.read(config, &config.webhook[0].dead_letters(), name);
        found
    }

    /// Reads a topic to its present end.
    fn read(&mut self, config: &Config, topic: &str, name: &str) {
        let expected = count(&config.kafka.brokers, topic);
        let reader = Reader::open(config, topic, TopicPosition::Beginning, PATIENCE).unwrap();
        let mut highest: HashMap<Arc<str>, u32> = HashMap::new();
        let mut deadline = Instant::now() + PATIENCE;
        let mut left = expected;
        while left > 0 {
            let Some(record) = reader.next(Duration::from_millis(100)).unwrap() else {
                assert!(Instant::now() < deadline, "{left} of {expected} records do not come");
                continue;
            };
            deadline = Instant::now() + PATIENCE;
            left -= 1;
            let (campaign, number) = read_mark(&record.value).expect("a click of ours");
            if !campaign.starts_with(name) {
                continue;
            }
            self.records += 1;
            let id = record.headers.into_iter().find(|(name, _)| name == "ce_id").unwrap().1;
            let seen = self.clicks.entry((campaign.clone(), number)).or_default();
            seen.ids.push(id);
            if record.key.is_some() && seen.ids.len() == 1 {
                let highest = highest.entry(campaign.clone()).or_insert(number);
                if number < *highest {
                    let (partition, offset) = (record.partition, record.offset);
                    self.out_of_order.push(format!(
                        "{campaign}:{number} after {highest}, partition {partition}, offset {offset}"
                    ));
                }
                *highest = number.max(*highest);
            }
        }
    }

    /// Prints the whole comparison, then asserts that every click answered 200 is in Kafka or set aside,
    /// and that none was refused.
    pub fn check(&self, name: &str, book: &Book, set_aside: f64) {
        let is_missing = |click: &&(Arc<str>, u32)| !self.clicks.contains_key(*click);
        let missing: Vec<_> = book.held.iter().filter(is_missing).collect();
        let lost = missing.len() as f64 - set_aside;
        let duplicates = self.records - self.clicks.len();
        let other_ids =
            self.clicks.values().filter(|seen| seen.ids.iter().any(|id| *id != seen.ids[0]));
        let other_ids = other_ids.count();
        let refused: usize = book.refused.values().sum();
        println!(
            "\n{name}: {} sent, {} answered 200, {} in Kafka, {set_aside} set aside, {lost} lost {:?}, \
             {duplicates} duplicates ({:.4} %), {other_ids} of them with another ce_id, {refused} \
             refused {:?}, {} without an answer, {} out of order {:?}",
            book.sent,
            book.held.len(),
            self.clicks.len(),
            missing.iter().take(10).collect::<Vec<_>>(),
            100.0 * duplicates as f64 / self.records.max(1) as f64,
            book.refused,
            book.unanswered,
            self.out_of_order.len(),
            self.out_of_order.iter().take(10).collect::<Vec<_>>(),
        );
        assert_eq!((lost, other_ids, refused), (0.0, 0, 0), "lost, other ids, refused");
    }

    /// Asserts the order. It holds where no process was killed.
    pub fn check_order(&self, book: &Book) {
        self.check_order_except(book, 0.0);
    }

    /// Asserts the order where Kafka refused this many records: a refused batch of the spool is sent again
    /// after the events behind it, and nothing else comes late.
    pub fn check_order_except(&self, book: &Book, refused: f64) {
        let late = self.out_of_order.len() as f64;
        assert!(
            book.unanswered == 0 && late <= refused,
            "{} unanswered, {late} late",
            book.unanswered
        );
    }
}
