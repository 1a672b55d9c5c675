//! A body as a JSON document, and the raw items of a batch inside it.

use std::collections::BTreeMap;

use bytes::Bytes;
use serde_json::Value;
use serde_json::value::RawValue;

use crate::signature::form;
use crate::signature::scheme::path::JsonPath;

/// Reads a body that must be JSON.
pub(crate) fn json(body: &[u8]) -> Option<Value> {
    serde_json::from_slice(body).ok()
}

/// Reads a body that is JSON, or a form whose field `payload` is JSON, or any form.
///
/// The bytes decide and not the content type: only they are signed.
pub(crate) fn json_or_form(body: &[u8]) -> Value {
    json(body).unwrap_or_else(|| {
        let fields = form::fields(body);
        let payload = form::get(&fields, "payload").and_then(|text| json(text.as_bytes()));
        payload.unwrap_or_else(|| form::object(&fields))
    })
}

/// The items of the array at `path`, each with its bytes as they stand in `body`.
pub(crate) fn items(body: &Bytes, path: &JsonPath) -> Option<Vec<Bytes>> {
    let mut at: &RawValue = serde_json::from_slice(body).ok()?;
    for step in path.steps() {
        at = match serde_json::from_str::<BTreeMap<String, &RawValue>>(at.get()) {
            Ok(members) => members.get(step).copied()?,
            Err(_) => {
                serde_json::from_str::<Vec<&RawValue>>(at.get()).ok()?.get(step.parse::<usize>().ok()?).copied()?
            }
        };
    }
    let items: Vec<&RawValue> = serde_json::from_str(at.get()).ok()?;
    Some(items.into_iter().map(|item| body.slice_ref(item.get().as_bytes())).collect())
}

/// A text, number or truth value as text.
pub(crate) fn scalar(value: &Value) -> Option<String> {
    match value {
        Value::String(text) => Some(text.clone()),
        Value::Number(number) => Some(number.to_string()),
        Value::Bool(truth) => Some(truth.to_string()),
        Value::Null | Value::Array(_) | Value::Object(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn items_keep_their_bytes() {
        let body = Bytes::from_static(br#" {"a": [{"n": 1.10},  2 ]}"#);
        let path = JsonPath::parse("$.a").unwrap();
        assert_eq!(items(&body, &path).unwrap(), [&br#"{"n": 1.10}"#[..], b"2"]);
        assert_eq!(items(&body, &JsonPath::parse("/b").unwrap()), None);
        assert_eq!(items(&body, &JsonPath::parse("").unwrap()), None);
        assert_eq!(items(&Bytes::from_static(b"[1]\r\n"), &JsonPath::parse("").unwrap()).unwrap(), [&b"1"[..]]);
    }

    #[test]
    fn a_form_is_read_through_its_payload_field_where_that_is_json() {
        assert_eq!(json_or_form(b"payload=%7B%22a%22%3A1%7D"), serde_json::json!({ "a": 1 }));
        assert_eq!(json_or_form(b"payload=no&b=2"), serde_json::json!({ "payload": "no", "b": "2" }));
        assert_eq!(json_or_form(b"[1]"), serde_json::json!([1]));
    }
}
