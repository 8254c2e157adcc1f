//! Forms (`application/x-www-form-urlencoded`): the fields of a body, in its order.

use std::collections::HashMap;

use serde::ser::{Serialize, SerializeMap, Serializer};

use crate::click::outcome::{Refusal, Rejection};
use crate::click::path;

/// The most fields of a form.
const FIELDS_MAX: usize = 10_000;

/// A form's fields, decoded.
pub(in super::super) struct Form(Vec<(String, String)>);

impl Form {
    /// Reads a body, or the query of a URL.
    ///
    /// # Errors
    ///
    /// [`Refusal::Malformed`] where a name or a value is not UTF-8, [`Refusal::Invalid`] where there are too
    /// many fields.
    pub fn read(body: &[u8]) -> Result<Form, Rejection> {
        let pairs = body.split(|byte| *byte == b'&').filter(|pair| !pair.is_empty());
        let mut fields = Vec::new();
        for pair in pairs {
            if fields.len() == FIELDS_MAX {
                let detail = format!("The form has more than {FIELDS_MAX} fields");
                return Err(Refusal::Invalid.detailed(detail));
            }
            let at = pair.iter().position(|byte| *byte == b'=');
            let (name, value) = at.map_or((pair, &b""[..]), |at| (&pair[..at], &pair[at + 1..]));
            fields.push((decoded(name)?, decoded(value)?));
        }
        Ok(Form(fields))
    }

    /// The last value of a field.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.0.iter().rfind(|(found, _)| found == name).map(|(_, value)| &**value)
    }

    /// The last value of a field.
    pub fn take(mut self, name: &str) -> Option<String> {
        let at = self.0.iter().rposition(|(found, _)| found == name)?;
        Some(self.0.swap_remove(at).1)
    }

    /// Names and values, in the alphabetical order of the names.
    pub fn sorted(mut self) -> Vec<(String, String)> {
        self.0.sort_by(|one, other| one.0.cmp(&other.0));
        self.0
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

/// An object of the fields: texts, and arrays of texts where a name is repeated.
impl Serialize for Form {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        let mut places: HashMap<&str, usize> = HashMap::new();
        let mut members: Vec<(&str, Vec<&str>)> = Vec::new();
        for (name, value) in &self.0 {
            let place = *places.entry(name).or_insert(members.len());
            match members.get_mut(place) {
                Some((_, values)) => values.push(value),
                None => members.push((name, vec![value])),
            }
        }
        let mut object = to.serialize_map(Some(members.len()))?;
        for (name, values) in &members {
            match &values[..] {
                [value] => object.serialize_entry(name, value)?,
                values => object.serialize_entry(name, values)?,
            }
        }
        object.end()
    }
}

/// A name or a value without its encoding: a plus sign is a space.
fn decoded(text: &[u8]) -> Result<String, Rejection> {
    let mut decoded = Vec::with_capacity(text.len());
    let mut rest = text;
    while let Some((first, behind)) = rest.split_first() {
        let (byte, next) = match first {
            b'+' => (b' ', behind),
            b'%' => path::hex_byte(behind).unwrap_or((b'%', behind)),
            byte => (*byte, behind),
        };
        decoded.push(byte);
        rest = next;
    }
    String::from_utf8(decoded)
        .map_err(|_| Refusal::Malformed.detailed("The body is not a form: it is not UTF-8"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(body: &str, expected: &str) {
        let form = Form::read(body.as_bytes()).expect("a form");
        assert_eq!(serde_json::to_string(&form).expect("JSON"), expected, "{body}");
    }

    #[test]
    fn a_form_is_an_object_of_texts() {
        check("", "{}");
        check("a=1&b=2", r#"{"a":"1","b":"2"}"#);
        check("b=2&a=1&&", r#"{"b":"2","a":"1"}"#);
        check("a&b=&=c", r#"{"a":"","b":"","":"c"}"#);
        check("a=1=2", r#"{"a":"1=2"}"#);
        check("a=x+y%2Bz%20%22%C3%A9%22", r#"{"a":"x y+z \"é\""}"#);
        check(
            "contact%5Bid%5D=7&contact[tags][]=x",
            r#"{"contact[id]":"7","contact[tags][]":"x"}"#,
        );
        check("a=1&b=2&a=3&a=4", r#"{"a":["1","3","4"],"b":"2"}"#);
        check("a=100%&b=%zz", r#"{"a":"100%","b":"%zz"}"#);
        let wrong = |body: &[u8]| Form::read(body).err().map(|why| why.refusal);
        assert_eq!(wrong(b"a=%ff"), Some(Refusal::Malformed));
        assert_eq!(wrong(b"\x1f\x8b=1"), Some(Refusal::Malformed));
        assert_eq!(wrong("a&".repeat(10_001).as_bytes()), Some(Refusal::Invalid));
    }

    #[test]
    fn fields_are_found_and_sorted() {
        let form = || Form::read(b"b=2&a=1&b=3").expect("a form");
        assert_eq!(form().take("b").as_deref(), Some("3"));
        assert_eq!(form().take("c"), None);
        let sorted: Vec<_> = form().sorted().into_iter().map(|(n, v)| n + &v).collect();
        assert_eq!(sorted, ["a1", "b2", "b3"]);
    }
}
