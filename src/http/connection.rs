//! Serves one connection, HTTP/1.1 or HTTP/2 by its first bytes.
//!
//! hyper keeps two buffers of 8 KiB for each connection. A silent connection has none: an HTTP/1.1 connection
//! leaves hyper while it rests, and returns with its next byte.

use std::convert::Infallible;
use std::error::Error as _;
use std::fmt;
use std::future::poll_fn;
use std::io;
use std::net::SocketAddr;
use std::panic::AssertUnwindSafe;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use futures_util::FutureExt;
use hyper::body::{Body, Incoming};
use hyper::rt::{Executor, ReadBufCursor};
use hyper::server::conn::{http1, http2};
use hyper::service::service_fn;
use hyper::{Method, Request, Response, Version};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf};
use tokio::net::TcpStream;
use tokio::task::yield_now;
use tokio::time::timeout;
use tokio_rustls::server::TlsStream;
use tokio_util::either::Either;

use super::phase::{Activity, InFlightRequest, PhaseTimer, Served};
use super::{Drain, Socket, Tls, proxy};
use crate::click::auth::Caller;
use crate::click::outcome::Refusal;
use crate::config::HttpSettings;

/// hyper itself answers 431 with an empty body beyond `http.max_header_bytes` and this; below, the
/// answer is ours.
const HEAD_SPARE: usize = 16 << 10;

/// How HTTP/2 begins (RFC 9113, 3.4), and no HTTP/1.1 request.
const HTTP2_PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// Requests in flight on one connection of HTTP/2.
const STREAMS_MAX: u32 = 100;

/// How long a sender may be silent before a connection is closed whose last answer it may not have read.
pub(super) const LINGER: Duration = Duration::from_millis(500);

/// Answers the requests of a connection.
pub trait Handler: Clone + Send + Sync + 'static {
    /// The body of an answer.
    type Body: Body<Data = Bytes, Error = Infallible> + Default + Send + Unpin + 'static;

    fn handle(
        &self,
        peer: Peer,
        request: Request<Incoming>,
    ) -> impl Future<Output = Response<Self::Body>> + Send;

    /// The answer where `handle` panicked.
    fn panicked(&self) -> Response<Self::Body>;

    /// Called with each answer. One that goes on for long must keep the request in flight, or its
    /// connection would be closed as idle.
    fn answered(_answer: &mut Response<Self::Body>, _in_flight: InFlightRequest) {}

    /// Called for a connection that is closed before its request is complete.
    fn closed(&self, _address: SocketAddr, _why: Refusal) {}
}

/// The other end of a connection.
#[derive(Clone)]
pub struct Peer {
    pub address: SocketAddr,
    /// Whom its client certificate names, where certificates are required.
    pub caller: Option<Caller>,
}

impl fmt::Display for Peer {
    /// The address; the port only where it is known.
    fn fmt(&self, formatter: &mut fmt::Formatter) -> fmt::Result {
        match self.address.port() {
            0 => self.address.ip().fmt(formatter),
            _ => self.address.fmt(formatter),
        }
    }
}

/// What connections run over.
pub trait Transport: AsyncRead + AsyncWrite + Unpin + Send + Sized + 'static {
    /// Prepares it for the thread that serves it.
    ///
    /// # Errors
    ///
    /// What the system reports.
    fn prepare(self) -> io::Result<Self>;
}

impl Transport for TcpStream {
    fn prepare(self) -> io::Result<TcpStream> {
        // Without Nagle's algorithm: answers are small and must not wait for more.
        let _ = self.set_nodelay(true);
        self.into_std().and_then(TcpStream::from_std)
    }
}

/// Serves a connection until it closes.
pub async fn serve<S: Transport, H: Handler>(
    socket: Socket<S>,
    handler: &H,
    limits: &HttpSettings,
    drain: &Drain,
    tls: Option<&Tls>,
) {
    let Socket { stream, peer: mut address, mut permit } = socket;
    let Ok(mut stream) = stream.prepare() else {
        return handler.closed(address, Refusal::SenderGone);
    };
    let is_proxy = |address: SocketAddr| proxy::is_trusted(&limits.trusted_proxies, address.ip());
    if limits.proxy_protocol && is_proxy(address) {
        match Box::pin(proxy::read_header(&mut stream, limits, drain)).await {
            Ok(sender) => address = sender.unwrap_or(address),
            Err(Some(why)) => return handler.closed(address, why),
            Err(None) => return,
        }
        if !is_proxy(address) && !permit.count_address(address.ip()) {
            return;
        }
    }
    let (stream, caller) = match tls {
        None => (Either::Left(stream), None),
        // Boxed, so that connections without TLS have no room for it.
        Some(tls) => match Box::pin(tls.accept(stream, address, limits, drain)).await {
            Some((stream, caller)) => (Either::Right(stream), caller),
            None => return,
        },
    };
    let peer = Peer { address, caller };
    if let Err(why) = serve_requests(stream, peer, handler, limits, drain).await {
        handler.closed(address, why);
    }
}

async fn serve_requests<S: Transport, H: Handler>(
    mut stream: Stream<S>,
    peer: Peer,
    handler: &H,
    limits: &HttpSettings,
    drain: &Drain,
) -> Result<(), Refusal> {
    let activity = Arc::new(Activity::default());
    let requests = activity.clone();
    let service = service_fn(move |request: Request<Incoming>| {
        let is_http2 = request.version() == Version::HTTP_2;
        let is_bodiless = is_http2 && request.method() == Method::HEAD;
        // A request of HTTP/2 has a task of its own.
        let may_run = is_http2 || requests.takes_turn();
        let in_flight = InFlightRequest::new(requests.clone(), is_http2);
        let (handler, peer) = (handler.clone(), peer.clone());
        async move {
            if !may_run {
                yield_now().await;
            }
            // Pinned where it is made: moving the future would copy all of it. A panic ends its request
            // alone: what requests share is atomic, or behind a lock that ignores poisoning.
            let response =
                AssertUnwindSafe(pin!(handler.handle(peer, request))).catch_unwind().await;
            let mut response = response.unwrap_or_else(|_panic| handler.panicked());
            H::answered(&mut response, in_flight);
            if is_bodiless {
                // Over HTTP/1.1 hyper sees to it.
                response = response.map(|_body| H::Body::default());
            }
            Ok::<_, Infallible>(response)
        }
    });
    let mut timer = PhaseTimer::new(activity.clone(), limits, drain);
    let mut begun = Bytes::new();
    loop {
        if begun.is_empty() {
            begun = first_bytes(&mut stream, &mut timer).await?;
        }
        if begun.is_empty() {
            return Ok(());
        }
        let is_http2 = begun.starts_with(HTTP2_PREFACE);
        if is_http2 {
            let io = Io { stream: TokioIo::new(&mut stream), begun, activity };
            let mut connection = Box::pin(http2(limits).serve_connection(io, service));
            let served = drive(&mut connection, |c| c.graceful_shutdown(), &mut timer).await?;
            drop(connection);
            let Served::Finished(why) = served else { return Ok(()) };
            Box::pin(linger(stream, limits)).await;
            return why.map_or(Ok(()), Err);
        }
        let io = Io { stream: TokioIo::new(stream), begun, activity: activity.clone() };
        let mut connection = Box::pin(http1(limits).serve_connection(io, &service));
        match drive(&mut connection, |c| c.graceful_shutdown(), &mut timer).await? {
            Served::Closed => return Ok(()),
            Served::Finished(why) => {
                let stream = Pin::into_inner(connection).into_parts().io.stream.into_inner();
                Box::pin(linger(stream, limits)).await;
                return why.map_or(Ok(()), Err);
            }
            Served::Resting => {
                let parts = Pin::into_inner(connection).into_parts();
                // A copy, mostly of nothing: hyper's own would keep its whole buffer.
                begun = Bytes::copy_from_slice(&parts.read_buf);
                stream = parts.io.stream.into_inner();
            }
        }
    }
}

/// The first bytes of a connection, or the first after a rest: as few as tell the version. Empty where the
/// connection ends.
async fn first_bytes<S: Transport>(
    stream: &mut Stream<S>,
    timer: &mut PhaseTimer<'_>,
) -> Result<Bytes, Refusal> {
    let mut bytes = [0; HTTP2_PREFACE.len()];
    let mut buffer = ReadBuf::new(&mut bytes);
    poll_fn(|context| {
        while HTTP2_PREFACE.starts_with(buffer.filled()) && buffer.remaining() > 0 {
            let before = buffer.filled().len();
            match Pin::new(&mut *stream).poll_read(context, &mut buffer) {
                Poll::Ready(Ok(())) if buffer.filled().len() > before => timer.activity.has_read(),
                Poll::Ready(_ended) => return Poll::Ready(Ok(Bytes::new())),
                Poll::Pending if timer.should_drain(context) => {
                    return Poll::Ready(Ok(Bytes::new()));
                }
                Poll::Pending => return timer.poll(context, true).map_ok(|_| Bytes::new()),
            }
        }
        Poll::Ready(Ok(Bytes::copy_from_slice(buffer.filled())))
    })
    .await
}

/// Has hyper serve the connection, as long as the timer allows.
async fn drive<C: Future<Output = hyper::Result<()>>>(
    connection: &mut Pin<Box<C>>,
    shut_down: impl Fn(Pin<&mut C>),
    timer: &mut PhaseTimer<'_>,
) -> Result<Served, Refusal> {
    poll_fn(|context| {
        timer.activity.begin_turn();
        loop {
            if let Poll::Ready(result) = connection.as_mut().poll(context) {
                let why = result.err().and_then(|error| refusal(&error));
                return Poll::Ready(Ok(Served::Finished(why)));
            }
            if !timer.should_drain(context) {
                return timer.poll(context, false);
            }
            shut_down(connection.as_mut());
        }
    })
    .await
}

/// Reads what the sender still sends, and drops it. Closing a socket with unread bytes would reset the
/// connection, and the sender would lose an answer that it has not read yet.
async fn linger<S: Transport>(mut stream: Stream<S>, limits: &HttpSettings) {
    let mut dropped = [0; 4 << 10];
    let read = async {
        let _ = stream.shutdown().await;
        while let Ok(Ok(1..)) = timeout(LINGER, stream.read(&mut dropped)).await {}
    };
    let _ = timeout(limits.answer_timeout(), read).await;
}

/// Runs the requests of HTTP/2. The limit covers the answer, too, which waits until the sender reads.
#[derive(Clone)]
struct StreamExecutor {
    timeout: Duration,
}

impl<F: Future<Output: Send> + Send + 'static> Executor<F> for StreamExecutor {
    fn execute(&self, stream: F) {
        tokio::spawn(timeout(self.timeout, stream));
    }
}

fn http1(limits: &HttpSettings) -> http1::Builder {
    let mut builder = http1::Builder::new();
    builder
        .header_read_timeout(None)
        // A sender that has closed its sending side still gets its answer, and hyper saves a read for
        // each request.
        .half_close(true)
        // An answer is so short that copying it takes less than a write of two pieces.
        .writev(false)
        // Beyond 100 headers hyper itself answers 431; `http.max_headers` may not be more.
        .max_buf_size(limits.max_header_bytes + HEAD_SPARE);
    builder
}

fn http2(limits: &HttpSettings) -> http2::Builder<StreamExecutor> {
    let timeout = limits.body_timeout() + 2 * limits.answer_timeout();
    let mut builder = http2::Builder::new(StreamExecutor { timeout });
    let header_list = u32::try_from(limits.max_header_bytes + HEAD_SPARE).unwrap_or(u32::MAX);
    builder
        .max_header_list_size(header_list)
        .max_concurrent_streams(STREAMS_MAX)
        // Bytes that an unauthenticated client can make us hold.
        .initial_stream_window_size(64 << 10)
        .initial_connection_window_size(256 << 10);
    builder
}

/// What hyper's error means; none for a connection that merely ended.
fn refusal(error: &hyper::Error) -> Option<Refusal> {
    let cause = error.source().and_then(|cause| cause.downcast_ref::<h2::Error>());
    // The sender broke the rules of HTTP/2, and h2 ended the connection.
    let is_http2_broken = cause.is_some_and(h2::Error::is_library);
    if error.is_parse_too_large() {
        Some(Refusal::HeadTooLarge)
    } else if error.is_parse() || error.is_incomplete_message() || is_http2_broken {
        Some(Refusal::NotHttp)
    } else {
        None
    }
}

/// Plain, or within TLS.
type Stream<S> = Either<S, Box<TlsStream<S>>>;

/// The socket below hyper; notes what it reads and writes.
struct Io<T> {
    stream: TokioIo<T>,
    /// Bytes that were read from it before.
    begun: Bytes,
    activity: Arc<Activity>,
}

impl<T: AsyncRead + Unpin> hyper::rt::Read for Io<T> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context,
        mut buffer: ReadBufCursor,
    ) -> Poll<io::Result<()>> {
        if !self.begun.is_empty() {
            let count = self.begun.len().min(buffer.remaining());
            buffer.put_slice(&self.begun.split_to(count));
            // A head that has begun has no more time than any other.
            self.activity.has_read();
            return Poll::Ready(Ok(()));
        }
        if self.activity.reads_are_used_up() {
            // The first poll of `yield_now` has this task polled again after the others.
            return pin!(yield_now()).poll(context).map(Ok);
        }
        let read = Pin::new(&mut self.stream).poll_read(context, buffer);
        match read {
            Poll::Ready(_) => self.activity.has_read_from_socket(),
            // hyper reads the next request when it has written the last answer.
            Poll::Pending => self.activity.waits_for_bytes(),
        }
        read
    }
}

impl<T: AsyncWrite + Unpin> hyper::rt::Write for Io<T> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write(context, bytes);
        self.activity.has_written(written.is_ready());
        written
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context) -> Poll<io::Result<()>> {
        // What TLS has taken to write may still be waiting for the sender to read.
        let flushed = Pin::new(&mut self.stream).poll_flush(context);
        self.activity.has_flushed(flushed.is_ready());
        flushed
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}

#[cfg(test)]
mod tests {
    use http_body_util::Full;
    use hyper::StatusCode;
    use prometheus::Registry;
    use tokio::net::TcpListener;

    use super::super::Acceptor;
    use super::*;
    use crate::observe::metrics::ConnectionMetrics;

    /// Panics at one path, after it has waited.
    #[derive(Clone)]
    struct PanicsOnce;

    impl Handler for PanicsOnce {
        type Body = Full<Bytes>;

        async fn handle(&self, _peer: Peer, request: Request<Incoming>) -> Response<Full<Bytes>> {
            tokio::task::yield_now().await;
            assert_ne!(request.uri().path(), "/stumble", "as it should");
            Response::new(Full::new(Bytes::from_static(b"upright")))
        }

        fn panicked(&self) -> Response<Full<Bytes>> {
            let mut response = Response::new(Full::new(Bytes::from_static(b"fallen")));
            *response.status_mut() = StatusCode::INTERNAL_SERVER_ERROR;
            response
        }

        fn closed(&self, _address: SocketAddr, why: Refusal) {
            panic!("closed: {why:?}");
        }
    }

    #[tokio::test]
    async fn a_panic_ends_its_request_alone() {
        let limits = HttpSettings::default();
        let metrics = ConnectionMetrics::new(&Registry::new()).expect("metrics");
        let acceptor = Acceptor::new(&limits, metrics);
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("an address");
        let ask = async {
            let mut stream = TcpStream::connect(address).await.expect("a connection");
            let lines = "host: t\r\nconnection: ";
            let stumble = format!("GET /stumble HTTP/1.1\r\n{lines}keep-alive\r\n\r\n");
            let walk = format!("GET / HTTP/1.1\r\n{lines}close\r\n\r\n");
            stream.write_all((stumble + &walk).as_bytes()).await.expect("written");
            let mut answers = String::new();
            stream.read_to_string(&mut answers).await.expect("answers");
            answers
        };
        let answer = async {
            let socket = acceptor.accept(&listener).await;
            serve(socket, &PanicsOnce, &limits, &Drain::default(), None).await;
        };
        let (answers, ()) = tokio::join!(ask, answer);
        let [_, fallen, upright] = answers.split("HTTP/1.1 ").collect::<Vec<_>>()[..] else {
            panic!("two answers: {answers}");
        };
        assert!(fallen.starts_with("500") && fallen.ends_with("fallen"), "{fallen}");
        assert!(upright.starts_with("200") && upright.ends_with("upright"), "{upright}");
    }
}
