//! A body as a document, read tolerantly: whatever is JSON by its grammar (RFC 8259) can be looked into.
//!
//! Nothing is turned into numbers or trees. A place is found by walking over the text, so a number has all the digits
//! that were sent, nesting has no limit, and half of a surrogate pair (`"\ud83d"`), which no text can hold, is spelled
//! as its escape. Of equal names in an object the last counts.

use std::borrow::Cow;
use std::fmt;

use bytes::Bytes;
use serde::Deserialize;
use serde::de::{Deserializer, MapAccess, Visitor};
use serde_json::Value;
use serde_json::value::RawValue;

use crate::body::form::Form;
use crate::body::path::JsonPath;
use crate::body::text;

/// A body that can be looked into.
#[derive(Clone, Debug)]
pub(crate) enum Document<'a> {
    Json(Cow<'a, RawValue>),
    /// The first value of a name counts.
    Form(Form),
}

/// A value without parts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Scalar<'a> {
    Text(Cow<'a, str>),
    /// As it is written.
    Number(&'a str),
    Bool(bool),
}

/// Reads a body that must be JSON.
pub(crate) fn json<'a>(content_type: &str, body: &'a [u8]) -> Option<Document<'a>> {
    text::decode(content_type, body).and_then(raw).map(Document::Json)
}

/// Reads a body that is JSON, or a form whose field `payload` is JSON, or any form.
///
/// The bytes decide and not the content type, since only they are signed; it names their charset where they are not
/// UTF-8.
pub(crate) fn json_or_form<'a>(content_type: &str, body: &'a [u8]) -> Document<'a> {
    json(content_type, body).unwrap_or_else(|| {
        let form = Form::read(content_type, body);
        let payload = form.get("payload").and_then(|text| raw(Cow::Owned(text.to_owned())));
        payload.map_or(Document::Form(form), Document::Json)
    })
}

/// The text as JSON, if it is that and no more.
pub(crate) fn raw(text: Cow<'_, str>) -> Option<Cow<'_, RawValue>> {
    match text {
        Cow::Borrowed(text) => serde_json::from_str(text).ok().map(Cow::Borrowed),
        Cow::Owned(text) => RawValue::from_string(text).ok().map(Cow::Owned),
    }
}

impl Document<'_> {
    /// The text, number or truth value at `path`.
    pub(crate) fn scalar(&self, path: &JsonPath) -> Option<Scalar<'_>> {
        match self {
            Self::Json(root) => Scalar::of(find(root, path)?),
            Self::Form(form) => {
                let mut steps = path.steps();
                let (name, None) = (steps.next()?, steps.next()) else { return None };
                form.get(name).map(|text| Scalar::Text(text.into()))
            }
        }
    }

    /// Likewise, as text.
    pub(crate) fn text(&self, path: &JsonPath) -> Option<String> {
        self.scalar(path).map(Scalar::into_text)
    }

    /// The text, number or truth value at a JSON Pointer (RFC 6901), as text.
    pub(crate) fn pointer(&self, pointer: &str) -> Option<String> {
        self.text(&JsonPath::parse(pointer).ok()?)
    }

    /// The member `name` of the outermost object, as text.
    pub(crate) fn member(&self, name: &str) -> Option<String> {
        match self {
            Self::Json(root) => Scalar::of(member(root, name)?).map(Scalar::into_text),
            Self::Form(form) => form.get(name).map(str::to_owned),
        }
    }
}

impl<'a> Scalar<'a> {
    fn of(value: &'a RawValue) -> Option<Self> {
        match value.get() {
            "true" => Some(Self::Bool(true)),
            "false" => Some(Self::Bool(false)),
            text if text.starts_with('"') => unescaped(value).map(Self::Text),
            text if text.starts_with(|c: char| c == '-' || c.is_ascii_digit()) => Some(Self::Number(text)),
            _ => None,
        }
    }

    pub(crate) fn into_text(self) -> String {
        match self {
            Self::Text(text) => text.into_owned(),
            Self::Number(digits) => digits.to_owned(),
            Self::Bool(truth) => truth.to_string(),
        }
    }
}

/// The items of the array at `path`, each with its bytes as they stand in `body`.
pub(crate) fn items(content_type: &str, body: &Bytes, path: &JsonPath) -> Option<Vec<Bytes>> {
    let root = text::decode(content_type, body).and_then(raw)?;
    let items: Vec<&RawValue> = serde_json::from_str(find(&root, path)?.get()).ok()?;
    let bytes = |item: &RawValue| match root {
        Cow::Borrowed(_) => body.slice_ref(item.get().as_bytes()),
        // In another charset than UTF-8.
        Cow::Owned(_) => Bytes::copy_from_slice(item.get().as_bytes()),
    };
    Some(items.into_iter().map(bytes).collect())
}

/// A text, number or truth value of a configuration as text.
pub(crate) fn scalar(value: &Value) -> Option<String> {
    match value {
        Value::String(text) => Some(text.clone()),
        Value::Number(number) => Some(number.to_string()),
        Value::Bool(truth) => Some(truth.to_string()),
        Value::Null | Value::Array(_) | Value::Object(_) => None,
    }
}

fn find<'a>(root: &'a RawValue, path: &JsonPath) -> Option<&'a RawValue> {
    path.steps().try_fold(root, |at, step| match at.get().as_bytes().first()? {
        b'{' => member(at, step),
        b'[' => serde_json::from_str::<Vec<&RawValue>>(at.get()).ok()?.get(step.parse::<usize>().ok()?).copied(),
        _ => None,
    })
}

fn member<'a>(object: &'a RawValue, name: &str) -> Option<&'a RawValue> {
    /// The last member of the name.
    struct Named<'n>(&'n str);
    impl<'de> Visitor<'de> for Named<'_> {
        type Value = Option<&'de RawValue>;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("an object")
        }

        fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
            let mut found = None;
            while let Some((key, value)) = map.next_entry::<&RawValue, &RawValue>()? {
                if unescaped(key).is_some_and(|key| key == self.0) {
                    found = Some(value);
                }
            }
            Ok(found)
        }
    }
    serde_json::Deserializer::from_str(object.get()).deserialize_map(Named(name)).ok()?
}

/// The text that a JSON string means.
fn unescaped(string: &RawValue) -> Option<Cow<'_, str>> {
    let inner = string.get().strip_prefix('"')?.strip_suffix('"')?;
    if !inner.contains('\\') {
        return Some(Cow::Borrowed(inner));
    }
    // As bytes, a half of a surrogate pair is let pass.
    let Encoded(bytes) = serde_json::from_str(string.get()).ok()?;
    Some(Cow::Owned(spelled(&bytes)))
}

/// A text whose lone surrogates are encoded like other characters (WTF-8).
struct Encoded(Vec<u8>);

impl<'de> Deserialize<'de> for Encoded {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        struct Bytes;
        impl Visitor<'_> for Bytes {
            type Value = Encoded;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a text")
            }

            fn visit_bytes<E>(self, bytes: &[u8]) -> Result<Encoded, E> {
                Ok(Encoded(bytes.to_vec()))
            }
        }
        from.deserialize_bytes(Bytes)
    }
}

/// Two different halves of a pair are different texts, as they may be all that tells two ids apart.
fn spelled(mut bytes: &[u8]) -> String {
    let mut text = String::new();
    loop {
        let error = match std::str::from_utf8(bytes) {
            Ok(valid) => {
                text.push_str(valid);
                return text;
            }
            Err(error) => error,
        };
        let (valid, rest) = bytes.split_at(error.valid_up_to());
        text.push_str(&String::from_utf8_lossy(valid));
        let [lead, middle, last, tail @ ..] = rest else { return text };
        let unit = (u32::from(lead & 0x0f) << 12) | (u32::from(middle & 0x3f) << 6) | u32::from(last & 0x3f);
        text.push_str(&format!("\\u{unit:04x}"));
        bytes = tail;
    }
}

/// Deepest nesting of a payload that is held to a schema: validators call themselves once for each level.
pub const MAX_SCHEMA_DEPTH: usize = 512;

/// A payload is nested deeper than [`MAX_SCHEMA_DEPTH`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("it is nested deeper than {MAX_SCHEMA_DEPTH} levels, and payloads like that are not held to schemas")]
pub struct TooDeep;

/// The value as a tree, for a validator. Numbers beyond 64 bits become the nearest double, and those beyond its range
/// the largest.
pub(crate) fn tree(value: &RawValue) -> Result<Value, TooDeep> {
    if depth(value.get()) > MAX_SCHEMA_DEPTH {
        return Err(TooDeep);
    }
    Ok(branch(value))
}

fn branch(value: &RawValue) -> Value {
    struct Members(serde_json::Map<String, Value>);
    impl<'de> Deserialize<'de> for Members {
        fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
            struct All;
            impl<'de> Visitor<'de> for All {
                type Value = Members;

                fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                    f.write_str("an object")
                }

                fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Members, A::Error> {
                    let mut members = serde_json::Map::new();
                    while let Some((key, value)) = map.next_entry::<&RawValue, &RawValue>()? {
                        members.insert(unescaped(key).unwrap_or_default().into_owned(), branch(value));
                    }
                    Ok(Members(members))
                }
            }
            from.deserialize_map(All)
        }
    }
    // It was JSON all along, so nothing here fails.
    match value.get().as_bytes().first() {
        Some(b'{') => serde_json::from_str(value.get()).map_or(Value::Null, |Members(members)| Value::Object(members)),
        Some(b'[') => {
            let items = serde_json::from_str::<Vec<&RawValue>>(value.get()).unwrap_or_default();
            items.into_iter().map(branch).collect()
        }
        _ => match Scalar::of(value) {
            Some(Scalar::Text(text)) => Value::String(text.into_owned()),
            Some(Scalar::Bool(truth)) => Value::Bool(truth),
            Some(Scalar::Number(digits)) => number(digits),
            None => Value::Null,
        },
    }
}

fn number(digits: &str) -> Value {
    if let Ok(number) = serde_json::from_str::<serde_json::Number>(digits) {
        return Value::Number(number);
    }
    let double = digits.parse::<f64>().unwrap_or_default();
    Value::from(double.clamp(f64::MIN, f64::MAX))
}

/// How deep arrays and objects are nested in a text that is JSON.
fn depth(json: &str) -> usize {
    let (mut depth, mut deepest, mut in_text, mut escaped) = (0usize, 0, false, false);
    for byte in json.bytes() {
        match byte {
            _ if escaped => escaped = false,
            b'\\' if in_text => escaped = true,
            b'"' => in_text = !in_text,
            b'[' | b'{' if !in_text => {
                depth += 1;
                deepest = deepest.max(depth);
            }
            b']' | b'}' if !in_text => depth -= 1,
            _ => {}
        }
    }
    deepest
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(body: &str, path: &str) -> Option<String> {
        json("", body.as_bytes())?.text(&JsonPath::parse(path).unwrap())
    }

    #[test]
    fn items_keep_their_bytes() {
        let body = Bytes::from_static(br#" {"a": [{"n": 1.10},  2 ]}"#);
        let path = JsonPath::parse("$.a").unwrap();
        assert_eq!(items("", &body, &path).unwrap(), [&br#"{"n": 1.10}"#[..], b"2"]);
        assert_eq!(items("", &body, &JsonPath::parse("/b").unwrap()), None);
        assert_eq!(items("", &body, &JsonPath::parse("").unwrap()), None);
        assert_eq!(items("", &Bytes::from_static(b"[1]\r\n"), &JsonPath::parse("").unwrap()).unwrap(), [&b"1"[..]]);
    }

    #[test]
    fn a_form_is_read_through_its_payload_field_where_that_is_json() {
        let at = |body: &'static [u8], path: &str| json_or_form("", body).text(&JsonPath::parse(path).unwrap());
        assert_eq!(at(b"payload=%7B%22a%22%3A1%7D", "/a").as_deref(), Some("1"));
        assert_eq!(at(b"payload=no&b=2", "/b").as_deref(), Some("2"));
        assert_eq!(at(b"b=1&b=2", "/b").as_deref(), Some("1"), "the first of equal names");
        assert_eq!(at(b"[1]", "/0").as_deref(), Some("1"));
    }

    #[test]
    fn a_number_has_every_digit_that_was_sent() {
        for digits in ["18446744073709551617", "-9223372036854775809", "1760000000.12345671", "1e400", "-0", "1.10"] {
            assert_eq!(at(&format!(r#"{{"id": {digits} }}"#), "/id").as_deref(), Some(digits));
        }
    }

    #[test]
    fn whatever_the_grammar_allows_can_be_looked_into() {
        let nested = format!(r#"{{"deep": {}{}, "id": "x"}}"#, "[".repeat(100_000), "]".repeat(100_000));
        let cases = [
            (r#"{"e": "\ud83d", "id": "x"}"#, "x"),
            (r#"{"\ud83d": 1, "id": "x"}"#, "x"),
            (r#"{"id": "\ud83d!"}"#, r"\ud83d!"),
            (r#"{"id": "\uD83D\uDE00"}"#, "😀"),
            (r#"{"n": 1e400, "id": "x"}"#, "x"),
            (r#"{"id": "first", "id": "last"}"#, "last"),
            (r#"{"i\u0064": "x"}"#, "x"),
            (r#"{"id": "a\/b\n"}"#, "a/b\n"),
            ("\u{feff}{\"id\": \"x\"}", "x"),
            ("\r\n\t {\"id\":\"x\"} \n", "x"),
            (&nested, "x"),
        ];
        for (body, expected) in cases {
            assert_eq!(at(body, "/id").as_deref(), Some(expected), "{}", &body[..body.len().min(80)]);
        }
        for body in
            ["", "{", "{'id': 1}", r#"{"id": 01}"#, r#"{"id": 1} {}"#, "{\"id\": \"a\nb\"}", "NaN", "{\"id\": 1,}"]
        {
            assert!(json("", body.as_bytes()).is_none(), "{body}");
        }
    }

    #[test]
    fn a_validator_gets_the_same_document_as_a_tree() {
        let tree = |text: &str| tree(&raw(text.into()).unwrap());
        let value = tree(r#"{"a": [1, 2.5, true, null, "\ud83d"], "b": 1e400, "c": 18446744073709551616}"#).unwrap();
        assert_eq!(value["a"], serde_json::json!([1, 2.5, true, null, "\\ud83d"]));
        assert_eq!(value["b"], f64::MAX);
        assert!(value["c"].is_number());
        let nested = |levels| format!("{}{}", "[".repeat(levels), "]".repeat(levels));
        assert!(tree(&nested(MAX_SCHEMA_DEPTH)).is_ok());
        assert_eq!(tree(&nested(MAX_SCHEMA_DEPTH + 1)), Err(TooDeep));
        assert!(tree(&format!("\"{}\"", "[".repeat(1000))).is_ok(), "brackets in a text do not nest");
    }
}
