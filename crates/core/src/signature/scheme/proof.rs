//! Verifying the signature of a request, as a scheme describes it.

use jiff::Timestamp;

use crate::signature::refusal::{Refusal, RefusalKind};
use crate::signature::scheme::clock::{TimestampPlace, TimestampRule};
use crate::signature::scheme::key::{Algorithm, Key, Message};
use crate::signature::scheme::layout::SignatureRule;
use crate::signature::scheme::scope::Scope;
use crate::signature::scheme::source::{Choice, Source};
use crate::signature::scheme::template::{Part, Template};

/// How senders prove who they are.
pub(crate) struct Proof {
    pub(crate) rule: SignatureRule,
    pub(crate) timestamp: Option<TimestampRule>,
    /// `None` where the secret itself is sent.
    pub(crate) signed: Option<Template>,
    pub(crate) keys: Vec<Key>,
    /// Where the event's id stands, for schemes that sign it by that name.
    pub(crate) id: Choice,
}

/// What a proof established.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Proven {
    /// The secret that matched.
    pub(crate) secret: Option<usize>,
    /// The timestamp as it was signed.
    pub(crate) timestamp: Option<String>,
}

impl Proof {
    /// Whether the body has to be read before anything is verified.
    pub(crate) fn reads_json(&self) -> bool {
        let is_json = |part: &Part| match part {
            Part::Json(_) => true,
            Part::Timestamp => self.timestamp_is_in_body(),
            Part::Id => self.id.sources().iter().any(Source::reads_json),
            _ => false,
        };
        self.rule.source.reads_json() || self.signed.iter().any(|signed| signed.parts().iter().any(is_json))
    }

    /// Whether the time stands in the body, where it can be read only once the body is verified.
    pub(crate) fn timestamp_is_in_body(&self) -> bool {
        self.timestamp.as_ref().is_some_and(|rule| matches!(rule.place, TimestampPlace::Json(_)))
    }

    /// Verifies the signature. The time is checked after it: a stale request is one that was genuine.
    pub(crate) fn verify(&self, scope: &Scope<'_>) -> Result<Proven, Refusal> {
        let text = scope.source(&self.rule.source).ok_or_else(|| missing(&named(&self.rule.source)))?;
        let timestamp = self.timestamp_before(scope, &text)?;
        let id = scope.choice(&self.id);
        let scope = Scope { timestamp: timestamp.as_deref(), id: id.as_deref(), ..*scope };
        let message = self.message(&scope)?;
        let algorithms: Vec<Algorithm> = self.keys.iter().map(|key| key.algorithm).collect();
        let candidates = self.rule.candidates(&text, &algorithms)?;
        let fits = |key: &&Key| {
            let its_own = candidates.iter().filter(|candidate| candidate.algorithm == key.algorithm);
            key.accepts(&message, its_own.map(|candidate| candidate.bytes.as_slice()))
        };
        let matched = self.keys.iter().find(fits).map(|key| key.secret);
        let secret = matched.ok_or_else(|| Refusal::new(RefusalKind::SignatureMismatch, self.mismatch()))?;
        Ok(Proven { secret, timestamp })
    }

    /// The text that stands where the signature is looked for, made with the source's newest secret;
    /// `None` if a public key is all there is. `scope` knows the timestamp.
    pub(crate) fn sign(&self, scope: &Scope<'_>) -> Option<String> {
        let key = self.keys.iter().find(|key| key.secret == Some(0))?;
        let id = scope.choice(&self.id);
        let scope = Scope { id: id.as_deref(), ..*scope };
        let signature = key.sign(&self.message(&scope).ok()?)?;
        let beside = match &self.timestamp {
            Some(TimestampRule { place: TimestampPlace::Beside(name), .. }) => {
                scope.timestamp.map(|t| (name.as_str(), t))
            }
            _ => None,
        };
        Some(self.rule.write(key.algorithm, &signature, beside))
    }

    /// Checks the time of a request whose signature held.
    pub(crate) fn check_time(&self, scope: &Scope<'_>, now: Timestamp) -> Result<(), Refusal> {
        let Some(rule) = &self.timestamp else { return Ok(()) };
        let text = match &rule.place {
            TimestampPlace::Json(path) => scope.source(&Source::Json(path.clone())),
            TimestampPlace::Header(_) | TimestampPlace::Beside(_) => scope.timestamp.map(str::to_owned),
        };
        let at = text.and_then(|text| rule.read(&text));
        let detail = "the body holds no timestamp where it should";
        rule.check(at.ok_or_else(|| Refusal::new(RefusalKind::MalformedBody, detail))?, now)
    }

    /// The timestamp where it stands in the head of the request, or is part of what is signed.
    fn timestamp_before(&self, scope: &Scope<'_>, signature: &str) -> Result<Option<String>, Refusal> {
        let Some(rule) = &self.timestamp else { return Ok(None) };
        let text = match &rule.place {
            TimestampPlace::Header(names) => {
                let source = Source::Header(names.clone());
                scope.source(&source).ok_or_else(|| missing(&named(&source)))?
            }
            TimestampPlace::Beside(key) => {
                let found = self.rule.beside(signature, key);
                found.ok_or_else(|| malformed(format!("there is no `{key}` beside the signature")))?.to_owned()
            }
            TimestampPlace::Json(path) => return Ok(scope.source(&Source::Json(path.clone()))),
        };
        match rule.read(&text) {
            Some(_) => Ok(Some(text)),
            None => Err(malformed("the timestamp is not one".to_owned())),
        }
    }

    fn message<'a>(&self, scope: &Scope<'a>) -> Result<Message<'a>, Refusal> {
        let Some(signed) = &self.signed else { return Ok(Message::default()) };
        let pieces = signed.parts().iter().map(|part| scope.part(part).ok_or_else(|| missing(&part_name(part))));
        pieces.collect::<Result<_, _>>().map(Message::new)
    }

    fn mismatch(&self) -> String {
        let keys = self.keys.len();
        let noun = if self.signed.is_none() { "what was sent is not" } else { "the signature is not that of" };
        let which = if keys == 1 { "the key" } else { "any key" };
        format!("{noun} {which} of this source ({keys} tried)")
    }
}

fn missing(what: &str) -> Refusal {
    Refusal::new(RefusalKind::MissingHeader, format!("{what} is missing"))
}

fn malformed(detail: String) -> Refusal {
    Refusal::new(RefusalKind::MalformedHeader, detail)
}

fn named(source: &Source) -> String {
    match source {
        Source::Header(names) => format!("the header `{}`", names.join("` or `")),
        Source::Query(name) => format!("the query parameter `{name}`"),
        Source::Json(_) | Source::Template(_) => "the signature in the body".to_owned(),
    }
}

fn part_name(part: &Part) -> String {
    match part {
        Part::Header(name) => format!("the header `{name}`"),
        Part::Query(name) => format!("the query parameter `{name}`"),
        Part::Timestamp => "the timestamp".to_owned(),
        Part::Id => "the id".to_owned(),
        _ => "a part of what is signed".to_owned(),
    }
}
