//! Where in a request a value stands, as configurations write it.

use serde::Deserialize;
use serde_json::Value;

use crate::body::path::JsonPath;
use crate::signature::scheme::template::{Part, Template};

/// `{"header": NAME}`, `{"query": NAME}`, `{"json": PATH}`, `{"template": TEXT}` or just a template.
/// `{"header": [A, B]}` is the first of the headers that the request has.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(try_from = "Value")]
pub(crate) enum Source {
    Header(Vec<String>),
    Query(String),
    Json(JsonPath),
    Template(Template),
}

/// One source, or several of which the first that gives a value counts. None at all gives nothing.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(try_from = "Value")]
pub(crate) struct Choice(Vec<Source>);

/// What makes an event this one and no other, and what does where a request lacks a part of that.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Dedup {
    pub(crate) parts: DedupParts,
    pub(crate) unkeyed: Unkeyed,
}

/// What a request without a key is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Unkeyed {
    /// The event that its type, its bytes and the time of its signature name.
    #[default]
    Content,
    /// Always a new event.
    New,
}

/// The parts of a key: one part, or a list of parts that count together.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(try_from = "Value")]
pub(crate) struct DedupParts(Vec<Choice>);

impl Source {
    /// Whether it reads the body.
    pub(crate) fn reads_json(&self) -> bool {
        match self {
            Self::Json(_) => true,
            Self::Template(template) => template.parts().iter().any(|part| matches!(part, Part::Json(_))),
            Self::Header(_) | Self::Query(_) => false,
        }
    }

    /// Whether it takes in the whole of [`Part`].
    pub(crate) fn holds(&self, part: &Part) -> bool {
        matches!(self, Self::Template(template) if template.holds(part))
    }
}

impl Choice {
    pub(crate) fn sources(&self) -> &[Source] {
        &self.0
    }
}

impl DedupParts {
    pub(crate) fn parts(&self) -> &[Choice] {
        &self.0
    }

    pub(crate) fn of(templates: &[Part]) -> Self {
        Self(templates.iter().map(|part| Choice(vec![Source::Template(Template::of(part.clone()))])).collect())
    }
}

impl TryFrom<Value> for Source {
    type Error = String;

    fn try_from(value: Value) -> Result<Self, String> {
        let fields = match value {
            Value::String(text) => return Template::parse(&text).map(Self::Template),
            Value::Object(fields) => fields,
            _ => return Err("must be a text, or an object such as {\"header\": \"X-Event-Id\"}".to_owned()),
        };
        let mut fields = fields.into_iter();
        match (fields.next(), fields.next()) {
            (Some((kind, value)), None) => Self::of_kind(&kind, value),
            _ => Err("must have exactly one of `header`, `query`, `json` and `template`".to_owned()),
        }
    }
}

impl Source {
    fn of_kind(kind: &str, value: Value) -> Result<Self, String> {
        match (kind, value) {
            ("header", Value::String(name)) => headers(vec![Value::String(name)]),
            ("header", Value::Array(names)) if !names.is_empty() => headers(names),
            ("query", Value::String(name)) => Ok(Self::Query(name)),
            ("json", Value::String(path)) => JsonPath::parse(&path).map(Self::Json),
            ("template", Value::String(text)) => Template::parse(&text).map(Self::Template),
            ("header" | "query" | "json" | "template", _) => Err(format!("`{kind}` is a text")),
            _ => Err(format!("`{kind}` is none of `header`, `query`, `json` and `template`")),
        }
    }
}

fn headers(names: Vec<Value>) -> Result<Source, String> {
    let names = names.into_iter().map(|name| match name {
        Value::String(name) if !name.is_empty() => Ok(name.to_ascii_lowercase()),
        _ => Err("the name of a header is a text that is not empty".to_owned()),
    });
    names.collect::<Result<_, _>>().map(Source::Header)
}

impl TryFrom<Value> for Choice {
    type Error = String;

    fn try_from(value: Value) -> Result<Self, String> {
        let sources = match value {
            Value::Array(items) => items.into_iter().map(Source::try_from).collect::<Result<_, _>>()?,
            one => vec![Source::try_from(one)?],
        };
        Ok(Self(sources))
    }
}

impl TryFrom<Value> for DedupParts {
    type Error = String;

    fn try_from(value: Value) -> Result<Self, String> {
        let parts = match value {
            Value::Array(items) if items.is_empty() => return Err("names at least one part".to_owned()),
            Value::Array(items) => items.into_iter().map(Choice::try_from).collect::<Result<_, _>>()?,
            one => vec![Choice::try_from(one)?],
        };
        Ok(Self(parts))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_way_of_naming_a_source_is_read() {
        let read = |value: Value| Source::try_from(value);
        assert_eq!(read(serde_json::json!({ "header": "X-Id" })), Ok(Source::Header(vec!["x-id".into()])));
        assert_eq!(read(serde_json::json!({ "header": ["A", "b"] })), Ok(Source::Header(vec!["a".into(), "b".into()])));
        assert_eq!(read(serde_json::json!({ "json": "$.id" })), Ok(Source::Json(JsonPath::parse("/id").unwrap())));
        assert_eq!(read(serde_json::json!("{id}")), Ok(Source::Template(Template::of(Part::Id))));
        for wrong in [serde_json::json!(1), serde_json::json!({}), serde_json::json!({ "header": 1 })] {
            assert!(read(wrong.clone()).is_err(), "{wrong}");
        }
        assert!(read(serde_json::json!({ "header": "a", "json": "/b" })).is_err());
        assert!(read(serde_json::json!({ "cookie": "a" })).is_err());
    }
}
