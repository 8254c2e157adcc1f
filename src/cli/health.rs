//! `hookbridge health`: asks the local admin listener for readiness, for containers without curl.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;

use http_body_util::Empty;
use hyper::Request;
use hyper::body::Bytes;
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;

use super::{Exit, fail};

const TIMEOUT: Duration = Duration::from_secs(2);

pub fn ask(admin: SocketAddr) -> Exit {
    let address = match admin.ip() {
        ip if ip.is_unspecified() => SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), admin.port()),
        _ => admin,
    };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let answer = runtime.map_err(Into::into).and_then(|runtime| {
        runtime.block_on(async { tokio::time::timeout(TIMEOUT, readiness(address)).await? })
    });
    match answer {
        Ok(status) if status.is_success() => {
            println!("ready");
            Exit::Clean
        }
        Ok(status) => fail(format!("not ready: {address} answers {status}")),
        Err(error) => fail(format!("{address} does not answer: {error}")),
    }
}

async fn readiness(
    address: SocketAddr,
) -> Result<hyper::StatusCode, Box<dyn std::error::Error + Send + Sync>> {
    let stream = TcpStream::connect(address).await?;
    let (mut sender, connection) =
        hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
    let request = Request::get("/readyz").header("host", "localhost").body(Empty::<Bytes>::new())?;
    tokio::select! {
        answer = sender.send_request(request) => Ok(answer?.status()),
        ended = connection => Err(ended.err().map_or("the connection was closed".into(), Into::into)),
    }
}
