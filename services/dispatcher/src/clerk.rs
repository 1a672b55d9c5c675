//! The dead-letter queue goes into the record, where it can be filtered, counted and replayed.

use std::sync::Arc;

use jiff::Timestamp;
use posthorn_bus::{Disposition, Message};
use posthorn_core::delivery::DeadReason;
use posthorn_core::id::{DeadLetterId, DeliveryId};
use posthorn_core::message;
use posthorn_store::{Result, Store, dead_letters};
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
    if let Some((delivery, generation, attempt)) = delivery(&message.body) {
        // Rejected by a worker, the row says why; returned too often, it does not know yet.
        let fallback = over_limit.then_some(DeadReason::DeliveryLimit);
        let told = dead_letters::of_delivery(&client, id, delivery, generation, attempt, fallback, now).await?;
        if told {
            info!(delivery.id = %delivery, "delivery {delivery} is a dead letter");
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

/// Which delivery, generation and attempt the message names, if it is one.
fn delivery(body: &[u8]) -> Option<(DeliveryId, u32, u32)> {
    let wire = message::Delivery::decode(body).ok()?;
    let id = message::uuid("delivery_id", &wire.delivery_id).ok()?;
    // An event message decodes as well; only a delivery has a subscription and a trigger.
    let is_delivery = wire.subscription_id.len() == 16 && !wire.trigger.is_empty();
    is_delivery.then(|| (DeliveryId::from_uuid(id), wire.generation, wire.attempt))
}

fn fingerprint(body: &[u8]) -> Uuid {
    let mut bytes = [0; 16];
    bytes.copy_from_slice(&digest(&SHA256, body).as_ref()[..16]);
    Uuid::from_bytes(bytes)
}
