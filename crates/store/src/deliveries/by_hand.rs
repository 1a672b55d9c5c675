//! What people do to deliveries: retry, replay, cancel.

use std::collections::HashSet;

use jiff::Timestamp;
use posthorn_core::delivery::{State, Trigger};
use posthorn_core::id::{DeliveryId, TenantId};
use uuid::Uuid;

use super::NewDelivery;
use crate::{GenericClient, Result};

const SET_GOING: &str = "
WITH d AS (
    UPDATE deliveries
    SET state = 'held', held_reason = CASE WHEN state = 'held' THEN held_reason ELSE 'replay' END, due_at = $3, dead_reason = NULL,
        -- What had ended begins anew; what waits only stops waiting.
        generation = generation + (state <> 'held')::int,
        attempt = CASE WHEN state = 'held' THEN attempt ELSE 0 END,
        trigger = $4, updated_at = $3
    WHERE id = $1 AND ($2::uuid IS NULL OR tenant_id = $2) AND state = ANY ($5)
    RETURNING id, subscription_id
),
r AS (
    UPDATE subscription_runtime r SET next_due_at = least(next_due_at, $3) FROM d WHERE r.subscription_id = d.subscription_id
),
l AS (DELETE FROM dead_letters USING d WHERE delivery_id = d.id)
SELECT id FROM d";

/// Sets a delivery going that is in one of the states `from`: a held one now, one that had ended in a
/// new generation. Whatever dead letter told of it is settled. False if it is in another state.
pub async fn set_going(
    db: &impl GenericClient,
    tenant: Option<TenantId>,
    id: DeliveryId,
    from: &[State],
    trigger: Trigger,
    now: Timestamp,
) -> Result<bool> {
    let from: Vec<&str> = from.iter().map(|state| state.as_str()).collect();
    let statement = db.prepare_cached(SET_GOING).await?;
    let tenant = tenant.map(|t| *t.as_uuid());
    let row = db.query_opt(&statement, &[id.as_uuid(), &tenant, &now, &trigger.as_str(), &from]).await?;
    Ok(row.is_some())
}

/// Ends a held delivery for good. False if it is in another state.
pub async fn cancel(db: &impl GenericClient, tenant: Option<TenantId>, id: DeliveryId, now: Timestamp) -> Result<bool> {
    let statement = db
        .prepare_cached(
            "UPDATE deliveries SET state = 'cancelled', held_reason = NULL, due_at = NULL, updated_at = $3
             WHERE id = $1 AND ($2::uuid IS NULL OR tenant_id = $2) AND state = 'held'",
        )
        .await?;
    Ok(db.execute(&statement, &[id.as_uuid(), &tenant.map(|t| *t.as_uuid()), &now]).await? > 0)
}

const REPLAY_EVENT: &str = "
WITH d AS (
    INSERT INTO deliveries (id, event_id, subscription_id, tenant_id, event_type, state, held_reason, due_at, trigger,
                            created_at, updated_at)
    SELECT id, event_id, subscription_id, tenant_id, event_type, 'held', 'replay', $6, 'replay', $6, $6
    FROM unnest($1::uuid[], $2::uuid[], $3::uuid[], $4::uuid[], $5::text[])
        AS t(id, event_id, subscription_id, tenant_id, event_type)
    -- What had ended begins anew; what is on its way is left alone.
    ON CONFLICT (id) DO UPDATE
    SET state = 'held', held_reason = 'replay', due_at = $6, dead_reason = NULL, trigger = 'replay',
        generation = deliveries.generation + 1, attempt = 0, updated_at = $6
    WHERE deliveries.state IN ('delivered', 'dead', 'cancelled')
    RETURNING id, subscription_id
),
r AS (
    UPDATE subscription_runtime r SET next_due_at = least(next_due_at, $6) FROM d WHERE r.subscription_id = d.subscription_id
),
l AS (DELETE FROM dead_letters USING d WHERE delivery_id = d.id)
SELECT id FROM d";

/// Sets an event going to subscriptions, whether or not it went there before. Tells which deliveries
/// began; the others are on their way. `held` and `due_at` of `deliveries` say nothing here.
pub async fn replay(
    db: &impl GenericClient,
    deliveries: &[NewDelivery],
    now: Timestamp,
) -> Result<HashSet<DeliveryId>> {
    let ids: Vec<Uuid> = deliveries.iter().map(|d| *d.id.as_uuid()).collect();
    let events: Vec<Uuid> = deliveries.iter().map(|d| *d.event_id.as_uuid()).collect();
    let subscriptions: Vec<Uuid> = deliveries.iter().map(|d| *d.subscription_id.as_uuid()).collect();
    let tenants: Vec<Uuid> = deliveries.iter().map(|d| *d.tenant_id.as_uuid()).collect();
    let types: Vec<&str> = deliveries.iter().map(|d| d.event_type.as_str()).collect();
    let statement = db.prepare_cached(REPLAY_EVENT).await?;
    let rows = db.query(&statement, &[&ids, &events, &subscriptions, &tenants, &types, &now]).await?;
    Ok(rows.iter().map(|row| DeliveryId::from_uuid(row.get(0))).collect())
}
