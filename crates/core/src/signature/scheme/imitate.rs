//! Writing a request that a scheme accepts: the reading of [`Extract`] and [`Proof`] the other way round.

use bytes::Bytes;
use jiff::Timestamp;
use serde::Deserialize;
use serde_json::{Map, Value};

use crate::body::document;
use crate::body::path::JsonPath;
use crate::event_type::EventType;
use crate::request::RawRequest;
use crate::signature::imitation::{Imitation, ImitationError, Wish};
use crate::signature::scheme::Scheme;
use crate::signature::scheme::clock::{TimeFormat, TimestampPlace};
use crate::signature::scheme::scope::Scope;
use crate::signature::scheme::source::{Choice, Source};
use crate::signature::scheme::template::{Part, Template};

/// A usual request of the provider's, of which id, type and time are replaced.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Sample {
    event_type: Option<String>,
    body: Option<Value>,
    headers: Map<String, Value>,
}

/// A request that is being written.
struct Draft {
    headers: Vec<(String, String)>,
    query: Vec<(String, String)>,
    /// One event: the item, in a batch.
    body: Value,
    /// The payload is somebody's own: it is sent as it is.
    is_fixed: bool,
}

impl Scheme {
    pub(crate) fn imitate(&self, wish: &Wish<'_>) -> Result<Imitation, ImitationError> {
        let mut draft = Draft::of(&self.sample, wish);
        draft.put(&self.extract.event_id, &Value::from(wish.id));
        draft.put_time(&self.extract.occurred_at, wish.now);
        // Whatever else of the body is signed by itself tells requests apart, like Mailgun's token.
        for part in self.proof.iter().flat_map(|proof| &proof.signed).flat_map(Template::parts) {
            if let Part::Json(path) = part
                && path.find(&draft.body).is_none()
            {
                draft.put_json(path, Value::from(wish.id));
            }
        }
        let path_event = self.name(&mut draft, wish)?;
        let body = match &self.batch {
            Some(_) if draft.is_fixed => draft.body.clone(),
            Some(path) => wrapped(path, draft.body.clone())?,
            None => draft.body.clone(),
        };
        let mut request = RawRequest {
            method: "POST".to_owned(),
            target: target(wish.address, path_event, &draft.query),
            headers: draft.headers.into_iter().collect(),
            body: Bytes::from(body.to_string()),
        };
        self.sign(&mut request, body, wish.now)?;
        let headers = request.headers.iter().map(|(name, value)| (name.to_owned(), value.to_owned())).collect();
        Ok(Imitation { target: request.target, headers, body: request.body })
    }

    /// Puts the type where the scheme reads it; answers what has to stand in the path instead.
    fn name<'w>(&'w self, draft: &mut Draft, wish: &Wish<'w>) -> Result<Option<&'w str>, ImitationError> {
        const UNNAMED: &str = "test.sample";
        let usual = self.sample.event_type.as_deref();
        let wanted = wish.event_type.or(usual.filter(|_| wish.payload.is_none()));
        if let Some(wanted) = wanted
            && draft.put(&self.extract.event_type, &Value::from(wanted))
        {
            return Ok(None);
        }
        match (wanted, self.takes_path_event) {
            (wanted, true) if self.extract.event_type.sources().is_empty() => in_path(wanted.unwrap_or(UNNAMED)),
            // A sample or payload that says what it is, or a scheme with a type for all.
            (None, _) => Ok(None),
            (Some(wanted), true) => in_path(wanted),
            (Some(wanted), false) if self.extract.default_type.as_deref() == Some(wanted) => Ok(None),
            (Some(_), false) => Err(ImitationError::NoPlaceForType),
        }
    }

    fn sign(&self, request: &mut RawRequest, mut body: Value, now: Timestamp) -> Result<(), ImitationError> {
        let Some(proof) = &self.proof else { return Ok(()) };
        let mut timestamp = None;
        if let Some(rule) = &proof.timestamp {
            let text = rule.write(now);
            match &rule.place {
                TimestampPlace::Header(names) => set(&mut request.headers, &names[0], &text),
                TimestampPlace::Beside(_) => {}
                TimestampPlace::Json(path) => {
                    let value = if rule.format == TimeFormat::Iso8601 { None } else { text.parse::<i64>().ok() };
                    path.put(&mut body, value.map_or_else(|| Value::from(text.as_str()), Value::from));
                    request.body = Bytes::from(body.to_string());
                }
            }
            timestamp = Some(text);
        }
        let text = body.to_string();
        let document = document::json("", text.as_bytes());
        let scope = Scope {
            public_url: self.public_url.as_ref(),
            document: document.as_ref(),
            timestamp: timestamp.as_deref(),
            ..Scope::of(request)
        };
        let signature = proof.sign(&scope).ok_or(ImitationError::KeyNotHere)?;
        match &proof.rule.source {
            Source::Header(names) => set(&mut request.headers, &names[0], &signature),
            Source::Json(path) if proof.signed.as_ref().is_none_or(|signed| !signed.holds(&Part::Body)) => {
                path.put(&mut body, Value::from(signature));
                request.body = Bytes::from(body.to_string());
            }
            _ => return Err(ImitationError::NoPlaceForSignature),
        }
        Ok(())
    }
}

impl Draft {
    fn of(sample: &Sample, wish: &Wish<'_>) -> Self {
        let text = |(name, value): (&String, &Value)| Some((name.to_ascii_lowercase(), value.as_str()?.to_owned()));
        let mut headers: Vec<_> = sample.headers.iter().filter_map(text).collect();
        headers.push(("content-type".to_owned(), "application/json".to_owned()));
        let body = wish.payload.cloned().or_else(|| sample.body.clone());
        Self { headers, query: vec![], body: body.unwrap_or_else(empty), is_fixed: wish.payload.is_some() }
    }

    /// Puts a value where the first source that has room for it would find it.
    fn put(&mut self, choice: &Choice, value: &Value) -> bool {
        choice.sources().iter().any(|source| self.put_at(source, value))
    }

    fn put_at(&mut self, source: &Source, value: &Value) -> bool {
        let text = || value.as_str().map_or_else(|| value.to_string(), str::to_owned);
        match source {
            Source::Header(names) => self.put_header(&names[0], text()),
            Source::Query(name) => {
                self.query.push((name.clone(), text()));
                true
            }
            Source::Json(path) => self.put_json(path, value.clone()),
            Source::Template(template) => match split(template.parts(), &text()) {
                Some(pieces) => pieces.into_iter().all(|(part, piece)| match part {
                    Part::Header(name) => self.put_header(name, piece),
                    Part::Json(path) => self.put_json(path, Value::from(piece)),
                    _ => false,
                }),
                None => false,
            },
        }
    }

    fn put_header(&mut self, name: &str, value: String) -> bool {
        if value.contains(|c: char| c.is_control() || !c.is_ascii()) {
            return false;
        }
        self.headers.retain(|(known, _)| known != name);
        self.headers.push((name.to_owned(), value));
        true
    }

    fn put_json(&mut self, path: &JsonPath, value: Value) -> bool {
        // What somebody wrote is left as it is; it may say the same already.
        if self.is_fixed { path.find(&self.body).is_some() } else { path.put(&mut self.body, value) }
    }

    /// A time as the sample writes it: a number of seconds or milliseconds, or ISO 8601.
    fn put_time(&mut self, choice: &Choice, now: Timestamp) {
        const MILLIS_FROM: i64 = 100_000_000_000;
        let Some(source) = choice.sources().first() else { return };
        let known = match source {
            Source::Json(path) => path.find(&self.body).and_then(Value::as_i64),
            _ => None,
        };
        let value = match known {
            Some(known) if known >= MILLIS_FROM => Value::from(now.as_millisecond()),
            Some(_) => Value::from(now.as_second()),
            None => Value::from(now.to_string()),
        };
        self.put_at(source, &value);
    }
}

/// Where the path names the event, it is one already.
fn in_path(text: &str) -> Result<Option<&str>, ImitationError> {
    let is_one = EventType::parse(text).is_ok_and(|event_type| event_type.as_str() == text);
    if is_one { Ok(Some(text)) } else { Err(ImitationError::NoPlaceForType) }
}

fn empty() -> Value {
    Value::Object(Map::new())
}

fn wrapped(path: &JsonPath, item: Value) -> Result<Value, ImitationError> {
    let items = Value::Array(vec![item]);
    let mut body = Value::Null;
    if path.steps().next().is_none() {
        return Ok(items);
    }
    if path.put(&mut body, items) { Ok(body) } else { Err(ImitationError::NoSuchPayload) }
}

fn target(address: &str, path_event: Option<&str>, query: &[(String, String)]) -> String {
    let mut target = format!("/webhooks/{address}");
    if let Some(event) = path_event {
        target.push('/');
        target.push_str(&event.replace('/', "%2F"));
    }
    if !query.is_empty() {
        let encoded = url::form_urlencoded::Serializer::new(String::new()).extend_pairs(query).finish();
        target.push('?');
        target.push_str(&encoded);
    }
    target
}

fn set(headers: &mut crate::request::Headers, name: &str, value: &str) {
    let others = headers.iter().filter(|(known, _)| *known != name);
    *headers = others.chain([(name, value)]).collect();
}

/// What each place of a template has to hold for the template to read `text`.
fn split<'p>(parts: &'p [Part], text: &str) -> Option<Vec<(&'p Part, String)>> {
    let mut found = vec![];
    let mut rest = text;
    let mut parts = parts.iter().rev().peekable();
    while let Some(part) = parts.next() {
        if let Part::Literal(literal) = part {
            rest = rest.strip_suffix(literal.as_str())?;
            continue;
        }
        let from = match parts.peek() {
            None => 0,
            Some(Part::Literal(before)) => rest.rfind(before.as_str())? + before.len(),
            Some(_) => return None,
        };
        let (before, piece) = rest.split_at(from);
        if piece.is_empty() {
            return None;
        }
        found.push((part, piece.to_owned()));
        rest = before;
    }
    rest.is_empty().then_some(found)
}
