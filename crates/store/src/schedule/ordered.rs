//! Ordered subscriptions: the one whose turn it is, and those that have stepped aside.

use std::collections::HashMap;

use jiff::Timestamp;
use posthorn_core::delivery::State;
use posthorn_core::id::{DeliveryId, SubscriptionId};
use posthorn_core::order::{Head, Turn};
use posthorn_core::pace::Bucket;
use uuid::Uuid;

use super::{Due, Release, release_of};
use crate::error::readable;
use crate::{Result, Transaction};

/// The heads of those that have one, as their rows are now.
pub async fn heads(db: &Transaction<'_>, due: &[Due]) -> Result<HashMap<SubscriptionId, Head>> {
    let heads = due.iter().filter_map(|due| Some((due.subscription_id, due.line?.head?)));
    let heads: HashMap<Uuid, (SubscriptionId, Timestamp)> =
        heads.map(|(subscription, (head, since))| (*head.as_uuid(), (subscription, since))).collect();
    if heads.is_empty() {
        return Ok(HashMap::new());
    }
    let ids: Vec<Uuid> = heads.keys().copied().collect();
    let (first, last) = crate::deliveries::bounds(&ids);
    let statement = db
        .prepare_cached(
            "SELECT id, state, due_at, attempt FROM deliveries WHERE id = ANY ($1) AND id >= $2 AND id <= $3",
        )
        .await?;
    let mut found: HashMap<SubscriptionId, Head> = heads
        .values()
        .map(|(id, since)| (*id, Head { state: None, due_at: None, attempts: 0, since: *since }))
        .collect();
    for row in db.query(&statement, &[&ids, &first, &last]).await? {
        if let Some((id, since)) = heads.get(&row.get::<_, Uuid>("id")) {
            let state = readable("deliveries.state", State::parse(row.get("state")))?;
            let attempts = u32::try_from(row.get::<_, i32>("attempt")).unwrap_or_default();
            found.insert(*id, Head { state: Some(state), due_at: row.get("due_at"), attempts, since: *since });
        }
    }
    Ok(found)
}

/// What an ordered subscription may send now.
#[derive(Clone, Copy, Debug)]
pub struct Ordered {
    pub subscription_id: SubscriptionId,
    pub turn: Turn,
    pub head: Option<DeliveryId>,
    /// Under which lease it goes.
    pub lease_until: Timestamp,
    /// After what may go was taken from it.
    pub bucket: Bucket,
    /// What goes finds out whether the endpoint is well again.
    pub probe: bool,
}

const RELEASE: &str = "
WITH pick AS (
    -- The head again; the next one; or one that stepped aside and goes on by itself.
    (SELECT id, 0 AS rank FROM deliveries WHERE id = $4 AND subscription_id = $1 AND state = 'held' AND due_at <= $2)
    UNION ALL
    (SELECT id, 1 FROM deliveries WHERE $3 AND subscription_id = $1 AND state = 'held' AND attempt = 0 AND due_at <= $2
     ORDER BY due_at, id LIMIT 1)
    UNION ALL
    (SELECT id, 2 FROM deliveries WHERE subscription_id = $1 AND state = 'held' AND attempt > 0 AND due_at <= $2
     ORDER BY due_at, id LIMIT 1)
    ORDER BY rank LIMIT 1
),
-- Whoever changes the delivery meanwhile waits for its subscription, which is locked here.
free AS (
    SELECT d.id FROM deliveries d JOIN pick ON pick.id = d.id WHERE d.state = 'held' FOR UPDATE OF d SKIP LOCKED
)
UPDATE deliveries d SET state = 'queued', held_reason = NULL, due_at = $5, updated_at = $2
FROM free WHERE d.id = free.id
RETURNING d.id, d.event_id, d.subscription_id, d.tenant_id, d.event_type, d.generation, d.attempt, d.not_now, d.due_at,
          CASE WHEN $6 THEN 'probe' ELSE d.trigger END AS trigger";

const SETTLE: &str = "
UPDATE subscription_runtime r
SET head = $2, head_since = CASE WHEN $8 THEN $3 ELSE head_since END, tokens = $4, tokens_at = $5,
    breaker = CASE WHEN $6::timestamptz IS NULL THEN breaker ELSE 'half_open' END,
    breaker_until = coalesce($6, breaker_until),
    next_due_at = CASE
        WHEN $2::uuid IS NULL OR $7::timestamptz IS NULL THEN
            (SELECT min(due_at) FROM deliveries d WHERE d.subscription_id = r.subscription_id AND state = 'held')
        ELSE least($7, (SELECT min(due_at) FROM deliveries d
                        WHERE d.subscription_id = r.subscription_id AND state = 'held' AND attempt > 0)) END
WHERE subscription_id = $1";

/// Releases one delivery: the one whose turn it is, which is then the head, or one that stepped aside. To be
/// published after the commit.
pub async fn release(db: &Transaction<'_>, ordered: &Ordered, now: Timestamp) -> Result<Option<Release>> {
    let is_next = ordered.turn == Turn::Next;
    let again = ordered.head.filter(|_| ordered.turn == Turn::Head).map(|id| *id.as_uuid());
    let id = ordered.subscription_id;
    let statement = db.prepare_cached(RELEASE).await?;
    let row =
        db.query_opt(&statement, &[id.as_uuid(), &now, &is_next, &again, &ordered.lease_until, &ordered.probe]).await?;
    let released = row.as_ref().map(release_of).transpose()?;

    // What goes for the first time stands at the head from now on; what stepped aside does not.
    let first = released.as_ref().filter(|release| release.attempt == 1).map(|release| release.id);
    let head = if is_next { first } else { ordered.head };
    let wait = match ordered.turn {
        Turn::Wait(until) => Some(until),
        Turn::Next | Turn::Head => released.as_ref().map(|_| ordered.lease_until),
    };
    let probing = released.as_ref().filter(|_| ordered.probe).map(|_| ordered.lease_until);
    let unused = if released.is_some() { 0.0 } else { 1.0 };
    let statement = db.prepare_cached(SETTLE).await?;
    db.execute(
        &statement,
        &[
            id.as_uuid(),
            &head.map(|id| *id.as_uuid()),
            &now,
            &(ordered.bucket.tokens + unused),
            &ordered.bucket.at,
            &probing,
            &wait,
            &first.is_some(),
        ],
    )
    .await?;
    Ok(released)
}
