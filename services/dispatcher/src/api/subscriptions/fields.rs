//! What requests give of a subscription.

use posthorn_core::id::TenantId;
use posthorn_core::retry::RetryPolicy;
use posthorn_core::subscription::{PayloadFormat, RateLimit, SignatureScheme, State};
use posthorn_store::subscriptions::Subscription;
use serde::Deserialize;

use super::{headers, tls};
use crate::api::body::{given, nullable};
use crate::api::now;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Create {
    #[serde(default, deserialize_with = "given")]
    pub tenant_id: Option<TenantId>,
    pub name: Option<String>,
    pub description: Option<String>,
    pub url: String,
    pub event_types: Vec<String>,
    #[serde(default)]
    pub sources: Vec<String>,
    #[serde(default)]
    pub retry_policy: RetryPolicy,
    #[serde(default = "default_timeout_seconds")]
    pub timeout_seconds: i32,
    pub rate_limit: Option<RateLimit>,
    #[serde(default = "default_max_in_flight")]
    pub max_in_flight: i32,
    #[serde(default)]
    pub ordered: bool,
    #[serde(default = "default_ordered_max_block_seconds")]
    pub ordered_max_block_seconds: i32,
    #[serde(default)]
    pub headers: headers::Given,
    pub tls: Option<tls::Given>,
    #[serde(default = "default_payload_format")]
    pub payload_format: PayloadFormat,
    #[serde(default = "default_signatures")]
    pub signatures: Vec<SignatureScheme>,
    #[serde(default, deserialize_with = "given")]
    pub secret: Option<String>,
}

fn default_timeout_seconds() -> i32 {
    10
}

fn default_max_in_flight() -> i32 {
    8
}

fn default_ordered_max_block_seconds() -> i32 {
    3600
}

fn default_payload_format() -> PayloadFormat {
    PayloadFormat::Standard
}

fn default_signatures() -> Vec<SignatureScheme> {
    vec![SignatureScheme::Standard]
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Update {
    #[serde(default, deserialize_with = "nullable")]
    pub name: Option<Option<String>>,
    #[serde(default, deserialize_with = "nullable")]
    pub description: Option<Option<String>>,
    #[serde(default, deserialize_with = "given")]
    pub url: Option<String>,
    #[serde(default, deserialize_with = "given")]
    pub event_types: Option<Vec<String>>,
    #[serde(default, deserialize_with = "given")]
    pub sources: Option<Vec<String>>,
    #[serde(default, deserialize_with = "given")]
    pub state: Option<Wanted>,
    #[serde(default, deserialize_with = "given")]
    pub retry_policy: Option<RetryPolicy>,
    #[serde(default, deserialize_with = "given")]
    pub timeout_seconds: Option<i32>,
    #[serde(default, deserialize_with = "nullable")]
    pub rate_limit: Option<Option<RateLimit>>,
    #[serde(default, deserialize_with = "given")]
    pub max_in_flight: Option<i32>,
    #[serde(default, deserialize_with = "given")]
    pub ordered: Option<bool>,
    #[serde(default, deserialize_with = "given")]
    pub ordered_max_block_seconds: Option<i32>,
    #[serde(default, deserialize_with = "given")]
    pub headers: Option<headers::Given>,
    #[serde(default, deserialize_with = "nullable")]
    pub tls: Option<Option<tls::Given>>,
    #[serde(default, deserialize_with = "given")]
    pub payload_format: Option<PayloadFormat>,
    #[serde(default, deserialize_with = "given")]
    pub signatures: Option<Vec<SignatureScheme>>,
}

/// The states that a person can ask for.
#[derive(Clone, Copy, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Wanted {
    Active,
    Paused,
}

/// Puts the fields of an update in the place of those that were there, but for `headers` and `tls`, which are sealed.
pub(super) fn apply(subscription: &mut Subscription, update: Update) {
    let Update { name, description, url, event_types, sources, state, retry_policy, .. } = update;
    set(&mut subscription.name, name);
    set(&mut subscription.description, description);
    set(&mut subscription.url, url);
    set(&mut subscription.event_types, event_types);
    set(&mut subscription.sources, sources);
    set(&mut subscription.retry_policy, retry_policy);
    set(&mut subscription.timeout_seconds, update.timeout_seconds);
    set(&mut subscription.rate_limit, update.rate_limit);
    set(&mut subscription.max_in_flight, update.max_in_flight);
    set(&mut subscription.ordered, update.ordered);
    set(&mut subscription.ordered_max_block_seconds, update.ordered_max_block_seconds);
    set(&mut subscription.payload_format, update.payload_format);
    set(&mut subscription.signatures, update.signatures);
    match state {
        None => {}
        Some(wanted) => {
            subscription.state = match wanted {
                Wanted::Paused => State::Paused,
                Wanted::Active => State::Active,
            };
            subscription.disabled_reason = None;
        }
    }
    subscription.updated_at = now();
}

fn set<T>(field: &mut T, given: Option<T>) {
    if let Some(value) = given {
        *field = value;
    }
}
