//! What people do to deliveries: retry, replay, cancel.

use std::collections::{HashMap, HashSet};

use jiff::Timestamp;
use posthorn_core::delivery::{State, Trigger};
use posthorn_core::id::{DeliveryId, TenantId};
use uuid::Uuid;

use super::{NewDelivery, bounds};
use crate::error::readable;
use crate::tenants::not_deleted;
use crate::{GenericClient, Result};

/// Wakes the scheduler for the subscriptions of `d`, locked in one order for everybody, and settles whatever dead
/// letters told of its deliveries. To follow the common table expression `d`.
const WAKE_AND_SETTLE: &str = "
w AS (
    SELECT subscription_id FROM subscription_runtime WHERE subscription_id IN (SELECT subscription_id FROM d)
    ORDER BY subscription_id FOR UPDATE
),
r AS (
    UPDATE subscription_runtime r SET next_due_at = least(next_due_at, $1) FROM w WHERE r.subscription_id = w.subscription_id
),
l AS (DELETE FROM dead_letters USING d WHERE delivery_id = d.id)
SELECT id FROM d";

/// Sets deliveries going that are in one of the states `from` and whose subscriptions are still there: held ones
/// now, those that had ended in a new generation. Tells which ones; the others are in another state.
pub async fn set_going(
    db: &impl GenericClient,
    tenant: Option<TenantId>,
    ids: &[DeliveryId],
    from: &[State],
    trigger: Trigger,
    now: Timestamp,
) -> Result<HashSet<DeliveryId>> {
    let from: Vec<&str> = from.iter().map(|state| state.as_str()).collect();
    let ids: Vec<Uuid> = ids.iter().map(|id| *id.as_uuid()).collect();
    let (first, last) = bounds(&ids);
    let sql = format!(
        "WITH d AS (
             UPDATE deliveries
             SET state = 'held', held_reason = CASE WHEN state = 'held' THEN held_reason ELSE 'replay' END,
                 -- What is due already keeps its place.
                 due_at = CASE WHEN state = 'held' THEN least(due_at, $1) ELSE $1 END,
                 -- What had ended begins anew; what waits only stops waiting.
                 dead_reason = NULL, generation = generation + (state <> 'held')::int,
                 attempt = CASE WHEN state = 'held' THEN attempt ELSE 0 END,
                 not_now = CASE WHEN state = 'held' THEN not_now ELSE 0 END, trigger = $4, updated_at = $1
             WHERE id = ANY ($2) AND id >= $6 AND id <= $7
               AND ($3::uuid IS NULL OR tenant_id = $3) AND state = ANY ($5)
               AND EXISTS (SELECT FROM subscriptions s JOIN tenants t ON t.id = s.tenant_id
                           WHERE s.id = subscription_id AND s.deleted_at IS NULL AND t.deleted_at IS NULL)
             RETURNING id, subscription_id
         ), {WAKE_AND_SETTLE}"
    );
    let statement = db.prepare_cached(&sql).await?;
    let tenant = tenant.map(|t| *t.as_uuid());
    let rows = db.query(&statement, &[&now, &ids, &tenant, &trigger.as_str(), &from, &first, &last]).await?;
    Ok(rows.iter().map(|row| DeliveryId::from_uuid(row.get(0))).collect())
}

/// Ends a held delivery for good. False if it is in another state.
pub async fn cancel(db: &impl GenericClient, tenant: Option<TenantId>, id: DeliveryId, now: Timestamp) -> Result<bool> {
    let sql = format!(
        "WITH d AS (
             UPDATE deliveries SET state = 'cancelled', held_reason = NULL, due_at = NULL, updated_at = $3
             WHERE id = $1 AND ($2::uuid IS NULL OR tenant_id = $2) AND {} AND state = 'held'
             RETURNING id, subscription_id
         ),
         -- The next one's turn, where they are ordered.
         r AS (
             UPDATE subscription_runtime r SET next_due_at = least(next_due_at, $3) FROM d
             WHERE r.subscription_id = d.subscription_id AND r.head = d.id
         )
         SELECT FROM d",
        not_deleted("tenant_id")
    );
    let statement = db.prepare_cached(&sql).await?;
    Ok(db.query_opt(&statement, &[id.as_uuid(), &tenant.map(|t| *t.as_uuid()), &now]).await?.is_some())
}

/// Sets events going to subscriptions: whether or not they went there before where `again`, otherwise only those
/// that did not. Tells which deliveries began; the others are there, or on their way. `held` and `due_at` of
/// `deliveries` say nothing here.
pub async fn replay(
    db: &impl GenericClient,
    deliveries: &[NewDelivery],
    again: bool,
    trigger: Trigger,
    now: Timestamp,
) -> Result<HashSet<DeliveryId>> {
    let sql = format!(
        "WITH d AS (
             INSERT INTO deliveries (id, event_id, subscription_id, tenant_id, event_type, state, held_reason, due_at, trigger,
                                     created_at, updated_at)
             SELECT id, event_id, subscription_id, tenant_id, event_type, 'held', 'replay', $1, $7, $1, $1
             FROM unnest($2::uuid[], $3::uuid[], $4::uuid[], $5::uuid[], $6::text[])
                 AS t(id, event_id, subscription_id, tenant_id, event_type)
             -- What had ended begins anew; what is on its way is left alone.
             ON CONFLICT (id) DO UPDATE
             SET state = 'held', held_reason = 'replay', due_at = $1, dead_reason = NULL, trigger = $7,
                 generation = deliveries.generation + 1, attempt = 0, not_now = 0, updated_at = $1
             WHERE $8 AND deliveries.state IN ('delivered', 'dead', 'cancelled')
             RETURNING id, subscription_id
         ), {WAKE_AND_SETTLE}"
    );
    let ids: Vec<Uuid> = deliveries.iter().map(|d| *d.id.as_uuid()).collect();
    let events: Vec<Uuid> = deliveries.iter().map(|d| *d.event_id.as_uuid()).collect();
    let subscriptions: Vec<Uuid> = deliveries.iter().map(|d| *d.subscription_id.as_uuid()).collect();
    let tenants: Vec<Uuid> = deliveries.iter().map(|d| *d.tenant_id.as_uuid()).collect();
    let types: Vec<&str> = deliveries.iter().map(|d| d.event_type.as_str()).collect();
    let statement = db.prepare_cached(&sql).await?;
    let rows = db
        .query(&statement, &[&now, &ids, &events, &subscriptions, &tenants, &types, &trigger.as_str(), &again])
        .await?;
    Ok(rows.iter().map(|row| DeliveryId::from_uuid(row.get(0))).collect())
}

/// In which states deliveries are, of those that are there.
pub async fn states(db: &impl GenericClient, ids: &[DeliveryId]) -> Result<HashMap<DeliveryId, State>> {
    let ids: Vec<Uuid> = ids.iter().map(|id| *id.as_uuid()).collect();
    let (first, last) = bounds(&ids);
    let statement =
        db.prepare_cached("SELECT id, state FROM deliveries WHERE id = ANY ($1) AND id >= $2 AND id <= $3").await?;
    let rows = db.query(&statement, &[&ids, &first, &last]).await?;
    rows.iter()
        .map(|row| {
            let state = readable("deliveries.state", State::parse(row.get(1)))?;
            Ok((DeliveryId::from_uuid(row.get(0)), state))
        })
        .collect()
}
