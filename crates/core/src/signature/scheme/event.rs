//! What a verified request says happened.

use bytes::Bytes;
use serde::Deserialize;

use crate::body::document;
use crate::event_type::EventType;
use crate::request::RawRequest;
use crate::signature::refusal::{Refusal, RefusalKind};
use crate::signature::scheme::clock::moment;
use crate::signature::scheme::scope::{Scope, sha256_hex};
use crate::signature::scheme::source::{Choice, Dedup, DedupParts, Unkeyed};
use crate::signature::verdict::Occurrence;

/// Where the facts about an event stand.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Extract {
    pub(crate) event_id: Choice,
    pub(crate) event_type: Choice,
    pub(crate) occurred_at: Choice,
    pub(crate) account: Choice,
    /// The type of an event whose type stands nowhere, so that none is lost.
    pub(crate) default_type: Option<String>,
}

impl Extract {
    /// Reads one event. `path_event` names it if the request does not; `body` is its own, in a batch.
    pub(crate) fn occurrence(
        &self,
        scope: &Scope<'_>,
        path_event: Option<&str>,
        dedup: &Dedup,
        body: Option<Bytes>,
    ) -> Result<Occurrence, Refusal> {
        let id = scope.choice(&self.event_id);
        let event_type = self.event_type(scope, path_event)?;
        let scope = Scope { id: id.as_deref(), event_type: Some(event_type.as_str()), ..*scope };
        let dedup_parts = scope.dedup_parts(&dedup.parts).unwrap_or_else(|| match dedup.unkeyed {
            Unkeyed::Content => content(&scope),
            Unkeyed::New => Vec::new(),
        });
        Ok(Occurrence {
            occurred_at: scope.choice(&self.occurred_at).and_then(|text| moment(&text)),
            account: scope.choice(&self.account),
            dedup_parts,
            body,
            provider_event_id: id,
            event_type,
        })
    }

    fn event_type(&self, scope: &Scope<'_>, path_event: Option<&str>) -> Result<EventType, Refusal> {
        if let Some(text) = scope.choice(&self.event_type) {
            return provider_type(&text);
        }
        if let Some(text) = path_event {
            return provider_type(text);
        }
        let default = self.default_type.as_deref();
        default.map_or_else(|| Err(unusable("nothing in the request names an event")), provider_type)
    }
}

/// Gives `occurrence` the parts that its source wants, if the request has them all.
pub(crate) fn rekey(occurrence: &mut Occurrence, request: &RawRequest, dedup: &DedupParts) {
    let document = document::json_or_form(request.content_type(), &request.body);
    let scope = Scope {
        document: Some(&document),
        id: occurrence.provider_event_id.as_deref(),
        event_type: Some(occurrence.event_type.as_str()),
        ..Scope::of(request)
    };
    if let Some(parts) = scope.dedup_parts(dedup) {
        occurrence.dedup_parts = parts;
    }
}

/// What identifies an event that nothing names: its bytes, its type, and when it was signed.
fn content(scope: &Scope<'_>) -> Vec<String> {
    let signed_at = scope.timestamp.map(str::to_owned);
    scope.event_type.map(str::to_owned).into_iter().chain([sha256_hex(scope.bytes)]).chain(signed_at).collect()
}

/// A provider's name for what happened. Events that Posthorn raises about itself do not come from outside.
pub(crate) fn provider_type(text: &str) -> Result<EventType, Refusal> {
    let parsed = EventType::parse(text).map_err(|error| unusable(error.to_string()))?;
    if parsed.is_operational() {
        return Err(unusable("event types that begin with `posthorn.` are Posthorn's own"));
    }
    Ok(parsed)
}

fn unusable(detail: impl Into<String>) -> Refusal {
    Refusal::new(RefusalKind::MissingEventType, detail)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn operational_events_do_not_come_from_outside() {
        for text in ["posthorn.subscription.disabled", ".posthorn.x", "posthorn..x"] {
            assert!(provider_type(text).is_err(), "{text}");
        }
        assert!(provider_type("posthorns.x").is_ok());
    }
}
