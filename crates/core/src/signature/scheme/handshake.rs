//! Requests by which a provider asks whether we are there, answered at once and never stored.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::Deserialize;
use serde::de::IgnoredAny;
use serde_json::Value;

use crate::body::document::scalar;
use crate::signature::scheme::key::Key;
use crate::signature::scheme::scope::Scope;
use crate::signature::scheme::source::Source;
use crate::signature::verdict::Answer;

/// Which requests are handshakes, and what is answered.
///
/// A handshake by POST is verified like any request before it is answered. One by GET or HEAD cannot be:
/// providers sign nothing there.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Handshake {
    #[serde(default)]
    pub(crate) method: Method,
    /// All of them hold.
    when: Vec<Condition>,
    /// What the answer repeats as `{challenge}`, or the HMAC of what it gives as `{hmac_hex}` or
    /// `{hmac_base64}`.
    challenge: Option<Source>,
    /// Where the word stands that the source's `verify_token` must equal, if it has one.
    verify_token: Option<Source>,
    answer: Reply,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
pub(crate) enum Method {
    Get,
    Head,
    #[default]
    Post,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Condition {
    at: Source,
    /// The value there; without it, any.
    equals: Option<Value>,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Reply {
    #[serde(default = "ok")]
    status: u16,
    /// A text is answered as `text/plain`, anything else as JSON.
    body: Value,
}

impl Handshake {
    /// Whether it can be answered with these keys.
    pub(crate) fn check(&self, keys: &[Key]) -> Result<(), &'static str> {
        let wants_hmac = mentions(&self.answer.body, "{hmac_");
        if wants_hmac && keys.iter().all(|key| key.hmac_of("").is_none()) {
            return Err("an HMAC in the answer needs an HMAC scheme");
        }
        if self.challenge.is_none() && (wants_hmac || mentions(&self.answer.body, "{challenge}")) {
            return Err("an answer with a challenge needs `challenge`");
        }
        if !(200..300).contains(&self.answer.status) {
            return Err("a handshake is answered with 2xx");
        }
        Ok(())
    }

    pub(crate) fn asks_for_verify_token(&self) -> bool {
        self.verify_token.is_some()
    }

    /// The answer, if this request is the handshake.
    pub(crate) fn answer(&self, scope: &Scope<'_>, keys: &[Key], verify_token: Option<&str>) -> Option<Answer> {
        if !self.when.iter().all(|condition| condition.holds(scope)) {
            return None;
        }
        if let (Some(place), Some(expected)) = (&self.verify_token, verify_token) {
            scope.source(place).filter(|sent| sent == expected)?;
        }
        let challenge = match &self.challenge {
            Some(source) => scope.source(source).filter(|challenge| is_challenge(challenge))?,
            None => String::new(),
        };
        // A GET or HEAD is unauthenticated: do not sign a challenge that could be a valid body.
        if self.method != Method::Post && mentions(&self.answer.body, "{hmac_") && is_json(&challenge) {
            return None;
        }
        let hmac = keys.iter().find_map(|key| key.hmac_of(&challenge)).unwrap_or_default();
        let fill = |text: &str| {
            text.replace("{challenge}", &challenge)
                .replace("{hmac_hex}", &hex::encode(&hmac))
                .replace("{hmac_base64}", &STANDARD.encode(&hmac))
        };
        let (content_type, body) = match &self.answer.body {
            Value::String(text) => ("text/plain; charset=utf-8", fill(text)),
            other => ("application/json", filled(other, &fill).to_string()),
        };
        Some(Answer { status: self.answer.status, content_type: content_type.to_owned(), body })
    }
}

impl Condition {
    fn holds(&self, scope: &Scope<'_>) -> bool {
        let found = scope.source(&self.at);
        match &self.equals {
            Some(value) => found.is_some() && found == scalar(value),
            None => found.is_some(),
        }
    }
}

/// Whether a text may be repeated to a stranger: short, and of an alphabet that means nothing to a
/// browser.
fn is_challenge(text: &str) -> bool {
    let is_plain = |b: u8| b.is_ascii_alphanumeric() || b"+/=_-.~".contains(&b);
    (1..=256).contains(&text.len()) && text.bytes().all(is_plain)
}

fn is_json(text: &str) -> bool {
    serde_json::from_str::<IgnoredAny>(text).is_ok()
}

fn mentions(value: &Value, place: &str) -> bool {
    match value {
        Value::String(text) => text.contains(place),
        Value::Array(items) => items.iter().any(|item| mentions(item, place)),
        Value::Object(members) => members.values().any(|member| mentions(member, place)),
        Value::Null | Value::Bool(_) | Value::Number(_) => false,
    }
}

fn filled(value: &Value, fill: &impl Fn(&str) -> String) -> Value {
    match value {
        Value::String(text) => Value::String(fill(text)),
        Value::Array(items) => items.iter().map(|item| filled(item, fill)).collect(),
        Value::Object(members) => members.iter().map(|(name, member)| (name.clone(), filled(member, fill))).collect(),
        other => other.clone(),
    }
}

fn ok() -> u16 {
    200
}
