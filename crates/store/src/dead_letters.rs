//! What no longer moves.

use jiff::Timestamp;
use posthorn_core::delivery::DeadReason;
use posthorn_core::id::{DeadLetterId, DeliveryId, EventId, SubscriptionId, TenantId};
use tokio_postgres::Row;
use uuid::Uuid;

use crate::page::{self, Page, Span};
use crate::{GenericClient, Result};

#[derive(Clone, Debug)]
pub struct DeadLetter {
    pub id: DeadLetterId,
    pub reason: String,
    pub delivery_id: Option<DeliveryId>,
    pub subscription_id: Option<SubscriptionId>,
    pub event_id: Option<EventId>,
    pub tenant_id: Option<TenantId>,
    pub error: Option<String>,
    pub died_at: Timestamp,
}

const COLUMNS: &str = "id, reason, delivery_id, subscription_id, event_id, tenant_id, error, died_at";

const OF_DELIVERY: &str = "
WITH d AS (
    -- A message that went round too often leaves its row behind as it was: that row ends here.
    UPDATE deliveries SET state = 'dead', dead_reason = $6, held_reason = NULL, due_at = NULL, updated_at = $5
    WHERE id = $2 AND generation = $3 AND attempt = $4 - 1 AND state = 'queued' AND $6 <> ''
      -- Only while the message's lease stands: an old double says nothing of a live delivery.
      AND due_at = $10
    RETURNING id, event_id, subscription_id, tenant_id, dead_reason, event_type
),
dead AS (
    SELECT id, event_id, subscription_id, tenant_id, dead_reason FROM d UNION ALL
    SELECT id, event_id, subscription_id, tenant_id, dead_reason FROM deliveries
    WHERE id = $2 AND generation = $3 AND state = 'dead'
),
c AS (
    UPDATE subscription_runtime r SET failed = failed + 1 FROM d WHERE r.subscription_id = d.subscription_id
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
INSERT INTO dead_letters (id, fingerprint, reason, delivery_id, subscription_id, event_id, tenant_id, generation, error, died_at)
SELECT $1, $7, coalesce(dead.dead_reason, 'exhausted'), dead.id, dead.subscription_id, dead.event_id, dead.tenant_id, $3,
       (SELECT coalesce(a.error_detail, a.error) FROM attempts a
        WHERE a.delivery_id = dead.id AND a.id >= $8 AND a.id <= $9 ORDER BY a.generation DESC, a.number DESC LIMIT 1), $5
FROM dead LIMIT 1
ON CONFLICT (fingerprint) DO NOTHING";

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

/// The dead letter of a delivery, whose row tells why it died. Told twice, it is written once.
pub async fn of_delivery(db: &impl GenericClient, id: DeadLetterId, death: &Death, now: Timestamp) -> Result<bool> {
    let generation = i32::try_from(death.generation).unwrap_or(i32::MAX);
    let attempt = i32::try_from(death.attempt).unwrap_or(i32::MAX);
    let delivery = death.delivery.as_uuid();
    let fingerprint = Uuid::from_u128(delivery.as_u128() ^ u128::from(generation.unsigned_abs()));
    let first = posthorn_core::id::floor(death.delivery.time());
    let last = Uuid::from_u128(first.as_u128() | (u128::MAX >> 48));
    let fallback = death.fallback.map_or("", DeadReason::as_str);
    let statement = db.prepare_cached(OF_DELIVERY).await?;
    let written = db
        .execute(
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
    Ok(written > 0)
}

/// The dead letter of a message that names nothing we know; the message is kept.
pub async fn of_message(
    db: &impl GenericClient,
    id: DeadLetterId,
    fingerprint: Uuid,
    reason: DeadReason,
    error: &str,
    message: &[u8],
    now: Timestamp,
) -> Result<()> {
    let statement = db
        .prepare_cached(
            "INSERT INTO dead_letters (id, fingerprint, reason, error, message, died_at)
             VALUES ($1, $2, $3, $4, $5, $6) ON CONFLICT (fingerprint) DO NOTHING",
        )
        .await?;
    db.execute(&statement, &[id.as_uuid(), &fingerprint, &reason.as_str(), &error, &message, &now]).await?;
    Ok(())
}

/// Dead deliveries of the last days without a dead letter: their message was lost with the broker.
pub async fn untold(
    db: &impl GenericClient,
    since: Timestamp,
    settled_before: Timestamp,
    limit: i64,
) -> Result<Vec<(DeliveryId, u32, u32)>> {
    let statement = db
        .prepare_cached(
            "SELECT id, generation, attempt FROM deliveries d
             WHERE state = 'dead' AND id >= $1 AND updated_at < $2
               AND NOT EXISTS (SELECT FROM dead_letters l WHERE l.delivery_id = d.id AND l.generation = d.generation)
             LIMIT $3",
        )
        .await?;
    let rows = db.query(&statement, &[&posthorn_core::id::floor(since), &settled_before, &limit]).await?;
    let number = |row: &Row, column: usize| u32::try_from(row.get::<_, i32>(column)).unwrap_or_default();
    Ok(rows.iter().map(|row| (DeliveryId::from_uuid(row.get(0)), number(row, 1), number(row, 2))).collect())
}

/// What a list of dead letters is narrowed to.
#[derive(Clone, Debug, Default)]
pub struct Filter {
    /// `None` is the operator's view of everything.
    pub tenant_id: Option<TenantId>,
    pub subscription_id: Option<SubscriptionId>,
    pub reason: Option<String>,
    pub span: Span,
}

pub async fn list(db: &impl GenericClient, filter: &Filter, page: Page) -> Result<Vec<DeadLetter>> {
    let tenant = filter.tenant_id.map_or("$1::uuid IS NULL", |_| "tenant_id = $1");
    let subscription = filter.subscription_id.map_or("$5::uuid IS NULL", |_| "subscription_id = $5");
    let reason = filter.reason.as_ref().map_or("$6::text IS NULL", |_| "reason = $6");
    let sql = format!(
        "SELECT {COLUMNS} FROM dead_letters
         WHERE {tenant} AND {subscription} AND {reason} AND id < $2 AND id >= $3 AND id < $4
         ORDER BY id DESC LIMIT $7"
    );
    let statement = page::prepare(db, &sql).await?;
    let rows = db
        .query(
            &statement,
            &[
                &filter.tenant_id.map(|id| *id.as_uuid()),
                &page.before(),
                &filter.span.from,
                &filter.span.to,
                &filter.subscription_id.map(|id| *id.as_uuid()),
                &filter.reason,
                &page.fetch(),
            ],
        )
        .await?;
    Ok(rows.iter().map(dead_letter).collect())
}

/// One dead letter; `None` as `tenant` is the operator.
pub async fn find(db: &impl GenericClient, tenant: Option<TenantId>, id: DeadLetterId) -> Result<Option<DeadLetter>> {
    let sql = format!("SELECT {COLUMNS} FROM dead_letters WHERE id = $1 AND ($2::uuid IS NULL OR tenant_id = $2)");
    let statement = db.prepare_cached(&sql).await?;
    Ok(db.query_opt(&statement, &[id.as_uuid(), &tenant.map(|t| *t.as_uuid())]).await?.as_ref().map(dead_letter))
}

fn dead_letter(row: &Row) -> DeadLetter {
    DeadLetter {
        id: DeadLetterId::from_uuid(row.get("id")),
        reason: row.get("reason"),
        delivery_id: row.get::<_, Option<Uuid>>("delivery_id").map(DeliveryId::from_uuid),
        subscription_id: row.get::<_, Option<Uuid>>("subscription_id").map(SubscriptionId::from_uuid),
        event_id: row.get::<_, Option<Uuid>>("event_id").map(EventId::from_uuid),
        tenant_id: row.get::<_, Option<Uuid>>("tenant_id").map(TenantId::from_uuid),
        error: row.get("error"),
        died_at: row.get("died_at"),
    }
}
