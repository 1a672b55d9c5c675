//! What comes out of a queue, and what the services make of it.

use std::fmt::Debug;
use std::time::Duration;

use jiff::Timestamp;
use posthorn_core::delivery::{Trigger, Wake, admit};
use posthorn_core::event_type::EventType;
use posthorn_core::id::{AttemptId, DeliveryId, EventId, SubscriptionId};
use posthorn_core::message::{Chunk, Content, Delivery, Event, bytes, uuid};
use posthorn_core::time::{Rfc3339, from_micros, since};
use prost::Message;

pub fn run(data: &[u8]) {
    if let Some(event) = decode::<Event>(data) {
        check_event(&event);
    }
    if let Some(chunk) = decode::<Chunk>(data) {
        id("first_subscription_id", &chunk.first_subscription_id);
        id("last_subscription_id", &chunk.last_subscription_id);
        chunk.event.iter().for_each(check_event);
    }
    if let Some(delivery) = decode::<Delivery>(data) {
        check_delivery(&delivery);
    }
}

fn decode<M: Message + Default + PartialEq + Debug>(data: &[u8]) -> Option<M> {
    let message = M::decode(data).ok()?;
    assert_eq!(M::decode(message.encode_to_vec().as_slice()).as_ref(), Ok(&message), "not read as it is written");
    Some(message)
}

fn check_event(event: &Event) {
    id("event_id", &event.event_id);
    id("source_id", &event.source_id);
    event.tenant_id.iter().for_each(|tenant| id("tenant_id", tenant));
    let _ = (event.routed(), EventType::parse(&event.event_type));
    event.content.iter().for_each(check_content);
}

fn check_delivery(delivery: &Delivery) {
    for (field, bytes) in [("delivery_id", &delivery.delivery_id), ("tenant_id", &delivery.tenant_id)] {
        id(field, bytes);
    }
    if let (Ok(event), Ok(subscription)) =
        (uuid("event_id", &delivery.event_id), uuid("subscription_id", &delivery.subscription_id))
    {
        let derived = DeliveryId::derive(EventId::from_uuid(event), SubscriptionId::from_uuid(subscription));
        assert_eq!(derived.time(), EventId::from_uuid(event).time());
        let attempt = AttemptId::derive(derived, delivery.generation, delivery.attempt);
        assert_eq!(attempt.to_string().parse(), Ok(attempt));
    }
    let lease_until = from_micros(delivery.lease_until_us);
    if let Some(trigger) = Trigger::parse(&delivery.trigger) {
        let has_content = delivery.content.is_some();
        let wake = Wake { attempt: delivery.attempt, trigger, redelivered: false, has_content, lease_until };
        let _ = admit(&wake, Duration::from_secs(30), Duration::from_secs(5), super::now());
    }
    delivery.content.iter().for_each(check_content);
}

fn check_content(content: &Content) {
    let at = from_micros(content.timestamp_us);
    assert!(at.as_microsecond() == content.timestamp_us || at == Timestamp::MAX, "a time that is neither");
    let _ = (Rfc3339(at).to_string(), since(at, super::now()));
}

fn id(field: &'static str, sent: &[u8]) {
    match uuid(field, sent) {
        Ok(id) => assert_eq!(bytes(&id), sent),
        Err(_) => assert_ne!(sent.len(), 16),
    }
}
