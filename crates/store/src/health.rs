//! How the endpoints of subscriptions do, and what follows from it.
//!
//! The statement that records attempts keeps what came of the last of them; whoever decides on that writes the
//! decision here, and only over what it was decided on.

use std::time::Duration;

use jiff::Timestamp;
use posthorn_core::breaker::{Breaker, Probes, State};
use posthorn_core::failing::Failing;
use posthorn_core::hold::Hold;
use posthorn_core::id::{AuditEntryId, SubscriptionId, TenantId};
use posthorn_core::operational::Notice;
use posthorn_core::time::Rfc3339;
use tokio_postgres::Row;
use uuid::Uuid;

use crate::audit_log::{self, Entry};
use crate::error::readable;
use crate::{GenericClient, Result, Transaction, notices};

/// A subscription whose endpoint is worth a look.
#[derive(Clone, Copy, Debug)]
pub struct Vitals {
    pub subscription_id: SubscriptionId,
    pub breaker: Breaker,
    /// When it closed for the last time.
    pub closed_at: Option<Timestamp>,
    pub hold: Option<Hold>,
}

pub(crate) fn vitals(row: &Row) -> Result<Vitals> {
    Ok(Vitals {
        subscription_id: SubscriptionId::from_uuid(row.get("subscription_id")),
        breaker: breaker(row)?,
        closed_at: row.get("breaker_closed_at"),
        hold: hold(row),
    })
}

pub(crate) fn breaker(row: &Row) -> Result<Breaker> {
    Ok(Breaker {
        state: readable("subscription_runtime.breaker", State::parse(row.get("breaker")))?,
        until: row.get("breaker_until"),
        cooldowns: u32::try_from(row.get::<_, i32>("cooldowns")).unwrap_or_default(),
        probes: Probes { succeeded: count(row, "probes_succeeded"), failed: count(row, "probes_failed") },
    })
}

fn count(row: &Row, column: &str) -> u8 {
    u8::try_from(row.get::<_, i16>(column)).unwrap_or_default()
}

pub(crate) fn hold(row: &Row) -> Option<Hold> {
    let until: Option<Timestamp> = row.get("hold_until");
    let per_second: Option<f64> = row.get("hold_per_second");
    Some(Hold { until: until?, per_second: per_second? })
}

/// Has a subscription wait as its endpoint asked, and tells every process. Of two that were decided on the same state
/// the first counts; its time and the other's are nearly the same.
pub async fn hold_back(db: &impl GenericClient, id: SubscriptionId, from: Option<&Hold>, to: &Hold) -> Result<()> {
    let statement = db
        .prepare_cached(
            "WITH r AS (
                 UPDATE subscription_runtime SET hold_until = $3, hold_per_second = $4
                 WHERE subscription_id = $1 AND hold_until IS NOT DISTINCT FROM $2 RETURNING subscription_id
             )
             SELECT pg_notify('posthorn_' || current_schema(), 'subscription:' || subscription_id) FROM r",
        )
        .await?;
    db.execute(&statement, &[id.as_uuid(), &from.map(|hold| hold.until), &to.until, &to.per_second]).await?;
    Ok(())
}

const TURN: &str = "
WITH r AS (
    UPDATE subscription_runtime
    SET breaker = $4, breaker_until = $5, cooldowns = $6, probes_succeeded = $8, probes_failed = $9,
        breaker_closed_at = CASE WHEN $4 = 'closed' THEN $7 ELSE breaker_closed_at END,
        -- Closed, its backlog may go; half open, the next probe may.
        next_due_at = CASE WHEN $4 = 'open' THEN next_due_at ELSE least(next_due_at, $7) END
    WHERE subscription_id = $1 AND breaker = $2 AND breaker_until IS NOT DISTINCT FROM $3
    RETURNING subscription_id
)
SELECT pg_notify('posthorn_' || current_schema(), 'subscription:' || subscription_id) FROM r";

/// Turns a breaker that is still as it was, and tells every process. False if it is not.
pub async fn turn(
    db: &impl GenericClient,
    id: SubscriptionId,
    from: &Breaker,
    to: &Breaker,
    now: Timestamp,
) -> Result<bool> {
    let cooldowns = i32::try_from(to.cooldowns).unwrap_or(i32::MAX);
    let statement = db.prepare_cached(TURN).await?;
    let turned = db
        .execute(
            &statement,
            &[
                id.as_uuid(),
                &from.state.as_str(),
                &from.until,
                &to.state.as_str(),
                &to.until,
                &cooldowns,
                &now,
                &i16::from(to.probes.succeeded),
                &i16::from(to.probes.failed),
            ],
        )
        .await?;
    Ok(turned > 0)
}

/// Has an endpoint whose breaker is open probed at once: somebody says that it is well.
pub async fn probe_now(db: &impl GenericClient, id: SubscriptionId, now: Timestamp) -> Result<()> {
    let statement = db
        .prepare_cached(
            "UPDATE subscription_runtime SET breaker_until = $2, next_due_at = least(next_due_at, $2)
             WHERE subscription_id = $1 AND breaker = 'open' AND breaker_until > $2",
        )
        .await?;
    db.execute(&statement, &[id.as_uuid(), &now]).await?;
    Ok(())
}

/// Forgets what came of attempts before somebody made a subscription active again.
pub async fn begin_anew(db: &impl GenericClient, id: SubscriptionId, now: Timestamp) -> Result<()> {
    let statement = db
        .prepare_cached(
            "UPDATE subscription_runtime
             SET breaker = 'closed', breaker_until = NULL, cooldowns = 0, probes_succeeded = 0, probes_failed = 0,
                 breaker_closed_at = $2, hold_until = NULL, hold_per_second = NULL, failing_since = NULL, warned_percent = 0
             WHERE subscription_id = $1",
        )
        .await?;
    db.execute(&statement, &[id.as_uuid(), &now]).await?;
    Ok(())
}

/// What was missing since `since` is being recovered.
pub async fn recovering(db: &impl GenericClient, id: SubscriptionId, since: Timestamp) -> Result<()> {
    let statement = db
        .prepare_cached(
            "UPDATE subscription_runtime SET recover_since = NULL WHERE subscription_id = $1 AND recover_since >= $2",
        )
        .await?;
    db.execute(&statement, &[id.as_uuid(), &since]).await?;
    Ok(())
}

/// A subscription that has failed for some time.
#[derive(Clone, Copy, Debug)]
pub struct Ailing {
    pub subscription_id: SubscriptionId,
    pub tenant_id: TenantId,
    pub failing: Failing,
}

/// Active subscriptions that have failed for the next of `percents`, or all, of `time`, longest first.
pub async fn failing_for(db: &impl GenericClient, time: Duration, percents: &[u8], limit: i64) -> Result<Vec<Ailing>> {
    let statement = db
        .prepare_cached(
            "SELECT r.subscription_id, r.tenant_id, r.failing_since, r.last_triggered_at, r.warned_percent, r.warned_at
             FROM subscription_runtime r JOIN subscriptions s ON s.id = r.subscription_id
             WHERE r.failing_since IS NOT NULL
               AND r.last_triggered_at - r.failing_since >= make_interval(secs => $1::float8 / 100 * coalesce(
                       (SELECT min(percent) FROM unnest($3::int[]) AS percent WHERE percent > r.warned_percent), 100))
               AND s.state = 'active' AND s.deleted_at IS NULL
             ORDER BY r.failing_since LIMIT $2",
        )
        .await?;
    let percents: Vec<i32> = percents.iter().map(|percent| i32::from(*percent)).collect();
    let rows = db.query(&statement, &[&time.as_secs_f64(), &limit, &percents]).await?;
    let ailing = |row: &Row| {
        Some(Ailing {
            subscription_id: SubscriptionId::from_uuid(row.get("subscription_id")),
            tenant_id: TenantId::from_uuid(row.get("tenant_id")),
            failing: failing(row)?,
        })
    };
    Ok(rows.iter().filter_map(ailing).collect())
}

pub(crate) fn failing(row: &Row) -> Option<Failing> {
    let since: Timestamp = row.get::<_, Option<Timestamp>>("failing_since")?;
    Some(Failing {
        since,
        last_attempt: row.get::<_, Option<Timestamp>>("last_triggered_at").unwrap_or(since),
        warned_percent: u8::try_from(row.get::<_, i16>("warned_percent")).unwrap_or_default(),
        warned_at: row.get("warned_at"),
    })
}

/// Warns a tenant once that `percent` of a subscription's time have passed.
pub async fn warn(
    db: &Transaction<'_>,
    ailing: &Ailing,
    percent: u8,
    disables_at: Timestamp,
    now: Timestamp,
) -> Result<bool> {
    let statement = db
        .prepare_cached(
            "UPDATE subscription_runtime SET warned_percent = $3, warned_at = $4
             WHERE subscription_id = $1 AND failing_since = $2 AND warned_percent < $3",
        )
        .await?;
    let id = ailing.subscription_id;
    let since = ailing.failing.since;
    if db.execute(&statement, &[id.as_uuid(), &since, &i16::from(percent), &now]).await? == 0 {
        return Ok(false);
    }
    let notice = Notice::SubscriptionWarning {
        subscription_id: id,
        failing_since: Rfc3339(since),
        percent,
        disables_at: Rfc3339(disables_at),
    };
    notices::tell(db, &[(ailing.tenant_id, notice)], now).await?;
    Ok(true)
}

/// Disables a subscription and tells its tenant, in one transaction. False if it is not active, or no longer fails
/// since `failing_since`.
pub async fn disable(
    db: &Transaction<'_>,
    id: SubscriptionId,
    reason: &'static str,
    failing_since: Option<Timestamp>,
    now: Timestamp,
) -> Result<bool> {
    let Some(tenant) = mark_disabled(db, id, reason, failing_since, now).await? else { return Ok(false) };
    tell_disabled(db, tenant, id, reason, now).await?;
    Ok(true)
}

/// The first half of [`disable`]. Whoever changes a subscription locks it first, and then what it counts: between the
/// two, attempts may be recorded.
pub async fn mark_disabled(
    db: &Transaction<'_>,
    id: SubscriptionId,
    reason: &'static str,
    failing_since: Option<Timestamp>,
    now: Timestamp,
) -> Result<Option<TenantId>> {
    let statement = db
        .prepare_cached(
            "UPDATE subscriptions s SET state = 'disabled', disabled_reason = $2, updated_at = $3
             WHERE id = $1 AND state = 'active' AND deleted_at IS NULL
               AND ($4::timestamptz IS NULL OR EXISTS (
                   SELECT FROM subscription_runtime r WHERE r.subscription_id = s.id AND r.failing_since = $4))
             RETURNING tenant_id",
        )
        .await?;
    let row = db.query_opt(&statement, &[id.as_uuid(), &reason, &now, &failing_since]).await?;
    Ok(row.map(|row| TenantId::from_uuid(row.get::<_, Uuid>(0))))
}

/// The second half of [`disable`].
pub async fn tell_disabled(
    db: &Transaction<'_>,
    tenant_id: TenantId,
    id: SubscriptionId,
    reason: &'static str,
    now: Timestamp,
) -> Result<()> {
    let statement = db
        .prepare_cached(
            "UPDATE subscription_runtime SET recover_since = coalesce(recover_since, failing_since, $2)
             WHERE subscription_id = $1 RETURNING recover_since",
        )
        .await?;
    let recover_since: Timestamp = db.query_one(&statement, &[id.as_uuid(), &now]).await?.get(0);
    let entry = Entry {
        id: AuditEntryId::new(now, rand::random()),
        actor: "posthorn".to_owned(),
        action: "disable".to_owned(),
        resource: "subscription".to_owned(),
        resource_id: id.to_string(),
        tenant_id: Some(tenant_id),
        before: None,
        after: Some(serde_json::json!({ "state": "disabled", "disabled_reason": reason })),
        request_id: None,
    };
    audit_log::insert(db, &entry).await?;
    let notice = Notice::SubscriptionDisabled { subscription_id: id, reason, recover_since: Rfc3339(recover_since) };
    notices::tell(db, &[(tenant_id, notice)], now).await
}
