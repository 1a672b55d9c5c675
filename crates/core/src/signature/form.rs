//! `application/x-www-form-urlencoded` (WHATWG URL §5.1), kept as bytes.
//!
//! Decoding to text would replace what is no UTF-8, and then two bodies that differ would be signed
//! alike.

use serde_json::{Map, Value};

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

/// The fields as a JSON object of texts; the first of equal names counts.
pub(crate) fn object(fields: &[Field]) -> Value {
    let mut object = Map::new();
    for (name, value) in fields {
        let text = String::from_utf8_lossy(value).into_owned();
        object.entry(String::from_utf8_lossy(name)).or_insert(Value::String(text));
    }
    Value::Object(object)
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
    fn an_object_holds_the_first_of_equal_names() {
        assert_eq!(object(&fields(b"a=1&a=2")), serde_json::json!({ "a": "1" }));
    }
}
