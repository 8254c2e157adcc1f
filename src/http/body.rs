//! The bounded read of a body, and the budget that all requests share.

use std::error::Error;
use std::{io, iter};

use bytes::{Bytes, BytesMut};
use http_body_util::BodyExt;
use hyper::body::{Body, Incoming};
use tokio::time::timeout;

use crate::click::outcome::{Refusal, Rejection};
use crate::config::HttpSettings;
use crate::observe::metrics::InFlightMetrics;

/// Admits requests up to the limits on their number and on the bytes of their bodies.
///
/// The metrics are the counters. Two threads that ask at the same moment may exceed a limit by one request
/// each.
pub struct Admission {
    in_flight: InFlightMetrics,
    max_requests: i64,
    max_bytes: i64,
}

/// An admitted request's part of the budget, until it is dropped.
pub struct Slot<'a> {
    admission: &'a Admission,
    reserved: i64,
}

impl Admission {
    pub fn new(limits: &HttpSettings, in_flight: InFlightMetrics) -> Admission {
        let cap = |limit: usize| i64::try_from(limit).unwrap_or(i64::MAX);
        Admission {
            in_flight,
            max_requests: cap(limits.max_requests_in_flight),
            max_bytes: cap(limits.max_bytes_in_flight),
        }
    }

    /// # Errors
    ///
    /// [`Refusal::TooManyRequests`].
    pub fn admit(&self) -> Result<Slot<'_>, Rejection> {
        if self.in_flight.requests.get() >= self.max_requests {
            return Err(Refusal::TooManyRequests.plain());
        }
        self.in_flight.requests.inc();
        Ok(Slot { admission: self, reserved: 0 })
    }
}

impl Slot<'_> {
    /// Takes bytes of the budget.
    ///
    /// # Errors
    ///
    /// [`Refusal::MemoryFull`].
    pub fn reserve(&mut self, bytes: usize) -> Result<(), Rejection> {
        let bytes = i64::try_from(bytes).unwrap_or(i64::MAX);
        let Admission { in_flight, max_bytes, .. } = self.admission;
        if in_flight.body_bytes.get().saturating_add(bytes) > *max_bytes {
            return Err(Refusal::MemoryFull.plain());
        }
        in_flight.body_bytes.add(bytes);
        self.reserved += bytes;
        Ok(())
    }
}

impl Drop for Slot<'_> {
    fn drop(&mut self) {
        self.admission.in_flight.requests.dec();
        self.admission.in_flight.body_bytes.sub(self.reserved);
    }
}

/// Reads a whole body, within its limit, the budget and its time. The stated length of a body is checked
/// before a byte is read.
///
/// # Errors
///
/// [`Refusal::BodyTooLarge`], [`Refusal::MemoryFull`], [`Refusal::SlowBody`],
/// [`Refusal::SenderGone`], or [`Refusal::NotHttp`] for a broken chunk.
pub async fn read_body(
    body: Incoming,
    slot: &mut Slot<'_>,
    limits: &HttpSettings,
) -> Result<Bytes, Rejection> {
    let max = limits.max_body_bytes;
    let stated = body.size_hint().exact();
    if let Some(length) = stated.map(|length| usize::try_from(length).unwrap_or(usize::MAX)) {
        if length > max {
            return Err(Refusal::BodyTooLarge.plain());
        }
        slot.reserve(length)?;
    }
    let read = collect(body, slot, stated.is_some(), max);
    timeout(limits.body_timeout(), read).await.unwrap_or_else(|_| Err(Refusal::SlowBody.plain()))
}

async fn collect(
    mut body: Incoming,
    slot: &mut Slot<'_>,
    is_reserved: bool,
    max: usize,
) -> Result<Bytes, Rejection> {
    // A click arrives in one piece, which is passed on without a copy.
    let mut first = Bytes::new();
    let mut rest = BytesMut::new();
    while let Some(frame) = body.frame().await {
        let Ok(data) = frame.map_err(body_error)?.into_data() else { continue };
        if first.len() + rest.len() + data.len() > max {
            return Err(Refusal::BodyTooLarge.plain());
        }
        if !is_reserved {
            slot.reserve(data.len())?;
        }
        if first.is_empty() {
            first = data;
        } else {
            rest.extend_from_slice(&data);
        }
    }
    Ok(if rest.is_empty() { first } else { [first, rest.freeze()].concat().into() })
}

/// Tells a broken body from a sender that is gone.
fn body_error(error: hyper::Error) -> Rejection {
    use io::ErrorKind::{InvalidData, InvalidInput};
    let first: &(dyn Error + 'static) = &error;
    let mut causes = iter::successors(Some(first), |&error| error.source());
    let is_broken = causes.any(|cause| {
        let cause = cause.downcast_ref::<io::Error>();
        cause.is_some_and(|cause| matches!(cause.kind(), InvalidData | InvalidInput))
    });
    if is_broken {
        Refusal::NotHttp.detailed("The body's transfer coding is broken")
    } else {
        Refusal::SenderGone.because(error.to_string())
    }
}
