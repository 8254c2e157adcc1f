//! An event that the Kafka client still has after its time was up. It is claimed in the spool until the
//! client says what became of it, whoever else may have lost interest by then.

use std::sync::Arc;

use tokio::sync::oneshot;

use crate::delivery::spool::{Position, Spool};
use crate::kafka::InFlightRecord;

/// An event with the Kafka client, claimed in the spool.
pub(super) struct LateEvent(oneshot::Receiver<bool>);

impl LateEvent {
    /// Claims the event and waits for its verdict in the background, however long it takes:
    /// acknowledged, it leaves the spool; else the drain will send it again.
    pub fn follow(sent: Arc<InFlightRecord>, position: Position, spool: &Spool) -> LateEvent {
        spool.claim(position);
        let spool = spool.clone();
        let (tell, told) = oneshot::channel();
        tokio::spawn(async move {
            let is_acknowledged = sent.verdict().await.is_ok();
            if is_acknowledged {
                // The claim goes with the event, or with the news that it is not there.
                spool.remove(position);
            } else {
                spool.release(position);
            }
            spool.ring();
            // Most often nobody waits any more.
            let _ = tell.send(is_acknowledged);
        });
        LateEvent(told)
    }

    /// Waits for its verdict: true where Kafka acknowledges it after all.
    pub async fn arrives(self) -> bool {
        self.0.await.unwrap_or(false)
    }
}
