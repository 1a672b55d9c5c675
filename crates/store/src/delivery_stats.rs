//! What was delivered and what died, and how long attempts took, counted by the hour.
//!
//! The statement that records attempts counts them ([`crate::deliveries::record`]), so the numbers are
//! exact, and reading them scans no history: each is counted for its subscription, its tenant and all.

use std::collections::BTreeMap;

use jiff::Timestamp;
use posthorn_core::id::{SubscriptionId, TenantId};
use uuid::Uuid;

use crate::deliveries::QUEUED;
use crate::{EVERY, GenericClient, Result, rollup};

/// Whose deliveries are counted.
#[derive(Clone, Copy, Debug)]
pub enum Scope {
    /// Everybody's.
    All,
    Tenant(TenantId),
    Subscription(TenantId, SubscriptionId),
}

/// Counts over a time.
#[derive(Clone, Debug, Default)]
pub struct DeliveryStats {
    pub delivered: i64,
    /// Died.
    pub failed: i64,
    pub by_event_type: BTreeMap<String, Ends>,
    pub attempts: i64,
    pub failed_attempts: i64,
    pub average_ms: Option<f64>,
    /// Right to 10 %.
    pub p95_ms: Option<f64>,
}

/// How deliveries ended.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Ends {
    pub delivered: i64,
    pub failed: i64,
}

impl DeliveryStats {
    /// Delivered of all that ended; `None` if nothing did.
    pub fn success_rate(&self) -> Option<f64> {
        let ended = self.delivered + self.failed;
        (ended > 0).then(|| self.delivered as f64 / ended as f64)
    }
}

/// Counts from the hour in which `since` lies.
pub async fn of(db: &impl GenericClient, scope: Scope, since: Timestamp) -> Result<DeliveryStats> {
    let (tenant, subscription) = match scope {
        Scope::All => (EVERY, EVERY),
        Scope::Tenant(tenant) => (*tenant.as_uuid(), EVERY),
        Scope::Subscription(tenant, subscription) => (*tenant.as_uuid(), *subscription.as_uuid()),
    };
    let scope = "tenant_id = $1 AND subscription_id = $2";
    let sql = format!(
        "SELECT event_type, sum(delivered)::bigint, sum(failed)::bigint FROM {} s GROUP BY event_type",
        rollup::window("delivery_stats", scope, 3)
    );
    let statement = db.prepare_cached(&sql).await?;
    let mut stats = DeliveryStats::default();
    for row in db.query(&statement, &[&tenant, &subscription, &since]).await? {
        let ends = Ends { delivered: row.get(1), failed: row.get(2) };
        stats.delivered += ends.delivered;
        stats.failed += ends.failed;
        stats.by_event_type.insert(row.get(0), ends);
    }
    let sql = format!(
        "SELECT bucket, sum(attempts)::bigint, sum(failed)::bigint, sum(millis)::bigint FROM {} s
         GROUP BY bucket ORDER BY bucket",
        rollup::window("attempt_stats", scope, 3)
    );
    let statement = db.prepare_cached(&sql).await?;
    let mut buckets: Vec<(i16, i64)> = Vec::new();
    let mut millis = 0;
    for row in db.query(&statement, &[&tenant, &subscription, &since]).await? {
        let attempts: i64 = row.get(1);
        buckets.push((row.get(0), attempts));
        stats.attempts += attempts;
        stats.failed_attempts += row.get::<_, i64>(2);
        millis += row.get::<_, i64>(3);
    }
    if stats.attempts > 0 {
        stats.average_ms = Some(millis as f64 / stats.attempts as f64);
        stats.p95_ms = Some(percentile(&buckets, stats.attempts, 0.95));
    }
    Ok(stats)
}

/// The upper end of the bucket in which the `share`th of all attempts lies. `buckets` are sorted.
fn percentile(buckets: &[(i16, i64)], all: i64, share: f64) -> f64 {
    let wanted = (all as f64 * share).ceil() as i64;
    let mut seen = 0;
    let found = buckets.iter().find(|(_, attempts)| {
        seen += attempts;
        seen >= wanted
    });
    let bucket = found.or(buckets.last()).map_or(0, |(bucket, _)| *bucket);
    (1.1_f64.powi(i32::from(bucket)) - 1.0).max(0.0)
}

/// What waits for a subscription, and since when the oldest of it does.
pub async fn backlog(db: &impl GenericClient, subscription: SubscriptionId) -> Result<(i64, Option<Timestamp>)> {
    let sql = format!(
        "SELECT sum(n)::bigint, min(oldest) FROM (
             SELECT count(*) AS n, min(created_at) AS oldest FROM deliveries WHERE subscription_id = $1 AND state = 'held'
             UNION ALL
             SELECT count(*), min(created_at) FROM {QUEUED} q WHERE subscription_id = $1
         ) t"
    );
    let statement = db.prepare_cached(&sql).await?;
    let row = db.query_one(&statement, &[subscription.as_uuid()]).await?;
    Ok((row.get(0), row.get(1)))
}

/// Forgets the hours before `before`.
pub async fn drop_old(db: &impl GenericClient, before: Timestamp) -> Result<()> {
    db.execute("DELETE FROM delivery_stats WHERE hour < $1", &[&before]).await?;
    db.execute("DELETE FROM attempt_stats WHERE hour < $1", &[&before]).await?;
    Ok(())
}

/// Forgets all of a tenant. Returns how many rows went.
pub async fn erase(db: &impl GenericClient, tenant: Uuid) -> Result<u64> {
    let ends = db.execute("DELETE FROM delivery_stats WHERE tenant_id = $1", &[&tenant]).await?;
    Ok(ends + db.execute("DELETE FROM attempt_stats WHERE tenant_id = $1", &[&tenant]).await?)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As the statement that records attempts computes it.
    fn bucket(millis: f64) -> i16 {
        ((millis + 1.0).ln() / 1.1_f64.ln()).ceil() as i16
    }

    #[test]
    fn a_percentile_is_right_to_ten_per_cent() {
        for millis in [0.0, 1.0, 7.0, 99.0, 1234.0, 30_000.0] {
            let found = percentile(&[(bucket(0.0), 90), (bucket(millis), 10)], 100, 0.95);
            assert!(found >= millis - 1e-6 && found <= millis * 1.1 + 0.2, "{millis}: {found}");
        }
        assert_eq!(percentile(&[], 0, 0.95), 0.0);
    }
}
