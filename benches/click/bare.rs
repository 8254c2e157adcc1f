//! The bare server: it reads the body and answers 200, on one thread.

use std::convert::Infallible;
use std::net::SocketAddr;

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use tokio::net::TcpListener;

/// The argument that makes this program the bare server; the address follows.
pub const ARGUMENT: &str = "bare-server";

/// Serves on the address in the arguments until it is killed.
pub fn serve() {
    let address = std::env::args().nth(2).expect("an address");
    serve_on(address.parse().expect("an address"));
}

/// Serves for ever.
pub fn serve_on(address: SocketAddr) {
    serve_with(address, answer);
}

/// Serves for ever, with this answer.
pub fn serve_with<A, F>(address: SocketAddr, answer: A)
where
    A: Fn(Request<Incoming>) -> F + Clone + Send + 'static,
    F: Future<Output = Result<Response<Full<Bytes>>, Infallible>> + Send + 'static,
{
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    runtime.expect("a runtime").block_on(async {
        let listener = TcpListener::bind(address).await.expect("the address");
        loop {
            let (stream, _) = listener.accept().await.expect("a connection");
            stream.set_nodelay(true).expect("a socket");
            let service = service_fn(answer.clone());
            tokio::spawn(http1::Builder::new().serve_connection(TokioIo::new(stream), service));
        }
    });
}

#[expect(clippy::disallowed_methods, reason = "it trusts the load")]
async fn answer(request: Request<Incoming>) -> Result<Response<Full<Bytes>>, Infallible> {
    // A sender that disconnects is not an error here.
    let _ = request.into_body().collect().await;
    Ok(received())
}

/// The answer to every request.
pub fn received() -> Response<Full<Bytes>> {
    Response::new(Full::new(Bytes::from_static(b"Webhook recibido correctamente")))
}
