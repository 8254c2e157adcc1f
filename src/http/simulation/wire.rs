//! The socket of a simulated connection: bytes arrive in any pieces, the buffer to the sender fills up, and
//! either end may close or reset it.
//!
//! As in TCP, bytes that arrive at a closed socket reset the connection, and so does closing with unread ones:
//! the sender loses what it has not read.

use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};

use bytes::{Buf, BytesMut};
use fastrand::Rng;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::Notify;

use super::super::Transport;
use super::ledger::Watch;

/// How the sender ended its side.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// It sends no more, and still reads.
    Finished,
    /// Both sides are gone.
    Reset,
}

/// What both ends share.
struct Shared {
    rng: Rng,
    /// Whether all pieces are small.
    trickles: bool,
    /// Bytes on their way to the bridge.
    arriving: BytesMut,
    end: Option<End>,
    /// Bytes on their way to the sender, and how many there may be.
    leaving: BytesMut,
    room: usize,
    /// Whether the bridge sends no more, and whether it is gone.
    is_shut: bool,
    is_gone: bool,
    is_reset_by_bridge: bool,
    reader: Option<Waker>,
    writer: Option<Waker>,
    watch: Watch,
}

impl Shared {
    /// Bytes came that nobody reads.
    fn reset_by_bridge(&mut self) {
        self.is_reset_by_bridge = true;
        let lost = std::mem::take(&mut self.leaving).len();
        self.watch.resets(lost);
    }

    /// The length of the next piece, of so many bytes at most.
    fn piece(&mut self, most: usize) -> usize {
        if self.trickles {
            return self.rng.usize(1..=most.min(8 + most / 64));
        }
        match self.rng.u8(..4) {
            0 => self.rng.usize(1..=most.min(16)),
            1 => self.rng.usize(1..=most),
            _ => most,
        }
    }

    /// Now and then a socket that is ready says that it is not, as tokio does to let other tasks run.
    fn feigns_not_ready(&mut self, context: &Context) -> bool {
        let feigns = self.rng.u8(..16) == 0;
        if feigns {
            context.waker().wake_by_ref();
        }
        feigns
    }
}

/// Makes a connection: the bridge's end and the sender's.
pub fn wire(mut rng: Rng, room: usize, watch: Watch) -> (BridgeEnd, SenderEnd) {
    let shared = Arc::new(Mutex::new(Shared {
        trickles: rng.u8(..16) == 0,
        rng,
        arriving: BytesMut::new(),
        end: None,
        leaving: BytesMut::new(),
        room,
        is_shut: false,
        is_gone: false,
        is_reset_by_bridge: false,
        reader: None,
        writer: None,
        watch,
    }));
    let changed = Arc::new(Notify::new());
    (BridgeEnd(shared.clone(), changed.clone()), SenderEnd { shared, changed })
}

fn lock(shared: &Mutex<Shared>) -> MutexGuard<'_, Shared> {
    shared.lock().unwrap_or_else(PoisonError::into_inner)
}

fn wake(waiting: &mut Option<Waker>) {
    if let Some(waiting) = waiting.take() {
        waiting.wake();
    }
}

/// The bridge's end.
pub struct BridgeEnd(Arc<Mutex<Shared>>, Arc<Notify>);

impl Transport for BridgeEnd {
    fn prepare(self) -> io::Result<BridgeEnd> {
        Ok(self)
    }
}

impl AsyncRead for BridgeEnd {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context,
        buffer: &mut ReadBuf,
    ) -> Poll<io::Result<()>> {
        let mut shared = lock(&self.0);
        if shared.end == Some(End::Reset) {
            return Poll::Ready(Err(io::ErrorKind::ConnectionReset.into()));
        }
        let most = shared.arriving.len().min(buffer.remaining());
        if most == 0 && shared.end.is_none() {
            shared.reader = Some(context.waker().clone());
            return Poll::Pending;
        }
        if shared.feigns_not_ready(context) {
            return Poll::Pending;
        }
        if most > 0 {
            let count = shared.piece(most);
            buffer.put_slice(&shared.arriving.split_to(count));
            shared.watch.reads(count);
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for BridgeEnd {
    fn poll_write(
        self: Pin<&mut Self>,
        context: &mut Context,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let mut shared = lock(&self.0);
        if shared.end == Some(End::Reset) || shared.is_shut {
            return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()));
        }
        let most = bytes.len().min(shared.room.saturating_sub(shared.leaving.len()));
        if most == 0 && !bytes.is_empty() {
            shared.writer = Some(context.waker().clone());
            shared.watch.is_blocked();
            return Poll::Pending;
        }
        if shared.feigns_not_ready(context) {
            return Poll::Pending;
        }
        let count = if most == 0 { 0 } else { shared.piece(most) };
        shared.leaving.extend_from_slice(&bytes[..count]);
        shared.watch.writes(&bytes[..count]);
        self.1.notify_one();
        Poll::Ready(Ok(count))
    }

    fn poll_flush(self: Pin<&mut Self>, _context: &mut Context) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _context: &mut Context) -> Poll<io::Result<()>> {
        let mut shared = lock(&self.0);
        if !shared.is_shut {
            shared.is_shut = true;
            shared.watch.shuts();
            self.1.notify_one();
        }
        Poll::Ready(Ok(()))
    }
}

impl Drop for BridgeEnd {
    fn drop(&mut self) {
        let mut shared = lock(&self.0);
        shared.is_gone = true;
        if !shared.arriving.is_empty() && shared.end != Some(End::Reset) {
            shared.reset_by_bridge();
        }
        self.1.notify_one();
    }
}

/// The sender's end. Reads and writes are by different tasks; only the reader waits.
#[derive(Clone)]
pub struct SenderEnd {
    shared: Arc<Mutex<Shared>>,
    changed: Arc<Notify>,
}

/// What the sender reads.
pub enum Read {
    Bytes(BytesMut),
    /// The bridge has closed the connection, or it was reset.
    Ended,
}

impl SenderEnd {
    /// Sends bytes; false once nobody reads them.
    pub fn send(&self, bytes: &[u8]) -> bool {
        let mut shared = lock(&self.shared);
        if shared.is_gone && !shared.is_reset_by_bridge {
            shared.reset_by_bridge();
            self.changed.notify_one();
        }
        if shared.is_gone || shared.end.is_some() {
            return false;
        }
        shared.arriving.extend_from_slice(bytes);
        wake(&mut shared.reader);
        true
    }

    pub fn end(&self, end: End) {
        let mut shared = lock(&self.shared);
        if shared.is_gone || shared.end == Some(End::Reset) {
            return;
        }
        shared.end = Some(end);
        if end == End::Reset {
            shared.arriving.clear();
            shared.leaving.clear();
            self.changed.notify_one();
        }
        shared.watch.ends(end);
        wake(&mut shared.reader);
        wake(&mut shared.writer);
    }

    /// Whether the connection is no more.
    pub fn is_over(&self) -> bool {
        let shared = lock(&self.shared);
        shared.is_gone || shared.end == Some(End::Reset)
    }

    /// Up to so many bytes, once there are any.
    pub async fn read(&self, most: usize) -> Read {
        loop {
            if let Some(read) = self.try_read(most) {
                return read;
            }
            self.changed.notified().await;
        }
    }

    fn try_read(&self, most: usize) -> Option<Read> {
        let mut shared = lock(&self.shared);
        if shared.leaving.is_empty() {
            let has_ended = shared.is_shut || shared.is_gone || shared.end == Some(End::Reset);
            return has_ended.then_some(Read::Ended);
        }
        let count = shared.leaving.remaining().min(most);
        let bytes = shared.leaving.split_to(count);
        shared.watch.is_read(count);
        wake(&mut shared.writer);
        Some(Read::Bytes(bytes))
    }
}
