//! What no longer moves.

use jiff::Timestamp;
use posthorn_core::delivery::DeadReason;
use posthorn_core::event_type::EventType;
use posthorn_core::id::{DeadLetterId, DeliveryId, EventId, SubscriptionId, TenantId, floor};
use posthorn_core::operational::Parcel;
use posthorn_core::replay::DeadLetterFilter;
use tokio_postgres::Row;
use tokio_postgres::types::ToSql;
use uuid::Uuid;

use crate::error::readable;
use crate::page::{self, Page, Span};
use crate::type_filter::Types;
use crate::{GenericClient, Result};

#[derive(Clone, Debug)]
pub struct DeadLetter {
    pub id: DeadLetterId,
    pub reason: String,
    pub delivery_id: Option<DeliveryId>,
    pub subscription_id: Option<SubscriptionId>,
    pub event_id: Option<EventId>,
    pub tenant_id: Option<TenantId>,
    pub event_type: Option<String>,
    pub error: Option<String>,
    pub died_at: Timestamp,
}

const COLUMNS: &str = "id, reason, delivery_id, subscription_id, event_id, tenant_id, event_type, error, died_at";

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

/// Which dead letters are meant; `tenant` is who may see them, `None` the operator.
#[derive(Clone, Debug)]
pub struct Narrowed<'a> {
    tenant: Option<Uuid>,
    filter: &'a DeadLetterFilter,
    types: Types,
}

impl<'a> Narrowed<'a> {
    pub fn new(tenant: Option<TenantId>, filter: &'a DeadLetterFilter) -> Self {
        let tenant = tenant.or(filter.tenant_id).map(|tenant| *tenant.as_uuid());
        Self { tenant, filter, types: Types::like(filter.event_type.as_deref().unwrap_or_default()) }
    }

    /// What holds for them, of the parameters `$1` to `$7`.
    fn conditions(&self) -> String {
        // A text for each, so that each uses its index.
        let tenant = self.tenant.map_or("$1::uuid IS NULL", |_| "tenant_id = $1");
        let subscription = self.filter.subscription_id.map_or("$2::uuid IS NULL", |_| "subscription_id = $2");
        let reason = self.filter.reason.map_or("$3::text IS NULL", |_| "reason = $3");
        let ids = self.filter.ids.as_ref().map_or("$4::uuid[] IS NULL", |_| "id = ANY ($4)");
        let types = match &self.types {
            Types::All => "cardinality($5::text[]) = 0",
            Types::These(_) | Types::Like(_) => "event_type LIKE ANY ($5)",
        };
        format!("{tenant} AND {subscription} AND {reason} AND {ids} AND {types} AND id >= $6 AND id < $7")
    }

    /// Those parameters.
    fn parameters(&self) -> Parameters {
        let whole = Span::default();
        Parameters {
            tenant: self.tenant,
            subscription: self.filter.subscription_id.map(|id| *id.as_uuid()),
            reason: self.filter.reason.map(DeadReason::as_str),
            ids: self.filter.ids.as_ref().map(|ids| ids.iter().map(|id| *id.as_uuid()).collect()),
            types: self.types.texts().to_vec(),
            from: self.filter.from.map_or(whole.from, |from| floor(from.0)),
            to: self.filter.to.map_or(whole.to, |to| floor(to.0)),
        }
    }
}

struct Parameters {
    tenant: Option<Uuid>,
    subscription: Option<Uuid>,
    reason: Option<&'static str>,
    ids: Option<Vec<Uuid>>,
    types: Vec<String>,
    from: Uuid,
    to: Uuid,
}

impl Parameters {
    fn and<'a>(&'a self, more: &[&'a (dyn ToSql + Sync)]) -> Vec<&'a (dyn ToSql + Sync)> {
        let ours: [&(dyn ToSql + Sync); 7] =
            [&self.tenant, &self.subscription, &self.reason, &self.ids, &self.types, &self.from, &self.to];
        [&ours, more].concat()
    }
}

pub async fn list(db: &impl GenericClient, narrowed: &Narrowed<'_>, page: Page) -> Result<Vec<DeadLetter>> {
    let sql = format!(
        "SELECT {COLUMNS} FROM dead_letters WHERE {} AND id < $8 ORDER BY id DESC LIMIT $9",
        narrowed.conditions()
    );
    let statement = page::prepare(db, &sql).await?;
    let rows = db.query(&statement, &narrowed.parameters().and(&[&page.before(), &page.fetch()])).await?;
    Ok(rows.iter().map(dead_letter).collect())
}

/// Dead letters of one subscription that died of the same.
#[derive(Clone, Debug)]
pub struct Group {
    pub subscription_id: Option<SubscriptionId>,
    pub tenant_id: Option<TenantId>,
    pub reason: String,
    pub error: Option<String>,
    pub count: i64,
    pub first_died_at: Timestamp,
    pub last_died_at: Timestamp,
}

/// The largest groups, at most `limit`, largest first.
pub async fn groups(db: &impl GenericClient, narrowed: &Narrowed<'_>, limit: i64) -> Result<Vec<Group>> {
    let sql = format!(
        "SELECT subscription_id, tenant_id, reason, error, count(*) AS count, min(died_at) AS first, max(died_at) AS last
         FROM dead_letters WHERE {} GROUP BY 1, 2, 3, 4 ORDER BY count(*) DESC, 1, 3, 4 LIMIT $8",
        narrowed.conditions()
    );
    let statement = page::prepare(db, &sql).await?;
    let rows = db.query(&statement, &narrowed.parameters().and(&[&limit])).await?;
    let group = |row: &Row| Group {
        subscription_id: row.get::<_, Option<Uuid>>("subscription_id").map(SubscriptionId::from_uuid),
        tenant_id: row.get::<_, Option<Uuid>>("tenant_id").map(TenantId::from_uuid),
        reason: row.get("reason"),
        error: row.get("error"),
        count: row.get("count"),
        first_died_at: row.get("first"),
        last_died_at: row.get("last"),
    };
    Ok(rows.iter().map(group).collect())
}

/// How many there are, and the newest of them.
pub async fn count(db: &impl GenericClient, narrowed: &Narrowed<'_>) -> Result<(i64, Option<DeadLetterId>)> {
    let conditions = narrowed.conditions();
    let sql = format!(
        "SELECT count(*), (SELECT id FROM dead_letters WHERE {conditions} ORDER BY id DESC LIMIT 1)
         FROM dead_letters WHERE {conditions}"
    );
    let statement = page::prepare(db, &sql).await?;
    let row = db.query_one(&statement, &narrowed.parameters().and(&[])).await?;
    Ok((row.get(0), row.get::<_, Option<Uuid>>(1).map(DeadLetterId::from_uuid)))
}

/// The oldest after `position` and before `through`, at most `limit`, with the delivery of each that has one.
pub async fn next(
    db: &impl GenericClient,
    narrowed: &Narrowed<'_>,
    position: Uuid,
    through: Uuid,
    limit: i64,
) -> Result<Vec<(DeadLetterId, Option<DeliveryId>)>> {
    let sql = format!(
        "SELECT id, delivery_id FROM dead_letters WHERE {} AND id > $8 AND id < $9 ORDER BY id LIMIT $10",
        narrowed.conditions()
    );
    let statement = page::prepare(db, &sql).await?;
    let rows = db.query(&statement, &narrowed.parameters().and(&[&position, &through, &limit])).await?;
    let delivery = |row: &Row| row.get::<_, Option<Uuid>>(1).map(DeliveryId::from_uuid);
    Ok(rows.iter().map(|row| (DeadLetterId::from_uuid(row.get(0)), delivery(row))).collect())
}

/// Forgets a dead letter; its delivery stays dead. False if there is none that `tenant` may see.
pub async fn delete(db: &impl GenericClient, tenant: Option<TenantId>, id: DeadLetterId) -> Result<bool> {
    let statement =
        db.prepare_cached("DELETE FROM dead_letters WHERE id = $1 AND ($2::uuid IS NULL OR tenant_id = $2)").await?;
    Ok(db.execute(&statement, &[id.as_uuid(), &tenant.map(|t| *t.as_uuid())]).await? > 0)
}

/// Forgets those meant, at most `limit` at once. Returns how many there were.
pub async fn purge(db: &impl GenericClient, narrowed: &Narrowed<'_>, limit: i64) -> Result<u64> {
    let sql = format!(
        "DELETE FROM dead_letters WHERE id IN (SELECT id FROM dead_letters WHERE {} LIMIT $8)",
        narrowed.conditions()
    );
    let statement = page::prepare(db, &sql).await?;
    Ok(db.execute(&statement, &narrowed.parameters().and(&[&limit])).await?)
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
        event_type: row.get("event_type"),
        error: row.get("error"),
        died_at: row.get("died_at"),
    }
}
