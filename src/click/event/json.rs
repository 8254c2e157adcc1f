//! JSON read in one pass and never built into a tree, so that neither depth nor the size of a number
//! costs more than the bytes it takes. Where a name occurs twice the last one counts, as it does for the
//! readers of the topic (Jackson, JavaScript, serde_json).

use std::borrow::Cow;
use std::fmt;

use bytes::Bytes;
use serde::Deserializer;
use serde::de::{DeserializeSeed, IgnoredAny, MapAccess, Visitor};
use serde_json::de::StrRead;
use serde_json::value::RawValue;

use crate::click::outcome::{Refusal, Rejection};

/// In a pointer, behind its first token: the only member of an object, whatever its name.
pub const WILDCARD: &str = "*";

/// A JSON pointer (RFC 6901) to a member of an object, at any depth.
#[derive(Debug, Clone, PartialEq)]
pub struct Pointer(Vec<String>);

impl Pointer {
    /// Reads `/campid` or `/data/campaign~1id`. The empty pointer, the whole body, is refused.
    pub fn parse(text: &str) -> Option<Pointer> {
        text.strip_prefix('/')?.split('/').map(unescape).collect::<Option<_>>().map(Pointer)
    }

    /// Its names and indices, at least one.
    pub fn tokens(&self) -> &[String] {
        &self.0
    }

    /// The first token and the others.
    pub(super) fn split(&self) -> (&str, &[String]) {
        self.0.split_first().map_or(("", &[]), |(first, rest)| (first, rest))
    }

    /// Whether one leads to the other, or both to the same.
    pub fn meets(&self, other: &Pointer) -> bool {
        let is_alike = |(one, other): (&String, &String)| {
            one == other || [one, other].into_iter().any(|token| token == WILDCARD)
        };
        self.0.iter().zip(&other.0).all(is_alike)
    }
}

/// Undoes RFC 6901's two escapes, `~1` for a slash and `~0` for a tilde; any other is an error.
fn unescape(token: &str) -> Option<String> {
    let is_right = token.split('~').skip(1).all(|rest| rest.starts_with(['0', '1']));
    is_right.then(|| token.replace("~1", "/").replace("~0", "~"))
}

/// The body as text, without a byte order mark.
///
/// # Errors
///
/// [`Refusal::Malformed`] where it is not UTF-8.
pub fn as_text(body: &[u8]) -> Result<&str, Rejection> {
    let text = std::str::from_utf8(body)
        .map_err(|_| Refusal::Malformed.detailed("The body is not JSON: it is not UTF-8"))?;
    Ok(text.strip_prefix('\u{feff}').unwrap_or(text))
}

/// Runs one pass over the whole text, to its end.
pub(in super::super) fn parse<'t, T>(
    text: &'t str,
    pass: impl FnOnce(&mut serde_json::Deserializer<StrRead<'t>>) -> serde_json::Result<T>,
) -> Result<T, Rejection> {
    let mut json = serde_json::Deserializer::from_str(text);
    pass(&mut json).and_then(|value| json.end().map(|()| value)).map_err(|error| {
        // The library's own text may quote the body, its position does not.
        let (line, column) = (error.line(), error.column());
        Refusal::Malformed
            .detailed(format!("The body is not JSON: see line {line}, column {column}"))
    })
}

/// Refuses a text that is not what it should be: as malformed if it is no JSON at all, else as invalid.
pub(super) fn other_than(text: &str, detail: &'static str) -> Rejection {
    let is_json = parse(text, |json| json.deserialize_ignored_any(IgnoredAny));
    is_json.err().unwrap_or_else(|| Refusal::Invalid.detailed(detail))
}

/// The last value of each of these names in a text that is an object.
pub(super) fn pick<'t, const N: usize>(
    text: &'t str,
    names: [&str; N],
) -> Result<[Option<&'t RawValue>; N], Rejection> {
    parse(text, |json| json.deserialize_map(Pick(names)))
}

/// Picks the last value of each name out of an object and skips all others.
struct Pick<'n, const N: usize>([&'n str; N]);

impl<'t, const N: usize> Visitor<'t> for Pick<'_, N> {
    type Value = [Option<&'t RawValue>; N];

    fn expecting(&self, formatter: &mut fmt::Formatter) -> fmt::Result {
        formatter.write_str("an object")
    }

    fn visit_map<A: MapAccess<'t>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut picked = [None; N];
        let wanted = |name: &[u8]| self.0.map(|wanted| wanted.as_bytes() == name);
        while let Some(wanted) = map.next_key_seed(Name { read: wanted, is_strict: true })? {
            if wanted == [false; N] {
                map.next_value::<IgnoredAny>()?;
                continue;
            }
            let value = map.next_value::<&RawValue>()?;
            for (slot, _) in picked.iter_mut().zip(wanted).filter(|(_, wanted)| *wanted) {
                *slot = Some(value);
            }
        }
        Ok(picked)
    }
}

/// The value of an object's only member.
struct Only;

impl<'t> Visitor<'t> for Only {
    type Value = Option<&'t RawValue>;

    fn expecting(&self, formatter: &mut fmt::Formatter) -> fmt::Result {
        formatter.write_str("an object")
    }

    fn visit_map<A: MapAccess<'t>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let (mut only, mut members) = (None, 0);
        while map.next_key::<IgnoredAny>()?.is_some() {
            only = Some(map.next_value::<&RawValue>()?);
            members += 1;
        }
        Ok(only.filter(|_| members == 1))
    }
}

/// Gives the name of a member, without its escapes, to a function.
pub(in super::super) struct Name<F> {
    pub read: F,
    /// Whether half of a surrogate pair in the name is an error.
    pub is_strict: bool,
}

impl<'t, T, F: FnOnce(&[u8]) -> T> DeserializeSeed<'t> for Name<F> {
    type Value = T;

    fn deserialize<D: Deserializer<'t>>(self, name: D) -> Result<T, D::Error> {
        if self.is_strict { name.deserialize_str(self) } else { name.deserialize_bytes(self) }
    }
}

impl<T, F: FnOnce(&[u8]) -> T> Visitor<'_> for Name<F> {
    type Value = T;

    fn expecting(&self, formatter: &mut fmt::Formatter) -> fmt::Result {
        formatter.write_str("a name")
    }

    fn visit_str<E>(self, name: &str) -> Result<T, E> {
        Ok((self.read)(name.as_bytes()))
    }

    fn visit_bytes<E>(self, name: &[u8]) -> Result<T, E> {
        Ok((self.read)(name))
    }
}

/// The value that a pointer leads to in a text that is an object.
pub(super) fn member<'t>(text: &'t str, pointer: &Pointer) -> Option<&'t RawValue> {
    let (first, rest) = pointer.split();
    let [value] = pick(text, [first]).ok()?;
    descend(value?, rest)
}

/// The text that a pointer leads to in a text that is an object.
pub(in super::super) fn text_at<'t>(text: &'t str, pointer: &Pointer) -> Option<Cow<'t, str>> {
    string(member(text, pointer)?)
}

/// Follows the rest of a pointer into a value.
pub(super) fn descend<'t>(value: &'t RawValue, rest: &[String]) -> Option<&'t RawValue> {
    let Some((token, rest)) = rest.split_first() else { return Some(value) };
    let inner = match value.get().as_bytes().first()? {
        b'{' if token == WILDCARD => {
            parse(value.get(), |json| json.deserialize_map(Only)).ok()??
        }
        b'{' => {
            let [inner] = pick(value.get(), [token]).ok()?;
            inner?
        }
        b'[' => {
            let index: usize = token.parse().ok()?;
            *serde_json::from_str::<Vec<&RawValue>>(value.get()).ok()?.get(index)?
        }
        _ => return None,
    };
    descend(inner, rest)
}

/// The text of a JSON string.
pub(in super::super) fn string(value: &RawValue) -> Option<Cow<'_, str>> {
    let raw = value.get();
    match raw.strip_prefix('"')?.strip_suffix('"')? {
        text if !text.contains('\\') => Some(Cow::Borrowed(text)),
        _escaped => serde_json::from_str(raw).ok().map(Cow::Owned),
    }
}

/// A text as bytes, which are the body's own where it is borrowed from there.
pub(in super::super) fn into_bytes(text: Cow<'_, str>, body: &Bytes) -> Bytes {
    match text {
        Cow::Borrowed(text) => body.slice_ref(text.as_bytes()),
        Cow::Owned(text) => Bytes::from(text),
    }
}
