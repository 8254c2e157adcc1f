//! A sender of HTTP/2: the client of the crate `h2` on the simulated wire.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use h2::client::{SendRequest, handshake};
use hyper::Request;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::sleep;

use super::ledger::Watch;
use super::plan::{Framing, Reading, RequestPlan};
use super::script::{Marks, Step};
use super::wire::{End, Read, SenderEnd};

/// Sends each request of the plan in a task of its own, with the pauses of its steps, until they end.
pub async fn send(wire: SenderEnd, watch: Watch) {
    let mut steps = watch.plan().steps.iter();
    if watch.plan().proxy.is_some() && !send_proxy(&mut steps, &wire, &watch).await {
        return;
    }
    let plan = watch.plan().reading;
    let socket = Socket { wire: wire.clone(), plan, received: 0, read: None };
    let Ok((sender, connection)) = handshake(socket).await else { return };
    let driver = tokio::spawn(connection);
    // The connection stays open, silent in the end, as long as this is kept.
    let kept = sender.clone();
    let mut requests = Vec::new();
    for step in steps {
        match step {
            Step::Pause(pause) => sleep(*pause).await,
            Step::Send { request, marks: Marks { is_first: true, .. }, .. } => {
                let request = ask(sender.clone(), watch.clone(), *request);
                requests.push(tokio::spawn(request));
            }
            Step::AwaitAnswers(_) => {
                if let Some(last) = requests.pop() {
                    let _ = last.await;
                }
            }
            Step::End(end) => wire.end(*end),
            _ => {}
        }
    }
    let _ = driver.await;
    drop(kept);
    for request in requests {
        let _ = request.await;
    }
}

/// Sends the header of the PROXY protocol; false where the plan ends before it does.
async fn send_proxy(
    steps: &mut impl Iterator<Item = &Step>,
    wire: &SenderEnd,
    watch: &Watch,
) -> bool {
    for step in steps {
        match step {
            Step::SendProxy { bytes, is_last } => {
                watch.sends_proxy(bytes.len(), *is_last);
                wire.send(bytes);
                if *is_last {
                    return true;
                }
            }
            Step::Pause(pause) => sleep(*pause).await,
            Step::End(end) => wire.end(*end),
            _ => break,
        }
    }
    false
}

/// Sends a request and reads its answer.
async fn ask(sender: SendRequest<Bytes>, watch: Watch, number: usize) -> Option<()> {
    let plan: &RequestPlan = &watch.plan().requests[number];
    let body = Bytes::copy_from_slice(&plan.body);
    let request = Request::builder().method(plan.method).uri(format!("http://t/{number}"));
    let request = match plan.framing {
        Framing::Length => request.header("content-length", body.len()),
        _ => request,
    };
    let request = request.body(()).ok()?;
    let mut sender = sender.ready().await.ok()?;
    let (answer, mut stream) = sender.send_request(request, body.is_empty()).ok()?;
    watch.sends(number, 0, Marks { is_first: true, has_head: true, is_last: false });
    if !body.is_empty() {
        stream.send_data(body, true).ok()?;
    }
    watch.sends(number, plan.body.len(), Marks { is_last: true, ..Marks::default() });
    let answer = answer.await.ok()?;
    let status = answer.status().as_u16();
    let named = answer.headers().get("x-request").and_then(|name| name.to_str().ok());
    if status != 500 && named != Some(&*number.to_string()) {
        watch.violation("the answer is that to another request");
    }
    let mut body = answer.into_body();
    let mut length = 0;
    while let Some(data) = body.data().await {
        let data = data.ok()?;
        length += data.len();
        body.flow_control().release_capacity(data.len()).ok()?;
    }
    let expected = if plan.method == "HEAD" || status == 500 { 0 } else { plan.answer };
    if length != expected {
        watch.violation(&format!("the answer has {length} bytes instead of {expected}"));
    }
    watch.got(number, status);
    Some(())
}

type PendingRead = Pin<Box<dyn Future<Output = Read> + Send>>;

/// The sender's end of the wire, as a stream.
struct Socket {
    wire: SenderEnd,
    plan: Reading,
    received: usize,
    read: Option<PendingRead>,
}

impl AsyncRead for Socket {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context,
        buffer: &mut ReadBuf,
    ) -> Poll<io::Result<()>> {
        let socket = &mut *self;
        let read = socket.read.get_or_insert_with(|| {
            let wire = socket.wire.clone();
            let Reading { piece, pause, .. } = socket.plan;
            let received = socket.received;
            let stop = socket.plan.stops.take_if(|(after, _)| received > *after);
            let pause = stop.map_or(pause, |(_, pause)| pause);
            let most = buffer.remaining().min(piece.max(100));
            Box::pin(async move {
                if !pause.is_zero() {
                    sleep(pause).await;
                }
                wire.read(most).await
            })
        });
        let result = ready!(read.as_mut().poll(context));
        socket.read = None;
        if let Read::Bytes(bytes) = result {
            socket.received += bytes.len();
            buffer.put_slice(&bytes);
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Socket {
    fn poll_write(
        self: Pin<&mut Self>,
        _context: &mut Context,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        match self.wire.send(bytes) {
            true => Poll::Ready(Ok(bytes.len())),
            false => Poll::Ready(Err(io::ErrorKind::BrokenPipe.into())),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, _context: &mut Context) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _context: &mut Context) -> Poll<io::Result<()>> {
        self.wire.end(End::Finished);
        Poll::Ready(Ok(()))
    }
}
