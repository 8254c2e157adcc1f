//! The post office of one worker thread: records on their way out, reports on their way back.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::{Notify, oneshot};
use tokio::time::Instant;

use super::fault::{Failure, Fault};
use crate::route::Record;

/// What became of a record, and which producer says so.
#[derive(Debug, Clone, Copy)]
pub struct Report {
    pub generation: u64,
    pub result: Result<(), Failure>,
}

impl Report {
    pub fn is_broken(&self) -> bool {
        matches!(self.result, Err(Failure { fault: Fault::ProducerFailed, .. }))
    }
}

pub type Reply = oneshot::Sender<Report>;

/// Records on their way out and reports on their way back, for one worker thread.
#[derive(Default)]
pub struct PostOffice {
    pub outbox: Letters<Letter>,
    pub inbox: Letters<(Reply, Report)>,
    pub bell: Notify,
    /// Records that failed so far.
    pub failures: AtomicU64,
}

/// A record on its way out.
pub struct Letter {
    pub record: Arc<Record>,
    pub terms: Terms,
    pub reply: Reply,
}

/// On what terms a record may still be sent when its turn comes.
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

impl PostOffice {
    pub fn send(&self, letter: Letter) {
        if self.outbox.put(letter) {
            self.bell.notify_one();
        }
    }

    pub fn receive(&self, reply: Reply, report: Report) {
        if report.result.is_err() {
            self.failures.fetch_add(1, Ordering::SeqCst);
        }
        if self.inbox.put((reply, report)) {
            self.bell.notify_one();
        }
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

    pub fn take(&self) -> Vec<T> {
        std::mem::take(&mut *self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// Travels with a record through the client and comes back with its report.
pub struct Ticket {
    pub reply: Reply,
    pub post: Arc<PostOffice>,
    pub topic: Arc<str>,
    pub sent: Instant,
}
