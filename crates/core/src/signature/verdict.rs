//! What becomes of a genuine request.

use std::collections::BTreeMap;

use bytes::Bytes;
use jiff::Timestamp;

use crate::event_type::EventType;
use crate::signature::certificate::RsaPublicKey;
use crate::signature::key_set::KeySet;

/// What is to be done with a request that was not refused.
#[derive(Clone, Debug, PartialEq)]
pub enum Verdict {
    /// At least one. They are accepted together or not at all.
    Events {
        occurrences: Vec<Occurrence>,
        /// Which of the source's secrets matched; `None` where none took part (public keys, tokens
        /// of an identity provider, no verification at all).
        matched: Option<usize>,
    },
    /// Answer the provider with this; nothing happened.
    Handshake(Answer),
    /// Verified and allowed: GET this URL once to confirm the subscription.
    Confirm { url: String },
    /// Genuine, but no event: answer 2xx.
    Ignore { detail: String },
    /// Fetch this, keep it, and ask again with it in [`Material`]. Asked for again in spite of
    /// that, it was not usable, which is not the sender's fault.
    Needs(Need),
}

/// What a verdict needs from the network. The URL is one that the source's configuration or the
/// provider's rules vouch for, never merely one that the request names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Need {
    /// An X.509 certificate in PEM. Its name changes when it is replaced, so it never goes stale.
    Certificate { url: String },
    /// A JSON Web Key Set (RFC 7517 §5). It goes stale as its `Cache-Control` says.
    KeySet { url: String },
}

/// What was fetched for earlier [`Need`]s.
#[derive(Clone, Debug, Default)]
pub struct Material {
    certificates: BTreeMap<String, RsaPublicKey>,
    key_sets: BTreeMap<String, KeySet>,
}

impl Material {
    /// Adds a certificate. What cannot be read as one is as if it had not been added.
    #[must_use]
    pub fn with_certificate(mut self, url: impl Into<String>, pem: &str) -> Self {
        if let Some(key) = RsaPublicKey::from_certificate_pem(pem) {
            self.certificates.insert(url.into(), key);
        }
        self
    }

    /// Adds a key set. What cannot be read as one is as if it had not been added.
    #[must_use]
    pub fn with_key_set(mut self, url: impl Into<String>, json: &str) -> Self {
        if let Some(keys) = KeySet::parse(json) {
            self.key_sets.insert(url.into(), keys);
        }
        self
    }

    /// Whether there is nothing in it that could be used.
    pub fn is_empty(&self) -> bool {
        // What cannot be read is not added.
        self.certificates.is_empty() && self.key_sets.is_empty()
    }

    pub(crate) fn certificate(&self, url: &str) -> Option<&RsaPublicKey> {
        self.certificates.get(url)
    }

    pub(crate) fn key_set(&self, url: &str) -> Option<&KeySet> {
        self.key_sets.get(url)
    }
}

/// An answer that a provider expects instead of the usual one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    pub status: u16,
    pub content_type: String,
    pub body: String,
}

/// Something that happened at the provider.
#[derive(Clone, Debug, PartialEq)]
pub struct Occurrence {
    /// The provider's name for it, signed or not.
    pub provider_event_id: Option<String>,
    pub event_type: EventType,
    /// When it happened, if the provider says.
    pub occurred_at: Option<Timestamp>,
    /// Whose it is in the provider's words: a connected account, a shop, a team.
    pub account: Option<String>,
    /// What makes it this event and no other, for [`dedup::key`](crate::dedup::key). Empty: nothing
    /// does, and each request is a new event.
    pub dedup_parts: Vec<String>,
    /// The item of a batch, its bytes as they came; `None` is the whole body of the request.
    pub body: Option<Bytes>,
}
