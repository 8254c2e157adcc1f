//! An event that the Kafka client still has after its time was up. It is claimed in the spool until
//! the client says what became of it.

use std::sync::Arc;

use crate::breaker::Breaker;
use crate::kafka::Sent;
use crate::spool::{Place, Spool};

/// An event with the Kafka client, claimed in the spool.
pub(super) struct Late {
    sent: Sent,
    claim: Claim,
    breaker: Arc<Breaker>,
}

/// A claim, which is given back when it is dropped; or goes with its event.
struct Claim {
    place: Place,
    spool: Spool,
    goes_with_event: bool,
}

impl Late {
    pub fn new(sent: Sent, place: Place, spool: &Spool, breaker: &Arc<Breaker>) -> Late {
        spool.claim(place);
        let claim = Claim { place, spool: spool.clone(), goes_with_event: false };
        Late { sent, claim, breaker: breaker.clone() }
    }

    /// Waits for the verdict, however long it takes: acknowledged, the event leaves the spool; else
    /// the drain will send it again.
    pub async fn settle(mut self) {
        if self.sent.verdict().await.is_ok() {
            self.breaker.succeeded();
            self.claim.spool.remove(self.claim.place);
            self.claim.goes_with_event = true;
        }
    }

    /// Gives up the claim, for an event that is not in the spool.
    pub fn into_sent(self) -> Sent {
        self.sent
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        if !self.goes_with_event {
            self.spool.release(self.place);
        }
    }
}
