//! What the payload of an event type looks like, as JSON Schema.

use std::fmt;

use jsonschema::{Draft, PatternOptions, Validator};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::envelope::Data;

/// Largest schema, in bytes of JSON.
pub const MAX_BYTES: usize = 65_536;

/// What a source does with payloads that are not what their event type's schema says.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Validation {
    /// Payloads are not looked at.
    #[default]
    Off,
    /// They are accepted, and the violation is noted with the event.
    Report,
    /// They are refused.
    Enforce,
}

impl Validation {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Off => "off",
            Self::Report => "report",
            Self::Enforce => "enforce",
        }
    }

    pub fn parse(text: &str) -> Option<Self> {
        [Self::Off, Self::Report, Self::Enforce].into_iter().find(|validation| validation.as_str() == text)
    }
}

/// A schema, ready to check payloads.
///
/// It refers to nothing outside of itself, and its patterns take time linear in the text: a schema
/// must neither make us fetch nor make us hang.
pub struct Schema(Validator);

/// Why a text is no schema.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SchemaError {
    #[error("must be a JSON object")]
    NotAnObject,
    #[error("has more than {MAX_BYTES} bytes")]
    TooLarge,
    #[error("is not a JSON Schema: {0}")]
    Invalid(String),
}

/// The first thing about a payload that its schema does not allow. Shows no value of the payload.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{pointer}`: {detail}")]
pub struct Violation {
    /// JSON Pointer (RFC 6901) into the payload; empty is the whole.
    pub pointer: String,
    pub detail: String,
}

impl Schema {
    /// Reads a schema. Draft 2020-12 unless its `$schema` names another.
    pub fn parse(schema: &Value) -> Result<Self, SchemaError> {
        if !schema.is_object() {
            return Err(SchemaError::NotAnObject);
        }
        if schema.to_string().len() > MAX_BYTES {
            return Err(SchemaError::TooLarge);
        }
        let draft = schema.get("$schema").and_then(Value::as_str).map_or(Draft::Draft202012, named_draft);
        jsonschema::options()
            .with_draft(draft)
            .with_pattern_options(PatternOptions::regex())
            .build(schema)
            .map(Self)
            .map_err(|error| {
                let place = error.instance_path().as_str();
                let place = if place.is_empty() { String::new() } else { format!("`{place}`: ") };
                // What may stand in its place is a page of the specification.
                let detail = error.to_string();
                let detail = detail
                    .replace("is not valid under any of the schemas listed in the 'anyOf' keyword", "cannot be there");
                SchemaError::Invalid(shortened(&format!("{place}{detail}")))
            })
    }

    /// Holds a payload to the schema.
    pub fn check(&self, payload: &Data<'_>) -> Result<(), Violation> {
        let tree = payload.tree();
        let tree = tree.map_err(|error| Violation { pointer: String::new(), detail: error.to_string() })?;
        self.check_tree(&tree)
    }

    /// Likewise, of one that is a tree already.
    pub fn check_tree(&self, payload: &Value) -> Result<(), Violation> {
        self.0.validate(payload).map_err(|error| Violation {
            pointer: shortened(error.instance_path().as_str()),
            detail: shortened(&error.masked().to_string()),
        })
    }
}

impl fmt::Debug for Schema {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Schema(…)")
    }
}

fn named_draft(uri: &str) -> Draft {
    match uri {
        uri if uri.contains("draft-04") => Draft::Draft4,
        uri if uri.contains("draft-06") => Draft::Draft6,
        uri if uri.contains("draft-07") => Draft::Draft7,
        uri if uri.contains("2019-09") => Draft::Draft201909,
        _ => Draft::Draft202012,
    }
}

/// What is told of a schema or payload that somebody else wrote has an end.
fn shortened(text: &str) -> String {
    const MAX_CHARACTERS: usize = 300;
    let mut short: String = text.chars().take(MAX_CHARACTERS).collect();
    if short.len() < text.len() {
        short.push('…');
    }
    short.replace('\0', "\u{fffd}")
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_payload_is_held_to_its_schema_and_the_place_of_the_first_violation_is_named() {
        let schema = json!({
            "type": "object", "required": ["id"],
            "properties": { "data": { "type": "object", "properties": { "total": { "type": "integer" } } } },
        });
        let schema = Schema::parse(&schema).unwrap();
        assert_eq!(schema.check_tree(&json!({ "id": 1, "data": { "total": 4200 } })), Ok(()));
        let wrong = schema.check_tree(&json!({ "id": 1, "data": { "total": "hush" } })).unwrap_err();
        assert_eq!(wrong.pointer, "/data/total");
        assert!(!wrong.detail.contains("hush"), "{wrong}");
        assert_eq!(schema.check_tree(&json!({})).unwrap_err().pointer, "");
    }

    #[test]
    fn what_is_no_schema_is_refused() {
        assert_eq!(Schema::parse(&json!(true)).unwrap_err(), SchemaError::NotAnObject);
        assert!(matches!(Schema::parse(&json!({ "type": "objekt" })), Err(SchemaError::Invalid(_))));
        assert!(matches!(Schema::parse(&json!({ "pattern": "(" })), Err(SchemaError::Invalid(_))));
        let large = json!({ "description": "x".repeat(MAX_BYTES) });
        assert_eq!(Schema::parse(&large).unwrap_err(), SchemaError::TooLarge);
    }

    #[test]
    fn a_schema_fetches_nothing_and_does_not_backtrack() {
        let elsewhere = json!({ "$ref": "https://example.com/schema.json" });
        assert!(matches!(Schema::parse(&elsewhere), Err(SchemaError::Invalid(_))));
        let file = json!({ "$ref": "file:///etc/passwd" });
        assert!(matches!(Schema::parse(&file), Err(SchemaError::Invalid(_))));
        let catastrophic = Schema::parse(&json!({ "pattern": "^(a+)+$" })).unwrap();
        assert!(catastrophic.check_tree(&json!(format!("{}b", "a".repeat(20_000)))).is_err());
    }
}
