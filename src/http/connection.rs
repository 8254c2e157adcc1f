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
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use hyper::body::Incoming;
use hyper::rt::ReadBufCursor;
use hyper::service::service_fn;
use hyper::{Request, Version};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto::Builder;
use tokio::net::TcpStream;
use tokio::sync::futures::Notified;
use tokio::time::{Instant, Sleep, sleep_until};
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

/// While draining, how long a connection may take to begin its first request, from its acceptance.
pub(super) const FIRST_WORD_TIMEOUT: Duration = Duration::from_millis(500);

/// Takes the requests of a connection.
pub trait Handler: Clone + Send + Sync + 'static {
    fn handle(
        &self,
        peer: Peer,
        request: Request<Incoming>,
    ) -> impl Future<Output = Response> + Send;
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
        let in_hand = InHand::new(requests.clone(), request.version() == Version::HTTP_2);
        let (handler, peer) = (handler.clone(), peer.clone());
        async move {
            let response = handler.handle(peer, request).await;
            drop(in_hand);
            Ok::<Response, Infallible>(response)
        }
    });
    let builder = builder(limits);
    let mut connection = std::pin::pin!(builder.serve_connection(io, service));
    let mut watch = Watch::new(activity, limits, drain);
    std::future::poll_fn(|context| {
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

/// An end that is no refusal is nothing to report.
fn quiet(refusal: Option<Refusal>) -> Result<(), Refusal> {
    refusal.map_or(Ok(()), Err)
}

fn builder(limits: &config::Http) -> Builder<TokioExecutor> {
    let mut builder = Builder::new(TokioExecutor::new());
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
    } else if error.is_parse() {
        Some(Refusal::NotHttp)
    } else {
        None
    }
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
        let read = Pin::new(&mut self.stream).poll_read(context, buffer);
        if read.is_ready() {
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
