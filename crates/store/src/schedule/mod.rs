//! What is due: held deliveries whose time has come, and queued ones whose message was lost.
//!
//! The scheduler looks at subscriptions, not at deliveries: `subscription_runtime.next_due_at` is the
//! earliest due time among a subscription's held deliveries, or earlier. So a hundred thousand rows
//! of one endpoint are one row to look at, and never hide another's.

pub mod ordered;

use std::collections::HashMap;
use std::time::Duration;

use jiff::Timestamp;
use posthorn_core::breaker::Breaker;
use posthorn_core::delivery::Trigger;
use posthorn_core::hold::Hold;
use posthorn_core::id::{DeliveryId, EventId, SubscriptionId, TenantId};
use posthorn_core::pace::Bucket;
use posthorn_core::subscription::{self, RateLimit};
use tokio_postgres::Row;
use tracing::error;
use uuid::Uuid;

use crate::error::readable;
use crate::{GenericClient, Result, Transaction, health};

/// A subscription that has something due.
#[derive(Clone, Debug)]
pub struct Due {
    pub subscription_id: SubscriptionId,
    /// `None` when the subscription was deleted.
    pub state: Option<subscription::State>,
    /// Whether all of the row can be read. Of one that cannot nothing is sent: its limits are not known.
    pub is_readable: bool,
    /// Deliveries a second; `None` is no limit.
    pub per_second: Option<f64>,
    pub bucket: Bucket,
    pub timeout_secs: i32,
    pub breaker: Breaker,
    /// When its breaker closed for the last time.
    pub closed_at: Option<Timestamp>,
    /// Its endpoint asked for time.
    pub hold: Option<Hold>,
    /// Of an ordered one.
    pub line: Option<Line>,
}

/// The line in which an ordered subscription's deliveries stand.
#[derive(Clone, Copy, Debug)]
pub struct Line {
    /// Who stands at its head, and since when.
    pub head: Option<(DeliveryId, Timestamp)>,
    pub max_block: Duration,
}

/// Locks up to `limit` subscriptions with something due, for this transaction. Another scheduler
/// takes others meanwhile.
pub async fn due_subscriptions(db: &Transaction<'_>, limit: i64, now: Timestamp) -> Result<Vec<Due>> {
    let statement = db
        .prepare_cached(
            "SELECT r.subscription_id, r.tokens, r.tokens_at, s.state, s.timeout_seconds, s.deleted_at IS NOT NULL AS deleted,
                    r.breaker, r.breaker_until, r.cooldowns, r.breaker_closed_at, r.probes_succeeded, r.probes_failed,
                    r.hold_until, r.hold_per_second,
                    s.rate_limit, s.ordered, s.ordered_max_block_seconds, r.head, r.head_since
             FROM subscription_runtime r JOIN subscriptions s ON s.id = r.subscription_id
             WHERE r.next_due_at <= $2 ORDER BY r.next_due_at LIMIT $1 FOR UPDATE OF r SKIP LOCKED",
        )
        .await?;
    let rows = db.query(&statement, &[&limit, &now]).await?;
    Ok(rows.iter().map(due).collect())
}

/// One that cannot be read keeps no other from being served.
fn due(row: &Row) -> Due {
    let is_deleted: bool = row.get("deleted");
    let read = || -> Result<_> {
        let state = readable("subscriptions.state", crate::subscriptions::state(row.get("state")))?;
        Ok((state, crate::subscriptions::rate_limit(row)?, health::breaker(row)?))
    };
    let due = Due {
        subscription_id: SubscriptionId::from_uuid(row.get("subscription_id")),
        state: None,
        is_readable: true,
        per_second: None,
        bucket: Bucket { tokens: row.get("tokens"), at: row.get("tokens_at") },
        timeout_secs: row.get("timeout_seconds"),
        breaker: Breaker::CLOSED,
        closed_at: row.get("breaker_closed_at"),
        hold: health::hold(row),
        line: None,
    };
    match read() {
        _ if is_deleted => due,
        Ok((state, limit, breaker)) => Due {
            state: Some(state),
            per_second: limit.map(RateLimit::per_second),
            breaker,
            line: row.get::<_, bool>("ordered").then(|| line(row)),
            ..due
        },
        Err(fault) => {
            let id = due.subscription_id;
            error!(error = &fault as &dyn std::error::Error, subscription.id = %id, "nothing of it is released: {fault}");
            Due { state: Some(subscription::State::Paused), is_readable: false, ..due }
        }
    }
}

fn line(row: &Row) -> Line {
    let head: Option<Uuid> = row.get("head");
    let since: Option<Timestamp> = row.get("head_since");
    let seconds: i32 = row.get("ordered_max_block_seconds");
    Line {
        head: head.zip(since).map(|(head, since)| (DeliveryId::from_uuid(head), since)),
        max_block: Duration::from_secs(u64::try_from(seconds).unwrap_or_default()),
    }
}

/// How many deliveries of a subscription may go, and what its bucket holds then.
#[derive(Clone, Debug)]
pub struct Allowance {
    pub subscription_id: SubscriptionId,
    pub limit: i64,
    /// Under which lease they go.
    pub lease_until: Timestamp,
    pub bucket: Bucket,
    /// Look again at this time at the earliest: behind all others that are due, and not before there
    /// is something to hand out.
    pub not_before: Timestamp,
    /// Look no more until something changes (paused, disabled).
    pub sleep: bool,
    /// What goes finds out whether the endpoint is well again.
    pub probe: bool,
}

/// A delivery to publish.
#[derive(Clone, Debug)]
pub struct Release {
    pub id: DeliveryId,
    pub event_id: EventId,
    pub subscription_id: SubscriptionId,
    pub tenant_id: TenantId,
    pub event_type: String,
    pub generation: u32,
    /// The attempt to be made.
    pub attempt: u32,
    /// Of those before it, how many met an endpoint that asked for time.
    pub not_now: u32,
    pub lease_until: Timestamp,
    pub trigger: Trigger,
}

const RELEASE: &str = "
WITH w AS (SELECT * FROM unnest($1::uuid[], $2::bigint[], $3::timestamptz[], $5::bool[]) AS t(subscription_id, allowed, lease, probe)),
p AS (
    SELECT due.id, w.lease, w.probe FROM w CROSS JOIN LATERAL (
        SELECT d.id FROM deliveries d
        WHERE d.subscription_id = w.subscription_id AND d.state = 'held' AND d.due_at <= $4
        ORDER BY d.due_at, d.id LIMIT w.allowed FOR UPDATE SKIP LOCKED
    ) due
)
UPDATE deliveries d
SET state = 'queued', held_reason = NULL, due_at = p.lease, updated_at = $4
FROM p WHERE d.id = p.id AND d.state = 'held'
RETURNING d.id, d.event_id, d.subscription_id, d.tenant_id, d.event_type, d.generation, d.attempt, d.not_now, d.due_at,
          CASE WHEN p.probe THEN 'probe' ELSE d.trigger END AS trigger";

const SETTLE: &str = "
UPDATE subscription_runtime r
SET tokens = a.tokens, tokens_at = a.tokens_at,
    breaker = CASE WHEN a.probing_until IS NULL THEN r.breaker ELSE 'half_open' END,
    breaker_until = coalesce(a.probing_until, r.breaker_until),
    next_due_at = CASE WHEN a.sleep THEN NULL ELSE (
        SELECT greatest(min(d.due_at), CASE WHEN count(*) > 0 THEN a.not_before END) FROM (
            SELECT due_at FROM deliveries WHERE subscription_id = r.subscription_id AND state = 'held'
            ORDER BY due_at LIMIT 1) d) END
FROM unnest($1::uuid[], $2::float8[], $3::timestamptz[], $4::bool[], $5::timestamptz[], $6::timestamptz[])
    AS a(subscription_id, tokens, tokens_at, sleep, not_before, probing_until)
WHERE r.subscription_id = a.subscription_id";

/// Turns held deliveries into queued ones within their allowances, oldest first, and notes when to
/// look at their subscriptions again. To be published after the commit.
pub async fn release(db: &Transaction<'_>, allowances: &[Allowance], now: Timestamp) -> Result<Vec<Release>> {
    let ids: Vec<Uuid> = allowances.iter().map(|a| *a.subscription_id.as_uuid()).collect();
    let limits: Vec<i64> = allowances.iter().map(|a| a.limit).collect();
    let leases: Vec<Timestamp> = allowances.iter().map(|a| a.lease_until).collect();
    let statement = db.prepare_cached(RELEASE).await?;
    let probes: Vec<bool> = allowances.iter().map(|a| a.probe).collect();
    let rows = db.query(&statement, &[&ids, &limits, &leases, &now, &probes]).await?;
    let released = rows.iter().map(release_of).collect::<Result<Vec<_>>>()?;

    let mut counts: HashMap<SubscriptionId, i64> = HashMap::new();
    for release in &released {
        *counts.entry(release.subscription_id).or_default() += 1;
    }
    // What was allowed and not needed goes back into the bucket.
    let unused = |a: &Allowance| a.limit - counts.get(&a.subscription_id).copied().unwrap_or_default();
    let tokens: Vec<f64> = allowances.iter().map(|a| a.bucket.tokens + unused(a) as f64).collect();
    let tokens_at: Vec<Option<Timestamp>> = allowances.iter().map(|a| a.bucket.at).collect();
    let sleep: Vec<bool> = allowances.iter().map(|a| a.sleep).collect();
    let statement = db.prepare_cached(SETTLE).await?;
    let not_before: Vec<Timestamp> =
        allowances.iter().map(|a| if unused(a) > 0 { now } else { a.not_before }).collect();
    let probing = |a: &Allowance| (a.probe && unused(a) == 0).then_some(a.lease_until);
    let probing: Vec<Option<Timestamp>> = allowances.iter().map(probing).collect();
    db.execute(&statement, &[&ids, &tokens, &tokens_at, &sleep, &not_before, &probing]).await?;
    Ok(released)
}

/// Renews the lease of queued deliveries that outlived it: their message is lost, or its handler is.
pub async fn renew_lost(
    db: &impl GenericClient,
    limit: i64,
    lease_until: Timestamp,
    now: Timestamp,
) -> Result<Vec<Release>> {
    let statement = db
        .prepare_cached(
            "UPDATE deliveries SET due_at = $2
             WHERE id IN (SELECT id FROM deliveries WHERE state = 'queued' AND due_at <= $3
                          ORDER BY due_at LIMIT $1 FOR UPDATE SKIP LOCKED)
               AND state = 'queued' AND due_at <= $3
             RETURNING id, event_id, subscription_id, tenant_id, event_type, generation, attempt, not_now, due_at, trigger",
        )
        .await?;
    let rows = db.query(&statement, &[&limit, &lease_until, &now]).await?;
    rows.iter().map(release_of).collect()
}

/// Ends the leases of queued deliveries whose messages the broker never got, each with the lease that it went
/// under: whoever renews leases publishes them as soon as it can.
pub async fn give_back(db: &impl GenericClient, unpublished: &[(DeliveryId, Timestamp)], now: Timestamp) -> Result<()> {
    let ids: Vec<Uuid> = unpublished.iter().map(|(id, _)| *id.as_uuid()).collect();
    let leases: Vec<Timestamp> = unpublished.iter().map(|(_, lease)| *lease).collect();
    let statement = db
        .prepare_cached(
            "UPDATE deliveries d SET due_at = $3 FROM unnest($1::uuid[], $2::timestamptz[]) AS u(id, lease)
             WHERE d.id = u.id AND d.state = 'queued' AND d.due_at = u.lease",
        )
        .await?;
    db.execute(&statement, &[&ids, &leases, &now]).await?;
    Ok(())
}

/// Cancels up to `limit` deliveries that wait for deleted subscriptions. Returns how many there were.
pub async fn cancel(
    db: &impl GenericClient,
    subscriptions: &[SubscriptionId],
    limit: i64,
    now: Timestamp,
) -> Result<u64> {
    let ids: Vec<Uuid> = subscriptions.iter().map(|id| *id.as_uuid()).collect();
    let statement = db
        .prepare_cached(
            "UPDATE deliveries SET state = 'cancelled', held_reason = NULL, due_at = NULL, updated_at = $2
             WHERE id IN (SELECT id FROM deliveries WHERE subscription_id = ANY ($1) AND state = 'held' LIMIT $3)
               AND state = 'held'",
        )
        .await?;
    Ok(db.execute(&statement, &[&ids, &now, &limit]).await?)
}

fn release_of(row: &Row) -> Result<Release> {
    let number = |column| u32::try_from(row.get::<_, i32>(column)).unwrap_or_default();
    Ok(Release {
        id: DeliveryId::from_uuid(row.get("id")),
        event_id: EventId::from_uuid(row.get("event_id")),
        subscription_id: SubscriptionId::from_uuid(row.get("subscription_id")),
        tenant_id: TenantId::from_uuid(row.get("tenant_id")),
        event_type: row.get("event_type"),
        generation: number("generation"),
        attempt: number("attempt") + 1,
        not_now: number("not_now"),
        lease_until: row.get("due_at"),
        trigger: readable("deliveries.trigger", Trigger::parse(row.get("trigger")))?,
    })
}
