//! Deliveries on their way to the workers: leases, and the messages that wake them.

use std::time::Duration;

use jiff::Timestamp;
use posthorn_bus::topology::{DELIVERIES, shard};
use posthorn_bus::{Outgoing, PublishError, Publisher};
use posthorn_core::id::{DeliveryId, EventId, SubscriptionId, TenantId};
use posthorn_core::message::{self, Content};
use posthorn_core::time::{later, to_micros, whole_micros};
use posthorn_store::schedule::Release;
use prost::Message as _;

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
            lease_until: release.lease_until,
            trigger: release.trigger.as_str(),
            event_type: release.event_type,
            content: None,
        }
    }
}

/// Publishes a wake-up. Failing is no loss: the row's lease runs out, and the scheduler publishes again.
pub async fn publish(publisher: &Publisher, wake: Wake) -> Result<(), PublishError> {
    let traceparent = wake.content.as_ref().map(|content| content.traceparent.clone()).unwrap_or_default();
    let message_id = format!("{}/{}/{}", wake.id, wake.generation, wake.attempt);
    let routing_key = shard(wake.subscription_id);
    let body = message::Delivery {
        delivery_id: message::bytes(wake.id.as_uuid()),
        event_id: message::bytes(wake.event_id.as_uuid()),
        subscription_id: message::bytes(wake.subscription_id.as_uuid()),
        tenant_id: message::bytes(wake.tenant_id.as_uuid()),
        generation: wake.generation,
        attempt: wake.attempt,
        lease_until_us: to_micros(wake.lease_until),
        trigger: wake.trigger.to_owned(),
        event_type: wake.event_type,
        content: wake.content,
    }
    .encode_to_vec();
    publisher.publish(Outgoing { exchange: DELIVERIES, routing_key, message_id, traceparent, body }).await
}
