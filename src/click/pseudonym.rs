//! Replaces fields that must not reach Kafka as they are by pseudonyms: the HMAC-SHA256 of their text
//! under a key. Every other byte of the body stays.
//!
//! Equal texts have equal pseudonyms in every field and webhook, so that readers can still join and
//! count. Without the key nobody can find out a text by trying.

use std::fmt;

use bytes::Bytes;
use data_encoding::HEXLOWER;
use ring::hmac;
use serde::Deserializer;
use serde::de::{IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::value::RawValue;

use super::event::json::{Name, Pointer, as_text, parse, string};
use super::outcome::{Refusal, Rejection};

/// A pseudonym with its quotes.
const PSEUDONYM_BYTES: usize = 66;

/// The rest of a pointer, from the present value to its field.
type Path<'p> = &'p [String];

/// Which fields of a webhook's events are replaced, and the key for it.
#[derive(Debug)]
pub struct Pseudonyms {
    fields: Vec<Pointer>,
    /// Its `Debug` prints only the algorithm.
    key: hmac::Key,
}

impl Pseudonyms {
    pub fn new(fields: Vec<Pointer>, key: &[u8]) -> Pseudonyms {
        Pseudonyms { fields, key: hmac::Key::new(hmac::HMAC_SHA256, key) }
    }

    /// The body with every occurrence of the fields replaced; only `null` stays.
    ///
    /// # Errors
    ///
    /// [`Refusal::Malformed`] where it is not JSON, because no field can be found in it.
    pub fn replace(&self, body: &Bytes) -> Result<Bytes, Rejection> {
        let text = as_text(body)?;
        let paths = self.fields.iter().map(Pointer::tokens).collect();
        let mut found = Vec::new();
        parse(text, |json| json.deserialize_any(Inside { paths, found: &mut found }))
            .map_err(|_| Refusal::Malformed.plain())?;
        if found.is_empty() {
            return Ok(body.clone());
        }
        let mut replaced = Vec::with_capacity(body.len() + found.len() * PSEUDONYM_BYTES);
        let mut done = 0;
        for value in found {
            // Each is borrowed from the body, and they are in the body's order.
            let begin = value.get().as_ptr().addr() - body.as_ptr().addr();
            replaced.extend_from_slice(&body[done..begin]);
            replaced.push(b'"');
            replaced.extend_from_slice(self.pseudonym(value).as_bytes());
            replaced.push(b'"');
            done = begin + value.get().len();
        }
        replaced.extend_from_slice(&body[done..]);
        Ok(replaced.into())
    }

    /// The pseudonym of a string's text, without its escapes, or of any other value as it is written.
    fn pseudonym(&self, value: &RawValue) -> String {
        let text = string(value);
        let text = text.as_deref().unwrap_or(value.get());
        HEXLOWER.encode(hmac::sign(&self.key, text.as_bytes()).as_ref())
    }
}

/// Finds the fields in an object or an array.
struct Inside<'p, 'f, 't> {
    paths: Vec<Path<'p>>,
    found: &'f mut Vec<&'t RawValue>,
}

impl<'p, 't> Inside<'p, '_, 't> {
    /// The rest of the paths that go through this member.
    fn through(&self, is_it: impl Fn(&str) -> bool) -> Vec<Path<'p>> {
        let rest = |path: &Path<'p>| path.split_first().filter(|(token, _)| is_it(token));
        self.paths.iter().filter_map(rest).map(|(_, rest)| rest).collect()
    }

    /// Takes a value if a path ends at it, else looks into it.
    fn take<E: serde::de::Error>(
        &mut self,
        value: &'t RawValue,
        paths: Vec<Path<'p>>,
    ) -> Result<(), E> {
        let is_field = paths.iter().any(|path| path.is_empty());
        match value.get().as_bytes().first() {
            Some(b'n') => {}
            _ if is_field => self.found.push(value),
            Some(b'{' | b'[') => {
                let mut json = serde_json::Deserializer::from_str(value.get());
                let inside = Inside { paths, found: &mut *self.found };
                json.deserialize_any(inside).map_err(E::custom)?;
            }
            _ => {}
        }
        Ok(())
    }
}

impl<'t> Visitor<'t> for Inside<'_, '_, 't> {
    type Value = ();

    fn expecting(&self, formatter: &mut fmt::Formatter) -> fmt::Result {
        formatter.write_str("an object or an array")
    }

    fn visit_map<A: MapAccess<'t>>(mut self, mut map: A) -> Result<(), A::Error> {
        loop {
            let through = |name: &[u8]| self.through(|token| token.as_bytes() == name);
            let name = Name { read: through, is_strict: false };
            let Some(paths) = map.next_key_seed(name)? else { return Ok(()) };
            if paths.is_empty() {
                map.next_value::<IgnoredAny>()?;
            } else {
                self.take(map.next_value()?, paths)?;
            }
        }
    }

    fn visit_seq<A: SeqAccess<'t>>(mut self, mut items: A) -> Result<(), A::Error> {
        let mut index = 0;
        while let Some(value) = items.next_element()? {
            let paths = self.through(|token| token.parse() == Ok(index));
            if !paths.is_empty() {
                self.take(value, paths)?;
            }
            index += 1;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: &[u8] = b"a key for the tests";

    /// `printf '%s' TEXT | openssl dgst -sha256 -hmac 'a key for the tests'`
    const ANA: &str = "7c5d60216154b11dd8a783b375b7ebea041586214ab8526fb511cadd49746344";
    const SEVEN: &str = "ca61b894104c6cf37450f3fa683e42d3f9695384aa0aef44e9539e47c9710481";

    fn replace(fields: &[&str], body: &str) -> Result<Bytes, Rejection> {
        let fields = fields.iter().map(|field| Pointer::parse(field).expect("a pointer")).collect();
        Pseudonyms::new(fields, KEY).replace(&Bytes::copy_from_slice(body.as_bytes()))
    }

    /// In what is expected, `ANA` and `SEVEN` stand for pseudonyms.
    #[track_caller]
    fn check(fields: &[&str], body: &str, expected: &str) {
        let expected = expected
            .replace("ANA", &format!("\"{ANA}\""))
            .replace("SEVEN", &format!("\"{SEVEN}\""));
        let replaced = replace(fields, body).expect("JSON");
        assert_eq!(std::str::from_utf8(&replaced), Ok(&*expected), "{fields:?} {body}");
    }

    #[test]
    fn a_field_is_replaced_and_nothing_else_is() {
        let email = &["/email"];
        check(email, r#"{"email":"ana@example.com"}"#, r#"{"email":ANA}"#);
        check(
            email,
            "\u{feff}\r\n{ \"z\" : 1.50e+3,\t\"email\" :\t\"ana@example.com\" , \"a\":\"\\u00e1\" }\n",
            "\u{feff}\r\n{ \"z\" : 1.50e+3,\t\"email\" :\tANA , \"a\":\"\\u00e1\" }\n",
        );
        // However it and its name are written.
        check(email, r#"{"e\u006dail":"an\u0061@example.com"}"#, r#"{"e\u006dail":ANA}"#);
        // The same name elsewhere is another field.
        check(
            email,
            r#"{"x":{"email":"ana@example.com"}}"#,
            r#"{"x":{"email":"ana@example.com"}}"#,
        );
        check(email, r#"{"Email":"ana@example.com"}"#, r#"{"Email":"ana@example.com"}"#);
        check(email, "{}", "{}");
    }

    #[test]
    fn every_occurrence_is_replaced() {
        check(&["/e"], r#"{"e":"ana@example.com","e":7}"#, r#"{"e":ANA,"e":SEVEN}"#);
        let twice = r#"{"u":{"e":7},"u":{"e":"7","e":null},"u":7}"#;
        check(&["/u/e"], twice, r#"{"u":{"e":SEVEN},"u":{"e":SEVEN,"e":null},"u":7}"#);
        check(&["/b", "/a"], r#"{"a":7,"c":7,"b":"7"}"#, r#"{"a":SEVEN,"c":7,"b":SEVEN}"#);
        check(&["/u/a", "/u/b"], r#"{"u":{"b":7,"a":7}}"#, r#"{"u":{"b":SEVEN,"a":SEVEN}}"#);
    }

    #[test]
    fn fields_are_found_at_any_depth() {
        check(&["/to/1/e"], r#"{"to":[{"e":7},{"e":7}]}"#, r#"{"to":[{"e":7},{"e":SEVEN}]}"#);
        check(&["/to/0"], r#"{"to":[7, 7],"to":{"0":7}}"#, r#"{"to":[SEVEN, 7],"to":{"0":SEVEN}}"#);
        check(&["/a~1b/~0"], r#"{"a/b":{"~":7}}"#, r#"{"a/b":{"~":SEVEN}}"#);
        // Half of a surrogate pair, in a name and in a value that nobody looks at.
        let odd = r#"{"u":{"\ud800":1,"x":"\ud800","e":7}}"#;
        check(&["/u/e"], odd, r#"{"u":{"\ud800":1,"x":"\ud800","e":SEVEN}}"#);
    }

    #[test]
    fn whatever_stands_there_is_replaced_but_null() {
        for value in ["true", "false", "1.0", "-0e9", "[]", r#"["ana@example.com"]"#, r#""\ud800""#]
        {
            let body = format!(r#"{{"e":{value}}}"#);
            let replaced = replace(&["/e"], &body).expect("JSON");
            assert_eq!(replaced.len(), r#"{"e":}"#.len() + PSEUDONYM_BYTES, "{value}");
        }
        check(&["/e"], r#"{"e":null}"#, r#"{"e":null}"#);
        let deep = "[".repeat(200_000) + &"]".repeat(200_000);
        let replaced = replace(&["/e"], &format!(r#"{{"x":{deep},"e":{deep}}}"#)).expect("JSON");
        assert_eq!(replaced.len(), deep.len() + r#"{"x":,"e":}"#.len() + PSEUDONYM_BYTES);
    }

    #[test]
    fn what_cannot_be_read_does_not_pass() {
        for body in ["", "{", r#"{"email":"ana@example.com"} x"#, "7", r#"{"x":nul,"email":7}"#] {
            let refusal = replace(&["/email"], body).map_err(|why| why.refusal);
            assert_eq!(refusal, Err(Refusal::Malformed), "{body}");
        }
    }

    #[test]
    fn another_key_makes_other_pseudonyms() {
        let fields = || vec![Pointer::parse("/e").expect("a pointer")];
        let body = Bytes::from_static(br#"{"e":7}"#);
        let by = |key| Pseudonyms::new(fields(), key).replace(&body).expect("JSON");
        assert_ne!(by(b"one"), by(b"other"));
        assert!(!format!("{:?}", Pseudonyms::new(fields(), b"one")).contains("one"));
    }
}
