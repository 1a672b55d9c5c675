//! Templates: texts with places for parts of a request, such as `v0:{timestamp}:{body}`.

use serde::Deserialize;

use crate::body::path::JsonPath;

/// A text with places in braces. There is no way to write a brace itself; no scheme signs one.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub(crate) struct Template(Vec<Part>);

/// What stands in a template.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Part {
    Literal(String),
    /// `{body}`: the bytes of the body.
    Body,
    /// `{body_sha256}`: lower-case hex; of the item, in a batch.
    BodySha256,
    /// `{timestamp}`: the text of the scheme's timestamp.
    Timestamp,
    /// `{id}`: the event's id.
    Id,
    /// `{type}`: the event's type.
    Type,
    /// `{minute}`: the minute in which the request came, for events that nothing tells apart.
    Minute,
    /// `{method}`
    Method,
    /// `{url}`: the URL that the provider was given, with the request's query.
    Url,
    /// `{path}`: the path of the request line.
    Path,
    /// `{header:NAME}`
    Header(String),
    /// `{query:NAME}`
    Query(String),
    /// `{json:PATH}`: a text, number or truth value of the body; of the item, in a batch.
    Json(JsonPath),
}

impl Template {
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        let mut parts = vec![];
        let mut rest = text;
        while let Some((before, after)) = rest.split_once('{') {
            let (place, tail) = after.split_once('}').ok_or_else(|| format!("`{text}` has a `{{` without `}}`"))?;
            if !before.is_empty() {
                parts.push(Part::Literal(before.to_owned()));
            }
            parts.push(part(place)?);
            rest = tail;
        }
        if !rest.is_empty() {
            parts.push(Part::Literal(rest.to_owned()));
        }
        if parts.is_empty() {
            return Err("a template is not empty".to_owned());
        }
        Ok(Self(parts))
    }

    /// A template of one part.
    pub(crate) fn of(part: Part) -> Self {
        Self(vec![part])
    }

    pub(crate) fn parts(&self) -> &[Part] {
        &self.0
    }

    pub(crate) fn holds(&self, part: &Part) -> bool {
        self.0.contains(part)
    }
}

impl TryFrom<String> for Template {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        Self::parse(&text)
    }
}

fn part(place: &str) -> Result<Part, String> {
    Ok(match place {
        "body" => Part::Body,
        "body_sha256" => Part::BodySha256,
        "timestamp" => Part::Timestamp,
        "id" => Part::Id,
        "type" => Part::Type,
        "minute" => Part::Minute,
        "method" => Part::Method,
        "url" => Part::Url,
        "path" => Part::Path,
        _ => match place.split_once(':') {
            Some(("header", name)) if !name.is_empty() => Part::Header(name.to_ascii_lowercase()),
            Some(("query", name)) if !name.is_empty() => Part::Query(name.to_owned()),
            Some(("json", path)) => Part::Json(JsonPath::parse(path)?),
            _ => return Err(format!("`{{{place}}}` is not known")),
        },
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_template_is_its_literals_and_places_in_order() {
        let template = Template::parse("v0:{timestamp}:{header:X-Id}{body}").unwrap();
        let expected = [
            Part::Literal("v0:".into()),
            Part::Timestamp,
            Part::Literal(":".into()),
            Part::Header("x-id".into()),
            Part::Body,
        ];
        assert_eq!(template.parts(), expected);
    }

    #[test]
    fn what_no_request_has_is_refused() {
        for text in ["", "{", "{nonsense}", "{header:}", "{json:x}", "{secret}"] {
            assert!(Template::parse(text).is_err(), "{text}");
        }
    }
}
