//! What tests put into the record: an event, a subscription, a delivery, a report of it.

use std::time::Duration;

use bytes::Bytes;
use jiff::Timestamp;
use posthorn_core::delivery::{HeldReason, Next, Trigger};
use posthorn_core::event_type::EventType;
use posthorn_core::id::{DeliveryId, EventId, SourceId, SubscriptionId, TenantId};
use posthorn_core::routing::Route;
use posthorn_core::time::whole_micros;
use posthorn_core::{dedup, subscription};
use posthorn_store::deliveries::{Made, NewDelivery, Report, Word};
use posthorn_store::events::NewEvent;
use posthorn_store::subscriptions::Subscription;
use posthorn_store::tenants::Tenant;
use posthorn_store::{Client, subscriptions, tenants};
use uuid::Uuid;

pub fn now() -> Timestamp {
    whole_micros(Timestamp::now())
}

pub fn secs(secs: u64) -> Duration {
    Duration::from_secs(secs)
}

pub fn event(key: &str, received_at: Timestamp) -> NewEvent {
    let source = SourceId::from_uuid(Uuid::from_u128(9));
    NewEvent {
        id: EventId::new(received_at, Uuid::new_v4().as_bytes()[..10].try_into().unwrap()),
        source_id: source,
        source_slug: "stripe".into(),
        route: Route::Unrouted,
        event_type: EventType::parse("invoice.paid").unwrap(),
        provider_event_id: Some(key.to_owned()),
        dedup_key: dedup::key(source, [key]),
        occurred_at: None,
        received_at,
        headers: serde_json::json!({}),
        content_type: "application/json".into(),
        traceparent: String::new(),
        body: Bytes::from_static(b"{}"),
        schema_violation: None,
    }
}

/// A tenant's subscription in the record.
pub async fn subscribed(client: &Client) -> (TenantId, SubscriptionId) {
    let entropy = |uuid: Uuid| uuid.as_bytes()[..10].try_into().unwrap();
    let tenant_id = TenantId::new(now(), entropy(Uuid::new_v4()));
    let tenant = Tenant { id: tenant_id, name: "acme".into(), external_id: None, created_at: now(), updated_at: now() };
    tenants::insert(client, &tenant).await.unwrap();
    let id = SubscriptionId::new(now(), entropy(Uuid::new_v4()));
    let row = Subscription {
        id,
        tenant_id,
        name: None,
        description: None,
        url: "https://example.com/".into(),
        event_types: vec!["*".into()],
        sources: vec![],
        state: subscription::State::Active,
        disabled_reason: None,
        retry_policy: Default::default(),
        timeout_seconds: 10,
        rate_limit: None,
        max_in_flight: 8,
        ordered: false,
        ordered_max_block_seconds: 3600,
        headers: Default::default(),
        tls: Default::default(),
        payload_format: subscription::PayloadFormat::Standard,
        signatures: vec![subscription::SignatureScheme::Standard],
        created_at: now(),
        updated_at: now(),
    };
    subscriptions::insert(client, &row).await.unwrap();
    (tenant_id, id)
}

pub fn delivery(
    tenant_id: TenantId,
    subscription_id: SubscriptionId,
    held: Option<HeldReason>,
    due_at: Timestamp,
) -> NewDelivery {
    let event_id = event("x", now()).id;
    NewDelivery {
        id: DeliveryId::derive(event_id, subscription_id),
        event_id,
        subscription_id,
        tenant_id,
        event_type: "invoice.paid".into(),
        held,
        due_at,
    }
}

pub fn report(delivery: &NewDelivery, attempt: u32, next: Next) -> Report {
    Report {
        id: delivery.id,
        event_id: delivery.event_id,
        event_type: EventType::parse(&delivery.event_type).unwrap(),
        subscription_id: delivery.subscription_id,
        tenant_id: delivery.tenant_id,
        generation: 1,
        attempt,
        lease_until: None,
        word: Word::Attempted(Box::new(Made {
            trigger: Trigger::Dispatch,
            started_at: now(),
            response_time: Duration::from_millis(5),
            status_code: Some(200),
            error: None,
            response: Some("ok".into()),
            response_headers: None,
            request_headers: serde_json::json!({}),
            next,
            disables: false,
        })),
    }
}
