//! Compressed bodies (`Content-Encoding`), unpacked within the limits of a body.
//!
//! A complete body is unpacked at once, on the thread of its connection. So each worker unpacks one body at a
//! time, which takes no more memory than the limit and the decoder's own: 8 MiB for zstd's window, less for
//! gzip.

use std::io::Read;

use bytes::Bytes;
use flate2::bufread::MultiGzDecoder;
use hyper::header::{CONTENT_ENCODING, HeaderMap};

use super::Slot;
use crate::click::outcome::{Refusal, Rejection};
use crate::config::HttpSettings;

/// The value of `Accept-Encoding` for a refused sender.
pub const CODINGS: &str = "gzip, zstd";

/// The most that a body may unpack to, in times its size. Clicks reach less than 10, and gzip at most 1,032.
const RATIO_MAX: usize = 100;

/// The largest window of RFC 9659, as a power of two.
const WINDOW_LOG_MAX: u32 = 23;

/// How a body is compressed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Coding {
    Identity,
    Gzip,
    Zstd,
}

const NAMES: [(&str, Coding); 4] = [
    ("gzip", Coding::Gzip),
    ("x-gzip", Coding::Gzip),
    ("zstd", Coding::Zstd),
    ("identity", Coding::Identity),
];

/// A body without its compression.
pub struct Unpacked {
    pub bytes: Bytes,
    /// Why it could not be unpacked; the bytes are then as they came.
    pub flaw: Option<Rejection>,
}

impl Coding {
    /// How the body of these headers is compressed.
    ///
    /// # Errors
    ///
    /// [`Refusal::UnknownEncoding`], also for several on top of each other.
    pub fn of(headers: &HeaderMap) -> Result<Coding, Rejection> {
        let mut values = headers.get_all(CONTENT_ENCODING).iter();
        let Some(value) = values.next() else { return Ok(Coding::Identity) };
        let is_value = |name: &str| value.as_bytes().eq_ignore_ascii_case(name.as_bytes());
        let known = NAMES.iter().find(|(name, _)| is_value(name));
        let known = known.filter(|_| values.next().is_none());
        known.map(|(_, coding)| *coding).ok_or_else(|| Refusal::UnknownEncoding.plain())
    }

    /// Unpacks a body, within its limit and the budget. One that cannot be unpacked has the flaw
    /// [`Refusal::Malformed`].
    ///
    /// # Errors
    ///
    /// [`Refusal::BodyTooLarge`] or [`Refusal::MemoryFull`].
    pub fn unpack(
        self,
        packed: Bytes,
        slot: &mut Slot<'_>,
        limits: &HttpSettings,
    ) -> Result<Unpacked, Rejection> {
        let by_ratio = packed.len().saturating_mul(RATIO_MAX);
        let max = by_ratio.min(limits.max_body_bytes);
        let (name, unpacked) = match self {
            Coding::Identity => return Ok(Unpacked { bytes: packed, flaw: None }),
            Coding::Gzip => ("gzip", read(MultiGzDecoder::new(&*packed), max)),
            Coding::Zstd => ("zstd", zstd(&packed).and_then(|reader| read(reader, max))),
        };
        match unpacked {
            Ok(Some(unpacked)) => {
                slot.reserve(unpacked.len())?;
                Ok(Unpacked { bytes: unpacked.into(), flaw: None })
            }
            Ok(None) if by_ratio < limits.max_body_bytes => {
                let detail = format!("The body unpacks to more than {RATIO_MAX} times its size");
                Err(Refusal::BodyTooLarge.detailed(detail))
            }
            Ok(None) => {
                Err(Refusal::BodyTooLarge.detailed("The unpacked body is larger than the limit"))
            }
            Err(_) => {
                let flaw = Refusal::Malformed.detailed(format!("The body is not valid {name}"));
                Ok(Unpacked { bytes: packed, flaw: Some(flaw) })
            }
        }
    }
}

fn zstd<'p>(packed: &'p [u8]) -> std::io::Result<impl Read + use<'p>> {
    let mut reader = zstd::stream::read::Decoder::with_buffer(packed)?;
    reader.window_log_max(WINDOW_LOG_MAX)?;
    Ok(reader)
}

/// Everything that is read; none if it is more than `max`.
fn read(reader: impl Read, max: usize) -> std::io::Result<Option<Vec<u8>>> {
    let mut unpacked = Vec::new();
    let one_more = u64::try_from(max).unwrap_or(u64::MAX).saturating_add(1);
    reader.take(one_more).read_to_end(&mut unpacked)?;
    Ok((unpacked.len() <= max).then_some(unpacked))
}
