//! Schemes as data: how a provider signs and where its events say what they are.
//!
//! A [`Spec`] is written in a configuration or a preset. Compiled with a source's keys it is a
//! [`Scheme`], which judges requests: prove, read the body, answer a handshake, read the events.

pub(crate) mod clock;
pub(crate) mod event;
mod handshake;
mod imitate;
pub(crate) mod key;
mod keyring;
mod layout;
mod proof;
mod rules;
pub(crate) mod scope;
pub(crate) mod source;
mod spec;
mod template;

use jiff::Timestamp;
use serde::Deserialize;

use crate::body::document::{self, Document};
use crate::body::path::JsonPath;
use crate::body::{form, text};
use crate::request::RawRequest;
use crate::signature::public_url::PublicUrl;
use crate::signature::refusal::{Refusal, RefusalKind};
use crate::signature::scheme::event::Extract;
use crate::signature::scheme::handshake::{Handshake, Method};
use crate::signature::scheme::imitate::Sample;
use crate::signature::scheme::key::Key;
use crate::signature::scheme::proof::Proof;
use crate::signature::scheme::scope::Scope;
use crate::signature::scheme::source::{Dedup, Source};
use crate::signature::verdict::{Answer, Verdict};

pub(crate) use spec::{Additions, Spec};

/// A scheme ready for use, with the keys of its source.
pub(crate) struct Scheme {
    /// `None` verifies nothing.
    proof: Option<Proof>,
    public_url: Option<PublicUrl>,
    body: BodyKind,
    extract: Extract,
    dedup: Dedup,
    batch: Option<JsonPath>,
    handshakes: Vec<Handshake>,
    verify_token: Option<String>,
    takes_path_event: bool,
    sample: Sample,
}

/// What a body must be once it is verified.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum BodyKind {
    /// JSON, or it is refused.
    Json,
    /// JSON, or a form that is one; anything else is refused.
    JsonOrForm,
    /// Anything; JSON and forms can be looked into.
    Any,
}

impl Scheme {
    pub(crate) fn is_verifying(&self) -> bool {
        self.proof.is_some()
    }

    pub(crate) fn secret_headers(&self) -> &[String] {
        match self.proof.as_ref().map(|proof| &proof.rule) {
            Some(rule) if rule.algorithms().iter().any(|algorithm| algorithm.sends_the_secret()) => {
                match &rule.source {
                    Source::Header(names) => names,
                    _ => &[],
                }
            }
            _ => &[],
        }
    }

    pub(crate) fn takes_get(&self) -> bool {
        self.handshakes.iter().any(|handshake| handshake.method == Method::Get)
    }

    /// The answer of a handshake by HEAD.
    pub(crate) fn head(&self, request: &RawRequest, now: Timestamp) -> Option<Answer> {
        let scope = Scope { public_url: self.public_url.as_ref(), now: Some(now), ..Scope::of(request) };
        self.handshake(Method::Head, &scope)
    }

    pub(crate) fn judge(
        &self,
        request: &RawRequest,
        path_event: Option<&str>,
        now: Timestamp,
    ) -> Result<Verdict, Refusal> {
        let scope = Scope { public_url: self.public_url.as_ref(), now: Some(now), ..Scope::of(request) };
        if request.method == "GET"
            && let Some(answer) = self.handshake(Method::Get, &scope)
        {
            return Ok(Verdict::Handshake(answer));
        }
        let reads_json = self.proof.as_ref().is_some_and(Proof::reads_json);
        let early = reads_json.then(|| document::json(request.content_type(), &request.body)).flatten();
        let scope = Scope { document: early.as_ref(), ..scope };
        let proven = self.proof.as_ref().map(|proof| proof.verify(&scope)).transpose()?;
        let timestamp = proven.as_ref().and_then(|proven| proven.timestamp.as_deref());
        let scope = Scope { timestamp, ..scope };
        self.check_time(false, &scope, now)?;
        let document = self.document(request)?;
        let scope = Scope { document: Some(&document), ..scope };
        self.check_time(true, &scope, now)?;
        if let Some(answer) = self.handshake(Method::Post, &scope) {
            return Ok(Verdict::Handshake(answer));
        }
        let matched = proven.as_ref().and_then(|proven| proven.secret);
        self.events(&scope, path_event.filter(|_| self.takes_path_event), matched)
    }

    /// Checks the time if it stands where `in_body` says.
    fn check_time(&self, in_body: bool, scope: &Scope<'_>, now: Timestamp) -> Result<(), Refusal> {
        let proof = self.proof.as_ref().filter(|proof| proof.timestamp_is_in_body() == in_body);
        proof.map_or(Ok(()), |proof| proof.check_time(scope, now))
    }

    fn document<'a>(&self, request: &'a RawRequest) -> Result<Document<'a>, Refusal> {
        let (content_type, body) = (request.content_type(), &request.body);
        match self.body {
            BodyKind::Any => Ok(document::json_or_form(content_type, body)),
            BodyKind::Json => document::json(content_type, body).ok_or_else(not_json),
            BodyKind::JsonOrForm => {
                let is_form = || text::is(content_type, form::MEDIA_TYPE) && form::is_genuine(body);
                let form = || is_form().then(|| document::json_or_form(content_type, body));
                document::json(content_type, body).or_else(form).ok_or_else(not_json)
            }
        }
    }

    fn handshake(&self, method: Method, scope: &Scope<'_>) -> Option<Answer> {
        let mut handshakes = self.handshakes.iter().filter(|handshake| handshake.method == method);
        handshakes.find_map(|handshake| handshake.answer(scope, self.keys(), self.verify_token.as_deref()))
    }

    fn keys(&self) -> &[Key] {
        self.proof.as_ref().map_or(&[], |proof| &proof.keys)
    }

    fn events(&self, scope: &Scope<'_>, path_event: Option<&str>, matched: Option<usize>) -> Result<Verdict, Refusal> {
        let Some(batch) = &self.batch else {
            let occurrence = self.extract.occurrence(scope, path_event, &self.dedup, None)?;
            return Ok(Verdict::Events { occurrences: vec![occurrence], matched });
        };
        let no_list = || Refusal::new(RefusalKind::MalformedBody, "the body holds no list of events where it should");
        let items = document::items(scope.request.content_type(), &scope.request.body, batch).ok_or_else(no_list)?;
        if items.is_empty() {
            return Ok(Verdict::Ignore { detail: "a list without events".to_owned() });
        }
        let occurrences = items.into_iter().map(|item| {
            let document = document::json("", &item).ok_or_else(not_json)?;
            let scope = Scope { document: Some(&document), bytes: &item, ..*scope };
            self.extract.occurrence(&scope, path_event, &self.dedup, Some(item.clone()))
        });
        Ok(Verdict::Events { occurrences: occurrences.collect::<Result<_, _>>()?, matched })
    }
}

fn not_json() -> Refusal {
    Refusal::new(RefusalKind::MalformedBody, "the body is not JSON")
}
