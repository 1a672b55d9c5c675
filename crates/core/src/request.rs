//! A provider's request as it came in, before anybody has believed a byte of it.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use serde::Deserialize;
use serde_json::{Value, json};

/// One HTTP request, held as received: signatures are made over exact bytes.
#[derive(Clone, Debug)]
pub struct RawRequest {
    /// Upper-case method name.
    pub method: String,
    /// Path and query exactly as in the request line, percent-encoding untouched.
    pub target: String,
    pub headers: Headers,
    pub body: Bytes,
}

impl RawRequest {
    /// The target without its query.
    pub fn path(&self) -> &str {
        self.target.split('?').next().unwrap_or_default()
    }

    /// Empty where the request names none.
    pub fn content_type(&self) -> &str {
        self.headers.get("content-type").unwrap_or_default()
    }

    /// As a document, from which [`Self::from_document`] makes the same request again. `path_event` is
    /// the event that its path named.
    pub fn to_document(&self, path_event: Option<&str>) -> Value {
        json!({
            "method": self.method,
            "target": self.target,
            "event": path_event,
            "headers": self.headers.iter().collect::<Vec<_>>(),
            "body": STANDARD.encode(&self.body),
        })
    }

    /// The request and the event that its path named. `None` if `document` is no request.
    pub fn from_document(document: &[u8]) -> Option<(Self, Option<String>)> {
        #[derive(Deserialize)]
        struct Document {
            method: String,
            target: String,
            event: Option<String>,
            headers: Vec<(String, String)>,
            body: String,
        }
        let Document { method, target, event, headers, body } = serde_json::from_slice(document).ok()?;
        let body = STANDARD.decode(body).ok()?.into();
        Some((Self { method, target, headers: headers.into_iter().collect(), body }, event))
    }
}

/// Header fields in order of arrival, names in lower case.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Headers(Vec<(String, String)>);

impl Headers {
    /// The first value of `name`, in whichever case it is asked for.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.0.iter().find(|(key, _)| key.eq_ignore_ascii_case(name)).map(|(_, value)| value.as_str())
    }

    pub fn get_all<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a str> {
        self.0.iter().filter(move |(key, _)| key.eq_ignore_ascii_case(name)).map(|(_, value)| value.as_str())
    }

    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0.iter().map(|(name, value)| (name.as_str(), value.as_str()))
    }
}

impl<N: AsRef<str>, V: Into<String>> FromIterator<(N, V)> for Headers {
    fn from_iter<I: IntoIterator<Item = (N, V)>>(fields: I) -> Self {
        Self(fields.into_iter().map(|(name, value)| (name.as_ref().to_ascii_lowercase(), value.into())).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_is_the_same_after_it_was_a_document() {
        let request = RawRequest {
            method: "POST".into(),
            target: "/webhooks/a/b%20c?d=%2F".into(),
            headers: [("X-One", "a"), ("x-one", "ü")].into_iter().collect(),
            body: Bytes::from_static(b"\0\xff{}"),
        };
        let document = request.to_document(Some("b c")).to_string();
        let (again, event) = RawRequest::from_document(document.as_bytes()).unwrap();
        assert_eq!((again.method, again.target, again.headers), (request.method, request.target, request.headers));
        assert_eq!((again.body, event.as_deref()), (request.body, Some("b c")));
        assert!(RawRequest::from_document(b"{}").is_none());
    }

    #[test]
    fn header_names_match_in_any_case_and_keep_their_order() {
        let headers: Headers = [("X-One", "a"), ("x-two", "b"), ("X-ONE", "c")].into_iter().collect();
        assert_eq!(headers.get("x-one"), Some("a"));
        assert_eq!(headers.get_all("X-One").collect::<Vec<_>>(), ["a", "c"]);
        assert_eq!(headers.get("x-three"), None);
    }
}
