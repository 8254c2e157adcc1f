//! HTTP mechanics, without knowledge of webhooks.
//!
//! - `accept.rs`: connections, within the limits on their number.
//! - `connection.rs`: serves a connection, HTTP/1.1 or HTTP/2.
//! - `phase.rs`: what a connection waits for, and its timer.
//! - `tls.rs`: the listener's certificate, and the handshake.
//! - `proxy.rs`: the sender's address behind trusted proxies.
//! - `head.rs`: checks of a head that hyper leaves out.
//! - `body.rs`: the bounded read of a body, and the budget of all requests.
//! - `coding.rs`: compressed bodies.
//! - `rate_limit.rs`: rate limits.
//! - `client.rs`: connections and requests to other servers.
//! - `simulation.rs`: the connections under a deterministic simulator, for tests.

mod accept;
mod body;
mod client;
mod coding;
mod connection;
mod head;
mod phase;
mod proxy;
pub(crate) mod rate_limit;
#[cfg(test)]
mod simulation;
mod tls;

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::SetOnce;
use tokio::time::sleep;

pub use accept::{Acceptor, Socket, listen};
pub use body::{Admission, Slot, read_body};
pub use client::{
    BoxError, CertificateFault, ClientStream, Connector, ask_blocking, fetch, get, send_blocking,
};
pub use coding::{CODINGS, Coding, Unpacked, content_encoding};
pub use connection::{Handler, Peer, Transport, serve};
pub use head::check_head;
pub use phase::InFlightRequest;
pub use proxy::sender_address;
pub use tls::{Tls, TlsIdentity};

/// Time for the first request of a connection to begin while the bridge drains.
const FIRST_REQUEST_TIMEOUT: Duration = Duration::from_millis(500);

/// Tells connections to finish their requests and close.
#[derive(Clone, Default)]
pub struct Drain(Arc<SetOnce<()>>);

impl Drain {
    pub fn begin(&self) {
        // It may have begun before.
        let _ = self.0.set(());
    }

    /// Waits until the drain has begun, and a connection without a request has had its time.
    async fn first_request_is_overdue(&self) {
        self.0.wait().await;
        sleep(FIRST_REQUEST_TIMEOUT).await;
    }

    fn has_begun(&self) -> bool {
        self.0.initialized()
    }
}
