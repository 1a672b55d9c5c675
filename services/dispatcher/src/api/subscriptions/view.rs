//! A subscription as the API shows it.

use std::collections::BTreeMap;

use posthorn_core::breaker::{self, Breaker};
use posthorn_core::id::{SubscriptionId, TenantId};
use posthorn_core::retry::RetryPolicy;
use posthorn_core::subscription::{PayloadFormat, RateLimit, SignatureScheme, State};
use posthorn_core::time::Rfc3339;
use posthorn_store::subscriptions::{Runtime, Subscription};
use serde::Serialize;

use super::headers::{self, HeaderView};
use super::tls::TlsView;
use crate::api::Api;

#[derive(Serialize)]
pub(super) struct View {
    pub id: SubscriptionId,
    pub tenant_id: TenantId,
    pub name: Option<String>,
    pub description: Option<String>,
    pub url: String,
    pub event_types: Vec<String>,
    pub sources: Vec<String>,
    pub state: State,
    pub disabled_reason: Option<String>,
    pub retry_policy: RetryPolicy,
    pub timeout_seconds: i32,
    pub rate_limit: Option<RateLimit>,
    pub max_in_flight: i32,
    pub ordered: bool,
    pub ordered_max_block_seconds: i32,
    pub headers: BTreeMap<String, HeaderView>,
    pub tls: Option<TlsView>,
    pub payload_format: PayloadFormat,
    pub signatures: Vec<SignatureScheme>,
    pub stats: StatsView,
    pub breaker: BreakerView,
    pub failing: Option<FailingView>,
    pub recover_since: Option<Rfc3339>,
    pub created_at: Rfc3339,
    pub updated_at: Rfc3339,
    /// Only in the answer to its creation.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub secret: Option<String>,
}

#[derive(Serialize)]
pub(super) struct StatsView {
    pub delivered: i64,
    pub failed: i64,
    pub last_triggered_at: Option<Rfc3339>,
}

#[derive(Serialize)]
pub(super) struct BreakerView {
    pub state: breaker::State,
    pub until: Option<Rfc3339>,
}

impl From<Breaker> for BreakerView {
    fn from(breaker: Breaker) -> Self {
        Self { state: breaker.state, until: breaker.until.map(Rfc3339) }
    }
}

/// A subscription without a success for some time.
#[derive(Serialize)]
pub(super) struct FailingView {
    pub since: Rfc3339,
    pub warned_percent: u8,
    pub disables_at: Rfc3339,
}

impl View {
    pub fn of(api: &Api, (subscription, runtime): (Subscription, Runtime)) -> Self {
        Self {
            id: subscription.id,
            tenant_id: subscription.tenant_id,
            name: subscription.name,
            description: subscription.description,
            url: subscription.url,
            event_types: subscription.event_types,
            sources: subscription.sources,
            state: subscription.state,
            disabled_reason: subscription.disabled_reason,
            retry_policy: subscription.retry_policy,
            timeout_seconds: subscription.timeout_seconds,
            rate_limit: subscription.rate_limit,
            max_in_flight: subscription.max_in_flight,
            ordered: subscription.ordered,
            ordered_max_block_seconds: subscription.ordered_max_block_seconds,
            headers: headers::view(&subscription.headers),
            tls: TlsView::of(&subscription.tls),
            payload_format: subscription.payload_format,
            signatures: subscription.signatures,
            stats: StatsView {
                delivered: runtime.delivered,
                failed: runtime.failed,
                last_triggered_at: runtime.last_triggered_at.map(Rfc3339),
            },
            breaker: BreakerView::from(runtime.breaker),
            failing: runtime.failing.map(|failing| FailingView {
                since: Rfc3339(failing.since),
                warned_percent: failing.warned_percent,
                disables_at: Rfc3339(failing.disables_at(api.disable_after)),
            }),
            recover_since: runtime.recover_since.map(Rfc3339),
            created_at: Rfc3339(subscription.created_at),
            updated_at: Rfc3339(subscription.updated_at),
            secret: None,
        }
    }
}
