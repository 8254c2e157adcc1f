//! `hookbridge health`: asks the local admin listener for readiness, for containers without curl.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;

use http_body_util::Full;
use hyper::Request;

use super::{CommandResult, Exit};
use crate::http;

const TIMEOUT: Duration = Duration::from_secs(2);

pub fn ask(admin: SocketAddr) -> CommandResult {
    let address = match admin.ip() {
        ip if ip.is_unspecified() => SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), admin.port()),
        _ => admin,
    };
    let request = Request::get(format!("http://{address}/readyz")).body(Full::default())?;
    let status = http::send_blocking(request, TIMEOUT)
        .map_err(|error| format!("{address} does not answer: {error}"))?;
    if !status.is_success() {
        return Err(format!("not ready: {address} answers {status}").into());
    }
    println!("ready");
    Ok(Exit::Clean)
}
