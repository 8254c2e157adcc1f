//! Compressed bodies (`Content-Encoding`), unpacked within the limits of a body.
//!
//! A complete body is unpacked at once, on the thread of its connection. So each worker unpacks one body at a
//! time, which takes no more memory than the limit and the decoder's own: 8 MiB for zstd's window, less for
//! gzip.

use std::io::Read;

use bytes::Bytes;
use flate2::bufread::{DeflateDecoder, MultiGzDecoder, ZlibDecoder};
use hyper::header::{CONTENT_ENCODING, HeaderMap};

use super::Slot;
use crate::click::outcome::{Refusal, Rejection};
use crate::config::HttpSettings;

/// The value of `Accept-Encoding` for a refused sender.
pub const CODINGS: &str = "gzip, deflate, zstd";

/// The most that a body may unpack to, in times its size. Clicks reach less than 10, and gzip at most 1,032.
const RATIO_MAX: usize = 100;

/// The largest window of RFC 9659, as a power of two.
const WINDOW_LOG_MAX: u32 = 23;

/// The most bytes of `Content-Encoding` that are kept.
const NAME_MAX: usize = 128;

/// How a body is compressed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Coding {
    Identity,
    Gzip,
    Deflate,
    Zstd,
    /// One that is not supported, or several on top of each other.
    Other,
}

const NAMES: [(&str, Coding); 5] = [
    ("gzip", Coding::Gzip),
    ("x-gzip", Coding::Gzip),
    ("deflate", Coding::Deflate),
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
    pub fn of(headers: &HeaderMap) -> Coding {
        let values = headers.get_all(CONTENT_ENCODING).iter();
        let names = values.flat_map(|value| value.as_bytes().split(|byte| *byte == b','));
        let mut codings = names
            .map(<[u8]>::trim_ascii)
            .filter(|name| !name.is_empty())
            .map(|name| {
                let known =
                    |(known, _): &&(&str, Coding)| name.eq_ignore_ascii_case(known.as_bytes());
                NAMES.iter().find(known).map_or(Coding::Other, |(_, coding)| *coding)
            })
            .filter(|coding| *coding != Coding::Identity);
        match (codings.next(), codings.next()) {
            (None, _) => Coding::Identity,
            (Some(coding), None) => coding,
            (Some(_), Some(_)) => Coding::Other,
        }
    }

    /// Unpacks a body, within its limit and the budget. One that cannot be unpacked has the flaw
    /// [`Refusal::Malformed`] or [`Refusal::UnknownEncoding`].
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
            Coding::Other => {
                let flaw = Some(Refusal::UnknownEncoding.plain());
                return Ok(Unpacked { bytes: packed, flaw });
            }
            Coding::Gzip => ("gzip", read(MultiGzDecoder::new(&*packed), max)),
            Coding::Deflate => ("deflate", deflate(&packed, max)),
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

/// The value of `Content-Encoding`, of a body that stays as it came.
pub fn content_encoding(headers: &HeaderMap) -> Bytes {
    let values: Vec<&[u8]> =
        headers.get_all(CONTENT_ENCODING).iter().map(|value| value.as_bytes()).collect();
    let mut value = values.join(&b", "[..]);
    value.truncate(NAME_MAX);
    value.into()
}

/// Unpacks `deflate`: the format of zlib (RFC 1950) as RFC 9110 has it, or without its head and checksum
/// (RFC 1951), as some senders do it.
fn deflate(packed: &[u8], max: usize) -> std::io::Result<Option<Vec<u8>>> {
    whole(ZlibDecoder::new(packed), max, ZlibDecoder::into_inner)
        .or_else(|_| whole(DeflateDecoder::new(packed), max, DeflateDecoder::into_inner))
}

/// Everything that is read, which must be all that there is.
fn whole<'p, R: Read>(
    mut reader: R,
    max: usize,
    rest: impl FnOnce(R) -> &'p [u8],
) -> std::io::Result<Option<Vec<u8>>> {
    let unpacked = read(&mut reader, max)?;
    let is_whole = unpacked.is_none() || rest(reader).is_empty();
    if is_whole { Ok(unpacked) } else { Err(std::io::ErrorKind::InvalidData.into()) }
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
