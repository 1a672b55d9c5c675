//! A provider at hand: a request signed with a source's own newest secret, to try the source out.
//!
//! What a provider signs with a private key of its own cannot be imitated, by us as little as by
//! anybody else.

use std::collections::BTreeSet;

use bytes::Bytes;
use jiff::Timestamp;
use secrecy::SecretString;
use serde_json::Value;

use crate::provider::Provider;
use crate::signature::preset;

/// What the request should say.
#[derive(Clone, Copy, Debug)]
pub struct Wish<'a> {
    /// What stands in the source's URL.
    pub address: &'a str,
    /// `None` is a usual one of the provider's.
    pub event_type: Option<&'a str>,
    /// The provider's whole body; `None` is a sample.
    pub payload: Option<&'a Value>,
    /// Tells the event apart from all others, so that it is new. Letters and digits.
    pub id: &'a str,
    pub now: Timestamp,
}

/// A POST as the provider would send it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Imitation {
    /// Path and query.
    pub target: String,
    pub headers: Vec<(String, String)>,
    pub body: Bytes,
}

/// Why a request cannot be imitated.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ImitationError {
    #[error("only the provider holds the key that signs: let it send a test from its own side")]
    KeyNotHere,
    #[error("a request of this provider has no place for this event type")]
    NoPlaceForType,
    #[error("the payload is not what this provider sends")]
    NoSuchPayload,
    #[error("this scheme puts its signature where it cannot be made afterwards")]
    NoPlaceForSignature,
}

/// Whether a source like this holds secrets at all, and not public keys.
pub fn takes_secrets(provider: Provider, config: &Value) -> bool {
    match provider {
        Provider::Twilio => true,
        Provider::Ses | Provider::GooglePubsub => false,
        _ => preset::spec(provider, config).is_ok_and(|spec| spec.takes_secret()),
    }
}

/// A new secret for a source whose owner may choose it, from 32 random bytes; `None` where the
/// provider gives out the secret or signs with a key of its own.
pub fn new_secret(provider: Provider, config: &Value, random: &[u8; 32]) -> Option<SecretString> {
    match provider {
        Provider::Twilio | Provider::Ses | Provider::GooglePubsub => None,
        _ => preset::spec(provider, config).ok()?.new_secret(random),
    }
}

/// The fields of a form, as Twilio sends them.
pub(crate) fn form(fields: &serde_json::Map<String, Value>) -> Result<Vec<(String, String)>, ImitationError> {
    let text = |value: &Value| crate::body::document::scalar(value).ok_or(ImitationError::NoSuchPayload);
    fields.iter().map(|(name, value)| Ok((name.clone(), text(value)?))).collect()
}

/// What a form's signature covers: every name and value, sorted, without separators.
pub(crate) fn sorted(fields: &[(String, String)]) -> String {
    let sorted: BTreeSet<_> = fields.iter().collect();
    sorted.into_iter().flat_map(|(name, value)| [name.as_str(), value.as_str()]).collect()
}
