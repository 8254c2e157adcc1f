//! From the listener to a [`Socket`], within the connection limits.

use std::collections::HashMap;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use ipnet::IpNet;
use tokio::net::TcpListener;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, sleep, timeout};
use tracing::{debug, error};

use super::proxy::is_trusted;
use crate::config;
use crate::http::rate_limit::client_network;
use crate::observe::metrics::{ConnectionMetrics, ConnectionRefusal};

/// How long the listener rests when there is no descriptor for another connection.
const PAUSE: Duration = Duration::from_millis(100);

/// The most connections that Linux holds for a listener by default (net.core.somaxconn).
const BACKLOG_MAX: u16 = 4_096;

/// What a connection over the limit is told before it is closed.
const OVER_LIMIT: &[u8] = b"HTTP/1.1 503 Service Unavailable\r\n\
    content-type: application/problem+json\r\nretry-after: 1\r\nconnection: close\r\n\
    content-length: 119\r\n\r\n\
    {\"type\":\"urn:hookbridge:problem:too_many_connections\",\"title\":\"Too many connections\",\
    \"status\":503,\"detail\":\"Try again\"}";

/// One address may have at most so many times as many connections as are free: however many others
/// there are, some are always left, and one address alone may have seven of eight.
const SHARE_OF_FREE: usize = 7;

/// Listens on an address. The kernel holds as many connections back as it may: by the standard library's
/// word it would be 128, and whoever is in a larger burst tries again a second later.
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

/// How many connections each address may have open, and has; one that has none is not in it.
struct Addresses {
    max: usize,
    open: Mutex<HashMap<IpAddr, usize>>,
}

/// Lets connections in, up to the limits.
pub struct Acceptor {
    max: u32,
    /// Whether connections are plain HTTP, so that one over the limit can be told so.
    is_plain: bool,
    permits: Arc<Semaphore>,
    addresses: Arc<Addresses>,
    /// Their connections are those of many senders.
    proxies: Vec<IpNet>,
    metrics: ConnectionMetrics,
    last_complaint: Mutex<Option<Instant>>,
}

/// An accepted connection, and its place within the limits.
pub struct Socket {
    /// Not yet tied to a runtime: the thread that serves it is not the one that accepted it.
    pub stream: std::net::TcpStream,
    pub peer: SocketAddr,
    pub place: ConnectionPermit,
}

/// A connection's place within the limits, given back when dropped.
pub struct ConnectionPermit {
    permit: OwnedSemaphorePermit,
    address: Option<IpAddr>,
    addresses: Arc<Addresses>,
    metrics: ConnectionMetrics,
}

impl Acceptor {
    pub fn new(limits: &config::HttpSettings, metrics: ConnectionMetrics) -> Acceptor {
        let max = u32::try_from(limits.max_connections).unwrap_or(u32::MAX);
        Acceptor {
            max,
            is_plain: limits.tls.is_none(),
            permits: Arc::new(Semaphore::new(limits.max_connections)),
            addresses: Arc::new(Addresses {
                max: limits.max_connections_per_address,
                open: Mutex::default(),
            }),
            proxies: limits.trusted_proxies.clone(),
            metrics,
            last_complaint: Mutex::new(None),
        }
    }

    /// The next connection within the limits. Those beyond are told so and closed.
    pub async fn accept(&self, listener: &TcpListener) -> Socket {
        loop {
            match listener.accept().await {
                Ok((stream, peer)) => match self.place(peer.ip()) {
                    Some(place) => match stream.into_std() {
                        Ok(stream) => return Socket { stream, peer, place },
                        Err(error) => debug!(%error, "A connection could not be handed over."),
                    },
                    // A fresh socket's send buffer is empty: this is written whole or, if the
                    // sender is gone already, not at all.
                    None if self.is_plain => {
                        let _ = stream.try_write(OVER_LIMIT);
                    }
                    None => {}
                },
                Err(error) => self.recover(error).await,
            }
        }
    }

    /// The connections that the kernel has already accepted for a listener about to close.
    pub async fn accept_rest(&self, listener: &TcpListener) -> Vec<Socket> {
        let mut rest = Vec::new();
        // More than the kernel holds back at once have come after the close was due.
        while rest.len() < BACKLOG_MAX.into() {
            match timeout(Duration::ZERO, self.accept(listener)).await {
                Ok(socket) => rest.push(socket),
                Err(_nothing_there) => break,
            }
        }
        rest
    }

    /// Waits until every connection is closed.
    pub async fn all_closed(&self) {
        let _ = self.permits.acquire_many(self.max).await;
    }

    fn place(&self, address: IpAddr) -> Option<ConnectionPermit> {
        let Ok(permit) = self.permits.clone().try_acquire_owned() else {
            self.metrics.refused[ConnectionRefusal::Limit].inc();
            return None;
        };
        self.metrics.open.inc();
        let (addresses, metrics) = (self.addresses.clone(), self.metrics.clone());
        let mut place = ConnectionPermit { permit, address: None, addresses, metrics };
        (is_trusted(&self.proxies, address) || place.take_of(address)).then_some(place)
    }

    /// A connection that failed before it was ours is nothing; without descriptors or memory the
    /// listener rests, since they do not come back by asking at once.
    async fn recover(&self, error: io::Error) {
        use io::ErrorKind::{ConnectionAborted, ConnectionReset, Interrupted};
        if matches!(error.kind(), ConnectionAborted | ConnectionReset | Interrupted) {
            debug!(%error, "A connection was gone before it was accepted.");
            return;
        }
        self.metrics.refused[ConnectionRefusal::FileDescriptors].inc();
        if self.may_complain() {
            error!(
                %error,
                "No connection can be accepted; trying again. If descriptors ran out, raise the \
                 limit (ulimit -n) or lower http.max_connections."
            );
        }
        sleep(PAUSE).await;
    }

    /// At most once a second.
    fn may_complain(&self) -> bool {
        let mut last = self.last_complaint.lock().unwrap_or_else(PoisonError::into_inner);
        let due = last.is_none_or(|last| last.elapsed() >= Duration::from_secs(1));
        if due {
            *last = Some(Instant::now());
        }
        due
    }
}

impl ConnectionPermit {
    /// Takes one of those that this address may have, too; false if it has them all.
    pub(super) fn take_of(&mut self, address: IpAddr) -> bool {
        let address = client_network(address);
        let free = self.permit.semaphore().available_permits() + 1;
        let mut all = self.addresses.open.lock().unwrap_or_else(PoisonError::into_inner);
        let (max, open) = (self.addresses.max, all.get(&address).copied().unwrap_or_default());
        if max != 0 && open >= max {
            self.metrics.refused[ConnectionRefusal::AddressLimit].inc();
            return false;
        }
        if open >= SHARE_OF_FREE * free {
            self.metrics.refused[ConnectionRefusal::Limit].inc();
            return false;
        }
        all.insert(address, open + 1);
        self.address = Some(address);
        true
    }
}

impl Drop for ConnectionPermit {
    fn drop(&mut self) {
        self.metrics.open.dec();
        let Some(address) = &self.address else { return };
        let mut all = self.addresses.open.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(open) = all.get_mut(address) {
            *open -= 1;
            if *open == 0 {
                all.remove(address);
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
