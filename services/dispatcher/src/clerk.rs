//! The dead-letter queue goes into the record, where it can be filtered, counted and replayed.

use jiff::Timestamp;
use posthorn_bus::{Disposition, Message};
use posthorn_core::delivery::DeadReason;
use posthorn_core::id::{DeadLetterId, DeliveryId, TenantId};
use posthorn_core::message;
use posthorn_core::operational::{Kind, Notice};
use posthorn_core::time::{from_micros, whole_micros};
use posthorn_store::dead_letters::{self, Death, Undelivered};
use posthorn_store::snapshot::Subscriptions;
use posthorn_store::{Result, Store, events, notices};
use prost::Message as _;
use ring::digest::{SHA256, digest};
use tracing::{info, warn};
use uuid::Uuid;

use crate::fan_out::Known;

/// Files dead letters. Cheap to clone.
#[derive(Clone)]
pub struct Clerk {
    pub store: Store,
    pub subscriptions: Subscriptions,
}

impl Clerk {
    /// Handles one message of the dead-letter queue; acknowledged after the commit.
    pub async fn handle(self, message: Message) -> Disposition {
        match self.file(&message).await {
            Ok(()) => Disposition::Done,
            Err(error) => {
                warn!(error = &error as &dyn std::error::Error, "a dead letter has to wait for the database");
                Disposition::Stall
            }
        }
    }

    async fn file(&self, message: &Message) -> Result<()> {
        let over_limit = message.death.as_deref() == Some("delivery_limit");
        // Rejected by a worker, the row says why; returned too often, it does not know yet.
        let fallback = over_limit.then_some(DeadReason::DeliveryLimit);
        if let Some((tenant, death)) = death(&message.body, fallback) {
            return self.file_death(tenant, &death).await;
        }
        let (reason, error) = match (over_limit, message.death.as_deref()) {
            (true, _) => (DeadReason::DeliveryLimit, "whoever handled it died each time".to_owned()),
            (false, Some("rejected") | None) => (DeadReason::Undecodable, "no service can read it".to_owned()),
            (false, Some(other)) => (DeadReason::Poison, format!("the broker gave it up: {other}")),
        };
        warn!(reason = reason.as_str(), "a message is a dead letter: {error}");
        let now = Timestamp::now();
        let id = DeadLetterId::new(now, rand::random());
        let known = Known::read(message).ok();
        let dead = Undelivered {
            fingerprint: fingerprint(&message.body),
            reason,
            error: &error,
            message: &message.body,
            event: known.as_ref().map(|known| (known.id, known.audience, &known.event_type)),
        };
        let mut client = self.store.client().await?;
        let transaction = client.transaction().await?;
        dead_letters::of_message(&transaction, id, &dead, now).await?;
        if let Some(known) = &known {
            // Otherwise it would come again from there, and whoever handled it would die again.
            events::give_up(&transaction, known.id, known.part).await?;
        }
        transaction.commit().await?;
        Ok(())
    }

    /// Files the dead letter of a delivery, unless it was filed before, and tells its tenant, if it wants to hear of it.
    pub async fn file_death(&self, tenant: TenantId, death: &Death) -> Result<()> {
        let now = whole_micros(Timestamp::now());
        let id = DeadLetterId::new(now, rand::random());
        let mut client = self.store.client().await?;
        let filed = if self.subscriptions.want(tenant, Kind::DeliveryExhausted) {
            let transaction = client.transaction().await?;
            let filed = dead_letters::of_delivery(&transaction, id, death, now).await?;
            let told = filed.clone().filter(|(parcel, _)| !parcel.event_type.is_operational());
            let notices: Vec<_> =
                told.map(|(parcel, reason)| (tenant, Notice::DeliveryExhausted(parcel, reason))).into_iter().collect();
            notices::tell(&transaction, &notices, now).await?;
            transaction.commit().await?;
            filed
        } else {
            dead_letters::of_delivery(&client, id, death, now).await?
        };
        if filed.is_some() {
            info!(delivery.id = %death.delivery, "delivery {} is a dead letter", death.delivery);
        }
        Ok(())
    }
}

/// The delivery that the message names, if it is one, and whose it is.
fn death(body: &[u8], fallback: Option<DeadReason>) -> Option<(TenantId, Death)> {
    let wire = message::Delivery::decode(body).ok()?;
    let id = message::uuid("delivery_id", &wire.delivery_id).ok()?;
    // An event message decodes as well; only a delivery has a subscription and a trigger.
    let is_delivery = wire.subscription_id.len() == 16 && !wire.trigger.is_empty();
    let tenant = message::uuid("tenant_id", &wire.tenant_id).ok()?;
    is_delivery.then(|| {
        let death = Death {
            delivery: DeliveryId::from_uuid(id),
            generation: wire.generation,
            attempt: wire.attempt,
            lease_until: from_micros(wire.lease_until_us),
            fallback,
        };
        (TenantId::from_uuid(tenant), death)
    })
}

fn fingerprint(body: &[u8]) -> Uuid {
    let mut bytes = [0; 16];
    bytes.copy_from_slice(&digest(&SHA256, body).as_ref()[..16]);
    Uuid::from_bytes(bytes)
}
