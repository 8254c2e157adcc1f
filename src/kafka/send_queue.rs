//! The post office of one worker thread: records on their way out, reports on their way back.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::{Notify, SetOnce};
use tokio::time::Instant;

use super::fault::{Failure, Fault};
use crate::click::record::Record;

/// What became of a record, and which producer says so.
#[derive(Debug, Clone, Copy)]
pub struct Report {
    pub generation: u64,
    pub result: Result<(), Failure>,
}

impl Report {
    pub fn fault(&self) -> Option<Fault> {
        self.result.err().map(|failure| failure.fault)
    }
}

/// A record on its way: from the worker through the Kafka client and back, in one piece of memory that
/// all of them share.
pub struct Parcel {
    pub record: Record,
    pub terms: Terms,
    /// When it was sent.
    pub sent: Instant,
    /// What became of it, once that is known.
    pub report: SetOnce<Report>,
    post: Arc<PostOffice>,
}

/// On what terms a record may still be handed to the Kafka client when its turn comes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Terms {
    /// By this producer alone.
    pub generation: Option<u64>,
    /// Only as long as no more records than these have failed that this post office sent.
    pub failures: Option<u64>,
}

impl Terms {
    pub fn hold(self, generation: u64, failures: u64) -> bool {
        self.generation.is_none_or(|wanted| wanted == generation)
            && self.failures.is_none_or(|known| known == failures)
    }
}

impl Parcel {
    /// Hands in its report; the postman brings it to whoever waits.
    pub fn report(self: Arc<Parcel>, report: Report) {
        let post = self.post.clone();
        if report.result.is_err() {
            post.failures.fetch_add(1, Ordering::SeqCst);
        }
        if post.inbox.put((self, report)) {
            post.bell.notify_one();
        }
    }
}

/// Records on their way out and reports on their way back, for one worker thread.
#[derive(Default)]
pub struct PostOffice {
    pub outbox: Letters<Arc<Parcel>>,
    pub inbox: Letters<(Arc<Parcel>, Report)>,
    pub bell: Notify,
    /// Records that failed so far.
    pub failures: AtomicU64,
}

impl PostOffice {
    pub fn send(self: &Arc<PostOffice>, record: Record, terms: Terms) -> Arc<Parcel> {
        let (sent, report) = (Instant::now(), SetOnce::new());
        let parcel = Arc::new(Parcel { record, terms, sent, report, post: self.clone() });
        if self.outbox.put(parcel.clone()) {
            self.bell.notify_one();
        }
        parcel
    }
}

/// Letters in one direction. At most as many as there are requests in flight, or as the drain sends at
/// once.
pub struct Letters<T>(Mutex<Vec<T>>);

impl<T> Default for Letters<T> {
    fn default() -> Letters<T> {
        Letters(Mutex::default())
    }
}

impl<T> Letters<T> {
    /// True for the first one since the box was emptied.
    fn put(&self, letter: T) -> bool {
        let mut letters = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        letters.push(letter);
        letters.len() == 1
    }

    pub fn is_empty(&self) -> bool {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).is_empty()
    }

    /// Empties the box into a bag that is empty, and whose memory it takes for the next ones.
    pub fn empty_into(&self, bag: &mut Vec<T>) {
        std::mem::swap(bag, &mut *self.0.lock().unwrap_or_else(PoisonError::into_inner));
    }
}
