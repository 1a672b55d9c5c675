//! The body that a receiver gets.

use std::borrow::Cow;
use std::collections::BTreeMap;

use bytes::Bytes;
use jiff::Timestamp;
use serde::Serialize;
use serde::ser::SerializeMap;
use serde_json::value::RawValue;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;

use crate::event_type::EventType;
use crate::subscription::PayloadFormat;
use crate::time::Rfc3339;

const JSON: &str = "application/json";
const FORM: &str = "application/x-www-form-urlencoded";

/// An event as it goes into a body.
#[derive(Clone, Copy, Debug)]
pub struct Payload<'a> {
    pub event_type: &'a EventType,
    /// The event's own time, the same on every attempt.
    pub timestamp: Timestamp,
    /// The provider's content type; may be empty.
    pub content_type: &'a str,
    pub body: &'a Bytes,
}

/// The exact bytes to sign and send, and their content type.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rendered {
    pub content_type: String,
    pub body: Bytes,
}

/// Renders the body that is sent and signed. The same payload always gives the same bytes.
pub fn render(format: PayloadFormat, payload: &Payload<'_>) -> Rendered {
    let name = match format {
        PayloadFormat::Raw => {
            let content_type = if payload.content_type.is_empty() { JSON } else { payload.content_type };
            return Rendered { content_type: content_type.to_owned(), body: payload.body.clone() };
        }
        PayloadFormat::Standard => "type",
        PayloadFormat::Event => "event",
    };
    let envelope = Envelope { name, payload };
    // Strings, and values that were parsed a moment ago: there is nothing that cannot be written.
    let body = serde_json::to_vec(&envelope).unwrap_or_default();
    Rendered { content_type: JSON.to_owned(), body: body.into() }
}

/// What a body means, for `data` and for the API's `payload`.
#[derive(Debug)]
pub enum Data<'a> {
    /// As the provider wrote it: numbers and spacing are not touched.
    Json(&'a RawValue),
    Form(Vec<(String, Vec<String>)>),
    Text(&'a str),
    /// Neither JSON, form nor text; shown in base64.
    Binary(&'a [u8]),
}

impl<'a> Data<'a> {
    /// Reads `body` by what it is, since some providers send JSON as `text/plain`.
    pub fn read(content_type: &str, body: &'a [u8]) -> Self {
        if is(content_type, FORM) {
            return Self::Form(form(body));
        }
        if let Ok(value) = serde_json::from_slice::<&RawValue>(body) {
            return Self::Json(value);
        }
        std::str::from_utf8(body).map_or(Self::Binary(body), Self::Text)
    }
}

impl Serialize for Data<'_> {
    fn serialize<S: serde::Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Json(value) => value.serialize(to),
            Self::Form(fields) => {
                let mut map = to.serialize_map(Some(fields.len()))?;
                for (name, values) in fields {
                    match values.as_slice() {
                        [one] => map.serialize_entry(name, one)?,
                        many => map.serialize_entry(name, many)?,
                    }
                }
                map.end()
            }
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

fn is(content_type: &str, wanted: &str) -> bool {
    content_type.split(';').next().is_some_and(|media| media.trim().eq_ignore_ascii_case(wanted))
}

/// Fields in order of first appearance; a name that repeats keeps all its values.
fn form(body: &[u8]) -> Vec<(String, Vec<String>)> {
    let mut fields: Vec<(String, Vec<String>)> = Vec::new();
    // A body can hold hundreds of thousands of names, too many to look through them for each.
    let mut places: BTreeMap<Cow<'_, str>, usize> = BTreeMap::new();
    for (name, value) in url::form_urlencoded::parse(body) {
        match places.get(&name) {
            Some(&at) => fields[at].1.push(value.into_owned()),
            None => {
                fields.push((name.clone().into_owned(), vec![value.into_owned()]));
                places.insert(name, fields.len() - 1);
            }
        }
    }
    fields
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
            body: &Bytes::from_static(body.as_bytes()),
        };
        let Rendered { content_type, body } = render(format, &payload);
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
    fn a_form_of_many_names_is_read_in_one_pass() {
        let body = (0..200_000).map(|n| format!("{n:x}&")).collect::<String>() + "0=again";
        let Data::Form(fields) = Data::read(FORM, body.as_bytes()) else { panic!("no form") };
        assert_eq!(fields.len(), 200_000);
        assert_eq!(fields[0], ("0".to_owned(), vec![String::new(), "again".to_owned()]));
    }

    #[test]
    fn raw_is_the_providers_bytes_and_content_type() {
        let (content_type, body) = rendered(PayloadFormat::Raw, "text/xml", "<a/>");
        assert_eq!((content_type.as_str(), body.as_str()), ("text/xml", "<a/>"));
    }

    #[test]
    fn what_is_no_json_is_carried_as_text_or_base64() {
        assert_eq!(serde_json::to_string(&Data::read("text/plain", b"hello")).unwrap(), r#""hello""#);
        assert_eq!(serde_json::to_string(&Data::read("", &[0xff, 0xfe])).unwrap(), r#""//4=""#);
    }
}
