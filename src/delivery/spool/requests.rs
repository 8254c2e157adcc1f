//! What the writer is asked to do.

use std::sync::Arc;

use bytes::Bytes;
use tokio::sync::oneshot;

use super::segment::Kind;
use super::{FoundEvent, NotSpooled, Position, SetAsideReason};

/// Requests that wait for the writer.
#[derive(Default)]
pub(super) struct RequestQueue {
    pub waiting: Vec<SpoolRequest>,
    /// Of the frames that wait to be written.
    pub bytes: usize,
    /// With so many requests the writer does not wait for more.
    pub enough: usize,
    pub is_stopped: bool,
}

impl RequestQueue {
    /// Takes the first requests, so many at most.
    pub fn take(&mut self, count_max: usize) -> Vec<SpoolRequest> {
        let rest = self.waiting.split_off(self.waiting.len().min(count_max));
        let taken = std::mem::replace(&mut self.waiting, rest);
        for request in &taken {
            if let SpoolRequest::Put(put) = request {
                self.bytes -= put.frame.len();
            }
        }
        taken
    }
}

/// What the writer is asked to do.
pub(super) enum SpoolRequest {
    Put(Put),
    Change(Change),
    Read { which: Kind, from: u64, reply: oneshot::Sender<Option<Vec<FoundEvent>>> },
}

/// An event to be written.
pub(super) struct Put {
    pub position: Position,
    pub frame: Bytes,
    pub topic: Arc<str>,
    pub reply: oneshot::Sender<Result<(), NotSpooled>>,
}

/// What is to happen to an event in the spool.
#[derive(Debug, Clone, Copy)]
pub(super) struct Change {
    pub position: Position,
    pub action: Action,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Action {
    /// Kafka has it.
    Remove,
    /// It cannot be read.
    Lose,
    SetAside(SetAsideReason),
    /// Kafka has an event that was set aside.
    RemoveSetAside,
}
