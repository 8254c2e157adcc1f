//! The bounded read of a body, and the budget that all requests share.

use std::error::Error;
use std::io;

use bytes::{Bytes, BytesMut};
use http_body_util::BodyExt;
use hyper::body::{Body, Incoming};
use prometheus::IntGauge;
use tokio::time::timeout;

use crate::click::outcome::{Refusal, Rejection};
use crate::config;

/// Admits requests up to the limits on their number and on the bytes of their bodies.
///
/// The gauges are the counters: what an operator sees is what the limits are held against. Two
/// threads that ask at the same moment may exceed a limit by one request each.
#[derive(Clone)]
pub struct Admission {
    requests: IntGauge,
    max_requests: i64,
    bytes: IntGauge,
    max_bytes: i64,
}

/// An admitted request's share of the budget, from the socket to the acknowledgement; given back
/// when dropped.
pub struct Slot<'a> {
    admission: &'a Admission,
    reserved: i64,
}

impl Admission {
    pub fn new(limits: &config::HttpSettings, requests: IntGauge, bytes: IntGauge) -> Admission {
        let cap = |limit: usize| i64::try_from(limit).unwrap_or(i64::MAX);
        Admission {
            requests,
            max_requests: cap(limits.max_requests_in_flight),
            bytes,
            max_bytes: cap(limits.max_bytes_in_flight),
        }
    }

    /// # Errors
    ///
    /// [`Refusal::TooManyRequests`].
    pub fn admit(&self) -> Result<Slot<'_>, Rejection> {
        if self.requests.get() >= self.max_requests {
            return Err(Refusal::TooManyRequests.plain());
        }
        self.requests.inc();
        Ok(Slot { admission: self, reserved: 0 })
    }
}

impl Slot<'_> {
    /// Takes more of the budget.
    ///
    /// # Errors
    ///
    /// [`Refusal::MemoryFull`].
    pub fn reserve(&mut self, bytes: usize) -> Result<(), Rejection> {
        let bytes = i64::try_from(bytes).unwrap_or(i64::MAX);
        let admission = self.admission;
        if admission.bytes.get().saturating_add(bytes) > admission.max_bytes {
            return Err(Refusal::MemoryFull.plain());
        }
        admission.bytes.add(bytes);
        self.reserved += bytes;
        Ok(())
    }
}

impl Drop for Slot<'_> {
    fn drop(&mut self) {
        self.admission.requests.dec();
        self.admission.bytes.sub(self.reserved);
    }
}

/// Reads a whole body, within its limit, its share of the budget and its time.
///
/// A body that states its length is judged by it before a byte is read.
///
/// # Errors
///
/// [`Refusal::BodyTooLarge`], [`Refusal::MemoryFull`], [`Refusal::SlowBody`],
/// [`Refusal::SenderGone`], or [`Refusal::NotHttp`] for a broken chunk.
pub async fn read_body(
    body: Incoming,
    slot: &mut Slot<'_>,
    limits: &config::HttpSettings,
) -> Result<Bytes, Rejection> {
    let stated =
        body.size_hint().exact().map(|length| usize::try_from(length).unwrap_or(usize::MAX));
    if let Some(length) = stated {
        if length > limits.max_body_bytes {
            return Err(Refusal::BodyTooLarge.plain());
        }
        slot.reserve(length)?;
    }
    let read = collect(body, slot, stated.is_some(), limits.max_body_bytes);
    timeout(limits.body_timeout(), read).await.unwrap_or_else(|_| Err(Refusal::SlowBody.plain()))
}

async fn collect(
    mut body: Incoming,
    slot: &mut Slot<'_>,
    reserved: bool,
    max: usize,
) -> Result<Bytes, Rejection> {
    // A click arrives in one piece, which is passed on as it is.
    let mut first = Bytes::new();
    let mut rest = BytesMut::new();
    while let Some(frame) = body.frame().await {
        let Ok(data) = frame.map_err(body_error)?.into_data() else { continue };
        if first.len() + rest.len() + data.len() > max {
            return Err(Refusal::BodyTooLarge.plain());
        }
        if !reserved {
            slot.reserve(data.len())?;
        }
        if first.is_empty() {
            first = data;
        } else {
            rest.extend_from_slice(&data);
        }
    }
    if rest.is_empty() {
        return Ok(first);
    }
    let mut whole = BytesMut::with_capacity(first.len() + rest.len());
    whole.extend_from_slice(&first);
    whole.extend_from_slice(&rest);
    Ok(whole.freeze())
}

/// Tells a broken body from a sender that is gone.
fn body_error(error: hyper::Error) -> Rejection {
    let mut cause: Option<&(dyn Error + 'static)> = Some(&error);
    while let Some(error) = cause {
        if let Some(error) = error.downcast_ref::<io::Error>() {
            use io::ErrorKind::{InvalidData, InvalidInput};
            if matches!(error.kind(), InvalidData | InvalidInput) {
                return Refusal::NotHttp.detailed("The body's transfer coding is broken");
            }
        }
        cause = error.source();
    }
    Refusal::SenderGone.because(error.to_string())
}
