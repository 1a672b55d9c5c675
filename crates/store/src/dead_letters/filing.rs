//! How a dead letter comes to be, once for each death.

use jiff::Timestamp;
use posthorn_core::delivery::DeadReason;
use posthorn_core::event_type::EventType;
use posthorn_core::id::{DeadLetterId, DeliveryId, EventId, SubscriptionId, TenantId, floor};
use posthorn_core::operational::Parcel;
use posthorn_core::subscription::Audience;
use tokio_postgres::Row;
use uuid::Uuid;

use crate::error::readable;
use crate::{GenericClient, Result};

const OF_DELIVERY: &str = "
WITH d AS (
    -- A message that went round too often leaves its row behind as it was: that row ends here.
    UPDATE deliveries SET state = 'dead', dead_reason = $6, held_reason = NULL, due_at = NULL, updated_at = $5, told_generation = $3
    WHERE id = $2 AND generation = $3 AND attempt = $4 - 1 AND state = 'queued' AND $6 <> ''
      -- Only while the message's lease stands: an old double says nothing of a live delivery.
      AND due_at = $10
    RETURNING id, event_id, subscription_id, tenant_id, dead_reason, event_type
),
t AS (
    UPDATE deliveries SET told_generation = $3 WHERE id = $2 AND generation = $3 AND state = 'dead'
    RETURNING id, event_id, subscription_id, tenant_id, dead_reason, event_type
),
dead AS (
    SELECT id, event_id, subscription_id, tenant_id, dead_reason, event_type FROM d UNION ALL
    SELECT id, event_id, subscription_id, tenant_id, dead_reason, event_type FROM t
),
c AS (
    UPDATE subscription_runtime r
    SET failed = failed + 1, next_due_at = CASE WHEN r.head = d.id THEN least(r.next_due_at, $5) ELSE r.next_due_at END FROM d WHERE r.subscription_id = d.subscription_id
),
s AS (
    INSERT INTO delivery_stats AS s (tenant_id, subscription_id, hour, event_type, shard, failed)
    SELECT l.tenant_id, l.subscription_id, date_trunc('hour', $5::timestamptz), d.event_type, 0, 1
    FROM d CROSS JOIN LATERAL (VALUES
        (d.tenant_id, d.subscription_id), (d.tenant_id, $11::uuid),
        ($11::uuid, $11::uuid)
    ) AS l (tenant_id, subscription_id) ORDER BY 1, 2
    ON CONFLICT (tenant_id, subscription_id, hour, event_type, shard) DO UPDATE SET failed = s.failed + 1
)
INSERT INTO dead_letters (id, fingerprint, reason, delivery_id, subscription_id, event_id, tenant_id, event_type, generation,
                          error, died_at)
SELECT $1, $7, coalesce(dead.dead_reason, 'exhausted'), dead.id, dead.subscription_id, dead.event_id, dead.tenant_id,
       dead.event_type, $3,
       (SELECT coalesce(a.error_detail, a.error) FROM attempts a
        WHERE a.delivery_id = dead.id AND a.id >= $8 AND a.id <= $9 ORDER BY a.generation DESC, a.number DESC LIMIT 1), $5
FROM dead LIMIT 1
ON CONFLICT (fingerprint) DO NOTHING RETURNING delivery_id, subscription_id, event_id, event_type, reason";

/// What is known of a delivery that no longer moves.
#[derive(Clone, Copy, Debug)]
pub struct Death {
    pub delivery: DeliveryId,
    pub generation: u32,
    /// The attempt that its message was for, and the lease under which that was published.
    pub attempt: u32,
    pub lease_until: Timestamp,
    /// The reason where the row did not die by itself; `None` leaves such a row alone.
    pub fallback: Option<DeadReason>,
}

/// The dead letter of a delivery, whose row tells why it died. Told twice, it is written once; `None` the second time.
pub async fn of_delivery(
    db: &impl GenericClient,
    id: DeadLetterId,
    death: &Death,
    now: Timestamp,
) -> Result<Option<(Parcel, DeadReason)>> {
    let generation = i32::try_from(death.generation).unwrap_or(i32::MAX);
    let attempt = i32::try_from(death.attempt).unwrap_or(i32::MAX);
    let delivery = death.delivery.as_uuid();
    let fingerprint = Uuid::from_u128(delivery.as_u128() ^ u128::from(generation.unsigned_abs()));
    let first = floor(death.delivery.time());
    let last = Uuid::from_u128(first.as_u128() | (u128::MAX >> 48));
    let fallback = death.fallback.map_or("", DeadReason::as_str);
    let statement = db.prepare_cached(OF_DELIVERY).await?;
    let written = db
        .query_opt(
            &statement,
            &[
                id.as_uuid(),
                delivery,
                &generation,
                &attempt,
                &now,
                &fallback,
                &fingerprint,
                &first,
                &last,
                &death.lease_until,
                &crate::EVERY,
            ],
        )
        .await?;
    let Some(row) = written else { return Ok(None) };
    let parcel = Parcel {
        delivery_id: DeliveryId::from_uuid(row.get("delivery_id")),
        generation: death.generation,
        subscription_id: SubscriptionId::from_uuid(row.get("subscription_id")),
        event_id: EventId::from_uuid(row.get("event_id")),
        event_type: readable("dead_letters.event_type", EventType::parse(row.get("event_type")).ok())?,
    };
    Ok(Some((parcel, readable("dead_letters.reason", DeadReason::parse(row.get("reason")))?)))
}

/// A message that is of no delivery, and what is said of it.
#[derive(Clone, Copy, Debug)]
pub struct Undelivered<'a> {
    pub fingerprint: Uuid,
    pub reason: DeadReason,
    pub error: &'a str,
    pub message: &'a [u8],
    /// The event that was not fanned out, where it is one.
    pub event: Option<(EventId, Audience, &'a EventType)>,
}

/// The dead letter of a message that is of no delivery; the message is kept.
pub async fn of_message(
    db: &impl GenericClient,
    id: DeadLetterId,
    dead: &Undelivered<'_>,
    now: Timestamp,
) -> Result<()> {
    let statement = db
        .prepare_cached(
            "INSERT INTO dead_letters (id, fingerprint, reason, error, message, died_at, event_id, tenant_id, event_type)
             VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9) ON CONFLICT (fingerprint) DO NOTHING",
        )
        .await?;
    let event = dead.event.map(|(id, ..)| *id.as_uuid());
    let tenant = match dead.event {
        Some((_, Audience::Tenant(tenant), _)) => Some(*tenant.as_uuid()),
        _ => None,
    };
    let event_type = dead.event.map(|(.., event_type)| event_type.as_str());
    let reason = dead.reason.as_str();
    db.execute(
        &statement,
        &[id.as_uuid(), &dead.fingerprint, &reason, &dead.error, &dead.message, &now, &event, &tenant, &event_type],
    )
    .await?;
    Ok(())
}

/// Dead deliveries of the last days without a dead letter: their message was lost with the broker.
pub async fn untold(
    db: &impl GenericClient,
    since: Timestamp,
    settled_before: Timestamp,
    limit: i64,
) -> Result<Vec<(TenantId, Death)>> {
    let statement = db
        .prepare_cached(
            "SELECT id, generation, attempt, tenant_id FROM deliveries d
             WHERE state = 'dead' AND id >= $1 AND updated_at < $2
               AND told_generation IS DISTINCT FROM generation
             LIMIT $3",
        )
        .await?;
    let rows = db.query(&statement, &[&floor(since), &settled_before, &limit]).await?;
    let number = |row: &Row, column: usize| u32::try_from(row.get::<_, i32>(column)).unwrap_or_default();
    let death = |row: &Row| Death {
        delivery: DeliveryId::from_uuid(row.get(0)),
        generation: number(row, 1),
        attempt: number(row, 2),
        lease_until: since,
        fallback: None,
    };
    Ok(rows.iter().map(|row| (TenantId::from_uuid(row.get(3)), death(row))).collect())
}
