//! Request bodies: JSON, complete, with every wrong field named.

use std::future::Future;
use std::pin::Pin;

use actix_web::dev::Payload;
use actix_web::web::Data;
use actix_web::{FromRequest, HttpRequest};
use bytes::{Bytes, BytesMut};
use futures_util::StreamExt as _;
use posthorn_core::plain::plain;
use posthorn_process::problem::FieldError;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Deserializer};
use serde_json::Value;

use super::Api;
use crate::contract::{self, Shape};
use crate::error::{ApiError, ApiResult};

/// A request's body, read up to the limit.
#[derive(Clone, Debug)]
pub struct Body(pub Bytes);

impl Body {
    /// Reads the body as `T`, which the contract calls `schema`. Invalid with every field that is wrong.
    pub fn parse<T: DeserializeOwned>(&self, schema: Shape) -> ApiResult<T> {
        let mut value: Value = serde_json::from_slice(&self.0).map_err(|error| malformed(&self.0, &error))?;
        if let Some(pointer) = nul(&value) {
            return Err(ApiError::field(pointer, "holds a NUL character"));
        }
        whole_numbers(&mut value);
        let violations = contract::violations(schema, &value);
        if !violations.is_empty() {
            return Err(ApiError::Invalid(violations));
        }
        // Rules that the contract does not have.
        serde_path_to_error::deserialize(value).map_err(|error| {
            let message = error.inner().to_string();
            let (field, detail) = plain(&message);
            let mut pointer = pointer(error.path());
            // serde tells of a missing or unknown field at the object around it.
            if let Some(step) = field.map(|field| format!("/{field}")).filter(|step| !pointer.ends_with(step)) {
                pointer.push_str(&step);
            }
            ApiError::field(pointer, detail)
        })
    }

    /// Likewise, of an operation that needs no body: nothing is `{}`.
    pub fn parse_optional<T: DeserializeOwned>(&self, schema: Shape) -> ApiResult<T> {
        if self.0.is_empty() { Self(Bytes::from_static(b"{}")).parse(schema) } else { self.parse(schema) }
    }

    /// Reads the body of an operation without parameters: `{}`, or nothing.
    pub fn parse_empty(&self) -> ApiResult<()> {
        #[derive(Deserialize)]
        #[serde(deny_unknown_fields)]
        struct Empty {}
        let Empty {} = self.parse_optional(Shape::Empty)?;
        Ok(())
    }
}

/// Tells where a body stops being JSON.
fn malformed(body: &[u8], error: &serde_json::Error) -> ApiError {
    if body.iter().all(u8::is_ascii_whitespace) {
        return ApiError::Malformed("it is empty; it must be a JSON object".to_owned());
    }
    let (line, column) = (error.line(), error.column());
    if error.is_eof() {
        return ApiError::Malformed(format!("it ends too early, at line {line}, column {column}"));
    }
    let message = error.to_string();
    let detail = match message.split(" at line ").next().unwrap_or_default() {
        "key must be a string" => "a field's name must be in double quotes",
        "trailing characters" => "there is more after the end of the object",
        "trailing comma" => "there is a comma with nothing after it",
        "expected value" => {
            "a value must be there: a text in double quotes, a number, `true`, `false`, `null`, `{` or `[`"
        }
        "expected ident" => "a word must be `true`, `false` or `null`; a text must be in double quotes",
        "recursion limit exceeded" => "it is nested too deep",
        other => other,
    };
    ApiError::Malformed(format!("line {line}, column {column}: {detail}"))
}

impl FromRequest for Body {
    type Error = ApiError;
    type Future = Pin<Box<dyn Future<Output = Result<Self, ApiError>>>>;

    fn from_request(request: &HttpRequest, payload: &mut Payload) -> Self::Future {
        let limit_bytes = request.app_data::<Data<Api>>().map_or(0, |api| api.max_body_bytes);
        let mut payload = payload.take();
        Box::pin(async move {
            let mut body = BytesMut::new();
            while let Some(chunk) = payload.next().await {
                let chunk = chunk.map_err(|error| ApiError::Malformed(error.to_string()))?;
                if body.len() + chunk.len() > limit_bytes {
                    return Err(ApiError::TooLarge { limit_bytes });
                }
                body.extend_from_slice(&chunk);
            }
            Ok(Self(body.freeze()))
        })
    }
}

/// For a field of a PATCH that may be left out but not be `null`.
pub fn given<'de, D: Deserializer<'de>, T: Deserialize<'de>>(from: D) -> Result<Option<T>, D::Error> {
    T::deserialize(from).map(Some)
}

/// For a field of a PATCH that may be left out (`None`) or be `null` (`Some(None)`).
pub fn nullable<'de, D: Deserializer<'de>, T: Deserialize<'de>>(from: D) -> Result<Option<Option<T>>, D::Error> {
    Option::<T>::deserialize(from).map(Some)
}

/// Collects what is wrong with a body.
#[derive(Debug, Default)]
pub struct Checks(Vec<FieldError>);

impl Checks {
    pub fn require(&mut self, holds: bool, pointer: &str, detail: &str) {
        if !holds {
            self.fail(pointer, detail);
        }
    }

    pub fn fail(&mut self, pointer: impl Into<String>, detail: impl Into<String>) {
        self.0.push(FieldError { pointer: pointer.into(), detail: detail.into() });
    }

    /// One line of 1 to 200 characters.
    pub fn name(&mut self, pointer: &str, name: &str) {
        let characters = name.chars().count();
        self.require((1..=200).contains(&characters), pointer, "must have from 1 to 200 characters");
        self.require(
            !name.chars().any(|c| c < ' ' || c == '\u{7f}'),
            pointer,
            "must be one line, without control characters",
        );
    }

    pub fn finish(self) -> ApiResult<()> {
        if self.0.is_empty() { Ok(()) } else { Err(ApiError::Invalid(self.0)) }
    }
}

/// Where a text holds a NUL, which PostgreSQL keeps in none.
fn nul(value: &Value) -> Option<String> {
    let step = |name: &str| format!("/{}", name.replace('~', "~0").replace('/', "~1"));
    match value {
        Value::String(text) => text.contains('\0').then(String::new),
        Value::Array(items) => {
            items.iter().enumerate().find_map(|(index, item)| Some(format!("/{index}{}", nul(item)?)))
        }
        Value::Object(members) => members.iter().find_map(|(name, member)| {
            if name.contains('\0') { Some(String::new()) } else { Some(format!("{}{}", step(name), nul(member)?)) }
        }),
        Value::Null | Value::Bool(_) | Value::Number(_) => None,
    }
}

/// `10.0` is a whole number in JSON Shape, but not for serde.
fn whole_numbers(value: &mut Value) {
    match value {
        Value::Number(number) if number.is_f64() => {
            // Up to 2^53 every whole number has an exact float.
            let whole = number.as_f64().filter(|float| float.fract() == 0.0 && float.abs() <= 9_007_199_254_740_992.0);
            if let Some(whole) = whole {
                *value = Value::from(whole as i64);
            }
        }
        Value::Array(items) => items.iter_mut().for_each(whole_numbers),
        Value::Object(fields) => fields.values_mut().for_each(whole_numbers),
        _ => {}
    }
}

fn pointer(path: &serde_path_to_error::Path) -> String {
    use serde_path_to_error::Segment;
    let mut pointer = String::new();
    for segment in path {
        match segment {
            Segment::Seq { index } => pointer.push_str(&format!("/{index}")),
            Segment::Map { key } => pointer.push_str(&format!("/{}", key.replace('~', "~0").replace('/', "~1"))),
            Segment::Enum { .. } | Segment::Unknown => {}
        }
    }
    pointer
}
