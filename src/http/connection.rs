//! One connection, HTTP/1.1 or HTTP/2 by its first bytes, and its timers.
//!
//! hyper's own header timer runs between requests too and takes an allocation and a timer for each,
//! so the timers here are ours: one for each connection, set for the phase that the connection is
//! in, and moved only when it fires too early. A request in hand has deadlines of its own (the body
//! read, the answer), so the timer rests then.

use std::convert::Infallible;
use std::error::Error;
use std::io;
use std::net::SocketAddr;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use hyper::body::Incoming;
use hyper::rt::{Executor, ReadBufCursor};
use hyper::service::service_fn;
use hyper::{Request, Version};
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::conn::auto::Builder;
use tokio::net::TcpStream;
use tokio::sync::futures::Notified;
use tokio::task::yield_now;
use tokio::time::{Instant, Sleep, sleep_until, timeout};
use tokio_rustls::server::TlsStream;
use tokio_util::either::Either;

use super::{Drain, Response, Socket, Tls};
use crate::auth::Caller;
use crate::config;
use crate::outcome::Refusal;

/// Beyond this many bytes of head hyper itself answers 431, with an empty body: it must be more than
/// `http.max_header_bytes`, so that the answer in our own form comes first.
const HEAD_SPARE: usize = 16 << 10;

/// hyper answers 431 by itself beyond this many headers; `http.max_headers` may not be more.
const HEADERS_MAX: usize = 100;

/// How often a connection may read before others have their turn.
const READS_MAX: u32 = 2;

/// Requests that a connection of HTTP/2 may have at once.
const STREAMS_MAX: u32 = 100;

/// While draining, how long a connection may take to begin its first request, from its acceptance.
pub(super) const FIRST_WORD_TIMEOUT: Duration = Duration::from_millis(500);

/// Takes the requests of a connection.
pub trait Handler: Clone + Send + Sync + 'static {
    fn handle(
        &self,
        peer: Peer,
        request: Request<Incoming>,
    ) -> impl Future<Output = Response> + Send;

    /// The answer where `handle` panicked.
    fn panicked(&self) -> Response;
}

/// Who is at the other end of a connection.
#[derive(Clone)]
pub struct Peer {
    pub address: SocketAddr,
    /// Who its certificate says it is, where certificates are asked for.
    pub caller: Option<Caller>,
}

/// Serves a connection until it closes.
///
/// # Errors
///
/// Why it was closed, where that was no request's end.
pub async fn serve<H: Handler>(
    socket: Socket,
    handler: H,
    limits: &config::Http,
    drain: &Drain,
    tls: Option<&Tls>,
) -> Result<(), Refusal> {
    let Socket { stream, peer: address, place: _place } = socket;
    // Answers are small and must not wait for more.
    let _ = stream.set_nodelay(true);
    let Ok(stream) = TcpStream::from_std(stream) else { return Err(Refusal::SenderGone) };
    let (stream, caller) = match tls {
        None => (Either::Left(stream), None),
        // Boxed, so that connections without TLS have no room for it.
        Some(tls) => match Box::pin(tls.accept(stream, limits, drain)).await {
            Some((stream, caller)) => (Either::Right(stream), caller),
            None => return Ok(()),
        },
    };
    let peer = Peer { address, caller };
    let activity = Arc::new(Activity::default());
    let io = Io { stream: TokioIo::new(stream), activity: activity.clone() };
    let requests = activity.clone();
    let service = service_fn(move |request: Request<Incoming>| {
        let is_http2 = request.version() == Version::HTTP_2;
        // Over HTTP/2 each has a task of its own.
        let is_in_turn = is_http2 || !requests.had_its_request.swap(true, Ordering::Relaxed);
        let in_hand = InHand::new(requests.clone(), is_http2);
        let (handler, peer) = (handler.clone(), peer.clone());
        async move {
            if !is_in_turn {
                yield_now().await;
            }
            let response = unless_it_panics(handler.handle(peer, request)).await;
            let response = response.unwrap_or_else(|| handler.panicked());
            drop(in_hand);
            Ok::<Response, Infallible>(response)
        }
    });
    let builder = builder(limits);
    let mut connection = pin!(builder.serve_connection(io, service));
    let mut watch = Watch::new(activity, limits, drain);
    std::future::poll_fn(|context| {
        watch.activity.begin_turn();
        loop {
            if let Poll::Ready(result) = connection.as_mut().poll(context) {
                return Poll::Ready(quiet(result.err().and_then(|error| closed_by(&*error))));
            }
            if !watch.should_drain(context) {
                return watch.poll(context).map(quiet);
            }
            connection.as_mut().graceful_shutdown();
        }
    })
    .await
}

/// What comes of a request; none if it panics, which is then over for this request alone: what requests
/// share is atomic, or behind a lock that does not mind.
async fn unless_it_panics<T>(request: impl Future<Output = T>) -> Option<T> {
    let mut request = pin!(request);
    let poll = |context: &mut Context| {
        let polled = catch_unwind(AssertUnwindSafe(|| request.as_mut().poll(context)));
        polled.map_or(Poll::Ready(None), |poll| poll.map(Some))
    };
    std::future::poll_fn(poll).await
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

/// An end that is no refusal is nothing to report.
fn quiet(refusal: Option<Refusal>) -> Result<(), Refusal> {
    refusal.map_or(Ok(()), Err)
}

fn builder(limits: &config::Http) -> Builder<Streams> {
    let answered = limits.body_timeout() + limits.answer_timeout();
    let mut builder = Builder::new(Streams { timeout: answered + limits.answer_timeout() });
    builder
        .http1()
        .timer(TokioTimer::new())
        .header_read_timeout(None)
        // A sender that has said all it wants to say still gets its answer, and hyper saves a read
        // for each request that would look whether it is still there.
        .half_close(true)
        .max_headers(HEADERS_MAX)
        .max_buf_size(limits.max_header_bytes + HEAD_SPARE);
    let header_list = u32::try_from(limits.max_header_bytes + HEAD_SPARE).unwrap_or(u32::MAX);
    builder
        .http2()
        .timer(TokioTimer::new())
        .max_header_list_size(header_list)
        .max_concurrent_streams(STREAMS_MAX)
        // What a stranger can make us hold before its key is looked at.
        .initial_stream_window_size(64 << 10)
        .initial_connection_window_size(256 << 10);
    builder
}

/// What hyper's error means; none for a connection that merely ended.
fn closed_by(error: &(dyn Error + Send + Sync + 'static)) -> Option<Refusal> {
    let error = error.downcast_ref::<hyper::Error>()?;
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
    limits: &'l config::Http,
    phase: Phase,
    since: Instant,
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
    fn new(activity: Arc<Activity>, limits: &'l config::Http, drain: &'l Drain) -> Watch<'l> {
        let since = Instant::now();
        Watch {
            phase: activity.phase(),
            activity,
            limits,
            since,
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

    /// Ready when the connection has stayed in its phase for too long, with the refusal that this
    /// is, if it is one.
    fn poll(&mut self, context: &mut Context) -> Poll<Option<Refusal>> {
        let phase = self.activity.phase();
        if phase != self.phase {
            self.phase = phase;
            if phase != Phase::Busy {
                self.since = Instant::now();
            }
        }
        let (allowed, refusal) = match phase {
            Phase::Busy => return Poll::Pending,
            Phase::Head if self.drain.has_begun() => (FIRST_WORD_TIMEOUT, None),
            Phase::Head => (self.limits.header_timeout(), Some(Refusal::SlowHead)),
            Phase::Idle => (self.limits.idle_timeout(), None),
            Phase::Stalled(_) => (self.limits.answer_timeout(), Some(Refusal::SenderGone)),
        };
        self.poll_deadline(context, allowed).map(|()| refusal)
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
struct InHand(Arc<Activity>);

impl InHand {
    fn new(activity: Arc<Activity>, is_http2: bool) -> InHand {
        activity.requests.fetch_add(1, Ordering::Relaxed);
        activity.unclaimed.store(false, Ordering::Relaxed);
        activity.used.store(true, Ordering::Relaxed);
        activity.is_http2.store(is_http2, Ordering::Relaxed);
        InHand(activity)
    }
}

impl Drop for InHand {
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
    activity: Arc<Activity>,
}

impl Io {
    fn note(&self, written: Poll<io::Result<usize>>) -> Poll<io::Result<usize>> {
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
        buffer: ReadBufCursor,
    ) -> Poll<io::Result<()>> {
        if self.activity.reads.load(Ordering::Relaxed) >= READS_MAX {
            // Its first poll has this task polled again when the others have been.
            return pin!(yield_now()).poll(context).map(Ok);
        }
        let read = Pin::new(&mut self.stream).poll_read(context, buffer);
        if read.is_ready() {
            self.activity.reads.fetch_add(1, Ordering::Relaxed);
            self.activity.unclaimed.store(true, Ordering::Relaxed);
        }
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

    use super::super::Gate;
    use super::*;
    use crate::metrics::ConnectionMetrics;

    /// Panics at one path, after it has waited.
    #[derive(Clone)]
    struct Clumsy;

    impl Handler for Clumsy {
        async fn handle(&self, _peer: Peer, request: Request<Incoming>) -> Response {
            tokio::task::yield_now().await;
            assert_ne!(request.uri().path(), "/stumble", "as it should");
            Response::new(Full::new(Bytes::from_static(b"upright")))
        }

        fn panicked(&self) -> Response {
            let mut response = Response::new(Full::new(Bytes::from_static(b"fallen")));
            *response.status_mut() = StatusCode::INTERNAL_SERVER_ERROR;
            response
        }
    }

    #[tokio::test]
    async fn a_panic_ends_its_request_alone() {
        let limits = config::Http::default();
        let metrics = ConnectionMetrics::new(&Registry::new()).expect("metrics");
        let gate = Gate::new(&limits, metrics);
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
            let socket = gate.accept(&listener).await;
            serve(socket, Clumsy, &limits, &Drain::default(), None).await
        };
        let (answers, served) = tokio::join!(ask, answer);
        assert_eq!(served, Ok(()));
        let [_, fallen, upright] = answers.split("HTTP/1.1 ").collect::<Vec<_>>()[..] else {
            panic!("two answers: {answers}");
        };
        assert!(fallen.starts_with("500") && fallen.ends_with("fallen"), "{fallen}");
        assert!(upright.starts_with("200") && upright.ends_with("upright"), "{upright}");
    }
}
