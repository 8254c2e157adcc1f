//! `hookbridge health`: asks the local admin listener for readiness, for containers without curl.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;

use http_body_util::Full;
use hyper::Request;

use super::{Exit, fail};
use crate::http;

const TIMEOUT: Duration = Duration::from_secs(2);

pub fn ask(admin: SocketAddr) -> Exit {
    let address = match admin.ip() {
        ip if ip.is_unspecified() => SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), admin.port()),
        _ => admin,
    };
    let request = Request::get(format!("http://{address}/readyz")).body(Full::default());
    let answer =
        request.map_err(Into::into).and_then(|request| http::send_blocking(request, TIMEOUT));
    match answer {
        Ok(status) if status.is_success() => {
            println!("ready");
            Exit::Clean
        }
        Ok(status) => fail(format!("not ready: {address} answers {status}")),
        Err(error) => fail(format!("{address} does not answer: {error}")),
    }
}
