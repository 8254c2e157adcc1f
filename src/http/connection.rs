//! One connection, HTTP/1.1 or HTTP/2 by its first bytes, and its timers.
//!
//! hyper keeps two buffers of 8 KiB for each connection. One that is silent has none: an HTTP/1.1
//! connection gives hyper up while it rests, and takes it again with its next byte.
//!
//! hyper's own header timer runs between requests too and takes an allocation and a timer for each,
//! so the timers here are ours: one for each connection, set for the phase that the connection is
//! in, and moved only when it fires too early. A request in hand has deadlines of its own (the body
//! read, the answer), so the timer rests then.

use std::convert::Infallible;
use std::error::Error as _;
use std::fmt;
use std::future::poll_fn;
use std::io;
use std::net::SocketAddr;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use hyper::body::{Body, Incoming};
use hyper::rt::{Executor, ReadBufCursor};
use hyper::server::conn::{http1, http2};
use hyper::service::service_fn;
use hyper::{Request, Response, Version};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncRead, ReadBuf};
use tokio::net::TcpStream;
use tokio::sync::futures::Notified;
use tokio::task::yield_now;
use tokio::time::{Instant, Sleep, sleep_until, timeout};
use tokio_rustls::server::TlsStream;
use tokio_util::either::Either;

use super::{Drain, FIRST_WORD_TIMEOUT, Socket, Tls, proxy};
use crate::click::auth::Caller;
use crate::click::outcome::Refusal;
use crate::config;

/// Beyond this many bytes of head hyper itself answers 431, with an empty body: it must be more than
/// `http.max_header_bytes`, so that the answer in our own form comes first.
const HEAD_SPARE: usize = 16 << 10;

/// hyper answers 431 by itself beyond this many headers; `http.max_headers` may not be more.
const HEADERS_MAX: usize = 100;

/// How HTTP/2 begins (RFC 9113, 3.4), and no HTTP/1.1 request.
const HTTP2_BEGINS: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// How long a connection that has had more than one request is silent before it rests.
const REST_AFTER: Duration = Duration::from_secs(1);

/// How often a connection may read before others have their turn.
const READS_MAX: u32 = 2;

/// Requests that a connection of HTTP/2 may have at once.
const STREAMS_MAX: u32 = 100;

/// Takes the requests of a connection.
pub trait Handler: Clone + Send + Sync + 'static {
    /// Of the answers.
    type Body: Body<Data = Bytes, Error = Infallible> + Send + Unpin + 'static;

    fn handle(
        &self,
        peer: Peer,
        request: Request<Incoming>,
    ) -> impl Future<Output = Response<Self::Body>> + Send;

    /// The answer where `handle` panicked.
    fn panicked(&self) -> Response<Self::Body>;

    /// The request is answered. An answer that goes on for long keeps it in hand, or its connection
    /// would be closed as an idle one.
    fn answered(_answer: &mut Response<Self::Body>, _in_hand: InFlightRequest) {}
}

/// Who is at the other end of a connection.
#[derive(Clone)]
pub struct Peer {
    pub address: SocketAddr,
    /// Who its certificate says it is, where certificates are asked for.
    pub caller: Option<Caller>,
}

impl fmt::Display for Peer {
    /// Its address, without a port that nobody knows.
    fn fmt(&self, formatter: &mut fmt::Formatter) -> fmt::Result {
        match self.address.port() {
            0 => self.address.ip().fmt(formatter),
            _ => self.address.fmt(formatter),
        }
    }
}

/// A connection that was closed without a request's end.
#[derive(Debug)]
pub struct Closed {
    pub address: SocketAddr,
    pub why: Refusal,
}

/// Serves a connection until it closes.
///
/// # Errors
///
/// Why it was closed, where that was no request's end.
pub async fn serve<H: Handler>(
    socket: Socket,
    handler: H,
    limits: &config::HttpSettings,
    drain: &Drain,
    tls: Option<&Tls>,
) -> Result<(), Closed> {
    let Socket { stream, peer: mut address, mut place } = socket;
    // Answers are small and must not wait for more.
    let _ = stream.set_nodelay(true);
    let Ok(mut stream) = TcpStream::from_std(stream) else {
        return Err(Closed { address, why: Refusal::SenderGone });
    };
    let is_proxy = |address: SocketAddr| proxy::is_trusted(&limits.trusted_proxies, address.ip());
    if limits.proxy_protocol && is_proxy(address) {
        match Box::pin(proxy::introduced(&mut stream, limits, drain)).await {
            Ok(sender) => address = sender.unwrap_or(address),
            Err(why) => return why.map_or(Ok(()), |why| Err(Closed { address, why })),
        }
        if !is_proxy(address) && !place.take_of(address.ip()) {
            return Ok(());
        }
    }
    let (stream, caller) = match tls {
        None => (Either::Left(stream), None),
        // Boxed, so that connections without TLS have no room for it.
        Some(tls) => match Box::pin(tls.accept(stream, limits, drain)).await {
            Some((stream, caller)) => (Either::Right(stream), caller),
            None => return Ok(()),
        },
    };
    let peer = Peer { address, caller };
    let served = serve_requests(stream, peer, handler, limits, drain).await;
    served.map_err(|why| Closed { address, why })
}

/// The same from its first request on.
async fn serve_requests<H: Handler>(
    stream: Stream,
    peer: Peer,
    handler: H,
    limits: &config::HttpSettings,
    drain: &Drain,
) -> Result<(), Refusal> {
    let activity = Arc::new(Activity::default());
    let requests = activity.clone();
    let service = service_fn(move |request: Request<Incoming>| {
        let is_http2 = request.version() == Version::HTTP_2;
        // Over HTTP/2 each has a task of its own.
        let is_in_turn = is_http2 || !requests.had_its_request.swap(true, Ordering::Relaxed);
        let in_flight = InFlightRequest::new(requests.clone(), is_http2);
        let (handler, peer) = (handler.clone(), peer.clone());
        async move {
            if !is_in_turn {
                yield_now().await;
            }
            // Pinned here, where it is made: every move of it would copy all that it may ever hold.
            let response = unless_it_panics(pin!(handler.handle(peer, request))).await;
            let mut response = response.unwrap_or_else(|| handler.panicked());
            H::answered(&mut response, in_flight);
            Ok::<_, Infallible>(response)
        }
    });
    let mut watch = Watch::new(activity.clone(), limits, drain);
    let (mut stream, mut begun) = (stream, Bytes::new());
    loop {
        if begun.is_empty() {
            begun = first_bytes(&mut stream, &mut watch).await?;
        }
        if begun.is_empty() {
            return Ok(());
        }
        let is_http2 = begun.starts_with(HTTP2_BEGINS);
        let io = Io { stream: TokioIo::new(stream), begun, activity: activity.clone() };
        if is_http2 {
            let mut connection = Box::pin(http2(limits).serve_connection(io, service));
            return converse(&mut connection, |c| c.graceful_shutdown(), &mut watch)
                .await
                .map(drop);
        }
        let mut connection = Box::pin(http1(limits).serve_connection(io, &service));
        match converse(&mut connection, |c| c.graceful_shutdown(), &mut watch).await? {
            End::Closed => return Ok(()),
            End::Resting => {
                let parts = Pin::into_inner(connection).into_parts();
                // A copy of what is most often nothing: hyper's own has its whole buffer behind it.
                begun = Bytes::copy_from_slice(&parts.read_buf);
                stream = parts.io.stream.into_inner();
            }
        }
    }
}

/// How hyper's part of a connection ended.
enum End {
    Closed,
    /// Nothing is under way, and the connection stays.
    Resting,
}

/// Waits for the first bytes of a connection, or the first after a rest: as few as tell its version.
/// Nothing where it ends.
async fn first_bytes(stream: &mut Stream, watch: &mut Watch<'_>) -> Result<Bytes, Refusal> {
    let mut bytes = [0; HTTP2_BEGINS.len()];
    let mut buffer = ReadBuf::new(&mut bytes);
    poll_fn(|context| {
        while HTTP2_BEGINS.starts_with(buffer.filled()) && buffer.remaining() > 0 {
            let before = buffer.filled().len();
            match Pin::new(&mut *stream).poll_read(context, &mut buffer) {
                Poll::Ready(Ok(())) if buffer.filled().len() > before => {
                    watch.activity.unclaimed.store(true, Ordering::Relaxed);
                }
                Poll::Ready(_ended) => return Poll::Ready(Ok(Bytes::new())),
                Poll::Pending if watch.should_drain(context) => {
                    return Poll::Ready(Ok(Bytes::new()));
                }
                Poll::Pending => return watch.poll(context, true).map_ok(|_| Bytes::new()),
            }
        }
        Poll::Ready(Ok(Bytes::copy_from_slice(buffer.filled())))
    })
    .await
}

/// Has hyper serve the connection, as long as the watch allows.
async fn converse<C: Future<Output = hyper::Result<()>>>(
    connection: &mut Pin<Box<C>>,
    shut: impl Fn(Pin<&mut C>),
    watch: &mut Watch<'_>,
) -> Result<End, Refusal> {
    poll_fn(|context| {
        watch.activity.begin_turn();
        loop {
            if let Poll::Ready(result) = connection.as_mut().poll(context) {
                let refusal = result.err().and_then(|error| closed_by(&error));
                return Poll::Ready(refusal.map_or(Ok(End::Closed), Err));
            }
            if !watch.should_drain(context) {
                return watch.poll(context, false);
            }
            shut(connection.as_mut());
        }
    })
    .await
}

/// What comes of a request; none if it panics, which is then over for this request alone: what requests
/// share is atomic, or behind a lock that does not mind.
async fn unless_it_panics<T>(mut request: Pin<&mut impl Future<Output = T>>) -> Option<T> {
    let poll = |context: &mut Context| {
        let polled = catch_unwind(AssertUnwindSafe(|| request.as_mut().poll(context)));
        polled.map_or(Poll::Ready(None), |poll| poll.map(Some))
    };
    poll_fn(poll).await
}

/// Runs the requests of HTTP/2. Each has deadlines of its own, but for its answer, which waits for as
/// long as the sender makes no room for it; so all of it has one, too.
#[derive(Clone)]
struct Streams {
    timeout: Duration,
}

impl<F> Executor<F> for Streams
where
    F: Future<Output: Send> + Send + 'static,
{
    fn execute(&self, stream: F) {
        tokio::spawn(timeout(self.timeout, stream));
    }
}

fn http1(limits: &config::HttpSettings) -> http1::Builder {
    let mut builder = http1::Builder::new();
    builder
        .timer(TokioTimer::new())
        .header_read_timeout(None)
        // A sender that has said all it wants to say still gets its answer, and hyper saves a read
        // for each request that would look whether it is still there.
        .half_close(true)
        // One piece: an answer is so short that copying it takes less than a write of two.
        .writev(false)
        .max_headers(HEADERS_MAX)
        .max_buf_size(limits.max_header_bytes + HEAD_SPARE);
    builder
}

fn http2(limits: &config::HttpSettings) -> http2::Builder<Streams> {
    let answered = limits.body_timeout() + limits.answer_timeout();
    let mut builder = http2::Builder::new(Streams { timeout: answered + limits.answer_timeout() });
    let header_list = u32::try_from(limits.max_header_bytes + HEAD_SPARE).unwrap_or(u32::MAX);
    builder
        .timer(TokioTimer::new())
        .max_header_list_size(header_list)
        .max_concurrent_streams(STREAMS_MAX)
        // What a stranger can make us hold before its key is looked at.
        .initial_stream_window_size(64 << 10)
        .initial_connection_window_size(256 << 10);
    builder
}

/// What hyper's error means; none for a connection that merely ended.
fn closed_by(error: &hyper::Error) -> Option<Refusal> {
    if error.is_parse_too_large() {
        Some(Refusal::HeadTooLarge)
    } else if error.is_parse() || error.is_incomplete_message() || is_http2_broken(error) {
        Some(Refusal::NotHttp)
    } else {
        None
    }
}

/// Whether the sender broke the rules of HTTP/2, and we ended the connection for it.
fn is_http2_broken(error: &hyper::Error) -> bool {
    let cause = error.source().and_then(|cause| cause.downcast_ref::<h2::Error>());
    cause.is_some_and(h2::Error::is_library)
}

/// What the connection does, as its two ends see it: the socket below hyper, the requests above.
#[derive(Default)]
struct Activity {
    /// Requests in hand.
    requests: AtomicU32,
    /// Whether bytes have come that belong to no request yet.
    unclaimed: AtomicBool,
    /// Whether the sender does not read what we write.
    stalled: AtomicBool,
    /// Pieces written, to tell a slow reader from one that stopped.
    written: AtomicU32,
    /// Whether everything that was to be written is, and everything that has come is read.
    is_even: AtomicBool,
    /// Whether there has been a request.
    used: AtomicBool,
    /// Over HTTP/2 bytes that belong to no request are housekeeping.
    is_http2: AtomicBool,
    /// Whether there has been a request in this turn of the connection's task. A sender that sends
    /// without end, and perhaps without reading, is always ready: each turn is for little, so that
    /// the other connections of the thread wait for little.
    had_its_request: AtomicBool,
    /// How often it has read in this turn.
    reads: AtomicU32,
}

/// What a connection is waiting for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    /// A request's head: its first one, or one that has begun.
    Head,
    /// The next request.
    Idle,
    /// Us.
    Busy,
    /// The sender to read; changes with every piece that it takes.
    Stalled(u32),
}

impl Activity {
    fn begin_turn(&self) {
        self.had_its_request.store(false, Ordering::Relaxed);
        self.reads.store(0, Ordering::Relaxed);
    }

    fn has_begun_a_head(&self) -> bool {
        self.unclaimed.load(Ordering::Relaxed) && !self.is_http2.load(Ordering::Relaxed)
    }

    /// Whether hyper can be given up until the next byte comes.
    fn may_rest(&self) -> bool {
        self.is_even.load(Ordering::Relaxed) && !self.is_http2.load(Ordering::Relaxed)
    }

    fn phase(&self) -> Phase {
        if self.stalled.load(Ordering::Relaxed) {
            Phase::Stalled(self.written.load(Ordering::Relaxed))
        } else if self.requests.load(Ordering::Relaxed) > 0 {
            Phase::Busy
        } else if !self.used.load(Ordering::Relaxed) || self.has_begun_a_head() {
            Phase::Head
        } else {
            Phase::Idle
        }
    }
}

/// Closes a connection that stays in a phase for too long, and tells it when to drain.
struct Watch<'l> {
    activity: Arc<Activity>,
    limits: &'l config::HttpSettings,
    phase: Phase,
    since: Instant,
    has_rested: bool,
    /// Never later than the deadline of the phase, unless the phase has none.
    timer: Pin<Box<Sleep>>,
    drain: &'l Drain,
    drain_wake: Pin<Box<Notified<'l>>>,
    drain_seen: DrainSeen,
}

#[derive(PartialEq)]
enum DrainSeen {
    NotWatching,
    Watching,
    Told,
}

impl<'l> Watch<'l> {
    fn new(
        activity: Arc<Activity>,
        limits: &'l config::HttpSettings,
        drain: &'l Drain,
    ) -> Watch<'l> {
        let since = Instant::now();
        Watch {
            phase: activity.phase(),
            activity,
            limits,
            since,
            has_rested: false,
            timer: Box::pin(sleep_until(since + limits.header_timeout())),
            drain,
            drain_wake: Box::pin(drain.0.wake.notified()),
            drain_seen: DrainSeen::NotWatching,
        }
    }

    /// True once, when draining begins.
    fn should_drain(&mut self, context: &mut Context) -> bool {
        if self.drain_seen == DrainSeen::NotWatching {
            // The task's waker stays the same, so one registration lasts.
            let _ = self.drain_wake.as_mut().poll(context);
            self.drain_seen = DrainSeen::Watching;
        }
        // A connection that has only just been accepted may have a click in its buffers.
        let is_used = self.activity.used.load(Ordering::Relaxed);
        if self.drain_seen == DrainSeen::Watching && is_used && self.drain.has_begun() {
            self.drain_seen = DrainSeen::Told;
            return true;
        }
        false
    }

    /// Ready when the connection has stayed in its phase for long enough to rest, or for too long, with
    /// the refusal that this is, if it is one.
    fn poll(&mut self, context: &mut Context, rests: bool) -> Poll<Result<End, Refusal>> {
        let phase = self.activity.phase();
        if phase != self.phase {
            self.phase = phase;
            if phase != Phase::Busy {
                self.since = Instant::now();
            }
        }
        let may_rest = !rests && self.activity.may_rest();
        let (allowed, end) = match phase {
            Phase::Busy => return Poll::Pending,
            Phase::Head if self.drain.has_begun() => (FIRST_WORD_TIMEOUT, Ok(End::Closed)),
            Phase::Head => (self.limits.header_timeout(), Err(Refusal::SlowHead)),
            // Many connections bring one click.
            Phase::Idle if may_rest && !self.has_rested => (Duration::ZERO, Ok(End::Resting)),
            Phase::Idle if may_rest => (REST_AFTER, Ok(End::Resting)),
            Phase::Idle => (self.limits.idle_timeout(), Ok(End::Closed)),
            Phase::Stalled(_) => (self.limits.answer_timeout(), Err(Refusal::SenderGone)),
        };
        if !allowed.is_zero() {
            ready!(self.poll_deadline(context, allowed));
        }
        self.has_rested |= matches!(end, Ok(End::Resting));
        Poll::Ready(end)
    }

    fn poll_deadline(&mut self, context: &mut Context, allowed: Duration) -> Poll<()> {
        let deadline = self.since + allowed;
        if self.timer.deadline() > deadline {
            self.timer.as_mut().reset(deadline);
        }
        loop {
            ready!(self.timer.as_mut().poll(context));
            if Instant::now() >= deadline {
                return Poll::Ready(());
            }
            self.timer.as_mut().reset(deadline);
        }
    }
}

/// A request in hand.
pub struct InFlightRequest(Arc<Activity>);

impl InFlightRequest {
    fn new(activity: Arc<Activity>, is_http2: bool) -> InFlightRequest {
        activity.requests.fetch_add(1, Ordering::Relaxed);
        activity.unclaimed.store(false, Ordering::Relaxed);
        activity.used.store(true, Ordering::Relaxed);
        activity.is_http2.store(is_http2, Ordering::Relaxed);
        InFlightRequest(activity)
    }
}

impl Drop for InFlightRequest {
    fn drop(&mut self) {
        // What came meanwhile was its body. Should the next head have begun with it, that head has
        // the time of an idle connection, which is a limit too.
        self.0.unclaimed.store(false, Ordering::Relaxed);
        self.0.requests.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Plain, or within TLS.
type Stream = Either<TcpStream, Box<TlsStream<TcpStream>>>;

/// The socket, with an eye on what passes.
struct Io {
    stream: TokioIo<Stream>,
    /// What was read of it already.
    begun: Bytes,
    activity: Arc<Activity>,
}

impl Io {
    fn note(&self, written: Poll<io::Result<usize>>) -> Poll<io::Result<usize>> {
        self.activity.is_even.store(false, Ordering::Relaxed);
        match &written {
            Poll::Pending => self.activity.stalled.store(true, Ordering::Relaxed),
            Poll::Ready(_) => {
                self.activity.stalled.store(false, Ordering::Relaxed);
                self.activity.written.fetch_add(1, Ordering::Relaxed);
            }
        }
        written
    }
}

impl hyper::rt::Read for Io {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context,
        mut buffer: ReadBufCursor,
    ) -> Poll<io::Result<()>> {
        if !self.begun.is_empty() {
            let count = self.begun.len().min(buffer.remaining());
            buffer.put_slice(&self.begun.split_to(count));
            // A head that has begun, and has no longer to come than any other.
            self.activity.unclaimed.store(true, Ordering::Relaxed);
            self.activity.is_even.store(false, Ordering::Relaxed);
            return Poll::Ready(Ok(()));
        }
        if self.activity.reads.load(Ordering::Relaxed) >= READS_MAX {
            // Its first poll has this task polled again when the others have been.
            return pin!(yield_now()).poll(context).map(Ok);
        }
        let read = Pin::new(&mut self.stream).poll_read(context, buffer);
        if read.is_ready() {
            self.activity.reads.fetch_add(1, Ordering::Relaxed);
            self.activity.unclaimed.store(true, Ordering::Relaxed);
        }
        // hyper reads the next request when it has written the last answer.
        self.activity.is_even.store(read.is_pending(), Ordering::Relaxed);
        read
    }
}

impl hyper::rt::Write for Io {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write(context, bytes);
        self.note(written)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context,
        slices: &[io::IoSlice],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write_vectored(context, slices);
        self.note(written)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context) -> Poll<io::Result<()>> {
        // What TLS has taken to write may still be waiting for the sender to read.
        let flushed = Pin::new(&mut self.stream).poll_flush(context);
        self.activity.stalled.store(flushed.is_pending(), Ordering::Relaxed);
        flushed
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use http_body_util::Full;
    use hyper::StatusCode;
    use prometheus::Registry;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;

    use super::super::Acceptor;
    use super::*;
    use crate::observe::metrics::ConnectionMetrics;

    /// Panics at one path, after it has waited.
    #[derive(Clone)]
    struct Clumsy;

    impl Handler for Clumsy {
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
    }

    #[tokio::test]
    async fn a_panic_ends_its_request_alone() {
        let limits = config::HttpSettings::default();
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
            serve(socket, Clumsy, &limits, &Drain::default(), None).await
        };
        let (answers, served) = tokio::join!(ask, answer);
        assert!(served.is_ok());
        let [_, fallen, upright] = answers.split("HTTP/1.1 ").collect::<Vec<_>>()[..] else {
            panic!("two answers: {answers}");
        };
        assert!(fallen.starts_with("500") && fallen.ends_with("fallen"), "{fallen}");
        assert!(upright.starts_with("200") && upright.ends_with("upright"), "{upright}");
    }
}
