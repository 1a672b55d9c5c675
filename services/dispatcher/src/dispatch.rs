//! Deliveries on their way to the workers: leases, and the messages that wake them.

use std::time::Duration;

use jiff::Timestamp;
use posthorn_bus::topology::{DELIVERIES, shard, shard_key};
use posthorn_bus::{Outgoing, PublishError, Publisher};
use posthorn_core::id::{DeliveryId, EventId, SubscriptionId, TenantId};
use posthorn_core::message::{self, Content};
use posthorn_core::time::{later, to_micros, whole_micros};
use posthorn_store::schedule::{self, Release};
use posthorn_store::{Result, Store};
use prost::Message as _;
use tracing::warn;

/// How long a message may take from its publication to the record of its attempt.
pub fn lease(queue: Duration, timeout: Duration, now: Timestamp) -> Timestamp {
    whole_micros(later(later(now, queue), timeout))
}

/// A delivery's wake-up.
#[derive(Clone, Debug)]
pub struct Wake {
    pub id: DeliveryId,
    pub event_id: EventId,
    pub subscription_id: SubscriptionId,
    pub tenant_id: TenantId,
    pub generation: u32,
    pub attempt: u32,
    pub not_now: u32,
    pub lease_until: Timestamp,
    pub trigger: &'static str,
    pub event_type: String,
    /// Only a delivery's first message has it; all others have to claim the row anyway.
    pub content: Option<Content>,
}

impl From<Release> for Wake {
    fn from(release: Release) -> Self {
        Self {
            id: release.id,
            event_id: release.event_id,
            subscription_id: release.subscription_id,
            tenant_id: release.tenant_id,
            generation: release.generation,
            attempt: release.attempt,
            not_now: release.not_now,
            lease_until: release.lease_until,
            trigger: release.trigger.as_str(),
            event_type: release.event_type,
            content: None,
        }
    }
}

/// Publishes wake-ups. Failing is no loss: the scheduler publishes again what the broker surely did not get as
/// soon as there is a broker, and the rest when its lease has run out.
pub async fn publish(store: &Store, publisher: &Publisher, wakes: impl IntoIterator<Item = Wake>) {
    let publishing = wakes.into_iter().map(|wake| {
        let row = (wake.id, wake.lease_until);
        async move { publish_one(publisher, wake).await.map_err(|error| (row, error)) }
    });
    let published = futures_util::future::join_all(publishing).await;
    let failed: Vec<_> = published.into_iter().filter_map(Result::err).collect();
    if failed.is_empty() {
        return;
    }
    let unpublished: Vec<_> = failed.iter().filter(|(_, error)| !error.is_uncertain()).map(|(row, _)| *row).collect();
    warn!(failed = failed.len(), "deliveries wait: the broker did not take their messages");
    if let Err(error) = give_back(store, &unpublished).await {
        warn!(error = &error as &dyn std::error::Error, "they wait for their leases to run out");
    }
}

async fn give_back(store: &Store, unpublished: &[(DeliveryId, Timestamp)]) -> Result<()> {
    schedule::give_back(&store.client().await?, unpublished, whole_micros(Timestamp::now())).await
}

async fn publish_one(publisher: &Publisher, wake: Wake) -> std::result::Result<(), PublishError> {
    let traceparent = wake.content.as_ref().map(|content| content.traceparent.clone()).unwrap_or_default();
    let message_id = format!("{}/{}/{}", wake.id, wake.generation, wake.attempt);
    let shard = shard(wake.subscription_id);
    let routing_key = shard_key(shard);
    publisher.depth().add(shard);
    let body = message::Delivery {
        delivery_id: message::bytes(wake.id.as_uuid()),
        event_id: message::bytes(wake.event_id.as_uuid()),
        subscription_id: message::bytes(wake.subscription_id.as_uuid()),
        tenant_id: message::bytes(wake.tenant_id.as_uuid()),
        generation: wake.generation,
        attempt: wake.attempt,
        not_now: wake.not_now,
        lease_until_us: to_micros(wake.lease_until),
        trigger: wake.trigger.to_owned(),
        event_type: wake.event_type,
        content: wake.content,
    }
    .encode_to_vec();
    publisher.publish(Outgoing { exchange: DELIVERIES, routing_key, message_id, traceparent, body }).await
}
