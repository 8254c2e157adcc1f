//! Accepts connections within the limits on their number.

use std::collections::HashMap;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use ipnet::IpNet;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, sleep, timeout};
use tracing::{debug, error};

use super::proxy::is_trusted;
use super::rate_limit::{RateLimiter, client_network};
use crate::config::HttpSettings;
use crate::observe::metrics::{ConnectionMetrics, ConnectionRefusal};

/// How long the listener rests when there is no file descriptor for another connection.
const PAUSE: Duration = Duration::from_millis(100);

/// The most connections that Linux queues for a listener by default (net.core.somaxconn).
const BACKLOG_MAX: u16 = 4_096;

/// The answer on a connection over the limit.
const OVER_LIMIT: &[u8] = b"HTTP/1.1 503 Service Unavailable\r\n\
    content-type: application/problem+json\r\nretry-after: 1\r\nconnection: close\r\n\
    content-length: 119\r\n\r\n\
    {\"type\":\"urn:hookbridge:problem:too_many_connections\",\"title\":\"Too many connections\",\
    \"status\":503,\"detail\":\"Try again\"}";

/// An address may have at most this many times as many connections as are free. So some are always left for
/// others, and one address alone may have seven of eight.
const SHARE_OF_FREE: usize = 7;

/// Listens on an address. The kernel queues as many connections as it may; with the standard library it would
/// be 128, and clients in a larger burst would try again a second later.
///
/// # Errors
///
/// What the system reports.
pub fn listen(address: SocketAddr) -> io::Result<std::net::TcpListener> {
    let listener = std::net::TcpListener::bind(address)?;
    rustix::net::listen(&listener, BACKLOG_MAX.into())?;
    listener.set_nonblocking(true)?;
    Ok(listener)
}

/// Accepts connections, up to the limits.
pub struct Acceptor {
    max: u32,
    max_per_address: usize,
    /// Whether connections are plain HTTP, so that one over the limit can be answered.
    is_plain: bool,
    permits: Arc<Semaphore>,
    /// Open connections by address; an address without any is not in it.
    addresses: Mutex<HashMap<IpAddr, usize>>,
    /// Their connections are those of many senders.
    proxies: Vec<IpNet>,
    metrics: ConnectionMetrics,
    /// Log lines about failed accepts.
    lines: RateLimiter,
}

/// An accepted connection.
pub struct Socket<S = TcpStream> {
    /// Registered with the listener's runtime, and served by another one.
    pub(super) stream: S,
    pub(super) peer: SocketAddr,
    pub(super) permit: ConnectionPermit,
}

/// A connection's place within the limits, until it is dropped.
pub(super) struct ConnectionPermit {
    acceptor: Arc<Acceptor>,
    /// Of all connections.
    _permit: OwnedSemaphorePermit,
    /// The address that it counts for.
    address: Option<IpAddr>,
}

impl Acceptor {
    pub fn new(limits: &HttpSettings, metrics: ConnectionMetrics) -> Arc<Acceptor> {
        Arc::new(Acceptor {
            max: u32::try_from(limits.max_connections).unwrap_or(u32::MAX),
            max_per_address: limits.max_connections_per_address,
            is_plain: limits.tls.is_none(),
            permits: Arc::new(Semaphore::new(limits.max_connections)),
            addresses: Mutex::default(),
            proxies: limits.trusted_proxies.clone(),
            metrics,
            lines: RateLimiter::per_second(1),
        })
    }

    /// The next connection within the limits. Those over them are answered and closed.
    pub async fn accept(self: &Arc<Self>, listener: &TcpListener) -> Socket {
        loop {
            match listener.accept().await {
                Ok((stream, peer)) => match self.permit(peer.ip()) {
                    Some(permit) => return Socket { stream, peer, permit },
                    // The send buffer of a new socket is empty: this is written whole or, if the client
                    // is gone already, not at all.
                    None if self.is_plain => {
                        let _ = stream.try_write(OVER_LIMIT);
                    }
                    None => {}
                },
                Err(error) => self.recover(error).await,
            }
        }
    }

    /// The connections that the kernel has already accepted for a listener that is about to close.
    pub async fn accept_rest(self: &Arc<Self>, listener: &TcpListener) -> Vec<Socket> {
        let mut rest = Vec::new();
        // Connections beyond the kernel's queue arrived after the close was due.
        while rest.len() < BACKLOG_MAX.into()
            && let Ok(socket) = timeout(Duration::ZERO, self.accept(listener)).await
        {
            rest.push(socket);
        }
        rest
    }

    /// Waits until every connection is closed.
    pub async fn all_closed(&self) {
        let _ = self.permits.acquire_many(self.max).await;
    }

    /// A place for a connection from this address; none if it would be over a limit.
    pub(super) fn permit(self: &Arc<Self>, address: IpAddr) -> Option<ConnectionPermit> {
        let Ok(_permit) = self.permits.clone().try_acquire_owned() else {
            self.metrics.refused[ConnectionRefusal::Limit].inc();
            return None;
        };
        self.metrics.open.inc();
        let mut permit = ConnectionPermit { acceptor: self.clone(), _permit, address: None };
        (is_trusted(&self.proxies, address) || permit.count_address(address)).then_some(permit)
    }

    fn addresses(&self) -> MutexGuard<'_, HashMap<IpAddr, usize>> {
        self.addresses.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Ignores a connection that failed before it was accepted. Without descriptors or memory the listener
    /// rests, because trying again at once brings none.
    async fn recover(&self, error: io::Error) {
        use io::ErrorKind::{ConnectionAborted, ConnectionReset, Interrupted};
        if matches!(error.kind(), ConnectionAborted | ConnectionReset | Interrupted) {
            debug!(%error, "A connection was gone before it was accepted.");
            return;
        }
        self.metrics.refused[ConnectionRefusal::FileDescriptors].inc();
        if self.lines.take((), Instant::now()) {
            error!(
                %error,
                "No connection can be accepted; trying again. If descriptors ran out, raise the \
                 limit (ulimit -n) or lower http.max_connections."
            );
        }
        sleep(PAUSE).await;
    }
}

impl ConnectionPermit {
    /// Counts the connection for this address, too; false if that has as many as it may have.
    pub(super) fn count_address(&mut self, address: IpAddr) -> bool {
        let address = client_network(address);
        let Acceptor { permits, max_per_address, metrics, .. } = &*self.acceptor;
        let free = permits.available_permits() + 1;
        let mut addresses = self.acceptor.addresses();
        let open = addresses.get(&address).copied().unwrap_or_default();
        let refusal = if *max_per_address != 0 && open >= *max_per_address {
            ConnectionRefusal::AddressLimit
        } else if open >= SHARE_OF_FREE * free {
            ConnectionRefusal::Limit
        } else {
            addresses.insert(address, open + 1);
            self.address = Some(address);
            return true;
        };
        metrics.refused[refusal].inc();
        false
    }
}

impl Drop for ConnectionPermit {
    fn drop(&mut self) {
        self.acceptor.metrics.open.dec();
        let Some(address) = &self.address else { return };
        let mut addresses = self.acceptor.addresses();
        if let Some(open) = addresses.get_mut(address) {
            *open -= 1;
            if *open == 0 {
                addresses.remove(address);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_answer_over_the_limit_states_its_own_length() {
        let text = std::str::from_utf8(OVER_LIMIT).expect("text");
        let (head, body) = text.split_once("\r\n\r\n").expect("a head and a body");
        assert!(head.ends_with(&format!("content-length: {}", body.len())), "{}", body.len());
        serde_json::from_str::<serde_json::Value>(body).expect("JSON");
    }
}
