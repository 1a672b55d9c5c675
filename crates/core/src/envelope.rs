//! The body that a receiver gets.

use std::borrow::Cow;

use bytes::Bytes;
use jiff::Timestamp;
use serde::Serialize;
use serde::ser::SerializeMap;
use serde_json::value::RawValue;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;

use crate::body::document::{self, TooDeep};
use crate::body::form::{self, Form};
use crate::body::text;
use crate::event_type::EventType;
use crate::subscription::PayloadFormat;
use crate::time::Rfc3339;

const JSON: &str = "application/json";

/// An event as it goes into a body.
#[derive(Clone, Copy, Debug)]
pub struct Payload<'a> {
    pub event_type: &'a EventType,
    /// The event's own time, the same on every attempt.
    pub timestamp: Timestamp,
    /// The provider's content type; may be empty.
    pub content_type: &'a str,
    /// The provider's; empty where there is none.
    pub content_encoding: &'a str,
    pub body: &'a Bytes,
}

/// The exact bytes to sign and send, and their content type.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rendered {
    pub content_type: String,
    /// Of bytes that are passed on as they came; empty for none.
    pub content_encoding: String,
    pub body: Bytes,
}

/// Renders the body that is sent and signed. The same payload always gives the same bytes.
pub fn render(format: PayloadFormat, payload: &Payload<'_>) -> Rendered {
    let name = match format {
        PayloadFormat::Raw => {
            let content_type = if payload.content_type.is_empty() { JSON } else { payload.content_type };
            return Rendered {
                content_type: content_type.to_owned(),
                content_encoding: payload.content_encoding.to_owned(),
                body: payload.body.clone(),
            };
        }
        PayloadFormat::Standard => "type",
        PayloadFormat::Event => "event",
    };
    let envelope = Envelope { name, payload };
    // Strings, and values that were parsed a moment ago: there is nothing that cannot be written.
    let body = serde_json::to_vec(&envelope).unwrap_or_default();
    Rendered { content_type: JSON.to_owned(), content_encoding: String::new(), body: body.into() }
}

/// A body's meaning, for `data` and for the API's `payload`.
#[derive(Debug)]
pub enum Data<'a> {
    /// As the provider wrote it: numbers and spacing are not touched.
    Json(Cow<'a, RawValue>),
    Form(Form),
    Text(Cow<'a, str>),
    /// Neither JSON, form nor text; shown in base64.
    Binary(&'a [u8]),
}

impl<'a> Data<'a> {
    /// Reads `body`. Its bytes decide before its content type does: some providers send JSON as `text/plain`, and curl
    /// and many cron jobs send it as a form. Under a form's content type an object or a list is JSON, since no form
    /// is written like one.
    pub fn read(content_type: &str, body: &'a [u8]) -> Self {
        let is_form = text::is(content_type, form::MEDIA_TYPE);
        let decoded = text::decode(content_type, body);
        let may_be_json = |text: &str| !is_form || text.trim_start().starts_with(['{', '[']);
        if let Some(json) = decoded.clone().filter(|text| may_be_json(text)).and_then(document::raw) {
            return Self::Json(json);
        }
        if is_form {
            let form = Form::read(content_type, body);
            // A field in an unknown charset would lose letters; the bytes lose nothing.
            return if form.is_text() { Self::Form(form) } else { Self::Binary(body) };
        }
        match decoded {
            Some(text @ Cow::Borrowed(_)) => Self::Text(text),
            Some(text) if text::charset(content_type).is_some() => Self::Text(text),
            // Only a byte order mark says that this is text.
            _ => Self::Binary(body),
        }
    }

    /// As a tree, for a validator.
    pub fn tree(&self) -> Result<serde_json::Value, TooDeep> {
        match self {
            Self::Json(value) => document::tree(value),
            // Texts and lists of texts: there is nothing that cannot be written.
            Self::Form(_) | Self::Text(_) | Self::Binary(_) => Ok(serde_json::to_value(self).unwrap_or_default()),
        }
    }
}

impl Serialize for Data<'_> {
    fn serialize<S: serde::Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Json(value) => value.serialize(to),
            Self::Form(form) => form.serialize(to),
            Self::Text(text) => to.serialize_str(text),
            Self::Binary(bytes) => to.serialize_str(&BASE64.encode(bytes)),
        }
    }
}

struct Envelope<'a> {
    name: &'static str,
    payload: &'a Payload<'a>,
}

impl Serialize for Envelope<'_> {
    fn serialize<S: serde::Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        let mut map = to.serialize_map(Some(3))?;
        map.serialize_entry(self.name, self.payload.event_type.as_str())?;
        map.serialize_entry("timestamp", &Rfc3339(self.payload.timestamp))?;
        map.serialize_entry("data", &Data::read(self.payload.content_type, self.payload.body))?;
        map.end()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rendered(format: PayloadFormat, content_type: &str, body: &'static str) -> (String, String) {
        let event_type = EventType::parse("invoice.paid").unwrap();
        let payload = Payload {
            event_type: &event_type,
            timestamp: Timestamp::from_millisecond(1_782_864_000_120).unwrap(),
            content_type,
            content_encoding: "gzip",
            body: &Bytes::from_static(body.as_bytes()),
        };
        let Rendered { content_type, content_encoding, body } = render(format, &payload);
        assert_eq!(content_encoding, if format == PayloadFormat::Raw { "gzip" } else { "" });
        (content_type, String::from_utf8(body.to_vec()).unwrap())
    }

    #[test]
    fn json_is_carried_as_it_came_to_the_last_digit() {
        let (content_type, body) =
            rendered(PayloadFormat::Standard, "application/json", r#"{"big":12345678901234567890.10, "e":1E2}"#);
        assert_eq!(content_type, "application/json");
        assert_eq!(
            body,
            r#"{"type":"invoice.paid","timestamp":"2026-07-01T00:00:00.120Z","data":{"big":12345678901234567890.10, "e":1E2}}"#
        );
    }

    #[test]
    fn a_form_becomes_an_object_of_its_fields() {
        let (_, body) = rendered(
            PayloadFormat::Event,
            "application/x-www-form-urlencoded; charset=UTF-8",
            "Body=a+b%21&To=1&Media=x&Media=y&Empty=",
        );
        assert_eq!(
            body,
            r#"{"event":"invoice.paid","timestamp":"2026-07-01T00:00:00.120Z","data":{"Body":"a b!","To":"1","Media":["x","y"],"Empty":""}}"#
        );
    }

    #[test]
    fn raw_is_the_providers_bytes_and_content_type() {
        let (content_type, body) = rendered(PayloadFormat::Raw, "text/xml", "<a/>");
        assert_eq!((content_type.as_str(), body.as_str()), ("text/xml", "<a/>"));
    }

    #[test]
    fn json_is_carried_whatever_its_content_type_charset_and_depth() {
        let deep = format!("{}{}", "[".repeat(10_000), "]".repeat(10_000));
        let form = "application/x-www-form-urlencoded";
        let utf16 = [b"\xff\xfe".as_slice(), b"[\x001\0]\0"].concat();
        let cases: [(&str, &[u8], &str); 8] = [
            (form, br#"{"n": 1, "note": "1+1=2 & 100%25"}"#, r#"{"n": 1, "note": "1+1=2 & 100%25"}"#),
            (form, b" [1] ", "[1]"),
            (form, b"12", r#"{"12":""}"#),
            ("", b"\xef\xbb\xbf{\"a\":1}", r#"{"a":1}"#),
            ("", br#"["\ud83d", 1e400]"#, r#"["\ud83d", 1e400]"#),
            ("", deep.as_bytes(), &deep),
            ("", &utf16, "[1]"),
            ("application/json; charset=latin1", b"[\"caf\xe9\"]", "[\"caf\u{e9}\"]"),
        ];
        for (content_type, body, expected) in cases {
            assert_eq!(serde_json::to_string(&Data::read(content_type, body)).unwrap(), expected);
        }
    }

    #[test]
    fn a_form_in_no_known_charset_is_carried_byte_for_byte() {
        let form = "application/x-www-form-urlencoded";
        let read = |content_type: &str| serde_json::to_string(&Data::read(content_type, b"city=K%F6ln")).unwrap();
        assert_eq!(read(form), r#""Y2l0eT1LJUY2bG4=""#);
        assert_eq!(read(&format!("{form}; charset=iso-8859-1")), "{\"city\":\"K\u{f6}ln\"}");
    }

    #[test]
    fn what_is_no_json_is_carried_as_text_or_base64() {
        assert_eq!(serde_json::to_string(&Data::read("text/plain", b"hello")).unwrap(), r#""hello""#);
        assert_eq!(serde_json::to_string(&Data::read("", &[0xff, 0xfe])).unwrap(), r#""//4=""#);
    }
}
