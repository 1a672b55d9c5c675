//! `application/x-www-form-urlencoded` (WHATWG URL §5.1), kept as bytes.
//!
//! Decoding to text would replace what is no UTF-8, and then two bodies that differ would be signed
//! alike.

use std::borrow::Cow;
use std::collections::BTreeMap;

use encoding_rs::Encoding;
use serde::ser::{Serialize, SerializeMap, Serializer};

use crate::body::text;

/// The media type of forms.
pub(crate) const MEDIA_TYPE: &str = "application/x-www-form-urlencoded";

/// A decoded name and value.
pub(crate) type Field = (Vec<u8>, Vec<u8>);

/// The fields of `input` in their order. Every input has a reading, as in browsers.
pub(crate) fn fields(input: &[u8]) -> Vec<Field> {
    input.split(|&b| b == b'&').filter(|pair| !pair.is_empty()).map(field).collect()
}

/// The first value of `name`, if it is UTF-8.
pub(crate) fn get(fields: &[Field], name: &str) -> Option<String> {
    let (_, value) = fields.iter().find(|(key, _)| key == name.as_bytes())?;
    String::from_utf8(value.clone()).ok()
}

/// Whether a body that is said to be a form looks like one: it begins with a name and `=`. JSON that was cut off, or a
/// sentence, does not.
pub(crate) fn is_genuine(body: &[u8]) -> bool {
    let is_of_name = |b: u8| b.is_ascii_alphanumeric() || b"*-._+%[]$@:~!".contains(&b) || b >= 0x80;
    match body.iter().position(|&b| b == b'=') {
        Some(0) | None => false,
        Some(at) => body[..at].iter().all(|&b| is_of_name(b)) && !body.starts_with(b"["),
    }
}

/// A form as names with their values, in order of first appearance.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Form(Vec<(String, Vec<Value>)>);

/// A value of a field; `None` is no text in any charset that is named.
type Value = Option<String>;

impl Form {
    /// Reads a body. What is not UTF-8 is read in the charset that the content type names, or the field `_charset_`.
    pub(crate) fn read(content_type: &str, body: &[u8]) -> Self {
        let fields = fields(body);
        let named = || get(&fields, "_charset_").and_then(|label| Encoding::for_label(label.as_bytes()));
        let encoding = text::charset(content_type).or_else(named);
        let decode = |bytes: Vec<u8>| match String::from_utf8(bytes) {
            Ok(text) => Some(text),
            Err(error) => {
                encoding?.decode_without_bom_handling_and_without_replacement(error.as_bytes()).map(Cow::into_owned)
            }
        };
        let mut form: Vec<(String, Vec<Value>)> = Vec::new();
        // A body can hold hundreds of thousands of names, too many to look through them for each.
        let mut places: BTreeMap<String, usize> = BTreeMap::new();
        for (name, value) in &fields {
            let name = decode(name.clone());
            let value = name.as_ref().and_then(|_| decode(value.clone()));
            let name = name.unwrap_or_default();
            match places.get(&name) {
                Some(&at) => form[at].1.push(value),
                None => {
                    form.push((name.clone(), vec![value]));
                    places.insert(name, form.len() - 1);
                }
            }
        }
        Self(form)
    }

    /// The first value of `name`.
    pub(crate) fn get(&self, name: &str) -> Option<&str> {
        self.0.iter().find(|(key, _)| key == name)?.1.first()?.as_deref()
    }

    /// Whether every name and value is text.
    pub(crate) fn is_text(&self) -> bool {
        self.0.iter().all(|(_, values)| values.iter().all(Option::is_some))
    }
}

impl Serialize for Form {
    /// As an object; a name that repeats has all its values.
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        let mut map = to.serialize_map(Some(self.0.len()))?;
        for (name, values) in &self.0 {
            match values.as_slice() {
                [one] => map.serialize_entry(name, one)?,
                many => map.serialize_entry(name, many)?,
            }
        }
        map.end()
    }
}

fn field(pair: &[u8]) -> Field {
    match pair.iter().position(|&b| b == b'=') {
        Some(at) => (decode(&pair[..at]), decode(&pair[at + 1..])),
        None => (decode(pair), vec![]),
    }
}

fn decode(input: &[u8]) -> Vec<u8> {
    let mut decoded = Vec::with_capacity(input.len());
    let mut rest = input;
    while let Some((&byte, tail)) = rest.split_first() {
        rest = tail;
        match byte {
            b'+' => decoded.push(b' '),
            b'%' => match escaped(tail) {
                Some(byte) => {
                    decoded.push(byte);
                    rest = &tail[2..];
                }
                None => decoded.push(b'%'),
            },
            _ => decoded.push(byte),
        }
    }
    decoded
}

fn escaped(digits: &[u8]) -> Option<u8> {
    let digit = |at: usize| digits.get(at).and_then(|&b| char::from(b).to_digit(16));
    u8::try_from(digit(0)? * 16 + digit(1)?).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_decoded_byte_for_byte() {
        let decoded = fields(b"Body=%C3%BC+a%2Bb%3Dc&Empty=&&flag&bad=%zz%4&raw=%FF");
        let expected: [(&[u8], &[u8]); 5] =
            [(b"Body", "ü a+b=c".as_bytes()), (b"Empty", b""), (b"flag", b""), (b"bad", b"%zz%4"), (b"raw", b"\xff")];
        assert_eq!(decoded, expected.map(|(name, value)| (name.to_vec(), value.to_vec())));
        assert_eq!(get(&decoded, "Empty").as_deref(), Some(""));
        assert_eq!(get(&decoded, "raw"), None);
    }

    #[test]
    fn a_form_is_read_in_the_charset_that_it_names() {
        let get = |content_type: &str, body: &[u8]| Form::read(content_type, body).get("city").map(str::to_owned);
        assert_eq!(get(MEDIA_TYPE, b"city=K%C3%B6ln").as_deref(), Some("Köln"));
        assert_eq!(
            get("application/x-www-form-urlencoded; charset=iso-8859-1", b"city=K%F6ln").as_deref(),
            Some("Köln")
        );
        assert_eq!(get(MEDIA_TYPE, b"_charset_=windows-1252&city=K%F6ln").as_deref(), Some("Köln"));
        let unnamed = Form::read(MEDIA_TYPE, b"city=K%F6ln");
        assert_eq!(unnamed.get("city"), None);
        assert!(!unnamed.is_text());
        assert!(!Form::read(MEDIA_TYPE, b"%FF=1").is_text());
    }

    #[test]
    fn a_form_begins_with_a_name_and_its_value() {
        for body in [&b"a=1"[..], b"a%5Bb%5D=1&c", b"user[name]=x", "stra\u{df}e=1".as_bytes(), b"text=a sentence"] {
            assert!(is_genuine(body), "{}", String::from_utf8_lossy(body));
        }
        for body in [&b""[..], b"=1", b"hello", b"hello world=1", br#"{"a": "b=c""#, b"[1, \"=\"", b"<a b=\"c\"/>"] {
            assert!(!is_genuine(body), "{}", String::from_utf8_lossy(body));
        }
    }

    #[test]
    fn a_form_of_many_names_is_read_in_one_pass() {
        let body = (0..200_000).map(|n| format!("{n:x}&")).collect::<String>() + "0=again";
        let form = Form::read("", body.as_bytes());
        assert_eq!(form.0.len(), 200_000);
        assert_eq!(form.0[0].1, [Some(String::new()), Some("again".to_owned())]);
    }
}
