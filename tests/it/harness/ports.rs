//! Free ports for servers that may stop and start again on the same port.

use std::net::{IpAddr, SocketAddr, TcpListener};
use std::sync::atomic::{AtomicU16, Ordering};

use hookbridge::config::Config;

/// Below the ephemeral ports: otherwise one of the tests' many outgoing connections could take the port
/// of a stopped server.
const FIRST: u16 = 10_000;
const COUNT: u16 = 22_000;

/// A free address, given out only once.
pub fn free(address: impl Into<IpAddr>) -> SocketAddr {
    static GIVEN: AtomicU16 = AtomicU16::new(0);
    let address = address.into();
    // A concurrent run of the tests begins at another port.
    let begin = std::process::id() % u32::from(COUNT);
    (0..COUNT)
        .map(|_| {
            let number = begin + u32::from(GIVEN.fetch_add(1, Ordering::Relaxed));
            SocketAddr::new(address, FIRST + (number % u32::from(COUNT)) as u16)
        })
        .find(|address| TcpListener::bind(address).is_ok())
        .expect("a free port")
}

/// Sets both listeners to free ports of this address.
pub fn listen_on_free(config: &mut Config, address: impl Into<IpAddr> + Copy) {
    (config.http.listen, config.admin.listen) = (free(address), free(address));
}
