//! HTTP mechanics, without knowledge of webhooks: accept connections, hold them to their limits,
//! read bodies within a budget, close gracefully.
//!
//! - `accept.rs`: from the listener to a [`Socket`], within the connection limits.
//! - `proxy.rs`: what trusted proxies say of a sender's address.
//! - `connection.rs`: one connection, HTTP/1.1 or HTTP/2, and its timers.
//! - `tls.rs`: the handshake before it, where TLS is configured.
//! - `head.rs`: what hyper lets pass in a head and the bridge does not.
//! - `body.rs`: the bounded read of a body, and the budget that all requests share.
//! - `coding.rs`: bodies that come compressed.
//! - `client.rs`: one request to another server.
//! - `connect.rs`: a connection to another server.
//! - `rate_limit.rs`: how often something may happen, for each of many.

mod accept;
mod body;
mod client;
mod coding;
mod connect;
mod connection;
mod head;
mod proxy;
pub mod rate_limit;
mod tls;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::sleep;

pub use accept::{Acceptor, Socket, listen};
pub use body::{Admission, Slot, read_body};
pub use client::{BoxError, get, send_blocking};
pub use coding::{CODINGS, Coding, Unpacked};
pub use connect::{ClientStream, Connector};
pub use connection::{Closed, Handler, InFlightRequest, Peer, serve};
pub use head::check_head;
pub use proxy::sender;
pub use tls::{Tls, TlsIdentity};

/// While draining, how long a connection may take to begin its first request, from its acceptance.
const FIRST_WORD_TIMEOUT: Duration = Duration::from_millis(500);

/// Tells connections to finish what they do and close.
#[derive(Clone, Default)]
pub struct Drain(Arc<DrainState>);

#[derive(Default)]
struct DrainState {
    begun: AtomicBool,
    wake: Notify,
}

impl Drain {
    pub fn begin(&self) {
        self.0.begun.store(true, Ordering::Release);
        self.0.wake.notify_waiters();
    }

    /// Waits for it, and for as long as a connection then has to begin its first request.
    async fn first_word_is_over(&self) {
        let wake = self.0.wake.notified();
        if !self.has_begun() {
            wake.await;
        }
        sleep(FIRST_WORD_TIMEOUT).await;
    }

    fn has_begun(&self) -> bool {
        self.0.begun.load(Ordering::Acquire)
    }
}
