//! The dead-letter queue goes into the record, where it can be filtered, counted and replayed.

use std::sync::Arc;

use jiff::Timestamp;
use posthorn_bus::{Disposition, Message};
use posthorn_core::delivery::DeadReason;
use posthorn_core::id::{DeadLetterId, DeliveryId};
use posthorn_core::message;
use posthorn_core::time::from_micros;
use posthorn_store::dead_letters::{self, Death};
use posthorn_store::{Result, Store};
use prost::Message as _;
use ring::digest::{SHA256, digest};
use tracing::{info, warn};
use uuid::Uuid;

/// Handles one message of the dead-letter queue; acknowledged after the commit.
pub async fn handle(store: Arc<Store>, message: Message) -> Disposition {
    match file(&store, &message).await {
        Ok(()) => Disposition::Done,
        Err(error) => {
            warn!(error = &error as &dyn std::error::Error, "a dead letter has to wait for the database");
            Disposition::Stall
        }
    }
}

async fn file(store: &Store, message: &Message) -> Result<()> {
    let now = Timestamp::now();
    let id = DeadLetterId::new(now, rand::random());
    let client = store.client().await?;
    let over_limit = message.death.as_deref() == Some("delivery_limit");
    // Rejected by a worker, the row says why; returned too often, it does not know yet.
    let fallback = over_limit.then_some(DeadReason::DeliveryLimit);
    if let Some(death) = death(&message.body, fallback) {
        if dead_letters::of_delivery(&client, id, &death, now).await? {
            info!(delivery.id = %death.delivery, "delivery {} is a dead letter", death.delivery);
        }
        return Ok(());
    }
    let (reason, error) = match (over_limit, message.death.as_deref()) {
        (true, _) => (DeadReason::DeliveryLimit, "whoever handled it died each time".to_owned()),
        (false, Some("rejected") | None) => (DeadReason::Undecodable, "no service can read it".to_owned()),
        (false, Some(other)) => (DeadReason::Poison, format!("the broker gave it up: {other}")),
    };
    warn!(reason = reason.as_str(), "a message is a dead letter: {error}");
    dead_letters::of_message(&client, id, fingerprint(&message.body), reason, &error, &message.body, now).await
}

/// The delivery that the message names, if it is one.
fn death(body: &[u8], fallback: Option<DeadReason>) -> Option<Death> {
    let wire = message::Delivery::decode(body).ok()?;
    let id = message::uuid("delivery_id", &wire.delivery_id).ok()?;
    // An event message decodes as well; only a delivery has a subscription and a trigger.
    let is_delivery = wire.subscription_id.len() == 16 && !wire.trigger.is_empty();
    is_delivery.then(|| Death {
        delivery: DeliveryId::from_uuid(id),
        generation: wire.generation,
        attempt: wire.attempt,
        lease_until: from_micros(wire.lease_until_us),
        fallback,
    })
}

fn fingerprint(body: &[u8]) -> Uuid {
    let mut bytes = [0; 16];
    bytes.copy_from_slice(&digest(&SHA256, body).as_ref()[..16]);
    Uuid::from_bytes(bytes)
}
