//! Bodies that come compressed (`Content-Encoding`), unpacked within the limits of a body.
//!
//! A body is unpacked once it is there, in one go on the thread of its connection. So no more than one
//! for each worker is being unpacked at any time, and it never holds more than the limit and the
//! decoder's own memory: 8 MiB for zstd's window, less for gzip.

use std::io::Read;

use bytes::Bytes;
use flate2::bufread::MultiGzDecoder;
use hyper::header::{CONTENT_ENCODING, HeaderMap};

use super::Slot;
use crate::click::outcome::{Refusal, Rejection};
use crate::config;

/// What a refused sender is told that it may use.
pub const CODINGS: &str = "gzip, zstd";

/// A body may not unpack to more than so many times its size. Clicks come to less than 10 times, and the
/// most that gzip can do is 1,032 times.
const RATIO_MAX: usize = 100;

/// The largest window that a sender may ask for by RFC 9659, as a power of two.
const WINDOW_LOG_MAX: u32 = 23;

/// How a body is compressed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Coding {
    Gzip,
    Zstd,
}

impl Coding {
    /// How the body of these headers is compressed; none if it is not.
    ///
    /// # Errors
    ///
    /// [`Refusal::UnknownEncoding`], also for several on top of each other.
    pub fn of(headers: &HeaderMap) -> Result<Option<Coding>, Rejection> {
        let mut values = headers.get_all(CONTENT_ENCODING).iter();
        let Some(value) = values.next() else { return Ok(None) };
        let is = |name: &[u8]| value.as_bytes().eq_ignore_ascii_case(name);
        if values.next().is_some() {
            Err(Refusal::UnknownEncoding.plain())
        } else if is(b"gzip") || is(b"x-gzip") {
            Ok(Some(Coding::Gzip))
        } else if is(b"zstd") {
            Ok(Some(Coding::Zstd))
        } else if is(b"identity") {
            Ok(None)
        } else {
            Err(Refusal::UnknownEncoding.plain())
        }
    }

    fn name(self) -> &'static str {
        match self {
            Coding::Gzip => "gzip",
            Coding::Zstd => "zstd",
        }
    }

    /// Unpacks a body, within its limit and its share of the budget. One that cannot be unpacked stays
    /// as it came, and is [`Refusal::Malformed`].
    ///
    /// # Errors
    ///
    /// [`Refusal::BodyTooLarge`] or [`Refusal::MemoryFull`].
    pub fn unpack(
        self,
        packed: Bytes,
        slot: &mut Slot<'_>,
        limits: &config::HttpSettings,
    ) -> Result<(Bytes, Option<Rejection>), Rejection> {
        let by_ratio = packed.len().saturating_mul(RATIO_MAX);
        let max = by_ratio.min(limits.max_body_bytes);
        let unpacked = match self {
            Coding::Gzip => read(MultiGzDecoder::new(&*packed), max),
            Coding::Zstd => zstd(&packed).and_then(|reader| read(reader, max)),
        };
        match unpacked {
            Ok(Some(unpacked)) => {
                slot.reserve(unpacked.len())?;
                Ok((unpacked.into(), None))
            }
            Ok(None) if by_ratio < limits.max_body_bytes => {
                let detail = format!("The body unpacks to more than {RATIO_MAX} times its size");
                Err(Refusal::BodyTooLarge.detailed(detail))
            }
            Ok(None) => {
                Err(Refusal::BodyTooLarge.detailed("The unpacked body is larger than the limit"))
            }
            Err(_) => {
                let detail = format!("The body is not valid {}", self.name());
                Ok((packed, Some(Refusal::Malformed.detailed(detail))))
            }
        }
    }
}

fn zstd<'p>(packed: &'p [u8]) -> std::io::Result<impl Read + use<'p>> {
    let mut reader = zstd::stream::read::Decoder::with_buffer(packed)?;
    reader.window_log_max(WINDOW_LOG_MAX)?;
    Ok(reader)
}

/// Everything that comes; none if it is more than allowed.
fn read(reader: impl Read, max: usize) -> std::io::Result<Option<Vec<u8>>> {
    let mut unpacked = Vec::new();
    let one_more = u64::try_from(max).unwrap_or(u64::MAX).saturating_add(1);
    reader.take(one_more).read_to_end(&mut unpacked)?;
    Ok((unpacked.len() <= max).then_some(unpacked))
}
