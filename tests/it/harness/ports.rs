//! Ports for servers that are told where to listen, and that may go and come back there.

use std::net::{IpAddr, SocketAddr, TcpListener};
use std::sync::atomic::{AtomicU16, Ordering};

use hookbridge::config::Config;

/// Below those that the system gives to outgoing connections, of which the tests make many thousands: any
/// of these could otherwise take the port of a server that is not there at the moment.
const FIRST: u16 = 10_000;
const COUNT: u16 = 22_000;

/// An address that nobody listens on, and that nobody else here is given.
pub fn free(address: impl Into<IpAddr>) -> SocketAddr {
    static GIVEN: AtomicU16 = AtomicU16::new(0);
    let address = address.into();
    // Another run of the tests at the same time begins elsewhere.
    let begin = std::process::id() % u32::from(COUNT);
    (0..COUNT)
        .map(|_| {
            let number = begin + u32::from(GIVEN.fetch_add(1, Ordering::Relaxed));
            SocketAddr::new(address, FIRST + (number % u32::from(COUNT)) as u16)
        })
        .find(|address| TcpListener::bind(address).is_ok())
        .expect("a free port")
}

/// Has a bridge listen on free ports of this address.
pub fn listen_on_free(config: &mut Config, address: impl Into<IpAddr> + Copy) {
    (config.http.listen, config.admin.listen) = (free(address), free(address));
}
